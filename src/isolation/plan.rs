//! The steps from a table as it stands to an isolated one, and back.

use super::policy::{self, Access, Spec};
use crate::error::TenancyError;
use crate::model::table::{Column, ForeignKey, Table};
use crate::model::{Deparsed, Ident, KeyKind, QualifiedName, Sql};
use serde::{Deserialize, Serialize};

/// How the tenant column is tied to the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference {
    /// By the policy alone: it admits only tenants that exist.
    Policy,
    /// By a foreign key as well, which also binds roles that row security does not.
    ForeignKey,
}

/// What `protect_table` was asked for.
#[derive(Clone, Debug)]
pub struct Request {
    pub column: Ident,
    pub access: Access,
    pub reference: Reference,
    /// Foreign keys between protected tables get the tenant column.
    pub composite_keys: bool,
    /// The companion that opens the table is wanted where the user has no permissive policy.
    pub open_policy: bool,
    /// The tenant that rows without one are given to, in each of its three keys.
    pub assign: Option<TenantKeys>,
    /// `server_version_num`.
    pub server_version: i32,
    /// FORCE binds the current role on its own tables: it is no superuser and lacks BYPASSRLS.
    pub is_bound_as_owner: bool,
}

/// A tenant's keys as text.
#[derive(Clone, Debug)]
pub struct TenantKeys {
    pub id: String,
    pub number: String,
    pub code: String,
}

impl TenantKeys {
    fn of(&self, kind: KeyKind) -> &str {
        match kind {
            KeyKind::Id => &self.id,
            KeyKind::Number => &self.number,
            KeyKind::Code => &self.code,
        }
    }
}

/// A protected table that a foreign key ties to the one at hand.
#[derive(Clone, Debug)]
pub struct Neighbour {
    pub table: Table,
    pub column: Option<Ident>,
    pub access: Access,
}

/// What the plan is made from.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The table, then its partitions and inheritance children.
    pub family: Vec<Table>,
    pub neighbours: Vec<Neighbour>,
    pub has_rows: bool,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    AddColumn { table: QualifiedName, column: Ident, assign: Option<String>, not_null: bool },
    CheckTenantPresent { table: QualifiedName, column: Ident },
    CheckTenantKnown { table: QualifiedName, column: Ident, key: KeyKind },
    AssignRows { table: QualifiedName, column: Ident, value: String },
    SetDefault { table: QualifiedName, column: Ident, key: KeyKind },
    SetNotNull { table: QualifiedName, column: Ident },
    AddIndex { table: QualifiedName, columns: Vec<Ident>, unique: bool },
    CheckLink(Link),
    ScopeForeignKey(Link),
    AddReference { table: QualifiedName, column: Ident, key: KeyKind },
    DropPolicy { table: QualifiedName, policy: Ident },
    AddPolicy { table: QualifiedName, policy: Spec },
    DropGuard { table: QualifiedName },
    AddGuard { table: QualifiedName },
    EnableRowSecurity { table: QualifiedName },
    ForceRowSecurity { table: QualifiedName },
    /// Nothing to do, but something to know.
    Note { table: QualifiedName, text: String },
    // the way back
    UnscopeForeignKey { link: Link, match_full: bool },
    DropConstraint { table: QualifiedName, constraint: Ident },
    RestoreDefault { table: QualifiedName, column: Ident, default: Option<Deparsed> },
    DropNotNull { table: QualifiedName, column: Ident },
    DropIndex { schema: Ident, index: Ident },
    DisableRowSecurity { table: QualifiedName },
    UnforceRowSecurity { table: QualifiedName },
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

/// What `unprotect_table` puts back; stored with each protected relation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undo {
    pub row_security: bool,
    pub forced: bool,
    /// The default before ours; None inside when there was none.
    pub default: Option<DefaultBefore>,
    pub not_null_added: bool,
    pub indexes: Vec<Ident>,
    pub foreign_keys: Vec<ScopedKey>,
    pub reference_key: Option<Ident>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultBefore(pub Option<Deparsed>);

