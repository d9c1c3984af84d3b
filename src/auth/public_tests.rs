//! Tokens signed with private keys, and what may not pass for one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::public::PublicKeyError;
use super::token::{Fault, Key};
use super::{Authenticator, Rules};

const NOW: u64 = 1_800_000_000;
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

fn file(name: &str) -> Vec<u8> {
    std::fs::read(format!("tests/fixtures/keys/{name}.pem")).unwrap()
}

fn public(name: &str) -> Key {
    let mut keys = Key::public(&file(name), name, &format!("{name}.pem")).unwrap();
    assert_eq!(keys.len(), 1);
    keys.remove(0)
}

fn private(name: &str) -> (Algorithm, EncodingKey) {
    let pem = file(&format!("{name}_private"));
    match name {
        "rsa" => (Algorithm::RS256, EncodingKey::from_rsa_pem(&pem).unwrap()),
        "ec" => (Algorithm::ES256, EncodingKey::from_ec_pem(&pem).unwrap()),
        _ => (Algorithm::EdDSA, EncodingKey::from_ed_pem(&pem).unwrap()),
    }
}

/// A token whose header is exactly this, signed with a key whatever it says.
fn signed(header: &Value, (algorithm, key): &(Algorithm, EncodingKey)) -> String {
    let claims = json!({"ns": "demo", "sub": "ada", "exp": NOW + 60, "roles": ["admin"]});
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", encode(header), encode(&claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, *algorithm).unwrap();
    format!("{message}.{signature}")
}

fn good(name: &str) -> String {
    let key = private(name);
    let header = json!({"alg": super::public::name_of(key.0), "typ": "JWT"});
    signed(&header, &key)
}

fn authenticator(keys: Vec<Key>) -> Authenticator {
    Authenticator::new(keys, Rules::default()).unwrap()
}

fn fault(authenticator: &Authenticator, token: &str) -> Fault {
    authenticator.examine(token, NOW).unwrap_err()
}

/// T-A1: each kind of key verifies its own tokens and nobody else's, and it is told which one did.
#[test]
fn a_key_verifies_what_was_signed_with_it() {
    for name in ["rsa", "ec", "ed"] {
        let alone = authenticator(vec![public(name)]);
        let token = good(name);
        let (caller, key) = alone.examine(&token, NOW).unwrap();
        assert_eq!(caller.subject.as_deref(), Some("ada"));
        assert!(key.to_string().starts_with(&format!("`{name}` (")), "{key}");
        for other in ["rsa", "ec", "ed", "ed2"]
            .iter()
            .filter(|other| **other != name)
        {
            let wrong = good(other);
            assert_eq!(
                fault(&alone, &wrong),
                Fault::Signature,
                "{other} for {name}"
            );
        }
    }
    let all = authenticator(["rsa", "ec", "ed"].map(public).into());
    for name in ["rsa", "ec", "ed"] {
        assert!(all.examine(&good(name), NOW).is_ok());
    }
}

/// T-A1: the text that everybody may read, used as if it were a secret.
#[test]
fn a_public_key_is_no_shared_secret() {
    for name in ["rsa", "ec", "ed"] {
        let alone = authenticator(vec![public(name)]);
        let pem = file(name);
        let trimmed = pem.trim_ascii().to_vec();
        let der = pem::parse(&pem).unwrap().into_contents();
        for bytes in [pem, trimmed, der.clone(), der[der.len() - 32..].to_vec()] {
            for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                let key = (algorithm, EncodingKey::from_secret(&bytes));
                for said in ["HS256", "HS384", "HS512", "RS256", "ES256", "EdDSA", "none"] {
                    for header in [json!({"alg": said}), json!({"alg": said, "kid": name})] {
                        assert!(
                            alone.examine(&signed(&header, &key), NOW).is_err(),
                            "{header}"
                        );
                    }
                }
            }
        }
    }
}

/// T-A1: what a header says never chooses the algorithm.
#[test]
fn a_header_chooses_no_algorithm() {
    let shared = Key::hs256(Some("shared".into()), SECRET).unwrap();
    let all = authenticator(vec![shared, public("rsa"), public("ec"), public("ed")]);
    for name in ["rsa", "ec", "ed"] {
        let key = private(name);
        for said in [
            "none", "None", "", "HS256", "RS256", "RS512", "PS256", "ES256", "ES384", "EdDSA",
        ] {
            if said == super::public::name_of(key.0) {
                continue;
            }
            for kid in ["rsa", "ec", "ed", "shared"] {
                let header = json!({"alg": said, "kid": kid});
                assert!(
                    all.examine(&signed(&header, &key), NOW).is_err(),
                    "{name}: {header}"
                );
            }
        }
        let unsigned = good(name);
        let unsigned = unsigned.rsplit_once('.').unwrap().0;
        assert!(all.examine(&format!("{unsigned}."), NOW).is_err());
        assert!(all.examine(unsigned, NOW).is_err());
    }
}

