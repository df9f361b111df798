//! Retention: rows go when they are as old as was said, and deleted rows when their grace is over.
//! SQL: sql/lifecycle/retention.sql, which commits and knows which rows they are.

use super::rows::{self, Member};
use super::store;
use crate::error::{RowsError, TenancyError};
use crate::model::{Deparsed, Ident, QualifiedName, Sql};
use crate::pg::{Oid, given, protected, spi, table_work, tenant_key};
use pgrx::Uuid;
use pgrx::datum::Interval;

/// What is done with a row that is too old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Delete,
    Archive,
}

impl Action {
    const NAMES: &[&str] = &["delete", "archive"];

    fn from_name(name: &str) -> Result<Self, TenancyError> {
        match name {
            "delete" => Ok(Self::Delete),
            "archive" => Ok(Self::Archive),
            other => {
                Err(TenancyError::UnknownChoice { argument: "action", given: other.to_owned(), choices: Self::NAMES })
            }
        }
    }
}

/// A rule as it was asked for.
struct Rule<'a> {
    column: &'a Ident,
    keep: Option<Interval>,
    tenant: Option<Uuid>,
    action: &'a str,
}

/// Types of a column that tells a row's age.
const TIMES: [&str; 3] = [rows::MOMENT, "timestamp without time zone", "date"];

/// The column that tells a row's age. A precision of its type is no other type.
fn check_column(root: &Member, column: &Ident) -> Result<(), TenancyError> {
    let Some(found) = root.columns.iter().find(|found| found.name == *column) else {
        return Err(RowsError::UnknownColumn { table: root.name.clone(), column: column.clone() }.into());
    };
    let mut plain = found.type_name.to_string();
    if let (Some(from), Some(to)) = (plain.find('('), plain.find(')')) {
        plain.replace_range(from..=to, "");
    }
    if TIMES.contains(&plain.as_str()) {
        return Ok(());
    }
    let (table, found) = (root.name.clone(), found.type_name.to_string());
    Err(RowsError::NotATime { table, column: column.clone(), found }.into())
}

