//! Puts a row into a partition of the log and into its indexes, whatever rights the current role has.
//!
//! The indexes are known beforehand, and the lock on the table keeps them: who drops one waits for those who write. So a row
//! costs neither a lock nor a plan for each. An index of the DBA's own that is more than columns in a B-tree is fed by
//! the executor, which knows how.

use pgrx::{PgList, pg_sys};

/// A partition's indexes.
#[derive(Clone, Debug, Default)]
pub struct Indexes {
    plain: Vec<Index>,
    /// One is of another kind; then the executor feeds all.
    has_others: bool,
}

#[derive(Clone, Debug)]
struct Index {
    oid: pg_sys::Oid,
    /// Places of its columns in a row.
    columns: Vec<usize>,
    is_unique: bool,
}

const MOST_INDEX_COLUMNS: usize = pg_sys::INDEX_MAX_KEYS as usize;

unsafe extern "C-unwind" {
    fn table_open(relation: pg_sys::Oid, lock: i32) -> pg_sys::Relation;
    fn table_close(relation: pg_sys::Relation, lock: i32);
    fn index_open(index: pg_sys::Oid, lock: i32) -> pg_sys::Relation;
    fn index_close(index: pg_sys::Relation, lock: i32);
    fn heap_form_tuple(
        descriptor: pg_sys::TupleDesc,
        values: *mut pg_sys::Datum,
        nulls: *mut bool,
    ) -> pg_sys::HeapTuple;
    fn simple_heap_insert(relation: pg_sys::Relation, tuple: pg_sys::HeapTuple);
    #[cfg(not(feature = "pg13"))]
    fn index_insert(
        index: pg_sys::Relation,
        values: *mut pg_sys::Datum,
        nulls: *mut bool,
        row: pg_sys::ItemPointer,
        relation: pg_sys::Relation,
        check: pg_sys::IndexUniqueCheck::Type,
        is_unchanged: bool,
        info: *mut pg_sys::IndexInfo,
    ) -> bool;
    #[cfg(feature = "pg13")]
    fn index_insert(
        index: pg_sys::Relation,
        values: *mut pg_sys::Datum,
        nulls: *mut bool,
        row: pg_sys::ItemPointer,
        relation: pg_sys::Relation,
        check: pg_sys::IndexUniqueCheck::Type,
        info: *mut pg_sys::IndexInfo,
    ) -> bool;
}

/// Looks at a partition's indexes.
pub fn indexes(partition: pg_sys::Oid) -> Indexes {
    let mut found = Indexes::default();
    // SAFETY: the relations are open and locked while they are looked at.
    unsafe {
        let relation = pg_sys::table_open(partition, pg_sys::AccessShareLock as i32);
        for oid in PgList::<pg_sys::Oid>::from_pg(pg_sys::RelationGetIndexList(relation)).iter_oid() {
            let index = pg_sys::index_open(oid, pg_sys::AccessShareLock as i32);
            let row = (*index).rd_index;
            let numbers = (*row).indkey.values.as_slice((*row).indnatts as usize);
            let is_plain = (*(*index).rd_rel).relam == pg_sys::BTREE_AM_OID
                && numbers.iter().all(|number| *number > 0)
                && pg_sys::RelationGetIndexPredicate(index).is_null()
                && (*row).indimmediate;
            found.has_others |= !is_plain;
            if is_plain && (*row).indisready {
                let columns = numbers.iter().map(|number| *number as usize - 1).collect();
                found.plain.push(Index { oid, columns, is_unique: (*row).indisunique });
            }
            pg_sys::index_close(index, pg_sys::AccessShareLock as i32);
        }
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
    }
    found
}

/// Appends a row.
///
/// # Safety
/// The values are those of the partition's columns, in their order; the partition is locked for writing, and these are its
/// indexes now.
pub unsafe fn append(partition: pg_sys::Oid, indexes: &Indexes, values: &mut [pg_sys::Datum], nulls: &mut [bool]) {
    const NO_LOCK: i32 = pg_sys::NoLock as i32;
    // SAFETY: the caller's. Below the guard nothing is owned.
    unsafe {
        pg_sys::submodules::ffi::pg_guard_ffi_boundary(|| {
            let relation = table_open(partition, NO_LOCK);
            let tuple = heap_form_tuple((*relation).rd_att, values.as_mut_ptr(), nulls.as_mut_ptr());
            simple_heap_insert(relation, tuple);
            if indexes.has_others {
                by_executor(relation, tuple);
            } else {
                for index in &indexes.plain {
                    let open = index_open(index.oid, NO_LOCK);
                    insert(open, index, values, nulls, tuple, relation);
                    index_close(open, NO_LOCK);
                }
            }
            table_close(relation, NO_LOCK);
        });
    }
}

