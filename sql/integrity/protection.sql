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
    tenant_column name, attnum int2, not_null boolean, default_text text, shown_type text,
    present_key text, row_security boolean, forced boolean, repair text
)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off AS $$
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
       c.attname, c.attnum, c.attnotnull, c.default_text, format_type(c.atttypid, c.atttypmod),
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

-- Protected tables that have lost something of what protects them. Policies are compared with those that protect_table would
-- make (model::policy) by the judge that the guard asks, too (pg::policies).
-- What a partition has in common with its root is said of the root.
CREATE FUNCTION tenancy_internal.find_lost_protection(tables oid[], sample integer, deep boolean)
RETURNS SETOF tenancy_internal.finding
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
WITH p AS MATERIALIZED (
    SELECT * FROM tenancy_internal.recorded_protection(tables)
), compared AS MATERIALIZED (
    SELECT p.relation, p.name, p.repair, p.open_policy, w.policy, w.policy = 'tenancy_open' AS is_companion, y.oid AS present,
           ARRAY(SELECT CASE d.difference
                            WHEN 'kind' THEN CASE WHEN y.polpermissive THEN 'is permissive' ELSE 'is restrictive' END
                            WHEN 'command' THEN format('is for %s', CASE y.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT'
                                WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'all commands' END)
                            WHEN 'using' THEN COALESCE('has USING ' || pg_get_expr(y.polqual, y.polrelid), 'has no USING')
                            ELSE COALESCE('has WITH CHECK ' || pg_get_expr(y.polwithcheck, y.polrelid), 'has no WITH CHECK') END
                   FROM unnest(w.differences) AS d(difference) WHERE d.difference NOT IN ('roles', 'lacks check')) AS differences,
           'lacks check' = ANY (w.differences) AS lacks_check, 'roles' = ANY (w.differences) AS is_narrowed,
           (SELECT string_agg(quote_ident(r.rolname), ', ' ORDER BY r.rolname) FROM pg_roles r WHERE r.oid = ANY (y.polroles)) AS roles
      FROM p CROSS JOIN LATERAL tenancy_internal.judged_policies(p.relation, p.access, p.tenant_column) AS w
      LEFT JOIN pg_policy y ON y.polrelid = p.relation AND y.polname = w.policy AND w.differences IS NOT NULL
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
     WHERE (p.present_key IS NOT NULL OR p.access = 'reference')
       AND (closed.oid IS NOT NULL
            OR NOT EXISTS (SELECT FROM pg_policy y WHERE y.polrelid = p.relation AND (y.polpermissive OR y.polname = 'tenancy_open')))
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
      FROM p LEFT JOIN p r ON r.relation = p.root AND r.relation <> p.relation
     WHERE p.access <> 'reference' AND p.attnum IS NULL AND (r.relation IS NULL OR r.attnum IS NOT NULL)
    UNION ALL
    SELECT 'tenant_column_type', 'pg_class', p.relation, p.attnum,
           format('Tenant column %I of %s was protected as the tenants'' %s and is %s now.', p.tenant_column, p.name, p.tenant_key,
                  p.shown_type), NULL
      FROM p LEFT JOIN p r ON r.relation = p.root AND r.relation <> p.relation
     WHERE p.attnum IS NOT NULL AND p.present_key IS DISTINCT FROM p.tenant_key
       AND (r.relation IS NULL OR r.present_key IS NOT DISTINCT FROM r.tenant_key)
    UNION ALL
    SELECT 'tenant_column_nullable', 'pg_class', p.relation, p.attnum,
           format('Tenant column %I of %s takes NULL: such a row is nobody''s, and seen by no tenant.', p.tenant_column, p.name),
           format('ALTER TABLE %s ALTER COLUMN %I SET NOT NULL', p.name, p.tenant_column)
      FROM p LEFT JOIN p r ON r.relation = p.root AND r.relation <> p.relation
     WHERE p.access = 'tenant' AND NOT p.not_null AND (r.relation IS NULL OR r.not_null)
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

-- Whether a function looks into the session: what it answers changes with the tenant. As far as its text tells.
CREATE FUNCTION tenancy_internal.reads_context(function oid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT tenancy_internal.without_comments(concat_ws(' ', NULLIF(f.prosrc, ''),
                                                  CASE WHEN f.prosrc = '' THEN pg_get_functiondef(f.oid) END))
           ~* 'current_setting|current_tenant_(id|number|code)|has_tenant|context_dimension'
      FROM pg_proc f JOIN pg_language l ON l.oid = f.prolang
     WHERE f.oid = function AND l.lanname NOT IN ('c', 'internal') AND f.prokind IN ('f', 'p')
$$;

-- What is wrong with policies that are the users' own: what they let through, and how what they call behaves.
CREATE FUNCTION tenancy_internal.find_policy_faults(tables oid[], sample integer, deep boolean)
RETURNS SETOF tenancy_internal.finding
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
WITH y AS MATERIALIZED (
    SELECT * FROM tenancy_internal.own_policies(tables)
), own_functions AS MATERIALIZED (    -- the users' functions that policies call
    SELECT f.oid, format('%I.%I', n.nspname, f.proname) AS name, f.provolatile, f.proleakproof, f.pronargs,
           tenancy_internal.reads_context(f.oid) AS reads_context
      FROM (SELECT DISTINCT u.function FROM y, unnest(y.functions) AS u(function)) k
      JOIN pg_proc f ON f.oid = k.function JOIN pg_namespace n ON n.oid = f.pronamespace
     WHERE n.nspname NOT IN ('pg_catalog', 'tenancy', 'tenancy_internal')
), known(name) AS MATERIALIZED (
    SELECT DISTINCT p.tenant_column::text FROM tenancy_internal.protected_tables p WHERE p.tenant_column IS NOT NULL
), by_hand AS MATERIALIZED (    -- a column that looks like a tenant's, compared with what the session says
    SELECT y.policy, min(c.name) AS column_name
      FROM y CROSS JOIN LATERAL unnest(y.columns) AS c(name)
     WHERE NOT y.is_protected
       AND (y.settings <> '{}' OR y.is_any_settable
            OR EXISTS (SELECT FROM own_functions f WHERE f.oid = ANY (y.functions) AND f.reads_context))
       AND (c.name IN (SELECT k.name FROM known k)
            OR c.name ~* '^(tenant|org|organi[sz]ation|account|customer|company|client|workspace|team)(_?(id|uuid|code|number|key|slug))?$')
     GROUP BY y.policy
), judged AS (
    SELECT y.*, h.column_name, COALESCE(NULLIF(array_to_string(y.settings, ', '), ''), 'a setting') AS setting,
           CASE WHEN h.policy IS NOT NULL AND COALESCE(y.fault, '') <> ALL (ARRAY['policy_opens_without_context', 'policy_opened_by_setting'])
                THEN 'policy_by_hand' ELSE y.fault END AS check_id
      FROM y LEFT JOIN by_hand h USING (policy)
), lets_through(check_id, policy, detail) AS (
    SELECT j.check_id, j.policy, format('Policy %s of %s ', j.name, j.table_name) || CASE j.check_id
               WHEN 'policy_opens_without_context' THEN 'offers every row where nothing is set: an arm of its OR tests for that.'
               WHEN 'policy_opened_by_setting' THEN format('offers every row to whoever sets %s, and any role can.', j.setting)
               WHEN 'policy_trusts_setting' THEN format('believes %s, which any role can set.', j.setting)
               WHEN 'policy_by_hand' THEN format('isolates by hand: it compares %I with what the session says, and is not forced, '
                   'sealed or guarded as a protected table''s. Protect the table (tenancy.protect_table) and drop the policy.', j.column_name)
               WHEN 'policy_widens' THEN 'offers rows beside the tenant''s own; the isolation policy alone keeps them back.'
               WHEN 'policy_without_effect' THEN 'has no effect: policy tenancy_open beside it offers the tenant''s rows already. Write it '
                   'AS RESTRICTIVE to narrow them, or protect the table again and it takes the place of tenancy_open.'
               ELSE CASE WHEN j.is_protected THEN 'offers every row to its roles; the isolation policy alone keeps tenants apart.'
                         ELSE 'offers every row to its roles: row security keeps nothing back.' END END
      FROM judged j WHERE j.check_id IS NOT NULL
), wrapped AS MATERIALIZED (    -- functions of a policy that stand outside a sub-select
    SELECT y.policy, string_agg(f.name, ', ' ORDER BY f.name) AS names, array_agg(f.name || '()' ORDER BY length(f.name) DESC) AS calls
      FROM y JOIN own_functions f ON f.oid = ANY (y.functions) AND f.pronargs = 0 AND NOT f.proleakproof AND f.provolatile = 's'
     CROSS JOIN LATERAL (SELECT concat_ws(' ', y.using_bare, y.check_bare)) AS e(bare)
     WHERE e.bare ~ ('(?<!SELECT )' || tenancy_internal.word_pattern(f.name) || '\(\)')
       AND e.bare !~ ('SELECT ' || tenancy_internal.word_pattern(f.name) || '\(\)')
     GROUP BY y.policy
), one_argument AS MATERIALIZED (
    SELECT y.policy, 'current_setting\((''(?:[^'']|'''')*''::text)\)' AS pattern
      FROM y WHERE 'current_setting(text)'::regprocedure = ANY (y.functions)
), found(check_id, policy, detail, remedy) AS (
    SELECT l.check_id, l.policy, l.detail, CASE l.check_id WHEN 'policy_without_effect' THEN r.repair END
      FROM lets_through l JOIN y USING (policy) LEFT JOIN (
           SELECT p.relation, p.repair FROM tenancy_internal.recorded_protection(
                ARRAY(SELECT k.relation FROM y k WHERE k.has_companion)) p) r ON r.relation = y.relation
    UNION ALL
    SELECT 'policy_without_check', y.policy,
           format('Policy %s of %s has no WITH CHECK: what may be written is judged by what may be read.', y.name, y.table_name),
           format('ALTER POLICY %s ON %s WITH CHECK (%s)', y.name, y.table_name, y.using_text)
      FROM y
     WHERE y.is_protected AND y.is_permissive AND y.command IN ('*', 'w') AND y.check_text IS NULL AND y.using_text IS NOT NULL
       AND NOT EXISTS (SELECT FROM lets_through l WHERE l.policy = y.policy)
    UNION ALL
    SELECT 'policy_raises_without_setting', y.policy,
           format('Policy %s of %s calls current_setting with one argument: where nothing is set, every query of the table fails.', y.name,
                  y.table_name),
           CASE WHEN regexp_replace(concat_ws(' ', y.using_text, y.check_text), 'current_setting\(''(?:[^'']|'''')*''::text(, true)?\)', '', 'g')
                     !~ 'current_setting\('
                THEN format('ALTER POLICY %s ON %s', y.name, y.table_name)
                     || COALESCE(' USING (' || regexp_replace(y.using_text, o.pattern, 'current_setting(\1, true)', 'g') || ')', '')
                     || COALESCE(' WITH CHECK (' || regexp_replace(y.check_text, o.pattern, 'current_setting(\1, true)', 'g') || ')', '')
           END
      FROM y JOIN one_argument o USING (policy)
    UNION ALL
    SELECT 'policy_volatile_function', y.policy,
           format('Policy %s of %s calls %s, which is volatile: it runs for each row, and no index serves it.', y.name, y.table_name,
                  string_agg(f.oid::regproc::text, ', ' ORDER BY f.oid::regproc::text)), NULL
      FROM y JOIN pg_proc f ON f.oid = ANY (y.functions) AND f.provolatile = 'v' AND f.pronamespace <> 'tenancy_internal'::regnamespace
     GROUP BY y.policy, y.name, y.table_name
    UNION ALL
    SELECT 'policy_function_for_each_row', y.policy,
           format('Policy %s of %s calls %s for each row; in a sub-select it would run once for each query.', y.name, y.table_name, w.names),
           CASE WHEN cardinality(w.calls) = 1
                THEN format('ALTER POLICY %s ON %s', y.name, y.table_name)
                     || COALESCE(' USING (' || replace(y.using_text, w.calls[1], format('(SELECT %s)', w.calls[1])) || ')', '')
                     || COALESCE(' WITH CHECK (' || replace(y.check_text, w.calls[1], format('(SELECT %s)', w.calls[1])) || ')', '') END
      FROM y JOIN wrapped w USING (policy)
), immutable_functions AS MATERIALIZED (    -- by oid first: the server's own are thousands
    SELECT f.oid
      FROM pg_proc f JOIN pg_namespace n ON n.oid = f.pronamespace
     WHERE tables IS NULL AND f.oid >= 16384 AND f.provolatile = 'i' AND f.prokind = 'f'
       AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'tenancy', 'tenancy_internal')
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = f.oid AND d.deptype = 'e')
)
SELECT f.check_id, 'pg_policy'::regclass::oid, f.policy, 0, NULL::text, NULL::bigint, NULL::jsonb, f.detail, f.remedy FROM found f
UNION ALL
SELECT 'context_function_immutable', 'pg_proc'::regclass, f.oid, 0, NULL, NULL, NULL,
       format('Function %s is IMMUTABLE and reads the session''s context: a cached plan would remember one tenant and answer another with it.',
              f.oid::regprocedure),
       format('ALTER FUNCTION %I.%I(%s) STABLE', n.nspname, f.proname, pg_get_function_identity_arguments(f.oid))
  FROM immutable_functions i JOIN pg_proc f USING (oid) JOIN pg_namespace n ON n.oid = f.pronamespace
 WHERE tenancy_internal.reads_context(f.oid)
