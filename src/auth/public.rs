//! Public keys from files: PEM and JWKS become keys with the one algorithm that their form allows.
//! What is no public key for signatures is refused with the reason. Knows bytes; no file.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use serde::Deserialize;
use serde_json::Value;

use super::token::Key;

/// A shorter RSA key can be broken.
pub const RSA_BITS_MIN: usize = 2_048;

/// Why a file gives no keys.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublicKeyError {
    /// Neither of the two forms.
    #[error("it is no PEM and no JWKS: {0}")]
    Form(String),
    /// There is nothing in it.
    #[error("it holds no public key for signatures")]
    Empty,
    /// A secret in a file that others may read.
    #[error(
        "it holds a private or a shared key: give only the public part (openssl pkey -in KEY -pubout)"
    )]
    Private,
    /// Another kind of PEM.
    #[error("it holds a `{0}`: give the public key alone (openssl x509 -in CERT -noout -pubkey)")]
    Tag(String),
    /// Another kind of key.
    #[error("a key is none of RSA, EC P-256 and Ed25519")]
    Kind,
    /// The key says that it is for another algorithm.
    #[error("a key says `alg` = {said}, and is one for {wanted}")]
    Algorithm {
        /// What it says.
        said: String,
        /// What it can do here.
        wanted: &'static str,
    },
    /// The key cannot be what it says.
    #[error("a key is broken")]
    Broken,
    /// An RSA key that can be broken.
    #[error("an RSA key of {bits} bits is shorter than {RSA_BITS_MIN}")]
    ShortRsa {
        /// Its length.
        bits: usize,
    },
}

impl Key {
    /// All public keys of a file, PEM or JWKS. `name` is what a token may call a key that brings
    /// no `kid` of its own, and `from` tells an operator where it stands.
    pub fn public(bytes: &[u8], name: &str, from: &str) -> Result<Vec<Self>, PublicKeyError> {
        let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
        let keys = match first {
            Some(b'{') => of_jwks(bytes, from),
            _ => of_pem(bytes, name, from),
        }?;
        match keys.is_empty() {
            true => Err(PublicKeyError::Empty),
            false => Ok(keys),
        }
    }
}

fn of_pem(bytes: &[u8], name: &str, from: &str) -> Result<Vec<Key>, PublicKeyError> {
    let parts = pem::parse_many(bytes).map_err(|error| PublicKeyError::Form(error.to_string()))?;
    let key = |part: &pem::Pem| {
        let (algorithm, decoding) = match part.tag() {
            "PUBLIC KEY" => of_spki(part.contents())?,
            "RSA PUBLIC KEY" => of_rsa(part.contents())?,
            tag if tag.ends_with("PRIVATE KEY") => return Err(PublicKeyError::Private),
            tag => return Err(PublicKeyError::Tag(tag.to_owned())),
        };
        checked(Some(name.to_owned()), algorithm, decoding, from)
    };
    parts.iter().map(key).collect()
}

/// The form says what the key is for, so nobody has to choose.
fn of_spki(der: &[u8]) -> Result<(Algorithm, DecodingKey), PublicKeyError> {
    let info = spki::SubjectPublicKeyInfoRef::try_from(der).map_err(|_| PublicKeyError::Broken)?;
    let bits = info.subject_public_key.as_bytes();
    let bits = bits.ok_or(PublicKeyError::Broken)?;
    match info.algorithm.oid {
        OID_RSA => of_rsa(bits),
        OID_ED25519 => Ok((Algorithm::EdDSA, DecodingKey::from_ed_der(bits))),
        OID_EC => match info.algorithm.parameters_oid() {
            Ok(OID_P256) => Ok((Algorithm::ES256, DecodingKey::from_ec_der(bits))),
            _ => Err(PublicKeyError::Kind),
        },
        _ => Err(PublicKeyError::Kind),
    }
}

