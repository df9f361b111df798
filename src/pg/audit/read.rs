//! Reads the images of rows back, as `jsonb` that PostgreSQL makes of the values.

use super::layout::{self, Form, relations};
use super::log;
use crate::error::TenancyError;
use crate::model::audit::{Bitmap, Images, JSONB, Reader, StoredColumn, is_text, least_bytes};
use crate::pg::json::{self, Object};
use crate::pg::table::{self, Equals};
use crate::pg::watched::must;
use pgrx::prelude::*;
use pgrx::{AnyElement, pg_sys};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::rc::Rc;
use uuid::Uuid;

/// A layout as images are read by it.
pub struct Readable {
    images: Images,
    columns: Vec<Column>,
    /// Places of the key's columns, in the key's order.
    key: Vec<usize>,
}

struct Column {
    name: CString,
    stored: pg_sys::Oid,
    form: Form,
    /// Bytes that each value of the type has at least.
    least: usize,
    is_text: bool,
    is_redacted: bool,
    /// NULL for what is `jsonb` already.
    convert: *mut pg_sys::FmgrInfo,
    hash: *mut pg_sys::FmgrInfo,
}

/// What an entry says of a row.
pub struct Entry {
    pub key: Option<AnyElement>,
    /// Names of the changed columns, for a change.
    pub changed: Option<Vec<String>>,
    pub old: Option<AnyElement>,
    pub new: Option<AnyElement>,
}

/// What stands for a value that is not kept.
const REDACTED: &CStr = c"[redacted]";
/// Beyond so many layouts a backend begins anew to remember them.
const CAPACITY: usize = 1_000;

thread_local! {
    static KNOWN: RefCell<HashMap<i32, Rc<Readable>>> = RefCell::default();
}

/// A layout on record. It never changes, so it is remembered.
pub fn readable(id: i32) -> Result<Rc<Readable>, TenancyError> {
    if let Some(known) = KNOWN.with_borrow(|known| known.get(&id).cloned()) {
        return Ok(known);
    }
    let [layouts, index] = relations([c"audit_layouts", c"audit_layouts_pkey"])?;
    let value = id.into_datum().expect("an integer is never null");
    let by_id = Equals { column: c"id", function: pg_sys::F_INT4EQ, collation: pg_sys::InvalidOid, value };
    let found = table::scan(layouts, index, &[by_id], |row| {
        let images = layout::stored_images(&must::<String>(row, c"row_images")?)?;
        Readable::new(images, &layout::stored_columns(must(row, c"columns")?)?)
    })?;
    let missing = || TenancyError::Internal { what: format!("layout {id} of the audit log is missing") };
    let readable = Rc::new(found.into_iter().next().ok_or_else(missing)?);
    KNOWN.with_borrow_mut(|known| {
        if known.len() >= CAPACITY {
            known.clear();
        }
        known.insert(id, readable.clone());
    });
    Ok(readable)
}

/// A row of the log, as far as its entries are made from it.
pub struct Chunk {
    pub tenant: Option<Uuid>,
    layout: Option<i32>,
    action: i8,
    rows: i16,
    images: Option<Vec<u8>>,
}

/// The row of the log at a place of one of its partitions; None where the running statement sees none there. Nobody but the
/// log gives bytes to be read: most types have stored forms that PostgreSQL itself takes on trust.
pub fn chunk(partition: pg_sys::Oid, place: pg_sys::ItemPointerData) -> Result<Option<Chunk>, TenancyError> {
    if !log::is_partition(partition)? {
        return Ok(None);
    }
    table::fetch(partition, place, |row| {
        let tenant = row.get::<pgrx::Uuid>(c"tenant_id").map(|tenant| Uuid::from_bytes(*tenant.as_bytes()));
        let (layout, images) = (row.get(c"layout"), row.get(c"images"));
        Ok(Chunk { tenant, layout, action: must(row, c"action")?, rows: must(row, c"row_count")?, images })
    })
}

impl Chunk {
    /// Its entries; one that has no values where there is no layout or nothing was kept.
    pub fn entries(&self) -> Result<Vec<Entry>, TenancyError> {
        match (self.layout, &self.images) {
            (Some(layout), Some(images)) => {
                readable(layout)?.entries(self.action as u8, self.rows.max(0) as usize, images)
            }
            _ => Ok(vec![Entry { key: None, changed: None, old: None, new: None }]),
        }
    }
}

/// A row's key as the log has it under a layout, with its hash; None for an object that is no key of it.
pub fn find_key(layout: i32, key: AnyElement) -> Result<Option<(Option<i64>, AnyElement)>, TenancyError> {
    let readable = readable(layout)?;
    // SAFETY: the SQL signature of the door says jsonb.
    Ok(unsafe { readable.find_key(key.datum()) })
}

