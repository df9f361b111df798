//! Registry: which tenants there are, and where each stands.
//! SQL: sql/registry.sql. Decisions: plan.rs. Statements: store.rs.

mod plan;
pub mod rights;
mod store;
#[cfg(any(test, feature = "pg_test"))]
mod tests;

pgrx::extension_sql_file!(
    "../../sql/registry.sql",
    requires = [
        "bootstrap",
        tenancy::create_tenant,
        tenancy::update_tenant,
        tenancy::set_plan,
        tenancy::suspend_tenant,
        tenancy::resume_tenant,
        tenancy::set_read_only,
        tenancy::delete_tenant,
        tenancy::undelete_tenant,
        tenancy::find_tenant,
        tenancy::grant_admin,
        tenancy::revoke_admin,
        tenancy_internal::is_tenant_code,
        watched::tenancy_internal::announce_change,
        tenancy_internal::keep_tenants
    ]
);

#[pgrx::pg_schema]
mod tenancy {
    use super::plan::Move;
    use super::rights::{self, Grantee};
    use super::store;
    use crate::pg::{Oid, given, tenant_key};
    use pgrx::{AnyElement, Uuid, pg_sys::panic::ErrorReport, prelude::*};

    /// Provisions a tenant and gives its id. Every key may be given; those left out are made.
    ///
    /// 42710 when a key is taken (with `if_not_exists`, only when the keys do not agree), 42704 for an unknown plan,
    /// 22023 for a malformed code.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.create_tenant(
    code text, name text DEFAULT NULL, plan text DEFAULT 'free', settings jsonb DEFAULT '{}', contact jsonb DEFAULT '{}',
    id uuid DEFAULT NULL, number bigint DEFAULT NULL, if_not_exists boolean DEFAULT false
) RETURNS uuid
LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    #[expect(clippy::too_many_arguments, reason = "the arguments are the columns of a tenant")]
    fn create_tenant(
        code: Option<&str>,
        name: Option<&str>,
        plan: Option<&str>,
        settings: Option<AnyElement>,
        contact: Option<AnyElement>,
        id: Option<Uuid>,
        number: Option<i64>,
        if_not_exists: Option<bool>,
    ) -> Result<Uuid, ErrorReport> {
        let new = store::NewTenant {
            code: given("code", code)?,
            name,
            plan: given("plan", plan)?,
            settings: given("settings", settings)?,
            contact: given("contact", contact)?,
            id,
            number,
        };
        Ok(store::create(new, given("if_not_exists", if_not_exists)?)?)
    }

    /// Changes a tenant's name, settings or contact; NULL keeps what is there. 42704 for an unknown tenant.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.update_tenant(
    tenant text, name text DEFAULT NULL, settings jsonb DEFAULT NULL, contact jsonb DEFAULT NULL
) RETURNS void
LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn update_tenant(
        tenant: Option<&str>,
        name: Option<&str>,
        settings: Option<AnyElement>,
        contact: Option<AnyElement>,
    ) -> Result<(), ErrorReport> {
        Ok(store::update(&tenant_key(tenant)?, name, settings, contact)?)
    }

    /// Puts a tenant on another plan. 42704 for an unknown tenant or plan.
    #[pg_extern(security_definer)]
    #[search_path(pg_catalog, pg_temp)]
    fn set_plan(tenant: Option<&str>, plan: Option<&str>) -> Result<(), ErrorReport> {
        Ok(store::set_plan(&tenant_key(tenant)?, given("plan", plan)?)?)
    }

    /// Closes a tenant's data until `resume_tenant`. 55000 when it is deleted.
    #[pg_extern(security_definer)]
    #[search_path(pg_catalog, pg_temp)]
    fn suspend_tenant(tenant: Option<&str>, reason: default!(Option<&str>, "NULL")) -> Result<(), ErrorReport> {
        Ok(store::change_status(&tenant_key(tenant)?, Move::Suspend, reason)?)
    }

    /// Makes a suspended or read-only tenant active. 55000 when it is deleted.
    #[pg_extern(security_definer)]
    #[search_path(pg_catalog, pg_temp)]
    fn resume_tenant(tenant: Option<&str>) -> Result<(), ErrorReport> {
        Ok(store::change_status(&tenant_key(tenant)?, Move::Resume, None)?)
    }

    /// Lets a tenant read but not write. 55000 when it is suspended or deleted.
    #[pg_extern(security_definer)]
    #[search_path(pg_catalog, pg_temp)]
    fn set_read_only(tenant: Option<&str>, reason: default!(Option<&str>, "NULL")) -> Result<(), ErrorReport> {
        Ok(store::change_status(&tenant_key(tenant)?, Move::SetReadOnly, reason)?)
    }

    /// Marks a tenant as deleted. Its rows stay, closed; its keys are never used again.
    #[pg_extern(security_definer)]
    #[search_path(pg_catalog, pg_temp)]
    fn delete_tenant(tenant: Option<&str>, reason: default!(Option<&str>, "NULL")) -> Result<(), ErrorReport> {
        Ok(store::change_status(&tenant_key(tenant)?, Move::Delete, reason)?)
    }

    /// Makes a deleted tenant active again. 55000 when it is not deleted.
    #[pg_extern(security_definer)]
    #[search_path(pg_catalog, pg_temp)]
    fn undelete_tenant(tenant: Option<&str>) -> Result<(), ErrorReport> {
        Ok(store::change_status(&tenant_key(tenant)?, Move::Undelete, None)?)
    }

    /// The id of the tenant that `tenant` names by id, number or code; NULL when there is none.
    #[pg_extern(stable, parallel_safe)]
    fn find_tenant(tenant: Option<&str>) -> Result<Option<Uuid>, ErrorReport> {
        Ok(store::find(&tenant_key(tenant)?)?)
    }

    /// Lets a role administer tenants and protect its own tables. Only a superuser may call it.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.grant_admin(role regrole) RETURNS void
LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn grant_admin(role: Option<Oid>) -> Result<(), ErrorReport> {
        Ok(rights::give(given("role", role)?, Grantee::Administrator)?)
    }

    /// Takes back what `grant_admin` gave.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.revoke_admin(role regrole) RETURNS void
LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn revoke_admin(role: Option<Oid>) -> Result<(), ErrorReport> {
        Ok(rights::take(given("role", role)?, Grantee::Administrator)?)
    }
}

#[pgrx::pg_schema]
mod tenancy_internal {
    use super::plan;
    use crate::model::Code;
    use crate::pg::trigger::{self, Event, Level, Timing};
    use pgrx::pg_sys::panic::ErrorReport;
    use pgrx::prelude::*;

    /// Whether a text can be a tenant's code. STRICT is meant: a NULL code is the column's own affair.
    #[pg_extern(immutable, parallel_safe)]
    fn is_tenant_code(code: &str) -> bool {
        Code::new(code).is_ok()
    }

    /// Refuses to change a tenant's keys and to remove tenants.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy_internal.keep_tenants() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn keep_tenants(call: trigger::Call) -> Result<(), ErrorReport> {
        let events = [Event::Update, Event::Delete, Event::Truncate];
        let fired = trigger::expect(call, Level::Either, Timing::Before, &events)?.on(c"tenancy", c"tenants")?;
        Err(plan::refuse_change(fired.old_text(c"code"), fired.event == Event::Update).into())
    }
}
