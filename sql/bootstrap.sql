-- Text crosses into Rust as UTF-8, and in a database with encoding SQL_ASCII a text may be anything.
DO $$
BEGIN
    IF pg_catalog.getdatabaseencoding() <> 'UTF8' THEN
        RAISE EXCEPTION 'pg_tenancy does not support databases with encoding %', pg_catalog.getdatabaseencoding()
            USING ERRCODE = 'feature_not_supported', HINT = 'Use a database with encoding UTF8.';
    END IF;
END $$;

-- The two schemas, members of the extension: a schema somebody else made first is refused, and DROP EXTENSION takes both.
CREATE SCHEMA tenancy;
COMMENT ON SCHEMA tenancy IS 'pg_tenancy: tenants, their context and the tables isolated by tenant';
CREATE SCHEMA tenancy_internal;
COMMENT ON SCHEMA tenancy_internal IS 'pg_tenancy: machinery; nothing here is for direct use';

-- Who may do what. Each room says so of what it makes; what no room names is for superusers. finalize.sql takes all
-- routines from PUBLIC but those for everybody; tenancy.grant_usage and tenancy.grant_admin give what is for the other two.
-- Not dumped: it comes with the extension.
CREATE TABLE tenancy_internal.rights (
    grantee    text   NOT NULL CHECK (grantee IN ('everybody', 'application', 'administrator')),
    privileges text   NOT NULL,
    kind       text   NOT NULL CHECK (kind IN ('SCHEMA', 'TABLE', 'ROUTINE')),
    objects    text[] NOT NULL,
    CHECK (grantee <> 'everybody' OR (privileges, kind) = ('EXECUTE', 'ROUTINE'))
);
COMMENT ON TABLE tenancy_internal.rights IS 'what the extension gives to everybody, to applications and to administrators';
