//! The guard: what a statement left behind is judged before it is done. New tables are protected, protected ones stay so.
//!
//! Event triggers call it, so it needs no preload. Decisions: drift.rs.

use super::drift::{self, Family, Judgement, Kin, PolicyFault};
use super::plan::{self, Request};
use super::step::{self, Step};
use super::{schemas, store, views};
use crate::error::TenancyError;
use crate::model::policy::Access;
use crate::model::{Ident, QualifiedName, Sql, Table};
use crate::pg::event::{self, Kind, Statement};
use crate::pg::settings::{self, DdlGuard};
use crate::pg::{Oid, concern, protected, role, spi};

/// The schema of our private tables.
const OUR_SCHEMA: &str = "tenancy_internal";

/// sql_drop: takes what is gone off the record, and notes which protected tables lost a part for `guard_ddl`, which
/// PostgreSQL calls at the end of the same statement. What was dropped can be learnt here only.
pub fn note_drops(call: event::Call) -> Result<(), TenancyError> {
    event::expect_drop(call)?;
    let sql = Sql::text("SELECT lost FROM tenancy_internal.forget_dropped() AS lost");
    let damaged = spi::as_extension_owner(|| spi::write(&sql, &[], |row| row.must::<Oid>(1)))?;
    event::note_damaged(damaged);
    Ok(())
}

/// ddl_command_end: judges what the statement left behind.
pub fn guard_ddl(call: event::Call) -> Result<(), TenancyError> {
    let statement = event::statement(call)?;
    let damaged = event::take_damaged();
    if let Some((old, new)) = &statement.renamed_schema {
        schemas::rename(old, new)?;
    }
    let mode = settings::ddl_guard();
    if event::is_out_of_reach() || mode == DdlGuard::Off || statement.kind == Kind::Harmless && damaged.is_empty() {
        return Ok(());
    }
    let objects = touched_objects(&statement)?;
    let mut touched = damaged;
    touched.extend(objects.iter().map(|object| object.relation).filter(|relation| *relation != Oid::INVALID));
    touched.sort_unstable_by_key(|relation| relation.to_u32());
    touched.dedup();
    let judge = Judge { mode, is_privileged: role::is_privileged(role::current()), statement };
    judge.tables(touched, &objects)?;
    objects.iter().try_for_each(|object| judge.object(object))
}

/// Something that the statement made or changed.
struct Touched {
    kind: String,
    object: Oid,
    /// None for a relation.
    name: Option<Ident>,
    /// The relation it is or belongs to.
    relation: Oid,
}

fn touched_objects(statement: &Statement) -> Result<Vec<Touched>, TenancyError> {
    if statement.kind == Kind::Harmless {
        return Ok(Vec::new());
    }
    let brings_columns = !matches!(statement.kind, Kind::Other);
    let commands = Sql::text(
        "SELECT classid, objid, object_type FROM pg_catalog.pg_event_trigger_ddl_commands()
          WHERE NOT in_extension AND objid IS NOT NULL",
    );
    let commands = spi::read(&commands, &[], |row| Ok((row.must(1)?, row.must(2)?, row.must::<String>(3)?)))?;
    let mut relations = Vec::new();
    for (class, object, object_type) in commands {
        if !event::is_relation(class) || object_type == "type" {
            return all_touched_objects();
        }
        let is_known = relations.iter().any(|touched: &Touched| touched.object == object);
        if !is_known && concern::has_to_do_with_protection(object, brings_columns)? {
            relations.push(Touched { kind: "relation".to_owned(), object, name: None, relation: object });
        }
    }
    Ok(relations)
}

/// The same by way of the catalog, where not all of it are relations.
fn all_touched_objects() -> Result<Vec<Touched>, TenancyError> {
    let sql = Sql::text("SELECT kind, object, name::text, relation FROM tenancy_internal.touched_objects()");
    spi::as_extension_owner(|| {
        spi::write(&sql, &[], |row| {
            let (kind, object, relation) = (row.must(1)?, row.must(2)?, row.must(4)?);
            Ok(Touched { kind, object, name: Some(Ident::new(&row.must::<String>(3)?)?), relation })
        })
    })
}

