//! Reads what the plan is made from, and carries steps out.

use super::keys;
use super::plan::{self, Facts, Neighbour, Reference, Request, TenantKeys};
use super::step::{self, Step};
use super::undo::{self, Remembered, Undo};
use crate::error::TenancyError;
use crate::model::policy::{self, Access};
use crate::model::{Code, Ident, Key, KeyKind, QualifiedName, Sql, Table};
use crate::pg::policies::{self, Judged};
use crate::pg::{Oid, cache, event, given, role, spi, table_work};
use std::collections::{HashMap, HashSet};
use std::ffi::CStr;

/// The arguments of `protect_table`, checked for NULL.
pub struct Arguments<'a> {
    pub tenant_column: &'a str,
    pub access: &'a str,
    pub assign_existing_rows_to: Option<&'a str>,
    pub foreign_keys: &'a str,
    pub reference: &'a str,
    pub open_policy: bool,
}

impl<'a> Arguments<'a> {
    /// Refuses NULL where a value is needed.
    pub fn given(
        tenant_column: Option<&'a CStr>,
        access: Option<&'a str>,
        assign_existing_rows_to: Option<&'a str>,
        foreign_keys: Option<&'a str>,
        reference: Option<&'a str>,
        open_policy: Option<bool>,
    ) -> Result<Self, TenancyError> {
        Ok(Self {
            tenant_column: given("tenant_column", tenant_column)?.to_str().map_err(|_| {
                TenancyError::MalformedName { name: tenant_column.unwrap_or_default().to_string_lossy().into_owned() }
            })?,
            access: given("access", access)?,
            assign_existing_rows_to,
            foreign_keys: given("foreign_keys", foreign_keys)?,
            reference: given("reference", reference)?,
            open_policy: given("open_policy", open_policy)?,
        })
    }
}

/// A protected relation as it is recorded.
pub struct Entry {
    pub root: Oid,
    pub column: Option<Ident>,
    pub access: Access,
    pub reference: Reference,
    composite_keys: bool,
    open_policy: bool,
    pub undo: Undo,
}

impl Entry {
    /// What `protect_table` was last asked for.
    pub fn request(&self) -> Request {
        let column = self.column.clone().unwrap_or_else(|| policy::name(TENANT_COLUMN));
        Request {
            reference: self.reference,
            composite_keys: self.composite_keys,
            open_policy: self.open_policy,
            ..default_request(column, self.access)
        }
    }

    fn is_as_asked(&self, request: &Request) -> bool {
        self.composite_keys == request.composite_keys && self.open_policy == request.open_policy
    }
}

/// What `protect_table` is asked for where nothing else is said.
pub fn default_request(column: Ident, access: Access) -> Request {
    Request {
        column,
        access,
        reference: Reference::Policy,
        composite_keys: true,
        open_policy: true,
        assign: None,
        server_version: spi::server_version(),
        is_bound_as_owner: !role::bypasses_row_security(),
    }
}

/// The name of a tenant column where none is given.
const TENANT_COLUMN: &str = "tenant_id";

/// Protects `target` with its partitions and children.
pub fn protect(target: Oid, arguments: &Arguments<'_>) -> Result<(), TenancyError> {
    let request = request(arguments)?;
    protect_as(target, &request)
}

pub fn protect_as(target: Oid, request: &Request) -> Result<(), TenancyError> {
    protect_by(target, request, execute)
}

/// The same for the guard, at work for a role that need not be an administrator.
pub fn protect_for_guard(target: Oid, request: &Request) -> Result<(), TenancyError> {
    protect_by(target, request, execute_for_guard)
}

fn protect_by(
    target: Oid,
    request: &Request,
    execute: impl Fn(&Step) -> Result<(), TenancyError>,
) -> Result<(), TenancyError> {
    let plan = |view| spi::undisturbed(|| plan_for(target, request, view));
    let (facts, steps) = plan(spi::Snapshot::Statement)?;
    if facts.is_complete && steps.iter().all(|step| step.statement().is_none()) {
        return steps.iter().try_for_each(&execute);
    }
    lock(target)?;
    let (before, steps) = plan(spi::Snapshot::Latest)?;
    steps.iter().try_for_each(&execute)?;
    spi::undisturbed(|| record(target, &before, request))
}