/// A foreign key that got the tenant column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopedKey {
    pub name: Ident,
    pub was_match_full: bool,
}

const GUARD: &str = "tenancy_truncate_guard";
const NO_ACTION: char = 'a';

/// The steps that protect the table; empty when nothing is left to do.
pub fn protect(facts: &Facts, request: &Request) -> Result<Vec<Step>, TenancyError> {
    let root = facts.family.first().ok_or_else(no_table)?;
    refuse_unfit(root)?;
    let mut steps = Vec::new();
    let key = match request.access {
        Access::Reference => None,
        Access::Tenant | Access::Shared => Some(tenant_column(root, facts, request, &mut steps)?),
    };
    if let Some(key) = key {
        let unique = scope_keys(facts, request, key, &mut steps)?;
        index_tenant_column(facts, request, &unique, &mut steps);
        if request.reference == Reference::ForeignKey && reference_key(root, &request.column).is_none() {
            let (table, column) = (root.name.clone(), request.column.clone());
            steps.push(Step::AddReference { table, column, key });
        }
    }
    for table in &facts.family {
        guard(table, request, key, &mut steps);
    }
    let tables = facts.family.iter().chain(facts.neighbours.iter().map(|neighbour| &neighbour.table));
    Ok(lift_force(steps, tables, request.is_bound_as_owner))
}

/// Lets an owner whom FORCE binds check all rows: the table is unforced, and forced again, under the lock of the call.
fn lift_force<'a>(
    steps: Vec<Step>,
    tables: impl Iterator<Item = &'a Table>,
    is_bound_as_owner: bool,
) -> Vec<Step> {
    let reads = |step: &Step, table: &QualifiedName| match step {
        Step::CheckTenantPresent { table: read, .. }
        | Step::CheckTenantKnown { table: read, .. }
        | Step::AssignRows { table: read, .. }
        | Step::AddReference { table: read, .. } => read == table,
        Step::CheckLink(link) | Step::ScopeForeignKey(link) | Step::UnscopeForeignKey { link, .. } => {
            link.child == *table || link.parent == *table
        }
        _ => false,
    };
    let (mut lifted, mut forced) = (Vec::new(), Vec::new());
    for table in tables.filter(|table| is_bound_as_owner && table.row_security && table.forced) {
        if steps.iter().any(|step| reads(step, &table.name)) {
            lifted.push(Step::UnforceRowSecurity { table: table.name.clone() });
            let again = Step::ForceRowSecurity { table: table.name.clone() };
            let unforced = Step::UnforceRowSecurity { table: table.name.clone() };
            if !steps.contains(&unforced) {
                forced.push(again);
            }
        }
    }
    lifted.extend(steps);
    lifted.extend(forced);
    lifted
}

/// Why `protect_schema` leaves a relation alone; None when it protects it.
pub fn left_out(table: &Table, request: &Request) -> Option<String> {
    if let Some(parent) = &table.parent {
        return Some(format!("partition or child of {parent}, which is protected with it or left with it"));
    }
    if let Err(refusal) = refuse_unfit(table) {
        return Some(refusal.to_string());
    }
    let has_column = table.column(&request.column).is_some();
    (!has_column && request.access != Access::Reference).then(|| format!("has no column {}", request.column))
}

fn no_table() -> TenancyError {
    TenancyError::Internal { what: "the table does not exist any more".into() }
}

fn refuse_unfit(table: &Table) -> Result<(), TenancyError> {
    let relation = table.name.clone();
    let kind = match table.kind {
        'r' | 'p' => None,
        'v' => Some("view"),
        'm' => Some("materialized view"),
        'f' => Some("foreign table"),
        'i' | 'I' => Some("index"),
        'S' => Some("sequence"),
        _ => Some("relation of another kind"),
    };
    match kind {
        Some(kind) => Err(TenancyError::NotATable { relation, kind }),
        None if table.is_system => Err(TenancyError::SystemTable { relation }),
        None if table.is_temporary => Err(TenancyError::TemporaryTable { relation }),
        None => match &table.parent {
            Some(parent) => Err(TenancyError::IsPartition { relation, parent: parent.clone() }),
            None => Ok(()),
        },
    }
}

