-- room lifecycle, retention · Rust src/lifecycle/retention.rs · tests pgrx-tests/tests/lifecycle/retention.rs

-- How long rows of a table are kept: a tenant's, or where tenant_id is NULL those of all others.
CREATE TABLE tenancy_internal.retention_rules (
    relation    regclass    NOT NULL,          -- the table itself; its partitions and children go with it
    tenant_id   uuid,                          -- no foreign key: see tenants.plan
    column_name name        NOT NULL,
    keep        interval    NOT NULL,
    action      text        NOT NULL CHECK (action IN ('delete', 'archive')),
    archive     regclass,
    set_at      timestamptz NOT NULL DEFAULT pg_catalog.now(),
    set_by      name        NOT NULL DEFAULT session_user,
    CHECK ((action = 'archive') = (archive IS NOT NULL))
);
CREATE UNIQUE INDEX retention_rules_key ON tenancy_internal.retention_rules
    (relation, (COALESCE(tenant_id, '00000000-0000-0000-0000-000000000000')));
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.retention_rules', '');

-- How far the relations have been gone through. Not dumped: it is about places in files of this server.
CREATE TABLE tenancy_internal.expiry_passes (
    task        text        NOT NULL CHECK (task IN ('retention', 'cleanup')),
    relation    oid         NOT NULL,
    root        oid         NOT NULL,
    block       bigint      NOT NULL DEFAULT 0,      -- where to go on
    rows        bigint      NOT NULL DEFAULT 0,      -- removed by the pass at hand, or the last one
    finished_at timestamptz,                         -- of the last pass; NULL while one is under way
    failure     text,
    CONSTRAINT expiry_passes_pkey PRIMARY KEY (task, relation)
) WITH (fillfactor = 50);
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.expiry_passes', 'WHERE false');

CREATE VIEW tenancy.retention_rules AS
SELECT r.relation, r.tenant_id, t.code AS tenant_code, r.column_name, r.keep, r.action, r.archive, r.set_at, r.set_by,
       p.last_run, p.failure
  FROM tenancy_internal.retention_rules r
  LEFT JOIN tenancy.tenants t ON t.id = r.tenant_id
  LEFT JOIN (SELECT e.root, pg_catalog.min(COALESCE(e.finished_at, '-infinity')) AS last_run,
                    pg_catalog.string_agg(e.failure, '; ') AS failure
               FROM tenancy_internal.expiry_passes e WHERE e.task = 'retention' GROUP BY e.root) AS p ON p.root = r.relation;

-- Columns of a table that another one lacks, or has with another type.
CREATE FUNCTION tenancy_internal.columns_not_in(target oid, other oid) RETURNS TABLE (column_name name)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT a.attname FROM pg_attribute a
     WHERE a.attrelid = target AND a.attnum > 0 AND NOT a.attisdropped
       AND NOT EXISTS (SELECT FROM pg_attribute o
                        WHERE o.attrelid = other AND o.attname = a.attname AND o.atttypid = a.atttypid AND NOT o.attisdropped
                          AND o.attgenerated = '')
     ORDER BY a.attnum
$$;

-- The condition that no row refers to row r, by a foreign key that would stop its deletion; by `any_key`, by any.
CREATE FUNCTION tenancy_internal.unreferred(relation regclass, any_key boolean) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT COALESCE(string_agg(format(
               ' AND NOT EXISTS (SELECT FROM %s AS c WHERE %s%s)', f.conrelid::regclass,
               (SELECT string_agg(format('r.%I OPERATOR(%I.%s) c.%I', pa.attname, n.nspname, o.oprname, ca.attname), ' AND ')
                  FROM unnest(f.conkey, f.confkey, f.conpfeqop) AS x(child_column, parent_column, operator)
                  JOIN pg_attribute ca ON ca.attrelid = f.conrelid AND ca.attnum = x.child_column
                  JOIN pg_attribute pa ON pa.attrelid = f.confrelid AND pa.attnum = x.parent_column
                  JOIN pg_operator o ON o.oid = x.operator JOIN pg_namespace n ON n.oid = o.oprnamespace),
               CASE WHEN f.conrelid = f.confrelid THEN ' AND (c.tableoid, c.ctid) <> (r.tableoid, r.ctid)' ELSE '' END),
               '' ORDER BY f.oid), '')
      FROM pg_constraint f
     WHERE f.contype = 'f' AND f.conparentid = 0 AND (any_key OR f.confdeltype IN ('a', 'r'))
       AND f.confrelid IN (SELECT unreferred.relation::oid UNION ALL SELECT tenancy_internal.tables_above(unreferred.relation))
