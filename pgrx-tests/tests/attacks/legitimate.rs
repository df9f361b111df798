//! The twins of the attacks: what people do all day works, in every setting.

use std::{process::Command, time::Duration};

use crate::stage::{Attacker, CANARY, MINE, Stage, stories};
use pg_tenancy_tests::{Db, process, quote_literal};

stories![
    a_tenant_works_with_its_own_rows,
    two_tenants_take_turns_on_one_connection,
    parallel_workers_read_for_a_tenant_and_for_maintenance,
    the_owner_migrates_his_table,
    a_superuser_maintains_without_a_tenant,
    e28_a_backup_is_complete_and_comes_back_protected,
    references_cascade_within_a_tenant,
    definer_functions_and_views_of_bound_owners_serve_a_tenant,
    a_definer_trigger_of_the_owner_keeps_a_journal,
    rows_arrive_by_logical_replication,
    unprotected_tables_are_nobodys_business,
    scripts_of_extensions_pass,
];

fn a_tenant_works_with_its_own_rows(stage: &Stage) {
    let session = stage.as_red();
    session.changes(2, "INSERT INTO letters (id, item) VALUES (10, 'a'), (11, 'b')");
    session.changes(1, "INSERT INTO letters (id, item) VALUES (10, 'x') ON CONFLICT (id) DO UPDATE SET item = 'c'");
    session.changes(0, "INSERT INTO letters (id, item) VALUES (10, 'x') ON CONFLICT DO NOTHING");
    session.sees(
        "WITH u AS (UPDATE letters SET item = upper(item) WHERE id > 9 RETURNING item) TABLE u ORDER BY item",
        &["B", "C"],
    );
    session.run("SAVEPOINT s; DELETE FROM letters; ROLLBACK TO s; RELEASE s");
    session.run("DO $$ BEGIN DELETE FROM letters; RAISE 'back'; EXCEPTION WHEN OTHERS THEN NULL; END $$");
    session.run("DECLARE c SCROLL CURSOR FOR SELECT item FROM letters ORDER BY id");
    session.sees("FETCH ALL FROM c", &[MINE, "C", "B"]);
    session.sees("FETCH BACKWARD 1 FROM c", &["B"]);
    session.sees("WITH gone AS (DELETE FROM letters WHERE id = 11 RETURNING item) TABLE gone", &["B"]);
    session.sees(
        "SELECT a.item FROM letters a JOIN LATERAL (SELECT * FROM letters b WHERE b.id = a.id) b ON true
                   WHERE a.id IN (SELECT max(id) FROM letters)",
        &["C"],
    );
    session.sees("SELECT item FROM letters WHERE id = 10 FOR UPDATE", &["C"]);
    if stage.db.cluster().major() >= 15 {
        session.changes(1, "MERGE INTO letters l USING (VALUES (10)) v(id) ON l.id = v.id WHEN MATCHED THEN DELETE");
    }
    session.run("PREPARE one AS SELECT item FROM letters WHERE id = $1; COMMIT");
    for _ in 0..7 {
        session.begin_as("red");
        session.sees("EXECUTE one(1)", &[MINE]);
        session.sees("EXECUTE one(2)", &[]);
        session.run("COMMIT");
    }
}

fn two_tenants_take_turns_on_one_connection(stage: &Stage) {
    let session = stage.login();
    for turn in 0..6 {
        let (tenant, sees) = if turn % 2 == 0 { ("red", MINE) } else { ("blue", CANARY) };
        session.begin_as(tenant);
        session.run("CREATE TEMP TABLE work ON COMMIT DROP AS SELECT item FROM letters");
        session.sees("SELECT item FROM work", &[sees]);
        session.changes(1, &format!("INSERT INTO letters (id, item) VALUES ({}, 'turn')", 100 + turn));
        session.changes(1, "DELETE FROM letters WHERE item = 'turn'");
        session.run(if turn % 3 == 0 { "ROLLBACK" } else { "COMMIT" });
        if turn % 3 == 1 {
            session.run("DISCARD ALL");
        }
    }
}

