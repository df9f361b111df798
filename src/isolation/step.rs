//! The single steps of protection, as data and as statements.

use super::keys::KeyStep;
use crate::model::policy::{self, Spec};
use crate::model::table::{ForeignKey, Table};
use crate::model::{Deparsed, Ident, KeyKind, QualifiedName, Sql};

pub const NO_ACTION: char = 'a';
pub const GUARD: &str = "tenancy_truncate_guard";

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    AddColumn {
        table: QualifiedName,
        column: Ident,
        assign: Option<String>,
        not_null: bool,
    },
    CheckTenantPresent {
        table: QualifiedName,
        column: Ident,
    },
    CheckTenantKnown {
        table: QualifiedName,
        column: Ident,
        key: KeyKind,
    },
    AssignRows {
        table: QualifiedName,
        column: Ident,
        value: String,
    },
    SetDefault {
        table: QualifiedName,
        column: Ident,
        key: KeyKind,
    },
    SetNotNull {
        table: QualifiedName,
        column: Ident,
    },
    AddIndex {
        table: QualifiedName,
        columns: Vec<Ident>,
        unique: bool,
    },
    CheckLink(Link),
    ScopeForeignKey(Link),
    /// Writes a foreign key anew, as `key` says; see actions.rs.
    ReplaceForeignKey {
        table: QualifiedName,
        key: ForeignKey,
        reason: &'static str,
    },
    AddReference {
        table: QualifiedName,
        column: Ident,
        key: KeyKind,
    },
    DropPolicy {
        table: QualifiedName,
        policy: Ident,
    },
    AddPolicy {
        table: QualifiedName,
        policy: Spec,
    },
    DropGuard {
        table: QualifiedName,
    },
    AddGuard {
        table: QualifiedName,
    },
    EnableRowSecurity {
        table: QualifiedName,
    },
    ForceRowSecurity {
        table: QualifiedName,
    },
    /// Of `scope_unique`.
    Key(KeyStep),
    /// Nothing to do, but something to know.
    Note {
        table: QualifiedName,
        text: String,
    },
    // the way back
    UnscopeForeignKey {
        link: Link,
        match_full: bool,
    },
    DropConstraint {
        table: QualifiedName,
        constraint: Ident,
    },
    RestoreDefault {
        table: QualifiedName,
        column: Ident,
        default: Option<Deparsed>,
    },
    DropNotNull {
        table: QualifiedName,
        column: Ident,
    },
    DropIndex {
        schema: Ident,
        index: Ident,
    },
    RestoreIndex {
        definition: Deparsed,
    },
    DisableRowSecurity {
        table: QualifiedName,
    },
    UnforceRowSecurity {
        table: QualifiedName,
    },
}

/// A foreign key between two tables with a tenant column each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub child: QualifiedName,
    pub child_column: Ident,
    pub parent: QualifiedName,
    pub parent_column: Ident,
    pub key: ForeignKey,
}

/// Lets an owner whom FORCE binds check all rows: what a step reads is unforced with its partitions and children, and
/// forced again, under the lock of the call.
pub fn lift_force(steps: Vec<Step>, families: &[Vec<&Table>]) -> Vec<Step> {
    let (mut lifted, mut forced) = (Vec::new(), Vec::new());
    for family in families {
        if !family.iter().any(|table| steps.iter().any(|step| step.reads(&table.name))) {
            continue;
        }
        for table in family.iter().filter(|table| table.row_security && table.forced) {
            let unforced = Step::UnforceRowSecurity { table: table.name.clone() };
            if !steps.contains(&unforced) {
                forced.push(Step::ForceRowSecurity { table: table.name.clone() });
            }
            lifted.push(unforced);
        }
    }
    lifted.extend(steps);
    lifted.extend(forced);
    lifted
}

/// Whether a foreign key pairs the two tenant columns.
pub fn is_scoped(key: &ForeignKey, child_column: &Ident, parent_column: &Ident) -> bool {
    key.columns.iter().zip(&key.parent_columns).any(|(child, parent)| child == child_column && parent == parent_column)
}

impl Link {
    /// The rows of the child that refer to another tenant's row.
    pub fn crossing_rows(&self) -> Sql {
        let mut sql = Sql::text("SELECT count(*) FROM ")
            .name(&self.child)
            .then(" AS child JOIN ")
            .name(&self.parent)
            .then(" AS parent ON ");
        for (position, (child, parent)) in self.key.columns.iter().zip(&self.key.parent_columns).enumerate() {
            if position > 0 {
                sql = sql.then(" AND ");
            }
            sql = sql.then("child.").ident(child).then(" = parent.").ident(parent);
        }
        sql.then(" WHERE child.").ident(&self.child_column).then(" IS DISTINCT FROM parent.").ident(&self.parent_column)
    }

