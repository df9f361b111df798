//! The backend's memory of which relations are protected, so that no statement searches a catalog for it.

use super::nesting;
use super::table::{self, Equals};
use super::{compat, spi};
use crate::error::TenancyError;
use crate::model::policy::{self, Access};
use crate::model::table::Column;
use crate::model::{Ident, KeyKind, QualifiedName};
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_int};
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

/// What a relation is to isolation.
pub enum Protected {
    Table(Table),
    /// A table that is not protected and shows the rows of protected partitions or children.
    OpenParent,
    /// A materialized view with rows of protected tables.
    MaterializedView,
}

impl Protected {
    /// Whether some rows are not for everybody; those of a reference table are.
    pub fn hides_rows(&self) -> bool {
        !matches!(self, Self::Table(Table { access: Access::Reference, .. }))
    }
}

/// A protected table, or a partition or child of one, whether or not that is on record itself.
pub struct Table {
    pub relation: pg_sys::Oid,
    pub access: Access,
    pub column: Option<Ident>,
    pub key: Option<KeyKind>,
    policies: OnceCell<Parsed>,
    /// The role that row security was last found to filter here, and `ROLE_CHANGES` then.
    filtered: Cell<Option<(pg_sys::Oid, u64)>>,
}

impl Table {
    /// Whether row security filters what `role` does with `relation`, whose entry this is.
    pub fn filters(&self, relation: pg_sys::Oid, role: pg_sys::Oid) -> bool {
        let now = (role, ROLE_CHANGES.get());
        // What lifts FORCE for a while is no change of the catalog.
        if self.filtered.get() == Some(now) && !nesting::is_lifted() {
            return true;
        }
        // SAFETY: reads the catalog; with noError it raises nothing.
        let answer = unsafe { pg_sys::check_enable_rls(relation, role, true) };
        let filters = answer == pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32;
        self.filtered.set(filters.then_some(now));
        filters
    }
}

/// Restrictive policies as trees, in memory of their own.
struct Parsed {
    memory: pg_sys::MemoryContext,
    policies: Vec<Tree>,
}

struct Tree {
    name: CString,
    command: u8,
    using: *mut pg_sys::Node,
    check: *mut pg_sys::Node,
}

impl Drop for Parsed {
    fn drop(&mut self) {
        // SAFETY: the context was made for these trees, and what was handed out of it are copies.
        unsafe { pg_sys::MemoryContextDelete(self.memory) }
    }
}

/// Oids are spread well enough by themselves.
#[derive(Default)]
pub(super) struct OidHasher(u64);

