//! The settings: `app.current_tenant_id` with its hooks, and the `tenancy.*` switches.
//!
//! The check hook parses a value once and keeps the result as the setting's `extra`; the assign hook points the backend
//! at it. PostgreSQL's own stack of settings then makes the context follow ROLLBACK, savepoints and functions.
//! Read with guc.c (`call_string_check_hook`, `reapply_stacked_values`, `AtEOXact_GUC`) of the server's version at hand.

use super::bindings;
use super::cache;
use super::compat;
use super::invalid;
use super::planner;
use super::report;
use super::role;
use super::tag;
use crate::error::TenancyError;
use crate::model::Key;
use crate::model::context::{self, Assigned, FOREVER, Lifetime, Mode, Origin, Permission, Source, Stamp};
use pgrx::prelude::*;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, pg_sys};
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_void};

pub(super) const CONTEXT: &CStr = c"app.current_tenant_id";

/// Parts the text of a value from its mark, and that from the dimensions of a token, in the string guc.c keeps.
///
/// A parallel worker gets that string and nothing else, and must not take a stale or unsigned value for a good one.
/// The show hook hides it; neither a tenant's key nor JSON can hold a control character.
const SEPARATOR: char = '\x1f';

/// A variable of this backend. PostgreSQL runs a backend's code in one thread.
pub(super) struct Backend<T>(Cell<T>);

// SAFETY: a backend has one thread that runs PostgreSQL code, and only such code reaches these cells.
unsafe impl<T> Sync for Backend<T> {}

impl<T> Backend<T> {
    pub(super) const fn new(value: T) -> Self {
        Self(Cell::new(value))
    }

    #[inline(always)]
    pub(super) fn as_ptr(&self) -> *mut T {
        self.0.as_ptr()
    }
}

impl<T: Copy> Backend<T> {
    #[inline(always)]
    pub(super) fn get(&self) -> T {
        self.0.get()
    }

    pub(super) fn set(&self, value: T) {
        self.0.set(value)
    }
}

/// The value in force, with the text that SHOW gives; allocated by the check hook, freed by guc.c.
/// The dimensions of a token, as JSON, go on behind the struct.
struct Extra {
    assigned: Assigned,
    shown: [u8; crate::model::tenant::MAX_CODE_BYTES + 1],
    dimensions: usize,
}

/// What a verified token says beside the tenant.
#[derive(Debug, Default)]
pub struct Voucher {
    /// When the context ends that outlives its transaction, in microseconds of `timestamptz`.
    pub until: i64,
    /// A JSON object, or empty.
    pub dimensions: String,
}

static CURRENT: Backend<*const Extra> = Backend::new(std::ptr::null());
/// The tenant this transaction belongs to since one was first set or used in it.
static SEAL: Backend<Option<(Stamp, Key)>> = Backend::new(None);
static PINNED: Backend<Option<Key>> = Backend::new(None);
/// A tenant was set at some time; makes "no tenant" easier to understand.
static EVER_SET: Backend<bool> = Backend::new(false);
static PERMISSION: Backend<Permission> = Backend::new(Permission::None);
/// Why this connection can have no tenant at all: a pinned one may be hidden by what it says.
static TAINT: Backend<Option<Taint>> = Backend::new(None);

#[derive(Clone, Copy)]
enum Taint {
    /// Connection options tried to set the tenant before the library was loaded.
    Client,
    /// Connection options gave one of our settings before the library was loaded.
    Options,
    /// What is stored for the role or database names nobody.
    Stored,
}

/// Values that were set before the library was loaded are being handed over.
static ADOPTING: Backend<bool> = Backend::new(false);

thread_local! {
    /// What comes with `Permission::Token`.
    static VOUCHER: RefCell<Option<Voucher>> = const { RefCell::new(None) };
}

/// Changes whenever an answer derived from the context or the registry may have changed.
pub(super) static TICKET: Backend<u64> = Backend::new(1);

/// What was answered before counts no more. Raises nothing: the assign hook and callbacks of invalidations call it.
pub(super) fn renew_ticket() {
    TICKET.set(TICKET.get() + 1);
    planner::forget_tenant();
}

