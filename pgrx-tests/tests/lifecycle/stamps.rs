//! Who made a row and who changed it, as the server has it.

use pg_tenancy_tests::{Db, NASTY_NAMES, quote_ident};

#[test]
fn the_server_stamps_rows_and_nobody_else_does() {
    let db = Db::new();
    let (red, app, owner) = (db.tenant("red"), db.application("app"), db.role("owner", ""));
    let dba = db.admin();
    dba.run(&format!("GRANT CREATE ON SCHEMA public TO {owner}; SELECT tenancy.grant_admin('{owner}')"));
    let owner = db.login(&owner);
    owner.run(&format!(
        "CREATE TABLE orders (tenant_id uuid NOT NULL, id int, item text, created_by text);
         SELECT tenancy.protect_table('orders');
         GRANT SELECT, INSERT, UPDATE ON orders TO {app};
         INSERT INTO tenancy.plans VALUES ('x')"
    ));
    owner.sees(
        "SELECT step, lock FROM tenancy.plan_stamps('orders')",
        &["1|ACCESS EXCLUSIVE", "2|ACCESS EXCLUSIVE", "3|ACCESS EXCLUSIVE", "4|SHARE ROW EXCLUSIVE"],
    );
    owner.run("SELECT tenancy.enable_stamps('orders')");
    owner.sees("SELECT * FROM tenancy.plan_stamps('orders')", &[]);
    owner.run("SELECT tenancy.enable_stamps('orders')");

    let client = db.enter(&app, &red);
    client.transaction(|session| {
        session.run("SET LOCAL app.current_user_id = 'ann'");
        session.run("INSERT INTO orders (id, item, created_at, created_by, updated_by) VALUES (1, 'a', '2000-01-01', 'forged', 'forged')");
        session.sees(
            "SELECT created_at = now(), updated_at = now(), created_by, updated_by, item FROM orders",
            &["t|t|ann|ann|a"],
        );
    });
    client.run(
        "UPDATE orders SET item = 'b', created_at = NULL, created_by = 'forged', updated_by = 'forged' WHERE id = 1",
    );
    client.sees(
        "SELECT created_at < updated_at, created_by, updated_by = session_user, item FROM orders",
        &["t|ann|t|b"],
    );
    // What was there before is nobody's.
    dba.run("ALTER TABLE orders DISABLE TRIGGER tenancy_stamps");
    client.run("INSERT INTO orders (id) VALUES (2)");
    dba.run("ALTER TABLE orders ENABLE TRIGGER tenancy_stamps");
    client.run("UPDATE orders SET item = 'c' WHERE id = 2");
    client.sees("SELECT created_by, created_at, updated_by = session_user FROM orders WHERE id = 2", &["NULL|NULL|t"]);

    // A column that goes is not stamped; one that is no longer what it was is refused, not filled with what it cannot hold.
    owner.run("ALTER TABLE orders DROP COLUMN updated_by; ALTER TABLE orders ALTER COLUMN updated_at TYPE date");
    client.refused("42804", "UPDATE orders SET item = 'd'");
    owner.run("SELECT tenancy.disable_stamps('orders'); SELECT tenancy.disable_stamps('orders')");
    client.changes(2, "UPDATE orders SET item = 'd'");
    owner.refused("42804", "SELECT tenancy.enable_stamps('orders')");
    owner.sees("SELECT count(*) FROM pg_trigger WHERE tgname = 'tenancy_stamps'", &["0"]);
}

#[test]
fn partitions_and_children_are_stamped_and_names_are_quoted() {
    let db = Db::new();
    let dba = db.admin();
    dba.run(
        "CREATE TABLE logs (id int, part int) PARTITION BY LIST (part);
         CREATE TABLE logs_1 PARTITION OF logs FOR VALUES IN (1);
         CREATE TABLE base (id int);
         CREATE TABLE child () INHERITS (base);
         SELECT tenancy.enable_stamps('logs'), tenancy.enable_stamps('base');
         CREATE TABLE logs_2 PARTITION OF logs FOR VALUES IN (2);
         INSERT INTO logs VALUES (1, 1), (1, 2);
         INSERT INTO child VALUES (1);
         UPDATE logs SET part = 2 WHERE part = 1",
    );
    dba.sees("SELECT count(*) FROM logs WHERE created_by = updated_by AND created_at = updated_at", &["2"]);
    dba.sees("SELECT created_by = session_user FROM base", &["t"]);
    for name in NASTY_NAMES {
        let table = quote_ident(name);
        dba.run(&format!("CREATE TABLE {table} (id int)"));
        dba.query("SELECT tenancy.enable_stamps($1::text::regclass)", &[&table]);
        dba.run(&format!("INSERT INTO {table} VALUES (1)"));
        dba.sees(&format!("SELECT count(*) FROM {table} WHERE created_by = session_user"), &["1"]);
        dba.query("SELECT tenancy.disable_stamps($1::text::regclass)", &[&table]);
    }
    dba.run("CREATE VIEW seen AS SELECT 1 AS x");
    for bad in ["seen", "logs_1", "pg_class", "tenancy.tenants"] {
        let refused = dba.refused("42809", &format!("SELECT tenancy.enable_stamps('{bad}')"));
        assert!(refused.hint().is_some(), "{refused:?}");
    }
    dba.refused("22023", "SELECT tenancy.enable_stamps(NULL)");
    dba.refused("42809", "SELECT tenancy.enable_stamps(0)");
    let steward = db.role("steward", "");
    dba.run(&format!("SELECT tenancy.grant_admin('{steward}')"));
    db.login(&steward).refused("42501", "SELECT tenancy.enable_stamps('base')");
    db.login(&db.application("app")).refused("42501", "SELECT tenancy.enable_stamps('base')");
}