/// The steps that `protect` would take.
pub fn plan_protection(target: Oid, arguments: &Arguments<'_>) -> Result<Vec<Step>, TenancyError> {
    let request = request(arguments)?;
    spi::undisturbed(|| Ok(plan_for(target, &request, spi::Snapshot::Statement)?.1))
}

fn plan_for(target: Oid, request: &Request, view: spi::Snapshot) -> Result<(Facts, Vec<Step>), TenancyError> {
    let family = family(target, view)?;
    let facts = facts(target, family, request, view)?;
    let steps = plan::protect(&facts, request)?;
    if let Some(refusal) = plan::refused_actions(&facts, request).into_iter().next() {
        return Err(refusal);
    }
    refuse_strangers(&facts, &steps)?;
    Ok((facts, steps))
}

/// Refuses a role that may not alter what the steps alter.
pub fn refuse_strangers(facts: &Facts, steps: &[Step]) -> Result<(), TenancyError> {
    let role = role::current_role();
    for table in facts.family.iter().filter(|_| !steps.is_empty() || !facts.is_complete) {
        plan::refuse_stranger(table, &role)?;
    }
    for table in facts.neighbours.iter().filter_map(|neighbour| neighbour.family.first()) {
        if steps.iter().any(|step| matches!(step, Step::ScopeForeignKey(link) if link.child == table.name)) {
            plan::refuse_stranger(table, &role)?;
        }
    }
    Ok(())
}

fn refuse_other_protection(root: &Table, entry: &Entry, target: Oid, request: &Request) -> Result<(), TenancyError> {
    let differs = |aspect, stored: String, given: String| {
        Err(TenancyError::OtherProtection { table: root.name.clone(), aspect, stored, given })
    };
    if entry.root != target {
        return Ok(()); // refused as a partition or child; a detached one is protected anew
    }
    if entry.access != request.access {
        return differs("access", entry.access.name().into(), request.access.name().into());
    }
    if let Some(column) = entry.column.as_ref().filter(|column| **column != request.column) {
        return differs("tenant column", column.to_string(), request.column.to_string());
    }
    if entry.reference == Reference::ForeignKey && request.reference == Reference::Policy {
        return differs("reference", entry.reference.name().into(), request.reference.name().into());
    }
    Ok(())
}

pub fn request(arguments: &Arguments<'_>) -> Result<Request, TenancyError> {
    const KEYS: &[&str] = &[COMPOSITE, KEEP];
    let unknown = |argument, given: &str, choices: &'static [&'static str]| TenancyError::UnknownChoice {
        argument,
        given: given.to_owned(),
        choices,
    };
    let access =
        Access::from_name(arguments.access).ok_or_else(|| unknown("access", arguments.access, Access::NAMES))?;
    let composite_keys = match arguments.foreign_keys {
        COMPOSITE => true,
        KEEP => false,
        other => return Err(unknown("foreign_keys", other, KEYS)),
    };
    let reference = Reference::from_name(arguments.reference)
        .ok_or_else(|| unknown("reference", arguments.reference, Reference::NAMES))?;
    let assign = arguments.assign_existing_rows_to.map(tenant_keys).transpose()?;
    if assign.is_some() && access != Access::Tenant {
        return Err(TenancyError::ArgumentConflict {
            message: "assign_existing_rows_to goes with access 'tenant' only",
            hint: "Rows without a tenant are what access 'shared' is for, and a reference table has no tenants.",
        });
    }
    let column = Ident::new(arguments.tenant_column)?;
    let open_policy = arguments.open_policy;
    Ok(Request { reference, composite_keys, open_policy, assign, ..default_request(column, access) })
}

