//! Signing keys: read from text, kept as bytes, handed to jsonwebtoken.
//! What each may do is said by its algorithm here, never by a token.
//!
//! Ours is what verifies: jsonwebtoken's `rust_crypto` brings `rsa` (RUSTSEC-2023-0071), takes made-up signatures for weak Ed25519
//! keys and panics on short ones (its eddsa.rs:48, 58). So are PEM and `d`: it reads no EC PRIVATE KEY (pem/decoder.rs:75), no `d`.

use crate::error::TenancyError;
use base64ct::{Base64, Base64UrlUnpadded, Encoding};
use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey};
use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, new_error};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm as Jwa, DecodingKey, EncodingKey, signature};
use p256::ecdsa::signature::{Signer, Verifier};
use serde::Deserialize;
use sha2::Sha256;
use std::fmt;
use std::sync::Once;

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

    /// The same for jsonwebtoken, which knows more of them.
    pub fn in_jwt(self) -> Jwa {
        match self {
            Self::Hs256 => Jwa::HS256,
            Self::EdDsa => Jwa::EdDSA,
            Self::Es256 => Jwa::ES256,
        }
    }
}

/// RFC 7518, 3.2: a key of the hash's size or larger.
const LEAST_SECRET: usize = 32;
const MOST_SECRET: usize = 1024;
const UNUSABLE: &str = "It is not a key of this algorithm.";

/// A key's bytes, as they are stored; jsonwebtoken shows them nowhere and overwrites them in the end.
///
/// HS256 has its secret only; EdDSA a compressed point and a seed; ES256 an uncompressed point and a scalar.
#[derive(Clone)]
pub struct Key {
    algorithm: Algorithm,
    verifies: DecodingKey,
    signs: Option<EncodingKey>,
}

impl fmt::Debug for Key {
    /// Keys are not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm.name())
    }
}

impl Key {
    /// Reads a key of `algorithm` from PEM, JWK or, for HS256, the secret itself.
    pub fn read(algorithm: Algorithm, text: &str) -> Result<Self, TenancyError> {
        let shape = text.trim();
        let key = if shape.starts_with('{') {
            from_jwk(algorithm, shape)
        } else if algorithm == Algorithm::Hs256 {
            from_secret(text)
        } else {
            from_pem(algorithm, shape)
        };
        key.map_err(|what| TenancyError::MalformedSigningKey { algorithm: algorithm.name(), what })
    }

    /// A key of stored bytes; what is wrong with them otherwise: weak keys and points that are on no curve are refused here.
    pub fn new(algorithm: Algorithm, public: Option<&[u8]>, private: Option<&[u8]>) -> Result<Self, &'static str> {
        static PROVIDED: Once = Once::new();
        PROVIDED.call_once(|| PROVIDER.install_default().expect("this library has one jsonwebtoken and one provider"));
        let own = match private {
            Some(bytes) => Signs::new(algorithm.in_jwt(), bytes)?.public,
            None => None,
        };
        if public.zip(own.as_deref()).is_some_and(|(public, own)| public != own) {
            return Err("The public and the private part of the key do not belong together.");
        }
        let public = if algorithm == Algorithm::Hs256 { private } else { public.or(own.as_deref()) };
        let public = public.ok_or(UNUSABLE)?;
        Verifies::new(algorithm.in_jwt(), public)?;
        let (verifies, signs) = match algorithm {
            Algorithm::Hs256 => (DecodingKey::from_secret(public), private.map(EncodingKey::from_secret)),
            Algorithm::EdDsa => (DecodingKey::from_ed_der(public), private.map(EncodingKey::from_ed_der)),
            Algorithm::Es256 => (DecodingKey::from_ec_der(public), private.map(EncodingKey::from_ec_der)),
        };
        Ok(Self { algorithm, verifies, signs })
    }

    /// The bytes to store: what anybody may know, and the rest.
    pub fn bytes(&self) -> (Option<&[u8]>, Option<&[u8]>) {
        let public = self.verifies.try_get_as_bytes().ok().filter(|_| self.algorithm != Algorithm::Hs256);
        (public, self.signs.as_ref().map(EncodingKey::as_bytes))
    }

    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub fn to_verify(&self) -> &DecodingKey {
        &self.verifies
    }

    pub fn to_sign(&self) -> Option<&EncodingKey> {
        self.signs.as_ref()
    }
}

fn from_secret(text: &str) -> Result<Key, &'static str> {
    if text.contains("-----BEGIN") {
        return Err("It is a PEM key, not a shared secret.");
    }
    match text.trim().strip_prefix("base64:") {
        Some(encoded) => {
            let secret = Base64::decode_vec(encoded).map_err(|_| "What follows base64: is not base64.")?;
            Key::new(Algorithm::Hs256, None, Some(&secret))
        }
        None => Key::new(Algorithm::Hs256, None, Some(text.as_bytes())),
    }
}

