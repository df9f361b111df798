//! Who may set the tenant of a transaction, and whether a tenant that was set still counts.

use super::Key;
use crate::error::TenancyError;

/// Identifies a transaction of one backend: its local transaction id. Zero stands for "no transaction".
pub type Stamp = u32;

/// Where a value of `app.current_tenant_id` comes from; PostgreSQL's `GucSource`, reduced to what matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The boot value.
    Default,
    /// A configuration file, the command line or the environment of the server.
    Server,
    /// ALTER ROLE or ALTER DATABASE ... SET, applied when the session starts.
    Stored,
    /// The connection's startup packet.
    Client,
    /// A value about to be stored by ALTER ROLE, ALTER DATABASE or a function's SET clause.
    Test,
    /// SET, SET LOCAL, set_config, a function's SET clause in action.
    Session,
}

/// How the value in force got there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Set in a transaction.
    Transaction,
    /// Set by `tenancy.switch_tenant`, which may leave a pinned tenant.
    Switched,
    /// Stored by a superuser for the role or database.
    Pinned,
}

/// A value of the setting that names a tenant.
#[derive(Clone, Copy, Debug)]
pub struct Assigned {
    pub key: Key,
    pub origin: Origin,
    /// The transaction it was set in; zero when that is unknown or over.
    pub stamp: Stamp,
    /// Start of the statement that set it, in microseconds of PostgreSQL's `timestamptz`.
    pub set_at: i64,
}

/// `tenancy.context_lifetime`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    Transaction,
    Session,
}

impl Assigned {
    /// Whether the value still counts in the transaction `now`.
    pub fn is_live(&self, now: Stamp, lifetime: Lifetime) -> bool {
        self.origin == Origin::Pinned || lifetime == Lifetime::Session || (self.stamp != 0 && self.stamp == now)
    }
}

pub const FROM_CLIENT: &str = "connection options";
const FROM_ORDINARY_ROLE: &str = "a setting that is stored by a role other than a superuser";

/// What a check of a new value knows about the session.
pub struct Session<'a> {
    /// The tenant this transaction belongs to already.
    pub sealed: Option<&'a Key>,
    /// The tenant this connection is pinned to.
    pub pinned: Option<&'a Key>,
    /// `tenancy.switch_tenant` is at work.
    pub switching: bool,
    /// The role that stores a value is a superuser.
    pub superuser: bool,
}

/// Decides whether the tenant may be cleared: storing or sending an empty value would take a pinned one away.
pub fn admit_empty(source: Source, superuser: bool) -> Result<(), TenancyError> {
    match source {
        Source::Client => Err(TenancyError::ForbiddenSource { source: FROM_CLIENT }),
        Source::Test if !superuser => Err(TenancyError::ForbiddenSource { source: FROM_ORDINARY_ROLE }),
        _ => Ok(()),
    }
}

/// Decides whether `new` may become the tenant, and as what. `same` tells whether two keys name one tenant.
pub fn admit(
    new: &Key,
    source: Source,
    session: &Session<'_>,
    same: impl Fn(&Key, &Key) -> bool,
) -> Result<Origin, TenancyError> {
    match source {
        Source::Default | Source::Server => Err(TenancyError::ForbiddenSource { source: "the server's configuration" }),
        Source::Client => Err(TenancyError::ForbiddenSource { source: FROM_CLIENT }),
        Source::Test if !session.superuser => Err(TenancyError::ForbiddenSource { source: FROM_ORDINARY_ROLE }),
        Source::Stored | Source::Test => Ok(Origin::Pinned),
        Source::Session if session.switching => Ok(Origin::Switched),
        Source::Session => {
            if let Some(pinned) = session.pinned.filter(|pinned| !same(pinned, new)) {
                return Err(TenancyError::PinnedTenant { pinned: pinned.to_string(), second: new.to_string() });
            }
            if let Some(first) = session.sealed.filter(|first| !same(first, new)) {
                return Err(TenancyError::SecondTenant { first: first.to_string(), second: new.to_string() });
            }
            // Naming the pinned tenant once more leaves the connection as it is.
            Ok(if session.pinned.is_some() { Origin::Pinned } else { Origin::Transaction })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        text.parse().unwrap()
    }

    fn try_set(source: Source, session: &Session<'_>) -> Result<Origin, TenancyError> {
        admit(&key("blue"), source, session, |a, b| a == b)
    }

    const FRESH: Session<'static> = Session { sealed: None, pinned: None, switching: false, superuser: false };

    #[test]
    fn only_a_statement_of_the_session_sets_a_tenant_for_an_ordinary_role() {
        assert_eq!(try_set(Source::Session, &FRESH), Ok(Origin::Transaction));
        for source in [Source::Default, Source::Server, Source::Client, Source::Test] {
            assert!(matches!(try_set(source, &FRESH), Err(TenancyError::ForbiddenSource { .. })), "{source:?}");
        }
    }

    #[test]
    fn a_superuser_stores_a_tenant_which_then_pins_the_connection() {
        assert_eq!(try_set(Source::Test, &Session { superuser: true, ..FRESH }), Ok(Origin::Pinned));
        assert_eq!(try_set(Source::Stored, &FRESH), Ok(Origin::Pinned));
        assert!(matches!(
            try_set(Source::Client, &Session { superuser: true, ..FRESH }),
            Err(TenancyError::ForbiddenSource { .. })
        ));
    }

    #[test]
    fn an_empty_value_is_stored_by_a_superuser_only_and_never_sent() {
        assert!(admit_empty(Source::Session, false).is_ok());
        assert!(admit_empty(Source::Default, false).is_ok());
        assert!(admit_empty(Source::Test, true).is_ok());
        assert!(admit_empty(Source::Test, false).is_err());
        assert!(admit_empty(Source::Client, true).is_err());
    }

    #[test]
    fn a_transaction_keeps_its_first_tenant() {
        let (red, blue) = (key("red"), key("blue"));
        assert_eq!(try_set(Source::Session, &Session { sealed: Some(&blue), ..FRESH }), Ok(Origin::Transaction));
        let sealed = Session { sealed: Some(&red), ..FRESH };
        assert!(matches!(try_set(Source::Session, &sealed), Err(TenancyError::SecondTenant { .. })));
        assert_eq!(try_set(Source::Session, &Session { switching: true, ..sealed }), Ok(Origin::Switched));
    }

    #[test]
    fn a_pinned_connection_keeps_its_tenant() {
        let (red, blue) = (key("red"), key("blue"));
        let pinned = Session { pinned: Some(&red), ..FRESH };
        assert!(matches!(try_set(Source::Session, &pinned), Err(TenancyError::PinnedTenant { .. })));
        assert_eq!(try_set(Source::Session, &Session { pinned: Some(&blue), ..FRESH }), Ok(Origin::Pinned));
    }

    #[test]
    fn a_value_counts_only_in_its_transaction_unless_it_is_pinned_or_lifetime_says_otherwise() {
        let mut value = Assigned { key: key("red"), origin: Origin::Transaction, stamp: 7, set_at: 0 };
        assert!(value.is_live(7, Lifetime::Transaction));
        assert!(!value.is_live(8, Lifetime::Transaction));
        assert!(value.is_live(8, Lifetime::Session));
        value.stamp = 0;
        assert!(!value.is_live(0, Lifetime::Transaction));
        value.origin = Origin::Pinned;
        assert!(value.is_live(8, Lifetime::Transaction));
    }
}
