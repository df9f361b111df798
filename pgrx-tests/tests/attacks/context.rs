//! THREATS (a): the tenant of a transaction.

use crate::stage::{Attacker, CANARY, MINE, Setting, Stage, stories};
use pg_tenancy_tests::{Cluster, Session};

stories![
    also with session preload;
    a01_set_for_the_session_cannot_change_the_tenant,
    a02_set_local_cannot_change_the_tenant,
    a03_set_config_cannot_change_the_tenant,
    a04_set_config_in_where_cannot_flip_the_tenant,
    a07_dynamic_sql_cannot_change_the_tenant,
    a08_a_function_of_ones_own_cannot_carry_a_tenant,
    a09_a_role_cannot_store_a_tenant_for_itself,
    a10_a_database_owner_cannot_store_a_tenant_for_everybody,
    a11_startup_options_are_no_context,
    a12_a_tenant_set_for_the_session_does_not_reach_the_next_client,
    a13_set_local_outside_a_transaction_brings_nothing_back,
    a14_rollback_does_not_bring_the_previous_tenant_back,
    a15_rollback_to_savepoint_does_not_bring_another_tenant_back,
    a17_a_fresh_connection_sees_nothing,
    a18_after_its_transaction_a_tenant_is_gone,
    a19_reset_and_discard_leave_no_tenant_and_no_way_to_another,
    a20_malformed_values_never_widen_the_view,
    a21_case_and_quotes_of_the_name_make_no_difference,
    a23_one_message_with_several_statements_is_one_transaction,
    a26_a_policy_frozen_into_a_plan_cannot_show_another_tenant,
    a27_a_generic_plan_follows_the_tenant,
    a28_a_plpgsql_plan_follows_the_tenant,
    a34_parallel_workers_see_the_leaders_tenant_and_no_stale_one,
    a35_a_chained_transaction_has_no_tenant,
    a36_a_prepared_transaction_leaves_no_tenant_behind,
    a38_a_trigger_cannot_follow_the_row_to_another_tenant,
    a39_commit_publishes_no_tenant,
    a_tenant_set_in_the_same_transaction_before_the_library_loads_is_adopted,
    a_tenant_set_in_an_earlier_transaction_before_the_library_loads_is_stale,
    the_extensions_own_settings_are_not_for_applications,
    an_exception_block_cannot_hide_the_change,
    clearing_first_does_not_free_the_transaction,
    the_tenant_cannot_be_changed_through_pg_settings,
    the_stamp_of_a_transaction_cannot_be_forged,
    a_released_savepoint_keeps_the_tenant_and_the_seal,
    a_cursor_keeps_its_tenant_and_nobody_elses,
    a_held_cursor_cannot_outlive_a_cleared_tenant,
    a_procedure_has_no_tenant_after_its_commit,
    all_three_keys_of_a_tenant_are_one_tenant,
    g07_what_is_deferred_runs_as_the_tenant_whose_it_is,
    switching_is_not_for_applications,
    a_rollback_after_a_switch_leaves_no_tenant_in_force,
    a_failed_set_leaves_the_tenant_as_it_was,
    an_unknown_tenant_seals_the_transaction_too,
    the_tenant_cannot_be_set_by_alter_system,
];

/// Shows on `naive` that the attack works, then that it is refused and changes nothing. `SETTING` stands for the name.
#[track_caller]
fn cannot_become_blue(stage: &Stage, attack: &str) {
    let session = stage.login();
    session.run("BEGIN; SET LOCAL naive.tenant = 'red'");
    session.run(&attack.replace("SETTING", "naive.tenant"));
    session.sees("SELECT item FROM naive", &[CANARY]);
    session.run("ROLLBACK; RESET naive.tenant");

    session.begin_as("red");
    session.refused_inside("42501", &attack.replace("SETTING", "app.current_tenant_id"));
    session.sees_only_red();
    session.changes(0, "UPDATE letters SET item = 'taken' WHERE id = 2");
    session.run("COMMIT");
}

fn a01_set_for_the_session_cannot_change_the_tenant(stage: &Stage) {
    cannot_become_blue(stage, "SET SETTING = 'blue'");
}

fn a02_set_local_cannot_change_the_tenant(stage: &Stage) {
    cannot_become_blue(stage, "SET LOCAL SETTING TO 'blue'");
    // Used before it was set a second time: the same when the tenant came by SET LOCAL.
    let session = stage.login();
    session.run("BEGIN; SET LOCAL app.current_tenant_id = 'red'");
    session.sees_only_red();
    session.refused("42501", "SET LOCAL app.current_tenant_id = 'blue'");
}

fn a03_set_config_cannot_change_the_tenant(stage: &Stage) {
    for local in ["true", "false"] {
        cannot_become_blue(stage, &format!("SELECT set_config('SETTING', 'blue', {local})"));
    }
}

