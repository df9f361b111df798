//! THREATS (d): what activity views, statistics and leftovers of a connection tell of other tenants, and how
//! `tenancy.lock_down_catalogs` takes them from an application's role: by hooks where the fence stands, else by grants.

use std::sync::OnceLock;

use crate::stage::{Attacker, Setting, Stage, stories};
use pg_tenancy_tests::{
    Cluster, Db, NASTY_NAMES, Role, Session, cluster::data::Folder, process, quote_ident, quote_literal,
};

stories![
    d10_d11_d15_d16_d25_a_locked_role_sees_no_other_session_and_no_figures_of_all_tenants,
    d15_the_lock_is_not_passed_by_other_roles_nor_other_ways_to_call_a_function,
    a32_d27_leftovers_of_another_transaction_are_not_shown,
    others_keep_what_they_had_and_new_roles_get_it_when_asked,
    psql_and_information_schema_go_on_for_a_locked_role,
    unlocking_puts_every_privilege_back_to_the_letter,
    grants_that_would_leave_the_lock_open_are_named,
    a_dump_carries_the_lock_and_its_undo,
    roles_of_any_name_are_locked_and_unlocked,
];

/// A server of these stories' own: grants to every role there is are in the way of others' DROP ROLE.
fn server(setting: Setting) -> Cluster {
    static SERVERS: [OnceLock<Cluster>; 3] = [OnceLock::new(), OnceLock::new(), OnceLock::new()];
    let (place, ours, strictness) = match setting {
        Setting::FirstUse | Setting::Session => (&SERVERS[0], None, None),
        Setting::Shared => (&SERVERS[1], Some("pg_tenancy"), None),
        Setting::Strict => (&SERVERS[2], Some("pg_tenancy"), Some(("tenancy.strictness", "strict"))),
    };
    let start = || {
        let libraries: Vec<&str> =
            remembers_statements().then_some("pg_stat_statements").into_iter().chain(ours).collect();
        let libraries = libraries.join(",");
        let settings: Vec<_> = [("shared_preload_libraries", &*libraries)].into_iter().chain(strictness).collect();
        Cluster::start(&settings)
    };
    place.get_or_init(start).clone()
}

/// Servers from PyPI have no contrib modules.
fn remembers_statements() -> bool {
    Cluster::shared().server().has_library("pg_stat_statements")
}

fn on_own_server(stage: &Stage) -> Stage {
    Stage::on(&server(stage.setting), stage.setting)
}

/// Runs as superuser.
#[track_caller]
fn lock(db: &Db, role: &Role) {
    db.admin().run(&format!("SELECT tenancy.lock_down_catalogs({})", quote_literal(&role.to_string())));
}

#[track_caller]
fn unlock(db: &Db, role: &Role) {
    db.admin().run(&format!("SELECT tenancy.unlock_catalogs({})", quote_literal(&role.to_string())));
}

const ACTIVITY: &str =
    "SELECT query FROM pg_stat_activity WHERE query LIKE '%blues literal%' AND pid <> pg_backend_pid()";
const LOCKS: &str = "SELECT DISTINCT relation::regclass FROM pg_locks WHERE relation = 'letters'::regclass";
const FIGURES: &str = "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'letters'";
const STATEMENTS: &str = "SELECT query LIKE '%SET%' FROM pg_stat_statements WHERE query LIKE '%blue.secret%' LIMIT 1";