$$;

-- Which rows r of a table are of tenants in a set, as SQL.
CREATE FUNCTION tenancy_internal.rows_of_all(relation regclass, tenants uuid[]) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT COALESCE(string_agg(tenancy_internal.tenant_condition(
               format('r.%I', tenancy_internal.tenant_column(p.relation, p.tenant_column)), p.tenant_key, t), ' OR '), 'false')
      FROM tenancy_internal.protected_tables p JOIN tenancy.tenants t ON t.id = ANY (tenants)
     WHERE p.relation = rows_of_all.relation
$$;

CREATE FUNCTION tenancy_internal.held_tenants() RETURNS uuid[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT ARRAY(SELECT DISTINCT h.tenant_id FROM tenancy_internal.legal_holds h WHERE h.released_at IS NULL)
$$;

-- Refuses to remove deleted rows while a tenant that has some is in legal hold.
CREATE FUNCTION tenancy_internal.refuse_held_rows(target regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    tenant tenancy.tenants;
    is_found boolean;
BEGIN
    FOR tenant IN SELECT t.* FROM tenancy.tenants t WHERE t.id = ANY (tenancy_internal.held_tenants()) ORDER BY t.code LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %s AS r WHERE r.deleted_at IS NOT NULL AND (%s))', target,
                       tenancy_internal.rows_of_all(target, ARRAY[tenant.id])) INTO is_found;
        IF is_found THEN
            RAISE EXCEPTION 'table % has deleted rows of tenant "%", which is in legal hold', target, tenant.code
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      HINT = 'Say deleted_rows => ''restore'', or call tenancy.release_legal_hold(...) when the cases are closed.';
        END IF;
    END LOOP;
END $$;

