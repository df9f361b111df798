//! Values of type `jsonb`, made and taken apart by PostgreSQL: parsed here they would lose digits.

use crate::error::TenancyError;
use pgrx::pg_sys::jbvType::{jbvBinary, jbvNull, jbvString};
use pgrx::pg_sys::{JsonbIteratorToken, JsonbValue};
use pgrx::prelude::*;
use pgrx::{AnyElement, pg_sys};
use std::ffi::{CStr, CString};

/// A `jsonb` as a door gives it, in the current memory context.
pub fn answer(datum: pg_sys::Datum) -> AnyElement {
    // SAFETY: the SQL signature of every door that gives one says jsonb.
    unsafe { AnyElement::from_polymorphic_datum(datum, false, pg_sys::JSONBOID) }.expect("it is not null")
}

/// The `jsonb` that PostgreSQL wrote as `text`.
pub fn parsed(text: &str) -> Result<AnyElement, TenancyError> {
    let text = CString::new(text).map_err(|error| TenancyError::Internal { what: error.to_string() })?;
    // SAFETY: the input function of jsonb takes a C string.
    Ok(answer(unsafe {
        let (mut input, mut parameter) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
        pg_sys::getTypeInputInfo(pg_sys::JSONBOID, &mut input, &mut parameter);
        pg_sys::OidInputFunctionCall(input, text.as_ptr().cast_mut(), parameter, -1)
    }))
}

/// An object being made.
pub struct Object(*mut pg_sys::JsonbParseState);

impl Object {
    pub fn new() -> Self {
        let mut state = std::ptr::null_mut();
        // SAFETY: begins a value in the current memory context.
        unsafe {
            pg_sys::pushJsonbValue(&mut state, JsonbIteratorToken::WJB_BEGIN_OBJECT, std::ptr::null_mut());
        }
        Self(state)
    }

    /// Adds a field; `value` is a `jsonb`, None for null.
    ///
    /// # Safety
    /// The datum is of that type, and lives until the object is done; so does the name.
    pub unsafe fn put(&mut self, name: &CStr, value: Option<pg_sys::Datum>) {
        let mut key = string(name);
        let mut field = JsonbValue { type_: jbvNull, ..JsonbValue::default() };
        // SAFETY: the caller vouches for the value.
        unsafe {
            pg_sys::pushJsonbValue(&mut self.0, JsonbIteratorToken::WJB_KEY, &mut key);
            if let Some(value) = value {
                let plain = pg_sys::pg_detoast_datum(value.cast_mut_ptr());
                let root = &raw mut (*plain.cast::<pg_sys::Jsonb>()).root;
                if !pg_sys::JsonbExtractScalar(root, &mut field) {
                    field.type_ = jbvBinary;
                    field.val.binary.data = root;
                    field.val.binary.len = pgrx::varsize_any_exhdr(plain) as i32;
                }
            }
            pg_sys::pushJsonbValue(&mut self.0, JsonbIteratorToken::WJB_VALUE, &mut field);
        }
    }

    /// Adds a field that is a text.
    ///
    /// # Safety
    /// Both live until the object is done.
    pub unsafe fn put_text(&mut self, name: &CStr, value: &CStr) {
        let (mut key, mut field) = (string(name), string(value));
        // SAFETY: the caller's.
        unsafe {
            pg_sys::pushJsonbValue(&mut self.0, JsonbIteratorToken::WJB_KEY, &mut key);
            pg_sys::pushJsonbValue(&mut self.0, JsonbIteratorToken::WJB_VALUE, &mut field);
        }
    }

    /// The object as a `jsonb`.
    pub fn done(mut self) -> pg_sys::Datum {
        // SAFETY: ends what `new` began.
        unsafe {
            let value = pg_sys::pushJsonbValue(&mut self.0, JsonbIteratorToken::WJB_END_OBJECT, std::ptr::null_mut());
            pg_sys::Datum::from(pg_sys::JsonbValueToJsonb(value))
        }
    }
}

fn string(text: &CStr) -> JsonbValue {
    let mut value = JsonbValue { type_: jbvString, ..JsonbValue::default() };
    value.val.string.len = text.count_bytes() as i32;
    value.val.string.val = text.as_ptr().cast_mut();
    value
}

/// Whether an object has a field that is not null.
pub fn has_field(object: AnyElement, name: &str) -> bool {
    // SAFETY: the SQL signature of every door that takes one says jsonb.
    unsafe { field(object.datum(), name, true) }.is_some()
}

/// A field of an object, as `jsonb` or as text; None where it is missing or null.
///
/// # Safety
/// `object` is a `jsonb`.
pub unsafe fn field(object: pg_sys::Datum, name: &str, as_text: bool) -> Option<pg_sys::Datum> {
    let function = if as_text { pg_sys::jsonb_object_field_text } else { pg_sys::jsonb_object_field };
    // SAFETY: the caller's; both functions take an object and a text.
    unsafe { pgrx::direct_function_call_as_datum(function, &[Some(object), name.into_datum()]) }
}
