//! The harness itself: a helper that passes when it should fail would make every test below it worthless.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pg_tenancy_tests::{Cluster, Db, NASTY_NAMES, Shutdown, quote_ident, quote_literal};

/// What the panic said.
#[track_caller]
fn complaint(work: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(work)).expect_err("this was to panic");
    *panic.downcast::<String>().expect("panics here carry a formatted message")
}

#[test]
fn sees_compares_rows_order_and_null() {
    let admin = Db::bare().admin();
    admin.sees("SELECT 1, true, NULL::text UNION ALL SELECT 2, false, ''", &["1|t|NULL", "2|f|"]);
    assert!(complaint(|| admin.sees("VALUES (1), (2)", &["2", "1"])).contains("sees other rows"));
    assert!(complaint(|| admin.sees("VALUES (1)", &[])).contains("sees other rows"));
}

#[test]
fn changes_counts_the_last_statement() {
    let admin = Db::bare().admin();
    admin.run("CREATE TABLE t (n int)");
    admin.changes(3, "INSERT INTO t VALUES (1), (2), (3)");
    admin.changes(0, "DELETE FROM t WHERE n > 3");
    assert!(complaint(|| admin.changes(1, "DELETE FROM t")).contains("rows changed"));
}

#[test]
fn refused_wants_a_refusal_with_that_sqlstate() {
    let admin = Db::bare().admin();
    let refused = admin.refused("22012", "SELECT 1/0");
    assert_eq!(refused.message(), "division by zero");
    assert!(complaint(|| drop(admin.refused("22012", "SELECT 1"))).contains("but was let"));
    assert!(complaint(|| drop(admin.refused("22012", "SELECT nothing"))).contains("42703"));
}

#[test]
fn notices_are_collected() {
    let admin = Db::bare().admin();
    admin.run("DO $$ BEGIN RAISE WARNING 'careful' USING ERRCODE = '01000'; END $$");
    let notices = admin.notices();
    assert_eq!(notices.iter().map(|notice| notice.message()).collect::<Vec<_>>(), ["careful"]);
    assert!(admin.notices().is_empty());
}

#[test]
fn roles_are_real_logins_whatever_their_name() {
    let db = Db::bare();
    for hint in NASTY_NAMES {
        let role = db.role(hint, "");
        let session = db.login(&role);
        session.sees("SELECT session_user", &[role.name()]);
        session.refused("42501", "CREATE ROLE another");
    }
}

#[test]
fn a_database_goes_with_its_last_session_and_takes_its_roles_along() {
    let db = Db::bare();
    let (name, role) = (db.name().to_owned(), db.role("leaver", ""));
    let superuser = db.cluster().superuser();
    let gone = format!(
        "SELECT (SELECT count(*) FROM pg_database WHERE datname = {}), (SELECT count(*) FROM pg_roles WHERE rolname = {})",
        quote_literal(&name),
        quote_literal(role.name())
    );
    let session = db.login(&role);
    db.admin().run(&format!("CREATE TABLE mine (); ALTER TABLE mine OWNER TO {role}"));
    drop(db);
    superuser.sees(&gone, &["1|1"]);
    drop(session);
    superuser.sees(&gone, &["0|0"]);
}

#[test]
fn a_private_cluster_survives_a_restart_and_a_crash() {
    let cluster = Cluster::start(&[("max_connections", "17")]);
    let db = cluster.bare_db();
    db.admin().sees("SHOW max_connections", &["17"]);
    db.admin().run("CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)");
    for how in [Shutdown::Fast, Shutdown::Immediate] {
        cluster.restart(how);
        db.admin().sees("SELECT n FROM kept", &["1"]);
    }
    assert!(cluster.log_text().contains("automatic recovery in progress"), "{}", cluster.log_text());
    cluster.configure(&[("work_mem", "7MB")]);
    cluster.reload();
    db.admin().sees("SHOW work_mem", &["7MB"]);
}

#[test]
fn a_standby_follows_and_refuses_writes() {
    let primary = Cluster::start(&[]);
    let db = primary.bare_db();
    db.admin().run("CREATE TABLE followed (n int); INSERT INTO followed VALUES (1)");
    let standby = primary.standby();
    db.admin().run("INSERT INTO followed VALUES (2)");
    standby.catch_up_with(&primary);
    let reader = db.on(&standby).admin();
    reader.sees("SELECT n FROM followed ORDER BY n", &["1", "2"]);
    reader.refused("25006", "INSERT INTO followed VALUES (3)");
}

#[test]
fn the_pooler_hands_one_server_connection_to_both_clients() {
    let db = Db::bare();
    let role = db.role("pooled", "");
    let pooler = db.pgbouncer(&[]);
    let (one, two) = (pooler.login(&role), pooler.login(&role));
    assert_eq!(one.pid(), two.pid());
    one.run("BEGIN");
    one.run("COMMIT");
    assert_eq!(one.pid(), db.admin().value(&pid_of(role.name())).parse::<i32>().expect("a number"));
}

fn pid_of(role: &str) -> String {
    format!("SELECT pid FROM pg_stat_activity WHERE usename = {}", quote_literal(role))
}

#[test]
fn two_tenants_share_a_table_and_each_call_is_a_transaction_of_one() {
    let (red, blue) = Db::new().two_tenants_sharing("orders");
    red.run("INSERT INTO orders(item) VALUES ('secret')");
    red.sees("SELECT item, tenant_id = red() FROM orders", &["secret|t"]);
    blue.sees("SELECT item FROM orders", &[]);
    blue.changes(0, "UPDATE orders SET item = 'taken'");
    blue.refused("42501", "INSERT INTO orders(tenant_id, item) VALUES (red(), 'forged')");
    assert!(complaint(|| blue.run("SELECT 1/0")).contains("22012"));
    let counted = red.transaction(|session| {
        session.changes(1, "UPDATE orders SET item = 'changed'");
        session.value("SELECT count(*) FROM orders")
    });
    assert_eq!(counted, "1");
    red.session().refused("55000", "SELECT item FROM orders");
}

#[test]
fn a_transaction_that_was_aborted_inside_is_not_taken_for_a_commit() {
    let (red, _blue) = Db::new().two_tenants_sharing("orders");
    let aborted = || red.transaction(|session| drop(session.try_run("SELECT 1/0")));
    assert!(complaint(aborted).contains("25P02"));
    red.sees("SELECT 1", &["1"]);
}

#[test]
fn nasty_names_are_names_of_tables() {
    let admin = Db::bare().admin();
    for name in NASTY_NAMES {
        admin.run(&format!("CREATE TABLE {} ()", quote_ident(name)));
        admin.sees(&format!("SELECT relname FROM pg_class WHERE relname = {}", quote_literal(name)), &[name]);
    }
}
