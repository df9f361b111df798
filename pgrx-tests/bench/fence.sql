-- Two banks after pgbench: `bank` is protected, `loose` is not. One branch is one tenant.
CREATE EXTENSION pg_tenancy;
SELECT count(tenancy.create_tenant('branch-' || n, id => pg_catalog.md5('bench' || n)::uuid)) FROM generate_series(1, 10) AS n;
-- The same role with strictness, for what that adds.
SELECT pg_catalog.format('CREATE ROLE %I LOGIN', role)
  FROM (VALUES (:'app'), (:'app' || '_strict')) AS roles (role)
 WHERE pg_catalog.to_regrole(role) IS NULL \gexec
SELECT pg_catalog.format('ALTER ROLE %I SET tenancy.strictness = strict', :'app' || '_strict') \gexec

SELECT pg_catalog.format($$
    CREATE SCHEMA %1$I;
    CREATE TABLE %1$I.branches (bid int PRIMARY KEY, tenant_id uuid NOT NULL, bbalance int NOT NULL) WITH (fillfactor = 50);
    CREATE TABLE %1$I.tellers (tid int PRIMARY KEY, tenant_id uuid NOT NULL, tbalance int NOT NULL) WITH (fillfactor = 50);
    CREATE TABLE %1$I.accounts (aid int PRIMARY KEY, tenant_id uuid NOT NULL, abalance int NOT NULL, filler char(84))
        WITH (fillfactor = 50);
    CREATE TABLE %1$I.history (tid int, aid int, delta int, mtime timestamptz, tenant_id uuid NOT NULL);
    INSERT INTO %1$I.branches SELECT n, pg_catalog.md5('bench' || n)::uuid, 0 FROM generate_series(1, 10) AS n;
    INSERT INTO %1$I.tellers SELECT n, pg_catalog.md5('bench' || 1 + n %% 10)::uuid, 0 FROM generate_series(0, 99) AS n;
    INSERT INTO %1$I.accounts
    SELECT n, pg_catalog.md5('bench' || 1 + n %% 10)::uuid, 0, '' FROM generate_series(0, 99999) AS n;
    GRANT USAGE ON SCHEMA %1$I TO %2$I, %3$I;
    GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA %1$I TO %2$I, %3$I$$, bank, :'app', :'app' || '_strict')
  FROM unnest(ARRAY['bank', 'loose']) AS bank \gexec
SELECT tenancy.grant_usage(role::regrole) FROM (VALUES (:'app'), (:'app' || '_strict')) AS roles (role);
SELECT tenancy.protect_table(pg_catalog.format('bank.%I', name)) FROM unnest(ARRAY['branches', 'tellers', 'accounts', 'history']) AS name;

CREATE SCHEMA home AUTHORIZATION :app;
VACUUM (FREEZE, ANALYZE);
