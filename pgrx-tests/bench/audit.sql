-- What an audit costs: the same protected table of twelve columns, unaudited, audited by us, and by the plpgsql triggers
-- that people write today, with a log of old and new rows as jsonb. :active tenants are in the registry.
CREATE SCHEMA audit;
GRANT USAGE ON SCHEMA audit TO :app;
SET search_path = audit;

CREATE TABLE source AS
SELECT n::bigint AS id, pg_catalog.md5('bench1')::uuid AS tenant_id, n::int AS number, 'customer number ' || n AS name,
       (n * 1.25)::numeric(12, 2) AS amount, 'open'::text AS status, timestamptz '2026-01-01' + n * interval '1 s' AS placed,
       (n % 100)::int AS quantity, true AS active, n % 1000 || ' some street in some town' AS address,
       date '2026-01-01' + (n % 365)::int AS due, pg_catalog.md5(n::text) AS note
  FROM generate_series(1, 100000) AS n;
GRANT SELECT ON source TO :app;

CREATE TABLE log (
    id             bigserial   PRIMARY KEY,
    occurred_at    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    tenant_id      uuid,
    table_name     text        NOT NULL,
    row_key        text,
    action         text        NOT NULL,
    old_values     jsonb,
    new_values     jsonb,
    actor          text        DEFAULT pg_catalog.current_setting('app.current_user_id', true),
    session_role   name        DEFAULT session_user,
    client         inet        DEFAULT pg_catalog.inet_client_addr(),
    transaction_id bigint      DEFAULT pg_catalog.txid_current()
);
CREATE INDEX ON log (tenant_id, occurred_at);
CREATE INDEX ON log (tenant_id, table_name, row_key);

CREATE FUNCTION for_row() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = audit, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO log (tenant_id, table_name, row_key, action, new_values)
        VALUES (NEW.tenant_id, TG_TABLE_NAME, NEW.id, TG_OP, to_jsonb(NEW));
    ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO log (tenant_id, table_name, row_key, action, old_values, new_values)
        VALUES (NEW.tenant_id, TG_TABLE_NAME, NEW.id, TG_OP, to_jsonb(OLD), to_jsonb(NEW));
    ELSE
        INSERT INTO log (tenant_id, table_name, row_key, action, old_values)
        VALUES (OLD.tenant_id, TG_TABLE_NAME, OLD.id, TG_OP, to_jsonb(OLD));
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION for_statement() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = audit, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO log (tenant_id, table_name, row_key, action, new_values)
        SELECT n.tenant_id, TG_TABLE_NAME, n.id, TG_OP, to_jsonb(n) FROM new_rows n;
    ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO log (tenant_id, table_name, row_key, action, old_values, new_values)
        SELECT n.tenant_id, TG_TABLE_NAME, n.id, TG_OP, to_jsonb(o), to_jsonb(n) FROM old_rows o JOIN new_rows n USING (id);
    ELSE
        INSERT INTO log (tenant_id, table_name, row_key, action, old_values)
        SELECT o.tenant_id, TG_TABLE_NAME, o.id, TG_OP, to_jsonb(o) FROM old_rows o;
    END IF;
    RETURN NULL;
END $$;

SELECT pg_catalog.format('CREATE TABLE %I (LIKE source, PRIMARY KEY (id))', side)
  FROM unnest(ARRAY['unaudited', 'diff', 'full', 'for_row', 'for_statement']) AS side \gexec
SELECT pg_catalog.format('SELECT tenancy.protect_table(%L)', side)
  FROM unnest(ARRAY['unaudited', 'diff', 'full', 'for_row', 'for_statement']) AS side \gexec
GRANT SELECT, INSERT, UPDATE, DELETE ON unaudited, "diff", "full", for_row, for_statement TO :app;

SELECT tenancy.audit_table('diff');
SELECT tenancy.audit_table('full', row_images => 'full');
CREATE TRIGGER log AFTER INSERT OR UPDATE OR DELETE ON for_row FOR EACH ROW EXECUTE FUNCTION for_row();
CREATE TRIGGER log_insert AFTER INSERT ON for_statement REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION for_statement();
CREATE TRIGGER log_update AFTER UPDATE ON for_statement REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION for_statement();
CREATE TRIGGER log_delete AFTER DELETE ON for_statement REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION for_statement();

-- Rows to change and to delete; they are put in before anything is logged.
SET session_replication_role = replica;
ALTER TABLE "diff" DISABLE TRIGGER tenancy_audit_replica;
ALTER TABLE "full" DISABLE TRIGGER tenancy_audit_replica;
SELECT pg_catalog.format('INSERT INTO %I SELECT * FROM source WHERE id <= 10000', side)
  FROM unnest(ARRAY['unaudited', 'diff', 'full', 'for_row', 'for_statement']) AS side \gexec
RESET session_replication_role;
SELECT tenancy.audit_table('diff');
SELECT tenancy.audit_table('full', row_images => 'full');
