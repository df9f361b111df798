//! THREATS (d): hidden values must not reach the attacker's code, nor error messages, nor statistics.

use crate::stage::{Attacker, CANARY, MINE, Stage, stories};
use pg_tenancy_tests::Session;

stories![
    d01_a_cheap_function_sees_only_own_rows_in_every_shape_of_query,
    d01_the_policy_stands_below_the_attackers_condition,
    d02_an_error_in_where_cannot_read_a_hidden_value,
    d03_d04_d05_own_functions_domains_and_operators_get_nothing_hidden,
    d12_d14_statistics_of_a_protected_table_are_hidden,
    d24_errors_do_not_print_invisible_rows,
    refusals_of_the_extension_name_no_tenant_but_those_the_caller_named,
];

const TELL: &str = "CREATE FUNCTION pg_temp.tell(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001
                        AS $$ BEGIN RAISE NOTICE 'told: %', $1; RETURN true; END $$";

fn told(session: &Session) -> Vec<String> {
    session.notices().iter().filter_map(|notice| notice.message().strip_prefix("told: ").map(str::to_owned)).collect()
}

/// Reads every row that the plan shows the attacker's cheap function.
fn d01_a_cheap_function_sees_only_own_rows_in_every_shape_of_query(stage: &Stage) {
    let owner = stage.db.login(&stage.owner);
    stage.db.admin().run(&format!("GRANT CREATE ON SCHEMA public TO {}", stage.owner));
    owner.run(&format!(
        "CREATE VIEW over_letters AS SELECT * FROM letters; GRANT SELECT ON over_letters TO {}",
        stage.app
    ));
    let session = stage.login();
    session.run("CREATE TABLE own_open AS SELECT 1 AS id, 'open' AS item");
    session.run(TELL);
    session.sees("SELECT id FROM own_open WHERE pg_temp.tell(item)", &["1"]);
    assert_eq!(told(&session), ["open"], "the function tells what it is given");

    session.begin_as("red");
    for query in [
        "SELECT item FROM letters WHERE pg_temp.tell(item)",
        "SELECT item FROM letters WHERE pg_temp.tell(item) AND id > 0 ORDER BY item",
        "SELECT item FROM letters WHERE item = 'x' OR pg_temp.tell(item)",
        "SELECT item FROM over_letters WHERE pg_temp.tell(item)",
        "SELECT l.item FROM letters l JOIN own_open o ON pg_temp.tell(l.item)",
        "SELECT item FROM own_open WHERE EXISTS (SELECT FROM letters l WHERE pg_temp.tell(l.item))",
        "SELECT count(*) FILTER (WHERE pg_temp.tell(item)) FROM letters",
        "SELECT item FROM letters GROUP BY item HAVING pg_temp.tell(item)",
        "SELECT item FROM (SELECT item FROM letters UNION ALL SELECT 'y' WHERE false) u WHERE pg_temp.tell(item)",
        "WITH w AS (SELECT item FROM letters) SELECT item FROM w WHERE pg_temp.tell(item)",
        "SELECT CASE WHEN pg_temp.tell(item) THEN 1 END FROM letters",
        "UPDATE letters SET item = item WHERE pg_temp.tell(item) RETURNING item",
        "SELECT item FROM letters WHERE pg_temp.tell(item) FOR UPDATE",
        "DELETE FROM letters WHERE pg_temp.tell(item)",
    ] {
        for hash in ["on", "off"] {
            session.run(&format!("SAVEPOINT s; SET LOCAL enable_hashjoin = {hash}; SET LOCAL enable_seqscan = {hash}"));
            session.run(query);
            let mut told = told(&session);
            told.dedup();
            assert!(told.iter().all(|row| row == MINE), "{query}: {told:?}");
            session.run("ROLLBACK TO s");
        }
    }
}

fn d01_the_policy_stands_below_the_attackers_condition(stage: &Stage) {
    stage.choose("tenancy.explain_guard = off");
    let session = stage.as_red();
    session.run(TELL);
    session.run("SET LOCAL enable_seqscan = off");
    let plan = session.explain("SELECT item FROM letters WHERE pg_temp.tell(item)");
    assert!(plan.contains("Index Cond: (tenant_id = tenancy.current_tenant_id())"), "{plan}");
    session.run("SET LOCAL enable_seqscan = on; SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off");
    let plan = session.explain("SELECT item FROM letters WHERE pg_temp.tell(item)");
    assert!(plan.contains("Filter: ((tenant_id = tenancy.current_tenant_id()) AND"), "{plan}");
}

fn d02_an_error_in_where_cannot_read_a_hidden_value(stage: &Stage) {
    let session = stage.as_red();
    for query in [
        "SELECT item FROM letters WHERE 1 / (id - 2) < 5",
        "SELECT item FROM letters WHERE item::int = 1 AND id = 2",
        "SELECT item FROM letters WHERE id = 2 AND (1 / 0) = 1",
        "SELECT item FROM letters WHERE id = 2 AND item::int > 0",
    ] {
        session.run("SAVEPOINT s");
        if let Err(error) = session.try_rows(query) {
            let text = format!("{error:?}");
            assert!(!text.contains(CANARY), "{query}: {text}");
            // An error that does not depend on hidden rows comes without them, too.
            let letters = stage.db.admin();
            letters.run("BEGIN; DELETE FROM letters WHERE id = 2; COMMIT");
            session.run("ROLLBACK TO s");
            assert!(session.try_rows(query).is_err(), "{query} tells whether blue has a row 2");
            letters.run(&format!(
                "INSERT INTO letters VALUES (2, '{}', '{}')",
                stage.blue.id,
                CANARY.replace('\'', "''")
            ));
        }
        session.run("ROLLBACK TO s");
    }
}

