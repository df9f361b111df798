//! THREATS (a) where a tenant must be signed: what an injection can do in open mode, because it can send any statement,
//! it cannot do without a token. Each attack is shown to work in open mode first.

use crate::stage::{Attacker, CANARY, MINE, Setting, Stage, stories};
use pg_tenancy_tests::{Role, Session, quote_literal};

stories![
    also with session preload;
    a01_set_for_the_session_names_no_tenant_in_signed_mode,
    a02_set_local_names_no_tenant_in_signed_mode,
    a03_set_config_names_no_tenant_in_signed_mode,
    a04_set_config_in_where_names_no_tenant_in_signed_mode,
    a07_dynamic_sql_names_no_tenant_in_signed_mode,
    a21_no_spelling_of_the_setting_names_a_tenant_in_signed_mode,
    a23_one_message_names_no_tenant_in_signed_mode,
    a24_the_documented_function_names_no_tenant_in_signed_mode,
    a25_a_new_transaction_names_no_tenant_in_signed_mode,
    a38_a_trigger_names_no_tenant_in_signed_mode,
    a39_two_settings_and_a_commit_name_no_tenant_in_signed_mode,
    signed_mode_cannot_be_left,
    signed_mode_lets_what_is_legitimate_pass,
    a_token_ends_with_its_transaction_and_its_savepoint,
    a_token_is_no_way_out_of_a_transaction,
    a_forged_token_opens_nothing,
    a_token_is_for_one_role,
    a_nonce_binds_a_token_to_its_connection,
    a_token_is_taken_once_where_replay_is_guarded,
    a_token_is_not_seen_by_other_sessions_of_its_role,
    a_retired_key_opens_nothing_in_any_session,
    a_token_that_has_expired_ends_what_outlived_its_transaction,
    a_parallel_worker_knows_what_was_signed,
    a_bound_role_is_its_tenant_from_its_first_statement,
    a_bound_role_cannot_become_another_tenant,
    a_binding_wins_over_a_pin_and_its_end_is_felt_at_once,
    a_parallel_worker_knows_the_binding,
];

const SECRET: &str = "the secret that only the application has";

impl Stage {
    /// From now on the application's role needs a token.
    fn sign_mode(&self) {
        self.db.admin().run(&format!(
            "ALTER ROLE {} SET tenancy.context_mode = 'signed'; SELECT tenancy.add_signing_key('k1', 'HS256', '{SECRET}')",
            self.app
        ));
    }

    fn configure_app(&self, settings: &[(&str, &str)]) {
        for (name, value) in settings {
            self.db.admin().run(&format!("ALTER ROLE {} SET {name} = '{value}'", self.app));
        }
    }

    fn token(&self, tenant: &str) -> String {
        self.token_with(tenant, "")
    }

    fn token_with(&self, tenant: &str, others: &str) -> String {
        self.db.admin().value(&format!("SELECT tenancy.sign_tenant_token('{tenant}'{others})"))
    }

    fn begin_signed(&self, tenant: &str) -> Session {
        let session = self.login();
        session.run(&format!("BEGIN; {}", take(&self.token(tenant))));
        session
    }

    fn bind(&self, role: &Role, tenant: &str) {
        self.db.admin().run(&format!("SELECT tenancy.bind_role('{role}', '{tenant}')"));
    }
}

fn take(token: &str) -> String {
    format!("SELECT tenancy.set_tenant_signed({})", quote_literal(token))
}

/// Statements after which an injection reads blue's letter in open mode, and after which it reads nothing but errors in
/// signed mode: as the first thing of a connection, in a new one that has used the library, and inside red's transaction.
#[track_caller]
fn cannot_forge(stage: &Stage, attacks: &[&str]) {
    let read = "SELECT item FROM letters";
    for attack in attacks {
        let session = stage.login();
        assert_eq!(
            session.rows(&format!("BEGIN; {attack}; {read}")).last().map(String::as_str),
            Some(CANARY),
            "{attack}"
        );
    }
    stage.sign_mode();
    for attack in attacks {
        let fresh = stage.login();
        fresh.refused("42501", &format!("BEGIN; {attack}; {read}"));
        fresh.run("ROLLBACK");
        fresh.refused("42501", &format!("BEGIN; {attack}; {read}"));
        fresh.run("ROLLBACK");
        let red = stage.begin_signed("red");
        red.sees_only_red();
        red.refused_inside("42501", attack);
        red.sees_only_red();
        red.run("COMMIT");
        red.refused("42501", &format!("BEGIN; {attack}; {read}"));
    }
}

