//! Trigger functions: what PostgreSQL passes them.

use crate::error::TenancyError;
use pgrx::{PgTrigger, pg_sys};

/// A call of a trigger function, as a door receives it.
pub type Call = pg_sys::FunctionCallInfo;

/// What fired the trigger; refuses a call by anybody but PostgreSQL, for which pgrx's own wrapper has no SQLSTATE.
pub fn fired(call: &Call) -> Result<PgTrigger<'_>, TenancyError> {
    // SAFETY: a function's call information is valid while it runs; the context's node tag tells what it is.
    unsafe { PgTrigger::from_fcinfo(&**call) }.map_err(|_| TenancyError::NotATriggerCall)
}