fn tenant_keys(tenant: &str) -> Result<TenantKeys, TenancyError> {
    let found =
        cache::find(&tenant.parse()?)?.ok_or_else(|| TenancyError::UnknownTenant { tenant: tenant.to_owned() })?;
    Ok(TenantKeys { id: found.id.to_string(), number: found.number.to_string(), code: found.code.to_string() })
}

/// What a plan for `family` is made from: a table and those of its partitions and children that matter.
pub fn facts(
    target: Oid,
    mut family: Vec<Table>,
    request: &Request,
    view: spi::Snapshot,
) -> Result<Facts, TenancyError> {
    for table in &mut family {
        judge_policies(table, request.access, Some(&request.column))?;
    }
    let neighbours = neighbours(&oids(&family), view)?;
    let met: Vec<Oid> =
        neighbours.iter().filter_map(|neighbour| neighbour.family.first()).chain(&family).map(oid).collect();
    let entries = entries(view, &met)?;
    let has_rows = match family.first() {
        Some(root) => {
            if let Some(entry) = entries.get(&target) {
                refuse_other_protection(root, entry, target, request)?;
            }
            asks_for_rows(&family, request) && has_rows(root, request, view)?
        }
        None => false,
    };
    let own_indexes = entries
        .iter()
        .flat_map(|(relation, entry)| entry.undo.indexes.iter().map(|index| (relation.to_u32(), index.clone())))
        .collect();
    let entry = |table: &Table| entries.get(&oid(table));
    let recorded = family.iter().filter(|table| entry(table).is_some()).map(|table| table.oid).collect();
    let is_complete = (family.iter())
        .all(|table| entry(table).is_some_and(|entry| entry.root == target && entry.is_as_asked(request)));
    Ok(Facts { target: target.to_u32(), family, neighbours, recorded, is_complete, own_indexes, has_rows })
}

/// Whether the plan depends on the table being empty: a column is to be added, and nobody said whose the rows are.
fn asks_for_rows(family: &[Table], request: &Request) -> bool {
    let lacks_column = |root: &Table| root.column(&request.column).is_none() && request.access == Access::Tenant;
    request.assign.is_none()
        && family.iter().all(|table| plan::refuse_no_table(table).is_ok())
        && family.first().is_some_and(|root| lacks_column(root) && root.is_owned && plan::refuse_unfit(root).is_ok())
}

/// Whether the table has rows; taken for granted where the owner is bound and cannot tell.
fn has_rows(root: &Table, request: &Request, view: spi::Snapshot) -> Result<bool, TenancyError> {
    if request.is_bound_as_owner && root.row_security && root.forced {
        return Ok(true);
    }
    let sql = Sql::text("SELECT EXISTS (SELECT FROM ").name(&root.name).then(")");
    Ok(spi::read_in(view, &sql, &[], |row| row.must::<bool>(1))?.first().copied().unwrap_or(false))
}

fn oid(table: &Table) -> Oid {
    Oid::from(table.oid)
}

/// Their oids.
pub fn oids(tables: &[Table]) -> Vec<Oid> {
    tables.iter().map(oid).collect()
}

/// A relation with its partitions and inheritance children, parents first.
pub fn family(target: Oid, view: spi::Snapshot) -> Result<Vec<Table>, TenancyError> {
    describe(
        &Sql::text(
            "SELECT tenancy_internal.describe_table(f.relation, $2)::text
               FROM tenancy_internal.table_family($1) WITH ORDINALITY AS f(relation, position) ORDER BY f.position",
        ),
        target.into(),
        view,
    )
}

fn describe(sql: &Sql, target: spi::DatumWithOid<'_>, view: spi::Snapshot) -> Result<Vec<Table>, TenancyError> {
    let asking = role::current();
    spi::as_extension_owner(|| {
        let described = spi::read_in(view, sql, &[target, asking.into()], |row| row.get::<String>(1))?;
        described.into_iter().flatten().map(|text| parsed(&text)).collect()
    })
}