fn a01_set_for_the_session_names_no_tenant_in_signed_mode(stage: &Stage) {
    cannot_forge(stage, &["SET app.current_tenant_id = 'blue'", "SET SESSION app.current_tenant_id TO blue"]);
}

fn a02_set_local_names_no_tenant_in_signed_mode(stage: &Stage) {
    cannot_forge(stage, &["SET LOCAL app.current_tenant_id TO 'blue'"]);
}

fn a03_set_config_names_no_tenant_in_signed_mode(stage: &Stage) {
    cannot_forge(
        stage,
        &[
            "SELECT set_config('app.current_tenant_id', 'blue', true)",
            "SELECT set_config('app.current_tenant_id', 'blue', false)",
        ],
    );
}

fn a04_set_config_in_where_names_no_tenant_in_signed_mode(stage: &Stage) {
    let flip = "SELECT item FROM letters WHERE set_config('app.current_tenant_id', 'blue', true) IS NOT NULL";
    let session = stage.login();
    session.run("SET naive.tenant = 'red'");
    session.sees("SELECT item FROM naive WHERE set_config('naive.tenant', 'blue', true) IS NOT NULL", &[CANARY]);
    stage.sign_mode();
    // Either half of the statement may come first: without a tenant, or with one that nobody signed.
    let fresh = stage.login();
    assert!(fresh.try_rows(flip).is_err() && fresh.try_rows(flip).is_err());
    let red = stage.begin_signed("red");
    red.refused_inside("42501", flip);
    red.refused_inside("42501", "SELECT item FROM letters ORDER BY tenancy.set_tenant('blue')");
    red.sees_only_red();
}

fn a07_dynamic_sql_names_no_tenant_in_signed_mode(stage: &Stage) {
    cannot_forge(
        stage,
        &[
            "DO $$ BEGIN EXECUTE 'SET LOCAL app.current_tenant_id = ''blue'''; END $$",
            "DO $$ BEGIN PERFORM tenancy.set_tenant('blue'); END $$",
        ],
    );
}

fn a21_no_spelling_of_the_setting_names_a_tenant_in_signed_mode(stage: &Stage) {
    cannot_forge(
        stage,
        &["SET \"APP\".\"Current_Tenant_ID\" = 'blue'", "SELECT set_config('App.Current_Tenant_Id', 'blue', true)"],
    );
}

fn a23_one_message_names_no_tenant_in_signed_mode(stage: &Stage) {
    let message = "SET app.current_tenant_id = 'blue'; SELECT item FROM letters";
    stage.login().sees(message, &[CANARY]);
    stage.sign_mode();
    let session = stage.login();
    session.refused("42501", message);
    session.refused("42501", message);
    session.refused("42501", &format!("{}; {message}", take(&stage.token("red"))));
}

fn a24_the_documented_function_names_no_tenant_in_signed_mode(stage: &Stage) {
    cannot_forge(stage, &["SELECT tenancy.set_tenant('blue')"]);
    // Nor by the key that another tenant's rows show.
    let red = stage.begin_signed("red");
    red.refused_inside("42501", &format!("SELECT tenancy.set_tenant('{}')", stage.blue.id));
    red.refused_inside("42501", "SELECT tenancy.switch_tenant('blue')");
    red.refused_inside("42501", "SELECT tenancy.sign_tenant_token('blue')");
    red.refused_inside("42501", "SELECT tenancy.add_signing_key('mine', 'HS256', repeat('x', 32))");
    red.refused_inside("42501", "SELECT * FROM tenancy.signing_keys");
    red.refused_inside("42501", "SELECT * FROM tenancy_internal.signing_keys");
}

