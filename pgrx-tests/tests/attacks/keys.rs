//! THREATS (c): unique keys and the actions of foreign keys, which PostgreSQL checks across all tenants.
//!
//! Each oracle is shown to work first, then `scope_unique` closes it, and what a tenant may do goes on.

use crate::stage::{Attacker, Stage, stories};
use pg_tenancy_tests::{NASTY_NAMES, Session, quote_ident, quote_literal};

stories![
    c05_c06_c07_a_unique_value_of_another_tenant_is_free_and_tells_nothing,
    c08_a_primary_key_of_another_tenant_is_free,
    c09_an_exclusion_constraint_excludes_within_the_tenant,
    c11_a_violation_of_a_scoped_key_prints_no_value,
    c01_c02_c03_foreign_keys_follow_the_key_they_refer_to,
    actions_of_foreign_keys_are_kept_and_leave_the_tenant_where_it_is,
    the_way_back_gives_each_key_its_old_form_and_names_what_is_in_its_way,
    a_key_adopts_the_index_that_composite_foreign_keys_use_and_gives_it_back,
    the_keys_of_partitions_follow_under_their_names,
    keys_of_any_name_are_scoped_and_put_back,
    only_the_owner_scopes_a_key_and_force_does_not_stop_him,
    g05_no_action_of_a_foreign_key_makes_a_private_row_everybodys,
    g05_an_action_that_cannot_leave_the_tenant_out_is_refused_with_one_that_can,
    g05_partitions_bring_no_action_that_reaches_the_tenant,
];

/// Servers from PyPI have no contrib modules, and without this one gist compares no integers.
fn has_exclusion(stage: &Stage) -> bool {
    stage.db.cluster().server().has_library("btree_gist")
}

/// `members` of both tenants: red's ann and bob, blue's eve. Every key ignores the tenant.
fn members(stage: &Stage) {
    stage.db.admin().run(&format!(
        "CREATE EXTENSION IF NOT EXISTS btree_gist;
         CREATE TABLE members (id int CONSTRAINT members_pkey PRIMARY KEY, tenant_id uuid NOT NULL,
                               email text CONSTRAINT members_email_key UNIQUE, seat int, during int4range,
                               CONSTRAINT members_seat_excl EXCLUDE USING gist (seat WITH =, during WITH &&));
         CREATE UNIQUE INDEX members_low ON members (lower(email)) WHERE email LIKE '%@%';
         INSERT INTO members VALUES (1, '{red}', 'ann@x', 1, '[1,5)'), (2, '{red}', 'bob@x', 2, '[1,5)'),
                                    (3, '{blue}', 'eve@x', 3, '[1,5)');
         SELECT tenancy.protect_table('members');
         GRANT SELECT, INSERT, UPDATE, DELETE ON members TO {app}",
        red = stage.red.id,
        blue = stage.blue.id,
        app = stage.app
    ));
}

fn scope(stage: &Stage, table: &str, keys: &[&str]) {
    for key in keys {
        stage.db.admin().run(&format!("SELECT tenancy.scope_unique('{table}', '{key}')"));
    }
}

/// Whether the statement gives the same answer for blue's value and for one that nobody has.
#[track_caller]
fn answer(session: &Session, sql: &str) -> String {
    session.run("SAVEPOINT attempt");
    let answer = match session.try_rows(sql) {
        Ok(rows) => rows.join(";"),
        Err(error) => error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned()),
    };
    session.run("ROLLBACK TO attempt; RELEASE attempt");
    answer
}

#[track_caller]
fn tells(session: &Session, sql: &str, theirs: &str, nobodys: &str) -> bool {
    answer(session, &sql.replace("$", theirs)) != answer(session, &sql.replace("$", nobodys))
}

