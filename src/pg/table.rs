//! Reads our own tables through their indexes, whatever rights the current role has on them: for the caches of the
//! backend, which are filled inside of other people's statements. Never assigns a transaction id.

use crate::error::TenancyError;
use pgrx::{FromDatum, pg_sys};
use std::ffi::CStr;

/// A row at hand; fields are found by name, so that an upgrade may add columns.
pub struct Row<'a> {
    table: pg_sys::Oid,
    /// The transaction that made it, where a scan found it.
    pub made_by: pg_sys::TransactionId,
    values: &'a [pg_sys::Datum],
    nulls: &'a [bool],
}

impl Row<'_> {
    /// The value of a column, None when it is NULL or there is no such column.
    pub fn get<T: FromDatum>(&self, name: &CStr) -> Option<T> {
        // SAFETY: a syscache lookup by name.
        let number = unsafe { pg_sys::get_attnum(self.table, name.as_ptr()) };
        let place = usize::try_from(number).ok()?.checked_sub(1)?;
        // SAFETY: the caller asks for the column's type; the datum lives as long as the scan holds the row.
        unsafe { T::from_datum(*self.values.get(place)?, self.nulls[place]) }
    }
}

/// What a scan looks for: `column = value`.
pub struct Equals<'a> {
    pub column: &'a CStr,
    /// The equality function of the column's type.
    pub function: u32,
    pub collation: pg_sys::Oid,
    pub value: pg_sys::Datum,
}

impl<'a> Equals<'a> {
    /// Looks for an oid, also in a column of type `regclass` or `regrole`.
    pub fn oid(column: &'a CStr, value: pg_sys::Oid) -> Self {
        let value = pg_sys::Datum::from(value);
        Self { column, function: pg_sys::F_OIDEQ, collation: pg_sys::InvalidOid, value }
    }
}

/// The oid of a relation of ours, None where the extension is not installed.
pub fn oid(schema: &CStr, name: &CStr) -> Option<pg_sys::Oid> {
    // SAFETY: syscache lookups by name.
    let found = unsafe {
        let schema = pg_sys::get_namespace_oid(schema.as_ptr(), true);
        if schema == pg_sys::InvalidOid {
            return None;
        }
        pg_sys::get_relname_relid(name.as_ptr(), schema)
    };
    (found != pg_sys::InvalidOid).then_some(found)
}

