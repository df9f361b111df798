//! THREATS (e): what stays held while the schema moves; what owners and migrations do to it on purpose is in ddl.rs.

use crate::legitimate::pipe;
use crate::stage::{Attacker, CANARY, MINE, Stage, stories};

stories![
    e02_e03_e07_partitions_and_children_are_no_way_around_their_parent,
    e02_a_row_cannot_change_tenant_on_its_way_to_another_partition,
    e07_a_child_with_a_second_parent_is_refused_or_closed_on_that_side_too,
    a27_a_generic_plan_prunes_partitions_anew_for_each_tenant,
    e10_without_any_policy_nothing_is_seen,
    e14_a_dropped_tenant_column_leaves_nothing_to_see,
    e15_the_tenant_columns_type_is_held,
    e23_an_application_that_owns_the_table_is_bound_still,
    e27_a_restore_without_its_last_section_opens_nothing,
    e29_a_moved_and_renamed_table_stays_protected,
    e32_a_policy_narrowed_to_one_role_opens_no_rows_to_the_others,
    e35_a_policy_for_sessions_without_a_tenant_shows_nothing_of_a_protected_table,
    copies_made_in_a_tenants_transaction_hold_its_rows_only,
];

/// A partitioned `events` (default and one partition per kind, one of them partitioned again) and an inheritance tree
/// `docs` with two generations, each with a row of red and of blue in every leaf.
fn families(stage: &Stage) {
    stage.db.admin().run(&format!(
        "CREATE TABLE events (id int NOT NULL, tenant_id uuid NOT NULL, kind int NOT NULL, item text) PARTITION BY LIST (kind);
         CREATE TABLE events_1 PARTITION OF events FOR VALUES IN (1);
         CREATE TABLE events_2 PARTITION OF events FOR VALUES IN (2) PARTITION BY RANGE (id);
         CREATE TABLE events_2_low PARTITION OF events_2 FOR VALUES FROM (0) TO (1000);
         CREATE TABLE events_rest PARTITION OF events DEFAULT;
         CREATE TABLE docs (id int, tenant_id uuid NOT NULL, item text);
         CREATE TABLE letters_of_docs (extra int) INHERITS (docs);
         CREATE TABLE old_letters () INHERITS (letters_of_docs);
         INSERT INTO events SELECT n, t.id, n % 3 + 1, t.code || n FROM generate_series(1, 3) n, tenancy.tenants t;
         INSERT INTO docs SELECT 1, id, code FROM tenancy.tenants;
         INSERT INTO letters_of_docs SELECT 2, id, code FROM tenancy.tenants;
         INSERT INTO old_letters SELECT 3, id, code FROM tenancy.tenants;
         SELECT tenancy.protect_table('events');
         SELECT tenancy.protect_table('docs');
         GRANT ALL ON ALL TABLES IN SCHEMA public TO {}",
        stage.app
    ));
}

const LEAVES: [&str; 8] =
    ["events", "events_1", "events_2", "events_2_low", "events_rest", "docs", "letters_of_docs", "old_letters"];

fn e02_e03_e07_partitions_and_children_are_no_way_around_their_parent(stage: &Stage) {
    families(stage);
    let session = stage.login();
    for leaf in LEAVES {
        session.refused("55000", &format!("SELECT item FROM {leaf}"));
        session.refused("42501", &format!("TRUNCATE {leaf}"));
        session.begin_as("red");
        session.sees(&format!("SELECT DISTINCT left(item, 3) FROM {leaf}"), &["red"]);
        session.sees(
            &format!("SELECT DISTINCT left(item, 3) FROM ONLY {leaf}"),
            if leaf == "events" || leaf == "events_2" { &[] } else { &["red"] },
        );
        session.changes(0, &format!("UPDATE {leaf} SET item = 'taken' WHERE item LIKE 'blue%'"));
        session.changes(0, &format!("DELETE FROM {leaf} WHERE item LIKE 'blue%'"));
        session.refused_inside("42501", &format!("UPDATE {leaf} SET tenant_id = '{}'", stage.blue.id));
        let kind = if leaf.starts_with("events_1") {
            "1"
        } else if leaf.starts_with("events_2") {
            "2"
        } else {
            "9"
        };
        let (columns, values) = if leaf.starts_with("events") {
            ("id, kind, item", format!("9, {kind}, 'own'"))
        } else {
            ("id, item", "9, 'own'".to_owned())
        };
        session.refused_inside(
            "42501",
            &format!("INSERT INTO {leaf} (tenant_id, {columns}) VALUES ('{}', {values})", stage.blue.id),
        );
        // Without naming a tenant the row is red's, by the partition's own default as by the parent's.
        session.changes(1, &format!("INSERT INTO {leaf} ({columns}) VALUES ({values})"));
        session.run("ROLLBACK");
    }
    stage.db.admin().sees("SELECT count(*) FROM events WHERE item LIKE 'blue%'", &["3"]);
}