/// Refuses a role that may not alter the table; once there is something to alter.
pub fn refuse_stranger(table: &Table, role: &str) -> Result<(), TenancyError> {
    if table.is_owned {
        Ok(())
    } else {
        Err(TenancyError::NotOwner { table: table.name.clone(), role: role.to_owned() })
    }
}

fn tenant_column(
    root: &Table,
    facts: &Facts,
    request: &Request,
    steps: &mut Vec<Step>,
) -> Result<KeyKind, TenancyError> {
    let (table, column) = (root.name.clone(), request.column.clone());
    let must_have = request.access == Access::Tenant;
    let Some(found) = root.column(&column) else {
        if must_have && facts.has_rows && request.assign.is_none() {
            return Err(TenancyError::NoTenantColumn { table, column });
        }
        let assign = request.assign.as_ref().map(|tenant| tenant.id.clone());
        steps.push(Step::AddColumn { table: table.clone(), column: column.clone(), assign, not_null: must_have });
        steps.push(Step::SetDefault { table, column, key: KeyKind::Id });
        return Ok(KeyKind::Id);
    };
    let key = found.key().ok_or_else(|| TenancyError::WrongTenantType {
        table: table.clone(),
        column: column.clone(),
        found: found.shown_type.to_string(),
    })?;
    if found.has_loose_collation {
        return Err(TenancyError::LooseCollation { table, column });
    }
    // The policy of a protected table has admitted only known tenants; whoever bypassed it is integrity's business.
    let is_new = root.policy(&policy::name(policy::ISOLATION)).is_none();
    let lacks_not_null = must_have && !found.not_null;
    if lacks_not_null {
        match &request.assign {
            Some(tenant) => {
                let value = tenant.of(key).to_owned();
                steps.push(Step::AssignRows { table: table.clone(), column: column.clone(), value });
            }
            None => steps.push(Step::CheckTenantPresent { table: table.clone(), column: column.clone() }),
        }
    }
    if is_new {
        steps.push(Step::CheckTenantKnown { table: table.clone(), column: column.clone(), key });
    }
    if found.default.as_ref().map(Deparsed::as_str) != Some(policy::default(found, key).as_str()) {
        steps.push(Step::SetDefault { table: table.clone(), column: column.clone(), key });
    }
    if lacks_not_null {
        steps.push(Step::SetNotNull { table, column });
    }
    Ok(key)
}

/// One end of a foreign key.
struct End<'a> {
    table: &'a Table,
    column: &'a Ident,
    key: KeyKind,
    access: Access,
    is_family: bool,
}

