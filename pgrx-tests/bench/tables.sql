-- The tables of one side, in schema :side. :rows orders of :active tenants, dealt round, so that each has the same share.
CREATE SCHEMA :side;
GRANT USAGE ON SCHEMA :side TO :app;
SET search_path = :side;

CREATE TABLE customers (id bigint PRIMARY KEY, tenant_id uuid NOT NULL, name text NOT NULL);
INSERT INTO customers
SELECT n, pg_catalog.md5('bench' || 1 + n % :active)::uuid, 'customer ' || n FROM generate_series(0, :rows / 20 - 1) AS n;
CREATE INDEX customers_tenant ON customers (tenant_id);

CREATE TABLE orders (
    id          bigint      PRIMARY KEY,
    tenant_id   uuid        NOT NULL,
    customer_id bigint      NOT NULL,
    placed      timestamptz NOT NULL,
    amount      bigint      NOT NULL,
    note        text
);
INSERT INTO orders
SELECT n, pg_catalog.md5('bench' || 1 + n % :active)::uuid, n % (:rows / 20), timestamptz '2026-01-01' + n * interval '1 s',
       n::bigint * 7919 % 10000, 'an order of no importance'
  FROM generate_series(0, :rows - 1) AS n;
CREATE INDEX orders_tenant ON orders (tenant_id, placed);

-- Written to, never read.
CREATE TABLE entries (id bigint NOT NULL, tenant_id uuid NOT NULL, amount bigint NOT NULL, note text);
CREATE INDEX entries_tenant ON entries (tenant_id, id);

-- 60 % of the rows are one tenant's.
CREATE TABLE skewed (id bigint NOT NULL, tenant_id uuid NOT NULL, amount bigint NOT NULL);
INSERT INTO skewed
SELECT n, pg_catalog.md5('bench' || CASE WHEN n % 10 < 6 THEN 1 ELSE 2 + n % (:active - 1) END)::uuid, n
  FROM generate_series(0, :others - 1) AS n;
CREATE INDEX skewed_tenant ON skewed (tenant_id, id);

CREATE TABLE parted (id bigint NOT NULL, tenant_id uuid NOT NULL, amount bigint NOT NULL, PRIMARY KEY (tenant_id, id))
    PARTITION BY HASH (tenant_id);
SELECT pg_catalog.format('CREATE TABLE parted_%s PARTITION OF parted FOR VALUES WITH (MODULUS 64, REMAINDER %s)', n, n)
  FROM generate_series(0, 63) AS n \gexec
INSERT INTO parted
SELECT n, pg_catalog.md5('bench' || 1 + n % :active)::uuid, n FROM generate_series(0, :others - 1) AS n;

GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA :side TO :app;