/// The relations of these oids that still exist, in this order.
pub fn describe_all(relations: Vec<Oid>, view: spi::Snapshot) -> Result<Vec<Table>, TenancyError> {
    let sql = Sql::text(
        "SELECT tenancy_internal.describe_table(r.relation, $2)::text
           FROM pg_catalog.unnest($1) WITH ORDINALITY AS r(relation, position) ORDER BY r.position",
    );
    describe(&sql, relations.into(), view)
}

/// A relation, None when there is none.
pub fn describe_one(relation: Oid, view: spi::Snapshot) -> Result<Option<Table>, TenancyError> {
    let sql = Sql::text("SELECT tenancy_internal.describe_table($1, $2)::text");
    Ok(describe(&sql, relation.into(), view)?.pop())
}

/// What the catalog described as JSON.
pub fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, TenancyError> {
    serde_json::from_str(text)
        .map_err(|error| TenancyError::Internal { what: format!("a description in the catalog is malformed: {error}") })
}

/// The protected tables that foreign keys tie to the family.
fn neighbours(members: &[Oid], view: spi::Snapshot) -> Result<Vec<Neighbour>, TenancyError> {
    let found = spi::as_extension_owner(|| {
        spi::read_in(
            view,
            &Sql::text(
                "SELECT p.relation::pg_catalog.oid, tenancy_internal.tenant_column(p.relation, p.tenant_column)::text,
                        p.access
                   FROM (SELECT k.confrelid FROM pg_catalog.pg_constraint k
                          WHERE k.contype = 'f' AND k.conparentid = 0 AND k.conrelid = ANY ($1)
                          UNION
                         SELECT k.conrelid FROM pg_catalog.pg_constraint k
                          WHERE k.contype = 'f' AND k.conparentid = 0 AND k.confrelid = ANY ($1)) AS tied(relation)
                   JOIN tenancy_internal.protected_tables p ON p.relation = tied.relation
                  WHERE tied.relation <> ALL ($1)
                  ORDER BY 1",
            ),
            &[members.to_vec().into()],
            |row| Ok((row.must::<Oid>(1)?, row.get::<String>(2)?, row.must::<String>(3)?)),
        )
    })?;
    let mut neighbours = Vec::new();
    for (oid, column, access) in found {
        let column = column.as_deref().map(Ident::new).transpose()?;
        let access = stored_access(&access)?;
        neighbours.push(Neighbour { family: family(oid, view)?, column, access });
    }
    Ok(neighbours)
}

fn stored_reference(reference: &str) -> Result<Reference, TenancyError> {
    Reference::from_name(reference)
        .ok_or_else(|| TenancyError::Internal { what: format!("unknown reference \"{reference}\" is recorded") })
}

pub fn stored_access(access: &str) -> Result<Access, TenancyError> {
    Access::from_name(access)
        .ok_or_else(|| TenancyError::Internal { what: format!("unknown access \"{access}\" is recorded") })
}

/// Whether all that protects a relation is in place.
pub fn is_enforced(relation: Oid, column: Option<&CStr>, access: &str) -> Result<bool, TenancyError> {
    let column = column.map(|column| Ident::new(&column.to_string_lossy())).transpose()?;
    let access = stored_access(access)?;
    let Some(mut table) = describe_one(relation, spi::Snapshot::Statement)? else { return Ok(false) };
    judge_policies(&mut table, access, column.as_ref())?;
    Ok(plan::is_enforced(&table, column.as_ref(), access))
}

/// The policies that a table with this access and tenant column needs, and how those that it has differ.
pub fn judged_policies(relation: Oid, access: &str, column: Option<&CStr>) -> Result<Vec<Judged>, TenancyError> {
    let column = column.map(|column| Ident::new(&column.to_string_lossy())).transpose()?;
    policies::judge(relation, stored_access(access)?, column.as_ref())
}

/// What is worst in policies of the user's own on a table, as the check of integrity that finds it, by their oids.
pub fn policy_faults(relation: Oid) -> Result<HashMap<Oid, String>, TenancyError> {
    let sql = Sql::text(
        "SELECT policy, fault FROM tenancy_internal.own_policies(ARRAY[$1]::pg_catalog.oid[]) WHERE fault IS NOT NULL",
    );
    let faults = spi::as_extension_owner(|| {
        spi::read_in(spi::Snapshot::Latest, &sql, &[relation.into()], |row| Ok((row.must(1)?, row.must(2)?)))
    })?;
    Ok(faults.into_iter().collect())
}

