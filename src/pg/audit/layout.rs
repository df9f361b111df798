//! How an audited table's rows are written down: found when a backend first writes for the table, and remembered until
//! the table or what is audited of it changes.
//!
//! A layout that equals one on record is that one; else it is put on record, with the transaction that found it new. Two
//! transactions may do so at once; a layout twice does no harm. One that this transaction made may be rolled back with a
//! savepoint, so it is trusted only as long as its maker is current.

use crate::error::TenancyError;
use crate::model::audit::{self, Images, StoredColumn};
use crate::model::{Ident, KeyKind};
use crate::pg::protected::{self, OidHasher, Protected};
use crate::pg::table::{self, Equals};
use crate::pg::watched::must;
use pgrx::prelude::*;
use pgrx::{JsonB, PgRelation, PgTupleDesc, pg_sys};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::CStr;
use std::hash::BuildHasherDefault;
use std::rc::Rc;

/// How an audited relation's rows are written down.
pub struct Layout {
    pub id: i32,
    /// The transaction that put it on record, where that was still running.
    made_by: pg_sys::TransactionId,
    pub images: Images,
    pub skips_unchanged: bool,
    pub columns: Box<[Column]>,
    /// Places of the key's columns in `columns`, in the key's order; empty for no key.
    pub key: Box<[usize]>,
    /// Places in `columns` of the key's columns that a move to another partition does not change.
    pub lasting_key: Box<[usize]>,
    pub tenant: Option<TenantColumn>,
    /// The highest attribute number that is read.
    pub width: i32,
}

/// A column as its values are read from a row.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its place in a row, from 0.
    pub place: usize,
    pub form: Form,
    pub is_redacted: bool,
    /// The function that makes `jsonb` of a value that cannot be kept as it is; NULL for the others.
    pub convert: *mut pg_sys::FmgrInfo,
    /// The type's hash function; NULL where it has none.
    pub hash: *mut pg_sys::FmgrInfo,
}

/// How a datum holds a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// In itself.
    Direct(u8),
    /// As a pointer to so many bytes.
    Fixed(u16),
    /// As a pointer to bytes that know their length.
    Sized,
}

/// Where a row says whose it is.
#[derive(Clone, Copy, Debug)]
pub struct TenantColumn {
    pub place: usize,
    pub kind: KeyKind,
    pub form: Form,
}

/// What is on record of an audited relation.
struct Config {
    ignored: Vec<String>,
    redacted: Vec<String>,
    images: Images,
    skips_unchanged: bool,
}

const SCHEMA: &CStr = c"tenancy_internal";

thread_local! {
    static KNOWN: RefCell<HashMap<u32, Option<Rc<Layout>>, BuildHasherDefault<OidHasher>>> = RefCell::default();
    /// `tenancy_internal.audited_tables`.
    static RECORD: Cell<pg_sys::Oid> = const { Cell::new(pg_sys::InvalidOid) };
    /// Counts what was forgotten, so that an answer under way is not remembered when it may be out of date.
    static CHANGES: Cell<u64> = const { Cell::new(0) };
}

/// Watches for changes of relations and of the record; called once, from `_PG_init`.
pub fn watch() {
    // SAFETY: the callback is guarded, touches only this backend's memory and raises nothing.
    unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(forget), pg_sys::Datum::from(0)) };
}

#[pg_guard]
unsafe extern "C-unwind" fn forget(_argument: pg_sys::Datum, relation: pg_sys::Oid) {
    CHANGES.set(CHANGES.get() + 1);
    let everything = relation == pg_sys::InvalidOid || relation == RECORD.get();
    let forgotten = KNOWN.with_borrow_mut(|known| {
        if everything {
            RECORD.set(pg_sys::InvalidOid);
            std::mem::take(known)
        } else {
            known.remove_entry(&relation.to_u32()).into_iter().collect()
        }
    });
    drop(forgotten);
}

/// How rows of `relation` are written down, None for a relation that is not audited.
pub fn find(relation: pg_sys::Relation) -> Result<Option<Rc<Layout>>, TenancyError> {
    // SAFETY: the caller has the relation open.
    let oid = unsafe { (*relation).rd_id };
    if let Some(known) = KNOWN.with_borrow(|known| known.get(&oid.to_u32()).cloned()) {
        match known {
            Some(layout) if !layout.is_on_record() => {}
            known => return Ok(known),
        }
    }
    let changes = CHANGES.get();
    let found = look_up(oid, relation)?.map(Rc::new);
    if changes == CHANGES.get() {
        KNOWN.with_borrow_mut(|known| known.insert(oid.to_u32(), found.clone()));
    }
    Ok(found)
}

