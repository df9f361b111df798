//! What the fence knows of an access that row security would not filter.

/// What a role is to the fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Superuser,
    /// In `tenancy.exempt_roles`, and still in time.
    Exempt,
    Ordinary,
}

/// An access to a protected relation whose row security is not active for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The role whose rights the access is checked by: the current one, or the owner of a view.
    pub checked_as: Standing,
    /// The current role, which a SECURITY DEFINER function changes.
    pub current: Standing,
    /// The role outside of all functions, as SET ROLE left it.
    pub outer: Standing,
    /// The role that the session was opened for.
    pub session: Standing,
    /// A tenant is set, or the transaction belongs to one.
    pub for_tenant: bool,
    /// `tenancy.fence_superusers`.
    pub fences_superusers: bool,
}

/// Why the fence refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A role that has a part in the access is neither a superuser nor exempt.
    NotExempt,
    /// A superuser works for a tenant.
    SuperuserForTenant,
}

/// Why row security would not filter an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// The table's row security is off.
    Off,
    /// The role owns the table, and its row security is not forced.
    Unforced,
    /// The role is a superuser or has BYPASSRLS.
    Unbound,
    /// Checked as the owner of a view, whom it does not bind.
    View,
    /// In a SECURITY DEFINER function of a role whom it does not bind.
    Function,
    /// Read through a parent that is not protected.
    Parent,
}