fn c05_c06_c07_a_unique_value_of_another_tenant_is_free_and_tells_nothing(stage: &Stage) {
    if !has_exclusion(stage) {
        return;
    }
    members(stage);
    let oracles = [
        "INSERT INTO members (id, email) VALUES (10, '$')",
        "INSERT INTO members (id, email) VALUES (10, upper('$'))",
        "INSERT INTO members (id, email) VALUES (10, '$') ON CONFLICT DO NOTHING RETURNING id",
        "INSERT INTO members (id, email) VALUES (10, '$') ON CONFLICT ON CONSTRAINT members_email_key DO UPDATE SET seat = 9 RETURNING id",
        "UPDATE members SET email = '$' WHERE id = 1",
        "WITH w AS (INSERT INTO members (id, email) SELECT 10, '$' ON CONFLICT DO NOTHING RETURNING 1) SELECT count(*) FROM w",
    ];
    let session = stage.as_red();
    for oracle in oracles {
        assert!(tells(&session, oracle, "eve@x", "nobody@x"), "the oracle works: {oracle}");
    }
    session.run("ROLLBACK");
    scope(stage, "members", &["members_email_key", "members_low"]);
    session.begin_as("red");
    for oracle in oracles {
        assert!(!tells(&session, oracle, "eve@x", "nobody@x"), "{oracle}");
    }
    // Blue's address is red's to use, once; within a tenant it stays unique, and an upsert finds the tenant's own row.
    session.changes(1, "INSERT INTO members (id, email) VALUES (10, 'eve@x')");
    session.refused_inside("23505", "INSERT INTO members (id, email) VALUES (11, 'eve@x')");
    session.refused_inside("23505", "INSERT INTO members (id, email) VALUES (11, 'ANN@x')");
    session.changes(
        1,
        "INSERT INTO members (id, email) VALUES (12, 'ann@x') ON CONFLICT (tenant_id, email) DO UPDATE SET seat = 9",
    );
    session.sees("SELECT id, seat FROM members WHERE email = 'ann@x'", &["1|9"]);
}

fn c08_a_primary_key_of_another_tenant_is_free(stage: &Stage) {
    if !has_exclusion(stage) {
        return;
    }
    members(stage);
    let oracles = [
        "INSERT INTO members (id) VALUES ($)",
        "UPDATE members SET id = $ WHERE id = 1",
        "INSERT INTO members (id) VALUES ($) ON CONFLICT DO NOTHING RETURNING true",
    ];
    let session = stage.as_red();
    for oracle in oracles {
        assert!(tells(&session, oracle, "3", "99"), "the oracle works: {oracle}");
    }
    session.run("ROLLBACK");
    scope(stage, "members", &["members_pkey"]);
    session.begin_as("red");
    for oracle in oracles {
        assert!(!tells(&session, oracle, "3", "99"), "{oracle}");
    }
    session.changes(1, "INSERT INTO members (id) VALUES (3)");
    session.refused_inside("23505", "INSERT INTO members (id) VALUES (1)");
    session.refused_inside("23505", "INSERT INTO members (id) VALUES (3)");
}

fn c09_an_exclusion_constraint_excludes_within_the_tenant(stage: &Stage) {
    if !has_exclusion(stage) {
        return;
    }
    members(stage);
    let oracles = [
        "INSERT INTO members (id, seat, during) VALUES (10, $, '[2,3)')",
        "INSERT INTO members (id, seat, during) VALUES (10, $, '[2,3)') ON CONFLICT DO NOTHING RETURNING true",
    ];
    let session = stage.as_red();
    for oracle in oracles {
        assert!(tells(&session, oracle, "3", "99"), "the oracle works: {oracle}");
    }
    session.run("ROLLBACK");
    scope(stage, "members", &["members_seat_excl"]);
    session.begin_as("red");
    for oracle in oracles {
        assert!(!tells(&session, oracle, "3", "99"), "{oracle}");
    }
    session.refused_inside("23P01", "INSERT INTO members (id, seat, during) VALUES (10, 1, '[2,3)')");
    session.changes(1, "INSERT INTO members (id, seat, during) VALUES (10, 1, '[5,6)')");
}

fn c11_a_violation_of_a_scoped_key_prints_no_value(stage: &Stage) {
    if !has_exclusion(stage) {
        return;
    }
    members(stage);
    scope(stage, "members", &["members_pkey", "members_email_key", "members_seat_excl"]);
    let session = stage.as_red();
    for (state, sql) in [
        ("23505", "INSERT INTO members (id) VALUES (2)"),
        ("23505", "INSERT INTO members (id, email) VALUES (10, 'bob@x')"),
        ("23P01", "INSERT INTO members (id, seat, during) VALUES (10, 2, '[2,3)')"),
    ] {
        let refusal = session.refused_inside(state, sql);
        assert!(!refusal.detail().is_some_and(|detail| detail.contains('=')), "{refusal:?}");
    }
}

