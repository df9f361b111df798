//! Roles, settings and the server: what an application's role can become is found with the way there.

use crate::cases::{Case, Company};
use pg_tenancy_tests::names::unique;
use pg_tenancy_tests::quote_ident;

/// OPS and REPORT are roles of a case, rolled back with it; THIS is the company's database.
fn try_all(company: &Company, scope: &str, cases: Vec<Case>) {
    let (ops, report, database) = (unique("ops"), unique("rep\"ort"), quote_ident(company.db.name()));
    let named = |text: &'static str| -> &'static str {
        let text = text.replace("OPS", &quote_ident(&ops)).replace("REPORT", &quote_ident(&report));
        company.named(&text.replace("THIS", &database)).leak()
    };
    let also = |what: &&'static str| -> &'static str {
        let (check, object) = what.split_once('|').expect("check|object");
        format!("{check}|{}", bare(named(object))).leak()
    };
    for case in cases {
        let also = case.also.iter().map(also).collect::<Vec<_>>().leak();
        company.tries(scope, &Case { seed: named(case.seed), object: bare(named(case.object)), also, ..case });
    }
}

/// A name as `pg_identify_object` has it: in quotes only where it must be.
fn bare(name: &str) -> &str {
    let plain = name.trim_matches('"');
    if plain.contains('"') { name } else { plain }
}

#[test]
fn what_an_applications_role_can_do_or_become_is_found_and_mended() {
    let company = Company::open();
    let mut cases = vec![
        Case::new("role_superuser", "ALTER ROLE APP SUPERUSER", "APP"),
        Case::new("role_superuser", "CREATE ROLE OPS SUPERUSER; GRANT OPS TO APP", "APP"),
        Case::new("role_bypasses", "ALTER ROLE APP BYPASSRLS", "APP"),
        Case::new(
            "role_bypasses",
            "CREATE ROLE OPS; CREATE ROLE REPORT BYPASSRLS; GRANT REPORT TO OPS; GRANT OPS TO APP",
            "APP",
        ),
        Case::new(
            "role_bypasses",
            "CREATE ROLE REPORT LOGIN BYPASSRLS; GRANT SELECT (what) ON shop.events TO REPORT",
            "REPORT",
        ),
        Case::new("role_owner", "CREATE ROLE OPS; GRANT OWNER TO OPS; GRANT OPS TO APP", "APP"),
        Case::new(
            "role_owner",
            "CREATE ROLE OPS; GRANT OWNER TO OPS; SELECT tenancy.grant_admin('OPS'); GRANT OPS TO APP",
            "APP",
        )
        .also(&["role_admin|APP"]),
        // Its members' way leads through it.
        Case::new("role_owner", "CREATE ROLE OPS LOGIN; GRANT APP TO OPS; GRANT OWNER TO APP", "APP"),
        Case::new("role_owner", "ALTER TABLE shop.events_2027 owner to APP", "APP")
            .mended_by("ALTER TABLE shop.events_2027 owner to OWNER"),
        Case::new(
            "role_admin",
            "CREATE ROLE OPS LOGIN; SELECT tenancy.grant_admin('OPS'); GRANT SELECT ON shop.orders TO OPS",
            "OPS",
        ),
        Case::new("role_admin", "CREATE ROLE OPS; SELECT tenancy.grant_admin('OPS'); GRANT OPS TO APP", "APP"),
        Case::new("role_replication", "ALTER ROLE APP REPLICATION", "APP"),
        Case::new("role_server_files", "GRANT pg_execute_server_program TO APP", "APP"),
        Case::new("role_server_files", "CREATE ROLE OPS; GRANT pg_read_server_files TO OPS; GRANT OPS TO APP", "APP"),
        Case::new("role_all_data", "GRANT pg_read_all_data TO APP", "APP"),
        Case::new("role_monitors", "GRANT pg_read_all_stats TO APP", "APP"),
    ];
    if company.db.cluster().major() < 16 {
        cases.push(Case::new("role_createrole", "ALTER ROLE APP CREATEROLE", "APP"));
    }
    try_all(&company, "roles", cases);
}

