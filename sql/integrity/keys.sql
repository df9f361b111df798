-- room integrity, keys, indexes, sequences and privileges of protected tables; conventions

-- Estimates of what functions give are high, and compiling would take longer than all of it; hence jit = off below.
INSERT INTO tenancy_internal.integrity_checks (check_id, scope, severity, is_on, source, title) VALUES
    ('key_without_tenant',          'catalog', 'warning', true,  'find_keys',        'unique key lacks the tenant column'),
    ('surrogate_without_tenant',    'catalog', 'info',    false, 'find_keys',        'key of numbers or uuids that nobody chooses lacks the tenant column'),
    ('foreign_key_without_tenant',  'catalog', 'error',   true,  'find_keys',        'foreign key between protected tables lacks the tenant column'),
    ('foreign_key_kept',            'catalog', 'warning', true,  'find_keys',        'foreign key between protected tables was kept without the tenant column'),
    ('foreign_key_sets_tenant',     'catalog', 'error',   true,  'find_keys',        'action of a foreign key sets the tenant column'),
    ('constraint_not_valid',        'catalog', 'warning', true,  'find_keys',        'constraint was never validated'),
    ('index_without_tenant',        'catalog', 'warning', true,  'find_indexes',     'no index is led by the tenant column'),
    ('foreign_key_without_index',   'catalog', 'info',    true,  'find_indexes',     'no index supports a foreign key'),
    ('index_duplicate',             'catalog', 'info',    true,  'find_indexes',     'index is the same as another one'),
    ('index_invalid',               'catalog', 'warning', true,  'find_indexes',     'index is not valid'),
    ('index_unused',                'catalog', 'info',    false, 'find_unused',      'no query has used an index'),
    ('expression_statistics',       'catalog', 'info',    true,  'find_statistics',  'statistics of an index expression show values of all tenants to the owner'),
    ('extended_statistics_open',    'catalog', 'warning', true,  'find_statistics',  'extended statistics show values of all tenants (CVE-2024-4317)'),
    ('granted_to_public',           'catalog', 'warning', true,  'find_grants',      'protected table is granted to PUBLIC'),
    ('excess_privileges',           'catalog', 'warning', true,  'find_grants',      'application has REFERENCES or TRIGGER on a protected table'),
    ('truncate_granted',            'catalog', 'info',    true,  'find_grants',      'application has TRUNCATE on a protected table'),
    ('sequence_readable',           'catalog', 'info',    true,  'find_grants',      'application sees how much all tenants insert, by a sequence'),
    ('schema_create',               'catalog', 'warning', true,  'find_grants',      'application may create objects beside protected tables'),
    ('default_privileges_public',   'catalog', 'warning', true,  'find_grants',      'new tables are granted to PUBLIC'),
    ('default_privileges',          'catalog', 'info',    true,  'find_grants',      'new tables are granted to an application before they are protected'),
    ('name_convention',             'catalog', 'info',    false, 'find_conventions', 'key or index is not named pk_, fk_, uk_ or idx_'),
    ('timestamps_missing',          'catalog', 'info',    false, 'find_conventions', 'table has no created_at or updated_at'),
    ('soft_delete_missing',         'catalog', 'info',    false, 'find_conventions', 'table has no column that marks deleted rows');

-- The call that protects a table, or the one it is a part of, as it was protected before.
CREATE FUNCTION tenancy_internal.protect_call(relation oid, foreign_keys text) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
SELECT format('SELECT tenancy.protect_table(%s)', concat_ws(', ', quote_literal(g.identity),
           CASE WHEN g.tenant_column <> 'tenant_id' THEN format('tenant_column => %L', g.tenant_column) END,
           CASE WHEN r.access <> 'tenant' THEN format('access => %L', r.access) END,
           CASE WHEN COALESCE(protect_call.foreign_keys, r.foreign_keys) <> 'composite'
                THEN format('foreign_keys => %L', COALESCE(protect_call.foreign_keys, r.foreign_keys)) END,
           CASE WHEN r.reference <> 'policy' THEN format('reference => %L', r.reference) END,
           CASE WHEN NOT r.open_policy THEN 'open_policy => false' END))
  FROM tenancy_internal.protected_tables p
  JOIN tenancy_internal.protected_tables r ON r.relation = p.root
  JOIN tenancy_internal.guarded_tables(ARRAY[p.root::oid]) g ON true
 WHERE p.relation = protect_call.relation
$$;

