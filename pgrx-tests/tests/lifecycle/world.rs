//! Tables of every kind that rows can be hard to remove from, with rows of two tenants and of nobody.

use pg_tenancy_tests::{Db, Role, Session, Tenant};

pub struct World {
    pub db: Db,
    pub dba: Session,
    /// An administrator of tenants who owns no table.
    pub steward: Role,
    pub red: Tenant,
}

/// Each table has a column that says whose a row is, for the tests to tell without the code that they test.
const TABLES: &str = r#"
CREATE SCHEMA "quo""te";
CREATE TABLE countries (code text PRIMARY KEY, whose text DEFAULT 'nobody');
CREATE TABLE customers (tenant_id uuid NOT NULL, id bigint, country text REFERENCES countries, whose text, PRIMARY KEY (tenant_id, id));
CREATE TABLE "quo""te"."s < e" ("Te""nant" uuid NOT NULL, id bigint, customer bigint, whose text, PRIMARY KEY ("Te""nant", id),
    FOREIGN KEY ("Te""nant", customer) REFERENCES customers (tenant_id, id) ON DELETE CASCADE);
CREATE TABLE items (tenant_id uuid NOT NULL, id bigint, ord bigint, whose text, PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, ord) REFERENCES "quo""te"."s < e" ("Te""nant", id));
CREATE INDEX ON items (tenant_id, ord);
-- Keys that go in circles, and cannot be NULL
CREATE TABLE docs (tenant_id uuid NOT NULL, id bigint, parent bigint NOT NULL, whose text, PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, parent) REFERENCES docs (tenant_id, id) ON DELETE RESTRICT);
CREATE TABLE teams (tenant_id uuid NOT NULL, id bigint, lead bigint NOT NULL, whose text, PRIMARY KEY (tenant_id, id));
CREATE TABLE people (tenant_id uuid NOT NULL, id bigint, team bigint NOT NULL, doc bigint, whose text, PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, team) REFERENCES teams (tenant_id, id), FOREIGN KEY (tenant_id, doc) REFERENCES docs (tenant_id, id));
ALTER TABLE teams ADD FOREIGN KEY (tenant_id, lead) REFERENCES people (tenant_id, id);
CREATE TABLE notes (tenant_id uuid NOT NULL, id bigint, whose text);
CREATE TABLE old_notes (reason text) INHERITS (notes);
CREATE TABLE counts (account int NOT NULL, id bigint, whose text);
CREATE TABLE words (tenant text NOT NULL, id bigint, whose text);
-- Few of its blocks have rows of red.
CREATE TABLE pictures (tenant_id uuid NOT NULL, id bigint, picture text, whose text);
ALTER TABLE pictures ALTER COLUMN picture SET STORAGE PLAIN;
CREATE TABLE templates (tenant_id uuid, id bigint, whose text);
CREATE TABLE logs (number bigint NOT NULL, id bigint, whose text, PRIMARY KEY (number, id)) PARTITION BY LIST (number);
CREATE TABLE logs_rest PARTITION OF logs DEFAULT;
SELECT tenancy.protect_table('countries', access => 'reference'), tenancy.protect_table('customers'),
       tenancy.protect_table('"quo""te"."s < e"', 'Te"nant'), tenancy.protect_table('items'), tenancy.protect_table('docs'),
       tenancy.protect_table('teams'), tenancy.protect_table('people'), tenancy.protect_table('notes'),
       tenancy.protect_table('counts', 'account'), tenancy.protect_table('words', 'tenant'), tenancy.protect_table('pictures'),
       tenancy.protect_table('templates', access => 'shared'), tenancy.protect_table('logs', 'number');
SELECT tenancy.audit_table('items'), tenancy.audit_table('customers');
INSERT INTO countries VALUES ('se');
INSERT INTO templates VALUES (NULL, 1, 'nobody');
-- What a purge must not do: fire the triggers of users.
CREATE FUNCTION object() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no deletion of %', TG_TABLE_NAME; END $$;
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER object AFTER DELETE ON items FOR EACH ROW EXECUTE FUNCTION object();
CREATE TRIGGER object BEFORE DELETE ON words FOR EACH STATEMENT EXECUTE FUNCTION object();
CREATE TRIGGER keep BEFORE DELETE ON counts FOR EACH ROW EXECUTE FUNCTION keep();
CREATE TRIGGER object AFTER DELETE ON logs FOR EACH ROW EXECUTE FUNCTION object();
"#;

