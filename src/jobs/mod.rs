//! Jobs: who is at long work, how far it is, and that no two sessions do the same.
//! SQL: sql/jobs.sql, which keeps the record. Decisions: plan.rs. Turns: store.rs.

mod plan;
mod store;

pgrx::extension_sql_file!(
    "../../sql/jobs.sql",
    requires = [tenancy_internal::take_turn, tenancy_internal::has_turn, tenancy_internal::give_turn]
);

#[pgrx::pg_schema]
mod tenancy_internal {
    use super::store;
    use crate::pg::given;
    use pgrx::{pg_sys::panic::ErrorReport, prelude::*};

    /// Lets this session do a task, alone, until it gives the turn back, fails or ends; gives the number of the task, as
    /// pg_locks has it in objid. 55006 while another session does it.
    #[pg_extern]
    fn take_turn(kind: Option<&str>, subject: Option<&str>) -> Result<i64, ErrorReport> {
        Ok(store::take(given("kind", kind)?, given("subject", subject)?)?)
    }

    /// Whether this session does the task.
    #[pg_extern]
    fn has_turn(kind: Option<&str>, subject: Option<&str>) -> Result<bool, ErrorReport> {
        Ok(store::has(given("kind", kind)?, given("subject", subject)?)?)
    }

    /// Gives the turn back, where this session has it.
    #[pg_extern]
    fn give_turn(kind: Option<&str>, subject: Option<&str>) -> Result<(), ErrorReport> {
        Ok(store::give(given("kind", kind)?, given("subject", subject)?)?)
    }
}
