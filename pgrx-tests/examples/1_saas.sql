--
-- ========== 1. Three companies in one schema ==========
--
-- A project tracker: tenants, users, projects, tasks, messages, templates, countries (examples/saas/*.sql).
\set ECHO none \i saas/schema.sql \i saas/data.sql \set ECHO all

-- As it is today, the application's role reads every company's rows. One forgotten WHERE is a leak.
\c - saas_app
SELECT t.slug, count(*) AS tasks FROM saas.tasks k JOIN saas.tenants t ON t.id = k.tenant_id GROUP BY 1 ORDER BY 1;

--
-- ---------- Register the tenants and protect the tables ----------
--
-- The tenants keep the ids that their rows have already.
\c - postgres
CREATE EXTENSION pg_tenancy;
SELECT tenancy.create_tenant(slug, name, id => id, plan => 'standard') FROM saas.tenants ORDER BY slug;

-- One role owns the tables and may protect them; another one runs the application.
SELECT tenancy.grant_admin('saas_owner');
SELECT tenancy.grant_usage('saas_app');

-- What would protecting one table do? Nothing has changed yet.
\c - saas_owner
SELECT step, action, lock, reason FROM tenancy.plan_protection('saas.tasks');

-- All tables at once: either all of this, or none of it.
-- refused 23502: two templates belong to no tenant, and must not become invisible by accident
SELECT * FROM tenancy.protect_schema('saas');

-- They are for everybody: readable by each tenant, writable by none.
SELECT tenancy.protect_table('saas.templates', access => 'shared');
SELECT * FROM tenancy.protect_schema('saas');

-- Countries are the same for all. In the application's own table of tenants, the key is the tenant column.
SELECT tenancy.protect_table('saas.countries', access => 'reference');
SELECT tenancy.protect_table('saas.tenants', tenant_column => 'id');

-- Foreign keys between protected tables now include the tenant; new rows get the tenant of their transaction.
\d saas.tasks

--
-- ---------- Each tenant sees its own rows ----------
--
-- Three ways to say who the transaction is for. A tenant is named by its code, its number or its id.
\c - saas_app
BEGIN;
SELECT tenancy.set_tenant('acme');
SELECT (SELECT name FROM saas.tenants) AS tenant, count(*) AS tasks FROM saas.tasks;
COMMIT;

BEGIN;
SET LOCAL app.current_tenant_id = 'globex';
SELECT (SELECT name FROM saas.tenants) AS tenant, count(*) AS tasks FROM saas.tasks;
COMMIT;

BEGIN;
SELECT set_config('app.current_tenant_id', '3', true);
SELECT (SELECT name FROM saas.tenants) AS tenant, count(*) AS tasks FROM saas.tasks;
COMMIT;

-- A day's work needs no mention of the tenant. The query uses the index on the tenant column.
BEGIN;
SET LOCAL app.current_tenant_id = 'initech';
INSERT INTO saas.projects (title, budget) VALUES ('Move office', 12000) RETURNING title, tenant_id;
UPDATE saas.tasks SET status = 'done' WHERE status = 'open';
UPDATE saas.projects SET budget = budget + 5000 WHERE title = 'Audit web shop' RETURNING title, budget;
DELETE FROM saas.users WHERE email = 'ben.abbott@initech.example' RETURNING name, email;
SELECT title FROM saas.templates ORDER BY 1;
EXPLAIN (COSTS OFF) SELECT count(*) FROM saas.tasks;
COMMIT;

--
-- ---------- Attacks ----------
--
-- refused 55000: no tenant is an error; never all rows, and never silently none
SELECT count(*) FROM saas.tasks;

-- refused 55000: SET without LOCAL, as a connection pool would hand it to the next client
SET app.current_tenant_id = 'acme';
SELECT count(*) FROM saas.tasks;

BEGIN; SET LOCAL app.current_tenant_id = 'acme';
-- refused 42501: a second tenant in one transaction
SET LOCAL app.current_tenant_id = 'globex';
ROLLBACK;

BEGIN; SET LOCAL app.current_tenant_id = 'acme';
-- refused 42501: the same from inside an injected WHERE clause
SELECT body FROM saas.messages WHERE set_config('app.current_tenant_id', 'globex', true) IS NOT NULL;
ROLLBACK;

BEGIN;
SAVEPOINT s; SET LOCAL app.current_tenant_id = 'acme'; ROLLBACK TO s;
-- refused 42501: the same behind a savepoint
SET LOCAL app.current_tenant_id = 'globex';
ROLLBACK;

BEGIN; SET LOCAL app.current_tenant_id = 'acme';
-- refused 42501: a row for another tenant
INSERT INTO saas.projects (tenant_id, title, budget) VALUES ('0a3c9d1e-5b1f-4c3a-9d60-1f7f0e4f2a02', 'planted', 1);
ROLLBACK;

BEGIN; SET LOCAL app.current_tenant_id = 'acme';
-- Rows of another tenant are not there to be changed or deleted ...
UPDATE saas.projects SET budget = 0 WHERE tenant_id = '0a3c9d1e-5b1f-4c3a-9d60-1f7f0e4f2a02' RETURNING title;
DELETE FROM saas.users WHERE email LIKE '%@globex.example' RETURNING email;
-- refused 42501: ... and one's own cannot be given away
UPDATE saas.projects SET tenant_id = '0a3c9d1e-5b1f-4c3a-9d60-1f7f0e4f2a02';
ROLLBACK;

BEGIN; SET LOCAL app.current_tenant_id = 'acme';
-- refused 23503: a task in Globex's project 50. An ordinary foreign key would have said that it exists.
INSERT INTO saas.tasks (project_id, title, status) VALUES (50, 'spy', 'open');
ROLLBACK;

BEGIN; SET LOCAL app.current_tenant_id = 'acme';
-- refused 42501: TRUNCATE passes row level security, but not its guard
TRUNCATE saas.messages;
ROLLBACK;

-- refused 42501: a stored setting, to be another tenant from the next login on
ALTER ROLE saas_app SET app.current_tenant_id = 'globex';

-- refused 42501: provisioning
SELECT tenancy.create_tenant('shadow');

-- The owner of the tables is bound as well.
\c - saas_owner
-- refused 55000: no tenant
SELECT count(*) FROM saas.messages;

--
-- ---------- A tenant's status takes effect at once ----------
--
\c - postgres
SELECT tenancy.suspend_tenant('globex', 'invoice 4711 is overdue');
SELECT tenancy.set_read_only('acme', 'export until Monday');
SELECT number, code, name, status, status_reason, plan FROM tenancy.tenants ORDER BY number;

\c - saas_app
BEGIN;
-- refused 55000: suspended
SELECT tenancy.set_tenant('globex');
ROLLBACK;

BEGIN; SET LOCAL app.current_tenant_id = 'acme';
SELECT count(*) AS readable FROM saas.messages;
-- refused 55000: read-only
DELETE FROM saas.messages;
ROLLBACK;

\c - postgres
SELECT tenancy.resume_tenant('globex'), tenancy.resume_tenant('acme');

--
-- ---------- How do I stand? ----------
--
\c - saas_app
BEGIN; SET LOCAL app.current_tenant_id = 'initech';
\x on
SELECT tenant_code, tenant_number, status, set_by, lifetime, role, is_bound, bound_reason FROM tenancy.verify_context();
\x off
COMMIT;
