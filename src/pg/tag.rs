//! What a tenant's transaction leaves in the server's log: a line (`tenancy.log_context`), and the tenant's code in
//! application_name (`tenancy.tag_log`), which log_line_prefix and pg_stat_activity show.
//!
//! The name is set as SET LOCAL does it, so PostgreSQL puts the former one back at the end of the transaction and with
//! ROLLBACK TO.

use super::{cache, settings, violations};
use crate::model::Key;
use pgrx::pg_sys;
use std::cell::RefCell;
use std::ffi::{CStr, CString};

const NAME: &CStr = c"application_name";
/// application_name is cut to what a name can have.
const MOST_BYTES: usize = pg_sys::NAMEDATALEN as usize - 1;

thread_local! {
    /// The name that the application has given, while ours is in its place.
    static FORMER: RefCell<Option<Former>> = const { RefCell::new(None) };
}

struct Former {
    tag: CString,
    name: CString,
}

/// The transaction has a tenant from now on.
pub fn begin(key: &Key) {
    if (settings::log_context() || settings::tag_log()) && is_possible() {
        announce(key);
    }
}

/// The transaction has no tenant any more, though it goes on.
pub fn end() {
    if settings::tag_log() && is_possible() {
        let former = FORMER.with_borrow_mut(Option::take);
        if let Some(former) = former.filter(|former| former.tag == *application_name()) {
            set(&former.name);
        }
    }
}

/// Whether settings can be changed and catalogs read now. A parallel worker has its leader's name.
fn is_possible() -> bool {
    // SAFETY: variables of the backend.
    unsafe { pg_sys::IsTransactionState() && !pg_sys::InitializingParallelWorker && pg_sys::ParallelWorkerNumber < 0 }
}

#[cold]
fn announce(key: &Key) {
    // What is no tenant of ours may be anything, a secret too. What cannot be read now will be refused when it is used.
    if let Ok(Some(tenant)) = cache::find(key) {
        if settings::log_context() {
            violations::log_context(&tenant.code);
        }
        // SAFETY: a variable of the backend.
        if settings::tag_log() && !unsafe { pg_sys::IsInParallelMode() } {
            tag(&tenant.code);
        }
    }
}

fn tag(code: &str) {
    let mut text = format!("tenant:{code}");
    while text.len() > MOST_BYTES {
        text.pop();
    }
    // PostgreSQL would replace what is not ASCII in an application_name; the tag that is compared has to be the same.
    let text: String = text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
    let tag = CString::new(text).unwrap_or_default();
    let now = application_name().to_owned();
    FORMER.with_borrow_mut(|former| {
        let name = match former.take() {
            Some(former) if former.tag == now => former.name,
            _ => now,
        };
        *former = Some(Former { tag: tag.clone(), name });
    });
    set(&tag);
}

/// The name that the application has given, also while a tag is in its place.
pub fn with_own_name<T>(look: impl FnOnce(&CStr) -> T) -> T {
    let shown = application_name();
    FORMER.with_borrow(|former| match former {
        Some(former) if settings::tag_log() && *former.tag == *shown => look(&former.name),
        _ => look(shown),
    })
}

fn application_name() -> &'static CStr {
    // SAFETY: NULL or a C string that lasts until the setting is changed; callers copy it before.
    unsafe { if pg_sys::application_name.is_null() { c"" } else { CStr::from_ptr(pg_sys::application_name) } }
}

fn set(name: &CStr) {
    // SAFETY: both are C strings; guc.c copies the value. elevel 0 means ERROR for this source.
    unsafe {
        pg_sys::set_config_option(
            NAME.as_ptr(),
            name.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_LOCAL,
            true,
            0,
            false,
        );
    }
}
