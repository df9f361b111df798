//! What the actions of foreign keys do to the tenant column.
//!
//! An action runs past row security and writes every column of the key. So `ON DELETE SET NULL` of one that has the tenant
//! column makes a row everybody's where rows without a tenant are, and fails elsewhere.

use super::step::{self, NO_ACTION};
use crate::error::TenancyError;
use crate::model::Ident;
use crate::model::policy::Access;
use crate::model::table::{ForeignKey, Table};

/// Why a step writes a key anew.
pub const NARROWED: &str = "its action would set the tenant column, too";

/// What becomes of a foreign key of a protected table.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No action of its reaches the tenant column.
    Fits,
    /// It fits in this form: its action names the columns that it sets.
    Narrowed(Box<ForeignKey>),
    /// No form of this action leaves the tenant column out; the refusal names one without it.
    Refused(Box<TenancyError>),
}

/// A protected table, as far as it matters here.
#[derive(Clone, Copy)]
pub struct Child<'a> {
    pub table: &'a Table,
    pub column: &'a Ident,
    pub access: Access,
    /// `server_version_num`.
    pub server_version: i32,
}

/// Judges a foreign key of the table. `parent_column` is the tenant column of the table it refers to, where that is protected.
pub fn judge(child: Child<'_>, key: &ForeignKey, parent_column: Option<&Ident>) -> Verdict {
    let Some(place) = key.columns.iter().position(|column| column == child.column).filter(|_| key.is_enforced) else {
        return Verdict::Fits;
    };
    let mut fit = key.clone();
    let mut faults = Vec::new();
    if step::sets_columns(key.on_update) || opens_by_update(child, key, place, parent_column) {
        faults.push(format!("ON UPDATE {}", step::action(key.on_update)));
        fit.on_update = NO_ACTION;
    }
    let set = if key.on_delete_columns.is_empty() { &key.columns } else { &key.on_delete_columns };
    if step::sets_columns(key.on_delete) && set.contains(child.column) {
        fit.on_delete_columns = set.iter().filter(|column| *column != child.column).cloned().collect();
        // MATCH FULL allows no key that is null in part.
        if fit.on_delete_columns.is_empty() || key.match_type == 'f' || child.server_version < 150_000 {
            faults.push(format!("ON DELETE {}", step::action(key.on_delete)));
            fit.on_delete = NO_ACTION;
            fit.on_delete_columns.clear();
        }
    }
    if !faults.is_empty() {
        return Verdict::Refused(Box::new(TenancyError::ActionSetsTenant {
            table: child.table.name.clone(),
            column: child.column.clone(),
            constraint: key.name.clone(),
            actions: faults.join(" and "),
            instead: step::definition(&fit).to_string(),
        }));
    }
    if fit == *key { Verdict::Fits } else { Verdict::Narrowed(Box::new(fit)) }
}

/// Whether ON UPDATE CASCADE brings a NULL into the tenant column that whoever writes the other table can put there. A
/// tenant column of a protected table's own is nobody's to empty.
fn opens_by_update(child: Child<'_>, key: &ForeignKey, place: usize, parent_column: Option<&Ident>) -> bool {
    let paired = key.parent_columns.get(place);
    key.on_update == 'c'
        && child.access == Access::Shared
        && paired != parent_column
        && paired.is_some_and(|column| key.nullable_parent_columns.contains(column))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isolation::plan::tests::{ident, key_to, table};

    fn key(on_delete: char, on_update: char) -> ForeignKey {
        ForeignKey {
            columns: vec![ident("tenant_id"), ident("folder")],
            parent_columns: vec![ident("owner"), ident("id")],
            nullable_parent_columns: vec![ident("owner")],
            on_delete,
            on_update,
            ..key_to(2, "folder")
        }
    }

    fn judged(key: &ForeignKey, access: Access, server_version: i32) -> Verdict {
        let (table, column) = (table(1, "templates"), ident("tenant_id"));
        judge(Child { table: &table, column: &column, access, server_version }, key, Some(&ident("tenant_id")))
    }

    fn refused(key: &ForeignKey, server_version: i32) -> (String, String) {
        match judged(key, Access::Shared, server_version) {
            Verdict::Refused(error) => match *error {
                TenancyError::ActionSetsTenant { actions, instead, .. } => (actions, instead),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_action_names_all_columns_but_the_tenant() {
        for action in ['n', 'd'] {
            let Verdict::Narrowed(fit) = judged(&key(action, 'a'), Access::Tenant, 150_000) else { panic!("{action}") };
            assert_eq!(*fit, ForeignKey { on_delete_columns: vec![ident("folder")], ..key(action, 'a') });
            assert_eq!(judged(&fit, Access::Tenant, 150_000), Verdict::Fits);
        }
    }

    #[test]
    fn what_sets_nothing_or_not_the_tenant_fits() {
        for key in [
            key('c', 'a'),
            key('r', 'r'),
            key_to(2, "folder"),
            ForeignKey { is_enforced: false, ..key('n', 'n') },
            ForeignKey { nullable_parent_columns: vec![], ..key('a', 'c') },
        ] {
            assert_eq!(judged(&key, Access::Shared, 150_000), Verdict::Fits, "{key:?}");
        }
        assert_eq!(judged(&key('a', 'c'), Access::Tenant, 150_000), Verdict::Fits);
    }

    #[test]
    fn what_cannot_leave_the_tenant_out_is_refused_with_what_can() {
        let plain = "FOREIGN KEY (tenant_id, folder) REFERENCES public.parents (owner, id)";
        assert_eq!(refused(&key('a', 'n'), 150_000), ("ON UPDATE SET NULL".into(), plain.into()));
        assert_eq!(refused(&key('a', 'c'), 150_000), ("ON UPDATE CASCADE".into(), plain.into()));
        assert_eq!(refused(&key('n', 'a'), 140_000), ("ON DELETE SET NULL".into(), plain.into()));
        let both = refused(&key('n', 'd'), 150_000);
        assert_eq!(both, ("ON UPDATE SET DEFAULT".into(), format!("{plain} ON DELETE SET NULL (folder)")));
        let tenant_alone = ForeignKey { on_delete_columns: vec![ident("tenant_id")], ..key('d', 'a') };
        assert_eq!(refused(&tenant_alone, 150_000).0, "ON DELETE SET DEFAULT");
        let full = ForeignKey { match_type: 'f', ..key('n', 'a') };
        assert_eq!(refused(&full, 150_000).1, format!("{plain} MATCH FULL"));
    }
}