/// `tenancy.missing_context`.
#[derive(Clone, Copy, PartialEq, Eq, PostgresGucEnum)]
pub enum MissingContext {
    #[name = c"error"]
    Error,
    #[name = c"empty"]
    Empty,
}

/// `tenancy.context_mode`, as guc.c knows it.
#[derive(Clone, Copy, PostgresGucEnum)]
enum ModeSetting {
    #[name = c"open"]
    Open,
    #[name = c"signed"]
    Signed,
}

/// `tenancy.context_lifetime`, as guc.c knows it.
#[derive(Clone, Copy, PostgresGucEnum)]
enum LifetimeSetting {
    #[name = c"transaction"]
    Transaction,
    #[name = c"session"]
    Session,
}

static CONTEXT_VALUE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static CONTEXT_MODE: GucSetting<ModeSetting> = GucSetting::<ModeSetting>::new(ModeSetting::Open);
static CONTEXT_LIFETIME: GucSetting<LifetimeSetting> = GucSetting::<LifetimeSetting>::new(LifetimeSetting::Transaction);
static MISSING_CONTEXT: GucSetting<MissingContext> = GucSetting::<MissingContext>::new(MissingContext::Error);

/// Notes whether connection options give one of our settings; called once, from `_PG_init`, before any is defined.
///
/// guc.c drops an option that its sender may not give, with a warning; but it has dropped what is stored for the role, the
/// database and the server before that, for options come first. So nobody knows any more what these have asked for.
pub fn note_options() {
    let sent = compat::settings().any(|record| {
        let from_client = [record.source, record.reset_source].contains(&pg_sys::GucSource::PGC_S_CLIENT);
        is_ours(record) && from_client && record.reset_scontext != pg_sys::GucContext::PGC_SU_BACKEND
    });
    if sent {
        TAINT.set(Some(Taint::Options));
    }
}

const PREFIX: &[u8] = b"tenancy.";

/// Whether a setting has the prefix of ours; guc.c knows no case of letters.
pub(super) fn is_ours(record: &pg_sys::config_generic) -> bool {
    // SAFETY: each record has a name.
    has_our_prefix(unsafe { CStr::from_ptr(record.name) }.to_bytes())
}

pub(super) fn has_our_prefix(name: &[u8]) -> bool {
    name.get(..PREFIX.len()).is_some_and(|prefix| prefix.eq_ignore_ascii_case(PREFIX))
}

/// Defines the settings; called once, from `_PG_init`.
pub fn define() {
    GucRegistry::define_enum_guc(
        c"tenancy.context_lifetime",
        c"How long a tenant stays set: for its transaction, or for the session.",
        c"",
        &CONTEXT_LIFETIME,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"tenancy.missing_context",
        c"What a protected table answers when no tenant is set: an error, or no rows.",
        c"",
        &MISSING_CONTEXT,
        GucContext::Suset,
        GucFlags::default(),
    );
    // SAFETY: the hook is guarded and has the signature guc.c expects.
    unsafe {
        GucRegistry::define_enum_guc_with_hooks(
            c"tenancy.context_mode",
            c"Whose word for a tenant is taken: anybody's, or a signed token's.",
            c"",
            &CONTEXT_MODE,
            GucContext::Suset,
            GucFlags::default(),
            None,
            Some(assign_mode),
            None,
        );
    }
    ADOPTING.set(true);
    // NO_SHOW_ALL keeps the setting out of pg_settings, whose UPDATE would otherwise set it.
    let flags = GucFlags::NO_SHOW_ALL | GucFlags::DISALLOW_IN_FILE | GucFlags::DISALLOW_IN_AUTO_FILE;
    // SAFETY: the hooks are guarded and have the signatures guc.c expects.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            CONTEXT,
            c"The tenant of this transaction: its id, number or code.",
            c"",
            &CONTEXT_VALUE,
            GucContext::Userset,
            flags,
            Some(check),
            Some(assign),
            Some(show),
        );
    }
    ADOPTING.set(false);
    adopt();
    compat::reserve_setting_prefix(c"tenancy");
}

