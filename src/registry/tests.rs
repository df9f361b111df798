//! The registry's seam: arguments, error codes, the cache under rollback.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use crate::pg::tests::sqlstate;
    use pgrx::prelude::*;

    #[pg_test]
    fn null_is_refused_and_not_swallowed_by_strict() {
        for call in [
            "create_tenant(NULL)",
            "create_tenant('a', plan => NULL)",
            "create_tenant('a', settings => NULL)",
            "update_tenant(NULL)",
            "set_plan(NULL, 'free')",
            "set_plan('a', NULL)",
            "suspend_tenant(NULL)",
            "find_tenant(NULL)",
            "grant_admin(NULL)",
            "grant_usage(NULL)",
        ] {
            assert_eq!(sqlstate(&format!("SELECT tenancy.{call}")), "22023", "{call}");
        }
    }

    #[pg_test]
    fn the_registry_refuses_with_standard_codes() {
        Spi::run("SELECT tenancy.create_tenant('reg_a', number => 901)").unwrap();
        for (call, state) in [
            ("create_tenant('reg_a')", "42710"),
            ("create_tenant('reg_b', number => 901)", "42710"),
            ("create_tenant('reg_a', number => 902, if_not_exists => true)", "42710"),
            ("create_tenant('reg_c', plan => 'gold')", "42704"),
            ("create_tenant('12')", "22023"),
            ("create_tenant(' reg')", "22023"),
            ("set_plan('reg_a', 'gold')", "42704"),
            ("suspend_tenant('reg_none')", "42704"),
            ("undelete_tenant('reg_a') FROM (SELECT tenancy.suspend_tenant('reg_a')) s", "55000"),
            ("grant_admin(0::regrole)", "42704"),
        ] {
            assert_eq!(sqlstate(&format!("SELECT tenancy.{call}")), state, "{call}");
        }
    }

    #[pg_test]
    fn settings_keep_every_digit() {
        let digits = "1234567890123456789012345678901234567890.5";
        Spi::run(&format!("SELECT tenancy.create_tenant('reg_d', settings => '{{\"n\": {digits}}}')")).unwrap();
        let stored = Spi::get_one::<String>("SELECT settings ->> 'n' FROM tenancy.tenants WHERE code = 'reg_d'");
        assert_eq!(stored.unwrap().as_deref(), Some(digits));
    }

    #[pg_test]
    fn a_rolled_back_tenant_does_not_stay_in_the_cache() {
        Spi::run(
            "DO $$ BEGIN
                PERFORM tenancy.create_tenant('reg_e');
                ASSERT tenancy.find_tenant('reg_e') IS NOT NULL;
                RAISE EXCEPTION 'undo';
             EXCEPTION WHEN raise_exception THEN NULL; END $$",
        )
        .unwrap();
        assert_eq!(Spi::get_one::<bool>("SELECT tenancy.find_tenant('reg_e') IS NULL").unwrap(), Some(true));
    }

    #[pg_test]
    fn numbers_drawn_later_step_over_numbers_that_were_given() {
        let next = "SELECT last_value + 1 FROM tenancy.tenants_number_seq";
        let given = Spi::get_one::<i64>(next).unwrap().unwrap();
        Spi::run(&format!("SELECT tenancy.create_tenant('reg_f', number => {given})")).unwrap();
        Spi::run("SELECT tenancy.create_tenant('reg_g')").unwrap();
        let drawn = Spi::get_one::<i64>("SELECT number FROM tenancy.tenants WHERE code = 'reg_g'").unwrap();
        assert_eq!(drawn, Some(given + 1));
    }
}
