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

-- What becomes of rows in time.
RESET app.current_user_id;
CREATE ROLE regress_app;
SELECT tenancy.create_tenant('initech', number => 21, id => '33333333-3333-4333-8333-333333333333');
SELECT tenancy.grant_usage('regress_app');
CREATE SCHEMA desk;
GRANT USAGE ON SCHEMA desk TO regress_app;
SET search_path = desk;
CREATE TABLE orders (id bigint PRIMARY KEY, slug text, created_at timestamp);
SELECT tenancy.protect_table('orders');
GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO regress_app;

-- Stamps
SELECT tenancy.enable_stamps('orders');
\echo :SQLSTATE
ALTER TABLE orders ALTER created_at TYPE timestamptz;
SELECT * FROM tenancy.plan_stamps('orders') \gx
SELECT tenancy.enable_stamps('orders');
SELECT relation, is_enforced, columns_added FROM tenancy.stamped_tables;
SET ROLE regress_app;
BEGIN;
SELECT tenancy.set_tenant('initech');
SET LOCAL app.current_user_id = 'alice';
INSERT INTO orders (id, slug, created_by) VALUES (1, 'one', 'mallory') RETURNING id, created_by, updated_by, created_at = now() AS stamped;
COMMIT;
RESET ROLE;
ALTER TABLE orders DROP COLUMN updated_by;
UPDATE orders SET slug = 'uno';
\echo :SQLSTATE
SELECT tenancy.disable_stamps('orders', drop_columns => true);
SELECT tenancy.disable_stamps('orders');
\echo :SQLSTATE
SELECT attname FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum;

-- Soft delete
ALTER TABLE orders ADD CONSTRAINT orders_slug_key UNIQUE (tenant_id, slug);
CREATE TABLE lines (id int PRIMARY KEY, order_id bigint REFERENCES orders);
SELECT * FROM tenancy.plan_soft_delete('orders') \gx
SELECT tenancy.enable_soft_delete('orders');
SELECT relation, is_enforced, columns_added FROM tenancy.soft_deleted_tables;
SET ROLE regress_app;
BEGIN;
SELECT tenancy.set_tenant('initech');
DELETE FROM orders WHERE id = 1;
SELECT id FROM orders;
INSERT INTO orders (id, slug) VALUES (2, 'uno');
DELETE FROM orders RETURNING id, slug, deleted_at = now() AS now;
EXPLAIN (COSTS OFF) SELECT id FROM orders;
COMMIT;
BEGIN;
SELECT tenancy.set_tenant('initech');
SET LOCAL tenancy.with_deleted = on;
SELECT id FROM orders;
\echo :SQLSTATE
ROLLBACK;
RESET ROLE;
SELECT tenancy.restore_row('orders', '{"id": 1}');
SELECT tenancy.restore_row('orders', '{"id": 1}');
\echo :SQLSTATE
SELECT tenancy.restore_row('orders', '{"slug": "uno"}');
\echo :SQLSTATE
ALTER TABLE orders DISABLE ROW LEVEL SECURITY;
\echo :SQLSTATE
SELECT tenancy.disable_soft_delete('orders');
\echo :SQLSTATE

-- Retention
SELECT tenancy.set_retention('orders', 'slug', '1 day');
\echo :SQLSTATE
SELECT tenancy.set_retention('orders', 'created_at', '0');
\echo :SQLSTATE
SELECT tenancy.set_retention('orders', 'created_at', '90 days', action => 'archive');
SELECT relation, tenant_code, column_name, keep, action, archive, last_run, failure FROM tenancy.retention_rules;
UPDATE orders SET created_at = '2020-01-01' WHERE id = 1;
CALL tenancy.run_retention();
SELECT id, slug, archived_at IS NOT NULL AS archived FROM orders_archive;

-- Grace
CALL tenancy.purge_deleted();
SET tenancy.deletion_grace = 0;
CALL tenancy.purge_deleted();
SELECT count(*) FROM orders;

-- Maintenance
SELECT DISTINCT part, is_due FROM tenancy.maintenance_due() ORDER BY part;
CALL tenancy.maintain();
SELECT part, state, failure FROM tenancy.maintenance_runs;
BEGIN;
CALL tenancy.maintain();
\echo :SQLSTATE
ROLLBACK;
SELECT regexp_replace(tenancy.schedule_maintenance('17 3 * * *'), '''[^'']+''', '...') AS answer;

DROP TABLE lines, orders, orders_archive;
DROP SCHEMA desk;
DROP OWNED BY regress_app;
DROP ROLE regress_app;
