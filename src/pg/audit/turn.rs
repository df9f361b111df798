//! Whose turn it is to maintain or seal the log: one session's at a time, over many transactions.
//!
//! The turn is a lock of the session on a view, in a mode that nothing else locks a view in, and that no role without
//! rights to the view can take. It goes with the session, and with the first transaction of it that fails: then the
//! procedure that took it is over.

use crate::error::{AuditError, TenancyError};
use crate::pg::guc::Backend;
use crate::pg::table;
use pgrx::pg_sys;
use pgrx::prelude::*;

const MODE: i32 = pg_sys::ShareUpdateExclusiveLock as i32;

static TAKEN: Backend<Option<pg_sys::LockRelId>> = Backend::new(None);

/// Watches for failing transactions; called once, from `_PG_init`.
pub fn watch() {
    // SAFETY: the callback is guarded, touches only this backend's locks and raises nothing.
    unsafe { pg_sys::RegisterXactCallback(Some(ended), std::ptr::null_mut()) };
}

#[pg_guard]
unsafe extern "C-unwind" fn ended(event: pg_sys::XactEvent::Type, _argument: *mut std::ffi::c_void) {
    if event == pg_sys::XactEvent::XACT_EVENT_ABORT {
        give();
    }
}

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
    give();
    let relation = table::oid(c"tenancy", c"audit_maintenance").ok_or(TenancyError::NotInstalled)?;
    // SAFETY: the view exists; the lock of the transaction is taken first, for the session's cannot be asked for.
    unsafe {
        if !pg_sys::ConditionalLockRelationOid(relation, MODE) {
            return Err(AuditError::AlreadyMaintained.into());
        }
        let mut taken = pg_sys::LockRelId { relId: relation, dbId: pg_sys::MyDatabaseId };
        pg_sys::LockRelationIdForSession(&raw mut taken, MODE);
        TAKEN.set(Some(taken));
    }
    Ok(())
}

/// Gives the turn back, where this session has it.
pub fn give() {
    if let Some(mut taken) = TAKEN.get() {
        TAKEN.set(None);
        // SAFETY: taken above, once.
        unsafe { pg_sys::UnlockRelationIdForSession(&raw mut taken, MODE) };
    }
}