impl Readable {
    fn new(images: Images, stored: &[StoredColumn]) -> Result<Self, TenancyError> {
        let mut key: Vec<usize> = (0..stored.len()).filter(|at| stored[*at].key > 0).collect();
        key.sort_unstable_by_key(|at| stored[*at].key);
        let columns = stored.iter().map(Column::new).collect::<Result<_, _>>()?;
        Ok(Self { images, columns, key })
    }

    /// The rows of a chunk. Values are in the current memory context.
    pub fn entries(&self, action: u8, rows: usize, images: &[u8]) -> Result<Vec<Entry>, TenancyError> {
        let mut reader = Reader::new(images);
        let entries: Option<Vec<Entry>> = (0..rows).map(|_| self.entry(action, &mut reader)).collect();
        match entries {
            Some(entries) if reader.is_at_end() => Ok(entries),
            _ => Err(TenancyError::Internal { what: "an image in the audit log is malformed".to_owned() }),
        }
    }

    fn entry(&self, action: u8, reader: &mut Reader<'_>) -> Option<Entry> {
        if action == b'U' {
            return self.change(reader);
        }
        let nothing = Entry { key: None, changed: None, old: None, new: None };
        if self.images == Images::None {
            return Some(Entry { key: self.key(reader)?.0, ..nothing });
        }
        let row = self.image(reader)?;
        let key = self.key_of(&row);
        let image = Some(self.object(&row, |_| true));
        Some(if action == b'D' { Entry { key, old: image, ..nothing } } else { Entry { key, new: image, ..nothing } })
    }

    fn change(&self, reader: &mut Reader<'_>) -> Option<Entry> {
        let bits = self.columns.len();
        let names = |changed: Bitmap<'_>| {
            let set = self.columns.iter().enumerate().filter(|(at, _)| changed.is_set(*at));
            Some(set.map(|(_, column)| column.name.to_string_lossy().into_owned()).collect())
        };
        if self.images == Images::Full || self.images == Images::Diff && self.key.is_empty() {
            let changed = reader.bitmap(bits)?;
            let (old, new) = (self.image(reader)?, self.image(reader)?);
            let shows = |at| self.images == Images::Full || changed.is_set(at);
            return Some(Entry {
                key: self.key_of(&old),
                changed: names(changed),
                old: Some(self.object(&old, |_| true)),
                new: Some(self.object(&new, shows)),
            });
        }
        let (key, _) = self.key(reader)?;
        let changed = reader.bitmap(bits)?;
        if self.images == Images::None {
            return Some(Entry { key, changed: names(changed), old: None, new: None });
        }
        let is_kept = |at: &usize| changed.is_set(*at) && !self.columns[*at].is_redacted;
        let kept: Vec<usize> = (0..bits).filter(is_kept).collect();
        let nulls = reader.bitmap(2 * kept.len())?;
        let mut side = |side: usize| {
            let mut row = vec![None; bits];
            for (place, at) in kept.iter().enumerate() {
                if !nulls.is_set(2 * place + side) {
                    row[*at] = Some(self.columns[*at].value(reader)?);
                }
            }
            Some(self.object(&row, |at| changed.is_set(at)))
        };
        let (old, new) = (side(0)?, side(1)?);
        Some(Entry { key, changed: names(changed), old: Some(old), new: Some(new) })
    }

    /// The row of a whole image; None for NULL and for what is redacted.
    fn image(&self, reader: &mut Reader<'_>) -> Option<Vec<Option<pg_sys::Datum>>> {
        let nulls = reader.bitmap(self.columns.len())?;
        let value = |(at, column): (usize, &Column)| {
            if nulls.is_set(at) { Some(None) } else { column.value(reader).map(Some) }
        };
        self.columns.iter().enumerate().map(value).collect()
    }

    fn key(&self, reader: &mut Reader<'_>) -> Option<(Option<AnyElement>, Vec<Option<pg_sys::Datum>>)> {
        let mut row = vec![None; self.columns.len()];
        for at in &self.key {
            row[*at] = Some(self.columns[*at].value(reader)?);
        }
        Some((self.key_of(&row), row))
    }

    fn key_of(&self, row: &[Option<pg_sys::Datum>]) -> Option<AnyElement> {
        if self.key.is_empty() { None } else { Some(self.object(row, |at| self.key.contains(&at))) }
    }

    fn object(&self, row: &[Option<pg_sys::Datum>], shows: impl Fn(usize) -> bool) -> AnyElement {
        let mut object = Object::new();
        for (at, column) in self.columns.iter().enumerate().filter(|(at, _)| shows(*at)) {
            // SAFETY: values of the column's type, in the current memory context; names live as long as the layout.
            unsafe {
                if column.is_redacted {
                    object.put_text(&column.name, REDACTED);
                } else {
                    object.put(&column.name, row[at].map(|value| column.json(value)));
                }
            }
        }
        json::answer(object.done())
    }

    /// The hash by which the log finds the row with this key, and the key as the log writes it; None for an object that
    /// is no key of this layout.
    ///
    /// # Safety
    /// `key` is a `jsonb` object.
    unsafe fn find_key(&self, key: pg_sys::Datum) -> Option<(Option<i64>, AnyElement)> {
        let (mut hash, mut row) = (Some(0_i64), vec![None; self.columns.len()]);
        for at in &self.key {
            let column = &self.columns[*at];
            // SAFETY: the caller's.
            let value = unsafe { column.found_in(key)? };
            // SAFETY: the type's own function; a value of the type.
            hash = hash.filter(|_| !column.hash.is_null()).map(|hash| unsafe {
                let seed = pg_sys::Datum::from(hash);
                pg_sys::FunctionCall2Coll(column.hash, pg_sys::C_COLLATION_OID, value, seed).value() as i64
            });
            row[*at] = Some(value);
        }
        Some((hash, self.key_of(&row)?))
    }
}

