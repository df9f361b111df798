//! Lifecycle: what becomes of a tenant's rows in time.
//! SQL: sql/lifecycle.sql, sql/lifecycle/*.sql.

mod rows;
mod stamps;

pgrx::extension_sql_file!("../../sql/lifecycle.sql", requires = ["isolation", "audit"]);
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
