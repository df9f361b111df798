//! Rows made bytes (model::audit says how), one run for each tenant they belong to.
//!
//! The loop calls PostgreSQL without the bindings' guards, which would cost more than the work: one guard stands around
//! the loop, and the frames inside own nothing, so that an error may jump over them. Memory is PostgreSQL's, of the
//! context that a trigger is called in, and goes with it.

use super::layout::{Column, Form, Layout};
use crate::error::TenancyError;
use crate::model::audit::{Images, LENGTH_BYTES, bitmap_bytes, write_length};
use crate::model::tenant::MAX_CODE_BYTES;
use crate::model::{Code, Key, KeyKind};
use crate::pg::cache;
use pgrx::pg_sys;
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use uuid::Uuid;

/// What a row of the log can say of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Insert,
    Update,
    Delete,
}

impl Action {
    /// `action` in the log.
    pub fn letter(self) -> u8 {
        match self {
            Self::Insert => b'I',
            Self::Update => b'U',
            Self::Delete => b'D',
        }
    }
}

/// Most rows of one row of the log; the id of an entry has room for them.
pub const MOST_ROWS: usize = 9_999;
/// Runs that are written at once.
const MOST_BUCKETS: usize = 32;
/// Columns that a table can have (MaxHeapAttributeNumber).
const MOST_COLUMNS: usize = 1600;

unsafe extern "C-unwind" {
    fn tuplestore_gettupleslot(
        store: *mut pg_sys::Tuplestorestate,
        forward: bool,
        copy: bool,
        slot: *mut pg_sys::TupleTableSlot,
    ) -> bool;
    fn tuplestore_alloc_read_pointer(store: *mut pg_sys::Tuplestorestate, flags: c_int) -> c_int;
    fn tuplestore_select_read_pointer(store: *mut pg_sys::Tuplestorestate, pointer: c_int);
    fn tuplestore_rescan(store: *mut pg_sys::Tuplestorestate);
    fn ExecDropSingleTupleTableSlot(slot: *mut pg_sys::TupleTableSlot);
    fn MakeSingleTupleTableSlot(
        descriptor: pg_sys::TupleDesc,
        kind: *const pg_sys::TupleTableSlotOps,
    ) -> *mut pg_sys::TupleTableSlot;
    fn slot_getsomeattrs_int(slot: *mut pg_sys::TupleTableSlot, width: c_int);
    fn detoast_attr(value: *mut pg_sys::varlena) -> *mut pg_sys::varlena;
    fn palloc(bytes: usize) -> *mut c_void;
    fn repalloc_huge(memory: *mut c_void, bytes: usize) -> *mut c_void;
    fn pfree(memory: *mut c_void);
    fn MemoryContextReset(context: pg_sys::MemoryContext);
    fn FunctionCall1Coll(
        function: *mut pg_sys::FmgrInfo,
        collation: pg_sys::Oid,
        argument: pg_sys::Datum,
    ) -> pg_sys::Datum;
    fn FunctionCall2Coll(
        function: *mut pg_sys::FmgrInfo,
        collation: pg_sys::Oid,
        first: pg_sys::Datum,
        second: pg_sys::Datum,
    ) -> pg_sys::Datum;
}

/// The rows of a trigger call.
pub struct Rows {
    old: Source,
    new: Source,
    /// Old and new rows stand side by side; else one was changed into nothing.
    is_paired: bool,
    /// Which rows are at hand: read, or given by a row trigger, and not yet written.
    has_old: bool,
    has_new: bool,
}

/// One side of the rows.
#[derive(Clone, Copy)]
struct Source {
    /// NULL for the slot of a row trigger, and where there is no such side.
    store: *mut pg_sys::Tuplestorestate,
    slot: *mut pg_sys::TupleTableSlot,
}

/// Why writing stopped.
pub enum Stop {
    End,
    /// This bucket is full.
    Full(usize),
    /// There is no bucket for the rows of this tenant.
    Stranger(BucketKey),
}

impl Source {
    const NONE: Self = Self { store: std::ptr::null_mut(), slot: std::ptr::null_mut() };

