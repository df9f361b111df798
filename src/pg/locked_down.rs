//! The roles from which the catalogs that show other sessions are taken, as the backend remembers them.
//!
//! Asked at each function of each statement, it remembers too that there are none, or no extension at all; that is why it
//! is not one of `watched`'s tables.

use super::table;
use crate::error::TenancyError;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::cell::RefCell;
use std::rc::Rc;

#[derive(Default)]
struct Memory {
    table: Option<pg_sys::Oid>,
    roles: Option<Rc<[pg_sys::Oid]>>,
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

/// The predefined role that sees all sessions; `pg_monitor` is a member of it.
const READS_ALL_STATISTICS: pg_sys::Oid = pg_sys::Oid::from_u32(3375);

/// Watches for changes of `tenancy_internal.locked_down_roles`; called once, from `_PG_init`.
pub fn watch() {
    // SAFETY: the callback is guarded, touches only this backend's memory and raises nothing.
    unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(forget), pg_sys::Datum::from(0)) };
}

#[pg_guard]
unsafe extern "C-unwind" fn forget(_argument: pg_sys::Datum, relation: pg_sys::Oid) {
    MEMORY.with_borrow_mut(|memory| {
        if relation == pg_sys::InvalidOid || memory.table.is_none_or(|table| table == relation) {
            *memory = Memory::default();
        }
    });
}

/// Whether the backend knows already that no role of this database is locked down; reads nothing and raises nothing.
pub fn is_known_empty() -> bool {
    MEMORY.with_borrow(|memory| memory.roles.as_ref().is_some_and(|roles| roles.is_empty()))
}

/// Whether any role of this database is locked down.
pub fn is_any() -> Result<bool, TenancyError> {
    Ok(!is_known_empty() && !roles()?.is_empty())
}

/// Whether `role` is locked down, by itself or as one that has the rights of such a role.
///
/// A member that was given all statistics on purpose keeps them.
pub fn is_locked_down(role: pg_sys::Oid) -> Result<bool, TenancyError> {
    let roles = roles()?;
    // SAFETY: reads the catalog.
    let (is_superuser, reads_all) =
        unsafe { (pg_sys::superuser_arg(role), pg_sys::has_privs_of_role(role, READS_ALL_STATISTICS)) };
    // SAFETY: reads the catalog.
    let inherits =
        |locked: &pg_sys::Oid| !is_superuser && !reads_all && unsafe { pg_sys::has_privs_of_role(role, *locked) };
    Ok(roles.contains(&role) || roles.iter().any(inherits))
}

/// Whether `role` can take on `other` with SET ROLE.
pub fn can_become(role: pg_sys::Oid, other: pg_sys::Oid) -> bool {
    // SAFETY: reads the catalog.
    unsafe { pg_sys::is_member_of_role(role, other) }
}

fn roles() -> Result<Rc<[pg_sys::Oid]>, TenancyError> {
    if let Some(roles) = MEMORY.with_borrow(|memory| memory.roles.clone()) {
        return Ok(roles);
    }
    let table = table::oid(c"tenancy_internal", c"locked_down_roles");
    MEMORY.with_borrow_mut(|memory| memory.table = table);
    let roles: Rc<[pg_sys::Oid]> = match table {
        Some(table) => table::scan(table, pg_sys::InvalidOid, &[], |row| {
            Ok(row.get::<pg_sys::Oid>(c"role").unwrap_or(pg_sys::InvalidOid))
        })?
        .into(),
        // A database without the extension; its creation empties the memory.
        None => [].into(),
    };
    // A change that arrived while the table was read has emptied the memory: read again next time.
    MEMORY.with_borrow_mut(|memory| {
        if memory.table == table {
            memory.roles = Some(roles.clone());
        }
    });
    Ok(roles)
}
