//! Ways past the fence that THREATS.md does not list: found by looking for them in the fence itself.

use crate::stage::{Attacker, CANARY, MINE, Stage, stories};

stories![
    the_planner_shows_no_common_values_before_the_fence_looks,
    a_second_parent_is_no_way_around_the_first,
    code_inside_of_a_foreign_keys_query_sees_no_more_than_outside,
    a_query_first_met_inside_of_a_foreign_keys_query_is_filtered_outside,
    a_subtransaction_does_not_make_the_fence_forget_an_explain,
    shared_functions_are_found_under_other_names,
    rules_and_instead_of_triggers_borrow_no_rights,
    names_of_ones_own_in_pg_temp_are_not_taken_for_ours,
    a_role_cannot_borrow_an_exemption,
    a_plan_made_before_the_protection_is_not_run_after_it,
    shadows_of_a_fenced_table_are_fenced,
];

/// Tells what it is given, with an estimator that the planner feeds common values to.
const TELLING_OPERATOR: &str = "
    CREATE FUNCTION pg_temp.less(text, text) RETURNS boolean LANGUAGE plpgsql
        AS $$ BEGIN RAISE NOTICE 'told: %', $1; RETURN true; END $$;
    CREATE OPERATOR pg_temp.<<< (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_temp.less, RESTRICT = scalarltsel)";

fn the_planner_shows_no_common_values_before_the_fence_looks(stage: &Stage) {
    stage.choose("tenancy.explain_guard = off");
    let reporter = stage.db.role("reporter", "BYPASSRLS");
    stage.db.admin().run(&format!(
        "INSERT INTO letters SELECT n, '{}', 'blue''s common value' FROM generate_series(100, 600) n;
         CREATE INDEX ON letters (lower(item));
         ANALYZE letters;
         CREATE VIEW all_letters AS SELECT item FROM letters;
         CREATE MATERIALIZED VIEW snapshot AS SELECT item FROM letters;
         ANALYZE snapshot;
         GRANT SELECT ON letters TO {reporter};
         GRANT SELECT ON all_letters, snapshot TO {}",
        stage.blue.id, stage.app
    ));
    let queries = |relation: &str| {
        ["item", "lower(item)"].map(|value| format!("SELECT FROM {relation} WHERE {value} OPERATOR(pg_temp.<<<) 'x'"))
    };
    let attempts = [
        (&reporter, queries("letters").to_vec()),
        (&stage.app, [queries("all_letters"), queries("snapshot")].concat()),
    ];
    for (role, queries) in attempts {
        let session = stage.db.login(role);
        session.run(TELLING_OPERATOR);
        for query in queries {
            for sql in [format!("EXPLAIN {query}"), query.clone(), format!("PREPARE p AS {query}; EXECUTE p")] {
                session.run("BEGIN; SET LOCAL app.current_tenant_id = 'red'");
                let outcome = session.try_run(&sql);
                assert_eq!(outcome.is_err(), stage.setting.has_fence(), "{sql}: {outcome:?}");
                session.run("ROLLBACK; DEALLOCATE ALL");
                let told: Vec<String> = session.notices().iter().map(|notice| notice.message().to_owned()).collect();
                let leaks = told.iter().any(|told| told.contains("common value"));
                assert!(!leaks || !stage.setting.has_fence(), "{sql}: {told:?}");
            }
        }
    }
}

fn a_second_parent_is_no_way_around_the_first(stage: &Stage) {
    let admin = stage.db.admin();
    admin.run(&format!(
        "GRANT CREATE ON SCHEMA public TO {owner};
         CREATE TABLE exports (id int, tenant_id uuid NOT NULL, item text NOT NULL);
         ALTER TABLE exports OWNER TO {owner}",
        owner = stage.owner
    ));
    let owner = stage.login_as(&stage.owner, "red");
    owner.run("COMMIT; PREPARE before AS SELECT item FROM exports ORDER BY id");
    // The guard refuses it to the owner; what a superuser does is held by the fence.
    admin.run("ALTER TABLE letters INHERIT exports");
    for sql in [
        "EXECUTE before",
        "SELECT item FROM exports ORDER BY id",
        "SELECT e.item FROM exports e, (SELECT count(*) FROM letters) l ORDER BY id",
        "SELECT e.item FROM exports e LEFT JOIN letters l ON false ORDER BY e.id",
        "WITH l AS (SELECT FROM letters) SELECT item FROM exports ORDER BY id",
        "UPDATE exports SET item = item WHERE EXISTS (SELECT FROM letters) RETURNING item",
    ] {
        owner.begin_as("red");
        let seen = owner.try_rows(sql);
        owner.run("ROLLBACK");
        if stage.setting.has_fence() {
            assert!(seen.is_err(), "{sql}: {seen:?}");
        } else if sql.contains("ORDER") {
            assert_eq!(seen.expect("nothing stops it"), [MINE, CANARY], "{sql}");
        }
    }
    // By its own name it is red's.
    owner.begin_as("red");
    owner.sees_only_red();
}

