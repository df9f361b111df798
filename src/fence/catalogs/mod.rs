//! The catalogs that show other sessions are taken from an application's role; what remains to it is its own part.
//!
//! Under shared_preload_libraries the hooks refuse them to that role alone, and PUBLIC keeps what it has. Without hooks
//! only grants are left, and PostgreSQL cannot take from one role what PUBLIC has: PUBLIC loses it, and every other role
//! gets it by name.

mod plan;
mod store;

#[pgrx::pg_schema]
pub mod tenancy {
    use super::store;
    use crate::pg::{Oid, given};
    use pgrx::{pg_sys::panic::ErrorReport, prelude::*};

    /// Takes from `role`, and from roles that have its rights, the catalogs that show other sessions; gives it views of
    /// its own part.
    ///
    /// `method` is `hooks`, `grants`, or `auto`: as before, or hooks where they are active. Does nothing the second time,
    /// but for roles and catalogs that came since. 42501 for others than superusers and for a role that cannot be locked
    /// down, 42704 for an unknown role, 55000 for hooks that are not active.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.lock_down_catalogs(role regrole, method text DEFAULT 'auto') RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn lock_down_catalogs(role: Option<Oid>, method: Option<&str>) -> Result<(), ErrorReport> {
        Ok(store::lock_down(given("role", role)?, given("method", method)?)?)
    }

    /// What `lock_down_catalogs` would do with the same arguments; changes nothing.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.plan_lock_down(role regrole, method text DEFAULT 'auto')
RETURNS TABLE (step integer, action text, statement text, reason text)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    #[expect(clippy::type_complexity, reason = "the columns of the answer")]
    fn plan_lock_down(
        role: Option<Oid>,
        method: Option<&str>,
    ) -> Result<
        TableIterator<
            'static,
            (name!(step, i32), name!(action, String), name!(statement, Option<String>), name!(reason, String)),
        >,
        ErrorReport,
    > {
        let steps = store::plan_lock_down(given("role", role)?, given("method", method)?)?;
        Ok(TableIterator::new(
            (1..)
                .zip(steps)
                .map(|(number, step)| (number, step.action, step.statement.map(|sql| sql.to_string()), step.reason)),
        ))
    }

    /// Undoes `lock_down_catalogs`. 42501 for others than superusers, 42704 for a role that is not locked down.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.unlock_catalogs(role regrole) RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn unlock_catalogs(role: Option<Oid>) -> Result<(), ErrorReport> {
        Ok(store::unlock(given("role", role)?)?)
    }
}