-- The indexes of protected tables that are no part of another index.
CREATE FUNCTION tenancy_internal.guarded_indexes(tables oid[]) RETURNS TABLE (
    index oid, relation oid, name name, identity text, on_table text, keys int2[], definition jsonb, constraint_id oid,
    is_unique boolean, is_exclusion boolean, is_primary boolean, is_immediate boolean, is_valid boolean, is_partial boolean,
    is_identity boolean, is_partitioned boolean
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
SELECT x.indexrelid, x.indrelid, i.relname, format('%I.%I', n.nspname, i.relname), format('%I.%I', n.nspname, c.relname),
       (x.indkey::int2[])[0:x.indnkeyatts - 1],
       jsonb_build_array(i.relam, x.indkey::text, x.indnkeyatts, x.indclass::text, x.indcollation::text, x.indoption::text,
                         pg_get_expr(x.indexprs, x.indrelid), pg_get_expr(x.indpred, x.indrelid), i.reloptions),
       k.oid, x.indisunique, x.indisexclusion, x.indisprimary, x.indimmediate, x.indisvalid AND x.indislive AND x.indisready,
       x.indpred IS NOT NULL, x.indisreplident, i.relkind = 'I'
  FROM tenancy_internal.protected_tables p
  JOIN pg_class c ON c.oid = p.relation
  JOIN pg_index x ON x.indrelid = p.relation
  JOIN pg_class i ON i.oid = x.indexrelid AND NOT i.relispartition
  JOIN pg_namespace n ON n.oid = i.relnamespace
  LEFT JOIN pg_constraint k ON k.conindid = x.indexrelid AND k.conrelid = x.indrelid AND k.contype IN ('p', 'u', 'x')
 WHERE tables IS NULL OR c.oid = ANY (tables)
$$;

CREATE FUNCTION tenancy_internal.find_keys(tables oid[], sample integer, deep boolean) RETURNS SETOF tenancy_internal.finding
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
WITH guarded AS MATERIALIZED (
    SELECT * FROM tenancy_internal.guarded_tables(NULL)
), indexes AS MATERIALIZED (
    SELECT * FROM tenancy_internal.guarded_indexes(tables)
), keys AS MATERIALIZED (
    SELECT x.*, g.access, g.tenant_column,
           ARRAY(SELECT COALESCE(a.attname, '(an expression)')
                   FROM unnest(x.keys) WITH ORDINALITY AS v(attnum, position)
                   LEFT JOIN pg_attribute a ON a.attrelid = x.relation AND a.attnum = v.attnum
                  ORDER BY v.position) AS columns,
           -- Numbers and uuids that are made and not chosen tell a client nothing, but for one that names its own.
           (SELECT bool_and(a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'uuid'::regtype)
                            AND (x.is_primary OR a.attidentity <> '' OR cardinality(x.keys) = 1 AND a.atthasdef
                                 AND EXISTS (SELECT FROM pg_attrdef d
                                              WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum
                                                AND pg_get_expr(d.adbin, d.adrelid) ~ '(nextval|uuid[a-z0-9_]*)\(')))
              FROM unnest(x.keys) AS v(attnum)
              LEFT JOIN pg_attribute a ON a.attrelid = x.relation AND a.attnum = v.attnum) AS is_surrogate
      FROM indexes x
      JOIN guarded g ON g.relation = x.relation AND g.tenant_number IS NOT NULL
      LEFT JOIN pg_constraint k ON k.oid = x.constraint_id
     WHERE (x.is_unique OR x.is_exclusion)
       AND NOT EXISTS (SELECT FROM unnest(x.keys) WITH ORDINALITY AS v(attnum, position)
                         LEFT JOIN pg_operator o ON o.oid = k.conexclop[v.position]
                        WHERE v.attnum = g.tenant_number AND COALESCE(o.oprname, '=') = '=')
       -- A table of the tenants themselves, one row for each, has keys across tenants by its nature.
       AND NOT EXISTS (SELECT FROM indexes u
                        WHERE u.relation = x.relation AND u.is_unique AND NOT u.is_partial AND u.keys = ARRAY[g.tenant_number])
), links AS MATERIALIZED (
    SELECT k.oid, k.conname, k.conrelid, c.identity AS child, p.identity AS parent, k.confmatchtype,
           c.foreign_keys = 'keep' OR p.foreign_keys = 'keep' AS is_kept,
           -- As isolation/plan.rs has it (keeps_key).
           CASE WHEN p.access = 'shared' THEN format('rows of %s without a tenant are referred to as well', p.identity)
                WHEN c.access = 'shared' THEN format('rows of %s without a tenant would not be checked', c.identity)
                WHEN c.tenant_key <> p.tenant_key THEN 'the tenant columns hold different keys'
                WHEN c.tenant_number = ANY (k.conkey) OR p.tenant_number = ANY (k.confkey)
                THEN 'it uses the tenant column for something else'
                WHEN k.confmatchtype = 'f' AND cardinality(k.conkey) > 1 THEN 'MATCH FULL over several columns has no such form'
                WHEN (to_jsonb(k) ->> 'conperiod')::boolean THEN 'a key over a PERIOD is not rewritten'    -- new in 18
                WHEN k.confupdtype IN ('n', 'd') THEN 'its ON UPDATE would reach the tenant column' END AS obstacle
      FROM pg_constraint k
      JOIN guarded c ON c.relation = k.conrelid AND c.tenant_number IS NOT NULL
      JOIN guarded p ON p.relation = k.confrelid AND p.tenant_number IS NOT NULL
     WHERE k.contype = 'f' AND k.conparentid = 0
       AND (tables IS NULL OR k.conrelid = ANY (tables) OR k.confrelid = ANY (tables))
       AND NOT EXISTS (SELECT FROM unnest(k.conkey, k.confkey) AS v(child, parent)
                        WHERE v.child = c.tenant_number AND v.parent = p.tenant_number)
), actions AS MATERIALIZED (    -- as isolation/actions.rs has it
    SELECT k.oid, k.conname, k.conrelid, c.identity, c.access, c.tenant_column,
           k.confdeltype IN ('n', 'd') AND c.tenant_number = ANY (s.columns) AS on_delete,
           k.confupdtype IN ('n', 'd')
               OR k.confupdtype = 'c' AND c.access = 'shared' AND EXISTS (
                      SELECT FROM unnest(k.conkey, k.confkey) AS v(child, parent)
                        JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = v.parent AND NOT a.attnotnull
                       WHERE v.child = c.tenant_number AND v.parent IS DISTINCT FROM p.tenant_number) AS on_update,
           cardinality(s.columns) > 1 AND k.confmatchtype <> 'f' AND current_setting('server_version_num')::int >= 150000
               AS may_name_columns
      FROM pg_constraint k
      JOIN guarded c ON c.relation = k.conrelid AND c.tenant_number = ANY (k.conkey)
      LEFT JOIN guarded p ON p.relation = k.confrelid
     CROSS JOIN LATERAL (SELECT COALESCE(    -- the catalog's column is new in 15
               (SELECT array_agg(d::int2) FROM jsonb_array_elements_text(NULLIF(to_jsonb(k) -> 'confdelsetcols', 'null')) AS d),
               k.conkey)) AS s(columns)
     WHERE k.contype = 'f' AND k.conparentid = 0 AND (tables IS NULL OR k.conrelid = ANY (tables))
       AND COALESCE((to_jsonb(k) ->> 'conenforced')::boolean, true)    -- new in 18
)
SELECT tenancy_internal.defect(
           CASE WHEN k.is_surrogate THEN 'surrogate_without_tenant' ELSE 'key_without_tenant' END,
           CASE WHEN k.constraint_id IS NULL THEN 'pg_class'::regclass ELSE 'pg_constraint'::regclass END,
           COALESCE(k.constraint_id, k.index),
           format('Key %I of %s is on %s and not on the tenant column %I: a tenant learns which values other tenants have,'
                  ' and cannot use them itself.', k.name, k.on_table, array_to_string(k.columns, ', '), k.tenant_column),
           CASE WHEN k.access <> 'shared' THEN format('SELECT tenancy.scope_unique(%L, %L)', k.on_table, k.name) END)
  FROM keys k
 UNION ALL
