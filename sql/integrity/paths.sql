-- room integrity, ways around a protected table: views, functions, triggers, rules, foreign tables, publications, partitions

-- Estimates of what functions give are high, and compiling would take longer than all of it; hence jit = off below.
INSERT INTO tenancy_internal.integrity_checks (check_id, scope, severity, source, title) VALUES
    ('view_past_row_security',     'catalog', 'error',   'find_readers',      'view reads protected tables as an owner whom row security does not bind'),
    ('view_of_copies',             'catalog', 'error',   'find_readers',      'view shows a materialized view of all tenants'' rows'),
    ('tenant_view_altered',        'catalog', 'error',   'find_readers',      'view of tenancy.tenant_view is not as it was made'),
    ('matview_granted',            'catalog', 'error',   'find_readers',      'materialized view of protected tables is granted to roles that row security binds'),
    ('matview_without_view',       'catalog', 'warning', 'find_readers',      'materialized view of protected tables has no view of the current tenant''s rows'),
    ('rule_on_protected',          'catalog', 'error',   'find_readers',      'rule rewrites statements on a protected table'),
    ('rule_past_row_security',     'catalog', 'error',   'find_readers',      'rule reaches protected tables as an owner whom row security does not bind'),
    ('parent_unprotected',         'catalog', 'error',   'find_parents',      'protected table is read through an unprotected parent'),
    ('partition_granted',          'catalog', 'info',    'find_parents',      'partition or child is granted besides its parent'),
    ('foreign_table_loops_back',   'catalog', 'error',   'find_outlets',      'foreign table leads back into this database'),
    ('foreign_table_granted',      'catalog', 'warning', 'find_outlets',      'foreign table with a tenant column is granted to an application'),
    ('published_without_filter',   'catalog', 'warning', 'find_publications', 'publication sends all tenants'' rows'),
    ('large_objects_shared',       'catalog', 'warning', 'find_outlets',      'large objects are shared by all tenants of an application'),
    ('function_past_row_security', 'catalog', 'error',   'find_functions',    'SECURITY DEFINER function reaches protected tables as an owner whom row security does not bind'),
    ('definer_search_path',        'catalog', 'warning', 'find_functions',    'SECURITY DEFINER function has no search_path of its own'),
    ('definer_public',             'catalog', 'info',    'find_functions',    'SECURITY DEFINER function on protected tables may be called by everybody'),
    ('function_untrusted',         'catalog', 'warning', 'find_functions',    'application may call a function of an untrusted language'),
    ('trigger_past_row_security',  'catalog', 'warning', 'find_triggers',     'trigger acts as an owner whom row security does not bind'),
    ('trigger_writes_elsewhere',   'catalog', 'warning', 'find_triggers',     'trigger of a protected table writes to one that is not protected');