impl Hasher for OidHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, oid: u32) {
        self.0 = (self.0 ^ u64::from(oid)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[derive(Default)]
struct Memory {
    known: HashMap<u32, Option<Rc<Protected>>, BuildHasherDefault<OidHasher>>,
    /// `tenancy_internal.protected_tables`, with its index.
    record: Option<Record>,
}

#[derive(Clone, Copy)]
struct Record {
    table: pg_sys::Oid,
    index: pg_sys::Oid,
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
    /// Counts what was forgotten, so that an answer under way is not remembered when it may be out of date.
    static CHANGES: Cell<u64> = const { Cell::new(0) };
    /// Counts changes of roles and of their memberships.
    static ROLE_CHANGES: Cell<u64> = const { Cell::new(0) };
}

/// Watches for changes of relations and of the record; called once, from `_PG_init`.
pub fn watch() {
    // SAFETY: the callbacks are guarded, touch only this backend's memory and raise nothing.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(forget), pg_sys::Datum::from(0));
        for cache in [pg_sys::SysCacheIdentifier::AUTHOID, pg_sys::SysCacheIdentifier::AUTHMEMROLEMEM] {
            pg_sys::CacheRegisterSyscacheCallback(cache as c_int, Some(note_role_change), pg_sys::Datum::from(0));
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn note_role_change(_argument: pg_sys::Datum, _cache: c_int, _hash: u32) {
    ROLE_CHANGES.set(ROLE_CHANGES.get() + 1);
}

#[pg_guard]
unsafe extern "C-unwind" fn forget(_argument: pg_sys::Datum, relation: pg_sys::Oid) {
    CHANGES.set(CHANGES.get() + 1);
    let forgotten = MEMORY.with_borrow_mut(|memory| match memory.record {
        Some(record) if record.table != relation && relation != pg_sys::InvalidOid => {
            let mut one = Memory::default();
            one.known.extend(memory.known.remove_entry(&relation.to_u32()));
            one
        }
        // Any new relation may be the record of an extension that was just created.
        _ => std::mem::take(memory),
    });
    drop(forgotten);
}

/// What `relation` is to isolation, None for a relation that is not protected. Needs a transaction.
pub fn find(relation: pg_sys::Oid) -> Result<Option<Rc<Protected>>, TenancyError> {
    if let Some(known) = MEMORY.with_borrow(|memory| memory.known.get(&relation.to_u32()).cloned()) {
        return Ok(known);
    }
    let changes = CHANGES.get();
    let found = look_up(relation)?.map(Rc::new);
    if changes == CHANGES.get() {
        MEMORY.with_borrow_mut(|memory| memory.known.insert(relation.to_u32(), found.clone()));
    }
    Ok(found)
}

fn look_up(relation: pg_sys::Oid) -> Result<Option<Protected>, TenancyError> {
    let Some(record) = record() else { return Ok(None) };
    // SAFETY: a syscache lookup; a relation that is gone has kind 0.
    match unsafe { pg_sys::get_rel_relkind(relation) } as u8 {
        b'r' | b'p' => match table_on_record(record, relation, relation)? {
            Some(table) => Ok(Some(Protected::Table(table))),
            None => Ok(has_protected_children(record, relation)?.then_some(Protected::OpenParent)),
        },
        b'm' => Ok(reads_protected_table(relation)?.then_some(Protected::MaterializedView)),
        _ => Ok(None),
    }
}

fn record() -> Option<Record> {
    if let Some(record) = MEMORY.with_borrow(|memory| memory.record) {
        return Some(record);
    }
    let table = table::oid(c"tenancy_internal", c"protected_tables")?;
    let index = table::oid(c"tenancy_internal", c"protected_tables_pkey")?;
    let record = Record { table, index };
    MEMORY.with_borrow_mut(|memory| memory.record = Some(record));
    Some(record)
}

/// The protection of `relation`: its own, or that of the nearest parent that has one.
fn table_on_record(record: Record, relation: pg_sys::Oid, sought: pg_sys::Oid) -> Result<Option<Table>, TenancyError> {
    let rows = table::scan(record.table, record.index, &[Equals::oid(c"relation", sought)], |row| {
        let malformed =
            || TenancyError::Internal { what: format!("the record of protected relation {sought} is malformed") };
        let access = row.get::<String>(c"access").as_deref().and_then(Access::from_name).ok_or_else(malformed)?;
        let column = row.get::<&CStr>(c"tenant_column").map(|name| Ident::new(&name.to_string_lossy())).transpose()?;
        let key = row.get::<String>(c"tenant_key").as_deref().and_then(KeyKind::from_column);
        Ok(Table { relation, access, column, key, policies: OnceCell::new(), filtered: Cell::new(None) })
    })?;
    if let Some(table) = rows.into_iter().next() {
        return Ok(Some(table));
    }
    for parent in parents(sought)? {
        if let Some(table) = table_on_record(record, relation, parent)? {
            return Ok(Some(table));
        }
    }
    Ok(None)
}

/// Whether a partition or child of `relation`, at whatever depth, is on record.
fn has_protected_children(record: Record, relation: pg_sys::Oid) -> Result<bool, TenancyError> {
    if !compat::class_row(relation).is_some_and(|row| row.relhassubclass) {
        return Ok(false);
    }
    let key = Equals::oid(c"inhparent", relation);
    for child in table::scan(table::INHERITS, table::INHERITS_BY_PARENT, &[key], |row| Ok(row.get(c"inhrelid")))? {
        let child: pg_sys::Oid = child.unwrap_or(pg_sys::InvalidOid);
        let key = Equals::oid(c"relation", child);
        let is_on_record = !table::scan(record.table, record.index, &[key], |_| Ok(()))?.is_empty();
        if is_on_record || has_protected_children(record, child)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a materialized view is read as `owner`, who has a view of it that `tenancy.tenant_view` made. A view of his that
/// was not made so is what the guard refuses, or an administrator has been warned of.
pub fn is_read_through_tenant_view(matview: pg_sys::Oid, owner: pg_sys::Oid) -> Result<bool, TenancyError> {
    const SCHEMA: &CStr = c"tenancy_internal";
    let (table, index) = (table::oid(SCHEMA, c"tenant_views"), table::oid(SCHEMA, c"tenant_views_matview_idx"));
    let (Some(table), Some(index), true) = (table, index, owner != pg_sys::InvalidOid) else { return Ok(false) };
    let views = table::scan(table, index, &[Equals::oid(c"matview", matview)], |row| {
        Ok(row.get::<pg_sys::Oid>(c"view").unwrap_or(pg_sys::InvalidOid))
    })?;
    Ok(views.into_iter().any(|view| compat::class_row(view).is_some_and(|row| row.relowner == owner)))
}

/// The tables that `relation` is a partition or child of.
pub fn parents(relation: pg_sys::Oid) -> Result<Vec<pg_sys::Oid>, TenancyError> {
    table::scan(table::INHERITS, table::INHERITS_BY_CHILD, &[Equals::oid(c"inhrelid", relation)], |row| {
        Ok(row.get(c"inhparent").unwrap_or(pg_sys::InvalidOid))
    })
}

/// Whether `relation` is a view that reads a protected table, directly or through other views.
pub fn is_view_of_protected_table(relation: pg_sys::Oid) -> Result<bool, TenancyError> {
    // SAFETY: a syscache lookup; a relation that is gone has kind 0.
    let is_view = unsafe { pg_sys::get_rel_relkind(relation) } as u8 == b'v';
    if is_view { reads_protected_table(relation) } else { Ok(false) }
}

/// Whether a view's query reads a protected table, directly or through other views.
pub fn reads_protected_table(view: pg_sys::Oid) -> Result<bool, TenancyError> {
    let mut seen = vec![view];
    let mut next = 0;
    while let Some(&view) = seen.get(next) {
        next += 1;
        for read in relations_read_by(view)? {
            if seen.contains(&read) {
                continue;
            }
            // SAFETY: a syscache lookup.
            if matches!(unsafe { pg_sys::get_rel_relkind(read) } as u8, b'v' | b'm') {
                seen.push(read);
            } else if find(read)?.is_some_and(|found| found.hides_rows()) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The relations that the query of a view names.
pub fn relations_read_by(view: pg_sys::Oid) -> Result<Vec<pg_sys::Oid>, TenancyError> {
    let rules = table::scan(table::RULES, table::RULES_BY_RELATION, &[Equals::oid(c"ev_class", view)], |row| {
        Ok(row.get::<pg_sys::Oid>(c"oid").unwrap_or(pg_sys::InvalidOid))
    })?;
    let mut read = Vec::new();
    for rule in rules {
        let names = table::scan(
            table::DEPENDENCIES,
            table::DEPENDENCIES_BY_DEPENDENT,
            &[Equals::oid(c"classid", table::RULES), Equals::oid(c"objid", rule)],
            |row| {
                let is_relation = row.get::<pg_sys::Oid>(c"refclassid") == Some(pg_sys::RelationRelationId);
                Ok(row.get::<pg_sys::Oid>(c"refobjid").filter(|_| is_relation))
            },
        )?;
        read.extend(names.into_iter().flatten().filter(|relation| *relation != view));
    }
    Ok(read)
}

impl Table {
    /// The restrictive policies for a command, as copies in the current memory context.
    ///
    /// They are the very ones that `protect_table` writes to the catalog. PostgreSQL merges equal ones, so where those
    /// are in place the copies cost nothing, and where they were altered or dropped these are still there.
    ///
    /// # Safety
    /// `relation` is open and is this table.
    pub unsafe fn restrictive_policies(
        &self,
        command: u8,
        relation: pg_sys::Relation,
    ) -> Result<*mut pg_sys::List, TenancyError> {
        if self.policies.get().is_none() {
            // SAFETY: the caller vouches for the relation.
            let parsed = unsafe { self.parse(relation)? };
            // Parsing reads catalogs, which may have filled it meanwhile by the same way.
            drop(self.policies.set(parsed));
        }
        let policies = self.policies.get().map_or(&[][..], |parsed| &parsed.policies);
        let mut list = std::ptr::null_mut();
        for policy in policies.iter().filter(|policy| policy.command == b'*' || policy.command == command) {
            // SAFETY: trees made by the parser, which outlive this call; copies and list are palloc'ed.
            unsafe {
                let copy = pg_sys::palloc0(size_of::<pg_sys::RowSecurityPolicy>()).cast::<pg_sys::RowSecurityPolicy>();
                (*copy).policy_name = pg_sys::pstrdup(policy.name.as_ptr());
                (*copy).polcmd = policy.command as _;
                (*copy).roles = everybody();
                (*copy).qual = copied(policy.using).cast();
                (*copy).with_check_qual = copied(policy.check).cast();
                list = pg_sys::lappend(list, copy.cast());
            }
        }
        Ok(list)
    }

    unsafe fn parse(&self, relation: pg_sys::Relation) -> Result<Parsed, TenancyError> {
        let lost = |column: &Ident| TenancyError::LostTenantColumn {
            relation: name_of(self.relation),
            column: column.clone(),
        };
        let found = match &self.column {
            Some(column) => Some(described(self.relation, column)?.ok_or_else(|| lost(column))?),
            None => None,
        };
        let column = self.column.clone().unwrap_or_else(|| policy::name(policy::ISOLATION));
        let specs = policy::wanted(self.access, &column, found.as_ref(), self.key, false);
        // SAFETY: a context below the one that lives as long as the backend.
        let memory = unsafe {
            pg_sys::AllocSetContextCreateInternal(
                pg_sys::CacheMemoryContext,
                c"pg_tenancy policies".as_ptr(),
                0,
                1024,
                8192,
            )
        };
        let mut parsed = Parsed { memory, policies: Vec::new() };
        for spec in specs {
            // SAFETY: the caller vouches for the relation; the trees are copied to their own memory.
            let tree = |sql: Option<&crate::model::Sql>| unsafe {
                match sql {
                    Some(sql) => kept(memory, compat::parse_policy(relation, sql.as_str())),
                    None => std::ptr::null_mut(),
                }
            };
            // An application has no right to look into the schema of our machinery.
            parsed.policies.push(spi::with_catalog_names(|| {
                spi::as_role(pg_sys::Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID), || Tree {
                    name: CString::new(spec.name()).expect("our names hold no NUL"),
                    command: spec.command() as u8,
                    using: tree(spec.using()),
                    check: tree(spec.check()),
                })
            }));
        }
        Ok(parsed)
    }
}

/// The role list of a policy for PUBLIC.
unsafe fn everybody() -> *mut pg_sys::ArrayType {
    let mut public = pg_sys::Datum::from(pg_sys::ACL_ID_PUBLIC);
    // SAFETY: one oid, with that type's properties.
    unsafe { pg_sys::construct_array(&mut public, 1, pg_sys::OIDOID, 4, true, b'i' as _) }
}

unsafe fn copied(tree: *mut pg_sys::Node) -> *mut pg_sys::Node {
    // SAFETY: NULL stays NULL; else the caller passes a node.
    unsafe { pg_sys::copyObjectImpl(tree.cast()).cast() }
}

unsafe fn kept(memory: pg_sys::MemoryContext, tree: *mut pg_sys::Node) -> *mut pg_sys::Node {
    // SAFETY: the context is put back; an error in between ends the statement, whose abort resets it.
    unsafe {
        let before = pg_sys::MemoryContextSwitchTo(memory);
        let copy = copied(tree);
        pg_sys::MemoryContextSwitchTo(before);
        copy
    }
}

/// What policies need to know of the tenant column; None where it is gone.
pub(super) fn described(relation: pg_sys::Oid, column: &Ident) -> Result<Option<Column>, TenancyError> {
    let name = CString::new(column.as_str()).expect("a name holds no NUL");
    // SAFETY: syscache lookups; names are copied at once.
    unsafe {
        let number = pg_sys::get_attnum(relation, name.as_ptr());
        if number == pg_sys::InvalidAttrNumber as i16 {
            return Ok(None);
        }
        let declared = pg_sys::get_atttype(relation, number);
        let base = pg_sys::getBaseType(declared);
        let shown = |type_oid| CStr::from_ptr(pg_sys::format_type_be(type_oid)).to_string_lossy().into_owned();
        Ok(Some(Column {
            name: column.clone(),
            type_name: compat::type_name(base).into(),
            shown_type: shown(declared).into(),
            is_domain: base != declared,
            not_null: false,
            default: None,
            has_loose_collation: false,
        }))
    }
}

/// The name of a relation as messages show it.
pub fn name_of(relation: pg_sys::Oid) -> String {
    match qualified_name_of(relation) {
        Ok(name) => name.to_string(),
        Err(_) => format!("with OID {relation}"),
    }
}

/// The name of a relation. 42704 when there is none.
pub fn qualified_name_of(relation: pg_sys::Oid) -> Result<QualifiedName, TenancyError> {
    // SAFETY: syscache lookups that give NULL for a relation that is gone; names are copied at once.
    unsafe {
        let name = pg_sys::get_rel_name(relation);
        let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(relation));
        if name.is_null() || schema.is_null() {
            return Err(TenancyError::UnknownRelation { oid: relation.to_u32() });
        }
        let ident = |name| Ident::new(&CStr::from_ptr(name).to_string_lossy());
        Ok(QualifiedName { schema: ident(schema)?, name: ident(name)? })
    }
}
