//! `/ipfs/ping/1.0.0` (libp2p specs, ping): is the peer alive, and how far away is it.

use std::time::Duration;

use libp2p_identity::PeerId;

use crate::{event, event::StreamFault, ids::ConnectionId};

/// The outcome of one ping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The connection pinged.
    pub connection: ConnectionId,
    /// Its peer.
    pub peer: PeerId,
    /// The round-trip time, or what went wrong.
    pub result: Result<Duration, Failure>,
}

impl From<Event> for event::Event {
    fn from(event: Event) -> Self {
        Self::Ping(event)
    }
}

/// Why a ping failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The answer was not what was sent.
    #[error("the answer differs from what was sent")]
    Mismatch,
    /// No stream could be opened.
    #[error("{0}")]
    Open(event::OpenError),
    /// The stream was lost.
    #[error("{0}")]
    Stream(StreamFault),
}