$$;

INSERT INTO tenancy_internal.integrity_checks (check_id, scope, severity, source, title) VALUES
    ('policy_opens_without_context', 'catalog', 'warning', 'find_policy_faults', 'a policy offers every row where no setting is made'),
    ('policy_opened_by_setting', 'catalog', 'warning', 'find_policy_faults', 'a policy offers every row to whoever makes a setting'),
    ('policy_trusts_setting', 'catalog', 'warning', 'find_policy_faults', 'a policy of a protected table believes what any role can set'),
    ('policy_by_hand', 'catalog', 'warning', 'find_policy_faults', 'a table is isolated by a policy written by hand'),
    ('policy_widens', 'catalog', 'warning', 'find_policy_faults', 'a policy offers rows beside the tenant''s own'),
    ('policy_without_effect', 'catalog', 'warning', 'find_policy_faults', 'a policy is swallowed by the one that opens the table'),
    ('policy_always_true', 'catalog', 'info', 'find_policy_faults', 'a policy offers every row'),
    ('policy_without_check', 'catalog', 'info', 'find_policy_faults', 'a policy does not say what may be written'),
    ('policy_raises_without_setting', 'catalog', 'warning', 'find_policy_faults', 'a policy fails where a setting is not made'),
    ('policy_volatile_function', 'catalog', 'warning', 'find_policy_faults', 'a policy calls a volatile function'),
    ('policy_function_for_each_row', 'catalog', 'info', 'find_policy_faults', 'a policy calls a function for each row'),
    ('context_function_immutable', 'catalog', 'error', 'find_policy_faults', 'a function that depends on the tenant is IMMUTABLE');

