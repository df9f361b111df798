//! A table as the catalog describes it; read by `tenancy_internal.describe_table`.

use super::{Deparsed, Ident, KeyKind, QualifiedName};
use serde::Deserialize;

/// A relation and what matters of it for isolation.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Table {
    pub oid: u32,
    pub name: QualifiedName,
    /// `pg_class.relkind`.
    pub kind: char,
    pub is_temporary: bool,
    /// Of the server or of an extension.
    pub is_system: bool,
    pub is_partition: bool,
    /// The tables it is a partition or an inheritance child of.
    pub parents: Vec<QualifiedName>,
    /// The current role may alter it.
    pub is_owned: bool,
    pub row_security: bool,
    pub forced: bool,
    pub columns: Vec<Column>,
    pub policies: Vec<Policy>,
    pub triggers: Vec<Trigger>,
    pub indexes: Vec<Index>,
    pub foreign_keys: Vec<ForeignKey>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Column {
    pub name: Ident,
    /// The base type's `pg_type.typname`.
    pub type_name: Box<str>,
    /// The type as a user writes it.
    pub shown_type: Box<str>,
    /// The declared type is a domain over the base type.
    pub is_domain: bool,
    pub not_null: bool,
    pub default: Option<Deparsed>,
    pub has_loose_collation: bool,
}

impl Column {
    /// The tenant key it can hold.
    pub fn key(&self) -> Option<KeyKind> {
        KeyKind::of_type(&self.type_name)
    }

    /// Whether the server shows (and needs) a cast where the column meets a key's type.
    pub fn is_cast_to_base(&self) -> bool {
        self.is_domain || &*self.type_name == "varchar"
    }

    /// The type that such a cast names.
    pub fn base_type_sql(&self) -> &'static str {
        match &*self.type_name {
            "uuid" => "uuid",
            "int2" => "smallint",
            "int4" => "integer",
            "int8" => "bigint",
            _ => "text",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Policy {
    pub name: Ident,
    pub is_permissive: bool,
    /// It is the policy of ours that its name says, unaltered. `pg::policies` judges that; nothing else sets it.
    #[serde(default)]
    pub is_as_made: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Trigger {
    pub name: Ident,
    /// It calls our guard, and is enabled.
    pub is_guard: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Index {
    pub name: Ident,
    /// Key columns in order; None for an expression.
    pub columns: Vec<Option<Ident>>,
    pub is_unique: bool,
    /// Part of an index of the partitioned parent, and dropped with it.
    pub is_attached: bool,
    /// The statement that creates it.
    pub definition: Deparsed,
    /// Valid, not partial, not deferred: any query and any foreign key may rely on it.
    pub is_reliable: bool,
}

/// A foreign key of the table itself (not one inherited from a partitioned parent).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ForeignKey {
    pub name: Ident,
    pub columns: Vec<Ident>,
    pub parent: u32,
    pub parent_name: QualifiedName,
    pub parent_columns: Vec<Ident>,
    /// Those of `parent_columns` that take NULL.
    pub nullable_parent_columns: Vec<Ident>,
    /// `confupdtype` and `confdeltype`: a no action, r restrict, c cascade, n set null, d set default.
    pub on_update: char,
    pub on_delete: char,
    /// The columns that ON DELETE SET NULL or SET DEFAULT names; empty for all (PostgreSQL 15 and later can name them).
    pub on_delete_columns: Vec<Ident>,
    /// `confmatchtype`: s simple, f full.
    pub match_type: char,
    pub is_deferrable: bool,
    pub is_deferred: bool,
    pub is_validated: bool,
    /// Its triggers are there (PostgreSQL 18 knows NOT ENFORCED).
    pub is_enforced: bool,
    /// Its last column is a PERIOD (PostgreSQL 18).
    pub is_temporal: bool,
}

impl Table {
    /// The column of that name.
    pub fn column(&self, name: &Ident) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == *name)
    }

    /// The policy of that name.
    pub fn policy(&self, name: &Ident) -> Option<&Policy> {
        self.policies.iter().find(|policy| policy.name == *name)
    }

    /// Whether an index that any query may use starts with `column`.
    pub fn has_index_led_by(&self, column: &Ident) -> bool {
        self.indexes.iter().any(|index| index.is_reliable && index.columns.first() == Some(&Some(column.clone())))
    }

    /// Whether a foreign key may refer to exactly these columns.
    pub fn has_unique_on(&self, columns: &[&Ident]) -> bool {
        self.indexes.iter().any(|index| {
            index.is_unique
                && index.is_reliable
                && index.columns.len() == columns.len()
                && columns.iter().all(|column| index.columns.contains(&Some((*column).clone())))
        })
    }
}
