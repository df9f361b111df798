//! Trigger functions: what PostgreSQL passes them.
//!
//! Whoever has EXECUTE on a trigger function can put it on a table of his own, for an event and at a time that it is not
//! made for. There PostgreSQL passes other things, or nothing: each function says what it expects, before it looks at any.

use super::table;
use crate::error::TenancyError;
use pgrx::{PgRelation, pg_sys};
use std::ffi::CStr;
use std::fmt;

/// A call of a trigger function, as a door receives it.
pub type Call = pg_sys::FunctionCallInfo;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Row,
    Statement,
    /// As the events have it: TRUNCATE fires triggers for the statement only.
    Either,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    Before,
    After,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Insert,
    Update,
    Delete,
    Truncate,
}

/// What a trigger function was called for.
#[derive(Clone, Copy)]
pub struct Fired {
    call: Call,
    pub event: Event,
    pub is_for_row: bool,
    /// As PostgreSQL passed it: valid while the function runs.
    pub data: *const pg_sys::TriggerData,
}

/// What fired the trigger; refuses a call by anybody but PostgreSQL, and for what the function is not made for: by a
/// trigger of another level, time or event, or with arguments. The columns of the table are not looked at.
pub fn expect(call: Call, level: Level, timing: Timing, events: &[Event]) -> Result<Fired, TenancyError> {
    fired(call)
        .filter(|fired| {
            let is_level = match level {
                Level::Row => fired.is_for_row,
                Level::Statement => !fired.is_for_row,
                Level::Either => true,
            };
            is_level && fired.timing() == Some(timing) && events.contains(&fired.event) && !fired.has_arguments()
        })
        .ok_or_else(|| protocol_violated(call, &Expected { level, timing, events }))
}

fn protocol_violated(call: Call, expected: &dyn fmt::Display) -> TenancyError {
    TenancyError::TriggerProtocol { function: function(call), expected: expected.to_string(), is_event_trigger: false }
}

/// The name of the function that is called.
pub(super) fn function(call: Call) -> String {
    // SAFETY: a function's call information is valid while it runs; its lookup information may be missing. The name is
    // a C string, or NULL for a function that is gone.
    let name = unsafe {
        let info = (*call).flinfo;
        if info.is_null() { std::ptr::null_mut() } else { pg_sys::get_func_name((*info).fn_oid) }
    };
    // SAFETY: as above.
    if name.is_null() { String::new() } else { unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned() }
}

/// What PostgreSQL passes to a trigger; None for a call by anybody else.
fn fired(call: Call) -> Option<Fired> {
    // SAFETY: a function's call information is valid while it runs; the node's tag tells whether the context is ours.
    let (data, event) = unsafe {
        let context = (*call).context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
            return None;
        }
        let data = context.cast::<pg_sys::TriggerData>();
        (data, (*data).tg_event)
    };
    let is_for_row = event & pg_sys::TRIGGER_EVENT_ROW != 0;
    let event = match event & pg_sys::TRIGGER_EVENT_OPMASK {
        pg_sys::TRIGGER_EVENT_INSERT => Event::Insert,
        pg_sys::TRIGGER_EVENT_UPDATE => Event::Update,
        pg_sys::TRIGGER_EVENT_DELETE => Event::Delete,
        _ => Event::Truncate,
    };
    Some(Fired { call, event, is_for_row, data })
}

impl Fired {
    /// None for INSTEAD OF.
    fn timing(&self) -> Option<Timing> {
        // SAFETY: PostgreSQL passed it.
        match unsafe { (*self.data).tg_event } & pg_sys::TRIGGER_EVENT_TIMINGMASK {
            pg_sys::TRIGGER_EVENT_BEFORE => Some(Timing::Before),
            pg_sys::TRIGGER_EVENT_AFTER => Some(Timing::After),
            _ => None,
        }
    }

    fn has_arguments(&self) -> bool {
        // SAFETY: PostgreSQL passed it, and always names the trigger.
        unsafe { (*(*self.data).tg_trigger).tgnargs != 0 }
    }

    /// Refuses a call for another table than this one of ours.
    pub fn on(self, schema: &CStr, name: &CStr) -> Result<Self, TenancyError> {
        if table::oid(schema, name) == Some(self.table().oid()) {
            return Ok(self);
        }
        let name = format!("a trigger of table {}.{}", schema.to_string_lossy(), name.to_string_lossy());
        Err(self.refuse(&name))
    }

    /// That the function was not called as `expected`.
    pub fn refuse(&self, expected: &dyn fmt::Display) -> TenancyError {
        protocol_violated(self.call, expected)
    }

    /// What a column of the row before holds, as text; None for NULL, where there is no such row, and for no such column.
    pub fn old_text(&self, column: &CStr) -> Option<String> {
        // SAFETY: the table is open; the row is one of it, and the column's number was looked up in it. SPI_getvalue
        // gives a C string, or NULL.
        unsafe {
            let row = (*self.data).tg_trigtuple;
            let has_row = self.is_for_row && self.event != Event::Insert && !row.is_null();
            let descriptor = (*(*self.data).tg_relation).rd_att;
            let number = pg_sys::SPI_fnumber(descriptor, column.as_ptr());
            if !has_row || number == pg_sys::SPI_ERROR_NOATTRIBUTE {
                return None;
            }
            let value = pg_sys::SPI_getvalue(row, descriptor, number);
            (!value.is_null()).then(|| CStr::from_ptr(value).to_string_lossy().into_owned())
        }
    }

    /// The trigger's table, which is open and locked.
    pub fn table(&self) -> PgRelation {
        // SAFETY: PostgreSQL passed it, and closes it itself.
        unsafe { PgRelation::from_pg((*self.data).tg_relation) }
    }
}

struct Expected<'a> {
    level: Level,
    timing: Timing,
    events: &'a [Event],
}

impl fmt::Display for Expected<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.timing {
            Timing::Before => "a BEFORE ",
            Timing::After => "an AFTER ",
        })?;
        for (at, event) in self.events.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { " OR " })?;
            f.write_str(match event {
                Event::Insert => "INSERT",
                Event::Update => "UPDATE",
                Event::Delete => "DELETE",
                Event::Truncate => "TRUNCATE",
            })?;
        }
        f.write_str(match self.level {
            Level::Row => " trigger FOR EACH ROW",
            Level::Statement => " trigger FOR EACH STATEMENT",
            Level::Either => " trigger",
        })?;
        f.write_str(" without arguments")
    }
}
