//! Who did it: what the log keeps of session and client.

use crate::pg::protected::OidHasher;
use crate::pg::{settings, tag};
use pgrx::prelude::*;
use pgrx::{direct_function_call, pg_sys};
use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char};
use std::hash::BuildHasherDefault;
use std::rc::Rc;

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
    static ADDRESS: OnceCell<Option<CString>> = const { OnceCell::new() };
}

/// The longest statement that is kept, and the longest of what a client says of itself: together they leave room for images
/// on a page of the log.
const MOST_QUERY_BYTES: i32 = 4000;
const MOST_SETTING_BYTES: i32 = 500;

unsafe extern "C-unwind" {
    fn GetSessionUserId() -> pg_sys::Oid;
    fn GetUserId() -> pg_sys::Oid;
    fn cstring_to_text_with_len(from: *const c_char, length: i32) -> *mut pg_sys::text;
    fn pg_mbcliplen(from: *const c_char, length: i32, most: i32) -> i32;
}

/// Who runs the statement at hand.
pub fn of_statement() -> Origin {
    // SAFETY: variables of the backend, and functions that read one and raise nothing; NULL or a C string.
    let (session, current, query, has_client) = unsafe {
        let query = if settings::audit_queries() { pg_sys::debug_query_string } else { std::ptr::null() };
        let client = settings::client_ip();
        (GetSessionUserId(), GetUserId(), query, !client.is_null() && *client != 0)
    };
    let (user, agent) = (settings::current_user_id(), settings::user_agent());
    let client = if has_client { settings::client_ip() } else { address() };
    let session_role = role_name(session);
    let current_role = if session == current { None } else { role_name(current) };
    let [session_role, current_role] = [&session_role, &current_role].map(|name| pointer(name.as_deref()));
    tag::with_own_name(|name| {
        let name = name.as_ptr();
        // SAFETY: NULL or C strings in the database's encoding, which last until the texts are made. Below the guard
        // nothing is owned.
        unsafe {
            pg_sys::submodules::ffi::pg_guard_ffi_boundary(|| Origin {
                actor: text(user, MOST_SETTING_BYTES),
                session_role: text(session_role, MOST_SETTING_BYTES),
                current_role: text(current_role, MOST_SETTING_BYTES),
                client: text(client, MOST_SETTING_BYTES),
                user_agent: text(agent, MOST_SETTING_BYTES),
                application_name: text(name, MOST_SETTING_BYTES),
                query: text(query, MOST_QUERY_BYTES),
            })
        }
    })
}

fn pointer(text: Option<&CStr>) -> *const c_char {
    text.map_or(std::ptr::null(), CStr::as_ptr)
}

/// The beginning of a text, clipped to whole characters; None for NULL and for an empty one.
///
/// # Safety
/// NULL or a C string in the database's encoding; below a guard.
unsafe fn text(from: *const c_char, most_bytes: i32) -> Option<pg_sys::Datum> {
    // SAFETY: the caller's.
    unsafe {
        if from.is_null() || *from == 0 {
            return None;
        }
        let length = CStr::from_ptr(from).count_bytes().min(i32::MAX as usize) as i32;
        let kept = if length > most_bytes { pg_mbcliplen(from, length, most_bytes) } else { length };
        Some(pg_sys::Datum::from(cstring_to_text_with_len(from, kept)))
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

thread_local! {
    /// Names of the roles that were met, forgotten with any change of a role.
    static ROLES: RefCell<HashMap<u32, Rc<CStr>, BuildHasherDefault<OidHasher>>> = RefCell::default();
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

/// A role's name, None for a role that is gone.
fn role_name(role: pg_sys::Oid) -> Option<Rc<CStr>> {
    if let Some(known) = ROLES.with_borrow(|roles| roles.get(&role.to_u32()).cloned()) {
        return Some(known);
    }
    // SAFETY: NULL for a role that is gone, else a C string, which is copied.
    let name: Rc<CStr> = unsafe {
        let name = pg_sys::GetUserNameFromId(role, true);
        if name.is_null() {
            return None;
        }
        CStr::from_ptr(name).into()
    };
    ROLES.with_borrow_mut(|roles| roles.insert(role.to_u32(), name.clone()));
    Some(name)
}

/// The address that the connection came from, NULL for a socket. It lasts as long as the backend.
fn address() -> *const c_char {
    ADDRESS.with(|address| {
        let address = address.get_or_init(|| {
            // SAFETY: the function takes no arguments and gives NULL for a socket.
            let inet = unsafe { direct_function_call::<pgrx::Inet>(pg_sys::inet_client_addr, &[]) };
            inet.and_then(|inet| CString::new(inet.0).ok())
        });
        pointer(address.as_deref())
    })
}
