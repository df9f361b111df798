-- What tenancy.check_integrity looks at: a thousand protected tables of twenty columns, in two schemas; a third of them with rows.
CREATE EXTENSION pg_tenancy;
SELECT tenancy.create_tenant('tenant-' || n) FROM generate_series(1, 100) AS n;
CREATE ROLE bench_owner;
CREATE SCHEMA checked AUTHORIZATION bench_owner;
SET ROLE bench_owner;
SELECT pg_catalog.format(
           'CREATE TABLE checked.t%s (id bigint GENERATED ALWAYS AS IDENTITY, tenant_id uuid NOT NULL, number integer, parent bigint,
                                      a1 text, a2 text, a3 text, a4 numeric, a5 timestamptz, a6 boolean, a7 integer, a8 text,
                                      a9 text, a10 text, a11 jsonb, a12 date, a13 integer, a14 integer, a15 text, a16 text,
                                      PRIMARY KEY (tenant_id, id)%s)', n,
           CASE WHEN n % 3 = 0 THEN format(', FOREIGN KEY (tenant_id, parent) REFERENCES checked.t%s (tenant_id, id)', n - 1) END)
  FROM generate_series(1, 1000) AS n \gexec
RESET ROLE;
SELECT pg_catalog.format('SELECT tenancy.protect_table(''checked.t%s'')', n) FROM generate_series(1, 1000) AS n \gexec
SELECT tenancy.grant_usage(:'app'::regrole);
GRANT USAGE ON SCHEMA checked TO :app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA checked TO :app;
SELECT pg_catalog.format(
           'INSERT INTO checked.t%s (tenant_id, number, a1, a2, a4, a5, a7, a12)
            SELECT t.id, r, ''text of a row'', repeat(''x'', 40), r, now(), r, now()
              FROM generate_series(1, 100) AS r, tenancy.tenants AS t', n)
  FROM generate_series(1, 1000) AS n WHERE n % 3 = 1 \gexec
VACUUM (FREEZE, ANALYZE);