SELECT tenancy_internal.defect(
           CASE WHEN l.is_kept OR l.obstacle IS NOT NULL THEN 'foreign_key_kept' ELSE 'foreign_key_without_tenant' END,
           'pg_constraint'::regclass, l.oid,
           format('Foreign key %I of %s refers to %s without the tenant%s: a row can refer to another tenant''s row, and its actions'
                  ' can reach across tenants.', l.conname, l.child, l.parent, ', for ' || l.obstacle),
           CASE WHEN l.obstacle IS NULL THEN tenancy_internal.protect_call(l.conrelid, 'composite') END)
  FROM links l
 UNION ALL
SELECT tenancy_internal.defect('foreign_key_sets_tenant', 'pg_constraint'::regclass, a.oid,
           format('Foreign key %I of %s sets the tenant column %I %s: %s.', a.conname, a.identity, a.tenant_column,
                  concat_ws(' and ', CASE WHEN a.on_delete THEN 'ON DELETE' END, CASE WHEN a.on_update THEN 'ON UPDATE' END),
                  CASE WHEN a.access = 'shared' THEN 'a tenant''s row becomes one of all tenants'
                       ELSE 'the statement fails, or a row becomes that of another tenant' END),
           CASE WHEN a.on_delete AND NOT a.on_update AND a.may_name_columns THEN tenancy_internal.protect_call(a.conrelid, NULL) END)
  FROM actions a WHERE a.on_delete OR a.on_update
 UNION ALL
