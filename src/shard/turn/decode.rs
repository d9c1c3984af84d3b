//! From received bytes to messages, one after the other, for as long as the connection has a share
//! of the turn. Knows frames and bounds; not what a message means.
//!
//! Bounds: a connection is decoded until its outbox is half full behind a send, its inbox is full, too
//! many of its publishes are under way, or what one turn may give out is used up, and for
//! `turn_us_max` at most. The rest waits in its order (`Kept`) and is decoded before anything that
//! comes later; past `inbox_bytes_max` of it the peer is not read from. So nobody is closed for what
//! was not offered to it, and nobody overruns those who read.

use std::rc::Rc;
use std::time::Instant;

use crate::broker::relay::LeaveReason;
use crate::metrics::Counter;
use crate::proto::frame;
use crate::proto::http;
use crate::proto::json::JsonParser;
use crate::proto::ws::deflate::Inflater;
use crate::proto::ws::{Decoder, FrameLimits, Input, Message, ProtocolError};
use crate::tls::{Fault, Greeting, Opened};

use crate::shard::kernel::buffers::{BufferId, PADDING_BYTES};
use crate::shard::kernel::clock::now;
use crate::shard::kernel::ring::SlotKey;
use crate::shard::socket::connection::Kept;
use crate::shard::socket::machine::{Ended, Pause};
use crate::shard::speak::raw::Direct;
use crate::shard::state::shard::Shard;
use crate::shard::state::who::Who;
use crate::shard::state::{State, mark_dirty};
use crate::shard::turn::Turn;

/// What messages are read with; a shard has one for all.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    json: JsonParser,
    inflater: Inflater,
}

impl Readers {
    pub(crate) fn json(&mut self) -> &mut JsonParser {
        &mut self.json
    }
}

impl Turn {
    /// Frames that came right behind the head.
    pub(crate) fn receive_rest(&mut self, key: SlotKey, rest: &[u8]) {
        if !rest.is_empty() {
            let shard = Rc::clone(&self.shard);
            let mut bytes = padded(rest.to_vec());
            let mut input = Input::new(&mut bytes, rest.len());
            shard.take(key, &mut input, &mut self.readers, self.until);
        }
    }

    /// Connections whose upgrade came through HTTP.
    pub(crate) fn take_returned(&mut self) {
        let returned = std::mem::take(&mut self.shard.state.borrow_mut().returned);
        for (key, read) in returned {
            self.receive_rest(key, &read);
        }
    }

    pub(crate) fn receive_frames(&mut self, key: SlotKey, buffer: BufferId, count: usize) {
        let shard = Rc::clone(&self.shard);
        let buffer = self.ring.buffers().filled(buffer);
        let opened = {
            let mut state = shard.state.borrow_mut();
            state.open(key, buffer, count, &mut self.opened)
        };
        let Some((buffer, count)) = opened else {
            return;
        };
        let mut input = Input::new(buffer, count);
        shard.take(key, &mut input, &mut self.readers, self.until);
    }

    /// Decodes what was kept for a connection whose turn has come.
    pub(crate) fn decode_kept(&mut self, key: SlotKey) {
        let shard = Rc::clone(&self.shard);
        let Some(mut kept) = shard.state.borrow_mut().take_kept(key) else {
            return;
        };
        let filled = kept.bytes.len();
        kept.bytes.resize(filled + PADDING_BYTES, 0);
        let waiting = filled - kept.at;
        let mut input = Input::new(&mut kept.bytes[kept.at..], waiting);
        shard.decode(key, &mut input, &mut self.readers, self.until);
        let left = input.remaining();
        kept.bytes.truncate(filled);
        kept.at = filled - left;
        shard.state.borrow_mut().put_kept(key, kept);
    }
}

fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len() + PADDING_BYTES, 0);
    bytes
}

/// The clock is looked at after so many messages of one connection.
const CLOCK_MESSAGES: usize = 16;

impl Shard {
    /// Takes what came: decodes it now, or keeps it behind what was kept before.
    fn take(
        self: &Rc<Self>,
        key: SlotKey,
        input: &mut Input<'_>,
        readers: &mut Readers,
        until: Instant,
    ) {
        if !self.state.borrow_mut().has_kept(key) {
            self.decode(key, input, readers, until);
        }
        if 0 < input.remaining() {
            self.state.borrow_mut().keep(key, input.rest());
        }
    }