fn from_pem(algorithm: Algorithm, pem: &str) -> Result<Key, &'static str> {
    const UNREADABLE: &str = "It is not a PEM key of this kind.";
    match (algorithm, pem.contains("PRIVATE KEY")) {
        (Algorithm::EdDsa, true) => {
            let key = ed25519_dalek::SigningKey::from_pkcs8_pem(pem).map_err(|_| UNREADABLE)?;
            Key::new(algorithm, None, Some(key.as_bytes()))
        }
        (Algorithm::EdDsa, false) => {
            let key = ed25519_dalek::VerifyingKey::from_public_key_pem(pem).map_err(|_| UNREADABLE)?;
            Key::new(algorithm, Some(key.as_bytes()), None)
        }
        (_, true) => {
            let key = if pem.contains("EC PRIVATE KEY") {
                p256::SecretKey::from_sec1_pem(pem).map_err(|_| UNREADABLE)?
            } else {
                p256::SecretKey::from_pkcs8_pem(pem).map_err(|_| UNREADABLE)?
            };
            Key::new(algorithm, None, Some(&key.to_bytes()))
        }
        (_, false) => {
            let key = p256::PublicKey::from_public_key_pem(pem).map_err(|_| UNREADABLE)?;
            Key::new(algorithm, Some(&key.to_sec1_bytes()), None)
        }
    }
}

fn from_jwk(algorithm: Algorithm, json: &str) -> Result<Key, &'static str> {
    /// The private part of a JSON Web Key, which jsonwebtoken passes over.
    #[derive(Deserialize)]
    struct Private {
        d: Option<String>,
    }
    const UNREADABLE: &str = "It is not a JSON Web Key.";
    const NOT_BASE64: &str = "A member of the key is not base64url.";
    let jwk: Jwk = serde_json::from_str(json).map_err(|_| UNREADABLE)?;
    let Private { d } = serde_json::from_str(json).map_err(|_| UNREADABLE)?;
    if jwk.common.key_algorithm.is_some_and(|said| said != algorithm.in_jwt().into()) {
        return Err("The JSON Web Key says it is for another algorithm.");
    }
    if jwk.common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature) {
        return Err("The JSON Web Key is not for signatures.");
    }
    // DecodingKey::from_jwk does not look at the curve.
    match (algorithm, &jwk.algorithm) {
        (Algorithm::Hs256, AlgorithmParameters::OctetKey(_)) => {}
        (Algorithm::EdDsa, AlgorithmParameters::OctetKeyPair(key)) if key.curve == EllipticCurve::Ed25519 => {}
        (Algorithm::Es256, AlgorithmParameters::EllipticCurve(key)) if key.curve == EllipticCurve::P256 => {}
        _ => return Err("The JSON Web Key is of another kind or curve, or incomplete."),
    }
    let key = DecodingKey::from_jwk(&jwk).map_err(|_| NOT_BASE64)?;
    let bytes = key.try_get_as_bytes().map_err(|_| UNUSABLE)?;
    if algorithm == Algorithm::Hs256 {
        return Key::new(algorithm, None, Some(bytes));
    }
    let private = d.map(|d| Base64UrlUnpadded::decode_vec(&d)).transpose().map_err(|_| NOT_BASE64)?;
    Key::new(algorithm, Some(bytes), private.as_deref())
}

/// What jsonwebtoken signs and verifies with: RustCrypto's newest, and no algorithm but ours.
static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key| Ok(Box::new(Signs::new(*algorithm, key.as_bytes()).map_err(unusable)?)),
    verifier_factory: |algorithm, key| {
        Ok(Box::new(Verifies::new(*algorithm, key.try_get_as_bytes()?).map_err(unusable)?))
    },
    key_utils: KeyUtils::new_unimplemented(),
};

fn unusable(why: &'static str) -> jsonwebtoken::errors::Error {
    new_error(ErrorKind::Provider(why.to_owned()))
}

/// Whether a message has this signature.
type Check = Box<dyn Fn(&[u8], &[u8]) -> bool>;
/// The signature of a message.
type Make = Box<dyn Fn(&[u8]) -> Vec<u8>>;

struct Verifies {
    algorithm: Jwa,
    /// Takes no less time for a signature that is nearly right.
    is_good: Check,
}

