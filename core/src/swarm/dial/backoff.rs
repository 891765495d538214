//! How long what has failed is left alone: an address of a peer longer and longer, a peer of which every address failed
//! for a fixed time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

use crate::{rng::Rng, time::Instant};

/// How long, and for how many.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BackoffConfig {
    /// The least for an address. After the n-th failure in a row: `base + step * n²`, at most `max` (go-libp2p).
    pub base: Duration,
    /// See [`BackoffConfig::base`].
    pub step: Duration,
    /// The most for an address.
    pub max: Duration,
    /// For a peer of which every address failed (py-libp2p: 300 s).
    pub peer: Duration,
    /// The share by which each of these is made longer or shorter at random, so that peers that lost each other at the
    /// same moment do not call again at the same moment.
    pub jitter: f64,
    /// Most addresses, and most peers, remembered.
    pub capacity: usize,
}

impl Default for BackoffConfig {
    fn default() -> Self {
        Self {
            base: Duration::from_secs(5),
            step: Duration::from_secs(1),
            max: Duration::from_secs(300),
            peer: Duration::from_secs(300),
            jitter: 0.1,
            capacity: 10_000,
        }
    }
}

/// An address that is left alone, or a peer of which every address failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackedOff {
    /// The peer.
    pub peer: PeerId,
    /// The address, without the peer's `/p2p`; `None`: the peer is left alone, whatever the address.
    pub address: Option<Multiaddr>,
    /// Failures in a row.
    pub failures: u32,
    /// Until when it is left alone.
    pub until: Instant,
}

/// What has failed lately.
#[derive(Debug)]
pub struct Backoff {
    config: BackoffConfig,
    rng: Rng,
    addresses: Book<(PeerId, Multiaddr)>,
    peers: Book<PeerId>,
}

impl Backoff {
    /// Nothing has failed yet. `rng` is used up by it alone.
    pub fn new(config: BackoffConfig, rng: Rng) -> Self {
        let capacity = config.capacity;
        Self { config, rng, addresses: Book::new(capacity), peers: Book::new(capacity) }
    }

    /// Until when an address is left alone, if it is.
    pub fn address(&self, peer: PeerId, address: &Multiaddr, now: Instant) -> Option<Instant> {
        self.addresses.until(&(peer, address.clone()), now)
    }

    /// Until when a peer is left alone, if it is.
    pub fn peer(&self, peer: &PeerId, now: Instant) -> Option<Instant> {
        self.peers.until(peer, now)
    }

    /// An address led nowhere.
    pub fn address_failed(&mut self, peer: PeerId, address: Multiaddr, now: Instant) {
        let key = (peer, address);
        let failures = self.addresses.failures(&key).saturating_add(1);
        let squared = failures.saturating_mul(failures);
        let wait = self.config.step.saturating_mul(squared).saturating_add(self.config.base);
        let wait = self.jittered(wait.min(self.config.max));
        self.addresses.set(key, failures, now, wait);
    }

    /// All addresses of a peer led nowhere.
    pub fn peer_failed(&mut self, peer: PeerId, now: Instant) {
        let wait = self.jittered(self.config.peer);
        self.peers.set(peer, 1, now, wait);
    }

    /// A peer was reached, at this address if we dialled it.
    pub fn succeeded(&mut self, peer: PeerId, address: Option<Multiaddr>) {
        self.peers.remove(&peer);
        if let Some(address) = address {
            self.addresses.remove(&(peer, address));
        }
    }

    /// There is something new to try for a peer.
    pub fn renew(&mut self, peer: &PeerId) {
        self.peers.remove(peer);
    }

    /// Forgets that a peer and its addresses failed.
    pub fn forget(&mut self, peer: &PeerId) {
        self.peers.remove(peer);
        let of_peer: Vec<_> = self.addresses.entries.keys().filter(|(p, _)| p == peer).cloned().collect();
        of_peer.iter().for_each(|key| self.addresses.remove(key));
    }

    /// What is left alone at `now`; what ends first comes first.
    pub fn entries(&self, now: Instant) -> Vec<BackedOff> {
        let addresses = self.addresses.entries.iter().map(|((peer, address), entry)| BackedOff {
            peer: *peer,
            address: Some(address.clone()),
            failures: entry.failures,
            until: entry.until,
        });
        let peers = self.peers.entries.iter().map(|(peer, entry)| BackedOff {
            peer: *peer,
            address: None,
            failures: entry.failures,
            until: entry.until,
        });
        let mut entries: Vec<_> = addresses.chain(peers).filter(|entry| entry.until > now).collect();
        entries.sort_by_key(|entry| entry.until);
        entries
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        let capacity = self.config.capacity;
        (self.addresses, self.peers) = (Book::new(capacity), Book::new(capacity));
    }