/// What `tenancy.missing_context` says.
pub fn missing_context() -> MissingContext {
    MISSING_CONTEXT.get()
}

/// What `tenancy.context_mode` says.
fn context_mode() -> Mode {
    match CONTEXT_MODE.get() {
        ModeSetting::Open => Mode::Open,
        ModeSetting::Signed => Mode::Signed,
    }
}

/// What `tenancy.context_lifetime` says.
pub fn context_lifetime() -> Lifetime {
    match CONTEXT_LIFETIME.get() {
        LifetimeSetting::Transaction => Lifetime::Transaction,
        LifetimeSetting::Session => Lifetime::Session,
    }
}

/// The tenant in force.
///
/// Refuses a missing one, one from an earlier transaction, one that nobody signed where that is asked for, and one that a
/// rollback put back after the transaction had come to belong to another. The first use seals the transaction.
pub fn current() -> Result<Assigned, TenancyError> {
    match TAINT.get() {
        Some(Taint::Client) => return Err(TenancyError::ForbiddenSource { source: context::FROM_CLIENT }),
        Some(Taint::Options) => return Err(TenancyError::ForbiddenOptions),
        Some(Taint::Stored) => return Err(TenancyError::UnreadablePin),
        None => {}
    }
    invalid::refuse_any()?;
    let assigned = match bindings::of_session_user()? {
        Some(bound) => bound_to(bound)?,
        None => set_in_session()?,
    };
    let now = own_stamp();
    match SEAL.get() {
        Some((stamp, sealed)) if stamp == now => {
            if !same_tenant(&sealed, &assigned.key) {
                return Err(match assigned.origin {
                    // The role was bound while its transaction was under way.
                    Origin::Bound => {
                        TenancyError::BoundRole { bound: assigned.key.to_string(), second: sealed.to_string() }
                    }
                    _ => TenancyError::RestoredTenant { now: assigned.key.to_string(), sealed: sealed.to_string() },
                });
            }
        }
        _ => {
            SEAL.set(Some((now, assigned.key)));
            tag::begin(&assigned.key);
        }
    }
    Ok(assigned)
}

/// The context of a role that is bound to a tenant: what was set may say the same, and no more.
fn bound_to(tenant: Key) -> Result<Assigned, TenancyError> {
    let set = in_force().map(|extra| extra.assigned).filter(|set| set.is_live(context_stamp(), context_lifetime()));
    match set {
        Some(set) if set.origin != Origin::Pinned && !same_tenant(&tenant, &set.key) => {
            Err(TenancyError::BoundRole { bound: tenant.to_string(), second: set.key.to_string() })
        }
        Some(set) if set.origin == Origin::Signed => Ok(set),
        _ => Ok(Assigned {
            key: tenant,
            origin: Origin::Bound,
            stamp: context_stamp(),
            set_at: 0,
            vouched: true,
            until: FOREVER,
        }),
    }
}

/// The context that a statement of this session, or a pin, has set.
fn set_in_session() -> Result<Assigned, TenancyError> {
    let Some(extra) = in_force() else {
        let cleared = SEAL.get().is_some_and(|(stamp, _)| stamp == own_stamp());
        return Err(TenancyError::NoTenant { ended: EVER_SET.get() && !cleared });
    };
    let assigned = extra.assigned;
    if !assigned.is_live(context_stamp(), context_lifetime()) {
        return Err(TenancyError::StaleTenant { tenant: assigned.key.to_string() });
    }
    if context_mode() == Mode::Signed && !assigned.vouched {
        // Set before the library was loaded, or before the mode was changed.
        return Err(TenancyError::UnsignedTenant { tenant: assigned.key.to_string() });
    }
    // SAFETY: reads a variable of the backend; a worker has its leader's.
    if assigned.until < unsafe { pg_sys::GetCurrentTransactionStartTimestamp() } {
        return Err(TenancyError::ExpiredContext { tenant: assigned.key.to_string() });
    }
    if let Some(pinned) = PINNED.get()
        && assigned.origin == Origin::Transaction
        && !is_parallel_worker() // whose leader has decided
        && !same_tenant(&pinned, &assigned.key)
    {
        // Set before the library was loaded; see `adopt`.
        return Err(TenancyError::PinnedTenant { pinned: pinned.to_string(), second: assigned.key.to_string() });
    }
    Ok(assigned)
}

