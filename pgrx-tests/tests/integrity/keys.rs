//! Keys, indexes, statistics, privileges and conventions of protected tables.

use super::cases::{Case, Company};
use pg_tenancy_tests::quote_literal;

const CASES: &[Case] = &[
    Case::new(
        "key_without_tenant",
        "ALTER TABLE shop.orders ADD CONSTRAINT \"on\"\"ce\" UNIQUE (item)",
        "\"on\"\"ce\" on shop.orders",
    ),
    Case::new("key_without_tenant", "CREATE UNIQUE INDEX low ON shop.orders (lower(item))", "shop.low"),
    Case::new(
        "key_without_tenant",
        "ALTER TABLE shop.orders ADD CONSTRAINT apart EXCLUDE USING btree (item WITH =)",
        "apart on shop.orders",
    ),
    // The tenant column in INCLUDE keeps nothing apart.
    Case::new("key_without_tenant", "CREATE UNIQUE INDEX wide ON shop.orders (item) INCLUDE (tenant_id)", "shop.wide"),
    Case::new(
        "key_without_tenant",
        "SET ROLE OWNER; CREATE TABLE shop.samples (tenant_id uuid, name text UNIQUE); RESET ROLE;
         SELECT tenancy.protect_table('shop.samples', access => 'shared')",
        "samples_name_key on shop.samples",
    )
    .mended_by("ALTER TABLE shop.samples DROP CONSTRAINT samples_name_key"),
    Case::new(
        "surrogate_without_tenant",
        "INSERT INTO tenancy_internal.integrity_settings (check_id, is_on) VALUES ('surrogate_without_tenant', true);
         SET ROLE OWNER; CREATE TABLE shop.tags (id uuid PRIMARY KEY, tenant_id uuid NOT NULL); RESET ROLE;
         SELECT tenancy.protect_table('shop.tags')",
        "tags_pkey on shop.tags",
    ),
    Case::new(
        "foreign_key_without_tenant",
        "ALTER TABLE shop.customers ADD UNIQUE (id);
         ALTER TABLE shop.orders DROP CONSTRAINT orders_customer_fkey,
            ADD CONSTRAINT orders_customer_fkey FOREIGN KEY (customer) REFERENCES shop.customers (id)",
        "orders_customer_fkey on shop.orders",
    ),
    Case::new(
        "foreign_key_kept",
        "ALTER TABLE shop.customers ADD UNIQUE (id);
         ALTER TABLE shop.orders DROP CONSTRAINT orders_customer_fkey,
            ADD CONSTRAINT orders_customer_fkey FOREIGN KEY (customer) REFERENCES shop.customers (id);
         SELECT tenancy.protect_table('shop.orders', foreign_keys => 'keep')",
        "orders_customer_fkey on shop.orders",
    ),
    Case::new(
        "foreign_key_kept",
        "SET ROLE OWNER; CREATE TABLE shop.samples (id int PRIMARY KEY, tenant_id uuid); RESET ROLE;
         SELECT tenancy.protect_table('shop.samples', access => 'shared');
         ALTER TABLE shop.orders ADD CONSTRAINT sampled FOREIGN KEY (number) REFERENCES shop.samples NOT VALID;
         UPDATE pg_constraint SET convalidated = true WHERE conname = 'sampled'",
        "sampled on shop.orders",
    )
    .mended_by("ALTER TABLE shop.orders DROP CONSTRAINT sampled"),
    Case::new(
        "foreign_key_sets_tenant",
        "SET ROLE OWNER; CREATE TABLE shop.samples (tenant_id uuid, customer bigint, note text); RESET ROLE;
         SELECT tenancy.protect_table('shop.samples', access => 'shared');
         CREATE INDEX ON shop.samples (tenant_id, customer);
         ALTER TABLE shop.samples ADD CONSTRAINT sampled
            FOREIGN KEY (tenant_id, customer) REFERENCES shop.customers (tenant_id, id) ON DELETE SET NULL",
        "sampled on shop.samples",
    ),
    Case::new(
        "foreign_key_sets_tenant",
        "ALTER TABLE shop.orders ADD CONSTRAINT ordered
            FOREIGN KEY (tenant_id, customer) REFERENCES shop.customers (tenant_id, id) ON UPDATE SET DEFAULT",
        "ordered on shop.orders",
    )
    .mended_by("ALTER TABLE shop.orders DROP CONSTRAINT ordered"),
    Case::new(
        "foreign_key_sets_tenant",
        "SET ROLE OWNER; CREATE TABLE shop.firms (id uuid UNIQUE); CREATE TABLE shop.samples (tenant_id uuid, note text); RESET ROLE;
         SELECT tenancy.protect_table('shop.samples', access => 'shared');
         ALTER TABLE shop.samples ADD CONSTRAINT owned FOREIGN KEY (tenant_id) REFERENCES shop.firms (id) ON UPDATE CASCADE",
        "owned on shop.samples",
    )
    .mended_by("ALTER TABLE shop.samples DROP CONSTRAINT owned"),
    Case::new(
        "constraint_not_valid",
        "ALTER TABLE shop.orders ADD CONSTRAINT counted CHECK (number > 0) NOT VALID",
        "counted on shop.orders",
    ),
    Case::new(
        "constraint_not_valid",
        "ALTER TABLE shop.customers ADD CONSTRAINT lands FOREIGN KEY (country) REFERENCES shop.countries NOT VALID",
        "lands on shop.customers",
    ),
    Case::new("index_without_tenant", "DROP INDEX shop.events_tenant_id_idx", "shop.events"),
    Case::new(
        "foreign_key_without_index",
        "DROP INDEX shop.orders_customer_idx",
        "orders_customer_fkey on shop.orders",
    ),
    Case::new("index_duplicate", "CREATE INDEX twin ON shop.orders (tenant_id, customer)", "shop.twin"),
    Case::new("index_duplicate", "CREATE INDEX twin ON shop.orders (tenant_id, id)", "shop.twin"),
    // What is not valid supports no foreign key either.
    Case::new(
        "index_invalid",
        "SET LOCAL allow_system_table_mods = on;
         UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'shop.orders_customer_idx'::regclass",
        "shop.orders_customer_idx",
    )
    .also(&["foreign_key_without_index|orders_customer_fkey on shop.orders"]),
    Case::new("index_invalid", "CREATE INDEX hollow ON ONLY shop.events (tenant_id, what)", "shop.hollow")
        .mended_by("DROP INDEX shop.hollow"),
    Case::new(
        "index_unused",
        "INSERT INTO tenancy_internal.integrity_settings (check_id, is_on)
            VALUES ('index_unused', true), ('foreign_key_without_index', false)",
        "shop.orders_customer_idx",
    ),
    Case::new(
        "expression_statistics",
        "CREATE INDEX low ON shop.orders (tenant_id, lower(item)); ANALYZE shop.orders",
        "shop.low",
    )
    .mended_by("DROP INDEX shop.low"),
    Case::new(
        "extended_statistics_open",
        "CREATE STATISTICS shop.words ON lower(item), number FROM shop.orders;
         SET LOCAL allow_system_table_mods = on;
         DO $$ BEGIN EXECUTE 'CREATE OR REPLACE VIEW pg_catalog.pg_stats_ext_exprs AS '
            || replace(pg_get_viewdef('pg_catalog.pg_stats_ext_exprs'), 'row_security_active(c.oid)', 'false'); END $$",
        "shop.words",
    )
    .mended_by("DROP STATISTICS shop.words"),
    Case::new("granted_to_public", "GRANT SELECT, REFERENCES, TRUNCATE ON shop.orders TO PUBLIC", "shop.orders"),
    Case::new("granted_to_public", "GRANT SELECT, UPDATE ON shop.countries TO PUBLIC", "shop.countries"),
    Case::new("excess_privileges", "GRANT REFERENCES, TRIGGER ON shop.orders TO APP", "shop.orders"),
    // By way of a group, and of one column.
    Case::new(
        "excess_privileges",
        "CREATE ROLE keys_staff; GRANT keys_staff TO APP; GRANT REFERENCES (id) ON shop.orders TO keys_staff",
        "shop.orders",
    ),
    Case::new("truncate_granted", "GRANT TRUNCATE ON shop.orders, shop.notes TO APP", "shop.orders"),
    Case::new(
        "sequence_readable",
        "GRANT USAGE, SELECT, UPDATE ON SEQUENCE shop.orders_id_seq TO APP",
        "shop.orders_id_seq",
    ),
    Case::new("schema_create", "GRANT CREATE ON SCHEMA shop TO APP", "shop"),
    Case::new(
        "default_privileges",
        "CREATE ROLE keys_maker;
         ALTER DEFAULT PRIVILEGES FOR ROLE keys_maker IN SCHEMA shop GRANT SELECT, INSERT ON TABLES TO APP",
        "for role keys_maker in schema shop on tables",
    ),
    Case::new(
        "default_privileges_public",
        "CREATE ROLE keys_maker; ALTER DEFAULT PRIVILEGES FOR ROLE keys_maker GRANT SELECT ON TABLES TO PUBLIC",
        "for role keys_maker on tables",
    ),
];

