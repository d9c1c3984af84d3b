//! What a durable connection has to remember: publishes without an answer, subscriptions that the
//! next connection binds again, and how far each may be acked. Decides and sends nothing: what is to
//! go out is given back as text, so that the blocking and the asynchronous client share it.

use std::collections::VecDeque;

use serde::Serialize;
use serde_json::Value;

use super::ClientError;
use super::frames::{
    DurableFrame, Loss, Message, Publish, Published, Subscribe, Subscribed, Unsubscribed,
};
use super::socket::{Received, Refusal, kind_of, read, text_of};

/// The memory of one durable connection.
#[derive(Debug)]
pub(super) struct Book {
    /// The connection comes back, so what it needs then is kept.
    is_lasting: bool,
    bound: Vec<Bound>,
    /// Publishes without an answer, in their order.
    unanswered: VecDeque<Unanswered>,
    /// The last mark that was given out.
    mark: u64,
}

/// A subscription of a lasting connection.
#[derive(Debug)]
struct Bound {
    subscribe: Subscribe,
    /// The topic and the key as the server calls them, from its first answer on.
    known_as: Option<(String, String)>,
    /// What this connection has delivered: the server takes no ack beyond it.
    delivered: u64,
}

/// A publish of a lasting connection.
#[derive(Debug)]
struct Unanswered {
    /// By which the server names it; the caller's own may be anything, and the same twice.
    mark: u64,
    reference: Option<u64>,
    topic: String,
    /// The same again is the same message.
    has_key: bool,
    is_sent: bool,
    text: String,
}

#[derive(Serialize)]
struct PublishFrame<'a, T: ?Sized> {
    #[serde(rename = "type")]
    kind: &'static str,
    topic: &'a str,
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    reference: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<&'a str>,
    payload: &'a T,
}

#[derive(Serialize)]
struct AboutSubscription<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    topic: &'a str,
    sub_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    reference: Option<u64>,
}

impl Bound {
    /// By the names that the caller has, or those of the server.
    fn is(&self, topic: &str, sub_name: &str) -> bool {
        match &self.known_as {
            Some((id, name)) if id == topic && name == sub_name => true,
            Some((id, _)) if id == topic => sub_name == self.subscribe.sub_name,
            _ => topic == self.subscribe.topic && sub_name == self.subscribe.sub_name,
        }
    }

    /// Whether this is the answer to its `subscribe`: by the mark, where the server gives it back,
    /// else by the names, before which the server may put who asks.
    fn is_answered_by(&self, answer: &Subscribed) -> bool {
        match answer.reference.as_ref().and_then(Value::as_str) {
            Some(mark) => self.subscribe.reference.as_deref() == Some(mark),
            None => {
                self.is(&answer.topic, &answer.sub_name)
                    || (self.known_as.is_none()
                        && answer.sub_name.ends_with(&self.subscribe.sub_name))
            }
        }
    }
}

impl Book {
    pub(super) fn new(is_lasting: bool) -> Self {
        Self {
            is_lasting,
            bound: Vec::new(),
            unanswered: VecDeque::new(),
            mark: 0,
        }
    }

    /// The frame of a publish; whether it went out is told by [`Book::sent`].
    pub(super) fn publish<T: Serialize + ?Sized>(
        &mut self,
        topic: &str,
        payload: &T,
        how: Publish<'_>,
    ) -> Result<String, ClientError> {
        if UNANSWERED_MAX <= self.unanswered.len() {
            return Err(ClientError::Unanswered(self.unanswered.len()));
        }
        let mark = self.is_lasting.then(|| self.next_mark());
        let text = text_of(&PublishFrame {
            kind: "publish",
            topic,
            reference: mark.or(how.reference),
            idempotency_key: how.idempotency_key,
            payload,
        })?;
        if let Some(mark) = mark {
            self.unanswered.push_back(Unanswered {
                mark,
                reference: how.reference,
                topic: topic.to_owned(),
                has_key: how.idempotency_key.is_some(),
                is_sent: false,
                text: text.clone(),
            });
        }
        Ok(text)
    }

