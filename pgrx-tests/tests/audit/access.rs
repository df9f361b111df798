//! Which transaction belonged to whom, in the server's log (`tenancy.log_context`, `tenancy.tag_log`).

use pg_tenancy_tests::{Cluster, Db};

fn lines(db: &Db, pattern: &str) -> Vec<String> {
    db.cluster().log_text().lines().filter(|line| line.contains(pattern)).map(str::to_owned).collect()
}

#[test]
fn a_transaction_of_a_tenant_writes_one_line_without_its_token() {
    let db = Cluster::start(&[
        ("tenancy.log_context", "on"),
        ("shared_preload_libraries", "pg_tenancy"),
        ("log_min_error_statement", "log"),
        ("log_min_messages", "log"),
    ])
    .db();
    let (app, red) = (db.application("app"), db.tenant("red"));
    db.tenant("blue");
    let session = db.login(&app);
    let context = || lines(&db, "tenancy context:");
    session.run("SELECT 1");
    assert_eq!(context().len(), 0);
    session.run("BEGIN; SELECT tenancy.set_tenant('red'); SELECT tenancy.current_tenant_id(); COMMIT");
    assert_eq!(context().len(), 1, "{:?}", context());
    assert!(
        context()[0].ends_with(&format!("tenancy context: tenant \"red\", role \"{}\", client local", app.name())),
        "{:?}",
        context()
    );
    // By whatever key, in whatever way.
    session.run(&format!("BEGIN; SET LOCAL app.current_tenant_id = '{}'; COMMIT", red.id));
    session.run(&format!("BEGIN; SELECT set_config('app.current_tenant_id', '{}', true); COMMIT", red.number));
    assert_eq!(context().len(), 3);
    assert!(context().iter().all(|line| line.contains("tenant \"red\"")), "{:?}", context());
    // What is no tenant may be anything.
    session.refused("42704", "BEGIN; SELECT tenancy.set_tenant('hunter2')");
    session.run("ROLLBACK");
    session.refused("22023", "BEGIN; SELECT tenancy.set_tenant('')");
    session.run("ROLLBACK");
    assert_eq!(context().len(), 3);
    // Nobody but a superuser switches it off.
    session.refused("42501", "SET tenancy.log_context = off");
    let admin = db.admin();
    admin.run("SET tenancy.log_context = off; BEGIN; SELECT tenancy.set_tenant('red'); COMMIT");
    assert_eq!(context().len(), 3);
    // A role that is bound to a tenant says so when it first asks.
    let bound = db.application("bound");
    admin.run(&format!("SELECT tenancy.bind_role('{bound}', 'blue')"));
    db.login(&bound).run("SELECT tenancy.current_tenant_id(), tenancy.current_tenant_code()");
    assert_eq!(context().len(), 4);
    assert!(context()[3].contains("tenant \"blue\""), "{:?}", context());
    // A token gives the right to be the tenant, so no log has it.
    admin.run("SELECT tenancy.add_signing_key('k', 'HS256', repeat('s', 40))");
    let token = admin.value("SELECT tenancy.sign_tenant_token('red')");
    db.login(&app).run(&format!("BEGIN; SELECT tenancy.set_tenant_signed('{token}'); COMMIT"));
    assert_eq!(context().len(), 5);
    assert!(context()[4].contains("tenant \"red\""), "{:?}", context());
    assert_eq!(lines(&db, &token).len(), 0);
}

#[test]
fn a_tag_lasts_as_long_as_the_tenant() {
    let db = Db::new();
    let app = db.application("app");
    db.tenant("red");
    db.tenant("blue");
    let admin = db.admin();
    admin.run(&format!(
        "ALTER DATABASE {} SET tenancy.tag_log = on; ALTER DATABASE {0} SET session_preload_libraries = 'pg_tenancy'",
        db.name()
    ));
    let session = db.login(&app);
    session.run("SET application_name = 'shop'");
    let name = "SHOW application_name";
    session.run("BEGIN");
    session.sees(name, &["shop"]);
    session.run("SELECT tenancy.set_tenant('red')");
    session.sees(name, &["tenant:red"]);
    session.sees("SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()", &["tenant:red"]);
    session.run("COMMIT");
    session.sees(name, &["shop"]);
    session.sees("SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()", &["shop"]);

    session.run("BEGIN; SAVEPOINT s; SET LOCAL app.current_tenant_id = 'red'");
    session.sees(name, &["tenant:red"]);
    session.run("ROLLBACK TO s");
    session.sees(name, &["shop"]);
    session.run("SELECT tenancy.set_tenant('red'); SAVEPOINT t; SELECT tenancy.set_tenant('red'); SAVEPOINT u");
    session.run("ROLLBACK TO t");
    session.sees(name, &["tenant:red"]);
    session.run("SELECT tenancy.clear_tenant()");
    session.sees(name, &["shop"]);
    session.run("ROLLBACK");
    session.sees(name, &["shop"]);

    // An entry of the log has the name that the application gave.
    admin.run(&format!(
        "CREATE TABLE notes (id int, tenant_id uuid NOT NULL); SELECT tenancy.protect_table('notes');
         SELECT tenancy.audit_table('notes'); GRANT INSERT ON notes TO {app}"
    ));
    session.run("BEGIN; SELECT tenancy.set_tenant('red'); INSERT INTO notes (id) VALUES (1); COMMIT");
    admin.sees("SELECT application_name FROM tenancy.audit_log", &["shop"]);

    // What the application sets meanwhile is its own.
    session.run("BEGIN; SELECT tenancy.set_tenant('blue'); SET application_name = 'report'; COMMIT");
    session.sees(name, &["report"]);
    session.refused("42704", "BEGIN; SELECT tenancy.set_tenant('nobody')");
    session.run("ROLLBACK");
    session.sees(name, &["report"]);
    // A setting outside of a transaction ends with its statement.
    session.run("SET app.current_tenant_id = 'red'");
    session.sees(name, &["report"]);

    admin.run("BEGIN; SELECT tenancy.set_tenant('red'); SELECT tenancy.switch_tenant('blue')");
    admin.sees("SELECT 1 WHERE current_setting('application_name') = 'pg_tenancy_tests'", &["1"]);
    admin.run("ROLLBACK; SET tenancy.tag_log = on; BEGIN; SELECT tenancy.set_tenant('red'); SELECT tenancy.switch_tenant('blue')");
    admin.sees(name, &["tenant:blue"]);
    admin.run("SELECT tenancy.clear_tenant()");
    admin.sees(name, &["pg_tenancy_tests"]);
    admin.run("COMMIT");
}

#[test]
fn a_tag_is_there_for_tenants_that_nobody_sets() {
    let db = Db::new();
    let app = db.application("app");
    let long = "é".repeat(50);
    db.tenant(&long);
    let admin = db.admin();
    admin.run(&format!(
        "ALTER DATABASE {} SET tenancy.tag_log = on; ALTER DATABASE {0} SET session_preload_libraries = 'pg_tenancy';
         SELECT tenancy.bind_role('{app}', '{long}')",
        db.name()
    ));
    let session = db.login(&app);
    session.run("BEGIN; SELECT tenancy.current_tenant_id()");
    let shown = session.value("SHOW application_name");
    assert!(shown.starts_with("tenant:??") && shown.len() < 64, "{shown}");
    session.run("COMMIT");
    session.sees("SHOW application_name", &["pg_tenancy_tests"]);
}
