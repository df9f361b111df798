//! What tokens need of the server: their settings, the clock, random bytes and the name of the role that logged in.

use super::guc::Backend;
use crate::error::TenancyError;
use pgrx::prelude::*;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, pg_sys};
use std::ffi::{CStr, CString};

/// `tenancy.token_nonce`.
#[derive(Clone, Copy, PartialEq, Eq, PostgresGucEnum)]
enum NonceSetting {
    #[name = c"optional"]
    Optional,
    #[name = c"required"]
    Required,
}

static AUDIENCE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static LEEWAY: GucSetting<i32> = GucSetting::<i32>::new(30);
static MAX_TTL: GucSetting<i32> = GucSetting::<i32>::new(3600);
static REPLAY_GUARD: GucSetting<bool> = GucSetting::<bool>::new(false);
static NONCE: GucSetting<NonceSetting> = GucSetting::<NonceSetting>::new(NonceSetting::Optional);

/// Defines the settings; called once, from `_PG_init`, before `guc::define` reserves the prefix.
pub fn define() {
    let flags = GucFlags::default();
    GucRegistry::define_string_guc(
        c"tenancy.token_audience",
        c"The audience that tokens must name; empty for tokens without one.",
        c"",
        &AUDIENCE,
        GucContext::Suset,
        flags,
    );
    GucRegistry::define_int_guc(
        c"tenancy.token_leeway",
        c"How far the clocks of signer and server may be apart.",
        c"",
        &LEEWAY,
        0,
        3600,
        GucContext::Suset,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"tenancy.token_max_ttl",
        c"The longest time for which a token may be valid; 0 for any.",
        c"",
        &MAX_TTL,
        0,
        i32::MAX,
        GucContext::Suset,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_bool_guc(
        c"tenancy.token_replay_guard",
        c"Takes a token only once in a session; it must then have a jti.",
        c"",
        &REPLAY_GUARD,
        GucContext::Suset,
        flags,
    );
    GucRegistry::define_enum_guc(
        c"tenancy.token_nonce",
        c"Whether a token must carry tenancy.session_nonce(), which is another one on each connection.",
        c"",
        &NONCE,
        GucContext::Suset,
        flags,
    );
}

/// The settings about tokens.
#[derive(Debug)]
pub struct TokenSettings {
    pub audience: String,
    pub leeway: i32,
    pub max_ttl: i32,
    pub replay_guard: bool,
    pub nonce_required: bool,
}

/// The settings as they are now.
pub fn settings() -> TokenSettings {
    TokenSettings {
        audience: AUDIENCE.get().map(|audience| audience.to_string_lossy().into_owned()).unwrap_or_default(),
        leeway: LEEWAY.get(),
        max_ttl: MAX_TTL.get(),
        replay_guard: REPLAY_GUARD.get(),
        nonce_required: NONCE.get() == NonceSetting::Required,
    }
}

/// Seconds from 1970-01-01 to PostgreSQL's 2000-01-01.
const EPOCH: f64 = 946_684_800.0;

/// Now, in seconds since 1970.
pub fn now() -> f64 {
    // SAFETY: reads the clock.
    let now = unsafe { pg_sys::GetCurrentTimestamp() };
    now as f64 / 1e6 + EPOCH
}

/// A time in seconds since 1970 as a `timestamptz`, in microseconds.
pub fn timestamp(seconds: f64) -> i64 {
    ((seconds - EPOCH) * 1e6) as i64
}

/// Bytes that nobody can foretell.
pub fn random<const N: usize>() -> Result<[u8; N], TenancyError> {
    let mut bytes = [0; N];
    // SAFETY: the buffer has that many bytes.
    if unsafe { pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), N) } {
        Ok(bytes)
    } else {
        Err(TenancyError::Internal { what: "the server has no source of random numbers".to_owned() })
    }
}

static SESSION_NONCE: Backend<Option<[u8; 16]>> = Backend::new(None);

/// What this connection has and no other; made when it is first asked for.
pub fn session_nonce() -> Result<[u8; 16], TenancyError> {
    match SESSION_NONCE.get() {
        Some(nonce) => Ok(nonce),
        None => {
            let nonce = random()?;
            SESSION_NONCE.set(Some(nonce));
            Ok(nonce)
        }
    }
}

/// The name of the role that logged in.
pub fn session_role() -> String {
    // SAFETY: with noerr a role that was dropped meanwhile gives NULL; the name is copied at once.
    unsafe {
        let name = pg_sys::GetUserNameFromId(pg_sys::GetSessionUserId(), true);
        if name.is_null() { String::new() } else { CStr::from_ptr(name).to_string_lossy().into_owned() }
    }
}
