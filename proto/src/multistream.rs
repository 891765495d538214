//! The lines of multistream-select, by which two peers agree on the protocol of a stream.
//!
//! A line is an unsigned varint, the text, and a newline that the varint counts. See the
//! [multistream-select specification](https://github.com/multiformats/multistream-select) and libp2p's
//! [connections](https://github.com/libp2p/specs/blob/master/connections/README.md#multistream-select). Which line
//! is due when is not known here.

use crate::frame::{FrameDecoder, FrameError, Framing};
use crate::varint;
use bytes::{Bytes, BytesMut};
use std::fmt;

/// The line that opens a negotiation, from both sides.
pub const HEADER: &str = "/multistream/1.0.0";

/// The line that refuses a proposed protocol.
pub const NA: &str = "na";

/// The line that asks for a list of protocols.
pub const LS: &str = "ls";

/// The longest line accepted, in bytes, its newline counted and its length prefix not.
pub const MAX_LINE: usize = 1024;

/// One line of a negotiation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// [`HEADER`].
    Header,
    /// [`NA`].
    Na,
    /// [`LS`].
    Ls,
    /// Anything else: a protocol proposed or confirmed. Not empty and without a newline.
    Protocol(String),
}

impl Line {
    /// Reads a line from the payload of its frame, the newline still there.
    pub fn decode(payload: &[u8]) -> Result<Self, LineError> {
        let text = payload.strip_suffix(b"\n").ok_or(LineError::NoNewline)?;
        if text.contains(&b'\n') {
            return Err(LineError::Malformed);
        }
        match std::str::from_utf8(text).map_err(|_| LineError::NotUtf8)? {
            "" => Err(LineError::Malformed),
            HEADER => Ok(Line::Header),
            NA => Ok(Line::Na),
            LS => Ok(Line::Ls),
            protocol => Ok(Line::Protocol(protocol.to_owned())),
        }
    }

