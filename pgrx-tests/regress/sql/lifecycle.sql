-- What a DBA sees in psql when a tenant ends.
\set VERBOSITY default
\set SHOW_CONTEXT never
SELECT tenancy.create_tenant('acme', number => 17, id => '11111111-1111-4111-8111-111111111111', name => 'Acme Inc.', contact => '{"mail": "a@acme"}');
SELECT tenancy.create_tenant('globex', number => 18, id => '22222222-2222-4222-8222-222222222222');
CREATE SCHEMA shop;
SET search_path = shop;
CREATE TABLE customers (tenant_id uuid, id int, name text, PRIMARY KEY (tenant_id, id));
CREATE TABLE "s < e" (tenant_id uuid, id int, customer int, PRIMARY KEY (tenant_id, id), FOREIGN KEY (tenant_id, customer) REFERENCES customers);
CREATE TABLE pages (tenant_id uuid, id int, parent int, PRIMARY KEY (tenant_id, id), FOREIGN KEY (tenant_id, parent) REFERENCES pages);
CREATE TABLE events (tenant_id uuid, what text) PARTITION BY LIST (tenant_id);
CREATE TABLE events_acme PARTITION OF events FOR VALUES IN ('11111111-1111-4111-8111-111111111111');
CREATE TABLE events_others PARTITION OF events DEFAULT;
SELECT tenancy.protect_table('customers'), tenancy.protect_table('"s < e"'), tenancy.protect_table('pages'), tenancy.protect_table('events');
INSERT INTO customers SELECT t.id, g, 'c' || g FROM tenancy.tenants t, generate_series(1, 100) g;
INSERT INTO "s < e" SELECT t.id, g, g FROM tenancy.tenants t, generate_series(1, 100) g;
INSERT INTO pages SELECT t.id, g, g - 1 FROM tenancy.tenants t, generate_series(2, 100) g UNION ALL SELECT t.id, 1, NULL FROM tenancy.tenants t;
INSERT INTO events SELECT t.id, 'login' FROM tenancy.tenants t, generate_series(1, 100) g;
ANALYZE;

-- What would be done, and what is in its way.
CREATE TABLE strays (tenant_id uuid);
CREATE TABLE ratings (id int, tenant uuid, customer int, FOREIGN KEY (tenant, customer) REFERENCES customers);
SELECT step, relation, how, estimated_rows, lock, reason FROM tenancy.plan_purge('acme');
CALL tenancy.purge_tenant('acme', 'acme');
\echo :SQLSTATE
SELECT tenancy.suspend_tenant('acme');
CALL tenancy.purge_tenant('acme', 'acme');
\echo :SQLSTATE
DROP TABLE strays, ratings;
CALL tenancy.purge_tenant('acme', 'Acme', dry_run => false);
\echo :SQLSTATE
CALL tenancy.purge_tenant('acme', 'acme', dry_run => false, batch_size => 0);
\echo :SQLSTATE
SELECT tenancy.set_legal_hold('acme', 'case 4711');
CALL tenancy.purge_tenant('acme', 'acme', dry_run => false);
\echo :SQLSTATE
SELECT tenancy.release_legal_hold('acme');
SELECT tenancy.release_legal_hold('acme');
\echo :SQLSTATE
SELECT tenant_code, reason, is_in_force, released_by = session_user AS mine FROM tenancy.legal_holds;

-- First it tells, then it does.
CALL tenancy.purge_tenant('acme');
CALL tenancy.purge_tenant('acme', confirm => 'acme', dry_run => false, batch_size => 30);
SELECT number, tenant_id, tenant_number, tenant_code, rows, audit_entries, runs, is_intact FROM tenancy.purge_certificates;
SELECT jsonb_array_elements(tables) AS tables FROM tenancy.purge_certificates;
SELECT kind, subject, done, total, state FROM tenancy.jobs;
SELECT code, name, status, status_reason, contact, purged_at IS NOT NULL AS is_purged FROM tenancy.tenants ORDER BY code;
SELECT tenant_id, count(*) FROM customers GROUP BY 1 UNION ALL SELECT tenant_id, count(*) FROM pages GROUP BY 1;
SELECT relation, part_of FROM tenancy.protected_tables ORDER BY relation::text;
SELECT tenancy.undelete_tenant('acme');
\echo :SQLSTATE
SELECT tenancy.create_tenant('acme');
\echo :SQLSTATE
CALL tenancy.purge_tenant('acme', confirm => 'acme', dry_run => false);
SELECT tenancy_internal.purge_step(1);
\echo :SQLSTATE

-- Keys that are used once.
BEGIN;
SELECT tenancy.set_tenant('globex');
SELECT tenancy.once('a'), tenancy.once('a'), tenancy.once('b');
SELECT tenancy.once(repeat('x', 1001));
\echo :SQLSTATE
ROLLBACK;
SHOW tenancy.once_retention;

-- Who made a row.
CREATE TABLE stamped (id int, updated_by name);
SELECT * FROM tenancy.plan_stamps('stamped');
\echo :SQLSTATE
ALTER TABLE stamped DROP COLUMN updated_by;
SELECT * FROM tenancy.plan_stamps('stamped');
SELECT tenancy.enable_stamps('stamped');
SET app.current_user_id = 'ann';
INSERT INTO stamped (id, created_by) VALUES (1, 'somebody');
SELECT id, created_by, updated_by, created_at <= now() AS is_past FROM stamped;
ALTER TABLE stamped ALTER COLUMN updated_by TYPE name;
UPDATE stamped SET id = 2;
\echo :SQLSTATE
SELECT tenancy.disable_stamps('stamped');
UPDATE stamped SET id = 2;
SELECT tenancy.enable_stamps('events_others');
\echo :SQLSTATE
DROP TABLE stamped;

-- The first tenant and the roles.
CREATE ROLE regress_app;
CREATE ROLE regress_admin;
SELECT tenancy.bootstrap('main', 'regress_admin', 'regress_admin');
\echo :SQLSTATE
SELECT tenancy.bootstrap('main', 'regress_app', NULL);
\echo :SQLSTATE
SELECT tenancy.bootstrap('main', 'regress_app', 'regress_admin') = tenancy.find_tenant('main') AS ready;
SELECT tenancy.revoke_admin('regress_admin'), tenancy.revoke_usage('regress_app');
DROP ROLE regress_app, regress_admin;
