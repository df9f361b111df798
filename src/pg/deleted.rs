//! Deleted rows that are kept: who sees them, and how a DELETE becomes an UPDATE.
//!
//! The policy `tenancy_not_deleted` is `deleted_at IS NULL OR shows_deleted()`. The planner folds the function to false, so that
//! partial indexes serve; and where a role whom the policy binds sends a DELETE, the planner's hook finds the policy among the
//! security conditions of the row and makes an UPDATE of it, of a DELETE action of MERGE too. So the client reads `DELETE 1` and what it
//! asked RETURNING for. What no hook of ours has seen, the first statement of a session that has not loaded the library, is sent
//! again by the trigger (`pg::rows`). Foreign keys' own queries, superusers and roles with BYPASSRLS meet no policy: they delete.

use super::{report, role};
use crate::error::{RowsError, TenancyError};
use crate::pg::guc::Backend;
use pgrx::prelude::*;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, pg_sys};
use std::ffi::c_void;

static WITH_DELETED: GucSetting<bool> = GucSetting::<bool>::new(false);

/// Our own function is at work on deleted rows.
static SHOWING: Backend<bool> = Backend::new(false);

/// Defines the setting; called once, from `_PG_init`.
pub fn define() {
    // SAFETY: the hook has the signature that guc.c calls.
    unsafe {
        GucRegistry::define_bool_guc_with_hooks(
            c"tenancy.with_deleted",
            c"Shows administrators rows that were deleted and are kept.",
            c"",
            &WITH_DELETED,
            GucContext::Userset,
            GucFlags::default(),
            None,
            Some(assign),
            None,
        );
    }
}

/// Plans that are kept leave deleted rows out for good.
#[pg_guard]
unsafe extern "C-unwind" fn assign(value: bool, _extra: *mut c_void) {
    if value != WITH_DELETED.get() {
        // SAFETY: marks the plans of this backend, as any invalidation message does.
        unsafe { pg_sys::ResetPlanCache() }
    }
}

/// Runs `work` so that the statements planned in it see deleted rows.
pub fn showing<T>(work: impl FnOnce() -> T) -> T {
    /// Puts the mark back on return and on error alike.
    struct Mark(bool);
    impl Drop for Mark {
        fn drop(&mut self) {
            SHOWING.set(self.0);
        }
    }
    let _mark = Mark(SHOWING.get());
    SHOWING.set(true);
    work()
}

fn is_asked_for() -> bool {
    SHOWING.get() || WITH_DELETED.get()
}

fn shows_deleted() -> Result<bool, TenancyError> {
    if SHOWING.get() || !WITH_DELETED.get() {
        return Ok(SHOWING.get());
    }
    if role::is_privileged(role::current()) {
        return Ok(true);
    }
    Err(RowsError::DeletedRowsHidden { role: role::current_role() }.into())
}

#[unsafe(no_mangle)]
#[doc(hidden)]
pub extern "C" fn pg_finfo_tenancy_shows_deleted() -> &'static pg_sys::Pg_finfo_record {
    const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &V1
}

/// What the policy asks.
#[unsafe(no_mangle)]
#[doc(hidden)]
#[pg_guard]
pub unsafe extern "C-unwind" fn tenancy_shows_deleted(_call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    match shows_deleted() {
        Ok(answer) => pg_sys::Datum::from(answer),
        Err(refusal) => report::raise(refusal),
    }
}

#[unsafe(no_mangle)]
#[doc(hidden)]
pub extern "C" fn pg_finfo_tenancy_shows_deleted_support() -> &'static pg_sys::Pg_finfo_record {
    const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &V1
}

/// What the planner asks: while nobody wants to see deleted rows the function is false.
#[unsafe(no_mangle)]
#[doc(hidden)]
#[pg_guard]
pub unsafe extern "C-unwind" fn tenancy_shows_deleted_support(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the planner passes a node, whose tag tells what is asked.
    unsafe {
        let request = (*(*call).args.as_ptr()).value.cast_mut_ptr::<pg_sys::Node>();
        let folds = (*request).type_ == pg_sys::NodeTag::T_SupportRequestSimplify && !is_asked_for();
        if folds { pg_sys::Datum::from(pg_sys::makeBoolConst(false, false)) } else { pg_sys::Datum::null() }
    }
}

/// Makes a DELETE of rows that are kept an UPDATE, also inside WITH, and lets ON CONFLICT find keys of rows that are not
/// deleted. `softened` tells that the query itself was a DELETE: the plan is to say so again.
#[pg_guard]
pub unsafe extern "C-unwind" fn adapt(query: *mut pg_sys::Query, softened: *mut bool) {
    // SAFETY: the planner may scribble on its query; `WITH` holds queries.
    unsafe {
        *softened = adapt_one(query);
        if (*query).hasModifyingCTE {
            for cell in cells((*query).cteList) {
                let inner = (*cell.ptr_value.cast::<pg_sys::CommonTableExpr>()).ctequery;
                if (*inner).type_ == pg_sys::NodeTag::T_Query {
                    adapt_one(inner.cast());
                }
            }
        }
    }
}

