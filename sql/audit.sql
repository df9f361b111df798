-- room audit · Rust src/audit, src/pg/audit · tests pgrx-tests/{tests,regress}

-- What is audited, and how
CREATE TABLE tenancy_internal.audited_tables (
    relation       regclass    PRIMARY KEY,    -- follows renames, survives pg_dump and pg_upgrade
    root           regclass    NOT NULL,       -- the table that was audited: itself, or the parent of a partition or child
    ignore_columns text[]      NOT NULL DEFAULT '{}',
    redact_columns text[]      NOT NULL DEFAULT '{}',
    row_images     text        NOT NULL DEFAULT 'diff' CHECK (row_images IN ('diff', 'full', 'none')),
    skip_unchanged boolean     NOT NULL DEFAULT true,
    audited_at     timestamptz NOT NULL DEFAULT pg_catalog.now(),
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

-- The log: a row is what one statement did to rows of one tenant, as many as fit on a page (pg::audit::log writes it).
CREATE SEQUENCE tenancy_internal.audit_chunk_ids;
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
CREATE INDEX audit_chunks_default_row_idx ON tenancy_internal.audit_chunks_default (layout, key_hash, tenant_id);
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
    EXECUTE format('CREATE INDEX %I ON tenancy_internal.%I (layout, key_hash, tenant_id)', partition || '_row_idx', partition);
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
                   'is_key', COALESCE(a.attnum = ANY (k.indkey::int2[]), false),
                   'is_generated', a.attgenerated <> '') ORDER BY a.attnum)
          FROM pg_attribute a
          LEFT JOIN LATERAL (SELECT x.indkey FROM pg_index x
                              WHERE x.indrelid = c.oid AND x.indimmediate AND x.indisvalid
                                AND (x.indisprimary OR x.indisreplident)
                              ORDER BY x.indisprimary DESC LIMIT 1) AS k ON true
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
       tenancy_internal.is_audited(t.relation) AS is_enforced, NULLIF(t.root, t.relation) AS part_of, t.audited_at, t.audited_by
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
 CROSS JOIN LATERAL tenancy_internal.read_images(c.layout, c.action, c.row_count, c.images) AS i;

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

-- Layouts that a row of `target` may have been written by: its own, its partitions' and children's, and its parents'.
CREATE FUNCTION tenancy_internal.audit_layouts_of(target oid) RETURNS SETOF integer
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
WITH RECURSIVE above(relation) AS (
    SELECT target
     UNION
    SELECT i.inhparent FROM above a JOIN pg_inherits i ON i.inhrelid = a.relation
)
SELECT l.id FROM tenancy_internal.audit_layouts l
 WHERE l.relation IN (SELECT f FROM tenancy_internal.table_family(target) AS f UNION SELECT a.relation FROM above a)
$$;

-- What the log has of one row, newest first; where its key was changed, of the key it had before. Those of `whose`, or all
-- where that is NULL. Statements of one transaction stand in the order of their beginnings: what a trigger's statement did
-- is written before what fired it.
CREATE FUNCTION tenancy_internal.row_entries(target oid, key jsonb, whose uuid)
RETURNS SETOF tenancy_internal.audit_entries
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    wanted jsonb := key;
    last tenancy_internal.audit_entries;       -- where the row had another key before: go on from there
    e record;
BEGIN
    LOOP
        FOR e IN
            SELECT a AS entry, a.row_key, k.row_key AS sought
              FROM tenancy_internal.audit_layouts_of(target) AS l(layout)
             CROSS JOIN LATERAL tenancy_internal.find_row_key(l.layout, wanted) AS k
              JOIN tenancy_internal.audit_entries a
                ON a.layout = l.layout AND (a.key_hash = k.key_hash OR a.key_hash IS NULL)
               AND (whose IS NULL OR a.tenant_id = whose)
               AND (a.row_key = k.row_key OR a.action = 'UPDATE' AND a.row_key || COALESCE(a.new_values, '{}') @> k.row_key)
             WHERE last IS NULL
                OR CASE WHEN a.transaction_id = last.transaction_id
                        THEN (a.command, a.chunk, a.ordinal) < (last.command, last.chunk, last.ordinal)
                        ELSE a.chunk < last.chunk END
             ORDER BY min(a.chunk) OVER (PARTITION BY a.transaction_id) DESC, a.command DESC, a.chunk DESC, a.ordinal DESC
        LOOP
            RETURN NEXT e.entry;
            EXIT WHEN e.row_key <> e.sought;
        END LOOP;
        EXIT WHEN NOT FOUND OR e.row_key = e.sought;
        -- What is said of the row from here back is said of its key before.
        wanted := e.row_key;
        last := e.entry;
    END LOOP;