fn d10_d11_d15_d16_d25_a_locked_role_sees_no_other_session_and_no_figures_of_all_tenants(stage: &Stage) {
    if !remembers_statements() {
        return;
    }
    let stage = on_own_server(stage);
    stage.db.admin().run("CREATE EXTENSION pg_stat_statements");
    let blue = stage.login();
    blue.run("SET blue.secret = 'blue''s password'");
    blue.begin_as("blue");
    blue.run("SELECT count(*), 'blues literal' FROM letters");

    let red = stage.login();
    red.sees(ACTIVITY, &["SELECT count(*), 'blues literal' FROM letters"]);
    red.sees(LOCKS, &["letters"]);
    red.sees(STATEMENTS, &["t"]);
    assert_eq!(red.rows(FIGURES).len(), 1);

    lock(&stage.db, &stage.app);
    // A session that was there before is bound as a new one is.
    for red in [red, stage.login()] {
        for sql in [
            ACTIVITY,
            LOCKS,
            FIGURES,
            STATEMENTS,
            "SELECT pg_stat_get_activity(NULL)",
            "SELECT pg_stat_get_backend_activity(1)",
            "SELECT * FROM pg_stat_statements(true)",
            "SELECT pg_lock_status()",
            "SELECT pg_blocking_pids(1)",
            "SELECT pg_stat_get_tuples_inserted('letters'::regclass)",
            "SELECT pg_relation_size('letters')",
            "SELECT pg_total_relation_size('letters')",
            "SELECT pg_database_size(current_database())",
            "SELECT * FROM pg_stats",
            "SELECT * FROM pg_statio_user_tables",
            "SELECT * FROM pg_stat_progress_vacuum",
            "SELECT * FROM pg_prepared_xacts",
            "SELECT * FROM pg_listening_channels()",
            &format!("SELECT pg_terminate_backend({})", blue.pid()),
            "DO $$ BEGIN PERFORM query FROM pg_stat_activity; END $$",
            "COPY (SELECT query FROM pg_stat_activity) TO STDOUT",
            "EXPLAIN SELECT * FROM pg_stat_activity",
        ] {
            red.refused("42501", sql);
        }
        red.sees("SELECT query = current_query() FROM tenancy.stat_activity WHERE pid = pg_backend_pid()", &["t"]);
        let blues = format!("FROM tenancy.stat_activity WHERE pid = {}", blue.pid());
        red.sees(&format!("SELECT state {blues}"), &["idle in transaction"]);
        red.sees(
            &format!("SELECT count(*) {blues} AND num_nulls(query, xact_start, query_start, client_port, application_name) < 5"),
            &["0"],
        );
        red.begin_as("red");
        red.run("SELECT FROM letters");
        red.sees("SELECT DISTINCT pid = pg_backend_pid() FROM tenancy.locks", &["t"]);
        red.sees(
            "SELECT DISTINCT relation::regclass::text FROM tenancy.locks WHERE relation = 'letters'::regclass",
            &["letters"],
        );
        red.run("ROLLBACK");
    }
    assert_eq!(blue.value("SELECT 1"), "1", "nobody ended blue's session");
    stage.db.admin().sees(LOCKS, &["letters"]);
    unlock(&stage.db, &stage.app);
    stage.login().sees(LOCKS, &["letters"]);
    stage.login().refused("42501", "SELECT * FROM tenancy.locks");
}

