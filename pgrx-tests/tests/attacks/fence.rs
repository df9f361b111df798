//! THREATS (b) and (e) at run time: roles that row security does not bind, what reads with their rights, and tables whose
//! protection a superuser took off. Policies cannot help there; the hooks can.

use crate::stage::{Attacker, CANARY, MINE, Stage, stories};
use pg_tenancy_tests::{Role, Session, quote_literal};

stories![
    b03_a_role_with_bypassrls_is_stopped,
    b03_an_exempt_role_works_until_its_time_is_over,
    b04_a_superuser_in_a_tenants_transaction_is_stopped,
    b07_set_role_to_a_role_with_bypassrls_is_stopped,
    b08_reset_role_does_not_make_a_tenants_transaction_a_superusers,
    b12_e19_a_view_of_a_superuser_is_stopped,
    b14_e20_a_materialized_view_is_not_for_tenants,
    b18_truncate_is_refused_where_its_trigger_is_gone,
    b19_a_planted_trigger_does_not_copy_rows,
    b20_reading_all_data_reaches_neither_partitions_nor_materialized_views,
    b24_large_objects_are_not_passed_between_tenants,
    b29_what_a_definer_trigger_copies_elsewhere_is_open,
    b30_decoding_reads_all_tenants,
    b31_the_owner_cannot_publish_rows,
    c19_a_shared_sequence_tells_how_much_is_written,
    c20_a_sequence_cannot_be_read_with_the_right_to_use_it,
    c26_a_tenant_cannot_lock_the_others_out,
    e08_without_row_level_security_nobody_reads,
    e09_without_force_the_owner_does_not_read,
    e11_e12_e36_widened_policies_open_nothing,
    e12_dropped_policies_open_nothing,
    e21_a_definer_function_of_a_superuser_is_stopped,
    e25_bypassrls_given_to_the_application_opens_nothing,
];

const ALL: &str = "SELECT item FROM letters ORDER BY id";
const BOTH: [&str; 2] = [MINE, CANARY];

impl Stage {
    /// A login role with that attribute, which may use the table and the context.
    fn strong(&self, attribute: &str) -> Role {
        let role = self.db.role("strong", attribute);
        self.db.admin().run(&format!(
            "GRANT USAGE ON SCHEMA tenancy TO {role}; GRANT SELECT, INSERT, UPDATE, DELETE ON letters TO {role}"
        ));
        role
    }
}

/// Runs the attack in red's transaction and outside of any; neither shows anything where the row holds.
#[track_caller]
fn open_unless(holds: bool, session: &Session, sql: &str) {
    session.run("ROLLBACK");
    for begin in ["BEGIN", "BEGIN; SET LOCAL app.current_tenant_id = 'red'"] {
        session.run(begin);
        session.holds_or_sees(holds, sql, &BOTH);
        session.run("ROLLBACK");
    }
}

fn b03_a_role_with_bypassrls_is_stopped(stage: &Stage) {
    let reporter = stage.strong("BYPASSRLS");
    let session = stage.db.login(&reporter);
    open_unless(stage.holds("B03"), &session, ALL);
    if stage.holds("B03") {
        for begin in ["BEGIN", "BEGIN; SET LOCAL app.current_tenant_id = 'red'"] {
            session.run(begin);
            session.refused_inside("42501", &format!("INSERT INTO letters VALUES (9, '{}', 'forged')", stage.blue.id));
            for attack in [
                "SELECT count(*) FROM letters",
                "SELECT item FROM letters WHERE false",
                "UPDATE letters SET item = 'taken'",
                "DELETE FROM letters",
                "COPY letters TO STDOUT",
                "COPY (SELECT item FROM letters) TO STDOUT",
                "WITH gone AS (DELETE FROM letters RETURNING item) SELECT item FROM gone",
                "SELECT 1 WHERE EXISTS (SELECT FROM letters)",
                "SELECT (SELECT max(item) FROM letters)",
                "CREATE TEMP TABLE loot ON COMMIT DROP AS SELECT item FROM letters",
                "DECLARE loot CURSOR FOR SELECT item FROM letters",
                "DEALLOCATE ALL; PREPARE loot AS SELECT item FROM letters; EXECUTE loot",
                "DO $$ BEGIN PERFORM item FROM letters; END $$",
                "SELECT item FROM letters FOR UPDATE",
                "TABLE letters",
                "SET LOCAL row_security = off; SELECT item FROM letters",
            ] {
                session.refused_inside("42501", attack);
            }
            session.run("ROLLBACK");
        }
        // COPY FROM does not go through row security for such a role.
        session.refused("42501", "COPY letters FROM STDIN");
    }
}

