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
    /// Nested in a foreign key's own query, for which PostgreSQL lifts FORCE.
    Cascade,
}

/// A statement or function that row security has nothing to say about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// EXPLAIN of a query that reads a protected table.
    Explain {
        relation: String,
        analyzes: bool,
    },
    /// LOCK TABLE of a protected table that is not the role's own, in a mode that stops others.
    Lock {
        relation: String,
    },
    Listen,
    Notify,
    /// CREATE TRIGGER on a protected table that is not the role's own.
    Trigger {
        relation: String,
    },
    /// DECLARE ... WITH HOLD.
    HeldCursor,
    /// A temporary table that outlives its transaction.
    TemporaryTable,
    /// A function of the server that all tenants share something through.
    Function {
        name: String,
    },
    /// ALTER ROLE or ALTER DATABASE ... RESET of what pins the tenant.
    Unpin,
    /// FETCH from a cursor, or use of a temporary table, that an earlier transaction of another tenant left.
    Leftover {
        what: String,
    },
}

/// What `Statement` is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Circumstances {
    /// The current role is neither a superuser, nor an administrator, nor exempt.
    pub is_bound: bool,
    pub is_superuser: bool,
    /// `tenancy.strictness` is strict.
    pub is_strict: bool,
    /// `tenancy.explain_guard` stops EXPLAIN, and EXPLAIN ANALYZE.
    pub guards_explain: bool,
    pub guards_analyze: bool,
    /// `tenancy.session_hygiene` is scrub or refuse, and is refuse.
    pub keeps_clean: bool,
    pub refuses_leftovers: bool,
}

/// Somebody's look at a catalog that shows other sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The role whose rights count is locked down.
    pub is_locked_down: bool,
    /// It is not, but the session's role is, and can take it on.
    pub is_borrowed_from_own_role: bool,
}