/// `folders` hold `files`, by a foreign key that `foreign_keys => 'keep'` has left as it was.
fn folders_and_files(stage: &Stage, action: &str) {
    stage.db.admin().run(&format!(
        "BEGIN;
         DROP TABLE IF EXISTS files, folders;
         CREATE TABLE folders (id int PRIMARY KEY, tenant_id uuid NOT NULL);
         CREATE TABLE files (id int PRIMARY KEY, tenant_id uuid NOT NULL, folder int DEFAULT 7 REFERENCES folders {action});
         INSERT INTO folders VALUES (1, '{red}'), (7, '{red}'), (2, '{blue}');
         INSERT INTO files VALUES (10, '{red}', 1), (20, '{blue}', 2);
         COMMIT;
         SELECT tenancy.protect_table('folders');
         SELECT tenancy.protect_table('files', foreign_keys => 'keep');
         GRANT SELECT, INSERT, UPDATE, DELETE ON folders, files TO {app}",
        red = stage.red.id,
        blue = stage.blue.id,
        app = stage.app
    ));
}

fn c01_c02_c03_foreign_keys_follow_the_key_they_refer_to(stage: &Stage) {
    folders_and_files(stage, "ON DELETE CASCADE ON UPDATE CASCADE");
    let session = stage.as_red();
    session.run("SAVEPOINT s; INSERT INTO files (id, folder) VALUES (11, 2); ROLLBACK TO s");
    session.run("ROLLBACK");
    scope(stage, "folders", &["folders_pkey"]);
    session.begin_as("red");
    session.refused_inside("23503", "INSERT INTO files (id, folder) VALUES (11, 2)");
    // The same number at both tenants: neither an update nor a deletion reaches the other's files.
    session.changes(1, "INSERT INTO folders (id) VALUES (2)");
    session.changes(1, "INSERT INTO files (id, folder) VALUES (11, 2)");
    session.changes(1, "UPDATE folders SET id = 5 WHERE id = 2");
    session.sees("SELECT id, folder FROM files ORDER BY id", &["10|1", "11|5"]);
    session.changes(1, "DELETE FROM folders WHERE id = 5");
    session.sees("SELECT id FROM files", &["10"]);
    // No cascade carries a row to another tenant, for its parent cannot go there.
    session.refused_inside("42501", &format!("UPDATE folders SET tenant_id = '{}'", stage.blue.id));
    session.run("COMMIT");
    stage.db.admin().sees("SELECT id, folder FROM files ORDER BY id", &["10|1", "20|2"]);
}

fn actions_of_foreign_keys_are_kept_and_leave_the_tenant_where_it_is(stage: &Stage) {
    for (action, folder) in [("ON DELETE SET NULL", "NULL"), ("ON DELETE SET DEFAULT", "7")] {
        folders_and_files(stage, action);
        scope(stage, "folders", &["folders_pkey"]);
        let session = stage.as_red();
        if stage.db.cluster().major() < 15 {
            session.refused("23503", "DELETE FROM folders WHERE id = 1");
            continue;
        }
        session.changes(1, "DELETE FROM folders WHERE id = 1");
        session.sees(
            "SELECT id, folder, tenant_id = tenancy.current_tenant_id() FROM files",
            &[&format!("10|{folder}|t")],
        );
    }
    folders_and_files(stage, "ON DELETE RESTRICT ON UPDATE RESTRICT DEFERRABLE INITIALLY DEFERRED");
    scope(stage, "folders", &["folders_pkey"]);
    let session = stage.as_red();
    let restricted = if stage.db.cluster().major() < 18 { "23503" } else { "23001" };
    session.refused_inside(restricted, "DELETE FROM folders WHERE id = 1");
    session.refused_inside(restricted, "UPDATE folders SET id = 3 WHERE id = 1");
    session.run("INSERT INTO files (id, folder) VALUES (11, 99); INSERT INTO folders (id) VALUES (99); COMMIT");
}

