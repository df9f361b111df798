//! The switches of guard and fence; `guc.rs` has those of the context.

use super::invalid;
use pgrx::prelude::*;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};
use std::ffi::{CString, c_char};

/// `tenancy.strictness`: what the settings that say `auto` do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum Strictness {
    #[name = c"standard"]
    Standard,
    #[name = c"strict"]
    Strict,
}

/// `tenancy.ddl_guard`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum DdlGuard {
    #[name = c"off"]
    Off,
    #[name = c"warn"]
    Warn,
    #[name = c"enforce"]
    Enforce,
}

/// `tenancy.explain_guard`: which EXPLAIN of a protected table is refused to bound roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum ExplainGuard {
    #[name = c"auto"]
    Auto,
    #[name = c"off"]
    Off,
    /// EXPLAIN ANALYZE, which counts the rows of other tenants.
    #[name = c"analyze"]
    Analyze,
    /// Every EXPLAIN: estimates tell something too.
    #[name = c"all"]
    All,
}

/// `tenancy.session_hygiene`: what becomes of that which outlives a transaction and carries a tenant's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum SessionHygiene {
    #[name = c"auto"]
    Auto,
    #[name = c"off"]
    Off,
    /// Removed when the connection turns to another tenant.
    #[name = c"scrub"]
    Scrub,
    /// Not made in the first place; what cannot be refused is removed.
    #[name = c"refuse"]
    Refuse,
}

static STRICTNESS: GucSetting<Strictness> = GucSetting::<Strictness>::new(Strictness::Standard);
static DDL_GUARD: GucSetting<DdlGuard> = GucSetting::<DdlGuard>::new(DdlGuard::Enforce);
static EXPLAIN_GUARD: GucSetting<ExplainGuard> = GucSetting::<ExplainGuard>::new(ExplainGuard::Auto);
static SESSION_HYGIENE: GucSetting<SessionHygiene> = GucSetting::<SessionHygiene>::new(SessionHygiene::Auto);
static FENCE_SUPERUSERS: GucSetting<bool> = GucSetting::<bool>::new(true);
static CURRENT_USER_ID: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static CLIENT_IP: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static USER_AGENT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static AUDIT_QUERIES: GucSetting<bool> = GucSetting::<bool>::new(false);
static LOG_CONTEXT: GucSetting<bool> = GucSetting::<bool>::new(false);
static TAG_LOG: GucSetting<bool> = GucSetting::<bool>::new(false);
static ONCE_RETENTION: GucSetting<i32> = GucSetting::<i32>::new(30 * 24 * 60 * 60);
static DELETION_GRACE: GucSetting<i32> = GucSetting::<i32>::new(30 * 24 * 60 * 60);
static FOLD_TENANT: GucSetting<bool> = GucSetting::<bool>::new(true);