fn a25_a_new_transaction_names_no_tenant_in_signed_mode(stage: &Stage) {
    let attack = "COMMIT; BEGIN; SET LOCAL app.current_tenant_id = 'blue'";
    let session = stage.as_red();
    assert_eq!(session.rows(&format!("{attack}; SELECT item FROM letters")), [CANARY]);
    stage.sign_mode();
    for attack in [
        attack,
        "ROLLBACK; BEGIN; SELECT tenancy.set_tenant('blue')",
        "COMMIT AND CHAIN; SET app.current_tenant_id = 'blue'",
    ] {
        let session = stage.begin_signed("red");
        session.refused("42501", &format!("{attack}; SELECT item FROM letters"));
        session.run("ROLLBACK");
        session.sees_no_tenant();
    }
}

fn a38_a_trigger_names_no_tenant_in_signed_mode(stage: &Stage) {
    stage.db.admin().run(
        "CREATE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM set_config('app.current_tenant_id', NEW.tenant_id::text, true); RETURN NEW; END $$;
         CREATE TRIGGER follow BEFORE INSERT ON letters FOR EACH ROW EXECUTE FUNCTION follow()",
    );
    let forge = |id| format!("INSERT INTO letters VALUES ({id}, '{}', 'forged')", stage.blue.id);
    stage.login().changes(1, &forge(3));
    stage.sign_mode();
    stage.login().refused("42501", &forge(4));
    let red = stage.begin_signed("red");
    red.refused_inside("42501", &forge(4));
    red.sees_only_red();
}

fn a39_two_settings_and_a_commit_name_no_tenant_in_signed_mode(stage: &Stage) {
    stage.sign_mode();
    let session = stage.login();
    session.refused(
        "42501",
        "BEGIN; SET app.current_tenant_id = 'blue'; SET LOCAL app.current_tenant_id = 'red'; SELECT item FROM letters",
    );
    session.run("ROLLBACK");
    session.sees_no_tenant();
    let red = stage.begin_signed("red");
    red.refused_inside("42501", "SET app.current_tenant_id = 'blue'");
    red.run("COMMIT");
    red.sees_no_tenant();
}

fn signed_mode_cannot_be_left(stage: &Stage) {
    stage.sign_mode();
    let forge = "SET LOCAL app.current_tenant_id = 'blue'; SELECT item FROM letters";
    for leave in
        ["SET tenancy.context_mode = 'open'", "SET LOCAL tenancy.context_mode = 'open'", "RESET tenancy.context_mode"]
    {
        // A connection that does not know the setting yet takes the statement, and forgets it with the first use.
        let session = stage.login();
        assert!(session.try_run(&format!("BEGIN; {leave}; {forge}")).is_err(), "{leave}");
        session.run("ROLLBACK");
        session.refused("42501", leave);
        session.refused("42501", &format!("BEGIN; {forge}"));
        session.run("ROLLBACK");
    }
    let session = stage.login();
    for leave in ["SET tenancy.context_mode = 'open'", "RESET tenancy.context_mode", "SET tenancy.token_max_ttl = 0"] {
        session.refused("42501", &format!("ALTER ROLE {} {leave}", stage.app));
    }
    session.run(&format!("ALTER ROLE {} RESET ALL", stage.app));
    session.run("SELECT tenancy.has_tenant()");
    session.refused("42501", "UPDATE pg_settings SET setting = 'open' WHERE name = 'tenancy.context_mode'");
    let database = stage.database();
    stage.db.admin().run(&format!(
        "ALTER DATABASE {database} SET tenancy.context_mode = 'signed'; ALTER DATABASE {database} OWNER TO {}",
        stage.app
    ));
    let owner = stage.login();
    for leave in ["SET tenancy.context_mode = 'open'", "RESET tenancy.context_mode"] {
        owner.refused("42501", &format!("ALTER DATABASE {database} {leave}"));
    }
    owner.run(&format!("ALTER DATABASE {database} RESET ALL"));
    stage.db.admin().run(&format!("ALTER DATABASE {database} OWNER TO CURRENT_USER"));
    stage.db.admin().sees(
        "SELECT setconfig::text FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
          WHERE datname = current_database() AND setconfig::text LIKE '%context_mode%' AND setrole = 0",
        &[if stage.setting == Setting::Session {
            "{session_preload_libraries=pg_tenancy,tenancy.context_mode=signed}"
        } else {
            "{tenancy.context_mode=signed}"
        }],
    );
    session.refused(
        "42501",
        "CREATE FUNCTION opens() RETURNS text LANGUAGE sql SET tenancy.context_mode = 'open' AS 'SELECT 1::text'",
    );
    stage.login().refused("42501", &format!("BEGIN; {forge}"));
    // Options come before what is stored, and would hide it.
    for option in
        ["tenancy.context_mode=open", "tenancy.context_mode=nonsense", "Tenancy.Context_Mode=open", "tenancy.other=1"]
    {
        if let Ok(session) = stage.login_with(&format!("-c {option}")) {
            session.refused("42501", &format!("BEGIN; {forge}"));
            session.run("ROLLBACK");
            session.refused("42501", &format!("BEGIN; {forge}"));
            session.run("ROLLBACK");
            session.refused("42501", &take(&stage.token("red")));
        }
    }
}