fn code_inside_of_a_foreign_keys_query_sees_no_more_than_outside(stage: &Stage) {
    stage.db.admin().run(&format!(
        "CREATE TABLE boxes (id int PRIMARY KEY, tenant_id uuid NOT NULL);
         CREATE TABLE things (id int, tenant_id uuid NOT NULL, box int REFERENCES boxes ON DELETE CASCADE);
         CREATE TABLE counters (tenant_id uuid NOT NULL, things int);
         ALTER TABLE boxes OWNER TO {owner}; ALTER TABLE things OWNER TO {owner}; ALTER TABLE counters OWNER TO {owner};
         SELECT tenancy.protect_table('boxes'); SELECT tenancy.protect_table('things');
         SELECT tenancy.protect_table('counters');
         GRANT CREATE ON SCHEMA public TO {owner}",
        owner = stage.owner
    ));
    for body in [
        "FOR r IN SELECT item FROM letters LOOP RAISE NOTICE 'told: %', r.item; END LOOP;",
        "EXECUTE 'CREATE TEMP TABLE loot ON COMMIT DROP AS SELECT item FROM letters'; SELECT * INTO r FROM loot OFFSET 1; RAISE NOTICE 'told: %', r.item;",
        "BEGIN PERFORM 1 / 0; EXCEPTION WHEN OTHERS THEN NULL; END; SELECT string_agg(item, ',') AS item INTO r FROM letters; RAISE NOTICE 'told: %', r.item;",
        "OPEN c FOR SELECT string_agg(item, ',') AS item FROM letters; FETCH c INTO r; RAISE NOTICE 'told: %', r.item;",
    ] {
        let owner = stage.db.login(&stage.owner);
        owner.run(&format!(
            "CREATE OR REPLACE FUNCTION tap() RETURNS trigger LANGUAGE plpgsql AS
                 $$ DECLARE r record; c refcursor; BEGIN {body} RETURN OLD; END $$;
             CREATE OR REPLACE TRIGGER tap BEFORE DELETE ON things FOR EACH ROW EXECUTE FUNCTION tap()"
        ));
        owner.begin_as("red");
        owner.run("INSERT INTO boxes VALUES (71); INSERT INTO things (id, box) VALUES (71, 71)");
        owner.run("SAVEPOINT s");
        let outcome = owner.try_run("DELETE FROM boxes WHERE id = 71");
        let leaks = owner.notices().iter().any(|told| told.message().contains(CANARY));
        assert_eq!((outcome.is_err(), leaks), (stage.setting.has_fence(), !stage.setting.has_fence()), "{body}");
        // Outside of the key's query it sees its tenant's rows; that is what a trigger is for.
        owner.run("ROLLBACK TO s; DELETE FROM things");
        let told = owner.notices();
        let leaks = told.iter().any(|told| told.message().contains(CANARY));
        assert!(!told.is_empty(), "{body}");
        assert!(!leaks || !stage.setting.has_fence(), "{body}: {told:?}");
    }
    // A key's own work goes on, and what AFTER triggers do with it.
    let owner = stage.db.login(&stage.owner);
    owner.run(
        "DROP TRIGGER tap ON things;
         CREATE FUNCTION tally() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN UPDATE counters SET things = things - 1; RETURN NULL; END $$;
         CREATE TRIGGER tally AFTER DELETE ON things FOR EACH ROW EXECUTE FUNCTION tally()",
    );
    owner.begin_as("red");
    owner.run("INSERT INTO counters (things) VALUES (2); INSERT INTO boxes VALUES (72)");
    owner.run("INSERT INTO things (id, box) VALUES (72, 72), (73, 72); DELETE FROM boxes WHERE id = 72");
    owner.sees("SELECT things FROM counters", &["0"]);
}