    /// # Safety
    /// `store` is NULL or a transition table of `relation`.
    unsafe fn of_table(store: *mut pg_sys::Tuplestorestate, relation: pg_sys::Relation) -> Self {
        if store.is_null() {
            return Self::NONE;
        }
        // SAFETY: a read pointer of our own leaves those of others where they are. Below the guard nothing is owned.
        let slot = unsafe {
            pg_sys::submodules::ffi::pg_guard_ffi_boundary(|| {
                let pointer = tuplestore_alloc_read_pointer(store, pg_sys::EXEC_FLAG_REWIND as c_int);
                tuplestore_select_read_pointer(store, pointer);
                tuplestore_rescan(store);
                MakeSingleTupleTableSlot((*relation).rd_att, &raw const pg_sys::TTSOpsMinimalTuple)
            })
        };
        Self { store, slot }
    }

    fn is_there(&self) -> bool {
        !self.slot.is_null()
    }

    /// Fetches the next row and takes it apart; false at the end, and where there is no such side.
    ///
    /// # Safety
    /// Below a guard; the source is one of a store, or there is none.
    #[inline(always)]
    unsafe fn fetch(&self, width: c_int) -> bool {
        // SAFETY: the caller's. Nobody else reads the store meanwhile, so our pointer stays selected.
        unsafe {
            if self.store.is_null() || !tuplestore_gettupleslot(self.store, true, false, self.slot) {
                return false;
            }
            if c_int::from((*self.slot).tts_nvalid) < width {
                slot_getsomeattrs_int(self.slot, width);
            }
            true
        }
    }

    /// Gives back what reading took.
    ///
    /// # Safety
    /// Below a guard; nothing is read afterwards.
    unsafe fn close(&mut self) {
        if !self.store.is_null() {
            // SAFETY: made above, and forgotten below.
            unsafe { ExecDropSingleTupleTableSlot(self.slot) };
            *self = Self::NONE;
        }
    }
}

impl Rows {
    /// # Safety
    /// PostgreSQL passed `data` to an AFTER trigger for INSERT, UPDATE or DELETE, which has the transition tables of its event.
    pub unsafe fn of_trigger(data: *const pg_sys::TriggerData, width: c_int) -> Self {
        // SAFETY: the caller vouches for the data.
        unsafe {
            let event = (*data).tg_event;
            let operation = event & pg_sys::TRIGGER_EVENT_OPMASK;
            if event & pg_sys::TRIGGER_EVENT_ROW != 0 {
                let source = |slot| {
                    pg_sys::slot_getsomeattrs_int(slot, width);
                    Source { slot, ..Source::NONE }
                };
                let (old, new) = match operation {
                    pg_sys::TRIGGER_EVENT_INSERT => (Source::NONE, source((*data).tg_trigslot)),
                    pg_sys::TRIGGER_EVENT_DELETE => (source((*data).tg_trigslot), Source::NONE),
                    _ => (source((*data).tg_trigslot), source((*data).tg_newslot)),
                };
                return Self { old, new, is_paired: true, has_old: old.is_there(), has_new: new.is_there() };
            }
            let (olds, news) = ((*data).tg_oldtable, (*data).tg_newtable);
            let is_paired = olds.is_null()
                || news.is_null()
                || pg_sys::tuplestore_tuple_count(olds) == pg_sys::tuplestore_tuple_count(news);
            let relation = (*data).tg_relation;
            let (old, new) = (Source::of_table(olds, relation), Source::of_table(news, relation));
            Self { old, new, is_paired, has_old: false, has_new: false }
        }
    }
}

/// Bytes in PostgreSQL's memory.
#[derive(Clone, Copy)]
struct Bytes {
    start: *mut u8,
    length: usize,
    room: usize,
}

impl Bytes {
    const NONE: Self = Self { start: std::ptr::null_mut(), length: 0, room: 0 };

