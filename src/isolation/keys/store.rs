//! Reads what the plan of a key is made from, and carries it out.

use super::{Facts, Key, Reference};
use crate::error::TenancyError;
use crate::isolation::plan;
use crate::isolation::step::{self, Step};
use crate::isolation::store::{self, Entry};
use crate::isolation::undo::{self, ScopedKey, Undo};
use crate::model::{Ident, Sql, Table};
use crate::pg::{Oid, role, spi};
use std::collections::HashMap;

/// Leads a unique key of `target` by the tenant column.
pub fn scope(target: Oid, name: &Ident) -> Result<(), TenancyError> {
    if spi::undisturbed(|| plan_for(target, name, spi::Snapshot::Statement))?.1.is_empty() {
        return Ok(());
    }
    store::lock(target)?;
    let (facts, steps) = spi::undisturbed(|| plan_for(target, name, spi::Snapshot::Latest))?;
    steps.iter().try_for_each(store::execute)?;
    spi::undisturbed(|| record(&facts, &steps, |undo| undo.unique_keys.push(name.clone())))
}

/// The steps that `scope` would take.
pub fn plan_scope(target: Oid, name: &Ident) -> Result<Vec<Step>, TenancyError> {
    spi::undisturbed(|| Ok(plan_for(target, name, spi::Snapshot::Statement)?.1))
}

/// Puts a unique key back as it was before `scope`.
pub fn unscope(target: Oid, name: &Ident) -> Result<(), TenancyError> {
    let view = spi::Snapshot::Statement;
    spi::undisturbed(|| protected_facts(target, name, view, |scoped| scoped.with_unique_key))?;
    store::lock(target)?;
    put_back(target, name, |scoped| scoped.with_unique_key)
}

/// Puts all keys of a table that is being unprotected back, with all foreign keys that refer to them.
pub fn unscope_all(target: Oid, names: &[Ident]) -> Result<(), TenancyError> {
    for name in names {
        let facts = spi::undisturbed(|| protected_facts(target, name, spi::Snapshot::Latest, |_| true))?;
        // What has been dropped or written anew since is the user's own.
        if super::is_scoped(&facts) {
            put_back(target, name, |_| true)?;
        }
    }
    Ok(())
}

fn put_back(target: Oid, name: &Ident, undoes: impl Fn(&ScopedKey) -> bool) -> Result<(), TenancyError> {
    let (facts, steps) = spi::undisturbed(|| {
        let facts = protected_facts(target, name, spi::Snapshot::Latest, undoes)?;
        let steps = super::unscope(&facts)?;
        lifted(facts, steps, spi::Snapshot::Latest)
    })?;
    steps.iter().try_for_each(store::execute)?;
    spi::undisturbed(|| record(&facts, &steps, |undo| undo.unique_keys.retain(|recorded| recorded != name)))
}

fn plan_for(target: Oid, name: &Ident, view: spi::Snapshot) -> Result<(Facts, Vec<Step>), TenancyError> {
    let facts = protected_facts(target, name, view, |_| false)?;
    let steps = super::scope(&facts)?;
    lifted(facts, steps, view)
}

/// Lets an owner whom FORCE binds check all rows; refuses whoever owns one of the tables not.
fn lifted(facts: Facts, steps: Vec<Step>, view: spi::Snapshot) -> Result<(Facts, Vec<Step>), TenancyError> {
    if steps.is_empty() {
        return Ok((facts, steps));
    }
    let role = role::current_role();
    for table in std::iter::once(&facts.target).chain(facts.references.iter().map(|found| &found.child)) {
        plan::refuse_stranger(table, &role)?;
    }
    if role::bypasses_row_security() {
        return Ok((facts, steps));
    }
    let mut tables: Vec<u32> = facts.references.iter().map(|found| found.child.oid).collect();
    tables.push(facts.target.oid);
    tables.sort_unstable();
    tables.dedup();
    let families: Vec<Vec<Table>> =
        tables.into_iter().map(|table| store::family(Oid::from(table), view)).collect::<Result<_, _>>()?;
    let families: Vec<Vec<&Table>> = families.iter().map(|family| family.iter().collect()).collect();
    let steps = step::lift_force(steps, &families);
    Ok((facts, steps))
}

