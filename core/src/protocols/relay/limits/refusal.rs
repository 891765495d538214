//! Why a relay says no: each reason with what the peer is told, its words, and its counter.

use crate::errors::RelayStatus;

/// Why a relay says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Refusal {
    /// The message cannot be understood.
    Malformed,
    /// The message comes out of turn.
    Unexpected,
    /// A reservation is asked for over a circuit.
    ReserveRelayed,
    /// The embedder allows the peer no reservation.
    ReserveDenied,
    /// There are too many reservations.
    ReservationsFull,
    /// There are too many reservations from the IP address.
    ReservationsIp,
    /// There are too many reservations from the IPv6 /56.
    ReservationsV6Slash56,
    /// There are too many reservations from the IPv6 /48.
    ReservationsV6Slash48,
    /// There are too many reservations from the autonomous system.
    ReservationsAsn,
    /// The peer asks for reservations too often.
    ReservationRatePeer,
    /// The IP address asks for reservations too often.
    ReservationRateIp,
    /// A circuit is asked for over a circuit.
    ConnectRelayed,
    /// The target is the source or the relay.
    ToItself,
    /// The embedder does not allow the circuit.
    ConnectDenied,
    /// The target holds no reservation.
    NoReservation,
    /// There are too many circuits.
    CircuitsFull,
    /// The source has too many circuits.
    SourceFull,
    /// The target has too many circuits.
    TargetFull,
    /// There are too many circuits from the source's IP address.
    CircuitsIp,
    /// The source asks for circuits too often.
    CircuitRatePeer,
    /// The source's IP address asks for circuits too often.
    CircuitRateIp,
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
    pub fn status(self) -> RelayStatus {
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

    #[rustfmt::skip]
    fn row(self) -> (RelayStatus, &'static str, &'static str) {
        use RelayStatus::{
            ConnectionFailed as Failed, MalformedMessage, PermissionDenied as Denied, ReservationRefused as Refused,
            ResourceLimitExceeded as Exceeded, UnexpectedMessage,
        };
        match self {
            Self::Malformed => (MalformedMessage, "malformed message", "relay.hop.refused.malformed"),
            Self::Unexpected => (UnexpectedMessage, "message out of turn", "relay.hop.refused.unexpected"),
            Self::ReserveRelayed => (Denied, "over a circuit", "relay.hop.refused.reserve_relayed"),
            Self::ReserveDenied => (Denied, "reservation not allowed", "relay.hop.refused.reserve_denied"),
            Self::ReservationsFull => (Refused, "too many reservations", "relay.hop.refused.reservations_full"),
            Self::ReservationsIp => (Refused, "too many reservations from the IP address", "relay.hop.refused.reservations_ip"),
            Self::ReservationsV6Slash56 => (Refused, "too many reservations from the IPv6 /56", "relay.hop.refused.reservations_v6_56"),
            Self::ReservationsV6Slash48 => (Refused, "too many reservations from the IPv6 /48", "relay.hop.refused.reservations_v6_48"),
            Self::ReservationsAsn => (Refused, "too many reservations from the autonomous system", "relay.hop.refused.reservations_asn"),
            Self::ReservationRatePeer => (Refused, "reservations asked for too often", "relay.hop.refused.reservation_rate_peer"),
            Self::ReservationRateIp => (Refused, "reservations asked for too often from the IP address", "relay.hop.refused.reservation_rate_ip"),
            Self::ConnectRelayed => (Denied, "over a circuit", "relay.hop.refused.connect_relayed"),
            Self::ToItself => (Denied, "to itself", "relay.hop.refused.to_itself"),
            Self::ConnectDenied => (Denied, "circuit not allowed", "relay.hop.refused.connect_denied"),
            Self::NoReservation => (RelayStatus::NoReservation, "no reservation", "relay.hop.refused.no_reservation"),
            Self::CircuitsFull => (Exceeded, "too many circuits", "relay.hop.refused.circuits_full"),
            Self::SourceFull => (Exceeded, "too many circuits of the source", "relay.hop.refused.source_full"),
            Self::TargetFull => (Exceeded, "too many circuits of the target", "relay.hop.refused.target_full"),
            Self::CircuitsIp => (Exceeded, "too many circuits from the IP address", "relay.hop.refused.circuits_ip"),
            Self::CircuitRatePeer => (Exceeded, "circuits asked for too often", "relay.hop.refused.circuit_rate_peer"),
            Self::CircuitRateIp => (Exceeded, "circuits asked for too often from the IP address", "relay.hop.refused.circuit_rate_ip"),
            Self::StopUnopened => (Failed, "no stream to the target", "relay.hop.refused.stop_unopened"),
            Self::StopRefused => (Failed, "the target refused", "relay.hop.refused.stop_refused"),
            Self::StopFault => (Failed, "the target failed", "relay.hop.refused.stop_fault"),
            Self::StopTimeout => (Failed, "the target did not answer", "relay.hop.refused.stop_timeout"),
            Self::TargetLost => (Failed, "the target disconnected", "relay.hop.refused.target_lost"),
        }
    }
}
