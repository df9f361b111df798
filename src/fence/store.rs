//! Who is exempt from the fence.

use crate::error::TenancyError;
use crate::model::Sql;
use crate::pg::{Oid, role, spi};
use pgrx::datum::TimestampWithTimeZone;

/// Lets a role past the fence.
pub fn exempt(grantee: Oid, reason: &str, until: Option<TimestampWithTimeZone>) -> Result<(), TenancyError> {
    refuse_others_than_superusers("exempt_role")?;
    let role = role::name_of(grantee)?;
    if reason.trim().is_empty() {
        return Err(TenancyError::NoReason);
    }
    let exempted = spi::as_extension_owner(|| {
        spi::write(
            &Sql::text(
                "INSERT INTO tenancy_internal.exempt_roles (role, reason, until)
                 SELECT $1, $2, $3 WHERE COALESCE($3 > pg_catalog.clock_timestamp(), true)
                 ON CONFLICT (role) DO UPDATE
                    SET reason = EXCLUDED.reason, until = EXCLUDED.until,
                        granted_at = pg_catalog.now(), granted_by = session_user
                 RETURNING 1",
            ),
            &[grantee.into(), reason.into(), until.into()],
            |_| Ok(()),
        )
    })?;
    if exempted.is_empty() {
        return Err(TenancyError::PastEnd { role: role.as_str().to_owned() });
    }
    Ok(())
}

/// Takes an exemption back.
pub fn unexempt(grantee: Oid) -> Result<(), TenancyError> {
    refuse_others_than_superusers("unexempt_role")?;
    let removed = spi::as_extension_owner(|| {
        spi::write(
            &Sql::text(
                "DELETE FROM tenancy_internal.exempt_roles
                  WHERE role = $1::pg_catalog.oid::pg_catalog.regrole RETURNING 1",
            ),
            &[grantee.into()],
            |_| Ok(()),
        )
    })?;
    if removed.is_empty() {
        return Err(TenancyError::NotExempt { role: role::shown(grantee) });
    }
    Ok(())
}

pub fn refuse_others_than_superusers(function: &'static str) -> Result<(), TenancyError> {
    if role::is_superuser(role::current()) { Ok(()) } else { Err(TenancyError::SuperuserOnly { function }) }
}
