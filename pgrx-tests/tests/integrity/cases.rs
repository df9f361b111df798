//! A clean company, and how a defect is tried on it: seeded, found, mended and rolled back, all in one database.

use pg_tenancy_tests::{Db, Role, Session, quote_literal};

/// A database without a finding: two tenants, tables of an owner who may log in, an application role.
pub struct Company {
    pub db: Db,
    /// The superuser.
    pub dba: Session,
    pub owner: Role,
    pub app: Role,
}

/// Protected: `customers`, `orders` (refers to customers), `events` (two partitions by time); `countries` is a reference
/// table; `notes` is nobody's.
const TABLES: &str = "
    CREATE SCHEMA shop AUTHORIZATION OWNER;
    GRANT USAGE ON SCHEMA shop TO APP;
    SET ROLE OWNER;
    CREATE TABLE shop.countries (code text PRIMARY KEY, name text NOT NULL);
    CREATE TABLE shop.customers (
        id bigint GENERATED ALWAYS AS IDENTITY, tenant_id uuid NOT NULL, name text NOT NULL,
        country text REFERENCES shop.countries, PRIMARY KEY (tenant_id, id));
    CREATE TABLE shop.orders (
        id bigint GENERATED ALWAYS AS IDENTITY, tenant_id uuid NOT NULL, customer bigint NOT NULL, item text NOT NULL,
        number integer, PRIMARY KEY (tenant_id, id),
        CONSTRAINT orders_customer_fkey FOREIGN KEY (tenant_id, customer) REFERENCES shop.customers (tenant_id, id));
    CREATE INDEX orders_customer_idx ON shop.orders (tenant_id, customer);
    CREATE TABLE shop.events (tenant_id uuid NOT NULL, happened timestamptz NOT NULL, what text) PARTITION BY RANGE (happened);
    CREATE TABLE shop.events_2026 PARTITION OF shop.events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
    CREATE TABLE shop.events_2027 PARTITION OF shop.events FOR VALUES FROM ('2027-01-01') TO ('2028-01-01');
    CREATE TABLE shop.notes (id int PRIMARY KEY, note text);
    RESET ROLE;
    SELECT tenancy.protect_table('shop.countries', access => 'reference');
    SELECT tenancy.protect_table('shop.customers');
    SELECT tenancy.protect_table('shop.orders');
    SELECT tenancy.protect_table('shop.events');
    GRANT SELECT, INSERT, UPDATE, DELETE ON shop.customers, shop.orders, shop.events TO APP;
    GRANT SELECT ON shop.countries, shop.notes TO APP;
    INSERT INTO shop.countries VALUES ('de', 'Germany'), ('fr', 'France');
    INSERT INTO shop.customers (tenant_id, name, country)
        SELECT tenancy.find_tenant(code), name, 'de' FROM (VALUES ('red', 'Ann'), ('red', 'Bob'), ('blue', 'Cem')) AS v(code, name);
    INSERT INTO shop.orders (tenant_id, customer, item, number)
        SELECT c.tenant_id, c.id, 'lamp of ' || c.name, row_number() OVER (PARTITION BY c.tenant_id ORDER BY c.id) FROM shop.customers c;
    INSERT INTO shop.events SELECT tenant_id, '2026-05-01', 'came' FROM shop.customers;
    ANALYZE shop.countries, shop.customers, shop.orders, shop.events, shop.notes";

impl Company {
    pub fn open() -> Self {
        Self::on(Db::new())
    }

    pub fn on(db: Db) -> Self {
        let (owner, app) = (db.role("owner", ""), db.application("app"));
        db.tenant("red");
        db.tenant("blue");
        let company = Self { dba: db.admin(), db, owner, app };
        company.dba.run(&company.named(TABLES));
        // The tests' server is neither preloaded nor always of the newest release.
        company.dba.run(
            "INSERT INTO tenancy_internal.integrity_settings (check_id, is_on)
             VALUES ('server_release', false), ('server_unfenced', false)",
        );
        company
    }

    /// OWNER and APP in a text are the roles of this company, DBNAME its database.
    pub fn named(&self, sql: &str) -> String {
        sql.replace("OWNER", &self.owner.to_string())
            .replace("APP", &self.app.to_string())
            .replace("DBNAME", self.db.name())
    }

