//! The seam to PostgreSQL: the only home of `unsafe`, `Spi`, `pg_sys` and version switches.

pub mod audit;
mod bindings;
pub mod cache;
mod compat;
pub mod concern;
pub mod context;
mod deferred;
pub mod deleted;
pub mod event;
pub mod exempt;
pub mod guc;
pub mod hooks;
pub mod hush;
pub mod invalid;
pub mod json;
pub mod locked_down;
pub mod mute;
pub mod nesting;
pub mod planner;
pub mod policies;
pub mod protected;
pub mod rehearsal;
pub mod report;
pub mod role;
pub mod rows;
pub mod session;
pub mod settings;
pub mod signing;
pub mod spi;
pub mod strangers;
mod table;
pub mod table_work;
mod tag;
pub mod tally;
#[cfg(any(test, feature = "pg_test"))]
pub mod tests;
pub mod trigger;
pub mod turn;
pub mod violations;
pub mod watched;

use crate::error::TenancyError;
use crate::model::{Ident, Key, QualifiedName};
use pgrx::PgRelation;

/// The oid of a relation or role, as doors take it for `regclass` and `regrole`.
pub type Oid = pgrx::pg_sys::Oid;
/// Where a row lies in its table: `tid`.
pub type Place = pgrx::pg_sys::ItemPointerData;

/// Refuses a NULL argument; doors take `Option` so that no guard turns STRICT (PGRX.md, section 1).
pub fn given<T>(argument: &'static str, value: Option<T>) -> Result<T, TenancyError> {
    value.ok_or(TenancyError::MissingArgument { argument })
}

/// Refuses NULL for the table that a door is about, and code of others with the rights of a superuser or an administrator who calls:
/// nobody looks at a user's table but through here.
pub fn on_table<T>(target: Option<Oid>, work: impl FnOnce(Oid) -> Result<T, TenancyError>) -> Result<T, TenancyError> {
    on_relation("target", target, work)
}

/// The same for an argument of another name.
pub fn on_relation<T>(
    argument: &'static str,
    relation: Option<Oid>,
    work: impl FnOnce(Oid) -> Result<T, TenancyError>,
) -> Result<T, TenancyError> {
    let relation = given(argument, relation)?;
    strangers::at_door(|| work(relation))
}

/// The name that an argument of type `name` gives.
pub fn ident(argument: &'static str, value: Option<&std::ffi::CStr>) -> Result<Ident, TenancyError> {
    Ident::new(&given(argument, value)?.to_string_lossy())
}

/// The key that a tenant argument names.
pub fn tenant_key(tenant: Option<&str>) -> Result<Key, TenancyError> {
    given("tenant", tenant)?.parse()
}

/// The name of an open relation.
pub fn qualified_name(relation: &PgRelation) -> Result<QualifiedName, TenancyError> {
    Ok(QualifiedName { schema: Ident::new(relation.namespace())?, name: Ident::new(relation.name())? })
}