-- Tables that hold tenants' rows and are not protected, and row security that is no security. Foreign tables have none: they
-- are ways around (paths.sql).
CREATE FUNCTION tenancy_internal.find_unprotected_tables(tables oid[], sample integer, deep boolean)
RETURNS SETOF tenancy_internal.finding
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
WITH RECURSIVE strangers AS MATERIALIZED (
    SELECT c.oid, n.nspname, c.relrowsecurity, format('%I.%I', n.nspname, c.relname) AS name
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
       AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'tenancy', 'tenancy_internal')
       AND NOT EXISTS (SELECT FROM tenancy_internal.protected_tables p WHERE p.relation = c.oid)
       AND NOT EXISTS (SELECT FROM pg_depend d
                        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
), above(relation, ancestor) AS (
    SELECT s.oid, i.inhparent FROM strangers s JOIN pg_inherits i ON i.inhrelid = s.oid
     UNION
    SELECT a.relation, i.inhparent FROM above a JOIN pg_inherits i ON i.inhrelid = a.ancestor
), members AS MATERIALIZED (    -- partitions and children of a protected table
    SELECT DISTINCT ON (a.relation) a.relation, p.root
      FROM above a JOIN tenancy_internal.protected_tables p ON p.relation = a.ancestor
     ORDER BY a.relation, p.root
), known AS MATERIALIZED (    -- the tenant columns there are, but for those that are the key of a table of tenants
    SELECT DISTINCT p.tenant_column AS name, p.present_key AS key
      FROM tenancy_internal.recorded_protection(NULL) p
     WHERE p.relation = p.root AND p.present_key IS NOT NULL
       AND NOT EXISTS (SELECT FROM pg_index x WHERE x.indrelid = p.relation AND x.indisprimary AND x.indkey::text = p.attnum::text)
), columns AS MATERIALIZED (
    SELECT a.attrelid, a.attname, format_type(a.atttypid, a.atttypmod) AS shown_type,
           CASE WHEN b.type = 'uuid'::regtype THEN 'id' WHEN b.type IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype) THEN 'number'
                WHEN b.type IN ('text'::regtype, 'varchar'::regtype) THEN 'code' END AS key
      FROM strangers s JOIN pg_attribute a ON a.attrelid = s.oid AND a.attnum > 0 AND NOT a.attisdropped
      JOIN pg_type t ON t.oid = a.atttypid
     CROSS JOIN LATERAL (SELECT CASE WHEN t.typtype = 'd' THEN tenancy_internal.compared_type(t.oid) ELSE t.oid END) AS b(type)
     WHERE a.attname IN (SELECT k.name FROM known k UNION SELECT w.tenant_column FROM tenancy_internal.protected_schemas w)
), open AS MATERIALIZED (    -- one finding for each table, and none for what hangs on a table that has it
    SELECT DISTINCT ON (v.relation) v.rank, v.check_id, v.relation, v.detail, v.remedy
      FROM (SELECT 1 AS rank, 'partition_unprotected' AS check_id, m.relation,
                   format('%s is a partition or child of %s and not protected itself: who reads it directly sees every tenant''s rows.',
                          s.name, r.name) AS detail, r.repair AS remedy
              FROM members m JOIN strangers s ON s.oid = m.relation
              JOIN tenancy_internal.recorded_protection(NULL) r ON r.relation = m.root
            UNION ALL
            SELECT 2, 'schema_table_unprotected', s.oid,
                   format('Schema %I is protected and its table %s is not.', s.nspname, s.name),
                   format('SELECT tenancy.protect_table(%L, tenant_column => %L, access => %L)', s.name, w.tenant_column, w.access)
              FROM strangers s JOIN tenancy_internal.protected_schemas w ON w.schema = s.nspname
              LEFT JOIN columns c ON c.attrelid = s.oid AND c.attname = w.tenant_column
             WHERE w.access = 'reference' OR c.key IS NOT NULL
            UNION ALL
            SELECT 3, 'tenant_table_unprotected', c.attrelid,
                   format('%s has the tenant column %I and is not protected: it shows every tenant''s rows.', s.name, c.attname),
                   format('SELECT tenancy.protect_table(%L, tenant_column => %L)', s.name, c.attname)
              FROM columns c JOIN strangers s ON s.oid = c.attrelid JOIN known k ON k.name = c.attname AND k.key = c.key
            UNION ALL
            SELECT 4, 'referring_table_unprotected', s.oid,
                   format('%s refers to %s and is not protected: its rows are some tenant''s.', s.name,
                          string_agg(DISTINCT f.confrelid::regclass::text, ', ')), NULL
              FROM strangers s JOIN pg_constraint f ON f.conrelid = s.oid AND f.contype = 'f' AND f.conparentid = 0
             WHERE f.confrelid = 'tenancy.tenants'::regclass
                OR EXISTS (SELECT FROM tenancy_internal.protected_tables p WHERE p.relation = f.confrelid AND p.access <> 'reference')
             GROUP BY s.oid, s.name
           ) AS v
     ORDER BY v.relation, v.rank, v.remedy
), found(check_id, relation, detail, remedy) AS (
    SELECT o.check_id, o.relation, o.detail, o.remedy
      FROM open o
     WHERE NOT EXISTS (SELECT FROM above a JOIN open upper ON upper.relation = a.ancestor WHERE a.relation = o.relation)
    UNION ALL
    SELECT 'row_security_without_policy', s.oid,
           format('Row security of %s is on without any policy: nobody whom it binds sees a row.', s.name), NULL
      FROM strangers s WHERE s.relrowsecurity AND NOT EXISTS (SELECT FROM pg_policy y WHERE y.polrelid = s.oid)
    UNION ALL
    SELECT 'policies_without_row_security', s.oid,
           format('%s has policies and its row security is off: they bind nobody.', s.name),
           format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', s.name)
      FROM strangers s WHERE NOT s.relrowsecurity AND EXISTS (SELECT FROM pg_policy y WHERE y.polrelid = s.oid)
)
SELECT f.check_id, 'pg_class'::regclass::oid, f.relation, 0, NULL::text, NULL::bigint, NULL::jsonb, f.detail, f.remedy
  FROM found f WHERE tables IS NULL OR f.relation = ANY (tables)