impl Layout {
    fn is_on_record(&self) -> bool {
        // SAFETY: looks at the state of this backend's transaction.
        self.made_by == pg_sys::InvalidTransactionId
            || unsafe { pg_sys::TransactionIdIsCurrentTransactionId(self.made_by) }
    }

    /// Whether a changed row is written as its whole old and new image.
    pub fn keeps_whole_rows(&self) -> bool {
        self.images == Images::Full || self.images == Images::Diff && self.key.is_empty()
    }
}

fn look_up(oid: pg_sys::Oid, relation: pg_sys::Relation) -> Result<Option<Layout>, TenancyError> {
    let Some(config) = config(oid)? else { return Ok(None) };
    // SAFETY: the caller has the relation open, and closes it.
    let open = unsafe { PgRelation::from_pg(relation) };
    let attributes = open.tuple_desc();
    let key = key_attributes(relation);
    let tenant = tenant_column(oid, &attributes)?;
    let (mut stored, mut columns) = (Vec::new(), Vec::new());
    let mut width = tenant.map_or(0, |tenant| tenant.place as i32 + 1);
    for attribute in attributes.iter() {
        let name = attribute.name();
        let place = key.iter().position(|number| *number == attribute.attnum).map_or(0, |place| place as u16 + 1);
        let is_ignored = place == 0 && config.ignored.iter().any(|ignored| ignored == name);
        if attribute.attisdropped || attribute.attgenerated as u8 == b'v' || is_ignored {
            continue;
        }
        let is_redacted = config.redacted.iter().any(|redacted| redacted == name);
        // SAFETY: syscache lookups.
        let (base, shown) = unsafe {
            let shown = pg_sys::format_type_be(attribute.atttypid);
            (pg_sys::getBaseType(attribute.atttypid), CStr::from_ptr(shown).to_string_lossy().into_owned())
        };
        // SAFETY: a syscache lookup.
        let element = unsafe { pg_sys::get_element_type(base) };
        let kept = audit::stored_type(base.to_u32(), element.to_u32());
        let is_converted = kept != base.to_u32();
        columns.push(Column {
            place: attribute.attnum as usize - 1,
            form: form(attribute),
            is_redacted,
            convert: if is_converted { conversion(base) } else { std::ptr::null_mut() },
            hash: if place > 0 { hash_function(pg_sys::Oid::from(kept)) } else { std::ptr::null_mut() },
        });
        width = width.max(i32::from(attribute.attnum));
        stored.push(StoredColumn {
            name: name.to_owned(),
            shown_type: shown,
            stored: kept,
            key: place,
            redacted: is_redacted,
        });
    }
    let mut key: Vec<usize> = (0..stored.len()).filter(|at| stored[*at].key > 0).collect();
    key.sort_unstable_by_key(|at| stored[*at].key);
    if key.iter().any(|at| stored[*at].redacted) {
        key.clear();
        stored.iter_mut().for_each(|column| column.key = 0);
    }
    let lasting_key =
        key.iter().copied().filter(|at| !is_partitioned_by(relation, columns[*at].place as i16 + 1)).collect();
    let (id, made_by) = on_record(oid, config.images, &stored)?;
    Ok(Some(Layout {
        id,
        made_by,
        images: config.images,
        skips_unchanged: config.skips_unchanged,
        columns: columns.into(),
        key: key.into(),
        lasting_key,
        tenant,
        width,
    }))
}

/// The table that a relation is on record as audited with, itself or a parent; None for a relation that is not audited.
pub fn audited_with(relation: pg_sys::Oid) -> Result<Option<pg_sys::Oid>, TenancyError> {
    let (Some(record), Some(index)) =
        (table::oid(SCHEMA, c"audited_tables"), table::oid(SCHEMA, c"audited_tables_pkey"))
    else {
        return Ok(None);
    };
    let mut lineage = vec![relation];
    let mut found = None;
    while let Some(relation) = lineage.pop() {
        let key = [Equals::oid(c"relation", relation)];
        // The topmost one counts: a table that became part of another is audited like that.
        found = table::scan(record, index, &key, |row| must(row, c"root"))?.into_iter().next().or(found);
        lineage.extend(protected::parents(relation)?);
    }
    Ok(found)
}

