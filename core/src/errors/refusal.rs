//! Why connection management does not want something.

use crate::network::Network;

/// Why connection management does not want something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// We do not talk to it.
    #[error("denied: {0}")]
    Denied(Denied),
    /// There is too much already.
    #[error("{0}")]
    Limit(Exceeded),
    /// [`Node::shutdown`](crate::node::Node::shutdown) was called.
    #[error("this node is shutting down")]
    ShuttingDown,
}

impl Refusal {
    /// The application error code that tells the remote, of those that go-libp2p uses.
    pub(crate) fn code(&self) -> u64 {
        match self {
            Self::Denied(_) => 0x1007,
            Self::Limit(_) => 0x1001,
            Self::ShuttingDown => 0x1006,
        }
    }
}

/// Why somebody is not talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Denied {
    /// Where it was found.
    pub at: Point,
    /// Why.
    pub why: Denial,
}

/// Why somebody is not talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Denial {
    /// The peer is on the deny list.
    #[error("the peer is denied")]
    Peer,
    /// The address is in a network of the deny list.
    #[error("the network {0} is denied")]
    Network(Network),
    /// The address is not reachable from everywhere.
    #[error("the network {0} is private, and private addresses are denied")]
    Private(Network),
    /// There is an allow list, and neither the address nor the peer is on it.
    #[error("it is not on the allow list")]
    NotAllowed,
    /// The embedder says no.
    #[error("the application denies it")]
    Gater,
}

impl Denial {
    /// The names of all reasons in metrics.
    pub const NAMES: [&str; 5] = ["peer", "network", "private", "not_allowed", "gater"];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        let [peer, network, private, not_allowed, gater] = Self::NAMES;
        match self {
            Self::Peer => peer,
            Self::Network(_) => network,
            Self::Private(_) => private,
            Self::NotAllowed => not_allowed,
            Self::Gater => gater,
        }
    }
}

/// Where the gate stands on the way to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// Before a peer is dialled.
    PeerDial,
    /// Before an address is dialled.
    AddressDial,
    /// Before an inbound handshake.
    Accept,
    /// After the handshake.
    Secured,
    /// Before a connection is announced, and whenever the lists or its address change.
    Upgraded,
}

impl Point {
    /// All of them, in the order in which a connection passes them.
    pub const ALL: [Self; 5] =
        [Self::PeerDial, Self::AddressDial, Self::Accept, Self::Secured, Self::Upgraded];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::PeerDial => "peer_dial",
            Self::AddressDial => "address_dial",
            Self::Accept => "accept",
            Self::Secured => "secured",
            Self::Upgraded => "upgraded",
        }
    }
}

/// What was asked for would be too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the limit on {} of the {} is reached", resource.name(), scope.name())]
pub struct Exceeded {
    /// Whose limit.
    pub scope: Scope,
    /// The limit on what.
    pub resource: Resource,
}

/// What has a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Scope {
    /// Everything together.
    System,
    /// What is not anybody's yet.
    Transient,
    /// A behaviour, or the embedder.
    Service,
    /// A protocol.
    Protocol,
    /// A peer.
    Peer,
    /// A connection.
    Connection,
    /// A stream.
    Stream,
    /// An IPv4 address or an IPv6 /64.
    Ip,
    /// An IPv6 /56.
    V6Slash56,
    /// An IPv6 /48.
    V6Slash48,
    /// An IPv4 /24 or an IPv6 /48, as far as rates go.
    Subnet,
    /// A configured network.
    Network,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::System,
        Self::Transient,
        Self::Service,
        Self::Protocol,
        Self::Peer,
        Self::Connection,
        Self::Stream,
        Self::Ip,
        Self::V6Slash56,
        Self::V6Slash48,
        Self::Subnet,
        Self::Network,
    ];

    /// Whether it is somewhere that connections come from.
    pub(crate) fn is_a_place(self) -> bool {
        matches!(self, Self::Ip | Self::V6Slash56 | Self::V6Slash48 | Self::Subnet | Self::Network)
    }

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Transient => "transient",
            Self::Service => "service",
            Self::Protocol => "protocol",
            Self::Peer => "peer",
            Self::Connection => "connection",
            Self::Stream => "stream",
            Self::Ip => "ip",
            Self::V6Slash56 => "v6_56",
            Self::V6Slash48 => "v6_48",
            Self::Subnet => "subnet",
            Self::Network => "network",
        }
    }
}

/// Of what there may only be so much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Resource {
    /// Connections in both directions.
    Connections,
    /// Connections that others opened.
    InboundConnections,
    /// Connections that we opened.
    OutboundConnections,
    /// Streams in both directions.
    Streams,
    /// Streams that others opened.
    InboundStreams,
    /// Streams that we opened.
    OutboundStreams,
    /// Bytes.
    Memory,
    /// How often connections come.
    Rate,
}

impl Resource {
    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::InboundConnections => "inbound_connections",
            Self::OutboundConnections => "outbound_connections",
            Self::Streams => "streams",
            Self::InboundStreams => "inbound_streams",
            Self::OutboundStreams => "outbound_streams",
            Self::Memory => "memory",
            Self::Rate => "rate",
        }
    }
}

/// Why an address leads to no host. Such an address is not dialled, and not believed if somebody says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Hostless {
    /// `0.0.0.0/8` or `::`, which are for binding sockets.
    #[error("0.0.0.0 and :: name no host")]
    Unspecified,
    /// `224.0.0.0/4` or `ff00::/8`.
    #[error("a multicast address names no single host")]
    Multicast,
    /// `255.255.255.255`.
    #[error("a broadcast address names no single host")]
    Broadcast,
    /// The rest of `240.0.0.0/4`.
    #[error("240.0.0.0/4 is reserved, no host is there")]
    Reserved,
    /// `fe80::/10`, which is another host on each link.
    #[error(
        "a link-local IPv6 address leads to no host without its interface, which multiaddrs of QUIC do not name"
    )]
    LinkLocal,
    /// A socket of ours is bound there, or the embedder says that we are there: nobody else is.
    #[error("that is an address of this node itself")]
    Ours,
    /// Port 0.
    #[error("port 0 is no port")]
    Port,
    /// An empty name, or one with an empty part, or too long.
    #[error("a name has parts of 1 to 63 bytes with dots between them, 253 bytes at most")]
    Name,
}