SELECT tenancy_internal.defect('constraint_not_valid', 'pg_constraint'::regclass, k.oid,
           format('Constraint %I of %s is NOT VALID: rows from before it may break it.', k.conname, g.identity),
           format('ALTER TABLE %s VALIDATE CONSTRAINT %I', g.identity, k.conname))
  FROM guarded g
  JOIN pg_constraint k ON k.conrelid = g.relation
 WHERE (tables IS NULL OR g.relation = ANY (tables)) AND NOT k.convalidated AND k.contype IN ('f', 'c', 'n') AND k.conparentid = 0 AND k.coninhcount = 0
   AND COALESCE((to_jsonb(k) ->> 'conenforced')::boolean, true)    -- new in 18
$$;

CREATE FUNCTION tenancy_internal.find_indexes(tables oid[], sample integer, deep boolean) RETURNS SETOF tenancy_internal.finding
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
WITH guarded AS MATERIALIZED (
    SELECT g.*, c.relispartition, tables IS NULL OR c.oid = ANY (tables) AS is_wanted
      FROM tenancy_internal.guarded_tables(NULL) g JOIN pg_class c ON c.oid = g.relation
), indexes AS MATERIALIZED (
    SELECT * FROM tenancy_internal.guarded_indexes(tables)
), ranked AS (
    SELECT x.*, first_value(x.name) OVER best AS best, first_value(x.is_unique AND x.is_immediate) OVER best AS best_is_unique,
           row_number() OVER best AS rank
      FROM indexes x WHERE x.is_valid AND NOT x.is_exclusion
    WINDOW best AS (PARTITION BY x.relation, x.definition
                    ORDER BY x.constraint_id IS NULL, NOT x.is_unique, NOT x.is_identity, x.index)
)
SELECT tenancy_internal.defect('index_without_tenant', 'pg_class'::regclass, g.relation,
           format('No index of %s is led by its tenant column %I: each query reads the rows of all tenants to find its own.',
                  g.identity, g.tenant_column),
           tenancy_internal.protect_call(g.relation, NULL))
  FROM guarded g
 WHERE g.is_wanted AND g.tenant_number IS NOT NULL AND NOT g.relispartition
   AND NOT EXISTS (SELECT FROM indexes x
                    WHERE x.relation = g.relation AND x.is_valid AND NOT x.is_partial AND x.keys[1] = g.tenant_number)
 UNION ALL
SELECT tenancy_internal.defect('foreign_key_without_index', 'pg_constraint'::regclass, k.oid,
           format('No index of %s begins with the columns of foreign key %I: deleting a row of %s reads all the tenant''s rows.',
                  g.identity, k.conname, k.confrelid::regclass),
           format('CREATE INDEX ON %s (%s)', g.identity,
                  (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY v.position)
                     FROM unnest(k.conkey) WITH ORDINALITY AS v(attnum, position)
                     JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = v.attnum)))
  FROM guarded g
  JOIN pg_constraint k ON k.conrelid = g.relation AND k.contype = 'f' AND k.conparentid = 0
  JOIN guarded p ON p.relation = k.confrelid AND p.access <> 'reference'
 WHERE g.is_wanted AND k.conkey <> ARRAY[g.tenant_number]
       -- Without the tenant it is a finding of its own, and gets other columns.
   AND (g.tenant_number = ANY (k.conkey) OR g.tenant_number IS NULL)
   AND NOT EXISTS (SELECT FROM indexes x
                    WHERE x.relation = g.relation AND x.is_valid AND NOT x.is_partial
                      AND x.keys[1:cardinality(k.conkey)] @> k.conkey)
 UNION ALL
SELECT tenancy_internal.defect('index_duplicate', 'pg_class'::regclass, x.index,
           format('Index %s does what %I of %s does as well.', x.identity, x.best, x.on_table),
           format('DROP INDEX %s', x.identity))
  FROM ranked x
 WHERE x.rank > 1 AND x.constraint_id IS NULL AND NOT x.is_identity AND (NOT x.is_unique OR x.best_is_unique)
   AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = x.index)
 UNION ALL
