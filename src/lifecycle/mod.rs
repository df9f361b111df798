//! Lifecycle: what becomes of a tenant's rows in time.
//! SQL: sql/lifecycle.sql, sql/lifecycle/*.sql.

mod rows;
mod soft_delete;
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
