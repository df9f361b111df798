//! What protects a table, and tables that nothing protects.

use super::cases::{Case, Company};
use pg_tenancy_tests::{NASTY_NAMES, Session, quote_ident, quote_literal};

/// What protect_table made and somebody took away.
const LOST: &[Case] = &[
    Case::new("row_security_off", "ALTER TABLE shop.t1 DISABLE ROW LEVEL SECURITY", "shop.t1"),
    Case::new("row_security_off", "ALTER TABLE shop.events_2026 DISABLE ROW LEVEL SECURITY", "shop.events_2026"),
    Case::new("row_security_not_forced", "ALTER TABLE shop.countries NO FORCE ROW LEVEL SECURITY", "shop.countries"),
    Case::new("isolation_policy_missing", "DROP POLICY tenancy_isolation ON shop.t2", "shop.t2"),
    Case::new("isolation_policy_missing", "DROP POLICY tenancy_isolation_insert ON shop.countries", "shop.countries"),
    Case::new(
        "isolation_policy_missing",
        "ALTER TABLE shop.t3 RENAME tenant_id TO firm; DROP POLICY tenancy_isolation_delete ON shop.t3",
        "shop.t3",
    ),
    Case::new(
        "isolation_policy_altered",
        "ALTER POLICY tenancy_isolation ON shop.t4 USING (tenant_id = tenancy.current_tenant_id() OR item = 'lamp')",
        "tenancy_isolation on shop.t4",
    ),
    Case::new(
        "isolation_policy_altered",
        "DROP POLICY tenancy_isolation_delete ON shop.events;
         CREATE POLICY tenancy_isolation_delete ON shop.events AS RESTRICTIVE FOR UPDATE USING (tenancy_internal.may_write())",
        "tenancy_isolation_delete on shop.events",
    ),
    Case::new(
        "isolation_policy_altered",
        "DROP POLICY tenancy_isolation ON shop.t5;
         CREATE POLICY tenancy_isolation ON shop.t5 USING (tenant_id = tenancy.current_tenant_id())
             WITH CHECK (tenant_id = tenancy_internal.writing_tenant_id())",
        "tenancy_isolation on shop.t5",
    ),
    Case::new(
        "isolation_policy_without_check",
        "DROP POLICY tenancy_isolation ON shop.t6;
         CREATE POLICY tenancy_isolation ON shop.t6 AS RESTRICTIVE USING (tenant_id = tenancy.current_tenant_id())",
        "tenancy_isolation on shop.t6",
    ),
    Case::new(
        "isolation_policy_narrowed",
        "ALTER POLICY tenancy_isolation ON shop.t7 TO APP, OWNER",
        "tenancy_isolation on shop.t7",
    ),
    Case::new(
        "open_policy_altered",
        "ALTER POLICY tenancy_open ON shop.t8 USING (true)",
        "tenancy_open on shop.t8",
    ),
    Case::new("protected_table_shows_nothing", "DROP POLICY tenancy_open ON shop.t9", "shop.t9"),
    Case::new(
        "protected_table_shows_nothing",
        "CREATE POLICY tenancy_closed ON shop.t10 AS RESTRICTIVE USING (false)",
        "shop.t10",
    ),
    Case::new("truncate_guard_missing", "DROP TRIGGER tenancy_truncate_guard ON shop.events_2027", "shop.events_2027"),
    Case::new(
        "truncate_guard_missing",
        "DROP TRIGGER tenancy_truncate_guard ON shop.t11;
         CREATE TRIGGER tenancy_truncate_guard BEFORE TRUNCATE ON shop.t11 WHEN (false)
             EXECUTE FUNCTION tenancy_internal.refuse_truncate()",
        "shop.t11",
    ),
    Case::new(
        "truncate_guard_disabled",
        "ALTER TABLE shop.t12 DISABLE TRIGGER tenancy_truncate_guard",
        "tenancy_truncate_guard on shop.t12",
    ),
    Case::new(
        "tenant_column_nullable",
        "ALTER TABLE shop.events ALTER COLUMN tenant_id DROP NOT NULL",
        "shop.events.tenant_id",
    ),
    Case::new(
        "tenant_column_default",
        "ALTER TABLE shop.t13 ALTER COLUMN tenant_id SET DEFAULT gen_random_uuid()",
        "shop.t13.tenant_id",
    ),
    Case::new(
        "tenant_reference_missing",
        "SELECT tenancy.protect_table('shop.t14', reference => 'foreign_key');
         ALTER TABLE shop.t14 DROP CONSTRAINT tenancy_tenant_fkey",
        "shop.t14.tenant_id",
    ),
];