SELECT tenancy_internal.defect('index_invalid', 'pg_class'::regclass, x.index,
           CASE WHEN x.is_partitioned THEN format('Index %s of %s is not valid: a partition has no part of it.', x.identity, x.on_table)
                ELSE format('Index %s of %s is not valid: building it was broken off, and queries do not use it.',
                            x.identity, x.on_table) END,
           CASE WHEN NOT x.is_partitioned THEN format('REINDEX INDEX %s', x.identity) END)
  FROM indexes x
 WHERE NOT x.is_valid
   AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index b WHERE b.index_relid = x.index)
$$;

-- Of a partitioned index no part has been used. What keeps a key, or finds a tenant's rows, is not superfluous for that.
CREATE FUNCTION tenancy_internal.find_unused(tables oid[], sample integer, deep boolean) RETURNS SETOF tenancy_internal.finding
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
WITH indexes AS MATERIALIZED (
    SELECT x.*, g.tenant_number
      FROM tenancy_internal.guarded_indexes(tables) x JOIN tenancy_internal.guarded_tables(tables) g ON g.relation = x.relation
)
SELECT tenancy_internal.defect('index_unused', 'pg_class'::regclass, x.index,
           format('No query has used index %s of %s since statistics began, and each write pays for it.', x.identity, x.on_table),
           format('DROP INDEX %s', x.identity))
  FROM indexes x
 WHERE NOT x.is_unique AND NOT x.is_exclusion AND NOT x.is_identity AND x.is_valid
   AND NOT EXISTS (SELECT FROM tenancy_internal.table_family(x.index) part WHERE pg_stat_get_numscans(part) > 0)
   AND (x.keys[1] IS DISTINCT FROM x.tenant_number
        OR EXISTS (SELECT FROM indexes o
                    WHERE o.relation = x.relation AND o.index <> x.index AND o.is_valid AND NOT o.is_partial
                      AND o.keys[1] = x.tenant_number AND (o.is_unique OR o.index < x.index)))
$$;

-- pg_stats hides a table with row security from those whom it binds. An index has none, and its owner sees what ANALYZE
-- kept of its expressions, from all tenants' rows.
CREATE FUNCTION tenancy_internal.find_statistics(tables oid[], sample integer, deep boolean)
RETURNS SETOF tenancy_internal.finding
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
WITH guarded AS MATERIALIZED (
    SELECT * FROM tenancy_internal.guarded_tables(tables)
)
SELECT tenancy_internal.defect('expression_statistics', 'pg_class'::regclass, i.oid,
           format('Index %s of %s is on an expression, and its owner %I, whom row security binds, sees values of all tenants'
                  ' in pg_stats.', format('%I.%I', g.schema, i.relname), g.identity, g.owner_name), NULL)
  FROM guarded g
  JOIN pg_index x ON x.indrelid = g.relation AND x.indexprs IS NOT NULL
  JOIN pg_class i ON i.oid = x.indexrelid AND NOT i.relispartition
 WHERE g.access <> 'reference' AND g.owner_danger IS NULL
   AND EXISTS (SELECT FROM tenancy_internal.table_family(i.oid) part JOIN pg_statistic s ON s.starelid = part)
 UNION ALL
SELECT tenancy_internal.defect('extended_statistics_open', 'pg_statistic_ext'::regclass, e.oid,
           format('Statistics %I.%I are on expressions of %s, and pg_stats_ext_exprs of this database shows them to everybody;'
                  ' the release notes of PostgreSQL for CVE-2024-4317 say how to mend the view.',
                  n.nspname, e.stxname, g.identity), NULL)
  FROM guarded g
  JOIN pg_statistic_ext e ON e.stxrelid = g.relation
  JOIN pg_namespace n ON n.oid = e.stxnamespace
 WHERE g.access <> 'reference' AND (to_jsonb(e) ->> 'stxexprs') IS NOT NULL    -- new in 14
   AND pg_get_viewdef(to_regclass('pg_catalog.pg_stats_ext_exprs')) !~ 'row_security_active'
$$;

