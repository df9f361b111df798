//! Reads the log for a tenant, and undoes what it tells of.

use super::plan::Member;
use super::store;
use crate::error::{AuditError, TenancyError};
use crate::model::{Ident, QualifiedName, Sql};
use crate::pg::{Oid, cache, json, rehearsal, role, spi, tenant_key};
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

/// A table with a key, whose rows the current role may read; the key's columns.
fn keyed(target: Oid, key: AnyElement) -> Result<(Member, Vec<Ident>), TenancyError> {
    let member = store::family(target, spi::Snapshot::Statement)?.swap_remove(0);
    if !role::may_select(target) {
        return Err(AuditError::NoSelect { table: member.name, role: role::current_role() }.into());
    }
    let columns: Vec<Ident> = member
        .columns
        .iter()
        .filter(|column| column.is_key)
        .map(|column| Ident::new(&column.name))
        .collect::<Result<_, _>>()?;
    if columns.is_empty() {
        return Err(AuditError::NoKey { table: member.name.clone() }.into());
    }
    if !columns.iter().all(|column| json::has_field(key, column.as_str())) {
        let columns = columns.iter().map(|column| column.as_str().to_owned()).collect();
        return Err(AuditError::NotAKey { table: member.name.clone(), columns }.into());
    }
    Ok((member, columns))
}

/// `FROM table AS t, (the key as a row) AS k WHERE t.key = k.key`, the key being the first parameter.
fn found_by_key(sql: Sql, table: &QualifiedName, key: &[Ident]) -> Sql {
    let mut sql = sql
        .then(" FROM ")
        .name(table)
        .then(" AS t, pg_catalog.jsonb_populate_record(NULL::")
        .name(table)
        .then(", $1) AS k WHERE ");
    for (at, column) in key.iter().enumerate() {
        sql = sql.then(if at > 0 { " AND t." } else { "t." }).ident(column).then(" = k.").ident(column);
    }
    sql
}

/// A row as it was at a time; None where there was none.
pub fn row_as_of(target: Oid, key: AnyElement, at: TimestampWithTimeZone) -> Result<Option<AnyElement>, TenancyError> {
    let tenant = store::readable_tenant()?;
    let (member, columns) = keyed(target, key)?;
    let present = found_by_key(Sql::text("SELECT pg_catalog.to_jsonb(t)::pg_catalog.text"), &member.name, &columns);
    let present =
        spi::with_catalog_names(|| spi::read(&present, &[spi::jsonb(Some(key))], |row| row.get::<String>(1)))?;
    let present = json_of(present.into_iter().flatten().next())?;
    let sql = Sql::text("SELECT tenancy_internal.row_at($1, $2, $3, $4, $5)::pg_catalog.text");
    let arguments = [target.into(), spi::jsonb(Some(key)), bound(tenant).into(), spi::jsonb(present), at.into()];
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
struct Entry {
    id: i64,
    relation: Oid,
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
                COALESCE(e.changed_columns, '{}')
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
            })
        })
    })
}

/// A table that refers to another, and pairs of its columns and those referred to.
type Reference = (QualifiedName, Vec<(Ident, Ident)>);

/// A table as undoing looks at it.
struct Target {
    name: QualifiedName,
    key: Vec<Ident>,
    /// Columns that values can be written to.
    writable: Vec<Ident>,
    /// Rows of these would be deleted or changed with its own.
    referring: Vec<Reference>,
    ignores: bool,
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
            Some(target) if !target.key.is_empty() => spi::with_catalog_names(|| undo(entry, &target))?,
            _ => Outcome::NoTable,
        };
        outcomes.push((entry, outcome));
    }
    Ok(outcomes)
}

fn describe(relation: Oid) -> Result<Option<Target>, TenancyError> {
    let Ok(mut family) = store::family(relation, spi::Snapshot::Latest) else { return Ok(None) };
    let member = family.swap_remove(0);
    let names = |wanted: &dyn Fn(&super::plan::Column) -> bool| -> Result<Vec<Ident>, TenancyError> {
        member.columns.iter().filter(|column| wanted(column)).map(|column| Ident::new(&column.name)).collect()
    };
    let ignores = store::recorded(relation)?.is_some_and(|(_, request)| !request.ignored.is_empty());
    let (key, writable) = (names(&|column| column.is_key)?, names(&|column| !column.is_generated)?);
    Ok(Some(Target { referring: referring(relation)?, name: member.name, key, writable, ignores }))
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
    match entry.action.as_str() {
        "INSERT" => undo_insert(entry, target),
        "DELETE" => undo_delete(entry, target),
        _ => undo_update(entry, target),
    }
}

fn text(value: &Option<String>) -> crate::pg::spi::DatumWithOid<'_> {
    value.as_deref().into()
}

