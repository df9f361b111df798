//! The steps from a table as it stands to an isolated one, and back.

use super::actions::{self, Verdict};
use super::step::{self, GUARD, Link, Step};
use crate::error::TenancyError;
use crate::model::policy::{self, Access};
use crate::model::table::{Column, ForeignKey, Table};
use crate::model::{Deparsed, Ident, KeyKind, QualifiedName};

/// How the tenant column is tied to the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference {
    /// By the policy alone: it admits only tenants that exist.
    Policy,
    /// By a foreign key as well, which also binds roles that row security does not.
    ForeignKey,
}

impl Reference {
    pub const NAMES: &'static [&'static str] = &["policy", "foreign_key"];

    /// Reads the name used in SQL.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Policy, Self::ForeignKey].into_iter().find(|reference| reference.name() == name)
    }

    /// The name used in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::ForeignKey => "foreign_key",
        }
    }
}

/// What `protect_table` was asked for.
#[derive(Clone, Debug)]
pub struct Request {
    pub column: Ident,
    pub access: Access,
    pub reference: Reference,
    /// Foreign keys between protected tables get the tenant column.
    pub composite_keys: bool,
    /// The companion that opens the table is wanted where the user has no permissive policy.
    pub open_policy: bool,
    /// The tenant that rows without one are given to, in each of its three keys.
    pub assign: Option<TenantKeys>,
    /// `server_version_num`.
    pub server_version: i32,
    /// FORCE binds the current role on its own tables: it is no superuser and lacks BYPASSRLS.
    pub is_bound_as_owner: bool,
}

/// A tenant's keys as text.
#[derive(Clone, Debug)]
pub struct TenantKeys {
    pub id: String,
    pub number: String,
    pub code: String,
}

impl TenantKeys {
    fn of(&self, kind: KeyKind) -> &str {
        match kind {
            KeyKind::Id => &self.id,
            KeyKind::Number => &self.number,
            KeyKind::Code => &self.code,
        }
    }
}

/// A protected table that a foreign key ties to the one at hand.
#[derive(Clone, Debug)]
pub struct Neighbour {
    /// The table, then its partitions and inheritance children.
    pub family: Vec<Table>,
    pub column: Option<Ident>,
    pub access: Access,
}

/// What the plan is made from.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The oid that was asked for.
    pub target: u32,
    /// The table, then its partitions and inheritance children.
    pub family: Vec<Table>,
    pub neighbours: Vec<Neighbour>,
    /// The oids of those relations of the family that are on record as protected.
    pub recorded: Vec<u32>,
    /// The whole family is on record as that of the table.
    pub is_complete: bool,
    /// Indexes that earlier calls made, by the oid of their table.
    pub own_indexes: Vec<(u32, Ident)>,
    pub has_rows: bool,
}

impl Facts {
    /// The family and those of its neighbours.
    pub fn families(&self) -> Vec<Vec<&Table>> {
        let neighbours = self.neighbours.iter().map(|neighbour| neighbour.family.iter().collect());
        std::iter::once(self.family.iter().collect()).chain(neighbours).collect()
    }
}

/// The steps that protect the table; empty when nothing is left to do.
pub fn protect(facts: &Facts, request: &Request) -> Result<Vec<Step>, TenancyError> {
    let Some(root) = facts.family.first() else {
        return Err(TenancyError::UnknownRelation { oid: facts.target });
    };
    refuse_unfit(root)?;
    facts.family.iter().try_for_each(refuse_no_table)?;
    facts.family.iter().try_for_each(|table| refuse_second_parent(table, &facts.family))?;
    let mut steps = Vec::new();
    let key = match request.access {
        Access::Reference => None,
        Access::Tenant | Access::Shared => Some(tenant_column(root, facts, request, &mut steps)?),
    };
    if let Some(key) = key {
        let unique = scope_keys(facts, request, key, &mut steps)?;
        for (table, verdict) in judged_actions(facts, request) {
            if let Verdict::Narrowed(key) = verdict {
                let (table, reason) = (table.name.clone(), actions::NARROWED);
                steps.push(Step::ReplaceForeignKey { table, key: *key, reason });
            }
        }
        index_tenant_column(facts, request, &unique, &mut steps);
        if request.reference == Reference::ForeignKey && reference_key(root, &request.column).is_none() {
            let (table, column) = (root.name.clone(), request.column.clone());
            steps.push(Step::AddReference { table, column, key });
        }
    }
    for table in &facts.family {
        guard(table, request, key, facts.recorded.contains(&table.oid), &mut steps)?;
    }
    if !request.is_bound_as_owner {
        return Ok(steps);
    }
    Ok(step::lift_force(steps, &facts.families()))
}

