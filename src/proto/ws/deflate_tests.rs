//! Compression against round trips, damage, bombs, and the forms of other senders.

use proptest::prelude::*;

use super::deflate::{Deflater, How, Inflater};
use super::*;
use crate::proto::frame;
use crate::proto::handshake::extensions::Window;

const MASK: [u8; 4] = [0x11, 0x92, 0x43, 0xf4];
const RSV1: u8 = 0x40;

/// A masked frame of a client; `first` is its first byte.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        len @ 0..126 => out.push(0x80 | u8::try_from(len).unwrap()),
        len @ 126..65_536 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    let key = |at: usize| MASK[at % 4];
    out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ key(at)));
    out
}

fn limits(max: u64) -> FrameLimits {
    FrameLimits {
        frame_bytes_max: max,
        message_bytes_max: max,
        deflate: true,
        ..FrameLimits::default()
    }
}

/// What the frames in `bytes` say once opened, fed in pieces of `step` bytes.
fn open(bytes: &[u8], step: usize, max: u64) -> Result<Vec<(bool, Vec<u8>)>, ProtocolError> {
    let (mut decoder, mut inflater) = (Decoder::default(), Inflater::default());
    let mut all = Vec::new();
    for piece in bytes.chunks(step) {
        let mut buf = piece.to_vec();
        let mut input = Input::new(&mut buf, piece.len());
        while let Some(message) = decoder.next(&mut input, &limits(max))? {
            match inflater.open(message, max, false)? {
                Message::Text(payload) => all.push((true, payload.to_vec())),
                Message::Binary(payload) => all.push((false, payload.to_vec())),
                _ => {}
            }
        }
    }
    Ok(all)
}

fn open_one(payload: &[u8]) -> Result<Vec<u8>, ProtocolError> {
    let mut all = open(&masked(0x82 | RSV1, payload), usize::MAX, 1 << 20)?;
    assert_eq!(all.len(), 1);
    Ok(all.remove(0).1)
}

fn how(window: Window, level: u32, threshold_bytes: usize) -> How {
    How {
        window,
        level,
        threshold_bytes,
        binary: true,
    }
}

/// The payload of the only frame that `plain` became.
fn deflated(plain: &[u8], how: How) -> (Vec<u8>, bool) {
    let mut out = Vec::new();
    let is_deflated = Deflater::default().put_frames(&mut out, &frame::text(plain), how, |_| {});
    let (_, header, whole) = frame::measure(&out).unwrap();
    assert_eq!(whole, out.len());
    assert_eq!(out[0] & RSV1 != 0, is_deflated);
    (out[header..].to_vec(), is_deflated)
}

const TEXT: &str = "a message that says the same again, a message that says the same again";

/// The sample of RFC 7692 7.2.3.1, and the other ways that it names to write the same.
#[test]
fn every_form_of_a_sender_is_read() {
    let hello: &[&[u8]] = &[
        &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
        // No compression.
        &[
            0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00,
        ],
        // A final block and an empty one behind it.
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        // A final block alone.
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
        // Two blocks.
        &[
            0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00,
        ],
    ];
    for payload in hello {
        assert_eq!(open_one(payload).unwrap(), b"Hello", "{payload:x?}");
    }
    assert_eq!(open_one(&[0x00]).unwrap(), b"");
    let twice = [
        0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00,
    ];
    assert_eq!(open_one(&twice).unwrap(), b"HelloHello");
}

/// Z-07
#[test]
fn damage_is_an_error_and_no_message() {
    let (good, _) = deflated(TEXT.as_bytes(), how(Window::Bits15, 6, 0));
    assert_eq!(open_one(&good).unwrap(), TEXT.as_bytes());
    for cut in 0..good.len() {
        assert_eq!(open_one(&good[..cut]), Err(ProtocolError::Deflate), "{cut}");
    }
    for garbage in [&[0xff_u8][..], b"garbage", &[0x06, 0x06]] {
        let bytes = [&good[..], garbage].concat();
        assert_eq!(
            open_one(&bytes),
            Err(ProtocolError::Deflate),
            "{garbage:x?}"
        );
    }
    assert_eq!(ProtocolError::Deflate.close_code(), 1007);
}