    /// Takes complete messages out of `input`; what is left has found no share of the turn.
    fn decode(
        self: &Rc<Self>,
        key: SlotKey,
        input: &mut Input<'_>,
        readers: &mut Readers,
        until: Instant,
    ) {
        let Some((mut decoder, limits)) = self.state.borrow_mut().begin_decode(key) else {
            return;
        };
        let mut direct = Direct::of(self.state.borrow_mut().inbox_of(key));
        let (mut is_whole, mut count) = (false, 0);
        let outcome = loop {
            let goes_on = || {
                direct
                    .goes_on()
                    .unwrap_or_else(|| self.may_go_on(key, count))
            };
            if 0 < input.remaining() && (!goes_on() || is_late(count, until)) {
                break Ok(false);
            }
            let Readers { json, inflater } = &mut *readers;
            let next = match decoder.next(input, &limits) {
                Ok(Some(found)) if limits.deflate => {
                    let opened = inflater.open(found, limits.message_bytes_max, limits.skip_utf8);
                    opened.map(Some)
                }
                other => other,
            };
            match next {
                Ok(Some(message)) => {
                    is_whole |= matches!(message, Message::Text(_) | Message::Binary(_));
                    count += 1;
                    if let Some(message) = direct.take(message) {
                        self.on_message(key, message, json);
                        self.run_calls();
                    }
                }
                Ok(None) => break Ok(true),
                Err(error) => break Err(error),
            }
        };
        let mut state = self.state.borrow_mut();
        state.note_direct(key, &direct);
        if limits.deflate {
            state.note_inflated(&mut readers.inflater);
        }
        // Of what waits with us nobody can say that the peer does not finish it.
        let is_partial = matches!(outcome, Ok(true)) && decoder.has_partial();
        state.note_partial(key, is_partial, is_whole);
        state.end_decode(key, decoder, outcome.map(drop));
    }

    /// Whether the connection has a share of the turn for one more message. It has for the first one.
    fn may_go_on(&self, key: SlotKey, count: usize) -> bool {
        let mut state = self.state.borrow_mut();
        let is_full = 0 < count && state.share.is_full();
        !is_full && state.may_decode(key)
    }
}

/// Whether what is processed must give way, looked at behind some messages.
fn is_late(count: usize, until: Instant) -> bool {
    0 < count && count.is_multiple_of(CLOCK_MESSAGES) && until <= now()
}

