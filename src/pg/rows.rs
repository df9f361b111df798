//! Triggers for each row, which write what the application must not: who made a row and when, who deleted it and when.
//!
//! They are raw functions, for a BEFORE trigger gives the row back.

use super::nesting::{self, Intent};
use super::trigger::{self, Event, Level, Timing};
use super::{protected, report, role, settings, spi};
use crate::error::{RowsError, TenancyError};
use crate::model::Sql;
use crate::pg::guc::Backend;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::ffi::{CStr, c_int};

const CREATED_AT: &CStr = c"created_at";
const UPDATED_AT: &CStr = c"updated_at";
const CREATED_BY: &CStr = c"created_by";
const UPDATED_BY: &CStr = c"updated_by";
const DELETED_AT: &CStr = c"deleted_at";
const DELETED_BY: &CStr = c"deleted_by";

const MOMENTS: [pg_sys::Oid; 1] = [pg_sys::TIMESTAMPTZOID];
const TEXTS: [pg_sys::Oid; 2] = [pg_sys::TEXTOID, pg_sys::VARCHAROID];

/// A row that goes from one partition to another passes the triggers of an UPDATE, of a DELETE and of an INSERT. This is the last
/// one that a DELETE was about to take from a partition; whether it moved, its remains tell.
static LEAVING: Backend<Option<Leaving>> = Backend::new(None);

#[derive(Clone, Copy)]
struct Leaving {
    /// The run of the statement.
    run: u64,
    relation: pg_sys::Oid,
    place: pg_sys::ItemPointerData,
}

/// A row that is deleted once more, by a statement that becomes an UPDATE on its way.
static SENT_AGAIN: Backend<Option<(pg_sys::Oid, u32, u16)>> = Backend::new(None);

/// What a BEFORE trigger for a row was fired for.
struct Fired {
    event: Event,
    relation: pg_sys::Relation,
    /// The row before, or the only one.
    old: pg_sys::HeapTuple,
    /// The row that an UPDATE makes of it.
    new: pg_sys::HeapTuple,
}

impl Fired {
    /// Refuses a call by anybody but PostgreSQL, and a trigger that is none of ours.
    fn by(call: trigger::Call, events: &[Event]) -> Result<Self, TenancyError> {
        let fired = trigger::expect(call, Level::Row, Timing::Before, events)?;
        let data = fired.data;
        // SAFETY: PostgreSQL passed it, and it is valid while the function runs.
        unsafe {
            Ok(Self {
                event: fired.event,
                relation: (*data).tg_relation,
                old: (*data).tg_trigtuple,
                new: (*data).tg_newtuple,
            })
        }
    }

    fn descriptor(&self) -> pg_sys::TupleDesc {
        // SAFETY: the trigger's relation is open.
        unsafe { (*self.relation).rd_att }
    }

    /// Notes a row that may be on its way to another partition.
    fn note_leaving(&self) {
        // SAFETY: an open relation, and the place of a row that the executor has fetched.
        let (is_partition, relation, place) =
            unsafe { ((*(*self.relation).rd_rel).relispartition, (*self.relation).rd_id, (*self.old).t_self) };
        let leaving = nesting::run_number().filter(|_| is_partition).map(|run| Leaving { run, relation, place });
        LEAVING.set(leaving);
    }

    /// Who made the row that is inserted here because it comes from another partition, and when: what its remains there say.
    fn origin(&self) -> Option<[Option<pg_sys::Datum>; 2]> {
        let leaving = LEAVING.get();
        LEAVING.set(None);
        let leaving = leaving.filter(|leaving| nesting::run_number() == Some(leaving.run))?;
        // SAFETY: the statement has the partition open and locked; what is opened here is closed, and values are copied to the
        // current memory context, which outlives the trigger.
        unsafe {
            let relation = pg_sys::table_open(leaving.relation, pg_sys::NoLock as pg_sys::LOCKMODE);
            let origin = remains(relation, leaving.place);
            pg_sys::table_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
            origin
        }
    }

    /// Sends the DELETE again, which deleted rows are kept from: for a statement that was planned before the library was there. With
    /// the rights and the policies that it has anyway.
    fn send_again(&self, named: pg_sys::Oid) -> Result<(), TenancyError> {
        // SAFETY: the relation is open; the executor has fetched the row.
        let (relation, place) = unsafe { ((*self.relation).rd_id, (*self.old).t_self) };
        let block = u32::from(place.ip_blkid.bi_hi) << 16 | u32::from(place.ip_blkid.bi_lo);
        let row = Some((relation, block, place.ip_posid));
        if SENT_AGAIN.get() == row {
            return Err(RowsError::CannotKeep { table: protected::qualified_name_of(named)? }.into());
        }
        /// Puts the mark back on return and on error alike.
        struct Mark(Option<(pg_sys::Oid, u32, u16)>);
        impl Drop for Mark {
            fn drop(&mut self) {
                SENT_AGAIN.set(self.0);
            }
        }
        let _mark = Mark(SENT_AGAIN.get());
        SENT_AGAIN.set(row);
        let sql = Sql::text("DELETE FROM ")
            .name(&protected::qualified_name_of(named)?)
            .then(" WHERE tableoid OPERATOR(pg_catalog.=) $1 AND ctid OPERATOR(pg_catalog.=) $2");
        spi::run(&sql, &[relation.into(), place.into()])
    }

