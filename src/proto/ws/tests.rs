//! The decoder against whole and split input, and against everything that a peer must not do.

use proptest::prelude::*;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::*;

/// A message that owns its bytes, to compare with.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Seen {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

fn seen(message: &Message<'_>) -> Seen {
    match message {
        Message::Text(payload) => Seen::Text(payload.to_vec()),
        Message::Binary(payload) => Seen::Binary(payload.to_vec()),
        Message::Ping(bytes) => Seen::Ping(bytes.to_vec()),
        Message::Pong(bytes) => Seen::Pong(bytes.to_vec()),
        Message::Close(reason) => Seen::Close(reason.map(|(code, text)| (code, text.to_owned()))),
    }
}

/// Feeds the pieces one by one and collects what comes out, up to the first error.
pub(super) fn feed<'p>(
    decoder: &mut Decoder,
    pieces: impl IntoIterator<Item = &'p [u8]>,
    limits: &FrameLimits,
) -> (Vec<Seen>, Option<ProtocolError>) {
    let mut all = Vec::new();
    for piece in pieces {
        let mut buf = piece.to_vec();
        buf.extend_from_slice(b"padding");
        let mut input = Input::new(&mut buf, piece.len());
        loop {
            match decoder.next(&mut input, limits) {
                Ok(Some(message)) => all.push(seen(&message)),
                Ok(None) => break,
                Err(error) => return (all, Some(error)),
            }
        }
        assert_eq!(input.remaining(), 0);
        assert!(buf.ends_with(b"padding"), "padding is left as it is");
    }
    (all, None)
}

/// The same without the length that was refused: cut off, less of it is known.
fn kind_of(
    (seen, error): (Vec<Seen>, Option<ProtocolError>),
) -> (Vec<Seen>, Option<ProtocolError>) {
    use ProtocolError as E;
    let kind = |error| match error {
        E::FrameTooLong { max, .. } => E::FrameTooLong { bytes: 0, max },
        E::MessageTooLong { max, .. } => E::MessageTooLong { bytes: 0, max },
        E::LengthNotMinimal(_) => E::LengthNotMinimal(0),
        E::LengthHighestBit(_) => E::LengthHighestBit(0),
        E::ControlTooLong(_) => E::ControlTooLong(0),
        other => other,
    };
    (seen, error.map(kind))
}

fn decode(bytes: &[u8]) -> (Vec<Seen>, Option<ProtocolError>) {
    feed(&mut Decoder::default(), [bytes], &FrameLimits::default())
}

fn error_of(bytes: &[u8]) -> Option<ProtocolError> {
    decode(bytes).1
}

fn opcode(number: u8) -> OpCode {
    match number {
        0 => OpCode::Data(Data::Continue),
        1 => OpCode::Data(Data::Text),
        2 => OpCode::Data(Data::Binary),
        8 => OpCode::Control(Control::Close),
        9 => OpCode::Control(Control::Ping),
        10 => OpCode::Control(Control::Pong),
        other => unreachable!("no opcode {other}"),
    }
}

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A masked frame, encoded by another codec.
pub(super) fn frame(number: u8, is_final: bool, payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader {
        is_final,
        opcode: opcode(number),
        mask: Some(MASK),
        ..FrameHeader::default()
    };
    let mut out = Vec::new();
    header.format(payload.len() as u64, &mut out).unwrap();
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(b, m)| b ^ m));
    out
}

fn close_frame(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(8, true, &[&code.to_be_bytes(), reason].concat())
}

