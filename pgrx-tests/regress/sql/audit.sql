-- What a DBA sees in psql when he audits a table, and what a tenant reads of it.
\set VERBOSITY default
\set SHOW_CONTEXT never
CREATE ROLE regress_app;
SELECT tenancy.create_tenant('acme', number => 17, id => '11111111-1111-4111-8111-111111111111');
SELECT tenancy.create_tenant('globex', number => 18, id => '22222222-2222-4222-8222-222222222222');
SELECT tenancy.grant_usage('regress_app');
GRANT SELECT ON tenancy.audit_log TO regress_app;
CREATE SCHEMA shop;
GRANT USAGE ON SCHEMA shop TO regress_app;
SET search_path = shop;
CREATE TABLE orders (id bigint PRIMARY KEY, item text NOT NULL, price numeric, card text, seen timestamptz);

-- Only what is protected, unless the DBA says otherwise.
SELECT tenancy.audit_table('orders');
\echo :SQLSTATE
SELECT tenancy.protect_table('orders');
GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO regress_app;

-- The plan, and what it makes.
SELECT step, action, statement, lock, reason FROM tenancy.plan_audit('orders', redact_columns => '{card}') \gx
SELECT tenancy.audit_table('orders', ignore_columns => '{seen}', redact_columns => '{card}');
SELECT * FROM tenancy.plan_audit('orders');
SELECT relation, row_images, ignore_columns, redact_columns, tenant_column, is_enforced FROM tenancy.audited_tables;

-- A tenant works.
SET ROLE regress_app;
SET app.current_user_id = 'alice';
BEGIN;
SELECT tenancy.set_tenant('acme');
INSERT INTO orders VALUES (1, 'lamp', 19.90, '4111', NULL), (2, 'desk', 249, NULL, NULL);
UPDATE orders SET price = 17.50, card = '4222' WHERE id = 1;
UPDATE orders SET seen = '2026-01-01' WHERE id = 1;
UPDATE orders SET id = 3 WHERE id = 1;
DELETE FROM orders WHERE id = 2;
SELECT tenancy.log_event('export', 'report', 'r-7', '{"format": "pdf"}') > 0 AS logged;
SELECT table_name, action, row_key, changed_columns, old_values, new_values, actor, session_role, "current_role"
  FROM tenancy.audit_log ORDER BY id;

-- One row's history, and how it was.
SELECT action, row_key, old_values, new_values, actor FROM tenancy.row_history('orders', '{"id": 3}');
SELECT tenancy.row_as_of('orders', '{"id": 3}', now());
SELECT tenancy.row_as_of('orders', '{"id": 3}', clock_timestamp());
SELECT * FROM tenancy.row_history('orders', '{"number": 3}');
\echo :SQLSTATE
ROLLBACK;

-- The columns of then, by the names of then; and what the log cannot tell.
BEGIN;
SELECT tenancy.set_tenant('acme');
INSERT INTO orders VALUES (9, 'shelf', 99);
COMMIT;
SELECT clock_timestamp() AS then \gset
RESET ROLE;
ALTER TABLE orders RENAME price TO amount;
ALTER TABLE orders ADD price text DEFAULT 'on request';
ALTER TABLE orders ALTER item TYPE text USING upper(item);
SELECT tenancy.row_as_of('orders', '{"id": 9}', :'then') - 'tenant_id' AS then, tenancy.row_as_of('orders', '{"id": 9}', clock_timestamp()) - 'tenant_id' AS now;
DELETE FROM orders WHERE id = 9;
ALTER TABLE orders DROP price;
ALTER TABLE orders RENAME amount TO price;
\set VERBOSITY terse
SELECT tenancy.row_as_of('orders', '{"id": 9}', '2020-01-01 00:00+00');
\echo :SQLSTATE
\set VERBOSITY default
SET ROLE regress_app;

-- Undoing a transaction.
BEGIN;
SELECT tenancy.set_tenant('acme');
INSERT INTO orders VALUES (1, 'lamp', 19.90), (2, 'desk', 249);
COMMIT;
BEGIN;
SELECT tenancy.set_tenant('acme');
UPDATE orders SET price = price * 2;
DELETE FROM orders WHERE id = 2;
SELECT pg_current_xact_id() AS mistake \gset
COMMIT;
BEGIN;
SELECT tenancy.set_tenant('acme');
SELECT table_name, row_key, action, outcome FROM tenancy.revert_transaction(:mistake);
UPDATE orders SET price = price * 2 WHERE id = 1;
SELECT table_name, row_key, action, outcome FROM tenancy.revert_transaction(:mistake);
SELECT id, price FROM orders;
SELECT table_name, action, row_count FROM tenancy.tenant_activity() ORDER BY occurred_at, table_name;
ROLLBACK;

-- Nobody else reads it, nobody changes it.
BEGIN;
SELECT tenancy.set_tenant('globex');
SELECT count(*) FROM tenancy.audit_log;
SELECT * FROM tenancy.tenant_activity('acme');
\echo :SQLSTATE
ROLLBACK;
SELECT count(*) FROM tenancy.audit_log;
\echo :SQLSTATE
DELETE FROM tenancy.audit_log;
\echo :SQLSTATE
SELECT * FROM tenancy_internal.audit_chunks;
\echo :SQLSTATE
RESET ROLE;

-- What ends an audit is told, or refused to those who may not.
ALTER TABLE orders DISABLE TRIGGER tenancy_audit_update;
SELECT relation, is_enforced FROM tenancy.audited_tables;
SELECT tenancy.audit_table('orders');
SELECT relation, is_enforced FROM tenancy.audited_tables;
CREATE TABLE events (id int, tenant_id uuid, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE events_2026 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
SELECT tenancy.protect_table('events'), tenancy.audit_table('events');
CREATE TABLE events_2027 PARTITION OF events FOR VALUES FROM ('2027-01-01') TO ('2028-01-01');
ALTER TABLE events DETACH PARTITION events_2026;
SELECT relation, is_enforced, part_of FROM tenancy.audited_tables ORDER BY relation::text;
SELECT tenancy.audit_table('events_2027');
\echo :SQLSTATE

-- The log outlives the table.
SELECT tenancy.unaudit_table('events');
SELECT tenancy.unaudit_table('events');
\echo :SQLSTATE
DROP TABLE orders, events, events_2026;
SELECT count(*) FROM tenancy.audited_tables;
SELECT table_name, action, count(*) FROM tenancy.audit_log GROUP BY 1, 2 ORDER BY 1, 2;
DROP SCHEMA shop;
DROP OWNED BY regress_app;
DROP ROLE regress_app;
