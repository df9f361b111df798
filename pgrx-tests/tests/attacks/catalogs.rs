//! THREATS (d): what plans, statistics, activity views and shared name spaces tell of other tenants.

use std::time::Duration;

use crate::stage::{Attacker, Stage, stories};
use pg_tenancy_tests::{Session, process};
use postgres::fallible_iterator::FallibleIterator;

stories![
    d07_estimates_of_a_plan_do_not_tell_what_is_common,
    d08_rows_removed_by_a_filter_do_not_count_other_tenants_rows,
    d09_the_catalog_tells_how_many_rows_a_table_has,
    d10_statistics_views_do_not_count_other_tenants_writes,
    d11_sizes_do_not_tell_how_much_others_write,
    d15_queries_of_other_sessions_are_not_shown,
    d16_statements_that_the_server_remembers_are_not_shown,
    d17_notifications_are_not_passed_between_tenants,
    d18_advisory_locks_are_not_passed_between_tenants,
    d19_names_of_other_sessions_tables_tell_nothing,
    d20_the_places_of_own_rows_tell_how_many_were_written_between,
    d25_locks_of_other_sessions_are_not_shown,
    d26_buffers_of_a_point_lookup_do_not_tell_whether_a_row_is_there,
];

/// `count` more letters of blue's, whom nobody else should be able to count.
fn blue_writes(stage: &Stage, from: i32, count: i32) {
    stage.db.admin().run(&format!(
        "INSERT INTO letters SELECT n, '{}', 'blue''s common value' FROM generate_series({from}, {}) n",
        stage.blue.id,
        from + count - 1
    ));
}

/// The number after `label` in that plan.
#[track_caller]
fn number(session: &Session, explain: &str, label: &str) -> u64 {
    let plan = session.rows(explain).join("\n");
    let (_, rest) = plan.split_once(label).unwrap_or_else(|| panic!("no \"{label}\" in {plan}"));
    rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).expect("a number follows")
}

fn d07_estimates_of_a_plan_do_not_tell_what_is_common(stage: &Stage) {
    blue_writes(stage, 100, 500);
    stage.db.admin().run(
        "INSERT INTO letters SELECT n, (SELECT id FROM tenancy.tenants WHERE code = 'red'), 'x' || n FROM generate_series(1000, 1500) n;
         ANALYZE letters",
    );
    let session = stage.as_red();
    let guess = |item: &str| format!("EXPLAIN SELECT FROM letters WHERE item = '{item}'");
    if stage.holds("D07") {
        let explain = guess("blue''s common value");
        stage.db.admin().run(&format!(
            "CREATE VIEW over_letters AS SELECT item FROM letters; GRANT SELECT ON over_letters TO {}",
            stage.app
        ));
        session.run("PREPARE p AS SELECT item FROM letters");
        for explain in [
            explain.as_str(),
            "EXPLAIN (FORMAT json) SELECT FROM letters",
            "EXPLAIN EXECUTE p",
            "EXPLAIN UPDATE letters SET item = 'x'",
            "EXPLAIN DELETE FROM letters",
            "EXPLAIN INSERT INTO letters (id, item) SELECT 9, item FROM letters",
            "EXPLAIN CREATE TABLE t AS SELECT item FROM letters",
            "EXPLAIN DECLARE c CURSOR FOR SELECT item FROM letters",
            "EXPLAIN SELECT FROM naive WHERE EXISTS (SELECT FROM letters)",
            "EXPLAIN WITH l AS MATERIALIZED (SELECT item FROM letters) SELECT item FROM l",
            "EXPLAIN SELECT item FROM over_letters",
            "DO $$ BEGIN EXECUTE 'EXPLAIN SELECT FROM letters'; END $$",
        ] {
            assert!(session.refused_inside("42501", explain).hint().is_some());
        }
        session.run("EXPLAIN SELECT item FROM naive; EXPLAIN SELECT 1");
        stage.db.admin().run(&explain);
    } else {
        let common = number(&session, &guess("blue''s common value"), " rows=");
        let rare = number(&session, &guess("nothing like this"), " rows=");
        assert!(common > 10 * rare, "{common} {rare}");
    }
}

fn d08_rows_removed_by_a_filter_do_not_count_other_tenants_rows(stage: &Stage) {
    blue_writes(stage, 100, 7);
    stage.db.admin().run(
        "INSERT INTO letters SELECT n, (SELECT id FROM tenancy.tenants WHERE code = 'red'), 'x' || n FROM generate_series(1000, 2000) n;
         CREATE INDEX ON letters (item); ANALYZE letters",
    );
    let session = stage.as_red();
    let explain =
        "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT FROM letters WHERE item = 'blue''s common value'";
    if stage.holds("D08") {
        session.refused_inside("42501", explain);
        session.refused_inside("42501", "EXPLAIN (ANALYZE, VERBOSE, FORMAT yaml) SELECT item FROM letters");
        session.refused_inside("42501", "EXPLAIN ANALYZE UPDATE letters SET item = item");
    } else {
        session.run("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off");
        assert_eq!(number(&session, explain, "Rows Removed by Filter: "), 7);
    }
}