CREATE FUNCTION tenancy_internal.find_grants(tables oid[], sample integer, deep boolean) RETURNS SETOF tenancy_internal.finding
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
WITH grantees AS MATERIALIZED (
    SELECT a.oid, CASE a.oid WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.oid)) END AS name
      FROM tenancy_internal.application_grantees() AS a(oid)
), guarded AS MATERIALIZED (
    SELECT g.*, c.relacl, c.relnamespace
      FROM tenancy_internal.guarded_tables(tables) g JOIN pg_class c ON c.oid = g.relation
), grants AS MATERIALIZED (
    SELECT DISTINCT g.relation, g.identity, g.access, r.oid AS grantee, r.name, x.privilege_type
      FROM (SELECT relation, relacl AS acl FROM guarded
             UNION ALL
            SELECT a.attrelid, a.attacl FROM pg_attribute a WHERE a.attacl IS NOT NULL) AS s
      JOIN guarded g ON g.relation = s.relation AND g.root = g.relation    -- of parts see partition_granted
     CROSS JOIN aclexplode(s.acl) x
      JOIN grantees r ON r.oid = x.grantee
     WHERE x.grantee <> g.owner
), schemas AS MATERIALIZED (
    SELECT DISTINCT relnamespace AS oid FROM guarded
), sequences AS MATERIALIZED (
    SELECT d.objid AS oid, g.identity
      FROM guarded g
      JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = g.relation AND d.refobjsubid > 0
                      AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
     UNION
    SELECT d.refobjid, g.identity
      FROM guarded g
      JOIN pg_attrdef f ON f.adrelid = g.relation
      JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid AND d.refclassid = 'pg_class'::regclass
                      AND d.refobjid <> g.relation
), defaults AS MATERIALIZED (
    SELECT d.oid, format('FOR ROLE %I', pg_get_userbyid(d.defaclrole)) || COALESCE(' IN SCHEMA ' || quote_ident(n.nspname), '') AS place,
           format('%I makes', pg_get_userbyid(d.defaclrole)) || COALESCE(' in schema ' || quote_ident(n.nspname), '') AS made,
           r.oid AS grantee, r.name
      FROM pg_default_acl d
      LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
     CROSS JOIN aclexplode(d.defaclacl) x
      JOIN grantees r ON r.oid = x.grantee
     WHERE tables IS NULL AND d.defaclobjtype = 'r' AND x.grantee <> d.defaclrole
       AND (d.defaclnamespace = 0 OR d.defaclnamespace IN (SELECT oid FROM schemas)
            OR EXISTS (SELECT FROM tenancy_internal.protected_schemas s WHERE s.schema = n.nspname))
       -- What is protected as it comes may be granted as it comes.
       AND NOT (r.oid <> 0 AND EXISTS (SELECT FROM tenancy_internal.protected_schemas s WHERE s.schema = n.nspname))
)
SELECT tenancy_internal.defect('granted_to_public', 'pg_class'::regclass, g.relation,
           format('Everybody has %s on %s.', string_agg(g.privilege_type, ', ' ORDER BY g.privilege_type), g.identity),
           format('REVOKE %s ON %s FROM PUBLIC', string_agg(g.privilege_type, ', ' ORDER BY g.privilege_type), g.identity))
  FROM grants g
 WHERE g.grantee = 0 AND (g.access <> 'reference' OR g.privilege_type <> 'SELECT')
 GROUP BY g.relation, g.identity
 UNION ALL
SELECT tenancy_internal.defect('excess_privileges', 'pg_class'::regclass, g.relation,
           format('%s: %s on %s. With REFERENCES a key can be made that tells which rows exist, with TRIGGER code that runs in the'
                  ' name of others.', string_agg(DISTINCT g.name, ', '),
                  string_agg(DISTINCT g.privilege_type, ', '), g.identity),
           format('REVOKE %s ON %s FROM %s', string_agg(DISTINCT g.privilege_type, ', '), g.identity,
                  string_agg(DISTINCT g.name, ', ')))
  FROM grants g
 WHERE g.grantee <> 0
   AND (g.privilege_type = 'TRIGGER' OR g.privilege_type = 'REFERENCES' AND g.access <> 'reference')
 GROUP BY g.relation, g.identity
 UNION ALL
SELECT tenancy_internal.defect('truncate_granted', 'pg_class'::regclass, g.relation,
           format('%s may TRUNCATE %s as far as privileges say; only its guard, a trigger, refuses it.',
                  string_agg(DISTINCT g.name, ', '), g.identity),
           format('REVOKE TRUNCATE ON %s FROM %s', g.identity, string_agg(DISTINCT g.name, ', ')))
  FROM grants g WHERE g.grantee <> 0 AND g.privilege_type = 'TRUNCATE'
 GROUP BY g.relation, g.identity
 UNION ALL
