//! What a relay allows: functions of a request and of how much is in use, without state and without effects.

use std::time::Duration;

use super::Status;
use crate::event::CircuitLimit;

/// What a relay allows. In the counts, 0 is no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Most reservations at a time. Each peer has at most one.
    pub max_reservations: usize,
    /// Most circuits at a time, those being set up included.
    pub max_circuits: usize,
    /// Most circuits at a time of which one peer is an end, those being set up included.
    pub max_circuits_per_peer: usize,
    /// For how long a reservation is good if it is not renewed; at least a second.
    pub reservation_ttl: Duration,
    /// What each circuit may use; zero is no limit.
    pub limit: CircuitLimit,
    /// How long a peer may take to say what it wants, and a target to accept a circuit; at least a second.
    pub timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_reservations: 128,
            max_circuits: 1024,
            max_circuits_per_peer: 16,
            reservation_ttl: Duration::from_secs(3600),
            limit: CircuitLimit { duration: Some(Duration::from_secs(120)), data: Some(128 << 10) },
            timeout: Duration::from_secs(30),
        }
    }
}

/// A peer wants a reservation, or its reservation renewed.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReserveRequest {
    /// Whether it asks over a circuit.
    pub relayed: bool,
    /// Whether it holds one already.
    pub holds: bool,
    /// Reservations held by all peers.
    pub reservations: usize,
}

/// A peer wants a circuit.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectRequest {
    /// Whether it asks over a circuit.
    pub relayed: bool,
    /// Whether the target is the peer itself, or the relay.
    pub to_itself: bool,
    /// Whether the target holds a reservation.
    pub reserved: bool,
    /// Circuits of all peers.
    pub circuits: usize,
    /// Circuits of which the source is an end.
    pub of_source: usize,
    /// Circuits of which the target is an end.
    pub of_target: usize,
}

impl Config {
    /// Decides on a reservation.
    pub fn reserve(&self, request: &ReserveRequest) -> Result<(), Refusal> {
        if request.relayed {
            return Err(Refusal::ReserveRelayed);
        }
        if !request.holds && reached(request.reservations, self.max_reservations) {
            return Err(Refusal::ReservationsFull);
        }
        Ok(())
    }

    /// Decides on a circuit.
    pub fn connect(&self, request: &ConnectRequest) -> Result<(), Refusal> {
        if request.relayed {
            return Err(Refusal::ConnectRelayed);
        }
        if request.to_itself {
            return Err(Refusal::ToItself);
        }
        if !request.reserved {
            return Err(Refusal::NoReservation);
        }
        if reached(request.circuits, self.max_circuits) {
            return Err(Refusal::CircuitsFull);
        }
        if reached(request.of_source, self.max_circuits_per_peer) {
            return Err(Refusal::SourceFull);
        }
        if reached(request.of_target, self.max_circuits_per_peer) {
            return Err(Refusal::TargetFull);
        }
        Ok(())
    }
}

fn reached(count: usize, max: usize) -> bool {
    max > 0 && count >= max
}

/// Why a relay says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The message cannot be understood.
    Malformed,
    /// The message comes out of turn.
    Unexpected,
    /// A reservation is asked for over a circuit.
    ReserveRelayed,
    /// There are too many reservations.
    ReservationsFull,
    /// A circuit is asked for over a circuit.
    ConnectRelayed,
    /// The target is the source or the relay.
    ToItself,
    /// The target holds no reservation.
    NoReservation,
    /// There are too many circuits.
    CircuitsFull,
    /// The source has too many circuits.
    SourceFull,
    /// The target has too many circuits.
    TargetFull,
    /// No stream to the target could be opened.
    StopUnopened,
    /// The target said no.
    StopRefused,
    /// The target broke the protocol, or its stream was lost.
    StopFault,
    /// The target did not answer in time.
    StopTimeout,
    /// The target disconnected.
    TargetLost,
}

impl Refusal {
    /// What the peer is told.
    pub fn status(self) -> Status {
        self.row().0
    }

    /// The limit or rule in a few words.
    pub fn why(self) -> &'static str {
        self.row().1
    }

    /// The counter that counts it.
    pub fn counter(self) -> &'static str {
        self.row().2
    }

    fn row(self) -> (Status, &'static str, &'static str) {
        use Status::*;
        match self {
            Self::Malformed => (MalformedMessage, "malformed message", "relay.hop.refused.malformed"),
            Self::Unexpected => (UnexpectedMessage, "message out of turn", "relay.hop.refused.unexpected"),
            Self::ReserveRelayed => (PermissionDenied, "over a circuit", "relay.hop.refused.reserve_relayed"),
            Self::ReservationsFull => {
                (ReservationRefused, "too many reservations", "relay.hop.refused.reservations_full")
            }
            Self::ConnectRelayed => (PermissionDenied, "over a circuit", "relay.hop.refused.connect_relayed"),
            Self::ToItself => (PermissionDenied, "to itself", "relay.hop.refused.to_itself"),
            Self::NoReservation => (NoReservation, "no reservation", "relay.hop.refused.no_reservation"),
            Self::CircuitsFull => {
                (ResourceLimitExceeded, "too many circuits", "relay.hop.refused.circuits_full")
            }
            Self::SourceFull => {
                (ResourceLimitExceeded, "too many circuits of the source", "relay.hop.refused.source_full")
            }
            Self::TargetFull => {
                (ResourceLimitExceeded, "too many circuits of the target", "relay.hop.refused.target_full")
            }
            Self::StopUnopened => {
                (ConnectionFailed, "no stream to the target", "relay.hop.refused.stop_unopened")
            }
            Self::StopRefused => (ConnectionFailed, "the target refused", "relay.hop.refused.stop_refused"),
            Self::StopFault => (ConnectionFailed, "the target failed", "relay.hop.refused.stop_fault"),
            Self::StopTimeout => {
                (ConnectionFailed, "the target did not answer", "relay.hop.refused.stop_timeout")
            }
            Self::TargetLost => {
                (ConnectionFailed, "the target disconnected", "relay.hop.refused.target_lost")
            }
        }
    }
}
