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