fn judge_policies(table: &mut Table, access: Access, column: Option<&Ident>) -> Result<(), TenancyError> {
    for judged in policies::judge(oid(table), access, column)? {
        let found = table.policies.iter_mut().find(|policy| policy.name.as_str() == judged.name);
        if let (Some(found), Some(differences)) = (found, judged.differences) {
            found.is_as_made = differences.is_empty();
        }
    }
    Ok(())
}

/// Puts foreign keys out of sight whose table was protected with `foreign_keys => 'keep'`, whichever end is looked at.
pub fn leave_kept_keys(facts: &mut Facts, view: spi::Snapshot) -> Result<(), TenancyError> {
    let tables: Vec<Oid> = facts.neighbours.iter().filter_map(|neighbour| neighbour.family.first()).map(oid).collect();
    let entries = entries(view, &tables)?;
    for table in facts.neighbours.iter_mut().filter_map(|neighbour| neighbour.family.first_mut()) {
        if entries.get(&oid(table)).is_some_and(|entry| !entry.composite_keys) {
            table.foreign_keys.clear();
        }
    }
    Ok(())
}

/// The members of a family that are on record as its own.
pub fn settled(root: Oid, facts: &Facts, view: spi::Snapshot) -> Result<HashSet<QualifiedName>, TenancyError> {
    let entries = entries(view, &oids(&facts.family))?;
    let is_settled = |table: &&Table| entries.get(&oid(table)).is_some_and(|entry| entry.root == root);
    Ok(facts.family.iter().filter(is_settled).map(|table| table.name.clone()).collect())
}

/// Records that a relation that left its family is protected as part of `root` now, or as a table of its own.
pub fn set_root(relation: Oid, root: Oid) -> Result<(), TenancyError> {
    let sql =
        Sql::text("UPDATE tenancy_internal.protected_tables SET root = $2 WHERE relation = $1::pg_catalog.regclass");
    spi::as_extension_owner(|| spi::run(&sql, &[relation.into(), root.into()]))
}

/// Records the tenant column's new name for a whole family.
pub fn follow_tenant_column(root: Oid) -> Result<(), TenancyError> {
    let sql = Sql::text(
        "UPDATE tenancy_internal.protected_tables
            SET tenant_column = tenancy_internal.tenant_column(relation, tenant_column)
          WHERE root = $1::pg_catalog.regclass
            AND tenant_column IS DISTINCT FROM tenancy_internal.tenant_column(relation, tenant_column)",
    );
    spi::as_extension_owner(|| spi::run(&sql, &[root.into()]))
}

/// What is recorded of these relations.
pub fn entries(view: spi::Snapshot, relations: &[Oid]) -> Result<HashMap<Oid, Entry>, TenancyError> {
    let rows = spi::as_extension_owner(|| {
        spi::read_in(
            view,
            &Sql::text(
                "SELECT p.relation::pg_catalog.oid, p.root::pg_catalog.oid,
                        tenancy_internal.tenant_column(p.relation, p.tenant_column)::text, p.access, p.reference,
                        p.undo::text, p.foreign_keys, p.open_policy
                   FROM tenancy_internal.protected_tables p WHERE p.relation = ANY ($1::pg_catalog.regclass[])",
            ),
            &[relations.to_vec().into()],
            |row| {
                let entry = Entry {
                    root: row.must(2)?,
                    column: row.get::<String>(3)?.as_deref().map(Ident::new).transpose()?,
                    access: stored_access(&row.must::<String>(4)?)?,
                    reference: stored_reference(&row.must::<String>(5)?)?,
                    composite_keys: row.must::<String>(7)? == COMPOSITE,
                    open_policy: row.must(8)?,
                    undo: parsed(&row.must::<String>(6)?)?,
                };
                Ok((row.must::<Oid>(1)?, entry))
            },
        )
    })?;
    Ok(rows.into_iter().collect())
}

