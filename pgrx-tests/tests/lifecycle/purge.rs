//! Nothing of the tenant is left, nothing of others is touched, and nothing is done by mistake.

use crate::world::{World, all, deleted};
use pg_tenancy_tests::Db;

#[test]
fn a_purge_leaves_nothing_of_the_tenant_and_all_of_the_others() {
    const N: i64 = 50;
    let world = World::new(Db::new(), N);
    let steward = world.db.login(&world.steward);
    let others = world.rows_where("whose <> 'red'");
    assert!(world.left() == all(N), "{}", world.left());
    let logged = "SELECT count(*) FROM tenancy.audit_log WHERE table_name LIKE '%items'";
    world.dba.sees(logged, &["270"]);

    // Told first: in order, keys in a circle together, the tenant's own partition dropped.
    steward.run("SELECT tenancy.suspend_tenant('red')");
    let plan = steward.rows("SELECT step, relation, how FROM tenancy.plan_purge('red')");
    let place = |table: &str, how: &str| {
        let line = plan.iter().find(|line| line.contains(&format!("|{table}|{how}")));
        let line = line.unwrap_or_else(|| panic!("{how} of {table} is not in {plan:?}"));
        line.split('|').next().and_then(|step| step.parse::<i32>().ok()).expect("a step")
    };
    assert!(place("items", "delete in batches") < place(r#""quo""te"."s < e""#, "delete in batches"));
    assert!(place(r#""quo""te"."s < e""#, "delete in batches") < place("customers", "delete in batches"));
    assert_eq!(place("teams", "delete in one"), place("people", "delete in one"));
    assert!(place("people", "delete in one") < place("docs", "delete in one"));
    assert!(place("logs_red", "drop") > 0 && place("old_notes", "delete in b") > 0);
    assert!(!plan.iter().any(|line| line.contains("countries") || line.contains("logs_red_1")), "{plan:?}");

    world.dba.run(&format!(
        "INSERT INTO tenancy.quarantined_rows (relation, table_name, constraint_name, tenant, row, reason)
         SELECT 'items', 'items', 'c', t, '{{}}', '' FROM unnest('{{{},{},red,blue}}'::text[]) t",
        world.red.id, world.red.number
    ));
    let before = world.digest();
    steward.run("CALL tenancy.purge_tenant('red')");
    steward.run("CALL tenancy.purge_tenant('red', 'red', batch_size => 7, include_audit => true)");
    assert_eq!(world.digest(), before, "a dry run changes nothing");
    let told: Vec<String> = steward.notices().iter().map(|notice| notice.message().to_owned()).collect();
    assert!(told.iter().any(|line| line.contains("items: delete in batches, about 150 rows")), "{told:?}");

    steward.run("CALL tenancy.purge_tenant('red', 'red', dry_run => false, batch_size => 20)");
    assert_eq!(world.left(), 0);
    assert_eq!(world.rows_where("whose <> 'red'"), others);
    steward.sees("SELECT to_regclass('logs_red'), to_regclass('logs_red_1')", &["NULL|NULL"]);
    steward.sees("SELECT count(*) FROM tenancy.protected_tables WHERE relation::text LIKE 'logs_red%'", &["0"]);
    for table in ["purges", "purge_parts", "purge_batches"] {
        world.dba.sees(&format!("SELECT count(*) FROM tenancy_internal.{table}"), &["0"]);
    }
    // The log has one entry of it, and no row.
    world.dba.sees(logged, &["270"]);
    world.dba.sees(
        "SELECT action, tenant_id, new_values ->> 'rows', new_values ->> 'certificate' FROM tenancy.audit_log ORDER BY id DESC LIMIT 1",
        &[&format!("tenant_purged|NULL|{}|1", deleted(N) + 3)],
    );
    // The certificate
    steward.sees(
        "SELECT number, tenant_code, rows, audit_entries, runs, started_by = session_user, is_intact, previous FROM tenancy.purge_certificates",
        &[&format!("1|red|{}|NULL|1|t|t|NULL", deleted(N) + 3)],
    );
    steward.sees(
        "SELECT t ->> 'table', t ->> 'how', COALESCE(t ->> 'rows', t ->> 'estimated_rows')
           FROM tenancy.purge_certificates, jsonb_array_elements(tables) t ORDER BY t ->> 'table' COLLATE \"C\"",
        &[
            r#""quo""te"."s < e"|deleted|50"#,
            "public.counts|deleted|50",
            "public.customers|deleted|50",
            "public.docs|deleted|50",
            "public.items|deleted|150",
            "public.logs_red|dropped|50",
            "public.logs_rest|deleted|0",
            "public.notes|deleted|50",
            "public.old_notes|deleted|50",
            "public.people|deleted|50",
            "public.pictures|deleted|6",
            "public.teams|deleted|50",
            "public.templates|deleted|50",
            "public.words|deleted|50",
            "tenancy.quarantined_rows|deleted|3",
        ],
    );
    // Its keys are nobody's again, and it does not come back.
    steward.sees(
        "SELECT code, name, status, contact FROM tenancy.tenants WHERE purged_at IS NOT NULL",
        &["red|red|deleted|{}"],
    );
    steward.refused("55000", "SELECT tenancy.undelete_tenant('red')");
    steward.refused("42710", "SELECT tenancy.create_tenant('red')");
    steward.refused("42710", &format!("SELECT tenancy.create_tenant('rot', number => {})", world.red.number));
    world.dba.sees("SELECT tenant FROM tenancy.quarantined_rows", &["blue"]);
    // Once more: nothing to do, and no second certificate. What was written behind its back goes with one.
    steward.run("CALL tenancy.purge_tenant('red', 'red', dry_run => false)");
    steward.sees("SELECT count(*) FROM tenancy.purge_certificates", &["1"]);
    world.dba.run(&format!(
        "INSERT INTO words VALUES ('red', 1, 'red'); INSERT INTO notes VALUES ('{}', 1, 'red')",
        world.red.id
    ));
    // Months that are sealed are sealed anew.
    world.dba.run(
        "INSERT INTO tenancy_internal.audit_chunks
             (id, occurred_at, statement_at, transaction_id, tenant_id, command, row_count, action, event, details)
         SELECT nextval('tenancy_internal.audit_chunk_ids'), now() - interval '40 days', now(), 1, t.id, 0, 1, 'E', 'past', '{}'
           FROM tenancy.tenants t, generate_series(1, 5)",
    );
    steward.run("CALL tenancy.maintain_audit()");
    steward.run("CALL tenancy.seal_audit()");
    let unsound = "SELECT count(*) FROM tenancy.verify_audit() WHERE NOT ok";
    steward.sees(unsound, &["0"]);
    steward.run("CALL tenancy.purge_tenant('red', 'red', dry_run => false, include_audit => true)");
    steward.sees(unsound, &["0"]);
    steward.sees(
        "SELECT action, reason FROM tenancy.audit_seals ORDER BY number DESC LIMIT 1",
        &["pruned|purge of a tenant: deleted 5 entries"],
    );
    assert_eq!(world.left(), 0);
    steward.sees(
        "SELECT number, rows, audit_entries, is_intact FROM tenancy.purge_certificates ORDER BY 1",
        &[&format!("1|{}|NULL|t", deleted(N) + 3), "2|2|205|t"],
    );
    world.dba.sees(logged, &["120"]);
    // A changed certificate is seen, and so is what follows a removed one.
    world.dba.run("UPDATE tenancy_internal.purge_certificates SET rows = rows - 1 WHERE number = 1");
    steward.sees("SELECT is_intact FROM tenancy.purge_certificates ORDER BY number", &["f", "t"]);
    world.dba.run("DELETE FROM tenancy_internal.purge_certificates WHERE number = 1");
    steward.sees("SELECT is_intact FROM tenancy.purge_certificates", &["f"]);
}

#[test]
fn nothing_is_purged_by_mistake() {
    let world = World::new(Db::new(), 10);
    let steward = world.db.login(&world.steward);
    const CALL: &str = "CALL tenancy.purge_tenant('red', 'red', dry_run => false)";
    steward.refused("55000", CALL);
    steward.run("SELECT tenancy.set_read_only('red')");
    steward.refused("55000", CALL);
    steward.run("SELECT tenancy.delete_tenant('red')");
    for (state, arguments) in [
        ("22023", "'red'"),
        ("22023", "'red', 'blue'"),
        ("22023", "'red', 'RED'"),
        ("22023", "NULL, 'red'"),
        ("22023", "'red', NULL"),
        ("42704", "'nobody', 'nobody'"),
        ("22023", "'red', 'red', batch_size => 0"),
        ("22023", "'red', 'red', batch_size => 1000001"),
        ("22023", "'red', 'red', batch_size => NULL"),
        ("22023", "'red', 'red', max_seconds => 0"),
        ("22023", "'red', 'red', pause_ms => -1"),
        ("22023", "'red', 'red', pause_ms => NULL"),
        ("22023", "'red', 'red', include_audit => NULL"),
    ] {
        let refused = steward.refused(state, &format!("CALL tenancy.purge_tenant({arguments}, dry_run => false)"));
        assert!(refused.hint().is_some(), "{refused:?}");
    }
    steward.refused("22023", "CALL tenancy.purge_tenant('red', 'red', dry_run => NULL)");
    steward.refused("25001", &format!("BEGIN; {CALL}"));
    steward.run("ROLLBACK");

    // Legal holds: two cases, ended together.
    for bad in ["'red', NULL", "'red', ' '", "NULL, 'x'"] {
        steward.refused("22023", &format!("SELECT tenancy.set_legal_hold({bad})"));
    }
    steward.refused("42704", "SELECT tenancy.set_legal_hold('nobody', 'x')");
    steward.refused("55000", "SELECT tenancy.release_legal_hold('red')");
    steward.run("SELECT tenancy.set_legal_hold('red', 'case 1'), tenancy.set_legal_hold('red', 'case 2'), tenancy.set_legal_hold('red', 'case 1')");
    let held = steward.refused("55000", CALL);
    assert_eq!(held.detail(), Some("case 1; case 2"));
    steward.refused("55000", "CALL tenancy.purge_tenant('red', 'red')");
    steward.run("SELECT tenancy.release_legal_hold('red')");
    steward.sees(
        "SELECT tenant_code, reason, is_in_force, released_by = session_user FROM tenancy.legal_holds ORDER BY reason",
        &["red|case 1|f|t", "red|case 2|f|t"],
    );

    // Tables that nobody has classified: all of them are named.
    world.dba.run(
        "CREATE TABLE strays (tenant_id uuid, whose text);
         CREATE TABLE ratings (id int, customer bigint, tenant uuid, whose text, FOREIGN KEY (tenant, customer) REFERENCES customers);",
    );
    let unclassified = steward.refused("55000", CALL);
    assert!(
        unclassified.detail().is_some_and(|d| d.contains("strays: ") && d.contains("ratings: ")),
        "{unclassified:?}"
    );
    steward.sees(
        "SELECT relation FROM tenancy.plan_purge('red') WHERE step IS NULL ORDER BY relation::text",
        &["ratings", "strays"],
    );
    world.dba.run("DROP TABLE strays; DROP TABLE ratings");
    // Rows of others that refer to the tenant's: a key without the tenant in it lets them.
    world.dba.run(&format!(
        "DELETE FROM ONLY notes WHERE whose = 'blue';
         ALTER TABLE notes ADD UNIQUE (id);
         CREATE TABLE links (tenant_id uuid NOT NULL, note bigint REFERENCES notes (id) ON DELETE CASCADE, whose text);
         SELECT tenancy.protect_table('links', foreign_keys => 'keep');
         INSERT INTO links SELECT '{}', 3, 'red'",
        world.red.id
    ));
    steward.run("CALL tenancy.purge_tenant('red', 'red')");
    world.dba.run("INSERT INTO links SELECT tenancy.find_tenant('blue'), 3, 'blue'");
    let crossing = steward.refused("55000", CALL);
    assert!(crossing.detail().is_some_and(|d| d.contains("links: ") && d.contains("links_note_fkey")), "{crossing:?}");
    world.dba.run("DROP TABLE links; ALTER TABLE notes DROP CONSTRAINT notes_id_key");
    // A rule instead of DELETE would do anything, with the rights of the purge.
    world.dba.run("SET tenancy.ddl_guard = off; CREATE RULE nothing AS ON DELETE TO words DO INSTEAD NOTHING; RESET tenancy.ddl_guard");
    let ruled = steward.refused("55000", CALL);
    assert!(ruled.detail().is_some_and(|d| d.contains("words: ")), "{ruled:?}");
    world.dba.run("DROP RULE nothing ON words");

    assert_eq!(world.left(), all(10));
    steward.sees("SELECT count(*) FROM tenancy.purge_certificates", &["0"]);
    steward.run("SELECT tenancy.undelete_tenant('red')");

    // Only an administrator, and no step outside of the procedure.
    let app = world.db.application("app");
    world.dba.run(&format!("GRANT USAGE ON SCHEMA tenancy, tenancy_internal TO {app}"));
    let app = world.db.login(&app);
    for sql in [
        CALL,
        "SELECT tenancy.plan_purge('red')",
        "SELECT tenancy.set_legal_hold('red', 'x')",
        "SELECT tenancy.release_legal_hold('red')",
        "SELECT tenancy_internal.begin_purge_step('red', 'red', false, 1, NULL, 0, false)",
        "SELECT tenancy_internal.purge_step(1)",
        "SELECT tenancy_internal.rest_purge_step(1)",
        "SELECT tenancy_internal.finish_purge_step(1)",
        "SELECT tenancy_internal.delete_blocks('words', 'true', 0, 1)",
        "SELECT * FROM tenancy.purge_certificates",
        "SELECT * FROM tenancy.legal_holds",
    ] {
        app.refused("42501", sql);
    }
    for step in ["purge_step", "rest_purge_step", "finish_purge_step"] {
        steward.refused("55000", &format!("SELECT tenancy_internal.{step}(1)"));
    }
}

#[test]
fn a_purge_goes_on_where_it_stopped_and_stops_where_it_must() {
    const N: i64 = 30;
    let world = World::new(Db::new(), N);
    let steward = world.db.login(&world.steward);
    let others = world.rows_where("whose <> 'red'");
    steward.run("SELECT tenancy.suspend_tenant('red', 'unpaid')");
    let begin = "SELECT tenancy_internal.begin_purge_step('red', 'red', false, 20, NULL, 0, false)";

    // Nothing gone yet: it can be undeleted, and then the purge does not go on.
    let purge = steward.value(begin);
    let step = format!("SELECT tenancy_internal.purge_step({purge})");
    let other = world.db.login(&world.steward);
    let second = other.refused("55006", "CALL tenancy.purge_tenant('red', 'red', dry_run => false)");
    assert!(second.hint().is_some_and(|hint| hint.contains("tenancy.jobs")), "{second:?}");
    other.refused("55000", &step);
    other.run("SELECT tenancy.undelete_tenant('red')");
    steward.refused("55000", &step);
    assert_eq!(world.left(), all(N));
    other.run("SELECT tenancy.suspend_tenant('red')");

    // A hold stops what is under way.
    assert_eq!(steward.value(begin), purge, "taken up again");
    steward.sees(&step, &["t"]);
    other.sees("SELECT state, done > 0, total > 0 FROM tenancy.jobs ORDER BY id DESC LIMIT 1", &["running|t|t"]);
    other.run("SELECT tenancy.set_legal_hold('red', 'late')");
    steward.refused("55000", &step);
    // The error is told before its transaction has ended.
    steward.run("SELECT");
    other.sees("SELECT state FROM tenancy.jobs ORDER BY id", &["interrupted", "interrupted"]);
    other.run("SELECT tenancy.release_legal_hold('red')");
    other.refused("55000", "SELECT tenancy.undelete_tenant('red')");

    // Its time.
    steward.run(
        "CALL tenancy.purge_tenant('red', 'red', dry_run => false, batch_size => 5, max_seconds => 1, pause_ms => 600)",
    );
    steward.sees("SELECT state FROM tenancy.jobs ORDER BY id DESC LIMIT 1", &["stopped"]);
    let left = world.left();
    assert!(left > 0 && left < all(N), "{left}");

    // A table that is no longer protected is nobody's to purge, and does not hold up the others.
    let purge = steward.value(begin);
    world.dba.run("SELECT tenancy.unprotect_table('docs')");
    let mut steps = 0;
    while steward.value(&format!("SELECT tenancy_internal.purge_step({purge})")) == "t" {
        steps += 1;
        assert!(steps < 200, "it goes in a circle");
    }
    let opened = steward.refused("55000", &format!("SELECT tenancy_internal.finish_purge_step({purge})"));
    assert!(opened.detail().is_some_and(|detail| detail.contains("docs: it is not protected")), "{opened:?}");
    world.dba.run("SELECT tenancy.protect_table('docs')");

    // One that is written to all the while does not end; one that is left alone does.
    let purge = steward.value(begin);
    let step = format!("SELECT tenancy_internal.purge_step({purge})");
    let finish = format!("SELECT tenancy_internal.finish_purge_step({purge})");
    let mut rounds = 0;
    while rounds < 6 {
        while steward.value(&step) == "t" {}
        world.dba.run("INSERT INTO words VALUES ('red', 1, 'red')");
        rounds += 1;
        if rounds < 6 {
            steward.sees(&finish, &["f"]);
        }
    }
    let endless = steward.refused("55000", &finish);
    assert!(endless.detail().is_some_and(|detail| detail.contains("1 in public.words")), "{endless:?}");
    steward.run("CALL tenancy.purge_tenant('red', 'red', dry_run => false)");
    assert_eq!(world.left(), 0);
    assert_eq!(world.rows_where("whose <> 'red'"), others);
    steward.sees("SELECT rows, runs, is_intact FROM tenancy.purge_certificates", &[&format!("{}|6|t", deleted(N) + 6)]);
}

#[test]
fn what_an_open_transaction_commits_late_is_purged_too() {
    const N: i64 = 8;
    let world = World::new(Db::new(), N);
    let app = world.db.application("app");
    world.dba.run(&format!("GRANT SELECT, INSERT ON words TO {app}"));
    let late = world.db.login(&app);
    late.run("BEGIN; SELECT tenancy.set_tenant('red'); INSERT INTO words (id, whose) VALUES (0, 'red')");
    let steward = world.db.login(&world.steward);
    steward.run("SELECT tenancy.delete_tenant('red')");
    let pid = steward.pid();
    let purge = std::thread::spawn(move || {
        steward.run("CALL tenancy.purge_tenant('red', 'red', dry_run => false)");
        steward
    });
    let waits = format!("SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = {pid}");
    while world.dba.value(&waits) != "t" {
        assert!(!purge.is_finished(), "it waits for nobody");
        std::thread::yield_now();
    }
    assert_eq!(world.left(), 0, "what is not committed is not seen");
    late.run("COMMIT");
    let steward = purge.join().expect("no panic");
    steward.sees("SELECT rows FROM tenancy.purge_certificates", &[&(deleted(N) + 1).to_string()]);
    assert_eq!(world.left(), 0);
}