fn parallel_workers_read_for_a_tenant_and_for_maintenance(stage: &Stage) {
    stage.choose("tenancy.explain_guard = off");
    let admin = stage.db.admin();
    admin.run(
        "INSERT INTO letters SELECT n, t.id, t.code FROM tenancy.tenants t,
             LATERAL generate_series(t.number * 100000, t.number * 100000 + 20000) n;
         ANALYZE letters",
    );
    let everything_in_workers = "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;
        SET min_parallel_table_scan_size = 0; SET enable_indexscan = off; SET enable_bitmapscan = off;
        SET enable_indexonlyscan = off; SET parallel_leader_participation = off";
    let reporter = stage.db.role("reporter", "BYPASSRLS");
    admin.run(&format!("GRANT SELECT ON letters TO {reporter}; SELECT tenancy.exempt_role('{reporter}', 'reports')"));
    let (maintenance, report, tenant) = (stage.db.admin(), stage.db.login(&reporter), stage.login());
    for session in [&maintenance, &report, &tenant] {
        session.run(everything_in_workers);
    }
    tenant.begin_as("red");
    let count = "SELECT count(*) FROM letters WHERE item <> 'x'";
    assert!(tenant.explain(count).contains("Gather"));
    tenant.sees(count, &["20002"]);
    for session in [maintenance, report] {
        assert!(session.explain(count).contains("Gather"));
        session.sees(count, &["40004"]);
    }
}

fn the_owner_migrates_his_table(stage: &Stage) {
    stage.db.admin().run(&format!("GRANT CREATE ON SCHEMA public TO {}", stage.owner));
    let owner = stage.db.login(&stage.owner);
    for migration in [
        "ALTER TABLE letters ADD COLUMN read_at timestamptz",
        "ALTER TABLE letters ADD COLUMN urgent boolean NOT NULL DEFAULT false",
        "ALTER TABLE letters ALTER COLUMN item TYPE varchar(200)",
        "ALTER TABLE letters ADD CONSTRAINT not_empty CHECK (item <> '')",
        "ALTER TABLE letters RENAME COLUMN item TO body",
        "ALTER TABLE letters RENAME COLUMN body TO item",
        "CREATE INDEX by_item ON letters (item)",
        "CREATE INDEX CONCURRENTLY by_both ON letters (tenant_id, item)",
        "REINDEX TABLE letters",
        "ALTER TABLE letters CLUSTER ON by_both",
        "CLUSTER letters",
        "VACUUM (FULL, ANALYZE) letters",
        "CREATE STATISTICS on_both ON tenant_id, item FROM letters",
        "ANALYZE letters",
        "ALTER TABLE letters SET (fillfactor = 90)",
        "COMMENT ON TABLE letters IS 'mail'",
        "CREATE TABLE folders (id int PRIMARY KEY)",
        "ALTER TABLE letters ADD COLUMN folder int REFERENCES folders",
        "BEGIN; LOCK TABLE letters; ALTER TABLE letters DROP COLUMN urgent; COMMIT",
        "DROP INDEX by_item",
    ] {
        owner.run(migration);
    }
    // A migration that touches rows does it for each tenant in turn.
    for tenant in ["red", "blue"] {
        owner.begin_as(tenant);
        owner.changes(1, "UPDATE letters SET read_at = now()");
        owner.run("COMMIT");
    }
    stage.as_red().sees_only_red();
    stage.db.admin().sees("SELECT is_enforced FROM tenancy.protected_tables", &["t"]);
}

fn a_superuser_maintains_without_a_tenant(stage: &Stage) {
    let admin = stage.db.admin();
    admin.sees("SELECT item FROM letters ORDER BY id", &[MINE, CANARY]);
    admin.run("CREATE VIEW all_letters AS SELECT * FROM letters; CREATE MATERIALIZED VIEW snapshot AS TABLE letters");
    admin.sees("SELECT count(*) FROM all_letters, snapshot", &["4"]);
    admin.changes(2, "UPDATE letters SET item = item || ''");
    admin.run("REFRESH MATERIALIZED VIEW snapshot; REINDEX TABLE letters");
    admin.run("VACUUM (FREEZE, ANALYZE) letters");
    admin.run("EXPLAIN ANALYZE SELECT * FROM letters; LISTEN jobs; SELECT pg_relation_size('letters')");
    admin.run("CREATE TEMP TABLE aside AS TABLE letters; BEGIN; LOCK TABLE letters; TRUNCATE letters");
    admin.changes(2, "INSERT INTO letters TABLE aside");
    admin.run("COMMIT; DO $$ BEGIN PERFORM FROM letters; EXECUTE 'SELECT 1 FROM letters'; END $$");
    // As another role it is that role.
    admin.run(&format!("SET ROLE {}", stage.app));
    admin.refused("55000", "SELECT item FROM letters");
    admin.begin_as("red");
    admin.sees_only_red();
    admin.run("COMMIT; RESET ROLE");
    admin.sees("SELECT count(*) FROM letters", &["2"]);
}