/// PostgreSQL's plan cache keeps the tree that it made inside, where FORCE is lifted.
fn a_query_first_met_inside_of_a_foreign_keys_query_is_filtered_outside(stage: &Stage) {
    stage.db.admin().run(&format!(
        "CREATE TABLE boxes (id int PRIMARY KEY, tenant_id uuid NOT NULL);
         CREATE TABLE things (id int, tenant_id uuid NOT NULL, box int REFERENCES boxes ON DELETE CASCADE);
         ALTER TABLE boxes OWNER TO {owner}; ALTER TABLE things OWNER TO {owner};
         SELECT tenancy.protect_table('boxes'); SELECT tenancy.protect_table('things');
         GRANT CREATE ON SCHEMA public TO {owner}",
        owner = stage.owner
    ));
    let owner = stage.db.login(&stage.owner);
    owner.run(
        "CREATE VIEW over_letters AS SELECT item FROM letters;
         CREATE FUNCTION read_all() RETURNS text LANGUAGE plpgsql AS
             $$ BEGIN RETURN (SELECT string_agg(item, ',') FROM letters); END $$;
         CREATE FUNCTION tap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             EXECUTE 'PREPARE direct AS SELECT item FROM letters ORDER BY item DESC';
             EXECUTE 'PREPARE through_view AS SELECT item FROM over_letters ORDER BY item DESC';
             RETURN OLD; EXCEPTION WHEN OTHERS THEN RETURN OLD; END $$;
         CREATE FUNCTION call() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM read_all(); RETURN OLD; EXCEPTION WHEN OTHERS THEN RETURN OLD; END $$;
         CREATE TRIGGER tap BEFORE DELETE ON things FOR EACH ROW EXECUTE FUNCTION tap();
         CREATE TRIGGER call BEFORE DELETE ON things FOR EACH ROW EXECUTE FUNCTION call()",
    );
    owner.begin_as("red");
    owner.run("INSERT INTO boxes VALUES (71); INSERT INTO things (id, box) VALUES (71, 71); DELETE FROM boxes; COMMIT");
    owner.begin_as("red");
    for sql in ["SELECT read_all()", "EXECUTE direct", "EXECUTE through_view"] {
        owner.run("SAVEPOINT s");
        let seen = owner.try_rows(sql);
        owner.run("ROLLBACK TO s");
        let leaks = seen.as_ref().is_ok_and(|rows| rows.iter().any(|row| row.contains(CANARY)));
        // Where the plan cache keeps it, only the fence knows.
        assert!(!leaks || !stage.setting.has_fence(), "{sql}: {seen:?}");
    }
}

fn a_subtransaction_does_not_make_the_fence_forget_an_explain(stage: &Stage) {
    let session = stage.login();
    session.run(
        "CREATE FUNCTION pg_temp.slip() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
             $$ BEGIN BEGIN RAISE 'back'; EXCEPTION WHEN OTHERS THEN NULL; END; RETURN true; END $$",
    );
    session.begin_as("red");
    for explain in ["EXPLAIN", "EXPLAIN ANALYZE"] {
        let explain = format!("{explain} SELECT item FROM letters WHERE pg_temp.slip()");
        if stage.holds("D08") {
            session.refused_inside("42501", &explain);
        } else {
            session.run(&explain);
        }
    }
}

