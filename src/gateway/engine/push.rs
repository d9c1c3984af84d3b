//! What a send carries: an event and its data, serialized once. Each shard derives from it the frames
//! of the dialects that its receivers speak, by copying and never by serializing again.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use crate::gateway::arguments::{self, Written};
use crate::gateway::engine::wire::Said;
use crate::gateway::reply::Body;

/// One event on its way to its receivers. Cheap to clone, the same bytes for all of them.
#[derive(Clone)]
pub struct Push {
    /// The whole frame of the event dialect.
    plain: Bytes,
    event: Range<u32>,
    data: Range<u32>,
    is_args: bool,
    manner: Manner,
    /// What only some have.
    binary: Option<Arc<Binary>>,
}

/// How a push is given to each of its receivers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Manner {
    /// Only those get it who have read everything before it.
    pub is_volatile: bool,
    /// It stays as it is also where compression was agreed on.
    pub is_uncompressed: bool,
}

/// Data with placeholders, and the bytes that stand for them.
struct Binary {
    data: Bytes,
    attachments: Vec<Bytes>,
}

impl Push {
    /// An event and its data.
    pub(crate) fn event(event: &str, data: &(impl Serialize + ?Sized)) -> serde_json::Result<Self> {
        Ok(Body::envelope(event, data)?.into_push())
    }

    /// Any JSON, which need not be an envelope.
    pub(crate) fn raw(value: &(impl Serialize + ?Sized)) -> serde_json::Result<Self> {
        Ok(Body::raw(value)?.into_push())
    }

    /// Of a frame in which event and data stand at these places.
    pub(crate) fn of(plain: Bytes, event: Range<usize>, data: Range<usize>) -> Self {
        debug_assert!(event.end <= data.start && data.end <= plain.len());
        Self {
            plain,
            event: narrow(event),
            data: narrow(data),
            is_args: false,
            manner: Manner::default(),
            binary: None,
        }
    }

    /// The same with what was written beside its data; `data` has placeholders for bytes.
    pub(crate) fn with(mut self, data: Bytes, beside: Written) -> Self {
        self.is_args = beside.is_args;
        let attachments = beside.attachments;
        if !attachments.is_empty() {
            self.binary = Some(Arc::new(Binary { data, attachments }));
        }
        self
    }

    /// The frames of a namespace of Socket.IO; `id` asks for an answer.
    pub(crate) fn socketio(&self, nsp: &str, id: Option<u64>) -> Bytes {
        let (data, attachments) = match &self.binary {
            Some(binary) => (&binary.data[..], &binary.attachments[..]),
            None => (self.data_json(), &[][..]),
        };
        let said = Said {
            event: self.event_json(),
            args: arguments::args_of(data, self.is_args),
            attachments,
        };
        let mut out = Vec::new();
        said.put_event(&mut out, nsp, id);
        out.into()
    }

    /// The same, given in this manner.
    pub(crate) fn in_manner(mut self, manner: Manner) -> Self {
        self.manner = manner;
        self
    }

    /// How it is given to each of its receivers.
    pub fn manner(&self) -> Manner {
        self.manner
    }

    /// The whole frame of the event dialect.
    pub fn plain(&self) -> &Bytes {
        &self.plain
    }

    /// The name of the event as JSON; empty where the frame has another shape.
    pub fn event_json(&self) -> &[u8] {
        &self.plain[wide(&self.event)]
    }

    /// The data as JSON, or all of the text where the frame has another shape.
    pub fn data_json(&self) -> &[u8] {
        &self.plain[wide(&self.data)]
    }
}

/// A frame is shorter than 4 GiB: limits end at 1 GiB.
#[expect(clippy::expect_used, reason = "no frame has 4 GiB")]
fn narrow(range: Range<usize>) -> Range<u32> {
    let place = |at: usize| u32::try_from(at).expect("a frame of less than 4 GiB");
    place(range.start)..place(range.end)
}

fn wide(range: &Range<u32>) -> Range<usize> {
    range.start as usize..range.end as usize
}

impl fmt::Debug for Push {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (event, data) = (self.event_json(), self.data_json());
        f.debug_struct("Push")
            .field("event", &String::from_utf8_lossy(event))
            .field("data_bytes", &data.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::arguments::{Args, Attachment};

    /// Z-20: whatever the length of its header, a frame knows where its parts stand.
    #[test]
    fn event_and_data_stand_in_the_frame() {
        for len in [0, 100, 120, 70_000] {
            let data = "x".repeat(len);
            let push = Push::event("a\"b", &data).unwrap();
            assert_eq!(push.event_json(), br#""a\"b""#);
            assert_eq!(push.data_json(), format!("\"{data}\"").as_bytes());
            let text = format!(r#"{{"event":"a\"b","data":"{data}"}}"#);
            assert_eq!(
                push.plain()[..],
                crate::proto::frame::text(text.as_bytes())[..]
            );
        }
        let push = Push::event("ev", &Args((1, Attachment(Bytes::from_static(&[7]))))).unwrap();
        let text = br#"{"event":"ev","data":[1,"Bw=="]}"#;
        assert_eq!(push.plain()[..], crate::proto::frame::text(text)[..]);
        let frames = push.socketio("/a", Some(3));
        let head = br#"451-/a,3["ev",1,{"_placeholder":true,"num":0}]"#;
        let mut expected = crate::proto::frame::text(head).to_vec();
        expected.extend_from_slice(&crate::proto::frame::binary(&[7]));
        assert_eq!(frames[..], expected[..]);
        let raw = Push::raw(&[1, 2]).unwrap();
        assert_eq!(
            (raw.event_json(), raw.data_json()),
            (&b""[..], &b"[1,2]"[..])
        );
    }
}
