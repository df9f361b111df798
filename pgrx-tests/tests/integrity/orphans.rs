//! Rows whose parent is gone: finding, repairing, keeping what was removed.

use crate::cases::Company;
use pg_tenancy_tests::Session;

/// Three orders of red and one of blue refer to customers that are gone; one more refers to nothing. The tenant is part of the key.
fn with_orphans() -> Company {
    let company = Company::open();
    company.dba.run(
        "SET tenancy.ddl_guard = off;
         ALTER TABLE shop.orders DROP CONSTRAINT orders_customer_fkey, ALTER customer DROP NOT NULL;
         ALTER TABLE shop.orders ADD CONSTRAINT late FOREIGN KEY (tenant_id, customer) REFERENCES shop.customers (tenant_id, id) NOT VALID",
    );
    break_again(&company.dba);
    company
}

/// As restore and replication can.
fn break_again(dba: &Session) {
    dba.run(
        "BEGIN; SET LOCAL session_replication_role = replica;
         INSERT INTO shop.orders (tenant_id, customer, item)
         SELECT tenancy.find_tenant(code), customer, concat('lost ', customer)
           FROM (VALUES ('red', 4711), ('red', 4712), ('red', 4713), ('blue', 4711), ('blue', NULL)) AS v(code, customer);
         COMMIT",
    );
}

fn last_notice(dba: &Session) -> String {
    dba.notices().last().map(|notice| notice.message().to_owned()).unwrap_or_default()
}

const VERIFIED: &str =
    "SELECT total, valid, orphans, is_validated FROM tenancy.fk_verify() WHERE constraint_name = 'late'";