    /// The text, without the newline.
    pub fn as_str(&self) -> &str {
        match self {
            Line::Header => HEADER,
            Line::Na => NA,
            Line::Ls => LS,
            Line::Protocol(protocol) => protocol,
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why bytes are not a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// The frame around the line is bad or exceeds [`MAX_LINE`].
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The last byte is not a newline.
    #[error("line does not end with a newline")]
    NoNewline,
    /// The text is not UTF-8.
    #[error("line is not UTF-8")]
    NotUtf8,
    /// The text is empty or has a newline inside.
    #[error("line is empty or several lines in one")]
    Malformed,
}

/// Appends the line with this text to `out`: length, text, newline.
pub fn encode_line(text: &str, out: &mut BytesMut) {
    varint::encode(text.len() as u64 + 1, out);
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\n");
}

/// Reads lines from a stream that may turn into another protocol after any of them.
///
/// Nothing past the last line returned is interpreted or lost: [`take_rest`](Self::take_rest) gives it back.
#[derive(Debug)]
pub struct LineDecoder {
    frames: FrameDecoder,
    failed: Option<LineError>,
}

impl Default for LineDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl LineDecoder {
    /// A decoder at the start of a line.
    pub fn new() -> Self {
        Self { frames: FrameDecoder::new(Framing::Varint { max: MAX_LINE }), failed: None }
    }

    /// Adds the next bytes of the stream. After an error they are dropped.
    pub fn push(&mut self, chunk: Bytes) {
        if self.failed.is_none() {
            self.frames.push(chunk);
        }
    }

    /// The next line; `None` until more bytes are pushed. An error is final.
    pub fn next_line(&mut self) -> Result<Option<Line>, LineError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.read_line().inspect_err(|error| {
            self.failed = Some(*error);
            self.frames.take_rest();
        })
    }

    /// Takes back what was pushed after the last line returned, in order and byte for byte. Empty after an error.
    pub fn take_rest(&mut self) -> Vec<Bytes> {
        self.frames.take_rest()
    }

    /// How many bytes are held.
    pub fn buffered(&self) -> usize {
        self.frames.buffered()
    }

    fn read_line(&mut self) -> Result<Option<Line>, LineError> {
        let frame = self.frames.next_frame()?;
        frame.map(|payload| Line::decode(&payload)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn encoded(text: &str) -> Bytes {
        let mut out = BytesMut::new();
        encode_line(text, &mut out);
        out.freeze()
    }

    #[test]
    fn the_header_has_its_known_bytes() {
        assert_eq!(&encoded(HEADER)[..], b"\x13/multistream/1.0.0\n");
        assert_eq!(&encoded(NA)[..], b"\x03na\n");
    }

    #[test]
    fn a_negotiation_and_the_bytes_behind_it() {
        let mut decoder = LineDecoder::new();
        decoder
            .push(Bytes::from_static(b"\x13/multistream/1.0.0\n\x03na\n\x03ls\n\x07/a/1.0\n\xff\xff\xffraw"));
        assert_eq!(decoder.next_line(), Ok(Some(Line::Header)));
        assert_eq!(decoder.next_line(), Ok(Some(Line::Na)));
        assert_eq!(decoder.next_line(), Ok(Some(Line::Ls)));
        assert_eq!(decoder.next_line(), Ok(Some(Line::Protocol("/a/1.0".into()))));
        assert_eq!(decoder.take_rest().concat(), b"\xff\xff\xffraw");
    }

    #[test]
    fn bad_lines_have_their_errors_and_keep_nothing() {
        for (bytes, error) in [
            (&b"\x02na"[..], LineError::NoNewline),
            (b"\x00", LineError::NoNewline),
            (b"\x01\n", LineError::Malformed),
            (b"\x04a\nb\n", LineError::Malformed),
            (b"\x03\xff\xfe\n", LineError::NotUtf8),
            (b"\x81\x08", LineError::Frame(FrameError::TooLarge { len: 1025, max: 1024 })),
        ] {
            let mut decoder = LineDecoder::new();
            decoder.push(Bytes::from_static(bytes));
            decoder.push(Bytes::from_static(b"more"));
            assert_eq!(decoder.next_line(), Err(error));
            assert_eq!(decoder.next_line(), Err(error));
            decoder.push(Bytes::from_static(b"and more"));
            assert_eq!(decoder.buffered(), 0);
        }
    }

    #[test]
    fn an_endless_line_is_refused_at_its_length() {
        let mut decoder = LineDecoder::new();
        decoder.push(Bytes::from_static(b"\x80\x80\x80\x80\x80\x01"));
        assert!(matches!(decoder.next_line(), Err(LineError::Frame(FrameError::TooLarge { .. }))));
    }

    #[test]
    fn the_longest_line() {
        let longest = "x".repeat(MAX_LINE - 1);
        let mut decoder = LineDecoder::new();
        decoder.push(encoded(&longest));
        assert_eq!(decoder.next_line(), Ok(Some(Line::Protocol(longest))));
    }

    proptest! {
        #[test]
        fn dribbled_lines_and_rest(
            lines in vec("[ -~]{1,60}", 0..6),
            tail in vec(any::<u8>(), 0..40),
            step in 1usize..30,
        ) {
            let mut stream = BytesMut::new();
            for line in &lines {
                encode_line(line, &mut stream);
            }
            stream.extend_from_slice(&tail);
            let mut decoder = LineDecoder::new();
            let mut got = Vec::new();
            for piece in stream.chunks(step) {
                decoder.push(Bytes::copy_from_slice(piece));
                while got.len() < lines.len() {
                    match decoder.next_line().unwrap() {
                        Some(line) => got.push(line.to_string()),
                        None => break,
                    }
                }
            }
            prop_assert_eq!(got, lines);
            prop_assert_eq!(decoder.take_rest().concat(), tail);
        }

        #[test]
        fn random_payloads_never_panic(payload in vec(any::<u8>(), 0..80)) {
            if let Ok(line) = Line::decode(&payload) {
                prop_assert_eq!([line.as_str().as_bytes(), b"\n"].concat(), payload);
            }
        }
    }
}