    /// Sees to it that `more` bytes can be written.
    ///
    /// # Safety
    /// Below the loop's guard.
    #[inline(always)]
    unsafe fn reserve(&mut self, more: usize) {
        if self.room - self.length < more {
            // SAFETY: the caller's.
            unsafe { self.grow(more) };
        }
    }

    #[cold]
    unsafe fn grow(&mut self, more: usize) {
        let room = (self.length + more).max(2 * self.room).max(1024);
        // SAFETY: the memory is ours; what goes beyond PostgreSQL's limits raises.
        unsafe {
            self.start =
                if self.start.is_null() { palloc(room) } else { repalloc_huge(self.start.cast(), room) }.cast();
        }
        self.room = room;
    }

    /// # Safety
    /// `count` bytes are reserved, and `from` has as many.
    #[inline(always)]
    unsafe fn put(&mut self, from: *const u8, count: usize) {
        // SAFETY: the caller's.
        unsafe { std::ptr::copy_nonoverlapping(from, self.start.add(self.length), count) };
        self.length += count;
    }

    /// Reserves and clears a bitmap; gives where it begins.
    ///
    /// # Safety
    /// Below the loop's guard.
    #[inline(always)]
    unsafe fn bitmap(&mut self, bytes: usize) -> usize {
        // SAFETY: reserved before it is written.
        unsafe {
            self.reserve(bytes);
            std::ptr::write_bytes(self.start.add(self.length), 0, bytes);
        }
        self.length += bytes;
        self.length - bytes
    }

    /// # Safety
    /// The bit lies in a bitmap that begins at `bitmap`.
    #[inline(always)]
    unsafe fn set(&mut self, bitmap: usize, bit: usize) {
        // SAFETY: the caller's.
        unsafe { *self.start.add(bitmap + bit / 8) |= 1 << (bit % 8) };
    }
}

/// The tenant of a row as the row has it, and what became of the row.
#[derive(Clone, Copy)]
pub struct BucketKey {
    action: Action,
    /// Bytes of the tenant's key; one more than it can have for NULL.
    length: usize,
    bytes: [u8; MAX_CODE_BYTES],
}

impl BucketKey {
    const NOBODY: usize = MAX_CODE_BYTES + 1;

    #[inline(always)]
    fn put(&mut self, bytes: &[u8]) {
        // What is longer than any key names no tenant.
        self.length = bytes.len().min(MAX_CODE_BYTES);
        self.bytes[..self.length].copy_from_slice(&bytes[..self.length]);
    }

    #[inline(always)]
    fn is(&self, other: &Self) -> bool {
        self.action == other.action
            && self.length == other.length
            && (self.length == Self::NOBODY || self.bytes[..self.length] == other.bytes[..self.length])
    }

    /// The tenant that the row belongs to, where no look at the registry is needed to tell; inside, None for nobody's.
    #[inline(always)]
    fn plain_tenant(&self, layout: &Layout) -> Option<Option<Uuid>> {
        match layout.tenant {
            Some(column) if self.length != Self::NOBODY && column.kind != KeyKind::Id => None,
            Some(_) if self.length != Self::NOBODY => Some(Uuid::from_slice(&self.bytes[..self.length]).ok()),
            _ => Some(None),
        }
    }

    /// The tenant that the row belongs to; None for nobody's.
    pub fn tenant(&self, layout: &Layout) -> Result<Option<Uuid>, TenancyError> {
        if let Some(tenant) = self.plain_tenant(layout) {
            return Ok(tenant);
        }
        let bytes = &self.bytes[..self.length];
        let key = match layout.tenant.map(|column| column.kind) {
            None | Some(KeyKind::Id) => None,
            Some(KeyKind::Number) => Some(Key::Number(bytes.try_into().map_or(0, i64::from_le_bytes))),
            Some(KeyKind::Code) => std::str::from_utf8(bytes).ok().and_then(|code| Code::new(code).ok()).map(Key::Code),
        };
        match key {
            Some(key) => Ok(cache::find(&key)?.map(|tenant| tenant.id)),
            None => Ok(None),
        }
    }
}

