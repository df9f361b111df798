//! The trigger that writes down who made and who changed a row, and when.
//!
//! It is fired for each row that is written, so it makes no plan and no copy but the row's.

use super::report;
use crate::error::TenancyError;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::ffi::{CStr, c_int};

/// The columns, and whether what they say is from the row's beginning.
const COLUMNS: [(&CStr, &str, bool); 4] = [
    (c"created_at", "created_at", true),
    (c"updated_at", "updated_at", false),
    (c"created_by", "created_by", true),
    (c"updated_by", "updated_by", false),
];

#[unsafe(no_mangle)]
#[doc(hidden)]
pub extern "C" fn pg_finfo_tenancy_stamp_row() -> &'static pg_sys::Pg_finfo_record {
    const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &V1
}

#[unsafe(no_mangle)]
#[doc(hidden)]
#[pg_guard]
pub unsafe extern "C-unwind" fn tenancy_stamp_row(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: fmgr calls it.
    match unsafe { stamp(call) } {
        Ok(row) => pg_sys::Datum::from(row),
        Err(refusal) => report::raise(refusal),
    }
}

/// # Safety
/// `call` comes from fmgr.
unsafe fn stamp(call: pg_sys::FunctionCallInfo) -> Result<pg_sys::HeapTuple, TenancyError> {
    // SAFETY: a function's call information is valid while it runs; the node's tag tells whether the context is a trigger's.
    let data = unsafe {
        let context = (*call).context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
            return Err(TenancyError::NotATriggerCall);
        }
        &*context.cast::<pg_sys::TriggerData>()
    };
    let event = data.tg_event;
    let is_before_row = event & pg_sys::TRIGGER_EVENT_ROW != 0
        && event & pg_sys::TRIGGER_EVENT_TIMINGMASK == pg_sys::TRIGGER_EVENT_BEFORE;
    let is_update = match event & pg_sys::TRIGGER_EVENT_OPMASK {
        pg_sys::TRIGGER_EVENT_INSERT if is_before_row => false,
        pg_sys::TRIGGER_EVENT_UPDATE if is_before_row => true,
        _ => return Err(TenancyError::NotATriggerCall),
    };
    let row = if is_update { data.tg_newtuple } else { data.tg_trigtuple };
    let (now, by) = (now(), actor());
    let (mut numbers, mut values, mut nulls) = ([0 as c_int; 4], [pg_sys::Datum::null(); 4], [false; 4]);
    let mut count = 0;
    // SAFETY: PostgreSQL passes an open relation and rows of it; a column is written with a value of its type.
    unsafe {
        let shape = (*data.tg_relation).rd_att;
        for (name, shown, is_first) in COLUMNS {
            let number = pg_sys::SPI_fnumber(shape, name.as_ptr());
            if number <= 0 {
                continue;
            }
            let (wanted, value) =
                if shown.ends_with("_at") { (pg_sys::TIMESTAMPTZOID, now) } else { (pg_sys::TEXTOID, by) };
            if pg_sys::SPI_gettypeid(shape, number) != wanted {
                return Err(TenancyError::StampType { column: shown });
            }
            numbers[count] = number;
            values[count] = value;
            if is_update && is_first {
                values[count] = pg_sys::SPI_getbinval(data.tg_trigtuple, shape, number, &raw mut nulls[count]);
            }
            count += 1;
        }
        Ok(pg_sys::heap_modify_tuple_by_cols(
            row,
            shape,
            count as c_int,
            numbers.as_mut_ptr(),
            values.as_mut_ptr(),
            nulls.as_mut_ptr(),
        ))
    }
}

/// When the transaction began, as now() gives it.
fn now() -> pg_sys::Datum {
    // SAFETY: a variable of the transaction.
    pg_sys::Datum::from(unsafe { pg_sys::GetCurrentTransactionStartTimestamp() })
}

/// The user whom the application works for, or the role of the session.
fn actor() -> pg_sys::Datum {
    // SAFETY: a C string of guc.c, or NULL.
    let user = unsafe { pg_sys::GetConfigOption(c"app.current_user_id".as_ptr(), true, false) };
    // SAFETY: as said; the role of a session exists, or the call raises. The text is a copy in the trigger's memory.
    unsafe {
        let name = if user.is_null() || *user == 0 {
            pg_sys::GetUserNameFromId(pg_sys::GetSessionUserId(), false)
        } else {
            user.cast_mut()
        };
        pg_sys::Datum::from(pg_sys::cstring_to_text(name))
    }
}
