//! THREATS (b): roles, rights and commands that row security forgets.

use crate::stage::{Attacker, CANARY, MINE, Stage, stories};
use pg_tenancy_tests::{NASTY_NAMES, quote_ident, quote_literal};

stories![
    b01_b02_the_owner_is_bound_like_anybody,
    b05_b06_a_member_of_the_owner_is_bound,
    b09_session_authorization_is_not_for_applications,
    b10_b12_definer_functions_and_views_of_the_owner_are_bound,
    b16_b17_row_security_off_raises_rather_than_shows,
    b18_truncate_is_refused_to_whom_row_security_binds,
    b20_reading_all_data_does_not_lift_row_security,
    b22_b23_copy_follows_the_policy,
    b25_an_application_changes_nothing_of_the_protection,
    b25_names_of_ones_own_do_not_reach_into_the_policy,
    b25_an_administrators_operators_are_never_run_by_the_extensions_owner,
    b27_a_second_role_without_a_tenant_sees_nothing,
    f01_a_plan_made_for_one_role_is_not_run_for_another,
    a_tenant_sees_only_itself_in_the_registry,
    nobody_tampers_with_the_registry_by_hand,
    grant_usage_refuses_roles_that_can_get_past_row_security_and_says_how,
    grant_usage_takes_roles_of_any_name_and_gives_no_more_than_needed,
];

fn b01_b02_the_owner_is_bound_like_anybody(stage: &Stage) {
    stage.db.admin().run(&format!("ALTER TABLE naive OWNER TO {}", stage.owner));
    let owner = stage.db.login(&stage.owner);
    owner.sees("SELECT item FROM naive ORDER BY id", &[MINE, CANARY]);

    owner.refused("55000", "SELECT item FROM letters");
    owner.begin_as("red");
    owner.sees_only_red();
    owner.changes(0, "UPDATE letters SET item = 'taken' WHERE id = 2");
    owner.changes(0, "DELETE FROM letters WHERE id = 2");
    owner.refused_inside("42501", &format!("INSERT INTO letters VALUES (3, '{}', 'forged')", stage.blue.id));
}

fn b05_b06_a_member_of_the_owner_is_bound(stage: &Stage) {
    stage.db.admin().run(&format!("ALTER TABLE naive OWNER TO {0}; GRANT {0} TO {1}", stage.owner, stage.app));
    let session = stage.login();
    session.sees("SELECT item FROM naive ORDER BY id", &[MINE, CANARY]);
    session.refused("55000", "SELECT item FROM letters");
    session.begin_as("red");
    session.sees_only_red();
    session.run(&format!("SET LOCAL ROLE {}", stage.owner));
    session.sees_only_red();
    session.refused_inside("42501", "SELECT tenancy.set_tenant('blue')");
    session.run("RESET ROLE");
    session.sees_only_red();
}

fn b09_session_authorization_is_not_for_applications(stage: &Stage) {
    let session = stage.as_red();
    session.refused_inside("42501", &format!("SET SESSION AUTHORIZATION {}", stage.owner));
    session.refused_inside("42501", &format!("SET ROLE {}", stage.owner));
    session.sees_only_red();
}

fn b10_b12_definer_functions_and_views_of_the_owner_are_bound(stage: &Stage) {
    let admin = stage.db.admin();
    admin.run(&format!("ALTER TABLE naive OWNER TO {0}; GRANT CREATE ON SCHEMA public TO {0}", stage.owner));
    let owner = stage.db.login(&stage.owner);
    for table in ["letters", "naive"] {
        owner.run(&format!(
            "CREATE FUNCTION search_{table}() RETURNS SETOF text LANGUAGE sql SECURITY DEFINER
                 AS 'SELECT item FROM {table} ORDER BY id';
             CREATE FUNCTION slow_{table}() RETURNS SETOF text LANGUAGE plpgsql SECURITY DEFINER
                 AS 'BEGIN RETURN QUERY SELECT item FROM {table} ORDER BY id; END';
             CREATE VIEW all_{table} AS SELECT id, item FROM {table};
             GRANT SELECT, UPDATE ON all_{table} TO {}",
            stage.app
        ));
    }
    let session = stage.login();
    for naive in ["SELECT search_naive()", "SELECT slow_naive()", "SELECT item FROM all_naive ORDER BY id"] {
        session.sees(naive, &[MINE, CANARY]);
    }
    session.begin_as("red");
    for letters in ["SELECT search_letters()", "SELECT slow_letters()", "SELECT item FROM all_letters ORDER BY id"] {
        session.sees(letters, &[MINE]);
    }
    session.changes(0, "UPDATE all_letters SET item = 'taken' WHERE id = 2");
    session.run("COMMIT");
    session.refused("55000", "SELECT search_letters()");
    session.refused("55000", "SELECT item FROM all_letters");
}