fn signed_mode_lets_what_is_legitimate_pass(stage: &Stage) {
    stage.sign_mode();
    // Red and blue by turns on one connection.
    let session = stage.login();
    for (tenant, item) in [("red", MINE), ("blue", CANARY), ("red", MINE)] {
        session.run(&format!("BEGIN; {}", take(&stage.token(tenant))));
        session.sees("SELECT item FROM letters", &[item]);
        session.run("SAVEPOINT s; SELECT tenancy.assert_tenant(tenancy.current_tenant_code()); ROLLBACK TO s; COMMIT");
    }
    session.run("BEGIN");
    session.run(&take(&stage.token("red")));
    session.run(&take(&stage.token("red")));
    session.run("SELECT tenancy.clear_tenant()");
    session.refused("55000", "SELECT item FROM letters");
    session.run("ROLLBACK");

    // A superuser and an administrator, also when they go on as the application.
    let database = stage.database();
    stage.db.admin().run(&format!("ALTER DATABASE {database} SET tenancy.context_mode = 'signed'"));
    let chief = stage.db.role("chief", "");
    stage.db.admin().run(&format!("SELECT tenancy.grant_admin('{chief}'); GRANT {} TO {chief}", stage.app));
    for administrator in [stage.db.login(&chief), stage.db.admin()] {
        for set in ["SELECT tenancy.set_tenant('blue')", "SET LOCAL app.current_tenant_id = 'blue'"] {
            administrator.run(&format!("BEGIN; {set}; SET LOCAL ROLE {}", stage.app));
            administrator.sees_only_blue();
            administrator.run("ROLLBACK");
            administrator.run(&format!("BEGIN; SET LOCAL ROLE {}", stage.app));
            administrator.refused("42501", set);
            administrator.run("ROLLBACK");
        }
    }
    // The first statement of a superuser's connection.
    let admin = stage.db.admin();
    admin.run("BEGIN; SET LOCAL app.current_tenant_id = 'blue'");
    admin.sees("SELECT tenancy.current_tenant_code()", &["blue"]);
    admin.run("ROLLBACK");

    // A function of an administrator's may name a tenant for its callers; one that runs as the caller may not.
    for (security, clause) in [
        ("DEFINER", "SET search_path = public"),
        ("DEFINER", "SET app.current_tenant_id = 'blue'"),
        ("INVOKER", "SET app.current_tenant_id = 'blue'"),
    ] {
        stage.db.admin().run(&format!(
            "CREATE OR REPLACE FUNCTION report() RETURNS text LANGUAGE plpgsql SECURITY {security} {clause} AS
                 $$ BEGIN PERFORM tenancy.set_tenant('blue'); RETURN tenancy.current_tenant_code(); END $$",
        ));
        let session = stage.login();
        if security == "DEFINER" {
            session.sees("SELECT report()", &["blue"]);
        } else {
            session.refused("42501", "SELECT report()");
        }
    }
}

