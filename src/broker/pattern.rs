//! Which handler takes a topic: exact names before prefixes, longer prefixes before shorter.
//! Knows names and numbers of handlers, nothing of what they do.

use ahash::AHashMap;

/// The number of a registered handler.
pub type HandlerIndex = usize;

/// The registered patterns.
#[derive(Debug, Default)]
pub struct Patterns {
    exact: AHashMap<String, HandlerIndex>,
    /// Longest first.
    prefixes: Vec<(String, HandlerIndex)>,
}

/// Two handlers want the same topics.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("two relay handlers are registered for the pattern `{0}`: remove one")]
pub struct PatternTaken(String);

impl Patterns {
    /// Registers `handler` for `pattern`: a literal topic, or a prefix when it ends with `*`.
    ///
    /// # Errors
    /// When the very same pattern is registered already.
    pub fn insert(&mut self, pattern: &str, handler: HandlerIndex) -> Result<(), PatternTaken> {
        let taken = || PatternTaken(pattern.to_owned());
        let Some(prefix) = pattern.strip_suffix('*') else {
            let before = self.exact.insert(pattern.to_owned(), handler);
            return before.map_or(Ok(()), |_| Err(taken()));
        };
        if self.prefixes.iter().any(|(other, _)| other == prefix) {
            return Err(taken());
        }
        let longer = |(other, _): &(String, HandlerIndex)| prefix.len() < other.len();
        let place = self.prefixes.partition_point(longer);
        self.prefixes.insert(place, (prefix.to_owned(), handler));
        Ok(())
    }

    /// The handler of `topic`, if any pattern matches.
    pub fn handler_of(&self, topic: &str) -> Option<HandlerIndex> {
        let by_prefix = || {
            let mut prefixes = self.prefixes.iter();
            prefixes
                .find(|(prefix, _)| topic.starts_with(prefix.as_str()))
                .map(|(_, index)| *index)
        };
        self.exact.get(topic).copied().or_else(by_prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    ///
    #[test]
    fn exact_before_prefix_and_longest_prefix_first() {
        let mut patterns = Patterns::default();
        let names = ["*", "room:*", "room:vip:*", "room:vip", "chat:lobby"];
        for (index, name) in names.iter().enumerate() {
            patterns.insert(name, index).unwrap();
        }
        let of = |topic| patterns.handler_of(topic).map(|index| names[index]);
        assert_eq!(of("room:1"), Some("room:*"));
        assert_eq!(of("room:"), Some("room:*"));
        assert_eq!(of("room:vip"), Some("room:vip"));
        assert_eq!(of("room:vip:1"), Some("room:vip:*"));
        assert_eq!(of("room:vips"), Some("room:*"));
        assert_eq!(of("chat:lobby"), Some("chat:lobby"));
        assert_eq!(of("chat:lobby2"), Some("*"));
    }

    #[test]
    fn no_pattern_no_handler() {
        let mut patterns = Patterns::default();
        patterns.insert("room:*", 0).unwrap();
        assert_eq!(patterns.handler_of("roo"), None);
        assert!(patterns.insert("room:*", 1).is_err());
    }
}
