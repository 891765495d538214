//! In which order the addresses of a peer are tried, and how long each waits for those before it.
//!
//! As go-libp2p's dial ranker and RFC 8305 have it: what is near first, IPv6 and IPv4 in turns, circuits last. All direct
//! addresses are QUIC.

use std::{net::IpAddr, time::Duration};

use multiaddr::{Multiaddr, Protocol};
use peerless_proto::address;

use super::DialConfig;

/// Where an address lies, the nearest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// This machine.
    Loopback,
    /// A network that is not routed on the Internet.
    Private,
    /// The Internet, or a name.
    Public,
    /// Behind a relay.
    Relay,
}

/// Where the address lies.
pub fn reach(address: &Multiaddr) -> Reach {
    if address::is_circuit(address) {
        return Reach::Relay;
    }
    match address::ip_of(address) {
        Some(ip) => ip_reach(ip),
        None => Reach::Public,
    }
}

/// Where an IP address lies.
pub fn ip_reach(ip: IpAddr) -> Reach {
    let ip = ip.to_canonical();
    let is_private = match ip {
        // 100.64.0.0/10 is what carriers use behind their address translation (RFC 6598).
        IpAddr::V4(ip) => {
            ip.is_private() || ip.is_link_local() || (ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64)
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    };
    match (ip.is_loopback(), is_private) {
        (true, _) => Reach::Loopback,
        (_, true) => Reach::Private,
        _ => Reach::Public,
    }
}

/// What is known of an address besides itself, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Worth {
    /// It has led to the peer before.
    Reached,
    /// The peer signed it, or somebody asked for it by name.
    Vouched,
    /// Somebody said so.
    Heard,
}

/// An address to be tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where.
    pub address: Multiaddr,
    /// What is known of it.
    pub worth: Worth,
    /// Whether it was named in the call: never left out, and among equals in the order of the call.
    pub is_named: bool,
    /// Whether a behaviour dials it, as the relay client does circuits: it leads through somebody else.
    pub is_carried: bool,
}

impl Candidate {
    /// Where it lies.
    pub fn reach(&self) -> Reach {
        if self.is_carried { Reach::Relay } else { reach(&self.address) }
    }
}

/// What is known of our own place in the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// A socket of ours has an address on a private network.
    pub has_private: bool,
    /// The peer is on this machine, as one of its addresses is ours.
    pub is_same_machine: bool,
}

/// The candidates in the order in which to try them, each with how long to wait after the one before was started. A
/// loopback address that nobody named and that never led to the peer is left out if there are others, unless the peer is on
/// this machine.
pub fn rank(candidates: Vec<Candidate>, place: Place, config: &DialConfig) -> Vec<(Candidate, Duration)> {
    let only_loopback = candidates.iter().all(|c| c.reach() == Reach::Loopback);
    let mut groups: [Vec<Candidate>; 4] = Default::default();
    for candidate in candidates {
        let reach = candidate.reach();
        let is_ours = candidate.is_named || candidate.worth == Worth::Reached;
        let is_foreign = reach == Reach::Loopback && !is_ours;
        if is_foreign && !only_loopback && !place.is_same_machine {
            continue;
        }
        groups[reach as usize].push(candidate);
    }
    if !place.has_private {
        // Somebody else's private network: it is not likely to be ours.
        groups.swap(Reach::Private as usize, Reach::Public as usize);
    }
    let mut ranked = Vec::new();
    for candidate in groups.into_iter().flat_map(in_turns) {
        let gap = match candidate.reach() {
            _ if ranked.is_empty() => Duration::ZERO,
            Reach::Loopback | Reach::Private => config.private_stagger,
            Reach::Public => config.stagger,
            Reach::Relay => config.relay_delay,
        };
        ranked.push((candidate, gap));
    }
    ranked
}

/// The best first, and the address families in turns: IPv6 first, unless the best is known to be better.
fn in_turns(mut group: Vec<Candidate>) -> Vec<Candidate> {
    group.sort_by_key(|candidate| {
        // A peer behind an address translator is seen at many ports; the lowest is likely to be the one it listens on.
        let port = if candidate.is_named { 0 } else { port(&candidate.address) };
        (candidate.worth, port)
    });
    let is_v6 = |c: &Candidate| matches!(c.address.iter().next(), Some(Protocol::Ip6(_)));
    let best = group.first().map(|best| (best.worth, is_v6(best), best.is_named));
    let (v6, other): (Vec<_>, Vec<_>) = group.into_iter().partition(is_v6);
    let v6_first = match best {
        Some((worth, best_is_v6, is_named)) if !best_is_v6 => {
            !is_named && v6.first().is_some_and(|first| first.worth == worth)
        }
        _ => true,
    };
    let (first, second) = if v6_first { (v6, other) } else { (other, v6) };
    let mut turns = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        match (first.next(), second.next()) {
            (None, None) => return turns,
            (a, b) => turns.extend(a.into_iter().chain(b)),
        }
    }
}

