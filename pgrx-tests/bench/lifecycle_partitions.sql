-- Four tables in LIST partitions by tenant: :purged / 10 rows in each of large's partitions, a hundredth of that in small's.
CREATE EXTENSION pg_tenancy;
SELECT count(tenancy.create_tenant(code, id => pg_catalog.md5(code)::uuid)) FROM unnest(ARRAY['large', 'small', 'other']) AS code;
CREATE SCHEMA parted;
SELECT pg_catalog.format($$
    CREATE TABLE parted.%1$s (tenant_id uuid, id bigint, at timestamptz NOT NULL, note text, PRIMARY KEY (tenant_id, id))
        PARTITION BY LIST (tenant_id);
    CREATE INDEX ON parted.%1$s (tenant_id, at);
    CREATE TABLE parted.%1$s_large PARTITION OF parted.%1$s FOR VALUES IN (%2$L);
    CREATE TABLE parted.%1$s_small PARTITION OF parted.%1$s FOR VALUES IN (%3$L);
    CREATE TABLE parted.%1$s_others PARTITION OF parted.%1$s DEFAULT;
    INSERT INTO parted.%1$s SELECT pg_catalog.md5('large')::uuid, n, now(), 'of no importance' FROM generate_series(1, %4$s) AS n;
    INSERT INTO parted.%1$s SELECT pg_catalog.md5('small')::uuid, n, now(), 'of no importance' FROM generate_series(1, %4$s / 100) AS n;
    INSERT INTO parted.%1$s SELECT pg_catalog.md5('other')::uuid, n, now(), 'of no importance' FROM generate_series(1, 10000) AS n$$,
    name, pg_catalog.md5('large')::uuid, pg_catalog.md5('small')::uuid, :purged / 10)
  FROM unnest(ARRAY['events', 'visits', 'messages', 'readings']) AS name \gexec
SELECT tenancy.protect_table(pg_catalog.format('parted.%s', name)) FROM unnest(ARRAY['events', 'visits', 'messages', 'readings']) AS name;
SELECT tenancy.delete_tenant(code, 'it is to be purged') FROM unnest(ARRAY['large', 'small']) AS code;
VACUUM (FREEZE, ANALYZE);