fn the_way_back_gives_each_key_its_old_form_and_names_what_is_in_its_way(stage: &Stage) {
    const SHAPE: &str = "SELECT conrelid::regclass, conname, pg_get_constraintdef(oid) FROM pg_constraint
                          WHERE conrelid IN ('folders'::regclass, 'files'::regclass) ORDER BY 1, 2";
    folders_and_files(stage, "ON DELETE SET NULL ON UPDATE CASCADE");
    let admin = stage.db.admin();
    let (before, indexes) = (admin.rows(SHAPE), "SELECT indexdef FROM pg_indexes WHERE tablename ~ '^f' ORDER BY 1");
    let indexes_before = admin.rows(indexes);
    for back in
        ["SELECT tenancy.unscope_unique('folders', 'folders_pkey')", "SELECT tenancy.unprotect_table('folders')"]
    {
        scope(stage, "folders", &["folders_pkey"]);
        assert_ne!(admin.rows(SHAPE), before);
        admin.run(&format!("INSERT INTO folders VALUES (1, '{}')", stage.blue.id));
        admin.refused("23505", back);
        admin.run(&format!("DELETE FROM folders WHERE id = 1 AND tenant_id = '{}'; {back}", stage.blue.id));
        assert_eq!(admin.rows(SHAPE), before, "{back}");
        if back.contains("unscope") {
            assert_eq!(admin.rows(indexes), indexes_before, "{back}");
        }
    }
}

/// `protect_table` has made the foreign key composite, on a unique index of its own; the key takes that one over.
fn a_key_adopts_the_index_that_composite_foreign_keys_use_and_gives_it_back(stage: &Stage) {
    let admin = stage.db.admin();
    admin.run(
        "CREATE TABLE folders (id int PRIMARY KEY, tenant_id uuid);
         CREATE TABLE files (id int PRIMARY KEY, tenant_id uuid, folder int REFERENCES folders ON DELETE CASCADE);
         SELECT tenancy.protect_table('folders'); SELECT tenancy.protect_table('files')",
    );
    const INDEXES: &str = "SELECT indexname FROM pg_indexes WHERE tablename = 'folders' ORDER BY 1";
    const FOREIGN: &str = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'files_folder_fkey'";
    admin.sees(INDEXES, &["folders_pkey", "folders_tenant_id_id_idx"]);
    let composite = admin.value(FOREIGN);
    scope(stage, "folders", &["folders_pkey"]);
    admin.sees(INDEXES, &["folders_pkey"]);
    assert_eq!(admin.value(FOREIGN), composite);
    admin.run("SELECT tenancy.unscope_unique('folders', 'folders_pkey')");
    admin.sees(INDEXES, &["folders_pkey", "folders_tenant_id_id_idx"]);
    assert_eq!(admin.value(FOREIGN), composite);
    scope(stage, "folders", &["folders_pkey"]);
    admin.run("SELECT tenancy.unprotect_table('folders')");
    admin.sees(INDEXES, &["folders_pkey"]);
    admin.sees(FOREIGN, &["FOREIGN KEY (folder) REFERENCES folders(id) ON DELETE CASCADE"]);
}