#[test]
fn a_way_to_a_dangerous_role_is_spelled_out_and_counts_only_where_it_can_be_gone() {
    let company = Company::open();
    let ops = unique("ops");
    let text = |sql: &str| company.named(&sql.replace("OPS", &ops));
    company.dba.run("BEGIN");
    company.dba.run(&text("CREATE ROLE OPS; GRANT OWNER TO OPS; GRANT OPS TO APP"));
    let (app, owner) = (company.app.to_string(), company.owner.to_string());
    let (app, owner) = (bare(&app), bare(&owner));
    company.dba.sees(
        "SELECT detail FROM tenancy.check_integrity('roles')",
        &[&format!(
            "Role \"{owner}\" owns protected tables and could take their protection off; the way there is {app} -> {ops} -> {owner}."
        )],
    );
    // Who has no table of this database to use, and was not let in, is no business of its.
    company.dba.run("ROLLBACK; BEGIN");
    company.dba.run(&text("CREATE ROLE OPS LOGIN BYPASSRLS REPLICATION CREATEROLE; GRANT OWNER TO OPS"));
    let none: &[&str] = &[];
    assert_eq!(company.findings("roles"), none);
    // An exemption says that somebody knows; its end, that nobody does any more.
    company.dba.run(&text(
        "GRANT SELECT ON shop.orders TO OPS; REVOKE OWNER FROM OPS; ALTER ROLE OPS NOREPLICATION NOCREATEROLE",
    ));
    assert_eq!(company.findings("roles"), [format!("role_bypasses|{ops}")]);
    company.dba.run(&text("SELECT tenancy.exempt_role('OPS', 'reports over all tenants')"));
    assert_eq!(company.findings("roles"), none);
    company.dba.run("UPDATE tenancy_internal.exempt_roles SET until = now()");
    assert_eq!(company.findings("roles"), [format!("exemption_past|{ops}"), format!("role_bypasses|{ops}")]);
    company.dba.run("ROLLBACK");
    if company.db.cluster().major() >= 16 {
        company.dba.run("BEGIN");
        company.dba.run(&text("CREATE ROLE OPS BYPASSRLS; GRANT OPS TO APP WITH INHERIT TRUE, SET FALSE"));
        assert_eq!(company.findings("roles"), none, "BYPASSRLS is not inherited");
        company.dba.run(&text("GRANT OPS TO APP WITH ADMIN TRUE"));
        assert_eq!(company.findings("roles"), [format!("role_bypasses|{app}")], "it can grant itself SET");
        company.dba.run(&text("REVOKE OPS FROM APP; GRANT OWNER TO APP WITH INHERIT FALSE, SET FALSE"));
        assert_eq!(company.findings("roles"), none);
        company.dba.run(&text("GRANT OWNER TO APP WITH INHERIT TRUE"));
        assert_eq!(company.findings("roles"), [format!("role_owner|{app}")]);
        company.dba.run("ROLLBACK");
    }
    // Lists for a person to read, when he asks.
    company.dba.run("BEGIN");
    company.dba.run(
        "INSERT INTO tenancy_internal.integrity_settings (check_id, is_on)
         VALUES ('login_owner', true), ('login_admin', true), ('login_superuser', true)",
    );
    company.dba.run(&text("CREATE ROLE OPS LOGIN; SELECT tenancy.grant_admin('OPS')"));
    let found = company.findings("roles");
    for expected in
        [format!("login_owner|{owner}"), format!("login_admin|{ops}"), "login_superuser|postgres".to_owned()]
    {
        assert!(found.contains(&expected), "{expected} in {found:?}");
    }
    company.dba.run("ROLLBACK");
}

