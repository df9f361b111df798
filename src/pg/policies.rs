//! Policies of ours in the catalog, compared with what they should be: by their trees, for two texts can mean the same, and
//! one text shows not all of a tree and looks different by the session's settings.
//!
//! The guard, plans, the list of protected tables and integrity ask this one judge.

use super::protected;
use super::table::{self, Equals};
use super::{compat, spi};
use crate::error::TenancyError;
use crate::model::policy::{self, Access, Difference, Spec};
use crate::model::{Ident, KeyKind, Sql};
use pgrx::pg_sys;
use std::ffi::{CStr, CString};

/// A policy that a table needs.
#[derive(Debug)]
pub struct Judged {
    pub name: &'static str,
    /// How the one of its name in the catalog differs; None where there is none.
    pub differences: Option<Vec<Difference>>,
}

/// A policy as the catalog has it.
struct Found {
    name: String,
    is_permissive: bool,
    command: u8,
    for_public: bool,
    using: Option<CString>,
    check: Option<CString>,
}

/// Judges the policies of a table with this access and tenant column, the companion among them. None are wanted where the
/// column is gone or holds no tenant key.
pub fn judge(relation: pg_sys::Oid, access: Access, column: Option<&Ident>) -> Result<Vec<Judged>, TenancyError> {
    let found = match (access, column) {
        (Access::Reference, _) => None,
        (_, Some(column)) => match protected::described(relation, column)? {
            Some(found) => Some(found),
            None => return Ok(Vec::new()),
        },
        (_, None) => return Ok(Vec::new()),
    };
    let nowhere = policy::name(policy::ISOLATION);
    let specs = match &found {
        Some(found) => match KeyKind::of_type(&found.type_name) {
            Some(key) => policy::wanted(access, &found.name, Some(found), Some(key), true),
            None => return Ok(Vec::new()),
        },
        None => policy::wanted(access, &nowhere, None, None, true),
    };
    compare(relation, &specs)
}

/// Compares these policies with those of their names in the catalog.
pub fn compare(relation: pg_sys::Oid, specs: &[Spec]) -> Result<Vec<Judged>, TenancyError> {
    let mut found = policies_of(relation)?;
    found.retain(|found| specs.iter().any(|spec| spec.name() == found.name));
    if found.is_empty() {
        return Ok(specs.iter().map(|spec| Judged { name: spec.name(), differences: None }).collect());
    }
    // SAFETY: it is there, for it has policies; an error in between ends the statement, whose abort closes it.
    let open = unsafe { pg_sys::table_open(relation, pg_sys::AccessShareLock as i32) };
    let judged = |spec: &Spec| {
        let found = found.iter().find(|found| found.name == spec.name());
        // SAFETY: the relation is open.
        let differences = found.map(|found| unsafe { differences(open, found, spec) });
        Judged { name: spec.name(), differences }
    };
    // No object of the caller's is met, and he need not have a right to look into the schema of our machinery.
    let all = spi::with_catalog_names(|| {
        spi::as_role(pg_sys::Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID), || specs.iter().map(judged).collect())
    });
    // SAFETY: opened above.
    unsafe { pg_sys::table_close(open, pg_sys::AccessShareLock as i32) };
    Ok(all)
}

/// # Safety
/// `relation` is open, and the one that `found` is a policy of.
unsafe fn differences(relation: pg_sys::Relation, found: &Found, spec: &Spec) -> Vec<Difference> {
    // SAFETY: the caller vouches for the relation.
    let same = |wanted: Option<&Sql>, tree: &Option<CString>| unsafe {
        match (wanted, tree) {
            (None, None) => true,
            (Some(wanted), Some(tree)) => is_same(relation, wanted, tree),
            _ => false,
        }
    };
    let lacks_check = found.check.is_none() && spec.check().is_some() && spec.using().is_some();
    let all = [
        (found.is_permissive != spec.is_permissive(), Difference::Kind),
        (char::from(found.command) != spec.command(), Difference::Command),
        (!same(spec.using(), &found.using), Difference::Using),
        (!lacks_check && !same(spec.check(), &found.check), Difference::Check),
        (lacks_check, Difference::LacksCheck),
        (!found.for_public, Difference::Roles),
    ];
    all.into_iter().filter_map(|(differs, difference)| differs.then_some(difference)).collect()
}

/// Whether the catalog's tree is the one that CREATE POLICY makes of an expression. `equal` leaves out where in a text a
/// node came from, and how a cast was written.
///
/// # Safety
/// `relation` is open, and `wanted` an expression of ours over its columns.
unsafe fn is_same(relation: pg_sys::Relation, wanted: &Sql, tree: &CStr) -> bool {
    // SAFETY: the caller vouches for the relation; the catalog's text is that of a node.
    unsafe {
        let wanted = compat::parse_policy(relation, wanted.as_str());
        pg_sys::equal(wanted.cast(), pg_sys::stringToNode(tree.as_ptr()))
    }
}

fn policies_of(relation: pg_sys::Oid) -> Result<Vec<Found>, TenancyError> {
    let key = [Equals::oid(c"polrelid", relation)];
    table::scan(table::POLICIES, table::POLICIES_BY_RELATION, &key, |row| {
        let malformed = || TenancyError::Internal { what: format!("a policy of relation {relation} is malformed") };
        let tree = |column| row.get::<String>(column).map(CString::new).transpose().map_err(|_| malformed());
        let roles = row.get::<Vec<pg_sys::Oid>>(c"polroles").ok_or_else(malformed)?;
        Ok(Found {
            name: row.get::<&CStr>(c"polname").ok_or_else(malformed)?.to_string_lossy().into_owned(),
            is_permissive: row.get(c"polpermissive").ok_or_else(malformed)?,
            command: row.get::<i8>(c"polcmd").ok_or_else(malformed)? as u8,
            for_public: roles == [pg_sys::InvalidOid],
            using: tree(c"polqual")?,
            check: tree(c"polwithcheck")?,
        })
    })
}
