//! Tokens: signed, verified, and turned into a caller. The algorithm belongs to the key, never to
//! the token. Whatever is wrong with a token, the peer learns one and the same thing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::rights::{CLAIM_PUBLISH, CLAIM_SUBSCRIBE};
use super::{Caller, Rights, RightsMode};
use crate::id::Tenant;

/// A shorter secret could be guessed from one token.
pub const SECRET_BYTES_MIN: usize = 32;

/// The token is not accepted. One value for all causes: a peer that could tell them apart would
/// learn about keys and clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a valid token is required")]
pub struct Unauthorized;

/// What is wrong with a token, for the operator who made it. Never shown to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// It is longer than a token may be.
    #[error("it is longer than limits.token_bytes_max")]
    Long,
    /// It is no token.
    #[error("it is not three parts of base64url with a JSON header")]
    Malformed,
    /// It says which key to use or what else to understand.
    #[error("its header names a key or an extension (jku, jwk, x5u, x5c, crit, enc, zip)")]
    Header,
    /// It names a key that is not configured.
    #[error(
        "its `kid` names none of the keys: auth.jwt_key_id, auth.jwt_previous_key_id, those of auth.public_key_files"
    )]
    UnknownKey,
    /// Not signed with a key of ours, or `iss` or `aud` are not the configured ones.
    #[error(
        "it is not signed with a configured key, or a claim stands twice, or `iss` or `aud` differ from auth.issuer and auth.audience"
    )]
    Signature,
    /// A claim is missing or of another form.
    #[error("its claim `{0}` is missing or malformed")]
    Claim(&'static str),
    /// Its time is over.
    #[error("it has expired")]
    Expired,
    /// Its time has not come.
    #[error("it is not valid yet")]
    Early,
    /// It lives too long.
    #[error("it is valid for longer than auth.token_lifetime_s_max")]
    LongLived,
}

impl From<Fault> for Unauthorized {
    fn from(_: Fault) -> Self {
        Self
    }
}

/// Why keys cannot be used. Never shown to a peer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A secret that could be guessed.
    #[error("a secret of {bytes} bytes is shorter than {SECRET_BYTES_MIN}")]
    Short {
        /// Its length.
        bytes: usize,
    },
    /// Two keys of one name.
    #[error(
        "two keys are named `{id}`: auth.jwt_key_id, auth.jwt_previous_key_id and each `kid` and file name of auth.public_key_files must differ"
    )]
    SameId {
        /// The name.
        id: String,
    },
    /// The machine gives no random bytes.
    #[error("no random bytes for a secret: {0}")]
    Random(getrandom::Error),
    /// The cryptography that this program was built with does not work.
    #[error("tokens cannot be signed and verified by this build")]
    Cryptography(#[source] jsonwebtoken::errors::Error),
}

/// A key that tokens are verified with. It has one algorithm, whatever a token says.
#[derive(Clone)]
pub struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    decoding: DecodingKey,
    /// Where it stands, for an operator.
    from: Box<str>,
}

impl Key {
    pub(super) fn with(
        id: Option<String>,
        algorithm: Algorithm,
        decoding: DecodingKey,
        from: &str,
    ) -> Self {
        Self {
            id,
            algorithm,
            decoding,
            from: from.into(),
        }
    }

    /// A shared secret; `id` is what the header `kid` of a token may name.
    pub fn hs256(id: Option<String>, secret: &[u8]) -> Result<Self, KeyError> {
        check_length(secret)?;
        let decoding = DecodingKey::from_secret(secret);
        Ok(Self::with(id, Algorithm::HS256, decoding, ""))
    }

    /// The same with the place where it stands, for an operator.
    #[must_use]
    pub fn from(self, place: &str) -> Self {
        Self {
            from: place.into(),
            ..self
        }
    }
}

/// Its name, its algorithm, and where it stands.
impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let algorithm = super::public::name_of(self.algorithm);
        match &self.id {
            Some(id) => write!(f, "`{id}` ({algorithm}, {})", self.from),
            None => write!(f, "without a name ({algorithm}, {})", self.from),
        }
    }
}

/// Shows the name and never the secret.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

fn check_length(secret: &[u8]) -> Result<(), KeyError> {
    match secret.len() < SECRET_BYTES_MIN {
        true => Err(KeyError::Short {
            bytes: secret.len(),
        }),
        false => Ok(()),
    }
}

