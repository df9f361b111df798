-- room integrity, what protects a table: row security, policies, guard, columns; and tables that nothing protects

-- What the extension was installed with, so that what somebody altered since is told from it. An upgrade notes it anew.
CREATE TABLE tenancy_internal.installed_parts (
    kind       text  NOT NULL CHECK (kind IN ('function', 'event trigger')),
    identity   text  NOT NULL,
    definition jsonb NOT NULL,
    PRIMARY KEY (kind, identity)
);
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.installed_parts', 'WHERE false');

-- The functions and event triggers that are members of the extension, by names that outlive a dump and pg_upgrade.
CREATE FUNCTION tenancy_internal.present_parts() RETURNS TABLE (kind text, identity text, definition jsonb, classid oid, objid oid, owner oid)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
WITH members AS (
    SELECT d.classid, d.objid
      FROM pg_extension e
      JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
     WHERE e.extname = 'pg_tenancy'
)
SELECT 'function', format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)),
       jsonb_build_object('language', l.lanname, 'text', md5(concat_ws(E'\n', p.prosrc, p.probin)),
                          'security', CASE WHEN p.prosecdef THEN 'SECURITY DEFINER' ELSE 'SECURITY INVOKER' END,
                          'settings', COALESCE(p.proconfig, '{}'), 'volatility', p.provolatile, 'strict', p.proisstrict,
                          'leakproof', p.proleakproof, 'parallel', p.proparallel, 'kind', p.prokind),
       m.classid, m.objid, p.proowner
  FROM members m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid
  JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
UNION ALL
SELECT 'event trigger', format('%I', t.evtname),
       jsonb_build_object('event', t.evtevent, 'tags', t.evttags, 'function', t.evtfoid::regproc::text, 'enabled', t.evtenabled),
       m.classid, m.objid, t.evtowner
  FROM members m JOIN pg_event_trigger t ON m.classid = 'pg_event_trigger'::regclass AND t.oid = m.objid
$$;

CREATE FUNCTION tenancy_internal.note_installed_parts() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM tenancy_internal.installed_parts;
    INSERT INTO tenancy_internal.installed_parts SELECT p.kind, p.identity, p.definition FROM tenancy_internal.present_parts() p
$$;

-- The record of protection with the tenant column as it stands, and the call that puts right what is missing.
CREATE FUNCTION tenancy_internal.recorded_protection(tables oid[]) RETURNS TABLE (
    relation oid, root oid, name text, access text, reference text, open_policy boolean, tenant_key text,
    tenant_column name, attnum int2, not_null boolean, default_text text, shown_type text, base_type name, is_domain boolean,
    present_key text, row_security boolean, forced boolean, repair text
)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
WITH RECURSIVE recorded AS MATERIALIZED (
    SELECT p.*, format('%I.%I', n.nspname, c.relname) AS name, c.relrowsecurity, c.relforcerowsecurity,
           -- The policy knows the column after a rename, the record does not.
           COALESCE((SELECT d.refobjsubid::int2
                       FROM pg_policy y JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = y.oid
                                                        AND d.refclassid = 'pg_class'::regclass AND d.refobjid = y.polrelid
                      WHERE y.polrelid = c.oid AND y.polname = 'tenancy_isolation' AND d.refobjsubid > 0 LIMIT 1),
                    (SELECT a.attnum FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = p.tenant_column)) AS attnum
      FROM tenancy_internal.protected_tables p
      JOIN pg_class c ON c.oid = p.relation JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE tables IS NULL OR c.oid = ANY (tables)
), columns AS MATERIALIZED (
    SELECT a.attrelid, a.attname, a.attnum, a.attnotnull, a.atttypid, a.atttypmod, t.typtype,
           CASE WHEN a.attgenerated = '' THEN pg_get_expr(f.adbin, f.adrelid) END AS default_text
      FROM recorded r JOIN pg_attribute a ON a.attrelid = r.relation AND a.attnum = r.attnum AND r.access <> 'reference'
      JOIN pg_type t ON t.oid = a.atttypid
      LEFT JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
), base_types(declared, base, is_domain) AS (
    SELECT DISTINCT c.atttypid, c.atttypid, c.typtype = 'd' FROM columns c
     UNION ALL
    SELECT b.declared, d.typbasetype, t.typtype = 'd'
      FROM base_types b JOIN pg_type d ON d.oid = b.base JOIN pg_type t ON t.oid = d.typbasetype WHERE b.is_domain
)
SELECT r.relation, r.root, r.name, r.access, r.reference, r.open_policy, r.tenant_key,
       c.attname, c.attnum, c.attnotnull, c.default_text, format_type(c.atttypid, c.atttypmod), t.typname, c.typtype = 'd',
       CASE WHEN t.typname = 'uuid' THEN 'id' WHEN t.typname IN ('int2', 'int4', 'int8') THEN 'number'
            WHEN t.typname IN ('text', 'varchar') THEN 'code' END,
       r.relrowsecurity, r.relforcerowsecurity,
       format('SELECT tenancy.protect_table(%L', COALESCE((SELECT format('%I.%I', rn.nspname, rc.relname)
                                                             FROM pg_class rc JOIN pg_namespace rn ON rn.oid = rc.relnamespace
                                                            WHERE rc.oid = r.root), r.name))
           || CASE WHEN COALESCE(c.attname, r.tenant_column) <> 'tenant_id'
                   THEN format(', tenant_column => %L', COALESCE(c.attname, r.tenant_column)) ELSE '' END
           || CASE WHEN r.access <> 'tenant' THEN format(', access => %L', r.access) ELSE '' END
           || CASE WHEN r.foreign_keys <> 'composite' THEN format(', foreign_keys => %L', r.foreign_keys) ELSE '' END
           || CASE WHEN r.reference <> 'policy' THEN format(', reference => %L', r.reference) ELSE '' END
           || CASE WHEN r.open_policy THEN '' ELSE ', open_policy => false' END || ')'
  FROM recorded r
  LEFT JOIN columns c ON c.attrelid = r.relation
  LEFT JOIN base_types b ON b.declared = c.atttypid AND NOT b.is_domain
  LEFT JOIN pg_type t ON t.oid = b.base
