//! The log is kept as long as was said, in partitions that maintenance makes, while the application goes on writing.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use pg_tenancy_tests::{Db, Role, Session, Tenant};

/// Two tenants and a table of theirs that is audited.
pub struct Shop {
    pub db: Db,
    pub dba: Session,
    pub app: Role,
    pub red: Tenant,
}

impl Shop {
    pub fn open() -> Self {
        Self::open_in(Db::new())
    }

    pub fn open_in(db: Db) -> Self {
        let (dba, app) = (db.admin(), db.application("app"));
        let red = db.tenant("red");
        db.tenant("blue");
        dba.run(&format!(
            "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant_id uuid NOT NULL, item text);
             SELECT tenancy.protect_table('orders');
             SELECT tenancy.audit_table('orders');
             GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO {app}"
        ));
        Self { db, dba, app, red }
    }

    /// The log as CREATE EXTENSION made it: a default partition, and nothing else.
    fn forget_partitions(&self) {
        self.dba.run(
            "DO $$ DECLARE p record; BEGIN
                 FOR p IN SELECT * FROM tenancy_internal.audit_partitions() LOOP
                     EXECUTE format('ALTER TABLE tenancy_internal.audit_chunks DETACH PARTITION %s', p.relation);
                     EXECUTE format('INSERT INTO tenancy_internal.audit_chunks_default SELECT * FROM %s', p.relation);
                     EXECUTE format('DROP TABLE %s', p.relation);
                 END LOOP;
             END $$",
        );
    }

    /// An event a day of the last `days` days, of a tenant or (None) of nobody, in whatever partition is there for it.
    pub fn past(&self, tenant: Option<&str>, days: u32) {
        let tenant = tenant.map_or("NULL".to_owned(), |code| format!("tenancy.find_tenant('{code}')"));
        self.dba.run(&format!(
            "INSERT INTO tenancy_internal.audit_chunks
                 (id, occurred_at, statement_at, transaction_id, tenant_id, command, row_count, action, event, details)
             SELECT nextval('tenancy_internal.audit_chunk_ids'), t, t, 1, {tenant}, 0, 1, 'E', 'tick', '{{\"n\": 1.50}}'
               FROM generate_series(now() - interval '{days} days' + interval '1 minute', now(), '1 day') AS t"
        ));
    }

    fn entries(&self) -> i64 {
        number(&self.dba, "SELECT COALESCE(sum(row_count), 0) FROM tenancy_internal.audit_chunks")
    }

    /// Days that the oldest entry of a tenant lies back.
    fn oldest(&self, tenant: &str) -> i64 {
        number(
            &self.dba,
            &format!(
                "SELECT floor(EXTRACT(epoch FROM now() - min(occurred_at)) / 86400) FROM tenancy_internal.audit_chunks
                  WHERE tenant_id IS NOT DISTINCT FROM {tenant}"
            ),
        )
    }

    fn writer(&self, tenant: &str) -> Session {
        let session = self.db.login(&self.app);
        session.run(&format!("BEGIN; SELECT tenancy.set_tenant('{tenant}')"));
        session.run("INSERT INTO orders (item) VALUES ('open')");
        session
    }

