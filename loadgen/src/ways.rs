//! What lies between WebSocket and the load: TLS below it, compression in it, Socket.IO above it.
//! Knows texts and frames; no socket.

use std::path::PathBuf;

use clap::Args;
use flate2::{Compress, Compression, FlushCompress};

use crate::frame;

/// Ways to speak that are off by default.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Ways {
    /// Speak TLS and trust the certificate in this file (PEM), which must name the address of
    /// --server. Nothing is resumed: each connection is a whole handshake.
    #[arg(long, value_name = "FILE")]
    pub(crate) tls: Option<PathBuf>,
    /// Offer permessage-deflate: what is sent is compressed once, before the run, and what comes
    /// back is counted and not inflated.
    #[arg(long)]
    pub(crate) deflate: bool,
    /// Speak Socket.IO over WebSocket to a program that returns the event `message`, knows the ack of
    /// `join` (a room) and sends `say` (room, text) to the room as `said` (text): bench's `typed`.
    #[arg(long)]
    pub(crate) socketio: bool,
}

impl Ways {
    /// What goes out, as one masked frame.
    pub(crate) fn frame(&self, opcode: u8, payload: &[u8]) -> Vec<u8> {
        match self.deflate {
            true => frame::masked_compressed(opcode, &deflated(payload)),
            false => frame::masked(opcode, payload),
        }
    }

    /// So many bytes of text: all the same letter, or words that compress as JSON does.
    pub(crate) fn filler(&self, bytes: usize) -> String {
        if !self.deflate {
            return "x".repeat(bytes);
        }
        let mut text = String::with_capacity(bytes + WORD_BYTES_MAX);
        let mut seed = 1_u32;
        while text.len() < bytes {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            text.push_str(WORDS[(seed >> 16) as usize % WORDS.len()]);
            text.push_str(&((seed >> 8) % 1_000).to_string());
        }
        text.truncate(bytes);
        text
    }

    /// A target with the query that Socket.IO wants.
    pub(crate) fn target(&self, path: &str) -> String {
        match self.socketio && !path.contains('?') {
            true => format!("{path}?EIO=4&transport=websocket"),
            false => path.to_owned(),
        }
    }
}

/// The packet that joins the namespace `/`.
pub(crate) const JOIN: &[u8] = b"40";
/// The answer to the server's question whether the client lives.
pub(crate) const PONG: &[u8] = b"3";

/// What goes into one message: RFC 7692, 7.2.1.
fn deflated(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut compress = Compress::new(Compression::fast(), false);
    let mut rest = payload;
    loop {
        out.reserve(rest.len() + ROOM_BYTES);
        let before = compress.total_in();
        // Errors are those of a stream that was finished, which this never is.
        let _ = compress.compress_vec(rest, &mut out, FlushCompress::Sync);
        let taken = usize::try_from(compress.total_in() - before).unwrap_or(0);
        rest = &rest[taken..];
        if rest.is_empty() && out.len() < out.capacity() {
            break;
        }
    }
    out.truncate(out.len().saturating_sub(TAIL.len()));
    out
}

const WORDS: [&str; 12] = [
    " order ", " price ", " of ", " sent ", " ada ", " room ", " the ", " paid ", " user ", " at ",
    " left ", " total ",
];
const WORD_BYTES_MAX: usize = 16;
const ROOM_BYTES: usize = 1 << 10;
const TAIL: [u8; 4] = [0, 0, 0xFF, 0xFF];

#[cfg(test)]
mod tests {
    use flate2::{Decompress, FlushDecompress};

    use super::*;

    fn ways(deflate: bool, socketio: bool) -> Ways {
        Ways {
            deflate,
            socketio,
            tls: None,
        }
    }

    fn inflated(payload: &[u8], bytes: usize) -> Vec<u8> {
        let whole = [payload, &TAIL].concat();
        let mut inflate = Decompress::new(false);
        let mut out = Vec::with_capacity(bytes + ROOM_BYTES);
        inflate
            .decompress_vec(&whole, &mut out, FlushDecompress::Sync)
            .unwrap();
        assert_eq!(inflate.total_in(), whole.len() as u64);
        out
    }

    #[test]
    fn what_is_compressed_is_the_same_text_and_about_half() {
        let text = ways(true, false).filler(1_024);
        assert_eq!(text.len(), 1_024);
        let packed = deflated(text.as_bytes());
        let share = packed.len() as f64 / 1_024.0;
        assert!((0.3..0.6).contains(&share), "{share}");
        assert_eq!(inflated(&packed, text.len()), text.as_bytes());
    }

    #[test]
    fn noise_is_taken_whole() {
        let mut seed = 7_u32;
        let noise = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1);
            seed.to_be_bytes()[0]
        });
        let noise: Vec<u8> = noise.take(100_000).collect();
        assert!(inflated(&deflated(&noise), noise.len()) == noise);
    }

    #[test]
    fn a_target_of_socketio_has_its_query() {
        let target = ways(false, true).target("/socket.io/");
        assert_eq!(target, "/socket.io/?EIO=4&transport=websocket");
        assert_eq!(ways(false, true).target("/s?EIO=4"), "/s?EIO=4");
        assert_eq!(ways(false, false).target("/echo"), "/echo");
    }
}
