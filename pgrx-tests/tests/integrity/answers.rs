//! What is said of all findings together: report, assertion, exceptions, diagnosis.

use crate::cases::Company;
use pg_tenancy_tests::workspace::root;
use std::fs;

const NONE: &[&str] = &[];

/// A check that nobody has seen find its defect is no check.
#[test]
fn each_check_is_tried_by_a_test() {
    let folder = root().join("pgrx-tests/tests/integrity");
    let tests: String = fs::read_dir(folder)
        .expect("the tests lie there")
        .map(|entry| fs::read_to_string(entry.expect("a file").path()).expect("a file of text"))
        .collect();
    let is_named = |check: &str| ['"', '\'', '|'].iter().any(|end| tests.contains(&format!("{check}{end}")));
    let checks = Company::open().dba.rows("SELECT check_id FROM tenancy.integrity_checks");
    let untried: Vec<&String> = checks.iter().filter(|check| !is_named(check)).collect();
    assert!(checks.len() > 100 && untried.is_empty(), "{untried:?}");
}

#[test]
fn an_assertion_passes_where_all_is_well_and_says_what_is_not() {
    let company = Company::open();
    let dba = &company.dba;
    let said = dba.value("SELECT tenancy.assert_integrity()");
    assert!(said.ends_with("rows read: no defect") && !said.contains(" 0 rows"), "{said}");
    assert!(dba.value("SELECT tenancy.assert_integrity(tables => '{shop.orders}')").contains(" 1 protected tables"));

    dba.run("SET tenancy.ddl_guard = off; ALTER TABLE shop.orders DISABLE ROW LEVEL SECURITY");
    let refused = dba.refused("23514", "SELECT tenancy.assert_integrity()");
    assert!(refused.detail().is_some_and(|detail| detail.contains("row_security_off on shop.orders")), "{refused:?}");
    assert!(refused.hint().is_some());
    // Another table's defect is none of this one.
    dba.run("SELECT tenancy.assert_integrity(tables => '{shop.customers}')");
    // What is no error does not stop a build.
    dba.run("SELECT tenancy.set_check('row_security_off', severity => 'warning'); SELECT tenancy.assert_integrity('catalog')");
    dba.sees(
        "SELECT severity, object FROM tenancy.check_integrity('catalog') WHERE check_id = 'row_security_off'",
        &["warning|shop.orders"],
    );
    dba.run("SELECT tenancy.set_check('row_security_off')");
    dba.refused("23514", "SELECT tenancy.assert_integrity('catalog')");
    dba.run("SELECT tenancy.set_check('row_security_off', is_on => false); SELECT tenancy.assert_integrity('catalog')");
    dba.sees("SELECT tenancy.integrity_report('catalog') -> 'coverage' -> 'checks_off' ? 'row_security_off'", &["t"]);
}

#[test]
fn nothing_looked_at_is_not_clean() {
    let company = Company::open();
    let dba = &company.dba;
    dba.refused("23514", "SELECT tenancy.assert_integrity(tables => '{shop.notes}')");
    dba.run("SELECT tenancy.set_check(check_id, is_on => false) FROM tenancy.integrity_checks");
    let refused = dba.refused("23514", "SELECT tenancy.assert_integrity()");
    assert_eq!(refused.message(), "nothing was examined");
    dba.sees("SELECT tenancy.integrity_report() -> 'is_clean'", &["false"]);
    dba.run("SELECT tenancy.set_check(check_id) FROM tenancy.integrity_checks; SELECT tenancy.assert_integrity()");

    // An administrator reads catalogs, and no rows of tenants: what was not read is told.
    let operator = company.db.role("operator", "");
    dba.run(&format!("SELECT tenancy.grant_admin('{operator}'); GRANT USAGE ON SCHEMA shop TO {operator}"));
    let operator = company.db.login(&operator);
    operator.run("SELECT tenancy.assert_integrity('catalog')");
    operator.refused("23514", "SELECT tenancy.assert_integrity('data')");
    let skipped =
        operator.value("SELECT jsonb_array_length(tenancy.integrity_report('data') -> 'coverage' -> 'skipped')");
    assert!(skipped.parse::<u32>().is_ok_and(|skipped| skipped > 0), "{skipped}");
    // An application may not ask at all.
    let app = company.db.login(&company.app);
    for call in ["check_integrity()", "integrity_report()", "assert_integrity()", "health()", "diagnose()"] {
        app.refused("42501", &format!("SELECT tenancy.{call}"));
    }
    app.refused("42501", "SELECT tenancy.set_check('row_security_off', false)");
    app.refused("42501", "SELECT tenancy.accept_finding('row_security_off', 'shop.orders', 'mine')");
    app.refused("42501", "SELECT tenancy.unaccept_finding('row_security_off', 'shop.orders')");
}

#[test]
fn looking_changes_nothing_and_needs_no_transaction_of_its_own() {
    let company = Company::open();
    company.dba.run("BEGIN READ ONLY");
    assert_eq!(company.findings("all"), NONE);
    company.dba.run("SELECT tenancy.integrity_report(), tenancy.health(), tenancy.diagnose()");
    company.dba.sees("SELECT pg_current_xact_id_if_assigned()", &["NULL"]);
    company.dba.run("COMMIT");
    assert!(company.dba.notices().is_empty());
}

