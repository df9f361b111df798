//! Context: who the tenant of this transaction is.
//! SQL: sql/context.sql. Decisions: model::context; tokens: token.rs, key.rs. Statements: store.rs.
//! What policies call for every row: pg::context.

mod key;
mod plan;
mod store;
#[cfg(any(test, feature = "pg_test"))]
mod tests;
mod token;

pgrx::extension_sql_file!(
    "../../sql/context.sql",
    requires = [
        "bootstrap",
        tenancy::set_tenant,
        tenancy::switch_tenant,
        tenancy::clear_tenant,
        tenancy::has_tenant,
        tenancy::verify_context,
        tenancy::assert_tenant,
        tenancy::set_tenant_signed,
        tenancy::context_dimension,
        tenancy::session_nonce,
        tenancy::add_signing_key,
        tenancy::retire_signing_key,
        tenancy::sign_tenant_token,
        tenancy::bind_role,
        tenancy::unbind_role,
        watched::tenancy_internal::announce_change
    ]
);

#[pgrx::pg_schema]
mod tenancy {
    use super::{plan, store};
    use crate::pg::{Oid, given, session, tenant_key};
    use pgrx::datum::{Interval, TimestampWithTimeZone};
    use pgrx::{AnyElement, Uuid, pg_sys::panic::ErrorReport, prelude::*};

    /// Sets the tenant of this transaction and gives its id.
    ///
    /// 42704 when it does not exist, 55000 when it is suspended or deleted, 42501 when the transaction or the
    /// connection belongs to another tenant already.
    #[pg_extern]
    fn set_tenant(tenant: Option<&str>) -> Result<Uuid, ErrorReport> {
        Ok(session::set_tenant(given("tenant", tenant)?)?)
    }

    /// Sets the tenant that a signed token names, and gives its id.
    ///
    /// 42501 when the token is not good for this session, 22023 when it cannot be read; else as `set_tenant`.
    #[pg_extern]
    fn set_tenant_signed(token: Option<&str>) -> Result<Uuid, ErrorReport> {
        Ok(store::set_tenant_signed(given("token", token)?)?)
    }

    /// A dimension of the token that set the tenant of this transaction; NULL when there is none.
    #[pg_extern(stable, parallel_safe)]
    fn context_dimension(name: Option<&str>) -> Result<Option<String>, ErrorReport> {
        Ok(store::context_dimension(given("name", name)?))
    }

    /// What a token must carry to be good on this connection only.
    #[pg_extern(stable, parallel_restricted)]
    fn session_nonce() -> Result<String, ErrorReport> {
        Ok(store::session_nonce()?)
    }

    /// Takes a key into use that tokens are verified with. 42710 when its name was given before.
    #[pg_extern(security_definer)]
    #[search_path(pg_catalog, pg_temp)]
    fn add_signing_key(kid: Option<&str>, algorithm: Option<&str>, key: Option<&str>) -> Result<(), ErrorReport> {
        let (kid, algorithm, key) = (given("kid", kid)?, given("algorithm", algorithm)?, given("key", key)?);
        Ok(store::add_signing_key(kid, algorithm, key)?)
    }

    /// Takes a key out of use for good.
    #[pg_extern(security_definer)]
    #[search_path(pg_catalog, pg_temp)]
    fn retire_signing_key(kid: Option<&str>) -> Result<(), ErrorReport> {
        Ok(store::retire_signing_key(given("kid", kid)?)?)
    }

    /// A token for `tenant`, for operators and tests: an application signs its own.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.sign_tenant_token(
    tenant text, ttl interval DEFAULT '5 minutes', kid text DEFAULT NULL, role text DEFAULT NULL,
    nonce text DEFAULT NULL, dimensions jsonb DEFAULT NULL
) RETURNS text
LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn sign_tenant_token(
        tenant: Option<&str>,
        ttl: Option<Interval>,
        kid: Option<&str>,
        role: Option<&str>,
        nonce: Option<&str>,
        dimensions: Option<AnyElement>,
    ) -> Result<String, ErrorReport> {
        let wishes = store::Wishes { ttl: given("ttl", ttl)?, kid, role, nonce, dimensions };
        Ok(store::sign_tenant_token(given("tenant", tenant)?, wishes)?)
    }

    /// Makes a login role `tenant` and no other, in every session of that role.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.bind_role(role regrole, tenant text) RETURNS void
LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn bind_role(role: Option<Oid>, tenant: Option<&str>) -> Result<(), ErrorReport> {
        Ok(store::bind_role(given("role", role)?, given("tenant", tenant)?)?)
    }

    /// Takes back what `bind_role` did.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.unbind_role(role regrole) RETURNS void
LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn unbind_role(role: Option<Oid>) -> Result<(), ErrorReport> {
        Ok(store::unbind_role(given("role", role)?)?)
    }

    /// Like `set_tenant`, also when the transaction belongs to another tenant. For administrators. Runs first what is deferred.
    #[pg_extern]
    fn switch_tenant(tenant: Option<&str>) -> Result<Uuid, ErrorReport> {
        Ok(session::switch_tenant(given("tenant", tenant)?)?)
    }

    /// Leaves the transaction without a tenant; it still cannot take another one. Runs first what is deferred.
    #[pg_extern]
    fn clear_tenant() -> Result<(), ErrorReport> {
        Ok(session::clear_tenant()?)
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
                name!(server_note, Option<String>),
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
            verdict.server_note,
        )))
    }
}