/// The foreign keys whose actions reach the tenant column and cannot be kept from it.
pub fn refused_actions(facts: &Facts, request: &Request) -> Vec<TenancyError> {
    let refused = |(_, verdict)| match verdict {
        Verdict::Refused(refusal) => Some(*refusal),
        Verdict::Fits | Verdict::Narrowed(_) => None,
    };
    judged_actions(facts, request).filter_map(refused).collect()
}

fn judged_actions<'a>(facts: &'a Facts, request: &'a Request) -> impl Iterator<Item = (&'a Table, Verdict)> {
    let has_tenant = request.access != Access::Reference;
    let keys = facts.family.iter().flat_map(|table| table.foreign_keys.iter().map(move |key| (table, key)));
    keys.filter(move |_| has_tenant).map(|(table, key)| {
        let (column, access, server_version) = (&request.column, request.access, request.server_version);
        let child = actions::Child { table, column, access, server_version };
        let is_parent = |table: &Table| table.oid == key.parent;
        let parent_column = if facts.family.iter().any(is_parent) {
            Some(column)
        } else {
            let parent = facts.neighbours.iter().find(|neighbour| neighbour.family.first().is_some_and(is_parent));
            parent.and_then(|parent| parent.column.as_ref())
        };
        (table, actions::judge(child, key, parent_column))
    })
}

/// Whether all that protects a table is in place, unaltered; the companion that opens it may be there or not.
pub fn is_enforced(table: &Table, column: Option<&Ident>, access: Access) -> bool {
    let found = column.and_then(|column| table.column(column));
    let key = found.and_then(Column::key);
    let wanted = match (access, column, key) {
        (Access::Reference, ..) => policy::wanted(access, &policy::name(policy::ISOLATION), None, None, false),
        (_, Some(column), Some(_)) => policy::wanted(access, column, found, key, false),
        _ => return false,
    };
    table.row_security
        && table.forced
        && table.triggers.iter().any(|trigger| trigger.name.as_str() == GUARD && trigger.is_guard)
        && wanted.iter().all(|spec| table.policies.iter().any(|policy| spec.matches(policy)))
}

/// Refuses a child that can be read through a table outside the family.
fn refuse_second_parent(table: &Table, family: &[Table]) -> Result<(), TenancyError> {
    match table.parents.iter().find(|parent| !family.iter().any(|member| member.name == **parent)) {
        Some(parent) => Err(TenancyError::SecondParent { relation: table.name.clone(), parent: parent.clone() }),
        None => Ok(()),
    }
}

/// Why `protect_schema` leaves a relation alone; None when it protects it.
pub fn left_out(table: &Table, request: &Request) -> Option<String> {
    if let Some(parent) = table.parents.first() {
        return Some(format!("partition or child of {parent}, which is left"));
    }
    if let Err(refusal) = refuse_unfit(table) {
        return Some(refusal.to_string());
    }
    let has_column = table.column(&request.column).is_some();
    (!has_column && request.access != Access::Reference).then(|| format!("has no column {}", request.column))
}

/// Refuses what is no table of the user's own.
pub fn refuse_unfit(table: &Table) -> Result<(), TenancyError> {
    refuse_no_table(table)?;
    let relation = table.name.clone();
    if table.is_system {
        return Err(TenancyError::SystemTable { relation });
    }
    if table.is_temporary {
        return Err(TenancyError::TemporaryTable { relation });
    }
    match table.parents.first() {
        Some(parent) => Err(TenancyError::IsPartition { relation, parent: parent.clone() }),
        None => Ok(()),
    }
}

/// Refuses a relation of a kind that has no row security; also among partitions and children.
pub fn refuse_no_table(table: &Table) -> Result<(), TenancyError> {
    let kind = match table.kind {
        'r' | 'p' => None,
        'v' => Some("view"),
        'm' => Some("materialized view"),
        'f' => Some("foreign table"),
        'i' | 'I' => Some("index"),
        'S' => Some("sequence"),
        _ => Some("relation of another kind"),
    };
    match kind {
        Some(kind) => Err(TenancyError::NotATable { relation: table.name.clone(), kind }),
        None => Ok(()),
    }
}

