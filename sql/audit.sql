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
CREATE INDEX audit_chunks_default_row_idx ON tenancy_internal.audit_chunks_default (tenant_id, layout, key_hash);
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
    EXECUTE format('CREATE INDEX %I ON tenancy_internal.%I (tenant_id, layout, key_hash)', partition || '_row_idx', partition);
    EXECUTE format('ALTER TABLE tenancy_internal.audit_chunks ATTACH PARTITION tenancy_internal.%I
                        FOR VALUES FROM (%L) TO (%L)', partition, beginning, beginning + interval '1 month');
    EXECUTE format('COMMENT ON TABLE tenancy_internal.%I IS %L', partition, 'the log of one month (tenancy.maintain_audit)');
    RETURN partition;
END $$;

COMMENT ON TABLE tenancy_internal.audited_tables IS 'what is audited, and how';
COMMENT ON TABLE tenancy_internal.audit_layouts IS 'how images of rows are to be read: the columns of audited tables as they were';
COMMENT ON TABLE tenancy_internal.audit_chunks IS 'the log: what one statement did to rows of one tenant; tenancy.audit_log shows it';
COMMENT ON TABLE tenancy_internal.audit_chunks_default IS 'entries of months without a partition; tenancy.maintain_audit() moves them';
COMMENT ON FUNCTION tenancy_internal.make_audit_partition(timestamptz) IS 'makes the partition of a month for the log';
COMMENT ON FUNCTION tenancy_internal.audit_rows() IS 'writes what a statement did to the log';
