//! What a backup brings back, and what is left when the extension goes: never an open table.

use std::{
    fs,
    path::{Path, PathBuf},
};

use pg_tenancy_tests::{Db, Role, cluster::data::Folder, process};

#[path = "dump/world.rs"]
mod world;
use world::{Shop, portrait, same_portraits};

const PROTECT_AGAIN: &str = "SET search_path = shop;
    SELECT tenancy.protect_table('customers'); SELECT tenancy.protect_table('orders');
    SELECT tenancy.protect_table('events', tenant_column => 'tenant_number', reference => 'foreign_key');
    SELECT tenancy.protect_table('templates', access => 'shared');
    SELECT tenancy.protect_table('countries', access => 'reference');
    SELECT tenancy.protect_table('\"s < e\"', tenant_column => 'quo\"te')";

#[test]
fn a_plain_dump_brings_everything_back() {
    let shop = a_shop();
    let (folder, restored) = (Folder::new().expect("a folder"), Db::bare());
    let file = dump(&shop.db, &folder, &[]);
    play(&restored, &file);
    same(&shop.db, &restored);
    shop.is_isolated_in(&restored);
}

#[test]
fn a_parallel_restore_in_one_go_brings_everything_back() {
    let shop = a_shop();
    // A foreign key to the registry has to wait for the registry's rows, and pg_restore cannot know: see the next test.
    let dba = shop.db.admin();
    dba.run("SELECT tenancy.unprotect_table('shop.events')");
    dba.run("SELECT tenancy.protect_table('shop.events', tenant_column => 'tenant_number')");
    let (folder, restored) = (Folder::new().expect("a folder"), Db::bare());
    let file = dump(&shop.db, &folder, &["--format=custom"]);
    restore(&restored, &file, &["--jobs=2"]);
    same(&shop.db, &restored);
    shop.is_isolated_in(&restored);
}

#[test]
fn a_parallel_restore_by_sections_brings_foreign_keys_to_the_registry_back_too() {
    let shop = a_shop();
    let (folder, restored) = (Folder::new().expect("a folder"), Db::bare());
    let file = dump(&shop.db, &folder, &["--format=custom"]);
    for section in ["pre-data", "data", "post-data"] {
        let section = format!("--section={section}");
        restore(&restored, &file, &[&section, "--jobs=2"]);
    }
    same(&shop.db, &restored);
    shop.is_isolated_in(&restored);
}

#[test]
fn a_restore_over_the_old_database_brings_everything_back() {
    let shop = a_shop();
    let folder = Folder::new().expect("a folder");
    let before = portrait(&shop.db);
    let file = dump(&shop.db, &folder, &["--format=custom"]);
    restore(&shop.db, &file, &["--clean", "--if-exists"]);
    same_portraits(&before, &portrait(&shop.db));
    shop.is_isolated_in(&shop.db);
}