/// Refuses a role that may not alter the table; once there is something to alter.
pub fn refuse_stranger(table: &Table, role: &str) -> Result<(), TenancyError> {
    if table.is_owned {
        Ok(())
    } else {
        Err(TenancyError::NotOwner { table: table.name.clone(), role: role.to_owned() })
    }
}

fn tenant_column(
    root: &Table,
    facts: &Facts,
    request: &Request,
    steps: &mut Vec<Step>,
) -> Result<KeyKind, TenancyError> {
    let (table, column) = (root.name.clone(), request.column.clone());
    let must_have = request.access == Access::Tenant;
    let Some(found) = root.column(&column) else {
        if must_have && facts.has_rows && request.assign.is_none() {
            return Err(TenancyError::NoTenantColumn { table, column });
        }
        let assign = request.assign.as_ref().map(|tenant| tenant.id.clone());
        steps.push(Step::AddColumn { table: table.clone(), column: column.clone(), assign, not_null: must_have });
        steps.push(Step::SetDefault { table, column, key: KeyKind::Id });
        return Ok(KeyKind::Id);
    };
    let key = found.key().ok_or_else(|| TenancyError::WrongTenantType {
        table: table.clone(),
        column: column.clone(),
        found: found.shown_type.to_string(),
    })?;
    if found.has_loose_collation {
        return Err(TenancyError::LooseCollation { table, column });
    }
    // The policy of a protected table has admitted only known tenants; whoever bypassed it is integrity's business.
    let is_new = root.policy(&policy::name(policy::ISOLATION)).is_none();
    let lacks_not_null = must_have && !found.not_null;
    if lacks_not_null {
        match &request.assign {
            Some(tenant) => {
                let value = tenant.of(key).to_owned();
                steps.push(Step::AssignRows { table: table.clone(), column: column.clone(), value });
            }
            None => steps.push(Step::CheckTenantPresent { table: table.clone(), column: column.clone() }),
        }
    }
    if is_new {
        steps.push(Step::CheckTenantKnown { table: table.clone(), column: column.clone(), key });
    }
    if found.default.as_ref().map(Deparsed::as_str) != Some(policy::current(key)) {
        steps.push(Step::SetDefault { table: table.clone(), column: column.clone(), key });
    }
    if lacks_not_null {
        steps.push(Step::SetNotNull { table, column });
    }
    Ok(key)
}

/// One end of a foreign key.
pub struct End<'a> {
    pub table: &'a Table,
    pub column: &'a Ident,
    pub key: KeyKind,
    pub access: Access,
    pub is_family: bool,
}

/// Plans composite foreign keys; gives the tables that get a unique index led by the tenant column for them.
fn scope_keys(
    facts: &Facts,
    request: &Request,
    key: KeyKind,
    steps: &mut Vec<Step>,
) -> Result<Vec<QualifiedName>, TenancyError> {
    let ours = facts.family.iter().map(|table| End {
        table,
        column: &request.column,
        key,
        access: request.access,
        is_family: true,
    });
    let theirs = facts.neighbours.iter().filter_map(|neighbour| {
        let (table, column) = (neighbour.family.first()?, neighbour.column.as_ref()?);
        let key = table.column(column).and_then(Column::key)?;
        Some(End { table, column, key, access: neighbour.access, is_family: false })
    });
    let ends: Vec<End<'_>> = ours.chain(theirs).collect();
    let mut unique = Vec::new();
    for child in &ends {
        for key in &child.table.foreign_keys {
            let Some(parent) = ends.iter().find(|end| end.table.oid == key.parent) else { continue };
            if !(child.is_family || parent.is_family) || step::is_scoped(key, child.column, parent.column) {
                continue;
            }
            let open = if request.composite_keys { keeps_key(child, parent, key) } else { Some(OPEN.to_owned()) };
            if let Some(reason) = open {
                let text = format!("foreign key {} stays as it is: {reason}", key.name);
                steps.push(Step::Note { table: child.table.name.clone(), text });
                continue;
            }
            let link = link(child, parent, key, request.server_version, steps);
            let target: Vec<&Ident> = std::iter::once(parent.column).chain(&key.parent_columns).collect();
            let planned = Step::AddIndex {
                table: parent.table.name.clone(),
                columns: target.iter().copied().cloned().collect(),
                unique: true,
            };
            if !parent.table.has_unique_on(&target) && !steps.contains(&planned) {
                steps.push(planned);
                unique.push(parent.table.name.clone());
                steps.extend(superseded_index(parent, &facts.own_indexes));
            }
            steps.push(Step::CheckLink(link.clone()));
            steps.push(Step::ScopeForeignKey(link));
        }
    }
    Ok(unique)
}

