//! Reads the log for a tenant, and undoes what it tells of.

use super::plan::{self, Fate, RowColumn, Rows, Unfit};
use super::store;
use crate::error::{AuditError, TenancyError};
use crate::model::{Ident, QualifiedName, Sql};
use crate::pg::role::Right;
use crate::pg::{Oid, cache, json, rehearsal, role, spi, table_work, tenant_key};
use pgrx::AnyElement;
use pgrx::datum::TimestampWithTimeZone;
use std::collections::HashMap;
use std::rc::Rc;
use uuid::Uuid;

/// A version of a row, as an entry tells of it.
pub struct Version {
    pub id: i64,
    pub occurred_at: TimestampWithTimeZone,
    pub action: String,
    pub row_key: Option<AnyElement>,
    pub changed: Option<Vec<String>>,
    pub old: Option<AnyElement>,
    pub new: Option<AnyElement>,
    pub actor: Option<String>,
    pub session_role: Option<String>,
    pub transaction: i64,
}

/// Something that was done for a tenant.
pub struct Activity {
    pub occurred_at: TimestampWithTimeZone,
    pub transaction: i64,
    pub table_name: Option<String>,
    pub action: String,
    pub rows: i64,
    pub actor: Option<String>,
    pub session_role: Option<String>,
    pub client: Option<String>,
}

/// What becomes of an entry of a transaction that is reverted.
pub struct Undone {
    pub entry: i64,
    pub table_name: String,
    pub row_key: Option<AnyElement>,
    pub action: &'static str,
    pub outcome: &'static str,
}

fn bound(tenant: Option<Uuid>) -> Option<pgrx::Uuid> {
    tenant.map(|tenant| pgrx::Uuid::from_bytes(*tenant.as_bytes()))
}

/// A value of type `jsonb` that came as text.
fn json_of(text: Option<String>) -> Result<Option<AnyElement>, TenancyError> {
    text.map(|text| json::parsed(&text)).transpose()
}

/// What the log has of a row, newest last.
pub fn row_history(target: Oid, key: AnyElement) -> Result<Vec<Version>, TenancyError> {
    let tenant = store::readable_tenant()?;
    keyed(target, key)?;
    let sql = Sql::text(
        "SELECT e.id, e.occurred_at, e.action, e.row_key::text, e.changed_columns, e.old_values::text, e.new_values::text,
                e.actor, e.session_role, e.transaction_id
           FROM tenancy_internal.row_entries($1, $2, $3) WITH ORDINALITY AS e
          ORDER BY e.ordinality DESC",
    );
    type Texts = (Option<String>, Option<String>, Option<String>);
    let rows: Vec<(Version, Texts)> = spi::as_extension_owner(|| {
        spi::read(&sql, &[target.into(), spi::jsonb(Some(key)), bound(tenant).into()], |row| {
            let version = Version {
                id: row.must(1)?,
                occurred_at: row.must(2)?,
                action: row.must(3)?,
                row_key: None,
                changed: row.get(5)?,
                old: None,
                new: None,
                actor: row.get(8)?,
                session_role: row.get(9)?,
                transaction: row.must(10)?,
            };
            Ok((version, (row.get(4)?, row.get(6)?, row.get(7)?)))
        })
    })?;
    let whole = |(version, (row_key, old, new)): (Version, Texts)| {
        Ok(Version { row_key: json_of(row_key)?, old: json_of(old)?, new: json_of(new)?, ..version })
    };
    rows.into_iter().map(whole).collect()
}

/// A table with a key, whose rows the current role may read.
fn keyed(target: Oid, key: AnyElement) -> Result<Rows, TenancyError> {
    let rows = store::rows_of(target, spi::Snapshot::Statement)?;
    if !role::may(Right::Select, target) {
        return Err(AuditError::NoSelect { table: rows.name, role: role::current_role() }.into());
    }
    if rows.key().next().is_none() {
        return Err(AuditError::NoKey { table: rows.name.clone() }.into());
    }
    if !names_a_row(&rows, key) {
        let columns = rows.key().map(|column| column.name.as_str().to_owned()).collect();
        return Err(AuditError::NotAKey { table: rows.name.clone(), columns }.into());
    }
    Ok(rows)
}

/// Whether an object has a value for each column of the key.
fn names_a_row(rows: &Rows, key: AnyElement) -> bool {
    rows.key().all(|column| json::has_field(key, column.name.as_str()))
}

