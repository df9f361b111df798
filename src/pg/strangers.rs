//! Statements of ours over tables of others, in which no function of others runs with our rights.
//!
//! Who reads a table meets code of its owner also without a trigger: the planner computes the constants in the expressions of
//! an index, a foreign key compares through casts, a domain has a CHECK. What works with the rights of the extension's owner,
//! or looks at all tables for a superuser, refuses it. Within `work` such a function is not inlined, and its call is an error, unless it runs with other rights:
//! those of a table's owner, or of a SECURITY DEFINER function's.

use super::guc::Backend;
use super::{compat, hooks, report};
use crate::error::TenancyError;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::ffi::c_void;

/// What is in force.
#[derive(Clone, Copy)]
struct Refusal {
    /// Whose rights are not lent.
    lender: pg_sys::Oid,
    needed_before: pg_sys::needs_fmgr_hook_type,
    called_before: pg_sys::fmgr_hook_type,
    /// What ends it by failing.
    subtransaction: pg_sys::SubTransactionId,
}

static IN_FORCE: Backend<Option<Refusal>> = Backend::new(None);

/// Runs `work`; no function that belongs to a role which is no superuser runs in it with the rights that `work` begins with.
pub fn refused<T>(work: impl FnOnce() -> T) -> T {
    /// Ends it on return and on error alike.
    struct Mark;
    impl Drop for Mark {
        fn drop(&mut self) {
            end();
        }
    }
    if IN_FORCE.get().is_some() {
        return work();
    }
    begin();
    let _mark = Mark;
    work()
}

/// The same for what follows, where the current role is a superuser; until `allow`, or until the subtransaction fails.
pub fn refuse() {
    // SAFETY: reads the catalog.
    if IN_FORCE.get().is_none() && unsafe { pg_sys::superuser() } {
        begin();
    }
}

/// Ends what `refuse` began, for the same role.
pub fn allow() {
    // SAFETY: reads a variable of the backend.
    if IN_FORCE.get().is_some_and(|refusal| refusal.lender == unsafe { pg_sys::GetUserId() }) {
        end();
    }
}

/// Watches for failing transactions; called once, from `_PG_init`.
pub fn watch() {
    // SAFETY: the callbacks are guarded, set variables of the backend and raise nothing.
    unsafe {
        pg_sys::RegisterXactCallback(Some(ended), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(subtransaction_ended), std::ptr::null_mut());
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn ended(_event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    end();
}

#[pg_guard]
unsafe extern "C-unwind" fn subtransaction_ended(
    event: pg_sys::SubXactEvent::Type,
    failed: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _argument: *mut c_void,
) {
    let is_over = |refusal: Refusal| failed <= refusal.subtransaction;
    if event == pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB && IN_FORCE.get().is_some_and(is_over) {
        end();
    }
}

fn begin() {
    // SAFETY: variables of the backend.
    unsafe {
        IN_FORCE.set(Some(Refusal {
            lender: pg_sys::GetUserId(),
            needed_before: pg_sys::needs_fmgr_hook,
            called_before: pg_sys::fmgr_hook,
            subtransaction: pg_sys::GetCurrentSubTransactionId(),
        }));
        pg_sys::needs_fmgr_hook = Some(is_needed);
        pg_sys::fmgr_hook = Some(called);
    }
}

fn end() {
    if let Some(refusal) = IN_FORCE.get() {
        IN_FORCE.set(None);
        // SAFETY: variables of the backend.
        unsafe {
            pg_sys::needs_fmgr_hook = refusal.needed_before;
            pg_sys::fmgr_hook = refusal.called_before;
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn is_needed(function: pg_sys::Oid) -> bool {
    // SAFETY: the same argument.
    is_strange(function)
        || IN_FORCE.get().and_then(|refusal| refusal.needed_before).is_some_and(|next| unsafe { next(function) })
}

/// Unguarded but for what may raise: its frame owns nothing, and the next hook's errors pass it as they are.
unsafe extern "C-unwind" fn called(
    event: pg_sys::FmgrHookEventType::Type,
    call: *mut pg_sys::FmgrInfo,
    private: *mut pg_sys::Datum,
) {
    // SAFETY: the arguments of the hook.
    unsafe {
        if let Some(next) = IN_FORCE.get().and_then(|refusal| refusal.called_before) {
            next(event, call, private);
        }
        if event == pg_sys::FmgrHookEventType::FHET_START {
            judge((*call).fn_oid);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn judge(function: pg_sys::Oid) {
    // SAFETY: reads a variable of the backend.
    let lends = IN_FORCE.get().is_some_and(|refusal| refusal.lender == unsafe { pg_sys::GetUserId() });
    if lends && is_strange(function) {
        report::raise(TenancyError::StrangersFunction { function: hooks::function_name(function) })
    }
}

/// Whether a function belongs to a role that is no superuser.
fn is_strange(function: pg_sys::Oid) -> bool {
    function.to_u32() >= pg_sys::FirstNormalObjectId
        // SAFETY: reads the catalog.
        && compat::function_owner(function).is_none_or(|owner| !unsafe { pg_sys::superuser_arg(owner) })
}
