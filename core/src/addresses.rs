//! Our own addresses: where we listen, where others see us, and the circuits that lead to us.

use std::net::IpAddr;

use multiaddr::Multiaddr;
use peerless_proto::address;

use crate::swarm::dial::rank::{Reach, reach};

/// How we know an address of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum AddressSource {
    /// The embedder says that others reach us there.
    External,
    /// So many peers that have nothing to do with each other see us there that it may be believed.
    Confirmed,
    /// A socket of ours is bound to it.
    Listen,
    /// A relay forwards to us: a circuit address whose reservation is alive.
    Relay,
    /// A peer says that it sees us there. Not advertised: it may be wrong, or a lie.
    Observed,
}

/// Observed addresses kept; more are ignored.
const MAX_OBSERVED: usize = 32;

/// The set of our own addresses, without our `/p2p`, most useful first: by how we know them, and of those what is
/// reachable from everywhere before what is not.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    entries: Vec<(AddressSource, Use, Multiaddr)>,
    revision: u64,
}

impl Addresses {
    /// Adds an address. Returns whether it is new, and so whether what we advertise may have changed.
    pub fn add(&mut self, address: Multiaddr, source: AddressSource) -> bool {
        let entry = (source, Use::of(&address), address);
        let Err(at) = self.entries.binary_search(&entry) else { return false };
        if source == AddressSource::Observed && self.of(source).count() >= MAX_OBSERVED {
            return false;
        }
        self.entries.insert(at, entry);
        self.revision += u64::from(source != AddressSource::Observed);
        true
    }

    /// Withdraws an address. Returns whether it was there.
    pub fn remove(&mut self, address: &Multiaddr, source: AddressSource) -> bool {
        let Some(at) = self.entries.iter().position(|(s, _, a)| *s == source && a == address) else {
            return false;
        };
        self.entries.remove(at);
        self.revision += u64::from(source != AddressSource::Observed);
        true
    }

    /// What we tell others: everything but observed addresses, each once, in a stable order.
    pub fn advertised(&self) -> Vec<Multiaddr> {
        let mut seen = Vec::new();
        for (source, _, address) in &self.entries {
            if *source != AddressSource::Observed && !seen.contains(address) {
                seen.push(address.clone());
            }
        }
        seen
    }

    /// The addresses known from one source.
    pub fn of(&self, source: AddressSource) -> impl Iterator<Item = &Multiaddr> {
        self.entries.iter().filter(move |(s, ..)| *s == source).map(|(.., address)| address)
    }

    /// Grows whenever what we advertise changes.
    pub fn revision(&self) -> u64 {
        self.revision
    }
}

/// How many can use an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    Everybody,
    Neighbours,
    Ourselves,
}

impl Use {
    fn of(address: &Multiaddr) -> Self {
        match reach(address) {
            Reach::Public | Reach::Relay => Self::Everybody,
            Reach::Private => Self::Neighbours,
            Reach::Loopback => Self::Ourselves,
        }
    }
}

/// A part of the network that may fail, or be run, as one: an IPv4 /16 or an IPv6 /32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Site {
    V4([u8; 2]),
    V6([u8; 4]),
}

/// Where an address lies; `None` if it is a name.
pub(crate) fn site(address: &Multiaddr) -> Option<Site> {
    Some(match address::ip_of(address)?.to_canonical() {
        IpAddr::V4(ip) => Site::V4([ip.octets()[0], ip.octets()[1]]),
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.octets();
            Site::V6([a, b, c, d])
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_useful_addresses_are_told_first_whatever_the_order_in_which_they_came() {
        let text = [
            ("/ip4/192.0.2.9/udp/4001/quic-v1", AddressSource::External),
            ("/ip4/192.0.2.8/udp/4001/quic-v1", AddressSource::Confirmed),
            ("/ip4/192.0.2.7/udp/4001/quic-v1", AddressSource::Listen),
            ("/ip4/10.0.0.7/udp/4001/quic-v1", AddressSource::Listen),
            ("/ip4/127.0.0.1/udp/4001/quic-v1", AddressSource::Listen),
        ];
        let all = text.map(|(text, source)| (text.parse::<Multiaddr>().unwrap(), source));
        let expected: Vec<_> = all.iter().map(|(address, _)| address.clone()).collect();
        for turn in 0..all.len() {
            let mut addresses = Addresses::default();
            for n in 0..all.len() {
                let (address, source) = all[(turn + n) % all.len()].clone();
                addresses.add(address, source);
            }
            assert_eq!(addresses.advertised(), expected);
        }
    }

    #[test]
    fn observed_addresses_are_kept_but_not_advertised() {
        let mut addresses = Addresses::default();
        let seen: Multiaddr = "/ip4/192.0.2.1/udp/9/quic-v1".parse().unwrap();
        let bound: Multiaddr = "/ip4/192.0.2.2/udp/4001/quic-v1".parse().unwrap();
        assert!(addresses.add(seen.clone(), AddressSource::Observed));
        assert_eq!((addresses.advertised(), addresses.revision()), (vec![], 0));
        assert!(addresses.add(bound.clone(), AddressSource::Listen));
        assert!(!addresses.add(bound.clone(), AddressSource::Listen));
        assert_eq!((addresses.advertised(), addresses.revision()), (vec![bound.clone()], 1));
        assert!(addresses.remove(&bound, AddressSource::Listen));
        assert!(!addresses.remove(&bound, AddressSource::Listen));
        assert_eq!((addresses.advertised(), addresses.revision()), (vec![], 2));
    }
}