/// `pg_catalog.jsonb_to_record(parameter) AS alias (columns)`: the types are those under domains, so that no CHECK of a
/// user's is met. Only within a user's composite type one still is.
fn record<'a>(
    sql: Sql,
    parameter: &'static str,
    alias: &'static str,
    columns: impl Iterator<Item = &'a RowColumn>,
) -> Sql {
    let mut sql = sql.then("pg_catalog.jsonb_to_record(").then(parameter).then(") AS ").then(alias);
    for (at, column) in columns.enumerate() {
        sql = sql.then(if at > 0 { ", " } else { " (" }).ident(&column.name).then(" ").name(&column.base);
    }
    sql.then(")")
}

/// `t.key = k.key AND ...`. A key of a type that PostgreSQL's own operators cannot compare is an error.
fn same_key(mut sql: Sql, rows: &Rows) -> Sql {
    for (at, column) in rows.key().enumerate() {
        sql = sql.then(if at > 0 { " AND t." } else { "t." }).ident(&column.name);
        sql = sql.then(" OPERATOR(pg_catalog.=) k.").ident(&column.name);
    }
    sql
}

/// `FROM table AS t, (the key as a row) AS k WHERE t.key = k.key`, the key being the first parameter.
fn found_by_key(sql: Sql, rows: &Rows) -> Sql {
    let sql = record(sql.then(" FROM ").name(&rows.name).then(" AS t, "), "$1", "k", rows.key());
    same_key(sql.then(" WHERE "), rows)
}

/// A row as it was at a time; None where there was none.
pub fn row_as_of(target: Oid, key: AnyElement, at: TimestampWithTimeZone) -> Result<Option<AnyElement>, TenancyError> {
    let tenant = store::readable_tenant()?;
    let rows = keyed(target, key)?;
    let present = found_by_key(Sql::text("SELECT pg_catalog.to_jsonb(t)::pg_catalog.text, t.tableoid"), &rows);
    let present = spi::with_catalog_names(|| {
        spi::read(&present, &[spi::jsonb(Some(key))], |row| Ok((row.must::<String>(1)?, row.must::<Oid>(2)?)))
    })?;
    let (present, present_in) = present.into_iter().next().unzip();
    let present = json_of(present)?;
    let sql = Sql::text("SELECT tenancy_internal.row_at($1, $2, $3, $4, $5, $6)::pg_catalog.text");
    let arguments =
        [target.into(), spi::jsonb(Some(key)), bound(tenant).into(), spi::jsonb(present), present_in.into(), at.into()];
    let was = spi::as_extension_owner(|| spi::read(&sql, &arguments, |row| row.get::<String>(1)))?;
    json_of(was.into_iter().flatten().next())
}

/// What was done for a tenant since a time, newest first; the current one where none is named.
pub fn tenant_activity(tenant: Option<&str>, since: TimestampWithTimeZone) -> Result<Vec<Activity>, TenancyError> {
    let mine = store::readable_tenant()?;
    let wanted = match tenant {
        Some(text) => {
            let key = tenant_key(Some(text))?;
            let found = cache::find(&key)?.ok_or_else(|| TenancyError::UnknownTenant { tenant: key.to_string() })?;
            if let Some(mine) = mine.filter(|mine| *mine != found.id) {
                return Err(TenancyError::OtherTenant { expected: key.to_string(), current: mine.to_string() });
            }
            found.id
        }
        None => mine.ok_or(TenancyError::MissingArgument { argument: "tenant" })?,
    };
    let sql = Sql::text(
        "SELECT pg_catalog.max(c.occurred_at), c.transaction_id, COALESCE(l.name, c.entity),
                CASE c.action WHEN 'I' THEN 'INSERT' WHEN 'U' THEN 'UPDATE' WHEN 'D' THEN 'DELETE' ELSE c.event END,
                pg_catalog.sum(c.row_count)::bigint, c.actor, c.session_role, c.client
           FROM tenancy_internal.audit_chunks c LEFT JOIN tenancy_internal.audit_layouts l ON l.id = c.layout
          WHERE c.tenant_id = $1 AND c.occurred_at >= $2
          GROUP BY 2, 3, 4, 6, 7, 8
          ORDER BY 1 DESC, 3, 4",
    );
    spi::as_extension_owner(|| {
        spi::read(&sql, &[bound(Some(wanted)).into(), since.into()], |row| {
            Ok(Activity {
                occurred_at: row.must(1)?,
                transaction: row.must(2)?,
                table_name: row.get(3)?,
                action: row.must(4)?,
                rows: row.must(5)?,
                actor: row.get(6)?,
                session_role: row.get(7)?,
                client: row.get(8)?,
            })
        })
    })
}

