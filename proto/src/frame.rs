//! Framing.

/// How bytes become frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Unsigned-varint length, then that many bytes, at most `max`.
    Varint {
        /// Most bytes a frame may have.
        max: usize,
    },
    /// Frames of exactly this many bytes.
    Fixed(usize),
    /// No frames: bytes as they come.
    Raw,
}
