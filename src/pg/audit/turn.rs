//! Whose turn it is to maintain or seal the log: see `pg::turn`.

use crate::error::{AuditError, TenancyError};
use crate::pg::turn;

/// Takes the turn, unless another session has it.
pub fn take() -> Result<(), TenancyError> {
    let task = task()?;
    turn::give(task);
    if turn::take(task) { Ok(()) } else { Err(AuditError::AlreadyMaintained.into()) }
}

/// Gives the turn back, where this session has it.
pub fn give() -> Result<(), TenancyError> {
    turn::give(task()?);
    Ok(())
}

fn task() -> Result<turn::Task, TenancyError> {
    turn::task(c"tenancy", c"audit_maintenance", 0)
}
