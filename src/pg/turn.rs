//! Whose turn it is at a task: one session's at a time, over many transactions.
//!
//! A turn is a lock of the session, named by one of our relations and a number, in a mode that nothing else locks such an
//! object in; nobody can take it by a function or a statement of PostgreSQL. It goes with the session, and with the first
//! transaction of it that fails: then the procedure that took it is over.

use super::guc::Backend;
use super::{Oid, table};
use crate::error::TenancyError;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::cell::RefCell;
use std::ffi::CStr;

const MODE: i32 = pg_sys::ShareUpdateExclusiveLock as i32;

/// A task: a relation of ours, and which of its tasks it is.
pub type Task = (Oid, u32);

thread_local! {
    static TAKEN: RefCell<Vec<Task>> = RefCell::default();
}
static WATCHES_EXIT: Backend<bool> = Backend::new(false);

/// The task of that number of a relation of ours.
pub fn task(schema: &CStr, relation: &CStr, number: u32) -> Result<Task, TenancyError> {
    Ok((table::oid(schema, relation).ok_or(TenancyError::NotInstalled)?, number))
}

/// Watches for failing transactions; called once, from `_PG_init`.
pub fn watch() {
    // SAFETY: the callback is guarded, touches only this backend's locks and raises nothing.
    unsafe { pg_sys::RegisterXactCallback(Some(ended), std::ptr::null_mut()) };
}

#[pg_guard]
unsafe extern "C-unwind" fn ended(event: pg_sys::XactEvent::Type, _argument: *mut std::ffi::c_void) {
    if event == pg_sys::XactEvent::XACT_EVENT_ABORT {
        TAKEN.take().into_iter().for_each(release);
    }
}

/// PostgreSQL itself gives such a lock back only with the transaction that it ends in, and a session may end between two.
#[pg_guard]
unsafe extern "C-unwind" fn exiting(_code: i32, _argument: pg_sys::Datum) {
    TAKEN.take().into_iter().for_each(release);
}

/// Takes the turn, and says whether it could: false where another session has it, or this one already.
#[must_use]
pub fn take(task: Task) -> bool {
    if has(task) {
        return false;
    }
    if !WATCHES_EXIT.get() {
        // SAFETY: the callback is guarded, touches only this backend's locks and raises nothing.
        unsafe { pg_sys::on_shmem_exit(Some(exiting), pg_sys::Datum::from(0)) };
        WATCHES_EXIT.set(true);
    }
    // SAFETY: a lock that is not waited for.
    let answer = unsafe { pg_sys::LockAcquire(&tag(task), MODE, true, true) };
    let taken = answer != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL;
    if taken {
        TAKEN.with_borrow_mut(|all| all.push(task));
    }
    taken
}

/// Whether this session has the turn.
pub fn has(task: Task) -> bool {
    TAKEN.with_borrow(|all| all.contains(&task))
}

/// Gives the turn back, where this session has it.
pub fn give(task: Task) {
    if has(task) {
        TAKEN.with_borrow_mut(|all| all.retain(|taken| *taken != task));
        release(task);
    }
}

fn release(task: Task) {
    // SAFETY: taken by `take`, once.
    unsafe { pg_sys::LockRelease(&tag(task), MODE, true) };
}

/// As `SET_LOCKTAG_OBJECT` makes it: pg_locks shows relation and number as classid and objid.
fn tag((relation, number): Task) -> pg_sys::LOCKTAG {
    pg_sys::LOCKTAG {
        // SAFETY: a variable of the backend.
        locktag_field1: unsafe { pg_sys::MyDatabaseId }.to_u32(),
        locktag_field2: relation.to_u32(),
        locktag_field3: number,
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    }
}
