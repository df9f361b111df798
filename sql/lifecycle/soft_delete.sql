-- room lifecycle, soft delete · Rust src/lifecycle/soft_delete.rs, src/pg/{deleted,rows}.rs
-- tests pgrx-tests/tests/lifecycle/soft_delete.rs

CREATE TABLE tenancy_internal.soft_deleted_tables (
    relation      regclass    NOT NULL,        -- the table itself; its partitions and children go with it
    columns_added text[]      NOT NULL,        -- by enable_soft_delete; disable_soft_delete drops them
    enabled_at    timestamptz NOT NULL DEFAULT pg_catalog.now(),
    enabled_by    name        NOT NULL DEFAULT session_user,
    CONSTRAINT soft_deleted_tables_pkey PRIMARY KEY (relation)
);
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.soft_deleted_tables', '');

-- Unique keys that leave deleted rows out since, and what they were before.
CREATE TABLE tenancy_internal.soft_deleted_keys (
    index          regclass NOT NULL,
    root           regclass NOT NULL,
    was_constraint boolean  NOT NULL,
    predicate      text,
    CONSTRAINT soft_deleted_keys_pkey PRIMARY KEY (index)
);
CREATE INDEX soft_deleted_keys_root_idx ON tenancy_internal.soft_deleted_keys (root);
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.soft_deleted_keys', '');

CREATE VIEW tenancy.soft_deleted_tables AS
SELECT s.relation, tenancy_internal.is_soft_deleted(s.relation) AS is_enforced, s.columns_added, s.enabled_at, s.enabled_by
  FROM tenancy_internal.soft_deleted_tables s;

CREATE FUNCTION tenancy_internal.keep_row() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'tenancy_keep_row';

CREATE FUNCTION tenancy_internal.shows_deleted_support(internal) RETURNS internal
LANGUAGE c AS 'MODULE_PATHNAME', 'tenancy_shows_deleted_support';
-- LEAKPROOF: its errors depend on the session, never on a row.
CREATE FUNCTION tenancy_internal.shows_deleted() RETURNS boolean
LANGUAGE c STABLE LEAKPROOF PARALLEL SAFE SUPPORT tenancy_internal.shows_deleted_support
AS 'MODULE_PATHNAME', 'tenancy_shows_deleted';

-- What src/lifecycle/soft_delete.rs holds of the unique keys of a table, its partitions and children. One that has the
-- primary key in it keeps no row from having another's key, and parts of a parent's index go with it.
CREATE FUNCTION tenancy_internal.describe_unique_keys(target oid) RETURNS TABLE (description jsonb)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT jsonb_build_object(
    'oid', i.oid::bigint,
    'table', jsonb_build_object('schema', n.nspname, 'name', c.relname),
    'name', i.relname,
    'is_constraint', k.oid IS NOT NULL,
    'head', format('CREATE UNIQUE INDEX %I ON %I.%I USING %I (', i.relname, n.nspname, c.relname, m.amname)
         || tenancy_internal.between_texts(
                pg_get_indexdef(i.oid),
                format('CREATE UNIQUE INDEX %I ON %s%I.%I USING %I (', i.relname,
                       CASE WHEN i.relkind = 'I' THEN 'ONLY ' END, n.nspname, c.relname, m.amname),
                COALESCE(' WHERE ' || pg_get_expr(x.indpred, x.indrelid), ''))
         || COALESCE(' TABLESPACE ' || quote_ident(s.spcname), ''),
    'constraint', concat('UNIQUE', CASE WHEN (to_jsonb(x) ->> 'indnullsnotdistinct')::boolean THEN ' NULLS NOT DISTINCT' END,    -- new in 15
        ' (', (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY v.place)
                 FROM unnest(x.indkey::int2[]) WITH ORDINALITY AS v(attnum, place)
                 JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = v.attnum
                WHERE v.place <= x.indnkeyatts), ')',
        (SELECT format(' INCLUDE (%s)', string_agg(quote_ident(a.attname), ', ' ORDER BY v.place))
           FROM unnest(x.indkey::int2[]) WITH ORDINALITY AS v(attnum, place)
           JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = v.attnum
          WHERE v.place > x.indnkeyatts HAVING count(*) > 0)),
    'predicate', pg_get_expr(x.indpred, x.indrelid),
    'obstacle', CASE
        WHEN k.condeferrable THEN 'it is deferrable'
        WHEN x.indisreplident THEN 'it is the replica identity'
        WHEN NOT x.indisvalid THEN 'it is not valid'
        ELSE (SELECT format('foreign key %I of %s refers to it', f.conname, f.conrelid::regclass)
                FROM pg_constraint f WHERE f.contype = 'f' AND f.conindid = i.oid AND f.conparentid = 0 LIMIT 1) END,
    'before', (SELECT jsonb_build_object('was_constraint', d.was_constraint, 'predicate', d.predicate)
                 FROM tenancy_internal.soft_deleted_keys d WHERE d.index = i.oid)
)
  FROM tenancy_internal.table_family(target) AS f(relation)
  JOIN pg_index x ON x.indrelid = f.relation AND x.indisunique AND NOT x.indisprimary
  JOIN pg_class i ON i.oid = x.indexrelid AND NOT i.relispartition
  JOIN pg_am m ON m.oid = i.relam
  JOIN pg_class c ON c.oid = x.indrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_tablespace s ON s.oid = i.reltablespace
  LEFT JOIN pg_constraint k ON k.conindid = i.oid AND k.conrelid = x.indrelid AND k.contype = 'u'
 WHERE NOT EXISTS (SELECT FROM pg_index p
                    WHERE p.indrelid = x.indrelid AND p.indisprimary AND (x.indkey::int2[])[:x.indnkeyatts - 1] @> p.indkey::int2[])
 ORDER BY i.oid
