//! How the session stands, for the rooms above.

use super::cache::{self, Tenant};
use super::context;
use super::guc::{self, Backend};
use super::{deferred, hooks, role, settings, spi};
use crate::error::TenancyError;
use crate::model::Key;
use crate::model::context::{Lifetime, Origin};
use pgrx::datum::{TimestampWithTimeZone, Uuid};
use pgrx::pg_sys;
use std::ffi::{CStr, c_char};
use std::rc::Rc;

/// What brought the library into this backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadedBy {
    SharedPreload,
    SessionPreload,
    FirstUse,
}

/// What there is to know about the session.
#[derive(Debug)]
pub struct Facts {
    pub tenant: Option<Rc<Tenant>>,
    pub origin: Option<Origin>,
    pub set_at: Option<TimestampWithTimeZone>,
    pub lifetime: Lifetime,
    /// Why a protected table would refuse now, if it would.
    pub problem: Option<String>,
    pub role: String,
    pub is_superuser: bool,
    pub bypasses_rls: bool,
    pub session_is_superuser: bool,
    pub loaded_by: LoadedBy,
    pub fence: Fence,
    /// As `server_version_num` has it.
    pub server_version: i32,
}

/// What stops that which row security lets pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// Nothing: the library is not in shared_preload_libraries.
    Off,
    Standard,
    Strict,
}

static SHARED_PRELOAD: Backend<bool> = Backend::new(false);

/// Notes how the library is being loaded; called once, from `_PG_init`.
pub fn note_loading() {
    // SAFETY: a plain variable of the process.
    SHARED_PRELOAD.set(unsafe { pg_sys::process_shared_preload_libraries_in_progress });
}

/// Whether shared_preload_libraries brought the library in.
pub fn is_shared_preload() -> bool {
    SHARED_PRELOAD.get()
}

/// Sets the tenant of the transaction and gives its id.
pub fn set_tenant(text: &str) -> Result<Uuid, TenancyError> {
    guc::set(named(text)?);
    tenant_id()
}

/// Sets the tenant on the word of a token that has been verified, and gives its id.
pub fn set_signed_tenant(text: &str, voucher: guc::Voucher) -> Result<Uuid, TenancyError> {
    guc::set_signed(named(text)?, voucher);
    tenant_id()
}

/// Like `set_tenant`, also when the transaction belongs to another tenant, whose deferred triggers run before.
pub fn switch_tenant(text: &str) -> Result<Uuid, TenancyError> {
    if guc::would_leave_tenant(Some(&named(text)?.parse()?)) {
        deferred::run()?;
    }
    rehearse_tenant(text)
}

/// Like `switch_tenant` for work that is rolled back, and with it the triggers.
pub fn rehearse_tenant(text: &str) -> Result<Uuid, TenancyError> {
    guc::switch(named(text)?);
    tenant_id()
}

/// Leaves the transaction without a tenant, whose deferred triggers run before.
pub fn clear_tenant() -> Result<(), TenancyError> {
    if guc::would_leave_tenant(None) {
        deferred::run()?;
    }
    guc::set("");
    Ok(())
}

/// Sets the tenant as if an earlier transaction had done it; only a context that outlives its transaction is one then.
pub fn set_stale_tenant(text: &str) -> Result<(), TenancyError> {
    guc::set_stale(named(text)?);
    Ok(())
}

/// Empty text would clear the tenant where one is to be set.
fn named(text: &str) -> Result<&str, TenancyError> {
    if text.is_empty() { Err(TenancyError::MalformedTenant { text: String::new() }) } else { Ok(text) }
}

/// The id of the tenant of this transaction.
pub fn tenant_id() -> Result<Uuid, TenancyError> {
    Ok(Uuid::from_bytes(*context::tenant()?.id.as_bytes()))
}

/// Refuses unless the transaction belongs to the tenant that `expected` names.
pub fn assert_tenant(expected: &Key) -> Result<(), TenancyError> {
    let current = context::tenant()?;
    match cache::find(expected)? {
        Some(tenant) if tenant.id == current.id => Ok(()),
        Some(_) => Err(TenancyError::OtherTenant { expected: expected.to_string(), current: current.code.to_string() }),
        None => Err(TenancyError::UnknownTenant { tenant: expected.to_string() }),
    }
}

/// Gathers the facts; raises nothing about the tenant.
pub fn facts() -> Facts {
    let registered = context::registered();
    let problem = context::tenant().err().map(|refusal| refusal.to_string());
    let (assigned, tenant) = match registered {
        Ok((assigned, tenant)) => (Some(assigned), Some(tenant)),
        Err(_) => (None, None),
    };
    // SAFETY: plain reads of the catalog and of backend variables.
    let (is_superuser, bypasses_rls, session_is_superuser) = unsafe {
        let role = pg_sys::GetUserId();
        (
            pg_sys::superuser_arg(role),
            pg_sys::has_bypassrls_privilege(role),
            pg_sys::superuser_arg(pg_sys::GetSessionUserId()),
        )
    };
    Facts {
        tenant,
        origin: assigned.map(|assigned| assigned.origin),
        set_at: assigned
            .filter(|assigned| assigned.origin != Origin::Bound)
            .and_then(|assigned| TimestampWithTimeZone::try_from(assigned.set_at).ok()),
        lifetime: guc::context_lifetime(),
        problem,
        role: role::current_role(),
        is_superuser,
        bypasses_rls,
        session_is_superuser,
        loaded_by: loaded_by(),
        fence: match (hooks::are_installed(), settings::is_strict()) {
            (false, _) => Fence::Off,
            (true, false) => Fence::Standard,
            (true, true) => Fence::Strict,
        },
        server_version: spi::server_version(),
    }
}

fn loaded_by() -> LoadedBy {
    // SAFETY: C strings of guc.c, or NULL.
    let listed = |list: *const c_char| unsafe {
        !list.is_null() && CStr::from_ptr(list).to_string_lossy().split(',').any(|name| name.trim() == "pg_tenancy")
    };
    if SHARED_PRELOAD.get() {
        return LoadedBy::SharedPreload;
    }
    // SAFETY: reads the variable of a setting.
    if listed(unsafe { pg_sys::session_preload_libraries_string }) {
        return LoadedBy::SessionPreload;
    }
    LoadedBy::FirstUse
}
