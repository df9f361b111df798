//! Fence: what PostgreSQL would let past row security, and a tenant's rows with it, is stopped.
//! SQL: sql/fence.sql. Decisions: plan.rs. Statements: store.rs. Hooks: pg::hooks.

mod catalogs;
mod plan;
mod store;

use crate::pg::hooks::Rules;

/// What the hooks of the fence decide by.
pub const RULES: Rules = Rules { admit: plan::admit, permits: plan::permits, shows: plan::shows };

pgrx::extension_sql_file!(
    "../../sql/fence.sql",
    requires = [
        "registry",
        "context",
        tenancy::exempt_role,
        tenancy::unexempt_role,
        tenancy_internal::violation_tallies,
        catalogs::tenancy::lock_down_catalogs,
        catalogs::tenancy::plan_lock_down,
        catalogs::tenancy::unlock_catalogs
    ]
);

#[pgrx::pg_schema]
mod tenancy {
    use super::store;
    use crate::pg::{Oid, given};
    use pgrx::datum::TimestampWithTimeZone;
    use pgrx::{pg_sys::panic::ErrorReport, prelude::*};

    /// Lets `role` past the fence, for `reason` and until `until` (NULL for no end). Replaces an earlier exemption.
    ///
    /// It lifts no row security: it is for roles that this does not bind, such as one with BYPASSRLS that makes backups.
    /// 42501 for others than superusers, 42704 for an unknown role, 22023 for no reason or a time that is past.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.exempt_role(role regrole, reason text, until timestamptz DEFAULT NULL) RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn exempt_role(
        role: Option<Oid>,
        reason: Option<&str>,
        until: Option<TimestampWithTimeZone>,
    ) -> Result<(), ErrorReport> {
        Ok(store::exempt(given("role", role)?, given("reason", reason)?, until)?)
    }

    /// Takes back what `exempt_role` gave. 42501 for others than superusers, 42704 for a role that is not exempt.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.unexempt_role(role regrole) RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn unexempt_role(role: Option<Oid>) -> Result<(), ErrorReport> {
        Ok(store::unexempt(given("role", role)?)?)
    }
}

#[pgrx::pg_schema]
mod tenancy_internal {
    use crate::pg::violations;
    use pgrx::datum::TimestampWithTimeZone;
    use pgrx::prelude::*;

    /// What the view `tenancy.violations` shows.
    #[pg_extern(volatile, parallel_restricted)]
    fn violation_tallies() -> TableIterator<
        'static,
        (
            name!(kind, String),
            name!(count, i64),
            name!(last_minute, i64),
            name!(last_hour, i64),
            name!(last_at, Option<TimestampWithTimeZone>),
            name!(scope, String),
        ),
    > {
        let scope = if violations::are_shared() { "server" } else { "session" };
        TableIterator::new(violations::tallies().into_iter().map(move |tally| {
            let kind = tally.kind.name().to_owned();
            (kind, tally.count, tally.last_minute, tally.last_hour, tally.last_at, scope.to_owned())
        }))
    }
}
