//! The members that relay topics have on this shard, and the piece that is being gathered for
//! them: pushes to one topic that follow each other are encoded into one piece and go to each
//! member once. Knows topics and slots; not what the frames say.
//!
//! Invariant: frames reach a member in the order in which they were pushed. So the open piece is
//! given out before a push to another topic, before a frame for one connection alone, and before
//! any change of members.

use std::rc::Rc;
use std::sync::Arc;

use ahash::{AHashMap, RandomState};
use bytes::Bytes;
use indexmap::IndexMap;
use slab::Slab;
use smallvec::SmallVec;

use crate::broker::relay::TopicKey;

use crate::shard::kernel::ring::SlotKey;
use crate::shard::socket::outbox::{Piece, TopicTag};

/// Pushes that wait until a join has been confirmed.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) pieces: Vec<Rc<Piece>>,
    /// Frames that found no room.
    pub(crate) lost: usize,
}

#[derive(Debug)]
pub(crate) struct LocalTopic {
    pub(crate) key: Arc<TopicKey>,
    pub(crate) tag: TopicTag,
    /// In which turn it gave something out last, and how many frames.
    given: (u32, usize),
    /// Each member, with what is held for it while its join is being decided.
    pub(crate) members: IndexMap<SlotKey, Option<Box<Held>>, RandomState>,
}

#[derive(Debug)]
struct Open {
    topic: usize,
    bytes: Vec<u8>,
    ends: SmallVec<[u32; 4]>,
}

#[derive(Debug, Default)]
pub(crate) struct Members {
    by_key: AHashMap<Arc<TopicKey>, usize>,
    topics: Slab<LocalTopic>,
    /// How many topics there have been.
    lives: u32,
    open: Option<Open>,
}

/// A piece for all members of a topic.
pub(crate) struct Fanout<'a> {
    pub(crate) topic: &'a mut LocalTopic,
    pub(crate) piece: Rc<Piece>,
}

/// A piece of this size is given out.
const PIECE_BYTES_MAX: usize = 16 * 1024;

impl Members {
    /// Adds a member whose join is being decided.
    pub(crate) fn attach(&mut self, key: &Arc<TopicKey>, member: SlotKey) {
        debug_assert!(
            self.open.is_none(),
            "the open piece goes out before members change"
        );
        let index = self
            .by_key
            .get(key)
            .copied()
            .unwrap_or_else(|| self.add_topic(key));
        self.topics[index]
            .members
            .insert(member, Some(Box::default()));
        self.assert_invariants();
    }

    /// What must hold between two calls.
    fn assert_invariants(&self) {
        debug_assert_eq!(self.by_key.len(), self.topics.len(), "each topic is found");
        debug_assert!(
            self.open
                .as_ref()
                .is_none_or(|open| self.topics.contains(open.topic) && !open.ends.is_empty()),
            "the open piece has frames, and a topic"
        );
    }

    fn add_topic(&mut self, key: &Arc<TopicKey>) -> usize {
        self.lives = self.lives.wrapping_add(1);
        let place = self.topics.vacant_entry();
        let index = place.key();
        place.insert(LocalTopic {
            key: Arc::clone(key),
            tag: TopicTag {
                // A shard has fewer topics than that, for each has a member.
                place: u32::try_from(index).unwrap_or(u32::MAX),
                life: self.lives,
            },
            given: (0, 0),
            members: IndexMap::with_hasher(RandomState::new()),
        });
        self.by_key.insert(Arc::clone(key), index);
        index
    }

    /// Under which tag frames of a topic wait.
    pub(crate) fn tag_of(&self, key: &TopicKey) -> Option<TopicTag> {
        self.by_key.get(key).map(|index| self.topics[*index].tag)
    }

    /// The member's join was confirmed: what was held for it, and under which tag it goes out.
    pub(crate) fn confirm(
        &mut self,
        key: &TopicKey,
        member: SlotKey,
    ) -> Option<(TopicTag, Box<Held>)> {
        debug_assert!(
            self.open.is_none(),
            "the open piece goes out before members change"
        );
        let topic = &mut self.topics[*self.by_key.get(key)?];
        let held = topic.members.get_mut(&member)?.take()?;
        Some((topic.tag, held))
    }

