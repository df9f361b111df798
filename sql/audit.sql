-- room audit · Rust src/audit, src/pg/audit · tests pgrx-tests/{tests,regress}

-- What is audited, and how
CREATE TABLE tenancy_internal.audited_tables (
    relation       regclass    PRIMARY KEY,    -- follows renames, survives pg_dump and pg_upgrade
    root           regclass    NOT NULL,       -- the table that was audited: itself, or the parent of a partition or child
    ignore_columns text[]      NOT NULL DEFAULT '{}',
    redact_columns text[]      NOT NULL DEFAULT '{}',
    row_images     text        NOT NULL DEFAULT 'diff' CHECK (row_images IN ('diff', 'full', 'none')),
    skip_unchanged boolean     NOT NULL DEFAULT true,
    audited_at     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    audited_by     name        NOT NULL DEFAULT session_user
);
CREATE INDEX audited_tables_root_idx ON tenancy_internal.audited_tables (root);
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.audited_tables', '');

-- Each backend remembers how a table is audited (pg::audit::layout).
CREATE TRIGGER announce_change AFTER INSERT OR UPDATE OR DELETE ON tenancy_internal.audited_tables
    FOR EACH ROW EXECUTE FUNCTION tenancy_internal.announce_change();
CREATE TRIGGER announce_truncate AFTER TRUNCATE ON tenancy_internal.audited_tables
    FOR EACH STATEMENT EXECUTE FUNCTION tenancy_internal.announce_change();
ALTER TABLE tenancy_internal.audited_tables ENABLE ALWAYS TRIGGER announce_change;
ALTER TABLE tenancy_internal.audited_tables ENABLE ALWAYS TRIGGER announce_truncate;

-- How the images of a table's rows are to be read: its columns as they were. Never changed and never removed.
CREATE SEQUENCE tenancy_internal.audit_layout_ids AS integer;
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.audit_layout_ids', '');
CREATE TABLE tenancy_internal.audit_layouts (
    id         integer     NOT NULL,
    relation   regclass    NOT NULL,           -- 0 once the table is dropped
    name       text        NOT NULL,           -- of the table at the time
    row_images text        NOT NULL,
    columns    jsonb       NOT NULL,           -- model::audit::StoredColumn, in the order of the images
    made_at    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    CONSTRAINT audit_layouts_pkey PRIMARY KEY (id)
);
CREATE INDEX audit_layouts_relation_idx ON tenancy_internal.audit_layouts (relation);
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.audit_layouts', '');

-- The columns of audited tables through time: a row for each ALTER that changed them, and one for the beginning of the audit.
-- A column keeps its id when it is renamed, and one that is made anew has another: the id follows the attribute number, and
-- through a dump, which numbers anew, the order of the columns.
CREATE TABLE tenancy_internal.audited_columns (
    relation regclass    NOT NULL,
    number   integer     NOT NULL,             -- its place in time, from 1
    since    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    begins   boolean     NOT NULL,             -- what was done to rows before left no entry
    columns  jsonb       NOT NULL,             -- as tenancy_internal.columns_of() gives them
    place    uuid        NOT NULL,             -- where the attribute numbers are those of table `oid`
    oid      oid         NOT NULL,
    CONSTRAINT audited_columns_pkey PRIMARY KEY (relation, number)
);
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.audited_columns', '');
-- Not dumped: a restored database is another place. One that pg_upgrade made, or a copy, is the same.
CREATE TABLE tenancy_internal.audit_place (place uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid());
INSERT INTO tenancy_internal.audit_place DEFAULT VALUES;

-- The log: a row is what one statement did to rows of one tenant, as many as fit on a page (pg::audit::log writes it).
CREATE SEQUENCE tenancy_internal.audit_chunk_ids INCREMENT BY 32;    -- a session takes so many at a time (pg::audit::log)
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.audit_chunk_ids', '');
CREATE TABLE tenancy_internal.audit_chunks (
    id               bigint      NOT NULL,
    occurred_at      timestamptz NOT NULL,
    statement_at     timestamptz NOT NULL,
    transaction_id   bigint      NOT NULL,     -- an xid8
    key_hash         bigint,                   -- of the one row's key; NULL where the chunk has several, or none
    tenant_id        uuid,                     -- NULL for rows of no tenant; no foreign key: the log outlives its tenant
    layout           integer,                  -- NULL for an application event
    command          integer     NOT NULL,     -- orders the statements of a transaction by their beginning
    row_count        smallint    NOT NULL,
    action           "char"      NOT NULL CHECK (action IN ('I', 'U', 'D', 'T', 'E')),
    entity           text,                     -- type of an application event's entity
    entity_id        text,
    event            text,                     -- name of an application event
    actor            text,
    session_role     text,
    "current_role"   text,                     -- NULL for the same as session_role
    client           text,
    user_agent       text,
    application_name text,
    query            text,
    images           bytea,                    -- pg::audit::image
    details          jsonb
) PARTITION BY RANGE (occurred_at);
-- Never an error for want of a partition. No index on the parent: each partition has its own, so that a dump, which
-- makes them one by one, meets none that is there already.
CREATE TABLE tenancy_internal.audit_chunks_default PARTITION OF tenancy_internal.audit_chunks DEFAULT
    WITH (toast_tuple_target = 8160);          -- a chunk fills a page; it is no candidate for TOAST
CREATE INDEX audit_chunks_default_tenant_idx ON tenancy_internal.audit_chunks_default (tenant_id, occurred_at);
CREATE INDEX audit_chunks_default_row_idx ON tenancy_internal.audit_chunks_default (key_hash, layout, tenant_id);
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.audit_chunks_default', '');

-- Makes the partition for the month (in UTC) that holds `moment`, unless it is there; gives its name, NULL where it was.
-- The caller sees to it that the default partition has no rows of that month.
CREATE FUNCTION tenancy_internal.make_audit_partition(moment timestamptz) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    beginning timestamptz := date_trunc('month', moment);
    partition text := 'audit_chunks_' || to_char(beginning, 'YYYY_MM');