fn shared_functions_are_found_under_other_names(stage: &Stage) {
    if !stage.holds("D18") {
        return;
    }
    let session = stage.login();
    session.run(
        "CREATE OPERATOR public.@#@ (RIGHTARG = bigint, FUNCTION = pg_try_advisory_xact_lock);
         CREATE FUNCTION wrapped() RETURNS boolean LANGUAGE sql AS 'SELECT pg_try_advisory_xact_lock(42)';
         CREATE FUNCTION dynamic() RETURNS boolean LANGUAGE plpgsql AS
             $$ DECLARE b boolean; BEGIN EXECUTE 'SELECT pg_try_advisory_xact_lock(42)' INTO b; RETURN b; END $$;
         CREATE TABLE own (id int CHECK (pg_try_advisory_xact_lock(id)), size bigint DEFAULT pg_relation_size('letters'))",
    );
    session.begin_as("red");
    for sql in [
        "SELECT @#@ 42::bigint",
        "SELECT wrapped()",
        "SELECT dynamic()",
        "SELECT * FROM pg_try_advisory_xact_lock(42)",
        "SELECT 1 WHERE pg_try_advisory_xact_lock(42)",
        "SELECT 1 ORDER BY pg_try_advisory_xact_lock(42)",
        "INSERT INTO own VALUES (42, 1)",
        "INSERT INTO own (size) VALUES (DEFAULT)",
        "COPY (SELECT pg_try_advisory_xact_lock(42)) TO STDOUT",
        "DO $$ BEGIN ASSERT pg_try_advisory_xact_lock(42); END $$",
        "PREPARE p AS SELECT pg_try_advisory_xact_lock(42); EXECUTE p",
        "DECLARE c CURSOR FOR SELECT pg_try_advisory_xact_lock(42); FETCH c",
    ] {
        session.refused_inside("42501", sql);
    }
    session.sees_only_red();
}

fn rules_and_instead_of_triggers_borrow_no_rights(stage: &Stage) {
    stage.db.admin().run(&format!(
        "CREATE TABLE inbox (item text); GRANT INSERT ON inbox TO {app};
         CREATE TABLE outbox (item text); GRANT SELECT ON outbox TO {app};
         CREATE RULE copies AS ON INSERT TO inbox DO ALSO INSERT INTO outbox SELECT item FROM letters;
         CREATE VIEW letterbox AS SELECT item FROM letters;
         CREATE RULE takes AS ON INSERT TO letterbox DO INSTEAD UPDATE letters SET item = NEW.item;
         GRANT SELECT, INSERT ON letterbox TO {app}",
        app = stage.app
    ));
    let session = stage.as_red();
    for sql in ["INSERT INTO inbox VALUES ('x')", "INSERT INTO letterbox VALUES ('taken')"] {
        if stage.setting.has_fence() {
            session.refused_inside("42501", sql);
        } else {
            session.run(sql);
        }
    }
    if !stage.setting.has_fence() {
        session.sees("SELECT count(*) FROM outbox", &["2"]);
    }
}

fn names_of_ones_own_in_pg_temp_are_not_taken_for_ours(stage: &Stage) {
    // Temporary tables are refused to bound roles where hygiene is; functions and operators are not.
    stage.choose("tenancy.session_hygiene = off");
    let session = stage.login();
    session.run(
        "CREATE TEMP TABLE protected_tables (relation regclass); CREATE TEMP TABLE exempt_roles (role regrole);
         INSERT INTO exempt_roles VALUES (current_user::regrole);
         CREATE TEMP TABLE tenants (id uuid, code text); CREATE TEMP TABLE letters (item text);
         CREATE FUNCTION pg_temp.current_tenant_id() RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid';
         CREATE FUNCTION pg_temp.yes(uuid, uuid) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
         CREATE OPERATOR pg_temp.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = pg_temp.yes);
         CREATE FUNCTION yes(uuid, uuid) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
         CREATE OPERATOR public.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = yes);
         SET search_path = pg_temp, public, tenancy, pg_catalog",
    );
    session.refused("55000", "SELECT item FROM public.letters");
    session.begin_as("red");
    session.sees("SELECT item FROM letters", &[]);
    session.sees("SELECT item FROM public.letters", &[MINE]);
    session.changes(0, "DELETE FROM public.letters WHERE id = 2");
    session.refused_inside("42501", &format!("INSERT INTO public.letters VALUES (3, '{}', 'forged')", stage.blue.id));
    session.run("COMMIT");
    // The same where the catalog's policies are gone and the hook makes them, with that search_path in force.
    stage.db.admin().run("ALTER POLICY tenancy_isolation ON letters USING (true) WITH CHECK (true)");
    session.begin_as("red");
    if stage.setting.has_fence() {
        session.sees("SELECT item FROM public.letters", &[MINE]);
    }
}

