//! Requests that wait until the log has room for what they append. Room is decided before a
//! request is served, so nothing is given a seq that would have to be taken back, and requests of
//! one peer are served in the order in which they came.
//!
//! Bounds: what one peer has in line by `publishes_in_flight_max`, all payloads in line and on
//! their way to the disk by `pending_bytes_max` (beyond: `rate_limited`, in the peer's order).

use std::collections::VecDeque;

use ahash::AHashMap;

use crate::log::{Class, ENTRY_BYTES, RUN_BYTES, TEXT_BYTES_MAX};

use super::effect::Need;
use super::publish::stored;
use super::rights::Need as Right;
use super::{Appended, Caller, Command, Durable, Now, Peer, Refused, Request};

/// Requests in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Line {
    waiting: VecDeque<Waiting>,
    counts: AHashMap<Peer, u32>,
    /// Of the payloads in line.
    pub(super) bytes: u64,
}

#[derive(Debug)]
struct Waiting {
    request: Request,
    /// Its payloads, as they count.
    bytes: u64,
    /// It is refused for this when it is its turn.
    refused: Option<Refused>,
}

impl Line {
    /// How many requests wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// How many of a peer's.
    pub(super) fn count(&self, peer: Peer) -> u32 {
        self.counts.get(&peer).copied().unwrap_or(0)
    }

    fn push(&mut self, waiting: Waiting) {
        *self.counts.entry(waiting.request.caller.peer).or_default() += 1;
        self.bytes += waiting.bytes;
        self.waiting.push_back(waiting);
    }

    fn pop(&mut self) -> Option<Waiting> {
        let first = self.waiting.pop_front()?;
        self.bytes -= first.bytes;
        let peer = first.request.caller.peer;
        if let Some(count) = self.counts.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&peer);
            }
        }
        Some(first)
    }
}

impl Durable {
    /// Does what a peer asks, or answers why not. What needs room in the log stands in line for
    /// it: the caller asks [`Durable::need`] behind this.
    pub fn handle_request(&mut self, now: Now, request: Request) {
        let peer = request.caller.peer;
        let is_behind = 0 < self.line.count(peer);
        // Neither changes what those before it mean.
        let passes = matches!(
            request.command,
            Command::Credit { .. } | Command::Ack { .. }
        );
        if (passes || !is_behind) && self.need_of(&request).is_none() {
            return self.serve_in_turn(now, request, None);
        }
        if matches!(request.command, Command::Disconnect) {
            // Nobody reads any more; what the peer has in line may bind it once more until then.
            self.disconnect(peer);
        }
        self.stand_in_line(request);
        self.serve_ready(now);
    }

    /// The room in the log without which nothing goes on; answered by `handle_room`, at once or
    /// when the log has it.
    pub fn need(&self) -> Option<Need> {
        if self.log.failed {
            return None;
        }
        if let Some(bytes) = self.cursors_need() {
            let class = Class::Cursors;
            return Some(Need { class, bytes });
        }
        if !self.ends_again.is_empty() {
            let (class, bytes) = (Class::Control, ENTRY_BYTES);
            return Some(Need { class, bytes });
        }
        let first = self.line.waiting.front()?;
        self.need_of(&first.request)
    }

    /// The log has the room that `need` asked for, or will not have it.
    pub fn handle_room(&mut self, now: Now, room: Result<(), Refused>) {
        if self.cursors_need().is_some() {
            self.handle_room_for_cursors(room);
        } else if let Some(value) = self.ends_again.pop() {
            // Without room the next start finds it again.
            if room.is_ok() {
                self.append(value, Appended::EndAgain);
            }
        } else if let Some(first) = self.line.pop() {
            self.serve_in_turn(now, first.request, first.refused.or_else(|| room.err()));
        }
        self.serve_ready(now);
    }

    /// Serves those at the front that need no room, because they append nothing or are refused.
    pub(super) fn serve_ready(&mut self, now: Now) {
        let needs = |home: &Self, first: &Waiting| {
            first.refused.is_none() && home.need_of(&first.request).is_some()
        };
        while let Some(first) = self.line.waiting.front()
            && !needs(self, first)
        {
            if let Some(first) = self.line.pop() {
                self.serve_in_turn(now, first.request, first.refused);
            }
        }
    }

    fn stand_in_line(&mut self, mut request: Request) {
        let mut bytes = 0;
        let mut refused = None;
        if let Command::Publish { messages, .. } = &mut request.command {
            refused = self.check_waiting(request.caller.peer).err();
            match refused {
                Some(_) => messages.clear(),
                None => bytes = messages.iter().map(|new| new.payload.len() as u64).sum(),
            }
        }
        self.line.push(Waiting {
            request,
            bytes,
            refused,
        });
    }

    /// What the log must have room for before the request can be served. More is asked for than
    /// it takes in the end where that is not known yet.
    fn need_of(&self, request: &Request) -> Option<Need> {
        if self.log.failed {
            return None;
        }
        let Request { caller, command } = request;
        let bulk = |bytes| Some((Class::Bulk, bytes));
        let found = match command {
            Command::Publish {
                publisher,
                messages,
                ..
            } => {
                let bytes = |new| usize::try_from(stored(new, publisher)).unwrap_or(usize::MAX);
                let runs = messages.len().saturating_sub(1) * RUN_BYTES;
                bulk(messages.iter().map(bytes).sum::<usize>() + runs)
            }
            Command::ResolveTopic { name, .. } if !self.is_known(caller, name) => {
                bulk(ENTRY_BYTES + caller.tenant.as_str().len() + name.len())
            }
            Command::Subscribe {
                topic, sub_name, ..
            } => {
                let topic = self.find_topic(caller, topic, Right::Subscribe).ok();
                let topic = topic.and_then(|id| self.topics.get(&id))?;
                let is_new = !topic.subscriptions.contains_key(sub_name);
                let bytes = ENTRY_BYTES + sub_name.len() + TEXT_BYTES_MAX;
                is_new.then_some((Class::Bulk, bytes))
            }
            // The whole topic is written again.
            Command::ChangeRetention { topic, .. } => {
                let id = self.find_topic(caller, topic, Right::Manage).ok()?;
                let name = self.topics.get(&id).map_or(0, |topic| topic.name.len());
                let bytes = ENTRY_BYTES + caller.tenant.as_str().len() + name;
                Some((Class::Control, bytes))
            }
            Command::DeleteTopic { .. } | Command::DeleteSubscription { .. } => {
                Some((Class::Control, ENTRY_BYTES))
            }
            _ => None,
        };
        found.map(|(class, bytes)| Need { class, bytes })
    }

    fn is_known(&self, caller: &Caller, name: &str) -> bool {
        let world = self.tenants.get(&caller.tenant);
        world.is_some_and(|world| world.names.contains_key(name))
    }
}
