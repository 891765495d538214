//! The payload of the Noise handshake; see the
//! [noise specification](https://github.com/libp2p/specs/blob/master/noise/README.md#the-libp2p-handshake-payload).

use super::{Shape, Wire};

/// Proves the identity behind a Noise static key.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NoiseHandshakePayload {
    /// The identity key as a [`PublicKey`](super::keys::PublicKey) message.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub identity_key: Option<Vec<u8>>,
    /// Its signature of the Noise static key.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub identity_sig: Option<Vec<u8>>,
    /// What else the handshake agrees on.
    #[prost(message, optional, tag = "4")]
    pub extensions: Option<NoiseExtensions>,
}

impl Wire for NoiseHandshakePayload {
    const MAX_FIELDS: usize = 64;
    const SHAPE: Shape = Shape(&[(4, Shape::FLAT)]);
}

/// The registered extensions.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NoiseExtensions {
    /// Certificate hashes of a WebTransport server, as multihashes.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub webtransport_certhashes: Vec<Vec<u8>>,
    /// The stream muxers the sender supports, the preferred one first.
    #[prost(string, repeated, tag = "2")]
    pub stream_muxers: Vec<String>,
}
