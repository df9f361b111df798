//! Soft delete: what an application deletes is hidden and kept, until it is restored or purged.
//! SQL: sql/lifecycle/soft_delete.sql. The policy's function and what makes a DELETE an UPDATE: pg::deleted. Trigger: pg::rows.

use super::rows::{self, MOMENT, Member, Step, TEXT, Wanted, WantedTrigger};
use super::store;
use crate::error::{RowsError, TenancyError};
use crate::model::policy::Spec;
use crate::model::{Deparsed, Ident, QualifiedName, Sql};
use crate::pg::{Oid, deleted, policies, protected, role, spi, table_work};
use pgrx::AnyElement;
use serde::Deserialize;
use std::collections::HashSet;

const COLUMNS: [Wanted; 2] = [
    Wanted { name: "deleted_at", type_name: MOMENT, reason: "when the row was deleted; NULL for one that was not" },
    Wanted {
        name: "deleted_by",
        type_name: TEXT,
        reason: "who deleted it: app.current_user_id, else the session's role",
    },
];

const NAME: &str = "tenancy_soft_delete";
const FUNCTION: &str = "tenancy_internal.keep_row";
const TRIGGER: WantedTrigger = WantedTrigger {
    name: NAME,
    function: FUNCTION,
    events: [" BEFORE DELETE OR UPDATE ON "; 2],
    // 1 for each row, 2 BEFORE, 8 DELETE, 16 UPDATE
    kinds: [27; 2],
    call: "tenancy_internal.keep_row()",
    reason: "writes who deleted a row, and keeps it",
};

const POLICY: &str = "tenancy_not_deleted";
const CONDITION: &str = "((deleted_at IS NULL) OR tenancy_internal.shows_deleted())";
const PREDICATE: &str = "(deleted_at IS NULL)";

/// A unique index of a table's own that is no primary key and has none in it, as `tenancy_internal.describe_unique_keys`
/// describes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct UniqueKey {
    oid: u32,
    table: QualifiedName,
    name: Ident,
    is_constraint: bool,
    /// `CREATE UNIQUE INDEX ... (...)` without its predicate; None where it cannot be told.
    head: Option<Deparsed>,
    /// `UNIQUE (...)`, as a constraint of these columns has it.
    constraint: Option<Deparsed>,
    predicate: Option<Deparsed>,
    /// Why it must stay as it is.
    obstacle: Option<String>,
    /// What it was before we made it partial.
    before: Option<Before>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Before {
    was_constraint: bool,
    predicate: Option<Deparsed>,
}

/// What the plans are made from.
struct Facts {
    family: Vec<Member>,
    keys: Vec<UniqueKey>,
    /// Foreign keys that refer to the table.
    referring: Vec<String>,
    /// The members whose policy of our name is the one that we make.
    hidden: HashSet<u32>,
}

/// The steps from a family as it stands to one whose deleted rows are kept; empty when nothing is to do.
fn plan(facts: &Facts, target: Oid) -> Result<Vec<Step>, TenancyError> {
    let root = rows::refuse_unfit(&facts.family, target)?;
    let mut steps = rows::add_columns(root, &COLUMNS)?;
    steps.extend(rows::add_triggers(&facts.family, &TRIGGER)?);
    let name = rows::ident(POLICY);
    for member in &facts.family {
        match member.policies.contains(&name) {
            true if facts.hidden.contains(&member.oid) => continue,
            true => return Err(RowsError::ReservedPolicy { table: member.name.clone(), policy: name }.into()),
            false => {
                let sql = Sql::text("CREATE POLICY tenancy_not_deleted ON ")
                    .name(&member.name)
                    .then(" AS RESTRICTIVE USING (((deleted_at IS NULL) OR tenancy_internal.shows_deleted()))");
                let step = Step::alone("add policy", sql, "hides deleted rows from everybody whom row security binds");
                steps.push(Step { is_ours: true, ..step });
            }
        }
    }
    for key in facts.keys.iter().filter(|key| key.before.is_none() && !key.is_partial()) {
        steps.extend(key.made_partial());
    }
    if !steps.is_empty() {
        steps.extend(facts.referring.iter().map(|key| {
            Step::note(format!("{key} refers to {}: rows may go on referring to a deleted one", root.name))
        }));
    }
    Ok(steps)
}

