//! What was sealed cannot be changed unseen, and what retention takes away is accounted for.

use pg_tenancy_tests::{Cluster, Db, Session, cluster::data::Folder, process};

use crate::retention::{Shop, number};

/// A shop with months that are over, sealed.
fn sealed() -> Shop {
    sealed_in(Db::new())
}

fn sealed_in(db: Db) -> Shop {
    let shop = Shop::open_in(db);
    shop.past(Some("red"), 80);
    shop.past(Some("blue"), 80);
    // An entry of the audited table, so that a layout counts.
    shop.db.enter(&shop.app, &shop.red).run("INSERT INTO orders (item) VALUES ('x')");
    shop.dba.run(
        "INSERT INTO tenancy_internal.audit_chunks
         SELECT (jsonb_populate_record(c, '{\"occurred_at\": \"2026-01-01\"}')).* FROM tenancy_internal.audit_chunks c WHERE false;
         INSERT INTO tenancy_internal.audit_chunks (id, occurred_at, statement_at, transaction_id, tenant_id, layout, command,
                                                    row_count, action, actor, images)
         SELECT nextval('tenancy_internal.audit_chunk_ids'), occurred_at - interval '45 days', statement_at, transaction_id,
                tenant_id, layout, command, row_count, action, 'ann', images
           FROM tenancy_internal.audit_chunks WHERE action = 'I'",
    );
    shop.dba.run("CALL tenancy.maintain_audit()");
    shop.dba.run("CALL tenancy.seal_audit()");
    intact(&shop.dba);
    shop
}

#[track_caller]
fn intact(dba: &Session) {
    dba.sees("SELECT partition, detail FROM tenancy.verify_audit() WHERE NOT ok", &[]);
    assert!(number(dba, "SELECT count(*) FROM tenancy.verify_audit() WHERE ok AND detail LIKE '%as seal%'") >= 2);
}

/// The defects that verify_audit() tells of, after `deed`.
fn after(deed: &str) -> (Shop, Vec<String>) {
    let shop = sealed();
    shop.dba.run(&deed.replace("LAST", &last_sealed(&shop)));
    let found = shop.dba.rows("SELECT partition || ': ' || detail FROM tenancy.verify_audit() WHERE NOT ok");
    (shop, found)
}

/// The newest partition that is sealed; LAST in deeds.
fn last_sealed(shop: &Shop) -> String {
    shop.dba.value(
        "SELECT relation FROM tenancy_internal.audit_partitions() JOIN tenancy.audit_seals USING (partition)
          WHERE action = 'sealed' ORDER BY number DESC LIMIT 1",
    )
}

#[test]
fn what_was_done_to_a_sealed_log_is_seen() {
    let shop = sealed();
    let last = last_sealed(&shop);
    for (deed, told) in [
        ("UPDATE LAST SET actor = 'somebody' WHERE id = (SELECT min(id) FROM LAST)", "changed"),
        ("UPDATE LAST SET details = '{\"n\": 1.5}' WHERE id = (SELECT min(id) FROM LAST)", "changed"),
        (
            "UPDATE LAST SET occurred_at = occurred_at + interval '1 microsecond' WHERE id = (SELECT max(id) FROM LAST)",
            "changed",
        ),
        ("DELETE FROM LAST WHERE id = (SELECT min(id) FROM LAST)", "1 of "),
        ("TRUNCATE LAST", "are missing"),
        ("INSERT INTO LAST SELECT * FROM LAST LIMIT 1", "1 more than sealed"),
        (
            "INSERT INTO LAST (id, occurred_at, statement_at, transaction_id, command, row_count, action)
             SELECT -5, occurred_at, statement_at, 1, 0, 1, 'E' FROM LAST LIMIT 1",
            "chunks -16384 to -1: 1 more than sealed",
        ),
        ("DROP TABLE LAST", "is gone"),
        ("ALTER TABLE tenancy_internal.audit_chunks DETACH PARTITION LAST", "is gone"),
        ("UPDATE tenancy_internal.audit_seals SET reason = 'other' WHERE number = 1", "seal 1 was changed"),
        (
            "UPDATE tenancy_internal.audit_segments SET chunks = chunks + 1
              WHERE partition = (SELECT max(partition) FROM tenancy_internal.audit_segments)",
            "audit_segments is not as seal",
        ),
        ("DELETE FROM tenancy_internal.audit_seals WHERE number = 1", "seal 1 is missing"),
        // A seal that was made anew does not fit what follows.
        (
            "UPDATE tenancy_internal.audit_seals SET reason = 'other' WHERE number = 1;
             UPDATE tenancy_internal.audit_seals s SET digest = tenancy_internal.digest_seal(s) WHERE number = 1",
            "seal 2 does not follow",
        ),
        ("UPDATE tenancy_internal.audit_layouts SET name = 'public.others'", "changed"),
    ] {
        shop.dba.run(&format!("BEGIN; {}", deed.replace("LAST", &last)));
        let found = shop.dba.rows("SELECT partition || ': ' || detail FROM tenancy.verify_audit() WHERE NOT ok");
        shop.dba.run("ROLLBACK");
        // A layout explains chunks of several months, and a seal that is gone leaves its month without one.
        let is_alone = found.len() == 1 || deed.contains("audit_layouts") || deed.starts_with("DELETE FROM tenancy");
        assert!(
            is_alone && found.iter().any(|found| found.contains(told)),
            "{deed}\n  expected: {told}\n  found: {found:#?}"
        );
    }
    intact(&shop.dba);
}