    /// Starts maintenance in a session of its own that cannot end before the writer does: it has copied all there is, and
    /// waits for the default partition.
    fn stuck_maintenance(&self) -> (thread::JoinHandle<Result<(), String>>, String) {
        let maintainer = self.db.admin();
        let pid = maintainer.pid().to_string();
        let running =
            thread::spawn(move || maintainer.try_run("CALL tenancy.maintain_audit()").map_err(|e| e.to_string()));
        let is_stuck = format!(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = {pid} AND NOT granted
                              AND relation = 'tenancy_internal.audit_chunks_default'::regclass)"
        );
        self.wait_for(&is_stuck);
        (running, pid)
    }

    #[track_caller]
    fn wait_for(&self, what: &str) {
        let until = Instant::now() + Duration::from_secs(30);
        while self.dba.value(what) != "t" {
            assert!(Instant::now() < until, "never became true: {what}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

pub fn number(session: &Session, sql: &str) -> i64 {
    session.value(sql).parse().unwrap_or_else(|_| panic!("a number from {sql}"))
}

const STAGES: &str = "SELECT count(*) FROM pg_class WHERE relname LIKE 'audit_staging%' AND relkind = 'r'";
const STRAYS: &str = "SELECT count(*) FROM ONLY tenancy_internal.audit_chunks_default";

#[test]
fn a_log_without_partitions_takes_entries_and_maintenance_gives_each_its_month() {
    let shop = Shop::open();
    shop.forget_partitions();
    shop.db.enter(&shop.app, &shop.red).changes(3, "INSERT INTO orders (item) SELECT 'x' FROM generate_series(1, 3)");
    shop.past(Some("red"), 80);
    let before = shop.entries();
    shop.dba.run("CALL tenancy.maintain_audit()");
    assert_eq!(shop.entries(), before);
    shop.dba.sees(STRAYS, &["0"]);
    shop.dba.sees(STAGES, &["0"]);
    shop.dba.sees(
        "SELECT count(*) FROM tenancy_internal.audit_partitions() p
          WHERE p.from_at IN (date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC',
                              (date_trunc('month', now() AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC',
                              (date_trunc('month', now() AT TIME ZONE 'UTC') + interval '2 month') AT TIME ZONE 'UTC')",
        &["3"],
    );
    let notices: Vec<String> = shop.dba.notices().iter().map(|notice| notice.message().to_owned()).collect();
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert!(notices[0].contains("partitions made, 0 dropped, 81 chunks moved"), "{notices:?}");
    // Nothing is left to do.
    shop.dba.run("CALL tenancy.maintain_audit()");
    shop.dba.sees(
        "SELECT state, partitions_made, entries_moved, entries_deleted, notes FROM tenancy.audit_maintenance ORDER BY id DESC LIMIT 1",
        &["done|{}|0|0|{}"],
    );
}

#[test]
fn no_entry_is_lost_or_doubled_while_writers_go_on() {
    const WRITERS: usize = 4;
    let shop = Shop::open();
    let over = AtomicBool::new(false);
    let written: i64 = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|n| {
                let (db, app, over) = (&shop.db, &shop.app, &over);
                scope.spawn(move || {
                    let session = db.login(app);
                    let (code, mut written) = (["red", "blue"][n % 2], 0);
                    while !over.load(Ordering::Relaxed) {
                        session.run(&format!(
                            "BEGIN; SELECT tenancy.set_tenant('{code}');
                             INSERT INTO orders (item) VALUES ('one');
                             INSERT INTO orders (item) SELECT 'many' FROM generate_series(1, 4); COMMIT"
                        ));
                        written += 5;
                    }
                    written
                })
            })
            .collect();
        let until = Instant::now() + Duration::from_secs(2);
        let mut rounds = 0;
        // However slow the machine is, more than once.
        while Instant::now() < until || rounds < 3 {
            shop.forget_partitions();
            thread::sleep(Duration::from_millis(200));
            shop.dba.run("CALL tenancy.maintain_audit()");
            rounds += 1;
        }
        over.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).sum()
    });
    shop.dba.run("CALL tenancy.maintain_audit()");
    assert!(written > 100, "{written}");
    assert_eq!(shop.entries(), written);
    shop.dba.sees("SELECT count(*) = count(DISTINCT id) FROM tenancy_internal.audit_chunks", &["t"]);
    shop.dba.sees(&format!("SELECT count(*) = {written} FROM orders"), &["t"]);
    shop.dba.sees(STRAYS, &["0"]);
}

#[test]
fn what_dies_in_the_middle_is_finished_by_the_next_run() {
    let shop = Shop::open();
    shop.forget_partitions();
    shop.past(Some("red"), 80);
    let writer = shop.writer("red");
    let (running, pid) = shop.stuck_maintenance();
    let before = shop.entries();
    shop.dba.sees(&format!("{STAGES} AND reltuples <> 0"), &[&shop.dba.value(STAGES)]);
    shop.dba.run(&format!("SELECT pg_terminate_backend({pid})"));
    assert!(running.join().expect("no panic").is_err());
    assert_eq!(shop.entries(), before, "what was copied is not in the log twice");
    writer.run("COMMIT");

    shop.dba.run("CALL tenancy.maintain_audit()");
    shop.dba.sees("SELECT state FROM tenancy.audit_maintenance ORDER BY id", &["interrupted", "done"]);
    shop.dba.sees(STRAYS, &["0"]);
    shop.dba.sees(STAGES, &["0"]);
    assert_eq!(shop.entries(), before + 1);
    shop.dba.sees("SELECT count(*) = count(DISTINCT id) FROM tenancy_internal.audit_chunks", &["t"]);
}

#[test]
fn one_maintains_at_a_time() {
    let shop = Shop::open();
    shop.forget_partitions();
    shop.past(Some("red"), 80);
    let writer = shop.writer("red");
    let (running, _) = shop.stuck_maintenance();
    let second = shop.db.admin();
    for call in ["CALL tenancy.maintain_audit()", "CALL tenancy.seal_audit()"] {
        let refused = second.refused("55006", call);
        assert!(refused.hint().is_some_and(|hint| hint.contains("tenancy.audit_maintenance")), "{refused:?}");
    }
    // What somebody puts there by hand meanwhile, of a transaction that seems to be long over, is moved too.
    shop.past(None, 3);
    writer.run("COMMIT");
    running.join().expect("no panic").expect("maintenance ends");
    assert_eq!(shop.entries(), 84);
    shop.dba.sees(STRAYS, &["0"]);
    second.run("CALL tenancy.maintain_audit()");
    second.run("CALL tenancy.seal_audit()");
}

#[test]
fn a_run_that_fails_gives_its_turn_back() {
    let shop = Shop::open();
    shop.forget_partitions();
    let writer = shop.writer("red");
    let failing = shop.db.admin();
    failing.run("SET statement_timeout = '500ms'");
    failing.refused("57014", "CALL tenancy.maintain_audit()");
    // A client hears of an error before the server has ended the transaction.
    failing.run("SET statement_timeout = 0");
    writer.run("COMMIT");
    shop.dba.run("CALL tenancy.maintain_audit()");
    failing.run("CALL tenancy.maintain_audit()");
}

#[test]
fn a_long_transaction_puts_the_move_off_and_is_told() {
    let shop = Shop::open();
    shop.forget_partitions();
    let writer = shop.writer("red");
    // Who has little patience is not asked for more.
    shop.dba.run("SET lock_timeout = '100ms'");
    shop.dba.run("CALL tenancy.maintain_audit()");
    shop.dba.sees("SHOW lock_timeout", &["100ms"]);
    let told: Vec<String> = shop.dba.notices().iter().map(|notice| notice.message().to_owned()).collect();
    assert!(told.iter().any(|told| told.contains("call it again")), "{told:?}");
    writer.run("COMMIT");
    shop.dba.run("CALL tenancy.maintain_audit()");
    shop.dba.sees(STRAYS, &["0"]);
    assert_eq!(shop.entries(), 1);
}

#[test]
fn a_partition_goes_when_nobody_keeps_its_entries() {
    let shop = Shop::open();
    shop.past(Some("red"), 75);
    shop.past(None, 75);
    // On the first day of a month all of these are of months before.
    shop.dba.run("SELECT tenancy.log_event('today')");
    shop.dba.run("CALL tenancy.maintain_audit()");
    let before = number(&shop.dba, "SELECT count(*) FROM tenancy_internal.audit_partitions()");
    shop.dba.run("SELECT tenancy.set_audit_retention('1 hour')");
    shop.dba.run("CALL tenancy.maintain_audit()");
    let dropped = number(
        &shop.dba,
        "SELECT cardinality(partitions_dropped) FROM tenancy.audit_maintenance ORDER BY id DESC LIMIT 1",
    );
    assert!(dropped >= 2, "{dropped}");
    assert_eq!(number(&shop.dba, "SELECT count(*) FROM tenancy_internal.audit_partitions()"), before - dropped);
    assert!(shop.oldest("NULL") < 31);
}

#[test]
fn a_tenant_that_keeps_less_loses_its_own_entries_only() {
    let shop = Shop::open();
    for who in [Some("red"), Some("blue"), None] {
        shop.past(who, 80);
    }
    shop.dba.run("SELECT tenancy.set_audit_retention('30 days', 'red')");
    shop.dba.run("CALL tenancy.maintain_audit()");
    assert_eq!(shop.oldest("tenancy.find_tenant('red')"), 29);
    assert_eq!(shop.oldest("tenancy.find_tenant('blue')"), 79);
    assert_eq!(shop.oldest("NULL"), 79);
    shop.dba.sees("SELECT entries_deleted FROM tenancy.audit_maintenance ORDER BY id DESC LIMIT 1", &["50"]);

    // One that keeps more keeps its own only.
    shop.dba
        .run("SELECT tenancy.set_audit_retention('10 years', 'blue'); SELECT tenancy.set_audit_retention('60 days')");
    shop.dba.run("CALL tenancy.maintain_audit()");
    assert_eq!(shop.oldest("tenancy.find_tenant('blue')"), 79);
    assert_eq!(shop.oldest("NULL"), 59);
    shop.dba.sees(
        "SELECT tenant_code, keep FROM tenancy.audit_retention ORDER BY keep",
        &["red|30 days", "NULL|60 days", "blue|10 years"],
    );
    shop.dba.run("SELECT tenancy.set_audit_retention(NULL, 'red'); SELECT tenancy.set_audit_retention(NULL, 'red')");
    shop.dba.sees("SELECT count(*) FROM tenancy.audit_retention", &["2"]);
}

#[test]
fn many_expired_entries_go_in_batches() {
    let shop = Shop::open();
    shop.dba.run(
        "INSERT INTO tenancy_internal.audit_chunks (id, occurred_at, statement_at, transaction_id, tenant_id, command, row_count, action)
         SELECT nextval('tenancy_internal.audit_chunk_ids'), t, t, 1, tenancy.find_tenant('red'), 0, 2, 'E'
           FROM generate_series(1, 25000) AS n, CAST(now() - interval '40 days' AS timestamptz) AS t",
    );
    shop.past(Some("blue"), 50);
    shop.dba.run("SELECT tenancy.set_audit_retention('30 days', 'red')");
    shop.dba.run("CALL tenancy.maintain_audit()");
    shop.dba.sees("SELECT entries_deleted FROM tenancy.audit_maintenance ORDER BY id DESC LIMIT 1", &["50000"]);
    assert_eq!(shop.entries(), 50);
}

#[test]
fn bad_arguments_are_refused() {
    let shop = Shop::open();
    for (state, call) in [
        ("22023", "NULL"),
        ("22023", "'0'"),
        ("22023", "'-1 day'"),
        ("22023", "'1 month -40 days'"),
        ("22023", "'1001 years'"),
        ("22023", "'-1 day', 'red'"),
        ("42704", "'1 day', 'nobody'"),
        ("42704", "NULL, 'nobody'"),
        ("22023", "'1 day', ''"),
    ] {
        let refused = shop.dba.refused(state, &format!("SELECT tenancy.set_audit_retention({call})"));
        assert!(refused.hint().is_some(), "{refused:?}");
    }
    shop.dba.sees("SELECT tenant_id, keep FROM tenancy.audit_retention", &["NULL|90 days"]);
    // Steps commit, so they cannot be part of a transaction.
    for call in ["maintain", "seal"] {
        let refused = shop.dba.refused("25001", &format!("BEGIN; CALL tenancy.{call}_audit()"));
        assert!(refused.hint().is_some_and(|hint| hint.contains("by itself")), "{refused:?}");
        shop.dba.run("ROLLBACK");
    }
    shop.dba
        .run("CREATE FUNCTION inside() RETURNS void LANGUAGE plpgsql AS 'BEGIN CALL tenancy.maintain_audit(); END'");
    shop.dba.refused("2D000", "SELECT inside()");
    shop.dba.run("CALL tenancy.maintain_audit()");
}

#[test]
fn an_administrator_maintains_and_nobody_else_does() {
    let shop = Shop::open();
    let steward = shop.db.role("steward", "");
    shop.dba.run(&format!("SELECT tenancy.grant_admin('{steward}')"));
    shop.forget_partitions();
    shop.past(Some("red"), 200);
    let admin = shop.db.login(&steward);
    admin.run("SET default_transaction_isolation = 'serializable'");
    admin.run("SELECT tenancy.set_audit_retention('30 days', 'red')");
    admin.run("CALL tenancy.maintain_audit()");
    admin.run("CALL tenancy.seal_audit()");
    admin.sees("SELECT count(*) FROM tenancy.verify_audit() WHERE NOT ok", &["0"]);
    admin.sees("SELECT DISTINCT state FROM tenancy.audit_maintenance", &["done"]);
    admin.sees("SELECT count(*) > 0 FROM tenancy.audit_seals", &["t"]);
    shop.dba.sees(STRAYS, &["0"]);
    // A step by itself, in a transaction that would not see what it waited for.
    let lock = "SELECT tenancy_internal.lock_audit('{}', 'SHARE', 1)";
    shop.dba.refused("55000", &format!("BEGIN ISOLATION LEVEL SERIALIZABLE; {lock}"));
    shop.dba.run("ROLLBACK");
    admin.refused("42501", lock);

    let app = shop.db.login(&shop.app);
    shop.dba.run(&format!("GRANT USAGE ON SCHEMA tenancy, tenancy_internal TO {}", shop.app));
    for call in [
        "CALL tenancy.maintain_audit()",
        "CALL tenancy.seal_audit()",
        "SELECT tenancy.verify_audit()",
        "SELECT tenancy.set_audit_retention('1 day')",
        "SELECT tenancy_internal.begin_audit_step('maintain')",
        "SELECT tenancy_internal.stage_audit_step(1)",
        "SELECT tenancy_internal.copy_audit_step(1, 0)",
        "SELECT tenancy_internal.attach_audit_step(1)",
        "SELECT tenancy_internal.drop_audit_step(1, 'audit_chunks_default')",
        "SELECT tenancy_internal.prune_audit_step(1, 'audit_chunks_default')",
        "SELECT tenancy_internal.seal_audit_step(1)",
        "SELECT tenancy_internal.end_audit_step(1)",
        "SELECT tenancy_internal.append_seal('x', now(), now(), 'sealed', '')",
        "SELECT * FROM tenancy.audit_retention",
        "SELECT * FROM tenancy.audit_maintenance",
        "SELECT * FROM tenancy.audit_seals",
        "SELECT tenancy_internal.take_audit_turn()",
        "SELECT tenancy_internal.give_audit_turn()",
        "BEGIN; LOCK TABLE tenancy.audit_maintenance IN SHARE UPDATE EXCLUSIVE MODE",
    ] {
        app.refused("42501", call);
        app.run("ROLLBACK");
    }
    shop.dba.run(&format!("SELECT tenancy.revoke_admin('{steward}')"));
    admin.refused("42501", "CALL tenancy.maintain_audit()");
}

#[test]
fn only_the_session_at_work_on_a_run_takes_its_steps() {
    let shop = Shop::open();
    shop.past(Some("red"), 40);
    let steward = shop.db.role("steward", "");
    shop.dba.run(&format!("SELECT tenancy.grant_admin('{steward}')"));
    let (worker, other) = (shop.db.login(&steward), shop.db.login(&steward));
    let run = worker.value("SELECT tenancy_internal.begin_audit_step('maintain')");
    for run in [&*run, "0"] {
        for step in [
            "stage_audit_step({run})",
            "copy_audit_step({run}, 0)",
            "catch_up_audit_step({run})",
            "attach_audit_step({run})",
            "drop_audit_step({run}, 'audit_chunks_default')",
            "prune_audit_step({run}, 'audit_chunks_default')",
            "seal_audit_step({run})",
            "end_audit_step({run})",
        ] {
            other.refused("55000", &format!("SELECT tenancy_internal.{}", step.replace("{run}", run)));
        }
    }
    worker.refused("55000", "SELECT tenancy_internal.stage_audit_step(0)");
    // Its turn has gone with that, and with it its run.
    worker.refused("55000", &format!("SELECT tenancy_internal.end_audit_step({run})"));
    other.run("CALL tenancy.maintain_audit()");
}
