//! THREATS (g): the deputy. Work with more rights than a table's owner or an application has meets their code.
//!
//! Attacks that once made an owner a superuser, or showed an application the rows of all tenants: each as it was found.
//! `tests/deputy.rs` looks for their brothers.

use std::{
    thread,
    time::{Duration, Instant},
};

use pg_tenancy_tests::{Db, Role, Session};

use crate::stage::{Setting, Stage, stories};

stories![
    g11_triggers_of_a_soft_delete_by_merge_run_as_the_application,
    g01_a_trigger_deferred_again_does_not_fire_as_the_caller_of_maintenance,
    g02_a_search_path_of_a_trigger_does_not_reach_the_caller_of_maintenance,
    g04_a_suppressed_update_lets_nobody_forge_stamps_or_delete_for_good,
    g12_triggers_of_a_soft_delete_by_merge_see_one_tenant,
    g12_a_trigger_planned_in_one_tenants_soft_delete_sees_the_next_tenant_alone,
    g01_a_table_made_during_a_purge_gives_its_owner_no_rights,
    g13_diagnose_runs_no_code_of_an_owner,
    g13_assigning_existing_rows_fires_no_trigger_of_an_owner,
    g06_retention_moves_no_tenants_counters,
    g03_a_trigger_function_of_ours_refuses_what_it_is_not_made_for,
    g10_g14_an_administrator_gets_no_function_by_its_name_and_none_that_takes_bytes,
    g15_an_invalid_setting_closes,
];

/// Two tenants, an owner who is nobody else, and a superuser's session.
struct Scene {
    db: Db,
    dba: Session,
    evil: Role,
    app: Role,
}

impl Scene {
    fn new(setting: Setting) -> Self {
        let db = setting.cluster().db();
        let (evil, app) = (db.role("evil", ""), db.application("app"));
        let dba = db.admin();
        dba.run("SELECT tenancy.create_tenant('acme', number => 1), tenancy.create_tenant('globex', number => 2)");
        dba.run(&format!("CREATE SCHEMA e AUTHORIZATION {evil}; GRANT USAGE ON SCHEMA e TO {app}"));
        Self { db, dba, evil, app }
    }

    /// What the owner says, with his own name for `EVIL`.
    #[track_caller]
    fn owner_says(&self, sql: &str) {
        self.db.login(&self.evil).run(&sql.replace("EVIL", self.evil.name()));
    }

    /// Nobody but the superuser whom the server began with is one. Asked in a new session.
    #[track_caller]
    fn has_no_new_superuser(&self) {
        self.db.admin().sees(
            &format!(
                "SELECT rolname FROM pg_roles WHERE rolsuper AND rolname IN ('{}', '{}')",
                self.evil.name(),
                self.app.name()
            ),
            &[],
        );
    }
}

/// It works, or it is refused as forbidden or as not possible now; an internal error is no refusal.
#[track_caller]
fn works_or_is_refused(session: &Session, sql: &str) -> bool {
    let Err(error) = session.try_run(sql) else {
        return true;
    };
    let state = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
    assert!(["22023", "42501", "55000", "0A000"].contains(&&*state), "{sql}: {error:?}");
    false
}

