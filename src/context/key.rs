//! Signing keys: read from text, kept as bytes, used to sign and to verify. What each may do is said by its algorithm here,
//! never by a token.

use crate::error::TenancyError;
use base64ct::{Base64, Base64UrlUnpadded, Encoding};
use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey};
use hmac::{Hmac, KeyInit, Mac};
use p256::ecdsa::signature::{Signer, Verifier};
use serde::Deserialize;
use sha2::Sha256;
use std::fmt;

/// What a key is for, by its name in a token's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Hs256,
    EdDsa,
    Es256,
}

impl Algorithm {
    pub const NAMES: [&str; 3] = ["HS256", "EdDSA", "ES256"];

    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "HS256" => Some(Self::Hs256),
            "EdDSA" => Some(Self::EdDsa),
            "ES256" => Some(Self::Es256),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
        }
    }
}

/// RFC 7518, 3.2: a key of the hash's size or larger.
const LEAST_SECRET: usize = 32;
const MOST_SECRET: usize = 1024;

/// A key's bytes, as they are stored: what verifies, and what signs where it is there.
///
/// HS256 has its secret only; EdDSA a compressed point and a seed; ES256 an uncompressed point and a scalar.
#[derive(Clone, PartialEq, Eq)]
pub struct Material {
    pub public: Option<Vec<u8>>,
    pub private: Option<Vec<u8>>,
}

impl fmt::Debug for Material {
    /// Keys are not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Material")
    }
}

/// A JSON Web Key, RFC 7517.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    crv: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    k: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<String>,
}

impl Material {
    /// Reads a key of `algorithm` from PEM, JWK or, for HS256, the secret itself.
    pub fn read(algorithm: Algorithm, text: &str) -> Result<Self, TenancyError> {
        let fault = |what| TenancyError::MalformedSigningKey { algorithm: algorithm.name(), what };
        let shape = text.trim();
        let material = if shape.starts_with('{') {
            let jwk: Jwk = serde_json::from_str(shape).map_err(|_| fault("It is not a JSON Web Key."))?;
            from_jwk(algorithm, &jwk).map_err(fault)?
        } else if algorithm == Algorithm::Hs256 {
            from_secret(text).map_err(fault)?
        } else {
            from_pem(algorithm, shape).map_err(fault)?
        };
        // What is stored must be usable later; this also refuses points that are on no curve.
        Key::new(algorithm, &material).map_err(fault)?;
        Ok(material)
    }
}

fn from_secret(text: &str) -> Result<Material, &'static str> {
    if text.contains("-----BEGIN") {
        return Err("It is a PEM key, not a shared secret.");
    }
    let secret = match text.trim().strip_prefix("base64:") {
        Some(encoded) => Base64::decode_vec(encoded).map_err(|_| "What follows base64: is not base64.")?,
        None => text.as_bytes().to_vec(),
    };
    Ok(Material { public: None, private: Some(secret) })
}

fn from_pem(algorithm: Algorithm, pem: &str) -> Result<Material, &'static str> {
    const UNREADABLE: &str = "It is not a PEM key of this kind.";
    match algorithm {
        Algorithm::EdDsa if pem.contains("PRIVATE KEY") => {
            let key = ed25519_dalek::SigningKey::from_pkcs8_pem(pem).map_err(|_| UNREADABLE)?;
            Ok(ed25519(&key))
        }
        Algorithm::EdDsa => {
            let key = ed25519_dalek::VerifyingKey::from_public_key_pem(pem).map_err(|_| UNREADABLE)?;
            Ok(Material { public: Some(key.as_bytes().to_vec()), private: None })
        }
        _ if pem.contains("PRIVATE KEY") => {
            let key = if pem.contains("EC PRIVATE KEY") {
                p256::SecretKey::from_sec1_pem(pem).map_err(|_| UNREADABLE)?
            } else {
                p256::SecretKey::from_pkcs8_pem(pem).map_err(|_| UNREADABLE)?
            };
            Ok(p256(&key))
        }
        _ => {
            let key = p256::PublicKey::from_public_key_pem(pem).map_err(|_| UNREADABLE)?;
            Ok(Material { public: Some(key.to_sec1_bytes().into_vec()), private: None })
        }
    }
}

