//! Audit: who changed what, for which tenant, as entries that nobody whom row security binds can change.
//! SQL: sql/audit.sql. Decisions: plan.rs, model::audit. Statements: store.rs, guard.rs. Triggers and images: pg::audit.

mod guard;
mod plan;
mod store;

pgrx::extension_sql_file!(
    "../../sql/audit.sql",
    requires = [
        "registry",
        "context",
        "isolation",
        tenancy::audit_table,
        tenancy::plan_audit,
        tenancy::unaudit_table,
        tenancy_internal::audit_rows,
        tenancy_internal::read_images,
        tenancy_internal::audit_tenant,
        tenancy_internal::is_audited,
        tenancy_internal::note_audit_drops,
        tenancy_internal::guard_audit
    ]
);

#[pgrx::pg_schema]
mod tenancy {
    use super::store;
    use crate::pg::{Oid, given};
    use pgrx::{AnyElement, pg_sys::panic::ErrorReport, prelude::*};

    /// Writes each change of the rows of `target`, its partitions and inheritance children to the log.
    ///
    /// `row_images` is `diff`, `full` or `none`. 42809 for what is no table of the user's own, 42704 for a table that is
    /// not protected (unless `allow_unscoped`), 42703 for an unknown column, 22023 for one of the key, 42501 without
    /// ownership, 0A000 with foreign partitions.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.audit_table(
    target regclass, ignore_columns name[] DEFAULT '{}', redact_columns name[] DEFAULT '{}', row_images text DEFAULT 'diff',
    skip_unchanged boolean DEFAULT true, tenant_column name DEFAULT NULL, allow_unscoped boolean DEFAULT false
) RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn audit_table(
        target: Option<Oid>,
        ignore_columns: Option<AnyElement>,
        redact_columns: Option<AnyElement>,
        row_images: Option<&str>,
        skip_unchanged: Option<bool>,
        tenant_column: Option<&std::ffi::CStr>,
        allow_unscoped: Option<bool>,
    ) -> Result<(), ErrorReport> {
        let request =
            store::request(ignore_columns, redact_columns, row_images, skip_unchanged, tenant_column, allow_unscoped)?;
        Ok(store::audit(given("target", target)?, &request)?)
    }

    /// The steps `audit_table` would take with the same arguments; changes nothing.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.plan_audit(
    target regclass, ignore_columns name[] DEFAULT '{}', redact_columns name[] DEFAULT '{}', row_images text DEFAULT 'diff',
    skip_unchanged boolean DEFAULT true, tenant_column name DEFAULT NULL, allow_unscoped boolean DEFAULT false
) RETURNS TABLE (step integer, action text, statement text, lock text, reason text)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    #[expect(clippy::type_complexity, reason = "the columns of the answer")]
    fn plan_audit(
        target: Option<Oid>,
        ignore_columns: Option<AnyElement>,
        redact_columns: Option<AnyElement>,
        row_images: Option<&str>,
        skip_unchanged: Option<bool>,
        tenant_column: Option<&std::ffi::CStr>,
        allow_unscoped: Option<bool>,
    ) -> Result<
        TableIterator<
            'static,
            (
                name!(step, i32),
                name!(action, &'static str),
                name!(statement, String),
                name!(lock, &'static str),
                name!(reason, &'static str),
            ),
        >,
        ErrorReport,
    > {
        let request =
            store::request(ignore_columns, redact_columns, row_images, skip_unchanged, tenant_column, allow_unscoped)?;
        let steps = store::plan_audit(given("target", target)?, &request)?;
        Ok(TableIterator::new((1..).zip(steps).map(|(number, step)| {
            let statement = step.statement().to_string();
            (number, step.action(), statement, step.lock(), step.reason())
        })))
    }

    /// Ends what `audit_table` began; the entries stay. 42704 when the table is not audited.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.unaudit_table(target regclass) RETURNS void
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn unaudit_table(target: Option<Oid>) -> Result<(), ErrorReport> {
        Ok(store::unaudit(given("target", target)?)?)
    }
}

#[pgrx::pg_schema]
mod tenancy_internal {
    use super::{guard, store};
    use crate::pg::{Oid, audit, event, given, trigger};
    use pgrx::pg_sys::panic::{ErrorReport, ErrorReportable};
    use pgrx::{AnyElement, Uuid, prelude::*};

    /// Writes what a statement did to the log.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy_internal.audit_rows() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn audit_rows(call: trigger::Call) -> Result<(), ErrorReport> {
        audit::record(call).map_err(ErrorReport::from).unwrap_or_report();
        Ok(())
    }

    /// The rows of a chunk of the log; one without values for what has no images.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy_internal.read_images(layout integer, action \"char\", row_count smallint, images bytea)
RETURNS TABLE (ordinal integer, row_key jsonb, changed_columns text[], old_values jsonb, new_values jsonb)
LANGUAGE c STABLE PARALLEL SAFE ROWS 50 AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    #[expect(clippy::type_complexity, reason = "the columns of the answer")]
    fn read_images(
        layout: Option<i32>,
        action: Option<i8>,
        row_count: Option<i16>,
        images: Option<&[u8]>,
    ) -> Result<
        TableIterator<
            'static,
            (
                name!(ordinal, i32),
                name!(row_key, Option<AnyElement>),
                name!(changed_columns, Option<Vec<String>>),
                name!(old_values, Option<AnyElement>),
                name!(new_values, Option<AnyElement>),
            ),
        >,
        ErrorReport,
    > {
        let entries = audit::read::entries(layout, given("action", action)?, given("row_count", row_count)?, images)?;
        let entries = (1..).zip(entries);
        Ok(TableIterator::new(entries.map(|(at, entry)| (at, entry.key, entry.changed, entry.old, entry.new))))
    }

    /// The tenant whose entries may be read; NULL for an administrator without one, who may read all.
    #[pg_extern(stable, parallel_restricted)]
    fn audit_tenant() -> Result<Option<Uuid>, ErrorReport> {
        Ok(store::readable_tenant()?.map(|tenant| Uuid::from_bytes(*tenant.as_bytes())))
    }

    /// Whether all triggers of the audit are in place, unaltered. The view `tenancy.audited_tables` shows it.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy_internal.is_audited(relation oid) RETURNS boolean
LANGUAGE c STABLE AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn is_audited(relation: Option<Oid>) -> Result<bool, ErrorReport> {
        Ok(store::is_audited(given("relation", relation)?)?)
    }

    /// Takes dropped tables off the record, and keeps the triggers of the audit.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy_internal.note_audit_drops() RETURNS event_trigger
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn note_audit_drops(call: event::Call) -> Result<(), ErrorReport> {
        Ok(guard::note_drops(call)?)
    }

    /// Judges what a statement left behind: audits what is new, refuses what ends an audit.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy_internal.guard_audit() RETURNS event_trigger
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn guard_audit(call: event::Call) -> Result<(), ErrorReport> {
        Ok(guard::guard(call)?)
    }
}
