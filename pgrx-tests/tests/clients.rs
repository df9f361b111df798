//! The programs that talk to the server, each in its own manner: psql, Rust's postgres, Python's psycopg with its pipelines.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use pg_tenancy_tests::{Cluster, Db, Role, cluster::data::Folder, process, workspace};

/// psycopg with the libpq that it brings along.
const PSYCOPG: &str = "psycopg[binary]==3.3.3";

/// Plain rows, and of an error its SQLSTATE.
const QUIET: [&str; 5] = ["-XAtq", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=sqlstate"];

#[test]
fn psql_plays_a_script_with_set_local() {
    let (db, app) = shop();
    let script = "BEGIN; SET LOCAL app.current_tenant_id = 'red'; SELECT item FROM orders; COMMIT;
                  BEGIN; SELECT tenancy.set_tenant('blue') \\g /dev/null\n SELECT item FROM orders; COMMIT;";
    assert_eq!(psql(&db, &app, &[], script), Ok("red\nblue".to_owned()));
}

#[test]
fn psql_sends_several_statements_in_one_message() {
    let (db, app) = shop();
    let command = "SET LOCAL app.current_tenant_id = 'red'; SELECT item FROM orders";
    assert_eq!(psql(&db, &app, &["-c", command], ""), Ok("red".to_owned()));
    let single = ["-1", "-c", "SET LOCAL app.current_tenant_id = 'blue'", "-c", "SELECT item FROM orders"];
    assert_eq!(psql(&db, &app, &single, ""), Ok("blue".to_owned()));
    // Two messages without a transaction around them are two transactions.
    let apart = ["-c", "SELECT tenancy.set_tenant('red')", "-c", "SELECT item FROM orders"];
    let refusal = psql(&db, &app, &apart, "").expect_err("the second message has no tenant");
    assert!(refusal.contains("ERROR:  55000"), "{refusal}");
}

#[test]
fn psql_without_autocommit_keeps_the_tenant_until_commit() {
    let (db, app) = shop();
    let script = "\\set AUTOCOMMIT off\n SELECT tenancy.set_tenant('red') \\g /dev/null\n SELECT item FROM orders; COMMIT; SELECT item FROM orders;";
    let refusal = psql(&db, &app, &[], script).expect_err("the tenant ends with COMMIT");
    assert!(refusal.contains("ERROR:  55000"), "{refusal}");
}

#[test]
fn psql_shows_the_hint() {
    let (db, app) = shop();
    let script = "\\set VERBOSITY default\n SELECT item FROM orders;";
    let refusal = psql(&db, &app, &[], script).expect_err("no tenant");
    assert!(refusal.contains("HINT:  Call tenancy.set_tenant(...) at the start of the transaction."), "{refusal}");
}

#[test]
fn options_of_the_connection_set_no_tenant() {
    let (db, app) = shop();
    let mut command = db.program("psql");
    command
        .args(QUIET)
        .args(["-c", "SELECT item FROM orders"])
        .env("PGUSER", app.name())
        .env("PGOPTIONS", "-c app.current_tenant_id=red");
    let refusal = process::output(&mut command).expect_err("no tenant");
    assert!(format!("{refusal:?}").contains("ERROR:  42501"), "{refusal:?}");
}

#[test]
fn rust_binds_the_tenant_as_a_parameter() {
    let (db, app) = shop();
    let session = db.login(&app);
    for tenant in ["red", "blue", "red"] {
        let mut client = session.client();
        let mut transaction = client.transaction().expect("BEGIN");
        transaction.execute("SELECT set_config('app.current_tenant_id', $1, true)", &[&tenant]).expect("set_config");
        let rows = transaction.query("SELECT item FROM orders", &[]).expect("own rows");
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].get::<_, &str>(0), tenant);
        transaction.commit().expect("COMMIT");
    }
    session.refused("55000", "SELECT item FROM orders");
}

#[test]
fn a_statement_prepared_once_gives_each_tenant_its_own_rows() {
    let (db, app) = shop();
    let session = db.login(&app);
    for mode in ["auto", "force_generic_plan", "force_custom_plan"] {
        session.run(&format!("SET plan_cache_mode = {mode}"));
        let prepared =
            session.client().prepare("SELECT item FROM orders WHERE item <> $1").expect("preparing needs no tenant");
        for tenant in ["red", "blue"].iter().cycle().take(16) {
            let mut client = session.client();
            let mut transaction = client.transaction().expect("BEGIN");
            transaction.execute("SELECT tenancy.set_tenant($1)", &[tenant]).expect("set_tenant");
            let rows = transaction.query(&prepared, &[&"nothing"]).expect("own rows");
            let items: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
            assert_eq!(items, [*tenant], "with plan_cache_mode {mode}");
            transaction.commit().expect("COMMIT");
        }
        let stale = session.client().query(&prepared, &[&"nothing"]);
        let error = stale.expect_err("a prepared statement needs a tenant as well");
        assert_eq!(error.code().expect("a SQLSTATE").code(), "55000");
    }
}

#[test]
fn a_portal_read_in_steps_stays_with_its_tenant() {
    let (db, app) = shop();
    let session = db.login(&app);
    let mut client = session.client();
    let mut transaction = client.transaction().expect("BEGIN");
    transaction.execute("SELECT tenancy.set_tenant('red')", &[]).expect("set_tenant");
    let portal = transaction.bind("SELECT item FROM orders, generate_series(1, 30)", &[]).expect("a portal");
    for _ in 0..3 {
        let rows = transaction.query_portal(&portal, 10).expect("ten rows");
        assert_eq!(rows.len(), 10);
        assert!(rows.iter().all(|row| row.get::<_, &str>(0) == "red"));
    }
}

