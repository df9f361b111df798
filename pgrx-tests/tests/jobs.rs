//! Long work as other sessions see it.

use pg_tenancy_tests::{Db, Session};

/// Begins a job in a session and commits; gives its id.
fn begin(session: &Session, subject: &str) -> String {
    session.value(&format!("SELECT tenancy_internal.begin_job('purge', '{subject}', 'deleting', 10)"))
}

const STATES: &str = "SELECT subject, done, state FROM tenancy.jobs ORDER BY id";

#[test]
fn a_task_is_one_sessions_and_all_can_see_how_far_it_is() {
    let db = Db::new();
    let (first, second) = (db.admin(), db.admin());
    let steward = db.role("steward", "");
    second.run(&format!("SELECT tenancy.grant_admin('{steward}')"));
    let steward = db.login(&steward);

    let job = begin(&first, "red");
    first.run(&format!("SELECT tenancy_internal.tell_job({job}, 'deleting', 4)"));
    steward.sees(STATES, &["red|4|running"]);
    steward.sees(&format!("SELECT pid = {}, rate > 0, eta > told_at FROM tenancy.jobs", first.pid()), &["t|t|t"]);
    // Another one waits for nothing, and disturbs nothing; a task of another name is free.
    let refused = second.refused("55006", "SELECT tenancy_internal.begin_job('purge', 'red', 'deleting')");
    assert!(refused.hint().is_some_and(|hint| hint.contains("tenancy.jobs")), "{refused:?}");
    let other = begin(&second, "blue");
    second.run(&format!("SELECT tenancy_internal.end_job({other})"));
    steward.sees(STATES, &["red|4|running", "blue|0|done"]);

    // An error of its session ends it, whatever it was.
    first.refused("22012", "SELECT 1 / 0");
    first.run("SELECT"); // The error is told before its transaction has ended.
    steward.sees(STATES, &["red|4|interrupted", "blue|0|done"]);
    let job = begin(&second, "red");
    steward.sees(STATES, &["red|4|interrupted", "blue|0|done", "red|0|running"]);
    // One that is given back is free, and one that is handled is not lost.
    second.run("DO $$ BEGIN PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN NULL; END $$");
    first.refused("55006", "SELECT tenancy_internal.begin_job('purge', 'red', 'deleting')");
    second.run(&format!("SELECT tenancy_internal.end_job({job}, 'stopped')"));
    let job = begin(&first, "red");

    // So does its end.
    let pid = first.pid();
    second.run(&format!("SELECT pg_terminate_backend({pid}, 10000)"));
    steward.sees(&format!("SELECT state FROM tenancy.jobs WHERE id = {job}"), &["interrupted"]);
    begin(&second, "red");
}

#[test]
fn nobody_takes_a_turn_without_the_right_to_the_task() {
    let db = Db::new();
    let app = db.application("app");
    db.admin().run(&format!("GRANT USAGE ON SCHEMA tenancy, tenancy_internal TO {app}"));
    let app = db.login(&app);
    for sql in [
        "SELECT * FROM tenancy.jobs",
        "SELECT * FROM tenancy_internal.jobs",
        "SELECT tenancy_internal.begin_job('purge', 'red', 'deleting')",
        "SELECT tenancy_internal.tell_job(1, 'deleting', 4)",
        "SELECT tenancy_internal.end_job(1)",
        "SELECT tenancy_internal.take_turn('purge', 'red')",
        "SELECT tenancy_internal.give_turn('purge', 'red')",
        "SELECT tenancy_internal.has_turn('purge', 'red')",
    ] {
        app.refused("42501", sql);
    }
}
