//! Isolation's seam: plans read from a real catalog, and what is written back. Whether it isolates is proven with real
//! login roles, in pgrx-tests.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use crate::pg::tests::sqlstate;
    use pgrx::prelude::*;

    fn steps(call: &str) -> i64 {
        Spi::get_one::<i64>(&format!("SELECT count(statement) FROM tenancy.plan_protection({call})")).unwrap().unwrap()
    }

    /// Each kind of tenant column: what is created is what a second plan finds in place.
    #[pg_test]
    fn a_protected_table_needs_nothing_more() {
        Spi::run("CREATE DOMAIN iso_id AS uuid; CREATE DOMAIN iso_code AS varchar(20)").unwrap();
        let types = ["uuid", "bigint", "integer", "smallint", "text", "varchar(40)", "iso_id", "iso_code"];
        for (number, column) in types.into_iter().enumerate() {
            for access in ["tenant", "shared", "reference"] {
                let table = format!("\"Iso {number} {access}\"");
                Spi::run(&format!("CREATE TABLE {table} (id int, tenant_id {column})")).unwrap();
                let call = format!("'{table}', access => '{access}'");
                assert!(steps(&call) > 0);
                Spi::run(&format!("SELECT tenancy.protect_table({call})")).unwrap();
                assert_eq!(steps(&call), 0, "{column} {access}");
            }
        }
    }

    #[pg_test]
    fn an_altered_policy_is_put_right() {
        Spi::run("CREATE TABLE iso_altered (tenant_id uuid); SELECT tenancy.protect_table('iso_altered')").unwrap();
        Spi::run("ALTER POLICY tenancy_isolation ON iso_altered USING (true)").unwrap();
        assert_eq!(steps("'iso_altered'"), 2);
        Spi::run("SELECT tenancy.protect_table('iso_altered')").unwrap();
        assert_eq!(steps("'iso_altered'"), 0);
    }

    #[pg_test]
    fn bad_input_is_refused_with_standard_codes() {
        Spi::run(
            "CREATE TABLE iso_bad (id int, n numeric, tenant_id uuid); INSERT INTO iso_bad VALUES (1);
             CREATE VIEW iso_view AS SELECT 1 AS tenant_id; CREATE TEMP TABLE iso_temp (tenant_id uuid);
             CREATE TABLE iso_parent (tenant_id uuid) PARTITION BY LIST (tenant_id);
             CREATE TABLE iso_part PARTITION OF iso_parent DEFAULT;",
        )
        .unwrap();
        for (call, state) in [
            ("NULL", "22023"),
            ("'iso_bad', NULL", "22023"),
            ("'iso_bad', access => 'all'", "22023"),
            ("'iso_bad', foreign_keys => 'drop'", "22023"),
            ("'iso_bad', reference => 'yes'", "22023"),
            ("'iso_bad', access => 'shared', assign_existing_rows_to => 'x'", "42704"),
            ("'iso_bad', tenant_column => 'missing'", "42703"),
            ("'iso_bad', tenant_column => 'n'", "42804"),
            ("'iso_bad'", "23502"),
            ("'iso_bad', assign_existing_rows_to => 'iso_nobody'", "42704"),
            ("'iso_bad', tenant_column => ''", "22023"),
            ("'iso_view'", "42809"),
            ("'iso_temp'", "42809"),
            ("'iso_part'", "42809"),
            ("'pg_class'", "42809"),
            ("'tenancy.tenants'", "42809"),
        ] {
            assert_eq!(sqlstate(&format!("SELECT tenancy.protect_table({call})")), state, "{call}");
        }
        assert_eq!(sqlstate("SELECT tenancy.unprotect_table('iso_bad')"), "42704");
        assert_eq!(sqlstate("SELECT * FROM tenancy.protect_schema('iso_none')"), "42704");
    }
}