fn protected_facts(
    target: Oid,
    name: &Ident,
    view: spi::Snapshot,
    undoes: impl Fn(&ScopedKey) -> bool,
) -> Result<Facts, TenancyError> {
    let table = store::describe_one(target, view)?.ok_or(TenancyError::UnknownRelation { oid: target.to_u32() })?;
    let Some(entry) = store::entries(view, &[target])?.remove(&target) else {
        return Err(TenancyError::NotProtected { table: table.name });
    };
    let keys = describe(target, name, entry.column.as_ref(), view)?;
    let children: Vec<Oid> = keys.iter().flat_map(|key| &key.references).map(|(child, _)| Oid::from(*child)).collect();
    let entries = store::entries(view, &children)?;
    let mut references = Vec::new();
    for (child, constraint) in keys.iter().flat_map(|key| &key.references) {
        references.push(reference(Oid::from(*child), constraint, &entries, &undoes, view)?);
    }
    let own_index = entry.column.as_ref().and_then(|column| own_index(&table, column, &entry.undo));
    Ok(Facts {
        column: entry.column.clone(),
        access: entry.access,
        name: name.clone(),
        keys,
        references,
        own_index,
        is_recorded: entry.undo.unique_keys.contains(name),
        server_version: spi::server_version(),
        target: table,
    })
}

fn reference(
    child: Oid,
    constraint: &Ident,
    entries: &HashMap<Oid, Entry>,
    undoes: impl Fn(&ScopedKey) -> bool,
    view: spi::Snapshot,
) -> Result<Reference, TenancyError> {
    let gone = || TenancyError::Internal { what: format!("foreign key {constraint} vanished") };
    let table = store::describe_one(child, view)?.ok_or_else(gone)?;
    let key = table.foreign_keys.iter().find(|key| key.name == *constraint).cloned().ok_or_else(gone)?;
    let entry = entries.get(&child);
    let before = entry
        .and_then(|entry| entry.undo.foreign_keys.iter().find(|scoped| scoped.name == *constraint && undoes(scoped)));
    Ok(Reference {
        protection: entry.map(|entry| (entry.column.clone(), entry.access)),
        before: before.cloned(),
        child: table,
        key,
    })
}

/// Our plain index on the tenant column, which no parent's index holds.
fn own_index(table: &Table, column: &Ident, undo: &Undo) -> Option<Ident> {
    let is_ours = |index: &&crate::model::table::Index| {
        index.columns == [Some(column.clone())] && !index.is_unique && !index.is_attached
    };
    table.indexes.iter().filter(is_ours).map(|index| &index.name).find(|name| undo.indexes.contains(name)).cloned()
}

fn describe(target: Oid, name: &Ident, column: Option<&Ident>, view: spi::Snapshot) -> Result<Vec<Key>, TenancyError> {
    spi::as_extension_owner(|| {
        let described = spi::read_in(
            view,
            &Sql::text("SELECT k::text FROM tenancy_internal.describe_key($1, $2, $3) AS k"),
            &[target.into(), name.as_str().into(), column.map(Ident::as_str).into()],
            |row| row.must::<String>(1),
        )?;
        described.iter().map(|text| store::parsed(text)).collect()
    })
}

/// Records what the call did to the table, its partitions and those that refer to it, so that it can be undone.
fn record(facts: &Facts, steps: &[Step], note_key: impl FnOnce(&mut Undo)) -> Result<(), TenancyError> {
    let mut note_key = Some(note_key);
    let target = Oid::from(facts.target.oid);
    let mut tables = store::family(target, spi::Snapshot::Latest)?;
    for found in &facts.references {
        if tables.iter().all(|table| table.oid != found.child.oid) {
            tables.extend(store::describe_one(Oid::from(found.child.oid), spi::Snapshot::Latest)?);
        }
    }
    let entries = store::entries(spi::Snapshot::Latest, &store::oids(&tables))?;
    for now in tables {
        let oid = Oid::from(now.oid);
        let Some(entry) = entries.get(&oid) else { continue };
        let Some(column) = &entry.column else { continue };
        let mut undo = undo::with_foreign_keys(&now, &entry.undo, steps);
        if oid == target {
            // Only here have indexes come or gone that the record tells of; those of partitions follow the parent's.
            undo = undo::remember(
                &Table { foreign_keys: now.foreign_keys.clone(), ..facts.target.clone() },
                &now,
                column,
                Some(undo),
            );
            if let Some(note) = note_key.take() {
                note(&mut undo);
            }
        }
        if undo != entry.undo {
            store::store_undo(oid, &undo)?;
        }
    }
    Ok(())
}