fn d15_the_lock_is_not_passed_by_other_roles_nor_other_ways_to_call_a_function(stage: &Stage) {
    let stage = on_own_server(stage);
    let (admin, friend) = (stage.db.admin(), stage.db.role("friend", ""));
    admin.run(&format!("GRANT {friend} TO {}; GRANT CREATE ON SCHEMA public TO {friend}", stage.app));
    lock(&stage.db, &stage.app);
    let session = stage.login();
    let aggregate =
        "CREATE AGGREGATE figures(oid) (sfunc = oidlarger, stype = oid, finalfunc = pg_stat_get_live_tuples)";
    if stage.setting.has_fence() {
        session.run(aggregate);
        session.refused("42501", "SELECT figures(oid) FROM pg_class");
    } else {
        session.refused("42501", aggregate);
    }
    session.run("CREATE VIEW own_view AS SELECT * FROM pg_stat_activity");
    session.refused("42501", "SELECT * FROM own_view");
    session.run("CREATE FUNCTION own_function() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM pg_locks'");
    session.refused("42501", "SELECT own_function()");

    // What a role that it can take on may read, it would read, too.
    session.run(&format!("SET ROLE {friend}"));
    session.refused("42501", "SELECT * FROM pg_locks");
    session.run("CREATE FUNCTION friends_function() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM pg_locks'");
    session.run("RESET ROLE");
    session.refused("42501", "SELECT friends_function()");

    // Who has the role's rights is locked down with it; who was given all statistics besides is not.
    let (member, monitor) = (stage.db.role("member", ""), stage.db.role("monitor", ""));
    admin.run(&format!("GRANT {0} TO {member}, {monitor}; GRANT pg_monitor TO {monitor}", stage.app));
    lock(&stage.db, &stage.app);
    stage.db.login(&member).refused("42501", "SELECT * FROM pg_locks");
    stage.db.login(&monitor).run("SELECT query FROM pg_stat_activity");

    // A superuser's function decides for itself what it shows.
    admin.run("CREATE FUNCTION health() RETURNS boolean LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) > 0 FROM pg_stat_activity'");
    session.sees("SELECT health()", &["t"]);
    admin.run(&format!("SET ROLE {}", stage.app));
    admin.refused("42501", "SELECT * FROM pg_locks");
}

fn a32_d27_leftovers_of_another_transaction_are_not_shown(stage: &Stage) {
    let stage = on_own_server(stage);
    let session = stage.login();
    session.begin_as("blue");
    session.run("PREPARE blues AS SELECT 'blue''s literal'");
    // Strict hygiene does not let it be made.
    let holds_cursor = stage.setting != Setting::Strict;
    if holds_cursor {
        session.run("DECLARE blues CURSOR WITH HOLD FOR SELECT 'blue''s literal'");
    }
    session.run("COMMIT");
    session.sees("SELECT name FROM pg_prepared_statements", &["blues"]);
    session.sees("SELECT name FROM pg_cursors WHERE name <> ''", if holds_cursor { &["blues"] } else { &[] });

    lock(&stage.db, &stage.app);
    session.begin_as("red");
    for sql in [
        "SELECT * FROM pg_prepared_statements",
        "SELECT pg_prepared_statement()",
        "SELECT * FROM pg_cursors",
        "SELECT pg_cursor()",
    ] {
        session.refused_inside("42501", sql);
    }
    session.run("PREPARE reds AS SELECT 1; DECLARE reds CURSOR FOR SELECT 1");
    session.sees("SELECT name FROM tenancy.prepared_statements", &["reds"]);
    session.sees("SELECT name FROM tenancy.cursors WHERE name <> ''", &["reds"]);
}

fn others_keep_what_they_had_and_new_roles_get_it_when_asked(stage: &Stage) {
    let stage = on_own_server(stage);
    let (other, monitor) = (stage.db.role("other", ""), stage.db.role("monitor", "IN ROLE pg_monitor"));
    lock(&stage.db, &stage.app);
    let works = |role: &Role| {
        let session = stage.db.login(role);
        session.run("SELECT query FROM pg_stat_activity; SELECT * FROM pg_locks; SELECT * FROM pg_stat_ssl");
        if stage.setting != Setting::Strict {
            session.run("SELECT pg_relation_size('letters')");
        }
        session.run(
            "SELECT pg_stat_get_live_tuples('letters'::regclass); SELECT * FROM pg_stats; SELECT * FROM pg_cursors",
        );
    };
    for role in [&other, &monitor, &stage.owner] {
        works(role);
    }
    let late = stage.db.role("late", "");
    if !stage.setting.has_fence() {
        stage.db.login(&late).refused("42501", "SELECT * FROM pg_locks");
        lock(&stage.db, &stage.app);
    }
    works(&late);
    stage.login().refused("42501", "SELECT * FROM pg_locks");

    let method = if stage.setting.has_fence() { "hooks" } else { "grants" };
    stage.db.admin().sees("SELECT method, is_enforced FROM tenancy.locked_down_roles", &[&format!("{method}|t")]);
}

