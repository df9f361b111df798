//! Random clients of random tenants on very few connections: what each statement got is recorded and judged afterwards.
//!
//! Every client takes another tenant for each transaction, so a connection serves all of them by turns. They forget and
//! change their tenant, roll back, are cancelled, vanish in mid-statement, and an administrator ends their connections.
//! `PG_TENANCY_SEED` plays the clients' choices of a failed run again, `PG_TENANCY_POOLER_SECONDS` makes it last longer.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use pg_tenancy_tests::{Cluster, Db, Pooler, Role, Session, Tenant, quote_literal};
use postgres::Statement;

use super::{
    Chance,
    record::{Deed, Event, Fate, Kept, Outcome, Whose, Written, faults, lost_or_misplaced},
    wire::{Answer, Wire},
};

const POOL_SIZES: [usize; 3] = [1, 2, 3];
const CLIENTS: usize = 5;
const TENANTS: usize = 4;
const TABLES: [&str; 2] = ["orders", "events"];
/// How often an administrator ends a connection, or cancels what it does.
const DISTURBANCES: Duration = Duration::from_millis(100);

/// How the server is set up (docs/security.md).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Server {
    /// A session loads the library when it first needs it. Until then nobody remembers what was set.
    Plain,
    Preloaded,
    /// Nothing may be made that carries rows from one transaction into another.
    Strict,
}

#[test]
fn no_history_behind_a_pooler_mixes_tenants() {
    play(&Cluster::start(&[]), Server::Plain);
}

#[test]
fn nor_does_one_with_the_library_preloaded() {
    play(&Cluster::start(&[("shared_preload_libraries", "pg_tenancy")]), Server::Preloaded);
}

#[test]
fn nor_does_one_on_a_strict_server_which_lets_nothing_be_left_behind() {
    let settings = [("shared_preload_libraries", "pg_tenancy"), ("tenancy.strictness", "strict")];
    play(&Cluster::start(&settings), Server::Strict);
}

