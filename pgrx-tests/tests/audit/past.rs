//! What rows were, and how they are brought back, when the table has been altered since.

use pg_tenancy_tests::Session;

use super::changes::{Scene, begin_as};

/// Runs statements in a transaction of a tenant; gives its id, and a time after it.
fn step(app: &Session, sql: &str) -> (String, String) {
    begin_as(app, "red");
    app.run(sql);
    let id = app.value("SELECT pg_current_xact_id()::text");
    app.run("COMMIT");
    (id, app.value("SELECT clock_timestamp()"))
}

/// A row of `items` as it was, without its tenant.
fn was(key: &str, at: &str) -> String {
    format!("SELECT tenancy.row_as_of('items', '{key}', '{at}') - 'tenant_id'")
}

const ONE: &str = r#"{"id": 1}"#;

/// The refusal says which column, why, and how to see what there is.
fn is_not_known(admin: &Session, column: &str, reason: &str, at: &str) {
    let refusal = admin.refused("55000", &was(ONE, at));
    assert!(refusal.message().contains(&format!("\"{column}\"")), "{refusal:?}");
    assert!(refusal.detail().is_some_and(|detail| detail.contains(reason)), "{refusal:?}");
    let hint = refusal.hint().unwrap_or_default();
    let call = hint.split("Call ").nth(1).and_then(|rest| rest.split(" to see").next()).expect("a call");
    assert!(!admin.rows(&format!("SELECT * FROM {call}")).is_empty(), "{hint}");
}

