//! Code of a table's owner, who may be anybody, does not run with the rights of the extension's owner.

use pg_tenancy_tests::{Db, Role, Session, Tenant};

struct Shop {
    db: Db,
    dba: Session,
    /// Owns tables and functions, and is an administrator too, but no superuser.
    mallory: Role,
    steward: Session,
    red: Tenant,
    blue: Tenant,
    /// A foreign key compares through a cast of the owner's.
    casts: bool,
}

/// From 18 on a foreign key compares types that are both collatable, or neither is: no cast that a user can make is in it.
fn compares_through_casts(session: &Session) -> bool {
    session.value("SELECT current_setting('server_version_num')::int < 180000") == "t"
}

/// Functions that note whose rights they run with, and what calls them: the planner, a comparison, the end of a transaction.
const TRAPS: &str = r#"
CREATE FUNCTION shop.folded(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM public.note('index'); RETURN $1; END $$;
CREATE FUNCTION shop.put_off() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM public.note('deferred'); RETURN NULL; END $$;
CREATE TYPE shop.key AS ENUM ('k', 'l');
CREATE FUNCTION shop.inlined(shop.key) RETURNS text LANGUAGE sql AS $$ SELECT public.note('cast') || pg_catalog.concat($1) $$;
CREATE CAST (shop.key AS text) WITH FUNCTION shop.inlined(shop.key) AS IMPLICIT;
CREATE TABLE shop.orders (tenant_id uuid NOT NULL, k text UNIQUE, at date DEFAULT current_date - 9);
CREATE TABLE shop.lines (tenant_id uuid NOT NULL, k KEY REFERENCES shop.orders (k), at date DEFAULT current_date - 9);
CREATE TABLE shop.mails (tenant_id uuid NOT NULL, id int, at date DEFAULT current_date - 9);
SELECT tenancy.protect_table('shop.orders'), tenancy.protect_table('shop.lines'), tenancy.protect_table('shop.mails');
SELECT tenancy.set_retention('shop.orders', 'at', '1 day'), tenancy.set_retention('shop.lines', 'at', '1 day'),
       tenancy.set_retention('shop.mails', 'at', '1 day');
CREATE CONSTRAINT TRIGGER put_off AFTER DELETE ON shop.mails DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION shop.put_off();
CREATE INDEX folded ON shop.lines (shop.folded('constant'), at);
"#;

impl Shop {
    fn open() -> Self {
        let db = Db::new();
        let dba = db.admin();
        let (red, blue) = (db.tenant("red"), db.tenant("blue"));
        let (mallory, steward) = (db.role("mallory", ""), db.role("steward", ""));
        dba.run(&format!(
            "CREATE TABLE noted (what text, who name); GRANT INSERT ON noted TO PUBLIC;
             CREATE FUNCTION note(text) RETURNS text LANGUAGE plpgsql AS $$
             BEGIN IF current_user = 'postgres' THEN RAISE WARNING 'trapped by %', $1; END IF; RETURN ''; END $$;
             CREATE SCHEMA shop AUTHORIZATION {mallory};
             SELECT tenancy.grant_admin('{mallory}'), tenancy.grant_admin('{steward}')"
        ));
        let (casts, key) = if compares_through_casts(&dba) { (true, "shop.key") } else { (false, "text") };
        db.login(&mallory).run(&TRAPS.replace("KEY", key));
        // Those of whoever writes are not at stake.
        dba.run(&format!(
            "INSERT INTO shop.orders SELECT id, CASE code WHEN 'red' THEN 'k' ELSE 'l' END FROM tenancy.tenants;
             INSERT INTO shop.lines SELECT tenant_id, k::{key} FROM shop.orders;
             INSERT INTO shop.mails SELECT id, 1 FROM tenancy.tenants;
             SELECT tenancy.suspend_tenant('red')"
        ));
        dba.notices();
        let steward = db.login(&steward);
        Self { db, dba, mallory, steward, red, blue, casts }
    }

    fn trapped(&self, session: &Session) -> Vec<String> {
        let all = session.notices();
        all.iter().map(|notice| notice.message().to_owned()).filter(|message| message.contains("trapped by")).collect()
    }
}

#[test]
fn code_of_a_tables_owner_gets_no_rights_of_others() {
    let shop = Shop::open();
    let none: [&str; 0] = [];
    // Whoever calls, be it a superuser or pg_cron for him. In his own session the planner knows the constants that he paid for.
    for session in [&shop.db.admin(), &shop.steward] {
        session.refused("42501", "SELECT * FROM tenancy.plan_purge('red')");
        let refused = session.refused("42501", "CALL tenancy.purge_tenant('red', 'red', dry_run => false)");
        assert!(refused.message().starts_with("function folded would run") && refused.hint().is_some(), "{refused:?}");
        session.run("CALL tenancy.run_retention()");
        session.run("CALL tenancy.maintain()");
        session.run("SELECT * FROM tenancy.check_integrity(deep => true)");
        assert_eq!(shop.trapped(session), none);
    }
    // The rows of the table without such an index are gone; its deferred trigger did not fire.
    shop.dba.sees("SELECT (SELECT count(*) FROM shop.mails), (SELECT count(*) FROM shop.lines)", &["0|2"]);
    // maintain() has made statistics, so the planner of this session asked the index anew: that is the query's own doing.
    shop.dba.notices();
    shop.db.admin().sees(
        "SELECT object, detail FROM tenancy.check_integrity('data', deep => true) WHERE check_id = 'not_examined' AND detail LIKE 'function%'",
        &["shop.lines|function folded would run with the rights of a superuser"],
    );
    // Without the index there is the cast; a function that a superuser answers for is let through.
    shop.dba.run("DROP INDEX shop.folded");
    shop.steward.run("CALL tenancy.run_retention()");
    if shop.casts {
        shop.dba.sees(
            "SELECT failure FROM tenancy.retention_rules WHERE relation = 'shop.orders'::regclass",
            &["shop.orders: function inlined would run with the rights of a superuser"],
        );
    }
    assert_eq!(shop.trapped(&shop.steward), none);
    shop.dba.run("ALTER FUNCTION shop.inlined OWNER TO postgres; ALTER FUNCTION public.note(text) OWNER TO postgres");
    // A rule that came after the purge began would be done with all rights.
    let begin = "SELECT tenancy_internal.begin_purge_step('red', 'red', false, 10, NULL, 0, false)";
    let purge = shop.steward.value(begin);
    let owner = shop.db.login(&shop.mallory);
    owner.run("CREATE RULE too AS ON DELETE TO shop.lines DO ALSO SELECT public.note('rule')");
    shop.steward.refused("55000", &format!("SELECT tenancy_internal.purge_step({purge})"));
    owner.run("DROP RULE too ON shop.lines");
    shop.steward.run("CALL tenancy.purge_tenant('red', 'red', dry_run => false)");
    shop.dba.sees("SELECT count(*) FROM shop.orders WHERE k = 'k'", &["0"]);

    // Names alone prove nothing: neither a schema named cron nor a table named as an archive.
    shop.dba.run(&format!(
        "CREATE SCHEMA cron AUTHORIZATION {0}; CREATE TABLE mails (tenant_id uuid NOT NULL, at date);
         CREATE TABLE mails_archive (tenant_id uuid NOT NULL, at date); ALTER TABLE mails_archive OWNER TO {0};
         SELECT tenancy.protect_table('mails')",
        shop.mallory
    ));
    owner.run(
        "CREATE TABLE cron.job (); CREATE FUNCTION cron.schedule(text, text, text) RETURNS bigint LANGUAGE sql
         AS $$ SELECT length(public.note('cron')) $$",
    );
    let told = shop.dba.value("SELECT tenancy.schedule_maintenance('0 3 * * *')");
    assert!(told.starts_with("pg_cron is not installed"), "{told}");
    shop.dba.refused("42501", "SELECT tenancy.set_retention('mails', 'at', '1 day', action => 'archive')");
    let long = "m".repeat(60);
    shop.dba.run(&format!(
        "CREATE TABLE {long}_1 (tenant_id uuid NOT NULL, at date); CREATE TABLE {long}_2 (LIKE {long}_1);
         SELECT tenancy.protect_table('{long}_1'), tenancy.protect_table('{long}_2');
         SELECT tenancy.set_retention('{long}_1', 'at', '1 day', action => 'archive')"
    ));
    shop.dba.refused("42710", &format!("SELECT tenancy.set_retention('{long}_2', 'at', '1 day', action => 'archive')"));
    // A session that is at no work does not say of another's that it is done.
    let job = shop.dba.value("SELECT tenancy_internal.begin_expiry_step('retention')");
    for forged in ["end_expiry_step", "end_maintenance_step"] {
        shop.steward.refused("55000", &format!("SELECT tenancy_internal.{forged}({job}, 'done')"));
    }
    shop.steward.refused("55000", "SELECT tenancy_internal.open_maintenance_step(1, 5)");
    shop.steward.refused(
        "55000",
        &format!("SELECT tenancy_internal.close_maintenance_step({job}, 1, 5, '{{\"over\": true}}')"),
    );
    shop.steward.refused("22023", "SELECT tenancy_internal.begin_expiry_step('purge')");
    shop.steward.sees(&format!("SELECT state FROM tenancy.jobs WHERE id = {job}"), &["running"]);
    shop.steward.refused("22023", "SELECT tenancy_internal.tally_rows('{NULL}', '{1}', '{f}', '{}', '{}', '{}')");
    shop.steward.run("SELECT * FROM tenancy.diagnose()");
    assert_eq!(shop.trapped(&shop.dba), none);

    // Repairing a table is its owner's work, whoever has it done.
    owner.run(
        "CREATE TABLE shop.heads (tenant_id uuid NOT NULL, id int, PRIMARY KEY (tenant_id, id));
         CREATE TABLE shop.tails (tenant_id uuid NOT NULL, head int);
         SELECT tenancy.protect_table('shop.heads'), tenancy.protect_table('shop.tails');
         CREATE FUNCTION shop.pull() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM public.note('trigger'); RETURN OLD; END $$;
         CREATE TRIGGER pull BEFORE DELETE ON shop.tails FOR EACH ROW EXECUTE FUNCTION shop.pull();
         CREATE CONSTRAINT TRIGGER put_off AFTER DELETE ON shop.tails DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION shop.put_off()",
    );
    shop.dba.run(&format!("INSERT INTO shop.tails VALUES ('{0}', 7), ('{0}', 8)", shop.blue.id));
    owner.run("ALTER TABLE shop.tails ADD CONSTRAINT fk FOREIGN KEY (tenant_id, head) REFERENCES shop.heads NOT VALID");
    shop.dba.run("CALL tenancy.repair_orphans('shop.tails', 'fk', 'quarantine', dry_run => false)");
    shop.dba.sees(
        "SELECT q.row ->> 'head', q.tenant = t.id::text FROM tenancy.quarantined_rows q, tenancy.tenants t WHERE t.code = 'blue' ORDER BY 1",
        &["7|t", "8|t"],
    );
    shop.dba.sees("SELECT convalidated FROM pg_constraint WHERE conname = 'fk'", &["t"]);
    assert_eq!(shop.trapped(&shop.dba), none);
}

#[test]
fn what_changes_during_a_purge_is_not_taken_for_the_tenants() {
    let shop = Shop::open();
    shop.dba.run("DROP TABLE shop.lines, shop.orders");
    // A batch at work keeps undeleting and holding waiting: nothing goes after them.
    let begin = "SELECT tenancy_internal.begin_purge_step('red', 'red', false, 10, NULL, 0, false)";
    let purge = shop.steward.value(begin);
    shop.steward.run(&format!("BEGIN; SELECT tenancy_internal.purge_step({purge})"));
    shop.dba.run("SET lock_timeout = '50ms'");
    shop.dba.refused("55P03", "SELECT tenancy.undelete_tenant('red')");
    shop.dba.refused("55P03", "SELECT tenancy.set_legal_hold('red', 'case')");
    shop.steward.run("ROLLBACK");
    shop.dba.run("SELECT tenancy.undelete_tenant('red')");

    // Codes that read like the bounds of partitions of others.
    shop.dba.run(
        "CREATE TABLE words (tenant text, id int) PARTITION BY LIST (tenant);
         CREATE TABLE words_all PARTITION OF words FOR VALUES IN (NULL);
         CREATE TABLE words_two PARTITION OF words FOR VALUES IN ('red', 'blue');
         CREATE TABLE words_rest PARTITION OF words DEFAULT;
         SELECT tenancy.protect_table('words', 'tenant', 'shared');
         INSERT INTO words VALUES (NULL, 1), ('red', 2), ('blue', 3);
         SELECT tenancy.create_tenant(c), tenancy.delete_tenant(c) FROM unnest(ARRAY['NULL', '''red'', ''blue''']) c",
    );
    for code in ["NULL", "'red', 'blue'"] {
        let code = code.replace('\'', "''");
        shop.steward.run(&format!("CALL tenancy.purge_tenant('{code}', '{code}', dry_run => false)"));
    }
    shop.dba.sees("SELECT id FROM words ORDER BY id", &["1", "2", "3"]);

    // Deleted rows of a tenant in legal hold are not removed with soft delete.
    shop.dba.run(&format!(
        "SELECT tenancy.enable_soft_delete('shop.mails'), tenancy.set_legal_hold('blue', 'case 9');
         UPDATE shop.mails SET deleted_at = now() WHERE tenant_id = '{}'",
        shop.blue.id
    ));
    shop.dba.refused("55000", "SELECT tenancy.disable_soft_delete('shop.mails', 'purge')");
    shop.dba.run("SELECT tenancy.release_legal_hold('blue'), tenancy.disable_soft_delete('shop.mails', 'purge')");
    shop.dba.sees("SELECT tenant_id FROM shop.mails", &[&shop.red.id.to_string()]);

    // Columns that stamps go to are looked at before they are written: they might be of another type by now.
    shop.dba.run("SELECT tenancy.enable_stamps('shop.mails'), tenancy.enable_soft_delete('shop.mails')");
    for (column, other) in [("created_at", "text"), ("updated_by", "bigint USING 1")] {
        shop.dba.run(&format!("BEGIN; ALTER TABLE shop.mails ALTER {column} TYPE {other}"));
        shop.dba.refused("55000", &format!("INSERT INTO shop.mails VALUES ('{}', 2)", shop.red.id));
        shop.dba.run("ROLLBACK");
    }
}
