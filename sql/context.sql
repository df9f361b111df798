-- room context · Rust src/context, src/pg/context.rs · tests pgrx-tests/{tests,regress,isolation}

-- Not given to pg_extension_config_dump: a dump carries no secrets. Nobody but the owner has a right to it.
CREATE TABLE tenancy_internal.signing_keys (
    kid        text        NOT NULL,
    algorithm  text        NOT NULL,
    public_key bytea,
    secret_key bytea,
    retired_at timestamptz,
    added_at   timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CONSTRAINT signing_keys_pkey PRIMARY KEY (kid)
);
ALTER TABLE tenancy_internal.signing_keys ALTER COLUMN secret_key SET STATISTICS 0;  -- pg_statistic would keep samples
ALTER TABLE tenancy_internal.signing_keys ENABLE ROW LEVEL SECURITY;  -- no policy: nothing for pg_read_all_data

CREATE VIEW tenancy.signing_keys AS
    SELECT kid, algorithm, secret_key IS NOT NULL AS can_sign, added_at, retired_at FROM tenancy_internal.signing_keys;

CREATE TABLE tenancy_internal.role_bindings (
    role      regrole     NOT NULL,
    tenant_id uuid        NOT NULL,                  -- no foreign key: see tenants.plan
    bound_at  timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CONSTRAINT role_bindings_pkey PRIMARY KEY (role)
);
-- The number of a dropped role may be another role's in the cluster that the dump goes to.
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.role_bindings',
    'WHERE EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = role)');

CREATE VIEW tenancy.role_bindings AS SELECT role, tenant_id, bound_at FROM tenancy_internal.role_bindings;

-- ALWAYS, and for each row: see tenancy.tenants.
CREATE TRIGGER announce_change AFTER INSERT OR UPDATE OR DELETE ON tenancy_internal.signing_keys
    FOR EACH ROW EXECUTE FUNCTION tenancy_internal.announce_change();
CREATE TRIGGER announce_truncate AFTER TRUNCATE ON tenancy_internal.signing_keys
    FOR EACH STATEMENT EXECUTE FUNCTION tenancy_internal.announce_change();
ALTER TABLE tenancy_internal.signing_keys ENABLE ALWAYS TRIGGER announce_change;
ALTER TABLE tenancy_internal.signing_keys ENABLE ALWAYS TRIGGER announce_truncate;
CREATE TRIGGER announce_change AFTER INSERT OR UPDATE OR DELETE ON tenancy_internal.role_bindings
    FOR EACH ROW EXECUTE FUNCTION tenancy_internal.announce_change();
CREATE TRIGGER announce_truncate AFTER TRUNCATE ON tenancy_internal.role_bindings
    FOR EACH STATEMENT EXECUTE FUNCTION tenancy_internal.announce_change();
ALTER TABLE tenancy_internal.role_bindings ENABLE ALWAYS TRIGGER announce_change;
ALTER TABLE tenancy_internal.role_bindings ENABLE ALWAYS TRIGGER announce_truncate;

-- What policies and defaults call. LEAKPROOF: their errors depend on the session, never on a row.
CREATE FUNCTION tenancy.current_tenant_id() RETURNS uuid
LANGUAGE c STABLE LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME', 'tenancy_current_id';
CREATE FUNCTION tenancy.current_tenant_number() RETURNS bigint
LANGUAGE c STABLE LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME', 'tenancy_current_number';
CREATE FUNCTION tenancy.current_tenant_code() RETURNS text
LANGUAGE c STABLE LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME', 'tenancy_current_code';

-- The same for rows that are written: they refuse a read-only tenant.
CREATE FUNCTION tenancy_internal.writing_tenant_id() RETURNS uuid
LANGUAGE c STABLE LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME', 'tenancy_writing_id';
CREATE FUNCTION tenancy_internal.writing_tenant_number() RETURNS bigint
LANGUAGE c STABLE LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME', 'tenancy_writing_number';
CREATE FUNCTION tenancy_internal.writing_tenant_code() RETURNS text
LANGUAGE c STABLE LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME', 'tenancy_writing_code';
CREATE FUNCTION tenancy_internal.may_write() RETURNS boolean
LANGUAGE c STABLE LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME', 'tenancy_may_write';