-- What finds the places of rows that are due in a span of blocks, and locks them; and what removes what lies at these places, and
-- gives the number. The first is for who may look at other tables too, the second for the table's owner. PostgreSQL 13 cannot
-- begin in the middle of a table: it goes through all of it at once.
CREATE FUNCTION tenancy_internal.expiry_statements(relation regclass, task text, from_block bigint, to_block bigint)
RETURNS TABLE (find text, remove text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    span text := CASE WHEN current_setting('server_version_num')::integer < 140000 THEN 'true'
                      ELSE format('r.ctid >= %L::tid AND r.ctid < %L::tid', format('(%s,0)', from_block), format('(%s,0)', to_block)) END;
    held text := format('(%s) IS NOT TRUE', tenancy_internal.rows_of_all(expiry_statements.relation, tenancy_internal.held_tenants()));
    found_root regclass := (SELECT p.root FROM tenancy_internal.protected_tables p WHERE p.relation = expiry_statements.relation);
    deletion text := format('WITH gone AS (DELETE FROM ONLY %s WHERE ctid = ANY ($1::text::tid[]) RETURNING 1) SELECT count(*) FROM gone',
                            expiry_statements.relation);
    rule record;
    whose text;
    columns text;
BEGIN
    IF task = 'cleanup' THEN
        IF EXISTS (SELECT FROM tenancy_internal.soft_deleted_tables s WHERE s.relation = found_root) THEN
            find := format('SELECT array_agg(d.ctid)::text FROM (SELECT r.ctid FROM ONLY %s AS r
                             WHERE %s AND r.deleted_at < now() - %L::interval AND %s%s FOR UPDATE OF r) AS d', expiry_statements.relation,
                           span, tenancy_internal.deletion_grace(), held, tenancy_internal.unreferred(expiry_statements.relation, true));
            remove := deletion;
            RETURN NEXT;
        END IF;
        RETURN;
    END IF;
    FOR rule IN SELECT r.* FROM tenancy_internal.retention_rules r WHERE r.relation = found_root ORDER BY r.tenant_id NULLS LAST LOOP
        whose := CASE WHEN rule.tenant_id IS NOT NULL THEN tenancy_internal.rows_of_all(expiry_statements.relation, ARRAY[rule.tenant_id])
                      ELSE format('(%s) IS NOT TRUE', tenancy_internal.rows_of_all(expiry_statements.relation, ARRAY(
                               SELECT o.tenant_id FROM tenancy_internal.retention_rules o WHERE o.relation = found_root AND o.tenant_id IS NOT NULL))) END;
        -- What would go, or change, with a row is not archived: the row stays as long as others refer to it.
        find := format('SELECT array_agg(d.ctid)::text FROM (SELECT r.ctid FROM ONLY %s AS r
                         WHERE %s AND r.%I < now() - %L::interval AND (%s) AND %s%s FOR UPDATE OF r) AS d', expiry_statements.relation,
                       span, rule.column_name, rule.keep, whose, held,
                       tenancy_internal.unreferred(expiry_statements.relation, rule.action = 'archive'));
        remove := deletion;
        IF rule.action = 'archive' THEN
            -- The statement's own table is looked at where it runs; what a rule does instead would be done past row security as well.
            IF EXISTS (SELECT FROM pg_rewrite w WHERE w.ev_class = rule.archive) THEN
                RAISE EXCEPTION 'table % has rewrite rules', rule.archive
                    USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Drop them: rows are archived as they are, or not at all.';
            END IF;
            SELECT string_agg(quote_ident(c.column_name), ', ') INTO columns
              FROM tenancy_internal.columns_not_in(expiry_statements.relation, rule.archive) c;
            IF columns IS NOT NULL THEN
                RAISE EXCEPTION 'table % cannot take the rows of %: it lacks, or has with another type, %', rule.archive, found_root, columns
                    USING ERRCODE = 'datatype_mismatch', HINT = 'Add these columns to the archive.';
            END IF;
            SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) INTO columns
              FROM pg_attribute a WHERE a.attrelid = expiry_statements.relation AND a.attnum > 0 AND NOT a.attisdropped;
            remove := format('WITH gone AS (DELETE FROM ONLY %1$s WHERE ctid = ANY ($1::text::tid[]) RETURNING %3$s),
                                   kept AS (INSERT INTO %2$s (%3$s) SELECT %3$s FROM gone RETURNING 1)
                              SELECT count(*) FROM kept', expiry_statements.relation, rule.archive, columns);
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;

-- Whether there is anything to look for, where an index tells it at once.
CREATE FUNCTION tenancy_internal.may_expire(relation regclass, task text, root regclass) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    rule record;
    is_found boolean;
BEGIN
    IF task = 'cleanup' THEN
        RETURN true;
    END IF;
    FOR rule IN SELECT q.column_name, min(q.keep) AS keep FROM tenancy_internal.retention_rules q
                 WHERE q.relation = may_expire.root GROUP BY 1
    LOOP
        IF NOT EXISTS (SELECT FROM pg_index x JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0]
                        WHERE x.indrelid = may_expire.relation AND x.indisvalid AND x.indpred IS NULL AND a.attname = rule.column_name) THEN
            RETURN true;
        END IF;
        EXECUTE format('SELECT EXISTS (SELECT FROM ONLY %s WHERE %I < now() - %L::interval)', may_expire.relation, rule.column_name, rule.keep)
           INTO is_found;
        IF is_found THEN
            RETURN true;
        END IF;
    END LOOP;
    RETURN false;
END $$;

-- The relations with rows of their own that a task goes through.
CREATE FUNCTION tenancy_internal.expiring_relations(task text) RETURNS TABLE (relation oid, root oid)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.oid, r.root
      FROM (SELECT q.relation::oid AS root FROM tenancy_internal.retention_rules q WHERE task = 'retention'
             UNION SELECT s.relation FROM tenancy_internal.soft_deleted_tables s WHERE task = 'cleanup') AS r
     CROSS JOIN LATERAL tenancy_internal.table_family(r.root) AS f(relation)
      JOIN pg_class c ON c.oid = f.relation AND c.relkind = 'r'
$$;

