//! What auditing a table takes: facts in, steps out.

use crate::error::{AuditError, TenancyError};
use crate::model::audit::Images;
use crate::model::{Ident, QualifiedName, Sql};
use serde::Deserialize;

/// A table, partition or child, as `tenancy_internal.describe_audit` describes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Member {
    pub oid: u32,
    pub name: QualifiedName,
    /// `pg_class.relkind`.
    pub kind: char,
    pub is_temporary: bool,
    pub is_system: bool,
    pub partition_of: Option<QualifiedName>,
    /// It is an inheritance child, or has one.
    pub inherits: bool,
    pub is_owned: bool,
    pub columns: Vec<Column>,
    pub triggers: Vec<Found>,
    /// The table it is on record as audited with.
    pub root: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Column {
    pub name: String,
    pub is_key: bool,
    pub is_generated: bool,
}

/// A table as history looks for its rows and writes them, as `tenancy_internal.describe_rows` describes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Rows {
    pub name: QualifiedName,
    pub columns: Vec<RowColumn>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RowColumn {
    pub name: Ident,
    /// The type by which it is compared: that under its domain.
    #[serde(rename = "type")]
    pub base: QualifiedName,
    pub is_key: bool,
    pub is_generated: bool,
}

impl Rows {
    /// The columns of the key, in the table's order.
    pub fn key(&self) -> impl Iterator<Item = &RowColumn> {
        self.columns.iter().filter(|column| column.is_key)
    }
}

/// What became of a column since an entry was written, as `tenancy_internal.columns_since` gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fate {
    pub name: String,
    /// Its present name; None for a column that was dropped.
    pub now: Option<String>,
    /// Its values may be others.
    pub is_redone: bool,
    /// Another column has its name.
    pub is_replaced: bool,
}

/// Why an entry's values cannot be compared with a row's, nor written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// They are values of another type, or the key is one of other columns.
    Altered,
    /// A column that they belong to is gone.
    Dropped,
}

/// Names of an entry's columns and what they are called now, as far as its values are those of the columns that a table has now.
///
/// `changed` has the columns that an UPDATE changed, None for a whole row; `holds` tells whether the entry has a value other
/// than NULL of a column; `puts_back` that undoing makes the row again.
pub fn translate<'a>(
    fates: &'a [Fate],
    rows: &Rows,
    changed: Option<&[String]>,
    puts_back: bool,
    holds: impl Fn(&str) -> bool,
) -> Result<Vec<(&'a str, &'a str)>, Unfit> {
    let is_of_key = |fate: &&Fate| rows.key().any(|column| Some(column.name.as_str()) == fate.now.as_deref());
    let key: Vec<&Fate> = fates.iter().filter(is_of_key).collect();
    if key.len() < rows.key().count() || key.iter().any(|fate| fate.is_redone) {
        return Err(Unfit::Altered);
    }
    let is_concerned = |fate: &&Fate| match changed {
        Some(changed) => changed.contains(&fate.name),
        None => holds(&fate.name),
    };
    for fate in fates.iter().filter(is_concerned) {
        if fate.is_redone && fate.now.is_some() {
            return Err(Unfit::Altered);
        }
        // A row that comes back does so without the values of what is gone for every row.
        let is_missed = changed.is_some() || puts_back && fate.is_replaced;
        if fate.now.is_none() && is_missed {
            return Err(Unfit::Dropped);
        }
    }
    let is_same = |fate: &&Fate| !fate.is_redone;
    let pairs = fates.iter().filter(is_same).filter_map(|fate| Some((fate.name.as_str(), fate.now.as_deref()?)));
    Ok(pairs.collect())
}

/// A trigger that has a name of ours.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Found {
    pub name: Ident,
    /// `pg_trigger.tgtype`.
    pub kind: i16,
    /// `pg_trigger.tgenabled`.
    pub enabled: char,
    pub old_rows: Option<String>,
    pub new_rows: Option<String>,
    /// It calls our function, for every row and column.
    pub is_ours: bool,
}

