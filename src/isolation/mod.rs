//! Isolation: a protected table shows and takes a tenant's own rows only, whoever asks.
//! SQL: sql/isolation.sql. Decisions: plan.rs, keys.rs, step.rs, undo.rs, drift.rs, model::policy.
//! Statements: the others.

mod actions;
mod drift;
mod guard;
mod keys;
mod plan;
mod roles;
mod schemas;
mod step;
mod store;
#[cfg(any(test, feature = "pg_test"))]
mod tests;
mod undo;
mod views;

pgrx::extension_sql_file!(
    "../../sql/isolation.sql",
    requires = [
        "registry",
        "context",
        tenancy::protect_table,
        tenancy::plan_protection,
        tenancy::unprotect_table,
        tenancy::protect_schema,
        tenancy::scope_unique,
        tenancy::plan_scope_unique,
        tenancy::unscope_unique,
        tenancy::unprotect_schema,
        tenancy::tenant_view,
        tenancy::grant_usage,
        tenancy::revoke_usage,
        tenancy_internal::refuse_truncate,
        tenancy_internal::is_enforced,
        tenancy_internal::judged_policies,
        tenancy_internal::close_before_drop,
        tenancy_internal::note_drops,
        tenancy_internal::guard_ddl
    ]
);

#[pgrx::pg_schema]
mod tenancy {
    use super::step::Step;
    use super::store::{self, Arguments};
    use super::{keys, roles, schemas, views};
    use crate::pg::{Oid, given, ident, on_relation, on_table, strangers};
    use pgrx::{pg_sys::panic::ErrorReport, prelude::*};