    /// Removes a member; the tag of the topic, if it was one.
    pub(crate) fn detach(&mut self, key: &TopicKey, member: SlotKey) -> Option<TopicTag> {
        debug_assert!(
            self.open.is_none(),
            "the open piece goes out before members change"
        );
        let index = *self.by_key.get(key)?;
        let topic = &mut self.topics[index];
        topic.members.swap_remove(&member)?;
        let tag = topic.tag;
        if topic.members.is_empty() {
            self.by_key.remove(key);
            self.topics.remove(index);
        }
        self.assert_invariants();
        Some(tag)
    }

    /// The name of a tag, to tell a member what it missed.
    pub(crate) fn topic_of(&self, tag: TopicTag) -> Option<&Arc<TopicKey>> {
        let topic = self.topics.get(tag.place as usize)?;
        (topic.tag == tag).then_some(&topic.key)
    }

    /// Everybody who is a member of `key` here, and its tag.
    pub(crate) fn members_of(&self, key: &TopicKey) -> Option<(TopicTag, Vec<SlotKey>)> {
        let topic = &self.topics[*self.by_key.get(key)?];
        Some((topic.tag, topic.members.keys().copied().collect()))
    }

    /// Whether a push to `key` can join the open piece.
    pub(crate) fn is_open_for(&self, key: &TopicKey) -> bool {
        self.open.as_ref().is_none_or(|open| {
            *self.topics[open.topic].key == *key && open.bytes.len() < PIECE_BYTES_MAX
        })
    }

    /// Adds a frame to the open piece, which must be for this topic or not be there; how many
    /// frames the topic has given out in this turn.
    pub(crate) fn gather(&mut self, key: &TopicKey, frame: &Bytes, turn: u32) -> usize {
        let Some(index) = self.by_key.get(key).copied() else {
            return 0;
        };
        let open = self.open.get_or_insert_with(|| Open {
            topic: index,
            bytes: Vec::new(),
            ends: SmallVec::new(),
        });
        assert_eq!(open.topic, index, "one piece is for one topic");
        open.bytes.extend_from_slice(frame);
        open.ends
            .push(u32::try_from(open.bytes.len()).unwrap_or(u32::MAX));
        let given = &mut self.topics[index].given;
        *given = (turn, if given.0 == turn { given.1 + 1 } else { 1 });
        let frames = given.1;
        self.assert_invariants();
        frames
    }

    /// Takes the open piece out, to be given to all members.
    pub(crate) fn take_open(&mut self) -> Option<Fanout<'_>> {
        let open = self.open.take()?;
        let piece = Rc::new(Piece::of_frames(open.bytes.into(), open.ends));
        Some(Fanout {
            topic: &mut self.topics[open.topic],
            piece,
        })
    }

    /// Whether a piece is open.
    pub(crate) fn has_open(&self) -> bool {
        self.open.is_some()
    }
}

impl Held {
    /// Keeps a piece for later; past `pieces_max` the oldest goes.
    pub(crate) fn push(&mut self, piece: &Rc<Piece>, pieces_max: usize) {
        self.pieces.push(Rc::clone(piece));
        let excess = self.pieces.len().saturating_sub(pieces_max);
        self.lost += self
            .pieces
            .drain(..excess)
            .map(|piece| piece.frames())
            .sum::<usize>();
    }
}

#[cfg(test)]
mod tests {
    use crate::id::Tenant;

    use super::*;

    fn key(name: &str) -> Arc<TopicKey> {
        Arc::new(TopicKey {
            tenant: Tenant::default(),
            name: name.into(),
        })
    }

    /// A tag is not that of the topic that came after it to the same place.
    #[test]
    fn a_tag_names_one_topic() {
        let mut members = Members::default();
        let ada = SlotKey {
            slot: 1,
            generation: 1,
        };
        let tag_of = |members: &mut Members, name: &str| {
            members.attach(&key(name), ada);
            members.members_of(&key(name)).unwrap().0
        };
        let (a, b) = (tag_of(&mut members, "a"), tag_of(&mut members, "b"));
        let name = |members: &Members, tag| members.topic_of(tag).map(|key| key.name.to_string());
        assert_eq!(name(&members, a).as_deref(), Some("a"));
        assert_eq!(members.detach(&key("a"), ada), Some(a));
        let c = tag_of(&mut members, "c");
        assert_eq!(c.place, a.place, "a place is used again");
        assert_eq!(name(&members, a), None);
        assert_eq!(name(&members, b).as_deref(), Some("b"));
        assert_eq!(name(&members, c).as_deref(), Some("c"));
    }
}
