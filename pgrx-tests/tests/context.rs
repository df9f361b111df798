//! The tenant of a transaction as a user's program sees it: the three ways to set it, how long it lasts, and what a
//! session can learn about itself.

use std::time::Duration;

use pg_tenancy_tests::{Cluster, Db, Role, Session, Shutdown, Tenant, cluster::data::Folder, process};

/// A protected `orders` with one row each of red and blue, an application and an administrator.
struct Scene {
    db: Db,
    app: Role,
    admin: Role,
    red: Tenant,
    blue: Tenant,
}

impl Scene {
    fn new() -> Self {
        Self::on(Db::new())
    }

    fn on(db: Db) -> Self {
        let (red, blue) = (db.tenant("red"), db.tenant("blue"));
        let (app, admin) = (db.application("app"), db.role("admin", ""));
        db.admin().run(&format!(
            "CREATE TABLE orders (id int PRIMARY KEY, tenant_id uuid, item text);
             SELECT tenancy.protect_table('orders');
             INSERT INTO orders VALUES (1, '{}', 'of red'), (2, '{}', 'of blue');
             GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO {app}, {admin};
             SELECT tenancy.grant_admin('{admin}')",
            red.id, blue.id
        ));
        Self { db, app, admin, red, blue }
    }

    #[track_caller]
    fn app(&self) -> Session {
        self.db.login(&self.app)
    }
}

/// The three ways, with the tenant's name where `WHO` stands.
const WAYS: [&str; 3] = [
    "SET LOCAL app.current_tenant_id = 'WHO'",
    "SELECT set_config('app.current_tenant_id', 'WHO', true)",
    "SELECT tenancy.set_tenant('WHO')",
];

#[test]
fn the_three_ways_to_set_a_tenant_are_one() {
    let scene = Scene::new();
    for way in WAYS {
        let session = scene.app();
        for (tenant, sees) in [(&scene.red, "of red"), (&scene.blue, "of blue")] {
            for name in [tenant.code.clone(), tenant.number.to_string(), tenant.id.to_string()] {
                session.run(&format!("BEGIN; {}", way.replace("WHO", &name)));
                session.sees("SELECT item FROM orders", &[sees]);
                session.sees(
                    "SELECT tenancy.current_tenant_id(), tenancy.current_tenant_number(), tenancy.current_tenant_code(),
                            tenancy.has_tenant(), current_setting('app.current_tenant_id')",
                    &[&format!("{}|{}|{}|t|{name}", tenant.id, tenant.number, tenant.code)],
                );
                session.run("COMMIT");
                session.sees("SELECT tenancy.has_tenant(), current_setting('app.current_tenant_id')", &["f|"]);
            }
        }
    }
}

#[test]
fn set_tenant_gives_the_id_and_takes_parameters() {
    let scene = Scene::new();
    let session = scene.app();
    for name in [&scene.red.code, &scene.red.number.to_string(), &scene.red.id.to_string()] {
        session.run("BEGIN");
        let rows = session.query("SELECT tenancy.set_tenant($1)", &[name]);
        assert_eq!(rows[0].get::<_, uuid::Uuid>(0), scene.red.id);
        session.run("COMMIT");
    }
}

#[test]
fn a_tenant_writes_its_own_rows_without_naming_itself() {
    let scene = Scene::new();
    let session = scene.app();
    session.run("BEGIN; SELECT tenancy.set_tenant('red')");
    session.changes(1, "INSERT INTO orders (id, item) VALUES (3, 'new')");
    session.changes(2, "UPDATE orders SET item = item || '!'");
    session.changes(1, "DELETE FROM orders WHERE id = 1");
    session.changes(1, &format!("INSERT INTO orders VALUES (4, '{}', 'named')", scene.red.id));
    session.sees("SELECT item FROM orders ORDER BY id", &["new!", "named"]);
    session.run("COMMIT");
    scene.db.admin().sees("SELECT id, item FROM orders ORDER BY id", &["2|of blue", "3|new!", "4|named"]);
}

#[test]
fn many_tenants_take_turns_on_one_connection() {
    let scene = Scene::new();
    let session = scene.app();
    session.run("PREPARE items AS SELECT item FROM orders");
    for turn in 0..50 {
        let (name, sees) = if turn % 2 == 0 { ("red", "of red") } else { ("blue", "of blue") };
        session.run(&format!("BEGIN; {}", WAYS[turn % 3].replace("WHO", name)));
        session.sees("EXECUTE items", &[sees]);
        session.run(if turn % 5 == 0 { "ROLLBACK" } else { "COMMIT" });
    }
}