$$;

-- Protected tables that have lost something of what protects them. All policies are compared at once with those that
-- protect_table would make (model::policy), by their text.
CREATE FUNCTION tenancy_internal.find_lost_protection(tables oid[], sample integer, deep boolean)
RETURNS SETOF tenancy_internal.finding
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
WITH p AS MATERIALIZED (
    SELECT * FROM tenancy_internal.recorded_protection(tables)
), wanted AS MATERIALIZED (
    SELECT d.access, COALESCE(d.tenant_column, '') AS tenant_column, COALESCE(d.base_type, '') AS base_type,
           COALESCE(d.is_domain, false) AS is_domain, w.*
      FROM (SELECT DISTINCT p.access, p.tenant_column, p.base_type, p.is_domain FROM p) d
     CROSS JOIN LATERAL tenancy_internal.wanted_policies(d.access, d.tenant_column, d.base_type, d.is_domain) AS w
), present AS MATERIALIZED (
    SELECT y.oid, y.polrelid, y.polname, y.polpermissive, y.polcmd, y.polroles,
           pg_get_expr(y.polqual, y.polrelid) AS using_text, pg_get_expr(y.polwithcheck, y.polrelid) AS check_text
      FROM pg_policy y
     WHERE y.polname IN ('tenancy_isolation', 'tenancy_isolation_insert', 'tenancy_isolation_update',
                         'tenancy_isolation_delete', 'tenancy_open')
), compared AS MATERIALIZED (
    SELECT p.relation, p.name, p.repair, p.open_policy, w.policy, w.policy = 'tenancy_open' AS is_companion, y.oid AS present,
           CASE WHEN y.oid IS NOT NULL THEN ARRAY_REMOVE(ARRAY[
               CASE WHEN y.polpermissive AND NOT w.is_permissive THEN 'is permissive' END,
               CASE WHEN w.is_permissive AND NOT y.polpermissive THEN 'is restrictive' END,
               CASE WHEN y.polcmd::text <> w.command THEN format('is for %s', CASE y.polcmd WHEN 'r' THEN 'SELECT'
                   WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'all commands' END) END,
               CASE WHEN y.using_text IS DISTINCT FROM w.using_text
                    THEN CASE WHEN y.using_text IS NULL THEN 'has no USING' ELSE format('has USING %s', y.using_text) END END,
               CASE WHEN y.check_text IS DISTINCT FROM w.check_text AND (y.check_text IS NOT NULL OR w.using_text IS NULL)
                    THEN CASE WHEN y.check_text IS NULL THEN 'has no WITH CHECK' ELSE format('has WITH CHECK %s', y.check_text) END END
           ], NULL) END AS differences,
           y.check_text IS NULL AND w.check_text IS NOT NULL AS lacks_check,
           y.polroles <> '{0}' AS is_narrowed,
           (SELECT string_agg(quote_ident(r.rolname), ', ' ORDER BY r.rolname) FROM pg_roles r WHERE r.oid = ANY (y.polroles)) AS roles
      FROM p
      JOIN wanted w ON w.access = p.access AND w.tenant_column = COALESCE(p.tenant_column, '')
                   AND w.base_type = COALESCE(p.base_type, '') AND w.is_domain = COALESCE(p.is_domain, false)
      LEFT JOIN present y ON y.polrelid = p.relation AND y.polname = w.policy
), found(check_id, classid, objid, objsubid, detail, remedy) AS (
    SELECT 'row_security_off', 'pg_class'::regclass, p.relation, 0,
           format('Row security of %s is off: its policies bind nobody, and every tenant''s rows are open.', p.name),
           format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', p.name)
      FROM p WHERE NOT p.row_security
    UNION ALL
    SELECT 'row_security_not_forced', 'pg_class', p.relation, 0,
           format('Row security of %s is not forced: its owner reads and writes every tenant''s rows.', p.name),
           format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', p.name)
      FROM p WHERE NOT p.forced
    UNION ALL
    SELECT 'isolation_policy_missing', 'pg_class', c.relation, 0,
           format('%s lacks %s: other policies alone decide which tenants'' rows are seen and written.', c.name,
                  string_agg('policy ' || c.policy, ', ' ORDER BY c.policy)), c.repair
      FROM compared c WHERE c.present IS NULL AND NOT c.is_companion GROUP BY c.relation, c.name, c.repair
    UNION ALL
    SELECT CASE WHEN c.is_companion THEN 'open_policy_altered'
                WHEN c.differences <> '{}' THEN 'isolation_policy_altered'
                WHEN c.lacks_check THEN 'isolation_policy_without_check'
                ELSE 'isolation_policy_narrowed' END,
           'pg_policy', c.present, 0,
           format('Policy %s of %s is not as protect_table makes it: it %s.', c.policy, c.name, array_to_string(
               c.differences || CASE WHEN c.lacks_check AND c.differences = '{}' THEN ARRAY['has no WITH CHECK'] END
                             || CASE WHEN c.is_narrowed THEN ARRAY['binds only ' || COALESCE(c.roles, 'roles that are gone')] END,
               ', and it ')),
           c.repair
      FROM compared c WHERE c.present IS NOT NULL AND (c.differences <> '{}' OR c.lacks_check OR c.is_narrowed)
    UNION ALL
    SELECT 'protected_table_shows_nothing', 'pg_class', p.relation, 0,
           CASE WHEN closed.oid IS NOT NULL
                THEN format('Policy tenancy_closed of %s, left by an earlier DROP EXTENSION, hides every row.', p.name)
                ELSE format('%s has no permissive policy: it shows and takes no row of any tenant.', p.name) END,
           CASE WHEN closed.oid IS NOT NULL OR p.open_policy THEN p.repair END
      FROM p LEFT JOIN pg_policy closed ON closed.polrelid = p.relation AND closed.polname = 'tenancy_closed'
     WHERE closed.oid IS NOT NULL
        OR NOT EXISTS (SELECT FROM pg_policy y WHERE y.polrelid = p.relation AND (y.polpermissive OR y.polname = 'tenancy_open'))
    UNION ALL
    SELECT 'truncate_guard_missing', 'pg_class', p.relation, 0,
           CASE WHEN EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = p.relation AND g.tgname = 'tenancy_truncate_guard')
                THEN format('Trigger tenancy_truncate_guard of %s is not the guard: TRUNCATE can empty it for every tenant.', p.name)
                ELSE format('%s lacks trigger tenancy_truncate_guard: TRUNCATE can empty it for every tenant.', p.name) END,
           p.repair
      FROM p
     WHERE NOT EXISTS (SELECT FROM pg_trigger g
                        WHERE g.tgrelid = p.relation AND g.tgname = 'tenancy_truncate_guard'
                          AND g.tgfoid = 'tenancy_internal.refuse_truncate()'::regprocedure
                          AND g.tgtype & 35 = 34 AND g.tgqual IS NULL)    -- BEFORE TRUNCATE, by statement, always
    UNION ALL
    SELECT 'truncate_guard_disabled', 'pg_trigger', g.oid, 0,
           format('Trigger tenancy_truncate_guard of %s is disabled: TRUNCATE can empty it for every tenant.', p.name),
           format('ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER tenancy_truncate_guard', p.name)
      FROM p JOIN pg_trigger g ON g.tgrelid = p.relation AND g.tgname = 'tenancy_truncate_guard'
     WHERE g.tgenabled NOT IN ('A', 'O') AND g.tgfoid = 'tenancy_internal.refuse_truncate()'::regprocedure
       AND g.tgtype & 35 = 34 AND g.tgqual IS NULL
    UNION ALL
    SELECT 'tenant_column_missing', 'pg_class', p.relation, 0,
           format('%s is on record as protected by tenant and has no tenant column: nothing tells its rows apart.', p.name), NULL
      FROM p WHERE p.access <> 'reference' AND p.attnum IS NULL
    UNION ALL
    SELECT 'tenant_column_type', 'pg_class', p.relation, p.attnum,
           format('Tenant column %I of %s was protected as the tenants'' %s and is %s now.', p.tenant_column, p.name, p.tenant_key,
                  p.shown_type), NULL
      FROM p WHERE p.attnum IS NOT NULL AND p.present_key IS DISTINCT FROM p.tenant_key
    UNION ALL
    SELECT 'tenant_column_nullable', 'pg_class', p.relation, p.attnum,
           format('Tenant column %I of %s takes NULL: such a row is nobody''s, and seen by no tenant.', p.tenant_column, p.name),
           format('ALTER TABLE %s ALTER COLUMN %I SET NOT NULL', p.name, p.tenant_column)
      FROM p WHERE p.access = 'tenant' AND NOT p.not_null
    UNION ALL
    SELECT 'tenant_column_default', 'pg_class', p.relation, p.attnum,
           format('Tenant column %I of %s has %s: a row that names no tenant is refused.', p.tenant_column, p.name,
                  COALESCE('the default ' || p.default_text, 'no default')), p.repair
      FROM p
     WHERE p.relation = p.root AND p.present_key = p.tenant_key
       AND p.default_text IS DISTINCT FROM format('tenancy.current_tenant_%s()', p.present_key)
    UNION ALL
    SELECT 'tenant_reference_missing', 'pg_class', p.relation, p.attnum,
           format('%s was protected with reference => ''foreign_key'' and has no foreign key to tenancy.tenants: '
                  'roles that bypass row security can store unknown tenants.', p.name), p.repair
      FROM p
     WHERE p.relation = p.root AND p.reference = 'foreign_key' AND p.attnum IS NOT NULL
       AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = p.relation AND k.contype = 'f'
                                                     AND k.confrelid = 'tenancy.tenants'::regclass AND k.conkey = ARRAY[p.attnum])
)
SELECT f.check_id, f.classid::oid, f.objid, f.objsubid::integer, NULL::text, NULL::bigint, NULL::jsonb, f.detail, f.remedy FROM found f
$$;