-- Takes the turn at a task, and makes a list of what to go through.
CREATE FUNCTION tenancy_internal.begin_expiry_step(task text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    job bigint;
BEGIN
    IF (task IN ('retention', 'cleanup')) IS NOT TRUE THEN
        RAISE EXCEPTION 'there is no task %', COALESCE(quote_literal(task), 'NULL')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'CALL tenancy.run_retention() or tenancy.purge_deleted() instead.';
    END IF;
    job := tenancy_internal.begin_job(task, CASE task WHEN 'retention' THEN 'all tables' ELSE 'deleted rows' END, 'planning');
    DELETE FROM tenancy_internal.expiry_passes p
     WHERE p.task = begin_expiry_step.task
       AND p.relation NOT IN (SELECT r.relation FROM tenancy_internal.expiring_relations(begin_expiry_step.task) r);
    INSERT INTO tenancy_internal.expiry_passes (task, relation, root)
    SELECT begin_expiry_step.task, r.relation, r.root FROM tenancy_internal.expiring_relations(begin_expiry_step.task) r
    ON CONFLICT (task, relation) DO UPDATE SET root = EXCLUDED.root;
    RETURN job;
END $$;

-- The job that this session is at work on.
CREATE FUNCTION tenancy_internal.expiry_at_hand(job bigint) RETURNS tenancy_internal.jobs
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    j tenancy_internal.jobs;
BEGIN
    SELECT q.* INTO j FROM tenancy_internal.jobs q WHERE q.id = job;
    IF j.id IS NULL OR j.kind NOT IN ('retention', 'cleanup') OR NOT tenancy_internal.has_turn(j.kind, j.subject) THEN
        RAISE EXCEPTION 'this session is not at work on such a job' USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'CALL tenancy.run_retention() or tenancy.purge_deleted() instead.';
    END IF;
    RETURN j;
END $$;

-- Goes through the next span of blocks; false when all relations have been gone through since the job began. What a stopped run
-- left half-way comes first. What fails is left for the next run, and does not keep the others.
CREATE FUNCTION tenancy_internal.expire_step(job bigint, batch_size integer) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    j tenancy_internal.jobs := tenancy_internal.expiry_at_hand(job);
    p tenancy_internal.expiry_passes;
    blocks bigint;
    next_block bigint;
    gone bigint := 0;
    failed text;
BEGIN
    IF (batch_size BETWEEN 1 AND 1000000) IS NOT TRUE THEN
        RAISE EXCEPTION 'batch_size must be from 1 to 1000000' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Leave it out, or give the number of rows that a transaction may look at.';
    END IF;
    SELECT q.* INTO p FROM tenancy_internal.expiry_passes q
     WHERE q.task = j.kind AND (q.finished_at IS NULL OR q.finished_at < j.started_at)
     ORDER BY q.block = 0, q.finished_at NULLS FIRST, q.relation LIMIT 1;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    blocks := COALESCE(pg_relation_size(p.relation) / current_setting('block_size')::bigint, 0);
    SELECT p.block + GREATEST((CASE WHEN c.reltuples > 0 AND c.relpages > 0 THEN batch_size * c.relpages / c.reltuples
                                    ELSE batch_size / 50 END)::bigint, 1)
      INTO next_block FROM pg_class c WHERE c.oid = p.relation;
    BEGIN
        IF p.block > 0 OR tenancy_internal.may_have_due_rows(p.relation, j.kind, p.root) THEN
            gone := tenancy_internal.expire_rows(p.relation, j.kind, p.block, next_block);
        ELSE
            next_block := blocks;
        END IF;
    EXCEPTION WHEN OTHERS THEN
        failed := format('%s: %s', p.relation::regclass, SQLERRM);
    END;
    IF failed IS NOT NULL OR next_block >= blocks OR current_setting('server_version_num')::integer < 140000 THEN
        UPDATE tenancy_internal.expiry_passes q
           SET block = 0, finished_at = clock_timestamp(), failure = failed, rows = CASE WHEN p.block > 0 THEN q.rows ELSE 0 END + gone
         WHERE q.task = p.task AND q.relation = p.relation;
    ELSE
        UPDATE tenancy_internal.expiry_passes q
           SET block = next_block, finished_at = NULL, failure = NULL, rows = CASE WHEN p.block > 0 THEN q.rows ELSE 0 END + gone
         WHERE q.task = p.task AND q.relation = p.relation;
    END IF;
    PERFORM tenancy_internal.tell_job(job, p.relation::regclass::text, gone);
    RETURN true;
END $$;

-- Reports, and gives the turn back.
CREATE FUNCTION tenancy_internal.end_expiry_step(job bigint, state text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    j tenancy_internal.jobs := tenancy_internal.expiry_at_hand(job);
    failed text;
BEGIN
    FOR failed IN SELECT p.failure FROM tenancy_internal.expiry_passes p
                   WHERE p.task = j.kind AND p.failure IS NOT NULL AND p.finished_at >= j.started_at ORDER BY p.relation
    LOOP
        RAISE WARNING '%', failed;
    END LOOP;
    RAISE NOTICE '%: % rows removed%', j.kind, j.done,
        CASE end_expiry_step.state WHEN 'stopped' THEN '; stopped, for its time is over: the same call goes on from there' ELSE '' END;
    PERFORM tenancy_internal.end_job(job, end_expiry_step.state);
END $$;

-- A procedure that commits has no SET clause and is no SECURITY DEFINER: it calls steps, and names everything in full.
CREATE PROCEDURE tenancy.run_retention(max_seconds integer DEFAULT NULL, batch_size integer DEFAULT 10000) LANGUAGE plpgsql AS $$
DECLARE
    stop_at timestamp with time zone := pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => max_seconds);
    job bigint;
    state pg_catalog.text := 'done';
BEGIN
    PERFORM tenancy_internal.refuse_in_transaction('tenancy.run_retention()');
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    job := tenancy_internal.begin_expiry_step('retention');
    LOOP
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        EXIT WHEN NOT tenancy_internal.expire_step(job, batch_size);
        IF pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>=) stop_at THEN
            state := 'stopped';
            EXIT;
        END IF;
    END LOOP;
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    PERFORM tenancy_internal.end_expiry_step(job, state);
END $$;

