//! Tenants and plans as an administrator's program sees them, and how their changes reach the other sessions.

use pg_tenancy_tests::{Db, NASTY_NAMES, Session, quote_literal};

/// A session of an administrator who is no superuser.
fn administrator(db: &Db) -> Session {
    let role = db.role("admin", "");
    db.admin().query("SELECT tenancy.grant_admin($1::text::regrole)", &[&role.to_string()]);
    db.login(&role)
}

#[test]
fn a_tenant_has_three_keys_and_sensible_defaults() {
    let admin = administrator(&Db::new());
    let id = admin.value("SELECT tenancy.create_tenant('acme')");
    admin.sees(
        "SELECT id, number, code, name, status, plan, settings, contact, status_reason, deleted_at, created_at = updated_at
           FROM tenancy.tenants",
        &[&format!("{id}|1|acme|acme|active|free|{{}}|{{}}|NULL|NULL|t")],
    );
    for name in ["acme", "1", &id] {
        admin.sees(&format!("SELECT tenancy.find_tenant('{name}')"), &[&id]);
    }
    for nobody in ["ACME", "2", "00000000-0000-0000-0000-000000000000"] {
        admin.sees(&format!("SELECT tenancy.find_tenant('{nobody}')"), &["NULL"]);
    }
    admin.refused("22023", "SELECT tenancy.find_tenant(NULL)");
    admin.refused("22023", "SELECT tenancy.find_tenant(' acme')");
}

#[test]
fn every_key_may_be_given_so_that_existing_data_keeps_its_ids() {
    let admin = administrator(&Db::new());
    let id = "6f1c9a52-7a0e-4b59-9d5e-0c7a5a4d2f10";
    admin.sees(
        &format!(
            "SELECT tenancy.create_tenant('acme', 'Acme Ltd', 'standard', '{{\"big\": 12345678901234567890123456789}}',
                                          '{{\"mail\": \"a@b\"}}', '{id}', 4711)"
        ),
        &[id],
    );
    admin.sees(
        "SELECT number, name, plan, settings, contact FROM tenancy.tenants",
        &["4711|Acme Ltd|standard|{\"big\": 12345678901234567890123456789}|{\"mail\": \"a@b\"}"],
    );
    // Numbers drawn later stay clear of those given; given ones may come in any order.
    admin.run("SELECT tenancy.create_tenant('next')");
    admin.sees("SELECT number > 4711 FROM tenancy.tenants WHERE code = 'next'", &["t"]);
    for number in ["3", "9223372036854775807", "-5", "0"] {
        admin.run(&format!("SELECT tenancy.create_tenant('number {number}', number => {number})"));
        admin.sees(
            &format!("SELECT code FROM tenancy.tenants WHERE id = tenancy.find_tenant('{number}')"),
            &[&format!("number {number}")],
        );
    }
    admin.run("SELECT tenancy.create_tenant('after them all')");
    for (key, call) in [
        ("code", "create_tenant('acme')".to_owned()),
        ("id", format!("create_tenant('other', id => '{id}')")),
        ("number", "create_tenant('other', number => 4711)".to_owned()),
    ] {
        let refusal = admin.refused("42710", &format!("SELECT tenancy.{call}"));
        assert!(refusal.message().contains(key), "{refusal:?}");
    }
}

#[test]
fn provisioning_twice_is_no_error_where_one_says_so() {
    let admin = administrator(&Db::new());
    let id = admin.value("SELECT tenancy.create_tenant('acme', 'Acme', number => 7)");
    for same in ["", ", number => 7", &format!(", id => '{id}'"), ", name => 'Other', plan => 'standard'"] {
        admin.sees(&format!("SELECT tenancy.create_tenant('acme'{same}, if_not_exists => true)"), &[&id]);
    }
    admin.sees("SELECT name, plan FROM tenancy.tenants", &["Acme|free"]);
    for other in ["number => 8", "id => gen_random_uuid()"] {
        let refusal =
            admin.refused("42710", &format!("SELECT tenancy.create_tenant('acme', {other}, if_not_exists => true)"));
        assert!(refusal.detail().is_some(), "{refusal:?}");
    }
    admin.refused("42710", "SELECT tenancy.create_tenant('other', number => 7, if_not_exists => true)");
}

#[test]
fn two_who_provision_the_same_tenant_get_the_same() {
    let db = Db::new();
    let (first, second) = (administrator(&db), administrator(&db));
    first.run("BEGIN");
    let id = first.value("SELECT tenancy.create_tenant('acme')");
    let waiting =
        std::thread::spawn(move || second.value("SELECT tenancy.create_tenant('acme', if_not_exists => true)"));
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(!waiting.is_finished(), "the second was to wait for the first");
    first.run("COMMIT");
    assert_eq!(waiting.join().expect("it is provisioned"), id);
}

