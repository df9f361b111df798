-- room lifecycle, maintenance · tests pgrx-tests/tests/lifecycle/maintenance.rs

-- What maintain() did: a run's parts, each for itself.
CREATE TABLE tenancy_internal.maintenance_parts (
    run         bigint      NOT NULL,
    place       integer     NOT NULL,
    part        text        NOT NULL,
    state       text        NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done', 'failed', 'stopped', 'interrupted')),
    started_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    finished_at timestamptz,
    failure     text,
    hint        text,
    run_by      name        NOT NULL DEFAULT session_user,
    CONSTRAINT maintenance_parts_pkey PRIMARY KEY (run, place)
);
CREATE SEQUENCE tenancy_internal.maintenance_run_ids;
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.maintenance_parts', '');
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.maintenance_run_ids', '');

CREATE VIEW tenancy.maintenance_runs AS
SELECT run, part, state, started_at, finished_at, failure, hint, run_by FROM tenancy_internal.maintenance_parts;

-- One step of the audit log's maintenance, as tenancy.maintain_audit() takes them; the state to go on with, NULL at the end.
CREATE FUNCTION tenancy_internal.maintain_audit_part(state jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    run bigint := state ->> 'run';
    names text[] := ARRAY(SELECT jsonb_array_elements_text(COALESCE(state -> 'names', '[]')));
    block bigint;
BEGIN
    CASE COALESCE(state ->> 'at', 'begin')
    WHEN 'begin' THEN
        RETURN jsonb_build_object('at', 'stage', 'run', tenancy_internal.begin_audit_step('maintain'));
    WHEN 'stage' THEN
        RETURN state || CASE WHEN tenancy_internal.stage_audit_step(run) THEN '{"at": "copy", "block": 0}'::jsonb ELSE '{"at": "attach"}' END;
    WHEN 'copy' THEN
        block := tenancy_internal.copy_audit_step(run, (state ->> 'block')::bigint);
        RETURN state || CASE WHEN block IS NULL THEN '{"at": "catch up", "left": 2}' ELSE jsonb_build_object('block', block) END;
    WHEN 'catch up' THEN
        PERFORM tenancy_internal.catch_up_audit_step(run);
        RETURN state || CASE WHEN (state ->> 'left')::integer > 1 THEN '{"left": 1}'::jsonb ELSE '{"at": "attach"}' END;
    WHEN 'attach' THEN
        PERFORM tenancy_internal.attach_audit_step(run);
        RETURN state || jsonb_build_object('at', 'drop', 'names', to_jsonb(tenancy_internal.expired_audit_step(true)));
    WHEN 'drop' THEN
        IF names = '{}' THEN
            RETURN state || jsonb_build_object('at', 'prune', 'names', to_jsonb(tenancy_internal.expired_audit_step(false)));
        END IF;
        PERFORM tenancy_internal.drop_audit_step(run, names[1]);
        RETURN state || jsonb_build_object('names', to_jsonb(names[2:]));
    ELSE
        IF names = '{}' THEN
            PERFORM tenancy_internal.end_audit_step(run);
            RETURN NULL;
        ELSIF tenancy_internal.prune_audit_step(run, names[1]) THEN
            RETURN state;
        END IF;
        RETURN state || jsonb_build_object('names', to_jsonb(names[2:]));
    END CASE;
END $$;

-- One step of retention or of the removal of deleted rows.
CREATE FUNCTION tenancy_internal.expire_part(task text, state jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    this_job bigint := state ->> 'job';
    failed text;
BEGIN
    IF this_job IS NULL THEN
        RETURN jsonb_build_object('job', tenancy_internal.begin_expiry_step(task));
    ELSIF tenancy_internal.expire_step(this_job, 10000) THEN
        RETURN state;
    END IF;
    SELECT string_agg(p.failure, '; ' ORDER BY p.relation) INTO failed
      FROM tenancy_internal.expiry_passes p JOIN tenancy_internal.jobs j ON j.id = this_job
     WHERE p.task = expire_part.task AND p.finished_at >= j.started_at;
    PERFORM tenancy_internal.end_expiry_step(this_job, 'done');
    IF failed IS NOT NULL THEN
        RETURN jsonb_build_object('failure', failed);
    END IF;
    RETURN NULL;
END $$;

-- What could not be done of a part, as its record has it; NULL where all was done.
CREATE FUNCTION tenancy_internal.tell_failures(failed jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_strip_nulls(jsonb_build_object('failure', string_agg(format('%s: %s', f.subject, f.failure), '; ' ORDER BY f.place),
                                                'hint', string_agg(DISTINCT f.hint, ' ')))
      FROM (SELECT e ->> 'subject' AS subject, e ->> 'failure' AS failure, e ->> 'hint' AS hint, place
              FROM jsonb_array_elements(failed) WITH ORDINALITY AS u(e, place)) AS f
    HAVING count(*) > 0
$$;

-- Protected tables whose statistics are missing, or old by the measure of autovacuum. It never looks at a table for the sake of its
-- partitions or children, so those of the whole are old when that much has changed in them. Before 14 a partitioned table has no
-- number of rows to compare with. It asks for no size of a table, which would wait for whoever has it locked.
CREATE FUNCTION tenancy_internal.stale_statistics(target oid DEFAULT NULL) RETURNS TABLE (relation regclass, has_parts boolean, reason text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.oid::regclass, h.has_parts,
           CASE WHEN m.is_missing THEN 'it has no statistics'
                ELSE format('about %s rows of %s have changed since its statistics were made', m.changed, m.rows) END
      FROM tenancy_internal.protected_tables p
      JOIN pg_class c ON c.oid = p.relation AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
     CROSS JOIN LATERAL (SELECT c.relkind = 'p' OR EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid) AS has_parts) AS h
     CROSS JOIN LATERAL (
        SELECT sum(GREATEST(o.reltuples, 0))::bigint AS rows, sum(pg_stat_get_mod_since_analyze(o.oid))::bigint AS changed
          FROM tenancy_internal.table_family(c.oid) AS f(relation) JOIN pg_class o ON o.oid = f.relation AND o.relkind = 'r') AS w
     CROSS JOIN LATERAL (
        SELECT w.rows, w.changed + CASE WHEN c.relkind = 'p' AND current_setting('server_version_num')::integer >= 140000
                                        THEN abs(w.rows - c.reltuples)::bigint ELSE 0 END AS changed,
               w.rows IS NOT NULL AND NOT EXISTS (SELECT FROM pg_statistic s WHERE s.starelid = c.oid AND s.stainherit = h.has_parts)
                   AND num_nonnulls(pg_stat_get_last_analyze_time(c.oid), pg_stat_get_last_autoanalyze_time(c.oid)) = 0 AS is_missing) AS m
     CROSS JOIN LATERAL (
        SELECT COALESCE(max(o.option_value::float8) FILTER (WHERE o.option_name = 'autovacuum_analyze_threshold'),
                        current_setting('autovacuum_analyze_threshold')::float8)
               + m.rows * COALESCE(max(o.option_value::float8) FILTER (WHERE o.option_name = 'autovacuum_analyze_scale_factor'),
                                   current_setting('autovacuum_analyze_scale_factor')::float8) AS limit_of_changes
          FROM pg_options_to_table(c.reloptions) o) AS t
     WHERE (target IS NULL OR c.oid = target) AND (m.is_missing OR m.changed > t.limit_of_changes)
$$;

-- Makes the statistics of one table. It gives way before autovacuum would have to (deadlock_timeout).
CREATE FUNCTION tenancy_internal.refresh_statistics(target regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms' AS $$
BEGIN
    -- Its partitions have a turn of their own. Before 18 they come along.
    EXECUTE format('ANALYZE %s%s', CASE WHEN current_setting('server_version_num')::integer >= 180000
        AND (SELECT c.relkind = 'p' FROM pg_class c WHERE c.oid = target) THEN 'ONLY ' ELSE '' END, target);
END $$;

-- One step of the refresh of statistics: a table. What has partitions or children comes first, for they may come along with it.
CREATE FUNCTION tenancy_internal.refresh_statistics_part(state jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    target oid := state -> 'tables' ->> 0;
    said text;
    advice text;
    code text;
BEGIN
    IF NOT state ? 'tables' THEN
        RETURN jsonb_build_object('failed', '[]'::jsonb, 'tables', (
            SELECT COALESCE(jsonb_agg(s.relation::oid::bigint ORDER BY s.has_parts DESC, s.relation::oid), '[]')
              FROM tenancy_internal.stale_statistics() s));
    ELSIF target IS NULL THEN
        RETURN tenancy_internal.tell_failures(state -> 'failed');
    END IF;
    state := jsonb_set(state, '{tables}', (state -> 'tables') - 0);
    BEGIN
        -- Dropped since, or made fresh by autovacuum or with its parent.
        IF EXISTS (SELECT FROM tenancy_internal.stale_statistics(target)) THEN
            PERFORM tenancy_internal.refresh_statistics(target);
        END IF;
    EXCEPTION WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS said = MESSAGE_TEXT, advice = PG_EXCEPTION_HINT, code = RETURNED_SQLSTATE;
        IF code = '55P03' THEN
            said := 'another session has it locked';
            advice := 'The next run tries again what was locked.';
        END IF;
        state := jsonb_set(state, '{failed}', (state -> 'failed') || jsonb_build_object(
            'subject', target::regclass, 'failure', said, 'hint', NULLIF(advice, '')));
    END;
    RETURN state;
END $$;

CREATE FUNCTION tenancy_internal.maintenance_parts_in_order() RETURNS text[]
LANGUAGE sql IMMUTABLE AS $$ SELECT ARRAY['audit log', 'retention', 'deleted rows', 'deleted tenants', 'statistics'] $$;

-- Refuses a step by a session that is not at work on maintenance.
CREATE FUNCTION tenancy_internal.assert_maintenance() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT tenancy_internal.has_turn('maintenance', current_database()) THEN
        RAISE EXCEPTION 'this session is not at work on maintenance'
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'CALL tenancy.maintain() instead.';
    END IF;
END $$;

-- Takes the turn, and closes what a run that died has left open.
CREATE FUNCTION tenancy_internal.begin_maintenance_step() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    job bigint := tenancy_internal.begin_job('maintenance', current_database(), 'beginning',
        cardinality(tenancy_internal.maintenance_parts_in_order()));
BEGIN
    UPDATE tenancy_internal.maintenance_parts SET state = 'interrupted', finished_at = clock_timestamp() WHERE state = 'running';
    DELETE FROM tenancy_internal.maintenance_parts p WHERE p.started_at < now() - interval '400 days';
    RETURN job;
END $$;

-- Opens the record of the next part.
CREATE FUNCTION tenancy_internal.open_maintenance_step(run bigint, place integer) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    part text := (tenancy_internal.maintenance_parts_in_order())[place];
BEGIN
    PERFORM tenancy_internal.assert_maintenance();
    IF part IS NOT NULL THEN
        INSERT INTO tenancy_internal.maintenance_parts (run, place, part) VALUES (open_maintenance_step.run, open_maintenance_step.place, part);
    END IF;
    RETURN part;
END $$;

-- Does the next step of a part; {"over": true} with its last one, and with a failure, which gives back what the part held.
CREATE FUNCTION tenancy_internal.do_maintenance_step(job bigint, part text, state jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    said text;
    advice text;
    next_state jsonb;
BEGIN
    PERFORM tenancy_internal.assert_maintenance();
    BEGIN
        next_state := CASE part WHEN 'audit log' THEN tenancy_internal.maintain_audit_part(state)
                                WHEN 'retention' THEN tenancy_internal.expire_part('retention', state)
                                WHEN 'deleted rows' THEN tenancy_internal.expire_part('cleanup', state)
                                WHEN 'deleted tenants' THEN tenancy_internal.purge_part_of_due(state, 10000)
                                ELSE tenancy_internal.refresh_statistics_part(state) END;
        IF part = 'deleted tenants' AND next_state ? 'over' THEN
            next_state := tenancy_internal.tell_failures(next_state -> 'failed');
        END IF;
        PERFORM tenancy_internal.tell_job(job, part);
    EXCEPTION WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS said = MESSAGE_TEXT, advice = PG_EXCEPTION_HINT;
        -- A turn outlives the failure of a part of a transaction.
        IF part = 'audit log' AND state ? 'run' THEN
            PERFORM tenancy_internal.give_audit_turn();
        ELSIF state ? 'job' THEN
            PERFORM tenancy_internal.end_job((state ->> 'job')::bigint, 'interrupted');
        END IF;
        next_state := jsonb_build_object('failure', said, 'hint', NULLIF(advice, ''));
    END;
    IF next_state IS NULL OR next_state ? 'failure' THEN
        RETURN COALESCE(next_state, '{}') || '{"over": true}';
    END IF;
    RETURN next_state;
END $$;

-- Closes the record of a part.
CREATE FUNCTION tenancy_internal.close_maintenance_step(job bigint, run bigint, place integer, state jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    part text;
BEGIN
    PERFORM tenancy_internal.assert_maintenance();
    UPDATE tenancy_internal.maintenance_parts p
       SET state = CASE WHEN close_maintenance_step.state ? 'failure' THEN 'failed'
                        WHEN close_maintenance_step.state ? 'over' THEN 'done' ELSE 'stopped' END,
           failure = close_maintenance_step.state ->> 'failure', hint = close_maintenance_step.state ->> 'hint', finished_at = clock_timestamp()
     WHERE p.run = close_maintenance_step.run AND p.place = close_maintenance_step.place RETURNING p.part INTO part;
    IF state ? 'failure' THEN
        RAISE WARNING 'maintenance: % failed: %', part, state ->> 'failure' USING HINT = COALESCE(state ->> 'hint', '');
    ELSIF NOT state ? 'over' THEN
        IF part = 'audit log' AND state ? 'run' THEN
            PERFORM tenancy_internal.give_audit_turn();
        ELSIF state ? 'job' THEN
            PERFORM tenancy_internal.end_job((state ->> 'job')::bigint, 'stopped');
        ELSIF state ? 'purge' THEN
            PERFORM tenancy_internal.stop_purge_of_due(state);
        END IF;
    END IF;
    PERFORM tenancy_internal.tell_job(job, part, 1);
END $$;

CREATE FUNCTION tenancy_internal.end_maintenance_step(job bigint, state text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM tenancy_internal.end_job(job, end_maintenance_step.state);
END $$;

CREATE FUNCTION tenancy_internal.next_maintenance_step() RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT nextval('tenancy_internal.maintenance_run_ids')
$$;

-- A procedure that commits has no SET clause and is no SECURITY DEFINER: it calls steps, and names everything in full.
CREATE PROCEDURE tenancy.maintain(max_seconds integer DEFAULT NULL) LANGUAGE plpgsql AS $$
DECLARE
    stop_at timestamp with time zone := pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => max_seconds);
    job bigint;
    run bigint;
    place integer := 0;
    part pg_catalog.text;
    state pg_catalog.jsonb;
    is_late boolean := false;
BEGIN
    PERFORM tenancy_internal.refuse_in_transaction('tenancy.maintain()');
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    job := tenancy_internal.begin_maintenance_step();
    run := tenancy_internal.next_maintenance_step();
    WHILE NOT is_late LOOP
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        place := place OPERATOR(pg_catalog.+) 1;
        part := tenancy_internal.open_maintenance_step(run, place);
        EXIT WHEN part IS NULL;
        state := '{}';
        LOOP
            COMMIT;
            SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
            state := tenancy_internal.do_maintenance_step(job, part, state);
            EXIT WHEN state OPERATOR(pg_catalog.?) 'over';
            is_late := COALESCE(pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>=) stop_at, false);
            EXIT WHEN is_late;
        END LOOP;
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        PERFORM tenancy_internal.close_maintenance_step(job, run, place, state);
    END LOOP;
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    PERFORM tenancy_internal.end_maintenance_step(job, CASE WHEN is_late THEN 'stopped' ELSE 'done' END);
END $$;

-- What waits for maintenance, and since when.
CREATE FUNCTION tenancy.maintenance_due() RETURNS TABLE (part text, subject text, is_due boolean, detail text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT 'maintenance', current_database()::text, COALESCE(max(r.finished_at) < now() - interval '2 days', true),
           COALESCE('tenancy.maintain() ran last at ' || max(r.finished_at), 'tenancy.maintain() has never run to its end; see tenancy.schedule_maintenance(...)')
      FROM tenancy_internal.maintenance_parts r
     WHERE r.state <> 'running' AND r.place = cardinality(tenancy_internal.maintenance_parts_in_order());
    RETURN QUERY
    SELECT 'audit log', 'partitions', count(*) < 2 OR EXISTS (SELECT FROM ONLY tenancy_internal.audit_chunks_default),
           format('%s months from now on have a partition', count(*))
           || CASE WHEN EXISTS (SELECT FROM ONLY tenancy_internal.audit_chunks_default) THEN '; the default partition has entries' ELSE '' END
      FROM tenancy_internal.audit_partitions() p WHERE p.to_at > now();
    RETURN QUERY
    SELECT 'audit log', p.partition, true, 'all of its entries are past their retention'
      FROM tenancy_internal.audit_partitions() p WHERE p.to_at <= tenancy_internal.audit_horizon();
    RETURN QUERY
    SELECT CASE e.task WHEN 'retention' THEN 'retention' ELSE 'deleted rows' END, r.root::regclass::text,
           COALESCE(bool_or(p.failure IS NOT NULL) OR min(COALESCE(p.finished_at, '-infinity')) < now() - interval '1 day', true),
           COALESCE(string_agg(p.failure, '; '), 'gone through last at ' || NULLIF(min(COALESCE(p.finished_at, '-infinity')), '-infinity'),
                    'never gone through to its end')
      FROM (VALUES ('retention'), ('cleanup')) AS e(task)
     CROSS JOIN LATERAL tenancy_internal.expiring_relations(e.task) r
      LEFT JOIN tenancy_internal.expiry_passes p ON p.task = e.task AND p.relation = r.relation
     GROUP BY e.task, r.root ORDER BY e.task DESC, r.root::regclass::text;
    RETURN QUERY
    SELECT 'deleted tenants', t.code, h.reasons IS NULL, concat('deleted at ', t.deleted_at, ', its grace is over', '; held: ' || h.reasons)
      FROM tenancy.tenants t
     CROSS JOIN LATERAL (SELECT string_agg(l.reason, '; ' ORDER BY l.id) AS reasons FROM tenancy_internal.legal_holds l
                          WHERE l.tenant_id = t.id AND l.released_at IS NULL) AS h
     WHERE t.status = 'deleted' AND t.deleted_at < now() - tenancy_internal.deletion_grace()
       AND NOT EXISTS (SELECT FROM tenancy_internal.purge_certificates c WHERE c.tenant_id = t.id) ORDER BY t.code;
    RETURN QUERY SELECT 'statistics', s.relation::text, true, s.reason FROM tenancy_internal.stale_statistics() s ORDER BY s.relation::text;
END $$;

-- With the rights of the caller, who owns the job: pg_cron runs it as him.
CREATE FUNCTION tenancy.schedule_maintenance(cron text) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name CONSTANT text := 'pg_tenancy maintenance of ' || current_database();
    command CONSTANT text := 'CALL tenancy.maintain()';
    job bigint;
BEGIN
    -- A schema of that name alone may be anybody's.
    IF NOT EXISTS (SELECT FROM pg_extension e WHERE e.extname = 'pg_cron') OR to_regclass('cron.job') IS NULL THEN
        IF cron IS NULL THEN
            RETURN 'nothing is scheduled in this database';
        END IF;
        RETURN concat_ws(E'\n', 'pg_cron is not installed in this database; have this run by another scheduler:',
            format('    psql --dbname=%s --command="%s"', quote_literal(current_database()), command),
            'or, in database ' || quote_ident(current_setting('cron.database_name', true)) || ', where pg_cron is:'
            || format(E'\n    SELECT cron.schedule_in_database(%L, %L, %L, %L)', name, cron, command, current_database()));
    END IF;
    IF cron IS NULL THEN
        EXECUTE 'SELECT count(cron.unschedule(j.jobid)) FROM cron.job j WHERE j.jobname = $1 AND j.username = current_user' INTO job USING name;
        RETURN format('%s jobs unscheduled', job);
    END IF;
    EXECUTE 'SELECT cron.schedule($1, $2, $3)' INTO job USING name, cron, command;
    RETURN format('pg_cron runs job %s, "%s"', job, name);
END $$;

-- The steps are for maintain, which runs with its caller's rights.
INSERT INTO tenancy_internal.rights (grantee, privileges, kind, objects) VALUES
    ('administrator', 'SELECT', 'TABLE', '{tenancy.maintenance_runs}'),
    ('administrator', 'EXECUTE', 'ROUTINE', '{tenancy.maintain, tenancy.maintenance_due, tenancy.schedule_maintenance,
        tenancy_internal.begin_maintenance_step, tenancy_internal.next_maintenance_step, tenancy_internal.open_maintenance_step,
        tenancy_internal.do_maintenance_step, tenancy_internal.close_maintenance_step, tenancy_internal.end_maintenance_step}');

COMMENT ON TABLE tenancy_internal.maintenance_parts IS 'what tenancy.maintain() did, part by part';
COMMENT ON SEQUENCE tenancy_internal.maintenance_run_ids IS 'numbers of the runs of tenancy.maintain()';
COMMENT ON VIEW tenancy.maintenance_runs IS 'what tenancy.maintain() did in the last 400 days: a row for each part of a run';
COMMENT ON COLUMN tenancy.maintenance_runs.state IS 'running, done, failed, stopped (by max_seconds) or interrupted (its session is gone); the next run does what was left';
COMMENT ON FUNCTION tenancy_internal.maintain_audit_part(jsonb) IS 'one step of the audit log''s maintenance';
COMMENT ON FUNCTION tenancy_internal.expire_part(text, jsonb) IS 'one step of retention, or of the removal of deleted rows';
COMMENT ON FUNCTION tenancy_internal.tell_failures(jsonb) IS 'what could not be done of a part of maintenance, as its record has it';
COMMENT ON FUNCTION tenancy_internal.stale_statistics(oid) IS 'protected tables whose statistics are missing or old, all of them or one';
COMMENT ON FUNCTION tenancy_internal.refresh_statistics(regclass) IS 'makes the statistics of one table';
COMMENT ON FUNCTION tenancy_internal.refresh_statistics_part(jsonb) IS 'one step of the refresh of statistics: a table';
COMMENT ON FUNCTION tenancy_internal.maintenance_parts_in_order() IS 'the parts of maintenance';
COMMENT ON FUNCTION tenancy_internal.assert_maintenance() IS 'refuses a session that is not at work on maintenance';
COMMENT ON FUNCTION tenancy_internal.begin_maintenance_step() IS 'a step of maintain: takes the turn';
COMMENT ON FUNCTION tenancy_internal.next_maintenance_step() IS 'a step of maintain: the number of the run';
COMMENT ON FUNCTION tenancy_internal.open_maintenance_step(bigint, integer) IS 'a step of maintain: opens the record of the next part';
COMMENT ON FUNCTION tenancy_internal.do_maintenance_step(bigint, text, jsonb) IS 'a step of maintain: does the next step of a part';
COMMENT ON FUNCTION tenancy_internal.close_maintenance_step(bigint, bigint, integer, jsonb) IS 'a step of maintain: closes the record of a part';
COMMENT ON FUNCTION tenancy_internal.end_maintenance_step(bigint, text) IS 'a step of maintain: gives the turn back';
COMMENT ON PROCEDURE tenancy.maintain(integer) IS
    'does all that is due: the audit log''s partitions, retention, deleted rows and tenants, statistics; what fails in one part does not keep the others';
COMMENT ON FUNCTION tenancy.maintenance_due() IS 'what waits for maintenance; subjects that are not due are listed too';
COMMENT ON FUNCTION tenancy.schedule_maintenance(text) IS
    'has pg_cron call tenancy.maintain() where it is installed, else says how to call it from outside; NULL ends it';