fn b16_b17_row_security_off_raises_rather_than_shows(stage: &Stage) {
    for role in [&stage.app, &stage.owner] {
        let session = stage.db.login(role);
        session.begin_as("red");
        session.run("SET LOCAL row_security = off");
        session.refused_inside("42501", "SELECT item FROM letters");
        session.refused_inside("42501", "COPY letters TO STDOUT");
        session.refused_inside("42501", "TRUNCATE letters");
    }
}

fn b18_truncate_is_refused_to_whom_row_security_binds(stage: &Stage) {
    let admin = stage.db.admin();
    admin.run(&format!(
        "CREATE TABLE folders (id int PRIMARY KEY);
         CREATE TABLE pages (id int, folder int REFERENCES folders, tenant_id uuid NOT NULL);
         ALTER TABLE folders OWNER TO {0};
         ALTER TABLE pages OWNER TO {0};
         SELECT tenancy.protect_table('pages');
         GRANT TRUNCATE ON letters, naive, folders, pages TO {1}",
        stage.owner, stage.app
    ));
    let session = stage.as_red();
    session.run("TRUNCATE naive");
    for truncate in ["TRUNCATE letters", "TRUNCATE naive, letters", "TRUNCATE folders CASCADE", "TRUNCATE ONLY letters"]
    {
        let refusal = session.refused_inside("42501", truncate);
        assert!(refusal.hint().is_some(), "{refusal:?}");
    }
    stage.db.login(&stage.owner).refused("42501", "TRUNCATE letters");
    // Whom row security does not bind may: a superuser restoring data, for one.
    admin.run("TRUNCATE letters");
}

fn b20_reading_all_data_does_not_lift_row_security(stage: &Stage) {
    if stage.db.cluster().major() < 14 {
        return; // the role is new in 14
    }
    stage.db.admin().run(&format!("GRANT pg_read_all_data, pg_write_all_data TO {}", stage.app));
    let session = stage.login();
    session.refused("55000", "SELECT item FROM letters");
    session.begin_as("red");
    session.sees_only_red();
    session.changes(0, "DELETE FROM letters WHERE id = 2");
    session.refused_inside("42501", "TRUNCATE letters");
    // The registry shows a tenant only itself, to such a role too.
    session.sees("SELECT code FROM tenancy.tenants", &["red"]);
    session.refused_inside("42501", "INSERT INTO tenancy.tenants (code, name) VALUES ('green', 'green')");
    session.changes(0, "UPDATE tenancy.tenants SET status = 'active' WHERE code = 'blue'");
}

fn b22_b23_copy_follows_the_policy(stage: &Stage) {
    let session = stage.as_red();
    for copy in ["COPY letters (item) TO STDOUT", "COPY (SELECT item FROM letters) TO STDOUT"] {
        let mut out = String::new();
        std::io::Read::read_to_string(&mut session.client().copy_out(copy).expect("COPY out works"), &mut out)
            .expect("text");
        assert_eq!(out, format!("{MINE}\n"));
    }
    session.refused_inside("0A000", "COPY letters FROM STDIN");
    session.refused_inside("0A000", "COPY letters (id, item) FROM STDIN WITH (FREEZE)");
}