fn a_token_ends_with_its_transaction_and_its_savepoint(stage: &Stage) {
    stage.sign_mode();
    let with_region = stage.token_with("red", ", dimensions => '{\"region\": \"eu\"}'");
    let session = stage.login();
    session.run(&format!("BEGIN; SAVEPOINT s; {}", take(&with_region)));
    session.sees("SELECT tenancy.context_dimension('region')", &["eu"]);
    session.run("ROLLBACK TO s");
    session.sees("SELECT tenancy.context_dimension('region')", &["NULL"]);
    session.refused("55000", "SELECT item FROM letters");
    session.run("ROLLBACK TO s");
    // The transaction is red's all the same.
    session.refused_inside("42501", &take(&stage.token("blue")));
    session.run(&take(&with_region));
    session.sees_only_red();
    session.run("COMMIT");
    session.sees("SELECT tenancy.context_dimension('region')", &["NULL"]);
    session.sees_no_tenant();
    // An exception block that takes it back.
    session.run(&format!(
        "BEGIN; DO $$ BEGIN PERFORM tenancy.set_tenant_signed({}); RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN END $$",
        quote_literal(&with_region)
    ));
    session.sees_no_tenant();
}

fn a_token_is_no_way_out_of_a_transaction(stage: &Stage) {
    stage.sign_mode();
    let red = stage.begin_signed("red");
    let refusal = red.refused_inside("42501", &take(&stage.token("blue")));
    assert!(refusal.message().contains("belongs to tenant"), "{refusal:?}");
    red.sees_only_red();
    red.run("COMMIT");
    // In open mode too, and over a pin.
    let open = stage.db.application("open");
    stage.db.admin().run(&format!("GRANT SELECT ON letters TO {open}"));
    let session = stage.login_as(&open, "red");
    session.refused_inside("42501", &take(&stage.token("blue")));
    session.run(&take(&stage.token("red")));
    session.sees_only_red();
    stage.db.admin().run(&format!("ALTER ROLE {open} SET app.current_tenant_id = 'red'"));
    let pinned = stage.db.login(&open);
    pinned.refused("42501", &take(&stage.token("blue")));
    pinned.sees_only_red();
}

fn a_forged_token_opens_nothing(stage: &Stage) {
    stage.sign_mode();
    let admin = stage.db.admin();
    let good = stage.token("red");
    let parts: Vec<&str> = good.split('.').collect();
    let (payload, signature) = (parts[1], parts[2]);
    let none = admin.value("SELECT translate(encode('{\"alg\":\"none\"}', 'base64'), E'+/=\\n', '-_')");
    let other = stage.token("blue");
    let blue_payload = other.split('.').nth(1).expect("a token has three parts");
    let session = stage.login();
    for forged in [
        format!("{none}.{blue_payload}."),
        format!("{none}.{blue_payload}.{signature}"),
        format!("{}.{blue_payload}.{signature}", parts[0]),
        format!("{}.{payload}.", parts[0]),
        format!("{}.{payload}", parts[0]),
        String::new(),
    ] {
        let attempt = session.try_run(&format!("BEGIN; {}; SELECT item FROM letters", take(&forged)));
        let refusal = attempt.expect_err("a forged token was taken");
        let code = refusal.code().map(|code| code.code().to_owned());
        assert!(matches!(code.as_deref(), Some("42501" | "22023")), "{forged}: {refusal}");
        session.run("ROLLBACK");
    }
    // Signed well, but for a time that is over or not begun, for another database, or too long.
    let expired = stage.token_with("red", ", ttl => '1 second'");
    stage.configure_app(&[("tenancy.token_leeway", "0")]);
    let session = stage.login();
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let refusal = session.refused("42501", &take(&expired));
    assert!(refusal.message().contains("expired"), "{refusal:?}");
    stage.configure_app(&[("tenancy.token_audience", "orders")]);
    let refusal = stage.login().refused("42501", &take(&stage.token("red")));
    assert!(refusal.message().contains("audience"), "{refusal:?}");
    admin.run("SET tenancy.token_audience = 'orders'");
    let for_orders = admin.value("SELECT tenancy.sign_tenant_token('red')");
    let session = stage.login();
    session.run(&format!("BEGIN; {}", take(&for_orders)));
    session.sees_only_red();
    stage.configure_app(&[("tenancy.token_max_ttl", "10")]);
    let refusal = stage.login().refused("42501", &take(&for_orders));
    assert!(refusal.message().contains("longer than 10"), "{refusal:?}");
    // The tenant of a good token must be in service.
    admin.run("RESET tenancy.token_audience; SELECT tenancy.suspend_tenant('blue', 'abuse')");
    stage.configure_app(&[("tenancy.token_audience", ""), ("tenancy.token_max_ttl", "3600")]);
    stage.login().refused("55000", &take(&stage.token("blue")));
}

