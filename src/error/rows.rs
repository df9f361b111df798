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
    NotSoftDeleted { table: QualifiedName },
    DeletedRows { table: QualifiedName },
    DeletedRowsHidden { role: String },
    CannotKeep { table: QualifiedName },
    NoDeletedRow { table: QualifiedName },
    NoKey { table: QualifiedName },
    NotAKey { table: QualifiedName, columns: Vec<String> },
    UnknownColumn { table: QualifiedName, column: Ident },
    NotATime { table: QualifiedName, column: Ident, found: String },
    ImpossibleRetention { given: String },
    UnfitArchive { archive: QualifiedName, table: QualifiedName, columns: Vec<String> },
    SharedArchive { archive: QualifiedName },
    StrangersArchive { archive: QualifiedName, table: QualifiedName },
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
            E::NotSoftDeleted { table } => face(UndefinedObject, format!("deleted rows of table {table} are not kept"))
                .hint("tenancy.soft_deleted_tables lists the tables whose deleted rows are; for a partition or child call with its parent."),
            E::DeletedRows { table } => face(NotInPrerequisiteState, format!("table {table} has deleted rows"))
                .detail("Everybody would see them again.")
                .hint("Say deleted_rows => 'purge' to remove them for good, or 'restore' to have them again."),
            E::CannotKeep { table } => {
                face(FeatureNotSupported, format!("this statement cannot keep the rows that it deletes from table {table}"))
                    .detail("It was planned before the library was loaded, or deletes and updates rows of the table at once.")
                    .hint("Send it again, the DELETE in a statement of its own; session_preload_libraries = 'pg_tenancy' loads the library with the session.")
            }
            E::DeletedRowsHidden { role } => {
                face(InsufficientPrivilege, format!("role \"{role}\" may not see deleted rows"))
                    .hint("RESET tenancy.with_deleted; it is for administrators.")
            }
            E::NoDeletedRow { table } => face(UndefinedObject, format!("table {table} has no deleted row with this key"))
                .hint("Look for it with tenancy.with_deleted = on; what is past its grace may be purged."),
            E::NoKey { table } => face(NotInPrerequisiteState, format!("table {table} has no primary key"))
                .hint("Give it one, or UPDATE the row with tenancy.with_deleted = on."),
            E::NotAKey { table, columns } => {
                face(InvalidParameterValue, format!("the key does not name a row of {table}"))
                    .detail(format!("A key of it has the fields {}.", columns.join(", ")))
                    .hint("Give a JSON object, such as '{\"id\": 1}'.")
            }
            E::UnknownColumn { table, column } => face(UndefinedColumn, format!("table {table} has no column {column}"))
                .hint("Name the column that tells how old a row is."),
            E::NotATime { table, column, found } => {
                face(DatatypeMismatch, format!("column {column} of {table} is of type {found}, which is no time"))
                    .hint("Name a column of type timestamptz, timestamp or date.")
            }
            E::ImpossibleRetention { given } => {
                face(InvalidParameterValue, format!("rows cannot be kept for \"{given}\""))
                    .hint("Give an interval between nothing and 1000 years, such as '90 days'.")
            }
            E::UnfitArchive { archive, table, columns } => {
                face(DatatypeMismatch, format!("table {archive} cannot take the rows of {table}"))
                    .detail(format!("It lacks, or has with another type: {}.", columns.join(", ")))
                    .hint("Add these columns to it, or rename it and let it be made.")
            }
            E::SharedArchive { archive } => {
                face(DuplicateObject, format!("table {archive} takes the rows of another table already"))
                    .detail("The names of archives are cut where they would be too long.")
                    .hint("Rename one of the two tables, so that the first 55 bytes of their names differ, or the archive.")
            }
            E::StrangersArchive { archive, table } => {
                face(InsufficientPrivilege, format!("table {archive} does not belong to the owner of {table}"))
                    .detail("Its owner would be given the rows of all tenants, and its triggers the rights of the other one.")
                    .hint(format!("Give it to the owner of {table}, or rename it and let it be made."))
            }
            E::ColumnGone { table, column, repair } => {
                face(NotInPrerequisiteState, format!("table \"{table}\" has no column \"{column}\" of its type any more"))
                    .detail("The trigger that fills it is still there.")
                    .hint(format!("Give it back its type, or call {repair}(...) to have a column that is gone again, or the function that undoes it."))
            }
        }
    }
}
