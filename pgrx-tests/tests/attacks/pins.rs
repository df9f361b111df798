//! What an administrator fixed for a connection, a database or a tenant, and who tries to get out of it.

use crate::stage::{Attacker, CANARY, MINE, Setting, Stage, stories};

stories![
    also with session preload;
    a_pinned_database_holds_before_and_after_the_library_loads,
    a_pinned_role_keeps_its_tenant_in_the_connection,
    a_pin_survives_what_ends_other_tenants,
    a_pin_of_the_database_cannot_be_taken_off_by_the_role,
    an_administrator_may_leave_a_pin_on_purpose,
    a_pin_to_an_unknown_tenant_closes_the_connection_to_all_tenants,
    a_pin_that_names_nobody_opens_nothing,
    with_session_lifetime_one_transaction_still_has_one_tenant,
    with_missing_context_empty_there_are_no_rows_rather_than_foreign_ones,
    a_read_only_tenant_writes_by_no_command,
    a_suspended_tenant_is_shut_out_of_its_open_session,
];

impl Stage {
    fn pin(&self, tenant: &str) {
        self.admin_in_database(&format!("SET app.current_tenant_id = '{tenant}'"));
    }

    fn admin_in_database(&self, change: &str) {
        self.db.admin().run(&format!("ALTER DATABASE {} {change}", self.database()));
    }
}

fn a_pinned_database_holds_before_and_after_the_library_loads(stage: &Stage) {
    stage.pin("red");
    let other = ["SET LOCAL app.current_tenant_id = 'blue'", "SELECT tenancy.set_tenant('blue')"];
    for attack in other {
        // The very first statements of a connection.
        let session = stage.login();
        session.run("BEGIN");
        session.refused("42501", &format!("{attack}; SELECT item FROM letters"));
        session.run("ROLLBACK");
        session.sees_only_red();
        session.run("BEGIN");
        session.refused_inside("42501", attack);
        session.sees_only_red();
    }
    let session = stage.login();
    session.run("SET app.current_tenant_id = 'red'; SELECT tenancy.set_tenant('red')");
    session.sees_only_red();
}

fn a_pinned_role_keeps_its_tenant_in_the_connection(stage: &Stage) {
    stage.db.admin().run(&format!("ALTER ROLE {} SET app.current_tenant_id = 'red'", stage.app));
    let session = stage.login();
    session.sees_only_red();
    session.refused("42501", "SET app.current_tenant_id = 'blue'");
    session.run("BEGIN");
    session.refused_inside("42501", "SELECT tenancy.set_tenant('blue')");
    session.changes(1, "INSERT INTO letters (id, item) VALUES (3, 'own')");
    session.run("ROLLBACK");
    session.refused("42501", &format!("ALTER ROLE {} SET app.current_tenant_id = 'blue'", stage.app));
}

fn a_pin_survives_what_ends_other_tenants(stage: &Stage) {
    stage.pin("red");
    let session = stage.login();
    for end in ["BEGIN; COMMIT", "BEGIN; ROLLBACK", "RESET app.current_tenant_id", "RESET ALL"] {
        session.run(end);
        session.sees_only_red();
        session.refused("42501", "SET app.current_tenant_id = 'blue'");
    }
    session.run("DISCARD ALL");
    session.sees_only_red();
    // Without a tenant for a while, but never with another.
    session.run("SET app.current_tenant_id = ''");
    session.refused("55000", "SELECT item FROM letters");
    session.refused("42501", "SET app.current_tenant_id = 'blue'");
    session.run("RESET app.current_tenant_id");
    session.sees_only_red();
}