/// Rows of one tenant to which the same was done.
#[derive(Clone, Copy)]
struct Bucket {
    key: BucketKey,
    tenant: Option<Uuid>,
    bytes: Bytes,
    rows: usize,
    /// Bytes before the last row.
    before_last: usize,
    key_hash: Option<i64>,
}

/// A run of rows to be written.
pub struct Run<'a> {
    pub action: Action,
    pub tenant: Option<Uuid>,
    pub rows: usize,
    pub key_hash: Option<i64>,
    pub images: &'a [u8],
}

/// The runs that are being written. They are in PostgreSQL's memory, so that the loop owns nothing; the first one, which
/// mostly stays alone, is here.
pub struct Buckets {
    first: MaybeUninit<Bucket>,
    /// NULL until there is a second one.
    others: *mut Bucket,
    count: usize,
    last: usize,
    /// Bytes that make a bucket full.
    limit: usize,
    next_victim: usize,
    /// Memory of one row; NULL where no value has to be converted.
    scratch: pg_sys::MemoryContext,
}

impl Buckets {
    pub fn new(layout: &Layout, limit: usize) -> Self {
        let converts = layout.columns.iter().any(|column| !column.convert.is_null());
        // SAFETY: the memory goes with that of the trigger call.
        unsafe {
            let scratch = if converts {
                let parent = pg_sys::CurrentMemoryContext;
                pg_sys::AllocSetContextCreateInternal(parent, c"pg_tenancy audit".as_ptr(), 0, 8192, 1 << 20)
            } else {
                std::ptr::null_mut()
            };
            let (first, others) = (MaybeUninit::uninit(), std::ptr::null_mut());
            Self { first, others, count: 0, last: 0, limit, next_victim: 0, scratch }
        }
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self, bucket: usize) -> bool {
        self.at(bucket).rows == 0
    }

    #[inline(always)]
    fn at(&self, bucket: usize) -> &Bucket {
        assert!(bucket < self.count);
        // SAFETY: so many have been opened.
        unsafe { if bucket == 0 { self.first.assume_init_ref() } else { &*self.others.add(bucket - 1) } }
    }

    #[inline(always)]
    fn at_mut(&mut self, bucket: usize) -> &mut Bucket {
        assert!(bucket < self.count);
        // SAFETY: as above.
        unsafe { if bucket == 0 { self.first.assume_init_mut() } else { &mut *self.others.add(bucket - 1) } }
    }

    /// The bucket for such rows.
    #[inline(always)]
    fn find(&mut self, key: &BucketKey) -> Option<usize> {
        let is = |bucket: usize| self.at(bucket).key.is(key);
        if self.last < self.count && is(self.last) {
            return Some(self.last);
        }
        self.last = (0..self.count).find(|bucket| is(*bucket))?;
        Some(self.last)
    }

    /// Begins a run.
    pub fn open(&mut self, key: BucketKey, tenant: Option<Uuid>) {
        let mut new = Bucket { key, tenant, bytes: Bytes::NONE, rows: 0, before_last: 0, key_hash: None };
        if self.count < MOST_BUCKETS {
            self.last = self.count;
            self.count += 1;
        } else {
            new.bytes = Bytes { length: 0, ..self.at(self.next_victim).bytes };
            self.last = self.next_victim;
            self.next_victim = (self.next_victim + 1) % MOST_BUCKETS;
        }
        if self.last == 0 {
            self.first.write(new);
            return;
        }
        // SAFETY: memory for all but the first, which goes with that of the trigger call.
        unsafe {
            if self.others.is_null() {
                self.others = pg_sys::palloc((MOST_BUCKETS - 1) * size_of::<Bucket>()).cast();
            }
            self.others.add(self.last - 1).write(new);
        }
    }

    /// The run that has to go before another one can begin.
    pub fn without_room(&self) -> Option<usize> {
        (self.count == MOST_BUCKETS && !self.is_empty(self.next_victim)).then_some(self.next_victim)
    }