#[test]
fn savepoints_and_functions_work_within_a_tenant() {
    let scene = Scene::new();
    let session = scene.app();
    session
        .run("BEGIN; SELECT tenancy.set_tenant('red'); SAVEPOINT one; UPDATE orders SET item = 'x'; ROLLBACK TO one");
    session.sees("SELECT item FROM orders", &["of red"]);
    session.run("SAVEPOINT two; SELECT tenancy.set_tenant('red'); RELEASE two");
    session.sees("SELECT item FROM orders", &["of red"]);
    session.run("SAVEPOINT three; SELECT tenancy.clear_tenant()");
    session.refused("55000", "SELECT item FROM orders");
    session.run("ROLLBACK TO three");
    session.sees("SELECT item FROM orders", &["of red"]);
    session.run("COMMIT");
}

#[test]
fn assert_tenant_stops_a_transaction_of_another() {
    let scene = Scene::new();
    let session = scene.app();
    session.refused("55000", "SELECT tenancy.assert_tenant('red')");
    session.run("BEGIN; SELECT tenancy.set_tenant('red'); SAVEPOINT s");
    for name in [&scene.red.code, &scene.red.number.to_string(), &scene.red.id.to_string()] {
        session.run(&format!("SELECT tenancy.assert_tenant('{name}')"));
    }
    for (state, argument) in [("42501", "'blue'"), ("42704", "'nobody'"), ("22023", "NULL"), ("22023", "''")] {
        session.refused(state, &format!("SELECT tenancy.assert_tenant({argument})"));
        session.run("ROLLBACK TO s");
    }
}

#[test]
fn a_missing_tenant_says_what_to_do() {
    let scene = Scene::new();
    let session = scene.app();
    let refusal = session.refused("55000", "SELECT item FROM orders");
    assert_eq!(refusal.message(), "no tenant is set for this transaction");
    assert!(refusal.hint().is_some_and(|hint| hint.contains("tenancy.set_tenant")), "{refusal:?}");
    // Set, and lost with the transaction: the usual mistake of a driver in autocommit mode.
    session.run("SELECT tenancy.set_tenant('red')");
    let refusal = session.refused("55000", "SELECT item FROM orders");
    assert!(refusal.hint().is_some_and(|hint| hint.contains("BEGIN")), "{refusal:?}");
    assert!(refusal.detail().is_some_and(|detail| detail.contains("ended")), "{refusal:?}");
}

#[test]
fn verify_context_tells_how_the_session_stands() {
    let scene = Scene::new();
    let columns = "tenant_code, status, set_by, lifetime, problem IS NULL, is_bound, loaded_by";
    let verify = format!("SELECT {columns} FROM tenancy.verify_context()");
    let session = scene.app();
    session.sees(&verify, &["NULL|NULL|NULL|transaction|f|t|first use"]);
    session.run("BEGIN; SELECT tenancy.set_tenant('red')");
    session.sees(&verify, &["red|active|this session|transaction|t|t|first use"]);
    session.sees(
        "SELECT tenant_id, tenant_number, role = current_user, set_at BETWEEN now() - interval '1 minute' AND clock_timestamp()
           FROM tenancy.verify_context()",
        &[&format!("{}|{}|t|t", scene.red.id, scene.red.number)],
    );
    session.run("COMMIT; SET app.current_tenant_id = 'blue'");
    session.sees(&verify, &["NULL|NULL|NULL|transaction|f|t|first use"]);
    session.run("BEGIN; SET LOCAL app.current_tenant_id = 'nobody'");
    session.sees("SELECT problem LIKE '%nobody%does not exist%' FROM tenancy.verify_context()", &["t"]);
    session.run("COMMIT");

    let superuser = scene.db.admin();
    superuser.run("SELECT tenancy.set_read_only('red', 'audit')");
    session.run("BEGIN; SELECT tenancy.set_tenant('red')");
    session.sees(&verify, &["red|read_only|this session|transaction|t|t|first use"]);
    session.run("COMMIT");
    superuser.run("SELECT tenancy.suspend_tenant('red', 'bill')");
    session.run("BEGIN; SET LOCAL app.current_tenant_id = 'red'");
    session.sees(&verify, &["red|suspended|this session|transaction|f|t|first use"]);
    session.run("COMMIT");

    let bound = "SELECT is_bound, bound_reason FROM tenancy.verify_context()";
    superuser.sees(bound, &["f|the role is a superuser: row security never binds it"]);
    superuser.run(&format!("SET ROLE {}", scene.app));
    assert!(superuser.value(bound).contains("RESET ROLE"));
    let bypassing = scene.db.role("bypassing", "BYPASSRLS");
    scene.db.admin().run(&format!("GRANT USAGE ON SCHEMA tenancy TO {bypassing}"));
    scene.db.login(&bypassing).sees(bound, &["f|the role has BYPASSRLS: row security never binds it"]);
}