impl Verifies {
    fn new(algorithm: Jwa, bytes: &[u8]) -> Result<Self, &'static str> {
        let is_good: Check = match algorithm {
            Jwa::HS256 => {
                let mac = hmac(bytes)?;
                Box::new(move |message, signature| mac.clone().chain_update(message).verify_slice(signature).is_ok())
            }
            Jwa::EdDSA => {
                let key = bytes.try_into().map_err(|_| UNUSABLE)?;
                let key = ed25519_dalek::VerifyingKey::from_bytes(key).map_err(|_| UNUSABLE)?;
                if key.is_weak() {
                    return Err("The key is a weak one: anybody could sign for it.");
                }
                Box::new(move |message, signature| {
                    let signature = ed25519_dalek::Signature::from_slice(signature);
                    signature.is_ok_and(|signature| key.verify_strict(message, &signature).is_ok())
                })
            }
            Jwa::ES256 => {
                let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(bytes).map_err(|_| UNUSABLE)?;
                Box::new(move |message, signature| {
                    let signature = p256::ecdsa::Signature::from_slice(signature);
                    signature.is_ok_and(|signature| key.verify(message, &signature).is_ok())
                })
            }
            _ => return Err(UNUSABLE),
        };
        Ok(Self { algorithm, is_good })
    }
}

impl JwtVerifier for Verifies {
    fn algorithm(&self) -> Jwa {
        self.algorithm
    }
}

impl signature::Verifier<Vec<u8>> for Verifies {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        if (self.is_good)(message, signature) { Ok(()) } else { Err(signature::Error::new()) }
    }
}

struct Signs {
    algorithm: Jwa,
    /// What verifies its signatures, where that is no secret.
    public: Option<Vec<u8>>,
    sign: Make,
}

impl Signs {
    fn new(algorithm: Jwa, bytes: &[u8]) -> Result<Self, &'static str> {
        let (public, sign): (_, Make) = match algorithm {
            Jwa::HS256 => {
                let mac = hmac(bytes)?;
                (None, Box::new(move |message| mac.clone().chain_update(message).finalize().into_bytes().to_vec()))
            }
            Jwa::EdDSA => {
                let key = ed25519_dalek::SigningKey::try_from(bytes).map_err(|_| UNUSABLE)?;
                let public = key.verifying_key().as_bytes().to_vec();
                (Some(public), Box::new(move |message| key.sign(message).to_vec()))
            }
            Jwa::ES256 => {
                let key = p256::ecdsa::SigningKey::from_slice(bytes).map_err(|_| UNUSABLE)?;
                let public = key.verifying_key().to_sec1_point(false).as_bytes().to_vec();
                (Some(public), Box::new(move |message| Signer::<p256::ecdsa::Signature>::sign(&key, message).to_vec()))
            }
            _ => return Err(UNUSABLE),
        };
        Ok(Self { algorithm, public, sign })
    }
}

impl JwtSigner for Signs {
    fn algorithm(&self) -> Jwa {
        self.algorithm
    }
}

impl signature::Signer<Vec<u8>> for Signs {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        Ok((self.sign)(message))
    }
}

