//! What is known of other peers: where they are reached, for how long that holds and who says so, what they speak, how
//! far away they are. Bounded per peer and in all; what is least useful makes room. What it takes to find a peer again
//! outlives the node if the embedder has a store.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use peerless_proto::address::{self, MAX_ADDR_LEN};

pub(crate) use self::archive::{Archive, TABLE};
use self::{
    known::{Known, Voucher},
    stored::Changes,
};
use crate::{
    names::{HOP, ProtocolName},
    swarm::hostless,
    time::Instant,
};

mod archive;
mod known;
mod row;
mod stored;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerstoreConfig {
    /// Most peers (py-libp2p: 10,000 records). Those that are connected or protected are kept, the others make room.
    pub peers: usize,
    /// Most addresses of one peer.
    pub addresses: usize,
    /// Most protocols of one peer.
    pub protocols: usize,
    /// Most peers that are stored, to be found again by the next node, if
    /// [`Config::storage`](crate::node::Config::storage) is set. Those that were never reached and not heard of for longest
    /// make room. 0 is to store none.
    pub stored: usize,
    /// How long what identify told is believed (py-libp2p: 2 h).
    pub identify_ttl: Duration,
    /// How long an address is believed after it led to the peer (go-libp2p: 15 min after the connection; here from its
    /// beginning, and again at its end).
    pub reached_ttl: Duration,
}

impl Default for PeerstoreConfig {
    fn default() -> Self {
        Self {
            peers: 10_000,
            addresses: 64,
            protocols: 256,
            stored: 1000,
            identify_ttl: Duration::from_secs(2 * 3600),
            reached_ttl: Duration::from_secs(1800),
        }
    }
}

/// Who says that a peer is reached at an address; those that weigh more are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Source {
    /// Somebody else.
    Heard,
    /// A rendezvous point, for a peer that did not sign it.
    Rendezvous,
    /// The peer, over an authenticated connection (identify).
    Identify,
    /// The peer, in a signed record.
    Certified,
    /// The embedder.
    Embedder,
}

/// An address of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// Where, without the peer's `/p2p`.
    pub address: Multiaddr,
    /// Who says so; the weightiest of several.
    pub source: Source,
    /// Until when it is believed; [`Instant::FAR_FUTURE`] is for good.
    pub expires: Instant,
    /// When it last led to the peer.
    pub reached: Option<Instant>,
}

/// Why a signed record was not taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// A newer one is known.
    #[error("record {given} is older than record {known}, which is known")]
    Old {
        /// Its sequence number.
        given: u64,
        /// The sequence number of the one that is known.
        known: u64,
    },
    /// Another one with the same sequence number is known: the peer, or somebody with its key, says two things.
    #[error("another record {0} is known, with other addresses")]
    Conflict(u64),
    /// The store is full of peers that are connected or protected.
    #[error("the peerstore is full of connected and protected peers")]
    Full,
}

/// What is known of one peer.
#[derive(Clone, Debug, Default, PartialEq)]
struct Entry {
    addresses: Vec<Known>,
    /// The newest signed record: its number, and its addresses in order unless an earlier node saw it.
    record: Option<(u64, Option<Vec<Multiaddr>>)>,
    protocols: Vec<ProtocolName>,
    latency: Option<Duration>,
    connections: usize,
    is_protected: bool,
    /// When something was last learnt of it, or it was last connected.
    touched: Instant,
}

/// How useful a peer that may be forgotten is: whether it was ever reached, and how lately it was heard of.
type Use = (bool, Instant, PeerId);

/// All that is known of other peers.
#[derive(Clone, Debug)]
pub struct Peerstore {
    config: PeerstoreConfig,
    peers: BTreeMap<PeerId, Entry>,
    /// The peers that may be forgotten, the least useful first.
    order: BTreeSet<Use>,
    /// Those that speak the relay's protocol.
    relays: BTreeSet<PeerId>,
    addresses: usize,
    /// What is not stored yet; `None` if nothing is to be.
    changes: Option<Changes>,
}

impl Peerstore {
    /// An empty one.
    pub fn new(config: PeerstoreConfig) -> Self {
        Self {
            config,
            peers: BTreeMap::new(),
            order: BTreeSet::new(),
            relays: BTreeSet::new(),
            addresses: 0,
            changes: None,
        }
    }

    /// Its bounds.
    pub fn config(&self) -> &PeerstoreConfig {
        &self.config
    }