fn d03_d04_d05_own_functions_domains_and_operators_get_nothing_hidden(stage: &Stage) {
    stage.choose("tenancy.explain_guard = off");
    let admin = stage.db.admin();
    admin.run(&format!(
        "INSERT INTO letters SELECT n, '{}', 'blue''s common value' FROM generate_series(100, 600) n; ANALYZE letters",
        stage.blue.id
    ));
    let session = stage.login();
    session.run(TELL);
    session.refused("42501", "ALTER FUNCTION pg_temp.tell(text) LEAKPROOF");
    session.run(
        "CREATE FUNCTION pg_temp.check_value(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE
             AS $$ BEGIN RAISE NOTICE 'told: %', $1; RETURN true; END $$;
         CREATE DOMAIN pg_temp.telling AS text CHECK (pg_temp.check_value(VALUE));
         CREATE FUNCTION pg_temp.less(text, text) RETURNS boolean LANGUAGE plpgsql
             AS $$ BEGIN RAISE NOTICE 'told: %', $1; RETURN true; END $$;
         CREATE OPERATOR pg_temp.<<< (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_temp.less, RESTRICT = scalarltsel)",
    );
    session.begin_as("red");
    session.run("SELECT item::pg_temp.telling FROM letters");
    session.run("SELECT item FROM letters WHERE item::pg_temp.telling IS NOT NULL");
    session.run("EXPLAIN SELECT item FROM letters WHERE item OPERATOR(pg_temp.<<<) 'x'");
    session.run("SELECT item FROM letters WHERE item OPERATOR(pg_temp.<<<) 'x'");
    let told = told(&session);
    assert!(!told.is_empty() && told.iter().all(|row| row == MINE), "{told:?}");
}

fn d12_d14_statistics_of_a_protected_table_are_hidden(stage: &Stage) {
    let admin = stage.db.admin();
    admin.run(&format!(
        "INSERT INTO letters SELECT n, '{}', 'blue''s common value' FROM generate_series(100, 600) n;
         CREATE STATISTICS both_columns (mcv) ON tenant_id, item FROM letters;
         CREATE STATISTICS an_expression ON lower(item) FROM letters;
         ANALYZE letters",
        stage.blue.id
    ));
    admin.sees("SELECT count(*) > 0 FROM pg_stats WHERE tablename = 'letters'", &["t"]);
    for role in [&stage.app, &stage.owner] {
        let session = stage.db.login(role);
        session.begin_as("red");
        session.sees("SELECT attname FROM pg_stats WHERE tablename = 'letters'", &[]);
        session.sees("SELECT statistics_name FROM pg_stats_ext WHERE tablename = 'letters'", &[]);
        session.sees("SELECT statistics_name FROM pg_stats_ext_exprs WHERE tablename = 'letters'", &[]);
        session.refused_inside("42501", "SELECT stavalues1 FROM pg_statistic");
    }
}

fn d24_errors_do_not_print_invisible_rows(stage: &Stage) {
    stage.db.admin().run(&format!(
        "CREATE TABLE parents (id int PRIMARY KEY, tenant_id uuid NOT NULL, secret text);
         CREATE TABLE children (id int, tenant_id uuid NOT NULL, parent int REFERENCES parents, item text CHECK (item <> 'x'));
         INSERT INTO parents VALUES (7, '{}', 'secret of blue');
         SELECT tenancy.protect_table('parents');
         SELECT tenancy.protect_table('children');
         GRANT ALL ON parents, children TO {}",
        stage.blue.id, stage.app
    ));
    let session = stage.as_red();
    for (state, sql) in [
        ("23503", "INSERT INTO children (id, parent) VALUES (1, 7)"),
        ("23514", "INSERT INTO children (id, item) VALUES (1, 'x')"),
        ("23505", "INSERT INTO parents (id) VALUES (7)"),
        ("23502", "INSERT INTO parents (secret) VALUES ('red')"),
    ] {
        let refusal = session.refused_inside(state, sql);
        let all = format!("{refusal:?}");
        assert!(!all.contains("secret of blue") && !all.contains(&stage.blue.id.to_string()), "{all}");
    }
}

fn refusals_of_the_extension_name_no_tenant_but_those_the_caller_named(stage: &Stage) {
    let session = stage.as_red();
    let hidden = [stage.blue.id.to_string(), stage.blue.code.clone()];
    for (state, sql) in [
        ("42704", "COMMIT; BEGIN; SET LOCAL app.current_tenant_id = 'green'; SELECT item FROM letters"),
        ("55000", "SELECT item FROM letters"),
        ("42501", "SELECT tenancy.set_tenant('red'); INSERT INTO letters VALUES (3, gen_random_uuid(), 'x')"),
        ("42501", "SELECT tenancy.set_tenant('red'); TRUNCATE letters"),
    ] {
        let all = format!("{:?}", session.refused(state, sql));
        session.run("ROLLBACK");
        assert!(hidden.iter().all(|name| !all.contains(name.as_str())), "{all}");
    }
}