fn a04_set_config_in_where_cannot_flip_the_tenant(stage: &Stage) {
    let session = stage.login();
    session.run("BEGIN; SET LOCAL naive.tenant = 'red'");
    session.sees("SELECT item FROM naive WHERE set_config('naive.tenant', 'blue', true) IS NOT NULL", &[CANARY]);
    session.run("ROLLBACK");

    session.begin_as("red");
    for flip in [
        "SELECT item FROM letters WHERE set_config('app.current_tenant_id', 'blue', true) IS NOT NULL",
        "SELECT item FROM letters WHERE tenancy.set_tenant('blue') IS NOT NULL",
        "SELECT (SELECT set_config('app.current_tenant_id', 'blue', true)), item FROM letters",
        "SELECT item FROM letters ORDER BY set_config('app.current_tenant_id', 'blue', true)",
        "SELECT item FROM (SELECT set_config('app.current_tenant_id', 'blue', true) OFFSET 0) AS first, letters",
        "WITH first AS MATERIALIZED (SELECT set_config('app.current_tenant_id', 'blue', true)) SELECT item FROM first, letters",
        "UPDATE letters SET item = set_config('app.current_tenant_id', 'blue', true)",
        "INSERT INTO letters (id, item) VALUES (3, set_config('app.current_tenant_id', 'blue', true))",
        "DELETE FROM letters WHERE set_config('app.current_tenant_id', 'blue', true) = 'blue'",
    ] {
        session.refused_inside("42501", flip);
    }
    // Through '' and back: neither does this reach another tenant, nor any row after the tenant was cleared.
    session.refused_inside(
        "42501",
        "SELECT item FROM letters WHERE set_config('app.current_tenant_id', '', true) = ''
                                    AND set_config('app.current_tenant_id', 'blue', true) = 'blue'",
    );
    session.sees_only_red();
}

fn a07_dynamic_sql_cannot_change_the_tenant(stage: &Stage) {
    cannot_become_blue(stage, "DO $$ BEGIN EXECUTE 'SET LOCAL SETTING = ''blue'''; END $$");
}

fn a08_a_function_of_ones_own_cannot_carry_a_tenant(stage: &Stage) {
    let session = stage.login();
    for tenant in ["'blue'", "''"] {
        session.refused("42501", &carrier(&format!("SET app.current_tenant_id = {tenant}")));
    }
    session.begin_as("blue");
    session.run(&carrier(""));
    session.refused("42501", "ALTER FUNCTION carrier() SET app.current_tenant_id FROM CURRENT");
    session.run("ROLLBACK");
    // An administrator may, and red's transaction stays red's all the same.
    stage.db.admin().run(&carrier("SET app.current_tenant_id = 'blue'"));
    session.begin_as("red");
    session.refused_inside("42501", "SELECT carrier()");
    session.sees_only_red();
    session.run("COMMIT");
    session.sees("SELECT carrier()", &[CANARY]);
    session.sees_no_tenant();
}

fn carrier(clause: &str) -> String {
    format!("CREATE FUNCTION carrier() RETURNS SETOF text LANGUAGE sql {clause} AS 'SELECT item FROM public.letters'")
}

fn a09_a_role_cannot_store_a_tenant_for_itself(stage: &Stage) {
    let session = stage.as_red();
    for value in ["= 'blue'", "FROM CURRENT", "= ''"] {
        for place in [String::new(), format!("IN DATABASE {}", stage.database())] {
            session.refused_inside(
                "42501",
                &format!("ALTER ROLE {} {place} SET app.current_tenant_id {value}", stage.app),
            );
        }
    }
    // The same before anything of ours ran in the connection.
    let fresh = stage.login();
    fresh.refused("42501", &format!("ALTER ROLE {} SET app.current_tenant_id = 'blue'", stage.app));
    stage.login().sees_no_tenant();
}

fn a10_a_database_owner_cannot_store_a_tenant_for_everybody(stage: &Stage) {
    let database = stage.database();
    stage.db.admin().run(&format!("ALTER DATABASE {database} OWNER TO {}", stage.app));
    let owner = stage.login();
    let store = format!("ALTER DATABASE {database} SET app.current_tenant_id = 'blue'");
    owner.refused("42501", &store);
    owner.begin_as("red");
    owner.refused("42501", &store);
    stage.login().sees_no_tenant();
    stage.db.admin().run(&format!("ALTER DATABASE {database} OWNER TO CURRENT_USER"));
}

fn a11_startup_options_are_no_context(stage: &Stage) {
    stage
        .login_with("-c naive.tenant=blue")
        .expect("a setting nobody defines is taken")
        .sees("SELECT item FROM naive", &[CANARY]);
    match (stage.setting, stage.login_with("-c app.current_tenant_id=blue")) {
        (Setting::Shared | Setting::Strict, connection) => {
            let refusal = connection.expect_err("the connection was to be refused");
            assert_eq!(refusal.code().map(|code| code.code()), Some("42501"), "{refusal}");
        }
        // The library comes after the startup packet; whatever it hid there, such a connection serves nobody.
        (_, connection) => {
            let session = connection.expect("PostgreSQL takes what it does not know");
            session.refused("42501", "SELECT item FROM letters");
            session.refused("42501", "BEGIN; SET LOCAL app.current_tenant_id = 'red'; SELECT item FROM letters");
            session.run("ROLLBACK");
            session.refused("42501", "SELECT tenancy.set_tenant('red')");
        }
    }
}

fn a12_a_tenant_set_for_the_session_does_not_reach_the_next_client(stage: &Stage) {
    let pooled = stage.login();
    pooled.run("SET naive.tenant = 'blue'");
    pooled.sees("SELECT item FROM naive", &[CANARY]);

    pooled.run("BEGIN; SET app.current_tenant_id = 'blue'");
    pooled.sees_only_blue();
    pooled.run("COMMIT");
    let refusal = pooled.refused("55000", "SELECT item FROM letters");
    assert!(refusal.message().contains("earlier transaction"), "{refusal:?}");
    assert!(refusal.hint().is_some_and(|hint| hint.contains("BEGIN")), "{refusal:?}");
    pooled.begin_as("red");
    pooled.sees_only_red();
    pooled.run("COMMIT");
    pooled.sees_no_tenant();
}

