//! Behind a pooler many clients share few server connections: what one forgot must never reach the next.

use std::{
    thread,
    time::{Duration, Instant},
};

use pg_tenancy_tests::{Db, Pooler, Role, Session, Tenant, quote_literal};

#[path = "poolers/history.rs"]
mod history;
#[path = "poolers/record.rs"]
mod record;
#[path = "poolers/wire.rs"]
mod wire;

const CLIENTS: usize = 20;
const TENANTS: usize = 10;
const LASTS: Duration = Duration::from_secs(4);

#[test]
fn twenty_clients_of_ten_tenants_on_two_connections_see_their_own_rows_only() {
    let db = Db::new();
    let app = shop(&db);
    let tenants: Vec<Tenant> = (0..TENANTS).map(|n| db.tenant(&format!("tenant-{n}"))).collect();
    let pooler = db.pgbouncer(&[("default_pool_size", "2"), ("max_client_conn", "100")]);
    let until = Instant::now() + LASTS;
    let clients: Vec<Client> = thread::scope(|scope| {
        let running: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (pooler, app, tenant) = (&pooler, &app, &tenants[number % TENANTS]);
                scope.spawn(move || Client::work(pooler, app, tenant, number, until))
            })
            .collect();
        let finished = running.into_iter().map(|client| client.join());
        finished.map(|client| client.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });

    for client in &clients {
        assert!(
            client.done.iter().all(|times| *times > 0),
            "client {} never did some of its deeds: {:?}",
            client.number,
            client.done
        );
    }
    // What was written is what the clients committed, under the tenant that each of them meant.
    let superuser = db.admin();
    superuser.sees(
        "SELECT count(*) FROM orders o JOIN tenancy.tenants t ON t.id = o.tenant_id WHERE o.item <> t.code",
        &["0"],
    );
    for (number, tenant) in tenants.iter().enumerate() {
        let meant: u64 =
            clients.iter().filter(|client| client.number % TENANTS == number).map(|client| client.committed).sum();
        superuser
            .sees(&format!("SELECT count(*) FROM orders WHERE tenant_id = '{}'", tenant.id), &[&meant.to_string()]);
    }
    // Two connections served them all.
    superuser.sees(
        &format!("SELECT count(*) <= 2 FROM pg_stat_activity WHERE usename = {}", quote_literal(app.name())),
        &["t"],
    );
}

#[test]
fn a_tenant_set_for_the_session_does_not_reach_the_next_client() {
    let (_db, pooler, app) = pooled_shop(&[]);
    for forgotten in [
        "SET app.current_tenant_id = 'red'",
        "SELECT set_config('app.current_tenant_id', 'red', false)",
        "BEGIN; SET app.current_tenant_id = 'red'; COMMIT",
        "SELECT tenancy.set_tenant('red')",
    ] {
        let (one, two) = (pooler.login(&app), pooler.login(&app));
        one.run(forgotten);
        assert_eq!(one.pid(), two.pid(), "they share a connection");
        two.refused("55000", "SELECT item FROM orders");
        two.sees("SELECT tenancy.has_tenant()", &["f"]);
        two.sees("SHOW app.current_tenant_id", &[""]);
        two.refused("55000", "INSERT INTO orders (item) VALUES ('whose?')");
        two.run("BEGIN; SET LOCAL app.current_tenant_id = 'blue'");
        two.sees("SELECT item FROM orders", &["blue"]);
        two.run("COMMIT");
    }
}

#[test]
fn a_client_that_vanishes_in_its_transaction_leaves_nothing_behind() {
    let (_db, pooler, app) = pooled_shop(&[]);
    let one = pooler.login(&app);
    one.run("BEGIN; SELECT tenancy.set_tenant('red'); INSERT INTO orders (item) VALUES ('red')");
    drop(one);
    let two = pooler.login(&app);
    two.refused("55000", "SELECT item FROM orders");
    two.run("BEGIN; SELECT tenancy.set_tenant('red')");
    two.sees("SELECT count(*) FROM orders", &["1"]);
    two.run("COMMIT");
}

#[test]
fn a_tenant_in_the_connection_options_is_refused() {
    let (_db, pooler, app) = pooled_shop(&[]);
    let refused = pooler.try_login(&app, |config| {
        config.options("-c app.current_tenant_id=red");
    });
    assert!(refused.is_err(), "PgBouncer passes startup options on by now; see whether the server refuses them");
}

