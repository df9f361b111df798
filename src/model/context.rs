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
    /// Named by a token that was verified.
    Signed,
    /// The role that logged in is this tenant; see `tenancy.bind_role`.
    Bound,
}

/// `tenancy.context_mode`: whose word for a tenant is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Anybody's who can send a statement.
    Open,
    /// A signer's, a superuser's and an administrator's.
    Signed,
}

/// What one of our own functions permits while it sets the tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Permission {
    #[default]
    None,
    /// `tenancy.switch_tenant` is at work.
    Switch,
    /// A token has been verified.
    Token,
    /// A proof wants what an earlier transaction may have left.
    Rehearsal,
}

/// No token, or one that never expires.
pub const FOREVER: i64 = i64::MAX;

/// A value of the setting that names a tenant.
#[derive(Clone, Copy, Debug)]
pub struct Assigned {
    pub key: Key,
    pub origin: Origin,
    /// The transaction it was set in; zero when that is unknown or over.
    pub stamp: Stamp,
    /// Start of the statement that set it, in microseconds of PostgreSQL's `timestamptz`.
    pub set_at: i64,
    /// Set by somebody whose word is taken in signed mode.
    pub vouched: bool,
    /// No transaction that begins later has it; `FOREVER` but for a token.
    pub until: i64,
}

/// `tenancy.context_lifetime`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    Transaction,
    Session,
}

impl Assigned {
    /// What the value stands for in the text that guc.c keeps, which is all that a parallel worker gets.
    pub fn to_mark(self) -> String {
        let letter = match (self.origin, self.vouched) {
            (Origin::Transaction, false) => 'u',
            (Origin::Transaction, true) => 'v',
            (Origin::Switched, _) => 's',
            (Origin::Pinned | Origin::Bound, _) => 'p',
            (Origin::Signed, _) => 't',
        };
        format!("{}{MARK_SEPARATOR}{letter}{MARK_SEPARATOR}{}", self.stamp, self.until)
    }

    /// The reverse of `to_mark`; None when it is not one.
    pub fn from_mark(key: Key, set_at: i64, mark: &str) -> Option<Self> {
        let mut parts = mark.splitn(3, MARK_SEPARATOR);
        let stamp = parts.next()?.parse().ok()?;
        let (origin, vouched) = match parts.next()? {
            "u" => (Origin::Transaction, false),
            "v" => (Origin::Transaction, true),
            "s" => (Origin::Switched, true),
            "p" => (Origin::Pinned, true),
            "t" => (Origin::Signed, true),
            _ => return None,
        };
        Some(Self { key, origin, stamp, set_at, vouched, until: parts.next()?.parse().ok()? })
    }

    /// Whether the value still counts in the transaction `now`.
    pub fn is_live(&self, now: Stamp, lifetime: Lifetime) -> bool {
        self.origin == Origin::Pinned || lifetime == Lifetime::Session || (self.stamp != 0 && self.stamp == now)
    }
}

const MARK_SEPARATOR: char = ',';

pub const FROM_CLIENT: &str = "connection options";
const FROM_ORDINARY_ROLE: &str = "a setting that is stored by a role other than a superuser";

/// What a check of a new value knows about the session.
pub struct Session<'a> {
    /// The tenant this transaction belongs to already.
    pub sealed: Option<&'a Key>,
    /// The tenant this connection is pinned to.
    pub pinned: Option<&'a Key>,
    /// The tenant of the role that logged in, where it is bound to one.
    pub bound: Option<&'a Key>,
    pub permission: Permission,
    pub mode: Mode,
    /// The current role's word is taken in signed mode.
    pub privileged: bool,
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
        Source::Session => admit_in_session(new, session, same),
    }
}