fn a13_set_local_outside_a_transaction_brings_nothing_back(stage: &Stage) {
    let pooled = stage.login();
    pooled.run("SET app.current_tenant_id = 'blue'");
    // Each a transaction of its own, as a driver in autocommit mode sends them.
    pooled.run("SET LOCAL app.current_tenant_id = 'red'");
    pooled.sees_no_tenant();
}

fn a14_rollback_does_not_bring_the_previous_tenant_back(stage: &Stage) {
    let pooled = stage.login();
    pooled.run("SET app.current_tenant_id = 'blue'");
    pooled.run("BEGIN; SET app.current_tenant_id = 'red'");
    pooled.sees_only_red();
    pooled.run("ROLLBACK");
    pooled.sees_no_tenant();
}

fn a15_rollback_to_savepoint_does_not_bring_another_tenant_back(stage: &Stage) {
    let session = stage.login();
    session.run("BEGIN; SET LOCAL naive.tenant = 'blue'; SAVEPOINT s; SET LOCAL naive.tenant = 'red'; ROLLBACK TO s");
    session.sees("SELECT item FROM naive", &[CANARY]);
    session.run("ROLLBACK");
    // A value of an earlier transaction below the savepoint.
    session.run("SET app.current_tenant_id = 'blue'");
    session.run("BEGIN; SAVEPOINT s; SET LOCAL app.current_tenant_id = 'red'");
    session.sees_only_red();
    session.run("ROLLBACK TO s");
    session.refused("55000", "SELECT item FROM letters");
    // The tenant went with the savepoint, what it had bound did not.
    session.run("ROLLBACK TO s");
    session.refused("42501", "SELECT tenancy.set_tenant('blue')");
    session.run("ROLLBACK TO s; SELECT tenancy.set_tenant('red')");
    session.sees_only_red();
}

fn a17_a_fresh_connection_sees_nothing(stage: &Stage) {
    let session = stage.login();
    for sql in [
        "SELECT item FROM letters",
        "SELECT count(*) FROM letters",
        "UPDATE letters SET item = 'x'",
        "DELETE FROM letters",
        "INSERT INTO letters (id, item) VALUES (3, 'x')",
        "TABLE letters LIMIT 0",
        "COPY letters TO STDOUT",
        "COPY (SELECT item FROM letters) TO STDOUT",
        "SELECT FROM letters FOR UPDATE",
        "EXPLAIN ANALYZE SELECT item FROM letters",
    ] {
        let refusal = session.refused("55000", sql);
        assert!(refusal.hint().is_some_and(|hint| hint.contains("tenancy.set_tenant")), "{refusal:?}");
    }
}

fn a18_after_its_transaction_a_tenant_is_gone(stage: &Stage) {
    for set in [
        "SET LOCAL app.current_tenant_id = 'red'",
        "SELECT set_config('app.current_tenant_id', 'red', true)",
        "SELECT tenancy.set_tenant('red')",
    ] {
        for end in ["COMMIT", "ROLLBACK"] {
            let session = stage.login();
            session.run(&format!("BEGIN; {set}"));
            session.sees_only_red();
            session.run(end);
            session.sees("SELECT current_setting('app.current_tenant_id', true)", &[""]);
            session.sees("SELECT tenancy.has_tenant()", &["f"]);
            session.sees_no_tenant();
        }
    }
}

fn a19_reset_and_discard_leave_no_tenant_and_no_way_to_another(stage: &Stage) {
    let session = stage.login();
    for reset in ["RESET app.current_tenant_id", "RESET ALL", "SET LOCAL app.current_tenant_id TO DEFAULT"] {
        session.begin_as("red");
        session.run(reset);
        session.refused_inside("55000", "SELECT item FROM letters");
        session.refused_inside("42501", "SELECT tenancy.set_tenant('blue')");
        session.run("SELECT tenancy.set_tenant('red')");
        session.sees_only_red();
        session.run("COMMIT");
    }
    session.run("SET app.current_tenant_id = 'blue'");
    session.run("DISCARD ALL");
    session.sees_no_tenant();
}

fn a20_malformed_values_never_widen_the_view(stage: &Stage) {
    let session = stage.login();
    session.begin_as("red"); // loads the library
    session.run("ROLLBACK");
    for value in ["", "%", "*", "red,blue", "red OR true", "x' OR '1'='1", "RED", "NULL", "default", "0", "-1", "42.0"]
    {
        session.run("BEGIN");
        session.query("SELECT set_config('app.current_tenant_id', $1, true)", &[&value]);
        let wanted = if value.is_empty() { "55000" } else { "42704" };
        session.refused(wanted, "SELECT item FROM letters");
        session.run("ROLLBACK");
    }
    let long = "x".repeat(101);
    for value in [" red", "red ", "red\n", "r\ted", "\u{1f}", "blue\u{1f}1", &long, "99999999999999999999"] {
        session.run("BEGIN");
        let refusal = session
            .try_query("SELECT set_config('app.current_tenant_id', $1, true)", &[&value])
            .expect_err("a malformed value was to be refused");
        assert_eq!(refusal.code().map(|code| code.code()), Some("22023"), "{value:?}: {refusal}");
        session.run("ROLLBACK");
        session.refused("22023", &format!("SELECT tenancy.set_tenant({})", pg_tenancy_tests::quote_literal(value)));
    }
    for nothing in ["NULL", "''"] {
        session.refused("22023", &format!("SELECT tenancy.set_tenant({nothing})"));
    }
    session.refused("42704", "SELECT tenancy.set_tenant('%')");
}

