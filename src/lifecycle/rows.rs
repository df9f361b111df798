//! What `enable_stamps` and `enable_soft_delete` have in common: a family of tables, its columns and triggers, and steps.

use crate::error::{RowsError, TenancyError};
use crate::model::{Ident, QualifiedName, Sql};
use crate::pg::{Oid, role, spi};
use serde::Deserialize;

/// A table, partition or child, as `tenancy_internal.describe_rows` describes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Member {
    pub oid: u32,
    pub name: QualifiedName,
    /// `pg_class.relkind`.
    pub kind: char,
    pub is_temporary: bool,
    pub is_system: bool,
    pub is_partition: bool,
    /// What it is a partition or child of.
    pub parent: Option<QualifiedName>,
    pub is_owned: bool,
    pub columns: Vec<Column>,
    pub triggers: Vec<Trigger>,
    /// The names of its policies.
    pub policies: Vec<Ident>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Column {
    pub name: Ident,
    /// As a user writes it.
    pub type_name: Box<str>,
    pub is_generated: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Trigger {
    pub name: Ident,
    /// `pg_trigger.tgtype`.
    pub kind: i16,
    /// `pg_trigger.tgenabled`.
    pub enabled: char,
    /// The function it calls, qualified.
    pub function: Box<str>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub action: &'static str,
    /// None for a note.
    pub statement: Option<Sql>,
    /// The strongest table lock that the statement takes.
    pub lock: Option<&'static str>,
    pub reason: String,
    /// It names what is ours, which no other role may name.
    pub is_ours: bool,
}

/// The strongest lock of ALTER TABLE.
pub const ALONE: Option<&str> = Some("ACCESS EXCLUSIVE");

impl Step {
    /// A step that takes ACCESS EXCLUSIVE.
    pub fn alone(action: &'static str, statement: Sql, reason: impl Into<String>) -> Self {
        Self { action, statement: Some(statement), lock: ALONE, reason: reason.into(), is_ours: false }
    }

    /// Something to know.
    pub fn note(reason: String) -> Self {
        Self { action: "note", statement: None, lock: None, reason, is_ours: false }
    }
}

/// A column that is needed.
pub struct Wanted {
    pub name: &'static str,
    pub type_name: &'static str,
    pub reason: &'static str,
}

pub const MOMENT: &str = "timestamp with time zone";
pub const TEXT: &str = "text";

/// Refuses what is no table for itself.
pub fn refuse_unfit(family: &[Member], target: Oid) -> Result<&Member, TenancyError> {
    let Some(root) = family.first() else { return Err(TenancyError::UnknownRelation { oid: target.to_u32() }) };
    let relation = root.name.clone();
    let kind = match root.kind {
        'r' | 'p' => None,
        'v' => Some("view"),
        'm' => Some("materialized view"),
        'f' => Some("foreign table"),
        'i' | 'I' => Some("index"),
        'S' => Some("sequence"),
        _ => Some("relation of another kind"),
    };
    Err(match (kind, &root.parent) {
        (Some(kind), _) => RowsError::NotATable { relation, kind },
        _ if root.is_temporary => RowsError::TemporaryTable { relation },
        _ if root.is_system => RowsError::SystemTable { relation },
        (None, Some(parent)) => RowsError::IsPartition { relation, parent: parent.clone() },
        (None, None) => match family.iter().find(|member| member.kind == 'f') {
            Some(member) => RowsError::ForeignMember { table: relation, member: member.name.clone() },
            None => return Ok(root),
        },
    }
    .into())
}

/// The steps that give the root its columns; partitions and children get them with it.
pub fn add_columns(root: &Member, wanted: &[Wanted]) -> Result<Vec<Step>, TenancyError> {
    let mut steps = Vec::new();
    for column in wanted {
        let name = ident(column.name);
        match root.columns.iter().find(|found| found.name == name) {
            None => {
                let sql = alter(&root.name).then(" ADD COLUMN ").ident(&name).then(" ").then(column.type_name);
                steps.push(Step::alone("add column", sql, column.reason));
            }
            Some(found) if found.is_generated => {
                return Err(RowsError::GeneratedColumn { table: root.name.clone(), column: name }.into());
            }
            Some(found) if !fits(&found.type_name, column.type_name) => {
                let (table, found) = (root.name.clone(), found.type_name.to_string());
                return Err(RowsError::WrongType { table, column: name, found, wanted: column.type_name }.into());
            }
            Some(_) => {}
        }
    }
    Ok(steps)
}

/// Any length of text would have to be cut.
fn fits(found: &str, wanted: &str) -> bool {
    found == wanted || wanted == TEXT && found == "character varying"
}

/// A trigger that is needed.
pub struct WantedTrigger {
    pub name: &'static str,
    pub function: &'static str,
    /// `BEFORE ... ON `; the second for tables whose rows can go from one partition to another.
    pub events: [&'static str; 2],
    /// `pg_trigger.tgtype` of both.
    pub kinds: [i16; 2],
    pub call: &'static str,
    pub reason: &'static str,
}

/// The steps that give each member its trigger. A partition has its parent's.
pub fn add_triggers(family: &[Member], wanted: &WantedTrigger) -> Result<Vec<Step>, TenancyError> {
    let mut steps = Vec::new();
    let name = ident(wanted.name);
    for member in family {
        let form = usize::from(member.kind == 'p' || member.is_partition);
        let add = || {
            let sql = Sql::text("CREATE TRIGGER ")
                .ident(&name)
                .then(wanted.events[form])
                .name(&member.name)
                .then(" FOR EACH ROW EXECUTE FUNCTION ")
                .then(wanted.call);
            let lock = Some("SHARE ROW EXCLUSIVE");
            Step { action: "add trigger", statement: Some(sql), lock, reason: wanted.reason.into(), is_ours: true }
        };
        match member.triggers.iter().find(|found| found.name == name) {
            Some(found) if &*found.function != wanted.function => {
                return Err(RowsError::ReservedTrigger { table: member.name.clone(), trigger: name }.into());
            }
            Some(found) if found.kind != wanted.kinds[form] && !member.is_partition => {
                steps.push(drop_trigger(member, &name));
                steps.push(add());
            }
            Some(found) if found.enabled != 'O' => {
                let sql = alter(&member.name).then(" ENABLE TRIGGER ").ident(&name);
                let (lock, reason) = (Some("SHARE ROW EXCLUSIVE"), "it does not fire".into());
                steps.push(Step { action: "enable trigger", statement: Some(sql), lock, reason, is_ours: false });
            }
            None if !member.is_partition => steps.push(add()),
            _ => {}
        }
    }
    Ok(steps)
}

/// The steps that take the triggers off.
pub fn drop_triggers(family: &[Member], name: &'static str, function: &str) -> Vec<Step> {
    let name = ident(name);
    let has = |member: &&Member| {
        member.triggers.iter().any(|found| found.name == name && &*found.function == function) && !member.is_partition
    };
    family.iter().filter(has).map(|member| drop_trigger(member, &name)).collect()
}

fn drop_trigger(member: &Member, name: &Ident) -> Step {
    let sql = Sql::text("DROP TRIGGER ").ident(name).then(" ON ").name(&member.name);
    Step::alone("drop trigger", sql, "it is not needed any more")
}

/// The steps that drop those of the columns that are there.
pub fn drop_columns(root: &Member, columns: &[String], reason: &'static str) -> Vec<Step> {
    let found = root.columns.iter().filter(|column| columns.iter().any(|name| name == column.name.as_str()));
    found
        .map(|column| Step::alone("drop column", alter(&root.name).then(" DROP COLUMN ").ident(&column.name), reason))
        .collect()
}

/// The columns that steps add.
pub fn added(root: &Member, wanted: &[Wanted]) -> Vec<String> {
    let is_new = |name: &&str| !root.columns.iter().any(|column| column.name.as_str() == *name);
    wanted.iter().map(|column| column.name).filter(is_new).map(str::to_owned).collect()
}

/// The beginning of an ALTER TABLE.
pub fn alter(table: &QualifiedName) -> Sql {
    Sql::text("ALTER TABLE ").name(table)
}

/// One of our names.
pub fn ident(name: &'static str) -> Ident {
    Ident::new(name).expect("our names are names")
}

/// A relation with its partitions and inheritance children, parents first.
pub fn family(target: Oid, view: spi::Snapshot) -> Result<Vec<Member>, TenancyError> {
    let asking = role::current();
    let sql = Sql::text("SELECT description::text FROM tenancy_internal.describe_rows($1, $2)");
    let described = spi::as_extension_owner(|| {
        spi::read_in(view, &sql, &[target.into(), asking.into()], |row| row.must::<String>(1))
    })?;
    let parsed = |text: String| {
        serde_json::from_str(&text).map_err(|error| TenancyError::Internal {
            what: format!("a description in the catalog is malformed: {error}"),
        })
    };
    described.into_iter().map(parsed).collect()
}

/// Refuses a role that may not alter the family.
pub fn refuse_strangers(family: &[Member]) -> Result<(), TenancyError> {
    match family.iter().find(|member| !member.is_owned) {
        Some(member) => Err(TenancyError::NotOwner { table: member.name.clone(), role: role::current_role() }),
        None => Ok(()),
    }
}

/// Says which triggers of the users do not fire when rows of a table are removed by us.
pub fn tell_silent_triggers(root: &Member) {
    const DELETE: i16 = 8;
    let is_silent =
        |trigger: &&Trigger| trigger.kind & DELETE != 0 && !trigger.function.starts_with("tenancy_internal.");
    let names: Vec<String> = root.triggers.iter().filter(is_silent).map(|trigger| trigger.name.to_string()).collect();
    if !names.is_empty() {
        let (name, names) = (&root.name, names.join(", "));
        spi::notice(&format!("triggers of {name} do not fire for rows that are removed so: {names}"));
    }
}

/// Takes the lock under which a family is changed.
pub fn lock(root: &Member) -> Result<(), TenancyError> {
    spi::run(&Sql::text("LOCK TABLE ").name(&root.name).then(" IN ACCESS EXCLUSIVE MODE"), &[])
}

/// Carries steps out; says what is to be known.
pub fn execute(steps: &[Step]) -> Result<(), TenancyError> {
    for step in steps {
        match &step.statement {
            None => spi::notice(&step.reason),
            Some(sql) if step.is_ours => spi::own_work(|| spi::as_extension_owner(|| spi::run(sql, &[])))?,
            Some(sql) => spi::own_work(|| spi::run(sql, &[]))?,
        }
    }
    Ok(())
}

/// Rows of a table of ours, by the extension's owner.
pub fn private<T>(work: impl FnOnce() -> Result<T, TenancyError>) -> Result<T, TenancyError> {
    spi::as_extension_owner(work)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn member(oid: u32, name: &'static str) -> Member {
        Member {
            oid,
            name: QualifiedName { schema: ident("public"), name: ident(name) },
            kind: 'r',
            is_temporary: false,
            is_system: false,
            is_partition: false,
            parent: None,
            is_owned: true,
            columns: vec![column("id", "bigint")],
            triggers: Vec::new(),
            policies: Vec::new(),
        }
    }

    pub fn column(name: &'static str, type_name: &str) -> Column {
        Column { name: ident(name), type_name: type_name.into(), is_generated: false }
    }

    pub fn statements(steps: &[Step]) -> Vec<String> {
        steps.iter().filter_map(|step| step.statement.as_ref()).map(|sql| sql.as_str().to_owned()).collect()
    }

    #[test]
    fn what_is_no_table_for_itself_is_refused() {
        let refused = |change: fn(&mut Member)| {
            let mut table = member(1, "t");
            change(&mut table);
            match refuse_unfit(&[table], Oid::from(1)) {
                Err(TenancyError::Rows(refusal)) => refusal,
                other => panic!("{other:?}"),
            }
        };
        assert!(matches!(refused(|t| t.kind = 'v'), RowsError::NotATable { kind: "view", .. }));
        assert!(matches!(refused(|t| t.is_temporary = true), RowsError::TemporaryTable { .. }));
        assert!(matches!(refused(|t| t.is_system = true), RowsError::SystemTable { .. }));
        assert!(matches!(refused(|t| t.parent = Some(t.name.clone())), RowsError::IsPartition { .. }));
        let foreign = Member { kind: 'f', parent: Some(member(1, "t").name), ..member(2, "f") };
        let family = [member(1, "t"), foreign];
        assert!(matches!(
            refuse_unfit(&family, Oid::from(1)),
            Err(TenancyError::Rows(RowsError::ForeignMember { .. }))
        ));
    }
}
