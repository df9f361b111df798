//! What could carry rows of protected tables past row security: views, materialized views, functions, publications.

use super::plan;
use super::store;
use crate::error::TenancyError;
use crate::model::table::Column;
use crate::model::{Ident, QualifiedName, Sql, policy};
use crate::pg::{Oid, concern, role, spi};

/// A view or materialized view that reads protected tables.
struct Reader {
    name: QualifiedName,
    is_materialized: bool,
    is_invoker: bool,
    is_barrier: bool,
    is_tenant_view: bool,
    reads_materialized: bool,
    owner: String,
    owner_danger: Option<String>,
    sources: String,
}

fn reader(relation: Oid) -> Result<Option<Reader>, TenancyError> {
    let sql = Sql::text(
        "SELECT schema::text, name::text, is_materialized, is_invoker, is_barrier, is_tenant_view, reads_materialized,
                owner, owner_danger, sources
           FROM tenancy_internal.describe_reader($1)",
    );
    let mut readers = spi::as_extension_owner(|| {
        spi::write(&sql, &[relation.into()], |row| {
            let name = |column| row.must::<String>(column).and_then(|name| Ident::new(&name));
            Ok(Reader {
                name: QualifiedName { schema: name(1)?, name: name(2)? },
                is_materialized: row.must(3)?,
                is_invoker: row.must(4)?,
                is_barrier: row.must(5)?,
                is_tenant_view: row.must(6)?,
                reads_materialized: row.must(7)?,
                owner: row.must(8)?,
                owner_danger: row.get(9)?,
                sources: row.must(10)?,
            })
        })
    })?;
    Ok(readers.pop())
}

/// How a view or materialized view lets rows past row security, if it does.
pub fn judge(relation: Oid, is_defined_anew: bool) -> Result<Option<TenancyError>, TenancyError> {
    if !concern::is_view(relation) {
        return Ok(None);
    }
    let Some(reader) = reader(relation)? else { return Ok(None) };
    let (view, sources) = (reader.name, reader.sources);
    Ok(if reader.is_materialized {
        Some(TenancyError::MatviewUnbound { view, sources })
    } else if reader.is_tenant_view {
        let is_altered = is_defined_anew || !reader.is_barrier;
        is_altered.then_some(TenancyError::TenantViewAltered { view })
    } else if reader.reads_materialized {
        Some(TenancyError::ViewOfCopies { view, sources })
    } else {
        let unbound = reader.owner_danger.filter(|_| !reader.is_invoker);
        unbound.map(|danger| TenancyError::ViewUnbound { view, owner: reader.owner, danger, sources })
    })
}

/// How a function lets rows past row security, if it does; or that it is one of ours.
pub fn judge_function(function: Oid) -> Result<Option<TenancyError>, TenancyError> {
    let sql =
        Sql::text("SELECT name, is_ours, owner, owner_danger, sources FROM tenancy_internal.describe_function($1)");
    let faults = spi::as_extension_owner(|| {
        spi::write(&sql, &[function.into()], |row| {
            let function = row.must::<String>(1)?;
            if row.must::<bool>(2)? {
                return Ok(TenancyError::HelperReplaced { function });
            }
            let (owner, danger, sources) = (row.must(3)?, row.must(4)?, row.must(5)?);
            Ok(TenancyError::FunctionUnbound { function, owner, danger, sources })
        })
    })?;
    Ok(faults.into_iter().next())
}

/// Which protected tables a publication sends, if any.
pub fn judge_publication(publication: &Ident) -> Result<Option<TenancyError>, TenancyError> {
    let sql = Sql::text("SELECT sources FROM tenancy_internal.published_tables($1::text::name)");
    let sources =
        spi::as_extension_owner(|| spi::write(&sql, &[publication.as_str().into()], |row| row.must::<String>(1)))?;
    let publication = publication.clone();
    Ok(sources.into_iter().next().map(|sources| TenancyError::PublicationUnbound { publication, sources }))
}