SELECT tenancy_internal.defect('sequence_readable', 'pg_class'::regclass, c.oid,
           format('Sequence %I.%I of %s counts the rows of all tenants, and %s may read or set it; USAGE is enough to draw numbers.',
                  n.nspname, c.relname, s.identity, l.grantees),
           format('REVOKE SELECT, UPDATE ON SEQUENCE %I.%I FROM %s', n.nspname, c.relname, l.grantees))
  FROM (SELECT oid, min(identity) AS identity FROM sequences GROUP BY oid) AS s
  JOIN pg_class c ON c.oid = s.oid AND c.relkind = 'S'
  JOIN pg_namespace n ON n.oid = c.relnamespace
 CROSS JOIN LATERAL (
    SELECT string_agg(DISTINCT r.name, ', ')
      FROM aclexplode(c.relacl) x JOIN grantees r ON r.oid = x.grantee
     WHERE x.grantee <> c.relowner AND x.privilege_type IN ('SELECT', 'UPDATE')
 ) AS l(grantees)
 WHERE l.grantees IS NOT NULL
 UNION ALL
SELECT tenancy_internal.defect('schema_create', 'pg_namespace'::regclass, n.oid,
           format('%s may create tables, functions and operators in schema %I, beside protected tables.', l.grantees, n.nspname),
           format('REVOKE CREATE ON SCHEMA %I FROM %s', n.nspname, l.grantees))
  FROM schemas s
  JOIN pg_namespace n ON n.oid = s.oid
 CROSS JOIN LATERAL (
    SELECT string_agg(DISTINCT r.name, ', ')
      FROM aclexplode(n.nspacl) x JOIN grantees r ON r.oid = x.grantee
     WHERE x.grantee <> n.nspowner AND x.privilege_type = 'CREATE'
 ) AS l(grantees)
 WHERE l.grantees IS NOT NULL
 UNION ALL
SELECT tenancy_internal.defect(CASE d.grantee WHEN 0 THEN 'default_privileges_public' ELSE 'default_privileges' END,
           'pg_default_acl'::regclass, d.oid,
           format('Tables that %s are granted to %s at once.', d.made, string_agg(DISTINCT d.name, ', ')),
           format('ALTER DEFAULT PRIVILEGES %s REVOKE ALL ON TABLES FROM %s', d.place, string_agg(DISTINCT d.name, ', ')))
  FROM defaults d GROUP BY d.oid, d.place, d.made, CASE d.grantee WHEN 0 THEN 'default_privileges_public' ELSE 'default_privileges' END
$$;

-- Names that unprotect_table goes by stay as they are.
CREATE FUNCTION tenancy_internal.find_conventions(tables oid[], sample integer, deep boolean)
RETURNS SETOF tenancy_internal.finding
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
WITH guarded AS MATERIALIZED (
    SELECT g.*, p.undo FROM tenancy_internal.guarded_tables(tables) g
      JOIN tenancy_internal.protected_tables p ON p.relation = g.relation
), named AS (
    SELECT 'pg_constraint'::regclass AS classid, k.oid, k.conname AS name, g.identity, g.undo, NULL::text AS index,
           CASE k.contype WHEN 'p' THEN 'pk_' WHEN 'f' THEN 'fk_' ELSE 'uk_' END AS prefix,
           EXISTS (SELECT FROM pg_constraint o WHERE o.conrelid = k.conrelid AND o.conname <> k.conname AND o.conname = m.name)
               OR k.contype <> 'f' AND EXISTS (SELECT FROM pg_class o WHERE o.relnamespace = c.relnamespace AND o.relname = m.name)
               AS is_taken, m.name AS new_name
      FROM guarded g
      JOIN pg_class c ON c.oid = g.relation
      JOIN pg_constraint k ON k.conrelid = g.relation AND k.contype IN ('p', 'u', 'f') AND k.conparentid = 0
     CROSS JOIN LATERAL (SELECT CASE k.contype WHEN 'p' THEN 'pk_' WHEN 'f' THEN 'fk_' ELSE 'uk_' END
                                || regexp_replace(k.conname, '_(pkey|fkey|key)$', '')) AS m(name)
     UNION ALL
    SELECT 'pg_class'::regclass, x.index, x.name, x.on_table, g.undo, x.identity, CASE WHEN x.is_unique THEN '(uk|idx)_' ELSE 'idx_' END,
           EXISTS (SELECT FROM pg_class o JOIN pg_class c ON c.oid = x.index
                    WHERE o.relnamespace = c.relnamespace AND o.relname = m.name), m.name
      FROM guarded g
      JOIN tenancy_internal.guarded_indexes(tables) x ON x.relation = g.relation AND x.constraint_id IS NULL
     CROSS JOIN LATERAL (SELECT CASE WHEN x.is_unique THEN 'uk_' ELSE 'idx_' END
                                || regexp_replace(x.name, '_(idx|key)$', '')) AS m(name)
), missing AS (
    SELECT g.relation, g.identity, w.column_name,
           EXISTS (SELECT FROM pg_attribute a
                    WHERE a.attrelid = g.relation AND a.attname = w.column_name AND NOT a.attisdropped) AS is_there
      FROM guarded g CROSS JOIN (VALUES ('created_at'), ('updated_at')) AS w(column_name)
     WHERE g.root = g.relation AND g.access <> 'reference'
)
SELECT tenancy_internal.defect('name_convention', n.classid, n.oid,
           format('%s %I of %s should be named %s...', CASE WHEN n.index IS NULL THEN 'Constraint' ELSE 'Index' END, n.name, n.identity,
                  replace(n.prefix, '(uk|idx)_', 'uk_')),
           CASE WHEN n.is_taken OR octet_length(n.new_name) > 63 THEN NULL
                WHEN n.index IS NULL THEN format('ALTER TABLE %s RENAME CONSTRAINT %I TO %I', n.identity, n.name, n.new_name)
                ELSE format('ALTER INDEX %s RENAME TO %I', n.index, n.new_name) END)
  FROM named n
 WHERE n.name !~ ('^' || n.prefix)
   AND NOT COALESCE(n.undo -> 'indexes' ? n.name, false)
   AND NOT COALESCE(n.undo -> 'attached' ? n.name, false)
   AND NOT COALESCE(n.undo -> 'unique_keys' ? n.name, false)
   AND NOT COALESCE(n.undo -> 'foreign_keys' @> jsonb_build_array(jsonb_build_object('name', n.name)), false)
   AND n.undo ->> 'reference_key' IS DISTINCT FROM n.name
 UNION ALL
