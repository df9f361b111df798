//! Tokens: JSON Web Tokens in compact form (RFC 7515, 7519), and what makes one good for a session (RFC 8725).

use super::key::Key;
use crate::error::TenancyError;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashMap};

/// Longer than this and it is refused before anything is computed.
const LONGEST: usize = 8192;

/// The active keys of the database, by kid.
pub type Keyring = BTreeMap<String, Key>;

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
    let header = jsonwebtoken::decode_header(token)
        .map_err(|error| unreadable(&error, "Its header is not a JSON object with an alg that is known here."))?;
    // jsonwebtoken reads them and does nothing about them.
    if header.crit.is_some() {
        return Err(malformed("Its header has critical extensions; none are known here."));
    }
    let (kid, key) = choose(keys, header.kid)?;
    let refused = |why: &str, hint| TenancyError::RefusedToken { why: format!("{why} \"{kid}\""), hint };
    let read = jsonwebtoken::decode::<Claims>(token, key.to_verify(), &signature_only(key));
    let claims = read.map(|token| token.claims).map_err(|error| match error.kind() {
        ErrorKind::InvalidAlgorithm => refused(
            "its header names another algorithm than that of signing key",
            "Sign with the algorithm that tenancy.signing_keys shows for the key.",
        ),
        ErrorKind::InvalidSignature => refused(
            "its signature is not one of signing key",
            "Sign with the key that was given to tenancy.add_signing_key(...).",
        ),
        _ => unreadable(
            &error,
            "Its payload is not an object with tenant (text), exp (number) and well-formed other claims.",
        ),
    })?;
    if claims.dimensions.is_some() {
        let readable = dimensions_in(claims.dimensions());
        if readable.is_none_or(|dimensions| dimensions.values().any(|value| as_text(value).is_some_and(holds_nul))) {
            return Err(malformed("Its dimensions are not an object of texts and other values without \\u0000."));
        }
    }
    Ok((kid, claims))
}

/// jsonwebtoken verifies the signature by the key's own algorithm; `judge` has the claims, the server's clock and its settings.
fn signature_only(key: &Key) -> Validation {
    let mut validation = Validation::new(key.algorithm().in_jwt());
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    validation
}

/// What cannot be read, and why; `json` where it is the JSON of a part.
fn unreadable(error: &jsonwebtoken::errors::Error, json: &'static str) -> TenancyError {
    TenancyError::MalformedToken {
        what: match error.kind() {
            ErrorKind::Base64(_) => "A part of it is not base64url.",
            ErrorKind::Json(_) => json,
            _ => "It has no three parts.",
        },
    }
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
        return refused("it is for another role".to_owned(), "Let role be the role that logs in, or leave it out.");
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
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(key.algorithm().in_jwt()) };
    Some(jsonwebtoken::encode(&header, claims, key.to_sign()?).expect("texts and numbers can be written as JSON"))
}

#[cfg(test)]
mod tests {
    use super::super::key::Algorithm;
    use super::*;
    use base64ct::{Base64UrlUnpadded, Encoding};

    const SECRET: &str = "a secret of more than thirty-two bytes";
    const NOW: f64 = 1_800_000_000.0;

    fn secret(text: &str) -> Key {
        Key::read(Algorithm::Hs256, text).unwrap()
    }

    fn one_key() -> Keyring {
        Keyring::from([("k1".to_owned(), secret(SECRET))])
    }

    fn encode(text: &str) -> String {
        Base64UrlUnpadded::encode_string(text.as_bytes())
    }

