//! What the embedder is told of reservations.

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

use crate::{
    event,
    event::{CircuitLimit, CloseReason, DialError, OpenError, StreamFault},
    protocols::relay::Status,
    time::UnixTime,
};

/// What became of our reservations.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A relay forwards to us, or goes on doing so.
    Reserved {
        /// The relay.
        relay: PeerId,
        /// Until when.
        expires: UnixTime,
        /// The circuit addresses that lead to us, with our own `/p2p`.
        addresses: Vec<Multiaddr>,
        /// What it grants each circuit.
        limit: CircuitLimit,
        /// Whether it is a refresh.
        renewed: bool,
    },
    /// A reservation that we held is gone; its addresses are withdrawn.
    Lost {
        /// The relay.
        relay: PeerId,
        /// Why.
        reason: ReserveError,
    },
    /// A reservation that we asked for was not granted.
    Failed {
        /// The relay's address, as it was asked for.
        address: Multiaddr,
        /// Why.
        reason: ReserveError,
    },
}

impl From<Event> for event::Event {
    fn from(event: Event) -> Self {
        Self::Reservation(event)
    }
}

/// Why we hold no reservation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReserveError {
    /// The address has no `/p2p`, so nobody to authenticate.
    #[error("the relay's address must end in /p2p/ and its peer id")]
    NoPeer,
    /// The relay could not be reached.
    #[error("{0}")]
    Unreachable(DialError),
    /// The connection to the relay ended.
    #[error("the connection to the relay ended: {0}")]
    Disconnected(CloseReason),
    /// No stream could be opened.
    #[error("{0}")]
    Open(OpenError),
    /// The stream was lost.
    #[error("{0}")]
    Stream(StreamFault),
    /// The relay said no.
    #[error("the relay refused: {0}")]
    Refused(Status),
    /// The relay broke the protocol.
    #[error("the relay broke the protocol: {0}")]
    Malformed(String),
    /// The voucher is not what it must be.
    #[error("the voucher is not valid: {0}")]
    Voucher(String),
    /// The relay did not answer in time.
    #[error("timed out")]
    TimedOut,
    /// It ended without having been renewed.
    #[error("expired")]
    Expired,
    /// We gave it up.
    #[error("given up by us")]
    Cancelled,
}