$$;

-- Foreign keys of other tables, and of the table itself, that refer to it or its parts.
CREATE FUNCTION tenancy_internal.foreign_keys_to(target oid) RETURNS TABLE (described text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('foreign key %I of %s', f.conname, f.conrelid::regclass)
      FROM pg_constraint f
     WHERE f.contype = 'f' AND f.conparentid = 0
       AND f.confrelid IN (SELECT t.relation FROM tenancy_internal.table_family(target) AS t(relation))
     ORDER BY 1
$$;

-- Columns of a table's primary key, whether a JSON object has them, and whether it must: the tenant is the context's.
CREATE FUNCTION tenancy_internal.row_key(target oid, key jsonb) RETURNS TABLE (column_name name, is_given boolean, is_needed boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT a.attname, COALESCE(CASE WHEN jsonb_typeof(key) = 'object' THEN key ? a.attname::text END, false),
           a.attname IS DISTINCT FROM (SELECT tenancy_internal.tenant_column(p.relation, p.tenant_column)
                                         FROM tenancy_internal.protected_tables p WHERE p.relation = target)
      FROM pg_index x JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = ANY (x.indkey::int2[])
     WHERE x.indrelid = target AND x.indisprimary
$$;

-- Gives a new partition or child what its parent has, and refuses to let deleted rows be seen by switching row security off.
-- SECURITY DEFINER: whoever may make the child need not be an administrator.
CREATE FUNCTION tenancy_internal.follow_soft_delete() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
    found record;
BEGIN
    IF NOT EXISTS (SELECT FROM tenancy_internal.soft_deleted_tables) THEN
        RETURN;
    END IF;
    FOR found IN
        SELECT DISTINCT s.relation AS root, c.oid::regclass AS relation, c.relrowsecurity,
               EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'tenancy_not_deleted') AS is_kept
          FROM pg_event_trigger_ddl_commands() d
          JOIN pg_class c ON c.oid = d.objid AND c.relkind IN ('r', 'p')
         CROSS JOIN LATERAL (SELECT c.oid UNION ALL SELECT tenancy_internal.tables_above(c.oid)) AS a(relation)
          JOIN tenancy_internal.soft_deleted_tables s ON s.relation = a.relation
         WHERE d.classid = 'pg_class'::regclass AND NOT d.in_extension
    LOOP
        IF found.is_kept AND NOT found.relrowsecurity THEN
            RAISE EXCEPTION 'deleted rows of table % would be seen again', found.relation
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Call tenancy.disable_soft_delete(...) first.';
        END IF;
        -- One that is new is protected first, by tenancy_guard_ddl, whose own statements come by here.
        IF NOT found.is_kept AND found.relrowsecurity AND found.relation <> found.root
           AND EXISTS (SELECT FROM tenancy_internal.protected_tables p WHERE p.relation = found.relation) THEN
            PERFORM tenancy.enable_soft_delete(found.root);
        END IF;
    END LOOP;
END $$;

CREATE FUNCTION tenancy_internal.forget_soft_delete() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
BEGIN
    DELETE FROM tenancy_internal.soft_deleted_tables s
     WHERE EXISTS (SELECT FROM pg_event_trigger_dropped_objects() d
                    WHERE d.classid = 'pg_class'::regclass AND d.objid = s.relation AND d.objsubid = 0);
    DELETE FROM tenancy_internal.soft_deleted_keys s
     WHERE EXISTS (SELECT FROM pg_event_trigger_dropped_objects() d
                    WHERE d.classid = 'pg_class'::regclass AND d.objid = s.index AND d.objsubid = 0);
END $$;

-- After tenancy_guard_ddl, in the order of names, which protects a new partition. ALWAYS: session_replication_role = replica
-- must not switch them off.
CREATE EVENT TRIGGER tenancy_keep_deleted ON ddl_command_end WHEN TAG IN ('ALTER TABLE', 'CREATE TABLE')
    EXECUTE FUNCTION tenancy_internal.follow_soft_delete();
ALTER EVENT TRIGGER tenancy_keep_deleted ENABLE ALWAYS;
CREATE EVENT TRIGGER tenancy_forget_deleted ON sql_drop
    WHEN TAG IN ('ALTER TABLE', 'DROP EXTENSION', 'DROP INDEX', 'DROP OWNED', 'DROP SCHEMA', 'DROP TABLE')
    EXECUTE FUNCTION tenancy_internal.forget_soft_delete();
ALTER EVENT TRIGGER tenancy_forget_deleted ENABLE ALWAYS;

-- Policies call shows_deleted. Whoever owns a table makes partitions of it, which get its triggers.
INSERT INTO tenancy_internal.rights (grantee, privileges, kind, objects) VALUES
    ('everybody', 'EXECUTE', 'ROUTINE', '{tenancy_internal.keep_row, tenancy_internal.shows_deleted,
        tenancy_internal.is_soft_deleted}'),
    ('administrator', 'SELECT', 'TABLE', '{tenancy.soft_deleted_tables}'),
    ('administrator', 'EXECUTE', 'ROUTINE', '{tenancy.enable_soft_delete, tenancy.plan_soft_delete, tenancy.disable_soft_delete,
        tenancy.restore_row}');

COMMENT ON EVENT TRIGGER tenancy_keep_deleted IS 'keeps deleted rows hidden, in new partitions and children too';
COMMENT ON EVENT TRIGGER tenancy_forget_deleted IS 'takes dropped tables off the record of soft delete';
COMMENT ON TABLE tenancy_internal.soft_deleted_tables IS 'tables whose deleted rows are kept';
COMMENT ON TABLE tenancy_internal.soft_deleted_keys IS 'unique keys that leave deleted rows out, and what they were before';
COMMENT ON VIEW tenancy.soft_deleted_tables IS
    'the tables whose deleted rows are kept (tenancy.enable_soft_delete), and whether all that does it is in place';
COMMENT ON COLUMN tenancy.soft_deleted_tables.columns_added IS 'columns that were not there before';
COMMENT ON FUNCTION tenancy_internal.keep_row() IS 'keeps a row that an application deletes, and writes who deleted it and when';
COMMENT ON FUNCTION tenancy_internal.shows_deleted() IS 'whether deleted rows are to be seen (tenancy.with_deleted); refuses who is no administrator';
COMMENT ON FUNCTION tenancy_internal.shows_deleted_support(internal) IS 'lets the planner take shows_deleted() for false while nobody asked to see them';
COMMENT ON FUNCTION tenancy_internal.describe_unique_keys(oid) IS 'the unique keys of a table, its partitions and children';
COMMENT ON FUNCTION tenancy_internal.foreign_keys_to(oid) IS 'foreign keys that refer to a table or its parts';
COMMENT ON FUNCTION tenancy_internal.row_key(oid, jsonb) IS 'the columns of a table''s primary key, and whether a JSON object has them';
COMMENT ON FUNCTION tenancy_internal.is_soft_deleted(oid) IS 'whether all that keeps deleted rows of a table is in place';
COMMENT ON FUNCTION tenancy_internal.follow_soft_delete() IS 'keeps deleted rows hidden, in new partitions and children too';
COMMENT ON FUNCTION tenancy_internal.forget_soft_delete() IS 'takes dropped tables off the record of soft delete';
COMMENT ON FUNCTION tenancy.enable_soft_delete(regclass) IS
    'keeps and hides the rows of a table that applications delete; plan_soft_delete shows the steps';
COMMENT ON FUNCTION tenancy.disable_soft_delete(regclass, text) IS
    'ends what enable_soft_delete began; deleted_rows says what becomes of those there are: purge or restore';
COMMENT ON FUNCTION tenancy.plan_soft_delete(regclass) IS 'the steps enable_soft_delete would take, with their locks and reasons';
COMMENT ON FUNCTION tenancy.restore_row(regclass, jsonb) IS 'makes a deleted row, named by its primary key, one that is not';
