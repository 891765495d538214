//! What a behaviour may look at.

use libp2p_identity::PeerId;

use crate::{
    identity::Identity,
    names::ProtocolName,
    streams::Queues,
    swarm::{addresses::Addresses, peerstore::Peerstore, table::Connections},
};

/// The world as a behaviour may see it.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Who we are; signs envelopes.
    pub identity: &'a Identity,
    /// Established connections.
    pub connections: &'a Connections,
    /// Our own addresses.
    pub addresses: &'a Addresses,
    /// What is known of other peers.
    pub peerstore: &'a Peerstore,
    /// The stream protocols we answer, sorted.
    pub protocols: &'a [ProtocolName],
    /// Write queues.
    pub queues: &'a dyn Queues,
}

impl View<'_> {
    /// Our own PeerId.
    pub fn local_peer(&self) -> PeerId {
        self.identity.peer()
    }
}