/// T-A1: a name chooses among the keys; it is no address, and no other key is tried.
#[test]
fn a_named_key_is_the_only_one_that_is_tried() {
    let both = authenticator(vec![public("ed"), public("ed2")]);
    let named = |kid: &str| signed(&json!({"alg": "EdDSA", "kid": kid}), &private("ed"));
    let token = named("ed");
    let (_, key) = both.examine(&token, NOW).unwrap();
    assert_eq!(key.to_string(), "`ed` (EdDSA, ed.pem)");
    assert_eq!(fault(&both, &named("ed2")), Fault::Signature);
    for kid in [
        "",
        "other",
        "../ed",
        "tests/fixtures/keys/ed.pem",
        "http://x/ed",
    ] {
        assert_eq!(fault(&both, &named(kid)), Fault::UnknownKey, "{kid}");
    }
    let twice = Authenticator::new(vec![public("ed"), public("ed")], Rules::default());
    assert!(
        twice
            .unwrap_err()
            .to_string()
            .contains("two keys are named `ed`")
    );
}

fn jwks(keys: &[Value]) -> Vec<u8> {
    json!({ "keys": keys }).to_string().into_bytes()
}

/// A key of the fixtures as JWKS has it.
fn jwk(name: &str) -> Value {
    let der = pem::parse(file(name)).unwrap().into_contents();
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    match name {
        "ec" => {
            let point = &der[der.len() - 64..];
            json!({"kty": "EC", "crv": "P-256", "x": text(&point[..32]), "y": text(&point[32..])})
        }
        "ed" => json!({"kty": "OKP", "crv": "Ed25519", "x": text(&der[der.len() - 32..])}),
        _ => {
            let info = spki::SubjectPublicKeyInfoRef::try_from(der.as_slice()).unwrap();
            let key = pkcs1::RsaPublicKey::try_from(info.subject_public_key.raw_bytes()).unwrap();
            let parts = [key.modulus, key.public_exponent].map(|part| text(part.as_bytes()));
            json!({"kty": "RSA", "n": parts[0], "e": parts[1]})
        }
    }
}

#[test]
fn a_set_of_keys_has_names_of_its_own() {
    let with = |name: &str| {
        let mut key = jwk(name);
        key["kid"] = format!("{name}-2026").into();
        key["use"] = "sig".into();
        key
    };
    let mut encrypts = jwk("rsa");
    encrypts["use"] = "enc".into();
    encrypts["alg"] = "RSA-OAEP".into();
    let set = jwks(&[with("rsa"), with("ec"), encrypts, with("ed")]);
    let keys = Key::public(&set, "jwks", "jwks.json").unwrap();
    let shown: Vec<_> = keys.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "`rsa-2026` (RS256, jwks.json)",
            "`ec-2026` (ES256, jwks.json)",
            "`ed-2026` (EdDSA, jwks.json)"
        ]
    );
    let all = authenticator(keys);
    for name in ["rsa", "ec", "ed"] {
        let (algorithm, key) = private(name);
        let header =
            json!({"alg": super::public::name_of(algorithm), "kid": format!("{name}-2026")});
        assert!(
            all.examine(&signed(&header, &(algorithm, key)), NOW)
                .is_ok(),
            "{name}"
        );
    }
}

#[test]
fn what_is_no_public_key_for_signatures_is_refused() {
    let refused = |bytes: &[u8]| Key::public(bytes, "x", "x").unwrap_err();
    for name in ["rsa_private", "ec_private", "ed_private"] {
        assert!(
            matches!(refused(&file(name)), PublicKeyError::Private),
            "{name}"
        );
    }
    assert!(matches!(refused(&file("cert")), PublicKeyError::Tag(_)));
    assert!(matches!(
        refused(&file("rsa1024")),
        PublicKeyError::ShortRsa { bits: 1_024 }
    ));
    assert!(matches!(refused(&file("ec384")), PublicKeyError::Kind));
    assert!(matches!(refused(b""), PublicKeyError::Empty));
    assert!(matches!(refused(b"hello"), PublicKeyError::Empty));
    assert!(matches!(refused(b"{}"), PublicKeyError::Form(_)));
    assert!(matches!(refused(&jwks(&[])), PublicKeyError::Empty));
    let broken = |name: &str, field: &str, value: &str| {
        let mut key = jwk(name);
        key[field] = value.into();
        refused(&jwks(&[key]))
    };
    for (name, field, value) in [("ec", "d", "x"), ("rsa", "d", "x"), ("ed", "k", "x")] {
        assert!(matches!(
            broken(name, field, value),
            PublicKeyError::Private
        ));
    }
    let shared = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(SECRET)});
    assert!(matches!(refused(&jwks(&[shared])), PublicKeyError::Private));
    for (name, said) in [
        ("ec", "ES384"),
        ("rsa", "PS256"),
        ("rsa", "HS256"),
        ("ed", "ES256"),
    ] {
        let error = broken(name, "alg", said);
        assert!(matches!(error, PublicKeyError::Algorithm { .. }), "{error}");
    }
    let zero = URL_SAFE_NO_PAD.encode([1; 32]);
    assert!(matches!(broken("ec", "x", &zero), PublicKeyError::Broken));
    let short = URL_SAFE_NO_PAD.encode([0x80; 128]);
    assert!(matches!(
        broken("rsa", "n", &short),
        PublicKeyError::ShortRsa { bits: 1_024 }
    ));
}