/// A trigger of the audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    Insert,
    Update,
    Delete,
    Truncate,
    /// For each row, where replication applies changes, which fires no trigger for a statement.
    Replica,
    /// For each row, in a table with inheritance children: a statement that names the parent tells nothing of a child's
    /// own columns, and fires no trigger for a statement of the child.
    Row,
}

/// What `audit_table` was asked for.
#[derive(Clone, Debug)]
pub struct Request {
    pub ignored: Vec<String>,
    pub redacted: Vec<String>,
    pub images: Images,
    pub skips_unchanged: bool,
    pub tenant_column: Option<Ident>,
    pub allows_unscoped: bool,
}

/// How a table is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protection {
    None,
    By(Ident),
    /// A reference table, whose rows are everybody's.
    WithoutColumn,
}

/// A step towards an audited table, or back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Drop { table: QualifiedName, trigger: Ident },
    Add { table: QualifiedName, trigger: Trigger },
    Enable { table: QualifiedName, trigger: Trigger },
}

const FOR_STATEMENTS: [Trigger; 5] =
    [Trigger::Insert, Trigger::Update, Trigger::Delete, Trigger::Truncate, Trigger::Replica];
const FOR_ROWS: [Trigger; 2] = [Trigger::Row, Trigger::Truncate];
const ALL: [Trigger; 6] =
    [Trigger::Insert, Trigger::Update, Trigger::Delete, Trigger::Truncate, Trigger::Replica, Trigger::Row];

const OLD_ROWS: &str = "tenancy_old";
const NEW_ROWS: &str = "tenancy_new";

impl Trigger {
    /// Its name, without what all of them begin with.
    fn event(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Truncate => "truncate",
            Self::Replica => "replica",
            Self::Row => "row",
        }
    }

    /// Its name.
    pub fn name(self) -> Ident {
        Ident::new(&format!("tenancy_audit_{}", self.event())).expect("our names are names")
    }

    /// `tgtype`: 1 for each row, 4 INSERT, 8 DELETE, 16 UPDATE, 32 TRUNCATE.
    fn kind(self) -> i16 {
        match self {
            Self::Insert => 4,
            Self::Update => 16,
            Self::Delete => 8,
            Self::Truncate => 32,
            Self::Replica | Self::Row => 29,
        }
    }

    /// `tgenabled`: Origin, Replica, Always.
    fn enabled(self) -> char {
        match self {
            Self::Replica => 'R',
            Self::Row | Self::Truncate => 'A',
            _ => 'O',
        }
    }

    fn old_rows(self) -> Option<&'static str> {
        matches!(self, Self::Update | Self::Delete).then_some(OLD_ROWS)
    }

    fn new_rows(self) -> Option<&'static str> {
        matches!(self, Self::Insert | Self::Update).then_some(NEW_ROWS)
    }

    fn is_as_made(self, found: &Found) -> bool {
        found.is_ours
            && found.kind == self.kind()
            && found.old_rows.as_deref() == self.old_rows()
            && found.new_rows.as_deref() == self.new_rows()
    }

    fn create(self, table: &QualifiedName) -> Sql {
        let events = match self {
            Self::Insert => " AFTER INSERT ON ",
            Self::Update => " AFTER UPDATE ON ",
            Self::Delete => " AFTER DELETE ON ",
            Self::Truncate => " AFTER TRUNCATE ON ",
            Self::Replica | Self::Row => " AFTER INSERT OR UPDATE OR DELETE ON ",
        };
        let mut sql = Sql::text("CREATE TRIGGER ").ident(&self.name()).then(events).name(table);
        if self.old_rows().is_some() || self.new_rows().is_some() {
            sql = sql.then(" REFERENCING");
        }
        if self.old_rows().is_some() {
            sql = sql.then(" OLD TABLE AS tenancy_old");
        }
        if self.new_rows().is_some() {
            sql = sql.then(" NEW TABLE AS tenancy_new");
        }
        let each = if self.kind() & 1 == 1 { " FOR EACH ROW" } else { " FOR EACH STATEMENT" };
        sql.then(each).then(" EXECUTE FUNCTION tenancy_internal.audit_rows()")
    }
}