fn the_keys_of_partitions_follow_under_their_names(stage: &Stage) {
    let admin = stage.db.admin();
    admin.run(&format!(
        "CREATE TABLE events (id int, tenant_id uuid NOT NULL, at int, ref text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
         CREATE TABLE events_low PARTITION OF events FOR VALUES FROM (0) TO (10);
         CREATE TABLE events_high PARTITION OF events FOR VALUES FROM (10) TO (100) PARTITION BY RANGE (at);
         CREATE TABLE events_20 PARTITION OF events_high FOR VALUES FROM (10) TO (20);
         CREATE UNIQUE INDEX events_ref ON events (ref, at);
         CREATE UNIQUE INDEX low_ref ON events_low (ref);
         ALTER INDEX events_20_pkey RENAME TO \"Keep me\";
         ALTER TABLE events_low REPLICA IDENTITY USING INDEX events_low_pkey;
         INSERT INTO events VALUES (1, '{red}', 1, 'a'), (2, '{blue}', 1, 'b');
         SELECT tenancy.protect_table('events');
         GRANT SELECT, INSERT ON events TO {app}",
        red = stage.red.id,
        blue = stage.blue.id,
        app = stage.app
    ));
    let shape = "SELECT indexrelid::regclass, indnkeyatts, indisreplident, indisvalid FROM pg_index
                  WHERE indrelid::regclass::text ~ '^events' AND indisunique ORDER BY indexrelid::regclass::text";
    let definitions = "SELECT indexname, indexdef FROM pg_indexes WHERE tablename ~ '^events' ORDER BY 1";
    let (before, defined) = (admin.rows(shape), admin.rows(definitions));
    let session = stage.as_red();
    assert!(tells(&session, "INSERT INTO events (id, at) VALUES ($, 1)", "2", "99"), "the oracle works");
    session.run("ROLLBACK");

    admin.refused("42809", "SELECT tenancy.scope_unique('events_low', 'events_low_pkey')");
    scope(stage, "events", &["events_pkey", "events_ref"]);
    scope(stage, "events_low", &["low_ref"]);
    let wider: Vec<String> = before
        .iter()
        .map(|row| {
            let mut fields: Vec<String> = row.split('|').map(str::to_owned).collect();
            fields[1] = (fields[1].parse::<i32>().unwrap() + 1).to_string();
            fields.join("|")
        })
        .collect();
    assert_eq!(admin.rows(shape), wider);
    session.begin_as("red");
    assert!(!tells(&session, "INSERT INTO events (id, at) VALUES ($, 1)", "2", "99"));
    assert!(!tells(&session, "INSERT INTO events (id, at, ref) VALUES (9, 1, '$')", "b", "z"));
    session.run("ROLLBACK");
    // A new partition gets the scoped key from its parent.
    admin.run("CREATE TABLE events_more PARTITION OF events FOR VALUES FROM (100) TO (200); DROP TABLE events_more");

    admin.run("SELECT tenancy.unprotect_table('events')");
    let kept = |rows: Vec<String>| rows.into_iter().filter(|row| !row.contains("tenant_id_idx")).collect::<Vec<_>>();
    assert_eq!(kept(admin.rows(definitions)), kept(defined));
    assert_eq!(admin.rows(shape), before);
}

fn keys_of_any_name_are_scoped_and_put_back(stage: &Stage) {
    let admin = stage.db.admin();
    for name in NASTY_NAMES {
        let (quoted, text) = (quote_ident(name), quote_literal(name));
        admin.run(&format!(
            "CREATE SCHEMA {quoted};
             CREATE TABLE {quoted}.plain ({quoted} int CONSTRAINT {quoted} UNIQUE, tenant_id uuid NOT NULL);
             CREATE UNIQUE INDEX \" USING btree (\" ON {quoted}.plain ((-{quoted})) WHERE {quoted} <> 0;
             SELECT tenancy.protect_table(format('%I.plain', {text}));
             SELECT tenancy.scope_unique(format('%I.plain', {text}), {text}),
                    tenancy.scope_unique(format('%I.plain', {text}), ' USING btree (')"
        ));
        let keys = format!(
            "SELECT indnkeyatts FROM pg_index WHERE indrelid = format('%I.plain', {text})::regclass AND indisunique"
        );
        admin.sees(&keys, &["2", "2"]);
        admin.run(&format!("SELECT tenancy.unprotect_table(format('%I.plain', {text}))"));
        admin.sees(&keys, &["1", "1"]);
    }
}

fn only_the_owner_scopes_a_key_and_force_does_not_stop_him(stage: &Stage) {
    folders_and_files(stage, "");
    stage.db.admin().run(&format!("ALTER TABLE files OWNER TO {0}; ALTER TABLE folders OWNER TO {0}", stage.owner));
    let call = "SELECT tenancy.scope_unique('folders', 'folders_pkey')";
    let admin = stage.db.admin();
    admin.run(&format!(
        "GRANT EXECUTE ON FUNCTION tenancy.scope_unique(regclass, name) TO {0}, {1};
         GRANT CREATE ON SCHEMA public TO {1}",
        stage.app, stage.owner
    ));
    stage.login().refused("42501", call);
    let owner = stage.db.login(&stage.owner);
    admin.run("INSERT INTO files SELECT 30, tenant_id, 2 FROM folders WHERE id = 1");
    owner.refused("23503", call);
    admin.run("DELETE FROM files WHERE id = 30");
    owner.run(call);
    admin.sees("SELECT DISTINCT is_enforced FROM tenancy.protected_tables", &["t"]);
}