/// Whether a step does something.
fn does(step: &Step) -> bool {
    step.statement.is_some()
}

/// The steps back. A key that was a constraint becomes one again.
fn unplan(facts: &Facts, columns_added: &[String]) -> Vec<Step> {
    let mut steps = rows::drop_triggers(&facts.family, NAME, FUNCTION);
    for member in &facts.family {
        if facts.hidden.contains(&member.oid) {
            let sql = Sql::text("DROP POLICY tenancy_not_deleted ON ").name(&member.name);
            steps.push(Step::alone("drop policy", sql, "no row is hidden any more"));
        }
    }
    steps.extend(facts.keys.iter().flat_map(UniqueKey::made_whole));
    if let Some(root) = facts.family.first() {
        steps.extend(rows::drop_columns(root, columns_added, "enable_soft_delete added it"));
    }
    steps
}

impl UniqueKey {
    fn is_partial(&self) -> bool {
        self.predicate.as_ref().is_some_and(|predicate| predicate.as_str().contains(PREDICATE))
    }

    fn index(&self) -> Sql {
        Sql::text("DROP INDEX ").ident(&self.table.schema).then(".").ident(&self.name)
    }

    fn made_partial(&self) -> Vec<Step> {
        let kept = |why: &str| {
            let what = "the key of a deleted row cannot be used again";
            vec![Step::note(format!("key {} of {} stays as it is, for {why}: {what}", self.name, self.table))]
        };
        if let Some(obstacle) = &self.obstacle {
            return kept(obstacle);
        }
        let Some(head) = &self.head else { return kept("its definition cannot be told") };
        let drop = if self.is_constraint {
            rows::alter(&self.table).then(" DROP CONSTRAINT ").ident(&self.name)
        } else {
            self.index()
        };
        let predicate = match &self.predicate {
            None => Sql::text(PREDICATE),
            Some(before) => Sql::text("(").deparsed(before).then(" AND ").then(PREDICATE).then(")"),
        };
        let create = Sql::text("").deparsed(head).then(" WHERE ").sql(&predicate);
        vec![
            Step::alone("drop unique key", drop, "a partial one takes its place"),
            Step {
                lock: Some("SHARE"),
                ..Step::alone("add unique key", create, "the key of a deleted row can be used again")
            },
        ]
    }

    fn made_whole(&self) -> Vec<Step> {
        let (Some(before), Some(head)) = (&self.before, &self.head) else { return Vec::new() };
        let drop = Step::alone("drop unique key", self.index(), "the one from before takes its place");
        let create = match (&self.constraint, before.was_constraint) {
            (Some(constraint), true) => {
                rows::alter(&self.table).then(" ADD CONSTRAINT ").ident(&self.name).then(" ").deparsed(constraint)
            }
            _ => match &before.predicate {
                Some(predicate) => Sql::text("").deparsed(head).then(" WHERE ").deparsed(predicate),
                None => Sql::text("").deparsed(head),
            },
        };
        vec![drop, Step::alone("add unique key", create, "as it was before enable_soft_delete")]
    }
}

fn facts(target: Oid, view: spi::Snapshot) -> Result<Facts, TenancyError> {
    let family = rows::family(target, view)?;
    let keys = Sql::text("SELECT description::text FROM tenancy_internal.describe_unique_keys($1)");
    let keys = rows::private(|| spi::read_in(view, &keys, &[target.into()], |row| row.must::<String>(1)))?;
    let parsed = |text: String| {
        serde_json::from_str(&text).map_err(|error| TenancyError::Internal {
            what: format!("a description in the catalog is malformed: {error}"),
        })
    };
    let keys = keys.into_iter().map(parsed).collect::<Result<_, _>>()?;
    let referring = Sql::text("SELECT described FROM tenancy_internal.foreign_keys_to($1)");
    let referring = spi::as_extension_owner(|| spi::read_in(view, &referring, &[target.into()], |row| row.must(1)))?;
    let hidden = hidden(&family)?;
    Ok(Facts { family, keys, referring, hidden })
}

