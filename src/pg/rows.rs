//! Triggers for each row, which write what the application must not: who made a row and when, who deleted it and when.
//!
//! They are raw functions, for a BEFORE trigger gives the row back.

use super::trigger::{self, Event, Level, Timing};
use super::{compat, report, role, settings, spi};
use crate::error::{RowsError, TenancyError};
use crate::model::context::Stamp;
use crate::model::{Ident, QualifiedName, Sql};
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

/// A row that goes from one partition to another passes the triggers of an UPDATE, of a DELETE and of an INSERT. The last
/// two must not take it for deleted and made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Passage {
    None,
    /// This row is being updated.
    Update(Row),
    /// And deleted where it was: it is on its way.
    Delete(Row),
}

/// A row of a partition, within the client's statement at hand. Not within the command: triggers beside ours may run others.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Row {
    statement: Statement,
    relation: pg_sys::Oid,
    block: (u16, u16),
    place: u16,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Statement {
    transaction: Stamp,
    subtransaction: pg_sys::SubTransactionId,
    started_at: pg_sys::TimestampTz,
}

impl Statement {
    fn at_hand() -> Self {
        // SAFETY: variables of the backend.
        unsafe {
            Self {
                transaction: compat::local_transaction_id(pg_sys::MyProc),
                subtransaction: pg_sys::GetCurrentSubTransactionId(),
                started_at: pg_sys::GetCurrentStatementStartTimestamp(),
            }
        }
    }
}

static PASSAGE: Backend<Passage> = Backend::new(Passage::None);

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

    /// The row as it was found; None where there is no other partition that it could go to.
    fn row(&self) -> Option<Row> {
        // SAFETY: an open relation, and the place of a row that the executor has fetched.
        unsafe {
            let place = (*self.old).t_self;
            (*(*self.relation).rd_rel).relispartition.then(|| Row {
                statement: Statement::at_hand(),
                relation: (*self.relation).rd_id,
                block: (place.ip_blkid.bi_hi, place.ip_blkid.bi_lo),
                place: place.ip_posid,
            })
        }
    }

    fn note_update(&self) {
        PASSAGE.set(self.row().map_or(Passage::None, Passage::Update));
    }

    /// Whether the row is deleted here because it goes to another partition.
    fn is_leaving(&self) -> bool {
        let leaving = self
            .row()
            .filter(|row| matches!(PASSAGE.get(), Passage::Update(known) | Passage::Delete(known) if known == *row));
        PASSAGE.set(leaving.map_or(Passage::None, Passage::Delete));
        leaving.is_some()
    }

    /// Whether the row is inserted here because it comes from another partition.
    fn is_arriving() -> bool {
        let is_arriving = matches!(PASSAGE.get(), Passage::Delete(row) if row.statement == Statement::at_hand());
        PASSAGE.set(Passage::None);
        is_arriving
    }

    /// Marks the row as deleted, with the rights of the table's owner: the role at work need not have UPDATE.
    fn hide(&self) -> Result<(), TenancyError> {
        // SAFETY: the relation is open, its names are C strings; the executor has fetched the row.
        let (relation, schema, name, place) = unsafe {
            let class = (*self.relation).rd_rel;
            let schema = pg_sys::get_namespace_name((*class).relnamespace);
            (
                (*self.relation).rd_id,
                CStr::from_ptr(schema),
                CStr::from_ptr((*class).relname.data.as_ptr()),
                (*self.old).t_self,
            )
        };
        let ident = |name: &CStr| Ident::new(&name.to_string_lossy());
        let sql = Sql::text("UPDATE ONLY ")
            .name(&QualifiedName { schema: ident(schema)?, name: ident(name)? })
            .then(" SET deleted_at = pg_catalog.now() WHERE ctid OPERATOR(pg_catalog.=) $1");
        spi::as_owner_of_rows(relation, || spi::run(&sql, &[place.into()]))
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
            fired.is_leaving();
            Ok(fired.old)
        }
        // Stamped where it comes from.
        Event::Insert if Fired::is_arriving() => Ok(fired.old),
        Event::Insert => {
            let (now, actor) = (now(), actor());
            let values = [
                (column(CREATED_AT, &MOMENTS)?, now),
                (column(UPDATED_AT, &MOMENTS)?, now),
                (column(CREATED_BY, &TEXTS)?, actor),
                (column(UPDATED_BY, &TEXTS)?, actor),
            ];
            Ok(fired.with(fired.old, &values))
        }
        _ => {
            fired.note_update();
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
        if fired.is_leaving() || !role::is_bound(relation) {
            return Ok(fired.old);
        }
        fired.hide()?;
        return Ok(std::ptr::null_mut());
    }
    fired.note_update();
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