    /// All of a bucket.
    pub fn whole(&self, bucket: usize) -> Run<'_> {
        let bucket = self.at(bucket);
        bucket.run(bucket.rows, bucket.bytes.length)
    }

    /// What of a full bucket is to be written: all but the row that goes beyond the limit.
    pub fn full(&self, bucket: usize) -> Run<'_> {
        let (rows, length) = self.complete(bucket);
        self.at(bucket).run(rows, length)
    }

    fn complete(&self, bucket: usize) -> (usize, usize) {
        let bucket = self.at(bucket);
        if bucket.bytes.length > self.limit && bucket.rows > 1 {
            (bucket.rows - 1, bucket.before_last)
        } else {
            (bucket.rows, bucket.bytes.length)
        }
    }

    /// Forgets what `full` gave.
    pub fn shift(&mut self, bucket: usize) {
        let (rows, length) = self.complete(bucket);
        let bucket = self.at_mut(bucket);
        let left = bucket.bytes.length - length;
        // SAFETY: both lie in what was written.
        unsafe { std::ptr::copy(bucket.bytes.start.add(length), bucket.bytes.start, left) };
        bucket.bytes.length = left;
        bucket.before_last = 0;
        bucket.rows -= rows;
        bucket.key_hash = None;
    }
}

impl Bucket {
    fn run(&self, rows: usize, length: usize) -> Run<'_> {
        // SAFETY: so many bytes were written, where any were; nothing moves them while the run is borrowed.
        let images = unsafe {
            if self.bytes.start.is_null() { &[][..] } else { std::slice::from_raw_parts(self.bytes.start, length) }
        };
        let key_hash = if rows == 1 && self.rows == 1 { self.key_hash } else { None };
        Run { action: self.key.action, tenant: self.tenant, rows, key_hash, images }
    }
}

/// Writes rows until there are no more, a bucket is full, or one is missing.
pub fn encode(rows: &mut Rows, layout: &Layout, buckets: &mut Buckets) -> Stop {
    // SAFETY: what is called below raises over frames that own nothing; rows and buckets stay whole, for both are given
    // up after an error.
    unsafe { pg_sys::submodules::ffi::pg_guard_ffi_boundary(|| run(rows, layout, buckets)) }
}

/// # Safety
/// Below a guard. This and all that it calls here owns nothing, and PostgreSQL's rows have the columns of the relation
/// that the layout was made from.
unsafe fn run(rows: &mut Rows, layout: &Layout, buckets: &mut Buckets) -> Stop {
    // SAFETY: the caller's.
    unsafe {
        loop {
            let Some(action) = next(rows, layout) else {
                rows.old.close();
                rows.new.close();
                return Stop::End;
            };
            let (old, new) = (rows.old.slot, rows.new.slot);
            let mut key = tenant_of(if action == Action::Insert { new } else { old }, layout, action);
            if action == Action::Update && !key.is(&tenant_of(new, layout, action)) {
                // Each tenant sees what happened on its side: here a row goes, and comes in the next turn.
                key.action = Action::Delete;
            }
            let found = match buckets.find(&key) {
                Some(found) => found,
                None => match key.plain_tenant(layout) {
                    Some(tenant) if buckets.count == 0 => {
                        buckets.open(key, tenant);
                        0
                    }
                    _ => return Stop::Stranger(key),
                },
            };
            let (limit, scratch) = (buckets.limit, buckets.scratch);
            let bucket = buckets.at_mut(found);
            bucket.before_last = bucket.bytes.length;
            let mut writer = Writer { bytes: &mut bucket.bytes, layout, scratch };
            let written = match key.action {
                Action::Insert => writer.image_or_key(new),
                Action::Delete => writer.image_or_key(old),
                Action::Update => writer.change(old, new),
            };
            if let Some(keeps_key) = written {
                if bucket.rows == 0 {
                    let of = if key.action == Action::Insert { new } else { old };
                    bucket.key_hash = if keeps_key { writer.key_hash(of) } else { None };
                }
                bucket.rows += 1;
            }
            if !scratch.is_null() {
                MemoryContextReset(scratch);
            }
            rows.has_old = false;
            rows.has_new &= key.action == Action::Delete;
            if bucket.bytes.length >= limit || bucket.rows >= MOST_ROWS {
                return Stop::Full(found);
            }
        }
    }
}

