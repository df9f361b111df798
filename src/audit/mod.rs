//! Audit: who changed what, for which tenant, as entries that nobody whom row security binds can change.
//! SQL: sql/audit.sql. Decisions: plan.rs, model::audit. Statements: store.rs, guard.rs. Triggers and images: pg::audit.

mod guard;
mod history;
mod plan;
mod retention;
mod seal;
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
        tenancy::log_event,
        tenancy::row_history,
        tenancy::row_as_of,
        tenancy::tenant_activity,
        tenancy::revert_transaction,
        tenancy_internal::audit_rows,
        tenancy_internal::read_chunk,
        tenancy_internal::find_row_key,
        tenancy_internal::audit_tenant,
        tenancy_internal::is_audited,
        tenancy_internal::note_audit_drops,
        tenancy_internal::guard_audit,
        retention::tenancy::set_audit_retention,
        retention::tenancy_internal::take_audit_turn,
        retention::tenancy_internal::has_audit_turn,
        retention::tenancy_internal::give_audit_turn,
        retention::tenancy_internal::refuse_in_transaction,
        seal::tenancy_internal::digest,
        seal::tenancy_internal::digest_chunk
    ]
);

#[pgrx::pg_schema]
mod tenancy {
    use super::{history, store};
    use crate::pg::{Oid, given, on_table, strangers};
    use pgrx::datum::TimestampWithTimeZone;
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
        Ok(on_table(target, |target| store::audit(target, &request))?)
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
        let steps = on_table(target, |target| store::plan_audit(target, &request))?;
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
        Ok(on_table(target, store::unaudit)?)
    }

    /// Writes an event of the application to the log, in this transaction; gives the entry's id. 55000 without a tenant,
    /// but for administrators.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.log_event(
    action text, entity_type text DEFAULT NULL, entity_id text DEFAULT NULL, details jsonb DEFAULT NULL
) RETURNS bigint
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn log_event(
        action: Option<&str>,
        entity_type: Option<&str>,
        entity_id: Option<&str>,
        details: Option<AnyElement>,
    ) -> Result<i64, ErrorReport> {
        Ok(store::log_event(given("action", action)?, entity_type, entity_id, details)?)
    }

    /// What was done to a row, newest last. 42501 without SELECT on the table, 22023 for what is no key of it, 55000 for
    /// a table without one.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.row_history(target regclass, key jsonb) RETURNS TABLE (
    id bigint, occurred_at timestamptz, action text, row_key jsonb, changed_columns text[], old_values jsonb,
    new_values jsonb, actor text, session_role text, transaction_id bigint
)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    #[expect(clippy::type_complexity, reason = "the columns of the answer")]
    fn row_history(
        target: Option<Oid>,
        key: Option<AnyElement>,
    ) -> Result<
        TableIterator<
            'static,
            (
                name!(id, i64),
                name!(occurred_at, TimestampWithTimeZone),
                name!(action, String),
                name!(row_key, Option<AnyElement>),
                name!(changed_columns, Option<Vec<String>>),
                name!(old_values, Option<AnyElement>),
                name!(new_values, Option<AnyElement>),
                name!(actor, Option<String>),
                name!(session_role, Option<String>),
                name!(transaction_id, i64),
            ),
        >,
        ErrorReport,
    > {
        let key = given("key", key)?;
        let versions = on_table(target, |target| history::row_history(target, key))?;
        Ok(TableIterator::new(versions.into_iter().map(|v| {
            (v.id, v.occurred_at, v.action, v.row_key, v.changed, v.old, v.new, v.actor, v.session_role, v.transaction)
        })))
    }

    /// A row as it was at a time, NULL where there was none. As for `row_history`.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.row_as_of(target regclass, key jsonb, at timestamptz) RETURNS jsonb
LANGUAGE c STABLE AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn row_as_of(
        target: Option<Oid>,
        key: Option<AnyElement>,
        at: Option<TimestampWithTimeZone>,
    ) -> Result<Option<AnyElement>, ErrorReport> {
        let (key, at) = (given("key", key)?, given("at", at)?);
        Ok(on_table(target, |target| history::row_as_of(target, key, at))?)
    }

    /// What was done for a tenant since a time, newest first. 42501 for another tenant than one's own.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.tenant_activity(tenant text DEFAULT NULL, since timestamptz DEFAULT pg_catalog.now() - interval '1 day')