/// The members whose policy of our name is the one that we make.
fn hidden(family: &[Member]) -> Result<HashSet<u32>, TenancyError> {
    let wanted = [Spec::restrictive(POLICY, '*', Some(Sql::text(CONDITION)), None)];
    let mut hidden = HashSet::new();
    // Without the column the policy is another's, and ours could not even be read.
    let has_column = |member: &&Member| member.columns.iter().any(|column| column.name.as_str() == COLUMNS[0].name);
    for member in family.iter().filter(has_column) {
        let judged = policies::compare(Oid::from(member.oid), &wanted)?;
        if judged.iter().any(|policy| policy.differences.as_ref().is_some_and(Vec::is_empty)) {
            hidden.insert(member.oid);
        }
    }
    Ok(hidden)
}

/// The steps that `enable` would take.
fn planned(target: Oid) -> Result<Vec<Step>, TenancyError> {
    spi::undisturbed(|| {
        let facts = facts(target, spi::Snapshot::Statement)?;
        let steps = plan(&facts, target)?;
        refuse_unprotected(&facts.family)?;
        rows::refuse_strangers(&facts.family)?;
        Ok(steps)
    })
}

/// A policy says nothing where row security is off.
fn refuse_unprotected(family: &[Member]) -> Result<(), TenancyError> {
    for member in family {
        if !matches!(protected::find(Oid::from(member.oid))?.as_deref(), Some(protected::Protected::Table(_))) {
            return Err(TenancyError::NotProtected { table: member.name.clone() });
        }
    }
    Ok(())
}

/// Keeps the rows of `target`, its partitions and children that applications delete.
fn enable(target: Oid) -> Result<(), TenancyError> {
    if !planned(target)?.iter().any(does) && recorded(target)?.is_some() {
        return Ok(());
    }
    spi::undisturbed(|| {
        let family = rows::family(target, spi::Snapshot::Latest)?;
        rows::lock(rows::refuse_unfit(&family, target)?)?;
        let before = facts(target, spi::Snapshot::Latest)?;
        let root = rows::refuse_unfit(&before.family, target)?;
        rows::execute(&plan(&before, target)?)?;
        let after = facts(target, spi::Snapshot::Latest)?;
        rows::private(|| {
            let sql = Sql::text(
                "INSERT INTO tenancy_internal.soft_deleted_tables AS s (relation, columns_added) VALUES ($1, $2)
                 ON CONFLICT (relation) DO UPDATE
                    SET columns_added = ARRAY(SELECT pg_catalog.unnest(s.columns_added) UNION
                                              SELECT pg_catalog.unnest(EXCLUDED.columns_added) ORDER BY 1)",
            );
            spi::run(&sql, &[target.into(), rows::added(root, &COLUMNS).into()])?;
            for was in before.keys.iter().filter(|key| !key.is_partial()) {
                let same = |key: &&UniqueKey| key.table == was.table && key.name == was.name && key.is_partial();
                let Some(now) = after.keys.iter().find(same) else { continue };
                let sql = Sql::text(
                    "INSERT INTO tenancy_internal.soft_deleted_keys (index, root, was_constraint, predicate)
                     VALUES ($1, $2, $3, $4)",
                );
                let predicate = was.predicate.as_ref().map(Deparsed::as_str);
                let index = Oid::from(now.oid);
                spi::run(&sql, &[index.into(), target.into(), was.is_constraint.into(), predicate.into()])?;
            }
            Ok(())
        })
    })
}

/// The columns that were added to a table whose deleted rows are kept.
fn recorded(target: Oid) -> Result<Option<Vec<String>>, TenancyError> {
    let sql = Sql::text(
        "SELECT columns_added FROM tenancy_internal.soft_deleted_tables WHERE relation = $1::pg_catalog.regclass",
    );
    rows::private(|| Ok(spi::write(&sql, &[target.into()], |row| row.must(1))?.into_iter().next()))
}

/// What becomes of deleted rows when they are kept no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Purge,
    Restore,
}

impl Fate {
    const NAMES: &[&str] = &["purge", "restore"];

