//! Which status a tenant may move to.

use crate::error::TenancyError;
use crate::model::Status;

/// What an administrator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    Suspend,
    Resume,
    SetReadOnly,
    Delete,
    Undelete,
}

/// The status that `wish` leads to from `now`. Asking for the status a tenant has already is no error.
pub fn next_status(tenant: &str, now: Status, wish: Move) -> Result<Status, TenancyError> {
    use Status::*;
    let target = match wish {
        Move::Suspend => Suspended,
        Move::Resume | Move::Undelete => Active,
        Move::SetReadOnly => ReadOnly,
        Move::Delete => Deleted,
    };
    let refuse = |hint| Err(TenancyError::IllegalStatusMove { tenant: tenant.to_owned(), from: now, to: target, hint });
    match (now, wish) {
        (Deleted, Move::Undelete | Move::Delete) => Ok(target),
        (Deleted, _) => refuse("Call tenancy.undelete_tenant(...) first."),
        (Active, Move::Undelete) => Ok(target),
        (_, Move::Undelete) => Err(TenancyError::NotDeleted { tenant: tenant.to_owned(), status: now }),
        (Suspended, Move::SetReadOnly) => refuse("Call tenancy.resume_tenant(...) first."),
        _ => Ok(target),
    }
}

/// Refuses to undelete a tenant whose rows are gone, or have begun to go.
pub fn refuse_purged(tenant: &str, is_purged: bool, wish: Move) -> Result<(), TenancyError> {
    match wish {
        Move::Undelete if is_purged => Err(TenancyError::Purged { tenant: tenant.to_owned() }),
        _ => Ok(()),
    }
}

/// Why the registry refuses a direct change of its rows.
pub fn refuse_change(code: Option<String>, updating: bool) -> TenancyError {
    match code {
        Some(tenant) if updating => TenancyError::ImmutableKeys { tenant },
        Some(tenant) => TenancyError::TenantRowKept { tenant },
        None => TenancyError::RegistryTruncated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Status::*;

    #[test]
    fn every_move_from_every_status_has_an_answer() {
        let table = [
            // from, suspend, resume, read-only, delete, undelete
            (Active, [Some(Suspended), Some(Active), Some(ReadOnly), Some(Deleted), Some(Active)]),
            (ReadOnly, [Some(Suspended), Some(Active), Some(ReadOnly), Some(Deleted), None]),
            (Suspended, [Some(Suspended), Some(Active), None, Some(Deleted), None]),
            (Deleted, [None, None, None, Some(Deleted), Some(Active)]),
        ];
        let moves = [Move::Suspend, Move::Resume, Move::SetReadOnly, Move::Delete, Move::Undelete];
        for (from, targets) in table {
            for (wish, target) in moves.into_iter().zip(targets) {
                assert_eq!(next_status("acme", from, wish).ok(), target, "{from:?} {wish:?}");
            }
        }
    }

    #[test]
    fn what_was_purged_stays_deleted() {
        assert!(refuse_purged("acme", true, Move::Undelete).is_err());
        assert!(refuse_purged("acme", true, Move::Delete).is_ok());
        assert!(refuse_purged("acme", false, Move::Undelete).is_ok());
    }

    #[test]
    fn a_refused_change_of_the_registry_says_which_kind_it_was() {
        assert!(matches!(refuse_change(Some("a".into()), true), TenancyError::ImmutableKeys { .. }));
        assert!(matches!(refuse_change(Some("a".into()), false), TenancyError::TenantRowKept { .. }));
        assert_eq!(refuse_change(None, false), TenancyError::RegistryTruncated);
    }
}
