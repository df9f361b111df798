//! What the last client of a pooled connection leaves to the next one, who is another tenant.

use std::time::Duration;

use crate::stage::{Attacker, CANARY, MINE, Stage, stories};
use pg_tenancy_tests::Session;
use postgres::fallible_iterator::FallibleIterator;

stories![
    a09_a_role_cannot_take_its_own_pin_off_where_the_fence_stands,
    a29_a_held_cursor_does_not_hand_rows_to_the_next_tenant,
    a31_a_temporary_table_does_not_hand_rows_to_the_next_tenant,
    a32_the_texts_of_prepared_statements_are_not_for_the_next_tenant,
    a33_the_last_number_of_a_sequence_is_not_for_the_next_tenant,
    a41_a_listener_left_behind_hears_nothing,
    d22_other_settings_of_the_application_are_not_for_the_next_tenant,
    d27_the_texts_of_cursors_are_not_for_the_next_tenant,
    a29_a31_with_scrub_all_of_it_works_until_the_tenant_changes,
    a_tenant_keeps_what_is_its_own_from_one_transaction_to_the_next,
];

/// A connection on which blue has done that, handed to red.
#[track_caller]
fn handed_over(stage: &Stage, deed: &str) -> Session {
    let pooled = stage.login_as(&stage.app, "blue");
    pooled.run(deed);
    pooled.run("COMMIT");
    pooled.begin_as("red");
    pooled
}

/// Each of these is refused inside a transaction of blue's that goes on.
#[track_caller]
fn refused_to_blue(stage: &Stage, deeds: &[&str]) {
    let blue = stage.login_as(&stage.app, "blue");
    for deed in deeds {
        let refusal = blue.refused_inside("42501", deed);
        assert!(refusal.hint().is_some(), "a refusal says what to do instead: {refusal:?}");
    }
    blue.sees_only_blue();
}

fn a09_a_role_cannot_take_its_own_pin_off_where_the_fence_stands(stage: &Stage) {
    for place in [String::new(), format!("IN DATABASE {}", stage.database())] {
        let alter = format!("ALTER ROLE {} {place}", stage.app);
        stage.db.admin().run(&format!("{alter} SET app.current_tenant_id = 'red'"));
        if stage.setting.has_fence() {
            for reset in ["RESET app.current_tenant_id", "RESET ALL"] {
                stage.login().refused("42501", &format!("{alter} {reset}"));
            }
            stage.login().sees_only_red();
            stage.db.admin().run(&format!("{alter} RESET app.current_tenant_id"));
        } else {
            // guc.c asks no hook about RESET: a pin that must hold without the fence is the database's.
            let session = stage.login();
            session.sees_only_red();
            session.run(&format!("{alter} RESET ALL"));
        }
        stage.login().sees_no_tenant();
    }
}

fn a29_a_held_cursor_does_not_hand_rows_to_the_next_tenant(stage: &Stage) {
    if stage.holds("A29") {
        refused_to_blue(
            stage,
            &[
                "DECLARE held CURSOR WITH HOLD FOR SELECT item FROM letters",
                "DECLARE held SCROLL CURSOR WITH HOLD FOR SELECT 1",
                "DO $$ BEGIN EXECUTE 'DECLARE held CURSOR WITH HOLD FOR SELECT item FROM letters'; END $$",
            ],
        );
    } else {
        let red = handed_over(stage, "DECLARE held CURSOR WITH HOLD FOR SELECT item FROM letters");
        red.sees("FETCH ALL FROM held", &[CANARY]);
    }
}

