//! What protection changed in a table, and the steps back.

use super::keys::{Form, KeyStep};
use super::step::{GUARD, Link, Step, is_scoped};
use crate::model::policy;
use crate::model::table::{Column, ForeignKey, Table};
use crate::model::{Deparsed, Ident};
use serde::{Deserialize, Serialize};

/// What `unprotect_table` puts back; stored with each protected relation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undo {
    pub row_security: bool,
    pub forced: bool,
    /// The default before ours; None while ours has not been set.
    pub default: Option<DefaultBefore>,
    pub not_null_added: bool,
    pub indexes: Vec<Ident>,
    /// Indexes of a partition's own that became part of one of the parent's.
    #[serde(default)]
    pub attached: Vec<Ident>,
    pub foreign_keys: Vec<ScopedKey>,
    /// Foreign keys whose action was kept from the tenant column.
    #[serde(default)]
    pub narrowed_keys: Vec<NarrowedKey>,
    /// Keys that `scope_unique` led by the tenant column.
    #[serde(default)]
    pub unique_keys: Vec<Ident>,
    pub reference_key: Option<Ident>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultBefore {
    pub expression: Option<Deparsed>,
}

/// A foreign key that got the tenant column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopedKey {
    pub name: Ident,
    pub was_match_full: bool,
    /// Its action before, where this server has no composite form of it.
    #[serde(default)]
    pub was_on_delete: Option<char>,
    /// `scope_unique` did it, and `unscope_unique` puts it back.
    #[serde(default)]
    pub with_unique_key: bool,
}

/// A foreign key whose ON DELETE names the columns that it sets since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NarrowedKey {
    pub name: Ident,
    /// The columns that it named before; empty where it named none.
    pub on_delete_columns: Vec<Ident>,
}

/// What to remember of a change from `before` to `now`, on top of what an earlier call remembered.
pub fn remember(before: &Table, now: &Table, column: &Ident, earlier: Option<Undo>) -> Undo {
    let mut undo =
        earlier.unwrap_or_else(|| Undo { row_security: before.row_security, forced: before.forced, ..Undo::default() });
    let (was, is) = (before.column(column), now.column(column));
    let default_of = |column: Option<&Column>| column.and_then(|column| column.default.clone());
    if undo.default.is_none() && default_of(was) != default_of(is) {
        undo.default = Some(DefaultBefore { expression: default_of(was) });
    }
    let not_null = |column: Option<&Column>| column.is_some_and(|column| column.not_null);
    undo.not_null_added |= !not_null(was) && not_null(is);
    undo.indexes.retain(|name| now.indexes.iter().any(|index| index.name == *name));
    for index in &now.indexes {
        match before.indexes.iter().find(|old| old.name == index.name) {
            None => undo.indexes.push(index.name.clone()),
            Some(old) if index.is_attached && !old.is_attached => undo.attached.push(index.name.clone()),
            Some(_) => {}
        }
    }
    for key in &now.foreign_keys {
        match before.foreign_keys.iter().find(|old| old.name == key.name) {
            Some(old) if old.columns != key.columns => {
                undo.foreign_keys.push(ScopedKey {
                    name: key.name.clone(),
                    was_match_full: old.match_type == 'f',
                    was_on_delete: (old.on_delete != key.on_delete).then_some(old.on_delete),
                    with_unique_key: false,
                });
            }
            Some(old) if old.on_delete_columns != key.on_delete_columns => {
                undo.narrowed_keys.retain(|narrowed| narrowed.name != key.name);
                let (name, on_delete_columns) = (key.name.clone(), old.on_delete_columns.clone());
                undo.narrowed_keys.push(NarrowedKey { name, on_delete_columns });
            }
            None if key.name == policy::reference_name() => undo.reference_key = Some(key.name.clone()),
            _ => {}
        }
    }
    undo
}

