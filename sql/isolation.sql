-- room isolation · Rust src/isolation · tests pgrx-tests/{tests,regress,isolation}

CREATE TABLE tenancy_internal.protected_tables (
    relation      regclass    PRIMARY KEY,     -- follows renames, survives pg_dump and pg_upgrade
    root          regclass    NOT NULL,        -- the table that was protected: itself, or the parent of a partition or child
    tenant_column name,                        -- NULL, with the key, for access 'reference'
    tenant_key    text        CHECK (tenant_key IN ('id', 'number', 'code')),
    access        text        NOT NULL CHECK (access IN ('tenant', 'shared', 'reference')),
    reference     text        NOT NULL CHECK (reference IN ('policy', 'foreign_key')),
    undo          jsonb       NOT NULL,        -- what unprotect_table puts back (isolation::undo::Undo)
    protected_at  timestamptz NOT NULL DEFAULT pg_catalog.now(),
    protected_by  name        NOT NULL DEFAULT session_user,
    foreign_keys  text        NOT NULL DEFAULT 'composite' CHECK (foreign_keys IN ('composite', 'keep')),
    open_policy   boolean     NOT NULL DEFAULT true
);
CREATE INDEX protected_tables_root_idx ON tenancy_internal.protected_tables (root);
CREATE INDEX protected_tables_tenant_column_idx ON tenancy_internal.protected_tables (tenant_column);
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.protected_tables', '');

-- Schemas whose new tables are protected as they come. By name, for pg_upgrade keeps no oid of a schema; the guard
-- follows ALTER SCHEMA ... RENAME.
CREATE TABLE tenancy_internal.protected_schemas (
    schema        name        NOT NULL,
    tenant_column name        NOT NULL,
    access        text        NOT NULL CHECK (access IN ('tenant', 'shared', 'reference')),
    protected_at  timestamptz NOT NULL DEFAULT pg_catalog.now(),
    protected_by  name        NOT NULL DEFAULT session_user,
    PRIMARY KEY (schema, tenant_column)
);
CREATE INDEX protected_schemas_tenant_column_idx ON tenancy_internal.protected_schemas (tenant_column);
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.protected_schemas', '');

-- The views that tenancy.tenant_view made: the only way for bound roles to read these materialized views.
CREATE TABLE tenancy_internal.tenant_views (
    view          regclass    PRIMARY KEY,
    matview       regclass    NOT NULL
);
CREATE INDEX tenant_views_matview_idx ON tenancy_internal.tenant_views (matview);
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.tenant_views', '');

-- Each backend remembers which relations are protected (pg::protected); ALWAYS, so that replication and restore reach it.
CREATE TRIGGER announce_change AFTER INSERT OR UPDATE OR DELETE ON tenancy_internal.protected_tables
    FOR EACH ROW EXECUTE FUNCTION tenancy_internal.announce_change();
CREATE TRIGGER announce_truncate AFTER TRUNCATE ON tenancy_internal.protected_tables
    FOR EACH STATEMENT EXECUTE FUNCTION tenancy_internal.announce_change();
ALTER TABLE tenancy_internal.protected_tables ENABLE ALWAYS TRIGGER announce_change;
ALTER TABLE tenancy_internal.protected_tables ENABLE ALWAYS TRIGGER announce_truncate;

