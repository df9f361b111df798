//! Unique keys that ignore the tenant, led by the tenant column; and back.
//!
//! What is compared across tenants tells each of them what the others have. Decisions here; statements: keys/store.rs.

pub mod store;

use super::plan::{self, End};
use super::step::{Link, Step};
use super::undo::ScopedKey;
use crate::error::TenancyError;
use crate::model::policy::Access;
use crate::model::table::{ForeignKey, Table};
use crate::model::{Deparsed, Ident, QualifiedName, Sql};
use serde::Deserialize;

/// A UNIQUE, PRIMARY KEY or EXCLUDE constraint, or a unique index without one; read by `tenancy_internal.describe_key`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Key {
    pub name: Ident,
    pub relation: u32,
    pub table: QualifiedName,
    /// `pg_constraint.contype`: p, u or x; i for an index without a constraint.
    pub kind: char,
    /// The partitioned table whose key it is a part of.
    pub part_of: Option<QualifiedName>,
    /// The columns that rows must share to collide.
    pub equal: Vec<Ident>,
    /// What stands before the list of columns: `UNIQUE`, or `USING btree` for an index.
    pub opening: Deparsed,
    /// The list of columns without its opening parenthesis, and what follows it: `a, b) INCLUDE (c)`.
    pub list: Deparsed,
    /// The same of the index under it.
    pub index_list: Deparsed,
    pub tablespace: Option<Ident>,
    pub predicate: Option<Deparsed>,
    pub is_deferrable: bool,
    pub is_deferred: bool,
    pub is_replica_identity: bool,
    pub is_clustered: bool,
    pub comment: Option<Box<str>>,
    pub index_comment: Option<Box<str>>,
    pub access_method: Ident,
    /// The access method has an operator class for the tenant column.
    pub has_operator_class: bool,
    /// The access method takes several columns.
    pub takes_columns: bool,
    /// What PostgreSQL would not let go of the key, as it names it.
    pub dependents: Vec<Box<str>>,
    /// Unique indexes of the table that no constraint has yet.
    pub spare: Vec<SpareIndex>,
    /// The tables whose foreign keys refer to it, and the names of these.
    pub references: Vec<(u32, Ident)>,
}

/// A valid unique index that may become the key.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SpareIndex {
    pub name: Ident,
    pub list: Deparsed,
    pub tablespace: Option<Ident>,
    pub predicate: Option<Deparsed>,
}

/// A foreign key that refers to the key.
#[derive(Clone, Debug)]
pub struct Reference {
    pub child: Table,
    /// The child's tenant column and access, if it is protected.
    pub protection: Option<(Option<Ident>, Access)>,
    pub key: ForeignKey,
    /// What to make of it on the way back; None where it keeps the tenant column.
    pub before: Option<ScopedKey>,
}

/// What the plan is made from.
#[derive(Clone, Debug)]
pub struct Facts {
    pub target: Table,
    pub column: Option<Ident>,
    pub access: Access,
    pub name: Ident,
    /// The key, then those of the partitions that are parts of it, parents first.
    pub keys: Vec<Key>,
    pub references: Vec<Reference>,
    /// Our plain index on the tenant column, if an earlier call made one.
    pub own_index: Option<Ident>,
    /// `scope_unique` is on record for the key.
    pub is_recorded: bool,
    pub server_version: i32,
}

/// One thing to do about a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyStep {
    /// Takes off a foreign key that refers to the key; `Attach` puts it back.
    Detach(Link),
    Drop(Key),
    /// Makes the key with this list of columns.
    Add(Key, Sql),
    /// Makes a unique index that is there already the key.
    Adopt(Key, Ident),
    Attach {
        link: Link,
        form: Form,
    },
    MarkReplicaIdentity(Key),
    MarkClustered(Key),
    CommentOnConstraint(Key, Box<str>),
    CommentOnIndex(Key, Box<str>),
}