unsafe fn adapt_one(query: *mut pg_sys::Query) -> bool {
    // SAFETY: the caller vouches for the query.
    unsafe {
        match (*query).commandType {
            pg_sys::CmdType::CMD_DELETE => soften(query),
            pg_sys::CmdType::CMD_INSERT => {
                find_living_key(query);
                false
            }
            #[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17", feature = "pg18"))]
            pg_sys::CmdType::CMD_MERGE => {
                soften_merge(query);
                false
            }
            _ => false,
        }
    }
}

unsafe fn soften(query: *mut pg_sys::Query) -> bool {
    // SAFETY: a DELETE names its relation among the entries of the range table; a condition is an expression.
    unsafe {
        let entry =
            cells((*query).rtable)[(*query).resultRelation as usize - 1].ptr_value.cast::<pg_sys::RangeTblEntry>();
        let conditions = cells((*entry).securityQuals).iter();
        let Some(test) = conditions.map(|cell| cell.ptr_value.cast()).find_map(|node| living(node)) else {
            return false;
        };
        let column = (*(*test).arg.cast::<pg_sys::Var>()).varattno;
        (*query).targetList = pg_sys::lcons(deleted_now(entry, column).cast(), (*query).targetList);
        note_updated(query, entry, column);
        (*query).commandType = pg_sys::CmdType::CMD_UPDATE;
        true
    }
}

/// `now()`
unsafe fn now() -> *mut pg_sys::FuncExpr {
    // SAFETY: a function of the server without arguments.
    unsafe {
        pg_sys::makeFuncExpr(
            pg_sys::Oid::from(pg_sys::F_NOW),
            pg_sys::TIMESTAMPTZOID,
            std::ptr::null_mut(),
            pg_sys::InvalidOid,
            pg_sys::InvalidOid,
            pg_sys::CoercionForm::COERCE_EXPLICIT_CALL,
        )
    }
}

/// `SET deleted_at = now()`
unsafe fn deleted_now(entry: *mut pg_sys::RangeTblEntry, column: pg_sys::AttrNumber) -> *mut pg_sys::TargetEntry {
    // SAFETY: the caller vouches for the entry of a relation, and its column.
    unsafe {
        let name = pg_sys::get_attname((*entry).relid, column, false);
        pg_sys::makeTargetEntry(now().cast(), column, name, false)
    }
}

/// Makes the DELETE actions of a MERGE updates. What policies ask of a row that is deleted they go on asking; what they ask of one
/// that is updated is asked of the statement's own updates, among which a row may be marked as deleted: the role may delete it.
#[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17", feature = "pg18"))]
unsafe fn soften_merge(query: *mut pg_sys::Query) {
    use pg_sys::CmdType::{CMD_DELETE, CMD_UPDATE};
    use pg_sys::WCOKind::*;
    // SAFETY: a MERGE has actions and names its relation among the entries of the range table; checks are those of row security.
    unsafe {
        let checks = cells((*query).withCheckOptions).iter();
        let checks: Vec<_> = checks.map(|cell| cell.ptr_value.cast::<pg_sys::WithCheckOption>()).collect();
        let of_deletion = checks.iter().filter(|check| (***check).kind == WCO_RLS_MERGE_DELETE_CHECK);
        let Some(test) = of_deletion.clone().find_map(|check| living((**check).qual)) else { return };
        let actions = cells((*query).mergeActionList).iter();
        let actions: Vec<_> = actions.map(|cell| cell.ptr_value.cast::<pg_sys::MergeAction>()).collect();
        let has = |command| actions.iter().any(|action| (**action).commandType == command);
        if !has(CMD_DELETE) {
            return;
        }
        let mut wanted = std::ptr::null_mut();
        let updates = has(CMD_UPDATE);
        for check in &checks {
            let check = *check;
            match (*check).kind {
                WCO_RLS_MERGE_DELETE_CHECK => {
                    let copy = pg_sys::copyObjectImpl(check.cast()).cast::<pg_sys::WithCheckOption>();
                    (*copy).kind = WCO_RLS_MERGE_UPDATE_CHECK;
                    wanted = pg_sys::lappend(wanted, copy.cast());
                    continue;
                }
                WCO_RLS_MERGE_UPDATE_CHECK | WCO_RLS_UPDATE_CHECK if !updates => continue,
                WCO_RLS_UPDATE_CHECK => {
                    if let Some(test) = living((*check).qual) {
                        let condition = (*check).qual.cast::<pg_sys::BoolExpr>();
                        (*condition).args = pg_sys::lappend((*condition).args, is_deleted_now(test).cast());
                    }
                }
                _ => {}
            }
            wanted = pg_sys::lappend(wanted, check.cast());
        }
        (*query).withCheckOptions = wanted;
        let entry =
            cells((*query).rtable)[(*query).resultRelation as usize - 1].ptr_value.cast::<pg_sys::RangeTblEntry>();
        let column = (*(*test).arg.cast::<pg_sys::Var>()).varattno;
        for action in actions {
            if (*action).commandType == CMD_DELETE {
                (*action).commandType = CMD_UPDATE;
                (*action).targetList = pg_sys::lappend(std::ptr::null_mut(), deleted_now(entry, column).cast());
            }
        }
        note_updated(query, entry, column);
    }
}

