-- shared_preload_libraries: what people meet who get past row security, on purpose or not.
\set VERBOSITY default
\set SHOW_CONTEXT never
CREATE ROLE regress_owner LOGIN;
CREATE ROLE regress_app LOGIN;
CREATE ROLE regress_reporter LOGIN BYPASSRLS;
SELECT tenancy.create_tenant('acme', id => '11111111-1111-4111-8111-111111111111');
SELECT tenancy.create_tenant('globex', id => '22222222-2222-4222-8222-222222222222');
CREATE TABLE orders (id int PRIMARY KEY, item text);
ALTER TABLE orders OWNER TO regress_owner;
SELECT tenancy.protect_table('orders');
GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO regress_app;
GRANT SELECT ON orders TO regress_reporter;
SELECT tenancy.grant_usage('regress_app');
INSERT INTO orders VALUES (1, 'robot arm', '11111111-1111-4111-8111-111111111111'),
                          (2, 'container', '22222222-2222-4222-8222-222222222222');
SELECT fence, loaded_by FROM tenancy.verify_context();

-- A superuser in maintenance sees all; one that serves a tenant is stopped.
SELECT count(*) FROM orders;
BEGIN;
SELECT tenancy.set_tenant('acme');
SELECT count(*) FROM orders;
\echo :SQLSTATE
ROLLBACK;
BEGIN;
SET LOCAL tenancy.fence_superusers = off;
SELECT tenancy.set_tenant('acme');
SELECT count(*) FROM orders;
ROLLBACK;

-- BYPASSRLS needs an exemption, which has a reason and can have an end.
\c - regress_reporter
SELECT count(*) FROM orders;
\echo :SQLSTATE
SELECT tenancy.exempt_role('regress_reporter', 'because I can');
\c - postgres
SELECT tenancy.exempt_role('regress_reporter', 'monthly figures', '2100-01-01');
SELECT role, reason, extract(year FROM until) AS until, is_active, granted_by FROM tenancy.exempt_roles;
\c - regress_reporter
SELECT count(*) FROM orders;
\c - postgres
SELECT tenancy.exempt_role('regress_reporter', '');
\echo :SQLSTATE
SELECT tenancy.exempt_role('regress_reporter', 'late', '2001-01-01');
\echo :SQLSTATE
SELECT tenancy.exempt_role(NULL, 'nobody');
\echo :SQLSTATE
SELECT tenancy.exempt_role('0', 'nobody');
\echo :SQLSTATE
BEGIN;
SELECT tenancy.unexempt_role('regress_reporter');
SELECT count(*) FROM tenancy.exempt_roles;
ROLLBACK;
SELECT tenancy.unexempt_role('regress_reporter');
SELECT tenancy.unexempt_role('regress_reporter');
\echo :SQLSTATE

-- What a superuser owns lends its rights to nobody.
CREATE VIEW all_orders AS SELECT * FROM orders;
CREATE MATERIALIZED VIEW old_orders AS SELECT * FROM orders;
CREATE FUNCTION count_orders() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM orders';
GRANT SELECT ON all_orders, old_orders TO regress_app;
\c - regress_app
SELECT * FROM all_orders;
\echo :SQLSTATE
SELECT * FROM old_orders;
\echo :SQLSTATE
SELECT count_orders();
\echo :SQLSTATE

-- A policy that is widened or dropped is still in force.
\c - postgres
SET client_min_messages = error;
ALTER POLICY tenancy_isolation ON orders USING (true) WITH CHECK (true);
DROP POLICY tenancy_isolation_delete ON orders;
RESET client_min_messages;
\c - regress_app
BEGIN;
SELECT tenancy.set_tenant('acme');
SELECT * FROM orders;
INSERT INTO orders VALUES (3, 'forged', '22222222-2222-4222-8222-222222222222');
\echo :SQLSTATE
ROLLBACK;
\c - postgres
SET client_min_messages = error;
ALTER TABLE orders DISABLE ROW LEVEL SECURITY;
\c - regress_app
SELECT * FROM orders;
\echo :SQLSTATE
\c - postgres
SELECT tenancy.protect_table('orders');

-- Strict: what costs a feature is refused to roles that are bound.
ALTER ROLE regress_app SET tenancy.strictness = 'strict';
\c - regress_app
SELECT fence FROM tenancy.verify_context();
SET tenancy.strictness = 'standard';
BEGIN;
SELECT tenancy.set_tenant('acme');
SAVEPOINT s;
EXPLAIN ANALYZE SELECT * FROM orders;
ROLLBACK TO s;
EXPLAIN SELECT * FROM orders;
ROLLBACK TO s;
DECLARE c CURSOR WITH HOLD FOR SELECT * FROM orders;
ROLLBACK TO s;
CREATE TEMPORARY TABLE mine AS SELECT * FROM orders;
ROLLBACK TO s;
CREATE TEMPORARY TABLE mine ON COMMIT DROP AS SELECT * FROM orders;
SELECT item FROM mine;
LISTEN orders;
ROLLBACK TO s;
SELECT pg_notify('orders', 'robot arm');
ROLLBACK TO s;
LOCK TABLE orders IN ACCESS EXCLUSIVE MODE;
ROLLBACK TO s;
SELECT pg_relation_size('orders');
ROLLBACK TO s;
SELECT lo_create(0);
ROLLBACK;

-- Hygiene: what a tenant left on the connection does not reach the next one.
\c - postgres
ALTER ROLE regress_app SET tenancy.strictness = 'standard';
ALTER ROLE regress_app SET tenancy.session_hygiene = 'scrub';
\c - regress_app
BEGIN;
SELECT tenancy.set_tenant('acme');
DECLARE c CURSOR WITH HOLD FOR SELECT item FROM orders;
CREATE TEMPORARY TABLE mine AS SELECT item FROM orders;
SET app.user_email = 'ann@acme.example';
COMMIT;
FETCH c;
\echo :SQLSTATE
BEGIN;
SELECT tenancy.set_tenant('acme');
FETCH c;
SELECT * FROM mine;
SHOW app.user_email;
COMMIT;
BEGIN;
SELECT tenancy.set_tenant('globex');
SHOW app.user_email;
SELECT count(*) FROM pg_cursors WHERE is_holdable;
SELECT * FROM mine;
\echo :SQLSTATE
ROLLBACK;

-- A stored tenant is not reset by the role that it binds.
\c - postgres
ALTER ROLE regress_app SET app.current_tenant_id = 'acme';
\c - regress_app
ALTER ROLE regress_app RESET app.current_tenant_id;
ALTER ROLE regress_app RESET ALL;
ALTER ROLE regress_app RESET work_mem;

-- What was refused is counted.
\c - postgres
SELECT kind, count > 0 AS happened, scope FROM tenancy.violations ORDER BY kind;
DROP OWNED BY regress_app, regress_reporter, regress_owner CASCADE;
DROP ROLE regress_app, regress_reporter, regress_owner;
