//! Settings of ours whose value PostgreSQL refused. It warns, falls back on the default and goes on; but a default is the
//! weakest value there is, and somebody had asked for another. So a session that has such a setting gets no tenant.
//!
//! What came before the library is read from guc.c's placeholders, while they are there. Once the library is there, only what
//! is stored for roles and databases can be invalid (guc.c keeps the value it has when a file is read again), and no hook
//! hears of it: it is looked up when it first matters.

use super::guc::{self, Backend};
use super::{compat, session, table};
use crate::error::TenancyError;
use crate::model::Ident;
use crate::model::setting::{InvalidSetting, Place};
use pgrx::pg_sys;
use std::cell::RefCell;
use std::ffi::{CStr, CString};

/// A value that came before the library.
pub struct Given(Refused);

#[derive(Clone)]
struct Refused {
    name: CString,
    value: CString,
    source: pg_sys::GucSource::Type,
}

thread_local! {
    static REFUSED: RefCell<Vec<Refused>> = const { RefCell::new(Vec::new()) };
}

/// Whether anything has been refused; asked at each statement.
static ANY: Backend<bool> = Backend::new(false);
/// What is stored for role and database has been looked at.
static LOOKED: Backend<bool> = Backend::new(false);

/// The values of our settings that came before the library; called once, from `_PG_init`, before any is defined.
///
/// Not those that could not have set a valid one either: of a client's options the session hears elsewhere, and what a role
/// has set for itself only hides what is stored until it is refused.
pub fn given() -> Vec<Given> {
    use pg_sys::{GucContext::*, GucSource::*};
    let mut found = Vec::new();
    for record in compat::settings().filter(|record| guc::is_ours(record)) {
        // SAFETY: a setting that nobody has defined is a placeholder, which is a string; its values are NULL or C strings.
        let (name, values) = unsafe {
            let string = &*std::ptr::from_ref(record).cast::<pg_sys::config_string>();
            let values = [
                (string.reset_val, record.reset_source, record.reset_scontext),
                (*string.variable, record.source, record.scontext),
            ];
            let values = values.map(|(text, source, context)| {
                ((!text.is_null()).then(|| CStr::from_ptr(text).to_owned()), source, context)
            });
            (CStr::from_ptr(record.name), values)
        };
        let distinct = if record.source == record.reset_source { &values[..1] } else { &values };
        for (value, source, context) in distinct.iter().cloned() {
            let counts = match source {
                PGC_S_CLIENT => context == PGC_SU_BACKEND,
                PGC_S_SESSION => context != PGC_USERSET,
                _ => true,
            };
            if let Some(value) = value.filter(|_| counts) {
                found.push(Given(Refused { name: name.to_owned(), value, source }));
            }
        }
    }
    found
}

/// Remembers which of them are invalid; called once, from `_PG_init`, when all settings are defined.
pub fn judge(given: Vec<Given>) {
    given.into_iter().map(|Given(given)| given).filter(|given| !is_valid(&given.name, &given.value)).for_each(refuse);
}

fn refuse(refused: Refused) {
    REFUSED.with_borrow_mut(|all| all.push(refused));
    ANY.set(true);
}

/// Whether a setting of that name takes the value.
fn is_valid(name: &CStr, value: &CStr) -> bool {
    // SAFETY: C strings; nothing is changed, and below ERROR nothing is raised. A value that is good and not set gives -1.
    unsafe {
        find(name).is_some()
            && pg_sys::set_config_option(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_SUSET,
                pg_sys::GucSource::PGC_S_GLOBAL,
                pg_sys::GucAction::GUC_ACTION_SET,
                false,
                pg_sys::DEBUG5 as i32,
                false,
            ) != 0
    }
}

/// guc.c's record of a setting that somebody has defined.
fn find(name: &CStr) -> Option<&'static pg_sys::config_generic> {
    // SAFETY: NULL or a record that stays.
    let record = unsafe { compat::find_setting(name).as_ref() };
    record.filter(|record| record.flags & pg_sys::GUC_CUSTOM_PLACEHOLDER as i32 == 0)
}

/// Whether all there is has been looked at, and was valid.
pub fn is_known_none() -> bool {
    LOOKED.get() && !ANY.get()
}

/// Whether a setting of this session is invalid.
pub fn any() -> bool {
    look().is_err() || (ANY.get() && first().is_some())
}

/// Refuses where a setting of this session is invalid.
pub fn refuse_any() -> Result<(), TenancyError> {
    look()?;
    if !ANY.get() {
        return Ok(());
    }
    match first() {
        Some(refused) => Err(TenancyError::InvalidSetting(told(&refused)?)),
        None => Ok(()),
    }
}

/// The first refused value in whose stead the default is in force.
fn first() -> Option<Refused> {
    REFUSED.with_borrow(|all| all.iter().find(|refused| !is_replaced(refused)).cloned())
}

/// Whether a valid value from as near a place, or a nearer one, is in force for the session; SET does not count, for RESET
/// takes it away.
fn is_replaced(refused: &Refused) -> bool {
    find(&refused.name).is_some_and(|record| {
        // A parallel worker has its leader's values, and nothing below them.
        let source =
            if guc::is_parallel_worker() { record.source.max(record.reset_source) } else { record.reset_source };
        source >= refused.source
    })
}

