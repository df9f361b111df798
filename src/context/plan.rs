//! What a session's facts mean to the person who asks.

use crate::model::context::{Lifetime, Origin};
use crate::model::server;
use crate::pg::session::{Facts, Fence, LoadedBy};

/// The part of `verify_context()` that is a judgement.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    pub set_by: Option<&'static str>,
    pub lifetime: &'static str,
    pub is_bound: bool,
    pub reason: &'static str,
    pub loaded_by: &'static str,
    pub fence: &'static str,
    pub server_note: Option<String>,
}

/// Judges `facts`.
pub fn verdict(facts: &Facts) -> Verdict {
    let pinned = matches!(facts.origin, Some(Origin::Pinned | Origin::Bound));
    let (is_bound, reason) = match facts {
        Facts { is_superuser: true, .. } => (false, "the role is a superuser: row security never binds it"),
        Facts { bypasses_rls: true, .. } => (false, "the role has BYPASSRLS: row security never binds it"),
        Facts { session_is_superuser: true, .. } => {
            (true, "row security binds the role, but the session user is a superuser and can leave it with RESET ROLE")
        }
        _ => (true, "row security binds the role"),
    };
    Verdict {
        set_by: facts.origin.map(|origin| match origin {
            Origin::Transaction => "this session",
            Origin::Switched => "tenancy.switch_tenant",
            Origin::Pinned => "ALTER ROLE or ALTER DATABASE ... SET",
            Origin::Signed => "a signed token",
            Origin::Bound => "a role binding",
        }),
        lifetime: match facts.lifetime {
            _ if pinned => "connection",
            Lifetime::Transaction => "transaction",
            Lifetime::Session => "session",
        },
        is_bound,
        reason,
        loaded_by: match facts.loaded_by {
            LoadedBy::SharedPreload => "shared_preload_libraries",
            LoadedBy::SessionPreload => "session_preload_libraries",
            LoadedBy::FirstUse => "first use",
        },
        fence: match facts.fence {
            Fence::Off => "off",
            Fence::Standard => "standard",
            Fence::Strict => "strict",
        },
        server_note: server::note(facts.server_version),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordinary() -> Facts {
        Facts {
            tenant: None,
            origin: Some(Origin::Transaction),
            set_at: None,
            lifetime: Lifetime::Transaction,
            problem: None,
            role: "app".into(),
            is_superuser: false,
            bypasses_rls: false,
            session_is_superuser: false,
            loaded_by: LoadedBy::FirstUse,
            fence: Fence::Off,
            server_version: 150_020,
        }
    }

    #[test]
    fn a_superuser_and_a_bypassing_role_are_not_bound() {
        assert!(verdict(&ordinary()).is_bound);
        assert!(!verdict(&Facts { is_superuser: true, ..ordinary() }).is_bound);
        assert!(!verdict(&Facts { bypasses_rls: true, ..ordinary() }).is_bound);
    }

    #[test]
    fn a_role_that_can_be_left_for_a_superuser_is_told_so() {
        let verdict = verdict(&Facts { session_is_superuser: true, ..ordinary() });
        assert!(verdict.is_bound && verdict.reason.contains("RESET ROLE"));
    }

    #[test]
    fn a_pinned_tenant_lasts_as_long_as_the_connection() {
        assert_eq!(verdict(&ordinary()).lifetime, "transaction");
        assert_eq!(verdict(&Facts { origin: Some(Origin::Pinned), ..ordinary() }).lifetime, "connection");
        assert_eq!(verdict(&Facts { origin: Some(Origin::Bound), ..ordinary() }).lifetime, "connection");
        assert_eq!(verdict(&Facts { origin: Some(Origin::Signed), ..ordinary() }).lifetime, "transaction");
        assert_eq!(verdict(&Facts { lifetime: Lifetime::Session, ..ordinary() }).lifetime, "session");
    }
}
