//! The twelve-byte header of a yamux frame.
//!
//! See the [yamux specification](https://github.com/libp2p/specs/blob/master/yamux/README.md). Streams, windows and
//! the order of frames are not known here.

use std::fmt;

/// The length of a header in bytes. Only a [`FrameType::Data`] frame has a body behind it.
pub const HEADER_LEN: usize = 12;

/// The one version of the protocol.
pub const VERSION: u8 = 0;

/// The stream id that stands for the session itself.
pub const SESSION: u32 = 0;

/// The receive window a stream starts with, in bytes.
pub const INITIAL_WINDOW: u32 = 256 * 1024;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameType {
    /// Carries bytes of a stream; `length` of them follow the header.
    Data = 0,
    /// Enlarges the sender's window by `length` bytes.
    WindowUpdate = 1,
    /// Asks for, or answers with, the opaque value in `length`.
    Ping = 2,
    /// Ends the session with the code in `length`; see [`GoAway`].
    GoAway = 3,
}

/// The flag bits of a frame. Bits without a meaning are kept and ignored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u16);

impl Flags {
    /// No flag.
    pub const NONE: Flags = Flags(0);
    /// Opens a stream; in a ping, asks.
    pub const SYN: Flags = Flags(1);
    /// Accepts a stream; in a ping, answers.
    pub const ACK: Flags = Flags(2);
    /// The sender sends no more on the stream.
    pub const FIN: Flags = Flags(4);
    /// The stream is gone at once, in both directions.
    pub const RST: Flags = Flags(8);

    /// Whether all of `flags` are set.
    pub fn contains(self, flags: Flags) -> bool {
        self.0 & flags.0 == flags.0
    }
}

impl std::ops::BitOr for Flags {
    type Output = Flags;

    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = [(Flags::SYN, "SYN"), (Flags::ACK, "ACK"), (Flags::FIN, "FIN"), (Flags::RST, "RST")];
        let names: Vec<_> =
            known.iter().filter(|(flag, _)| self.contains(*flag)).map(|(_, name)| *name).collect();
        match self.0 & !0xf {
            0 => write!(f, "Flags({})", names.join("|")),
            unknown => write!(f, "Flags({}+{unknown:#x})", names.join("|")),
        }
    }
}

/// The code with which a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GoAway {
    /// 0: nothing is wrong.
    Normal,
    /// 1: the other side broke the protocol.
    ProtocolError,
    /// 2: this side failed.
    InternalError,
    /// A code without a meaning.
    Other(u32),
}

impl From<u32> for GoAway {
    fn from(code: u32) -> Self {
        match code {
            0 => GoAway::Normal,
            1 => GoAway::ProtocolError,
            2 => GoAway::InternalError,
            other => GoAway::Other(other),
        }
    }
}

impl From<GoAway> for u32 {
    fn from(code: GoAway) -> u32 {
        match code {
            GoAway::Normal => 0,
            GoAway::ProtocolError => 1,
            GoAway::InternalError => 2,
            GoAway::Other(other) => other,
        }
    }
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// What the frame is for.
    pub kind: FrameType,
    /// Its flags.
    pub flags: Flags,
    /// The stream it belongs to, or [`SESSION`].
    pub stream: u32,
    /// Bytes that follow, window delta, opaque value or code, by `kind`.
    pub length: u32,
}

/// Why twelve bytes are not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum YamuxError {
    /// The version is not [`VERSION`].
    #[error("unknown yamux version {0}")]
    Version(u8),
    /// The type is none of [`FrameType`].
    #[error("unknown yamux frame type {0}")]
    FrameType(u8),
    /// A stream's frame on the session's id, or a session's frame on a stream's id.
    #[error("yamux {kind:?} frame on stream {stream}")]
    Stream {
        /// The frame's type.
        kind: FrameType,
        /// The id it names.
        stream: u32,
    },
}

impl Header {
    /// Writes the header.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[0] = VERSION;
        out[1] = self.kind as u8;
        out[2..4].copy_from_slice(&self.flags.0.to_be_bytes());
        out[4..8].copy_from_slice(&self.stream.to_be_bytes());
        out[8..].copy_from_slice(&self.length.to_be_bytes());
        out
    }

    /// Reads a header. The meaning of `length` and its bounds are the caller's to check.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, YamuxError> {
        let &[version, kind, f0, f1, s0, s1, s2, s3, l0, l1, l2, l3] = bytes;
        if version != VERSION {
            return Err(YamuxError::Version(version));
        }
        let kind = match kind {
            0 => FrameType::Data,
            1 => FrameType::WindowUpdate,
            2 => FrameType::Ping,
            3 => FrameType::GoAway,
            other => return Err(YamuxError::FrameType(other)),
        };
        let stream = u32::from_be_bytes([s0, s1, s2, s3]);
        let of_session = matches!(kind, FrameType::Ping | FrameType::GoAway);
        if of_session != (stream == SESSION) {
            return Err(YamuxError::Stream { kind, stream });
        }
        let flags = Flags(u16::from_be_bytes([f0, f1]));
        Ok(Self { kind, flags, stream, length: u32::from_be_bytes([l0, l1, l2, l3]) })
    }

    /// How many bytes of body follow the header.
    pub fn body_len(&self) -> u32 {
        if self.kind == FrameType::Data { self.length } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_bytes() {
        let open =
            Header { kind: FrameType::WindowUpdate, flags: Flags::SYN, stream: 1, length: INITIAL_WINDOW };
        assert_eq!(open.encode(), [0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 0, 0]);
        let data =
            Header { kind: FrameType::Data, flags: Flags::FIN | Flags::ACK, stream: 0x0102, length: 5 };
        assert_eq!(data.encode(), [0, 0, 0, 6, 0, 0, 1, 2, 0, 0, 0, 5]);
        assert_eq!((data.body_len(), open.body_len()), (5, 0));
    }

    #[test]
    fn each_fault_has_its_error() {
        let good = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
        let with = |index: usize, value: u8| {
            let mut bytes = good;
            bytes[index] = value;
            Header::decode(&bytes)
        };
        assert!(Header::decode(&good).is_ok());
        assert_eq!(with(0, 1), Err(YamuxError::Version(1)));
        assert_eq!(with(1, 4), Err(YamuxError::FrameType(4)));
        assert_eq!(with(7, 0), Err(YamuxError::Stream { kind: FrameType::Data, stream: 0 }));
        assert_eq!(with(1, 2), Err(YamuxError::Stream { kind: FrameType::Ping, stream: 1 }));
    }

    #[test]
    fn flags_read_well() {
        assert_eq!(format!("{:?}", Flags::SYN | Flags::RST), "Flags(SYN|RST)");
        assert_eq!(format!("{:?}", Flags(0x21)), "Flags(SYN+0x20)");
    }

    proptest! {
        #[test]
        fn what_decodes_encodes_to_the_same(bytes in any::<[u8; HEADER_LEN]>(), kind in 0u8..5, low in 0u8..2) {
            let mut likely = bytes;
            (likely[0], likely[1]) = (0, kind);
            likely[4..8].copy_from_slice(&u32::from(low).to_be_bytes());
            for bytes in [bytes, likely] {
                if let Ok(header) = Header::decode(&bytes) {
                    prop_assert_eq!(header.encode(), bytes);
                }
            }
        }

        #[test]
        fn codes_round_trip(code in any::<u32>()) {
            prop_assert_eq!(u32::from(GoAway::from(code)), code);
        }
    }
}