BEGIN
    IF to_regclass('tenancy_internal.' || partition) IS NOT NULL THEN
        RETURN NULL;
    END IF;
    EXECUTE format('CREATE TABLE tenancy_internal.%I (LIKE tenancy_internal.audit_chunks INCLUDING CONSTRAINTS)
                        WITH (toast_tuple_target = 8160)', partition);
    EXECUTE format('CREATE INDEX %I ON tenancy_internal.%I (tenant_id, occurred_at)', partition || '_tenant_idx', partition);
    EXECUTE format('CREATE INDEX %I ON tenancy_internal.%I (key_hash, layout, tenant_id)', partition || '_row_idx', partition);
    EXECUTE format('ALTER TABLE tenancy_internal.audit_chunks ATTACH PARTITION tenancy_internal.%I
                        FOR VALUES FROM (%L) TO (%L)', partition, beginning, beginning + interval '1 month');
    EXECUTE format('COMMENT ON TABLE tenancy_internal.%I IS %L', partition, 'the log of one month (tenancy.maintain_audit)');
    RETURN partition;
END $$;

-- The partitions for this month and the next two, where nothing stands in the way; maintain_audit() sees to the rest.
CREATE FUNCTION tenancy_internal.make_audit_partitions() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    beginning timestamptz;
BEGIN
    FOR ahead IN 0..2 LOOP
        beginning := date_trunc('month', clock_timestamp()) + make_interval(months => ahead);
        IF NOT EXISTS (SELECT FROM tenancy_internal.audit_chunks_default c
                        WHERE c.occurred_at >= beginning AND c.occurred_at < beginning + interval '1 month') THEN
            PERFORM tenancy_internal.make_audit_partition(beginning);
        END IF;
    END LOOP;
END $$;

-- The attribute numbers of a table's key: its primary key, else its replica identity (pg::audit::layout); none: empty.
CREATE FUNCTION tenancy_internal.key_numbers(relation oid) RETURNS int2[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT COALESCE((SELECT (x.indkey::int2[])[:x.indnkeyatts - 1] FROM pg_index x
                      WHERE x.indrelid = relation AND x.indimmediate AND x.indisvalid AND (x.indisprimary OR x.indisreplident)
                      ORDER BY x.indisprimary DESC LIMIT 1), '{}')
$$;

-- A table as src/audit/history.rs looks for its rows and writes them; no row for what is no relation. The types are those under domains.
CREATE FUNCTION tenancy_internal.describe_rows(target oid) RETURNS TABLE (description jsonb)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT jsonb_build_object(
    'name', jsonb_build_object('schema', n.nspname, 'name', c.relname),
    'columns', COALESCE((
        SELECT jsonb_agg(jsonb_build_object(
                   'name', a.attname,
                   'type', jsonb_build_object('schema', tn.nspname, 'name', t.typname),
                   'is_key', a.attnum = ANY (k.numbers),
                   'is_generated', a.attgenerated <> '') ORDER BY a.attnum)
          FROM pg_attribute a
          JOIN pg_type t ON t.oid = tenancy_internal.compared_type(a.atttypid) JOIN pg_namespace tn ON tn.oid = t.typnamespace
         CROSS JOIN (SELECT tenancy_internal.key_numbers(c.oid) AS numbers) AS k
         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '[]'))
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = target
$$;

-- What src/audit/plan.rs holds of a table, its partitions and its children: parents first.
CREATE FUNCTION tenancy_internal.describe_audit(target oid, asking oid) RETURNS TABLE (description jsonb)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT jsonb_build_object(
    'oid', c.oid::bigint,
    'name', jsonb_build_object('schema', n.nspname, 'name', c.relname),
    'kind', c.relkind,
    'is_temporary', c.relpersistence = 't',
    'is_system', n.nspname IN ('pg_catalog', 'information_schema', 'pg_toast')
        OR EXISTS (SELECT FROM pg_depend d
                    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'),
    'partition_of', CASE WHEN c.relispartition THEN (
        SELECT jsonb_build_object('schema', pn.nspname, 'name', p.relname)
          FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent JOIN pg_namespace pn ON pn.oid = p.relnamespace
         WHERE i.inhrelid = c.oid) END,
    'inherits', EXISTS (SELECT FROM pg_inherits i WHERE NOT c.relispartition AND i.inhrelid = c.oid)
        OR EXISTS (SELECT FROM pg_inherits i WHERE c.relkind <> 'p' AND i.inhparent = c.oid),
    'is_owned', pg_has_role(asking, c.relowner, 'USAGE'),
    'columns', COALESCE((
        SELECT jsonb_agg(jsonb_build_object(
                   'name', a.attname,
                   'is_key', a.attnum = ANY (k.numbers),
                   'is_generated', a.attgenerated <> '') ORDER BY a.attnum)
          FROM pg_attribute a CROSS JOIN (SELECT tenancy_internal.key_numbers(c.oid) AS numbers) AS k
         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '[]'),
    'triggers', COALESCE((
        SELECT jsonb_agg(jsonb_build_object(
                   'name', g.tgname,
                   'kind', g.tgtype,
                   'enabled', g.tgenabled,
                   'old_rows', g.tgoldtable,
                   'new_rows', g.tgnewtable,
                   'is_ours', g.tgfoid = 'tenancy_internal.audit_rows()'::regprocedure AND g.tgqual IS NULL
                              AND g.tgattr = ''
               ) ORDER BY g.tgname)
          FROM pg_trigger g WHERE g.tgrelid = c.oid AND NOT g.tgisinternal AND g.tgname LIKE 'tenancy\_audit\_%'), '[]'),
    'root', (SELECT t.root::oid::bigint FROM tenancy_internal.audited_tables t WHERE t.relation = c.oid)
)
  FROM tenancy_internal.table_family(target) WITH ORDINALITY AS f(relation, place)
  JOIN pg_class c ON c.oid = f.relation JOIN pg_namespace n ON n.oid = c.relnamespace
 ORDER BY f.place
$$;

-- Locks all of the tables or none (as LOCK TABLE names them); false where they are not to be had. Waits for none longer than a
-- second, for whoever comes behind waits too; but several times. A session whose lock_timeout is shorter tries once, as long.
CREATE FUNCTION tenancy_internal.lock_briefly(tables text[], mode text, attempts integer) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    own integer := (SELECT s.setting FROM pg_settings s WHERE s.name = 'lock_timeout');
    is_hasty boolean := own BETWEEN 1 AND 999;
    target text;
BEGIN
    FOR attempt IN 1..CASE WHEN is_hasty THEN 1 ELSE attempts END LOOP
        BEGIN
            PERFORM set_config('lock_timeout', CASE WHEN is_hasty THEN own ELSE 1000 END::text, true);
            FOREACH target IN ARRAY tables LOOP
                EXECUTE format('LOCK TABLE %s IN %s MODE', target, mode);
            END LOOP;
            PERFORM set_config('lock_timeout', own::text, true);
            RETURN true;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            IF attempt < attempts AND NOT is_hasty THEN
                PERFORM pg_sleep(0.5 + random());
            END IF;
        END;
    END LOOP;
    RETURN false;
END $$;

-- Locks a table that is to be audited, with its partitions and children.
CREATE FUNCTION tenancy_internal.lock_to_audit(target regclass, mode text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF tenancy_internal.lock_briefly(ARRAY[target::text], mode, 10) THEN
        RETURN;
    END IF;
    RAISE EXCEPTION 'table % is in use', target
        USING ERRCODE = 'lock_not_available',
              HINT = 'Call it again when the transactions that use the table have ended; pg_locks shows them.';
END $$;

-- Takes what was dropped off the record; gives the tables that lost a trigger of the audit, and its name.
CREATE FUNCTION tenancy_internal.forget_audited() RETURNS TABLE (relation oid, lost name)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    d record;
BEGIN
    FOR d IN SELECT o.classid, o.objid, o.objsubid, o.object_type, o.address_names FROM pg_event_trigger_dropped_objects() o LOOP
        IF d.classid = 'pg_class'::regclass AND d.objsubid = 0 AND d.object_type IN ('table', 'foreign table') THEN
            DELETE FROM tenancy_internal.audited_tables t WHERE t.relation = d.objid;
            UPDATE tenancy_internal.audit_layouts l SET relation = 0 WHERE l.relation = d.objid;
            DELETE FROM tenancy_internal.audited_columns c WHERE c.relation = d.objid;
        ELSIF d.object_type = 'trigger' AND d.address_names[3] LIKE 'tenancy\_audit\_%' THEN
            relation := to_regclass(format('%I.%I', d.address_names[1], d.address_names[2]));
            lost := d.address_names[3];
            IF EXISTS (SELECT FROM tenancy_internal.audited_tables t WHERE t.relation = forget_audited.relation) THEN
                RETURN NEXT;
            END IF;
        END IF;
    END LOOP;
END $$;

CREATE VIEW tenancy.audited_tables AS
SELECT t.relation, t.row_images, t.ignore_columns, t.redact_columns, t.skip_unchanged,
       (SELECT tenancy_internal.tenant_column(p.relation, p.tenant_column) FROM tenancy_internal.protected_tables p
         WHERE p.relation = t.relation) AS tenant_column,
       tenancy_internal.is_audited(t.relation) AS is_enforced, CASE WHEN t.root <> t.relation THEN t.root END AS part_of, t.audited_at, t.audited_by
  FROM tenancy_internal.audited_tables t;

-- Each row of the log for itself; whose they are is for the reader to ask.
CREATE VIEW tenancy_internal.audit_entries AS
SELECT c.id * 10000 + i.ordinal AS id, c.occurred_at, c.tenant_id,
       CASE WHEN c.action = 'E' THEN c.entity ELSE l.name END AS table_name,
       CASE WHEN c.action = 'E' THEN to_jsonb(c.entity_id) ELSE i.row_key END AS row_key,
       CASE c.action WHEN 'I' THEN 'INSERT' WHEN 'U' THEN 'UPDATE' WHEN 'D' THEN 'DELETE' WHEN 'T' THEN 'TRUNCATE'
            ELSE c.event END AS action,
       i.changed_columns, i.old_values, CASE WHEN c.action = 'E' THEN c.details ELSE i.new_values END AS new_values,
       c.actor, c.session_role, COALESCE(c."current_role", c.session_role) AS "current_role",
       c.client, c.user_agent, c.application_name, c.transaction_id, c.statement_at, c.query,
       c.id AS chunk, c.command, c.layout, c.key_hash, l.relation, i.ordinal
  FROM tenancy_internal.audit_chunks c
  LEFT JOIN tenancy_internal.audit_layouts l ON l.id = c.layout
 CROSS JOIN LATERAL tenancy_internal.read_chunk(c.tableoid, c.ctid) AS i;

-- A tenant reads its own entries; an administrator without a tenant all of them.
CREATE VIEW tenancy.audit_log WITH (security_barrier) AS
SELECT e.id, e.occurred_at, e.tenant_id, e.table_name, e.row_key, e.action, e.changed_columns, e.old_values, e.new_values,
       e.actor, e.session_role, e."current_role", e.client, e.user_agent, e.application_name, e.transaction_id,
       e.statement_at, e.query
  FROM tenancy_internal.audit_entries e WHERE e.tenant_id = tenancy_internal.audit_tenant()
UNION ALL
SELECT e.id, e.occurred_at, e.tenant_id, e.table_name, e.row_key, e.action, e.changed_columns, e.old_values, e.new_values,
       e.actor, e.session_role, e."current_role", e.client, e.user_agent, e.application_name, e.transaction_id,
       e.statement_at, e.query
  FROM tenancy_internal.audit_entries e WHERE tenancy_internal.audit_tenant() IS NULL;

-- Layouts that a row of `target` may have been written by: its own, its partitions' and children's, and its parents'; those of
-- other partitions too, for a row moves between them.
CREATE FUNCTION tenancy_internal.audit_layouts_of(target oid) RETURNS SETOF integer
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
WITH RECURSIVE above(relation) AS (
    SELECT target
     UNION
    SELECT i.inhparent FROM above a JOIN pg_inherits i ON i.inhrelid = a.relation
)
SELECT l.id FROM tenancy_internal.audit_layouts l
 WHERE l.relation IN (SELECT f FROM tenancy_internal.table_family(target) AS f
                       UNION
                      SELECT a.relation FROM above a
                       UNION
                      SELECT f FROM above a JOIN pg_class c ON c.oid = a.relation AND c.relkind = 'p',
                             tenancy_internal.table_family(a.relation) AS f)
$$;

-- Whether ALTER TYPE without USING leaves every value what it is, and its jsonb too. Types as format_type() shows them.
CREATE FUNCTION tenancy_internal.is_widened(before text, after text) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE
        WHEN before = after THEN true
        WHEN after IN ('text', 'character varying') THEN before IN ('text', 'character varying') OR before LIKE 'character varying(%'
        WHEN after LIKE 'character varying(%' AND before LIKE 'character varying(%'
            THEN substring(before FROM '\d+')::integer <= substring(after FROM '\d+')::integer
        WHEN after = 'numeric' AND before LIKE 'numeric(%' THEN true
        ELSE COALESCE(array_position(ARRAY['smallint', 'integer', 'bigint', 'numeric'], before)
                      < array_position(ARRAY['smallint', 'integer', 'bigint', 'numeric'], after), false)
    END
$$;

-- The columns of a table: [{id, number, name, type, base, key, ignored, redacted, redone}], flags where they are true. The ids are
-- those on record. `retyped` and `recast` got another type by the command at hand, with and without USING; a column is `redone`
-- where its values may be others than before.
CREATE FUNCTION tenancy_internal.columns_of(target oid, retyped text[] DEFAULT '{}', recast text[] DEFAULT '{}') RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
WITH last AS (
    SELECT c.columns, c.oid = target AND c.place = (SELECT p.place FROM tenancy_internal.audit_place p) AS is_here
      FROM tenancy_internal.audited_columns c WHERE c.relation = target ORDER BY c.number DESC LIMIT 1
), before AS (
    SELECT (c ->> 'id')::integer AS id, (c ->> 'number')::integer AS number, c ->> 'name' AS name, c ->> 'type' AS type,
           row_number() OVER (ORDER BY (c ->> 'number')::integer) AS rank
      FROM last, jsonb_array_elements(last.columns) AS c
), present AS (
    SELECT a.attnum::integer AS number, a.attname::text AS name, format_type(a.atttypid, a.atttypmod) AS type,
           tenancy_internal.compared_type(a.atttypid)::bigint AS base,
           a.attnum = ANY (k.numbers) AS is_key,
           -- PostgreSQL keeps no value of a virtual column, so the log has none.
           a.attgenerated = 'v' OR COALESCE(a.attname = ANY (t.ignore_columns), false) AS is_ignored,
           COALESCE(a.attname = ANY (t.redact_columns), false) AS is_redacted
      FROM pg_attribute a LEFT JOIN tenancy_internal.audited_tables t ON t.relation = target
     CROSS JOIN (SELECT tenancy_internal.key_numbers(target) AS numbers) AS k
     WHERE a.attrelid = target AND a.attnum > 0 AND NOT a.attisdropped
), way AS (
    -- A dump numbers the columns anew, in their order. Where that cannot be so, names are all there is; or nothing is sure.
    SELECT CASE WHEN last.is_here THEN 'number'
                WHEN NOT EXISTS (SELECT FROM before b JOIN present p ON p.number = b.rank
                                  WHERE p.name <> b.name AND p.name IN (SELECT o.name FROM before o)) THEN 'rank'
                WHEN (SELECT array_agg(b.name ORDER BY b.name) FROM before b) = (SELECT array_agg(p.name ORDER BY p.name) FROM present p)
                THEN 'name' END AS by
      FROM last
), matched AS (
    SELECT p.*, b.id, b.type AS type_before
      FROM present p
      LEFT JOIN (before b CROSS JOIN way)
        ON CASE way.by WHEN 'number' THEN p.number = b.number WHEN 'rank' THEN p.number = b.rank WHEN 'name' THEN p.name = b.name END
), highest AS (
    SELECT COALESCE(max((c ->> 'id')::integer), 0) AS id
      FROM tenancy_internal.audited_columns v, jsonb_array_elements(v.columns) AS c WHERE v.relation = target
)
SELECT COALESCE(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
           'id', COALESCE(m.id, h.id + m.place), 'number', m.number, 'name', m.name, 'type', m.type, 'base', m.base,
           'key', NULLIF(m.is_key, false), 'ignored', NULLIF(m.is_ignored, false), 'redacted', NULLIF(m.is_redacted, false),
           'redone', NULLIF(m.id IS NOT NULL AND (m.name = ANY (retyped) OR NOT tenancy_internal.is_widened(m.type_before, m.type)
                            OR m.type_before <> m.type AND NOT m.name = ANY (recast)), false))) ORDER BY m.number), '[]')
  FROM (SELECT m.*, row_number() OVER (PARTITION BY m.id IS NULL ORDER BY m.number) AS place FROM matched m) AS m
 CROSS JOIN highest h
$$;

-- Puts the columns of audited tables on record, of those touched with their partitions, children and typed tables, where they
-- are not on record already.
CREATE FUNCTION tenancy_internal.note_columns(touched oid[], retyped text[] DEFAULT '{}', recast text[] DEFAULT '{}') RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
INSERT INTO tenancy_internal.audited_columns (relation, number, begins, columns, place, oid)
SELECT r.relation, COALESCE(l.number, 0) + 1, r.begins, n.columns, p.place, r.relation::oid
  FROM (SELECT DISTINCT t.relation,
               NOT EXISTS (SELECT FROM tenancy_internal.audited_columns b
                            WHERE b.relation = t.relation AND b.begins AND b.since >= t.audited_at) AS begins
          FROM unnest(touched) AS u(oid)
         CROSS JOIN LATERAL (SELECT u.oid
                              UNION
                             SELECT c.oid FROM pg_class o JOIN pg_class c ON c.reloftype = o.reltype
                              WHERE o.oid = u.oid AND o.reltype <> 0) AS s(oid)
         CROSS JOIN LATERAL tenancy_internal.table_family(s.oid) AS f(relation)
          JOIN tenancy_internal.audited_tables t ON t.relation = f.relation) AS r
 CROSS JOIN tenancy_internal.audit_place p
  LEFT JOIN LATERAL (SELECT c.number, (SELECT jsonb_agg(o.value - 'redone' ORDER BY o.ordinality)
                                         FROM jsonb_array_elements(c.columns) WITH ORDINALITY AS o) AS columns
                       FROM tenancy_internal.audited_columns c WHERE c.relation = r.relation ORDER BY c.number DESC LIMIT 1) AS l ON true
 CROSS JOIN LATERAL tenancy_internal.columns_of(r.relation, retyped, recast) AS n(columns)
 WHERE r.begins OR l.columns IS DISTINCT FROM n.columns
$$;

-- The columns of a table through time, newest first. The first version is what the catalog says now, in case something altered the
-- table unseen, which superusers can arrange (event_triggers, ALTER EVENT TRIGGER).
CREATE FUNCTION tenancy_internal.column_versions(target oid)
RETURNS TABLE (number integer, since timestamptz, until timestamptz, begins boolean, columns jsonb)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT v.number, v.since, lead(v.since, 1, 'infinity') OVER (ORDER BY v.number), v.begins, v.columns
      FROM (SELECT c.number, c.since, c.begins, c.columns FROM tenancy_internal.audited_columns c WHERE c.relation = target
             UNION ALL
            SELECT 2147483647, clock_timestamp(), false, tenancy_internal.columns_of(target)) AS v
     ORDER BY v.number DESC
$$;

-- What became of each column that a table had in each of its versions: `name` is what it was called, `now` what it is called, NULL for
-- one that was dropped. `is_redone`: its values may be others since; `is_replaced`: another column has its name.
CREATE FUNCTION tenancy_internal.columns_since(target oid)
RETURNS TABLE (number integer, since timestamptz, until timestamptz, name text, now text, is_redone boolean, is_replaced boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
WITH v AS MATERIALIZED (SELECT * FROM tenancy_internal.column_versions(target)),
     o AS MATERIALIZED (SELECT v.number, v.since, v.until, c.value AS c FROM v, jsonb_array_elements(v.columns) AS c),
     n AS MATERIALIZED (SELECT p.c FROM o p WHERE p.until = 'infinity')
SELECT o.number, o.since, o.until, o.c ->> 'name', n.c ->> 'name',
       EXISTS (SELECT FROM o l WHERE l.number > o.number AND l.c -> 'id' = o.c -> 'id' AND l.c ? 'redone'),
       EXISTS (SELECT FROM n a WHERE a.c -> 'name' = o.c -> 'name' AND a.c -> 'id' <> o.c -> 'id')
  FROM o LEFT JOIN n ON n.c -> 'id' = o.c -> 'id'
$$;

-- Values of an entry, which names the columns of then, by ids of columns of `target`: its columns were `columns` when the entry was
-- written, and are `present` now. `elsewhere`, where the entry is one of a partition, child or parent: tenancy_internal.columns_since() of that.
-- Such tables call their columns alike as long as they belong together.
CREATE FUNCTION tenancy_internal.values_by_id(target oid, columns jsonb, present jsonb, elsewhere jsonb, moment timestamptz, vals jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    missing text;
BEGIN
    IF elsewhere IS NULL THEN
        missing := (SELECT v.key FROM jsonb_object_keys(vals) AS v(key)
                     WHERE NOT EXISTS (SELECT FROM jsonb_array_elements(values_by_id.columns) AS c WHERE c ->> 'name' = v.key) LIMIT 1);
        IF missing IS NOT NULL THEN
            RAISE EXCEPTION 'the log does not know column "%" of % as it was', missing, target::regclass
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      DETAIL = 'An entry names it, the columns on record do not: the table was altered while event triggers were off.',
                      HINT = 'Call tenancy.row_history(...) to see what the log has of the row.';
        END IF;
        RETURN (SELECT COALESCE(jsonb_object_agg(c ->> 'id', vals -> (c ->> 'name')), '{}')
                  FROM jsonb_array_elements(values_by_id.columns) AS c WHERE vals ? (c ->> 'name'));
    END IF;
    RETURN (SELECT COALESCE(jsonb_object_agg(c ->> 'id', v.value), '{}')
              FROM jsonb_each(vals) AS v
              LEFT JOIN jsonb_array_elements(elsewhere) AS s
                ON s ->> 'name' = v.key AND (s ->> 'since')::timestamptz <= moment AND moment < (s ->> 'until')::timestamptz
              JOIN jsonb_array_elements(CASE WHEN s ->> 'now' IS NULL THEN values_by_id.columns ELSE present END) AS c
                ON c ->> 'name' = COALESCE(s ->> 'now', v.key));
END $$;

-- The key of a table through time, as spans with [{now, name, base}]: what the key's columns are called now, what they were called, and their
-- type. Only as far back as a row has the same key: not beyond an ALTER that took other columns for it, or made other values of them.
CREATE FUNCTION tenancy_internal.key_periods(target oid) RETURNS TABLE (since timestamptz, until timestamptz, key jsonb)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
WITH v AS MATERIALIZED (
    SELECT v.since, v.until, (SELECT jsonb_agg(c ORDER BY (c ->> 'id')::integer) FROM jsonb_array_elements(v.columns) AS c WHERE c ? 'key') AS key
      FROM tenancy_internal.column_versions(target) v
), k AS MATERIALIZED (
    SELECT v.since, v.until, v.key, jsonb_path_query_array(v.key, '$[*].id') AS ids FROM v
), n AS (
    SELECT k.key, k.ids FROM k WHERE k.until = 'infinity'
), edge AS (
    SELECT COALESCE(max(CASE WHEN k.ids IS DISTINCT FROM n.ids THEN k.until ELSE k.since END), '-infinity') AS since
      FROM k, n WHERE k.ids IS DISTINCT FROM n.ids OR k.key @> '[{"redone": true}]'
), p AS (
    SELECT k.since, k.until,
           (SELECT jsonb_agg(jsonb_build_object('now', o.value -> 'name', 'name', c.value -> 'name', 'base', c.value -> 'base') ORDER BY c.ordinality)
              FROM jsonb_array_elements(k.key) WITH ORDINALITY AS c JOIN jsonb_array_elements(n.key) AS o ON o.value -> 'id' = c.value -> 'id') AS key
      FROM k, n, edge WHERE k.since >= edge.since
)
SELECT CASE WHEN min(p.since) = (SELECT min(v.since) FROM v) THEN '-infinity' ELSE min(p.since) END, max(p.until), p.key
  FROM (SELECT p.*, count(*) FILTER (WHERE p.is_other) OVER (ORDER BY p.since) AS span
          FROM (SELECT p.*, p.key IS DISTINCT FROM lag(p.key) OVER (ORDER BY p.since) AS is_other FROM p) AS p) AS p
 GROUP BY p.span, p.key
$$;

-- What the log has of one row, newest first; where its key was changed, of the key it had before. `key` has the names of now.
-- Those of `whose`, or all where that is NULL. Statements of one transaction stand in the order of their beginnings: what a trigger's
-- statement did is written before what fired it.
CREATE FUNCTION tenancy_internal.row_entries(target oid, key jsonb, whose uuid)
RETURNS SETOF tenancy_internal.audit_entries
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    wanted jsonb := key;
    last tenancy_internal.audit_entries;       -- where the row had another key before: go on from there
    layouts integer[];                         -- those with this key, each for the span of time in which it was called as
    since timestamptz[];                       -- the layout has it
    until timestamptz[];
    keys jsonb[];
    e record;
BEGIN
    WITH l AS MATERIALIZED (
        SELECT y.* FROM tenancy_internal.audit_layouts y WHERE y.id IN (SELECT tenancy_internal.audit_layouts_of(target))
    ), p AS MATERIALIZED (
        SELECT r.relation, k.* FROM (SELECT DISTINCT l.relation FROM l) AS r, tenancy_internal.key_periods(r.relation) AS k
    )
    SELECT array_agg(l.id), array_agg(p.since), array_agg(p.until), array_agg(p.key)
      INTO layouts, since, until, keys
      FROM l JOIN p ON p.relation = l.relation
     WHERE jsonb_array_length(p.key) = (SELECT count(*) FROM jsonb_array_elements(l.columns) AS c WHERE c ? 'key')
       AND NOT EXISTS (SELECT FROM jsonb_array_elements(p.key) AS n
                        WHERE NOT EXISTS (SELECT FROM jsonb_array_elements(l.columns) AS c
                                           WHERE c ? 'key' AND c -> 'name' = n -> 'name'
                                             AND (c -> 'stored' IN (n -> 'base', '3802')
                                                  OR c -> 'stored' = '1043' AND n -> 'base' = '25')));
    LOOP
        FOR e IN
            WITH found AS MATERIALIZED (
                SELECT p.layout, p.since, p.until, p.key,
                       (SELECT jsonb_object_agg(n ->> 'name', wanted -> (n ->> 'now')) FROM jsonb_array_elements(p.key) AS n) AS wanted
                  FROM unnest(layouts, since, until, keys) AS p(layout, since, until, key)
                 -- A number of now may be none of the type of then.
                 WHERE p.until = 'infinity'
                    OR NOT EXISTS (SELECT FROM jsonb_array_elements(p.key) AS n
                                    WHERE n ->> 'base' IN ('20', '21', '23')
                                      AND NOT CASE WHEN wanted ->> (n ->> 'now') ~ '^-?[0-9]+$'
                                                   THEN abs((wanted ->> (n ->> 'now'))::numeric)
                                                        < CASE n ->> 'base' WHEN '21' THEN 32768 WHEN '23' THEN 2147483648 ELSE 9223372036854775808 END
                                                   ELSE false END)
            )
            SELECT a AS entry, a.row_key, k.row_key AS sought, l.key
              FROM found l
             CROSS JOIN LATERAL tenancy_internal.find_row_key(l.layout, l.wanted) AS k
              JOIN tenancy_internal.audit_entries a
                ON a.layout = l.layout AND (a.key_hash = k.key_hash OR a.key_hash IS NULL)
               AND a.occurred_at >= l.since AND a.occurred_at < l.until
               AND (whose IS NULL OR a.tenant_id = whose)
               AND (a.row_key = k.row_key OR a.action = 'UPDATE' AND a.row_key || COALESCE(a.new_values, '{}') @> k.row_key)
             WHERE last IS NULL
                OR CASE WHEN a.transaction_id = last.transaction_id
                        THEN (a.command, a.chunk, a.ordinal) < (last.command, last.chunk, last.ordinal)
                        ELSE a.occurred_at < last.occurred_at END
             ORDER BY min(a.occurred_at) OVER (PARTITION BY a.transaction_id) DESC, a.command DESC, a.chunk DESC, a.ordinal DESC
        LOOP
            RETURN NEXT e.entry;
            EXIT WHEN e.row_key <> e.sought;
        END LOOP;
        EXIT WHEN NOT FOUND OR e.row_key = e.sought;
        -- What is said of the row from here back is said of its key before.
        wanted := (SELECT jsonb_object_agg(n ->> 'now', e.row_key -> (n ->> 'name')) FROM jsonb_array_elements(e.key) AS n);
        last := e.entry;
    END LOOP;
END $$;

-- The row as it was at `moment`, with the columns of then; NULL where there was none. It goes back from the present row, or from none,
-- undoing entries; what an ALTER did to values has no entry, and a TRUNCATE keeps no images: what they hide is looked for in older
-- entries, and is an error where those do not tell either.
CREATE FUNCTION tenancy_internal.row_at(target oid, key jsonb, whose uuid, present jsonb, present_in oid, moment timestamptz) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    no_way text := format('Call tenancy.row_history(%L, %L) to see what the log has of the row.', target::regclass, key);
    since timestamptz[];                       -- versions of the columns, the newest first
    versions jsonb[];
    v integer := 1;                            -- the version where we are
    v_then integer;
    was_there boolean := present IS NOT NULL;  -- NULL: not known
    state jsonb;                               -- values by ids of columns, as far as they are known
    why jsonb := '{}';                         -- for those that are not
    why_not text;                              -- for the row itself
    is_settled boolean := present IS NULL;     -- an entry says which table the row was in
    barred text[] := '{}';                     -- ids of columns of which older entries do not tell
    wanted text[];                             -- ids of columns that are asked for
    emptied tenancy_internal.audit_chunks[];   -- the newest first
    t integer := 1;
    next_version boolean;
    next_emptied boolean;
    at timestamptz;
    vals jsonb;
    missing jsonb;
    elsewhere jsonb := '{}';                   -- what became of the columns of partitions, children and parents
    e tenancy_internal.audit_entries;
BEGIN
    SELECT array_agg(c.since ORDER BY c.until DESC), array_agg(c.columns ORDER BY c.until DESC),
           max(c.since) FILTER (WHERE c.begins)
      INTO since, versions, at FROM tenancy_internal.column_versions(target) c;
    IF NOT EXISTS (SELECT FROM tenancy_internal.audited_tables a WHERE a.relation = target) THEN
        RAISE EXCEPTION 'table % is not audited', target::regclass
            USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = 'What is done to its rows leaves no entries.', HINT = no_way;
    ELSIF at > moment THEN
        RAISE EXCEPTION 'table % was not audited then', target::regclass
            USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = format('Its audit began at %s.', at),
                  HINT = format('Ask for %L or later.', at);
    END IF;
    at := tenancy_internal.entries_kept_since(target, whose);
    IF at > moment THEN
        RAISE EXCEPTION 'the log does not reach back to %', moment
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  DETAIL = format('Entries of before %s are past their retention.', at),
                  HINT = format('Ask for %L or later; tenancy.set_audit_retention(...) keeps entries longer.', at);
    END IF;
    v_then := (SELECT min(n) FROM generate_subscripts(since, 1) AS n WHERE since[n] <= moment);
    -- What is ignored or redacted by now is nobody's to read any more.
    wanted := ARRAY(SELECT c ->> 'id' FROM jsonb_array_elements(versions[v_then]) AS c
                      LEFT JOIN jsonb_array_elements(versions[1]) AS n ON n -> 'id' = c -> 'id'
                     WHERE NOT (c ?| '{ignored,redacted}' OR COALESCE(n ?| '{ignored,redacted}', false)));
    state := (SELECT COALESCE(jsonb_object_agg(c ->> 'id', present -> (c ->> 'name')), '{}')
                FROM jsonb_array_elements(versions[1]) AS c WHERE NOT c ? 'ignored' AND present IS NOT NULL);
    emptied := ARRAY(SELECT c FROM tenancy_internal.audit_chunks c
                      WHERE c.layout IN (SELECT tenancy_internal.audit_layouts_of(target)) AND c.key_hash IS NULL AND c.action = 'T'
                      ORDER BY c.occurred_at DESC);
    <<back>>
    FOR e IN SELECT r.* FROM tenancy_internal.row_entries(target, key, whose) r
              UNION ALL SELECT (NULL::tenancy_internal.audit_entries).* LOOP
        -- ALTER and TRUNCATE between this entry and what came after it.
        LOOP
            next_version := v < cardinality(since) AND (e.id IS NULL OR since[v] > e.occurred_at);
            next_emptied := t <= cardinality(emptied)
                AND CASE WHEN emptied[t].transaction_id = e.transaction_id THEN emptied[t].command > e.command
                         ELSE e.id IS NULL OR emptied[t].occurred_at > e.occurred_at END;
            EXIT WHEN NOT next_version AND NOT next_emptied;
            IF next_version AND (NOT next_emptied OR since[v] > emptied[t].occurred_at) THEN
                at := since[v];
                EXIT back WHEN at <= moment AND (NOT was_there OR state ?& wanted);
                missing := (SELECT COALESCE(jsonb_object_agg(o.id, o.reason), '{}') FROM (
                    SELECT COALESCE(a, b) ->> 'id' AS id,
                           CASE WHEN a IS NULL THEN format('It was dropped at %s', at)
                                WHEN b IS NULL THEN format('It was added at %s', at)
                                WHEN a ? 'redone' THEN format('Its type was altered at %s', at)
                                WHEN b ? 'ignored' THEN format('It was not audited before %s (ignore_columns)', at) END AS reason
                      FROM jsonb_array_elements(versions[v]) AS a
                      FULL JOIN jsonb_array_elements(versions[v + 1]) AS b ON b -> 'id' = a -> 'id') AS o
                     WHERE o.reason IS NOT NULL);
                IF EXISTS (SELECT FROM jsonb_array_elements(versions[v]) AS a FULL JOIN jsonb_array_elements(versions[v + 1]) AS b ON b -> 'id' = a -> 'id'
                            WHERE COALESCE(a ? 'key', false) <> COALESCE(b ? 'key', false) OR a ?& '{key,redone}') THEN
                    -- Which row of then it is is not known.
                    EXIT back WHEN at <= moment;
                    was_there := NULL;
                    state := '{}';
                    why_not := format('Its key was altered at %s', at);
                ELSIF at > moment THEN
                    state := state - ARRAY(SELECT jsonb_object_keys(missing));
                ELSE
                    barred := barred || ARRAY(SELECT k FROM jsonb_object_keys(missing) AS k WHERE NOT state ? k);
                END IF;
                why := missing || why;
                v := v + 1;
            ELSE
                at := emptied[t].occurred_at;
                IF at > moment THEN
                    IF NOT was_there THEN
                        was_there := NULL;
                        why_not := format('The table was emptied by TRUNCATE at %s', at);
                    END IF;
                ELSE
                    IF was_there IS NULL THEN
                        was_there := false;
                    END IF;
                    EXIT back;
                END IF;
                t := t + 1;
            END IF;
        END LOOP;
        EXIT WHEN e.id IS NULL OR e.occurred_at <= moment AND (NOT was_there OR state ?& wanted);
        IF e.relation <> target AND NOT elsewhere ? e.relation::oid::text THEN
            elsewhere := elsewhere || jsonb_build_object(e.relation::oid,
                (SELECT COALESCE(jsonb_agg(to_jsonb(s)), '[]') FROM tenancy_internal.columns_since(e.relation) AS s));
        END IF;
        vals := tenancy_internal.values_by_id(target, versions[v], versions[1], elsewhere -> e.relation::oid::text, e.occurred_at,
            COALESCE(e.row_key, '{}') || COALESCE(CASE WHEN e.occurred_at <= moment THEN e.new_values ELSE e.old_values END, '{}'));
        -- What an entry without images (row_images => 'none') says nothing of.
        missing := (SELECT COALESCE(jsonb_object_agg(c ->> 'id', 'Entries without images (row_images => ''none'') lie between'), '{}')
                      FROM jsonb_array_elements(versions[v]) AS c
                     WHERE NOT vals ? (c ->> 'id') AND NOT c ? 'ignored'
                       AND (e.changed_columns IS NULL OR c ->> 'name' = ANY (e.changed_columns))
                        OR e.occurred_at <= moment AND e.new_values IS NULL AND c ->> 'name' = ANY (e.changed_columns));
        IF e.occurred_at > moment THEN
            is_settled := is_settled OR e.action <> 'UPDATE';
            was_there := e.action <> 'INSERT';
            IF e.action = 'UPDATE' THEN
                state := state - ARRAY(SELECT jsonb_object_keys(missing)) || vals;
                why := why || missing;
            ELSE
                state := CASE WHEN e.action = 'DELETE' THEN vals ELSE '{}' END;
                why := CASE WHEN e.action = 'DELETE' THEN missing ELSE '{}' END;
            END IF;
        ELSIF e.action = 'DELETE' THEN
            -- Where nothing tells of the row afterwards, it was not there.
            was_there := COALESCE(was_there, false);
            EXIT;
        ELSE
            was_there := true;
            barred := barred || ARRAY(SELECT k FROM jsonb_object_keys(missing) AS k WHERE NOT state ? k);
            state := vals - barred || state;
            why := missing || why;
            EXIT WHEN e.action = 'INSERT';
        END IF;
    END LOOP;
    IF NOT was_there THEN
        RETURN NULL;
    END IF;
    IF was_there IS NULL THEN
        RAISE EXCEPTION 'the log does not know how the row of % was', target::regclass
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  DETAIL = why_not || ', and older entries do not tell of the row.', HINT = no_way;
    END IF;
    at := (SELECT max(c.since) FROM tenancy_internal.audited_columns c WHERE c.relation = present_in AND c.begins);
    IF NOT is_settled AND at > moment THEN
        RAISE EXCEPTION 'the log does not know how the row of % was', target::regclass
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  DETAIL = format('It is in %s, whose audit began at %s.', present_in::regclass, at),
                  HINT = format('Ask for %L or later.', at);
    END IF;
    FOR missing IN SELECT c FROM jsonb_array_elements(versions[v_then]) AS c WHERE c ->> 'id' = ANY (wanted) AND NOT state ? (c ->> 'id') LOOP
        RAISE EXCEPTION 'the log does not know column "%" of the row of % as it was', missing ->> 'name', target::regclass
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  DETAIL = COALESCE(why ->> (missing ->> 'id'), why_not) || ', and no entry of the row has the value of before.', HINT = no_way;
    END LOOP;
    RETURN (SELECT COALESCE(jsonb_object_agg(c ->> 'name',
                   CASE WHEN c ? 'redacted' OR COALESCE(n ? 'redacted', false) THEN to_jsonb('[redacted]'::text)
                        ELSE state -> (c ->> 'id') END), '{}')
              FROM jsonb_array_elements(versions[v_then]) AS c
              LEFT JOIN jsonb_array_elements(versions[1]) AS n ON n -> 'id' = c -> 'id'
             WHERE NOT (c ? 'ignored' OR COALESCE(n ? 'ignored', false)));
END $$;

-- ALWAYS: session_replication_role = replica must not switch them off.
CREATE EVENT TRIGGER tenancy_keep_audit_drops ON sql_drop EXECUTE FUNCTION tenancy_internal.note_audit_drops();
ALTER EVENT TRIGGER tenancy_keep_audit_drops ENABLE ALWAYS;
CREATE EVENT TRIGGER tenancy_keep_audit ON ddl_command_end
    WHEN TAG IN ('ALTER TABLE', 'ALTER TRIGGER', 'CREATE SCHEMA', 'CREATE TABLE', 'CREATE TRIGGER',
                 -- ALTER VIEW ... RENAME COLUMN renames a table's, too; ALTER TYPE those of its typed tables.
                 'ALTER FOREIGN TABLE', 'ALTER MATERIALIZED VIEW', 'ALTER TYPE', 'ALTER VIEW')
    EXECUTE FUNCTION tenancy_internal.guard_audit();
ALTER EVENT TRIGGER tenancy_keep_audit ENABLE ALWAYS;

COMMENT ON EVENT TRIGGER tenancy_keep_audit_drops IS 'takes dropped tables off the record, and keeps the triggers of the audit';
COMMENT ON EVENT TRIGGER tenancy_keep_audit IS 'keeps audited tables audited, with their new partitions and children (tenancy.ddl_guard)';
COMMENT ON TABLE tenancy_internal.audited_tables IS 'what is audited, and how';
COMMENT ON TABLE tenancy_internal.audit_layouts IS 'how images of rows are to be read: the columns of audited tables as they were';
COMMENT ON TABLE tenancy_internal.audit_chunks IS 'the log: what one statement did to rows of one tenant; tenancy.audit_log shows it';
COMMENT ON TABLE tenancy_internal.audit_chunks_default IS 'entries of months without a partition; tenancy.maintain_audit() moves them';
COMMENT ON FUNCTION tenancy_internal.make_audit_partition(timestamptz) IS 'makes the partition of a month for the log';
COMMENT ON FUNCTION tenancy_internal.make_audit_partitions() IS 'makes the partitions of this month and the next two for the log';
COMMENT ON FUNCTION tenancy_internal.audit_rows() IS 'writes what a statement did to the log';
COMMENT ON FUNCTION tenancy_internal.describe_audit(oid, oid) IS 'what audit_table looks at in a table, its partitions and children';
COMMENT ON FUNCTION tenancy_internal.lock_briefly(text[], text, integer) IS 'locks all of the tables or none, waiting briefly';
COMMENT ON FUNCTION tenancy_internal.lock_to_audit(regclass, text) IS 'locks a table that is to be audited, waiting briefly';
COMMENT ON FUNCTION tenancy_internal.forget_audited() IS 'takes dropped tables off the record, and names what lost a trigger of the audit';
COMMENT ON FUNCTION tenancy_internal.note_audit_drops() IS 'takes dropped tables off the record, and keeps the triggers of the audit';
COMMENT ON FUNCTION tenancy_internal.guard_audit() IS 'judges what a statement left behind: audits what is new, refuses what ends an audit';
COMMENT ON FUNCTION tenancy_internal.is_audited(oid) IS 'whether all triggers of the audit are in place, unaltered';
COMMENT ON FUNCTION tenancy_internal.read_chunk(oid, tid) IS 'the rows of a chunk of the log, for whoever may read them';
COMMENT ON FUNCTION tenancy_internal.find_row_key(integer, jsonb) IS 'a row''s key as the log has it, with its hash; no row for what is no key';
COMMENT ON FUNCTION tenancy_internal.audit_layouts_of(oid) IS 'layouts that rows of a table may have been written by';
COMMENT ON TABLE tenancy_internal.audited_columns IS 'the columns of audited tables through time';
COMMENT ON TABLE tenancy_internal.audit_place IS 'names this database, where attribute numbers are those on record';
COMMENT ON FUNCTION tenancy_internal.key_numbers(oid) IS 'the attribute numbers of a table''s key';
COMMENT ON FUNCTION tenancy_internal.is_widened(text, text) IS 'whether ALTER TYPE without USING leaves every value as it is';
COMMENT ON FUNCTION tenancy_internal.columns_of(oid, text[], text[]) IS 'the columns of a table, with the ids that they have on record';
COMMENT ON FUNCTION tenancy_internal.note_columns(oid[], text[], text[]) IS 'puts the columns of audited tables on record where they changed';
COMMENT ON FUNCTION tenancy_internal.column_versions(oid) IS 'the columns of a table through time, newest first, from now';
COMMENT ON FUNCTION tenancy_internal.columns_since(oid) IS 'what became of the columns of a table, by the time and the name that they had';
COMMENT ON FUNCTION tenancy_internal.describe_rows(oid) IS 'a table as reading and undoing look at its rows';
COMMENT ON FUNCTION tenancy_internal.values_by_id(oid, jsonb, jsonb, jsonb, timestamptz, jsonb) IS 'values of an entry by ids of columns';
COMMENT ON FUNCTION tenancy_internal.key_periods(oid) IS 'names and types of a table''s key through time, as far as rows can be followed';
COMMENT ON FUNCTION tenancy_internal.row_entries(oid, jsonb, uuid) IS 'what the log has of a row, newest first';
COMMENT ON FUNCTION tenancy_internal.row_at(oid, jsonb, uuid, jsonb, oid, timestamptz) IS 'a row as it was, from its present state back';
COMMENT ON FUNCTION tenancy_internal.audit_tenant() IS
    'the tenant whose entries may be read; NULL for an administrator without one, who may read all';
COMMENT ON VIEW tenancy_internal.audit_entries IS 'the log, an entry a row';
COMMENT ON VIEW tenancy.audited_tables IS 'what is audited, how, and whether its triggers are in place';
COMMENT ON COLUMN tenancy.audited_tables.part_of IS 'the table it is audited with, for a partition or child';
COMMENT ON VIEW tenancy.audit_log IS
    'the audit log: a tenant sees its own entries, an administrator without a tenant all; nobody whom row security binds can change any';
COMMENT ON COLUMN tenancy.audit_log.table_name IS 'the table as it was called at the time; for tenancy.log_event the type of the entity';
COMMENT ON COLUMN tenancy.audit_log.row_key IS 'the primary key (or replica identity) the row had before; for tenancy.log_event the id of the entity';
COMMENT ON COLUMN tenancy.audit_log.changed_columns IS 'the columns that an UPDATE changed, redacted ones too';
COMMENT ON COLUMN tenancy.audit_log.old_values IS 'of a deleted row; of a changed one what was changed, or all with row_images full';
COMMENT ON COLUMN tenancy.audit_log.new_values IS 'of an inserted row; of a changed one what was changed, or all with row_images full; the details of an event';
COMMENT ON COLUMN tenancy.audit_log.actor IS 'the setting app.current_user_id: who the application says it was';
COMMENT ON COLUMN tenancy.audit_log.client IS 'the setting app.client_ip, else the address of the connection';
COMMENT ON COLUMN tenancy.audit_log.transaction_id IS 'as pg_current_xact_id() gives it';
COMMENT ON FUNCTION tenancy.audit_table(regclass, name[], name[], text, boolean, name, boolean) IS
    'writes each change of a table''s rows to tenancy.audit_log, of its partitions and children too; plan_audit shows the steps';
COMMENT ON FUNCTION tenancy.plan_audit(regclass, name[], name[], text, boolean, name, boolean) IS
    'the steps audit_table would take, with their locks and reasons';
COMMENT ON FUNCTION tenancy.unaudit_table(regclass) IS 'ends what audit_table began; the entries stay';
COMMENT ON FUNCTION tenancy.log_event(text, text, text, jsonb) IS
    'writes an event of the application to tenancy.audit_log, in this transaction; gives the entry''s id';
COMMENT ON FUNCTION tenancy.row_history(regclass, jsonb) IS
    'what was done to a row, newest last, also under a key that it had before';
COMMENT ON FUNCTION tenancy.row_as_of(regclass, jsonb, timestamptz) IS
    'a row as it was at a time, without ignored columns; NULL where there was none';
COMMENT ON FUNCTION tenancy.tenant_activity(text, timestamptz) IS
    'what was done for a tenant since a time, by transaction, table and action';
COMMENT ON FUNCTION tenancy.revert_transaction(bigint, boolean) IS
    'undoes what a transaction did to rows of the current tenant, or shows what stands in the way (dry_run)';

-- Keeping, moving, dropping and sealing the log · Rust src/audit/{retention,seal}.rs, src/pg/audit/turn.rs
-- tests pgrx-tests/tests/audit/{retention,seals}.rs

-- How long entries are kept: a tenant's, or where tenant_id is NULL those of all others; 90 days where nothing is said.
CREATE TABLE tenancy_internal.audit_retention (
    tenant_id uuid,                            -- no foreign key: the log outlives its tenant
    keep      interval    NOT NULL,
    set_at    timestamptz NOT NULL DEFAULT pg_catalog.now(),
    set_by    name        NOT NULL DEFAULT session_user
);
CREATE UNIQUE INDEX audit_retention_tenant_key ON tenancy_internal.audit_retention (tenant_id);
CREATE UNIQUE INDEX audit_retention_default_key ON tenancy_internal.audit_retention ((true)) WHERE tenant_id IS NULL;
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.audit_retention', '');

CREATE VIEW tenancy.audit_retention AS
SELECT r.tenant_id, t.code AS tenant_code, r.keep, r.set_at, r.set_by
  FROM tenancy_internal.audit_retention r LEFT JOIN tenancy.tenants t ON t.id = r.tenant_id
 UNION ALL
SELECT NULL, NULL, '90 days', NULL, NULL
 WHERE NOT EXISTS (SELECT FROM tenancy_internal.audit_retention r WHERE r.tenant_id IS NULL);

-- What maintain_audit() and seal_audit() did.
CREATE TABLE tenancy_internal.audit_runs (
    id                 bigint      GENERATED ALWAYS AS IDENTITY,
    task               text        NOT NULL CHECK (task IN ('maintain', 'seal')),
    state              text        NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done', 'interrupted')),
    started_at         timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    finished_at        timestamptz,
    started_by         name        NOT NULL DEFAULT session_user,
    process            integer     NOT NULL DEFAULT pg_catalog.pg_backend_pid(),
    partitions_made    text[]      NOT NULL DEFAULT '{}',
    partitions_dropped text[]      NOT NULL DEFAULT '{}',
    partitions_sealed  text[]      NOT NULL DEFAULT '{}',
    entries_moved      bigint      NOT NULL DEFAULT 0,
    entries_deleted    bigint      NOT NULL DEFAULT 0,
    notes              text[]      NOT NULL DEFAULT '{}',
    told_at            timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    chunks_copied      bigint      NOT NULL DEFAULT 0,
    seen_before        bigint      NOT NULL DEFAULT 0,      -- what transactions before this one wrote has been copied
    horizon            timestamptz,                         -- entries before it are not copied: nobody keeps them
    CONSTRAINT audit_runs_pkey PRIMARY KEY (id)
);
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.audit_runs', '');
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.audit_runs_id_seq', '');

-- What a run of maintain_audit() has copied of transactions that may have written more since: of transaction seen_before
-- and later ones. So what is missing is found without a look at what was copied.
CREATE UNLOGGED TABLE tenancy_internal.audit_copied (
    id             bigint NOT NULL,
    transaction_id bigint NOT NULL
);

-- Also what a run holds as its own, in pg::audit::turn: nothing else locks a view so.
CREATE VIEW tenancy.audit_maintenance AS
SELECT id, task, state, started_at, finished_at, started_by, process, partitions_made, entries_moved, partitions_dropped,
       entries_deleted, partitions_sealed, notes
  FROM tenancy_internal.audit_runs;

-- Digests of a partition by spans of 16,384 chunk ids, so that deleting reads no more than it touches.
CREATE TABLE tenancy_internal.audit_segments (
    partition text   NOT NULL,
    segment   bigint NOT NULL,
    chunks    bigint NOT NULL,
    digest    bytea  NOT NULL,
    CONSTRAINT audit_segments_pkey PRIMARY KEY (partition, segment)
);
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.audit_segments', '');

-- The chain: each digest covers the row and the digest before it.
CREATE TABLE tenancy_internal.audit_seals (
    number    bigint      NOT NULL,            -- its place, from 1 and without gaps
    partition text        NOT NULL,
    from_at   timestamptz NOT NULL,
    to_at     timestamptz NOT NULL,
    action    text        NOT NULL CHECK (action IN ('sealed', 'pruned', 'dropped')),
    reason    text        NOT NULL,
    chunks    bigint      NOT NULL,
    root      bytea       NOT NULL,            -- over the digests of its segments
    previous  bytea,
    digest    bytea       NOT NULL,
    sealed_at timestamptz NOT NULL,
    sealed_by text        NOT NULL,
    CONSTRAINT audit_seals_pkey PRIMARY KEY (number)
);
CREATE INDEX audit_seals_partition_idx ON tenancy_internal.audit_seals (partition, number);
SELECT pg_catalog.pg_extension_config_dump('tenancy_internal.audit_seals', '');

CREATE VIEW tenancy.audit_seals AS
SELECT number, partition, from_at, to_at, action, reason, chunks,
       pg_catalog.encode(digest, 'hex') AS digest, pg_catalog.encode(previous, 'hex') AS previous, sealed_at, sealed_by
  FROM tenancy_internal.audit_seals;

-- The partitions of the log for a span of time. The bounds are read as they were printed.
CREATE FUNCTION tenancy_internal.audit_partitions() RETURNS TABLE (partition text, relation regclass, from_at timestamptz, to_at timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO' AS $$
    SELECT b.relname, b.oid, substring(b.bound FROM 'FROM [(]''([^'']+)''[)]')::timestamptz,
           substring(b.bound FROM 'TO [(]''([^'']+)''[)]')::timestamptz
      FROM (SELECT c.relname::text, c.oid::regclass, pg_get_expr(c.relpartbound, c.oid) AS bound
              FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
             WHERE i.inhparent = 'tenancy_internal.audit_chunks'::regclass) AS b
     WHERE b.bound <> 'DEFAULT'
     ORDER BY 3
$$;

-- Up to when entries of a tenant (NULL: of all others) are past their retention. What nobody keeps goes with its
-- partition: no entry is looked at for those who keep longest.
CREATE FUNCTION tenancy_internal.audit_cutoffs() RETURNS TABLE (tenant_id uuid, cutoff timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT r.tenant_id, CASE WHEN now() - r.keep > min(now() - r.keep) OVER () THEN now() - r.keep ELSE '-infinity' END
      FROM tenancy.audit_retention r
$$;

-- Before this, nobody's entries are kept.
CREATE FUNCTION tenancy_internal.audit_horizon() RETURNS timestamptz
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT min(now() - r.keep) FROM tenancy.audit_retention r
$$;

-- From when on no entry of a table is past its retention; what is older may have been removed.
CREATE FUNCTION tenancy_internal.entries_kept_since(target oid, whose uuid) RETURNS timestamptz
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT max(now() - r.keep)
      FROM tenancy.audit_retention r
     WHERE CASE WHEN whose IS NULL
                -- Rows of any tenant, unless the table has none.
                THEN r.tenant_id IS NULL
                     OR EXISTS (SELECT FROM tenancy_internal.protected_tables p WHERE p.relation = target AND p.tenant_column IS NOT NULL)
                WHEN EXISTS (SELECT FROM tenancy.audit_retention o WHERE o.tenant_id = whose) THEN r.tenant_id = whose
                ELSE r.tenant_id IS NULL END
$$;

-- Locks each of the relations, or none, as tenancy_internal.lock_briefly() does.
CREATE FUNCTION tenancy_internal.lock_audit(relations regclass[], mode text, attempts integer) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- Who waited for a writer must see what it wrote.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'a step of the audit''s maintenance needs a transaction that reads what is committed'
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'CALL tenancy.maintain_audit() or tenancy.seal_audit() instead.';
    END IF;
    RETURN tenancy_internal.lock_briefly(ARRAY(SELECT 'ONLY ' || r FROM unnest(relations) WITH ORDINALITY AS u(r, place) ORDER BY place),
                                         mode, attempts);
END $$;

-- Takes the turn, which one run has at a time, and opens its record.
CREATE FUNCTION tenancy_internal.begin_audit_step(task text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    run bigint;
BEGIN
    PERFORM tenancy_internal.take_audit_turn();
    -- Nobody else has the turn, so nobody is at work on these.
    UPDATE tenancy_internal.audit_runs SET state = 'interrupted', finished_at = clock_timestamp() WHERE state = 'running';
    DELETE FROM tenancy_internal.audit_runs WHERE id <= (SELECT max(id) FROM tenancy_internal.audit_runs) - 1000;
    INSERT INTO tenancy_internal.audit_runs (task) VALUES (begin_audit_step.task) RETURNING id INTO run;
    RETURN run;
END $$;

-- Refuses a step to a session that has not begun the run: two that go through the log at once would get in each other's way.
CREATE FUNCTION tenancy_internal.assert_audit_run(run bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT tenancy_internal.has_audit_turn()
       OR NOT EXISTS (SELECT FROM tenancy_internal.audit_runs r WHERE r.id = run AND r.state = 'running' AND r.process = pg_backend_pid()) THEN
        RAISE EXCEPTION 'this session is not at work on such a run'
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'CALL tenancy.maintain_audit() or tenancy.seal_audit() instead.';
    END IF;
END $$;

-- Closes the record and gives the turn back.
CREATE FUNCTION tenancy_internal.end_audit_step(run bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r tenancy_internal.audit_runs;
    note text;
BEGIN
    PERFORM tenancy_internal.assert_audit_run(run);
    UPDATE tenancy_internal.audit_runs SET state = 'done', finished_at = clock_timestamp() WHERE id = run RETURNING * INTO r;
    FOREACH note IN ARRAY r.notes LOOP
        RAISE WARNING '%', note;
    END LOOP;
    IF r.task = 'maintain' THEN
        RAISE NOTICE 'audit log maintained: % partitions made, % dropped, % chunks moved, % entries deleted',
            cardinality(r.partitions_made), cardinality(r.partitions_dropped), r.entries_moved, r.entries_deleted;
    ELSE
        RAISE NOTICE 'audit log sealed: % partitions', cardinality(r.partitions_sealed);
    END IF;
    PERFORM tenancy_internal.give_audit_turn();
END $$;

-- Says how far a run has come, but not more than once in ten seconds.
CREATE FUNCTION tenancy_internal.tell_audit_progress(run bigint, what text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE tenancy_internal.audit_runs SET told_at = clock_timestamp()
     WHERE id = run AND told_at < clock_timestamp() - interval '10 seconds';
    IF FOUND THEN
        RAISE NOTICE '%', what;
    END IF;
END $$;

-- A table for the entries of a month, not yet a partition; nothing where it is there.
CREATE FUNCTION tenancy_internal.stage_audit_partition(beginning timestamptz) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    staging text := 'audit_staging_' || to_char(beginning, 'YYYY_MM');
BEGIN
    IF to_regclass('tenancy_internal.' || staging) IS NULL THEN
        EXECUTE format('CREATE TABLE tenancy_internal.%I (LIKE tenancy_internal.audit_chunks_default INCLUDING CONSTRAINTS INCLUDING INDEXES)
                            WITH (toast_tuple_target = 8160)', staging);
        -- So that it need not be read once more when it becomes a partition.
        EXECUTE format('ALTER TABLE tenancy_internal.%I ADD CONSTRAINT audit_month CHECK (occurred_at >= %L AND occurred_at < %L)',
                       staging, beginning, beginning + interval '1 month');
    END IF;
    RETURN staging;
END $$;

-- The tables that are to become partitions, their months, and the names they will have: another one where a name is
-- taken, by a partition that a DBA has detached.
CREATE FUNCTION tenancy_internal.audit_stages() RETURNS TABLE (staging text, beginning timestamptz, partition text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
    SELECT c.relname::text, to_date(right(c.relname, 7), 'YYYY_MM')::timestamptz,
           (SELECT n.name
              FROM generate_series(1, 1000) AS again,
                   concat(replace(c.relname, 'staging', 'chunks'), CASE WHEN again > 1 THEN '_' || again END) AS n(name)
             WHERE to_regclass('tenancy_internal.' || n.name) IS NULL ORDER BY again LIMIT 1)
      FROM pg_class c
     WHERE c.relnamespace = 'tenancy_internal'::regnamespace AND c.relkind = 'r' AND NOT c.relispartition
       AND c.relname LIKE 'audit\_staging\_%'
     ORDER BY 1
$$;

-- Whether the default partition has entries to be moved; throws away what an interrupted run has copied, for they are
-- all in the default partition as well.
CREATE FUNCTION tenancy_internal.stage_audit_step(run bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    since timestamptz := date_trunc('month', tenancy_internal.audit_horizon());
    staging text;
    beginning timestamptz;
BEGIN
    PERFORM tenancy_internal.assert_audit_run(run);
    FOR staging IN SELECT t.staging FROM tenancy_internal.audit_stages() t LOOP
        EXECUTE format('DROP TABLE tenancy_internal.%I', staging);
    END LOOP;
    DELETE FROM tenancy_internal.audit_copied;
    UPDATE tenancy_internal.audit_runs
       SET seen_before = pg_snapshot_xmin(pg_current_snapshot())::text::bigint, horizon = since WHERE id = run;
    IF NOT EXISTS (SELECT FROM ONLY tenancy_internal.audit_chunks_default) THEN
        RETURN false;
    END IF;
    FOR beginning IN SELECT DISTINCT date_trunc('month', c.occurred_at) FROM ONLY tenancy_internal.audit_chunks_default c
                      WHERE c.occurred_at >= since LOOP
        PERFORM tenancy_internal.stage_audit_partition(beginning);
    END LOOP;
    RETURN true;
END $$;

-- Copies rows of the default partition to the table of their month, and notes those that the next pass meets again. What is
-- copied is for the caller to say: `which` is a condition on row c, of which $1 is the argument.
CREATE FUNCTION tenancy_internal.copy_audit(run bigint, beginning timestamptz, which text, argument tid[], noted_from bigint)
RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET enable_nestloop = off AS $$
DECLARE
    copied bigint;
BEGIN
    EXECUTE format('WITH copied AS (
                        INSERT INTO tenancy_internal.%I
                        SELECT c.* FROM ONLY tenancy_internal.audit_chunks_default c
                         WHERE %s AND c.occurred_at >= %L AND c.occurred_at < %L
                        RETURNING id, transaction_id
                    ), noted AS (
                        INSERT INTO tenancy_internal.audit_copied
                        SELECT id, transaction_id FROM copied WHERE transaction_id >= %s
                    )
                    SELECT count(*) FROM copied',
                   tenancy_internal.stage_audit_partition(beginning), which, beginning, beginning + interval '1 month', noted_from)
       INTO copied USING argument;
    UPDATE tenancy_internal.audit_runs SET chunks_copied = chunks_copied + copied WHERE id = run;
END $$;

-- Copies the entries of 2,048 blocks of the default partition; gives the block to go on with, NULL at the end.
-- Writers are not held up: what they add behind our back is copied by the next step.
CREATE FUNCTION tenancy_internal.copy_audit_step(run bigint, block bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    blocks bigint := pg_relation_size('tenancy_internal.audit_chunks_default') / current_setting('block_size')::bigint;
    -- PostgreSQL 13 cannot read a span of blocks without the others.
    span bigint := CASE WHEN current_setting('server_version_num')::int >= 140000 THEN 2048 ELSE blocks + 1 END;
    ends tid[] := ARRAY[format('(%s,0)', block), format('(%s,0)', block + span)]::tid[];
    since bigint := (SELECT r.seen_before FROM tenancy_internal.audit_runs r WHERE r.id = run);
    beginning timestamptz;
BEGIN
    PERFORM tenancy_internal.assert_audit_run(run);
    FOR beginning IN SELECT t.beginning FROM tenancy_internal.audit_stages() t LOOP
        PERFORM tenancy_internal.copy_audit(run, beginning, 'c.ctid >= $1[1] AND c.ctid < $1[2]', ends, since);
    END LOOP;
    PERFORM tenancy_internal.tell_audit_progress(run, format('copied block %s of %s of the default partition', block, blocks));
    RETURN CASE WHEN block + span < blocks THEN block + span END;
END $$;

-- Copies what came since the blocks were copied, or since this was called last; all that is missing where `all_of_it`.
-- Says how many chunks the default partition has that are to be moved. Reads it once, whatever it finds.
CREATE FUNCTION tenancy_internal.catch_up_audit(run bigint, all_of_it boolean) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    now_seen bigint := pg_snapshot_xmin(pg_current_snapshot())::text::bigint;
    r tenancy_internal.audit_runs;
    kept bigint;
    late tid[];
    beginning timestamptz;
BEGIN
    SELECT * INTO r FROM tenancy_internal.audit_runs WHERE id = run;
    SELECT count(*) FILTER (WHERE c.occurred_at >= r.horizon),
           array_agg(c.ctid) FILTER (WHERE c.transaction_id >= r.seen_before OR all_of_it)
      INTO kept, late
      FROM ONLY tenancy_internal.audit_chunks_default c;
    FOR beginning IN SELECT DISTINCT date_trunc('month', c.occurred_at) FROM ONLY tenancy_internal.audit_chunks_default c
                      WHERE c.ctid = ANY (late) AND c.occurred_at >= r.horizon LOOP
        PERFORM tenancy_internal.copy_audit(
            run, beginning,
            format('c.ctid = ANY ($1) AND NOT EXISTS (SELECT FROM tenancy_internal.%I there WHERE there.id = c.id)',
                   CASE WHEN all_of_it THEN tenancy_internal.stage_audit_partition(beginning) ELSE 'audit_copied' END),
            late, now_seen);
    END LOOP;
    DELETE FROM tenancy_internal.audit_copied WHERE transaction_id < now_seen;
    UPDATE tenancy_internal.audit_runs SET seen_before = now_seen WHERE id = run;
    RETURN kept;
END $$;

-- Catches up while nobody waits, so that little is left for when they do.
CREATE FUNCTION tenancy_internal.catch_up_audit_step(run bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM tenancy_internal.assert_audit_run(run);
    PERFORM tenancy_internal.catch_up_audit(run, false);
END $$;

-- Makes ready what can be before writers have to wait: tables for this month and the next two, and names.
CREATE FUNCTION tenancy_internal.prepare_audit_stages() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    beginning timestamptz;
    staging text;
    index text;
    name text;
BEGIN
    FOR beginning IN SELECT date_trunc('month', now()) + make_interval(months => n) FROM generate_series(0, 2) n LOOP
        IF NOT EXISTS (SELECT FROM tenancy_internal.audit_partitions() p WHERE p.from_at <= beginning AND beginning < p.to_at) THEN
            PERFORM tenancy_internal.stage_audit_partition(beginning);
        END IF;
    END LOOP;
    FOR staging, name IN SELECT t.staging, t.partition FROM tenancy_internal.audit_stages() t LOOP
        FOR index IN SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
                      WHERE i.indrelid = ('tenancy_internal.' || staging)::regclass AND starts_with(c.relname, staging) LOOP
            EXECUTE format('ALTER INDEX tenancy_internal.%I RENAME TO %I', index, replace(index, staging, name));
        END LOOP;
        EXECUTE format('COMMENT ON TABLE tenancy_internal.%I IS %L', staging, 'the log of one month (tenancy.maintain_audit)');
    END LOOP;
END $$;

-- Makes partitions of this month, the next two, and those whose entries are in the default partition, which is empty
-- afterwards. Writers wait meanwhile: for one look at the default partition, and for three statements a partition. False
-- where the locks could not be had.
CREATE FUNCTION tenancy_internal.attach_audit_step(run bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    beginning timestamptz;
    staging text;
    moved bigint;
    kept bigint;
    expired bigint;
    name text;
BEGIN
    PERFORM tenancy_internal.assert_audit_run(run);
    IF NOT EXISTS (SELECT FROM ONLY tenancy_internal.audit_chunks_default)
       AND (SELECT bool_and(EXISTS (SELECT FROM tenancy_internal.audit_partitions() p WHERE p.from_at <= m AND m < p.to_at))
              FROM (SELECT date_trunc('month', now()) + make_interval(months => n) AS m FROM generate_series(0, 2) n) AS months) THEN
        RETURN true;
    END IF;
    PERFORM tenancy_internal.prepare_audit_stages();
    -- What nobody keeps is not added to any more, so it is counted while nobody waits.
    SELECT COALESCE(sum(c.row_count), 0) INTO expired FROM ONLY tenancy_internal.audit_chunks_default c
     WHERE c.occurred_at < (SELECT r.horizon FROM tenancy_internal.audit_runs r WHERE r.id = run);
    IF NOT tenancy_internal.lock_audit('{tenancy_internal.audit_chunks}', 'SHARE UPDATE EXCLUSIVE', 10)
       OR NOT tenancy_internal.lock_audit('{tenancy_internal.audit_chunks_default}', 'ACCESS EXCLUSIVE', 10) THEN
        UPDATE tenancy_internal.audit_runs
           SET notes = notes || 'no partition was made: long transactions hold the default partition; call it again'::text
         WHERE id = run;
        RETURN false;
    END IF;
    kept := tenancy_internal.catch_up_audit(run, false);
    SELECT r.chunks_copied INTO moved FROM tenancy_internal.audit_runs r WHERE r.id = run;
    IF kept <> moved THEN
        -- Rows that somebody put there by hand need not tell the truth about their transaction.
        PERFORM tenancy_internal.catch_up_audit(run, true);
        SELECT r.chunks_copied INTO moved FROM tenancy_internal.audit_runs r WHERE r.id = run;
        IF kept <> moved THEN
            RAISE EXCEPTION 'the default partition of the audit log has % chunks, but % were copied', kept, moved
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Nothing was changed; please report this.';
        END IF;
    END IF;
    TRUNCATE ONLY tenancy_internal.audit_chunks_default;
    DELETE FROM tenancy_internal.audit_copied;
    FOR staging, beginning, name IN SELECT t.staging, t.beginning, t.partition FROM tenancy_internal.audit_stages() t LOOP
        EXECUTE format('ALTER TABLE tenancy_internal.%I RENAME TO %I', staging, name);
        EXECUTE format('ALTER TABLE tenancy_internal.audit_chunks ATTACH PARTITION tenancy_internal.%I FOR VALUES FROM (%L) TO (%L)',
                       name, beginning, beginning + interval '1 month');
        EXECUTE format('ALTER TABLE tenancy_internal.%I DROP CONSTRAINT audit_month', name);
        UPDATE tenancy_internal.audit_runs SET partitions_made = partitions_made || name WHERE id = run;
    END LOOP;
    UPDATE tenancy_internal.audit_runs
       SET entries_moved = entries_moved + moved, entries_deleted = entries_deleted + expired WHERE id = run;
    RETURN true;
END $$;

-- The partitions whose entries nobody keeps, and those of which some entries may be past their retention.
CREATE FUNCTION tenancy_internal.expired_audit_step(whole boolean) RETURNS text[]
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT COALESCE(array_agg(p.partition ORDER BY p.from_at), '{}')
      FROM tenancy_internal.audit_partitions() p
     WHERE (p.to_at <= tenancy_internal.audit_horizon()) = whole
       AND (whole OR p.from_at < (SELECT max(c.cutoff) FROM tenancy_internal.audit_cutoffs() c))
$$;

-- A text as the bytes that are stored.
CREATE FUNCTION tenancy_internal.bytes(value text) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT pg_catalog.convert_to(value, pg_catalog.getdatabaseencoding()) $$;

-- The digest of what lies in segments of a partition, all of them where `segments` is NULL. The bytes are those that
-- PostgreSQL sends, so they depend on no setting and outlive dump and upgrade; a layout counts with each chunk that it explains.
CREATE FUNCTION tenancy_internal.digest_segments(relation regclass, segments bigint[])
RETURNS TABLE (segment bigint, chunks bigint, digest bytea)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY EXECUTE format($q$
        WITH layouts AS MATERIALIZED (
            SELECT l.id, tenancy_internal.digest('layout', int4send(l.id), tenancy_internal.bytes(l.name),
                       tenancy_internal.bytes(l.row_images), tenancy_internal.bytes(l.columns::text), timestamptz_send(l.made_at)) AS digest
              FROM tenancy_internal.audit_layouts l
        )
        SELECT d.id >> 14, count(*), tenancy_internal.digest('segment', string_agg(d.digest, '' ORDER BY d.id, d.digest))
          FROM (SELECT c.id, tenancy_internal.digest_chunk(
                    c.id, c.occurred_at, c.statement_at, c.transaction_id, c.key_hash, c.tenant_id, c.layout, l.digest, c.command,
                    c.row_count, c.action, c.entity, c.entity_id, c.event, c.actor, c.session_role, c."current_role", c.client,
                    c.user_agent, c.application_name, c.query, c.images, c.details::text) AS digest
                  FROM ONLY %s c LEFT JOIN layouts l ON l.id = c.layout
                 WHERE $1 IS NULL OR c.id >> 14 = ANY ($1)
                OFFSET 0) AS d                 -- digests are sorted, not rows
         GROUP BY 1$q$, relation) USING segments;
END $$;

-- The digest over the segments on record.
CREATE FUNCTION tenancy_internal.digest_partition(partition text) RETURNS bytea
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT tenancy_internal.digest('partition', string_agg(int8send(s.segment) || int8send(s.chunks) || s.digest, '' ORDER BY s.segment))
      FROM tenancy_internal.audit_segments s WHERE s.partition = digest_partition.partition
$$;

-- The digest that a seal must have.
CREATE FUNCTION tenancy_internal.digest_seal(seal tenancy_internal.audit_seals) RETURNS bytea
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT tenancy_internal.digest('seal', int8send(seal.number), tenancy_internal.bytes(seal.partition),
               timestamptz_send(seal.from_at), timestamptz_send(seal.to_at), tenancy_internal.bytes(seal.action),
               tenancy_internal.bytes(seal.reason), int8send(seal.chunks), seal.root, seal.previous,
               timestamptz_send(seal.sealed_at), tenancy_internal.bytes(seal.sealed_by))
$$;

-- The last seal of a partition; of several partitions of one name in turn the last one's.
CREATE FUNCTION tenancy_internal.last_seal(partition text) RETURNS tenancy_internal.audit_seals
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT s FROM tenancy_internal.audit_seals s WHERE s.partition = last_seal.partition ORDER BY s.number DESC LIMIT 1
$$;

-- Adds a link to the chain.
CREATE FUNCTION tenancy_internal.append_seal(partition text, from_at timestamptz, to_at timestamptz, action text, reason text)
RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    seal tenancy_internal.audit_seals;
BEGIN
    SELECT s.number, s.digest INTO seal.number, seal.previous FROM tenancy_internal.audit_seals s ORDER BY s.number DESC LIMIT 1;
    seal.number := COALESCE(seal.number, 0) + 1;
    seal.partition := partition;
    seal.from_at := from_at;
    seal.to_at := to_at;
    seal.action := action;
    seal.reason := reason;
    seal.chunks := (SELECT COALESCE(sum(s.chunks), 0) FROM tenancy_internal.audit_segments s WHERE s.partition = append_seal.partition);
    seal.root := tenancy_internal.digest_partition(partition);
    seal.sealed_at := clock_timestamp();
    seal.sealed_by := session_user;
    seal.digest := tenancy_internal.digest_seal(seal);
    INSERT INTO tenancy_internal.audit_seals SELECT seal.*;
END $$;

-- Drops a partition whose entries nobody keeps. Where it was sealed, the chain keeps what it was and why it went.
CREATE FUNCTION tenancy_internal.drop_audit_step(run bigint, partition text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    p record;
    seal tenancy_internal.audit_seals := tenancy_internal.last_seal(partition);
BEGIN
    PERFORM tenancy_internal.assert_audit_run(run);
    SELECT a.* INTO p FROM tenancy_internal.audit_partitions() a
     WHERE a.partition = drop_audit_step.partition AND a.to_at <= tenancy_internal.audit_horizon();
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF NOT tenancy_internal.lock_audit(ARRAY['tenancy_internal.audit_chunks', p.relation, 'tenancy_internal.audit_chunks_default'],
                                       'ACCESS EXCLUSIVE', 10) THEN
        UPDATE tenancy_internal.audit_runs
           SET notes = notes || format('%s was not dropped: the log is in use; call it again', partition) WHERE id = run;
        RETURN;
    END IF;
    IF seal.action IN ('sealed', 'pruned') THEN
        PERFORM tenancy_internal.append_seal(partition, p.from_at, p.to_at, 'dropped',
                    format('retention: nobody keeps entries from before %s', to_char(p.to_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')));
        DELETE FROM tenancy_internal.audit_segments s WHERE s.partition = drop_audit_step.partition;
    END IF;
    EXECUTE format('DROP TABLE %s', p.relation);
    UPDATE tenancy_internal.audit_runs SET partitions_dropped = partitions_dropped || drop_audit_step.partition WHERE id = run;
END $$;

-- The chunks of a partition that are past their retention.
CREATE FUNCTION tenancy_internal.expired_chunks(relation regclass, most bigint)
RETURNS TABLE (place tid, id bigint, tenant_id uuid, row_count smallint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY EXECUTE format($q$
        WITH cutoffs AS MATERIALIZED (SELECT c.tenant_id, c.cutoff FROM tenancy_internal.audit_cutoffs() c)
        (SELECT c.ctid, c.id, c.tenant_id, c.row_count
           FROM cutoffs r JOIN ONLY %1$s c ON c.tenant_id = r.tenant_id AND c.occurred_at < r.cutoff)
         UNION ALL
        (SELECT c.ctid, c.id, c.tenant_id, c.row_count
           FROM ONLY %1$s c
          WHERE (SELECT r.cutoff FROM cutoffs r WHERE r.tenant_id IS NULL) > '-infinity'
            AND c.occurred_at < (SELECT r.cutoff FROM cutoffs r WHERE r.tenant_id IS NULL)
            AND NOT EXISTS (SELECT FROM cutoffs r WHERE r.tenant_id = c.tenant_id))
         ORDER BY 2 LIMIT $1$q$, relation) USING most;
END $$;

-- Deletes entries that are past their retention, as many as make a batch; whether there may be more.
CREATE FUNCTION tenancy_internal.prune_audit_step(run bigint, partition text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    p record;
    seal tenancy_internal.audit_seals := tenancy_internal.last_seal(partition);
    -- What is sealed is read for each batch, in the segments that it touches.
    batch bigint := CASE WHEN seal.action IN ('sealed', 'pruned') THEN 100000 ELSE 10000 END;
    places tid[];
    segments bigint[];
    chunks bigint;
    entries bigint;
    tenants bigint;
BEGIN
    PERFORM tenancy_internal.assert_audit_run(run);
    SELECT a.* INTO p FROM tenancy_internal.audit_partitions() a WHERE a.partition = prune_audit_step.partition;
    IF NOT FOUND OR NOT tenancy_internal.lock_audit(ARRAY[p.relation], 'ROW EXCLUSIVE', 10) THEN
        RETURN false;
    END IF;
    SELECT array_agg(e.place), array_agg(DISTINCT e.id >> 14), count(*), COALESCE(sum(e.row_count), 0), count(DISTINCT e.tenant_id)
      INTO places, segments, chunks, entries, tenants
      FROM tenancy_internal.expired_chunks(p.relation, batch) e;
    IF chunks = 0 THEN
        RETURN false;
    END IF;
    IF seal.action IN ('sealed', 'pruned') THEN
        -- A new seal must not cover up what was done to the old one's entries.
        IF seal.root IS DISTINCT FROM tenancy_internal.digest_partition(partition)
           OR EXISTS (SELECT FROM (SELECT s.* FROM tenancy_internal.audit_segments s
                                    WHERE s.partition = prune_audit_step.partition AND s.segment = ANY (segments)) AS s
                        FULL JOIN tenancy_internal.digest_segments(p.relation, segments) d USING (segment)
                       WHERE d.digest IS DISTINCT FROM s.digest) THEN
            UPDATE tenancy_internal.audit_runs
               SET notes = notes || format('%s is not as it was sealed, so nothing was deleted from it; see tenancy.verify_audit()', partition)
             WHERE id = run;
            RETURN false;
        END IF;
    END IF;
    EXECUTE format('DELETE FROM ONLY %s WHERE ctid = ANY ($1)', p.relation) USING places;
    IF seal.action IN ('sealed', 'pruned') THEN
        DELETE FROM tenancy_internal.audit_segments s WHERE s.partition = prune_audit_step.partition AND s.segment = ANY (segments);
        INSERT INTO tenancy_internal.audit_segments (partition, segment, chunks, digest)
        SELECT prune_audit_step.partition, d.segment, d.chunks, d.digest FROM tenancy_internal.digest_segments(p.relation, segments) d;
        PERFORM tenancy_internal.append_seal(partition, p.from_at, p.to_at, 'pruned',
                    format('retention: deleted %s entries of %s tenants', entries, tenants));
    END IF;
    UPDATE tenancy_internal.audit_runs SET entries_deleted = entries_deleted + entries WHERE id = run;
    PERFORM tenancy_internal.tell_audit_progress(run, format('deleted entries of %s that are past their retention', partition));
    RETURN chunks = batch;
END $$;

-- Seals the next partition whose month is over, and gives its name; NULL where there is none.
CREATE FUNCTION tenancy_internal.seal_audit_step(run bigint) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    p record;
    note text;
BEGIN
    PERFORM tenancy_internal.assert_audit_run(run);
    -- An hour, for a clock that is set back.
    FOR p IN SELECT a.* FROM tenancy_internal.audit_partitions() a
              WHERE a.to_at + interval '1 hour' <= clock_timestamp()
                AND COALESCE((tenancy_internal.last_seal(a.partition)).action, 'dropped') = 'dropped'
              ORDER BY a.from_at LOOP
        -- An entry has the time of its statement, and may not be committed yet.
        IF tenancy_internal.lock_audit(ARRAY[p.relation], 'SHARE', 2) THEN
            INSERT INTO tenancy_internal.audit_segments (partition, segment, chunks, digest)
            SELECT p.partition, d.segment, d.chunks, d.digest FROM tenancy_internal.digest_segments(p.relation, NULL) d;
            PERFORM tenancy_internal.append_seal(p.partition, p.from_at, p.to_at, 'sealed', 'its month is over');
            UPDATE tenancy_internal.audit_runs SET partitions_sealed = partitions_sealed || p.partition WHERE id = run;
            RETURN p.partition;
        END IF;
        note := format('%s was not sealed: a transaction still writes to it; call it again', p.partition);
        UPDATE tenancy_internal.audit_runs SET notes = notes || note WHERE id = run AND NOT note = ANY (notes);
    END LOOP;
    IF EXISTS (SELECT FROM ONLY tenancy_internal.audit_chunks_default c
                WHERE c.occurred_at < date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC') THEN
        note := 'entries of past months are in the default partition and were not sealed; CALL tenancy.maintain_audit() first';
        UPDATE tenancy_internal.audit_runs SET notes = notes || note WHERE id = run;
    END IF;
    RETURN NULL;
END $$;

-- A procedure that commits has no SET clause and is no SECURITY DEFINER: it calls steps, and names everything in full.
-- A transaction block is refused before anything is begun; a function's call by the first COMMIT.
CREATE PROCEDURE tenancy.maintain_audit() LANGUAGE plpgsql AS $$
DECLARE
    run bigint;
    block bigint;
    partition pg_catalog.text;
BEGIN
    PERFORM tenancy_internal.refuse_in_transaction('tenancy.maintain_audit()');
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    run := tenancy_internal.begin_audit_step('maintain');
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    IF tenancy_internal.stage_audit_step(run) THEN
        block := 0;
        WHILE block IS NOT NULL LOOP
            COMMIT;
            SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
            block := tenancy_internal.copy_audit_step(run, block);
        END LOOP;
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        PERFORM tenancy_internal.catch_up_audit_step(run);
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        PERFORM tenancy_internal.catch_up_audit_step(run);
    END IF;
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    PERFORM tenancy_internal.attach_audit_step(run);
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    FOREACH partition IN ARRAY tenancy_internal.expired_audit_step(true) LOOP
        PERFORM tenancy_internal.drop_audit_step(run, partition);
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    END LOOP;
    FOREACH partition IN ARRAY tenancy_internal.expired_audit_step(false) LOOP
        WHILE tenancy_internal.prune_audit_step(run, partition) LOOP
            COMMIT;
            SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        END LOOP;
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    END LOOP;
    PERFORM tenancy_internal.end_audit_step(run);
END $$;

CREATE PROCEDURE tenancy.seal_audit() LANGUAGE plpgsql AS $$
DECLARE
    run bigint;
BEGIN
    PERFORM tenancy_internal.refuse_in_transaction('tenancy.seal_audit()');
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    run := tenancy_internal.begin_audit_step('seal');
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    WHILE tenancy_internal.seal_audit_step(run) IS NOT NULL LOOP
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    END LOOP;
    PERFORM tenancy_internal.end_audit_step(run);
END $$;

-- Compares the log with its seals. Reads all of it; changes nothing, so it runs on a standby too.
CREATE FUNCTION tenancy.verify_audit(known_digest text DEFAULT NULL) RETURNS TABLE (partition text, ok boolean, detail text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    p record;
    broken text;
    differ text;
BEGIN
    -- The chain
    partition := 'tenancy.audit_seals';
    SELECT CASE WHEN c.number <> c.place THEN format('seal %s is missing', c.place)
                WHEN c.digest <> c.right_digest THEN format('seal %s was changed', c.number)
                ELSE format('seal %s does not follow from the one before it', c.number) END
      INTO broken
      FROM (SELECT s.number, s.digest, s.previous, row_number() OVER w AS place, lag(s.digest) OVER w AS before,
                   tenancy_internal.digest_seal(s) AS right_digest
              FROM tenancy_internal.audit_seals s WINDOW w AS (ORDER BY s.number)) AS c
     WHERE c.number <> c.place OR c.digest <> c.right_digest OR c.previous IS DISTINCT FROM c.before
     ORDER BY c.number LIMIT 1;
    IF broken IS NULL AND verify_audit.known_digest IS NOT NULL
       AND NOT EXISTS (SELECT FROM tenancy_internal.audit_seals s WHERE encode(s.digest, 'hex') = lower(verify_audit.known_digest)) THEN
        broken := 'the known digest is not in the chain: its end was removed, or all of it was made anew';
    END IF;
    ok := broken IS NULL;
    detail := COALESCE(broken, (SELECT format('%s seals, the last one %s', max(s.number), (array_agg(encode(s.digest, 'hex') ORDER BY s.number DESC))[1])
                                  FROM tenancy_internal.audit_seals s HAVING count(*) > 0),
                       'no seal yet');
    RETURN NEXT;

    -- Each partition that is there or was sealed
    FOR p IN
        SELECT COALESCE(a.partition, s.partition) AS partition, a.relation, a.to_at, s.number, s.action, s.root, s.reason, s.chunks
          FROM tenancy_internal.audit_partitions() a
          FULL JOIN (SELECT DISTINCT ON (l.partition) l.* FROM tenancy_internal.audit_seals l ORDER BY l.partition, l.number DESC) AS s
            ON s.partition = a.partition
         ORDER BY COALESCE(a.from_at, s.from_at), 1
    LOOP
        partition := p.partition;
        IF p.relation IS NULL THEN
            ok := p.action = 'dropped';
            detail := CASE WHEN ok THEN format('dropped with seal %s: %s', p.number, p.reason)
                           ELSE format('sealed with %s chunks (seal %s), and is gone', p.chunks, p.number) END;
        ELSIF p.number IS NULL OR p.action = 'dropped' THEN
            ok := NULL;
            detail := CASE WHEN p.to_at <= clock_timestamp() THEN 'not sealed; CALL tenancy.seal_audit()'
                           ELSE 'not sealed, for its time is not over' END;
        ELSIF p.root IS DISTINCT FROM tenancy_internal.digest_partition(p.partition) THEN
            ok := false;
            detail := format('tenancy_internal.audit_segments is not as seal %s has it', p.number);
        ELSE
            SELECT string_agg(format('chunks %s to %s: %s', d.segment << 14, ((d.segment + 1) << 14) - 1,
                                     CASE WHEN d.found > d.sealed THEN format('%s more than sealed', d.found - d.sealed)
                                          WHEN d.found < d.sealed THEN format('%s of %s are missing', d.sealed - d.found, d.sealed)
                                          ELSE 'changed' END), '; ' ORDER BY d.segment)
              INTO differ
              FROM (SELECT segment, COALESCE(n.chunks, 0) AS found, COALESCE(t.chunks, 0) AS sealed
                      FROM tenancy_internal.digest_segments(p.relation, NULL) n
                      FULL JOIN (SELECT g.* FROM tenancy_internal.audit_segments g WHERE g.partition = p.partition) AS t USING (segment)
                     WHERE n.digest IS DISTINCT FROM t.digest
                     ORDER BY segment LIMIT 10) AS d;
            ok := differ IS NULL;
            detail := COALESCE(differ, format('%s chunks as seal %s has them', p.chunks, p.number));
        END IF;
        RETURN NEXT;
    END LOOP;
    FOR partition, ok, detail IN
        SELECT 'audit_chunks_default', NULL::boolean, 'entries that are not sealed; CALL tenancy.maintain_audit()'
         WHERE EXISTS (SELECT FROM ONLY tenancy_internal.audit_chunks_default)
    LOOP
        RETURN NEXT;
    END LOOP;

    -- What keeps entries from being written
    FOR partition, ok, detail IN
        SELECT t.relation::text, false, 'a trigger of the audit is missing, altered or disabled; call tenancy.audit_table() again'
          FROM tenancy.audited_tables t WHERE NOT t.is_enforced
         UNION ALL
        SELECT concat_ws(' ', 'role ' || NULLIF(s.setrole, 0)::regrole, 'database ' || quote_ident(d.datname)), false,
               'stores ' || c || ', which keeps triggers from firing'
          FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) AS c
         WHERE c ILIKE 'session_replication_role=%' AND c NOT ILIKE '%=origin' AND c NOT ILIKE '%=local'
           AND s.setdatabase IN (0, (SELECT b.oid FROM pg_database b WHERE b.datname = current_database()))
         UNION ALL
        SELECT 'server', false, 'is configured with session_replication_role=' || g.reset_val || ', which keeps triggers from firing'
          FROM pg_settings g WHERE g.name = 'session_replication_role' AND g.reset_val = 'replica' AND g.source = 'configuration file'
    LOOP
        RETURN NEXT;
    END LOOP;
END $$;

-- A tenant sees its own entries, of tables that the role may read; the whole log is the DBA's to grant. Whoever owns a table
-- makes partitions of it, which get its triggers.
INSERT INTO tenancy_internal.rights (grantee, privileges, kind, objects) VALUES
    ('everybody', 'EXECUTE', 'ROUTINE', '{tenancy_internal.audit_rows, tenancy_internal.is_audited, tenancy_internal.audit_tenant,
        tenancy_internal.read_chunk, tenancy_internal.digest, tenancy_internal.bytes}'),
    ('application', 'EXECUTE', 'ROUTINE', '{tenancy.log_event, tenancy.row_history, tenancy.row_as_of, tenancy.tenant_activity,
        tenancy.revert_transaction}'),
    ('administrator', 'SELECT', 'TABLE', '{tenancy.audited_tables, tenancy.audit_log, tenancy.audit_retention,
        tenancy.audit_maintenance, tenancy.audit_seals}'),
    ('administrator', 'EXECUTE', 'ROUTINE', '{tenancy.audit_table, tenancy.plan_audit, tenancy.unaudit_table, tenancy.log_event,
        tenancy.row_history, tenancy.row_as_of, tenancy.tenant_activity, tenancy.revert_transaction,
        tenancy.set_audit_retention, tenancy.maintain_audit, tenancy.seal_audit, tenancy.verify_audit,
        tenancy_internal.refuse_in_transaction, tenancy_internal.begin_audit_step, tenancy_internal.end_audit_step,
        tenancy_internal.stage_audit_step, tenancy_internal.copy_audit_step, tenancy_internal.catch_up_audit_step,
        tenancy_internal.attach_audit_step, tenancy_internal.expired_audit_step, tenancy_internal.drop_audit_step,
        tenancy_internal.prune_audit_step, tenancy_internal.seal_audit_step}');

COMMENT ON TABLE tenancy_internal.audit_retention IS 'how long entries of the log are kept, where that was said';
COMMENT ON TABLE tenancy_internal.audit_runs IS 'what maintenance and sealing of the log did';
COMMENT ON TABLE tenancy_internal.audit_copied IS 'what a run of maintenance may meet again when it looks for what it has not copied yet';
COMMENT ON TABLE tenancy_internal.audit_segments IS 'digests of sealed partitions, by spans of chunk ids';
COMMENT ON TABLE tenancy_internal.audit_seals IS 'the chain of seals';
COMMENT ON VIEW tenancy.audit_retention IS 'how long entries are kept: by tenant, and where tenant_id is NULL those of all others';
COMMENT ON VIEW tenancy.audit_maintenance IS 'the runs of tenancy.maintain_audit() and tenancy.seal_audit(), and what each did';
COMMENT ON COLUMN tenancy.audit_maintenance.state IS 'running, done, or interrupted: the next run does what was left';
COMMENT ON COLUMN tenancy.audit_maintenance.entries_moved IS 'rows of the log that went from the default partition to that of their month';
COMMENT ON COLUMN tenancy.audit_maintenance.entries_deleted IS 'one by one, for who keeps them shorter than others; a dropped partition is not counted';
COMMENT ON COLUMN tenancy.audit_maintenance.notes IS 'what could not be done now';
COMMENT ON VIEW tenancy.audit_seals IS 'what the log was when its months were closed, each seal bound to the one before';
COMMENT ON COLUMN tenancy.audit_seals.action IS 'sealed; pruned, which replaces the seal before; dropped, which is the last';
COMMENT ON COLUMN tenancy.audit_seals.digest IS 'SHA-256 over the entries, this row and the digest before; keep a copy of the last one elsewhere';
COMMENT ON FUNCTION tenancy.set_audit_retention(interval, text) IS
    'how long entries of the audit log are kept, of a tenant or (tenant NULL) of all others; keep NULL takes a tenant''s own back';
COMMENT ON PROCEDURE tenancy.maintain_audit() IS
    'makes partitions of the audit log ahead, moves strays into theirs, removes what is past its retention; call it daily';
COMMENT ON PROCEDURE tenancy.seal_audit() IS 'seals the months of the audit log that are over; call it after tenancy.maintain_audit()';
COMMENT ON FUNCTION tenancy.verify_audit(text) IS
    'compares the audit log with its seals, and looks for what keeps entries from being written; ok is NULL for what is not sealed';
COMMENT ON FUNCTION tenancy_internal.audit_partitions() IS 'the partitions of the log for a span of time';
COMMENT ON FUNCTION tenancy_internal.audit_cutoffs() IS 'up to when entries are past their retention, by tenant; NULL: all others';
COMMENT ON FUNCTION tenancy_internal.audit_horizon() IS 'before this, nobody''s entries are kept';
COMMENT ON FUNCTION tenancy_internal.entries_kept_since(oid, uuid) IS 'from when on no entry of a table is past its retention';
COMMENT ON FUNCTION tenancy_internal.lock_audit(regclass[], text, integer) IS 'locks all of the relations or none, waiting briefly';
COMMENT ON FUNCTION tenancy_internal.take_audit_turn() IS 'lets this session maintain or seal the log until it gives the turn back or fails';
COMMENT ON FUNCTION tenancy_internal.give_audit_turn() IS 'gives the turn back';
COMMENT ON FUNCTION tenancy_internal.refuse_in_transaction(text) IS 'refuses a call of a procedure that commits where it could not';
COMMENT ON FUNCTION tenancy_internal.has_audit_turn() IS 'whether this session maintains or seals the log';
COMMENT ON FUNCTION tenancy_internal.assert_audit_run(bigint) IS 'refuses a step of maintain_audit and seal_audit to another session than the run''s';
COMMENT ON FUNCTION tenancy_internal.begin_audit_step(text) IS 'a step of maintain_audit and seal_audit: takes the turn';
COMMENT ON FUNCTION tenancy_internal.end_audit_step(bigint) IS 'a step of maintain_audit and seal_audit: reports and gives the turn back';
COMMENT ON FUNCTION tenancy_internal.tell_audit_progress(bigint, text) IS 'says how far a run has come, not too often';
COMMENT ON FUNCTION tenancy_internal.stage_audit_partition(timestamptz) IS 'a table for the entries of a month that is to become a partition';
COMMENT ON FUNCTION tenancy_internal.stage_audit_step(bigint) IS 'a step of maintain_audit: whether there are entries to move, and tables for them';
COMMENT ON FUNCTION tenancy_internal.copy_audit_step(bigint, bigint) IS 'a step of maintain_audit: copies entries of the default partition';
COMMENT ON FUNCTION tenancy_internal.prepare_audit_stages() IS 'makes ready for attach_audit_step what can be before writers wait';
COMMENT ON FUNCTION tenancy_internal.audit_stages() IS 'tables that are to become partitions of the log';
COMMENT ON FUNCTION tenancy_internal.copy_audit(bigint, timestamptz, text, tid[], bigint) IS 'copies rows of the default partition to the table of their month';
COMMENT ON FUNCTION tenancy_internal.catch_up_audit(bigint, boolean) IS 'copies what the default partition got since';
COMMENT ON FUNCTION tenancy_internal.catch_up_audit_step(bigint) IS 'a step of maintain_audit: copies what writers added meanwhile';
COMMENT ON FUNCTION tenancy_internal.attach_audit_step(bigint) IS 'a step of maintain_audit: makes partitions and empties the default one';
COMMENT ON FUNCTION tenancy_internal.expired_audit_step(boolean) IS 'a step of maintain_audit: the partitions to be dropped, or to be looked through';
COMMENT ON FUNCTION tenancy_internal.drop_audit_step(bigint, text) IS 'a step of maintain_audit: drops a partition that is past all retention';
COMMENT ON FUNCTION tenancy_internal.prune_audit_step(bigint, text) IS 'a step of maintain_audit: deletes a batch of entries past their retention';
COMMENT ON FUNCTION tenancy_internal.seal_audit_step(bigint) IS 'a step of seal_audit: seals the next partition';
COMMENT ON FUNCTION tenancy_internal.expired_chunks(regclass, bigint) IS 'rows of a partition that are past their retention';
COMMENT ON FUNCTION tenancy_internal.digest(text, bytea[]) IS 'SHA-256 over a purpose and parts, each with its length';
COMMENT ON FUNCTION tenancy_internal.bytes(text) IS 'a text as the bytes that are stored';
COMMENT ON FUNCTION tenancy_internal.digest_chunk(
    bigint, timestamptz, timestamptz, bigint, bigint, uuid, integer, bytea, integer, smallint, "char", text, text, text, text, text,
    text, text, text, text, text, bytea, text) IS 'SHA-256 over a row of the log, with the digest of its layout';
COMMENT ON FUNCTION tenancy_internal.digest_segments(regclass, bigint[]) IS 'the digests of what lies in a partition now';
COMMENT ON FUNCTION tenancy_internal.digest_partition(text) IS 'the digest over the segments of a partition on record';
COMMENT ON FUNCTION tenancy_internal.digest_seal(tenancy_internal.audit_seals) IS 'the digest that a seal must have';
COMMENT ON FUNCTION tenancy_internal.last_seal(text) IS 'the last seal of a partition';
COMMENT ON FUNCTION tenancy_internal.append_seal(text, timestamptz, timestamptz, text, text) IS 'adds a link to the chain of seals';