#[test]
fn verify_context_knows_how_the_library_was_loaded() {
    let loaded_by = "SELECT loaded_by FROM tenancy.verify_context()";
    let scene = Scene::new();
    scene.app().sees(loaded_by, &["first use"]);
    scene
        .db
        .admin()
        .run(&format!("ALTER DATABASE \"{}\" SET session_preload_libraries = 'pg_tenancy'", scene.db.name()));
    scene.app().sees(loaded_by, &["session_preload_libraries"]);
    let cluster = Cluster::start(&[("shared_preload_libraries", "pg_tenancy")]);
    let scene = Scene::on(cluster.db());
    scene.app().sees(loaded_by, &["shared_preload_libraries"]);
    // A database without the extension lives on as if the library were not there, but for the setting.
    let bare = cluster.bare_db().admin();
    bare.run("BEGIN; SET LOCAL app.current_tenant_id = 'red'; COMMIT");
    bare.refused("3F000", "SELECT tenancy.has_tenant()");
}

#[test]
fn a_pinned_role_needs_to_set_nothing() {
    let scene = Scene::new();
    scene.db.admin().run(&format!("ALTER ROLE {} SET app.current_tenant_id = '{}'", scene.app, scene.red.number));
    let session = scene.app();
    for _ in 0..2 {
        session.sees("SELECT item FROM orders", &["of red"]);
        session.sees(
            "SELECT tenant_code, set_by, lifetime FROM tenancy.verify_context()",
            &["red|ALTER ROLE or ALTER DATABASE ... SET|connection"],
        );
    }
    session.run("BEGIN; SELECT tenancy.set_tenant('red'); COMMIT");
    session.sees("SELECT item FROM orders", &["of red"]);
    let refusal = session.refused("42501", "SELECT tenancy.set_tenant('blue')");
    assert!(refusal.message().contains("pinned"), "{refusal:?}");
    // Another role is not concerned, and the pin goes with ALTER ROLE ... RESET.
    scene.db.login(&scene.admin).refused("55000", "SELECT item FROM orders");
    scene.db.admin().run(&format!("ALTER ROLE {} RESET app.current_tenant_id", scene.app));
    scene.app().refused("55000", "SELECT item FROM orders");
}

#[test]
fn an_administrator_switches_and_clears() {
    let scene = Scene::new();
    let admin = scene.db.login(&scene.admin);
    admin.run("BEGIN");
    for (tenant, sees) in [("red", "of red"), ("blue", "of blue"), ("red", "of red")] {
        admin.run(&format!("SELECT tenancy.switch_tenant('{tenant}')"));
        admin.sees("SELECT item FROM orders", &[sees]);
    }
    admin.run("SELECT tenancy.clear_tenant(); SAVEPOINT s");
    admin.refused("55000", "SELECT item FROM orders");
    admin.run("ROLLBACK TO s");
    admin.refused("42501", "SELECT tenancy.set_tenant('blue')");
    admin.run("ROLLBACK TO s; SELECT tenancy.switch_tenant('blue')");
    admin.sees("SELECT item FROM orders", &["of blue"]);
    admin.run("COMMIT");
    for (state, argument) in [("22023", "NULL"), ("22023", "''"), ("42704", "'nobody'")] {
        admin.refused(state, &format!("SELECT tenancy.switch_tenant({argument})"));
    }
    // A failed switch leaves no permission behind.
    admin.run("BEGIN; SELECT tenancy.set_tenant('red'); SAVEPOINT s");
    admin.refused("42704", "SELECT tenancy.switch_tenant('nobody')");
    admin.run("ROLLBACK TO s");
    admin.refused("42501", "SELECT tenancy.set_tenant('blue')");
}

