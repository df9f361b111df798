-- What a superuser sees in psql when he takes the catalogs that show other sessions from an application's role.
-- This server has no shared_preload_libraries, so that grants do it.
\set VERBOSITY default
\set SHOW_CONTEXT never
-- One of the notices names the other databases of the server.
SET client_min_messages = warning;
CREATE ROLE regress_lock_app;
CREATE ROLE regress_lock_other;
SELECT tenancy.grant_usage('regress_lock_app');
CREATE TABLE before AS
    SELECT 'r' AS kind, oid, relacl::text AS acl FROM pg_class WHERE relkind IN ('r', 'v') AND relname <> 'before'
    UNION ALL SELECT 'f', oid, proacl::text FROM pg_proc;

-- What would be done, in short; the plan changes nothing.
SELECT step, action, regexp_replace(statement, ' ON (TABLE|FUNCTION) .* (TO|FROM) ', ' ON \1 ... \2 ') AS statement, reason
  FROM tenancy.plan_lock_down('regress_lock_app') WHERE statement NOT LIKE '%EXECUTE%' AND statement NOT LIKE '%pg\_read%';
SELECT count(*) FROM tenancy_internal.revoked_catalogs;

SELECT tenancy.lock_down_catalogs('regress_lock_app');
SELECT role, method, is_enforced, locked_by = session_user AS by_me FROM tenancy.locked_down_roles;
SELECT count(*) FROM tenancy.plan_lock_down('regress_lock_app');
SELECT tenancy.lock_down_catalogs('regress_lock_app');
SET ROLE regress_lock_app;
SELECT query FROM pg_stat_activity;
SELECT pg_stat_get_activity(NULL);
SELECT * FROM pg_locks;
SELECT * FROM pg_stats;
SELECT pg_relation_size('pg_class');
SELECT usename, state, query FROM tenancy.stat_activity WHERE pid = pg_backend_pid();
BEGIN;
PREPARE mine AS SELECT 1;
DECLARE mine CURSOR WITH HOLD FOR SELECT 1;
LOCK TABLE tenancy.locks IN ACCESS SHARE MODE;
SELECT name, statement FROM tenancy.prepared_statements;
SELECT name, statement, is_holdable FROM tenancy.cursors;
SELECT mode, granted FROM tenancy.locks WHERE relation = 'tenancy.locks'::regclass;
COMMIT;
-- The next tenant of a pooled connection does not see them.
SELECT name FROM tenancy.prepared_statements UNION ALL SELECT name FROM tenancy.cursors;
\dn tenancy
\df tenancy.set_tenant
-- A role cannot unlock itself.
SELECT tenancy.unlock_catalogs('regress_lock_app');
SET ROLE regress_lock_other;
SELECT count(*) > 0 AS still_sees FROM pg_stat_activity;
RESET ROLE;

-- Refusals
SELECT tenancy.lock_down_catalogs(NULL);
SELECT tenancy.lock_down_catalogs('regress_lock_app', NULL);
SELECT tenancy.lock_down_catalogs('regress_lock_app', 'hook');
SELECT tenancy.lock_down_catalogs('regress_lock_app', 'hooks');
SELECT tenancy.lock_down_catalogs('regress_nobody');
SELECT tenancy.lock_down_catalogs(4294967294::oid::regrole);
SELECT tenancy.lock_down_catalogs(session_user::regrole);
SELECT tenancy.plan_lock_down(NULL);
SELECT tenancy.unlock_catalogs(NULL);
SELECT tenancy.unlock_catalogs('regress_lock_other');
BEGIN;
GRANT pg_monitor TO regress_lock_other;
SELECT tenancy.lock_down_catalogs('regress_lock_other');
ROLLBACK;
BEGIN;
CREATE ROLE regress_lock_readers;
GRANT EXECUTE ON FUNCTION pg_lock_status() TO regress_lock_readers;
GRANT regress_lock_readers TO regress_lock_other;
SELECT tenancy.lock_down_catalogs('regress_lock_other');
ROLLBACK;
GRANT EXECUTE ON FUNCTION tenancy.lock_down_catalogs, tenancy.unlock_catalogs, tenancy.plan_lock_down TO regress_lock_other;
GRANT USAGE ON SCHEMA tenancy TO regress_lock_other;
SET ROLE regress_lock_other;
SELECT tenancy.lock_down_catalogs('regress_lock_app');
SELECT tenancy.plan_lock_down('regress_lock_app');
SELECT tenancy.unlock_catalogs('regress_lock_app');
RESET ROLE;
REVOKE EXECUTE ON FUNCTION tenancy.lock_down_catalogs, tenancy.unlock_catalogs, tenancy.plan_lock_down FROM regress_lock_other;
REVOKE USAGE ON SCHEMA tenancy FROM regress_lock_other;

-- Undone exactly, twice refused.
SELECT tenancy.unlock_catalogs('regress_lock_app');
(SELECT 'r', oid::regclass::text, relacl::text FROM pg_class WHERE relkind IN ('r', 'v') AND relname <> 'before'
 UNION ALL SELECT 'f', oid::regprocedure::text, proacl::text FROM pg_proc)
EXCEPT SELECT kind, CASE kind WHEN 'r' THEN oid::regclass::text ELSE oid::regprocedure::text END, acl FROM before;
SELECT tenancy.unlock_catalogs('regress_lock_app');
SET ROLE regress_lock_app;
SELECT count(*) > 0 AS sees_again FROM pg_locks;
SELECT * FROM tenancy.locks;
RESET ROLE;
SELECT tenancy.revoke_usage('regress_lock_app');
DROP ROLE regress_lock_app, regress_lock_other;