/// Threats G11. The application's own temporary table stands where the owner's trigger names one without its schema.
fn g11_triggers_of_a_soft_delete_by_merge_run_as_the_application(stage: &Stage) {
    let scene = Scene::new(stage.setting);
    let (dba, app) = (&scene.dba, scene.app.name());
    dba.run(&format!(
        "CREATE TABLE notes (id int PRIMARY KEY, body text, tenant_id bigint);
         CREATE TABLE totals (n bigint, tenant_id bigint);
         CREATE FUNCTION count_notes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE totals SET n = n + 1; RETURN NULL; END $$;
         CREATE TRIGGER total AFTER UPDATE ON notes FOR EACH STATEMENT EXECUTE FUNCTION count_notes();
         SELECT tenancy.protect_table('notes'), tenancy.protect_table('totals'), tenancy.enable_soft_delete('notes');
         GRANT SELECT, INSERT, UPDATE, DELETE ON notes, totals TO {app}"
    ));
    let client = scene.db.login(&scene.app);
    client.run("BEGIN; SELECT tenancy.set_tenant('acme'); INSERT INTO notes VALUES (1, 'x')");
    client.run(&format!(
        "CREATE TEMPORARY TABLE totals (n bigint) ON COMMIT DROP;
         INSERT INTO totals VALUES (1);
         CREATE FUNCTION pg_temp.evil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF current_user <> '{app}' THEN RAISE WARNING 'TRAP as %', current_user; ALTER ROLE {app} SUPERUSER; END IF; RETURN NULL; END $$;
         CREATE TRIGGER z AFTER UPDATE ON pg_temp.totals FOR EACH ROW EXECUTE FUNCTION pg_temp.evil()"
    ));
    let merge = "MERGE INTO notes n USING (VALUES (1)) AS s(id) ON n.id = s.id WHEN MATCHED THEN DELETE";
    let worked = works_or_is_refused(&client, merge);
    client.run("COMMIT");
    scene.has_no_new_superuser();
    assert_no_trap(&client);
    if worked {
        dba.sees("SELECT id, deleted_at IS NOT NULL FROM notes", &["1|t"]);
    }
}

#[track_caller]
fn assert_no_trap(session: &Session) {
    let notices = session.notices();
    let trapped = notices.iter().filter(|notice| notice.message().starts_with("TRAP"));
    let told: Vec<_> =
        trapped.map(|notice| format!("{}, in {}", notice.message(), notice.where_().unwrap_or_default())).collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
}

/// Rows past their time, or orphans, in a table whose trigger queues another deferred one behind SET CONSTRAINTS ALL DEFERRED.
const DEFERRED_AGAIN: &str = r#"
CREATE TABLE e.p (id int PRIMARY KEY, tenant_id bigint);
CREATE TABLE e.c (id int PRIMARY KEY, at timestamptz, p int, tenant_id bigint);
CREATE TABLE e.bomb (x int);
CREATE FUNCTION e.boom() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF current_user <> 'EVIL' THEN RAISE WARNING 'TRAP as %', current_user; END IF;
  IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN ALTER ROLE EVIL SUPERUSER; END IF; RETURN NULL; END $$;
CREATE FUNCTION e.again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN SET CONSTRAINTS ALL DEFERRED; INSERT INTO e.bomb VALUES (1); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER z AFTER INSERT ON e.bomb DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION e.boom();
CREATE CONSTRAINT TRIGGER z AFTER UPDATE OR DELETE ON e.c DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION e.again();
INSERT INTO e.c VALUES (1, now() - interval '1 year', NULL, 1);
"#;

/// Threats G01.
fn g01_a_trigger_deferred_again_does_not_fire_as_the_caller_of_maintenance(stage: &Stage) {
    let scene = Scene::new(stage.setting);
    scene.owner_says(DEFERRED_AGAIN);
    scene.dba.run(
        "SELECT tenancy.protect_table('e.p'), tenancy.protect_table('e.c'), tenancy.set_retention('e.c', 'at', '10 days'),
                tenancy.enable_soft_delete('e.c');
         ALTER TABLE e.c ADD CONSTRAINT fk FOREIGN KEY (p) REFERENCES e.p NOT VALID",
    );
    let key = scene.dba.value("SELECT conname FROM pg_constraint WHERE conrelid = 'e.c'::regclass AND contype = 'f'");
    for work in [
        "CALL tenancy.run_retention()",
        "CALL tenancy.run_retention(max_seconds => 600, batch_size => 1)",
        "CALL tenancy.purge_deleted()",
        "CALL tenancy.maintain()",
        &format!("CALL tenancy.repair_orphans('e.c', '{key}', 'delete', dry_run => false)"),
        &format!("CALL tenancy.repair_orphans('e.c', '{key}', 'null', dry_run => false)"),
        &format!("CALL tenancy.repair_orphans('e.c', '{key}', 'quarantine', dry_run => false)"),
        "SELECT tenancy.disable_soft_delete('e.c', 'purge')",
    ] {
        // No trigger fires for what makes the rows.
        scene.dba.run(
            "SET session_replication_role = replica; DELETE FROM e.c;
             INSERT INTO e.c (id, at, p, tenant_id) VALUES (1, now() - interval '1 year', NULL, 1), (2, now(), 7, 1);
             INSERT INTO e.c (id, at, tenant_id, deleted_at) VALUES (3, now(), 1, '2020-01-01')",
        );
        let caller = scene.db.admin();
        works_or_is_refused(&caller, work);
        assert_no_trap(&caller);
        scene.has_no_new_superuser();
    }
}

