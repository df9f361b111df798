//! Whether a relation that a statement made or changed can matter to protection. Most do not, and are told from the
//! others by a few index lookups, so that CREATE TABLE costs the same as before.

use super::protected;
use super::table::{self, Equals};
use crate::error::TenancyError;
use pgrx::{IntoDatum, pg_sys};
use std::ffi::CStr;

/// Whether a look at the record can say anything about `relation`; `brings_columns` where its columns are new.
pub fn has_to_do_with_protection(relation: pg_sys::Oid, brings_columns: bool) -> Result<bool, TenancyError> {
    // SAFETY: syscache lookups; a relation that is gone has kind and persistence 0.
    let (kind, persistence) = unsafe { (pg_sys::get_rel_relkind(relation), pg_sys::get_rel_persistence(relation)) };
    if persistence as u8 == pg_sys::RELPERSISTENCE_TEMP {
        return Ok(false);
    }
    match kind as u8 {
        b'v' => protected::reads_protected_table(relation),
        b'm' => Ok(protected::find(relation)?.is_some()),
        b'r' | b'p' => Ok(protected::find(relation)?.is_some() || brings_columns && may_have_tenants(relation)?),
        b'f' => {
            for parent in protected::parents(relation)? {
                if protected::find(parent)?.is_some() {
                    return Ok(true);
                }
            }
            Ok(brings_columns && may_have_tenants(relation)?)
        }
        _ => Ok(false),
    }
}

/// Whether it is a view or materialized view.
pub fn is_view(relation: pg_sys::Oid) -> bool {
    // SAFETY: a syscache lookup; a relation that is gone has kind 0.
    matches!(unsafe { pg_sys::get_rel_relkind(relation) } as u8, b'v' | b'm')
}

/// Whether its schema or one of its columns says that a new table may be a tenants' table.
fn may_have_tenants(relation: pg_sys::Oid) -> Result<bool, TenancyError> {
    Ok(is_in_protected_schema(relation)? || has_known_column(relation)?)
}

fn is_in_protected_schema(relation: pg_sys::Oid) -> Result<bool, TenancyError> {
    // SAFETY: syscache lookups; the name is a copy, NULL where the schema is gone.
    let schema = unsafe { pg_sys::get_namespace_name(pg_sys::get_rel_namespace(relation)) };
    if schema.is_null() {
        return Ok(false);
    }
    // SAFETY: a C string, checked above.
    any(c"protected_schemas", c"protected_schemas_pkey", c"schema", unsafe { CStr::from_ptr(schema) })
}

/// Whether a column has the name of another table's tenant column.
fn has_known_column(relation: pg_sys::Oid) -> Result<bool, TenancyError> {
    for number in 1.. {
        // SAFETY: with missing_ok a number beyond the last column gives NULL.
        let name = unsafe { pg_sys::get_attname(relation, number, true) };
        if name.is_null() {
            break;
        }
        // SAFETY: a C string, checked above.
        let name = unsafe { CStr::from_ptr(name) };
        let index = c"protected_tables_tenant_column_idx";
        if any(c"protected_tables", index, c"tenant_column", name)? || is_a_schemas_column(name)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_a_schemas_column(name: &CStr) -> Result<bool, TenancyError> {
    any(c"protected_schemas", c"protected_schemas_tenant_column_idx", c"tenant_column", name)
}

/// Whether a private table has a row with this name in `column`.
fn any(table: &CStr, index: &CStr, column: &CStr, name: &CStr) -> Result<bool, TenancyError> {
    const SCHEMA: &CStr = c"tenancy_internal";
    let (Some(table), Some(index)) = (table::oid(SCHEMA, table), table::oid(SCHEMA, index)) else { return Ok(false) };
    let value = name.into_datum().expect("a name is never null");
    let key = Equals { column, function: pg_sys::F_NAMEEQ, collation: pg_sys::C_COLLATION_OID, value };
    Ok(!table::scan(table, index, &[key], |_| Ok(()))?.is_empty())
}
