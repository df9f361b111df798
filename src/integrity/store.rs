//! The statements of a proof, which run as roles that must not get further.

use crate::error::TenancyError;
use crate::model::Sql;
use crate::pg::{Oid, role, spi};
use std::ffi::CString;

/// What `tenancy_internal.run_text` gives with the rights of `wanted`, for whoever could become it.
pub fn run_confined(wanted: Oid, as_session: bool, text: (&str, &str, bool)) -> Result<Option<String>, TenancyError> {
    let name = role::name_of(wanted)?;
    let may_become = spi::read(
        &Sql::text(
            "SELECT pg_catalog.pg_has_role($1, CASE WHEN pg_catalog.current_setting('server_version_num')::pg_catalog.int4
                        OPERATOR(pg_catalog.>=) 160000 THEN 'SET' ELSE 'MEMBER' END)",
        ),
        &[wanted.into()],
        |row| row.must::<bool>(1),
    )?;
    if may_become != [true] {
        return Err(TenancyError::NotMember { role: role::current_role(), wanted: name.as_str().to_owned() });
    }
    let functions = spi::read(
        &Sql::text("SELECT 'tenancy_internal.run_text(text,text,boolean)'::pg_catalog.regprocedure::pg_catalog.oid"),
        &[],
        |row| row.must::<Oid>(1),
    )?;
    let function = *functions.first().ok_or(TenancyError::NotInstalled)?;
    let session = CString::new(name.as_str()).map_err(|_| TenancyError::UnknownRole { role: wanted.to_u32() })?;
    Ok(spi::call_confined(function, wanted, as_session.then_some(session.as_c_str()), text))
}
