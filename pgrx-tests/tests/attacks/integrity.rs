//! THREATS (c): rows that end up at, point to, or are taken by another tenant.

use crate::stage::{Attacker, CANARY, MINE, Stage, stories};
use pg_tenancy_tests::Session;

stories![
    c01_c02_a_reference_cannot_point_to_another_tenants_row_nor_tell_of_it,
    c03_a_cascade_stays_with_its_tenant,
    c03_set_null_leaves_the_tenant_where_it_is,
    c04_no_foreign_reference_keeps_a_row_from_being_deleted,
    c11_a_unique_violation_does_not_print_the_hidden_row,
    c13_merge_moves_no_row_to_or_from_another_tenant,
    c14_c15_c21_no_row_is_written_for_another_tenant,
    c16_no_row_of_another_tenant_is_changed_locked_or_deleted,
    c18_e11_e36_permissive_policies_of_the_user_cannot_widen_the_view,
    c22_a_tenant_is_never_deleted_by_a_row,
    c24_the_owner_cannot_switch_the_keys_off,
    c25_triggers_stay_on_for_applications,
    shared_rows_are_read_by_all_and_written_by_nobody,
    reference_rows_are_read_by_all_and_written_by_nobody,
];

/// `boxes` hold `things`, for both tenants, protected with composite keys; `naive_boxes` and `naive_things` by hand.
/// Box 1 is red's, box 2 blue's.
fn boxes_and_things(stage: &Stage, action: &str) {
    let admin = stage.db.admin();
    admin.run(&format!(
        "CREATE TABLE boxes (id int PRIMARY KEY, tenant_id uuid NOT NULL);
         CREATE TABLE things (id int PRIMARY KEY, tenant_id uuid NOT NULL, box int REFERENCES boxes {action});
         CREATE TABLE naive_boxes (id int PRIMARY KEY, tenant text NOT NULL);
         CREATE TABLE naive_things (id int PRIMARY KEY, tenant text NOT NULL, box int REFERENCES naive_boxes {action});
         INSERT INTO boxes VALUES (1, '{red}'), (2, '{blue}');
         INSERT INTO naive_boxes VALUES (1, 'red'), (2, 'blue');
         SELECT tenancy.protect_table('boxes');
         SELECT tenancy.protect_table('things');
         GRANT SELECT, INSERT, UPDATE, DELETE ON boxes, things, naive_boxes, naive_things TO {app}",
        red = stage.red.id,
        blue = stage.blue.id,
        app = stage.app
    ));
    for table in ["naive_boxes", "naive_things"] {
        admin.run(&format!(
            "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
             CREATE POLICY naive ON {table} USING (tenant = current_setting('naive.tenant', true))"
        ));
    }
}

#[track_caller]
fn as_naive(stage: &Stage, tenant: &str) -> Session {
    let session = stage.login();
    session.run(&format!("BEGIN; SET LOCAL naive.tenant = '{tenant}'"));
    session
}

fn c01_c02_a_reference_cannot_point_to_another_tenants_row_nor_tell_of_it(stage: &Stage) {
    boxes_and_things(stage, "");
    let naive = as_naive(stage, "red");
    naive.changes(1, "INSERT INTO naive_things VALUES (10, 'red', 2)");
    naive.refused("23503", "INSERT INTO naive_things VALUES (11, 'red', 99)");

    let session = stage.as_red();
    // Blue's box and no box at all are the same answer, to the letter but for the key.
    let foreign = session.refused_inside("23503", "INSERT INTO things (id, box) VALUES (10, 2)");
    let absent = session.refused_inside("23503", "INSERT INTO things (id, box) VALUES (10, 99)");
    assert_eq!(foreign.message(), absent.message());
    assert_eq!(foreign.detail().map(|text| text.replace("2)", "99)")), absent.detail().map(str::to_owned));
    session.changes(1, "INSERT INTO things (id, box) VALUES (10, 1)");
    session.refused_inside("23503", "UPDATE things SET box = 2");
    session.changes(1, "INSERT INTO things (id, box) VALUES (11, NULL)");
}