fn from_jwk(algorithm: Algorithm, jwk: &Jwk) -> Result<Material, &'static str> {
    if jwk.alg.as_deref().is_some_and(|alg| alg != algorithm.name()) {
        return Err("The JSON Web Key says it is for another algorithm.");
    }
    if jwk.usage.as_deref().is_some_and(|usage| usage != "sig") {
        return Err("The JSON Web Key is not for signatures.");
    }
    let (kty, crv) = match algorithm {
        Algorithm::Hs256 => ("oct", None),
        Algorithm::EdDsa => ("OKP", Some("Ed25519")),
        Algorithm::Es256 => ("EC", Some("P-256")),
    };
    if jwk.kty != kty || crv.is_some() && jwk.crv.as_deref() != crv {
        return Err("The JSON Web Key is of another kind or curve.");
    }
    let bytes = |member: &Option<String>| match member {
        Some(text) => {
            Base64UrlUnpadded::decode_vec(text).map(Some).map_err(|_| "A member of the key is not base64url.")
        }
        None => Ok(None),
    };
    const INCOMPLETE: &str = "A member of the JSON Web Key is missing or of the wrong length.";
    let whole = |bytes: Option<Vec<u8>>| bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()).ok_or(INCOMPLETE);
    const DIFFERENT: &str = "The public and the private part of the key do not belong together.";
    match algorithm {
        Algorithm::Hs256 => Ok(Material { public: None, private: Some(bytes(&jwk.k)?.ok_or(INCOMPLETE)?) }),
        Algorithm::EdDsa => {
            let x = whole(bytes(&jwk.x)?)?;
            let public = Material { public: Some(x.to_vec()), private: None };
            let Some(d) = bytes(&jwk.d)? else { return Ok(public) };
            let pair = ed25519(&ed25519_dalek::SigningKey::from_bytes(&whole(Some(d))?));
            if pair.public == public.public { Ok(pair) } else { Err(DIFFERENT) }
        }
        Algorithm::Es256 => {
            const UNCOMPRESSED: u8 = 4;
            let (x, y) = (whole(bytes(&jwk.x)?)?, whole(bytes(&jwk.y)?)?);
            let public = Material { public: Some([&[UNCOMPRESSED][..], &x, &y].concat()), private: None };
            let Some(d) = bytes(&jwk.d)? else { return Ok(public) };
            let pair = p256(&p256::SecretKey::from_slice(&whole(Some(d))?).map_err(|_| INCOMPLETE)?);
            if pair.public == public.public { Ok(pair) } else { Err(DIFFERENT) }
        }
    }
}

fn ed25519(key: &ed25519_dalek::SigningKey) -> Material {
    Material { public: Some(key.verifying_key().as_bytes().to_vec()), private: Some(key.as_bytes().to_vec()) }
}

fn p256(key: &p256::SecretKey) -> Material {
    let private = key.to_bytes().to_vec();
    Material { public: Some(key.public_key().to_sec1_bytes().into_vec()), private: Some(private) }
}

/// A key that is ready for use.
pub enum Key {
    Hs256(Hmac<Sha256>),
    EdDsa { public: ed25519_dalek::VerifyingKey, private: Option<Box<ed25519_dalek::SigningKey>> },
    Es256 { public: p256::ecdsa::VerifyingKey, private: Option<Box<p256::ecdsa::SigningKey>> },
}

impl fmt::Debug for Key {
    /// Keys are not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm().name())
    }
}

