//! Statements of ours over tables of others, in which no function of others runs with our rights.
//!
//! Who reads a table meets code of its owner also without a trigger: the planner computes the constants in the expressions of
//! an index, a foreign key compares through casts, a domain has a CHECK. What works with the rights of the extension's owner
//! refuses it. Within `work` such a function is not inlined, and its call is an error, unless it runs with other rights:
//! those of a table's owner, or of a SECURITY DEFINER function's.

use super::guc::Backend;
use super::{compat, hooks, report};
use crate::error::TenancyError;
use pgrx::pg_sys;
use pgrx::prelude::*;

static NEXT_NEEDED: Backend<pg_sys::needs_fmgr_hook_type> = Backend::new(None);
static NEXT: Backend<pg_sys::fmgr_hook_type> = Backend::new(None);

/// Whose rights are not lent.
static LENDER: Backend<Option<pg_sys::Oid>> = Backend::new(None);

/// Runs `work`; no function that belongs to a role which is no superuser runs in it with the rights that `work` begins with.
pub fn refused<T>(work: impl FnOnce() -> T) -> T {
    /// Takes the hooks out again, on return and on error alike.
    struct Installed(pg_sys::needs_fmgr_hook_type, pg_sys::fmgr_hook_type);
    impl Drop for Installed {
        fn drop(&mut self) {
            // SAFETY: variables of the backend.
            unsafe {
                pg_sys::needs_fmgr_hook = self.0;
                pg_sys::fmgr_hook = self.1;
            }
            LENDER.set(None);
        }
    }
    if LENDER.get().is_some() {
        return work();
    }
    // SAFETY: variables of the backend.
    let _installed = unsafe { Installed(pg_sys::needs_fmgr_hook, pg_sys::fmgr_hook) };
    NEXT_NEEDED.set(_installed.0);
    NEXT.set(_installed.1);
    // SAFETY: as above.
    unsafe {
        LENDER.set(Some(pg_sys::GetUserId()));
        pg_sys::needs_fmgr_hook = Some(is_needed);
        pg_sys::fmgr_hook = Some(called);
    }
    work()
}

#[pg_guard]
unsafe extern "C-unwind" fn is_needed(function: pg_sys::Oid) -> bool {
    // SAFETY: the same argument.
    is_strange(function) || NEXT_NEEDED.get().is_some_and(|next| unsafe { next(function) })
}

/// Unguarded but for what may raise: its frame owns nothing, and the next hook's errors pass it as they are.
unsafe extern "C-unwind" fn called(
    event: pg_sys::FmgrHookEventType::Type,
    call: *mut pg_sys::FmgrInfo,
    private: *mut pg_sys::Datum,
) {
    // SAFETY: the arguments of the hook.
    unsafe {
        if let Some(next) = NEXT.get() {
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
    if LENDER.get() == Some(unsafe { pg_sys::GetUserId() }) && is_strange(function) {
        report::raise(TenancyError::StrangersFunction { function: hooks::function_name(function) })
    }
}

/// Whether a function belongs to a role that is no superuser.
fn is_strange(function: pg_sys::Oid) -> bool {
    function.to_u32() >= pg_sys::FirstNormalObjectId
        // SAFETY: reads the catalog.
        && compat::function_owner(function).is_none_or(|owner| !unsafe { pg_sys::superuser_arg(owner) })
}