fn a21_case_and_quotes_of_the_name_make_no_difference(stage: &Stage) {
    for name in ["\"APP\".\"Current_Tenant_ID\"", "APP.CURRENT_TENANT_ID"] {
        cannot_become_blue_by(stage, &format!("SET LOCAL {name} = 'blue'"));
    }
    cannot_become_blue_by(stage, "SELECT set_config('App.Current_Tenant_Id', 'blue', true)");
    // Named so before the library knows the setting.
    let session = stage.login();
    session.run("SET \"APP\".\"Current_Tenant_ID\" = 'blue'");
    session.sees_no_tenant();
}

#[track_caller]
fn cannot_become_blue_by(stage: &Stage, sql: &str) {
    let session = stage.as_red();
    session.refused_inside("42501", sql);
    session.sees_only_red();
}

fn a23_one_message_with_several_statements_is_one_transaction(stage: &Stage) {
    let session = stage.login();
    session.refused(
        "42501",
        "SELECT tenancy.set_tenant('red'); SET app.current_tenant_id = 'blue'; SELECT item FROM letters",
    );
    session.sees_no_tenant();
    session.sees("SET LOCAL app.current_tenant_id = 'red'; SELECT item FROM letters", &[MINE]);
    session.sees_no_tenant();
}

fn a26_a_policy_frozen_into_a_plan_cannot_show_another_tenant(stage: &Stage) {
    stage.choose("tenancy.session_hygiene = off");
    stage.db.admin().run(
        "CREATE FUNCTION frozen_naive() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT current_setting('naive.tenant') $$;
         CREATE FUNCTION frozen() RETURNS uuid LANGUAGE sql IMMUTABLE AS 'SELECT tenancy.current_tenant_id()';
         ALTER POLICY naive ON naive USING (tenant = frozen_naive());
         CREATE POLICY frozen ON letters USING (tenant_id = frozen())",
    );
    let session = stage.login();
    session.run("SET plan_cache_mode = force_generic_plan; PREPARE naive AS SELECT item FROM naive");
    for tenant in ["blue", "red"] {
        session.run(&format!("BEGIN; SET LOCAL naive.tenant = '{tenant}'"));
        session.sees("EXECUTE naive", &[CANARY]);
        session.run("COMMIT");
    }
    session.run("PREPARE letters AS SELECT item FROM letters");
    session.begin_as("blue");
    session.sees("EXECUTE letters", &[CANARY]);
    session.run("COMMIT");
    session.begin_as("red");
    assert!(session.rows("EXECUTE letters").iter().all(|item| item == MINE));
}

fn a27_a_generic_plan_follows_the_tenant(stage: &Stage) {
    stage.choose("tenancy.session_hygiene = off");
    let session = stage.login();
    for mode in ["force_generic_plan", "force_custom_plan", "auto"] {
        session.run(&format!("SET plan_cache_mode = {mode}"));
        session.begin_as("blue");
        session.run(
            "PREPARE all_letters AS SELECT item FROM letters; PREPARE one AS SELECT item FROM letters WHERE id = $1",
        );
        session.run("COMMIT");
        for _ in 0..7 {
            for (tenant, sees) in [("blue", CANARY), ("red", MINE)] {
                session.begin_as(tenant);
                session.sees("EXECUTE all_letters", &[sees]);
                session.sees("EXECUTE one(2)", if tenant == "blue" { &[CANARY] } else { &[] });
                session.run("COMMIT");
            }
        }
        session.refused("55000", "EXECUTE all_letters");
        session.run("DEALLOCATE ALL");
    }
    // On the protocol, as drivers prepare.
    let statement = session.client().prepare("SELECT item FROM letters").expect("planning needs no tenant yet");
    for (tenant, sees) in [("blue", CANARY), ("red", MINE), ("blue", CANARY)] {
        session.begin_as(tenant);
        let rows = session.client().query(&statement, &[]).expect("a tenant is set");
        assert_eq!(rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>(), [sees]);
        session.run("COMMIT");
    }
    assert!(session.client().query(&statement, &[]).is_err(), "no tenant is set any more");
}

fn a28_a_plpgsql_plan_follows_the_tenant(stage: &Stage) {
    let session = stage.login();
    session.run(
        "CREATE FUNCTION read_all() RETURNS text LANGUAGE plpgsql AS
             $$ BEGIN RETURN (SELECT string_agg(item, ',') FROM letters); END $$;
         CREATE FUNCTION whoami() RETURNS text LANGUAGE plpgsql STABLE AS
             $$ DECLARE who text := tenancy.current_tenant_code(); BEGIN RETURN who; END $$;
         CREATE FUNCTION inlined() RETURNS SETOF text LANGUAGE sql STABLE AS 'SELECT item FROM letters';
         SET plan_cache_mode = force_generic_plan",
    );
    for _ in 0..4 {
        for (tenant, sees) in [("blue", CANARY), ("red", MINE)] {
            session.begin_as(tenant);
            session.sees("SELECT read_all()", &[sees]);
            session.sees("SELECT whoami()", &[tenant]);
            session.sees("SELECT * FROM inlined()", &[sees]);
            session.run("COMMIT");
        }
        for call in ["read_all()", "whoami()", "inlined()"] {
            session.refused("55000", &format!("SELECT {call}"));
        }
    }
}

fn a34_parallel_workers_see_the_leaders_tenant_and_no_stale_one(stage: &Stage) {
    let session = stage.login();
    session.run(&everything_in_workers(&session));
    for set in ["SET LOCAL app.current_tenant_id = 'red'", "SELECT tenancy.set_tenant('red')"] {
        let fresh = stage.login();
        fresh.run(&everything_in_workers(&fresh));
        for session in [&session, &fresh] {
            session.run(&format!("BEGIN; {set}"));
            session.sees_only_red();
            session.sees("SELECT tenancy.current_tenant_code()", &["red"]);
            session.run("COMMIT");
        }
    }
    session.run("SET app.current_tenant_id = 'blue'");
    session.sees_no_tenant();
    session.refused("55000", "SELECT tenancy.current_tenant_code()");
}