/// Z-06
#[test]
fn the_bit_stands_only_where_a_message_begins() {
    let (payload, _) = deflated(TEXT.as_bytes(), how(Window::Bits15, 6, 0));
    let (head, tail) = payload.split_at(9);
    let good = [masked(0x01 | RSV1, head), masked(0x80, tail)].concat();
    for step in [1, 2, 7, 1000] {
        assert_eq!(
            open(&good, step, 1 << 20).unwrap(),
            [(true, TEXT.as_bytes().to_vec())]
        );
    }
    let second = [masked(0x01 | RSV1, head), masked(0x80 | RSV1, tail)].concat();
    for bad in [
        second,
        masked(0x89 | RSV1, b"ping"),
        masked(0x88 | RSV1, b""),
        masked(0x81 | 0x20, b"x"),
        masked(0x81 | RSV1 | 0x10, b"x"),
    ] {
        assert_eq!(open(&bad, 1000, 1 << 20), Err(ProtocolError::ReservedBits));
    }
    let mut decoder = Decoder::default();
    let mut bytes = masked(0x81 | RSV1, &payload);
    let len = bytes.len();
    let mut input = Input::new(&mut bytes, len);
    let outcome = decoder.next(&mut input, &FrameLimits::default());
    assert!(matches!(outcome, Err(ProtocolError::ReservedBits)));
    // What is not compressed is always allowed, between and within.
    let plain = [masked(0x81, b"plain"), good, masked(0x82, b"b")].concat();
    assert_eq!(open(&plain, 5, 1 << 20).unwrap().len(), 3);
}

/// Z-08: a thousandfold bomb costs its limit and no more.
#[test]
fn a_bomb_stops_behind_the_limit() {
    let mut state = flate2::Compress::new(flate2::Compression::best(), false);
    let mut bomb = Vec::with_capacity(1 << 20);
    let letters = vec![b'a'; 16 << 20];
    state
        .compress_vec(&letters, &mut bomb, flate2::FlushCompress::Sync)
        .unwrap();
    bomb.truncate(bomb.len() - 4);
    assert!(bomb.len() < 17_000);
    for max in [17_000, 100_000, (16 << 20) - 1] {
        let error = open(&masked(0x81 | RSV1, &bomb), 1 << 14, max);
        match error {
            Err(ProtocolError::MessageTooLong { bytes, max: limit }) => {
                assert_eq!((bytes, limit), (max + 1, max));
            }
            other => panic!("{max}: {other:?}"),
        }
    }
    let whole = open(&masked(0x81 | RSV1, &bomb), 1 << 14, 16 << 20).unwrap();
    assert_eq!(whole[0].1.len(), 16 << 20);
    let mut inflater = Inflater::default();
    let mut bytes = masked(0x82 | RSV1, &bomb);
    let (len, max) = (bytes.len(), 16 << 20);
    let mut input = Input::new(&mut bytes, len);
    let mut decoder = Decoder::default();
    let message = decoder.next(&mut input, &limits(max)).unwrap().unwrap();
    inflater.open(message, max, false).unwrap();
    inflater.release();
    assert!(format!("{inflater:?}").contains("scratch: 0"));
    assert_eq!(inflater.take_counts(), (bomb.len() as u64, 16 << 20));
}

/// Z-09
#[test]
fn text_is_checked_when_it_is_whole() {
    let mut bad = TEXT.as_bytes().to_vec();
    bad[20] = 0xff;
    let (payload, is_deflated) = deflated(&bad, how(Window::Bits15, 6, 0));
    assert!(is_deflated);
    let text = open(&masked(0x81 | RSV1, &payload), 3, 1 << 20);
    assert_eq!(text, Err(ProtocolError::Utf8));
    assert_eq!(open_one(&payload).unwrap(), bad);
}