fn in_force() -> Option<&'static Extra> {
    // SAFETY: the assign hook keeps CURRENT at the extra of the value in force, which guc.c does not free before it calls
    // the hook again; no caller holds on to it.
    unsafe { CURRENT.get().as_ref() }
}

/// What the token of this transaction says beside the tenant, as a JSON object; empty when there is none.
pub fn dimensions() -> String {
    let extra = CURRENT.get();
    if !matches!(current(), Ok(Assigned { origin: Origin::Signed, .. })) || extra.is_null() {
        return String::new();
    }
    // SAFETY: the extra is in force, hence not freed; the check hook put that many bytes behind the struct.
    let bytes = unsafe { std::slice::from_raw_parts(extra.add(1).cast::<u8>(), (*extra).dimensions) };
    String::from_utf8_lossy(bytes).into_owned()
}

/// Sets the tenant, for the transaction or, where `tenancy.context_lifetime` says so, for the session.
/// Empty text clears it. Raises what SET would raise.
pub fn set(text: &str) {
    let Ok(value) = CString::new(text) else {
        report::raise(TenancyError::MalformedTenant { text: text.replace('\0', "\\0") });
    };
    let action = match context_lifetime() {
        Lifetime::Transaction => pg_sys::GucAction::GUC_ACTION_LOCAL,
        Lifetime::Session => pg_sys::GucAction::GUC_ACTION_SET,
    };
    // SAFETY: both strings are C strings; guc.c copies the value. elevel 0 means ERROR for this source.
    unsafe {
        pg_sys::set_config_option(
            CONTEXT.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            action,
            true,
            0,
            false,
        );
    }
}

/// Like `set`, also when the transaction belongs to another tenant already.
pub fn switch(text: &str) {
    let _permitted = Permitted::new(Permission::Switch);
    set(text);
}

/// Whether `next` in the place of the tenant of this transaction is another one, or none.
pub fn would_leave_tenant(next: Option<&Key>) -> bool {
    if bindings::remembered().is_some() {
        return false;
    }
    let set = in_force().map(|extra| extra.assigned).filter(|set| set.is_live(context_stamp(), context_lifetime()));
    match (set, next) {
        (Some(set), Some(next)) => !same_tenant(&set.key, next),
        (Some(_), None) => true,
        // One that was cleared by SET is left for good only now.
        (None, Some(_)) => SEAL.get().is_some_and(|(stamp, _)| stamp == own_stamp()),
        (None, None) => false,
    }
}

/// Leaves the transaction as one that never had a tenant; for rehearsals that were rolled back.
pub fn leave() {
    set("");
    SEAL.set(None);
    renew_ticket();
}

/// Sets the tenant as if an earlier transaction had done it.
pub fn set_stale(text: &str) {
    SEAL.set(None);
    let _permitted = Permitted::new(Permission::Rehearsal);
    set(text);
}

/// Like `set`, on the word of a token that has been verified.
pub fn set_signed(text: &str, voucher: Voucher) {
    VOUCHER.set(Some(voucher));
    let _permitted = Permitted::new(Permission::Token);
    set(text);
}

/// Ends a permission on return and on error alike.
struct Permitted;

impl Permitted {
    fn new(permission: Permission) -> Self {
        PERMISSION.set(permission);
        Self
    }
}

impl Drop for Permitted {
    fn drop(&mut self) {
        PERMISSION.set(Permission::None);
        VOUCHER.set(None);
    }
}