-- The next deleted tenant whose grace is over and who is not purged yet, after this one in the order of codes.
CREATE FUNCTION tenancy_internal.due_tenant_step(after text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT t.code FROM tenancy.tenants t
             WHERE t.status = 'deleted' AND t.deleted_at < now() - tenancy_internal.deletion_grace()
               AND t.id <> ALL (tenancy_internal.held_tenants()) AND t.code > due_tenant_step.after
               AND (NOT EXISTS (SELECT FROM tenancy_internal.purge_certificates c WHERE c.tenant_id = t.id)
                    OR EXISTS (SELECT FROM tenancy_internal.purges u WHERE u.tenant_id = t.id))
             ORDER BY t.code LIMIT 1);
END $$;

-- One step of the purge of deleted tenants whose grace is over: {"over": true} with the last one, and in "failed" what keeps a
-- tenant, which does not keep the next.
CREATE FUNCTION tenancy_internal.purge_part_of_due(state jsonb, batch_size integer) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    purge bigint := state ->> 'purge';
    tenant text := COALESCE(state ->> 'tenant', '');
    failed jsonb := COALESCE(state -> 'failed', '[]');
    said text;
    advice text;
BEGIN
    IF purge IS NULL THEN
        tenant := tenancy_internal.due_tenant_step(tenant);
        IF tenant IS NULL THEN
            RETURN jsonb_build_object('over', true, 'failed', failed);
        END IF;
    END IF;
    BEGIN
        IF purge IS NULL THEN
            purge := tenancy_internal.begin_purge_step(tenant, tenant, false, batch_size, NULL, 0, false);
        ELSIF state ->> 'at' = 'purge' THEN
            IF NOT tenancy_internal.purge_step(purge) THEN
                RETURN state || '{"at": "finish"}';
            END IF;
        ELSIF tenancy_internal.finish_purge_step(purge) THEN
            purge := NULL;
        END IF;
    EXCEPTION WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS said = MESSAGE_TEXT, advice = PG_EXCEPTION_HINT;
        failed := failed || jsonb_build_object('subject', tenant, 'failure', said, 'hint', NULLIF(advice, ''));
        PERFORM tenancy_internal.end_job(u.job, 'interrupted') FROM tenancy_internal.purges u
          WHERE u.code = tenant AND tenancy_internal.has_turn('purge', tenant);
        -- A turn outlives the failure of a part of a transaction.
        PERFORM tenancy_internal.give_turn('purge', tenant);
        purge := NULL;
    END;
    RETURN jsonb_strip_nulls(jsonb_build_object('tenant', tenant, 'failed', failed, 'purge', purge, 'at', 'purge'));
