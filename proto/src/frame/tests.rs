use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

const SMALL: Framing = Framing::Varint { max: 300 };

fn drain(decoder: &mut FrameDecoder) -> Vec<Bytes> {
    std::iter::from_fn(|| decoder.next_frame().unwrap()).collect()
}

/// Cuts `stream` into pieces whose lengths follow `cuts`, repeated.
fn pieces(stream: &Bytes, cuts: &[usize]) -> Vec<Bytes> {
    let mut rest = stream.clone();
    let mut cuts = cuts.iter().cycle();
    let mut out = Vec::new();
    while !rest.is_empty() {
        let len = cuts.next().copied().unwrap_or(1).clamp(1, rest.len());
        out.push(rest.split_to(len));
    }
    out
}

#[test]
fn a_frame_inside_one_piece_is_a_slice_of_it() {
    let piece = Bytes::from_static(b"\x05hello\x05world\x03abc");
    let mut decoder = FrameDecoder::new(SMALL);
    decoder.push(piece.clone());
    let frames = drain(&mut decoder);
    assert_eq!(frames, ["hello", "world", "abc"]);
    assert_eq!(frames[0].as_ptr(), piece[1..].as_ptr());
    assert_eq!(frames[1].as_ptr(), piece[7..].as_ptr());
    assert_eq!(decoder.buffered(), 0);
}

#[test]
fn a_prefix_alone_in_its_piece_still_leaves_the_body_a_slice() {
    let body = Bytes::from_static(b"hello");
    let mut decoder = FrameDecoder::new(SMALL);
    decoder.push(Bytes::from_static(b"\x05"));
    assert_eq!(decoder.next_frame(), Ok(None));
    decoder.push(body.clone());
    assert_eq!(decoder.next_frame().unwrap().unwrap().as_ptr(), body.as_ptr());
}

#[test]
fn five_gigabytes_are_refused_at_once() {
    let mut prefix = BytesMut::new();
    varint::encode(5_000_000_000, &mut prefix);
    let mut decoder = FrameDecoder::new(Framing::Varint { max: 4096 });
    decoder.push(prefix.freeze());
    let error = FrameError::TooLarge { len: 5_000_000_000, max: 4096 };
    assert_eq!(decoder.next_frame(), Err(error));
    decoder.push(Bytes::from(vec![0; 1 << 20]));
    assert_eq!(decoder.buffered(), 0, "nothing is kept after an error");
    assert_eq!(decoder.next_frame(), Err(error));
}

#[test]
fn the_cap_is_inclusive() {
    let mut decoder = FrameDecoder::new(Framing::Varint { max: 3 });
    decoder.push(Bytes::from_static(b"\x03abc\x04abcd"));
    assert_eq!(decoder.next_frame().unwrap().unwrap(), "abc");
    assert_eq!(decoder.next_frame(), Err(FrameError::TooLarge { len: 4, max: 3 }));
}

#[test]
fn an_endless_or_padded_prefix_is_refused() {
    for (bytes, error) in [
        (&[0xff; 9][..], VarintError::TooLong),
        (&[0x80, 0x00], VarintError::NotMinimal),
        (&[0x80; 64], VarintError::TooLong),
    ] {
        let mut decoder = FrameDecoder::new(SMALL);
        decoder.push(Bytes::from_static(bytes));
        assert_eq!(decoder.next_frame(), Err(FrameError::BadLength(error)));
    }
}

#[test]
fn a_promise_of_bytes_takes_no_memory() {
    let mut decoder = FrameDecoder::new(Framing::Varint { max: 1 << 30 });
    let mut head = BytesMut::new();
    varint::encode(1 << 30, &mut head);
    head.extend_from_slice(b"xy");
    decoder.push(head.freeze());
    assert_eq!(decoder.next_frame(), Ok(None));
    assert!(decoder.input.body.capacity() < 64);
}

