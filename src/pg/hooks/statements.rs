//! The utility hook: statements that row security has nothing to say about.
//!
//! The hook itself is not guarded. A guard would catch every error of every utility statement on its way and raise a copy,
//! which has lost constraint names, CONTEXT and SQLSTATEs of the user's own. Its frame owns nothing, so errors may jump
//! over it; what is decided is decided in guarded functions before and after.

use super::{circumstances, hygiene, permit};
use crate::error::TenancyError;
use crate::model::fence::Statement;
use crate::pg::guc::{self, Backend};
use crate::pg::protected;
use crate::pg::{compat, report, role, settings, spi, table};
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::ffi::CStr;

static NEXT: Backend<pg_sys::ProcessUtility_hook_type> = Backend::new(None);

/// A statement under way that changes what is to be thought of those it runs.
#[derive(Clone, Copy)]
struct UnderWay {
    what: What,
    /// The subtransaction it began in: when that is rolled back, an error has jumped past its end.
    since: pg_sys::SubTransactionId,
}

#[derive(Clone, Copy)]
enum What {
    /// EXPLAIN, whose executor checks permissions as any other.
    Explain { analyzes: bool },
    /// REFRESH MATERIALIZED VIEW CONCURRENTLY, which makes a temporary table of its own and drops it.
    Refresh,
}

static UNDER_WAY: Backend<Option<UnderWay>> = Backend::new(None);

