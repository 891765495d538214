//! The table of established connections.

use std::{net::SocketAddr, time::Duration};

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use peerless_proto::address;
use smallvec::SmallVec;

use crate::{
    ids::{Arena, ConnectionId},
    names::{CircuitLimit, Direction},
    rng::{HashKeys, Map},
    swarm::dial::rank::{self, Reach},
    time::Instant,
};

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

/// Established connections, by id, by peer and by where the remote is.
#[derive(Debug)]
pub struct Connections {
    all: Arena<ConnectionId, ConnectionInfo>,
    by_peer: Map<PeerId, SmallVec<[ConnectionId; 2]>>,
    /// How many have their remote there.
    by_remote: Map<Multiaddr, usize>,
    /// How many are direct and lead over the Internet: IPv4, IPv6.
    public: [usize; 2],
}

impl Connections {
    /// An empty table.
    pub fn new(keys: HashKeys) -> Self {
        let by_remote = Map::with_hasher(keys);
        Self { all: Arena::default(), by_peer: Map::with_hasher(keys), by_remote, public: [0; 2] }
    }

    /// Adds what `make` returns for the new id.
    pub fn insert_with(&mut self, make: impl FnOnce(ConnectionId) -> ConnectionInfo) -> ConnectionId {
        let id = self.all.insert_with(make);
        let info = self.all.get(id).expect("just inserted");
        self.by_peer.entry(info.peer).or_default().push(id);
        *self.by_remote.entry(info.remote.clone()).or_default() += 1;
        if let Some(family) = public_family(info) {
            self.public[family] += 1;
        }
        id
    }

    /// Removes a connection; `None` if the id is stale.
    pub fn remove(&mut self, id: ConnectionId) -> Option<ConnectionInfo> {
        let info = self.all.remove(id)?;
        self.leave_remote(&info);
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

    /// The remote of a connection is somewhere else now.
    pub fn set_remote(&mut self, id: ConnectionId, remote: Multiaddr) {
        let Some(info) = self.all.get_mut(id) else { return };
        let new = ConnectionInfo { remote: remote.clone(), ..info.clone() };
        let old = std::mem::replace(info, new);
        if let Some(family) = public_family(info) {
            self.public[family] += 1;
        }
        *self.by_remote.entry(remote).or_default() += 1;
        self.leave_remote(&old);
    }

    /// The local address of the listening socket that a connection runs over.
    pub fn set_socket(&mut self, id: ConnectionId, socket: Option<SocketAddr>) {
        if let Some(info) = self.all.get_mut(id) {
            info.socket = socket;
        }
    }

    /// The latest round-trip estimate of a connection.
    pub fn set_rtt(&mut self, id: ConnectionId, rtt: Duration) {
        if let Some(info) = self.all.get_mut(id) {
            info.rtt = Some(rtt);
        }
    }

    /// Whether another connection to the same peer is kept rather than this one.
    pub fn set_superseded(&mut self, id: ConnectionId, is_superseded: bool) {
        if let Some(info) = self.all.get_mut(id) {
            info.is_superseded = is_superseded;
        }
    }

    /// Whether the remote of any connection is there.
    pub fn is_remote(&self, address: &Multiaddr) -> bool {
        self.by_remote.contains_key(address)
    }

    /// Whether any direct connection leads over the Internet, or over its IPv6.
    pub fn cross_internet(&self, v6_alone: bool) -> bool {
        let [v4, v6] = self.public;
        v6 > 0 || (v4 > 0 && !v6_alone)
    }

    fn leave_remote(&mut self, info: &ConnectionInfo) {
        if let Some(family) = public_family(info) {
            self.public[family] -= 1;
        }
        if let Some(count) = self.by_remote.get_mut(&info.remote) {
            *count -= 1;
            if *count == 0 {
                self.by_remote.remove(&info.remote);
            }
        }
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

/// 0 for IPv4 and 1 for IPv6, if the connection is direct and leads over the Internet.
fn public_family(info: &ConnectionInfo) -> Option<usize> {
    let is_public = info.relayed.is_none() && rank::reach(&info.remote) == Reach::Public;
    address::ip_of(&info.remote).filter(|_| is_public).map(|ip| usize::from(ip.is_ipv6()))
}