/// # Safety
/// As for `append`, below its guard.
unsafe fn insert(
    open: pg_sys::Relation,
    index: &Index,
    values: &[pg_sys::Datum],
    nulls: &[bool],
    tuple: pg_sys::HeapTuple,
    relation: pg_sys::Relation,
) {
    let mut own_values = [pg_sys::Datum::null(); MOST_INDEX_COLUMNS];
    let mut own_nulls = [false; MOST_INDEX_COLUMNS];
    for (at, place) in index.columns.iter().enumerate() {
        own_values[at] = values[*place];
        own_nulls[at] = nulls[*place];
    }
    let check = if index.is_unique {
        pg_sys::IndexUniqueCheck::UNIQUE_CHECK_YES
    } else {
        pg_sys::IndexUniqueCheck::UNIQUE_CHECK_NO
    };
    // A B-tree asks nothing of it.
    let mut info = pg_sys::IndexInfo { type_: pg_sys::NodeTag::T_IndexInfo, ..pg_sys::IndexInfo::default() };
    // SAFETY: the caller's.
    unsafe {
        index_insert(
            open,
            own_values.as_mut_ptr(),
            own_nulls.as_mut_ptr(),
            &raw mut (*tuple).t_self,
            relation,
            check,
            #[cfg(not(feature = "pg13"))]
            false,
            &mut info,
        );
    }
}

/// Feeds indexes of any kind.
///
/// # Safety
/// As for `append`, below its guard.
#[cold]
unsafe fn by_executor(relation: pg_sys::Relation, tuple: pg_sys::HeapTuple) {
    unsafe extern "C-unwind" {
        fn CreateExecutorState() -> *mut pg_sys::EState;
        fn FreeExecutorState(state: *mut pg_sys::EState);
        fn palloc0(bytes: usize) -> *mut std::ffi::c_void;
        fn InitResultRelInfo(
            result: *mut pg_sys::ResultRelInfo,
            relation: pg_sys::Relation,
            place: pg_sys::Index,
            root: *mut pg_sys::ResultRelInfo,
            options: i32,
        );
        fn ExecOpenIndices(result: *mut pg_sys::ResultRelInfo, speculative: bool);
        fn ExecCloseIndices(result: *mut pg_sys::ResultRelInfo);
        fn MakeSingleTupleTableSlot(
            descriptor: pg_sys::TupleDesc,
            kind: *const pg_sys::TupleTableSlotOps,
        ) -> *mut pg_sys::TupleTableSlot;
        fn ExecStoreHeapTuple(
            tuple: pg_sys::HeapTuple,
            slot: *mut pg_sys::TupleTableSlot,
            frees: bool,
        ) -> *mut pg_sys::TupleTableSlot;
        fn ExecDropSingleTupleTableSlot(slot: *mut pg_sys::TupleTableSlot);
        #[cfg(feature = "pg13")]
        fn ExecInsertIndexTuples(
            slot: *mut pg_sys::TupleTableSlot,
            state: *mut pg_sys::EState,
            no_error: bool,
            conflict: *mut bool,
            arbiters: *mut pg_sys::List,
        ) -> *mut pg_sys::List;
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        fn ExecInsertIndexTuples(
            result: *mut pg_sys::ResultRelInfo,
            slot: *mut pg_sys::TupleTableSlot,
            state: *mut pg_sys::EState,
            update: bool,
            no_error: bool,
            conflict: *mut bool,
            arbiters: *mut pg_sys::List,
        ) -> *mut pg_sys::List;
        #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
        fn ExecInsertIndexTuples(
            result: *mut pg_sys::ResultRelInfo,
            slot: *mut pg_sys::TupleTableSlot,
            state: *mut pg_sys::EState,
            update: bool,
            no_error: bool,
            conflict: *mut bool,
            arbiters: *mut pg_sys::List,
            only_summarizing: bool,
        ) -> *mut pg_sys::List;
    }
    // SAFETY: the caller's; what is made here is given back.
    unsafe {
        let (nothing, no_list) = (std::ptr::null_mut(), std::ptr::null_mut());
        let state = CreateExecutorState();
        let result = palloc0(size_of::<pg_sys::ResultRelInfo>()).cast::<pg_sys::ResultRelInfo>();
        (*result).type_ = pg_sys::NodeTag::T_ResultRelInfo;
        InitResultRelInfo(result, relation, 0, std::ptr::null_mut(), 0);
        ExecOpenIndices(result, false);
        let slot = MakeSingleTupleTableSlot((*relation).rd_att, &raw const pg_sys::TTSOpsHeapTuple);
        ExecStoreHeapTuple(tuple, slot, false);
        #[cfg(feature = "pg13")]
        {
            (*state).es_result_relation_info = result;
            ExecInsertIndexTuples(slot, state, false, nothing, no_list);
        }
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        ExecInsertIndexTuples(result, slot, state, false, false, nothing, no_list);
        #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
        ExecInsertIndexTuples(result, slot, state, false, false, nothing, no_list, false);
        ExecCloseIndices(result);
        ExecDropSingleTupleTableSlot(slot);
        FreeExecutorState(state);
    }
}
