//! The object access hook: functions of the server through which tenants could meet, and TRUNCATE.

#[cfg(not(feature = "pg13"))]
use super::permissions;
use super::{catalogs, permit};
use crate::error::TenancyError;
use crate::model::fence::Statement;
use crate::pg::guc::Backend;
use crate::pg::{locked_down, report, settings, spi};
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, c_int, c_void};

static NEXT: Backend<pg_sys::object_access_hook_type> = Backend::new(None);

thread_local! {
    /// Whether a function of the server is shared by all tenants; these functions never change.
    static SHARED: RefCell<HashMap<u32, bool>> = RefCell::default();
}

pub fn install() {
    // SAFETY: the hook variables are set while the library is loaded, by one thread.
    unsafe {
        NEXT.set(pg_sys::object_access_hook);
        pg_sys::object_access_hook = Some(access);
    }
}

/// Unguarded, like the utility hook: its frame owns nothing, and the next hook's errors pass it as they are.
unsafe extern "C-unwind" fn access(
    what: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    part: c_int,
    argument: *mut c_void,
) {
    if let Some(next) = NEXT.get() {
        // SAFETY: the same arguments.
        unsafe { next(what, class, object, part, argument) }
    }
    let is_watched = !settings::is_known_standard() || !locked_down::is_known_empty();
    if what == pg_sys::ObjectAccessType::OAT_FUNCTION_EXECUTE && is_watched {
        // SAFETY: the arguments of the hook.
        unsafe { execute(object) }
    }
    // New in 14; before, `statements` asks for the tables that the statement names.
    #[cfg(not(feature = "pg13"))]
    if what == pg_sys::ObjectAccessType::OAT_TRUNCATE {
        // SAFETY: the arguments of the hook.
        unsafe { truncate(object) }
    }
}

/// Called for each table that goes with the statement: partitions and children, and with CASCADE those that refer to it.
#[cfg(not(feature = "pg13"))]
#[pg_guard]
unsafe extern "C-unwind" fn truncate(relation: pg_sys::Oid) {
    if let Err(refusal) = permissions::refuse_truncate(relation) {
        report::raise(refusal)
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn execute(function: pg_sys::Oid) {
    if spi::is_own_work() {
        return;
    }
    if let Err(refusal) = catalogs::refuse_function(function).and_then(|()| judge(function)) {
        report::raise(refusal)
    }
}

fn judge(function: pg_sys::Oid) -> Result<(), TenancyError> {
    if !settings::is_strict() || function.to_u32() >= pg_sys::FirstNormalObjectId || !is_shared(function) {
        return Ok(());
    }
    permit(&Statement::Function { name: name(function) })
}

fn is_shared(function: pg_sys::Oid) -> bool {
    let known = SHARED.with_borrow(|known| known.get(&function.to_u32()).copied());
    known.unwrap_or_else(|| {
        let shared = is_shared_name(&name(function));
        SHARED.with_borrow_mut(|known| known.insert(function.to_u32(), shared));
        shared
    })
}

/// Functions that reach what belongs to no tenant: large objects, notifications, advisory locks, sizes of whole tables.
fn is_shared_name(name: &str) -> bool {
    const PREFIXES: [&str; 3] = ["lo_", "pg_advisory_", "pg_try_advisory_"];
    const NAMES: [&str; 9] = [
        "loread",
        "lowrite",
        "pg_notify",
        "pg_relation_size",
        "pg_total_relation_size",
        "pg_table_size",
        "pg_indexes_size",
        "pg_database_size",
        "pg_tablespace_size",
    ];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

pub fn name(function: pg_sys::Oid) -> String {
    // SAFETY: a syscache lookup that gives NULL for a function that is gone; the name is copied at once.
    unsafe {
        let name = pg_sys::get_func_name(function);
        if name.is_null() { String::new() } else { CStr::from_ptr(name).to_string_lossy().into_owned() }
    }
}
