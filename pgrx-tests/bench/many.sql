-- A thousand protected tables more, in a copy of the fence's database.
CREATE SCHEMA many;
SELECT pg_catalog.format('CREATE TABLE many.t%s (id int PRIMARY KEY, tenant_id uuid NOT NULL)', n)
  FROM generate_series(1, 1000) AS n \gexec
SELECT pg_catalog.format('SELECT tenancy.protect_table(''many.t%s'')', n) FROM generate_series(1, 1000) AS n \gexec
VACUUM (FREEZE, ANALYZE);
