//! THREATS (e), B31 and C24: owners, members of theirs and migrations that would take protection off, and the guard that
//! keeps it there. Each attack is shown to work first, where `tenancy.ddl_guard` is off and no fence stands behind it.

use crate::stage::{Attacker, CANARY, MINE, Stage, stories};
use pg_tenancy_tests::{DbError, Role, Session, quote_literal};

stories![
    e01_a_table_whose_policy_was_forgotten_is_told_of_or_protected_at_once,
    e01_e17_e31_every_way_to_make_a_table_ends_in_a_protected_one,
    e04_e05_a_new_or_attached_partition_is_protected_like_the_others,
    e08_e09_neither_the_owner_nor_a_member_of_his_switches_row_security_off,
    e10_e12_e32_our_policies_are_neither_dropped_nor_altered_nor_narrowed,
    e11_e35_e36_a_policy_of_the_owners_may_narrow_and_nothing_else,
    e14_the_tenant_column_stays_also_where_the_owner_has_a_policy_of_his_own,
    e15_the_tenant_columns_default_and_not_null_stay,
    e19_a_view_that_shows_every_tenant_is_refused_and_one_for_its_invoker_is_not,
    e20_a_materialized_view_is_read_through_a_tenant_view,
    e21_a_definer_function_of_a_role_that_is_not_bound_is_refused,
    e23_a_protected_table_goes_to_no_role_that_must_not_have_it,
    e26_a_foreign_table_with_a_tenant_column_is_told_of,
    e26_a_foreign_table_back_to_the_table_shows_what_its_account_may_see,
    e30_a_table_without_the_tenant_column_is_open_to_whom_it_is_granted,
    e34_no_rule_leads_rows_elsewhere,
    b31_an_owner_publishes_no_protected_table,
    c24_the_guard_against_truncation_is_not_switched_off,
    a_child_of_two_parents_and_a_parent_without_protection_are_refused,
    ordinary_migrations_of_the_owner_go_through,
    keys_that_a_migration_adds_get_the_tenant,
    tables_are_swapped_as_migration_tools_do,
    administrators_and_superusers_are_told_and_let,
    a_guard_that_only_warns_changes_nothing,
    nobody_but_a_superuser_switches_the_guard_off,
    the_guard_and_integrity_judge_a_policy_of_ours_alike,
    the_guard_and_integrity_judge_a_policy_of_the_users_alike,
];

/// The owner without the guard, and a member of his.
struct Attackers {
    unguarded: Session,
    member: Session,
}

/// Logs in as the owner, whom a superuser has freed of the guard, and as a member of his, whom nobody has.
fn attackers(stage: &Stage) -> Attackers {
    let member = stage.db.role("member", "");
    stage.db.admin().run(&format!(
        "GRANT {0} TO {member}; GRANT CREATE ON SCHEMA public TO {0};
         ALTER ROLE {0} IN DATABASE {1} SET tenancy.ddl_guard = off",
        stage.owner,
        stage.database()
    ));
    let unguarded = stage.db.login(&stage.owner);
    stage.db.admin().run(&format!(
        "ALTER ROLE {} IN DATABASE {} RESET tenancy.ddl_guard",
        stage.owner,
        stage.database()
    ));
    Attackers { unguarded, member: stage.db.login(&member) }
}

/// The owner, who may make tables.
fn owner(stage: &Stage) -> Session {
    stage.db.admin().run(&format!("GRANT CREATE ON SCHEMA public TO {}", stage.owner));
    stage.db.login(&stage.owner)
}

/// Refused with a word on what to do instead.
#[track_caller]
fn forbidden(session: &Session, sql: &str) -> DbError {
    let refusal = session.refused("42501", sql);
    assert!(refusal.hint().is_some(), "{sql}: {refusal:?}");
    refusal
}

/// The one WARNING that the statement brings; it must say this.
#[track_caller]
fn warned(session: &Session, sql: &str, saying: &str) {
    session.notices();
    session.run(sql);
    let warnings: Vec<DbError> =
        session.notices().into_iter().filter(|notice| notice.severity() == "WARNING").collect();
    assert_eq!(warnings.len(), 1, "{sql}: {warnings:?}");
    assert!(warnings[0].message().contains(saying), "{sql}: {warnings:?}");
    assert!(warnings[0].hint().is_some(), "a warning says what to do: {warnings:?}");
}

#[track_caller]
fn silent(session: &Session, sql: &str) {
    session.notices();
    session.run(sql);
    let warnings: Vec<DbError> =
        session.notices().into_iter().filter(|notice| notice.severity() == "WARNING").collect();
    assert!(warnings.is_empty(), "{sql}: {warnings:?}");
}

/// Both letters as rows of another table of theirs.
fn fill(stage: &Stage, table: &str) {
    stage.db.admin().run(&format!(
        "INSERT INTO {table} (id, tenant_id, item) SELECT id, tenant_id, item FROM letters;
         GRANT ALL ON {table} TO {}",
        stage.app
    ));
}

#[track_caller]
fn is_isolated(stage: &Stage, table: &str) {
    let session = stage.login();
    session.refused("55000", &format!("SELECT item FROM {table}"));
    session.begin_as("red");
    session.sees(&format!("SELECT DISTINCT item FROM {table}"), &[MINE]);
    session.run("COMMIT");
}

fn e01_a_table_whose_policy_was_forgotten_is_told_of_or_protected_at_once(stage: &Stage) {
    let owner = owner(stage);
    warned(&owner, "CREATE TABLE payroll (id int, tenant_id uuid, item text)", "payroll");
    fill(stage, "payroll");
    let app = stage.as_red();
    app.sees("SELECT item FROM payroll ORDER BY id", &[MINE, CANARY]);
    app.run("COMMIT");
    // Whoever is warned in vain can have it done for him.
    stage.db.admin().run("DROP TABLE payroll; SELECT tenancy.protect_schema('public')");
    silent(&owner, "CREATE TABLE payroll (id int, tenant_id uuid, item text)");
    fill(stage, "payroll");
    is_isolated(stage, "payroll");
    silent(
        &owner,
        "CREATE TABLE countries (id int, name text); BEGIN; CREATE TEMP TABLE mine (tenant_id uuid) ON COMMIT DROP; COMMIT",
    );
    owner.sees("SELECT relrowsecurity FROM pg_class WHERE relname = 'countries'", &["f"]);
}

