//! Names that everything here shares: protocols, directions, roles, limits.

use std::{borrow::Borrow, fmt, net::IpAddr, sync::Arc, time::Duration};

pub use peerless_proto::frame::Framing;

use crate::errors::SpliceEnd;

/// A stream protocol's id, such as `/ipfs/ping/1.0.0`. Cheap to clone.
#[derive(Clone)]
pub struct ProtocolName(Name);

impl ProtocolName {
    /// A name known at compile time.
    pub const fn from_static(name: &'static str) -> Self {
        Self(Name::Static(name))
    }

    /// The name as it stands on the wire.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Name::Static(name) => name,
            Name::Shared(name) => name,
        }
    }
}

impl From<&str> for ProtocolName {
    fn from(name: &str) -> Self {
        Self(Name::Shared(name.into()))
    }
}

impl PartialEq for ProtocolName {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for ProtocolName {}

impl PartialEq<str> for ProtocolName {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl Borrow<str> for ProtocolName {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl PartialOrd for ProtocolName {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ProtocolName {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl std::hash::Hash for ProtocolName {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Display for ProtocolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ProtocolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Clone)]
enum Name {
    Static(&'static str),
    Shared(Arc<str>),
}

/// `/libp2p/circuit/relay/0.2.0/hop`.
pub const HOP: ProtocolName = ProtocolName::from_static("/libp2p/circuit/relay/0.2.0/hop");

/// How the stream layer treats the streams of one protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtocolSpec {
    /// The protocol's id.
    pub name: ProtocolName,
    /// How bytes become frames, with the cap that is checked before anything is allocated.
    pub framing: Framing,
    /// Most inbound streams that one peer may have open with this protocol; one more is reset.
    pub inbound_per_peer: usize,
}

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// The remote.
    Inbound,
    /// We.
    Outbound,
}

/// Which side of the handshakes on a circuit we play.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpgradeRole {
    /// We sent CONNECT: multistream dialer, TLS client, Noise and yamux initiator.
    Initiator,
    /// We answered CONNECT.
    Responder,
}

/// What a relay grants a circuit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CircuitLimit {
    /// For how long; `None` is unlimited.
    pub duration: Option<Duration>,
    /// Bytes per direction; `None` is unlimited.
    pub data: Option<u64>,
}

/// What a splice may use. In all of them 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpliceLimit {
    /// Bytes per direction.
    pub bytes: u64,
    /// Bytes per second and direction, in bursts of at most an eighth of a second's worth or 4 KiB.
    pub rate: u64,
    /// How long nothing may move in either direction.
    pub idle: Duration,
}

/// How a splice ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpliceReport {
    /// Bytes copied from `a` to `b`.
    pub a_to_b: u64,
    /// Bytes copied from `b` to `a`.
    pub b_to_a: u64,
    /// Why.
    pub end: SpliceEnd,
}

/// Which addresses a name is to be resolved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `/dns`: both.
    Any,
    /// `/dns4`: A records.
    V4,
    /// `/dns6`: AAAA records.
    V6,
}

impl Family {
    /// Whether `ip` is of this family.
    pub fn takes(self, ip: &IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => ip.is_ipv4(),
            Self::V6 => ip.is_ipv6(),
        }
    }
}