/// An entry to be undone.
#[derive(Clone)]
struct Entry {
    id: i64,
    transaction: i64,
    occurred_at: TimestampWithTimeZone,
    relation: Oid,
    /// Which of the table's versions the columns are those of.
    version: i32,
    table_name: String,
    action: String,
    command: i32,
    row_key: Option<String>,
    old: Option<String>,
    new: Option<String>,
    changed: Vec<String>,
    redacted: bool,
}

/// Undoes what a transaction did to rows of the current tenant, last things first.
pub fn revert(transaction: i64, dry_run: bool) -> Result<Vec<Undone>, TenancyError> {
    let tenant = crate::pg::context::tenant()?.id;
    let mut entries = entries_of(transaction, tenant)?;
    if entries.is_empty() {
        return Err(AuditError::NoSuchTransaction { transaction }.into());
    }
    // Within a statement rows came before rows that refer to them went: what it made is undone backwards, what a cascade
    // took along forwards.
    entries.sort_by_key(|entry| {
        let is_insert = entry.action == "INSERT";
        (-i64::from(entry.command), !is_insert, if is_insert { -entry.id } else { entry.id })
    });
    if dry_run {
        return rehearsal::rehearse(|| undo_all(&entries)).and_then(|outcomes| told(outcomes, true));
    }
    let outcomes = undo_all(&entries)?;
    let conflicts: Vec<_> = outcomes.iter().filter(|(_, outcome)| outcome.is_conflict()).collect();
    if let Some((entry, outcome)) = conflicts.first() {
        let key = entry.row_key.as_deref().unwrap_or("without a key");
        let first = format!("{} {} {key}: {}.", entry.table_name, entry.action, outcome.shown());
        return Err(AuditError::RevertConflicts { transaction, conflicts: conflicts.len(), first }.into());
    }
    told(outcomes, false)
}

fn told(outcomes: Vec<(&Entry, Outcome)>, dry_run: bool) -> Result<Vec<Undone>, TenancyError> {
    let told = |(entry, outcome): (&Entry, Outcome)| {
        Ok(Undone {
            entry: entry.id,
            table_name: entry.table_name.clone(),
            row_key: json_of(entry.row_key.clone())?,
            action: match entry.action.as_str() {
                "INSERT" => "DELETE",
                "DELETE" => "INSERT",
                _ => "UPDATE",
            },
            outcome: if dry_run { outcome.foreseen() } else { outcome.shown() },
        })
    };
    outcomes.into_iter().map(told).collect()
}

/// What came of undoing an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Undone,
    Already,
    Gone,
    Changed,
    Exists,
    Referred,
    NotKept,
    Altered,
    NoTable,
}

impl Outcome {
    fn is_conflict(self) -> bool {
        !matches!(self, Self::Undone | Self::Already)
    }

    /// What it is called before it is done.
    fn foreseen(self) -> &'static str {
        match self {
            Self::Undone => "would be undone",
            other => other.shown(),
        }
    }

    fn shown(self) -> &'static str {
        match self {
            Self::Undone => "undone",
            Self::Already => "is so already",
            Self::Gone => "conflict: the row is gone",
            Self::Changed => "conflict: the row was changed since",
            Self::Exists => "conflict: a row with this key exists",
            Self::Referred => "conflict: rows that refer to it would go or change with it",
            Self::NotKept => "conflict: the log does not have the values",
            Self::Altered => "conflict: a column's type, or the key, was altered since",
            Self::NoTable => "conflict: the table is gone or has no key now",
        }
    }
}