    /// The number of a column of one of these types: its values are written as they lie in memory.
    fn column(&self, name: &CStr, types: &[pg_sys::Oid], repair: &'static str) -> Result<c_int, TenancyError> {
        // SAFETY: looks through the names of an open relation, and at the type of a column that it has.
        let number = unsafe { pg_sys::SPI_fnumber(self.descriptor(), name.as_ptr()) };
        // SAFETY: as above.
        if number > 0 && types.contains(&unsafe { pg_sys::SPI_gettypeid(self.descriptor(), number) }) {
            return Ok(number);
        }
        // SAFETY: the relation is open; its name is a C string.
        let table = unsafe { CStr::from_ptr((*(*self.relation).rd_rel).relname.data.as_ptr()) };
        let (table, column) = (table.to_string_lossy().into_owned(), name.to_string_lossy().into_owned());
        Err(RowsError::ColumnGone { table, column, repair }.into())
    }

    /// What a column holds in `row`.
    fn value(&self, row: pg_sys::HeapTuple, column: c_int) -> Option<pg_sys::Datum> {
        let mut is_null = false;
        // SAFETY: a row of this relation, and a column of it.
        let value = unsafe { pg_sys::SPI_getbinval(row, self.descriptor(), column, &raw mut is_null) };
        (!is_null).then_some(value)
    }

    /// `row` with other values in some columns.
    fn with(&self, row: pg_sys::HeapTuple, values: &[(c_int, Option<pg_sys::Datum>)]) -> pg_sys::HeapTuple {
        let columns: Vec<c_int> = values.iter().map(|(column, _)| *column).collect();
        let datums: Vec<pg_sys::Datum> =
            values.iter().map(|(_, value)| value.unwrap_or(pg_sys::Datum::null())).collect();
        let nulls: Vec<bool> = values.iter().map(|(_, value)| value.is_none()).collect();
        // SAFETY: three lists of the same length, of columns of this relation and values of their types.
        unsafe {
            pg_sys::heap_modify_tuple_by_cols(
                row,
                self.descriptor(),
                columns.len() as c_int,
                columns.as_ptr().cast_mut(),
                datums.as_ptr().cast_mut(),
                nulls.as_ptr().cast_mut(),
            )
        }
    }
}

/// Who made the row that lay at a place of a partition and when, where it has gone to another one.
///
/// # Safety
/// `relation` is open and locked.
unsafe fn remains(
    relation: pg_sys::Relation,
    mut place: pg_sys::ItemPointerData,
) -> Option<[Option<pg_sys::Datum>; 2]> {
    // SAFETY: the caller vouches for the relation; a row that this transaction deleted stays where it was. Its slot holds it until it
    // is dropped.
    unsafe {
        let slot = pg_sys::table_slot_create(relation, std::ptr::null_mut());
        let fetch = (*(*relation).rd_tableam).tuple_fetch_row_version;
        let is_found =
            fetch.is_some_and(|fetch| fetch(relation, &raw mut place, &raw mut pg_sys::SnapshotAnyData, slot));
        let origin = if is_found { moved(relation, slot) } else { None };
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        origin
    }
}

/// # Safety
/// `slot` holds a row of `relation`, which is open.
unsafe fn moved(relation: pg_sys::Relation, slot: *mut pg_sys::TupleTableSlot) -> Option<[Option<pg_sys::Datum>; 2]> {
    // SAFETY: the caller vouches for both; the row is copied, with what its values point to, to the current memory context.
    unsafe {
        let row = pg_sys::ExecCopySlotHeapTuple(slot);
        let next = (*(*row).t_data).t_ctid;
        // As HeapTupleHeaderIndicatesMovedPartitions tells it.
        let is_moved = u32::from(next.ip_posid) == pg_sys::MovedPartitionsOffsetNumber
            && (next.ip_blkid.bi_hi, next.ip_blkid.bi_lo) == (u16::MAX, u16::MAX);
        let value = |name: &CStr, types: &[pg_sys::Oid]| {
            let number = pg_sys::SPI_fnumber((*relation).rd_att, name.as_ptr());
            let is_column = number > 0 && types.contains(&pg_sys::SPI_gettypeid((*relation).rd_att, number));
            let mut is_null = true;
            let value = is_column.then(|| pg_sys::SPI_getbinval(row, (*relation).rd_att, number, &raw mut is_null));
            value.filter(|_| !is_null)
        };
        is_moved.then(|| [value(CREATED_AT, &MOMENTS), value(CREATED_BY, &TEXTS)])
    }
}