/// Fetches what is next, unless it is at hand already; None at the end.
#[inline(always)]
unsafe fn next(rows: &mut Rows, layout: &Layout) -> Option<Action> {
    // SAFETY: as for `run`.
    unsafe {
        if rows.is_paired {
            if !rows.has_old && !rows.has_new {
                rows.has_old = rows.old.fetch(layout.width);
                rows.has_new = rows.new.fetch(layout.width);
            }
        } else {
            rows.has_old = rows.has_old || rows.old.fetch(layout.width);
            rows.has_new = rows.has_new || rows.new.fetch(layout.width);
            // A row that left its partition and that a trigger kept out of the other one is gone; both sides keep their order.
            if rows.has_old && rows.has_new && !are_one_row(rows.old.slot, rows.new.slot, layout) {
                return Some(Action::Delete);
            }
        }
        match (rows.has_old, rows.has_new) {
            (true, true) => Some(Action::Update),
            (true, false) => Some(Action::Delete),
            (false, true) => Some(Action::Insert),
            (false, false) => None,
        }
    }
}

/// Whether they are one row before and after; without a key nothing tells.
unsafe fn are_one_row(old: *mut pg_sys::TupleTableSlot, new: *mut pg_sys::TupleTableSlot, layout: &Layout) -> bool {
    // SAFETY: as for `run`.
    layout.lasting_key.iter().all(|at| unsafe { are_same(&layout.columns[*at], old, new) })
}

/// A value, None for NULL.
#[inline(always)]
unsafe fn value(slot: *mut pg_sys::TupleTableSlot, place: usize) -> Option<pg_sys::Datum> {
    // SAFETY: as for `run`; the row is deformed up to the highest place that is asked for.
    unsafe { if *(*slot).tts_isnull.add(place) { None } else { Some(*(*slot).tts_values.add(place)) } }
}

#[inline(always)]
unsafe fn are_same(column: &Column, old: *mut pg_sys::TupleTableSlot, new: *mut pg_sys::TupleTableSlot) -> bool {
    // SAFETY: as for `run`.
    unsafe {
        match (value(old, column.place), value(new, column.place)) {
            (None, None) => true,
            (Some(old), Some(new)) => match column.form {
                Form::Direct(_) => old == new,
                Form::Fixed(length) => bytes_at(old, length.into()) == bytes_at(new, length.into()),
                Form::Sized => old == new || are_same_bytes(old, new),
            },
            _ => false,
        }
    }
}

unsafe fn bytes_at<'a>(value: pg_sys::Datum, length: usize) -> &'a [u8] {
    // SAFETY: as for `run`; the bytes live as long as the row.
    unsafe { std::slice::from_raw_parts(value.cast_mut_ptr::<u8>(), length) }
}

/// Compares values as they stand; where they stand in different ways, what they hold.
unsafe fn are_same_bytes(old: pg_sys::Datum, new: pg_sys::Datum) -> bool {
    // SAFETY: as for `run`.
    unsafe {
        let [old, new] = [old, new].map(|value| value.cast_mut_ptr::<pg_sys::varlena>());
        let [old_size, new_size] = [old, new].map(|value| pgrx::varsize_any(value));
        let stored = |value: *mut pg_sys::varlena, size| std::slice::from_raw_parts(value.cast::<u8>(), size);
        if old_size == new_size && stored(old, old_size) == stored(new, new_size) {
            return true;
        }
        let (old, new) = (Payload::of(old), Payload::of(new));
        let same = old.bytes() == new.bytes();
        old.free();
        new.free();
        same
    }
}

/// What a value of varying length holds, plain.
struct Payload {
    plain: *mut pg_sys::varlena,
    is_copy: bool,
}

impl Payload {
    #[inline(always)]
    unsafe fn of(value: *mut pg_sys::varlena) -> Self {
        // SAFETY: as for `run`.
        unsafe {
            let is_plain = pgrx::varatt_is_4b_u(value) || pgrx::varatt_is_1b(value) && !pgrx::varatt_is_1b_e(value);
            Self { plain: if is_plain { value } else { detoast_attr(value) }, is_copy: !is_plain }
        }
    }