fn b03_an_exempt_role_works_until_its_time_is_over(stage: &Stage) {
    let reporter = stage.strong("BYPASSRLS");
    let admin = stage.db.admin();
    let (name, other) = (quote_literal(&reporter.to_string()), quote_literal(&stage.app.to_string()));
    admin.run(&format!("SELECT tenancy.exempt_role({name}, 'monthly report', now() + interval '1 hour')"));
    let session = stage.db.login(&reporter);
    session.sees(ALL, &BOTH);
    session.changes(2, "UPDATE letters SET item = item");
    admin.run(&format!("SELECT tenancy.unexempt_role({name})"));
    session.holds_or_sees(stage.holds("B03"), ALL, &BOTH);
    admin.run(&format!("SELECT tenancy.exempt_role({name}, 'one second', now() + interval '1 second')"));
    session.sees(ALL, &BOTH);
    session.run("SELECT pg_sleep(1.2)");
    session.holds_or_sees(stage.holds("B03"), ALL, &BOTH);
    // Neither for itself nor for others.
    for target in [&name, &other] {
        session.refused("42501", &format!("SELECT tenancy.exempt_role({target}, 'me', now() + interval '1 day')"));
        session.refused("42501", &format!("SELECT tenancy.unexempt_role({target})"));
    }
    session.refused("42501", "UPDATE tenancy.exempt_roles SET until = NULL");
    session.refused(
        "42501",
        "INSERT INTO tenancy_internal.exempt_roles (role, reason) VALUES (current_user::regrole, 'me')",
    );
}

fn b04_a_superuser_in_a_tenants_transaction_is_stopped(stage: &Stage) {
    let session = stage.db.login(&stage.strong("SUPERUSER"));
    for set in ["SET LOCAL app.current_tenant_id = 'red'", "SELECT tenancy.set_tenant('red')"] {
        session.run(&format!("BEGIN; {set}"));
        session.holds_or_sees(stage.holds("B04"), ALL, &BOTH);
        session.run("ROLLBACK");
    }
    // A tenant that was cleared again has been in the transaction all the same.
    session.run("BEGIN; SELECT tenancy.set_tenant('red'); SELECT tenancy.clear_tenant()");
    session.holds_or_sees(stage.holds("B04"), ALL, &BOTH);
    session.run("ROLLBACK; BEGIN; SAVEPOINT s; SELECT tenancy.set_tenant('red'); ROLLBACK TO s");
    session.holds_or_sees(stage.holds("B04"), ALL, &BOTH);
    session.run("ROLLBACK");
    // Maintenance has no tenant, and is not hindered.
    session.sees(ALL, &BOTH);
    session.changes(2, "UPDATE letters SET item = item");
    session.run("ROLLBACK");
    session.run("SET tenancy.fence_superusers = off");
    session.begin_as("red");
    session.sees(ALL, &BOTH);
}