    fn given(name: Option<&str>) -> Result<Option<Self>, TenancyError> {
        match name {
            None => Ok(None),
            Some("purge") => Ok(Some(Self::Purge)),
            Some("restore") => Ok(Some(Self::Restore)),
            Some(other) => Err(TenancyError::UnknownChoice {
                argument: "deleted_rows",
                given: other.to_owned(),
                choices: Self::NAMES,
            }),
        }
    }
}

/// Ends it. Deleted rows would be seen again by all: somebody has to say what becomes of them.
fn disable(target: Oid, fate: Option<Fate>) -> Result<(), TenancyError> {
    let root = spi::undisturbed(|| {
        let family = rows::family(target, spi::Snapshot::Latest)?;
        let Some(root) = family.first() else { return Err(TenancyError::UnknownRelation { oid: target.to_u32() }) };
        if recorded(target)?.is_none() {
            return Err(RowsError::NotSoftDeleted { table: root.name.clone() }.into());
        }
        rows::refuse_strangers(&family)?;
        rows::lock(root)?;
        let sql = Sql::text("SELECT EXISTS (SELECT FROM ").name(&root.name).then(" WHERE deleted_at IS NOT NULL)");
        let has_deleted = store::unhindered(|| spi::write(&sql, &[], |row| row.must::<bool>(1)))?;
        if fate.is_none() && has_deleted.contains(&true) {
            return Err(RowsError::DeletedRows { table: root.name.clone() }.into());
        }
        Ok(root.name.clone())
    })?;
    if fate == Some(Fate::Purge) {
        let sql = Sql::text("SELECT tenancy_internal.refuse_held_rows($1::pg_catalog.regclass)");
        store::unhindered(|| spi::run(&sql, &[target.into()]))?;
    }
    let settle = match fate {
        None => None,
        Some(Fate::Purge) => Some(Sql::text("DELETE FROM ").name(&root).then(" WHERE deleted_at IS NOT NULL")),
        // The key of a row that is deleted may have another row now: the whole key is made after this, and says so.
        Some(Fate::Restore) => {
            Some(Sql::text("UPDATE ").name(&root).then(" SET deleted_at = NULL WHERE deleted_at IS NOT NULL"))
        }
    };
    if let Some(sql) = settle {
        table_work::change(target, &sql, &[], |_| Ok(()))?;
    }
    spi::undisturbed(|| {
        let added = recorded(target)?.unwrap_or_default();
        let facts = facts(target, spi::Snapshot::Latest)?;
        rows::private(|| {
            let keys = Sql::text("DELETE FROM tenancy_internal.soft_deleted_keys WHERE root = $1::pg_catalog.regclass");
            let table =
                Sql::text("DELETE FROM tenancy_internal.soft_deleted_tables WHERE relation = $1::pg_catalog.regclass");
            spi::run(&keys, &[target.into()])?;
            spi::run(&table, &[target.into()])
        })?;
        rows::execute(&unplan(&facts, &added))
    })
}

