//! How much of a relay is in use, by whom and from where, and how often who asked of late.

use std::{collections::BTreeMap, net::IpAddr};

use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};

use super::super::limits::{Buckets, Place, RelayLimits};
use crate::time::Instant;

/// What is in use, and the buckets of the rates. Buckets outlive their peers, or a new connection would refill them;
/// they are bounded on their own.
#[derive(Debug, Default)]
pub(super) struct Books {
    pub(super) reservations: Counts<Place>,
    pub(super) circuits: Counts<Party>,
    pub(super) reserving: Asking,
    pub(super) connecting: Asking,
}

impl Books {
    /// Entries of what is in use.
    pub(super) fn len(&self) -> usize {
        self.reservations.0.len() + self.circuits.0.len()
    }

    /// Entries of the rates.
    pub(super) fn buckets(&self) -> usize {
        self.reserving.len() + self.connecting.len()
    }

    /// A reservation was granted anew.
    pub(super) fn spend_reservation(&mut self, limits: &RelayLimits, peer: PeerId, now: Instant) {
        self.reserving.peers.take(limits.reservation_rate_per_peer, peer, now);
    }

    /// A reservation was granted to somebody who had none.
    pub(super) fn spend_new_reservation(&mut self, limits: &RelayLimits, ip: Option<Place>, now: Instant) {
        if let Some(ip) = ip {
            self.reserving.ips.take(limits.reservation_rate_per_ip, ip, now);
        }
    }

    /// A circuit is being set up.
    pub(super) fn spend_circuit(
        &mut self,
        limits: &RelayLimits,
        peer: PeerId,
        ip: Option<Place>,
        now: Instant,
    ) {
        self.connecting.peers.take(limits.circuit_rate_per_peer, peer, now);
        if let Some(ip) = ip {
            self.connecting.ips.take(limits.circuit_rate_per_ip, ip, now);
        }
    }
}

/// Whose circuit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Party {
    /// Who asked for it.
    Source(PeerId),
    /// To whom it leads.
    Target(PeerId),
    /// From where it was asked for.
    From(Place),
}

/// Counts by key; absent is zero.
#[derive(Debug)]
pub(super) struct Counts<K>(BTreeMap<K, usize>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord> Counts<K> {
    pub(super) fn get(&self, key: &K) -> usize {
        self.0.get(key).copied().unwrap_or(0)
    }

    pub(super) fn add(&mut self, keys: impl IntoIterator<Item = K>) {
        for key in keys {
            *self.0.entry(key).or_default() += 1;
        }
    }

    pub(super) fn sub(&mut self, keys: impl IntoIterator<Item = K>) {
        for key in keys {
            let Some(count) = self.0.get_mut(&key) else { continue };
            *count -= 1;
            if *count == 0 {
                self.0.remove(&key);
            }
        }
    }
}

/// The buckets of those who ask for one thing.
#[derive(Debug, Default)]
pub(super) struct Asking {
    peers: Buckets<PeerId>,
    ips: Buckets<Place>,
}

impl Asking {
    /// When the buckets of a peer and of its IP address are full again.
    pub(super) fn full_at(&self, peer: &PeerId, ip: Option<Place>) -> (Instant, Instant) {
        (self.peers.full_at(peer), ip.map(|ip| self.ips.full_at(&ip)).unwrap_or_default())
    }

    fn len(&self) -> usize {
        self.peers.len() + self.ips.len()
    }
}

/// The IP address that a remote is at.
pub(super) fn ip_of(remote: &Multiaddr) -> Option<IpAddr> {
    match remote.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}
