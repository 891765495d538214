//! What connection management must grant so that a relay can grant what its limits say.

use super::RelayLimits;
use crate::{
    rate::Rate,
    swarm::{
        SwarmConfig,
        pruner::PrunerConfig,
        resources::{Limits, ScopeLimit},
    },
};

impl SwarmConfig {
    /// For a relay that is there for others: room for every reservation and circuit that its limits allow, and as much
    /// again for those who have not asked yet; from one address as many connections as may hold a reservation and a
    /// circuit each. Who holds a reservation is protected from pruning.
    pub fn for_relay(limits: &RelayLimits) -> Self {
        let (defaults, defaults_pruner) = (Limits::default(), PrunerConfig::default());
        let served = sum(limits.max_reservations, limits.max_circuits);
        let connections = served.saturating_mul(2).saturating_add(defaults.system.connections);
        let inbound =
            connections.saturating_sub(defaults.system.connections - defaults.system.inbound_connections);
        // Two for a circuit, and a few for what a peer does beside it.
        let streams = connections.saturating_mul(8).max(defaults.system.streams);
        let memory = connections.saturating_mul(64 << 10).max(defaults.system.memory);
        let per_ip = |reservations| sum(reservations, limits.max_circuits_per_ip).max(defaults.per_ip);
        let (a, b) = (limits.reservation_rate_per_ip, limits.circuit_rate_per_ip);
        let unlimited = a.burst == 0 || b.burst == 0;
        let rate = |default: Rate, times: u32| Rate {
            burst: if unlimited {
                0
            } else {
                a.burst.saturating_add(b.burst).saturating_mul(times).max(default.burst)
            },
            every: a.every.min(b.every).min(default.every),
        };
        Self {
            limits: Limits {
                system: ScopeLimit {
                    connections,
                    inbound_connections: inbound,
                    streams,
                    memory,
                    ..ScopeLimit::UNLIMITED
                },
                transient: ScopeLimit {
                    connections: 1280,
                    inbound_connections: 1024,
                    streams: streams / 4,
                    ..ScopeLimit::UNLIMITED
                },
                service: ScopeLimit { streams, ..ScopeLimit::UNLIMITED },
                protocol: ScopeLimit { streams, ..ScopeLimit::UNLIMITED },
                per_ip: per_ip(limits.max_reservations_per_ip),
                per_v6_56: per_ip(limits.max_reservations_per_v6_56),
                per_v6_48: per_ip(limits.max_reservations_per_v6_48),
                rate_per_ip: rate(defaults.rate_per_ip, 1),
                rate_per_subnet: rate(defaults.rate_per_subnet, 4),
                ..defaults
            },
            pruner: PrunerConfig {
                low_water: served.saturating_add(defaults_pruner.low_water),
                high_water: served.saturating_mul(2).saturating_add(defaults_pruner.high_water),
                ..defaults_pruner
            },
            ..Self::default()
        }
    }
}

/// The sum of two limits of a relay, where 0 is none.
fn sum(a: usize, b: usize) -> usize {
    if a == 0 || b == 0 { usize::MAX } else { a.saturating_add(b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_presets_make_sense() {
        assert_eq!(SwarmConfig::default().validate(), Ok(()));
        assert_eq!(SwarmConfig::unlimited().validate(), Ok(()));
        for limits in [RelayLimits::public(), RelayLimits::broad(), RelayLimits::unlimited()] {
            assert_eq!(SwarmConfig::for_relay(&limits).validate(), Ok(()));
        }
        let public = SwarmConfig::for_relay(&RelayLimits::public()).limits;
        assert_eq!((public.system.connections, public.per_ip), (2 * (128 + 1024) + 1000, 8 + 64));
        let unlimited = SwarmConfig::for_relay(&RelayLimits::unlimited()).limits;
        assert_eq!((unlimited.system.connections, unlimited.rate_per_ip.burst), (usize::MAX, 0));
    }
}