/// The tenant as the session has it, whether or not it would be accepted; for the log, and for what asks whether the
/// transaction works for a tenant at all. Reads no catalog.
pub fn apparent_tenant() -> Option<Key> {
    let now = own_stamp();
    let sealed = SEAL.get().filter(|(stamp, _)| *stamp == now && now != 0).map(|(_, key)| key);
    let assigned = in_force().map(|extra| extra.assigned);
    let live = assigned.filter(|assigned| assigned.is_live(context_stamp(), context_lifetime()));
    sealed.or_else(bindings::remembered).or(live.map(|live| live.key))
}

/// This transaction, as the context stamps it.
fn own_stamp() -> Stamp {
    // SAFETY: MyProc is set in every process that can have settings with a transaction, and NULL in the postmaster.
    unsafe { if pg_sys::MyProc.is_null() { 0 } else { compat::local_transaction_id(pg_sys::MyProc) } }
}

/// The transaction that a value must have been set in: in a parallel worker that is the leader's.
fn context_stamp() -> Stamp {
    // SAFETY: a parallel worker joins its leader's lock group before settings are restored, and the leader's PGPROC and
    // transaction outlive the worker.
    unsafe {
        if is_parallel_worker() && !(*pg_sys::MyProc).lockGroupLeader.is_null() {
            compat::local_transaction_id((*pg_sys::MyProc).lockGroupLeader)
        } else {
            own_stamp()
        }
    }
}

pub(super) fn is_parallel_worker() -> bool {
    // SAFETY: plain variables of the backend.
    unsafe { pg_sys::InitializingParallelWorker || pg_sys::ParallelWorkerNumber >= 0 }
}

pub(super) fn same_tenant(a: &Key, b: &Key) -> bool {
    a == b || matches!((cache::find(a), cache::find(b)), (Ok(Some(a)), Ok(Some(b))) if a.id == b.id)
}