fn e01_e17_e31_every_way_to_make_a_table_ends_in_a_protected_one(stage: &Stage) {
    stage
        .db
        .admin()
        .run("SELECT tenancy.protect_schema('public'); CREATE TYPE letter AS (id int, tenant_id uuid, item text)");
    stage.db.admin().run(&format!("CREATE SCHEMA elsewhere AUTHORIZATION {}", stage.owner));
    let owner = owner(stage);
    for (table, statement) in [
        ("plain", "CREATE TABLE plain (id int, tenant_id uuid, item text)"),
        ("copied", "CREATE TABLE copied AS SELECT * FROM letters WITH NO DATA"),
        ("selected", "BEGIN; SELECT tenancy.set_tenant('red'); SELECT * INTO selected FROM letters; COMMIT"),
        ("alike", "CREATE TABLE alike (LIKE letters INCLUDING DEFAULTS)"),
        ("typed", "CREATE TABLE typed OF letter"),
        ("unlogged", "CREATE UNLOGGED TABLE unlogged (id int, tenant_id uuid, item text)"),
        ("heir", "CREATE TABLE heir () INHERITS (letters)"),
        (
            "parted",
            "CREATE TABLE parted (id int, tenant_id uuid, item text) PARTITION BY LIST (id); CREATE TABLE parted_rest PARTITION OF parted DEFAULT",
        ),
        ("grown", "CREATE TABLE grown (id int, item text); ALTER TABLE grown ADD COLUMN tenant_id uuid"),
        (
            "renamed",
            "CREATE TABLE renamed (id int, tid uuid, item text); ALTER TABLE renamed RENAME COLUMN tid TO tenant_id",
        ),
        (
            "moved",
            "CREATE TABLE elsewhere.moved (id int, tenant_id uuid, item text); ALTER TABLE elsewhere.moved SET SCHEMA public",
        ),
        ("done", "DO $$ BEGIN EXECUTE 'CREATE TABLE done (id int, tenant_id uuid, item text)'; END $$"),
    ] {
        owner.run(statement);
        stage.db.admin().run(&format!("DELETE FROM {table}"));
        fill(stage, table);
        is_isolated(stage, table);
        stage.db.admin().run(&format!("DELETE FROM {table}"));
    }
    is_isolated(stage, "letters");
    stage.db.admin().sees("SELECT relation FROM tenancy.protected_tables WHERE NOT is_enforced", &[]);
}

fn e04_e05_a_new_or_attached_partition_is_protected_like_the_others(stage: &Stage) {
    let Attackers { unguarded, .. } = attackers(stage);
    unguarded.run("CREATE TABLE events (id int, tenant_id uuid NOT NULL, item text) PARTITION BY LIST (id)");
    stage.db.admin().run("SELECT tenancy.protect_table('events')");
    unguarded.run("CREATE TABLE events_2 PARTITION OF events FOR VALUES IN (2)");
    stage.db.admin().run(&format!(
        "INSERT INTO events SELECT id, tenant_id, item FROM letters WHERE id = 2; GRANT ALL ON events_2 TO {}",
        stage.app
    ));
    if !stage.setting.has_fence() {
        stage.as_red().sees("SELECT item FROM events_2", &[CANARY]);
    }
    let owner = owner(stage);
    owner.run("CREATE TABLE events_1 PARTITION OF events FOR VALUES IN (1)");
    owner.run(
        "CREATE TABLE loaded (id int, tenant_id uuid NOT NULL, item text) PARTITION BY LIST (id);
         CREATE TABLE loaded_3 PARTITION OF loaded FOR VALUES IN (3); INSERT INTO loaded SELECT 3, gen_random_uuid(), 'x' WHERE false;
         ALTER TABLE events ATTACH PARTITION loaded FOR VALUES IN (3)",
    );
    stage.db.admin().sees(
        "SELECT relation, part_of, is_enforced FROM tenancy.protected_tables WHERE relation::text ~ 'events|loaded' ORDER BY relation::text",
        &["events|NULL|t", "events_1|events|t", "events_2|events|t", "loaded|events|t", "loaded_3|events|t"],
    );
    // A detached one keeps what it has.
    owner.run("ALTER TABLE events DETACH PARTITION loaded");
    stage.db.admin().sees(
        "SELECT relation, part_of, is_enforced FROM tenancy.protected_tables WHERE relation::text ~ 'loaded' ORDER BY relation::text",
        &["loaded|NULL|t", "loaded_3|loaded|t"],
    );
    forbidden(&owner, "ALTER TABLE loaded_3 NO FORCE ROW LEVEL SECURITY");
}

fn e08_e09_neither_the_owner_nor_a_member_of_his_switches_row_security_off(stage: &Stage) {
    let Attackers { unguarded, member } = attackers(stage);
    for statement in ["NO FORCE", "DISABLE"] {
        // A member of the owner needs no SET ROLE, and no tenant.
        forbidden(&member, &format!("ALTER TABLE letters {statement} ROW LEVEL SECURITY"));
        forbidden(&member, &format!("DO $$ BEGIN ALTER TABLE letters {statement} ROW LEVEL SECURITY; END $$"));
        let refusal = forbidden(&owner(stage), &format!("ALTER TABLE letters {statement} ROW LEVEL SECURITY"));
        assert!(refusal.hint().is_some_and(|hint| hint.contains("unprotect_table('public.letters')")), "{refusal:?}");
    }
    member.refused("55000", "SELECT item FROM letters");
    unguarded.run("ALTER TABLE letters NO FORCE ROW LEVEL SECURITY");
    if !stage.setting.has_fence() {
        member.sees("SELECT item FROM letters ORDER BY id", &[MINE, CANARY]);
    }
    // What is off already is refused to nobody who puts it on again.
    owner(stage).run("ALTER TABLE letters FORCE ROW LEVEL SECURITY");
    is_isolated(stage, "letters");
}

