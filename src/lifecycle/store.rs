//! Reads what a purge is planned from, and has its steps done past row security, guard and fence.

use super::plan::{self, Part, Table};
use crate::error::TenancyError;
use crate::model::{Key, Sql};
use crate::pg::mute::{self, Firing};
use crate::pg::{Oid, cache, spi, strangers};
use pgrx::Uuid;

/// A line of `plan_purge`: a part of the plan, or what stands in its way.
pub struct Line {
    pub step: Option<i32>,
    pub relation: Oid,
    pub how: &'static str,
    pub rows: Option<i64>,
    pub bytes: Option<i64>,
    pub lock: Option<&'static str>,
    pub reason: String,
}

/// What `purge_tenant` was asked for, but for the tenant.
pub struct Request<'a> {
    pub confirm: Option<&'a str>,
    pub dry_run: bool,
    pub batch_size: i32,
    pub max_seconds: Option<i32>,
    pub pause_ms: i32,
    pub include_audit: bool,
}

pub fn known(tenant: &Key) -> Result<Uuid, TenancyError> {
    let found = cache::find(tenant)?.ok_or_else(|| TenancyError::UnknownTenant { tenant: tenant.to_string() })?;
    Ok(Uuid::from_bytes(*found.id.as_bytes()))
}

/// Runs `work` with all rights and past all that guards tables; code of the tables' owners gets none of them.
pub fn unhindered<T>(work: impl FnOnce() -> Result<T, TenancyError>) -> Result<T, TenancyError> {
    spi::own_work(|| spi::as_extension_owner(|| strangers::refused(work)))
}

fn parts(tenant: Uuid) -> Result<Vec<Part>, TenancyError> {
    let sql = Sql::text("SELECT tenancy_internal.describe_purge($1)::pg_catalog.text");
    let described = spi::write(&sql, &[tenant.into()], |row| row.must::<String>(1))?;
    let malformed = |error| TenancyError::Internal { what: format!("a description of tables is malformed: {error}") };
    let tables: Vec<Table> =
        described.first().map_or(Ok(Vec::new()), |text| serde_json::from_str(text)).map_err(malformed)?;
    Ok(plan::order(&tables))
}

/// The plan as SQL takes it.
fn plan(tenant: Uuid) -> Result<String, TenancyError> {
    serde_json::to_string(&parts(tenant)?)
        .map_err(|error| TenancyError::Internal { what: format!("a plan cannot be written: {error}") })
}

pub fn plan_purge(tenant: &Key) -> Result<Vec<Line>, TenancyError> {
    let tenant = known(tenant)?;
    unhindered(|| {
        let obstacles =
            Sql::text("SELECT o.relation::pg_catalog.oid, o.reason FROM tenancy_internal.purge_obstacles($1) o");
        let mut lines = spi::write(&obstacles, &[tenant.into()], |row| {
            Ok(Line {
                step: None,
                relation: row.must(1)?,
                how: "obstacle",
                rows: None,
                bytes: None,
                lock: None,
                reason: row.must(2)?,
            })
        })?;
        lines.extend(parts(tenant)?.into_iter().map(|part| Line {
            step: Some(part.step),
            relation: Oid::from(part.relation),
            how: part.how.shown(),
            rows: Some(part.rows),
            bytes: Some(part.bytes),
            lock: Some(part.how.lock()),
            reason: part.how.reason().to_owned(),
        }));
        Ok(lines)
    })
}

/// Begins a purge or takes it up again; None where it was only asked what would be done.
pub fn begin(tenant: &Key, request: &Request<'_>) -> Result<Option<i64>, TenancyError> {
    let tenant = known(tenant)?;
    unhindered(|| {
        let check = Sql::text("SELECT tenancy_internal.check_purge($1, $2, $3)");
        spi::run(&check, &[tenant.into(), request.confirm.into(), request.dry_run.into()])?;
        let begin = Sql::text("SELECT tenancy_internal.begin_purge($1, $2, $3, $4, $5, $6, $7::pg_catalog.jsonb)");
        let begun = spi::write(
            &begin,
            &[
                tenant.into(),
                request.dry_run.into(),
                request.batch_size.into(),
                request.max_seconds.into(),
                request.pause_ms.into(),
                request.include_audit.into(),
                plan(tenant)?.into(),
            ],
            |row| row.get::<i64>(1),
        )?;
        Ok(begun.into_iter().next().flatten())
    })
}

/// Does the next batch; false when there are no more.
pub fn step(purge: i64) -> Result<bool, TenancyError> {
    let sql = Sql::text("SELECT tenancy_internal.purge_part($1)");
    let done = unhindered(|| {
        mute::with_triggers(Firing::ForeignKeys, || spi::write(&sql, &[purge.into()], |row| row.must::<bool>(1)))
    })?;
    Ok(done == [true])
}

/// Counts what is left and writes the certificate; false when there is more to do.
pub fn finish(purge: i64) -> Result<bool, TenancyError> {
    unhindered(|| {
        let whose = Sql::text("SELECT (tenancy_internal.purge_at_hand($1)).tenant_id");
        let tenants = spi::write(&whose, &[purge.into()], |row| row.must::<Uuid>(1))?;
        let Some(tenant) = tenants.into_iter().next() else { return Ok(true) };
        let sql = Sql::text("SELECT tenancy_internal.finish_purge($1, $2::pg_catalog.jsonb)");
        let finished = spi::write(&sql, &[purge.into(), plan(tenant)?.into()], |row| row.must::<bool>(1))?;
        Ok(finished == [true])
    })
}