/// The setting that runs what it can in parallel workers has another name since PostgreSQL 16.
fn everything_in_workers(session: &Session) -> String {
    let force = session.value(
        "SELECT CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'force_parallel_mode'
                     ELSE 'debug_parallel_query' END",
    );
    format!("SET {force} = on; SET parallel_leader_participation = off")
}

fn a35_a_chained_transaction_has_no_tenant(stage: &Stage) {
    let session = stage.login();
    for end in ["COMMIT AND CHAIN", "ROLLBACK AND CHAIN"] {
        for set in ["SELECT tenancy.set_tenant('red')", "SET app.current_tenant_id = 'red'"] {
            session.run(&format!("BEGIN; {set}"));
            session.run(end);
            session.refused("55000", "SELECT item FROM letters");
            session.run("ROLLBACK");
        }
    }
}

fn a36_a_prepared_transaction_leaves_no_tenant_behind(stage: &Stage) {
    // Names of prepared transactions are the server's.
    let name = pg_tenancy_tests::quote_literal(stage.db.name());
    for set in ["SELECT tenancy.set_tenant('red')", "SET app.current_tenant_id = 'red'"] {
        let session = stage.login();
        session.run(&format!("BEGIN; {set}; INSERT INTO letters (id, item) VALUES (3, 'prepared')"));
        session.run(&format!("PREPARE TRANSACTION {name}"));
        session.sees_no_tenant();
        session.run(&format!("ROLLBACK PREPARED {name}"));
    }
}

fn a38_a_trigger_cannot_follow_the_row_to_another_tenant(stage: &Stage) {
    stage.db.admin().run(&format!(
        "CREATE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM set_config('app.current_tenant_id', NEW.tenant_id::text, true); RETURN NEW; END $$;
         CREATE TRIGGER follow BEFORE INSERT ON letters FOR EACH ROW EXECUTE FUNCTION follow();
         GRANT EXECUTE ON FUNCTION follow() TO {}",
        stage.app
    ));
    let session = stage.as_red();
    session.refused_inside("42501", &format!("INSERT INTO letters VALUES (3, '{}', 'forged')", stage.blue.id));
    session.changes(1, "INSERT INTO letters (id, item) VALUES (3, 'own')");
}

fn a39_commit_publishes_no_tenant(stage: &Stage) {
    let session = stage.login();
    session.run("BEGIN; SET app.current_tenant_id = 'blue'");
    session.sees_only_blue();
    session.refused_inside("42501", "SET LOCAL app.current_tenant_id = 'red'");
    session.run("COMMIT");
    session.sees_no_tenant();
    // And below a tenant of this transaction that SET LOCAL took.
    session.begin_as("red");
    session.sees_only_red();
    session.run("COMMIT");
    session.sees_no_tenant();
}

fn a_tenant_set_in_the_same_transaction_before_the_library_loads_is_adopted(stage: &Stage) {
    for set in [
        "SET LOCAL app.current_tenant_id = 'red'",
        "SET app.current_tenant_id = 'red'",
        "SELECT set_config('app.current_tenant_id', 'red', true)",
        "SAVEPOINT s; SET LOCAL app.current_tenant_id = 'red'; RELEASE s",
        "SAVEPOINT s; SET LOCAL app.current_tenant_id = 'blue'; ROLLBACK TO s; SET LOCAL app.current_tenant_id = 'red'",
    ] {
        let session = stage.login();
        session.run("BEGIN");
        // Where the library is there already, the rolled-back tenant has bound the transaction.
        if set.contains("ROLLBACK TO") && stage.setting != Setting::FirstUse {
            session.refused("42501", set);
            continue;
        }
        session.run(set);
        session.sees_only_red();
        session.refused_inside("42501", "SET LOCAL app.current_tenant_id = 'blue'");
        session.sees_only_red();
        session.run("COMMIT");
        session.sees_no_tenant();
    }
    // What is no tenant's name is dropped, with a warning, and the transaction has none.
    let session = stage.login();
    if stage.setting == Setting::FirstUse {
        session.run("BEGIN; SET LOCAL app.current_tenant_id = ' red'");
        session.sees_no_tenant();
        assert!(session.notices().iter().any(|notice| notice.message().contains("cannot name a tenant")));
    }
}

fn a_tenant_set_in_an_earlier_transaction_before_the_library_loads_is_stale(stage: &Stage) {
    for open in [
        "",
        "BEGIN;",
        "BEGIN; SAVEPOINT s;",
        "BEGIN; SAVEPOINT s; SET LOCAL app.current_tenant_id = 'red'; ROLLBACK TO s;",
    ] {
        let session = stage.login();
        session.run("SET app.current_tenant_id = 'blue'");
        if !open.is_empty() {
            session.run(open);
        }
        let refusal = session.refused("55000", "SELECT item FROM letters");
        assert!(refusal.message().contains("earlier transaction"), "{open} {refusal:?}");
        session.run("ROLLBACK");
        session.begin_as("red");
        session.sees_only_red();
    }
}

