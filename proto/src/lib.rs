//! The wire of libp2p: bytes to values and back, without I/O and without state beyond a partial frame.
//!
//! Every function here takes bytes that a stranger may have written. Sizes and counts are checked before anything is
//! allocated for them, nothing panics, and each kind of failure has its own value. What a message *means*, and when
//! it is due, is decided elsewhere.
//!
//! | on the wire | here |
//! |---|---|
//! | unsigned varints | [`varint`] |
//! | length-delimited and fixed frames | [`frame`] |
//! | multistream-select lines | [`multistream`] |
//! | yamux headers | [`yamux`] |
//! | Noise messages and handshake payloads | [`noise`] |
//! | keys and peer ids | [`keys`] |
//! | multiaddrs: QUIC and circuit addresses | [`address`] |
//! | signed envelopes, and what is in them | [`envelope`], [`peer_record`], [`voucher`] |
//! | protobuf messages | [`pb`] |
//! | DNS questions for texts, and their answers | [`dns`] |
//!
//! ```
//! use bytes::Bytes;
//! use peerless_proto::pb::relay::{self, HopMessage, HopType};
//! use peerless_proto::{FrameDecoder, Framing, pb};
//!
//! let mut frames = FrameDecoder::new(Framing::Varint { max: relay::MAX_MESSAGE });
//! for piece in pb::encode_delimited(&HopMessage::reserve()).chunks(1) {
//!     frames.push(Bytes::copy_from_slice(piece));
//! }
//! let frame = frames.next_frame()?.expect("the frame is whole");
//! let message: HopMessage = pb::decode(&frame)?;
//! assert_eq!(message.kind(), Some(HopType::Reserve));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod address;
pub mod dns;
pub mod envelope;
pub mod frame;
pub mod keys;
pub mod multistream;
pub mod noise;
pub mod pb;
pub mod peer_record;
pub mod varint;
pub mod voucher;
pub mod yamux;

pub use address::CircuitAddr;
pub use envelope::Envelope;
pub use frame::{FrameDecoder, FrameError, Framing, encode_frame};
pub use keys::{Keypair, PeerId, PublicKey};
pub use multiaddr::{Multiaddr, Protocol};
pub use peer_record::PeerRecord;
pub use voucher::Voucher;

#[cfg(test)]
mod testing;