#[test]
fn the_example_of_the_rfc_is_read_in_place() {
    let mut buf = *b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58----";
    let payload_place = buf[6..].as_ptr();
    let mut input = Input::new(&mut buf, 11);
    let mut decoder = Decoder::default();
    let limits = FrameLimits::default();
    match decoder.next(&mut input, &limits) {
        Ok(Some(Message::Text(mut payload))) => {
            assert_eq!(&payload[..], b"Hello");
            assert_eq!(payload.as_ptr(), payload_place);
            assert_eq!(
                payload.as_mut_padded(),
                (&mut b"Hello----".to_owned()[..], 5)
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(decoder.next(&mut input, &limits).unwrap().is_none());
    assert!(!decoder.has_partial());
}

#[test]
fn fragments_and_control_frames_between_them_come_out_in_order() {
    let bytes = [
        frame(1, false, b"Hel"),
        frame(9, true, b"there?"),
        frame(0, false, b""),
        frame(0, true, b"lo"),
        frame(2, true, &[0xff]),
        frame(10, true, b""),
    ]
    .concat();
    let expected = vec![
        Seen::Ping(b"there?".to_vec()),
        Seen::Text(b"Hello".to_vec()),
        Seen::Binary(vec![0xff]),
        Seen::Pong(vec![]),
    ];
    let mut decoder = Decoder::default();
    let limits = FrameLimits::default();
    assert_eq!(
        feed(&mut decoder, [&bytes[..]], &limits),
        (expected.clone(), None)
    );
    assert!(!decoder.has_partial());
    assert_eq!(
        feed(&mut decoder, bytes.chunks(1), &limits),
        (expected, None)
    );
    assert!(!decoder.has_partial(), "an idle decoder owns no memory");
    assert_eq!(decoder.partial_bytes(), 0);
}

#[test]
fn an_unfinished_message_is_told_from_an_unfinished_ping() {
    let limits = FrameLimits::default();
    let mut decoder = Decoder::default();
    feed(&mut decoder, [&frame(9, true, b"ping")[..8]], &limits);
    assert!(decoder.has_partial() && !decoder.is_fragmented());
    assert_eq!(decoder.partial_bytes(), 2);
    let mut decoder = Decoder::default();
    feed(&mut decoder, [&frame(1, false, b"text")[..]], &limits);
    assert!(decoder.has_partial() && decoder.is_fragmented());
    assert_eq!(decoder.partial_bytes(), 4);
    feed(&mut decoder, [&frame(9, true, b"ping")[..]], &limits);
    assert!(decoder.is_fragmented(), "a ping leaves the message alone");
}

/// The rules of RFC 6455 section 5, each by its first offence.
#[test]
fn frames_that_break_a_rule() {
    use ProtocolError as E;
    let with_first = |first: u8| [&[first], &frame(1, true, b"x")[1..]].concat();
    assert_eq!(error_of(&with_first(0xc1)), Some(E::ReservedBits));
    assert_eq!(error_of(&with_first(0xa1)), Some(E::ReservedBits));
    assert_eq!(error_of(&with_first(0x91)), Some(E::ReservedBits));
    for code in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        assert_eq!(
            error_of(&with_first(0x80 | code)),
            Some(E::ReservedOpcode(code))
        );
    }
    assert_eq!(error_of(b"\x81\x01x"), Some(E::Unmasked));
    assert_eq!(error_of(&with_first(0x09)), Some(E::ControlFragmented));
    assert_eq!(
        error_of(&frame(9, true, &[0; 126])),
        Some(E::ControlTooLong(126))
    );
    assert_eq!(
        error_of(&frame(0, true, b"x")),
        Some(E::ContinuationUnexpected)
    );
    let interleaved = [frame(1, false, b"a"), frame(1, true, b"b")].concat();
    assert_eq!(error_of(&interleaved), Some(E::ContinuationExpected));
    let after_whole = [frame(1, true, b"a"), frame(0, true, b"b")].concat();
    assert_eq!(error_of(&after_whole), Some(E::ContinuationUnexpected));
    assert_eq!(
        error_of(b"\x82\xfe\x00\x7dmask"),
        Some(E::LengthNotMinimal(125))
    );
    let long_form = b"\x82\xff\x00\x00\x00\x00\x00\x00\xff\xffmask";
    assert_eq!(error_of(long_form), Some(E::LengthNotMinimal(65_535)));
    assert_eq!(E::Unmasked.close_code(), 1002);
}

/// Giant frames: nothing is reserved before the length is allowed.
#[test]
fn giant_lengths_are_refused_by_their_header() {
    let header = |length: u64| [&b"\x82\xff"[..], &length.to_be_bytes(), b"mask"].concat();
    for (length, close_code) in [
        (1 << 63, 1002),
        (u64::MAX, 1002),
        ((1 << 63) - 1, 1009),
        (1 << 32, 1009),
        (65_537, 1009),
    ] {
        let error = error_of(&header(length)).unwrap();
        assert_eq!(error.close_code(), close_code, "{length}");
    }
    let text = error_of(&header(70_000)).unwrap().to_string();
    assert_eq!(text, "frame of 70000 bytes exceeds frame_bytes_max = 65536");
    let mut decoder = Decoder::default();
    feed(&mut decoder, [&header(65_536)[..]], &FrameLimits::default());
    assert_eq!(decoder.partial.unwrap().message.capacity(), 0);
}

#[test]
fn memory_grows_with_what_has_arrived_and_never_beyond_the_frame() {
    let limits = FrameLimits::default();
    let bytes = frame(2, true, &vec![7; 60_000]);
    let mut decoder = Decoder::default();
    for piece in bytes[..bytes.len() - 1].chunks(1000) {
        feed(&mut decoder, [piece], &limits);
        let message = &decoder.partial.as_ref().unwrap().message;
        assert!(message.capacity() <= (2 * message.len()).clamp(1000, 60_000));
    }
}

#[test]
fn a_message_too_long_in_sum_is_refused_at_the_header_that_exceeds() {
    let limits = FrameLimits {
        message_bytes_max: 10,
        ..FrameLimits::default()
    };
    let bytes = [frame(2, false, &[0; 6]), frame(0, true, &[0; 5])].concat();
    let (_, error) = feed(&mut Decoder::default(), [&bytes[..13 + 5]], &limits);
    let error = error.unwrap();
    assert_eq!(error.close_code(), 1009);
    assert_eq!(
        error.to_string(),
        "message of 11 bytes exceeds message_bytes_max = 10"
    );
}

/// A flood of fragments of no or one byte ends at the budget.
#[test]
fn fragments_of_next_to_nothing_use_up_the_budget() {
    for payload in [&b""[..], b"x"] {
        let mut decoder = Decoder::default();
        let limits = FrameLimits::default();
        feed(&mut decoder, [&frame(2, false, payload)[..]], &limits);
        let one = frame(0, false, payload);
        let accepted = (1..10_000)
            .take_while(|_| feed(&mut decoder, [&one[..]], &limits).1.is_none())
            .count();
        let expected = 1023 + payload.len() * 33;
        assert_eq!(accepted, expected, "payload of {} bytes", payload.len());
    }
    let error = ProtocolError::TooManyFragments {
        bytes: 0,
        fragments: 1025,
        max: 1024,
    };
    assert_eq!(error.close_code(), 1008);
    assert!(error.to_string().contains("fragments_base_max = 1024"));
}

/// The conformance suite's largest message in its smallest pieces (its case 9.3.1).
#[test]
fn four_mebibytes_in_pieces_of_64_bytes_pass() {
    let limits = FrameLimits {
        message_bytes_max: 16 << 20,
        ..FrameLimits::default()
    };
    let mut decoder = Decoder::default();
    let piece = [b'*'; 64];
    feed(&mut decoder, [&frame(1, false, &piece)[..]], &limits);
    let middle = frame(0, false, &piece);
    let mut capacities = vec![];
    for _ in 2..65_536 {
        assert_eq!(feed(&mut decoder, [&middle[..]], &limits).1, None);
        capacities.push(decoder.partial.as_ref().unwrap().message.capacity());
    }
    capacities.dedup();
    assert!(
        capacities.len() <= 17,
        "the buffer doubles, it does not creep"
    );
    let (all, error) = feed(&mut decoder, [&frame(0, true, &piece)[..]], &limits);
    assert_eq!(error, None);
    assert!(matches!(&all[..], [Seen::Text(text)] if text.len() == 4 << 20));
}

/// Close codes and payloads as the conformance suite wants them (its group 7).
#[test]
fn close_frames() {
    use ProtocolError as E;
    assert_eq!(
        decode(&frame(8, true, b"")),
        (vec![Seen::Close(None)], None)
    );
    assert_eq!(error_of(&frame(8, true, b"x")), Some(E::CloseTooShort));
    for code in [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000,
        4999,
    ] {
        let expected = Seen::Close(Some((code, "bye".to_owned())));
        assert_eq!(decode(&close_frame(code, b"bye")), (vec![expected], None));
    }
    for code in [
        0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535,
    ] {
        assert_eq!(error_of(&close_frame(code, b"")), Some(E::CloseCode(code)));
    }
    let bad_reason = error_of(&close_frame(1000, b"\xce\xba\xff"));
    assert_eq!(bad_reason.map(|error| error.close_code()), Some(1007));
}

#[test]
fn whatever_follows_a_close_or_an_error_is_swallowed() {
    let bytes = [
        close_frame(1000, b""),
        frame(9, true, b""),
        b"garbage".to_vec(),
    ]
    .concat();
    for piece_len in [1, bytes.len()] {
        let mut decoder = Decoder::default();
        let (all, error) = feed(
            &mut decoder,
            bytes.chunks(piece_len),
            &FrameLimits::default(),
        );
        assert_eq!((all.len(), error), (1, None));
        assert!(decoder.is_ended() && !decoder.has_partial());
    }
    let mut decoder = Decoder::default();
    let limits = FrameLimits::default();
    assert!(
        feed(
            &mut decoder,
            [&b"\xff\xff\xff"[..], b"rest of a header"],
            &limits
        )
        .1
        .is_some()
    );
    assert_eq!(
        feed(&mut decoder, [&frame(1, true, b"x")[..]], &limits),
        (vec![], None)
    );
}

/// Text is refused at its first wrong byte, however it comes (the conformance suite's 6.4).
#[test]
fn bad_text_is_refused_before_its_frame_ends() {
    let bad = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80edited";
    let limits = FrameLimits::default();
    // The second byte of the impossible character proves the text wrong.
    let wrong_at = 12;
    let bytes = frame(1, true, bad);
    let mut decoder = Decoder::default();
    let before = &bytes[..6 + wrong_at];
    assert_eq!(feed(&mut decoder, [before], &limits).1, None);
    let error = feed(&mut decoder, [&bytes[6 + wrong_at..=6 + wrong_at]], &limits).1;
    assert_eq!(error, Some(ProtocolError::Utf8));
    let mut decoder = Decoder::default();
    let fragment = frame(1, false, &bad[..wrong_at]);
    assert_eq!(feed(&mut decoder, [&fragment[..]], &limits).1, None);
    let fragment = frame(0, false, &bad[wrong_at..=wrong_at]);
    let error = feed(&mut decoder, [&fragment[..]], &limits).1;
    assert_eq!(error, Some(ProtocolError::Utf8));
    assert_eq!(
        error_of(&frame(1, true, b"\xce")),
        Some(ProtocolError::Utf8)
    );
    let cut = [frame(1, false, b"\xce"), frame(0, true, b"")].concat();
    assert_eq!(error_of(&cut), Some(ProtocolError::Utf8));
    let lenient = FrameLimits {
        skip_utf8: true,
        ..limits
    };
    assert_eq!(feed(&mut Decoder::default(), [&cut[..]], &lenient).1, None);
}

#[test]
fn unmasking_equals_the_definition_at_every_offset_and_length() {
    for offset in 0..9 {
        for len in 0..70 {
            let mut bytes: Vec<u8> = (0..len).collect();
            unmask(&mut bytes, MASK, offset);
            let expected: Vec<u8> = (0..len)
                .map(|i| i ^ MASK[(offset + usize::from(i)) % 4])
                .collect();
            assert_eq!(bytes, expected);
        }
    }
}

fn pieces<'b>(bytes: &'b [u8], cuts: &[usize]) -> Vec<&'b [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2)
        .map(|pair| &bytes[pair[0]..pair[1]])
        .collect()
}