INSERT INTO tenancy_internal.integrity_checks (check_id, scope, severity, source, title) VALUES
    ('row_security_off', 'catalog', 'error', 'find_lost_protection', 'a protected table''s row security is off'),
    ('row_security_not_forced', 'catalog', 'error', 'find_lost_protection', 'a protected table''s owner is not bound'),
    ('isolation_policy_missing', 'catalog', 'error', 'find_lost_protection', 'a protected table lacks a policy that isolates'),
    ('isolation_policy_altered', 'catalog', 'error', 'find_lost_protection', 'a policy that isolates is not as it was made'),
    ('isolation_policy_narrowed', 'catalog', 'error', 'find_lost_protection', 'a policy that isolates binds some roles only'),
    ('isolation_policy_without_check', 'catalog', 'error', 'find_lost_protection', 'a policy that isolates has lost its WITH CHECK'),
    ('open_policy_altered', 'catalog', 'warning', 'find_lost_protection', 'the policy that opens a protected table is not as it was made'),
    ('protected_table_shows_nothing', 'catalog', 'warning', 'find_lost_protection', 'a protected table is closed to all tenants'),
    ('truncate_guard_missing', 'catalog', 'error', 'find_lost_protection', 'a protected table can be truncated'),
    ('truncate_guard_disabled', 'catalog', 'error', 'find_lost_protection', 'a protected table''s TRUNCATE guard is switched off'),
    ('tenant_column_missing', 'catalog', 'error', 'find_lost_protection', 'a protected table has no tenant column'),
    ('tenant_column_type', 'catalog', 'error', 'find_lost_protection', 'a tenant column holds another key than it was protected by'),
    ('tenant_column_nullable', 'catalog', 'error', 'find_lost_protection', 'a tenant column takes NULL'),
    ('tenant_column_default', 'catalog', 'warning', 'find_lost_protection', 'a tenant column does not default to the current tenant'),
    ('tenant_reference_missing', 'catalog', 'error', 'find_lost_protection', 'the foreign key to the tenants is gone');
