//! Who gets what when the catalogs are taken from PUBLIC, and when they are given back.

use crate::error::TenancyError;
use crate::model::catalogs::Kind;
use crate::model::{Deparsed, Ident, Sql};
use std::collections::{BTreeMap, BTreeSet};

/// How a role is kept from the catalogs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Hooks,
    Grants,
}

/// How a role stands so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Open,
    LockedDown(Method),
}

/// The method that a call asks for.
pub fn method(asked: &str, standing: Standing, has_hooks: bool) -> Result<Method, TenancyError> {
    match (asked, standing) {
        ("grants", _) => Ok(Method::Grants),
        ("hooks", _) if has_hooks => Ok(Method::Hooks),
        ("hooks", _) => Err(TenancyError::NoHooks),
        // A second call must not loosen what the first one did.
        ("auto", Standing::LockedDown(Method::Grants)) => Ok(Method::Grants),
        ("auto", _) => Ok(if has_hooks { Method::Hooks } else { Method::Grants }),
        _ => Err(TenancyError::UnknownChoice {
            argument: "method",
            given: asked.to_owned(),
            choices: &["auto", "hooks", "grants"],
        }),
    }
}

/// A role, by its oid.
pub type RoleId = u32;

/// A relation or function that shows other sessions, as its privileges are now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalog {
    pub kind: Kind,
    /// Its qualified name, a function's with argument types.
    pub name: Deparsed,
    pub acl: Option<Vec<String>>,
    pub is_public: bool,
    /// The roles that hold the privilege in their own name.
    pub holders: BTreeSet<RoleId>,
    /// The roles that got it from us; None where PUBLIC never lost it to us.
    pub given_to: Option<BTreeSet<RoleId>>,
}

/// Statements of one form about many objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub gives: bool,
    pub kind: Kind,
    pub to: Party,
    pub objects: Vec<Deparsed>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    Public,
    Roles(Vec<Ident>),
}

/// What is to be done, and what is to be on record after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub changes: Vec<Change>,
    pub records: Vec<Record>,
}

/// That PUBLIC has lost a catalog to us, and who got it instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub kind: Kind,
    pub name: Deparsed,
    pub acl_before: Option<Vec<String>>,
    pub given_to: BTreeSet<RoleId>,
}

type Grouped = BTreeMap<(Kind, bool, Party), Vec<Deparsed>>;

/// Takes the catalogs from PUBLIC and gives them to `keepers` by name.
pub fn take(catalogs: &[Catalog], keepers: &BTreeMap<RoleId, Ident>, names: &BTreeMap<RoleId, Ident>) -> Plan {
    let mut grouped = Grouped::new();
    let mut records = Vec::new();
    for catalog in catalogs.iter().filter(|catalog| catalog.is_public || catalog.given_to.is_some()) {
        let before = catalog.given_to.clone().unwrap_or_default();
        let keep: BTreeSet<RoleId> = keepers.keys().copied().collect();
        let give: BTreeSet<RoleId> = keep.difference(&catalog.holders).copied().collect();
        let withdraw: BTreeSet<RoleId> = before.difference(&keep).copied().collect();
        add_roles(&mut grouped, catalog, true, &give, keepers);
        let held = withdraw.intersection(&catalog.holders).copied().collect();
        add_roles(&mut grouped, catalog, false, &held, names);
        if catalog.is_public {
            add(&mut grouped, catalog, false, Party::Public);
        }
        let given_to: BTreeSet<RoleId> = before.union(&give).filter(|role| keep.contains(role)).copied().collect();
        if catalog.given_to.as_ref() != Some(&given_to) {
            let (kind, name, acl_before) = (catalog.kind, catalog.name.clone(), catalog.acl.clone());
            records.push(Record { kind, name, acl_before, given_to });
        }
    }
    Plan { changes: ungrouped(grouped), records }
}

/// Gives PUBLIC the catalogs back, and takes them from the roles that got them from us.
pub fn give_back(catalogs: &[Catalog], names: &BTreeMap<RoleId, Ident>) -> Vec<Change> {
    let mut grouped = Grouped::new();
    for catalog in catalogs {
        let Some(given_to) = &catalog.given_to else { continue };
        if !catalog.is_public {
            add(&mut grouped, catalog, true, Party::Public);
        }
        let held = given_to.intersection(&catalog.holders).copied().collect();
        add_roles(&mut grouped, catalog, false, &held, names);
    }
    ungrouped(grouped)
}

fn add_roles(
    grouped: &mut Grouped,
    catalog: &Catalog,
    gives: bool,
    roles: &BTreeSet<RoleId>,
    names: &BTreeMap<RoleId, Ident>,
) {
    let roles: Vec<Ident> = roles.iter().filter_map(|role| names.get(role).cloned()).collect();
    if !roles.is_empty() {
        add(grouped, catalog, gives, Party::Roles(roles));
    }
}

fn add(grouped: &mut Grouped, catalog: &Catalog, gives: bool, party: Party) {
    grouped.entry((catalog.kind, gives, party)).or_default().push(catalog.name.clone());
}