/// The form in which a foreign key comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    Scoped,
    Unscoped { match_full: bool },
    Unchanged,
}

/// The steps that lead the key by the tenant column; empty when it has that column already.
pub fn scope(facts: &Facts) -> Result<Vec<Step>, TenancyError> {
    let key = facts.key()?;
    let column = facts.tenant_column(key)?;
    if key.equal.contains(column) {
        return Ok(vec![]);
    }
    if let Some(parent) = &key.part_of {
        return Err(TenancyError::PartOfKey {
            key: key.name.clone(),
            table: key.table.clone(),
            parent: parent.clone(),
        });
    }
    facts.keys.iter().try_for_each(|key| refuse_unfit(key, facts.access))?;
    let mut steps = Vec::new();
    let links: Vec<Link> =
        facts.references.iter().map(|found| facts.link(key, column, found, &mut steps)).collect::<Result<_, _>>()?;
    steps.extend(links.iter().cloned().map(Step::CheckLink));
    for (link, found) in links.iter().zip(&facts.references) {
        steps.push(Step::Key(KeyStep::Detach(Link { key: found.key.clone(), ..link.clone() })));
    }
    let lead = lead(key, column);
    let spare = (facts.keys.len() == 1).then(|| key.spare_led_by(&lead)).flatten();
    replace(&facts.keys, spare, |key| Sql::text("").sql(&lead).deparsed(&key.list), &mut steps);
    let attach = |link| Step::Key(KeyStep::Attach { link, form: Form::Scoped });
    steps.extend(links.into_iter().map(attach));
    if let Some(index) = facts.own_index.clone().filter(|_| key.serves_queries()) {
        steps.push(Step::DropIndex { schema: key.table.schema.clone(), index });
    }
    Ok(steps)
}

/// The steps that put the key back as it was before `scope`.
pub fn unscope(facts: &Facts) -> Result<Vec<Step>, TenancyError> {
    let key = facts.key()?;
    let not_scoped = || TenancyError::KeyNotScoped { key: key.name.clone(), table: key.table.clone() };
    let column = facts.column.as_ref().filter(|_| is_scoped(facts)).ok_or_else(not_scoped)?;
    refuse_dependents(key)?;
    let lead = lead(key, column);
    let mut steps = Vec::new();
    let mut back = Vec::new();
    let mut composite: Option<Vec<Ident>> = None;
    for found in &facts.references {
        let child_column = found.protection.as_ref().and_then(|(column, _)| column.as_ref()).unwrap_or(column);
        let mut link = Link {
            child: found.child.name.clone(),
            child_column: child_column.clone(),
            parent: key.table.clone(),
            parent_column: column.clone(),
            key: found.key.clone(),
        };
        steps.push(Step::Key(KeyStep::Detach(link.clone())));
        let form = match &found.before {
            Some(before) => {
                link.key.on_delete = before.was_on_delete.unwrap_or(link.key.on_delete);
                Form::Unscoped { match_full: before.was_match_full }
            }
            None => {
                composite = Some(found.key.parent_columns.clone());
                Form::Unchanged
            }
        };
        back.push(Step::Key(KeyStep::Attach { link, form }));
    }
    let plain = |key: &Key| Sql::text("").deparsed(&key.list.skip(lead.as_str().len()));
    replace(&facts.keys, None, plain, &mut steps);
    // What keeps the tenant column needs a key of its own, as protect_table makes one.
    if let Some(columns) = composite {
        steps.push(Step::AddIndex { table: key.table.clone(), columns, unique: true });
    } else if key.serves_queries() && !facts.target.is_partition && !has_other_index(facts, column, key) {
        steps.push(Step::AddIndex { table: key.table.clone(), columns: vec![column.clone()], unique: false });
    }
    steps.extend(back);
    Ok(steps)
}

