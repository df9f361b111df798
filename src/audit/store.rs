//! Reads what a plan is made from, carries steps out, and keeps the record.

use super::plan::{self, Member, Protection, Request, Rows, Step};
use crate::error::{AuditError, TenancyError};
use crate::model::audit::Images;
use crate::model::{Ident, QualifiedName, Sql};
use crate::pg::protected::{self, Protected};
use crate::pg::{Oid, Place, audit as log, context, given, role, spi};
use pgrx::AnyElement;
use std::ffi::CStr;

/// What `audit_table` was asked for, checked for NULL.
pub fn request(
    ignore_columns: Option<AnyElement>,
    redact_columns: Option<AnyElement>,
    row_images: Option<&str>,
    skip_unchanged: Option<bool>,
    tenant_column: Option<&CStr>,
    allow_unscoped: Option<bool>,
) -> Result<Request, TenancyError> {
    let row_images = given("row_images", row_images)?;
    let images = Images::from_name(row_images).ok_or_else(|| TenancyError::UnknownChoice {
        argument: "row_images",
        given: row_images.to_owned(),
        choices: Images::NAMES,
    })?;
    Ok(Request {
        ignored: names("ignore_columns", ignore_columns)?,
        redacted: names("redact_columns", redact_columns)?,
        images,
        skips_unchanged: given("skip_unchanged", skip_unchanged)?,
        tenant_column: tenant_column.map(|name| Ident::new(&name.to_string_lossy())).transpose()?,
        allows_unscoped: given("allow_unscoped", allow_unscoped)?,
    })
}