/// Plans composite foreign keys; gives the tables that get a unique index led by the tenant column for them.
fn scope_keys(
    facts: &Facts,
    request: &Request,
    key: KeyKind,
    steps: &mut Vec<Step>,
) -> Result<Vec<QualifiedName>, TenancyError> {
    let ours = facts.family.iter().map(|table| End {
        table,
        column: &request.column,
        key,
        access: request.access,
        is_family: true,
    });
    let theirs = facts.neighbours.iter().filter_map(|neighbour| {
        let column = neighbour.column.as_ref()?;
        let key = neighbour.table.column(column).and_then(Column::key)?;
        Some(End { table: &neighbour.table, column, key, access: neighbour.access, is_family: false })
    });
    let ends: Vec<End<'_>> = ours.chain(theirs).collect();
    let mut unique = Vec::new();
    for child in &ends {
        for key in &child.table.foreign_keys {
            let Some(parent) = ends.iter().find(|end| end.table.oid == key.parent) else { continue };
            if !(child.is_family || parent.is_family) || is_scoped(key, child.column, parent.column) {
                continue;
            }
            if let Some(reason) = keeps_key(child, parent, key, request) {
                let text = format!("foreign key {} stays as it is: {reason}", key.name);
                steps.push(Step::Note { table: child.table.name.clone(), text });
                continue;
            }
            let link = Link {
                child: child.table.name.clone(),
                child_column: child.column.clone(),
                parent: parent.table.name.clone(),
                parent_column: parent.column.clone(),
                key: key.clone(),
            };
            let target: Vec<&Ident> = std::iter::once(parent.column).chain(&key.parent_columns).collect();
            let planned = Step::AddIndex {
                table: parent.table.name.clone(),
                columns: target.iter().copied().cloned().collect(),
                unique: true,
            };
            if !parent.table.has_unique_on(&target) && !steps.contains(&planned) {
                steps.push(planned);
                unique.push(parent.table.name.clone());
            }
            steps.push(Step::CheckLink(link.clone()));
            steps.push(Step::ScopeForeignKey(link));
        }
    }
    Ok(unique)
}

fn is_scoped(key: &ForeignKey, child_column: &Ident, parent_column: &Ident) -> bool {
    key.columns.iter().zip(&key.parent_columns).any(|(child, parent)| child == child_column && parent == parent_column)
}

/// Why a foreign key cannot or shall not get the tenant column, and what that leaves open.
fn keeps_key(child: &End<'_>, parent: &End<'_>, key: &ForeignKey, request: &Request) -> Option<String> {
    const OPEN: &str = "a row can refer to another tenant's row, and its actions can reach across tenants";
    let sets_columns = |action: char| matches!(action, 'n' | 'd');
    let reason = if !request.composite_keys {
        OPEN.to_owned()
    } else if parent.access == Access::Shared {
        format!("rows of {} without a tenant are referred to as well; {OPEN}", parent.table.name)
    } else if child.access == Access::Shared {
        format!("rows of {} without a tenant would not be checked; {OPEN}", child.table.name)
    } else if child.key != parent.key {
        format!("the tenant columns hold different keys ({} and {}); {OPEN}", child.key.column(), parent.key.column())
    } else if key.columns.contains(child.column) || key.parent_columns.contains(parent.column) {
        format!("it uses the tenant column for something else; {OPEN}")
    } else if key.match_type == 'f' && key.columns.len() > 1 {
        format!("MATCH FULL over several columns has no composite form; {OPEN}")
    } else if sets_columns(key.on_update) {
        format!("ON UPDATE SET NULL and SET DEFAULT would reach the tenant column; {OPEN}")
    } else if sets_columns(key.on_delete) && request.server_version < 150_000 {
        format!("before PostgreSQL 15, ON DELETE SET NULL and SET DEFAULT would reach the tenant column; {OPEN}")
    } else {
        return None;
    };
    Some(reason)
}

fn index_tenant_column(facts: &Facts, request: &Request, unique: &[QualifiedName], steps: &mut Vec<Step>) {
    // An index on a partitioned table covers its partitions; inheritance children need their own.
    for table in facts.family.iter().filter(|table| !table.is_partition) {
        if !table.has_index_led_by(&request.column) && !unique.contains(&table.name) {
            let columns = vec![request.column.clone()];
            steps.push(Step::AddIndex { table: table.name.clone(), columns, unique: false });
        }
    }
}

/// The foreign key from the tenant column to the registry, if there is one.
fn reference_key<'a>(table: &'a Table, column: &Ident) -> Option<&'a ForeignKey> {
    table.foreign_keys.iter().find(|key| key.columns == [column.clone()] && key.name == policy::reference_name())
}

