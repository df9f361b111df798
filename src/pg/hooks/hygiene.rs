//! Session hygiene: what outlives a transaction on a connection does not reach the next tenant there.
//!
//! The tenant that last committed owns what is left. Under another tenant, leftovers are removed before its first statement
//! that is more than naming itself; until then, and without a tenant, they are refused.

use super::permit;
use super::statements::is_bound;
use crate::error::TenancyError;
use crate::model::fence::Statement;
use crate::model::{Ident, Key, Sql};
use crate::pg::guc::{self, Backend};
use crate::pg::settings::{SessionHygiene, session_hygiene};
use crate::pg::table::{self, Equals};
use crate::pg::{compat, protected, spi};
use pgrx::pg_sys;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};

/// The tenant whose transaction committed last.
static OWNER: Backend<Option<Key>> = Backend::new(None);
/// The tenant of the transaction that is about to commit.
static COMMITTING: Backend<Option<Key>> = Backend::new(None);
/// The subtransaction that found or made the connection clean for the tenant of the transaction.
static CLEAN_SINCE: Backend<Option<pg_sys::SubTransactionId>> = Backend::new(None);

/// SQL's PREPARE, or DECLARE ... WITH HOLD, has been met on this connection: asking for what is left costs two queries.
static MAY_BE_LEFT: Backend<bool> = Backend::new(false);

thread_local! {
    /// The portals that a procedure or DO block has begun to read for a tenant. It may pin one, as PL/pgSQL does for a FOR
    /// loop; then COMMIT and ROLLBACK keep the rows that are left, and nobody but it can close the portal.
    static LOOPS: RefCell<Vec<(CString, Key)>> = const { RefCell::new(Vec::new()) };
}

// In no header that pgrx binds.
unsafe extern "C-unwind" {
    fn Async_UnlistenAll();
    fn ResetSequenceCaches();
}

/// Notes a statement whose effect outlives its transaction, whatever hygiene is in force now.
pub fn note_lasting_statement() {
    MAY_BE_LEFT.set(true);
}

/// Follows transactions; a rolled-back one leaves the connection as it was.
pub fn note_transaction_event(event: pg_sys::XactEvent::Type) {
    use pg_sys::XactEvent::*;
    match event {
        XACT_EVENT_PRE_COMMIT | XACT_EVENT_PRE_PREPARE => COMMITTING.set(guc::apparent_tenant()),
        XACT_EVENT_COMMIT | XACT_EVENT_PREPARE => {
            if let Some(tenant) = COMMITTING.get() {
                OWNER.set(Some(tenant));
            }
            COMMITTING.set(None);
            CLEAN_SINCE.set(None);
        }
        XACT_EVENT_ABORT => {
            COMMITTING.set(None);
            CLEAN_SINCE.set(None);
        }
        _ => {}
    }
}

/// Notes a portal that is being opened where COMMIT is possible, whatever hygiene is in force now.
pub fn note_portal() {
    // SAFETY: variables of the backend; while a portal is started, it is the active one and not yet ready.
    let opened = unsafe {
        let portal = pg_sys::ActivePortal.as_ref();
        portal.filter(|portal| {
            portal.status == pg_sys::PortalStatus::PORTAL_DEFINED && pg_sys::SPI_inside_nonatomic_context()
        })
    };
    let Some(tenant) = opened.and_then(|_| guc::apparent_tenant()) else { return };
    // SAFETY: a portal has a name.
    let name = opened.map(|portal| unsafe { CStr::from_ptr(portal.name) }.to_owned()).unwrap_or_default();
    LOOPS.with_borrow_mut(|loops| {
        loops.retain(|(other, _)| *other != name && is_open(other, |_| true));
        loops.push((name, tenant));
    });
}

fn is_open(name: &CStr, wanted: impl FnOnce(&pg_sys::PortalData) -> bool) -> bool {
    // SAFETY: a C string; NULL for a portal that is gone.
    unsafe { pg_sys::GetPortalByName(name.as_ptr()).as_ref() }.is_some_and(wanted)
}

/// Whose rows a loop goes on to read that was begun for another tenant than `tenant`.
fn loop_of_another(tenant: &Key) -> Option<Key> {
    LOOPS.with_borrow(|loops| {
        let mut others = loops.iter().filter(|(_, owner)| !guc::same_tenant(owner, tenant));
        others.find(|(name, _)| is_open(name, |portal| portal.portalPinned)).map(|(_, owner)| *owner)
    })
}

/// Whether what is left on the connection is another tenant's than that of the transaction, or nobody may have it yet.
fn is_anothers() -> bool {
    match (OWNER.get(), guc::apparent_tenant()) {
        (_, Some(_)) if CLEAN_SINCE.get().is_some() => false,
        (owner, Some(tenant)) => {
            owner.is_some_and(|owner| !guc::same_tenant(&owner, &tenant)) || loop_of_another(&tenant).is_some()
        }
        (owner, None) => owner.is_some(),
    }
}

