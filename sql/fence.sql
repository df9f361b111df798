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
    FOR EACH ROW EXECUTE FUNCTION tenancy_internal.announce_registry_change();
CREATE TRIGGER announce_truncate AFTER TRUNCATE ON tenancy_internal.exempt_roles
    FOR EACH STATEMENT EXECUTE FUNCTION tenancy_internal.announce_registry_change();
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
