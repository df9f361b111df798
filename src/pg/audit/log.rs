//! Writes rows of the log into the partition of the present month, without SQL.
//!
//! The partitions are remembered until the relation cache hears of a change. One that is being made takes the lock that
//! writing takes, so whoever has it asks again whether the partition is still the right one.

use super::append::{self, Indexes};
use super::image::Run;
use super::layout::{Layout, relations};
use super::origin::Origin;
use crate::error::TenancyError;
use crate::pg::compat;
use crate::pg::guc::Backend;
use crate::pg::protected::OidHasher;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::rc::Rc;
use uuid::Uuid;

/// Bytes of images that a row of the log has room for on its page, and texts of its origin with them.
pub const PAGE: usize = 7_960;
const COLUMNS: usize = 22;

/// A row of the log, but for who did it and when.
#[derive(Default)]
pub struct Chunk<'a> {
    pub action: u8,
    pub layout: Option<i32>,
    pub tenant: Option<Uuid>,
    pub rows: i16,
    pub key_hash: Option<i64>,
    pub images: Option<&'a [u8]>,
    pub event: Option<Event>,
}

/// An application's event: values of the types of the columns.
pub struct Event {
    pub name: pg_sys::Datum,
    pub entity: Option<pg_sys::Datum>,
    pub entity_id: Option<pg_sys::Datum>,
    pub details: Option<pg_sys::Datum>,
}

impl<'a> Chunk<'a> {
    /// What was done to rows.
    pub fn of_rows(layout: &Layout, run: Run<'a>) -> Self {
        Self {
            action: run.action.letter(),
            layout: Some(layout.id),
            tenant: run.tenant,
            rows: run.rows as i16,
            key_hash: run.key_hash,
            images: Some(run.images),
            event: None,
        }
    }

    /// That a table was emptied.
    pub fn truncation(layout: &Layout) -> Self {
        Self { action: b'T', layout: Some(layout.id), rows: 1, ..Self::default() }
    }
}

/// Where the log is.
struct Places {
    table: pg_sys::Oid,
    ids: pg_sys::Oid,
    partitions: Vec<Partition>,
    default: pg_sys::Oid,
    /// Of those partitions that were written to.
    indexes: HashMap<u32, Rc<Indexes>, BuildHasherDefault<OidHasher>>,
}

/// A partition for a span of time.
struct Partition {
    oid: pg_sys::Oid,
    from: pg_sys::TimestampTz,
    to: pg_sys::TimestampTz,
}

thread_local! {
    static PLACES: RefCell<Option<Places>> = RefCell::default();
    /// Counts what was forgotten.
    static CHANGES: Cell<u64> = const { Cell::new(0) };
}

/// Watches for changes of the log's partitions; called once, from `_PG_init`.
pub fn watch() {
    // SAFETY: the callback is guarded, touches only this backend's memory and raises nothing.
    unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(forget), pg_sys::Datum::from(0)) };
}

#[pg_guard]
unsafe extern "C-unwind" fn forget(_argument: pg_sys::Datum, relation: pg_sys::Oid) {
    PLACES.with_borrow_mut(|places| {
        let concerns = |places: &Places| {
            relation == pg_sys::InvalidOid
                || relation == places.table
                || relation == places.default
                || places.partitions.iter().any(|partition| partition.oid == relation)
        };
        if places.as_ref().is_some_and(concerns) {
            *places = None;
            CHANGES.set(CHANGES.get() + 1);
        }
    });
}

unsafe extern "C-unwind" {
    fn MemoryContextReset(context: pg_sys::MemoryContext);
    fn ActiveSnapshotSet() -> bool;
    fn GetActiveSnapshot() -> pg_sys::Snapshot;
    fn GetCurrentCommandId(used: bool) -> pg_sys::CommandId;
    fn GetTopFullTransactionId() -> pg_sys::FullTransactionId;
    fn GetCurrentTimestamp() -> pg_sys::TimestampTz;
    fn GetCurrentStatementStartTimestamp() -> pg_sys::TimestampTz;
}

/// When something happened, and in which statement of which transaction.
struct Moment {
    now: pg_sys::TimestampTz,
    statement_at: pg_sys::TimestampTz,
    transaction: u64,
    command: pg_sys::CommandId,
}

