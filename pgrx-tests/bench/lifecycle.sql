-- What tenancy.purge_tenant deletes from: twelve tables with :purged rows in all. A tenth of each is tenant-1's, dealt round
-- among 99 others. Keys with the tenant in them and without, an index for each foreign key.
CREATE EXTENSION pg_tenancy;
SELECT count(tenancy.create_tenant('tenant-' || n, id => pg_catalog.md5('shop' || n)::uuid)) FROM generate_series(1, 100) AS n;
CREATE SCHEMA shop;
GRANT USAGE ON SCHEMA shop TO :app;
SET search_path = shop;

-- Whose a row is, and the row of the same tenant that it belongs to.
CREATE FUNCTION owner_of(n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS
$$SELECT pg_catalog.md5('shop' || CASE WHEN n % 10 = 0 THEN 1 ELSE 2 + n % 1000 % 99 END)::uuid$$;
CREATE FUNCTION parent_of(n bigint, parents bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS
$$SELECT n / 1000 % (parents / 1000) * 1000 + n % 1000$$;
SELECT :purged / 100 AS percent \gset

CREATE TABLE customers (id bigint PRIMARY KEY, tenant_id uuid NOT NULL, name text NOT NULL, mail text);
INSERT INTO customers SELECT n, owner_of(n), 'customer number ' || n, n || '@example.com' FROM generate_series(0, 3 * :percent - 1) AS n;

CREATE TABLE addresses (id bigint PRIMARY KEY, tenant_id uuid NOT NULL, customer_id bigint NOT NULL, line text NOT NULL);
INSERT INTO addresses
SELECT n, owner_of(n), parent_of(n, 3 * :percent), n % 1000 || ' some street in some town' FROM generate_series(0, 5 * :percent - 1) AS n;

CREATE TABLE products (id bigint PRIMARY KEY, tenant_id uuid NOT NULL, name text NOT NULL, price numeric(12, 2) NOT NULL);
INSERT INTO products SELECT n, owner_of(n), 'product number ' || n, n % 7919 * 1.25 FROM generate_series(0, 2 * :percent - 1) AS n;

CREATE TABLE orders (id bigint PRIMARY KEY, tenant_id uuid NOT NULL, customer_id bigint NOT NULL, placed timestamptz NOT NULL,
                     amount bigint NOT NULL, note text);
INSERT INTO orders
SELECT n, owner_of(n), parent_of(n, 3 * :percent), timestamptz '2026-01-01' + n * interval '1 s', n::bigint * 7919 % 10000, 'of no importance'
  FROM generate_series(0, 12 * :percent - 1) AS n;

CREATE TABLE order_lines (id bigint PRIMARY KEY, tenant_id uuid NOT NULL, order_id bigint NOT NULL, product_id bigint NOT NULL,
                          quantity int NOT NULL);
INSERT INTO order_lines
SELECT n, owner_of(n), parent_of(n, 12 * :percent), parent_of(n, 2 * :percent), n % 9 FROM generate_series(0, 30 * :percent - 1) AS n;

CREATE TABLE payments (id bigint PRIMARY KEY, tenant_id uuid NOT NULL, order_id bigint NOT NULL, amount bigint NOT NULL,
                       reference text NOT NULL);
INSERT INTO payments
SELECT n, owner_of(n), parent_of(n, 12 * :percent), n::bigint * 7919 % 10000, pg_catalog.md5(n::text) FROM generate_series(0, 10 * :percent - 1) AS n;

CREATE TABLE invoices (id bigint PRIMARY KEY, tenant_id uuid NOT NULL, order_id bigint NOT NULL, due date NOT NULL, text text);
INSERT INTO invoices
SELECT n, owner_of(n), parent_of(n, 12 * :percent), date '2026-01-01' + (n % 365)::int, 'for what was ordered'
  FROM generate_series(0, 10 * :percent - 1) AS n;

CREATE TABLE shipments (id bigint PRIMARY KEY, tenant_id uuid NOT NULL, order_id bigint NOT NULL, sent timestamptz);
INSERT INTO shipments
SELECT n, owner_of(n), parent_of(n, 12 * :percent), timestamptz '2026-01-02' + n * interval '1 s' FROM generate_series(0, 8 * :percent - 1) AS n;

CREATE TABLE tickets (tenant_id uuid, id bigint, title text NOT NULL, PRIMARY KEY (tenant_id, id));
INSERT INTO tickets SELECT owner_of(n), n, 'ticket number ' || n FROM generate_series(0, 3 * :percent - 1) AS n;

CREATE TABLE comments (tenant_id uuid, id bigint, ticket bigint NOT NULL, body text NOT NULL, PRIMARY KEY (tenant_id, id));
INSERT INTO comments
SELECT owner_of(n), n, parent_of(n, 3 * :percent), 'a comment of no importance' FROM generate_series(0, 5 * :percent - 1) AS n;

CREATE TABLE events (id bigint PRIMARY KEY, tenant_id uuid NOT NULL, at timestamptz NOT NULL, what text NOT NULL);
INSERT INTO events
SELECT n, owner_of(n), timestamptz '2026-01-01' + n * interval '1 s', 'login' FROM generate_series(0, 10 * :percent - 1) AS n;

-- So wide that most blocks have no row of the tenant.
CREATE TABLE documents (id bigint PRIMARY KEY, tenant_id uuid NOT NULL, body text NOT NULL);
ALTER TABLE documents ALTER COLUMN body SET STORAGE PLAIN;
INSERT INTO documents SELECT n, owner_of(n), repeat(pg_catalog.md5(n::text), 50) FROM generate_series(0, 2 * :percent - 1) AS n;

CREATE INDEX ON addresses (customer_id);
CREATE INDEX ON orders (customer_id);
CREATE INDEX ON order_lines (order_id);
CREATE INDEX ON order_lines (product_id);
CREATE INDEX ON payments (order_id);
CREATE INDEX ON invoices (order_id);
CREATE INDEX ON shipments (order_id);
CREATE INDEX ON comments (tenant_id, ticket);
ALTER TABLE addresses ADD FOREIGN KEY (customer_id) REFERENCES customers;
ALTER TABLE orders ADD FOREIGN KEY (customer_id) REFERENCES customers;
ALTER TABLE order_lines ADD FOREIGN KEY (order_id) REFERENCES orders, ADD FOREIGN KEY (product_id) REFERENCES products;
ALTER TABLE payments ADD FOREIGN KEY (order_id) REFERENCES orders;
ALTER TABLE invoices ADD FOREIGN KEY (order_id) REFERENCES orders;
ALTER TABLE shipments ADD FOREIGN KEY (order_id) REFERENCES orders;
ALTER TABLE comments ADD FOREIGN KEY (tenant_id, ticket) REFERENCES tickets;

SELECT tenancy.protect_table(c.oid::regclass) FROM pg_class AS c WHERE relnamespace = 'shop'::regnamespace AND relkind = 'r';
SELECT tenancy.grant_usage(:'app'::regrole);
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA shop TO :app;
SELECT tenancy.delete_tenant('tenant-1', 'it is to be purged');
VACUUM (FREEZE, ANALYZE);