fn the_extensions_own_settings_are_not_for_applications(stage: &Stage) {
    let settings = ["tenancy.context_lifetime = 'session'", "tenancy.missing_context = 'empty'"];
    // Before the library knows them PostgreSQL takes anything; it must not count.
    let fresh = stage.login();
    for setting in settings {
        match stage.setting {
            Setting::FirstUse => fresh.run(&format!("SET {setting}")),
            _ => drop(fresh.refused("42501", &format!("SET {setting}"))),
        }
    }
    fresh.run("SET app.current_tenant_id = 'blue'");
    fresh.sees_no_tenant();

    let session = stage.as_red();
    for setting in settings {
        session.refused_inside("42501", &format!("SET LOCAL {setting}"));
        session.refused_inside("42501", &format!("ALTER ROLE {} SET {setting}", stage.app));
        session.refused_inside("42501", &format!("ALTER FUNCTION tenancy.has_tenant() SET {setting}"));
        session.refused_inside(
            "42501",
            &format!("CREATE FUNCTION mine() RETURNS int LANGUAGE sql SET {setting} AS 'SELECT 1'"),
        );
    }
    session
        .refused_inside("42501", "UPDATE pg_settings SET setting = 'session' WHERE name = 'tenancy.context_lifetime'");
}

fn an_exception_block_cannot_hide_the_change(stage: &Stage) {
    let session = stage.as_red();
    session.run(
        "DO $$ BEGIN
             BEGIN PERFORM set_config('app.current_tenant_id', 'blue', true); EXCEPTION WHEN OTHERS THEN NULL; END;
             BEGIN PERFORM tenancy.set_tenant('blue'); EXCEPTION WHEN OTHERS THEN NULL; END;
             BEGIN PERFORM tenancy.clear_tenant(); RAISE 'back'; EXCEPTION WHEN OTHERS THEN NULL; END;
         END $$",
    );
    session.sees_only_red();
    session.run("COMMIT");
    // A tenant set in a block that failed has bound the transaction, though it is not in force any more.
    session.run(
        "BEGIN; DO $$ BEGIN BEGIN PERFORM tenancy.set_tenant('red'); RAISE 'back'; EXCEPTION WHEN OTHERS THEN NULL; END; END $$",
    );
    session.refused_inside("55000", "SELECT item FROM letters");
    session.refused_inside("42501", "SELECT tenancy.set_tenant('blue')");
    session.run("SELECT tenancy.set_tenant('red')");
    session.sees_only_red();
}

fn clearing_first_does_not_free_the_transaction(stage: &Stage) {
    let session = stage.login();
    for clear in
        ["SELECT tenancy.clear_tenant()", "SET LOCAL app.current_tenant_id = ''", "SET app.current_tenant_id = ''"]
    {
        session.begin_as("red");
        session.run(clear);
        session.refused_inside("55000", "SELECT item FROM letters");
        for attack in ["SET LOCAL app.current_tenant_id = 'blue'", "SELECT tenancy.set_tenant('blue')"] {
            session.refused_inside("42501", attack);
        }
        session.run("COMMIT");
    }
}

fn the_tenant_cannot_be_changed_through_pg_settings(stage: &Stage) {
    let session = stage.as_red();
    session.changes(0, "UPDATE pg_settings SET setting = 'blue' WHERE name = 'app.current_tenant_id'");
    session.sees("SELECT name FROM pg_settings WHERE name = 'app.current_tenant_id'", &[]);
    session.sees_only_red();
}

fn the_stamp_of_a_transaction_cannot_be_forged(stage: &Stage) {
    let session = stage.login();
    session.begin_as("red");
    session.run("COMMIT");
    for stamp in 0..40 {
        session.refused(
            "22023",
            &format!("SELECT set_config('app.current_tenant_id', 'blue' || chr(31) || {stamp}, true)"),
        );
    }
    // Before the library checks: neither adopted nor handed to a worker.
    let fresh = stage.login();
    fresh.run(&everything_in_workers(&fresh));
    fresh.run("BEGIN");
    let forged = fresh.try_run("SELECT set_config('app.current_tenant_id', 'blue' || chr(31) || '3', true)");
    assert_eq!(forged.is_ok(), stage.setting == Setting::FirstUse);
    if forged.is_ok() {
        fresh.refused("55000", "SELECT item FROM letters");
    }
}

fn a_released_savepoint_keeps_the_tenant_and_the_seal(stage: &Stage) {
    let session = stage.login();
    session.run("BEGIN; SAVEPOINT s; SELECT tenancy.set_tenant('red'); RELEASE s");
    session.sees_only_red();
    session.refused_inside("42501", "SELECT tenancy.set_tenant('blue')");
    session.run("SAVEPOINT t; SELECT tenancy.clear_tenant(); ROLLBACK TO t");
    session.sees_only_red();
}

fn a_cursor_keeps_its_tenant_and_nobody_elses(stage: &Stage) {
    stage.choose("tenancy.session_hygiene = off");
    let session = stage.as_red();
    session.run("DECLARE mine CURSOR FOR SELECT item FROM letters");
    session.refused_inside("42501", "SELECT tenancy.set_tenant('blue')");
    session.sees("FETCH ALL FROM mine", &[MINE]);
    session.run("DECLARE held CURSOR WITH HOLD FOR SELECT item FROM letters; COMMIT");
    // Rows that were fetched stay what they are; nothing new is read through the cursor.
    session.begin_as("blue");
    session.run("UPDATE letters SET item = 'changed'");
    session.sees("FETCH ALL FROM held", &[MINE]);
    session.run("CLOSE held");
    session.sees("SELECT item FROM letters", &["changed"]);
}

fn a_held_cursor_cannot_outlive_a_cleared_tenant(stage: &Stage) {
    stage.choose("tenancy.session_hygiene = off");
    let session = stage.as_red();
    session.run("DECLARE held CURSOR WITH HOLD FOR SELECT item FROM letters; SELECT tenancy.clear_tenant()");
    session.refused("55000", "COMMIT");
    session.refused("34000", "FETCH ALL FROM held");
}

