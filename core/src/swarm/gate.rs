//! Whom we talk to at all: lists of networks and peers, asked at the five points of libp2p's connection gaters.
//!
//! | point | what is known | when |
//! |---|---|---|
//! | [`Point::PeerDial`] | the peer | before its addresses are looked at |
//! | [`Point::AddressDial`] | the IP address that packets would go to, and the peer if one is expected | after names are resolved |
//! | [`Point::Accept`] | the IP address it comes from | before any work on a handshake |
//! | [`Point::Secured`] | both | when the peer has proved who it is |
//! | [`Point::Upgraded`] | the whole connection | before anybody is told of it |
//!
//! A circuit's address is its relay's; who is at the other end is judged when that has been proved.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    str::FromStr,
    sync::Arc,
};

use libp2p_identity::PeerId;
use peerless_proto::keys::parse_peer_id;

use super::{special, table::ConnectionInfo};
use crate::{
    errors::{Denial, Denied, Point},
    names::Direction,
    network::{Network, NetworkMap},
    time::Instant,
};

/// Whom we talk to. What is denied is denied, whatever else is said of it. If anything is allowed by name, nothing else
/// is: a connection must then come from or go to an allowed network, or be with an allowed peer.
#[derive(Clone, Debug)]
pub struct GateConfig {
    /// Networks to talk to. Empty, with no allowed peers: all.
    pub allow_networks: BTreeSet<Network>,
    /// Peers to talk to. Empty, with no allowed networks: all.
    pub allow_peers: BTreeSet<PeerId>,
    /// Networks not to talk to. None.
    pub deny_networks: BTreeSet<Network>,
    /// Peers not to talk to. None.
    pub deny_peers: BTreeSet<PeerId>,
    /// Whether to talk to addresses that are not reachable from everywhere: private, loopback, link-local and all others
    /// that IANA's special-purpose registries call so. `true`.
    pub allow_private: bool,
    /// The embedder's own decision, asked when nothing above is against it. None.
    pub gater: Option<Gater>,
}

impl Default for GateConfig {
    fn default() -> Self {
        Self {
            allow_networks: BTreeSet::new(),
            allow_peers: BTreeSet::new(),
            deny_networks: BTreeSet::new(),
            deny_peers: BTreeSet::new(),
            allow_private: true,
            gater: None,
        }
    }
}

/// The embedder's decision on whom to talk to. Must answer at once.
#[derive(Clone)]
pub struct Gater(Arc<dyn Fn(&Candidate<'_>) -> bool + Send + Sync>);

impl Gater {
    /// Lets through what `allows` says yes to.
    pub fn new(allows: impl Fn(&Candidate<'_>) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(allows))
    }
}

impl fmt::Debug for Gater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gater")
    }
}

/// What is judged.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Candidate<'a> {
    /// A peer is to be dialled.
    PeerDial {
        /// The peer.
        peer: PeerId,
    },
    /// An address is to be dialled.
    AddressDial {
        /// Where; for a circuit the relay.
        ip: IpAddr,
        /// Who is expected there, or behind the relay.
        peer: Option<PeerId>,
    },
    /// Somebody wants to connect.
    Accept {
        /// From where; for a circuit the relay.
        ip: IpAddr,
    },
    /// A peer has proved who it is.
    Secured {
        /// The peer.
        peer: PeerId,
        /// Where it is, or its relay.
        ip: Option<IpAddr>,
        /// Who opened the connection.
        direction: Direction,
    },
    /// A connection carries streams.
    Upgraded {
        /// The connection.
        connection: &'a ConnectionInfo,
        /// Where the peer is, or its relay.
        ip: Option<IpAddr>,
    },
}

impl Candidate<'_> {
    fn point(&self) -> Point {
        match self {
            Self::PeerDial { .. } => Point::PeerDial,
            Self::AddressDial { .. } => Point::AddressDial,
            Self::Accept { .. } => Point::Accept,
            Self::Secured { .. } => Point::Secured,
            Self::Upgraded { .. } => Point::Upgraded,
        }
    }
}

/// What stands on a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entry {
    /// All addresses of a network.
    Network(Network),
    /// A peer, wherever it is.
    Peer(PeerId),
}

/// Why a text is no entry of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an entry is an IP address, a network like 192.0.2.0/24 with no bits set beyond its length, or a peer id"
)]
pub struct NotAnEntry;

/// A network, or a peer id in base58 or as a CID.
impl FromStr for Entry {
    type Err = NotAnEntry;

    fn from_str(text: &str) -> Result<Self, NotAnEntry> {
        let network = text.parse().map(Self::Network);
        network.or_else(|_| parse_peer_id(text).map(Self::Peer)).map_err(|_| NotAnEntry)
    }
}

/// The lists as they are now. Changing them is the node's business; see [`crate::node::Node::change_gate`].
#[derive(Clone, Debug)]
pub struct Gate {
    allow_networks: NetworkMap<()>,
    allow_peers: BTreeSet<PeerId>,
    deny_networks: NetworkMap<()>,
    deny_peers: BTreeSet<PeerId>,
    /// Peers that behaviours want nothing to do with, until then.
    denied_until: BTreeMap<PeerId, Instant>,
    /// The same by when it ends.
    ends: BTreeSet<(Instant, PeerId)>,
    allow_private: bool,
    gater: Option<Gater>,
}