END $$;

-- Leaves the purge that is at hand, if there is one, to the next call.
CREATE FUNCTION tenancy_internal.stop_purge_of_due(state jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    u tenancy_internal.purges;
BEGIN
    IF state ? 'purge' THEN
        u := tenancy_internal.purge_at_hand((state ->> 'purge')::bigint);
        PERFORM tenancy_internal.end_job(u.job, 'stopped');
        RAISE NOTICE 'the purge of tenant "%" has stopped, for the time is over; the same call goes on from there', u.code;
    END IF;
END $$;

CREATE FUNCTION tenancy_internal.purge_due_step(state jsonb, batch_size integer) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN tenancy_internal.purge_part_of_due(state, batch_size);
END $$;

-- Says which tenants are still there, and why.
CREATE FUNCTION tenancy_internal.end_purge_due_step(state jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    failed jsonb;
BEGIN
    PERFORM tenancy_internal.stop_purge_of_due(state);
    FOR failed IN SELECT e FROM jsonb_array_elements(state -> 'failed') AS e LOOP
        RAISE WARNING 'tenant "%" could not be purged: %', failed ->> 'subject', failed ->> 'failure'
            USING HINT = COALESCE(failed ->> 'hint', 'Call the same again when what it says is mended.');
    END LOOP;
END $$;

CREATE PROCEDURE tenancy.purge_deleted(max_seconds integer DEFAULT NULL, batch_size integer DEFAULT 10000) LANGUAGE plpgsql AS $$
DECLARE
    stop_at timestamp with time zone := pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => max_seconds);
    job bigint;
    ending pg_catalog.text := 'done';
    state pg_catalog.jsonb := '{}';
BEGIN
    PERFORM tenancy_internal.refuse_in_transaction('tenancy.purge_deleted()');
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    job := tenancy_internal.begin_expiry_step('cleanup');
    LOOP
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        EXIT WHEN NOT tenancy_internal.expire_step(job, batch_size);
        IF pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>=) stop_at THEN
            ending := 'stopped';
            EXIT;
        END IF;
    END LOOP;
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    PERFORM tenancy_internal.end_expiry_step(job, ending);
    LOOP
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        EXIT WHEN pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>=) stop_at;
        state := tenancy_internal.purge_due_step(state, batch_size);
        EXIT WHEN state OPERATOR(pg_catalog.?) 'over';
    END LOOP;
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    PERFORM tenancy_internal.end_purge_due_step(state);
END $$;

CREATE FUNCTION tenancy_internal.forget_retention() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
BEGIN
    DELETE FROM tenancy_internal.retention_rules r
     WHERE EXISTS (SELECT FROM pg_event_trigger_dropped_objects() d
                    WHERE d.classid = 'pg_class'::regclass AND d.objid IN (r.relation, r.archive) AND d.objsubid = 0);
END $$;
CREATE EVENT TRIGGER tenancy_forget_retention ON sql_drop
    WHEN TAG IN ('DROP EXTENSION', 'DROP OWNED', 'DROP SCHEMA', 'DROP TABLE')
    EXECUTE FUNCTION tenancy_internal.forget_retention();
ALTER EVENT TRIGGER tenancy_forget_retention ENABLE ALWAYS;

-- The steps are for procedures, which run with their caller's rights.
INSERT INTO tenancy_internal.rights (grantee, privileges, kind, objects) VALUES
    ('administrator', 'SELECT', 'TABLE', '{tenancy.retention_rules}'),
    ('administrator', 'EXECUTE', 'ROUTINE', '{tenancy.set_retention, tenancy.run_retention, tenancy.purge_deleted,
        tenancy_internal.begin_expiry_step, tenancy_internal.expire_step, tenancy_internal.end_expiry_step,
        tenancy_internal.due_tenant_step, tenancy_internal.purge_due_step, tenancy_internal.end_purge_due_step}');

