//! What a token lets its owner do with the topics of its tenant, and with what others made there.
//! Knows patterns and roles; finds no topic. A request to a relay topic takes a [`MayPublish`] or a
//! [`MaySubscribe`], which only a caller's rights give, so that no way in can forget to ask; a home
//! of durable topics asks the [`Rights`] that come with each request, for an id has a name only there.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Caller, Claims, ROLE_ADMIN, ROLE_MANAGER};

/// What a token without the claims `publish` and `subscribe` may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RightsMode {
    /// Everything in its tenant.
    #[default]
    Open,
    /// Nothing; and what others made is managed by roles.
    Explicit,
}

impl RightsMode {
    /// As the configuration names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Explicit => "explicit",
        }
    }
}

/// What its owner may do inside its tenant. Cheap to clone: nothing is counted for who may do
/// everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rights(Option<Arc<Bounds>>);

#[derive(Debug, PartialEq, Eq)]
struct Bounds {
    publish: Grant,
    subscribe: Grant,
    mode: RightsMode,
    /// The claim `sub`; empty if there is none.
    subject: Box<str>,
    /// It has the role `manager` or `admin`.
    manages: bool,
}

/// Topics by pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// All of the tenant.
    Everything,
    /// Those that one of the patterns matches.
    Only(Box<[TopicPattern]>),
}

/// Names of topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicPattern {
    /// This one.
    Exact(Box<str>),
    /// All that begin with it.
    Prefix(Box<str>),
}

/// The token does not allow it. One value, whether there is such a topic or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("forbidden: the token does not allow it")]
pub struct Forbidden;

/// The name of a topic that a caller may publish to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MayPublish<'a>(&'a str);

/// The name of a topic that a caller may subscribe to, and see who is there and what was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaySubscribe<'a>(&'a str);

impl<'a> MayPublish<'a> {
    /// The topic.
    pub fn topic(self) -> &'a str {
        self.0
    }
}

impl<'a> MaySubscribe<'a> {
    /// The topic.
    pub fn topic(self) -> &'a str {
        self.0
    }
}

impl Caller {
    /// Lets a request publish to `topic`.
    ///
    /// # Errors
    /// When the token does not allow it.
    pub fn to_publish<'a>(&self, topic: &'a str) -> Result<MayPublish<'a>, Forbidden> {
        let allowed = self.rights.may_publish(topic);
        allowed.then_some(MayPublish(topic)).ok_or(Forbidden)
    }

    /// Lets a request subscribe to `topic`.
    ///
    /// # Errors
    /// When the token does not allow it.
    pub fn to_subscribe<'a>(&self, topic: &'a str) -> Result<MaySubscribe<'a>, Forbidden> {
        let allowed = self.rights.may_subscribe(topic);
        allowed.then_some(MaySubscribe(topic)).ok_or(Forbidden)
    }

    /// Lets a request see and end what belongs to others of the tenant.
    ///
    /// # Errors
    /// When rights are explicit and the token has neither the role `manager` nor `admin`.
    pub fn to_manage(&self) -> Result<(), Forbidden> {
        self.rights.may_manage().then_some(()).ok_or(Forbidden)
    }

    /// Whether the roles name `manager` or `admin`, in whatever mode.
    pub fn is_manager(&self) -> bool {
        self.has_role(ROLE_MANAGER) || self.has_role(ROLE_ADMIN)
    }

    /// Whether it is told where others come from.
    pub fn sees_addresses(&self) -> bool {
        !self.rights.is_explicit() || self.has_role(ROLE_ADMIN)
    }
}

impl Claims {
    /// With one more pattern of topics that may be published to: a name, or a prefix and `*`.
    #[must_use]
    pub fn publish(mut self, pattern: impl Into<String>) -> Self {
        self.publish.get_or_insert_default().push(pattern.into());
        self
    }

