//! The refusals of the audit room.

use super::{Face, State};
use crate::model::{Ident, QualifiedName};

/// Why something about the audit log cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditError {
    NotATable { relation: QualifiedName, kind: &'static str },
    SystemTable { relation: QualifiedName },
    TemporaryTable { relation: QualifiedName },
    IsPartition { relation: QualifiedName, parent: QualifiedName },
    ForeignMember { table: QualifiedName, member: QualifiedName },
    Unscoped { table: QualifiedName },
    UnprotectedColumn { table: QualifiedName, column: Ident },
    OtherTenantColumn { table: QualifiedName, given: Ident, column: Option<Ident> },
    UnknownColumn { table: QualifiedName, column: String, argument: &'static str },
    KeyColumn { table: QualifiedName, column: String, argument: &'static str },
    BothIgnoredAndRedacted { column: String },
    ReservedTrigger { table: QualifiedName, trigger: Ident },
    NotAudited { table: QualifiedName },
    AuditLost { table: QualifiedName, lost: Vec<String>, is_refused: bool },
    MemberUnaudited { table: QualifiedName, root: QualifiedName },
    NoSelect { table: QualifiedName, role: String },
    NoKey { table: QualifiedName },
    NotAKey { table: QualifiedName, columns: Vec<String> },
    NoSuchTransaction { transaction: i64 },
    ImpossibleRetention { given: String },
    AlreadyMaintained,
    InTransaction { call: String },
    RevertConflicts { transaction: i64, conflicts: usize, first: String },
}

impl AuditError {
    /// The refusal as the user reads it.
    pub fn face(&self) -> Face {
        use AuditError as E;
        use State::*;
        let face = |state, message: String| Face::new(state, message);
        match self {
            E::NotATable { relation, kind } => face(WrongObjectType, format!("{relation} is a {kind}, not a table"))
                .hint("Audit the tables that it reads."),
            E::SystemTable { relation } => {
                face(WrongObjectType, format!("{relation} belongs to the system or to an extension"))
                    .hint("Only tables of your own can be audited.")
            }
            E::TemporaryTable { relation } => face(WrongObjectType, format!("{relation} is a temporary table"))
                .hint("Its rows are gone with the session; audit a permanent table."),
            E::IsPartition { relation, parent } => {
                face(WrongObjectType, format!("{relation} is a partition of {parent}"))
                    .hint(format!("Call it for {parent}; its partitions are audited with it."))
            }
            E::ForeignMember { table, member } => {
                face(FeatureNotSupported, format!("{table} has the foreign table {member} below it"))
                    .detail("PostgreSQL does not tell a trigger of what a statement does to rows of another server.")
                    .hint(format!("Detach {member}, or audit the other partitions or children one by one."))
            }
            E::Unscoped { table } => face(UndefinedObject, format!("table {table} is not protected"))
                .detail("The log would not know whose its rows are: only administrators could read its entries.")
                .hint("Call tenancy.protect_table(...) first, or say tenant_column => NULL, allow_unscoped => true."),
            E::UnprotectedColumn { table, column } => face(UndefinedObject, format!("table {table} is not protected"))
                .detail(format!("Column {column} would be no proof of whose a row is."))
                .hint("Call tenancy.protect_table(...) first, or say tenant_column => NULL, allow_unscoped => true."),
            E::OtherTenantColumn { table, given, column: Some(column) } => {
                face(InvalidParameterValue, format!("table {table} is protected by column {column}, not by {given}"))
                    .hint("Leave tenant_column out: what protects a table tells whose its entries are.")
            }
            E::OtherTenantColumn { table, given, column: None } => {
                face(InvalidParameterValue, format!("table {table} is protected without a tenant column"))
                    .detail(format!("{given} tells nothing about a reference table's rows."))
                    .hint("Leave tenant_column out.")
            }
            E::UnknownColumn { table, column, argument } => {
                face(UndefinedColumn, format!("table {table} has no column \"{column}\""))
                    .hint(format!("Give names of columns as \"{argument}\"."))
            }
            E::KeyColumn { table, column, argument } => face(
                InvalidParameterValue,
                format!("column \"{column}\" is part of the key of {table} and cannot be in \"{argument}\""),
            )
            .hint("Entries name the row by its key."),
            E::BothIgnoredAndRedacted { column } => {
                face(InvalidParameterValue, format!("column \"{column}\" is both ignored and redacted"))
                    .hint("An ignored column leaves no trace; a redacted one leaves that it changed.")
            }
            E::ReservedTrigger { table, trigger } => {
                face(DuplicateObject, format!("table {table} has a trigger {trigger} of another making"))
                    .hint("Rename it, or drop it: the audit needs this name for its own.")
            }
            E::NotAudited { table } => face(UndefinedObject, format!("table {table} is not audited"))
                .hint("tenancy.audited_tables lists those that are; for a partition or child call with its parent."),
            E::AuditLost { table, lost, is_refused: true } => {
                face(InsufficientPrivilege, format!("table {table} must stay audited as it is"))
                    .detail(format!("The statement would alter or remove {}.", lost.join(", ")))
                    .hint("An administrator may do this, or end the audit with tenancy.unaudit_table(...) first.")
            }
            E::AuditLost { table, lost, is_refused: false } => {
                face(InsufficientPrivilege, format!("table {table} is no longer audited as it was"))
                    .detail(format!("The statement altered or removed {}.", lost.join(", ")))
                    .hint("Call tenancy.audit_table(...) with the arguments it was audited with to put this right.")
            }
            E::MemberUnaudited { table, root } => {
                face(NotInPrerequisiteState, format!("table {table} is not audited yet as {root} is"))
                    .hint("Call tenancy.audit_table(...) for the parent.")
            }
            E::NoSelect { table, role } => {
                face(InsufficientPrivilege, format!("role \"{role}\" may not read table {table}"))
                    .detail("What its rows were is for those who may read what they are.")
                    .hint("GRANT SELECT ON the table TO the role.")
            }
            E::NoKey { table } => face(NotInPrerequisiteState, format!("table {table} has no entries with a key"))
                .detail("A row is found by its primary key, or by its replica identity.")
                .hint("Look into tenancy.audit_log; a table without a key has its whole rows there."),
            E::NotAKey { table, columns } => {
                face(InvalidParameterValue, format!("the key does not name a row of {table}"))
                    .detail(format!("A key of it has the fields {}.", columns.join(", ")))
                    .hint("Give a JSON object, such as '{\"id\": 1}'.")
            }
            E::NoSuchTransaction { transaction } => {
                face(UndefinedObject, format!("the log has no changes of transaction {transaction} by this tenant"))
                    .hint("tenancy.audit_log and tenancy.tenant_activity(...) show the transactions.")
            }
            E::ImpossibleRetention { given } => {
                face(InvalidParameterValue, format!("entries cannot be kept for \"{given}\""))
                    .hint("Give an interval between nothing and 1000 years, such as '90 days'.")
            }
            E::AlreadyMaintained => {
                face(ObjectInUse, "the audit log is being maintained or sealed by another session".into())
                    .hint("Wait for it to end; tenancy.audit_maintenance shows who does it and how far it is.")
            }
            E::InTransaction { call } => {
                face(ActiveSqlTransaction, format!("{call} cannot run inside a transaction block"))
                    .detail("It does its work in steps, each in a transaction of its own.")
                    .hint(format!(
                        "Say CALL {call} by itself, not between BEGIN and COMMIT, nor in one message with others."
                    ))
            }
            E::RevertConflicts { transaction, conflicts, first } => face(
                NotInPrerequisiteState,
                format!("transaction {transaction} cannot be reverted: {conflicts} of its changes cannot be undone"),
            )
            .detail(first.clone())
            .hint("Call tenancy.revert_transaction(...) with dry_run => true to see them all."),
        }
    }
}