    /// Takes note of addresses, each for `ttl` (`None`: for good) from `now`. What [`Source::Identify`] and
    /// [`Source::Rendezvous`] say replaces what the same source said before; other sources may say more bit by bit, and an
    /// address that they said before is believed until the later of both times. A `/p2p` of the peer at the end is cut
    /// off; addresses that name another peer, lead to no host or are too long are left out. Returns how many are new.
    pub fn add(
        &mut self,
        now: Instant,
        peer: PeerId,
        addresses: &[Multiaddr],
        source: Source,
        ttl: Option<Duration>,
    ) -> usize {
        let expires = ttl.map_or(Instant::FAR_FUTURE, |ttl| now + ttl);
        let is_last_word = source.replaces() && self.peers.contains_key(&peer);
        let addresses: Vec<_> = addresses.iter().filter_map(|address| usable(address, peer)).collect();
        if (addresses.is_empty() && !is_last_word) || expires <= now {
            return 0;
        }
        let most = self.config.addresses;
        self.change(now, peer, |entry| {
            if source.replaces() {
                entry.withdraw(source.says(), &addresses);
            }
            let says = source.says();
            addresses.into_iter().map(|address| usize::from(entry.add(address, says, expires, most))).sum()
        })
        .unwrap_or(0)
    }

    /// Takes a signed record over, whose signature and peer have been checked: its addresses replace those of the record
    /// before. The same record again makes them last longer. Returns how many addresses are new.
    ///
    /// # Errors
    /// If the record is older than the one that is known, or says something else under the same number.
    pub fn add_record(
        &mut self,
        now: Instant,
        peer: PeerId,
        number: u64,
        addresses: &[Multiaddr],
        ttl: Duration,
    ) -> Result<usize, RecordError> {
        let mut listed: Vec<_> = addresses.iter().filter_map(|address| usable(address, peer)).collect();
        listed.sort();
        listed.dedup();
        if let Some((known, same)) = self.peers.get(&peer).and_then(|entry| entry.record.as_ref()) {
            if *known > number {
                return Err(RecordError::Old { given: number, known: *known });
            }
            if *known == number && same.as_ref().is_some_and(|same| *same != listed) {
                return Err(RecordError::Conflict(number));
            }
        }
        let (most, expires) = (self.config.addresses, now + ttl);
        self.change(now, peer, |entry| {
            entry.withdraw(Voucher::Certified, &listed);
            let before: Vec<_> = entry.addresses.iter().map(|known| known.address.clone()).collect();
            for address in &listed {
                entry.add(address.clone(), Voucher::Certified, expires, most);
            }
            entry.record = Some((number, Some(listed)));
            entry.addresses.iter().filter(|known| !before.contains(&known.address)).count()
        })
        .ok_or(RecordError::Full)
    }

    /// What the peer said over a connection without signing it does not count any more: it has signed something since.
    pub fn withdraw_unsigned(&mut self, now: Instant, peer: PeerId) {
        if self.peers.contains_key(&peer) {
            self.change(now, peer, |entry| entry.drop_voucher(Voucher::Identify));
        }
    }

    /// Takes note of what a peer speaks, in place of what it spoke before.
    pub fn set_protocols(&mut self, now: Instant, peer: PeerId, protocols: &[ProtocolName]) {
        let most = self.config.protocols;
        let is_other = self.update(now, peer, |entry| {
            let was_relay = entry.is_relay();
            entry.protocols = protocols.iter().take(most).cloned().collect();
            entry.is_relay() != was_relay
        });
        if is_other == Some(true) && self.is_worth_storing(now, &peer) {
            self.note(now, peer);
        }
    }

    /// Peers that are known to relay for others, by PeerId.
    pub fn relays(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.relays.iter().copied()
    }

    /// Takes a measured round-trip time into the average, with a weight of a tenth.
    pub fn measured(&mut self, now: Instant, peer: PeerId, rtt: Duration) {
        self.update(now, peer, |entry| {
            entry.latency = Some(entry.latency.map_or(rtt, |average| average * 9 / 10 + rtt / 10));
        });
    }

    /// A connection to a peer is there: at `address`, if we dialled it. The peer is kept while it is connected.
    pub fn connected(&mut self, now: Instant, peer: PeerId, address: Option<&Multiaddr>) {
        let (most, expires) = (self.config.addresses, now + self.config.reached_ttl);
        let address = address.and_then(|address| usable(address, peer));
        self.change(now, peer, |entry| {
            entry.connections += 1;
            let Some(address) = address else { return };
            entry.add(address.clone(), Voucher::Dial, expires, most);
            if let Some(known) = entry.addresses.iter_mut().find(|known| known.address == address) {
                known.reached = Some(now);
                known.connections += 1;
            }
        });
    }

