//! `/ipfs/id/1.0.0` and `/ipfs/id/push/1.0.0`; see the
//! [identify specification](https://github.com/libp2p/specs/blob/master/identify/README.md).

use super::Wire;

/// What a peer tells about itself.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Identify {
    /// The peer's public key as a [`PublicKey`](super::keys::PublicKey) message.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub public_key: Option<Vec<u8>>,
    /// The binary multiaddrs on which it listens.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub listen_addrs: Vec<Vec<u8>>,
    /// The protocols it supports.
    #[prost(string, repeated, tag = "3")]
    pub protocols: Vec<String>,
    /// The binary multiaddr from which it sees the receiver.
    #[prost(bytes = "vec", optional, tag = "4")]
    pub observed_addr: Option<Vec<u8>>,
    /// The family of protocols it belongs to, such as `ipfs/0.1.0`.
    #[prost(string, optional, tag = "5")]
    pub protocol_version: Option<String>,
    /// Its implementation and version.
    #[prost(string, optional, tag = "6")]
    pub agent_version: Option<String>,
    /// An [`Envelope`](crate::envelope::Envelope) with its [`PeerRecord`](crate::peer_record::PeerRecord).
    #[prost(bytes = "vec", optional, tag = "8")]
    pub signed_peer_record: Option<Vec<u8>>,
}

impl Wire for Identify {
    const MAX_FIELDS: usize = 2048;
}