    /// The last publish went out, or waits for the next connection.
    pub(super) fn sent(&mut self, is_sent: bool) {
        if let Some(last) = self.unanswered.back_mut() {
            last.is_sent = is_sent;
        }
    }

    pub(super) fn subscribe(&mut self, subscribe: &Subscribe) -> Result<String, ClientError> {
        if !self.is_lasting {
            return text_of(subscribe);
        }
        let mut subscribe = subscribe.clone();
        subscribe.reference = Some(format!("s{}", self.next_mark()));
        let text = text_of(&subscribe)?;
        self.bound
            .retain(|known| !known.is(&subscribe.topic, &subscribe.sub_name));
        self.bound.push(Bound {
            subscribe,
            known_as: None,
            delivered: 0,
        });
        Ok(text)
    }

    /// It is not bound again, whatever becomes of the connection.
    pub(super) fn unsubscribe(
        &mut self,
        topic: &str,
        sub_name: &str,
    ) -> Result<String, ClientError> {
        self.bound.retain(|known| !known.is(topic, sub_name));
        text_of(&AboutSubscription {
            kind: "unsubscribe",
            topic,
            sub_name,
            seq: None,
            reference: None,
        })
    }

    /// An ack, if this connection has delivered something for it.
    pub(super) fn ack(
        &self,
        (topic, sub_name): (&str, &str),
        seq: u64,
        is_answered: bool,
    ) -> Result<Option<String>, ClientError> {
        let bound = self.bound.iter().find(|known| known.is(topic, sub_name));
        let seq = bound.map_or(seq, |bound| seq.min(bound.delivered));
        if seq == 0 {
            return Ok(None);
        }
        let ack = AboutSubscription {
            kind: "ack",
            topic,
            sub_name,
            seq: Some(seq),
            reference: is_answered.then_some(seq),
        };
        text_of(&ack).map(Some)
    }

    /// What the server said.
    pub(super) fn handle(&mut self, text: String) -> Result<Received<DurableFrame>, ClientError> {
        let kind = kind_of(&text)?;
        let frame = match kind.as_str() {
            "subscribed" => DurableFrame::Subscribed(self.subscribed(read(&text)?)),
            "message" => DurableFrame::Message(self.delivered(read(&text)?)),
            "gap" => DurableFrame::Gap(read(&text)?),
            "pub_ack" => DurableFrame::Published(self.published(read(&text)?)),
            "acked" => DurableFrame::Acked(read(&text)?),
            "unsubscribed" => DurableFrame::Unsubscribed(self.unsubscribed(read(&text)?)),
            "error" => DurableFrame::Refused(self.refused(read(&text)?)),
            _ => DurableFrame::Other(kind),
        };
        Ok(Received { text, frame })
    }

    fn subscribed(&mut self, answer: Subscribed) -> Subscribed {
        let asked = |bound: &&mut Bound| bound.is_answered_by(&answer);
        if let Some(bound) = self.bound.iter_mut().find(asked) {
            // From now on its cursor says where it goes on.
            bound.subscribe.from_seq = None;
            bound.subscribe.seek = None;
            bound.subscribe.epoch = answer.epoch;
            bound.known_as = Some((answer.topic.clone(), answer.sub_name.clone()));
            bound.delivered = answer.cursor;
        }
        answer
    }

    fn delivered(&mut self, message: Message) -> Message {
        // Messages name their topic alone.
        for bound in &mut self.bound {
            let id = bound.known_as.as_ref().map(|(id, _)| id);
            if id == Some(&message.topic) {
                bound.delivered = bound.delivered.max(message.seq);
            }
        }
        message
    }

    fn published(&mut self, mut published: Published) -> Published {
        if let Some(answered) = self.settle(published.reference, Some(&published.topic)) {
            published.reference = answered.reference;
        }
        published
    }