/// What looks like a defect and is none.
const HARMLESS: &[&str] = &[
    // The keys of a table of tenants go across them; so does the number that a sequence gives.
    "SET ROLE OWNER; CREATE TABLE shop.firms (id uuid PRIMARY KEY, slug text UNIQUE); RESET ROLE;
     SELECT tenancy.protect_table('shop.firms', 'id')",
    "SET ROLE OWNER; CREATE TABLE shop.things (tenant_id uuid, id serial PRIMARY KEY, other serial UNIQUE); RESET ROLE;
     SELECT tenancy.protect_table('shop.things'); GRANT USAGE ON SEQUENCE shop.things_id_seq TO APP",
    // Actions that leave the tenant where it is.
    "SET ROLE OWNER; CREATE TABLE shop.parts (tenant_id uuid NOT NULL, customer bigint); RESET ROLE;
     SELECT tenancy.protect_table('shop.parts'); CREATE INDEX ON shop.parts (tenant_id, customer);
     ALTER TABLE shop.parts ADD FOREIGN KEY (tenant_id, customer) REFERENCES shop.customers (tenant_id, id)
        ON DELETE SET NULL (customer) ON UPDATE CASCADE",
    "ALTER TABLE shop.orders ADD EXCLUDE USING btree (item WITH =, tenant_id WITH =)",
    "CREATE INDEX few ON shop.orders (tenant_id, customer) WHERE number > 1",
    "GRANT SELECT ON shop.countries TO PUBLIC; GRANT CREATE ON SCHEMA shop TO OWNER",
    "ALTER DEFAULT PRIVILEGES FOR ROLE OWNER IN SCHEMA shop GRANT SELECT ON TABLES TO OWNER;
     SELECT tenancy.protect_schema('shop');
     ALTER DEFAULT PRIVILEGES FOR ROLE OWNER IN SCHEMA shop GRANT SELECT ON TABLES TO APP",
    "CREATE STATISTICS shop.words ON lower(item), number FROM shop.orders",
];