-- What reads or writes protected tables by the rewriter: each view or rule, also through views and materialized views.
-- A view's rules count as the view. It ends at a view whose owner is bound, or that shows the current tenant's rows only:
-- whatever reads that is bound by it. A copy of it is none.
CREATE FUNCTION tenancy_internal.protected_readers(tables oid[]) RETURNS TABLE (reader oid, rule oid, sources text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
WITH RECURSIVE edges AS MATERIALIZED (
    SELECT DISTINCT w.ev_class AS reader, CASE WHEN c.relkind NOT IN ('v', 'm') THEN w.oid END AS rule, d.refobjid AS source,
           c.relkind = 'm' AS is_copy,
           c.relkind = 'm'
               OR (o.rolsuper OR o.rolbypassrls
                   OR EXISTS (SELECT FROM pg_options_to_table(c.reloptions)
                               WHERE c.relkind = 'v' AND option_name = 'security_invoker' AND option_value::boolean))
              AND NOT EXISTS (SELECT FROM tenancy_internal.tenant_views t WHERE t.view = c.oid) AS is_open
      FROM pg_rewrite w
      JOIN pg_class c ON c.oid = w.ev_class
      JOIN pg_authid o ON o.oid = c.relowner
      JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
                      AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> w.ev_class
     WHERE w.ev_class >= 16384
), reads(reader, rule, is_open, identity) AS (
    SELECT e.reader, e.rule, e.is_open, g.identity
      FROM edges e JOIN tenancy_internal.guarded_tables(tables) g ON g.relation = e.source AND g.access <> 'reference'
     UNION
    SELECT e.reader, e.rule, e.is_open, r.identity
      FROM reads r JOIN edges e ON e.source = r.reader AND r.rule IS NULL AND (r.is_open OR e.is_copy)
)
SELECT reader, rule, string_agg(DISTINCT identity, ', ' ORDER BY identity) FROM reads GROUP BY reader, rule
$$;

CREATE FUNCTION tenancy_internal.find_readers(tables oid[], sample integer, deep boolean) RETURNS SETOF tenancy_internal.finding
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
WITH readers AS MATERIALIZED (
    SELECT r.*, c.relkind, c.relacl, c.relowner, format('%I.%I', n.nspname, c.relname) AS identity, o.rolname AS owner_name,
           CASE WHEN o.rolsuper THEN 'is a superuser' WHEN o.rolbypassrls THEN 'has BYPASSRLS' END AS danger,
           COALESCE('security_invoker' = ANY (x.options), false) AS is_invoker,
           COALESCE('security_barrier' = ANY (x.options), false) AS is_barrier,
           t.matview IS NOT NULL AS is_tenant_view
      FROM tenancy_internal.protected_readers(tables) r
      JOIN pg_class c ON c.oid = r.reader
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_authid o ON o.oid = c.relowner
      LEFT JOIN tenancy_internal.tenant_views t ON t.view = c.oid
     CROSS JOIN LATERAL (SELECT ARRAY(SELECT option_name FROM pg_options_to_table(c.reloptions)
                                       WHERE c.relkind = 'v' AND option_value::boolean)) AS x(options)
), views AS MATERIALIZED (
    SELECT r.*, EXISTS (SELECT FROM pg_rewrite w
                          JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
                                          AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.reader
                          JOIN readers m ON m.reader = d.refobjid AND m.relkind = 'm'
                         WHERE w.ev_class = r.reader) AS shows_copies
      FROM readers r WHERE r.relkind = 'v'
), matviews AS MATERIALIZED (
    SELECT r.*, EXISTS (SELECT FROM tenancy_internal.tenant_views t WHERE t.matview = r.reader) AS has_tenant_view,
           (SELECT string_agg(DISTINCT g.name, ', ')
              FROM (SELECT r.relacl AS acl UNION ALL SELECT a.attacl FROM pg_attribute a WHERE a.attrelid = r.reader) AS l,
                   aclexplode(l.acl) x
              LEFT JOIN pg_authid b ON b.oid = x.grantee
             CROSS JOIN LATERAL (SELECT CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(b.rolname) END) AS g(name)
             WHERE x.grantee <> r.relowner AND x.privilege_type = 'SELECT' AND NOT COALESCE(b.rolsuper OR b.rolbypassrls, false)
           ) AS grantees,
           (SELECT string_agg(DISTINCT quote_ident(g.tenant_column), ', ')
              FROM tenancy_internal.guarded_tables(NULL) g
              JOIN pg_attribute a ON a.attrelid = r.reader AND a.attname = g.tenant_column AND a.attnum > 0
                                 AND NOT a.attisdropped
             WHERE g.tenant_column IS NOT NULL) AS tenant_column
      FROM readers r WHERE r.relkind = 'm'
)
SELECT tenancy_internal.defect('view_past_row_security', 'pg_class'::regclass, v.reader,
           format('View %s reads %s with the rights of its owner %I, which %s: it shows the rows of all tenants.',
                  v.identity, v.sources, v.owner_name, v.danger),
           CASE WHEN current_setting('server_version_num')::int >= 150000
                THEN format('ALTER VIEW %s SET (security_invoker = true)', v.identity)
                ELSE (SELECT format('ALTER VIEW %s OWNER TO %I', v.identity, min(g.owner_name))
                        FROM tenancy_internal.guarded_tables(NULL) g
                       WHERE g.owner_danger IS NULL AND g.identity = ANY (string_to_array(v.sources, ', '))
                      HAVING count(*) > 0) END)
  FROM views v WHERE NOT v.is_tenant_view AND NOT v.shows_copies AND NOT v.is_invoker AND v.danger IS NOT NULL
 UNION ALL
SELECT tenancy_internal.defect('view_of_copies', 'pg_class'::regclass, v.reader,
           format('View %s shows a materialized view, whose rows are copies from %s that row security does not reach.',
                  v.identity, v.sources), NULL)
  FROM views v WHERE NOT v.is_tenant_view AND v.shows_copies AND NOT v.is_invoker
 UNION ALL
SELECT tenancy_internal.defect('tenant_view_altered', 'pg_class'::regclass, v.reader,
           CASE WHEN v.is_barrier
                THEN format('View %s of tenancy.tenant_view does not ask for the current tenant any more.', v.identity)
                ELSE format('View %s of tenancy.tenant_view is no security barrier: a condition of a query may see the rows'
                            ' of other tenants.', v.identity) END,
           CASE WHEN NOT v.is_barrier THEN format('ALTER VIEW %s SET (security_barrier = true)', v.identity) END)
  FROM views v
 WHERE v.is_tenant_view
   AND NOT (v.is_barrier
            AND EXISTS (SELECT FROM pg_rewrite w JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
                         WHERE w.ev_class = v.reader AND d.refclassid = 'pg_proc'::regclass
                           AND d.refobjid IN ('tenancy.current_tenant_id()'::regprocedure,
                                              'tenancy.current_tenant_number()'::regprocedure,
                                              'tenancy.current_tenant_code()'::regprocedure)))
 UNION ALL
SELECT tenancy_internal.defect('matview_granted', 'pg_class'::regclass, m.reader,
           format('Materialized view %s holds copies of rows of all tenants, from %s, and %s may read them.',
                  m.identity, m.sources, m.grantees),
           format('REVOKE ALL ON %s FROM %s', m.identity, m.grantees))
  FROM matviews m WHERE m.grantees IS NOT NULL
 UNION ALL
SELECT tenancy_internal.defect('matview_without_view', 'pg_class'::regclass, m.reader,
           format('Materialized view %s holds copies of rows of all tenants, from %s, and no view shows a tenant its own.',
                  m.identity, m.sources),
           CASE WHEN m.tenant_column IS NOT NULL THEN format('SELECT tenancy.tenant_view(%L)', m.identity) END)
  FROM matviews m WHERE m.grantees IS NULL AND NOT m.has_tenant_view
 UNION ALL
SELECT tenancy_internal.defect('rule_past_row_security', 'pg_rewrite'::regclass, r.rule,
           format('Rule %I of %s reaches %s with the rights of the table''s owner %I, which %s.',
                  w.rulename, r.identity, r.sources, r.owner_name, r.danger),
           format('DROP RULE %I ON %s', w.rulename, r.identity))
  FROM readers r JOIN pg_rewrite w ON w.oid = r.rule
 WHERE r.danger IS NOT NULL AND NOT EXISTS (SELECT FROM tenancy_internal.protected_tables p WHERE p.relation = r.reader)
 UNION ALL
SELECT tenancy_internal.defect('rule_on_protected', 'pg_rewrite'::regclass, w.oid,
           format('Rule %I rewrites statements on the protected table %I.%I, and what it adds is checked as the table''s owner.',
                  w.rulename, n.nspname, c.relname),
           format('DROP RULE %I ON %I.%I', w.rulename, n.nspname, c.relname))
  FROM pg_rewrite w
  JOIN tenancy_internal.protected_tables p ON p.relation = w.ev_class
  JOIN pg_class c ON c.oid = w.ev_class
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE tables IS NULL OR c.oid = ANY (tables)
$$;

CREATE FUNCTION tenancy_internal.find_parents(tables oid[], sample integer, deep boolean) RETURNS SETOF tenancy_internal.finding
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
WITH guarded AS MATERIALIZED (
    SELECT g.* FROM tenancy_internal.guarded_tables(tables) g
     WHERE EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = g.relation)
)
SELECT tenancy_internal.defect('parent_unprotected', 'pg_class'::regclass, c.oid,
           format('Table %I.%I is not protected, and who reads it reads the rows of %s: its children''s policies are not asked.',
                  n.nspname, c.relname, string_agg(g.identity, ', ' ORDER BY g.identity)), NULL)
  FROM guarded g
  JOIN pg_inherits i ON i.inhrelid = g.relation
  JOIN pg_class c ON c.oid = i.inhparent
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE g.access <> 'reference'
   AND NOT EXISTS (SELECT FROM tenancy_internal.protected_tables p WHERE p.relation = c.oid)
       -- With the tenant column it is a table that nothing protects, which is reported as that.
   AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = g.tenant_column AND NOT a.attisdropped)
 GROUP BY c.oid, n.nspname, c.relname
 UNION ALL