END $$;

-- The row as it was at `moment`, from its present state back; NULL where there was none.
CREATE FUNCTION tenancy_internal.row_at(target oid, key jsonb, whose uuid, present jsonb, moment timestamptz) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    state jsonb := present;
    hidden text[];
    e tenancy_internal.audit_entries;
BEGIN
    SELECT state - t.ignore_columns, t.redact_columns INTO state, hidden
      FROM tenancy_internal.audited_tables t WHERE t.relation = target;
    FOR e IN SELECT * FROM tenancy_internal.row_entries(target, key, whose) LOOP
        EXIT WHEN e.occurred_at <= moment;
        IF e.action = 'INSERT' THEN
            state := NULL;
        ELSIF e.old_values IS NULL THEN
            RAISE EXCEPTION 'the log does not know how the row of % was', target::regclass
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      DETAIL = 'Entries without images (row_images => ''none'') lie between then and now.',
                      HINT = 'tenancy.row_history(...) shows what is known.';
        ELSE
            state := COALESCE(state, '{}') || e.old_values;
        END IF;
    END LOOP;
    -- The present value is not that of then, and that one is not kept.
    RETURN state || COALESCE((SELECT jsonb_object_agg(h, '[redacted]') FROM unnest(hidden) AS h WHERE state ? h), '{}');
END $$;

-- ALWAYS: session_replication_role = replica must not switch them off.
CREATE EVENT TRIGGER tenancy_audit_drops ON sql_drop EXECUTE FUNCTION tenancy_internal.note_audit_drops();
ALTER EVENT TRIGGER tenancy_audit_drops ENABLE ALWAYS;
CREATE EVENT TRIGGER tenancy_audit_ddl ON ddl_command_end
    WHEN TAG IN ('ALTER TABLE', 'ALTER TRIGGER', 'CREATE SCHEMA', 'CREATE TABLE', 'CREATE TRIGGER')
    EXECUTE FUNCTION tenancy_internal.guard_audit();
ALTER EVENT TRIGGER tenancy_audit_ddl ENABLE ALWAYS;

COMMENT ON EVENT TRIGGER tenancy_audit_drops IS 'takes dropped tables off the record, and keeps the triggers of the audit';
COMMENT ON EVENT TRIGGER tenancy_audit_ddl IS 'keeps audited tables audited, with their new partitions and children (tenancy.ddl_guard)';
COMMENT ON TABLE tenancy_internal.audited_tables IS 'what is audited, and how';
COMMENT ON TABLE tenancy_internal.audit_layouts IS 'how images of rows are to be read: the columns of audited tables as they were';
COMMENT ON TABLE tenancy_internal.audit_chunks IS 'the log: what one statement did to rows of one tenant; tenancy.audit_log shows it';
COMMENT ON TABLE tenancy_internal.audit_chunks_default IS 'entries of months without a partition; tenancy.maintain_audit() moves them';
COMMENT ON FUNCTION tenancy_internal.make_audit_partition(timestamptz) IS 'makes the partition of a month for the log';
COMMENT ON FUNCTION tenancy_internal.make_audit_partitions() IS 'makes the partitions of this month and the next two for the log';
COMMENT ON FUNCTION tenancy_internal.audit_rows() IS 'writes what a statement did to the log';
COMMENT ON FUNCTION tenancy_internal.describe_audit(oid, oid) IS 'what audit_table looks at in a table, its partitions and children';
COMMENT ON FUNCTION tenancy_internal.forget_audited() IS 'takes dropped tables off the record, and names what lost a trigger of the audit';
COMMENT ON FUNCTION tenancy_internal.note_audit_drops() IS 'takes dropped tables off the record, and keeps the triggers of the audit';
COMMENT ON FUNCTION tenancy_internal.guard_audit() IS 'judges what a statement left behind: audits what is new, refuses what ends an audit';
COMMENT ON FUNCTION tenancy_internal.is_audited(oid) IS 'whether all triggers of the audit are in place, unaltered';
COMMENT ON FUNCTION tenancy_internal.read_images(integer, "char", smallint, bytea) IS 'the rows of a chunk of the log';
COMMENT ON FUNCTION tenancy_internal.find_row_key(integer, jsonb) IS 'a row''s key as the log has it, with its hash; no row for what is no key';
COMMENT ON FUNCTION tenancy_internal.audit_layouts_of(oid) IS 'layouts that rows of a table may have been written by';
COMMENT ON FUNCTION tenancy_internal.row_entries(oid, jsonb, uuid) IS 'what the log has of a row, newest first';
COMMENT ON FUNCTION tenancy_internal.row_at(oid, jsonb, uuid, jsonb, timestamptz) IS 'a row as it was, from its present state back';
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