RETURNS TABLE (
    occurred_at timestamptz, transaction_id bigint, table_name text, action text, row_count bigint, actor text,
    session_role text, client text
)
LANGUAGE c STABLE AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    #[expect(clippy::type_complexity, reason = "the columns of the answer")]
    fn tenant_activity(
        tenant: Option<&str>,
        since: Option<TimestampWithTimeZone>,
    ) -> Result<
        TableIterator<
            'static,
            (
                name!(occurred_at, TimestampWithTimeZone),
                name!(transaction_id, i64),
                name!(table_name, Option<String>),
                name!(action, String),
                name!(row_count, i64),
                name!(actor, Option<String>),
                name!(session_role, Option<String>),
                name!(client, Option<String>),
            ),
        >,
        ErrorReport,
    > {
        let activity = history::tenant_activity(tenant, given("since", since)?)?;
        Ok(TableIterator::new(activity.into_iter().map(|a| {
            (a.occurred_at, a.transaction, a.table_name, a.action, a.rows, a.actor, a.session_role, a.client)
        })))
    }

    /// Undoes what a transaction did to rows of the current tenant, with the rights of the caller; with `dry_run` shows what
    /// would come of it. 42704 for a transaction that did nothing, 55000 where a row is not as the transaction left it.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.revert_transaction(transaction_id bigint, dry_run boolean DEFAULT true) RETURNS TABLE (
    entry bigint, table_name text, row_key jsonb, action text, outcome text
)
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    #[expect(clippy::type_complexity, reason = "the columns of the answer")]
    fn revert_transaction(
        transaction_id: Option<i64>,
        dry_run: Option<bool>,
    ) -> Result<
        TableIterator<
            'static,
            (
                name!(entry, i64),
                name!(table_name, String),
                name!(row_key, Option<AnyElement>),
                name!(action, &'static str),
                name!(outcome, &'static str),
            ),
        >,
        ErrorReport,
    > {
        let (transaction, dry_run) = (given("transaction_id", transaction_id)?, given("dry_run", dry_run)?);
        let undone = strangers::at_door(|| history::revert(transaction, dry_run))?;
        let rows = undone.into_iter().map(|u| (u.entry, u.table_name, u.row_key, u.action, u.outcome));
        Ok(TableIterator::new(rows))
    }
}

#[pgrx::pg_schema]
mod tenancy_internal {
    use super::{guard, store};
    use crate::pg::{Oid, Place, audit, event, given, trigger};
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

    /// The rows of the chunk of the log at a place, for whoever may read them; one without values for what has no images.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy_internal.read_chunk(partition oid, place tid)
RETURNS TABLE (ordinal integer, row_key jsonb, changed_columns text[], old_values jsonb, new_values jsonb)
LANGUAGE c STABLE PARALLEL SAFE ROWS 50 AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    #[expect(clippy::type_complexity, reason = "the columns of the answer")]
    fn read_chunk(
        partition: Option<Oid>,
        place: Option<Place>,
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
        let entries = store::read_chunk(given("partition", partition)?, given("place", place)?)?;
        let entries = (1..).zip(entries);
        Ok(TableIterator::new(entries.map(|(at, entry)| (at, entry.key, entry.changed, entry.old, entry.new))))
    }

    /// A row's key as the log has it under a layout, with its hash; no row for what is no key of it.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy_internal.find_row_key(layout integer, key jsonb) RETURNS TABLE (key_hash bigint, row_key jsonb)
LANGUAGE c STABLE ROWS 1 AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn find_row_key(
        layout: Option<i32>,
        key: Option<AnyElement>,
    ) -> Result<TableIterator<'static, (name!(key_hash, Option<i64>), name!(row_key, AnyElement))>, ErrorReport> {
        Ok(TableIterator::new(audit::read::find_key(given("layout", layout)?, given("key", key)?)?))
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