SELECT tenancy_internal.defect('partition_granted', 'pg_class'::regclass, g.relation,
           format('%s may use %s directly, although it is reached through %s.',
                  l.grantees, g.identity, g.root::regclass),
           format('REVOKE ALL ON %s FROM %s', g.identity, l.grantees))
  FROM guarded g
  JOIN pg_class c ON c.oid = g.relation
 CROSS JOIN LATERAL (
    SELECT string_agg(DISTINCT CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END, ', ')
      FROM (SELECT c.relacl AS acl WHERE c.relacl IS NOT NULL
             UNION ALL
            SELECT a.attacl FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attacl IS NOT NULL) AS s, aclexplode(s.acl) x
     WHERE x.grantee <> c.relowner AND x.grantee IN (SELECT tenancy_internal.application_grantees())
 ) AS l(grantees)
 WHERE g.root <> g.relation AND l.grantees IS NOT NULL
$$;

CREATE FUNCTION tenancy_internal.find_outlets(tables oid[], sample integer, deep boolean) RETURNS SETOF tenancy_internal.finding
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
WITH grantees AS MATERIALIZED (
    SELECT a.oid, CASE a.oid WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.oid)) END AS name
      FROM tenancy_internal.application_grantees() AS a(oid)
), foreign_tables AS MATERIALIZED (
    SELECT c.oid, c.relacl, c.relowner, format('%I.%I', n.nspname, c.relname) AS identity, s.srvname,
           COALESCE(b.options ->> 'schema_name', n.nspname) AS remote_schema,
           COALESCE(b.options ->> 'table_name', c.relname) AS remote_name,
           -- Without a host, or with this one, and with the name of this database. A port is another server's.
           COALESCE(b.options ->> 'dbname', '') = current_database()
               AND (COALESCE(b.options ->> 'host', 'localhost') IN ('localhost', '127.0.0.1', '::1')
                    OR left(b.options ->> 'host', 1) IN ('/', '@'))
               AND COALESCE(b.options ->> 'port', current_setting('port')) = current_setting('port') AS is_loop
      FROM pg_foreign_table f
      JOIN pg_class c ON c.oid = f.ftrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_foreign_server s ON s.oid = f.ftserver
     CROSS JOIN LATERAL (
        SELECT jsonb_object_agg(o.option_name, o.option_value)
          FROM (SELECT * FROM pg_options_to_table(s.srvoptions) UNION ALL SELECT * FROM pg_options_to_table(f.ftoptions)) AS o
     ) AS b(options)
), loops AS MATERIALIZED (
    SELECT f.*, g.identity AS target, g.relation
      FROM foreign_tables f
      JOIN tenancy_internal.guarded_tables(NULL) g ON g.schema = f.remote_schema AND g.name = f.remote_name
     WHERE f.is_loop AND g.access <> 'reference'
)
SELECT tenancy_internal.defect('foreign_table_loops_back', 'pg_class'::regclass, l.oid,
           format('Foreign table %s reads %s in this database by a connection of its own, as the role of the user mapping and not'
                  ' as the one that asks.', l.identity, l.target), NULL)
  FROM loops l WHERE tables IS NULL OR l.oid = ANY (tables) OR l.relation = ANY (tables)
 UNION ALL
