//! Triggers that are deferred to the end of the transaction: they run as the tenant whose rows they are about.
//! Read with trigger.c (`AfterTriggerFireDeferred`, `AfterTriggerSetState`) of the server's version at hand.

use super::spi;
use crate::error::TenancyError;
use crate::model::Sql;
use pgrx::pg_sys;

/// Runs what is deferred so far, before the transaction loses its tenant or gets another one. An error of theirs goes on.
///
/// In a subtransaction only SET CONSTRAINTS ALL IMMEDIATE may do it: the other way throws away what a rollback of the
/// savepoint would bring back. It stays in force, for nobody can tell what was said before.
pub fn run() -> Result<(), TenancyError> {
    if !is_pending()? {
        return Ok(());
    }
    if has_borrowed_rights() {
        return Err(TenancyError::DeferredForDefiner);
    }
    // SAFETY: as a statement of this session would do it; errors of triggers become panics at the boundary.
    unsafe {
        if pg_sys::IsSubTransaction() {
            let mut all = pg_sys::ConstraintsSetStmt {
                type_: pg_sys::NodeTag::T_ConstraintsSetStmt,
                constraints: std::ptr::null_mut(),
                deferred: false,
            };
            pg_sys::AfterTriggerSetState(&mut all);
        } else {
            pg_sys::AfterTriggerFireDeferred();
        }
    }
    // What called us may be one of them, and others wait for it to end.
    if is_pending()? { Err(TenancyError::DeferredUnderWay) } else { Ok(()) }
}

/// Whether some trigger waits, or is under way.
fn is_pending() -> Result<bool, TenancyError> {
    // SAFETY: reads a variable of the backend. Who has no transaction id has written nothing that a trigger could wait for.
    if unsafe { pg_sys::GetTopTransactionIdIfAny() } == pg_sys::InvalidTransactionId {
        return Ok(false);
    }
    let sql = Sql::text("SELECT DISTINCT tgrelid FROM pg_catalog.pg_trigger WHERE tgdeferrable");
    let relations = spi::read(&sql, &[], |row| row.must::<pg_sys::Oid>(1))?;
    // SAFETY: looks into the list of events of this backend.
    Ok(relations.into_iter().any(|relation| unsafe { pg_sys::AfterTriggerPendingOnRel(relation) }))
}

/// Whether a SECURITY DEFINER function is at work, whose rights are not those of whoever queued the triggers.
fn has_borrowed_rights() -> bool {
    let (mut role, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: plain reads of backend variables.
    unsafe { pg_sys::GetUserIdAndSecContext(&mut role, &mut context) };
    context & pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32 != 0
}
