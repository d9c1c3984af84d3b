//! One client of durable topics over a blocking socket: publishes in bulk, subscribes and counts
//! what comes without reading it, for to read it would cost more than the server needs to send it.

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::options::Place;
use crate::frame::{self, Frame, FrameWalker};
use crate::stream::Stream;

/// A connection on the durable mount.
#[derive(Debug)]
pub(crate) struct Client {
    stream: Stream,
    walker: FrameWalker,
    chunk: Box<[u8]>,
}

impl Client {
    /// Connects and upgrades.
    pub(crate) fn connect(place: &Place) -> Result<Self> {
        let mut streams = place.common.target(&place.path)?.open(1, |_| ())?;
        let stream = streams.pop().context("one connection was asked for")?;
        Ok(Self {
            stream,
            walker: FrameWalker::default(),
            chunk: vec![0; CHUNK_BYTES].into(),
        })
    }

    /// Sends bytes that are frames already.
    pub(crate) fn send(&mut self, frames: &[u8]) -> Result<()> {
        self.stream.write(frames).context("send")
    }

    /// Waits for bytes and counts the messages that they complete.
    pub(crate) fn receive(&mut self) -> Result<u64> {
        let bytes = self
            .stream
            .read(&mut self.chunk)
            .context("wait for the server")?;
        if bytes == 0 {
            bail!("the server closed a connection during the run");
        }
        let (mut messages, mut pong, mut closed) = (0, None, false);
        self.walker
            .walk(&self.chunk[..bytes], |frame| match frame {
                Frame::Data { .. } => messages += 1,
                Frame::Control {
                    opcode: frame::PING,
                    payload,
                } => pong = Some(frame::masked(frame::PONG, payload)),
                Frame::Control { opcode, .. } => closed |= opcode == frame::CLOSE,
            })?;
        if closed {
            bail!("the server closed a connection");
        }
        pong.map_or(Ok(()), |pong| self.send(&pong))?;
        Ok(messages)
    }

    /// Waits until so many messages have come; more than that is an error of the server.
    pub(crate) fn await_messages(&mut self, count: u64) -> Result<()> {
        let mut seen = 0;
        while seen < count {
            seen += self.receive()?;
        }
        if count < seen {
            bail!("{seen} messages came where {count} were awaited");
        }
        Ok(())
    }

    /// Publishes `count` payloads of `bytes` to a topic and waits for the acks.
    pub(crate) fn publish_many(
        &mut self,
        topic: &str,
        bytes: usize,
        count: u64,
        mut told: impl FnMut(u64),
    ) -> Result<()> {
        let frame = publish_frame(topic, bytes);
        let at_once = (FILL_BYTES / bytes.max(1)).clamp(1, FILLED_AT_ONCE);
        let frames = frame.repeat(at_once);
        let mut done = 0;
        while done < count {
            let now = (at_once as u64).min(count - done);
            self.send(&frames[..frame.len() * usize::try_from(now)?])?;
            self.await_messages(now)?;
            done += now;
            told(done);
        }
        Ok(())
    }

    /// Subscribes from the beginning, with so many un-acked messages at most. The answer is the
    /// first message that comes.
    pub(crate) fn subscribe(&mut self, topic: &str, sub_name: &str, window: u32) -> Result<()> {
        let request = json!({
            "type": "subscribe", "topic": topic, "sub_name": sub_name,
            "from_seq": 0, "seek": true, "max_in_flight": window,
        });
        self.send(&text_frame(&request))
    }

    /// Moves the cursor.
    pub(crate) fn ack(&mut self, topic: &str, sub_name: &str, seq: u64) -> Result<()> {
        let ack = json!({"type": "ack", "topic": topic, "sub_name": sub_name, "seq": seq});
        self.send(&text_frame(&ack))
    }
}

/// Makes topics if they are not there.
pub(crate) fn make_topics(
    place: &Place,
    names: &[String],
    mut made: impl FnMut(u64),
) -> Result<()> {
    let url = format!("http://{}", place.common.server);
    let token = place.common.token.as_deref().unwrap_or_default();
    let client = tidegate_client::Client::new(&url, token)?;
    let mut count = 0;
    for some in names.chunks(MADE_AT_ONCE) {
        client.topics(some).context("make topics")?;
        count += some.len() as u64;
        made(count);
    }
    Ok(())
}

/// The frame of a publish whose payload has so many bytes.
pub(crate) fn publish_frame(topic: &str, bytes: usize) -> Vec<u8> {
    let payload = "x".repeat(bytes.saturating_sub(2));
    text_frame(&json!({"type": "publish", "topic": topic, "payload": payload}))
}

fn text_frame(message: &serde_json::Value) -> Vec<u8> {
    frame::masked(frame::TEXT, message.to_string().as_bytes())
}

const CHUNK_BYTES: usize = 256 << 10;
const FILL_BYTES: usize = 512 << 10;
const FILLED_AT_ONCE: usize = 512;
/// Few enough for a bar that moves, many enough that connections cost nothing.
const MADE_AT_ONCE: usize = 512;
