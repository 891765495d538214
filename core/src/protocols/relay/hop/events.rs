//! What a relay tells the embedder.

use std::fmt;

use libp2p_identity::PeerId;

use crate::{
    errors::{RelayStatus, SpliceEnd, StreamFault},
    time::UnixTime,
};

/// What the relay did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A peer may be reached through us.
    ReservationAccepted {
        /// The peer.
        peer: PeerId,
        /// Until when.
        expires: UnixTime,
        /// Whether it held one before.
        renewed: bool,
    },
    /// A peer asked for a reservation in vain.
    ReservationRefused {
        /// The peer.
        peer: PeerId,
        /// What it was told.
        status: RelayStatus,
        /// The limit or rule that said no.
        why: &'static str,
    },
    /// A reservation is over.
    ReservationEnded {
        /// Whose.
        peer: PeerId,
        /// `expired`, `disconnected` or `revoked`.
        why: &'static str,
    },
    /// A circuit was asked for in vain.
    CircuitRefused {
        /// Who asked.
        source: PeerId,
        /// For whom; `None` if the request did not say.
        target: Option<PeerId>,
        /// What it was told.
        status: RelayStatus,
        /// The limit or rule that said no.
        why: &'static str,
    },
    /// A circuit carries bytes.
    CircuitOpened {
        /// Who asked for it.
        source: PeerId,
        /// Who accepted it.
        target: PeerId,
    },
    /// A circuit has ended.
    CircuitClosed {
        /// Who had asked for it.
        source: PeerId,
        /// Who had accepted it.
        target: PeerId,
        /// Bytes from source to target.
        bytes_in: u64,
        /// Bytes from target to source.
        bytes_out: u64,
        /// Why.
        end: CircuitEnd,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReservationAccepted { peer, expires, renewed } => {
                let done = if *renewed { "renewed" } else { "granted" };
                write!(f, "reservation of {peer} {done} until Unix time {}", expires.as_secs())
            }
            Self::ReservationRefused { peer, status, why } => {
                write!(f, "reservation of {peer} refused: {why} ({status})")
            }
            Self::ReservationEnded { peer, why } => write!(f, "reservation of {peer} ended: {why}"),
            Self::CircuitRefused { source, target: Some(target), status, why } => {
                write!(f, "circuit from {source} to {target} refused: {why} ({status})")
            }
            Self::CircuitRefused { source, target: None, status, why } => {
                write!(f, "request from {source} refused: {why} ({status})")
            }
            Self::CircuitOpened { source, target } => write!(f, "circuit from {source} to {target} opened"),
            Self::CircuitClosed { source, target, bytes_in, bytes_out, end } => write!(
                f,
                "circuit from {source} to {target} closed after {bytes_in} bytes there and {bytes_out} back: {end}"
            ),
        }
    }
}

/// Why a circuit ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CircuitEnd {
    /// Both sides finished.
    #[error("both finished")]
    Finished,
    /// A direction reached its byte limit; both streams were reset.
    #[error("byte limit reached")]
    DataLimit,
    /// Nothing was carried for too long; both streams were reset.
    #[error("idle")]
    Idle,
    /// Its time was up; both streams were reset.
    #[error("duration limit reached")]
    Duration,
    /// The source's stream was lost.
    #[error("source: {0}")]
    Source(StreamFault),
    /// The target's stream was lost.
    #[error("target: {0}")]
    Target(StreamFault),
    /// We ended it.
    #[error("closed by the relay")]
    Local,
}

impl From<SpliceEnd> for CircuitEnd {
    fn from(end: SpliceEnd) -> Self {
        match end {
            SpliceEnd::Finished => Self::Finished,
            SpliceEnd::Limit => Self::DataLimit,
            SpliceEnd::Idle => Self::Idle,
            SpliceEnd::A(fault) => Self::Source(fault),
            SpliceEnd::B(fault) => Self::Target(fault),
            SpliceEnd::Local => Self::Local,
        }
    }
}
