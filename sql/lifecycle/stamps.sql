-- room lifecycle: who made and who changed a row, and when · Rust src/lifecycle, src/pg/stamp.rs

CREATE FUNCTION tenancy_internal.stamp_row() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'tenancy_stamp_row';

-- The statements by which a table gets its stamps, or loses them; those that are not needed any more are left out.
CREATE FUNCTION tenancy_internal.stamp_steps(target regclass, wanted boolean) RETURNS TABLE (statement text, lock text, reason text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    m record;
    c record;
BEGIN
    SELECT k.relkind, k.relispartition, n.nspname IN ('pg_catalog', 'information_schema', 'tenancy', 'tenancy_internal') AS is_system,
           pg_has_role(k.relowner, 'USAGE') AS is_owned, k.oid::regclass AS name
      INTO m FROM pg_class k JOIN pg_namespace n ON n.oid = k.relnamespace WHERE k.oid = target;
    IF m.relkind IS NULL OR m.relkind NOT IN ('r', 'p') OR m.is_system THEN
        RAISE EXCEPTION '% is not a table of yours', COALESCE(m.name::text, target::text)
            USING ERRCODE = 'wrong_object_type', HINT = 'Name an ordinary or a partitioned table.';
    ELSIF m.relispartition THEN
        RAISE EXCEPTION '% is a partition', m.name
            USING ERRCODE = 'wrong_object_type', HINT = 'Call it for the table that it is a partition of.';
    ELSIF NOT m.is_owned THEN
        RAISE EXCEPTION 'role "%" does not own table %', current_user, m.name
            USING ERRCODE = 'insufficient_privilege', HINT = 'Call it as the owner of the table.';
    END IF;
    IF wanted THEN
        FOR c IN
            SELECT v.name, v.type, a.atttypid
              FROM (VALUES (1, 'created_at', 'timestamptz'::regtype), (2, 'updated_at', 'timestamptz'),
                           (3, 'created_by', 'text'), (4, 'updated_by', 'text')) AS v(place, name, type)
              LEFT JOIN pg_attribute a ON a.attrelid = target AND a.attname = v.name AND a.attnum > 0 AND NOT a.attisdropped
             ORDER BY v.place
        LOOP
            IF c.atttypid <> c.type THEN
                RAISE EXCEPTION 'column "%" of % is %, not %', c.name, m.name, format_type(c.atttypid, NULL), format_type(c.type, NULL)
                    USING ERRCODE = 'datatype_mismatch', HINT = 'Rename it, or change its type.';
            ELSIF c.atttypid IS NULL THEN
                RETURN QUERY SELECT format('ALTER TABLE %s ADD COLUMN %I %s', target, c.name, c.type), 'ACCESS EXCLUSIVE',
                                    'rows that are there have NULL: nobody knows';
            END IF;
        END LOOP;
    END IF;
    -- Partitions get the trigger with their parent, inheritance children do not.
    RETURN QUERY
    SELECT CASE WHEN wanted THEN format('CREATE TRIGGER tenancy_stamps BEFORE INSERT OR UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION tenancy_internal.stamp_row()', k.oid::regclass)
                ELSE format('DROP TRIGGER tenancy_stamps ON %s', k.oid::regclass) END,
           CASE WHEN wanted THEN 'SHARE ROW EXCLUSIVE' ELSE 'ACCESS EXCLUSIVE' END,
           CASE WHEN wanted THEN 'the server says who and when, whatever the statement says' ELSE 'the columns stay' END
      FROM tenancy_internal.table_family(target) WITH ORDINALITY AS f(relation, place)
      JOIN pg_class k ON k.oid = f.relation AND NOT k.relispartition AND k.relkind IN ('r', 'p')
     WHERE wanted <> EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = k.oid AND g.tgname = 'tenancy_stamps'
                                AND g.tgfoid = 'tenancy_internal.stamp_row()'::regprocedure)
     ORDER BY f.place;
END $$;

CREATE FUNCTION tenancy_internal.bring_stamps(target regclass, wanted boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    step text;
BEGIN
    FOREACH step IN ARRAY ARRAY(SELECT s.statement FROM tenancy_internal.stamp_steps(target, wanted) s) LOOP
        EXECUTE step;
    END LOOP;
END $$;

CREATE FUNCTION tenancy.plan_stamps(target regclass) RETURNS TABLE (step integer, statement text, lock text, reason text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT row_number() OVER ()::integer, s.statement, s.lock, s.reason FROM tenancy_internal.stamp_steps(target, true) s
$$;

COMMENT ON FUNCTION tenancy_internal.stamp_row() IS 'writes down who made and who changed a row, and when';
COMMENT ON FUNCTION tenancy_internal.stamp_steps(regclass, boolean) IS 'how a table gets its stamps, or loses them';
COMMENT ON FUNCTION tenancy_internal.bring_stamps(regclass, boolean) IS 'gives a table its stamps, or takes them';
COMMENT ON FUNCTION tenancy.enable_stamps(regclass) IS
    'keeps created_at, updated_at, created_by and updated_by of each row, by a trigger that nobody''s statement gets past; plan_stamps shows the steps';
COMMENT ON FUNCTION tenancy.disable_stamps(regclass) IS 'ends what tenancy.enable_stamps began; the columns stay';
COMMENT ON FUNCTION tenancy.plan_stamps(regclass) IS 'the steps that tenancy.enable_stamps would take';
