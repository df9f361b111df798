//! The policies of a protected table.

use super::table::{Column, Policy};
use super::{Ident, KeyKind, QualifiedName, Sql};

/// Who reads and writes a table's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A tenant reads and writes its own rows.
    Tenant,
    /// The same, and rows without a tenant are read by all.
    Shared,
    /// All read; nobody whom row security binds writes.
    Reference,
}

impl Access {
    pub const NAMES: &'static [&'static str] = &["tenant", "shared", "reference"];

    /// Reads the name used in SQL.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Tenant, Self::Shared, Self::Reference].into_iter().find(|access| access.name() == name)
    }

    /// The name used in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Shared => "shared",
            Self::Reference => "reference",
        }
    }
}

/// The policy that isolates.
pub const ISOLATION: &str = "tenancy_isolation";
const ISOLATION_INSERT: &str = "tenancy_isolation_insert";
const ISOLATION_UPDATE: &str = "tenancy_isolation_update";
const ISOLATION_DELETE: &str = "tenancy_isolation_delete";
/// The permissive companion; without one a table with only restrictive policies shows nothing.
const OPEN: &str = "tenancy_open";
/// What DROP EXTENSION ... CASCADE leaves (see `docs/isolation.md`); protecting the table again removes it.
pub const CLOSED: &str = "tenancy_closed";

/// A fixed name as an identifier.
pub fn name(name: &'static str) -> Ident {
    Ident::new(name).expect("our names fit")
}

/// The name of the foreign key to the registry.
pub fn reference_name() -> Ident {
    name("tenancy_tenant_fkey")
}

/// The statement that closes a table whatever other policies it has.
pub fn close(table: &QualifiedName) -> Sql {
    Sql::text("CREATE POLICY ").then(CLOSED).then(" ON ").name(table).then(" AS RESTRICTIVE USING (false)")
}

/// Whether a policy of this name is one of ours.
pub fn is_ours(policy: &Ident) -> bool {
    [ISOLATION, ISOLATION_INSERT, ISOLATION_UPDATE, ISOLATION_DELETE, OPEN, CLOSED].contains(&policy.as_str())
}

/// The function that gives the current tenant's key.
pub fn current(key: KeyKind) -> &'static str {
    match key {
        KeyKind::Id => "tenancy.current_tenant_id()",
        KeyKind::Number => "tenancy.current_tenant_number()",
        KeyKind::Code => "tenancy.current_tenant_code()",
    }
}

fn writing(key: KeyKind) -> &'static str {
    match key {
        KeyKind::Id => "tenancy_internal.writing_tenant_id()",
        KeyKind::Number => "tenancy_internal.writing_tenant_number()",
        KeyKind::Code => "tenancy_internal.writing_tenant_code()",
    }
}

/// How a policy in the catalog differs from the one that is wanted; judged on parse trees, by `pg::policies`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Permissive instead of restrictive, or the other way round.
    Kind,
    Command,
    /// It binds some roles only.
    Roles,
    Using,
    Check,
    /// It has no WITH CHECK: its USING stands in.
    LacksCheck,
}

impl Difference {
    /// The name used in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kind => "kind",
            Self::Command => "command",
            Self::Roles => "roles",
            Self::Using => "using",
            Self::Check => "check",
            Self::LacksCheck => "lacks check",
        }
    }
}

/// A policy to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    name: &'static str,
    is_permissive: bool,
    command: char,
    using: Option<Sql>,
    check: Option<Sql>,
}