#[test]
fn a_body_in_tiny_pieces_is_kept_in_one_buffer_of_its_size() {
    let mut decoder = FrameDecoder::new(Framing::Varint { max: 5000 });
    let frame = encode_frame(Framing::Varint { max: 5000 }, &[7; 5000]);
    for byte in &frame[..frame.len() - 1] {
        decoder.push(Bytes::copy_from_slice(&[*byte]));
        assert_eq!(decoder.next_frame(), Ok(None));
        assert!(decoder.input.chunks.is_empty());
        assert!(decoder.input.body.capacity() <= 5000);
    }
    decoder.push(Bytes::from_static(&[7]));
    assert_eq!(decoder.next_frame().unwrap().unwrap(), vec![7; 5000]);
}

#[test]
fn the_rest_of_an_incomplete_frame_comes_back_whole() {
    let mut decoder = FrameDecoder::new(SMALL);
    for piece in ["\x02ab\x05he", "l"] {
        decoder.push(Bytes::from_static(piece.as_bytes()));
    }
    assert_eq!(drain(&mut decoder), ["ab"]);
    decoder.push(Bytes::from_static(b"XY"));
    assert_eq!(decoder.buffered(), 6);
    assert_eq!(decoder.take_rest().concat(), b"\x05helXY");
    assert_eq!(decoder.buffered(), 0);
}

#[test]
fn fixed_and_raw() {
    let mut decoder = FrameDecoder::new(Framing::Fixed(4));
    decoder.push(Bytes::from_static(b"abcdef"));
    decoder.push(Bytes::from_static(b"ghi"));
    assert_eq!(drain(&mut decoder), ["abcd", "efgh"]);
    assert_eq!(decoder.take_rest().concat(), b"i");

    let mut raw = FrameDecoder::new(Framing::Raw);
    raw.push(Bytes::from_static(b"abc"));
    raw.push(Bytes::new());
    raw.push(Bytes::from_static(b"de"));
    assert_eq!(drain(&mut raw), ["abc", "de"]);

    let mut none = FrameDecoder::new(Framing::Fixed(0));
    none.push(Bytes::from_static(b"a"));
    assert_eq!(none.next_frame(), Ok(None));
}

#[test]
fn accepts_says_what_the_receiver_would() {
    assert!(SMALL.accepts(300) && !SMALL.accepts(301));
    assert!(Framing::Fixed(4).accepts(4) && !Framing::Fixed(4).accepts(3));
    assert!(Framing::Raw.accepts(usize::MAX));
}

proptest! {
    #[test]
    fn any_boundaries_give_the_same_frames(
        payloads in vec(vec(any::<u8>(), 0..300), 0..8),
        cuts in vec(1usize..40, 1..6),
        tail in vec(0x81u8..=0xff, 0..3),
    ) {
        let mut stream = BytesMut::new();
        for payload in &payloads {
            stream.extend_from_slice(&encode_frame(SMALL, payload));
        }
        stream.extend_from_slice(&tail);
        let stream = stream.freeze();
        let mut decoder = FrameDecoder::new(SMALL);
        let mut frames = Vec::new();
        for piece in pieces(&stream, &cuts) {
            decoder.push(piece);
            frames.extend(drain(&mut decoder));
        }
        prop_assert_eq!(frames, payloads);
        prop_assert_eq!(decoder.take_rest().concat(), tail);
    }

    #[test]
    fn random_bytes_are_frames_and_rest_or_an_error(
        stream in vec(any::<u8>(), 0..600),
        cuts in vec(1usize..40, 1..6),
    ) {
        let stream = Bytes::from(stream);
        let mut decoder = FrameDecoder::new(SMALL);
        let mut seen = BytesMut::new();
        let mut failed = false;
        for piece in pieces(&stream, &cuts) {
            decoder.push(piece);
            loop {
                match decoder.next_frame() {
                    Ok(Some(frame)) => seen.extend_from_slice(&encode_frame(SMALL, &frame)),
                    Ok(None) => break,
                    Err(_) => { failed = true; break }
                }
            }
            prop_assert!(decoder.buffered() <= 300 + 2);
        }
        if !failed {
            seen.extend_from_slice(&decoder.take_rest().concat());
            prop_assert_eq!(seen.freeze(), stream);
        }
    }
}