    /// Addresses and peers remembered.
    pub fn len(&self) -> usize {
        self.addresses.entries.len() + self.peers.entries.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn jittered(&mut self, wait: Duration) -> Duration {
        let jitter = wait.mul_f64(self.config.jitter.clamp(0.0, 1.0));
        self.rng.between(wait.saturating_sub(jitter), wait.saturating_add(jitter))
    }
}

/// Entries by key, the one to be forgotten next first.
#[derive(Debug)]
struct Book<K> {
    entries: BTreeMap<K, Entry>,
    order: BTreeSet<(Instant, K)>,
    capacity: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    failures: u32,
    until: Instant,
    /// Failures count as in a row until as much time again has passed.
    forget: Instant,
}

impl<K: Ord + Clone> Book<K> {
    fn new(capacity: usize) -> Self {
        Self { entries: BTreeMap::new(), order: BTreeSet::new(), capacity }
    }

    fn until(&self, key: &K, now: Instant) -> Option<Instant> {
        self.entries.get(key).map(|entry| entry.until).filter(|until| *until > now)
    }

    fn failures(&self, key: &K) -> u32 {
        self.entries.get(key).map_or(0, |entry| entry.failures)
    }

    fn set(&mut self, key: K, failures: u32, now: Instant, wait: Duration) {
        self.remove(&key);
        while self
            .order
            .first()
            .is_some_and(|(forget, _)| *forget <= now || self.order.len() >= self.capacity.max(1))
        {
            if let Some((_, oldest)) = self.order.pop_first() {
                self.entries.remove(&oldest);
            }
        }
        let until = now + wait;
        let entry = Entry { failures, until, forget: until + wait };
        self.order.insert((entry.forget, key.clone()));
        self.entries.insert(key, entry);
    }

    fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&(entry.forget, key.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn place(n: u16) -> Multiaddr {
        format!("/ip4/192.0.2.1/udp/{n}/quic-v1").parse().unwrap()
    }

    fn peer() -> PeerId {
        let key = libp2p_identity::Keypair::ed25519_from_bytes([7; 32]).unwrap();
        key.public().to_peer_id()
    }

    fn backoff(config: BackoffConfig) -> Backoff {
        Backoff::new(config, Rng::new([1; 32]))
    }

    #[test]
    fn an_address_waits_by_the_square_of_its_failures_give_or_take_a_tenth() {
        let mut backoff = backoff(BackoffConfig::default());
        let (peer, mut now) = (peer(), Instant::ZERO);
        let mut waits = Vec::new();
        for _ in 0..20 {
            backoff.address_failed(peer, place(1), now);
            let until = backoff.address(peer, &place(1), now).unwrap();
            waits.push(until.saturating_duration_since(now).as_secs_f64());
            now = until;
            assert_eq!(backoff.address(peer, &place(1), now), None, "it may be tried again");
        }
        for (n, wait) in (1_u32..).zip(&waits) {
            let exact = f64::from(5 + n * n).min(300.0);
            assert!((0.9 * exact..1.1 * exact).contains(wait), "failure {n}: {wait} s");
        }
        backoff.succeeded(peer, Some(place(1)));
        assert!(backoff.is_empty());
    }

    #[test]
    fn a_failure_long_ago_is_forgotten() {
        let mut backoff = backoff(BackoffConfig { jitter: 0.0, ..BackoffConfig::default() });
        let peer = peer();
        backoff.address_failed(peer, place(1), Instant::ZERO);
        let later = Instant::ZERO + 13 * SECOND;
        backoff.address_failed(peer, place(2), later);
        assert_eq!(backoff.len(), 1, "6 s of waiting, 6 s of remembering");
        backoff.address_failed(peer, place(1), later);
        assert_eq!(backoff.address(peer, &place(1), later), Some(later + 6 * SECOND));
    }

    #[test]
    fn a_peer_is_left_alone_until_it_is_reached_or_has_a_new_address() {
        let mut backoff = backoff(BackoffConfig { jitter: 0.0, ..BackoffConfig::default() });
        let (peer, now) = (peer(), Instant::ZERO);
        backoff.peer_failed(peer, now);
        assert_eq!(backoff.peer(&peer, now), Some(now + 300 * SECOND));
        assert_eq!(backoff.peer(&peer, now + 300 * SECOND), None);
        backoff.renew(&peer);
        assert_eq!(backoff.peer(&peer, now), None);
        backoff.peer_failed(peer, now);
        backoff.succeeded(peer, None);
        assert_eq!(backoff.peer(&peer, now), None);
    }

    #[test]
    fn what_would_be_forgotten_next_makes_room() {
        let mut backoff = backoff(BackoffConfig { capacity: 3, jitter: 0.0, ..BackoffConfig::default() });
        let peer = peer();
        for n in 1..=5 {
            backoff.address_failed(peer, place(n), Instant::ZERO + u32::from(n) * SECOND);
        }
        assert_eq!(backoff.len(), 3);
        let now = Instant::ZERO + 5 * SECOND;
        let left: Vec<_> = (1..=5).filter(|n| backoff.address(peer, &place(*n), now).is_some()).collect();
        assert_eq!(left, [3, 4, 5]);
    }
}
