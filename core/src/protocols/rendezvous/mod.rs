//! Rendezvous (libp2p specs, rendezvous): peers register under a namespace at a point, and others discover them there.
//! [`server`] is the point; [`client`] registers and discovers.

pub mod client;
pub mod server;
mod wire;

use std::{fmt, time::Duration};

use peerless_proto::pb::rendezvous::ResponseStatus;

use crate::names::{Framing, ProtocolName, ProtocolSpec};

/// `/rendezvous/1.0.0`.
pub const RENDEZVOUS: ProtocolName = ProtocolName::from_static("/rendezvous/1.0.0");
/// What a registration lasts whose client did not say.
pub const DEFAULT_TTL: Duration = Duration::from_secs(2 * 3600);
/// The shortest that the specification recommends to accept.
pub const MIN_TTL: Duration = Duration::from_secs(2 * 3600);
/// The longest that the specification allows.
pub const MAX_TTL: Duration = Duration::from_secs(72 * 3600);
/// The longest namespace, in bytes.
pub const MAX_NAMESPACE: usize = 255;
/// Most registrations in one answer, as the specification recommends.
pub const MAX_PAGE: usize = 1000;
/// The longest message, in bytes, which is what rust-libp2p takes.
pub const MAX_MESSAGE: usize = 1 << 20;

/// The protocol; with 0 it is spoken but not answered.
fn spec(inbound_per_peer: usize) -> ProtocolSpec {
    ProtocolSpec { name: RENDEZVOUS, framing: Framing::Varint { max: MAX_MESSAGE }, inbound_per_peer }
}

/// What rendezvous tells the embedder.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// From the point that we are.
    Server(server::Event),
    /// From the points that we use.
    Client(client::Event),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(event) => event.fmt(f),
            Self::Client(event) => event.fmt(f),
        }
    }
}

/// How a request ended, as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Status {
    /// 0; also a missing one, as protobuf would have it.
    #[error("OK")]
    Ok,
    /// 100: the namespace is missing, too long or not allowed.
    #[error("E_INVALID_NAMESPACE")]
    InvalidNamespace,
    /// 101: the record is none, or its signature is not its peer's.
    #[error("E_INVALID_SIGNED_PEER_RECORD")]
    InvalidSignedPeerRecord,
    /// 102: the time asked for is too short or too long.
    #[error("E_INVALID_TTL")]
    InvalidTtl,
    /// 103: the cookie is not one of this point's, or is for another namespace.
    #[error("E_INVALID_COOKIE")]
    InvalidCookie,
    /// 200: the record is another peer's, or the point does not want the peer.
    #[error("E_NOT_AUTHORIZED")]
    NotAuthorized,
    /// 300: the point failed.
    #[error("E_INTERNAL_ERROR")]
    InternalError,
    /// 400: a limit of the point, or it is out of service.
    #[error("E_UNAVAILABLE")]
    Unavailable,
    /// A code that the specification does not know.
    #[error("status {0}")]
    Other(i32),
}

impl Status {
    /// The code on the wire.
    pub fn code(self) -> i32 {
        match self {
            Self::Ok => 0,
            Self::InvalidNamespace => 100,
            Self::InvalidSignedPeerRecord => 101,
            Self::InvalidTtl => 102,
            Self::InvalidCookie => 103,
            Self::NotAuthorized => 200,
            Self::InternalError => 300,
            Self::Unavailable => 400,
            Self::Other(code) => code,
        }
    }
}

impl From<Option<i32>> for Status {
    fn from(code: Option<i32>) -> Self {
        let code = code.unwrap_or(0);
        match ResponseStatus::try_from(code) {
            Ok(ResponseStatus::Ok) => Self::Ok,
            Ok(ResponseStatus::InvalidNamespace) => Self::InvalidNamespace,
            Ok(ResponseStatus::InvalidSignedPeerRecord) => Self::InvalidSignedPeerRecord,
            Ok(ResponseStatus::InvalidTtl) => Self::InvalidTtl,
            Ok(ResponseStatus::InvalidCookie) => Self::InvalidCookie,
            Ok(ResponseStatus::NotAuthorized) => Self::NotAuthorized,
            Ok(ResponseStatus::InternalError) => Self::InternalError,
            Ok(ResponseStatus::Unavailable) => Self::Unavailable,
            Err(_) => Self::Other(code),
        }
    }
}
