//! The server knows who made a row and when, whatever a statement says.

use pg_tenancy_tests::{Db, NASTY_NAMES, quote_ident, quote_literal};

#[test]
fn nobody_forges_a_stamp() {
    let db = Db::new();
    let (dba, app, red) = (db.admin(), db.application("app"), db.tenant("red"));
    dba.run(&format!(
        "CREATE TABLE orders (id int PRIMARY KEY, tenant_id uuid NOT NULL, item text, created_at timestamptz);
         INSERT INTO orders VALUES (0, tenancy.find_tenant('red'), 'old', '2020-01-01');
         SELECT tenancy.protect_table('orders');
         SELECT tenancy.enable_stamps('orders');
         SELECT tenancy.audit_table('orders', ignore_columns => '{{updated_at, updated_by}}');
         GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO {app}"
    ));
    let client = db.enter(&app, &red);
    client.session().run("SET app.current_user_id = 'alice'");
    client.run(
        "INSERT INTO orders (id, item, created_at, created_by, updated_at, updated_by)
         VALUES (1, 'x', '1999-01-01', 'mallory', 'infinity', 'mallory')",
    );
    let stamps = "SELECT created_by, updated_by, created_at > now() - interval '1 minute', updated_at = created_at
                    FROM orders WHERE id = 1";
    client.sees(stamps, &["alice|alice|t|t"]);
    // Who is nobody to the application is the role that has logged in, not the one it plays.
    client.session().run("RESET app.current_user_id");
    client.changes(
        1,
        "UPDATE orders SET created_by = 'mallory', created_at = '1999-01-01', updated_by = NULL WHERE id = 1",
    );
    client.sees(stamps, &[&format!("alice|{}|t|f", app.name())]);
    client.changes(
        1,
        "INSERT INTO orders (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET created_by = EXCLUDED.created_by",
    );
    client.sees(stamps, &[&format!("alice|{}|t|f", app.name())]);
    // What was there before stays until the row changes; an UPDATE that changes stamps alone is no entry of the audit.
    client.sees("SELECT created_at = '2020-01-01', updated_at, created_by FROM orders WHERE id = 0", &["t|NULL|NULL"]);
    let entries = "SELECT count(*) FROM tenancy.audit_log WHERE action = 'UPDATE'";
    let before = dba.value(entries);
    client.changes(1, "UPDATE orders SET item = item WHERE id = 0");
    assert_eq!(dba.value(entries), before);
    // A restore and replication bring rows with their stamps.
    dba.run("SET session_replication_role = replica");
    dba.run("UPDATE orders SET created_by = 'restored' WHERE id = 1");
    dba.sees("SELECT created_by FROM orders WHERE id = 1", &["restored"]);
}

#[test]
fn stamps_go_along_with_partitions_children_and_drops() {
    let db = Db::new();
    let (dba, owner) = (db.admin(), db.role("owner", ""));
    dba.run(&format!(
        "CREATE TABLE log (id int, k int) PARTITION BY LIST (k);
         CREATE TABLE log_1 PARTITION OF log FOR VALUES IN (1);
         SELECT tenancy.enable_stamps('log');
         CREATE TABLE log_2 PARTITION OF log FOR VALUES IN (2);
         CREATE TABLE parent (id int);
         CREATE TABLE child () INHERITS (parent);
         SELECT tenancy.enable_stamps('parent');
         ALTER TABLE parent OWNER TO {owner};
         GRANT CREATE ON SCHEMA public TO {owner}"
    ));
    // A row that goes to another partition is changed, not made.
    dba.run("SET app.current_user_id = 'maker'; INSERT INTO log VALUES (1, 1)");
    dba.run("SET app.current_user_id = 'mover'");
    dba.changes(1, "UPDATE log SET k = 2");
    dba.sees(
        "SELECT tableoid::regclass, created_by, updated_by, updated_at > created_at FROM log",
        &["log_2|maker|mover|t"],
    );
    dba.changes(1, "DELETE FROM log");
    dba.run("INSERT INTO log VALUES (2, 2)");
    dba.sees("SELECT created_by FROM log", &["mover"]);
    // A child made later, by a role that is no administrator.
    db.login(&owner).run("CREATE TABLE late () INHERITS (parent)");
    for table in ["child", "late"] {
        dba.run(&format!("INSERT INTO {table} VALUES (1)"));
        dba.sees(&format!("SELECT created_by FROM {table}"), &["mover"]);
    }
    dba.sees("SELECT relation, is_enforced FROM tenancy.stamped_tables ORDER BY 1", &["log|t", "parent|t"]);
    dba.refused("42809", "SELECT tenancy.enable_stamps('log_1')");
    dba.run("DROP TABLE parent CASCADE");
    dba.sees("SELECT relation FROM tenancy_internal.stamped_tables", &["log"]);
}

#[test]
fn what_was_planned_is_done_once_and_undone() {
    let db = Db::new();
    let (dba, stranger) = (db.admin(), db.role("stranger", ""));
    for name in NASTY_NAMES {
        let table = quote_ident(name);
        let literal = quote_literal(&table);
        let shape = format!(
            "SELECT attname FROM pg_attribute WHERE attrelid = {literal}::regclass AND attnum > 0 AND NOT attisdropped"
        );
        dba.run(&format!("CREATE TABLE {table} (id int, created_by varchar)"));
        let planned = dba.rows(&format!("SELECT statement FROM tenancy.plan_stamps({literal})"));
        assert_eq!(planned.len(), 4, "{planned:#?}");
        dba.run(&format!("SELECT tenancy.enable_stamps({literal}); SELECT tenancy.enable_stamps({literal})"));
        dba.sees(&format!("SELECT * FROM tenancy.plan_stamps({literal})"), &[]);
        dba.run(&format!("INSERT INTO {table} VALUES (1)"));
        dba.run(&format!("SELECT tenancy.disable_stamps({literal}, drop_columns => true)"));
        dba.sees(&shape, &["id", "created_by"]);
        dba.run(&format!("DROP TABLE {table}"));
    }
    dba.run("CREATE TABLE wrong (id int, created_at timestamp); CREATE TABLE kept (id int); CREATE VIEW v AS SELECT 1");
    dba.refused("42804", "SELECT tenancy.enable_stamps('wrong')");
    dba.refused("42809", "SELECT tenancy.enable_stamps('v')");
    dba.refused("42704", "SELECT tenancy.disable_stamps('kept')");
    dba.refused("22023", "SELECT tenancy.enable_stamps(NULL)");
    dba.run(&format!("SELECT tenancy.grant_admin('{stranger}')"));
    db.login(&stranger).refused("42501", "SELECT tenancy.enable_stamps('kept')");
    dba.run("SELECT tenancy.enable_stamps('kept'); INSERT INTO kept VALUES (1); ALTER TABLE kept RENAME updated_by TO changed_by");
    dba.refused("55000", "INSERT INTO kept VALUES (2)");
    dba.sees("SELECT is_enforced FROM tenancy.stamped_tables", &["f"]);
    dba.run("SELECT tenancy.enable_stamps('kept'); INSERT INTO kept VALUES (2); SELECT tenancy.disable_stamps('kept')");
    dba.sees("SELECT count(created_at) FROM kept", &["2"]);
}
