//! The guard: audited tables stay audited, and what becomes part of one is audited too. It also keeps the record of their columns.
//!
//! Event triggers call it, so it needs no preload.

use super::plan::{self, Step};
use super::store;
use crate::error::{AuditError, TenancyError};
use crate::model::{Ident, QualifiedName, Sql};
use crate::pg::audit::layout;
use crate::pg::event::{self, Kind};
use crate::pg::settings::{self, DdlGuard};
use crate::pg::{Oid, role, spi};

/// sql_drop: takes what is gone off the record, and objects to the loss of a trigger.
pub fn note_drops(call: event::Call) -> Result<(), TenancyError> {
    event::expect_drop(call)?;
    let sql = Sql::text("SELECT relation, lost::text FROM tenancy_internal.forget_audited()");
    let lost = spi::as_extension_owner(|| {
        spi::write(&sql, &[], |row| Ok((row.must::<Oid>(1)?, Ident::new(&row.must::<String>(2)?)?)))
    })?;
    // ALTER TABLE reports at its end, with what else it did.
    if !event::is_remaking() && !event::alters_table(call)? {
        let sql = Sql::text(
            "SELECT tenancy_internal.note_columns(ARRAY(SELECT o.objid FROM pg_catalog.pg_event_trigger_dropped_objects() o
                                                         WHERE o.object_type OPERATOR(pg_catalog.=) 'table column'))",
        );
        spi::as_extension_owner(|| spi::run(&sql, &[]))?;
    }
    if event::is_out_of_reach() {
        return Ok(());
    }
    for (relation, trigger) in lost {
        object_to_loss(store::named(relation)?, vec![format!("trigger {trigger}")])?;
    }
    Ok(())
}

/// ddl_command_end: judges what the statement left behind.
pub fn guard(call: event::Call) -> Result<(), TenancyError> {
    let statement = event::statement(call)?;
    if event::is_remaking() || statement.kind == Kind::Harmless {
        return Ok(());
    }
    let mut roots = Vec::new();
    for relation in touched()? {
        if let Some(root) = layout::audited_with(relation)?.filter(|root| !roots.contains(root)) {
            roots.push(root);
        }
    }
    // What is on record follows whatever the guard may say.
    if let Some((old, new)) = &statement.renamed_column {
        roots.iter().try_for_each(|root| follow_column(*root, old, new))?;
    }
    note_columns(&statement)?;
    if event::is_out_of_reach() || settings::ddl_guard() == DdlGuard::Off {
        return Ok(());
    }
    roots.into_iter().try_for_each(judge)
}

/// Puts on record what columns audited tables have after the statement.
fn note_columns(statement: &event::Statement) -> Result<(), TenancyError> {
    let sql = Sql::text(
        "SELECT tenancy_internal.note_columns(
                    ARRAY(SELECT c.objid FROM pg_catalog.pg_event_trigger_ddl_commands() c
                           WHERE c.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass), $1, $2)",
    );
    let (retyped, recast) = (statement.retyped_columns.clone(), statement.recast_columns.clone());
    spi::as_extension_owner(|| spi::run(&sql, &[retyped.into(), recast.into()]))
}

fn touched() -> Result<Vec<Oid>, TenancyError> {
    let sql = Sql::text(
        "SELECT DISTINCT CASE WHEN c.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass THEN g.tgrelid ELSE c.objid END
           FROM pg_catalog.pg_event_trigger_ddl_commands() c
           LEFT JOIN pg_catalog.pg_trigger g ON g.oid = c.objid
          WHERE NOT c.in_extension AND c.objid IS NOT NULL
            AND (c.classid = 'pg_catalog.pg_class'::pg_catalog.regclass OR g.oid IS NOT NULL)",
    );
    spi::with_catalog_names(|| spi::read(&sql, &[], |row| row.must::<Oid>(1)))
}

fn follow_column(root: Oid, old: &str, new: &str) -> Result<(), TenancyError> {
    let sql = Sql::text(
        "UPDATE tenancy_internal.audited_tables
            SET ignore_columns = pg_catalog.array_replace(ignore_columns, $2, $3),
                redact_columns = pg_catalog.array_replace(redact_columns, $2, $3)
          WHERE root = $1::pg_catalog.regclass AND ($2 = ANY (ignore_columns) OR $2 = ANY (redact_columns))",
    );
    spi::as_extension_owner(|| spi::run(&sql, &[root.into(), old.into(), new.into()]))
}