    #[inline(always)]
    unsafe fn bytes<'a>(&self) -> &'a [u8] {
        // SAFETY: as for `run`; the caller frees it after.
        unsafe { std::slice::from_raw_parts(pgrx::vardata_any(self.plain).cast(), pgrx::varsize_any_exhdr(self.plain)) }
    }

    #[inline(always)]
    unsafe fn free(self) {
        if self.is_copy {
            // SAFETY: a copy of our own.
            unsafe { pfree(self.plain.cast()) };
        }
    }
}

#[inline(always)]
unsafe fn tenant_of(slot: *mut pg_sys::TupleTableSlot, layout: &Layout, action: Action) -> BucketKey {
    let mut key = BucketKey { action, length: BucketKey::NOBODY, bytes: [0; MAX_CODE_BYTES] };
    let Some(column) = &layout.tenant else { return key };
    // SAFETY: as for `run`; protection sees to the column's type.
    unsafe {
        let Some(value) = value(slot, column.place) else { return key };
        match column.form {
            Form::Direct(_) => key.put(&(value.value() as i64).to_le_bytes()),
            Form::Fixed(length) => key.put(bytes_at(value, length.into())),
            Form::Sized => {
                let payload = Payload::of(value.cast_mut_ptr());
                key.put(payload.bytes());
                payload.free();
            }
        }
    }
    key
}

/// Writes one row.
struct Writer<'a> {
    bytes: &'a mut Bytes,
    layout: &'a Layout,
    scratch: pg_sys::MemoryContext,
}