fn b25_an_application_changes_nothing_of_the_protection(stage: &Stage) {
    let session = stage.as_red();
    for change in [
        "ALTER TABLE letters DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE letters NO FORCE ROW LEVEL SECURITY",
        "DROP POLICY tenancy_isolation ON letters",
        "ALTER POLICY tenancy_isolation ON letters USING (true)",
        "CREATE POLICY all_rows ON letters USING (true)",
        "DROP TRIGGER tenancy_truncate_guard ON letters",
        "ALTER TABLE letters DISABLE TRIGGER tenancy_truncate_guard",
        "ALTER TABLE letters OWNER TO CURRENT_USER",
        "ALTER TABLE letters ALTER COLUMN tenant_id DROP DEFAULT",
        "ALTER TABLE letters RENAME TO other",
        "CREATE INDEX ON letters (item)",
        "CREATE RULE all_rows AS ON UPDATE TO letters DO ALSO NOTHING",
        "CREATE TRIGGER tap AFTER INSERT ON letters EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "CREATE OR REPLACE FUNCTION tenancy.current_tenant_id() RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid'",
        "ALTER FUNCTION tenancy.current_tenant_id() RENAME TO other",
        "DROP FUNCTION tenancy.current_tenant_id()",
        "CREATE FUNCTION tenancy.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE FUNCTION tenancy_internal.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE OR REPLACE FUNCTION tenancy_internal.open_rows() RETURNS boolean LANGUAGE sql AS 'SELECT true'",
        "DROP EXTENSION pg_tenancy CASCADE",
        "ALTER EXTENSION pg_tenancy DROP FUNCTION tenancy.current_tenant_id()",
        "ALTER EVENT TRIGGER tenancy_close_before_drop DISABLE",
        "SELECT tenancy.unprotect_table('letters')",
        "SELECT tenancy.protect_table('naive')",
        "SELECT tenancy.grant_admin(current_user::regrole)",
        "SELECT tenancy_internal.writing_tenant_id()",
        "SELECT * FROM tenancy_internal.protected_tables",
        "SELECT * FROM tenancy.protected_tables",
        "INSERT INTO tenancy.plans (name) VALUES ('mine')",
        "INSERT INTO tenancy.tenants (code, name) VALUES ('green', 'green')",
        "UPDATE tenancy.tenants SET status = 'active'",
        "DELETE FROM tenancy.tenants",
        "TRUNCATE tenancy.tenants",
        "SELECT nextval('tenancy.tenants_number_seq')",
    ] {
        session.refused_inside("42501", change);
    }
    session.sees_only_red();
}

fn b25_names_of_ones_own_do_not_reach_into_the_policy(stage: &Stage) {
    let admin = stage.db.admin();
    // An operator that says yes to everything, and fits a varchar column better than the system's.
    stage.login().run(
        "CREATE FUNCTION yes(varchar, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
         CREATE OPERATOR public.= (LEFTARG = varchar, RIGHTARG = text, FUNCTION = yes);
         CREATE FUNCTION yes(uuid, uuid) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
         CREATE OPERATOR public.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = yes)",
    );
    admin.run(&format!(
        "SET search_path = public, pg_catalog;
         CREATE TABLE notes (tenant_code varchar(20) NOT NULL, item text);
         ALTER TABLE notes OWNER TO {};
         INSERT INTO notes VALUES ('red', 'mine'), ('blue', 'secret');
         SELECT tenancy.protect_table('notes', 'tenant_code');
         GRANT SELECT ON notes TO {}",
        stage.owner, stage.app
    ));
    let session = stage.login();
    session.run("SET search_path = public, pg_catalog");
    session.begin_as("red");
    session.sees("SELECT item FROM notes", &["mine"]);
    session.sees_only_red();
}

