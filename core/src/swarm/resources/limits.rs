//! How much there may be of everything.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use super::super::{
    config::{InvalidConfig, require},
    pruner::PrunerConfig,
};
use crate::{network::Network, rate::Rate};

/// How much there may be of everything. Numbers are maxima; `usize::MAX` is no limit, and 0 allows nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Everything together. 1,000 connections, 800 of them inbound so that there is always room to dial; 10,000 streams;
    /// 512 MiB.
    pub system: ScopeLimit,
    /// What is not yet anybody's: connections whose peer is not known, streams that have not agreed on a protocol. 320
    /// connections, 256 of them inbound; 2,000 streams.
    pub transient: ScopeLimit,
    /// What one service holds: a behaviour, or the embedder. 10,000 streams.
    pub service: ScopeLimit,
    /// What the streams of one protocol hold, all peers together. 5,000 streams.
    pub protocol: ScopeLimit,
    /// What one peer holds. 3 connections, 1,024 streams, 64 MiB.
    pub peer: ScopeLimit,
    /// What one connection holds. 1,024 streams, 32 MiB.
    pub connection: ScopeLimit,
    /// What one stream holds. 16 MiB.
    pub stream: ScopeLimit,
    /// Inbound connections from one IPv4 address or one IPv6 /64, which is what one host commands. 8.
    pub per_ip: usize,
    /// Inbound connections from one IPv6 /56, which is what one household commands. 8, as in go-libp2p.
    pub per_v6_56: usize,
    /// Inbound connections from one IPv6 /48, which is what one site commands. 64, as in go-libp2p.
    pub per_v6_48: usize,
    /// Networks with a number of inbound connections of their own. The smallest that an address is in counts instead of
    /// the three numbers above, and the two rates below do not hold there. Loopback, without a limit.
    pub networks: Vec<NetworkLimit>,
    /// How often somebody may connect from one IPv4 address or IPv6 /64. 16 at once, then 5 a second.
    pub rate_per_ip: Rate,
    /// How often somebody may connect from one IPv4 /24 or IPv6 /48. 64 at once, then 20 a second.
    pub rate_per_subnet: Rate,
}

/// How much one scope may hold. Numbers are maxima; `usize::MAX` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScopeLimit {
    /// Connections in both directions.
    pub connections: usize,
    /// Connections that others opened.
    pub inbound_connections: usize,
    /// Connections that we opened.
    pub outbound_connections: usize,
    /// Streams in both directions.
    pub streams: usize,
    /// Streams that others opened.
    pub inbound_streams: usize,
    /// Streams that we opened.
    pub outbound_streams: usize,
    /// Bytes: 20 KiB for a connection, 1 KiB for a stream, and what waits in the stream's own queue. What a transport holds
    /// is not counted; its windows bound that, for each connection ([`quic::Config`](crate::quic::Config)).
    pub memory: usize,
}

impl ScopeLimit {
    /// No limit.
    pub const UNLIMITED: Self = Self {
        connections: usize::MAX,
        inbound_connections: usize::MAX,
        outbound_connections: usize::MAX,
        streams: usize::MAX,
        inbound_streams: usize::MAX,
        outbound_streams: usize::MAX,
        memory: usize::MAX,
    };
}

/// How many inbound connections may come from a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkLimit {
    /// The network.
    pub network: Network,
    /// How many; `usize::MAX` is no limit.
    pub connections: usize,
}

const MIB: usize = 1 << 20;

impl Default for Limits {
    fn default() -> Self {
        const NONE: ScopeLimit = ScopeLimit::UNLIMITED;
        Self {
            system: ScopeLimit {
                connections: 1000,
                inbound_connections: 800,
                streams: 10_000,
                memory: 512 * MIB,
                ..NONE
            },
            transient: ScopeLimit { connections: 320, inbound_connections: 256, streams: 2000, ..NONE },
            service: ScopeLimit { streams: 10_000, ..NONE },
            protocol: ScopeLimit { streams: 5000, ..NONE },
            peer: ScopeLimit { connections: 3, streams: 1024, memory: 64 * MIB, ..NONE },
            connection: ScopeLimit { streams: 1024, memory: 32 * MIB, ..NONE },
            stream: ScopeLimit { memory: 16 * MIB, ..NONE },
            per_ip: 8,
            per_v6_56: 8,
            per_v6_48: 64,
            networks: loopback().map(|network| NetworkLimit { network, connections: usize::MAX }).to_vec(),
            rate_per_ip: Rate { burst: 16, every: Duration::from_millis(200) },
            rate_per_subnet: Rate { burst: 64, every: Duration::from_millis(50) },
        }
    }
}

impl Limits {
    /// No limit on anything.
    pub fn unlimited() -> Self {
        const NONE: ScopeLimit = ScopeLimit::UNLIMITED;
        Self {
            system: NONE,
            transient: NONE,
            service: NONE,
            protocol: NONE,
            peer: NONE,
            connection: NONE,
            stream: NONE,
            per_ip: usize::MAX,
            per_v6_56: usize::MAX,
            per_v6_48: usize::MAX,
            networks: Vec::new(),
            rate_per_ip: Rate::UNLIMITED,
            rate_per_subnet: Rate::UNLIMITED,
        }
    }

    /// Finds the first thing that makes no sense, also beside who is pruned.
    pub(crate) fn validate_with(&self, pruner: &PrunerConfig) -> Result<(), InvalidConfig> {
        self.validate()?;
        let never = pruner.high_water == usize::MAX;
        require(
            never || self.system.connections >= pruner.high_water,
            "limits.system.connections",
            "must not be below pruner.high_water, or pruning never begins",
        )
    }

    fn validate(&self) -> Result<(), InvalidConfig> {
        const AT_LEAST_ONE: &str = "must be at least 1";
        require(self.system.connections >= 1, "limits.system.connections", AT_LEAST_ONE)?;
        require(self.peer.connections >= 1, "limits.peer.connections", AT_LEAST_ONE)?;
        require(self.transient.connections >= 1, "limits.transient.connections", AT_LEAST_ONE)
    }
}

fn loopback() -> [Network; 2] {
    let v4 = Network::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8).expect("8 of 32 bits");
    [v4, Network::single(IpAddr::V6(Ipv6Addr::LOCALHOST))]
}