fn guard(table: &Table, request: &Request, key: Option<KeyKind>, steps: &mut Vec<Step>) {
    let users_own = table.policies.iter().any(|policy| policy.is_permissive && !policy::is_ours(&policy.name));
    let open = request.open_policy && !users_own;
    let column = table.column(&request.column);
    let wanted = policy::wanted(request.access, &request.column, column, key, open);
    for found in table.policies.iter().filter(|policy| policy::is_ours(&policy.name)) {
        if !wanted.iter().any(|spec| spec.matches(found)) {
            steps.push(Step::DropPolicy { table: table.name.clone(), policy: found.name.clone() });
        }
    }
    for spec in wanted {
        if !table.policies.iter().any(|found| spec.matches(found)) {
            steps.push(Step::AddPolicy { table: table.name.clone(), policy: spec });
        }
    }
    match table.triggers.iter().find(|trigger| trigger.name.as_str() == GUARD) {
        Some(trigger) if trigger.is_guard => {}
        found => {
            if found.is_some() {
                steps.push(Step::DropGuard { table: table.name.clone() });
            }
            steps.push(Step::AddGuard { table: table.name.clone() });
        }
    }
    if !table.row_security {
        steps.push(Step::EnableRowSecurity { table: table.name.clone() });
    }
    if !table.forced {
        steps.push(Step::ForceRowSecurity { table: table.name.clone() });
    }
}

/// What to remember of a change from `before` to `now`, on top of what an earlier call remembered.
pub fn remember(before: &Table, now: &Table, column: &Ident, earlier: Option<Undo>) -> Undo {
    let mut undo = earlier.unwrap_or_else(|| Undo {
        row_security: before.row_security,
        forced: before.forced,
        ..Undo::default()
    });
    let (was, is) = (before.column(column), now.column(column));
    let default_of = |column: Option<&Column>| column.and_then(|column| column.default.clone());
    if undo.default.is_none() && default_of(was) != default_of(is) {
        undo.default = Some(DefaultBefore(default_of(was)));
    }
    let not_null = |column: Option<&Column>| column.is_some_and(|column| column.not_null);
    undo.not_null_added |= !not_null(was) && not_null(is);
    for index in &now.indexes {
        if !before.indexes.iter().any(|old| old.name == index.name) {
            undo.indexes.push(index.name.clone());
        }
    }
    for key in &now.foreign_keys {
        match before.foreign_keys.iter().find(|old| old.name == key.name) {
            Some(old) if old.columns != key.columns => {
                undo.foreign_keys.push(ScopedKey { name: key.name.clone(), was_match_full: old.match_type == 'f' });
            }
            None if key.name == policy::reference_name() => undo.reference_key = Some(key.name.clone()),
            _ => {}
        }
    }
    undo
}

/// A relation on the way back: as it stands, and what was remembered of it.
pub struct Remembered<'a> {
    pub table: &'a Table,
    pub column: Option<&'a Ident>,
    pub undo: &'a Undo,
    /// One of those being unprotected, not a neighbour that refers to them.
    pub is_family: bool,
}

