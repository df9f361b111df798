//! The roles that the fence lets past row security, as the backend remembers them.

use super::table;
use crate::error::TenancyError;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::cell::RefCell;
use std::rc::Rc;

/// A role and the moment its exemption ends, in microseconds of `timestamptz`; None for never.
type Exemption = (pg_sys::Oid, Option<i64>);

#[derive(Default)]
struct Memory {
    table: Option<pg_sys::Oid>,
    roles: Option<Rc<[Exemption]>>,
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

/// Watches for changes of `tenancy_internal.exempt_roles`; called once, from `_PG_init`.
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

/// Whether `role` is exempt now.
pub fn is_exempt(role: pg_sys::Oid) -> Result<bool, TenancyError> {
    // SAFETY: reads the clock.
    let now = unsafe { pg_sys::GetCurrentTimestamp() };
    let is_now = |(exempt, until): &Exemption| *exempt == role && until.is_none_or(|until| now < until);
    Ok(exemptions()?.iter().any(is_now))
}

fn exemptions() -> Result<Rc<[Exemption]>, TenancyError> {
    if let Some(roles) = MEMORY.with_borrow(|memory| memory.roles.clone()) {
        return Ok(roles);
    }
    let Some(table) = table::oid(c"tenancy_internal", c"exempt_roles") else { return Ok([].into()) };
    MEMORY.with_borrow_mut(|memory| memory.table = Some(table));
    let roles: Rc<[Exemption]> = table::scan(table, pg_sys::InvalidOid, &[], |row| {
        let until = row.get::<TimestampWithTimeZone>(c"until").map(i64::from);
        Ok((row.get::<pg_sys::Oid>(c"role").unwrap_or(pg_sys::InvalidOid), until))
    })?
    .into();
    // A change that arrived while the table was read has emptied the memory: read again next time.
    MEMORY.with_borrow_mut(|memory| {
        if memory.table == Some(table) {
            memory.roles = Some(roles.clone());
        }
    });
    Ok(roles)
}