/// The steps from a family as it stands to an audited one; empty when nothing is to do.
pub fn audit(family: &[Member]) -> Result<Vec<Step>, TenancyError> {
    let mut steps = Vec::new();
    let for_rows = family.iter().any(|member| member.inherits);
    for member in family {
        let wanted = if for_rows { &FOR_ROWS[..] } else { &FOR_STATEMENTS };
        let table = || member.name.clone();
        for trigger in ALL {
            let name = trigger.name();
            let found = member.triggers.iter().find(|found| found.name == name);
            let is_wanted = wanted.contains(&trigger);
            match found {
                Some(found) if !found.is_ours => {
                    return Err(AuditError::ReservedTrigger { table: table(), trigger: name }.into());
                }
                Some(found) if is_wanted && trigger.is_as_made(found) => {
                    if found.enabled != trigger.enabled() {
                        steps.push(Step::Enable { table: table(), trigger });
                    }
                }
                found => {
                    if found.is_some() {
                        steps.push(Step::Drop { table: table(), trigger: name });
                    }
                    // A partition has its parent's triggers for rows.
                    let is_inherited = trigger == Trigger::Replica && member.partition_of.is_some() && found.is_none();
                    let parent_has =
                        is_inherited && family.iter().any(|parent| Some(&parent.name) == member.partition_of.as_ref());
                    if is_wanted && !parent_has {
                        steps.push(Step::Add { table: table(), trigger });
                        if trigger.enabled() != 'O' {
                            steps.push(Step::Enable { table: table(), trigger });
                        }
                    }
                }
            }
        }
    }
    Ok(steps)
}

/// The steps that take the triggers off again.
pub fn unaudit(family: &[Member]) -> Vec<Step> {
    let mut steps = Vec::new();
    for member in family {
        let parent = family.iter().find(|parent| Some(&parent.name) == member.partition_of.as_ref());
        for found in member.triggers.iter().filter(|found| found.is_ours) {
            let goes_with_parent = found.kind & 1 == 1 && parent.is_some();
            if !goes_with_parent {
                steps.push(Step::Drop { table: member.name.clone(), trigger: found.name.clone() });
            }
        }
    }
    steps
}

/// Refuses what cannot be audited, and arguments that do not fit.
pub fn check(family: &[Member], request: &Request, protection: &Protection) -> Result<(), TenancyError> {
    let Some(root) = family.first() else { return Ok(()) };
    refuse_unfit(root)?;
    if let Some(member) = family.iter().find(|member| member.kind == 'f') {
        return Err(AuditError::ForeignMember { table: root.name.clone(), member: member.name.clone() }.into());
    }
    let table = || root.name.clone();
    match (protection, &request.tenant_column) {
        (Protection::None, Some(column)) => {
            return Err(AuditError::UnprotectedColumn { table: table(), column: column.clone() }.into());
        }
        (Protection::None, None) if !request.allows_unscoped => {
            return Err(AuditError::Unscoped { table: table() }.into());
        }
        (Protection::By(column), Some(given)) if given != column => {
            let (given, column) = (given.clone(), Some(column.clone()));
            return Err(AuditError::OtherTenantColumn { table: table(), given, column }.into());
        }
        (Protection::WithoutColumn, Some(given)) => {
            let given = given.clone();
            return Err(AuditError::OtherTenantColumn { table: table(), given, column: None }.into());
        }
        _ => {}
    }
    for (argument, names) in [("ignore_columns", &request.ignored), ("redact_columns", &request.redacted)] {
        for name in names {
            let column = name.clone();
            match root.columns.iter().find(|column| column.name == *name) {
                None => return Err(AuditError::UnknownColumn { table: table(), column, argument }.into()),
                Some(found) if found.is_key => {
                    return Err(AuditError::KeyColumn { table: table(), column, argument }.into());
                }
                Some(_) => {}
            }
        }
    }
    match request.ignored.iter().find(|name| request.redacted.contains(name)) {
        Some(column) => Err(AuditError::BothIgnoredAndRedacted { column: column.clone() }.into()),
        None => Ok(()),
    }
}

