-- Privileges: a function is for administrators, but for those of the context, which bind rather than give. These keep
-- their default privileges: an explicit list would be searched at the start of each statement.
DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN
        SELECT p.oid FROM pg_catalog.pg_proc p
         WHERE p.pronamespace = 'tenancy'::pg_catalog.regnamespace
           AND p.proname NOT IN ('set_tenant', 'clear_tenant', 'has_tenant', 'assert_tenant', 'verify_context', 'is_admin',
                                 'current_tenant_id', 'current_tenant_number', 'current_tenant_code',
                                 'set_tenant_signed', 'session_nonce', 'context_dimension')
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', f);
    END LOOP;
END $$;

-- Here a DBA meets it first; later tenancy.verify_context() says it, of a server exchanged under the extension too.
DO $$
DECLARE
    note text := (SELECT c.server_note FROM tenancy.verify_context() c);
BEGIN
    IF note IS NOT NULL THEN
        RAISE WARNING '%', note;
    END IF;
END $$;

-- What is installed now: tenancy.check_integrity tells from it what was altered since. An upgrade script ends with it, too.
SELECT tenancy_internal.note_installed_parts();