impl Writer<'_> {
    /// Gives whether the row has a key.
    #[inline(always)]
    unsafe fn image_or_key(&mut self, slot: *mut pg_sys::TupleTableSlot) -> Option<bool> {
        // SAFETY: as for `run`.
        unsafe { if self.layout.images == Images::None { self.key(slot) } else { self.image(slot) } }
        Some(!self.layout.key.is_empty())
    }

    #[inline(always)]
    unsafe fn image(&mut self, slot: *mut pg_sys::TupleTableSlot) {
        // SAFETY: as for `run`.
        unsafe {
            let nulls = self.bytes.bitmap(bitmap_bytes(self.layout.columns.len()));
            for (at, column) in self.layout.columns.iter().enumerate() {
                match value(slot, column.place) {
                    Some(value) if !column.is_redacted => self.put(column, value),
                    _ => self.bytes.set(nulls, at),
                }
            }
        }
    }

    unsafe fn key(&mut self, slot: *mut pg_sys::TupleTableSlot) {
        for at in &self.layout.key {
            let column = &self.layout.columns[*at];
            // SAFETY: as for `run`; a key's columns are never NULL.
            unsafe { self.put(column, *(*slot).tts_values.add(column.place)) };
        }
    }

    /// Writes what became of a row, unless nothing did; gives whether it kept its key.
    #[inline(always)]
    unsafe fn change(&mut self, old: *mut pg_sys::TupleTableSlot, new: *mut pg_sys::TupleTableSlot) -> Option<bool> {
        let mut places = [const { MaybeUninit::<u16>::uninit() }; MOST_COLUMNS];
        let mut count = 0;
        for (at, column) in self.layout.columns.iter().enumerate() {
            // SAFETY: as for `run`.
            if !unsafe { are_same(column, old, new) } {
                places[count].write(at as u16);
                count += 1;
            }
        }
        if count == 0 && self.layout.skips_unchanged {
            return None;
        }
        // SAFETY: the first `count` were written.
        let changed = unsafe { std::slice::from_raw_parts(places.as_ptr().cast::<u16>(), count) };
        let column = |at: &u16| &self.layout.columns[usize::from(*at)];
        let bits = self.layout.columns.len();
        let keeps_whole_rows = self.layout.keeps_whole_rows();
        // SAFETY: as for `run`.
        unsafe {
            if !keeps_whole_rows {
                self.key(old);
            }
            let bitmap = self.bytes.bitmap(bitmap_bytes(bits));
            for at in changed {
                self.bytes.set(bitmap, usize::from(*at));
            }
            if keeps_whole_rows {
                self.image(old);
                self.image(new);
            } else if self.layout.images == Images::Diff {
                let kept = changed.iter().filter(|at| !column(at).is_redacted).count();
                let nulls = self.bytes.bitmap(bitmap_bytes(2 * kept));
                for (side, slot) in [old, new].into_iter().enumerate() {
                    let kept = changed.iter().filter(|at| !self.layout.columns[usize::from(**at)].is_redacted);
                    for (place, at) in kept.enumerate() {
                        let column = &self.layout.columns[usize::from(*at)];
                        match value(slot, column.place) {
                            Some(value) => self.put(column, value),
                            None => self.bytes.set(nulls, 2 * place + side),
                        }
                    }
                }
            }
        }
        let is_key = |at: &u16| self.layout.key.contains(&usize::from(*at));
        Some(!self.layout.key.is_empty() && !changed.iter().any(is_key))
    }

    #[inline(always)]
    unsafe fn put(&mut self, column: &Column, value: pg_sys::Datum) {
        // SAFETY: as for `run`.
        unsafe {
            if !column.convert.is_null() {
                return self.put_converted(column, value);
            }
            match column.form {
                Form::Direct(length) => {
                    self.bytes.reserve(8);
                    self.bytes.put((value.value() as u64).to_le_bytes().as_ptr(), 8);
                    self.bytes.length -= 8 - usize::from(length);
                }
                Form::Fixed(length) => {
                    self.bytes.reserve(length.into());
                    self.bytes.put(value.cast_mut_ptr(), length.into());
                }
                Form::Sized => self.put_sized(value.cast_mut_ptr()),
            }
        }
    }

    #[inline(always)]
    unsafe fn put_sized(&mut self, value: *mut pg_sys::varlena) {
        // SAFETY: as for `run`.
        unsafe {
            let payload = Payload::of(value);
            let bytes = payload.bytes();
            self.bytes.reserve(LENGTH_BYTES + bytes.len());
            let length = &mut *self.bytes.start.add(self.bytes.length).cast::<[u8; LENGTH_BYTES]>();
            self.bytes.length += write_length(length, bytes.len());
            self.bytes.put(bytes.as_ptr(), bytes.len());
            payload.free();
        }
    }

    #[cold]
    unsafe fn put_converted(&mut self, column: &Column, value: pg_sys::Datum) {
        // SAFETY: as for `run`.
        unsafe {
            let converted = self.converted(column, value);
            self.put_sized(converted.cast_mut_ptr());
        }
    }

    /// The `jsonb` of a value, in memory that goes with the row.
    unsafe fn converted(&self, column: &Column, value: pg_sys::Datum) -> pg_sys::Datum {
        // SAFETY: as for `run`; an error resets the context.
        unsafe {
            let before = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = self.scratch;
            let converted = FunctionCall1Coll(column.convert, pg_sys::InvalidOid, value);
            pg_sys::CurrentMemoryContext = before;
            converted
        }
    }

    /// What a row is found by; None without a key.
    unsafe fn key_hash(&self, slot: *mut pg_sys::TupleTableSlot) -> Option<i64> {
        if self.layout.key.is_empty() {
            return None;
        }
        let mut hash = 0_i64;
        for at in &self.layout.key {
            let column = &self.layout.columns[*at];
            // SAFETY: as for `run`; a key's columns are never NULL.
            unsafe {
                let value = *(*slot).tts_values.add(column.place);
                let value = if column.convert.is_null() { value } else { self.converted(column, value) };
                if column.hash.is_null() {
                    return None;
                }
                let seed = pg_sys::Datum::from(hash);
                hash = FunctionCall2Coll(column.hash, pg_sys::C_COLLATION_OID, value, seed).value() as i64;
            }
        }
        Some(hash)
    }
}
