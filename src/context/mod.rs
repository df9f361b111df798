//! Context: who the tenant of this transaction is.
//! SQL: sql/context.sql. Decisions: model::context. What policies call for every row: pg::context.

mod plan;
#[cfg(any(test, feature = "pg_test"))]
mod tests;

pgrx::extension_sql_file!(
    "../../sql/context.sql",
    requires = [
        "bootstrap",
        tenancy::set_tenant,
        tenancy::switch_tenant,
        tenancy::clear_tenant,
        tenancy::has_tenant,
        tenancy::verify_context,
        tenancy::assert_tenant
    ]
);

#[pgrx::pg_schema]
mod tenancy {
    use super::plan;
    use crate::pg::{given, guc, session, tenant_key};
    use pgrx::datum::TimestampWithTimeZone;
    use pgrx::{Uuid, pg_sys::panic::ErrorReport, prelude::*};

    /// Sets the tenant of this transaction and gives its id.
    ///
    /// 42704 when it does not exist, 55000 when it is suspended or deleted, 42501 when the transaction or the
    /// connection belongs to another tenant already.
    #[pg_extern]
    fn set_tenant(tenant: Option<&str>) -> Result<Uuid, ErrorReport> {
        Ok(session::set_tenant(given("tenant", tenant)?)?)
    }

    /// Like `set_tenant`, also when the transaction belongs to another tenant. For administrators.
    #[pg_extern]
    fn switch_tenant(tenant: Option<&str>) -> Result<Uuid, ErrorReport> {
        Ok(session::switch_tenant(given("tenant", tenant)?)?)
    }

    /// Leaves the transaction without a tenant; it still cannot take another one.
    #[pg_extern]
    fn clear_tenant() {
        guc::set("");
    }

    /// Whether `current_tenant_id()` would give a tenant now. Raises nothing.
    #[pg_extern(stable, parallel_safe)]
    fn has_tenant() -> bool {
        session::tenant_id().is_ok()
    }

    /// Raises 42501 unless the transaction belongs to `tenant`, and what a protected table would raise without one.
    #[pg_extern(stable)]
    fn assert_tenant(tenant: Option<&str>) -> Result<(), ErrorReport> {
        Ok(session::assert_tenant(&tenant_key(tenant)?)?)
    }

    /// How this session stands: its tenant, how and when that was set, and what binds the current role.
    #[pg_extern(stable, parallel_restricted)]
    #[expect(clippy::type_complexity, reason = "the columns of the answer")]
    fn verify_context() -> Result<
        TableIterator<
            'static,
            (
                name!(tenant_id, Option<Uuid>),
                name!(tenant_number, Option<i64>),
                name!(tenant_code, Option<String>),
                name!(status, Option<String>),
                name!(set_by, Option<String>),
                name!(set_at, Option<TimestampWithTimeZone>),
                name!(lifetime, String),
                name!(problem, Option<String>),
                name!(role, String),
                name!(is_bound, bool),
                name!(bound_reason, String),
                name!(loaded_by, String),
                name!(fence, String),
            ),
        >,
        ErrorReport,
    > {
        let facts = session::facts();
        let verdict = plan::verdict(&facts);
        Ok(TableIterator::once((
            facts.tenant.as_ref().map(|tenant| Uuid::from_bytes(*tenant.id.as_bytes())),
            facts.tenant.as_ref().map(|tenant| tenant.number),
            facts.tenant.as_ref().map(|tenant| tenant.code.to_string()),
            facts.tenant.as_ref().map(|tenant| tenant.status.as_str().to_owned()),
            verdict.set_by.map(str::to_owned),
            facts.set_at,
            verdict.lifetime.to_owned(),
            facts.problem,
            facts.role,
            verdict.is_bound,
            verdict.reason.to_owned(),
            verdict.loaded_by.to_owned(),
            verdict.fence.to_owned(),
        )))
    }
}