fn a_procedure_has_no_tenant_after_its_commit(stage: &Stage) {
    let session = stage.login();
    session.run(
        "CREATE PROCEDURE one_after_another(VARIADIC tenants text[]) LANGUAGE plpgsql AS $$
         DECLARE who text;
         BEGIN
             FOREACH who IN ARRAY tenants LOOP
                 PERFORM tenancy.set_tenant(who);
                 RAISE NOTICE '%', (SELECT string_agg(item, ',') FROM letters);
                 COMMIT;
             END LOOP;
         END $$;
         CREATE PROCEDURE one_too_many() LANGUAGE plpgsql AS $$
         BEGIN
             PERFORM tenancy.set_tenant('red');
             PERFORM item FROM letters;
             COMMIT;
             PERFORM item FROM letters;
         END $$",
    );
    session.run("CALL one_after_another('red', 'blue', 'red')");
    let seen: Vec<String> = session.notices().iter().map(|notice| notice.message().to_owned()).collect();
    assert_eq!(seen, [MINE, CANARY, MINE]);
    session.refused("55000", "CALL one_too_many()");
    session.sees_no_tenant();
}

fn all_three_keys_of_a_tenant_are_one_tenant(stage: &Stage) {
    let session = stage.as_red();
    let id = stage.red.id.to_string();
    let keys = [
        stage.red.number.to_string(),
        format!("+{}", stage.red.number),
        format!("00{}", stage.red.number),
        id.to_uppercase(),
        id.replace('-', ""),
        format!("{{{id}}}"),
        id,
        "red".to_owned(),
    ];
    for key in &keys {
        session.query("SELECT set_config('app.current_tenant_id', $1, true)", &[key]);
        session.sees_only_red();
        session.query("SELECT tenancy.set_tenant($1)", &[key]);
        session.sees_only_red();
    }
    for key in [stage.blue.number.to_string(), stage.blue.id.to_string()] {
        session.refused_inside("42501", &format!("SET LOCAL app.current_tenant_id = '{key}'"));
    }
    session.sees_only_red();
}

fn switching_is_not_for_applications(stage: &Stage) {
    let session = stage.as_red();
    session.refused_inside("42501", "SELECT tenancy.switch_tenant('blue')");
    for function in
        ["create_tenant('x')", "suspend_tenant('blue')", "find_tenant('blue')", "grant_usage(current_user::regrole)"]
    {
        let refusal = session.refused_inside("42501", &format!("SELECT tenancy.{function}"));
        assert!(refusal.message().contains("permission denied"), "{refusal:?}");
    }
    session.sees_only_red();
}

fn a_rollback_after_a_switch_leaves_no_tenant_in_force(stage: &Stage) {
    let operator: Session = {
        let role = stage.db.application("operator");
        let admin = stage.db.admin();
        admin.run(&format!("SELECT tenancy.grant_admin('{role}'); GRANT SELECT ON letters TO {role}"));
        stage.db.login(&role)
    };
    operator.begin_as("red");
    operator.run("SAVEPOINT s; SELECT tenancy.switch_tenant('blue')");
    operator.sees_only_blue();
    operator.run("ROLLBACK TO s");
    // PostgreSQL put red back; the transaction has become blue's meanwhile, so nobody is in force.
    operator.refused_inside("42501", "SELECT item FROM letters");
    operator.run("SELECT tenancy.switch_tenant('red')");
    operator.sees_only_red();
    operator.refused_inside("42501", "SELECT tenancy.set_tenant('blue')");
    operator.run("SELECT tenancy.switch_tenant('blue')");
    operator.sees_only_blue();
    operator.run("COMMIT");
    operator.sees_no_tenant();
}

fn a_failed_set_leaves_the_tenant_as_it_was(stage: &Stage) {
    let session = stage.as_red();
    session.refused_inside("22023", "SET LOCAL app.current_tenant_id = ' x'");
    session.refused_inside("42501", "SELECT tenancy.set_tenant('nobody')");
    session.sees_only_red();
    session.run("COMMIT");
    session.run("BEGIN");
    session.refused_inside("42704", "SELECT tenancy.set_tenant('nobody')");
    session.refused_inside("55000", "SELECT item FROM letters");
}

fn an_unknown_tenant_seals_the_transaction_too(stage: &Stage) {
    let session = stage.login();
    session.begin_as("red"); // loads the library
    session.run("COMMIT; BEGIN; SET LOCAL app.current_tenant_id = 'nobody'");
    session.refused_inside("42704", "SELECT item FROM letters");
    session.refused_inside("42501", "SET LOCAL app.current_tenant_id = 'blue'");
}

/// Not a story of the three settings: the setting in a configuration file.
#[test]
fn a_configuration_file_is_no_context() {
    for setting in [Setting::FirstUse, Setting::Shared] {
        let library = if setting.has_fence() { "pg_tenancy" } else { "" };
        let cluster = Cluster::start(&[("shared_preload_libraries", library), ("app.current_tenant_id", "blue")]);
        let stage = Stage::on(&cluster, setting);
        stage.login().sees_no_tenant();
        let session = stage.as_red();
        session.sees_only_red();
        session.run("COMMIT");
        session.sees_no_tenant();
    }
}

fn the_tenant_cannot_be_set_by_alter_system(stage: &Stage) {
    let admin = stage.db.admin();
    admin.run("SELECT tenancy.has_tenant()");
    admin.refused("55P02", "ALTER SYSTEM SET app.current_tenant_id = 'blue'");
}

