//! Everything about connection management that can be set.

use super::{
    autoconnect::AutoConnectConfig,
    dial::DialConfig,
    gate::GateConfig,
    health::HealthConfig,
    pruner::PrunerConfig,
    resources::{Limits, ScopeLimit},
    select::Strategy,
};
use crate::{
    peerstore::PeerstoreConfig,
    protocols::{rate::Rate, relay::limits::RelayLimits},
};

/// How a node manages its connections. Each part stands, with its defaults, beside the machine that obeys it.
#[derive(Clone, Debug, Default)]
pub struct SwarmConfig {
    /// How many connections and streams, and how much memory, by scope.
    pub limits: Limits,
    /// How we dial.
    pub dial: DialConfig,
    /// Whom we dial unasked.
    pub auto_connect: AutoConnectConfig,
    /// When a connection is replaced.
    pub health: HealthConfig,
    /// Which of several connections to a peer carries a new stream.
    pub strategy: Strategy,
    /// What we remember of others.
    pub peerstore: PeerstoreConfig,
    /// Whom we talk to at all.
    pub gate: GateConfig,
    /// When there are too many connections, and who goes.
    pub pruner: PrunerConfig,
}

impl SwarmConfig {
    /// For a node whose own rules decide, such as a relay with its limits, and for measurements: no limit on anything, and
    /// nobody is pruned.
    pub fn unlimited() -> Self {
        Self { limits: Limits::unlimited(), pruner: PrunerConfig::never(), ..Self::default() }
    }

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

    /// Finds the first thing that makes no sense.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        self.limits.validate()?;
        self.pruner.validate()?;
        self.dial.validate()?;
        self.auto_connect.validate()?;
        self.health.validate()?;
        let never = self.pruner.high_water == usize::MAX;
        require(
            never || self.limits.system.connections >= self.pruner.high_water,
            "limits.system.connections",
            "must not be below pruner.high_water, or pruning never begins",
        )
    }
}

/// The sum of two limits of a relay, where 0 is none.
fn sum(a: usize, b: usize) -> usize {
    if a == 0 || b == 0 { usize::MAX } else { a.saturating_add(b) }
}

/// A setting that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct InvalidConfig {
    /// Its path within [`SwarmConfig`], such as `pruner.low_water`.
    pub field: &'static str,
    /// What it must be, as the rest of the sentence that the field begins.
    pub problem: &'static str,
}

/// Fails with the sentence unless the condition holds.
pub(super) fn require(holds: bool, field: &'static str, problem: &'static str) -> Result<(), InvalidConfig> {
    if holds { Ok(()) } else { Err(InvalidConfig { field, problem }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut SwarmConfig)) -> Option<&'static str> {
        let mut config = SwarmConfig::default();
        change(&mut config);
        config.validate().err().map(|error| error.field)
    }

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

    #[test]
    fn what_makes_no_sense_is_named() {
        assert_eq!(refused(|c| c.limits.system.connections = 0), Some("limits.system.connections"));
        assert_eq!(refused(|c| c.limits.system.connections = 299), Some("limits.system.connections"));
        assert_eq!(refused(|c| c.limits.peer.connections = 0), Some("limits.peer.connections"));
        assert_eq!(refused(|c| c.pruner.low_water = 301), Some("pruner.low_water"));
        assert_eq!(refused(|c| c.pruner.low_water = 300), None);
        let error = SwarmConfig {
            pruner: PrunerConfig { low_water: 9, high_water: 8, ..Default::default() },
            ..Default::default()
        };
        assert_eq!(
            error.validate().unwrap_err().to_string(),
            "pruner.low_water must not be above pruner.high_water"
        );
    }
}