#[test]
fn a_session_lifetime_is_for_those_who_want_it() {
    let scene = Scene::new();
    scene.db.admin().run(&format!("ALTER ROLE {} SET tenancy.context_lifetime = 'session'", scene.app));
    let session = scene.app();
    session.run("SET app.current_tenant_id = 'red'");
    session.sees("SELECT item FROM orders", &["of red"]);
    session.sees("SELECT item FROM orders", &["of red"]);
    session.sees("SELECT tenant_code, lifetime FROM tenancy.verify_context()", &["red|session"]);
    session.run("SELECT tenancy.set_tenant('blue')");
    session.sees("SELECT item FROM orders", &["of blue"]);
    // SET LOCAL is local still, and a rollback brings the session's tenant back.
    session.run("BEGIN; SET LOCAL app.current_tenant_id = 'red'");
    session.sees("SELECT item FROM orders", &["of red"]);
    session.run("ROLLBACK");
    session.sees("SELECT item FROM orders", &["of blue"]);
    session.run("SELECT tenancy.clear_tenant()");
    session.refused("55000", "SELECT item FROM orders");
}

#[test]
fn a_missing_tenant_may_mean_no_rows() {
    let scene = Scene::new();
    scene.db.admin().run(&format!("ALTER ROLE {} SET tenancy.missing_context = 'empty'", scene.app));
    let session = scene.app();
    session.sees("SELECT item FROM orders", &[]);
    session.sees(
        "SELECT tenancy.current_tenant_id() IS NULL, tenancy.current_tenant_number() IS NULL, tenancy.has_tenant()",
        &["t|t|f"],
    );
    session.run("BEGIN; SELECT tenancy.set_tenant('red')");
    session.sees("SELECT item FROM orders", &["of red"]);
    session.run("COMMIT");
    session.sees("SELECT item FROM orders", &[]);
    session.sees("SELECT lifetime, problem IS NOT NULL FROM tenancy.verify_context()", &["transaction|t"]);
}

#[test]
fn a_tenants_rows_come_through_portals_and_cursors() {
    let scene = Scene::new();
    scene.db.admin().run(&format!(
        "INSERT INTO orders SELECT n, CASE WHEN n % 2 = 0 THEN '{}' ELSE '{}' END::uuid, 'many' FROM generate_series(10, 1009) n",
        scene.red.id, scene.blue.id
    ));
    let session = scene.app();
    session.run(
        "BEGIN; SELECT tenancy.set_tenant('red'); DECLARE c SCROLL CURSOR FOR SELECT id % 2 FROM orders WHERE id >= 10",
    );
    session.sees("SELECT 1 WHERE false", &[]);
    for _ in 0..5 {
        assert!(session.rows("FETCH 90 FROM c").iter().all(|row| row == "0"));
    }
    session.run("COMMIT");
    // A portal of the protocol, fetched in parts.
    let mut client = session.client();
    let mut transaction = client.transaction().expect("it begins");
    transaction.execute("SELECT tenancy.set_tenant('blue')", &[]).expect("blue is in service");
    let portal = transaction.bind("SELECT id % 2 FROM orders WHERE id >= 10", &[]).expect("a portal");
    let mut seen = 0;
    loop {
        let rows = transaction.query_portal(&portal, 170).expect("rows");
        seen += rows.len();
        assert!(rows.iter().all(|row| row.get::<_, i32>(0) == 1));
        if rows.is_empty() {
            break;
        }
    }
    assert_eq!(seen, 500);
}

#[test]
fn what_is_deferred_to_the_commit_runs_for_the_tenant() {
    let scene = Scene::new();
    scene.db.admin().run(&format!(
        "CREATE TABLE journal (who text, orders bigint); GRANT INSERT ON journal TO {};
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO journal SELECT tenancy.current_tenant_code(), count(*) FROM orders; RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER note AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION note()",
        scene.app
    ));
    let session = scene.app();
    session.run("BEGIN; SELECT tenancy.set_tenant('red'); INSERT INTO orders (id, item) VALUES (3, 'new'); COMMIT");
    scene.db.admin().sees("SELECT who, orders FROM journal", &["red|2"]);
    // It runs before the tenant is cleared.
    session.run("BEGIN; SELECT tenancy.set_tenant('red'); INSERT INTO orders (id, item) VALUES (4, 'new')");
    session.run("SELECT tenancy.clear_tenant(); COMMIT");
    scene.db.admin().sees("SELECT who, orders FROM journal ORDER BY 2", &["red|2", "red|3"]);
    // Without its tenant it cannot run, and the transaction does not commit.
    session.run("BEGIN; SELECT tenancy.set_tenant('red'); INSERT INTO orders (id, item) VALUES (5, 'new')");
    session.run("SET LOCAL app.current_tenant_id = ''");
    session.refused("55000", "COMMIT");
    scene.db.admin().sees("SELECT count(*) FROM orders", &["4"]);
}