fn e02_a_row_cannot_change_tenant_on_its_way_to_another_partition(stage: &Stage) {
    families(stage);
    let session = stage.as_red();
    session.refused_inside("42501", &format!("UPDATE events SET kind = 3, tenant_id = '{}'", stage.blue.id));
    session.changes(3, "UPDATE events SET kind = 7");
    session.sees("SELECT count(*) FROM events_rest WHERE kind = 7", &["3"]);
}

/// Policies are those of the table that a query names, so a child's rows are as open as its least protected parent.
fn e07_a_child_with_a_second_parent_is_refused_or_closed_on_that_side_too(stage: &Stage) {
    let admin = stage.db.admin();
    admin.run(&format!(
        "CREATE TABLE docs (id int, item text, tenant_id uuid); CREATE TABLE exports (id int, item text, tenant_id uuid);
         CREATE TABLE hybrid () INHERITS (docs, exports);
         INSERT INTO hybrid SELECT 1, code, id FROM tenancy.tenants;
         GRANT SELECT ON docs, exports TO {}",
        stage.app
    ));
    let outcome = admin.try_run("SELECT tenancy.protect_table('docs')");
    let session = stage.as_red();
    match outcome {
        Err(refusal) => {
            assert_eq!(refusal.code().map(|code| code.code()), Some("42809"), "{refusal:?}");
            assert!(format!("{refusal:?}").contains("exports"), "{refusal:?}");
        }
        Ok(()) => session.sees("SELECT item FROM exports WHERE item <> 'red'", &[]),
    }
}

fn a27_a_generic_plan_prunes_partitions_anew_for_each_tenant(stage: &Stage) {
    stage.choose("tenancy.session_hygiene = off");
    stage.choose("tenancy.explain_guard = off");
    let admin = stage.db.admin();
    admin.run("CREATE TABLE spread (id int, tenant_id uuid NOT NULL, item text) PARTITION BY LIST (tenant_id)");
    for tenant in [&stage.red, &stage.blue] {
        admin
            .run(&format!("CREATE TABLE spread_{0} PARTITION OF spread FOR VALUES IN ('{1}')", tenant.code, tenant.id));
    }
    admin.run(&format!(
        "INSERT INTO spread SELECT 1, id, code FROM tenancy.tenants;
         SELECT tenancy.protect_table('spread'); ANALYZE spread;
         GRANT SELECT ON spread, spread_red, spread_blue TO {}",
        stage.app
    ));
    let session = stage.login();
    session.run("SET plan_cache_mode = force_generic_plan; SET enable_partition_pruning = on");
    session.run("PREPARE mine AS SELECT item FROM spread; PREPARE joined AS SELECT a.item FROM spread a JOIN spread b USING (id)");
    for tenant in ["red", "blue", "red", "blue"] {
        session.begin_as(tenant);
        session.sees("EXECUTE mine", &[tenant]);
        session.sees("EXECUTE joined", &[tenant]);
        let plan = session.rows("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) EXECUTE mine").join("\n");
        let other = if tenant == "red" { "spread_blue" } else { "spread_red" };
        assert!(!plan.contains(other), "{plan}");
        session.sees(&format!("SELECT item FROM {other}"), &[]);
        session.run("COMMIT");
    }
}

fn e10_without_any_policy_nothing_is_seen(stage: &Stage) {
    let admin = stage.db.admin();
    for policy in admin.rows("SELECT polname FROM pg_policy WHERE polrelid = 'letters'::regclass") {
        admin.run(&format!("DROP POLICY {policy} ON letters"));
    }
    let session = stage.as_red();
    session.sees("SELECT item FROM letters", &[]);
}

fn e14_a_dropped_tenant_column_leaves_nothing_to_see(stage: &Stage) {
    let admin = stage.db.admin();
    admin.refused("2BP01", "ALTER TABLE letters DROP COLUMN tenant_id");
    admin.run("ALTER TABLE letters DROP COLUMN tenant_id CASCADE");
    let session = stage.login();
    let seen = session.try_rows("SELECT item FROM letters");
    assert!(seen.as_ref().map_or(true, Vec::is_empty), "{seen:?}");
    session.begin_as("red");
    let seen = session.try_rows("SELECT item FROM letters");
    assert!(seen.as_ref().map_or(true, Vec::is_empty), "{seen:?}");
}

