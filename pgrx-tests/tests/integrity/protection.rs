//! What protects a table, and tables that nothing protects.

use super::cases::{Case, Company};
use pg_tenancy_tests::{NASTY_NAMES, Session, quote_ident, quote_literal};

/// What protect_table made and somebody took away.
const LOST: &[Case] = &[
    Case::new("row_security_off", "ALTER TABLE shop.orders DISABLE ROW LEVEL SECURITY", "shop.orders"),
    Case::new("row_security_off", "ALTER TABLE shop.events_2026 DISABLE ROW LEVEL SECURITY", "shop.events_2026"),
    Case::new("row_security_not_forced", "ALTER TABLE shop.countries NO FORCE ROW LEVEL SECURITY", "shop.countries"),
    Case::new("isolation_policy_missing", "DROP POLICY tenancy_isolation ON shop.orders", "shop.orders"),
    Case::new("isolation_policy_missing", "DROP POLICY tenancy_isolation_insert ON shop.countries", "shop.countries"),
    Case::new(
        "isolation_policy_missing",
        "ALTER TABLE shop.orders RENAME tenant_id TO firm; DROP POLICY tenancy_isolation_delete ON shop.orders",
        "shop.orders",
    ),
    Case::new(
        "isolation_policy_altered",
        "ALTER POLICY tenancy_isolation ON shop.orders USING (tenant_id = tenancy.current_tenant_id() OR item = 'lamp')",
        "tenancy_isolation on shop.orders",
    ),
    Case::new(
        "isolation_policy_altered",
        "DROP POLICY tenancy_isolation_delete ON shop.events;
         CREATE POLICY tenancy_isolation_delete ON shop.events AS RESTRICTIVE FOR UPDATE USING (tenancy_internal.may_write())",
        "tenancy_isolation_delete on shop.events",
    ),
    Case::new(
        "isolation_policy_altered",
        "DROP POLICY tenancy_isolation ON shop.orders;
         CREATE POLICY tenancy_isolation ON shop.orders USING (tenant_id = tenancy.current_tenant_id())
             WITH CHECK (tenant_id = tenancy_internal.writing_tenant_id())",
        "tenancy_isolation on shop.orders",
    ),
    Case::new(
        "isolation_policy_without_check",
        "DROP POLICY tenancy_isolation ON shop.customers;
         CREATE POLICY tenancy_isolation ON shop.customers AS RESTRICTIVE USING (tenant_id = tenancy.current_tenant_id())",
        "tenancy_isolation on shop.customers",
    ),
    Case::new(
        "isolation_policy_narrowed",
        "ALTER POLICY tenancy_isolation ON shop.customers TO APP, OWNER",
        "tenancy_isolation on shop.customers",
    ),
    Case::new(
        "open_policy_altered",
        "ALTER POLICY tenancy_open ON shop.orders USING (true)",
        "tenancy_open on shop.orders",
    ),
    Case::new("protected_table_shows_nothing", "DROP POLICY tenancy_open ON shop.orders", "shop.orders"),
    Case::new(
        "protected_table_shows_nothing",
        "CREATE POLICY tenancy_closed ON shop.orders AS RESTRICTIVE USING (false)",
        "shop.orders",
    ),
    Case::new("truncate_guard_missing", "DROP TRIGGER tenancy_truncate_guard ON shop.events_2027", "shop.events_2027"),
    Case::new(
        "truncate_guard_missing",
        "DROP TRIGGER tenancy_truncate_guard ON shop.orders;
         CREATE TRIGGER tenancy_truncate_guard BEFORE TRUNCATE ON shop.orders WHEN (false)
             EXECUTE FUNCTION tenancy_internal.refuse_truncate()",
        "shop.orders",
    ),
    Case::new(
        "truncate_guard_disabled",
        "ALTER TABLE shop.orders DISABLE TRIGGER tenancy_truncate_guard",
        "tenancy_truncate_guard on shop.orders",
    ),
    Case::new(
        "tenant_column_missing",
        "TRUNCATE shop.events; ALTER TABLE shop.events DROP COLUMN tenant_id CASCADE",
        "shop.events",
    )
    .mended_by("ALTER TABLE shop.events ADD tenant_id uuid NOT NULL; SELECT tenancy.protect_table('shop.events')"),
    Case::new(
        "tenant_column_type",
        "DROP POLICY tenancy_isolation ON shop.events; DROP POLICY tenancy_open ON shop.events;
         DROP POLICY tenancy_isolation ON shop.events_2026; DROP POLICY tenancy_open ON shop.events_2026;
         DROP POLICY tenancy_isolation ON shop.events_2027; DROP POLICY tenancy_open ON shop.events_2027;
         ALTER TABLE shop.events ALTER tenant_id DROP DEFAULT, ALTER tenant_id TYPE numeric USING 1",
        "shop.events.tenant_id",
    )
    .mended_by("ALTER TABLE shop.events ALTER tenant_id TYPE uuid USING gen_random_uuid();
                TRUNCATE shop.events; SELECT tenancy.protect_table('shop.events')"),
    Case::new(
        "tenant_column_nullable",
        "ALTER TABLE shop.events ALTER COLUMN tenant_id DROP NOT NULL",
        "shop.events.tenant_id",
    ),
    Case::new(
        "tenant_column_default",
        "ALTER TABLE shop.orders ALTER COLUMN tenant_id SET DEFAULT gen_random_uuid()",
        "shop.orders.tenant_id",
    ),
    Case::new(
        "tenant_reference_missing",
        "SELECT tenancy.protect_table('shop.customers', reference => 'foreign_key');
         ALTER TABLE shop.customers DROP CONSTRAINT tenancy_tenant_fkey",
        "shop.customers.tenant_id",
    ),
];

/// The users' own policies.
const POLICIES: &[Case] = &[
    Case::new(
        "policy_without_effect",
        "CREATE POLICY lamps ON shop.orders FOR SELECT USING (item LIKE 'lamp%')",
        "lamps on shop.orders",
    ),
    Case::new(
        "policy_widens",
        "CREATE POLICY lamps ON shop.orders USING (tenant_id = tenancy.current_tenant_id() OR item LIKE 'lamp%') WITH CHECK (false);
         SELECT tenancy.protect_table('shop.orders')",
        "lamps on shop.orders",
    )
    .mended_by("ALTER POLICY lamps ON shop.orders USING (item LIKE 'lamp%')"),
    Case::new(
        "policy_trusts_setting",
        "CREATE POLICY mine ON shop.orders FOR SELECT USING (item = current_setting('my.item', true));
         SELECT tenancy.protect_table('shop.orders')",
        "mine on shop.orders",
    )
    .mended_by("ALTER POLICY mine ON shop.orders USING (item = current_setting('server_version', true))"),
    Case::new(
        "policy_opened_by_setting",
        "CREATE POLICY mine ON shop.orders FOR SELECT USING (number < 3 OR current_setting('my.number', true) = 'all');
         SELECT tenancy.protect_table('shop.orders')",
        "mine on shop.orders",
    )
    .mended_by("ALTER POLICY mine ON shop.orders USING (number < 3)"),
    Case::new(
        "policy_opens_without_context",
        "ALTER TABLE shop.notes ADD COLUMN org_id int; ALTER TABLE shop.notes ENABLE ROW LEVEL SECURITY;
         CREATE POLICY by_org ON shop.notes FOR SELECT
             USING (NULLIF(current_setting('my.org_id', true), '') IS NULL OR org_id = current_setting('my.org_id', true)::int)",
        "by_org on shop.notes",
    )
    .mended_by("DROP POLICY by_org ON shop.notes; ALTER TABLE shop.notes DISABLE ROW LEVEL SECURITY"),
    Case::new(
        "policy_by_hand",
        "ALTER TABLE shop.notes ADD COLUMN org_id int; ALTER TABLE shop.notes ENABLE ROW LEVEL SECURITY;
         CREATE FUNCTION shop.org() RETURNS int STABLE LANGUAGE sql RETURN current_setting('my.org_id', true)::int;
         CREATE POLICY by_org ON shop.notes USING (org_id = (SELECT shop.org()))",
        "by_org on shop.notes",
    )
    .mended_by("DROP POLICY by_org ON shop.notes; ALTER TABLE shop.notes DISABLE ROW LEVEL SECURITY"),
    Case::new(
        "policy_always_true",
        "CREATE POLICY everything ON shop.orders FOR SELECT TO APP USING (1 = 1); SELECT tenancy.protect_table('shop.orders')",
        "everything on shop.orders",
    )
    .mended_by("DROP POLICY everything ON shop.orders; SELECT tenancy.protect_table('shop.orders')"),
    Case::new(
        "policy_without_check",
        "CREATE POLICY lamps ON shop.orders USING (item LIKE 'lamp%'); SELECT tenancy.protect_table('shop.orders')",
        "lamps on shop.orders",
    ),
    Case::new(
        "policy_raises_without_setting",
        "CREATE POLICY mine ON shop.orders AS RESTRICTIVE USING (item = current_setting('my.''item'))",
        "mine on shop.orders",
    ),
    Case::new(
        "policy_volatile_function",
        "CREATE POLICY luck ON shop.orders AS RESTRICTIVE USING (random() < 0.5)",
        "luck on shop.orders",
    )
    .mended_by("DROP POLICY luck ON shop.orders"),
    Case::new(
        "policy_function_for_each_row",
        "CREATE FUNCTION shop.\"My item\"() RETURNS text STABLE LANGUAGE sql RETURN 'lamp';
         CREATE POLICY mine ON shop.orders AS RESTRICTIVE USING (item = shop.\"My item\"())",
        "mine on shop.orders",
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
        "CREATE DOMAIN shop.tenant AS uuid; CREATE TABLE shop.bills (tenant_id shop.tenant, paid date) PARTITION BY RANGE (paid);
         CREATE TABLE shop.bills_early PARTITION OF shop.bills FOR VALUES FROM (MINVALUE) TO ('2026-01-01')",
        "shop.bills",
    ),
    Case::new(
        "schema_table_unprotected",
        "INSERT INTO tenancy_internal.protected_schemas VALUES ('shop', 'tenant_id', 'tenant');
         CREATE TABLE shop.bills (tenant_id uuid)",
        "shop.bills",
    ),
    Case::new(
        "referring_table_unprotected",
        "CREATE TABLE shop.badges (firm uuid REFERENCES tenancy.tenants, badge text)",
        "shop.badges",
    )
    .mended_by("SELECT tenancy.protect_table('shop.badges', 'firm')"),
    Case::new(
        "row_security_without_policy",
        "ALTER TABLE shop.notes ENABLE ROW LEVEL SECURITY",
        "shop.notes",
    )
    .mended_by("ALTER TABLE shop.notes DISABLE ROW LEVEL SECURITY"),
    Case::new(
        "policies_without_row_security",
        "CREATE POLICY few ON shop.notes USING (id < 10)",
        "shop.notes",
    ),
    Case::new(
        "record_of_former_partition",
        "ALTER TABLE shop.events DETACH PARTITION shop.events_2027",
        "shop.events_2027",
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
        "ALTER FUNCTION tenancy_internal.table_family(oid) SECURITY DEFINER SET search_path = public SET work_mem = '1MB' IMMUTABLE",
        "tenancy_internal.table_family(pg_catalog.oid)",
    ),
    Case::new(
        "extension_function_altered",
        "ALTER FUNCTION tenancy.current_tenant_id() NOT LEAKPROOF",
        "tenancy.current_tenant_id()",
    ),
    Case::new(
        "extension_function_altered",
        "CREATE OR REPLACE FUNCTION tenancy_internal.owner_danger(role oid) RETURNS text
         LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS 'SELECT NULL::text'",
        "tenancy_internal.owner_danger(pg_catalog.oid)",
    )
    .mended_by("SELECT tenancy_internal.note_installed_parts()"),
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
];

#[test]
fn each_defect_of_protection_is_found_and_mended() {
    let company = Company::open();
    let mut failed = 0;
    for case in [LOST, POLICIES, UNPROTECTED, EXTENSION].into_iter().flatten() {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| company.tries("catalog", case))).is_err() {
            company.dba.run("ROLLBACK");
            failed += 1;
        }
    }
    assert_eq!(failed, 0);
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