/// Defines the settings; called once, from `_PG_init`, before `guc::define` reserves the prefix.
pub fn define() {
    let flags = GucFlags::default();
    GucRegistry::define_enum_guc(
        c"tenancy.strictness",
        c"Whether what costs a feature is refused as well, where the setting for it says auto.",
        c"",
        &STRICTNESS,
        GucContext::Suset,
        flags,
    );
    GucRegistry::define_enum_guc(
        c"tenancy.ddl_guard",
        c"What happens to statements that would take the protection off a table.",
        c"",
        &DDL_GUARD,
        GucContext::Suset,
        flags,
    );
    GucRegistry::define_enum_guc(
        c"tenancy.explain_guard",
        c"Which EXPLAIN of protected tables is refused; auto is off, or all when strict. Needs shared_preload_libraries.",
        c"",
        &EXPLAIN_GUARD,
        GucContext::Suset,
        flags,
    );
    GucRegistry::define_enum_guc(
        c"tenancy.session_hygiene",
        c"What becomes of things that outlive a transaction; auto is off, or refuse when strict. Needs shared_preload_libraries.",
        c"",
        &SESSION_HYGIENE,
        GucContext::Suset,
        flags,
    );
    GucRegistry::define_bool_guc(
        c"tenancy.fence_superusers",
        c"Stops superusers in transactions that have a tenant. Needs shared_preload_libraries.",
        c"",
        &FENCE_SUPERUSERS,
        GucContext::Suset,
        flags,
    );
    for (name, what, setting) in [
        (
            c"app.current_user_id",
            c"The user whom the application works for, as the audit log has it.",
            &CURRENT_USER_ID,
        ),
        (c"app.client_ip", c"The address of the application's client, as the audit log has it.", &CLIENT_IP),
        (c"app.user_agent", c"The application's client, as the audit log has it.", &USER_AGENT),
    ] {
        GucRegistry::define_string_guc(name, what, c"", setting, GucContext::Userset, flags);
    }
    GucRegistry::define_bool_guc(
        c"tenancy.audit_queries",
        c"Whether an entry of the audit log has the text of the statement, up to 4,000 bytes.",
        c"",
        &AUDIT_QUERIES,
        GucContext::Suset,
        flags,
    );
    GucRegistry::define_bool_guc(
        c"tenancy.log_context",
        c"Whether each transaction of a tenant writes a line to the server's log: tenant, role and client.",
        c"",
        &LOG_CONTEXT,
        GucContext::Suset,
        flags,
    );
    GucRegistry::define_bool_guc(
        c"tenancy.tag_log",
        c"Whether application_name is tenant:<code> in a tenant's transaction, for log_line_prefix and pg_stat_activity.",
        c"",
        &TAG_LOG,
        GucContext::Suset,
        flags,
    );
    // Read by tenancy.once(), in SQL.
    GucRegistry::define_int_guc(
        c"tenancy.once_retention",
        c"How long tenancy.once() knows a key; 0 is for ever.",
        c"",
        &ONCE_RETENTION,
        0,
        i32::MAX,
        GucContext::Suset,
        GucFlags::UNIT_S,
    );
    // Read by tenancy_internal.deletion_grace(), in SQL.
    GucRegistry::define_int_guc(
        c"tenancy.deletion_grace",
        c"How long deleted rows and the rows of deleted tenants are kept before maintenance removes them.",
        c"",
        &DELETION_GRACE,
        0,
        i32::MAX,
        GucContext::Suset,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_bool_guc(
        c"tenancy.fold_tenant",
        c"Lets the planner prune partitions by the tenant of the transaction where a plan is made for one use.",
        c"",
        &FOLD_TENANT,
        GucContext::Userset,
        flags,
    );
}

/// Whether `tenancy.strictness` says strict, or a setting is invalid that might have made the session so.
pub fn is_strict() -> bool {
    STRICTNESS.get() == Strictness::Strict || invalid::any()
}

/// Whether the session is known not to be strict; raises nothing, for hooks without a guard.
pub fn is_known_standard() -> bool {
    STRICTNESS.get() == Strictness::Standard && invalid::is_known_none()
}

/// What `tenancy.ddl_guard` says.
pub fn ddl_guard() -> DdlGuard {
    DDL_GUARD.get()
}

/// What `tenancy.explain_guard` says, `auto` resolved.
pub fn explain_guard() -> ExplainGuard {
    match EXPLAIN_GUARD.get() {
        ExplainGuard::Auto if is_strict() => ExplainGuard::All,
        ExplainGuard::Auto => ExplainGuard::Off,
        chosen => chosen,
    }
}

/// What `tenancy.session_hygiene` says, `auto` resolved.
pub fn session_hygiene() -> SessionHygiene {
    match SESSION_HYGIENE.get() {
        SessionHygiene::Auto if is_strict() => SessionHygiene::Refuse,
        SessionHygiene::Auto => SessionHygiene::Off,
        chosen => chosen,
    }
}

/// What `tenancy.fence_superusers` says.
pub fn fence_superusers() -> bool {
    FENCE_SUPERUSERS.get()
}

/// What `tenancy.fold_tenant` says.
pub fn fold_tenant() -> bool {
    FOLD_TENANT.get()
}

/// What `tenancy.audit_queries` says.
pub fn audit_queries() -> bool {
    AUDIT_QUERIES.get()
}

/// What `tenancy.log_context` says.
pub fn log_context() -> bool {
    LOG_CONTEXT.get()
}

/// What `tenancy.tag_log` says.
pub fn tag_log() -> bool {
    TAG_LOG.get()
}

/// What `app.current_user_id` says: NULL or a C string that lasts until the setting is changed. Each entry of the audit log
/// has it, so it is not copied.
pub fn current_user_id() -> *const c_char {
    shown(&CURRENT_USER_ID)
}

/// What `app.client_ip` says, likewise.
pub fn client_ip() -> *const c_char {
    shown(&CLIENT_IP)
}

/// What `app.user_agent` says, likewise.
pub fn user_agent() -> *const c_char {
    shown(&USER_AGENT)
}

fn shown(setting: &GucSetting<Option<CString>>) -> *const c_char {
    // SAFETY: the variable that guc.c keeps the value in.
    unsafe { *setting.as_ptr() }
}
