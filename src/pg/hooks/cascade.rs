//! What runs inside of a foreign key's own query.
//!
//! PostgreSQL lifts FORCE for that query (SECURITY_NOFORCE_RLS), and everything that runs inside of it inherits this: a
//! BEFORE trigger of the referencing table, a default, a function that the planner folds. The query itself passes the
//! fence, what is nested in it does not.

use crate::pg::guc::Backend;
use pgrx::pg_sys;
use std::cell::RefCell;
use std::ffi::{c_char, c_int};

/// Where the backend is.
#[derive(Clone, Copy)]
struct Place {
    /// Inside of a foreign key's query: what comes now is nested in it.
    is_nested: bool,
    /// That query itself is being planned, not one nested in it.
    is_planning: bool,
}

const OUTSIDE: Place = Place { is_nested: false, is_planning: false };

static PLACE: Backend<Place> = Backend::new(OUTSIDE);

/// A statement was analysed in there, and its tree, which lacks policies, may be kept: PostgreSQL's plan cache asks for the
/// role and for row_security, not for this.
static KEEPS_TREES: Backend<bool> = Backend::new(false);

thread_local! {
    /// The place that each subtransaction began in: an error jumps past what would put it back.
    static BEFORE: RefCell<Vec<(pg_sys::SubTransactionId, Place)>> = const { RefCell::new(Vec::new()) };
}

static NEXT_RUN: Backend<pg_sys::ExecutorRun_hook_type> = Backend::new(None);
static NEXT_PLANNER: Backend<pg_sys::planner_hook_type> = Backend::new(None);

pub fn install() {
    // SAFETY: the hook variables are set while the library is loaded, by one thread.
    unsafe {
        NEXT_RUN.set(pg_sys::ExecutorRun_hook);
        pg_sys::ExecutorRun_hook = Some(run);
        NEXT_PLANNER.set(pg_sys::planner_hook);
        pg_sys::planner_hook = Some(plan);
    }
}

/// Whether FORCE is lifted, for a foreign key's query and what runs inside of it.
pub fn is_lifted() -> bool {
    // SAFETY: reads a variable of the backend.
    unsafe { InNoForceRLSOperation() }
}

/// Whether the query about to be planned or run is a foreign key's own.
pub fn is_foreign_key_query() -> bool {
    is_lifted() && !PLACE.get().is_nested
}

/// Whether the query that is being planned is a foreign key's own.
pub fn is_foreign_key_plan() -> bool {
    is_lifted() && PLACE.get().is_planning
}

/// Whether what runs now is nested in a foreign key's query.
pub fn is_under_way() -> bool {
    is_lifted() && PLACE.get().is_nested
}

/// Enters the planning or the run of a query; gives the place to put back.
fn enter(is_planning: bool) -> Place {
    let before = PLACE.get();
    PLACE.set(Place { is_nested: is_lifted(), is_planning: is_planning && is_foreign_key_query() });
    before
}

/// Leaves the planning or the run of a query.
fn leave(before: Place) {
    PLACE.set(before);
    if !before.is_nested {
        forget_trees();
    }
}

/// Notes that a statement is being analysed.
pub fn note_analysis() {
    if is_under_way() {
        KEEPS_TREES.set(true);
    }
}

/// Sees that no tree made inside of a foreign key's query is used outside.
fn forget_trees() {
    if KEEPS_TREES.get() {
        KEEPS_TREES.set(false);
        // SAFETY: marks the plans of this backend, as any invalidation message does.
        unsafe { pg_sys::ResetPlanCache() };
    }
}

pub fn note_subtransaction_start(own: pg_sys::SubTransactionId) {
    BEFORE.with_borrow_mut(|marks| marks.push((own, PLACE.get())));
}

pub fn note_subtransaction_abort(own: pg_sys::SubTransactionId) {
    BEFORE.with_borrow_mut(|marks| {
        while let Some((subtransaction, before)) = marks.pop_if(|(subtransaction, _)| *subtransaction >= own) {
            if subtransaction == own {
                leave(before);
            }
        }
    });
}

pub fn note_transaction_end(event: pg_sys::XactEvent::Type) {
    use pg_sys::XactEvent::*;
    if matches!(event, XACT_EVENT_COMMIT | XACT_EVENT_ABORT | XACT_EVENT_PREPARE) {
        leave(OUTSIDE);
        BEFORE.with_borrow_mut(Vec::clear);
    }
}

// The binding of the standard function is guarded, which would cost its errors their details (see statements.rs).
unsafe extern "C-unwind" {
    // Asked several times a query; it raises nothing, so a guard around it would only cost.
    fn InNoForceRLSOperation() -> bool;
    #[cfg(not(feature = "pg18"))]
    fn standard_ExecutorRun(
        query: *mut pg_sys::QueryDesc,
        direction: pg_sys::ScanDirection::Type,
        count: pg_sys::uint64,
        once: bool,
    );
    fn standard_planner(
        query: *mut pg_sys::Query,
        text: *const c_char,
        options: c_int,
        parameters: pg_sys::ParamListInfo,
    ) -> *mut pg_sys::PlannedStmt;
    #[cfg(feature = "pg18")]
    fn standard_ExecutorRun(
        query: *mut pg_sys::QueryDesc,
        direction: pg_sys::ScanDirection::Type,
        count: pg_sys::uint64,
    );
}

#[cfg(not(feature = "pg18"))]
unsafe extern "C-unwind" fn run(
    query: *mut pg_sys::QueryDesc,
    direction: pg_sys::ScanDirection::Type,
    count: pg_sys::uint64,
    once: bool,
) {
    let before = enter(false);
    // SAFETY: the arguments of the hook.
    unsafe {
        match NEXT_RUN.get() {
            Some(next) => next(query, direction, count, once),
            None => standard_ExecutorRun(query, direction, count, once),
        }
    }
    leave(before);
}

#[cfg(feature = "pg18")]
unsafe extern "C-unwind" fn run(
    query: *mut pg_sys::QueryDesc,
    direction: pg_sys::ScanDirection::Type,
    count: pg_sys::uint64,
) {
    let before = enter(false);
    // SAFETY: the arguments of the hook.
    unsafe {
        match NEXT_RUN.get() {
            Some(next) => next(query, direction, count),
            None => standard_ExecutorRun(query, direction, count),
        }
    }
    leave(before);
}

unsafe extern "C-unwind" fn plan(
    query: *mut pg_sys::Query,
    text: *const c_char,
    options: c_int,
    parameters: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    let before = enter(true);
    // SAFETY: the arguments of the hook.
    let planned = unsafe {
        match NEXT_PLANNER.get() {
            Some(next) => next(query, text, options, parameters),
            None => standard_planner(query, text, options, parameters),
        }
    };
    leave(before);
    planned
}
