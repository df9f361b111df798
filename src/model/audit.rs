//! Audit: how the images of rows are laid out, and the bytes they are made of.
//!
//! An image is a row's values in the order of its layout: a bitmap of what is NULL, then what is not. A value of fixed
//! length is its bytes, any other its length (7 bits per byte, the last one below 128) and its bytes. A layout names types
//! of `pg_catalog` only; a value of any other type is an image of the `jsonb` that PostgreSQL made of it. So neither
//! ALTER nor DROP, neither a dump nor an upgrade makes an image unreadable.
//!
//! A chunk is rows in a row. Inserted and deleted ones are images of the whole row, or of the key alone where images are
//! not kept. A changed one is
//! - in `diff`: the key (no bitmap: none is NULL), a bitmap of the changed columns, a bitmap of two bits for each of them (old NULL, new
//!   NULL; none for a redacted one), the old values, the new values;
//! - in `full`, and in `diff` where there is no key: a bitmap of the changed columns, the old image, the new image;
//! - in `none`: the key and a bitmap of the changed columns.

use serde::{Deserialize, Serialize};

/// How much of a row is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Images {
    Diff,
    Full,
    None,
}

impl Images {
    pub const NAMES: &'static [&'static str] = &["diff", "full", "none"];

    /// Reads the name used in SQL.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Diff, Self::Full, Self::None].into_iter().find(|images| images.name() == name)
    }

    /// The name used in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Diff => "diff",
            Self::Full => "full",
            Self::None => "none",
        }
    }
}

/// A column as a layout keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredColumn {
    pub name: String,
    /// The type at the time, for people.
    #[serde(rename = "type")]
    pub shown_type: String,
    /// The `pg_catalog` type whose image is kept; PostgreSQL never changes its oid.
    pub stored: u32,
    /// The place in the row's key, from 1; 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub key: u16,
    /// That it changed is kept, and never its value.
    #[serde(default, skip_serializing_if = "is_false")]
    pub redacted: bool,
}

fn is_zero(place: &u16) -> bool {
    *place == 0
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

/// Oids below this one are given by PostgreSQL itself and mean the same in every database and version.
const FIRST_UNPINNED: u32 = 10_000;

/// Types whose values are kept as they are: all that is in them is bytes, and no oid of this database.
const PLAIN: [u32; 44] = [
    16, 17, 18, 19, 20, 21, 23, 25, // bool bytea char name int8 int2 int4 text
    114, 142, 600, 601, 602, 603, 604, 628, // json xml point lseg path box polygon line
    700, 701, 718, 650, 774, 790, 829, 869, // float4 float8 circle cidr macaddr8 money macaddr inet
    1042, 1043, 1082, 1083, 1114, 1184, 1186,
    1266, // bpchar varchar date time timestamp timestamptz interval timetz
    1560, 1562, 1700, 2950, 3802, 3614, 3615, 3220, // bit varbit numeric uuid jsonb tsvector tsquery pg_lsn
    5069, 27, 28, 29, // xid8 tid xid cid
];

/// Ranges and multiranges of the above.
const RANGES: [u32; 12] = [3904, 3906, 3908, 3910, 3912, 3926, 4451, 4532, 4533, 4534, 4535, 4536];

/// Oid of `jsonb`.
pub const JSONB: u32 = 3802;

/// The type whose image is kept for values of base type `base`, an array of `element` where that is not 0.
pub fn stored_type(base: u32, element: u32) -> u32 {
    let is_plain = |oid: u32| PLAIN.contains(&oid) || RANGES.contains(&oid);
    let keeps = if element == 0 { is_plain(base) } else { base < FIRST_UNPINNED && is_plain(element) };
    if keeps { base } else { JSONB }
}

/// The bytes that a value of a kept type of no fixed length has at least behind its length: the head that PostgreSQL looks at
/// before it knows what follows.
pub fn least_bytes(kept: u32, is_array: bool) -> usize {
    match kept {
        _ if is_array => 12,        // dimensions, offset of the data, type
        17 | 25 | 1042 | 1043 => 0, // bytea text bpchar varchar
        1700 | 869 | 650 => 2,      // numeric inet cidr
        602 => 12,                  // path
        604 => 36,                  // polygon
        4451 | 4532..=4536 => 8,    // multiranges
        _ if RANGES.contains(&kept) => 5,
        JSONB | 3614 | 3615 | 1560 | 1562 => 4, // and tsvector tsquery bit varbit
        _ => 0,
    }
}

/// Whether a value of a kept type is text, which is in the encoding of the database.
pub fn is_text(kept: u32) -> bool {
    matches!(kept, 19 | 25 | 114 | 142 | 1042 | 1043) // name text json xml bpchar varchar
}

/// The bytes of a bitmap.
pub const fn bitmap_bytes(bits: usize) -> usize {
    bits.div_ceil(8)
}

/// The most bytes that a length takes.
pub const LENGTH_BYTES: usize = 5;

/// Reads images; None where the bytes end early.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub fn is_at_end(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next bytes.
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(taken)
    }

    /// A bitmap of so many bits.
    pub fn bitmap(&mut self, bits: usize) -> Option<Bitmap<'a>> {
        self.take(bitmap_bytes(bits)).map(Bitmap)
    }

    /// A value that begins with its length.
    pub fn sized(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        self.take(length)
    }

    fn length(&mut self) -> Option<usize> {
        let mut length = 0;
        for place in 0..LENGTH_BYTES {
            let byte = *self.take(1)?.first()?;
            length |= usize::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                return Some(length);
            }
        }
        None
    }
}