/// Relations with all their parents, and their partitions and children.
fn kin(touched: &[Oid]) -> Result<Vec<Kin>, TenancyError> {
    let sql = Sql::text(
        "SELECT relation, kind::text, parents, root, is_exempt, owner, owner_danger, schema_column::text, schema_access,
                known_column::text
           FROM tenancy_internal.touched_families($1)",
    );
    spi::as_extension_owner(|| {
        spi::write(&sql, &[touched.to_vec().into()], |row| {
            let identifier = |name: Option<String>| name.as_deref().map(Ident::new).transpose();
            let schema = match (identifier(row.get(8)?)?, row.get::<String>(9)?) {
                (Some(column), Some(access)) => Some((column, store::stored_access(&access)?)),
                _ => None,
            };
            Ok(Kin {
                relation: row.must::<Oid>(1)?.to_u32(),
                kind: row.must::<String>(2)?.chars().next().unwrap_or_default(),
                parents: row.must::<Vec<Oid>>(3)?.into_iter().map(Oid::to_u32).collect(),
                root: row.get::<Oid>(4)?.map(Oid::to_u32),
                is_exempt: row.must(5)?,
                owner: row.must(6)?,
                owner_danger: row.get(7)?,
                schema,
                known_column: identifier(row.get(10)?)?,
            })
        })
    })
}

/// How one statement of one role is judged.
struct Judge {
    mode: DdlGuard,
    /// A superuser, or a holder of the admin grant: told, not refused.
    is_privileged: bool,
    statement: Statement,
}

impl Judge {
    fn is_refusing(&self) -> bool {
        self.mode == DdlGuard::Enforce && !self.is_privileged
    }

    /// Refuses, or warns those who may do it.
    fn object_to(&self, error: TenancyError) -> Result<(), TenancyError> {
        if self.is_refusing() {
            return Err(error);
        }
        spi::warn(&error);
        Ok(())
    }

    fn tables(&self, touched: Vec<Oid>, objects: &[Touched]) -> Result<(), TenancyError> {
        if touched.is_empty() {
            return Ok(());
        }
        let kin = kin(&touched)?;
        let lineage = drift::lineage(&touched.iter().map(|oid| oid.to_u32()).collect::<Vec<_>>(), &kin);
        for (relation, root) in &lineage.detached {
            store::set_root(Oid::from(*relation), Oid::from(*root))?;
        }
        for family in &lineage.families {
            self.family(family, objects)?;
        }
        for stranger in kin.iter().filter(|kin| lineage.strangers.contains(&kin.relation)) {
            self.stranger(stranger)?;
        }
        let is_protected = |kin: &&Kin| kin.root.is_some() && touched.contains(&Oid::from(kin.relation));
        for kin in kin.iter().filter(is_protected) {
            if let (true, Some(danger)) = (self.statement.changes_owner, &kin.owner_danger) {
                let (table, owner) = (protected::qualified_name_of(Oid::from(kin.relation))?, kin.owner.clone());
                self.object_to(TenancyError::OwnerUnbound { table, owner, danger: danger.clone() })?;
            }
            let rules =
                objects.iter().filter(|object| object.kind == "rule" && object.relation.to_u32() == kin.relation);
            for rule in rules.filter_map(|rule| rule.name.clone()) {
                let table = protected::qualified_name_of(Oid::from(kin.relation))?;
                self.object_to(TenancyError::RuleOnProtected { table, rule })?;
            }
        }
        Ok(())
    }

    /// Judges a family that is on record: carries out what its growth needs, and objects to what it lost.
    fn family(&self, family: &Family, objects: &[Touched]) -> Result<(), TenancyError> {
        let view = spi::Snapshot::Latest;
        let root = Oid::from(family.root);
        let Some(entry) = store::entries(view, &[root])?.remove(&root) else { return Ok(()) };
        let request = entry.request();
        let members: Vec<Oid> = family.members.iter().copied().map(Oid::from).collect();
        let mut facts = spi::undisturbed(|| store::facts(root, store::describe_all(members, view)?, &request, view))?;
        store::leave_kept_keys(&mut facts, view)?;
        for table in &facts.family {
            self.policies(table, &request, objects)?;
        }
        if self.statement.renames_column {
            store::follow_tenant_column(root)?;
        }
        // Planned as if no FORCE bound the owner: what has to be lifted for growth alone is known only after the judgement.
        let steps = match plan::protect(&facts, &Request { is_bound_as_owner: false, ..request.clone() }) {
            Ok(steps) => steps,
            Err(TenancyError::NoTenantColumn { table, column }) => {
                return self.object_to_loss(table, vec![format!("column {column}")]);
            }
            Err(refusal) => return self.object_to(refusal),
        };
        let settled = store::settled(root, &facts, view)?;
        let Judgement { growth, drift } = drift::judge(steps, &settled);
        for (table, lost) in drift {
            self.object_to_loss(table, lost)?;
        }
        let is_new = |table: &&Table| !settled.contains(&table.name);
        let new: Vec<QualifiedName> = facts.family.iter().filter(is_new).map(|table| table.name.clone()).collect();
        let (notes, growth): (Vec<Step>, Vec<Step>) =
            growth.into_iter().partition(|step| matches!(step, Step::Note { .. }));
        if self.statement.adds_key {
            notes.iter().try_for_each(store::execute)?;
        }
        if growth.is_empty() && new.is_empty() {
            return Ok(());
        }
        if self.mode == DdlGuard::Warn {
            let tables = if new.is_empty() { vec![protected::qualified_name_of(root)?] } else { new };
            for table in tables {
                spi::warn(&TenancyError::MemberUnprotected { table, root: protected::qualified_name_of(root)? });
            }
            return Ok(());
        }
        store::refuse_strangers(&facts, &growth)?;
        let growth = if request.is_bound_as_owner { step::lift_force(growth, &facts.families()) } else { growth };
        growth.iter().try_for_each(store::execute_for_guard)?;
        spi::undisturbed(|| store::record(root, &facts, &request))?;
        for table in new {
            spi::notice(&format!("table {table} is protected like {}", protected::qualified_name_of(root)?));
        }
        Ok(())
    }

