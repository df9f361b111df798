//! What the fence refuses.

use crate::model::fence::{Access, Refusal, Standing};

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

#[cfg(test)]
mod tests {
    use super::*;
    use Standing::*;

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