/// Bits, the lowest of the first byte first.
#[derive(Clone, Copy, Debug)]
pub struct Bitmap<'a>(&'a [u8]);

impl Bitmap<'_> {
    pub fn is_set(&self, bit: usize) -> bool {
        self.0.get(bit / 8).is_some_and(|byte| byte & (1 << (bit % 8)) != 0)
    }
}

/// Writes a length to memory with room for `LENGTH_BYTES`; gives how many it took.
#[inline(always)]
pub fn write_length(to: &mut [u8; LENGTH_BYTES], mut length: usize) -> usize {
    let mut place = 0;
    while length >= 0x80 && place < LENGTH_BYTES - 1 {
        to[place] = length as u8 | 0x80;
        length >>= 7;
        place += 1;
    }
    to[place] = length as u8;
    place + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_read_as_it_was_written() {
        for length in [0, 1, 127, 128, 300, 16_383, 16_384, 1 << 21, (1 << 30) - 1] {
            let mut bytes = [0; LENGTH_BYTES];
            let taken = write_length(&mut bytes, length);
            let mut reader = Reader::new(&bytes[..taken]);
            assert_eq!(reader.length(), Some(length));
            assert!(reader.is_at_end());
        }
    }

    #[test]
    fn bytes_that_end_early_are_noticed() {
        assert_eq!(Reader::new(&[]).length(), None);
        assert_eq!(Reader::new(&[0x80]).length(), None);
        assert_eq!(Reader::new(&[0x80; 9]).length(), None);
        assert_eq!(Reader::new(&[3, b'a', b'b']).sized(), None);
        assert!(Reader::new(&[0]).bitmap(9).is_none());
    }

    #[test]
    fn bits_are_counted_from_the_lowest() {
        let bitmap = Reader::new(&[0b0000_0101, 1]).bitmap(9).unwrap();
        let set: Vec<usize> = (0..9).filter(|bit| bitmap.is_set(*bit)).collect();
        assert_eq!(set, [0, 2, 8]);
        assert!(!bitmap.is_set(99));
    }

    #[test]
    fn a_value_is_not_shorter_than_its_head() {
        assert_eq!(least_bytes(25, false), 0); // text
        assert_eq!(least_bytes(JSONB, false), 4);
        assert_eq!(least_bytes(1700, false), 2); // numeric
        assert_eq!(least_bytes(1009, true), 12); // text[]
        assert_eq!(least_bytes(3904, false), 5); // int4range: its type and its flags
        assert_eq!(least_bytes(4451, false), 8); // int4multirange
    }

    #[test]
    fn what_names_objects_of_a_database_is_kept_as_json() {
        assert_eq!(stored_type(1700, 0), 1700);
        assert_eq!(stored_type(1009, 25), 1009); // text[]
        assert_eq!(stored_type(3904, 0), 3904); // int4range
        assert_eq!(stored_type(2205, 0), JSONB); // regclass
        assert_eq!(stored_type(2249, 0), JSONB); // record
        assert_eq!(stored_type(20_000, 0), JSONB); // an enum
        assert_eq!(stored_type(20_001, 20_000), JSONB); // an array of it
        assert_eq!(stored_type(20_002, 25), JSONB); // an array type of the user's own
    }

    #[test]
    fn a_layout_is_read_as_it_was_written() {
        let column =
            StoredColumn { name: "i\"d".into(), shown_type: "bigint".into(), stored: 20, key: 1, redacted: false };
        let text = serde_json::to_string(&column).unwrap();
        assert_eq!(text, r#"{"name":"i\"d","type":"bigint","stored":20,"key":1}"#);
        assert_eq!(serde_json::from_str::<StoredColumn>(&text).unwrap(), column);
    }
}
