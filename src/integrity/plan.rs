//! Which tenants the rows of a table may belong to.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

/// Keys of the tenants whose rows are as they should be.
#[derive(Default)]
pub struct Known {
    ids: HashSet<u128, Mixed>,
    numbers: HashSet<i64, Mixed>,
    codes: HashSet<Vec<u8>>,
}

impl Known {
    pub fn new(
        ids: impl IntoIterator<Item = [u8; 16]>,
        numbers: impl IntoIterator<Item = i64>,
        codes: impl IntoIterator<Item = String>,
    ) -> Self {
        Self {
            ids: ids.into_iter().map(u128::from_ne_bytes).collect(),
            numbers: numbers.into_iter().collect(),
            codes: codes.into_iter().map(String::into_bytes).collect(),
        }
    }

    pub fn has_number(&self, number: i64) -> bool {
        self.numbers.contains(&number)
    }

    pub fn has_code(&self, code: &[u8]) -> bool {
        self.codes.contains(code)
    }

    /// `last` is the id that was known before: rows of one tenant often lie together.
    pub fn has_id(&self, id: [u8; 16], last: &mut Option<u128>) -> bool {
        let id = u128::from_ne_bytes(id);
        if *last == Some(id) {
            return true;
        }
        let known = self.ids.contains(&id);
        if known {
            *last = Some(id);
        }
        known
    }
}

type Mixed = BuildHasherDefault<Mix>;

/// A hash for keys of fixed size. Nobody gains by making it collide: the keys are those of the registry.
#[derive(Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.write_u64(u64::from_ne_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        // Fibonacci hashing; the high bits, which are mixed best, are brought down for the table's index.
        let mixed = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }

    fn write_i64(&mut self, word: i64) {
        self.write_u64(word.cast_unsigned());
    }

    fn write_u128(&mut self, word: u128) {
        self.write_u64(word as u64);
        self.write_u64((word >> 64) as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::Known;

    fn id(n: u8) -> [u8; 16] {
        let mut id = [7; 16];
        id[15] = n;
        id
    }

    #[test]
    fn a_tenant_is_known_by_each_of_its_keys_and_no_other() {
        let known = Known::new((0..200).map(id), -1..100, ["red".to_owned(), String::new()]);
        let mut last = None;
        assert!((0..200).all(|n| known.has_id(id(n), &mut last)));
        assert!((200..=255).all(|n| !known.has_id(id(n), &mut last)));
        assert!((-1..100).all(|n| known.has_number(n)));
        assert!(![-2, 100, i64::MAX, i64::MIN].iter().any(|n| known.has_number(*n)));
        assert!(known.has_code(b"red") && known.has_code(b"") && !known.has_code(b"Red") && !known.has_code(b"re"));
    }

    #[test]
    fn a_stranger_is_not_remembered_as_known() {
        let known = Known::new([id(1)], [], []);
        let mut last = None;
        assert!(!known.has_id(id(2), &mut last) && !known.has_id(id(2), &mut last));
        assert!(known.has_id(id(1), &mut last) && known.has_id(id(1), &mut last));
        assert!(!known.has_id(id(2), &mut last));
    }
}