-- The context binds rather than gives; policies and defaults of users' tables call the functions of tenancy_internal.
INSERT INTO tenancy_internal.rights (grantee, privileges, kind, objects) VALUES
    ('everybody', 'EXECUTE', 'ROUTINE', '{tenancy.set_tenant, tenancy.set_tenant_signed, tenancy.clear_tenant,
        tenancy.has_tenant, tenancy.assert_tenant, tenancy.verify_context, tenancy.session_nonce, tenancy.context_dimension,
        tenancy.current_tenant_id, tenancy.current_tenant_number, tenancy.current_tenant_code,
        tenancy_internal.writing_tenant_id, tenancy_internal.writing_tenant_number, tenancy_internal.writing_tenant_code,
        tenancy_internal.may_write}'),
    ('administrator', 'SELECT', 'TABLE', '{tenancy.signing_keys, tenancy.role_bindings}'),
    ('administrator', 'EXECUTE', 'ROUTINE', '{tenancy.switch_tenant}');

COMMENT ON FUNCTION tenancy.current_tenant_id() IS
    'the id of the tenant of this transaction; 55000 when none is set (or NULL, with tenancy.missing_context = empty)';
COMMENT ON FUNCTION tenancy.current_tenant_number() IS 'the number of the tenant of this transaction; see current_tenant_id()';
COMMENT ON FUNCTION tenancy.current_tenant_code() IS 'the code of the tenant of this transaction; see current_tenant_id()';
COMMENT ON FUNCTION tenancy_internal.writing_tenant_id() IS 'current_tenant_id() for a row to be written: refuses a read-only tenant';
COMMENT ON FUNCTION tenancy_internal.writing_tenant_number() IS
    'current_tenant_number() for a row to be written: refuses a read-only tenant';
COMMENT ON FUNCTION tenancy_internal.writing_tenant_code() IS
    'current_tenant_code() for a row to be written: refuses a read-only tenant';
COMMENT ON FUNCTION tenancy_internal.may_write() IS 'true; refuses a missing and a read-only tenant';
COMMENT ON FUNCTION tenancy.set_tenant(text) IS
    'sets the tenant of this transaction by id, number or code, and gives its id; a transaction keeps its first tenant';
COMMENT ON FUNCTION tenancy.switch_tenant(text) IS
    'sets the tenant also when the transaction belongs to another one already, whose deferred triggers run before; for administrators';
COMMENT ON FUNCTION tenancy.clear_tenant() IS 'leaves the transaction without a tenant, once its deferred triggers have run; it still cannot take another one';
COMMENT ON FUNCTION tenancy.has_tenant() IS 'whether a protected table would find a tenant now; raises nothing';
COMMENT ON FUNCTION tenancy.assert_tenant(text) IS 'raises 42501 unless the transaction belongs to the tenant';
COMMENT ON FUNCTION tenancy.verify_context() IS
    'how this session stands: its tenant, how and when it was set, what binds the role, and what is wrong with the server';

COMMENT ON TABLE tenancy_internal.signing_keys IS 'keys that tokens are verified with, with their secrets; never dumped';
COMMENT ON TABLE tenancy_internal.role_bindings IS 'login roles that are one tenant and no other';
COMMENT ON VIEW tenancy.signing_keys IS 'keys that tokens are verified with; a retired one verifies nothing and its secret is gone';
COMMENT ON COLUMN tenancy.signing_keys.can_sign IS 'whether tenancy.sign_tenant_token can sign with it';
COMMENT ON VIEW tenancy.role_bindings IS 'login roles that are one tenant and no other; see tenancy.bind_role';
COMMENT ON FUNCTION tenancy.set_tenant_signed(text) IS
    'sets the tenant of this transaction that a signed token (a JWT) names, and gives its id';
COMMENT ON FUNCTION tenancy.context_dimension(text) IS
    'a dimension of the token that set the tenant of this transaction; NULL when it has none of that name';
COMMENT ON FUNCTION tenancy.session_nonce() IS
    'what a token carries to be good on this connection only; see the setting tenancy.token_nonce';
COMMENT ON FUNCTION tenancy.add_signing_key(text, text, text) IS
    'takes a key for tokens into use: HS256 (secret of 32 bytes or more), EdDSA (Ed25519) or ES256; PEM or JWK';
COMMENT ON FUNCTION tenancy.retire_signing_key(text) IS
    'takes a key for tokens out of use for good and forgets its secret';
COMMENT ON FUNCTION tenancy.sign_tenant_token(text, interval, text, text, text, jsonb) IS
    'a signed token for a tenant, for operators and tests';
COMMENT ON FUNCTION tenancy.bind_role(regrole, text) IS
    'makes a login role one tenant and no other in every session of that role, without any SET';
COMMENT ON FUNCTION tenancy.unbind_role(regrole) IS 'takes back what tenancy.bind_role did';
