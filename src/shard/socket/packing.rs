//! Compression of what is sent: how each connection takes it, and the states that all connections of
//! a shard share. Knows frames and their sizes; not what they say.
//!
//! A piece that goes to many is compressed once for all of one window (`Piece`), a frame for one
//! socket when it is queued. Nothing is kept from one message to the next.

use crate::config::Limits;
use crate::proto::handshake::extensions::Window;
use crate::proto::ws::deflate::{Deflater, How};

/// How a connection takes messages; the number of its [`Packing`], and 0 for as they are.
pub(crate) type PackingId = u8;

/// What was agreed on with a client, under the limits of its mount at that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packing {
    pub(crate) window: Window,
    threshold_bytes: usize,
    level: u32,
    level_shared: u32,
    binary: bool,
}

impl Packing {
    pub(crate) fn new(window: Window, limits: &Limits) -> Self {
        Self {
            window,
            threshold_bytes: limits.deflate_threshold_bytes,
            level: limits.deflate_level,
            level_shared: limits.deflate_level_shared,
            binary: limits.deflate_binary,
        }
    }

    fn how(&self, receivers: u32) -> How {
        How {
            window: self.window,
            level: match receivers < MANY {
                true => self.level,
                false => self.level_shared,
            },
            threshold_bytes: self.threshold_bytes,
            binary: self.binary,
        }
    }
}

/// From so many receivers on a shard a smaller message is worth more time.
const MANY: u32 = 16;

/// All packings in use, and what they work with.
#[derive(Debug, Default)]
pub(crate) struct Packings {
    all: Vec<Packing>,
    deflater: Deflater,
    plain: Vec<u8>,
    bytes_in: u64,
    bytes_out: u64,
}

impl Packings {
    /// The number of a packing. There are two windows and one set of limits a mount, so those of 255
    /// reloads find place; later ones are answered with none.
    pub(crate) fn id_of(&mut self, packing: Packing) -> PackingId {
        let found = self.all.iter().position(|it| *it == packing);
        let place = match found {
            Some(place) => place,
            None if self.all.len() < usize::from(PackingId::MAX) => {
                self.all.push(packing);
                self.all.len() - 1
            }
            None => return 0,
        };
        PackingId::try_from(place + 1).unwrap_or(0)
    }

    pub(crate) fn of(&self, id: PackingId) -> Option<Packing> {
        self.all.get(usize::from(id).checked_sub(1)?).copied()
    }

    /// Compresses the frames behind `start` where they lie.
    pub(crate) fn pack_own(&mut self, id: PackingId, frames: &mut Vec<u8>, start: usize) {
        let Some(packing) = self.of(id) else { return };
        if frames.len() - start < packing.threshold_bytes {
            return;
        }
        self.plain.clear();
        self.plain.extend_from_slice(&frames[start..]);
        frames.truncate(start);
        let how = packing.how(1);
        if self.deflater.put_frames(frames, &self.plain, how, |_| {}) {
            self.bytes_in += self.plain.len() as u64;
            self.bytes_out += (frames.len() - start) as u64;
        }
        if KEPT_BYTES_MAX < self.plain.capacity() {
            self.plain = Vec::new();
        }
    }

    /// The same frames compressed, and where each ends; nothing if none became smaller.
    pub(crate) fn pack_shared(
        &mut self,
        packing: Packing,
        frames: &[u8],
        receivers: u32,
        mut end: impl FnMut(usize),
    ) -> Option<Vec<u8>> {
        if frames.len() < packing.threshold_bytes {
            return None;
        }
        let mut out = Vec::with_capacity(frames.len() / 2);
        let how = packing.how(receivers);
        let is_smaller = self.deflater.put_frames(&mut out, frames, how, &mut end);
        if is_smaller {
            self.bytes_in += frames.len() as u64;
            self.bytes_out += out.len() as u64;
        }
        is_smaller.then_some(out)
    }

    /// Bytes before and after compression since the last call.
    pub(crate) fn take_counts(&mut self) -> (u64, u64) {
        (
            std::mem::take(&mut self.bytes_in),
            std::mem::take(&mut self.bytes_out),
        )
    }
}

/// What one long message took is given back.
const KEPT_BYTES_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packings_are_told_apart_by_what_was_agreed() {
        let mut all = Packings::default();
        let limits = Limits::default();
        let wide = Packing::new(Window::Bits15, &limits);
        let narrow = Packing::new(Window::Bits9, &limits);
        assert_eq!(all.of(0), None);
        let (first, second) = (all.id_of(wide), all.id_of(narrow));
        assert_ne!(first, second);
        assert_eq!((all.id_of(wide), all.of(first)), (first, Some(wide)));
        for threshold in 0..400 {
            let limits = Limits {
                deflate_threshold_bytes: threshold,
                ..limits.clone()
            };
            all.id_of(Packing::new(Window::Bits15, &limits));
        }
        let last = Limits {
            deflate_threshold_bytes: 399,
            ..limits
        };
        assert_eq!(all.id_of(Packing::new(Window::Bits15, &last)), 0);
    }
}
