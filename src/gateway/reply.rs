//! What a handler answers, and how it stands on the wire. The contract goes by the type of what
//! is returned, never by its spelling: an alias of `Result` is a `Result`. Knows no connection.

use std::cell::Cell;
use std::fmt::{self, Display};
use std::ops::{Deref, Range};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::gateway::engine::push::Push;
use crate::proto::CloseCode;
use crate::proto::event::{DATA_KEY, EVENT_KEY, begin_envelope, end_envelope};
use crate::proto::frame::{self, HEADER_BYTES_MAX, Opcode};

pub use crate::gateway::exception::{Exception, ExceptionKind, Opaque};

/// The one shape of the dialect, both ways: `{"event":string,"data":any}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WsEnvelope {
    /// What it is.
    pub event: String,
    /// Anything; `null` where it is missing.
    #[serde(default)]
    pub data: Value,
}

impl WsEnvelope {
    /// The text of an envelope.
    pub fn encode(event: &str, data: &(impl Serialize + ?Sized)) -> serde_json::Result<String> {
        #[derive(Serialize)]
        struct Borrowed<'a, T: ?Sized> {
            event: &'a str,
            data: &'a T,
        }
        serde_json::to_string(&Borrowed { event, data })
    }
}

/// The outcome of one event.
#[derive(Debug)]
pub enum WsReply {
    /// No frame.
    Silent,
    /// One frame.
    Frame(Body),
    /// An error, which exception filters may still change.
    Exception(Exception),
    /// The end of the connection.
    Close {
        /// The close code.
        code: CloseCode,
        /// The reason.
        reason: String,
    },
}

/// What a handler returns that wants to say more than data: `Reply::event("pong", data)`.
pub type Reply = WsReply;

impl WsReply {
    /// One frame under an event of its own.
    pub fn event(event: &str, data: impl Serialize) -> Self {
        written(Body::envelope(event, &data))
    }

    /// One frame of any JSON, which need not be an envelope.
    pub fn raw(value: impl Serialize) -> Self {
        written(Body::raw(&value))
    }

    /// No frame.
    pub fn none() -> Self {
        Self::Silent
    }
}

/// The text of a frame, with room in front for its header.
#[derive(Clone, PartialEq, Eq)]
pub struct Body {
    buffer: Vec<u8>,
    data_start: usize,
    is_envelope: bool,
}

impl Body {
    /// `{"event":"<event>","data":<data>`, its last brace still missing: an `id` may follow.
    pub(crate) fn envelope(
        event: &str,
        data: &(impl Serialize + ?Sized),
    ) -> serde_json::Result<Self> {
        let mut buffer = spare();
        buffer.extend_from_slice(&[0; HEADER_BYTES_MAX]);
        begin_envelope(&mut buffer, event);
        let data_start = buffer.len();
        serde_json::to_writer(&mut buffer, data)?;
        Ok(Self {
            buffer,
            data_start,
            is_envelope: true,
        })
    }

    /// Any JSON.
    pub(crate) fn raw(value: &(impl Serialize + ?Sized)) -> serde_json::Result<Self> {
        let mut buffer = spare();
        buffer.extend_from_slice(&[0; HEADER_BYTES_MAX]);
        serde_json::to_writer(&mut buffer, value)?;
        Ok(Self {
            buffer,
            data_start: HEADER_BYTES_MAX,
            is_envelope: false,
        })
    }

    /// The JSON of the data, or of the whole frame if it is raw.
    pub fn data(&self) -> &[u8] {
        &self.buffer[self.data_start..]
    }

    /// Puts other data in place of that which is there.
    pub fn set_data(&mut self, data: &(impl Serialize + ?Sized)) -> serde_json::Result<()> {
        let text = serde_json::to_vec(data)?;
        self.buffer.truncate(self.data_start);
        self.buffer.extend_from_slice(&text);
        Ok(())
    }

    /// The same to send: it knows where its event and its data stand.
    pub(crate) fn into_push(self) -> Push {
        let (data_start, data_end) = (self.data_start, self.buffer.len());
        let event = match self.is_envelope {
            true => HEADER_BYTES_MAX + EVENT_KEY.len()..data_start - DATA_KEY.len(),
            false => data_start..data_start,
        };
        let frame = self.into_frame(None);
        let start = frame.start;
        let inside = |range: Range<usize>| range.start - start..range.end - start;
        let (event, data) = (inside(event), inside(data_start..data_end));
        Push::of(frame.into_bytes(), event, data)
    }

    /// The frame, with the `id` of the request if it had one.
    pub(crate) fn into_frame(mut self, id: Option<&[u8]>) -> Frame {
        if self.is_envelope {
            end_envelope(&mut self.buffer, id);
        }
        let (header, header_len) =
            frame::header(Opcode::Text, self.buffer.len() - HEADER_BYTES_MAX);
        let start = HEADER_BYTES_MAX - header_len;
        self.buffer[start..HEADER_BYTES_MAX].copy_from_slice(&header[..header_len]);
        let buffer = self.buffer;
        Frame { buffer, start }
    }
}

