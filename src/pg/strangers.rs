//! Statements of ours over tables of others, in which no function of others runs with our rights.
//!
//! Who reads a table meets code of its owner also without a trigger: the planner computes the constants in the expressions of
//! an index, a foreign key compares through casts, a domain has a CHECK. What works with the rights of the extension's owner,
//! and what a superuser or an administrator asks of tables, refuses it: within `work` such a function is not inlined, and its call
//! is an error, unless it runs with the rights of a table's owner (`table_work`, a foreign key's own query).

use super::guc::Backend;
use super::{compat, hooks, mute, report, role};
use crate::error::TenancyError;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::cell::RefCell;
use std::ffi::c_void;

/// What is in force.
#[derive(Clone, Copy)]
struct Refusal {
    /// Whose rights are not lent, beside those of superusers; none where the work is done with those of a table's owner.
    lender: Option<pg_sys::Oid>,
    needed_before: pg_sys::needs_fmgr_hook_type,
    called_before: pg_sys::fmgr_hook_type,
}

static IN_FORCE: Backend<Option<Refusal>> = Backend::new(None);

/// Who asked for it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Asked {
    /// One that fails ends what was asked for in it.
    subtransaction: pg_sys::SubTransactionId,
    /// The role that called `refuse`, and alone can call `allow`: a table's owner may be an administrator.
    by: Option<pg_sys::Oid>,
}

thread_local! {
    /// What asked for it and has not ended it, innermost last.
    static ASKED: RefCell<Vec<Asked>> = const { RefCell::new(Vec::new()) };
}

/// Runs `work`; no function that belongs to a role which is no superuser runs in it with the rights that `work` begins with, nor
/// with those of a superuser.
pub fn refused<T>(work: impl FnOnce() -> T) -> T {
    lending_nothing(Some(role::current()), work)
}

/// The same for work that is done with the rights of a table's owner, unless he is a superuser: his own code runs, and that of others
/// as PostgreSQL lets it.
pub fn refused_to_superusers<T>(work: impl FnOnce() -> T) -> T {
    lending_nothing(None, work)
}

fn lending_nothing<T>(lender: Option<pg_sys::Oid>, work: impl FnOnce() -> T) -> T {
    /// Ends it on return and on error alike.
    struct Mark;
    impl Drop for Mark {
        fn drop(&mut self) {
            end();
        }
    }
    begin(None, lender);
    let _mark = Mark;
    work()
}

/// The same where the current role is a superuser or an administrator; other roles lend nothing that a table's owner lacks.
/// What a door asks of users' tables goes through here.
pub fn at_door<T>(work: impl FnOnce() -> T) -> T {
    if lends() { refused(work) } else { work() }
}

/// As `at_door`, for what follows in a function in SQL; until `allow`, or until the subtransaction fails.
pub fn refuse() {
    if lends() {
        begin(Some(role::current()), Some(role::current()));
    }
}

/// Ends what the last `refuse` began, for the same role.
pub fn allow() {
    let by = Some(role::current());
    if ASKED.with_borrow(|asked| asked.last().is_some_and(|last| last.by == by)) {
        end();
    }
}

fn lends() -> bool {
    role::is_privileged(role::current())
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
unsafe extern "C-unwind" fn ended(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    use pg_sys::XactEvent::*;
    if matches!(event, XACT_EVENT_COMMIT | XACT_EVENT_ABORT | XACT_EVENT_PREPARE) {
        ASKED.with_borrow_mut(Vec::clear);
        take_out();
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn subtransaction_ended(
    event: pg_sys::SubXactEvent::Type,
    failed: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _argument: *mut c_void,
) {
    if event == pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB {
        let is_over = ASKED.with_borrow_mut(|asked| {
            asked.retain(|asked| asked.subtransaction < failed);
            asked.is_empty()
        });
        if is_over {
            take_out();
        }
    }
}

fn begin(by: Option<pg_sys::Oid>, lender: Option<pg_sys::Oid>) {
    // SAFETY: variables of the backend.
    unsafe {
        let subtransaction = pg_sys::GetCurrentSubTransactionId();
        ASKED.with_borrow_mut(|asked| asked.push(Asked { subtransaction, by }));
        if IN_FORCE.get().is_none() {
            IN_FORCE.set(Some(Refusal {
                lender,
                needed_before: pg_sys::needs_fmgr_hook,
                called_before: pg_sys::fmgr_hook,
            }));
            pg_sys::needs_fmgr_hook = Some(is_needed);
            pg_sys::fmgr_hook = Some(called);
        }
    }
}

fn end() {
    let is_over = ASKED.with_borrow_mut(|asked| {
        asked.pop();
        asked.is_empty()
    });
    if is_over {
        take_out();
    }
}

fn take_out() {
    if let Some(refusal) = IN_FORCE.get() {
        IN_FORCE.set(None);
        // SAFETY: variables of the backend.
        unsafe {
            pg_sys::needs_fmgr_hook = refusal.needed_before;
            pg_sys::fmgr_hook = refusal.called_before;
        }
    }
}

/// Asked when a function is looked up to be called. A SECURITY DEFINER function is refused here: once it is called, the rights are
/// its owner's, and what it says of settings outlives it.
#[pg_guard]
unsafe extern "C-unwind" fn is_needed(function: pg_sys::Oid) -> bool {
    if is_strange(function) {
        if compat::is_security_definer(function) {
            refuse_call(function);
        }
        return true;
    }
    // SAFETY: the same argument.
    IN_FORCE.get().and_then(|refusal| refusal.needed_before).is_some_and(|next| unsafe { next(function) })
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
    if is_strange(function) {
        if mute::is_muted(function) {
            report::raise(TenancyError::MutedTrigger { function: hooks::function_name(function) })
        }
        refuse_call(function);
    }
}

/// Raises where `function` would run with rights that its owner lacks.
fn refuse_call(function: pg_sys::Oid) {
    let current = role::current();
    let lends = IN_FORCE.get().is_some_and(|refusal| refusal.lender == Some(current)) || role::is_superuser(current);
    if lends && compat::function_owner(function) != Some(current) {
        let rights = if role::is_superuser(current) {
            "a superuser".into()
        } else {
            format!("role \"{}\"", role::current_role())
        };
        report::raise(TenancyError::StrangersFunction { function: hooks::function_name(function), rights })
    }
}

/// Whether a function belongs to a role that is no superuser.
fn is_strange(function: pg_sys::Oid) -> bool {
    function.to_u32() >= pg_sys::FirstNormalObjectId
        && compat::function_owner(function).is_none_or(|owner| !role::is_superuser(owner))
}