fn a31_a_temporary_table_does_not_hand_rows_to_the_next_tenant(stage: &Stage) {
    if stage.holds("A31") {
        refused_to_blue(
            stage,
            &[
                "CREATE TEMP TABLE left_over AS SELECT item FROM letters",
                "CREATE TEMP TABLE left_over ON COMMIT PRESERVE ROWS AS SELECT item FROM letters",
                "CREATE TABLE pg_temp.left_over AS SELECT item FROM letters",
                "SELECT item INTO TEMP left_over FROM letters",
                "SELECT item INTO pg_temp.left_over FROM letters",
                "CREATE TEMP TABLE left_over (item text)",
                "CREATE TABLE pg_temp.left_over (LIKE letters)",
                "CREATE TEMP TABLE left_over () INHERITS (letters)",
                "SET LOCAL search_path = pg_temp; CREATE TABLE left_over (item text)",
                "DO $$ BEGIN CREATE TEMP TABLE left_over AS SELECT item FROM letters; END $$",
                "PREPARE p AS SELECT item FROM letters; CREATE TEMP TABLE left_over AS EXECUTE p",
            ],
        );
    } else {
        let red = handed_over(stage, "CREATE TEMP TABLE left_over AS SELECT item FROM letters");
        red.sees("SELECT item FROM left_over", &[CANARY]);
    }
    // One that goes with its transaction works everywhere.
    let red =
        handed_over(stage, "CREATE TEMP TABLE work ON COMMIT DROP AS SELECT item FROM letters; SELECT * FROM work");
    red.refused("42P01", "SELECT item FROM work");
    red.run("ROLLBACK");
    red.begin_as("red");
    red.run("CREATE TEMP TABLE work (item text) ON COMMIT DROP; INSERT INTO work SELECT item FROM letters");
    red.sees("SELECT item FROM work", &[MINE]);
}

fn a32_the_texts_of_prepared_statements_are_not_for_the_next_tenant(stage: &Stage) {
    let red = handed_over(stage, "PREPARE wanted AS SELECT id FROM letters WHERE item = 'the takeover of Acme'");
    let texts = red.rows("SELECT statement FROM pg_prepared_statements").join("\n");
    assert_eq!(texts.contains("Acme"), !stage.holds("A32"), "{texts}");
}

fn a33_the_last_number_of_a_sequence_is_not_for_the_next_tenant(stage: &Stage) {
    stage
        .db
        .admin()
        .run(&format!("CREATE SEQUENCE numbers START 4711; GRANT USAGE ON SEQUENCE numbers TO {}", stage.app));
    let red = handed_over(stage, "SELECT nextval('numbers')");
    for last in ["SELECT lastval()", "SELECT currval('numbers')"] {
        if stage.holds("A33") {
            red.refused_inside("55000", last);
        } else {
            red.sees(last, &["4711"]);
        }
    }
    red.sees("SELECT nextval('numbers'), lastval(), currval('numbers')", &["4712|4712|4712"]);
}

/// What this connection was told, without waiting for more.
fn heard(session: &Session) -> Vec<String> {
    session.run("SELECT");
    let mut client = session.client();
    let mut notifications = client.notifications();
    let waiting = notifications.timeout_iter(Duration::from_millis(50));
    waiting.map(|told| Ok(told.payload().to_owned())).collect().expect("the connection lives")
}

fn a41_a_listener_left_behind_hears_nothing(stage: &Stage) {
    if stage.holds("A41") {
        refused_to_blue(stage, &["LISTEN jobs", "DO $$ BEGIN EXECUTE 'LISTEN jobs'; END $$"]);
    } else {
        let red = handed_over(stage, "LISTEN jobs");
        stage.db.admin().run("NOTIFY jobs, 'blue has a new customer'");
        red.run("COMMIT");
        assert_eq!(heard(&red), ["blue has a new customer"]);
    }
}

fn d22_other_settings_of_the_application_are_not_for_the_next_tenant(stage: &Stage) {
    let red = handed_over(stage, "SET app.user_email = 'boss@blue.example'; SET \"App\".Locale = 'xx'");
    for (setting, was) in [("app.user_email", "boss@blue.example"), ("app.locale", "xx")] {
        let now = red.value(&format!("SELECT coalesce(current_setting('{setting}', true), '')"));
        assert_eq!(now, if stage.holds("D22") { "" } else { was }, "{setting}");
    }
    red.run("SET app.user_email = 'me@red.example'; COMMIT");
    red.begin_as("red");
    red.sees("SHOW app.user_email", &["me@red.example"]);
}

