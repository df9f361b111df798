//! Removal of a tenant's rows with nobody's triggers but those of foreign keys.
//!
//! What removes a whole tenant works with the rights of the extension's owner, on tables of others: their triggers would run
//! with these rights, write the rows that go back into a log, touch rows of other tenants, or refuse for want of a tenant.
//! Foreign keys stay in force. The executor copies a table's triggers for each statement, so the copy can be changed.

use super::guc::Backend;
use super::{protected, report};
use crate::error::TenancyError;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::ffi::{c_char, c_int};

static NEXT: Backend<pg_sys::ExecutorStart_hook_type> = Backend::new(None);

/// Runs `work`; of the triggers of protected tables only those of foreign keys fire in it.
pub fn with_foreign_keys_only<T>(work: impl FnOnce() -> T) -> T {
    /// Takes the hook out again, on return and on error alike.
    struct Installed(pg_sys::ExecutorStart_hook_type);
    impl Drop for Installed {
        fn drop(&mut self) {
            // SAFETY: a variable of the backend.
            unsafe { pg_sys::ExecutorStart_hook = self.0 };
        }
    }
    // SAFETY: a variable of the backend.
    let _installed = Installed(unsafe { pg_sys::ExecutorStart_hook });
    NEXT.set(_installed.0);
    // SAFETY: as above.
    unsafe { pg_sys::ExecutorStart_hook = Some(start) };
    work()
}

// The binding of the standard function is guarded, which would cost its errors their details (see hooks/statements.rs).
unsafe extern "C-unwind" {
    fn standard_ExecutorStart(query: *mut pg_sys::QueryDesc, flags: c_int);
}

unsafe extern "C-unwind" fn start(query: *mut pg_sys::QueryDesc, flags: c_int) {
    // SAFETY: the arguments of the hook; the query has been started by then. The frame owns nothing.
    unsafe {
        match NEXT.get() {
            Some(next) => next(query, flags),
            None => standard_ExecutorStart(query, flags),
        }
        mute(query);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn mute(query: *mut pg_sys::QueryDesc) {
    // SAFETY: the caller has started the query.
    if let Err(refusal) = unsafe { results((*query).estate).into_iter().try_for_each(|result| mute_result(result)) } {
        report::raise(refusal)
    }
    // SAFETY: the state of the plan belongs to the query, and its tag says what it is. Rows for the transition tables of
    // triggers that do not fire need not be kept.
    unsafe {
        let state = (*query).planstate;
        if !state.is_null() && (*state).type_ == pg_sys::NodeTag::T_ModifyTableState {
            let state = state.cast::<pg_sys::ModifyTableState>();
            let target = (*state).resultRelInfo;
            if !target.is_null() && is_protected((*target).ri_RelationDesc) == Ok(true) {
                (*state).mt_transition_capture = std::ptr::null_mut();
            }
        }
    }
}

/// # Safety
/// The executor keeps `result` for the query that has been started.
unsafe fn mute_result(result: *mut pg_sys::ResultRelInfo) -> Result<(), TenancyError> {
    // SAFETY: the triggers are a copy that the query owns; `numtriggers` says how many there are.
    unsafe {
        let description = (*result).ri_TrigDesc;
        if description.is_null() || !is_protected((*result).ri_RelationDesc)? {
            return Ok(());
        }
        let count = usize::try_from((*description).numtriggers).unwrap_or_default();
        for trigger in std::slice::from_raw_parts_mut((*description).triggers, count) {
            if pg_sys::RI_FKey_trigger_type(trigger.tgfoid) == pg_sys::RI_TRIGGER_NONE as c_int {
                trigger.tgenabled = b'D' as c_char;
            }
        }
    }
    Ok(())
}

/// # Safety
/// `relation` is open.
unsafe fn is_protected(relation: pg_sys::Relation) -> Result<bool, TenancyError> {
    // SAFETY: the caller vouches for it.
    Ok(protected::find(unsafe { (*relation).rd_id })?.is_some())
}

/// The relations that a statement changes, with those that its WITH queries do.
///
/// # Safety
/// `state` belongs to a query that has been started.
#[cfg(not(feature = "pg13"))]
unsafe fn results(state: *mut pg_sys::EState) -> Vec<*mut pg_sys::ResultRelInfo> {
    // SAFETY: the caller vouches for the state; the list holds what it says.
    unsafe { pgrx::PgList::from_pg((*state).es_opened_result_relations).iter_ptr().collect() }
}

#[cfg(feature = "pg13")]
unsafe fn results(state: *mut pg_sys::EState) -> Vec<*mut pg_sys::ResultRelInfo> {
    // SAFETY: the caller vouches for the state, which has an array of that many.
    unsafe {
        let count = usize::try_from((*state).es_num_result_relations).unwrap_or_default();
        (0..count).map(|at| (*state).es_result_relations.add(at)).collect()
    }
}