fn entries_of(transaction: i64, tenant: Uuid) -> Result<Vec<Entry>, TenancyError> {
    let sql = Sql::text(
        "SELECT e.id, e.relation::pg_catalog.oid, e.table_name, e.action, e.command, e.row_key::text, e.old_values::text,
                e.new_values::text,
                EXISTS (SELECT FROM tenancy_internal.audit_layouts l, pg_catalog.jsonb_array_elements(l.columns) AS c
                         WHERE l.id = e.layout AND c -> 'redacted' IS NOT NULL
                           AND (e.action <> 'UPDATE' OR c ->> 'name' = ANY (e.changed_columns))),
                COALESCE(e.changed_columns, '{}'), e.transaction_id,
                COALESCE((SELECT pg_catalog.max(v.number) FROM tenancy_internal.audited_columns v
                           WHERE v.relation = e.relation AND v.since <= e.occurred_at), 0),
                e.occurred_at
           FROM tenancy_internal.audit_entries e
          WHERE e.transaction_id = $1 AND e.tenant_id = $2 AND e.layout IS NOT NULL",
    );
    spi::as_extension_owner(|| {
        spi::read(&sql, &[transaction.into(), bound(Some(tenant)).into()], |row| {
            Ok(Entry {
                id: row.must(1)?,
                relation: row.must(2)?,
                table_name: row.must(3)?,
                action: row.must(4)?,
                command: row.must(5)?,
                row_key: row.get(6)?,
                old: row.get(7)?,
                new: row.get(8)?,
                redacted: row.must(9)?,
                changed: row.must(10)?,
                transaction: row.must(11)?,
                version: row.must(12)?,
                occurred_at: row.must(13)?,
            })
        })
    })
}

/// A table that refers to another, and pairs of its columns and those referred to.
type Reference = (QualifiedName, Vec<(Ident, Ident)>);

/// A table as undoing looks at it.
struct Target {
    rows: Rows,
    /// What became of the columns of each of its versions.
    fates: HashMap<i32, Vec<Fate>>,
    /// Rows of these would be deleted or changed with its own.
    referring: Vec<Reference>,
    ignores: bool,
}

impl Target {
    /// Columns that values can be written to.
    fn writable(&self) -> impl Iterator<Item = &RowColumn> {
        self.rows.columns.iter().filter(|column| !column.is_generated)
    }
}

fn undo_all(entries: &[Entry]) -> Result<Vec<(&Entry, Outcome)>, TenancyError> {
    let mut targets: HashMap<u32, Option<Rc<Target>>> = HashMap::new();
    let mut outcomes = Vec::new();
    for entry in entries {
        let target = match targets.get(&entry.relation.to_u32()) {
            Some(target) => target.clone(),
            None => {
                let target = describe(entry.relation)?.map(Rc::new);
                targets.insert(entry.relation.to_u32(), target.clone());
                target
            }
        };
        let outcome = match target {
            Some(target) if target.rows.key().next().is_some() => spi::with_catalog_names(|| undo(entry, &target))?,
            _ => Outcome::NoTable,
        };
        outcomes.push((entry, outcome));
    }
    Ok(outcomes)
}

fn describe(relation: Oid) -> Result<Option<Target>, TenancyError> {
    let rows = match store::rows_of(relation, spi::Snapshot::Latest) {
        Err(TenancyError::UnknownRelation { .. }) => return Ok(None),
        rows => rows?,
    };
    let ignores = store::recorded(relation)?.is_some_and(|(_, request)| !request.ignored.is_empty());
    Ok(Some(Target { referring: referring(relation)?, fates: fates(relation)?, rows, ignores }))
}

fn fates(relation: Oid) -> Result<HashMap<i32, Vec<Fate>>, TenancyError> {
    let sql = Sql::text(
        "SELECT c.number, c.name, c.now, c.is_redone, c.is_replaced FROM tenancy_internal.columns_since($1) c",
    );
    let found = spi::as_extension_owner(|| {
        spi::write(&sql, &[relation.into()], |row| {
            let fate =
                Fate { name: row.must(2)?, now: row.get(3)?, is_redone: row.must(4)?, is_replaced: row.must(5)? };
            Ok((row.must::<i32>(1)?, fate))
        })
    })?;
    let mut fates: HashMap<i32, Vec<Fate>> = HashMap::new();
    for (version, fate) in found {
        fates.entry(version).or_default().push(fate);
    }
    Ok(fates)
}

