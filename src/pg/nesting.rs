//! How deep the backend is in queries, and which of them are no client's: a foreign key's own, and those of `table_work`.
//!
//! PostgreSQL lifts FORCE for a foreign key's query (SECURITY_NOFORCE_RLS), and everything that runs inside of it inherits this: a
//! BEFORE trigger of the referencing table, a default, a function that the planner folds. The query itself passes the
//! fence, what is nested in it does not, and no tree that was made in it is used outside. The same goes for our own statements on
//! users' tables.

use crate::pg::guc::Backend;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::cell::RefCell;
use std::ffi::{c_char, c_int, c_void};

/// Where the backend is.
#[derive(Clone, Copy)]
struct Place {
    /// Inside of a foreign key's query: what comes now is nested in it.
    is_nested: bool,
    /// The innermost is being planned; else it runs.
    is_planning: bool,
    /// The innermost is a foreign key's own.
    is_foreign_key: bool,
    /// How many queries are being planned or run, one inside of the other.
    depth: u32,
    /// A statement of `table_work` is planned and run at this depth.
    own: Option<u32>,
    /// What runs innermost.
    running: Running,
}

/// A query that runs.
#[derive(Clone, Copy)]
struct Running {
    query: *mut pg_sys::QueryDesc,
    /// No other run has it.
    number: u64,
}

const OUTSIDE: Place = Place {
    is_nested: false,
    is_planning: false,
    is_foreign_key: false,
    depth: 0,
    own: None,
    running: Running { query: std::ptr::null_mut(), number: 0 },
};

static PLACE: Backend<Place> = Backend::new(OUTSIDE);
static LAST_RUN: Backend<u64> = Backend::new(0);

/// A statement was analysed in there, and its tree, which lacks policies, may be kept: PostgreSQL's plan cache asks for the
/// role and for row_security, not for this.
static KEEPS_TREES: Backend<bool> = Backend::new(false);

thread_local! {
    /// The place that each subtransaction began in: an error jumps past what would put it back.
    static BEFORE: RefCell<Vec<(pg_sys::SubTransactionId, Place)>> = const { RefCell::new(Vec::new()) };
}

static NEXT_RUN: Backend<pg_sys::ExecutorRun_hook_type> = Backend::new(None);
static NEXT_FINISH: Backend<pg_sys::ExecutorFinish_hook_type> = Backend::new(None);
static NEXT_PLANNER: Backend<pg_sys::planner_hook_type> = Backend::new(None);

/// Installs the hooks, wherever the library is loaded; called once, from `_PG_init`.
pub fn install() {
    // SAFETY: the hook variables are set while the library is loaded, by one thread; the callbacks are guarded, set variables of
    // the backend and raise nothing.
    unsafe {
        NEXT_RUN.set(pg_sys::ExecutorRun_hook);
        pg_sys::ExecutorRun_hook = Some(run);
        NEXT_FINISH.set(pg_sys::ExecutorFinish_hook);
        pg_sys::ExecutorFinish_hook = Some(finish);
        NEXT_PLANNER.set(pg_sys::planner_hook);
        pg_sys::planner_hook = Some(plan);
        pg_sys::RegisterXactCallback(Some(note_transaction_end), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(note_subtransaction), std::ptr::null_mut());
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
    is_lifted() && PLACE.get().is_planning && PLACE.get().is_foreign_key
}

/// Whether what runs now is nested in a foreign key's query.
pub fn is_under_way() -> bool {
    is_lifted() && PLACE.get().is_nested
}

/// Runs `work`; the statement that is planned and run in it, not what is nested in that, is our own.
pub fn own_statement<T>(work: impl FnOnce() -> T) -> T {
    /// Puts the mark back on return and on error alike.
    struct Mark(Option<u32>);
    impl Drop for Mark {
        fn drop(&mut self) {
            PLACE.set(Place { own: self.0, ..PLACE.get() });
        }
    }
    let place = PLACE.get();
    let _mark = Mark(place.own);
    PLACE.set(Place { own: Some(place.depth), ..place });
    work()
}

/// Whether the query about to be planned or run is our own.
pub fn is_own_query() -> bool {
    let place = PLACE.get();
    place.own == Some(place.depth)
}

/// Whether the query that is being planned is our own.
pub fn is_own_plan() -> bool {
    let place = PLACE.get();
    place.is_planning && place.is_inside_own()
}

/// Whether the innermost query that runs is our own.
pub fn is_in_own_query() -> bool {
    let place = PLACE.get();
    !place.is_planning && place.is_inside_own()
}

impl Place {
    fn is_inside_own(&self) -> bool {
        self.own.is_some_and(|depth| depth + 1 == self.depth)
    }
}

/// A number that no other run of a query has, None where none runs that is known.
pub fn run_number() -> Option<u64> {
    let running = PLACE.get().running;
    (!running.query.is_null()).then_some(running.number)
}

/// What a statement does to rows that it finds in a relation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Intent {
    pub updates: bool,
    /// The relation that the statement names to delete from.
    pub deletes_from: Option<pg_sys::Oid>,
}

