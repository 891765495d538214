//! Connection management: whom we are connected to, why, and who goes first.
//!
//! | file           | what it is                                                             |
//! |----------------|------------------------------------------------------------------------|
//! | `config.rs`    | [`SwarmConfig`]: everything that can be set, and what makes sense       |
//! | `table.rs`     | established connections                                                |
//! | `gate.rs`      | whom we talk to at all: addresses, networks, peers                     |
//! | `resources.rs` | how much of everything, by scope                                       |
//! | `pruner.rs`    | who goes when there are too many                                       |

pub mod config;
pub mod gate;
pub mod network;
pub mod pruner;
pub mod resources;
pub mod table;

pub use self::config::{InvalidConfig, SwarmConfig};

/// The machines of connection management; the node asks them and does what they say.
#[derive(Debug)]
pub struct Swarm {
    config: SwarmConfig,
}

impl Swarm {
    /// With a configuration that makes sense; see [`SwarmConfig::validate`].
    pub(crate) fn new(config: SwarmConfig) -> Self {
        Self { config }
    }

    /// What was configured.
    pub fn config(&self) -> &SwarmConfig {
        &self.config
    }
}