/// Threats G02.
fn g02_a_search_path_of_a_trigger_does_not_reach_the_caller_of_maintenance(stage: &Stage) {
    let scene = Scene::new(stage.setting);
    scene.owner_says(
        "CREATE TABLE e.c (id int PRIMARY KEY, at timestamptz, tenant_id bigint);
         INSERT INTO e.c VALUES (1, now() - interval '1 year', 1);
         CREATE FUNCTION e.ge(timestamptz, timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
         BEGIN RAISE WARNING 'TRAP as %', current_user; ALTER ROLE EVIL SUPERUSER; RETURN false; END $$;
         CREATE OPERATOR e.>= (leftarg = timestamptz, rightarg = timestamptz, function = e.ge);
         CREATE FUNCTION e.t() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN PERFORM pg_catalog.set_config('search_path', 'e, pg_catalog', false); RETURN NULL; END $$;
         CREATE TRIGGER z AFTER DELETE ON e.c FOR EACH ROW EXECUTE FUNCTION e.t()",
    );
    scene.dba.run("SELECT tenancy.protect_table('e.c'), tenancy.set_retention('e.c', 'at', '10 days')");
    for work in [
        "CALL tenancy.run_retention(max_seconds => 600)",
        "CALL tenancy.run_retention()",
        "CALL tenancy.maintain(max_seconds => 600)",
    ] {
        scene.dba.run("INSERT INTO e.c VALUES (1, now() - interval '1 year', 1) ON CONFLICT DO NOTHING");
        let caller = scene.db.admin();
        works_or_is_refused(&caller, work);
        caller.sees("SHOW search_path", &["\"$user\", public"]);
        assert_no_trap(&caller);
        scene.has_no_new_superuser();
    }
}

/// Threats G04. What PostgreSQL's own trigger suppresses has not moved.
fn g04_a_suppressed_update_lets_nobody_forge_stamps_or_delete_for_good(stage: &Stage) {
    let scene = Scene::new(stage.setting);
    scene.dba.run(&format!(
        "CREATE TABLE pt (id int, k int, body text, tenant_id bigint) PARTITION BY LIST (k);
         CREATE TABLE pt1 PARTITION OF pt FOR VALUES IN (1);
         CREATE TABLE pt2 PARTITION OF pt DEFAULT;
         SELECT tenancy.protect_table('pt'), tenancy.enable_stamps('pt'), tenancy.enable_soft_delete('pt');
         CREATE TRIGGER z_min_update BEFORE UPDATE ON pt FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
         GRANT SELECT, INSERT, UPDATE, DELETE ON pt TO {}",
        scene.app
    ));
    let client = scene.db.login(&scene.app);
    client.run("BEGIN; SELECT tenancy.set_tenant('acme'); INSERT INTO pt VALUES (1, 1, 'victim')");
    let worked = works_or_is_refused(
        &client,
        "DO $$ BEGIN
           UPDATE pt SET body = 'victim' WHERE id = 1;
           MERGE INTO pt USING (SELECT 1 AS id) s ON pt.id = s.id WHEN MATCHED THEN DELETE;
           INSERT INTO pt (id, k, body, created_by, created_at, updated_by) VALUES (9, 1, 'forged', 'ceo', '1999-01-01', 'ceo');
         END $$",
    );
    client.run("COMMIT");
    let kept: &[&str] = if worked { &["1|t|t|t|t", "9|f|t|t|t"] } else { &[] };
    scene.dba.sees(
        &format!(
            "SELECT id, deleted_at IS NOT NULL, created_by = '{0}', updated_by = '{0}', created_at > now() - interval '1 hour' FROM pt ORDER BY id",
            scene.app.name()
        ),
        kept,
    );
}

/// Notes of two tenants, and their totals, which a trigger keeps that relies on row security.
fn notes_and_totals(scene: &Scene, owner: &Role) {
    scene.dba.run(&format!(
        "CREATE SCHEMA shop AUTHORIZATION {owner};
         GRANT USAGE ON SCHEMA shop TO {0};
         SET ROLE {owner};
         CREATE TABLE shop.notes (id int PRIMARY KEY, body text, tenant_id bigint);
         CREATE TABLE shop.totals (n bigint, bodies text, tenant_id bigint);
         INSERT INTO shop.notes VALUES (1, 'acme note', 1), (2, 'acme note 2', 1), (3, 'CANARY-globex', 2);
         INSERT INTO shop.totals VALUES (2, '', 1), (1, 'untouched', 2);
         CREATE FUNCTION shop.count_notes() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN UPDATE shop.totals SET n = (SELECT count(*) FROM shop.notes), bodies = (SELECT string_agg(body, ',' ORDER BY id) FROM shop.notes);
         RETURN NULL; END $$;
         CREATE TRIGGER total AFTER INSERT OR UPDATE ON shop.notes FOR EACH STATEMENT EXECUTE FUNCTION shop.count_notes();
         GRANT SELECT, INSERT, UPDATE, DELETE ON shop.notes, shop.totals TO {0};
         RESET ROLE;
         SELECT tenancy.protect_table('shop.notes'), tenancy.protect_table('shop.totals'), tenancy.enable_soft_delete('shop.notes')",
        scene.app
    ));
}

const MERGE_DELETE: &str =
    "MERGE INTO shop.notes n USING (VALUES (ID)) AS s(id) ON n.id = s.id WHEN MATCHED THEN DELETE";

/// Threats G12. Also a plain DELETE in the first statement of a session.
fn g12_triggers_of_a_soft_delete_by_merge_see_one_tenant(stage: &Stage) {
    let merge = MERGE_DELETE.replace("ID", "1");
    for deletion in [&*merge, "DELETE FROM shop.notes WHERE id = 1"] {
        let scene = Scene::new(stage.setting);
        notes_and_totals(&scene, &scene.evil);
        let client = scene.db.login(&scene.app);
        client.run("BEGIN; SET LOCAL app.current_tenant_id = 'acme'");
        let worked = works_or_is_refused(&client, deletion);
        let seen = if worked { client.rows("SELECT n, bodies FROM shop.totals") } else { Vec::new() };
        client.run("COMMIT");
        assert!(seen.iter().all(|total| !total.contains("CANARY")), "{deletion}: {seen:?}");
        scene.dba.sees("SELECT n, bodies FROM shop.totals WHERE tenant_id = 2", &["1|untouched"]);
        if worked {
            // The owner of the trigger says AFTER UPDATE, and to him this is one.
            assert_eq!(seen, ["1|acme note 2"], "{deletion}");
            scene.dba.sees("SELECT id FROM shop.notes WHERE deleted_at IS NOT NULL", &["1"]);
        }
    }
}

/// Threats G12: the application logs in as the owner of its tables.
fn g12_a_trigger_planned_in_one_tenants_soft_delete_sees_the_next_tenant_alone(stage: &Stage) {
    let scene = Scene::new(stage.setting);
    notes_and_totals(&scene, &scene.app);
    let client = scene.db.login(&scene.app);
    client.run("BEGIN; SET LOCAL app.current_tenant_id = 'globex'");
    works_or_is_refused(&client, &MERGE_DELETE.replace("ID", "3"));
    client.run("ROLLBACK");
    client
        .run("BEGIN; SET LOCAL app.current_tenant_id = 'acme'; UPDATE shop.notes SET body = 'acme note' WHERE id = 1");
    client.sees("SELECT n, bodies FROM shop.totals", &["2|acme note,acme note 2"]);
    client.run("COMMIT");
    scene.dba.sees("SELECT n, bodies FROM shop.totals WHERE tenant_id = 2", &["1|untouched"]);
}

/// Threats G01: what stands in the way of a purge is asked for in each batch.
fn g01_a_table_made_during_a_purge_gives_its_owner_no_rights(stage: &Stage) {
    let scene = Scene::new(stage.setting);
    scene.owner_says(
        "CREATE TABLE e.t (id int PRIMARY KEY, tenant_id bigint);
         INSERT INTO e.t SELECT g, 1 FROM generate_series(1, 600) g;
         CREATE FUNCTION e.boom() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF current_user <> 'EVIL' THEN RAISE WARNING 'TRAP as %', current_user; END IF;
           IF current_setting('is_superuser') = 'on' THEN ALTER ROLE EVIL SUPERUSER; END IF; RETURN NULL; END $$",
    );
    scene.dba.run("SELECT tenancy.protect_table('e.t'), tenancy.delete_tenant('acme')");
    thread::scope(|scope| {
        let caller = scene.db.admin();
        let purge = scope.spawn(move || {
            let purge = "CALL tenancy.purge_tenant('acme', confirm => 'acme', dry_run => false, batch_size => 10, pause_ms => 50)";
            let outcome = caller.try_run(purge).map_err(|error| error.code().map(|code| code.code().to_owned()).unwrap_or_default());
            assert_no_trap(&caller);
            outcome
        });
        let owner = scene.db.login(&scene.evil);
        let begun = Instant::now();
        while scene.dba.value("SELECT count(*) = 600 FROM e.t") == "t" {
            assert!(begun.elapsed() < Duration::from_secs(60), "the purge does not begin");
            thread::sleep(Duration::from_millis(10));
        }
        owner.run(
            "CREATE TABLE e.x (id int REFERENCES e.t ON DELETE CASCADE);
             CREATE CONSTRAINT TRIGGER z AFTER DELETE ON e.x DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION e.boom()",
        );
        // A foreign key looks for its parent as the owner of that, who may not see the rows of a deleted tenant.
        scene.dba.run("INSERT INTO e.x SELECT id FROM e.t WHERE id > 590");
        match purge.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
            Ok(()) => scene.dba.sees("SELECT count(*) FROM e.t", &["0"]),
            Err(state) => assert!(["42501", "55000", "55P03"].contains(&&*state), "{state}"),
        }
    });
    scene.has_no_new_superuser();
}