fn psql_and_information_schema_go_on_for_a_locked_role(stage: &Stage) {
    let stage = on_own_server(stage);
    let views = stage.db.admin().rows(
        "SELECT format('SELECT * FROM information_schema.%I LIMIT 1', table_name)
        FROM information_schema.tables WHERE table_schema = 'information_schema' ORDER BY 1",
    );
    let session = stage.login();
    let readable: Vec<&String> = views.iter().filter(|sql| session.try_run(sql).is_ok()).collect();
    assert!(readable.len() > 50, "{readable:?}");
    lock(&stage.db, &stage.app);
    for sql in readable {
        session.run(sql);
    }
    let orders = [
        r"\d",
        r"\dS",
        r"\d letters",
        r"\d+ letters",
        r"\dt",
        r"\di",
        r"\dv",
        r"\dm",
        r"\ds",
        r"\df tenancy.*",
        r"\df+ tenancy.*",
        r"\dn+",
        r"\du",
        r"\l",
        r"\dp",
        r"\dx",
        r"\dT",
        r"\do",
        r"\dC",
        r"\dc",
        r"\dd",
        r"\dy",
        r"\dRp",
        r"\dX",
        r"\ddp",
        r"\dO",
        r"\sv tenancy.locks",
        r"\conninfo",
        r"\drds",
    ];
    let mut psql = stage.db.program("psql");
    psql.env("PGUSER", stage.app.name()).args(["-X", "-v", "ON_ERROR_STOP=1"]);
    for order in orders {
        psql.args(["-c", order]);
    }
    let played = psql.output().expect("psql runs");
    assert!(played.status.success(), "{}", String::from_utf8_lossy(&played.stderr));
    assert!(String::from_utf8_lossy(&played.stdout).contains("letters_pkey"));
}

/// Every privilege on what the server, its extensions and we have.
fn privileges(session: &Session) -> Vec<String> {
    session.rows(
        "SELECT oid::regclass::text, relacl::text FROM pg_class WHERE relkind IN ('r', 'v') UNION ALL
         SELECT oid::regprocedure::text, proacl::text FROM pg_proc UNION ALL
         SELECT classoid::regclass || objoid::text, initprivs::text FROM pg_init_privs ORDER BY 1, 2",
    )
}

fn unlocking_puts_every_privilege_back_to_the_letter(stage: &Stage) {
    if !remembers_statements() {
        return;
    }
    let stage = on_own_server(stage);
    let (admin, other) = (stage.db.admin(), stage.db.role("other", ""));
    admin.run(&format!("CREATE EXTENSION pg_stat_statements; GRANT SELECT ON pg_locks TO {other}; REVOKE SELECT ON pg_stat_ssl FROM PUBLIC"));
    let before = privileges(&admin);
    let grants =
        |role: &Role| format!("SELECT tenancy.lock_down_catalogs({}, 'grants')", quote_literal(&role.to_string()));

    admin.run(&format!("BEGIN; {}; ROLLBACK", grants(&stage.app)));
    assert_eq!(privileges(&admin), before, "rolled back");
    for _ in 0..2 {
        lock(&stage.db, &stage.app);
        lock(&stage.db, &stage.app);
        if stage.setting.has_fence() {
            let mut changed = privileges(&admin).into_iter().filter(|privilege| !before.contains(privilege));
            assert!(changed.all(|row| row.starts_with("tenancy.")), "hooks leave the server's own alone");
        }
        admin.run(&grants(&stage.app));
        admin.run(&grants(&stage.owner));
        assert_ne!(privileges(&admin), before);
        unlock(&stage.db, &stage.app);
        stage.login().run("SELECT query FROM pg_stat_activity");
        stage.db.login(&stage.owner).refused("42501", "SELECT query FROM pg_stat_activity");
        unlock(&stage.db, &stage.owner);
        assert_eq!(privileges(&admin), before, "undone");
    }
    admin.sees("SELECT * FROM tenancy_internal.revoked_catalogs", &[]);
    admin.refused("42704", &format!("SELECT tenancy.unlock_catalogs({})", quote_literal(&stage.app.to_string())));

    // What somebody granted meanwhile is his, and stays.
    admin.run(&grants(&stage.app));
    let late = stage.db.role("late", "");
    admin.run(&format!("GRANT SELECT ON pg_stat_activity TO {late}"));
    unlock(&stage.db, &stage.app);
    admin.sees(
        &format!("SELECT relacl::text LIKE '%{}=r/%' FROM pg_class WHERE relname = 'pg_stat_activity'", late.name()),
        &["t"],
    );
    admin.run(&format!("REVOKE SELECT ON pg_stat_activity FROM {late}"));
}