SELECT tenancy_internal.defect('foreign_table_granted', 'pg_class'::regclass, f.oid,
           format('Foreign table %s has the tenant column %s, no row security, and %s may use it.',
                  f.identity, k.name, l.grantees),
           format('REVOKE ALL ON %s FROM %s', f.identity, l.grantees))
  FROM foreign_tables f
 CROSS JOIN LATERAL (
    SELECT string_agg(DISTINCT r.name, ', ')
      FROM (SELECT f.relacl AS acl WHERE f.relacl IS NOT NULL
             UNION ALL
            SELECT a.attacl FROM pg_attribute a WHERE a.attrelid = f.oid AND a.attacl IS NOT NULL) AS s,
           aclexplode(s.acl) x JOIN grantees r ON r.oid = x.grantee
     WHERE x.grantee <> f.relowner
 ) AS l(grantees)
 CROSS JOIN LATERAL (
    SELECT min(quote_ident(a.attname))
      FROM pg_attribute a JOIN tenancy_internal.guarded_tables(NULL) g ON g.tenant_column = a.attname
     WHERE a.attrelid = f.oid AND a.attnum > 0 AND NOT a.attisdropped
 ) AS k(name)
 WHERE (tables IS NULL OR f.oid = ANY (tables)) AND l.grantees IS NOT NULL AND k.name IS NOT NULL
   AND NOT EXISTS (SELECT FROM loops o WHERE o.oid = f.oid)
 UNION ALL
