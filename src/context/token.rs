//! Tokens: JSON Web Tokens in compact form (RFC 7515, 7519), and what makes one good for a session (RFC 8725).

use super::key::Key;
use crate::error::TenancyError;
use base64ct::{Base64UrlUnpadded, Encoding};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashMap};

/// Longer than this and it is refused before anything is computed.
const LONGEST: usize = 8192;

/// The active keys of the database, by kid.
pub type Keyring = BTreeMap<String, Key>;

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
}

/// What a token says. Claims that are not listed are nobody's business here.
#[derive(Debug, Deserialize)]
pub struct Claims {
    tenant: Tenant,
    pub exp: f64,
    nbf: Option<f64>,
    iat: Option<f64>,
    aud: Option<Audience>,
    role: Option<String>,
    jti: Option<String>,
    nonce: Option<String>,
    dimensions: Option<Box<RawValue>>,
}

/// A tenant's code or id, or its number also as a number.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Tenant {
    Text(String),
    Number(i64),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Claims {
    /// The tenant, as `set_tenant` takes it.
    pub fn tenant(&self) -> String {
        match &self.tenant {
            Tenant::Text(text) => text.clone(),
            Tenant::Number(number) => number.to_string(),
        }
    }

    /// The dimensions as a JSON object, empty when there are none.
    pub fn dimensions(&self) -> &str {
        self.dimensions.as_deref().map_or("", RawValue::get)
    }

    /// What tells this token from others of its signer.
    pub fn jti(&self) -> Option<&str> {
        self.jti.as_deref()
    }
}

/// Verifies the signature; gives the kid of the key that made it, and the claims, which are yet to be judged.
pub fn verify<'k>(token: &str, keys: &'k Keyring) -> Result<(&'k str, Claims), TenancyError> {
    let malformed = |what| TenancyError::MalformedToken { what };
    if token.len() > LONGEST {
        return Err(malformed("It is longer than 8192 bytes."));
    }
    let (message, signature) = token.rsplit_once('.').ok_or(malformed("It has no three parts."))?;
    let (header, payload) = message.split_once('.').ok_or(malformed("It has no three parts."))?;
    let decode = |part: &str| Base64UrlUnpadded::decode_vec(part).map_err(|_| malformed("A part of it is not base64url."));
    let signature = decode(signature)?;
    let header: Header = serde_json::from_slice(&decode(header)?)
        .map_err(|_| malformed("Its header is not a JSON object with an alg."))?;
    if header.crit.is_some() {
        return Err(malformed("Its header has critical extensions; none are known here."));
    }
    let (kid, key) = choose(keys, header.kid)?;
    let refused = |why: &str, hint| TenancyError::RefusedToken { why: format!("{why} \"{kid}\""), hint };
    if header.alg != key.algorithm().name() {
        return Err(refused(
            "its header names another algorithm than that of signing key",
            "Sign with the algorithm that tenancy.signing_keys shows for the key.",
        ));
    }
    if !key.verifies(message.as_bytes(), &signature) {
        return Err(refused(
            "its signature is not one of signing key",
            "Sign with the key that was given to tenancy.add_signing_key(...).",
        ));
    }
    let claims: Claims = serde_json::from_slice(&decode(payload)?)
        .map_err(|_| malformed("Its payload is not an object with tenant (text), exp (number) and well-formed other claims."))?;
    if claims.dimensions.is_some() {
        let readable = dimensions_in(claims.dimensions());
        if readable.is_none_or(|dimensions| dimensions.values().any(|value| as_text(value).is_some_and(holds_nul))) {
            return Err(malformed("Its dimensions are not an object of texts and other values without \\u0000."));
        }
    }
    Ok((kid, claims))
}

/// The key that a token is for: by its kid, else the only one there is.
fn choose(keys: &Keyring, kid: Option<String>) -> Result<(&str, &Key), TenancyError> {
    let found = match &kid {
        Some(kid) => keys.get_key_value(kid),
        None if keys.len() == 1 => keys.first_key_value(),
        None => None,
    };
    found.map(|(kid, key)| (kid.as_str(), key)).ok_or(TenancyError::UnknownTokenKey { kid, active: keys.len() })
}

/// What a session asks of a token.
#[derive(Debug)]
pub struct Expected<'a> {
    /// Seconds since 1970.
    pub now: f64,
    pub leeway: f64,
    /// Zero for any.
    pub max_ttl: f64,
    /// Empty for a token without one.
    pub audience: &'a str,
    pub role: &'a str,
    pub nonce: &'a str,
    pub nonce_required: bool,
    pub jti_required: bool,
}