/// Our plain index on the tenant column, which a unique one led by that column makes superfluous.
fn superseded_index(parent: &End<'_>, own: &[(u32, Ident)]) -> Option<Step> {
    let index = parent.table.indexes.iter().find(|index| {
        index.columns == [Some(parent.column.clone())] && own.contains(&(parent.table.oid, index.name.clone()))
    })?;
    Some(Step::DropIndex { schema: parent.table.name.schema.clone(), index: index.name.clone() })
}

/// The foreign key that is to get the tenant column, and a note where it cannot act as before.
///
/// Before PostgreSQL 15 no action can name its columns, and would reach the tenant's: then it refuses instead.
pub fn link(child: &End<'_>, parent: &End<'_>, key: &ForeignKey, server_version: i32, steps: &mut Vec<Step>) -> Link {
    let mut key = key.clone();
    if step::sets_columns(key.on_delete) && server_version < 150_000 {
        let text = format!(
            "foreign key {} gets ON DELETE NO ACTION: before PostgreSQL 15, {} would reach the tenant column",
            key.name,
            step::action(key.on_delete)
        );
        steps.push(Step::Note { table: child.table.name.clone(), text });
        key.on_delete = step::NO_ACTION;
    }
    Link {
        child: child.table.name.clone(),
        child_column: child.column.clone(),
        parent: parent.table.name.clone(),
        parent_column: parent.column.clone(),
        key,
    }
}

const OPEN: &str = "a row can refer to another tenant's row, and its actions can reach across tenants";

/// Why a foreign key cannot get the tenant column, and what that leaves open.
pub fn keeps_key(child: &End<'_>, parent: &End<'_>, key: &ForeignKey) -> Option<String> {
    let reason = if parent.access == Access::Shared {
        format!("rows of {} without a tenant are referred to as well; {OPEN}", parent.table.name)
    } else if child.access == Access::Shared {
        format!("rows of {} without a tenant would not be checked; {OPEN}", child.table.name)
    } else if child.key != parent.key {
        format!("the tenant columns hold different keys ({} and {}); {OPEN}", child.key.column(), parent.key.column())
    } else if key.columns.contains(child.column) || key.parent_columns.contains(parent.column) {
        format!("it uses the tenant column for something else; {OPEN}")
    } else if key.match_type == 'f' && key.columns.len() > 1 {
        format!("MATCH FULL over several columns has no composite form; {OPEN}")
    } else if key.is_temporal {
        format!("a key over a PERIOD is not rewritten; {OPEN}")
    } else if step::sets_columns(key.on_update) {
        format!("ON UPDATE SET NULL and SET DEFAULT would reach the tenant column; {OPEN}")
    } else {
        return None;
    };
    Some(reason)
}

fn index_tenant_column(facts: &Facts, request: &Request, unique: &[QualifiedName], steps: &mut Vec<Step>) {
    // An index on a partitioned table covers its partitions; inheritance children need their own.
    for table in facts.family.iter().filter(|table| !table.is_partition) {
        if !table.has_index_led_by(&request.column) && !unique.contains(&table.name) {
            let columns = vec![request.column.clone()];
            steps.push(Step::AddIndex { table: table.name.clone(), columns, unique: false });
        }
    }
}

/// The foreign key from the tenant column to the registry, if there is one.
fn reference_key<'a>(table: &'a Table, column: &Ident) -> Option<&'a ForeignKey> {
    table.foreign_keys.iter().find(|key| key.columns == [column.clone()] && key.name == policy::reference_name())
}