fn of_rsa(der: &[u8]) -> Result<(Algorithm, DecodingKey), PublicKeyError> {
    let key = pkcs1::RsaPublicKey::try_from(der).map_err(|_| PublicKeyError::Broken)?;
    check_rsa(key.modulus.as_bytes())?;
    Ok((Algorithm::RS256, DecodingKey::from_rsa_der(der)))
}

fn check_rsa(modulus: &[u8]) -> Result<(), PublicKeyError> {
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let bits = match modulus.get(zeros) {
        Some(first) => (modulus.len() - zeros) * 8 - first.leading_zeros() as usize,
        None => 0,
    };
    match RSA_BITS_MIN <= bits {
        true => Ok(()),
        false => Err(PublicKeyError::ShortRsa { bits }),
    }
}

const OID_RSA: spki::ObjectIdentifier = spki::ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const OID_EC: spki::ObjectIdentifier = spki::ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const OID_P256: spki::ObjectIdentifier = spki::ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const OID_ED25519: spki::ObjectIdentifier = spki::ObjectIdentifier::new_unwrap("1.3.101.112");

/// A set of keys; those for encryption may stand beside ours in any form.
#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

fn of_jwks(bytes: &[u8], from: &str) -> Result<Vec<Key>, PublicKeyError> {
    let form = |error: serde_json::Error| PublicKeyError::Form(error.to_string());
    let set: Set = serde_json::from_slice(bytes).map_err(form)?;
    let signs = |key: &&Value| key.get("use").is_none_or(|what| what == "sig");
    let keys = set.keys.into_iter();
    let keys = keys.filter(|key| signs(&key)).map(|key| {
        // The private parts of RSA and of curves, and a shared key.
        if key.get("d").is_some() || key.get("k").is_some() {
            return Err(PublicKeyError::Private);
        }
        of_jwk(
            &Jwk::deserialize(key).map_err(|_| PublicKeyError::Kind)?,
            from,
        )
    });
    keys.collect()
}

fn of_jwk(jwk: &Jwk, from: &str) -> Result<Key, PublicKeyError> {
    debug_assert_ne!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption));
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            Algorithm::ES256
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            Algorithm::EdDSA
        }
        _ => return Err(PublicKeyError::Kind),
    };
    let said = jwk.common.key_algorithm.map(|said| said.to_string());
    if let Some(said) = said.filter(|said| *said != name_of(algorithm)) {
        let wanted = name_of(algorithm);
        return Err(PublicKeyError::Algorithm { said, wanted });
    }
    let decoding = DecodingKey::from_jwk(jwk).map_err(|_| PublicKeyError::Broken)?;
    if let DecodingKeyKind::RsaModulusExponent { n, .. } = decoding.kind() {
        check_rsa(n)?;
    }
    checked(jwk.common.key_id.clone(), algorithm, decoding, from)
}

/// A key that is not on its curve would be found out by the first token only.
fn checked(
    id: Option<String>,
    algorithm: Algorithm,
    decoding: DecodingKey,
    from: &str,
) -> Result<Key, PublicKeyError> {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey};
    let parsed = match (algorithm, decoding.kind()) {
        (Algorithm::ES256, DecodingKeyKind::SecretOrDer(bytes)) => {
            ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, bytes)
        }
        (Algorithm::EdDSA, DecodingKeyKind::SecretOrDer(bytes)) => {
            ParsedPublicKey::new(&ED25519, bytes)
        }
        _ => return Ok(Key::with(id, algorithm, decoding, from)),
    };
    match parsed {
        Ok(_) => Ok(Key::with(id, algorithm, decoding, from)),
        Err(_) => Err(PublicKeyError::Broken),
    }
}

/// How tokens call an algorithm.
pub(super) fn name_of(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::HS256 => "HS256",
        Algorithm::RS256 => "RS256",
        Algorithm::ES256 => "ES256",
        Algorithm::EdDSA => "EdDSA",
        // Keys of ours have none of the others.
        _ => "?",
    }
}