/// What else a token must fulfil.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The claim `iss` must be this.
    pub issuer: Option<String>,
    /// The claim `aud` must be or hold this.
    pub audience: Option<String>,
    /// Seconds by which clocks may differ.
    pub leeway_s: u64,
    /// Longest time that a token may still be valid; 0 is off.
    pub lifetime_s_max: u64,
    /// Longest token.
    pub token_bytes_max: usize,
    /// What a token without the claims `publish` and `subscribe` may do.
    pub rights: RightsMode,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            issuer: None,
            audience: None,
            leeway_s: 30,
            lifetime_s_max: 0,
            token_bytes_max: 3_072,
            rights: RightsMode::Open,
        }
    }
}

/// Verifies tokens. Never changes: new keys are a new authenticator, which every cache notices.
#[derive(Debug)]
pub struct Authenticator {
    keys: Vec<Key>,
    rules: Rules,
    generation: u64,
}

impl Authenticator {
    /// An authenticator for these keys; a token that names none may be of any.
    pub fn new(keys: Vec<Key>, rules: Rules) -> Result<Self, KeyError> {
        for (index, key) in keys.iter().enumerate() {
            let same = keys.iter().take(index).any(|other| other.id == key.id);
            if let (true, Some(id)) = (same, &key.id) {
                return Err(KeyError::SameId { id: id.clone() });
            }
        }
        prove_cryptography()?;
        // From 1: a fresh cache has seen no authenticator.
        static GENERATIONS: AtomicU64 = AtomicU64::new(1);
        let generation = GENERATIONS.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            keys,
            rules,
            generation,
        })
    }

    /// Who the token belongs to, at `unix_s` seconds since 1970.
    pub fn verify(&self, token: &str, unix_s: u64) -> Result<Arc<Caller>, Unauthorized> {
        let (caller, _) = self.examine(token, unix_s)?;
        Ok(caller)
    }

    /// What a token says of its owner before it is verified. Good for one thing: to refuse what
    /// could not be accepted even if it were signed, at a small part of the cost.
    pub fn claimed(&self, token: &str) -> Option<Caller> {
        if self.rules.token_bytes_max < token.len() {
            return None;
        }
        let data = jsonwebtoken::dangerous::insecure_decode::<UniqueClaims>(token);
        caller_of(data.ok()?.claims.0, self.rules.rights).ok()
    }

    /// Seconds by which clocks may differ, at both ends of a token.
    pub fn leeway_s(&self) -> u64 {
        self.rules.leeway_s
    }

    /// As [`Self::verify`], with the key that signed it, or the reason for whoever made the token.
    pub fn examine(&self, token: &str, unix_s: u64) -> Result<(Arc<Caller>, &Key), Fault> {
        if self.rules.token_bytes_max < token.len() {
            return Err(Fault::Long);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| Fault::Malformed)?;
        if brings_its_own_key(&header) {
            return Err(Fault::Header);
        }
        let (claims, key) = self.signed_claims(token, &header)?;
        let caller = caller_of(claims, self.rules.rights)?;
        self.examine_time(&caller, unix_s)?;
        Ok((Arc::new(caller), key))
    }

    /// Whether a caller's token is valid at `unix_s`: what a cache has to ask again.
    pub fn check_time(&self, caller: &Caller, unix_s: u64) -> Result<(), Unauthorized> {
        Ok(self.examine_time(caller, unix_s)?)
    }

    fn examine_time(&self, caller: &Caller, unix_s: u64) -> Result<(), Fault> {
        let expires_at = caller.expires_at.ok_or(Fault::Claim("exp"))?;
        let not_before = match caller.claims.get("nbf") {
            Some(value) => unix_seconds(value).ok_or(Fault::Claim("nbf"))?,
            None => 0,
        };
        let leeway = self.rules.leeway_s;
        if expires_at.saturating_add(leeway) <= unix_s {
            return Err(Fault::Expired);
        }
        if unix_s.saturating_add(leeway) < not_before {
            return Err(Fault::Early);
        }
        let lifetime = self.rules.lifetime_s_max;
        let latest = unix_s.saturating_add(lifetime).saturating_add(leeway);
        match lifetime != 0 && latest < expires_at {
            true => Err(Fault::LongLived),
            false => Ok(()),
        }
    }

    /// What a token may do that does not say it.
    pub fn rights(&self) -> RightsMode {
        self.rules.rights
    }

    /// Who shows no token, where none is needed.
    pub fn anonymous(&self) -> Arc<Caller> {
        match self.rules.rights {
            RightsMode::Open => Caller::anonymous(),
            RightsMode::Explicit => Caller::without_rights(),
        }
    }

    /// Tells one set of keys from another.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    fn signed_claims(
        &self,
        token: &str,
        header: &Header,
    ) -> Result<(Map<String, Value>, &Key), Fault> {
        // A name chooses among the keys that are here; it never is a path or an address.
        let named = |key: &&Key| header.kid.is_none() || key.id == header.kid;
        let mut candidates = self.keys.iter().filter(named).peekable();
        if candidates.peek().is_none() {
            return Err(Fault::UnknownKey);
        }
        let claims = candidates.find_map(|key| {
            let validation = self.validation(key.algorithm);
            let data = jsonwebtoken::decode::<UniqueClaims>(token, &key.decoding, &validation);
            data.ok().map(|data| (data.claims.0, key))
        });
        claims.ok_or(Fault::Signature)
    }

    /// Times are left to [`Self::check_time`], which is told what time it is.
    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.required_spec_claims.clear();
        if let Some(issuer) = &self.rules.issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        match &self.rules.audience {
            Some(audience) => {
                validation.set_audience(&[audience]);
                validation.required_spec_claims.insert("aud".to_owned());
            }
            None => validation.validate_aud = false,
        }
        validation
    }
}

