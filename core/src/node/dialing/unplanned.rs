//! Dials by PeerId alone, while what an earlier node knew of the peers is still being read.

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

use crate::{
    ids::DialId,
    node::Node,
    swarm::{dial::DialOptions, peerstore::Archive},
};

impl Node {
    /// Whether a request has to wait, because the store may know better where the peer is than we do.
    pub(super) fn waits_for_store(
        &mut self,
        id: DialId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        options: &DialOptions,
    ) -> bool {
        let Some(peer) = peer.filter(|_| addresses.is_empty()) else { return false };
        let waits = self.archive.as_ref().is_some_and(Archive::is_loading)
            && self.dialing.unplanned.len() < self.dialing.config.queue
            && self.connections.of(&peer).is_empty()
            && self.peerstore.addresses(self.now, &peer).is_empty();
        if waits {
            self.dialing.unplanned.push((id, options.clone()));
        }
        waits
    }

    /// There is nothing to wait for any more.
    pub(in crate::node) fn begin_unplanned(&mut self) {
        for (id, options) in std::mem::take(&mut self.dialing.unplanned) {
            self.begin_dial(id, &[], &options);
        }
    }
}