/// Most peers that are denied for a time; those whose time is over first make room for more.
const MAX_DENIED: usize = 10_000;

impl Gate {
    /// With the lists of `config`.
    pub fn new(config: GateConfig) -> Self {
        Self {
            allow_networks: config.allow_networks.into_iter().collect(),
            allow_peers: config.allow_peers,
            deny_networks: config.deny_networks.into_iter().collect(),
            deny_peers: config.deny_peers,
            denied_until: BTreeMap::new(),
            ends: BTreeSet::new(),
            allow_private: config.allow_private,
            gater: config.gater,
        }
    }

    /// Allows. With the first entry everything else is not allowed any more. Returns whether it is new.
    pub fn allow(&mut self, entry: Entry) -> bool {
        match entry {
            Entry::Network(network) => self.allow_networks.insert(network, ()),
            Entry::Peer(peer) => self.allow_peers.insert(peer),
        }
    }

    /// Takes an entry off the allow list. With the last one everything is allowed again. Returns whether it was there.
    pub fn disallow(&mut self, entry: Entry) -> bool {
        match entry {
            Entry::Network(network) => self.allow_networks.remove(&network),
            Entry::Peer(peer) => self.allow_peers.remove(&peer),
        }
    }

    /// Denies. Returns whether it is new.
    pub fn deny(&mut self, entry: Entry) -> bool {
        match entry {
            Entry::Network(network) => self.deny_networks.insert(network, ()),
            Entry::Peer(peer) => self.deny_peers.insert(peer),
        }
    }

    /// Takes an entry off the deny list. Returns whether it was there.
    pub fn undeny(&mut self, entry: Entry) -> bool {
        match entry {
            Entry::Network(network) => self.deny_networks.remove(&network),
            Entry::Peer(peer) => self.deny_peers.remove(&peer),
        }
    }

    /// Denies a peer until then, whatever was said of it before; it stays denied if it is on the deny list too.
    pub fn deny_until(&mut self, peer: PeerId, until: Instant) {
        if let Some(before) = self.denied_until.insert(peer, until) {
            self.ends.remove(&(before, peer));
        }
        self.ends.insert((until, peer));
        if self.denied_until.len() > MAX_DENIED
            && let Some((_, first)) = self.ends.pop_first()
        {
            self.denied_until.remove(&first);
        }
    }

    /// Until when a peer is denied, if that is for a time.
    pub fn denied_until(&self, peer: &PeerId) -> Option<Instant> {
        self.denied_until.get(peer).copied()
    }

    /// Time has passed.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some((_, peer)) = self.ends.first().copied().filter(|(until, _)| *until <= now) {
            self.ends.pop_first();
            self.denied_until.remove(&peer);
        }
    }

    /// Whether to talk to addresses that are not reachable from everywhere.
    pub fn set_allow_private(&mut self, allow: bool) {
        self.allow_private = allow;
    }

    /// Whether the allow list names the peer or the network it is in, which spares it from pruning. `ip` must be where
    /// the connection really is: what a peer says of itself proves nothing.
    pub fn allows_by_name(&self, peer: &PeerId, ip: Option<IpAddr>) -> bool {
        self.allow_peers.contains(peer) || ip.is_some_and(|ip| self.allow_networks.find(ip).is_some())
    }

    /// Decides.
    pub fn judge(&self, candidate: &Candidate<'_>) -> Result<(), Denied> {
        let verdict = match candidate {
            Candidate::PeerDial { peer } => self.lists(None, Some(peer), false),
            Candidate::AddressDial { ip, peer } => self.lists(Some(*ip), peer.as_ref(), false),
            Candidate::Accept { ip } => self.lists(Some(*ip), None, false),
            Candidate::Secured { peer, ip, .. } => self.lists(*ip, Some(peer), true),
            Candidate::Upgraded { connection, ip } => self.lists(*ip, Some(&connection.peer), true),
        };
        let verdict = verdict.and_then(|()| match &self.gater {
            Some(Gater(allows)) if !allows(candidate) => Err(Denial::Gater),
            _ => Ok(()),
        });
        verdict.map_err(|why| Denied { at: candidate.point(), why })
    }

    /// Unless this is all that `is_all` there will be to know, an unknown address or peer may still be on the allow list.
    fn lists(&self, ip: Option<IpAddr>, peer: Option<&PeerId>, is_all: bool) -> Result<(), Denial> {
        if peer.is_some_and(|peer| self.deny_peers.contains(peer) || self.denied_until.contains_key(peer)) {
            return Err(Denial::Peer);
        }
        for face in ip.map(special::faces).unwrap_or_default() {
            if let Some((network, ())) = self.deny_networks.find(face) {
                return Err(Denial::Network(network));
            }
            if let Some(network) = special::not_global(face).filter(|_| !self.allow_private) {
                return Err(Denial::Private(network));
            }
        }
        let all_allowed = self.allow_networks.is_empty() && self.allow_peers.is_empty();
        let by_ip = ip
            .map_or(!is_all && !self.allow_networks.is_empty(), |ip| self.allow_networks.find(ip).is_some());
        let by_peer =
            peer.map_or(!is_all && !self.allow_peers.is_empty(), |peer| self.allow_peers.contains(peer));
        if all_allowed || by_ip || by_peer { Ok(()) } else { Err(Denial::NotAllowed) }
    }
}

#[cfg(test)]
pub(crate) mod tests;