fn e15_the_tenant_columns_type_is_held(stage: &Stage) {
    let owner = stage.db.login(&stage.owner);
    owner.refused("0A000", "ALTER TABLE letters ALTER COLUMN tenant_id TYPE text");
    stage.as_red().sees_only_red();
}

fn e23_an_application_that_owns_the_table_is_bound_still(stage: &Stage) {
    stage.db.admin().run(&format!("ALTER TABLE letters OWNER TO {0}; ALTER TABLE naive OWNER TO {0}", stage.app));
    let session = stage.login();
    session.sees("SELECT item FROM naive ORDER BY id", &[MINE, CANARY]);
    session.refused("55000", "SELECT item FROM letters");
    session.begin_as("red");
    session.sees_only_red();
    session.refused_inside("42501", "TRUNCATE letters");
}

fn e27_a_restore_without_its_last_section_opens_nothing(stage: &Stage) {
    let copy = stage.db.cluster().bare_db();
    let restore = |sections: &[&str]| pipe(stage.db.program("pg_dump").args(sections), &copy);
    // Row security, policies and triggers come last.
    restore(&["--section=pre-data", "--section=data"]);
    let session = copy.login(&stage.app);
    session.sees("SELECT item FROM naive ORDER BY id", &[MINE, CANARY]);
    for begin in ["BEGIN", "BEGIN; SELECT tenancy.set_tenant('red')"] {
        session.run(begin);
        session.holds_or_sees(stage.holds("E27"), "SELECT item FROM letters ORDER BY id", &[MINE, CANARY]);
        session.run("ROLLBACK");
    }
    copy.admin().sees("SELECT relation, is_enforced FROM tenancy.protected_tables", &["letters|f"]);
    restore(&["--section=post-data"]);
    copy.admin().sees("SELECT relation, is_enforced FROM tenancy.protected_tables", &["letters|t"]);
    session.refused("55000", "SELECT item FROM letters");
    session.begin_as("red");
    session.sees_only_red();
}

fn e29_a_moved_and_renamed_table_stays_protected(stage: &Stage) {
    stage.db.admin().run(&format!(
        "CREATE SCHEMA archive; GRANT USAGE ON SCHEMA archive TO {};
         ALTER TABLE letters SET SCHEMA archive;
         ALTER TABLE archive.letters RENAME TO \"old letters\";
         ALTER TABLE archive.\"old letters\" RENAME COLUMN tenant_id TO \"the tenant\"",
        stage.app
    ));
    let session = stage.as_red();
    session.sees("SELECT item FROM archive.\"old letters\"", &[MINE]);
    session.refused_inside(
        "42501",
        &format!("INSERT INTO archive.\"old letters\" VALUES (3, '{}', 'forged')", stage.blue.id),
    );
    session.run("COMMIT");
    session.refused("55000", "SELECT item FROM archive.\"old letters\"");
}

fn e32_a_policy_narrowed_to_one_role_opens_no_rows_to_the_others(stage: &Stage) {
    let ops = stage.db.role("ops", "");
    stage.db.admin().run(&format!("ALTER POLICY tenancy_isolation ON letters TO {ops}"));
    let session = stage.as_red();
    session.sees_only_red();
    session.changes(0, "UPDATE letters SET item = 'taken' WHERE id = 2");
    session.changes(0, "DELETE FROM letters WHERE id = 2");
    session.run("COMMIT");
    session.refused("55000", "SELECT item FROM letters");
    stage.db.admin().sees("SELECT is_enforced FROM tenancy.protected_tables", &["f"]);
}

fn e35_a_policy_for_sessions_without_a_tenant_shows_nothing_of_a_protected_table(stage: &Stage) {
    let open = "NULLIF(current_setting('app.current_tenant_id', true), '') IS NULL";
    stage.db.admin().run(&format!(
        "CREATE POLICY everything_without_context ON letters USING ({open});
         CREATE POLICY everything_without_context ON naive USING ({open})"
    ));
    let session = stage.login();
    session.sees("SELECT item FROM naive ORDER BY id", &[MINE, CANARY]);
    session.refused("55000", "SELECT item FROM letters");
}

fn copies_made_in_a_tenants_transaction_hold_its_rows_only(stage: &Stage) {
    let session = stage.as_red();
    session.run("CREATE TABLE copy AS SELECT * FROM letters");
    session.run("SELECT * INTO other FROM letters");
    session.refused_inside("42501", "CREATE MATERIALIZED VIEW snapshot AS SELECT * FROM letters");
    for copy in ["copy", "other"] {
        session.sees(&format!("SELECT item FROM {copy}"), &[MINE]);
    }
    session.run("COMMIT");
    session.refused("55000", "CREATE TABLE late AS SELECT * FROM letters");
}