    /// With one more pattern of topics that may be subscribed to: a name, or a prefix and `*`.
    #[must_use]
    pub fn subscribe(mut self, pattern: impl Into<String>) -> Self {
        self.subscribe.get_or_insert_default().push(pattern.into());
        self
    }
}

impl Rights {
    /// Those of the program itself, and of a token of before there were claims for them.
    pub fn everything() -> Self {
        Self(None)
    }

    /// Those of a caller without a token.
    pub fn of_nobody(mode: RightsMode) -> Self {
        Self::new(mode, (None, None), "", false)
    }

    /// Those that the claims of a token say; the name of the claim that is malformed.
    pub(super) fn of_claims(
        mode: RightsMode,
        claims: &Map<String, Value>,
        subject: Option<&str>,
        roles: &[String],
    ) -> Result<Self, &'static str> {
        let grants = (
            patterns(claims, CLAIM_PUBLISH)?,
            patterns(claims, CLAIM_SUBSCRIBE)?,
        );
        let manages = roles
            .iter()
            .any(|role| role == ROLE_MANAGER || role == ROLE_ADMIN);
        Ok(Self::new(
            mode,
            grants,
            subject.unwrap_or_default(),
            manages,
        ))
    }

    fn new(
        mode: RightsMode,
        (publish, subscribe): (Option<Grant>, Option<Grant>),
        subject: &str,
        manages: bool,
    ) -> Self {
        if mode == RightsMode::Open && publish.is_none() && subscribe.is_none() {
            return Self(None);
        }
        let absent = || match mode {
            RightsMode::Open => Grant::Everything,
            RightsMode::Explicit => Grant::Only(Box::default()),
        };
        Self(Some(Arc::new(Bounds {
            publish: publish.unwrap_or_else(absent),
            subscribe: subscribe.unwrap_or_else(absent),
            mode,
            subject: subject.into(),
            manages,
        })))
    }

    /// Whether it may publish, push and send messages to `topic`.
    pub fn may_publish(&self, topic: &str) -> bool {
        let bounds = self.0.as_ref();
        bounds.is_none_or(|bounds| bounds.publish.covers(topic))
    }

    /// Whether it may subscribe to `topic`, read its history and see who is present.
    pub fn may_subscribe(&self, topic: &str) -> bool {
        let bounds = self.0.as_ref();
        bounds.is_none_or(|bounds| bounds.subscribe.covers(topic))
    }

    /// Whether it may see and end what belongs to others of the tenant.
    pub fn may_manage(&self) -> bool {
        let bounds = self.0.as_ref();
        bounds.is_none_or(|bounds| bounds.mode == RightsMode::Open || bounds.manages)
    }

    /// Whether roles are what others' things need.
    pub fn is_explicit(&self) -> bool {
        let bounds = self.0.as_ref();
        bounds.is_some_and(|bounds| bounds.mode == RightsMode::Explicit)
    }

    /// Whether what `maker` made is its own.
    pub fn is_own(&self, maker: &str) -> bool {
        let bounds = self.0.as_ref();
        bounds.is_none_or(|bounds| !maker.is_empty() && *bounds.subject == *maker)
    }

    /// What may be subscribed to, for lists.
    pub fn subscribe(&self) -> &Grant {
        static EVERYTHING: Grant = Grant::Everything;
        match &self.0 {
            Some(bounds) => &bounds.subscribe,
            None => &EVERYTHING,
        }
    }

    /// What may be published to.
    pub fn publish(&self) -> &Grant {
        static EVERYTHING: Grant = Grant::Everything;
        match &self.0 {
            Some(bounds) => &bounds.publish,
            None => &EVERYTHING,
        }
    }
}

impl Grant {
    /// Whether one of its patterns matches.
    pub fn covers(&self, topic: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Only(patterns) => patterns.iter().any(|pattern| pattern.covers(topic)),
        }
    }
}