/// Whether the key stands as `scope` left it.
pub fn is_scoped(facts: &Facts) -> bool {
    let is_led = |column: &Ident, key: &Key| key.list.as_str().starts_with(lead(key, column).as_str());
    let whole = facts.keys.first().is_some_and(|key| key.part_of.is_none());
    whole
        && facts.is_recorded
        && facts.column.as_ref().is_some_and(|column| facts.keys.iter().all(|key| is_led(column, key)))
}

fn has_other_index(facts: &Facts, column: &Ident, key: &Key) -> bool {
    let leads = |columns: &[Option<Ident>]| columns.first() == Some(&Some(column.clone()));
    facts.target.indexes.iter().any(|index| index.name != key.name && index.is_reliable && leads(&index.columns))
}

/// Drops the keys, parents first, and makes them anew, partitions first: a parent's key takes in theirs.
fn replace(keys: &[Key], spare: Option<&SpareIndex>, list: impl Fn(&Key) -> Sql, steps: &mut Vec<Step>) {
    if let Some(key) = keys.first() {
        steps.push(Step::Key(KeyStep::Drop(key.clone())));
    }
    for (position, key) in keys.iter().enumerate().rev() {
        // PostgreSQL does not recognise an exclusion constraint of a partition as part of the parent's: it makes that.
        if key.kind == 'x' && position > 0 {
            continue;
        }
        steps.push(Step::Key(match spare {
            Some(spare) => KeyStep::Adopt(key.clone(), spare.name.clone()),
            None => KeyStep::Add(key.clone(), list(key)),
        }));
        let marks = [
            key.is_replica_identity.then(|| KeyStep::MarkReplicaIdentity(key.clone())),
            key.is_clustered.then(|| KeyStep::MarkClustered(key.clone())),
            key.comment.clone().map(|comment| KeyStep::CommentOnConstraint(key.clone(), comment)),
            key.index_comment.clone().map(|comment| KeyStep::CommentOnIndex(key.clone(), comment)),
        ];
        steps.extend(marks.into_iter().flatten().map(Step::Key));
    }
}

/// What the list of columns begins with once the tenant leads it.
fn lead(key: &Key, column: &Ident) -> Sql {
    Sql::text("").ident(column).then(if key.kind == 'x' { " WITH =, " } else { ", " })
}

fn refuse_unfit(key: &Key, access: Access) -> Result<(), TenancyError> {
    let unfit = |reason: String, hint| {
        Err(TenancyError::UnfitKey { key: key.name.clone(), table: key.table.clone(), reason, hint })
    };
    if access == Access::Shared {
        return unfit(
            "Rows without a tenant, which a shared table has, would no longer be unique.".to_owned(),
            "Write two unique indexes instead: one led by the tenant column, and one over the present columns WHERE the tenant column IS NULL.",
        );
    }
    if !key.takes_columns {
        return unfit(
            format!("Access method {} takes one column only.", key.access_method),
            "Write the constraint with another access method first, such as gist.",
        );
    }
    if !key.has_operator_class {
        return unfit(
            format!("Access method {} cannot compare the tenant column for equality.", key.access_method),
            "Run CREATE EXTENSION btree_gist first: it teaches gist to compare uuid, integer and text columns.",
        );
    }
    refuse_dependents(key)
}

fn refuse_dependents(key: &Key) -> Result<(), TenancyError> {
    match key.dependents.first() {
        Some(dependent) => Err(TenancyError::KeyInUse {
            key: key.name.clone(),
            table: key.table.clone(),
            dependent: dependent.to_string(),
        }),
        None => Ok(()),
    }
}

impl Facts {
    fn key(&self) -> Result<&Key, TenancyError> {
        self.keys
            .first()
            .ok_or_else(|| TenancyError::UnknownKey { table: self.target.name.clone(), key: self.name.clone() })
    }

    fn tenant_column(&self, key: &Key) -> Result<&Ident, TenancyError> {
        self.column.as_ref().ok_or_else(|| TenancyError::UnfitKey {
            key: key.name.clone(),
            table: key.table.clone(),
            reason: "The rows of a reference table belong to no tenant.".to_owned(),
            hint: "Leave the key as it is: every tenant sees all of these rows anyway.",
        })
    }