/// Takes the lock under which protection is changed.
pub fn lock(target: Oid) -> Result<(), TenancyError> {
    let root = spi::undisturbed(|| family(target, spi::Snapshot::Latest))?;
    match root.first() {
        Some(root) => spi::run(&Sql::text("LOCK TABLE ").name(&root.name).then(" IN ACCESS EXCLUSIVE MODE"), &[]),
        None => Err(TenancyError::UnknownRelation { oid: target.to_u32() }),
    }
}

/// The values of `foreign_keys`.
const COMPOSITE: &str = "composite";
const KEEP: &str = "keep";

/// Carries a step out.
pub fn execute(step: &Step) -> Result<(), TenancyError> {
    spi::undisturbed(|| spi::own_work(|| carry_out(step)))
}

/// Takes the step for a role that need not be an administrator. What names our functions, which such a role may not do,
/// is made as the extension's owner; it runs nothing of the user's.
pub fn execute_for_guard(step: &Step) -> Result<(), TenancyError> {
    match step {
        Step::AddPolicy { .. }
        | Step::DropPolicy { .. }
        | Step::AddGuard { .. }
        | Step::DropGuard { .. }
        | Step::SetDefault { .. }
        | Step::AddReference { .. } => spi::as_extension_owner(|| execute(step)),
        _ => execute(step),
    }
}

fn carry_out(step: &Step) -> Result<(), TenancyError> {
    match (step, step.statement()) {
        (Step::CheckTenantPresent { table, column }, Some(sql)) => match count(&sql)? {
            0 => Ok(()),
            rows => Err(TenancyError::RowsWithoutTenant { table: table.clone(), column: column.clone(), rows }),
        },
        (Step::CheckTenantKnown { table, column, key }, Some(sql)) => check_known(table, column, *key, &sql),
        (Step::CheckLink(link), Some(sql)) => match count(&sql)? {
            0 => Ok(()),
            rows => Err(TenancyError::CrossTenantRows {
                constraint: link.key.name.clone(),
                table: link.child.clone(),
                parent: link.parent.clone(),
                rows,
            }),
        },
        (Step::AddColumn { table, column, .. }, Some(sql)) => {
            spi::run(&sql, &[])?;
            spi::notice(&format!("column {column} (uuid) added to {table}"));
            Ok(())
        }
        (Step::AssignRows { table, .. }, Some(sql)) => table_work::change_named(table, &sql),
        (_, Some(sql)) => spi::run(&sql, &[]),
        (Step::Note { table, text }, None) => {
            spi::notice(&format!("{table}: {text}"));
            Ok(())
        }
        (_, None) => Ok(()),
    }
}

fn count(sql: &Sql) -> Result<i64, TenancyError> {
    let counts = spi::read_in(spi::Snapshot::Latest, sql, &[], |row| row.must::<i64>(1))?;
    Ok(counts.first().copied().unwrap_or(0))
}

fn check_known(table: &QualifiedName, column: &Ident, key: KeyKind, sql: &Sql) -> Result<(), TenancyError> {
    const SHOWN: usize = 5;
    let values =
        spi::read_in(spi::Snapshot::Latest, sql, &[], |row| Ok((row.must::<String>(1)?, row.must::<i64>(2)?)))?;
    let mut unknown = Vec::new();
    for (value, rows) in values {
        let parsed = match key {
            KeyKind::Code => Code::new(&value).map(Key::Code),
            KeyKind::Id | KeyKind::Number => value.parse(),
        };
        let known = match parsed {
            Ok(key) => cache::find(&key)?.is_some(),
            Err(_) => false,
        };
        if !known {
            unknown.push((value, rows));
        }
    }
    if unknown.is_empty() {
        return Ok(());
    }
    let mut sample = unknown.iter().take(SHOWN).map(|(value, _)| value.as_str()).collect::<Vec<_>>().join(", ");
    if unknown.len() > SHOWN {
        sample.push_str(&format!(" and {} more", unknown.len() - SHOWN));
    }
    let rows = unknown.iter().map(|(_, rows)| rows).sum();
    Err(TenancyError::RowsOfUnknownTenants { table: table.clone(), column: column.clone(), rows, sample, key })
}