impl State {
    /// What its transport makes of what a connection received; nothing if that ends the connection.
    pub(crate) fn open<'b>(
        &mut self,
        key: SlotKey,
        buffer: &'b mut [u8],
        count: usize,
        scratch: &'b mut Vec<u8>,
    ) -> Option<(&'b mut [u8], usize)> {
        let connection = self.connections.alive(key)?;
        match connection.transport.open(buffer, count, scratch) {
            Ok((buffer, count, opened)) => {
                if connection.transport.has_output() {
                    mark_dirty(&mut self.dirty, connection, key);
                }
                if opened.is_ended {
                    // The receive that is armed ends then as it does when the peer has ended.
                    let _ = rustix::net::shutdown(&connection.fd, rustix::net::Shutdown::Read);
                }
                self.note_opened(opened);
                Some((buffer, count))
            }
            Err(fault) => {
                self.end_by(key, &fault);
                None
            }
        }
    }

    fn note_opened(&self, opened: Opened) {
        match opened.greeted {
            Some(Greeting::Full) => self.metrics.add(Counter::TlsHandshakesFull, 1),
            Some(Greeting::Resumed) => self.metrics.add(Counter::TlsHandshakesResumed, 1),
            None => {}
        }
    }

    /// A fault of the transport ends the connection; the peer is told by what the transport has left
    /// to say, if nothing is under way that it would cut in two.
    fn end_by(&mut self, key: SlotKey, fault: &Fault) {
        self.metrics.add(Counter::TlsFaults, 1);
        tracing::debug!(target: "tidegate::tls", %fault, "connection ended");
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        let sealed = connection.transport.seal(None, &mut self.spare);
        let last = match fault {
            Fault::PlainHttp => Some(http::error_response(400, "this port speaks TLS").to_vec()),
            _ => sealed.map(|sealed| sealed.rest().to_vec()),
        };
        if let Some(last) = last.filter(|_| !connection.machine.is_sending()) {
            // What the buffer of the socket does not take is not worth waiting for.
            let _ = rustix::net::send(&connection.fd, &last, rustix::net::SendFlags::DONTWAIT);
        }
        self.abort(key, LeaveReason::Closed);
    }

    fn note_inflated(&self, inflater: &mut Inflater) {
        inflater.release();
        let (bytes_in, bytes_out) = inflater.take_counts();
        self.metrics.add(Counter::InflateBytesIn, bytes_in);
        self.metrics.add(Counter::InflateBytesOut, bytes_out);
    }

    fn may_decode(&mut self, key: SlotKey) -> bool {
        let connection = self.connections.alive(key);
        connection.is_some_and(|connection| connection.machine.may_decode())
    }

    fn has_kept(&mut self, key: SlotKey) -> bool {
        let connection = self.connections.alive(key);
        connection.is_some_and(|connection| connection.kept.is_some())
    }

    /// Keeps bytes until the connection has a share of a turn.
    fn keep(&mut self, key: SlotKey, rest: &[u8]) {
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        if !connection.machine.reads() {
            return;
        }
        let kept = connection.kept.get_or_insert_default();
        kept.bytes.drain(..kept.at);
        kept.at = 0;
        kept.bytes.extend_from_slice(rest);
        let waiting = kept.waiting();
        let max = self.live.limits_of(connection.mount).inbox_bytes_max;
        self.wishes.push(key);
        if max <= waiting {
            self.pause(key, Pause::Kept);
        }
    }

    /// What was kept for a connection, if it may be decoded.
    fn take_kept(&mut self, key: SlotKey) -> Option<Box<Kept>> {
        let connection = self.connections.alive(key)?;
        connection.kept.as_mut()?.is_due = false;
        let may = connection.machine.may_decode();
        connection.kept.take_if(|_| may)
    }

    /// Puts back what was not decoded, or goes on with what comes.
    fn put_kept(&mut self, key: SlotKey, kept: Box<Kept>) {
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        self.wishes.push(key);
        let has_ended = kept.ended;
        if 0 < kept.waiting() && connection.machine.reads() {
            connection.kept = Some(kept);
            return;
        }
        self.resume(key, Pause::Kept);
        if has_ended {
            self.end_of_peer(key, Ended::End);
        }
    }

    /// The peer has ended its side, or its socket is broken. What it sent before its end is decoded
    /// first.
    pub(crate) fn end_of_peer(&mut self, key: SlotKey, why: Ended) {
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        match &mut connection.kept {
            Some(kept) if why == Ended::End => kept.ended = true,
            _ => self.abort(key, LeaveReason::Closed),
        }
    }

    fn begin_decode(&mut self, key: SlotKey) -> Option<(Decoder, FrameLimits)> {
        let connection = self.connections.alive(key)?;
        let decoder = std::mem::take(&mut connection.decoder);
        let limits = self.live.limits_of(connection.mount);
        let limits = FrameLimits {
            frame_bytes_max: limits.frame_bytes_max as u64,
            message_bytes_max: limits.message_bytes_max as u64,
            fragments_base_max: u32::try_from(limits.fragments_base_max).unwrap_or(u32::MAX),
            skip_utf8: connection.session.speaker().checks_text(),
            deflate: connection.inflates,
        };
        Some((decoder, limits))
    }

    /// Measures how long a message is unfinished: from its first byte, so anew when the one
    /// before it has become whole.
    fn note_partial(&mut self, key: SlotKey, is_partial: bool, is_whole: bool) {
        let now_ms = self.peer_ms();
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        if connection
            .machine
            .note_partial(is_partial, is_whole, now_ms)
        {
            self.look_at_next(key);
        }
    }

    fn end_decode(&mut self, key: SlotKey, decoder: Decoder, outcome: Result<(), ProtocolError>) {
        let Some(connection) = self.connections.alive(key) else {
            return;
        };
        connection.decoder = decoder;
        if let Err(error) = outcome {
            let code = error.close_code();
            if tracing::enabled!(target: "tidegate::ws", tracing::Level::WARN) {
                let Who {
                    tenant,
                    sub,
                    peer,
                    conn,
                } = self.who(key);
                tracing::warn!(target: "tidegate::ws", tenant, sub, peer, conn, code, %error, "protocol error");
            }
            self.metrics.closed(code);
            let close = frame::close(code, &error.to_string());
            // What follows cannot be read any more, the peer's close least of all.
            self.close_with_frame(key, &close, true, LeaveReason::Closed);
        }
    }
}