fn e10_e12_e32_our_policies_are_neither_dropped_nor_altered_nor_narrowed(stage: &Stage) {
    let Attackers { unguarded, member } = attackers(stage);
    let narrow = format!("ALTER POLICY tenancy_isolation ON letters TO {}", stage.owner);
    for statement in [
        "DROP POLICY tenancy_isolation ON letters",
        "DROP POLICY tenancy_isolation_delete ON letters",
        "ALTER POLICY tenancy_isolation ON letters USING (true)",
        "ALTER POLICY tenancy_isolation ON letters WITH CHECK (true)",
        "ALTER POLICY tenancy_isolation ON letters RENAME TO harmless",
        "ALTER POLICY tenancy_open ON letters USING (true) WITH CHECK (true)",
        "DROP POLICY tenancy_isolation ON letters; CREATE POLICY tenancy_isolation ON letters AS RESTRICTIVE USING (true)",
        &narrow,
    ] {
        forbidden(&member, statement);
    }
    unguarded.run(
        "ALTER POLICY tenancy_isolation ON letters USING (true); ALTER POLICY tenancy_open ON letters USING (true)",
    );
    if !stage.setting.has_fence() {
        stage.login().sees("SELECT item FROM letters ORDER BY id", &[MINE, CANARY]);
    }
    stage.db.admin().run("SELECT tenancy.protect_table('letters')");
    is_isolated(stage, "letters");
    // The companion may go: that closes the table.
    silent(&member, "DROP POLICY tenancy_open ON letters");
    stage.as_red().sees("SELECT item FROM letters", &[]);
}

fn e11_e35_e36_a_policy_of_the_owners_may_narrow_and_nothing_else(stage: &Stage) {
    let owner = owner(stage);
    for using in [
        "current_setting('app.support_mode', true) = 'on'",
        "NULLIF(current_setting('app.current_tenant_id', true), '') IS NULL",
        "tenant_id = tenancy.current_tenant_id() OR item = 'public'",
    ] {
        forbidden(&owner, &format!("CREATE POLICY support ON letters USING ({using})"));
        stage.db.admin().run(&format!(
            "DROP POLICY IF EXISTS support ON naive; CREATE POLICY support ON naive USING ({})",
            using.replace("tenant_id = tenancy.current_tenant_id() OR item = 'public'", "tenant = 'red' OR true")
        ));
        let app = stage.login();
        app.run("SET app.support_mode = 'on'");
        app.sees("SELECT item FROM naive ORDER BY id", &[MINE, CANARY]);
    }
    warned(&owner, "CREATE POLICY everything ON letters USING (true)", "no effect");
    stage.as_red().sees_only_red();
    owner.run("DROP POLICY everything ON letters");
    silent(&owner, "CREATE POLICY mine ON letters AS RESTRICTIVE USING (item <> current_setting('app.hidden', true))");
    let app = stage.as_red();
    app.run(&format!("SET LOCAL app.hidden = '{}'", MINE.replace('\'', "''")));
    app.sees("SELECT item FROM letters", &[]);
}

fn e14_the_tenant_column_stays_also_where_the_owner_has_a_policy_of_his_own(stage: &Stage) {
    let Attackers { unguarded, member } = attackers(stage);
    stage.db.admin().run("CREATE DOMAIN whose AS uuid");
    unguarded.run(
        "CREATE TABLE notes (id int, tenant_id whose NOT NULL, item text);
         CREATE POLICY mine ON notes USING (id > 0)",
    );
    stage.db.admin().run("SELECT tenancy.protect_table('notes')");
    fill(stage, "notes");
    for statement in [
        "ALTER TABLE notes DROP COLUMN tenant_id CASCADE",
        "ALTER TABLE notes DROP COLUMN tenant_id CASCADE, ADD COLUMN tenant_id uuid",
    ] {
        forbidden(&member, statement);
    }
    // A column also goes with its type, whoever owns that.
    stage.db.admin().run(&format!("ALTER DOMAIN whose OWNER TO {}", stage.owner));
    forbidden(&member, "DROP DOMAIN whose CASCADE");
    is_isolated(stage, "notes");
    unguarded.run("DROP DOMAIN whose CASCADE");
    if !stage.setting.has_fence() {
        stage.login().sees("SELECT item FROM notes ORDER BY id", &[MINE, CANARY]);
    }
}

fn e15_the_tenant_columns_default_and_not_null_stay(stage: &Stage) {
    let owner = owner(stage);
    for change in ["DROP DEFAULT", "DROP NOT NULL", "SET DEFAULT gen_random_uuid()"] {
        forbidden(&owner, &format!("ALTER TABLE letters ALTER COLUMN tenant_id {change}"));
    }
    owner.refused("0A000", "ALTER TABLE letters ALTER COLUMN tenant_id TYPE text");
    // What is as it was at the end of the statement was never away.
    silent(
        &owner,
        "ALTER TABLE letters ALTER tenant_id DROP DEFAULT, ALTER tenant_id SET DEFAULT tenancy.current_tenant_id()",
    );
}

/// A role that row security does not bind, and that is neither superuser nor administrator.
fn reporter(stage: &Stage) -> Role {
    let reporter = stage.db.role("reporter", "BYPASSRLS");
    stage
        .db
        .admin()
        .run(&format!("GRANT SELECT ON letters TO {reporter}; GRANT CREATE ON SCHEMA public TO {reporter}"));
    reporter
}

