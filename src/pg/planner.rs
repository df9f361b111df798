//! The planner hook: lets a query on a partitioned table be pruned while it is planned. (And keeps deleted rows: `deleted.rs`.)
//!
//! PostgreSQL prunes by `tenant_id = current_tenant_id()` when the executor starts, for the function is STABLE; until then each
//! partition has been planned. Beside the policy's comparison this puts `tenant_id = <the tenant now>`. The planner merges both
//! into one equivalence class: partitions are pruned by the constant, and `current_tenant_id() = <constant>` is left as a
//! condition that the executor asks once. So a plan that has become stale gives no row of the other tenant.
//!
//! It must not give too few rows either. Plans that are kept are those of plancache.c:
//! - Each folded plan names `MARK` among what invalidates it, and `MARK` is sent whenever the function may begin to answer
//!   otherwise: with each new ticket (`guc::renew_ticket`) and at the end of the transaction, for these two are what the
//!   function itself goes by (`context::known`). That is the whole proof, and holds whatever is folded.
//! - Nothing is gained by folding a plan that is used again and again, for generic plans prune well at executor start. So it
//!   is done for text sent as such, and for the first planning of an unnamed statement; cursors, PREPARE, functions, named
//!   statements, and utility statements of the extended protocol are left alone.

use crate::error::TenancyError;
use crate::pg::guc::Backend;
use crate::pg::{context, deleted, nesting, report, settings};
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::hash::{DefaultHasher, Hasher};
use uuid::Uuid;

static NEXT_PLANNER: Backend<pg_sys::planner_hook_type> = Backend::new(None);
static NEXT_ANALYZE: Backend<pg_sys::post_parse_analyze_hook_type> = Backend::new(None);

/// The last text that the client has sent and that was analyzed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    Nothing,
    /// The text of a simple query, where it lies.
    Text(*const c_char),
    /// The hash of an unnamed statement's text; it has not been planned yet.
    Unnamed(u64),
}

static SENT: Backend<Sent> = Backend::new(Sent::Nothing);

/// What folded plans depend on, in the guise of a function's hash that no function needs to have.
const MARK: u32 = 0x7465_6e61;

/// A folded plan may be kept somewhere.
static KEPT: Backend<bool> = Backend::new(false);

// The bindings of these are guarded, and a guard would raise a copy of each error; see statements.rs.
unsafe extern "C-unwind" {
    fn standard_planner(
        query: *mut pg_sys::Query,
        text: *const c_char,
        cursor_options: c_int,
        parameters: pg_sys::ParamListInfo,
    ) -> *mut pg_sys::PlannedStmt;
    #[cfg_attr(any(feature = "pg16", feature = "pg17", feature = "pg18"), link_name = "query_tree_walker_impl")]
    fn query_tree_walker(query: *mut pg_sys::Query, walker: Walker, context: *mut c_void, flags: c_int) -> bool;
    #[cfg_attr(any(feature = "pg16", feature = "pg17", feature = "pg18"), link_name = "expression_tree_walker_impl")]
    fn expression_tree_walker(node: *mut pg_sys::Node, walker: Walker, context: *mut c_void) -> bool;
}

type Walker = unsafe extern "C-unwind" fn(*mut pg_sys::Node, *mut c_void) -> bool;

