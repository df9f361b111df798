//! What is wrong with rows.

use crate::cases::{Case, Company};

const NOBODY: &str = "00000000-0000-0000-0000-000000000001";

/// What default checks find, one pass over each table.
const CASES: &[Case] = &[
    Case::new(
        "null_tenant",
        "ALTER TABLE shop.events ALTER tenant_id DROP NOT NULL; INSERT INTO shop.events VALUES (NULL, '2026-06-01', 'left')",
        "shop.events_2026",
    )
    .mended_by("UPDATE shop.events SET tenant_id = tenancy.find_tenant('red') WHERE tenant_id IS NULL"),
    Case::new(
        "unknown_tenant",
        "INSERT INTO shop.events VALUES ('00000000-0000-0000-0000-000000000001', '2027-06-01', 'left')",
        "shop.events_2027",
    )
    .mended_by("SELECT tenancy.create_tenant('late', id => '00000000-0000-0000-0000-000000000001')"),
    // A foreign key that does not hold the tenant
    Case::new(
        "foreign_parent",
        "ALTER TABLE shop.customers ADD UNIQUE (id);
         ALTER TABLE shop.orders DROP CONSTRAINT orders_customer_fkey,
             ADD CONSTRAINT loose FOREIGN KEY (customer) REFERENCES shop.customers (id);
         UPDATE shop.orders SET customer = (SELECT id FROM shop.customers WHERE name = 'Cem') WHERE item = 'lamp of Ann'",
        "loose on shop.orders",
    )
    .mended_by("DELETE FROM shop.orders WHERE item = 'lamp of Ann'"),
    // No foreign key at all, and a parent whose key is unique within a tenant only
    Case::new(
        "foreign_parent",
        "ALTER TABLE shop.orders DROP CONSTRAINT orders_customer_fkey;
         SELECT tenancy.register_reference('shop.orders', '{customer}', 'shop.customers', '{id}');
         UPDATE shop.orders SET customer = (SELECT id FROM shop.customers WHERE name = 'Cem') WHERE item = 'lamp of Ann'",
        "shop.orders",
    )
    .mended_by("SELECT tenancy.unregister_reference('shop.orders', '{customer}')"),
    Case::new(
        "orphan_rows",
        "SELECT tenancy.register_reference('shop.events', '{what}', 'shop.countries', '{code}');
         UPDATE shop.events SET what = NULL WHERE what <> 'left';
         INSERT INTO shop.events SELECT tenancy.find_tenant('red'), '2027-01-01', w FROM unnest('{fr,xx,NULL}'::text[]) w",
        "shop.events_2027",
    )
    .mended_by("DELETE FROM shop.events WHERE what = 'xx'"),
    Case::new(
        "orphan_rows",
        "ALTER TABLE shop.orders DROP CONSTRAINT orders_customer_fkey;
         UPDATE shop.orders SET customer = 4711 WHERE item = 'lamp of Bob';
         ALTER TABLE shop.orders ADD CONSTRAINT late FOREIGN KEY (tenant_id, customer) REFERENCES shop.customers (tenant_id, id)
             NOT VALID",
        "late on shop.orders",
    ),
    Case::new(
        "wrong_partition",
        "CREATE TABLE shop.visits (tenant_id uuid NOT NULL, happened date);
         CREATE TABLE shop.visits_late () INHERITS (shop.visits);
         SELECT tenancy.protect_table('shop.visits');
         INSERT INTO shop.visits_late SELECT tenancy.find_tenant('red'), d FROM unnest('{2026-01-01,2027-01-01}'::date[]) d;
         ALTER TABLE shop.visits_late ADD CONSTRAINT late CHECK (happened >= '2027-01-01') NOT VALID",
        "late on shop.visits_late",
    )
    .mended_by("DELETE FROM shop.visits_late WHERE happened < '2027-01-01'"),
    Case::new(
        "user_table_rule",
        "CREATE TABLE shop.users (name text, tenant_id uuid, is_root boolean);
         SELECT tenancy.protect_table('shop.users', access => 'shared');
         SELECT tenancy.register_user_table('shop.users', 'is_root');
         INSERT INTO shop.users VALUES ('root', NULL, true), ('ann', tenancy.find_tenant('red'), false),
             ('cem', tenancy.find_tenant('blue'), NULL), ('nobody', NULL, false), ('both', tenancy.find_tenant('red'), true)",
        "shop.users",
    )
    .mended_by("DELETE FROM shop.users WHERE name IN ('nobody', 'both')"),
    Case::new(
        "duplicate_number",
        "SELECT tenancy.register_number('shop.orders', 'number');
         UPDATE shop.orders SET number = 1 WHERE item = 'lamp of Bob'",
        "shop.orders",
    )
    .mended_by("UPDATE shop.orders SET number = 2 WHERE item = 'lamp of Bob'"),
    Case::new(
        "number_gap",
        "SELECT tenancy.register_number('shop.orders', 'number');
         UPDATE shop.orders SET number = 5 WHERE item = 'lamp of Bob'",
        "shop.orders",
    )
    .mended_by("SELECT tenancy.unregister_number('shop.orders', 'number')"),
    Case::new(
        "duplicate_key",
        "SELECT tenancy.register_unique('shop.events', '{what}')",
        "shop.events",
    )
    .mended_by("SELECT tenancy.unregister_unique('shop.events', '{what}')"),
    Case::new(
        "audit_without_tenant",
        "SELECT tenancy.audit_table('shop.orders');
         UPDATE shop.orders SET item = 'table';
         UPDATE tenancy_internal.audit_chunks SET tenant_id = NULL, occurred_at = occurred_at + interval '1 s'
          WHERE tenant_id = tenancy.find_tenant('blue')",
        "shop.orders",
    )
    .mended_by("UPDATE tenancy_internal.audit_chunks SET tenant_id = tenancy.find_tenant('blue') WHERE tenant_id IS NULL"),
];