/// Makes a deleted row one that is not. The caller finds it with his own rights, to change it too; what triggers an administrator's
/// call would fire are left out, for they are the table's owner's.
fn restore(target: Oid, key: AnyElement) -> Result<(), TenancyError> {
    if recorded(target)?.is_none() {
        return Err(RowsError::NotSoftDeleted { table: protected::qualified_name_of(target)? }.into());
    }
    let table = protected::qualified_name_of(target)?;
    let sql = Sql::text("SELECT column_name::text, is_given, is_needed FROM tenancy_internal.row_key($1, $2)");
    let key = || spi::jsonb(Some(key));
    let columns = spi::with_catalog_names(|| {
        spi::as_extension_owner(|| {
            spi::read(&sql, &[target.into(), key()], |row| {
                Ok((Ident::new(&row.must::<String>(1)?)?, row.must::<bool>(2)?, row.must::<bool>(3)?))
            })
        })
    })?;
    let needed: Vec<String> =
        columns.iter().filter(|(_, _, is_needed)| *is_needed).map(|(name, ..)| name.to_string()).collect();
    if needed.is_empty() {
        return Err(RowsError::NoKey { table }.into());
    }
    if columns.iter().any(|(_, is_given, is_needed)| *is_needed && !is_given) {
        return Err(RowsError::NotAKey { table, columns: needed }.into());
    }
    let mut find = Sql::text("SELECT t.ctid::pg_catalog.text, t.tableoid FROM ")
        .name(&table)
        .then(" AS t, pg_catalog.jsonb_populate_record(NULL::")
        .name(&table)
        .then(", $1) AS k WHERE t.deleted_at IS NOT NULL");
    for (column, ..) in columns.iter().filter(|(_, is_given, _)| *is_given) {
        find = find.then(" AND t.").ident(column).then(" = k.").ident(column);
    }
    let find = find.then(" FOR UPDATE OF t");
    deleted::showing(|| {
        let found = spi::with_catalog_names(|| {
            spi::write(&find, &[key()], |row| Ok((row.must::<String>(1)?, row.must::<Oid>(2)?)))
        })?;
        if found.is_empty() {
            return Err(RowsError::NoDeletedRow { table }.into());
        }
        let restore = Sql::text("UPDATE ").name(&table).then(
            " SET deleted_at = NULL, deleted_by = NULL
               WHERE ctid OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.tid AND tableoid OPERATOR(pg_catalog.=) $2",
        );
        found.into_iter().try_for_each(|(place, part)| {
            let arguments = [place.into(), part.into()];
            if role::is_privileged(role::current()) {
                table_work::change(target, &restore, &arguments, |_| Ok(())).map(drop)
            } else {
                spi::run(&restore, &arguments)
            }
        })
    })
}

/// Whether all that keeps deleted rows of a table is in place.
fn is_enforced(target: Oid) -> Result<bool, TenancyError> {
    let facts = spi::undisturbed(|| facts(target, spi::Snapshot::Statement))?;
    // A key that was added since is no fault.
    let is_missing = |step: &Step| does(step) && !step.action.ends_with("unique key");
    Ok(plan(&facts, target).is_ok_and(|steps| !steps.iter().any(is_missing)))
}

#[pgrx::pg_schema]
pub(super) mod tenancy {
    use crate::pg::{Oid, given, on_table};
    use pgrx::{AnyElement, pg_sys::panic::ErrorReport, prelude::*};

    /// Keeps the rows of `target`, its partitions and children that a role whom row security binds deletes, and hides them.
    ///
    /// 42704 for a table that is not protected, 42804 for a column of another type, 42809 for what is no table of the user's
    /// own, 42501 without ownership.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.enable_soft_delete(target regclass) RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn enable_soft_delete(target: Option<Oid>) -> Result<(), ErrorReport> {
        Ok(on_table(target, super::enable)?)
    }

    /// Ends what `enable_soft_delete` began. `deleted_rows` is `purge` or `restore`; 55000 where there are some and nobody
    /// said.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.disable_soft_delete(target regclass, deleted_rows text DEFAULT NULL) RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn disable_soft_delete(target: Option<Oid>, deleted_rows: Option<&str>) -> Result<(), ErrorReport> {
        let fate = super::Fate::given(deleted_rows)?;
        Ok(on_table(target, |target| super::disable(target, fate))?)
    }

    /// The steps `enable_soft_delete` would take; changes nothing.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.plan_soft_delete(target regclass)
RETURNS TABLE (step integer, action text, statement text, lock text, reason text)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    #[expect(clippy::type_complexity, reason = "the columns of the answer")]
    fn plan_soft_delete(
        target: Option<Oid>,
    ) -> Result<
        TableIterator<
            'static,
            (
                name!(step, i32),
                name!(action, &'static str),
                name!(statement, Option<String>),
                name!(lock, Option<&'static str>),
                name!(reason, String),
            ),
        >,
        ErrorReport,
    > {
        let steps = on_table(target, super::planned)?;
        Ok(TableIterator::new((1..).zip(steps).map(|(number, step)| {
            (number, step.action, step.statement.map(|sql| sql.to_string()), step.lock, step.reason)
        })))
    }

    /// Makes a deleted row of `target` one that is not; `key` is its primary key. 42704 where no deleted row has it, 22023 for
    /// what is no key.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.restore_row(target regclass, key jsonb) RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn restore_row(target: Option<Oid>, key: Option<AnyElement>) -> Result<(), ErrorReport> {
        let key = given("key", key)?;
        Ok(on_table(target, |target| super::restore(target, key))?)
    }
}

