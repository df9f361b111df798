//! Who did it: what the log keeps of session and client.

use crate::pg::protected::OidHasher;
use crate::pg::{settings, tag};
use pgrx::prelude::*;
use pgrx::{direct_function_call, pg_sys};
use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char};
use std::hash::BuildHasherDefault;

/// Who did it, as values of type `text` in the current memory context; None for what is not known. Roles by name: the log
/// outlives them.
pub struct Origin {
    pub actor: Option<pg_sys::Datum>,
    pub session_role: Option<pg_sys::Datum>,
    /// None for the same.
    pub current_role: Option<pg_sys::Datum>,
    pub client: Option<pg_sys::Datum>,
    pub user_agent: Option<pg_sys::Datum>,
    pub application_name: Option<pg_sys::Datum>,
    pub query: Option<pg_sys::Datum>,
}

thread_local! {
    /// The address that the connection came from; it never changes.
    static ADDRESS: OnceCell<Option<String>> = const { OnceCell::new() };
}

/// The longest statement that is kept, and the longest of what a client says of itself: together they leave room for images
/// on a page of the log.
const MOST_QUERY_BYTES: i32 = 4000;
const MOST_SETTING_BYTES: i32 = 500;

/// Who runs the statement at hand.
pub fn of_statement() -> Origin {
    // SAFETY: variables of the backend, and C strings of the server that are copied at once.
    unsafe {
        let (session, current) = (pg_sys::GetSessionUserId(), pg_sys::GetUserId());
        let query = if settings::audit_queries() { pg_sys::debug_query_string } else { std::ptr::null() };
        Origin {
            actor: said(settings::current_user_id()),
            session_role: role_name(session),
            current_role: if session == current { None } else { role_name(current) },
            client: said(settings::client_ip()).or_else(address),
            user_agent: said(settings::user_agent()),
            application_name: tag::with_own_name(|name| text(name.as_ptr())),
            query: beginning(query, MOST_QUERY_BYTES),
        }
    }
}

impl Origin {
    /// About how many bytes it takes in the log.
    pub fn bytes(&self) -> usize {
        let texts = [
            self.actor,
            self.session_role,
            self.current_role,
            self.client,
            self.user_agent,
            self.application_name,
            self.query,
        ];
        // SAFETY: texts that `text` made.
        texts.iter().flatten().map(|text| unsafe { pgrx::varsize_any(text.cast_mut_ptr()) }).sum()
    }
}

/// What a client says of itself; None where it says nothing.
fn said(value: Option<CString>) -> Option<pg_sys::Datum> {
    // SAFETY: a C string.
    value.and_then(|value| unsafe { beginning(value.as_ptr(), MOST_SETTING_BYTES) })
}

thread_local! {
    /// Names of the roles that were met, forgotten with any change of a role.
    static ROLES: RefCell<HashMap<u32, CString, BuildHasherDefault<OidHasher>>> = RefCell::default();
}

/// Watches for changes of roles; called once, from `_PG_init`.
pub fn watch() {
    let roles = pg_sys::SysCacheIdentifier::AUTHOID as i32;
    // SAFETY: the callback is guarded, touches only this backend's memory and raises nothing.
    unsafe { pg_sys::CacheRegisterSyscacheCallback(roles, Some(forget_roles), pg_sys::Datum::from(0)) };
}

#[pg_guard]
unsafe extern "C-unwind" fn forget_roles(_argument: pg_sys::Datum, _cache: i32, _hash: u32) {
    drop(ROLES.take());
}

fn role_name(role: pg_sys::Oid) -> Option<pg_sys::Datum> {
    // SAFETY: C strings; a name that is not known yet is copied at once, NULL for a role that is gone.
    unsafe {
        let known = ROLES.with_borrow(|roles| roles.get(&role.to_u32()).map(|name| name.as_ptr()));
        if let Some(name) = known {
            return text(name);
        }
        let name = pg_sys::GetUserNameFromId(role, true);
        if !name.is_null() {
            let kept = CStr::from_ptr(name).to_owned();
            ROLES.with_borrow_mut(|roles| roles.insert(role.to_u32(), kept));
        }
        text(name)
    }
}

/// # Safety
/// NULL or a C string.
unsafe fn text(from: *const c_char) -> Option<pg_sys::Datum> {
    // SAFETY: the caller's.
    unsafe {
        if from.is_null() || *from == 0 { None } else { Some(pg_sys::Datum::from(pg_sys::cstring_to_text(from))) }
    }
}

/// # Safety
/// NULL or a C string in the database's encoding.
unsafe fn beginning(from: *const c_char, most_bytes: i32) -> Option<pg_sys::Datum> {
    // SAFETY: the caller's; the length is clipped to whole characters.
    unsafe {
        if from.is_null() || *from == 0 {
            return None;
        }
        let length = CStr::from_ptr(from).to_bytes().len().min(i32::MAX as usize) as i32;
        let kept = pg_sys::pg_mbcliplen(from, length, most_bytes);
        Some(pg_sys::Datum::from(pg_sys::cstring_to_text_with_len(from, kept)))
    }
}

/// The address that the connection came from, None for a socket.
fn address() -> Option<pg_sys::Datum> {
    ADDRESS.with(|address| {
        let address = address.get_or_init(|| {
            // SAFETY: the function takes no arguments and gives NULL for a socket.
            let inet = unsafe { direct_function_call::<pgrx::Inet>(pg_sys::inet_client_addr, &[]) };
            inet.map(|inet| inet.0)
        });
        address.as_ref().and_then(|address| address.as_str().into_datum())
    })
}
