//! The roles of the session, and whether row security binds them.

use super::compat::may_execute;
use crate::error::TenancyError;
use crate::model::Ident;
use pgrx::pg_sys;
use std::ffi::CStr;

/// The current role.
pub fn current() -> pg_sys::Oid {
    // SAFETY: reads a variable of the backend.
    unsafe { pg_sys::GetUserId() }
}

/// Whether the current role is a superuser or has BYPASSRLS.
pub fn bypasses_row_security() -> bool {
    // SAFETY: reads the catalog; superusers are included.
    unsafe { pg_sys::has_bypassrls_privilege(pg_sys::GetUserId()) }
}

/// The name of the current role.
pub fn current_role() -> String {
    shown(current())
}

/// The name of a role for a message.
pub fn shown(role: pg_sys::Oid) -> String {
    // SAFETY: with noerr a missing role gives NULL; the name is copied before it is freed with its memory context.
    unsafe {
        let name = pg_sys::GetUserNameFromId(role, true);
        if name.is_null() { "unknown".to_owned() } else { CStr::from_ptr(name).to_string_lossy().into_owned() }
    }
}

/// The name of a role given as `regrole`. 42704 when there is none (`0` and dropped roles are valid `regrole` values).
pub fn name_of(role: pg_sys::Oid) -> Result<Ident, TenancyError> {
    // SAFETY: with noerr a missing role gives NULL.
    let name = unsafe { pg_sys::GetUserNameFromId(role, true) };
    if name.is_null() {
        return Err(TenancyError::UnknownRole { role: role.to_u32() });
    }
    // SAFETY: a C string, copied at once.
    Ident::new(&unsafe { CStr::from_ptr(name) }.to_string_lossy())
}

/// Whether row security would filter the current role's queries on `relation` now.
pub fn is_bound(relation: pg_sys::Oid) -> bool {
    // SAFETY: reads the catalog; with noError it raises nothing for a missing relation or row_security = off.
    let answer = unsafe { pg_sys::check_enable_rls(relation, pg_sys::InvalidOid, true) };
    answer == pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32
}

/// A privilege on a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    Select,
    Insert,
    Update,
    Delete,
}

/// Whether the current role has this privilege on all of `relation`.
pub fn may(right: Right, relation: pg_sys::Oid) -> bool {
    let right = match right {
        Right::Select => pg_sys::ACL_SELECT,
        Right::Insert => pg_sys::ACL_INSERT,
        Right::Update => pg_sys::ACL_UPDATE,
        Right::Delete => pg_sys::ACL_DELETE,
    };
    // SAFETY: reads the catalog.
    let answer = unsafe { pg_sys::pg_class_aclcheck(relation, pg_sys::GetUserId(), right as pg_sys::AclMode) };
    answer == pg_sys::AclResult::ACLCHECK_OK
}

/// Whether `role` is a superuser.
pub fn is_superuser(role: pg_sys::Oid) -> bool {
    // SAFETY: reads the catalog.
    unsafe { pg_sys::superuser_arg(role) }
}

/// Whether `role` may change what protects tables: a superuser, or a holder of the admin grant.
pub fn is_privileged(role: pg_sys::Oid) -> bool {
    // SAFETY: reads the catalog, as the callers' statements do.
    let is_superuser = unsafe { pg_sys::superuser_arg(role) };
    is_superuser || admin_function().is_some_and(|function| may_execute(function, role))
}

/// A function that the admin grant gives and nothing else does.
fn admin_function() -> Option<pg_sys::Oid> {
    // SAFETY: syscache lookups by name; the argument types are copied.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"tenancy".as_ptr(), true);
        let arguments = pg_sys::buildoidvector(&pg_sys::TEXTOID, 1);
        let function = pg_sys::GetSysCacheOid(
            pg_sys::SysCacheIdentifier::PROCNAMEARGSNSP as i32,
            pg_sys::Anum_pg_proc_oid as i16,
            pg_sys::Datum::from(c"switch_tenant".as_ptr()),
            pg_sys::Datum::from(arguments),
            pg_sys::Datum::from(schema),
            pg_sys::Datum::null(),
        );
        (function != pg_sys::InvalidOid).then_some(function)
    }
}