/// The steps that put back what was there before.
pub fn unprotect(relations: &[Remembered<'_>], is_bound_as_owner: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    for child in relations {
        for (key, scoped) in scoped_keys(child) {
            let Some(parent) = relations.iter().find(|parent| parent.table.oid == key.parent) else { continue };
            let (Some(child_column), Some(parent_column)) = (child.column, parent.column) else { continue };
            if (child.is_family || parent.is_family) && is_scoped(key, child_column, parent_column) {
                let link = Link {
                    child: child.table.name.clone(),
                    child_column: child_column.clone(),
                    parent: parent.table.name.clone(),
                    parent_column: parent_column.clone(),
                    key: key.clone(),
                };
                steps.push(Step::UnscopeForeignKey { link, match_full: scoped.was_match_full });
            }
        }
    }
    for Remembered { table, column, undo, .. } in relations.iter().filter(|relation| relation.is_family) {
        let name = || table.name.clone();
        for policy in table.policies.iter().filter(|policy| policy::is_ours(&policy.name)) {
            steps.push(Step::DropPolicy { table: name(), policy: policy.name.clone() });
        }
        if table.triggers.iter().any(|trigger| trigger.name.as_str() == GUARD) {
            steps.push(Step::DropGuard { table: name() });
        }
        if table.forced && !undo.forced {
            steps.push(Step::UnforceRowSecurity { table: name() });
        }
        if table.row_security && !undo.row_security {
            steps.push(Step::DisableRowSecurity { table: name() });
        }
        if let Some(reference) = &undo.reference_key
            && table.foreign_keys.iter().any(|key| key.name == *reference)
        {
            steps.push(Step::DropConstraint { table: name(), constraint: reference.clone() });
        }
        if let Some(column) = column.filter(|column| table.column(column).is_some() && table.parent.is_none()) {
            if let Some(DefaultBefore(default)) = &undo.default {
                steps.push(Step::RestoreDefault { table: name(), column: column.clone(), default: default.clone() });
            }
            if undo.not_null_added {
                steps.push(Step::DropNotNull { table: name(), column: column.clone() });
            }
        }
        for index in undo.indexes.iter().filter(|name| table.indexes.iter().any(|index| index.name == **name)) {
            // An index of a partition goes with that of its parent.
            if !table.is_partition {
                steps.push(Step::DropIndex { schema: table.name.schema.clone(), index: index.clone() });
            }
        }
    }
    lift_force(steps, relations.iter().map(|relation| relation.table), is_bound_as_owner)
}

fn scoped_keys<'a>(child: &'a Remembered<'_>) -> impl Iterator<Item = (&'a ForeignKey, &'a ScopedKey)> {
    child.undo.foreign_keys.iter().filter_map(|scoped| {
        let key = child.table.foreign_keys.iter().find(|key| key.name == scoped.name)?;
        Some((key, scoped))
    })
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
        sql.then(" WHERE child.")
            .ident(&self.child_column)
            .then(" IS DISTINCT FROM parent.")
            .ident(&self.parent_column)
    }

    fn scope(&self) -> Sql {
        let columns = with_first(&self.child_column, &self.key.columns);
        let parent_columns = with_first(&self.parent_column, &self.key.parent_columns);
        let sets = matches!(self.key.on_delete, 'n' | 'd');
        let set_columns = match &self.key.on_delete_columns[..] {
            _ if !sets => &[][..],
            [] => &self.key.columns,
            named => named,
        };
        self.replace(&columns, &parent_columns, set_columns, false)
    }

    fn unscope(&self, match_full: bool) -> Sql {
        let columns: Vec<Ident> = without(&self.key.columns, &self.child_column);
        let parent_columns: Vec<Ident> = without(&self.key.parent_columns, &self.parent_column);
        let named = &self.key.on_delete_columns;
        let set_columns = if named.len() == columns.len() { &[][..] } else { named };
        self.replace(&columns, &parent_columns, set_columns, match_full)
    }

    fn replace(&self, columns: &[Ident], parent_columns: &[Ident], set_columns: &[Ident], match_full: bool) -> Sql {
        let key = &self.key;
        let mut sql = Sql::text("ALTER TABLE ")
            .name(&self.child)
            .then(" DROP CONSTRAINT ")
            .ident(&key.name)
            .then(", ADD CONSTRAINT ")
            .ident(&key.name)
            .then(" FOREIGN KEY (")
            .idents(columns)
            .then(") REFERENCES ")
            .name(&self.parent)
            .then(" (")
            .idents(parent_columns)
            .then(")");
        if match_full {
            sql = sql.then(" MATCH FULL");
        }
        if key.on_update != NO_ACTION {
            sql = sql.then(" ON UPDATE ").then(action(key.on_update));
        }
        if key.on_delete != NO_ACTION {
            sql = sql.then(" ON DELETE ").then(action(key.on_delete));
        }
        if !set_columns.is_empty() {
            sql = sql.then(" (").idents(set_columns).then(")");
        }
        if key.is_deferrable {
            sql = sql.then(if key.is_deferred { " DEFERRABLE INITIALLY DEFERRED" } else { " DEFERRABLE" });
        }
        if key.is_validated { sql } else { sql.then(" NOT VALID") }
    }
}

