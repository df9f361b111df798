//! Reads the rows of a table for nothing but the values of one column, faster than a statement could: no plan, no executor,
//! and one guard for thousands of rows. Whoever calls sees to it that the role may see them all; so does `tally` itself.

use pgrx::{pg_sys, varlena};

/// The value of the column in one row.
pub enum Seen<'a> {
    Nothing,
    /// A uuid, as its bytes lie.
    Id([u8; 16]),
    Number(i64),
    Code(&'a [u8]),
    /// What would have to be unpacked, or looked up, first.
    Packed,
}

/// How values of the column's type are read.
#[derive(Clone, Copy)]
enum Shape {
    Uuid,
    Int2,
    Int4,
    Int8,
    Text,
}

/// How many rows are read between two looks for an interrupt.
const ROWS_AT_ONCE: u32 = 10_000;

/// The number of rows of `relation`, its children not counted, and whether `accepts` took the value of each. `None` where the
/// current role may not see all of them, the column is of no type that tenants have, or the table is no heap.
pub fn tally(relation: pg_sys::Oid, attribute: i16, mut accepts: impl FnMut(Seen<'_>) -> bool) -> Option<(i64, bool)> {
    // SAFETY: a lock is held on the relation before it is looked at, and kept until the transaction ends, as a query would;
    // it is scanned with the snapshot of the statement, and what is opened here is closed, or left to the resource owner by
    // an error.
    unsafe {
        let open = pg_sys::try_relation_open(relation, pg_sys::AccessShareLock as i32);
        if open.is_null() {
            return None;
        }
        let is_heap = (*(*open).rd_rel).relkind == pg_sys::RELKIND_RELATION as core::ffi::c_char
            && std::ptr::eq((*open).rd_tableam, pg_sys::GetHeapamTableAmRoutine());
        let shape = if is_heap && may_see_all(relation) { shape(relation, attribute) } else { None };
        let Some(shape) = shape else {
            pg_sys::relation_close(open, pg_sys::NoLock as i32);
            return None;
        };
        let descriptor = (*open).rd_att;
        let scan = pg_sys::table_beginscan(open, pg_sys::GetActiveSnapshot(), 0, std::ptr::null_mut());
        let (mut rows, mut all) = (0_i64, true);
        loop {
            let read = pg_sys::submodules::ffi::pg_guard_ffi_boundary(|| {
                let mut read = 0;
                while read < ROWS_AT_ONCE {
                    let row = heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
                    if row.is_null() {
                        break;
                    }
                    read += 1;
                    all &= accepts(value(row, attribute, descriptor, shape));
                }
                read
            });
            rows += i64::from(read);
            if read < ROWS_AT_ONCE {
                break;
            }
            pgrx::check_for_interrupts!();
        }
        pg_sys::table_endscan(scan);
        pg_sys::relation_close(open, pg_sys::NoLock as i32);
        Some((rows, all))
    }
}

// Below the guard of the loop, which one for each row would outweigh.
unsafe extern "C-unwind" {
    fn heap_getnext(scan: pg_sys::TableScanDesc, direction: pg_sys::ScanDirection::Type) -> pg_sys::HeapTuple;
    fn nocachegetattr(row: pg_sys::HeapTuple, attribute: i32, descriptor: pg_sys::TupleDesc) -> pg_sys::Datum;
}

/// SELECT on the whole relation, and no row security for this role.
fn may_see_all(relation: pg_sys::Oid) -> bool {
    const ACLCHECK_OK: u32 = 0;
    const RLS_ENABLED: i32 = 2;
    // SAFETY: syscache lookups for a relation that is locked.
    unsafe {
        pg_sys::pg_class_aclcheck(relation, pg_sys::GetUserId(), pg_sys::ACL_SELECT as pg_sys::AclMode) == ACLCHECK_OK
            && pg_sys::check_enable_rls(relation, pg_sys::InvalidOid, true) != RLS_ENABLED
    }
}

fn shape(relation: pg_sys::Oid, attribute: i16) -> Option<Shape> {
    if attribute < 1 {
        return None;
    }
    // SAFETY: syscache lookups; a column that is gone has type 0.
    let declared = unsafe {
        let declared = pg_sys::get_atttype(relation, attribute);
        if declared == pg_sys::InvalidOid {
            return None;
        }
        pg_sys::getBaseType(declared)
    };
    match declared {
        pg_sys::UUIDOID => Some(Shape::Uuid),
        pg_sys::INT2OID => Some(Shape::Int2),
        pg_sys::INT4OID => Some(Shape::Int4),
        pg_sys::INT8OID => Some(Shape::Int8),
        pg_sys::TEXTOID | pg_sys::VARCHAROID => Some(Shape::Text),
        _ => None,
    }
}

/// Below a guard; owns nothing.
///
/// # Safety
/// `row` is one of a relation with that descriptor, which has the attribute, of that shape; what is given lives as long as the
/// row is held.
unsafe fn value<'a>(row: pg_sys::HeapTuple, attribute: i16, descriptor: pg_sys::TupleDesc, shape: Shape) -> Seen<'a> {
    // SAFETY: as the caller says; the row's null bits, where it has them, are as many as its columns.
    unsafe {
        let header = (*row).t_data;
        let columns = u32::from((*header).t_infomask2) & pg_sys::HEAP_NATTS_MASK;
        if columns < attribute as u32 {
            // It is older than the column, and has its missing value.
            return Seen::Packed;
        }
        let place = attribute as usize - 1;
        let has_nulls = u32::from((*header).t_infomask) & pg_sys::HEAP_HASNULL != 0;
        if has_nulls && *(*header).t_bits.as_ptr().add(place >> 3) & (1 << (place & 7)) == 0 {
            return Seen::Nothing;
        }
        let datum = nocachegetattr(row, attribute.into(), descriptor);
        match shape {
            Shape::Uuid => Seen::Id(datum.cast_mut_ptr::<[u8; 16]>().read_unaligned()),
            Shape::Int2 => Seen::Number((datum.value() as i16).into()),
            Shape::Int4 => Seen::Number((datum.value() as i32).into()),
            Shape::Int8 => Seen::Number(datum.value() as i64),
            Shape::Text => {
                let text = datum.cast_mut_ptr::<pg_sys::varlena>();
                if varlena::varatt_is_1b_e(text) || varlena::varatt_is_4b_c(text) {
                    return Seen::Packed;
                }
                Seen::Code(std::slice::from_raw_parts(
                    varlena::vardata_any(text).cast::<u8>(),
                    varlena::varsize_any_exhdr(text),
                ))
            }
        }
    }
}