#[test]
fn no_transaction_asks_the_registry_table_again() {
    let scene = Scene::new();
    let session = scene.app();
    let use_them = |times: u32| {
        for _ in 0..times {
            for tenant in ["red", "blue"] {
                session.run(&format!("BEGIN; SELECT tenancy.set_tenant('{tenant}')"));
                session.run("SELECT item FROM orders; UPDATE orders SET item = item");
                session.run("COMMIT");
            }
        }
    };
    use_them(1);
    let superuser = scene.db.admin();
    // Counters reach the statistics some time after the transaction: a fresh session of the application makes sure.
    let scans = || {
        session.run("SELECT pg_stat_clear_snapshot(); SELECT pg_sleep(1.1); SELECT 1");
        superuser.run("SELECT pg_stat_clear_snapshot()");
        superuser.value("SELECT seq_scan + idx_scan FROM pg_stat_all_tables WHERE relid = 'tenancy.tenants'::regclass")
    };
    let before = scans();
    use_them(50);
    assert_eq!(scans(), before, "100 transactions were to find their tenants in the cache");
    // The counter does count: a new connection looks each tenant up once.
    let fresh = scene.app();
    fresh.run("SELECT tenancy.set_tenant('red')");
    drop(fresh);
    assert_ne!(scans(), before);
}

/// In no text that the server writes: not the secret, not its bytes in hexadecimal or base64.
#[track_caller]
fn is_nowhere_in(text: &str, place: &str) {
    for trace in ["HUSHHUSH", "4855534848555348", "SFVTSEhVU0", "hVU0hIVVNI"] {
        if let Some(at) = text.to_uppercase().find(&trace.to_uppercase()) {
            let (from, to) = (at.saturating_sub(300), (at + 100).min(text.len()));
            panic!("{place} has the key: {}", String::from_utf8_lossy(&text.as_bytes()[from..to]));
        }
    }
}