fn c03_a_cascade_stays_with_its_tenant(stage: &Stage) {
    boxes_and_things(stage, "ON DELETE CASCADE ON UPDATE CASCADE");
    let naive = as_naive(stage, "red");
    naive.run("INSERT INTO naive_things VALUES (10, 'red', 2); COMMIT");
    let naive = as_naive(stage, "blue");
    naive.run("DELETE FROM naive_boxes WHERE id = 2; COMMIT");
    as_naive(stage, "red").sees("SELECT id FROM naive_things", &[]);

    // With composite keys there is nothing of red's that blue's deletion could take; red's own goes with red's box.
    let red = stage.as_red();
    red.run("INSERT INTO things (id, box) VALUES (10, 1), (11, NULL); COMMIT");
    let blue = stage.login();
    blue.begin_as("blue");
    blue.changes(0, "DELETE FROM boxes WHERE id = 1");
    blue.changes(1, "DELETE FROM boxes WHERE id = 2");
    blue.run("COMMIT");
    red.begin_as("red");
    red.changes(1, "UPDATE boxes SET id = 5");
    red.sees("SELECT id, box FROM things ORDER BY id", &["10|5", "11|NULL"]);
    red.changes(1, "DELETE FROM boxes");
    red.sees("SELECT id FROM things", &["11"]);
}

fn c03_set_null_leaves_the_tenant_where_it_is(stage: &Stage) {
    if stage.db.cluster().major() < 15 {
        return; // the plan says that such a key stays as it is
    }
    boxes_and_things(stage, "ON DELETE SET NULL");
    let red = stage.as_red();
    red.run("INSERT INTO things (id, box) VALUES (10, 1)");
    red.changes(1, "DELETE FROM boxes");
    red.sees("SELECT id, box FROM things", &["10|NULL"]);
}

fn c04_no_foreign_reference_keeps_a_row_from_being_deleted(stage: &Stage) {
    boxes_and_things(stage, "");
    as_naive(stage, "red").run("INSERT INTO naive_things VALUES (10, 'red', 2); COMMIT");
    as_naive(stage, "blue").refused("23503", "DELETE FROM naive_boxes");

    stage.as_red().refused("23503", "INSERT INTO things (id, box) VALUES (10, 2)");
    let blue = stage.login();
    blue.begin_as("blue");
    blue.changes(1, "DELETE FROM boxes");
}

fn c11_a_unique_violation_does_not_print_the_hidden_row(stage: &Stage) {
    let refusal = stage.as_red().refused("23505", "INSERT INTO letters (id, item) VALUES (2, 'x')");
    assert_eq!(refusal.detail(), None, "{refusal:?}");
}

fn c13_merge_moves_no_row_to_or_from_another_tenant(stage: &Stage) {
    if stage.db.cluster().major() < 15 {
        return; // MERGE is new in 15
    }
    let session = stage.as_red();
    let blue = stage.blue.id;
    let merge = "MERGE INTO letters l USING (VALUES (1), (2), (3)) v(id) ON l.id = v.id";
    session.refused_inside("42501", &format!("{merge} WHEN MATCHED THEN UPDATE SET tenant_id = '{blue}'"));
    session.refused_inside(
        "42501",
        &format!("{merge} WHEN NOT MATCHED AND v.id = 3 THEN INSERT VALUES (3, '{blue}', 'forged')"),
    );
    // Blue's row counts as not matched, and its key as taken.
    session.refused_inside("23505", &format!("{merge} WHEN NOT MATCHED THEN INSERT (id, item) VALUES (v.id, 'x')"));
    session.changes(1, &format!("{merge} WHEN MATCHED THEN DELETE"));
    session.run("COMMIT");
    stage.db.admin().sees("SELECT item FROM letters", &[CANARY]);
}

