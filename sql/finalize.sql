-- Privileges: a routine is nobody's but its owner's where tenancy_internal.rights does not say that it is for everybody. Those
-- keep their default privileges: an explicit list would be searched at the start of each statement. A name that is none
-- ends the installation here.
DO $$
DECLARE
    routine regprocedure;
BEGIN
    PERFORM CASE WHEN r.kind = 'SCHEMA' THEN object::pg_catalog.regnamespace::pg_catalog.oid
                 WHEN r.kind = 'TABLE' THEN object::pg_catalog.regclass::pg_catalog.oid
                 WHEN object LIKE '%)' THEN object::pg_catalog.regprocedure::pg_catalog.oid
                 ELSE object::pg_catalog.regproc::pg_catalog.oid END
       FROM tenancy_internal.rights r, pg_catalog.unnest(r.objects) AS object;
    FOR routine IN
        SELECT p.oid FROM pg_catalog.pg_proc p
         WHERE p.pronamespace IN ('tenancy'::pg_catalog.regnamespace, 'tenancy_internal'::pg_catalog.regnamespace)
           AND NOT EXISTS (SELECT FROM tenancy_internal.rights r
                            WHERE r.grantee = 'everybody' AND p.oid = ANY (r.objects::pg_catalog.regproc[]::pg_catalog.oid[]))
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', routine);
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
