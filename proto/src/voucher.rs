//! Reservation vouchers: a relay's signed word that it relays for a peer; see the
//! [circuit v2 specification](https://github.com/libp2p/specs/blob/master/relay/circuit-v2.md#reservation-vouchers).

use crate::envelope::{Envelope, EnvelopeError};
use crate::keys::{Keypair, PeerId, PeerIdError, decode_peer_id};
use crate::pb::{self, DecodeError, Message as _};

/// The domain that is signed along.
pub const DOMAIN: &str = "libp2p-relay-rsvp";

/// The type the envelope names.
pub const PAYLOAD_TYPE: &[u8] = &[0x03, 0x02];

/// What a relay promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Voucher {
    /// The relay.
    pub relay: PeerId,
    /// The peer for which it relays.
    pub peer: PeerId,
    /// Until when, in Unix seconds.
    pub expiration: u64,
}

/// Why a voucher cannot be sealed, or is worth nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VoucherError {
    /// The envelope is bad, or of something else.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The payload is no voucher.
    #[error("bad voucher: {0}")]
    Malformed(#[from] DecodeError),
    /// A peer id is missing or bad.
    #[error(transparent)]
    PeerId(#[from] PeerIdError),
    /// The expiration is missing.
    #[error("voucher without expiration")]
    NoExpiration,
    /// Somebody else than the voucher's relay signed.
    #[error("voucher of another relay than its signer {0}")]
    Signer(PeerId),
    /// It is from another relay.
    #[error("voucher is from relay {0}")]
    WrongRelay(PeerId),
    /// It is for another peer.
    #[error("voucher is for peer {0}")]
    WrongPeer(PeerId),
    /// It has run out.
    #[error("voucher expired at {0}")]
    Expired(u64),
}

impl Voucher {
    /// Signs the voucher with the relay's key.
    pub fn seal(&self, keypair: &Keypair) -> Result<Envelope, VoucherError> {
        self.check_signer(keypair.public().to_peer_id())?;
        let message = pb::relay::VoucherPayload {
            relay: Some(self.relay.to_bytes()),
            peer: Some(self.peer.to_bytes()),
            expiration: Some(self.expiration),
        };
        Ok(Envelope::sign(keypair, DOMAIN, PAYLOAD_TYPE, message.encode_to_vec())?)
    }

    /// Verifies an envelope and reads the voucher in it, which its relay has signed.
    pub fn open(envelope: &Envelope) -> Result<Self, VoucherError> {
        let (signer, payload) = envelope.verify(DOMAIN, PAYLOAD_TYPE)?;
        let message: pb::relay::VoucherPayload = pb::decode(payload)?;
        let voucher = Self {
            relay: decode_peer_id(&message.relay.unwrap_or_default())?,
            peer: decode_peer_id(&message.peer.unwrap_or_default())?,
            expiration: message.expiration.ok_or(VoucherError::NoExpiration)?,
        };
        voucher.check_signer(signer.to_peer_id())?;
        Ok(voucher)
    }

    /// Checks that the voucher is `relay`'s for `peer` and good at `now`, in Unix seconds.
    pub fn verify(&self, relay: &PeerId, peer: &PeerId, now: u64) -> Result<(), VoucherError> {
        if self.relay != *relay {
            return Err(VoucherError::WrongRelay(self.relay));
        }
        if self.peer != *peer {
            return Err(VoucherError::WrongPeer(self.peer));
        }
        if self.expiration <= now { Err(VoucherError::Expired(self.expiration)) } else { Ok(()) }
    }

    fn check_signer(&self, signer: PeerId) -> Result<(), VoucherError> {
        if signer == self.relay { Ok(()) } else { Err(VoucherError::Signer(signer)) }
    }
}

#[cfg(test)]
mod tests;
