-- room lifecycle, what its parts about rows have in common · Rust src/lifecycle/rows.rs

-- What src/lifecycle/rows.rs holds of a table, its partitions and children, parents first.
CREATE FUNCTION tenancy_internal.describe_rows(target oid, asking oid) RETURNS TABLE (description jsonb)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT jsonb_build_object(
    'oid', c.oid::bigint,
    'name', jsonb_build_object('schema', n.nspname, 'name', c.relname),
    'kind', c.relkind,
    'is_temporary', c.relpersistence = 't',
    'is_system', n.nspname IN ('pg_catalog', 'information_schema', 'pg_toast')
        OR EXISTS (SELECT FROM pg_depend d
                    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'),
    'is_partition', c.relispartition,
    'parent', (
        SELECT jsonb_build_object('schema', pn.nspname, 'name', p.relname)
          FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent JOIN pg_namespace pn ON pn.oid = p.relnamespace
         WHERE i.inhrelid = c.oid ORDER BY i.inhseqno LIMIT 1),
    'is_owned', pg_has_role(asking, c.relowner, 'USAGE'),
    'columns', COALESCE((
        SELECT jsonb_agg(jsonb_build_object(
                   'name', a.attname,
                   'type_name', format_type(a.atttypid, a.atttypmod),
                   'is_generated', a.attgenerated <> '' OR a.attidentity <> '') ORDER BY a.attnum)
          FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '[]'),
    'triggers', COALESCE((
        SELECT jsonb_agg(jsonb_build_object(
                   'name', g.tgname,
                   'kind', g.tgtype,
                   'enabled', g.tgenabled,
                   'function', pn.nspname || '.' || p.proname) ORDER BY g.tgname)
          FROM pg_trigger g JOIN pg_proc p ON p.oid = g.tgfoid JOIN pg_namespace pn ON pn.oid = p.pronamespace
         WHERE g.tgrelid = c.oid AND NOT g.tgisinternal), '[]'),
    'policies', COALESCE((
        SELECT jsonb_agg(p.polname ORDER BY p.polname) FROM pg_policy p WHERE p.polrelid = c.oid), '[]')
)
  FROM tenancy_internal.table_family(target) WITH ORDINALITY AS f(relation, place)
  JOIN pg_class c ON c.oid = f.relation JOIN pg_namespace n ON n.oid = c.relnamespace
 ORDER BY f.place
$$;

-- The tables above a relation, nearest first.
CREATE FUNCTION tenancy_internal.tables_above(relation oid) RETURNS SETOF oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
WITH RECURSIVE above(relation, depth) AS (
    SELECT i.inhparent, 1 FROM pg_inherits i WHERE i.inhrelid = tables_above.relation
    UNION ALL
    SELECT i.inhparent, a.depth + 1 FROM above a JOIN pg_inherits i ON i.inhrelid = a.relation
)
SELECT a.relation FROM above a GROUP BY a.relation ORDER BY min(a.depth)
$$;

COMMENT ON FUNCTION tenancy_internal.tables_above(oid) IS 'the tables that a relation is a partition or child of, nearest first';
COMMENT ON FUNCTION tenancy_internal.describe_rows(oid, oid) IS
    'what enable_stamps and enable_soft_delete look at in a table, its partitions and children';