#[test]
fn each_check_of_rows_finds_its_defect_and_nothing_else() {
    let company = Company::open();
    for case in CASES {
        if case.check == "orphan_rows" && case.mend.is_none() {
            // Its remedy commits: tests/integrity/orphans.rs runs it.
            company.dba.run("BEGIN; SET LOCAL tenancy.ddl_guard = off");
            company.dba.run(case.seed);
            assert_eq!(company.findings("data"), [format!("{}|{}", case.check, case.object)]);
            company.dba.sees(
                "SELECT remedy FROM tenancy.check_integrity('data')",
                &["CALL tenancy.repair_orphans('shop.orders', 'late', 'quarantine', dry_run => false)"],
            );
            company.dba.run("ROLLBACK");
        } else {
            company.tries("data", case);
        }
    }

    // How many, whose, and which: of all kinds alike, and no more of them than asked for.
    let dba = &company.dba;
    dba.run(&format!(
        "BEGIN; INSERT INTO shop.events SELECT '{NOBODY}', '2026-06-01', n::text FROM generate_series(1, 7) n;
         SELECT tenancy.register_number('shop.orders', 'number'), tenancy.register_unique('shop.customers', '{{country,name}}');
         INSERT INTO shop.customers (tenant_id, name, country) SELECT tenancy.find_tenant('red'), 'Ann', 'de' FROM generate_series(1, 2);
         UPDATE shop.orders SET number = 9007199254740993 - 9007199254740986 WHERE item = 'lamp of Bob'"
    ));
    dba.sees(
        "SELECT check_id, row_count, tenant = (SELECT id::text FROM tenancy.tenants WHERE code = 'red'), sample_rows - 'x'
           FROM tenancy.check_integrity('data', sample => 1) WHERE check_id <> 'unknown_tenant'
          ORDER BY check_id",
        &[
            &format!("duplicate_key|2|t|[{{\"name\": \"Ann\", \"rows\": 3, \"tenant\": \"{0}\", \"country\": \"de\"}}]", red(dba)),
            &format!("number_gap|5|t|[{{\"after\": 1, \"before\": 7, \"tenant\": \"{0}\"}}]", red(dba)),
        ],
    );
    dba.sees(
        "SELECT row_count, tenant, jsonb_array_length(sample_rows), sample_rows -> 0 ->> 'what' FROM tenancy.check_integrity('data')
          WHERE check_id = 'unknown_tenant'",
        &[&format!("7|{NOBODY}|5|1")],
    );
    dba.sees("SELECT count(*) FROM tenancy.check_integrity('data', tables => '{shop.countries,shop.notes}')", &["0"]);
    dba.sees(
        "SELECT check_id FROM tenancy.check_integrity('data', tables => '{shop.events}', sample => 0) WHERE sample_rows IS NULL",
        &["unknown_tenant"],
    );
    dba.run("ROLLBACK");
}

