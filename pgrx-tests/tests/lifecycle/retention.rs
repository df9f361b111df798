//! Rows go when they are as old as was said, and not before.

use std::time::{Duration, Instant};

use pg_tenancy_tests::{Cluster, Db, NASTY_NAMES, quote_ident, quote_literal};

use crate::soft_delete::Desk;

const KEPT: &str =
    "SELECT t.code, min(e.id) FROM events e JOIN tenancy.tenants t ON t.id = e.tenant_id GROUP BY 1 ORDER BY 1";

#[test]
fn each_tenants_rows_are_kept_as_long_as_was_said() {
    let db = Db::new();
    let (dba, owner, admin) = (db.admin(), db.role("owner", ""), db.role("admin", ""));
    for code in ["red", "blue", "grey"] {
        db.tenant(code);
    }
    // Day n is n days old; a row refers to an old one of each tenant.
    dba.run(&format!(
        "CREATE TABLE events (id int, tenant_id uuid NOT NULL, at timestamptz, note text, PRIMARY KEY (tenant_id, id)) PARTITION BY LIST (tenant_id);
         CREATE TABLE events_rest PARTITION OF events DEFAULT;
         CREATE TABLE events_red PARTITION OF events FOR VALUES IN ('{}');
         CREATE TABLE links (tenant_id uuid NOT NULL, event int, FOREIGN KEY (tenant_id, event) REFERENCES events ON DELETE CASCADE);
         CREATE TABLE pins (tenant_id uuid NOT NULL, event int, FOREIGN KEY (tenant_id, event) REFERENCES events);
         SELECT tenancy.protect_table('events'), tenancy.protect_table('links'), tenancy.protect_table('pins');
         INSERT INTO events SELECT n, t.id, now() - make_interval(days => n), repeat('x', 500)
           FROM tenancy.tenants t, generate_series(1, 100) AS n;
         INSERT INTO links SELECT id, 99 FROM tenancy.tenants;
         INSERT INTO pins SELECT id, 98 FROM tenancy.tenants;
         ALTER TABLE events OWNER TO {owner}; ALTER TABLE events_rest OWNER TO {owner}; ALTER TABLE events_red OWNER TO {owner};
         SELECT tenancy.grant_admin('{admin}'); SELECT tenancy.audit_table('events')",
        dba.value("SELECT tenancy.find_tenant('red')")
    ));
    // No trigger of the users fires: it would have to work for the tenant of each row.
    dba.run(
        "CREATE TABLE seen (who name);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY INVOKER AS $$
         BEGIN INSERT INTO public.seen VALUES (current_user); RETURN OLD; END $$;
         GRANT INSERT ON seen TO PUBLIC;
         CREATE TRIGGER note BEFORE DELETE ON events FOR EACH ROW EXECUTE FUNCTION note()",
    );
    dba.run("SELECT tenancy.set_retention('events', 'at', '60 days'), tenancy.set_retention('events', 'at', '30 days 12 hours', tenant => 'red')");
    dba.run("SELECT tenancy.set_legal_hold('grey', 'case 7')");
    let admin = db.login(&admin);
    admin.run("CALL tenancy.run_retention(batch_size => 10)");
    let days = |tenant| {
        dba.value(&format!(
            "SELECT string_agg(id::text, ' ' ORDER BY id DESC) FROM (SELECT id FROM events WHERE tenant_id = tenancy.find_tenant('{tenant}')
              ORDER BY id DESC LIMIT 2) AS l"
        ))
    };
    // Pinned rows stay, rows of a cascade go with theirs.
    assert_eq!([days("red"), days("blue"), days("grey")], ["98 30", "98 59", "100 99"]);
    dba.sees("SELECT count(*) FROM links", &["1"]);
    dba.sees("SELECT who FROM seen", &[]);
    dba.sees("SELECT count(*) FROM tenancy.audit_log WHERE action = 'DELETE'", &["109"]);
    dba.sees("SELECT kind, state, done FROM tenancy.jobs", &["retention|done|109"]);
    dba.sees("SELECT tenant_code, keep, action, last_run > now() - interval '1 minute', failure FROM tenancy.retention_rules ORDER BY keep",
             &["red|30 days 12:00:00|delete|t|NULL", "NULL|60 days|delete|t|NULL"]);
    // Stopped by its time it goes on where it was, and no other run comes between.
    dba.run("DELETE FROM pins; SELECT tenancy.release_legal_hold('grey')");
    dba.run("SELECT tenancy_internal.begin_expiry_step('retention')");
    admin.refused("55006", "CALL tenancy.run_retention()");
    admin.refused("55000", "SELECT tenancy_internal.expire_step(1, 1)");
    admin.refused("42501", "SELECT tenancy_internal.expire_rows('events_red', 'retention', 0, 1000)");
    drop(dba);
    let dba = db.admin();
    while admin.value("SELECT (SELECT max(id) FROM tenancy.jobs) > 9") == "f" {
        if admin.try_run("CALL tenancy.run_retention(max_seconds => 0, batch_size => 10)").is_ok() {
            let left = dba.value("SELECT count(*) FROM tenancy.jobs WHERE state = 'stopped'");
            if left.parse::<i32>().is_ok_and(|stopped| stopped >= 3) {
                break;
            }
        }
    }
    dba.sees("SELECT bool_or(block > 0) FROM tenancy_internal.expiry_passes", &["t"]);
    admin.run("CALL tenancy.run_retention()");
    dba.sees(
        "SELECT t.code, max(e.id) FROM events e JOIN tenancy.tenants t ON t.id = e.tenant_id GROUP BY 1 ORDER BY 1",
        &["blue|59", "grey|59", "red|30"],
    );
    dba.sees(KEPT, &["blue|1", "grey|1", "red|1"]);
    // What fails is told, and does not keep the other tables.
    dba.run(
        "CREATE TABLE other (id int, tenant_id uuid NOT NULL, day date); SELECT tenancy.protect_table('other');
         INSERT INTO other SELECT 1, id, '2020-01-01' FROM tenancy.tenants;
         SELECT tenancy.set_retention('other', 'day', '1 year'); ALTER TABLE events RENAME at TO happened",
    );
    admin.notices();
    admin.run("CALL tenancy.run_retention()");
    assert!(
        admin
            .notices()
            .iter()
            .any(|notice| notice.severity() == "WARNING" && notice.message().contains("column r.at does not exist"))
    );
    dba.sees("SELECT count(*) FROM other", &["0"]);
    dba.sees(
        "SELECT DISTINCT failure IS NOT NULL FROM tenancy.retention_rules WHERE relation = 'events'::regclass",
        &["t"],
    );
    // Rules end, and go with their table.
    dba.run("SELECT tenancy.set_retention('events', 'at', NULL), tenancy.set_retention('events', 'at', NULL, tenant => 'red'); DROP TABLE other");
    dba.sees("SELECT * FROM tenancy.retention_rules", &[]);
}

