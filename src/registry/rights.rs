//! Rights: gives a role what the rooms list for it in `tenancy_internal.rights`, and takes it back.

use crate::error::TenancyError;
use crate::model::{Deparsed, Sql};
use crate::pg::{Oid, role, spi};

/// Whom rights are listed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grantee {
    Application,
    Administrator,
}

impl Grantee {
    fn name(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Administrator => "administrator",
        }
    }
}

pub fn give(to: Oid, grantee: Grantee) -> Result<(), TenancyError> {
    let role = role::name_of(to)?;
    for right in listed(grantee)? {
        spi::run(&Sql::text("GRANT ").deparsed(&right).then(" TO ").ident(&role), &[])?;
    }
    Ok(())
}

pub fn take(from: Oid, grantee: Grantee) -> Result<(), TenancyError> {
    let role = role::name_of(from)?;
    for right in listed(grantee)? {
        spi::run(&Sql::text("REVOKE ").deparsed(&right).then(" FROM ").ident(&role), &[])?;
    }
    Ok(())
}

/// As GRANT takes them.
fn listed(grantee: Grantee) -> Result<Vec<Deparsed>, TenancyError> {
    let sql = Sql::text(
        "SELECT pg_catalog.format('%s ON %s %s', r.privileges, r.kind, pg_catalog.array_to_string(r.objects, ', '))
           FROM tenancy_internal.rights r WHERE r.grantee = $1 ORDER BY 1",
    );
    spi::as_extension_owner(|| {
        spi::read(&sql, &[grantee.name().into()], |row| Ok(Deparsed::from_catalog(row.must(1)?)))
    })
}