/// Folders of a tenant's own, and templates, of which some are everybody's. The foreign key is of the user's making.
fn folders_and_templates(stage: &Stage, action: &str) {
    stage.db.admin().run(&format!(
        "BEGIN;
         DROP TABLE IF EXISTS templates, folders;
         CREATE TABLE folders (tenant_id uuid, id int, UNIQUE (tenant_id, id));
         CREATE TABLE templates (tenant_id uuid, id int, folder int DEFAULT 7, body text, CONSTRAINT in_folder
             FOREIGN KEY (tenant_id, folder) REFERENCES folders (tenant_id, id) {action});
         ALTER TABLE folders OWNER TO {owner}; ALTER TABLE templates OWNER TO {owner};
         COMMIT;
         SELECT tenancy.protect_table('folders');
         GRANT CREATE ON SCHEMA public TO {owner};
         GRANT SELECT, INSERT, UPDATE, DELETE ON folders, templates TO {app}",
        owner = stage.owner,
        app = stage.app
    ));
}

const IN_FOLDER: &str =
    "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'in_folder' ORDER BY conrelid";

/// Red puts a template into a folder, and deletes the folder; gives what blue sees of the templates, and red.
fn after_the_folder_is_gone(stage: &Stage) -> (Vec<String>, Vec<String>) {
    let session = stage.as_red();
    session.run(
        "INSERT INTO folders (id) VALUES (1), (7); INSERT INTO templates (id, folder, body) VALUES (1, 1, 'secret');
         DELETE FROM folders WHERE id = 1; COMMIT",
    );
    let seen = ["blue", "red"].map(|tenant| {
        let session = stage.login_as(&stage.app, tenant);
        session.rows("SELECT folder, tenant_id IS NULL FROM templates")
    });
    stage.db.admin().run("DELETE FROM templates; DELETE FROM folders");
    let [blue, red] = seen;
    (blue, red)
}

