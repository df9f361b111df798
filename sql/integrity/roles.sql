-- room integrity, roles that could get past row security, and the server and extension they meet
-- Roles are the cluster's: judged are those that matter to this database, however dangerous others may be.

-- The roles that tenancy.grant_usage was given to, and whoever may log in and has somebody else's protected table to use.
CREATE FUNCTION tenancy_internal.judged_roles() RETURNS TABLE (role oid, is_application boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
WITH application(role) AS (
    SELECT a FROM tenancy_internal.application_roles() a
     UNION
    SELECT r.oid FROM pg_class c, aclexplode(c.relacl) a, pg_roles r    -- a superuser since
     WHERE c.oid = 'tenancy.tenants'::regclass AND a.privilege_type = 'SELECT' AND r.oid = a.grantee AND r.oid <> c.relowner
       AND r.rolsuper
), grantees(role) AS (
    SELECT a.grantee
      FROM tenancy_internal.protected_tables p JOIN pg_class c ON c.oid = p.relation CROSS JOIN LATERAL aclexplode(c.relacl) a
     WHERE a.grantee <> c.relowner
     UNION
    SELECT a.grantee
      FROM tenancy_internal.protected_tables p JOIN pg_class c ON c.oid = p.relation
      JOIN pg_attribute t ON t.attrelid = c.oid AND t.attacl IS NOT NULL CROSS JOIN LATERAL aclexplode(t.attacl) a
     WHERE a.grantee <> c.relowner
), logins(role) AS (
    SELECT r.oid FROM pg_roles r
     WHERE r.rolcanlogin AND has_database_privilege(r.oid, current_database(), 'CONNECT')
       AND EXISTS (SELECT FROM grantees g
                    WHERE g.role = r.oid OR NOT r.rolsuper AND (g.role = 0 OR pg_has_role(r.oid, g.role, 'MEMBER')))
)
SELECT j.role, EXISTS (SELECT FROM application a WHERE a.role = j.role)
  FROM (SELECT a.role FROM application a UNION SELECT l.role FROM logins l) j
$$;

-- What a role can become (SET ROLE, also after granting itself what it has the ADMIN OPTION for), or can use as if it were
-- it (INHERIT). Up to PostgreSQL 15 every membership is both; from 16 each says what it is. A path ends at a superuser.
CREATE FUNCTION tenancy_internal.reachable_roles(roles oid[])
RETURNS TABLE (start oid, role oid, becomes boolean, path text[], first_grantor oid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
WITH RECURSIVE steps AS (
    SELECT m.member, m.roleid, m.grantor, r.rolname,
           COALESCE((to_jsonb(m) ->> 'set_option')::boolean, true) OR m.admin_option AS becomes,
           COALESCE((to_jsonb(m) ->> 'inherit_option')::boolean, true) AS inherits
      FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid
), reach(start, role, becomes, path, first_grantor) AS (
    SELECT r.oid, r.oid, true, ARRAY[r.rolname::text], NULL::oid FROM pg_roles r WHERE r.oid = ANY (roles)
     UNION ALL
    SELECT h.start, s.roleid, h.becomes AND s.becomes, h.path || s.rolname::text, COALESCE(h.first_grantor, s.grantor)
      FROM reach h JOIN steps s ON s.member = h.role JOIN pg_roles f ON f.oid = h.role
     WHERE (h.becomes AND s.becomes OR s.inherits) AND NOT f.rolsuper AND s.rolname <> ALL (h.path)
)
SELECT DISTINCT ON (start, role) * FROM reach ORDER BY start, role, becomes DESC, cardinality(path), path, first_grantor
$$;

-- What a judged role can do by itself, or by way of roles that it can become. A way that leads through an application's role
-- is that role's finding.
CREATE FUNCTION tenancy_internal.find_role_dangers(tables oid[], sample integer, deep boolean)
RETURNS SETOF tenancy_internal.finding
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
WITH judged AS MATERIALIZED (
    SELECT j.role, j.is_application FROM tenancy_internal.judged_roles() j
), owners(role) AS MATERIALIZED (
    SELECT DISTINCT c.relowner FROM tenancy_internal.protected_tables p JOIN pg_class c ON c.oid = p.relation
), admins(role) AS MATERIALIZED (
    SELECT a.grantee FROM pg_proc f, aclexplode(f.proacl) a
     WHERE f.oid = 'tenancy.switch_tenant(text)'::regprocedure AND a.privilege_type = 'EXECUTE' AND a.grantee <> f.proowner
), reach AS MATERIALIZED (
    SELECT h.* FROM tenancy_internal.reachable_roles(ARRAY(SELECT j.role FROM judged j)) h
), dangers AS (
    SELECT h.start, h.path, h.first_grantor, v.check_id, v.danger, v.mend
      FROM reach h JOIN judged j ON j.role = h.start JOIN pg_roles r ON r.oid = h.role
     CROSS JOIN LATERAL (SELECT cardinality(h.path) = 1) AS o(is_own)
     CROSS JOIN LATERAL (VALUES
        ('role_superuser', h.becomes AND r.rolsuper, 'is a superuser, whom row security never binds', 'ALTER ROLE %I NOSUPERUSER'),
        ('role_bypasses', h.becomes AND r.rolbypassrls AND NOT r.rolsuper
            AND NOT (o.is_own AND EXISTS (SELECT FROM tenancy.exempt_roles e WHERE e.role = r.oid AND e.is_active)),
         'has BYPASSRLS: row security does not bind it', 'ALTER ROLE %I NOBYPASSRLS'),
        ('role_owner', NOT r.rolsuper AND r.oid IN (SELECT w.role FROM owners w) AND (j.is_application OR NOT o.is_own),
         'owns protected tables and could take their protection off', NULL),
        ('role_admin', NOT r.rolsuper AND r.oid IN (SELECT a.role FROM admins a),
         'administers tenants and can act as each of them', 'SELECT tenancy.revoke_admin(%L)'),
        ('role_createrole', h.becomes AND r.rolcreaterole AND NOT r.rolsuper
            AND current_setting('server_version_num')::int < 160000,
         'has CREATEROLE and can grant itself any role', 'ALTER ROLE %I NOCREATEROLE'),
        ('role_replication', h.becomes AND r.rolreplication AND NOT r.rolsuper,
         'has REPLICATION and can stream every row', 'ALTER ROLE %I NOREPLICATION'),
        ('role_server_files', r.rolname IN ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program'),
         'reaches the server''s files or programs, and with them every row', NULL),
        ('role_all_data', r.rolname IN ('pg_read_all_data', 'pg_write_all_data', 'pg_maintain'),
         'has all tables at hand, those that nothing protects and the extension''s own too', NULL),
        ('role_monitors', r.rolname IN ('pg_monitor', 'pg_read_all_stats', 'pg_stat_scan_tables'),
         'sees the statements of all sessions, and the tenants'' values in them', NULL)
      ) AS v(check_id, is_so, danger, mend)
     WHERE v.is_so
       AND NOT EXISTS (SELECT FROM judged i JOIN pg_roles n ON n.oid = i.role
                        WHERE i.is_application AND n.rolname = ANY (h.path[2:cardinality(h.path) - 1]))
)
SELECT d.check_id, 'pg_authid'::regclass::oid, d.start, 0, NULL::text, NULL::bigint, NULL::jsonb,
       string_agg(CASE WHEN cardinality(d.path) = 1 THEN format('Role "%s" %s.', d.path[1], d.danger)
                       ELSE format('Role "%s" %s; the way there is %s.', d.path[cardinality(d.path)], d.danger,
                                   array_to_string(d.path, ' -> ')) END, ' ' ORDER BY cardinality(d.path), d.path),
       (array_agg(CASE WHEN cardinality(d.path) > 1
                       THEN format('REVOKE %I FROM %I', d.path[2], d.path[1])
                            -- From 16 a membership is as often there as it was granted by different roles.
                            || CASE WHEN current_setting('server_version_num')::int >= 160000
                                    THEN format(' GRANTED BY %s', d.first_grantor::regrole) ELSE '' END
                       WHEN d.check_id = 'role_admin' THEN format(d.mend, quote_ident(d.path[1]))
                       ELSE format(d.mend, d.path[1]) END
                  ORDER BY cardinality(d.path), d.path))[1]
  FROM dangers d GROUP BY d.check_id, d.start
UNION ALL
SELECT NULL, 'pg_authid'::regclass, j.role, 0, NULL, NULL, NULL, NULL, NULL FROM judged j
$$;

-- Exemptions and bindings that say nothing any more. A dropped role has a number only, and is found on the table.
CREATE FUNCTION tenancy_internal.find_role_records(tables oid[], sample integer, deep boolean)
RETURNS SETOF tenancy_internal.finding
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
SELECT CASE WHEN e.until <= now() THEN 'exemption_past' ELSE 'exemption_idle' END,
       CASE WHEN r.oid IS NULL THEN 'pg_class'::regclass ELSE 'pg_authid'::regclass END::oid,
       COALESCE(r.oid, 'tenancy_internal.exempt_roles'::regclass), 0, NULL::text, NULL::bigint, NULL::jsonb,
       CASE WHEN r.oid IS NULL THEN format('Role %s was exempt from the fence and has been dropped.', e.role)
            WHEN e.until <= now() THEN format('The exemption of role "%s" from the fence ended at %s.', r.rolname, e.until)
            ELSE format('Role "%s" is exempt from the fence, which row security binds anyway.', r.rolname) END,
       format('SELECT tenancy.unexempt_role(%L)', e.role::text)
  FROM tenancy.exempt_roles e LEFT JOIN pg_roles r ON r.oid = e.role
 WHERE r.oid IS NULL OR e.until <= now() OR NOT (r.rolbypassrls OR r.rolsuper)
UNION ALL
SELECT 'binding_void', CASE WHEN r.oid IS NULL THEN 'pg_class'::regclass ELSE 'pg_authid'::regclass END,
       COALESCE(r.oid, 'tenancy_internal.role_bindings'::regclass), 0, t.code, NULL, NULL,
       CASE WHEN r.oid IS NULL THEN format('Role %s is bound to a tenant and has been dropped.', b.role)
            WHEN t.id IS NULL THEN format('Role "%s" is bound to %s, which is no tenant.', r.rolname, b.tenant_id)
            ELSE format('Role "%s" is bound to tenant "%s", which is deleted.', r.rolname, t.code) END,
       format('SELECT tenancy.unbind_role(%L)', b.role::text)
  FROM tenancy.role_bindings b LEFT JOIN pg_roles r ON r.oid = b.role LEFT JOIN tenancy.tenants t ON t.id = b.tenant_id
 WHERE r.oid IS NULL OR t.id IS NULL OR t.status = 'deleted'
$$;

-- The settings that weaken isolation, with the value that does.
CREATE FUNCTION tenancy_internal.weak_settings() RETURNS TABLE (name text, weak text, check_id text, effect text)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
VALUES
    ('tenancy.missing_context', 'empty', 'setting_lenient', 'a statement without a tenant finds no rows where it should fail'),
    ('tenancy.context_lifetime', 'session', 'setting_lenient', 'a pooled connection hands its tenant to the next transaction'),
    ('tenancy.ddl_guard', 'off', 'setting_weak', 'statements that take protection off a table are not stopped'),
    ('tenancy.ddl_guard', 'warn', 'setting_weak', 'statements that take protection off a table are not stopped'),
    ('tenancy.fence_superusers', 'off', 'setting_weak', 'superusers who work for one tenant use the rows of all'),
    ('session_replication_role', 'replica', 'setting_weak', 'foreign keys and ordinary triggers are not in force'),
    ('session_replication_role', 'local', 'setting_weak', 'triggers for replication are not in force')
$$;

-- What is stored for the server, this database and the roles that matter to it: not what this session says.
CREATE FUNCTION tenancy_internal.find_settings(tables oid[], sample integer, deep boolean)
RETURNS SETOF tenancy_internal.finding
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
WITH stored AS (
    SELECT s.setdatabase AS database, s.setrole AS role, lower(split_part(c, '=', 1)) AS name,
           substr(c, strpos(c, '=') + 1) AS value, r.rolname
      FROM pg_db_role_setting s CROSS JOIN LATERAL unnest(s.setconfig) c LEFT JOIN pg_roles r ON r.oid = s.setrole
     WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
       AND (s.setrole = 0 OR s.setrole IN (SELECT j.role FROM tenancy_internal.judged_roles() j))
), said AS (
    SELECT s.*, CASE WHEN s.role = 0 AND s.database = 0 THEN 'ALTER ROLE ALL'
                     WHEN s.role = 0 THEN format('ALTER DATABASE %I', current_database())
                     WHEN s.database = 0 THEN format('ALTER ROLE %I', s.rolname)
                     ELSE format('ALTER ROLE %I IN DATABASE %I', s.rolname, current_database()) END AS command
      FROM stored s
), judged AS (
    SELECT s.*, w.check_id, w.effect FROM said s JOIN tenancy_internal.weak_settings() w ON w.name = s.name
     WHERE w.weak = lower(s.value)
        OR w.weak = 'off' AND w.name = 'tenancy.fence_superusers' AND lower(s.value) IN ('false', 'no', '0', 'f', 'n')
     UNION ALL
    SELECT s.*, 'setting_row_security', 'every statement on a protected table fails for whom row security binds'
      FROM said s WHERE s.name = 'row_security' AND lower(s.value) IN ('off', 'false', 'no', '0', 'f', 'n')
     UNION ALL
    SELECT s.*, 'setting_pin',
           CASE WHEN t.id IS NULL THEN 'no tenant has that key, and no connection gets one'
                ELSE 'that tenant is deleted, and its connections see nothing' END
      FROM said s LEFT JOIN tenancy.tenants t ON lower(s.value) = t.id::text OR s.value IN (t.number::text, t.code)
     WHERE s.name = 'app.current_tenant_id' AND s.value <> '' AND (t.id IS NULL OR t.status = 'deleted')
)
SELECT j.check_id, CASE WHEN j.role = 0 THEN 'pg_database'::regclass ELSE 'pg_authid'::regclass END::oid,
       CASE WHEN j.role = 0 THEN (SELECT oid FROM pg_database WHERE datname = current_database()) ELSE j.role END, 0,
       NULL::text, NULL::bigint, NULL::jsonb,
       string_agg(format('%s has set %s to %s: %s.', j.command, j.name, quote_literal(j.value), j.effect), ' '
                  ORDER BY j.name, j.command),
       (array_agg(format('%s RESET %s', j.command, j.name) ORDER BY j.name, j.command))[1]
  FROM judged j GROUP BY j.check_id, j.role
UNION ALL
-- In one of the server's files; its last word counts.
SELECT w.check_id, 'pg_database'::regclass, d.oid, 0, NULL, NULL, NULL,
       string_agg(format('The server''s %s has set %s to %s: %s.', regexp_replace(f.sourcefile, '^.*/', ''), f.name,
                         quote_literal(f.setting), w.effect), ' ' ORDER BY f.name),
       CASE WHEN bool_and(f.sourcefile LIKE '%/postgresql.auto.conf') AND count(*) = 1
            THEN format('ALTER SYSTEM RESET %s', min(f.name)) END
  FROM pg_file_settings f JOIN tenancy_internal.weak_settings() w ON w.name = lower(f.name) AND w.weak = lower(f.setting)
  JOIN pg_database d ON d.datname = current_database()
 WHERE f.applied AND f.error IS NULL GROUP BY w.check_id, d.oid
$$;

-- Settings of ours with values that PostgreSQL refuses: sessions that have one get no tenant. What is stored is asked of all
-- roles; of the server's files and command line this session knows what it was started with.
CREATE FUNCTION tenancy_internal.find_invalid_settings(tables oid[], sample integer, deep boolean)
RETURNS SETOF tenancy_internal.finding
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
WITH here AS (
    SELECT d.oid, d.datname FROM pg_database d WHERE d.datname = current_database()
), stored AS MATERIALIZED (    -- before a value is judged, for which it must be of ours
    SELECT s.setrole AS role, split_part(c, '=', 1) AS name, substr(c, strpos(c, '=') + 1) AS value,
           CASE WHEN s.setrole = 0 AND s.setdatabase = 0 THEN 'ALTER ROLE ALL'
                WHEN s.setrole = 0 THEN format('ALTER DATABASE %I', h.datname)
                WHEN s.setdatabase = 0 THEN format('ALTER ROLE %I', r.rolname)
                ELSE format('ALTER ROLE %I IN DATABASE %I', r.rolname, h.datname) END AS command
      FROM here h JOIN pg_db_role_setting s ON s.setdatabase IN (0, h.oid)
     CROSS JOIN LATERAL unnest(s.setconfig) c LEFT JOIN pg_roles r ON r.oid = s.setrole
     WHERE c ILIKE 'tenancy.%'
), filed AS MATERIALIZED (
    SELECT f.name, f.setting AS value, regexp_replace(f.sourcefile, '^.*/', '') AS file
      FROM pg_file_settings f WHERE f.name ILIKE 'tenancy.%' AND (f.applied OR f.error IS NOT NULL)
), found(role, detail, remedy) AS (
    SELECT s.role, format('%s has set %s to %L: %s.', s.command, s.name, s.value, tenancy_internal.setting_fault(s.name, s.value)),
           -- Which value was meant only a person knows.
           CASE WHEN s.name NOT IN (SELECT g.name FROM pg_settings g) THEN format('%s RESET %s', s.command, s.name) END
      FROM stored s WHERE tenancy_internal.setting_fault(s.name, s.value) IS NOT NULL
     UNION ALL
    SELECT 0, format('The server''s %s has set %s to %L: %s.', f.file, f.name, f.value, tenancy_internal.setting_fault(f.name, f.value)), NULL
      FROM filed f WHERE tenancy_internal.setting_fault(f.name, f.value) IS NOT NULL
     UNION ALL
    SELECT 0, format('This session gets no tenant: %s.', tenancy_internal.invalid_setting()), NULL
     WHERE tenancy_internal.invalid_setting() IS NOT NULL
)
SELECT 'setting_invalid', CASE WHEN f.role = 0 THEN 'pg_database'::regclass ELSE 'pg_authid'::regclass END::oid,
       CASE WHEN f.role = 0 THEN h.oid ELSE f.role END, 0, NULL::text, NULL::bigint, NULL::jsonb,
       string_agg(f.detail, ' ' ORDER BY f.detail), string_agg(f.remedy, '; ' ORDER BY f.remedy)
  FROM found f CROSS JOIN here h GROUP BY f.role, h.oid
$$;

-- Who may change a setting that isolation rests on. Dynamic, for PostgreSQL 14 has no such catalog.
CREATE FUNCTION tenancy_internal.find_parameter_grants(tables oid[], sample integer, deep boolean)
RETURNS SETOF tenancy_internal.finding
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF to_regclass('pg_catalog.pg_parameter_acl') IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE $sql$
    WITH reach AS MATERIALIZED (
        SELECT DISTINCT h.role FROM tenancy_internal.reachable_roles(ARRAY(SELECT j.role FROM tenancy_internal.judged_roles() j)) h
         UNION ALL SELECT 0::oid
    )
    SELECT 'setting_granted', 'pg_parameter_acl'::regclass::oid, p.oid, 0, NULL::text, NULL::bigint, NULL::jsonb,
           format('%s may set %s, which isolation rests on.',
                  string_agg(DISTINCT CASE WHEN a.grantee = 0 THEN 'Everybody' ELSE format('Role "%s"', g.rolname) END, ', '), p.parname),
           format('REVOKE ALL ON PARAMETER %s FROM %s', p.parname,
                  string_agg(DISTINCT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(g.rolname) END, ', '))
      FROM pg_parameter_acl p CROSS JOIN LATERAL aclexplode(p.paracl) a LEFT JOIN pg_roles g ON g.oid = a.grantee
     WHERE (p.parname LIKE 'tenancy.%' OR p.parname IN ('session_replication_role', 'session_preload_libraries',
                'shared_preload_libraries', 'dynamic_library_path', 'allow_system_table_mods'))
       AND a.grantee IN (SELECT r.role FROM reach r) AND (g.oid IS NULL OR NOT g.rolsuper)
     GROUP BY p.oid, p.parname
    $sql$;
END $$;

-- Which server it is, and whether the fence stands.
CREATE FUNCTION tenancy_internal.find_server(tables oid[], sample integer, deep boolean)
RETURNS SETOF tenancy_internal.finding
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
SELECT v.check_id, 'pg_database'::regclass::oid, d.oid, 0, NULL::text, NULL::bigint, NULL::jsonb, v.detail, NULL::text
  FROM tenancy.verify_context() c JOIN pg_database d ON d.datname = current_database()
 CROSS JOIN LATERAL (VALUES
    ('server_release', c.server_note || '.'),
    ('server_unfenced', CASE WHEN c.loaded_by <> 'shared_preload_libraries'
        THEN 'pg_tenancy is not in shared_preload_libraries: nothing stands behind row security where that does not bind.' END)
  ) AS v(check_id, detail)
 WHERE v.detail IS NOT NULL
$$;

-- Who passes by row security because that is what the role is for.
CREATE FUNCTION tenancy_internal.find_powerful_roles(tables oid[], sample integer, deep boolean)
RETURNS SETOF tenancy_internal.finding
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
SELECT 'login_superuser', 'pg_authid'::regclass::oid, r.oid, 0, NULL::text, NULL::bigint, NULL::jsonb,
       format('Role "%s" may log in and is a superuser.', r.rolname), NULL::text
  FROM pg_roles r WHERE r.rolsuper AND r.rolcanlogin
UNION ALL
SELECT 'login_admin', 'pg_authid'::regclass, r.oid, 0, NULL, NULL, NULL,
       format('Role "%s" may log in and administers tenants.', r.rolname), NULL
  FROM pg_roles r
 WHERE r.rolcanlogin AND NOT r.rolsuper AND has_function_privilege(r.oid, 'tenancy.switch_tenant(text)', 'EXECUTE')
UNION ALL
SELECT 'login_owner', 'pg_authid'::regclass, r.oid, 0, NULL, NULL, NULL,
       format('Role "%s" may log in and owns protected tables.', r.rolname), NULL
  FROM pg_roles r
 WHERE r.rolcanlogin AND NOT r.rolsuper
   AND r.oid IN (SELECT c.relowner FROM tenancy_internal.protected_tables p JOIN pg_class c ON c.oid = p.relation)
$$;

-- Whether changes are recorded as they were to be.
CREATE FUNCTION tenancy_internal.find_audit_gaps(tables oid[], sample integer, deep boolean)
RETURNS SETOF tenancy_internal.finding
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
SELECT 'audit_not_enforced', 'pg_class'::regclass::oid, a.relation::oid, 0, NULL::text, NULL::bigint, NULL::jsonb,
       format('Changes of %s are to be audited, but a trigger that records them is missing, altered or off.', a.relation),
       format('SELECT tenancy.audit_table(%L, ignore_columns => %L, redact_columns => %L, row_images => %L, skip_unchanged => %L, '
              'tenant_column => %s, allow_unscoped => %L)', root.relation::text, root.ignore_columns, root.redact_columns,
              root.row_images, root.skip_unchanged, COALESCE(quote_literal(root.tenant_column), 'NULL'),
              root.tenant_column IS NULL)
  FROM tenancy.audited_tables a JOIN tenancy.audited_tables root ON root.relation = COALESCE(a.part_of, a.relation)
 WHERE NOT a.is_enforced AND (tables IS NULL OR a.relation = ANY (tables))
UNION ALL
SELECT NULL, 'pg_class'::regclass, a.relation, 0, NULL, NULL, NULL, NULL, NULL
  FROM tenancy.audited_tables a WHERE tables IS NULL OR a.relation = ANY (tables)
UNION ALL
SELECT v.check_id, 'pg_class'::regclass, v.relation, 0, NULL, NULL, NULL, v.detail, 'CALL tenancy.maintain_audit()'
  FROM (VALUES
    ('audit_misplaced', 'tenancy_internal.audit_chunks_default'::regclass,
     EXISTS (SELECT FROM ONLY tenancy_internal.audit_chunks_default),
     'Entries of the audit log wait in its default partition, where they are neither sealed nor dropped with their month.'),
    ('audit_unmaintained', 'tenancy_internal.audit_chunks'::regclass,
     EXISTS (SELECT FROM tenancy.audited_tables)
     AND to_regclass(format('tenancy_internal.audit_chunks_%s',
             to_char(now() AT TIME ZONE 'UTC' + interval '1 month', 'YYYY_MM'))) IS NULL,
     'The audit log has no partition for the coming month; tenancy.maintain_audit() is to be called every month.')
  ) AS v(check_id, relation, is_so, detail)
 WHERE v.is_so AND tables IS NULL
$$;

INSERT INTO tenancy_internal.integrity_checks (check_id, scope, severity, is_on, source, title) VALUES
    ('role_superuser', 'roles', 'error', true, 'find_role_dangers', 'an application''s role is, or can become, a superuser'),
    ('role_bypasses', 'roles', 'error', true, 'find_role_dangers', 'an application''s role has, or can become one with, BYPASSRLS'),
    ('role_owner', 'roles', 'error', true, 'find_role_dangers', 'an application''s role owns protected tables, or can become their owner'),
    ('role_admin', 'roles', 'error', true, 'find_role_dangers', 'an application''s role administers tenants, or can become one that does'),
    ('role_createrole', 'roles', 'error', true, 'find_role_dangers', 'an application''s role can grant itself any role (before PostgreSQL 16)'),
    ('role_replication', 'roles', 'error', true, 'find_role_dangers', 'an application''s role can stream every row'),
    ('role_server_files', 'roles', 'error', true, 'find_role_dangers', 'an application''s role reaches the server''s files or programs'),
    ('role_all_data', 'roles', 'warning', true, 'find_role_dangers', 'an application''s role has all tables at hand'),
    ('role_monitors', 'roles', 'warning', true, 'find_role_dangers', 'an application''s role sees what other sessions do'),
    ('exemption_past', 'roles', 'warning', true, 'find_role_records', 'an exemption from the fence has ended'),
    ('exemption_idle', 'roles', 'warning', true, 'find_role_records', 'an exemption from the fence exempts nobody'),
    ('binding_void', 'roles', 'warning', true, 'find_role_records', 'a role is bound to a tenant that is gone'),
    ('setting_invalid', 'roles', 'error', true, 'find_invalid_settings', 'a setting is invalid, and its sessions have no tenant'),
    ('setting_weak', 'roles', 'warning', true, 'find_settings', 'a stored setting takes protection away'),
    ('setting_lenient', 'roles', 'info', true, 'find_settings', 'a stored setting makes mistakes of an application harder to see'),
    ('setting_row_security', 'roles', 'warning', true, 'find_settings', 'row_security is off, and protected tables fail'),
    ('setting_pin', 'roles', 'warning', true, 'find_settings', 'a role or database is pinned to a tenant that is gone'),
    ('setting_granted', 'roles', 'error', true, 'find_parameter_grants', 'an application''s role may change what isolation rests on'),
    ('server_release', 'roles', 'warning', true, 'find_server', 'this release of PostgreSQL has a known way past row security'),
    ('server_unfenced', 'roles', 'info', true, 'find_server', 'the library is not in shared_preload_libraries'),
    ('login_superuser', 'roles', 'info', false, 'find_powerful_roles', 'the superusers who may log in'),
    ('login_admin', 'roles', 'info', false, 'find_powerful_roles', 'the roles that administer tenants and may log in'),
    ('login_owner', 'roles', 'info', false, 'find_powerful_roles', 'the owners of protected tables who may log in'),
    ('audit_not_enforced', 'catalog', 'error', true, 'find_audit_gaps', 'changes of an audited table are not recorded'),
    ('audit_misplaced', 'catalog', 'warning', true, 'find_audit_gaps', 'entries of the audit log have no partition of their own'),
    ('audit_unmaintained', 'catalog', 'warning', true, 'find_audit_gaps', 'the audit log was not maintained');

INSERT INTO tenancy_internal.rights (grantee, privileges, kind, objects) VALUES
    ('administrator', 'EXECUTE', 'ROUTINE', '{tenancy_internal.find_role_dangers, tenancy_internal.find_role_records,
        tenancy_internal.find_settings, tenancy_internal.find_parameter_grants, tenancy_internal.find_server,
        tenancy_internal.find_powerful_roles, tenancy_internal.find_invalid_settings, tenancy_internal.find_audit_gaps}');

COMMENT ON FUNCTION tenancy_internal.judged_roles() IS 'the roles whose dangers matter to this database, and whether they run an application';
COMMENT ON FUNCTION tenancy_internal.reachable_roles(oid[]) IS 'what roles can become or use, with the way there';
COMMENT ON FUNCTION tenancy_internal.find_role_dangers(oid[], integer, boolean) IS 'finds roles of applications that can get past row security';
COMMENT ON FUNCTION tenancy_internal.find_role_records(oid[], integer, boolean) IS 'finds exemptions and bindings that say nothing any more';
COMMENT ON FUNCTION tenancy_internal.weak_settings() IS 'the values of settings that weaken isolation';
COMMENT ON FUNCTION tenancy_internal.find_invalid_settings(oid[], integer, boolean) IS 'finds settings of pg_tenancy with values that PostgreSQL refuses';
COMMENT ON FUNCTION tenancy_internal.setting_fault(text, text) IS 'what is wrong with a value for a setting of pg_tenancy';
COMMENT ON FUNCTION tenancy_internal.invalid_setting() IS 'which setting keeps this session from having a tenant';
COMMENT ON FUNCTION tenancy_internal.find_settings(oid[], integer, boolean) IS 'finds stored settings that weaken isolation, and pins to tenants that are gone';
COMMENT ON FUNCTION tenancy_internal.find_parameter_grants(oid[], integer, boolean) IS 'finds who may change settings that isolation rests on';
COMMENT ON FUNCTION tenancy_internal.find_server(oid[], integer, boolean) IS 'finds what is wrong with the server';
COMMENT ON FUNCTION tenancy_internal.find_powerful_roles(oid[], integer, boolean) IS 'lists superusers, administrators and owners who may log in';
COMMENT ON FUNCTION tenancy_internal.find_audit_gaps(oid[], integer, boolean) IS 'finds audited tables whose changes are not recorded, and a log nobody maintains';
