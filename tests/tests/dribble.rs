//! However the network cuts a stream, the same frames come out, the same lines, the same errors, the same rest.

use bytes::{Bytes, BytesMut};
use peerless_core::streams::negotiate::Listener;
use peerless_proto::{
    frame::{FrameDecoder, FrameError, Framing, encode_frame},
    multistream::{Line, LineDecoder, LineError, encode_line},
    varint,
};
use peerless_tests::dribble::dribble;

type Frames = (Vec<Bytes>, Option<FrameError>, Vec<u8>);

fn frames(framing: Framing, pieces: &mut dyn Iterator<Item = Bytes>) -> Frames {
    let mut decoder = FrameDecoder::new(framing);
    let (mut frames, mut error) = (Vec::new(), None);
    for piece in pieces {
        decoder.push(piece);
        while error.is_none() {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(e) => error = Some(e),
            }
        }
    }
    (frames, error, decoder.take_rest().concat())
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7) as u8).collect()
}

#[test]
fn frames_with_a_length() {
    let framing = Framing::Varint { max: 5000 };
    let mut stream = BytesMut::new();
    for len in [0, 1, 127, 128, 129, 1000, 5000] {
        stream.extend_from_slice(&encode_frame(framing, &payload(len)));
    }
    stream.extend_from_slice(b"\x07begun");
    dribble(1, 300, &stream, |pieces| frames(framing, pieces));
    let (whole, error, rest) = frames(framing, &mut [stream.freeze()].into_iter());
    assert_eq!(whole.iter().map(Bytes::len).collect::<Vec<_>>(), [0, 1, 127, 128, 129, 1000, 5000]);
    assert_eq!((error, &rest[..]), (None, &b"\x07begun"[..]));
}

#[test]
fn frames_of_a_fixed_size() {
    dribble(2, 300, &payload(32 * 9 + 5), |pieces| frames(Framing::Fixed(32), pieces));
}

#[test]
fn a_stream_without_frames_loses_nothing() {
    dribble(3, 300, &payload(3000), |pieces| frames(Framing::Raw, pieces).0.concat());
}

#[test]
fn errors_come_after_the_same_frames() {
    let framing = Framing::Varint { max: 100 };
    for length in [101, 5_000_000_000, u64::MAX >> 1] {
        let mut stream = BytesMut::from(&encode_frame(framing, &payload(50))[..]);
        varint::encode(length, &mut stream);
        stream.extend_from_slice(&payload(200));
        dribble(4, 100, &stream, |pieces| {
            let (frames, error, rest) = frames(framing, pieces);
            assert!(frames.len() == 1 && error.is_some() && rest.is_empty());
            (frames, error)
        });
    }
}

#[test]
fn lines_and_what_follows_them() {
    let mut stream = BytesMut::new();
    for line in ["/multistream/1.0.0", "na", "ls", "/ipfs/ping/1.0.0", "/a"] {
        encode_line(line, &mut stream);
    }
    dribble(5, 300, &stream, lines);
    stream.extend_from_slice(b"\x05a\nb\n\n and more");
    dribble(6, 300, &stream, lines);
}

fn lines(pieces: &mut dyn Iterator<Item = Bytes>) -> (Vec<Line>, Option<LineError>) {
    let mut decoder = LineDecoder::new();
    let mut lines = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.next_line() {
                Ok(Some(line)) => lines.push(line),
                Ok(None) => break,
                Err(error) => return (lines, Some(error)),
            }
        }
    }
    (lines, None)
}

#[test]
fn a_negotiation_and_the_first_bytes_of_its_protocol() {
    let mut stream = BytesMut::new();
    for line in ["/multistream/1.0.0", "/unknown", "/known"] {
        encode_line(line, &mut stream);
    }
    stream.extend_from_slice(b"first bytes");
    let negotiate = |pieces: &mut dyn Iterator<Item = Bytes>| {
        let mut listener = Listener::new();
        let (mut agreed, mut answer, mut rest) = (None, BytesMut::new(), Vec::new());
        for piece in pieces {
            match agreed {
                Some(()) => rest.extend_from_slice(&piece),
                None => {
                    let known = |name: &str| (name == "/known").then_some(());
                    agreed = listener.handle_bytes(piece, known, &mut answer).expect("a good negotiation");
                    if agreed.is_some() {
                        rest.extend(listener.take_rest().concat());
                    }
                }
            }
        }
        (agreed, answer, rest)
    };
    dribble(7, 300, &stream, negotiate);
    let (agreed, answer, rest) = negotiate(&mut [stream.freeze()].into_iter());
    assert_eq!((agreed, &rest[..]), (Some(()), &b"first bytes"[..]));
    assert_eq!(&answer[..], b"\x13/multistream/1.0.0\n\x03na\n\x07/known\n");
}