/// What that command writes goes into psql on that database.
pub fn pipe(dump: &mut Command, into: &Db) {
    let sql = process::output(dump).unwrap_or_else(|error| panic!("{error:#}"));
    let folder = std::env::temp_dir().join(format!("{}.sql", into.name()));
    std::fs::write(&folder, sql).expect("a temporary file");
    let mut psql = into.program("psql");
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-f"]).arg(&folder);
    let restored = process::output(&mut psql);
    std::fs::remove_file(folder).expect("it was just written");
    restored.unwrap_or_else(|error| panic!("{error:#}"));
}

fn e28_a_backup_is_complete_and_comes_back_protected(stage: &Stage) {
    let admin = stage.db.admin();
    admin.run(&format!(
        "CREATE TABLE events (id int, tenant_id uuid NOT NULL, item text) PARTITION BY RANGE (id);
         CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (100);
         INSERT INTO events SELECT 1, id, code FROM tenancy.tenants;
         SELECT tenancy.protect_table('events');
         GRANT SELECT ON events, events_1 TO {}",
        stage.app
    ));
    // As superuser, and as a role for backups that is exempt.
    let keeper = stage.db.role("keeper", "BYPASSRLS");
    admin.run(&format!(
        "GRANT pg_read_all_data TO {keeper}; SELECT tenancy.exempt_role('{keeper}', 'backups');
         GRANT SELECT ON ALL TABLES IN SCHEMA tenancy_internal TO {keeper}"
    ));
    for role in [None, Some(&keeper)] {
        if role.is_some() && stage.db.cluster().major() < 14 {
            continue; // pg_read_all_data is new in 14
        }
        let mut dump = stage.db.program("pg_dump");
        if let Some(role) = role {
            dump.env("PGUSER", role.name());
        }
        let copy = stage.db.cluster().bare_db();
        pipe(&mut dump, &copy);
        copy.admin().sees("SELECT count(*) FROM letters", &["2"]);
        copy.admin().sees("SELECT DISTINCT is_enforced FROM tenancy.protected_tables", &["t"]);
        let session = copy.login(&stage.app);
        for relation in ["letters", "events", "events_1"] {
            session.refused("55000", &format!("SELECT item FROM {relation}"));
        }
        session.begin_as("red");
        session.sees_only_red();
        session.sees("SELECT item FROM events_1", &["red"]);
        session.changes(1, "INSERT INTO letters (id, item) VALUES (3, 'own')");
        session.refused_inside("42501", &format!("INSERT INTO letters VALUES (4, '{}', 'forged')", stage.blue.id));
    }
    // Who may not see all rows makes no backup that looks complete.
    let mut dump = stage.db.program("pg_dump");
    dump.env("PGUSER", stage.owner.name()).args(["--table", "letters"]);
    assert!(process::output(&mut dump).is_err());
}