#[test]
fn a_chain_without_its_end_is_seen_by_who_kept_a_digest() {
    let shop = sealed();
    let known = shop.dba.value("SELECT digest FROM tenancy.audit_seals ORDER BY number DESC LIMIT 1");
    let verify = format!(
        "SELECT ok FROM tenancy.verify_audit(known_digest => '{known}') WHERE partition = 'tenancy.audit_seals'"
    );
    shop.dba.sees(&verify, &["t"]);
    shop.dba.run("DELETE FROM tenancy_internal.audit_seals WHERE number = (SELECT max(number) FROM tenancy_internal.audit_seals)");
    shop.dba.sees(&verify, &["f"]);
    // Without it, a month that is over and has no seal.
    shop.dba
        .sees("SELECT count(*) FROM tenancy.verify_audit() WHERE ok IS NULL AND detail LIKE '%seal_audit%'", &["1"]);
}

#[test]
fn what_keeps_entries_from_being_written_is_told() {
    let (shop, found) = after("SET tenancy.ddl_guard = off; ALTER TABLE orders DISABLE TRIGGER tenancy_audit_insert");
    assert!(found.len() == 1 && found[0].starts_with("public.orders: "), "{found:#?}");
    shop.dba.run("ALTER TABLE orders ENABLE TRIGGER tenancy_audit_insert; DROP TRIGGER tenancy_audit_delete ON orders");
    let found = shop.dba.rows("SELECT partition FROM tenancy.verify_audit() WHERE NOT ok");
    assert_eq!(found, ["public.orders"]);
    shop.dba.run("SELECT tenancy.audit_table('orders')");
    intact(&shop.dba);

    let sly = shop.db.role("sly", "");
    let name = shop.db.name();
    shop.dba.run(&format!(
        "ALTER ROLE {sly} SET session_replication_role = replica;
         ALTER ROLE {sly} IN DATABASE {name} SET session_replication_role = 'replica';
         ALTER DATABASE {name} SET session_replication_role = replica"
    ));
    let mut found = shop
        .dba
        .rows("SELECT partition FROM tenancy.verify_audit() WHERE detail LIKE '%session_replication_role%' AND NOT ok");
    found.sort();
    let mut expected =
        [format!("database {name}"), format!("role {}", sly.name()), format!("role {} database {name}", sly.name())];
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn seals_do_not_depend_on_the_session_that_looks() {
    let shop = sealed();
    let other = shop.db.admin();
    other.run(
        "SET datestyle = 'German, DMY'; SET timezone = 'Asia/Kathmandu'; SET bytea_output = 'escape'; SET intervalstyle = 'iso_8601';
         SET extra_float_digits = -10; SET client_encoding = 'LATIN1'; SET standard_conforming_strings = off;
         SET search_path = pg_temp; SET enable_seqscan = off; SET work_mem = '64kB'",
    );
    intact(&other);
    // Nor on where the rows lie.
    shop.dba.run(&format!(
        "CLUSTER {} USING {}_tenant_id_occurred_at_idx",
        last_sealed(&shop),
        last_sealed(&shop).replace("tenancy_internal.", "")
    ));
    intact(&shop.dba);
}

#[test]
fn retention_replaces_the_seals_of_what_it_touches() {
    let shop = sealed();
    let seals = number(&shop.dba, "SELECT max(number) FROM tenancy.audit_seals");
    shop.dba.run("SELECT tenancy.set_audit_retention('25 days', 'red')");
    shop.dba.run("CALL tenancy.maintain_audit()");
    intact(&shop.dba);
    shop.dba.sees(
        &format!("SELECT DISTINCT action, reason ~ '^retention: deleted [0-9]+ entries of 1 tenants$' FROM tenancy.audit_seals WHERE number > {seals}"),
        &["pruned|t"],
    );
    let seals = number(&shop.dba, "SELECT max(number) FROM tenancy.audit_seals");
    // Sealed once: nothing is left to be sealed, and to be deleted.
    shop.dba.run("CALL tenancy.maintain_audit()");
    shop.dba.run("CALL tenancy.seal_audit()");
    assert_eq!(number(&shop.dba, "SELECT max(number) FROM tenancy.audit_seals"), seals);

    shop.dba.run("SELECT tenancy.set_audit_retention('1 hour'); SELECT tenancy.set_audit_retention(NULL, 'red')");
    shop.dba.run("CALL tenancy.maintain_audit()");
    shop.dba.sees(&format!("SELECT DISTINCT action FROM tenancy.audit_seals WHERE number > {seals}"), &["dropped"]);
    shop.dba.sees("SELECT count(*) FROM tenancy.verify_audit() WHERE NOT ok", &["0"]);
    assert!(
        number(&shop.dba, "SELECT count(*) FROM tenancy.verify_audit() WHERE ok AND detail LIKE 'dropped with seal%'")
            >= 2
    );
    shop.dba.sees("SELECT count(*) FROM tenancy_internal.audit_segments", &["0"]);
}

#[test]
fn retention_does_not_cover_up_what_was_tampered_with() {
    let (shop, found) = after("UPDATE LAST SET actor = 'somebody'");
    assert_eq!(found.len(), 1);
    shop.dba.run("SELECT tenancy.set_audit_retention('20 days', 'red')");
    shop.dba.run("CALL tenancy.maintain_audit()");
    let told: Vec<String> = shop.dba.notices().iter().map(|notice| notice.message().to_owned()).collect();
    assert!(told.iter().any(|told| told.contains("is not as it was sealed")), "{told:?}");
    assert_eq!(shop.dba.rows("SELECT partition || ': ' || detail FROM tenancy.verify_audit() WHERE NOT ok"), found);
}

#[test]
fn a_month_is_not_sealed_while_somebody_writes_to_it() {
    let shop = Shop::open();
    shop.past(Some("red"), 80);
    shop.dba.run("CALL tenancy.maintain_audit()");
    let writer = shop.db.admin();
    writer.run(
        "BEGIN; INSERT INTO tenancy_internal.audit_chunks (id, occurred_at, statement_at, transaction_id, command, row_count, action)
         SELECT 0, occurred_at, statement_at, 1, 0, 1, 'E' FROM tenancy_internal.audit_chunks ORDER BY occurred_at LIMIT 1",
    );
    shop.dba.run("CALL tenancy.seal_audit()");
    let told: Vec<String> = shop.dba.notices().iter().map(|notice| notice.message().to_owned()).collect();
    assert!(told.iter().any(|told| told.contains("still writes to it")), "{told:?}");
    writer.run("COMMIT");
    shop.dba.run("CALL tenancy.seal_audit()");
    intact(&shop.dba);
}

#[test]
fn a_restored_log_is_as_it_was_sealed() {
    let shop = sealed();
    shop.dba.run("SELECT tenancy.set_audit_retention('25 days', 'red')");
    shop.dba.run("CALL tenancy.maintain_audit()");
    let restored = Db::bare();
    for format in ["plain", "custom"] {
        let folder = Folder::new().expect("a folder");
        let file = folder.path().join("dump");
        let mut dump = shop.db.program("pg_dump");
        process::output(dump.arg(format!("--format={format}")).arg("--file").arg(&file)).expect("a dump");
        let target = if format == "plain" { restored.clone() } else { Db::bare() };
        let mut load = target.program(if format == "plain" { "psql" } else { "pg_restore" });
        match format {
            "plain" => load.args(["--no-psqlrc", "--quiet", "-v", "ON_ERROR_STOP=1", "--file"]).arg(&file),
            _ => load.args(["--exit-on-error", "--jobs=2", "--dbname", target.name()]).arg(&file),
        };
        process::output(&mut load).expect("a restore");
        let admin = target.admin();
        intact(&admin);
        let seals = "SELECT * FROM tenancy.audit_seals ORDER BY number";
        assert_eq!(admin.rows(seals), shop.dba.rows(seals));
        let kept = "SELECT tenant_code, keep FROM tenancy.audit_retention";
        assert_eq!(admin.rows(kept), shop.dba.rows(kept));
        // And goes on.
        admin.run("CALL tenancy.maintain_audit()");
        admin.run("CALL tenancy.seal_audit()");
        admin.run("SELECT tenancy.create_tenant('green')");
        intact(&admin);
        admin.run("DROP EXTENSION pg_tenancy CASCADE");
        admin.sees("SELECT count(*) FROM pg_class WHERE relname LIKE 'audit_chunks%'", &["0"]);
    }
}

#[test]
fn a_standby_compares_the_log_with_its_seals_too() {
    let primary = Cluster::start(&[]);
    let standby = primary.standby();
    let shop = sealed_in(primary.db());
    let replica = shop.db.on(&standby);
    standby.catch_up_with(&primary);
    intact(&replica.admin());
    replica.admin().refused("55000", "CALL tenancy.maintain_audit()");
}
