//! What both hooks refuse to roles that are locked down: relations and functions that show other sessions.

use super::{RULES, functions};
use crate::error::TenancyError;
use crate::model::catalogs::{self, Kind};
use crate::model::fence::Look;
use crate::pg::compat::Entry;
use crate::pg::{locked_down, protected, role};
use pgrx::pg_sys;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CStr;

thread_local! {
    /// Whether a relation or function shows other sessions. Neither its name nor its extension changes as long as it lives.
    static KNOWN: RefCell<HashMap<(Kind, u32), bool>> = RefCell::default();
}

/// Refuses a relation of the server or of an extension to roles that are locked down.
pub fn refuse_relation(entry: &Entry) -> Result<(), TenancyError> {
    if !locked_down::is_any()? || !is_telling(Kind::Relation, entry.relation) {
        return Ok(());
    }
    judge(entry.user(), || (protected::name_of(entry.relation), relation_name(entry.relation)))
}

/// Refuses a function of the server or of an extension to roles that are locked down.
pub fn refuse_function(function: pg_sys::Oid) -> Result<(), TenancyError> {
    if !locked_down::is_any()? || !is_telling(Kind::Function, function) {
        return Ok(());
    }
    let name = functions::name(function);
    judge(role::current(), || (format!("{name}()"), name))
}

/// `names` gives the name to show, and the one that may have a replacement.
fn judge(user: pg_sys::Oid, names: impl FnOnce() -> (String, String)) -> Result<(), TenancyError> {
    let Some(rules) = RULES.get() else { return Ok(()) };
    // SAFETY: variables of the backend.
    let (outer, session) = unsafe { (pg_sys::GetOuterUserId(), pg_sys::GetSessionUserId()) };
    let mut locked = None;
    for role in [user, outer, session] {
        if locked.is_none() && locked_down::can_become(role, user) && locked_down::is_locked_down(role)? {
            locked = Some(role);
        }
    }
    let look = Look {
        is_locked_down: locked == Some(user),
        is_borrowed_from_own_role: locked.is_some_and(|role| role != user),
    };
    if (rules.shows)(&look) {
        return Ok(());
    }
    let (object, name) = names();
    Err(TenancyError::LockedDown {
        object,
        role: locked.map_or_else(role::current_role, role::shown),
        instead: catalogs::replacement(&name),
    })
}

fn is_telling(kind: Kind, object: pg_sys::Oid) -> bool {
    let key = (kind, object.to_u32());
    let known = KNOWN.with_borrow(|known| known.get(&key).copied());
    known.unwrap_or_else(|| {
        let name = match kind {
            Kind::Relation => relation_name(object),
            Kind::Function => functions::name(object),
        };
        let is_of_the_server = object.to_u32() < pg_sys::FirstNormalObjectId;
        let telling = if is_of_the_server {
            catalogs::tells_of_others(kind, &name, None)
        } else {
            extension(kind, object).is_some_and(|extension| catalogs::tells_of_others(kind, &name, Some(&extension)))
        };
        KNOWN.with_borrow_mut(|known| known.insert(key, telling));
        telling
    })
}

/// The extension that a relation or function belongs to.
fn extension(kind: Kind, object: pg_sys::Oid) -> Option<String> {
    let class = match kind {
        Kind::Relation => pg_sys::RelationRelationId,
        Kind::Function => pg_sys::ProcedureRelationId,
    };
    // SAFETY: catalog lookups, which give zero and NULL for what is not there; the name is copied at once.
    unsafe {
        let name = pg_sys::get_extension_name(pg_sys::getExtensionOfObject(class, object));
        (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
    }
}

fn relation_name(relation: pg_sys::Oid) -> String {
    // SAFETY: a syscache lookup that gives NULL for a relation that is gone; the name is copied at once.
    unsafe {
        let name = pg_sys::get_rel_name(relation);
        if name.is_null() { String::new() } else { CStr::from_ptr(name).to_string_lossy().into_owned() }
    }
}
