-- room lifecycle, stamps · Rust src/lifecycle/stamps.rs, src/pg/rows.rs · tests pgrx-tests/tests/lifecycle/stamps.rs

CREATE TABLE tenancy_internal.stamped_tables (
    relation      regclass    NOT NULL,        -- the table itself; its partitions and children go with it
    columns_added text[]      NOT NULL,        -- by enable_stamps, so that disable_stamps may drop them
    stamped_at    timestamptz NOT NULL DEFAULT pg_catalog.now(),
    stamped_by    name        NOT NULL DEFAULT session_user,
    CONSTRAINT stamped_tables_pkey PRIMARY KEY (relation)
);
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.stamped_tables', '');

CREATE VIEW tenancy.stamped_tables AS
SELECT s.relation, tenancy_internal.is_stamped(s.relation) AS is_enforced, s.columns_added, s.stamped_at, s.stamped_by
  FROM tenancy_internal.stamped_tables s;

CREATE FUNCTION tenancy_internal.stamp_row() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'tenancy_stamp_row';

-- PostgreSQL gives a new partition its parent's triggers, but not a new inheritance child. SECURITY DEFINER: whoever may
-- make the child need not be an administrator.
CREATE FUNCTION tenancy_internal.follow_stamps() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
    root regclass;
BEGIN
    IF NOT EXISTS (SELECT FROM tenancy_internal.stamped_tables) THEN
        RETURN;
    END IF;
    FOR root IN
        SELECT DISTINCT s.relation
          FROM pg_event_trigger_ddl_commands() d
          JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'r' AND NOT c.relispartition
         CROSS JOIN LATERAL tenancy_internal.tables_above(c.oid) AS a(relation)
          JOIN tenancy_internal.stamped_tables s ON s.relation = a.relation
         WHERE d.classid = 'pg_class'::regclass AND NOT d.in_extension
           AND NOT EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = c.oid AND g.tgname = 'tenancy_stamps')
    LOOP
        PERFORM tenancy.enable_stamps(root);
    END LOOP;
END $$;

CREATE FUNCTION tenancy_internal.forget_stamps() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
BEGIN
    DELETE FROM tenancy_internal.stamped_tables s
     WHERE EXISTS (SELECT FROM pg_event_trigger_dropped_objects() d
                    WHERE d.classid = 'pg_class'::regclass AND d.objid = s.relation AND d.objsubid = 0);
END $$;

-- ALWAYS: session_replication_role = replica must not switch them off.
CREATE EVENT TRIGGER tenancy_follow_stamps ON ddl_command_end WHEN TAG IN ('ALTER TABLE', 'CREATE TABLE')
    EXECUTE FUNCTION tenancy_internal.follow_stamps();
ALTER EVENT TRIGGER tenancy_follow_stamps ENABLE ALWAYS;
CREATE EVENT TRIGGER tenancy_forget_stamps ON sql_drop
    WHEN TAG IN ('DROP EXTENSION', 'DROP OWNED', 'DROP SCHEMA', 'DROP TABLE')
    EXECUTE FUNCTION tenancy_internal.forget_stamps();
ALTER EVENT TRIGGER tenancy_forget_stamps ENABLE ALWAYS;

-- Whoever owns a table makes partitions of it, which get its triggers.
INSERT INTO tenancy_internal.rights (grantee, privileges, kind, objects) VALUES
    ('everybody', 'EXECUTE', 'ROUTINE', '{tenancy_internal.stamp_row, tenancy_internal.is_stamped}'),
    ('administrator', 'SELECT', 'TABLE', '{tenancy.stamped_tables}'),
    ('administrator', 'EXECUTE', 'ROUTINE', '{tenancy.enable_stamps, tenancy.plan_stamps, tenancy.disable_stamps}');

COMMENT ON EVENT TRIGGER tenancy_follow_stamps IS 'stamps the rows of a new child as its parent''s are';
COMMENT ON EVENT TRIGGER tenancy_forget_stamps IS 'takes dropped tables off the record of stamps';
COMMENT ON FUNCTION tenancy_internal.follow_stamps() IS 'stamps the rows of a new child as its parent''s are';
COMMENT ON FUNCTION tenancy_internal.forget_stamps() IS 'takes dropped tables off the record of stamps';
COMMENT ON TABLE tenancy_internal.stamped_tables IS 'tables whose rows are stamped';
COMMENT ON VIEW tenancy.stamped_tables IS 'the tables whose rows are stamped (tenancy.enable_stamps), and whether all that does it is in place';
COMMENT ON COLUMN tenancy.stamped_tables.columns_added IS 'columns that were not there before';
COMMENT ON FUNCTION tenancy_internal.stamp_row() IS 'writes who made and who changed a row, and when';
COMMENT ON FUNCTION tenancy_internal.is_stamped(oid) IS 'whether all that stamps the rows of a table is in place';
COMMENT ON FUNCTION tenancy.enable_stamps(regclass) IS
    'has the server write created_at, updated_at, created_by and updated_by of each row, whatever a statement says; plan_stamps shows the steps';
COMMENT ON FUNCTION tenancy.disable_stamps(regclass, boolean) IS
    'ends what enable_stamps began; the columns stay, but for those it added where drop_columns says so';
COMMENT ON FUNCTION tenancy.plan_stamps(regclass) IS 'the steps enable_stamps would take, with their locks and reasons';