/// Off unless asked for; each finds what the company has from the start.
const CONVENTIONS: &[(&str, &[&str])] = &[
    (
        "name_convention",
        &[
            "countries_pkey on shop.countries",
            "customers_country_fkey on shop.customers",
            "customers_pkey on shop.customers",
            "orders_customer_fkey on shop.orders",
            "orders_pkey on shop.orders",
            "shop.orders_customer_idx",
        ],
    ),
    ("timestamps_missing", &["shop.customers", "shop.events", "shop.orders"]),
    ("soft_delete_missing", &["shop.customers", "shop.events", "shop.orders"]),
];

#[test]
fn each_defect_of_keys_and_privileges_is_found_and_mended() {
    let company = Company::open();
    for case in CASES {
        company.tries("catalog", case);
    }
    company.lets_pass("catalog", HARMLESS);
    for (check, objects) in CONVENTIONS {
        let name = quote_literal(check);
        company.dba.run(&format!(
            "BEGIN; INSERT INTO tenancy_internal.integrity_settings (check_id, is_on) VALUES ({name}, true)"
        ));
        let expected: Vec<String> = objects.iter().map(|object| format!("{check}|{object}")).collect();
        assert_eq!(company.findings("catalog"), expected);
        for remedy in company.dba.rows("SELECT remedy FROM tenancy.check_integrity('catalog')") {
            company.dba.run(&remedy);
        }
        let left = company.findings("catalog");
        assert!(left.is_empty(), "{check}: {left:#?}");
        company.dba.run("ROLLBACK");
    }
}