fn d09_the_catalog_tells_how_many_rows_a_table_has(stage: &Stage) {
    blue_writes(stage, 100, 498);
    stage.db.admin().run("ANALYZE letters");
    let session = stage.as_red();
    session.holds_or_sees(stage.holds("D09"), "SELECT reltuples FROM pg_class WHERE relname = 'letters'", &["500"]);
}

/// D10, D15, D16 and D25 are held in every setting, from the moment when a superuser locks the catalogs down for the role.
#[track_caller]
fn held_once_locked_down(stage: &Stage, holds: &str, sql: &str, is_leak: impl Fn(&[String]) -> bool) {
    let session = stage.as_red();
    let limit = Duration::from_secs(10);
    // Statistics reach the views after a while; a transaction goes on seeing what it saw first.
    let seen = process::wait_for("the leak", limit, || {
        session.run("ROLLBACK");
        session.begin_as("red");
        Ok(Some(session.rows(sql)).filter(|rows| is_leak(rows)))
    });
    assert!(seen.is_ok(), "without the lock {sql} was to leak");
    stage.db.admin().run(&format!("SELECT tenancy.lock_down_catalogs('{}')", stage.app));
    if stage.holds(holds) {
        // In the next transaction of an open session as in a new one.
        for session in [session, stage.login()] {
            session.run("ROLLBACK");
            session.begin_as("red");
            let seen = session.try_rows(sql);
            assert!(seen.as_ref().map_or(true, |rows| !is_leak(rows)), "{sql}: {seen:?}");
        }
    }
}

fn d10_statistics_views_do_not_count_other_tenants_writes(stage: &Stage) {
    blue_writes(stage, 100, 4711);
    for sql in [
        "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'letters'",
        "SELECT pg_stat_get_tuples_inserted('letters'::regclass)",
    ] {
        held_once_locked_down(stage, "D10", sql, |rows| rows.iter().any(|row| row.starts_with("471")));
        stage.db.admin().run(&format!("SELECT tenancy.unlock_catalogs('{}')", stage.app));
    }
}

fn d15_queries_of_other_sessions_are_not_shown(stage: &Stage) {
    let blue = stage.login_as(&stage.app, "blue");
    blue.run("SELECT 'the takeover of Acme' FROM letters");
    let sql = "SELECT query FROM pg_stat_activity WHERE query LIKE '%takeover%' AND pid <> pg_backend_pid()";
    held_once_locked_down(stage, "D15", sql, |rows| !rows.is_empty());
    let sql = sql.replace("pg_stat_activity", "pg_stat_get_activity(NULL)");
    let seen = stage.as_red().try_rows(&sql);
    assert!(seen.as_ref().map_or(true, Vec::is_empty), "{seen:?}");
    // One's own queries are there.
    stage.as_red().sees("SELECT count(*) FROM tenancy.stat_activity WHERE pid = pg_backend_pid()", &["1"]);
}

fn d16_statements_that_the_server_remembers_are_not_shown(stage: &Stage) {
    if !stage.setting.cluster().server().has_library("pg_stat_statements") {
        return; // the wheels' servers come without contrib modules
    }
    stage.db.admin().run("CREATE EXTENSION pg_stat_statements");
    let blue = stage.login_as(&stage.app, "blue");
    blue.run("SET app.memo = 'the takeover of Acme'; COMMIT");
    let sql = "SELECT query FROM pg_stat_statements WHERE query LIKE '%takeover of Acme%' AND query LIKE 'SET%'";
    held_once_locked_down(stage, "D16", sql, |rows| !rows.is_empty());
    let seen = stage.as_red().try_rows("SELECT query FROM pg_stat_statements(true) WHERE query LIKE '%Acme%'");
    assert!(seen.as_ref().map_or(true, Vec::is_empty), "{seen:?}");
}

fn d25_locks_of_other_sessions_are_not_shown(stage: &Stage) {
    let blue = stage.login_as(&stage.app, "blue");
    blue.run("UPDATE letters SET item = item");
    let sql = "SELECT DISTINCT relation::regclass FROM pg_locks
                WHERE pid <> pg_backend_pid() AND relation = 'letters'::regclass";
    held_once_locked_down(stage, "D25", sql, |rows| !rows.is_empty());
}

fn d11_sizes_do_not_tell_how_much_others_write(stage: &Stage) {
    let session = stage.as_red();
    for size in [
        "pg_relation_size('letters')",
        "pg_table_size('letters')",
        "pg_total_relation_size('letters')",
        "pg_indexes_size('letters')",
    ] {
        if stage.holds("D11") {
            assert!(session.refused_inside("42501", &format!("SELECT {size}")).hint().is_some());
            continue;
        }
        let before: i64 = session.value(&format!("SELECT {size}")).parse().expect("a size");
        let next: i32 = stage.db.admin().value("SELECT max(id) FROM letters").parse().expect("an id");
        blue_writes(stage, next + 1, 2000);
        let after: i64 = session.value(&format!("SELECT {size}")).parse().expect("a size");
        assert!(after > before, "{size} went from {before} to {after}");
    }
    if stage.holds("D11") {
        session.refused_inside(
            "42501",
            "SELECT sum(pg_relation_size(oid, 'main')) FROM pg_class WHERE relname ~ 'letters'",
        );
        session.refused_inside("42501", "SELECT pg_database_size(current_database())");
        session.refused_inside("42501", "SELECT pg_tablespace_size('pg_default')");
    }
}