#[test]
fn the_past_of_a_row_reaches_back_beyond_a_dump() {
    let shop = a_shop();
    let dba = shop.db.admin();
    dba.run("CREATE TABLE shop.notes (x int, id int PRIMARY KEY, y int, a text, b text, c text); ALTER TABLE shop.notes DROP x");
    dba.run("SELECT tenancy.audit_table('shop.notes', tenant_column => NULL, allow_unscoped => true)");
    dba.run("INSERT INTO shop.notes VALUES (1, 0, 'a', 'b', 'c')");
    let made = dba.value("SELECT clock_timestamp()");
    // A dump numbers the columns anew: x and y leave no gap.
    dba.run(
        "ALTER TABLE shop.notes DROP y; ALTER TABLE shop.notes RENAME a TO z; ALTER TABLE shop.notes RENAME b TO a",
    );
    let renamed = dba.value("SELECT clock_timestamp()");
    let restored = restored_copy(&shop);
    let there = restored.admin();
    let was = |at: &str| format!("SELECT tenancy.row_as_of('shop.notes', '{{\"id\": 1}}', '{at}')");
    let expect_past = || {
        there.sees(&was(&made), &[r#"{"a": "a", "b": "b", "c": "c", "y": 0, "id": 1}"#]);
        there.sees(&was(&renamed), &[r#"{"a": "b", "c": "c", "z": "a", "id": 1}"#]);
    };
    expect_past();
    // Also when the first thing that happens there is a column of the same name in another's place.
    there.run("ALTER TABLE shop.notes DROP c, ADD c text DEFAULT 'other'");
    expect_past();
    there.run("ALTER TABLE shop.notes RENAME z TO y; UPDATE shop.notes SET a = 'B', y = 'A'");
    expect_past();
    there.sees(&was("infinity"), &[r#"{"a": "B", "c": "other", "y": "A", "id": 1}"#]);
}

#[test]
fn a_restore_that_left_the_policies_out_is_seen_and_mended() {
    let shop = a_shop();
    let (folder, restored) = (Folder::new().expect("a folder"), Db::bare());
    let file = dump(&shop.db, &folder, &["--format=custom"]);
    // What pg_dump --no-policies does since 18.
    let mut list = restored.program("pg_restore");
    let list = process::output(list.arg("--list").arg(&file)).expect("a table of contents");
    let is_kept = |line: &&str| !line.contains(" POLICY ") && !line.contains(" ROW SECURITY ");
    let kept: Vec<&str> = list.lines().filter(is_kept).collect();
    let chosen = folder.path().join("list");
    fs::write(&chosen, kept.join("\n")).expect("the list can be written");
    restore(&restored, &file, &["--use-list", &chosen.display().to_string()]);

    let admin = restored.admin();
    admin.sees("SELECT count(*) FILTER (WHERE is_enforced), count(*) FROM tenancy.protected_tables", &["0|8"]);
    admin.run(PROTECT_AGAIN);
    admin.sees("SELECT count(*) FILTER (WHERE is_enforced), count(*) FROM tenancy.protected_tables", &["8|8"]);
    // The user's own policy was left out as well, and is the user's to bring back.
    admin.run("CREATE POLICY mine ON shop.\"s < e\" USING (note IS DISTINCT FROM 'secret'); DROP POLICY tenancy_open ON shop.\"s < e\"");
    shop.is_isolated_in(&restored);
}

#[test]
fn protected_schemas_and_tenant_views_come_back_and_go_on() {
    let shop = a_shop();
    let dba = shop.db.admin();
    dba.run(&format!(
        "SELECT tenancy.protect_schema('shop');
         CREATE MATERIALIZED VIEW shop.totals AS SELECT tenant_id, count(*) AS orders FROM shop.orders GROUP BY 1;
         SELECT tenancy.tenant_view('shop.totals'); GRANT SELECT ON shop.totals_of_tenant TO {}",
        shop.app
    ));
    let restored = restored_copy(&shop);
    restored.enter(&shop.app, &shop.red).sees("SELECT orders FROM shop.totals_of_tenant", &["1"]);
    let admin = restored.admin();
    admin.sees("SELECT view, matview FROM tenancy_internal.tenant_views", &["shop.totals_of_tenant|shop.totals"]);
    restored.login(&shop.owner).run("CREATE TABLE shop.later (id int, tenant_id uuid)");
    admin.sees("SELECT is_enforced FROM tenancy.protected_tables WHERE relation = 'shop.later'::regclass", &["t"]);
}

#[test]
fn tenant_numbers_go_on_where_they_were() {
    let shop = a_shop();
    let restored = restored_copy(&shop);
    let next = "SELECT number FROM tenancy.tenants WHERE code = 'next'";
    let number_in = |db: &Db| {
        db.admin().run("SELECT tenancy.create_tenant('next')");
        db.admin().value(next).parse::<i64>().expect("a number")
    };
    let number = number_in(&restored);
    assert!(number > 500, "{number}");
    assert_eq!(number, number_in(&shop.db));
}

#[test]
fn plans_come_back_edited_or_new_and_an_untouched_one_is_the_new_versions() {
    let shop = a_shop();
    let restored = restored_copy(&shop);
    restored.admin().sees(
        "SELECT name, limits, builtin FROM tenancy.plans WHERE name <> 'enterprise' ORDER BY name",
        &[
            "free|{\"users\": 7}|f",
            "gold|{\"users\": 70}|f",
            "standard|{\"roles\": 20, \"users\": 50, \"storage_gb\": 10}|t",
        ],
    );
}

#[test]
fn a_restored_table_can_be_unprotected_and_is_as_it_was_before() {
    let shop = a_shop();
    let restored = restored_copy(&shop);
    for table in ["orders", "customers", "events", "\"s < e\""] {
        restored.admin().run(&format!("SELECT tenancy.unprotect_table('shop.{}')", table.replace('\'', "''")));
    }
    let admin = restored.admin();
    admin.sees(
        "SELECT tablename, policyname FROM pg_policies WHERE schemaname = 'shop' AND tablename NOT IN ('templates', 'countries')",
        &["s < e|mine"],
    );
    admin.sees(
        "SELECT relname, relrowsecurity, relforcerowsecurity FROM pg_class
          WHERE relnamespace = 'shop'::regnamespace AND relkind IN ('r', 'p') AND relname NOT IN ('templates', 'countries')
            AND (relrowsecurity OR relforcerowsecurity)",
        &["s < e|t|f"],
    );
    admin.sees(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
          WHERE connamespace = 'shop'::regnamespace AND contype = 'f'",
        &["orders_customer_fkey|FOREIGN KEY (customer) REFERENCES shop.customers(id) ON DELETE CASCADE"],
    );
    admin.sees("SELECT count(*) FROM shop.orders", &["3"]);
}

#[test]
fn an_owner_gets_an_error_rather_than_a_part_of_the_data() {
    let shop = a_shop();
    let table = ["--table=shop.orders"];
    let refusal = refused_dump(&shop.db, &shop.owner, &table);
    assert!(refusal.contains("query would be affected by row-level security policy"), "{refusal}");
    let filtered = refused_dump(&shop.db, &shop.owner, &[table[0], "--enable-row-security"]);
    assert!(filtered.contains("no tenant is set"), "{filtered}");
}

#[test]
fn a_backup_role_that_bypasses_row_security_dumps_everything() {
    let shop = a_shop();
    let backup = shop.db.role("backup", "BYPASSRLS IN ROLE pg_read_all_data");
    let (folder, restored) = (Folder::new().expect("a folder"), Db::bare());
    let file = folder.path().join("dump");
    let dumped = process::output(shop.db.program("pg_dump").env("PGUSER", backup.name()).arg("--file").arg(&file));
    dumped.unwrap_or_else(|error| panic!("{error:?}"));
    play(&restored, &file);
    same(&shop.db, &restored);
}

#[test]
fn a_table_alone_does_not_come_back_where_the_extension_is_not() {
    let shop = a_shop();
    let (folder, elsewhere) = (Folder::new().expect("a folder"), Db::bare());
    let file = dump(&shop.db, &folder, &["--schema=shop"]);
    let mut psql = elsewhere.program("psql");
    process::output(psql.args(["--no-psqlrc", "--quiet", "--file"]).arg(&file))
        .unwrap_or_else(|error| panic!("{error:?}"));
    // What could be made without the extension is closed to everybody whom row security binds.
    elsewhere.admin().sees(
        "SELECT relname FROM pg_class WHERE relnamespace = 'shop'::regnamespace AND relkind IN ('r', 'p')
            AND NOT (relrowsecurity AND relforcerowsecurity)",
        &[],
    );
    elsewhere.admin().sees(
        "SELECT tablename, policyname FROM pg_policies WHERE schemaname = 'shop' AND permissive = 'PERMISSIVE'",
        &[],
    );
}

#[test]
fn dropping_the_extension_is_refused_and_names_what_hangs_on_it() {
    let shop = a_shop();
    let refusal = shop.db.admin().refused("2BP01", "DROP EXTENSION pg_tenancy");
    let detail = refusal.detail().unwrap_or_default();
    for dependent in [
        "policy tenancy_isolation on table shop.orders",
        "default value for column tenant_id of table shop.orders",
        "trigger tenancy_truncate_guard on table shop.orders",
    ] {
        assert!(detail.contains(dependent), "{dependent} is not in: {detail}");
    }
    shop.is_isolated_in(&shop.db);
}

#[test]
fn a_cascaded_drop_leaves_every_protected_table_closed() {
    let shop = a_shop();
    shop.db.admin().run("DROP EXTENSION pg_tenancy CASCADE");
    is_closed(&shop);
}

#[test]
fn a_cascaded_drop_of_what_the_extension_needs_leaves_tables_closed() {
    let shop = a_shop();
    shop.db.admin().run("DROP EXTENSION plpgsql CASCADE");
    is_closed(&shop);
}

#[test]
fn a_cascaded_drop_of_what_the_extensions_owner_owns_leaves_tables_closed() {
    let db = Db::bare();
    let installer = db.role("installer", "SUPERUSER");
    db.login(&installer).run("CREATE EXTENSION pg_tenancy");
    let shop = Shop::in_db(db);
    let drop = format!("DROP OWNED BY {installer} CASCADE");
    shop.db.admin().run(&drop);
    is_closed(&shop);
}

#[test]
fn the_extension_does_not_go_with_the_schema_public() {
    let shop = a_shop();
    shop.db.admin().run("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
    shop.is_isolated_in(&shop.db);
}

#[test]
fn after_a_cascaded_drop_the_extension_comes_back_and_opens_the_tables_again() {
    let shop = a_shop();
    let dba = shop.db.admin();
    dba.run("DROP EXTENSION pg_tenancy CASCADE; CREATE EXTENSION pg_tenancy");
    for tenant in [&shop.red, &shop.blue] {
        dba.run(&format!(
            "SELECT tenancy.create_tenant('{}', id => '{}', number => {})",
            tenant.code, tenant.id, tenant.number
        ));
    }
    dba.run("SELECT tenancy.create_tenant('grey'), tenancy.suspend_tenant('grey')");
    dba.query(
        "SELECT tenancy.grant_usage($1::text::regrole), tenancy.grant_admin($2::text::regrole)",
        &[&shop.app.to_string(), &shop.admin.to_string()],
    );
    dba.run(PROTECT_AGAIN);
    dba.sees("SELECT tablename FROM pg_policies WHERE policyname = 'tenancy_closed'", &[]);
    shop.is_isolated_in(&shop.db);
}

#[test]
fn dropping_the_extension_touches_no_table_that_was_unprotected_before() {
    let db = Db::new();
    let (red, _blue) = db.two_tenants_sharing("orders");
    red.run("INSERT INTO orders (item) VALUES ('kept')");
    db.admin().run("SELECT tenancy.unprotect_table('orders'); DROP EXTENSION pg_tenancy");
    red.session().sees("SELECT item FROM orders", &["kept"]);
}

/// The extension is gone, and nobody whom row security binds gets a row or brings one in.
#[track_caller]
fn is_closed(shop: &Shop) {
    let dba = shop.db.admin();
    let (app, owner) = (shop.db.login(&shop.app), shop.db.login(&shop.owner));
    for table in ["customers", "orders", "events", "events_2025", "events_later", "templates", "countries", "\"s < e\""]
    {
        for session in [&app, &owner] {
            session.sees(&format!("SELECT count(*) FROM shop.{table}"), &["0"]);
            session.changes(0, &format!("DELETE FROM shop.{table}"));
        }
    }
    app.refused("42501", "INSERT INTO shop.countries VALUES ('XX')");
    app.refused("42501", "INSERT INTO shop.\"s < e\" VALUES ('blue', 'his')");
    dba.sees("SELECT count(*) FROM shop.orders", &["3"]);
    dba.sees("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'tenancy%'", &["0"]);
}

fn a_shop() -> Shop {
    Shop::in_db(Db::new())
}

/// Dumps the database as superuser.
fn dump(db: &Db, folder: &Folder, options: &[&str]) -> PathBuf {
    let file = folder.path().join("dump");
    let mut pg_dump = db.program("pg_dump");
    process::output(pg_dump.args(options).arg("--file").arg(&file)).unwrap_or_else(|error| panic!("{error:?}"));
    file
}

/// What pg_dump, run by `role`, says when it gives up; it must leave nothing that looks like a backup behind.
#[track_caller]
fn refused_dump(db: &Db, role: &Role, options: &[&str]) -> String {
    let mut pg_dump = db.program("pg_dump");
    let refused = process::output(pg_dump.env("PGUSER", role.name()).args(options));
    format!("{:?}", refused.expect_err("the dump was to be refused"))
}

/// Plays a plain dump; the first error ends it.
fn play(db: &Db, file: &Path) {
    let mut psql = db.program("psql");
    let said = process::output(psql.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--file"]).arg(file));
    said.unwrap_or_else(|error| panic!("{error:?}\n{}", fs::read_to_string(file).unwrap_or_default()));
}

/// Restores a custom dump; a single complaint fails the test.
fn restore(db: &Db, file: &Path, options: &[&str]) {
    let mut pg_restore = db.program("pg_restore");
    process::output(pg_restore.arg("--dbname").arg(db.name()).args(options).arg(file))
        .unwrap_or_else(|error| panic!("{error:?}"));
}

fn restored_copy(shop: &Shop) -> Db {
    let (folder, restored) = (Folder::new().expect("a folder"), Db::bare());
    play(&restored, &dump(&shop.db, &folder, &[]));
    restored
}

#[track_caller]
fn same(one: &Db, other: &Db) {
    same_portraits(&portrait(one), &portrait(other));
}
