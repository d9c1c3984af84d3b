//! The last push of each relay topic, for who subscribes later. Knows frames and names; it outlives
//! the topic's members, not the process.
//!
//! Bound: `last_bytes_max` in all; past it the topics go whose last push is oldest.

use std::collections::BTreeMap;
use std::sync::Arc;

use ahash::AHashMap;
use bytes::Bytes;

use super::event::TopicKey;

#[derive(Debug, Default)]
pub(super) struct Lasts {
    by_topic: AHashMap<Arc<TopicKey>, Last>,
    by_age: BTreeMap<u64, Arc<TopicKey>>,
    count: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Last {
    frame: Bytes,
    number: u64,
}

impl Lasts {
    /// Keeps `frame` in the place of the one before; nothing where `bytes_max` is 0.
    pub(super) fn note(&mut self, key: &Arc<TopicKey>, frame: &Bytes, bytes_max: usize) {
        if bytes_max == 0 {
            return;
        }
        self.forget(key);
        self.count += 1;
        let (frame, number) = (frame.clone(), self.count);
        self.bytes += cost(key, &frame);
        self.by_age.insert(number, Arc::clone(key));
        self.by_topic
            .insert(Arc::clone(key), Last { frame, number });
        while bytes_max < self.bytes {
            let Some((_, oldest)) = self.by_age.first_key_value() else {
                return;
            };
            let oldest = Arc::clone(oldest);
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, key: &TopicKey) {
        if let Some(last) = self.by_topic.remove(key) {
            self.by_age.remove(&last.number);
            self.bytes -= cost(key, &last.frame);
        }
    }

    /// The last push of a topic.
    pub(super) fn of(&self, key: &TopicKey) -> Option<&Bytes> {
        self.by_topic.get(key).map(|last| &last.frame)
    }
}

fn cost(key: &TopicKey, frame: &Bytes) -> usize {
    key.name.len() + frame.len() + ENTRY_BYTES
}

/// What an entry takes beside name and frame.
const ENTRY_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use crate::id::Tenant;

    use super::*;

    #[test]
    fn the_oldest_goes_where_it_is_full() {
        let key = |name: &str| {
            Arc::new(TopicKey {
                tenant: Tenant::default(),
                name: name.into(),
            })
        };
        let frame = Bytes::from_static(b"push");
        let mut lasts = Lasts::default();
        lasts.note(&key("off"), &frame, 0);
        assert_eq!(lasts.of(&key("off")), None);
        let two = 2 * cost(&key("a"), &frame);
        for name in ["a", "b", "a", "c"] {
            lasts.note(&key(name), &frame, two);
        }
        let kept = ["a", "b", "c"].map(|name| lasts.of(&key(name)).is_some());
        assert_eq!(kept, [true, false, true]);
        lasts.note(&key("d"), &Bytes::from(vec![0; two]), two);
        assert_eq!((lasts.bytes, lasts.by_age.len()), (0, 0));
    }
}