/// Gives each row of `table` that `keys` find through `index` to `each`; every row where there are none.
pub fn scan<T>(
    table: pg_sys::Oid,
    index: pg_sys::Oid,
    keys: &[Equals<'_>],
    mut each: impl FnMut(&Row<'_>) -> Result<T, TenancyError>,
) -> Result<Vec<T>, TenancyError> {
    let mut found = Vec::new();
    let mut failed = None;
    // SAFETY: the relation is opened with a lock before it is read and closed after; the scan key holds a value of the
    // column's type and that type's equality; rows are read with the relation's own descriptor.
    unsafe {
        let relation = pg_sys::table_open(table, pg_sys::AccessShareLock as i32);
        let mut scan_keys = vec![pg_sys::ScanKeyData::default(); keys.len()];
        for (key, scan_key) in keys.iter().zip(&mut scan_keys) {
            pg_sys::ScanKeyEntryInitialize(
                scan_key,
                0,
                pg_sys::get_attnum(table, key.column.as_ptr()),
                pg_sys::BTEqualStrategyNumber as u16,
                pg_sys::InvalidOid,
                key.collation,
                pg_sys::Oid::from(key.function),
                key.value,
            );
        }
        let count = scan_keys.len() as i32;
        let scan =
            pg_sys::systable_beginscan(relation, index, true, std::ptr::null_mut(), count, scan_keys.as_mut_ptr());
        let descriptor = (*relation).rd_att;
        let width = (*descriptor).natts as usize;
        let (mut values, mut nulls) = (vec![pg_sys::Datum::from(0); width], vec![false; width]);
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            pg_sys::heap_deform_tuple(tuple, descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
            let made_by = (*(*tuple).t_data).t_choice.t_heap.t_xmin;
            match each(&Row { table, made_by, values: &values, nulls: &nulls }) {
                Ok(row) => found.push(row),
                Err(refusal) => {
                    failed = Some(refusal);
                    break;
                }
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
    }
    failed.map_or(Ok(found), Err)
}

/// Gives the row of `table` at a place to `each`; None where the running statement sees none there.
pub fn fetch<T>(
    table: pg_sys::Oid,
    mut place: pg_sys::ItemPointerData,
    each: impl FnOnce(&Row<'_>) -> Result<T, TenancyError>,
) -> Result<Option<T>, TenancyError> {
    // SAFETY: the relation is opened with a lock and closed after; a place beyond its end is not looked at, and what is at
    // others is for its table access method to say. The slot has the relation's own descriptor, and lives as long as the row.
    unsafe {
        let relation = pg_sys::table_open(table, pg_sys::AccessShareLock as i32);
        let slot = pg_sys::table_slot_create(relation, std::ptr::null_mut());
        let block = u32::from(place.ip_blkid.bi_hi) << 16 | u32::from(place.ip_blkid.bi_lo);
        let is_there = place.ip_posid != 0
            && block < pg_sys::RelationGetNumberOfBlocksInFork(relation, pg_sys::ForkNumber::MAIN_FORKNUM)
            && pg_sys::table_tuple_fetch_row_version(relation, &raw mut place, pg_sys::GetActiveSnapshot(), slot);
        let mut found = None;
        if is_there {
            pg_sys::slot_getallattrs(slot);
            let width = (*(*relation).rd_att).natts as usize;
            let values = std::slice::from_raw_parts((*slot).tts_values, width);
            let nulls = std::slice::from_raw_parts((*slot).tts_isnull, width);
            found = Some(each(&Row { table, made_by: pg_sys::InvalidTransactionId, values, nulls }));
        }
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
        found.transpose()
    }
}

/// Adds a row to one of our own tables, whatever rights the current role has on it. Checks no constraint but unique indexes.
///
/// # Safety
/// The values are those of the table's columns, in their order.
pub unsafe fn insert(table: pg_sys::Oid, values: &mut [pg_sys::Datum], nulls: &mut [bool]) {
    // SAFETY: the relation is open and locked while it is written to; the caller vouches for the values.
    unsafe {
        let relation = pg_sys::table_open(table, pg_sys::RowExclusiveLock as i32);
        let tuple = pg_sys::heap_form_tuple((*relation).rd_att, values.as_mut_ptr(), nulls.as_mut_ptr());
        pg_sys::CatalogTupleInsert(relation, tuple);
        pg_sys::heap_freetuple(tuple);
        pg_sys::table_close(relation, pg_sys::NoLock as i32);
    }
}

/// The next value of a sequence of ours.
pub fn next_value(sequence: pg_sys::Oid) -> i64 {
    unsafe extern "C-unwind" {
        // Not in the bindings.
        fn nextval_internal(sequence: pg_sys::Oid, check_permissions: bool) -> i64;
    }
    // SAFETY: the boundary turns an error into a panic, as for the functions of the bindings.
    unsafe { pg_sys::submodules::ffi::pg_guard_ffi_boundary(|| nextval_internal(sequence, false)) }
}

/// Catalogs and indexes that the bindings do not name; PostgreSQL never changes their oids (pg_inherits.h, pg_rewrite.h,
/// pg_depend.h, pg_policy.h, pg_db_role_setting.h).
pub const INHERITS: pg_sys::Oid = pg_sys::Oid::from_u32(2611);
pub const INHERITS_BY_CHILD: pg_sys::Oid = pg_sys::Oid::from_u32(2680);
pub const INHERITS_BY_PARENT: pg_sys::Oid = pg_sys::Oid::from_u32(2187);
pub const RULES: pg_sys::Oid = pg_sys::Oid::from_u32(2618);
pub const RULES_BY_RELATION: pg_sys::Oid = pg_sys::Oid::from_u32(2693);
pub const DEPENDENCIES: pg_sys::Oid = pg_sys::Oid::from_u32(2608);
pub const DEPENDENCIES_BY_DEPENDENT: pg_sys::Oid = pg_sys::Oid::from_u32(2673);
pub const DEPENDENCIES_BY_REFERENCE: pg_sys::Oid = pg_sys::Oid::from_u32(2674);
pub const POLICIES: pg_sys::Oid = pg_sys::Oid::from_u32(3256);
pub const POLICIES_BY_RELATION: pg_sys::Oid = pg_sys::Oid::from_u32(3258);
pub const ROLE_SETTINGS: pg_sys::Oid = pg_sys::Oid::from_u32(2964);
pub const ROLE_SETTINGS_BY_PLACE: pg_sys::Oid = pg_sys::Oid::from_u32(2965);