#[test]
fn startup_options_that_the_pooler_drops_leave_no_tenant() {
    let (_db, pooler, app) = pooled_shop(&[("ignore_startup_parameters", "options")]);
    let session = pooler.try_login(&app, |config| {
        config.options("-c app.current_tenant_id=red");
    });
    session.unwrap_or_else(|error| panic!("{error}")).refused("55000", "SELECT item FROM orders");
}

#[test]
fn with_session_lifetime_and_session_pooling_a_reset_ends_the_tenant() {
    let db = Db::new();
    let app = shop(&db);
    db.tenant("red");
    db.admin().run(&format!("ALTER DATABASE \"{}\" SET tenancy.context_lifetime = session", db.name()));
    let pooler = db.pgbouncer(&[("pool_mode", "session"), ("server_reset_query", "DISCARD ALL")]);
    let one = pooler.login(&app);
    one.run("SELECT tenancy.set_tenant('red')");
    one.sees("SELECT tenancy.has_tenant()", &["t"]);
    let pid = one.pid();
    drop(one);
    let two = pooler.login(&app);
    assert_eq!(pid, two.pid(), "they share a connection");
    two.sees("SELECT tenancy.has_tenant()", &["f"]);
    two.refused("55000", "SELECT item FROM orders");
}

#[test]
fn a_suspension_reaches_pooled_connections_at_once() {
    let (db, pooler, app) = pooled_shop(&[]);
    let client = pooler.login(&app);
    let read = "BEGIN; SELECT tenancy.set_tenant('red'); SELECT count(*) FROM orders; COMMIT";
    client.run(read);
    db.admin().run("SELECT tenancy.suspend_tenant('red')");
    client.refused("55000", read);
    client.run("ROLLBACK");
    db.admin().run("SELECT tenancy.resume_tenant('red')");
    client.run(read);
}

/// A client of one tenant that does by chance one of the things that programs do, and looks at every row it gets.
struct Client {
    number: usize,
    committed: u64,
    /// How often each deed was done.
    done: [u32; DEEDS.len()],
}

type Deed = fn(&mut Client, &Session, &Tenant);

const DEEDS: [Deed; 9] = [
    Client::writes_and_reads,
    Client::rolls_a_savepoint_back,
    Client::rolls_its_tenant_back,
    Client::runs_into_an_error,
    Client::forgets_its_tenant,
    Client::forgets_the_transaction,
    Client::sends_all_at_once,
    Client::forges_a_row,
    Client::changes_its_mind,
];

impl Client {
    fn work(pooler: &Pooler, app: &Role, tenant: &Tenant, number: usize, until: Instant) -> Self {
        let mut client = Self { number, committed: 0, done: [0; DEEDS.len()] };
        let mut session = pooler.login(app);
        let mut chance = Chance::new(number);
        while Instant::now() < until || client.done.contains(&0) {
            let deed = chance.below(DEEDS.len());
            DEEDS[deed](&mut client, &session, tenant);
            client.done[deed] += 1;
            if chance.below(40) == 0 {
                // It leaves in the midst of a transaction and comes back.
                session.run(&format!("BEGIN; {}", enter(tenant)));
                session = pooler.login(app);
            }
        }
        client
    }

    fn writes_and_reads(&mut self, session: &Session, tenant: &Tenant) {
        session.run(&format!("BEGIN; {}; {}", enter(tenant), write(tenant)));
        self.sees_its_own_only(session, tenant, 1);
        session.run("COMMIT");
        self.committed += 1;
    }

    fn rolls_a_savepoint_back(&mut self, session: &Session, tenant: &Tenant) {
        session.run(&format!("BEGIN; {}; SAVEPOINT s; {}; ROLLBACK TO s", enter(tenant), write(tenant)));
        self.sees_its_own_only(session, tenant, 0);
        session.run("COMMIT");
    }

    fn rolls_its_tenant_back(&mut self, session: &Session, tenant: &Tenant) {
        session.run(&format!("BEGIN; SAVEPOINT s; {}; ROLLBACK TO s", enter(tenant)));
        session.refused("55000", "SELECT tenant_id FROM orders");
        session.run("ROLLBACK");
    }