$$;

-- The record of protection where the catalog has gone another way: the event triggers were off.
CREATE FUNCTION tenancy_internal.find_stale_records(tables oid[], sample integer, deep boolean)
RETURNS SETOF tenancy_internal.finding
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
WITH RECURSIVE above(relation, ancestor, depth) AS (
    SELECT p.relation::oid, i.inhparent, 1
      FROM tenancy_internal.protected_tables p JOIN pg_inherits i ON i.inhrelid = p.relation
     UNION
    SELECT a.relation, i.inhparent, a.depth + 1 FROM above a JOIN pg_inherits i ON i.inhrelid = a.ancestor
), astray AS (
    SELECT p.relation::oid AS relation, p.root::oid AS root,
           COALESCE((SELECT a.ancestor FROM above a JOIN tenancy_internal.protected_tables q ON q.relation = a.ancestor
                      WHERE a.relation = p.relation ORDER BY a.depth DESC LIMIT 1), p.relation::oid) AS new_root
      FROM tenancy_internal.protected_tables p
     WHERE p.root <> p.relation AND NOT EXISTS (SELECT FROM above a WHERE a.relation = p.relation AND a.ancestor = p.root)
), named AS (
    SELECT a.*, format('%I.%I', n.nspname, c.relname) AS name,
           (SELECT format('%I.%I', rn.nspname, r.relname) FROM pg_class r JOIN pg_namespace rn ON rn.oid = r.relnamespace
             WHERE r.oid = a.new_root) AS new_name,
           (SELECT format('%I.%I', rn.nspname, r.relname) FROM pg_class r JOIN pg_namespace rn ON rn.oid = r.relnamespace
             WHERE r.oid = a.root) AS root_name
      FROM astray a JOIN pg_class c ON c.oid = a.relation JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE tables IS NULL OR a.relation = ANY (tables)
)
SELECT 'record_of_former_partition', 'pg_class'::regclass::oid, n.relation, 0, NULL::text, NULL::bigint, NULL::jsonb,
       format('%s is on record as a partition or child of %s and is none: protect_table and unprotect_table would miss it.', n.name,
              COALESCE(n.root_name, 'a table that is gone')),
       format('UPDATE tenancy_internal.protected_tables SET root = %L::pg_catalog.regclass WHERE relation = %L::pg_catalog.regclass',
              n.new_name, n.name)
  FROM named n