fn d27_the_texts_of_cursors_are_not_for_the_next_tenant(stage: &Stage) {
    let declare = "DECLARE held CURSOR WITH HOLD FOR SELECT id FROM letters WHERE item = 'the takeover of Acme'";
    if stage.holds("D27") {
        refused_to_blue(stage, &[declare]);
    } else {
        let texts = handed_over(stage, declare).rows("SELECT statement FROM pg_cursors").join("\n");
        assert!(texts.contains("Acme"), "{texts}");
    }
    let red = handed_over(stage, &declare.replace(" WITH HOLD", ""));
    red.sees("SELECT statement FROM pg_cursors WHERE statement LIKE '%Acme%'", &[]);
}

fn a29_a31_with_scrub_all_of_it_works_until_the_tenant_changes(stage: &Stage) {
    stage.choose("tenancy.session_hygiene = scrub");
    let deeds = "DECLARE held CURSOR WITH HOLD FOR SELECT item FROM letters;
                 CREATE TEMP TABLE left_over AS SELECT item FROM letters;
                 PREPARE acme AS SELECT id FROM letters WHERE item = 'the takeover of Acme';
                 SET app.user_email = 'boss@blue.example'";
    let pooled = stage.login_as(&stage.app, "blue");
    pooled.run(deeds);
    if !stage.holds("A41") {
        pooled.run("LISTEN jobs");
    }
    pooled.run("COMMIT");
    pooled.begin_as("blue");
    pooled.sees("FETCH ALL FROM held", &[CANARY]);
    pooled.sees("SELECT item FROM left_over", &[CANARY]);
    pooled.run("EXECUTE acme");
    pooled.sees("SHOW app.user_email", &["boss@blue.example"]);
    pooled.run("COMMIT");
    pooled.begin_as("red");
    if stage.setting.has_fence() {
        for (state, leftover) in [
            ("42501", "FETCH ALL FROM held"),
            ("42501", "SELECT item FROM left_over"),
            ("42501", "UPDATE left_over SET item = 'x' RETURNING item"),
            ("26000", "EXECUTE acme"),
            ("34000", "FETCH ALL FROM held"),
            ("42501", "SELECT item FROM left_over"),
        ] {
            pooled.run("SAVEPOINT s");
            pooled.refused(state, leftover);
            pooled.run("ROLLBACK TO s");
        }
        pooled.sees("SELECT coalesce(current_setting('app.user_email', true), '')", &[""]);
        pooled.refused_inside("42P01", "SELECT item FROM left_over");
    } else {
        pooled.sees("SELECT item FROM left_over", &[CANARY]);
    }
    pooled.sees_only_red();
    stage.db.admin().run("NOTIFY jobs, 'blue has a new customer'");
    pooled.run("COMMIT");
    assert_eq!(heard(&pooled).is_empty(), stage.setting.has_fence());
    pooled.begin_as("blue");
    pooled.sees_only_blue();
}

fn a_tenant_keeps_what_is_its_own_from_one_transaction_to_the_next(stage: &Stage) {
    stage.db.admin().run(&format!("CREATE SEQUENCE numbers; GRANT USAGE ON SEQUENCE numbers TO {}", stage.app));
    let session = stage.as_red();
    session.run("PREPARE mine AS SELECT item FROM letters; SET app.locale = 'en'; SELECT nextval('numbers'); COMMIT");
    let drivers = session.client().prepare("SELECT item FROM letters").expect("planning needs no tenant");
    for tenant in ["red", "red"] {
        session.begin_as(tenant);
        session.sees("EXECUTE mine", &[MINE]);
        session.sees("SHOW app.locale", &["en"]);
        session.sees("SELECT lastval()", &["1"]);
        session.run("COMMIT");
    }
    // What a driver prepared on the protocol is a query without rows, and stays for every tenant.
    for (tenant, sees) in [("blue", CANARY), ("red", MINE), ("blue", CANARY)] {
        session.begin_as(tenant);
        let rows = session.client().query(&drivers, &[]).expect("a tenant is set");
        assert_eq!(rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>(), [sees]);
        session.run("COMMIT");
    }
}
