-- What a session sees in psql where a tenant must be signed, and where a role is bound to one.
\set VERBOSITY default
\set SHOW_CONTEXT never
CREATE ROLE regress_web LOGIN;
CREATE ROLE regress_acme LOGIN;
CREATE ROLE regress_admin LOGIN;
SELECT tenancy.create_tenant('acme', number => 17, id => '11111111-1111-4111-8111-111111111111');
SELECT tenancy.create_tenant('globex', number => 18, id => '22222222-2222-4222-8222-222222222222');
CREATE TABLE orders (id int PRIMARY KEY, item text);
SELECT tenancy.protect_table('orders');
GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO regress_web, regress_acme;
SELECT tenancy.grant_usage('regress_web'), tenancy.grant_usage('regress_acme'), tenancy.grant_admin('regress_admin');

-- Keys.
SELECT tenancy.add_signing_key('2026-11', 'HS256', 'a secret of more than thirty-two bytes');
SELECT tenancy.add_signing_key('idp', 'EdDSA', '{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}');
SELECT tenancy.add_signing_key('old', 'ES256', '{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
  "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}');
SELECT tenancy.retire_signing_key('old');
SELECT kid, algorithm, can_sign, retired_at IS NOT NULL AS is_retired FROM tenancy.signing_keys ORDER BY kid;
SELECT tenancy.add_signing_key('2026-11', 'HS256', 'another secret of more than thirty-two bytes');
\echo :SQLSTATE
SELECT tenancy.add_signing_key('short', 'HS256', 'short');
\echo :SQLSTATE
SELECT tenancy.add_signing_key('rsa', 'RS256', 'a secret of more than thirty-two bytes');
\echo :SQLSTATE
SELECT tenancy.add_signing_key('pem', 'EdDSA', 'a secret of more than thirty-two bytes');
\echo :SQLSTATE
SELECT tenancy.add_signing_key('', 'HS256', 'a secret of more than thirty-two bytes');
SELECT tenancy.add_signing_key('null', 'HS256', NULL);
SELECT tenancy.retire_signing_key('old');
\echo :SQLSTATE

-- Tokens.
SELECT tenancy.sign_tenant_token('acme', dimensions => '{"region": "eu", "seats": 5}') AS token \gset
SELECT tenancy.sign_tenant_token('globex', role => 'regress_acme') AS of_another_role \gset
SELECT tenancy.sign_tenant_token('nobody');
SELECT tenancy.sign_tenant_token('acme', ttl => '2 hours');
SELECT tenancy.sign_tenant_token('acme', ttl => '0');
SELECT tenancy.sign_tenant_token('acme', kid => 'idp');
SELECT tenancy.sign_tenant_token('acme', kid => 'old');
SELECT tenancy.sign_tenant_token('acme', dimensions => '[]');

-- An application in signed mode.
ALTER ROLE regress_web SET tenancy.context_mode = 'signed';
\c - regress_web
BEGIN;
SELECT tenancy.set_tenant('acme');
\echo :SQLSTATE
ROLLBACK;
BEGIN;
SET LOCAL app.current_tenant_id = 'acme';
SELECT * FROM orders;
ROLLBACK;
BEGIN;
SELECT tenancy.set_tenant_signed(:'token');
INSERT INTO orders VALUES (1, 'robot arm') RETURNING *;
SELECT tenancy.context_dimension('region') AS region, tenancy.context_dimension('seats') AS seats,
       tenancy.context_dimension('other') AS other;
SELECT tenant_code, set_by, lifetime, problem FROM tenancy.verify_context();
SHOW app.current_tenant_id;
SAVEPOINT before;
SET LOCAL app.current_tenant_id = 'acme';
ROLLBACK TO before;
SET tenancy.context_mode = 'open';
ROLLBACK TO before;
SELECT tenancy.set_tenant_signed(:'of_another_role');
ROLLBACK TO before;
SELECT tenancy.set_tenant_signed('x.y.z');
ROLLBACK TO before;
SELECT tenancy.set_tenant_signed(:'token' || 'x');
ROLLBACK TO before;
SELECT tenancy.set_tenant_signed(NULL);
ROLLBACK TO before;
SELECT * FROM orders;
COMMIT;
SELECT tenancy.context_dimension('region') IS NULL AS it_is_over;
SELECT * FROM orders;
SELECT kid FROM tenancy.signing_keys;
SELECT secret_key FROM tenancy_internal.signing_keys;
SELECT tenancy.sign_tenant_token('globex');

-- An administrator needs no token, and has no keys.
\c - regress_admin
SET tenancy.context_mode = 'signed';
\c - postgres
ALTER ROLE regress_admin SET tenancy.context_mode = 'signed';
\c - regress_admin
BEGIN;
SELECT tenancy.set_tenant('globex');
COMMIT;
SELECT kid, can_sign FROM tenancy.signing_keys ORDER BY kid;
SELECT tenancy.sign_tenant_token('globex');

-- A role that is a tenant.
\c - postgres
SELECT tenancy.bind_role('regress_acme', 'acme');
SELECT tenancy.bind_role('regress_acme', '17');
SELECT tenancy.bind_role('regress_acme', 'globex');
\echo :SQLSTATE
SELECT tenancy.bind_role('postgres', 'acme');
SELECT tenancy.bind_role('regress_web', 'nobody');
SELECT tenancy.bind_role(NULL, 'acme');
SELECT tenancy.unbind_role('regress_web');
\echo :SQLSTATE
SELECT role, tenant_id FROM tenancy.role_bindings;
\c - regress_acme
SELECT * FROM orders;
SELECT tenant_code, set_by, set_at, lifetime, problem FROM tenancy.verify_context();
SELECT tenancy.set_tenant('acme');
SELECT tenancy.set_tenant('globex');
\echo :SQLSTATE
SET app.current_tenant_id = 'globex';
RESET ALL;
SELECT count(*) FROM orders;
\c - postgres
SELECT tenancy.unbind_role('regress_acme');
\c - regress_acme
SELECT * FROM orders;

\c - postgres
DROP TABLE orders;
SELECT tenancy.revoke_admin('regress_admin');
DROP OWNED BY regress_web, regress_acme, regress_admin;
DROP ROLE regress_web, regress_acme, regress_admin;
