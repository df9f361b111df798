//! Statements joined from static text and types, so that no value or name can slip in unquoted.

use super::{Ident, QualifiedName};
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// Text that the server itself deparsed (`pg_get_expr`, `pg_get_constraintdef`), and that is therefore SQL already.
///
/// Built only where catalog rows are read; `repr` of a user's value must never become one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Deparsed(String);

impl Deparsed {
    /// Marks `text`, read from a catalog function, as SQL.
    pub fn from_catalog(text: String) -> Self {
        Self(text)
    }

    /// The text as the server gave it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What follows the first `bytes` of it.
    pub fn skip(&self, bytes: usize) -> Self {
        Self(self.0.get(bytes..).unwrap_or_default().to_owned())
    }
}

/// A statement or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sql(String);

impl Sql {
    /// Starts a statement with static text.
    pub fn text(text: &'static str) -> Self {
        Self(text.to_owned())
    }

    /// Appends static text.
    pub fn then(mut self, text: &'static str) -> Self {
        self.0.push_str(text);
        self
    }

    /// Appends an identifier, quoted when it must be.
    pub fn ident(self, ident: &Ident) -> Self {
        self.display(ident)
    }

    /// Appends a schema-qualified name.
    pub fn name(self, name: &QualifiedName) -> Self {
        self.display(name)
    }

    /// Appends identifiers separated by commas.
    pub fn idents<'a>(mut self, idents: impl IntoIterator<Item = &'a Ident>) -> Self {
        for (position, ident) in idents.into_iter().enumerate() {
            if position > 0 {
                self.0.push_str(", ");
            }
            self = self.ident(ident);
        }
        self
    }

    /// Appends a string constant; for utility statements, which take no parameters.
    pub fn literal(mut self, value: &str) -> Self {
        if value.contains('\\') {
            self.0.push_str(" E");
        }
        self.0.push('\'');
        for c in value.chars() {
            if matches!(c, '\'' | '\\') {
                self.0.push(c);
            }
            self.0.push(c);
        }
        self.0.push('\'');
        self
    }

    /// Appends text the server deparsed.
    pub fn deparsed(mut self, part: &Deparsed) -> Self {
        self.0.push_str(&part.0);
        self
    }

    /// Appends another statement part.
    pub fn sql(mut self, part: &Sql) -> Self {
        self.0.push_str(&part.0);
        self
    }

    /// The statement, ready for the server.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn display(mut self, part: &dyn fmt::Display) -> Self {
        write!(self.0, "{part}").expect("writing to a String cannot fail");
        self
    }
}

impl fmt::Display for Sql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_cannot_end_early() {
        assert_eq!(Sql::text("").literal("it's").as_str(), "'it''s'");
        assert_eq!(Sql::text("").literal(r"a\'b").as_str(), r" E'a\\''b'");
    }

    #[test]
    fn names_are_quoted_where_they_are_joined() {
        let name = QualifiedName { schema: Ident::new("public").unwrap(), name: Ident::new("s < e").unwrap() };
        let columns = [Ident::new("a").unwrap(), Ident::new("B").unwrap()];
        let sql = Sql::text("SELECT ").idents(&columns).then(" FROM ").name(&name);
        assert_eq!(sql.as_str(), r#"SELECT a, "B" FROM public."s < e""#);
    }
}