fn grants_that_would_leave_the_lock_open_are_named(stage: &Stage) {
    let stage = on_own_server(stage);
    let admin = stage.db.admin();
    let grants = format!("SELECT tenancy.lock_down_catalogs({}, 'grants')", quote_literal(&stage.app.to_string()));
    admin.run(&format!("GRANT EXECUTE ON FUNCTION pg_stat_get_activity(integer) TO {}", stage.app));
    let refusal = admin.refused("42501", &grants);
    assert!(refusal.message().contains("pg_catalog.pg_stat_get_activity(integer)"), "{refusal:?}");
    admin.run(&format!("REVOKE EXECUTE ON FUNCTION pg_stat_get_activity(integer) FROM {}", stage.app));

    let group = stage.db.role("readers", "");
    admin.run(&format!("GRANT SELECT ON pg_stats TO {group}; GRANT {group} TO {}", stage.app));
    let refusal = admin.refused("42501", &grants);
    assert!(refusal.detail().is_some_and(|detail| detail.contains(group.name())), "{refusal:?}");
    admin.sees("SELECT * FROM tenancy.locked_down_roles", &[]);
    admin.run(&format!("REVOKE {group} FROM {}; {grants}", stage.app));
    stage.login().refused("42501", "SELECT * FROM pg_stats");
}

fn a_dump_carries_the_lock_and_its_undo(stage: &Stage) {
    let db = server(stage.setting).db();
    let app = db.application("app");
    lock(&db, &app);
    let (folder, restored) = (Folder::new().expect("a folder"), db.cluster().bare_db());
    let file = folder.path().join("dump");
    process::output(db.program("pg_dump").arg("--file").arg(&file)).expect("pg_dump runs");
    let mut psql = restored.program("psql");
    process::output(psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f"]).arg(&file)).expect("the dump is restored");
    let session = restored.login(&app);
    session.refused("42501", "SELECT query FROM pg_stat_activity");
    session.refused("42501", "SELECT pg_stat_get_activity(NULL)");
    session.run("SELECT query FROM tenancy.stat_activity");
    unlock(&restored, &app);
    session.run("SELECT query FROM pg_stat_activity; SELECT pg_stat_get_activity(NULL)");
}

fn roles_of_any_name_are_locked_and_unlocked(stage: &Stage) {
    let stage = on_own_server(stage);
    let admin = stage.db.admin();
    for name in NASTY_NAMES {
        let role = quote_ident(name);
        let named = quote_literal(&role);
        admin.run(&format!(
            "BEGIN; CREATE ROLE {role}; SELECT tenancy.lock_down_catalogs({named}); SET LOCAL ROLE {role}"
        ));
        admin.refused("42501", "SELECT * FROM pg_locks");
        admin.run(&format!(
            "ROLLBACK; BEGIN; CREATE ROLE {role}; SELECT tenancy.lock_down_catalogs({named}); SELECT tenancy.unlock_catalogs({named});
             SET LOCAL ROLE {role}; SELECT * FROM pg_locks; ROLLBACK"
        ));
    }
}
