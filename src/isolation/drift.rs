//! What a statement left of protection: what is new and wants it, and what has lost it.
//!
//! The guard judges tables as they stand after a statement and never the statement, so that no way of writing it matters.

use super::step::Step;
use crate::model::policy::{self, Access};
use crate::model::{Ident, QualifiedName};
use std::collections::{HashMap, HashSet};

/// A relation among its parents and children, and what is on record of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kin {
    pub relation: u32,
    /// `pg_class.relkind`.
    pub kind: char,
    pub parents: Vec<u32>,
    /// The table it is on record as protected with.
    pub root: Option<u32>,
    /// Temporary, of the system, or of an extension.
    pub is_exempt: bool,
    pub owner: String,
    /// Why its owner must not own a protected table.
    pub owner_danger: Option<String>,
    /// How new tables of its schema are protected.
    pub schema: Option<(Ident, Access)>,
    /// A column that is the tenant column of other tables.
    pub known_column: Option<Ident>,
}

/// What the relations touched by a statement are to protection.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    /// Protected families, as far as they were touched; what left one is a family of its own.
    pub families: Vec<Family>,
    /// Relations that left the family they were protected with, and the one they are on their own now.
    pub detached: Vec<(u32, u32)>,
    /// Tables that are not on record, nor any parent or child of theirs.
    pub strangers: Vec<u32>,
}

/// A protected table and those of its partitions and children that were touched or are new, parents first.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    pub root: u32,
    pub members: Vec<u32>,
}

/// Sorts what was touched by the families it belongs to.
pub fn lineage(touched: &[u32], kin: &[Kin]) -> Lineage {
    let known: HashMap<u32, &Kin> = kin.iter().map(|kin| (kin.relation, kin)).collect();
    let is_recorded = |relation: &u32| known.get(relation).is_some_and(|kin| kin.root.is_some());
    let mut lineage = Lineage::default();
    for relation in kin {
        let above = ancestors(relation.relation, &known);
        if relation.root.is_some_and(|root| root != relation.relation && !above.contains(&root)) {
            let root = above.iter().rev().copied().find(is_recorded).unwrap_or(relation.relation);
            lineage.detached.push((relation.relation, root));
            // What was the parent's is its own now, such as a foreign key with an action of another form.
            add(&mut lineage.families, root, Some(relation.relation).filter(|relation| *relation != root));
        }
    }
    for relation in touched.iter().filter_map(|touched| known.get(touched)) {
        if !matches!(relation.kind, 'r' | 'p' | 'f') || relation.is_exempt {
            continue;
        }
        let mut line = ancestors(relation.relation, &known);
        line.reverse();
        line.push(relation.relation);
        let tops = line.iter().copied().filter(is_recorded);
        let tops: Vec<u32> = tops.filter(|top| !ancestors(*top, &known).iter().any(is_recorded)).collect();
        let below = |top: u32| kin.iter().filter(move |kin| kin.relation != top);
        if tops.is_empty() {
            // A parent without protection, of tables that have it?
            let protected = below(relation.relation).filter(|kin| {
                kin.root == Some(kin.relation) && ancestors(kin.relation, &known).contains(&relation.relation)
            });
            let before = lineage.families.len();
            for child in protected {
                add(&mut lineage.families, child.relation, []);
            }
            if lineage.families.len() == before {
                lineage.strangers.push(relation.relation);
            }
        }
        for top in tops {
            let is_below_top = |relation: &u32| ancestors(*relation, &known).contains(&top);
            add(&mut lineage.families, top, line.iter().copied().filter(is_below_top));
            let new = below(top)
                .filter(|kin| kin.root != Some(top) && ancestors(kin.relation, &known).contains(&relation.relation));
            add(&mut lineage.families, top, new.map(|kin| kin.relation));
        }
    }
    lineage
}

/// The parents of a relation and theirs, nearest first.
fn ancestors(relation: u32, known: &HashMap<u32, &Kin>) -> Vec<u32> {
    let mut found = vec![relation];
    let mut next = 0;
    while let Some(relation) = found.get(next) {
        let parents = known.get(relation).map(|kin| kin.parents.clone()).unwrap_or_default();
        for parent in parents {
            if !found.contains(&parent) {
                found.push(parent);
            }
        }
        next += 1;
    }
    found.remove(0);
    found
}