#[test]
fn exemptions_bindings_and_settings_that_open_something_are_found_and_mended() {
    let company = Company::open();
    let mut cases = vec![
        Case::new(
            "exemption_idle",
            "CREATE ROLE REPORT BYPASSRLS; SELECT tenancy.exempt_role('REPORT', 'x'); ALTER ROLE REPORT NOBYPASSRLS",
            "REPORT",
        ),
        Case::new(
            "exemption_idle",
            "CREATE ROLE REPORT BYPASSRLS; SELECT tenancy.exempt_role('REPORT', 'x'); DROP ROLE REPORT",
            "tenancy_internal.exempt_roles",
        ),
        Case::new(
            "exemption_past",
            "CREATE ROLE REPORT BYPASSRLS; SELECT tenancy.exempt_role('REPORT', 'x'); UPDATE tenancy_internal.exempt_roles SET until = now()",
            "REPORT",
        ),
        Case::new("binding_void", "SELECT tenancy.bind_role('APP', 'red'); SELECT tenancy.delete_tenant('red')", "APP"),
        Case::new(
            "binding_void",
            "CREATE ROLE OPS LOGIN; SELECT tenancy.bind_role('OPS', 'red'); DROP ROLE OPS",
            "tenancy_internal.role_bindings",
        ),
        // Where the library is not loaded PostgreSQL stores anything.
        Case::new(
            "setting_invalid",
            "INSERT INTO pg_db_role_setting VALUES (0, 'APP'::regrole, '{tenancy.context_mod=signed}')",
            "APP",
        ),
        Case::new(
            "setting_invalid",
            "INSERT INTO pg_db_role_setting SELECT oid, 0, '{tenancy.strictness=stirct}' FROM pg_database WHERE datname = 'DBNAME'",
            "THIS",
        )
        .mended_by("ALTER DATABASE DBNAME SET tenancy.strictness = standard"),
        Case::new("setting_weak", "ALTER ROLE APP SET session_replication_role = replica", "APP"),
        Case::new("setting_weak", "ALTER ROLE APP IN DATABASE THIS SET tenancy.fence_superusers = no", "APP"),
        Case::new("setting_weak", "ALTER DATABASE THIS SET tenancy.ddl_guard = warn", "THIS"),
        Case::new("setting_lenient", "ALTER DATABASE THIS SET tenancy.missing_context = empty", "THIS"),
        Case::new("setting_lenient", "ALTER ROLE APP SET tenancy.context_lifetime = session", "APP"),
        Case::new("setting_row_security", "ALTER ROLE APP SET row_security = off", "APP"),
        Case::new(
            "setting_pin",
            "ALTER ROLE APP SET app.current_tenant_id = '00000000-0000-4000-8000-000000000000'",
            "APP",
        ),
        Case::new(
            "setting_pin",
            "ALTER DATABASE THIS SET app.current_tenant_id = 'red'; SELECT tenancy.delete_tenant('red')",
            "THIS",
        ),
    ];
    if company.db.cluster().major() >= 15 {
        cases.push(Case::new(
            "setting_granted",
            "CREATE ROLE OPS; GRANT OPS TO APP; GRANT SET ON PARAMETER session_replication_role TO OPS, APP",
            "session_replication_role",
        ));
        cases.push(Case::new(
            "setting_granted",
            "GRANT ALTER SYSTEM ON PARAMETER tenancy.ddl_guard TO PUBLIC",
            "tenancy.ddl_guard",
        ));
    }
    try_all(&company, "roles", cases);
    try_all(
        &company,
        "catalog",
        vec![Case::new(
            "audit_not_enforced",
            "SELECT tenancy.audit_table('shop.orders', ignore_columns => '{number}', redact_columns => '{item}');
             SET LOCAL tenancy.ddl_guard = off; DROP TRIGGER tenancy_audit_update ON shop.orders",
            "shop.orders",
        )],
    );
}

#[test]
fn the_server_is_judged_and_an_audit_log_that_nobody_maintains() {
    let company = Company::open();
    company.dba.run("SELECT tenancy.audit_table('shop.orders')");
    let none: &[&str] = &[];
    assert_eq!(company.findings("catalog"), none);
    company.dba.run(
        "DO $$ DECLARE p regclass; BEGIN
             FOR p IN SELECT inhrelid::regclass FROM pg_inherits
                       WHERE inhparent = 'tenancy_internal.audit_chunks'::regclass
                         AND inhrelid <> 'tenancy_internal.audit_chunks_default'::regclass LOOP
                 EXECUTE format('DROP TABLE %s', p);
             END LOOP;
         END $$;
         INSERT INTO shop.orders (tenant_id, customer, item) SELECT tenant_id, id, 'lamp' FROM shop.customers",
    );
    assert_eq!(
        company.findings("catalog"),
        ["audit_misplaced|tenancy_internal.audit_chunks_default", "audit_unmaintained|tenancy_internal.audit_chunks"]
    );
    let remedy = company.dba.value("SELECT DISTINCT remedy FROM tenancy.check_integrity('catalog')");
    company.dba.run(&remedy);
    assert_eq!(company.findings("catalog"), none);
    company.dba.run("DELETE FROM tenancy_internal.integrity_settings");
    let mut expected = vec!["server_unfenced"];
    if company.dba.value("SELECT server_note FROM tenancy.verify_context()") != "NULL" {
        expected.insert(0, "server_release");
    }
    company.dba.sees("SELECT check_id FROM tenancy.check_integrity('roles') ORDER BY 1", &expected);
}