/// Looks once at what is stored for the role and the database of the connection.
fn look() -> Result<(), TenancyError> {
    // SAFETY: reads variables of the backend.
    if LOOKED.get() || unsafe { !pg_sys::IsTransactionState() || pg_sys::MyDatabaseId == pg_sys::InvalidOid } {
        return Ok(());
    }
    if !session::is_shared_preload() {
        // The placeholders have told it.
        LOOKED.set(true);
        return Ok(());
    }
    /// An error on the way leaves the look to be taken again.
    struct Look;
    impl Drop for Look {
        fn drop(&mut self) {
            LOOKED.set(false);
        }
    }
    // The functions that are looked up on the way ask, too.
    LOOKED.set(true);
    let look = Look;
    // SAFETY: a backend in a transaction has a PGPROC. The role is that of the login, whose settings the connection has.
    let (database, role) = unsafe { (pg_sys::MyDatabaseId, (*pg_sys::MyProc).roleId) };
    let nobody = pg_sys::InvalidOid;
    for (database, role, source) in [
        (nobody, nobody, pg_sys::GucSource::PGC_S_GLOBAL),
        (database, nobody, pg_sys::GucSource::PGC_S_DATABASE),
        (nobody, role, pg_sys::GucSource::PGC_S_USER),
        (database, role, pg_sys::GucSource::PGC_S_DATABASE_USER),
    ] {
        let keys = [table::Equals::oid(c"setdatabase", database), table::Equals::oid(c"setrole", role)];
        let stored = table::scan(table::ROLE_SETTINGS, table::ROLE_SETTINGS_BY_PLACE, &keys, |row| {
            Ok(row.get::<Vec<String>>(c"setconfig").unwrap_or_default())
        })?;
        for entry in stored.into_iter().flatten().filter(|entry| guc::has_our_prefix(entry.as_bytes())) {
            let (name, value) = entry.split_once('=').unwrap_or((&entry, ""));
            let text = |text: &str| CString::new(text).expect("a text of PostgreSQL holds no NUL");
            let (name, value) = (text(name), text(value));
            if !is_valid(&name, &value) {
                refuse(Refused { name, value, source });
            }
        }
    }
    std::mem::forget(look);
    Ok(())
}

/// What is wrong with a value for a setting of ours: what the setting takes, or that there is none; None for a valid one.
pub fn fault(name: &str, value: &str) -> Option<String> {
    let text = |text: &str| CString::new(text).expect("a text of PostgreSQL holds no NUL");
    let (name, value) = (text(name), text(value));
    if is_valid(&name, &value) {
        return None;
    }
    Some(wanted(&name).map_or_else(|| "no setting has that name".to_owned(), |wanted| format!("it takes {wanted}")))
}

fn told(refused: &Refused) -> Result<InvalidSetting, TenancyError> {
    Ok(InvalidSetting {
        name: refused.name.to_string_lossy().into_owned(),
        value: refused.value.to_string_lossy().into_owned(),
        place: place(refused.source)?,
        wanted: wanted(&refused.name),
    })
}

fn place(source: pg_sys::GucSource::Type) -> Result<Place, TenancyError> {
    use pg_sys::GucSource::*;
    // SAFETY: syscache lookups; an object that is gone gives NULL, and a name is copied at once.
    let name = |name: *const std::ffi::c_char| {
        // SAFETY: a C string.
        let shown = if name.is_null() { "?".into() } else { unsafe { CStr::from_ptr(name) }.to_string_lossy() };
        Ident::new(&shown)
    };
    // SAFETY: likewise.
    let database = || name(unsafe { pg_sys::get_database_name(pg_sys::MyDatabaseId) });
    // SAFETY: likewise.
    let role = || name(unsafe { pg_sys::GetUserNameFromId((*pg_sys::MyProc).roleId, true) });
    Ok(match source {
        PGC_S_FILE => Place::File,
        PGC_S_GLOBAL => Place::AllRoles,
        PGC_S_DATABASE => Place::Database(database()?),
        PGC_S_USER => Place::Role(role()?),
        PGC_S_DATABASE_USER => Place::RoleInDatabase(role()?, database()?),
        PGC_S_CLIENT => Place::Client,
        PGC_S_INTERACTIVE | PGC_S_TEST | PGC_S_SESSION => Place::Session,
        _ => Place::Start,
    })
}

/// What a setting takes, None where there is none of that name.
fn wanted(name: &CStr) -> Option<String> {
    let record = find(name)?;
    let record = std::ptr::from_ref(record);
    // SAFETY: the type of a record says what it is; the names of an enum's values end with a NULL.
    unsafe {
        Some(match (*record).vartype {
            pg_sys::config_type::PGC_BOOL => "on or off".to_owned(),
            pg_sys::config_type::PGC_INT => {
                let number = &*record.cast::<pg_sys::config_int>();
                format!("{} to {}", number.min, number.max)
            }
            pg_sys::config_type::PGC_ENUM => {
                let mut option = (*record.cast::<pg_sys::config_enum>()).options;
                let mut names = Vec::new();
                while !(*option).name.is_null() {
                    names.push(CStr::from_ptr((*option).name).to_string_lossy());
                    option = option.add(1);
                }
                names.join(" or ")
            }
            _ => "another text".to_owned(),
        })
    }
}
