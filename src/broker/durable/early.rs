//! Requests about subscriptions whose own record is still on its way to the disk: they wait for it,
//! so that each is answered, in the order in which it came. Knows subscriptions by id; no log.
//!
//! Bounds: with the publishes that wait, `publishes_in_flight_max` a peer (beyond: `rate_limited`).

use ahash::AHashMap;

use crate::id::HomedId;

use super::command::named;
use super::rights::Need;
use super::{Answer, Caller, Command, Durable, Now, Peer, Refused, Request};

/// What waits for each subscription that is not made yet.
pub(super) type Early = AHashMap<HomedId, Vec<(Now, Request)>>;

impl Durable {
    /// Serves a request, unless it is about a subscription that is not made yet.
    pub(super) fn serve_in_turn(&mut self, now: Now, request: Request, lack: Option<Refused>) {
        let Some(id) = self.unmade(&request) else {
            return self.serve(now, request, lack);
        };
        let peer = request.caller.peer;
        if let Err(refused) = self.check_waiting(peer) {
            let (topic, sub_name) = named(&request.command);
            let answer = Answer::Refused {
                refused,
                topic,
                sub_name,
                publish: false,
            };
            return self.answer(&request.caller, answer);
        }
        self.publishing.entry(peer).or_default().count += 1;
        self.early.entry(id).or_default().push((now, request));
    }

    /// The subscription that a request is about, if it has to wait for its record.
    fn unmade(&self, request: &Request) -> Option<HomedId> {
        if self.early.is_empty() {
            return None;
        }
        let (Command::Subscribe {
            topic, sub_name, ..
        }
        | Command::Unsubscribe { topic, sub_name }
        | Command::Ack {
            topic, sub_name, ..
        }) = &request.command
        else {
            return None;
        };
        let topic = self.find_topic(&request.caller, topic, Need::Subscribe);
        let topic = self.topics.get(&topic.ok()?)?;
        let id = topic.subscriptions.get(sub_name).copied()?;
        // Another connection may take it over at once, unless somebody stands before it.
        let waits = !self.early.get(&id)?.is_empty();
        let is_own = self.bound_to(id) == Some(request.caller.peer);
        (waits || is_own).then_some(id)
    }

    /// The record is durable or will never be: what waited for it is served.
    pub(super) fn serve_early(&mut self, id: HomedId) {
        for (now, request) in self.early.remove(&id).unwrap_or_default() {
            self.published(request.caller.peer);
            self.serve(now, request, None);
        }
    }

    /// A peer is gone, and nothing of it binds it once more.
    pub(super) fn forget_early(&mut self, peer: Peer) {
        let mut count = 0;
        for waiting in self.early.values_mut() {
            let before = waiting.len();
            waiting.retain(|(_, request)| request.caller.peer != peer);
            count += before - waiting.len();
        }
        (0..count).for_each(|_| self.published(peer));
    }

    /// A peer goes on with the rights of another token.
    pub(super) fn renew_early(&mut self, caller: &Caller) {
        let waiting = self.early.values_mut().flatten();
        for (_, request) in waiting.filter(|(_, request)| request.caller.peer == caller.peer) {
            request.caller.rights = caller.rights.clone();
        }
    }
}
