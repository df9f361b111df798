//! One call does all that is due, and a scheduler can make it.

use std::{
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use pg_tenancy_tests::{Cluster, Shutdown, TenantSession};

use crate::{crash::wait, soft_delete::Desk};

const RUNS: &str =
    "SELECT part, state FROM tenancy.maintenance_runs WHERE run = (SELECT max(run) FROM tenancy.maintenance_runs)";

const ALL_DONE: [&str; 5] =
    ["audit log|done", "retention|done", "deleted rows|done", "deleted tenants|done", "statistics|done"];

#[test]
fn what_fails_is_told_and_keeps_nothing_else_from_being_done() {
    let desk = Desk::on(&Cluster::shared());
    let (db, dba, red) = (&desk.db, &desk.dba, red(&desk));
    let role = db.role("admin", "");
    dba.run(&format!("SELECT tenancy.grant_admin('{role}')"));
    let admin = db.login(&role);
    dba.run(
        "CREATE TABLE events (id int, tenant_id uuid NOT NULL, at timestamptz);
         SELECT tenancy.protect_table('events'); SELECT tenancy.set_retention('events', 'at', '1 day');
         INSERT INTO events SELECT 1, id, '2020-01-01' FROM tenancy.tenants",
    );
    // Else autovacuum, which comes by once a minute, may have made the statistics that are to be due.
    let alone = |tables: &[&str]| {
        for table in tables {
            dba.run(&format!("ALTER TABLE {table} SET (autovacuum_enabled = off)"));
        }
    };
    alone(&["events", "notes", "comments"]);
    red.run("INSERT INTO notes (id) VALUES (1), (2)");
    red.changes(1, "DELETE FROM notes WHERE id = 1");
    dba.run("SELECT tenancy.create_tenant('held'), tenancy.create_tenant('gone'), tenancy.delete_tenant('held'), tenancy.delete_tenant('gone')");
    dba.run("SELECT tenancy.set_legal_hold('held', 'case 9')");
    dba.run("SET tenancy.deletion_grace = 0");
    let due = "SELECT part, subject FROM tenancy.maintenance_due() WHERE is_due AND subject <> current_database() ORDER BY 1, 2";
    dba.sees(
        due,
        &[
            "audit log|partitions",
            "deleted rows|public.notes",
            "deleted tenants|gone",
            "retention|public.events",
            "statistics|public.comments",
            "statistics|public.events",
            "statistics|public.notes",
        ],
    );
    dba.sees("SELECT detail LIKE '%held: case 9' FROM tenancy.maintenance_due() WHERE subject = 'held'", &["t"]);
    dba.run("CALL tenancy.maintain()");
    dba.sees(RUNS, &ALL_DONE);
    dba.sees(due, &[]);
    dba.sees("SELECT (SELECT count(*) FROM events), (SELECT string_agg(id::text, ' ') FROM notes)", &["0|2"]);
    dba.sees("SELECT tenant_code FROM tenancy.purge_certificates", &["gone"]);
    dba.sees("SELECT kind, state FROM tenancy.jobs WHERE kind = 'maintenance'", &["maintenance|done"]);

    // Every part is in somebody's way, or fails; each says so, and gives back what it held.
    dba.run(
        "SELECT tenancy.create_tenant('late'), tenancy.delete_tenant('late');
         CREATE TABLE stray (id int, tenant_id uuid); ALTER TABLE events RENAME at TO happened;
         CREATE TABLE parted (id int, tenant_id uuid NOT NULL) PARTITION BY RANGE (id);
         CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (9999);
         CREATE TABLE broken (id int, tenant_id uuid NOT NULL); CREATE TABLE locked (id int, tenant_id uuid NOT NULL);
         CREATE TABLE sound (id int, tenant_id uuid NOT NULL);
         CREATE TABLE hollow (id int, tenant_id uuid NOT NULL) PARTITION BY RANGE (id); SELECT tenancy.protect_table('hollow');
         SELECT tenancy.protect_table('parted'), tenancy.protect_table('broken'), tenancy.protect_table('locked'), tenancy.protect_table('sound');
         CREATE FUNCTION trip(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
         BEGIN IF current_setting('desk.trip', true) = 'on' THEN RAISE EXCEPTION 'tripped'; END IF; RETURN $1; END $$;
         CREATE INDEX ON broken (trip(id))",
    );
    alone(&["parted_1", "broken", "locked", "sound"]);
    for table in ["parted", "broken", "locked", "sound"] {
        dba.run(&format!(
            "INSERT INTO {table} SELECT n, tenancy.find_tenant('red') FROM generate_series(1, 1000) AS n"
        ));
    }
    dba.run("SET desk.trip = on; SELECT pg_stat_force_next_flush()");
    let other = db.admin();
    other.run(
        "SELECT tenancy_internal.begin_audit_step('seal'); SELECT tenancy_internal.begin_expiry_step('cleanup');
         BEGIN; LOCK locked",
    );
    dba.notices();
    dba.run("CALL tenancy.maintain()");
    dba.sees(
        RUNS,
        &["audit log|failed", "retention|failed", "deleted rows|failed", "deleted tenants|failed", "statistics|failed"],
    );
    assert_eq!(dba.notices().iter().filter(|notice| notice.message().starts_with("maintenance: ")).count(), 5);
    let failures = dba.rows("SELECT failure FROM tenancy.maintenance_runs WHERE state = 'failed' ORDER BY started_at");
    for (failure, part) in failures.iter().zip([
        "another session",
        "column r.at does not exist",
        "under way",
        "late: tables stand in the way",
        "public.broken: tripped; public.locked: another session has it locked",
    ]) {
        assert!(failure.contains(part), "{failure}");
    }
    dba.sees(
        "SELECT DISTINCT starelid::regclass::text, stainherit FROM pg_statistic
          WHERE starelid::regclass::text IN ('parted', 'parted_1', 'broken', 'locked', 'sound') ORDER BY 1",
        &["parted|t", "parted_1|f", "sound|f"],
    );
    let stale = "SELECT subject, detail FROM tenancy.maintenance_due() WHERE part = 'statistics' ORDER BY 1";
    dba.sees(stale, &["public.broken|it has no statistics", "public.locked|it has no statistics"]);
    drop(other);
    dba.run("ALTER TABLE events RENAME happened TO at; DROP TABLE stray; RESET desk.trip");
    // Old are the statistics of what has changed by as much as autovacuum allows.
    dba.run("ANALYZE broken, locked; INSERT INTO sound SELECT n, tenancy.find_tenant('red') FROM generate_series(1, 149) AS n");
    dba.run("INSERT INTO parted SELECT n, tenancy.find_tenant('red') FROM generate_series(1, 200) AS n; SELECT pg_stat_force_next_flush()");
    const CHANGED: &str = "about 200 rows of 1000 have changed since its statistics were made";
    dba.sees(stale, &[&format!("public.parted|{CHANGED}"), &format!("public.parted_1|{CHANGED}")]);
    // The whole has statistics of its own, which nobody makes for a partition's sake.
    dba.run("ANALYZE parted_1");
    dba.sees(stale, &["public.parted|about 200 rows of 1200 have changed since its statistics were made"]);
    dba.run("ALTER TABLE sound SET (autovacuum_analyze_threshold = 10)");
    dba.sees(
        "SELECT subject FROM tenancy.maintenance_due() WHERE part = 'statistics' AND subject = 'public.sound'",
        &["public.sound"],
    );

    // One run at a time; no other waits for it.
    let other = db.admin();
    other.run("SELECT tenancy_internal.begin_maintenance_step()");
    admin.refused("55006", "CALL tenancy.maintain()");
    drop(other);
    // The lock goes with the session, which takes a moment to end.
    let until = Instant::now() + Duration::from_secs(20);
    while admin.try_run("CALL tenancy.maintain()").is_err() {
        assert!(Instant::now() < until, "the turn is never given back");
        thread::sleep(Duration::from_millis(10));
    }
    admin.sees(RUNS, &ALL_DONE);
    dba.sees(stale, &[]);
    // A run whose time is over has begun, and leaves the rest to the next.
    admin.run("CALL tenancy.maintain(max_seconds => 0)");
    admin.sees(RUNS, &["audit log|stopped"]);
    admin.run("CALL tenancy.maintain()");
    admin.refused("25001", "BEGIN; CALL tenancy.maintain()");
    admin.run("ROLLBACK");
    db.login(&desk.app).refused("42501", "CALL tenancy.maintain()");
    let told = dba.value("SELECT tenancy.schedule_maintenance('0 3 * * *')");
    assert!(told.contains(&format!("psql --dbname='{}' --command=\"CALL tenancy.maintain()\"", db.name())), "{told}");
}

fn red(desk: &Desk) -> TenantSession {
    desk.db.enter(&desk.app, &desk.red)
}

/// One server for what needs the libraries loaded at its start: the fence stands, and pg_cron runs.
#[test]
fn behind_the_fence_rows_are_kept_and_pg_cron_calls() {
    let settings = [("shared_preload_libraries", "pg_tenancy"), ("tenancy.strictness", "strict")];
    let cluster = Cluster::start(&settings);
    let desk = Desk::on(&cluster);
    let (dba, red) = (&desk.dba, red(&desk));
    red.run("INSERT INTO notes (id) VALUES (1), (2); INSERT INTO comments (id, note) VALUES (1, 1)");
    red.changes(1, "DELETE FROM notes WHERE id = 1");
    let fresh = desk.db.login(&desk.app);
    fresh.run(&format!("BEGIN; SET LOCAL app.current_tenant_id = '{}'", desk.red.code));
    fresh.changes(1, "DELETE FROM notes WHERE id = 2");
    fresh.run("COMMIT");
    red.run("MERGE INTO notes n USING (VALUES (2)) AS v(id) ON n.id = v.id WHEN MATCHED THEN DELETE");
    dba.sees("SELECT count(*) FROM notes WHERE deleted_at IS NOT NULL", &["2"]);
    dba.run("SET tenancy.deletion_grace = 0");
    dba.run("CALL tenancy.purge_deleted()");
    dba.sees("SELECT id FROM notes", &["1"]);

    kill_retention(&desk, &[60, 700, 1500]);
    let dba = desk.db.admin();

    if dba.value("SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_cron')") == "f" {
        println!("SKIPPED: this server has no pg_cron");
        return;
    }
    cluster.configure(&[
        ("shared_preload_libraries", "pg_tenancy,pg_cron"),
        ("cron.database_name", desk.db.name()),
        ("cron.use_background_workers", "on"),
        ("tenancy.deletion_grace", "0"),
    ]);
    cluster.restart(Shutdown::Fast);
    let dba = desk.db.admin();
    dba.run("CREATE EXTENSION pg_cron; INSERT INTO comments SELECT 2, tenant_id, 1 FROM notes; DELETE FROM comments");
    let scheduled = dba.value("SELECT tenancy.schedule_maintenance('@reboot')");
    assert!(scheduled.starts_with("pg_cron runs job"), "{scheduled}");
    dba.run("SELECT tenancy.schedule_maintenance('@reboot')");
    dba.sees("SELECT count(*) FROM cron.job", &["1"]);
    drop(dba);
    // pg_cron's clock has minutes; a restart is what it need not wait for.
    cluster.restart(Shutdown::Fast);
    let dba = desk.db.admin();
    let until = Instant::now() + Duration::from_secs(60);
    while dba.value("SELECT count(*) FROM tenancy.maintenance_runs WHERE state <> 'running'") != "5" {
        assert!(Instant::now() < until, "{:?}", dba.rows("SELECT status, return_message FROM cron.job_run_details"));
        thread::sleep(Duration::from_millis(50));
    }
    dba.sees("SELECT part, state, failure FROM tenancy.maintenance_runs WHERE state <> 'done'", &[]);
    dba.sees("SELECT count(*) FROM notes", &["0"]);
    dba.sees("SELECT tenancy.schedule_maintenance(NULL)", &["1 jobs unscheduled"]);
}

/// Kills the backend at work when about so many more rows are gone. No row is lost on its way to the archive, or there twice.
fn kill_retention(desk: &Desk, points: &[i64]) {
    const ROWS: i64 = 4000;
    let chief = desk.db.role("chief", "SUPERUSER");
    let login = || wait(|| desk.db.try_login(&chief, |_| {}).ok());
    login().run(&format!(
        "CREATE TABLE visits (id int, tenant_id uuid NOT NULL, at timestamptz, page text);
         SELECT tenancy.protect_table('visits');
         INSERT INTO visits SELECT n, tenancy.find_tenant('red'), '2020-01-01', repeat('x', 500) FROM generate_series(1, {ROWS}) AS n;
         INSERT INTO visits SELECT 0, tenancy.find_tenant('red'), now() FROM generate_series(1, 10);
         SELECT tenancy.set_retention('visits', 'at', '1 year', action => 'archive')"
    ));
    for more in points {
        let (worker, watcher) = (login(), login());
        let archived = || watcher.value("SELECT count(*) FROM visits_archive").parse::<i64>().expect("a number");
        let before = archived();
        let pid = Pid::from_raw(worker.pid()).expect("a process");
        let run = thread::spawn(move || worker.try_run("CALL tenancy.run_retention(batch_size => 1)").is_ok());
        wait(|| (archived() >= before + more).then_some(()));
        kill_process(pid, Signal::KILL).expect("it is ours to kill");
        assert!(!run.join().expect("no panic"), "it was over before {more} rows were gone");
        // The server ends all sessions before it lets new ones in.
        wait(|| watcher.try_run("SELECT").err());
        let now = login();
        now.sees(
            "SELECT count(*), count(DISTINCT id) FILTER (WHERE id > 0), count(*) FILTER (WHERE id = 0)
               FROM (SELECT id FROM visits UNION ALL SELECT id FROM visits_archive) AS v",
            &[&format!("{}|{ROWS}|10", ROWS + 10)],
        );
        let after = now.value("SELECT count(*) FROM visits_archive").parse::<i64>().expect("a number");
        assert!(after > before && after < ROWS, "{before}, then {after} rows");
    }
    let last = login();
    last.run("CALL tenancy.run_retention()");
    last.sees("SELECT (SELECT count(*) FROM visits), (SELECT count(*) FROM visits_archive)", &[&format!("10|{ROWS}")]);
    last.run("DROP TABLE visits, visits_archive");
}
