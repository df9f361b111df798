//! Identifiers that cannot be written into a statement unquoted by mistake.

use crate::error::TenancyError;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The longest name PostgreSQL stores: NAMEDATALEN - 1.
pub const MAX_BYTES: usize = 63;

/// A name of one object. `Display` gives it as SQL, quoted when it must be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ident(Box<str>);

impl Ident {
    /// Takes a name as it stands in the catalog; 22023 when PostgreSQL could not store it.
    pub fn new(name: &str) -> Result<Self, TenancyError> {
        if name.is_empty() || name.len() > MAX_BYTES || name.contains('\0') {
            return Err(TenancyError::MalformedName { name: name.to_owned() });
        }
        Ok(Self(name.into()))
    }

    /// The name without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Ident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_plain(&self.0) { f.write_str(&self.0) } else { write!(f, "\"{}\"", self.0.replace('"', "\"\"")) }
    }
}

/// A schema and a name in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QualifiedName {
    pub schema: Ident,
    pub name: Ident,
}

impl fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

fn is_plain(name: &str) -> bool {
    let mut bytes = name.bytes();
    let starts = bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_');
    starts
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && QUOTED_KEYWORDS.binary_search(&name).is_err()
}

/// Every keyword that some supported PostgreSQL does not accept bare (`pg_get_keywords()`, catcode not `U`, 15 and 18 together).
pub const QUOTED_KEYWORDS: &[&str] = &[
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "between",
    "bigint",
    "binary",
    "bit",
    "boolean",
    "both",
    "case",
    "cast",
    "char",
    "character",
    "check",
    "coalesce",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "dec",
    "decimal",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "exists",
    "extract",
    "false",
    "fetch",
    "float",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "greatest",
    "group",
    "grouping",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "inout",
    "int",
    "integer",
    "intersect",
    "interval",
    "into",
    "is",
    "isnull",
    "join",
    "json",
    "json_array",
    "json_arrayagg",
    "json_exists",
    "json_object",
    "json_objectagg",
    "json_query",
    "json_scalar",
    "json_serialize",
    "json_table",
    "json_value",
    "lateral",
    "leading",
    "least",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "merge_action",
    "national",
    "natural",
    "nchar",
    "none",
    "normalize",
    "not",
    "notnull",
    "null",
    "nullif",
    "numeric",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "out",
    "outer",
    "overlaps",
    "overlay",
    "placing",
    "position",
    "precision",
    "primary",
    "real",
    "references",
    "returning",
    "right",
    "row",
    "select",
    "session_user",
    "setof",
    "similar",
    "smallint",
    "some",
    "substring",
    "symmetric",
    "system_user",
    "table",
    "tablesample",
    "then",
    "time",
    "timestamp",
    "to",
    "trailing",
    "treat",
    "trim",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "values",
    "varchar",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
    "xmlattributes",
    "xmlconcat",
    "xmlelement",
    "xmlexists",
    "xmlforest",
    "xmlnamespaces",
    "xmlparse",
    "xmlpi",
    "xmlroot",
    "xmlserialize",
    "xmltable",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(name: &str) -> String {
        Ident::new(name).unwrap().to_string()
    }

    #[test]
    fn a_plain_name_stays_bare() {
        assert_eq!(shown("orders"), "orders");
        assert_eq!(shown("_a1"), "_a1");
    }

    #[test]
    fn what_the_parser_would_fold_or_refuse_is_quoted() {
        for (name, sql) in [
            ("s < e", "\"s < e\""),
            ("Mixed", "\"Mixed\""),
            ("quo\"te", "\"quo\"\"te\""),
            ("1st", "\"1st\""),
            ("select", "\"select\""),
            ("Größe", "\"Größe\""),
        ] {
            assert_eq!(shown(name), sql);
        }
    }

    #[test]
    fn a_name_the_catalog_cannot_hold_is_refused() {
        assert!(Ident::new("").is_err());
        assert!(Ident::new(&"x".repeat(64)).is_err());
        assert!(Ident::new("a\0b").is_err());
        assert!(Ident::new(&"x".repeat(63)).is_ok());
    }

    #[test]
    fn the_keyword_list_is_sorted_for_the_binary_search() {
        assert!(QUOTED_KEYWORDS.is_sorted());
    }
}
