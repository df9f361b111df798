//! Who may run an application.

use crate::error::TenancyError;
use crate::model::Sql;
use crate::pg::{Oid, role, spi};
use crate::registry::rights::{self, Grantee};

/// Lets a role run an application, after looking for every way past row security.
pub fn grant_usage(grantee: Oid) -> Result<(), TenancyError> {
    let dangers = spi::read(&Sql::text("SELECT tenancy_internal.role_danger($1)"), &[grantee.into()], |row| {
        row.get::<String>(1)
    })?;
    if let Some(reason) = dangers.into_iter().flatten().next() {
        return Err(TenancyError::UnsafeRole { role: role::name_of(grantee)?.as_str().to_owned(), reason });
    }
    rights::give(grantee, Grantee::Application)
}

/// Takes back what `grant_usage` gave.
pub fn revoke_usage(grantee: Oid) -> Result<(), TenancyError> {
    rights::take(grantee, Grantee::Application)
}