    fn object_to_loss(&self, table: QualifiedName, lost: Vec<String>) -> Result<(), TenancyError> {
        self.object_to(TenancyError::ProtectionLost { table, lost, is_refused: self.is_refusing() })
    }

    /// Judges the policies of the user's own that the statement made or changed.
    fn policies(&self, table: &Table, request: &Request, objects: &[Touched]) -> Result<(), TenancyError> {
        let column = (request.access != Access::Reference).then_some(&request.column);
        let touched = objects.iter().filter(|object| object.kind == "policy" && object.relation.to_u32() == table.oid);
        for policy in touched.filter_map(|object| table.policy(object.name.as_ref()?)) {
            let (table_name, name) = (table.name.clone(), policy.name.clone());
            match drift::policy_fault(table, policy, column) {
                Some(PolicyFault::TrustsSetting) => {
                    self.object_to(TenancyError::PolicyTrustsSetting { table: table_name, policy: name })?;
                }
                Some(PolicyFault::WidensTenant) => {
                    self.object_to(TenancyError::PolicyWidens { table: table_name, policy: name })?;
                }
                Some(PolicyFault::HasNoEffect) => {
                    spi::warn(&TenancyError::PolicyWithoutEffect { table: table_name, policy: name });
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Judges a table that no record knows: it is new, moved or renamed, or was left as it is.
    fn stranger(&self, kin: &Kin) -> Result<(), TenancyError> {
        let brings = |column: &Ident| match &self.statement.kind {
            Kind::BringsTables => true,
            Kind::AddsColumns(columns) => columns.iter().any(|added| added == column.as_str()),
            Kind::Harmless | Kind::Other => false,
        };
        let relation = Oid::from(kin.relation);
        if kin.kind == 'f' {
            if let Some(column) = kin.known_column.as_ref().filter(|column| brings(column)) {
                spi::warn(&TenancyError::ForeignTableOpen {
                    table: protected::qualified_name_of(relation)?,
                    column: column.clone(),
                });
            }
            return Ok(());
        }
        if let Some((column, access)) = kin.schema.as_ref().filter(|(column, _)| brings(column)) {
            let Some(table) = store::describe_one(relation, spi::Snapshot::Latest)? else { return Ok(()) };
            let request = store::default_request(column.clone(), *access);
            if plan::left_out(&table, &request).is_none() {
                return self.protect_new(&table, &request);
            }
        }
        match kin.known_column.as_ref().filter(|column| brings(column)) {
            Some(column) => {
                let table = protected::qualified_name_of(relation)?;
                // The log grows by partitions of its own, which no role but an owner of ours can read.
                if table.schema.as_str() != OUR_SCHEMA {
                    spi::warn(&TenancyError::NewTableUnprotected { table, column: column.clone() });
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn protect_new(&self, table: &Table, request: &Request) -> Result<(), TenancyError> {
        if self.mode == DdlGuard::Warn {
            let column = request.column.clone();
            spi::warn(&TenancyError::NewTableUnprotected { table: table.name.clone(), column });
            return Ok(());
        }
        store::protect_for_guard(Oid::from(table.oid), request)?;
        spi::notice(&format!("table {} is protected, as all of its schema", table.name));
        Ok(())
    }

    /// Judges what is no table: it could carry rows past row security.
    fn object(&self, object: &Touched) -> Result<(), TenancyError> {
        match object.kind.as_str() {
            "relation" => views::judge(object.relation, self.statement.defines_view)?,
            "function" => views::judge_function(object.object)?,
            "publication" => object.name.as_ref().map_or(Ok(None), views::judge_publication)?,
            _ => None,
        }
        .map_or(Ok(()), |fault| self.object_to(fault))
    }
}