/// The name of the table that rows of `table` are moved to.
fn archive_name(table: &QualifiedName) -> Result<QualifiedName, TenancyError> {
    const ENDING: &str = "_archive";
    const MOST_BYTES: usize = 63;
    let name = table.name.as_str();
    let room = MOST_BYTES - ENDING.len();
    let end = (0..=room.min(name.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    let name = format!("{}{ENDING}", name.get(..end).unwrap_or_default());
    Ok(QualifiedName { schema: table.schema.clone(), name: Ident::new(&name)? })
}

/// Sets, changes or (without `keep`) removes the rule for a table's rows, or those of one tenant.
fn set(target: Oid, rule: &Rule<'_>) -> Result<(), TenancyError> {
    let action = Action::from_name(rule.action)?;
    let tenant_column = spi::undisturbed(|| {
        let family = rows::family(target, spi::Snapshot::Statement)?;
        let root = rows::refuse_unfit(&family, target)?;
        rows::refuse_strangers(&family)?;
        let column = match protected::find(target)?.as_deref() {
            Some(protected::Protected::Table(table)) => table.column.clone(),
            _ => None,
        };
        let Some(column) = column else { return Err(TenancyError::NotProtected { table: root.name.clone() }) };
        if rule.keep.is_some() {
            check_column(root, rule.column)?;
            rows::tell_silent_triggers(root);
        }
        Ok(column)
    })?;
    let Some(keep) = rule.keep else {
        let sql = Sql::text(
            "DELETE FROM tenancy_internal.retention_rules
              WHERE relation = $1::pg_catalog.regclass AND tenant_id IS NOT DISTINCT FROM $2",
        );
        return rows::private(|| spi::run(&sql, &[target.into(), rule.tenant.into()]));
    };
    // As long as it is subtracted from now, an interval of months and days has no length of its own.
    let judge = Sql::text(
        "SELECT $1 > interval '0' AND $1 <= interval '1000 years' AND pg_catalog.now() - $1 < pg_catalog.now(), $1::text",
    );
    let judged = spi::with_catalog_names(|| {
        spi::read(&judge, &[keep.into()], |row| Ok((row.must::<bool>(1)?, row.must::<String>(2)?)))
    })?;
    if let Some((_, given)) = judged.into_iter().find(|(is_good, _)| !is_good) {
        return Err(RowsError::ImpossibleRetention { given }.into());
    }
    let archive = match action {
        Action::Delete => None,
        Action::Archive => Some(archive(target, &tenant_column)?),
    };
    let sql = Sql::text(
        "INSERT INTO tenancy_internal.retention_rules AS r (relation, tenant_id, column_name, keep, action, archive)
         VALUES ($1, $2, $3::text, $4, $5, $6)
         ON CONFLICT (relation, (COALESCE(tenant_id, '00000000-0000-0000-0000-000000000000'))) DO UPDATE
            SET column_name = EXCLUDED.column_name, keep = EXCLUDED.keep, action = EXCLUDED.action,
                archive = EXCLUDED.archive, set_at = EXCLUDED.set_at, set_by = EXCLUDED.set_by",
    );
    rows::private(|| {
        spi::run(
            &sql,
            &[
                target.into(),
                rule.tenant.into(),
                rule.column.as_str().into(),
                keep.into(),
                rule.action.into(),
                archive.into(),
            ],
        )
    })
}

/// The table that rows of `target` are moved to, made and protected where it is missing.
fn archive(target: Oid, tenant_column: &Ident) -> Result<Oid, TenancyError> {
    let table = protected::qualified_name_of(target)?;
    let name = archive_name(&table)?;
    let look = Sql::text(
        "SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE n.nspname::text = $1 AND c.relname::text = $2",
    );
    let find = || {
        let arguments = [name.schema.as_str().into(), name.name.as_str().into()];
        spi::undisturbed(|| spi::write(&look, &arguments, |row| row.must::<Oid>(1))).map(|found| found.first().copied())
    };
    let owner_of = |relation: Oid| {
        let sql = Sql::text(
            "SELECT pg_catalog.pg_get_userbyid(c.relowner)::text FROM pg_catalog.pg_class c WHERE c.oid = $1",
        );
        let owner = spi::undisturbed(|| spi::read(&sql, &[relation.into()], |row| row.must::<String>(1)))?;
        Ident::new(&owner.concat())
    };
    let owner = owner_of(target)?;
    let found = match find()? {
        Some(found) if owner_of(found)? != owner => {
            return Err(RowsError::StrangersArchive { archive: name, table }.into());
        }
        Some(found) => found,
        None => {
            let create = Sql::text("CREATE TABLE ").name(&name).then(" (LIKE ").name(&table).then(")");
            let add = rows::alter(&name)
                .then(" ADD COLUMN IF NOT EXISTS archived_at pg_catalog.timestamptz DEFAULT pg_catalog.now()");
            let give = rows::alter(&name).then(" OWNER TO ").ident(&owner);
            spi::own_work(|| spi::undisturbed(|| [create, add, give].iter().try_for_each(|sql| spi::run(sql, &[]))))?;
            spi::notice(&format!("table {name} made for the rows of {table} that are archived"));
            find()?.ok_or_else(|| TenancyError::Internal { what: format!("table {name} is gone") })?
        }
    };
    let others = Sql::text(
        "SELECT true FROM tenancy_internal.retention_rules r
          WHERE r.archive = $1::pg_catalog.regclass AND r.relation <> $2::pg_catalog.regclass LIMIT 1",
    );
    if !rows::private(|| spi::write(&others, &[found.into(), target.into()], |row| row.must::<bool>(1)))?.is_empty() {
        return Err(RowsError::SharedArchive { archive: name }.into());
    }
    let protect = Sql::text("SELECT tenancy.protect_table($1::pg_catalog.oid, $2::text)");
    spi::run(&protect, &[found.into(), tenant_column.as_str().into()])?;
    let missing = Sql::text("SELECT column_name::text FROM tenancy_internal.columns_not_in($1, $2)");
    let missing = rows::private(|| spi::write(&missing, &[target.into(), found.into()], |row| row.must::<String>(1)))?;
    if !missing.is_empty() {
        return Err(RowsError::UnfitArchive { archive: name, table, columns: missing }.into());
    }
    Ok(found)
}

/// Whether an index tells that there is nothing to look for.
fn may_expire(relation: Oid, task: &str, root: Oid) -> Result<bool, TenancyError> {
    let sql = Sql::text("SELECT tenancy_internal.may_expire($1::pg_catalog.regclass, $2, $3::pg_catalog.regclass)");
    let answer = store::unhindered(|| {
        spi::write(&sql, &[relation.into(), task.into(), root.into()], |row| row.must::<bool>(1))
    })?;
    Ok(answer != [false])
}

/// Removes what is too old, or was deleted long enough ago, from a span of blocks of a relation; gives the number of rows.
fn expire(relation: Oid, task: &str, from: i64, to: i64) -> Result<i64, TenancyError> {
    let sql =
        Sql::text("SELECT find, remove FROM tenancy_internal.expiry_statements($1::pg_catalog.regclass, $2, $3, $4)");
    let statements = spi::as_extension_owner(|| {
        spi::write(&sql, &[relation.into(), task.into(), from.into(), to.into()], |row| {
            let statement = |text| Sql::text("").deparsed(&Deparsed::from_catalog(text));
            Ok((statement(row.must(1)?), statement(row.must(2)?)))
        })
    })?;
    let mut gone = 0;
    for (find, remove) in statements {
        // It reads whatever refers to the table, and runs nothing of the user's.
        let places = store::unhindered(|| spi::write(&find, &[], |row| row.get::<String>(1)))?;
        for places in places.into_iter().flatten() {
            let removed = table_work::change(relation, &remove, &[places.into()], |row| row.must::<i64>(1))?;
            gone += removed.iter().sum::<i64>();
        }
    }
    Ok(gone)
}

#[pgrx::pg_schema]
pub(super) mod tenancy {
    use crate::pg::{Oid, given, ident, on_table};
    use pgrx::datum::Interval;
    use pgrx::{pg_sys::panic::ErrorReport, prelude::*};

    /// Keeps rows of `target` for `keep` from the time in `column_name`: all tenants', or those of one. NULL ends it.
    ///
    /// `action` is `delete` or `archive`. 42704 for a table that is not protected and for an unknown tenant, 42703 for an unknown
    /// column, 42804 for one that is no time, 22023 for what is not longer than nothing, 42501 without ownership.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.set_retention(
    target regclass, column_name name, keep interval, tenant text DEFAULT NULL, action text DEFAULT 'delete'
) RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn set_retention(
        target: Option<Oid>,
        column_name: Option<&std::ffi::CStr>,
        keep: Option<Interval>,
        tenant: Option<&str>,
        action: Option<&str>,
    ) -> Result<(), ErrorReport> {
        let column = ident("column_name", column_name)?;
        let tenant = super::known(tenant)?;
        let rule = super::Rule { column: &column, keep, tenant, action: given("action", action)? };
        Ok(on_table(target, |target| super::set(target, &rule))?)
    }
}

fn known(tenant: Option<&str>) -> Result<Option<Uuid>, TenancyError> {
    match tenant {
        Some(tenant) => Ok(Some(store::known(&tenant_key(Some(tenant))?)?)),
        None => Ok(None),
    }
}

#[pgrx::pg_schema]
pub(super) mod tenancy_internal {
    use super::given;
    use crate::pg::Oid;
    use pgrx::{pg_sys::panic::ErrorReport, prelude::*};

    /// Whether a relation may have rows that are due.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy_internal.may_have_due_rows(relation regclass, task text, root regclass) RETURNS boolean
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn may_have_due_rows(relation: Option<Oid>, task: Option<&str>, root: Option<Oid>) -> Result<bool, ErrorReport> {
        Ok(super::may_expire(given("relation", relation)?, given("task", task)?, given("root", root)?)?)
    }

    /// Removes what is due from a span of blocks of a relation; gives the number of rows.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy_internal.expire_rows(relation regclass, task text, from_block bigint, to_block bigint) RETURNS bigint
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn expire_rows(
        relation: Option<Oid>,
        task: Option<&str>,
        from_block: Option<i64>,
        to_block: Option<i64>,
    ) -> Result<i64, ErrorReport> {
        let (from, to) = (given("from_block", from_block)?, given("to_block", to_block)?);
        Ok(super::expire(given("relation", relation)?, given("task", task)?, from, to)?)
    }
}

#[cfg(test)]
mod tests {
    use super::rows::tests::{column, member};
    use super::*;

    #[test]
    fn a_rows_age_is_a_time_or_a_day() {
        let check = |type_name: &str| {
            let mut table = member(1, "events");
            table.columns.push(column("at", type_name));
            check_column(&table, &rows::ident("at"))
        };
        for type_name in ["date", "timestamp(3) with time zone", "timestamp without time zone"] {
            assert!(check(type_name).is_ok(), "{type_name}");
        }
        assert!(matches!(check("time without time zone"), Err(TenancyError::Rows(RowsError::NotATime { .. }))));
        let none = check_column(&member(1, "events"), &rows::ident("at"));
        assert!(matches!(none, Err(TenancyError::Rows(RowsError::UnknownColumn { .. }))));
    }

    #[test]
    fn the_archives_name_fits_and_ends_at_a_letter() {
        let named = |name: &str| {
            let table = QualifiedName { schema: rows::ident("public"), name: Ident::new(name).unwrap() };
            archive_name(&table).unwrap().name
        };
        assert_eq!(named("orders").as_str(), "orders_archive");
        let long = named(&"表".repeat(21));
        assert!(long.as_str().len() <= 63 && long.as_str().ends_with("表_archive"));
    }
}