fn e19_a_view_that_shows_every_tenant_is_refused_and_one_for_its_invoker_is_not(stage: &Stage) {
    let reporter = stage.db.login(&reporter(stage));
    forbidden(&reporter, "CREATE VIEW everything AS SELECT * FROM letters");
    forbidden(&reporter, "CREATE VIEW everything AS SELECT 1 AS one WHERE EXISTS (SELECT FROM letters)");
    let admin = stage.db.admin();
    warned(&admin, "CREATE VIEW everything AS SELECT * FROM letters", "everything");
    admin.run(&format!("GRANT SELECT ON everything TO {}", stage.app));
    if !stage.setting.has_fence() {
        stage.login().sees("SELECT item FROM everything ORDER BY id", &[MINE, CANARY]);
    }
    silent(&owner(stage), "CREATE VIEW bound AS SELECT * FROM letters");
    stage.db.admin().run(&format!("GRANT SELECT ON bound TO {}", stage.app));
    stage.as_red().sees("SELECT item FROM bound", &[MINE]);
    warned(&stage.db.admin(), "ALTER VIEW bound OWNER TO CURRENT_USER", "bound");
    if stage.db.cluster().major() >= 15 {
        silent(&admin, "ALTER VIEW everything SET (security_invoker = true)");
        stage.as_red().sees("SELECT item FROM everything", &[MINE]);
    }
}

fn e20_a_materialized_view_is_read_through_a_tenant_view(stage: &Stage) {
    let Attackers { unguarded, member } = attackers(stage);
    forbidden(
        &member,
        "BEGIN; SELECT tenancy.set_tenant('blue'); CREATE MATERIALIZED VIEW kept AS SELECT * FROM letters",
    );
    member.run("ROLLBACK");
    unguarded.run(&format!(
        "BEGIN; SELECT tenancy.set_tenant('blue'); CREATE MATERIALIZED VIEW kept AS SELECT * FROM letters;
         GRANT SELECT ON kept TO {}; COMMIT",
        stage.app
    ));
    if !stage.setting.has_fence() {
        stage.as_red().sees("SELECT item FROM kept", &[CANARY]);
    }
    let admin = stage.db.admin();
    warned(&admin, "CREATE MATERIALIZED VIEW totals AS SELECT id, tenant_id, item FROM letters", "totals");
    warned(&admin, "CREATE VIEW on_top AS SELECT item FROM totals", "on_top");
    admin.sees("SELECT tenancy.tenant_view('totals')", &["totals_of_tenant"]);
    admin.run(&format!("GRANT SELECT ON totals_of_tenant TO {}", stage.app));
    let app = stage.login();
    app.refused("55000", "SELECT item FROM totals_of_tenant");
    for (tenant, item) in [("red", MINE), ("blue", CANARY)] {
        app.begin_as(tenant);
        app.sees("SELECT item FROM totals_of_tenant", &[item]);
        app.run("COMMIT");
    }
    app.refused("42501", "SELECT item FROM totals");
    admin.refused("42710", "SELECT tenancy.tenant_view('totals')");
    for (matview, sqlstate) in [("'letters'", "42809"), ("NULL", "22023"), ("'kept_nowhere'", "42P01")] {
        admin.refused(sqlstate, &format!("SELECT tenancy.tenant_view({matview})"));
    }
    admin.run("CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM letters");
    admin.refused("42703", "SELECT tenancy.tenant_view('counted')");
    warned(&admin, "CREATE OR REPLACE VIEW totals_of_tenant AS SELECT id, tenant_id, item FROM totals", "tenant_view");
    admin.run("DROP VIEW totals_of_tenant");
    admin.sees("SELECT view FROM tenancy_internal.tenant_views", &[]);
}

fn e21_a_definer_function_of_a_role_that_is_not_bound_is_refused(stage: &Stage) {
    let search = |name: &str, security: &str| {
        format!(
            "CREATE FUNCTION {name}() RETURNS SETOF text LANGUAGE plpgsql SECURITY {security} AS
             $$ BEGIN RETURN QUERY SELECT item FROM letters ORDER BY id; END $$"
        )
    };
    let reporter = stage.db.login(&reporter(stage));
    forbidden(&reporter, &search("search", "DEFINER"));
    silent(&reporter, &search("search", "INVOKER"));
    forbidden(&reporter, "ALTER FUNCTION search() SECURITY DEFINER");
    let admin = stage.db.admin();
    warned(&admin, &search("seek", "DEFINER"), "seek");
    if !stage.setting.has_fence() {
        stage.login().sees("SELECT * FROM seek()", &[MINE, CANARY]);
    }
    silent(&owner(stage), &search("find", "DEFINER"));
    stage.as_red().sees("SELECT * FROM find()", &[MINE]);
    silent(&admin, "CREATE FUNCTION other() RETURNS text LANGUAGE sql SECURITY DEFINER AS $$ SELECT 'newsletters' $$");
    warned(&admin, "ALTER FUNCTION tenancy.current_tenant_id() IMMUTABLE", "part of pg_tenancy");
}

fn e23_a_protected_table_goes_to_no_role_that_must_not_have_it(stage: &Stage) {
    let reporter = reporter(stage);
    stage.db.admin().run(&format!("GRANT {}, {reporter} TO {}", stage.app, stage.owner));
    let owner = owner(stage);
    for heir in [&stage.app, &reporter] {
        forbidden(&owner, &format!("ALTER TABLE letters OWNER TO {heir}"));
        warned(&stage.db.admin(), &format!("ALTER TABLE letters OWNER TO {heir}"), "should not own");
        stage.db.admin().run(&format!("ALTER TABLE letters OWNER TO {}", stage.owner));
    }
    let colleague = stage.db.role("colleague", "");
    stage
        .db
        .admin()
        .run(&format!("GRANT {colleague} TO {}; GRANT CREATE ON SCHEMA public TO {colleague}", stage.owner));
    silent(&owner, &format!("ALTER TABLE letters OWNER TO {colleague}"));
    stage.db.admin().run(&format!("GRANT SELECT ON letters TO {}", stage.app));
    stage.as_red().sees_only_red();
}

fn e26_a_foreign_table_with_a_tenant_column_is_told_of(stage: &Stage) {
    let admin = stage.db.admin();
    admin.run("CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER files FOREIGN DATA WRAPPER nothing");
    warned(&admin, "CREATE FOREIGN TABLE loop (id int, tenant_id uuid) SERVER files", "foreign table");
    silent(&admin, "CREATE FOREIGN TABLE other (id int) SERVER files");
    warned(&admin, "ALTER FOREIGN TABLE other ADD COLUMN tenant_id uuid", "foreign table");
}

