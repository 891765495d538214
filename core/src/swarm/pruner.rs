//! Who goes when there are too many connections.

use std::time::Duration;

use super::config::{InvalidConfig, require};

/// When there are too many connections, and how many stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrunerConfig {
    /// Connections that are left after pruning. 100.
    pub low_water: usize,
    /// Connections above which pruning begins; `usize::MAX` never prunes. 300.
    pub high_water: usize,
    /// How long a new connection is spared. 20 s.
    pub grace: Duration,
    /// How long nothing is pruned after pruning, so that peers that come back at once are not thrown out as fast as they
    /// come. 10 s, as in go-libp2p.
    pub silence: Duration,
}

impl Default for PrunerConfig {
    fn default() -> Self {
        Self {
            low_water: 100,
            high_water: 300,
            grace: Duration::from_secs(20),
            silence: Duration::from_secs(10),
        }
    }
}

impl PrunerConfig {
    /// Nobody is pruned.
    pub fn never() -> Self {
        Self { low_water: usize::MAX, high_water: usize::MAX, ..Self::default() }
    }

    pub(super) fn validate(&self) -> Result<(), InvalidConfig> {
        require(self.low_water <= self.high_water, "pruner.low_water", "must not be above pruner.high_water")
    }
}