#[test]
fn a_signing_key_is_in_no_log_no_statistics_and_no_dump() {
    let statistics = Cluster::shared().server().has_library("pg_stat_statements");
    let libraries = if statistics { "pg_stat_statements, pg_tenancy" } else { "pg_tenancy" };
    let cluster = Cluster::start(&[
        ("shared_preload_libraries", libraries),
        ("log_statement", "all"),
        ("log_min_duration_statement", "0"),
        ("log_parameter_max_length_on_error", "-1"),
        ("log_error_verbosity", "verbose"),
        ("debug_print_parse", "on"),
        ("debug_print_plan", "on"),
        ("log_min_messages", "debug1"),
    ]);
    let db = cluster.db();
    let admin = db.admin();
    if statistics {
        admin.run("CREATE EXTENSION pg_stat_statements; SET pg_stat_statements.track = 'all'");
    }
    let secret = |number| format!("HUSHHUSH {number}, a secret of more than thirty-two bytes");
    admin.run(&format!("SELECT tenancy.add_signing_key('1', 'HS256', '{}')", secret(1)));
    let watcher = db.admin();
    is_nowhere_in(&watcher.rows("SELECT query FROM pg_stat_activity").join("\n"), "pg_stat_activity");
    admin.query("SELECT tenancy.add_signing_key($1, $2, $3)", &[&"2", &"HS256", &secret(2)]);
    is_nowhere_in(&watcher.rows("SELECT query FROM pg_stat_activity").join("\n"), "pg_stat_activity");
    if statistics {
        let seen = watcher.rows("SELECT query FROM pg_stat_statements").join("\n");
        assert!(
            seen.contains("add_signing_key") && seen.contains("INSERT INTO tenancy_internal.signing_keys"),
            "{seen}"
        );
        is_nowhere_in(&seen, "pg_stat_statements");
    }
    admin.run("ANALYZE tenancy_internal.signing_keys");
    is_nowhere_in(&admin.rows("SELECT s::text FROM pg_stats s").join("\n"), "pg_stats");

    // Refused, wrong, and in other words.
    admin.refused("42710", &format!("SELECT tenancy.add_signing_key('1', 'HS256', '{}')", secret(3)));
    admin.refused("22023", &format!("SELECT tenancy.add_signing_key('3', 'ES256', '{}')", secret(4)));
    admin.try_query("SELECT tenancy.add_signing_key($1, $2, $3)", &[&"1", &"HS256", &secret(5)]).unwrap_err();
    admin.refused("42601", &format!("SELECT tenancy.add_signing_key('3', 'HS256', '{}", secret(6)));
    admin.refused("42601", &format!("SELECT tenancy.add_signing_key('3', 'HS256' '{}')", secret(7)));
    admin.refused("42883", &format!("SELECT tenancy.add_signing_key('3', 'HS256', '{}', 1)", secret(8)));
    admin.refused("42703", &format!("SELECT tenancy.add_signing_key('3', 'HS256', \"{}\")", secret(14)));
    admin.refused("22P02", &format!("SELECT tenancy.add_signing_key('3', 'HS256', ('{}'::int)::text)", secret(9)));
    admin.run(&format!("DO $$ BEGIN PERFORM tenancy.add_signing_key('3', 'HS256', '{}'); END $$", secret(10)));
    admin.run("PREPARE add_signing_key_prepared AS SELECT tenancy.add_signing_key($1, $2, $3)");
    admin.run(&format!("EXECUTE add_signing_key_prepared('4', 'HS256', '{}')", secret(11)));
    admin.run(&format!("SELECT \"tenancy\".ADD_Signing_Key('5', 'HS256', '{}')", secret(12)));
    admin.sees("SELECT count(*) FROM tenancy.signing_keys", &["5"]);
    // An ordinary role that tries.
    let app = db.application("app");
    db.login(&app).refused("42501", &format!("SELECT tenancy.add_signing_key('6', 'HS256', '{}')", secret(13)));
    let log = cluster.log_text();
    assert!(log.contains("statement: (not shown: it adds a signing key)"), "{log}");
    is_nowhere_in(&log, "the log");

    let dump = process::output(&mut db.program("pg_dump")).expect("pg_dump");
    is_nowhere_in(&dump, "pg_dump");
    // The right to read every table is not one to read these.
    let reader = db.role("reader", "IN ROLE pg_read_all_data");
    db.login(&reader).sees("SELECT * FROM tenancy_internal.signing_keys", &[]);
    admin.sees("SELECT count(*) FROM tenancy_internal.signing_keys WHERE secret_key IS NOT NULL", &["5"]);
}

