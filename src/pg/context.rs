//! The functions that policies and defaults call for every row, raw so that they cost nothing there.
//!
//! PERFORMANCE.md section 4, techniques 1 and 2: a V1 function that answers from its own call site.

use super::cache::{self, Tenant};
use super::compat;
use super::guc::{self, MissingContext, TICKET};
use super::report;
use crate::error::TenancyError;
use crate::model::context::{Assigned, Stamp};
use crate::model::{Key, Status};
use pgrx::pg_sys;
use pgrx::prelude::*;
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
}

/// Gives the call site's answer while it is good, and asks `$slow` for a new one otherwise.
macro_rules! answer_once {
    ($name:ident, $info:ident, $slow:ident, $resolve:expr, $datum:expr) => {
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
        pub unsafe extern "C-unwind" fn $name(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
            // SAFETY: fmgr passes a call with its FmgrInfo; fn_extra is NULL or the answer kept by `$slow`.
            unsafe {
                let kept = (*(*fcinfo).flinfo).fn_extra.cast::<Answer>();
                if !kept.is_null()
                    && (*kept).ticket == TICKET.get()
                    && (*kept).stamp == compat::local_transaction_id(pg_sys::MyProc)
                {
                    return (*kept).datum;
                }
                $slow(fcinfo)
            }
        }

        #[cold]
        #[pg_guard]
        unsafe extern "C-unwind" fn $slow(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
            // SAFETY: as above.
            unsafe { resolve(fcinfo, $resolve, $datum) }
        }
    };
}

/// Resolves the tenant and keeps what `datum` makes of it.
///
/// Each answer is a new piece of memory: an index scan or a cursor may hold a pointer to the one before.
unsafe fn resolve(
    fcinfo: pg_sys::FunctionCallInfo,
    resolve: fn() -> Result<Rc<Tenant>, TenancyError>,
    datum: fn(&Tenant) -> Option<pg_sys::Datum>,
) -> pg_sys::Datum {
    let tenant = match resolve() {
        Ok(tenant) => tenant,
        Err(TenancyError::NoTenant { .. } | TenancyError::StaleTenant { .. })
            if guc::missing_context() == MissingContext::Empty =>
        {
            // SAFETY: fmgr passes a valid call.
            unsafe { (*fcinfo).isnull = true };
            return pg_sys::Datum::from(0);
        }
        Err(refusal) => report::raise(refusal),
    };
    // SAFETY: fn_mcxt lives as long as the FmgrInfo that keeps the answer.
    unsafe {
        let site = (*fcinfo).flinfo;
        let before = pg_sys::MemoryContextSwitchTo((*site).fn_mcxt);
        let datum = datum(&tenant).expect("a tenant's keys are never null");
        let kept = pg_sys::palloc(size_of::<Answer>()).cast::<Answer>();
        let stamp = compat::local_transaction_id(pg_sys::MyProc);
        kept.write(Answer { ticket: TICKET.get(), stamp, datum });
        (*site).fn_extra = kept.cast();
        pg_sys::MemoryContextSwitchTo(before);
        datum
    }
}

fn id_datum(tenant: &Tenant) -> Option<pg_sys::Datum> {
    pgrx::Uuid::from_bytes(*tenant.id.as_bytes()).into_datum()
}

fn number_datum(tenant: &Tenant) -> Option<pg_sys::Datum> {
    tenant.number.into_datum()
}

fn code_datum(tenant: &Tenant) -> Option<pg_sys::Datum> {
    tenant.code.as_ref().into_datum()
}

fn true_datum(_: &Tenant) -> Option<pg_sys::Datum> {
    true.into_datum()
}

answer_once!(tenancy_current_id, pg_finfo_tenancy_current_id, current_id, tenant, id_datum);
answer_once!(tenancy_current_number, pg_finfo_tenancy_current_number, current_number, tenant, number_datum);
answer_once!(tenancy_current_code, pg_finfo_tenancy_current_code, current_code, tenant, code_datum);
answer_once!(tenancy_writing_id, pg_finfo_tenancy_writing_id, writing_id, writing_tenant, id_datum);
answer_once!(tenancy_writing_number, pg_finfo_tenancy_writing_number, writing_number, writing_tenant, number_datum);
answer_once!(tenancy_writing_code, pg_finfo_tenancy_writing_code, writing_code, writing_tenant, code_datum);
answer_once!(tenancy_may_write, pg_finfo_tenancy_may_write, may_write, writing_tenant, true_datum);