fn hmac(secret: &[u8]) -> Result<Hmac<Sha256>, &'static str> {
    if secret.len() < LEAST_SECRET {
        return Err("The secret is shorter than 32 bytes.");
    }
    if secret.len() > MOST_SECRET {
        return Err("The secret is longer than 1024 bytes.");
    }
    Hmac::new_from_slice(secret).map_err(|_| UNUSABLE)
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
        Key::read(algorithm, text).unwrap()
    }

    fn verifies(key: &Key, message: &[u8], signature: &[u8]) -> bool {
        let signature = Base64UrlUnpadded::encode_string(signature);
        jsonwebtoken::crypto::verify(&signature, message, key.to_verify(), key.algorithm().in_jwt()).unwrap()
    }

    fn sign(key: &Key, message: &[u8]) -> Vec<u8> {
        let signature = jsonwebtoken::crypto::sign(message, key.to_sign().unwrap(), key.algorithm().in_jwt());
        Base64UrlUnpadded::decode_vec(&signature.unwrap()).unwrap()
    }

    fn fault(algorithm: Algorithm, text: &str) -> &'static str {
        match Key::read(algorithm, text) {
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
            assert!(verifies(&key, message, &signature), "{algorithm:?}");
            for bit in 0..8 * signature.len() {
                let mut forged = signature.clone();
                forged[bit / 8] ^= 1 << (bit % 8);
                assert!(!verifies(&key, message, &forged), "{algorithm:?} bit {bit}");
            }
            for length in 0..signature.len() {
                assert!(!verifies(&key, message, &signature[..length]), "{algorithm:?} length {length}");
            }
            assert!(!verifies(&key, message, &[&signature[..], &[0]].concat()));
            assert!(!verifies(&key, &message[1..], &signature));
        }
    }

    #[test]
    fn the_deterministic_signatures_of_the_rfcs_come_out() {
        for (algorithm, jwk, token) in [VECTORS[0], VECTORS[1]] {
            let (message, signature) = parts(token);
            assert_eq!(sign(&key(algorithm, jwk), message), signature, "{algorithm:?}");
        }
        // ES256 has as many signatures as there are numbers; ours is good.
        let es256 = key(Algorithm::Es256, EC);
        assert!(verifies(&es256, b"message", &sign(&es256, b"message")));
    }

    #[test]
    fn no_algorithm_takes_anothers_signature() {
        for (algorithm, jwk, _) in VECTORS {
            for (_, _, token) in VECTORS.into_iter().filter(|(other, ..)| *other != algorithm) {
                let (message, signature) = parts(token);
                assert!(!verifies(&key(algorithm, jwk), message, &signature));
            }
        }
        // The classic: the public key's bytes as the secret of HS256.
        let public = key(Algorithm::EdDsa, OKP);
        let confused = Key::new(Algorithm::Hs256, None, public.bytes().0).unwrap();
        let forged = sign(&confused, b"message");
        assert!(!verifies(&public, b"message", &forged));
        for algorithm in [Algorithm::Hs256, Algorithm::Es256] {
            let read_as = jsonwebtoken::crypto::verify("", b"message", public.to_verify(), algorithm.in_jwt());
            assert_ne!(read_as.ok(), Some(true), "{algorithm:?}");
        }
    }

    const ED25519_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";
    const ED25519_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";

    #[test]
    fn pem_and_jwk_are_the_same_key() {
        let jwk = key(Algorithm::EdDsa, OKP);
        let private = key(Algorithm::EdDsa, ED25519_PRIVATE);
        let public = key(Algorithm::EdDsa, ED25519_PUBLIC);
        assert!(jwk.bytes() == private.bytes() && private.to_sign().is_some());
        assert!(public.bytes() == (private.bytes().0, None) && public.to_sign().is_none());

        use p256::pkcs8::{EncodePrivateKey, EncodePublicKey, LineEnding};
        let ec = key(Algorithm::Es256, EC);
        let secret = p256::SecretKey::from_slice(ec.bytes().1.unwrap()).unwrap();
        for pem in [secret.to_pkcs8_pem(LineEnding::LF).unwrap(), secret.to_sec1_pem(LineEnding::CRLF).unwrap()] {
            assert!(key(Algorithm::Es256, &pem).bytes() == ec.bytes());
        }
        let pem = secret.public_key().to_public_key_pem(LineEnding::LF).unwrap();
        assert!(key(Algorithm::Es256, &pem).bytes() == (ec.bytes().0, None));
    }

    #[test]
    fn a_secret_is_text_or_base64_and_long_enough() {
        let text = key(Algorithm::Hs256, "0123456789abcdef0123456789abcdef");
        let base64 = key(Algorithm::Hs256, "base64:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n");
        assert!(text.bytes() == base64.bytes() && text.bytes().0.is_none());
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
            (Algorithm::EdDsa, &OKP.replace("Ed25519", "P-256")),
            (Algorithm::Es256, &EC.replace("\"y\"", "\"z\"")),
            (Algorithm::Hs256, r#"{"kty":"oct"}"#),
        ] {
            assert_eq!(fault(algorithm, jwk), "The JSON Web Key is of another kind or curve, or incomplete.", "{jwk}");
        }
        let said = |member: &str| OCT.replace("\"kty\"", &format!("{member},\"kty\""));
        assert_eq!(
            fault(Algorithm::Hs256, &said(r#""alg":"HS512""#)),
            "The JSON Web Key says it is for another algorithm."
        );
        assert_eq!(fault(Algorithm::Hs256, &said(r#""use":"enc""#)), "The JSON Web Key is not for signatures.");
        assert!(Key::read(Algorithm::Hs256, &said(r#""use":"sig","alg":"HS256""#)).is_ok());
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
        for short in ["", "AAAA"] {
            let jwk = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{short}"}}"#);
            assert_eq!(fault(Algorithm::EdDsa, &jwk), "It is not a key of this algorithm.");
        }
        let jwk = format!(r#"{{"kty":"EC","crv":"P-256","x":"{zero}","y":"{zero}"}}"#);
        assert_eq!(fault(Algorithm::Es256, &jwk), "It is not a key of this algorithm.");
    }

    #[test]
    fn a_key_is_never_shown() {
        for (algorithm, jwk, _) in VECTORS {
            assert_eq!(format!("{:?}", key(algorithm, jwk)), algorithm.name());
        }
    }
}