#[pgrx::pg_schema]
pub(super) mod tenancy_internal {
    use crate::pg::{Oid, given};
    use pgrx::{pg_sys::panic::ErrorReport, prelude::*};

    /// Whether all that keeps deleted rows of a table is in place.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy_internal.is_soft_deleted(relation oid) RETURNS boolean
LANGUAGE c STABLE AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn is_soft_deleted(relation: Option<Oid>) -> Result<bool, ErrorReport> {
        Ok(super::is_enforced(given("relation", relation)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::rows::tests::{member, statements};
    use super::*;

    fn key(is_constraint: bool, predicate: Option<&str>) -> UniqueKey {
        let deparsed = |text: &str| Deparsed::from_catalog(text.to_owned());
        UniqueKey {
            oid: 2,
            table: member(1, "notes").name,
            name: rows::ident("slug"),
            is_constraint,
            head: Some(deparsed("CREATE UNIQUE INDEX slug ON public.notes USING btree (slug)")),
            constraint: Some(deparsed("UNIQUE (slug)")),
            predicate: predicate.map(deparsed),
            obstacle: None,
            before: None,
        }
    }

    #[test]
    fn a_unique_key_becomes_partial_and_what_it_was() {
        let constraint = key(true, None);
        assert_eq!(
            statements(&constraint.made_partial()),
            [
                "ALTER TABLE public.notes DROP CONSTRAINT slug",
                "CREATE UNIQUE INDEX slug ON public.notes USING btree (slug) WHERE (deleted_at IS NULL)"
            ]
        );
        let before = Some(Before { was_constraint: true, predicate: None });
        let partial = UniqueKey { before, ..key(false, Some(PREDICATE)) };
        assert_eq!(
            statements(&partial.made_whole()),
            ["DROP INDEX public.slug", "ALTER TABLE public.notes ADD CONSTRAINT slug UNIQUE (slug)"]
        );
        let narrow = key(false, Some("(slug IS NOT NULL)"));
        assert!(statements(&narrow.made_partial())[1].ends_with("WHERE ((slug IS NOT NULL) AND (deleted_at IS NULL))"));
    }

    #[test]
    fn a_key_that_is_needed_whole_stays_and_says_why() {
        let referred = UniqueKey { obstacle: Some("foreign key fk of a refers to it".into()), ..key(true, None) };
        let steps = referred.made_partial();
        assert!(statements(&steps).is_empty() && steps[0].reason.contains("foreign key fk of a refers to it"));
    }

    #[test]
    fn every_member_gets_the_policy_and_the_plan_is_empty_when_it_is_done() {
        let part = Member { is_partition: true, parent: Some(member(1, "log").name), ..member(2, "log_1") };
        let mut family = vec![Member { kind: 'p', ..member(1, "log") }, part];
        let facts = |family: &[Member], hidden: &[u32]| Facts {
            family: family.to_vec(),
            keys: vec![],
            referring: vec![],
            hidden: hidden.iter().copied().collect(),
        };
        let steps = statements(&plan(&facts(&family, &[]), Oid::from(1)).unwrap());
        assert_eq!(steps.iter().filter(|sql| sql.starts_with("CREATE POLICY")).count(), 2);
        assert_eq!(steps.iter().filter(|sql| sql.starts_with("CREATE TRIGGER")).count(), 1);
        for member in &mut family {
            member.policies.push(rows::ident(POLICY));
            member.columns.push(rows::tests::column("deleted_at", MOMENT));
            member.columns.push(rows::tests::column("deleted_by", TEXT));
            let function = FUNCTION.into();
            member.triggers.push(rows::Trigger { name: rows::ident(NAME), kind: 27, enabled: 'O', function });
        }
        assert!(plan(&facts(&family, &[1, 2]), Oid::from(1)).unwrap().is_empty());
        let others = plan(&facts(&family, &[1]), Oid::from(1));
        assert!(matches!(others, Err(TenancyError::Rows(RowsError::ReservedPolicy { .. }))));
    }
}