/// Refuses what is no table that can be audited for itself.
pub fn refuse_unfit(root: &Member) -> Result<(), TenancyError> {
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
    Err(match (kind, &root.partition_of) {
        (Some(kind), _) => AuditError::NotATable { relation, kind },
        _ if root.is_temporary => AuditError::TemporaryTable { relation },
        _ if root.is_system => AuditError::SystemTable { relation },
        (None, Some(parent)) => AuditError::IsPartition { relation, parent: parent.clone() },
        (None, None) => return Ok(()),
    }
    .into())
}

impl Step {
    /// The table it is about.
    pub fn table(&self) -> &QualifiedName {
        match self {
            Self::Drop { table, .. } | Self::Add { table, .. } | Self::Enable { table, .. } => table,
        }
    }

    /// What is missing or altered where the step has to be taken for a table that was audited before.
    pub fn loss(&self) -> String {
        match self {
            Self::Add { trigger, .. } | Self::Enable { trigger, .. } => {
                format!("trigger {}", trigger.name())
            }
            Self::Drop { trigger, .. } => format!("trigger {trigger}"),
        }
    }

    /// The statement.
    pub fn statement(&self) -> Sql {
        match self {
            Self::Drop { table, trigger } => Sql::text("DROP TRIGGER ").ident(trigger).then(" ON ").name(table),
            Self::Add { table, trigger } => trigger.create(table),
            Self::Enable { table, trigger } => {
                let mode = match trigger.enabled() {
                    'R' => " ENABLE REPLICA TRIGGER ",
                    'A' => " ENABLE ALWAYS TRIGGER ",
                    _ => " ENABLE TRIGGER ",
                };
                Sql::text("ALTER TABLE ").name(table).then(mode).ident(&trigger.name())
            }
        }
    }

