-- What people use today, each in a schema of its own.
SELECT pg_catalog.format('ALTER TABLE %I.%I ENABLE ROW LEVEL SECURITY', side, relation),
       pg_catalog.format('CREATE POLICY tenant ON %I.%I USING (tenant_id = %s)', side, relation, tenant)
  FROM (VALUES ('setting',   'current_setting(''bench.tenant'')::uuid'),
               ('subselect', '(SELECT current_setting(''bench.tenant'')::uuid)'),
               ('plpgsql',   'custom.current_tenant()')) AS s(side, tenant),
       unnest(ARRAY['customers', 'orders', 'entries', 'skewed', 'parted']) AS relation \gexec