#[test]
fn an_accepted_finding_comes_back_when_its_object_changes_or_its_time_is_over() {
    let company = Company::open();
    let dba = &company.dba;
    let seen = || company.findings("catalog");
    dba.run("SET tenancy.ddl_guard = off; CREATE TABLE shop.import (tenant_id uuid, line text)");
    assert_eq!(seen(), ["tenant_table_unprotected|shop.import"]);

    dba.refused("22023", "SELECT tenancy.accept_finding('tenant_table_unprotected', 'shop.import', ' ')");
    dba.refused("22023", "SELECT tenancy.accept_finding('tenant_table_unprotected', NULL, 'why')");
    dba.refused("42704", "SELECT tenancy.accept_finding('tenant_table_unprotected', 'shop.orders', 'why')");
    dba.refused("42704", "SELECT tenancy.accept_finding('no such check', 'shop.import', 'why')");
    dba.refused("22023", "SELECT tenancy.accept_finding('tenant_table_unprotected', 'shop.import', 'why', now())");
    dba.run(
        "SELECT tenancy.accept_finding('tenant_table_unprotected', 'shop.import', 'read by the import alone', 'tomorrow')",
    );
    assert_eq!(seen(), NONE);
    dba.run("SELECT tenancy.assert_integrity()");
    dba.sees(
        "SELECT check_id, object, reason, is_past, accepted_by FROM tenancy.accepted_findings",
        &["tenant_table_unprotected|shop.import|read by the import alone|f|postgres"],
    );
    dba.sees("SELECT tenancy.integrity_report() -> 'accepted' -> 0 ->> 'object'", &["shop.import"]);

    // It is the table that was accepted, not whatever has its name.
    for change in [
        "ALTER TABLE shop.import ADD COLUMN card text",
        "GRANT SELECT ON shop.import TO PUBLIC",
        "ALTER TABLE shop.import ENABLE ROW LEVEL SECURITY",
        "DROP TABLE shop.import; CREATE TABLE shop.import (tenant_id uuid, line varchar)",
        "ALTER TABLE shop.import RENAME TO imported",
    ] {
        dba.run(&format!("BEGIN; {change}"));
        let back = seen();
        assert!(
            back.iter().any(|found| found.starts_with("tenant_table_unprotected|shop.import")),
            "{change}: {back:?}"
        );
        dba.run("ROLLBACK");
    }
    dba.run("UPDATE tenancy_internal.accepted_findings SET until = now() - interval '1 second'");
    assert_eq!(seen(), ["tenant_table_unprotected|shop.import"]);
    dba.sees("SELECT state FROM tenancy.health() WHERE part = 'exceptions'", &["warning"]);
    dba.run("SELECT tenancy.unaccept_finding('tenant_table_unprotected', 'shop.import')");
    dba.refused("42704", "SELECT tenancy.unaccept_finding('tenant_table_unprotected', 'shop.import')");
}

#[test]
fn a_diagnosis_names_the_broken_link() {
    let company = Company::open();
    let dba = &company.dba;
    let broken = |arguments: &str| {
        let call = format!("SELECT link || ': ' || detail FROM tenancy.diagnose({arguments}) WHERE state = 'broken'");
        dba.rows(&company.named(&call))
    };
    let app_on = |target: &str| format!("'red', 'APP', '{target}'");
    assert_eq!(broken(&app_on("shop.orders")), NONE);
    dba.sees(
        &company.named("SELECT state, detail FROM tenancy.diagnose('red', 'APP', 'shop.orders') WHERE link = 'rows'"),
        &["ok|shop.orders has 2 rows of \"red\"."],
    );

    // It sees nothing, or an error.
    assert!(broken("'violet', 'APP'")[0].starts_with("tenant: There is no tenant"));
    dba.run("SELECT tenancy.suspend_tenant('blue', 'unpaid')");
    let suspended = broken("'blue', 'APP', 'shop.orders'");
    assert!(
        suspended.len() == 1 && suspended[0].contains("suspended") && suspended[0].contains("unpaid"),
        "{suspended:?}"
    );
    dba.run(&company.named("REVOKE USAGE ON SCHEMA shop FROM APP"));
    assert!(broken(&app_on("shop.orders")).iter().any(|link| link.starts_with("privilege: ")));
    dba.run(&company.named("GRANT USAGE ON SCHEMA shop TO APP"));

    // It sees another tenant's rows.
    assert!(broken(&app_on("shop.notes"))[0].starts_with("policy: shop.notes is not protected"));
    dba.run("BEGIN; SET LOCAL tenancy.ddl_guard = off; ALTER POLICY tenancy_isolation ON shop.orders USING (true)");
    let altered = broken(&app_on("shop.orders"));
    assert!(
        altered.len() == 1 && altered[0].starts_with("policy: ") && altered[0].contains("tenancy_isolation"),
        "{altered:?}"
    );
    dba.run("ROLLBACK");
    dba.run(&company.named("BEGIN; ALTER ROLE APP BYPASSRLS"));
    assert!(broken(&app_on("shop.orders"))[0].starts_with("role: "));
    dba.run("ROLLBACK");

    // Of its own transaction the role itself tells, if it may ask.
    dba.run("BEGIN; SELECT tenancy.set_tenant('red')");
    dba.sees("SELECT state FROM tenancy.diagnose() WHERE link = 'context'", &["ok"]);
    dba.sees("SELECT state FROM tenancy.diagnose('blue') WHERE link = 'context' AND state = 'broken'", &["broken"]);
    dba.run("ROLLBACK");
    dba.sees("SELECT state FROM tenancy.diagnose() WHERE link = 'context'", &["broken"]);
}