#[test]
fn what_cannot_be_a_tenant_is_refused_with_a_hint() {
    let admin = administrator(&Db::new());
    let long = "x".repeat(101);
    for code in ["", " acme", "acme ", "a\tb", "a\nb", "42", "-1", "+7", "6f1c9a52-7a0e-4b59-9d5e-0c7a5a4d2f10", &long]
    {
        let refusal = admin.refused("22023", &format!("SELECT tenancy.create_tenant({})", quote_literal(code)));
        assert!(refusal.hint().is_some(), "{code:?}: {refusal:?}");
    }
    for arguments in [
        "NULL",
        "'acme', plan => NULL",
        "'acme', settings => NULL",
        "'acme', contact => NULL",
        "'acme', if_not_exists => NULL",
    ] {
        admin.refused("22023", &format!("SELECT tenancy.create_tenant({arguments})"));
    }
    let refusal = admin.refused("42704", "SELECT tenancy.create_tenant('acme', plan => 'golden')");
    assert!(refusal.hint().is_some_and(|hint| hint.contains("tenancy.plans")), "{refusal:?}");
    for json in ["[]", "1", "\"text\"", "null"] {
        let refused =
            admin.try_run(&format!("SELECT tenancy.create_tenant('acme', settings => '{json}')")).expect_err(json);
        let code = refused.code().map(|code| code.code().to_owned());
        assert!(matches!(code.as_deref(), Some("22023" | "23514")), "{refused:?}");
    }
    admin.sees("SELECT code FROM tenancy.tenants", &[]);
}

#[test]
fn codes_are_any_text_a_name_can_be() {
    let db = Db::new();
    let admin = administrator(&db);
    for code in NASTY_NAMES.into_iter().chain(["O'Brien & Söhne", "%", "*", "a\\b", "{}", "7up", "テナント", "null"])
    {
        let literal = quote_literal(code);
        let id = admin.value(&format!("SELECT tenancy.create_tenant({literal})"));
        admin.sees(&format!("SELECT tenancy.find_tenant({literal})"), &[&id]);
        admin.run(&format!(
            "SELECT tenancy.suspend_tenant({literal}, {literal}); SELECT tenancy.resume_tenant({literal})"
        ));
        admin.run("BEGIN");
        admin.query("SELECT tenancy.set_tenant($1)", &[&code]);
        admin.sees("SELECT tenancy.current_tenant_code()", &[code]);
        admin.run("COMMIT");
    }
}

#[test]
fn changing_a_tenant_keeps_what_is_not_named() {
    let admin = administrator(&Db::new());
    admin.run("SELECT tenancy.create_tenant('acme', 'Acme', settings => '{\"a\": 1}', contact => '{\"c\": 1}')");
    let row = "SELECT name, plan, settings, contact FROM tenancy.tenants";
    admin.run("SELECT tenancy.update_tenant('acme', 'Acme Ltd')");
    admin.sees(row, &["Acme Ltd|free|{\"a\": 1}|{\"c\": 1}"]);
    admin.run("SELECT tenancy.update_tenant('acme', settings => '{\"a\": 2}')");
    admin.run("SELECT tenancy.update_tenant('acme', NULL, NULL, '{}')");
    admin.run("SELECT tenancy.set_plan('acme', 'enterprise')");
    admin.sees(row, &["Acme Ltd|enterprise|{\"a\": 2}|{}"]);
    admin.sees("SELECT updated_at > created_at FROM tenancy.tenants", &["t"]);
    admin.refused("42704", "SELECT tenancy.set_plan('acme', 'golden')");
    admin.refused("22023", "SELECT tenancy.set_plan('acme', NULL)");
    for call in [
        "update_tenant('nobody', 'x')",
        "set_plan('nobody', 'free')",
        "suspend_tenant('nobody')",
        "resume_tenant('nobody')",
        "set_read_only('nobody')",
        "delete_tenant('nobody')",
        "undelete_tenant('nobody')",
    ] {
        admin.refused("42704", &format!("SELECT tenancy.{call}"));
        admin.refused("22023", &format!("SELECT tenancy.{}", call.replace("'nobody'", "NULL")));
    }
}

