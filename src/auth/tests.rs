//! The table of bad tokens, the order of token places, the cache and the origins.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::json;

use super::*;

const NOW: u64 = 1_800_000_000;
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const OTHER: &[u8] = b"fedcba9876543210fedcba9876543210";

fn authenticator() -> Authenticator {
    let key = Key::hs256(None, SECRET).unwrap();
    Authenticator::new(vec![key], Rules::default()).unwrap()
}

fn with_rules(rules: Rules) -> Authenticator {
    Authenticator::new(vec![Key::hs256(None, SECRET).unwrap()], rules).unwrap()
}

/// A token of exactly these texts, signed with `secret` whatever they say.
fn signed(header: &str, claims: &str, secret: &[u8], algorithm: Algorithm) -> String {
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let message = format!("{}.{}", encode(header), encode(claims));
    let key = EncodingKey::from_secret(secret);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).unwrap();
    format!("{message}.{signature}")
}

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

fn hs256(claims: &str) -> String {
    signed(HEADER, claims, SECRET, Algorithm::HS256)
}

fn claims(value: &Value) -> String {
    hs256(&value.to_string())
}

fn good() -> Value {
    json!({"ns": "demo", "sub": "ada", "exp": NOW + 60, "roles": ["admin"]})
}

fn good_with(name: &str, value: Value) -> String {
    let mut all = good();
    all[name] = value;
    claims(&all)
}

fn good_without(name: &str) -> String {
    let mut all = good();
    all.as_object_mut().unwrap().remove(name);
    claims(&all)
}

fn refused(token: &str) {
    let shown = token.get(..80).unwrap_or(token);
    assert_eq!(
        authenticator().verify(token, NOW),
        Err(Unauthorized),
        "{shown}"
    );
}

/// B-03, D-06
#[test]
fn a_good_token_is_its_caller() {
    let caller = authenticator().verify(&claims(&good()), NOW).unwrap();
    assert_eq!(caller.tenant.as_str(), "demo");
    assert_eq!(caller.subject.as_deref(), Some("ada"));
    assert_eq!(caller.expires_at, Some(NOW + 60));
    assert!(caller.has_ns && caller.has_role(ROLE_ADMIN) && !caller.has_role("adm"));
    let user = CurrentUser::from(&*caller);
    assert_eq!((user.id.as_str(), user.tenant.as_str()), ("ada", "demo"));
}

/// D-06
#[test]
fn a_token_without_ns_is_of_the_default_tenant() {
    let caller = authenticator().verify(&good_without("ns"), NOW).unwrap();
    assert_eq!((caller.tenant.as_str(), caller.has_ns), ("default", false));
    let anonymous = Caller::anonymous();
    assert_eq!(
        (anonymous.tenant.as_str(), anonymous.has_ns),
        ("default", false)
    );
}

/// C12: a value of the whole process would be counted by all shards together, at every message.
#[test]
fn each_thread_has_its_own_anonymous_caller() {
    for anonymous in [Caller::anonymous, Caller::without_rights] {
        let there = std::thread::spawn(anonymous).join().unwrap();
        assert!(!Arc::ptr_eq(&anonymous(), &there));
        assert!(Arc::ptr_eq(&anonymous(), &anonymous()));
    }
}

