--
-- ========== 3. An attacker, an owner and a busy Friday ==========
--
-- The same company as in the first story. The server has the library in shared_preload_libraries, so the fence stands.
\c - saas_app
SELECT loaded_by, fence FROM tenancy.verify_context();

--
-- ---------- A context that SQL cannot forge ----------
--
-- Whoever can send any SQL can begin a transaction of his own and name another tenant in it.
BEGIN; SELECT tenancy.set_tenant('globex');
SELECT (SELECT name FROM saas.tenants) AS tenant, count(*) AS tasks FROM saas.tasks;
COMMIT;

-- Signed mode takes only a token's word. The key is known to the application's back end and to the server.
\c - postgres
SELECT tenancy.add_signing_key('2026', 'HS256', 'a secret of more than thirty-two bytes');
ALTER ROLE saas_app SET tenancy.context_mode = 'signed';
SELECT tenancy.sign_tenant_token('acme', '5 minutes') AS token \gset
\c - saas_app
BEGIN;
-- refused 42501: his word is not enough
SELECT tenancy.set_tenant('globex');
ROLLBACK;
BEGIN;
SELECT tenancy.set_tenant_signed(:'token') IS NOT NULL AS accepted;
SELECT (SELECT name FROM saas.tenants) AS tenant, count(*) AS tasks FROM saas.tasks;
COMMIT;
\c - postgres
ALTER ROLE saas_app RESET tenancy.context_mode;

--
-- ---------- What gets past row security does not get past the fence ----------
--
-- A report that somebody made as a superuser reads with a superuser's rights.
CREATE VIEW saas.all_tasks AS SELECT * FROM saas.tasks;
GRANT SELECT ON saas.all_tasks TO saas_app;
\c - saas_app
BEGIN; SET LOCAL app.current_tenant_id = 'acme';
-- refused 42501: the view's owner is not bound
SELECT count(*) FROM saas.all_tasks;
ROLLBACK;

-- A superuser who serves a tenant is stopped as well; without a tenant he does his maintenance.
\c - postgres
BEGIN; SET LOCAL app.current_tenant_id = 'acme';
-- refused 42501
SELECT count(*) FROM saas.tasks;
ROLLBACK;
SELECT count(*) AS tasks_of_all_tenants FROM saas.tasks;

-- A role that must see everything is named, with the reason.
CREATE ROLE saas_reporter LOGIN BYPASSRLS;
GRANT USAGE ON SCHEMA saas TO saas_reporter;
GRANT SELECT ON saas.tasks TO saas_reporter;
\c - saas_reporter
-- refused 42501
SELECT count(*) FROM saas.tasks;
\c - postgres
SELECT tenancy.exempt_role('saas_reporter', 'monthly figures', until => now() + '1 hour');
\c - saas_reporter
SELECT count(*) AS tasks_of_all_tenants FROM saas.tasks;

--
-- ---------- A year of migrations ----------
--
-- The schema was protected as a whole, so a new table with the tenant column is protected as it comes.
\c - saas_owner
CREATE TABLE saas.invoices (id int PRIMARY KEY, tenant_id uuid NOT NULL, amount numeric NOT NULL);
SELECT relation, tenant_column, is_enforced FROM tenancy.protected_tables WHERE relation = 'saas.invoices'::regclass;
DROP TABLE saas.invoices;

-- The owner holds the admin grant here. Without it, nothing that protects a table comes off it.
\c - postgres
SELECT tenancy.revoke_admin('saas_owner');
\c - saas_owner
-- refused 42501
ALTER TABLE saas.tasks NO FORCE ROW LEVEL SECURITY;
-- refused 42501
DROP POLICY tenancy_isolation ON saas.tasks;
-- refused 42501
ALTER TABLE saas.tasks ALTER tenant_id DROP NOT NULL;
-- What a migration usually does goes through.
ALTER TABLE saas.tasks ADD COLUMN due date;
ALTER TABLE saas.tasks RENAME COLUMN due TO due_on;

-- An unprotected view over protected tables is told of, even to a superuser, with the way out.
\c - postgres
SELECT tenancy.grant_admin('saas_owner');
DROP VIEW saas.all_tasks;
CREATE VIEW saas.all_tasks AS SELECT * FROM saas.tasks;

--
-- ---------- What was refused ----------
--
\c - postgres
SELECT kind, count, last_hour FROM tenancy.violations WHERE count > 0 ORDER BY kind;
DROP VIEW saas.all_tasks;