fn g05_no_action_of_a_foreign_key_makes_a_private_row_everybodys(stage: &Stage) {
    if stage.db.cluster().major() < 15 {
        return; // no action names its columns: refused, see the next story
    }
    let admin = stage.db.admin();
    folders_and_templates(stage, "ON DELETE SET NULL");
    let wide = admin.value(IN_FOLDER);
    admin.sees(
        "SELECT statement, lock, reason FROM tenancy.plan_protection('templates', access => 'shared')
          WHERE action = 'replace foreign key'",
        &["ALTER TABLE public.templates DROP CONSTRAINT in_folder, ADD CONSTRAINT in_folder FOREIGN KEY (tenant_id, folder) \
           REFERENCES public.folders (tenant_id, id) ON DELETE SET NULL (folder)|ACCESS EXCLUSIVE|\
           its action would set the tenant column, too"],
    );
    admin.run("SELECT tenancy.protect_table('templates', access => 'shared')");
    let narrow = format!("{wide} (folder)");
    admin.sees(IN_FOLDER, &[&narrow]);
    // The attack works where nobody watches.
    admin.run(
        "SET tenancy.ddl_guard = off; ALTER TABLE templates DROP CONSTRAINT in_folder, ADD CONSTRAINT in_folder
             FOREIGN KEY (tenant_id, folder) REFERENCES folders (tenant_id, id) ON DELETE SET NULL;
         RESET tenancy.ddl_guard",
    );
    assert_eq!(after_the_folder_is_gone(stage).0, ["NULL|t"], "the attack works");
    admin.run("SELECT tenancy.protect_table('templates', access => 'shared')");
    admin.sees(IN_FOLDER, &[&narrow]);
    let (nothing, kept): (&[&str], _) = (&[], ["NULL|f"]);
    assert_eq!(
        after_the_folder_is_gone(stage),
        (nothing.iter().map(ToString::to_string).collect(), kept.map(str::to_owned).to_vec())
    );

    // A migration writes it anew, by the owner's hand; deferrable and not validated it stays.
    let owner = stage.db.login(&stage.owner);
    owner.run(
        "ALTER TABLE templates DROP CONSTRAINT in_folder;
         ALTER TABLE templates ADD CONSTRAINT in_folder FOREIGN KEY (tenant_id, folder) REFERENCES folders (tenant_id, id)
             ON DELETE SET DEFAULT DEFERRABLE NOT VALID",
    );
    owner.sees(
        IN_FOLDER,
        &["FOREIGN KEY (tenant_id, folder) REFERENCES folders(tenant_id, id) \
                            ON DELETE SET DEFAULT (folder) DEFERRABLE NOT VALID"],
    );
    assert_eq!(after_the_folder_is_gone(stage), (vec![], vec!["7|f".to_owned()]));
    // So it does where it names the tenant itself.
    owner.run(
        "ALTER TABLE templates DROP CONSTRAINT in_folder;
         ALTER TABLE templates ADD CONSTRAINT in_folder FOREIGN KEY (tenant_id, folder) REFERENCES folders (tenant_id, id)
             ON DELETE SET NULL (folder, tenant_id) NOT VALID",
    );
    owner.sees(IN_FOLDER, &[&format!("{narrow} NOT VALID")]);
    // One that refers by the folder alone sets nothing but that.
    admin.run(
        "ALTER TABLE folders ADD UNIQUE (id);
         ALTER TABLE templates DROP CONSTRAINT in_folder,
             ADD CONSTRAINT in_folder FOREIGN KEY (folder) REFERENCES folders (id) ON DELETE SET NULL ON UPDATE SET NULL",
    );
    assert_eq!(after_the_folder_is_gone(stage), (vec![], vec!["NULL|f".to_owned()]));

    // The way back gives the action that was there first.
    folders_and_templates(stage, "ON DELETE SET NULL");
    admin.run("SELECT tenancy.protect_table('templates', access => 'shared')");
    admin.run("SELECT tenancy.unprotect_table('templates')");
    admin.sees(IN_FOLDER, &[&wide]);
    // Where each row has a tenant the deletion would only fail.
    admin.run("SELECT tenancy.protect_table('templates')");
    admin.sees(IN_FOLDER, &[&narrow]);
    assert_eq!(after_the_folder_is_gone(stage), (vec![], vec!["NULL|f".to_owned()]));
}

fn g05_an_action_that_cannot_leave_the_tenant_out_is_refused_with_one_that_can(stage: &Stage) {
    let admin = stage.db.admin();
    let owner = stage.db.login(&stage.owner);
    let is_old = stage.db.cluster().major() < 15;
    let mut actions = vec![
        ("", "tenant_id, folder", "ON UPDATE SET NULL"),
        ("", "tenant_id, folder", "ON UPDATE SET DEFAULT ON DELETE CASCADE"),
        ("MATCH FULL ", "tenant_id, folder", "ON DELETE SET NULL"),
        ("", "tenant_id", "ON DELETE SET NULL"),
        // Whoever writes the accounts, which are not protected, would write the tenant of the templates.
        ("", "tenant_id", "ON UPDATE CASCADE"),
    ];
    actions.push((
        "",
        "tenant_id, folder",
        if is_old { "ON DELETE SET NULL" } else { "ON DELETE SET NULL (tenant_id)" },
    ));
    for (form, columns, action) in actions {
        let (parent, theirs) = if columns == "tenant_id" { ("accounts", "id") } else { ("folders", "tenant_id, id") };
        let clause = format!("FOREIGN KEY ({columns}) REFERENCES {parent} ({theirs}) {form}{action}");
        folders_and_templates(stage, "");
        admin.run(&format!(
            "DROP TABLE IF EXISTS accounts; CREATE TABLE accounts (id uuid UNIQUE); ALTER TABLE accounts OWNER TO {};
             ALTER TABLE templates DROP CONSTRAINT in_folder, ADD CONSTRAINT in_folder {clause}",
            stage.owner
        ));
        let hint = |refusal: pg_tenancy_tests::DbError| {
            assert!(refusal.message().contains("tenant_id"), "{refusal:?}");
            let hint = refusal.hint().expect("a way out").to_owned();
            let start = hint.find("ALTER TABLE").unwrap_or_else(|| panic!("no statement in: {hint}"));
            hint[start..].trim_end_matches('.').to_owned()
        };
        // At protect_table, whose hint is followed to the letter.
        let way_out = hint(admin.refused("0A000", "SELECT tenancy.protect_table('templates', access => 'shared')"));
        admin.refused("0A000", "SELECT * FROM tenancy.plan_protection('templates', access => 'shared')");
        admin.run(&format!("{way_out}; SELECT tenancy.protect_table('templates', access => 'shared')"));
        // And by a migration of the table that is protected now.
        owner.run("ALTER TABLE templates DROP CONSTRAINT in_folder");
        let add = format!("ALTER TABLE templates ADD CONSTRAINT in_folder {clause} NOT VALID");
        let way_out = hint(owner.refused("0A000", &add));
        owner.run(&way_out);
        owner.run("ALTER TABLE templates ADD COLUMN more int");
    }
}

