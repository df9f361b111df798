-- What stamps and soft delete cost: the same protected table of the first tenant without, with, and as one does it by hand.
CREATE SCHEMA rows;
GRANT USAGE ON SCHEMA rows TO :app;
SELECT pg_catalog.format($$
    CREATE TABLE rows.%1$s (id bigint, tenant_id uuid, slug text NOT NULL, amount bigint NOT NULL, created_at timestamptz,
                            updated_at timestamptz, created_by text, updated_by text, deleted_at timestamptz, deleted_by text,
                            PRIMARY KEY (tenant_id, id)) WITH (fillfactor = 50);
    INSERT INTO rows.%1$s (id, tenant_id, slug, amount)
    SELECT n, pg_catalog.md5('bench1')::uuid, 'slug-' || n, n FROM generate_series(0, 49999) AS n;
    GRANT SELECT, INSERT, UPDATE, DELETE ON rows.%1$s TO %2$I$$, name, :'app')
  FROM unnest(ARRAY['plain', 'stamped', 'by_hand', 'soft']) AS name \gexec
CREATE UNIQUE INDEX ON rows.by_hand (tenant_id, slug) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX ON rows.soft (tenant_id, slug);
SELECT tenancy.protect_table(pg_catalog.format('rows.%s', name)) FROM unnest(ARRAY['plain', 'stamped', 'by_hand', 'soft']) AS name;
SELECT tenancy.enable_stamps('rows.stamped');
SELECT tenancy.enable_soft_delete('rows.soft');
