--
-- ========== 2. pgbench's own tables ==========
--
-- A bank with ten branches and 1,000,000 accounts, made by pgbench itself. The tenant column is bid, an integer.
CREATE DATABASE bank;
\c bank
\! pgbench --initialize --init-steps=tgvp --quiet --scale=10 bank

CREATE EXTENSION pg_tenancy;

-- Each branch becomes a tenant. Its number is the bid that its rows have already.
SELECT count(tenancy.create_tenant('branch-' || bid, number => bid)) AS tenants FROM pgbench_branches;

-- The tables are protected as they stand; bid is checked, becomes NOT NULL and gets an index.
SELECT step, action, statement FROM tenancy.plan_protection('pgbench_accounts', 'bid');
SELECT * FROM tenancy.protect_schema('public', 'bid');
SELECT relation, tenant_column, tenant_key, access FROM tenancy.protected_tables ORDER BY relation::text;

CREATE ROLE teller LOGIN;
GRANT SELECT, INSERT, UPDATE ON pgbench_accounts, pgbench_branches, pgbench_tellers, pgbench_history TO teller;
SELECT tenancy.grant_usage('teller');

--
-- ---------- Work of all branches at the same time ----------
--
-- TPC-B as pgbench knows it, but each transaction says whose it is, and the history row does not name its branch:
\! cat bank/tpcb.sql

\! pgbench --no-vacuum --username=teller --file=bank/tpcb.sql --protocol=prepared --client=8 --jobs=2 --time=5 --progress=1 bank

-- pgbench's own script knows no tenant. It gets nothing done:
\! pgbench --no-vacuum --username=teller --transactions=1 bank 2>&1 | grep ERROR

--
-- ---------- Attacks ----------
--
-- Branch 3 looks for the accounts 600001 to 700000 of branch 7, and takes money from one.
\c - teller
BEGIN; SET LOCAL app.current_tenant_id = '3';
SELECT min(aid), max(aid), count(*), count(*) FILTER (WHERE bid <> 3) AS foreign_rows FROM pgbench_accounts;
SELECT * FROM pgbench_accounts WHERE aid BETWEEN 600001 AND 700000;
UPDATE pgbench_accounts SET abalance = abalance - 1000 WHERE aid = 650000 RETURNING aid;
-- refused 42501: a payment in the books of branch 7
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (61, 7, 650000, -1000, now());
ROLLBACK;

-- Not prevented yet: whoever can send any SQL can end the transaction and open one for another tenant. Signed contexts
-- are to close that; until then a tenant is as safe as the application's SQL is from injection of COMMIT.

--
-- ---------- The books ----------
--
-- As superuser, who is not bound: the sums agree in each branch, and no payment has touched another branch's account.
\c - postgres
SELECT b.bid, b.bbalance AS branch, t.balance AS tellers, a.balance AS accounts, h.delta AS history, h.payments,
       h.crossing
  FROM pgbench_branches b
  JOIN (SELECT bid, sum(tbalance) AS balance FROM pgbench_tellers GROUP BY bid) t USING (bid)
  JOIN (SELECT bid, sum(abalance) AS balance FROM pgbench_accounts GROUP BY bid) a USING (bid)
  JOIN (SELECT h.bid, sum(h.delta) AS delta, count(*) AS payments, count(*) FILTER (WHERE h.bid <> a.bid) AS crossing
          FROM pgbench_history h JOIN pgbench_accounts a USING (aid) GROUP BY h.bid) h USING (bid)
 ORDER BY b.bid;
\set ECHO none \i bank/check.sql \set ECHO all

-- To look around here: cargo xtask psql bank. In the project tracker: cargo xtask psql.