#[test]
fn archived_rows_are_kept_whole_in_a_table_that_is_protected() {
    let db = Db::new();
    let dba = db.admin();
    let (red, app) = (db.tenant("red"), db.application("app"));
    for name in NASTY_NAMES {
        let table = quote_ident(name);
        let literal = quote_literal(&table);
        dba.run(&format!(
            "CREATE TABLE {table} (id int PRIMARY KEY, tenant_id uuid NOT NULL, {table} date, twice int GENERATED ALWAYS AS (id * 2) STORED);
             SELECT tenancy.protect_table({literal});
             INSERT INTO {table} SELECT n, tenancy.find_tenant('red'), now()::date - n FROM generate_series(1, 20) AS n"
        ));
        let set = |action: &str| {
            format!("SELECT tenancy.set_retention({literal}, {}, '10 days', action => '{action}')", quote_literal(name))
        };
        dba.run(&set("archive"));
        dba.run(&set("archive"));
        let archive = dba.value("SELECT archive FROM tenancy.retention_rules");
        dba.run("CALL tenancy.run_retention()");
        dba.sees(
            &format!("SELECT (SELECT count(*) FROM {table}), (SELECT count(*) FROM {archive} WHERE twice = id * 2 AND archived_at IS NOT NULL)"),
            &["9|11"],
        );
        dba.run(&format!("GRANT SELECT ON {archive} TO {app}"));
        db.login(&app).refused("55000", &format!("SELECT * FROM {archive}"));
        db.enter(&app, &red).sees(&format!("SELECT count(*) FROM {archive}"), &["11"]);
        // A column that the archive lacks would be lost.
        dba.run(&format!("ALTER TABLE {table} ADD COLUMN late text; UPDATE {table} SET {table} = '2020-01-01'"));
        dba.run("CALL tenancy.run_retention()");
        dba.sees(&format!("SELECT count(*) FROM {table}"), &["9"]);
        dba.refused("42804", &set("archive"));
        dba.run(&format!("DROP TABLE {table}, {archive}"));
        dba.sees("SELECT * FROM tenancy_internal.retention_rules", &[]);
    }
    dba.run("CREATE TABLE free (id int, at date); CREATE TABLE mine (id int, tenant_id uuid NOT NULL, at timestamptz(3)); SELECT tenancy.protect_table('mine')");
    for (state, arguments) in [
        ("42704", "'free', 'at', '1 day'"),
        ("42703", "'mine', 'when', '1 day'"),
        ("42804", "'mine', 'id', '1 day'"),
        ("22023", "'mine', 'at', '-1 day'"),
        ("22023", "'mine', 'at', '0'"),
        ("22023", "'mine', 'at', '1 day', action => 'burn'"),
        ("42704", "'mine', 'at', '1 day', tenant => 'nobody'"),
        ("22023", "NULL, 'at', '1 day'"),
    ] {
        let refused = dba.refused(state, &format!("SELECT tenancy.set_retention({arguments})"));
        assert!(refused.hint().is_some(), "{refused:?}");
    }
}