UNION ALL
SELECT 'record_of_dropped_table', 'pg_class'::regclass, 'tenancy_internal.protected_tables'::regclass, 0, NULL, NULL, NULL,
       'Tables that are gone are on record as protected: a dump of the record cannot be restored.',
       'DELETE FROM tenancy_internal.protected_tables p WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = p.relation)'
 WHERE tables IS NULL
   AND EXISTS (SELECT FROM tenancy_internal.protected_tables p WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = p.relation))
$$;

-- The extension itself: whether its parts are as it installed them, and its guard is on.
CREATE FUNCTION tenancy_internal.find_extension_faults(tables oid[], sample integer, deep boolean)
RETURNS SETOF tenancy_internal.finding
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
WITH extension AS (
    SELECT e.oid, e.extname, e.extversion, e.extowner FROM pg_extension e WHERE e.extname = 'pg_tenancy'
), present AS MATERIALIZED (
    SELECT * FROM tenancy_internal.present_parts()
), parts AS MATERIALIZED (
    SELECT i.kind, i.identity, i.definition AS installed, p.definition AS present, p.classid, p.objid, p.owner
      FROM tenancy_internal.installed_parts i LEFT JOIN present p ON p.kind = i.kind AND p.identity = i.identity
), functions AS (
    SELECT f.*, ARRAY(SELECT d.key FROM jsonb_each(f.installed) d WHERE d.value IS DISTINCT FROM f.present -> d.key ORDER BY d.key) AS altered
      FROM parts f WHERE f.kind = 'function' AND f.objid IS NOT NULL
), loose AS (    -- parts that are there and no longer members
    SELECT m.kind, m.identity, COALESCE((
               SELECT p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                WHERE m.kind = 'function' AND n.nspname IN ('tenancy', 'tenancy_internal')
                  AND format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)) = m.identity),
               (SELECT t.oid FROM pg_event_trigger t WHERE m.kind = 'event trigger' AND format('%I', t.evtname) = m.identity)) AS objid
      FROM parts m WHERE m.objid IS NULL
), settings AS (
    SELECT s.setrole, s.setdatabase, d.oid AS here, 'role ' || quote_ident(r.rolname) AS role, 'database ' || quote_ident(d.datname) AS database
      FROM pg_db_role_setting s JOIN pg_database d ON d.datname = current_database() AND s.setdatabase IN (0, d.oid)
      LEFT JOIN pg_roles r ON r.oid = s.setrole
     WHERE EXISTS (SELECT FROM unnest(s.setconfig) c WHERE lower(c) = 'tenancy.ddl_guard=off')
), guards_off(classid, objid, whom, remedy) AS (
    SELECT CASE WHEN s.setrole = 0 THEN 'pg_database'::regclass ELSE 'pg_authid' END, CASE WHEN s.setrole = 0 THEN s.here ELSE s.setrole END,
           CASE WHEN s.setrole = 0 AND s.setdatabase = 0 THEN 'all roles' WHEN s.setrole = 0 THEN s.database
                ELSE concat_ws(' in ', s.role, CASE WHEN s.setdatabase <> 0 THEN s.database END) END,
           concat('ALTER ', CASE WHEN s.setrole = 0 AND s.setdatabase = 0 THEN 'ROLE ALL' ELSE COALESCE(s.role, s.database) END,
                  CASE WHEN s.setrole <> 0 AND s.setdatabase <> 0 THEN ' IN ' || s.database END, ' RESET tenancy.ddl_guard')
      FROM settings s
     UNION ALL
    SELECT 'pg_database', d.oid, 'all whom no setting of their own gives it back',
           'ALTER DATABASE ' || quote_ident(d.datname) || ' SET tenancy.ddl_guard = enforce'
      FROM pg_settings g, pg_database d
     WHERE g.name = 'tenancy.ddl_guard' AND g.reset_val = 'off' AND d.datname = current_database()
       AND NOT EXISTS (SELECT FROM settings s JOIN pg_roles r ON r.rolname = session_user AND s.setrole IN (0, r.oid))
), found(check_id, classid, objid, detail, remedy) AS (
    SELECT 'extension_part_missing', 'pg_extension'::regclass, e.oid,
           format('Of what the extension installed, %s.', string_agg(format('%s %s is gone', l.kind, l.identity), ', ' ORDER BY l.kind, l.identity)),
           CASE WHEN bool_and(l.kind = 'event trigger') THEN
               string_agg(format('CREATE EVENT TRIGGER %s ON %I %sEXECUTE FUNCTION %s(); ALTER EVENT TRIGGER %1$s ENABLE ALWAYS; '
                                 'ALTER EXTENSION pg_tenancy ADD EVENT TRIGGER %1$s', l.identity, i.definition ->> 'event',
                                 (SELECT format('WHEN TAG IN (%s) ', string_agg(quote_literal(g.tag), ', '))
                                    FROM jsonb_array_elements_text(NULLIF(i.definition -> 'tags', 'null')) AS g(tag)),
                                 i.definition ->> 'function'), '; ' ORDER BY l.identity) END
      FROM loose l JOIN tenancy_internal.installed_parts i USING (kind, identity) CROSS JOIN extension e
     WHERE l.objid IS NULL GROUP BY e.oid
    UNION ALL
    SELECT 'extension_part_detached', CASE l.kind WHEN 'function' THEN 'pg_proc'::regclass ELSE 'pg_event_trigger' END, l.objid,
           format('%s %s is no part of the extension any more: a dump and an upgrade leave it behind.', initcap(l.kind), l.identity),
           format('ALTER EXTENSION pg_tenancy ADD %s %s', CASE l.kind WHEN 'function' THEN 'ROUTINE' ELSE 'EVENT TRIGGER' END, l.identity)
      FROM loose l WHERE l.objid IS NOT NULL
    UNION ALL
    SELECT 'event_trigger_disabled', t.classid, t.objid,
           format('Event trigger %s does not fire %s: what is done meanwhile to protected tables goes unseen.', t.identity,
                  CASE t.present ->> 'enabled' WHEN 'D' THEN 'at all' ELSE 'in every session' END),
           format('ALTER EVENT TRIGGER %s ENABLE ALWAYS', t.identity)
      FROM parts t WHERE t.kind = 'event trigger' AND t.present ->> 'enabled' <> t.installed ->> 'enabled'
    UNION ALL
    SELECT 'extension_function_altered', f.classid, f.objid,
           format('Function %s is not as the extension installed it: what differs is its %s.', f.identity,
                  regexp_replace(array_to_string(f.altered, ', '), ', ([^,]*)$', ' and \1')),
           CASE WHEN NOT f.altered && '{language,text,kind}'
                THEN concat('ALTER ROUTINE ', f.identity, ' ', f.installed ->> 'security',
                            CASE WHEN f.installed ->> 'kind' = 'f' THEN concat(
                                CASE f.installed ->> 'volatility' WHEN 'i' THEN ' IMMUTABLE' WHEN 's' THEN ' STABLE' ELSE ' VOLATILE' END,
                                CASE WHEN (f.installed ->> 'leakproof')::boolean THEN ' LEAKPROOF' ELSE ' NOT LEAKPROOF' END,
                                CASE WHEN (f.installed ->> 'strict')::boolean THEN ' STRICT' ELSE ' CALLED ON NULL INPUT' END,
                                CASE f.installed ->> 'parallel' WHEN 's' THEN ' PARALLEL SAFE' WHEN 'r' THEN ' PARALLEL RESTRICTED'
                                     ELSE ' PARALLEL UNSAFE' END) END,
                            ' RESET ALL',
                            (SELECT string_agg(format(' SET %s TO %s', s.name, CASE s.name WHEN 'search_path' THEN s.value ELSE quote_literal(s.value) END), '')
                               FROM jsonb_array_elements_text(f.installed -> 'settings') AS e(setting)
                              CROSS JOIN LATERAL (SELECT split_part(e.setting, '=', 1), split_part(e.setting, '=', 2)) AS s(name, value))) END
      FROM functions f WHERE f.altered <> '{}'
    UNION ALL
    SELECT 'extension_part_owner', f.classid, f.objid,
           format('%s %s belongs to %I and not to the owner of the extension.', initcap(f.kind), f.identity, r.rolname),
           format('ALTER %s %s OWNER TO %I', CASE f.kind WHEN 'function' THEN 'ROUTINE' ELSE 'EVENT TRIGGER' END, f.identity, o.rolname)
      FROM parts f CROSS JOIN extension e JOIN pg_roles r ON r.oid = f.owner JOIN pg_roles o ON o.oid = e.extowner
     WHERE f.owner <> e.extowner
    UNION ALL
    SELECT 'extension_version', 'pg_extension', e.oid,
           format('The extension is of version %s and its files are of version %s.', e.extversion, a.default_version),
           CASE WHEN EXISTS (SELECT FROM pg_extension_update_paths('pg_tenancy') u
                              WHERE u.source = e.extversion AND u.target = a.default_version AND u.path IS NOT NULL)
                THEN 'ALTER EXTENSION pg_tenancy UPDATE' END
      FROM extension e JOIN pg_available_extensions() a ON a.name = e.extname AND a.default_version <> e.extversion
    UNION ALL
    SELECT 'ddl_guard_off', g.classid, g.objid,
           format('tenancy.ddl_guard is off for %s: tables can be made and altered past protection unseen.', string_agg(g.whom, ', ' ORDER BY g.whom)),
           string_agg(g.remedy, '; ' ORDER BY g.whom)
      FROM guards_off g GROUP BY g.classid, g.objid
)
SELECT f.check_id, f.classid::oid, f.objid, 0, NULL::text, NULL::bigint, NULL::jsonb, f.detail, f.remedy FROM found f WHERE tables IS NULL
$$;