#[test]
fn rows_of_a_deleted_tenant_are_found_after_its_grace_and_purged() {
    let company = Company::open();
    let dba = &company.dba;
    dba.run("SELECT tenancy.delete_tenant('blue')");
    assert!(company.findings("data").is_empty());
    dba.run(
        "CREATE TABLE shop.words (tenant text NOT NULL, id int); SELECT tenancy.protect_table('shop.words', 'tenant');
         CREATE TABLE shop.counts (account bigint NOT NULL, id int); SELECT tenancy.protect_table('shop.counts', 'account');
         INSERT INTO shop.words VALUES ('blue', 1); INSERT INTO shop.counts SELECT number, 1 FROM tenancy.tenants WHERE code = 'blue';
         UPDATE tenancy.tenants SET deleted_at = now() - interval '31 days' WHERE code = 'blue'",
    );
    const FOUND: [&str; 5] = ["shop.counts", "shop.customers", "shop.events_2026", "shop.orders", "shop.words"];
    assert_eq!(company.findings("data"), FOUND.map(|table| format!("deleted_tenant_rows|{table}")));
    // Whatever key a table has, one call for the tenant; none where the rows are of several.
    const REMEDIES: &str = "SELECT DISTINCT remedy FROM tenancy.check_integrity('data')";
    const CALL: &str = "CALL tenancy.purge_tenant('blue', confirm => 'blue', dry_run => false)";
    dba.sees(REMEDIES, &[CALL]);
    dba.run("BEGIN; UPDATE tenancy.tenants SET status = 'deleted', deleted_at = '2020-01-01' WHERE code = 'red'");
    dba.sees("SELECT remedy FROM tenancy.check_integrity('data', tables => '{shop.customers}')", &["NULL"]);
    dba.run("ROLLBACK");
    dba.run(CALL);
    assert!(company.findings("data").is_empty());
    dba.sees("SELECT count(*) FROM shop.customers", &["2"]);
}

fn red(dba: &pg_tenancy_tests::Session) -> String {
    dba.value("SELECT id::text FROM tenancy.tenants WHERE code = 'red'")
}

#[test]
fn deep_checks_read_what_constraints_promise() {
    let company = Company::open();
    let dba = &company.dba;
    let deep = "SELECT check_id || '|' || object || '|' || row_count FROM tenancy.check_integrity('data', deep => true) ORDER BY 1";
    dba.sees(deep, &[]);
    // What replication, restore and superusers can do behind constraints
    dba.run(
        "BEGIN; SET LOCAL tenancy.ddl_guard = off; SET LOCAL session_replication_role = replica;
         UPDATE shop.orders SET customer = 4711 WHERE item = 'lamp of Bob';
         UPDATE shop.customers SET country = 'xx' WHERE name = 'Cem';
         SET LOCAL session_replication_role = origin;
         ALTER TABLE shop.events DETACH PARTITION shop.events_2027;
         INSERT INTO shop.events_2027 SELECT tenancy.find_tenant('red'), '2026-03-01', 'early' FROM generate_series(1, 2);
         ALTER TABLE shop.events_2027 ADD CONSTRAINT bounds
             CHECK (happened IS NOT NULL AND happened >= '2027-01-01' AND happened < '2028-01-01') NOT VALID;
         UPDATE pg_constraint SET convalidated = true WHERE conname = 'bounds';
         ALTER TABLE shop.events ATTACH PARTITION shop.events_2027 FOR VALUES FROM ('2027-01-01') TO ('2028-01-01');
         UPDATE pg_attribute SET attnotnull = false WHERE attrelid = 'shop.events_2026'::regclass AND attname = 'tenant_id';
         INSERT INTO shop.events_2026 VALUES (NULL, '2026-04-01');
         UPDATE pg_attribute SET attnotnull = true WHERE attrelid = 'shop.events_2026'::regclass AND attname = 'tenant_id'",
    );
    dba.sees(
        deep,
        &[
            "null_tenant|shop.events_2026|1",
            "orphan_rows|customers_country_fkey on shop.customers|1",
            "orphan_rows|orders_customer_fkey on shop.orders|1",
            "wrong_partition|shop.events_2027|2",
        ],
    );
    // Without it they are trusted, but for what is seen in passing.
    assert_eq!(company.findings("data"), ["null_tenant|shop.events_2026"]);
    dba.run("ROLLBACK");
}