fn b07_set_role_to_a_role_with_bypassrls_is_stopped(stage: &Stage) {
    let reporter = stage.strong("BYPASSRLS");
    stage.db.admin().run(&format!("GRANT {reporter} TO {}", stage.app));
    let session = stage.login();
    session.run(&format!("SET ROLE {reporter}"));
    open_unless(stage.holds("B07"), &session, ALL);
    // A plan made before the role changed.
    session.run(&format!("RESET ROLE; PREPARE letters AS {ALL}; SET plan_cache_mode = force_generic_plan"));
    session.begin_as("red");
    session.sees("EXECUTE letters", &[MINE]);
    session.run(&format!("SET LOCAL ROLE {reporter}"));
    session.holds_or_sees(stage.holds("B07"), "EXECUTE letters", &BOTH);
}

fn b08_reset_role_does_not_make_a_tenants_transaction_a_superusers(stage: &Stage) {
    let boss = stage.strong("SUPERUSER");
    for (drop, climb) in [
        ("SET ROLE", "RESET ROLE"),
        ("SET SESSION AUTHORIZATION", "RESET SESSION AUTHORIZATION"),
        ("SET ROLE", "SET ROLE NONE"),
    ] {
        let session = stage.db.login(&boss);
        session.run(&format!("{drop} {}", stage.app));
        session.begin_as("red");
        session.sees_only_red();
        session.run(climb);
        session.holds_or_sees(stage.holds("B08"), ALL, &BOTH);
    }
}

fn b12_e19_a_view_of_a_superuser_is_stopped(stage: &Stage) {
    let reporter = stage.strong("BYPASSRLS");
    stage.db.admin().run(&format!(
        "GRANT CREATE ON SCHEMA public TO {reporter};
         CREATE VIEW all_letters AS SELECT id, item FROM letters;
         CREATE VIEW view_of_view AS SELECT id, item FROM all_letters;
         CREATE VIEW reporters AS SELECT id, item FROM letters;
         ALTER VIEW reporters OWNER TO {reporter};
         CREATE VIEW barrier WITH (security_barrier) AS SELECT id, item FROM letters;
         CREATE RULE readable AS ON INSERT TO naive DO INSTEAD SELECT id, item FROM letters;
         GRANT SELECT, UPDATE, DELETE ON all_letters, view_of_view, reporters, barrier TO {}",
        stage.app
    ));
    let session = stage.login();
    for view in ["all_letters", "view_of_view", "reporters", "barrier"] {
        open_unless(stage.holds("B12"), &session, &format!("SELECT item FROM {view} ORDER BY id"));
        session.begin_as("red");
        if stage.holds("E19") {
            session.refused_inside("42501", &format!("UPDATE {view} SET item = 'taken' WHERE id = 2"));
            session.refused_inside("42501", &format!("DELETE FROM {view} WHERE id = 2"));
        } else {
            session.run("SAVEPOINT s");
            session.changes(1, &format!("DELETE FROM {view} WHERE id = 2"));
            session.run("ROLLBACK TO s");
        }
        session.run("ROLLBACK");
    }
    // The view that asks for its caller's rights is the way to do it.
    if stage.db.cluster().major() >= 15 {
        stage.db.admin().run(&format!(
            "CREATE VIEW mine WITH (security_invoker) AS SELECT id, item FROM letters; GRANT SELECT ON mine TO {}",
            stage.app
        ));
        session.refused("55000", "SELECT item FROM mine");
        session.begin_as("red");
        session.sees("SELECT item FROM mine", &[MINE]);
    }
}

fn b14_e20_a_materialized_view_is_not_for_tenants(stage: &Stage) {
    let admin = stage.db.admin();
    admin.run(&format!(
        "CREATE MATERIALIZED VIEW snapshot AS SELECT * FROM letters;
         CREATE UNIQUE INDEX ON snapshot (id);
         CREATE MATERIALIZED VIEW second_hand AS SELECT id, item FROM snapshot;
         CREATE VIEW over_snapshot AS SELECT id, item FROM snapshot;
         GRANT SELECT ON snapshot, second_hand, over_snapshot TO {}",
        stage.app
    ));
    let session = stage.login();
    for relation in ["snapshot", "second_hand", "over_snapshot"] {
        open_unless(stage.holds("B14"), &session, &format!("SELECT item FROM {relation} ORDER BY id"));
    }
    // Whoever maintains it does.
    admin.run("REFRESH MATERIALIZED VIEW snapshot; REFRESH MATERIALIZED VIEW CONCURRENTLY snapshot");
    admin.sees("SELECT item FROM second_hand ORDER BY id", &BOTH);
}

