-- room fence · Rust src/fence, src/pg/hooks · tests pgrx-tests/{tests,regress}

CREATE TABLE tenancy_internal.exempt_roles (
    role       regrole     PRIMARY KEY,        -- dumped by name, survives pg_upgrade
    reason     text        NOT NULL,
    until      timestamptz,                    -- NULL for no end
    granted_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    granted_by name        NOT NULL DEFAULT session_user
);
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.exempt_roles', '');

-- The fence of every backend remembers them; ALWAYS, so that replication and restore reach it too.
CREATE TRIGGER announce_change AFTER INSERT OR UPDATE OR DELETE ON tenancy_internal.exempt_roles
    FOR EACH ROW EXECUTE FUNCTION tenancy_internal.announce_change();
CREATE TRIGGER announce_truncate AFTER TRUNCATE ON tenancy_internal.exempt_roles
    FOR EACH STATEMENT EXECUTE FUNCTION tenancy_internal.announce_change();
ALTER TABLE tenancy_internal.exempt_roles ENABLE ALWAYS TRIGGER announce_change;
ALTER TABLE tenancy_internal.exempt_roles ENABLE ALWAYS TRIGGER announce_truncate;

CREATE VIEW tenancy.exempt_roles AS
SELECT role, reason, until, COALESCE(until > pg_catalog.now(), true) AS is_active, granted_at, granted_by
  FROM tenancy_internal.exempt_roles;

CREATE VIEW tenancy.violations AS
SELECT kind, count, last_minute, last_hour, last_at, scope FROM tenancy_internal.violation_tallies();

COMMENT ON TABLE tenancy_internal.exempt_roles IS 'the roles that the fence lets past row security, with the reason';
COMMENT ON VIEW tenancy.exempt_roles IS 'the roles that the fence lets past row security, why, and until when';
COMMENT ON VIEW tenancy.violations IS
    'how often each kind of violation was refused, since the server started (or in this session, without shared_preload_libraries)';
COMMENT ON COLUMN tenancy.violations.last_minute IS 'in the running minute';
COMMENT ON COLUMN tenancy.violations.last_hour IS 'in the last sixty minutes, the running one included';
COMMENT ON COLUMN tenancy.violations.scope IS 'server, or session where the library is not in shared_preload_libraries';
COMMENT ON FUNCTION tenancy_internal.violation_tallies() IS 'what the view tenancy.violations shows';
COMMENT ON FUNCTION tenancy.exempt_role(regrole, text, timestamptz) IS
    'lets a role that row security does not bind past the fence, for a reason and perhaps until a time; superusers only';
COMMENT ON FUNCTION tenancy.unexempt_role(regrole) IS 'takes back what tenancy.exempt_role gave; superusers only';

-- Catalogs that show other sessions
CREATE TABLE tenancy_internal.locked_down_roles (
    role      regrole     PRIMARY KEY,         -- dumped by name, survives pg_upgrade
    by_grants boolean     NOT NULL,            -- privileges of PUBLIC are taken too; else the hooks do it alone
    locked_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    locked_by name        NOT NULL DEFAULT session_user
);
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.locked_down_roles', '');

-- By name, not by regprocedure: a dump must be restored where a function is gone. As text: aclitem does not survive pg_upgrade.
CREATE TABLE tenancy_internal.revoked_catalogs (
    kind       text      NOT NULL CHECK (kind IN ('relation', 'function')),
    object     text      NOT NULL,
    acl_before text[],                         -- NULL for the default
    given_to   regrole[] NOT NULL,
    PRIMARY KEY (kind, object)
);
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.revoked_catalogs', '');

CREATE TRIGGER announce_change AFTER INSERT OR UPDATE OR DELETE ON tenancy_internal.locked_down_roles
    FOR EACH ROW EXECUTE FUNCTION tenancy_internal.announce_change();
CREATE TRIGGER announce_truncate AFTER TRUNCATE ON tenancy_internal.locked_down_roles
    FOR EACH STATEMENT EXECUTE FUNCTION tenancy_internal.announce_change();
ALTER TABLE tenancy_internal.locked_down_roles ENABLE ALWAYS TRIGGER announce_change;
ALTER TABLE tenancy_internal.locked_down_roles ENABLE ALWAYS TRIGGER announce_truncate;

CREATE VIEW tenancy.locked_down_roles AS
SELECT l.role, CASE WHEN l.by_grants THEN 'grants' ELSE 'hooks' END AS method,
       l.by_grants OR (SELECT c.fence <> 'off' FROM tenancy.verify_context() AS c) AS is_enforced, l.locked_at, l.locked_by
  FROM tenancy_internal.locked_down_roles AS l;

-- With the rights of their owner, for what the role itself must not read; each shows what belongs to the session that asks.
CREATE FUNCTION tenancy_internal.own_activity() RETURNS TABLE (
    datid oid, datname name, pid integer, leader_pid integer, usesysid oid, usename name, application_name text,
    client_addr inet, client_hostname text, client_port integer, backend_start timestamptz, xact_start timestamptz,
    query_start timestamptz, state_change timestamptz, wait_event_type text, wait_event text, state text, backend_xid xid,
    backend_xmin xid, query text, backend_type text
) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT a.datid, a.datname, a.pid, a.leader_pid, a.usesysid, a.usename, own.application_name, own.client_addr,
           own.client_hostname, own.client_port, own.backend_start, own.xact_start, own.query_start, own.state_change,
           own.wait_event_type, own.wait_event, a.state, own.backend_xid, own.backend_xmin, own.query, a.backend_type
      FROM pg_stat_activity AS a
      LEFT JOIN pg_stat_activity AS own ON own.pid = a.pid AND pg_backend_pid() IN (own.pid, own.leader_pid)
     WHERE own.pid IS NOT NULL OR (a.usename = session_user AND a.datname = current_database())
