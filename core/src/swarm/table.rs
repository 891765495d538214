//! The table of established connections.

use std::{net::SocketAddr, time::Duration};

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use smallvec::SmallVec;

use crate::{
    event::CircuitLimit,
    ids::{Arena, ConnectionId},
    rng::{HashKeys, Map},
    time::Instant,
};

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// The remote.
    Inbound,
    /// We.
    Outbound,
}

/// What is known of one connection.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// Its id.
    pub id: ConnectionId,
    /// The authenticated remote.
    pub peer: PeerId,
    /// Who opened it.
    pub direction: Direction,
    /// Where the remote is, without its `/p2p`; for a relayed one the circuit address through the relay.
    pub remote: Multiaddr,
    /// The local address of the listening socket that it runs over; `None` through a relay, and of a node that accepts no
    /// connections.
    pub socket: Option<SocketAddr>,
    /// Set when it runs through a relay.
    pub relayed: Option<Relayed>,
    /// When it was established.
    pub established: Instant,
    /// The latest round-trip estimate.
    pub rtt: Option<Duration>,
    /// Another connection to the same peer is kept; this one ends when it is not used any more.
    pub is_superseded: bool,
}

/// How a relayed connection runs.
#[derive(Clone, Debug)]
pub struct Relayed {
    /// The relay.
    pub relay: PeerId,
    /// Our connection to the relay.
    pub via: ConnectionId,
    /// What the relay grants.
    pub limit: CircuitLimit,
}

/// Established connections, by id and by peer.
#[derive(Debug)]
pub struct Connections {
    all: Arena<ConnectionId, ConnectionInfo>,
    by_peer: Map<PeerId, SmallVec<[ConnectionId; 2]>>,
}

impl Connections {
    /// An empty table.
    pub fn new(keys: HashKeys) -> Self {
        Self { all: Arena::default(), by_peer: Map::with_hasher(keys) }
    }

    /// Adds what `make` returns for the new id.
    pub fn insert_with(&mut self, make: impl FnOnce(ConnectionId) -> ConnectionInfo) -> ConnectionId {
        let id = self.all.insert_with(make);
        let peer = self.all.get(id).expect("just inserted").peer;
        self.by_peer.entry(peer).or_default().push(id);
        id
    }

    /// Removes a connection; `None` if the id is stale.
    pub fn remove(&mut self, id: ConnectionId) -> Option<ConnectionInfo> {
        let info = self.all.remove(id)?;
        if let Some(ids) = self.by_peer.get_mut(&info.peer) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_peer.remove(&info.peer);
            }
        }
        Some(info)
    }

    /// One connection; `None` if the id is stale.
    pub fn get(&self, id: ConnectionId) -> Option<&ConnectionInfo> {
        self.all.get(id)
    }

    /// One connection; `None` if the id is stale.
    pub fn get_mut(&mut self, id: ConnectionId) -> Option<&mut ConnectionInfo> {
        self.all.get_mut(id)
    }

    /// The connections to `peer`, oldest first.
    pub fn of(&self, peer: &PeerId) -> &[ConnectionId] {
        self.by_peer.get(peer).map_or(&[], |ids| ids)
    }

    /// The connection to use for `peer`: a direct one before a relayed one, the newest of each kind, one that is
    /// superseded last of its kind.
    pub fn best(&self, peer: &PeerId) -> Option<ConnectionId> {
        let all = self.of(peer).iter().filter_map(|id| self.get(*id));
        all.max_by_key(|c| (c.relayed.is_none(), !c.is_superseded)).map(|c| c.id)
    }

    /// All connections in slot order.
    pub fn iter(&self) -> impl Iterator<Item = &ConnectionInfo> {
        self.all.iter().map(|(_, info)| info)
    }

    /// Number of peers to which there is a connection.
    pub fn peers(&self) -> usize {
        self.by_peer.len()
    }

    /// Number of connections.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}