#[test]
fn plans_are_seeded_and_the_users_own_may_be_added() {
    let admin = administrator(&Db::new());
    admin.sees(
        "SELECT name, limits FROM tenancy.plans ORDER BY name",
        &[
            "enterprise|{\"roles\": -1, \"users\": -1, \"storage_gb\": 100}",
            "free|{\"roles\": 5, \"users\": 5, \"storage_gb\": 1}",
            "standard|{\"roles\": 20, \"users\": 50, \"storage_gb\": 10}",
        ],
    );
    admin.run("INSERT INTO tenancy.plans (name, limits) VALUES ('golden', '{\"users\": 7}')");
    admin.run("SELECT tenancy.create_tenant('acme', plan => 'golden')");
    let refused = admin.try_run("DELETE FROM tenancy.plans WHERE name = 'golden'").expect_err("a tenant is on it");
    assert!(matches!(refused.code().map(|code| code.code()), Some("23503" | "55006")), "{refused:?}");
    admin.run("SELECT tenancy.set_plan('acme', 'free'); DELETE FROM tenancy.plans WHERE name = 'golden'");
}

#[test]
fn a_status_moves_only_where_it_makes_sense() {
    let admin = administrator(&Db::new());
    admin.run("SELECT tenancy.create_tenant('acme')");
    let status = "SELECT status, status_reason, deleted_at IS NOT NULL FROM tenancy.tenants";
    for (call, row) in [
        ("suspend_tenant('acme', 'unpaid')", "suspended|unpaid|f"),
        ("suspend_tenant('acme', 'unpaid still')", "suspended|unpaid still|f"),
        ("resume_tenant('acme')", "active|NULL|f"),
        ("resume_tenant('acme')", "active|NULL|f"),
        ("set_read_only('acme', 'moving')", "read_only|moving|f"),
        ("suspend_tenant('acme')", "suspended|NULL|f"),
        ("delete_tenant('acme', 'left')", "deleted|left|t"),
        ("delete_tenant('acme', 'left for good')", "deleted|left for good|t"),
        ("undelete_tenant('acme')", "active|NULL|f"),
    ] {
        admin.run(&format!("SELECT tenancy.{call}"));
        admin.sees(status, &[row]);
    }
    for (state, forbidden) in [
        ("suspend_tenant('acme')", vec!["set_read_only('acme')", "undelete_tenant('acme')"]),
        ("delete_tenant('acme')", vec!["suspend_tenant('acme')", "resume_tenant('acme')", "set_read_only('acme')"]),
    ] {
        admin.run(&format!("SELECT tenancy.{state}"));
        let before = admin.rows(status);
        for call in forbidden {
            let refusal = admin.refused("55000", &format!("SELECT tenancy.{call}"));
            assert!(refusal.hint().is_some(), "{refusal:?}");
        }
        assert_eq!(admin.rows(status), before);
    }
}

#[test]
fn suspending_reaches_another_session_at_its_next_transaction() {
    let db = Db::new();
    let (red, blue) = db.two_tenants_sharing("orders");
    let admin = administrator(&db);
    for (close, reopen) in [("suspend_tenant", "resume_tenant"), ("delete_tenant", "undelete_tenant")] {
        red.sees("SELECT count(*) FROM orders", &["0"]);
        admin.run(&format!("SELECT tenancy.{close}('red', 'reason to show')"));
        let refusal = red.refused_entry("55000");
        assert_eq!(refusal.detail(), Some("Reason: reason to show"), "{refusal:?}");
        blue.sees("SELECT count(*) FROM orders", &["0"]);
        admin.run(&format!("SELECT tenancy.{reopen}('red')"));
        red.sees("SELECT count(*) FROM orders", &["0"]);
    }
    admin.run("SELECT tenancy.set_read_only('red', 'moving')");
    red.refused("55000", "INSERT INTO orders (item) VALUES ('x')");
    red.sees("SELECT count(*) FROM orders", &["0"]);
    admin.run("SELECT tenancy.resume_tenant('red')");
    red.changes(1, "INSERT INTO orders (item) VALUES ('x')");
}