/// Writes one row of the log, and gives its id. What that takes of memory is given back at once: a statement can write
/// very many.
pub fn write(chunk: &Chunk<'_>, origin: &Origin) -> Result<i64, TenancyError> {
    let scratch = scratch();
    // SAFETY: the context lives as long as the backend; what an error left in it goes now. The clock, and this backend's
    // transaction and snapshot; below the guard nothing is owned.
    unsafe {
        let moment = pg_sys::submodules::ffi::pg_guard_ffi_boundary(|| {
            MemoryContextReset(scratch);
            let command = if ActiveSnapshotSet() {
                // When the statement began: what its triggers did lies after it, though they are done before it is.
                (*GetActiveSnapshot()).curcid
            } else {
                GetCurrentCommandId(false)
            };
            let transaction = GetTopFullTransactionId().value;
            let (now, statement_at) = (GetCurrentTimestamp(), GetCurrentStatementStartTimestamp());
            Moment { now, statement_at, transaction, command }
        });
        let before = pg_sys::MemoryContextSwitchTo(scratch);
        let written = write_in_scratch(chunk, origin, &moment);
        pg_sys::MemoryContextSwitchTo(before);
        written
    }
}

/// Memory for writing one row, so large that a page of images fits in the part that it keeps.
fn scratch() -> pg_sys::MemoryContext {
    static SCRATCH: Backend<pg_sys::MemoryContext> = Backend::new(std::ptr::null_mut());
    if SCRATCH.get().is_null() {
        // SAFETY: a context below the one that lives as long as the backend.
        SCRATCH.set(unsafe {
            let parent = pg_sys::CacheMemoryContext;
            pg_sys::AllocSetContextCreateInternal(parent, c"pg_tenancy audit log".as_ptr(), 0, 1 << 16, 1 << 20)
        });
    }
    SCRATCH.get()
}

/// The sequence gives so many ids at a time.
const BLOCK: i64 = 32;
/// The sequence that this backend has taken ids from, the next one, and how many are left.
static IDS: Backend<(pg_sys::Oid, i64, i64)> = Backend::new((pg_sys::InvalidOid, 0, 0));

/// The next id. Ids of one session rise; those of two do not tell who was first.
fn next_id(sequence: pg_sys::Oid) -> i64 {
    let (next, left) = match IDS.get() {
        (from, next, left) if from == sequence && left > 0 => (next, left),
        _ => (crate::pg::table::next_value(sequence), BLOCK),
    };
    IDS.set((sequence, next + 1, left - 1));
    next
}

fn write_in_scratch(chunk: &Chunk<'_>, origin: &Origin, moment: &Moment) -> Result<i64, TenancyError> {
    let (ids, partition, indexes) = locked(moment.now)?;
    let event = chunk.event.as_ref();
    let id = next_id(ids);
    let tenant = chunk.tenant;
    let columns: [Option<pg_sys::Datum>; COLUMNS] = [
        id.into_datum(),
        moment.now.into_datum(),
        moment.statement_at.into_datum(),
        (moment.transaction as i64).into_datum(),
        chunk.key_hash.into_datum(),
        tenant.as_ref().map(|tenant| pg_sys::Datum::from(tenant.as_bytes().as_ptr())),
        chunk.layout.into_datum(),
        (moment.command as i32).into_datum(),
        chunk.rows.into_datum(),
        Some(pg_sys::Datum::from(chunk.action)),
        event.and_then(|event| event.entity),
        event.and_then(|event| event.entity_id),
        event.map(|event| event.name),
        origin.actor,
        origin.session_role,
        origin.current_role,
        origin.client,
        origin.user_agent,
        origin.application_name,
        origin.query,
        chunk.images.into_datum(),
        event.and_then(|event| event.details),
    ];
    let mut nulls = columns.map(|value| value.is_none());
    let mut values = columns.map(|value| value.unwrap_or(pg_sys::Datum::null()));
    // SAFETY: the columns of the log, in their order; the partitions have no others. The lock was taken above.
    unsafe { append::append(partition, &indexes, &mut values, &mut nulls) };
    Ok(id)
}