/// The time of a stamp: that of the transaction, as `now()`.
fn now() -> Option<pg_sys::Datum> {
    // SAFETY: a variable of the backend.
    Some(pg_sys::Datum::from(unsafe { pg_sys::GetCurrentTransactionStartTimestamp() }))
}

/// Whom the application works for, else the role that has logged in; a `text` in the current memory context.
fn actor() -> Option<pg_sys::Datum> {
    let user = settings::current_user_id();
    // SAFETY: C strings in the database's encoding; the role of a session exists, or gives NULL.
    unsafe {
        let is_given = !user.is_null() && *user != 0;
        let name =
            if is_given { user } else { pg_sys::GetUserNameFromId(pg_sys::GetSessionUserId(), true).cast_const() };
        (!name.is_null()).then(|| pg_sys::Datum::from(pg_sys::cstring_to_text(name)))
    }
}

fn stamp(call: trigger::Call) -> Result<pg_sys::HeapTuple, TenancyError> {
    let fired = Fired::by(call, &[Event::Insert, Event::Update, Event::Delete])?;
    let column = |name, types: &[pg_sys::Oid]| fired.column(name, types, "tenancy.enable_stamps");
    match fired.event {
        Event::Delete => {
            fired.note_leaving();
            Ok(fired.old)
        }
        Event::Insert => {
            let (now, actor) = (now(), actor());
            let [created_at, created_by] = fired.origin().unwrap_or([now, actor]);
            let values = [
                (column(CREATED_AT, &MOMENTS)?, created_at),
                (column(UPDATED_AT, &MOMENTS)?, now),
                (column(CREATED_BY, &TEXTS)?, created_by),
                (column(UPDATED_BY, &TEXTS)?, actor),
            ];
            Ok(fired.with(fired.old, &values))
        }
        _ => {
            let (created_at, created_by) = (column(CREATED_AT, &MOMENTS)?, column(CREATED_BY, &TEXTS)?);
            let values = [
                (created_at, fired.value(fired.old, created_at)),
                (column(UPDATED_AT, &MOMENTS)?, now()),
                (created_by, fired.value(fired.old, created_by)),
                (column(UPDATED_BY, &TEXTS)?, actor()),
            ];
            Ok(fired.with(fired.new, &values))
        }
    }
}

/// Keeps a row that an application deletes, and writes who deleted it and when.
fn keep(call: trigger::Call) -> Result<pg_sys::HeapTuple, TenancyError> {
    let fired = Fired::by(call, &[Event::Update, Event::Delete])?;
    // SAFETY: the trigger's relation is open.
    let relation = unsafe { (*fired.relation).rd_id };
    if fired.event == Event::Delete {
        if nesting::is_in_own_query() || !role::is_bound(relation) {
            return Ok(fired.old);
        }
        return match nesting::intent(relation) {
            // It goes to another partition.
            Some(Intent { deletes_from: None, .. }) => Ok(fired.old),
            Some(Intent { deletes_from: Some(named), updates: false }) => {
                fired.send_again(named)?;
                Ok(std::ptr::null_mut())
            }
            _ => Err(RowsError::CannotKeep { table: protected::qualified_name_of(relation)? }.into()),
        };
    }
    let column = |name, types: &[pg_sys::Oid]| fired.column(name, types, "tenancy.enable_soft_delete");
    let (deleted_at, deleted_by) = (column(DELETED_AT, &MOMENTS)?, column(DELETED_BY, &TEXTS)?);
    let before = fired.value(fired.old, deleted_at);
    let values = match (before, fired.value(fired.new, deleted_at)) {
        (None, Some(_)) => [(deleted_at, now()), (deleted_by, actor())],
        (Some(_), Some(_)) => [(deleted_at, before), (deleted_by, fired.value(fired.old, deleted_by))],
        (_, None) if fired.value(fired.new, deleted_by).is_some() => [(deleted_at, None), (deleted_by, None)],
        (_, None) => return Ok(fired.new),
    };
    Ok(fired.with(fired.new, &values))
}

/// A trigger function, with the record fmgr looks for.
macro_rules! row_trigger {
    ($name:ident, $info:ident, $work:ident) => {
        #[unsafe(no_mangle)]
        #[doc(hidden)]
        pub extern "C" fn $info() -> &'static pg_sys::Pg_finfo_record {
            const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
            &V1
        }

        #[unsafe(no_mangle)]
        #[doc(hidden)]
        #[pg_guard]
        pub unsafe extern "C-unwind" fn $name(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
            match $work(call) {
                Ok(row) => pg_sys::Datum::from(row),
                Err(refusal) => report::raise(refusal),
            }
        }
    };
}

row_trigger!(tenancy_stamp_row, pg_finfo_tenancy_stamp_row, stamp);
row_trigger!(tenancy_keep_row, pg_finfo_tenancy_keep_row, keep);
