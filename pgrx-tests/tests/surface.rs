//! What the extension shows the world stands in `surface.golden`, who may do what in `privileges.golden`: a change there is a
//! decision, never an accident.

use std::fs;

use pg_tenancy_tests::{Db, workspace::root};

#[path = "surface/description.rs"]
mod description;
#[path = "surface/privileges.rs"]
mod privileges;
#[path = "surface/triggers.rs"]
mod triggers;

/// Set to anything, it makes what is there now the expectation.
const ACCEPT: &str = "PG_TENANCY_ACCEPT";

#[test]
fn the_surface_is_the_golden_one() {
    compare("surface.golden", &description::describe(&Db::new().admin()));
}

/// A routine is for whom its room lists it in `tenancy_internal.rights`, and for nobody else: a new one that PUBLIC or an
/// administrator gets by accident is found here.
#[test]
fn everybody_has_the_privileges_of_the_list_and_no_others() {
    compare("privileges.golden", &privileges::describe(&Db::new()));
}

#[test]
fn what_is_taken_back_leaves_nothing() {
    let db = Db::new();
    let (admin, role) = (db.admin(), db.role("former", ""));
    let granted = format!(
        "SELECT count(*) FROM pg_shdepend d JOIN pg_database b ON b.oid = d.dbid AND b.datname = current_database()
          WHERE d.refobjid = '{role}'::regrole"
    );
    admin.run(&format!("SELECT tenancy.grant_usage('{role}'), tenancy.grant_admin('{role}')"));
    assert_ne!(admin.value(&granted), "0");
    admin.run(&format!("SELECT tenancy.revoke_admin('{role}'), tenancy.revoke_usage('{role}')"));
    admin.sees(&granted, &["0"]);
}

/// Privileges on functions are checked for whoever reads a view, not for its owner.
#[test]
fn who_may_read_a_view_of_ours_may_call_its_functions() {
    let hindered = "
        SELECT DISTINCT c.oid::regclass, p.oid::regprocedure
          FROM pg_class c JOIN pg_rewrite r ON r.ev_class = c.oid
          JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_proc'::regclass
          JOIN pg_proc p ON p.oid = d.refobjid
         WHERE c.relnamespace IN ('tenancy'::regnamespace, 'tenancy_internal'::regnamespace)
           AND NOT EXISTS (SELECT FROM aclexplode(COALESCE(p.proacl, acldefault('f', p.proowner))) a WHERE a.grantee = 0)";
    Db::new().admin().sees(hindered, &[]);
}

