//! The functions that policies and defaults call for every row, raw so that they cost nothing there.
//!
//! PERFORMANCE.md section 4, techniques 1 and 2: a V1 function that answers from its own call site.

use super::cache::{self, Tenant};
use super::compat;
use super::guc::{self, Backend, MissingContext, TICKET};
use super::report;
use crate::error::TenancyError;
use crate::model::context::{Assigned, Stamp};
use crate::model::tenant::MAX_CODE_BYTES;
use crate::model::{Key, Status};
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::ffi::c_void;
use std::rc::Rc;

/// The tenant of this transaction: set, not stale, known and in service.
pub fn tenant() -> Result<Rc<Tenant>, TenancyError> {
    let (_, tenant) = registered()?;
    match tenant.status {
        Status::Active | Status::ReadOnly => Ok(tenant),
        status @ (Status::Suspended | Status::Deleted) => Err(TenancyError::TenantUnavailable {
            tenant: tenant.code.to_string(),
            status,
            reason: cache::status_reason(&Key::Id(tenant.id))?,
        }),
    }
}

/// The tenant in force and its registry row, whatever its status.
pub fn registered() -> Result<(Assigned, Rc<Tenant>), TenancyError> {
    let assigned = guc::current()?;
    match cache::find(&assigned.key)? {
        Some(tenant) => Ok((assigned, tenant)),
        None => Err(TenancyError::UnknownTenant { tenant: assigned.key.to_string() }),
    }
}

/// The tenant of this transaction, which must accept writes.
fn writing_tenant() -> Result<Rc<Tenant>, TenancyError> {
    let tenant = tenant()?;
    if tenant.status == Status::ReadOnly {
        return Err(TenancyError::ReadOnlyTenant {
            tenant: tenant.code.to_string(),
            reason: cache::status_reason(&Key::Id(tenant.id))?,
        });
    }
    Ok(tenant)
}

/// An answer kept at its call site (`fn_extra`), good for one transaction and one state of context and registry.
#[repr(C)]
struct Answer {
    ticket: u64,
    stamp: Stamp,
    datum: pg_sys::Datum,
    /// What a datum passed by reference points to; a text goes on behind the struct.
    bytes: [u8; 16],
}

/// The tenant last resolved, as plain bytes: a new call site of the same transaction answers from here.
struct Active {
    ticket: u64,
    stamp: Stamp,
    accepts_writes: bool,
    id: [u8; 16],
    number: i64,
    code: [u8; MAX_CODE_BYTES],
    code_length: u8,
}

/// Ticket 0 is never issued.
static ACTIVE: Backend<Active> = Backend::new(Active {
    ticket: 0,
    stamp: 0,
    accepts_writes: false,
    id: [0; 16],
    number: 0,
    code: [0; MAX_CODE_BYTES],
    code_length: 0,
});

// The allocation of the bindings catches errors, which costs more than all the rest here. An error in this one jumps
// over frames that own nothing.
unsafe extern "C-unwind" {
    fn MemoryContextAlloc(context: pg_sys::MemoryContext, size: usize) -> *mut c_void;
}

const ID: u8 = 0;
const NUMBER: u8 = 1;
const CODE: u8 = 2;
const TRUE: u8 = 3;

/// Answers from the call site, else from `ACTIVE`; None where the tenant must be resolved.
///
/// # Safety
/// fmgr made the call; `fn_extra` is NULL or an `Answer` of the same `KIND`.
#[inline(always)]
unsafe fn known<const KIND: u8, const WRITES: bool>(call: pg_sys::FunctionCallInfo) -> Option<pg_sys::Datum> {
    // SAFETY: the caller vouches for the call; MyProc is set in a backend; ACTIVE is this backend's.
    unsafe {
        let site = (*call).flinfo;
        let (ticket, stamp) = (TICKET.get(), compat::local_transaction_id(pg_sys::MyProc));
        let kept = (*site).fn_extra.cast::<Answer>();
        if !kept.is_null() && (*kept).ticket == ticket && (*kept).stamp == stamp {
            return Some((*kept).datum);
        }
        let active = &*ACTIVE.as_ptr();
        if active.ticket != ticket || active.stamp != stamp || (WRITES && !active.accepts_writes) {
            return None;
        }
        Some(keep::<KIND>(site, active))
    }
}

