//! Everything about connection management that can be set.

use super::{
    autoconnect::AutoConnectConfig, dial::DialConfig, gate::GateConfig, health::HealthConfig,
    pruner::PrunerConfig, resources::Limits, select::Strategy,
};
use crate::swarm::peerstore::PeerstoreConfig;

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