fn b18_truncate_is_refused_where_its_trigger_is_gone(stage: &Stage) {
    let admin = stage.db.admin();
    let boss = stage.strong("SUPERUSER");
    let (reporter, keeper) = (stage.strong("BYPASSRLS"), stage.db.role("keeper", "BYPASSRLS"));
    admin.run(&format!(
        "CREATE TABLE replies (letter int REFERENCES letters, tenant_id uuid NOT NULL);
         CREATE TABLE events (id int, tenant_id uuid NOT NULL) PARTITION BY LIST (id);
         CREATE TABLE events_1 PARTITION OF events FOR VALUES IN (1);
         SELECT tenancy.protect_table('replies'); SELECT tenancy.protect_table('events');
         GRANT SELECT, TRUNCATE ON letters, naive, replies, events, events_1 TO {}, {reporter}, {keeper};
         SELECT tenancy.exempt_role('{keeper}', 'loads data')",
        stage.app
    ));
    const TRUNCATE: [&str; 6] = [
        "TRUNCATE letters CASCADE",
        "TRUNCATE naive, replies",
        "TRUNCATE ONLY replies",
        "TRUNCATE events",
        "TRUNCATE events_1",
        "DO $$ BEGIN TRUNCATE replies; END $$",
    ];
    let refused = |session: &Session| {
        for truncate in TRUNCATE {
            let refusal = session.refused_inside("42501", truncate);
            assert!(refusal.hint().is_some(), "{refusal:?}");
        }
    };
    stage.as_red().run("SAVEPOINT s; TRUNCATE naive; ROLLBACK TO s");
    refused(&stage.as_red());
    // A superuser may let a role switch triggers off; ours fires all the same.
    admin.run(&format!("ALTER ROLE {} SET session_replication_role = replica", stage.app));
    refused(&stage.as_red());
    admin.run(&format!("ALTER ROLE {} RESET session_replication_role", stage.app));
    for change in ["DISABLE TRIGGER tenancy_truncate_guard", "ENABLE REPLICA TRIGGER tenancy_truncate_guard"] {
        for table in ["letters", "replies", "events", "events_1"] {
            admin.run(&format!("ALTER TABLE ONLY {table} {change}"));
        }
        admin.sees("SELECT DISTINCT is_enforced FROM tenancy.protected_tables", &["f"]);
        let (app, bypassing, serving) =
            (stage.as_red(), stage.login_as(&reporter, "red"), stage.login_as(&boss, "red"));
        for session in [app, bypassing, serving] {
            if stage.setting.has_fence() {
                refused(&session);
            } else {
                TRUNCATE.iter().for_each(|truncate| session.run(&format!("SAVEPOINT s; {truncate}; ROLLBACK TO s")));
            }
            session.run("ROLLBACK");
        }
    }
    // Maintenance, and whoever is exempt, delete what they will.
    for session in [stage.db.login(&boss), stage.db.login(&keeper)] {
        TRUNCATE.iter().for_each(|truncate| session.run(&format!("BEGIN; {truncate}; ROLLBACK")));
    }
}