fn d17_notifications_are_not_passed_between_tenants(stage: &Stage) {
    let notify = ["NOTIFY jobs, 'blue has a customer'", "SELECT pg_notify('jobs', 'blue has a customer')"];
    if stage.holds("D17") {
        let session = stage.as_red();
        for sql in notify.into_iter().chain(["LISTEN jobs", "DO $$ BEGIN PERFORM pg_notify('jobs', 'x'); END $$"]) {
            assert!(session.refused_inside("42501", sql).hint().is_some());
        }
        session.run("UNLISTEN *");
        stage.db.admin().run("LISTEN jobs; NOTIFY jobs");
        return;
    }
    let red = stage.login();
    red.run("LISTEN jobs");
    let blue = stage.login_as(&stage.app, "blue");
    for sql in notify {
        blue.run(sql);
    }
    blue.run("COMMIT");
    red.run("SELECT");
    let mut client = red.client();
    let told = client.notifications().timeout_iter(Duration::from_millis(200)).next().expect("the connection lives");
    assert_eq!(told.map(|told| told.payload().to_owned()).as_deref(), Some("blue has a customer"));
}

fn d18_advisory_locks_are_not_passed_between_tenants(stage: &Stage) {
    if stage.holds("D18") {
        let session = stage.as_red();
        for call in [
            "pg_advisory_lock(42)",
            "pg_advisory_xact_lock(42)",
            "pg_try_advisory_lock(42)",
            "pg_try_advisory_xact_lock(42, 1)",
            "pg_advisory_lock_shared(42)",
            "pg_try_advisory_xact_lock_shared(42)",
            "pg_advisory_unlock(42)",
            "pg_advisory_unlock_all()",
        ] {
            assert!(session.refused_inside("42501", &format!("SELECT {call}")).hint().is_some());
        }
        stage.db.admin().run("SELECT pg_advisory_xact_lock(42)");
    } else {
        let blue = stage.login_as(&stage.app, "blue");
        blue.run("SELECT pg_advisory_xact_lock(42)");
        stage.as_red().sees("SELECT pg_try_advisory_xact_lock(42)", &["f"]);
    }
}

fn d19_names_of_other_sessions_tables_tell_nothing(stage: &Stage) {
    let names = "SELECT relname FROM pg_class WHERE relname LIKE 'merger%'";
    let blue = stage.login_as(&stage.app, "blue");
    if stage.holds("D19") {
        blue.refused_inside("42501", "CREATE TEMP TABLE merger_with_acme AS SELECT item FROM letters");
        // What goes with its transaction is never seen by another one.
        blue.run("CREATE TEMP TABLE merger_with_acme ON COMMIT DROP AS SELECT item FROM letters");
        stage.as_red().sees(names, &[]);
    } else {
        blue.run("CREATE TEMP TABLE merger_with_acme AS SELECT item FROM letters; COMMIT");
        let red = stage.as_red();
        red.sees(names, &["merger_with_acme"]);
        let schema = red.value("SELECT relnamespace::regnamespace FROM pg_class WHERE relname LIKE 'merger%'");
        red.refused("42501", &format!("SELECT item FROM {schema}.merger_with_acme"));
    }
}

fn d20_the_places_of_own_rows_tell_how_many_were_written_between(stage: &Stage) {
    let session = stage.as_red();
    session.run("INSERT INTO letters (id, item) VALUES (10, 'before'); COMMIT");
    blue_writes(stage, 100, 5);
    session.begin_as("red");
    session.run("INSERT INTO letters (id, item) VALUES (11, 'after')");
    let places =
        "SELECT string_agg(split_part(trim(ctid::text, '()'), ',', 2), ' ' ORDER BY id) FROM letters WHERE id > 9";
    session.holds_or_sees(stage.holds("D20"), places, &["3 9"]);
}

fn d26_buffers_of_a_point_lookup_do_not_tell_whether_a_row_is_there(stage: &Stage) {
    let session = stage.as_red();
    let lookup = |id: i32| {
        format!("EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT FROM letters WHERE id = {id}")
    };
    if stage.holds("D26") {
        session.refused_inside("42501", &lookup(2));
        session.refused_inside("42501", &lookup(999));
    } else {
        session.run("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off");
        session.run("SELECT FROM letters WHERE id = 2; SELECT FROM letters WHERE id = 999");
        let hits = |id| number(&session, &lookup(id), "hit=");
        let (_, there, absent) = (hits(2), hits(2), hits(999));
        assert!(there > absent, "{there} {absent}");
    }
}