fn c14_c15_c21_no_row_is_written_for_another_tenant(stage: &Stage) {
    let session = stage.as_red();
    let blue = stage.blue.id;
    for write in [
        format!("UPDATE letters SET tenant_id = '{blue}'"),
        format!("UPDATE letters SET tenant_id = v.id FROM (VALUES ('{blue}'::uuid)) v(id)"),
        format!("INSERT INTO letters VALUES (3, '{blue}', 'forged')"),
        format!("INSERT INTO letters SELECT 3, '{blue}', 'forged'"),
        format!("INSERT INTO letters VALUES (3, '{blue}', 'forged') RETURNING *"),
        format!("INSERT INTO letters VALUES (1, '{blue}', 'forged') ON CONFLICT (id) DO UPDATE SET item = 'x'"),
        format!("INSERT INTO letters VALUES (2, '{blue}', 'forged') ON CONFLICT (id) DO UPDATE SET item = 'x'"),
        format!("INSERT INTO letters VALUES (2, '{blue}', 'forged') ON CONFLICT DO NOTHING"),
        format!("INSERT INTO letters (id, item) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET tenant_id = '{blue}'"),
        "INSERT INTO letters (id, item) VALUES (2, 'x') ON CONFLICT (id) DO UPDATE SET item = EXCLUDED.item RETURNING letters.item"
            .to_owned(),
        format!("WITH w AS (INSERT INTO letters VALUES (3, '{blue}', 'forged') RETURNING 1) SELECT FROM w"),
        format!("WITH w AS (UPDATE letters SET tenant_id = '{blue}' RETURNING *) SELECT FROM w"),
        "INSERT INTO letters VALUES (3, NULL, 'of nobody')".to_owned(),
        "UPDATE letters SET tenant_id = NULL".to_owned(),
        "INSERT INTO letters VALUES (3, gen_random_uuid(), 'of nobody we know')".to_owned(),
    ] {
        session.refused_inside("42501", &write);
    }
    session.sees_only_red();
    session.run("COMMIT");
    stage.db.admin().sees("SELECT item FROM letters ORDER BY id", &[MINE, CANARY]);
}

fn c16_no_row_of_another_tenant_is_changed_locked_or_deleted(stage: &Stage) {
    let session = stage.as_red();
    for sql in [
        "UPDATE letters SET item = 'taken' WHERE id = 2",
        "UPDATE letters SET item = 'taken' WHERE item LIKE 'blue%'",
        "UPDATE letters SET item = o.item FROM letters o WHERE o.id = 2",
        "DELETE FROM letters WHERE id = 2",
        "DELETE FROM letters USING letters o WHERE o.id = 2",
        "WITH d AS (DELETE FROM letters WHERE id = 2 RETURNING *) SELECT * FROM d",
        "SELECT * FROM letters WHERE id = 2 FOR UPDATE",
        "SELECT * FROM letters WHERE id = 2 FOR KEY SHARE",
        "SELECT * FROM letters a JOIN letters b ON true WHERE b.id = 2",
        "SELECT * FROM letters WHERE id = ANY (SELECT 2)",
        "SELECT * FROM ONLY letters WHERE ctid = '(0,2)'",
        "SELECT * FROM letters TABLESAMPLE SYSTEM (100) WHERE id = 2",
    ] {
        session.changes(0, sql);
    }
    // Nothing of blue's is locked: another session takes it at once.
    let blue = stage.login();
    blue.begin_as("blue");
    blue.sees("SELECT item FROM letters FOR UPDATE NOWAIT", &[CANARY]);
}

fn c18_e11_e36_permissive_policies_of_the_user_cannot_widen_the_view(stage: &Stage) {
    let admin = stage.db.admin();
    for table in ["letters", "naive"] {
        admin.run(&format!(
            "CREATE POLICY clean_up ON {table} FOR DELETE USING (id > 0);
             CREATE POLICY all_rows ON {table} USING (true);
             CREATE POLICY support ON {table} USING (current_setting('app.support_mode', true) = 'on');
             CREATE POLICY no_context ON {table} USING (NULLIF(current_setting('naive.tenant', true), '') IS NULL)"
        ));
    }
    let naive = as_naive(stage, "red");
    naive.sees("SELECT item FROM naive ORDER BY id", &[MINE, CANARY]);
    naive.changes(2, "DELETE FROM naive");
    naive.run("ROLLBACK");

    let session = stage.login();
    session.run("SET app.support_mode = 'on'");
    session.refused("55000", "SELECT item FROM letters");
    session.refused("55000", "DELETE FROM letters");
    session.begin_as("red");
    session.sees_only_red();
    session.changes(0, "DELETE FROM letters WHERE id = 2");
    session.refused_inside("42501", &format!("UPDATE letters SET tenant_id = '{}'", stage.blue.id));
}

fn c22_a_tenant_is_never_deleted_by_a_row(stage: &Stage) {
    let session = stage.as_red();
    session.refused_inside("42501", "DELETE FROM tenancy.tenants");
    stage.db.admin().refused("42501", "DELETE FROM tenancy.tenants");
    session.sees_only_red();
}

