-- Privileges: nothing is for everybody but the context, which binds rather than gives.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tenancy FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    tenancy.set_tenant(text), tenancy.clear_tenant(), tenancy.has_tenant(), tenancy.assert_tenant(text),
    tenancy.verify_context(), tenancy.is_admin(),
    tenancy.current_tenant_id(), tenancy.current_tenant_number(), tenancy.current_tenant_code()
TO PUBLIC;