fn referring(relation: Oid) -> Result<Vec<Reference>, TenancyError> {
    let sql = Sql::text(
        "SELECT n.nspname::text, c.relname::text,
                ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(k.conkey) WITH ORDINALITY AS u(number, place)
                        JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.number ORDER BY u.place),
                ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(k.confkey) WITH ORDINALITY AS u(number, place)
                        JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.number ORDER BY u.place)
           FROM pg_catalog.pg_constraint k
           JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE k.contype = 'f' AND k.conparentid = 0 AND k.confrelid = $1 AND k.confdeltype IN ('c', 'n', 'd')",
    );
    let idents = |names: Vec<String>| names.iter().map(|name| Ident::new(name)).collect::<Result<Vec<_>, _>>();
    spi::with_catalog_names(|| {
        spi::read(&sql, &[relation.into()], |row| {
            let name = QualifiedName {
                schema: Ident::new(&row.must::<String>(1)?)?,
                name: Ident::new(&row.must::<String>(2)?)?,
            };
            let pairs = idents(row.must(3)?)?.into_iter().zip(idents(row.must(4)?)?).collect();
            Ok((name, pairs))
        })
    })
}

fn undo(entry: &Entry, target: &Target) -> Result<Outcome, TenancyError> {
    let (old, new) = (json_of(entry.old.clone())?, json_of(entry.new.clone())?);
    if entry.redacted && entry.action != "INSERT"
        || target.ignores && entry.action == "DELETE"
        || entry.row_key.is_none()
        || match entry.action.as_str() {
            "INSERT" => new.is_none(),
            "DELETE" => old.is_none(),
            _ => old.is_none() || new.is_none(),
        }
    {
        return Ok(Outcome::NotKept);
    }
    let Some(fates) = target.fates.get(&entry.version) else { return Ok(Outcome::Altered) };
    let changed = (entry.action == "UPDATE").then_some(&entry.changed[..]);
    let image = if entry.action == "INSERT" { new } else { old };
    let holds = |name: &str| image.is_some_and(|image| json::has_field(image, name));
    let names = match plan::translate(fates, &target.rows, changed, entry.action == "DELETE", holds) {
        Ok(names) => names,
        Err(Unfit::Altered) => return Ok(Outcome::Altered),
        Err(Unfit::Dropped) => return Ok(Outcome::NotKept),
    };
    let entry = &in_present_names(entry, &names)?;
    if !json_of(entry.row_key.clone())?.is_some_and(|key| names_a_row(&target.rows, key)) {
        return Ok(Outcome::Altered);
    }
    match entry.action.as_str() {
        "INSERT" if is_changed_elsewhere(entry, target, fates)? => Ok(Outcome::Changed),
        "INSERT" => undo_insert(entry, target),
        "DELETE" => undo_delete(entry, target),
        _ => undo_update(entry, target),
    }
}

/// An entry with its columns called what they are called now, without those that are gone.
fn in_present_names(entry: &Entry, names: &[(&str, &str)]) -> Result<Entry, TenancyError> {
    let sql = Sql::text(
        "SELECT COALESCE(pg_catalog.jsonb_object_agg(n.now, v.value), '{}')::pg_catalog.text
           FROM pg_catalog.jsonb_each($1::pg_catalog.jsonb) AS v
           JOIN ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3)) AS n(name, now)
             ON n.name OPERATOR(pg_catalog.=) v.key",
    );
    let (then, now): (Vec<String>, Vec<String>) =
        names.iter().map(|(then, now)| ((*then).to_owned(), (*now).to_owned())).unzip();
    let renamed = |object: &Option<String>| -> Result<Option<String>, TenancyError> {
        if object.is_none() {
            return Ok(None);
        }
        let arguments = [text(object), then.clone().into(), now.clone().into()];
        Ok(spi::read(&sql, &arguments, |row| row.get::<String>(1))?.into_iter().flatten().next())
    };
    let name_now = |name: &String| names.iter().find(|(then, _)| then == name).map(|(_, now)| (*now).to_owned());
    Ok(Entry {
        row_key: renamed(&entry.row_key)?,
        old: renamed(&entry.old)?,
        new: renamed(&entry.new)?,
        changed: entry.changed.iter().filter_map(name_now).collect(),
        ..entry.clone()
    })
}