/// A token that says which key to fetch or which extension to understand asks for trust that it
/// has not got yet.
fn brings_its_own_key(header: &Header) -> bool {
    header.jku.is_some()
        || header.jwk.is_some()
        || header.x5u.is_some()
        || header.x5c.is_some()
        || header.crit.is_some()
        || header.enc.is_some()
        || header.zip.is_some()
}

fn caller_of(claims: Map<String, Value>, mode: RightsMode) -> Result<Caller, Fault> {
    let expires_at = claims
        .get("exp")
        .and_then(unix_seconds)
        .ok_or(Fault::Claim("exp"))?;
    let tenant = match claims.get("ns") {
        Some(ns) => Some(
            ns.as_str()
                .and_then(Tenant::parse)
                .ok_or(Fault::Claim("ns"))?,
        ),
        None => None,
    };
    let subject = match claims.get("sub") {
        Some(sub) => Some(sub.as_str().ok_or(Fault::Claim("sub"))?.to_owned()),
        None => None,
    };
    let roles = match claims.get("roles") {
        Some(roles) => Vec::deserialize(roles).map_err(|_| Fault::Claim("roles"))?,
        None => Vec::<String>::new(),
    };
    let rights = Rights::of_claims(mode, &claims, subject.as_deref(), &roles);
    Ok(Caller {
        has_ns: tenant.is_some(),
        tenant: tenant.unwrap_or_default(),
        subject,
        roles,
        rights: rights.map_err(Fault::Claim)?,
        expires_at: Some(expires_at),
        claims,
    })
}

/// A time in a claim: a number, not negative, with or without a fraction, before the year 10000.
/// A larger one is a mistake in the unit or an attempt to be valid for ever.
fn unix_seconds(value: &Value) -> Option<u64> {
    let within = |seconds: &f64| 0.0 <= *seconds && *seconds <= UNIX_SECONDS_MAX as f64;
    let seconds = match value.as_u64() {
        Some(seconds) => seconds,
        None => value.as_f64().filter(within).map(whole_seconds)?,
    };
    (seconds <= UNIX_SECONDS_MAX).then_some(seconds)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the caller has checked that it lies between 0 and the year 10000"
)]
fn whole_seconds(seconds: f64) -> u64 {
    seconds as u64
}

/// The last second of the year 9999.
const UNIX_SECONDS_MAX: u64 = 253_402_300_799;

/// The claims of a token, none of them twice: two readers could take different ones.
struct UniqueClaims(Map<String, Value>);

impl<'de> Deserialize<'de> for UniqueClaims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Claims;

        impl<'de> Visitor<'de> for Claims {
            type Value = Map<String, Value>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of claims")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
                let mut claims = Map::new();
                while let Some((name, value)) = access.next_entry::<String, Value>()? {
                    if claims.insert(name, value).is_some() {
                        return Err(A::Error::custom("a claim stands twice"));
                    }
                }
                Ok(claims)
            }
        }

        deserializer.deserialize_map(Claims).map(Self)
    }
}

/// Makes tokens: a secret and a life time.
#[derive(Clone)]
pub struct AuthConfig {
    key: EncodingKey,
    key_id: Option<String>,
    issuer: Option<String>,
    audience: Option<String>,
    ttl_s: u64,
}

