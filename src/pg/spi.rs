//! Statements sent to the server: reads, which standbys and parallel workers may run, and writes.

use super::guc::Backend;
use crate::error::TenancyError;
use crate::model::Sql;
use pgrx::prelude::*;
use pgrx::spi::{SpiClient, SpiError, SpiHeapTupleData, SpiTupleTable};
use pgrx::{AnyElement, PgOid, pg_sys};
use std::ffi::CStr;

pub use pgrx::datum::DatumWithOid;

/// A row of an answer; columns count from 1.
pub struct Row<'a>(SpiHeapTupleData<'a>);

impl Row<'_> {
    /// The value of a column, None when it is NULL.
    pub fn get<T: IntoDatum + FromDatum>(&self, column: usize) -> Result<Option<T>, TenancyError> {
        self.0.get(column).map_err(unexpected)
    }

    /// The value of a column that is never NULL.
    pub fn must<T: IntoDatum + FromDatum>(&self, column: usize) -> Result<T, TenancyError> {
        self.get(column)?
            .ok_or_else(|| TenancyError::Internal { what: format!("column {column} of an internal query is null") })
    }
}

/// Reads with the snapshot of the calling statement. Assigns no transaction id.
pub fn read<T>(
    sql: &Sql,
    args: &[DatumWithOid<'_>],
    row: impl FnMut(Row<'_>) -> Result<T, TenancyError>,
) -> Result<Vec<T>, TenancyError> {
    Spi::connect(|client: &SpiClient<'_>| collect(client.select(sql.as_str(), None, args), row))
}

/// Which changes a read sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshot {
    /// Those before the calling statement. Assigns no transaction id.
    Statement,
    /// Also those the calling function made.
    Latest,
}

/// Reads with the snapshot asked for.
pub fn read_in<T>(
    snapshot: Snapshot,
    sql: &Sql,
    args: &[DatumWithOid<'_>],
    row: impl FnMut(Row<'_>) -> Result<T, TenancyError>,
) -> Result<Vec<T>, TenancyError> {
    match snapshot {
        Snapshot::Statement => read(sql, args, row),
        Snapshot::Latest => write(sql, args, row),
    }
}

/// Runs a statement that may change data, and gives the rows it returns; sees what this command did before.
pub fn write<T>(
    sql: &Sql,
    args: &[DatumWithOid<'_>],
    row: impl FnMut(Row<'_>) -> Result<T, TenancyError>,
) -> Result<Vec<T>, TenancyError> {
    // SAFETY: reads a variable of the backend.
    if !unsafe { pg_sys::XactReadOnly } {
        return Spi::connect_mut(|client| collect(client.update(sql.as_str(), None, args), row));
    }
    // On a standby there are no transaction ids, and pgrx' update takes one before anybody looks at the statement. PostgreSQL
    // knows which statements such a transaction may run.
    let types: Vec<PgOid> = args.iter().map(|argument| PgOid::from(argument.oid())).collect();
    Spi::connect(|client| {
        let statement = client.prepare_mut(sql.as_str(), &types).map_err(unexpected)?;
        collect(client.select(&statement, None, args), row)
    })
}

/// Runs a statement for its effect.
pub fn run(sql: &Sql, args: &[DatumWithOid<'_>]) -> Result<(), TenancyError> {
    write(sql, args, |_| Ok(())).map(drop)
}

/// The rows of an answer.
pub(super) fn collect<'a, T>(
    answer: Result<SpiTupleTable<'a>, SpiError>,
    mut row: impl FnMut(Row<'_>) -> Result<T, TenancyError>,
) -> Result<Vec<T>, TenancyError> {
    let table = answer.map_err(unexpected)?;
    let mut rows = Vec::new();
    // A utility statement leaves no tuples behind, yet its table counts what it processed.
    if table.columns().is_ok() {
        for tuple in table {
            rows.push(row(Row(tuple))?);
        }
    }
    Ok(rows)
}

pub(super) fn unexpected(error: SpiError) -> TenancyError {
    TenancyError::Internal { what: format!("an internal statement failed: {error}") }
}

const PINNED_PATH: (&CStr, &CStr) = (c"search_path", c"pg_catalog, pg_temp");
const ALL_ROWS: (&CStr, &CStr) = (c"row_security", c"off");
/// A query of a millisecond on catalogs is not worth a hundred of compilation, which the planner's estimates call for.
const INTERPRETED: (&CStr, &CStr) = (c"jit", c"off");

/// Runs `work` so that no object in the caller's search_path is met, and rows that row security would hide are an
/// error rather than missing.
pub fn undisturbed<T>(work: impl FnOnce() -> T) -> T {
    with_settings(&[PINNED_PATH, ALL_ROWS, INTERPRETED], work)
}

/// Runs `work` so that no object in the caller's search_path is met.
pub fn with_catalog_names<T>(work: impl FnOnce() -> T) -> T {
    with_settings(&[PINNED_PATH, INTERPRETED], work)
}

/// Runs `work` with settings in force that end with it, and with them all that is set in it, on error too (the transaction's abort
/// restores them). Code of users may run in it, and say SET.
fn with_settings<T>(settings: &[(&CStr, &CStr)], work: impl FnOnce() -> T) -> T {
    // SAFETY: the nest level taken here is given back below; on error the abort unwinds it.
    let level = unsafe { pg_sys::NewGUCNestLevel() };
    for (name, value) in settings {
        // SAFETY: C strings; guc.c copies them.
        unsafe {
            pg_sys::set_config_option(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
        }
    }
    let result = work();
    // SAFETY: see above. Not committed: what was set inside would outlive the level.
    unsafe { pg_sys::AtEOXact_GUC(false, level) };
    result
}

/// The role that owns the extension.
pub fn extension_owner() -> Result<pg_sys::Oid, TenancyError> {
    let sql = Sql::text("SELECT extowner FROM pg_catalog.pg_extension WHERE extname = 'pg_tenancy'");
    let owners = read(&sql, &[], |row| row.must::<pg_sys::Oid>(1))?;
    owners.first().copied().ok_or(TenancyError::NotInstalled)
}

/// Runs `work` with the rights of the extension's owner, for the private tables, which no other role may touch; no
/// object in the caller's search_path is met.
pub fn as_extension_owner<T>(work: impl FnOnce() -> Result<T, TenancyError>) -> Result<T, TenancyError> {
    with_catalog_names(|| as_owner(work))
}

fn as_owner<T>(work: impl FnOnce() -> Result<T, TenancyError>) -> Result<T, TenancyError> {
    let owner = extension_owner()?;
    as_role(owner, work)
}

/// Runs `work` with the rights of `role`.
pub fn as_role<T>(role: pg_sys::Oid, work: impl FnOnce() -> T) -> T {
    with_rights(role, pg_sys::SECURITY_LOCAL_USERID_CHANGE, work)
}

/// Calls one of our functions (text, text, boolean) -> text with the rights of `role`, which nothing that it runs can leave:
/// no SET ROLE, no RESET ROLE. With `session`, the role's name, as if it had logged in.
pub fn call_confined(
    function: pg_sys::Oid,
    role: pg_sys::Oid,
    session: Option<&CStr>,
    arguments: (&str, &str, bool),
) -> Option<String> {
    let flags = pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION;
    let (first, second, third) = arguments;
    let call = || {
        with_rights(role, flags, || {
            let (first, second) = (first.into_datum()?, second.into_datum()?);
            // SAFETY: the function has these arguments and gives a text; the callers look it up by its signature.
            unsafe {
                let answer = pg_sys::OidFunctionCall3Coll(
                    function,
                    pg_sys::InvalidOid,
                    first,
                    second,
                    pg_sys::Datum::from(third),
                );
                String::from_datum(answer, false)
            }
        })
    };
    match session {
        Some(name) => with_settings(&[(c"session_authorization", name)], call),
        None => with_settings(&[], call),
    }
}

/// Runs `work` with the rights of `role`, and more security flags.
pub(super) fn with_rights<T>(role: pg_sys::Oid, flags: u32, work: impl FnOnce() -> T) -> T {
    let (mut before, mut security) = (pg_sys::InvalidOid, 0);
    // SAFETY: plain reads and writes of backend variables; an error's abort restores them.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&mut before, &mut security);
        pg_sys::SetUserIdAndSecContext(role, security | flags as i32);
    }
    let result = work();
    // SAFETY: puts back what was read above.
    unsafe { pg_sys::SetUserIdAndSecContext(before, security) };
    result
}

/// Binds a `jsonb` value as it came: it is never parsed here, which would lose digits.
pub fn jsonb(value: Option<AnyElement>) -> DatumWithOid<'static> {
    match value {
        // SAFETY: the SQL signature of every door that takes one says jsonb.
        Some(value) => unsafe { DatumWithOid::new(value.datum(), pg_sys::JSONBOID) },
        None => DatumWithOid::null_oid(pg_sys::JSONBOID),
    }
}

/// The elements of a value of type `name[]`.
pub fn names(value: AnyElement) -> Result<Vec<Option<String>>, TenancyError> {
    let sql = Sql::text("SELECT pg_catalog.unnest($1)::pg_catalog.text");
    // SAFETY: the SQL signature of every door that takes one says name[].
    let value = unsafe { DatumWithOid::new(value.datum(), pg_sys::NAMEARRAYOID) };
    read(&sql, &[value], |row| row.get(1))
}

/// Sends a NOTICE.
pub fn notice(message: &str) {
    pgrx::notice!("{message}");
}

/// Sends a WARNING: what `error` would refuse is let pass.
pub fn warn(error: &TenancyError) {
    super::report::warn(error);
}

/// The server's version, as `server_version_num`: 150020 for 15.20.
pub fn server_version() -> i32 {
    // SAFETY: a constant string of the server.
    let shown = unsafe { pg_sys::GetConfigOption(c"server_version_num".as_ptr(), true, false) };
    // SAFETY: a C string, or NULL for an unknown setting.
    let text = unsafe { if shown.is_null() { c"" } else { CStr::from_ptr(shown) } };
    text.to_string_lossy().parse().unwrap_or(0)
}

/// Our own functions are at work on users' tables: guard and fence let it pass.
static OWN_WORK: Backend<bool> = Backend::new(false);

/// Runs `work` as work of our own functions, which guard and fence let pass.
pub fn own_work<T>(work: impl FnOnce() -> T) -> T {
    marked(true, work)
}

/// Runs `work`, in which code of users may run: guard and fence are on the watch again.
pub(super) fn not_own_work<T>(work: impl FnOnce() -> T) -> T {
    marked(false, work)
}

fn marked<T>(is_own: bool, work: impl FnOnce() -> T) -> T {
    /// Puts the mark back on return and on error alike.
    struct Mark(bool);
    impl Drop for Mark {
        fn drop(&mut self) {
            OWN_WORK.set(self.0);
        }
    }
    let _mark = Mark(OWN_WORK.get());
    OWN_WORK.set(is_own);
    work()
}

/// Whether `own_work` is going on.
pub fn is_own_work() -> bool {
    OWN_WORK.get()
}