/// Postings of a transaction add up to nothing when it ends, and a log says as whom that was looked at.
fn postings(stage: &Stage) -> Session {
    let keeper = stage.db.role("keeper", "");
    let admin = stage.db.admin();
    admin.run(&format!(
        "CREATE TABLE postings (txn int, amount int);
         CREATE TABLE looks (txn int, tenant text);
         CREATE FUNCTION balance() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO looks SELECT NEW.txn, CASE WHEN tenancy.has_tenant() THEN tenancy.current_tenant_code() END;
             IF (SELECT sum(amount) FROM postings WHERE txn = NEW.txn) <> 0 THEN RAISE EXCEPTION 'off balance'; END IF;
             RETURN NULL;
         END $$;
         CREATE CONSTRAINT TRIGGER balance AFTER INSERT ON postings DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION balance();
         SELECT tenancy.protect_table('postings');
         GRANT ALL ON postings, looks TO {keeper}, {};
         SELECT tenancy.grant_admin('{keeper}')",
        stage.app
    ));
    stage.db.login(&keeper)
}

fn g07_what_is_deferred_runs_as_the_tenant_whose_it_is(stage: &Stage) {
    let session = postings(stage);
    let admin = stage.db.admin();
    let (red, blue) = ("SELECT tenancy.switch_tenant('red')", "SELECT tenancy.switch_tenant('blue')");
    let one_sided = "INSERT INTO postings VALUES (1, 9)";
    let counter = "INSERT INTO postings VALUES (1, -9)";
    session.run(&format!("BEGIN; {red}; {one_sided}"));
    session.refused("P0001", "COMMIT");
    // A switch asks first, as COMMIT does, and an error refuses it.
    session.run(&format!("BEGIN; {red}; {one_sided}"));
    session.refused("P0001", blue);
    session.run("ROLLBACK");
    for switch in [blue, "SELECT tenancy.clear_tenant()", "DO $$ BEGIN PERFORM tenancy.switch_tenant('blue'); END $$"] {
        session.run(&format!("BEGIN; {red}; {one_sided}; {counter}; {switch}; COMMIT"));
        admin.sees("SELECT DISTINCT txn, tenant FROM looks", &["1|red"]);
        admin.run("TRUNCATE looks; DELETE FROM postings");
    }
    // What was deferred by its own word is so afterwards, and what is set again stays with the next tenant.
    session.run(&format!("BEGIN; {red}; {one_sided}; {counter}; {blue}; {one_sided}; {counter}; COMMIT"));
    admin.sees("SELECT tenant, count(*) FROM looks GROUP BY 1 ORDER BY 1", &["blue|2", "red|2"]);
    admin.run("TRUNCATE looks; DELETE FROM postings");
    // Naming the tenant once more is no change.
    session.run(&format!("BEGIN; {red}; {one_sided}; {red}; {counter}; COMMIT"));
    admin.run("TRUNCATE looks; DELETE FROM postings");

    // Within a savepoint they run, and are undone with it: then they are to run again.
    session.run(&format!("BEGIN; {red}; {one_sided}; SAVEPOINT s"));
    session.refused("P0001", blue);
    session.run(&format!("ROLLBACK TO s; {counter}; {blue}; ROLLBACK TO s; {red}; INSERT INTO postings VALUES (1, 5)"));
    session.refused("P0001", "COMMIT");
    // Later ones are immediate, until somebody defers them again.
    session.run(&format!("BEGIN; {red}; {one_sided}; {counter}; SAVEPOINT s; {blue}"));
    session.refused_inside("P0001", one_sided);
    session.run(&format!("SET CONSTRAINTS ALL DEFERRED; {one_sided}; {counter}; COMMIT"));
    admin.sees("SELECT DISTINCT txn, tenant FROM looks ORDER BY 2", &["1|blue", "1|red"]);
    admin.run("TRUNCATE looks; DELETE FROM postings");
    // One that SET has cleared has no say any more, and no other tenant takes its place unseen.
    session.run(&format!("BEGIN; {red}; {one_sided}; SET LOCAL app.current_tenant_id = ''"));
    session.refused("55000", blue);
    session.run("ROLLBACK");

    // Whoever lends his rights lends them to nobody's triggers; the hint is followed to the letter.
    admin.run(
        "CREATE FUNCTION as_blue() RETURNS void SECURITY DEFINER LANGUAGE sql AS $$ SELECT tenancy.switch_tenant('blue') $$;
         CREATE FUNCTION go_blue() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             PERFORM tenancy.switch_tenant('blue'); RETURN NULL; END $$",
    );
    let before = format!("BEGIN; {red}; {one_sided}; {counter}");
    session.run(&before);
    let refusal = session.refused("55000", "SELECT as_blue()");
    assert!(refusal.hint().is_some_and(|hint| hint.contains("SET CONSTRAINTS ALL IMMEDIATE before")), "{refusal:?}");
    session.run("ROLLBACK");
    session.run(&format!("{before}; SET CONSTRAINTS ALL IMMEDIATE; SELECT as_blue(); COMMIT"));
    admin.sees("SELECT DISTINCT txn, tenant FROM looks", &["1|red"]);
    // A deferred trigger is in no place to change the tenant of those that wait behind it.
    admin.run(
        "CREATE CONSTRAINT TRIGGER a_switch AFTER INSERT ON postings DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION go_blue()",
    );
    session.run(&before);
    session.refused("55000", "COMMIT");
    // Applications clear their tenant the same way.
    admin.run("DROP TRIGGER a_switch ON postings; TRUNCATE looks");
    let app = stage.as_red();
    app.run(one_sided);
    app.refused("P0001", "SELECT tenancy.clear_tenant()");
}