/// The users' own policies.
const POLICIES: &[Case] = &[
    Case::new(
        "policy_without_effect",
        "CREATE POLICY lamps ON shop.t15 FOR SELECT USING (item LIKE 'lamp%')",
        "lamps on shop.t15",
    ),
    Case::new(
        "policy_widens",
        "CREATE POLICY lamps ON shop.t16 USING (tenant_id = tenancy.current_tenant_id() OR item LIKE 'lamp%') WITH CHECK (false);
         SELECT tenancy.protect_table('shop.t16')",
        "lamps on shop.t16",
    )
    .mended_by("ALTER POLICY lamps ON shop.t16 USING (item LIKE 'lamp%')"),
    Case::new(
        "policy_trusts_setting",
        "CREATE POLICY mine ON shop.t17 FOR SELECT USING (item = current_setting('my.item', true));
         SELECT tenancy.protect_table('shop.t17')",
        "mine on shop.t17",
    )
    .mended_by("ALTER POLICY mine ON shop.t17 USING (item = current_setting('server_version', true))"),
    Case::new(
        "policy_opened_by_setting",
        "CREATE POLICY mine ON shop.t18 FOR SELECT USING (number < 3 OR current_setting('my.number', true) = 'all');
         SELECT tenancy.protect_table('shop.t18')",
        "mine on shop.t18",
    )
    .mended_by("ALTER POLICY mine ON shop.t18 USING (number < 3)"),
    Case::new(
        "policy_opens_without_context",
        "CREATE TABLE shop.open (org_id int); ALTER TABLE shop.open ENABLE ROW LEVEL SECURITY;
         CREATE POLICY by_org ON shop.open FOR SELECT
             USING (NULLIF(current_setting('my.org_id', true), '') IS NULL OR org_id = current_setting('my.org_id', true)::int)",
        "by_org on shop.open",
    )
    .mended_by("DROP TABLE shop.open"),
    Case::new(
        "policy_by_hand",
        "CREATE TABLE shop.manual (org_id int); ALTER TABLE shop.manual ENABLE ROW LEVEL SECURITY;
         CREATE FUNCTION shop.org() RETURNS int STABLE LANGUAGE sql RETURN current_setting('my.org_id', true)::int;
         CREATE POLICY by_org ON shop.manual USING (org_id = (SELECT shop.org()))",
        "by_org on shop.manual",
    )
    .mended_by("DROP TABLE shop.manual"),
    Case::new(
        "policy_by_hand",
        "CREATE TABLE shop.brittle (customer_id int); ALTER TABLE shop.brittle ENABLE ROW LEVEL SECURITY;
         CREATE POLICY by_customer ON shop.brittle AS RESTRICTIVE USING (customer_id = current_setting('my.customer')::int)",
        "by_customer on shop.brittle",
    )
    .also(&["policy_raises_without_setting|by_customer on shop.brittle"])
    .mended_by("DROP TABLE shop.brittle"),
    Case::new(
        "policy_always_true",
        "CREATE POLICY everything ON shop.t19 FOR SELECT TO APP USING (1 = 1); SELECT tenancy.protect_table('shop.t19')",
        "everything on shop.t19",
    )
    .mended_by("DROP POLICY everything ON shop.t19; SELECT tenancy.protect_table('shop.t19')"),
    Case::new(
        "policy_without_check",
        "CREATE POLICY lamps ON shop.t20 USING (item LIKE 'lamp%'); SELECT tenancy.protect_table('shop.t20')",
        "lamps on shop.t20",
    ),
    Case::new(
        "policy_raises_without_setting",
        "CREATE POLICY mine ON shop.t21 AS RESTRICTIVE USING (item = current_setting('my.''item'))",
        "mine on shop.t21",
    ),
    Case::new(
        "policy_volatile_function",
        "CREATE POLICY luck ON shop.t22 AS RESTRICTIVE USING (random() < 0.5)",
        "luck on shop.t22",
    )
    .mended_by("DROP POLICY luck ON shop.t22"),
    Case::new(
        "policy_function_for_each_row",
        "CREATE FUNCTION shop.\"My item\"() RETURNS text STABLE LANGUAGE sql RETURN 'lamp';
         CREATE POLICY mine ON shop.t23 AS RESTRICTIVE USING (item = shop.\"My item\"())",
        "mine on shop.t23",
    ),
    Case::new(
        "context_function_immutable",
        "CREATE FUNCTION shop.me() RETURNS uuid IMMUTABLE LANGUAGE sql RETURN tenancy.current_tenant_id()",
        "shop.me()",
    ),
    Case::new(
        "context_function_immutable",
        "CREATE FUNCTION shop.me(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN current_setting($1); END $$",
        "shop.me(pg_catalog.text)",
    ),
];

/// Tables that nothing protects, and records that the catalog has left.
const UNPROTECTED: &[Case] = &[
    Case::new(
        "partition_unprotected",
        "CREATE TABLE shop.events_2028 PARTITION OF shop.events FOR VALUES FROM ('2028-01-01') TO ('2029-01-01')",
        "shop.events_2028",
    ),
    Case::new("partition_unprotected", "CREATE TABLE shop.old_orders () INHERITS (shop.orders)", "shop.old_orders"),
    Case::new("tenant_table_unprotected", "CREATE TABLE shop.bills (tenant_id uuid)", "shop.bills"),
    Case::new(
        "tenant_table_unprotected",
        "CREATE DOMAIN shop.tenant AS uuid; CREATE TABLE shop.dues (tenant_id shop.tenant, paid date) PARTITION BY RANGE (paid);
         CREATE TABLE shop.dues_early PARTITION OF shop.dues FOR VALUES FROM (MINVALUE) TO ('2026-01-01')",
        "shop.dues",
    ),
    Case::new(
        "schema_table_unprotected",
        "CREATE SCHEMA yard; INSERT INTO tenancy_internal.protected_schemas VALUES ('yard', 'tenant_id', 'tenant');
         CREATE TABLE yard.bills (tenant_id uuid)",
        "yard.bills",
    ),
    Case::new(
        "referring_table_unprotected",
        "CREATE TABLE shop.badges (firm uuid REFERENCES tenancy.tenants, badge text)",
        "shop.badges",
    )
    .mended_by("SELECT tenancy.protect_table('shop.badges', 'firm')"),
    Case::new(
        "row_security_without_policy",
        "CREATE TABLE shop.closed (id int); ALTER TABLE shop.closed ENABLE ROW LEVEL SECURITY",
        "shop.closed",
    )
    .mended_by("ALTER TABLE shop.closed DISABLE ROW LEVEL SECURITY"),
    Case::new(
        "policies_without_row_security",
        "CREATE POLICY few ON shop.notes USING (id < 10)",
        "shop.notes",
    ),
    Case::new(
        "record_of_former_partition",
        "ALTER TABLE shop.events DETACH PARTITION shop.events_2026",
        "shop.events_2026",
    ),
    Case::new(
        "record_of_dropped_table",
        "ALTER EVENT TRIGGER tenancy_note_drops DISABLE; DROP TABLE shop.events_2027;
         ALTER EVENT TRIGGER tenancy_note_drops ENABLE ALWAYS",
        "tenancy_internal.protected_tables",
    ),
];

/// The extension itself.
const EXTENSION: &[Case] = &[
    Case::new(
        "extension_part_missing",
        "ALTER EXTENSION pg_tenancy DROP EVENT TRIGGER tenancy_close_before_drop; DROP EVENT TRIGGER tenancy_close_before_drop",
        "pg_tenancy",
    ),
    Case::new(
        "extension_part_detached",
        "ALTER EXTENSION pg_tenancy DROP FUNCTION tenancy_internal.refuse_truncate()",
        "tenancy_internal.refuse_truncate()",
    ),
    Case::new("event_trigger_disabled", "ALTER EVENT TRIGGER tenancy_guard_ddl DISABLE", "tenancy_guard_ddl"),
    Case::new("event_trigger_disabled", "ALTER EVENT TRIGGER tenancy_note_drops ENABLE", "tenancy_note_drops"),
    Case::new(
        "extension_function_altered",
        "ALTER FUNCTION tenancy_internal.published_tables(name) SECURITY DEFINER SET search_path = public SET work_mem = '1MB' IMMUTABLE",
        "tenancy_internal.published_tables(pg_catalog.name)",
    ),
    Case::new(
        "extension_function_altered",
        "ALTER FUNCTION tenancy.current_tenant_id() NOT LEAKPROOF",
        "tenancy.current_tenant_id()",
    ),
    Case::new(
        "extension_function_altered",
        "ALTER PROCEDURE tenancy.seal_audit() SECURITY DEFINER SET work_mem = '1MB'",
        "tenancy.seal_audit()",
    ),
    Case::new(
        "extension_part_owner",
        "ALTER FUNCTION tenancy_internal.table_family(oid) owner to APP",
        "tenancy_internal.table_family(pg_catalog.oid)",
    ),
    Case::new("extension_version", "UPDATE pg_extension SET extversion = '0.0.0' WHERE extname = 'pg_tenancy'", "pg_tenancy")
        .mended_by(
            "UPDATE pg_extension SET extversion = (SELECT default_version FROM pg_available_extensions WHERE name = 'pg_tenancy')
              WHERE extname = 'pg_tenancy'",
        ),
    Case::new("ddl_guard_off", "ALTER DATABASE DBNAME SET tenancy.ddl_guard = off", "DBNAME"),
    // Last, for it takes all functions as they are then.
    Case::new(
        "extension_function_altered",
        "CREATE OR REPLACE FUNCTION tenancy_internal.owner_danger(role oid) RETURNS text
         LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS 'SELECT NULL::text'",
        "tenancy_internal.owner_danger(pg_catalog.oid)",
    )
    .mended_by("SELECT tenancy_internal.note_installed_parts()"),
];

/// What the others of a family would not survive.
const MISSING_COLUMN: &[Case] = &[Case::new(
    "tenant_column_missing",
    "TRUNCATE shop.events; ALTER TABLE shop.events DROP COLUMN tenant_id CASCADE",
    "shop.events",
)
.mended_by("ALTER TABLE shop.events ADD tenant_id uuid NOT NULL; SELECT tenancy.protect_table('shop.events')")];
const COLUMN_TYPE: &[Case] = &[Case::new(
    "tenant_column_type",
    "DROP POLICY tenancy_isolation ON shop.events; DROP POLICY tenancy_open ON shop.events;
         DROP POLICY tenancy_isolation ON shop.events_2026; DROP POLICY tenancy_open ON shop.events_2026;
         DROP POLICY tenancy_isolation ON shop.events_2027; DROP POLICY tenancy_open ON shop.events_2027;
         ALTER TABLE shop.events ALTER tenant_id DROP DEFAULT, ALTER tenant_id TYPE numeric USING 1",
    "shop.events.tenant_id",
)
.mended_by(
    "ALTER TABLE shop.events ALTER tenant_id TYPE uuid USING gen_random_uuid();
                TRUNCATE shop.events; SELECT tenancy.protect_table('shop.events')",
)];

/// What looks like a defect and is none.
const HARMLESS: &[&str] = &[
    // The application's own table of tenants: its key is not everybody's tenant column.
    "CREATE TABLE shop.firms (id uuid PRIMARY KEY, name text); SELECT tenancy.protect_table('shop.firms', 'id');
     CREATE TABLE shop.wishes (id uuid PRIMARY KEY, wish text)",
    // The tenant column's name, of a type that holds no tenant key.
    "CREATE TABLE shop.rents (tenant_id numeric, rent numeric)",
    "CREATE TEMPORARY TABLE carts (tenant_id uuid)",
    // A renamed tenant column, one under a domain, a number, a code, access of each kind.
    "ALTER TABLE shop.t1 RENAME tenant_id TO \"firm OR house\"",
    "CREATE DOMAIN shop.number AS bigint; CREATE TABLE shop.by_number (tenant_id shop.number NOT NULL, n int);
     SELECT tenancy.protect_table('shop.by_number', access => 'shared')",
    "CREATE TABLE shop.by_code (code varchar(40) NOT NULL, n int);
     SELECT tenancy.protect_table('shop.by_code', 'code', reference => 'foreign_key')",
    // A policy of one's own that narrows, and one that has taken the companion's place, wrapped and checked.
    "CREATE POLICY narrow ON shop.t2 AS RESTRICTIVE FOR SELECT USING (number > 0)",
    "CREATE FUNCTION shop.limit_of_day() RETURNS int STABLE LANGUAGE sql RETURN 3;
     CREATE POLICY own ON shop.t3 USING (number < (SELECT shop.limit_of_day()) OR item = 'current_setting(OR)') WITH CHECK (number > 0);
     SELECT tenancy.protect_table('shop.t3')",
    "CREATE POLICY deny ON shop.notes USING (false); ALTER TABLE shop.notes ENABLE ROW LEVEL SECURITY",
    // IMMUTABLE, and a comment that speaks of the session.
    "CREATE FUNCTION shop.double(int) RETURNS int IMMUTABLE LANGUAGE sql AS '/* no current_setting() */ SELECT 2 * $1'",
    "CREATE TABLE shop.events_2028 PARTITION OF shop.events FOR VALUES FROM ('2028-01-01') TO ('2029-01-01');
     SELECT tenancy.protect_table('shop.events')",
    "ALTER DATABASE DBNAME SET tenancy.ddl_guard = warn",
];

/// A table for each of the defects above.
const TABLES: &str = "
    SET ROLE OWNER;
    DO $$ BEGIN
        FOR i IN 1..23 LOOP
            EXECUTE format('CREATE TABLE shop.t%s (id bigint GENERATED ALWAYS AS IDENTITY, tenant_id uuid NOT NULL,
                                                   item text, number integer, PRIMARY KEY (tenant_id, id))', i);
        END LOOP;
    END $$;
    RESET ROLE;
    SELECT tenancy.protect_table(('shop.t' || i)::regclass) FROM generate_series(1, 23) i";

#[test]
fn each_defect_of_protection_is_found_and_mended() {
    let company = Company::open();
    company.dba.run(&company.named(TABLES));
    for cases in [LOST, POLICIES, UNPROTECTED, EXTENSION, MISSING_COLUMN, COLUMN_TYPE] {
        company.tries_together("catalog", cases);
    }
    company.lets_pass("catalog", HARMLESS);
    for name in NASTY_NAMES {
        remedies_quote_the_name(&company.dba, name);
    }
}

/// Several defects of a table, column, policy and function of that name, and all their remedies.
fn remedies_quote_the_name(dba: &Session, name: &str) {
    const BROKEN: &str = "
        BEGIN; SET LOCAL tenancy.ddl_guard = off;
        CREATE SCHEMA NAME; CREATE TABLE NAME.NAME (NAME uuid NOT NULL, item text, PRIMARY KEY (NAME, item));
        SELECT tenancy.protect_table(TABLE, tenant_column => LITERAL, access => 'shared', open_policy => false);
        DROP POLICY tenancy_isolation_delete ON NAME.NAME;
        ALTER POLICY tenancy_isolation ON NAME.NAME TO CURRENT_USER;
        ALTER TABLE NAME.NAME DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY, ALTER NAME DROP DEFAULT,
            DISABLE TRIGGER tenancy_truncate_guard;
        CREATE FUNCTION NAME.NAME() RETURNS text IMMUTABLE LANGUAGE sql RETURN current_setting('my.item', true);
        CREATE POLICY NAME ON NAME.NAME USING (item = 'lamp');
        CREATE POLICY more ON NAME.NAME AS RESTRICTIVE USING (item = current_setting(SETTING));
        CREATE TABLE NAME.other (NAME uuid)";
    let ident = quote_ident(name);
    let broken = BROKEN.replace("TABLE,", &format!("{},", quote_literal(&format!("{ident}.{ident}"))));
    let broken =
        broken.replace("LITERAL", &quote_literal(name)).replace("SETTING", &quote_literal(&format!("my.{name}")));
    dba.run(&broken.replace("NAME", &ident));
    let findings = "SELECT check_id, remedy FROM tenancy.check_integrity('catalog') ORDER BY 1";
    let found = dba.query(findings, &[]);
    let checks: Vec<String> = found.iter().map(|row| row.get(0)).collect();
    let expected = [
        "context_function_immutable",
        "isolation_policy_missing",
        "isolation_policy_narrowed",
        "policy_raises_without_setting",
        "policy_without_check",
        "row_security_not_forced",
        "row_security_off",
        "tenant_column_default",
        "tenant_table_unprotected",
        "truncate_guard_disabled",
    ];
    assert_eq!(checks, expected, "{name}");
    for row in &found {
        dba.run(row.get::<_, Option<&str>>(1).expect("a remedy"));
    }
    dba.sees(findings, &[]);
    dba.run("ROLLBACK");
}