fn ungrouped(grouped: Grouped) -> Vec<Change> {
    grouped.into_iter().map(|((kind, gives, to), objects)| Change { gives, kind, to, objects }).collect()
}

impl Change {
    /// The statement that makes it.
    pub fn statement(&self) -> Sql {
        let mut sql = Sql::text(match (self.gives, self.kind) {
            (true, Kind::Relation) => "GRANT SELECT ON TABLE ",
            (true, Kind::Function) => "GRANT EXECUTE ON FUNCTION ",
            (false, Kind::Relation) => "REVOKE SELECT ON TABLE ",
            (false, Kind::Function) => "REVOKE EXECUTE ON FUNCTION ",
        });
        for (position, object) in self.objects.iter().enumerate() {
            if position > 0 {
                sql = sql.then(", ");
            }
            sql = sql.deparsed(object);
        }
        sql = sql.then(if self.gives { " TO " } else { " FROM " });
        match &self.to {
            Party::Public => sql.then("PUBLIC"),
            Party::Roles(roles) => sql.idents(roles),
        }
    }

    /// What it does, in a word.
    pub fn action(&self) -> &'static str {
        if self.gives { "grant" } else { "revoke" }
    }

    /// Why it is made.
    pub fn reason(&self) -> &'static str {
        match (&self.to, self.gives) {
            (Party::Public, false) => "PostgreSQL knows no PUBLIC without one role",
            (Party::Public, true) => "no role is locked down by grants any more",
            (Party::Roles(_), true) => "these roles had it through PUBLIC",
            (Party::Roles(_), false) => "these roles got it in place of PUBLIC, and are not to have it now",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog(holders: &[RoleId], is_public: bool, given_to: Option<&[RoleId]>) -> Catalog {
        Catalog {
            kind: Kind::Relation,
            name: Deparsed::from_catalog("pg_catalog.pg_locks".into()),
            acl: None,
            is_public,
            holders: holders.iter().copied().collect(),
            given_to: given_to.map(|roles| roles.iter().copied().collect()),
        }
    }

    fn roles(numbers: &[RoleId]) -> BTreeMap<RoleId, Ident> {
        numbers.iter().map(|number| (*number, Ident::new(&format!("r{number}")).unwrap())).collect()
    }

    fn statements(changes: &[Change]) -> Vec<String> {
        changes.iter().map(|change| change.statement().to_string()).collect()
    }

    #[test]
    fn hooks_are_chosen_where_there_are_any_and_grants_stay() {
        assert_eq!(method("auto", Standing::Open, true), Ok(Method::Hooks));
        assert_eq!(method("auto", Standing::Open, false), Ok(Method::Grants));
        assert_eq!(method("auto", Standing::LockedDown(Method::Grants), true), Ok(Method::Grants));
        assert_eq!(method("auto", Standing::LockedDown(Method::Hooks), false), Ok(Method::Grants));
        assert_eq!(method("hooks", Standing::LockedDown(Method::Grants), true), Ok(Method::Hooks));
        assert_eq!(method("hooks", Standing::Open, false), Err(TenancyError::NoHooks));
        assert!(method("Hooks", Standing::Open, true).is_err());
    }

    #[test]
    fn public_loses_and_the_others_keep() {
        let plan = take(&[catalog(&[1], true, None)], &roles(&[1, 2]), &roles(&[1, 2]));
        assert_eq!(
            statements(&plan.changes),
            [
                "REVOKE SELECT ON TABLE pg_catalog.pg_locks FROM PUBLIC",
                "GRANT SELECT ON TABLE pg_catalog.pg_locks TO r2"
            ]
        );
        assert_eq!(plan.records[0].given_to, BTreeSet::from([2]), "who had it before did not get it from us");
    }

    #[test]
    fn the_second_time_nothing_is_left_to_do() {
        let taken = catalog(&[1, 2], false, Some(&[2]));
        assert_eq!(take(&[taken], &roles(&[1, 2]), &roles(&[1, 2])), Plan::default());
    }

    #[test]
    fn a_new_role_gets_it_and_one_that_is_locked_down_since_loses_it() {
        let plan = take(&[catalog(&[2], false, Some(&[2]))], &roles(&[3]), &roles(&[2, 3]));
        assert_eq!(
            statements(&plan.changes),
            ["REVOKE SELECT ON TABLE pg_catalog.pg_locks FROM r2", "GRANT SELECT ON TABLE pg_catalog.pg_locks TO r3"]
        );
        assert_eq!(plan.records[0].given_to, BTreeSet::from([3]));
    }

    #[test]
    fn what_public_never_had_is_left_alone() {
        assert_eq!(take(&[catalog(&[], false, None)], &roles(&[1]), &roles(&[1])), Plan::default());
    }

    #[test]
    fn giving_back_takes_only_what_we_gave() {
        let taken = catalog(&[1, 2], false, Some(&[2, 9]));
        assert_eq!(
            statements(&give_back(&[taken, catalog(&[], true, None)], &roles(&[1, 2]))),
            [
                "REVOKE SELECT ON TABLE pg_catalog.pg_locks FROM r2",
                "GRANT SELECT ON TABLE pg_catalog.pg_locks TO PUBLIC"
            ]
        );
    }
}
