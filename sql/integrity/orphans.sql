-- room integrity, foreign keys without their parents: finding, repairing, quarantine

-- Rows that repair_orphans took out of their table. Who may act for the owner of that table sees them, for to others they are
-- as closed as they were there.
CREATE TABLE tenancy.quarantined_rows (
    id              bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    relation        regclass    NOT NULL,
    table_name      text        NOT NULL,      -- as it was called; the table may be gone
    constraint_name name        NOT NULL,
    tenant          text,                      -- what the tenant column held
    row             jsonb       NOT NULL,
    reason          text        NOT NULL,
    quarantined_at  timestamptz NOT NULL DEFAULT pg_catalog.now(),
    quarantined_by  name        NOT NULL DEFAULT session_user,
    CONSTRAINT quarantined_rows_pkey PRIMARY KEY (id)
);
CREATE INDEX quarantined_rows_relation_idx ON tenancy.quarantined_rows (relation);
SELECT pg_catalog.pg_extension_config_dump('tenancy.quarantined_rows', '');
SELECT pg_catalog.pg_extension_config_dump('tenancy.quarantined_rows_id_seq', '');
ALTER TABLE tenancy.quarantined_rows ENABLE ROW LEVEL SECURITY;
CREATE POLICY owners ON tenancy.quarantined_rows
    USING (pg_catalog.pg_has_role((SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.oid = relation), 'USAGE'));

