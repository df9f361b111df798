//! Audit triggers: what a statement did to a table, written to the log without SQL.
//!
//! An AFTER trigger for each statement reads the rows from its transition tables, a trigger for each row (where
//! replication applies them, or a table has inheritance children) the one it is called for. `image.rs` makes them bytes,
//! one run per tenant; `log.rs` writes a run as one row of the log, as soon as it fills a page. So a row costs what its
//! bytes cost, and no plan, no policy and no right of the current role has a say in what is written.

mod append;
mod image;
pub mod layout;
mod log;
mod origin;
pub mod read;
pub mod turn;

use super::trigger::{self, Event, Fired, Level, Timing};
use crate::error::TenancyError;
use image::{Buckets, Rows, Stop};
use layout::Layout;
use log::Chunk;
use pgrx::{AnyElement, IntoDatum, pg_sys};
use uuid::Uuid;

/// Watches for changes of audited tables; called once, from `_PG_init`.
pub fn watch() {
    layout::watch();
    log::watch();
    origin::watch();
}

/// Writes down what the trigger at hand was fired for.
pub fn record(call: trigger::Call) -> Result<(), TenancyError> {
    let events = [Event::Insert, Event::Update, Event::Delete, Event::Truncate];
    let fired = trigger::expect(call, Level::Either, Timing::After, &events)?;
    refuse_without_rows(&fired)?;
    // SAFETY: PostgreSQL passes an open relation.
    let relation = unsafe { (*fired.data).tg_relation };
    let Some(layout) = layout::find(relation)? else { return Ok(()) };
    if fired.event == Event::Truncate {
        return log::write(&Chunk::truncation(&layout), &origin::of_statement()).map(drop);
    }
    // SAFETY: the trigger was fired for this event, by PostgreSQL, and has the rows of it.
    write_rows(unsafe { Rows::of_trigger(fired.data, layout.width) }, &layout)
}

/// Refuses a trigger for the statement that lacks a transition table of its event: half a change would be written.
fn refuse_without_rows(fired: &Fired) -> Result<(), TenancyError> {
    // SAFETY: as PostgreSQL passed it.
    let (has_old, has_new) = unsafe { (!(*fired.data).tg_oldtable.is_null(), !(*fired.data).tg_newtable.is_null()) };
    let is_complete = fired.is_for_row
        || match fired.event {
            Event::Insert => has_new,
            Event::Update => has_old && has_new,
            Event::Delete => has_old,
            Event::Truncate => true,
        };
    if is_complete { Ok(()) } else { Err(fired.refuse(&"a trigger with the transition tables of its event")) }
}

/// Writes an event of the application; gives its chunk's id.
pub fn record_event(
    tenant: Option<Uuid>,
    name: &str,
    entity: Option<&str>,
    entity_id: Option<&str>,
    details: Option<AnyElement>,
) -> Result<i64, TenancyError> {
    // SAFETY: raises in a read-only transaction and on a standby; nothing is owned across it.
    unsafe { pg_sys::PreventCommandIfReadOnly(c"tenancy.log_event()".as_ptr()) };
    let event = log::Event {
        name: name.into_datum().expect("a text is never null"),
        entity: entity.into_datum(),
        entity_id: entity_id.into_datum(),
        details: details.map(|details| details.datum()),
    };
    let chunk = Chunk { action: b'E', tenant, rows: 1, event: Some(event), ..Chunk::default() };
    log::write(&chunk, &origin::of_statement())
}

fn write_rows(mut rows: Rows, layout: &Layout) -> Result<(), TenancyError> {
    let origin = origin::of_statement();
    let mut buckets = Buckets::new(layout, log::PAGE - origin.bytes());
    loop {
        match image::encode(&mut rows, layout, &mut buckets) {
            Stop::End => break,
            Stop::Full(bucket) => {
                log::write(&Chunk::of_rows(layout, buckets.full(bucket)), &origin)?;
                buckets.shift(bucket);
            }
            Stop::Stranger(key) => {
                if let Some(bucket) = buckets.without_room() {
                    log::write(&Chunk::of_rows(layout, buckets.whole(bucket)), &origin)?;
                }
                let tenant = key.tenant(layout)?;
                buckets.open(key, tenant);
            }
        }
    }
    for bucket in 0..buckets.len() {
        if !buckets.is_empty(bucket) {
            log::write(&Chunk::of_rows(layout, buckets.whole(bucket)), &origin)?;
        }
    }
    Ok(())
}
