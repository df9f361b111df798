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
    use pgrx::prelude::*;
    use pgrx::{Array, Uuid};

    /// SHA-256 over a purpose and parts, each with its length.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy_internal.digest(purpose text, VARIADIC parts bytea[]) RETURNS bytea
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn digest(purpose: &str, parts: Array<'_, &[u8]>) -> Vec<u8> {
        super::digest(purpose, parts.iter()).to_vec()
    }

    /// SHA-256 over a row of the log: the columns as PostgreSQL sends them, with the digest of its layout. A partition has
    /// very many, so this one takes the columns as they are.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy_internal.digest_chunk(
    id bigint, occurred_at timestamptz, statement_at timestamptz, transaction_id bigint, key_hash bigint, tenant_id uuid,
    layout integer, layout_digest bytea, command integer, row_count smallint, action \"char\", entity text, entity_id text,
    event text, actor text, session_role text, \"current_role\" text, client text, user_agent text, application_name text,
    query text, images bytea, details text
) RETURNS bytea
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    #[expect(clippy::too_many_arguments, reason = "the columns of the log")]
    fn digest_chunk(
        id: Option<i64>,
        occurred_at: Option<i64>,
        statement_at: Option<i64>,
        transaction_id: Option<i64>,
        key_hash: Option<i64>,
        tenant_id: Option<Uuid>,
        layout: Option<i32>,
        layout_digest: Option<&[u8]>,
        command: Option<i32>,
        row_count: Option<i16>,
        action: Option<i8>,
        entity: Option<&[u8]>,
        entity_id: Option<&[u8]>,
        event: Option<&[u8]>,
        actor: Option<&[u8]>,
        session_role: Option<&[u8]>,
        current_role: Option<&[u8]>,
        client: Option<&[u8]>,
        user_agent: Option<&[u8]>,
        application_name: Option<&[u8]>,
        query: Option<&[u8]>,
        images: Option<&[u8]>,
        details: Option<&[u8]>,
    ) -> Vec<u8> {
        let wide = [id, occurred_at, statement_at, transaction_id, key_hash].map(|value| value.map(i64::to_be_bytes));
        let [layout, command] = [layout, command].map(|value| value.map(i32::to_be_bytes));
        let (row_count, action) = (row_count.map(i16::to_be_bytes), action.map(i8::to_be_bytes));
        let [id, occurred_at, statement_at, transaction_id, key_hash] = &wide;
        let parts = [
            id.as_ref().map(|bytes| &bytes[..]),
            occurred_at.as_ref().map(|bytes| &bytes[..]),
            statement_at.as_ref().map(|bytes| &bytes[..]),
            transaction_id.as_ref().map(|bytes| &bytes[..]),
            key_hash.as_ref().map(|bytes| &bytes[..]),
            tenant_id.as_ref().map(|tenant| &tenant.as_bytes()[..]),
            layout.as_ref().map(|bytes| &bytes[..]),
            layout_digest,
            command.as_ref().map(|bytes| &bytes[..]),
            row_count.as_ref().map(|bytes| &bytes[..]),
            action.as_ref().map(|bytes| &bytes[..]),
            entity,
            entity_id,
            event,
            actor,
            session_role,
            current_role,
            client,
            user_agent,
            application_name,
            query,
            images,
            details,
        ];
        super::digest("chunk", parts.into_iter()).to_vec()
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
