//! The fence as a user's program meets it: who gets past row security, what is refused beside it, and that all else works.

use std::sync::OnceLock;

use pg_tenancy_tests::{Cluster, Db, Role, Session, Shutdown, cluster::data};

/// A server with the library in shared_preload_libraries, for all stories of the run.
fn fenced() -> Cluster {
    static FENCED: OnceLock<Cluster> = OnceLock::new();
    FENCED.get_or_init(|| Cluster::start(&[data::PRELOADED])).clone()
}

/// Two tenants with an order each.
struct Scene {
    db: Db,
    owner: Role,
    app: Role,
}

impl Scene {
    fn new() -> Self {
        Self::on(&fenced())
    }

    fn on(cluster: &Cluster) -> Self {
        let db = cluster.db();
        db.tenant("red");
        db.tenant("blue");
        let (owner, app) = (db.role("owner", ""), db.application("app"));
        db.admin().run(&format!(
            "CREATE TABLE orders (id int PRIMARY KEY, item text NOT NULL);
             ALTER TABLE orders OWNER TO {owner};
             GRANT CREATE ON SCHEMA public TO {owner}; GRANT USAGE ON SCHEMA tenancy TO {owner};
             SELECT tenancy.protect_table('orders');
             INSERT INTO orders SELECT number, code || '''s', id FROM tenancy.tenants;
             GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO {app}"
        ));
        Self { db, owner, app }
    }

    fn admin(&self) -> Session {
        self.db.admin()
    }

    fn app(&self) -> Session {
        self.db.login(&self.app)
    }

    /// A role that row security does not bind and that may read.
    fn bypassing(&self) -> Role {
        let role = self.db.role("bypassing", "BYPASSRLS");
        self.admin().run(&format!("GRANT SELECT ON orders TO {role}"));
        role
    }
}

fn begin_as(session: &Session, tenant: &str) {
    session.run(&format!("BEGIN; SELECT tenancy.set_tenant('{tenant}')"));
}

const COUNT: &str = "SELECT count(*) FROM orders";

#[test]
fn verify_context_tells_whether_the_fence_stands() {
    let fence = "SELECT fence FROM tenancy.verify_context()";
    Db::new().admin().sees(fence, &["off"]);
    let scene = Scene::new();
    scene.app().sees(fence, &["standard"]);
    scene.admin().run(&format!("ALTER ROLE {} SET tenancy.strictness = 'strict'", scene.app));
    scene.app().sees(fence, &["strict"]);
}

#[test]
fn a_library_taken_out_of_preload_leaves_tables_closed_and_says_so() {
    let cluster = Cluster::start(&[("shared_preload_libraries", "pg_tenancy"), ("tenancy.strictness", "strict")]);
    let scene = Scene::on(&cluster);
    let standing = "SELECT loaded_by, fence FROM tenancy.verify_context()";
    scene.app().sees(standing, &["shared_preload_libraries|strict"]);

    cluster.configure(&[("shared_preload_libraries", "")]);
    cluster.restart(Shutdown::Fast);
    scene.app().sees(standing, &["first use|off"]);
    for bound in [scene.app(), scene.db.login(&scene.owner)] {
        bound.refused("55000", COUNT);
        begin_as(&bound, "red");
        bound.sees("SELECT item FROM orders", &["red's"]);
        bound.refused("42501", "INSERT INTO orders VALUES (9, 'forged', gen_random_uuid())");
        bound.run("ROLLBACK");
    }
    // What was signed is still demanded: the setting is read when the library comes.
    scene.admin().run(&format!("ALTER DATABASE \"{}\" SET tenancy.context_mode = signed", scene.db.name()));
    let forger = scene.app();
    forger.run("BEGIN; SET LOCAL app.current_tenant_id = 'red'");
    forger.refused("42501", COUNT);

    cluster.configure(&[("shared_preload_libraries", "pg_tenancy")]);
    cluster.restart(Shutdown::Fast);
    scene.app().sees(standing, &["shared_preload_libraries|strict"]);
}

#[test]
fn errors_keep_what_they_say_on_their_way_through_the_hooks() {
    let scene = Scene::new();
    let admin = scene.admin();
    admin.refused("TN001", "DO $$ BEGIN RAISE EXCEPTION 'mine' USING ERRCODE = 'TN001'; END $$");
    let clash = admin.refused("23505", "DO $$ BEGIN INSERT INTO orders SELECT * FROM orders; END $$");
    assert_eq!(clash.constraint(), Some("orders_pkey"));
    assert!(clash.where_().is_some_and(|context| context.contains("PL/pgSQL")), "{clash:?}");
    let clash = admin.refused("42P07", "CREATE TABLE orders ()");
    assert!(clash.message().contains("already exists"));
}

#[test]
fn an_exemption_counts_from_the_next_statement_on_and_ends_by_itself() {
    let scene = Scene::new();
    let (admin, role) = (scene.admin(), scene.bypassing());
    let session = scene.db.login(&role);
    session.refused("42501", COUNT);
    admin.run(&format!("SELECT tenancy.exempt_role('{role}', 'figures', clock_timestamp() + interval '1 second')"));
    session.sees(COUNT, &["2"]);
    admin.run("SELECT pg_sleep_until(until + interval '10 ms') FROM tenancy.exempt_roles");
    session.refused("42501", COUNT);
    admin.sees("SELECT is_active FROM tenancy.exempt_roles", &["f"]);
    admin.run(&format!("SELECT tenancy.exempt_role('{role}', 'figures again')"));
    session.sees(COUNT, &["2"]);
    admin.run(&format!("BEGIN; SELECT tenancy.unexempt_role('{role}'); ROLLBACK"));
    session.sees(COUNT, &["2"]);
    admin.run(&format!("SELECT tenancy.unexempt_role('{role}')"));
    session.refused("42501", COUNT);
}

#[test]
fn an_administrator_who_is_no_superuser_exempts_nobody() {
    let scene = Scene::new();
    let admin = scene.db.role("admin", "");
    scene.admin().run(&format!("SELECT tenancy.grant_admin('{admin}')"));
    let session = scene.db.login(&admin);
    session.refused("42501", &format!("SELECT tenancy.exempt_role('{admin}', 'me')"));
    session.refused("42501", "INSERT INTO tenancy_internal.exempt_roles VALUES (current_user::regrole, 'me')");
    session.sees("SELECT count(*) FROM tenancy.exempt_roles", &["0"]);
}

#[test]
fn a_backup_by_an_exempt_role_is_complete_and_carries_the_exemption() {
    let scene = Scene::new();
    let (admin, role) = (scene.admin(), scene.bypassing());
    admin.run(&format!(
        "GRANT USAGE ON SCHEMA tenancy, tenancy_internal TO {role};
         GRANT SELECT ON ALL TABLES IN SCHEMA tenancy, tenancy_internal TO {role};
         GRANT SELECT ON ALL SEQUENCES IN SCHEMA tenancy, tenancy_internal TO {role}"
    ));
    let dump = || {
        let mut program = scene.db.program("pg_dump");
        program.env("PGUSER", role.name()).output().expect("pg_dump runs")
    };
    let refused = dump();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("exempt_role"), "{refused:?}");
    admin.run(&format!("SELECT tenancy.exempt_role('{role}', 'nightly dump')"));
    let dumped = dump();
    let text = String::from_utf8_lossy(&dumped.stdout);
    assert!(dumped.status.success(), "{}", String::from_utf8_lossy(&dumped.stderr));
    assert!(text.contains("red's") && text.contains("blue's") && text.contains("nightly dump"));
}

#[test]
fn a_refusal_is_counted_and_logged_without_values() {
    let scene = Scene::new();
    let count = "SELECT count FROM tenancy.violations WHERE kind = 'foreign_write'";
    let before: i64 = scene.admin().value(count).parse().unwrap();
    let session = scene.app();
    begin_as(&session, "red");
    session.refused(
        "42501",
        "INSERT INTO orders SELECT 9, 'a-secret-value', id FROM (SELECT gen_random_uuid() AS id) AS nobody",
    );
    let admin = scene.admin();
    let after: i64 = admin.value(count).parse().unwrap();
    assert!(after > before);
    admin.sees(
        "SELECT last_minute > 0, last_hour >= last_minute, last_at > now() - interval '1 minute', scope
           FROM tenancy.violations WHERE kind = 'foreign_write'",
        &["t|t|t|server"],
    );
    let log = fenced().log_text();
    let line =
        log.lines().find(|line| line.contains("tenancy violation foreign_write") && line.contains(scene.app.name()));
    let line = line.expect("a line for the refusal");
    assert!(line.contains("tenant \"red\"") && line.contains("client local") && !line.contains("secret"), "{line}");
}

#[test]
fn without_preload_the_counts_are_those_of_the_session() {
    let db = Db::new();
    let (red, _) = db.two_tenants_sharing("orders");
    red.session().refused("55000", COUNT);
    db.admin().sees("SELECT count FROM tenancy.violations WHERE kind = 'missing_context'", &["0"]);
    db.admin().sees("SELECT DISTINCT scope FROM tenancy.violations", &["session"]);
}

#[test]
fn protection_counts_in_every_backend_at_once() {
    let scene = Scene::new();
    let (admin, owner) = (scene.admin(), scene.db.login(&scene.owner));
    owner.run("CREATE TABLE notes (item text); INSERT INTO notes VALUES ('mine')");
    owner.sees("SELECT item FROM notes", &["mine"]);
    admin.run("SELECT tenancy.protect_table('notes', assign_existing_rows_to => 'red')");
    owner.refused("55000", "SELECT item FROM notes");
    admin.run("SET tenancy.ddl_guard = off; ALTER TABLE notes NO FORCE ROW LEVEL SECURITY");
    owner.refused("42501", "SELECT item FROM notes");
    admin.run("SELECT tenancy.protect_table('notes')");
    owner.refused("55000", "SELECT item FROM notes");
    admin.run("SELECT tenancy.unprotect_table('notes')");
    owner.sees("SELECT item FROM notes", &["mine"]);
}

#[test]
fn an_extension_made_later_fences_connections_that_are_there_already() {
    let db = fenced().bare_db();
    let (early, admin) = (db.admin(), db.admin());
    early.run("CREATE TABLE orders (id int); INSERT INTO orders VALUES (1)");
    early.sees(COUNT, &["1"]);
    admin.run("CREATE EXTENSION pg_tenancy; SELECT tenancy.create_tenant('red')");
    admin.run("SELECT tenancy.protect_table('orders', assign_existing_rows_to => 'red')");
    early.sees(COUNT, &["1"]);
    begin_as(&early, "red");
    early.refused("42501", COUNT);
    early.run("ROLLBACK");
    admin.run("SELECT tenancy.unprotect_table('orders'); DROP EXTENSION pg_tenancy CASCADE");
    early.sees(COUNT, &["1"]);
}

#[test]
fn an_explain_that_failed_leaves_nothing_behind() {
    let scene = Scene::new();
    scene.admin().run(&format!("ALTER ROLE {} SET tenancy.explain_guard = 'all'", scene.app));
    let session = scene.app();
    begin_as(&session, "red");
    session.run(
        "DO $$ BEGIN EXECUTE 'EXPLAIN SELECT * FROM orders'; EXCEPTION WHEN insufficient_privilege THEN NULL; END $$",
    );
    session.sees(COUNT, &["1"]);
    session.run("SAVEPOINT s");
    session.refused("42501", "EXPLAIN ANALYZE SELECT * FROM orders");
    session.run("ROLLBACK TO s");
    session.sees(COUNT, &["1"]);
    session.sees("EXPLAIN (COSTS OFF) SELECT 1", &["Result"]);
    session.run("ROLLBACK");
    session.refused("22012", "EXPLAIN ANALYZE SELECT 1 / (random() * 0)::int");
    begin_as(&session, "red");
    session.sees(COUNT, &["1"]);
}

#[test]
fn explain_guard_analyze_leaves_plans_alone() {
    let scene = Scene::new();
    scene.admin().run(&format!("ALTER ROLE {} SET tenancy.explain_guard = 'analyze'", scene.app));
    let session = scene.app();
    begin_as(&session, "red");
    session.run("EXPLAIN SELECT * FROM orders; EXPLAIN (ANALYZE off) SELECT * FROM orders");
    session.refused("42501", "EXPLAIN (ANALYZE, COSTS off) SELECT * FROM orders");
}

#[test]
fn a_cleaning_that_is_rolled_back_is_done_again() {
    let scene = Scene::new();
    scene.admin().run(&format!("ALTER ROLE {} SET tenancy.session_hygiene = 'scrub'", scene.app));
    let session = scene.app();
    begin_as(&session, "red");
    session.run("CREATE TEMPORARY TABLE basket AS SELECT item FROM orders; COMMIT");
    for _ in 0..2 {
        begin_as(&session, "blue");
        session.sees(COUNT, &["1"]);
        session.refused("42P01", "SELECT item FROM basket");
        session.run("ROLLBACK");
    }
    begin_as(&session, "blue");
    session.run("SAVEPOINT s");
    session.sees(COUNT, &["1"]);
    session.run("ROLLBACK TO s");
    // The rollback brought it back, and the next statement finds it another tenant's.
    session.refused("42501", "SELECT item FROM basket");
    session.run("ROLLBACK");
    begin_as(&session, "red");
    session.sees("SELECT item FROM basket", &["red's"]);
}

#[test]
fn what_a_tenant_makes_after_the_cleaning_stays() {
    let scene = Scene::new();
    scene.admin().run(&format!("ALTER ROLE {} SET tenancy.session_hygiene = 'scrub'", scene.app));
    let session = scene.app();
    for tenant in ["red", "blue", "red"] {
        begin_as(&session, tenant);
        session.run("CREATE TEMPORARY TABLE basket AS SELECT item FROM orders");
        session.run("SAVEPOINT s; INSERT INTO basket VALUES ('more'); ROLLBACK TO s");
        session.sees("SELECT count(*) FROM basket", &["1"]);
        session.run("DECLARE c CURSOR WITH HOLD FOR SELECT item FROM orders; COMMIT");
        begin_as(&session, tenant);
        session.sees("SELECT item FROM basket", &[&format!("{tenant}'s")]);
        session.sees("FETCH c", &[&format!("{tenant}'s")]);
        session.run("COMMIT");
    }
}

/// A loop over red's rows that goes on, when `ends` (COMMIT or ROLLBACK) has ended its transaction, in one of `then`.
fn loop_of_red(ends: &str, then: &str) -> String {
    format!(
        "DO $$
         DECLARE r record;
         BEGIN
             PERFORM tenancy.set_tenant('red');
             FOR r IN SELECT item, n FROM orders, generate_series(1, 100) n LOOP
                 {ends};
                 PERFORM tenancy.set_tenant('{then}');
                 IF (SELECT count(*) FROM orders WHERE item <> r.item) > 0 THEN
                     RAISE 'blue reads %', r.item USING ERRCODE = 'ZZ001';
                 END IF;
             END LOOP;
         END $$"
    )
}

#[test]
fn a_loop_over_rows_does_not_go_on_into_the_next_tenant() {
    for hygiene in ["scrub", "refuse"] {
        let scene = Scene::new();
        scene.admin().run(&format!("ALTER ROLE {} SET tenancy.session_hygiene = '{hygiene}'", scene.app));
        for ends in ["COMMIT", "ROLLBACK"] {
            let session = scene.app();
            let refusal = session.refused("42501", &loop_of_red(ends, "blue"));
            assert!(refusal.message().contains("red") && refusal.message().contains("blue"), "{refusal:?}");
            session.run(&loop_of_red(ends, "red"));
            begin_as(&session, "blue");
            session.sees(COUNT, &["1"]);
        }
    }
}

#[test]
fn a_loop_over_tenants_may_take_each_of_them_in_a_transaction_of_its_own() {
    let scene = Scene::new();
    scene.admin().run(&format!("ALTER ROLE {} SET tenancy.session_hygiene = 'scrub'", scene.app));
    scene.app().run(
        "DO $$
         DECLARE t record; r record;
         BEGIN
             FOR t IN SELECT code FROM unnest('{red,blue,red}'::text[]) code LOOP
                 PERFORM tenancy.set_tenant(t.code);
                 FOR r IN SELECT item FROM orders LOOP
                     ASSERT r.item = format('%s''s', t.code), r.item;
                     COMMIT;
                     PERFORM tenancy.set_tenant(t.code);
                 END LOOP;
                 ASSERT (SELECT count(*) FROM orders) = 1;
                 COMMIT;
             END LOOP;
         END $$",
    );
}

#[test]
fn foreign_keys_cascades_and_triggers_of_bound_owners_work() {
    let scene = Scene::new();
    let owner = scene.db.login(&scene.owner);
    owner.run(
        "CREATE TABLE lines (id int PRIMARY KEY, order_id int REFERENCES orders ON DELETE CASCADE, note text);
         CREATE TABLE removed (id int);
         CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
             BEGIN INSERT INTO removed VALUES (OLD.id); PERFORM count(*) FROM orders; RETURN NULL; END $$;
         CREATE TRIGGER keep AFTER DELETE ON lines FOR EACH ROW EXECUTE FUNCTION keep()",
    );
    scene
        .admin()
        .run(&format!("SELECT tenancy.protect_table('lines'); GRANT SELECT, INSERT, DELETE ON lines TO {}", scene.app));
    let session = scene.app();
    begin_as(&session, "red");
    session.run("INSERT INTO lines SELECT 1, id FROM orders");
    session.changes(1, "DELETE FROM orders");
    session.sees("SELECT count(*) FROM lines", &["0"]);
    session.run("COMMIT");
    owner.sees("SELECT id FROM removed", &["1"]);
}

#[test]
fn maintenance_by_a_superuser_goes_on() {
    let scene = Scene::new();
    let admin = scene.admin();
    for statement in [
        "ANALYZE orders",
        "VACUUM FULL orders",
        "REINDEX TABLE orders",
        "CLUSTER orders USING orders_pkey",
        "CREATE INDEX ON orders ((lower(item)))",
        "ALTER TABLE orders ADD COLUMN note text DEFAULT 'none'",
        "UPDATE orders SET note = 'kept'",
        "COPY orders TO '/dev/null'",
        "EXPLAIN ANALYZE SELECT * FROM orders",
        "BEGIN; LOCK TABLE orders; COMMIT",
        "TRUNCATE orders",
    ] {
        admin.run(statement);
    }
}

#[test]
fn a_parallel_query_is_fenced_in_and_answers() {
    let scene = Scene::new();
    scene.admin().run(
        "INSERT INTO orders SELECT n, 'more', id FROM generate_series(1000, 20000) n, tenancy.tenants WHERE code = 'red';
         ANALYZE orders; ALTER TABLE orders SET (parallel_workers = 2)",
    );
    let session = scene.app();
    session.run("SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0");
    begin_as(&session, "red");
    assert!(session.explain("SELECT count(*) FROM orders WHERE item LIKE '%o%'").contains("Gather"));
    session.sees("SELECT count(*) FROM orders WHERE item LIKE '%o%'", &["19001"]);
}
