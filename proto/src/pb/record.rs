//! Signed envelopes and the peer records in them; see
//! [RFC 0002](https://github.com/libp2p/specs/blob/master/RFC/0002-signed-envelopes.md#wire-format) and
//! [RFC 0003](https://github.com/libp2p/specs/blob/master/RFC/0003-routing-records.md#address-record-format).
//! [`crate::envelope`] and [`crate::peer_record`] check what these messages say.

use super::{Shape, Wire};

/// A signed payload.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Envelope {
    /// The signer's key as a [`PublicKey`](super::keys::PublicKey) message.
    #[prost(bytes = "vec", tag = "1")]
    pub public_key: Vec<u8>,
    /// What the payload is.
    #[prost(bytes = "vec", tag = "2")]
    pub payload_type: Vec<u8>,
    /// The payload.
    #[prost(bytes = "vec", tag = "3")]
    pub payload: Vec<u8>,
    /// The signature of a domain, the type and the payload.
    #[prost(bytes = "vec", tag = "5")]
    pub signature: Vec<u8>,
}

impl Wire for Envelope {
    const MAX_FIELDS: usize = 16;
}

/// A peer and its addresses.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PeerRecord {
    /// The binary peer id.
    #[prost(bytes = "vec", tag = "1")]
    pub peer_id: Vec<u8>,
    /// Newer records have larger numbers.
    #[prost(uint64, tag = "2")]
    pub seq: u64,
    /// Where the peer listens.
    #[prost(message, repeated, tag = "3")]
    pub addresses: Vec<AddressInfo>,
}

impl Wire for PeerRecord {
    const MAX_FIELDS: usize = 2 + 2 * crate::peer_record::MAX_ADDRESSES + 16;
    const SHAPE: Shape = Shape(&[(3, Shape::FLAT)]);
}

/// One address.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AddressInfo {
    /// The binary multiaddr.
    #[prost(bytes = "vec", tag = "1")]
    pub multiaddr: Vec<u8>,
}