fn references_cascade_within_a_tenant(stage: &Stage) {
    stage.db.admin().run(&format!(
        "CREATE TABLE boxes (id int PRIMARY KEY, tenant_id uuid NOT NULL);
         CREATE TABLE things (id int PRIMARY KEY, tenant_id uuid NOT NULL,
                              box int REFERENCES boxes ON DELETE CASCADE DEFERRABLE);
         CREATE TABLE parts (id int, tenant_id uuid NOT NULL, thing int REFERENCES things ON DELETE CASCADE);
         CREATE TABLE journal (tenant_id uuid NOT NULL, item text);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO journal (item) VALUES (TG_TABLE_NAME || OLD.id); RETURN NULL; END $$;
         CREATE TRIGGER note AFTER DELETE ON things FOR EACH ROW EXECUTE FUNCTION note();
         CREATE TRIGGER note AFTER DELETE ON parts FOR EACH ROW EXECUTE FUNCTION note();
         SELECT tenancy.protect_table(t) FROM unnest('{{boxes,things,parts,journal}}'::regclass[]) t;
         GRANT ALL ON boxes, things, parts, journal TO {app}; REVOKE TRUNCATE ON boxes, things, parts FROM {app};
         ALTER TABLE boxes OWNER TO {owner}; ALTER TABLE things OWNER TO {owner}; ALTER TABLE parts OWNER TO {owner};
         ALTER TABLE journal OWNER TO {owner}",
        app = stage.app,
        owner = stage.owner
    ));
    for tenant in ["red", "blue"] {
        let session = stage.login_as(&stage.app, tenant);
        let n = if tenant == "red" { 1 } else { 2 };
        session.run(&format!(
            "SET CONSTRAINTS ALL DEFERRED; INSERT INTO things (id, box) VALUES ({n}, {n});
             INSERT INTO boxes (id) VALUES ({n}); INSERT INTO parts (id, thing) VALUES ({n}, {n}); COMMIT"
        ));
    }
    let session = stage.as_red();
    session.changes(1, "DELETE FROM boxes");
    session.sees("SELECT item FROM journal ORDER BY item", &["parts1", "things1"]);
    session.run("COMMIT");
    stage.login_as(&stage.app, "blue").sees("SELECT count(*) FROM boxes, things, parts", &["1"]);
}

fn definer_functions_and_views_of_bound_owners_serve_a_tenant(stage: &Stage) {
    stage.db.admin().run(&format!("GRANT CREATE ON SCHEMA public TO {}", stage.owner));
    let mut views = vec!["CREATE VIEW of_owner AS"];
    if stage.db.cluster().major() >= 15 {
        views.push("CREATE VIEW of_invoker WITH (security_invoker) AS");
    }
    let owner = stage.db.login(&stage.owner);
    owner.run(
        "CREATE FUNCTION search(text) RETURNS SETOF letters LANGUAGE sql STABLE SECURITY DEFINER
             SET search_path = public, pg_temp AS 'SELECT * FROM letters WHERE item LIKE $1';
         CREATE PROCEDURE send(int, text) LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS
             $$ BEGIN INSERT INTO letters (id, item) VALUES ($1, $2); END $$",
    );
    let session = stage.login();
    for view in views {
        let name = view.split(' ').nth(2).expect("CREATE VIEW name");
        let tried =
            owner.try_run(&format!("{view} SELECT id, item FROM letters; GRANT ALL ON {name} TO {}", stage.app));
        assert!(tried.is_ok(), "{tried:?}");
        session.begin_as("red");
        session.sees(&format!("SELECT item FROM {name}"), &[MINE]);
        session.changes(1, &format!("UPDATE {name} SET item = item"));
        session.run("COMMIT");
        session.refused("55000", &format!("SELECT item FROM {name}"));
    }
    session.begin_as("red");
    session.sees("SELECT item FROM search('%')", &[MINE]);
    session.run("CALL send(3, 'sent')");
    session.sees("SELECT item FROM search('sent')", &["sent"]);
}

fn a_definer_trigger_of_the_owner_keeps_a_journal(stage: &Stage) {
    stage.db.admin().run(&format!("GRANT CREATE ON SCHEMA public TO {}", stage.owner));
    let owner = stage.db.login(&stage.owner);
    owner.run(
        "CREATE TABLE journal (tenant_id uuid NOT NULL, item text);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS
             $$ BEGIN INSERT INTO journal (item) VALUES (NEW.item); RETURN NULL; END $$;
         CREATE TRIGGER note AFTER INSERT ON letters FOR EACH ROW EXECUTE FUNCTION note()",
    );
    stage.db.admin().run(&format!("SELECT tenancy.protect_table('journal'); GRANT SELECT ON journal TO {}", stage.app));
    for (tenant, id) in [("red", 11), ("blue", 12)] {
        let session = stage.login_as(&stage.app, tenant);
        session.run(&format!("INSERT INTO letters (id, item) VALUES ({id}, 'of {tenant}')"));
        session.sees("SELECT item FROM journal", &[&format!("of {tenant}")]);
        session.run("COMMIT");
    }
}