/// T-A1
#[test]
fn no_algorithm_but_that_of_the_key() {
    let body = good().to_string();
    for algorithm in [
        "none", "None", "NONE", "nOnE", "", "HS384", "HS512", "RS256", "ES256", "hs256",
    ] {
        let header = json!({"alg": algorithm, "typ": "JWT"}).to_string();
        refused(&signed(&header, &body, SECRET, Algorithm::HS256));
        let unsigned = [header, body.clone()]
            .map(|text| URL_SAFE_NO_PAD.encode(text))
            .join(".");
        refused(&format!("{unsigned}."));
        refused(&unsigned);
    }
    refused(&signed(
        r#"{"alg":"HS512"}"#,
        &body,
        SECRET,
        Algorithm::HS512,
    ));
    refused(&signed(r#"{"typ":"JWT"}"#, &body, SECRET, Algorithm::HS256));
    refused(&signed(r#"{"alg":null}"#, &body, SECRET, Algorithm::HS256));
    refused(&signed(
        r#"{"alg":"HS256","alg":"HS256"}"#,
        &body,
        SECRET,
        Algorithm::HS256,
    ));
}

/// T-A1: a public key that everybody knows, used as if it were the shared secret.
#[test]
fn a_public_key_is_no_secret() {
    let public = b"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA0000\n-----END PUBLIC KEY-----\n";
    refused(&signed(
        HEADER,
        &good().to_string(),
        public,
        Algorithm::HS256,
    ));
}

/// T-A1
#[test]
fn signatures() {
    let token = claims(&good());
    refused(&signed(
        HEADER,
        &good().to_string(),
        OTHER,
        Algorithm::HS256,
    ));
    let (message, signature) = token.rsplit_once('.').unwrap();
    refused(&format!("{message}."));
    refused(message);
    refused(&format!("{message}.{}", &signature[..signature.len() - 1]));
    refused(&format!("{message}.{}", &signature[..20]));
    refused(&format!("{message}.{signature}A"));
    refused(&format!("{message}.{signature}="));
    refused(&format!("{message}.{signature}.{signature}"));
    refused(&format!("{token}\n"));
    refused(&format!(" {token}"));
    refused(&format!("{token} trailing"));
    for garbage in ["", ".", "..", "...", "a.b.c", "\0", "é.é.é"] {
        refused(garbage);
    }
    let other_body = claims(&json!({"ns": "other", "exp": NOW + 60}));
    let stolen = other_body.rsplit_once('.').unwrap().0;
    refused(&format!("{stolen}.{signature}"));
}

/// T-A1
#[test]
fn exp_must_be_a_sensible_number() {
    refused(&good_without("exp"));
    for bad in [
        json!("1800000060"),
        json!(-1),
        json!(null),
        json!([NOW + 60]),
        json!(true),
        json!(u64::MAX),
        json!(i64::MAX),
        json!(1e300),
        json!(-0.5),
        json!((NOW + 60) * 1000),
    ] {
        refused(&good_with("exp", bad));
    }
    refused(&hs256(r#"{"ns":"demo","exp":1e999}"#));
    assert!(
        authenticator()
            .verify(&good_with("exp", json!(1_800_000_060.5)), NOW)
            .is_ok()
    );
}

/// T-A1: clocks may differ by 30 s, not by more.
#[test]
fn leeway() {
    let token = good_with("exp", json!(NOW));
    assert!(authenticator().verify(&token, NOW + 29).is_ok());
    assert!(authenticator().verify(&token, NOW + 30).is_err());
    let token = good_with("nbf", json!(NOW + 30));
    assert!(authenticator().verify(&token, NOW).is_ok());
    assert!(authenticator().verify(&token, NOW - 1).is_err());
}

/// T-A1
#[test]
fn nbf_must_be_a_number_and_past() {
    refused(&good_with("nbf", json!(NOW + 3600)));
    refused(&good_with("nbf", json!("1")));
    refused(&good_with("nbf", json!(-1)));
    assert!(
        authenticator()
            .verify(&good_with("nbf", json!(NOW - 1)), NOW)
            .is_ok()
    );
}

/// T-A1
#[test]
fn ns_is_a_tenant_name_or_absent() {
    for bad in [
        json!(7),
        json!(""),
        json!("../etc"),
        json!("a/b"),
        json!("a\u{0}b"),
        json!(null),
        json!(["demo"]),
        json!("x".repeat(65)),
    ] {
        refused(&good_with("ns", bad));
    }
    refused(&good_with("ns", json!("x".repeat(10_240))));
}

#[test]
fn sub_and_roles_have_one_form() {
    refused(&good_with("sub", json!(7)));
    refused(&good_with("roles", json!("admin")));
    refused(&good_with("roles", json!([1])));
    refused(&good_with("roles", json!({"admin": true})));
    refused(&hs256(r#"["exp"]"#));
    refused(&hs256("null"));
}

/// T-A1: a key is chosen among those that are here, and nothing else is understood.
#[test]
fn headers_bring_no_key() {
    let body = good().to_string();
    for (name, value) in [
        ("kid", json!("unknown")),
        ("kid", json!("../../dev/null")),
        ("kid", json!("")),
        ("kid", json!(7)),
        (
            "jwk",
            json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(OTHER)}),
        ),
        ("jku", json!("https://evil.example/keys")),
        ("x5u", json!("https://evil.example/cert")),
        ("x5c", json!(["AAAA"])),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("zip", json!("DEF")),
    ] {
        let header = json!({"alg": "HS256", name: value}).to_string();
        refused(&signed(&header, &body, SECRET, Algorithm::HS256));
        refused(&signed(&header, &body, OTHER, Algorithm::HS256));
    }
}

/// T-A1
#[test]
fn no_claim_stands_twice() {
    refused(&hs256(&format!(
        r#"{{"ns":"a","ns":"b","exp":{}}}"#,
        NOW + 60
    )));
    refused(&hs256(&format!(
        r#"{{"ns":"a","exp":1,"exp":{}}}"#,
        NOW + 60
    )));
}

/// T-A1: 100 KiB, although signed; a limit that allows it lets it pass.
#[test]
fn a_long_token_is_not_even_read() {
    let long = good_with("filler", json!("x".repeat(100 * 1024)));
    refused(&long);
    let rules = Rules {
        token_bytes_max: 1 << 20,
        ..Rules::default()
    };
    assert!(with_rules(rules).verify(&long, NOW).is_ok());
}

#[test]
fn issuer_and_audience_when_configured() {
    let rules = Rules {
        issuer: Some("we".into()),
        audience: Some("tidegate".into()),
        ..Rules::default()
    };
    let strict = with_rules(rules);
    let token = |iss: &str, aud: Value| {
        claims(&json!({"ns": "demo", "exp": NOW + 60, "iss": iss, "aud": aud}))
    };
    assert!(strict.verify(&token("we", json!("tidegate")), NOW).is_ok());
    assert!(
        strict
            .verify(&token("we", json!(["x", "tidegate"])), NOW)
            .is_ok()
    );
    assert!(
        strict
            .verify(&token("they", json!("tidegate")), NOW)
            .is_err()
    );
    assert!(strict.verify(&token("we", json!("other")), NOW).is_err());
    assert!(strict.verify(&claims(&good()), NOW).is_err());
    assert!(
        authenticator()
            .verify(&token("they", json!("other")), NOW)
            .is_ok()
    );
}

#[test]
fn a_life_time_can_be_bounded() {
    let strict = with_rules(Rules {
        lifetime_s_max: 300,
        ..Rules::default()
    });
    assert!(
        strict
            .verify(&good_with("exp", json!(NOW + 300)), NOW)
            .is_ok()
    );
    assert!(
        strict
            .verify(&good_with("exp", json!(NOW + 3600)), NOW)
            .is_err()
    );
}

/// T-A1: key rotation by kid; two keys live at once.
#[test]
fn two_keys_live_while_they_rotate() {
    let new = Key::hs256(Some("new".into()), OTHER).unwrap();
    let old = Key::hs256(Some("old".into()), SECRET).unwrap();
    let both = Authenticator::new(vec![new.clone(), old], Rules::default()).unwrap();
    let named = |kid: &str, secret| {
        let header = json!({"alg": "HS256", "kid": kid}).to_string();
        signed(&header, &good().to_string(), secret, Algorithm::HS256)
    };
    assert!(both.verify(&named("new", OTHER), NOW).is_ok());
    assert!(both.verify(&named("old", SECRET), NOW).is_ok());
    assert!(both.verify(&named("new", SECRET), NOW).is_err());
    assert!(
        both.verify(&claims(&good()), NOW).is_ok(),
        "a token that names no key"
    );
    let rotated = Authenticator::new(vec![new.clone()], Rules::default()).unwrap();
    assert!(rotated.verify(&named("old", SECRET), NOW).is_err());
    assert!(Authenticator::new(vec![new.clone(), new], Rules::default()).is_err());
}

/// R-22, B-20
#[test]
fn an_issued_token_is_accepted_until_it_ends() {
    let issuer = AuthConfig::new(SECRET, 3600).unwrap();
    let who = Claims::new(Tenant::parse("demo").unwrap(), "svc").role("admin");
    let token = issuer.issue(&who, NOW).unwrap();
    let caller = authenticator().verify(&token, NOW + 3629).unwrap();
    assert_eq!(caller.subject.as_deref(), Some("svc"));
    assert!(caller.has_role("admin") && caller.tenant.as_str() == "demo");
    assert!(authenticator().verify(&token, NOW + 3630).is_err());
}

#[test]
fn short_secrets_and_debug_output() {
    assert!(Key::hs256(None, &SECRET[1..]).is_err());
    assert!(AuthConfig::new(&SECRET[1..], 1).is_err());
    let shown = format!(
        "{:?} {:?}",
        authenticator(),
        AuthConfig::new(SECRET, 1).unwrap()
    );
    assert!(
        !shown.contains("0123456789") && !shown.contains("48, 49"),
        "{shown}"
    );
}

/// D-09
#[test]
fn the_first_place_with_a_token_decides() {
    let all = token_of(Some("Bearer a"), Some("b"), &["bearer", "c"]);
    assert_eq!(all, Some(("a", TokenSource::Header)));
    assert_eq!(
        token_of(Some("bearer   a "), None, &[]),
        Some(("a", TokenSource::Header))
    );
    assert_eq!(
        token_of(Some("Bearer"), Some("b"), &[]),
        Some(("", TokenSource::Header))
    );
    assert_eq!(
        token_of(Some("Basic eA=="), Some("b"), &[]),
        Some(("b", TokenSource::Query))
    );
    assert_eq!(
        token_of(None, Some(""), &["bearer", "c"]),
        Some(("", TokenSource::Query))
    );
    let offered = ["tidegate.durable.v1", "bearer", " c "];
    assert_eq!(
        token_of(None, None, &offered),
        Some(("c", TokenSource::Subprotocol))
    );
    assert_eq!(
        token_of(None, None, &["bearer"]),
        Some(("", TokenSource::Subprotocol))
    );
    assert_eq!(token_of(None, None, &["chat"]), None);
}

#[test]
fn a_cached_token_still_expires() {
    let authenticator = authenticator();
    let mut cache = TokenCache::new(16);
    let token = claims(&good());
    let first = cache.verify(&authenticator, &token, NOW).unwrap();
    let again = cache.verify(&authenticator, &token, NOW).unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    assert_eq!(
        cache.verify(&authenticator, &token, NOW + 90),
        Err(Unauthorized)
    );
    assert_eq!(cache.verify(&authenticator, "bad", NOW), Err(Unauthorized));
    assert_eq!(cache.len(), 1);
}

#[test]
fn the_cache_is_bounded_and_forgets_the_unused() {
    let authenticator = authenticator();
    let mut cache = TokenCache::new(8);
    let kept = good_with("sub", json!("kept"));
    let first = cache.verify(&authenticator, &kept, NOW).unwrap();
    for number in 0..100 {
        let token = good_with("sub", json!(format!("client-{number}")));
        cache.verify(&authenticator, &token, NOW).unwrap();
        let again = cache.verify(&authenticator, &kept, NOW).unwrap();
        assert!(Arc::ptr_eq(&first, &again), "what is used stays");
        assert!(cache.len() <= 8, "{}", cache.len());
    }
}

/// A token of a key that is gone must not live on in a cache.
#[test]
fn new_keys_empty_the_cache() {
    let mut cache = TokenCache::new(8);
    let token = claims(&good());
    assert!(cache.verify(&authenticator(), &token, NOW).is_ok());
    let key = Key::hs256(None, OTHER).unwrap();
    let rotated = Authenticator::new(vec![key], Rules::default()).unwrap();
    assert_eq!(cache.verify(&rotated, &token, NOW), Err(Unauthorized));
    assert!(cache.is_empty());
}

#[test]
fn origins_are_compared_exactly() {
    let policy = OriginPolicy {
        allowed: ["https://app.example", "http://localhost:3000"]
            .map(|o| Origin::parse(o).unwrap())
            .into(),
        ..OriginPolicy::default()
    };
    for good in [
        "https://app.example",
        "https://APP.example:443",
        "http://localhost:3000",
    ] {
        assert!(policy.allows(Some(good)), "{good}");
    }
    for bad in [
        "null",
        "",
        "https://app.example.evil.com",
        "https://evil-app.example",
        "http://app.example",
        "https://app.example:8443",
        "https://app.example/",
        "https://app.example@evil.com",
        "https://app.example:+443",
        "https://app.example:99999",
        "file://app.example",
        "https://аpp.example",
        "http://localhost",
    ] {
        assert!(!policy.allows(Some(bad)), "{bad}");
    }
    assert!(policy.allows(None), "a client that is no browser");
    let strict = OriginPolicy {
        required: true,
        ..policy
    };
    assert!(!strict.allows(None));
}

/// H8: applications that show their own pages have schemes of their own.
#[test]
fn schemes_of_applications_are_origins() {
    let named = [
        "capacitor://localhost",
        "tauri://localhost",
        "ionic://localhost:8100",
        "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
        "moz-extension://1e7a2b3c-0000-4000-8000-000000000000",
    ];
    let policy = OriginPolicy {
        allowed: named.map(|o| Origin::parse(o).unwrap()).into(),
        ..OriginPolicy::default()
    };
    for good in named.into_iter().chain(["Capacitor://LOCALHOST"]) {
        assert!(policy.allows(Some(good)) && policy.reads(good), "{good}");
    }
    for bad in [
        "http://localhost",
        "ionic://localhost",
        "capacitor://localhost:80",
        "capacitor://localhost.evil.com",
        "capacitor://",
        "://localhost",
        "1tauri://localhost",
        "ta uri://localhost",
    ] {
        assert!(!policy.allows(Some(bad)) && !policy.reads(bad), "{bad}");
    }
}

#[test]
fn without_a_list_only_development_looks_at_origins() {
    assert!(OriginPolicy::default().allows(Some("https://anything.example")));
    let dev = OriginPolicy {
        loopback_only: true,
        ..OriginPolicy::default()
    };
    for good in [
        "http://localhost:5173",
        "http://127.0.0.1:4000",
        "http://[::1]:4000",
    ] {
        assert!(dev.allows(Some(good)), "{good}");
    }
    for bad in [
        "https://anything.example",
        "http://localhost.evil.com",
        "http://127.0.0.1.evil.com",
        "null",
    ] {
        assert!(!dev.allows(Some(bad)), "{bad}");
    }
}

/// The tenant of a request travels with its task and nowhere else.
#[test]
fn the_current_caller_ends_with_its_scope() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    assert!(Caller::current().is_none());
    let inside = runtime.block_on(CALLER.scope(Caller::anonymous(), async { Caller::current() }));
    assert!(inside.is_some() && Caller::current().is_none());
}

fn proptest_config() -> proptest::test_runner::Config {
    proptest::test_runner::Config {
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(7519),
        ..Default::default()
    }
}

proptest::proptest! {
    #![proptest_config(proptest_config())]

    /// T-F5, T-A1, P11, P16: whatever is changed in a token, it is refused, and nothing panics
    #[test]
    fn a_damaged_token_is_refused(
        at in proptest::prelude::any::<proptest::sample::Index>(),
        byte in 0x20_u8..0x7f,
        how in 0..4_u8,
        text in "[A-Za-z0-9._-]{0,40}",
    ) {
        let good = claims(&good());
        let mut bytes = good.clone().into_bytes();
        let at = at.index(bytes.len());
        match how {
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            2 => drop(bytes.remove(at)),
            _ => bytes.splice(at.., text.bytes()).for_each(drop),
        }
        let damaged = String::from_utf8(bytes).unwrap();
        if damaged != good {
            let found = authenticator().verify(&damaged, NOW);
            // The last digits of a signature may stand for the same bytes.
            let is_same = found.as_ref().is_ok_and(|caller| {
                authenticator().verify(&good, NOW).as_ref() == Ok(caller)
            });
            let is_tail = good[..good.len() - 2] == damaged[..damaged.len().min(good.len() - 2)];
            proptest::prop_assert!(found == Err(Unauthorized) || is_same && is_tail, "{}", damaged);
        }
    }
}
