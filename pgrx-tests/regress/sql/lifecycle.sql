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

DROP TABLE orders;
DROP SCHEMA shop;
DROP OWNED BY regress_app;
DROP ROLE regress_app;