    /// `check_id|object` of each finding of a scope.
    #[track_caller]
    pub fn findings(&self, scope: &str) -> Vec<String> {
        self.dba.rows(&format!(
            "SELECT check_id || '|' || object FROM tenancy.check_integrity({}) ORDER BY 1",
            quote_literal(scope)
        ))
    }

    /// Seeds the defect, sees it and nothing else, mends it as the finding says, and sees nothing.
    #[track_caller]
    pub fn tries(&self, scope: &str, case: &Case) {
        self.tries_together(scope, std::slice::from_ref(case));
    }

    /// The same for defects that do not meet: all at once, for each call runs every check.
    #[track_caller]
    pub fn tries_together(&self, scope: &str, cases: &[Case]) {
        self.dba.run("BEGIN; SET LOCAL tenancy.ddl_guard = off");
        let mut expected = Vec::new();
        for case in cases {
            self.dba.run(&self.named(case.seed));
            expected.push(format!("{}|{}", case.check, self.named(case.object)));
            expected.extend(case.also.iter().map(|also| self.named(also)));
        }
        expected.sort();
        let told = self.dba.query(
            "SELECT check_id || '|' || object, detail, remedy FROM tenancy.check_integrity($1) ORDER BY 1",
            &[&scope],
        );
        let found: Vec<String> = told.iter().map(|row| row.get(0)).collect();
        let missing: Vec<&String> = expected.iter().filter(|wanted| !found.contains(wanted)).collect();
        let surplus: Vec<&String> = found.iter().filter(|seen| !expected.contains(seen)).collect();
        assert!(found == expected, "not found: {missing:#?}\n  found besides: {surplus:#?}\n  of {found:#?}");
        for case in cases {
            let seen = format!("{}|{}", case.check, self.named(case.object));
            let row = told.iter().find(|row| row.get::<_, String>(0) == seen).expect("it was expected");
            let (detail, remedy): (Option<String>, Option<String>) = (row.get(1), row.get(2));
            assert!(detail.is_some_and(|detail| !detail.is_empty()), "{seen}: says nothing");
            match (&remedy, case.mend) {
                (Some(remedy), None) => self.dba.run(remedy),
                (None, Some(mend)) => self.dba.run(&self.named(mend)),
                _ => panic!("{seen}: remedy {remedy:?}, but by hand {:?}", case.mend),
            }
        }
        let left = self.findings(scope);
        assert!(left.is_empty(), "the remedies leave {left:#?}");
        self.dba.run("ROLLBACK");
    }

    /// Seeds what looks like defects and is none, one beside the other, and sees nothing.
    #[track_caller]
    pub fn lets_pass(&self, scope: &str, harmless: &[&str]) {
        self.dba.run("BEGIN; SET LOCAL tenancy.ddl_guard = off");
        for seed in harmless {
            self.dba.run(&self.named(seed));
        }
        let found = self.findings(scope);
        assert!(found.is_empty(), "false alarms: {found:#?}");
        self.dba.run("ROLLBACK");
    }
}

/// A defect and the finding that it is.
pub struct Case {
    pub check: &'static str,
    pub seed: &'static str,
    /// As `pg_identify_object` names it.
    pub object: &'static str,
    /// What is found besides, as `check_id|object`: another view of the same defect, gone with it.
    pub also: &'static [&'static str],
    /// What mends it where the finding has no remedy, for a person must decide.
    pub mend: Option<&'static str>,
}

impl Case {
    pub const fn new(check: &'static str, seed: &'static str, object: &'static str) -> Self {
        Self { check, seed, object, also: &[], mend: None }
    }

    pub const fn also(self, also: &'static [&'static str]) -> Self {
        Self { also, ..self }
    }

    pub const fn mended_by(self, mend: &'static str) -> Self {
        Self { mend: Some(mend), ..self }
    }
}

#[test]
fn a_clean_company_has_no_finding() {
    let company = Company::open();
    let none: &[&str] = &[];
    assert_eq!(company.findings("all"), none);
}