    /// The clause that adds the key led by the tenant columns.
    pub fn scoped(&self) -> Sql {
        let columns = with_first(&self.child_column, &self.key.columns);
        let parent_columns = with_first(&self.parent_column, &self.key.parent_columns);
        let set_columns = match &self.key.on_delete_columns[..] {
            _ if !sets_columns(self.key.on_delete) => &[][..],
            [] => &self.key.columns,
            named => named,
        };
        self.add(&columns, &parent_columns, set_columns, false)
    }

    /// The clause that adds it without them.
    pub fn unscoped(&self, match_full: bool) -> Sql {
        let columns: Vec<Ident> = without(&self.key.columns, &self.child_column);
        let parent_columns: Vec<Ident> = without(&self.key.parent_columns, &self.parent_column);
        let named = &self.key.on_delete_columns;
        let set_columns = if named.len() == columns.len() { &[][..] } else { named };
        self.add(&columns, &parent_columns, set_columns, match_full)
    }

    /// The clause that adds it as it is.
    pub fn unchanged(&self) -> Sql {
        let key = &self.key;
        self.add(&key.columns, &key.parent_columns, &key.on_delete_columns, key.match_type == 'f')
    }

    fn replace(&self, clause: &Sql) -> Sql {
        Sql::text("ALTER TABLE ")
            .name(&self.child)
            .then(" DROP CONSTRAINT ")
            .ident(&self.key.name)
            .then(", ")
            .sql(clause)
    }

    fn add(&self, columns: &[Ident], parent_columns: &[Ident], set_columns: &[Ident], match_full: bool) -> Sql {
        let key = ForeignKey {
            columns: columns.to_vec(),
            parent_name: self.parent.clone(),
            parent_columns: parent_columns.to_vec(),
            on_delete_columns: set_columns.to_vec(),
            match_type: if match_full { 'f' } else { 's' },
            ..self.key.clone()
        };
        Sql::text("ADD CONSTRAINT ").ident(&key.name).then(" ").sql(&definition(&key))
    }
}

/// A foreign key as a constraint of its table is written.
pub fn definition(key: &ForeignKey) -> Sql {
    let mut sql = Sql::text("FOREIGN KEY (")
        .idents(&key.columns)
        .then(") REFERENCES ")
        .name(&key.parent_name)
        .then(" (")
        .idents(&key.parent_columns)
        .then(")");
    if key.match_type == 'f' {
        sql = sql.then(" MATCH FULL");
    }
    if key.on_update != NO_ACTION {
        sql = sql.then(" ON UPDATE ").then(action(key.on_update));
    }
    if key.on_delete != NO_ACTION {
        sql = sql.then(" ON DELETE ").then(action(key.on_delete));
    }
    if !key.on_delete_columns.is_empty() {
        sql = sql.then(" (").idents(&key.on_delete_columns).then(")");
    }
    if key.is_deferrable {
        sql = sql.then(if key.is_deferred { " DEFERRABLE INITIALLY DEFERRED" } else { " DEFERRABLE" });
    }
    if key.is_validated { sql } else { sql.then(" NOT VALID") }
}

/// The statement that writes a foreign key of `table` anew.
pub fn replace(table: &QualifiedName, key: &ForeignKey) -> Sql {
    Sql::text("ALTER TABLE ")
        .name(table)
        .then(" DROP CONSTRAINT ")
        .ident(&key.name)
        .then(", ADD CONSTRAINT ")
        .ident(&key.name)
        .then(" ")
        .sql(&definition(key))
}

/// Whether a foreign key's action writes to the referring columns.
pub fn sets_columns(action: char) -> bool {
    matches!(action, 'n' | 'd')
}

fn with_first(first: &Ident, rest: &[Ident]) -> Vec<Ident> {
    std::iter::once(first).chain(rest).cloned().collect()
}

fn without(columns: &[Ident], column: &Ident) -> Vec<Ident> {
    columns.iter().filter(|name| *name != column).cloned().collect()
}

/// A foreign key's action as SQL.
pub fn action(code: char) -> &'static str {
    match code {
        'r' => "RESTRICT",
        'c' => "CASCADE",
        'n' => "SET NULL",
        'd' => "SET DEFAULT",
        _ => "NO ACTION",
    }
}