#[test]
fn rows_are_read_with_the_callers_rights_and_what_he_cannot_read_is_said() {
    let company = Company::open();
    let (db, dba) = (&company.db, &company.dba);
    let admin = db.role("admin", "");
    dba.run(&format!("SELECT tenancy.grant_admin('{admin}'); GRANT USAGE ON SCHEMA shop TO {admin}"));
    let admin = db.login(&admin);
    let name = admin.value("SELECT quote_ident(current_user)");
    let told = "SELECT check_id, severity, object, detail FROM tenancy.check_integrity('data') ORDER BY object";
    admin.sees(
        told,
        &[
            &format!("not_examined|warning|shop.customers|{name} may not read shop.customers"),
            &format!("not_examined|warning|shop.events_2026|{name} may not read shop.events_2026"),
            &format!("not_examined|warning|shop.events_2027|{name} may not read shop.events_2027"),
            &format!("not_examined|warning|shop.orders|{name} may not read shop.orders"),
        ],
    );
    // Row security would show him nothing, or one tenant: that would not do for a check.
    dba.run(&format!("GRANT SELECT ON shop.orders TO {name}"));
    let shown = "SELECT detail FROM tenancy.check_integrity('data', tables => '{shop.orders}')";
    admin.sees(shown, &[&format!("row security does not show {name} all rows of shop.orders")]);
    admin.run("BEGIN; SELECT tenancy.set_tenant('red')");
    admin.sees(shown, &[&format!("row security does not show {name} all rows of shop.orders")]);
    admin.run("ROLLBACK");
    // One table that fails does not keep the others from being examined, nor does a lock that is held.
    dba.run(&format!("ALTER ROLE {name} BYPASSRLS; GRANT SELECT ON ALL TABLES IN SCHEMA shop TO {name}"));
    admin.sees("SELECT count(*) FROM tenancy.check_integrity('data')", &["0"]);
    dba.run("BEGIN; LOCK TABLE shop.orders");
    admin.run("SET lock_timeout = '10ms'");
    admin.sees(told, &["not_examined|warning|shop.orders|canceling statement due to lock timeout"]);
    dba.run("ROLLBACK");
    admin.sees("SELECT count(*) FROM tenancy.check_integrity('data')", &["0"]);
    // Nothing is written.
    dba.run(&format!("INSERT INTO shop.events VALUES ('{NOBODY}', '2026-06-01', 'left')"));
    admin.run("BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE READ ONLY");
    admin.sees("SELECT check_id, object FROM tenancy.check_integrity('data')", &["unknown_tenant|shop.events_2026"]);
    admin.sees(
        "SELECT check_id, object FROM tenancy.check_integrity('data', deep => true)",
        &["unknown_tenant|shop.events_2026"],
    );
    admin.sees("SELECT pg_current_xact_id_if_assigned() IS NULL", &["t"]);
    admin.run("COMMIT");
    admin.sees(
        "SELECT relation::regclass::text, row_count, is_clean
           FROM tenancy_internal.tally_rows('{shop.orders,shop.notes,shop.events}'::regclass[]::oid[], '{2,1,1}', '{t,f,f}', '{}', '{}', '{}')",
        &["shop.orders|3|f", "shop.notes|0|t"],
    );
}

