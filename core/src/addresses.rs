//! Our own addresses: where we listen, where others see us, and the circuits that lead to us.

use multiaddr::Multiaddr;

/// How we know an address of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum AddressSource {
    /// The embedder says that others reach us there.
    External,
    /// A socket of ours is bound to it.
    Listen,
    /// A relay forwards to us: a circuit address whose reservation is alive.
    Relay,
    /// A peer says that it sees us there. Not advertised: it may be wrong, or a lie.
    Observed,
}

/// Observed addresses kept; more are ignored.
const MAX_OBSERVED: usize = 32;

/// The set of our own addresses, without our `/p2p`, most useful first.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    entries: Vec<(AddressSource, Multiaddr)>,
    revision: u64,
}

impl Addresses {
    /// Adds an address. Returns whether it is new, and so whether what we advertise may have changed.
    pub fn add(&mut self, address: Multiaddr, source: AddressSource) -> bool {
        let entry = (source, address);
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
        let Some(at) = self.entries.iter().position(|(s, a)| *s == source && a == address) else {
            return false;
        };
        self.entries.remove(at);
        self.revision += u64::from(source != AddressSource::Observed);
        true
    }

    /// What we tell others: everything but observed addresses, each once, in a stable order.
    pub fn advertised(&self) -> Vec<Multiaddr> {
        let mut seen = Vec::new();
        for (source, address) in &self.entries {
            if *source != AddressSource::Observed && !seen.contains(address) {
                seen.push(address.clone());
            }
        }
        seen
    }

    /// The addresses known from one source.
    pub fn of(&self, source: AddressSource) -> impl Iterator<Item = &Multiaddr> {
        self.entries.iter().filter(move |(s, _)| *s == source).map(|(_, address)| address)
    }

    /// Grows whenever what we advertise changes.
    pub fn revision(&self) -> u64 {
        self.revision
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