fn source_of(source: pg_sys::GucSource::Type) -> Source {
    use pg_sys::GucSource::*;
    match source {
        PGC_S_DEFAULT => Source::Default,
        PGC_S_GLOBAL | PGC_S_DATABASE | PGC_S_USER | PGC_S_DATABASE_USER => Source::Stored,
        PGC_S_CLIENT => Source::Client,
        PGC_S_TEST => Source::Test,
        PGC_S_SESSION => Source::Session,
        _ => Source::Server,
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn check(
    newval: *mut *mut c_char,
    extra: *mut *mut c_void,
    source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: guc.c hands over a C string it owns, or NULL.
    let bytes = unsafe { if (*newval).is_null() { return true } else { CStr::from_ptr(*newval).to_bytes() } };
    let source = source_of(source);
    if ADOPTING.get() && source == Source::Client {
        TAINT.set(Some(Taint::Client));
    }
    match checked(bytes, source) {
        Ok(None) => {
            if source == Source::Session {
                tag::end();
            }
            true
        }
        Ok(Some(accepted)) => {
            if source == Source::Session && !ADOPTING.get() {
                tag::begin(&accepted.assigned.key);
            }
            if let Some(marked) = &accepted.marked {
                // SAFETY: guc.c allocated the old value with the allocator that guc_free belongs to.
                unsafe {
                    compat::guc_free((*newval).cast());
                    *newval = guc_text(marked);
                }
            }
            // SAFETY: guc.c frees what it is given here.
            unsafe { *extra = accepted.into_extra().cast() };
            true
        }
        Err(refusal) => {
            if source == Source::Stored {
                TAINT.set(Some(Taint::Stored)); // PostgreSQL warns, drops the value and lets the connection in
            }
            report::refuse_setting(&refusal);
            false
        }
    }
}

/// A value that was admitted.
struct Accepted {
    assigned: Assigned,
    shown: String,
    dimensions: String,
    /// The string to store in the place of what came, where it is to carry a mark.
    marked: Option<CString>,
}

impl Accepted {
    /// An `Extra` that guc.c may free.
    fn into_extra(self) -> *mut Extra {
        let mut shown = [0; _];
        shown[..self.shown.len()].copy_from_slice(self.shown.as_bytes());
        let extra = Extra { assigned: self.assigned, shown, dimensions: self.dimensions.len() };
        let memory = compat::guc_alloc(size_of::<Extra>() + self.dimensions.len()).cast::<Extra>();
        // SAFETY: the memory has room for both and malloc aligns for any type; Extra owns nothing, so free() is all it needs.
        unsafe {
            memory.write(extra);
            let behind = memory.add(1).cast::<u8>();
            std::ptr::copy_nonoverlapping(self.dimensions.as_ptr(), behind, self.dimensions.len());
        }
        memory
    }
}

/// Parses and admits a value; nothing is kept of an empty one.
fn checked(bytes: &[u8], source: Source) -> Result<Option<Accepted>, TenancyError> {
    if bytes.is_empty() {
        context::admit_empty(source, source == Source::Test && is_superuser())?;
        return Ok(None);
    }
    let malformed = || TenancyError::MalformedTenant { text: String::from_utf8_lossy(bytes).into_owned() };
    let text = std::str::from_utf8(bytes).map_err(|_| malformed())?;
    if is_parallel_worker() {
        return Ok(Some(from_leader(text, source).ok_or_else(malformed)?));
    }

    let key: Key = text.parse()?;
    let accept =
        |assigned, marked| Ok(Some(Accepted { assigned, shown: text.to_owned(), dimensions: String::new(), marked }));
    if ADOPTING.get() && source == Source::Session {
        // Naming the pinned tenant leaves the connection pinned; any other is refused when it is used.
        let is_pinned = PINNED.get().is_some_and(|pinned| same_tenant(&pinned, &key));
        let origin = if is_pinned { Origin::Pinned } else { Origin::Transaction };
        return accept(assigned(key, origin, 0, is_pinned), None);
    }
    let now = own_stamp();
    let sealed = SEAL.get().filter(|(stamp, _)| *stamp == now && now != 0).map(|(_, key)| key);
    let (pinned, mode) = (PINNED.get(), context_mode());
    let bound = if source == Source::Session { bindings::of_session_user()? } else { None };
    let permission = PERMISSION.get();
    // Neither open mode nor a token has to pay for the question.
    let asks = mode == Mode::Signed && source == Source::Session && permission == Permission::None;
    let privileged = asks && is_privileged();
    let session = context::Session {
        sealed: sealed.as_ref(),
        pinned: pinned.as_ref(),
        bound: bound.as_ref(),
        permission,
        mode,
        privileged,
        superuser: source == Source::Test && is_superuser(),
    };
    let origin = context::admit(&key, source, &session, same_tenant)?;
    let stamp = if permission == Permission::Rehearsal { 0 } else { now };
    let mut assigned = assigned(key, origin, stamp, privileged || origin != Origin::Transaction);
    if source != Source::Session {
        return accept(assigned, None);
    }
    let voucher = VOUCHER.with_borrow_mut(Option::take).unwrap_or(Voucher { until: FOREVER, ..Voucher::default() });
    assigned.until = voucher.until;
    let marked = Some(with_mark(text, assigned, &voucher.dimensions));
    Ok(Some(Accepted { assigned, shown: text.to_owned(), dimensions: voucher.dimensions, marked }))
}

/// What the leader of a parallel worker has accepted. What is stored for the role or database carries no mark.
fn from_leader(text: &str, source: Source) -> Option<Accepted> {
    let mut parts = text.splitn(3, SEPARATOR);
    let shown = parts.next()?;
    let key = shown.parse().ok()?;
    let assigned = match parts.next() {
        Some(mark) => Assigned::from_mark(key, statement_start(), mark)?,
        None if source == Source::Stored => assigned(key, Origin::Pinned, 0, true),
        None => assigned(key, Origin::Transaction, 0, false),
    };
    let dimensions = parts.next().unwrap_or_default().to_owned();
    Some(Accepted { assigned, shown: shown.to_owned(), dimensions, marked: None })
}

fn with_mark(text: &str, assigned: Assigned, dimensions: &str) -> CString {
    let mark = assigned.to_mark();
    let marked = match dimensions {
        "" => format!("{text}{SEPARATOR}{mark}"),
        _ => format!("{text}{SEPARATOR}{mark}{SEPARATOR}{dimensions}"),
    };
    CString::new(marked).expect("neither a tenant key nor JSON holds a NUL")
}

/// A copy that guc.c may free.
fn guc_text(text: &CStr) -> *mut c_char {
    let bytes = text.to_bytes_with_nul();
    let memory = compat::guc_alloc(bytes.len()).cast::<c_char>();
    // SAFETY: the memory has room for the text with its end.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), memory, bytes.len()) };
    memory
}

fn assigned(key: Key, origin: Origin, stamp: Stamp, vouched: bool) -> Assigned {
    Assigned { key, origin, stamp, set_at: statement_start(), vouched, until: FOREVER }
}

fn statement_start() -> i64 {
    // SAFETY: reads a variable of the backend.
    unsafe { pg_sys::GetCurrentStatementStartTimestamp() }
}

/// Whether the current role's word for a tenant is taken in signed mode.
fn is_privileged() -> bool {
    // SAFETY: reads a variable of the backend.
    unsafe { pg_sys::IsTransactionState() && role::is_privileged(pg_sys::GetUserId()) }
}

fn is_superuser() -> bool {
    // SAFETY: superuser() reads the catalog, which a transaction permits.
    unsafe { pg_sys::IsTransactionState() && pg_sys::superuser() }
}

#[pg_guard]
unsafe extern "C-unwind" fn assign(_newval: *const c_char, extra: *mut c_void) {
    CURRENT.set(extra.cast());
    renew_ticket();
    // SAFETY: guc.c hands over what the check hook made, or NULL.
    let Some(Extra { assigned, .. }) = (unsafe { extra.cast::<Extra>().as_ref() }) else { return };
    EVER_SET.set(true);
    if assigned.origin == Origin::Pinned {
        // A pin is no choice of this transaction's: the first use seals it, or a binding takes precedence.
        return PINNED.set(Some(assigned.key));
    }
    let now = own_stamp();
    let sealed = SEAL.get().is_some_and(|(stamp, _)| stamp == now);
    if now != 0 && assigned.stamp == now && (!sealed || PERMISSION.get() == Permission::Switch) {
        SEAL.set(Some((now, assigned.key)));
    }
}

/// What was answered in the other mode is forgotten.
#[pg_guard]
unsafe extern "C-unwind" fn assign_mode(_newval: std::ffi::c_int, _extra: *mut c_void) {
    renew_ticket();
}

#[pg_guard]
unsafe extern "C-unwind" fn show() -> *const c_char {
    match in_force() {
        Some(extra) if extra.assigned.is_live(context_stamp(), context_lifetime()) => extra.shown.as_ptr().cast(),
        _ => c"".as_ptr(),
    }
}

/// Takes over a value that was set before the library was loaded.
///
/// guc.c replays it through the hooks without saying whether an earlier transaction set it, or who. A value of this
/// transaction has an entry on the setting's stack; any other stays without a stamp and counts as stale. A superuser's
/// value has a privileged context.
fn adopt() {
    let record = compat::find_setting(CONTEXT);
    let extra = CURRENT.get().cast_mut();
    // SAFETY: the record was defined just now and stays; extra belongs to the value in force. The value's string is
    // replaced by a marked one, for parallel workers; the old one may still be the reset value, so it is left alone.
    unsafe {
        if record.is_null() || extra.is_null() || (*extra).assigned.origin != Origin::Transaction {
            return;
        }
        let assigned = &mut (*extra).assigned;
        assigned.vouched = (*record).scontext == pg_sys::GucContext::PGC_SUSET;
        if !(*record).stack.is_null() {
            assigned.stamp = own_stamp();
            SEAL.set(Some((assigned.stamp, assigned.key)));
        }
        let shown = CStr::from_ptr((*extra).shown.as_ptr().cast()).to_string_lossy();
        *CONTEXT_VALUE.as_ptr() = guc_text(&with_mark(&shown, *assigned, ""));
    }
}