fn names(argument: &'static str, value: Option<AnyElement>) -> Result<Vec<String>, TenancyError> {
    let mut names = Vec::new();
    for name in spi::names(given(argument, value)?)? {
        let name = given(argument, name)?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Audits `target` with its partitions and children, or changes how.
pub fn audit(target: Oid, request: &Request) -> Result<(), TenancyError> {
    spi::undisturbed(|| {
        let steps = plan_for(target, request, spi::Snapshot::Statement)?;
        lock(target, Step::lock_for(&steps))?;
        bring_about(target, request)?;
        make_partitions()
    })
}

/// The steps that `audit` would take.
pub fn plan_audit(target: Oid, request: &Request) -> Result<Vec<Step>, TenancyError> {
    spi::undisturbed(|| plan_for(target, request, spi::Snapshot::Statement))
}

fn plan_for(target: Oid, request: &Request, view: spi::Snapshot) -> Result<Vec<Step>, TenancyError> {
    let family = family(target, view)?;
    plan::check(&family, request, &protection(target)?)?;
    refuse_strangers(&family)?;
    plan::audit(&family)
}

fn bring_about(target: Oid, request: &Request) -> Result<(), TenancyError> {
    // Partitions get some triggers with their parent's, in a state that depends on the server's version: look again.
    loop {
        let steps = plan_for(target, request, spi::Snapshot::Latest)?;
        if steps.is_empty() {
            break;
        }
        steps.iter().try_for_each(execute)?;
    }
    for member in family(target, spi::Snapshot::Latest)? {
        record(Oid::from(member.oid), target, request)?;
    }
    Ok(())
}

/// The partitions of the log for this month and the next two, so that entries need not be moved.
fn make_partitions() -> Result<(), TenancyError> {
    let sql = Sql::text("SELECT tenancy_internal.make_audit_partitions()");
    spi::own_work(|| spi::as_extension_owner(|| spi::run(&sql, &[])))
}

/// A relation with its partitions and inheritance children, parents first.
pub fn family(target: Oid, view: spi::Snapshot) -> Result<Vec<Member>, TenancyError> {
    let asking = role::current();
    let sql = Sql::text("SELECT description::text FROM tenancy_internal.describe_audit($1, $2)");
    let described = spi::as_extension_owner(|| {
        spi::read_in(view, &sql, &[target.into(), asking.into()], |row| row.must::<String>(1))
    })?;
    if described.is_empty() {
        return Err(TenancyError::UnknownRelation { oid: target.to_u32() });
    }
    described.iter().map(|description| parsed(description)).collect()
}

/// A table as its rows are looked for and written.
pub fn rows_of(target: Oid, view: spi::Snapshot) -> Result<Rows, TenancyError> {
    let sql = Sql::text("SELECT description::text FROM tenancy_internal.describe_rows($1)");
    let described =
        spi::as_extension_owner(|| spi::read_in(view, &sql, &[target.into()], |row| row.must::<String>(1)))?;
    let description = described.first().ok_or(TenancyError::UnknownRelation { oid: target.to_u32() })?;
    parsed(description)
}

fn parsed<T: serde::de::DeserializeOwned>(description: &str) -> Result<T, TenancyError> {
    serde_json::from_str(description)
        .map_err(|error| TenancyError::Internal { what: format!("a description in the catalog is malformed: {error}") })
}

fn protection(target: Oid) -> Result<Protection, TenancyError> {
    let found = protected::find(target)?;
    Ok(match found.as_deref() {
        Some(Protected::Table(table)) => table.column.clone().map_or(Protection::WithoutColumn, Protection::By),
        _ => Protection::None,
    })
}

fn refuse_strangers(family: &[Member]) -> Result<(), TenancyError> {
    match family.iter().find(|member| !member.is_owned) {
        Some(member) => Err(TenancyError::NotOwner { table: member.name.clone(), role: role::current_role() }),
        None => Ok(()),
    }
}

/// Locks a table with its partitions and children, without making everybody wait behind it.
fn lock(target: Oid, mode: &'static str) -> Result<(), TenancyError> {
    let sql = Sql::text("SELECT tenancy_internal.lock_to_audit($1, $2)");
    spi::own_work(|| spi::as_extension_owner(|| spi::run(&sql, &[target.into(), mode.into()])))
}

/// Carries a step out, as the extension's owner: it names a function that no other role may name.
pub fn execute(step: &Step) -> Result<(), TenancyError> {
    spi::own_work(|| spi::as_extension_owner(|| spi::run(&step.statement(), &[])))
}

/// Records how a relation is audited.
pub fn record(relation: Oid, root: Oid, request: &Request) -> Result<(), TenancyError> {
    let sql = Sql::text(
        "INSERT INTO tenancy_internal.audited_tables AS t
                (relation, root, ignore_columns, redact_columns, row_images, skip_unchanged)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (relation) DO UPDATE
            SET root = EXCLUDED.root, ignore_columns = EXCLUDED.ignore_columns,
                redact_columns = EXCLUDED.redact_columns, row_images = EXCLUDED.row_images,
                skip_unchanged = EXCLUDED.skip_unchanged",
    );
    let columns = Sql::text("SELECT tenancy_internal.note_columns(ARRAY[$1])");
    spi::as_extension_owner(|| {
        spi::run(
            &sql,
            &[
                relation.into(),
                root.into(),
                request.ignored.clone().into(),
                request.redacted.clone().into(),
                request.images.name().into(),
                request.skips_unchanged.into(),
            ],
        )?;
        spi::run(&columns, &[relation.into()])
    })
}

/// How a table is recorded as audited: its root, and what was asked for.
pub fn recorded(relation: Oid) -> Result<Option<(Oid, Request)>, TenancyError> {
    let sql = Sql::text(
        "SELECT t.root::pg_catalog.oid, t.ignore_columns, t.redact_columns, t.row_images, t.skip_unchanged
           FROM tenancy_internal.audited_tables t WHERE t.relation = $1::pg_catalog.regclass",
    );
    let found = spi::as_extension_owner(|| {
        spi::write(&sql, &[relation.into()], |row| {
            let images = row.must::<String>(4)?;
            let request = Request {
                ignored: row.must(2)?,
                redacted: row.must(3)?,
                images: Images::from_name(&images).ok_or_else(|| TenancyError::Internal {
                    what: format!("unknown row_images \"{images}\" is recorded"),
                })?,
                skips_unchanged: row.must(5)?,
                tenant_column: None,
                allows_unscoped: true,
            };
            Ok((row.must::<Oid>(1)?, request))
        })
    })?;
    Ok(found.into_iter().next())
}

/// Ends the audit of `target` with its partitions and children.
pub fn unaudit(target: Oid) -> Result<(), TenancyError> {
    spi::undisturbed(|| {
        let members = family(target, spi::Snapshot::Statement)?;
        let Some(root) = members.first() else { return Ok(()) };
        if !matches!(root.kind, 'r' | 'p') || root.root != Some(target.to_u32()) {
            return Err(AuditError::NotAudited { table: root.name.clone() }.into());
        }
        refuse_strangers(&members)?;
        lock(target, Step::lock_for(&plan::unaudit(&members)))?;
        plan::unaudit(&family(target, spi::Snapshot::Latest)?).iter().try_for_each(execute)?;
        let sql = Sql::text("DELETE FROM tenancy_internal.audited_tables WHERE root = $1::pg_catalog.regclass");
        spi::as_extension_owner(|| spi::run(&sql, &[target.into()]))
    })
}

/// Whether all triggers of an audited relation are in place.
pub fn is_audited(relation: Oid) -> Result<bool, TenancyError> {
    let members = spi::undisturbed(|| family(relation, spi::Snapshot::Statement))?;
    let Some(root) = members.first() else { return Ok(false) };
    let Some(top) = root.root else { return Ok(false) };
    let name = root.name.clone();
    let members = if top == relation.to_u32() {
        members
    } else {
        spi::undisturbed(|| family(Oid::from(top), spi::Snapshot::Statement))?
    };
    match plan::audit(&members) {
        Ok(steps) => Ok(!steps.iter().any(|step| *step.table() == name)),
        Err(TenancyError::Audit(AuditError::ReservedTrigger { .. })) => Ok(false),
        Err(other) => Err(other),
    }
}

/// The tenant whose entries may be read; None for an administrator without one, who may read all.
pub fn readable_tenant() -> Result<Option<uuid::Uuid>, TenancyError> {
    match context::tenant() {
        Ok(tenant) => Ok(Some(tenant.id)),
        Err(TenancyError::NoTenant { .. } | TenancyError::StaleTenant { .. })
            if role::is_privileged(role::current()) =>
        {
            Ok(None)
        }
        Err(refusal) => Err(refusal),
    }
}

/// The entries of the chunk of the log at a place; none of what the current role may not read.
pub fn read_chunk(partition: Oid, place: Place) -> Result<Vec<log::read::Entry>, TenancyError> {
    match log::read::chunk(partition, place)? {
        Some(chunk) if may_read(chunk.tenant) => chunk.entries(),
        _ => Ok(Vec::new()),
    }
}

/// The function is everybody's, as those of views are; what it gives is not.
fn may_read(owner: Option<uuid::Uuid>) -> bool {
    let is_own = owner.is_some() && context::tenant().is_ok_and(|tenant| Some(tenant.id) == owner);
    is_own || role::is_privileged(role::current())
}

/// Writes an event of the application, for the current tenant or, by an administrator, for none; gives the entry's id.
pub fn log_event(
    action: &str,
    entity: Option<&str>,
    entity_id: Option<&str>,
    details: Option<AnyElement>,
) -> Result<i64, TenancyError> {
    Ok(entry_id(log::record_event(readable_tenant()?, action, entity, entity_id, details)?))
}

/// The id of the only entry of a chunk (the view `tenancy_internal.audit_entries` counts them).
fn entry_id(chunk: i64) -> i64 {
    chunk * 10_000 + 1
}

/// The name of a relation, for a message.
pub fn named(relation: Oid) -> Result<QualifiedName, TenancyError> {
    let members = family(relation, spi::Snapshot::Latest)?;
    members.first().map(|member| member.name.clone()).ok_or(TenancyError::UnknownRelation { oid: relation.to_u32() })
}