fn b19_a_planted_trigger_does_not_copy_rows(stage: &Stage) {
    stage.db.admin().run(&format!("GRANT TRIGGER ON letters TO {}", stage.app));
    let session = stage.login();
    session.run(
        "CREATE TABLE loot (item text);
         CREATE FUNCTION tap() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO loot VALUES (NEW.item); RETURN NEW; END $$",
    );
    for plant in [
        "CREATE TRIGGER tap AFTER INSERT ON letters FOR EACH ROW EXECUTE FUNCTION tap()",
        "CREATE OR REPLACE TRIGGER tap AFTER INSERT ON letters FOR EACH ROW EXECUTE FUNCTION tap()",
        "CREATE CONSTRAINT TRIGGER tap AFTER INSERT ON letters FOR EACH ROW EXECUTE FUNCTION tap()",
    ] {
        if plant.contains("REPLACE") && stage.db.cluster().major() < 14 {
            continue;
        }
        if stage.holds("B19") {
            assert!(session.refused("42501", plant).hint().is_some());
        } else {
            session.run(plant);
            let blue = stage.login_as(&stage.app, "blue");
            blue.run("INSERT INTO letters (id, item) VALUES (3, 'blue''s next secret'); COMMIT");
            session.sees("SELECT item FROM loot", &["blue's next secret"]);
            stage.db.admin().run("DELETE FROM loot; DELETE FROM letters WHERE id = 3; DROP TRIGGER tap ON letters");
        }
    }
    // On tables of one's own triggers are one's own affair, and the owner's on his.
    session.run("CREATE TRIGGER tap AFTER DELETE ON loot FOR EACH ROW EXECUTE FUNCTION tap()");
    stage.db.login(&stage.owner).run(
        "CREATE TRIGGER own BEFORE UPDATE ON letters FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    );
}

fn b20_reading_all_data_reaches_neither_partitions_nor_materialized_views(stage: &Stage) {
    if stage.db.cluster().major() < 14 {
        return; // the role is new in 14
    }
    let admin = stage.db.admin();
    admin.run(&format!(
        "CREATE TABLE events (id int, tenant_id uuid NOT NULL, item text) PARTITION BY RANGE (id);
         CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (100);
         INSERT INTO events SELECT 1, id, code FROM tenancy.tenants;
         SELECT tenancy.protect_table('events');
         CREATE MATERIALIZED VIEW snapshot AS SELECT * FROM letters;
         GRANT pg_read_all_data TO {}",
        stage.app
    ));
    let session = stage.as_red();
    session.sees("SELECT item FROM events_1", &["red"]);
    session.sees("SELECT item FROM events", &["red"]);
    session.holds_or_sees(stage.holds("B14"), "SELECT item FROM snapshot ORDER BY id", &BOTH);
}

fn b24_large_objects_are_not_passed_between_tenants(stage: &Stage) {
    let admin = stage.db.admin();
    if stage.holds("B24") {
        admin.run("BEGIN");
        let oid = admin.value("SELECT lo_from_bytea(0, 'blue''s secret')");
        admin.run(&format!("GRANT SELECT, UPDATE ON LARGE OBJECT {oid} TO {}; COMMIT", stage.app));
        let session = stage.as_red();
        for call in [
            format!("lo_get({oid})"),
            format!("lo_get({oid}, 0, 10)"),
            format!("lo_put({oid}, 0, 'x')"),
            format!("lo_open({oid}, 262144)"),
            format!("lo_unlink({oid})"),
            "lo_from_bytea(0, 'mine')".to_owned(),
            "lo_create(0)".to_owned(),
            "lo_creat(-1)".to_owned(),
            "loread(0, 10)".to_owned(),
            "lowrite(0, 'x')".to_owned(),
        ] {
            let refusal = session.refused_inside("42501", &format!("SELECT {call}"));
            assert!(refusal.hint().is_some(), "{refusal:?}");
        }
        session.sees_only_red();
    } else {
        let blue = stage.login_as(&stage.app, "blue");
        let oid = blue.value("SELECT lo_from_bytea(0, 'blue''s secret')");
        blue.run("COMMIT");
        stage.as_red().sees(&format!("SELECT convert_from(lo_get({oid}), 'UTF8')"), &[CANARY]);
    }
}

fn b29_what_a_definer_trigger_copies_elsewhere_is_open(stage: &Stage) {
    stage.db.admin().run(&format!(
        "CREATE TABLE journal (item text);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS
             $$ BEGIN INSERT INTO journal VALUES (NEW.item); RETURN NEW; END $$;
         CREATE TRIGGER note AFTER INSERT ON letters FOR EACH ROW EXECUTE FUNCTION note();
         GRANT SELECT ON journal TO {}",
        stage.app
    ));
    stage.login_as(&stage.app, "blue").run("INSERT INTO letters (id, item) VALUES (3, 'blue''s next secret'); COMMIT");
    stage.as_red().holds_or_sees(stage.holds("B29"), "SELECT item FROM journal", &["blue's next secret"]);
}

fn b30_decoding_reads_all_tenants(stage: &Stage) {
    let replica = stage.db.role("replica", "REPLICATION");
    let admin = stage.db.admin();
    let (slot, publication) = (quote_literal(stage.db.name()), stage.database());
    admin.run(&format!("CREATE PUBLICATION {publication} FOR TABLE letters"));
    let session = stage.db.login(&replica);
    session.run(&format!("SELECT pg_create_logical_replication_slot({slot}, 'pgoutput')"));
    stage.login_as(&stage.app, "blue").run("INSERT INTO letters (id, item) VALUES (3, 'blue''s next secret'); COMMIT");
    let changes = session
        .rows(&format!(
            "SELECT encode(data, 'escape') FROM pg_logical_slot_get_binary_changes(
                 {slot}, NULL, NULL, 'proto_version', '1', 'publication_names', {slot})"
        ))
        .join("\n");
    assert_eq!(changes.contains("next secret"), !stage.holds("B30"), "{changes}");
    session.run(&format!("SELECT pg_drop_replication_slot({slot})"));
    // The application is not such a role.
    stage.as_red().refused("42501", &format!("SELECT pg_create_logical_replication_slot({slot}, 'pgoutput')"));
}