fn guard(
    table: &Table,
    request: &Request,
    key: Option<KeyKind>,
    is_recorded: bool,
    steps: &mut Vec<Step>,
) -> Result<(), TenancyError> {
    let reserved =
        |kind, name: &Ident| Err(TenancyError::ReservedName { table: table.name.clone(), kind, name: name.clone() });
    let users_own = table.policies.iter().any(|policy| policy.is_permissive && !policy::is_ours(&policy.name));
    let open = request.open_policy && !users_own;
    let column = table.column(&request.column);
    let wanted = policy::wanted(request.access, &request.column, column, key, open);
    for found in table.policies.iter().filter(|policy| policy::is_ours(&policy.name)) {
        if !wanted.iter().any(|spec| spec.matches(found)) {
            if !is_recorded && found.name.as_str() != policy::CLOSED {
                return reserved("policy", &found.name);
            }
            steps.push(Step::DropPolicy { table: table.name.clone(), policy: found.name.clone() });
        }
    }
    for spec in wanted {
        if !table.policies.iter().any(|found| spec.matches(found)) {
            steps.push(Step::AddPolicy { table: table.name.clone(), policy: spec });
        }
    }
    match table.triggers.iter().find(|trigger| trigger.name.as_str() == GUARD) {
        Some(trigger) if trigger.is_guard => {}
        Some(trigger) if !is_recorded => return reserved("trigger", &trigger.name),
        found => {
            if found.is_some() {
                steps.push(Step::DropGuard { table: table.name.clone() });
            }
            steps.push(Step::AddGuard { table: table.name.clone() });
        }
    }
    if !table.row_security {
        steps.push(Step::EnableRowSecurity { table: table.name.clone() });
    }
    if !table.forced {
        steps.push(Step::ForceRowSecurity { table: table.name.clone() });
    }
    Ok(())
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::model::table::{Index, Policy};

    pub fn ident(name: &str) -> Ident {
        Ident::new(name).unwrap()
    }

    pub fn column(name: &str, type_name: &str, not_null: bool) -> Column {
        Column {
            name: ident(name),
            type_name: type_name.into(),
            shown_type: type_name.into(),
            is_domain: false,
            not_null,
            default: None,
            has_loose_collation: false,
        }
    }

    pub fn table(oid: u32, name: &str) -> Table {
        Table {
            oid,
            name: QualifiedName { schema: ident("public"), name: ident(name) },
            kind: 'r',
            is_temporary: false,
            is_system: false,
            is_partition: false,
            parents: vec![],
            is_owned: true,
            row_security: false,
            forced: false,
            columns: vec![column("id", "int8", true), column("tenant_id", "uuid", false)],
            policies: vec![],
            triggers: vec![],
            indexes: vec![index("pkey", &["id"], true)],
            foreign_keys: vec![],
        }
    }

    pub fn index(name: &str, columns: &[&str], is_unique: bool) -> Index {
        let columns = columns.iter().map(|name| Some(ident(name))).collect();
        let definition = Deparsed::from_catalog(format!("CREATE INDEX {name}"));
        Index { name: ident(name), columns, is_unique, is_attached: false, definition, is_reliable: true }
    }

    pub fn key_to(parent: u32, column: &str) -> ForeignKey {
        ForeignKey {
            name: ident("fk"),
            columns: vec![ident(column)],
            parent,
            parent_name: table(parent, "parents").name,
            parent_columns: vec![ident("id")],
            nullable_parent_columns: vec![],
            on_update: 'a',
            on_delete: 'n',
            on_delete_columns: vec![],
            match_type: 's',
            is_deferrable: false,
            is_deferred: false,
            is_validated: true,
            is_enforced: true,
            is_temporal: false,
        }
    }

    fn request() -> Request {
        Request {
            column: ident("tenant_id"),
            access: Access::Tenant,
            reference: Reference::Policy,
            composite_keys: true,
            open_policy: true,
            assign: None,
            server_version: 150_020,
            is_bound_as_owner: false,
        }
    }

    fn alone(table: Table) -> Facts {
        Facts {
            target: 1,
            family: vec![table],
            neighbours: vec![],
            recorded: vec![],
            is_complete: false,
            own_indexes: vec![],
            has_rows: true,
        }
    }

    pub fn statements(steps: &[Step]) -> Vec<String> {
        steps.iter().filter_map(Step::statement).map(|sql| sql.to_string()).collect()
    }

    fn protected(facts: &Facts, request: &Request) -> Vec<String> {
        statements(&protect(facts, request).unwrap())
    }

    fn refusal(table: Table, request: &Request) -> TenancyError {
        protect(&alone(table), request).unwrap_err()
    }

    #[test]
    fn a_plain_table_gets_default_not_null_index_policies_guard_and_forced_row_security() {
        assert_eq!(
            protected(&alone(table(1, "orders")), &request()),
            [
                "SELECT count(*) FROM public.orders WHERE tenant_id IS NULL",
                "SELECT tenant_id::text, count(*) FROM public.orders WHERE tenant_id IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1",
                "ALTER TABLE public.orders ALTER COLUMN tenant_id SET DEFAULT tenancy.current_tenant_id()",
                "ALTER TABLE public.orders ALTER COLUMN tenant_id SET NOT NULL",
                "CREATE INDEX ON public.orders (tenant_id)",
                "CREATE POLICY tenancy_isolation ON public.orders AS RESTRICTIVE \
                 USING ((tenant_id = tenancy.current_tenant_id())) \
                 WITH CHECK ((tenant_id = tenancy_internal.writing_tenant_id()))",
                "CREATE POLICY tenancy_isolation_delete ON public.orders AS RESTRICTIVE FOR DELETE \
                 USING (tenancy_internal.may_write())",
                "CREATE POLICY tenancy_open ON public.orders \
                 USING ((tenant_id = tenancy.current_tenant_id())) \
                 WITH CHECK (((true)::tenancy_internal.open_rows OR (tenant_id IS NULL)))",
                "CREATE TRIGGER tenancy_truncate_guard BEFORE TRUNCATE ON public.orders FOR EACH STATEMENT \
                 EXECUTE FUNCTION tenancy_internal.refuse_truncate(); \
                 ALTER TABLE ONLY public.orders ENABLE ALWAYS TRIGGER tenancy_truncate_guard",
                "ALTER TABLE public.orders ENABLE ROW LEVEL SECURITY",
                "ALTER TABLE public.orders FORCE ROW LEVEL SECURITY",
            ]
        );
    }

    #[test]
    fn a_missing_column_is_added_without_a_rewrite_when_its_rows_have_a_tenant() {
        let mut bare = table(1, "orders");
        bare.columns.pop();
        assert!(matches!(refusal(bare.clone(), &request()), TenancyError::NoTenantColumn { .. }));
        let tenant = TenantKeys { id: "6f1c".into(), number: "7".into(), code: "acme".into() };
        let steps = protected(&alone(bare.clone()), &Request { assign: Some(tenant), ..request() });
        assert_eq!(steps[0], "ALTER TABLE public.orders ADD COLUMN tenant_id uuid NOT NULL DEFAULT '6f1c'");
        assert_eq!(
            steps[1],
            "ALTER TABLE public.orders ALTER COLUMN tenant_id SET DEFAULT tenancy.current_tenant_id()"
        );
        let empty = Facts { has_rows: false, ..alone(bare) };
        assert_eq!(protected(&empty, &request())[0], "ALTER TABLE public.orders ADD COLUMN tenant_id uuid NOT NULL");
    }

    #[test]
    fn rows_without_a_tenant_get_the_key_their_column_holds() {
        let mut numbered = table(1, "accounts");
        numbered.columns[1] = column("tenant_id", "int4", false);
        let tenant = TenantKeys { id: "6f1c".into(), number: "7".into(), code: "acme".into() };
        let steps = protected(&alone(numbered), &Request { assign: Some(tenant), ..request() });
        assert_eq!(steps[0], "UPDATE public.accounts SET tenant_id = '7' WHERE tenant_id IS NULL");
    }

    #[test]
    fn the_users_own_permissive_policy_takes_the_place_of_the_companion() {
        let mut own = table(1, "orders");
        own.policies.push(Policy { name: ident("mine"), is_permissive: true, is_as_made: false });
        let steps = protected(&alone(own), &request());
        assert!(!steps.iter().any(|step| step.contains("tenancy_open")), "{steps:#?}");
    }

    #[test]
    fn what_is_no_table_of_the_users_own_is_refused() {
        let with = |change: fn(&mut Table)| {
            let mut table = table(1, "t");
            change(&mut table);
            refusal(table, &request())
        };
        assert!(matches!(with(|t| t.kind = 'v'), TenancyError::NotATable { kind: "view", .. }));
        assert!(matches!(with(|t| t.kind = 'f'), TenancyError::NotATable { .. }));
        assert!(matches!(with(|t| t.is_system = true), TenancyError::SystemTable { .. }));
        assert!(matches!(with(|t| t.is_temporary = true), TenancyError::TemporaryTable { .. }));
        assert!(matches!(with(|t| t.parents.push(t.name.clone())), TenancyError::IsPartition { .. }));
        assert!(matches!(with(|t| t.columns[1].type_name = "numeric".into()), TenancyError::WrongTenantType { .. }));
        assert!(matches!(with(|t| t.columns[1].has_loose_collation = true), TenancyError::LooseCollation { .. }));
    }

    fn linked() -> Facts {
        let mut child = table(1, "tasks");
        child.foreign_keys.push(key_to(2, "project_id"));
        let mut parent = table(2, "projects");
        parent.indexes.push(index("projects_tenant_id_idx", &["tenant_id"], false));
        let neighbour = Neighbour { family: vec![parent], column: Some(ident("tenant_id")), access: Access::Tenant };
        let own_indexes = vec![(2, ident("projects_tenant_id_idx"))];
        Facts {
            target: 1,
            family: vec![child],
            neighbours: vec![neighbour],
            recorded: vec![],
            is_complete: false,
            own_indexes,
            has_rows: true,
        }
    }

    #[test]
    fn a_foreign_key_between_protected_tables_gets_the_tenant_and_nulls_only_its_own_columns() {
        let steps = protected(&linked(), &request());
        let position = |text: &str| steps.iter().position(|step| step.contains(text)).expect(text);
        let unique = position("CREATE UNIQUE INDEX ON public.projects (tenant_id, id)");
        let superseded = position("DROP INDEX public.projects_tenant_id_idx");
        let check = position("child.project_id = parent.id WHERE child.tenant_id IS DISTINCT FROM parent.tenant_id");
        let replace = position(
            "DROP CONSTRAINT fk, ADD CONSTRAINT fk FOREIGN KEY (tenant_id, project_id) \
             REFERENCES public.projects (tenant_id, id) ON DELETE SET NULL (project_id)",
        );
        assert!(unique < superseded && superseded < check && check < replace);
    }

    #[test]
    fn a_foreign_key_that_stays_says_what_it_leaves_open() {
        let notes = |facts: &Facts, request: &Request| -> Vec<String> {
            let steps = protect(facts, request).unwrap();
            assert!(!steps.iter().any(|step| matches!(step, Step::ScopeForeignKey(_))));
            steps.iter().filter(|step| matches!(step, Step::Note { .. })).map(Step::reason).collect()
        };
        let open = "can refer to another tenant's row";
        assert!(notes(&linked(), &Request { composite_keys: false, ..request() })[0].contains(open));
        let mut temporal = linked();
        temporal.family[0].foreign_keys[0].is_temporal = true;
        assert!(notes(&temporal, &request())[0].contains("PERIOD"));
        let mut shared = linked();
        shared.neighbours[0].access = Access::Shared;
        assert!(notes(&shared, &request())[0].contains("without a tenant"));
        let mut other = linked();
        other.neighbours[0].family[0].columns[1] = column("tenant_id", "int8", true);
        assert!(notes(&other, &request())[0].contains("different keys"));
    }

    #[test]
    fn before_15_a_deletion_is_refused_rather_than_reach_the_tenant_column() {
        let steps = protect(&linked(), &Request { server_version: 140_000, ..request() }).unwrap();
        assert!(steps.iter().any(|step| step.reason().contains("ON DELETE NO ACTION")));
        let statements = statements(&steps);
        assert!(statements.iter().any(|sql| sql.ends_with("REFERENCES public.projects (tenant_id, id)")));
    }

    #[test]
    fn an_owner_whom_force_binds_lifts_it_for_the_checks_only() {
        let mut facts = linked();
        (facts.neighbours[0].family[0].row_security, facts.neighbours[0].family[0].forced) = (true, true);
        let steps = protected(&facts, &Request { is_bound_as_owner: true, ..request() });
        assert_eq!(steps[0], "ALTER TABLE public.projects NO FORCE ROW LEVEL SECURITY");
        assert_eq!(steps.last().unwrap(), "ALTER TABLE public.projects FORCE ROW LEVEL SECURITY");
        assert!(!protected(&facts, &request()).iter().any(|step| step.contains("NO FORCE")));
    }
}