/// What to remember once the steps of a unique key have given foreign keys the tenant column, or taken it from them.
pub fn with_foreign_keys(now: &Table, earlier: &Undo, steps: &[Step]) -> Undo {
    let mut undo = earlier.clone();
    let before = steps.iter().filter_map(|step| match step {
        Step::Key(KeyStep::Detach(link)) => Some(link),
        _ => None,
    });
    let after = steps.iter().filter_map(|step| match step {
        Step::Key(KeyStep::Attach { link, form }) => Some((link, form)),
        _ => None,
    });
    for (was, (link, form)) in before.zip(after).filter(|(was, _)| was.child == now.name) {
        let name = &link.key.name;
        match form {
            Form::Scoped => undo.foreign_keys.push(ScopedKey {
                name: name.clone(),
                was_match_full: was.key.match_type == 'f',
                was_on_delete: (was.key.on_delete != link.key.on_delete).then_some(was.key.on_delete),
                with_unique_key: true,
            }),
            Form::Unscoped { .. } => undo.foreign_keys.retain(|scoped| scoped.name != *name),
            Form::Unchanged => {}
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
pub fn unprotect(relations: &[Remembered<'_>]) -> Vec<Step> {
    let mut steps = Vec::new();
    for child in relations {
        for (key, scoped) in scoped_keys(child) {
            let Some(parent) = relations.iter().find(|parent| parent.table.oid == key.parent) else { continue };
            let (Some(child_column), Some(parent_column)) = (child.column, parent.column) else { continue };
            if (child.is_family || parent.is_family) && is_scoped(key, child_column, parent_column) {
                let on_delete = scoped.was_on_delete.unwrap_or(key.on_delete);
                let link = Link {
                    child: child.table.name.clone(),
                    child_column: child_column.clone(),
                    parent: parent.table.name.clone(),
                    parent_column: parent_column.clone(),
                    key: ForeignKey { on_delete, ..key.clone() },
                };
                steps.push(Step::UnscopeForeignKey { link, match_full: scoped.was_match_full });
            }
        }
    }
    for Remembered { table, column, undo, .. } in relations.iter().filter(|relation| relation.is_family) {
        let narrowed = undo.narrowed_keys.iter().filter_map(|narrowed| {
            let key = table.foreign_keys.iter().find(|key| key.name == narrowed.name)?;
            let is_as_left =
                !key.on_delete_columns.is_empty() && column.is_some_and(|column| key.columns.contains(column));
            is_as_left.then(|| ForeignKey { on_delete_columns: narrowed.on_delete_columns.clone(), ..key.clone() })
        });
        let put_back = |key| Step::ReplaceForeignKey { table: table.name.clone(), key, reason: "as it was before" };
        steps.extend(narrowed.map(put_back));
    }
    let is_root = |relation: &&Remembered<'_>| relation.is_family && relation.table.parents.is_empty();
    let drops_not_null = relations.iter().filter(is_root).any(|root| root.undo.not_null_added);
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
        // What is done to a parent reaches its children; each then gets back what was its own.
        if let Some((column, found)) = column.and_then(|column| Some((column, table.column(column)?))) {
            if let Some(DefaultBefore { expression }) = &undo.default {
                steps.push(Step::RestoreDefault { table: name(), column: column.clone(), default: expression.clone() });
            }
            if undo.not_null_added && table.parents.is_empty() {
                steps.push(Step::DropNotNull { table: name(), column: column.clone() });
            } else if drops_not_null && !undo.not_null_added && found.not_null {
                steps.push(Step::SetNotNull { table: name(), column: column.clone() });
            }
        }
        for index in undo.indexes.iter().filter(|name| table.indexes.iter().any(|index| index.name == **name)) {
            // An index of a partition goes with that of its parent.
            if !table.is_partition {
                steps.push(Step::DropIndex { schema: table.name.schema.clone(), index: index.clone() });
            }
        }
    }
    // The index of the parent took along what had been the partition's own.
    for Remembered { table, undo, .. } in relations.iter().filter(|relation| relation.is_family) {
        for index in table.indexes.iter().filter(|index| index.is_attached && undo.attached.contains(&index.name)) {
            steps.push(Step::RestoreIndex { definition: index.definition.clone() });
        }
    }
    steps
}

/// What a neighbour has still to remember once `steps` have taken some of its foreign keys back.
pub fn without_unscoped(neighbour: &Remembered<'_>, steps: &[Step]) -> Undo {
    let mut undo = neighbour.undo.clone();
    let is_unscoped = |name: &Ident| {
        steps.iter().any(|step| {
            matches!(step, Step::UnscopeForeignKey { link, .. }
                if link.child == neighbour.table.name && link.key.name == *name)
        })
    };
    undo.foreign_keys.retain(|scoped| !is_unscoped(&scoped.name));
    undo
}

fn scoped_keys<'a>(child: &'a Remembered<'_>) -> impl Iterator<Item = (&'a ForeignKey, &'a ScopedKey)> {
    child.undo.foreign_keys.iter().filter_map(|scoped| {
        let key = child.table.foreign_keys.iter().find(|key| key.name == scoped.name)?;
        Some((key, scoped))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isolation::plan::tests::{ident, index, statements, table};

    /// The table as the steps for `facts` leave it, as far as `remember` and `unprotect` look.
    fn after(mut table: Table) -> Table {
        table.row_security = true;
        table.forced = true;
        table.columns[1].not_null = true;
        table.columns[1].default = Some(Deparsed::from_catalog("tenancy.current_tenant_id()".into()));
        table.indexes.push(index("orders_tenant_id_idx", &["tenant_id"], false));
        table
    }

    #[test]
    fn unprotecting_puts_back_what_was_there() {
        let before = table(1, "orders");
        let now = after(before.clone());
        let column = ident("tenant_id");
        let undo = remember(&before, &now, &column, None);
        let stored: Undo = serde_json::from_str(&serde_json::to_string(&undo).unwrap()).unwrap();
        assert_eq!(stored, undo);
        let relations = [Remembered { table: &now, column: Some(&column), undo: &stored, is_family: true }];
        assert_eq!(
            statements(&unprotect(&relations)),
            [
                "ALTER TABLE public.orders NO FORCE ROW LEVEL SECURITY",
                "ALTER TABLE public.orders DISABLE ROW LEVEL SECURITY",
                "ALTER TABLE public.orders ALTER COLUMN tenant_id DROP DEFAULT",
                "ALTER TABLE public.orders ALTER COLUMN tenant_id DROP NOT NULL",
                "DROP INDEX public.orders_tenant_id_idx",
            ]
        );
    }

    #[test]
    fn what_a_second_call_adds_is_remembered_beside_what_the_first_changed() {
        let before = table(1, "orders");
        let now = after(before.clone());
        let column = ident("tenant_id");
        let first = remember(&before, &now, &column, None);
        let mut later = now.clone();
        later.indexes.push(index("later", &["tenant_id", "id"], true));
        let second = remember(&now, &later, &column, Some(first.clone()));
        assert_eq!(second.indexes, [ident("orders_tenant_id_idx"), ident("later")]);
        assert_eq!(second.default, first.default);
        assert!(second.not_null_added && !second.row_security);
    }
}