/// PostgreSQL makes a partition's triggers with the rights of whoever makes the partition.
#[test]
fn an_owner_who_is_no_administrator_makes_partitions_of_a_table_with_all_features() {
    let db = Db::new();
    let (admin, owner) = (db.admin(), db.role("owner", ""));
    admin.run(&format!(
        "GRANT CREATE ON SCHEMA public TO {owner}; GRANT USAGE ON SCHEMA tenancy TO {owner};
         CREATE TABLE events (id int, tenant_id uuid, day int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
         ALTER TABLE events OWNER TO {owner};
         SELECT tenancy.protect_table('events'), tenancy.audit_table('events'), tenancy.enable_stamps('events')"
    ));
    admin.run("SELECT tenancy.enable_soft_delete('events')");
    let session = db.login(&owner);
    session.run("CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (1) TO (2)");
    session.run("CREATE TABLE events_2 (LIKE events INCLUDING ALL)");
    session.run("ALTER TABLE events ATTACH PARTITION events_2 FOR VALUES FROM (2) TO (3)");
    let red = db.tenant("red");
    db.enter(&owner, &red).changes(
        2,
        "INSERT INTO events (id, day, tenant_id) SELECT d, d, tenancy.current_tenant_id() FROM generate_series(1, 2) d",
    );
    admin.sees("SELECT count(*), count(created_at) FROM events", &["2|2"]);
    admin.sees("SELECT count(*) FROM tenancy.audit_log", &["2"]);
}

#[test]
fn everything_says_what_it_is_for() {
    let undocumented = "
        WITH members AS (
            SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
             WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'pg_tenancy')
        SELECT pg_describe_object(m.classid, m.objid, 0) FROM members m
         WHERE obj_description(m.objid, m.classid::regclass::name) IS NULL
           AND m.objid NOT IN (SELECT seqrelid FROM pg_sequence)
           AND m.objid NOT IN (SELECT t.typarray FROM pg_type t)
           AND m.objid NOT IN (SELECT t.oid FROM pg_type t WHERE t.typrelid <> 0)
         ORDER BY 1";
    Db::new().admin().sees(undocumented, &[]);
}

#[test]
fn no_table_of_ours_is_forgotten_by_a_dump() {
    // A partitioned table has no rows of its own.
    let forgotten = "
        SELECT c.oid::regclass FROM pg_class c
         WHERE c.relnamespace IN ('tenancy'::regnamespace, 'tenancy_internal'::regnamespace) AND c.relkind IN ('r', 'S')
           AND c.oid <> ALL (SELECT unnest(extconfig) FROM pg_extension WHERE extname = 'pg_tenancy')
         ORDER BY c.oid::regclass::text";
    // Notes of a run of maintenance end with it. The rights come with the extension. A copy is another place. Keys stay where
    // they were added: a dump is read by more people than the server's superusers.
    let left_out =
        ["audit_copied", "audit_place", "rights", "signing_keys"].map(|name| format!("tenancy_internal.{name}"));
    let left_out = left_out.each_ref().map(String::as_str);
    Db::new().admin().sees(forgotten, &left_out);
}

#[test]
fn a_function_with_the_owners_rights_reads_no_path_of_its_callers() {
    let open = "
        SELECT p.oid::regprocedure FROM pg_proc p
         WHERE p.pronamespace IN ('tenancy'::regnamespace, 'tenancy_internal'::regnamespace) AND p.prosecdef
           AND NOT COALESCE('search_path=pg_catalog, pg_temp' = ANY (p.proconfig), false)";
    Db::new().admin().sees(open, &[]);
}

#[test]
fn null_never_switches_a_guard_off() {
    let silent = "
        SELECT p.oid::regprocedure FROM pg_proc p
         WHERE p.pronamespace = 'tenancy'::regnamespace AND p.proisstrict AND p.pronargs > 0";
    Db::new().admin().sees(silent, &[]);
}

#[test]
fn what_policies_call_is_an_index_condition_in_parallel_plans_too() {
    let hindrances = "
        SELECT DISTINCT p.oid::regprocedure FROM pg_proc p
         WHERE (p.pronamespace, p.proname) IN (
                   ('tenancy'::regnamespace, 'current_tenant_id'), ('tenancy'::regnamespace, 'current_tenant_number'),
                   ('tenancy'::regnamespace, 'current_tenant_code'))
           AND NOT (p.proleakproof AND p.provolatile = 's' AND p.proparallel = 's' AND NOT p.prosecdef AND p.proconfig IS NULL)";
    Db::new().admin().sees(hindrances, &[]);
}

#[test]
fn the_context_setting_cannot_be_reached_through_pg_settings() {
    let admin = Db::new().admin();
    admin.run("LOAD '$libdir/pg_tenancy'");
    admin.sees("SELECT name FROM pg_settings WHERE name = 'app.current_tenant_id'", &[]);
    admin.sees("SHOW app.current_tenant_id", &[""]);
}

#[test]
fn our_prefix_is_ours_and_app_is_everybodys() {
    let admin = Db::new().admin();
    admin.run("LOAD '$libdir/pg_tenancy'");
    admin.refused("42602", "SET tenancy.no_such_setting = 'x'");
    admin.run("SET app.something_else = 'x'");
}

#[test]
fn only_a_superuser_changes_our_settings() {
    let db = Db::new();
    let app = db.login(&db.application("app"));
    app.sees("SELECT tenancy.has_tenant()", &["f"]);
    app.refused("42501", "SET tenancy.context_lifetime = session");
    app.refused("42501", "SET tenancy.missing_context = empty");
}

#[test]
fn what_an_ordinary_role_set_before_the_library_came_does_not_count() {
    let db = Db::new();
    let (red, _blue) = db.two_tenants_sharing("orders");
    red.run("INSERT INTO orders (item) VALUES ('secret')");
    let app = db.application("eager");
    db.admin().run(&format!("GRANT SELECT ON orders TO {app}"));
    let settings = ["missing_context = empty", "context_lifetime = session"];
    for setting in settings {
        // Any name with a dot may be set while nobody has defined it.
        let session = db.login(&app);
        session.run(&format!("SET tenancy.{setting}; SET app.current_tenant_id = 'red'"));
        session.refused("55000", "SELECT item FROM orders");
        session.refused("55000", "SELECT item FROM orders");
    }
    for setting in settings {
        let options = format!("-c tenancy.{}", setting.replace(' ', ""));
        let session = db.try_login(&app, |config| {
            config.options(&options);
        });
        let session = session.unwrap_or_else(|error| panic!("{error}"));
        session.run("SET app.current_tenant_id = 'red'");
        session.refused("42501", "SELECT item FROM orders");
    }
}

#[test]
fn the_extension_leaves_nothing_behind_and_can_come_again() {
    let db = Db::new();
    let app = db.application("app");
    db.tenant("red");
    let open = db.login(&app);
    open.run("BEGIN; SELECT tenancy.set_tenant('red'), tenancy.current_tenant_id(); COMMIT");
    let admin = db.admin();
    admin.run("DROP EXTENSION pg_tenancy");
    admin.sees(
        "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'tenancy%'
         UNION ALL SELECT evtname FROM pg_event_trigger
         UNION ALL SELECT proname FROM pg_proc WHERE probin LIKE '%pg_tenancy%'",
        &[],
    );
    // A session that was open all the while finds the new registry, not what it remembers of the old one.
    admin.run("CREATE EXTENSION pg_tenancy");
    admin.query("SELECT tenancy.grant_usage($1::text::regrole)", &[&app.to_string()]);
    open.refused("42704", "SELECT tenancy.set_tenant('red')");
    let red = db.tenant("red");
    open.run("BEGIN; SELECT tenancy.set_tenant('red')");
    open.sees("SELECT tenancy.current_tenant_id()", &[&red.id.to_string()]);
}

#[test]
fn a_schema_that_somebody_made_before_is_not_taken_over() {
    let admin = Db::bare().admin();
    for schema in ["tenancy", "tenancy_internal"] {
        admin.run(&format!("CREATE SCHEMA {schema}"));
        admin.refused("42P06", "CREATE EXTENSION pg_tenancy");
        admin.run(&format!("DROP SCHEMA {schema}"));
    }
    admin.run("CREATE EXTENSION pg_tenancy");
}

#[test]
fn an_ordinary_role_does_not_install_it() {
    let db = Db::bare();
    let role = db.role("developer", "CREATEDB CREATEROLE");
    db.admin().run(&format!("GRANT ALL ON DATABASE \"{}\" TO {role}", db.name()));
    db.login(&role).refused("42501", "CREATE EXTENSION pg_tenancy");
}

/// Compares with a file of expectations beside this one, or makes it.
fn compare(name: &str, now: &str) {
    let file = root().join("pgrx-tests/tests").join(name);
    if std::env::var_os(ACCEPT).is_some() {
        fs::write(&file, now).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        return;
    }
    let expected = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        now == expected,
        "what is there is not what {} says (- expected, + found):\n{}\n\
         if this is meant: {ACCEPT}=1 cargo xtask test --kind client surface, then read git diff before you commit",
        file.display(),
        difference(&expected, now)
    );
}

/// The lines that only one of the texts has, each under the heading it belongs to.
fn difference(expected: &str, now: &str) -> String {
    let (expected, now) = (with_headings(expected), with_headings(now));
    let only = |sign: char, these: &[String], those: &[String]| {
        let mut those: Vec<&String> = those.iter().collect();
        let mut lines = String::new();
        for line in these {
            match those.iter().position(|other| *other == line) {
                Some(at) => drop(those.swap_remove(at)),
                None => lines.push_str(&format!("{sign} {line}\n")),
            }
        }
        lines
    };
    only('-', &expected, &now) + &only('+', &now, &expected)
}

fn with_headings(text: &str) -> Vec<String> {
    let mut heading = "";
    text.lines()
        .map(|line| {
            if line.starts_with(' ') {
                format!("{heading}: {}", line.trim())
            } else {
                heading = line;
                line.to_owned()
            }
        })
        .collect()
}

#[test]
fn a_difference_names_the_object() {
    let (before, after) = ("f()\n    strict\ng()\n    strict\n", "f()\n    strict\ng()\n    stable\n");
    assert_eq!(difference(before, after), "- g(): strict\n+ g(): stable\n");
    assert_eq!(difference(before, before), "");
}
