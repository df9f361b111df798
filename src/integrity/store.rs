//! Rows of many tables, looked at for their tenants alone; and the statements of a proof, which run as roles that must not get
//! further.

use super::plan::Known;
use crate::error::TenancyError;
use crate::model::{Deparsed, Sql};
use crate::pg::tally::{Seen, tally};
use crate::pg::{Oid, role, spi};
use std::ffi::CString;

/// A table whose rows need nothing but a tenant.
pub struct Plain {
    pub relation: Oid,
    /// The number of its tenant column.
    pub attribute: i16,
    /// Rows without a tenant are everybody's.
    pub is_shared: bool,
}

/// Of each table the current role may see all rows of: how many there are, and whether each has a known tenant.
pub fn tally_rows(tables: &[Plain], known: &Known) -> Vec<(Oid, i64, bool)> {
    let mut tallies = Vec::new();
    for table in tables {
        let mut last = None;
        let counted = tally(table.relation, table.attribute, |seen| match seen {
            Seen::Nothing => table.is_shared,
            Seen::Id(id) => known.has_id(id, &mut last),
            Seen::Number(number) => known.has_number(number),
            Seen::Code(code) => known.has_code(code),
            Seen::Packed => false,
        });
        if let Some((rows, is_clean)) = counted {
            tallies.push((table.relation, rows, is_clean));
        }
    }
    tallies
}

/// Changes rows of a table as its owner, whom no policy binds meanwhile; what his triggers put off is done as he, too.
pub fn change_as_owner(relation: Oid, statement: String) -> Result<Option<String>, TenancyError> {
    let statement = Sql::text("").deparsed(&Deparsed::from_catalog(statement));
    spi::as_owner_of_rows(relation, || {
        let answer = spi::write(&statement, &[], |row| row.get::<String>(1))?;
        spi::run(&Sql::text("SET CONSTRAINTS ALL IMMEDIATE"), &[])?;
        Ok(answer.into_iter().flatten().next())
    })
}

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
