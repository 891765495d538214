//! Circuit relay v2 (libp2p specs, relay/circuit-v2): the relay itself ([`hop`]), the side that is reached through it
//! ([`stop`]), and the side that reserves and dials ([`client`]).

pub mod client;
pub mod hop;
pub mod limits;
mod roles;
pub mod score;
pub mod stop;
mod wire;

use libp2p_identity::PeerId;

pub use self::roles::Roles;
use crate::{
    behaviour::{Framing, ProtocolName, ProtocolSpec, View},
    ids::ConnectionId,
};

/// `/libp2p/circuit/relay/0.2.0/hop`.
pub const HOP: ProtocolName = ProtocolName::from_static("/libp2p/circuit/relay/0.2.0/hop");
/// `/libp2p/circuit/relay/0.2.0/stop`.
pub const STOP: ProtocolName = ProtocolName::from_static("/libp2p/circuit/relay/0.2.0/stop");

/// One of the two protocols; with 0 it is spoken but not answered.
fn spec(name: ProtocolName, inbound_per_peer: usize) -> ProtocolSpec {
    let framing = Framing::Varint { max: peerless_proto::pb::relay::MAX_MESSAGE };
    ProtocolSpec { name, framing, inbound_per_peer }
}

/// The newest direct connection to a peer.
fn direct_connection(view: View<'_>, peer: &PeerId) -> Option<ConnectionId> {
    let best = view.connections.get(view.connections.best(peer)?)?;
    best.relayed.is_none().then_some(best.id)
}

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

impl Status {
    /// The code on the wire.
    pub fn code(self) -> i32 {
        match self {
            Self::Ok => 100,
            Self::ReservationRefused => 200,
            Self::ResourceLimitExceeded => 201,
            Self::PermissionDenied => 202,
            Self::ConnectionFailed => 203,
            Self::NoReservation => 204,
            Self::MalformedMessage => 400,
            Self::UnexpectedMessage => 401,
            Self::Other(code) => code,
        }
    }
}

/// A missing code is 0, which the specification never sends.
impl From<Option<i32>> for Status {
    fn from(code: Option<i32>) -> Self {
        match code.unwrap_or(0) {
            100 => Self::Ok,
            200 => Self::ReservationRefused,
            201 => Self::ResourceLimitExceeded,
            202 => Self::PermissionDenied,
            203 => Self::ConnectionFailed,
            204 => Self::NoReservation,
            400 => Self::MalformedMessage,
            401 => Self::UnexpectedMessage,
            code => Self::Other(code),
        }
    }
}
