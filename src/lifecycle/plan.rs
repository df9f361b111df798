//! In which order a tenant's rows go, and how.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A table that was protected, with its partitions and children.
#[derive(Clone, Debug, Deserialize)]
pub struct Table {
    pub oid: u32,
    pub name: String,
    /// The protected tables that its foreign keys refer to, itself perhaps among them.
    pub refers: Vec<u32>,
    /// Itself and what lies below it, parents first.
    pub members: Vec<Member>,
}

/// A table, partition or child, as far as its removal is concerned.
#[derive(Clone, Debug, Deserialize)]
pub struct Member {
    pub oid: u32,
    pub name: String,
    pub parent: Option<u32>,
    /// It has rows itself.
    pub is_stored: bool,
    /// A partition for rows of this tenant alone, and nothing else depends on it.
    pub is_exclusive: bool,
    /// Estimates of the tenant's part.
    pub rows: i64,
    pub bytes: i64,
}

/// How rows go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// The partition is detached and dropped.
    Drop,
    /// In batches.
    Delete,
    /// In one statement, for keys that go in a circle agree at its end only.
    Together,
}

impl How {
    pub fn lock(self) -> &'static str {
        match self {
            Self::Drop => "ACCESS EXCLUSIVE, also on the parent, for a moment",
            Self::Delete | Self::Together => "ROW EXCLUSIVE",
        }
    }

    pub fn shown(self) -> &'static str {
        match self {
            Self::Drop => "drop partition",
            Self::Delete => "delete in batches",
            Self::Together => "delete in one statement",
        }
    }

    pub fn reason(self) -> &'static str {
        match self {
            Self::Drop => "it has rows of this tenant only",
            Self::Delete => "what refers to it goes before",
            Self::Together => "foreign keys go in a circle",
        }
    }
}

/// A table's part in the removal; parts of one `step` go together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    pub step: i32,
    pub relation: u32,
    pub name: String,
    pub how: How,
    pub rows: i64,
    pub bytes: i64,
}

/// The parts, in order: what refers to a table goes before it.
pub fn order(tables: &[Table]) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut step = 0;
    let mut next = || {
        step += 1;
        step
    };
    for circle in circles(tables).into_iter().rev() {
        let is_circle = circle.len() > 1 || circle.iter().any(|table| table.refers.contains(&table.oid));
        if is_circle {
            let together = next();
            parts.extend(circle.iter().map(|table| Part {
                step: together,
                relation: table.oid,
                name: table.name.clone(),
                how: How::Together,
                rows: table.members.iter().map(|member| member.rows).sum(),
                bytes: table.members.iter().map(|member| member.bytes).sum(),
            }));
        }
        for table in circle {
            let mut gone: Vec<u32> = Vec::new();
            for member in &table.members {
                if member.parent.is_some_and(|parent| gone.contains(&parent)) {
                    gone.push(member.oid);
                    continue;
                }
                let how = match member {
                    Member { is_exclusive: true, .. } => How::Drop,
                    Member { is_stored: true, .. } if !is_circle => How::Delete,
                    _ => continue,
                };
                let below = |top: &Member| below(&table.members, top.oid);
                let (rows, bytes) = match how {
                    How::Drop if is_circle => (0, 0),
                    How::Drop => below(member).fold((0, 0), |sum, part| (sum.0 + part.rows, sum.1 + part.bytes)),
                    _ => (member.rows, member.bytes),
                };
                if how == How::Drop {
                    gone.push(member.oid);
                }
                parts.push(Part { step: next(), relation: member.oid, name: member.name.clone(), how, rows, bytes });
            }
        }
    }
    parts
}

/// A member and what lies below it.
fn below(members: &[Member], top: u32) -> impl Iterator<Item = &Member> {
    let mut known = vec![top];
    members.iter().filter(move |member| {
        let is_below = member.oid == top || member.parent.is_some_and(|parent| known.contains(&parent));
        if is_below {
            known.push(member.oid);
        }
        is_below
    })
}

/// The tables, those that refer to each other together; what a table refers to comes before it (Tarjan).
fn circles(tables: &[Table]) -> Vec<Vec<&Table>> {
    let mut search = Search { tables: tables.iter().map(|table| (table.oid, table)).collect(), ..Search::default() };
    let mut by_name: Vec<&Table> = tables.iter().collect();
    by_name.sort_by(|a, b| b.name.cmp(&a.name));
    for table in by_name {
        if !search.index.contains_key(&table.oid) {
            search.visit(table);
        }
    }
    search.found
}