fn a_token_is_for_one_role(stage: &Stage) {
    stage.sign_mode();
    let other = stage.db.application("other");
    let token = stage.token_with("red", &format!(", role => {}", quote_literal(other.name())));
    stage.db.admin().run(&format!("GRANT {other} TO {}; GRANT SELECT ON letters TO {other}", stage.app));
    let session = stage.login();
    session.refused("42501", &take(&token));
    session.run(&format!("SET ROLE {other}"));
    session.refused("42501", &take(&token));
    let session = stage.db.login(&other);
    session.run(&format!("BEGIN; {}", take(&token)));
    session.sees_only_red();
}

fn a_nonce_binds_a_token_to_its_connection(stage: &Stage) {
    stage.sign_mode();
    stage.configure_app(&[("tenancy.token_nonce", "required")]);
    let (mine, other) = (stage.login(), stage.login());
    let nonce = mine.value("SELECT tenancy.session_nonce()");
    assert_eq!(nonce, mine.value("SELECT tenancy.session_nonce()"));
    assert_ne!(nonce, other.value("SELECT tenancy.session_nonce()"));
    let bound = stage.token_with("red", &format!(", nonce => '{nonce}'"));
    mine.run(&format!("BEGIN; {}", take(&bound)));
    mine.sees_only_red();
    mine.run("COMMIT");
    // As read in a log.
    let refusal = other.refused("42501", &take(&bound));
    assert!(refusal.message().contains("another connection"), "{refusal:?}");
    mine.refused("42501", &take(&stage.token("red")));
}

fn a_token_is_taken_once_where_replay_is_guarded(stage: &Stage) {
    stage.sign_mode();
    let token = stage.token("red");
    let twice = stage.login();
    twice.run(&take(&token));
    twice.run(&take(&token));
    stage.configure_app(&[("tenancy.token_replay_guard", "on")]);
    let session = stage.login();
    session.run(&format!("BEGIN; {}", take(&token)));
    session.sees_only_red();
    session.run("ROLLBACK");
    for replay in [take(&token), format!("BEGIN; {}", take(&token))] {
        let refusal = session.refused("42501", &replay);
        assert!(refusal.message().contains("used before"), "{refusal:?}");
        session.run("ROLLBACK");
    }
    session.run(&format!("BEGIN; {}", take(&stage.token("red"))));
    session.sees_only_red();
    session.run("COMMIT");
    // A token that was refused for something else has not been used.
    let blue = stage.token("blue");
    session.run(&format!("BEGIN; {}", take(&stage.token("red"))));
    session.refused("42501", &take(&blue));
    session.run(&format!("ROLLBACK; BEGIN; {}", take(&blue)));
    session.sees_only_blue();
}

fn a_token_is_not_seen_by_other_sessions_of_its_role(stage: &Stage) {
    stage.sign_mode();
    let token = stage.token("blue");
    let blue = stage.login();
    blue.run(&format!("BEGIN; {}", take(&token)));
    let seen = stage.login().rows(&format!("SELECT query FROM pg_stat_activity WHERE pid = {}", blue.pid()));
    assert!(!seen.iter().any(|query| query.contains(&token)), "{seen:?}");
    blue.run("ROLLBACK");
    blue.refused("42501", &format!("BEGIN; {}", take(&format!("{token}x"))));
    let seen = stage.login().rows("SELECT query FROM pg_stat_activity");
    assert!(!seen.iter().any(|query| query.contains(&token)), "{seen:?}");
}