/// How a relation is audited: as it is on record, or as its parent is.
fn config(relation: pg_sys::Oid) -> Result<Option<Config>, TenancyError> {
    let (Some(record), Some(index)) =
        (table::oid(SCHEMA, c"audited_tables"), table::oid(SCHEMA, c"audited_tables_pkey"))
    else {
        return Ok(None);
    };
    RECORD.set(record);
    let found = table::scan(record, index, &[Equals::oid(c"relation", relation)], |row| {
        Ok(Config {
            ignored: must(row, c"ignore_columns")?,
            redacted: must(row, c"redact_columns")?,
            images: stored_images(&must::<String>(row, c"row_images")?)?,
            skips_unchanged: must(row, c"skip_unchanged")?,
        })
    })?;
    if let Some(config) = found.into_iter().next() {
        return Ok(Some(config));
    }
    for parent in protected::parents(relation)? {
        if let Some(config) = config(parent)? {
            return Ok(Some(config));
        }
    }
    Ok(None)
}

/// How much of a row is kept, as it is on record.
pub fn stored_images(name: &str) -> Result<Images, TenancyError> {
    Images::from_name(name)
        .ok_or_else(|| TenancyError::Internal { what: format!("unknown row_images \"{name}\" is recorded") })
}

/// The attribute numbers of the primary key, else of the replica identity, in the key's order.
fn key_attributes(relation: pg_sys::Relation) -> Vec<i16> {
    // SAFETY: the caller has the relation open; the index is open while its columns are copied.
    unsafe {
        // Asking for one fills in both.
        let replica_identity = pg_sys::RelationGetReplicaIndex(relation);
        let primary_key = (*relation).rd_pkindex;
        let index = if primary_key == pg_sys::InvalidOid { replica_identity } else { primary_key };
        if index == pg_sys::InvalidOid {
            return Vec::new();
        }
        let index = pg_sys::index_open(index, pg_sys::AccessShareLock as i32);
        let row = (*index).rd_index;
        let numbers = (*row).indkey.values.as_slice((*row).indnkeyatts as usize).to_vec();
        pg_sys::index_close(index, pg_sys::NoLock as i32);
        numbers
    }
}

/// Whether a table is partitioned by an attribute.
fn is_partitioned_by(relation: pg_sys::Relation, number: i16) -> bool {
    unsafe extern "C-unwind" {
        // Not in the bindings.
        fn has_partition_attrs(
            relation: pg_sys::Relation,
            attributes: *mut pg_sys::Bitmapset,
            used_in_expression: *mut bool,
        ) -> bool;
    }
    // SAFETY: the caller has the relation open; sets of attributes begin with those of the system. The boundary turns an
    // error into a panic, as for the functions of the bindings.
    unsafe {
        let attribute = pg_sys::bms_make_singleton(i32::from(number) - pg_sys::FirstLowInvalidHeapAttributeNumber);
        pg_sys::submodules::ffi::pg_guard_ffi_boundary(|| {
            has_partition_attrs(relation, attribute, std::ptr::null_mut())
        })
    }
}

fn tenant_column(relation: pg_sys::Oid, attributes: &PgTupleDesc<'_>) -> Result<Option<TenantColumn>, TenancyError> {
    let found = protected::find(relation)?;
    let Some(Protected::Table(table)) = found.as_deref() else { return Ok(None) };
    let (Some(column), Some(kind)) = (&table.column, table.key) else { return Ok(None) };
    let attribute = attributes.iter().find(|attribute| !attribute.attisdropped && attribute.name() == column.as_str());
    match attribute {
        Some(attribute) => Ok(Some(TenantColumn { place: attribute.attnum as usize - 1, kind, form: form(attribute) })),
        None => Err(lost(relation, column)),
    }
}

fn lost(relation: pg_sys::Oid, column: &Ident) -> TenancyError {
    TenancyError::LostTenantColumn { relation: protected::name_of(relation), column: column.clone() }
}

fn form(attribute: &pg_sys::FormData_pg_attribute) -> Form {
    Form::of(attribute.attbyval, attribute.attlen)
}

impl Form {
    /// How values of a type are held.
    pub fn of(by_value: bool, length: i16) -> Self {
        match (by_value, length) {
            (true, length) => Self::Direct(length as u8),
            (false, length) if length > 0 => Self::Fixed(length as u16),
            _ => Self::Sized,
        }
    }
}