#[test]
fn the_past_of_a_row_has_the_columns_of_then() {
    let scene = Scene::with(", c int");
    let (app, admin) = (scene.app(), scene.admin());
    let (_, made) = step(&app, "INSERT INTO items VALUES (1, DEFAULT, 5)");
    admin.run("ALTER TABLE items ALTER c TYPE numeric(10, 2) USING c / 3.0");
    let retyped = admin.value("SELECT clock_timestamp()");
    admin.run("ALTER TABLE items ADD d int DEFAULT 42");
    admin.sees(&was(ONE, &made), &[r#"{"c": 5, "id": 1}"#]);
    admin.sees(&was(ONE, &retyped), &[r#"{"c": 1.67, "id": 1}"#]);
    admin.run("ALTER TABLE items RENAME c TO price; ALTER TABLE items ADD c text DEFAULT 'new'");
    let renamed = admin.value("SELECT clock_timestamp()");
    step(&app, "UPDATE items SET price = 2, c = 'newer', d = 0");
    let expect_all = || {
        admin.sees(&was(ONE, &made), &[r#"{"c": 5, "id": 1}"#]);
        admin.sees(&was(ONE, &retyped), &[r#"{"c": 1.67, "id": 1}"#]);
        admin.sees(&was(ONE, &renamed), &[r#"{"c": "new", "d": 42, "id": 1, "price": 1.67}"#]);
    };
    expect_all();
    admin.sees(&was(ONE, "infinity"), &[r#"{"c": "newer", "d": 0, "id": 1, "price": 2.00}"#]);
    // The values are told also when all of it is gone: by entries alone.
    step(&app, "DELETE FROM items");
    admin.run("ALTER TABLE items DROP price, DROP c, DROP d; ALTER TABLE items ADD c bool DEFAULT true");
    expect_all();
    admin.sees(&was(ONE, "infinity"), &["NULL"]);
    // What the application sees is the same.
    begin_as(&app, "red");
    app.sees(&was(ONE, &made), &[r#"{"c": 5, "id": 1}"#]);
    app.sees(
        "SELECT new_values - 'tenant_id' FROM tenancy.row_history('items', '{\"id\": 1}') ORDER BY id LIMIT 1",
        &[r#"{"c": 5, "id": 1}"#],
    );
}

#[test]
fn what_no_entry_tells_of_a_column_is_refused() {
    let scene = Scene::new();
    let (app, admin) = (scene.app(), scene.admin());
    scene.protected("items", "id bigint PRIMARY KEY, tenant_id uuid, a int, b int, c int");
    step(&app, "INSERT INTO items VALUES (1, DEFAULT, 1, 1, 1)");
    let before = admin.value("SELECT clock_timestamp()");
    let not_audited = admin.refused("55000", &was(ONE, &before));
    assert!(not_audited.message().contains("not audited"), "{not_audited:?}");
    admin.run("SELECT tenancy.audit_table('items')");
    let (_, first) = step(&app, "SELECT 1");
    step(&app, "UPDATE items SET a = 2, b = 2");
    let refusal = admin.refused("55000", &was(ONE, &before));
    assert!(refusal.detail().is_some_and(|detail| detail.contains("audit began")), "{refusal:?}");
    admin.sees(&was(ONE, &first), &[r#"{"a": 1, "b": 1, "c": 1, "id": 1}"#]);
    // Type, also where it stays the same type; an entry tells of `a`, none of `c`.
    admin.run("ALTER TABLE items ALTER a TYPE int USING a * 10, ALTER b TYPE bigint");
    admin.sees(&was(ONE, &first), &[r#"{"a": 1, "b": 1, "c": 1, "id": 1}"#]);
    let (_, second) = step(&app, "SELECT 1");
    admin.sees(&was(ONE, &second), &[r#"{"a": 20, "b": 2, "c": 1, "id": 1}"#]);
    admin.run("ALTER TABLE items ALTER c TYPE int USING c * 10");
    is_not_known(&admin, "c", "type was altered", &first);
    is_not_known(&admin, "c", "type was altered", &second);
    let (_, third) = step(&app, "UPDATE items SET a = 3");
    admin.run("ALTER TABLE items DROP c");
    is_not_known(&admin, "c", "was dropped", &third);
    admin.run("ALTER TABLE items ADD c int DEFAULT 7");
    is_not_known(&admin, "c", "was dropped", &third);
    admin.sees(&was(ONE, "infinity"), &[r#"{"a": 3, "b": 2, "c": 7, "id": 1}"#]);
    // A column that goes with its type.
    admin.run("CREATE DOMAIN word AS text; ALTER TABLE items ADD w word DEFAULT 'x'");
    let (_, fourth) = step(&app, "UPDATE items SET a = 4");
    admin.run("DROP DOMAIN word CASCADE");
    is_not_known(&admin, "w", "was dropped", &fourth);
    // An audit that was interrupted does not tell of before.
    admin.run("SELECT tenancy.unaudit_table('items')");
    step(&app, "UPDATE items SET a = 5");
    admin.run("SELECT tenancy.audit_table('items')");
    admin.refused("55000", &was(ONE, &fourth));
    admin.sees(&was(ONE, "infinity"), &[r#"{"a": 5, "b": 2, "c": 7, "id": 1}"#]);
    // Nor does a log that retention has cut.
    admin.run("SELECT tenancy.set_audit_retention('1 microsecond', 'red')");
    let refusal = admin.refused("55000", &was(ONE, &fourth));
    assert!(refusal.hint().is_some_and(|hint| hint.contains("or later")), "{refusal:?}");
    let now = "SELECT clock_timestamp() - interval '1 millisecond'";
    let at = admin.value(now);
    let refusal = admin.refused("55000", &was(ONE, &at));
    assert!(refusal.detail().is_some_and(|detail| detail.contains("retention")), "{refusal:?}");
    admin.run("SELECT tenancy.set_audit_retention(NULL, 'red')");
    admin.sees(&was(ONE, &at), &[r#"{"a": 5, "b": 2, "c": 7, "id": 1}"#]);
}

#[test]
fn a_row_is_found_by_the_present_names_of_its_key() {
    let scene = Scene::new();
    let (app, admin) = (scene.app(), scene.admin());
    scene.audited("items", "a int, b int, tenant_id uuid, n int, PRIMARY KEY (a, b)");
    let (_, made) = step(&app, "INSERT INTO items (a, b, n) VALUES (1, 2, 12), (2, 1, 21)");
    step(&app, "UPDATE items SET n = -n");
    admin.run("ALTER TABLE items RENAME a TO x; ALTER TABLE items RENAME b TO a; ALTER TABLE items RENAME x TO b");
    step(&app, "UPDATE items SET n = 0");
    let key = r#"{"a": 2, "b": 1}"#;
    admin.sees(
        &format!("SELECT action, row_key, new_values -> 'n' FROM tenancy.row_history('items', '{key}')"),
        &[r#"INSERT|{"a": 1, "b": 2}|12"#, r#"UPDATE|{"a": 1, "b": 2}|-12"#, r#"UPDATE|{"a": 2, "b": 1}|0"#],
    );
    admin.sees(&was(key, &made), &[r#"{"a": 1, "b": 2, "n": 12}"#]);
    // A key that was widened is the same; one that is too large for what it was has no entries of then.
    admin.run("ALTER TABLE items ALTER a TYPE bigint");
    step(
        &app,
        "INSERT INTO items (a, b, n) VALUES (5000000000, 1, 5); UPDATE items SET a = a + 1 WHERE n = 5; UPDATE items SET a = 3 WHERE a = 2",
    );
    admin.sees(&was(r#"{"a": 3, "b": 1}"#, &made), &[r#"{"a": 1, "b": 2, "n": 12}"#]);
    admin.sees(
        "SELECT action FROM tenancy.row_history('items', '{\"a\": 5000000001, \"b\": 1}')",
        &["INSERT", "UPDATE"],
    );
    admin.sees(&was(r#"{"a": 5000000001, "b": 1}"#, &made), &["NULL"]);
    // Which row of then it is, nobody can say.
    admin.run("ALTER TABLE items ALTER b TYPE int USING b + 1");
    let refusal = admin.refused("55000", &was(r#"{"a": 3, "b": 2}"#, &made));
    assert!(refusal.detail().is_some_and(|detail| detail.contains("key was altered")), "{refusal:?}");
    let refusal = admin.refused("55000", &was(r#"{"a": 77, "b": 2}"#, &made));
    assert!(refusal.detail().is_some_and(|detail| detail.contains("key was altered")), "{refusal:?}");
    let (_, now) = step(&app, "UPDATE items SET n = 1 WHERE a = 3");
    admin.sees(&was(r#"{"a": 3, "b": 2}"#, &now), &[r#"{"a": 3, "b": 2, "n": 1}"#]);
    admin.sees("SELECT action FROM tenancy.row_history('items', '{\"a\": 3, \"b\": 2}')", &["UPDATE"]);
    // Another key.
    admin.run("ALTER TABLE items DROP CONSTRAINT items_pkey, ADD PRIMARY KEY (n, b)");
    admin.refused("55000", &was(r#"{"n": 1, "b": 2}"#, &now));
}

#[test]
fn partitions_with_columns_in_another_order_have_the_same_past() {
    let scene = Scene::new();
    let (app, admin) = (scene.app(), scene.admin());
    scene.protected("late", "note text, gone int, label text, tenant_id uuid NOT NULL, day int NOT NULL, id int NOT NULL, PRIMARY KEY (id, day)");
    admin.run(
        "ALTER TABLE late DROP gone; SELECT tenancy.audit_table('late');
         CREATE TABLE items (id int, day int, tenant_id uuid NOT NULL, label text, note text, PRIMARY KEY (id, day)) PARTITION BY LIST (day);
         CREATE TABLE items_1 PARTITION OF items FOR VALUES IN (1);
         CREATE TABLE items_2 (note text, gone int, tenant_id uuid NOT NULL, label text, day int NOT NULL, id int NOT NULL);
         ALTER TABLE items_2 DROP COLUMN gone;
         ALTER TABLE items ATTACH PARTITION items_2 FOR VALUES IN (2);
         SELECT tenancy.protect_table('items'), tenancy.audit_table('items')",
    );
    admin.run(&format!("GRANT SELECT, INSERT, UPDATE, DELETE ON items, items_1, items_2 TO {}", scene.app));
    let (_, made) = step(
        &app,
        "INSERT INTO items (id, day, label, note) VALUES (1, 1, 'l1', 'n1'), (2, 2, 'l2', 'n2');
         INSERT INTO late (id, day, label, note) VALUES (3, 3, 'l3', 'n3')",
    );
    step(&app, "UPDATE items_2 SET label = 'L2', note = 'N2'; UPDATE items SET label = 'L1' WHERE id = 1");
    // The one is called what the other was called.
    admin.run("ALTER TABLE items RENAME note TO x; ALTER TABLE items RENAME label TO note; ALTER TABLE items RENAME x TO label");
    admin.run(
        "ALTER TABLE late RENAME note TO x; ALTER TABLE late RENAME label TO note; ALTER TABLE late RENAME x TO label",
    );
    let (_, swapped) = step(&app, "UPDATE items_2 SET note = 'now'; UPDATE items_1 SET label = 'now'");
    admin.run("SELECT tenancy.unaudit_table('late'); ALTER TABLE items ATTACH PARTITION late FOR VALUES IN (3)");
    let (_, attached) = step(&app, "SELECT 1");
    step(&app, "UPDATE items SET note = 'later'; UPDATE items SET day = 3 - day WHERE day < 3");
    let key = |id: i32, day: i32| format!(r#"{{"id": {id}, "day": {day}}}"#);
    for target in ["items", "items_2"] {
        let was = |key: &str, at: &str| was(key, at).replace("'items'", &format!("'{target}'"));
        admin.sees(&was(&key(1, 2), &made), &[r#"{"id": 1, "day": 1, "note": "n1", "label": "l1"}"#]);
    }
    admin.sees(&was(&key(2, 1), &made), &[r#"{"id": 2, "day": 2, "note": "n2", "label": "l2"}"#]);
    admin.sees(&was(&key(2, 1), &swapped), &[r#"{"id": 2, "day": 2, "note": "now", "label": "N2"}"#]);
    admin.sees(&was(&key(3, 3), &attached), &[r#"{"id": 3, "day": 3, "note": "l3", "label": "n3"}"#]);
    // Nobody wrote down what happened to it in between.
    let refusal = admin.refused("55000", &was(&key(3, 3), &swapped));
    assert!(refusal.detail().is_some_and(|detail| detail.contains("late, whose audit began")), "{refusal:?}");
    // A type that was altered through the parent is one of its partitions, too.
    admin.run("ALTER TABLE items DROP label; ALTER TABLE items ALTER note TYPE text USING 'was ' || note");
    admin.sees(&was(&key(2, 1), &made), &[r#"{"id": 2, "day": 2, "note": "n2", "label": "l2"}"#]);
    admin.sees(&was(&key(2, 1), "infinity"), &[r#"{"id": 2, "day": 1, "note": "was later"}"#]);
}

#[test]
fn columns_that_are_left_out_stay_so_under_another_name() {
    let scene = Scene::with(", secret text, seen int, n int");
    let (app, admin) = (scene.app(), scene.admin());
    admin.run("SELECT tenancy.audit_table('items', redact_columns => '{secret}', ignore_columns => '{seen}')");
    let (_, made) = step(&app, "INSERT INTO items VALUES (1, DEFAULT, 's3cret', 1, 1)");
    // ALTER VIEW does it, too; and the record follows with the guard off.
    admin.run("ALTER VIEW items RENAME secret TO hidden");
    admin.run("SET tenancy.ddl_guard = off; ALTER TABLE items RENAME seen TO read; RESET tenancy.ddl_guard");
    admin.sees("SELECT redact_columns, ignore_columns FROM tenancy.audited_tables", &["{hidden}|{read}"]);
    step(&app, "UPDATE items SET hidden = 's3cret too', read = 2, n = 2");
    admin.sees(&was(ONE, &made), &[r#"{"n": 1, "id": 1, "secret": "[redacted]"}"#]);
    admin.sees("SELECT count(*) FROM tenancy_internal.audit_chunks WHERE encode(images, 'escape') ~ 's3cret'", &["0"]);
    // What is audited now and was not then is not known of then.
    admin.run("SELECT tenancy.audit_table('items', redact_columns => '{hidden}')");
    step(&app, "UPDATE items SET read = 3");
    admin.sees(&was(ONE, &made), &[r#"{"n": 1, "id": 1, "secret": "[redacted]"}"#]);
    admin.sees(&was(ONE, "infinity"), &[r#"{"n": 2, "id": 1, "read": 3, "hidden": "[redacted]"}"#]);
    // Without images, a column is known as long as nothing changed it.
    admin.run("SELECT tenancy.audit_table('items', redact_columns => '{hidden}', row_images => 'none')");
    let (_, bare) = step(&app, "SELECT 1");
    let (_, bare_too) = step(&app, "UPDATE items SET read = 4");
    step(&app, "UPDATE items SET read = 5");
    admin.sees(&was(ONE, &bare), &[r#"{"n": 2, "id": 1, "read": 3, "hidden": "[redacted]"}"#]);
    is_not_known(&admin, "read", "row_images", &bare_too);
    admin.sees(&was(ONE, &made), &[r#"{"n": 1, "id": 1, "secret": "[redacted]"}"#]);
}

#[test]
fn undoing_follows_a_column_to_its_present_name() {
    let scene = Scene::with(", paid boolean, note text");
    let (app, admin) = (scene.app(), scene.admin());
    step(&app, "INSERT INTO items VALUES (1, DEFAULT, true, 'a'), (2, DEFAULT, true, 'b')");
    let (mistake, _) =
        step(&app, "UPDATE items SET paid = false; DELETE FROM items WHERE id = 2; INSERT INTO items VALUES (3)");
    admin.run("ALTER TABLE items RENAME paid TO was_paid; ALTER TABLE items ADD paid boolean NOT NULL DEFAULT false");
    admin.run("ALTER TABLE items RENAME id TO number; ALTER TABLE items ALTER number TYPE numeric");
    begin_as(&app, "red");
    let revert = |dry_run: bool| {
        format!(
            "SELECT action, replace(outcome, 'would be undone', 'undone') FROM tenancy.revert_transaction({mistake}, {dry_run})"
        )
    };
    app.sees(&revert(true), &["DELETE|undone", "INSERT|undone", "UPDATE|undone", "UPDATE|undone"]);
    app.sees(&revert(false), &["DELETE|undone", "INSERT|undone", "UPDATE|undone", "UPDATE|undone"]);
    app.sees("SELECT number, was_paid, paid, note FROM items ORDER BY 1", &["1|t|f|a", "2|t|f|b"]);
}

#[test]
fn undoing_writes_nothing_to_what_is_another_column_or_type() {
    let scene = Scene::with(", a int, b int, c int");
    let (app, admin) = (scene.app(), scene.admin());
    step(&app, "INSERT INTO items VALUES (1, DEFAULT, 1, 1, 1), (2, DEFAULT, 1, 1, 1)");
    let update = |column: &str| step(&app, &format!("UPDATE items SET {column} = 2 WHERE id = 1")).0;
    let (of_a, of_b, of_c) = (update("a"), update("b"), update("c"));
    let (deleted, _) = step(&app, "DELETE FROM items WHERE id = 2");
    let (inserted, _) = step(&app, "INSERT INTO items VALUES (3, DEFAULT, 1, 1, 1)");
    let outcomes = |transaction: &str| {
        begin_as(&app, "red");
        let foreseen = app.rows(&format!("SELECT outcome FROM tenancy.revert_transaction({transaction})"));
        if foreseen[0].starts_with("conflict") {
            app.refused("55000", &format!("SELECT * FROM tenancy.revert_transaction({transaction}, false)"));
        } else {
            app.sees(&format!("SELECT outcome FROM tenancy.revert_transaction({transaction}, false)"), &["undone"]);
        }
        app.run("ROLLBACK");
        foreseen
    };
    let (lost, altered) =
        ("conflict: the log does not have the values", "conflict: a column's type, or the key, was altered since");
    let undone = "would be undone";
    // The key keeps its values; b is widened, c made anew of other values.
    admin.run("ALTER TABLE items ALTER id TYPE numeric, ALTER b TYPE bigint, ALTER c TYPE int USING c");
    assert_eq!(outcomes(&of_a), [undone]);
    assert_eq!(outcomes(&of_b), [undone]);
    for transaction in [&of_c, &deleted, &inserted] {
        assert_eq!(outcomes(transaction), [altered]);
    }
    admin.run("ALTER TABLE items DROP c");
    assert_eq!(outcomes(&of_c), [lost]);
    assert_eq!(outcomes(&deleted), [undone]);
    assert_eq!(outcomes(&inserted), [undone]);
    admin.run("ALTER TABLE items DROP a; ALTER TABLE items ADD a int DEFAULT 2");
    assert_eq!(outcomes(&of_a), [lost]);
    assert_eq!(outcomes(&deleted), [lost]);
    assert_eq!(outcomes(&inserted), [undone]);
    // Somebody has put something into the new column.
    step(&app, "UPDATE items SET a = 9 WHERE id = 3");
    assert_eq!(outcomes(&inserted), ["conflict: the row was changed since"]);
    admin.run("ALTER TABLE items ALTER id TYPE numeric USING id + 0");
    assert_eq!(outcomes(&of_b), [altered]);
}

#[test]
fn reading_the_past_meets_no_check_of_a_domain() {
    let scene = Scene::new();
    let (app, admin) = (scene.app(), scene.admin());
    admin.run(
        "CREATE FUNCTION trap(value int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$
         BEGIN IF current_setting('test.trap', true) = 'on' THEN RAISE EXCEPTION 'run'; END IF; RETURN true; END $$;
         CREATE DOMAIN trapped AS int CHECK (public.trap(VALUE)); CREATE DOMAIN twice AS trapped",
    );
    scene.audited("items", "id trapped PRIMARY KEY, tenant_id uuid, n twice, moods text[] DEFAULT '{a,b}', v varchar(3), fixed char(3), bits bit(3)");
    let (mistake, made) = step(&app, "INSERT INTO items VALUES (1, DEFAULT, 1, '{c}', 'v', 'f', B'101')");
    let whole = r#"{"n": 1, "v": "v", "id": 1, "bits": "101", "fixed": "f  ", "moods": ["c"]}"#;
    admin.run("SET test.trap = on");
    admin.sees(&was(ONE, &made), &[whole]);
    admin.sees("SELECT action FROM tenancy.row_history('items', '{\"id\": 1}')", &["INSERT"]);
    let plan = admin.explain("SELECT FROM items t, jsonb_to_record('{\"id\": 1}') AS k (id pg_catalog.int4) WHERE t.id OPERATOR(pg_catalog.=) k.id");
    assert!(plan.contains("Index") || plan.contains("items_pkey"), "{plan}");
    begin_as(&app, "red");
    app.run("SET LOCAL test.trap = on");
    app.sees(&format!("SELECT outcome FROM tenancy.revert_transaction({mistake}, false)"), &["undone"]);
    app.run("COMMIT");
    step(&app, "INSERT INTO items VALUES (1, DEFAULT, 1, '{c}', 'v', 'f', B'101')");
    let (deleted, _) = step(&app, "DELETE FROM items");
    begin_as(&app, "red");
    app.sees(&format!("SELECT outcome FROM tenancy.revert_transaction({deleted}, false)"), &["undone"]);
    app.sees("SELECT to_jsonb(i) - 'tenant_id' FROM items i", &[whole]);
}