/// The oid of `timestamptz = timestamptz`, which never changes (pg_operator.dat).
#[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17", feature = "pg18"))]
const TIMESTAMPTZ_EQUAL: u32 = 1320;

/// `deleted_at = now()`, of the column that `test` is about.
#[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17", feature = "pg18"))]
unsafe fn is_deleted_now(test: *mut pg_sys::NullTest) -> *mut pg_sys::Expr {
    // SAFETY: an operator of the server for two values of type timestamptz.
    unsafe {
        let equals = pg_sys::Oid::from(TIMESTAMPTZ_EQUAL);
        let column = pg_sys::copyObjectImpl((*test).arg.cast()).cast::<pg_sys::Expr>();
        let (collation, input) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
        pg_sys::make_opclause(equals, pg_sys::BOOLOID, false, column, now().cast(), collation, input)
    }
}

/// Triggers, generated columns and locks go by what a statement says it changes. The right that is asked for stays DELETE.
unsafe fn note_updated(query: *mut pg_sys::Query, entry: *mut pg_sys::RangeTblEntry, column: pg_sys::AttrNumber) {
    let member = i32::from(column) - pg_sys::FirstLowInvalidHeapAttributeNumber;
    #[cfg(any(feature = "pg13", feature = "pg14", feature = "pg15"))]
    // SAFETY: the caller vouches for the entry.
    unsafe {
        debug_assert!(!query.is_null());
        (*entry).updatedCols = pg_sys::bms_add_member((*entry).updatedCols, member);
    }
    #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
    // SAFETY: the caller vouches for query and entry, which refers to what is checked of it.
    unsafe {
        let checked = pg_sys::getRTEPermissionInfo((*query).rteperminfos, entry);
        (*checked).updatedCols = pg_sys::bms_add_member((*checked).updatedCols, member);
    }
}

/// ON CONFLICT (slug) means the key of the rows that are not deleted.
unsafe fn find_living_key(query: *mut pg_sys::Query) {
    // SAFETY: the parts of an INSERT, as the rewriter made them.
    unsafe {
        let conflict = (*query).onConflict;
        if conflict.is_null() || (*conflict).arbiterElems.is_null() || !(*conflict).arbiterWhere.is_null() {
            return;
        }
        let checks = cells((*query).withCheckOptions).iter();
        let mut checks = checks.map(|cell| (*cell.ptr_value.cast::<pg_sys::WithCheckOption>()).qual);
        if let Some(test) = checks.find_map(|check| living(check)) {
            (*conflict).arbiterWhere = pg_sys::copyObjectImpl(test.cast()).cast();
        }
    }
}

/// The test `deleted_at IS NULL` of our policy, where the condition is it.
unsafe fn living(condition: *mut pg_sys::Node) -> Option<*mut pg_sys::NullTest> {
    // SAFETY: a node's tag tells its type.
    unsafe {
        if condition.is_null() || (*condition).type_ != pg_sys::NodeTag::T_BoolExpr {
            return None;
        }
        let either = condition.cast::<pg_sys::BoolExpr>();
        let [test, function] = cells((*either).args) else { return None };
        let (test, function) = (test.ptr_value.cast::<pg_sys::Node>(), function.ptr_value.cast::<pg_sys::Node>());
        let is_ours = (*either).boolop == pg_sys::BoolExprType::OR_EXPR
            && (*test).type_ == pg_sys::NodeTag::T_NullTest
            && (*(*test.cast::<pg_sys::NullTest>()).arg.cast::<pg_sys::Node>()).type_ == pg_sys::NodeTag::T_Var
            && asks_us(function);
        is_ours.then_some(test.cast())
    }
}

unsafe fn asks_us(node: *mut pg_sys::Node) -> bool {
    // SAFETY: a node's tag tells its type; the function exists, for the query has been analyzed.
    unsafe {
        if (*node).type_ != pg_sys::NodeTag::T_FuncExpr {
            return false;
        }
        let mut function = pg_sys::FmgrInfo::default();
        pg_sys::fmgr_info((*node.cast::<pg_sys::FuncExpr>()).funcid, &raw mut function);
        function.fn_addr.is_some_and(|address| address as *const c_void == tenancy_shows_deleted as *const c_void)
    }
}

/// The cells of a list; NULL is the empty one.
unsafe fn cells<'a>(list: *mut pg_sys::List) -> &'a [pg_sys::ListCell] {
    // SAFETY: a list has as many cells as it says.
    unsafe { if list.is_null() { &[] } else { std::slice::from_raw_parts((*list).elements, (*list).length as usize) } }
}
