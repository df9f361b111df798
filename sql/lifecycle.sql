-- room lifecycle · Rust src/lifecycle, src/pg/mute.rs · tests pgrx-tests/{tests,regress}

-- Legal holds. What was released stays on record.
CREATE TABLE tenancy_internal.legal_holds (
    id          bigint      GENERATED ALWAYS AS IDENTITY,
    tenant_id   uuid        NOT NULL,                -- no foreign key: see tenants.plan
    reason      text        NOT NULL,
    held_at     timestamptz NOT NULL DEFAULT pg_catalog.now(),
    held_by     name        NOT NULL DEFAULT session_user,
    released_at timestamptz,
    released_by name,
    CONSTRAINT legal_holds_pkey PRIMARY KEY (id)
);
CREATE UNIQUE INDEX legal_holds_in_force_key ON tenancy_internal.legal_holds (tenant_id, reason) WHERE released_at IS NULL;
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.legal_holds', '');
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.legal_holds_id_seq', '');

CREATE VIEW tenancy.legal_holds AS
SELECT h.tenant_id, t.code AS tenant_code, h.reason, h.released_at IS NULL AS is_in_force, h.held_at, h.held_by, h.released_at, h.released_by
  FROM tenancy_internal.legal_holds h LEFT JOIN tenancy.tenants t ON t.id = h.tenant_id;