fn add(families: &mut Vec<Family>, root: u32, members: impl IntoIterator<Item = u32>) {
    let position = families.iter().position(|family| family.root == root).unwrap_or_else(|| {
        families.push(Family { root, members: vec![root] });
        families.len() - 1
    });
    for member in members {
        if !families[position].members.contains(&member) {
            families[position].members.push(member);
        }
    }
}

/// What the plan for a family that is on record says of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// What new partitions, children and foreign keys need.
    pub growth: Vec<Step>,
    /// What is missing or altered, by table.
    pub drift: Vec<(QualifiedName, Vec<String>)>,
}

/// Tells growth from drift: `steps` would protect the family anew, `settled` are its members that were protected before.
pub fn judge(steps: Vec<Step>, settled: &HashSet<QualifiedName>) -> Judgement {
    let mut judgement = Judgement::default();
    let replaced: HashSet<(QualifiedName, Ident)> = steps.iter().filter_map(dropped_policy).collect();
    for step in steps {
        match loss(&step, &replaced) {
            Loss::Of(table, what) if settled.contains(&table) => {
                match judgement.drift.iter_mut().find(|(drifted, _)| *drifted == table) {
                    Some((_, lost)) if lost.contains(&what) => {}
                    Some((_, lost)) => lost.push(what),
                    None => judgement.drift.push((table, vec![what])),
                }
            }
            Loss::Harmless(table) if settled.contains(&table) => {}
            _ => judgement.growth.push(step),
        }
    }
    judgement
}

fn dropped_policy(step: &Step) -> Option<(QualifiedName, Ident)> {
    match step {
        Step::DropPolicy { table, policy } => Some((table.clone(), policy.clone())),
        _ => None,
    }
}

/// What it says of a table that was protected when a step has to be taken again.
enum Loss {
    /// This is missing or altered.
    Of(QualifiedName, String),
    /// The table shows no more than before.
    Harmless(QualifiedName),
    /// Nothing of the table's own: a key to or from it is new.
    None,
}

fn loss(step: &Step, replaced: &HashSet<(QualifiedName, Ident)>) -> Loss {
    use Step as S;
    let of = |table: &QualifiedName, what: String| Loss::Of(table.clone(), what);
    match step {
        S::EnableRowSecurity { table } => of(table, "row security".into()),
        S::ForceRowSecurity { table } => of(table, "row security for the owner (FORCE)".into()),
        S::AddPolicy { table, policy } => {
            let name = policy::name(policy.name());
            // A companion that is gone closes the table; one that was altered is ours no longer.
            if policy.is_open() && !replaced.contains(&(table.clone(), name.clone())) {
                Loss::Harmless(table.clone())
            } else {
                of(table, format!("policy {name}"))
            }
        }
        // Either replaced, and told of there; or the companion beside a policy of the user's; or what closes the table.
        S::DropPolicy { table, .. } => Loss::Harmless(table.clone()),
        S::AddGuard { table } | S::DropGuard { table } => of(table, format!("trigger {}", super::step::GUARD)),
        S::SetDefault { table, column, .. } => of(table, format!("the default of {column}")),
        S::SetNotNull { table, column } => of(table, format!("NOT NULL of {column}")),
        S::AddColumn { table, column, .. } => of(table, format!("column {column}")),
        S::AddReference { table, .. } => of(table, format!("foreign key {}", policy::reference_name())),
        S::CheckTenantPresent { table, .. } | S::CheckTenantKnown { table, .. } | S::AssignRows { table, .. } => {
            Loss::Harmless(table.clone())
        }
        // Its absence costs time and opens nothing: whoever drops an index may be about to make a better one.
        S::AddIndex { table, unique: false, .. } => Loss::Harmless(table.clone()),
        _ => Loss::None,
    }
}

/// What is wrong with a policy of the user's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyFault {
    /// It believes a setting that any role can change.
    TrustsSetting,
    /// It offers rows beside the tenant's own.
    WidensTenant,
    /// The companion that opens the table swallows it.
    HasNoEffect,
}