    fn runs_into_an_error(&mut self, session: &Session, tenant: &Tenant) {
        session.run(&format!("BEGIN; {}; {}", enter(tenant), write(tenant)));
        session.refused("22012", "SELECT 1 / 0");
        session.run("ROLLBACK");
    }

    fn forgets_its_tenant(&mut self, session: &Session, tenant: &Tenant) {
        session.refused("55000", "SELECT tenant_id FROM orders");
        session.refused("55000", &write(tenant));
        session.run("BEGIN");
        session.refused("55000", "SELECT tenant_id FROM orders");
        session.run("ROLLBACK");
    }

    fn forgets_the_transaction(&mut self, session: &Session, tenant: &Tenant) {
        session.run(&format!("SET app.current_tenant_id = {}", quote_literal(&tenant.code)));
        session.refused("55000", "SELECT tenant_id FROM orders");
    }

    fn sends_all_at_once(&mut self, session: &Session, tenant: &Tenant) {
        // Several statements in one message are one transaction, without BEGIN too.
        let code = quote_literal(&tenant.code);
        let rows = session
            .rows(&format!("SELECT set_config('app.current_tenant_id', {code}, true); SELECT tenant_id FROM orders"));
        assert_eq!(rows[0], tenant.code);
        self.all_are_its_own(&rows[1..], tenant);
    }

    fn forges_a_row(&mut self, session: &Session, tenant: &Tenant) {
        session.run(&format!("BEGIN; {}", enter(tenant)));
        session.refused("42501", "INSERT INTO orders (tenant_id, item) VALUES (gen_random_uuid(), 'forged')");
        session.run("ROLLBACK");
    }

    fn changes_its_mind(&mut self, session: &Session, tenant: &Tenant) {
        let other = (self.number + 1) % TENANTS;
        session.run(&format!("BEGIN; {}", enter(tenant)));
        session.refused("42501", &format!("SET LOCAL app.current_tenant_id = 'tenant-{other}'"));
        session.run("ROLLBACK");
    }

    fn sees_its_own_only(&self, session: &Session, tenant: &Tenant, at_least: u64) {
        let rows = session.rows("SELECT tenant_id FROM orders");
        assert!(rows.len() as u64 >= self.committed + at_least, "client {}: own rows are missing", self.number);
        self.all_are_its_own(&rows, tenant);
        session.sees("SELECT tenancy.current_tenant_id()", &[&tenant.id.to_string()]);
    }

    fn all_are_its_own(&self, rows: &[String], tenant: &Tenant) {
        let own = tenant.id.to_string();
        let foreign: Vec<&String> = rows.iter().filter(|row| **row != own).collect();
        assert!(foreign.is_empty(), "client {} of {own} got rows of {foreign:?}", self.number);
    }
}

fn enter(tenant: &Tenant) -> String {
    format!("SELECT tenancy.set_tenant({})", quote_literal(&tenant.code))
}

fn write(tenant: &Tenant) -> String {
    format!("INSERT INTO orders (item) VALUES ({})", quote_literal(&tenant.code))
}

/// xorshift: the same deeds in the same order in every run.
struct Chance(u64);

impl Chance {
    fn new(seed: usize) -> Self {
        Self(0x9e37_79b9_7f4a_7c15 ^ (seed as u64 + 1).wrapping_mul(0x2545_f491_4f6c_dd1d))
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// A protected table `orders` and a role that may use it.
fn shop(db: &Db) -> Role {
    let app = db.application("app");
    db.admin().run(
        "CREATE TABLE orders (tenant_id uuid NOT NULL, item text NOT NULL); SELECT tenancy.protect_table('orders')",
    );
    db.admin().run(&format!("GRANT SELECT, INSERT ON orders TO {app}"));
    app
}

/// The same with a row each of the tenants red and blue, behind a pooler with one server connection.
fn pooled_shop(settings: &[(&str, &str)]) -> (Db, Pooler, Role) {
    let db = Db::new();
    let app = shop(&db);
    for code in ["red", "blue"] {
        let tenant = db.tenant(code);
        db.enter(&app, &tenant).run(&write(&tenant));
    }
    let pooler = db.pgbouncer(settings);
    (db, pooler, app)
}