    /// A connection has ended, which was dialled at `address` if we dialled it: that address is believed a while longer.
    pub fn disconnected(&mut self, now: Instant, peer: PeerId, address: Option<&Multiaddr>) {
        if !self.peers.contains_key(&peer) {
            return;
        }
        let expires = now + self.config.reached_ttl;
        let address = address.and_then(|address| usable(address, peer));
        self.change(now, peer, |entry| {
            entry.connections = entry.connections.saturating_sub(1);
            let none_left = entry.connections == 0;
            for known in entry.addresses.iter_mut().filter(|known| Some(&known.address) == address.as_ref()) {
                known.connections = known.connections.saturating_sub(1);
                if known.reached.is_some() {
                    known.vouch(Voucher::Dial, expires);
                }
            }
            for known in entry.addresses.iter_mut().filter(|_| none_left) {
                known.connections = 0;
            }
        });
    }

    /// A dial of an address failed: it does not count as reached any more.
    pub fn unreachable(&mut self, now: Instant, peer: &PeerId, address: &Multiaddr) {
        let Some(entry) = self.peers.get_mut(peer) else { return };
        let had_place = self.order.remove(&entry.usefulness(*peer));
        let known = entry.addresses.iter_mut().find(|known| known.address == *address);
        let had_led = known.is_some_and(|known| known.reached.take().is_some());
        if had_place {
            self.order.insert(entry.usefulness(*peer));
        }
        if had_led {
            self.note(now, *peer);
        }
    }

    /// Keeps a peer, or no longer, however full the store is.
    pub fn protect(&mut self, now: Instant, peer: PeerId, is_protected: bool) {
        if is_protected || self.peers.contains_key(&peer) {
            self.update(now, peer, |entry| entry.is_protected = is_protected);
        }
    }

    /// The addresses of a peer that are believed: those that led there first, the latest foremost; then by source.
    pub fn addresses(&self, now: Instant, peer: &PeerId) -> Vec<PeerAddress> {
        let Some(entry) = self.peers.get(peer) else { return Vec::new() };
        let believed = entry.addresses.iter().filter(|known| known.is_believed(now));
        let mut addresses: Vec<_> = believed.map(Known::told).collect();
        addresses.sort_by_key(|known| std::cmp::Reverse((known.reached, known.source)));
        addresses
    }

    /// What a peer speaks, if it said so.
    pub fn protocols(&self, peer: &PeerId) -> &[ProtocolName] {
        self.peers.get(peer).map_or(&[], |entry| &entry.protocols)
    }

    /// How far away a peer is, on average.
    pub fn latency(&self, peer: &PeerId) -> Option<Duration> {
        self.peers.get(peer)?.latency
    }

    /// The number of the newest signed record of a peer.
    pub fn record(&self, peer: &PeerId) -> Option<u64> {
        Some(self.peers.get(peer)?.record.as_ref()?.0)
    }

    /// The peers that have an address that is believed, by PeerId.
    pub fn peers(&self, now: Instant) -> impl Iterator<Item = PeerId> + '_ {
        let is_known =
            move |(_, entry): &(&PeerId, &Entry)| entry.addresses.iter().any(|known| known.is_believed(now));
        self.peers.iter().filter(is_known).map(|(peer, _)| *peer)
    }

    /// Forgets an address. Returns whether it was known.
    pub fn remove_address(&mut self, now: Instant, peer: PeerId, address: &Multiaddr) -> bool {
        let Some(address) = usable(address, peer).filter(|_| self.peers.contains_key(&peer)) else {
            return false;
        };
        self.change(now, peer, |entry| {
            let before = entry.addresses.len();
            entry.addresses.retain(|known| known.address != address);
            entry.addresses.len() < before
        })
        .unwrap_or(false)
    }

    /// Forgets a peer, unless it is connected or protected: then only its addresses. Returns whether it was known.
    pub fn forget(&mut self, now: Instant, peer: PeerId) -> bool {
        let is_known = self.peers.contains_key(&peer);
        if is_known {
            self.change(now, peer, |entry| {
                *entry = Entry {
                    connections: entry.connections,
                    is_protected: entry.is_protected,
                    ..Entry::default()
                };
            });
        }
        if self.peers.get(&peer).is_some_and(|entry| !entry.is_kept()) {
            self.remove(now, peer);
        }
        is_known
    }

    /// Number of peers of which anything is known.
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether nothing is known of anybody.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Number of addresses held, expired ones included.
    pub fn address_count(&self) -> usize {
        self.addresses
    }

    /// Changes the entry of a peer, made if there is none. `None` if there is no room for one.
    fn update<R>(&mut self, now: Instant, peer: PeerId, change: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        (self.peers.contains_key(&peer) || self.make_room(now)).then(|| self.alter(now, now, peer, change))
    }

    /// The same for a change that may concern what is stored.
    fn change<R>(&mut self, now: Instant, peer: PeerId, change: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        let was_worth_storing = self.is_worth_storing(now, &peer);
        let result = self.update(now, peer, change);
        if was_worth_storing || self.is_worth_storing(now, &peer) {
            self.note(now, peer);
        }
        result
    }

    /// Changes the entry of a peer, of which something was learnt at `touched`; there is room for it.
    fn alter<R>(
        &mut self,
        now: Instant,
        touched: Instant,
        peer: PeerId,
        change: impl FnOnce(&mut Entry) -> R,
    ) -> R {
        let entry = self.peers.entry(peer).or_default();
        self.order.remove(&entry.usefulness(peer));
        let before = entry.addresses.len();
        entry.touched = entry.touched.max(touched);
        entry.expire(now);
        let result = change(entry);
        self.addresses = self.addresses + entry.addresses.len() - before;
        if !entry.is_kept() {
            self.order.insert(entry.usefulness(peer));
        }
        match entry.is_relay() {
            true => _ = self.relays.insert(peer),
            false => _ = self.relays.remove(&peer),
        }
        result
    }

    fn make_room(&mut self, now: Instant) -> bool {
        while self.peers.len() >= self.config.peers {
            let Some((_, _, least)) = self.order.first().copied() else { return false };
            self.remove(now, least);
        }
        true
    }

    fn remove(&mut self, now: Instant, peer: PeerId) {
        let was_worth_storing = self.is_worth_storing(now, &peer);
        if let Some(entry) = self.peers.remove(&peer) {
            self.order.remove(&entry.usefulness(peer));
            self.relays.remove(&peer);
            self.addresses -= entry.addresses.len();
        }
        if let Some(changes) = &mut self.changes {
            changes.peers.remove(&peer);
        }
        if was_worth_storing {
            self.note(now, peer);
        }
    }
}

