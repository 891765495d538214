//! What the embedder is told of reservations.

use std::{fmt, time::Duration};

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

use crate::{
    errors::{CloseReason, DialError, OpenError, RelayStatus, StreamFault},
    names::CircuitLimit,
    time::{Instant, UnixTime},
};

/// A reservation that is wanted, as far as it is held.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeldReservation {
    /// The relay.
    pub relay: PeerId,
    /// How far we are with it.
    pub state: ReservationState,
    /// The circuit addresses that lead to us, without our own `/p2p`; none if it is not held.
    pub addresses: Vec<Multiaddr>,
    /// When it is taken to end if it is not renewed; `None` if it is not held.
    pub expires: Option<Instant>,
    /// What the relay grants each circuit, if it is held.
    pub limit: Option<CircuitLimit>,
    /// Tries in a row that have failed.
    pub failures: u32,
    /// When it is renewed, tried again or given up: the next step of its state.
    pub next_step: Option<Instant>,
    /// Whether the node chose the relay itself; see [`AutoRelay`](super::AutoRelay).
    pub is_auto: bool,
}

/// What became of our reservations: each change of a relay's state is one event.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// We are connecting to a relay to ask for a reservation.
    Connecting {
        /// The relay.
        relay: PeerId,
        /// Where, with its `/p2p`.
        address: Multiaddr,
    },
    /// A relay is asked for a reservation.
    Requesting {
        /// The relay.
        relay: PeerId,
        /// How many tries in a row have failed before.
        failures: u32,
    },
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
    /// It is time to renew a reservation, which goes on meanwhile.
    Refreshing {
        /// The relay.
        relay: PeerId,
    },
    /// A reservation could not be renewed, or the relay refused to; it goes on to its end, and meanwhile the relay is asked
    /// again (circuit-v2: it holds until `expire`).
    RefreshFailed {
        /// The relay.
        relay: PeerId,
        /// Why.
        reason: ReserveError,
        /// For how long it still holds.
        left: Duration,
        /// When it is tried again.
        retry: Duration,
    },
    /// A relay was found not to hold a reservation any more that we took to last: the two wall clocks do not agree, or the relay
    /// does not do as it says. It is asked again at once.
    Gone {
        /// The relay.
        relay: PeerId,
        /// How long after the grant that was.
        after: Duration,
        /// How long it should have lasted, by our clock; zero if it had ended when it was granted.
        stated: Duration,
    },
    /// A reservation that we held is gone; its addresses are withdrawn.
    Lost {
        /// The relay.
        relay: PeerId,
        /// Why.
        reason: ReserveError,
        /// When this relay may be asked again; `None` if it is not wanted any more.
        retry: Option<Duration>,
    },
    /// A reservation that we asked for was not granted.
    Failed {
        /// The relay.
        relay: PeerId,
        /// The relay's address, as it was asked for.
        address: Multiaddr,
        /// Why.
        reason: ReserveError,
        /// When this relay may be asked again.
        retry: Duration,
    },
}

/// How far we are with a relay where a reservation is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReservationState {
    /// Connecting to it.
    Connecting,
    /// It is being asked for the first time.
    Requesting,
    /// It forwards to us.
    Active,
    /// It forwards to us, and is being asked to go on.
    Refreshing,
    /// It does not forward to us; it is asked again after a pause.
    BackingOff,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connecting { relay, .. } => write!(f, "connecting to {relay}"),
            Self::Requesting { relay, failures: 0 } => write!(f, "requesting from {relay}"),
            Self::Requesting { relay, failures } => {
                write!(f, "requesting from {relay} after {failures} failures")
            }
            Self::Reserved { relay, renewed: false, .. } => write!(f, "active at {relay}"),
            Self::Reserved { relay, renewed: true, .. } => write!(f, "renewed at {relay}"),
            Self::Refreshing { relay } => write!(f, "refreshing at {relay}"),
            Self::RefreshFailed { relay, reason, left, retry } => {
                let (left, retry) = (left.as_secs_f64(), retry.as_secs_f64());
                write!(f, "not renewed at {relay}: {reason}; holds for {left:.3} s, again in {retry:.3} s")
            }
            Self::Gone { relay, after, stated } => {
                let (after, stated) = (after.as_secs_f64(), stated.as_secs_f64());
                write!(f, "gone at {relay} after {after:.3} s, of {stated:.3} s by our clock; asking again")
            }
            Self::Lost { relay, reason, retry: None } => write!(f, "lost at {relay}: {reason}"),
            Self::Lost { relay, reason, retry: Some(retry) } => {
                write!(f, "lost at {relay}: {reason}; backing off for {:.3} s", retry.as_secs_f64())
            }
            Self::Failed { relay, reason, retry, .. } => {
                write!(f, "not granted by {relay}: {reason}; backing off for {:.3} s", retry.as_secs_f64())
            }
        }
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
    Refused(RelayStatus),
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
