//! What the fence refuses.

use crate::model::fence::{Access, Circumstances, Look, Refusal, Standing, Statement};

/// Decides about an access that row security would not filter.
///
/// Every role that has a part in it must be permitted to see all rows: an application must not borrow the right from the
/// owner of a view or function, and a superuser's connection that serves tenants must not fall back on its own.
pub fn admit(access: &Access) -> Result<(), Refusal> {
    let roles = [access.checked_as, access.current, access.outer, access.session];
    if roles.contains(&Standing::Ordinary) {
        return Err(Refusal::NotExempt);
    }
    if access.checked_as == Standing::Superuser && access.for_tenant && access.fences_superusers {
        return Err(Refusal::SuperuserForTenant);
    }
    Ok(())
}

/// Decides about a statement that row security has nothing to say about.
pub fn permits(statement: &Statement, here: &Circumstances) -> bool {
    let is_refused = match statement {
        Statement::Explain { analyzes, .. } => here.guards_explain || (*analyzes && here.guards_analyze),
        Statement::HeldCursor | Statement::TemporaryTable => here.refuses_leftovers,
        Statement::Leftover { .. } => here.keeps_clean,
        Statement::Lock { .. }
        | Statement::Listen
        | Statement::Notify
        | Statement::Trigger { .. }
        | Statement::Function { .. } => here.is_strict,
        // Whoever administers tenants does not thereby administer roles.
        Statement::Unpin => return here.is_superuser,
    };
    !(is_refused && here.is_bound)
}

/// Decides whether a catalog that shows other sessions may be read.
///
/// A role that is locked down may read it through a view or SECURITY DEFINER function of somebody else, who thereby decides
/// what it shows; but not of a role that it can take on itself.
pub fn shows(look: &Look) -> bool {
    !look.is_locked_down && !look.is_borrowed_from_own_role
}

#[cfg(test)]
mod tests {
    use super::*;
    use Standing::*;

    #[test]
    fn a_role_that_is_locked_down_sees_through_the_eyes_of_others_only() {
        let through_others = Look { is_locked_down: false, is_borrowed_from_own_role: false };
        assert!(shows(&through_others));
        assert!(!shows(&Look { is_locked_down: true, ..through_others }));
        assert!(!shows(&Look { is_borrowed_from_own_role: true, ..through_others }));
    }

    const APPLICATION: Circumstances = Circumstances {
        is_bound: true,
        is_superuser: false,
        is_strict: false,
        guards_explain: false,
        guards_analyze: false,
        keeps_clean: false,
        refuses_leftovers: false,
    };

    #[test]
    fn what_costs_a_feature_is_refused_when_strict_and_to_bound_roles_only() {
        let strict = Circumstances { is_strict: true, ..APPLICATION };
        for statement in [
            Statement::Listen,
            Statement::Notify,
            Statement::Lock { relation: "t".into() },
            Statement::Trigger { relation: "t".into() },
            Statement::Function { name: "lo_get".into() },
        ] {
            assert!(permits(&statement, &APPLICATION));
            assert!(!permits(&statement, &strict));
            assert!(permits(&statement, &Circumstances { is_bound: false, ..strict }));
        }
    }

    #[test]
    fn explain_is_refused_as_far_as_its_guard_says() {
        let explain = |analyzes| Statement::Explain { relation: "t".into(), analyzes };
        let analyze = Circumstances { guards_analyze: true, ..APPLICATION };
        assert!(permits(&explain(true), &APPLICATION));
        assert!(permits(&explain(false), &analyze) && !permits(&explain(true), &analyze));
        assert!(!permits(&explain(false), &Circumstances { guards_explain: true, ..analyze }));
    }

    #[test]
    fn leftovers_are_refused_by_either_kind_of_hygiene_and_not_made_under_refuse() {
        let leftover = Statement::Leftover { what: "cursor".into() };
        let scrub = Circumstances { keeps_clean: true, ..APPLICATION };
        assert!(permits(&leftover, &APPLICATION) && !permits(&leftover, &scrub));
        assert!(permits(&Statement::HeldCursor, &scrub));
        let refuse = Circumstances { refuses_leftovers: true, ..scrub };
        assert!(!permits(&Statement::HeldCursor, &refuse) && !permits(&Statement::TemporaryTable, &refuse));
    }

    #[test]
    fn only_a_superuser_takes_a_stored_tenant_away() {
        assert!(!permits(&Statement::Unpin, &APPLICATION));
        assert!(!permits(&Statement::Unpin, &Circumstances { is_bound: false, ..APPLICATION }));
        assert!(permits(&Statement::Unpin, &Circumstances { is_superuser: true, ..APPLICATION }));
    }

    const MAINTENANCE: Access = Access {
        checked_as: Superuser,
        current: Superuser,
        outer: Superuser,
        session: Superuser,
        for_tenant: false,
        fences_superusers: true,
    };

    #[test]
    fn a_superuser_in_maintenance_sees_all() {
        assert_eq!(admit(&MAINTENANCE), Ok(()));
    }

    #[test]
    fn a_superuser_for_a_tenant_does_not_unless_the_setting_says_so() {
        let serving = Access { for_tenant: true, ..MAINTENANCE };
        assert_eq!(admit(&serving), Err(Refusal::SuperuserForTenant));
        assert_eq!(admit(&Access { fences_superusers: false, ..serving }), Ok(()));
    }

    #[test]
    fn an_application_borrows_nothing_from_the_owner_of_a_view_or_function() {
        let through_view = Access { current: Ordinary, outer: Ordinary, session: Ordinary, ..MAINTENANCE };
        assert_eq!(admit(&through_view), Err(Refusal::NotExempt));
        let in_definer_function = Access { outer: Ordinary, session: Ordinary, ..MAINTENANCE };
        assert_eq!(admit(&in_definer_function), Err(Refusal::NotExempt));
        let through_exempt_view = Access { checked_as: Exempt, ..through_view };
        assert_eq!(admit(&through_exempt_view), Err(Refusal::NotExempt));
    }

    #[test]
    fn an_exempt_role_sees_all_by_itself_and_after_a_superusers_set_role() {
        let exempt = Access { checked_as: Exempt, current: Exempt, outer: Exempt, session: Exempt, ..MAINTENANCE };
        assert_eq!(admit(&exempt), Ok(()));
        assert_eq!(admit(&Access { session: Superuser, ..exempt }), Ok(()));
        assert_eq!(admit(&Access { for_tenant: true, ..exempt }), Ok(()));
        // A member that is not exempt itself does not become so by SET ROLE.
        assert_eq!(admit(&Access { session: Ordinary, ..exempt }), Err(Refusal::NotExempt));
    }
}