fn with_first(first: &Ident, rest: &[Ident]) -> Vec<Ident> {
    std::iter::once(first).chain(rest).cloned().collect()
}

fn without(columns: &[Ident], column: &Ident) -> Vec<Ident> {
    columns.iter().filter(|name| *name != column).cloned().collect()
}

fn action(code: char) -> &'static str {
    match code {
        'r' => "RESTRICT",
        'c' => "CASCADE",
        'n' => "SET NULL",
        'd' => "SET DEFAULT",
        _ => "NO ACTION",
    }
}

impl Step {
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
            S::ScopeForeignKey(link) => link.scope(),
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
                .then(" FOR EACH STATEMENT EXECUTE FUNCTION tenancy_internal.refuse_truncate()"),
            S::EnableRowSecurity { table } => alter(table).then(" ENABLE ROW LEVEL SECURITY"),
            S::ForceRowSecurity { table } => alter(table).then(" FORCE ROW LEVEL SECURITY"),
            S::Note { .. } => return None,
            S::UnscopeForeignKey { link, match_full } => link.unscope(*match_full),
            S::DropConstraint { table, constraint } => alter(table).then(" DROP CONSTRAINT ").ident(constraint),
            S::RestoreDefault { table, column, default } => match default {
                Some(default) => column_of(table, column).then(" SET DEFAULT ").deparsed(default),
                None => column_of(table, column).then(" DROP DEFAULT"),
            },
            S::DropNotNull { table, column } => column_of(table, column).then(" DROP NOT NULL"),
            S::DropIndex { schema, index } => Sql::text("DROP INDEX ").ident(schema).then(".").ident(index),
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
            S::AddIndex { .. } => "add index",
            S::DropIndex { .. } => "drop index",
            S::ScopeForeignKey(_) | S::UnscopeForeignKey { .. } => "replace foreign key",
            S::AddReference { .. } => "add foreign key",
            S::DropConstraint { .. } => "drop foreign key",
            S::DropPolicy { .. } => "drop policy",
            S::AddPolicy { .. } => "add policy",
            S::DropGuard { .. } => "drop trigger",
            S::AddGuard { .. } => "add trigger",
            S::EnableRowSecurity { .. } | S::ForceRowSecurity { .. } => "enable row security",
            S::DisableRowSecurity { .. } | S::UnforceRowSecurity { .. } => "disable row security",
            S::Note { .. } => "note",
        }
    }

    /// The strongest table lock the statement takes; None for a note.
    pub fn lock(&self) -> Option<&'static str> {
        use Step as S;
        match self {
            S::Note { .. } => None,
            S::CheckTenantPresent { .. } | S::CheckTenantKnown { .. } | S::CheckLink(_) => Some("ACCESS SHARE"),
            S::AssignRows { .. } => Some("ROW EXCLUSIVE"),
            S::AddIndex { .. } => Some("SHARE"),
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
            S::AddReference { .. } => "also roles that bypass row security can store known tenants only".into(),
            S::DropPolicy { .. } => "it is not what protection needs now".into(),
            S::AddPolicy { policy, .. } => policy.reason().into(),
            S::DropGuard { .. } => "it is not our guard, or is disabled".into(),
            S::AddGuard { .. } => "TRUNCATE passes row security".into(),
            S::EnableRowSecurity { .. } => "policies apply".into(),
            S::ForceRowSecurity { .. } => "policies bind the owner too".into(),
            S::Note { text, .. } => text.clone(),
            S::UnscopeForeignKey { .. }
            | S::DropConstraint { .. }
            | S::RestoreDefault { .. }
            | S::DropNotNull { .. }
            | S::DropIndex { .. }
            | S::DisableRowSecurity { .. }
            | S::UnforceRowSecurity { .. } => "as it was before".into(),
        }
    }
}
