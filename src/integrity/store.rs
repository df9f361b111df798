//! Rows of many tables, looked at for their tenants alone; and the statements of a proof, which run as roles that must not get
//! further.

use super::plan::Known;
use crate::error::TenancyError;
use crate::model::{Deparsed, Sql};
use crate::pg::tally::{Seen, tally};
use crate::pg::{Oid, role, spi, strangers, table_work};
use pgrx::AnyElement;
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

/// What a repair is to do: the action of `repair_orphans`, and where.
pub struct Repair<'a> {
    pub target: Oid,
    /// The table itself, or a partition of it.
    pub part: Oid,
    pub constraint: &'a str,
    pub action: &'a str,
    pub reassign_to: Option<AnyElement>,
    pub blocks: (i64, i64),
}

/// Repairs the orphans in a span of blocks; gives what the statement tells. The caller has to have the rights to read and to change all of
/// the table; how it is done is not up to him, for it is done with the rights of the table's owner.
pub fn repair(repair: &Repair<'_>) -> Result<Option<String>, TenancyError> {
    let statements = Sql::text(
        "SELECT s.find, s.change, s.parent::pg_catalog.oid
           FROM tenancy_internal.repair_statements($1::pg_catalog.regclass, $2::pg_catalog.regclass, $3, $4, $5, $6, $7) AS s",
    );
    let arguments = [
        repair.target.into(),
        repair.part.into(),
        repair.constraint.into(),
        repair.action.into(),
        spi::jsonb(repair.reassign_to),
        repair.blocks.0.into(),
        repair.blocks.1.into(),
    ];
    let found = spi::as_extension_owner(|| {
        spi::read(&statements, &arguments, |row| {
            let statement = |text| Sql::text("").deparsed(&Deparsed::from_catalog(text));
            Ok((statement(row.must(1)?), statement(row.must(2)?), row.must::<Oid>(3)?))
        })
    })?;
    let Some((find, change, parent)) = found.into_iter().next() else { return Ok(None) };
    let rights = Sql::text(
        "SELECT tenancy_internal.assert_readable($1::pg_catalog.regclass), tenancy_internal.assert_readable($2::pg_catalog.regclass),
                tenancy_internal.assert_changeable($1::pg_catalog.regclass, $3)",
    );
    spi::with_catalog_names(|| {
        spi::read(&rights, &[repair.target.into(), parent.into(), repair.action.into()], |_| Ok(()))
    })?;
    let find = || spi::write(&find, &[], |row| row.get::<String>(1));
    let places = spi::own_work(|| spi::as_extension_owner(|| strangers::refused(find)))?;
    let places = places.into_iter().flatten().next().unwrap_or_else(|| "{}".to_owned());
    let told = table_work::change(repair.part, &change, &[places.into()], |row| row.get::<String>(1))?;
    Ok(told.into_iter().flatten().next())
}

/// Puts a row back that was in quarantine: with the rights of the table's owner where the caller could do it past row security, else with
/// his own.
pub fn put_row_back(relation: Oid, given: AnyElement) -> Result<(), TenancyError> {
    let sql = Sql::text("SELECT tenancy_internal.restoring_statement($1::pg_catalog.regclass, $2)");
    let statement = spi::as_extension_owner(|| {
        spi::read(&sql, &[relation.into(), spi::jsonb(Some(given))], |row| row.must::<String>(1))
    })?;
    let statement = Sql::text("").deparsed(&Deparsed::from_catalog(statement.concat()));
    let arguments = [spi::jsonb(Some(given))];
    if role::may(role::Right::Insert, relation) && !role::is_bound(relation) {
        table_work::change(relation, &statement, &arguments, |_| Ok(())).map(drop)
    } else {
        spi::with_catalog_names(|| spi::run(&statement, &arguments))
    }
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
