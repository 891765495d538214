//! Circuit relay v2 (libp2p specs, relay/circuit-v2): the relay itself ([`hop`]), the side that is reached through it
//! ([`stop`]), and the side that reserves and dials ([`client`]).

pub mod client;
pub mod hop;
pub mod stop;

/// `/libp2p/circuit/relay/0.2.0/hop`.
pub const HOP: crate::behaviour::ProtocolName =
    crate::behaviour::ProtocolName::from_static("/libp2p/circuit/relay/0.2.0/hop");
/// `/libp2p/circuit/relay/0.2.0/stop`.
pub const STOP: crate::behaviour::ProtocolName =
    crate::behaviour::ProtocolName::from_static("/libp2p/circuit/relay/0.2.0/stop");

/// Status codes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[non_exhaustive]
pub enum Status {
    /// 100.
    #[error("OK")]
    Ok,
    /// 200.
    #[error("RESERVATION_REFUSED")]
    ReservationRefused,
    /// 201.
    #[error("RESOURCE_LIMIT_EXCEEDED")]
    ResourceLimitExceeded,
    /// 202.
    #[error("PERMISSION_DENIED")]
    PermissionDenied,
    /// 203.
    #[error("CONNECTION_FAILED")]
    ConnectionFailed,
    /// 204.
    #[error("NO_RESERVATION")]
    NoReservation,
    /// 400.
    #[error("MALFORMED_MESSAGE")]
    MalformedMessage,
    /// 401.
    #[error("UNEXPECTED_MESSAGE")]
    UnexpectedMessage,
    /// A code that the specification does not know, or none.
    #[error("status {0}")]
    Other(i32),
}