SELECT tenancy_internal.defect('timestamps_missing', 'pg_class'::regclass, m.relation,
           format('Table %s has no %s.', m.identity, string_agg(m.column_name, ' and no ' ORDER BY m.column_name)),
           format('ALTER TABLE %s %s', m.identity,
                  string_agg(format('ADD COLUMN %I timestamptz NOT NULL DEFAULT pg_catalog.now()', m.column_name), ', '
                             ORDER BY m.column_name)))
  FROM missing m WHERE NOT m.is_there GROUP BY m.relation, m.identity
 UNION ALL
SELECT tenancy_internal.defect('soft_delete_missing', 'pg_class'::regclass, g.relation,
           format('Table %s has no column that marks a row as deleted.', g.identity),
           format('ALTER TABLE %s ADD COLUMN deleted_at timestamptz', g.identity))
  FROM guarded g
 WHERE g.root = g.relation AND g.access <> 'reference'
   AND NOT EXISTS (SELECT FROM pg_attribute a
                    WHERE a.attrelid = g.relation AND NOT a.attisdropped
                      AND a.attname IN ('deleted_at', 'is_deleted', 'deleted', 'archived_at'))
$$;

INSERT INTO tenancy_internal.rights (grantee, privileges, kind, objects) VALUES
    ('administrator', 'EXECUTE', 'ROUTINE', '{tenancy_internal.find_keys, tenancy_internal.find_indexes,
        tenancy_internal.find_unused, tenancy_internal.find_statistics, tenancy_internal.find_grants,
        tenancy_internal.find_conventions}');

COMMENT ON FUNCTION tenancy_internal.protect_call(oid, text) IS 'the call that protects a table again as it was protected';
COMMENT ON FUNCTION tenancy_internal.guarded_indexes(oid[]) IS 'the indexes of protected tables, for checks of many';
COMMENT ON FUNCTION tenancy_internal.find_keys(oid[], integer, boolean) IS 'keys and constraints that do not keep tenants apart';
COMMENT ON FUNCTION tenancy_internal.find_indexes(oid[], integer, boolean) IS 'indexes that are missing, invalid or superfluous';
COMMENT ON FUNCTION tenancy_internal.find_unused(oid[], integer, boolean) IS 'indexes that no query has used';
COMMENT ON FUNCTION tenancy_internal.find_statistics(oid[], integer, boolean) IS 'statistics that show values of all tenants';
COMMENT ON FUNCTION tenancy_internal.find_grants(oid[], integer, boolean) IS 'privileges by which an application could do more than it has to';
COMMENT ON FUNCTION tenancy_internal.find_conventions(oid[], integer, boolean) IS 'names and columns that differ from a convention';