    /// What kind of step it is, for `plan_audit`.
    pub fn action(&self) -> &'static str {
        match self {
            Self::Drop { .. } => "drop trigger",
            Self::Add { .. } => "add trigger",
            Self::Enable { .. } => "enable trigger",
        }
    }

    /// The strongest table lock the statement takes.
    pub fn lock(&self) -> &'static str {
        match self {
            Self::Drop { .. } => "ACCESS EXCLUSIVE",
            Self::Add { .. } | Self::Enable { .. } => "SHARE ROW EXCLUSIVE",
        }
    }

    /// The lock under which all of `steps` can be taken; the weakest one keeps two audits of a table apart.
    pub fn lock_for(steps: &[Self]) -> &'static str {
        let drops = steps.iter().find(|step| matches!(step, Self::Drop { .. }));
        drops.map_or("SHARE ROW EXCLUSIVE", Self::lock)
    }

    /// Why the step is there.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Drop { .. } => "it is not what the audit needs now",
            Self::Enable { trigger: Trigger::Replica, .. } => "only where replication applies changes",
            Self::Enable { trigger: Trigger::Row | Trigger::Truncate, .. } => {
                "session_replication_role does not end the audit"
            }
            Self::Enable { .. } => "it is disabled",
            Self::Add { trigger: Trigger::Replica, .. } => {
                "replication applies rows, which no trigger for a statement hears of"
            }
            Self::Add { trigger: Trigger::Row, .. } => {
                "with inheritance children, only a trigger for each row sees the row as it is"
            }
            Self::Add { trigger: Trigger::Truncate, .. } => "that a table was emptied is an entry too",
            Self::Add { .. } => "writes what a statement did to the log",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ident(name: &str) -> Ident {
        Ident::new(name).unwrap()
    }

    fn member(oid: u32, name: &str) -> Member {
        let column = |name: &str, is_key| Column { name: name.to_owned(), is_key, is_generated: false };
        Member {
            oid,
            name: QualifiedName { schema: ident("public"), name: ident(name) },
            kind: 'r',
            is_temporary: false,
            is_system: false,
            partition_of: None,
            inherits: false,
            is_owned: true,
            columns: vec![column("id", true), column("tenant_id", false), column("note", false)],
            triggers: Vec::new(),
            root: None,
        }
    }

    fn found(trigger: Trigger) -> Found {
        Found {
            name: trigger.name(),
            kind: trigger.kind(),
            enabled: trigger.enabled(),
            old_rows: trigger.old_rows().map(str::to_owned),
            new_rows: trigger.new_rows().map(str::to_owned),
            is_ours: true,
        }
    }

    fn statements(steps: &[Step]) -> Vec<String> {
        steps.iter().map(|step| step.statement().to_string()).collect()
    }

    fn request() -> Request {
        Request {
            ignored: Vec::new(),
            redacted: Vec::new(),
            images: Images::Diff,
            skips_unchanged: true,
            tenant_column: None,
            allows_unscoped: false,
        }
    }

    fn protected() -> Protection {
        Protection::By(ident("tenant_id"))
    }

    #[test]
    fn a_table_gets_a_trigger_for_each_statement_and_one_for_replication() {
        let steps = audit(&[member(1, "orders")]).unwrap();
        assert_eq!(steps.len(), 7);
        assert_eq!(Step::lock_for(&steps), "SHARE ROW EXCLUSIVE");
        assert_eq!(
            statements(&steps)[1],
            "CREATE TRIGGER tenancy_audit_update AFTER UPDATE ON public.orders REFERENCING OLD TABLE AS tenancy_old \
             NEW TABLE AS tenancy_new FOR EACH STATEMENT EXECUTE FUNCTION tenancy_internal.audit_rows()"
        );
        assert_eq!(
            statements(&steps).into_iter().filter(|sql| sql.contains("ENABLE")).collect::<Vec<_>>(),
            [
                "ALTER TABLE public.orders ENABLE ALWAYS TRIGGER tenancy_audit_truncate",
                "ALTER TABLE public.orders ENABLE REPLICA TRIGGER tenancy_audit_replica",
            ]
        );
    }

    #[test]
    fn nothing_is_done_twice_and_what_was_altered_is_put_right() {
        let mut orders = member(1, "orders");
        orders.triggers = FOR_STATEMENTS.into_iter().map(found).collect();
        assert_eq!(audit(std::slice::from_ref(&orders)).unwrap(), []);
        orders.triggers[0].enabled = 'D';
        orders.triggers[1].old_rows = None;
        orders.triggers.remove(2);
        let steps = audit(&[orders]).unwrap();
        assert_eq!(Step::lock_for(&steps), "ACCESS EXCLUSIVE");
        assert_eq!(
            statements(&steps)
                .iter()
                .map(|sql| sql.split(" ON ").next().unwrap_or_default().to_owned())
                .collect::<Vec<_>>(),
            [
                "ALTER TABLE public.orders ENABLE TRIGGER tenancy_audit_insert",
                "DROP TRIGGER tenancy_audit_update",
                "CREATE TRIGGER tenancy_audit_update AFTER UPDATE",
                "CREATE TRIGGER tenancy_audit_delete AFTER DELETE",
            ]
        );
    }

    #[test]
    fn a_partition_has_its_parents_trigger_for_rows() {
        let (mut parent, mut part) = (member(1, "events"), member(2, "events_1"));
        parent.kind = 'p';
        part.partition_of = Some(parent.name.clone());
        let steps = audit(&[parent.clone(), part.clone()]).unwrap();
        let of_part: Vec<String> = statements(&steps).into_iter().filter(|sql| sql.contains("events_1")).collect();
        assert_eq!(of_part.len(), 5);
        assert!(of_part.iter().all(|sql| sql.contains("FOR EACH STATEMENT") || sql.contains("ENABLE ALWAYS")));
        parent.triggers = FOR_STATEMENTS.into_iter().map(found).collect();
        part.triggers = parent.triggers.clone();
        let drops = statements(&unaudit(&[parent, part]));
        assert_eq!(drops.len(), 9);
        assert!(!drops.contains(&"DROP TRIGGER tenancy_audit_replica ON public.events_1".to_owned()));
    }

    #[test]
    fn a_family_by_inheritance_is_audited_row_by_row() {
        let (mut parent, mut child) = (member(1, "base"), member(2, "derived"));
        parent.inherits = true;
        child.inherits = true;
        parent.triggers = FOR_STATEMENTS.into_iter().map(found).collect();
        let steps = statements(&audit(&[parent, child]).unwrap());
        assert_eq!(steps.iter().filter(|sql| sql.starts_with("DROP TRIGGER")).count(), 4);
        assert_eq!(steps.iter().filter(|sql| sql.contains("ENABLE ALWAYS TRIGGER tenancy_audit_row")).count(), 2);
    }

    #[test]
    fn a_trigger_of_another_making_is_not_touched() {
        let mut orders = member(1, "orders");
        orders.triggers = vec![Found { is_ours: false, ..found(Trigger::Insert) }];
        let name = orders.name.clone();
        assert_eq!(
            audit(&[orders]).unwrap_err(),
            AuditError::ReservedTrigger { table: name, trigger: ident("tenancy_audit_insert") }.into()
        );
    }

    #[test]
    fn a_table_without_tenants_is_audited_on_purpose_only() {
        let family = [member(1, "orders")];
        let check = |request: &Request, protection| check(&family, request, &protection);
        assert_eq!(check(&request(), protected()), Ok(()));
        assert_eq!(check(&request(), Protection::WithoutColumn), Ok(()));
        assert!(matches!(check(&request(), Protection::None), Err(TenancyError::Audit(AuditError::Unscoped { .. }))));
        assert_eq!(check(&Request { allows_unscoped: true, ..request() }, Protection::None), Ok(()));
        let named = Request { tenant_column: Some(ident("other")), ..request() };
        assert!(matches!(
            check(&named, protected()),
            Err(TenancyError::Audit(AuditError::OtherTenantColumn { column: Some(_), .. }))
        ));
        assert!(matches!(
            check(&named, Protection::None),
            Err(TenancyError::Audit(AuditError::UnprotectedColumn { .. }))
        ));
    }

    #[test]
    fn columns_that_are_left_out_exist_and_are_no_key() {
        let family = [member(1, "orders")];
        let refused = |ignored: &[&str], redacted: &[&str]| {
            let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            let request = Request { ignored: names(ignored), redacted: names(redacted), ..request() };
            check(&family, &request, &protected()).err()
        };
        assert_eq!(refused(&["note"], &["tenant_id"]), None);
        assert!(matches!(refused(&["nope"], &[]), Some(TenancyError::Audit(AuditError::UnknownColumn { .. }))));
        assert!(matches!(refused(&[], &["id"]), Some(TenancyError::Audit(AuditError::KeyColumn { .. }))));
        assert!(matches!(
            refused(&["note"], &["note"]),
            Some(TenancyError::Audit(AuditError::BothIgnoredAndRedacted { .. }))
        ));
    }

    #[test]
    fn what_is_no_table_of_ones_own_is_refused() {
        let refused = |change: &dyn Fn(&mut Member)| {
            let mut table = member(1, "x");
            change(&mut table);
            check(&[table], &request(), &protected()).err()
        };
        assert_eq!(refused(&|_| {}), None);
        assert!(matches!(
            refused(&|table| table.kind = 'v'),
            Some(TenancyError::Audit(AuditError::NotATable { kind: "view", .. }))
        ));
        assert!(matches!(
            refused(&|table| table.is_temporary = true),
            Some(TenancyError::Audit(AuditError::TemporaryTable { .. }))
        ));
        assert!(matches!(
            refused(&|table| table.is_system = true),
            Some(TenancyError::Audit(AuditError::SystemTable { .. }))
        ));
        assert!(matches!(
            refused(&|table| table.partition_of = Some(member(2, "p").name)),
            Some(TenancyError::Audit(AuditError::IsPartition { .. }))
        ));
        let mut foreign = member(2, "far");
        foreign.kind = 'f';
        assert!(matches!(
            check(&[member(1, "x"), foreign], &request(), &protected()),
            Err(TenancyError::Audit(AuditError::ForeignMember { .. }))
        ));
    }
}