fn rows_arrive_by_logical_replication(stage: &Stage) {
    let target = Stage::new(stage.setting);
    let (admin, there) = (stage.db.admin(), target.db.admin());
    let (publication, slot) = (stage.database(), quote_literal(stage.db.name()));
    // The target's tenants are others: what arrives belongs to nobody there, and arrives all the same.
    admin.run(&format!("CREATE PUBLICATION {publication} FOR TABLE letters"));
    admin.run(&format!("SELECT pg_create_logical_replication_slot({slot}, 'pgoutput')"));
    let cluster = stage.db.cluster();
    let source = format!(
        "host={} port={} user=postgres dbname={}",
        cluster.sockets().display(),
        cluster.port(),
        stage.db.name()
    );
    there.run("DELETE FROM letters");
    // From PostgreSQL 16 on rows are applied as the table's owner, whom row security binds, unless one says otherwise.
    let as_owner = if cluster.major() >= 16 { ", run_as_owner = true" } else { "" };
    there.run(&format!(
        "CREATE SUBSCRIPTION {publication} CONNECTION '{source}' PUBLICATION {publication}
             WITH (create_slot = false, slot_name = {slot}, copy_data = true{as_owner})"
    ));
    admin.run(&format!("INSERT INTO letters VALUES (3, '{}', 'late')", stage.blue.id));
    admin.run("UPDATE letters SET item = 'changed' WHERE id = 1; DELETE FROM letters WHERE id = 2");
    let arrived = process::wait_for("the rows to arrive", Duration::from_secs(60), || {
        let rows = there.rows("SELECT item FROM letters ORDER BY id");
        Ok((rows == ["changed", "late"]).then_some(()))
    });
    there.run(&format!("DROP SUBSCRIPTION {publication}"));
    arrived.unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.log_text()));
    target.as_red().sees("SELECT item FROM letters", &[]);
}

fn unprotected_tables_are_nobodys_business(stage: &Stage) {
    let session = stage.login();
    session.run(
        "CREATE TABLE own (id int PRIMARY KEY, item text); INSERT INTO own VALUES (1, 'x');
         CREATE MATERIALIZED VIEW own_snapshot AS TABLE own; CREATE VIEW own_view AS TABLE own;
         CREATE FUNCTION own_function() RETURNS SETOF own LANGUAGE sql SECURITY DEFINER AS 'SELECT * FROM public.own';
         CREATE TRIGGER t BEFORE UPDATE ON own FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
         EXPLAIN ANALYZE SELECT * FROM own; REFRESH MATERIALIZED VIEW own_snapshot;
         CREATE UNIQUE INDEX ON own_snapshot (id); REFRESH MATERIALIZED VIEW CONCURRENTLY own_snapshot",
    );
    session.run("ALTER TABLE own ADD COLUMN more int; CREATE INDEX ON own (item)");
    session.run("VACUUM ANALYZE own");
    for relation in ["own", "own_snapshot", "own_view", "own_function()"] {
        session.sees(&format!("SELECT item FROM {relation}"), &["x"]);
    }
    let reporter = stage.db.role("reporter", "BYPASSRLS");
    session.run(&format!("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reporter}"));
    stage.db.login(&reporter).sees("SELECT item FROM own_snapshot JOIN own_view USING (item)", &["x"]);
    session.run("BEGIN; LOCK TABLE own; TRUNCATE own; DROP TABLE own CASCADE; COMMIT");
}

fn scripts_of_extensions_pass(stage: &Stage) {
    let admin = stage.db.admin();
    admin.run("CREATE EXTENSION IF NOT EXISTS plpgsql; ALTER EXTENSION plpgsql UPDATE");
    admin.refused("2BP01", "DROP EXTENSION pg_tenancy");
    admin.run("SELECT tenancy.unprotect_table('letters'); DROP EXTENSION pg_tenancy; CREATE EXTENSION pg_tenancy");
    admin.run("SELECT tenancy.create_tenant('green'); SELECT tenancy.verify_context()");
}