    /// The foreign key as it will be; refused where it cannot get the tenant column, for it would lose its key.
    fn link(&self, key: &Key, column: &Ident, found: &Reference, steps: &mut Vec<Step>) -> Result<Link, TenancyError> {
        let refused = |reason: String, hint: String| {
            Err(TenancyError::ReferredKey {
                key: key.name.clone(),
                constraint: found.key.name.clone(),
                child: found.child.name.clone(),
                reason,
                hint,
            })
        };
        let Some((child_column, access)) = &found.protection else {
            return refused(
                format!("Table {} is not protected, so the foreign key has no tenant to refer by.", found.child.name),
                format!("Call tenancy.protect_table on {} first, or drop that foreign key.", found.child.name),
            );
        };
        let end = |table: &Table, column: &Ident| table.column(column).and_then(|column| column.key());
        let (Some(child_column), Some(parent_key)) = (child_column.as_ref(), end(&self.target, column)) else {
            return refused(
                format!("The rows of {}, a reference table, belong to no tenant.", found.child.name),
                "Drop that foreign key first: a row of all tenants cannot refer to a row of one.".to_owned(),
            );
        };
        let Some(child_key) = end(&found.child, child_column) else {
            return refused(
                format!("The tenant column of {} holds no tenant key.", found.child.name),
                format!("Call tenancy.protect_table on {} first.", found.child.name),
            );
        };
        let child =
            End { table: &found.child, column: child_column, key: child_key, access: *access, is_family: false };
        let parent = End { table: &self.target, column, key: parent_key, access: self.access, is_family: true };
        match plan::keeps_key(&child, &parent, &found.key) {
            Some(reason) => refused(
                format!("It cannot get the tenant column: {reason}."),
                "Drop that foreign key first, or write it so that it can have the tenant column.".to_owned(),
            ),
            None => Ok(plan::link(&child, &parent, &found.key, self.server_version, steps)),
        }
    }
}

impl Key {
    /// Any query by tenant can use its index, and any foreign key can refer to it.
    fn serves_queries(&self) -> bool {
        self.kind != 'x' && self.access_method.as_str() == "btree" && self.predicate.is_none() && !self.is_deferrable
    }

    /// An index built beforehand, or by `protect_table`, that is what the key's own is to become.
    fn spare_led_by(&self, lead: &Sql) -> Option<&SpareIndex> {
        let wanted = Sql::text("").sql(lead).deparsed(&self.index_list);
        self.spare.iter().find(|spare| {
            self.kind != 'x'
                && spare.list.as_str() == wanted.as_str()
                && spare.tablespace == self.tablespace
                && spare.predicate == self.predicate
        })
    }

    fn deferred(&self, sql: Sql) -> Sql {
        match (self.is_deferrable, self.is_deferred) {
            (false, _) => sql,
            (true, false) => sql.then(" DEFERRABLE"),
            (true, true) => sql.then(" DEFERRABLE INITIALLY DEFERRED"),
        }
    }

    fn index(&self) -> QualifiedName {
        QualifiedName { schema: self.table.schema.clone(), name: self.name.clone() }
    }

    fn add(&self, list: &Sql) -> Sql {
        let is_index = self.kind == 'i';
        let mut sql = if is_index {
            Sql::text("CREATE UNIQUE INDEX ").ident(&self.name).then(" ON ").name(&self.table).then(" ")
        } else {
            Sql::text("ALTER TABLE ").name(&self.table).then(" ADD CONSTRAINT ").ident(&self.name).then(" ")
        };
        sql = sql.deparsed(&self.opening).then(" (").sql(list);
        if let Some(tablespace) = &self.tablespace {
            sql = sql.then(if is_index { " TABLESPACE " } else { " USING INDEX TABLESPACE " }).ident(tablespace);
        }
        if let Some(predicate) = &self.predicate {
            sql = sql.then(" WHERE (").deparsed(predicate).then(")");
        }
        self.deferred(sql)
    }