#[test]
fn keys_that_are_checked_at_commit_stand_in_no_way() {
    let db = Db::new();
    let (dba, _) = (db.admin(), db.tenant("red"));
    dba.run(
        "CREATE TABLE heads (id int PRIMARY KEY, tenant_id uuid NOT NULL);
         CREATE TABLE logs (id int UNIQUE DEFERRABLE INITIALLY DEFERRED, tenant_id uuid NOT NULL, at date NOT NULL,
                            head int REFERENCES heads DEFERRABLE INITIALLY DEFERRED);
         CREATE TABLE tails (log int, tenant_id uuid NOT NULL);
         SELECT tenancy.protect_table('heads'), tenancy.protect_table('logs'), tenancy.protect_table('tails');
         INSERT INTO heads SELECT 1, id FROM tenancy.tenants;
         INSERT INTO logs SELECT n, id, '2020-01-01', 1 FROM tenancy.tenants, generate_series(1, 3) AS n;
         SELECT tenancy.set_retention('logs', 'at', '1 day', action => 'archive')",
    );
    dba.run("CALL tenancy.run_retention()");
    dba.sees("SELECT failure FROM tenancy.retention_rules", &["NULL"]);
    dba.sees("SELECT (SELECT count(*) FROM logs), (SELECT count(*) FROM logs_archive)", &["0|3"]);
}

#[test]
fn what_rules_would_do_instead_is_not_done() {
    let db = Db::new();
    let (dba, _) = (db.admin(), db.tenant("red"));
    dba.run(
        "CREATE TABLE logs (id int, tenant_id uuid NOT NULL, at date NOT NULL); CREATE TABLE elsewhere (id int, tenant_id uuid, at date);
         SELECT tenancy.protect_table('logs'), tenancy.set_retention('logs', 'at', '1 day', action => 'archive');
         INSERT INTO logs SELECT 1, id, '2020-01-01' FROM tenancy.tenants",
    );
    for (table, event) in [("logs", "DELETE"), ("logs_archive", "INSERT")] {
        dba.run(&format!("CREATE RULE away AS ON {event} TO {table} DO INSTEAD INSERT INTO elsewhere VALUES (1)"));
        dba.run("CALL tenancy.run_retention()");
        dba.sees("SELECT failure ~ 'rewrite rule' FROM tenancy.retention_rules", &["t"]);
        dba.run(&format!("DROP RULE away ON {table}"));
    }
    dba.sees("SELECT (SELECT count(*) FROM logs), (SELECT count(*) FROM elsewhere)", &["1|0"]);
    dba.run("CALL tenancy.run_retention()");
    dba.sees("SELECT (SELECT count(*) FROM logs), (SELECT count(*) FROM logs_archive)", &["0|1"]);
}

