-- room jobs · Rust src/jobs, src/pg/turn.rs · tests pgrx-tests/{tests,regress}

-- Long work, present and past.
CREATE TABLE tenancy_internal.jobs (
    id          bigint      GENERATED ALWAYS AS IDENTITY,
    kind        text        NOT NULL,
    subject     text        NOT NULL,
    turn        bigint      NOT NULL,          -- of the lock that its session holds, as pg_locks has it in objid
    phase       text        NOT NULL,
    done        bigint      NOT NULL DEFAULT 0,
    total       bigint,                        -- NULL where nobody knows
    state       text        NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done', 'stopped', 'interrupted')),
    started_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    told_at     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    noticed_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),    -- when its session was told last
    finished_at timestamptz,
    run_by      name        NOT NULL DEFAULT session_user,
    pid         integer     NOT NULL DEFAULT pg_catalog.pg_backend_pid(),
    CONSTRAINT jobs_pkey PRIMARY KEY (id)
) WITH (fillfactor = 50);                      -- its rows are updated with every batch
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.jobs', '');
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.jobs_id_seq', '');
CREATE INDEX jobs_running_idx ON tenancy_internal.jobs (kind, subject) WHERE state = 'running';

-- A job that says it runs and whose session holds no turn was interrupted.
CREATE VIEW tenancy.jobs AS
SELECT j.id, j.kind, j.subject, j.phase, j.done, j.total,
       pg_catalog.round((j.done / NULLIF(s.seconds, 0))::numeric, 1) AS rate,
       CASE WHEN s.state = 'running' AND j.done > 0 AND j.total >= j.done
            THEN j.told_at + pg_catalog.make_interval(secs => s.seconds * (j.total - j.done) / j.done) END AS eta,
       s.state, j.started_at, j.told_at, j.finished_at, j.run_by, j.pid
  FROM tenancy_internal.jobs j
  LEFT JOIN pg_catalog.pg_locks l
    ON l.locktype = 'object' AND l.granted AND l.pid = j.pid AND l.objid::bigint = j.turn
   AND l.classid = 'tenancy_internal.jobs'::pg_catalog.regclass
   AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
 CROSS JOIN LATERAL (SELECT EXTRACT(epoch FROM j.told_at - j.started_at)::double precision AS seconds,
                            CASE WHEN j.state = 'running' AND l.pid IS NULL THEN 'interrupted' ELSE j.state END AS state) AS s;

-- Takes the turn at a task and opens its record.
CREATE FUNCTION tenancy_internal.begin_job(kind text, subject text, phase text, total bigint DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    number bigint := tenancy_internal.take_turn(begin_job.kind, begin_job.subject);
    job bigint;
BEGIN
    -- Nobody else has the turn, so nobody is at work on these.
    UPDATE tenancy_internal.jobs j SET state = 'interrupted', finished_at = j.told_at
     WHERE j.state = 'running' AND j.kind = begin_job.kind AND j.subject = begin_job.subject;
    DELETE FROM tenancy_internal.jobs j WHERE j.id <= (SELECT max(id) FROM tenancy_internal.jobs) - 1000 AND j.state <> 'running';
    INSERT INTO tenancy_internal.jobs (kind, subject, turn, phase, total)
    VALUES (begin_job.kind, begin_job.subject, number, begin_job.phase, begin_job.total)
    RETURNING id INTO job;
    RETURN job;
END $$;

-- Says how far a job is: `more` of its total were done since. Seen by others with the next COMMIT; its own session is told
-- not more than once in ten seconds.
CREATE FUNCTION tenancy_internal.tell_job(job bigint, phase text, more bigint DEFAULT 0) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET intervalstyle = 'postgres' AS $$
#variable_conflict use_column
DECLARE
    j tenancy_internal.jobs;
    seconds double precision;
BEGIN
    UPDATE tenancy_internal.jobs SET phase = tell_job.phase, done = done + tell_job.more, told_at = clock_timestamp()
     WHERE id = job RETURNING * INTO j;
    IF j.noticed_at < j.told_at - interval '10 seconds' THEN
        UPDATE tenancy_internal.jobs SET noticed_at = told_at WHERE id = job;
        seconds := EXTRACT(epoch FROM j.told_at - j.started_at);
        RAISE NOTICE '%', format('%s of "%s": %s, %s%s, %s per second', j.kind, j.subject, j.phase, j.done, ' of ' || j.total,
                                 round(j.done / seconds))
                          || CASE WHEN j.done > 0 AND j.total >= j.done
                                  THEN format(', %s left', date_trunc('second', make_interval(secs => seconds * (j.total - j.done) / j.done)))
                                  ELSE '' END;
    END IF;
END $$;

-- Closes the record and gives the turn back: done, or stopped before all was done.
CREATE FUNCTION tenancy_internal.end_job(job bigint, state text DEFAULT 'done') RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    j tenancy_internal.jobs;
BEGIN
    UPDATE tenancy_internal.jobs SET state = end_job.state, told_at = clock_timestamp(), finished_at = clock_timestamp()
     WHERE id = job AND end_job.state IN ('done', 'stopped', 'interrupted') AND tenancy_internal.has_turn(kind, subject) RETURNING * INTO j;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'this session is not at work on such a job'
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'tenancy.jobs shows who is at work on what.';
    END IF;
    PERFORM tenancy_internal.give_turn(j.kind, j.subject);
END $$;

INSERT INTO tenancy_internal.rights (grantee, privileges, kind, objects) VALUES
    ('administrator', 'SELECT', 'TABLE', '{tenancy.jobs}');

COMMENT ON TABLE tenancy_internal.jobs IS 'long work, present and past';
COMMENT ON VIEW tenancy.jobs IS 'who is at long work, how far it is, and what was done before; read it from another session';
COMMENT ON COLUMN tenancy.jobs.kind IS 'what is done, such as purge';
COMMENT ON COLUMN tenancy.jobs.subject IS 'to whom or what it is done';
COMMENT ON COLUMN tenancy.jobs.total IS 'an estimate; NULL where nobody knows';
COMMENT ON COLUMN tenancy.jobs.rate IS 'done in a second, since the job began';
COMMENT ON COLUMN tenancy.jobs.eta IS 'when all is done, if it goes on like this';
COMMENT ON COLUMN tenancy.jobs.state IS
    'running, done, stopped (by a limit of its own; call it again) or interrupted (its session failed or is gone; call it again)';
COMMENT ON COLUMN tenancy.jobs.pid IS 'the backend: pg_cancel_backend(pid) stops it';
COMMENT ON FUNCTION tenancy_internal.take_turn(text, text) IS 'lets this session do a task, alone, until it gives the turn back or fails';
COMMENT ON FUNCTION tenancy_internal.has_turn(text, text) IS 'whether this session does a task';
COMMENT ON FUNCTION tenancy_internal.give_turn(text, text) IS 'gives the turn back';
COMMENT ON FUNCTION tenancy_internal.begin_job(text, text, text, bigint) IS 'takes the turn at a task and opens its record in tenancy.jobs';
COMMENT ON FUNCTION tenancy_internal.tell_job(bigint, text, bigint) IS 'says how far a job is';
COMMENT ON FUNCTION tenancy_internal.end_job(bigint, text) IS 'closes the record of a job and gives the turn back';