pub fn install() {
    // SAFETY: the hook variables are set while the library is loaded, by one thread; the callbacks are guarded.
    unsafe {
        NEXT.set(pg_sys::ProcessUtility_hook);
        pg_sys::ProcessUtility_hook = Some(process_utility);
        pg_sys::RegisterXactCallback(Some(end_transaction), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(end_subtransaction), std::ptr::null_mut());
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn end_transaction(event: pg_sys::XactEvent::Type, _argument: *mut std::ffi::c_void) {
    if matches!(event, pg_sys::XactEvent::XACT_EVENT_COMMIT | pg_sys::XactEvent::XACT_EVENT_ABORT) {
        UNDER_WAY.set(None);
    }
    hygiene::note_transaction_event(event);
}

#[pg_guard]
unsafe extern "C-unwind" fn end_subtransaction(
    event: pg_sys::SubXactEvent::Type,
    own: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _argument: *mut std::ffi::c_void,
) {
    if event == pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB {
        if UNDER_WAY.get().is_some_and(|under_way| under_way.since >= own) {
            UNDER_WAY.set(None);
        }
        hygiene::note_subtransaction_abort(own);
    }
}

// The binding of the standard function is guarded; see above.
unsafe extern "C-unwind" {
    #[cfg(feature = "pg13")]
    fn standard_ProcessUtility(
        statement: *mut pg_sys::PlannedStmt,
        text: *const std::ffi::c_char,
        context: pg_sys::ProcessUtilityContext::Type,
        parameters: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        destination: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
    #[cfg(not(feature = "pg13"))]
    fn standard_ProcessUtility(
        statement: *mut pg_sys::PlannedStmt,
        text: *const std::ffi::c_char,
        is_shared: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        parameters: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        destination: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
}

#[cfg(feature = "pg13")]
unsafe extern "C-unwind" fn process_utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const std::ffi::c_char,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    let before = UNDER_WAY.get();
    // SAFETY: utility.c passes a statement; the next hook and the standard function get its arguments as they are.
    unsafe {
        inspect_work((*statement).utilityStmt);
        match NEXT.get() {
            Some(next) => next(statement, text, context, parameters, environment, destination, completion),
            None => standard_ProcessUtility(statement, text, context, parameters, environment, destination, completion),
        }
    }
    UNDER_WAY.set(before);
}

#[cfg(not(feature = "pg13"))]
unsafe extern "C-unwind" fn process_utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const std::ffi::c_char,
    is_shared: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    let before = UNDER_WAY.get();
    // SAFETY: utility.c passes a statement; the next hook and the standard function get its arguments as they are.
    unsafe {
        inspect_work((*statement).utilityStmt);
        match NEXT.get() {
            Some(next) => next(statement, text, is_shared, context, parameters, environment, destination, completion),
            None => standard_ProcessUtility(
                statement,
                text,
                is_shared,
                context,
                parameters,
                environment,
                destination,
                completion,
            ),
        }
    }
    UNDER_WAY.set(before);
}

/// Inspects all but what ends, begins or names the tenant of a transaction, which is not work of a tenant yet.
unsafe fn inspect_work(statement: *mut pg_sys::Node) {
    use pg_sys::NodeTag::{T_TransactionStmt, T_VariableSetStmt};
    // SAFETY: a node's tag tells its type.
    unsafe {
        if !matches!((*statement).type_, T_TransactionStmt | T_VariableSetStmt) {
            inspect(statement)
        }
    }
}

fn begin(what: What) {
    // SAFETY: reads a variable of the backend.
    let since = unsafe { pg_sys::GetCurrentSubTransactionId() };
    UNDER_WAY.set(Some(UnderWay { what, since }));
}

/// Refuses what is to be refused, and notes what is under way.
#[pg_guard]
unsafe extern "C-unwind" fn inspect(statement: *mut pg_sys::Node) {
    // SAFETY: variables of the backend.
    if unsafe { pg_sys::creating_extension || pg_sys::IsBinaryUpgrade } || spi::is_own_work() {
        return;
    }
    // SAFETY: the caller passes a utility statement.
    if let Err(refusal) = unsafe { judge(statement) } {
        report::raise(refusal)
    }
}

unsafe fn judge(statement: *mut pg_sys::Node) -> Result<(), TenancyError> {
    use pg_sys::NodeTag::*;
    // SAFETY: a node's tag tells its type.
    unsafe {
        match (*statement).type_ {
            T_ExplainStmt => {
                let analyzes = compat::has_option((*statement.cast::<pg_sys::ExplainStmt>()).options, c"analyze");
                begin(What::Explain { analyzes });
            }
            T_RefreshMatViewStmt if (*statement.cast::<pg_sys::RefreshMatViewStmt>()).concurrent => {
                begin(What::Refresh)
            }
            T_LockStmt => judge_lock(statement.cast())?,
            #[cfg(feature = "pg13")]
            T_TruncateStmt => judge_truncate(statement.cast())?,
            T_ListenStmt => permit(&Statement::Listen)?,
            T_NotifyStmt => permit(&Statement::Notify)?,
            T_CreateTrigStmt => {
                let on = (*statement.cast::<pg_sys::CreateTrigStmt>()).relation;
                if let Some(relation) = another_ones(on)? {
                    permit(&Statement::Trigger { relation })?;
                }
            }
            T_DeclareCursorStmt
                if (*statement.cast::<pg_sys::DeclareCursorStmt>()).options & pg_sys::CURSOR_OPT_HOLD as i32 != 0 =>
            {
                hygiene::note_lasting_statement();
                permit(&Statement::HeldCursor)?;
            }
            T_PrepareStmt => hygiene::note_lasting_statement(),
            T_CreateStmt => {
                let create = statement.cast::<pg_sys::CreateStmt>();
                judge_new_table((*create).relation, (*create).oncommit)?;
            }
            T_CreateTableAsStmt => {
                let into = (*statement.cast::<pg_sys::CreateTableAsStmt>()).into;
                judge_new_table((*into).rel, (*into).onCommit)?;
            }
            T_AlterRoleSetStmt => {
                let alter = statement.cast::<pg_sys::AlterRoleSetStmt>();
                judge_reset((*alter).setstmt)?;
            }
            T_AlterDatabaseSetStmt => {
                let alter = statement.cast::<pg_sys::AlterDatabaseSetStmt>();
                judge_reset((*alter).setstmt)?;
            }
            T_FetchStmt => hygiene::refuse_foreign_cursor((*statement.cast::<pg_sys::FetchStmt>()).portalname)?,
            _ => {}
        }
    }
    if hygiene::is_watchful() { hygiene::scrub_if_due() } else { Ok(()) }
}

unsafe fn judge_lock(lock: *mut pg_sys::LockStmt) -> Result<(), TenancyError> {
    // SAFETY: a LOCK statement holds a list of range variables.
    unsafe {
        if (*lock).mode <= pg_sys::RowExclusiveLock as i32 || !settings::is_strict() {
            return Ok(());
        }
        for variable in pgrx::PgList::<pg_sys::RangeVar>::from_pg((*lock).relations).iter_ptr() {
            if let Some(relation) = another_ones(variable)? {
                permit(&Statement::Lock { relation })?;
            }
        }
    }
    Ok(())
}

/// What the object access hook does from 14 on, for the tables that the statement names; the others are left to their triggers.
#[cfg(feature = "pg13")]
unsafe fn judge_truncate(truncate: *mut pg_sys::TruncateStmt) -> Result<(), TenancyError> {
    // SAFETY: a TRUNCATE statement holds a list of range variables.
    unsafe {
        for variable in pgrx::PgList::<pg_sys::RangeVar>::from_pg((*truncate).relations).iter_ptr() {
            super::permissions::refuse_truncate(named(variable))?;
        }
    }
    Ok(())
}

/// The relation that a range variable names, zero where there is none: that is left to the statement itself.
unsafe fn named(variable: *mut pg_sys::RangeVar) -> pg_sys::Oid {
    // SAFETY: a range variable of a parse tree.
    unsafe {
        pg_sys::RangeVarGetRelidExtended(
            variable,
            pg_sys::NoLock as i32,
            pg_sys::RVROption::RVR_MISSING_OK,
            None,
            std::ptr::null_mut(),
        )
    }
}

/// The name of a protected table, or of a view or parent that leads to one, that the current role does not own.
unsafe fn another_ones(variable: *mut pg_sys::RangeVar) -> Result<Option<String>, TenancyError> {
    // SAFETY: the caller vouches for the range variable.
    let relation = unsafe { named(variable) };
    let reaches_protected_table =
        protected::find(relation)?.is_some() || protected::is_view_of_protected_table(relation)?;
    let is_anothers = reaches_protected_table && !compat::owns(role::current(), relation);
    Ok(is_anothers.then(|| protected::name_of(relation)))
}

unsafe fn judge_new_table(
    variable: *mut pg_sys::RangeVar,
    on_commit: pg_sys::OnCommitAction::Type,
) -> Result<(), TenancyError> {
    if on_commit == pg_sys::OnCommitAction::ONCOMMIT_DROP
        || settings::session_hygiene() != settings::SessionHygiene::Refuse
        || is_refreshing()
    {
        return Ok(());
    }
    // SAFETY: a range variable of a parse tree. Where the table goes decides, for search_path can lead there too.
    let is_temporary = unsafe { pg_sys::isAnyTempNamespace(pg_sys::RangeVarGetCreationNamespace(variable)) };
    if is_temporary { permit(&Statement::TemporaryTable) } else { Ok(()) }
}

/// guc.c asks no check hook about RESET, and a role may reset its own settings.
unsafe fn judge_reset(set: *mut pg_sys::VariableSetStmt) -> Result<(), TenancyError> {
    // SAFETY: the parse tree of SET or RESET; the name is NULL for RESET ALL.
    let removes_pin = unsafe {
        match (*set).kind {
            pg_sys::VariableSetKind::VAR_RESET | pg_sys::VariableSetKind::VAR_SET_DEFAULT => {
                CStr::from_ptr((*set).name).to_bytes().eq_ignore_ascii_case(guc::CONTEXT.to_bytes())
            }
            pg_sys::VariableSetKind::VAR_RESET_ALL => true,
            _ => false,
        }
    };
    if removes_pin && is_any_tenant_stored()? { permit(&Statement::Unpin) } else { Ok(()) }
}

/// Whether some role or database has a tenant stored. Whose it is does not matter: none but a superuser stores one, and
/// none but a superuser is to take one away.
fn is_any_tenant_stored() -> Result<bool, TenancyError> {
    let prefix = format!("{}=", guc::CONTEXT.to_string_lossy());
    let stored = table::scan(table::ROLE_SETTINGS, pg_sys::InvalidOid, &[], |row| {
        let settings = row.get::<Vec<String>>(c"setconfig").unwrap_or_default();
        Ok(settings.iter().any(|setting| setting.starts_with(&prefix)))
    })?;
    Ok(stored.contains(&true))
}

/// Whether the statement at hand is one of a REFRESH. The query of the materialized view cannot make temporary tables.
fn is_refreshing() -> bool {
    // SAFETY: reads a variable of the backend.
    let now = unsafe { pg_sys::GetCurrentSubTransactionId() };
    matches!(UNDER_WAY.get(), Some(UnderWay { what: What::Refresh, since }) if since == now)
}

/// Refuses an EXPLAIN that is under way, where it is guarded.
pub fn refuse_explain(relation: pg_sys::Oid) -> Result<(), TenancyError> {
    match UNDER_WAY.get() {
        Some(UnderWay { what: What::Explain { analyzes }, .. }) => {
            permit(&Statement::Explain { relation: protected::name_of(relation), analyzes })
        }
        _ => Ok(()),
    }
}

/// Whether the circumstances are those of a bound role; for what asks before it looks any further.
pub fn is_bound() -> Result<bool, TenancyError> {
    Ok(circumstances()?.is_bound)
}