fn play(cluster: &Cluster, server: Server) {
    let (seed, lasts) = (seed(), lasts());
    let db = cluster.db();
    let app = shop(&db);
    let tenants: Vec<Tenant> = (0..TENANTS).map(|n| db.tenant(&format!("tenant-{n}"))).collect();
    let poolers = POOL_SIZES.map(|size| db.pgbouncer(&[("default_pool_size", &size.to_string())]));
    let until = Instant::now() + lasts;
    let told: Vec<(Vec<Event>, Vec<Written>)> = thread::scope(|scope| {
        let disturber = scope.spawn(|| disturb(&db, &app, &poolers, seed, until));
        let running: Vec<_> = (0..POOL_SIZES.len() * CLIENTS)
            .map(|number| {
                let (pooler, app, tenants) = (&poolers[number % POOL_SIZES.len()], &app, &tenants);
                scope.spawn(move || Client::new(pooler, app, tenants, server, number, seed).work(until))
            })
            .collect();
        let finished = running.into_iter().map(|client| client.join());
        let told = finished.map(|client| client.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect();
        disturber.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        told
    });
    drop(poolers);
    wait_until_alone(&db, &app);

    let (events, written): (Vec<_>, Vec<_>) = told.into_iter().unzip();
    let (events, written) = (events.concat(), written.concat());
    let mut wrong = faults(&events);
    wrong.extend(lost_or_misplaced(&written, &kept(&db, &tenants)));
    let again = format!("PG_TENANCY_SEED={seed} plays the same choices again");
    assert!(wrong.is_empty(), "{} faults; {again}\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
    proves_something(&events, &written, &again);
}

/// A history in which hardly anything happened proves nothing.
fn proves_something(events: &[Event], written: &[Written], again: &str) {
    let count = |is: &dyn Fn(&Event) -> bool| events.iter().filter(|event| is(event)).count();
    let refused = |event: &Event, state: &str| event.outcome == Outcome::Refused(state.to_owned());
    let figures = [
        ("reads with rows", count(&|e| matches!(&e.outcome, Outcome::Rows(rows) if !rows.is_empty()))),
        ("reads of own rows", count(&|e| matches!(&e.outcome, Outcome::Marks(marks) if !marks.is_empty()))),
        ("forgotten tenants", count(&|e| e.context.is_none() && refused(e, "55000"))),
        ("trespasses", count(&|e| e.deed == Deed::Trespass && refused(e, "42501"))),
        ("cancelled statements", count(&|e| refused(e, "57014"))),
        ("lost connections", count(&|e| e.outcome == Outcome::Lost)),
        ("looks around", count(&|e| e.deed == Deed::LookAround)),
        (
            "executions of another's plan",
            count(&|e| e.said.starts_with("EXECUTE") && matches!(e.outcome, Outcome::Rows(_))),
        ),
        ("committed rows", written.iter().filter(|row| row.fate == Fate::Committed).count()),
        ("rows rolled back", written.iter().filter(|row| row.fate == Fate::RolledBack).count()),
    ];
    eprintln!("{} statements: {figures:?}", events.len());
    assert!(figures.iter().all(|(_, times)| *times > 0), "the history proves little: {figures:?}; {again}");
}

fn seed() -> u64 {
    match std::env::var("PG_TENANCY_SEED") {
        Ok(text) => text.parse().expect("PG_TENANCY_SEED is a number"),
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set").subsec_nanos().into(),
    }
}

fn lasts() -> Duration {
    let seconds = std::env::var("PG_TENANCY_POOLER_SECONDS").unwrap_or_else(|_| "10".to_owned());
    Duration::from_secs(seconds.parse().expect("PG_TENANCY_POOLER_SECONDS is a number"))
}

/// Two protected tables, one of them partitioned, and a role that may use them.
fn shop(db: &Db) -> Role {
    let app = db.application("app");
    db.admin().run(&format!(
        "CREATE TABLE orders (tenant_id uuid NOT NULL, client int NOT NULL, mark bigint NOT NULL);
         CREATE TABLE events (tenant_id uuid NOT NULL, client int NOT NULL, mark bigint NOT NULL) PARTITION BY HASH (mark);
         CREATE TABLE events_0 PARTITION OF events FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE events_1 PARTITION OF events FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         CREATE INDEX ON orders (client); CREATE INDEX ON events (client);
         SELECT tenancy.protect_table('orders'), tenancy.protect_table('events');
         GRANT SELECT, INSERT ON orders, events TO {app}"
    ));
    app
}

fn kept(db: &Db, tenants: &[Tenant]) -> Vec<Kept> {
    let rows = db.admin().query("SELECT tenant_id, mark FROM orders UNION ALL SELECT tenant_id, mark FROM events", &[]);
    let kept = rows.iter().map(|row| {
        let (tenant, mark): (uuid::Uuid, i64) = (row.get(0), row.get(1));
        let whose = tenants.iter().position(|known| known.id == tenant).expect("a tenant of the test");
        Kept { mark: mark as u64, whose }
    });
    kept.collect()
}

/// Ends or cancels what runs on a server connection, at random, as an administrator would.
fn disturb(db: &Db, app: &Role, poolers: &[Pooler], seed: u64, until: Instant) {
    let admin = db.admin();
    let mut chance = Chance::new(seed as usize);
    while Instant::now() < until {
        poolers.iter().for_each(Pooler::keep_alive);
        let end = ["pg_terminate_backend", "pg_cancel_backend"][chance.below(2)];
        admin.run(&format!(
            "SELECT {end}(pid) FROM (SELECT pid FROM pg_stat_activity WHERE usename = {} ORDER BY random() LIMIT 1) one",
            quote_literal(app.name())
        ));
        thread::sleep(DISTURBANCES + Duration::from_millis(chance.below(100) as u64));
    }
}

/// A backend whose client has vanished may still be at work.
fn wait_until_alone(db: &Db, app: &Role) {
    let admin = db.admin();
    let others = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = {}", quote_literal(app.name()));
    let begun = Instant::now();
    while admin.value(&others) != "0" {
        assert!(begun.elapsed() < Duration::from_secs(30), "backends stay when the poolers are gone");
        thread::sleep(Duration::from_millis(20));
    }
}

/// No two rows of a run have the same.
fn next_mark() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// What is known of an open transaction.
#[derive(Default)]
struct Transaction {
    context: Option<Whose>,
    /// The first tenant it took; it may not take another, whatever is rolled back.
    sealed: Option<Whose>,
    /// The library was there before the first tenant was set.
    remembers: bool,
    /// For each savepoint: how many rows were written before, and the tenant.
    savepoints: Vec<(usize, Option<Whose>)>,
    /// Rows written: where they are noted.
    rows: Vec<usize>,
}

struct Client<'a> {
    number: usize,
    pooler: &'a Pooler,
    app: &'a Role,
    tenants: &'a [Tenant],
    server: Server,
    chance: Chance,
    session: Option<Session>,
    /// Prepared by the protocol, on whatever connection served it then.
    prepared: Option<Statement>,
    events: Vec<Event>,
    written: Vec<Written>,
}

/// The transaction cannot go on.
struct Ended;

impl<'a> Client<'a> {
    fn new(pooler: &'a Pooler, app: &'a Role, tenants: &'a [Tenant], server: Server, number: usize, seed: u64) -> Self {
        let chance = Chance::new((seed as usize).wrapping_add(number).wrapping_mul(0x9e37));
        let (session, prepared, events, written) = (None, None, vec![], vec![]);
        Self { number, pooler, app, tenants, server, chance, session, prepared, events, written }
    }

    /// What it did, and what it wrote.
    fn work(mut self, until: Instant) -> (Vec<Event>, Vec<Written>) {
        while Instant::now() < until {
            match self.chance.below(20) {
                0 => self.vanish(),
                1 | 2 => self.forget_the_transaction(),
                6 => self.cancel_a_read(),
                3 => self.send_all_at_once(),
                4 => self.look_around(),
                5 => drop(self.step(None, Deed::Manage, "DISCARD ALL")),
                _ => self.transact(),
            }
        }
        (self.events, self.written)
    }

    /// A transaction of random steps. Its rows are noted as unknown until its end is known.
    fn transact(&mut self) {
        let mut now = Transaction::default();
        if self.begin(&mut now).is_err() {
            return self.abandon(&now);
        }
        for _ in 0..2 + self.chance.below(8) {
            if self.random_step(&mut now).is_err() {
                return self.abandon(&now);
            }
        }
        let (end, fate) = match self.chance.below(8) {
            0 | 1 => ("ROLLBACK", Fate::RolledBack),
            2 => ("COMMIT AND CHAIN", Fate::Committed),
            _ => ("COMMIT", Fate::Committed),
        };
        // Without an answer nobody knows what became of it.
        match self.step(now.context, Deed::Manage, end) {
            Ok(()) => self.settle(&now.rows, fate),
            Err(Ended) => return self.leave(),
        }
        if end.ends_with("CHAIN") {
            // The chained transaction has no tenant yet.
            if self.read(&Transaction::default()).is_ok() {
                self.step(None, Deed::Manage, "ROLLBACK").unwrap_or_else(|Ended| self.leave());
            } else {
                self.leave();
            }
        }
    }

    fn begin(&mut self, now: &mut Transaction) -> Result<(), Ended> {
        self.step(None, Deed::Manage, "BEGIN")?;
        now.remembers = self.server != Server::Plain || self.chance.below(2) == 0;
        if self.server == Server::Plain && now.remembers {
            self.step(None, Deed::Manage, "SELECT tenancy.has_tenant()")?;
        }
        Ok(())
    }

    fn random_step(&mut self, now: &mut Transaction) -> Result<(), Ended> {
        match self.chance.below(20) {
            0..=3 => self.enter(now),
            4 | 5 => self.read(now),
            6 | 7 => self.read_own(now),
            8 | 9 => self.write(now),
            10 => self.trespass(now),
            11 => self.set_savepoint(now),
            12 => self.roll_back_to_savepoint(now),
            13 => self.guarded(now.context, Deed::Manage, "SELECT pg_sleep(0)"),
            14 | 15 => self.execute_everyones_plan(now),
            16 => self.execute_own_plan(now),
            17 => self.use_a_cursor(now),
            18 => self.use_a_temporary_table(now),
            _ => self.run_into_an_error(now),
        }
    }

    /// Takes a tenant in one of the ways there are: the transaction's first one, or another, which is refused.
    fn enter(&mut self, now: &mut Transaction) -> Result<(), Ended> {
        let stays = !now.remembers || self.chance.below(4) > 0;
        let whose = now.sealed.filter(|_| stays).unwrap_or_else(|| self.chance.below(TENANTS));
        let said = self.setting(whose);
        if now.sealed.is_some_and(|first| first != whose) {
            return self.guarded(now.context, Deed::Trespass, &said);
        }
        self.step(now.context, Deed::Manage, &said)?;
        (now.context, now.sealed) = (Some(whose), Some(whose));
        Ok(())
    }

    fn setting(&mut self, whose: Whose) -> String {
        let tenant = &self.tenants[whose];
        let key = match self.chance.below(3) {
            0 => tenant.id.to_string(),
            1 => tenant.number.to_string(),
            _ => tenant.code.clone(),
        };
        match self.chance.below(5) {
            0 => format!("SET LOCAL app.current_tenant_id = '{key}'"),
            1 => format!("SET app.current_tenant_id = '{key}'"),
            2 => format!("SELECT set_config('app.current_tenant_id', '{key}', true)"),
            3 => format!("DO $$ BEGIN PERFORM set_config('app.current_tenant_id', '{key}', false); END $$"),
            _ => format!("SELECT tenancy.set_tenant('{key}')"),
        }
    }

    fn table(&mut self) -> &'static str {
        TABLES[self.chance.below(TABLES.len())]
    }

    fn read(&mut self, now: &Transaction) -> Result<(), Ended> {
        let said = match self.chance.below(3) {
            0 => format!("SELECT DISTINCT tenant_id FROM {}", self.table()),
            1 => "SELECT tenant_id FROM orders UNION SELECT tenant_id FROM events".to_owned(),
            _ => format!(
                "SELECT DISTINCT o.tenant_id FROM {} o WHERE EXISTS (SELECT FROM orders WHERE mark > o.mark)",
                self.table()
            ),
        };
        self.guarded(now.context, Deed::Read, &said)
    }

    fn read_own(&mut self, now: &Transaction) -> Result<(), Ended> {
        let said = format!(
            "SELECT mark FROM orders WHERE client = {0} UNION ALL SELECT mark FROM events WHERE client = {0}",
            self.number
        );
        let of = |fates: &[Fate], open: bool| -> Vec<u64> {
            let rows = self.written.iter().enumerate();
            let mine = rows.filter(|(at, row)| {
                let is_open = now.rows.contains(at);
                Some(row.whose) == now.context && if is_open { open } else { fates.contains(&row.fate) }
            });
            mine.map(|(_, row)| row.mark).collect()
        };
        let deed = Deed::ReadOwn { must: of(&[Fate::Committed], true), may: of(&[Fate::Unknown], false) };
        self.guarded(now.context, deed, &said)
    }

    fn write(&mut self, now: &mut Transaction) -> Result<(), Ended> {
        let mark = next_mark();
        let said = format!("INSERT INTO {} (client, mark) VALUES ({}, {mark})", self.table(), self.number);
        if let Some(whose) = now.context {
            now.rows.push(self.written.len());
            self.written.push(Written { mark, whose, fate: Fate::Unknown });
            self.step(now.context, Deed::Write, &said)
        } else {
            self.guarded(None, Deed::Write, &said)
        }
    }

    /// A row of another tenant, written or taken away.
    fn trespass(&mut self, now: &Transaction) -> Result<(), Ended> {
        let Some(own) = now.context else { return self.read(now) };
        let other = self.tenants[(own + 1) % TENANTS].id;
        let said = format!("INSERT INTO {} VALUES ('{other}', {}, 0)", self.table(), self.number);
        self.guarded(now.context, Deed::Trespass, &said)
    }

    fn set_savepoint(&mut self, now: &mut Transaction) -> Result<(), Ended> {
        self.step(now.context, Deed::Manage, "SAVEPOINT s")?;
        now.savepoints.push((now.rows.len(), now.context));
        Ok(())
    }

    fn roll_back_to_savepoint(&mut self, now: &mut Transaction) -> Result<(), Ended> {
        let Some((rows, context)) = now.savepoints.last().copied() else { return Ok(()) };
        self.step(now.context, Deed::Manage, "ROLLBACK TO s")?;
        let gone = now.rows.split_off(rows);
        self.settle(&gone, Fate::RolledBack);
        now.context = context;
        Ok(())
    }

    /// A statement that any client has prepared on this connection under any tenant.
    fn execute_everyones_plan(&mut self, now: &Transaction) -> Result<(), Ended> {
        let there = "SELECT FROM pg_prepared_statements WHERE name = 'everyones'";
        let known = self.send(there).map_err(|outcome| self.gave_up(now, there, outcome))?;
        if known.is_empty() {
            let prepare = "PREPARE everyones(int) AS SELECT DISTINCT tenant_id FROM orders WHERE client >= $1";
            self.step(now.context, Deed::Manage, prepare)?;
        }
        self.guarded(now.context, Deed::Read, "EXECUTE everyones(0)")
    }

    /// The same through the protocol. The statement is on the connection that served the client when it prepared it.
    fn execute_own_plan(&mut self, now: &Transaction) -> Result<(), Ended> {
        let said = "SELECT DISTINCT tenant_id FROM events WHERE client <> $1";
        let prepared = match self.prepared.take() {
            Some(statement) => statement,
            None => {
                let made = self.session().ok_or(Ended)?.client().prepare(said);
                made.map_err(|error| self.gave_up(now, said, outcome_of(&error)))?
            }
        };
        let number = self.number as i32;
        let rows = self.session().ok_or(Ended)?.client().query(&prepared, &[&number]);
        let outcome = match &rows {
            Ok(rows) => {
                Outcome::Rows(rows.iter().map(|row| self.whose(&row.get::<_, uuid::Uuid>(0).to_string())).collect())
            }
            Err(error) => outcome_of(error),
        };
        if outcome == Outcome::Refused("26000".to_owned()) {
            // Another connection serves it this time.
            return Err(Ended);
        }
        let done = matches!(outcome, Outcome::Rows(_));
        self.note(now.context, Deed::Read, said.to_owned(), outcome);
        if !done {
            return Err(Ended);
        }
        self.prepared = Some(prepared);
        Ok(())
    }

    fn use_a_cursor(&mut self, now: &Transaction) -> Result<(), Ended> {
        let held = self.chance.below(2) == 0;
        let declare = format!(
            "DECLARE held CURSOR {} HOLD FOR SELECT DISTINCT tenant_id FROM orders",
            if held { "WITH" } else { "WITHOUT" }
        );
        if held && self.server == Server::Strict {
            return self.guarded(now.context, Deed::CarryOver, &declare);
        }
        if now.context.is_none() {
            return self.guarded(None, Deed::Read, &declare);
        }
        self.step(now.context, Deed::Manage, &declare)?;
        self.step(now.context, Deed::Read, "FETCH ALL FROM held")?;
        self.step(now.context, Deed::Manage, "CLOSE held")
    }

    fn use_a_temporary_table(&mut self, now: &Transaction) -> Result<(), Ended> {
        let create =
            |until: &str| format!("CREATE TEMPORARY TABLE carried {until} AS SELECT DISTINCT tenant_id FROM orders");
        if now.context.is_none() {
            return self.guarded(None, Deed::Read, &create("ON COMMIT DROP"));
        }
        if self.server == Server::Strict {
            return self.guarded(now.context, Deed::CarryOver, &create(""));
        }
        self.step(now.context, Deed::Manage, &create("ON COMMIT DROP"))?;
        self.step(now.context, Deed::Read, "SELECT tenant_id FROM carried")?;
        self.step(now.context, Deed::Manage, "DROP TABLE carried")
    }

    fn run_into_an_error(&mut self, now: &Transaction) -> Result<(), Ended> {
        let said = "SELECT 1 / 0";
        match self.send(said) {
            Err(Outcome::Refused(state)) if state == "22012" => Err(Ended),
            Err(outcome) => Err(self.gave_up(now, said, outcome)),
            Ok(rows) => panic!("{said} gives {rows:?}"),
        }
    }

    /// Sets a tenant for the session and reads outside of any transaction: that is a forgotten tenant.
    fn forget_the_transaction(&mut self) {
        let whose = self.chance.below(TENANTS);
        let setting = self.setting(whose);
        if self.chance.below(2) == 0 && self.step(None, Deed::Manage, &setting).is_err() {
            return;
        }
        let said = if self.chance.below(4) == 0 {
            format!("INSERT INTO {} (client, mark) VALUES ({}, 0)", self.table(), self.number)
        } else {
            format!("SELECT tenant_id FROM {}", self.table())
        };
        let deed = if said.starts_with("INSERT") { Deed::Write } else { Deed::Read };
        // A refusal is what is asked for; there is no transaction that it could end.
        if self.step(None, deed, &said).is_err() {
            self.refresh();
        }
    }

    /// Several statements in one message are one transaction, without BEGIN too.
    fn send_all_at_once(&mut self) {
        let whose = self.chance.below(TENANTS);
        // One that answers with nothing: only the read's rows are to come.
        let code = &self.tenants[whose].code;
        let said =
            format!("SET LOCAL app.current_tenant_id = '{code}'; SELECT DISTINCT tenant_id FROM {}", self.table());
        if self.step(Some(whose), Deed::Read, &said).is_err() {
            self.refresh();
        }
    }

    /// For what another client's transaction may have left on the connection.
    fn look_around(&mut self) {
        for said in ["SELECT tenant_id FROM carried", "FETCH ALL FROM held"] {
            if self.step(None, Deed::LookAround, said).is_err() {
                self.refresh();
            }
        }
    }

    /// Sends a transaction through a bare socket and closes that before there is an answer.
    fn vanish(&mut self) {
        let (whose, mark, commits) = (self.chance.below(TENANTS), next_mark(), self.chance.below(2) == 0);
        let said = format!(
            "BEGIN; {}; INSERT INTO {} (client, mark) VALUES ({}, {mark}); SELECT pg_sleep(0.00{}){}",
            self.setting(whose),
            self.table(),
            self.number,
            self.chance.below(10),
            if commits { "; COMMIT" } else { "" }
        );
        let fate = if commits { Fate::Unknown } else { Fate::RolledBack };
        self.written.push(Written { mark, whose, fate });
        let patience = Duration::from_millis(self.chance.below(5) as u64);
        let asked = Wire::connect(self.pooler, self.app).and_then(|mut wire| {
            wire.ask(&said)?;
            thread::sleep(patience);
            Ok(())
        });
        if let Err(error) = asked {
            self.note(Some(whose), Deed::Manage, format!("{said}: {error}"), Outcome::Lost);
        }
    }

    /// A read that is cancelled on its way, or just not; the request may even meet the next one on that connection.
    fn cancel_a_read(&mut self) {
        let whose = self.chance.below(TENANTS);
        let code = &self.tenants[whose].code;
        let said = format!(
            "SET LOCAL app.current_tenant_id = '{code}'; SELECT DISTINCT tenant_id FROM orders, pg_sleep(0.01)"
        );
        let patience = Duration::from_millis(self.chance.below(15) as u64);
        let answer = Wire::connect(self.pooler, self.app).and_then(|mut wire| {
            wire.ask(&said)?;
            thread::sleep(patience);
            wire.cancel()?;
            wire.answer()
        });
        let outcome = match answer {
            Ok(Answer::Rows(rows)) => Outcome::Rows(rows.iter().map(|row| self.whose(row)).collect()),
            Ok(Answer::Refused(state)) => refusal(&state),
            Err(_) => Outcome::Lost,
        };
        self.note(Some(whose), Deed::Read, said, outcome);
    }

    /// The end of a transaction that failed before its COMMIT: nothing of it stays.
    fn abandon(&mut self, now: &Transaction) {
        self.settle(&now.rows, Fate::RolledBack);
        self.leave();
    }

    /// Ends what is open, or the connection where that cannot be.
    fn leave(&mut self) {
        if self.session.as_ref().is_some_and(|session| session.try_run("ROLLBACK").is_err()) {
            self.session = None;
        }
        self.refresh();
    }

    fn settle(&mut self, rows: &[usize], fate: Fate) {
        for row in rows {
            self.written[*row].fate = fate;
        }
    }

    /// Leaves a connection that is closed, so that the next statement opens one.
    fn refresh(&mut self) {
        if self.session.as_ref().is_some_and(|session| session.client().is_closed()) {
            self.session = None;
        }
        if self.session.is_none() {
            self.prepared = None;
        }
    }

    /// One that may be refused without the transaction's end, as in a block with an exception handler.
    fn guarded(&mut self, context: Option<Whose>, deed: Deed, said: &str) -> Result<(), Ended> {
        self.step(context, Deed::Manage, "SAVEPOINT guard")?;
        if self.step(context, deed, said).is_err() {
            self.step(context, Deed::Manage, "ROLLBACK TO guard")?;
        }
        self.step(context, Deed::Manage, "RELEASE guard")
    }

    /// Sends it, notes what came, and says whether it was done.
    fn step(&mut self, context: Option<Whose>, deed: Deed, said: &str) -> Result<(), Ended> {
        let outcome = match self.send(said) {
            Err(outcome) => outcome,
            Ok(rows) => match deed {
                Deed::Read | Deed::LookAround => Outcome::Rows(rows.iter().map(|row| self.whose(row)).collect()),
                Deed::ReadOwn { .. } => Outcome::Marks(rows.iter().map(|row| row.parse().expect("a number")).collect()),
                _ => Outcome::Done,
            },
        };
        let done = !matches!(outcome, Outcome::Refused(_) | Outcome::Lost);
        self.note(context, deed, said.to_owned(), outcome);
        if done { Ok(()) } else { Err(Ended) }
    }

    fn send(&mut self, said: &str) -> Result<Vec<String>, Outcome> {
        let session = self.session().ok_or(Outcome::Lost)?;
        session.try_rows(said).map_err(|error| outcome_of(&error))
    }

    fn whose(&self, id: &str) -> Whose {
        self.tenants
            .iter()
            .position(|tenant| tenant.id.to_string() == id)
            .unwrap_or_else(|| panic!("whose row is {id}?"))
    }

    fn session(&mut self) -> Option<&Session> {
        // A pooler that is just starting again refuses; the next statement tries anew.
        if self.session.is_none()
            && let Ok(session) = self.pooler.try_login(self.app, |_| {})
        {
            self.session = Some(session);
        }
        self.session.as_ref()
    }

    fn note(&mut self, context: Option<Whose>, deed: Deed, said: String, outcome: Outcome) {
        self.events.push(Event { client: self.number, said, context, deed, outcome });
    }

    /// Notes why a statement that was to succeed did not.
    fn gave_up(&mut self, now: &Transaction, said: &str, outcome: Outcome) -> Ended {
        self.note(now.context, Deed::Manage, said.to_owned(), outcome);
        Ended
    }
}

fn outcome_of(error: &postgres::Error) -> Outcome {
    error.code().map_or(Outcome::Lost, |state| refusal(state.code()))
}

fn refusal(state: &str) -> Outcome {
    match state {
        // An administrator ended the connection; PgBouncer says the other one of a connection that broke.
        "57P01" | "08P01" => Outcome::Lost,
        _ => Outcome::Refused(state.to_owned()),
    }
}