/// Judges the claims of a token whose signature is good.
pub fn judge(claims: &Claims, expected: &Expected<'_>) -> Result<(), TenancyError> {
    let refused = |why: String, hint| Err(TenancyError::RefusedToken { why, hint });
    let (now, leeway) = (expected.now, expected.leeway);
    if now >= claims.exp + leeway {
        let ago = (now - claims.exp).min(1e15) as u64;
        return refused(format!("it expired {ago} seconds ago"), "Get a new token from the signer.");
    }
    if let Some(nbf) = claims.nbf.filter(|nbf| now < nbf - leeway) {
        let wait = (nbf - now).ceil().min(1e15) as u64;
        return refused(format!("it becomes valid in {wait} seconds"), CLOCKS);
    }
    if claims.iat.is_some_and(|iat| now < iat - leeway) {
        return refused("it was issued in the future".to_owned(), CLOCKS);
    }
    // Without iat its life began at the latest when the clocks of both sides allow.
    let life = claims.exp - claims.iat.unwrap_or(now + leeway);
    if expected.max_ttl > 0.0 && life > expected.max_ttl {
        let (life, most) = (life.min(1e15) as u64, expected.max_ttl as u64);
        return refused(
            format!("it is valid for {life} seconds, longer than {most}"),
            "Sign tokens for a shorter time; tenancy.token_max_ttl is the longest.",
        );
    }
    let audiences = match &claims.aud {
        None => &[][..],
        Some(Audience::One(audience)) => std::slice::from_ref(audience),
        Some(Audience::Several(audiences)) => audiences,
    };
    let meant = match expected.audience {
        "" => claims.aud.is_none(),
        audience => audiences.iter().any(|named| named == audience),
    };
    if !meant {
        return refused("it is for another audience".to_owned(), "Let aud be what tenancy.token_audience says.");
    }
    if claims.role.as_deref().is_some_and(|role| role != expected.role) {
        return refused(
            "it is for another role".to_owned(),
            "Let role be the role that logs in, or leave it out.",
        );
    }
    match claims.nonce.as_deref() {
        None if expected.nonce_required => return Err(TenancyError::NoNonce),
        Some(nonce) if nonce != expected.nonce => {
            return refused(
                "it is for another connection".to_owned(),
                "Have it signed with the answer of tenancy.session_nonce() on this connection.",
            );
        }
        _ => {}
    }
    if expected.jti_required && claims.jti.is_none() {
        return refused(
            "it has no jti".to_owned(),
            "Give each token a jti of its own; tenancy.token_replay_guard asks for it.",
        );
    }
    Ok(())
}

const CLOCKS: &str = "Compare the clocks of signer and server; tenancy.token_leeway allows for a difference.";

/// The tokens that a backend has taken, until they expire.
#[derive(Default)]
pub struct Seen(HashMap<[u8; 32], f64>);

/// More live tokens than this are not remembered, hence not taken: 4 MB.
const MOST_SEEN: usize = 65_536;

impl Seen {
    /// Refuses a token that was taken before.
    pub fn check(&mut self, mark: &[u8; 32], now: f64) -> Result<(), TenancyError> {
        if self.0.get(mark).is_some_and(|until| now < *until) {
            return Err(TenancyError::RefusedToken {
                why: "it was used before on this connection".to_owned(),
                hint: "Get a new token from the signer for each transaction.",
            });
        }
        if self.0.len() >= MOST_SEEN {
            self.0.retain(|_, until| now < *until);
        }
        if self.0.len() >= MOST_SEEN {
            return Err(TenancyError::RefusedToken {
                why: "too many tokens of this connection are still valid".to_owned(),
                hint: "Sign tokens for a shorter time, or connect anew.",
            });
        }
        Ok(())
    }

    /// Remembers a token that was taken.
    pub fn remember(&mut self, mark: [u8; 32], until: f64) {
        self.0.insert(mark, until);
    }
}

/// What a token's jti is remembered as; another signer may have given the same one.
pub fn mark(kid: &str, jti: &str) -> [u8; 32] {
    use sha2::Digest;
    let mut hash = sha2::Sha256::new();
    hash.update((kid.len() as u64).to_le_bytes());
    hash.update(kid);
    hash.update(jti);
    hash.finalize().into()
}

fn dimensions_in(json: &str) -> Option<BTreeMap<String, &RawValue>> {
    serde_json::from_str(json).ok()
}

fn holds_nul(text: String) -> bool {
    text.contains('\0')
}

/// A value as text: a string without its quotes, JSON's null as None, anything else as it was written.
fn as_text(value: &RawValue) -> Option<String> {
    match serde_json::from_str(value.get()) {
        Ok(serde_json::Value::String(text)) => Some(text),
        Ok(serde_json::Value::Null) => None,
        _ => Some(value.get().to_owned()),
    }
}

/// One of the dimensions in a JSON object; None when it has none of that name.
pub fn dimension(json: &str, name: &str) -> Option<String> {
    dimensions_in(json)?.get(name).and_then(|value| as_text(value))
}

/// What `sign_tenant_token` puts into a token.
#[derive(Debug, Serialize)]
pub struct NewClaims<'a> {
    pub tenant: &'a str,
    pub iat: i64,
    pub exp: i64,
    pub jti: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nonce: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<&'a RawValue>,
}

/// A token with these claims; None when the key has no private part.
pub fn sign(kid: &str, key: &Key, claims: &NewClaims<'_>) -> Option<String> {
    #[derive(Serialize)]
    struct NewHeader<'a> {
        alg: &'static str,
        kid: &'a str,
        typ: &'static str,
    }
    let header = NewHeader { alg: key.algorithm().name(), kid, typ: "JWT" };
    let encode = |json: Result<Vec<u8>, serde_json::Error>| {
        Base64UrlUnpadded::encode_string(&json.expect("texts and numbers can be written as JSON"))
    };
    let message = format!("{}.{}", encode(serde_json::to_vec(&header)), encode(serde_json::to_vec(claims)));
    let signature = key.sign(message.as_bytes())?;
    Some(format!("{message}.{}", Base64UrlUnpadded::encode_string(&signature)))
}
