//! Where peers see us, and which of it is believed.
//!
//! What a peer sees is the other end of the socket that its connection came over, perhaps through an address translator, so
//! an observation speaks for that socket and for nothing else.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
};

use multiaddr::Multiaddr;

use crate::swarm::addresses::{AddressSource, Site};

/// So many parts of the network must see us at an address for it to be believed (go-libp2p: 4 groups of observers): a
/// crowd in one place may be one liar.
const CONFIRMING_SITES: usize = 4;
/// It is believed until no more than so many do, as each change is told to everybody.
const DOUBTFUL_SITES: usize = 1;
/// Most addresses of one socket that are confirmed (go-libp2p: 3 for each local address): an address translator gives a
/// socket one, and whoever has hosts in four places could claim any number.
const MAX_CONFIRMED: usize = 3;

/// The least of all sockets' addresses.
const FIRST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// That a peer sees us somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sighting {
    pub(super) address: Multiaddr,
    /// The local address of the socket that the peer is connected to.
    pub(super) socket: SocketAddr,
    /// Where the peer is.
    pub(super) site: Site,
    /// Whether we chose to connect to it.
    pub(super) is_dialled: bool,
}

/// One of our addresses, or one that is none any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) address: Multiaddr,
    pub(super) source: AddressSource,
    pub(super) is_there: bool,
}

/// How well an address is supported, the best first: by how many parts of the network that we chose to connect to, by how
/// many in all, and for how long. Liars come to us; they cannot make us come to them.
type Rank = (Reverse<(usize, usize)>, u64, Multiaddr);

/// All sightings.
#[derive(Debug, Default)]
pub(super) struct Observed {
    seen: BTreeMap<(Multiaddr, SocketAddr), Observers>,
    /// What is believed of each socket.
    believed: BTreeMap<SocketAddr, BTreeSet<Rank>>,
    /// The best of that.
    confirmed: BTreeMap<SocketAddr, Vec<Multiaddr>>,
    ever_believed: u64,
}

/// Those that see us at an address over one socket.
#[derive(Debug, Default)]
struct Observers {
    /// Where they are, with the number of connections on which they tell so, and of those that we dialled.
    sites: BTreeMap<Site, (usize, usize)>,
    /// The how manyth address to be believed it was, if it is.
    believed: Option<u64>,
}

impl Observers {
    fn rank(&self, address: &Multiaddr) -> Option<Rank> {
        let dialled = self.sites.values().filter(|(_, dialled)| *dialled > 0).count();
        Some((Reverse((dialled, self.sites.len())), self.believed?, address.clone()))
    }

    fn count(&mut self, sighting: &Sighting, is_there: bool) {
        let (all, dialled) = self.sites.entry(sighting.site).or_default();
        let of_ours = usize::from(sighting.is_dialled);
        if is_there {
            (*all, *dialled) = (*all + 1, *dialled + of_ours);
        } else {
            (*all, *dialled) = (all.saturating_sub(1), dialled.saturating_sub(of_ours));
        }
        if *all == 0 {
            self.sites.remove(&sighting.site);
        }
    }
}

impl Observed {
    /// Everything kept.
    pub(super) fn len(&self) -> usize {
        self.seen.len() + self.believed.len() + self.confirmed.len()
    }

    /// A peer sees us somewhere, or not there any more. Returns what follows for our addresses.
    pub(super) fn note(&mut self, sighting: &Sighting, is_there: bool) -> Vec<Change> {
        let Sighting { address, socket, .. } = sighting;
        let was_seen = self.is_seen(address);
        let key = (address.clone(), *socket);
        let observers = self.seen.entry(key.clone()).or_default();
        let old = observers.rank(address);
        observers.count(sighting, is_there);
        let sites = observers.sites.len();
        if sites <= DOUBTFUL_SITES {
            observers.believed = None;
        } else if sites >= CONFIRMING_SITES && observers.believed.is_none() {
            self.ever_believed += 1;
            observers.believed = Some(self.ever_believed);
        }
        let new = observers.rank(address);
        if sites == 0 {
            self.seen.remove(&key);
        }
        let mut changes = Vec::new();
        let is_seen = self.is_seen(address);
        if is_seen != was_seen {
            changes.push(Change { address: address.clone(), source: AddressSource::Observed, is_there });
        }
        if old != new {
            let ranks = self.believed.entry(*socket).or_default();
            old.map(|old| ranks.remove(&old));
            ranks.extend(new);
            self.choose(*socket, &mut changes);
        }
        changes
    }

    fn is_seen(&self, address: &Multiaddr) -> bool {
        self.seen.range((address.clone(), FIRST)..).next().is_some_and(|((of, _), _)| of == address)
    }

    /// The best supported addresses of a socket are its confirmed ones.
    fn choose(&mut self, socket: SocketAddr, changes: &mut Vec<Change>) {
        let ranks = self.believed.get(&socket).into_iter().flatten();
        let best: Vec<_> = ranks.take(MAX_CONFIRMED).map(|(.., address)| address.clone()).collect();
        let old = self.confirmed.remove(&socket).unwrap_or_default();
        // An address of two sockets is one address.
        let is_only_here = |address: &&Multiaddr| !self.confirmed.values().any(|all| all.contains(address));
        let lost = old.iter().filter(|address| !best.contains(address)).filter(is_only_here);
        let source = AddressSource::Confirmed;
        changes.extend(lost.map(|address| Change { address: address.clone(), source, is_there: false }));
        let found = best.iter().filter(|address| !old.contains(address)).filter(is_only_here);
        changes.extend(found.map(|address| Change { address: address.clone(), source, is_there: true }));
        if !best.is_empty() {
            self.confirmed.insert(socket, best);
        }
        if self.believed.get(&socket).is_some_and(BTreeSet::is_empty) {
            self.believed.remove(&socket);
        }
    }
}
