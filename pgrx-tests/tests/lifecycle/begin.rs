//! The first tenant and the roles; writes that are sent twice.

use pg_tenancy_tests::Db;
use std::thread;

#[test]
fn a_database_is_made_ready_at_once_or_not_at_all() {
    let db = Db::new();
    let dba = db.admin();
    let (app, admin, unsafe_app) = (db.role("app", ""), db.role("admin", ""), db.role("unsafe", "BYPASSRLS"));
    let (both, steward) = (db.role("both", ""), db.role("steward", ""));
    dba.run(&format!("GRANT {admin} TO {both}; SELECT tenancy.grant_admin('{steward}')"));
    for (state, arguments) in [
        ("42501", format!("'main', '{unsafe_app}', '{admin}'")),
        ("42501", format!("'main', '{both}', '{admin}'")),
        ("42501", format!("'main', '{admin}', '{admin}'")),
        ("22023", format!("NULL, '{app}', '{admin}'")),
        ("22023", format!("'main', NULL, '{admin}'")),
        ("22023", format!("'main', '{app}', NULL")),
        ("22023", format!("'123', '{app}', '{admin}'")),
    ] {
        let refused = dba.refused(state, &format!("SELECT tenancy.bootstrap({arguments})"));
        assert!(refused.hint().is_some(), "{refused:?}");
    }
    dba.sees("SELECT count(*) FROM tenancy.tenants", &["0"]);
    // It makes administrators, which is for superusers.
    db.login(&steward).refused("42501", &format!("SELECT tenancy.bootstrap('main', '{app}', '{admin}')"));

    let bootstrap = format!("SELECT tenancy.bootstrap('main', '{app}', '{admin}') = tenancy.find_tenant('main')");
    dba.sees(&bootstrap, &["t"]);
    dba.sees(&bootstrap, &["t"]);
    let (app, admin) = (db.login(&app), db.login(&admin));
    app.run("BEGIN; SELECT tenancy.set_tenant('main'); COMMIT");
    app.refused("42501", "SELECT tenancy.create_tenant('other')");
    admin.run("SELECT tenancy.create_tenant('other')");
}

#[test]
fn a_key_is_used_once_by_each_tenant() {
    let db = Db::new();
    let dba = db.admin();
    let (red, blue) = (db.tenant("red"), db.tenant("blue"));
    let app = db.application("app");
    let (red, blue) = (db.enter(&app, &red), db.enter(&app, &blue));
    red.sees("SELECT tenancy.once('a'), tenancy.once('a'), tenancy.once('quo''te')", &["t|f|t"]);
    red.sees("SELECT tenancy.once('a')", &["f"]);
    blue.sees("SELECT tenancy.once('a')", &["t"]);
    for bad in ["NULL", "''", "repeat('x', 1001)"] {
        red.refused("22023", &format!("SELECT tenancy.once({bad})"));
    }
    red.session().refused("55000", "SELECT tenancy.once('a')");
    red.session().refused("42501", "SELECT * FROM tenancy_internal.once_keys");

    // What is rolled back was not done, so its key is not used.
    red.session().run("BEGIN; SELECT tenancy.set_tenant('red')");
    red.session().sees("SELECT tenancy.once('b')", &["t"]);
    red.session().run("ROLLBACK");
    red.sees("SELECT tenancy.once('b')", &["t"]);

    // Of two at a time one is the first; the other one waits for its end, whichever that is.
    for (end, second) in [("COMMIT", "f"), ("ROLLBACK", "t")] {
        let key = format!("race {end}");
        let first = db.login(&app);
        first.run("BEGIN; SELECT tenancy.set_tenant('red')");
        first.sees(&format!("SELECT tenancy.once('{key}')"), &["t"]);
        let other = db.login(&app);
        let pid = other.pid();
        let waiting = thread::spawn(move || {
            other.run("BEGIN; SELECT tenancy.set_tenant('red')");
            other.value(&format!("SELECT tenancy.once('{key}')"))
        });
        let waits = format!("SELECT count(*) > 0 FROM pg_locks WHERE pid = {pid} AND NOT granted");
        while dba.value(&waits) != "t" {
            thread::yield_now();
        }
        first.run(end);
        assert_eq!(waiting.join().expect("no panic"), second);
    }

    // A key is forgotten after its time, a few with each new one.
    let count = "SELECT count(*) FROM tenancy_internal.once_keys WHERE tenant_id = tenancy.find_tenant('red')";
    dba.run(
        "INSERT INTO tenancy_internal.once_keys SELECT tenancy.find_tenant('red'), 'old ' || g, now() - interval '31 days' FROM generate_series(1, 25) g;
         INSERT INTO tenancy_internal.once_keys SELECT tenancy.find_tenant('red'), 'new', now() - interval '29 days'",
    );
    red.sees("SELECT tenancy.once('new'), tenancy.once('old 25')", &["f|t"]);
    let before: i64 = dba.value(count).parse().expect("a count");
    red.sees("SELECT tenancy.once('c'), tenancy.once('d')", &["t|t"]);
    dba.sees(count, &[&(before + 2 - 14).to_string()]);
    // Kept for ever, by who may say so.
    red.refused("42501", "SET LOCAL tenancy.once_retention = 1");
    dba.run(&format!(
        "UPDATE tenancy_internal.once_keys SET first_at = '2000-01-01'; ALTER ROLE {app} SET tenancy.once_retention = 0"
    ));
    let red = db.enter(&app, &db.tenant("green"));
    drop(red);
    let session = db.login(&app);
    session.run("BEGIN; SELECT tenancy.set_tenant('red')");
    session.sees("SELECT tenancy.once('a')", &["f"]);
    session.run("COMMIT");
    // A tenant that may not write.
    dba.run("SELECT tenancy.set_read_only('blue')");
    blue.refused("55000", "SELECT tenancy.once('z')");
}
