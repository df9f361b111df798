//! Work of ours on users' tables in which no trigger of theirs fires.
//!
//! What removes or repairs rows for all tenants is nobody's statement: a trigger of the users would run with rights that its author
//! does not have, or without the tenant that it counts for; it could change settings, queue deferred triggers, touch rows of other
//! tenants, or refuse for want of a tenant. Foreign keys stay in force. The executor copies a table's triggers for each statement,
//! so the copy can be changed.

use super::compat;
use super::guc::Backend;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::ffi::{c_char, c_int};

/// Which triggers of users' tables fire.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Firing {
    /// Those of foreign keys.
    ForeignKeys,
    /// These and ours: the log's, stamps, soft delete.
    Ours,
}

/// What is in force, with the hook that was there before.
#[derive(Clone, Copy)]
struct Installed {
    firing: Firing,
    next: pg_sys::ExecutorStart_hook_type,
}

static INSTALLED: Backend<Option<Installed>> = Backend::new(None);

/// Runs `work`, in whose statements only these triggers fire.
pub fn with_triggers<T>(firing: Firing, work: impl FnOnce() -> T) -> T {
    /// Puts back what was in force, on return and on error alike.
    struct Mark(Option<Installed>);
    impl Drop for Mark {
        fn drop(&mut self) {
            if let (None, Some(installed)) = (self.0, INSTALLED.get()) {
                // SAFETY: a variable of the backend.
                unsafe { pg_sys::ExecutorStart_hook = installed.next };
            }
            INSTALLED.set(self.0);
        }
    }
    let _mark = Mark(INSTALLED.get());
    let next = match INSTALLED.get() {
        Some(installed) => installed.next,
        None => {
            // SAFETY: a variable of the backend.
            unsafe {
                let next = pg_sys::ExecutorStart_hook;
                pg_sys::ExecutorStart_hook = Some(start);
                next
            }
        }
    };
    INSTALLED.set(Some(Installed { firing, next }));
    work()
}

/// Whether a trigger function must not run now. For those that the statement's start does not show: of a partition that a row is
/// found to belong to only when it is there.
pub fn is_muted(function: pg_sys::Oid) -> bool {
    INSTALLED.get().is_some_and(|installed| compat::is_trigger_function(function) && !fires(installed.firing, function))
}

fn fires(firing: Firing, function: pg_sys::Oid) -> bool {
    // SAFETY: compares with a list of the server's.
    let is_foreign_key = unsafe { pg_sys::RI_FKey_trigger_type(function) } != pg_sys::RI_TRIGGER_NONE as c_int;
    is_foreign_key || firing == Firing::Ours && compat::function_schema(function).is_some_and(is_own_schema)
}

/// Whether a schema is one of the extension's.
fn is_own_schema(schema: pg_sys::Oid) -> bool {
    // SAFETY: syscache lookups by name.
    let own = [c"tenancy_internal", c"tenancy"].map(|name| unsafe { pg_sys::get_namespace_oid(name.as_ptr(), true) });
    own.contains(&schema)
}

// The binding of the standard function is guarded, which would cost its errors their details (see hooks/statements.rs).
unsafe extern "C-unwind" {
    fn standard_ExecutorStart(query: *mut pg_sys::QueryDesc, flags: c_int);
}

unsafe extern "C-unwind" fn start(query: *mut pg_sys::QueryDesc, flags: c_int) {
    // SAFETY: the arguments of the hook; the query has been started by then. The frame owns nothing.
    unsafe {
        match INSTALLED.get().and_then(|installed| installed.next) {
            Some(next) => next(query, flags),
            None => standard_ExecutorStart(query, flags),
        }
        mute(query);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn mute(query: *mut pg_sys::QueryDesc) {
    let Some(Installed { firing, .. }) = INSTALLED.get() else { return };
    // SAFETY: the caller has started the query. The state of the plan belongs to it, and its tag says what it is. Rows for the
    // transition tables of triggers that do not fire need not be kept.
    unsafe {
        results((*query).estate).into_iter().for_each(|result| mute_result(result, firing));
        let state = (*query).planstate;
        if firing == Firing::ForeignKeys && !state.is_null() && (*state).type_ == pg_sys::NodeTag::T_ModifyTableState {
            let state = state.cast::<pg_sys::ModifyTableState>();
            let target = (*state).resultRelInfo;
            if !target.is_null() && !is_ours((*target).ri_RelationDesc) {
                (*state).mt_transition_capture = std::ptr::null_mut();
            }
        }
    }
}

/// # Safety
/// The executor keeps `result` for the query that has been started.
unsafe fn mute_result(result: *mut pg_sys::ResultRelInfo, firing: Firing) {
    // SAFETY: the triggers are a copy that the query owns; `numtriggers` says how many there are.
    unsafe {
        let description = (*result).ri_TrigDesc;
        if description.is_null() || is_ours((*result).ri_RelationDesc) {
            return;
        }
        let count = usize::try_from((*description).numtriggers).unwrap_or_default();
        for trigger in std::slice::from_raw_parts_mut((*description).triggers, count) {
            if !fires(firing, trigger.tgfoid) {
                trigger.tgenabled = b'D' as c_char;
            }
        }
    }
}

/// Whether a relation is one of the extension's.
///
/// # Safety
/// `relation` is open.
unsafe fn is_ours(relation: pg_sys::Relation) -> bool {
    // SAFETY: the caller vouches for it.
    is_own_schema(unsafe { (*(*relation).rd_rel).relnamespace })
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
