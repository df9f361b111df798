//! The backend's registry cache: one row of `tenancy.tenants` per tenant met, so that no transaction queries for it.
//!
//! A statement trigger on `tenancy.tenants` invalidates the table's relcache entry; the message reaches every backend
//! (and standby) with the commit, and empties the cache before the next lookup. Rolled-back changes are covered too:
//! PostgreSQL replays a transaction's own messages when it aborts (inval.c, AtEOXact_Inval).

use super::guc::{self, Backend, TICKET};
use super::table::{self, Equals};
use crate::error::TenancyError;
use crate::model::{Key, Status};
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CStr;
use std::rc::Rc;
use uuid::Uuid;

/// Beyond this many tenants the cache starts anew: it stays under 4 MB per backend.
const CAPACITY: usize = 16_384;

/// What a backend remembers of a tenant.
#[derive(Debug)]
pub struct Tenant {
    pub id: Uuid,
    pub number: i64,
    pub code: Box<str>,
    pub status: Status,
}

#[derive(Default)]
struct Entries {
    by_id: HashMap<Uuid, Rc<Tenant>>,
    by_number: HashMap<i64, Rc<Tenant>>,
    by_code: HashMap<Box<str>, Rc<Tenant>>,
}

impl Entries {
    fn get(&self, key: &Key) -> Option<Rc<Tenant>> {
        match key {
            Key::Id(id) => self.by_id.get(id),
            Key::Number(number) => self.by_number.get(number),
            Key::Code(code) => self.by_code.get(code.as_str()),
        }
        .cloned()
    }

    /// Remembers `tenant` under the key it was asked for, and no other: memory follows use.
    fn insert(&mut self, key: &Key, tenant: Rc<Tenant>) {
        if self.by_id.len() + self.by_number.len() + self.by_code.len() >= CAPACITY {
            *self = Self::default();
        }
        match key {
            Key::Id(id) => self.by_id.insert(*id, tenant),
            Key::Number(number) => self.by_number.insert(*number, tenant),
            Key::Code(code) => self.by_code.insert(code.as_str().into(), tenant),
        };
    }
}

/// Where the registry is in this database.
#[derive(Clone, Copy)]
struct Registry {
    table: pg_sys::Oid,
    by_id: pg_sys::Oid,
    by_number: pg_sys::Oid,
    by_code: pg_sys::Oid,
}

thread_local! {
    static ENTRIES: RefCell<Entries> = RefCell::default();
}
static REGISTRY: Backend<Option<Registry>> = Backend::new(None);

/// Watches for changes of the registry; called once, from `_PG_init`.
pub fn watch() {
    // SAFETY: the callback is guarded, touches only this backend's memory and raises nothing.
    unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(forget), pg_sys::Datum::from(0)) };
}

#[pg_guard]
unsafe extern "C-unwind" fn forget(_arg: pg_sys::Datum, relation: pg_sys::Oid) {
    let ours = REGISTRY.get().is_some_and(|registry| registry.table == relation);
    if ours || relation == pg_sys::InvalidOid {
        REGISTRY.set(None);
        guc::renew_ticket();
        ENTRIES.with_borrow_mut(|entries| *entries = Entries::default());
    }
}

/// The tenant that `key` names, or None. Reads the table when the cache does not know it; never assigns a transaction id.
pub fn find(key: &Key) -> Result<Option<Rc<Tenant>>, TenancyError> {
    if let Some(tenant) = ENTRIES.with_borrow(|entries| entries.get(key)) {
        return Ok(Some(tenant));
    }
    loop {
        let registry = registry()?;
        let ticket = TICKET.get();
        let row = read(&registry, key)?;
        // A change that arrived while the row was read makes it doubtful; read again rather than remember it.
        if ticket == TICKET.get() {
            let Some((tenant, _)) = row else { return Ok(None) };
            let tenant = Rc::new(tenant);
            ENTRIES.with_borrow_mut(|entries| entries.insert(key, tenant.clone()));
            return Ok(Some(tenant));
        }
    }
}

/// Why the tenant has its status; not cached, for messages.
pub fn status_reason(key: &Key) -> Result<Option<String>, TenancyError> {
    Ok(read(&registry()?, key)?.and_then(|(_, reason)| reason))
}

fn registry() -> Result<Registry, TenancyError> {
    if let Some(registry) = REGISTRY.get() {
        return Ok(registry);
    }
    // SAFETY: catalog lookups in a transaction; the names are C strings.
    let found = unsafe {
        let schema = pg_sys::get_namespace_oid(c"tenancy".as_ptr(), true);
        let relation = |name: &CStr| pg_sys::get_relname_relid(name.as_ptr(), schema);
        Registry {
            table: relation(c"tenants"),
            by_id: relation(c"tenants_pkey"),
            by_number: relation(c"tenants_number_key"),
            by_code: relation(c"tenants_code_key"),
        }
    };
    let complete = [found.table, found.by_id, found.by_number, found.by_code];
    if complete.contains(&pg_sys::InvalidOid) {
        return Err(TenancyError::NotInstalled);
    }
    REGISTRY.set(Some(found));
    Ok(found)
}

/// Reads a tenant's row through the index of the key, whatever rights the current role has on the table.
fn read(registry: &Registry, key: &Key) -> Result<Option<(Tenant, Option<String>)>, TenancyError> {
    let (index, column, function, collation, value) = match key {
        Key::Id(id) => {
            let id = pgrx::Uuid::from_bytes(*id.as_bytes());
            (registry.by_id, c"id", pg_sys::F_UUID_EQ, pg_sys::InvalidOid, id.into_datum())
        }
        Key::Number(number) => {
            (registry.by_number, c"number", pg_sys::F_INT8EQ, pg_sys::InvalidOid, number.into_datum())
        }
        Key::Code(code) => {
            (registry.by_code, c"code", pg_sys::F_TEXTEQ, pg_sys::DEFAULT_COLLATION_OID, code.as_str().into_datum())
        }
    };
    let value = value.expect("a key is never null");
    let rows = table::scan(registry.table, index, &[Equals { column, function, collation, value }], |row| {
        let id = row.get::<pgrx::Uuid>(c"id").map(|id| Uuid::from_bytes(*id));
        let status = row.get::<String>(c"status").as_deref().and_then(Status::from_stored);
        match (id, row.get::<i64>(c"number"), row.get::<String>(c"code"), status) {
            (Some(id), Some(number), Some(code), Some(status)) => {
                Ok((Tenant { id, number, code: code.into(), status }, row.get::<String>(c"status_reason")))
            }
            _ => Err(TenancyError::Internal { what: format!("the registry row of tenant \"{key}\" is malformed") }),
        }
    })?;
    Ok(rows.into_iter().next())
}