fn b31_the_owner_cannot_publish_rows(stage: &Stage) {
    let admin = stage.db.admin();
    admin.run(&format!(
        "GRANT CREATE ON DATABASE {database} TO {owner}; GRANT CREATE ON SCHEMA public TO {owner}",
        database = stage.database(),
        owner = stage.owner
    ));
    let owner = stage.db.login(&stage.owner);
    owner.run("CREATE TABLE open_table (id int); CREATE PUBLICATION mine FOR TABLE open_table");
    for publish in [
        "CREATE PUBLICATION loot FOR TABLE letters",
        "CREATE PUBLICATION loot FOR TABLE open_table, letters",
        "ALTER PUBLICATION mine ADD TABLE letters",
        "ALTER PUBLICATION mine SET TABLE letters",
    ] {
        assert!(owner.refused("42501", publish).hint().is_some());
    }
    owner.sees("SELECT tablename FROM pg_publication_tables", &["open_table"]);
    admin.run("CREATE PUBLICATION everything FOR ALL TABLES");
}

fn c19_a_shared_sequence_tells_how_much_is_written(stage: &Stage) {
    stage.db.admin().run(&format!("CREATE SEQUENCE numbers; GRANT USAGE ON SEQUENCE numbers TO {}", stage.app));
    let red = stage.as_red();
    red.sees("SELECT nextval('numbers')", &["1"]);
    stage.login_as(&stage.app, "blue").run("SELECT nextval('numbers') FROM generate_series(1, 5)");
    red.holds_or_sees(stage.holds("C19"), "SELECT nextval('numbers')", &["7"]);
}

fn c20_a_sequence_cannot_be_read_with_the_right_to_use_it(stage: &Stage) {
    stage.db.admin().run(&format!("CREATE SEQUENCE numbers; GRANT USAGE ON SEQUENCE numbers TO {}", stage.app));
    let red = stage.as_red();
    red.refused_inside("42501", "SELECT last_value FROM numbers");
    red.refused_inside("42501", "SELECT setval('numbers', 1)");
    red.sees("SELECT pg_sequence_last_value('numbers')::text IS NULL", &["t"]);
}

