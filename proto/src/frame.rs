//! Frames: how a byte stream is cut into messages.
//!
//! Most libp2p protocols put an unsigned varint with the length before each message. [`FrameDecoder`] takes the
//! stream in whatever pieces it arrives and gives back whole messages. A frame that lies inside one piece is a
//! slice of it, not a copy. A length over the cap is an error before a single byte is stored for it, and the
//! memory a lying peer can claim grows only with the bytes it has really sent.

use crate::varint::{self, VarintError};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// How a stream is cut into frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// An unsigned varint with the payload's length, then the payload.
    Varint {
        /// The longest payload accepted, in bytes.
        max: usize,
    },
    /// Every frame has this many bytes and there is no prefix. With zero there are no frames.
    Fixed(usize),
    /// No frames: bytes are handed on in the pieces in which they came.
    Raw,
}

impl Framing {
    /// Whether the other side, under the same framing, would accept a payload of `len` bytes.
    pub fn accepts(self, len: usize) -> bool {
        match self {
            Framing::Varint { max } => len <= max,
            Framing::Fixed(size) => len == size,
            Framing::Raw => true,
        }
    }
}

/// Why a stream could not be cut into frames. The stream is lost: its decoder repeats the error for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The announced length exceeds the cap.
    #[error("frame of {len} bytes exceeds the limit of {max}")]
    TooLarge {
        /// The length announced, in bytes.
        len: u64,
        /// The cap, in bytes.
        max: usize,
    },
    /// The length prefix is no varint.
    #[error("bad frame length: {0}")]
    BadLength(#[from] VarintError),
}

/// Writes one frame: the payload with the prefix that `framing` puts before it.
///
/// The cap is the receiver's to enforce; ask [`Framing::accepts`] first if the payload's size is not known to fit.
pub fn encode_frame(framing: Framing, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(varint::MAX_LEN + payload.len());
    if let Framing::Varint { .. } = framing {
        varint::encode(payload.len() as u64, &mut out);
    }
    out.extend_from_slice(payload);
    out.freeze()
}

/// Cuts one direction of a stream into frames.
///
/// Push what arrives, then call [`next_frame`](Self::next_frame) until it gives `None`. Used so, the decoder
/// holds at most one incomplete frame and the last piece pushed. After an error it holds nothing.
#[derive(Debug)]
pub struct FrameDecoder {
    framing: Framing,
    input: Assembler,
    failed: Option<FrameError>,
}

impl FrameDecoder {
    /// A decoder at the start of a frame.
    pub fn new(framing: Framing) -> Self {
        Self { framing, input: Assembler::default(), failed: None }
    }

    /// Adds the next bytes of the stream. After an error they are dropped.
    pub fn push(&mut self, chunk: Bytes) {
        if self.failed.is_none() {
            self.input.push(chunk);
        }
    }

    /// The next whole frame, without its prefix; `None` until more bytes are pushed.
    ///
    /// An error is final: it is returned again by every later call.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        match self.framing {
            Framing::Raw => Ok(self.input.take_any()),
            Framing::Fixed(0) => Ok(None),
            Framing::Fixed(size) => Ok(self.input.take_body(size)),
            Framing::Varint { max } => self.next_varint(max).inspect_err(|error| {
                self.failed = Some(*error);
                self.input = Assembler::default();
            }),
        }
    }

    /// Takes back everything that was pushed and not returned in a frame, in order and byte for byte, the prefix of
    /// an incomplete frame included. The decoder is then as new. Empty after an error.
    pub fn take_rest(&mut self) -> Vec<Bytes> {
        self.input.take_rest()
    }

    /// How many bytes are held.
    pub fn buffered(&self) -> usize {
        self.input.len()
    }

    fn next_varint(&mut self, max: usize) -> Result<Option<Bytes>, FrameError> {
        let len = loop {
            match varint::decode(self.input.prefix())? {
                Some((len, _)) => break len,
                None if self.input.take_prefix_byte() => {}
                None => return Ok(None),
            }
        };
        match usize::try_from(len) {
            Ok(len) if len <= max => Ok(self.input.take_body(len)),
            _ => Err(FrameError::TooLarge { len, max }),
        }
    }
}

/// The longest prefix an [`Assembler`] can hold.
const MAX_PREFIX: usize = varint::MAX_LEN;

/// Pieces of a stream, of which the front is being put together to a prefix and a body.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    prefix: [u8; MAX_PREFIX],
    prefix_len: usize,
    /// The start of a body that spans pieces. Empty whenever the body may yet be a slice.
    body: Vec<u8>,
    chunks: VecDeque<Bytes>,
    /// The sum of the lengths of `chunks`.
    queued: usize,
}

impl Assembler {
    pub(crate) fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.queued += chunk.len();
            self.chunks.push_back(chunk);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.prefix_len + self.body.len() + self.queued
    }

    pub(crate) fn prefix(&self) -> &[u8] {
        &self.prefix[..self.prefix_len]
    }

    /// Moves one byte to the prefix; false if there is none, or no room.
    pub(crate) fn take_prefix_byte(&mut self) -> bool {
        if self.prefix_len == MAX_PREFIX {
            return false;
        }
        let Some(byte) = self.split_front(1) else { return false };
        self.prefix[self.prefix_len] = byte[0];
        self.prefix_len += 1;
        true
    }

    /// The next piece as it is.
    fn take_any(&mut self) -> Option<Bytes> {
        self.split_front(usize::MAX)
    }

    /// A body of exactly `size` bytes, the prefix being done with; `None` while bytes are missing.
    pub(crate) fn take_body(&mut self, size: usize) -> Option<Bytes> {
        if size == 0 {
            self.prefix_len = 0;
            return Some(Bytes::new());
        }
        if self.body.is_empty() && self.chunks.front().is_some_and(|chunk| chunk.len() >= size) {
            self.prefix_len = 0;
            return self.split_front(size);
        }
        while self.body.len() < size {
            let piece = self.split_front(size - self.body.len())?;
            self.extend_body(&piece, size);
        }
        self.prefix_len = 0;
        Some(Bytes::from(std::mem::take(&mut self.body)))
    }

    /// Copies a piece to the body, at least doubling the room but never beyond the body's size.
    fn extend_body(&mut self, piece: &[u8], size: usize) {
        let needed = self.body.len() + piece.len();
        if needed > self.body.capacity() {
            let room = needed.max(self.body.capacity().saturating_mul(2)).min(size);
            self.body.reserve_exact(room - self.body.len());
        }
        self.body.extend_from_slice(piece);
    }

    pub(crate) fn take_rest(&mut self) -> Vec<Bytes> {
        let rest = std::mem::take(self);
        let started = [rest.prefix(), &rest.body].concat();
        let started = (!started.is_empty()).then(|| Bytes::from(started));
        started.into_iter().chain(rest.chunks).collect()
    }

    /// Up to `max` bytes from the first piece; `None` if there is no piece.
    fn split_front(&mut self, max: usize) -> Option<Bytes> {
        let front = self.chunks.front_mut()?;
        let piece = if front.len() > max { front.split_to(max) } else { self.chunks.pop_front()? };
        self.queued -= piece.len();
        Some(piece)
    }
}

#[cfg(test)]
mod tests;