/// Makes a view of a materialized view that shows the current tenant's rows only.
pub fn tenant_view(matview: Oid) -> Result<Oid, TenancyError> {
    spi::undisturbed(|| {
        let view = spi::Snapshot::Latest;
        let unknown = TenancyError::UnknownRelation { oid: matview.to_u32() };
        let table = store::describe_one(matview, view)?.ok_or(unknown)?;
        plan::refuse_stranger(&table, &role::current_role())?;
        if reader(matview)?.is_none_or(|reader| !reader.is_materialized) {
            return Err(TenancyError::NoCopyOfProtected { view: table.name });
        }
        let column = tenant_column(matview, &table.name)?;
        let no_key = |found: &Column| TenancyError::WrongTenantType {
            table: table.name.clone(),
            column: column.clone(),
            found: found.shown_type.to_string(),
        };
        let found = table
            .column(&column)
            .ok_or_else(|| TenancyError::NoTenantColumn { table: table.name.clone(), column: column.clone() })?;
        let key = found.key().ok_or_else(|| no_key(found))?;
        let name = QualifiedName { schema: table.name.schema.clone(), name: name_for(&table.name.name)? };
        if relation(&name)?.is_some() {
            return Err(TenancyError::NameTaken { relation: name });
        }
        let create = Sql::text("CREATE VIEW ")
            .name(&name)
            .then(" WITH (security_barrier = true) AS SELECT ")
            .idents(table.columns.iter().map(|column| &column.name))
            .then(" FROM ")
            .name(&table.name)
            .then(" WHERE ")
            .ident(&column)
            .then(" = ")
            .then(policy::current(key));
        spi::own_work(|| spi::run(&create, &[]))?;
        let made =
            relation(&name)?.ok_or_else(|| TenancyError::Internal { what: format!("view {name} was not made") })?;
        let record = Sql::text("INSERT INTO tenancy_internal.tenant_views (view, matview) VALUES ($1, $2)");
        spi::as_extension_owner(|| spi::run(&record, &[made.into(), matview.into()]))?;
        Ok(made)
    })
}

/// The tenant column of the protected tables that a materialized view is filled from, as far as it has it.
fn tenant_column(matview: Oid, name: &QualifiedName) -> Result<Ident, TenancyError> {
    let sql = Sql::text(
        "SELECT t.tenant_column::text
           FROM tenancy_internal.protected_sources($1) AS s(relation)
           JOIN tenancy.protected_tables t ON t.relation = s.relation
           LEFT JOIN pg_catalog.pg_attribute a
             ON a.attrelid = $1 AND a.attname = t.tenant_column AND a.attnum > 0 AND NOT a.attisdropped
          ORDER BY a.attnum NULLS LAST LIMIT 1",
    );
    let columns = spi::as_extension_owner(|| spi::write(&sql, &[matview.into()], |row| row.must::<String>(1)))?;
    match columns.first() {
        Some(column) => Ident::new(column),
        None => Err(TenancyError::NoCopyOfProtected { view: name.clone() }),
    }
}

/// The name of the view for a materialized view, cut where it would be too long for a name.
fn name_for(matview: &Ident) -> Result<Ident, TenancyError> {
    const SUFFIX: &str = "_of_tenant";
    const MOST_BYTES: usize = 63;
    let mut name = String::new();
    for letter in matview.as_str().chars() {
        if name.len() + letter.len_utf8() + SUFFIX.len() > MOST_BYTES {
            break;
        }
        name.push(letter);
    }
    Ident::new(&(name + SUFFIX))
}

fn relation(name: &QualifiedName) -> Result<Option<Oid>, TenancyError> {
    let sql = Sql::text(
        "SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE n.nspname = $1::text AND c.relname = $2::text",
    );
    let arguments = [name.schema.as_str().into(), name.name.as_str().into()];
    Ok(spi::write(&sql, &arguments, |row| row.must::<Oid>(1))?.pop())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_views_name_fits_whatever_the_materialized_views_is() {
        let name = |name: &str| name_for(&Ident::new(name).unwrap()).unwrap().as_str().to_owned();
        assert_eq!(name("totals"), "totals_of_tenant");
        assert_eq!(name(&"x".repeat(63)).len(), 63);
        assert!(name(&"ü".repeat(31)).ends_with("üü_of_tenant"));
    }
}