#[test]
fn every_kind_of_key_and_name_and_no_code_of_an_owner() {
    let company = Company::open();
    let dba = &company.dba;
    let owner = company.owner.to_string();
    // Types of a user have casts of his own, which to_jsonb and comparisons would call with the rights of who reads.
    dba.run(&format!(
        r#"CREATE TABLE public.crimes (who name);
           GRANT INSERT ON public.crimes TO PUBLIC;
           SET ROLE {owner};
           CREATE TYPE shop.mood AS ENUM ('good', 'bad');
           CREATE FUNCTION shop.spy(shop.mood) RETURNS json LANGUAGE plpgsql IMMUTABLE AS
               'BEGIN RAISE EXCEPTION ''ran as %'', current_user; END';
           CREATE CAST (shop.mood AS json) WITH FUNCTION shop.spy(shop.mood);
           CREATE FUNCTION shop.spy_text(shop.mood) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
               'BEGIN RAISE EXCEPTION ''ran as %'', current_user; END';
           CREATE CAST (shop.mood AS text) WITH FUNCTION shop.spy_text(shop.mood) AS IMPLICIT;
           CREATE TABLE shop."s < e" (id int PRIMARY KEY, "quo""te" bigint, mood shop.mood, moods shop.mood[], boss int);
           CREATE TABLE shop."Coded" (tenant_id varchar(40), id int, boss int);
           CREATE TABLE shop.mixed (tenant_id integer, id int, boss int, mood shop.mood);
           RESET ROLE;
           SELECT tenancy.protect_table('shop."s < e"', tenant_column => 'quo"te'),
                  tenancy.protect_table('shop."Coded"'), tenancy.protect_table('shop.mixed');
           SELECT tenancy.register_reference('shop."s < e"', '{{boss}}', 'shop.mixed', '{{id}}'),
                  tenancy.register_reference('shop."Coded"', '{{boss}}', 'shop."s < e"', '{{id}}'),
                  tenancy.register_reference('shop.mixed', '{{boss}}', 'shop."Coded"', '{{id}}');
           INSERT INTO shop."s < e" SELECT number, number, 'good', '{{bad,good}}', NULL FROM tenancy.tenants;
           INSERT INTO shop."Coded" SELECT code, number, number FROM tenancy.tenants;
           INSERT INTO shop.mixed SELECT number, number, number, 'bad' FROM tenancy.tenants"#
    ));
    let none: &[&str] = &[];
    assert_eq!(company.findings("data"), none);
    dba.run(
        r#"BEGIN; INSERT INTO shop."s < e" VALUES (-1, 4711, 'good', '{bad}', NULL);
           INSERT INTO shop."Coded" VALUES ('nobody', 1, NULL), (repeat('x', 40), 2, NULL);
           INSERT INTO shop.mixed VALUES (4711, 1, NULL, 'good')"#,
    );
    dba.sees(
        r#"SELECT check_id, object, row_count, tenant, sample_rows -> 0 ->> 'mood', sample_rows -> 0 ->> 'moods'
             FROM tenancy.check_integrity('data') ORDER BY object"#,
        &[
            r#"unknown_tenant|shop."Coded"|2|NULL|NULL|NULL"#,
            r#"unknown_tenant|shop."s < e"|1|4711|good|{bad}"#,
            "unknown_tenant|shop.mixed|1|4711|good|NULL",
        ],
    );
    dba.run(
        r#"ROLLBACK; BEGIN;
           UPDATE shop."Coded" SET boss = (SELECT number FROM tenancy.tenants WHERE code = 'blue') WHERE tenant_id = 'red';
           UPDATE shop.mixed SET boss = 0 WHERE id = (SELECT number FROM tenancy.tenants WHERE code = 'blue')"#,
    );
    dba.sees(
        "SELECT check_id, object, row_count, remedy FROM tenancy.check_integrity('data', deep => true) ORDER BY object",
        &[r#"foreign_parent|shop."Coded"|1|NULL"#, "orphan_rows|shop.mixed|1|NULL"],
    );
    dba.run("ROLLBACK");
    // A user's own type beside another one is not compared at all.
    dba.refused("42804", r#"SELECT tenancy.register_reference('shop.mixed', '{mood}', 'shop.countries', '{code}')"#);
    dba.run(r#"SELECT tenancy.register_unique('shop.mixed', '{mood}'); INSERT INTO shop.mixed SELECT tenant_id, 9, NULL, 'bad' FROM shop.mixed"#);
    dba.sees(
        "SELECT check_id, row_count, sample_rows -> 0 ->> 'mood' FROM tenancy.check_integrity('data')",
        &["duplicate_key|2|bad"],
    );
    dba.run(r#"ALTER TABLE shop.mixed DROP COLUMN mood CASCADE"#);
    dba.sees("SELECT check_id, object FROM tenancy.check_integrity('data')", &["not_examined|shop.mixed"]);
    dba.sees("SELECT count(*) FROM public.crimes", &["0"]);
}

#[test]
fn a_hint_is_registered_once_and_only_about_what_there_is() {
    let company = Company::open();
    let dba = &company.dba;
    for (sqlstate, call) in [
        ("42703", "register_number('shop.orders', 'nummer')"),
        ("42804", "register_number('shop.orders', 'item')"),
        ("42704", "register_number('shop.notes', 'id')"),
        ("22023", "register_number('shop.orders', NULL)"),
        ("22023", "register_number(NULL, 'number')"),
        ("22023", "register_unique('shop.orders', '{}')"),
        ("42701", "register_unique('shop.orders', '{item,item}')"),
        ("42809", "register_unique('tenancy.integrity_hints', '{kind}')"),
        ("42703", "register_reference('shop.orders', '{customer}', 'shop.customers', '{nummer}')"),
        ("22023", "register_reference('shop.orders', '{customer}', 'shop.customers', '{id,name}')"),
        ("42804", "register_reference('shop.orders', '{customer}', 'shop.customers', '{name}')"),
        ("22023", "register_reference('shop.orders', '{customer}', NULL, '{id}')"),
        ("42804", "register_user_table('shop.customers', 'name')"),
        ("42704", "unregister_number('shop.orders', 'number')"),
        ("42704", "unregister_reference('shop.orders', NULL)"),
        ("42704", "unregister_unique('shop.orders', '{item}')"),
        ("42704", "unregister_user_table('shop.orders')"),
    ] {
        let told = dba.refused(sqlstate, &format!("SELECT tenancy.{call}"));
        assert!(told.hint().is_some_and(|hint| hint.ends_with('.') || hint.contains("SELECT")), "{call} has no hint");
    }
    dba.run("ALTER TABLE shop.customers ADD is_root boolean, ADD is_chief boolean");
    for _ in 0..2 {
        dba.run(
            "SELECT tenancy.register_number('shop.orders', 'number'), tenancy.register_unique('shop.orders', '{item,number}'),
                    tenancy.register_reference('shop.orders', '{customer}', 'shop.customers', '{id}'),
                    tenancy.register_user_table('shop.customers', 'is_root'), tenancy.register_user_table('shop.customers', 'is_chief')",
        );
    }
    dba.sees(
        "SELECT kind, relation, columns, parent, parent_columns FROM tenancy.integrity_hints ORDER BY kind",
        &[
            "number|shop.orders|{number}|NULL|NULL",
            "reference|shop.orders|{customer}|shop.customers|{id}",
            "unique|shop.orders|{item,number}|NULL|NULL",
            "user_table|shop.customers|{is_chief,tenant_id}|NULL|NULL",
        ],
    );
    // A column that is gone cannot be looked at, a table that is gone need not be.
    dba.run("SET tenancy.ddl_guard = off; ALTER TABLE shop.orders DROP COLUMN number, DROP COLUMN customer");
    dba.sees(
        "SELECT check_id, object, count(*) FROM tenancy.check_integrity('data') WHERE object = 'shop.orders' GROUP BY 1, 2",
        &["not_examined|shop.orders|3"],
    );
    dba.run("DROP TABLE shop.orders");
    dba.sees("SELECT count(*) FROM tenancy.check_integrity('data') WHERE check_id = 'not_examined'", &["0"]);
    dba.sees("SELECT kind FROM tenancy.integrity_hints", &["user_table"]);
}