/// Judges a family that is on record: objects to what it lost, and audits what is new in it.
fn judge(root: Oid) -> Result<(), TenancyError> {
    let Some((_, request)) = store::recorded(root)? else { return Ok(()) };
    let members = store::family(root, spi::Snapshot::Latest)?;
    for left in left_family(root, &members)? {
        // What hung on the parent's triggers is its own affair now.
        grow(left, &request)?;
    }
    let steps = plan::audit(&members)?;
    let is_settled =
        |step: &&Step| members.iter().any(|member| member.name == *step.table() && member.root == Some(root.to_u32()));
    let turns_to_rows =
        members.iter().any(|member| member.inherits) && members.iter().any(|member| member.root.is_none());
    let mut lost: Vec<(QualifiedName, Vec<String>)> = Vec::new();
    for step in steps.iter().filter(is_settled).filter(|_| !turns_to_rows) {
        let what = step.loss();
        match lost.iter_mut().find(|(table, _)| table == step.table()) {
            Some((_, losses)) if losses.contains(&what) => {}
            Some((_, losses)) => losses.push(what),
            None => lost.push((step.table().clone(), vec![what])),
        }
    }
    for (table, lost) in lost {
        object_to_loss(table, lost)?;
    }
    let new: Vec<_> = members.iter().filter(|member| member.root != Some(root.to_u32())).collect();
    let Some(first) = members.first().filter(|_| !new.is_empty()) else { return Ok(()) };
    if let Some(foreign) = new.iter().find(|member| member.kind == 'f') {
        return object_to(AuditError::ForeignMember { table: first.name.clone(), member: foreign.name.clone() }.into());
    }
    if settings::ddl_guard() == DdlGuard::Warn {
        for member in &new {
            let root = first.name.clone();
            spi::warn(&AuditError::MemberUnaudited { table: member.name.clone(), root }.into());
        }
        return Ok(());
    }
    for step in steps.iter().filter(|step| turns_to_rows || !is_settled(step)) {
        store::execute(step)?;
    }
    for member in &new {
        store::record(Oid::from(member.oid), root, &request)?;
        spi::notice(&format!("table {} is audited like {}", member.name, first.name));
    }
    Ok(())
}

/// Members on record that are no part of the family any more; each is audited for itself.
fn left_family(root: Oid, members: &[plan::Member]) -> Result<Vec<Oid>, TenancyError> {
    let sql = Sql::text(
        "UPDATE tenancy_internal.audited_tables SET root = relation
          WHERE root = $1::pg_catalog.regclass AND relation <> ALL ($2::pg_catalog.regclass[])
         RETURNING relation::pg_catalog.oid",
    );
    let present: Vec<Oid> = members.iter().map(|member| Oid::from(member.oid)).collect();
    spi::as_extension_owner(|| spi::write(&sql, &[root.into(), present.into()], |row| row.must::<Oid>(1)))
}

fn grow(relation: Oid, request: &plan::Request) -> Result<(), TenancyError> {
    let members = store::family(relation, spi::Snapshot::Latest)?;
    plan::audit(&members)?.iter().try_for_each(store::execute)?;
    for member in &members {
        store::record(Oid::from(member.oid), relation, request)?;
    }
    Ok(())
}

fn is_refusing() -> bool {
    settings::ddl_guard() == DdlGuard::Enforce && !role::is_privileged(role::current())
}

fn object_to_loss(table: QualifiedName, lost: Vec<String>) -> Result<(), TenancyError> {
    object_to(AuditError::AuditLost { table, lost, is_refused: is_refusing() }.into())
}

/// Refuses, or warns those who may do it.
fn object_to(error: TenancyError) -> Result<(), TenancyError> {
    if is_refusing() {
        return Err(error);
    }
    if settings::ddl_guard() != DdlGuard::Off {
        spi::warn(&error);
    }
    Ok(())
}