impl Entry {
    fn is_kept(&self) -> bool {
        self.connections > 0 || self.is_protected
    }

    fn expire(&mut self, now: Instant) {
        self.addresses.retain(|known| known.is_believed(now));
    }

    /// Who vouches has a new list: what it vouched for before and does not name now it withdraws. What the peer itself
    /// withdraws is believed no longer because it led there once, unless a connection still does.
    fn withdraw(&mut self, voucher: Voucher, listed: &[Multiaddr]) {
        let is_peer = matches!(voucher, Voucher::Identify | Voucher::Certified);
        for known in &mut self.addresses {
            if known.until[voucher as usize] == Instant::ZERO || listed.contains(&known.address) {
                continue;
            }
            known.until[voucher as usize] = Instant::ZERO;
            if is_peer && known.connections == 0 {
                known.until[Voucher::Dial as usize] = Instant::ZERO;
            }
        }
        self.drop_unvouched();
    }

    fn drop_voucher(&mut self, voucher: Voucher) {
        for known in &mut self.addresses {
            known.until[voucher as usize] = Instant::ZERO;
        }
        self.drop_unvouched();
    }

    fn drop_unvouched(&mut self) {
        self.addresses.retain(|known| known.is_believed(Instant::ZERO));
    }

    fn usefulness(&self, peer: PeerId) -> Use {
        (self.is_reached(), self.touched, peer)
    }

    fn is_relay(&self) -> bool {
        self.protocols.contains(&HOP)
    }

    fn is_reached(&self) -> bool {
        self.addresses.iter().any(|known| known.reached.is_some())
    }

    /// Returns whether the address is new.
    fn add(&mut self, address: Multiaddr, voucher: Voucher, expires: Instant, most: usize) -> bool {
        if let Some(known) = self.addresses.iter_mut().find(|known| known.address == address) {
            known.vouch(voucher, expires);
            return false;
        }
        let new = Known::new(address, voucher, expires);
        if self.addresses.len() >= most {
            // What weighs least, and of that what ends first, makes room for what weighs as much or more.
            let least = (0..self.addresses.len()).min_by_key(|at| self.addresses[*at].weight());
            match least.filter(|at| self.addresses[*at].weight() <= new.weight()) {
                Some(at) => self.addresses.remove(at),
                None => return false,
            };
        }
        self.addresses.push(new);
        true
    }
}

/// The address without the peer's `/p2p`; `None` if it names another peer, says nothing, leads to no host or is too long.
/// The target of a circuit goes as well: the peer is known.
fn usable(address: &Multiaddr, peer: PeerId) -> Option<Multiaddr> {
    let (rest, named) = address::split_peer(address);
    let is_fit = named.is_none_or(|named| named == peer)
        && !rest.is_empty()
        && rest.len() <= MAX_ADDR_LEN
        && hostless(&rest).is_none();
    is_fit.then_some(rest)
}

#[cfg(test)]
mod tests;
