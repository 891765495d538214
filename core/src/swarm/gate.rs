//! Whom we talk to at all.

use std::collections::BTreeSet;

use libp2p_identity::PeerId;

use super::network::Network;

/// Whom we talk to. What is denied is denied, whatever else is said of it. If anything is allowed by name, nothing else
/// is: a connection must then come from or go to an allowed network, or be with an allowed peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateConfig {
    /// Networks to talk to. Empty: all.
    pub allow_networks: BTreeSet<Network>,
    /// Peers to talk to. Empty: all.
    pub allow_peers: BTreeSet<PeerId>,
    /// Networks not to talk to. None.
    pub deny_networks: BTreeSet<Network>,
    /// Peers not to talk to. None.
    pub deny_peers: BTreeSet<PeerId>,
    /// Whether to talk to addresses that are not reachable from everywhere: private, loopback, link-local and all others
    /// that IANA's special-purpose registries call so. `true`.
    pub allow_private: bool,
}

impl Default for GateConfig {
    fn default() -> Self {
        Self {
            allow_networks: BTreeSet::new(),
            allow_peers: BTreeSet::new(),
            deny_networks: BTreeSet::new(),
            deny_peers: BTreeSet::new(),
            allow_private: true,
        }
    }
}