impl Grant {
    /// Whether there is no topic that it does not cover.
    pub fn covers_all(&self) -> bool {
        match self {
            Self::Everything => true,
            Self::Only(patterns) => patterns.contains(&TopicPattern::Prefix("".into())),
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str("every topic"),
            Self::Only(patterns) if patterns.is_empty() => f.write_str("no topic"),
            Self::Only(patterns) => {
                for (index, pattern) in patterns.iter().enumerate() {
                    let comma = if 0 < index { ", " } else { "" };
                    write!(f, "{comma}{pattern}")?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

impl TopicPattern {
    /// Exact, or a prefix when it ends with `*`.
    pub fn parse(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(prefix) => Self::Prefix(prefix.into()),
            None => Self::Exact(text.into()),
        }
    }

    /// Whether it matches.
    pub fn covers(&self, topic: &str) -> bool {
        match self {
            Self::Exact(name) => **name == *topic,
            Self::Prefix(prefix) => topic.starts_with(&**prefix),
        }
    }
}

/// The patterns of a claim; one that is no list of texts is no claim.
fn patterns(
    claims: &Map<String, Value>,
    claim: &'static str,
) -> Result<Option<Grant>, &'static str> {
    let Some(value) = claims.get(claim) else {
        return Ok(None);
    };
    let texts = Vec::<String>::deserialize(value).map_err(|_| claim)?;
    let patterns = texts.iter().map(|text| TopicPattern::parse(text));
    Ok(Some(Grant::Only(patterns.collect())))
}

/// The claim that bounds publish, push and message.
pub const CLAIM_PUBLISH: &str = "publish";
/// The claim that bounds subscribe, history and presence.
pub const CLAIM_SUBSCRIBE: &str = "subscribe";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rights(mode: RightsMode, claims: Value) -> Result<Rights, &'static str> {
        let Value::Object(claims) = claims else {
            panic!("claims are an object");
        };
        Rights::of_claims(mode, &claims, Some("ada"), &[])
    }

    #[test]
    fn a_pattern_is_exact_or_a_prefix() {
        let covers = |pattern: &str, topic| TopicPattern::parse(pattern).covers(topic);
        assert!(covers("room:1", "room:1") && !covers("room:1", "room:11"));
        assert!(covers("room:*", "room:") && covers("room:*", "room:1:2"));
        assert!(!covers("room:*", "room") && !covers("room:*", "Room:1"));
        assert!(covers("*", "x") && covers("a*b", "a*b") && !covers("a*b", "aXb"));
        assert!(!covers("", "x") && covers("a**", "a*b") && !covers("a**", "ab"));
    }

    #[test]
    fn what_is_absent_is_everything_or_nothing_by_mode() {
        let claims = json!({"publish": ["a"]});
        let open = rights(RightsMode::Open, claims.clone()).unwrap();
        assert!(open.may_publish("a") && !open.may_publish("b") && open.may_subscribe("b"));
        assert!(open.may_manage());
        let explicit = rights(RightsMode::Explicit, claims).unwrap();
        assert!(explicit.may_publish("a") && !explicit.may_subscribe("a"));
        assert!(!explicit.may_manage() && explicit.is_own("ada") && !explicit.is_own(""));
        assert_eq!(
            rights(RightsMode::Open, json!({})),
            Ok(Rights::everything())
        );
        let none = Rights::of_nobody(RightsMode::Explicit);
        assert!(!none.may_publish("a") && !none.may_subscribe("a") && !none.is_own(""));
    }

    #[test]
    fn a_claim_that_is_no_list_of_texts_is_refused() {
        for bad in [
            json!("room:*"),
            json!(null),
            json!([1]),
            json!({}),
            json!([["a"]]),
            json!(true),
        ] {
            for claim in [CLAIM_PUBLISH, CLAIM_SUBSCRIBE] {
                let found = rights(RightsMode::Open, json!({claim: bad}));
                assert_eq!(found, Err(claim), "{bad}");
            }
        }
    }
}
