//! The context's statements, and the keys that a backend keeps.

use super::key::{Algorithm, Key};
use super::token::{self, Expected, Keyring, NewClaims, Seen};
use crate::error::TenancyError;
use crate::model::Sql;
use crate::pg::{Oid, cache, guc::Voucher, hush, role, session, signing, spi, watched};
use base64ct::{Base64UrlUnpadded, Encoding};
use pgrx::datum::{Interval, TimestampWithTimeZone};
use pgrx::{AnyElement, Uuid};
use serde_json::value::RawValue;
use std::cell::RefCell;
use std::rc::Rc;

/// The active keys, as of so many changes of their table.
type Known = (u64, Rc<Keyring>);

thread_local! {
    static KEYRING: RefCell<Option<Known>> = const { RefCell::new(None) };
    static SEEN: RefCell<Seen> = RefCell::default();
}

/// Sets the tenant that a token names, and gives its id.
pub fn set_tenant_signed(token: &str) -> Result<Uuid, TenancyError> {
    hush::cover_token(token);
    let keys = active_keys()?;
    let (kid, claims) = token::verify(token, &keys)?;
    let settings = signing::settings();
    let now = signing::now();
    let leeway = f64::from(settings.leeway);
    token::judge(
        &claims,
        &Expected {
            now,
            leeway,
            max_ttl: f64::from(settings.max_ttl),
            audience: &settings.audience,
            role: &signing::session_role(),
            nonce: &session_nonce()?,
            nonce_required: settings.nonce_required,
            jti_required: settings.replay_guard,
        },
    )?;
    let end = claims.exp + leeway;
    let mark = claims.jti().filter(|_| settings.replay_guard).map(|jti| token::mark(kid, jti));
    if let Some(mark) = &mark {
        SEEN.with_borrow_mut(|seen| seen.check(mark, now))?;
    }
    let voucher = Voucher { until: signing::timestamp(end), dimensions: claims.dimensions().to_owned() };
    let id = session::set_signed_tenant(&claims.tenant(), voucher)?;
    // Only one that was taken counts as used.
    if let Some(mark) = mark {
        SEEN.with_borrow_mut(|seen| seen.remember(mark, end));
    }
    Ok(id)
}

/// A dimension of the token that set the tenant of this transaction.
pub fn context_dimension(name: &str) -> Option<String> {
    token::dimension(&crate::pg::guc::dimensions(), name)
}

/// What a token must carry to be good for this connection only.
pub fn session_nonce() -> Result<String, TenancyError> {
    Ok(Base64UrlUnpadded::encode_string(&signing::session_nonce()?))
}

fn active_keys() -> Result<Rc<Keyring>, TenancyError> {
    let table = &watched::SIGNING_KEYS;
    let known = KEYRING.with_borrow(|known| known.clone());
    if let Some((changes, keys)) = known
        && changes == table.changes()
    {
        return Ok(keys);
    }
    loop {
        let changes = table.changes();
        let rows = table.rows(&[], |row| {
            let is_retired = row.get::<TimestampWithTimeZone>(c"retired_at").is_some();
            let kid = watched::must::<String>(row, c"kid")?;
            let algorithm = watched::must::<String>(row, c"algorithm")?;
            let (public, private) = (row.get::<Vec<u8>>(c"public_key"), row.get::<Vec<u8>>(c"secret_key"));
            Ok((!is_retired).then_some((kid, algorithm, public, private)))
        })?;
        let rows = rows.ok_or(TenancyError::NotInstalled)?;
        // A change that arrived while the rows were read makes them doubtful.
        if changes == table.changes() {
            let keys = rows.into_iter().flatten().map(|(kid, algorithm, public, private)| {
                let malformed = || TenancyError::Internal { what: format!("signing key \"{kid}\" is malformed") };
                let algorithm = Algorithm::from_name(&algorithm).ok_or_else(malformed)?;
                let key = Key::new(algorithm, public.as_deref(), private.as_deref()).map_err(|_| malformed())?;
                Ok::<_, TenancyError>((kid, key))
            });
            let keys = Rc::new(keys.collect::<Result<Keyring, _>>()?);
            KEYRING.set(Some((changes, keys.clone())));
            return Ok(keys);
        }
    }
}

/// Takes a new key into use.
pub fn add_signing_key(kid: &str, algorithm: &str, key: &str) -> Result<(), TenancyError> {
    hush::cover_key();
    if !(1..=100).contains(&kid.len()) || kid.chars().any(char::is_control) {
        return Err(TenancyError::MalformedKid);
    }
    let known = Algorithm::from_name(algorithm).ok_or_else(|| TenancyError::UnknownChoice {
        argument: "algorithm",
        given: algorithm.to_owned(),
        choices: &Algorithm::NAMES,
    })?;
    let key = Key::read(known, key)?;
    let (public, private) = key.bytes();
    let added = spi::write(
        &Sql::text(
            "INSERT INTO tenancy_internal.signing_keys (kid, algorithm, public_key, secret_key)
             VALUES ($1, $2, $3, $4) ON CONFLICT (kid) DO NOTHING RETURNING true",
        ),
        &[kid.into(), known.name().into(), public.into(), private.into()],
        |row| row.must::<bool>(1),
    )?;
    if added.is_empty() { Err(TenancyError::DuplicateSigningKey { kid: kid.to_owned() }) } else { Ok(()) }
}