/// The part of `admit` that is about SET and our functions.
fn admit_in_session(
    new: &Key,
    session: &Session<'_>,
    same: impl Fn(&Key, &Key) -> bool,
) -> Result<Origin, TenancyError> {
    let other = |tenant: Option<&Key>| tenant.filter(|tenant| !same(tenant, new)).map(Key::to_string);
    if let Some(bound) = other(session.bound) {
        return Err(TenancyError::BoundRole { bound, second: new.to_string() });
    }
    if matches!(session.permission, Permission::Switch | Permission::Rehearsal) {
        return Ok(Origin::Switched);
    }
    // Whoever can be one tenant only needs no token to name it.
    let free = session.bound.is_none() && session.pinned.is_none();
    if free && session.mode == Mode::Signed && session.permission == Permission::None && !session.privileged {
        return Err(TenancyError::UnsignedTenant { tenant: new.to_string() });
    }
    if let Some(pinned) = other(session.pinned) {
        return Err(TenancyError::PinnedTenant { pinned, second: new.to_string() });
    }
    if let Some(first) = other(session.sealed) {
        return Err(TenancyError::SecondTenant { first, second: new.to_string() });
    }
    Ok(match session.permission {
        Permission::Token => Origin::Signed,
        // Naming the pinned tenant once more leaves the connection as it is.
        _ if session.pinned.is_some() => Origin::Pinned,
        _ => Origin::Transaction,
    })
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

    const FRESH: Session<'static> = Session {
        sealed: None,
        pinned: None,
        bound: None,
        permission: Permission::None,
        mode: Mode::Open,
        privileged: false,
        superuser: false,
    };
    const SIGNED: Session<'static> = Session { mode: Mode::Signed, ..FRESH };

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
        assert_eq!(
            try_set(Source::Session, &Session { permission: Permission::Switch, ..sealed }),
            Ok(Origin::Switched)
        );
    }

    #[test]
    fn a_pinned_connection_keeps_its_tenant() {
        let (red, blue) = (key("red"), key("blue"));
        let pinned = Session { pinned: Some(&red), ..FRESH };
        assert!(matches!(try_set(Source::Session, &pinned), Err(TenancyError::PinnedTenant { .. })));
        assert_eq!(try_set(Source::Session, &Session { pinned: Some(&blue), ..FRESH }), Ok(Origin::Pinned));
    }

    #[test]
    fn in_signed_mode_an_ordinary_role_needs_a_token() {
        let unsigned = |session: &Session<'_>| matches!(try_set(Source::Session, session), Err(TenancyError::UnsignedTenant { tenant }) if tenant == "blue");
        assert!(unsigned(&SIGNED));
        assert!(unsigned(&Session { superuser: true, ..SIGNED }), "to store a value is another matter");
        assert_eq!(try_set(Source::Session, &Session { permission: Permission::Token, ..SIGNED }), Ok(Origin::Signed));
        assert_eq!(
            try_set(Source::Session, &Session { permission: Permission::Switch, ..SIGNED }),
            Ok(Origin::Switched)
        );
        assert_eq!(try_set(Source::Session, &Session { privileged: true, ..SIGNED }), Ok(Origin::Transaction));
        // The refusal does not tell which tenant the transaction belongs to.
        let red = key("red");
        assert!(unsigned(&Session { sealed: Some(&red), ..SIGNED }));
    }

    #[test]
    fn a_token_is_no_way_to_a_second_tenant() {
        let red = key("red");
        let token = Session { permission: Permission::Token, ..SIGNED };
        let second = try_set(Source::Session, &Session { sealed: Some(&red), ..token });
        assert!(matches!(second, Err(TenancyError::SecondTenant { .. })));
        let pinned = try_set(Source::Session, &Session { pinned: Some(&red), ..token });
        assert!(matches!(pinned, Err(TenancyError::PinnedTenant { .. })));
    }

    #[test]
    fn a_bound_role_is_its_tenant_and_no_other_by_any_way() {
        let (red, blue) = (key("red"), key("blue"));
        for mode in [Mode::Open, Mode::Signed] {
            for permission in [Permission::None, Permission::Switch, Permission::Token] {
                let session = Session { bound: Some(&red), privileged: true, permission, mode, ..FRESH };
                let refusal = try_set(Source::Session, &session);
                assert!(matches!(refusal, Err(TenancyError::BoundRole { .. })), "{mode:?} {permission:?}");
                let own = Session { bound: Some(&blue), privileged: false, ..session };
                assert!(try_set(Source::Session, &own).is_ok(), "{mode:?} {permission:?}");
            }
        }
    }

    #[test]
    fn whoever_is_pinned_may_name_the_tenant_without_a_token() {
        let (red, blue) = (key("red"), key("blue"));
        assert_eq!(try_set(Source::Session, &Session { pinned: Some(&blue), ..SIGNED }), Ok(Origin::Pinned));
        let other = try_set(Source::Session, &Session { pinned: Some(&red), ..SIGNED });
        assert!(matches!(other, Err(TenancyError::PinnedTenant { .. })));
    }

    #[test]
    fn a_mark_tells_a_worker_all_that_its_leader_knows() {
        for (origin, vouched) in [
            (Origin::Transaction, false),
            (Origin::Transaction, true),
            (Origin::Switched, true),
            (Origin::Pinned, true),
            (Origin::Signed, true),
        ] {
            let value = Assigned { origin, vouched, stamp: 7, until: 42, ..PLAIN };
            let told = Assigned::from_mark(PLAIN.key, 0, &value.to_mark()).unwrap();
            assert_eq!((told.origin, told.vouched, told.stamp, told.until), (origin, vouched, 7, 42));
        }
        for nonsense in ["", "7", "7,v", "7,w,1", "x,v,1", "7,v,", "7,v,1,2"] {
            assert!(Assigned::from_mark(PLAIN.key, 0, nonsense).is_none(), "{nonsense}");
        }
    }

    const PLAIN: Assigned = Assigned {
        key: Key::Number(1),
        origin: Origin::Transaction,
        stamp: 7,
        set_at: 0,
        vouched: false,
        until: FOREVER,
    };

    #[test]
    fn a_value_counts_only_in_its_transaction_unless_it_is_pinned_or_lifetime_says_otherwise() {
        let mut value = PLAIN;
        assert!(value.is_live(7, Lifetime::Transaction));
        assert!(!value.is_live(8, Lifetime::Transaction));
        assert!(value.is_live(8, Lifetime::Session));
        value.stamp = 0;
        assert!(!value.is_live(0, Lifetime::Transaction));
        value.origin = Origin::Pinned;
        assert!(value.is_live(8, Lifetime::Transaction));
    }
}
