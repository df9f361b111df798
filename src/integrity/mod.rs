//! Integrity: proves that tenants are apart, or says exactly what is open.
//! SQL: sql/integrity.sql runs the checks; sql/integrity/*.sql are they.

pgrx::extension_sql_file!("../../sql/integrity.sql", requires = ["isolation", "fence", "audit"]);
pgrx::extension_sql_file!(
    "../../sql/integrity/protection.sql",
    name = "integrity_protection",
    requires = ["integrity"]
);
pgrx::extension_sql_file!("../../sql/integrity/paths.sql", name = "integrity_paths", requires = ["integrity"]);
pgrx::extension_sql_file!("../../sql/integrity/keys.sql", name = "integrity_keys", requires = ["integrity"]);
pgrx::extension_sql_file!("../../sql/integrity/roles.sql", name = "integrity_roles", requires = ["integrity"]);
pgrx::extension_sql_file!("../../sql/integrity/rows.sql", name = "integrity_rows", requires = ["integrity"]);
pgrx::extension_sql_file!("../../sql/integrity/orphans.sql", name = "integrity_orphans", requires = ["integrity_rows"]);
pgrx::extension_sql_file!(
    "../../sql/integrity/proof.sql",
    name = "integrity_proof",
    requires = ["integrity", tenancy_internal::stale_tenant_step, tenancy_internal::leave_tenant_step]
);
pgrx::extension_sql_file!("../../sql/integrity/answers.sql", name = "integrity_answers", requires = ["integrity"]);

#[pgrx::pg_schema]
mod tenancy_internal {
    use crate::pg::{given, guc, session};
    use pgrx::{pg_sys::panic::ErrorReport, prelude::*};

    /// Sets the tenant as if an earlier transaction had done it.
    #[pg_extern]
    fn stale_tenant_step(tenant: Option<&str>) -> Result<(), ErrorReport> {
        Ok(session::set_stale_tenant(given("tenant", tenant)?)?)
    }

    /// Leaves the transaction as one that never had a tenant.
    #[pg_extern]
    fn leave_tenant_step() {
        guc::leave();
    }
}