/// Removes what another tenant left, before the first work of a transaction that has a tenant.
pub fn scrub_if_due() -> Result<(), TenancyError> {
    let Some(tenant) = guc::apparent_tenant() else { return Ok(()) };
    if session_hygiene() == SessionHygiene::Off || CLEAN_SINCE.get().is_some() {
        return Ok(());
    }
    if is_anothers() && is_bound()? {
        if let Some(former) = loop_of_another(&tenant) {
            return Err(TenancyError::LoopOfAnother { former: former.to_string(), tenant: tenant.to_string() });
        }
        spi::own_work(|| spi::with_catalog_names(scrub))?;
        // Not in there: settings that change in it come back with its end.
        compat::forget_session_placeholders();
    }
    // SAFETY: reads a variable of the backend.
    CLEAN_SINCE.set(Some(unsafe { pg_sys::GetCurrentSubTransactionId() }));
    Ok(())
}

/// A rolled-back subtransaction brings back what was removed in it, or in one of those it had (their numbers are higher).
pub fn note_subtransaction_abort(aborted: pg_sys::SubTransactionId) {
    if CLEAN_SINCE.get().is_some_and(|since| since >= aborted) {
        CLEAN_SINCE.set(None);
    }
}

fn scrub() -> Result<(), TenancyError> {
    if MAY_BE_LEFT.get() {
        for portal in
            names("SELECT name FROM pg_catalog.pg_cursors WHERE is_holdable AND creation_time < pg_catalog.now()")?
        {
            spi::run(&Sql::text("CLOSE ").ident(&portal), &[])?;
        }
        for statement in names("SELECT name FROM pg_catalog.pg_prepared_statements WHERE from_sql")? {
            spi::run(&Sql::text("DEALLOCATE ").ident(&statement), &[])?;
        }
    }
    // SAFETY: what UNLISTEN * and DISCARD SEQUENCES call, in a transaction; an error jumps to this boundary.
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| {
            Async_UnlistenAll();
            ResetSequenceCaches();
        });
    }
    // A temporary table that a query under way uses makes it an error, which ends the transaction.
    if has_temporary_relations()? { spi::run(&Sql::text("DISCARD TEMP"), &[]) } else { Ok(()) }
}

fn names(sql: &'static str) -> Result<Vec<Ident>, TenancyError> {
    let found = spi::read(&Sql::text(sql), &[], |row| row.must::<String>(1))?;
    // A portal without a name is a protocol's, and is not holdable; CLOSE and DEALLOCATE need a name.
    found.iter().filter(|name| !name.is_empty()).map(|name| Ident::new(name)).collect()
}

/// Whether the session's own schema for temporary tables holds anything.
fn has_temporary_relations() -> Result<bool, TenancyError> {
    let (mut schema, mut toast) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
    // SAFETY: writes to the two variables.
    unsafe { pg_sys::GetTempNamespaceState(&mut schema, &mut toast) };
    if schema == pg_sys::InvalidOid {
        return Ok(false);
    }
    let keys = [Equals::oid(c"refclassid", pg_sys::NamespaceRelationId), Equals::oid(c"refobjid", schema)];
    let dependents = table::scan(table::DEPENDENCIES, table::DEPENDENCIES_BY_REFERENCE, &keys, |_| Ok(()))?;
    Ok(!dependents.is_empty())
}

/// Refuses FETCH from a cursor that an earlier transaction of another tenant left.
pub fn refuse_foreign_cursor(name: *const c_char) -> Result<(), TenancyError> {
    if !is_watchful() {
        return Ok(());
    }
    // SAFETY: a C string of the parse tree; NULL for a portal that is not there, which FETCH itself refuses.
    let is_leftover = unsafe {
        let portal = pg_sys::GetPortalByName(name);
        !portal.is_null() && (*portal).createSubid == compat::NO_SUBTRANSACTION
    };
    if !is_leftover {
        return Ok(());
    }
    // SAFETY: a C string of the parse tree.
    let shown = unsafe { CStr::from_ptr(name) }.to_string_lossy();
    permit(&Statement::Leftover { what: format!("cursor \"{shown}\"") })
}

/// Whether there may be leftovers of another tenant.
pub fn is_watchful() -> bool {
    session_hygiene() != SessionHygiene::Off && is_anothers()
}

/// Refuses a temporary table that an earlier transaction of another tenant left.
pub fn refuse_foreign_table(relation: pg_sys::Oid) -> Result<(), TenancyError> {
    if !compat::is_older_temporary_table(relation) {
        return Ok(());
    }
    permit(&Statement::Leftover { what: format!("temporary table {}", protected::name_of(relation)) })
}