    fn adopt(&self, index: &Ident) -> Sql {
        if self.kind == 'i' {
            let index = QualifiedName { schema: self.table.schema.clone(), name: index.clone() };
            return Sql::text("ALTER INDEX ").name(&index).then(" RENAME TO ").ident(&self.name);
        }
        let sql = Sql::text("ALTER TABLE ")
            .name(&self.table)
            .then(" ADD CONSTRAINT ")
            .ident(&self.name)
            .then(if self.kind == 'p' { " PRIMARY KEY" } else { " UNIQUE" })
            .then(" USING INDEX ")
            .ident(index);
        self.deferred(sql)
    }
}

impl KeyStep {
    pub fn statement(&self) -> Sql {
        let alter = |table: &QualifiedName| Sql::text("ALTER TABLE ").name(table);
        match self {
            KeyStep::Detach(link) => alter(&link.child).then(" DROP CONSTRAINT ").ident(&link.key.name),
            KeyStep::Drop(key) if key.kind == 'i' => Sql::text("DROP INDEX ").name(&key.index()),
            KeyStep::Drop(key) => alter(&key.table).then(" DROP CONSTRAINT ").ident(&key.name),
            KeyStep::Add(key, list) => key.add(list),
            KeyStep::Adopt(key, index) => key.adopt(index),
            KeyStep::Attach { link, form } => {
                let clause = match form {
                    Form::Scoped => link.scoped(),
                    Form::Unscoped { match_full } => link.unscoped(*match_full),
                    Form::Unchanged => link.unchanged(),
                };
                alter(&link.child).then(" ").sql(&clause)
            }
            KeyStep::MarkReplicaIdentity(key) => {
                alter(&key.table).then(" REPLICA IDENTITY USING INDEX ").ident(&key.name)
            }
            KeyStep::MarkClustered(key) => alter(&key.table).then(" CLUSTER ON ").ident(&key.name),
            KeyStep::CommentOnConstraint(key, comment) => Sql::text("COMMENT ON CONSTRAINT ")
                .ident(&key.name)
                .then(" ON ")
                .name(&key.table)
                .then(" IS ")
                .literal(comment),
            KeyStep::CommentOnIndex(key, comment) => {
                Sql::text("COMMENT ON INDEX ").name(&key.index()).then(" IS ").literal(comment)
            }
        }
    }