#[test]
fn orphans_are_counted_shown_and_repaired() {
    let company = with_orphans();
    let dba = &company.dba;
    dba.sees(VERIFIED, &["7|3|4|f"]);
    dba.sees(
        "SELECT relation, constraint_name, parent, total, valid, orphans, is_validated FROM tenancy.fk_verify()",
        &["shop.customers|customers_country_fkey|shop.countries|3|3|0|t", "shop.orders|late|shop.customers|7|3|4|f"],
    );
    dba.sees(
        "SELECT constraint_name, parent, row_count, jsonb_array_length(sample_rows), sample_rows -> 0 ->> 'item'
           FROM tenancy.fk_orphans('shop.orders', 2)",
        &["late|shop.customers|4|2|lost 4711"],
    );
    dba.sees("SELECT count(*) FROM tenancy.fk_orphans('shop.customers')", &["0"]);

    // A dry run changes nothing, says what would be done, and may stand in a transaction.
    let before = dba.rows("SELECT ctid, * FROM shop.orders ORDER BY 1");
    dba.run("BEGIN READ ONLY");
    for (action, said) in [
        ("'delete'", "late of shop.orders: would delete 4 rows, then validate it"),
        ("'null'", "late of shop.orders: would set customer to NULL in 4 rows, then validate it"),
        ("'quarantine'", "late of shop.orders: would quarantine 4 rows, then validate it"),
        (
            r#"'reassign', reassign_to => '{"customer": 1}'"#,
            r#"late of shop.orders: would reassign 4 rows to {"customer": 1}, then validate it"#,
        ),
    ] {
        dba.run(&format!("CALL tenancy.repair_orphans('shop.orders', 'late', {action})"));
        assert_eq!(last_notice(dba), said);
    }
    dba.run("COMMIT");
    assert_eq!(dba.rows("SELECT ctid, * FROM shop.orders ORDER BY 1"), before);

    // The finding's own remedy. NULLs refer to nothing and stay.
    let remedy = dba.value("SELECT remedy FROM tenancy.check_integrity('data')");
    dba.run(&remedy);
    assert_eq!(last_notice(dba), "late of shop.orders: 4 rows quarantined, and validated");
    dba.sees(VERIFIED, &["3|3|0|t"]);
    dba.sees("SELECT check_id FROM tenancy.check_integrity('data')", &[]);
    dba.sees("SELECT count(*) FROM shop.orders WHERE customer IS NULL", &["1"]);
    dba.sees(
        "SELECT q.relation, q.table_name, q.constraint_name, t.code, q.row ->> 'item', q.reason, q.quarantined_by = session_user
           FROM tenancy.quarantined_rows q JOIN tenancy.tenants t ON t.id::text = q.tenant ORDER BY q.row ->> 'item', t.code",
        &[
            "shop.orders|shop.orders|late|blue|lost 4711|no row of shop.customers for foreign key late|t",
            "shop.orders|shop.orders|late|red|lost 4711|no row of shop.customers for foreign key late|t",
            "shop.orders|shop.orders|late|red|lost 4712|no row of shop.customers for foreign key late|t",
            "shop.orders|shop.orders|late|red|lost 4713|no row of shop.customers for foreign key late|t",
        ],
    );

    // Back it comes when its parent is there; not before, and it is not lost by the attempt.
    let id = dba.value("SELECT id FROM tenancy.quarantined_rows WHERE row ->> 'customer' = '4712'");
    let restore = format!("SELECT tenancy.restore_quarantined({id})");
    dba.refused("23503", &restore);
    dba.run(
        "INSERT INTO shop.customers OVERRIDING SYSTEM VALUE VALUES (4712, tenancy.find_tenant('red'), 'Dan', NULL)",
    );
    dba.run(&restore);
    dba.sees(
        "SELECT id = (SELECT max(id) - 3 FROM shop.orders), number FROM shop.orders WHERE customer = 4712",
        &["t|NULL"],
    );
    dba.refused("42704", &restore);

    // The other actions, one batch a block; each call goes on where nothing is left of what was.
    break_again(dba);
    dba.run(r#"CALL tenancy.repair_orphans('shop.orders', 'late', 'null', dry_run => false, batch_size => 1)"#);
    assert_eq!(last_notice(dba), "late of shop.orders: 3 rows set to NULL");
    dba.sees(
        "SELECT count(*), count(*) FILTER (WHERE tenant_id IS NULL) FROM shop.orders WHERE customer IS NULL",
        &["5|0"],
    );
    dba.run("DELETE FROM shop.orders WHERE customer IS NULL");
    break_again(dba);
    dba.refused(
        "23503",
        r#"CALL tenancy.repair_orphans('shop.orders', 'late', 'reassign', dry_run => false, reassign_to => '{"customer": 4712}')"#,
    );
    dba.run("DELETE FROM shop.orders WHERE tenant_id = tenancy.find_tenant('blue') AND customer = 4711");
    dba.run(r#"CALL tenancy.repair_orphans('shop.orders', 'late', 'reassign', dry_run => false, reassign_to => '{"customer": 4712}')"#);
    assert_eq!(last_notice(dba), "late of shop.orders: 2 rows reassigned");
    dba.sees("SELECT count(*) FROM shop.orders WHERE customer = 4712", &["5"]);
    break_again(dba);
    dba.run("CALL tenancy.repair_orphans('shop.orders', 'late', 'delete', dry_run => false)");
    assert_eq!(last_notice(dba), "late of shop.orders: 3 rows deleted");
    dba.sees("SELECT orphans FROM tenancy.fk_verify() WHERE constraint_name = 'late'", &["0"]);
    dba.run("CALL tenancy.repair_orphans('shop.orders', 'late', 'delete', dry_run => false)");
    assert_eq!(last_notice(dba), "late of shop.orders: 0 rows deleted");
}

#[test]
fn batches_commit_one_by_one_and_partitions_full_matches_and_refusals() {
    let company = with_orphans();
    let (db, dba) = (&company.db, &company.dba);
    for (sqlstate, call) in [
        ("22023", "'shop.orders', 'late', 'burn'"),
        ("22023", "'shop.orders', 'late', NULL"),
        ("22023", "NULL, 'late', 'delete'"),
        ("22023", "'shop.orders', NULL, 'delete'"),
        ("22023", "'shop.orders', 'late', 'delete', dry_run => NULL"),
        ("22023", "'shop.orders', 'late', 'delete', batch_size => 0"),
        ("22023", "'shop.orders', 'late', 'reassign'"),
        ("22023", "'shop.orders', 'late', 'reassign', reassign_to => '[1]'"),
        ("22023", r#"'shop.orders', 'late', 'reassign', reassign_to => '{"item": 1}'"#),
        ("22023", r#"'shop.orders', 'late', 'delete', reassign_to => '{"customer": 1}'"#),
        ("42704", "'shop.orders', 'nothing', 'delete'"),
        ("42704", "'shop.notes', 'notes_pkey', 'delete'"),
    ] {
        let told = dba.refused(sqlstate, &format!("CALL tenancy.repair_orphans({call})"));
        assert!(told.hint().is_some(), "{call} has no hint");
    }
    dba.refused("42809", "SELECT * FROM tenancy.fk_orphans('tenancy.tenants_pkey')");
    dba.refused("42809", "SELECT * FROM tenancy.fk_orphans(NULL)");
    dba.refused("22023", "SELECT * FROM tenancy.fk_orphans('shop.orders', -1)");
    dba.refused("25001", "BEGIN; CALL tenancy.repair_orphans('shop.orders', 'late', 'delete', dry_run => false)");
    dba.run("ROLLBACK");

    // Who is bound by row security cannot tell an orphan from a row whose parent he does not see.
    let admin = db.role("admin", "");
    dba.run(&format!("SELECT tenancy.grant_admin('{admin}'); GRANT {} TO {admin}", company.owner));
    let admin = db.login(&admin);
    admin.refused("42501", "SELECT * FROM tenancy.fk_orphans('shop.orders')");
    admin.refused("42501", "SELECT * FROM tenancy.fk_verify()");
    admin.refused("42501", "CALL tenancy.repair_orphans('shop.orders', 'late', 'delete')");
    dba.sees("SELECT orphans FROM tenancy.fk_verify() WHERE constraint_name = 'late'", &["4"]);

    // Quarantined rows are for who may act for the table's owner.
    dba.run("CALL tenancy.repair_orphans('shop.orders', 'late', 'quarantine', dry_run => false)");
    admin.sees("SELECT count(*) FROM tenancy.quarantined_rows", &["4"]);
    let stranger = db.role("stranger", "");
    dba.run(&format!("SELECT tenancy.grant_admin('{stranger}')"));
    db.login(&stranger).sees("SELECT count(*) FROM tenancy.quarantined_rows", &["0"]);

    // Several blocks: what a batch did stays when a later one fails.
    dba.run(
        "CREATE TABLE shop.stock (tenant_id uuid NOT NULL, customer bigint, note text, number integer GENERATED ALWAYS AS (7) STORED);
         SELECT tenancy.protect_table('shop.stock');
         INSERT INTO shop.stock SELECT tenancy.find_tenant('red'), n, repeat('x', 1000) FROM generate_series(1000, 1099) n;
         ALTER TABLE shop.stock ADD CONSTRAINT late2 FOREIGN KEY (tenant_id, customer) REFERENCES shop.customers (tenant_id, id) NOT VALID;
         ANALYZE shop.stock;
         ALTER TABLE shop.stock ADD UNIQUE (tenant_id, customer);
         CREATE TABLE shop.labels (tenant_id uuid NOT NULL, stock bigint, FOREIGN KEY (tenant_id, stock) REFERENCES shop.stock (tenant_id, customer));
         SELECT tenancy.protect_table('shop.labels');
         INSERT INTO shop.labels VALUES (tenancy.find_tenant('red'), 1050)",
    );
    let repair = "CALL tenancy.repair_orphans('shop.stock', 'late2', 'quarantine', dry_run => false, batch_size => 10)";
    dba.refused("23503", repair);
    let kept = "SELECT count(*) > 0, count(*) + (SELECT count(*) FROM shop.stock), count(DISTINCT xmin::text) > 1, bool_and(NOT row ? 'number')
                  FROM tenancy.quarantined_rows WHERE relation = 'shop.stock'::regclass";
    dba.sees(kept, &["t|100|t|t"]);
    dba.run("DROP TABLE shop.labels");
    dba.run(repair);
    dba.sees(kept, &["t|100|t|t"]);
    dba.sees("SELECT total, is_validated FROM tenancy.fk_verify() WHERE constraint_name = 'late2'", &["0|t"]);

    // A partitioned table and a parent of partitions; MATCH FULL, where a part of a key is an orphan, too.
    dba.run(
        "CREATE TABLE shop.places (region int, id int, PRIMARY KEY (region, id)) PARTITION BY RANGE (id);
         CREATE TABLE shop.places_1 PARTITION OF shop.places FOR VALUES FROM (0) TO (10);
         CREATE TABLE shop.places_2 PARTITION OF shop.places FOR VALUES FROM (10) TO (20);
         SELECT tenancy.protect_table('shop.places', access => 'reference');
         INSERT INTO shop.places VALUES (1, 1), (1, 11);
         CREATE TABLE shop.trips (tenant_id uuid NOT NULL, day int, region int, place int,
                                  CONSTRAINT fully FOREIGN KEY (region, place) REFERENCES shop.places MATCH FULL) PARTITION BY LIST (day);
         CREATE TABLE shop.trips_1 PARTITION OF shop.trips FOR VALUES IN (1);
         CREATE TABLE shop.trips_2 PARTITION OF shop.trips FOR VALUES IN (2);
         SELECT tenancy.protect_table('shop.trips');
         BEGIN; SET LOCAL session_replication_role = replica;
         INSERT INTO shop.trips SELECT tenancy.find_tenant('red'), d, r, p FROM generate_series(1, 2) d,
             (VALUES (1, 1), (1, 11), (NULL, NULL), (1, NULL), (NULL, 1), (2, 1)) AS v(r, p);
         COMMIT",
    );
    dba.sees("SELECT total, valid, orphans FROM tenancy.fk_verify() WHERE constraint_name = 'fully'", &["10|4|6"]);
    dba.sees(
        "SELECT constraint_name, parent, row_count FROM tenancy.fk_orphans('shop.trips')",
        &["fully|shop.places|6"],
    );
    dba.sees("SELECT constraint_name, row_count FROM tenancy.fk_orphans('shop.trips_2')", &["fully|3"]);
    dba.sees(
        "SELECT object, row_count FROM tenancy.check_integrity('data', tables => '{shop.trips}', deep => true) ORDER BY 1",
        &["fully on shop.trips_1|3", "fully on shop.trips_2|3"],
    );
    dba.run("CALL tenancy.repair_orphans('shop.trips', 'fully', 'null', dry_run => false)");
    assert_eq!(last_notice(dba), "fully of shop.trips: 6 rows set to NULL");
    dba.sees("SELECT total, orphans FROM tenancy.fk_verify() WHERE constraint_name = 'fully'", &["4|0"]);
}