/// Z-10, Z-11, Z-13: each frame by itself, short ones and those that gain nothing as they were.
#[test]
fn frames_are_compressed_one_by_one_where_it_helps() {
    let long = TEXT.repeat(20);
    let mut seed = 1_u32;
    let mut noise = vec![0_u8; 2000];
    for byte in &mut noise {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = seed.to_be_bytes()[0];
    }
    let plain = [
        frame::text(long.as_bytes()),
        frame::text(b"short"),
        frame::binary(&noise),
        frame::ping(b"p"),
        frame::text(long.as_bytes()),
        frame::close(1000, "bye"),
    ]
    .concat();
    let (mut out, mut ends) = (Vec::new(), Vec::new());
    let mut deflater = Deflater::default();
    let is_any = deflater.put_frames(&mut out, &plain, how(Window::Bits15, 1, 512), |end| {
        ends.push(end);
    });
    assert!(is_any && out.len() < plain.len() && ends.len() == 6);
    assert_eq!(*ends.last().unwrap(), out.len());
    let firsts: Vec<u8> = [0].iter().chain(&ends[..5]).map(|at| out[*at]).collect();
    assert_eq!(firsts, [0xc1, 0x81, 0x82, 0x89, 0xc1, 0x88]);
    // The same text again gives the same bytes: nothing is kept from one to the next.
    assert_eq!(out[..ends[0]], out[ends[3]..ends[4]]);
}

proptest! {
    /// Any payload comes back, in any pieces, at any level and window.
    #[test]
    fn what_is_deflated_is_inflated_again(
        text in "[a-d]{0,40}", times in 0_usize..60, level in 1_u32..10, narrow: bool, step in 1_usize..300,
    ) {
        let plain = text.repeat(times);
        let window = if narrow { Window::Bits9 } else { Window::Bits15 };
        let (payload, is_deflated) = deflated(plain.as_bytes(), how(window, level, 0));
        let first = if is_deflated { 0x81 | RSV1 } else { 0x81 };
        let all = open(&masked(first, &payload), step, 1 << 20).unwrap();
        prop_assert_eq!(all, [(true, plain.into_bytes())]);
    }

    /// Any bytes: an end, never a panic, never more than the limit.
    #[test]
    fn any_bytes_are_opened_or_refused(payload: Vec<u8>, text: bool) {
        let first = if text { 0x81 } else { 0x82 };
        if let Ok(all) = open(&masked(first | RSV1, &payload), 1 << 14, 1 << 16) {
            prop_assert!(all.iter().all(|(_, bytes)| bytes.len() <= 1 << 16));
        }
    }

    /// What another inflater makes of the same bytes is what ours makes of it.
    #[test]
    fn others_read_the_same(plain: Vec<u8>, damage in any::<Option<(usize, u8)>>()) {
        let plain = plain.repeat(3);
        let (mut payload, is_deflated) = deflated(&plain, how(Window::Bits15, 6, 0));
        prop_assume!(is_deflated);
        if let Some((at, bits)) = damage {
            let at = at % payload.len();
            payload[at] ^= bits;
        }
        let mut other = flate2::Decompress::new(false);
        let tail = [&payload[..], &[0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff]].concat();
        let mut expected = Vec::with_capacity(1 << 20);
        let status = other.decompress_vec(&tail, &mut expected, flate2::FlushDecompress::Finish);
        let is_whole = matches!(status, Ok(flate2::Status::StreamEnd))
            && other.total_in() == tail.len() as u64;
        match open_one(&payload) {
            Ok(ours) if is_whole => prop_assert_eq!(ours, expected),
            // A final block in the middle, behind which ours goes on.
            Ok(_) => prop_assert!(matches!(status, Ok(flate2::Status::StreamEnd))),
            Err(_) => prop_assert!(!is_whole),
        }
    }
}