fn c24_the_owner_cannot_switch_the_keys_off(stage: &Stage) {
    boxes_and_things(stage, "");
    stage.db.admin().run(&format!("ALTER TABLE things OWNER TO {0}; ALTER TABLE boxes OWNER TO {0}", stage.owner));
    let owner = stage.db.login(&stage.owner);
    owner.refused("42501", "ALTER TABLE things DISABLE TRIGGER ALL");
    owner.refused("42501", "ALTER TABLE things DISABLE TRIGGER USER");
    owner.begin_as("red");
    owner.refused("23503", "INSERT INTO things (id, box) VALUES (10, 2)");
}

fn c25_triggers_stay_on_for_applications(stage: &Stage) {
    let session = stage.as_red();
    session.refused_inside("42501", "SET LOCAL session_replication_role = replica");
    // Where a superuser has switched them off for a load, the row policies bind the others still.
    stage.db.admin().run(&format!("ALTER ROLE {} SET session_replication_role = replica", stage.app));
    let session = stage.as_red();
    session.sees("SHOW session_replication_role", &["replica"]);
    session.sees_only_red();
    session.refused_inside("42501", &format!("INSERT INTO letters VALUES (3, '{}', 'forged')", stage.blue.id));
}

fn shared_rows_are_read_by_all_and_written_by_nobody(stage: &Stage) {
    stage.db.admin().run(&format!(
        "CREATE TABLE templates (id int PRIMARY KEY, tenant_id uuid, item text);
         ALTER TABLE templates OWNER TO {owner};
         SELECT tenancy.protect_table('templates', access => 'shared');
         INSERT INTO templates VALUES (0, NULL, 'for all'), (1, '{red}', 'red'), (2, '{blue}', 'blue');
         GRANT ALL ON templates TO {app}",
        owner = stage.owner,
        red = stage.red.id,
        blue = stage.blue.id,
        app = stage.app
    ));
    for role in [&stage.app, &stage.owner] {
        let session = stage.db.login(role);
        session.refused("55000", "SELECT item FROM templates WHERE tenant_id IS NULL");
        session.begin_as("red");
        session.sees("SELECT item FROM templates ORDER BY id", &["for all", "red"]);
        session.changes(0, "UPDATE templates SET item = 'taken' WHERE tenant_id IS NULL");
        session.changes(0, "DELETE FROM templates WHERE id IN (0, 2)");
        session.refused_inside("42501", "UPDATE templates SET tenant_id = NULL");
        session.refused_inside("42501", "INSERT INTO templates VALUES (3, NULL, 'mine for all')");
        session.refused_inside("42501", &format!("INSERT INTO templates VALUES (3, '{}', 'forged')", stage.blue.id));
        session.changes(0, "SELECT FROM templates WHERE tenant_id IS NULL FOR UPDATE");
        session.refused_inside("42501", "TRUNCATE templates");
        session.changes(1, "UPDATE templates SET item = 'red, changed'");
        session.run("ROLLBACK");
    }
    stage.db.admin().run("SELECT tenancy.set_read_only('red')");
    let session = stage.as_red();
    session.sees("SELECT item FROM templates ORDER BY id", &["for all", "red"]);
    for write in ["UPDATE templates SET item = 'x'", "DELETE FROM templates", "INSERT INTO templates (id) VALUES (4)"] {
        session.refused_inside("55000", write);
    }
}

fn reference_rows_are_read_by_all_and_written_by_nobody(stage: &Stage) {
    stage.db.admin().run(&format!(
        "CREATE TABLE countries (id int PRIMARY KEY, item text);
         INSERT INTO countries VALUES (1, 'Utopia');
         ALTER TABLE countries OWNER TO {};
         SELECT tenancy.protect_table('countries', access => 'reference');
         GRANT ALL ON countries TO {}",
        stage.owner, stage.app
    ));
    for role in [&stage.app, &stage.owner] {
        let session = stage.db.login(role);
        session.sees("SELECT item FROM countries", &["Utopia"]);
        session.begin_as("red");
        session.sees("SELECT item FROM countries", &["Utopia"]);
        session.refused_inside("42501", "INSERT INTO countries VALUES (2, 'Nowhere')");
        session.refused_inside("42501", "INSERT INTO countries VALUES (1, 'x') ON CONFLICT DO NOTHING");
        session.refused_inside("42501", "TRUNCATE countries");
        session.changes(0, "UPDATE countries SET item = 'x'");
        session.changes(0, "DELETE FROM countries");
    }
    stage.db.admin().changes(1, "INSERT INTO countries VALUES (2, 'Nowhere')");
}
