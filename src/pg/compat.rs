//! What differs between PostgreSQL's major versions.

use crate::model::context::Stamp;
use pgrx::pg_sys;
use std::ffi::{CStr, c_void};

/// The local transaction id of `process`, zero outside a transaction.
///
/// # Safety
/// `process` points to a live PGPROC: this backend's, or that of the leader of its lock group.
#[inline(always)]
pub unsafe fn local_transaction_id(process: *const pg_sys::PGPROC) -> Stamp {
    #[cfg(any(feature = "pg13", feature = "pg14", feature = "pg15", feature = "pg16"))]
    // SAFETY: the caller vouches for the pointer.
    unsafe {
        (*process).lxid
    }
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    // SAFETY: the caller vouches for the pointer.
    unsafe {
        (*process).vxid.lxid
    }
}

/// Memory that guc.c will free: from `malloc` up to PostgreSQL 15, from `guc_malloc` later.
pub fn guc_alloc(bytes: usize) -> *mut c_void {
    #[cfg(any(feature = "pg13", feature = "pg14", feature = "pg15"))]
    // SAFETY: malloc has no precondition.
    let memory = unsafe { libc::malloc(bytes) };
    #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
    // SAFETY: guc_malloc has no precondition; LOG makes it return NULL rather than raise.
    let memory = unsafe { pg_sys::guc_malloc(pg_sys::LOG as i32, bytes) };
    assert!(!memory.is_null(), "out of memory");
    memory
}

/// Frees what `guc_alloc`, or guc.c itself, allocated.
///
/// # Safety
/// `memory` comes from there and is not used again.
pub unsafe fn guc_free(memory: *mut c_void) {
    #[cfg(any(feature = "pg13", feature = "pg14", feature = "pg15"))]
    // SAFETY: the caller vouches for the pointer.
    unsafe {
        libc::free(memory)
    }
    #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
    // SAFETY: the caller vouches for the pointer.
    unsafe {
        pg_sys::guc_free(memory)
    }
}

/// guc.c's record of a setting, NULL when there is none.
pub fn find_setting(name: &CStr) -> *mut pg_sys::config_generic {
    #[cfg(any(feature = "pg13", feature = "pg14", feature = "pg15"))]
    // SAFETY: guc.c keeps an array of that many valid records, each with a name.
    unsafe {
        let count = pg_sys::GetNumConfigOptions() as usize;
        std::slice::from_raw_parts(pg_sys::get_guc_variables(), count)
            .iter()
            .copied()
            .find(|record| CStr::from_ptr((**record).name) == name)
            .unwrap_or(std::ptr::null_mut())
    }
    #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
    // SAFETY: the name is a C string; neither a placeholder nor an error is asked for.
    unsafe {
        pg_sys::find_option(name.as_ptr(), false, true, pg_sys::LOG as i32)
    }
}

/// Refuses settings of this extension that it does not define.
pub fn reserve_setting_prefix(prefix: &CStr) {
    #[cfg(any(feature = "pg13", feature = "pg14"))]
    // SAFETY: the prefix is a C string.
    unsafe {
        pg_sys::EmitWarningsOnPlaceholders(prefix.as_ptr())
    }
    #[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17", feature = "pg18"))]
    // SAFETY: the prefix is a C string.
    unsafe {
        pg_sys::MarkGUCPrefixReserved(prefix.as_ptr())
    }
}

/// The text of a parse tree's String node.
///
/// # Safety
/// `node` points to such a node.
pub unsafe fn string_node(node: *const pg_sys::Node) -> *const std::ffi::c_char {
    #[cfg(any(feature = "pg13", feature = "pg14"))]
    // SAFETY: the caller vouches for the node; it is a Value in these versions.
    unsafe {
        (*node.cast::<pg_sys::Value>()).val.str_
    }
    #[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17", feature = "pg18"))]
    // SAFETY: the caller vouches for the node.
    unsafe {
        (*node.cast::<pg_sys::String>()).sval
    }
}

/// Whether `role` has EXECUTE on `function`.
pub fn may_execute(function: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    #[cfg(any(feature = "pg13", feature = "pg14", feature = "pg15"))]
    // SAFETY: reads the catalog.
    let answer = unsafe { pg_sys::pg_proc_aclcheck(function, role, pg_sys::ACL_EXECUTE as pg_sys::AclMode) };
    #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
    // SAFETY: reads the catalog.
    let answer = unsafe {
        pg_sys::object_aclcheck(pg_sys::ProcedureRelationId, function, role, pg_sys::ACL_EXECUTE as pg_sys::AclMode)
    };
    answer == pg_sys::AclResult::ACLCHECK_OK
}
