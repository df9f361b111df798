//! Private tables whose rows backends keep until they change.
//!
//! Works as `cache.rs` does for the registry: a trigger invalidates the table's relcache entry, the message reaches every
//! backend and standby with the commit, and a rolled-back change is forgotten with its transaction.

use super::guc::{self, Backend};
use super::table::{self, Equals, Row};
use crate::error::TenancyError;
use pgrx::prelude::*;
use pgrx::{FromDatum, pg_sys};
use std::ffi::CStr;

/// A table of schema `tenancy_internal`.
pub struct Watched {
    name: &'static CStr,
    primary_key: &'static CStr,
    relation: Backend<pg_sys::Oid>,
    changes: Backend<u64>,
}

pub static EXEMPT_ROLES: Watched = Watched::new(c"exempt_roles", c"exempt_roles_pkey");
pub static ROLE_BINDINGS: Watched = Watched::new(c"role_bindings", c"role_bindings_pkey");
pub static SIGNING_KEYS: Watched = Watched::new(c"signing_keys", c"signing_keys_pkey");

const ALL: [&Watched; 3] = [&EXEMPT_ROLES, &ROLE_BINDINGS, &SIGNING_KEYS];

/// Watches for changes; called once, from `_PG_init`.
pub fn watch() {
    // SAFETY: the callback is guarded, touches only this backend's memory and raises nothing.
    unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(note_change), pg_sys::Datum::from(0)) };
}

#[pg_guard]
unsafe extern "C-unwind" fn note_change(_arg: pg_sys::Datum, relation: pg_sys::Oid) {
    for table in ALL {
        let known = table.relation.get();
        if known != pg_sys::InvalidOid && (relation == known || relation == pg_sys::InvalidOid) {
            table.relation.set(pg_sys::InvalidOid);
            table.changes.set(table.changes.get() + 1);
            guc::renew_ticket();
        }
    }
}

impl Watched {
    const fn new(name: &'static CStr, primary_key: &'static CStr) -> Self {
        Self { name, primary_key, relation: Backend::new(pg_sys::InvalidOid), changes: Backend::new(0) }
    }

    /// Rises with every change that this backend has heard of.
    pub fn changes(&self) -> u64 {
        self.changes.get()
    }

    /// All rows, or those that have `key`. None where the extension is not installed.
    pub fn rows<T>(
        &self,
        key: &[Equals<'_>],
        row: impl FnMut(&Row<'_>) -> Result<T, TenancyError>,
    ) -> Result<Option<Vec<T>>, TenancyError> {
        let found = |name| table::oid(c"tenancy_internal", name);
        let (Some(relation), Some(index)) = (found(self.name), found(self.primary_key)) else { return Ok(None) };
        // From here on its changes are heard of; the scan locks it, and so hears of those before.
        self.relation.set(relation);
        table::scan(relation, index, key, row).map(Some)
    }
}

/// The value of a column that is never NULL.
pub fn must<T: FromDatum>(row: &Row<'_>, column: &CStr) -> Result<T, TenancyError> {
    let missing = || TenancyError::Internal { what: format!("column {column:?} of an internal table is null") };
    row.get(column).ok_or_else(missing)
}

#[pgrx::pg_schema]
pub mod tenancy_internal {
    use crate::pg::trigger::{self, Event, Level, Timing};
    use pgrx::pg_sys::panic::ErrorReport;
    use pgrx::{pg_sys, prelude::*};

    /// Makes every backend forget what it remembers of the table that has changed.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy_internal.announce_change() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn announce_change(call: trigger::Call) -> Result<(), ErrorReport> {
        let events = [Event::Insert, Event::Update, Event::Delete, Event::Truncate];
        let fired = trigger::expect(call, Level::Either, Timing::After, &events)?;
        // SAFETY: the relation is the one that the trigger fires for, hence open and locked.
        unsafe { pg_sys::CacheInvalidateRelcacheByRelid(fired.table().oid()) };
        Ok(())
    }
}