fn e26_a_foreign_table_back_to_the_table_shows_what_its_account_may_see(stage: &Stage) {
    let cluster = stage.db.cluster();
    if !cluster.server().pkglibdir.join("postgres_fdw.so").is_file() {
        return; // the wheels' servers come without contrib modules
    }
    stage.db.admin().run(&format!(
        "CREATE EXTENSION postgres_fdw;
         CREATE SERVER loopback FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host {}, port '{}', dbname {});
         CREATE USER MAPPING FOR PUBLIC SERVER loopback OPTIONS (user {}, password_required 'false');
         CREATE FOREIGN TABLE naive_loop (id int, item text) SERVER loopback OPTIONS (table_name 'naive');
         CREATE FOREIGN TABLE loop (id int, item text) SERVER loopback OPTIONS (table_name 'letters');
         ALTER TABLE naive OWNER TO {owner}; GRANT SELECT ON naive_loop, loop TO {app}",
        quote_literal(&cluster.sockets().display().to_string()),
        cluster.port(),
        quote_literal(stage.db.name()),
        quote_literal(stage.owner.name()),
        owner = stage.owner,
        app = stage.app
    ));
    for session in [stage.login(), stage.as_red()] {
        session.sees("SELECT item FROM naive_loop ORDER BY id", &[MINE, CANARY]);
        // The tenant does not go to the other end, where the owner is bound and has none.
        session.refused("55000", "SELECT item FROM loop");
    }
}

fn e30_a_table_without_the_tenant_column_is_open_to_whom_it_is_granted(stage: &Stage) {
    stage.db.admin().run("SELECT tenancy.protect_schema('public')");
    let owner = owner(stage);
    owner.run(
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO PUBLIC;
         CREATE TABLE notes (id int, item text); CREATE TABLE memos (id int, tenant_id uuid, item text)",
    );
    stage.db.admin().run("INSERT INTO notes SELECT id, item FROM letters");
    stage.as_red().holds_or_sees(stage.holds("E30"), "SELECT item FROM notes ORDER BY id", &[MINE, CANARY]);
    // With the column it is each tenant's own, whoever may read it.
    fill(stage, "memos");
    is_isolated(stage, "memos");
    let nobody = stage.db.login(&stage.db.role("nobody", ""));
    nobody.refused("55000", "SELECT item FROM memos");
    nobody.refused("42501", "TRUNCATE memos");
}

fn e34_no_rule_leads_rows_elsewhere(stage: &Stage) {
    let Attackers { unguarded, member } = attackers(stage);
    unguarded.run(&format!("CREATE TABLE tap (item text); GRANT ALL ON tap TO {}", stage.app));
    let rule = "CREATE RULE tap AS ON INSERT TO letters DO ALSO INSERT INTO tap VALUES (NEW.item)";
    forbidden(&member, rule);
    unguarded.run(rule);
    let blue = stage.login_as(&stage.app, "blue");
    blue.run("INSERT INTO letters (id, item) VALUES (7, 'for blue alone'); COMMIT");
    stage.as_red().sees("SELECT item FROM tap", &["for blue alone"]);
    // The rule that is there already keeps nobody from his migrations.
    silent(&member, "ALTER TABLE letters ADD COLUMN colour text");
    member.run("DROP RULE tap ON letters");
}

fn b31_an_owner_publishes_no_protected_table(stage: &Stage) {
    let Attackers { unguarded, member } = attackers(stage);
    stage.db.admin().run(&format!("GRANT CREATE ON DATABASE {} TO {}", stage.database(), stage.owner));
    unguarded.run("CREATE PUBLICATION leak FOR TABLE letters; CREATE TABLE harmless (id int)");
    stage.db.admin().sees("SELECT tablename FROM pg_publication_tables WHERE pubname = 'leak'", &["letters"]);
    forbidden(&member, "CREATE PUBLICATION news FOR TABLE letters");
    silent(&member, "CREATE PUBLICATION news FOR TABLE harmless");
    forbidden(&owner(stage), "ALTER PUBLICATION leak SET (publish = 'insert')");
    owner(stage).run("ALTER PUBLICATION leak DROP TABLE letters");
    stage.db.admin().run(&format!("ALTER PUBLICATION news OWNER TO {}", stage.owner));
    forbidden(&owner(stage), "ALTER PUBLICATION news ADD TABLE letters");
    warned(&stage.db.admin(), "CREATE PUBLICATION everything FOR ALL TABLES", "everything");
}

fn c24_the_guard_against_truncation_is_not_switched_off(stage: &Stage) {
    let Attackers { unguarded, member } = attackers(stage);
    for statement in [
        "ALTER TABLE letters DISABLE TRIGGER USER",
        "ALTER TABLE letters DISABLE TRIGGER tenancy_truncate_guard",
        "ALTER TABLE letters ENABLE REPLICA TRIGGER tenancy_truncate_guard",
        "DROP TRIGGER tenancy_truncate_guard ON letters",
        "ALTER TRIGGER tenancy_truncate_guard ON letters RENAME TO other",
    ] {
        forbidden(&member, statement);
    }
    member.refused("42501", "TRUNCATE letters");
    unguarded.run("ALTER TABLE letters DISABLE TRIGGER USER");
    if !stage.setting.has_fence() {
        member.run("TRUNCATE letters");
        stage.db.admin().sees("SELECT item FROM letters", &[]);
    }
}

fn a_child_of_two_parents_and_a_parent_without_protection_are_refused(stage: &Stage) {
    let Attackers { unguarded, member } = attackers(stage);
    unguarded.run("CREATE TABLE above (id int, tenant_id uuid, item text); CREATE TABLE child () INHERITS (letters)");
    stage.db.admin().run("SELECT tenancy.protect_table('letters')");
    for statement in ["ALTER TABLE letters INHERIT above", "ALTER TABLE child INHERIT above"] {
        let refusal = member.refused("42809", statement);
        assert!(refusal.hint().is_some(), "{refusal:?}");
    }
    unguarded.run("ALTER TABLE letters INHERIT above");
    stage.db.admin().run(&format!("GRANT SELECT ON above TO {}", stage.app));
    if !stage.setting.has_fence() {
        stage.login().sees("SELECT item FROM above ORDER BY id", &[MINE, CANARY]);
    }
}

