-- The two schemas, members of the extension: a schema somebody else made first is refused, and DROP EXTENSION takes both.
CREATE SCHEMA tenancy;
COMMENT ON SCHEMA tenancy IS 'pg_tenancy: tenants, their context and the tables isolated by tenant';
CREATE SCHEMA tenancy_internal;
COMMENT ON SCHEMA tenancy_internal IS 'pg_tenancy: machinery; nothing here is for direct use';