fn any_frames() -> impl Strategy<Value = Vec<u8>> {
    let control = (8_u8..=10, proptest::collection::vec(any::<u8>(), 0..20));
    let data = (0_u8..=2, any::<bool>(), "[a-zé€😀]{0,40}");
    let one = prop_oneof![
        1 => control.prop_map(|(code, payload)| frame(code, true, &payload)),
        6 => data.prop_map(|(code, is_final, text)| frame(code, is_final, text.as_bytes())),
        1 => proptest::collection::vec(any::<u8>(), 0..10),
    ];
    proptest::collection::vec(one, 0..8).prop_map(|frames| frames.concat())
}

/// A message with the frames that it is sent in.
fn any_message() -> impl Strategy<Value = (Vec<u8>, Seen)> {
    let cuts = proptest::collection::vec(any::<usize>(), 0..4);
    ("[a-zé€😀]{0,300}", cuts, any::<bool>()).prop_map(|(text, cuts, is_text)| {
        let fragments = pieces(text.as_bytes(), &cuts);
        let last = fragments.len() - 1;
        let kind = if is_text { 1 } else { 2 };
        let bytes = fragments
            .iter()
            .enumerate()
            .flat_map(|(i, piece)| frame(if i == 0 { kind } else { 0 }, i == last, piece))
            .collect();
        let text = text.into_bytes();
        (
            bytes,
            if is_text {
                Seen::Text(text)
            } else {
                Seen::Binary(text)
            },
        )
    })
}