#[test]
fn deleted_rows_and_tenants_go_when_their_grace_is_over() {
    let desk = Desk::on(&Cluster::shared());
    let (dba, red, blue) = (&desk.dba, desk.db.enter(&desk.app, &desk.red), desk.db.enter(&desk.app, &desk.blue));
    for client in [&red, &blue] {
        client.run("INSERT INTO notes (id) VALUES (1), (2), (3), (4); INSERT INTO comments (id, note) SELECT id + (SELECT count(*) FROM notes) * 10 + (SELECT ascii(tenancy.current_tenant_code())), id FROM notes WHERE id = 3");
        client.changes(3, "DELETE FROM notes WHERE id <= 3");
    }
    dba.run("CALL tenancy.purge_deleted()");
    let left = "SELECT string_agg(n.id::text, ' ' ORDER BY t.code DESC, n.id) FROM notes n JOIN tenancy.tenants t ON t.id = n.tenant_id";
    dba.sees(left, &["1 2 3 4 1 2 3 4"]);
    // A row that others refer to waits for them: nothing that is seen goes with it.
    dba.run("SET session_replication_role = replica; UPDATE notes SET deleted_at = now() - interval '40 days' WHERE deleted_at IS NOT NULL AND id <> 2;
             RESET session_replication_role; SELECT tenancy.set_legal_hold('blue', 'case 8')");
    dba.run("CALL tenancy.purge_deleted()");
    dba.sees(left, &["2 3 4 1 2 3 4"]);
    red.changes(1, "DELETE FROM comments");
    dba.run("SELECT tenancy.release_legal_hold('blue')");
    dba.run("SET tenancy.deletion_grace = '50d'");
    dba.run("CALL tenancy.purge_deleted()");
    dba.sees(left, &["2 3 4 1 2 3 4"]);
    dba.run("SET tenancy.deletion_grace = '0'");
    dba.run("SELECT tenancy.delete_tenant('blue')");
    dba.run("CALL tenancy.purge_deleted()");
    dba.sees(left, &["4"]);
    dba.sees("SELECT tenant_code, rows FROM tenancy.purge_certificates", &["blue|3"]);
    dba.run("CALL tenancy.purge_deleted()");
    dba.sees("SELECT count(*) FROM tenancy.purge_certificates", &["1"]);
    red.sees("SELECT id FROM notes", &["4"]);
    // What keeps one tenant does not keep the next, and is told.
    let (admin, other) = (desk.db.role("admin", ""), desk.db.admin());
    dba.run(&format!(
        "SELECT tenancy.grant_admin('{admin}');
         CREATE TABLE cards (id int PRIMARY KEY, tenant_id uuid NOT NULL); SELECT tenancy.protect_table('cards');
         CREATE TABLE pins (tenant_id uuid NOT NULL, card int); SELECT tenancy.protect_table('pins');
         BEGIN; SET LOCAL tenancy.ddl_guard = off;
         ALTER TABLE cards ADD UNIQUE (id); ALTER TABLE pins ADD FOREIGN KEY (card) REFERENCES cards (id); COMMIT"
    ));
    for (code, card) in [("ant", 1), ("bee", 2), ("cat", 3), ("dog", 4)] {
        dba.run(&format!(
            "SELECT tenancy.create_tenant('{code}'); INSERT INTO cards VALUES ({card}, tenancy.find_tenant('{code}'));
             SELECT tenancy.delete_tenant('{code}');
             UPDATE tenancy.tenants SET deleted_at = now() - interval '31 days' WHERE code = '{code}'"
        ));
    }
    dba.run("INSERT INTO pins VALUES (tenancy.find_tenant('red'), 1)");
    other.run("SELECT tenancy_internal.begin_purge_step('cat', 'cat', false, 1, NULL, 0, false)");
    let admin = desk.db.login(&admin);
    admin.run("CALL tenancy.purge_deleted()");
    dba.sees("SELECT id FROM cards ORDER BY id", &["1", "3"]);
    dba.sees("SELECT tenant_code FROM tenancy.purge_certificates ORDER BY number", &["blue", "bee", "dog"]);
    let warnings = admin.notices();
    let warnings: Vec<_> = warnings.iter().filter(|notice| notice.severity() == "WARNING").collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    for (warning, told) in
        warnings.iter().zip(["tenant \"ant\" could not be purged: ", "tenant \"cat\" could not be purged: "])
    {
        assert!(
            warning.message().starts_with(told) && warning.hint().is_some_and(|hint| !hint.is_empty()),
            "{warning:?}"
        );
    }
    // It goes on from there, with nothing left behind by the first call.
    drop(other);
    dba.run("DELETE FROM pins");
    let until = Instant::now() + Duration::from_secs(20);
    while dba.value("SELECT count(*) FROM cards") != "0" {
        assert!(Instant::now() < until, "{:?}", admin.notices());
        admin.run("CALL tenancy.purge_deleted()");
    }
    admin.refused("42501", "SELECT tenancy_internal.purge_part_of_due('{}', 1)");
    dba.refused("22023", "SET tenancy.deletion_grace = '30 fortnights'");
    red.refused("42501", "SET tenancy.deletion_grace = 0");
    desk.db.login(&desk.app).refused("42501", "CALL tenancy.purge_deleted()");
}
