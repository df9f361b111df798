-- What a DBA sees in psql when he asks whether tenants are apart.
\set VERBOSITY default
\set SHOW_CONTEXT never
-- What is said of the server depends on the server.
SELECT tenancy.set_check(check_id, is_on => false) FROM tenancy.integrity_checks WHERE check_id ~ '^server_';
SELECT count(*) > 100 AS many, count(*) FILTER (WHERE is_on) > 90 AS mostly_on FROM tenancy.integrity_checks;

-- Nothing was looked at, and that is said.
SELECT tenancy.assert_integrity();
\echo :SQLSTATE

CREATE ROLE regress_owner;
CREATE ROLE regress_app;
CREATE ROLE regress_operator;
SELECT tenancy.create_tenant('acme', id => '11111111-1111-4111-8111-111111111111');
SELECT tenancy.create_tenant('globex', id => '22222222-2222-4222-8222-222222222222');
CREATE SCHEMA shop AUTHORIZATION regress_owner;
SET ROLE regress_owner;
CREATE TABLE shop.customers (tenant_id uuid NOT NULL, id int, name text NOT NULL, PRIMARY KEY (tenant_id, id));
CREATE TABLE shop.orders (
    tenant_id uuid NOT NULL, id int, customer int, item text, PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, customer) REFERENCES shop.customers);
CREATE INDEX orders_customer_idx ON shop.orders (tenant_id, customer);
RESET ROLE;
SELECT tenancy.protect_table('shop.customers'), tenancy.protect_table('shop.orders');
SELECT tenancy.grant_usage('regress_app');
GRANT USAGE ON SCHEMA shop TO regress_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON shop.customers, shop.orders TO regress_app;
INSERT INTO shop.customers SELECT id, 1, 'Ann' FROM tenancy.tenants;
INSERT INTO shop.orders SELECT id, 1, 1, 'lamp' FROM tenancy.tenants;
SELECT * FROM tenancy.check_integrity();
SELECT tenancy.assert_integrity() LIKE '%no defect' AS clean;

-- Defects of each kind, and what mends them.
SET tenancy.ddl_guard = off;
ALTER POLICY tenancy_isolation ON shop.orders USING (true);
CREATE TABLE shop.refunds (tenant_id uuid, amount numeric);
ALTER ROLE regress_app BYPASSRLS;
SET session_replication_role = replica;
INSERT INTO shop.orders VALUES ('11111111-1111-4111-8111-111111111111', 2, 77, 'desk'),
                               ('33333333-3333-4333-8333-333333333333', 1, NULL, 'chair');
RESET session_replication_role;
SELECT * FROM tenancy.check_integrity(deep => true) WHERE severity <> 'info' \gx
SELECT tenancy.assert_integrity();
\echo :SQLSTATE
SELECT remedy FROM tenancy.check_integrity('catalog') WHERE severity = 'error' \gexec
SELECT remedy FROM tenancy.check_integrity('roles') WHERE severity = 'error' \gexec
DELETE FROM shop.orders WHERE tenant_id = '33333333-3333-4333-8333-333333333333' OR customer = 77;
SELECT * FROM tenancy.check_integrity(deep => true) WHERE severity <> 'info';

-- What is meant to be so.
CREATE TABLE shop.import (tenant_id uuid, line text);
SELECT tenancy.accept_finding('tenant_table_unprotected', 'shop.import', '');
\echo :SQLSTATE
SELECT tenancy.accept_finding('tenant_table_unprotected', 'shop.orders', 'no reason');
\echo :SQLSTATE
SELECT tenancy.accept_finding('tenant_table_unprotected', 'shop.import', 'read by the import alone');
SELECT check_id, object, reason, until, is_past FROM tenancy.accepted_findings;
SELECT check_id, object FROM tenancy.check_integrity('catalog') WHERE severity <> 'info';
ALTER TABLE shop.import ADD COLUMN card text;
SELECT check_id, object FROM tenancy.check_integrity('catalog') WHERE severity <> 'info';
SELECT tenancy.unaccept_finding('tenant_table_unprotected', 'shop.import');
SELECT tenancy.unaccept_finding('tenant_table_unprotected', 'shop.import');
\echo :SQLSTATE
DROP TABLE shop.import;
SELECT tenancy.set_check('no_such_check', is_on => true);
\echo :SQLSTATE
SELECT tenancy.set_check('row_security_off', severity => 'loud');
\echo :SQLSTATE

-- Wrong questions.
SELECT * FROM tenancy.check_integrity('everything');
\echo :SQLSTATE
SELECT * FROM tenancy.check_integrity(sample => NULL);
\echo :SQLSTATE
SELECT * FROM tenancy.check_integrity(tables => '{shop.orders, NULL}');
\echo :SQLSTATE

-- Proven by behaviour: what an application's role can do, tried.
SELECT command, probe, expected, got, ok FROM tenancy.prove_isolation('shop.orders', 'regress_app');
SELECT tenancy.assert_isolation('shop.orders', 'regress_app');

-- Why does it see nothing?
SELECT link, state, detail, remedy FROM tenancy.diagnose('acme', 'regress_app', 'shop.orders') WHERE link <> 'server' \gx
SELECT tenancy.suspend_tenant('acme', 'unpaid');
SELECT link, state, detail, remedy FROM tenancy.diagnose('acme', 'regress_app', 'shop.orders') WHERE link = 'tenant' \gx
SELECT tenancy.resume_tenant('acme');

-- Orphans.
SELECT tenancy.fk_orphans('shop.orders');
SELECT relation, constraint_name, total, valid, orphans, is_validated FROM tenancy.fk_verify() ORDER BY 1, 2;

-- An administrator who is no superuser reads catalogs; of rows he is told that he may not. An application may ask nothing.
SELECT tenancy.grant_admin('regress_operator');
SET ROLE regress_operator;
SELECT check_id, object, detail FROM tenancy.check_integrity('data') WHERE object LIKE 'shop.%';
SELECT tenancy.assert_integrity('catalog') LIKE '%no defect' AS clean;
RESET ROLE;
SET ROLE regress_app;
SELECT * FROM tenancy.check_integrity();
\echo :SQLSTATE
RESET ROLE;
SELECT tenancy.revoke_admin('regress_operator');
DROP OWNED BY regress_app, regress_operator, regress_owner CASCADE;
DROP ROLE regress_app, regress_operator, regress_owner;