/// Whether the row that the first parameter names has the values of the second, and those of the third; None where there
/// is no such row. Locks it.
fn compare(
    target: &Target,
    key: &Option<String>,
    new: &Option<String>,
    old: &Option<String>,
) -> Result<Option<(bool, bool)>, TenancyError> {
    let sql = Sql::text(
        "SELECT NOT EXISTS (SELECT FROM pg_catalog.jsonb_each($2::pg_catalog.jsonb) AS n
                             WHERE n.value <> '\"[redacted]\"' AND pg_catalog.to_jsonb(t) -> n.key IS DISTINCT FROM n.value),
                NOT EXISTS (SELECT FROM pg_catalog.jsonb_each($3::pg_catalog.jsonb) AS o
                             WHERE pg_catalog.to_jsonb(t) -> o.key IS DISTINCT FROM o.value)",
    );
    let sql = found_by_key(sql, &target.name, &target.key).then(" FOR UPDATE OF t");
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
            exists = exists.then(if at > 0 { " AND c." } else { "c." }).ident(column).then(" = t.").ident(parent);
        }
        let sql = found_by_key(exists.then(")"), &target.name, &target.key);
        if spi::write(&sql, &[key()?], |row| row.must::<bool>(1))?.contains(&true) {
            return Ok(Outcome::Referred);
        }
    }
    let mut sql = Sql::text("DELETE FROM ")
        .name(&target.name)
        .then(" AS t USING pg_catalog.jsonb_populate_record(NULL::")
        .name(&target.name)
        .then(", $1) AS k WHERE ");
    for (at, column) in target.key.iter().enumerate() {
        sql = sql.then(if at > 0 { " AND t." } else { "t." }).ident(column).then(" = k.").ident(column);
    }
    done(&sql.then(" RETURNING true"), &[key()?])
}

fn undo_delete(entry: &Entry, target: &Target) -> Result<Outcome, TenancyError> {
    match compare(target, &entry.row_key, &None, &entry.old)? {
        Some((_, true)) => return Ok(Outcome::Already),
        Some((_, false)) => return Ok(Outcome::Exists),
        None => {}
    }
    let old = entry.old.clone();
    let columns = present_in(&target.writable, &old)?;
    let mut sql = Sql::text("INSERT INTO ").name(&target.name).then(" (").idents(&columns);
    sql = sql.then(") OVERRIDING SYSTEM VALUE SELECT ").idents(&columns);
    let sql = sql.then(" FROM pg_catalog.jsonb_populate_record(NULL::").name(&target.name).then(", $1) RETURNING true");
    done(&sql, &[spi::jsonb(json_of(old)?)])
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
    let is_changed = |column: &&Ident| entry.changed.iter().any(|changed| changed == column.as_str());
    let columns: Vec<&Ident> = target.writable.iter().filter(is_changed).collect();
    if columns.is_empty() {
        // What it was generated from is not kept, or the columns are gone.
        return Ok(Outcome::NotKept);
    }
    let mut sql = Sql::text("UPDATE ").name(&target.name).then(" AS t SET ");
    for (at, column) in columns.iter().enumerate() {
        sql = sql.then(if at > 0 { ", " } else { "" }).ident(column).then(" = o.").ident(column);
    }
    sql = sql
        .then(" FROM pg_catalog.jsonb_populate_record(NULL::")
        .name(&target.name)
        .then(", $2) AS o, pg_catalog.jsonb_populate_record(NULL::")
        .name(&target.name)
        .then(", $1) AS k WHERE ");
    for (at, column) in target.key.iter().enumerate() {
        sql = sql.then(if at > 0 { " AND t." } else { "t." }).ident(column).then(" = k.").ident(column);
    }
    match done(&sql.then(" RETURNING true"), &[spi::jsonb(json_of(now)?), spi::jsonb(json_of(entry.old.clone())?)])? {
        Outcome::Undone if !is_as_generated(entry, target)? => Ok(Outcome::NotKept),
        outcome => Ok(outcome),
    }
}

/// Whether the columns that cannot be written have their old values again, for those that they are generated from have.
fn is_as_generated(entry: &Entry, target: &Target) -> Result<bool, TenancyError> {
    let is_written = |name: &&String| target.writable.iter().any(|column| column.as_str() == name.as_str());
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

/// The columns that an object has values for.
fn present_in(columns: &[Ident], object: &Option<String>) -> Result<Vec<Ident>, TenancyError> {
    let object = json_of(object.clone())?;
    let is_present = |column: &&Ident| object.is_some_and(|object| json::has_field(object, column.as_str()));
    Ok(columns.iter().filter(is_present).cloned().collect())
}

fn done(sql: &Sql, arguments: &[spi::DatumWithOid<'_>]) -> Result<Outcome, TenancyError> {
    // A policy or a trigger of the user's may have kept the row as it is.
    let rows = spi::write(sql, arguments, |row| row.must::<bool>(1))?;
    Ok(if rows.is_empty() { Outcome::Gone } else { Outcome::Undone })
}