/// Keeps a new answer at the call site. Each is a new piece of memory: an index scan or a cursor may hold a pointer into
/// the one before.
///
/// # Safety
/// `site` is the FmgrInfo of a call.
unsafe fn keep<const KIND: u8>(site: *mut pg_sys::FmgrInfo, active: &Active) -> pg_sys::Datum {
    let text = if KIND == CODE { pg_sys::VARHDRSZ + usize::from(active.code_length) } else { 0 };
    // SAFETY: fn_mcxt lives as long as the FmgrInfo that keeps the answer; the memory has room for it and the text.
    unsafe {
        let kept = MemoryContextAlloc((*site).fn_mcxt, size_of::<Answer>() + text).cast::<Answer>();
        kept.write(Answer {
            ticket: active.ticket,
            stamp: active.stamp,
            datum: pg_sys::Datum::null(),
            bytes: active.id,
        });
        (*kept).datum = match KIND {
            ID => pg_sys::Datum::from((*kept).bytes.as_ptr()),
            NUMBER => pg_sys::Datum::from(active.number),
            CODE => {
                let varlena = kept.add(1).cast::<pg_sys::varlena>();
                pgrx::set_varsize_4b(varlena, text as i32);
                let characters = varlena.cast::<u8>().add(pg_sys::VARHDRSZ);
                std::ptr::copy_nonoverlapping(active.code.as_ptr(), characters, usize::from(active.code_length));
                pg_sys::Datum::from(varlena)
            }
            _ => pg_sys::Datum::from(true),
        };
        (*site).fn_extra = kept.cast();
        (*kept).datum
    }
}

/// Resolves the tenant, remembers it in `ACTIVE` and answers.
///
/// # Safety
/// As for `known`.
unsafe fn resolve<const KIND: u8, const WRITES: bool>(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    let resolved = if WRITES { writing_tenant() } else { tenant() };
    let tenant = match resolved {
        Ok(tenant) => tenant,
        Err(TenancyError::NoTenant { .. } | TenancyError::StaleTenant { .. })
            if guc::missing_context() == MissingContext::Empty =>
        {
            // SAFETY: fmgr passes a valid call.
            unsafe { (*call).isnull = true };
            return pg_sys::Datum::null();
        }
        Err(refusal) => report::raise(refusal),
    };
    let mut code = [0; MAX_CODE_BYTES];
    code[..tenant.code.len()].copy_from_slice(tenant.code.as_bytes());
    // SAFETY: MyProc is set in a backend; nothing else refers to ACTIVE now; fmgr passes a call with its FmgrInfo.
    unsafe {
        ACTIVE.as_ptr().write(Active {
            ticket: TICKET.get(),
            stamp: compat::local_transaction_id(pg_sys::MyProc),
            accepts_writes: tenant.status == Status::Active,
            id: *tenant.id.as_bytes(),
            number: tenant.number,
            code,
            code_length: tenant.code.len() as u8,
        });
        keep::<KIND>((*call).flinfo, &*ACTIVE.as_ptr())
    }
}

/// A function that policies call, with the record fmgr looks for and the guarded way round.
macro_rules! answer_once {
    ($name:ident, $info:ident, $slow:ident, $kind:ident, $writes:literal) => {
        #[unsafe(no_mangle)]
        #[doc(hidden)]
        pub extern "C" fn $info() -> &'static pg_sys::Pg_finfo_record {
            const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
            &V1
        }

        /// No `#[pg_guard]`: this frame owns nothing, so an error raised below may jump over it, and a guard would
        /// double the cost of the call (PERFORMANCE.md).
        #[unsafe(no_mangle)]
        #[doc(hidden)]
        pub unsafe extern "C-unwind" fn $name(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
            // SAFETY: fmgr calls it, and only this function fills its call sites.
            unsafe {
                match known::<$kind, $writes>(call) {
                    Some(datum) => datum,
                    None => $slow(call),
                }
            }
        }

        #[cold]
        #[pg_guard]
        unsafe extern "C-unwind" fn $slow(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
            // SAFETY: as above.
            unsafe { resolve::<$kind, $writes>(call) }
        }
    };
}

/// Whether a function of fmgr's is one of those that give the current tenant's key.
pub fn gives_key(function: *const c_void) -> bool {
    type Answers = unsafe extern "C-unwind" fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum;
    let ours: [Answers; 3] = [tenancy_current_id, tenancy_current_number, tenancy_current_code];
    ours.into_iter().any(|one| one as *const c_void == function)
}

answer_once!(tenancy_current_id, pg_finfo_tenancy_current_id, current_id, ID, false);
answer_once!(tenancy_current_number, pg_finfo_tenancy_current_number, current_number, NUMBER, false);
answer_once!(tenancy_current_code, pg_finfo_tenancy_current_code, current_code, CODE, false);
answer_once!(tenancy_writing_id, pg_finfo_tenancy_writing_id, writing_id, ID, true);
answer_once!(tenancy_writing_number, pg_finfo_tenancy_writing_number, writing_number, NUMBER, true);
answer_once!(tenancy_writing_code, pg_finfo_tenancy_writing_code, writing_code, CODE, true);
answer_once!(tenancy_may_write, pg_finfo_tenancy_may_write, may_write, TRUE, true);
