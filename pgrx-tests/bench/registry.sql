-- The tenants, and what each side finds its tenant with. :tenants is their number.
SELECT count(tenancy.create_tenant('tenant-' || n, id => pg_catalog.md5('bench' || n)::uuid))
  FROM generate_series(1, :tenants) AS n;
VACUUM ANALYZE tenancy.tenants;

CREATE ROLE :app LOGIN;
SELECT tenancy.grant_usage(:'app');

-- What people write: the function of a plpgsql policy, and a set_tenant that looks the tenant up.
CREATE SCHEMA custom;
GRANT USAGE ON SCHEMA custom TO :app;
CREATE FUNCTION custom.current_tenant() RETURNS uuid LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN current_setting('bench.tenant')::uuid;
END $$;
CREATE TABLE custom.tenants AS SELECT id, code, status FROM tenancy.tenants;
ALTER TABLE custom.tenants ADD PRIMARY KEY (id);
GRANT SELECT ON custom.tenants TO :app;
CREATE FUNCTION custom.set_tenant(tenant uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM custom.tenants WHERE id = tenant AND status = 'active') THEN
        RAISE 'unknown tenant %', tenant;
    END IF;
    PERFORM set_config('bench.tenant', tenant::text, true);
END $$;
ANALYZE custom.tenants;