/// Whether a row that was inserted has been changed in a column that it did not have then.
fn is_changed_elsewhere(entry: &Entry, target: &Target, fates: &[Fate]) -> Result<bool, TenancyError> {
    let is_new = |column: &RowColumn| !fates.iter().any(|fate| fate.now.as_deref() == Some(column.name.as_str()));
    if !target.rows.columns.iter().any(is_new) {
        return Ok(false);
    }
    let sql = Sql::text(
        "SELECT EXISTS (SELECT FROM tenancy_internal.row_entries($1, $2, $3) e
                         WHERE e.transaction_id OPERATOR(pg_catalog.<>) $4 AND e.occurred_at OPERATOR(pg_catalog.>) $5
                           AND NOT e.changed_columns OPERATOR(pg_catalog.<@) $6)",
    );
    let tenant = crate::pg::context::tenant()?.id;
    // Later entries have names of their own time: only one that never changed is surely that of a column of then.
    let is_as_then = |fate: &&Fate| fate.now.as_ref() == Some(&fate.name);
    let arguments = [
        entry.relation.into(),
        spi::jsonb(json_of(entry.row_key.clone())?),
        bound(Some(tenant)).into(),
        entry.transaction.into(),
        entry.occurred_at.into(),
        fates.iter().filter(is_as_then).map(|fate| fate.name.clone()).collect::<Vec<_>>().into(),
    ];
    let found = spi::as_extension_owner(|| spi::read(&sql, &arguments, |row| row.must::<bool>(1)))?;
    Ok(found.contains(&true))
}

fn text(value: &Option<String>) -> crate::pg::spi::DatumWithOid<'_> {
    value.as_deref().into()
}

/// Whether the row that the first parameter names has the values of the second, and those of the third; None where there
/// is no such row. Locks it. A user's type may have a cast to json of his own, which then makes the value.
fn compare(
    target: &Target,
    key: &Option<String>,
    new: &Option<String>,
    old: &Option<String>,
) -> Result<Option<(bool, bool)>, TenancyError> {
    let sql = Sql::text(
        "SELECT NOT EXISTS (SELECT FROM pg_catalog.jsonb_each($2::pg_catalog.jsonb) AS n
                             WHERE n.value OPERATOR(pg_catalog.<>) '\"[redacted]\"'
                               AND COALESCE(pg_catalog.to_jsonb(t) OPERATOR(pg_catalog.->) n.key
                                            OPERATOR(pg_catalog.<>) n.value, true)),
                NOT EXISTS (SELECT FROM pg_catalog.jsonb_each($3::pg_catalog.jsonb) AS o
                             WHERE COALESCE(pg_catalog.to_jsonb(t) OPERATOR(pg_catalog.->) o.key
                                            OPERATOR(pg_catalog.<>) o.value, true))",
    );
    let sql = found_by_key(sql, &target.rows).then(" FOR UPDATE OF t");
    let key = spi::jsonb(json_of(key.clone())?);
    let found = spi::write(&sql, &[key, text(new), text(old)], |row| Ok((row.must(1)?, row.must(2)?)))?;
    Ok(found.into_iter().next())
}

fn undo_insert(entry: &Entry, target: &Target) -> Result<Outcome, TenancyError> {
    match compare(target, &entry.row_key, &entry.new, &None)? {
        None => return Ok(Outcome::Already),
        Some((false, _)) => return Ok(Outcome::Changed),
        Some((true, _)) => {}
    }
    let key = || json_of(entry.row_key.clone()).map(spi::jsonb);
    for (child, pairs) in &target.referring {
        let mut exists = Sql::text("SELECT EXISTS (SELECT FROM ").name(child).then(" AS c WHERE ");
        for (at, (column, parent)) in pairs.iter().enumerate() {
            exists = exists.then(if at > 0 { " AND c." } else { "c." }).ident(column);
            exists = exists.then(" OPERATOR(pg_catalog.=) t.").ident(parent);
        }
        let sql = found_by_key(exists.then(")"), &target.rows);
        if spi::write(&sql, &[key()?], |row| row.must::<bool>(1))?.contains(&true) {
            return Ok(Outcome::Referred);
        }
    }
    let sql = Sql::text("DELETE FROM ").name(&target.rows.name).then(" AS t USING ");
    let sql = same_key(record(sql, "$1", "k", target.rows.key()).then(" WHERE "), &target.rows);
    done(entry, Right::Delete, &sql.then(" RETURNING true"), &[key()?])
}