/// What the innermost query that runs is about to do to rows of `relation`; None where nobody has seen it begin.
pub fn intent(relation: pg_sys::Oid) -> Option<Intent> {
    let query = PLACE.get().running.query;
    if query.is_null() {
        return None;
    }
    // SAFETY: the query runs, and is put away with the place when it ends or fails; what changes rows is the top of the plan, or of
    // one of the plans for its WITH queries.
    unsafe {
        let planned = (*query).plannedstmt;
        let mut intent = Intent::default();
        let subplans = pgrx::PgList::<pg_sys::Plan>::from_pg((*planned).subplans);
        for top in std::iter::once((*planned).planTree).chain(subplans.iter_ptr()) {
            if !top.is_null() && (*top).type_ == pg_sys::NodeTag::T_ModifyTable {
                note_intent(&mut intent, planned, top.cast(), relation);
            }
        }
        Some(intent)
    }
}

/// # Safety
/// The node is one of the statement's.
unsafe fn note_intent(
    intent: &mut Intent,
    planned: *mut pg_sys::PlannedStmt,
    node: *mut pg_sys::ModifyTable,
    relation: pg_sys::Oid,
) {
    // SAFETY: the caller vouches for both; numbers of relations are places in the range table.
    unsafe {
        let entries = pgrx::PgList::<pg_sys::RangeTblEntry>::from_pg((*planned).rtable);
        let named = |number: u32| entries.get_ptr(number as usize - 1).map(|entry| (*entry).relid);
        let targets = pgrx::PgList::<c_void>::from_pg((*node).resultRelations);
        let mut numbers = (0..targets.len()).map(|at| pg_sys::list_nth_int((*node).resultRelations, at as c_int));
        if !numbers.any(|number| named(number as u32) == Some(relation)) {
            return;
        }
        let mut note = |command| match command {
            pg_sys::CmdType::CMD_UPDATE => intent.updates = true,
            pg_sys::CmdType::CMD_DELETE => intent.deletes_from = named((*node).nominalRelation),
            _ => {}
        };
        note((*node).operation);
        #[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17", feature = "pg18"))]
        for actions in pgrx::PgList::<pg_sys::List>::from_pg((*node).mergeActionLists).iter_ptr() {
            for action in pgrx::PgList::<pg_sys::MergeAction>::from_pg(actions).iter_ptr() {
                note((*action).commandType);
            }
        }
    }
}

/// What the backend enters.
enum Work {
    Planning,
    Running(*mut pg_sys::QueryDesc),
}

/// Enters the planning or the run of a query; gives the place to put back.
fn enter(work: Work) -> Place {
    let before = PLACE.get();
    let (is_planning, running) = match work {
        Work::Planning => (true, before.running),
        Work::Running(query) => {
            LAST_RUN.set(LAST_RUN.get() + 1);
            (false, Running { query, number: LAST_RUN.get() })
        }
    };
    let is_foreign_key = is_foreign_key_query();
    PLACE.set(Place {
        is_nested: is_lifted(),
        is_planning,
        is_foreign_key,
        depth: before.depth + 1,
        own: before.own,
        running,
    });
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

#[pg_guard]
unsafe extern "C-unwind" fn note_subtransaction(
    event: pg_sys::SubXactEvent::Type,
    own: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _argument: *mut c_void,
) {
    if event == pg_sys::SubXactEvent::SUBXACT_EVENT_START_SUB {
        BEFORE.with_borrow_mut(|marks| marks.push((own, PLACE.get())));
    } else if event == pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB {
        // A loop may begin millions of them.
        BEFORE.with_borrow_mut(|marks| marks.pop_if(|(subtransaction, _)| *subtransaction == own));
    } else if event == pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB {
        BEFORE.with_borrow_mut(|marks| {
            while let Some((subtransaction, before)) = marks.pop_if(|(subtransaction, _)| *subtransaction >= own) {
                if subtransaction == own {
                    leave(before);
                }
            }
        });
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn note_transaction_end(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
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
    fn standard_ExecutorFinish(query: *mut pg_sys::QueryDesc);
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
    let before = enter(Work::Running(query));
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
    let before = enter(Work::Running(query));
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
    let before = enter(Work::Planning);
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

/// Queries in WITH that nobody reads run here, and triggers that fire after the statement.
unsafe extern "C-unwind" fn finish(query: *mut pg_sys::QueryDesc) {
    let before = enter(Work::Running(query));
    // SAFETY: the argument of the hook.
    unsafe {
        match NEXT_FINISH.get() {
            Some(next) => next(query),
            None => standard_ExecutorFinish(query),
        }
    }
    leave(before);
}