fn a_pin_of_the_database_cannot_be_taken_off_by_the_role(stage: &Stage) {
    stage.pin("red");
    let session = stage.login();
    session.sees_only_red();
    for value in ["= ''", "= 'blue'", "FROM CURRENT"] {
        session.refused("42501", &format!("ALTER ROLE {} SET app.current_tenant_id {value}", stage.app));
    }
    for reset in ["RESET app.current_tenant_id", "RESET ALL"] {
        let reset = format!("ALTER ROLE {} {reset}", stage.app);
        if stage.setting.has_fence() {
            session.refused("42501", &reset);
        } else {
            session.run(&reset);
        }
    }
    session.refused("42501", &format!("ALTER DATABASE {} RESET app.current_tenant_id", stage.database()));
    let session = stage.login();
    session.sees_only_red();
    session.refused("42501", "SET app.current_tenant_id = 'blue'");
    // Nor by the startup packet, which comes after what is stored.
    for value in ["", "blue"] {
        if let Ok(session) = stage.login_with(&format!("-c app.current_tenant_id={value}")) {
            assert_ne!(session.try_rows("SELECT item FROM letters").unwrap_or_default(), [CANARY]);
            session.run("BEGIN");
            session.refused("42501", "SET LOCAL app.current_tenant_id = 'blue'; SELECT item FROM letters");
        }
    }
}

fn an_administrator_may_leave_a_pin_on_purpose(stage: &Stage) {
    stage.pin("red");
    let admin = stage.db.admin();
    admin.sees("SELECT tenancy.current_tenant_code()", &["red"]);
    admin.run("BEGIN; SELECT tenancy.switch_tenant('blue')");
    admin.sees("SELECT tenancy.current_tenant_code()", &["blue"]);
    admin.run("COMMIT");
    admin.sees("SELECT tenancy.current_tenant_code()", &["red"]);
}

fn a_pin_to_an_unknown_tenant_closes_the_connection_to_all_tenants(stage: &Stage) {
    stage.pin("nobody");
    let session = stage.login();
    session.refused("42704", "SELECT item FROM letters");
    session.refused("42501", "SET app.current_tenant_id = 'blue'");
}

/// Stored by an administrator whose session did not know the setting, and hence took anything.
fn a_pin_that_names_nobody_opens_nothing(stage: &Stage) {
    for typo in [" red", "red\t", "99999999999999999999"] {
        let stored = stage
            .db
            .admin()
            .try_run(&format!("ALTER DATABASE {} SET app.current_tenant_id = '{typo}'", stage.database()));
        if stored.is_err() {
            assert_ne!(
                stage.setting,
                Setting::FirstUse,
                "an administrator's session was to know nothing of the setting"
            );
            continue;
        }
        let session = stage.login();
        for attack in
            ["SELECT item FROM letters", "BEGIN; SET LOCAL app.current_tenant_id = 'blue'; SELECT item FROM letters"]
        {
            assert!(session.try_rows(attack).is_err(), "the pin {typo:?} left the connection open: {attack}");
            session.run("ROLLBACK");
        }
        assert!(
            session.try_run("SELECT tenancy.set_tenant('blue')").is_err(),
            "the pin {typo:?} left the connection open"
        );
    }
}

fn with_session_lifetime_one_transaction_still_has_one_tenant(stage: &Stage) {
    stage.admin_in_database("SET tenancy.context_lifetime = 'session'");
    let session = stage.login();
    session.run("SELECT tenancy.set_tenant('red')");
    session.sees_only_red();
    session.run("BEGIN");
    session.sees_only_red();
    session.refused_inside("42501", "SELECT tenancy.set_tenant('blue')");
    session.refused_inside("42501", "SET LOCAL app.current_tenant_id = 'blue'");
    session.refused_inside(
        "42501",
        "SELECT item FROM letters WHERE set_config('app.current_tenant_id', 'blue', true) > ''",
    );
    session.run("COMMIT");
    session.sees_only_red();
    session.run("SELECT tenancy.set_tenant('blue')");
    session.sees_only_blue();
    // DISCARD ALL, as poolers send it, ends it.
    session.run("DISCARD ALL");
    session.sees_no_tenant();
    session.refused("42501", "SET tenancy.context_lifetime = 'transaction'");
}