fn c26_a_tenant_cannot_lock_the_others_out(stage: &Stage) {
    let admin = stage.db.admin();
    admin.run(&format!(
        "CREATE VIEW over_letters AS SELECT * FROM letters; GRANT SELECT, UPDATE, DELETE ON over_letters TO {}",
        stage.app
    ));
    for lock in [
        "LOCK TABLE letters",
        "LOCK TABLE letters IN EXCLUSIVE MODE",
        "LOCK TABLE letters IN SHARE ROW EXCLUSIVE MODE",
        "LOCK TABLE naive, letters IN SHARE MODE",
        "LOCK TABLE ONLY letters IN ACCESS EXCLUSIVE MODE NOWAIT",
        "LOCK TABLE over_letters IN ACCESS EXCLUSIVE MODE",
        "DO $$ BEGIN LOCK TABLE letters IN ACCESS EXCLUSIVE MODE; END $$",
    ] {
        let red = stage.as_red();
        if stage.holds("C26") {
            red.refused("42501", lock);
        } else {
            red.run(lock);
            let blue = stage.login_as(&stage.app, "blue");
            blue.run("SET LOCAL lock_timeout = '50ms'");
            blue.refused("55P03", "UPDATE letters SET item = item");
        }
    }
    // What rows need is let.
    stage.as_red().run("LOCK TABLE letters IN ROW EXCLUSIVE MODE; LOCK TABLE letters IN ACCESS SHARE MODE");
    stage.as_red().run("CREATE TABLE own (id int); LOCK TABLE own");
    admin.run("BEGIN; LOCK TABLE letters; COMMIT");
}

fn e08_without_row_level_security_nobody_reads(stage: &Stage) {
    stage.db.admin().run("ALTER TABLE letters DISABLE ROW LEVEL SECURITY");
    if stage.setting.has_fence() {
        open_unless(true, &stage.login(), ALL);
        let session = stage.as_red();
        for attack in ["UPDATE letters SET item = 'taken'", "DELETE FROM letters", "COPY letters TO STDOUT"] {
            session.refused_inside("42501", attack);
        }
        session.refused_inside("42501", &format!("INSERT INTO letters VALUES (3, '{}', 'forged')", stage.blue.id));
        stage.db.login(&stage.owner).refused("42501", ALL);
    } else {
        stage.as_red().sees(ALL, &BOTH);
    }
    let admin = stage.db.admin();
    admin.sees("SELECT is_enforced FROM tenancy.protected_tables", &["f"]);
    // Protected again, it is open to its tenants again.
    admin.run("SELECT tenancy.protect_table('letters')");
    stage.as_red().sees_only_red();
}

fn e09_without_force_the_owner_does_not_read(stage: &Stage) {
    stage
        .db
        .admin()
        .run(&format!("ALTER TABLE letters NO FORCE ROW LEVEL SECURITY; GRANT {} TO {}", stage.owner, stage.app));
    for session in [stage.db.login(&stage.owner), stage.login()] {
        open_unless(stage.setting.has_fence(), &session, ALL);
    }
    stage.db.admin().run(&format!("REVOKE {} FROM {}", stage.owner, stage.app));
    stage.as_red().sees_only_red();
}

fn e11_e12_e36_widened_policies_open_nothing(stage: &Stage) {
    stage.db.admin().run(
        "ALTER POLICY tenancy_isolation ON letters USING (true) WITH CHECK (true);
         ALTER POLICY tenancy_isolation_delete ON letters USING (true);
         ALTER POLICY tenancy_open ON letters USING (true) WITH CHECK (true);
         CREATE POLICY support ON letters USING (current_setting('app.support_mode', true) = 'on')",
    );
    let session = stage.login();
    session.run("SET app.support_mode = 'on'");
    if stage.holds("E12") {
        session.refused("55000", ALL);
        session.refused("55000", "DELETE FROM letters");
        session.begin_as("red");
        session.sees_only_red();
        session.changes(0, "UPDATE letters SET item = 'taken' WHERE id = 2");
        session.changes(0, "DELETE FROM letters WHERE id = 2");
        session.refused_inside("42501", &format!("INSERT INTO letters VALUES (3, '{}', 'forged')", stage.blue.id));
        session.refused_inside("42501", &format!("UPDATE letters SET tenant_id = '{}'", stage.blue.id));
    } else {
        session.sees(ALL, &BOTH);
    }
}

