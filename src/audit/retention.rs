//! How long the log is kept, and whose turn it is to maintain it. The work is SQL's, which commits (sql/audit.sql).

use crate::error::{AuditError, TenancyError};
use crate::model::{Key, Sql};
use crate::pg::{cache, spi};
use pgrx::Uuid;
use pgrx::datum::Interval;

/// Keeps entries for `keep`: those of a tenant, or of all tenants without a word of their own. A tenant's own word goes
/// with None.
fn set(keep: Option<Interval>, tenant: Option<&str>) -> Result<(), TenancyError> {
    let tenant = tenant.map(known).transpose()?;
    let Some(keep) = keep else {
        let tenant = tenant.ok_or(TenancyError::MissingArgument { argument: "keep" })?;
        let sql = Sql::text("DELETE FROM tenancy_internal.audit_retention WHERE tenant_id = $1");
        return spi::run(&sql, &[tenant.into()]);
    };
    // As long as it is subtracted from now, an interval of months and days has no length of its own.
    let judge = Sql::text(
        "SELECT $1 > interval '0' AND $1 <= interval '1000 years' AND pg_catalog.now() - $1 < pg_catalog.now(), $1::text",
    );
    let judged = spi::read(&judge, &[keep.into()], |row| Ok((row.must::<bool>(1)?, row.must::<String>(2)?)))?;
    if let Some((_, given)) = judged.into_iter().find(|(is_good, _)| !is_good) {
        return Err(AuditError::ImpossibleRetention { given }.into());
    }
    let sql = match tenant {
        Some(_) => Sql::text(
            "INSERT INTO tenancy_internal.audit_retention (keep, tenant_id) VALUES ($1, $2)
             ON CONFLICT (tenant_id) DO UPDATE
                SET keep = EXCLUDED.keep, set_at = EXCLUDED.set_at, set_by = EXCLUDED.set_by",
        ),
        None => Sql::text(
            "INSERT INTO tenancy_internal.audit_retention (keep, tenant_id) VALUES ($1, $2)
             ON CONFLICT ((true)) WHERE tenant_id IS NULL DO UPDATE
                SET keep = EXCLUDED.keep, set_at = EXCLUDED.set_at, set_by = EXCLUDED.set_by",
        ),
    };
    spi::run(&sql, &[keep.into(), tenant.into()])
}

fn known(tenant: &str) -> Result<Uuid, TenancyError> {
    let key: Key = tenant.parse()?;
    let found = cache::find(&key)?.ok_or_else(|| TenancyError::UnknownTenant { tenant: key.to_string() })?;
    Ok(Uuid::from_bytes(*found.id.as_bytes()))
}

#[pgrx::pg_schema]
pub(super) mod tenancy {
    use pgrx::datum::Interval;
    use pgrx::{pg_sys::panic::ErrorReport, prelude::*};

    /// Keeps entries of the audit log for `keep`: a tenant's, or all others'. NULL takes a tenant's own back.
    ///
    /// 22023 for what is not longer than nothing, 42704 for an unknown tenant.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.set_audit_retention(keep interval, tenant text DEFAULT NULL) RETURNS void
LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn set_audit_retention(keep: Option<Interval>, tenant: Option<&str>) -> Result<(), ErrorReport> {
        Ok(super::set(keep, tenant)?)
    }
}

#[pgrx::pg_schema]
pub(super) mod tenancy_internal {
    use crate::pg::audit::turn;
    use pgrx::{pg_sys::panic::ErrorReport, prelude::*};

    /// Lets this session maintain or seal the log, alone, until it gives the turn back or fails.
    #[pg_extern]
    fn take_audit_turn() -> Result<(), ErrorReport> {
        Ok(turn::take()?)
    }

    /// Refuses a call of a procedure that commits where it could not.
    #[pg_extern]
    fn refuse_in_transaction(call: &str) -> Result<(), ErrorReport> {
        Ok(turn::refuse_in_transaction(call)?)
    }

    /// Whether this session maintains or seals the log.
    #[pg_extern]
    fn has_audit_turn() -> Result<bool, ErrorReport> {
        Ok(turn::has()?)
    }

    /// Gives the turn back.
    #[pg_extern]
    fn give_audit_turn() -> Result<(), ErrorReport> {
        Ok(turn::give()?)
    }
}