INSERT INTO tenancy_internal.integrity_checks (check_id, scope, severity, source, title) VALUES
    ('partition_unprotected', 'catalog', 'error', 'find_unprotected_tables', 'a partition or child of a protected table is not protected'),
    ('schema_table_unprotected', 'catalog', 'error', 'find_unprotected_tables', 'a table of a protected schema is not protected'),
    ('tenant_table_unprotected', 'catalog', 'error', 'find_unprotected_tables', 'a table with the tenant column is not protected'),
    ('referring_table_unprotected', 'catalog', 'warning', 'find_unprotected_tables', 'a table that refers to a protected one is not protected'),
    ('row_security_without_policy', 'catalog', 'info', 'find_unprotected_tables', 'row security is on without any policy'),
    ('policies_without_row_security', 'catalog', 'warning', 'find_unprotected_tables', 'a table has policies and its row security is off'),
    ('record_of_former_partition', 'catalog', 'warning', 'find_stale_records', 'a table is on record as part of another and is none'),
    ('record_of_dropped_table', 'catalog', 'warning', 'find_stale_records', 'tables that are gone are on record'),
    ('extension_part_missing', 'catalog', 'error', 'find_extension_faults', 'a function or event trigger of the extension is gone'),
    ('extension_part_detached', 'catalog', 'warning', 'find_extension_faults', 'a part of the extension is none any more'),
    ('event_trigger_disabled', 'catalog', 'error', 'find_extension_faults', 'an event trigger of the extension is switched off'),
    ('extension_function_altered', 'catalog', 'error', 'find_extension_faults', 'a function of the extension was altered'),
    ('extension_part_owner', 'catalog', 'error', 'find_extension_faults', 'a part of the extension belongs to somebody else'),
    ('extension_version', 'catalog', 'warning', 'find_extension_faults', 'the extension is not of its files'' version'),
    ('ddl_guard_off', 'catalog', 'warning', 'find_extension_faults', 'the guard of DDL is off');