/// What the functions do with the rights of the extension's owner must not meet operators that an administrator, who is
/// no superuser, put before the system's.
fn b25_an_administrators_operators_are_never_run_by_the_extensions_owner(stage: &Stage) {
    let superuser = stage.db.admin();
    let role = stage.db.role("climber", "");
    superuser.run(&format!(
        "SELECT tenancy.grant_admin('{role}');
         GRANT CREATE ON DATABASE {} TO {role}; GRANT CREATE ON SCHEMA public TO {role}",
        stage.database()
    ));
    let climber = stage.db.login(&role);
    climber.run(
        "CREATE SCHEMA evil;
         DO $$
         DECLARE o record; n int := 0;
         BEGIN
             FOR o IN SELECT oprname, oprleft::regtype l, oprright::regtype r FROM pg_operator
                       WHERE oprnamespace = 'pg_catalog'::regnamespace AND oprresult = 'bool'::regtype
                         AND oprname IN ('=', '<>', '<', '>', '<=', '>=') AND oprleft <> 0
                         AND NOT EXISTS (SELECT FROM pg_type t WHERE t.oid IN (oprleft, oprright) AND t.typtype = 'p')
             LOOP
                 n := n + 1;
                 EXECUTE format(
                     'CREATE FUNCTION evil.f%1$s(a %2$s, b %3$s) RETURNS boolean LANGUAGE plpgsql AS $f$ BEGIN
                          IF current_user OPERATOR(pg_catalog.<>) session_user THEN RAISE ''climbed to %%'', current_user; END IF;
                          RETURN a OPERATOR(pg_catalog.%4$s) b; END $f$;
                      CREATE OPERATOR evil.%4$s (LEFTARG = %2$s, RIGHTARG = %3$s, FUNCTION = evil.f%1$s)',
                     n, o.l, o.r, o.oprname);
             END LOOP;
         END $$;
         CREATE FUNCTION evil.definer() RETURNS boolean LANGUAGE sql SECURITY DEFINER SET search_path = evil, pg_catalog
             AS 'SELECT 1 = 1'",
    );
    // The trap works: run by another role it springs.
    superuser.run("GRANT USAGE ON SCHEMA evil TO PUBLIC");
    assert!(superuser.refused("P0001", "SELECT evil.definer()").message().contains("climbed"));

    climber.run("SET search_path = evil, pg_catalog, public");
    climber.run(
        "CREATE TABLE public.e1 (id int PRIMARY KEY, tenant_id uuid);
         CREATE TABLE public.e2 (id int, tenant_id uuid, e int REFERENCES public.e1);
         CREATE TABLE public.e3 (id int, tenant_code varchar(10)); INSERT INTO public.e3 VALUES (1, 'red')",
    );
    for call in [
        "SELECT * FROM tenancy.plan_protection('public.e1')",
        "SELECT tenancy.protect_table('public.e1')",
        "SELECT tenancy.protect_table('public.e2', reference => 'foreign_key')",
        "SELECT tenancy.protect_table('public.e3', 'tenant_code', assign_existing_rows_to => 'red')",
        "SELECT tenancy.unprotect_table('public.e2')",
        "CREATE SCHEMA mine; CREATE TABLE mine.e4 (tenant_id uuid); SELECT * FROM tenancy.protect_schema('mine')",
        "SELECT tenancy.create_tenant('g', number => 77); SELECT tenancy.create_tenant('g', if_not_exists => true)",
        "SELECT tenancy.update_tenant('g', 'x'); SELECT tenancy.set_plan('g', 'standard'); SELECT tenancy.suspend_tenant('g')",
        "SELECT tenancy.resume_tenant('g'); SELECT tenancy.set_read_only('g'); SELECT tenancy.delete_tenant('g')",
        "SELECT tenancy.undelete_tenant('g'); SELECT tenancy.find_tenant('g'); SELECT tenancy.switch_tenant('g')",
        "INSERT INTO tenancy.plans (name) VALUES ('p'); UPDATE tenancy.plans SET limits = '{\"a\": 1}'; DELETE FROM tenancy.plans",
        "SELECT * FROM tenancy.verify_context(); SELECT * FROM tenancy.tenants; SELECT * FROM tenancy.protected_tables",
        "ALTER TABLE public.e1 RENAME COLUMN tenant_id TO t; SELECT tenancy.protect_table('public.e1', 't'); DROP TABLE public.e3",
    ] {
        if let Err(error) = climber.try_run(call) {
            let text = format!("{error:?}");
            assert!(!text.contains("climbed") && text.contains("SqlState(E23"), "{call}: {text}");
        }
    }
    let app = &stage.app;
    climber.run(&format!("SELECT tenancy.grant_usage('{app}'); SELECT tenancy.revoke_usage('{app}')"));
}