SELECT tenancy_internal.defect('large_objects_shared', 'pg_database'::regclass, d.oid,
           format('Large objects have no tenant, and %s may read them: each tenant of the application reaches those of all others.',
                  l.grantees), NULL)
  FROM pg_database d
 CROSS JOIN LATERAL (
    SELECT string_agg(g.name, ', ' ORDER BY g.name)
      FROM grantees g
     WHERE EXISTS (SELECT FROM pg_largeobject_metadata m WHERE m.lomowner = g.oid)
        OR g.oid IN (SELECT x.grantee FROM pg_largeobject_metadata m, aclexplode(m.lomacl) x)
 ) AS l(grantees)
 WHERE d.datname = current_database() AND tables IS NULL AND l.grantees IS NOT NULL
$$;

-- In plpgsql for the catalog of published schemas and the row filters, which are new in 15.
CREATE FUNCTION tenancy_internal.find_publications(tables oid[], sample integer, deep boolean)
RETURNS SETOF tenancy_internal.finding
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_publication) THEN
        RETURN;
    END IF;
    RETURN QUERY
    SELECT (f.d).* FROM (
        SELECT tenancy_internal.defect('published_without_filter', 'pg_publication_rel'::regclass, r.oid,
                   format('Publication %I sends the rows of all tenants of %s.', b.pubname, g.identity),
                   format('ALTER PUBLICATION %I DROP TABLE %s%s', b.pubname,
                          CASE WHEN c.relkind = 'p' OR NOT c.relhassubclass THEN '' ELSE 'ONLY ' END, g.identity))
          FROM (SELECT NULL::pg_node_tree AS prqual) AS absent,    -- what the name means before 15
               pg_publication_rel r
          JOIN pg_publication b ON b.oid = r.prpubid
          JOIN tenancy_internal.guarded_tables(tables) g ON g.relation = r.prrelid
          JOIN pg_class c ON c.oid = g.relation
         WHERE g.access <> 'reference' AND NOT b.puballtables
           AND COALESCE((SELECT pg_get_expr(prqual, s.prrelid) FROM pg_publication_rel s WHERE s.oid = r.oid), '')
               !~ ('(^|[^[:alnum:]_])' || regexp_replace(quote_ident(g.tenant_column), '([^[:alnum:]_])', '\\\1', 'g')
                   || '([^[:alnum:]_]|$)')
         UNION ALL
        SELECT tenancy_internal.defect('published_without_filter', 'pg_publication'::regclass, b.oid,
                   format('Publication %I sends the rows of all tenants of all tables.', b.pubname), NULL)
          FROM pg_publication b
         WHERE b.puballtables
           AND EXISTS (SELECT FROM tenancy_internal.guarded_tables(tables) g WHERE g.access <> 'reference')) AS f(d);
    IF current_setting('server_version_num')::int >= 150000 THEN
        RETURN QUERY
        SELECT (tenancy_internal.defect('published_without_filter', 'pg_publication_namespace'::regclass, s.oid,
                   format('Publication %I sends the rows of all tenants of all tables in schema %I.', b.pubname, n.nspname),
                   format('ALTER PUBLICATION %I DROP TABLES IN SCHEMA %I', b.pubname, n.nspname))).*
          FROM pg_publication_namespace s
          JOIN pg_publication b ON b.oid = s.pnpubid
          JOIN pg_namespace n ON n.oid = s.pnnspid
         WHERE EXISTS (SELECT FROM tenancy_internal.guarded_tables(tables) g
                        WHERE g.access <> 'reference' AND g.schema = n.nspname);
    END IF;
END $$;