/// Rows of one tenant, `:n` of a kind.
const ROWS: &str = r#"
INSERT INTO customers SELECT :id, g, 'se', :code FROM generate_series(1, :n) g;
INSERT INTO "quo""te"."s < e" SELECT :id, g, g, :code FROM generate_series(1, :n) g;
INSERT INTO items SELECT :id, g, (g - 1) % :n + 1, :code FROM generate_series(1, 3 * :n) g;
INSERT INTO docs SELECT :id, g, g / 2 + g % 2, :code FROM generate_series(1, :n) g;
WITH t AS (INSERT INTO teams SELECT :id, g, g, :code FROM generate_series(1, :n) g)
INSERT INTO people SELECT :id, g, g, g, :code FROM generate_series(1, :n) g;
INSERT INTO notes SELECT :id, g, :code FROM generate_series(1, :n) g;
INSERT INTO old_notes SELECT :id, g, :code FROM generate_series(1, :n) g;
INSERT INTO counts SELECT :number, g, :code FROM generate_series(1, :n) g;
INSERT INTO words SELECT :code, g, :code FROM generate_series(1, :n) g;
INSERT INTO templates SELECT :id, g, :code FROM generate_series(1, :n) g;
INSERT INTO logs SELECT :number, g, :code FROM generate_series(1, :n) g;
"#;

/// Rows of `n` of a kind: those that are deleted from tables.
pub fn deleted(n: i64) -> i64 {
    13 * n + n / 8
}

/// With those of the partition that is dropped.
pub fn all(n: i64) -> i64 {
    deleted(n) + n
}

impl World {
    pub fn new(db: Db, rows: i64) -> Self {
        let dba = db.admin();
        let (red, blue) = (db.tenant("red"), db.tenant("blue"));
        let steward = db.role("steward", "");
        dba.run(TABLES);
        dba.run(&format!(
            "CREATE TABLE logs_red PARTITION OF logs FOR VALUES IN ({}) PARTITION BY RANGE (id);
             CREATE TABLE logs_red_1 PARTITION OF logs_red DEFAULT;
             SELECT tenancy.grant_admin('{steward}')",
            red.number
        ));
        for (tenant, n) in [(&red, rows), (&blue, 40)] {
            let rows = ROWS
                .replace(":id", &format!("'{}'", tenant.id))
                .replace(":code", &format!("'{}'", tenant.code))
                .replace(":number", &tenant.number.to_string())
                .replace(":n", &n.to_string());
            dba.run(&rows);
        }
        dba.run(&format!(
            "INSERT INTO pictures SELECT CASE WHEN g % 8 = 0 THEN '{}'::uuid ELSE tenancy.find_tenant('blue') END, g, repeat('x', 2000),
                                         CASE WHEN g % 8 = 0 THEN 'red' ELSE 'blue' END FROM generate_series(1, {rows}) g;
             ANALYZE",
            red.id
        ));
        Self { db, dba, steward, red }
    }

    /// Each table of users with the digest of the rows for which this holds, and their number.
    pub fn rows_where(&self, condition: &str) -> Vec<String> {
        let dba = self.db.admin();
        let tables =
            dba.rows("SELECT p.relation FROM tenancy_internal.protected_tables p WHERE p.root = p.relation ORDER BY 1");
        let digest = |table: &String| {
            dba.value(&format!(
                "SELECT '{}', md5(string_agg(t::text, ' ' ORDER BY t::text)), count(*) FROM {table} t WHERE {condition}",
                table.replace('\'', "''")
            ))
        };
        tables.iter().map(digest).collect()
    }

    /// Rows of red that are left.
    pub fn left(&self) -> i64 {
        let rows = self.rows_where("whose = 'red'");
        rows.iter().map(|row| row.rsplit('|').next().and_then(|n| n.parse::<i64>().ok()).expect("a count")).sum()
    }

    /// The digest of everything in the database, sequences and our own tables too.
    pub fn digest(&self) -> Vec<String> {
        let dba = self.db.admin();
        let tables = dba.rows(
            "SELECT c.oid::regclass FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
              WHERE c.relkind IN ('r', 'S') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') ORDER BY 1",
        );
        let digest = |table: &String| {
            dba.value(&format!("SELECT md5(string_agg(ROW(t.*)::text, ' ' ORDER BY ROW(t.*)::text)) FROM {table} t"))
        };
        tables
            .iter()
            .map(digest)
            .chain(dba.rows("SELECT md5(string_agg(c::text, ' ' ORDER BY oid)) FROM pg_class c"))
            .collect()
    }
}
