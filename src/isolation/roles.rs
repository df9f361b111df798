//! Who may run an application.

use crate::error::TenancyError;
use crate::model::Sql;
use crate::pg::{Oid, role, spi};

/// Lets a role run an application, after looking for every way past row security.
pub fn grant_usage(grantee: Oid) -> Result<(), TenancyError> {
    let name = role::name_of(grantee)?;
    let dangers = spi::read(&Sql::text("SELECT tenancy_internal.role_danger($1)"), &[grantee.into()], |row| {
        row.get::<String>(1)
    })?;
    if let Some(reason) = dangers.into_iter().flatten().next() {
        return Err(TenancyError::UnsafeRole { role: name.as_str().to_owned(), reason });
    }
    for right in USAGE_RIGHTS {
        spi::run(&Sql::text("GRANT ").then(right).then(" TO ").ident(&name), &[])?;
    }
    Ok(())
}

/// Takes back what `grant_usage` gave.
pub fn revoke_usage(grantee: Oid) -> Result<(), TenancyError> {
    let name = role::name_of(grantee)?;
    for right in USAGE_RIGHTS.iter().rev() {
        spi::run(&Sql::text("REVOKE ").then(right).then(" FROM ").ident(&name), &[])?;
    }
    Ok(())
}

/// What an application role needs.
const USAGE_RIGHTS: [&str; 4] = [
    "USAGE ON SCHEMA tenancy",
    "SELECT ON tenancy.tenants, tenancy.plans",
    // They show a tenant its own entries, of tables that the role may read; the whole log is the DBA's to grant.
    "EXECUTE ON FUNCTION tenancy.log_event, tenancy.row_history, tenancy.row_as_of, tenancy.tenant_activity,
         tenancy.revert_transaction",
    "EXECUTE ON FUNCTION tenancy.once",
];