fn b27_a_second_role_without_a_tenant_sees_nothing(stage: &Stage) {
    // Nothing was granted to it but the table.
    let ops = stage.db.role("ops", "");
    stage.db.admin().run(&format!("GRANT SELECT ON letters TO {ops}"));
    let session = stage.db.login(&ops);
    session.refused("55000", "SELECT item FROM letters");
    session.run("BEGIN; SET LOCAL app.current_tenant_id = 'red'");
    session.sees_only_red();
    // The functions of the schema need usage, which grant_usage gives.
    session.refused("42501", "SELECT tenancy.set_tenant('red')");
}

/// CVE-2016-2193, CVE-2023-2455, CVE-2024-10976: plans that kept the row security of another role.
fn f01_a_plan_made_for_one_role_is_not_run_for_another(stage: &Stage) {
    let session = stage.db.admin();
    session.run(
        "SET plan_cache_mode = force_generic_plan;
         CREATE FUNCTION inner_read() RETURNS SETOF text LANGUAGE sql STABLE AS 'SELECT item FROM letters ORDER BY id';
         CREATE FUNCTION slow_read() RETURNS SETOF text LANGUAGE plpgsql STABLE
             AS 'BEGIN RETURN QUERY SELECT item FROM letters ORDER BY id; END';
         PREPARE direct AS SELECT item FROM letters ORDER BY id;
         PREPARE inlined AS SELECT * FROM inner_read();
         PREPARE within AS WITH w AS (SELECT * FROM inner_read()) SELECT * FROM w WHERE EXISTS (SELECT FROM letters);
         PREPARE slow AS SELECT slow_read()",
    );
    for _ in 0..2 {
        for plan in ["direct", "inlined", "within", "slow"] {
            session.sees(&format!("EXECUTE {plan}"), &[MINE, CANARY]);
            session.run(&format!("SET ROLE {}; BEGIN; SELECT tenancy.set_tenant('red')", stage.app));
            session.sees(&format!("EXECUTE {plan}"), &[MINE]);
            session.run("COMMIT");
            session.refused("55000", &format!("EXECUTE {plan}"));
            session.run("RESET ROLE");
        }
    }
}

fn a_tenant_sees_only_itself_in_the_registry(stage: &Stage) {
    let session = stage.as_red();
    session.sees("SELECT code, name FROM tenancy.tenants", &["red|red"]);
    session.sees("SELECT count(*) FROM tenancy.tenants WHERE code = 'blue' OR id IS NOT NULL", &["1"]);
    session.run(
        "CREATE FUNCTION pg_temp.tell(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001
             AS $$ BEGIN RAISE NOTICE 'told: %', $1; RETURN true; END $$",
    );
    session.run("SELECT FROM tenancy.tenants WHERE pg_temp.tell(code)");
    let told: Vec<String> = session.notices().iter().map(|notice| notice.message().to_owned()).collect();
    assert_eq!(told, ["told: red"]);
    session.run("COMMIT");
    session.refused("55000", "SELECT code FROM tenancy.tenants");
}