fn e12_dropped_policies_open_nothing(stage: &Stage) {
    stage.db.admin().run(
        "DROP POLICY tenancy_isolation ON letters; DROP POLICY tenancy_isolation_delete ON letters;
         DROP POLICY tenancy_open ON letters; CREATE POLICY everybody ON letters USING (true)",
    );
    let session = stage.login();
    if stage.holds("E12") {
        session.refused("55000", ALL);
        session.begin_as("red");
        session.sees_only_red();
        session.changes(0, "DELETE FROM letters WHERE id = 2");
    } else {
        session.sees(ALL, &BOTH);
    }
}

fn e21_a_definer_function_of_a_superuser_is_stopped(stage: &Stage) {
    let reporter = stage.strong("BYPASSRLS");
    stage.db.admin().run(&format!(
        "CREATE FUNCTION search() RETURNS SETOF text LANGUAGE sql SECURITY DEFINER AS $$ {ALL} $$;
         CREATE FUNCTION slow_search() RETURNS SETOF text LANGUAGE plpgsql SECURITY DEFINER AS
             $$ BEGIN RETURN QUERY {ALL}; END $$;
         CREATE FUNCTION nested_search() RETURNS SETOF text LANGUAGE sql SECURITY DEFINER AS 'SELECT search()';
         CREATE FUNCTION dynamic_search() RETURNS SETOF text LANGUAGE plpgsql SECURITY DEFINER AS
             $$ BEGIN RETURN QUERY EXECUTE '{ALL}'; END $$;
         CREATE FUNCTION off_search() RETURNS SETOF text LANGUAGE sql SECURITY DEFINER SET row_security = off AS $$ {ALL} $$;
         CREATE FUNCTION reporters_search() RETURNS SETOF text LANGUAGE sql SECURITY DEFINER AS $$ {ALL} $$;
         GRANT CREATE ON SCHEMA public TO {reporter};
         ALTER FUNCTION reporters_search() OWNER TO {reporter}"
    ));
    let session = stage.login();
    for search in ["search", "slow_search", "nested_search", "dynamic_search", "off_search", "reporters_search"] {
        open_unless(stage.holds("E21"), &session, &format!("SELECT {search}()"));
        open_unless(stage.holds("E21"), &session, &format!("SELECT * FROM {search}()"));
    }
    // Called by the superuser himself it is his own reading.
    stage.db.admin().sees("SELECT nested_search()", &BOTH);
}

fn e25_bypassrls_given_to_the_application_opens_nothing(stage: &Stage) {
    stage.db.admin().run(&format!("ALTER ROLE {} BYPASSRLS", stage.app));
    open_unless(stage.holds("E25"), &stage.login(), ALL);
    // In the middle of a session, with a plan made before.
    stage.db.admin().run(&format!("ALTER ROLE {} NOBYPASSRLS", stage.app));
    let session = stage.login();
    session.run(&format!("SET plan_cache_mode = force_generic_plan; PREPARE letters AS {ALL}"));
    session.begin_as("red");
    session.sees("EXECUTE letters", &[MINE]);
    session.run("COMMIT");
    stage.db.admin().run(&format!("ALTER ROLE {} BYPASSRLS", stage.app));
    if stage.holds("E25") {
        open_unless(true, &session, "EXECUTE letters");
    } else if let Ok(rows) = session.try_rows("EXECUTE letters") {
        // Some minor releases plan it anew, others keep the plan, which asks for a tenant.
        assert_eq!(rows, BOTH);
    }
}