#[test]
fn bindings_are_dumped_and_keys_are_not() {
    let scene = Scene::new();
    let admin = scene.db.admin();
    let gone = scene.db.role("gone", "");
    admin.run(&format!(
        "SELECT tenancy.bind_role('{}', 'red'), tenancy.bind_role('{gone}', 'blue'); DROP ROLE {gone};
         SELECT tenancy.add_signing_key('k1', 'HS256', repeat('x', 32))",
        scene.app
    ));
    admin.sees("SELECT count(*) FROM tenancy.role_bindings", &["2"]);
    let (folder, restored) = (Folder::new().expect("a folder"), Db::bare());
    let file = folder.path().join("dump");
    process::output(scene.db.program("pg_dump").arg("--file").arg(&file)).expect("pg_dump");
    let mut psql = restored.program("psql");
    process::output(psql.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--file"]).arg(&file)).expect("psql");
    restored.admin().sees(
        "SELECT role, code FROM tenancy.role_bindings JOIN tenancy.tenants ON id = tenant_id",
        &[&format!("{}|red", scene.app.name())],
    );
    restored.admin().sees("SELECT count(*) FROM tenancy.signing_keys", &["0"]);
    restored.login(&scene.app).sees("SELECT item FROM orders", &["of red"]);
    admin.run("SELECT tenancy.unbind_role(role) FROM tenancy.role_bindings");
    admin.sees("SELECT count(*) FROM tenancy.role_bindings", &["0"]);
}

#[test]
fn a_binding_of_a_role_that_cannot_log_in_says_so() {
    let scene = Scene::new();
    let admin = scene.db.admin();
    admin.run(&format!("ALTER ROLE {} NOLOGIN; SELECT tenancy.bind_role('{}', 'red')", scene.app, scene.app));
    let said: Vec<String> = admin.notices().iter().map(|notice| notice.message().to_owned()).collect();
    assert!(said.iter().any(|message| message.contains("cannot log in")), "{said:?}");
    admin.run(&format!("SET SESSION AUTHORIZATION {}", scene.app));
    admin.sees("SELECT item FROM orders", &["of red"]);
}

#[test]
fn a_server_with_a_known_way_past_row_security_is_named_when_the_extension_is_made_and_ever_after() {
    let db = Db::bare();
    let admin = db.admin();
    admin.run("CREATE EXTENSION pg_tenancy");
    let warnings: Vec<String> = admin.notices().iter().map(|notice| notice.message().to_owned()).collect();
    let note = admin.rows("SELECT server_note FROM tenancy.verify_context() WHERE server_note IS NOT NULL");
    assert_eq!(warnings, note);
    let version: u32 = admin.value("SHOW server_version_num").parse().expect("a number");
    let sound = [140_024, 150_019, 160_015, 170_011, 180_006];
    let is_known = sound.iter().any(|least| version / 10_000 == least / 10_000 && version >= *least);
    assert_eq!(note.is_empty(), is_known, "{version}: {note:?}");
}

/// How the library comes into a session: when one of its functions is first called, or by a setting.
const PRELOADS: [Option<&str>; 3] = [None, Some("session_preload_libraries"), Some("shared_preload_libraries")];

/// It has no tenant, by whatever way, and says that `setting` is to blame and how to mend it.
#[track_caller]
fn is_closed(session: &Session, setting: &str, value: &str, remedy: &str) {
    let refusal = session.refused("55000", "SELECT tenancy.set_tenant('red')");
    assert!(refusal.message().contains(setting) && refusal.message().contains(value), "{refusal:?}");
    assert!(refusal.hint().is_some_and(|hint| hint.contains(remedy)), "{remedy}: {refusal:?}");
    session.refused("55000", "BEGIN; SET LOCAL app.current_tenant_id = 'red'; SELECT item FROM orders");
    session.run("ROLLBACK");
    session.refused("55000", "SELECT item FROM orders");
    session.sees(&format!("SELECT problem LIKE '%{setting}%', tenant_code FROM tenancy.verify_context()"), &["t|NULL"]);
}

#[test]
fn a_session_whose_stored_settings_are_invalid_has_no_tenant() {
    for preload in PRELOADS {
        let cluster = Cluster::start(&[]);
        let (scene, other) = (Scene::on(cluster.db()), Scene::on(cluster.db()));
        let roles = ["mode", "name", "ttl", "here"].map(|hint| scene.db.application(hint));
        let [mode, name, ttl, here] = &roles;
        for role in &roles {
            scene.db.admin().run(&format!("GRANT SELECT ON orders TO {role}"));
        }
        let (this, that) = (format!("\"{}\"", scene.db.name()), format!("\"{}\"", other.db.name()));
        // Each: where it is stored, the setting, what is stored, what is right, and who logs in where.
        let stored = [
            (format!("ALTER ROLE {mode}"), "tenancy.context_mode", "sined", "open", (&scene, mode)),
            (format!("ALTER ROLE {name}"), "tenancy.contxt_mode", "signed", "", (&scene, name)),
            (format!("ALTER ROLE {ttl}"), "tenancy.token_max_ttl", "a fortnight", "1h", (&scene, ttl)),
            (
                format!("ALTER ROLE {here} IN DATABASE {this}"),
                "tenancy.token_replay_guard",
                "yess",
                "on",
                (&scene, here),
            ),
            (format!("ALTER DATABASE {that}"), "tenancy.strictness", "stirct", "standard", (&other, &other.app)),
        ];
        // Where the library is not loaded PostgreSQL stores anything.
        for (place, setting, value, ..) in &stored {
            cluster.superuser().run(&format!("{place} SET {setting} = '{value}'"));
        }
        if let Some(preload) = preload {
            cluster.configure(&[(preload, "pg_tenancy")]);
            cluster.restart(Shutdown::Fast);
        }
        scene.app().run("SELECT tenancy.set_tenant('red')");
        for (place, setting, value, valid, (scene, role)) in &stored {
            let verb = if valid.is_empty() { "RESET" } else { "SET" };
            let remedy = format!("{} {verb} {setting}", place.replace('"', ""));
            is_closed(&scene.db.login(role), setting, value, &remedy);
            let dba = scene.db.admin();
            let named = format!(
                "SELECT severity FROM tenancy.check_integrity('roles')
                  WHERE check_id = 'setting_invalid' AND detail LIKE '%{setting}%{value}%'"
            );
            dba.sees(&named, &["error"]);
            dba.run(&match *valid {
                "" => format!("{place} RESET {setting}"),
                valid => format!("{place} SET {setting} = '{valid}'"),
            });
            scene.db.admin().sees(&named, &[]);
            let mended = scene.db.login(role);
            mended.run("BEGIN; SELECT tenancy.set_tenant('red')");
            mended.sees("SELECT item FROM orders", &["of red"]);
        }
    }
}

#[test]
fn a_session_whose_server_has_invalid_settings_has_no_tenant() {
    for preload in PRELOADS {
        let cluster = Cluster::start(&[]);
        let scene = Scene::on(cluster.db());
        let preloads: Vec<_> = preload.map(|preload| (preload, "pg_tenancy")).into_iter().collect();
        cluster.configure(&preloads);
        cluster.configure(&[("tenancy.session_hygiene", "srcub"), ("tenancy.context_mode", "open")]);
        cluster.restart(Shutdown::Fast);
        is_closed(&scene.app(), "tenancy.session_hygiene", "srcub", "postgresql.conf");
        scene.db.admin().sees(
            "SELECT detail LIKE '%tenancy.session_hygiene%srcub%' FROM tenancy.check_integrity('roles')
              WHERE check_id = 'setting_invalid'",
            &["t"],
        );
        // Where the role has a valid one of its own, that is in force.
        let role = &scene.app;
        scene.db.admin().run(&format!("ALTER ROLE {role} SET tenancy.session_hygiene = 'scrub'"));
        scene.app().run("SELECT tenancy.set_tenant('red')");
        scene.db.admin().run(&format!("ALTER ROLE {role} RESET tenancy.session_hygiene"));
        is_closed(&scene.app(), "tenancy.session_hygiene", "srcub", "postgresql.conf");
        cluster.configure(&[("tenancy.session_hygiene", "scrub")]);
        cluster.reload();
        let works = || Ok(scene.app().try_run("SELECT tenancy.set_tenant('red')").ok());
        process::wait_for("the server to read its settings", Duration::from_secs(30), works)
            .unwrap_or_else(|error| panic!("{error:?}"));
        // A name that is none closes, too.
        cluster.configure(&[("tenancy.strictnes", "strict")]);
        cluster.restart(Shutdown::Fast);
        is_closed(&scene.app(), "tenancy.strictnes", "strict", "postgresql.conf");
    }
}

#[test]
fn what_is_invalid_counts_as_strict() {
    let cluster = Cluster::start(&[]);
    let scene = Scene::on(cluster.db());
    cluster.superuser().run(&format!("ALTER ROLE {} SET tenancy.strictness = 'stirct'", scene.app));
    cluster.configure(&[("shared_preload_libraries", "pg_tenancy")]);
    cluster.restart(Shutdown::Fast);
    scene.app().refused("42501", "LISTEN news");
    scene.app().sees("SHOW tenancy.strictness", &["standard"]);
    scene.db.admin().run("LISTEN news");
}

#[test]
fn only_a_value_that_would_have_counted_closes_the_session() {
    let scene = Scene::new();
    let session = scene.app();
    session.run("SET tenancy.context_mode = 'sined'; SET tenancy.anything = 'x'");
    session.run("BEGIN; SELECT tenancy.set_tenant('red')");
    session.sees("SELECT item FROM orders", &["of red"]);
    let dba = scene.db.admin();
    dba.run("SET tenancy.context_mode = 'sined'");
    dba.refused("55000", "SELECT tenancy.set_tenant('red')");
    dba.refused("22023", "SET tenancy.context_mode = 'sined'");
    scene.db.admin().run("SELECT tenancy.set_tenant('red')");
}

#[test]
fn a_refusal_carries_no_backtrace_whatever_the_servers_environment_says() {
    for preload in PRELOADS {
        let settings: Vec<_> = preload.map(|preload| (preload, "pg_tenancy")).into_iter().collect();
        let cluster = Cluster::start_in(&settings, &[("RUST_BACKTRACE", "full"), ("RUST_LIB_BACKTRACE", "1")]);
        let scene = Scene::on(cluster.db());
        let ours = scene.app().refused("55000", "SELECT item FROM orders");
        assert_eq!(ours.detail(), None, "{ours:?}");
        // One that PostgreSQL raises below a function of ours.
        let theirs = scene.db.admin().refused("25006", "BEGIN READ ONLY; SELECT tenancy.create_tenant('green')");
        assert!(!theirs.detail().unwrap_or_default().contains("pgrx"), "{theirs:?}");
    }
}