fn nobody_tampers_with_the_registry_by_hand(stage: &Stage) {
    let superuser = stage.db.admin();
    for (tampering, says) in [
        ("UPDATE tenancy.tenants SET id = gen_random_uuid() WHERE code = 'red'", "keys"),
        ("UPDATE tenancy.tenants SET number = 4711 WHERE code = 'red'", "keys"),
        ("UPDATE tenancy.tenants SET code = 'green' WHERE code = 'red'", "keys"),
        ("DELETE FROM tenancy.tenants WHERE code = 'red'", "removed"),
        ("TRUNCATE tenancy.tenants", "truncated"),
    ] {
        let refusal = superuser.refused("42501", tampering);
        assert!(refusal.message().contains(says) && refusal.hint().is_some(), "{refusal:?}");
    }
    superuser.refused("23514", "INSERT INTO tenancy.tenants (code, name) VALUES ('42', 'looks like a number')");
    superuser.refused("23514", "UPDATE tenancy.tenants SET status = 'closed'");
    // What may be changed by hand reaches the other sessions as the functions' changes do.
    let session = stage.as_red();
    session.run("COMMIT");
    superuser.run("UPDATE tenancy.tenants SET status = 'suspended' WHERE code = 'red'");
    session.refused("55000", "SELECT tenancy.set_tenant('red')");
}

fn grant_usage_refuses_roles_that_can_get_past_row_security_and_says_how(stage: &Stage) {
    let (db, admin) = (&stage.db, stage.db.admin());
    let refused = |role: &pg_tenancy_tests::Role, says: &[&str]| {
        let refusal = admin
            .refused("42501", &format!("SELECT tenancy.grant_usage({}::regrole)", quote_literal(&role.to_string())));
        let detail = refusal.detail().unwrap_or_default();
        for word in says {
            assert!(detail.contains(word), "\"{word}\" is missing in: {detail}");
        }
    };
    for (attribute, says) in
        [("SUPERUSER", "is a superuser"), ("BYPASSRLS", "BYPASSRLS"), ("REPLICATION", "REPLICATION")]
    {
        let role = db.role("strong", attribute);
        if attribute == "SUPERUSER" {
            admin.refused("42501", &format!("SELECT tenancy.grant_usage('{role}')"));
        } else {
            refused(&role, &[says]);
        }
        // One step and two steps away, whether it is inherited or needs SET ROLE.
        for inherit in ["INHERIT", "NOINHERIT"] {
            let (near, far) = (db.role("near", inherit), db.role("far", inherit));
            admin.run(&format!("GRANT {role} TO {near}; GRANT {near} TO {far}"));
            refused(&near, &[says, &format!("{} -> {}", near.name(), role.name())]);
            refused(&far, &[says, &format!("{} -> {} -> {}", far.name(), near.name(), role.name())]);
        }
    }
    if db.cluster().major() < 16 {
        refused(&db.role("creator", "CREATEROLE"), &["CREATEROLE"]);
    }
    let reader = db.role("reader", "");
    admin.run(&format!("GRANT pg_read_server_files TO {reader}"));
    refused(&reader, &["pg_read_server_files"]);
    db.login(&reader).refused("42501", "SELECT tenancy.set_tenant('red')");
    refused(&stage.owner, &["owns", "letters"]);
    let deputy = db.role("deputy", "");
    admin.run(&format!("GRANT {} TO {deputy}", stage.owner));
    refused(&deputy, &["owns", "letters", "->"]);
}

fn grant_usage_takes_roles_of_any_name_and_gives_no_more_than_needed(stage: &Stage) {
    let admin = stage.db.admin();
    for name in NASTY_NAMES {
        let role = stage.db.application(name);
        admin.run(&format!("GRANT SELECT ON letters TO {role}"));
        let session = stage.db.login(&role);
        session.begin_as("red");
        session.sees_only_red();
        session.refused_inside("42501", "SELECT tenancy.create_tenant('x')");
        session.refused_inside("42501", "SELECT tenancy.switch_tenant('blue')");
        session.run("COMMIT");
        admin.run(&format!("SELECT tenancy.revoke_usage({}::regrole)", quote_literal(&quote_ident(role.name()))));
        session.refused("42501", "SELECT tenancy.set_tenant('red')");
    }
    admin.refused("42704", "SELECT tenancy.grant_usage(0::oid::regrole)");
    admin.refused("22023", "SELECT tenancy.grant_usage(NULL)");
}