impl Column {
    fn new(stored: &StoredColumn) -> Result<Self, TenancyError> {
        let name =
            CString::new(stored.name.as_str()).map_err(|error| TenancyError::Internal { what: error.to_string() })?;
        let oid = pg_sys::Oid::from(stored.stored);
        let (mut length, mut by_value) = (0, false);
        // SAFETY: a syscache lookup.
        unsafe { pg_sys::get_typlenbyval(oid, &mut length, &mut by_value) };
        Ok(Self {
            name,
            stored: oid,
            form: Form::of(by_value, length),
            // SAFETY: a syscache lookup.
            least: least_bytes(stored.stored, unsafe { pg_sys::get_element_type(oid) } != pg_sys::InvalidOid),
            is_text: is_text(stored.stored),
            is_redacted: stored.redacted,
            convert: if stored.stored == JSONB { std::ptr::null_mut() } else { layout::conversion(oid) },
            hash: if stored.key > 0 { layout::hash_function(oid) } else { std::ptr::null_mut() },
        })
    }

    /// The next value of an image.
    fn value(&self, reader: &mut Reader<'_>) -> Option<pg_sys::Datum> {
        Some(match self.form {
            Form::Direct(length) => {
                let mut bytes = [0; 8];
                bytes[..length.into()].copy_from_slice(reader.take(length.into())?);
                pg_sys::Datum::from(u64::from_le_bytes(bytes))
            }
            Form::Fixed(length) => {
                let bytes = reader.take(length.into())?;
                if self.is_text && !is_encoded(bytes.split(|byte| *byte == 0).next()?) {
                    return None;
                }
                copied(bytes, 0)
            }
            Form::Sized => {
                let bytes = reader.sized()?;
                if bytes.len() < self.least || self.is_text && !is_encoded(bytes) {
                    return None;
                }
                copied(bytes, pg_sys::VARHDRSZ)
            }
        })
    }

    /// A value as `jsonb`.
    unsafe fn json(&self, value: pg_sys::Datum) -> pg_sys::Datum {
        if self.convert.is_null() {
            return value;
        }
        // SAFETY: to_jsonb, prepared for this type.
        unsafe { pg_sys::FunctionCall1Coll(self.convert, pg_sys::InvalidOid, value) }
    }

    /// The value of this column in an object; None where it has none.
    ///
    /// # Safety
    /// `object` is a `jsonb`.
    unsafe fn found_in(&self, object: pg_sys::Datum) -> Option<pg_sys::Datum> {
        let name = self.name.to_string_lossy();
        // SAFETY: the caller's; the type's own input function, for a C string.
        unsafe {
            if self.convert.is_null() {
                return json::field(object, &name, false);
            }
            let text = pg_sys::text_to_cstring(json::field(object, &name, true)?.cast_mut_ptr());
            let (mut input, mut parameter) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
            pg_sys::getTypeInputInfo(self.stored, &mut input, &mut parameter);
            Some(pg_sys::OidInputFunctionCall(input, text, parameter, -1))
        }
    }
}

/// Whether they are text in the database's encoding.
fn is_encoded(bytes: &[u8]) -> bool {
    // SAFETY: looks at so many bytes.
    i32::try_from(bytes.len())
        .is_ok_and(|length| unsafe { pg_sys::pg_verifymbstr(bytes.as_ptr().cast(), length, true) })
}

/// A copy in the current memory context, behind `header` bytes that tell its length, and before zeros: what takes a short
/// value for a longer one, or a name for one that ends, reads no farther.
fn copied(bytes: &[u8], header: usize) -> pg_sys::Datum {
    const ZEROS: usize = 32;
    // SAFETY: the memory has room for all three.
    unsafe {
        let memory = pg_sys::palloc(header + bytes.len() + ZEROS).cast::<u8>();
        if header > 0 {
            pgrx::set_varsize_4b(memory.cast(), (header + bytes.len()) as i32);
        }
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), memory.add(header), bytes.len());
        std::ptr::write_bytes(memory.add(header + bytes.len()), 0, ZEROS);
        pg_sys::Datum::from(memory)
    }
}
