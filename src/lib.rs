//! pg_tenancy: tenant isolation enforced inside PostgreSQL. Start at `src/README.md`.

// F0: plain data and decisions
mod error;
mod model;
// F1: the seam to PostgreSQL
#[allow(unsafe_code)]
mod pg;
// F2: who the tenants are; who the tenant of this transaction is; who is at long work
mod context;
mod jobs;
mod registry;
// F3: a tenant's own rows only, also past row security
mod fence;
mod isolation;
// F4: what hangs on protected tables
mod audit;
// F5: long work on one tenant; what looks at all of it
mod integrity;
mod lifecycle;

pgrx::pg_module_magic!();
pgrx::extension_sql_file!("../sql/bootstrap.sql", bootstrap);
pgrx::extension_sql_file!("../sql/finalize.sql", finalize);

/// Called once per process that loads the library: the postmaster (shared_preload_libraries) or a backend.
#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    pg::report::forgo_backtraces();
    pg::session::note_loading();
    pg::guc::note_options();
    let given = pg::invalid::given();
    pg::settings::define();
    pg::signing::define();
    pg::deleted::define();
    pg::guc::define();
    pg::invalid::judge(given);
    pg::cache::watch();
    pg::watched::watch();
    pg::hush::install();
    pg::protected::watch();
    pg::locked_down::watch();
    pg::audit::watch();
    pg::turn::watch();
    pg::strangers::watch();
    pg::planner::install();
    pg::nesting::install();
    if pg::session::is_shared_preload() {
        pg::violations::share();
        pg::hooks::install(fence::RULES);
    }
    pg::violations::watch_foreign_writes();
}

/// What `cargo pgrx test` calls to prepare its server.
#[cfg(test)]
pub mod pg_test {
    pub fn setup(_options: Vec<&str>) {}

    pub fn postgresql_conf_options() -> Vec<&'static str> {
        vec![]
    }
}