/// Records what was done to a family, so that it can be undone.
pub fn record(root: Oid, before: &Facts, request: &Request) -> Result<(), TenancyError> {
    let neighbours: Vec<&Table> = before.neighbours.iter().filter_map(|neighbour| neighbour.family.first()).collect();
    let met: Vec<Oid> = neighbours.iter().copied().chain(&before.family).map(oid).collect();
    let entries = entries(spi::Snapshot::Latest, &met)?;
    let column = (request.access != Access::Reference).then_some(&request.column);
    for now in describe_all(oids(&before.family), spi::Snapshot::Latest)? {
        let oid = oid(&now);
        let was = before.family.iter().find(|table| table.oid == now.oid).unwrap_or(&now);
        let earlier = entries.get(&oid).map(|entry| entry.undo.clone());
        let undo = undo::remember(was, &now, &request.column, earlier);
        let key = column.and_then(|column| now.column(column)?.key());
        spi::as_extension_owner(|| {
            spi::run(
                &Sql::text(
                    "INSERT INTO tenancy_internal.protected_tables AS p
                            (relation, root, tenant_column, tenant_key, access, reference, undo, foreign_keys, open_policy)
                     VALUES ($1, $2, $3::text, $4, $5, $6, $7::text::pg_catalog.jsonb, $8, $9)
                     ON CONFLICT (relation) DO UPDATE
                        SET root = EXCLUDED.root, tenant_column = EXCLUDED.tenant_column,
                            tenant_key = EXCLUDED.tenant_key, access = EXCLUDED.access,
                            reference = EXCLUDED.reference, undo = EXCLUDED.undo,
                            foreign_keys = EXCLUDED.foreign_keys, open_policy = EXCLUDED.open_policy",
                ),
                &[
                    oid.into(),
                    root.into(),
                    column.map(Ident::as_str).into(),
                    key.map(KeyKind::column).into(),
                    request.access.name().into(),
                    request.reference.name().into(),
                    json(&undo)?.into(),
                    (if request.composite_keys { COMPOSITE } else { KEEP }).into(),
                    request.open_policy.into(),
                ],
            )
        })?;
    }
    for neighbour in &before.neighbours {
        let (Some(column), Some(table)) = (&neighbour.column, neighbour.family.first()) else { continue };
        let oid = oid(table);
        if let (Some(now), Some(entry)) = (describe_one(oid, spi::Snapshot::Latest)?, entries.get(&oid)) {
            let undo = undo::remember(table, &now, column, Some(entry.undo.clone()));
            store_undo(oid, &undo)?;
        }
    }
    Ok(())
}

fn json(undo: &Undo) -> Result<String, TenancyError> {
    serde_json::to_string(undo).map_err(|error| TenancyError::Internal { what: error.to_string() })
}

/// Records what is to be put back.
pub fn store_undo(relation: Oid, undo: &Undo) -> Result<(), TenancyError> {
    let undo = json(undo)?;
    spi::as_extension_owner(|| {
        spi::run(
            &Sql::text(
                "UPDATE tenancy_internal.protected_tables SET undo = $2::text::pg_catalog.jsonb WHERE relation = $1",
            ),
            &[relation.into(), undo.into()],
        )
    })
}