INSERT INTO tenancy_internal.rights (grantee, privileges, kind, objects) VALUES
    ('administrator', 'EXECUTE', 'ROUTINE', '{tenancy_internal.find_lost_protection, tenancy_internal.find_policy_faults,
        tenancy_internal.find_unprotected_tables, tenancy_internal.find_stale_records, tenancy_internal.find_extension_faults}');

COMMENT ON TABLE tenancy_internal.installed_parts IS 'the functions and event triggers of the extension as it was installed';
COMMENT ON FUNCTION tenancy_internal.present_parts() IS 'the functions and event triggers of the extension as they are';
COMMENT ON FUNCTION tenancy_internal.note_installed_parts() IS 'notes what an installation or upgrade has made';
COMMENT ON FUNCTION tenancy_internal.recorded_protection(oid[]) IS 'the record of protection with the tenant column as it stands';
COMMENT ON FUNCTION tenancy_internal.reads_context(oid) IS 'whether a function''s text looks into the session';
COMMENT ON FUNCTION tenancy_internal.find_lost_protection(oid[], integer, boolean) IS 'protected tables that lost something of what protects them';
COMMENT ON FUNCTION tenancy_internal.find_policy_faults(oid[], integer, boolean) IS 'what is wrong with policies that are the users'' own';
COMMENT ON FUNCTION tenancy_internal.find_unprotected_tables(oid[], integer, boolean) IS 'tables that hold tenants'' rows and are not protected';
COMMENT ON FUNCTION tenancy_internal.find_stale_records(oid[], integer, boolean) IS 'records of protection that the catalog has left';
COMMENT ON FUNCTION tenancy_internal.find_extension_faults(oid[], integer, boolean) IS 'parts of the extension that are not as it installed them';
