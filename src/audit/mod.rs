//! Audit: who changed what, for which tenant, as an entry that nobody whom row security binds can change.
//! SQL: sql/audit.sql. Decisions: plan.rs, model::audit. Statements: store.rs. Triggers and images: pg::audit.

pgrx::extension_sql_file!(
    "../../sql/audit.sql",
    requires = ["registry", "context", "isolation", tenancy_internal::audit_rows]
);

#[pgrx::pg_schema]
mod tenancy_internal {
    use crate::pg::{audit, trigger};
    use pgrx::pg_sys::panic::{ErrorReport, ErrorReportable};
    use pgrx::prelude::*;

    /// Writes what a statement did to the log.
    #[pg_extern(sql = "
CREATE FUNCTION tenancy_internal.audit_rows() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
    fn audit_rows(call: trigger::Call) -> Result<(), ErrorReport> {
        audit::record(call).map_err(ErrorReport::from).unwrap_or_report();
        Ok(())
    }
}