impl Key {
    /// Prepares stored bytes; what is wrong with them otherwise.
    pub fn new(algorithm: Algorithm, material: &Material) -> Result<Self, &'static str> {
        const UNUSABLE: &str = "It is not a key of this algorithm.";
        let (public, private) = (material.public.as_deref(), material.private.as_deref());
        match algorithm {
            Algorithm::Hs256 => {
                let secret = private.ok_or(UNUSABLE)?;
                if secret.len() < LEAST_SECRET {
                    return Err("The secret is shorter than 32 bytes.");
                }
                if secret.len() > MOST_SECRET {
                    return Err("The secret is longer than 1024 bytes.");
                }
                Ok(Self::Hs256(Hmac::new_from_slice(secret).map_err(|_| UNUSABLE)?))
            }
            Algorithm::EdDsa => {
                let public = public.ok_or(UNUSABLE)?.try_into().map_err(|_| UNUSABLE)?;
                let public = ed25519_dalek::VerifyingKey::from_bytes(public).map_err(|_| UNUSABLE)?;
                if public.is_weak() {
                    return Err("The key is a weak one: anybody could sign for it.");
                }
                let private = private.map(ed25519_dalek::SigningKey::try_from).transpose().map_err(|_| UNUSABLE)?;
                Ok(Self::EdDsa { public, private: private.map(Box::new) })
            }
            Algorithm::Es256 => {
                let public = public.ok_or(UNUSABLE)?;
                let public = p256::ecdsa::VerifyingKey::from_sec1_bytes(public).map_err(|_| UNUSABLE)?;
                let private = private.map(p256::ecdsa::SigningKey::from_slice).transpose().map_err(|_| UNUSABLE)?;
                Ok(Self::Es256 { public, private: private.map(Box::new) })
            }
        }
    }

    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Hs256(_) => Algorithm::Hs256,
            Self::EdDsa { .. } => Algorithm::EdDsa,
            Self::Es256 { .. } => Algorithm::Es256,
        }
    }

    /// Whether the signature is this key's for `message`; takes no less time for one that is nearly right.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Hs256(secret) => secret.clone().chain_update(message).verify_slice(signature).is_ok(),
            Self::EdDsa { public, .. } => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| public.verify_strict(message, &signature).is_ok()),
            Self::Es256 { public, .. } => p256::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| public.verify(message, &signature).is_ok()),
        }
    }

    /// This key's signature for `message`; None without a private part.
    pub fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Hs256(secret) => Some(secret.clone().chain_update(message).finalize().into_bytes().to_vec()),
            Self::EdDsa { private, .. } => private.as_ref().map(|key| key.sign(message).to_bytes().to_vec()),
            Self::Es256 { private, .. } => private.as_ref().map(|key| {
                let signature: p256::ecdsa::Signature = key.sign(message);
                signature.to_bytes().to_vec()
            }),
        }
    }

    pub fn can_sign(&self) -> bool {
        match self {
            Self::Hs256(_) => true,
            Self::EdDsa { private, .. } => private.is_some(),
            Self::Es256 { private, .. } => private.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7515, A.1.
    const OCT: &str =
        r#"{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}"#;
    const HS256: &str = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    /// RFC 7515, A.3.
    const EC: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}"#;
    const ES256: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    /// RFC 8037, A.1 and A.4.
    const OKP: &str = r#"{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    const EDDSA: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";

    const VECTORS: [(Algorithm, &str, &str); 3] =
        [(Algorithm::Hs256, OCT, HS256), (Algorithm::EdDsa, OKP, EDDSA), (Algorithm::Es256, EC, ES256)];

    fn key(algorithm: Algorithm, text: &str) -> Key {
        Key::new(algorithm, &Material::read(algorithm, text).unwrap()).unwrap()
    }

    fn fault(algorithm: Algorithm, text: &str) -> &'static str {
        match Material::read(algorithm, text) {
            Err(TenancyError::MalformedSigningKey { what, .. }) => what,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn parts(token: &str) -> (&[u8], Vec<u8>) {
        let (message, signature) = token.rsplit_once('.').unwrap();
        (message.as_bytes(), Base64UrlUnpadded::decode_vec(signature).unwrap())
    }

    #[test]
    fn the_examples_of_the_rfcs_verify_and_nothing_near_them() {
        for (algorithm, jwk, token) in VECTORS {
            let key = key(algorithm, jwk);
            let (message, signature) = parts(token);
            assert!(key.verifies(message, &signature), "{algorithm:?}");
            for bit in 0..8 * signature.len() {
                let mut forged = signature.clone();
                forged[bit / 8] ^= 1 << (bit % 8);
                assert!(!key.verifies(message, &forged), "{algorithm:?} bit {bit}");
            }
            for length in 0..signature.len() {
                assert!(!key.verifies(message, &signature[..length]), "{algorithm:?} length {length}");
            }
            assert!(!key.verifies(message, &[&signature[..], &[0]].concat()));
            assert!(!key.verifies(&message[1..], &signature));
        }
    }

    #[test]
    fn the_deterministic_signatures_of_the_rfcs_come_out() {
        for (algorithm, jwk, token) in [VECTORS[0], VECTORS[1]] {
            let (message, signature) = parts(token);
            assert_eq!(key(algorithm, jwk).sign(message).unwrap(), signature, "{algorithm:?}");
        }
        // ES256 has as many signatures as there are numbers; ours is good.
        let es256 = key(Algorithm::Es256, EC);
        assert!(es256.verifies(b"message", &es256.sign(b"message").unwrap()));
    }

    #[test]
    fn no_algorithm_takes_anothers_signature() {
        for (algorithm, jwk, _) in VECTORS {
            for (_, _, token) in VECTORS.into_iter().filter(|(other, ..)| *other != algorithm) {
                let (message, signature) = parts(token);
                assert!(!key(algorithm, jwk).verifies(message, &signature));
            }
        }
        // The classic: the public key's bytes as the secret of HS256.
        let public = Material::read(Algorithm::EdDsa, OKP).unwrap().public.unwrap();
        let confused = Key::new(Algorithm::Hs256, &Material { public: None, private: Some(public) }).unwrap();
        let forged = confused.sign(b"message").unwrap();
        assert!(!key(Algorithm::EdDsa, OKP).verifies(b"message", &forged));
    }

    const ED25519_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";
    const ED25519_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";

    #[test]
    fn pem_and_jwk_are_the_same_key() {
        let jwk = Material::read(Algorithm::EdDsa, OKP).unwrap();
        let private = Material::read(Algorithm::EdDsa, ED25519_PRIVATE).unwrap();
        let public = Material::read(Algorithm::EdDsa, ED25519_PUBLIC).unwrap();
        assert!(jwk == private && public.public == private.public && public.private.is_none());
        assert!(key(Algorithm::EdDsa, ED25519_PRIVATE).can_sign() && !key(Algorithm::EdDsa, ED25519_PUBLIC).can_sign());

        use p256::pkcs8::{EncodePrivateKey, EncodePublicKey, LineEnding};
        let ec = Material::read(Algorithm::Es256, EC).unwrap();
        let secret = p256::SecretKey::from_slice(ec.private.as_deref().unwrap()).unwrap();
        for pem in [secret.to_pkcs8_pem(LineEnding::LF).unwrap(), secret.to_sec1_pem(LineEnding::CRLF).unwrap()] {
            assert!(Material::read(Algorithm::Es256, &pem).unwrap() == ec);
        }
        let pem = secret.public_key().to_public_key_pem(LineEnding::LF).unwrap();
        let public = Material::read(Algorithm::Es256, &pem).unwrap();
        assert!(public.public == ec.public && public.private.is_none());
    }

    #[test]
    fn a_secret_is_text_or_base64_and_long_enough() {
        let text = Material::read(Algorithm::Hs256, "0123456789abcdef0123456789abcdef").unwrap();
        let base64 = Material::read(Algorithm::Hs256, "base64:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n").unwrap();
        assert!(text == base64);
        assert_eq!(fault(Algorithm::Hs256, "0123456789abcdef0123456789abcde"), "The secret is shorter than 32 bytes.");
        assert_eq!(fault(Algorithm::Hs256, ""), "The secret is shorter than 32 bytes.");
        assert_eq!(fault(Algorithm::Hs256, "base64:MDEyMzQ1"), "The secret is shorter than 32 bytes.");
        assert_eq!(fault(Algorithm::Hs256, &"x".repeat(1025)), "The secret is longer than 1024 bytes.");
        assert_eq!(fault(Algorithm::Hs256, "base64:?"), "What follows base64: is not base64.");
    }

    #[test]
    fn what_is_no_key_of_the_algorithm_is_refused() {
        assert_eq!(fault(Algorithm::Hs256, ED25519_PUBLIC), "It is a PEM key, not a shared secret.");
        for (algorithm, text) in [
            (Algorithm::EdDsa, "secret"),
            (Algorithm::EdDsa, "-----BEGIN PRIVATE KEY-----\nMC4C\n-----END PRIVATE KEY-----"),
            (Algorithm::Es256, ED25519_PRIVATE),
            (Algorithm::Es256, ED25519_PUBLIC),
        ] {
            assert_eq!(fault(algorithm, text), "It is not a PEM key of this kind.", "{text}");
        }
        for (algorithm, jwk) in [
            (Algorithm::Hs256, OKP),
            (Algorithm::EdDsa, EC),
            (Algorithm::Es256, OKP),
            (Algorithm::Es256, OCT),
            (Algorithm::EdDsa, &OKP.replace("Ed25519", "Ed448")),
            (Algorithm::Es256, &EC.replace("P-256", "P-384")),
        ] {
            assert_eq!(fault(algorithm, jwk), "The JSON Web Key is of another kind or curve.", "{jwk}");
        }
        let said = |member: &str| OCT.replace("\"kty\"", &format!("{member},\"kty\""));
        assert_eq!(
            fault(Algorithm::Hs256, &said(r#""alg":"HS512""#)),
            "The JSON Web Key says it is for another algorithm."
        );
        assert_eq!(fault(Algorithm::Hs256, &said(r#""use":"enc""#)), "The JSON Web Key is not for signatures.");
        assert!(Material::read(Algorithm::Hs256, &said(r#""use":"sig","alg":"HS256""#)).is_ok());
        assert_eq!(fault(Algorithm::Hs256, r#"{"kty":"oct","k":"AAAA"}"#), "The secret is shorter than 32 bytes.");
        assert_eq!(fault(Algorithm::Hs256, "{"), "It is not a JSON Web Key.");
    }

    #[test]
    fn halves_of_two_keys_are_no_pair() {
        let other =
            OKP.replace("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A", "TM0Imyj_ltqdtsNG7BFOD1uKMZ81q6Yk2oz27U-4pvs");
        let different = "The public and the private part of the key do not belong together.";
        assert_eq!(fault(Algorithm::EdDsa, &other), different);
        let other =
            EC.replace("jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI", "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A");
        assert_eq!(fault(Algorithm::Es256, &other), different);
    }

    #[test]
    fn points_that_sign_for_anybody_or_are_on_no_curve_are_refused() {
        let zero = Base64UrlUnpadded::encode_string(&[0; 32]);
        let jwk = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{zero}"}}"#);
        assert_eq!(fault(Algorithm::EdDsa, &jwk), "The key is a weak one: anybody could sign for it.");
        let jwk = format!(r#"{{"kty":"EC","crv":"P-256","x":"{zero}","y":"{zero}"}}"#);
        assert_eq!(fault(Algorithm::Es256, &jwk), "It is not a key of this algorithm.");
    }

    #[test]
    fn a_key_is_never_shown() {
        for (algorithm, jwk, _) in VECTORS {
            let material = Material::read(algorithm, jwk).unwrap();
            assert_eq!(format!("{material:?} {:?}", key(algorithm, jwk)), format!("Material {}", algorithm.name()));
        }
    }
}