COMMENT ON EVENT TRIGGER tenancy_forget_retention IS 'takes the rules of dropped tables away';
COMMENT ON TABLE tenancy_internal.retention_rules IS 'how long rows are kept';
COMMENT ON TABLE tenancy_internal.expiry_passes IS 'how far tables have been gone through for rows that are due';
COMMENT ON VIEW tenancy.retention_rules IS
    'how long rows are kept (tenancy.set_retention): by table and tenant, and where tenant_id is NULL those of all others';
COMMENT ON COLUMN tenancy.retention_rules.last_run IS 'when all of the table was gone through last; -infinity where never';
COMMENT ON COLUMN tenancy.retention_rules.failure IS 'why rows could not be removed in the last run';
COMMENT ON FUNCTION tenancy_internal.columns_not_in(oid, oid) IS 'columns of a table that another one lacks, or has with another type';
COMMENT ON FUNCTION tenancy_internal.unreferred(regclass, boolean) IS 'the condition that no row refers to a row, as SQL';
COMMENT ON FUNCTION tenancy_internal.rows_of_all(regclass, uuid[]) IS 'which rows of a table are of some tenants, as SQL';
COMMENT ON FUNCTION tenancy_internal.held_tenants() IS 'the tenants in legal hold';
COMMENT ON FUNCTION tenancy_internal.refuse_held_rows(regclass) IS 'refuses to remove deleted rows of tenants in legal hold';
COMMENT ON FUNCTION tenancy_internal.expiry_statements(regclass, text, bigint, bigint) IS 'what finds and what removes the rows that are due in a span of blocks';
COMMENT ON FUNCTION tenancy_internal.may_expire(regclass, text, regclass) IS 'whether a relation may have rows that are due';
COMMENT ON FUNCTION tenancy_internal.may_have_due_rows(regclass, text, regclass) IS 'the same, asked with all rights and none for code of the table''s owner';
COMMENT ON FUNCTION tenancy_internal.expiring_relations(text) IS 'the relations that a task goes through';
COMMENT ON FUNCTION tenancy_internal.expire_rows(regclass, text, bigint, bigint) IS 'removes the rows that are due from a span of blocks';
COMMENT ON FUNCTION tenancy_internal.expiry_at_hand(bigint) IS 'the job of retention that this session is at work on';
COMMENT ON FUNCTION tenancy_internal.begin_expiry_step(text) IS 'a step of run_retention and purge_deleted: takes the turn';
COMMENT ON FUNCTION tenancy_internal.expire_step(bigint, integer) IS 'a step of run_retention and purge_deleted: the next span of blocks; false when there are no more';
COMMENT ON FUNCTION tenancy_internal.end_expiry_step(bigint, text) IS 'a step of run_retention and purge_deleted: reports and gives the turn back';
COMMENT ON FUNCTION tenancy_internal.due_tenant_step(text) IS 'a step of purge_deleted: the next tenant whose grace is over';
COMMENT ON FUNCTION tenancy_internal.purge_part_of_due(jsonb, integer) IS 'one step of the purge of deleted tenants';
COMMENT ON FUNCTION tenancy_internal.stop_purge_of_due(jsonb) IS 'leaves the purge of a deleted tenant to the next call';
COMMENT ON FUNCTION tenancy_internal.purge_due_step(jsonb, integer) IS 'a step of purge_deleted: the next step of the purge of deleted tenants';
COMMENT ON FUNCTION tenancy_internal.end_purge_due_step(jsonb) IS 'a step of purge_deleted: says which tenants could not be purged';
COMMENT ON FUNCTION tenancy_internal.forget_retention() IS 'takes the rules of dropped tables away';
COMMENT ON FUNCTION tenancy.set_retention(regclass, name, interval, text, text) IS
    'how long rows of a table are kept, all tenants'' or one''s, and whether they are deleted or archived then; keep NULL ends it';
COMMENT ON PROCEDURE tenancy.run_retention(integer, integer) IS 'removes rows that are past their retention, in batches; call it again to go on where it stopped';
COMMENT ON PROCEDURE tenancy.purge_deleted(integer, integer) IS
    'removes deleted rows, and the rows of deleted tenants, whose grace (tenancy.deletion_grace) is over';