#[test]
fn a_cancelled_statement_takes_its_tenant_along() {
    let (db, app) = shop();
    let session = db.login(&app);
    session.run("SET statement_timeout = '50ms'; BEGIN; SELECT tenancy.set_tenant('red')");
    session.refused("57014", "SELECT pg_sleep(10), item FROM orders");
    session.run("ROLLBACK");
    session.refused("55000", "SELECT item FROM orders");
}

#[test]
fn a_transaction_prepared_for_two_phase_commit_leaves_no_tenant_behind() {
    let (db, app) = shop_in(Cluster::start(&[("max_prepared_transactions", "2")]).db());
    let (one, two) = (db.login(&app), db.login(&app));
    one.run(
        "BEGIN; SELECT tenancy.set_tenant('red'); INSERT INTO orders (item) VALUES ('in two phases');
         PREPARE TRANSACTION 'order'",
    );
    one.refused("55000", "SELECT item FROM orders");
    two.run("COMMIT PREPARED 'order'");
    two.run("BEGIN; SELECT tenancy.set_tenant('red')");
    two.sees("SELECT item FROM orders ORDER BY 1", &["in two phases", "red"]);
    two.run("COMMIT");
    // A decision on a tenant counts when its second phase is over.
    let admin = db.admin();
    admin.run("BEGIN; SELECT tenancy.suspend_tenant('red'); PREPARE TRANSACTION 'suspension'");
    two.run("BEGIN; SELECT tenancy.set_tenant('red'); COMMIT");
    admin.run("COMMIT PREPARED 'suspension'");
    two.refused("55000", "SELECT tenancy.set_tenant('red')");
}

#[test]
fn psycopg_runs_transactions_of_one_tenant_after_another() {
    python("transactions");
}

#[test]
fn psycopg_rolls_nested_blocks_back() {
    python("nested");
}

#[test]
fn psycopg_prepares_once_for_all_tenants() {
    python("prepared");
}

#[test]
fn psycopg_sends_transactions_of_several_tenants_in_one_pipeline() {
    python("pipeline");
}

#[test]
fn psycopg_pipelines_without_begin_are_a_transaction_up_to_each_sync() {
    python("pipeline_without_begin");
}

#[test]
fn psycopg_pipelines_that_fail_run_nothing_as_somebody_else() {
    python("pipeline_that_fails");
}

#[test]
fn psycopg_copies_own_rows_out() {
    python("copying");
}

#[test]
fn psycopg_walks_a_server_side_cursor() {
    python("cursors");
}

#[test]
fn psycopg_writes_many_rows_at_once() {
    python("many_rows");
}

/// A protected table `orders` with a row each of red and blue, named after them, and a role that may use it.
fn shop() -> (Db, Role) {
    shop_in(Db::new())
}

fn shop_in(db: Db) -> (Db, Role) {
    let app = db.application("app");
    db.admin().run(
        "CREATE TABLE orders (tenant_id uuid NOT NULL, item text NOT NULL); SELECT tenancy.protect_table('orders')",
    );
    db.admin().run(&format!("GRANT SELECT, INSERT ON orders TO {app}"));
    for code in ["red", "blue"] {
        let tenant = db.tenant(code);
        db.enter(&app, &tenant).run(&format!("INSERT INTO orders (item) VALUES ('{code}')"));
    }
    (db, app)
}

/// What psql answers to the script, unaligned; `Err` when it ends with an error.
fn psql(db: &Db, role: &Role, arguments: &[&str], script: &str) -> Result<String, String> {
    let folder = Folder::new().unwrap_or_else(|error| panic!("{error:?}"));
    let mut command = db.program("psql");
    command.args(QUIET).args(arguments).env("PGUSER", role.name());
    if !script.is_empty() {
        let file = folder.path().join("script.sql");
        std::fs::write(&file, script).expect("the script can be written");
        command.arg("-f").arg(&file);
    }
    process::output(&mut command).map_err(|error| format!("{error:?}"))
}

/// Tells one of the stories in `clients/stories.py`.
#[track_caller]
fn python(story: &str) {
    let (db, app) = shop();
    let script = workspace::root().join("pgrx-tests/tests/clients/stories.py");
    let mut command = Command::new("python3");
    command
        .arg(script)
        .arg(story)
        .env("PYTHONPATH", psycopg())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONNOUSERSITE", "1")
        .envs(db.cluster().libpq_environment())
        .env("PGUSER", app.name())
        .env("PGDATABASE", db.name());
    process::output(&mut command).unwrap_or_else(|error| panic!("{error:?}"));
}

/// The folder with psycopg, fetched from PyPI once.
fn psycopg() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = workspace::target().join("python");
        // Written last, so that an interrupted download is made again.
        let stamp = folder.join("complete");
        if std::fs::read_to_string(&stamp).ok().as_deref() != Some(PSYCOPG) {
            workspace::remove(&folder).unwrap_or_else(|error| panic!("{error:?}"));
            let mut pip = Command::new("python3");
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore"])
                .args(["--only-binary", ":all:", "--target"])
                .arg(&folder)
                .arg(PSYCOPG);
            process::output(&mut pip).unwrap_or_else(|error| panic!("{error:?}"));
            std::fs::write(&stamp, PSYCOPG).expect("the stamp can be written");
        }
        folder
    })
}
