//! Lifecycle: a tenant begins, is held, and goes without a trace but its certificate. What becomes of its rows in time.
//! SQL: sql/lifecycle.sql, which commits. Decisions: plan.rs. Statements: store.rs. Triggers left out: pg::mute.
//! Rows: stamps.rs, soft_delete.rs, retention.rs; what they share is rows.rs.

mod plan;
mod retention;
mod rows;
mod soft_delete;
mod stamps;
mod store;

pgrx::extension_sql_file!(
    "../../sql/lifecycle.sql",
    requires = [
        "registry",
        "context",
        "jobs",
        "isolation",
        "audit",
        tenancy::plan_purge,
        tenancy_internal::known_tenant,
        tenancy_internal::begin_purge_step,
        tenancy_internal::purge_step,
        tenancy_internal::finish_purge_step
    ]
);

pgrx::extension_sql_file!("../../sql/lifecycle/rows.sql", name = "lifecycle_rows", requires = ["lifecycle"]);
pgrx::extension_sql_file!(
    "../../sql/lifecycle/stamps.sql",
    name = "lifecycle_stamps",
    requires = [
        "lifecycle_rows",
        stamps::tenancy::enable_stamps,
        stamps::tenancy::disable_stamps,
        stamps::tenancy::plan_stamps,
        stamps::tenancy_internal::is_stamped
    ]
);
pgrx::extension_sql_file!(
    "../../sql/lifecycle/soft_delete.sql",
    name = "lifecycle_soft_delete",
    requires = [
        "lifecycle_rows",
        soft_delete::tenancy::enable_soft_delete,
        soft_delete::tenancy::disable_soft_delete,
        soft_delete::tenancy::plan_soft_delete,
        soft_delete::tenancy::restore_row,
        soft_delete::tenancy_internal::is_soft_deleted
    ]
);

pgrx::extension_sql_file!(
    "../../sql/lifecycle/retention.sql",
    name = "lifecycle_retention",
    requires = [
        "lifecycle_soft_delete",
        retention::tenancy::set_retention,
        retention::tenancy_internal::expire_rows,
        retention::tenancy_internal::may_have_due_rows
    ]
);
pgrx::extension_sql_file!(
    "../../sql/lifecycle/maintenance.sql",
    name = "lifecycle_maintenance",
    requires = ["lifecycle_retention"]
);

#[pgrx::pg_schema]
mod tenancy {
    use super::store;
    use crate::pg::{Oid, tenant_key};
    use pgrx::{pg_sys::panic::ErrorReport, prelude::*};

    /// What `purge_tenant` would do, in order, and what stands in its way. 42704 for an unknown tenant.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy.plan_purge(tenant text) RETURNS TABLE (
    step integer, relation regclass, how text, estimated_rows bigint, estimated_bytes bigint, lock text, reason text
)
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    #[expect(clippy::type_complexity, reason = "the columns of the answer")]
    fn plan_purge(
        tenant: Option<&str>,
    ) -> Result<
        TableIterator<
            'static,
            (
                name!(step, Option<i32>),
                name!(relation, Oid),
                name!(how, &'static str),
                name!(estimated_rows, Option<i64>),
                name!(estimated_bytes, Option<i64>),
                name!(lock, Option<&'static str>),
                name!(reason, String),
            ),
        >,
        ErrorReport,
    > {
        let lines = store::plan_purge(&tenant_key(tenant)?)?;
        Ok(TableIterator::new(
            lines.into_iter().map(|l| (l.step, l.relation, l.how, l.rows, l.bytes, l.lock, l.reason)),
        ))
    }
}

#[pgrx::pg_schema]
mod tenancy_internal {
    use super::store::{self, Request};
    use crate::pg::{given, tenant_key};
    use pgrx::{Uuid, pg_sys::panic::ErrorReport, prelude::*};

    /// The id of a tenant. 42704 for an unknown one.
    #[pg_extern(stable)]
    fn known_tenant(tenant: Option<&str>) -> Result<Uuid, ErrorReport> {
        Ok(store::known(&tenant_key(tenant)?)?)
    }

    /// Checks, plans and takes the turn; NULL where it was only to be told what would be done.
    #[pg_extern]
    fn begin_purge_step(
        tenant: Option<&str>,
        confirm: Option<&str>,
        dry_run: Option<bool>,
        batch_size: Option<i32>,
        max_seconds: Option<i32>,
        pause_ms: Option<i32>,
        include_audit: Option<bool>,
    ) -> Result<Option<i64>, ErrorReport> {
        let request = Request {
            confirm,
            dry_run: given("dry_run", dry_run)?,
            batch_size: given("batch_size", batch_size)?,
            max_seconds,
            pause_ms: given("pause_ms", pause_ms)?,
            include_audit: given("include_audit", include_audit)?,
        };
        Ok(store::begin(&tenant_key(tenant)?, &request)?)
    }

    /// The next batch; false when there are no more. 55000 in a session that is not at work on the purge.
    #[pg_extern]
    fn purge_step(purge: Option<i64>) -> Result<bool, ErrorReport> {
        Ok(store::step(given("purge", purge)?)?)
    }

    /// Counts what is left and writes the certificate; false when there is more to do.
    #[pg_extern]
    fn finish_purge_step(purge: Option<i64>) -> Result<bool, ErrorReport> {
        Ok(store::finish(given("purge", purge)?)?)
    }
}
