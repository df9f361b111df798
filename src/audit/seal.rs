//! Seals: digests by which a change of the log is seen. The chain they make is kept by SQL (sql/audit.sql).

use sha2::{Digest, Sha256};

/// SHA-256 over a purpose and parts. Each part goes in behind its length, and a missing one as a length that no part has,
/// so that no two lists of parts are the same bytes.
fn digest<'a>(purpose: &'a str, parts: impl Iterator<Item = Option<&'a [u8]>>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in std::iter::once(Some(purpose.as_bytes())).chain(parts) {
        let length = part.map_or(u64::MAX, |part| part.len() as u64);
        hash.update(length.to_be_bytes());
        hash.update(part.unwrap_or_default());
    }
    hash.finalize().into()
}

#[pgrx::pg_schema]
pub(super) mod tenancy_internal {
    use pgrx::Array;
    use pgrx::prelude::*;

    /// SHA-256 over a purpose and parts, each with its length.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy_internal.digest(purpose text, VARIADIC parts bytea[]) RETURNS bytea
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn digest(purpose: &str, parts: Array<'_, &[u8]>) -> Vec<u8> {
        super::digest(purpose, parts.iter()).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::digest;

    fn of(parts: &[Option<&str>]) -> [u8; 32] {
        digest("test", parts.iter().map(|part| part.map(str::as_bytes)))
    }

    #[test]
    fn no_two_lists_of_parts_have_one_digest() {
        let lists: [&[Option<&str>]; 8] = [
            &[],
            &[None],
            &[Some("")],
            &[None, None],
            &[Some("ab")],
            &[Some("a"), Some("b")],
            &[Some(""), Some("ab")],
            &[Some("ab"), Some("")],
        ];
        let digests: std::collections::BTreeSet<_> = lists.iter().map(|parts| of(parts)).collect();
        assert_eq!(digests.len(), lists.len());
    }

    #[test]
    fn a_digest_for_one_purpose_is_none_for_another() {
        let parts = || [Some(&b"x"[..])].into_iter();
        assert_ne!(digest("chunk", parts()), digest("seal", parts()));
    }

    /// Seals are kept for years: another encoding would call every one of them false.
    #[test]
    fn a_digest_stays_what_it_was() {
        let hex: String = of(&[Some("a"), None]).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "90376f872b720acf8ca2402a2f1e5c860bfab3af10c21c48a4d8c6d5c6034c35");
    }
}