    /// Isolates `target` by tenant, with its partitions and inheritance children.
    ///
    /// `access` is `tenant`, `shared` or `reference`; `foreign_keys` `composite` or `keep`; `reference` `policy` or
    /// `foreign_key`. Takes ACCESS EXCLUSIVE when there is something to do, and does nothing the second time.
    /// 42809 for what is no table of the user's own, 42703 without the tenant column, 42804 for one of another type,
    /// 23502 and 23503 for rows without a (known) tenant, 42501 without ownership, 42710 when protected differently.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.protect_table(
    target regclass, tenant_column name DEFAULT 'tenant_id', access text DEFAULT 'tenant',
    assign_existing_rows_to text DEFAULT NULL, foreign_keys text DEFAULT 'composite', reference text DEFAULT 'policy',
    open_policy boolean DEFAULT true
) RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn protect_table(
        target: Option<Oid>,
        tenant_column: Option<&std::ffi::CStr>,
        access: Option<&str>,
        assign_existing_rows_to: Option<&str>,
        foreign_keys: Option<&str>,
        reference: Option<&str>,
        open_policy: Option<bool>,
    ) -> Result<(), ErrorReport> {
        let arguments =
            Arguments::given(tenant_column, access, assign_existing_rows_to, foreign_keys, reference, open_policy)?;
        Ok(on_table(target, |target| store::protect(target, &arguments))?)
    }

    /// The steps `protect_table` would take with the same arguments; changes nothing.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.plan_protection(
    target regclass, tenant_column name DEFAULT 'tenant_id', access text DEFAULT 'tenant',
    assign_existing_rows_to text DEFAULT NULL, foreign_keys text DEFAULT 'composite', reference text DEFAULT 'policy',
    open_policy boolean DEFAULT true
) RETURNS TABLE (step integer, action text, statement text, lock text, reason text)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    #[expect(clippy::type_complexity, reason = "the columns of the answer")]
    fn plan_protection(
        target: Option<Oid>,
        tenant_column: Option<&std::ffi::CStr>,
        access: Option<&str>,
        assign_existing_rows_to: Option<&str>,
        foreign_keys: Option<&str>,
        reference: Option<&str>,
        open_policy: Option<bool>,
    ) -> Result<
        TableIterator<
            'static,
            (
                name!(step, i32),
                name!(action, String),
                name!(statement, Option<String>),
                name!(lock, Option<String>),
                name!(reason, String),
            ),
        >,
        ErrorReport,
    > {
        let arguments =
            Arguments::given(tenant_column, access, assign_existing_rows_to, foreign_keys, reference, open_policy)?;
        let steps = on_table(target, |target| store::plan_protection(target, &arguments))?;
        Ok(TableIterator::new((1..).zip(steps).map(shown)))
    }

    /// A step as a plan shows it.
    fn shown((number, step): (i32, Step)) -> (i32, String, Option<String>, Option<String>, String) {
        let statement = step.statement().map(|sql| sql.to_string());
        (number, step.action().to_owned(), statement, step.lock().map(str::to_owned), step.reason())
    }

    /// Puts back what was there before `protect_table`; columns and data stay. 42704 when it is not protected.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.unprotect_table(target regclass) RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn unprotect_table(target: Option<Oid>) -> Result<(), ErrorReport> {
        Ok(on_table(target, store::unprotect)?)
    }

    /// Protects each table of `schema` that has the tenant column, from then on each new one too, and says why others were
    /// left.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.protect_schema(
    schema name, tenant_column name DEFAULT 'tenant_id', access text DEFAULT 'tenant'
) RETURNS TABLE (relation regclass, outcome text, reason text)
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn protect_schema(
        schema: Option<&std::ffi::CStr>,
        tenant_column: Option<&std::ffi::CStr>,
        access: Option<&str>,
    ) -> Result<
        TableIterator<'static, (name!(relation, Oid), name!(outcome, String), name!(reason, Option<String>))>,
        ErrorReport,
    > {
        let arguments = Arguments::given(tenant_column, access, None, Some("composite"), Some("policy"), Some(true))?;
        let schema = given("schema", schema)?.to_string_lossy();
        let outcomes = strangers::at_door(|| schemas::protect_schema(&schema, &arguments))?;
        Ok(TableIterator::new(outcomes.into_iter().map(|o| (o.relation, o.outcome.to_owned(), o.reason))))
    }

    /// Leads a unique key of `target` by the tenant column, with all that refers to it; does nothing the second time.
    ///
    /// Takes ACCESS EXCLUSIVE. 42704 for no such key or a table that is not protected, 42501 without ownership, 0A000
    /// where the key cannot have the column, 55000 where something depends on it that cannot follow.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.scope_unique(target regclass, constraint_name name) RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn scope_unique(target: Option<Oid>, constraint_name: Option<&std::ffi::CStr>) -> Result<(), ErrorReport> {
        let scope = |target| keys::store::scope(target, &ident("constraint_name", constraint_name)?);
        Ok(on_table(target, scope)?)
    }

    /// The steps `scope_unique` would take; changes nothing.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.plan_scope_unique(target regclass, constraint_name name)
RETURNS TABLE (step integer, action text, statement text, lock text, reason text)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    #[expect(clippy::type_complexity, reason = "the columns of the answer")]
    fn plan_scope_unique(
        target: Option<Oid>,
        constraint_name: Option<&std::ffi::CStr>,
    ) -> Result<
        TableIterator<
            'static,
            (
                name!(step, i32),
                name!(action, String),
                name!(statement, Option<String>),
                name!(lock, Option<String>),
                name!(reason, String),
            ),
        >,
        ErrorReport,
    > {
        let plan = |target| keys::store::plan_scope(target, &ident("constraint_name", constraint_name)?);
        let steps = on_table(target, plan)?;
        Ok(TableIterator::new((1..).zip(steps).map(shown)))
    }

    /// Puts a unique key back as it was before `scope_unique`. 42704 when that did not make it.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.unscope_unique(target regclass, constraint_name name) RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn unscope_unique(target: Option<Oid>, constraint_name: Option<&std::ffi::CStr>) -> Result<(), ErrorReport> {
        let unscope = |target| keys::store::unscope(target, &ident("constraint_name", constraint_name)?);
        Ok(on_table(target, unscope)?)
    }

    /// Protects new tables of `schema` no longer; those that are protected stay so. 42704 when it is not protected.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.unprotect_schema(schema name) RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn unprotect_schema(schema: Option<&std::ffi::CStr>) -> Result<(), ErrorReport> {
        Ok(schemas::unprotect_schema(&given("schema", schema)?.to_string_lossy())?)
    }

    /// Makes a view of a materialized view that shows the current tenant's rows only, and gives it.
    ///
    /// 42809 for what is no materialized view over protected tables, 42703 without their tenant column, 42804 when it holds
    /// no tenant key, 42501 without ownership, 42710 when the view's name is taken.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.tenant_view(matview regclass) RETURNS regclass
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn tenant_view(matview: Option<Oid>) -> Result<Oid, ErrorReport> {
        Ok(on_relation("matview", matview, views::tenant_view)?)
    }

    /// Gives an application role what it needs. 42501 for a role that could get past row security, saying how.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.grant_usage(role regrole) RETURNS void
LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn grant_usage(role: Option<Oid>) -> Result<(), ErrorReport> {
        Ok(roles::grant_usage(given("role", role)?)?)
    }

    /// Takes back what `grant_usage` gave.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.revoke_usage(role regrole) RETURNS void
LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn revoke_usage(role: Option<Oid>) -> Result<(), ErrorReport> {
        Ok(roles::revoke_usage(given("role", role)?)?)
    }
}

#[pgrx::pg_schema]
mod tenancy_internal {
    use super::{guard, store};
    use crate::model::policy::Difference;
    use crate::pg::trigger::{self, Event, Level, Timing};
    use crate::pg::{Oid, event, given, qualified_name};
    use pgrx::pg_sys::panic::ErrorReport;
    use pgrx::prelude::*;

    /// Refuses TRUNCATE of a protected table to everybody whom row security binds.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy_internal.refuse_truncate() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn refuse_truncate(call: trigger::Call) -> Result<(), ErrorReport> {
        let relation = trigger::expect(call, Level::Statement, Timing::Before, &[Event::Truncate])?.table();
        Ok(store::refuse_truncate(relation.oid(), qualified_name(&relation)?)?)
    }

    /// Whether all that protects `relation` is in place, unaltered. The view `tenancy.protected_tables` shows it.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy_internal.is_enforced(relation oid, tenant_column name, access text) RETURNS boolean
LANGUAGE c STABLE AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn is_enforced(
        relation: Option<Oid>,
        tenant_column: Option<&std::ffi::CStr>,
        access: Option<&str>,
    ) -> Result<bool, ErrorReport> {
        Ok(store::is_enforced(given("relation", relation)?, tenant_column, given("access", access)?)?)
    }

    /// The policies that a table with this access and tenant column needs, and how those of their names differ from them: NULL
    /// where there is none. No rows where the column is gone or holds no tenant key.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy_internal.judged_policies(relation oid, access text, tenant_column name)
RETURNS TABLE (policy text, differences text[])
LANGUAGE c STABLE AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    #[expect(clippy::type_complexity, reason = "the columns of the answer")]
    fn judged_policies(
        relation: Option<Oid>,
        access: Option<&str>,
        tenant_column: Option<&std::ffi::CStr>,
    ) -> Result<
        TableIterator<'static, (name!(policy, &'static str), name!(differences, Option<Vec<&'static str>>))>,
        ErrorReport,
    > {
        let judged = store::judged_policies(given("relation", relation)?, given("access", access)?, tenant_column)?;
        let names = |differences: Vec<Difference>| differences.into_iter().map(Difference::name).collect();
        Ok(TableIterator::new(judged.into_iter().map(move |judged| (judged.name, judged.differences.map(names)))))
    }

    /// Takes dropped tables off the record, and notes which protected ones lost a part.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy_internal.note_drops() RETURNS event_trigger
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn note_drops(call: event::Call) -> Result<(), ErrorReport> {
        Ok(guard::note_drops(call)?)
    }

    /// Judges what a statement left behind: protects what is new, refuses what takes protection off.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy_internal.guard_ddl() RETURNS event_trigger
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn guard_ddl(call: event::Call) -> Result<(), ErrorReport> {
        Ok(guard::guard_ddl(call)?)
    }

    /// Closes every protected table before the extension is dropped.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy_internal.close_before_drop() RETURNS event_trigger
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn close_before_drop(call: event::Call) -> Result<(), ErrorReport> {
        Ok(store::close_before_drop(call)?)
    }
}
