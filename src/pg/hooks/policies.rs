//! The restrictive policies from the hook: what an owner drops or widens in the catalog is still in force.

use crate::pg::guc::Backend;
use crate::pg::protected::{self, Protected};
use crate::pg::{report, spi};
use pgrx::pg_sys;
use pgrx::prelude::*;

static NEXT: Backend<pg_sys::row_security_policy_hook_type> = Backend::new(None);

pub fn install() {
    // SAFETY: the hook variables are set while the library is loaded, by one thread.
    unsafe {
        NEXT.set(pg_sys::row_security_policy_hook_restrictive);
        pg_sys::row_security_policy_hook_restrictive = Some(restrictive);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn restrictive(
    command: pg_sys::CmdType::Type,
    relation: pg_sys::Relation,
) -> *mut pg_sys::List {
    let letter = match command {
        pg_sys::CmdType::CMD_SELECT => b'r',
        pg_sys::CmdType::CMD_INSERT => b'a',
        pg_sys::CmdType::CMD_UPDATE => b'w',
        _ => b'd',
    };
    // SAFETY: rewriteHandler.c passes an open relation.
    let ours = unsafe {
        protected::find((*relation).rd_id).and_then(|found| match found.as_deref() {
            Some(Protected::Table(table)) if !spi::is_own_work() => table.restrictive_policies(letter, relation),
            _ => Ok(std::ptr::null_mut()),
        })
    };
    let ours = ours.unwrap_or_else(|refusal| report::raise(refusal));
    match NEXT.get() {
        // SAFETY: the same arguments; both lists hold policies.
        Some(next) => unsafe { pg_sys::list_concat(ours, next(command, relation)) },
        None => ours,
    }
}