#[derive(Default)]
struct Search<'a> {
    tables: BTreeMap<u32, &'a Table>,
    index: BTreeMap<u32, usize>,
    low: BTreeMap<u32, usize>,
    stack: Vec<u32>,
    found: Vec<Vec<&'a Table>>,
}

impl<'a> Search<'a> {
    fn visit(&mut self, table: &'a Table) {
        let at = self.index.len();
        self.index.insert(table.oid, at);
        self.low.insert(table.oid, at);
        self.stack.push(table.oid);
        let mut refers = table.refers.clone();
        refers.sort_unstable();
        for parent in refers {
            let Some(next) = self.tables.get(&parent).copied() else { continue };
            let reached = match self.index.get(&parent) {
                None => {
                    self.visit(next);
                    self.low[&parent]
                }
                Some(seen) if self.stack.contains(&parent) => *seen,
                Some(_) => continue,
            };
            self.low.entry(table.oid).and_modify(|low| *low = (*low).min(reached));
        }
        if self.low[&table.oid] == at {
            let start = self.stack.iter().position(|oid| *oid == table.oid).unwrap_or_default();
            let mut circle: Vec<&Table> = self.stack.drain(start..).map(|oid| self.tables[&oid]).collect();
            circle.sort_by(|a, b| a.name.cmp(&b.name));
            self.found.push(circle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(oid: u32, name: &str, parent: Option<u32>) -> Member {
        Member { oid, name: name.into(), parent, is_stored: true, is_exclusive: false, rows: 10, bytes: 80 }
    }

    fn table(oid: u32, name: &str, refers: &[u32]) -> Table {
        Table { oid, name: name.into(), refers: refers.into(), members: vec![member(oid, name, None)] }
    }

    fn shown(tables: &[Table]) -> Vec<String> {
        order(tables).iter().map(|part| format!("{} {} {:?}", part.step, part.name, part.how)).collect()
    }

    #[test]
    fn what_refers_goes_first_whatever_the_order_of_names() {
        let tables = [table(1, "a", &[]), table(2, "b", &[1]), table(3, "c", &[2, 1]), table(4, "d", &[9])];
        assert_eq!(shown(&tables), ["1 c Delete", "2 b Delete", "3 a Delete", "4 d Delete"].map(String::from).to_vec());
        let reversed = [table(3, "a", &[2, 1]), table(2, "b", &[1]), table(1, "c", &[])];
        assert_eq!(shown(&reversed), ["1 a Delete", "2 b Delete", "3 c Delete"]);
    }

    #[test]
    fn a_circle_goes_in_one_step_between_what_refers_to_it_and_what_it_refers_to() {
        let tables = [
            table(1, "base", &[]),
            table(2, "team", &[3, 1]),
            table(3, "person", &[2]),
            table(4, "note", &[3]),
            table(5, "tree", &[5]),
        ];
        assert_eq!(
            shown(&tables),
            ["1 note Delete", "2 person Together", "2 team Together", "3 base Delete", "4 tree Together"]
                .map(String::from)
                .to_vec()
        );
    }

    #[test]
    fn a_partition_of_the_tenant_alone_is_dropped_with_what_lies_below_it() {
        let mut orders = table(1, "orders", &[]);
        orders.members[0].is_stored = false;
        orders.members.push(Member {
            is_exclusive: true,
            is_stored: false,
            rows: 0,
            bytes: 0,
            ..member(2, "own", Some(1))
        });
        orders.members.push(member(3, "own_2026", Some(2)));
        orders.members.push(member(4, "rest", Some(1)));
        let parts = order(&[orders.clone()]);
        assert_eq!(shown(&[orders.clone()]), ["1 own Drop", "2 rest Delete"]);
        assert_eq!((parts[0].rows, parts[0].bytes), (10, 80));
        // In a circle the rows go first: keys do not let go of the partition before.
        orders.refers = vec![1];
        assert_eq!(shown(&[orders]), ["1 orders Together", "2 own Drop"]);
    }

    #[test]
    fn each_row_is_in_one_part() {
        let tables: Vec<Table> = (1..=20).map(|oid| table(oid, &format!("t{oid}"), &[oid % 7 + 1, oid])).collect();
        assert_eq!(order(&tables).iter().map(|part| part.rows).sum::<i64>(), 200);
        assert_eq!(order(&tables).len(), 20);
    }
}