/// Installs the hooks, wherever the library is loaded; called once, from `_PG_init`.
pub fn install() {
    // SAFETY: the hook variables are set while the library is loaded, by one thread.
    unsafe {
        NEXT_PLANNER.set(pg_sys::planner_hook);
        pg_sys::planner_hook = Some(plan);
        NEXT_ANALYZE.set(pg_sys::post_parse_analyze_hook);
        pg_sys::post_parse_analyze_hook = Some(note_analysis);
        pg_sys::RegisterXactCallback(Some(end_transaction), std::ptr::null_mut());
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn end_transaction(_event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    forget_tenant()
}

/// Sees that no plan made for the tenant before is used again. Raises nothing: it only marks plans, as any invalidation
/// message does.
pub fn forget_tenant() {
    if KEPT.get() {
        KEPT.set(false);
        // SAFETY: the callbacks of plancache.c touch this backend's memory alone.
        unsafe { pg_sys::CallSyscacheCallbacks(pg_sys::SysCacheIdentifier::PROCOID as c_int, MARK) };
    }
}

#[cfg(feature = "pg13")]
unsafe extern "C-unwind" fn note_analysis(state: *mut pg_sys::ParseState, query: *mut pg_sys::Query) {
    // SAFETY: analyze.c passes both; the next hook gets them as they are.
    unsafe {
        note(state);
        if let Some(next) = NEXT_ANALYZE.get() {
            next(state, query)
        }
    }
}

#[cfg(not(feature = "pg13"))]
unsafe extern "C-unwind" fn note_analysis(
    state: *mut pg_sys::ParseState,
    query: *mut pg_sys::Query,
    jumble: *mut pg_sys::JumbleState,
) {
    // SAFETY: analyze.c passes all three; the next hook gets them as they are.
    unsafe {
        note(state);
        if let Some(next) = NEXT_ANALYZE.get() {
            next(state, query, jumble)
        }
    }
}

/// Notes what the client has sent. What functions and EXECUTE run has text of its own.
unsafe fn note(state: *mut pg_sys::ParseState) {
    nesting::note_analysis();
    // SAFETY: postgres.c keeps the text of the message at hand; the memory context is the current one, and has a name.
    unsafe {
        let text = (*state).p_sourcetext;
        if text.is_null() || text != pg_sys::debug_query_string {
            return;
        }
        // Parse always looks for parameters, a simple query never; for an unnamed statement exec_parse_message works in
        // memory of its own. Should that change, such statements are only not folded any more.
        SENT.set(match (*state).p_paramref_hook {
            None => Sent::Text(text),
            Some(_) if CStr::from_ptr((*pg_sys::CurrentMemoryContext).name) == c"unnamed prepared statement" => {
                Sent::Unnamed(hash(text))
            }
            Some(_) => Sent::Nothing,
        });
    }
}

unsafe fn hash(text: *const c_char) -> u64 {
    let mut hasher = DefaultHasher::new();
    // SAFETY: the caller vouches for the C string.
    hasher.write(unsafe { CStr::from_ptr(text) }.to_bytes());
    hasher.finish()
}

/// Not guarded: see the comment at the bindings. The frame owns nothing, so errors may jump over it.
unsafe extern "C-unwind" fn plan(
    query: *mut pg_sys::Query,
    text: *const c_char,
    cursor_options: c_int,
    parameters: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    // SAFETY: postgres.c passes a query, which the planner may scribble on; the next planner gets the same arguments.
    unsafe {
        // RLS leaves its mark on each query that it touched: what is not protected pays for this comparison alone.
        let (mut folded, mut softened) = (None, false);
        let writes = (*query).hasRowSecurity && (*query).commandType != pg_sys::CmdType::CMD_SELECT;
        if writes || (*query).hasModifyingCTE {
            deleted::adapt(query, &raw mut softened);
        }
        if (*query).hasRowSecurity {
            fold(query, text, cursor_options, &raw mut folded);
        }
        let planned = match NEXT_PLANNER.get() {
            Some(next) => next(query, text, cursor_options, parameters),
            None => standard_planner(query, text, cursor_options, parameters),
        };
        if folded.is_some() {
            mark(planned, &raw const folded);
        }
        if softened {
            // What the client reads; the plan's top node knows that it updates.
            (*planned).commandType = pg_sys::CmdType::CMD_DELETE;
        }
        planned
    }
}

/// Whether this planning is of text that the client has just sent. An unnamed statement is that once.
unsafe fn is_just_sent(text: *const c_char, cursor_options: c_int) -> bool {
    // SAFETY: plain reads; a text that a statement is planned from is a C string.
    unsafe {
        if text.is_null()
            || text != pg_sys::debug_query_string
            || cursor_options & !(pg_sys::CURSOR_OPT_PARALLEL_OK as c_int) != 0
        {
            return false;
        }
        match SENT.get() {
            Sent::Text(sent) => sent == text,
            Sent::Unnamed(sent) => {
                SENT.set(Sent::Nothing);
                sent == hash(text)
            }
            Sent::Nothing => false,
        }
    }
}

/// Puts the tenant into the query where it pays, and tells which.
#[pg_guard]
unsafe extern "C-unwind" fn fold(
    query: *mut pg_sys::Query,
    text: *const c_char,
    cursor_options: c_int,
    folded: *mut Option<Uuid>,
) {
    // SAFETY: the caller vouches for all of them.
    unsafe {
        if settings::fold_tenant() && is_just_sent(text, cursor_options) {
            let mut folding = Folding { tenant: Tenant::NotAsked };
            let entries = cells((*query).rtable);
            let entry = |cell: &pg_sys::ListCell| cell.ptr_value.cast::<pg_sys::RangeTblEntry>();
            let is_flat = !(*query).hasSubLinks
                && (*query).cteList.is_null()
                && entries.iter().all(|cell| (*entry(cell)).rtekind != pg_sys::RTEKind::RTE_SUBQUERY);
            if is_flat {
                entries.iter().for_each(|cell| fold_entry(entry(cell), &mut folding));
            } else {
                // An error raised below the walk jumps to this boundary, and no further.
                let context = (&raw mut folding).cast();
                pg_sys::ffi::pg_guard_ffi_boundary(|| walk(query.cast(), context));
            }
            if let Tenant::Folded(tenant) = folding.tenant {
                *folded = Some(tenant);
            }
        }
    }
}

/// What the walk through a query knows.
struct Folding {
    tenant: Tenant,
}

#[derive(Clone, Copy)]
enum Tenant {
    /// No condition met that it could be put into.
    NotAsked,
    /// There is none in force; the query itself says why.
    Missing,
    Folded(Uuid),
}

/// Visits each range table entry of the query and of those inside it.
#[pg_guard]
unsafe extern "C-unwind" fn walk(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: a node's tag tells its type; the context is the walk's own.
    unsafe {
        match (*node).type_ {
            pg_sys::NodeTag::T_Query => {
                query_tree_walker(node.cast(), walk, context, pg_sys::QTW_EXAMINE_RTES_BEFORE as c_int)
            }
            pg_sys::NodeTag::T_RangeTblEntry => {
                fold_entry(node.cast(), &mut *context.cast());
                false
            }
            _ => expression_tree_walker(node, walk, context),
        }
    }
}

unsafe fn fold_entry(entry: *mut pg_sys::RangeTblEntry, folding: &mut Folding) {
    // SAFETY: an entry of a range table; its security conditions are a list of expressions, which may be replaced.
    unsafe {
        let is_partitioned = (*entry).rtekind == pg_sys::RTEKind::RTE_RELATION
            && (*entry).relkind as u8 == pg_sys::RELKIND_PARTITIONED_TABLE
            && (*entry).inh;
        if !is_partitioned {
            return;
        }
        for cell in cells((*entry).securityQuals) {
            let condition = cell.ptr_value.cast::<pg_sys::Node>();
            let Some((comparison, side)) = comparison_with_tenant(condition) else { continue };
            if let Tenant::NotAsked = folding.tenant {
                folding.tenant = context::tenant().map_or(Tenant::Missing, |tenant| Tenant::Folded(tenant.id));
            }
            if let Tenant::Missing = folding.tenant {
                return;
            }
            // In the same condition, so that no level of security is added.
            cell.ptr_value = pg_sys::make_and_qual(condition, with_constant(comparison, side).cast()).cast();
        }
    }
}

/// The cells of a list, to be read or replaced.
unsafe fn cells<'a>(list: *mut pg_sys::List) -> &'a mut [pg_sys::ListCell] {
    // SAFETY: a list has as many cells as it says; NULL is the empty list.
    unsafe {
        if list.is_null() { &mut [] } else { std::slice::from_raw_parts_mut((*list).elements, (*list).length as usize) }
    }
}

/// The comparison `column = current_tenant_...()` that a condition is or requires, and the position of the function.
unsafe fn comparison_with_tenant(condition: *mut pg_sys::Node) -> Option<(*mut pg_sys::OpExpr, usize)> {
    // SAFETY: a node's tag tells its type.
    unsafe {
        match (*condition).type_ {
            pg_sys::NodeTag::T_OpExpr => {
                let comparison = condition.cast::<pg_sys::OpExpr>();
                let [left, right] = cells((*comparison).args) else { return None };
                let left = left.ptr_value.cast::<pg_sys::Node>();
                let side = [left, right.ptr_value.cast()].into_iter().position(|argument| is_tenant(argument))?;
                pg_sys::op_mergejoinable((*comparison).opno, pg_sys::exprType(left)).then_some((comparison, side))
            }
            pg_sys::NodeTag::T_BoolExpr => {
                let all = condition.cast::<pg_sys::BoolExpr>();
                if (*all).boolop != pg_sys::BoolExprType::AND_EXPR {
                    return None;
                }
                cells((*all).args).iter().find_map(|one| comparison_with_tenant(one.ptr_value.cast()))
            }
            _ => None,
        }
    }
}

/// Whether an expression calls one of the functions that give the tenant's key.
unsafe fn is_tenant(node: *mut pg_sys::Node) -> bool {
    // SAFETY: a node's tag tells its type; the function exists, for the query has been analyzed.
    unsafe {
        if (*node).type_ != pg_sys::NodeTag::T_FuncExpr {
            return false;
        }
        let mut function = pg_sys::FmgrInfo::default();
        pg_sys::fmgr_info((*node.cast::<pg_sys::FuncExpr>()).funcid, &raw mut function);
        function.fn_addr.is_some_and(|address| context::gives_key(address as *const c_void))
    }
}

/// A copy of the comparison with the value that the function has now.
unsafe fn with_constant(comparison: *mut pg_sys::OpExpr, side: usize) -> *mut pg_sys::OpExpr {
    // SAFETY: `comparison_with_tenant` found a call there. Its tenant is in force, so it answers with a value, which lives
    // in the planner's memory as the query does.
    unsafe {
        let copy = pg_sys::copyObjectImpl(comparison.cast()).cast::<pg_sys::OpExpr>();
        let argument = &mut cells((*copy).args)[side];
        let call = argument.ptr_value.cast::<pg_sys::FuncExpr>();
        let (result, collation) = ((*call).funcresulttype, (*call).funccollid);
        let (mut length, mut by_value) = (0, false);
        pg_sys::get_typlenbyval(result, &raw mut length, &raw mut by_value);
        let value = pg_sys::OidFunctionCall0Coll((*call).funcid, collation);
        argument.ptr_value =
            pg_sys::makeConst(result, -1, collation, c_int::from(length), value, false, by_value).cast();
        copy
    }
}

/// Makes the plan depend on the tenant it was made for.
///
/// The planner evaluates stable functions for its estimates, whatever they do. If one has moved the transaction to another
/// tenant, this plan is for the tenant before.
#[pg_guard]
unsafe extern "C-unwind" fn mark(planned: *mut pg_sys::PlannedStmt, folded: *const Option<Uuid>) {
    // SAFETY: the caller's variable.
    let folded = unsafe { *folded };
    if context::tenant().is_ok_and(|now| Some(now.id) != folded) {
        report::raise(TenancyError::MovedTenant)
    }
    // SAFETY: the planner's result is its caller's to change; the item lives in the same memory.
    unsafe {
        let item = pg_sys::palloc0(size_of::<pg_sys::PlanInvalItem>()).cast::<pg_sys::PlanInvalItem>();
        (*item).type_ = pg_sys::NodeTag::T_PlanInvalItem;
        (*item).cacheId = pg_sys::SysCacheIdentifier::PROCOID as c_int;
        (*item).hashValue = MARK;
        (*planned).invalItems = pg_sys::lappend((*planned).invalItems, item.cast());
    }
    KEPT.set(true);
}