    pub fn action(&self) -> &'static str {
        match self {
            KeyStep::Detach(_) => "drop foreign key",
            KeyStep::Attach { .. } => "add foreign key",
            KeyStep::Drop(_) => "drop key",
            KeyStep::Add(..) | KeyStep::Adopt(..) => "add key",
            KeyStep::MarkReplicaIdentity(_) => "set replica identity",
            KeyStep::MarkClustered(_) => "set cluster index",
            KeyStep::CommentOnConstraint(..) | KeyStep::CommentOnIndex(..) => "comment",
        }
    }

    pub fn lock(&self) -> &'static str {
        match self {
            KeyStep::Add(key, _) if key.kind == 'i' => "SHARE",
            KeyStep::Attach { .. } => "SHARE ROW EXCLUSIVE",
            KeyStep::CommentOnConstraint(..) | KeyStep::CommentOnIndex(..) => "SHARE UPDATE EXCLUSIVE",
            _ => "ACCESS EXCLUSIVE",
        }
    }

    pub fn reason(&self) -> &'static str {
        match self {
            KeyStep::Detach(_) => "it refers to the key, and comes back below",
            KeyStep::Drop(_) => "it comes back below under its name",
            KeyStep::Add(..) => {
                "a value is unique within a tenant; build the index CONCURRENTLY beforehand to hold the lock shortly"
            }
            KeyStep::Adopt(..) => "the index is there already",
            KeyStep::Attach { form: Form::Scoped, .. } => "neither a reference nor a cascade may cross tenants",
            KeyStep::Attach { .. }
            | KeyStep::MarkReplicaIdentity(_)
            | KeyStep::MarkClustered(_)
            | KeyStep::CommentOnConstraint(..)
            | KeyStep::CommentOnIndex(..) => "as it was before",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isolation::plan::tests::{column, ident, index, key_to, statements, table};

    fn text(text: &str) -> Deparsed {
        Deparsed::from_catalog(text.into())
    }

    fn key(kind: char, opening: &str, list: &str) -> Key {
        Key {
            name: ident("k"),
            relation: 1,
            table: table(1, "orders").name,
            kind,
            part_of: None,
            equal: vec![ident("id")],
            opening: text(opening),
            list: text(list),
            index_list: text(list),
            tablespace: None,
            predicate: None,
            is_deferrable: false,
            is_deferred: false,
            is_replica_identity: false,
            is_clustered: false,
            comment: None,
            index_comment: None,
            access_method: ident(if kind == 'x' { "gist" } else { "btree" }),
            has_operator_class: true,
            takes_columns: true,
            dependents: vec![],
            spare: vec![],
            references: vec![],
        }
    }

    fn facts(key: Key) -> Facts {
        Facts {
            target: table(1, "orders"),
            column: Some(ident("tenant_id")),
            access: Access::Tenant,
            name: ident("k"),
            keys: vec![key],
            references: vec![],
            own_index: None,
            is_recorded: true,
            server_version: 150_020,
        }
    }

    fn reference(protection: Option<(Option<Ident>, Access)>) -> Reference {
        Reference { child: table(2, "items"), protection, key: key_to(1, "order_id"), before: None }
    }

    fn scoped(facts: &Facts) -> Vec<String> {
        statements(&scope(facts).unwrap())
    }

    #[test]
    fn each_kind_of_key_is_led_by_the_tenant_and_keeps_what_it_had() {
        let mut unique = key('u', "UNIQUE NULLS NOT DISTINCT", "id) INCLUDE (a) WITH (fillfactor='70')");
        (unique.is_deferrable, unique.is_deferred) = (true, true);
        unique.tablespace = Some(ident("Fast"));
        assert_eq!(
            scoped(&facts(unique)),
            [
                "ALTER TABLE public.orders DROP CONSTRAINT k",
                "ALTER TABLE public.orders ADD CONSTRAINT k UNIQUE NULLS NOT DISTINCT (tenant_id, id) INCLUDE (a) \
                 WITH (fillfactor='70') USING INDEX TABLESPACE \"Fast\" DEFERRABLE INITIALLY DEFERRED",
            ]
        );
        let mut excluding = key('x', "EXCLUDE USING gist", "id WITH =, during WITH &&)");
        (excluding.predicate, excluding.comment) = (Some(text("id > 0")), Some("it's".into()));
        assert_eq!(
            scoped(&facts(excluding))[1..],
            [
                "ALTER TABLE public.orders ADD CONSTRAINT k EXCLUDE USING gist (tenant_id WITH =, id WITH =, \
                 during WITH &&) WHERE (id > 0)",
                "COMMENT ON CONSTRAINT k ON public.orders IS 'it''s'",
            ]
        );
        let mut bare = key('i', "USING btree", "lower(a) DESC)");
        (bare.is_clustered, bare.is_replica_identity, bare.tablespace) = (true, true, Some(ident("fast")));
        assert_eq!(
            scoped(&facts(bare)),
            [
                "DROP INDEX public.k",
                "CREATE UNIQUE INDEX k ON public.orders USING btree (tenant_id, lower(a) DESC) TABLESPACE fast",
                "ALTER TABLE public.orders REPLICA IDENTITY USING INDEX k",
                "ALTER TABLE public.orders CLUSTER ON k",
            ]
        );
    }

    #[test]
    fn the_way_back_takes_off_what_the_way_there_put_on() {
        for (kind, opening, list) in [
            ('p', "PRIMARY KEY", "id)"),
            ('x', "EXCLUDE USING gist", "id WITH =)"),
            ('i', "USING btree", "lower(a) COLLATE \"C\")"),
        ] {
            let before = facts(key(kind, opening, list));
            let Some(Step::Key(KeyStep::Add(_, led))) = scope(&before).unwrap().pop() else { panic!("{kind}") };
            let mut now = before.clone();
            now.target.indexes.push(index("other", &["tenant_id"], false));
            now.keys[0].list = text(led.as_str());
            let steps = unscope(&now).unwrap();
            assert!(
                matches!(&steps[..], [Step::Key(KeyStep::Drop(_)), Step::Key(KeyStep::Add(_, back))] if back.as_str() == list),
                "{steps:?}"
            );
            now.is_recorded = false;
            assert!(matches!(unscope(&now), Err(TenancyError::KeyNotScoped { .. })));
        }
    }

    #[test]
    fn a_key_that_has_the_tenant_column_anywhere_is_left_alone() {
        let mut has = facts(key('u', "UNIQUE", "id, tenant_id)"));
        has.keys[0].equal.push(ident("tenant_id"));
        assert_eq!(scope(&has).unwrap(), []);
        assert!(matches!(unscope(&has), Err(TenancyError::KeyNotScoped { .. })));
    }

    #[test]
    fn partitions_keys_come_before_their_parents_and_an_exclusion_leaves_them_to_it() {
        let family = |kind, opening| {
            let mut part = key(kind, opening, "id)");
            part.table = table(2, "part").name;
            let mut facts = facts(key(kind, opening, "id)"));
            facts.keys.push(part);
            scoped(&facts)
        };
        assert_eq!(
            family('u', "UNIQUE"),
            [
                "ALTER TABLE public.orders DROP CONSTRAINT k",
                "ALTER TABLE public.part ADD CONSTRAINT k UNIQUE (tenant_id, id)",
                "ALTER TABLE public.orders ADD CONSTRAINT k UNIQUE (tenant_id, id)",
            ]
        );
        assert_eq!(family('x', "EXCLUDE USING gist").len(), 2);
    }

    #[test]
    fn a_foreign_key_follows_and_one_that_cannot_refuses_the_call() {
        let protected = || Some((Some(ident("tenant_id")), Access::Tenant));
        let with =
            |reference: Reference| Facts { references: vec![reference], ..facts(key('p', "PRIMARY KEY", "id)")) };
        let statements = scoped(&with(reference(protected())));
        assert_eq!(
            (statements[1].as_str(), statements[4].as_str()),
            (
                "ALTER TABLE public.items DROP CONSTRAINT fk",
                "ALTER TABLE public.items ADD CONSTRAINT fk FOREIGN KEY (tenant_id, order_id) \
                 REFERENCES public.orders (tenant_id, id) ON DELETE SET NULL (order_id)"
            )
        );
        let older = Facts { server_version: 140_000, ..with(reference(protected())) };
        assert!(scoped(&older).iter().all(|statement| !statement.contains("SET NULL")));

        let refusal = |reference: Reference| match scope(&with(reference)) {
            Err(TenancyError::ReferredKey { reason, .. }) => reason,
            other => panic!("{other:?}"),
        };
        assert!(refusal(reference(None)).contains("not protected"));
        assert!(refusal(reference(Some((None, Access::Reference)))).contains("reference table"));
        assert!(refusal(reference(Some((Some(ident("tenant_id")), Access::Shared)))).contains("without a tenant"));
        let mut other = reference(protected());
        other.child.columns[1] = column("tenant_id", "int8", true);
        assert!(refusal(other).contains("different keys"));
    }

    #[test]
    fn a_foreign_key_that_keeps_the_tenant_gets_a_key_of_its_own_on_the_way_back() {
        let composite = ForeignKey {
            columns: vec![ident("tenant_id"), ident("order_id")],
            parent_columns: vec![ident("tenant_id"), ident("id")],
            on_delete_columns: vec![ident("order_id")],
            ..key_to(1, "order_id")
        };
        let protection = Some((Some(ident("tenant_id")), Access::Tenant));
        let before =
            ScopedKey { name: ident("fk"), was_match_full: true, was_on_delete: Some('c'), with_unique_key: true };
        let back = |before: Option<ScopedKey>| {
            let reference = Reference { key: composite.clone(), before, ..reference(protection.clone()) };
            let facts = Facts { references: vec![reference], ..facts(key('p', "PRIMARY KEY", "tenant_id, id)")) };
            statements(&unscope(&facts).unwrap())
        };
        assert_eq!(
            back(None)[3..],
            [
                "CREATE UNIQUE INDEX ON public.orders (tenant_id, id)",
                "ALTER TABLE public.items ADD CONSTRAINT fk FOREIGN KEY (tenant_id, order_id) \
                 REFERENCES public.orders (tenant_id, id) ON DELETE SET NULL (order_id)",
            ]
        );
        assert_eq!(
            back(Some(before))[3..],
            [
                "CREATE INDEX ON public.orders (tenant_id)",
                "ALTER TABLE public.items ADD CONSTRAINT fk FOREIGN KEY (order_id) REFERENCES public.orders (id) \
                 MATCH FULL ON DELETE CASCADE",
            ]
        );
    }

    #[test]
    fn what_cannot_be_led_is_refused_before_anything_is_dropped() {
        let with = |change: fn(&mut Facts)| {
            let mut facts = facts(key('x', "EXCLUDE USING gist", "id WITH =)"));
            change(&mut facts);
            scope(&facts).unwrap_err()
        };
        assert!(matches!(with(|f| f.keys.clear()), TenancyError::UnknownKey { .. }));
        assert!(matches!(with(|f| f.column = None), TenancyError::UnfitKey { .. }));
        assert!(matches!(with(|f| f.access = Access::Shared), TenancyError::UnfitKey { .. }));
        assert!(matches!(with(|f| f.keys[0].has_operator_class = false), TenancyError::UnfitKey { .. }));
        assert!(matches!(with(|f| f.keys[0].takes_columns = false), TenancyError::UnfitKey { .. }));
        assert!(matches!(with(|f| f.keys[0].dependents.push("view v".into())), TenancyError::KeyInUse { .. }));
        assert!(matches!(with(|f| f.keys[0].part_of = Some(f.target.name.clone())), TenancyError::PartOfKey { .. }));
    }

    #[test]
    fn an_index_made_beforehand_is_adopted_when_it_is_the_same_but_for_its_name() {
        let spare = |list: &str, tablespace: Option<&str>| SpareIndex {
            name: ident("made"),
            list: text(list),
            tablespace: tablespace.map(ident),
            predicate: None,
        };
        let last = |spare: SpareIndex| {
            let mut facts = facts(key('u', "UNIQUE", "id)"));
            facts.keys[0].spare.push(spare);
            scoped(&facts).pop().unwrap()
        };
        assert!(last(spare("tenant_id, id)", None)).ends_with("ADD CONSTRAINT k UNIQUE USING INDEX made"));
        for other in [spare("tenant_id, id DESC)", None), spare("tenant_id, id)", Some("fast"))] {
            assert!(last(other).ends_with("UNIQUE (tenant_id, id)"));
        }
        let mut bare = facts(key('i', "USING btree", "id)"));
        bare.keys[0].spare.push(spare("tenant_id, id)", None));
        assert_eq!(scoped(&bare), ["DROP INDEX public.k", "ALTER INDEX public.made RENAME TO k"]);
    }
}
