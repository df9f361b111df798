//! Keeps signing keys out of the server's log, and keys and tokens out of pg_stat_activity.
//!
//! The statement that adds a key has it in its text or parameters, and PostgreSQL logs both: log_statement, the durations,
//! STATEMENT lines below errors, the text that a syntax error quotes. The hook acts from when the library is loaded.

use super::guc::Backend;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::ffi::{CStr, CString, c_char};

/// The names without which no statement of a user's or of ours has a key in it, in lower case.
const TELLTALES: [&[u8]; 2] = [b"add_signing_key", b"tenancy_internal.signing_keys"];
const HIDDEN: &str = "(not shown: it adds a signing key)";

static NEXT: Backend<pg_sys::emit_log_hook_type> = Backend::new(None);

/// Installs the hook; called once, from `_PG_init`.
pub fn install() {
    // SAFETY: hooks are set while the library loads, by the one thread of the process.
    unsafe {
        NEXT.set(pg_sys::emit_log_hook);
        pg_sys::emit_log_hook = Some(hush);
    }
}

/// Shows other sessions that a key is being added, and not the statement that does it.
pub fn cover_key() {
    cover(c"SELECT tenancy.add_signing_key(...)");
}

/// Shows other sessions, which may be of the same role, the statement at hand without its token.
pub fn cover_token(token: &str) {
    // SAFETY: a C string of this backend, or NULL.
    let has_it = unsafe {
        let statement = pg_sys::debug_query_string;
        !statement.is_null() && holds(CStr::from_ptr(statement).to_bytes(), token.as_bytes())
    };
    if has_it {
        cover(c"SELECT tenancy.set_tenant_signed(...)");
    }
}

fn cover(shown: &CStr) {
    // SAFETY: the server copies the text.
    unsafe { pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, shown.as_ptr()) };
}

/// Whether `text` has `part` in it.
fn holds(text: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && text.windows(part.len()).any(|window| window == part)
}

#[pg_guard]
unsafe extern "C-unwind" fn hush(report: *mut pg_sys::ErrorData) {
    // SAFETY: elog.c passes the report that it is about to write; its texts are C strings or NULL, and are its to free.
    unsafe {
        let of_statement = tells(pg_sys::debug_query_string);
        if of_statement {
            (*report).hide_stmt = true;
            drop_text(&mut (*report).context);
            drop_text(&mut (*report).internalquery);
            if (*report).elevel <= pg_sys::LOG as i32 {
                // Parse trees and parameters.
                drop_text(&mut (*report).detail);
                drop_text(&mut (*report).detail_log);
            }
        }
        let quotes = of_statement
            && (*report).elevel >= pg_sys::NOTICE as i32
            && !is_ours((*report).filename)
            && may_quote((*report).sqlerrcode);
        if quotes || tells((*report).message) {
            let shown = said_before_the_statement((*report).message);
            let shown = CString::new(shown).expect("it was a C string");
            (*report).message = pg_sys::MemoryContextStrdup((*report).assoc_context, shown.as_ptr());
            drop_text(&mut (*report).detail);
            drop_text(&mut (*report).detail_log);
            drop_text(&mut (*report).context);
        }
        if let Some(next) = NEXT.get() {
            next(report);
        }
    }
}

/// Whether an error of PostgreSQL may quote the statement: a text near a syntax error, a value of the wrong type. What is left
/// has names of functions and of what is not permitted, and is what somebody without the privilege reads.
fn may_quote(code: i32) -> bool {
    use PgSqlErrorCode::*;
    ![ERRCODE_INSUFFICIENT_PRIVILEGE, ERRCODE_UNDEFINED_FUNCTION, ERRCODE_IN_FAILED_SQL_TRANSACTION]
        .iter()
        .any(|known| *known as i32 == code)
}

/// Whether an error was raised in Rust.
///
/// # Safety
/// `filename` is a C string or NULL.
unsafe fn is_ours(filename: *const c_char) -> bool {
    // SAFETY: the caller vouches for it.
    !filename.is_null() && unsafe { CStr::from_ptr(filename) }.to_bytes().ends_with(b".rs")
}

/// Whatever is behind the pointer goes with the memory of the report.
fn drop_text(text: &mut *mut c_char) {
    *text = std::ptr::null_mut();
}

/// # Safety
/// `text` is a C string or NULL.
unsafe fn tells(text: *const c_char) -> bool {
    // SAFETY: the caller vouches for it.
    !text.is_null() && names_a_key(unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// Whether the text is of a statement that may have a key in it.
fn names_a_key(text: &[u8]) -> bool {
    TELLTALES.iter().any(|telltale| text.windows(telltale.len()).any(|part| part.eq_ignore_ascii_case(telltale)))
}

/// `duration: 1.2 ms  statement: SELECT ...` up to the statement.
///
/// # Safety
/// `message` is a C string or NULL.
unsafe fn said_before_the_statement(message: *const c_char) -> String {
    if message.is_null() {
        return HIDDEN.to_owned();
    }
    // SAFETY: the caller vouches for it.
    let message = unsafe { CStr::from_ptr(message) }.to_string_lossy();
    const OPENING: &str = "statement: ";
    let kept = message.find(OPENING).map_or("", |at| &message[..at + OPENING.len()]);
    format!("{kept}{HIDDEN}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_that_adds_a_key_is_known_in_any_spelling() {
        for text in
            ["SELECT tenancy.add_signing_key('a')", "select Tenancy . \"ADD_SIGNING_KEY\"", "xx add_signing_key"]
        {
            assert!(names_a_key(text.as_bytes()), "{text}");
        }
        for text in ["", "add_signing", "SELECT tenancy.retire_signing_key('a')", "SELECT * FROM tenancy.signing_keys"]
        {
            assert!(!names_a_key(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_is_logged_of_it_ends_before_the_statement() {
        let said = |text: &CStr| {
            // SAFETY: a C string.
            unsafe { said_before_the_statement(text.as_ptr()) }
        };
        assert_eq!(
            said(c"duration: 1.2 ms  statement: SELECT 'secret'"),
            format!("duration: 1.2 ms  statement: {HIDDEN}")
        );
        assert!(holds(b"a token", b"token") && !holds(b"a toke", b"token") && !holds(b"", b""));
        assert_eq!(said(c"execute x: SELECT 'secret'"), HIDDEN);
    }
}