fn ordinary_migrations_of_the_owner_go_through(stage: &Stage) {
    let owner = owner(stage);
    for statement in [
        "ALTER TABLE letters ADD COLUMN colour text NOT NULL DEFAULT 'white', ADD COLUMN weight int",
        "ALTER TABLE letters ALTER COLUMN weight TYPE bigint, ALTER COLUMN colour DROP NOT NULL",
        "ALTER TABLE letters ADD CONSTRAINT light CHECK (weight < 100) NOT VALID",
        "ALTER TABLE letters RENAME COLUMN weight TO grams",
        "ALTER TABLE letters DROP COLUMN grams, DROP COLUMN colour",
        "CREATE INDEX by_item ON letters (item); CREATE UNIQUE INDEX ON letters (tenant_id, item)",
        "DROP INDEX letters_tenant_id_idx; CREATE INDEX letters_tenant_id_idx ON letters (tenant_id, id)",
        "ALTER TABLE letters RENAME TO post; ALTER TABLE post RENAME TO letters",
        "CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
         CREATE TRIGGER stamp BEFORE INSERT ON letters FOR EACH ROW EXECUTE FUNCTION stamp()",
        "ALTER TABLE letters DISABLE TRIGGER stamp; ALTER TABLE letters ENABLE TRIGGER stamp; DROP TRIGGER stamp ON letters",
        "ALTER TABLE letters SET (fillfactor = 90); ALTER TABLE letters CLUSTER ON letters_pkey; ALTER TABLE letters SET WITHOUT CLUSTER",
        "ALTER TABLE letters ENABLE ROW LEVEL SECURITY; ALTER TABLE letters FORCE ROW LEVEL SECURITY",
        "COMMENT ON TABLE letters IS 'post'; ALTER TABLE letters REPLICA IDENTITY FULL",
        "ALTER TABLE letters RENAME COLUMN tenant_id TO whose",
        "ALTER TABLE letters ADD COLUMN tenant_id int; ALTER TABLE letters DROP COLUMN tenant_id",
    ] {
        silent(&owner, statement);
        stage.as_red().sees_only_red();
        stage.login().refused("55000", "SELECT item FROM letters");
    }
    stage
        .db
        .admin()
        .sees("SELECT relation, tenant_column, is_enforced FROM tenancy.protected_tables", &["letters|whose|t"]);
    stage.db.admin().sees("SELECT tenant_column FROM tenancy_internal.protected_tables", &["whose"]);
    owner.run("DROP TABLE letters");
    stage.db.admin().sees("SELECT relation FROM tenancy_internal.protected_tables", &[]);
}

fn keys_that_a_migration_adds_get_the_tenant(stage: &Stage) {
    stage.db.admin().run("SELECT tenancy.protect_schema('public')");
    let owner = owner(stage);
    let definition = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'answers'";
    let scoped = "FOREIGN KEY (tenant_id, letter) REFERENCES letters(tenant_id, id)";
    silent(&owner, "CREATE TABLE replies (id int, tenant_id uuid, letter int CONSTRAINT answers REFERENCES letters)");
    owner.sees(definition, &[scoped]);
    // Dropping a key opens nothing, and it comes back with the tenant.
    silent(&owner, "ALTER TABLE replies DROP CONSTRAINT answers");
    silent(
        &owner,
        "ALTER TABLE replies ADD CONSTRAINT answers FOREIGN KEY (letter) REFERENCES letters ON DELETE CASCADE NOT VALID",
    );
    owner.sees(definition, &[&format!("{scoped} ON DELETE CASCADE NOT VALID")]);
    stage.db.admin().run(&format!("GRANT INSERT ON replies TO {}", stage.app));
    stage.as_red().refused("23503", "INSERT INTO replies (id, letter) VALUES (1, 2)");
    // Where somebody chose to keep keys as they are, the guard does too.
    stage.db.admin().run(
        "CREATE TABLE stamps (id int PRIMARY KEY, tenant_id uuid, letter int); SELECT tenancy.unprotect_table('stamps');
         SELECT tenancy.protect_table('stamps', foreign_keys => 'keep')",
    );
    stage.db.admin().run("ALTER TABLE stamps ADD CONSTRAINT kept FOREIGN KEY (letter) REFERENCES letters");
    owner.sees(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'kept'",
        &["FOREIGN KEY (letter) REFERENCES letters(id)"],
    );
}

fn tables_are_swapped_as_migration_tools_do(stage: &Stage) {
    stage.db.admin().run("SELECT tenancy.protect_schema('public')");
    let owner = owner(stage);
    silent(&owner, "CREATE TABLE fresh (LIKE letters INCLUDING ALL)");
    fill(stage, "fresh");
    silent(
        &owner,
        "BEGIN; ALTER TABLE letters RENAME TO stale; ALTER TABLE fresh RENAME TO letters; COMMIT; DROP TABLE stale",
    );
    stage.db.admin().run(&format!("GRANT SELECT ON letters TO {}", stage.app));
    is_isolated(stage, "letters");
    // A schema that is renamed takes its registration along; one that was let go protects nothing new.
    let admin = stage.db.admin();
    admin.run(&format!(
        "CREATE SCHEMA shop; GRANT ALL ON SCHEMA shop TO {0}; SELECT tenancy.protect_schema('shop'); ALTER SCHEMA shop RENAME TO store",
        stage.owner
    ));
    silent(&owner, "CREATE TABLE store.orders (id int, tenant_id uuid)");
    admin.sees("SELECT schema FROM tenancy.protected_schemas ORDER BY 1", &["public", "store"]);
    admin.run("SELECT tenancy.unprotect_schema('store')");
    warned(&owner, "CREATE TABLE store.lines (id int, tenant_id uuid)", "not protected");
    admin.refused("42704", "SELECT tenancy.unprotect_schema('store')");
    admin.run("DROP SCHEMA store CASCADE; SELECT tenancy.protect_schema('public')");
    admin.sees("SELECT count(*) FROM tenancy.protected_tables WHERE relation::text LIKE 'store%'", &["0"]);
}

