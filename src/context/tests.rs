//! The context's seam: the setting's hooks and the functions that policies call.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use crate::pg::tests::sqlstate;
    use pgrx::prelude::*;

    #[pg_test]
    fn each_idiom_gives_each_key() {
        Spi::run("SELECT tenancy.create_tenant('ctx_a', number => 911)").unwrap();
        for set in [
            "SET LOCAL app.current_tenant_id = 'ctx_a'",
            "SELECT set_config('app.current_tenant_id', '911', true)",
            "SELECT tenancy.set_tenant((SELECT id::text FROM tenancy.tenants WHERE code = 'ctx_a'))",
        ] {
            Spi::run(set).unwrap();
            let keys = Spi::get_one::<bool>(
                "SELECT (id, number, code)
                      = (tenancy.current_tenant_id(), tenancy.current_tenant_number(), tenancy.current_tenant_code())
                   FROM tenancy.tenants WHERE code = 'ctx_a'",
            );
            assert_eq!(keys.unwrap(), Some(true), "{set}");
        }
    }

    #[pg_test]
    fn a_second_tenant_is_refused_in_each_idiom() {
        Spi::run("SELECT tenancy.create_tenant('ctx_b'); SELECT tenancy.create_tenant('ctx_c')").unwrap();
        Spi::run("SELECT tenancy.set_tenant('ctx_b')").unwrap();
        for set in [
            "SET LOCAL app.current_tenant_id = 'ctx_c'",
            "SET \"APP\".\"Current_Tenant_ID\" = 'ctx_c'",
            "SELECT set_config('app.current_tenant_id', 'ctx_c', false)",
            "SELECT tenancy.set_tenant('ctx_c')",
        ] {
            assert_eq!(sqlstate(set), "42501", "{set}");
        }
        Spi::run("SELECT tenancy.switch_tenant('ctx_c')").unwrap();
        assert_eq!(Spi::get_one::<String>("SELECT tenancy.current_tenant_code()").unwrap().as_deref(), Some("ctx_c"));
    }

    #[pg_test]
    fn what_names_nobody_is_refused() {
        for (call, state) in [
            ("SELECT tenancy.set_tenant(NULL)", "22023"),
            ("SELECT tenancy.set_tenant('')", "22023"),
            ("SELECT tenancy.set_tenant(' x')", "22023"),
            ("SELECT tenancy.set_tenant(repeat('x', 101))", "22023"),
            ("SELECT tenancy.set_tenant('99999999999999999999')", "22023"),
            ("SELECT tenancy.set_tenant('ctx_nobody')", "42704"),
            ("SET LOCAL app.current_tenant_id = E'a\\x1f1'", "22023"),
            ("SELECT tenancy.current_tenant_id()", "55000"),
            ("SELECT tenancy.assert_tenant('ctx_nobody')", "55000"),
        ] {
            assert_eq!(sqlstate(call), state, "{call}");
        }
    }

    #[pg_test]
    fn a_missing_context_is_empty_where_the_dba_says_so() {
        Spi::run("SET LOCAL tenancy.missing_context = empty").unwrap();
        assert_eq!(Spi::get_one::<bool>("SELECT tenancy.current_tenant_id() IS NULL").unwrap(), Some(true));
        assert_eq!(Spi::get_one::<bool>("SELECT tenancy.has_tenant()").unwrap(), Some(false));
    }

    #[pg_test]
    fn the_setting_shows_what_was_given_and_nothing_else() {
        Spi::run("SELECT tenancy.create_tenant('ctx_d')").unwrap();
        let shown = "SELECT current_setting('app.current_tenant_id')";
        assert_eq!(Spi::get_one::<String>(shown).unwrap().as_deref(), Some(""));
        Spi::run("SET LOCAL app.current_tenant_id = 'ctx_d'").unwrap();
        assert_eq!(Spi::get_one::<String>(shown).unwrap().as_deref(), Some("ctx_d"));
        let listed = "SELECT count(*) FROM pg_settings WHERE name = 'app.current_tenant_id'";
        assert_eq!(Spi::get_one::<i64>(listed).unwrap(), Some(0));
    }

    #[pg_test]
    fn a_key_counts_from_the_command_that_adds_it_to_the_one_that_retires_it() {
        Spi::run("SELECT tenancy.create_tenant('ctx_s', number => 912)").unwrap();
        let sign =
            "SELECT tenancy.sign_tenant_token('912', kid => 'ctx', dimensions => '{\"big\": 12345678901234567890123}')";
        assert_eq!(sqlstate(sign), "42704");
        Spi::run("SELECT tenancy.add_signing_key('ctx', 'HS256', repeat('x', 32))").unwrap();
        let token = Spi::get_one::<String>(sign).unwrap().unwrap();
        let take = format!("SELECT tenancy.set_tenant_signed('{token}')");
        Spi::run(&take).unwrap();
        assert_eq!(Spi::get_one::<String>("SELECT tenancy.current_tenant_code()").unwrap().as_deref(), Some("ctx_s"));
        let dimension = Spi::get_one::<String>("SELECT tenancy.context_dimension('big')");
        assert_eq!(dimension.unwrap().as_deref(), Some("12345678901234567890123"));
        Spi::run("SELECT tenancy.retire_signing_key('ctx')").unwrap();
        assert_eq!(sqlstate(&take), "42501");
        assert_eq!(sqlstate("SELECT tenancy.context_dimension(NULL)"), "22023");
    }

    #[pg_test]
    fn in_signed_mode_a_superusers_word_is_taken() {
        Spi::run("SELECT tenancy.create_tenant('ctx_t'); SET LOCAL tenancy.context_mode = signed").unwrap();
        Spi::run("SET LOCAL app.current_tenant_id = 'ctx_t'").unwrap();
        assert_eq!(Spi::get_one::<bool>("SELECT tenancy.has_tenant()").unwrap(), Some(true));
    }

    #[pg_test]
    fn what_nobody_vouched_for_ends_with_open_mode() {
        Spi::run("SELECT tenancy.create_tenant('ctx_u'); SET LOCAL app.current_tenant_id = 'ctx_u'").unwrap();
        assert_eq!(Spi::get_one::<bool>("SELECT tenancy.has_tenant()").unwrap(), Some(true));
        Spi::run("SET LOCAL tenancy.context_mode = signed").unwrap();
        assert_eq!(sqlstate("SELECT tenancy.current_tenant_id()"), "42501");
        Spi::run("SET LOCAL tenancy.context_mode = open").unwrap();
        assert_eq!(Spi::get_one::<bool>("SELECT tenancy.has_tenant()").unwrap(), Some(true));
    }
}
