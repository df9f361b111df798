-- room context · Rust src/context, src/pg/context.rs · tests pgrx-tests/{tests,regress,isolation}

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
    'sets the tenant also when the transaction belongs to another one already; for administrators';
COMMENT ON FUNCTION tenancy.clear_tenant() IS 'leaves the transaction without a tenant; it still cannot take another one';
COMMENT ON FUNCTION tenancy.has_tenant() IS 'whether a protected table would find a tenant now; raises nothing';
COMMENT ON FUNCTION tenancy.assert_tenant(text) IS 'raises 42501 unless the transaction belongs to the tenant';
COMMENT ON FUNCTION tenancy.verify_context() IS
    'how this session stands: its tenant, how and when it was set, and whether row security binds the role';