/// `to_jsonb` for values of a type. Lives as long as the backend; there are few types.
pub fn conversion(base: pg_sys::Oid) -> *mut pg_sys::FmgrInfo {
    // SAFETY: the memory outlives every use; the function learns its argument's type from the node.
    unsafe {
        let before = pg_sys::MemoryContextSwitchTo(pg_sys::CacheMemoryContext);
        let function = pg_sys::palloc0(size_of::<pg_sys::FmgrInfo>()).cast::<pg_sys::FmgrInfo>();
        pg_sys::fmgr_info_cxt(pg_sys::Oid::from(pg_sys::F_TO_JSONB), function, pg_sys::CacheMemoryContext);
        let argument = pg_sys::palloc0(size_of::<pg_sys::Param>()).cast::<pg_sys::Param>();
        (*argument).xpr.type_ = pg_sys::NodeTag::T_Param;
        (*argument).paramtype = base;
        (*argument).paramtypmod = -1;
        let call = pg_sys::makeFuncExpr(
            pg_sys::Oid::from(pg_sys::F_TO_JSONB),
            pg_sys::JSONBOID,
            pg_sys::lappend(std::ptr::null_mut(), argument.cast()),
            pg_sys::InvalidOid,
            pg_sys::InvalidOid,
            pg_sys::CoercionForm::COERCE_EXPLICIT_CALL,
        );
        (*function).fn_expr = call.cast();
        pg_sys::MemoryContextSwitchTo(before);
        function
    }
}

/// The extended hash function of a type, NULL where it has none.
pub fn hash_function(type_oid: pg_sys::Oid) -> *mut pg_sys::FmgrInfo {
    // SAFETY: entries of the type cache live as long as the backend.
    unsafe {
        let entry = pg_sys::lookup_type_cache(type_oid, pg_sys::TYPECACHE_HASH_EXTENDED_PROC_FINFO as i32);
        let function = &raw mut (*entry).hash_extended_proc_finfo;
        if (*function).fn_oid == pg_sys::InvalidOid { std::ptr::null_mut() } else { function }
    }
}

/// The layout on record that has these columns, with its maker if that is still running; a new one where there is none.
fn on_record(
    relation: pg_sys::Oid,
    images: Images,
    columns: &[StoredColumn],
) -> Result<(i32, pg_sys::TransactionId), TenancyError> {
    let name = protected::name_of(relation);
    let [layouts, index, ids] = relations([c"audit_layouts", c"audit_layouts_relation_idx", c"audit_layout_ids"])?;
    let same = table::scan(layouts, index, &[Equals::oid(c"relation", relation)], |row| {
        let is_same = must::<String>(row, c"name")? == name
            && must::<String>(row, c"row_images")? == images.name()
            && stored_columns(must(row, c"columns")?)? == columns;
        Ok(if is_same { Some((must::<i32>(row, c"id")?, row.made_by)) } else { None })
    })?;
    // SAFETY: looks at the state of this backend's transaction.
    let is_running = |maker: pg_sys::TransactionId| unsafe { pg_sys::TransactionIdIsCurrentTransactionId(maker) };
    if let Some((id, maker)) = same.into_iter().flatten().next() {
        return Ok((id, if is_running(maker) { maker } else { pg_sys::InvalidTransactionId }));
    }
    let id = i32::try_from(table::next_value(ids)).expect("the sequence is one of integers");
    let described =
        serde_json::to_value(columns).map_err(|error| TenancyError::Internal { what: error.to_string() })?;
    // SAFETY: the clock.
    let now = unsafe { pg_sys::GetCurrentTimestamp() };
    let values = [
        id.into_datum(),
        relation.into_datum(),
        name.into_datum(),
        images.name().into_datum(),
        JsonB(described).into_datum(),
        now.into_datum(),
    ];
    let mut values = values.map(|value| value.expect("no column of a layout is null"));
    // SAFETY: the columns of the table, in their order.
    unsafe { table::insert(layouts, &mut values, &mut [false; 6]) };
    // SAFETY: gives the transaction that has just written.
    Ok((id, unsafe { pg_sys::GetCurrentTransactionId() }))
}

/// The columns of a layout, as they are on record.
pub fn stored_columns(columns: JsonB) -> Result<Vec<StoredColumn>, TenancyError> {
    serde_json::from_value(columns.0)
        .map_err(|error| TenancyError::Internal { what: format!("a layout of the audit log is malformed: {error}") })
}

/// The oids of relations of ours.
pub fn relations<const N: usize>(names: [&CStr; N]) -> Result<[pg_sys::Oid; N], TenancyError> {
    let found = names.map(|name| table::oid(SCHEMA, name).unwrap_or(pg_sys::InvalidOid));
    if found.contains(&pg_sys::InvalidOid) { Err(TenancyError::NotInstalled) } else { Ok(found) }
}
