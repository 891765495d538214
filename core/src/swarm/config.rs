//! Everything about connection management that can be set.

use super::{
    autoconnect::AutoConnectConfig, dial::DialConfig, gate::GateConfig, health::HealthConfig,
    pruner::PrunerConfig, resources::Limits, select::Strategy,
};
pub use crate::errors::InvalidConfig;
pub(super) use crate::errors::require;
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
        self.limits.validate_with(&self.pruner)?;
        self.pruner.validate()?;
        self.dial.validate()?;
        self.auto_connect.validate()?;
        self.health.validate()
    }
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