fn a_retired_key_opens_nothing_in_any_session(stage: &Stage) {
    stage.sign_mode();
    let admin = stage.db.admin();
    let (old, session) = (stage.token("red"), stage.login());
    session.run(&take(&old));
    admin.run("SELECT tenancy.add_signing_key('k2', 'HS256', repeat('y', 32))");
    let new = stage.token_with("red", ", kid => 'k2'");
    session.run(&take(&old));
    session.run(&take(&new));
    admin.run("BEGIN; SELECT tenancy.retire_signing_key('k1')");
    session.run(&take(&old));
    admin.run("ROLLBACK");
    session.run(&take(&old));
    admin.run("SELECT tenancy.retire_signing_key('k1')");
    session.refused("42501", &take(&old));
    session.run(&take(&new));
    admin.refused("42710", &format!("SELECT tenancy.add_signing_key('k1', 'HS256', '{SECRET}')"));
    admin.sees("SELECT secret_key IS NULL FROM tenancy_internal.signing_keys WHERE kid = 'k1'", &["t"]);
}

fn a_token_that_has_expired_ends_what_outlived_its_transaction(stage: &Stage) {
    stage.sign_mode();
    stage.configure_app(&[("tenancy.context_lifetime", "session"), ("tenancy.token_leeway", "0")]);
    let session = stage.login();
    session.run(&take(&stage.token_with("red", ", ttl => '2 seconds'")));
    session.sees_only_red();
    session.run("BEGIN");
    session.sees_only_red();
    std::thread::sleep(std::time::Duration::from_millis(2100));
    session.sees_only_red();
    session.run("COMMIT");
    let refusal = session.refused("55000", "SELECT item FROM letters");
    assert!(refusal.message().contains("has expired"), "{refusal:?}");
    session.run(&take(&stage.token("red")));
    session.sees_only_red();
    // What was set before the library knew of the mode, and outlives its transaction.
    let session = stage.login();
    session.try_run("SET app.current_tenant_id = 'blue'").unwrap_or_default();
    let forged = session.try_rows("SELECT item FROM letters");
    assert!(forged.is_err(), "{forged:?}");
}

/// Runs it in parallel workers, whatever the planner thinks of that.
fn in_workers(stage: &Stage, session: &Session) {
    let force = if stage.db.cluster().major() < 16 { "force_parallel_mode" } else { "debug_parallel_query" };
    session.run(&format!(
        "SET {force} = on; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0"
    ));
    if stage.setting != Setting::Strict {
        let plan = session.explain("SELECT item FROM letters");
        assert!(plan.contains("Gather"), "{plan}");
    }
}

fn a_parallel_worker_knows_what_was_signed(stage: &Stage) {
    stage.sign_mode();
    let session = stage.login();
    session
        .run(&format!("BEGIN; {}", take(&stage.token_with("red", ", dimensions => '{\"region\": \"a, \\\"b\\\"\"}'"))));
    in_workers(stage, &session);
    session.sees_only_red();
    session.sees("SELECT item FROM letters WHERE tenancy.context_dimension('region') = 'a, \"b\"'", &[MINE]);
    session.run("COMMIT");
    // What nobody signed is not taken for signed there.
    let session = stage.login();
    let attack = session.try_rows("BEGIN; SET LOCAL app.current_tenant_id = 'blue'; SELECT item FROM letters");
    assert!(attack.is_err(), "{attack:?}");
}

fn a_bound_role_is_its_tenant_from_its_first_statement(stage: &Stage) {
    stage.bind(&stage.app, "red");
    stage.login().sees_only_red();
    let session = stage.login();
    session.changes(1, "INSERT INTO letters (id, item) VALUES (3, 'own')");
    session.changes(0, "UPDATE letters SET item = 'taken' WHERE id = 2");
    session.refused("42501", &format!("INSERT INTO letters VALUES (4, '{}', 'forged')", stage.blue.id));
    session.changes(1, "DELETE FROM letters WHERE id = 3");
    session.sees("SELECT set_by FROM tenancy.verify_context()", &["a role binding"]);
    for end in ["BEGIN; ROLLBACK", "RESET app.current_tenant_id", "DISCARD ALL", "SELECT tenancy.clear_tenant()"] {
        session.run(end);
        session.sees_only_red();
    }
    // Naming it changes nothing; in signed mode neither.
    stage.sign_mode();
    let session = stage.login();
    session.run("BEGIN; SET LOCAL app.current_tenant_id = 'red'");
    session.sees_only_red();
    session.run(&take(&stage.token_with("red", ", dimensions => '{\"region\": \"eu\"}'")));
    session.sees("SELECT tenancy.context_dimension('region')", &["eu"]);
    session.run("COMMIT");
    session.sees_only_red();
    // Another role is not concerned.
    let other = stage.db.application("other");
    stage.db.admin().run(&format!("GRANT SELECT ON letters TO {other}"));
    stage.db.login(&other).sees_no_tenant();
}

