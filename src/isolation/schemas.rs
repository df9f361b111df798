//! Schemas whose tables are protected, those there are and those to come.

use super::plan::{self, Request};
use super::store::{self, Arguments};
use crate::error::TenancyError;
use crate::model::policy;
use crate::model::{Ident, QualifiedName, Sql};
use crate::pg::{Oid, spi};
use std::collections::HashMap;

/// What became of a table in `protect_schema`.
pub struct Outcome {
    pub relation: Oid,
    pub outcome: &'static str,
    pub reason: Option<String>,
}

/// Protects every table of `schema` that has the tenant column, and new ones from now on; says why others were left.
pub fn protect_schema(schema: &str, arguments: &Arguments<'_>) -> Result<Vec<Outcome>, TenancyError> {
    let (request, schema) = (store::request(arguments)?, Ident::new(schema)?);
    let relations = spi::undisturbed(|| relations_of(&schema))?;
    let mut outcomes = Vec::new();
    for relation in relations {
        let Some(table) = store::describe_one(relation, spi::Snapshot::Latest)? else { continue };
        let was_protected = table.policies.iter().any(|policy| policy::is_ours(&policy.name));
        let (outcome, reason) = match plan::left_out(&table, &request) {
            Some(reason) => (LEFT, Some(reason)),
            None => match store::protect_as(relation, &request) {
                Ok(()) if was_protected => ("already protected", None),
                Ok(()) => ("protected", None),
                Err(TenancyError::OtherProtection { aspect, stored, .. }) => {
                    (LEFT, Some(format!("already protected with {aspect} {stored}")))
                }
                Err(refusal) => return Err(refusal),
            },
        };
        outcomes.push((table.name, Outcome { relation, outcome, reason }));
    }
    // A partition or child shares the lot of the table it was protected with.
    let relations: Vec<Oid> = outcomes.iter().map(|(_, outcome)| outcome.relation).collect();
    let entries = store::entries(spi::Snapshot::Latest, &relations)?;
    register(&schema, &request)?;
    let lots: HashMap<Oid, (QualifiedName, &'static str)> =
        outcomes.iter().map(|(name, outcome)| (outcome.relation, (name.clone(), outcome.outcome))).collect();
    let shared = |outcome: Outcome| {
        let root = entries.get(&outcome.relation).map(|entry| entry.root).filter(|root| *root != outcome.relation);
        match root.and_then(|root| lots.get(&root)) {
            Some((root, lot)) => Outcome { outcome: lot, reason: Some(format!("with {root}")), ..outcome },
            None => outcome,
        }
    };
    Ok(outcomes.into_iter().map(|(_, outcome)| shared(outcome)).collect())
}

const LEFT: &str = "left";

fn relations_of(schema: &Ident) -> Result<Vec<Oid>, TenancyError> {
    let found = spi::read(
        &Sql::text("SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1::text"),
        &[schema.as_str().into()],
        |row| row.must::<Oid>(1),
    )?;
    let Some(namespace) = found.first() else { return Err(TenancyError::UnknownSchema { schema: schema.clone() }) };
    spi::read(
        &Sql::text(
            "SELECT oid FROM pg_catalog.pg_class
              WHERE relnamespace = $1 AND relkind IN ('r', 'p', 'f', 'm') ORDER BY relname",
        ),
        &[(*namespace).into()],
        |row| row.must::<Oid>(1),
    )
}

fn register(schema: &Ident, request: &Request) -> Result<(), TenancyError> {
    spi::as_extension_owner(|| {
        spi::run(
            &Sql::text(
                "INSERT INTO tenancy_internal.protected_schemas AS s (schema, tenant_column, access)
                 VALUES ($1::text, $2::text, $3)
                 ON CONFLICT (schema, tenant_column) DO UPDATE SET access = EXCLUDED.access WHERE s.access <> EXCLUDED.access",
            ),
            &[schema.as_str().into(), request.column.as_str().into(), request.access.name().into()],
        )
    })
}

/// Leaves new tables of `schema` alone from now on; those that are protected stay so.
pub fn unprotect_schema(schema: &str) -> Result<(), TenancyError> {
    let schema = Ident::new(schema)?;
    let sql = Sql::text("DELETE FROM tenancy_internal.protected_schemas WHERE schema = $1::text RETURNING 1");
    let gone = spi::as_extension_owner(|| spi::write(&sql, &[schema.as_str().into()], |_| Ok(())))?;
    if gone.is_empty() { Err(TenancyError::SchemaNotProtected { schema }) } else { Ok(()) }
}

/// Follows ALTER SCHEMA ... RENAME.
pub fn rename(old: &Ident, new: &Ident) -> Result<(), TenancyError> {
    let sql = Sql::text("UPDATE tenancy_internal.protected_schemas SET schema = $2::text WHERE schema = $1::text");
    spi::as_extension_owner(|| spi::run(&sql, &[old.as_str().into(), new.as_str().into()]))
}