fn with_missing_context_empty_there_are_no_rows_rather_than_foreign_ones(stage: &Stage) {
    stage.admin_in_database("SET tenancy.missing_context = 'empty'");
    let session = stage.login();
    session.sees("SELECT item FROM letters", &[]);
    session.changes(0, "UPDATE letters SET item = 'x'");
    session.changes(0, "DELETE FROM letters");
    session.sees("SELECT count(*) FROM letters WHERE tenant_id IS NOT NULL OR true", &["0"]);
    session.refused("42501", &format!("INSERT INTO letters VALUES (3, '{}', 'forged')", stage.blue.id));
    session.refused("42501", "INSERT INTO letters (id, item) VALUES (3, 'of nobody')");
    session.sees("SELECT tenancy.current_tenant_id()", &["NULL"]);
    session.run("SET app.current_tenant_id = 'blue'");
    session.sees("SELECT item FROM letters", &[]);
    session.begin_as("red");
    session.sees_only_red();
    session.refused_inside("42501", "SELECT tenancy.set_tenant('blue')");
    session.run("COMMIT");
    session.sees("SELECT item FROM letters", &[]);
    // A tenant that is named but not in service is no missing context.
    session.run("BEGIN; SET LOCAL app.current_tenant_id = 'nobody'");
    session.refused("42704", "SELECT item FROM letters");
}

fn a_read_only_tenant_writes_by_no_command(stage: &Stage) {
    let admin = stage.db.admin();
    admin.run("SELECT tenancy.set_read_only('red', 'the bill is open')");
    let session = stage.as_red();
    session.sees_only_red();
    let major = stage.db.cluster().major();
    let mut writes = vec![
        "INSERT INTO letters (id, item) VALUES (3, 'x')",
        "INSERT INTO letters (id, item) SELECT 3, 'x'",
        "INSERT INTO letters (id, item) VALUES (1, 'x') ON CONFLICT DO NOTHING",
        "INSERT INTO letters (id, item) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET item = 'x'",
        "UPDATE letters SET item = 'x'",
        "UPDATE letters SET item = 'x' FROM (VALUES (1)) v(id) WHERE v.id = letters.id",
        "DELETE FROM letters",
        "DELETE FROM letters USING (VALUES (1)) v(id) WHERE v.id = letters.id",
        "WITH gone AS (DELETE FROM letters RETURNING 1) SELECT count(*) FROM gone",
    ];
    if major >= 15 {
        writes.extend([
            "MERGE INTO letters l USING (VALUES (1)) v(id) ON l.id = v.id WHEN MATCHED THEN UPDATE SET item = 'x'",
            "MERGE INTO letters l USING (VALUES (1)) v(id) ON l.id = v.id WHEN MATCHED THEN DELETE",
            "MERGE INTO letters l USING (VALUES (3)) v(id) ON l.id = v.id WHEN NOT MATCHED THEN INSERT (id, item) VALUES (3, 'x')",
        ]);
    }
    for write in writes {
        let refusal = session.refused_inside("55000", write);
        assert!(refusal.message().contains("read-only"), "{refusal:?}");
        assert!(refusal.detail().is_some_and(|detail| detail.contains("the bill is open")), "{refusal:?}");
    }
    session.refused_inside("0A000", "COPY letters FROM STDIN");
    session.sees("SELECT item FROM letters FOR SHARE", &[MINE]);
    session.run("COMMIT");
    admin.run("SELECT tenancy.resume_tenant('red')");
    session.begin_as("red");
    session.changes(1, "DELETE FROM letters");
}

fn a_suspended_tenant_is_shut_out_of_its_open_session(stage: &Stage) {
    let admin = stage.db.admin();
    for (close, reopen) in
        [("suspend_tenant('red', 'abuse')", "resume_tenant"), ("delete_tenant('red', 'abuse')", "undelete_tenant")]
    {
        let session = stage.login();
        session.run("PREPARE letters AS SELECT item FROM letters");
        session.begin_as("red");
        session.sees("EXECUTE letters", &[MINE]);
        admin.run(&format!("SELECT tenancy.{close}"));
        session.run("COMMIT");
        for set in ["SELECT tenancy.set_tenant('red')", "SET LOCAL app.current_tenant_id = 'red'; EXECUTE letters"] {
            session.run("BEGIN");
            let refusal = session.refused("55000", set);
            assert!(refusal.detail().is_some_and(|detail| detail.contains("abuse")), "{refusal:?}");
            session.run("ROLLBACK");
        }
        admin.run(&format!("SELECT tenancy.{reopen}('red')"));
        session.begin_as("red");
        session.sees("EXECUTE letters", &[MINE]);
        session.run("COMMIT");
    }
}