/// The policies that a table with this access needs.
pub fn wanted(access: Access, column: &Ident, found: Option<&Column>, key: Option<KeyKind>, open: bool) -> Vec<Spec> {
    let equals = |function: &'static str| {
        let column = match found {
            Some(found) if found.is_cast_to_base() => {
                Sql::text("(").ident(column).then(")::").then(found.base_type_sql())
            }
            _ => Sql::text("").ident(column),
        };
        Sql::text("(").sql(&column).then(" = ").then(function).then(")")
    };
    let restrict = Spec::restrictive;
    // True, by the planner's folding; it names the tenant column and the extension's domain to go with either.
    let open_to_write = Sql::text("((true)::tenancy_internal.open_rows OR (").ident(column).then(" IS NULL))");
    let companion = |command, using, check| {
        open.then_some(Spec { name: OPEN, is_permissive: true, command, using: Some(using), check })
    };
    let (mut specs, companion) = match (access, key) {
        (Access::Tenant, Some(key)) => (
            vec![
                restrict(ISOLATION, '*', Some(equals(current(key))), Some(equals(writing(key)))),
                restrict(ISOLATION_DELETE, 'd', Some(Sql::text("tenancy_internal.may_write()")), None),
            ],
            // The same predicate once more: the rewriter drops what it has already, so a query carries it once.
            companion('*', equals(current(key)), Some(open_to_write)),
        ),
        (Access::Shared, Some(key)) => {
            let readable = Sql::text("(").sql(&equals(current(key))).then(" OR (").ident(column).then(" IS NULL))");
            (
                vec![
                    restrict(ISOLATION, 'r', Some(readable.clone()), None),
                    restrict(ISOLATION_INSERT, 'a', None, Some(equals(writing(key)))),
                    restrict(ISOLATION_UPDATE, 'w', Some(equals(current(key))), Some(equals(writing(key)))),
                    restrict(ISOLATION_DELETE, 'd', Some(equals(writing(key))), None),
                ],
                companion('*', readable, Some(open_to_write)),
            )
        }
        _ => {
            let never = || Some(Sql::text("(NOT (true)::tenancy_internal.open_rows)"));
            (
                vec![
                    restrict(ISOLATION_INSERT, 'a', None, never()),
                    restrict(ISOLATION_UPDATE, 'w', never(), None),
                    restrict(ISOLATION_DELETE, 'd', never(), None),
                ],
                companion('r', Sql::text("(true)::tenancy_internal.open_rows"), None),
            )
        }
    };
    specs.extend(companion);
    specs
}

impl Spec {
    /// Whether it is the companion that opens the table.
    pub fn is_open(&self) -> bool {
        self.name == OPEN
    }

    /// A policy that only withholds.
    pub fn restrictive(name: &'static str, command: char, using: Option<Sql>, check: Option<Sql>) -> Self {
        Self { name, is_permissive: false, command, using, check }
    }

    /// Whether `found` is this policy, unaltered.
    pub fn matches(&self, found: &Policy) -> bool {
        found.name.as_str() == self.name && found.is_as_made
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether it offers rows rather than withholds them.
    pub fn is_permissive(&self) -> bool {
        self.is_permissive
    }

    /// `pg_policy.polcmd`.
    pub fn command(&self) -> char {
        self.command
    }

    /// What rows must satisfy to be seen.
    pub fn using(&self) -> Option<&Sql> {
        self.using.as_ref()
    }

    /// What rows must satisfy to be written.
    pub fn check(&self) -> Option<&Sql> {
        self.check.as_ref()
    }

    /// The statement that creates it.
    pub fn create(&self, table: &QualifiedName) -> Sql {
        let mut sql = Sql::text("CREATE POLICY ").then(self.name).then(" ON ").name(table);
        if !self.is_permissive {
            sql = sql.then(" AS RESTRICTIVE");
        }
        sql = match self.command {
            'r' => sql.then(" FOR SELECT"),
            'a' => sql.then(" FOR INSERT"),
            'w' => sql.then(" FOR UPDATE"),
            'd' => sql.then(" FOR DELETE"),
            _ => sql,
        };
        if let Some(using) = &self.using {
            sql = sql.then(" USING (").sql(using).then(")");
        }
        if let Some(check) = &self.check {
            sql = sql.then(" WITH CHECK (").sql(check).then(")");
        }
        sql
    }

    /// Why it is there.
    pub fn reason(&self) -> &'static str {
        match self.name {
            ISOLATION => "only the tenant's own rows; no other policy can widen it",
            ISOLATION_DELETE => "a read-only tenant, or anyone on a reference table, deletes nothing",
            OPEN => "restrictive policies alone would show nothing; left out where you have a permissive policy",
            _ => "only the tenant's own rows are written",
        }
    }
}