fn a_role_cannot_borrow_an_exemption(stage: &Stage) {
    let admin = stage.db.admin();
    let reporter = stage.db.role("reporter", "BYPASSRLS");
    admin.run(&format!(
        "SELECT tenancy.exempt_role('{reporter}', 'reports');
         GRANT {reporter} TO {app};
         GRANT SELECT ON letters TO {reporter};
         GRANT CREATE ON SCHEMA public TO {reporter};
         CREATE VIEW reports AS SELECT id, item FROM letters; ALTER VIEW reports OWNER TO {reporter};
         CREATE FUNCTION report() RETURNS SETOF text LANGUAGE sql SECURITY DEFINER AS 'SELECT item FROM letters ORDER BY id';
         ALTER FUNCTION report() OWNER TO {reporter};
         GRANT SELECT ON reports TO {app}",
        app = stage.app
    ));
    let session = stage.as_red();
    for sql in [
        format!("SET LOCAL ROLE {reporter}; SELECT item FROM letters ORDER BY id"),
        "SELECT item FROM reports ORDER BY id".to_owned(),
        "SELECT report()".to_owned(),
        format!("SET LOCAL ROLE {reporter}; SELECT report()"),
    ] {
        session.run("SAVEPOINT s");
        if stage.setting.has_fence() {
            session.refused("42501", &sql);
        } else {
            session.sees(&sql, &[MINE, CANARY]);
        }
        session.run("ROLLBACK TO s");
    }
    // What it is for, parallel workers included.
    let itself = stage.db.login(&reporter);
    itself.run(
        "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
         SET parallel_leader_participation = off",
    );
    itself.sees("SELECT count(*) FROM letters", &["2"]);
    itself.sees("SELECT count(*) FROM reports", &["2"]);
    itself.sees("SELECT report()", &[MINE, CANARY]);
}

fn a_plan_made_before_the_protection_is_not_run_after_it(stage: &Stage) {
    let admin = stage.db.admin();
    let reporter = stage.db.role("reporter", "BYPASSRLS");
    admin.run(&format!(
        "CREATE TABLE notes (id int, tenant_id uuid NOT NULL, item text);
         INSERT INTO notes SELECT 1, id, code FROM tenancy.tenants;
         GRANT SELECT ON notes TO {}, {reporter}",
        stage.app
    ));
    let sessions = [stage.login(), stage.db.login(&reporter)];
    for session in &sessions {
        session.run("SET plan_cache_mode = force_generic_plan; PREPARE notes AS SELECT count(*) FROM notes");
        session.sees("EXECUTE notes", &["2"]);
    }
    admin.run("SELECT tenancy.protect_table('notes')");
    let [app, reporter] = sessions;
    app.refused("55000", "EXECUTE notes");
    app.begin_as("red");
    app.sees("SELECT count(*) FROM notes", &["1"]);
    reporter.holds_or_sees(stage.holds("B03"), "EXECUTE notes", &["2"]);
}

/// Copies that carry the rows on: a chain of materialized views, a view over them, an index-only path, a cursor.
fn shadows_of_a_fenced_table_are_fenced(stage: &Stage) {
    stage.db.admin().run(&format!(
        "CREATE VIEW v1 AS SELECT id, item FROM letters;
         CREATE MATERIALIZED VIEW m1 AS SELECT id, item FROM v1;
         CREATE VIEW v2 AS SELECT id, item FROM m1;
         CREATE MATERIALIZED VIEW m2 AS SELECT id, item FROM v2;
         CREATE INDEX ON m2 (id, item);
         GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}",
        stage.app
    ));
    let session = stage.as_red();
    for relation in ["v1", "m1", "v2", "m2"] {
        for sql in [
            format!("SELECT item FROM {relation} ORDER BY id"),
            format!("SELECT o.item FROM {relation} o LEFT JOIN letters USING (id) ORDER BY id"),
            format!("SELECT (SELECT string_agg(item, ',') FROM {relation}) FROM letters"),
            format!("DECLARE c CURSOR FOR SELECT item FROM {relation}; FETCH ALL FROM c"),
        ] {
            if stage.setting.has_fence() {
                session.refused_inside("42501", &sql);
            } else {
                session.run("SAVEPOINT s");
                session.run(&sql);
                session.run("ROLLBACK TO s");
            }
        }
    }
}