#[test]
fn a_change_counts_when_it_is_committed_and_not_when_it_is_rolled_back() {
    let db = Db::new();
    let (red, _blue) = db.two_tenants_sharing("orders");
    let admin = administrator(&db);
    admin.run("BEGIN; SELECT tenancy.suspend_tenant('red')");
    red.sees("SELECT count(*) FROM orders", &["0"]);
    // The one who does it sees it at once, and after the rollback not any more.
    admin.run("SAVEPOINT s");
    admin.refused("55000", "SELECT tenancy.set_tenant('red')");
    admin.run("ROLLBACK");
    red.sees("SELECT count(*) FROM orders", &["0"]);
    admin.run("SELECT tenancy.set_tenant('red')");

    admin.run("BEGIN; SELECT tenancy.create_tenant('green'); SELECT tenancy.set_tenant('green')");
    admin.sees("SELECT tenancy.current_tenant_code()", &["green"]);
    red.session().refused("42704", "SELECT tenancy.set_tenant('green')");
    admin.run("ROLLBACK");
    admin.sees("SELECT tenancy.find_tenant('green')", &["NULL"]);
    admin.refused("42704", "SELECT tenancy.set_tenant('green')");

    admin.run("BEGIN; SAVEPOINT s; SELECT tenancy.create_tenant('ghost')");
    admin.sees("SELECT tenancy.find_tenant('ghost') IS NOT NULL", &["t"]);
    admin.run("ROLLBACK TO s");
    admin.sees("SELECT tenancy.find_tenant('ghost')", &["NULL"]);
    admin.run("COMMIT");
    // A tenant made after somebody asked for it in vain is found.
    red.session().refused("42704", "SELECT tenancy.set_tenant('late')");
    admin.run("SELECT tenancy.create_tenant('late')");
    red.session().run("SELECT tenancy.set_tenant('late')");
}

#[test]
fn a_users_table_may_refer_to_any_of_the_keys() {
    let db = Db::new();
    let admin = administrator(&db);
    db.admin().run("GRANT CREATE ON SCHEMA public TO PUBLIC");
    admin.run("SELECT tenancy.create_tenant('acme', number => 7)");
    for (column, key, value) in
        [("bigint", "number", "7"), ("text", "code", "'acme'"), ("uuid", "id", "tenancy.find_tenant('acme')")]
    {
        admin.run(&format!("CREATE TABLE by_{key} (tenant {column} REFERENCES tenancy.tenants ({key})); INSERT INTO by_{key} VALUES ({value})"));
    }
    admin.refused("23503", "INSERT INTO by_number VALUES (8)");
    admin.refused("23503", "INSERT INTO by_code VALUES ('nobody')");
}

#[test]
fn administrators_are_made_and_unmade_by_superusers() {
    let db = Db::new();
    db.tenant("acme");
    let role = db.application("deputy");
    let deputy = db.login(&role);
    deputy.sees("SELECT tenancy.is_admin()", &["f"]);
    deputy.refused("42501", "SELECT tenancy.create_tenant('x')");
    deputy.refused("42501", &format!("SELECT tenancy.grant_admin('{role}')"));
    let superuser = db.admin();
    superuser.run(&format!("SELECT tenancy.grant_admin('{role}')"));
    deputy.sees("SELECT tenancy.is_admin()", &["t"]);
    deputy.run("SELECT tenancy.create_tenant('x'); SELECT tenancy.suspend_tenant('x')");
    deputy.sees("SELECT code FROM tenancy.tenants ORDER BY code", &["acme", "x"]);
    deputy.sees("SELECT relation FROM tenancy.protected_tables", &[]);
    // It administers tenants, not administrators, and tables only through the functions.
    deputy.refused("42501", &format!("SELECT tenancy.grant_admin('{role}')"));
    deputy.refused("42501", "UPDATE tenancy.tenants SET status = 'active'");
    deputy.refused("42501", "SELECT * FROM tenancy_internal.protected_tables");
    superuser.run(&format!("SELECT tenancy.revoke_admin('{role}')"));
    deputy.refused("42501", "SELECT tenancy.create_tenant('y')");
    deputy.refused("42501", "SELECT tenancy.switch_tenant('acme')");
    superuser.refused("42704", "SELECT tenancy.grant_admin(0::oid::regrole)");
    superuser.refused("22023", "SELECT tenancy.grant_admin(NULL)");
}

#[test]
fn an_administrator_sees_all_tenants_within_a_tenant_too() {
    let db = Db::new();
    db.tenant("red");
    db.tenant("blue");
    let admin = administrator(&db);
    admin.run("BEGIN; SELECT tenancy.set_tenant('red')");
    admin.sees("SELECT code FROM tenancy.tenants ORDER BY code", &["blue", "red"]);
}

#[test]
fn thousands_of_tenants_fit_the_cache_of_a_session() {
    let db = Db::new();
    let admin = administrator(&db);
    db.admin().run("INSERT INTO tenancy.tenants (code, name) SELECT 't' || n, 'many' FROM generate_series(1, 20000) n");
    admin.sees(
        "SELECT count(DISTINCT tenancy.find_tenant('t' || n)), count(tenancy.find_tenant(n::text)) FROM generate_series(1, 20000) n",
        &["20000|20000"],
    );
    admin.run("SELECT tenancy.set_tenant('t19999')");
}