-- The functions of users that name protected tables: by dependency, and by the words of their text, for PL/pgSQL and the like
-- keep no dependencies. A name counts behind its own schema, where SQL expects a table, and as a literal of its own.
CREATE FUNCTION tenancy_internal.functions_on_tables(functions oid[], tables oid[])
RETURNS TABLE (function oid, sources text, schemas text[])
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
WITH guarded AS MATERIALIZED (
    SELECT g.relation, g.name::text AS name, g.schema, g.identity, g.name ~ '[^[:alnum:]_]' AS is_odd
      FROM tenancy_internal.guarded_tables(tables) g WHERE g.access <> 'reference'
), texts AS MATERIALIZED (
    SELECT p.oid, tenancy_internal.without_comments(p.prosrc) AS body
      FROM pg_proc p WHERE p.oid = ANY (functions)
), words AS MATERIALIZED (
    SELECT DISTINCT t.oid, w.word FROM texts t, regexp_split_to_table(lower(t.body), '[^[:alnum:]_]+') AS w(word)
), named AS (
    SELECT w.oid, g.relation
      FROM words w JOIN guarded g ON lower(g.name) = w.word JOIN texts t ON t.oid = w.oid
     WHERE NOT g.is_odd
       AND (t.body ~* ('(^|[^[:alnum:]_])((from|join|into|update|table|only|using|copy)[[:space:]]+|,[[:space:]]*)"?' || g.name
                       || '"?([^[:alnum:]_."]|$)')
            OR t.body ~* ('''' || g.name || '''')
            OR t.body ~* ('(^|[^[:alnum:]_])"?' || regexp_replace(g.schema, '([^[:alnum:]_])', '\\\1', 'g')
                          || '"?[[:space:]]*\.[[:space:]]*"?' || g.name || '"?([^[:alnum:]_]|$)'))
     UNION
    SELECT t.oid, g.relation FROM texts t JOIN guarded g ON g.is_odd AND strpos(lower(t.body), lower(quote_ident(g.name))) > 0
     UNION
    SELECT d.objid, g.relation
      FROM pg_depend d JOIN guarded g ON g.relation = d.refobjid
     WHERE d.classid = 'pg_proc'::regclass AND d.objid = ANY (functions) AND d.refclassid = 'pg_class'::regclass
)
SELECT n.oid, string_agg(g.identity, ', ' ORDER BY g.identity), array_agg(DISTINCT quote_ident(g.schema) ORDER BY quote_ident(g.schema))
  FROM named n JOIN guarded g ON g.relation = n.relation GROUP BY n.oid
$$;

CREATE FUNCTION tenancy_internal.find_functions(tables oid[], sample integer, deep boolean)
RETURNS SETOF tenancy_internal.finding
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
WITH functions AS MATERIALIZED (
    SELECT p.oid, p.oid::regprocedure::text AS identity, p.prosecdef, p.proconfig, r.rolname AS owner_name, p.proowner,
           quote_ident(n.nspname) AS schema, l.lanname, l.lanpltrusted,
           CASE WHEN r.rolsuper THEN 'is a superuser' WHEN r.rolbypassrls THEN 'has BYPASSRLS' END AS danger,
           p.prorettype IN ('trigger'::regtype, 'event_trigger'::regtype) AS is_trigger,
           (to_jsonb(p) ->> 'prosqlbody') IS NOT NULL AS is_bound,    -- its names were looked up when it was made (14)
           COALESCE(p.proacl, acldefault('f', p.proowner)) AS acl
      FROM pg_proc p
      JOIN pg_language l ON l.oid = p.prolang
      JOIN pg_namespace n ON n.oid = p.pronamespace
      JOIN pg_authid r ON r.oid = p.proowner
     WHERE p.oid >= 16384 AND (p.prosecdef OR NOT l.lanpltrusted)
       AND NOT EXISTS (SELECT FROM pg_depend d
                        WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
), definers AS MATERIALIZED (
    SELECT f.*, u.sources, u.schemas
      FROM functions f
      LEFT JOIN tenancy_internal.functions_on_tables(ARRAY(SELECT oid FROM functions WHERE prosecdef), tables) u
        ON u.function = f.oid
     WHERE f.prosecdef
)
SELECT tenancy_internal.defect('function_past_row_security', 'pg_proc'::regclass, d.oid,
           format('Function %s names %s and runs as its owner %I, which %s: it reaches the rows of all tenants.',
                  d.identity, d.sources, d.owner_name, d.danger),
           format('ALTER ROUTINE %s SECURITY INVOKER', d.identity))
  FROM definers d WHERE d.danger IS NOT NULL AND d.sources IS NOT NULL
 UNION ALL
SELECT tenancy_internal.defect('definer_search_path', 'pg_proc'::regclass, d.oid,
           format('Function %s runs as its owner %I and finds its tables and operators by the search_path of who calls it.',
                  d.identity, d.owner_name),
           format('ALTER ROUTINE %s SET search_path = pg_catalog, %s, pg_temp', d.identity,
                  (SELECT string_agg(DISTINCT s, ', ') FROM unnest(d.schema || d.schemas) AS s)))
  FROM definers d
 WHERE (tables IS NULL OR d.sources IS NOT NULL) AND d.lanname NOT IN ('c', 'internal') AND NOT d.is_bound
   AND NOT EXISTS (SELECT FROM unnest(d.proconfig) AS s WHERE s LIKE 'search\_path=%')
   AND (d.danger IS NULL OR d.sources IS NULL)
 UNION ALL
SELECT tenancy_internal.defect('definer_public', 'pg_proc'::regclass, d.oid,
           format('Function %s names %s, runs as its owner %I, and everybody may call it.', d.identity, d.sources, d.owner_name),
           format('REVOKE EXECUTE ON ROUTINE %s FROM PUBLIC', d.identity))
  FROM definers d
 WHERE d.danger IS NULL AND d.sources IS NOT NULL AND NOT d.is_trigger
   AND EXISTS (SELECT FROM aclexplode(d.acl) x WHERE x.grantee = 0)
 UNION ALL
SELECT tenancy_internal.defect('function_untrusted', 'pg_proc'::regclass, f.oid,
           format('Function %s is of the untrusted language %s, which can do all that the server can, and %s may call it.',
                  f.identity, f.lanname, g.grantees),
           format('REVOKE EXECUTE ON ROUTINE %s FROM %s', f.identity, g.grantees))
  FROM functions f
 CROSS JOIN LATERAL (
    SELECT string_agg(DISTINCT CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END, ', ')
      FROM aclexplode(f.acl) x
     WHERE x.grantee <> f.proowner AND x.grantee IN (SELECT tenancy_internal.application_grantees())
 ) AS g(grantees)
 WHERE tables IS NULL AND NOT f.lanpltrusted AND NOT f.is_trigger AND g.grantees IS NOT NULL
$$;

-- Triggers of protected tables, and of views that read them. What their functions write is told by the words of their text.
CREATE FUNCTION tenancy_internal.find_triggers(tables oid[], sample integer, deep boolean)
RETURNS SETOF tenancy_internal.finding
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
WITH targets(relation, identity) AS (
    SELECT g.relation, g.identity FROM tenancy_internal.guarded_tables(tables) g
     UNION
    SELECT r.reader, format('%I.%I', n.nspname, c.relname)
      FROM tenancy_internal.protected_readers(tables) r
      JOIN pg_class c ON c.oid = r.reader JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'v'
       AND EXISTS (SELECT FROM pg_class v WHERE v.relkind = 'v' AND v.relhastriggers)    -- mostly none, and then not asked
), triggers AS MATERIALIZED (
    SELECT t.oid, t.tgname, t.tgfoid, g.identity, p.prosecdef, p.prosrc, r.rolname AS owner_name,
           CASE WHEN r.rolsuper THEN 'is a superuser' WHEN r.rolbypassrls THEN 'has BYPASSRLS' END AS danger,
           pn.nspname AS function_schema
      FROM targets g
      JOIN pg_trigger t ON t.tgrelid = g.relation AND NOT t.tgisinternal AND t.tgenabled <> 'D'
      JOIN pg_proc p ON p.oid = t.tgfoid
      JOIN pg_namespace pn ON pn.oid = p.pronamespace
      JOIN pg_authid r ON r.oid = p.proowner
     WHERE (to_jsonb(t) ->> 'tgparentid')::oid IS NOT DISTINCT FROM 0::oid
       AND NOT EXISTS (SELECT FROM pg_depend d
                        WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
), reported AS MATERIALIZED (
    SELECT u.function
      FROM tenancy_internal.functions_on_tables(
               ARRAY(SELECT tgfoid FROM triggers WHERE prosecdef AND danger IS NOT NULL), NULL) u
), written AS MATERIALIZED (
    SELECT DISTINCT f.tgfoid, w.part[2] IS NOT NULL AS is_qualified,
           CASE WHEN w.part[2] LIKE '"%' THEN replace(btrim(w.part[2], '"'), '""', '"') ELSE lower(w.part[2]) END AS schema,
           CASE WHEN w.part[3] LIKE '"%' THEN replace(btrim(w.part[3], '"'), '""', '"') ELSE lower(w.part[3]) END AS name
      FROM (SELECT DISTINCT tgfoid, tenancy_internal.without_comments(prosrc) AS body FROM triggers) AS f,
           regexp_matches(f.body, '(?:^|[^[:alnum:]_])(insert\s+into|update|delete\s+from|merge\s+into|copy)\s+(?:only\s+)?'
                                    '(?:("(?:[^"]|"")+"|[[:alnum:]_]+)\s*\.\s*)?("(?:[^"]|"")+"|[[:alnum:]_]+)', 'gi') AS w(part)
), elsewhere AS (
    SELECT w.tgfoid, string_agg(DISTINCT format('%I.%I', n.nspname, c.relname), ', ') AS tables
      FROM written w
      JOIN pg_class c ON c.relname = w.name AND c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
      JOIN pg_namespace n ON n.oid = c.relnamespace AND (NOT w.is_qualified OR n.nspname = w.schema)
     WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'tenancy', 'tenancy_internal')
     GROUP BY w.tgfoid, w.name, w.schema
       -- Of several tables of that name one may be the protected one.
    HAVING bool_and(NOT EXISTS (SELECT FROM tenancy_internal.protected_tables p WHERE p.relation = c.oid))
)
SELECT tenancy_internal.defect('trigger_past_row_security', 'pg_trigger'::regclass, t.oid,
           format('Trigger %I of %s acts as the owner of its function %s, %I, which %s: what it does is not held to the tenant.',
                  t.tgname, t.identity, t.tgfoid::regprocedure, t.owner_name, t.danger),
           format('ALTER FUNCTION %s SECURITY INVOKER', t.tgfoid::regprocedure))
  FROM triggers t
 WHERE t.prosecdef AND t.danger IS NOT NULL AND t.tgfoid NOT IN (SELECT function FROM reported)
 UNION ALL
SELECT tenancy_internal.defect('trigger_writes_elsewhere', 'pg_trigger'::regclass, t.oid,
           format('Trigger %I of %s writes to %s, which is not protected: rows of all tenants may come together there.',
                  t.tgname, t.identity, e.tables), NULL)
  FROM triggers t
  JOIN (SELECT tgfoid, string_agg(tables, ', ' ORDER BY tables) AS tables FROM elsewhere GROUP BY tgfoid) AS e USING (tgfoid)
 WHERE NOT (t.prosecdef AND t.danger IS NOT NULL)
$$;

INSERT INTO tenancy_internal.rights (grantee, privileges, kind, objects) VALUES
    ('administrator', 'EXECUTE', 'ROUTINE', '{tenancy_internal.find_readers, tenancy_internal.find_parents,
        tenancy_internal.find_outlets, tenancy_internal.find_publications, tenancy_internal.find_functions,
        tenancy_internal.find_triggers}');

COMMENT ON FUNCTION tenancy_internal.protected_readers(oid[]) IS 'the views and rules that reach protected tables, and which';
COMMENT ON FUNCTION tenancy_internal.find_readers(oid[], integer, boolean) IS 'views, materialized views and rules past row security';
COMMENT ON FUNCTION tenancy_internal.find_parents(oid[], integer, boolean) IS 'parents and partitions by which protected rows are reached';
COMMENT ON FUNCTION tenancy_internal.find_outlets(oid[], integer, boolean) IS 'foreign tables and large objects that all tenants share';
COMMENT ON FUNCTION tenancy_internal.find_publications(oid[], integer, boolean) IS 'publications that send the rows of all tenants';
COMMENT ON FUNCTION tenancy_internal.functions_on_tables(oid[], oid[]) IS 'which of some functions name protected tables, and which';
COMMENT ON FUNCTION tenancy_internal.find_functions(oid[], integer, boolean) IS 'functions past row security, or that others may bend';
COMMENT ON FUNCTION tenancy_internal.find_triggers(oid[], integer, boolean) IS 'triggers of protected tables that reach beyond the tenant';