fn undo_delete(entry: &Entry, target: &Target) -> Result<Outcome, TenancyError> {
    match compare(target, &entry.row_key, &None, &entry.old)? {
        Some((_, true)) => return Ok(Outcome::Already),
        Some((_, false)) => return Ok(Outcome::Exists),
        None => {}
    }
    let Some(old) = json_of(entry.old.clone())? else { return Ok(Outcome::NotKept) };
    let columns: Vec<&RowColumn> =
        target.writable().filter(|column| json::has_field(old, column.name.as_str())).collect();
    let names = || columns.iter().map(|column| &column.name);
    let sql = Sql::text("INSERT INTO ").name(&target.rows.name).then(" (").idents(names());
    let sql = sql.then(") OVERRIDING SYSTEM VALUE SELECT ").idents(names()).then(" FROM ");
    let sql = record(sql, "$1", "o", columns.iter().copied());
    done(entry, Right::Insert, &sql.then(" RETURNING true"), &[spi::jsonb(Some(old))])
}

fn undo_update(entry: &Entry, target: &Target) -> Result<Outcome, TenancyError> {
    // The row may have got another key.
    let merged = Sql::text("SELECT ($1::pg_catalog.jsonb || $2::pg_catalog.jsonb)::pg_catalog.text");
    let now = spi::read(&merged, &[text(&entry.row_key), text(&entry.new)], |row| row.get::<String>(1))?;
    let now = now.into_iter().flatten().next();
    match compare(target, &now, &entry.new, &entry.old)? {
        Some((_, true)) => return Ok(Outcome::Already),
        Some((false, _)) => return Ok(Outcome::Changed),
        None => {
            return match compare(target, &entry.row_key, &None, &entry.old)? {
                Some((_, true)) => Ok(Outcome::Already),
                _ => Ok(Outcome::Gone),
            };
        }
        Some((true, false)) => {}
    }
    let is_changed = |column: &&RowColumn| entry.changed.iter().any(|changed| changed == column.name.as_str());
    let columns: Vec<&RowColumn> = target.writable().filter(is_changed).collect();
    if columns.is_empty() {
        // What it was generated from is not kept, or the columns are gone.
        return Ok(Outcome::NotKept);
    }
    let mut sql = Sql::text("UPDATE ").name(&target.rows.name).then(" AS t SET ");
    for (at, column) in columns.iter().enumerate() {
        sql = sql.then(if at > 0 { ", " } else { "" }).ident(&column.name).then(" = o.").ident(&column.name);
    }
    let sql = record(sql.then(" FROM "), "$2", "o", columns.iter().copied());
    let sql = same_key(record(sql.then(", "), "$1", "k", target.rows.key()).then(" WHERE "), &target.rows);
    let arguments = [spi::jsonb(json_of(now)?), spi::jsonb(json_of(entry.old.clone())?)];
    match done(entry, Right::Update, &sql.then(" RETURNING true"), &arguments)? {
        Outcome::Undone if !is_as_generated(entry, target)? => Ok(Outcome::NotKept),
        outcome => Ok(outcome),
    }
}

/// Whether the columns that cannot be written have their old values again, for those that they are generated from have.
fn is_as_generated(entry: &Entry, target: &Target) -> Result<bool, TenancyError> {
    let is_written = |name: &&String| target.writable().any(|column| column.name.as_str() == name.as_str());
    let others: Vec<String> = entry.changed.iter().filter(|name| !is_written(name)).cloned().collect();
    if others.is_empty() {
        return Ok(true);
    }
    let kept = Sql::text(
        "SELECT pg_catalog.jsonb_object_agg(o.key, o.value)::pg_catalog.text
           FROM pg_catalog.jsonb_each($1::pg_catalog.jsonb) AS o WHERE o.key OPERATOR(pg_catalog.=) ANY ($2)",
    );
    let old = spi::read(&kept, &[text(&entry.old), others.into()], |row| row.get::<String>(1))?;
    let found = compare(target, &entry.row_key, &None, &old.into_iter().flatten().next())?;
    Ok(found.is_some_and(|(_, is_old)| is_old))
}

/// Changes the row that has been compared. What triggers an administrator's call would fire are left out, for they are the table
/// owner's.
fn done(entry: &Entry, right: Right, sql: &Sql, arguments: &[spi::DatumWithOid<'_>]) -> Result<Outcome, TenancyError> {
    // A policy or a trigger of the user's may have kept the row as it is.
    let rows = if role::is_privileged(role::current()) && role::may(right, entry.relation) {
        table_work::change(entry.relation, sql, arguments, |row| row.must::<bool>(1))?
    } else {
        spi::write(sql, arguments, |row| row.must::<bool>(1))?
    };
    Ok(if rows.is_empty() { Outcome::Gone } else { Outcome::Undone })
}
