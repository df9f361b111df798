-- What a DBA sees in psql of what becomes of rows in time.
\set VERBOSITY default
\set SHOW_CONTEXT never
CREATE ROLE regress_app;
SELECT tenancy.create_tenant('acme', number => 17, id => '11111111-1111-4111-8111-111111111111');
SELECT tenancy.grant_usage('regress_app');
CREATE SCHEMA shop;
GRANT USAGE ON SCHEMA shop TO regress_app;
SET search_path = shop;
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
SELECT tenancy.set_tenant('acme');
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
SELECT tenancy.set_tenant('acme');
DELETE FROM orders WHERE id = 1;
SELECT id FROM orders;
INSERT INTO orders (id, slug) VALUES (2, 'uno');
DELETE FROM orders RETURNING id, slug, deleted_at = now() AS now;
EXPLAIN (COSTS OFF) SELECT id FROM orders;
COMMIT;
BEGIN;
SELECT tenancy.set_tenant('acme');
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
SELECT part, is_due FROM tenancy.maintenance_due() ORDER BY part;
CALL tenancy.maintain();
SELECT part, state, failure FROM tenancy.maintenance_runs;
BEGIN;
CALL tenancy.maintain();
\echo :SQLSTATE
ROLLBACK;
SELECT regexp_replace(tenancy.schedule_maintenance('17 3 * * *'), '''[^'']+''', '...') AS answer;

DROP TABLE lines, orders, orders_archive;
DROP SCHEMA shop;
DROP OWNED BY regress_app;
DROP ROLE regress_app;