-- Foreign keys of a table, or of its partitions where they have their own, and its hints of references: what refers to nothing.
CREATE FUNCTION tenancy.fk_orphans(target regclass, sample integer DEFAULT 5)
RETURNS TABLE (constraint_name name, parent regclass, row_count bigint, sample_rows jsonb)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r record;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = target AND c.relkind IN ('r', 'p')) OR target IS NULL THEN
        RAISE EXCEPTION '% is not a table', COALESCE(target::text, 'NULL')
            USING ERRCODE = 'wrong_object_type', HINT = 'Name a table that has foreign keys.';
    ELSIF sample IS NULL OR sample NOT BETWEEN 0 AND 1000 THEN
        RAISE EXCEPTION 'sample must be 0 to 1000 rows, not %', COALESCE(sample::text, 'NULL')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Say 0 to see no rows.';
    END IF;
    PERFORM tenancy_internal.refuse_strangers(true);
    FOR r IN
        SELECT d.constraint_name, d.parent::regclass AS parent, o.source, o.condition, tenancy_internal.shown_columns(target) AS columns
          FROM tenancy_internal.describe_references(ARRAY[target::oid], '{}') d
         CROSS JOIN LATERAL tenancy_internal.orphan_condition(d) AS o
         ORDER BY d.constraint_name
    LOOP
        PERFORM tenancy_internal.assert_readable(target), tenancy_internal.assert_readable(r.parent);
        EXECUTE format('SELECT count(*), CASE WHEN count(*) > 0 THEN
                            (SELECT jsonb_agg(to_jsonb(s)) FROM (SELECT %1$s FROM %2$s AS c WHERE %3$s LIMIT %4$s) AS s) END
                          FROM %2$s AS c WHERE %3$s', r.columns, r.source, r.condition, sample)
           INTO row_count, sample_rows;
        CONTINUE WHEN row_count = 0;
        constraint_name := r.constraint_name;
        parent := r.parent;
        RETURN NEXT;
    END LOOP;
    PERFORM tenancy_internal.refuse_strangers(false);
END $$;

-- Where to look for the orphans of a foreign key, and how to tell them: of rows `c` that refer to anything, those without a
-- parent; with MATCH FULL those too that refer with a part of the key.
CREATE FUNCTION tenancy_internal.orphan_condition(reference record, OUT source text, OUT condition text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r record := reference;
BEGIN
    IF r.equal IS NULL THEN
        RAISE EXCEPTION 'the columns of % and its parent % cannot be compared', COALESCE('foreign key ' || quote_ident(r.constraint_name), 'the hint'),
                        r.parent::regclass
            USING ERRCODE = 'datatype_mismatch', HINT = 'They are of different types of which one is a user''s own.';
    END IF;
    source := (SELECT format(CASE c.relkind WHEN 'p' THEN '%I.%I' ELSE 'ONLY %I.%I' END, n.nspname, c.relname)
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = r.child);
    condition := format('(%s AND NOT EXISTS (SELECT FROM %s AS %s WHERE %s)%s)', r.given, r.parent_from, r.alias, r.equal, r.broken);
END $$;

CREATE FUNCTION tenancy_internal.assert_readable(relation regclass) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    obstacle text := tenancy_internal.reading_obstacle(relation);
BEGIN
    IF obstacle IS NOT NULL THEN
        RAISE EXCEPTION '%', obstacle
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'Do it as a superuser, or as a role with BYPASSRLS (see tenancy.exempt_role) that has privileges on the tables.';
    END IF;
END $$;

-- Each foreign key that touches a protected table: how many rows refer by it, and how many of them to nothing.
CREATE FUNCTION tenancy.fk_verify() RETURNS TABLE (
    relation regclass, constraint_name name, parent regclass, total bigint, valid bigint, orphans bigint, is_validated boolean
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r record;
BEGIN
    PERFORM tenancy_internal.refuse_strangers(true);
    FOR r IN
        SELECT d.child::regclass AS child, d.constraint_name, d.parent::regclass AS parent, d.is_validated, d.given, d.broken, o.source, o.condition
          FROM tenancy_internal.describe_references(NULL, '{}') d
         CROSS JOIN LATERAL tenancy_internal.orphan_condition(d) AS o
         WHERE d.constraint_id IS NOT NULL AND NOT d.is_inherited
         ORDER BY d.child::regclass::text, d.constraint_name
    LOOP
        PERFORM tenancy_internal.assert_readable(r.child), tenancy_internal.assert_readable(r.parent);
        relation := r.child;
        constraint_name := r.constraint_name;
        parent := r.parent;
        is_validated := r.is_validated;
        EXECUTE format('SELECT (SELECT count(*) FROM %1$s AS c WHERE %2$s%3$s), (SELECT count(*) FROM %1$s AS c WHERE %4$s)',
                       r.source, r.given, r.broken, r.condition) INTO total, orphans;
        valid := total - orphans;
        RETURN NEXT;
    END LOOP;
    PERFORM tenancy_internal.refuse_strangers(false);
END $$;

-- Refuses who has no right of his own to what a repair does to rows of a table.
CREATE FUNCTION tenancy_internal.assert_changeable(target regclass, action text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    needed text := CASE WHEN action IN ('delete', 'quarantine') THEN 'DELETE' ELSE 'UPDATE' END;
BEGIN
    IF NOT has_table_privilege(target, needed) THEN
        RAISE EXCEPTION 'role "%" has no % on %', current_user, needed, target
            USING ERRCODE = 'insufficient_privilege', HINT = format('GRANT %s ON %s TO %I, or do it as the owner of the table.', needed, target, current_user);
    END IF;
END $$;

-- The columns of a foreign key that a repair changes. The tenant of a row stays. With MATCH FULL nothing of the key may.
CREATE FUNCTION tenancy_internal.repaired_columns(target regclass, key name[], is_full boolean, action text, reassign_to jsonb) RETURNS name[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    tenant_column name := (SELECT p.tenant_column FROM tenancy.protected_tables p WHERE p.relation = target);
    changed name[];
    stuck name;
BEGIN
    IF action = 'null' THEN
        changed := ARRAY(SELECT n FROM unnest(key) n WHERE n IS DISTINCT FROM tenant_column OR is_full);
        SELECT a.attname INTO stuck FROM pg_attribute a
         WHERE a.attrelid = target AND a.attname = ANY (changed) AND a.attnotnull AND (is_full OR NOT EXISTS (
               SELECT FROM pg_attribute b WHERE b.attrelid = target AND b.attname = ANY (changed) AND NOT b.attnotnull));
        IF FOUND OR cardinality(changed) = 0 THEN
            RAISE EXCEPTION 'column "%" of % cannot be null', COALESCE(stuck, tenant_column), target
                USING ERRCODE = 'not_null_violation', HINT = 'Choose another action, or ALTER TABLE ... DROP NOT NULL first.';
        END IF;
        RETURN ARRAY(SELECT a.attname FROM pg_attribute a WHERE a.attrelid = target AND a.attname = ANY (changed) AND NOT a.attnotnull);
    ELSIF action = 'reassign' THEN
        changed := ARRAY(SELECT n FROM unnest(key) n WHERE n IS DISTINCT FROM tenant_column);
        IF NOT reassign_to ?& changed::text[] OR (SELECT count(*) FROM jsonb_object_keys(reassign_to)) <> cardinality(changed)
           OR cardinality(changed) = 0 THEN
            RAISE EXCEPTION 'reassign_to must name %', COALESCE(NULLIF(array_to_string(changed, ', '), ''), 'nothing: the key is the tenant alone')
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Name each column of the foreign key but the tenant''s, which stays.';
        END IF;
        RETURN changed;
    END IF;
    RETURN '{}';
END $$;

-- What finds and locks the orphans in a span of blocks of a table or a partition of it, and what changes those at these places. The first
-- is for who may look at the parent too, the second for the table's owner.
CREATE FUNCTION tenancy_internal.repair_statements(
    target regclass, part regclass, constraint_name text, action text, reassign_to jsonb, from_block bigint, to_block bigint
) RETURNS TABLE (find text, change text, parent regclass)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r record;
    place text;
    tenant_column name := (SELECT p.tenant_column FROM tenancy.protected_tables p WHERE p.relation = target);
BEGIN
    SELECT d.* INTO r FROM tenancy_internal.describe_references(ARRAY[target::oid], '{}') d
     WHERE d.constraint_name = repair_statements.constraint_name;
    IF NOT FOUND OR action NOT IN ('delete', 'null', 'quarantine', 'reassign')
       OR part NOT IN (SELECT f.relation FROM tenancy_internal.table_family(target) AS f(relation)) THEN
        RAISE EXCEPTION '% has no such foreign key, or no such partition, any more', target
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'What was repaired before stays so; look at tenancy.fk_verify().';
    END IF;
    parent := r.parent;
    SELECT format('%I.%I', n.nspname, c.relname) INTO place FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = part;
    find := format('SELECT array_agg(d.ctid)::text FROM (SELECT c.ctid FROM ONLY %s AS c
                     WHERE c.ctid >= %L::tid AND c.ctid < %L::tid AND %s FOR UPDATE OF c) AS d', place,
                   format('(%s,0)', from_block), format('(%s,0)', to_block), (tenancy_internal.orphan_condition(r)).condition);
    change := CASE WHEN action IN ('delete', 'quarantine')
        THEN format('DELETE FROM ONLY %s AS c WHERE c.ctid = ANY ($1::text::tid[])', place)
        ELSE format('UPDATE ONLY %s AS c SET %s WHERE c.ctid = ANY ($1::text::tid[])', place,
                (SELECT string_agg(CASE WHEN action = 'null' THEN format('%I = NULL', n)
                                        ELSE format('%I = %L::%s', n, reassign_to ->> n, (
                                            SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute a
                                             WHERE a.attrelid = target AND a.attname = n)) END, ', ')
                   FROM unnest(tenancy_internal.repaired_columns(target, r.columns, r.is_full, action, reassign_to)) n)) END;
    -- Columns that are computed are not kept. Row by row out and in: what is not kept is not deleted.
    change := CASE WHEN action = 'quarantine'
        THEN format('WITH gone AS (%s RETURNING c.*)
                     SELECT jsonb_build_object(''changed'', count(*), ''rows'', jsonb_agg(jsonb_build_array(%s, to_jsonb(s))))::text
                       FROM gone AS c CROSS JOIN LATERAL (SELECT %s) AS s', change,
                    COALESCE('c.' || quote_ident(tenant_column) || '::text', 'NULL'), tenancy_internal.kept_columns(part))
        ELSE format('WITH gone AS (%s RETURNING 1) SELECT jsonb_build_object(''changed'', count(*))::text FROM gone', change) END;
    RETURN NEXT;
END $$;

-- Judges what repair_orphans is asked for, and gives the work that its steps do; NULL for a dry run, which says what it would be.
CREATE FUNCTION tenancy_internal.plan_repair_step(
    target regclass, constraint_name text, action text, dry_run boolean, batch_size integer, reassign_to jsonb
) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    r record;
    o record;
    changed name[];
    orphans bigint;
BEGIN
    IF target IS NULL OR constraint_name IS NULL OR dry_run IS NULL THEN
        RAISE EXCEPTION '% must not be null', CASE WHEN target IS NULL THEN 'target' WHEN constraint_name IS NULL THEN 'constraint_name' ELSE 'dry_run' END
            USING ERRCODE = 'invalid_parameter_value', HINT = 'tenancy.fk_orphans(...) names the foreign keys of a table that have orphans.';
    ELSIF action IS NULL OR action NOT IN ('delete', 'null', 'quarantine', 'reassign') THEN
        RAISE EXCEPTION 'action must be delete, null, quarantine or reassign, not %', COALESCE(quote_literal(action), 'NULL')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'quarantine keeps what it takes out, in tenancy.quarantined_rows.';
    ELSIF batch_size IS NULL OR batch_size NOT BETWEEN 1 AND 10000000 THEN
        RAISE EXCEPTION 'batch_size must be 1 to 10000000 rows, not %', COALESCE(batch_size::text, 'NULL')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'It is how many rows are looked at between two commits.';
    ELSIF (action = 'reassign') <> (reassign_to IS NOT NULL) OR jsonb_typeof(reassign_to) <> 'object' THEN
        RAISE EXCEPTION 'reassign_to goes with the action reassign, and is an object'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Say which row to refer to instead: ''{"customer": 42}''.';
    END IF;
    SELECT d.* INTO r FROM tenancy_internal.describe_references(ARRAY[target::oid], '{}') d WHERE d.constraint_name = plan_repair_step.constraint_name;
    IF NOT FOUND THEN
        RAISE EXCEPTION '% has no foreign key % that touches a protected table', target, quote_ident(constraint_name)
            USING ERRCODE = 'undefined_object', HINT = 'SELECT * FROM tenancy.fk_verify() lists them.';
    END IF;
    PERFORM tenancy_internal.assert_readable(target), tenancy_internal.assert_readable(r.parent);
    PERFORM tenancy_internal.assert_changeable(target, action);
    changed := tenancy_internal.repaired_columns(target, r.columns, r.is_full, action, reassign_to);
    IF dry_run THEN
        o := tenancy_internal.orphan_condition(r);
        PERFORM tenancy_internal.refuse_strangers(true);
        EXECUTE format('SELECT count(*) FROM %s AS c WHERE %s', o.source, o.condition) INTO orphans;
        PERFORM tenancy_internal.refuse_strangers(false);
        RAISE NOTICE '%', format('%I of %s: would %s %s rows%s%s', constraint_name, target,
                                 CASE action WHEN 'null' THEN format('set %s to NULL in', array_to_string(changed, ', ')) ELSE action END, orphans,
                                 ' to ' || reassign_to::text, CASE WHEN NOT r.is_validated THEN ', then validate it' END)
            USING HINT = 'CALL it with dry_run => false to do so.';
        RETURN NULL;
    END IF;
    RETURN jsonb_build_object('target', target::oid::bigint, 'constraint', constraint_name, 'action', action, 'batch', batch_size,
        'reassign', reassign_to, 'done', 0, 'part', 0, 'block', 0,
        'parts', (SELECT jsonb_agg(f.relation::bigint ORDER BY f.place)
                    FROM tenancy_internal.table_family(target) WITH ORDINALITY AS f(relation, place) JOIN pg_class c ON c.oid = f.relation
                   WHERE c.relkind = 'r' AND (f.relation = target OR c.relispartition)));
END $$;

-- Looks at the next blocks of the table; after the last ones validates the foreign key, says what was done, and gives NULL.
CREATE FUNCTION tenancy_internal.repair_orphans_step(work jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    target regclass := (work ->> 'target')::oid;
    part oid := (work -> 'parts' ->> (work ->> 'part')::int)::oid;
    block bigint := (work ->> 'block')::bigint;
    r record;
    step bigint;
    answer jsonb;
BEGIN
    SELECT d.* INTO r FROM tenancy_internal.describe_references(ARRAY[target::oid], '{}') d WHERE d.constraint_name = work ->> 'constraint';
    IF NOT FOUND THEN
        RAISE EXCEPTION '% has lost its foreign key %', target, quote_ident(work ->> 'constraint')
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'What was repaired before stays so.';
    END IF;
    IF part IS NULL THEN
        IF NOT r.is_validated THEN
            PERFORM tenancy_internal.refuse_strangers(true);
            EXECUTE format('ALTER TABLE %s VALIDATE CONSTRAINT %I', target, r.constraint_name);
            PERFORM tenancy_internal.refuse_strangers(false);
        END IF;
        RAISE NOTICE '%', format('%I of %s: %s rows %s%s', r.constraint_name, target, work ->> 'done',
                                 CASE work ->> 'action' WHEN 'delete' THEN 'deleted' WHEN 'quarantine' THEN 'quarantined'
                                                        WHEN 'reassign' THEN 'reassigned' ELSE 'set to NULL' END,
                                 CASE WHEN NOT r.is_validated THEN ', and validated' END);
        RETURN NULL;
    END IF;
    -- As many blocks as hold a batch of rows; 100 rows a block where nothing is known.
    SELECT greatest(1, (work ->> 'batch')::bigint * greatest(c.relpages, 1) / CASE WHEN c.reltuples > 0 THEN greatest(c.reltuples, 1) ELSE 100 END)::bigint
      INTO step FROM pg_class c WHERE c.oid = part;
    answer := tenancy_internal.repair_rows(target, part, work ->> 'constraint', work ->> 'action', NULLIF(work -> 'reassign', 'null'), block, block + step);
    INSERT INTO tenancy.quarantined_rows (relation, table_name, constraint_name, tenant, row, reason)
    SELECT target, target::text, r.constraint_name, g ->> 0, g -> 1, format('no row of %s for foreign key %s', r.parent::regclass, r.constraint_name)
      FROM jsonb_array_elements(NULLIF(answer -> 'rows', 'null')) AS g;
    RETURN work || jsonb_build_object('done', (work ->> 'done')::bigint + (answer ->> 'changed')::bigint)
        || CASE WHEN block + step < pg_relation_size(part) / current_setting('block_size')::bigint THEN jsonb_build_object('block', block + step)
                ELSE jsonb_build_object('part', (work ->> 'part')::int + 1, 'block', 0) END;
END $$;

-- The columns that a row consists of, as `c` has them, so that it can be made again: without those that are computed.
CREATE FUNCTION tenancy_internal.kept_columns(target oid) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(CASE WHEN tenancy_internal.compared_type(a.atttypid) < 16384 THEN format('c.%I', a.attname)
                           ELSE format('CASE WHEN num_nulls(c.%1$I) = 0 THEN concat(c.%1$I) END AS %1$I', a.attname) END, ', '
                      ORDER BY a.attnum)
      FROM pg_attribute a WHERE a.attrelid = target AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
$$;

-- Its steps name what they use, for a procedure that commits cannot have a search_path of its own.
CREATE PROCEDURE tenancy.repair_orphans(
    target regclass, constraint_name text, action text, dry_run boolean DEFAULT true, batch_size integer DEFAULT 10000,
    reassign_to jsonb DEFAULT NULL
)
LANGUAGE plpgsql AS $$
DECLARE
    work pg_catalog.jsonb := tenancy_internal.plan_repair_step(target, constraint_name, action, dry_run, batch_size, reassign_to);
BEGIN
    IF work IS NOT NULL THEN
        PERFORM tenancy_internal.refuse_in_transaction('tenancy.repair_orphans(...)');
    END IF;
    WHILE work IS NOT NULL LOOP
        work := tenancy_internal.repair_orphans_step(work);
        COMMIT;
    END LOOP;
END $$;

-- Puts a row back as it was, with the rights of the table's owner, for whom the caller may act. Its parent must be there by now.
CREATE FUNCTION tenancy.restore_quarantined(id bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    q tenancy.quarantined_rows;
BEGIN
    DELETE FROM tenancy.quarantined_rows r WHERE r.id = restore_quarantined.id RETURNING r.* INTO q;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no row % is quarantined', COALESCE(id::text, 'NULL')
            USING ERRCODE = 'undefined_object', HINT = 'SELECT * FROM tenancy.quarantined_rows shows those that you may restore.';
    ELSIF NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = q.relation) THEN
        RAISE EXCEPTION 'table % is gone', q.table_name
            USING ERRCODE = 'undefined_table', HINT = 'What the row was stands in tenancy.quarantined_rows.';
    END IF;
    PERFORM tenancy_internal.put_row_back(q.relation, q.row);
END $$;

-- What puts a row back that is given as its first parameter.
CREATE FUNCTION tenancy_internal.restoring_statement(target regclass, given jsonb) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('INSERT INTO %1$s (%2$s) OVERRIDING SYSTEM VALUE SELECT %2$s FROM jsonb_populate_record(NULL::%1$s, $1)', target,
                  string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum))
      FROM pg_attribute a
     WHERE a.attrelid = target AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND given ? a.attname
$$;

-- Quarantined rows are those of tables whose owner the administrator may act for (the policy).
INSERT INTO tenancy_internal.rights (grantee, privileges, kind, objects) VALUES
    ('administrator', 'SELECT, INSERT, DELETE', 'TABLE', '{tenancy.quarantined_rows}'),
    ('administrator', 'EXECUTE', 'ROUTINE', '{tenancy.fk_orphans, tenancy.fk_verify, tenancy.repair_orphans,
        tenancy.restore_quarantined, tenancy_internal.assert_readable, tenancy_internal.orphan_condition,
        tenancy_internal.assert_changeable, tenancy_internal.repaired_columns, tenancy_internal.plan_repair_step,
        tenancy_internal.repair_orphans_step, tenancy_internal.repair_rows, tenancy_internal.put_row_back}');

COMMENT ON TABLE tenancy.quarantined_rows IS
    'rows that tenancy.repair_orphans took out of their table, for who may act for its owner; tenancy.restore_quarantined puts one back';
COMMENT ON COLUMN tenancy.quarantined_rows.table_name IS 'the table as it was called then';
COMMENT ON COLUMN tenancy.quarantined_rows.tenant IS 'what the row''s tenant column held';
COMMENT ON COLUMN tenancy.quarantined_rows.row IS 'the row, without columns that are computed';
COMMENT ON FUNCTION tenancy.fk_orphans(regclass, integer) IS 'rows of a table that refer to a row which is not there, by foreign key; with constraint_name NULL by a hint';
COMMENT ON FUNCTION tenancy.fk_verify() IS 'each foreign key that touches a protected table: rows that refer by it, those with a parent, and those without';
COMMENT ON PROCEDURE tenancy.repair_orphans(regclass, text, text, boolean, integer, jsonb) IS
    'deletes, quarantines, reassigns or sets to NULL what refers to nothing by a foreign key, in batches, then validates it';
COMMENT ON FUNCTION tenancy.restore_quarantined(bigint) IS 'puts a quarantined row back into its table';
COMMENT ON FUNCTION tenancy_internal.orphan_condition(record) IS 'where to look for the orphans of a foreign key, and how to tell them';
COMMENT ON FUNCTION tenancy_internal.assert_readable(regclass) IS 'refuses who cannot see all rows of a table';
COMMENT ON FUNCTION tenancy_internal.assert_changeable(regclass, text) IS 'refuses who has no right to what a repair does';
COMMENT ON FUNCTION tenancy_internal.repaired_columns(regclass, name[], boolean, text, jsonb) IS 'the columns of a foreign key that a repair changes';
COMMENT ON FUNCTION tenancy_internal.repair_statements(regclass, regclass, text, text, jsonb, bigint, bigint) IS 'what finds orphans, and what changes them';
COMMENT ON FUNCTION tenancy_internal.repair_rows(regclass, regclass, text, text, jsonb, bigint, bigint) IS 'repairs the orphans in a span of blocks, as the owner of the table';
COMMENT ON FUNCTION tenancy_internal.restoring_statement(regclass, jsonb) IS 'what puts a quarantined row back';
COMMENT ON FUNCTION tenancy_internal.put_row_back(regclass, jsonb) IS 'puts a quarantined row back, as the owner of the table';
COMMENT ON FUNCTION tenancy_internal.kept_columns(oid) IS 'the columns that a row of a table consists of';
COMMENT ON FUNCTION tenancy_internal.plan_repair_step(regclass, text, text, boolean, integer, jsonb) IS
    'a step of repair_orphans: judges what it is asked for, and plans it';
COMMENT ON FUNCTION tenancy_internal.repair_orphans_step(jsonb) IS 'a step of repair_orphans: one batch, or the end';
