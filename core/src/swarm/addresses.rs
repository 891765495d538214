//! Our own addresses: where we listen, where others see us, and the circuits that lead to us.

use std::net::IpAddr;

use multiaddr::Multiaddr;
use peerless_proto::address;

use crate::{
    network::Network,
    swarm::dial::rank::{Reach, ip_reach},
};

/// How we know an address of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum AddressSource {
    /// The embedder says that others reach us there ([`Node::add_address`](crate::node::Node::add_address)).
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

/// Who is told of an address: whoever reaches us from where it can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Audience {
    /// Peers on the Internet: no private and no loopback addresses.
    World,
    /// Peers on a private network: no loopback addresses.
    Site,
    /// Peers on this machine: all addresses.
    Machine,
}

impl Audience {
    /// All of them, those that are told less first.
    pub const ALL: [Self; 3] = [Self::World, Self::Site, Self::Machine];

    /// Who a peer is that is connected from there; through a relay it is as far away as the relay.
    pub fn at(remote: &Multiaddr) -> Self {
        match address::ip_of(remote).map_or(Reach::Public, ip_reach) {
            Reach::Loopback => Self::Machine,
            Reach::Private => Self::Site,
            Reach::Public | Reach::Relay => Self::World,
        }
    }
}

/// In which order addresses are told, and how many of each source before any that is beyond these: messages have room for
/// some, and no source may crowd out another.
const ORDER: [(AddressSource, usize); 4] = [
    (AddressSource::External, 8),
    (AddressSource::Confirmed, 6),
    (AddressSource::Listen, 12),
    (AddressSource::Relay, 8),
];

/// The set of our own addresses, without our `/p2p`, most useful first: by how we know them, and of those what is
/// reachable from everywhere before what is not.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    entries: Vec<(AddressSource, Audience, Multiaddr)>,
    withheld: Vec<Network>,
    revision: u64,
}

impl Addresses {
    /// None yet; those in these networks will be told to nobody.
    pub fn withholding(networks: Vec<Network>) -> Self {
        Self { withheld: networks, ..Self::default() }
    }

    /// Adds an address. Returns whether it is new, and so whether what we advertise may have changed.
    pub fn add(&mut self, address: Multiaddr, source: AddressSource) -> bool {
        // Who can use it is told of it; what the embedder says is for everybody.
        let audience = match source {
            AddressSource::External => Audience::World,
            _ => Audience::at(&address),
        };
        let entry = (source, audience, address);
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

    /// What we tell others: everything but observed addresses and those withheld, each once, in a stable order. Peers
    /// elsewhere are told a part of it; see [`Addresses::told_to`].
    pub fn advertised(&self) -> Vec<Multiaddr> {
        self.told_to(Audience::Machine)
    }

    /// What we tell peers that are there, in the order in which to drop from the end what has no room: some from each
    /// source, what the embedder says before what is confirmed, bound and relayed; then the rest in the same order.
    pub fn told_to(&self, audience: Audience) -> Vec<Multiaddr> {
        let (mut told, mut rest): (Vec<&Multiaddr>, Vec<&Multiaddr>) = Default::default();
        for (source, quota) in ORDER {
            let mut taken = 0;
            let of_source = self.entries.iter().filter(|(of, for_whom, address)| {
                *of == source && *for_whom <= audience && self.withheld(address).is_none()
            });
            for (.., address) in of_source {
                if told.contains(&address) {
                    continue;
                }
                let list = if taken < quota { &mut told } else { &mut rest };
                list.push(address);
                taken += 1;
            }
        }
        for address in rest {
            if !told.contains(&address) {
                told.push(address);
            }
        }
        told.into_iter().cloned().collect()
    }

    /// The network for which an address is told to nobody, if it lies in one; a circuit lies where its relay is.
    pub fn withheld(&self, address: &Multiaddr) -> Option<Network> {
        let ip = address::ip_of(address)?;
        self.withheld.iter().find(|network| network.contains(ip)).copied()
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
    fn each_peer_is_told_what_it_can_use_from_where_it_is() {
        let address = |text: &str| text.parse::<Multiaddr>().unwrap();
        let relay = "/p2p/12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X/p2p-circuit";
        let mut addresses = Addresses::withholding(vec!["172.16.0.0/12".parse().unwrap()]);
        for (ip, source) in [
            ("/ip4/10.9.9.9", AddressSource::External),
            ("/ip4/192.0.2.7", AddressSource::Listen),
            ("/ip4/10.0.0.7", AddressSource::Listen),
            ("/ip4/172.17.0.1", AddressSource::Listen),
            ("/ip4/127.0.0.1", AddressSource::Listen),
            ("/ip6/::1", AddressSource::Listen),
        ] {
            addresses.add(address(&format!("{ip}/udp/4001/quic-v1")), source);
        }
        for ip in ["/ip4/192.0.2.9", "/ip4/10.0.0.9", "/ip4/127.0.0.9", "/ip4/172.17.0.9"] {
            addresses.add(address(&format!("{ip}/udp/4001/quic-v1{relay}")), AddressSource::Relay);
        }
        let told = |remote: &str| {
            let told = addresses.told_to(Audience::at(&address(&format!("{remote}/udp/1/quic-v1"))));
            let host = |address: &Multiaddr| address.to_string().split('/').nth(2).unwrap().to_owned();
            told.iter().map(host).collect::<Vec<_>>()
        };
        assert_eq!(told("/ip4/203.0.113.1"), ["10.9.9.9", "192.0.2.7", "192.0.2.9"]);
        assert_eq!(told("/ip4/192.168.3.1"), ["10.9.9.9", "192.0.2.7", "10.0.0.7", "192.0.2.9", "10.0.0.9"]);
        assert_eq!(
            told("/ip6/::1"),
            ["10.9.9.9", "192.0.2.7", "10.0.0.7", "127.0.0.1", "::1", "192.0.2.9", "10.0.0.9", "127.0.0.9"]
        );
    }

    #[test]
    fn no_source_crowds_out_another() {
        let mut addresses = Addresses::default();
        for (net, source) in
            [("1", AddressSource::Confirmed), ("2", AddressSource::Listen), ("3", AddressSource::Relay)]
        {
            for n in 1..=20 {
                addresses.add(format!("/ip4/81.{net}.0.{n}/udp/1/quic-v1").parse().unwrap(), source);
            }
        }
        let told = addresses.advertised();
        let first = |net: &str| {
            let is_it = |address: &&Multiaddr| address.to_string().starts_with(&format!("/ip4/81.{net}."));
            told[..6 + 12 + 8].iter().filter(is_it).count()
        };
        assert_eq!((first("1"), first("2"), first("3"), told.len()), (6, 12, 8, 60));
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