fn g05_partitions_bring_no_action_that_reaches_the_tenant(stage: &Stage) {
    if stage.db.cluster().major() < 15 {
        return;
    }
    folders_and_templates(stage, "ON DELETE SET NULL");
    let admin = stage.db.admin();
    admin.run(&format!(
        "DROP TABLE templates;
         CREATE TABLE templates (tenant_id uuid, id int, folder int, body text) PARTITION BY RANGE (id);
         CREATE TABLE templates_low PARTITION OF templates (CONSTRAINT in_folder FOREIGN KEY (tenant_id, folder)
             REFERENCES folders (tenant_id, id) ON DELETE SET NULL) FOR VALUES FROM (0) TO (10);
         ALTER TABLE templates OWNER TO {0}; ALTER TABLE templates_low OWNER TO {0};
         GRANT SELECT, INSERT, UPDATE, DELETE ON templates TO {1};
         SELECT tenancy.protect_table('templates', access => 'shared')",
        stage.owner, stage.app
    ));
    let narrow = "FOREIGN KEY (tenant_id, folder) REFERENCES folders(tenant_id, id) ON DELETE SET NULL (folder)";
    admin.sees(IN_FOLDER, &[narrow]);
    let owner = stage.db.login(&stage.owner);
    owner.run(
        "CREATE TABLE templates_new PARTITION OF templates (CONSTRAINT in_folder FOREIGN KEY (tenant_id, folder)
             REFERENCES folders (tenant_id, id) ON DELETE SET NULL) FOR VALUES FROM (10) TO (20);
         CREATE TABLE templates_old (LIKE templates, CONSTRAINT in_folder FOREIGN KEY (tenant_id, folder)
             REFERENCES folders (tenant_id, id) ON DELETE SET NULL);
         ALTER TABLE templates ATTACH PARTITION templates_old FOR VALUES FROM (20) TO (30)",
    );
    admin.sees(IN_FOLDER, &[narrow; 3]);
    // A partition's own key that became part of the parent's is its own again when it leaves.
    owner.run(
        "ALTER TABLE templates_low DROP CONSTRAINT in_folder; ALTER TABLE templates_new DROP CONSTRAINT in_folder;
         ALTER TABLE templates_old DROP CONSTRAINT in_folder",
    );
    admin.run(
        "ALTER TABLE templates ADD CONSTRAINT in_folder FOREIGN KEY (tenant_id, folder) REFERENCES folders (tenant_id, id)
             ON DELETE SET NULL",
    );
    owner.run(
        "CREATE TABLE templates_late (LIKE templates, CONSTRAINT in_folder FOREIGN KEY (tenant_id, folder)
             REFERENCES folders (tenant_id, id) ON DELETE SET NULL);
         ALTER TABLE templates ATTACH PARTITION templates_late FOR VALUES FROM (30) TO (40);
         ALTER TABLE templates DETACH PARTITION templates_late",
    );
    admin.sees("SELECT DISTINCT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'in_folder'", &[narrow]);
    owner.refused(
        "0A000",
        "CREATE TABLE templates_bad PARTITION OF templates (CONSTRAINT in_folder_too FOREIGN KEY (tenant_id, folder)
             REFERENCES folders (tenant_id, id) ON UPDATE SET NULL) FOR VALUES FROM (40) TO (50)",
    );
}