fn administrators_and_superusers_are_told_and_let(stage: &Stage) {
    let admin = stage.db.role("admin", "");
    stage.db.admin().run(&format!(
        "SELECT tenancy.grant_admin('{admin}'); GRANT {0} TO {admin}; GRANT CREATE ON SCHEMA public TO {0}",
        stage.owner
    ));
    for session in [stage.db.login(&admin), stage.db.admin()] {
        for damage in [
            "ALTER TABLE letters NO FORCE ROW LEVEL SECURITY",
            "ALTER TABLE letters DISABLE ROW LEVEL SECURITY",
            "DROP POLICY tenancy_isolation ON letters",
            "DROP TRIGGER tenancy_truncate_guard ON letters",
        ] {
            warned(&session, damage, "no longer protected as it was");
            session.run("SELECT tenancy.protect_table('letters')");
            session.sees("SELECT is_enforced FROM tenancy.protected_tables", &["t"]);
        }
        silent(&session, "SELECT tenancy.unprotect_table('letters'); SELECT tenancy.protect_table('letters')");
    }
}

fn a_guard_that_only_warns_changes_nothing(stage: &Stage) {
    stage.db.admin().run(&format!(
        "SELECT tenancy.protect_schema('public');
         ALTER ROLE {} IN DATABASE {} SET tenancy.ddl_guard = warn",
        stage.owner,
        stage.database()
    ));
    let owner = owner(stage);
    warned(&owner, "ALTER TABLE letters NO FORCE ROW LEVEL SECURITY", "no longer protected");
    owner.sees("SELECT relforcerowsecurity FROM pg_class WHERE relname = 'letters'", &["f"]);
    owner.run("ALTER TABLE letters FORCE ROW LEVEL SECURITY");
    warned(&owner, "CREATE TABLE orders (id int, tenant_id uuid)", "not protected");
    warned(&owner, "CREATE TABLE child () INHERITS (letters)", "not protected yet");
    owner.sees("SELECT relname FROM pg_class WHERE relname IN ('orders', 'child') AND relrowsecurity", &[]);
}

fn nobody_but_a_superuser_switches_the_guard_off(stage: &Stage) {
    let owner = owner(stage);
    // Where the library is not there yet the setting is nobody's, and what it says then does not count.
    if !stage.setting.has_fence() {
        owner.run("SET tenancy.ddl_guard = off");
        forbidden(&owner, "ALTER TABLE letters NO FORCE ROW LEVEL SECURITY");
    }
    owner.refused("42501", "SET tenancy.ddl_guard = off");
    owner.refused("42501", &format!("ALTER ROLE {} SET tenancy.ddl_guard = off", stage.owner));
    owner.refused("42501", "ALTER EVENT TRIGGER tenancy_guard_ddl DISABLE");
    owner.refused("42501", "UPDATE pg_settings SET setting = 'off' WHERE name = 'tenancy.ddl_guard'");
    // What a dump says of itself counts from a superuser only, and triggers switched off for a load do not switch it off.
    owner.run("SET check_function_bodies = off; SET row_security = off");
    forbidden(&owner, "ALTER TABLE letters NO FORCE ROW LEVEL SECURITY");
    stage.db.admin().run(&format!(
        "ALTER ROLE {} IN DATABASE {} SET session_replication_role = replica",
        stage.owner,
        stage.database()
    ));
    forbidden(&stage.db.login(&stage.owner), "ALTER TABLE letters NO FORCE ROW LEVEL SECURITY");
    for function in ["guard_ddl", "note_drops", "close_before_drop"] {
        stage.db.admin().refused("39P03", &format!("SELECT tenancy_internal.{function}()"));
    }
}

/// The checks of integrity that find something in policies, as a superuser meanwhile sees them.
fn findings_of_policies(session: &Session, change: &str) -> (Vec<String>, String) {
    session.run("BEGIN; SET LOCAL tenancy.ddl_guard = off");
    session.run(change);
    let found = session.rows(
        "SELECT DISTINCT check_id FROM tenancy.check_integrity('catalog') WHERE object LIKE '%letters%' AND check_id LIKE '%policy%'",
    );
    let enforced =
        session.value("SELECT is_enforced FROM tenancy.protected_tables WHERE relation = 'letters'::regclass");
    session.run("ROLLBACK");
    (found, enforced)
}

