//! Names as PostgreSQL reads them, and the ones that break careless code.

/// Every function that takes a name is tried with each of these: spaces and operators, case, a quote, the longest
/// name, letters of several bytes, a reserved word.
pub const NASTY_NAMES: [&str; 6] = [
    "s < e",
    "Mixed",
    "quo\"te",
    "n23456789_123456789_123456789_123456789_123456789_123456789_123",
    "Größe_表",
    "select",
];

/// PostgreSQL cuts longer names.
pub const MAX_NAME_BYTES: usize = 63;

/// The name as an SQL identifier, always quoted.
pub fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The text as an SQL literal, whatever `standard_conforming_strings` says.
pub fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!(" E'{}'", quoted.replace('\\', r"\\")) } else { format!("'{quoted}'") }
}

/// `hint` and a number that no other name of this run has, within 63 bytes.
pub fn unique(hint: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let tail = format!("_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let room = (0..=MAX_NAME_BYTES - tail.len()).rev().find(|&n| hint.is_char_boundary(n.min(hint.len())));
    let head = &hint[..room.unwrap_or(0).min(hint.len())];
    format!("{head}{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nasty_names_fit_and_one_fills_the_limit() {
        assert!(NASTY_NAMES.iter().all(|name| name.len() <= MAX_NAME_BYTES));
        assert!(NASTY_NAMES.iter().any(|name| name.len() == MAX_NAME_BYTES));
    }

    #[test]
    fn a_unique_name_never_exceeds_the_limit_nor_splits_a_letter() {
        for hint in NASTY_NAMES.iter().copied().chain(["表表表表表表表表表表表表表表表表表表表表表表"])
        {
            let name = unique(hint);
            assert!(name.len() <= MAX_NAME_BYTES, "{name}");
            assert_ne!(name, unique(hint));
        }
    }

    #[test]
    fn quoting_doubles_quotes_and_backslashes() {
        assert_eq!(quote_ident("quo\"te"), "\"quo\"\"te\"");
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal(r"a\b"), r" E'a\\b'");
    }
}
