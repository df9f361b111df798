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
    protected_by  name        NOT NULL DEFAULT session_user
);
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.protected_tables', '');

-- Each backend remembers which relations are protected (pg::protected); ALWAYS, so that replication and restore reach it.
CREATE TRIGGER announce_change AFTER INSERT OR UPDATE OR DELETE ON tenancy_internal.protected_tables
    FOR EACH ROW EXECUTE FUNCTION tenancy_internal.announce_registry_change();
CREATE TRIGGER announce_truncate AFTER TRUNCATE ON tenancy_internal.protected_tables
    FOR EACH STATEMENT EXECUTE FUNCTION tenancy_internal.announce_registry_change();
ALTER TABLE tenancy_internal.protected_tables ENABLE ALWAYS TRIGGER announce_change;
ALTER TABLE tenancy_internal.protected_tables ENABLE ALWAYS TRIGGER announce_truncate;

-- What src/model/table.rs holds of a relation.
CREATE FUNCTION tenancy_internal.describe_table(target oid, asking oid) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
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
                   'is_permissive', p.polpermissive,
                   'command', p.polcmd,
                   'for_public', p.polroles = '{0}',
                   'using', pg_get_expr(p.polqual, p.polrelid),
                   'check', pg_get_expr(p.polwithcheck, p.polrelid)
               ) ORDER BY p.polname)
          FROM pg_policy p WHERE p.polrelid = c.oid), '[]'),
    'triggers', COALESCE((
        SELECT jsonb_agg(jsonb_build_object(
                   'name', g.tgname,
                   'is_guard', g.tgenabled <> 'D' AND g.tgfoid = 'tenancy_internal.refuse_truncate()'::regprocedure
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
                   'parent_columns', tenancy_internal.column_names(k.confrelid, k.confkey),
                   'on_update', k.confupdtype,
                   'on_delete', k.confdeltype,
                   'on_delete_columns', tenancy_internal.column_names(k.conrelid,    -- the catalog's column is new in 15
                        ARRAY(SELECT (jsonb_array_elements_text(NULLIF(to_jsonb(k) -> 'confdelsetcols', 'null')))::int2)),
                   'match_type', k.confmatchtype,
                   'is_deferrable', k.condeferrable,
                   'is_deferred', k.condeferred,
                   'is_validated', k.convalidated,
                   'is_temporal', COALESCE((to_jsonb(k) ->> 'conperiod')::boolean, false)    -- new in 18
               ) ORDER BY k.conname)
          FROM pg_constraint k
         WHERE k.conrelid = c.oid AND k.contype = 'f' AND k.conparentid = 0), '[]')
)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid = target
$$;

-- What src/isolation/keys.rs holds of a unique key and of the partitions' keys that are parts of it, parents first.
-- pg_get_indexdef and pg_get_constraintdef begin and end as they must, or the lists are NULL and nothing is done.
CREATE FUNCTION tenancy_internal.describe_key(target oid, key_name text, tenant_column text) RETURNS SETOF jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
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

-- (true)::tenancy_internal.open_rows is true, costs nothing (the planner folds it) and goes with the extension: a policy
-- that says so is dropped by DROP EXTENSION ... CASCADE, which closes the table.
CREATE DOMAIN tenancy_internal.open_rows AS boolean;

-- Why a role must not be an application role; NULL when nothing speaks against it.
CREATE FUNCTION tenancy_internal.role_danger(grantee oid) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
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

CREATE FUNCTION tenancy_internal.forget_dropped_tables() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM tenancy_internal.protected_tables p
     USING pg_event_trigger_dropped_objects() d
     WHERE d.classid = 'pg_class'::regclass AND d.objsubid = 0 AND p.relation = d.objid::regclass;
END $$;
CREATE EVENT TRIGGER tenancy_forget_dropped_tables ON sql_drop
    WHEN TAG IN ('DROP TABLE', 'DROP SCHEMA', 'DROP OWNED', 'DROP EXTENSION')
    EXECUTE FUNCTION tenancy_internal.forget_dropped_tables();

-- DROP EXTENSION ... CASCADE takes the restrictive policies along and would leave a user's permissive ones in charge.
CREATE EVENT TRIGGER tenancy_close_before_drop ON ddl_command_start
    WHEN TAG IN ('DROP EXTENSION', 'DROP OWNED')
    EXECUTE FUNCTION tenancy_internal.close_before_drop();
ALTER EVENT TRIGGER tenancy_close_before_drop ENABLE ALWAYS;

COMMENT ON EVENT TRIGGER tenancy_forget_dropped_tables IS 'removes dropped tables from the list of protected ones';
COMMENT ON EVENT TRIGGER tenancy_close_before_drop IS 'closes every protected table before the extension is dropped';
COMMENT ON TABLE tenancy_internal.protected_tables IS 'the protected tables, their partitions and children, and what unprotect_table puts back';
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
COMMENT ON FUNCTION tenancy_internal.table_family(oid) IS 'a relation, its partitions and its inheritance children';
COMMENT ON DOMAIN tenancy_internal.open_rows IS 'boolean; a policy that uses it goes with the extension';
COMMENT ON FUNCTION tenancy_internal.role_danger(oid) IS 'why a role must not be an application role; NULL when it may';
COMMENT ON FUNCTION tenancy_internal.refuse_truncate() IS 'refuses TRUNCATE of a protected table to everybody whom row security binds';
COMMENT ON FUNCTION tenancy_internal.forget_dropped_tables() IS 'removes dropped tables from the list of protected ones';
COMMENT ON FUNCTION tenancy_internal.close_before_drop() IS 'closes every protected table before the extension is dropped';
COMMENT ON FUNCTION tenancy.protect_table(regclass, name, text, text, text, text, boolean) IS
    'isolates a table by tenant: column, default, index, keys, policies, TRUNCATE guard, on partitions and children too; plan_protection shows the steps';
COMMENT ON FUNCTION tenancy.plan_protection(regclass, name, text, text, text, text, boolean) IS
    'the steps protect_table would take, with their locks and reasons';
COMMENT ON FUNCTION tenancy.unprotect_table(regclass) IS 'puts back what was there before protect_table; columns and data stay';
COMMENT ON FUNCTION tenancy.protect_schema(name, name, text) IS
    'protects each table of a schema that has the tenant column, and says why the others were left';
COMMENT ON FUNCTION tenancy.scope_unique(regclass, name) IS
    'leads a UNIQUE, PRIMARY KEY or EXCLUDE constraint or a unique index by the tenant column, with the foreign keys that refer to it; plan_scope_unique shows the steps';
COMMENT ON FUNCTION tenancy.plan_scope_unique(regclass, name) IS
    'the steps scope_unique would take, with their locks and reasons';
COMMENT ON FUNCTION tenancy.unscope_unique(regclass, name) IS 'puts a key back as it was before scope_unique';
COMMENT ON FUNCTION tenancy.grant_usage(regrole) IS
    'gives an application role what it needs; refuses a role that could get past row security and says how';
COMMENT ON FUNCTION tenancy.revoke_usage(regrole) IS 'takes back what tenancy.grant_usage gave';