/// Takes a key out of use and forgets its secret; its row stays, so that its name is not given to another key.
pub fn retire_signing_key(kid: &str) -> Result<(), TenancyError> {
    let retired = spi::write(
        &Sql::text(
            "UPDATE tenancy_internal.signing_keys SET secret_key = NULL, retired_at = pg_catalog.now()
              WHERE kid = $1 AND retired_at IS NULL RETURNING true",
        ),
        &[kid.into()],
        |row| row.must::<bool>(1),
    )?;
    if retired.is_empty() { Err(TenancyError::UnknownSigningKey { kid: kid.to_owned() }) } else { Ok(()) }
}

/// What a token to be signed says beside the tenant.
pub struct Wishes<'a> {
    pub ttl: Interval,
    pub kid: Option<&'a str>,
    pub role: Option<&'a str>,
    pub nonce: Option<&'a str>,
    pub dimensions: Option<AnyElement>,
}

/// A token for a tenant, signed with a key of this database.
pub fn sign_tenant_token(tenant: &str, wishes: Wishes<'_>) -> Result<String, TenancyError> {
    let found = cache::find(&tenant.parse()?)?;
    let tenant = found.ok_or_else(|| TenancyError::UnknownTenant { tenant: tenant.to_owned() })?;
    let settings = signing::settings();
    let keys = active_keys()?;
    let (kid, key) = key_to_sign(&keys, wishes.kid)?;
    let ttl = seconds(wishes.ttl)?;
    if ttl < 1 || settings.max_ttl > 0 && ttl > i64::from(settings.max_ttl) {
        return Err(TenancyError::TokenLifeTime { seconds: ttl, most: settings.max_ttl.into() });
    }
    let dimensions = wishes.dimensions.map(json_object).transpose()?;
    let now = signing::now().floor() as i64;
    let claims = NewClaims {
        tenant: &tenant.id.to_string(),
        iat: now,
        exp: now + ttl,
        jti: &Base64UrlUnpadded::encode_string(&signing::random::<16>()?),
        aud: Some(settings.audience.as_str()).filter(|audience| !audience.is_empty()),
        role: wishes.role,
        nonce: wishes.nonce,
        dimensions: dimensions.as_deref(),
    };
    token::sign(kid, key, &claims).ok_or_else(|| TenancyError::NoKeyToSign { kid: Some(kid.to_owned()) })
}

/// The key asked for, else the first that can sign.
fn key_to_sign<'k>(keys: &'k Keyring, kid: Option<&str>) -> Result<(&'k String, &'k Key), TenancyError> {
    match kid {
        Some(kid) => keys.get_key_value(kid).ok_or_else(|| TenancyError::UnknownSigningKey { kid: kid.to_owned() }),
        None => {
            keys.iter().rev().find(|(_, key)| key.to_sign().is_some()).ok_or(TenancyError::NoKeyToSign { kid: None })
        }
    }
}

fn seconds(interval: Interval) -> Result<i64, TenancyError> {
    let sql = Sql::text("SELECT pg_catalog.floor(EXTRACT(epoch FROM $1))::bigint");
    let found = spi::read(&sql, &[interval.into()], |row| row.must::<i64>(1))?;
    Ok(found.first().copied().unwrap_or(0))
}

/// A jsonb object as it would be written; its numbers keep their digits.
fn json_object(value: AnyElement) -> Result<Box<RawValue>, TenancyError> {
    let sql = Sql::text("SELECT CASE WHEN pg_catalog.jsonb_typeof($1) = 'object' THEN $1::text END");
    let text = spi::read(&sql, &[spi::jsonb(Some(value))], |row| row.get::<String>(1))?;
    let text = text.into_iter().flatten().next().ok_or(TenancyError::NotAnObject { argument: "dimensions" })?;
    RawValue::from_string(text).map_err(|_| TenancyError::NotAnObject { argument: "dimensions" })
}

/// Makes a login role one tenant and no other.
pub fn bind_role(oid: Oid, tenant: &str) -> Result<(), TenancyError> {
    let role = role::name_of(oid)?.as_str().to_owned();
    let found = cache::find(&tenant.parse()?)?;
    let tenant = found.ok_or_else(|| TenancyError::UnknownTenant { tenant: tenant.to_owned() })?;
    if role::is_superuser(oid) {
        return Err(TenancyError::UnsafeRole { role, reason: "A superuser can leave any tenant.".to_owned() });
    }
    let id = Uuid::from_bytes(*tenant.id.as_bytes());
    let stored = spi::write(
        &Sql::text(
            "INSERT INTO tenancy_internal.role_bindings AS b (role, tenant_id) VALUES ($1, $2)
             ON CONFLICT (role) DO UPDATE SET role = b.role RETURNING b.tenant_id",
        ),
        &[oid.into(), id.into()],
        |row| row.must::<Uuid>(1),
    )?;
    if let Some(stored) = stored.first().filter(|stored| **stored != id) {
        return Err(TenancyError::RoleBoundElsewhere { role, tenant: stored.to_string() });
    }
    let can_login = Sql::text("SELECT rolcanlogin FROM pg_catalog.pg_roles WHERE oid = $1");
    if spi::read(&can_login, &[oid.into()], |row| row.must::<bool>(1))? == [false] {
        spi::notice(&format!(
            "role \"{role}\" cannot log in; a binding is for the role that does, not for its members"
        ));
    }
    Ok(())
}

/// Takes a binding off; also that of a role that has been dropped.
pub fn unbind_role(oid: Oid) -> Result<(), TenancyError> {
    let sql = Sql::text("DELETE FROM tenancy_internal.role_bindings WHERE role = $1 RETURNING true");
    if !spi::write(&sql, &[oid.into()], |row| row.must::<bool>(1))?.is_empty() {
        return Ok(());
    }
    Err(TenancyError::RoleNotBound { role: role::name_of(oid)?.as_str().to_owned() })
}