proptest! {
    #![proptest_config(crate::proto::proptest_config())]

    /// T-P1: what is sent comes out, in whatever pieces it arrives.
    #[test]
    fn messages_come_out_as_they_were_sent(
        messages in proptest::collection::vec(any_message(), 1..5),
        cuts in proptest::collection::vec(any::<usize>(), 0..20),
    ) {
        let bytes: Vec<u8> = messages.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
        let expected: Vec<Seen> = messages.into_iter().map(|(_, message)| message).collect();
        let mut decoder = Decoder::default();
        let out = feed(&mut decoder, pieces(&bytes, &cuts), &FrameLimits::default());
        prop_assert_eq!(out, (expected, None));
        prop_assert!(!decoder.has_partial());
    }

    /// T-P1, T-F2: any split of any bytes gives the same messages and the same end.
    #[test]
    fn splits_change_nothing(
        bytes in any_frames(),
        cuts in proptest::collection::vec(any::<usize>(), 0..20),
    ) {
        let whole = decode(&bytes);
        let limits = FrameLimits::default();
        let split = feed(&mut Decoder::default(), pieces(&bytes, &cuts), &limits);
        let whole = kind_of(whole);
        prop_assert_eq!(&whole, &kind_of(split));
        let single = feed(&mut Decoder::default(), bytes.chunks(1), &limits);
        prop_assert_eq!(&whole, &kind_of(single));
    }

    /// T-P2: text in pieces is accepted exactly if the standard library accepts it whole, and
    /// refused no later than the standard library could know.
    #[test]
    fn utf8_in_pieces_equals_the_standard_library(
        bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..12),
            "[a-zé€😀\u{7ff}\u{800}\u{ffff}\u{10ffff}]{0,40}".prop_map(String::into_bytes),
            proptest::collection::vec(
                prop_oneof![0x7e_u8..=0x92, 0x9e_u8..=0xa1, 0xbe_u8..=0xc3, 0xdf_u8..=0xff], 0..6),
        ],
        cuts in proptest::collection::vec(any::<usize>(), 0..6),
    ) {
        let mut stream = utf8::Utf8Stream::default();
        let mut known = 0;
        let mut result = Ok(());
        for piece in pieces(&bytes, &cuts) {
            result = result.and_then(|()| stream.push(piece));
            known += piece.len();
            let so_far = std::str::from_utf8(&bytes[..known]);
            let is_wrong = so_far.is_err_and(|error| error.error_len().is_some());
            prop_assert_eq!(result.is_err(), is_wrong);
        }
        let result = result.and_then(|()| stream.finish());
        prop_assert_eq!(result.is_ok(), std::str::from_utf8(&bytes).is_ok());
    }
}