/// The sequence of ids, and the partition for this moment with its indexes, locked for writing.
fn locked(now: pg_sys::TimestampTz) -> Result<(pg_sys::Oid, pg_sys::Oid, Rc<Indexes>), TenancyError> {
    const LOCK: i32 = pg_sys::RowExclusiveLock as i32;
    loop {
        let changes = CHANGES.get();
        let found = PLACES.with_borrow(|places| places.as_ref().map(|places| (places.ids, places.at(now))));
        let Some((ids, (partition, indexes))) = found else {
            let places = find()?;
            PLACES.set(Some(places));
            continue;
        };
        let Some(indexes) = indexes else {
            let indexes = Rc::new(append::indexes(partition));
            PLACES.with_borrow_mut(|places| {
                if let Some(places) = places.as_mut().filter(|_| changes == CHANGES.get()) {
                    places.indexes.insert(partition.to_u32(), indexes);
                }
            });
            continue;
        };
        // SAFETY: taking the lock brings the news of what was changed under it.
        unsafe {
            pg_sys::LockRelationOid(partition, LOCK);
            if changes == CHANGES.get() {
                return Ok((ids, partition, indexes));
            }
            pg_sys::UnlockRelationOid(partition, LOCK);
        }
    }
}

impl Places {
    /// The partition for a moment, with its indexes if they are known.
    fn at(&self, moment: pg_sys::TimestampTz) -> (pg_sys::Oid, Option<Rc<Indexes>>) {
        let holds = |partition: &&Partition| (partition.from..partition.to).contains(&moment);
        let oid = self.partitions.iter().find(holds).map_or(self.default, |partition| partition.oid);
        (oid, self.indexes.get(&oid.to_u32()).cloned())
    }
}

/// Whether a relation is one of the partitions of the log.
pub fn is_partition(relation: pg_sys::Oid) -> Result<bool, TenancyError> {
    let is_known = |places: &Places| {
        relation == places.default || places.partitions.iter().any(|partition| partition.oid == relation)
    };
    if PLACES.with_borrow(|places| places.as_ref().is_some_and(is_known)) {
        return Ok(true);
    }
    // It may be newer than what is remembered.
    let places = find()?;
    let is_partition = is_known(&places);
    PLACES.set(Some(places));
    Ok(is_partition)
}

fn find() -> Result<Places, TenancyError> {
    let [table, ids] = relations([c"audit_chunks", c"audit_chunk_ids"])?;
    let mut places =
        Places { table, ids, partitions: Vec::new(), default: pg_sys::InvalidOid, indexes: HashMap::default() };
    // SAFETY: the relation is open and locked while its partitions are copied; a range of one timestamp has one bound per
    // datum, and the partition before each bound stands at its place.
    unsafe {
        let relation = pg_sys::table_open(table, pg_sys::AccessShareLock as i32);
        let partitions = compat::partitions_of(relation);
        let bounds = (*partitions).boundinfo;
        if !bounds.is_null() {
            let oid = |at: i32| usize::try_from(at).map_or(pg_sys::InvalidOid, |at| *(*partitions).oids.add(at));
            places.default = oid((*bounds).default_index);
            for upper in 0..=(*bounds).ndatums {
                let partition = oid(*(*bounds).indexes.add(upper as usize));
                if partition != pg_sys::InvalidOid {
                    let (from, to) = (bound(bounds, upper - 1), bound(bounds, upper));
                    places.partitions.push(Partition { oid: partition, from, to });
                }
            }
        }
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
    }
    if places.default == pg_sys::InvalidOid {
        return Err(TenancyError::NotInstalled);
    }
    Ok(places)
}

/// # Safety
/// `bounds` are those of ranges of one timestamp.
unsafe fn bound(bounds: pg_sys::PartitionBoundInfo, at: i32) -> pg_sys::TimestampTz {
    // SAFETY: the caller's.
    unsafe {
        if at < 0 {
            return i64::MIN;
        }
        if at >= (*bounds).ndatums {
            return i64::MAX;
        }
        match **(*bounds).kind.add(at as usize) {
            pg_sys::PartitionRangeDatumKind::PARTITION_RANGE_DATUM_MINVALUE => i64::MIN,
            pg_sys::PartitionRangeDatumKind::PARTITION_RANGE_DATUM_MAXVALUE => i64::MAX,
            _ => (**(*bounds).datums.add(at as usize)).value() as i64,
        }
    }
}
