//! A tenant's keys and status.

use crate::error::TenancyError;
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// The longest tenant code, in bytes.
pub const MAX_CODE_BYTES: usize = 100;

/// A tenant's short name, stored inline because every context carries one (see `pg::guc`).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code {
    length: u8,
    bytes: [u8; MAX_CODE_BYTES],
}

impl Code {
    /// Takes `text` as a code. 22023 when it is empty, longer than 100 bytes, holds control characters or outer white
    /// space, or could be read as a tenant's number or id (ARCHITECTURE, Names: one text names one tenant).
    pub fn new(text: &str) -> Result<Self, TenancyError> {
        match text.parse() {
            Ok(Key::Code(code)) => Ok(code),
            Ok(Key::Id(_) | Key::Number(_)) | Err(_) => Err(TenancyError::MalformedCode { code: text.to_owned() }),
        }
    }

    /// The code as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).expect("a code is made from str")
    }

    fn from_checked(text: &str) -> Option<Self> {
        let bad =
            text.is_empty() || text.len() > MAX_CODE_BYTES || text.trim() != text || text.chars().any(char::is_control);
        if bad {
            return None;
        }
        let mut bytes = [0; MAX_CODE_BYTES];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Some(Self { length: text.len() as u8, bytes })
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// One of the three texts that name a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    Id(Uuid),
    Number(i64),
    Code(Code),
}

impl FromStr for Key {
    type Err = TenancyError;

    fn from_str(text: &str) -> Result<Self, TenancyError> {
        let malformed = || TenancyError::MalformedTenant { text: text.to_owned() };
        if text.len() > MAX_CODE_BYTES {
            return Err(malformed());
        }
        if let Some(id) = uuid_shape(text) {
            return Ok(Key::Id(id));
        }
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
            return text.parse().map(Key::Number).map_err(|_| malformed());
        }
        Code::from_checked(text).map(Key::Code).ok_or_else(malformed)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Id(id) => write!(f, "{id}"),
            Key::Number(number) => write!(f, "{number}"),
            Key::Code(code) => f.write_str(code.as_str()),
        }
    }
}

/// `uuid_in` takes braces, either case and hyphens in several places; whatever it could read must not be a code.
fn uuid_shape(text: &str) -> Option<Uuid> {
    const DIGITS: usize = 32;
    if text.len() < DIGITS {
        return None;
    }
    let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(text);
    let digits: String = inner.chars().filter(|c| *c != '-').collect();
    if digits.len() == DIGITS { Uuid::try_parse(&digits).ok() } else { None }
}

/// Which of the three keys a tenant column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    Id,
    Number,
    Code,
}

impl KeyKind {
    /// The key that a column of the type named by `pg_type.typname` holds, if any.
    pub fn of_type(typname: &str) -> Option<Self> {
        match typname {
            "uuid" => Some(Self::Id),
            "int2" | "int4" | "int8" => Some(Self::Number),
            "text" | "varchar" => Some(Self::Code),
            _ => None,
        }
    }

    /// The key that a column of `tenancy.tenants` holds, if any.
    pub fn from_column(column: &str) -> Option<Self> {
        [Self::Id, Self::Number, Self::Code].into_iter().find(|key| key.column() == column)
    }

    /// The column of `tenancy.tenants` that this key references.
    pub fn column(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Number => "number",
            Self::Code => "code",
        }
    }
}

/// Where a tenant stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Active,
    ReadOnly,
    Suspended,
    Deleted,
}

impl Status {
    /// Reads the text stored in `tenancy.tenants.status`.
    pub fn from_stored(text: &str) -> Option<Self> {
        [Self::Active, Self::ReadOnly, Self::Suspended, Self::Deleted].into_iter().find(|s| s.as_str() == text)
    }

    /// The text stored in `tenancy.tenants.status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::ReadOnly => "read_only",
            Self::Suspended => "suspended",
            Self::Deleted => "deleted",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "6f1c9a52-7a0e-4b59-9d5e-0c7a5a4d2f10";

    #[test]
    fn one_text_names_one_tenant() {
        let id: Uuid = ID.parse().unwrap();
        assert_eq!(ID.parse::<Key>().unwrap(), Key::Id(id));
        assert_eq!(ID.to_uppercase().parse::<Key>().unwrap(), Key::Id(id));
        assert_eq!(ID.replace('-', "").parse::<Key>().unwrap(), Key::Id(id));
        assert_eq!(format!("{{{ID}}}").parse::<Key>().unwrap(), Key::Id(id));
        assert_eq!("6f1c-9a52-7a0e-4b59-9d5e-0c7a-5a4d-2f10".parse::<Key>().unwrap(), Key::Id(id));
        assert_eq!("42".parse::<Key>().unwrap(), Key::Number(42));
        assert_eq!("-1".parse::<Key>().unwrap(), Key::Number(-1));
        assert_eq!("acme".parse::<Key>().unwrap(), Key::Code(Code::new("acme").unwrap()));
    }

    #[test]
    fn a_code_is_never_a_number_or_an_id() {
        for text in ["7", "-7", ID, &ID.replace('-', ""), "", " acme", "acme\n", &"x".repeat(101)] {
            assert!(Code::new(text).is_err(), "{text:?}");
        }
        for text in ["acme", "Acme & Söhne", "a'b", "%", "*", "7up"] {
            assert_eq!(Code::new(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn a_number_beyond_bigint_names_nobody() {
        assert!("9223372036854775808".parse::<Key>().is_err());
    }

    #[test]
    fn stored_status_reads_back() {
        for status in [Status::Active, Status::ReadOnly, Status::Suspended, Status::Deleted] {
            assert_eq!(Status::from_stored(status.as_str()), Some(status));
        }
        assert_eq!(Status::from_stored("gone"), None);
    }
}
