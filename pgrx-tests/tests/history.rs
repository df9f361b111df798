//! Random histories of one connection against the one rule that matters: what a transaction reads belongs to the first
//! tenant it took, whatever was set, cleared, reset and rolled back around it.
//!
//! Each history is made from a number; a failure names it and tells the story that led there.

use pg_tenancy_tests::{Db, Role, Session, Tenant};

const HISTORIES: u64 = 60;
const STEPS: usize = 60;
/// Over all histories; far fewer than usual means that they hardly test anything.
const FEWEST_READS: usize = 200;
const READ: &str = "SELECT DISTINCT t.code FROM orders JOIN codes t USING (tenant_id)";

#[test]
fn no_history_reads_two_tenants_in_one_transaction() {
    let db = Db::new();
    let (role, tenants) = shop(&db);
    let reads: usize = (0..HISTORIES).map(|seed| History::play(db.login(&role), &tenants, seed, false)).sum();
    assert!(reads > FEWEST_READS, "only {reads} reads got through: the histories prove nothing");
}

#[test]
fn nor_does_one_that_starts_before_the_library_is_loaded() {
    let db = Db::new();
    let (role, tenants) = shop(&db);
    let reads: usize = (0..HISTORIES).map(|seed| History::play(db.login(&role), &tenants, seed, true)).sum();
    assert!(reads > FEWEST_READS, "only {reads} reads got through: the histories prove nothing");
}

/// Two tenants with one order each, and a table that tells whose an order is.
fn shop(db: &Db) -> (Role, Vec<Tenant>) {
    let tenants = vec![db.tenant("red"), db.tenant("blue")];
    let app = db.application("app");
    let admin = db.admin();
    admin.run(&format!(
        "CREATE TABLE orders (tenant_id uuid); CREATE TABLE codes AS SELECT id AS tenant_id, code FROM tenancy.tenants;
         SELECT tenancy.protect_table('orders'); INSERT INTO orders SELECT id FROM tenancy.tenants;
         GRANT ALL ON orders, codes TO {app}"
    ));
    (app, tenants)
}

/// A connection, and what is known of its transaction.
struct History<'a> {
    session: Session,
    tenants: &'a [Tenant],
    random: u64,
    told: Vec<String>,
    in_transaction: bool,
    first: Option<String>,
    reads: usize,
}

impl<'a> History<'a> {
    /// Plays the history of that number; gives how many reads were answered with rows.
    fn play(session: Session, tenants: &'a [Tenant], seed: u64, before_loading: bool) -> usize {
        let random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut history =
            History { session, tenants, random, told: vec![], in_transaction: false, first: None, reads: 0 };
        if before_loading {
            // Until the first read nobody remembers what was set; from then on the rule holds (docs/context.md).
            history.begin();
            let tenant = history.tenant();
            let set = history.setting_of(&tenant);
            history.try_step(&set);
            history.read();
        } else {
            history.try_step("SELECT tenancy.has_tenant()");
        }
        for _ in 0..STEPS {
            history.step();
        }
        history.reads
    }

    fn step(&mut self) {
        if !self.in_transaction && self.draw(2) == 0 {
            return self.begin();
        }
        match self.draw(16) {
            0 => self.end("COMMIT"),
            1 => self.end("ROLLBACK"),
            2 => drop(self.try_step("RESET ALL")),
            3 => drop(self.try_step("SAVEPOINT s")),
            4 | 5 => drop(self.try_step("ROLLBACK TO s")),
            6 => drop(self.try_step("RELEASE s")),
            7 => drop(self.try_step("RESET app.current_tenant_id")),
            8 | 9 => drop(self.try_step("SELECT tenancy.clear_tenant()")),
            10 => self.end_if_done("DISCARD ALL"),
            11..=13 => self.set(),
            _ => self.read(),
        }
    }

    fn begin(&mut self) {
        if !self.in_transaction {
            self.try_step("BEGIN");
            (self.in_transaction, self.first) = (true, None);
        }
    }

    fn end(&mut self, how: &str) {
        self.try_step(how);
        (self.in_transaction, self.first) = (false, None);
    }

    fn end_if_done(&mut self, statement: &str) {
        if !self.in_transaction {
            self.try_step(statement);
        }
    }

    /// Sets a tenant in one of the ways there are. What is accepted must be the first, and be in force at once.
    fn set(&mut self) {
        let tenant = self.tenant();
        let statement = self.setting_of(&tenant);
        if self.try_step(&statement) && self.in_transaction {
            self.note(&tenant.code);
            // A block that rolled back its own SET leaves nothing set.
            if !statement.starts_with("DO") {
                self.read();
            }
        }
    }

    fn setting_of(&mut self, tenant: &Tenant) -> String {
        let key = match self.draw(3) {
            0 => tenant.id.to_string(),
            1 => tenant.number.to_string(),
            _ => tenant.code.clone(),
        };
        match self.draw(6) {
            0 => format!("SET LOCAL app.current_tenant_id = '{key}'"),
            1 => format!("SET app.current_tenant_id = '{key}'"),
            2 => format!("SELECT set_config('app.current_tenant_id', '{key}', true)"),
            3 => format!("SELECT set_config('APP.current_tenant_id', '{key}', false)"),
            4 => format!(
                "DO $$ BEGIN PERFORM tenancy.set_tenant('{key}'); RAISE division_by_zero;
                 EXCEPTION WHEN division_by_zero THEN NULL; END $$"
            ),
            _ => format!("SELECT tenancy.set_tenant('{key}')"),
        }
    }

    fn read(&mut self) {
        if !self.try_step(READ) {
            return;
        }
        let codes = self.session.rows(READ);
        assert_eq!(codes.len(), 1, "a read saw {codes:?}; {}", self.story());
        self.reads += 1;
        assert!(self.in_transaction, "a read outside a transaction saw {codes:?}; {}", self.story());
        self.note(&codes[0]);
    }

    fn note(&mut self, code: &str) {
        match &self.first {
            Some(first) => assert_eq!(first, code, "two tenants in one transaction; {}", self.story()),
            None => self.first = Some(code.to_owned()),
        }
    }

    /// A failure inside a transaction is rolled back to where the step began, as a driver or a block would.
    fn try_step(&mut self, statement: &str) -> bool {
        self.told.push(statement.to_owned());
        if self.in_transaction {
            self.session.run("SAVEPOINT step");
        }
        let done = self.session.try_run(statement).is_ok();
        if !done && self.in_transaction {
            self.session.run("ROLLBACK TO step");
        }
        done
    }

    fn tenant(&mut self) -> Tenant {
        let index = self.draw(self.tenants.len());
        self.tenants[index].clone()
    }

    /// The next number below `limit`; xorshift, for a story must be told again from its number alone.
    fn draw(&mut self, limit: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 33) as usize % limit
    }

    fn story(&self) -> String {
        format!("the story:\n{};", self.told.join(";\n"))
    }
}