fn port(address: &Multiaddr) -> u16 {
    let port = address.iter().find_map(|part| match part {
        Protocol::Udp(port) | Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    port.unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const R: &str = "/p2p/12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X";

    fn heard(addresses: &[&str]) -> Vec<Candidate> {
        let candidate = |address: &&str| Candidate {
            address: address.parse().unwrap(),
            worth: Worth::Heard,
            is_named: false,
            is_carried: false,
        };
        addresses.iter().map(candidate).collect()
    }

    fn plan(candidates: Vec<Candidate>, place: Place) -> Vec<String> {
        let ranked = rank(candidates, place, &DialConfig::default());
        ranked.iter().map(|(c, gap)| format!("+{:?} {}", gap, c.address)).collect()
    }

    fn quic(ip: &str) -> String {
        let family = if ip.contains(':') { "ip6" } else { "ip4" };
        format!("/{family}/{ip}/udp/4001/quic-v1")
    }

    #[test]
    fn near_before_far_families_in_turns_circuits_last() {
        let relay = format!("{}{R}/p2p-circuit", quic("192.0.2.9"));
        let candidates = heard(&[
            &relay,
            &quic("192.0.2.1"),
            &quic("192.0.2.2"),
            &quic("2001:db8::1"),
            &quic("10.0.0.1"),
            &quic("127.0.0.1"),
        ]);
        let at_home = Place { has_private: true, is_same_machine: false };
        assert_eq!(
            plan(candidates.clone(), at_home),
            [
                "+0ns /ip4/10.0.0.1/udp/4001/quic-v1",
                "+250ms /ip6/2001:db8::1/udp/4001/quic-v1",
                "+250ms /ip4/192.0.2.1/udp/4001/quic-v1",
                "+250ms /ip4/192.0.2.2/udp/4001/quic-v1",
                &format!("+500ms {relay}"),
            ]
        );
        let order = plan(candidates, Place::default());
        assert!(order[0].contains("2001:db8::1") && order[3].starts_with("+30ms /ip4/10.0.0.1"), "{order:?}");
    }

    #[test]
    fn loopback_is_tried_if_it_is_ours_or_named_or_all_there_is() {
        let both = || heard(&[&quic("127.0.0.1"), &quic("192.0.2.1")]);
        assert_eq!(plan(both(), Place::default()).len(), 1);
        let same = Place { is_same_machine: true, has_private: false };
        assert!(plan(both(), same)[0].contains("127.0.0.1"));
        let named = both().into_iter().map(|c| Candidate { is_named: true, ..c }).collect();
        assert_eq!(plan(named, Place::default()).len(), 2);
        let reached = both().into_iter().map(|c| Candidate { worth: Worth::Reached, ..c }).collect();
        assert_eq!(plan(reached, Place::default()).len(), 2);
        assert_eq!(plan(heard(&[&quic("127.0.0.1")]), Place::default()).len(), 1);
    }

    #[test]
    fn what_has_worked_goes_first_and_then_the_lowest_port() {
        let mut candidates = heard(&[
            "/ip4/192.0.2.1/udp/60000/quic-v1",
            "/ip4/192.0.2.1/udp/4001/quic-v1",
            "/ip4/192.0.2.1/udp/50000/quic-v1",
        ]);
        candidates[2].worth = Worth::Reached;
        let ports: Vec<_> = rank(candidates, Place::default(), &DialConfig::default())
            .iter()
            .map(|(c, _)| port(&c.address))
            .collect();
        assert_eq!(ports, [50000, 4001, 60000]);
    }

    #[test]
    fn named_addresses_keep_their_order() {
        let named: Vec<_> = heard(&[&quic("192.0.2.7"), &quic("2001:db8::1"), &quic("192.0.2.3")])
            .into_iter()
            .map(|c| Candidate { is_named: true, worth: Worth::Vouched, ..c })
            .collect();
        let order = plan(named, Place::default());
        assert!(
            order[0].contains("192.0.2.7") && order[1].contains("2001") && order[2].contains("192.0.2.3")
        );
    }

    #[test]
    fn carriers_networks_are_private() {
        for (ip, expected) in [
            ("100.64.0.1", Reach::Private),
            ("100.128.0.1", Reach::Public),
            ("fd00::1", Reach::Private),
            ("::ffff:127.0.0.1", Reach::Loopback),
            ("169.254.1.1", Reach::Private),
        ] {
            assert_eq!(ip_reach(ip.parse().unwrap()), expected, "{ip}");
        }
    }
}