fn the_guard_and_integrity_judge_a_policy_of_ours_alike(stage: &Stage) {
    let admin = stage.db.admin();
    let owner = stage.db.login(&stage.owner);
    admin.run(&format!(
        "CREATE SCHEMA elsewhere; GRANT ALL ON SCHEMA elsewhere TO {0};
         CREATE FUNCTION elsewhere.current_tenant_id() RETURNS uuid LANGUAGE sql STABLE AS 'SELECT NULL::uuid';
         GRANT USAGE ON SCHEMA tenancy_internal TO {0};
         GRANT EXECUTE ON FUNCTION tenancy_internal.writing_tenant_id(), tenancy_internal.may_write() TO {0}",
        stage.owner
    ));
    // Written otherwise and the same tree: nothing has changed.
    for same in [
        "ALTER POLICY tenancy_isolation ON letters USING (((tenant_id)=tenancy.current_tenant_id()))",
        "ALTER POLICY tenancy_isolation ON letters USING (tenant_id /* OR true */ OPERATOR(pg_catalog.=) \"tenancy\".current_tenant_id())",
        // Whatever way the session has names shown.
        "SET LOCAL quote_all_identifiers = on; ALTER TABLE letters ADD COLUMN more int",
        "SET LOCAL search_path = tenancy, public; ALTER TABLE letters ADD COLUMN more int",
    ] {
        assert_eq!(findings_of_policies(&admin, same), (vec![], "t".to_owned()), "{same}");
        for session in [&owner, &admin] {
            session.run("BEGIN");
            session.run(same);
            session.run("ROLLBACK");
            let told = session.notices();
            assert!(told.is_empty(), "{same}: {told:?}");
        }
    }
    for (check, altered) in [
        (
            "isolation_policy_altered",
            "ALTER POLICY tenancy_isolation ON letters USING (tenant_id = tenancy.current_tenant_id() OR true)",
        ),
        (
            "isolation_policy_altered",
            "ALTER POLICY tenancy_isolation ON letters USING (tenancy.current_tenant_id() = tenant_id)",
        ),
        (
            "isolation_policy_altered",
            "ALTER POLICY tenancy_isolation ON letters USING (tenant_id = elsewhere.current_tenant_id())",
        ),
        (
            "isolation_policy_altered",
            "SET LOCAL search_path = elsewhere, public; ALTER POLICY tenancy_isolation ON letters USING (tenant_id = current_tenant_id())",
        ),
        (
            "isolation_policy_altered",
            "ALTER POLICY tenancy_isolation ON letters USING (tenant_id::text = tenancy.current_tenant_id()::text)",
        ),
        (
            "isolation_policy_altered",
            "ALTER POLICY tenancy_isolation ON letters USING (tenant_id = (SELECT tenancy.current_tenant_id()))",
        ),
        (
            "isolation_policy_altered",
            "ALTER POLICY tenancy_isolation ON letters WITH CHECK (tenant_id = tenancy.current_tenant_id())",
        ),
        (
            "isolation_policy_altered",
            "ALTER POLICY tenancy_isolation_delete ON letters USING (tenancy_internal.may_write() OR id > 0)",
        ),
        ("isolation_policy_narrowed", "ALTER POLICY tenancy_isolation ON letters TO CURRENT_USER"),
        ("open_policy_altered", "ALTER POLICY tenancy_open ON letters USING (true)"),
        ("isolation_policy_missing", "ALTER POLICY tenancy_isolation ON letters RENAME TO tenancy_isolation_too"),
    ] {
        let (found, enforced) = findings_of_policies(&admin, altered);
        assert!(found.contains(&check.to_owned()), "{altered}: {found:?}");
        assert_eq!(enforced, if check == "open_policy_altered" { "t" } else { "f" }, "{altered}");
        owner.run("BEGIN");
        let refusal = owner.refused("42501", altered);
        assert!(refusal.message().contains("must stay protected"), "{refusal:?}");
        owner.run("ROLLBACK");
    }
    // Made anew in another form, in one command for the catalog that no ALTER reaches.
    for (check, form) in [
        (
            "isolation_policy_altered",
            "AS PERMISSIVE USING (tenant_id = tenancy.current_tenant_id()) WITH CHECK (tenant_id = tenancy_internal.writing_tenant_id())",
        ),
        ("isolation_policy_altered", "AS RESTRICTIVE FOR SELECT USING (tenant_id = tenancy.current_tenant_id())"),
        ("isolation_policy_without_check", "AS RESTRICTIVE USING (tenant_id = tenancy.current_tenant_id())"),
    ] {
        let (drop, create) =
            ("DROP POLICY tenancy_isolation ON letters", format!("CREATE POLICY tenancy_isolation ON letters {form}"));
        let (found, enforced) = findings_of_policies(&admin, &format!("{drop}; {create}"));
        assert_eq!((&*found, &*enforced), (&[check.to_owned()][..], "f"), "{form}");
        owner.refused("42501", &format!("{drop}; {create}"));
        admin.run(&format!("BEGIN; SET LOCAL tenancy.ddl_guard = off; {drop}; COMMIT"));
        let refusal = owner.refused("42501", &create);
        assert!(refusal.message().contains("must stay protected"), "{refusal:?}");
        admin.run("SELECT tenancy.protect_table('letters')");
    }
}

fn the_guard_and_integrity_judge_a_policy_of_the_users_alike(stage: &Stage) {
    let admin = stage.db.admin();
    let owner = stage.db.login(&stage.owner);
    admin.run(
        "SET tenancy.ddl_guard = off; ALTER TABLE letters ADD COLUMN not_tenant_id int, ADD COLUMN hidden boolean;
         DROP POLICY tenancy_open ON letters; RESET tenancy.ddl_guard",
    );
    for (check, using) in [
        // What a text that is searched would take for something else.
        (None, "item <> 'x OR tenant_id = tenancy.current_tenant_id()'"),
        (None, "not_tenant_id = 1 OR hidden"),
        (None, "item <> 'current_setting(''my.x'')'"),
        (None, "item <> current_setting('server_version')"),
        (None, "tenant_id IS NOT NULL AND hidden"),
        (Some("policy_widens"), "tenant_id = tenancy.current_tenant_id() OR hidden"),
        (Some("policy_widens"), "(tenant_id = '00000000-0000-0000-0000-000000000000') IS TRUE OR item = 'x'"),
        (Some("policy_trusts_setting"), "item = current_setting('my.x', true)"),
        (Some("policy_trusts_setting"), "item = current_setting('server' || '_version')"),
        (Some("policy_opened_by_setting"), "hidden OR current_setting('my.x', true) = 'all'"),
        (Some("policy_opens_without_context"), "hidden OR current_setting('my.x', true) IS NULL"),
    ] {
        let create = format!("CREATE POLICY mine ON letters USING ({using}) WITH CHECK ({using})");
        let (found, _) = findings_of_policies(&admin, &create);
        let faults =
            ["policy_widens", "policy_trusts_setting", "policy_opened_by_setting", "policy_opens_without_context"];
        let found: Vec<&str> = found.iter().map(String::as_str).filter(|check| faults.contains(check)).collect();
        assert_eq!(found, check.into_iter().collect::<Vec<_>>(), "{using}");
        for way in ["off", "on"] {
            owner.run(&format!("BEGIN; SET LOCAL quote_all_identifiers = {way}"));
            match check {
                Some(_) => drop(owner.refused("42501", &create)),
                None => owner.run(&create),
            }
            owner.run("ROLLBACK");
        }
    }
}