fn a_bound_role_cannot_become_another_tenant(stage: &Stage) {
    stage.bind(&stage.app, "red");
    let other = stage.db.application("other");
    stage.db.admin().run(&format!(
        "GRANT {other} TO {}; GRANT SELECT ON letters TO {other};
         SELECT tenancy.add_signing_key('k1', 'HS256', '{SECRET}');
         GRANT EXECUTE ON FUNCTION tenancy.switch_tenant(text) TO {}",
        stage.app, stage.app
    ));
    let blue = take(&stage.token("blue"));
    for attack in [
        "SET app.current_tenant_id = 'blue'",
        "SET LOCAL app.current_tenant_id = 'blue'",
        "SELECT tenancy.set_tenant('blue')",
        "SELECT tenancy.switch_tenant('blue')",
        &blue,
    ] {
        let fresh = stage.login();
        fresh.refused("42501", &format!("BEGIN; {attack}; SELECT item FROM letters"));
        fresh.run("ROLLBACK");
        fresh.sees_only_red();
        fresh.run(&format!("BEGIN; SET LOCAL ROLE {other}"));
        fresh.refused_inside("42501", &format!("{attack}; SELECT item FROM letters"));
        fresh.sees_only_red();
        fresh.run("ROLLBACK");
    }
    let session = stage.login();
    // Behind the fence it is refused while a tenant is stored for anybody, as another story does on this server.
    let reset = format!("ALTER ROLE {0} RESET ALL; ALTER ROLE {0} RESET app.current_tenant_id", stage.app);
    if let Err(refusal) = session.try_run(&reset) {
        assert!(stage.setting.has_fence() && refusal.code().is_some_and(|code| code.code() == "42501"), "{refusal:?}");
    }
    session.refused("42501", &format!("SELECT tenancy.unbind_role('{}')", stage.app));
    session.refused("42501", "DELETE FROM tenancy_internal.role_bindings");
    stage.login().sees_only_red();
    if let Ok(session) = stage.login_with("-c app.current_tenant_id=blue") {
        session.refused("42501", "SELECT item FROM letters");
    }
    // Whom it is bound to is nobody's business but an administrator's.
    session.refused("42501", "SELECT * FROM tenancy.role_bindings");
    stage.db.admin().refused("42501", "SELECT tenancy.bind_role(current_user::regrole, 'red')");
}

fn a_binding_wins_over_a_pin_and_its_end_is_felt_at_once(stage: &Stage) {
    let admin = stage.db.admin();
    let before = stage.login();
    before.begin_as("blue");
    before.sees_only_blue();
    admin.run(&format!("ALTER ROLE {} SET app.current_tenant_id = 'blue'", stage.app));
    stage.bind(&stage.app, "red");
    // A transaction that was blue's goes on as nobody's.
    before.refused("42501", "SELECT item FROM letters");
    before.run("ROLLBACK");
    before.sees_only_red();
    let session = stage.login();
    session.sees_only_red();
    session.run("PREPARE letters AS SELECT item FROM letters");
    // Strict hygiene takes a prepared statement from the next tenant.
    let read = if stage.setting == Setting::Strict { "SELECT item FROM letters" } else { "EXECUTE letters" };
    session.sees(read, &[MINE]);
    admin.run(&format!("SELECT tenancy.unbind_role('{}')", stage.app));
    session.sees(read, &[CANARY]);
    before.sees_no_tenant();
    admin.run(&format!("BEGIN; SELECT tenancy.bind_role('{}', 'red'); ROLLBACK", stage.app));
    session.sees(read, &[CANARY]);
    stage.bind(&stage.app, "red");
    session.sees(read, &[MINE]);
    admin.run("SELECT tenancy.suspend_tenant('red', 'abuse')");
    session.refused("55000", read);
}

fn a_parallel_worker_knows_the_binding(stage: &Stage) {
    stage.bind(&stage.app, "red");
    let session = stage.login();
    in_workers(stage, &session);
    session.sees_only_red();
}