impl PolicyFault {
    /// What the guard has to say of a finding of `tenancy_internal.own_policies`; None where it says nothing.
    pub fn of_check(check: &str) -> Option<Self> {
        match check {
            "policy_opens_without_context" | "policy_opened_by_setting" | "policy_trusts_setting" => {
                Some(Self::TrustsSetting)
            }
            "policy_widens" => Some(Self::WidensTenant),
            "policy_without_effect" => Some(Self::HasNoEffect),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isolation::plan::tests::{ident, table};
    use crate::model::KeyKind;

    fn kin(relation: u32, parents: &[u32], root: Option<u32>) -> Kin {
        Kin {
            relation,
            kind: 'r',
            parents: parents.to_vec(),
            root,
            is_exempt: false,
            owner: "owner".into(),
            owner_danger: None,
            schema: None,
            known_column: None,
        }
    }

    fn families(lineage: &Lineage) -> Vec<(u32, &[u32])> {
        lineage.families.iter().map(|family| (family.root, &family.members[..])).collect()
    }

    #[test]
    fn a_new_partition_is_judged_with_the_tables_above_it_and_not_with_its_sisters() {
        let tree = [
            kin(1, &[], Some(1)),
            kin(2, &[1], Some(1)),
            kin(3, &[2], None), // new
        ];
        assert_eq!(families(&lineage(&[3], &tree)), [(1, &[1, 2, 3][..])]);
    }

    #[test]
    fn whatever_came_below_a_touched_parent_is_found() {
        let tree = [kin(1, &[], Some(1)), kin(2, &[1], Some(1)), kin(3, &[1], None), kin(4, &[3], Some(4))];
        let found = lineage(&[1], &tree);
        assert_eq!(families(&found), [(1, &[1, 3, 4][..])]);
        assert!(found.detached.is_empty() && found.strangers.is_empty());
    }

    #[test]
    fn what_left_a_family_becomes_one_of_its_own_with_what_is_below_it() {
        let tree = [kin(1, &[], Some(1)), kin(2, &[], Some(1)), kin(3, &[2], Some(1))];
        let found = lineage(&[1], &tree);
        assert_eq!(found.detached, [(2, 2), (3, 2)]);
        assert_eq!(families(&found), [(2, &[2, 3][..]), (1, &[1][..])]);
    }

    #[test]
    fn a_protected_table_below_a_stranger_is_judged_itself() {
        let tree = [kin(1, &[], None), kin(2, &[1], Some(2))];
        assert_eq!(families(&lineage(&[1], &tree)), [(2, &[2][..])]);
        assert_eq!(families(&lineage(&[2], &tree)), [(2, &[2][..])]);
    }

    #[test]
    fn what_nobody_knows_is_a_stranger_and_what_is_nobodys_business_is_nothing() {
        let temporary = Kin { is_exempt: true, ..kin(2, &[], None) };
        let view = Kin { kind: 'v', ..kin(3, &[], None) };
        assert_eq!(lineage(&[1, 2, 3], &[kin(1, &[], None), temporary, view]).strangers, [1]);
    }

    fn steps() -> Vec<Step> {
        let (orders, column) = (table(1, "orders").name, ident("tenant_id"));
        let wanted =
            policy::wanted(Access::Tenant, &column, Some(&table(1, "orders").columns[1]), Some(KeyKind::Id), true);
        let mut steps = vec![
            Step::CheckTenantPresent { table: orders.clone(), column: column.clone() },
            Step::SetNotNull { table: orders.clone(), column: column.clone() },
            Step::AddIndex { table: orders.clone(), columns: vec![column], unique: false },
        ];
        steps.extend(wanted.into_iter().map(|policy| Step::AddPolicy { table: orders.clone(), policy }));
        steps.push(Step::EnableRowSecurity { table: orders });
        steps
    }

    #[test]
    fn what_a_new_member_lacks_is_growth_and_what_an_old_one_lost_is_drift() {
        let steps = steps();
        let new = judge(steps.clone(), &HashSet::new());
        assert_eq!(new, Judgement { growth: steps.clone(), drift: vec![] });
        let old = judge(steps, &HashSet::from([table(1, "orders").name]));
        assert_eq!(old.growth, []);
        let lost =
            ["NOT NULL of tenant_id", "policy tenancy_isolation", "policy tenancy_isolation_delete", "row security"];
        assert_eq!(old.drift, [(table(1, "orders").name, lost.map(str::to_owned).to_vec())]);
    }

    #[test]
    fn a_companion_may_go_but_not_change() {
        let settled = HashSet::from([table(1, "orders").name]);
        let open =
            steps().into_iter().filter(|step| matches!(step, Step::AddPolicy { policy, .. } if policy.is_open()));
        let gone: Vec<Step> = open.collect();
        assert_eq!(judge(gone.clone(), &settled), Judgement::default());
        let mut altered = vec![Step::DropPolicy { table: table(1, "orders").name, policy: ident("tenancy_open") }];
        altered.extend(gone);
        assert_eq!(judge(altered, &settled).drift[0].1, ["policy tenancy_open"]);
    }
}
