//! Which tenant the role that logged in is bound to; asked once per transaction, hence remembered.

use super::guc::Backend;
use super::table::Equals;
use super::watched::{self, ROLE_BINDINGS};
use crate::error::TenancyError;
use crate::model::Key;
use pgrx::pg_sys;
use uuid::Uuid;

/// The answer for the session's role, as of so many changes of the table.
#[derive(Clone, Copy)]
struct Known {
    role: pg_sys::Oid,
    changes: u64,
    tenant: Option<Key>,
}

static KNOWN: Backend<Option<Known>> = Backend::new(None);

/// The tenant of the role that logged in, which SET ROLE does not change; None when it is bound to none.
pub fn of_session_user() -> Result<Option<Key>, TenancyError> {
    // SAFETY: reads a variable of the backend.
    let role = unsafe { pg_sys::GetSessionUserId() };
    if let Some(known) = KNOWN.get()
        && known.role == role
        && known.changes == ROLE_BINDINGS.changes()
    {
        return Ok(known.tenant);
    }
    // SAFETY: reads a variable of the backend. Without a transaction there is no statement to serve.
    if !unsafe { pg_sys::IsTransactionState() } {
        return Ok(None);
    }
    loop {
        let changes = ROLE_BINDINGS.changes();
        let key = [Equals::oid(c"role", role)];
        let rows = ROLE_BINDINGS.rows(&key, |row| watched::must::<pgrx::Uuid>(row, c"tenant_id"))?;
        let Some(rows) = rows else { return Ok(None) };
        // A change that arrived while the row was read makes it doubtful.
        if changes == ROLE_BINDINGS.changes() {
            let tenant = rows.first().map(|id| Key::Id(Uuid::from_bytes(*id.as_bytes())));
            KNOWN.set(Some(Known { role, changes, tenant }));
            return Ok(tenant);
        }
    }
}

/// The tenant last answered for this role; reads no catalog.
pub fn remembered() -> Option<Key> {
    // SAFETY: reads a variable of the backend.
    let role = unsafe { pg_sys::GetSessionUserId() };
    KNOWN.get().filter(|known| known.role == role).and_then(|known| known.tenant)
}
