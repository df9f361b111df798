//! The one place where rows of users' tables are changed by no statement of theirs: for retention, repair, soft delete, tenants
//! given to rows.
//!
//! PostgreSQL's own maintenance (REINDEX, ANALYZE, REFRESH) has the rules, and they are kept here: the work is done with the
//! rights of the table's owner in a security-restricted operation, with a fixed search_path and a level of settings that is
//! rolled back at its end, and nothing deferred is left for the commit. Beyond that no trigger of users fires, and row security
//! is out of the way for the statement itself but not for what runs inside of it: a generated column, a CHECK, an expression of
//! an index meets the policies that always bind the owner. The plan of the statement ends with it.

use super::mute::{self, Firing};
use super::spi::{self, DatumWithOid, Row};
use super::table::{self, Equals};
use super::{Oid, compat, nesting, protected, strangers};
use crate::error::TenancyError;
use crate::model::{Ident, QualifiedName, Sql};
use pgrx::prelude::*;
use pgrx::{PgOid, pg_sys};
use std::ffi::{CStr, CString};

/// Runs a statement that changes rows of `relation`, and of others of the same owner, and gives the rows it returns. Rows that row
/// security would hide are changed too: whoever calls has found them by right.
///
/// 55000 for a table that has rewrite rules, and for a partition whose triggers cannot be left out.
pub fn change<T>(
    relation: Oid,
    statement: &Sql,
    arguments: &[DatumWithOid<'_>],
    mut row: impl FnMut(Row<'_>) -> Result<T, TenancyError>,
) -> Result<Vec<T>, TenancyError> {
    // SAFETY: a C string. Before a transaction id is asked for, which a standby does not have.
    unsafe { pg_sys::PreventCommandIfReadOnly(c"UPDATE".as_ptr()) };
    // What was put off until now is done for whoever did it; in a restricted operation nothing can be put off.
    spi::not_own_work(|| spi::run(&Sql::text("SET CONSTRAINTS ALL IMMEDIATE"), &[]))?;
    // SAFETY: a lock for this transaction, which keeps rules away that would be made from now on.
    unsafe { pg_sys::LockRelationOid(relation, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE) };
    let owner = compat::class_row(relation).ok_or(TenancyError::UnknownRelation { oid: relation.to_u32() })?.relowner;
    refuse_rules(relation)?;
    let restricted = pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION;
    let work = || {
        Spi::connect_mut(|client| {
            let types: Vec<PgOid> = arguments.iter().map(|argument| argument.oid().into()).collect();
            // Row security goes by these rights while the statement is analysed, and only then is FORCE lifted.
            let lifted = restricted | pg_sys::SECURITY_NOFORCE_RLS;
            let prepared = spi::with_rights(owner, lifted, || client.prepare_mut(statement.as_str(), &types));
            let prepared = prepared.map_err(spi::unexpected)?;
            nesting::own_statement(|| spi::collect(client.update(&prepared, None, arguments), &mut row))
        })
    };
    let restrained = || strangers::refused_to_superusers(|| mute::with_triggers(Firing::Ours, work));
    spi::not_own_work(|| spi::with_rights(owner, restricted, || spi::with_catalog_names(restrained)))
}

/// The same for a table that is named, without an answer.
pub fn change_named(name: &QualifiedName, statement: &Sql) -> Result<(), TenancyError> {
    let [schema, relation] = [&name.schema, &name.name].map(|part| CString::new(part.as_str()));
    let found = schema.ok().zip(relation.ok()).and_then(|(schema, relation)| table::oid(&schema, &relation));
    let gone = || TenancyError::Internal { what: format!("table {name} is gone") };
    change(found.ok_or_else(gone)?, statement, &[], |_| Ok(())).map(drop)
}

/// What a rule does would be done for all tenants; none is made while the lock is held.
fn refuse_rules(relation: Oid) -> Result<(), TenancyError> {
    let keys = [Equals::oid(c"ev_class", relation)];
    let rules = table::scan(table::RULES, table::RULES_BY_RELATION, &keys, |row| {
        Ok(row.get::<&CStr>(c"rulename").map(|name| name.to_string_lossy().into_owned()).unwrap_or_default())
    })?;
    match rules.first() {
        None => Ok(()),
        Some(rule) => {
            Err(TenancyError::TableHasRule { table: protected::qualified_name_of(relation)?, rule: Ident::new(rule)? })
        }
    }
}