-- Two cases can hold one tenant; the same reason twice is one hold.
CREATE FUNCTION tenancy.set_legal_hold(tenant text, reason text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    held uuid := tenancy_internal.known_tenant(tenant);
BEGIN
    IF COALESCE(btrim(set_legal_hold.reason), '') = '' THEN
        RAISE EXCEPTION 'a legal hold needs a reason'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Say which case it is for, such as a file number.';
    END IF;
    -- Waits for the batch of a purge that is at work on it: none comes after.
    PERFORM FROM tenancy.tenants t WHERE t.id = held FOR NO KEY UPDATE;
    INSERT INTO tenancy_internal.legal_holds (tenant_id, reason) VALUES (held, set_legal_hold.reason) ON CONFLICT DO NOTHING;
END $$;

CREATE FUNCTION tenancy.release_legal_hold(tenant text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    held uuid := tenancy_internal.known_tenant(tenant);
BEGIN
    UPDATE tenancy_internal.legal_holds h SET released_at = now(), released_by = session_user
     WHERE h.tenant_id = held AND h.released_at IS NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'tenant "%" is not held', (SELECT t.code FROM tenancy.tenants t WHERE t.id = held)
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'tenancy.legal_holds lists those that are in force.';
    END IF;
END $$;

-- A purge that is under way. Its certificate takes its place.
CREATE TABLE tenancy_internal.purges (
    id            bigint      GENERATED ALWAYS AS IDENTITY,
    tenant_id     uuid        NOT NULL,
    code          text        NOT NULL,
    job           bigint      NOT NULL,              -- the run at work on it, or the last one
    batch_size    integer     NOT NULL,
    pause_ms      integer     NOT NULL,
    stop_at       timestamptz,
    include_audit boolean     NOT NULL,
    audit_entries bigint      NOT NULL DEFAULT 0,
    runs          integer     NOT NULL DEFAULT 0,
    rounds        integer     NOT NULL DEFAULT 0,    -- how often rows were found after all were gone
    started_at    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    started_by    name        NOT NULL DEFAULT session_user,
    closed_at     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),    -- no transaction that began later can write for the tenant
    CONSTRAINT purges_pkey PRIMARY KEY (id),
    CONSTRAINT purges_tenant_id_key UNIQUE (tenant_id)
);
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.purges', '');
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.purges_id_seq', '');

-- Its checkpoint: how far it is, and what it has counted.
CREATE TABLE tenancy_internal.purge_parts (
    purge    bigint   NOT NULL,
    step     integer  NOT NULL,                      -- of the plan that was made last
    relation regclass NOT NULL,
    name     text     NOT NULL,
    how      text     NOT NULL CHECK (how IN ('drop', 'delete', 'together')),
    expected bigint   NOT NULL,                      -- rows, as the planner saw it
    is_done  boolean  NOT NULL DEFAULT false,
    block    bigint   NOT NULL DEFAULT 0,            -- where to go on, if the table is gone through by its blocks
    rows     bigint   NOT NULL DEFAULT 0,            -- deleted; of a dropped partition, as the statistics have it
    CONSTRAINT purge_parts_pkey PRIMARY KEY (purge, name, how)
) WITH (fillfactor = 50);
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.purge_parts', '');

-- Where the rows of the table at hand are. A crash empties it; then they are looked for again.
CREATE UNLOGGED TABLE tenancy_internal.purge_batches (
    purge    bigint  NOT NULL,
    relation oid     NOT NULL,
    batch    bigint  NOT NULL,
    places   tid[]   NOT NULL,
    CONSTRAINT purge_batches_pkey PRIMARY KEY (purge, relation, batch)
);
ALTER TABLE tenancy_internal.purge_batches ALTER COLUMN places SET STORAGE EXTERNAL;
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.purge_batches', 'WHERE false');

-- What remains of a tenant. Each digest covers the certificate and the digest before it.
CREATE TABLE tenancy_internal.purge_certificates (
    number        bigint      NOT NULL,              -- its place, from 1 and without gaps
    tenant_id     uuid        NOT NULL,
    tenant_number bigint      NOT NULL,
    tenant_code   text        NOT NULL,
    tables        jsonb       NOT NULL,
    rows          bigint      NOT NULL,
    audit_entries bigint,                            -- NULL where they were kept
    runs          integer     NOT NULL,
    started_at    timestamptz NOT NULL,
    finished_at   timestamptz NOT NULL,
    started_by    text        NOT NULL,
    finished_by   text        NOT NULL,
    previous      bytea,
    digest        bytea       NOT NULL,
    CONSTRAINT purge_certificates_pkey PRIMARY KEY (number)
);
CREATE INDEX purge_certificates_tenant_idx ON tenancy_internal.purge_certificates (tenant_id);
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.purge_certificates', '');

-- The digest that a certificate must have.
CREATE FUNCTION tenancy_internal.digest_certificate(certificate tenancy_internal.purge_certificates) RETURNS bytea
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT tenancy_internal.digest('purge', int8send(certificate.number), uuid_send(certificate.tenant_id),
               int8send(certificate.tenant_number), tenancy_internal.bytes(certificate.tenant_code),
               tenancy_internal.bytes(certificate.tables::text), int8send(certificate.rows), int8send(certificate.audit_entries),
               int4send(certificate.runs), timestamptz_send(certificate.started_at), timestamptz_send(certificate.finished_at),
               tenancy_internal.bytes(certificate.started_by), tenancy_internal.bytes(certificate.finished_by),
               certificate.previous)
$$;

CREATE VIEW tenancy.purge_certificates AS
SELECT c.number, c.tenant_id, c.tenant_number, c.tenant_code, c.tables, c.rows, c.audit_entries, c.runs, c.started_at, c.finished_at,
       c.started_by, c.finished_by, pg_catalog.encode(c.digest, 'hex') AS digest, pg_catalog.encode(c.previous, 'hex') AS previous,
       c.digest = tenancy_internal.digest_certificate(c)
           AND c.previous IS NOT DISTINCT FROM pg_catalog.lag(c.digest) OVER (ORDER BY c.number)
           AND c.number = pg_catalog.row_number() OVER (ORDER BY c.number) AS is_intact
  FROM tenancy_internal.purge_certificates c;

-- Which rows are a tenant's, as SQL; `place` is its column, as SQL too. A number may be more than the column can hold.
CREATE FUNCTION tenancy_internal.tenant_condition(place text, tenant_key text, tenant tenancy.tenants) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE tenant_key WHEN 'id' THEN format('%s = %L::uuid', place, tenant.id)
                           WHEN 'number' THEN format('%s = %L::bigint', place, tenant.number)
                           ELSE format('%s = %L::text', place, tenant.code) END
$$;

-- The same for a protected relation.
CREATE FUNCTION tenancy_internal.rows_of(target regclass, tenant tenancy.tenants) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT tenancy_internal.tenant_condition(quote_ident(tenancy_internal.tenant_column(p.relation, p.tenant_column)), p.tenant_key, tenant)
      FROM tenancy_internal.protected_tables p WHERE p.relation = target AND p.access <> 'reference'
$$;

-- Whether a partition is for this tenant alone, and nothing but its parents' keys depends on it.
CREATE FUNCTION tenancy_internal.is_tenants_partition(target regclass, tenant tenancy.tenants) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (
        SELECT FROM pg_class c
          JOIN pg_inherits i ON i.inhrelid = c.oid
          JOIN pg_partitioned_table t ON t.partrelid = i.inhparent AND t.partstrat = 'l' AND t.partnatts = 1
          JOIN tenancy_internal.protected_tables p ON p.relation = i.inhparent
          JOIN pg_attribute a ON a.attrelid = i.inhparent AND a.attnum = t.partattrs[0]
           AND a.attname = tenancy_internal.tenant_column(p.relation, p.tenant_column)
         CROSS JOIN LATERAL (SELECT CASE p.tenant_key WHEN 'id' THEN tenant.id::text WHEN 'number' THEN tenant.number::text
                                                      ELSE tenant.code END) AS k(key)
         WHERE c.oid = target AND c.relispartition
           -- A code is never bare: one that reads NULL, or 'a', 'b', would be the bound of a partition of others.
           AND pg_get_expr(c.relpartbound, c.oid) IN (format('FOR VALUES IN (%L)', k.key),
                   format('FOR VALUES IN (%s)', CASE WHEN p.tenant_key <> 'code' THEN k.key END)))
       AND NOT EXISTS (
        SELECT FROM tenancy_internal.table_family(target) AS f(relation)
          JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = f.relation AND d.deptype = 'n'
         WHERE d.classid = 'pg_rewrite'::regclass
            OR d.classid = 'pg_constraint'::regclass
           AND (SELECT k.contype = 'f' AND k.confrelid = f.relation AND k.conparentid = 0 FROM pg_constraint k WHERE k.oid = d.objid))
$$;

-- The tables with a tenant's rows, as src/lifecycle/plan.rs takes them. Rows and bytes are the planner's estimates.
CREATE FUNCTION tenancy_internal.describe_purge(tenant uuid) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    owner tenancy.tenants;
    m record;
    plan json;
    estimate bigint;
    members jsonb[] := '{}';
BEGIN
    SELECT t.* INTO owner FROM tenancy.tenants t WHERE t.id = tenant;
    FOR m IN
        SELECT p.root, c.oid, c.oid::regclass::text AS name, c.relkind, c.reltuples, f.place,
               pg_relation_size(c.oid) + COALESCE(pg_relation_size(NULLIF(c.reltoastrelid, 0)), 0) AS size,
               (SELECT min(i.inhparent::bigint) FROM pg_inherits i WHERE i.inhrelid = c.oid AND c.oid <> p.root) AS parent
          FROM tenancy_internal.protected_tables p
         CROSS JOIN LATERAL tenancy_internal.table_family(p.root) WITH ORDINALITY AS f(relation, place)
          JOIN pg_class c ON c.oid = f.relation
          JOIN tenancy_internal.protected_tables o ON o.relation = c.oid
         WHERE p.root = p.relation AND p.access <> 'reference'
         ORDER BY p.root, f.place
    LOOP
        estimate := 0;
        IF m.relkind = 'r' THEN
            EXECUTE format('EXPLAIN (FORMAT JSON) SELECT FROM ONLY %s WHERE %s', m.oid::regclass,
                           tenancy_internal.rows_of(m.oid, owner)) INTO plan;
            estimate := (plan -> 0 -> 'Plan' ->> 'Plan Rows')::numeric;
        END IF;
        members := members || jsonb_build_object(
            'root', m.root::oid::bigint, 'oid', m.oid::bigint, 'name', m.name, 'parent', m.parent, 'is_stored', m.relkind = 'r',
            'is_exclusive', tenancy_internal.is_tenants_partition(m.oid, owner), 'rows', estimate,
            'bytes', CASE WHEN m.relkind = 'r' AND m.reltuples > 0
                          THEN round(m.size * LEAST(estimate / m.reltuples, 1))::bigint ELSE 0 END);
    END LOOP;
    RETURN (
        SELECT COALESCE(jsonb_agg(jsonb_build_object(
                   'oid', r.root, 'name', r.root::oid::regclass::text, 'members', r.members,
                   'refers', (SELECT COALESCE(jsonb_agg(DISTINCT o.root::oid::bigint), '[]')
                                FROM pg_constraint k
                                JOIN tenancy_internal.protected_tables c ON c.relation = k.conrelid
                                JOIN tenancy_internal.protected_tables o ON o.relation = k.confrelid
                               WHERE k.contype = 'f' AND c.root = r.root::oid))), '[]')
          FROM (SELECT (f.member ->> 'root')::bigint AS root, jsonb_agg(f.member ORDER BY f.place) AS members
                  FROM unnest(members) WITH ORDINALITY AS f(member, place) GROUP BY 1) AS r);
END $$;

-- What stands in the way of a purge: rows that nobody says are the tenant's, rows of others that refer to the tenant's, and
-- tables that rows cannot be deleted from as such.
CREATE FUNCTION tenancy_internal.purge_obstacles(tenant uuid) RETURNS TABLE (relation regclass, reason text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    owner tenancy.tenants;
    k record;
    is_found boolean;
BEGIN
    SELECT t.* INTO owner FROM tenancy.tenants t WHERE t.id = tenant;
    RETURN QUERY SELECT u.relation, 'it is not protected, and ' || u.reason FROM tenancy_internal.unclassified_tables() u
                  ORDER BY u.relation::text;
    RETURN QUERY SELECT p.relation, CASE WHEN c.relkind = 'f' THEN 'it is a foreign table; delete the tenant''s rows there, and detach it'
                                         ELSE format('its rule %I replaces DELETE', w.rulename) END
                   FROM tenancy_internal.protected_tables p JOIN pg_class c ON c.oid = p.relation
                   LEFT JOIN pg_rewrite w ON w.ev_class = c.oid AND w.ev_type = '4'
                  WHERE p.access <> 'reference' AND (c.relkind = 'f' OR w.oid IS NOT NULL) ORDER BY p.relation::text;
    -- Foreign keys that have the tenant in them cannot lead to another one.
    FOR k IN
        SELECT f.conname, f.conrelid::regclass AS child, f.confrelid::regclass AS parent, c.access,
               tenancy_internal.tenant_condition(format('c.%I', own.child_column), c.tenant_key, owner) AS childs_condition,
               tenancy_internal.tenant_condition(format('p.%I', own.parent_column), p.tenant_key, owner) AS parents_condition,
               (SELECT string_agg(format('p.%I OPERATOR(%I.%s) c.%I', pa.attname, n.nspname, o.oprname, ca.attname), ' AND ')
                  FROM unnest(f.conkey, f.confkey, f.conpfeqop) AS x(child_column, parent_column, operator)
                  JOIN pg_attribute ca ON ca.attrelid = f.conrelid AND ca.attnum = x.child_column
                  JOIN pg_attribute pa ON pa.attrelid = f.confrelid AND pa.attnum = x.parent_column
                  JOIN pg_operator o ON o.oid = x.operator JOIN pg_namespace n ON n.oid = o.oprnamespace) AS keys
          FROM pg_constraint f
          JOIN tenancy_internal.protected_tables c ON c.relation = f.conrelid
          JOIN tenancy_internal.protected_tables p ON p.relation = f.confrelid AND p.access <> 'reference'
         CROSS JOIN LATERAL (SELECT tenancy_internal.tenant_column(c.relation, c.tenant_column) AS child_column,
                                    tenancy_internal.tenant_column(p.relation, p.tenant_column) AS parent_column) AS own
         WHERE f.contype = 'f' AND f.conparentid = 0
           AND NOT EXISTS (SELECT FROM unnest(f.conkey, f.confkey) AS x(child_column, parent_column)
                             JOIN pg_attribute ca ON ca.attrelid = f.conrelid AND ca.attnum = x.child_column AND ca.attname = own.child_column
                             JOIN pg_attribute pa ON pa.attrelid = f.confrelid AND pa.attnum = x.parent_column AND pa.attname = own.parent_column)
         ORDER BY f.conrelid::regclass::text, f.conname
    LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %s p JOIN %s c ON %s WHERE %s AND (%s) IS NOT TRUE)', k.parent, k.child, k.keys,
                       k.parents_condition, CASE WHEN k.access = 'reference' THEN 'false' ELSE k.childs_condition END) INTO is_found;
        IF is_found THEN
            relation := k.child;
            reason := format('rows that are not the tenant''s refer to the tenant''s in %s, by %I', k.parent, k.conname);
            RETURN NEXT;
        END IF;
    END LOOP;