    /// Any header and payload, signed with `key`.
    fn signed(header: &str, payload: &str, key: &Key) -> String {
        let message = format!("{}.{}", encode(header), encode(payload));
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), key.to_sign().unwrap(), key.algorithm().in_jwt());
        format!("{message}.{}", signature.unwrap())
    }

    fn token(payload: &str) -> String {
        signed(r#"{"alg":"HS256"}"#, payload, &secret(SECRET))
    }

    fn refusal(token: &str) -> TenancyError {
        verify(token, &one_key()).unwrap_err()
    }

    fn claims(payload: &str) -> Claims {
        verify(&token(payload), &one_key()).unwrap().1
    }

    fn why(refusal: Result<(), TenancyError>) -> String {
        match refusal {
            Err(TenancyError::RefusedToken { why, .. }) => why,
            other => panic!("{other:?}"),
        }
    }

    const SESSION: Expected<'static> = Expected {
        now: NOW,
        leeway: 30.0,
        max_ttl: 3600.0,
        audience: "",
        role: "app",
        nonce: "n1",
        nonce_required: false,
        jti_required: false,
    };

    /// A payload with `exp` a minute from now.
    fn with(others: &str) -> Claims {
        let comma = if others.is_empty() { "" } else { "," };
        claims(&format!(r#"{{"tenant":"acme","exp":{}{comma}{others}}}"#, NOW + 60.0))
    }

    #[test]
    fn a_token_names_a_tenant_by_each_of_its_keys() {
        for (tenant, text) in [(r#""acme""#, "acme"), (r#""17""#, "17"), ("17", "17"), ("-3", "-3")] {
            assert_eq!(claims(&format!(r#"{{"tenant":{tenant},"exp":1}}"#)).tenant(), text);
        }
        for nobody in ["null", "1.5", "[]", r#"["acme"]"#, "true"] {
            let refused = refusal(&token(&format!(r#"{{"tenant":{nobody},"exp":1}}"#)));
            assert!(matches!(refused, TenancyError::MalformedToken { .. }), "{nobody}");
        }
    }

    #[test]
    fn what_is_no_token_cannot_be_read() {
        let good = token(r#"{"tenant":"acme","exp":1}"#);
        let padded = format!("{good}=");
        for text in ["", ".", "..", "a.b", "a.b.c.d", "?.?.?", " ", &good[1..], &padded, &"x".repeat(9000)] {
            let refused = refusal(text);
            assert!(matches!(refused, TenancyError::MalformedToken { .. }), "{text}: {refused:?}");
        }
        for payload in ["", "{}", "[]", "null", r#"{"tenant":"a"}"#, r#"{"exp":1}"#, r#"{"tenant":"a","exp":"1"}"#] {
            let refused = refusal(&token(payload));
            assert!(matches!(refused, TenancyError::MalformedToken { .. }), "{payload}");
        }
    }

    /// RFC 7515, 4 and RFC 8725, 2.4: two readers must not read two things.
    #[test]
    fn a_member_that_comes_twice_is_refused() {
        let twice = token(r#"{"tenant":"red","tenant":"blue","exp":1}"#);
        assert!(matches!(refusal(&twice), TenancyError::MalformedToken { .. }));
        let twice = signed(r#"{"alg":"none","alg":"HS256"}"#, r#"{"tenant":"a","exp":1}"#, &secret(SECRET));
        assert!(matches!(refusal(&twice), TenancyError::MalformedToken { .. }));
    }

    #[test]
    fn the_header_does_not_choose_the_algorithm() {
        let payload = r#"{"tenant":"acme","exp":1}"#;
        for alg in ["HS384", "HS512", "EdDSA", "ES256", "RS256"] {
            let token = signed(&format!(r#"{{"alg":"{alg}"}}"#), payload, &secret(SECRET));
            let refused = refusal(&token);
            assert!(matches!(refused, TenancyError::RefusedToken { .. }), "{alg}: {refused:?}");
        }
        // What jsonwebtoken has no name for is no header to it.
        for alg in ["none", "None", "hs256", ""] {
            let token = signed(&format!(r#"{{"alg":"{alg}"}}"#), payload, &secret(SECRET));
            let refused = refusal(&token);
            assert!(matches!(refused, TenancyError::MalformedToken { .. }), "{alg}: {refused:?}");
        }
        let unsigned = format!("{}.{}.", encode(r#"{"alg":"none"}"#), encode(payload));
        assert!(matches!(refusal(&unsigned), TenancyError::MalformedToken { .. }));
        let unsigned = format!("{}.{}.", encode(r#"{"alg":"HS256"}"#), encode(payload));
        assert!(matches!(refusal(&unsigned), TenancyError::RefusedToken { .. }));
    }

    #[test]
    fn critical_extensions_are_refused() {
        let header = r#"{"alg":"HS256","crit":["b64"],"b64":false}"#;
        let token = signed(header, r#"{"tenant":"acme","exp":1}"#, &secret(SECRET));
        assert!(matches!(refusal(&token), TenancyError::MalformedToken { .. }));
    }

    #[test]
    fn a_key_that_the_token_brings_along_is_not_used() {
        let other = secret("another secret, known to an attacker");
        let jwk = format!(
            r#"{{"alg":"HS256","jwk":{{"kty":"oct","k":"{}"}}}}"#,
            encode("another secret, known to an attacker")
        );
        let refused = refusal(&signed(&jwk, r#"{"tenant":"acme","exp":1}"#, &other));
        assert!(matches!(refused, TenancyError::RefusedToken { .. }));
    }

    #[test]
    fn keys_are_found_by_their_kid_and_rotate() {
        let payload = r#"{"tenant":"acme","exp":1}"#;
        let (first, second) = (secret(SECRET), secret("the secret of the next quarter of the year"));
        let of_first = signed(r#"{"alg":"HS256","kid":"k1"}"#, payload, &first);
        let of_second = signed(r#"{"alg":"HS256","kid":"k2"}"#, payload, &second);
        let nameless = signed(r#"{"alg":"HS256"}"#, payload, &first);
        let mut keys = one_key();
        assert_eq!(verify(&of_first, &keys).unwrap().0, "k1");
        assert_eq!(verify(&nameless, &keys).unwrap().0, "k1");
        assert!(matches!(verify(&of_second, &keys), Err(TenancyError::UnknownTokenKey { .. })));
        keys.insert("k2".to_owned(), second);
        assert_eq!(verify(&of_first, &keys).unwrap().0, "k1");
        assert_eq!(verify(&of_second, &keys).unwrap().0, "k2");
        assert_eq!(verify(&nameless, &keys).unwrap_err(), TenancyError::UnknownTokenKey { kid: None, active: 2 });
        // A good signature under another key's name.
        let renamed = signed(r#"{"alg":"HS256","kid":"k2"}"#, payload, &first);
        assert!(matches!(verify(&renamed, &keys), Err(TenancyError::RefusedToken { .. })));
        keys.remove("k1");
        assert!(matches!(verify(&of_first, &keys), Err(TenancyError::UnknownTokenKey { .. })));
        keys.clear();
        assert_eq!(verify(&nameless, &keys).unwrap_err(), TenancyError::UnknownTokenKey { kid: None, active: 0 });
    }

    #[test]
    fn a_token_is_good_from_nbf_to_exp_as_far_as_the_clocks_agree() {
        let token = with(&format!(r#""nbf":{}"#, NOW + 10.0));
        let at = |now| judge(&token, &Expected { now, ..SESSION });
        assert!(at(NOW).is_ok() && at(NOW - 20.0).is_ok() && at(NOW + 89.0).is_ok());
        assert_eq!(why(at(NOW - 21.0)), "it becomes valid in 31 seconds");
        assert_eq!(why(at(NOW + 90.0)), "it expired 30 seconds ago");
        let exact = |now| judge(&token, &Expected { now, leeway: 0.0, ..SESSION });
        assert!(exact(NOW + 10.0).is_ok() && exact(NOW + 59.5).is_ok());
        assert!(exact(NOW + 9.0).is_err() && exact(NOW + 60.0).is_err());
    }

    #[test]
    fn a_token_from_the_future_is_refused() {
        assert!(judge(&with(&format!(r#""iat":{}"#, NOW + 30.0)), &SESSION).is_ok());
        assert_eq!(why(judge(&with(&format!(r#""iat":{}"#, NOW + 31.0)), &SESSION)), "it was issued in the future");
    }

    #[test]
    fn a_token_does_not_live_longer_than_allowed() {
        let day = claims(&format!(r#"{{"tenant":"acme","exp":{}}}"#, NOW + 86_400.0));
        assert_eq!(why(judge(&day, &SESSION)), "it is valid for 86370 seconds, longer than 3600");
        assert!(judge(&day, &Expected { max_ttl: 0.0, ..SESSION }).is_ok());
        let old = with(&format!(r#""iat":{}"#, NOW - 3_600.0));
        assert_eq!(why(judge(&old, &SESSION)), "it is valid for 3660 seconds, longer than 3600");
        let endless = claims(r#"{"tenant":"acme","exp":1e300}"#);
        assert!(judge(&endless, &SESSION).is_err());
    }

    #[test]
    fn the_audience_is_ours_where_there_is_one() {
        let ours = Expected { audience: "orders", ..SESSION };
        for aud in [r#""aud":"orders""#, r#""aud":["stock","orders"]"#] {
            assert!(judge(&with(aud), &ours).is_ok(), "{aud}");
        }
        for aud in ["", r#""aud":"order""#, r#""aud":"ORDERS""#, r#""aud":[]"#, r#""aud":["stock"]"#] {
            assert_eq!(why(judge(&with(aud), &ours)), "it is for another audience", "{aud}");
        }
        // RFC 7519, 4.1.3: who is no audience takes no token that has one.
        assert_eq!(why(judge(&with(r#""aud":"orders""#), &SESSION)), "it is for another audience");
    }

    #[test]
    fn a_token_may_be_for_one_role_and_one_connection() {
        assert!(judge(&with(r#""role":"app","nonce":"n1""#), &SESSION).is_ok());
        assert_eq!(why(judge(&with(r#""role":"App""#), &SESSION)), "it is for another role");
        assert_eq!(why(judge(&with(r#""nonce":"n2""#), &SESSION)), "it is for another connection");
        let strict = Expected { nonce_required: true, jti_required: true, ..SESSION };
        assert_eq!(judge(&with(r#""jti":"1""#), &strict), Err(TenancyError::NoNonce));
        assert_eq!(why(judge(&with(r#""nonce":"n1""#), &strict)), "it has no jti");
        assert!(judge(&with(r#""nonce":"n1","jti":"1""#), &strict).is_ok());
    }

    #[test]
    fn a_token_is_taken_once_until_it_expires() {
        let mut seen = Seen::default();
        let first = mark("k1", "1");
        assert!(seen.check(&first, NOW).is_ok());
        seen.remember(first, NOW + 60.0);
        assert!(seen.check(&first, NOW + 59.0).is_err());
        for other in [mark("k1", "2"), mark("k2", "1"), mark("k", "11")] {
            assert!(seen.check(&other, NOW).is_ok());
        }
    }

    #[test]
    fn expired_tokens_are_forgotten_and_live_ones_are_not() {
        let mut seen = Seen::default();
        for number in 0..MOST_SEEN {
            seen.remember(mark("k1", &number.to_string()), NOW + (number % 2) as f64 * 60.0);
        }
        assert!(seen.check(&mark("k1", "new"), NOW + 1.0).is_ok());
        assert_eq!(seen.0.len(), MOST_SEEN / 2);
        assert!(seen.check(&mark("k1", "1"), NOW + 1.0).is_err());
        for number in 0..MOST_SEEN {
            seen.remember(mark("k2", &number.to_string()), NOW + 60.0);
        }
        assert!(seen.check(&mark("k1", "new"), NOW + 1.0).is_err(), "what cannot be remembered is not taken");
    }

    #[test]
    fn dimensions_are_texts_or_what_was_written() {
        let given =
            with(r#""dimensions":{"region":"e\"u","big":12345678901234567890123,"no":null,"on":true,"list":[1, 2]}"#);
        let value = |name| dimension(given.dimensions(), name);
        assert_eq!(value("region").as_deref(), Some("e\"u"));
        assert_eq!(value("big").as_deref(), Some("12345678901234567890123"));
        assert_eq!(value("on").as_deref(), Some("true"));
        assert_eq!(value("list").as_deref(), Some("[1, 2]"));
        assert_eq!((value("no"), value("other"), dimension("", "region")), (None, None, None));
        for bad in ["[]", "1", r#""x""#, r#"{"a":"\u0000"}"#] {
            let payload = format!(r#"{{"tenant":"acme","exp":1,"dimensions":{bad}}}"#);
            let refused = refusal(&token(&payload));
            assert!(matches!(refused, TenancyError::MalformedToken { .. }), "{bad}");
        }
    }

    #[test]
    fn what_we_sign_we_take() {
        let keys = one_key();
        let dimensions = RawValue::from_string(r#"{"region": "eu"}"#.to_owned()).unwrap();
        let new = NewClaims {
            tenant: "acme",
            iat: NOW as i64,
            exp: NOW as i64 + 300,
            jti: "1",
            aud: Some("orders"),
            role: Some("app"),
            nonce: Some("n1"),
            dimensions: Some(&dimensions),
        };
        let token = sign("k1", &keys["k1"], &new).unwrap();
        let (kid, claims) = verify(&token, &keys).unwrap();
        assert_eq!((kid, claims.tenant().as_str(), claims.jti()), ("k1", "acme", Some("1")));
        assert_eq!(dimension(claims.dimensions(), "region").as_deref(), Some("eu"));
        let session = Expected { audience: "orders", nonce_required: true, jti_required: true, ..SESSION };
        assert_eq!(judge(&claims, &session), Ok(()));
    }
}