/// A whole frame for one connection. Its memory serves the next one of this thread, so that an
/// answer allocates nothing.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Frame {
    buffer: Vec<u8>,
    start: usize,
}

impl Frame {
    /// The same to keep or to share.
    pub(crate) fn into_bytes(mut self) -> Bytes {
        match self.buffer.capacity() <= SPARE_BYTES_MAX {
            true => Bytes::copy_from_slice(&self),
            false => Bytes::from(std::mem::take(&mut self.buffer)).slice(self.start..),
        }
    }
}

impl Deref for Frame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[self.start..]
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        keep(std::mem::take(&mut self.buffer));
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("bytes", &self.len())
            .finish_non_exhaustive()
    }
}

thread_local! {
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// An empty buffer; a thread that ends has none to lend.
fn spare() -> Vec<u8> {
    let mut buffer = SPARE.try_with(Cell::take).unwrap_or_default();
    buffer.reserve(BODY_BYTES);
    buffer
}

fn keep(mut buffer: Vec<u8>) {
    if 0 < buffer.capacity() && buffer.capacity() <= SPARE_BYTES_MAX {
        buffer.clear();
        // Without a place for it, it goes.
        SPARE.try_with(|spare| spare.set(buffer)).ok();
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(&self.buffer[HEADER_BYTES_MAX..]);
        f.debug_tuple("Body").field(&text).finish()
    }
}

/// What a handler returned, to be told apart by its type: `split` takes the error of a `Result`
/// out, `present` the value of an `Option`, and `into_reply` turns the rest into a [`WsReply`].
/// [`answer!`](crate::answer) does all three.
#[derive(Debug)]
pub struct Answer<T>(pub T);

impl<T, E> Answer<Result<T, E>> {
    /// An `Err` is an error frame of its text.
    pub fn split(self) -> Result<Answer<T>, Exception>
    where
        E: Display + 'static,
    {
        self.0.map(Answer).map_err(Exception::new)
    }
}

impl<T> Answer<Option<T>> {
    /// `None` is silent.
    pub fn present(self) -> Option<Answer<T>> {
        self.0.map(Answer)
    }
}

impl Answer<()> {
    /// `()` is silent.
    pub fn into_reply(self, _event: &str) -> WsReply {
        WsReply::Silent
    }
}

impl Answer<WsReply> {
    /// It is one already.
    pub fn into_reply(self, _event: &str) -> WsReply {
        self.0
    }
}

impl Answer<Value> {
    /// An untyped value with exactly the keys `event` and `data` is an envelope of its own.
    pub fn into_reply(self, event: &str) -> WsReply {
        match own_envelope(&self.0) {
            Some((event, data)) => written(Body::envelope(event, data)),
            None => written(Body::envelope(event, &self.0)),
        }
    }
}

/// Passes on all that is neither `Result` nor `Option`.
pub trait Plain: Sized {
    /// Always `Ok`.
    fn split(self) -> Result<Self, Exception> {
        Ok(self)
    }

    /// Always `Some`.
    fn present(self) -> Option<Self> {
        Some(self)
    }
}

impl<T> Plain for Answer<T> {}

/// All other values are data under the event of the request.
pub trait Data<T> {
    /// One frame.
    fn into_reply(self, event: &str) -> WsReply
    where
        T: Serialize;
}

impl<T> Data<T> for Answer<T> {
    fn into_reply(self, event: &str) -> WsReply
    where
        T: Serialize,
    {
        written(Body::envelope(event, &self.0))
    }
}

fn own_envelope(value: &Value) -> Option<(&str, &Value)> {
    let fields = value.as_object().filter(|fields| fields.len() == 2)?;
    Some((fields.get("event")?.as_str()?, fields.get("data")?))
}

fn written(body: serde_json::Result<Body>) -> WsReply {
    match body {
        Ok(body) => WsReply::Frame(body),
        Err(error) => {
            tracing::error!(target: "tidegate::ws", %error, "what a handler returned has no JSON");
            WsReply::Exception(Exception::internal(ExceptionKind::Serialize))
        }
    }
}

/// Turns what a handler returned into its outcome, by its type: `answer!(event, value)`.
#[macro_export]
macro_rules! answer {
    ($event:expr, $value:expr) => {{
        #[allow(unused_imports, reason = "the type decides which of them is needed")]
        use $crate::gateway::reply::{Answer, Data as _, Plain as _, WsReply};
        match Answer($value).split() {
            Ok(answer) => match answer.present() {
                Some(answer) => answer.into_reply($event),
                None => WsReply::Silent,
            },
            Err(exception) => WsReply::Exception(exception),
        }
    }};
}

const BODY_BYTES: usize = 256;
const SPARE_BYTES_MAX: usize = 16 << 10;