/// Puts back what was there before `protect`.
pub fn unprotect(target: Oid) -> Result<(), TenancyError> {
    spi::undisturbed(|| {
        let described = family(target, spi::Snapshot::Statement)?;
        let Some(root) = described.first() else {
            return Err(TenancyError::UnknownRelation { oid: target.to_u32() });
        };
        let not_protected = || Err(TenancyError::NotProtected { table: root.name.clone() });
        if plan::refuse_no_table(root).is_err() {
            return not_protected();
        }
        plan::refuse_stranger(root, &role::current_role())?;
        // Before the look at the record: another session may be protecting the table right now.
        lock(target)?;
        unscope_keys(target)?;
        let family = family(target, spi::Snapshot::Latest)?;
        let members = oids(&family);
        let neighbours = neighbours(&members, spi::Snapshot::Latest)?;
        let others = neighbours.iter().filter_map(|neighbour| neighbour.family.first());
        let met: Vec<Oid> = others.clone().map(oid).chain(members.iter().copied()).collect();
        let entries = entries(spi::Snapshot::Latest, &met)?;
        if entries.get(&target).is_none_or(|entry| entry.root != target) {
            return not_protected();
        }
        let relations: Vec<Remembered<'_>> = (family.iter().map(|table| (table, true)))
            .chain(others.map(|table| (table, false)))
            .filter_map(|(table, is_family)| {
                let entry = entries.get(&oid(table))?;
                Some(Remembered { table, column: entry.column.as_ref(), undo: &entry.undo, is_family })
            })
            .collect();
        let mut steps = undo::unprotect(&relations);
        if !role::bypasses_row_security() {
            let families = neighbours.iter().map(|neighbour| neighbour.family.iter().collect());
            let families: Vec<Vec<&Table>> = std::iter::once(family.iter().collect()).chain(families).collect();
            steps = step::lift_force(steps, &families);
        }
        steps.iter().try_for_each(execute)?;
        for relation in relations.iter().filter(|relation| !relation.is_family) {
            store_undo(Oid::from(relation.table.oid), &undo::without_unscoped(relation, &steps))?;
        }
        forget(target, &members)
    })
}

/// Unique keys and the foreign keys that refer to them go back together, before what does not depend on them.
fn unscope_keys(target: Oid) -> Result<(), TenancyError> {
    let family = family(target, spi::Snapshot::Latest)?;
    let entries = entries(spi::Snapshot::Latest, &oids(&family))?;
    for oid in oids(&family) {
        let names = entries.get(&oid).map_or(&[][..], |entry| &entry.undo.unique_keys);
        keys::store::unscope_all(oid, names)?;
    }
    Ok(())
}

/// Takes a family off the record. A partition that was detached meanwhile stays protected, as a table of its own.
fn forget(root: Oid, members: &[Oid]) -> Result<(), TenancyError> {
    spi::as_extension_owner(|| {
        spi::run(
            &Sql::text(
                "DELETE FROM tenancy_internal.protected_tables
                  WHERE root = $1::pg_catalog.regclass AND relation = ANY ($2)",
            ),
            &[root.into(), members.to_vec().into()],
        )?;
        spi::run(
            &Sql::text(
                "UPDATE tenancy_internal.protected_tables SET root = relation WHERE root = $1::pg_catalog.regclass",
            ),
            &[root.into()],
        )
    })
}

/// Closes every protected table to all whom row security binds, where the command at hand drops the extension.
pub fn close_before_drop(call: event::Call) -> Result<(), TenancyError> {
    if !event::drops_this_extension(call)? {
        return Ok(());
    }
    spi::undisturbed(|| {
        for relation in everything_recorded()? {
            let open = describe_one(relation, spi::Snapshot::Latest)?
                .filter(|table| table.policy(&policy::name(policy::CLOSED)).is_none());
            if let Some(table) = open {
                spi::own_work(|| spi::run(&policy::close(&table.name), &[]))?;
            }
        }
        Ok(())
    })
}

fn everything_recorded() -> Result<Vec<Oid>, TenancyError> {
    let sql = Sql::text("SELECT relation::pg_catalog.oid FROM tenancy_internal.protected_tables");
    spi::as_extension_owner(|| spi::read_in(spi::Snapshot::Latest, &sql, &[], |row| row.must::<Oid>(1)))
}

/// Refuses to truncate where row security binds the current role.
pub fn refuse_truncate(relation: Oid, table: QualifiedName) -> Result<(), TenancyError> {
    if role::is_bound(relation) {
        return Err(TenancyError::TruncateBound { table: table.to_string(), role: role::current_role() });
    }
    Ok(())
}
