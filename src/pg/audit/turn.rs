//! Whose turn it is to maintain or seal the log: see `pg::turn`.

use crate::error::{AuditError, TenancyError};
use crate::pg::turn;
use pgrx::pg_sys;

/// Refuses a call of a procedure that commits where it could not.
pub fn refuse_in_transaction(call: &str) -> Result<(), TenancyError> {
    // SAFETY: a variable of the backend.
    if unsafe { pg_sys::IsTransactionBlock() } {
        return Err(AuditError::InTransaction { call: call.to_owned() }.into());
    }
    Ok(())
}

/// Takes the turn, unless another session has it.
pub fn take() -> Result<(), TenancyError> {
    let task = task()?;
    turn::give(task);
    if turn::take(task) { Ok(()) } else { Err(AuditError::AlreadyMaintained.into()) }
}

/// Whether this session has the turn.
pub fn has() -> Result<bool, TenancyError> {
    Ok(turn::has(task()?))
}

/// Gives the turn back, where this session has it.
pub fn give() -> Result<(), TenancyError> {
    turn::give(task()?);
    Ok(())
}

fn task() -> Result<turn::Task, TenancyError> {
    turn::task(c"tenancy", c"audit_maintenance", 0)
}
