//! Peer records: a peer's own signed list of its addresses; see
//! [RFC 0003](https://github.com/libp2p/specs/blob/master/RFC/0003-routing-records.md).

use crate::address::{AddrError, MAX_ADDR_LEN, decode_multiaddr};
use crate::envelope::{Envelope, EnvelopeError};
use crate::keys::{Keypair, PeerId, PeerIdError, decode_peer_id};
use crate::pb::{self, DecodeError, Message as _};
use multiaddr::Multiaddr;

/// The most addresses in a record.
pub const MAX_ADDRESSES: usize = 500;

/// How a record is put in its envelope. The record itself is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// What go, js and new rust peers exchange: domain `libp2p-peer-record`, type `0x0301`.
    Standard,
    /// What older rust peers exchange, from a draft of the specification: domain `libp2p-routing-state`, type
    /// `/libp2p/routing-state-record`.
    RoutingState,
}

impl Dialect {
    /// The dialect of an envelope, if a peer record may be in it.
    pub fn of(envelope: &Envelope) -> Option<Self> {
        [Self::Standard, Self::RoutingState]
            .into_iter()
            .find(|dialect| dialect.payload_type() == envelope.payload_type())
    }

    /// The domain that is signed along.
    pub fn domain(self) -> &'static str {
        match self {
            Self::Standard => "libp2p-peer-record",
            Self::RoutingState => "libp2p-routing-state",
        }
    }

    /// The type the envelope names.
    pub fn payload_type(self) -> &'static [u8] {
        match self {
            Self::Standard => &[0x03, 0x01],
            Self::RoutingState => b"/libp2p/routing-state-record",
        }
    }
}

/// A peer's addresses at some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRecord {
    /// Whose they are.
    pub peer: PeerId,
    /// Of two records of a peer, the one with the larger number counts. It has no other meaning.
    pub seq: u64,
    /// Where the peer says it listens. That it does so is not proven.
    pub addresses: Vec<Multiaddr>,
}

/// Why a record cannot be sealed, or an envelope has none that is the signer's own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerRecordError {
    /// The envelope is bad, or of something else.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The payload is no record.
    #[error("bad peer record: {0}")]
    Malformed(#[from] DecodeError),
    /// The record's peer id is no peer id.
    #[error(transparent)]
    PeerId(#[from] PeerIdError),
    /// Somebody else than the record's peer signed.
    #[error("peer record of another peer than its signer {0}")]
    Signer(PeerId),
    /// There are more than [`MAX_ADDRESSES`] addresses.
    #[error("peer record with {0} addresses exceeds the limit of {MAX_ADDRESSES}")]
    TooManyAddresses(usize),
    /// An address has more than [`MAX_ADDR_LEN`] bytes.
    #[error("address of {0} bytes exceeds the limit of {MAX_ADDR_LEN}")]
    AddressTooLong(usize),
}

impl PeerRecord {
    /// Signs the record with its peer's key.
    pub fn seal(&self, keypair: &Keypair, dialect: Dialect) -> Result<Envelope, PeerRecordError> {
        self.check_signer(keypair.public().to_peer_id())?;
        check_count(self.addresses.len())?;
        if let Some(long) = self.addresses.iter().find(|address| address.len() > MAX_ADDR_LEN) {
            return Err(PeerRecordError::AddressTooLong(long.len()));
        }
        let addresses =
            self.addresses.iter().map(|address| pb::record::AddressInfo { multiaddr: address.to_vec() });
        let message = pb::record::PeerRecord {
            peer_id: self.peer.to_bytes(),
            seq: self.seq,
            addresses: addresses.collect(),
        };
        Ok(Envelope::sign(keypair, dialect.domain(), dialect.payload_type(), message.encode_to_vec())?)
    }

    /// Verifies an envelope of either [`Dialect`] and reads the record in it.
    ///
    /// Addresses with protocols that are not known here are left out: peers may listen on more than we can dial.
    pub fn open(envelope: &Envelope) -> Result<Self, PeerRecordError> {
        let dialect = Dialect::of(envelope).ok_or(EnvelopeError::PayloadType)?;
        let (signer, payload) = envelope.verify(dialect.domain(), dialect.payload_type())?;
        let message: pb::record::PeerRecord = pb::decode(payload)?;
        check_count(message.addresses.len())?;
        let mut addresses = Vec::with_capacity(message.addresses.len());
        for info in message.addresses {
            match decode_multiaddr(info.multiaddr) {
                Ok(address) => addresses.push(address),
                Err(AddrError::TooLong(len)) => return Err(PeerRecordError::AddressTooLong(len)),
                Err(_) => {}
            }
        }
        let record = Self { peer: decode_peer_id(&message.peer_id)?, seq: message.seq, addresses };
        record.check_signer(signer.to_peer_id())?;
        Ok(record)
    }

    fn check_signer(&self, signer: PeerId) -> Result<(), PeerRecordError> {
        if signer == self.peer { Ok(()) } else { Err(PeerRecordError::Signer(signer)) }
    }
}

fn check_count(count: usize) -> Result<(), PeerRecordError> {
    if count > MAX_ADDRESSES { Err(PeerRecordError::TooManyAddresses(count)) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
