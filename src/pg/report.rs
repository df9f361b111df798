//! Turns refusals into PostgreSQL's errors.

use super::violations;
use crate::error::{Face, State, TenancyError};
use pgrx::pg_sys;
use pgrx::pg_sys::panic::{ErrorReport, ErrorReportable};
use pgrx::prelude::{PgLogLevel, PgSqlErrorCode};
use std::ffi::{CString, c_char};

impl From<State> for PgSqlErrorCode {
    fn from(state: State) -> Self {
        match state {
            State::ActiveSqlTransaction => Self::ERRCODE_ACTIVE_SQL_TRANSACTION,
            State::NotInPrerequisiteState => Self::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            State::InsufficientPrivilege => Self::ERRCODE_INSUFFICIENT_PRIVILEGE,
            State::UndefinedObject => Self::ERRCODE_UNDEFINED_OBJECT,
            State::UndefinedColumn => Self::ERRCODE_UNDEFINED_COLUMN,
            State::InvalidParameterValue => Self::ERRCODE_INVALID_PARAMETER_VALUE,
            State::DuplicateObject => Self::ERRCODE_DUPLICATE_OBJECT,
            State::WrongObjectType => Self::ERRCODE_WRONG_OBJECT_TYPE,
            State::DatatypeMismatch => Self::ERRCODE_DATATYPE_MISMATCH,
            State::NotNullViolation => Self::ERRCODE_NOT_NULL_VIOLATION,
            State::ForeignKeyViolation => Self::ERRCODE_FOREIGN_KEY_VIOLATION,
            State::FeatureNotSupported => Self::ERRCODE_FEATURE_NOT_SUPPORTED,
            State::ObjectInUse => Self::ERRCODE_OBJECT_IN_USE,
            State::TriggerProtocolViolated => Self::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
            State::EventTriggerProtocolViolated => Self::ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED,
        }
    }
}

impl From<TenancyError> for ErrorReport {
    #[track_caller]
    fn from(error: TenancyError) -> Self {
        violations::note(&error);
        report(&error)
    }
}

#[track_caller]
fn report(error: &TenancyError) -> ErrorReport {
    let Face { state, message, detail, hint } = error.face();
    let mut report = ErrorReport::new(state.into(), message, "pg_tenancy");
    if let Some(detail) = detail {
        report = report.set_detail(detail);
    }
    if let Some(hint) = hint {
        report = report.set_hint(hint);
    }
    report
}

/// Tells what would be refused elsewhere, and lets it pass. Not a violation: whoever may do it did it.
pub fn warn(error: &TenancyError) {
    report(error).report(PgLogLevel::WARNING);
}

/// Raises `error` at once; for code that PostgreSQL calls and that has no `Result` to give back.
pub fn raise(error: TenancyError) -> ! {
    Err::<(), _>(ErrorReport::from(error)).unwrap_or_report();
    unreachable!("an error report at level ERROR does not return")
}

/// Says why a check hook refuses a value; guc.c raises it when the hook gives back false.
pub fn refuse_setting(error: &TenancyError) {
    violations::note(error);
    let Face { state, message, detail, hint } = error.face();
    // SAFETY: guc.c reads and resets these variables after the hook; the texts live in a context that outlasts that.
    unsafe {
        pg_sys::GUC_check_errcode(PgSqlErrorCode::from(state) as i32);
        pg_sys::GUC_check_errmsg_string = palloc_text(&message);
        if let Some(detail) = detail {
            pg_sys::GUC_check_errdetail_string = palloc_text(&detail);
        }
        if let Some(hint) = hint {
            pg_sys::GUC_check_errhint_string = palloc_text(&hint);
        }
    }
}

fn palloc_text(text: &str) -> *mut c_char {
    let text = CString::new(text.replace('\0', "\\0")).expect("no NUL is left");
    // SAFETY: pstrdup copies a C string.
    unsafe { pg_sys::pstrdup(text.as_ptr()) }
}
