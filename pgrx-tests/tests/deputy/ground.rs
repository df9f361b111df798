//! What a walk goes over: tables, how they are looked at, and chance.

/// Triggers of the owner's count for the tenant at hand, and look whether they see another's rows. They rely on row security.
pub const WORLD: &str = r#"
CREATE SCHEMA w;
CREATE TABLE w.counts (n bigint NOT NULL, tenant_id uuid NOT NULL);
CREATE TABLE w.notes (id int NOT NULL, tenant_id uuid NOT NULL, k int NOT NULL DEFAULT 1, body text NOT NULL, at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id));
CREATE TABLE w.events (LIKE w.notes INCLUDING DEFAULTS, PRIMARY KEY (tenant_id, id, k)) PARTITION BY LIST (k);
CREATE TABLE w.events_1 PARTITION OF w.events FOR VALUES IN (1);
CREATE TABLE w.events_2 PARTITION OF w.events FOR VALUES IN (2);
CREATE TABLE w.events_rest PARTITION OF w.events DEFAULT;
CREATE TABLE w.items (LIKE w.notes INCLUDING DEFAULTS, PRIMARY KEY (tenant_id, id));
CREATE TABLE w.links (LIKE w.notes INCLUDING DEFAULTS, note int, PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, note) REFERENCES w.notes (tenant_id, id) ON DELETE CASCADE);
CREATE TABLE w.loose (LIKE w.notes INCLUDING DEFAULTS, note int, PRIMARY KEY (tenant_id, id));
CREATE FUNCTION w.watch() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    seen bigint := (SELECT count(*) FROM w.notes WHERE tenant_id <> tenancy.current_tenant_id());
BEGIN
    IF seen > 0 THEN
        RAISE WARNING 'LEAK: a % trigger of % sees % rows of others as % for %', TG_OP, TG_TABLE_NAME, seen, current_user, tenancy.current_tenant_code();
    END IF;
    UPDATE w.counts SET n = n + 1;
    RETURN NULL;
END $$;
CREATE FUNCTION w.count() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE w.counts SET n = n + 1; RETURN NULL; END $$;
-- Some changes are suppressed.
CREATE FUNCTION w.keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
    IF TG_OP = 'UPDATE' AND NEW.body LIKE '%7' THEN RETURN NULL; END IF;
    RETURN NEW;
END $$;
CREATE FUNCTION w.touch(t regclass) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN RETURN QUERY UPDATE w.items SET body = body || '.' WHERE id < 6 RETURNING body; END $$;
SELECT tenancy.protect_table('w.counts'), tenancy.protect_table('w.notes'), tenancy.protect_table('w.events'), tenancy.protect_table('w.items'),
       tenancy.protect_table('w.links'), tenancy.protect_table('w.loose');
INSERT INTO w.counts SELECT 0, id FROM tenancy.tenants;
INSERT INTO w.notes SELECT g, t.id, g % 3 + 1, t.code || ' n' || g FROM tenancy.tenants t, generate_series(1, 8) g;
INSERT INTO w.events SELECT * FROM w.notes; INSERT INTO w.items SELECT * FROM w.notes;
INSERT INTO w.links SELECT *, id FROM w.notes WHERE id < 5;
CREATE TRIGGER watch AFTER INSERT OR UPDATE OR DELETE ON w.notes FOR EACH ROW EXECUTE FUNCTION w.watch();
CREATE TRIGGER watch AFTER INSERT OR UPDATE OR DELETE ON w.items FOR EACH STATEMENT EXECUTE FUNCTION w.watch();
CREATE TRIGGER watch AFTER INSERT OR UPDATE ON w.events FOR EACH ROW EXECUTE FUNCTION w.watch();
CREATE TRIGGER count AFTER DELETE ON w.events FOR EACH ROW EXECUTE FUNCTION w.count();
CREATE CONSTRAINT TRIGGER watch AFTER INSERT OR UPDATE OR DELETE ON w.links DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION w.watch();
CREATE TRIGGER keep BEFORE INSERT OR UPDATE OR DELETE ON w.items FOR EACH ROW EXECUTE FUNCTION w.keep();
CREATE TRIGGER keep BEFORE INSERT OR UPDATE OR DELETE ON w.events FOR EACH ROW EXECUTE FUNCTION w.keep();
SELECT tenancy.set_retention('w.notes', 'at', '10 days'), tenancy.set_retention('w.items', 'at', '10 days'), tenancy.set_retention('w.events', 'at', '10 days'),
       tenancy.enable_soft_delete('w.events'), tenancy.enable_stamps('w.events'), tenancy.enable_soft_delete('w.items');
"#;

/// Each row with its tenant, its table and whether it lives: not deleted, and not for retention.
pub const ROWS: &str = "SELECT code, name, row, lives FROM (
    SELECT t.code, r.name, concat_ws(' ', r.id, r.k, r.body, r.at, r.gone) AS row, r.gone IS NULL AND r.at > now() - interval '5 days' AS lives
      FROM (SELECT 'notes' AS name, tenant_id, id, k, body, at, to_jsonb(r) ->> 'deleted_at' AS gone FROM w.notes r
            UNION ALL SELECT 'events', tenant_id, id, k, body, at, to_jsonb(r) ->> 'deleted_at' FROM w.events r
            UNION ALL SELECT 'items', tenant_id, id, k, body, at, to_jsonb(r) ->> 'deleted_at' FROM w.items r
            UNION ALL SELECT 'links', tenant_id, id, k, body, at, to_jsonb(r) ->> 'deleted_at' FROM w.links r
            UNION ALL SELECT 'loose', tenant_id, id, k, body, at, to_jsonb(r) ->> 'deleted_at' FROM w.loose r
            UNION ALL SELECT 'counts', tenant_id, 0, 0, n::text, now(), NULL FROM w.counts r) AS r
      JOIN tenancy.tenants t ON t.id = r.tenant_id
     WHERE r.name <> 'counts'
    UNION ALL SELECT t.code, 'counts', c.n::text, false FROM w.counts c JOIN tenancy.tenants t ON t.id = c.tenant_id) AS all_rows";

pub const SETTINGS: &str = "SELECT format('%s %s %s %s %s', current_user, session_user, current_setting('role'), current_setting('app.current_tenant_id', true),
    (SELECT string_agg(format('%s=%s', name, setting), ' ' ORDER BY name) FROM pg_settings WHERE source = 'session' AND setting <> reset_val
        AND name NOT IN ('transaction_isolation')))";

/// Numbers that follow from a seed (xorshift).
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }

    pub fn one_in(&mut self, limit: usize) -> bool {
        self.below(limit) == 0
    }

    pub fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }
}