impl Step {
    /// Whether the statement reads, or has a foreign key checked on, all rows of `table`.
    fn reads(&self, table: &QualifiedName) -> bool {
        match self {
            Step::CheckTenantPresent { table: read, .. }
            | Step::CheckTenantKnown { table: read, .. }
            | Step::AssignRows { table: read, .. }
            | Step::AddReference { table: read, .. } => read == table,
            Step::Key(KeyStep::Attach { link, .. })
            | Step::CheckLink(link)
            | Step::ScopeForeignKey(link)
            | Step::UnscopeForeignKey { link, .. } => link.child == *table || link.parent == *table,
            Step::ReplaceForeignKey { table: child, key, .. } => child == table || key.parent_name == *table,
            _ => false,
        }
    }

    /// The statement; None for a note.
    pub fn statement(&self) -> Option<Sql> {
        use Step as S;
        let alter = |table: &QualifiedName| Sql::text("ALTER TABLE ").name(table);
        let column_of = |table: &QualifiedName, column: &Ident| alter(table).then(" ALTER COLUMN ").ident(column);
        Some(match self {
            S::AddColumn { table, column, assign, not_null } => {
                let mut sql = alter(table).then(" ADD COLUMN ").ident(column).then(" uuid");
                if *not_null {
                    sql = sql.then(" NOT NULL");
                }
                match assign {
                    Some(tenant) => sql.then(" DEFAULT ").literal(tenant),
                    None => sql,
                }
            }
            S::CheckTenantPresent { table, column } => {
                Sql::text("SELECT count(*) FROM ").name(table).then(" WHERE ").ident(column).then(" IS NULL")
            }
            S::CheckTenantKnown { table, column, .. } => Sql::text("SELECT ")
                .ident(column)
                .then("::text, count(*) FROM ")
                .name(table)
                .then(" WHERE ")
                .ident(column)
                .then(" IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1"),
            S::AssignRows { table, column, value } => Sql::text("UPDATE ")
                .name(table)
                .then(" SET ")
                .ident(column)
                .then(" = ")
                .literal(value)
                .then(" WHERE ")
                .ident(column)
                .then(" IS NULL"),
            S::SetDefault { table, column, key } => {
                column_of(table, column).then(" SET DEFAULT ").then(policy::current(*key))
            }
            S::SetNotNull { table, column } => column_of(table, column).then(" SET NOT NULL"),
            S::AddIndex { table, columns, unique } => {
                Sql::text(if *unique { "CREATE UNIQUE INDEX ON " } else { "CREATE INDEX ON " })
                    .name(table)
                    .then(" (")
                    .idents(columns)
                    .then(")")
            }
            S::CheckLink(link) => link.crossing_rows(),
            S::ScopeForeignKey(link) => link.replace(&link.scoped()),
            S::ReplaceForeignKey { table, key, .. } => replace(table, key),
            S::Key(step) => step.statement(),
            S::AddReference { table, column, key } => alter(table)
                .then(" ADD CONSTRAINT ")
                .ident(&policy::reference_name())
                .then(" FOREIGN KEY (")
                .ident(column)
                .then(") REFERENCES tenancy.tenants (")
                .then(key.column())
                .then(") ON DELETE RESTRICT"),
            S::DropPolicy { table, policy } => Sql::text("DROP POLICY ").ident(policy).then(" ON ").name(table),
            S::AddPolicy { table, policy } => policy.create(table),
            S::DropGuard { table } => Sql::text("DROP TRIGGER tenancy_truncate_guard ON ").name(table),
            S::AddGuard { table } => Sql::text("CREATE TRIGGER tenancy_truncate_guard BEFORE TRUNCATE ON ")
                .name(table)
                .then(" FOR EACH STATEMENT EXECUTE FUNCTION tenancy_internal.refuse_truncate(); ALTER TABLE ONLY ")
                .name(table)
                .then(" ENABLE ALWAYS TRIGGER tenancy_truncate_guard"),
            S::EnableRowSecurity { table } => alter(table).then(" ENABLE ROW LEVEL SECURITY"),
            S::ForceRowSecurity { table } => alter(table).then(" FORCE ROW LEVEL SECURITY"),
            S::Note { .. } => return None,
            S::UnscopeForeignKey { link, match_full } => link.replace(&link.unscoped(*match_full)),
            S::DropConstraint { table, constraint } => alter(table).then(" DROP CONSTRAINT ").ident(constraint),
            S::RestoreDefault { table, column, default } => match default {
                Some(default) => column_of(table, column).then(" SET DEFAULT ").deparsed(default),
                None => column_of(table, column).then(" DROP DEFAULT"),
            },
            S::DropNotNull { table, column } => column_of(table, column).then(" DROP NOT NULL"),
            S::DropIndex { schema, index } => Sql::text("DROP INDEX ").ident(schema).then(".").ident(index),
            S::RestoreIndex { definition } => Sql::text("").deparsed(definition),
            S::DisableRowSecurity { table } => alter(table).then(" DISABLE ROW LEVEL SECURITY"),
            S::UnforceRowSecurity { table } => alter(table).then(" NO FORCE ROW LEVEL SECURITY"),
        })
    }