END $$;

-- Refuses a tenant that may not be purged now.
CREATE FUNCTION tenancy_internal.check_purgeable(owner tenancy.tenants) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    hold text := (SELECT string_agg(h.reason, '; ' ORDER BY h.id) FROM tenancy_internal.legal_holds h
                   WHERE h.tenant_id = owner.id AND h.released_at IS NULL);
BEGIN
    IF hold IS NOT NULL THEN
        RAISE EXCEPTION 'tenant "%" is in legal hold', owner.code
            USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = hold, HINT = 'Call tenancy.release_legal_hold(...) when the cases are closed.';
    END IF;
    IF owner.status IN ('active', 'read_only') THEN
        RAISE EXCEPTION 'tenant "%" is %', owner.code, replace(owner.status, '_', '-')
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Call tenancy.suspend_tenant(...) or tenancy.delete_tenant(...) first.';
    END IF;
END $$;

-- Refuses a purge, before anything is done.
CREATE FUNCTION tenancy_internal.check_purge(tenant uuid, confirm text, dry_run boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    owner tenancy.tenants;
    obstacles text;
BEGIN
    SELECT t.* INTO owner FROM tenancy.tenants t WHERE t.id = tenant;
    IF confirm IS DISTINCT FROM owner.code AND NOT (dry_run AND confirm IS NULL) THEN
        RAISE EXCEPTION 'confirm is not the code of the tenant'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give its code, as tenancy.tenants has it, to say that you mean this one.';
    END IF;
    PERFORM tenancy_internal.check_purgeable(owner);
    SELECT string_agg(format('%s: %s', o.relation, o.reason), E'\n') INTO obstacles FROM tenancy_internal.purge_obstacles(tenant) o;
    IF obstacles IS NOT NULL THEN
        RAISE EXCEPTION 'tables stand in the way of the purge of tenant "%"', owner.code
            USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = obstacles,
                  HINT = 'Protect what has tenants'' rows, with tenancy.protect_table(...); a table of all tenants with access => ''reference''.';
    END IF;
END $$;

-- Makes `plan` (src/lifecycle/plan.rs) the plan of a purge. What was counted stays, and what was done too, but for `anew`.
CREATE FUNCTION tenancy_internal.plan_parts(purge bigint, plan jsonb, anew boolean) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO tenancy_internal.purge_parts AS q (purge, step, relation, name, how, expected)
    SELECT plan_parts.purge, p.step, p.relation, p.name, p.how, p.rows
      FROM jsonb_to_recordset(plan) AS p(step integer, relation oid, name text, how text, rows bigint)
    ON CONFLICT (purge, name, how) DO UPDATE
       SET step = EXCLUDED.step, relation = EXCLUDED.relation, expected = EXCLUDED.expected,
           is_done = q.is_done AND NOT anew, block = CASE WHEN anew THEN 0 ELSE q.block END;
    UPDATE tenancy_internal.purge_parts q SET is_done = true
     WHERE q.purge = plan_parts.purge AND NOT q.is_done
       AND NOT EXISTS (SELECT FROM jsonb_to_recordset(plan) AS p(name text, how text) WHERE p.name = q.name AND p.how = q.how);
    DELETE FROM tenancy_internal.purge_batches b WHERE b.purge = plan_parts.purge;
$$;

-- Begins a purge, or takes one up where it was; only tells, where dry_run.
CREATE FUNCTION tenancy_internal.begin_purge(
    tenant uuid, dry_run boolean, batch_size integer, max_seconds integer, pause_ms integer, include_audit boolean, plan jsonb
) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    owner tenancy.tenants;
    p record;
    job bigint;
    purge bigint;
BEGIN
    IF batch_size NOT BETWEEN 1 AND 1000000 OR max_seconds < 1 OR pause_ms NOT BETWEEN 0 AND 3600000 THEN
        RAISE EXCEPTION 'a purge cannot go in these steps' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Give a batch_size from 1 to 1000000, a pause_ms from 0 to 3600000, and max_seconds from 1 on, or none.';
    END IF;
    SELECT t.* INTO owner FROM tenancy.tenants t WHERE t.id = tenant;
    IF dry_run THEN
        FOR p IN SELECT q.* FROM jsonb_to_recordset(plan) AS q(step integer, name text, how text, rows bigint, bytes bigint) ORDER BY q.step, q.name LOOP
            RAISE NOTICE '%', format('%s. %s: %s, about %s rows, %s', p.step, p.name,
                CASE p.how WHEN 'drop' THEN 'drop partition' WHEN 'delete' THEN 'delete in batches' ELSE 'delete in one statement' END,
                p.rows, pg_size_pretty(p.bytes));
        END LOOP;
        RAISE NOTICE 'nothing was changed; say dry_run => false to purge tenant "%"', owner.code;
        RETURN NULL;
    END IF;
    job := tenancy_internal.begin_job('purge', owner.code, 'planning',
               (SELECT sum(q.rows) FROM jsonb_to_recordset(plan) AS q(how text, rows bigint) WHERE q.how <> 'drop')::bigint);
    -- What was checked before the turn was taken may have changed.
    SELECT t.* INTO owner FROM tenancy.tenants t WHERE t.id = tenant FOR UPDATE;
    PERFORM tenancy_internal.check_purgeable(owner);
    UPDATE tenancy.tenants SET status = 'deleted', deleted_at = COALESCE(deleted_at, now()), updated_at = now()
     WHERE id = tenant AND status <> 'deleted';
    INSERT INTO tenancy_internal.purges AS u (tenant_id, code, job, batch_size, pause_ms, stop_at, include_audit, runs)
    VALUES (tenant, owner.code, job, batch_size, pause_ms, clock_timestamp() + make_interval(secs => max_seconds), include_audit, 1)
    ON CONFLICT (tenant_id) DO UPDATE
       SET job = EXCLUDED.job, batch_size = EXCLUDED.batch_size, pause_ms = EXCLUDED.pause_ms, stop_at = EXCLUDED.stop_at,
           include_audit = u.include_audit OR EXCLUDED.include_audit, runs = u.runs + 1, rounds = 0,
           closed_at = EXCLUDED.closed_at
    RETURNING id INTO purge;
    PERFORM tenancy_internal.plan_parts(purge, plan, false);
    RETURN purge;
END $$;

-- Writes down where the tenant's rows are, in the order in which they lie there; gives the number of batches. Sorting spills
-- to disk where hashing would fill the memory, and the rows of an index come in no order.
CREATE FUNCTION tenancy_internal.collect_batches(purge bigint, target regclass, condition text, batch_size integer) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_hashagg = off SET enable_indexscan = off SET jit = off AS $$
DECLARE
    batches bigint;
BEGIN
    EXECUTE format('INSERT INTO tenancy_internal.purge_batches (purge, relation, batch, places)
                    SELECT $1, $2, s.batch, array_agg(s.ctid)
                      FROM (SELECT r.ctid, (row_number() OVER () - 1) / $3 AS batch FROM ONLY %s AS r WHERE %s) AS s
                     GROUP BY s.batch', target, condition) USING purge, target::oid, batch_size;
    GET DIAGNOSTICS batches = ROW_COUNT;
    RETURN batches;
END $$;

-- Deletes a batch. A place may have been given to another row since: the tenant is compared again, in a form that no index
-- serves, for rows are to be reached by their places whatever the statistics say.
CREATE FUNCTION tenancy_internal.delete_batch(purge bigint, target regclass, condition text, batch bigint) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    gone bigint;
BEGIN
    EXECUTE format('DELETE FROM ONLY %s WHERE ctid = ANY ((SELECT b.places FROM tenancy_internal.purge_batches b
                     WHERE b.purge = $1 AND b.relation = $2 AND b.batch = $3)::tid[]) AND (%s) IS TRUE', target, condition)
      USING purge, target::oid, batch;
    GET DIAGNOSTICS gone = ROW_COUNT;
    DELETE FROM tenancy_internal.purge_batches b
     WHERE b.purge = delete_batch.purge AND b.relation = target AND b.batch = delete_batch.batch;
    RETURN gone;
END $$;

-- Deletes what is the tenant's in a span of blocks.
CREATE FUNCTION tenancy_internal.delete_blocks(target regclass, condition text, from_block bigint, to_block bigint) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    gone bigint;
BEGIN
    EXECUTE format('DELETE FROM ONLY %s WHERE ctid >= %L::tid AND ctid < %L::tid AND (%s) IS TRUE', target,
                   format('(%s,0)', from_block), format('(%s,0)', to_block), condition);
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;

-- Deletes from tables whose keys go in a circle; gives what went from each.
CREATE FUNCTION tenancy_internal.delete_circle(targets regclass[], owner tenancy.tenants) RETURNS bigint[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    deletions text;
    counts text;
    gone bigint[];
BEGIN
    SELECT string_agg(format('d%s AS (DELETE FROM %s WHERE %s RETURNING 1)', t.place, t.target, tenancy_internal.rows_of(t.target, owner)),
                      ', ' ORDER BY t.place),
           string_agg(format('(SELECT count(*) FROM d%s)', t.place), ', ' ORDER BY t.place)
      INTO deletions, counts FROM unnest(targets) WITH ORDINALITY AS t(target, place);
    EXECUTE format('WITH %s SELECT ARRAY[%s]', deletions, counts) INTO gone;
    RETURN gone;
END $$;

-- Detaches and drops a partition; waits for nobody for longer than a second, for whoever comes behind waits too.
CREATE FUNCTION tenancy_internal.drop_tenants_partition(target regclass, owner tenancy.tenants) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    parent regclass := (SELECT i.inhparent FROM pg_inherits i WHERE i.inhrelid = target);
BEGIN
    FOR attempt IN 1..10 LOOP
        BEGIN
            EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', parent);
            EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', target);
            -- It may have been made a partition of something else since.
            IF NOT tenancy_internal.is_tenants_partition(target, owner)
               OR parent IS DISTINCT FROM (SELECT i.inhparent::regclass FROM pg_inherits i WHERE i.inhrelid = target) THEN
                RETURN false;
            END IF;
            EXECUTE format('ALTER TABLE %s DETACH PARTITION %s', parent, target);
            EXECUTE format('DROP TABLE %s', target);
            RETURN true;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            IF attempt = 10 THEN
                RAISE EXCEPTION 'partition % cannot be dropped now: others use % all the time', target, parent
                    USING ERRCODE = 'lock_not_available', HINT = 'Call the same again when there is less to do; it goes on from here.';
            END IF;
            PERFORM pg_sleep(0.5 + random());
        END;
    END LOOP;
END $$;

-- Deletes entries of the tenant from one partition of the audit log, a batch of them; false where there are no more. What was
-- sealed is sealed anew, as tenancy_internal.prune_audit_step does.
CREATE FUNCTION tenancy_internal.purge_audit(purge bigint) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    u tenancy_internal.purges;
    p record;
    seal tenancy_internal.audit_seals;
    is_sealed boolean;
    places tid[];
    segments bigint[];
    entries bigint;
BEGIN
    SELECT q.* INTO u FROM tenancy_internal.purges q WHERE q.id = purge;
    -- Maintenance moves entries from one partition to another.
    PERFORM tenancy_internal.take_audit_turn();
    FOR p IN SELECT a.partition, a.relation, a.from_at, a.to_at FROM tenancy_internal.audit_partitions() a
              UNION ALL
             SELECT NULL, 'tenancy_internal.audit_chunks_default', NULL, NULL
    LOOP
        EXECUTE format('SELECT array_agg(c.ctid), array_agg(DISTINCT c.id >> 14), sum(c.row_count)
                          FROM (SELECT e.ctid, e.id, e.row_count FROM ONLY %s e WHERE e.tenant_id = $1 LIMIT $2) AS c', p.relation)
           INTO places, segments, entries USING u.tenant_id, u.batch_size;
        CONTINUE WHEN places IS NULL;
        seal := tenancy_internal.last_seal(p.partition);
        is_sealed := COALESCE(seal.action IN ('sealed', 'pruned'), false);
        -- A new seal must not cover up what was done to the old one's entries.
        IF is_sealed AND (seal.root IS DISTINCT FROM tenancy_internal.digest_partition(p.partition)
            OR EXISTS (SELECT FROM (SELECT s.* FROM tenancy_internal.audit_segments s
                                     WHERE s.partition = p.partition AND s.segment = ANY (segments)) AS s
                         FULL JOIN tenancy_internal.digest_segments(p.relation, segments) d USING (segment)
                        WHERE d.digest IS DISTINCT FROM s.digest)) THEN
            RAISE EXCEPTION 'partition % of the audit log is not as it was sealed', p.partition
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      HINT = 'tenancy.verify_audit() says what differs; without include_audit the tenant can be purged.';
        END IF;
        EXECUTE format('DELETE FROM ONLY %s WHERE ctid = ANY ($1) AND tenant_id = $2', p.relation) USING places, u.tenant_id;
        IF is_sealed THEN
            DELETE FROM tenancy_internal.audit_segments s WHERE s.partition = p.partition AND s.segment = ANY (segments);
            INSERT INTO tenancy_internal.audit_segments (partition, segment, chunks, digest)
            SELECT p.partition, d.segment, d.chunks, d.digest FROM tenancy_internal.digest_segments(p.relation, segments) d;
            PERFORM tenancy_internal.append_seal(p.partition, p.from_at, p.to_at, 'pruned',
                        format('purge of a tenant: deleted %s entries', entries));
        END IF;
        UPDATE tenancy_internal.purges q SET audit_entries = q.audit_entries + entries WHERE q.id = purge;
        PERFORM tenancy_internal.tell_job(u.job, 'the audit log');
        PERFORM tenancy_internal.give_audit_turn();
        RETURN true;
    END LOOP;
    PERFORM tenancy_internal.give_audit_turn();
    RETURN false;
END $$;

-- Refuses a step by a session that is not at work on the purge.
CREATE FUNCTION tenancy_internal.purge_at_hand(purge bigint) RETURNS tenancy_internal.purges
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    u tenancy_internal.purges;
BEGIN
    SELECT q.* INTO u FROM tenancy_internal.purges q WHERE q.id = purge;
    IF u.id IS NULL OR NOT tenancy_internal.has_turn('purge', u.code) THEN
        RAISE EXCEPTION 'this session is not at work on such a purge'
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'CALL tenancy.purge_tenant(...) instead.';
    END IF;
    RETURN u;
END $$;

-- What was looked at before the first batch may have changed: rules for DELETE would be done with all rights, and what refers to the
-- tables and is not protected would go along. Locked, so that neither is made after.
CREATE FUNCTION tenancy_internal.refuse_new_obstacles(targets regclass[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    target regclass;
    obstacle record;
BEGIN
    FOREACH target IN ARRAY targets LOOP
        EXECUTE format('LOCK TABLE %s IN ROW EXCLUSIVE MODE', target);
    END LOOP;
    SELECT w.rulename, w.ev_class::regclass AS relation INTO obstacle FROM pg_rewrite w WHERE w.ev_class = ANY (targets) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'table % has rewrite rule "%"', obstacle.relation, obstacle.rulename
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Drop the rule and call the same again; it goes on from here.';
    END IF;
    SELECT f.conname, f.conrelid::regclass AS relation, f.confrelid::regclass AS parent INTO obstacle FROM pg_constraint f
     WHERE f.contype = 'f' AND f.confrelid = ANY (targets) AND f.confdeltype NOT IN ('a', 'r')
       AND NOT EXISTS (SELECT FROM tenancy_internal.protected_tables p WHERE p.relation = f.conrelid) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'table % is not protected, and its foreign key "%" would take rows along with those of %', obstacle.relation, obstacle.conname, obstacle.parent
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = format('Protect it with tenancy.protect_table(%L), or drop the foreign key, and call the same again; it goes on from here.',
                                obstacle.relation::text);
    END IF;
END $$;

-- Does the next part of a purge, or a batch of it; false when all are done.
CREATE FUNCTION tenancy_internal.purge_part(purge bigint) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    u tenancy_internal.purges := tenancy_internal.purge_at_hand(purge);
    owner tenancy.tenants;
    part tenancy_internal.purge_parts;
    condition text;
    at bigint;
    blocks bigint;
    next_block bigint;
    counts bigint[];
    gone bigint := 0;
    is_over boolean := true;
    is_dropped boolean := false;
BEGIN
    -- Locked, so that what is undeleted or put in legal hold meanwhile loses nothing more.
    SELECT t.* INTO owner FROM tenancy.tenants t WHERE t.id = u.tenant_id FOR NO KEY UPDATE;
    PERFORM tenancy_internal.check_purgeable(owner);
    SELECT q.* INTO part FROM tenancy_internal.purge_parts q WHERE q.purge = u.id AND NOT q.is_done ORDER BY q.step, q.name LIMIT 1;
    IF NOT FOUND THEN
        RETURN u.include_audit AND tenancy_internal.purge_audit(u.id);
    END IF;
    condition := tenancy_internal.rows_of(part.relation, owner);
    IF EXISTS (SELECT FROM tenancy_internal.purge_parts q
                WHERE q.purge = u.id AND q.step = part.step AND NOT q.is_done AND tenancy_internal.rows_of(q.relation, owner) IS NULL) THEN
        -- Dropped, or no longer protected, since the plan was made: the end looks again.
        UPDATE tenancy_internal.purge_parts q SET is_done = true WHERE q.purge = u.id AND q.step = part.step;
        RETURN true;
    END IF;
    IF part.how <> 'drop' THEN
        PERFORM tenancy_internal.refuse_new_obstacles(ARRAY(
            SELECT q.relation FROM tenancy_internal.purge_parts q WHERE q.purge = u.id AND q.step = part.step AND NOT q.is_done));
    END IF;
    IF part.how = 'together' THEN
        SELECT tenancy_internal.delete_circle(array_agg(q.relation ORDER BY q.name), owner) INTO counts
          FROM tenancy_internal.purge_parts q WHERE q.purge = u.id AND q.step = part.step AND NOT q.is_done;
        UPDATE tenancy_internal.purge_parts q SET rows = q.rows + counts[r.place], is_done = true
          FROM (SELECT o.name, row_number() OVER (ORDER BY o.name) AS place FROM tenancy_internal.purge_parts o
                 WHERE o.purge = u.id AND o.step = part.step AND NOT o.is_done) AS r
         WHERE q.purge = u.id AND q.how = 'together' AND q.name = r.name;
        gone := (SELECT sum(c) FROM unnest(counts) AS c);
    ELSIF part.how = 'drop' THEN
        IF tenancy_internal.is_tenants_partition(part.relation, owner) THEN
            gone := (SELECT COALESCE(sum(GREATEST(c.reltuples, 0)), 0) FROM tenancy_internal.table_family(part.relation) AS f(relation)
                       JOIN pg_class c ON c.oid = f.relation WHERE c.relkind = 'r');
            is_dropped := tenancy_internal.drop_tenants_partition(part.relation, owner);
            gone := CASE WHEN is_dropped THEN gone ELSE 0 END;
        END IF;
    ELSE
        blocks := pg_relation_size(part.relation) / current_setting('block_size')::bigint;
        -- Where most blocks have rows of the tenant, going through all of them is cheaper than finding them. PostgreSQL 13
        -- cannot begin in the middle of a table.
        IF part.expected >= blocks AND blocks > 0 AND current_setting('server_version_num')::integer >= 140000 THEN
            next_block := part.block + GREATEST(u.batch_size * blocks / part.expected, 1);
            gone := tenancy_internal.delete_blocks(part.relation, condition, part.block, next_block);
            is_over := next_block >= blocks;
        ELSE
            SELECT min(b.batch) INTO at FROM tenancy_internal.purge_batches b WHERE b.purge = u.id AND b.relation = part.relation;
            IF at IS NULL AND tenancy_internal.collect_batches(u.id, part.relation, condition, u.batch_size) > 0 THEN
                at := 0;
            END IF;
            IF at IS NOT NULL THEN
                gone := tenancy_internal.delete_batch(u.id, part.relation, condition, at);
                is_over := NOT EXISTS (SELECT FROM tenancy_internal.purge_batches b WHERE b.purge = u.id AND b.relation = part.relation);
            END IF;
        END IF;
    END IF;
    IF part.how <> 'together' THEN
        UPDATE tenancy_internal.purge_parts q SET rows = q.rows + gone, is_done = is_over, block = COALESCE(next_block, q.block)
         WHERE q.purge = u.id AND q.name = part.name AND q.how = part.how;
    END IF;
    -- From now on it cannot be undeleted.
    IF owner.purged_at IS NULL AND (gone > 0 OR is_dropped) THEN
        UPDATE tenancy.tenants SET purged_at = now() WHERE id = owner.id;
    END IF;
    PERFORM tenancy_internal.tell_job(u.job, part.name, CASE WHEN part.how = 'drop' THEN 0 ELSE gone END);
    RETURN true;
END $$;

-- Pauses as was asked for; false when the time is over, and then the run has ended.
CREATE FUNCTION tenancy_internal.rest_purge_step(purge bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    u tenancy_internal.purges := tenancy_internal.purge_at_hand(purge);
BEGIN
    IF u.stop_at <= clock_timestamp() THEN
        PERFORM tenancy_internal.end_job(u.job, 'stopped');
        RAISE NOTICE 'the purge of tenant "%" has stopped, for its time is over; the same call goes on from there', u.code;
        RETURN false;
    END IF;
    IF u.pause_ms > 0 THEN
        PERFORM pg_sleep(u.pause_ms / 1000.0);
    END IF;
    RETURN true;
END $$;

-- Waits for transactions that began before the tenant was closed and have written to protected tables since: what they commit
-- may be the tenant's. Others go on meanwhile.
CREATE FUNCTION tenancy_internal.await_writers(since timestamptz) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    writer text;
BEGIN
    FOR attempt IN 1..100 LOOP
        SELECT COALESCE(format('the backend %s', a.pid), 'a prepared transaction') || ' writes to ' || l.relation::regclass INTO writer
          FROM pg_locks l
          JOIN tenancy_internal.protected_tables p ON p.relation = l.relation AND p.access <> 'reference'
          LEFT JOIN pg_stat_activity a ON a.pid = l.pid
         WHERE l.locktype = 'relation' AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
           AND l.mode = 'RowExclusiveLock' AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
           AND (l.pid IS NULL OR a.xact_start < since)
         LIMIT 1;
        IF writer IS NULL THEN
            RETURN;
        END IF;
        PERFORM pg_sleep(0.1), pg_stat_clear_snapshot();
    END LOOP;
    RAISE EXCEPTION 'a transaction that is older than the purge may still have rows of the tenant'
        USING ERRCODE = 'lock_not_available', DETAIL = writer, HINT = 'Call the same again when it has ended; all that was to be deleted is.';
END $$;

-- Counts what is left: nothing, then the certificate is written and the purge is over; or else false, and there is more to do.
CREATE FUNCTION tenancy_internal.finish_purge(purge bigint, plan jsonb) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    u tenancy_internal.purges := tenancy_internal.purge_at_hand(purge);
    owner tenancy.tenants;
    target regclass;
    more bigint;
    left_over text;
    c tenancy_internal.purge_certificates;
    known bigint;
    own record;
    gone bigint;
    own_tables jsonb := '[]';
BEGIN
    PERFORM tenancy_internal.await_writers(u.closed_at);
    SELECT t.* INTO owner FROM tenancy.tenants t WHERE t.id = u.tenant_id FOR NO KEY UPDATE;
    -- What was protected since is purged too; what is not is refused.
    PERFORM tenancy_internal.check_purge(owner.id, owner.code, false);
    FOR target IN SELECT p.relation FROM tenancy_internal.protected_tables p WHERE p.root = p.relation AND p.access <> 'reference' LOOP
        EXECUTE format('SELECT count(*) FROM %s WHERE %s', target, tenancy_internal.rows_of(target, owner)) INTO more;
        IF more > 0 THEN
            left_over := concat_ws(', ', left_over, format('%s in %s', more, target));
        END IF;
    END LOOP;
    IF left_over IS NOT NULL THEN
        IF u.rounds >= 5 THEN
            RAISE EXCEPTION 'rows of tenant "%" are written while it is purged', owner.code
                USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = left_over,
                      HINT = 'Only a role that row security does not bind can do so: stop it, and call the same again.';
        END IF;
        UPDATE tenancy_internal.purges SET rounds = rounds + 1 WHERE id = u.id;
        PERFORM tenancy_internal.plan_parts(u.id, plan, true);
        RETURN false;
    END IF;

    -- What we keep ourselves of a tenant's rows.
    more := 0;
    FOR own IN SELECT * FROM (VALUES ('tenancy_internal.once_keys', 'tenant_id = $1'),
                                     ('tenancy.quarantined_rows', 'tenant = ANY ($2)')) AS v(relation, condition) LOOP
        EXECUTE format('DELETE FROM %s WHERE %s', own.relation, own.condition)
          USING owner.id, ARRAY[owner.id::text, owner.number::text, owner.code];
        GET DIAGNOSTICS gone = ROW_COUNT;
        IF gone > 0 THEN
            own_tables := own_tables || jsonb_build_object('table', own.relation, 'how', 'deleted', 'rows', gone);
            more := more + gone;
        END IF;
    END LOOP;
    IF u.include_audit THEN
        DELETE FROM tenancy_internal.audit_retention WHERE tenant_id = owner.id;
    END IF;

    SELECT jsonb_agg(CASE WHEN q.how = 'drop' THEN jsonb_build_object('table', q.name, 'how', 'dropped', 'estimated_rows', q.rows)
                          ELSE jsonb_build_object('table', q.name, 'how', 'deleted', 'rows', q.rows) END ORDER BY q.name, q.how),
           COALESCE(sum(q.rows) FILTER (WHERE q.how <> 'drop'), 0)
      INTO c.tables, c.rows
      FROM tenancy_internal.purge_parts q
     WHERE q.purge = u.id AND (q.rows > 0 OR q.how <> 'drop');
    c.tables := COALESCE(c.tables, '[]') || own_tables;
    SELECT max(o.number) INTO known FROM tenancy_internal.purge_certificates o WHERE o.tenant_id = owner.id;
    IF known IS NULL OR c.rows + more + u.audit_entries > 0
       OR EXISTS (SELECT FROM tenancy_internal.purge_parts q WHERE q.purge = u.id AND q.how = 'drop' AND q.is_done AND q.rows > 0) THEN
        c.rows := c.rows + more;
        LOCK TABLE tenancy_internal.purge_certificates IN EXCLUSIVE MODE;
        SELECT o.number, o.digest INTO c.number, c.previous FROM tenancy_internal.purge_certificates o ORDER BY o.number DESC LIMIT 1;
        c.number := COALESCE(c.number, 0) + 1;
        c.tenant_id := owner.id;
        c.tenant_number := owner.number;
        c.tenant_code := owner.code;
        c.audit_entries := CASE WHEN u.include_audit THEN u.audit_entries END;
        c.runs := u.runs;
        c.started_at := u.started_at;
        c.finished_at := clock_timestamp();
        c.started_by := u.started_by;
        c.finished_by := session_user;
        c.digest := tenancy_internal.digest_certificate(c);
        INSERT INTO tenancy_internal.purge_certificates SELECT c.*;
        PERFORM tenancy.log_event('tenant_purged', 'tenant', owner.id::text, jsonb_build_object(
            'certificate', c.number, 'digest', encode(c.digest, 'hex'), 'rows', c.rows));
        RAISE NOTICE 'tenant "%" was purged: % rows deleted; certificate % in tenancy.purge_certificates', owner.code, c.rows, c.number;
    ELSE
        RAISE NOTICE 'nothing was left of tenant "%"; see certificate % in tenancy.purge_certificates', owner.code, known;
    END IF;
    UPDATE tenancy.tenants
       SET name = code, settings = '{}', contact = '{}', status_reason = 'purged', purged_at = COALESCE(purged_at, now()), updated_at = now()
     WHERE id = owner.id;
    DELETE FROM tenancy_internal.purge_parts q WHERE q.purge = u.id;
    DELETE FROM tenancy_internal.purge_batches b WHERE b.purge = u.id;
    DELETE FROM tenancy_internal.purges q WHERE q.id = u.id;
    PERFORM tenancy_internal.end_job(u.job);
    RETURN true;
END $$;

-- A procedure that commits has no SET clause and is no SECURITY DEFINER: it calls steps, and names everything in full.
-- Its first COMMIT refuses a transaction block before anything is begun.
CREATE PROCEDURE tenancy.purge_tenant(
    tenant text, confirm text DEFAULT NULL, dry_run boolean DEFAULT true, batch_size integer DEFAULT 10000,
    max_seconds integer DEFAULT NULL, pause_ms integer DEFAULT 0, include_audit boolean DEFAULT false
) LANGUAGE plpgsql AS $$
DECLARE
    purge bigint;
BEGIN
    PERFORM tenancy_internal.refuse_in_transaction('tenancy.purge_tenant(...)');
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    purge := tenancy_internal.begin_purge_step(tenant, confirm, dry_run, batch_size, max_seconds, pause_ms, include_audit);
    IF purge IS NULL THEN
        RETURN;
    END IF;
    LOOP
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        WHILE tenancy_internal.purge_step(purge) LOOP
            COMMIT;
            SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
            IF NOT tenancy_internal.rest_purge_step(purge) THEN
                RETURN;
            END IF;
            COMMIT;
            SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        END LOOP;
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        EXIT WHEN tenancy_internal.finish_purge_step(purge);
    END LOOP;
END $$;

-- Keys that were used once
CREATE TABLE tenancy_internal.once_keys (
    tenant_id uuid        NOT NULL,                  -- no foreign key: see tenants.plan
    key       text        NOT NULL,
    first_at  timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CONSTRAINT once_keys_pkey PRIMARY KEY (tenant_id, key)
);
CREATE INDEX once_keys_first_at_idx ON tenancy_internal.once_keys (tenant_id, first_at);
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.once_keys', '');

-- Who comes second waits for the first one's end. Each new key takes some that have expired along.
CREATE FUNCTION tenancy.once(key text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    tenant uuid := tenancy_internal.writing_tenant_id();
    keep interval := NULLIF(current_setting('tenancy.once_retention'), '0')::interval;
    is_first boolean;
BEGIN
    IF (octet_length(once.key) BETWEEN 1 AND 1000) IS NOT TRUE THEN
        RAISE EXCEPTION 'a key for tenancy.once() has 1 to 1000 bytes'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give what the client sends again with a retry, such as its request id.';
    END IF;
    INSERT INTO tenancy_internal.once_keys AS o (tenant_id, key) VALUES (tenant, once.key)
    ON CONFLICT (tenant_id, key) DO UPDATE SET first_at = EXCLUDED.first_at WHERE o.first_at < now() - keep;
    is_first := FOUND;
    IF is_first AND keep IS NOT NULL THEN
        DELETE FROM tenancy_internal.once_keys WHERE ctid = ANY (ARRAY(
            SELECT o.ctid FROM tenancy_internal.once_keys o WHERE o.tenant_id = tenant AND o.first_at < now() - keep
             ORDER BY o.first_at LIMIT 10 FOR UPDATE SKIP LOCKED));
    END IF;
    RETURN is_first;
END $$;

-- The first tenant and the two roles, all or nothing.
CREATE FUNCTION tenancy.bootstrap(default_tenant_code text, app_role regrole, admin_role regrole) RETURNS uuid
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    id uuid;
BEGIN
    IF default_tenant_code IS NULL OR app_role IS NULL OR admin_role IS NULL THEN
        RAISE EXCEPTION 'a default tenant, a role for the application and one for administrators are needed'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Make the roles with CREATE ROLE ... LOGIN, each with a password of its own.';
    END IF;
    IF pg_has_role(app_role, admin_role, 'MEMBER') THEN
        RAISE EXCEPTION 'role "%" would administer tenants', (SELECT r.rolname FROM pg_roles r WHERE r.oid = app_role)
            USING ERRCODE = 'insufficient_privilege', DETAIL = 'It is the role of the administrators, or a member of it.',
                  HINT = 'Give the application a role that is no member of it.';
    END IF;
    id := tenancy.create_tenant(default_tenant_code, if_not_exists => true);
    PERFORM tenancy.grant_usage(app_role);
    PERFORM tenancy.grant_admin(admin_role);
    RETURN id;
END $$;

-- The steps are for purge_tenant, which runs with its caller's rights.
INSERT INTO tenancy_internal.rights (grantee, privileges, kind, objects) VALUES
    ('everybody', 'EXECUTE', 'ROUTINE', '{tenancy_internal.digest_certificate}'),
    ('application', 'EXECUTE', 'ROUTINE', '{tenancy.once}'),
    ('administrator', 'SELECT', 'TABLE', '{tenancy.legal_holds, tenancy.purge_certificates}'),
    ('administrator', 'EXECUTE', 'ROUTINE', '{tenancy.set_legal_hold, tenancy.release_legal_hold, tenancy.plan_purge,
        tenancy.purge_tenant, tenancy.once, tenancy_internal.begin_purge_step, tenancy_internal.purge_step,
        tenancy_internal.rest_purge_step, tenancy_internal.finish_purge_step}');

COMMENT ON TABLE tenancy_internal.legal_holds IS 'tenants that must not be purged, and why';
COMMENT ON TABLE tenancy_internal.purges IS 'purges that are under way or were interrupted';
COMMENT ON TABLE tenancy_internal.purge_parts IS 'how far a purge is, table by table';
COMMENT ON TABLE tenancy_internal.purge_batches IS 'where the rows are that a purge is about to delete';
COMMENT ON TABLE tenancy_internal.purge_certificates IS 'what was purged, each certificate bound to the one before';
COMMENT ON TABLE tenancy_internal.once_keys IS 'keys that tenancy.once() has seen';
COMMENT ON VIEW tenancy.legal_holds IS 'tenants that must not be purged, and why; also those that were released';
COMMENT ON VIEW tenancy.purge_certificates IS 'what was purged, when and by whom, each certificate bound to the one before';
COMMENT ON COLUMN tenancy.purge_certificates.tables IS 'rows deleted from each table; of a dropped partition what its statistics said';
COMMENT ON COLUMN tenancy.purge_certificates.rows IS 'rows deleted, without those of dropped partitions';
COMMENT ON COLUMN tenancy.purge_certificates.audit_entries IS 'entries deleted from the audit log; NULL where they were kept';
COMMENT ON COLUMN tenancy.purge_certificates.digest IS 'SHA-256 over this row and the digest before; keep a copy of the last one elsewhere';
COMMENT ON COLUMN tenancy.purge_certificates.is_intact IS 'the row is as it was written, and follows the one before it';
COMMENT ON FUNCTION tenancy.set_legal_hold(text, text) IS 'keeps a tenant from being purged, for a reason';
COMMENT ON FUNCTION tenancy.release_legal_hold(text) IS 'ends all legal holds of a tenant';
COMMENT ON FUNCTION tenancy.plan_purge(text) IS 'what tenancy.purge_tenant would do, in order, and what stands in its way; changes nothing';
COMMENT ON PROCEDURE tenancy.purge_tenant(text, text, boolean, integer, integer, integer, boolean) IS
    'deletes all rows of a suspended or deleted tenant, in batches, and writes a certificate; call it again to go on where it stopped';
COMMENT ON FUNCTION tenancy.once(text) IS 'true the first time that the tenant uses a key, false after; for retried writes';
COMMENT ON FUNCTION tenancy.bootstrap(text, regrole, regrole) IS 'the first tenant, and the rights of the application''s and the administrators'' roles';
COMMENT ON FUNCTION tenancy_internal.known_tenant(text) IS 'the id of a tenant; refuses one that there is not';
COMMENT ON FUNCTION tenancy_internal.digest_certificate(tenancy_internal.purge_certificates) IS 'the digest that a certificate must have';
COMMENT ON FUNCTION tenancy_internal.tenant_condition(text, text, tenancy.tenants) IS 'which rows are a tenant''s, as SQL';
COMMENT ON FUNCTION tenancy_internal.rows_of(regclass, tenancy.tenants) IS 'which rows of a protected relation are a tenant''s, as SQL';
COMMENT ON FUNCTION tenancy_internal.is_tenants_partition(regclass, tenancy.tenants) IS 'whether a partition is for one tenant alone';
COMMENT ON FUNCTION tenancy_internal.describe_purge(uuid) IS 'the tables with a tenant''s rows, and how they refer to each other';
COMMENT ON FUNCTION tenancy_internal.purge_obstacles(uuid) IS 'what stands in the way of a purge';
COMMENT ON FUNCTION tenancy_internal.check_purgeable(tenancy.tenants) IS 'refuses a tenant that may not be purged now';
COMMENT ON FUNCTION tenancy_internal.check_purge(uuid, text, boolean) IS 'refuses a purge, before anything is done';
COMMENT ON FUNCTION tenancy_internal.plan_parts(bigint, jsonb, boolean) IS 'makes the plan of a purge its checkpoint';
COMMENT ON FUNCTION tenancy_internal.begin_purge(uuid, boolean, integer, integer, integer, boolean, jsonb) IS 'begins a purge, or takes one up where it was';
COMMENT ON FUNCTION tenancy_internal.collect_batches(bigint, regclass, text, integer) IS 'writes down where a tenant''s rows are';
COMMENT ON FUNCTION tenancy_internal.delete_batch(bigint, regclass, text, bigint) IS 'deletes a batch of a tenant''s rows';
COMMENT ON FUNCTION tenancy_internal.delete_blocks(regclass, text, bigint, bigint) IS 'deletes a tenant''s rows in a span of blocks';
COMMENT ON FUNCTION tenancy_internal.delete_circle(regclass[], tenancy.tenants) IS 'deletes a tenant''s rows from tables that refer to each other';
COMMENT ON FUNCTION tenancy_internal.drop_tenants_partition(regclass, tenancy.tenants) IS 'detaches and drops a partition';
COMMENT ON FUNCTION tenancy_internal.purge_audit(bigint) IS 'deletes a batch of a tenant''s entries from the audit log';
COMMENT ON FUNCTION tenancy_internal.purge_at_hand(bigint) IS 'the purge that this session is at work on';
COMMENT ON FUNCTION tenancy_internal.refuse_new_obstacles(regclass[]) IS 'refuses what would be done, or go along, since a purge was planned';
COMMENT ON FUNCTION tenancy_internal.purge_part(bigint) IS 'does the next part of a purge, or a batch of it';
COMMENT ON FUNCTION tenancy_internal.await_writers(timestamptz) IS 'waits for transactions that are older than a purge and have written';
COMMENT ON FUNCTION tenancy_internal.finish_purge(bigint, jsonb) IS 'counts what is left, and writes the certificate';
COMMENT ON FUNCTION tenancy_internal.begin_purge_step(text, text, boolean, integer, integer, integer, boolean) IS 'a step of purge_tenant: checks, plans and takes the turn';
COMMENT ON FUNCTION tenancy_internal.purge_step(bigint) IS 'a step of purge_tenant: the next batch; false when there are no more';
COMMENT ON FUNCTION tenancy_internal.rest_purge_step(bigint) IS 'a step of purge_tenant: pauses; false when the time is over';
COMMENT ON FUNCTION tenancy_internal.finish_purge_step(bigint) IS 'a step of purge_tenant: counts what is left, and writes the certificate';