    /// One that was asked for is forgotten already.
    fn unsubscribed(&mut self, ended: Unsubscribed) -> Unsubscribed {
        if ended.reason.is_some() {
            self.bound
                .retain(|known| !known.is(&ended.topic, &ended.sub_name));
        }
        ended
    }

    fn refused(&mut self, mut refusal: Refusal) -> Refusal {
        let reference = refusal.reference.clone();
        if let Some(mark) = reference.as_ref().and_then(Value::as_str) {
            let is_it = |bound: &Bound| bound.subscribe.reference.as_deref() == Some(mark);
            // What was bound before may be bound again later.
            self.bound
                .retain(|bound| bound.known_as.is_some() || !is_it(bound));
        } else if refusal.sub_name.is_none() {
            let mark = reference.as_ref().and_then(Value::as_u64);
            if let Some(answered) = self.settle(mark, refusal.topic.as_deref()) {
                refusal.reference = answered.reference.map(Value::from);
            }
        }
        refusal
    }

    /// A publish is answered: by its mark the one, without one the first that went out to its topic.
    fn settle(&mut self, mark: Option<u64>, topic: Option<&str>) -> Option<Unanswered> {
        let at = match mark {
            Some(mark) => self.unanswered.iter().position(|one| one.mark == mark),
            None => self
                .unanswered
                .iter()
                .position(|one| one.is_sent && Some(one.topic.as_str()) == topic),
        };
        at.and_then(|at| self.unanswered.remove(at))
    }

    /// The connection is lost. What went out without a key may be stored or not, and cannot go out
    /// again.
    pub(super) fn lost(&mut self, reason: String) -> Received<DurableFrame> {
        let (lost, kept) = self
            .unanswered
            .drain(..)
            .partition::<Vec<_>, _>(|one| one.is_sent && !one.has_key);
        self.unanswered = kept.into();
        for waiting in &mut self.unanswered {
            waiting.is_sent = false;
        }
        for bound in &mut self.bound {
            bound.delivered = 0;
        }
        let unknown = lost.into_iter().map(|one| one.reference).collect();
        Received::untold(DurableFrame::Lost(Loss { reason, unknown }))
    }

    /// All that a new connection is told.
    pub(super) fn again(&mut self) -> Result<Vec<String>, ClientError> {
        let mut texts = Vec::new();
        for bound in &self.bound {
            let mut subscribe = bound.subscribe.clone();
            if let Some((id, _)) = &bound.known_as {
                subscribe.topic.clone_from(id);
            }
            texts.push(text_of(&subscribe)?);
        }
        for waiting in &mut self.unanswered {
            // One that does not go out is a loss, which is told as that.
            waiting.is_sent = true;
            texts.push(waiting.text.clone());
        }
        Ok(texts)
    }

    fn next_mark(&mut self) -> u64 {
        self.mark += 1;
        self.mark
    }
}