    /// What kind of step it is, for `plan_protection`.
    pub fn action(&self) -> &'static str {
        use Step as S;
        match self {
            S::AddColumn { .. } => "add column",
            S::CheckTenantPresent { .. } | S::CheckTenantKnown { .. } | S::CheckLink(_) => "check rows",
            S::AssignRows { .. } => "assign rows",
            S::SetDefault { .. } | S::RestoreDefault { .. } => "set default",
            S::SetNotNull { .. } => "set not null",
            S::DropNotNull { .. } => "drop not null",
            S::AddIndex { .. } | S::RestoreIndex { .. } => "add index",
            S::DropIndex { .. } => "drop index",
            S::ScopeForeignKey(_) | S::UnscopeForeignKey { .. } | S::ReplaceForeignKey { .. } => "replace foreign key",
            S::AddReference { .. } => "add foreign key",
            S::DropConstraint { .. } => "drop foreign key",
            S::DropPolicy { .. } => "drop policy",
            S::AddPolicy { .. } => "add policy",
            S::DropGuard { .. } => "drop trigger",
            S::AddGuard { .. } => "add trigger",
            S::EnableRowSecurity { .. } | S::ForceRowSecurity { .. } => "enable row security",
            S::DisableRowSecurity { .. } | S::UnforceRowSecurity { .. } => "disable row security",
            S::Key(step) => step.action(),
            S::Note { .. } => "note",
        }
    }

    /// The strongest table lock the statement takes; None for a note.
    pub fn lock(&self) -> Option<&'static str> {
        use Step as S;
        match self {
            S::Note { .. } => None,
            S::Key(step) => Some(step.lock()),
            S::CheckTenantPresent { .. } | S::CheckTenantKnown { .. } | S::CheckLink(_) => Some("ACCESS SHARE"),
            S::AssignRows { .. } => Some("ROW EXCLUSIVE"),
            S::AddIndex { .. } | S::RestoreIndex { .. } => Some("SHARE"),
            S::AddGuard { .. } | S::AddReference { .. } => Some("SHARE ROW EXCLUSIVE"),
            _ => Some("ACCESS EXCLUSIVE"),
        }
    }

    /// Why the step is there.
    pub fn reason(&self) -> String {
        use Step as S;
        match self {
            S::AddColumn { assign: Some(_), .. } => "existing rows get the tenant given, without a rewrite".into(),
            S::AddColumn { .. } => "each row needs a tenant".into(),
            S::CheckTenantPresent { .. } => "no row may be without a tenant".into(),
            S::CheckTenantKnown { .. } => "each tenant must be in tenancy.tenants".into(),
            S::AssignRows { .. } => "rows without a tenant get the one given".into(),
            S::SetDefault { .. } => "a new row gets the tenant of its transaction".into(),
            S::SetNotNull { .. } => "a row without a tenant would be nobody's".into(),
            S::AddIndex { unique: true, .. } => {
                "a foreign key that includes the tenant needs it; build it CONCURRENTLY beforehand to hold the lock shortly"
                    .into()
            }
            S::AddIndex { .. } => {
                "each query filters by tenant; build it CONCURRENTLY beforehand to hold the lock shortly".into()
            }
            S::CheckLink(_) => "no row may refer to another tenant's row".into(),
            S::ScopeForeignKey(_) => "neither a reference nor a cascade may cross tenants".into(),
            S::ReplaceForeignKey { reason, .. } => (*reason).into(),
            S::AddReference { .. } => "also roles that bypass row security can store known tenants only".into(),
            S::DropPolicy { .. } => "it is not what protection needs now".into(),
            S::AddPolicy { policy, .. } => policy.reason().into(),
            S::DropGuard { .. } => "it is not our guard, or is disabled".into(),
            S::AddGuard { .. } => "TRUNCATE passes row security".into(),
            S::EnableRowSecurity { .. } => "policies apply".into(),
            S::ForceRowSecurity { .. } => "policies bind the owner too".into(),
            S::DropIndex { .. } => "nothing needs it any more".into(),
            S::Key(step) => step.reason().into(),
            S::Note { text, .. } => text.clone(),
            S::UnforceRowSecurity { .. } => "lets the owner check all rows; forced again at the end".into(),
            S::UnscopeForeignKey { .. }
            | S::DropConstraint { .. }
            | S::RestoreIndex { .. }
            | S::RestoreDefault { .. }
            | S::DropNotNull { .. }
            | S::DisableRowSecurity { .. } => "as it was before".into(),
        }
    }
}