-- What src/model/table.rs holds of a relation. PL/pgSQL, with that setting, plans it once in a session.
CREATE FUNCTION tenancy_internal.describe_table(target oid, asking oid) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
RETURN (
WITH RECURSIVE base_types(column_type, base, is_domain) AS (
    SELECT DISTINCT a.atttypid, a.atttypid, t.typtype = 'd'
      FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
     WHERE a.attrelid = target AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT b.column_type, d.typbasetype, t.typtype = 'd'
      FROM base_types b JOIN pg_type d ON d.oid = b.base JOIN pg_type t ON t.oid = d.typbasetype
     WHERE b.is_domain
)
SELECT jsonb_build_object(
    'oid', c.oid::bigint,
    'name', jsonb_build_object('schema', n.nspname, 'name', c.relname),
    'kind', c.relkind,
    'is_temporary', c.relpersistence = 't',
    'is_system', n.nspname IN ('pg_catalog', 'information_schema', 'pg_toast')
        OR EXISTS (SELECT FROM pg_depend d
                    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'),
    'is_partition', c.relispartition,
    'parents', COALESCE((
        SELECT jsonb_agg(jsonb_build_object('schema', pn.nspname, 'name', p.relname) ORDER BY i.inhseqno)
          FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent JOIN pg_namespace pn ON pn.oid = p.relnamespace
         WHERE i.inhrelid = c.oid), '[]'),
    'is_owned', pg_has_role(asking, c.relowner, 'USAGE'),
    'row_security', c.relrowsecurity,
    'forced', c.relforcerowsecurity,
    'columns', COALESCE((
        SELECT jsonb_agg(jsonb_build_object(
                   'name', a.attname,
                   'type_name', t.typname,
                   'shown_type', format_type(a.atttypid, a.atttypmod),
                   'is_domain', b.base <> a.atttypid,
                   'not_null', a.attnotnull,
                   'default', CASE WHEN a.attgenerated = '' THEN pg_get_expr(d.adbin, d.adrelid) END,
                   'has_loose_collation', COALESCE(NOT co.collisdeterministic, false)
               ) ORDER BY a.attnum)
          FROM pg_attribute a
          JOIN base_types b ON b.column_type = a.atttypid AND NOT b.is_domain
          JOIN pg_type t ON t.oid = b.base
          LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
          LEFT JOIN pg_collation co ON co.oid = a.attcollation
         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '[]'),
    'policies', COALESCE((
        SELECT jsonb_agg(jsonb_build_object(
                   'name', p.polname,
                   'is_permissive', p.polpermissive
               ) ORDER BY p.polname)
          FROM pg_policy p WHERE p.polrelid = c.oid), '[]'),
    'triggers', COALESCE((
        SELECT jsonb_agg(jsonb_build_object(
                   'name', g.tgname,
                   'is_guard', g.tgenabled IN ('A', 'O') AND g.tgfoid = 'tenancy_internal.refuse_truncate()'::regprocedure
                               AND g.tgtype & 35 = 34 AND g.tgqual IS NULL    -- BEFORE TRUNCATE, by statement, always
               ) ORDER BY g.tgname)
          FROM pg_trigger g WHERE g.tgrelid = c.oid AND NOT g.tgisinternal), '[]'),
    'indexes', COALESCE((
        SELECT jsonb_agg(jsonb_build_object(
                   'name', ic.relname,
                   'columns', (SELECT jsonb_agg(a.attname ORDER BY k.position)
                                 FROM unnest(x.indkey::int2[]) WITH ORDINALITY AS k(attnum, position)
                                 LEFT JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.attnum AND k.attnum > 0
                                WHERE k.position <= x.indnkeyatts),
                   'is_unique', x.indisunique,
                   'is_attached', ic.relispartition,
                   'definition', pg_get_indexdef(ic.oid),
                   'is_reliable', x.indisvalid AND x.indislive AND x.indimmediate AND x.indpred IS NULL
               ) ORDER BY ic.relname)
          FROM pg_index x JOIN pg_class ic ON ic.oid = x.indexrelid WHERE x.indrelid = c.oid), '[]'),
    'foreign_keys', COALESCE((
        SELECT jsonb_agg(jsonb_build_object(
                   'name', k.conname,
                   'columns', tenancy_internal.column_names(k.conrelid, k.conkey),
                   'parent', k.confrelid::bigint,
                   'parent_name', (SELECT jsonb_build_object('schema', pn.nspname, 'name', p.relname)
                                     FROM pg_class p JOIN pg_namespace pn ON pn.oid = p.relnamespace WHERE p.oid = k.confrelid),
                   'parent_columns', tenancy_internal.column_names(k.confrelid, k.confkey),
                   'nullable_parent_columns', tenancy_internal.column_names(k.confrelid, ARRAY(
                        SELECT a.attnum FROM pg_attribute a
                         WHERE a.attrelid = k.confrelid AND a.attnum = ANY (k.confkey) AND NOT a.attnotnull)),
                   'on_update', k.confupdtype,
                   'on_delete', k.confdeltype,
                   'on_delete_columns', tenancy_internal.column_names(k.conrelid,    -- the catalog's column is new in 15
                        ARRAY(SELECT (jsonb_array_elements_text(NULLIF(to_jsonb(k) -> 'confdelsetcols', 'null')))::int2)),
                   'match_type', k.confmatchtype,
                   'is_deferrable', k.condeferrable,
                   'is_deferred', k.condeferred,
                   'is_validated', k.convalidated,
                   'is_enforced', COALESCE((to_jsonb(k) ->> 'conenforced')::boolean, true),    -- new in 18
                   'is_temporal', COALESCE((to_jsonb(k) ->> 'conperiod')::boolean, false)    -- new in 18
               ) ORDER BY k.conname)
          FROM pg_constraint k
         WHERE k.conrelid = c.oid AND k.contype = 'f' AND k.conparentid = 0), '[]')
)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid = target
);
END $$;

-- What src/isolation/keys.rs holds of a unique key and of the partitions' keys that are parts of it, parents first.
-- pg_get_indexdef and pg_get_constraintdef begin and end as they must, or the lists are NULL and nothing is done.
CREATE FUNCTION tenancy_internal.describe_key(target oid, key_name text, tenant_column text) RETURNS SETOF jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off AS $$
WITH RECURSIVE tree(index, depth) AS (
    SELECT x.indexrelid, 0
      FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
     WHERE x.indrelid = target AND i.relname = key_name AND (x.indisunique OR x.indisexclusion)
    UNION ALL
    SELECT h.inhrelid, t.depth + 1 FROM tree t JOIN pg_inherits h ON h.inhparent = t.index
), indexes AS (
    SELECT x.*, i.relname AS name, i.relispartition AS is_part, m.amname AS method, s.spcname AS tablespace, i.relam,
           pg_get_expr(x.indpred, x.indrelid) AS predicate,
           pg_get_indexdef(x.indexrelid) AS definition,
           format('CREATE %sINDEX %I ON %s%I.%I USING %I (', CASE WHEN x.indisunique THEN 'UNIQUE ' END, i.relname,
                  CASE WHEN i.relkind = 'I' THEN 'ONLY ' END, n.nspname, c.relname, m.amname) AS beginning,
           (SELECT ' WITH (' || string_agg(format('%I=%L', split_part(o, '=', 1), substr(o, strpos(o, '=') + 1)), ', ') || ')'
              FROM unnest(i.reloptions) AS o) AS options,
           n.nspname AS schema, c.relname AS relation
      FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am m ON m.oid = i.relam
      JOIN pg_class c ON c.oid = x.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_tablespace s ON s.oid = i.reltablespace
     WHERE x.indrelid IN (SELECT o.indrelid FROM tree t JOIN pg_index o ON o.indexrelid = t.index)
), bare_indexes AS (
    SELECT i.*, tenancy_internal.between_texts(i.definition, i.beginning, COALESCE(' WHERE ' || i.predicate, '')) AS list
      FROM indexes i
), constraints AS (
    SELECT k.oid, k.conindid, k.contype, k.condeferrable, k.condeferred, k.conexclop, pg_get_constraintdef(k.oid) AS definition,
           concat(CASE WHEN i.predicate IS NOT NULL THEN format(' WHERE (%s)', i.predicate) END,
                  CASE WHEN k.condeferrable THEN ' DEFERRABLE' END,
                  CASE WHEN k.condeferred THEN ' INITIALLY DEFERRED' END) AS ending,
           CASE k.contype WHEN 'p' THEN 'PRIMARY KEY' WHEN 'x' THEN format('EXCLUDE USING %I', i.method)
                ELSE CASE WHEN (to_jsonb(i) ->> 'indnullsnotdistinct')::boolean    -- new in 15
                          THEN 'UNIQUE NULLS NOT DISTINCT' ELSE 'UNIQUE' END END AS opening
      FROM pg_constraint k JOIN indexes i ON i.indexrelid = k.conindid AND i.indrelid = k.conrelid
     WHERE k.contype IN ('p', 'u', 'x')
)
SELECT jsonb_build_object(
    'name', i.name,
    'relation', i.indrelid::bigint,
    'table', jsonb_build_object('schema', i.schema, 'name', i.relation),
    'kind', COALESCE(k.contype, 'i'),
    'part_of', CASE WHEN t.depth = 0 AND i.is_part THEN (
        SELECT jsonb_build_object('schema', pn.nspname, 'name', pc.relname)
          FROM pg_inherits h JOIN pg_index px ON px.indexrelid = h.inhparent JOIN pg_class pc ON pc.oid = px.indrelid
          JOIN pg_namespace pn ON pn.oid = pc.relnamespace
         WHERE h.inhrelid = i.indexrelid) END,
    'equal', COALESCE((
        SELECT jsonb_agg(a.attname ORDER BY v.position)
          FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS v(attnum, position)
          JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = v.attnum AND v.attnum > 0
          LEFT JOIN pg_operator o ON o.oid = k.conexclop[v.position]
         WHERE v.position <= i.indnkeyatts AND COALESCE(o.oprname, '=') = '='), '[]'),
    'opening', COALESCE(k.opening, format('USING %I', i.method)),
    'list', CASE WHEN k.oid IS NULL THEN i.list
                 ELSE tenancy_internal.between_texts(k.definition, k.opening || ' (', k.ending)
                      || CASE WHEN k.contype = 'x' THEN '' ELSE COALESCE(i.options, '') END END,
    'index_list', i.list,
    'tablespace', i.tablespace,
    'predicate', i.predicate,
    'is_deferrable', COALESCE(k.condeferrable, false),
    'is_deferred', COALESCE(k.condeferred, false),
    'is_replica_identity', i.indisreplident,
    'is_clustered', i.indisclustered,
    'comment', obj_description(k.oid, 'pg_constraint'),
    'index_comment', obj_description(i.indexrelid, 'pg_class'),
    'access_method', i.method,
    'has_operator_class', i.method = 'btree' OR EXISTS (
        SELECT FROM pg_attribute a JOIN pg_opclass c ON c.opcmethod = i.relam AND c.opcdefault
         WHERE a.attrelid = i.indrelid AND a.attname = tenant_column
           AND c.opcintype = tenancy_internal.compared_type(a.atttypid)),
    'takes_columns', pg_indexam_has_property(i.relam, 'can_multi_col'),
    'dependents', COALESCE((
        SELECT jsonb_agg(d.what ORDER BY d.what) FROM (
            SELECT DISTINCT pg_describe_object(d.classid, d.objid, 0) AS what
              FROM pg_depend d
              LEFT JOIN pg_constraint f ON d.classid = 'pg_constraint'::regclass AND f.oid = d.objid
             WHERE d.deptype = 'n' AND f.contype IS DISTINCT FROM 'f'
               AND (d.refclassid = 'pg_constraint'::regclass AND d.refobjid = k.oid
                    OR d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indexrelid)
            UNION    -- a published list of columns must hold the replica identity, or updates fail (PostgreSQL 15)
            SELECT pg_describe_object('pg_publication'::regclass, r.prpubid, 0) || ' without column ' || a.attname
              FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid
              JOIN pg_attribute a ON a.attrelid = r.prrelid AND a.attname = tenant_column
             WHERE r.prrelid = i.indrelid AND (i.indisreplident OR i.indisprimary AND c.relreplident = 'd')
               AND a.attnum::text <> ALL (string_to_array(to_jsonb(r) ->> 'prattrs', ' '))) AS d), '[]'),
    'spare', COALESCE((
        SELECT jsonb_agg(jsonb_build_object('name', s.name, 'list', s.list, 'tablespace', s.tablespace,
                                            'predicate', s.predicate) ORDER BY s.name)
          FROM bare_indexes s
         WHERE s.indrelid = i.indrelid AND s.indexrelid <> i.indexrelid AND s.indisunique AND s.indisvalid
           AND s.indisready AND s.indislive AND s.indimmediate AND NOT s.is_part
           AND NOT EXISTS (SELECT FROM constraints o WHERE o.conindid = s.indexrelid)), '[]'),
    'references', COALESCE((
        SELECT jsonb_agg(jsonb_build_array(f.conrelid::bigint, f.conname) ORDER BY f.conrelid::regclass::text, f.conname)
          FROM pg_constraint f
         WHERE f.contype = 'f' AND f.conindid = i.indexrelid AND f.conparentid = 0), '[]')
)
  FROM tree t JOIN bare_indexes i ON i.indexrelid = t.index LEFT JOIN constraints k ON k.conindid = i.indexrelid
 ORDER BY t.depth, i.indrelid::regclass::text
$$;

-- What is left of a text without its beginning and ending; NULL where it has others.
CREATE FUNCTION tenancy_internal.between_texts(whole text, beginning text, ending text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT substr(left(whole, length(whole) - length(ending)), length(beginning) + 1)
     WHERE left(whole, length(beginning)) = beginning AND right(whole, NULLIF(length(ending), 0)) IS NOT DISTINCT FROM NULLIF(ending, '')
$$;

-- The type by which a column is compared: that under a domain, and text for varchar.
CREATE FUNCTION tenancy_internal.compared_type(declared oid) RETURNS oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
WITH RECURSIVE base(type) AS (
    SELECT declared
    UNION ALL
    SELECT t.typbasetype FROM base b JOIN pg_type t ON t.oid = b.type WHERE t.typtype = 'd'
)
SELECT CASE b.type WHEN 'varchar'::regtype THEN 'text'::regtype ELSE b.type END
  FROM base b JOIN pg_type t ON t.oid = b.type WHERE t.typtype <> 'd'
$$;

CREATE FUNCTION tenancy_internal.column_names(relation oid, numbers int2[]) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT COALESCE(jsonb_agg(a.attname ORDER BY k.position), '[]')
      FROM unnest(numbers) WITH ORDINALITY AS k(attnum, position)
      JOIN pg_attribute a ON a.attrelid = relation AND a.attnum = k.attnum
$$;

-- The relation, its partitions and its inheritance children, parents first.
CREATE FUNCTION tenancy_internal.table_family(target oid) RETURNS SETOF oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
WITH RECURSIVE family(relation, depth) AS (
    SELECT target, 0
    UNION ALL
    SELECT i.inhrelid, f.depth + 1 FROM family f JOIN pg_inherits i ON i.inhparent = f.relation
)
SELECT f.relation FROM family f GROUP BY f.relation ORDER BY pg_catalog.max(f.depth), f.relation::regclass::text
$$;

-- The tenant column by its present name: the policy knows it after a rename, the record does not.
CREATE FUNCTION tenancy_internal.tenant_column(relation oid, recorded name) RETURNS name
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT COALESCE((SELECT a.attname
                       FROM pg_policy y
                       JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = y.oid
                                       AND d.refclassid = 'pg_class'::regclass AND d.refobjid = y.polrelid
                       JOIN pg_attribute a ON a.attrelid = y.polrelid AND a.attnum = d.refobjsubid
                      WHERE y.polrelid = relation AND y.polname = 'tenancy_isolation' AND d.refobjsubid > 0
                      LIMIT 1),
                    recorded)
$$;

-- Tables with a tenant's rows that are not protected, as far as the catalog tells: they have a column that is the tenant
-- column of protected tables or schemas, or a foreign key to a protected table or to the tenants. Partitions and children
-- of protected tables are among them.
CREATE FUNCTION tenancy_internal.unclassified_tables() RETURNS TABLE (relation regclass, tenant_column name, reason text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
WITH known(name) AS (
    SELECT DISTINCT tenancy_internal.tenant_column(p.root, p.tenant_column)
      FROM tenancy_internal.protected_tables p WHERE p.tenant_column IS NOT NULL AND p.root = p.relation
     UNION
    SELECT s.tenant_column FROM tenancy_internal.protected_schemas s WHERE s.access <> 'reference'
), strangers AS (
    SELECT c.oid
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
       AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'tenancy', 'tenancy_internal')
       AND NOT EXISTS (SELECT FROM tenancy_internal.protected_tables p WHERE p.relation = c.oid)
       AND NOT EXISTS (SELECT FROM pg_depend d
                        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
), found AS (
    SELECT s.oid, a.attname AS tenant_column, format('it has the tenant column %I', a.attname) AS reason
      FROM strangers s JOIN pg_attribute a ON a.attrelid = s.oid AND a.attnum > 0 AND NOT a.attisdropped
      JOIN known k ON k.name = a.attname
     UNION ALL
    SELECT s.oid, NULL, format('its foreign key %I refers to %s', f.conname, f.confrelid::regclass)
      FROM strangers s JOIN pg_constraint f ON f.conrelid = s.oid AND f.contype = 'f'
     WHERE f.confrelid = 'tenancy.tenants'::regclass
        OR EXISTS (SELECT FROM tenancy_internal.protected_tables p WHERE p.relation = f.confrelid AND p.access <> 'reference')
)
SELECT DISTINCT ON (f.oid) f.oid::regclass, f.tenant_column, f.reason
  FROM found f ORDER BY f.oid, f.tenant_column NULLS LAST, f.reason
$$;

-- (true)::tenancy_internal.open_rows is true, costs nothing (the planner folds it) and goes with the extension: a policy
-- that says so is dropped by DROP EXTENSION ... CASCADE, which closes the table.
CREATE DOMAIN tenancy_internal.open_rows AS boolean;

-- Why a role must not be an application role; NULL when nothing speaks against it.
CREATE FUNCTION tenancy_internal.role_danger(grantee oid) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
WITH RECURSIVE reach(role, path) AS (
    SELECT r.oid, ARRAY[r.rolname::text] FROM pg_roles r WHERE r.oid = grantee
    UNION ALL
    SELECT m.roleid, reach.path || r.rolname::text
      FROM reach JOIN pg_auth_members m ON m.member = reach.role JOIN pg_roles r ON r.oid = m.roleid
     WHERE r.rolname <> ALL (reach.path)
), dangers(path, rank, danger) AS (
    SELECT reach.path, v.rank, v.danger
      FROM reach JOIN pg_roles r ON r.oid = reach.role
      CROSS JOIN LATERAL (VALUES
        (1, CASE WHEN r.rolsuper THEN 'is a superuser' END),
        (2, CASE WHEN r.rolbypassrls THEN 'has BYPASSRLS' END),
        (3, CASE WHEN r.rolcreaterole AND current_setting('server_version_num')::int < 160000
                 THEN 'has CREATEROLE and can grant itself any role' END),
        (4, CASE WHEN r.rolname IN ('pg_execute_server_program', 'pg_write_server_files', 'pg_read_server_files')
                 THEN 'reaches the server''s files, and with them every row' END),
        (5, CASE WHEN r.rolreplication THEN 'has REPLICATION and can stream every row' END),
        (6, (SELECT 'owns protected table ' || p.relation::text
               FROM tenancy_internal.protected_tables p JOIN pg_class c ON c.oid = p.relation
              WHERE c.relowner = r.oid ORDER BY c.relname LIMIT 1))
      ) AS v(rank, danger)
     WHERE v.danger IS NOT NULL
)
SELECT CASE WHEN cardinality(path) = 1 THEN format('Role "%s" %s.', path[1], danger)
            ELSE format('Role "%s" %s; the path there is %s.', path[cardinality(path)], danger, array_to_string(path, ' -> '))
       END
  FROM dangers ORDER BY cardinality(path), rank, path LIMIT 1
$$;

CREATE VIEW tenancy.protected_tables AS
SELECT p.relation,
       tenancy_internal.tenant_column(p.relation, p.tenant_column) AS tenant_column,
       p.tenant_key,
       p.access,
       p.reference,
       CASE WHEN p.root <> p.relation THEN p.root END AS part_of,
       tenancy_internal.is_enforced(p.relation, tenancy_internal.tenant_column(p.relation, p.tenant_column), p.access)
           AS is_enforced,
       p.protected_at,
       p.protected_by
  FROM tenancy_internal.protected_tables p
  JOIN pg_catalog.pg_class c ON c.oid = p.relation;

-- An application role sees its own tenant and nobody else's; CASE keeps the planner from asking for a tenant that an
-- administrator need not have.
ALTER TABLE tenancy.tenants ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenancy_isolation ON tenancy.tenants
    USING (CASE WHEN tenancy.is_admin() THEN true ELSE id = tenancy.current_tenant_id() END);

CREATE VIEW tenancy.protected_schemas AS
SELECT schema, tenant_column, access, protected_at, protected_by FROM tenancy_internal.protected_schemas;

-- What the command at hand made or changed, for the guard at ddl_command_end. In plpgsql, which keeps its plans.
CREATE FUNCTION tenancy_internal.touched_objects() RETURNS TABLE (kind text, object oid, name name, relation oid)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY
    SELECT DISTINCT f.kind, f.object, f.name, f.relation
      FROM pg_event_trigger_ddl_commands() d
     CROSS JOIN LATERAL (
        SELECT 'relation', c.oid, c.relname, c.oid FROM pg_class c
         WHERE d.classid = 'pg_class'::regclass AND c.oid = d.objid AND c.relkind IN ('r', 'p', 'f', 'v', 'm')
         UNION ALL
        SELECT 'relation', c.oid, c.relname, c.oid FROM pg_class c  -- the tables of a type that was altered
         WHERE d.classid = 'pg_class'::regclass AND d.object_type = 'type'
           AND c.reloftype = (SELECT t.oid FROM pg_type t WHERE t.typrelid = d.objid)
         UNION ALL
        SELECT 'policy', p.oid, p.polname, p.polrelid FROM pg_policy p
         WHERE d.classid = 'pg_policy'::regclass AND p.oid = d.objid
         UNION ALL
        SELECT 'trigger', g.oid, g.tgname, g.tgrelid FROM pg_trigger g
         WHERE d.classid = 'pg_trigger'::regclass AND g.oid = d.objid
         UNION ALL
        SELECT 'rule', w.oid, w.rulename, w.ev_class FROM pg_rewrite w
         WHERE d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid AND w.rulename <> '_RETURN'
         UNION ALL
        SELECT 'constraint', k.oid, k.conname, k.conrelid FROM pg_constraint k
         WHERE d.classid = 'pg_constraint'::regclass AND k.oid = d.objid AND k.conrelid <> 0
         UNION ALL
        SELECT 'function', f.oid, f.proname, 0::oid FROM pg_proc f
         WHERE d.classid = 'pg_proc'::regclass AND f.oid = d.objid
         UNION ALL
        SELECT 'publication', b.oid, b.pubname, 0::oid FROM pg_publication b
         WHERE d.classid = 'pg_publication'::regclass AND b.oid = d.objid
            OR d.classid = 'pg_publication_rel'::regclass
           AND b.oid = (SELECT r.prpubid FROM pg_publication_rel r WHERE r.oid = d.objid)
      ) AS f(kind, object, name, relation)
     WHERE NOT d.in_extension;
END $$;

-- What protection knows of the relations touched, of all above and below them, and of those on record as theirs.
CREATE FUNCTION tenancy_internal.touched_families(touched oid[]) RETURNS TABLE (
    relation oid, kind "char", parents oid[], root oid, is_exempt boolean, owner text, owner_danger text,
    schema_column name, schema_access text, known_column name
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN QUERY
    WITH RECURSIVE up(relation) AS (
        SELECT t FROM unnest(touched) t
         UNION
        SELECT p.relation::oid FROM tenancy_internal.protected_tables p WHERE p.root = ANY (touched::regclass[])
         UNION
        SELECT i.inhparent FROM up u JOIN pg_inherits i ON i.inhrelid = u.relation
    ), down(relation) AS (
        SELECT t FROM unnest(touched) t
         UNION
        SELECT i.inhrelid FROM down d JOIN pg_inherits i ON i.inhparent = d.relation
    )
    SELECT c.oid, c.relkind, ARRAY(SELECT i.inhparent FROM pg_inherits i WHERE i.inhrelid = c.oid), p.root::oid,
           c.relpersistence = 't' OR n.nspname IN ('pg_catalog', 'information_schema', 'pg_toast')
               OR EXISTS (SELECT FROM pg_depend d
                           WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'),
           r.rolname::text, tenancy_internal.owner_danger(c.relowner), s.tenant_column, s.access,
           (SELECT a.attname FROM pg_attribute a
             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
               AND (EXISTS (SELECT FROM tenancy_internal.protected_tables o WHERE o.tenant_column = a.attname)
                    OR EXISTS (SELECT FROM tenancy_internal.protected_schemas o WHERE o.tenant_column = a.attname))
             ORDER BY a.attnum LIMIT 1)
      FROM (SELECT u.relation FROM up u UNION SELECT d.relation FROM down d) k
      JOIN pg_class c ON c.oid = k.relation
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_authid r ON r.oid = c.relowner
      LEFT JOIN tenancy_internal.protected_tables p ON p.relation = c.oid
      LEFT JOIN LATERAL (SELECT s.tenant_column, s.access FROM tenancy_internal.protected_schemas s
                          WHERE s.schema = n.nspname
                            AND (s.access = 'reference'
                                 OR EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = s.tenant_column
                                                                         AND a.attnum > 0 AND NOT a.attisdropped))
                          ORDER BY s.access = 'reference', s.tenant_column LIMIT 1) AS s ON true;
END $$;

-- Why a role must not own a protected table; NULL when nothing speaks against it.
CREATE FUNCTION tenancy_internal.owner_danger(role oid) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN r.rolsuper THEN 'is a superuser'
                WHEN r.rolbypassrls THEN 'has BYPASSRLS'
                WHEN EXISTS (SELECT FROM pg_class c, aclexplode(c.relacl) a
                              WHERE c.oid = 'tenancy.tenants'::regclass AND a.grantee = role AND a.privilege_type = 'SELECT')
                     AND NOT has_function_privilege(role, 'tenancy.switch_tenant(text)', 'EXECUTE')
                THEN 'runs an application (tenancy.grant_usage)' END
      FROM pg_authid r WHERE r.oid = role
$$;

-- An expression as pg_get_expr shows it, with nothing in its string constants.
CREATE FUNCTION tenancy_internal.without_constants(expression text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT regexp_replace(expression, '''(?:[^'']|'''')*''', '''''', 'g')
$$;

-- A name as a word of a regular expression.
CREATE FUNCTION tenancy_internal.word_pattern(name text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT '(?<![[:alnum:]_])' || regexp_replace(name, '([^[:alnum:]_])', '\\\1', 'g') || '(?![[:alnum:]_])'
$$;

-- The users' own policies, with what they call and refer to, and what is worst in them: a check of integrity, which the guard
-- refuses or warns of. Nothing is evaluated: functions and columns are those that the parsed expressions name, settings those
-- that their text names.
CREATE FUNCTION tenancy_internal.own_policies(tables oid[]) RETURNS TABLE (
    policy oid, relation oid, name text, table_name text, is_permissive boolean, command "char", is_protected boolean,
    has_companion boolean, using_text text, check_text text, using_bare text, check_bare text, columns text[],
    tenant_column name, functions oid[], settings text[], is_any_settable boolean, is_or boolean, is_constant boolean,
    fault text
)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off AS $$
WITH y AS MATERIALIZED (
    SELECT y.oid, y.polrelid, y.polname, y.polpermissive, y.polcmd, c.relname, n.nspname, p.relation IS NOT NULL AS is_protected,
           p.tenant_column, y.polqual::text AS using_tree, y.polwithcheck::text AS check_tree,
           pg_get_expr(y.polqual, y.polrelid) AS using_text, pg_get_expr(y.polwithcheck, y.polrelid) AS check_text
      FROM pg_policy y
      JOIN pg_class c ON c.oid = y.polrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN tenancy_internal.protected_tables p ON p.relation = c.oid
     WHERE (tables IS NULL OR c.oid = ANY (tables))
       AND NOT (p.relation IS NOT NULL
                AND y.polname IN ('tenancy_isolation', 'tenancy_isolation_insert', 'tenancy_isolation_update',
                                  'tenancy_isolation_delete', 'tenancy_open', 'tenancy_closed'))
       AND y.polname <> 'tenancy_closed'
       AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'tenancy', 'tenancy_internal')
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
), called AS MATERIALIZED (
    SELECT y.oid, array_agg(DISTINCT m.found[1]::oid) FILTER (WHERE m.found[1] <> '0') AS functions
      FROM y CROSS JOIN LATERAL regexp_matches(concat_ws(' ', y.using_tree, y.check_tree),
                                               ':(?:funcid|opfuncid|aggfnoid|winfnoid) (\d+)', 'g') AS m(found)
     GROUP BY y.oid
), named AS MATERIALIZED (
    SELECT y.oid, array_agg(DISTINCT replace(m.found[1], '''''', '''')) FILTER (WHERE m.found[1] IS NOT NULL) AS settings,
           bool_or(m.found[1] IS NULL) AS is_computed
      FROM y CROSS JOIN LATERAL regexp_matches(concat_ws(' ', y.using_text, y.check_text),
                                               'current_setting\((?:''((?:[^'']|'''')*)''::text)?', 'g') AS m(found)
      JOIN called c ON c.oid = y.oid
     WHERE c.functions && ARRAY['current_setting(text)'::regprocedure, 'current_setting(text, boolean)'::regprocedure]::oid[]
     GROUP BY y.oid
), fixed AS MATERIALIZED (    -- settings that not everybody may change
    SELECT s.name FROM pg_settings s
     WHERE s.context <> 'user' OR s.name IN ('role', 'session_authorization', 'app.current_tenant_id') OR s.name LIKE 'tenancy.%'
), described(policy, relation, name, table_name, is_permissive, command, is_protected, has_companion, using_text, check_text,
            using_bare, check_bare, columns, tenant_column, functions, settings, is_any_settable, is_or, is_constant) AS MATERIALIZED (
    SELECT y.oid, y.polrelid, format('%I', y.polname), format('%I.%I', y.nspname, y.relname), y.polpermissive, y.polcmd,
           y.is_protected,
           EXISTS (SELECT FROM pg_policy o WHERE o.polrelid = y.polrelid AND o.polname = 'tenancy_open' AND y.is_protected),
           y.using_text, y.check_text,
           tenancy_internal.without_constants(y.using_text), tenancy_internal.without_constants(y.check_text),
           ARRAY(SELECT a.attname::text
                   FROM pg_depend d JOIN pg_attribute a ON a.attrelid = y.polrelid AND a.attnum = d.refobjsubid
                  WHERE d.classid = 'pg_policy'::regclass AND d.objid = y.oid AND d.refclassid = 'pg_class'::regclass
                    AND d.refobjid = y.polrelid AND d.refobjsubid > 0 ORDER BY a.attnum),
           CASE WHEN y.is_protected THEN tenancy_internal.tenant_column(y.polrelid, y.tenant_column) END,
           COALESCE(c.functions, '{}'), COALESCE(s.settings, '{}'),
           COALESCE(s.is_computed, false) OR EXISTS (SELECT FROM unnest(s.settings) u WHERE u NOT IN (SELECT f.name FROM fixed f)),
           concat_ws(' ', y.using_tree, y.check_tree) ~ '\{BOOLEXPR :boolop or ',
           EXISTS (SELECT FROM unnest(ARRAY[y.using_text, y.check_text], ARRAY[y.using_tree, y.check_tree]) AS e(shown, tree)
                    WHERE e.shown <> 'false' AND e.tree !~ '\{(VAR|FUNCEXPR|SUBLINK|SQLVALUEFUNCTION|PARAM|NULLIFEXPR|COERCEVIAIO|NEXTVALUEEXPR) ')
      FROM y LEFT JOIN called c ON c.oid = y.oid LEFT JOIN named s ON s.oid = y.oid
), arms AS MATERIALIZED (    -- the sides of an OR that name no column of the table: who meets one, sees every row
    SELECT d.policy, bool_or(a.arm ~ 'IS NULL|= ''''::text') AS is_met_by_default
      FROM described d CROSS JOIN LATERAL unnest(ARRAY[d.using_text, d.check_text]) AS e(shown)
     CROSS JOIN LATERAL regexp_split_to_table(e.shown, '\mOR\M') AS a(arm)
     WHERE d.is_or AND d.is_permissive AND d.is_any_settable AND a.arm ~ 'current_setting\('
       AND NOT EXISTS (SELECT FROM unnest(d.columns) c
                        WHERE tenancy_internal.without_constants(a.arm) ~ tenancy_internal.word_pattern(quote_ident(c)))
     GROUP BY d.policy
)
SELECT d.*,
       CASE WHEN NOT d.is_permissive THEN NULL    -- it can only narrow
            WHEN a.is_met_by_default THEN 'policy_opens_without_context'
            WHEN a.policy IS NOT NULL THEN 'policy_opened_by_setting'
            WHEN d.is_protected AND d.is_any_settable THEN 'policy_trusts_setting'
            WHEN d.is_protected AND d.is_or
                 AND (d.tenant_column::text = ANY (d.columns)
                      OR d.functions && ARRAY['tenancy.current_tenant_id()'::regprocedure, 'tenancy.current_tenant_number()'::regprocedure,
                                              'tenancy.current_tenant_code()'::regprocedure]::oid[])
            THEN 'policy_widens'
            WHEN d.has_companion THEN 'policy_without_effect'
            WHEN d.is_constant THEN 'policy_always_true' END
  FROM described d LEFT JOIN arms a USING (policy)
$$;

-- The protected tables that a view, materialized view or rule reads, also through views and materialized views.
CREATE FUNCTION tenancy_internal.protected_sources(reader oid) RETURNS SETOF oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
WITH RECURSIVE reads(relation) AS (
    SELECT reader
     UNION
    SELECT d.refobjid
      FROM reads s
      JOIN pg_class c ON c.oid = s.relation AND c.relkind IN ('v', 'm')
      JOIN pg_rewrite w ON w.ev_class = s.relation
      JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass
)
SELECT s.relation FROM reads s JOIN tenancy_internal.protected_tables p ON p.relation = s.relation
 WHERE p.access <> 'reference'
$$;

-- How a view or materialized view reads protected tables; no row when it reads none.
CREATE FUNCTION tenancy_internal.describe_reader(reader oid) RETURNS TABLE (
    schema name, name name, is_materialized boolean, is_invoker boolean, is_barrier boolean, is_tenant_view boolean,
    reads_materialized boolean, owner text, owner_danger text, sources text
)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT n.nspname, c.relname, c.relkind = 'm',
       COALESCE('security_invoker' = ANY (o.names), false), COALESCE('security_barrier' = ANY (o.names), false),
       EXISTS (SELECT FROM tenancy_internal.tenant_views v WHERE v.view = c.oid),
       EXISTS (SELECT FROM pg_rewrite w
                 JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
                                 AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> c.oid
                 JOIN pg_class m ON m.oid = d.refobjid AND m.relkind = 'm'
                WHERE w.ev_class = c.oid AND EXISTS (SELECT FROM tenancy_internal.protected_sources(m.oid))),
       r.rolname, CASE WHEN r.rolsuper THEN 'is a superuser' WHEN r.rolbypassrls THEN 'has BYPASSRLS' END,
       (SELECT string_agg(s::regclass::text, ', ' ORDER BY s::regclass::text) FROM tenancy_internal.protected_sources(c.oid) s)
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_authid r ON r.oid = c.relowner
 CROSS JOIN LATERAL (SELECT ARRAY(SELECT option_name FROM pg_options_to_table(c.reloptions)
                                   WHERE option_value::boolean)) AS o(names)
 WHERE c.oid = reader AND c.relkind IN ('v', 'm') AND EXISTS (SELECT FROM tenancy_internal.protected_sources(c.oid))
$$;

-- A function of ours, or one that reads protected tables with the rights of a role that row security does not bind. Its
-- text is searched for their names: PL/pgSQL and the like keep no dependencies.
CREATE FUNCTION tenancy_internal.describe_function(function oid) RETURNS TABLE (
    name text, is_ours boolean, owner text, owner_danger text, sources text
)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
WITH f AS (
    SELECT p.oid, p.oid::regprocedure::text AS name, r.rolname::text AS owner, p.prosrc, p.prosecdef,
           CASE WHEN r.rolsuper THEN 'is a superuser' WHEN r.rolbypassrls THEN 'has BYPASSRLS' END AS danger,
           EXISTS (SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
                    WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
                      AND d.refclassid = 'pg_extension'::regclass AND e.extname = 'pg_tenancy') AS is_ours
      FROM pg_proc p JOIN pg_authid r ON r.oid = p.proowner
     WHERE p.oid = function
), read AS (
    SELECT string_agg(t.relation::text, ', ' ORDER BY t.relation::text) AS sources
      FROM f, tenancy_internal.protected_tables t JOIN pg_class c ON c.oid = t.relation
     WHERE f.prosecdef AND f.danger IS NOT NULL AND NOT f.is_ours AND t.access <> 'reference'
       AND (strpos(lower(f.prosrc), lower(c.relname)) > 0
                AND (c.relname ~ '[^[:alnum:]_]' OR f.prosrc ~* ('[[:<:]]' || c.relname || '[[:>:]]'))
            OR EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = f.oid
                          AND d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid))
)
SELECT f.name, f.is_ours, f.owner, f.danger, read.sources FROM f, read WHERE f.is_ours OR read.sources IS NOT NULL
$$;

-- The protected tables that a publication sends; no row when there are none.
CREATE FUNCTION tenancy_internal.published_tables(publication name) RETURNS TABLE (sources text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT string_agg(p.relation::text, ', ' ORDER BY p.relation::text)
  FROM pg_publication_tables t
  JOIN pg_namespace n ON n.nspname = t.schemaname
  JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
  JOIN tenancy_internal.protected_tables p ON p.relation = c.oid
 WHERE t.pubname = publication AND p.access <> 'reference'
HAVING count(*) > 0
$$;

-- Takes what the command at hand dropped off the record, and names the protected relations that lost a part.
CREATE FUNCTION tenancy_internal.forget_dropped() RETURNS SETOF oid
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    gone regclass[];
BEGIN
    SELECT array_agg(d.objid::regclass) INTO gone FROM pg_event_trigger_dropped_objects() d
     WHERE d.classid = 'pg_class'::regclass AND d.objsubid = 0;
    IF gone IS NOT NULL THEN
        DELETE FROM tenancy_internal.protected_tables p WHERE p.relation = ANY (gone);
        DELETE FROM tenancy_internal.tenant_views v WHERE v.view = ANY (gone) OR v.matview = ANY (gone);
    END IF;
    DELETE FROM tenancy_internal.protected_schemas s
     USING pg_event_trigger_dropped_objects() d
     WHERE d.classid = 'pg_namespace'::regclass AND s.schema = d.object_name::name;
    RETURN QUERY
    SELECT DISTINCT c.oid
      FROM pg_event_trigger_dropped_objects() d
      JOIN pg_namespace n ON n.nspname = d.address_names[1]
      JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = d.address_names[2]
      JOIN tenancy_internal.protected_tables p ON p.relation = c.oid
     WHERE d.object_type IN ('policy', 'trigger', 'table column', 'default value', 'table constraint');
END $$;

-- ALWAYS: session_replication_role = replica must not switch them off.
CREATE EVENT TRIGGER tenancy_note_drops ON sql_drop EXECUTE FUNCTION tenancy_internal.note_drops();
ALTER EVENT TRIGGER tenancy_note_drops ENABLE ALWAYS;
CREATE EVENT TRIGGER tenancy_guard_ddl ON ddl_command_end EXECUTE FUNCTION tenancy_internal.guard_ddl();
ALTER EVENT TRIGGER tenancy_guard_ddl ENABLE ALWAYS;

-- DROP EXTENSION ... CASCADE takes the restrictive policies along and would leave a user's permissive ones in charge.
CREATE EVENT TRIGGER tenancy_close_before_drop ON ddl_command_start
    WHEN TAG IN ('DROP EXTENSION', 'DROP OWNED')
    EXECUTE FUNCTION tenancy_internal.close_before_drop();
ALTER EVENT TRIGGER tenancy_close_before_drop ENABLE ALWAYS;

-- Views call functions with the rights of whoever reads them; protect_table makes the guard against TRUNCATE with its caller's.
INSERT INTO tenancy_internal.rights (grantee, privileges, kind, objects) VALUES
    ('everybody', 'EXECUTE', 'ROUTINE', '{tenancy_internal.is_enforced, tenancy_internal.tenant_column}'),
    ('administrator', 'SELECT', 'TABLE', '{tenancy.protected_tables, tenancy.protected_schemas}'),
    ('administrator', 'EXECUTE', 'ROUTINE', '{tenancy.protect_table, tenancy.plan_protection, tenancy.unprotect_table,
        tenancy.protect_schema, tenancy.unprotect_schema, tenancy.scope_unique, tenancy.plan_scope_unique,
        tenancy.unscope_unique, tenancy.tenant_view, tenancy.grant_usage, tenancy.revoke_usage,
        tenancy_internal.refuse_truncate, tenancy_internal.role_danger, tenancy_internal.table_family}');

COMMENT ON EVENT TRIGGER tenancy_note_drops IS 'takes dropped tables off the record, and notes which protected ones lost a part';
COMMENT ON EVENT TRIGGER tenancy_guard_ddl IS 'keeps protected tables protected, and protects new ones (tenancy.ddl_guard)';
COMMENT ON EVENT TRIGGER tenancy_close_before_drop IS 'closes every protected table before the extension is dropped';
COMMENT ON TABLE tenancy_internal.protected_tables IS 'the protected tables, their partitions and children, and what unprotect_table puts back';
COMMENT ON TABLE tenancy_internal.protected_schemas IS 'schemas whose new tables are protected as they come';
COMMENT ON TABLE tenancy_internal.tenant_views IS 'the views that tenancy.tenant_view made, with their materialized views';
COMMENT ON VIEW tenancy.protected_schemas IS 'schemas whose new tables are protected as they come (tenancy.protect_schema)';
COMMENT ON VIEW tenancy.protected_tables IS 'the protected tables, with their partitions and children';
COMMENT ON COLUMN tenancy.protected_tables.tenant_key IS 'which key the tenant column holds: id, number or code';
COMMENT ON COLUMN tenancy.protected_tables.part_of IS 'the protected table whose partition or child it is';
COMMENT ON COLUMN tenancy.protected_tables.is_enforced IS
    'row security is on and forced, and the policies and the TRUNCATE guard are there, unaltered';
COMMENT ON FUNCTION tenancy_internal.describe_table(oid, oid) IS 'what protection looks at in a relation';
COMMENT ON FUNCTION tenancy_internal.describe_key(oid, text, text) IS 'what scope_unique looks at in a unique key';
COMMENT ON FUNCTION tenancy_internal.between_texts(text, text, text) IS 'a text without its beginning and ending; NULL where it has others';
COMMENT ON FUNCTION tenancy_internal.compared_type(oid) IS 'the type by which a column of a type is compared';
COMMENT ON FUNCTION tenancy_internal.column_names(oid, int2[]) IS 'column names for attribute numbers';
COMMENT ON FUNCTION tenancy_internal.tenant_column(oid, name) IS 'the tenant column of a protected table by its present name';
COMMENT ON FUNCTION tenancy_internal.is_enforced(oid, name, text) IS 'whether all that protects a relation is in place, unaltered';
COMMENT ON FUNCTION tenancy_internal.judged_policies(oid, text, name) IS
    'the policies that a protected table needs, and how those in the catalog differ from them, by their trees';
COMMENT ON FUNCTION tenancy_internal.table_family(oid) IS 'a relation, its partitions and its inheritance children';
COMMENT ON FUNCTION tenancy_internal.unclassified_tables() IS 'tables with a tenant''s rows that are not protected, as far as the catalog tells';
COMMENT ON DOMAIN tenancy_internal.open_rows IS 'boolean; a policy that uses it goes with the extension';
COMMENT ON FUNCTION tenancy_internal.role_danger(oid) IS 'why a role must not be an application role; NULL when it may';
COMMENT ON FUNCTION tenancy_internal.refuse_truncate() IS 'refuses TRUNCATE of a protected table to everybody whom row security binds';
COMMENT ON FUNCTION tenancy_internal.note_drops() IS 'takes dropped tables off the record, and notes which protected ones lost a part';
COMMENT ON FUNCTION tenancy_internal.guard_ddl() IS 'judges what a statement left behind: protects what is new, refuses what takes protection off';
COMMENT ON FUNCTION tenancy_internal.without_constants(text) IS 'an expression with nothing in its string constants';
COMMENT ON FUNCTION tenancy_internal.word_pattern(text) IS 'a regular expression for a name as a word';
COMMENT ON FUNCTION tenancy_internal.own_policies(oid[]) IS 'the users'' own policies, with what they call and refer to';
COMMENT ON FUNCTION tenancy_internal.touched_objects() IS 'what the command at hand made or changed';
COMMENT ON FUNCTION tenancy_internal.touched_families(oid[]) IS 'what protection knows of relations, their parents and children';
COMMENT ON FUNCTION tenancy_internal.owner_danger(oid) IS 'why a role must not own a protected table; NULL when it may';
COMMENT ON FUNCTION tenancy_internal.protected_sources(oid) IS 'the protected tables that a view or materialized view reads';
COMMENT ON FUNCTION tenancy_internal.describe_reader(oid) IS 'how a view or materialized view reads protected tables';
COMMENT ON FUNCTION tenancy_internal.describe_function(oid) IS 'how a function reads protected tables past row security';
COMMENT ON FUNCTION tenancy_internal.published_tables(name) IS 'the protected tables that a publication sends';
COMMENT ON FUNCTION tenancy_internal.forget_dropped() IS 'takes what was dropped off the record, and names what lost a part';
COMMENT ON FUNCTION tenancy_internal.close_before_drop() IS 'closes every protected table before the extension is dropped';
COMMENT ON FUNCTION tenancy.protect_table(regclass, name, text, text, text, text, boolean) IS
    'isolates a table by tenant: column, default, index, keys, policies, TRUNCATE guard, on partitions and children too; plan_protection shows the steps';
COMMENT ON FUNCTION tenancy.plan_protection(regclass, name, text, text, text, text, boolean) IS
    'the steps protect_table would take, with their locks and reasons';
COMMENT ON FUNCTION tenancy.unprotect_table(regclass) IS 'puts back what was there before protect_table; columns and data stay';
COMMENT ON FUNCTION tenancy.protect_schema(name, name, text) IS
    'protects each table of a schema that has the tenant column, and from then on each new one; says why others were left';
COMMENT ON FUNCTION tenancy.unprotect_schema(name) IS
    'new tables of the schema are protected no longer; those that are protected stay so';
COMMENT ON FUNCTION tenancy.tenant_view(regclass) IS
    'makes a view of a materialized view that shows the current tenant''s rows only; DROP VIEW undoes it';
COMMENT ON FUNCTION tenancy.scope_unique(regclass, name) IS
    'leads a UNIQUE, PRIMARY KEY or EXCLUDE constraint or a unique index by the tenant column, with the foreign keys that refer to it; plan_scope_unique shows the steps';
COMMENT ON FUNCTION tenancy.plan_scope_unique(regclass, name) IS
    'the steps scope_unique would take, with their locks and reasons';
COMMENT ON FUNCTION tenancy.unscope_unique(regclass, name) IS 'puts a key back as it was before scope_unique';
COMMENT ON FUNCTION tenancy.grant_usage(regrole) IS
    'gives an application role what it needs; refuses a role that could get past row security and says how';
COMMENT ON FUNCTION tenancy.revoke_usage(regrole) IS 'takes back what tenancy.grant_usage gave';
