//! Counts violations, for the server where the library has shared memory, else for the session, and logs each.

use super::guc::{self, Backend};
use crate::error::TenancyError;
use crate::model::Violation;
use pgrx::{PGRXSharedMemory, PgAtomic, pg_shmem_init, pg_sys};
use pgrx::{direct_function_call, prelude::*};
use std::ffi::CStr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

const MINUTES: usize = 60;
const MICROSECONDS_A_MINUTE: i64 = 60_000_000;

/// How often something happened: ever, and in each minute of the last hour.
struct Counter {
    count: AtomicU64,
    /// `timestamptz`, zero for never.
    last_at: AtomicI64,
    minutes: [Minute; MINUTES],
}

/// One slot of the hour. Two backends that turn to a new minute at the same instant may lose a count of the rate.
struct Minute {
    minute: AtomicI64,
    count: AtomicU64,
}

impl Default for Counter {
    fn default() -> Self {
        let minutes = std::array::from_fn(|_| Minute { minute: AtomicI64::new(i64::MIN), count: AtomicU64::new(0) });
        Self { count: AtomicU64::new(0), last_at: AtomicI64::new(0), minutes }
    }
}

impl Counter {
    fn add(&self, now: i64) {
        self.count.fetch_add(1, Relaxed);
        self.last_at.store(now, Relaxed);
        let minute = now.div_euclid(MICROSECONDS_A_MINUTE);
        let slot = &self.minutes[minute.rem_euclid(MINUTES as i64) as usize];
        if slot.minute.swap(minute, Relaxed) != minute {
            slot.count.store(0, Relaxed);
        }
        slot.count.fetch_add(1, Relaxed);
    }

    /// The count of the `minutes` that end now.
    fn recent(&self, now: i64, minutes: i64) -> u64 {
        let this = now.div_euclid(MICROSECONDS_A_MINUTE);
        let slots = self.minutes.iter().filter(|slot| (this - minutes + 1..=this).contains(&slot.minute.load(Relaxed)));
        slots.map(|slot| slot.count.load(Relaxed)).sum()
    }
}

#[derive(Default)]
struct Counters([Counter; Violation::ALL.len()]);

// SAFETY: atomics of fixed size and no pointers.
unsafe impl PGRXSharedMemory for Counters {}

// SAFETY: no other shared memory has this name.
static SHARED: PgAtomic<Counters> = unsafe { PgAtomic::new(c"pg_tenancy violations") };
static IS_SHARED: Backend<bool> = Backend::new(false);
static LOGGING: Backend<bool> = Backend::new(false);

thread_local! {
    static OWN: Counters = Counters::default();
}

/// Asks for the shared memory; called from `_PG_init` under shared_preload_libraries.
pub fn share() {
    pg_shmem_init!(SHARED);
    IS_SHARED.set(true);
}

fn with_counters<T>(look: impl FnOnce(&Counters) -> T) -> T {
    if IS_SHARED.get() { look(SHARED.get()) } else { OWN.with(look) }
}

/// What happened of one kind.
pub struct Tally {
    pub kind: Violation,
    pub count: i64,
    pub last_minute: i64,
    pub last_hour: i64,
    pub last_at: Option<pgrx::datum::TimestampWithTimeZone>,
}

/// The tallies of all kinds.
pub fn tallies() -> Vec<Tally> {
    let now = now();
    with_counters(|counters| {
        Violation::ALL
            .into_iter()
            .map(|kind| {
                let counter = &counters.0[kind.index()];
                let last_at = Some(counter.last_at.load(Relaxed)).filter(|at| *at != 0);
                Tally {
                    kind,
                    count: counter.count.load(Relaxed) as i64,
                    last_minute: counter.recent(now, 1) as i64,
                    last_hour: counter.recent(now, MINUTES as i64) as i64,
                    last_at: last_at.and_then(|at| pgrx::datum::TimestampWithTimeZone::try_from(at).ok()),
                }
            })
            .collect()
    })
}

/// Whether the tallies are the server's rather than the session's.
pub fn are_shared() -> bool {
    IS_SHARED.get()
}

/// Counts and logs a refusal that is a violation.
pub fn note(refusal: &TenancyError) {
    if let Some(kind) = refusal.violation() {
        note_as(kind, &refusal.to_string());
    }
}

/// Counts a violation and writes one line to the server's log: the kind, the tenant, the role, the client and what was
/// refused, which never holds the value of a row.
pub fn note_as(kind: Violation, what: &str) {
    with_counters(|counters| counters.0[kind.index()].add(now()));
    let tenant = guc::apparent_tenant().map_or("none".to_owned(), |key| format!("\"{key}\""));
    let (role, client) = (role_name(), client());
    log(format!("tenancy violation {}: tenant {tenant}, role {role}, client {client}: {what}", kind.name()));
}

/// Writes a line to the server's log, without the statement at hand.
fn log(line: String) {
    LOGGING.set(true);
    ereport!(PgLogLevel::LOG_SERVER_ONLY, PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, line);
    LOGGING.set(false);
}

/// Writes down that the transaction belongs to a tenant (`tenancy.log_context`): its code, the role and the client.
pub fn log_context(code: &str) {
    let (role, client) = (role_name(), client());
    log(format!("tenancy context: tenant \"{code}\", role {role}, client {client}"));
}

fn now() -> i64 {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

/// The current role; by number where no transaction permits to look its name up.
fn role_name() -> String {
    // SAFETY: reads a variable of the backend.
    if unsafe { pg_sys::IsTransactionState() } {
        format!("\"{}\"", super::role::current_role())
    } else {
        // SAFETY: reads a variable of the backend, which startup sets before it applies settings.
        unsafe { pg_sys::GetAuthenticatedUserId() }.to_string()
    }
}

/// The client's address; "local" for a socket in the file system and for a process without a client.
fn client() -> String {
    // SAFETY: the function reads the connection's addresses and takes no argument.
    let address = unsafe { direct_function_call::<pgrx::Inet>(pg_sys::inet_client_addr, &[]) };
    address.map_or_else(|| "local".to_owned(), |address| address.0)
}

static NEXT_EMIT_LOG: Backend<pg_sys::emit_log_hook_type> = Backend::new(None);

/// Watches for PostgreSQL's own refusal of a foreign row, which has no hook of its own.
pub fn watch_foreign_writes() {
    // SAFETY: the hook variables are set while the library is loaded, by one thread.
    unsafe {
        NEXT_EMIT_LOG.set(pg_sys::emit_log_hook);
        pg_sys::emit_log_hook = Some(emit_log);
    }
}

/// What rewriteHandler.c's with-check options raise; `message_id` is the text before translation.
const FOREIGN_WRITE: &[u8] = b"new row violates row-level security policy";

#[pg_guard]
unsafe extern "C-unwind" fn emit_log(error: *mut pg_sys::ErrorData) {
    // SAFETY: elog.c passes the error at hand; message_id is NULL or a C string.
    unsafe {
        if LOGGING.get() {
            // The statement holds values, and stands beside the error itself where the server logs those.
            (*error).hide_stmt = true;
            (*error).hide_ctx = true;
        }
        let is_foreign_write = !LOGGING.get()
            && (*error).sqlerrcode == PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE as i32
            && !(*error).message_id.is_null()
            && CStr::from_ptr((*error).message_id).to_bytes().starts_with(FOREIGN_WRITE);
        if is_foreign_write {
            note_as(Violation::ForeignWrite, &CStr::from_ptr((*error).message).to_string_lossy());
        }
        if let Some(next) = NEXT_EMIT_LOG.get() {
            next(error);
        }
    }
}
