//! The refusals about what is kept of rows: stamps, deleted rows, retention.

use super::{Face, State};
use crate::model::{Ident, QualifiedName};

/// Why something about a table's rows cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowsError {
    NotATable { relation: QualifiedName, kind: &'static str },
    SystemTable { relation: QualifiedName },
    TemporaryTable { relation: QualifiedName },
    IsPartition { relation: QualifiedName, parent: QualifiedName },
    ForeignMember { table: QualifiedName, member: QualifiedName },
    WrongType { table: QualifiedName, column: Ident, found: String, wanted: &'static str },
    GeneratedColumn { table: QualifiedName, column: Ident },
    ReservedTrigger { table: QualifiedName, trigger: Ident },
    ReservedPolicy { table: QualifiedName, policy: Ident },
    NotStamped { table: QualifiedName },
    ColumnGone { table: String, column: String, repair: &'static str },
}

impl RowsError {
    /// The refusal as the user reads it.
    pub fn face(&self) -> Face {
        use RowsError as E;
        use State::*;
        let face = |state, message: String| Face::new(state, message);
        match self {
            E::NotATable { relation, kind } => face(WrongObjectType, format!("{relation} is a {kind}, not a table"))
                .hint("Call it for the tables that it reads."),
            E::SystemTable { relation } => {
                face(WrongObjectType, format!("{relation} belongs to the system or to an extension"))
                    .hint("Call it for a table of your own.")
            }
            E::TemporaryTable { relation } => face(WrongObjectType, format!("{relation} is a temporary table"))
                .hint("Its rows are gone with the session; call it for a permanent table."),
            E::IsPartition { relation, parent } => {
                face(WrongObjectType, format!("{relation} is a partition or child of {parent}"))
                    .hint(format!("Call it for {parent}, which takes its partitions and children along."))
            }
            E::ForeignMember { table, member } => {
                face(FeatureNotSupported, format!("{table} has the foreign table {member} below it"))
                    .detail("What is done to its rows is up to another server.")
                    .hint(format!("Detach {member} first."))
            }
            E::WrongType { table, column, found, wanted } => {
                face(DatatypeMismatch, format!("column {column} of {table} is of type {found}, not {wanted}"))
                    .hint("Change its type with ALTER TABLE, or rename it and let the column be added.")
            }
            E::GeneratedColumn { table, column } => {
                face(DatatypeMismatch, format!("column {column} of {table} is generated"))
                    .hint("Rename it and let the column be added.")
            }
            E::ReservedTrigger { table, trigger } => {
                face(DuplicateObject, format!("table {table} has a trigger {trigger} of another making"))
                    .hint("Rename it, or drop it: this name is needed.")
            }
            E::ReservedPolicy { table, policy } => {
                face(DuplicateObject, format!("table {table} has a policy {policy} of another making"))
                    .hint("Rename it, or drop it: this name is needed.")
            }
            E::NotStamped { table } => face(UndefinedObject, format!("rows of table {table} are not stamped"))
                .hint("tenancy.stamped_tables lists the tables whose rows are."),
            E::ColumnGone { table, column, repair } => {
                face(NotInPrerequisiteState, format!("table \"{table}\" has no column \"{column}\" any more"))
                    .detail("The trigger that fills it is still there.")
                    .hint(format!("Call {repair}(...) to have the column again, or the function that undoes it."))
            }
        }
    }
}