/// As many as a server takes from one connection (`limits.publishes_in_flight_max`).
const UNANSWERED_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn lasting() -> Book {
        Book::new(true)
    }

    fn mark_of(text: &str) -> u64 {
        let value: Value = serde_json::from_str(text).unwrap();
        value["ref"].as_u64().unwrap()
    }

    fn ack_of(text: &str) -> String {
        let mark = mark_of(text);
        format!(r#"{{"type":"pub_ack","topic":"id","seq":1,"ref":{mark}}}"#)
    }

    /// K4: a topic by its name is answered by its id, so only the mark tells which publish it is
    #[test]
    fn acks_are_matched_by_their_mark() {
        let mut book = lasting();
        for nth in 0..UNANSWERED_MAX * 3 {
            let how = Publish {
                reference: (nth % 2 == 0).then_some(7),
                idempotency_key: None,
            };
            let text = book.publish("orders", &nth, how).unwrap();
            book.sent(true);
            let DurableFrame::Published(published) = book.handle(ack_of(&text)).unwrap().frame
            else {
                panic!("not an ack");
            };
            assert_eq!(published.reference, how.reference, "the caller's own");
        }
        assert!(book.unanswered.is_empty());
    }

    /// K4: so are refusals, whatever they name
    #[test]
    fn refusals_are_matched_by_their_mark() {
        let mut book = lasting();
        for more in ["", r#","topic":"id""#, r#","topic":"orders""#] {
            let text = book.publish("orders", &1, Publish::default()).unwrap();
            book.sent(true);
            let mark = mark_of(&text);
            let refusal =
                format!(r#"{{"type":"error","message":"no","code":"x","ref":{mark}{more}}}"#);
            let DurableFrame::Refused(refusal) = book.handle(refusal).unwrap().frame else {
                panic!("not a refusal");
            };
            assert_eq!(refusal.reference, None, "the caller gave none");
            assert!(book.unanswered.is_empty(), "{more}");
        }
    }

    /// K4: once it has moved the cursor, `seek` is not said again, however the topic was named
    #[test]
    fn a_cursor_is_moved_once() {
        for topic in ["orders", "id"] {
            for with_mark in [true, false] {
                let mut book = lasting();
                let subscribe = Subscribe::new(topic, "A").from_seq(3).seek();
                let text = book.subscribe(&subscribe).unwrap();
                assert!(text.contains(r#""seek":true"#));
                let value: Value = serde_json::from_str(&text).unwrap();
                let mark = match with_mark {
                    true => format!(r#","ref":{}"#, value["ref"]),
                    false => String::new(),
                };
                let answer = format!(
                    r#"{{"type":"subscribed","topic":"id","sub_name":"svc/A","cursor":2,"epoch":5{mark}}}"#
                );
                book.handle(answer).unwrap();
                book.lost(String::new());
                let [again] = &book.again().unwrap()[..] else {
                    panic!("one subscription");
                };
                assert!(
                    !again.contains("seek") && !again.contains("from_seq"),
                    "{again}"
                );
                assert!(again.contains(r#""topic":"id""#) && again.contains(r#""epoch":5"#));
            }
        }
    }

    /// N1: an ack never goes beyond what this connection has delivered
    #[test]
    fn what_another_connection_delivered_is_not_acked_on_this_one() {
        let mut book = lasting();
        book.subscribe(&Subscribe::new("id", "A")).unwrap();
        let subscribed = || r#"{"type":"subscribed","topic":"id","sub_name":"A","cursor":0}"#;
        let message =
            |seq: u64| format!(r#"{{"type":"message","topic":"id","seq":{seq},"payload":1}}"#);
        book.handle(subscribed().into()).unwrap();
        for seq in 1..=3 {
            book.handle(message(seq)).unwrap();
        }
        let ack = |book: &Book, seq| book.ack(("id", "A"), seq, false).unwrap();
        assert!(ack(&book, 3).unwrap().contains(r#""seq":3"#));
        book.lost(String::new());
        assert_eq!(ack(&book, 3), None);
        book.handle(subscribed().into()).unwrap();
        assert_eq!(ack(&book, 3), None);
        book.handle(message(1)).unwrap();
        assert!(ack(&book, 3).unwrap().contains(r#""seq":1"#));
    }

    #[test]
    fn what_is_left_or_was_refused_is_not_bound_again() {
        let mut book = lasting();
        book.subscribe(&Subscribe::new("orders", "A")).unwrap();
        let text = book.subscribe(&Subscribe::new("orders", "B")).unwrap();
        book.subscribe(&Subscribe::new("orders", "C")).unwrap();
        book.unsubscribe("orders", "A").unwrap();
        let mark: Value = serde_json::from_str(&text).unwrap();
        let refusal = format!(r#"{{"type":"error","message":"no","ref":{}}}"#, mark["ref"]);
        book.handle(refusal).unwrap();
        let again = book.again().unwrap();
        assert_eq!(again.len(), 1);
        assert!(again[0].contains(r#""sub_name":"C""#));
    }
}