/// Threats G13. The planner computes the constants of an index.
fn g13_diagnose_runs_no_code_of_an_owner(stage: &Stage) {
    let scene = Scene::new(stage.setting);
    scene.owner_says(
        "CREATE FUNCTION e.g() RETURNS int LANGUAGE plpgsql VOLATILE AS $$ BEGIN
           IF current_user <> 'EVIL' THEN RAISE WARNING 'TRAP as %', current_user; END IF;
           IF current_setting('is_superuser') = 'on' AND current_user <> 'EVIL' THEN ALTER ROLE EVIL SUPERUSER; END IF; RETURN 1; END $$;
         CREATE FUNCTION e.f(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN e.g(); END $$;
         CREATE TABLE e.a (id int PRIMARY KEY, x int, tenant_id bigint);
         INSERT INTO e.a SELECT g, g, 1 FROM generate_series(1, 50) g",
    );
    scene.dba.run(&format!(
        "SELECT tenancy.protect_table('e.a'), tenancy.enable_soft_delete('e.a'), tenancy.audit_table('e.a');
         GRANT SELECT ON e.a TO {}",
        scene.app
    ));
    scene.owner_says("CREATE INDEX ON e.a (x) WHERE e.f(3) = 1");
    for asked in [
        "SELECT count(*) > 0 FROM tenancy.diagnose('acme')",
        &format!("SELECT count(*) > 0 FROM tenancy.diagnose('acme', '{}', 'e.a')", scene.app.name()),
        "SELECT tenancy.row_as_of('e.a', '{\"id\": 1}', now())",
        "SELECT tenancy.restore_row('e.a', '{\"id\": 1}')",
        "SELECT tenancy.unprotect_table('e.a'), tenancy.protect_table('e.a')",
    ] {
        // What a session remembers of an index is not computed again.
        let caller = scene.db.admin();
        if let Err(error) = caller.try_run(asked) {
            let state = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
            assert!(!state.starts_with("XX") && !state.is_empty(), "{asked}: {error:?}");
        }
        assert_no_trap(&caller);
        scene.has_no_new_superuser();
    }
}

/// Threats G13.
fn g13_assigning_existing_rows_fires_no_trigger_of_an_owner(stage: &Stage) {
    let scene = Scene::new(stage.setting);
    scene.owner_says(
        "CREATE TABLE e.a (id int PRIMARY KEY, tenant_id bigint);
         INSERT INTO e.a SELECT g FROM generate_series(1, 5) g;
         CREATE FUNCTION e.t() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF current_user <> 'EVIL' THEN RAISE WARNING 'TRAP as %', current_user; END IF;
           IF current_setting('is_superuser') = 'on' THEN ALTER ROLE EVIL SUPERUSER; END IF; RETURN NEW; END $$;
         CREATE TRIGGER z BEFORE UPDATE ON e.a FOR EACH ROW EXECUTE FUNCTION e.t()",
    );
    let assigned =
        works_or_is_refused(&scene.dba, "SELECT tenancy.protect_table('e.a', assign_existing_rows_to => 'acme')");
    assert_no_trap(&scene.dba);
    scene.has_no_new_superuser();
    scene.dba.sees("SELECT DISTINCT tenant_id FROM e.a", &[if assigned { "1" } else { "NULL" }]);
}

/// Threats G06. No trigger of users fires in maintenance, whoever owns the table: counters are as they were, for every tenant.
fn g06_retention_moves_no_tenants_counters(stage: &Stage) {
    let scene = Scene::new(stage.setting);
    let dba = &scene.dba;
    dba.run(&format!(
        "CREATE TABLE items (id int PRIMARY KEY, made timestamptz NOT NULL, tenant_id bigint);
         CREATE TABLE counts (resource text, n bigint NOT NULL, tenant_id bigint);
         CREATE FUNCTION count_items() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
         BEGIN UPDATE counts SET n = n - 1 WHERE resource = 'items'; RETURN NULL; END $$;
         CREATE TRIGGER count_items AFTER DELETE ON items FOR EACH ROW EXECUTE FUNCTION count_items();
         GRANT USAGE ON SCHEMA public TO {0};
         SELECT tenancy.protect_table('items'), tenancy.protect_table('counts'), tenancy.set_retention('items', 'made', '30 days');
         INSERT INTO items VALUES (1, now() - interval '1 year', 1), (2, now(), 2), (3, now(), 1);
         INSERT INTO counts VALUES ('items', 2, 1), ('items', 1, 2);
         GRANT SELECT, INSERT, UPDATE, DELETE ON items, counts TO {1}",
        scene.evil, scene.app
    ));
    // As the application: its own counter moves.
    let client = scene.db.login(&scene.app);
    client.run("BEGIN; SELECT tenancy.set_tenant('acme'); DELETE FROM items WHERE id = 3");
    client.sees("SELECT n FROM counts", &["1"]);
    client.run("COMMIT");
    let counts = "SELECT tenant_id, n FROM counts ORDER BY 1";
    dba.sees(counts, &["1|1", "2|1"]);
    // Tables of a superuser, and of an ordinary owner.
    dba.run("CALL tenancy.run_retention()");
    dba.sees("SELECT id FROM items", &["2"]);
    dba.sees(counts, &["1|1", "2|1"]);
    dba.run(&format!(
        "ALTER TABLE items OWNER TO {0}; ALTER TABLE counts OWNER TO {0}; ALTER FUNCTION count_items OWNER TO {0};
         INSERT INTO items VALUES (4, now() - interval '1 year', 1)",
        scene.evil
    ));
    dba.run("CALL tenancy.run_retention()");
    dba.sees("SELECT relation, failure FROM tenancy.retention_rules", &["items|NULL"]);
    dba.sees("SELECT id FROM items", &["2"]);
    dba.sees(counts, &["1|1", "2|1"]);
}

/// Threats G03. What PostgreSQL does not pass is not looked at.
fn g03_a_trigger_function_of_ours_refuses_what_it_is_not_made_for(stage: &Stage) {
    let scene = Scene::new(stage.setting);
    scene.dba.run(&format!("SELECT tenancy.grant_admin('{}')", scene.evil));
    let owner = scene.db.login(&scene.evil);
    owner.run("CREATE TABLE e.t (id int, deleted_at timestamptz, deleted_by text)");
    for (time, function) in [("BEFORE INSERT", "keep_row"), ("AFTER UPDATE", "keep_row"), ("AFTER INSERT", "stamp_row")]
    {
        owner.run(&format!(
            "CREATE TRIGGER z {time} ON e.t FOR EACH ROW EXECUTE FUNCTION tenancy_internal.{function}()"
        ));
        owner.refused(
            "39P01",
            if time.ends_with("UPDATE") { "UPDATE e.t SET id = 2" } else { "INSERT INTO e.t (id) VALUES (1)" },
        );
        owner.run("DROP TRIGGER z ON e.t; INSERT INTO e.t (id) VALUES (1)");
    }
    owner.sees("SELECT DISTINCT id FROM e.t", &["1"]);
}

/// Threats G10 and G14.
fn g10_g14_an_administrator_gets_no_function_by_its_name_and_none_that_takes_bytes(stage: &Stage) {
    let scene = Scene::new(stage.setting);
    scene.dba.run(&format!(
        "CREATE FUNCTION tenancy_internal.nobodys_step() RETURNS int LANGUAGE sql AS 'SELECT 1';
         REVOKE ALL ON FUNCTION tenancy_internal.nobodys_step() FROM PUBLIC;
         SELECT tenancy.grant_admin('{}')",
        scene.evil
    ));
    let admin = scene.db.login(&scene.evil);
    admin.refused("42501", "SELECT tenancy_internal.nobodys_step()");
    admin.sees(
        "SELECT p.oid::regprocedure FROM pg_proc p
          WHERE p.pronamespace IN ('tenancy'::regnamespace, 'tenancy_internal'::regnamespace)
            AND 'bytea'::regtype = ANY (p.proargtypes) AND has_function_privilege(p.oid, 'EXECUTE') AND p.proname <> 'digest'",
        &[],
    );
}

/// Threats G15: what PostgreSQL drops with a warning was meant to close something.
fn g15_an_invalid_setting_closes(stage: &Stage) {
    let scene = Scene::new(stage.setting);
    // Where the library is loaded it refuses to store such a value.
    if works_or_is_refused(&scene.db.admin(), &format!("ALTER ROLE {} SET tenancy.context_mode = 'sined'", scene.app)) {
        let client = scene.db.login(&scene.app);
        client.refused("55000", "SELECT tenancy.set_tenant('acme')");
        scene
            .dba
            .sees("SELECT count(*) FROM tenancy.check_integrity('roles') WHERE check_id = 'setting_invalid'", &["1"]);
        scene.dba.run(&format!("ALTER ROLE {} RESET tenancy.context_mode", scene.app));
    }
    scene.db.login(&scene.app).run("BEGIN; SELECT tenancy.set_tenant('acme')");
}
