-- What a session sees in psql when it sets, keeps and loses its tenant.
\set VERBOSITY default
\set SHOW_CONTEXT never
CREATE ROLE regress_app LOGIN;
SELECT tenancy.create_tenant('acme', 'Acme Robotics', number => 17, id => '11111111-1111-4111-8111-111111111111');
SELECT tenancy.create_tenant('globex', number => 18, id => '22222222-2222-4222-8222-222222222222');
CREATE TABLE orders (id int PRIMARY KEY, item text);
SELECT tenancy.protect_table('orders');
GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO regress_app;
SELECT tenancy.grant_usage('regress_app');
\c - regress_app

-- No tenant.
SELECT * FROM orders;
\echo :SQLSTATE
SELECT tenancy.current_tenant_id();
\echo :SQLSTATE
SELECT tenancy.has_tenant();

-- The three idioms, and a tenant's three keys.
BEGIN;
SELECT tenancy.set_tenant('acme');
INSERT INTO orders VALUES (1, 'robot arm');
SELECT tenancy.current_tenant_id(), tenancy.current_tenant_number(), tenancy.current_tenant_code(), tenancy.has_tenant();
SHOW app.current_tenant_id;
COMMIT;
BEGIN;
SELECT set_config('app.current_tenant_id', '17', true);
SELECT * FROM orders;
COMMIT;
BEGIN;
SET LOCAL app.current_tenant_id = '22222222-2222-4222-8222-222222222222';
SELECT * FROM orders;
SELECT tenancy.current_tenant_code();
COMMIT;

-- It ends with its transaction.
SELECT * FROM orders;
\echo :SQLSTATE
SET app.current_tenant_id = 'acme';
SELECT * FROM orders;
\echo :SQLSTATE
SHOW app.current_tenant_id;
SELECT tenancy.set_tenant('acme');
SELECT * FROM orders;
\echo :SQLSTATE
RESET app.current_tenant_id;

-- One transaction, one tenant.
BEGIN;
SELECT tenancy.set_tenant('acme');
SELECT tenancy.set_tenant('17');
SAVEPOINT s;
SET LOCAL app.current_tenant_id = 'globex';
\echo :SQLSTATE
ROLLBACK TO s;
SELECT count(*) FROM orders WHERE set_config('app.current_tenant_id', 'globex', true) IS NOT NULL;
\echo :SQLSTATE
ROLLBACK TO s;
SELECT tenancy.clear_tenant();
SELECT * FROM orders;
\echo :SQLSTATE
ROLLBACK TO s;
SELECT tenancy.clear_tenant();
SELECT tenancy.set_tenant('globex');
\echo :SQLSTATE
ROLLBACK TO s;
SELECT * FROM orders;
COMMIT;
BEGIN;
SAVEPOINT s;
SELECT tenancy.set_tenant('globex');
ROLLBACK TO s;
SELECT tenancy.set_tenant('acme');
\echo :SQLSTATE
ROLLBACK;

-- Names of nobody, and what is no name.
BEGIN;
SELECT tenancy.set_tenant('nobody');
\echo :SQLSTATE
ROLLBACK;
BEGIN;
SET LOCAL app.current_tenant_id = 'nobody';
SELECT * FROM orders;
\echo :SQLSTATE
ROLLBACK;
SELECT tenancy.set_tenant('');
\echo :SQLSTATE
SELECT tenancy.set_tenant(NULL);
\echo :SQLSTATE
SELECT tenancy.set_tenant(E'a\tb');
\echo :SQLSTATE
SET app.current_tenant_id = '99999999999999999999';
\echo :SQLSTATE

-- Whose transaction is it?
BEGIN;
SET LOCAL app.current_tenant_id = 'acme';
SELECT tenancy.assert_tenant('17');
SAVEPOINT s;
SELECT tenancy.assert_tenant('globex');
\echo :SQLSTATE
ROLLBACK TO s;
SELECT tenant_id, tenant_number, tenant_code, status, set_by, set_at IS NOT NULL AS has_time, lifetime, problem, role,
       is_bound, bound_reason, loaded_by
  FROM tenancy.verify_context() \gx
COMMIT;
SELECT tenant_code, set_by, problem, role, is_bound FROM tenancy.verify_context() \gx

-- What the application may not do.
SELECT tenancy.switch_tenant('acme');
\echo :SQLSTATE
ALTER ROLE regress_app SET app.current_tenant_id = 'acme';
\echo :SQLSTATE
CREATE FUNCTION pg_temp.as_acme() RETURNS bigint LANGUAGE sql SET app.current_tenant_id = 'acme' AS 'SELECT count(*) FROM orders';
\echo :SQLSTATE
UPDATE pg_settings SET setting = 'acme' WHERE name = 'app.current_tenant_id';
SET tenancy.missing_context = 'empty';
\echo :SQLSTATE
SET tenancy.context_lifetime = 'session';
\echo :SQLSTATE
SET tenancy.mising_context = 'empty';
\echo :SQLSTATE

-- A tenant's status.
\c - postgres
SELECT tenancy.suspend_tenant('acme', 'invoice 4711 is overdue'), tenancy.set_read_only('globex');
SET ROLE regress_app;
SELECT tenancy.set_tenant('acme');
\echo :SQLSTATE
BEGIN;
SET LOCAL app.current_tenant_id = 'globex';
SELECT * FROM orders;
INSERT INTO orders VALUES (2, 'container');
\echo :SQLSTATE
ROLLBACK;
BEGIN;
SET LOCAL app.current_tenant_id = 'acme';
SELECT tenant_code, status, problem FROM tenancy.verify_context() \gx
ROLLBACK;
RESET ROLE;
SELECT tenancy.resume_tenant('acme'), tenancy.resume_tenant('globex');

-- An administrator may switch; a superuser is not bound and is told so.
BEGIN;
SELECT tenancy.set_tenant('acme');
SELECT tenancy.switch_tenant('globex');
SELECT tenancy.current_tenant_code(), is_bound, bound_reason FROM tenancy.verify_context();
COMMIT;

-- No rows instead of an error.
SET tenancy.missing_context = 'empty';
SET ROLE regress_app;
SELECT * FROM orders;
SELECT tenancy.current_tenant_id() IS NULL AS is_null;
INSERT INTO orders VALUES (3, 'lost');
\echo :SQLSTATE
RESET ROLE;
RESET tenancy.missing_context;

-- A tenant for the session.
SET tenancy.context_lifetime = 'session';
SET ROLE regress_app;
SET app.current_tenant_id = 'acme';
SELECT * FROM orders;
SELECT tenant_code, set_by, lifetime FROM tenancy.verify_context();
RESET ROLE;
RESET tenancy.context_lifetime;

-- A tenant that a superuser has fixed for a database.
ALTER DATABASE regress_context SET app.current_tenant_id = 'acme';
\c - regress_app
SELECT * FROM orders;
SELECT tenant_code, set_by, lifetime FROM tenancy.verify_context();
BEGIN;
SELECT tenancy.set_tenant('globex');
\echo :SQLSTATE
ROLLBACK;
\c - postgres
ALTER DATABASE regress_context RESET app.current_tenant_id;

-- None from the connection's options.
\c "dbname=regress_context user=regress_app options='-c app.current_tenant_id=acme'"
SELECT * FROM orders;
\echo :SQLSTATE
\c "dbname=regress_context user=postgres options=''"
DROP OWNED BY regress_app;
DROP ROLE regress_app;