impl AuthConfig {
    /// Tokens signed with `secret` that live `ttl_s` seconds.
    pub fn new(secret: impl AsRef<[u8]>, ttl_s: u64) -> Result<Self, KeyError> {
        check_length(secret.as_ref())?;
        let key = EncodingKey::from_secret(secret.as_ref());
        Ok(Self {
            key,
            key_id: None,
            issuer: None,
            audience: None,
            ttl_s,
        })
    }

    /// The tokens name their key.
    #[must_use]
    pub fn key_id(self, key_id: Option<String>) -> Self {
        Self { key_id, ..self }
    }

    /// The tokens name their issuer.
    #[must_use]
    pub fn issuer(self, issuer: Option<String>) -> Self {
        Self { issuer, ..self }
    }

    /// The tokens name whom they are for.
    #[must_use]
    pub fn audience(self, audience: Option<String>) -> Self {
        Self { audience, ..self }
    }

    /// The tokens live `ttl_s` seconds.
    #[must_use]
    pub fn ttl_s(self, ttl_s: u64) -> Self {
        Self { ttl_s, ..self }
    }

    /// A token for these claims, issued at `unix_s`.
    pub fn issue(&self, claims: &Claims, unix_s: u64) -> Result<String, KeyError> {
        let mut header = Header::new(Algorithm::HS256);
        header.kid.clone_from(&self.key_id);
        let mut body = claims.to_map();
        let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
        put("iat", unix_s.into());
        put("exp", unix_s.saturating_add(self.ttl_s).into());
        if let Some(issuer) = &self.issuer {
            put("iss", issuer.as_str().into());
        }
        if let Some(audience) = &self.audience {
            put("aud", audience.as_str().into());
        }
        jsonwebtoken::encode(&header, &body, &self.key).map_err(KeyError::Cryptography)
    }
}

/// Shows the life time and never the secret.
impl std::fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthConfig")
            .field("ttl_s", &self.ttl_s)
            .finish_non_exhaustive()
    }
}

/// What a token says of its owner.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Claims {
    /// The claim `ns`.
    pub tenant: Option<Tenant>,
    /// The claim `sub`.
    pub subject: Option<String>,
    /// The claim `roles`.
    pub roles: Vec<String>,
    /// The claim `publish`: patterns of topics.
    pub publish: Option<Vec<String>>,
    /// The claim `subscribe`: patterns of topics.
    pub subscribe: Option<Vec<String>>,
    /// Any other claims.
    pub others: Map<String, Value>,
}

impl Claims {
    /// The claims of `subject` in `tenant`.
    pub fn new(tenant: Tenant, subject: impl Into<String>) -> Self {
        Self {
            tenant: Some(tenant),
            subject: Some(subject.into()),
            ..Self::default()
        }
    }

    /// With one more role.
    #[must_use]
    pub fn role(mut self, role: impl Into<String>) -> Self {
        self.roles.push(role.into());
        self
    }

    fn to_map(&self) -> Map<String, Value> {
        let mut claims = self.others.clone();
        if let Some(tenant) = &self.tenant {
            claims.insert("ns".to_owned(), tenant.as_str().into());
        }
        if let Some(subject) = &self.subject {
            claims.insert("sub".to_owned(), subject.as_str().into());
        }
        if !self.roles.is_empty() {
            claims.insert("roles".to_owned(), self.roles.clone().into());
        }
        for (claim, patterns) in [
            (CLAIM_PUBLISH, &self.publish),
            (CLAIM_SUBSCRIBE, &self.subscribe),
        ] {
            if let Some(patterns) = patterns {
                claims.insert(claim.to_owned(), patterns.clone().into());
            }
        }
        claims
    }
}

/// Signs and verifies once, so that a build without a working provider fails at its start and
/// not at its first client.
fn prove_cryptography() -> Result<(), KeyError> {
    const PROBE: [u8; SECRET_BYTES_MIN] = [7; SECRET_BYTES_MIN];
    let (signing, verifying) = (
        EncodingKey::from_secret(&PROBE),
        DecodingKey::from_secret(&PROBE),
    );
    let signature = jsonwebtoken::crypto::sign(b"probe", &signing, Algorithm::HS256);
    let signature = signature.map_err(KeyError::Cryptography)?;
    let verify = |message| {
        jsonwebtoken::crypto::verify(&signature, message, &verifying, Algorithm::HS256)
            .map_err(KeyError::Cryptography)
    };
    assert!(verify(b"probe")?, "what was signed verifies");
    assert!(!verify(b"forged")?, "what was not signed does not verify");
    Ok(())
}