$$;

CREATE FUNCTION tenancy_internal.own_locks() RETURNS TABLE (
    locktype text, database oid, relation oid, page integer, tuple smallint, virtualxid text, transactionid xid, classid oid,
    objid oid, objsubid smallint, virtualtransaction text, pid integer, mode text, granted boolean, fastpath boolean
) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT locktype, database, relation, page, tuple, virtualxid, transactionid, classid, objid, objsubid,
           virtualtransaction, pid, mode, granted, fastpath
      FROM pg_locks WHERE pid = pg_backend_pid()
$$;

-- What was left by an earlier transaction of a pooled connection may be another tenant's.
CREATE FUNCTION tenancy_internal.own_prepared_statements() RETURNS TABLE (
    name text, statement text, prepare_time timestamptz, parameter_types regtype[], from_sql boolean
) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT name, statement, prepare_time, parameter_types, from_sql FROM pg_prepared_statements WHERE prepare_time >= now()
$$;

CREATE FUNCTION tenancy_internal.own_cursors() RETURNS TABLE (
    name text, statement text, is_holdable boolean, is_binary boolean, is_scrollable boolean, creation_time timestamptz
) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT name, statement, is_holdable, is_binary, is_scrollable, creation_time FROM pg_cursors WHERE creation_time >= now()
$$;

CREATE VIEW tenancy.stat_activity AS SELECT * FROM tenancy_internal.own_activity();
CREATE VIEW tenancy.locks AS SELECT * FROM tenancy_internal.own_locks();
CREATE VIEW tenancy.prepared_statements AS SELECT * FROM tenancy_internal.own_prepared_statements();
CREATE VIEW tenancy.cursors AS SELECT * FROM tenancy_internal.own_cursors();

-- Spelled out from the start, so that a grant and its revocation leave no trace.
REVOKE ALL ON tenancy.stat_activity, tenancy.locks, tenancy.prepared_statements, tenancy.cursors FROM PUBLIC;

-- The views are for roles of which tenancy.lock_down_catalogs takes those of the server.
INSERT INTO tenancy_internal.rights (grantee, privileges, kind, objects) VALUES
    ('everybody', 'EXECUTE', 'ROUTINE', '{tenancy_internal.violation_tallies, tenancy_internal.own_activity,
        tenancy_internal.own_locks, tenancy_internal.own_prepared_statements, tenancy_internal.own_cursors}'),
    ('administrator', 'SELECT', 'TABLE', '{tenancy.exempt_roles, tenancy.violations}');

COMMENT ON TABLE tenancy_internal.locked_down_roles IS 'the roles from which the catalogs that show other sessions are taken';
COMMENT ON TABLE tenancy_internal.revoked_catalogs IS
    'what PUBLIC lost by tenancy.lock_down_catalogs(..., method => ''grants''), and who got it instead';
COMMENT ON VIEW tenancy.locked_down_roles IS 'the roles from which the catalogs that show other sessions are taken, and how';
COMMENT ON COLUMN tenancy.locked_down_roles.method IS
    'hooks: refused to that role alone, under shared_preload_libraries; grants: taken from PUBLIC';
COMMENT ON COLUMN tenancy.locked_down_roles.is_enforced IS 'false when the method is hooks and the library is not preloaded';
COMMENT ON VIEW tenancy.stat_activity IS
    'pg_stat_activity of the session itself; of other sessions of its role in this database only that they are there, and their state';
COMMENT ON VIEW tenancy.locks IS 'pg_locks of the session itself';
COMMENT ON VIEW tenancy.prepared_statements IS 'pg_prepared_statements, those prepared in the running transaction';
COMMENT ON VIEW tenancy.cursors IS 'pg_cursors, those opened in the running transaction';
COMMENT ON FUNCTION tenancy_internal.own_activity() IS 'what the view tenancy.stat_activity shows';
COMMENT ON FUNCTION tenancy_internal.own_locks() IS 'what the view tenancy.locks shows';
COMMENT ON FUNCTION tenancy_internal.own_prepared_statements() IS 'what the view tenancy.prepared_statements shows';
COMMENT ON FUNCTION tenancy_internal.own_cursors() IS 'what the view tenancy.cursors shows';
COMMENT ON FUNCTION tenancy.lock_down_catalogs(regrole, text) IS
    'takes from a role the catalogs that show other sessions or what all tenants have, and gives it views of its own part; superusers only';
COMMENT ON FUNCTION tenancy.plan_lock_down(regrole, text) IS 'what tenancy.lock_down_catalogs would do; changes nothing';
COMMENT ON FUNCTION tenancy.unlock_catalogs(regrole) IS 'undoes tenancy.lock_down_catalogs; superusers only';
