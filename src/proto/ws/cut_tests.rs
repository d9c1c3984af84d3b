//! Headers of frames that are cut anywhere: a wrong one is refused at its first wrong byte, a good one
//! is read. Knows single frames.

use super::tests::{Seen, feed, frame};
use super::*;

/// H6: a header that cannot become a good one ends the connection at the first byte that says so,
/// wherever it is cut.
#[test]
fn a_header_is_refused_at_its_first_wrong_byte() {
    let limits = FrameLimits {
        frame_bytes_max: 100_000,
        message_bytes_max: 100_000,
        ..FrameLimits::default()
    };
    let open = [0x01, 0x80, 1, 2, 3, 4];
    let table: &[(&[u8], &[u8], usize, u16)] = &[
        // Reserved bits, each of them, and reserved opcodes.
        (&[], &[0xc1, 0x80], 1, 1002),
        (&[], &[0xa1, 0x80], 1, 1002),
        (&[], &[0x91, 0x80], 1, 1002),
        (&[], &[0xf1, 0x80], 1, 1002),
        (&[], &[0x83, 0x80], 1, 1002),
        (&[], &[0x87, 0x80], 1, 1002),
        (&[], &[0x8b, 0x80], 1, 1002),
        (&[], &[0x8f, 0x80], 1, 1002),
        // A control frame in fragments, a continuation of nothing, a message within a message.
        (&[], &[0x09, 0x80], 1, 1002),
        (&[], &[0x08, 0x80], 1, 1002),
        (&[], &[0x80, 0x80], 1, 1002),
        (&open, &[0x81, 0x80], 1, 1002),
        (&open, &[0x02, 0x80], 1, 1002),
        // No mask, and control frames that are too long.
        (&[], &[0x81, 0x05], 2, 1002),
        (&[], &[0x89, 0xfe, 0, 126, 1, 2, 3], 2, 1002),
        (&[], &[0x88, 0xff, 0, 0, 0, 0, 0, 1, 0, 0], 2, 1002),
        // Lengths in more bytes than they need, too long, with the highest bit.
        (&[], &[0x81, 0xfe, 0, 125, 1, 2, 3], 4, 1002),
        (&[], &[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff], 8, 1002),
        (&[], &[0x82, 0xff, 0, 0, 0, 0, 0, 2, 0, 0], 8, 1009),
        (&[], &[0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0], 6, 1009),
        (&[], &[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], 3, 1002),
    ];
    for (before, header, wrong_at, code) in table {
        for cut in 0..*wrong_at {
            let mut decoder = Decoder::default();
            assert_eq!(feed(&mut decoder, [*before], &limits).1, None);
            let pieces = [&header[..cut], &header[cut..*wrong_at]];
            let (seen, error) = feed(&mut decoder, pieces, &limits);
            assert!(seen.is_empty());
            let found = error.map(|error| error.close_code());
            assert_eq!(found, Some(*code), "{before:?} {header:02x?} cut at {cut}");
            // And not a byte earlier.
            let mut decoder = Decoder::default();
            assert_eq!(feed(&mut decoder, [*before], &limits).1, None);
            let early = feed(&mut decoder, [&header[..wrong_at - 1]], &limits);
            assert_eq!(early.1, None, "{header:02x?}");
        }
    }
}

/// H6: at the first byte that proves it. Its form alone does not: it may not be the shortest one.
#[test]
fn a_length_is_refused_at_its_first_wrong_byte() {
    let limits = FrameLimits {
        frame_bytes_max: 1_000,
        message_bytes_max: 1_000,
        ..FrameLimits::default()
    };
    let table: [(&[u8], usize); 3] = [
        (&[0x82, 0xfe, 0x04, 0x00], 3),
        (&[0x82, 0xfe, 0x03, 0xe9], 4),
        (&[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0], 8),
    ];
    for (header, wrong_at) in table {
        let error = feed(&mut Decoder::default(), [&header[..wrong_at]], &limits).1;
        let found = error.map(|error| error.close_code());
        assert_eq!(found, Some(1009), "{header:02x?}");
        let early = feed(&mut Decoder::default(), [&header[..wrong_at - 1]], &limits);
        assert_eq!(early.1, None, "{header:02x?}");
    }
}

/// H6: what a cut header says of a length that is allowed is no reason to refuse it.
#[test]
fn a_good_header_may_be_cut_anywhere() {
    for length in [0, 1, 125, 126, 127, 255, 256, 65_535, 65_536] {
        let payload = vec![b'x'; length];
        let bytes = frame(1, true, &payload);
        let limits = FrameLimits {
            frame_bytes_max: 65_536,
            message_bytes_max: 65_536,
            ..FrameLimits::default()
        };
        for cut in 0..bytes.len().min(16) {
            let pieces = [&bytes[..cut], &bytes[cut..]];
            let (seen, error) = feed(&mut Decoder::default(), pieces, &limits);
            assert_eq!(error, None, "{length} cut at {cut}");
            assert_eq!(seen, [Seen::Text(payload.clone())]);
        }
    }
}

/// H6: where compression was negotiated, the bit that says so is no wrong one; the others are.
#[test]
fn the_bit_of_a_compressed_message_is_no_fault() {
    let limits = FrameLimits {
        deflate: true,
        ..FrameLimits::default()
    };
    for first in [0xc1, 0xc2, 0x41, 0x42] {
        let error = feed(&mut Decoder::default(), [&[first][..]], &limits).1;
        assert_eq!(error, None, "{first:02x}");
    }
    for first in [0xe1, 0xd1, 0xc0, 0xc8, 0xc9, 0xf1] {
        let error = feed(&mut Decoder::default(), [&[first][..]], &limits).1;
        assert_eq!(error, Some(ProtocolError::ReservedBits), "{first:02x}");
    }
}

/// Whole short frames are read by a way of their own, and seen as those are that came byte by byte.
#[test]
fn a_frame_is_seen_alike_whole_and_cut() {
    let all = [0, 5, 125, 126, u64::MAX];
    for (max, fragments, deflate) in all.into_iter().flat_map(|max| {
        [(1, false), (2, false), (9, true)].map(|(fragments, deflate)| (max, fragments, deflate))
    }) {
        let limits = FrameLimits {
            frame_bytes_max: max,
            message_bytes_max: max.saturating_add(1),
            fragments_base_max: fragments,
            deflate,
            ..FrameLimits::default()
        };
        for (first, second) in (0..=255).flat_map(|it| [0, 5, 126, 127].map(|len| (it, len))) {
            for second in [second, second | 0x80, 0xfd] {
                let mut bytes = vec![first, second, 1, 2, 3, 4];
                bytes.resize(140, 0x2a);
                let whole = feed(&mut Decoder::default(), [&bytes[..]], &limits);
                let cut = feed(&mut Decoder::default(), bytes.chunks(1), &limits);
                // Of one and the same fault a whole header knows more.
                let kind = |seen: &Option<ProtocolError>| seen.as_ref().map(std::mem::discriminant);
                let case = format!("{first:02x} {second:02x} {max} {fragments} {deflate}");
                assert_eq!((&whole.0, kind(&whole.1)), (&cut.0, kind(&cut.1)), "{case}");
            }
        }
    }
}
