//! Addresses that do not lead to one host from everywhere: IANA's registries of special-purpose addresses (RFC 6890), as of
//! 2025, and multicast. And those that lead to no host at all.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use multiaddr::{Multiaddr, Protocol};
use smallvec::{SmallVec, smallvec};

use crate::{errors::Hostless, network::Network};

/// A network and whether it is reachable from everywhere. Where the registry says neither yes nor no, it is not.
type Row<A> = (A, u8, bool);

const NOT: bool = false;
const GLOBAL: bool = true;

const fn v4(a: u8, b: u8, c: u8, d: u8) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, d)
}

const fn v6(a: u16, b: u16, c: u16, d: u16, h: u16) -> Ipv6Addr {
    Ipv6Addr::new(a, b, c, d, 0, 0, 0, h)
}

/// The smallest network that an address is in decides.
const V4: &[Row<Ipv4Addr>] = &[
    (v4(0, 0, 0, 0), 8, NOT),          // this network
    (v4(10, 0, 0, 0), 8, NOT),         // private use
    (v4(100, 64, 0, 0), 10, NOT),      // shared address space of carriers' NATs
    (v4(127, 0, 0, 0), 8, NOT),        // loopback
    (v4(169, 254, 0, 0), 16, NOT),     // link-local
    (v4(172, 16, 0, 0), 12, NOT),      // private use
    (v4(192, 0, 0, 0), 24, NOT),       // protocol assignments, DS-Lite, NAT64 discovery
    (v4(192, 0, 0, 9), 32, GLOBAL),    // Port Control Protocol anycast
    (v4(192, 0, 0, 10), 32, GLOBAL),   // TURN anycast
    (v4(192, 0, 2, 0), 24, NOT),       // documentation
    (v4(192, 31, 196, 0), 24, GLOBAL), // AS112
    (v4(192, 52, 193, 0), 24, GLOBAL), // AMT
    (v4(192, 88, 99, 0), 24, NOT),     // deprecated 6to4 relay anycast
    (v4(192, 168, 0, 0), 16, NOT),     // private use
    (v4(192, 175, 48, 0), 24, GLOBAL), // AS112 delegation
    (v4(198, 18, 0, 0), 15, NOT),      // benchmarking
    (v4(198, 51, 100, 0), 24, NOT),    // documentation
    (v4(203, 0, 113, 0), 24, NOT),     // documentation
    (v4(224, 0, 0, 0), 4, NOT),        // multicast
    (v4(240, 0, 0, 0), 4, NOT),        // reserved, limited broadcast
];

const V6: &[Row<Ipv6Addr>] = &[
    (v6(0, 0, 0, 0, 0), 128, NOT),                // unspecified
    (v6(0, 0, 0, 0, 1), 128, NOT),                // loopback
    (v6(0x64, 0xff9b, 0, 0, 0), 96, GLOBAL),      // NAT64; the IPv4 address inside is judged as well
    (v6(0x64, 0xff9b, 1, 0, 0), 48, NOT),         // local-use NAT64
    (v6(0x100, 0, 0, 0, 0), 64, NOT),             // discard-only
    (v6(0x100, 0, 0, 1, 0), 64, NOT),             // dummy prefix
    (v6(0x2001, 0, 0, 0, 0), 23, NOT),            // protocol assignments, among them Teredo and benchmarking
    (v6(0x2001, 1, 0, 0, 1), 128, GLOBAL),        // Port Control Protocol anycast
    (v6(0x2001, 1, 0, 0, 2), 128, GLOBAL),        // TURN anycast
    (v6(0x2001, 1, 0, 0, 3), 128, GLOBAL),        // service registration anycast
    (v6(0x2001, 3, 0, 0, 0), 32, GLOBAL),         // AMT
    (v6(0x2001, 4, 0x112, 0, 0), 48, GLOBAL),     // AS112
    (v6(0x2001, 0x20, 0, 0, 0), 28, GLOBAL),      // ORCHIDv2
    (v6(0x2001, 0x30, 0, 0, 0), 28, GLOBAL),      // drone remote identification
    (v6(0x2001, 0xdb8, 0, 0, 0), 32, NOT),        // documentation
    (v6(0x2002, 0, 0, 0, 0), 16, NOT),            // 6to4
    (v6(0x2620, 0x4f, 0x8000, 0, 0), 48, GLOBAL), // AS112 delegation
    (v6(0x3fff, 0, 0, 0, 0), 20, NOT),            // documentation
    (v6(0x5f00, 0, 0, 0, 0), 16, NOT),            // segment routing
    (v6(0xfc00, 0, 0, 0, 0), 7, NOT),             // unique-local
    (v6(0xfe80, 0, 0, 0, 0), 10, NOT),            // link-local
    (v6(0xff00, 0, 0, 0, 0), 8, NOT),             // multicast
];

/// Why an address leads to no host, if it does not; of a circuit's the relay's. A name may lead to one.
pub fn hostless(address: &Multiaddr) -> Option<Hostless> {
    let mut parts = address.iter();
    let of_host = match parts.next()? {
        Protocol::Ip4(ip) => hostless_ip(ip.into()),
        Protocol::Ip6(ip) => hostless_ip(ip.into()),
        Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) | Protocol::Dnsaddr(name) => {
            (!is_name(&name)).then_some(Hostless::Name)
        }
        _ => None,
    };
    of_host.or_else(|| match parts.next()? {
        Protocol::Udp(0) | Protocol::Tcp(0) => Some(Hostless::Port),
        _ => None,
    })
}

/// Whether a name is one as far as its length goes (RFC 1035, section 2.3.4).
fn is_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() <= 253 && name.split('.').all(|label| (1..=63).contains(&label.len()))
}

fn hostless_ip(ip: IpAddr) -> Option<Hostless> {
    faces(ip).into_iter().find_map(|face| match face {
        ip if ip.is_unspecified() => Some(Hostless::Unspecified),
        ip if ip.is_multicast() => Some(Hostless::Multicast),
        IpAddr::V4(ip) => match ip.octets() {
            [0, ..] => Some(Hostless::Unspecified),
            _ if ip.is_broadcast() => Some(Hostless::Broadcast),
            [(240..), ..] => Some(Hostless::Reserved),
            _ => None,
        },
        IpAddr::V6(ip) => ip.is_unicast_link_local().then_some(Hostless::LinkLocal),
    })
}

/// The network for which `ip` is not reachable from everywhere, if it is not.
pub(crate) fn not_global(ip: IpAddr) -> Option<Network> {
    fn decisive<A: Copy + Into<IpAddr>>(rows: &[Row<A>], ip: IpAddr) -> Option<Network> {
        let networks = rows
            .iter()
            .filter_map(|(first, length, global)| Some((Network::new((*first).into(), *length)?, *global)));
        let (network, global) = networks
            .filter(|(network, _)| network.contains(ip))
            .max_by_key(|(network, _)| network.length())?;
        (!global).then_some(network)
    }
    match ip.to_canonical() {
        ip @ IpAddr::V4(_) => decisive(V4, ip),
        ip @ IpAddr::V6(_) => decisive(V6, ip),
    }
}

/// All addresses that packets to `ip` may end at: itself, and the IPv4 address inside an IPv6 address of NAT64 (RFC 6052)
/// or 6to4 (RFC 3056).
pub(crate) fn faces(ip: IpAddr) -> SmallVec<[IpAddr; 2]> {
    let ip = ip.to_canonical();
    let mut faces = smallvec![ip];
    if let IpAddr::V6(v6) = ip {
        let inside = match v6.segments() {
            [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(v6.to_bits() as u32),
            [0x2002, ..] => Some((v6.to_bits() >> 80) as u32),
            _ => None,
        };
        faces.extend(inside.map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))));
    }
    faces
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn every_row_holds_from_its_first_address_to_its_last() {
        for (first, length, global) in V4 {
            let last =
                Ipv4Addr::from_bits(first.to_bits() | u32::MAX.checked_shr((*length).into()).unwrap_or(0));
            for ip in [*first, last] {
                assert_eq!(not_global(ip.into()).is_none(), *global, "{ip}");
                assert_eq!(not_global(ip.to_ipv6_mapped().into()).is_none(), *global, "mapped {ip}");
            }
        }
        for (first, length, global) in V6 {
            let last =
                Ipv6Addr::from_bits(first.to_bits() | u128::MAX.checked_shr((*length).into()).unwrap_or(0));
            for ip in [*first, last] {
                assert_eq!(not_global(ip.into()).is_none(), *global, "{ip}");
            }
        }
    }

    #[test]
    fn what_lies_beside_a_row_is_reachable() {
        for text in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.0.3.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:200::",
            "2001:db9::",
            "2003::",
            "2606:4700::1111",
            "fbff::",
            "64:ff9b::1.1.1.1",
        ] {
            assert_eq!(not_global(ip(text)), None, "{text}");
        }
    }

    #[test]
    fn some_addresses_lead_to_no_host() {
        let why = |text: &str| hostless(&text.parse().unwrap());
        for (host, expected) in [
            ("/ip4/0.0.0.0", Some(Hostless::Unspecified)),
            ("/ip4/0.1.2.3", Some(Hostless::Unspecified)),
            ("/ip6/::", Some(Hostless::Unspecified)),
            ("/ip4/223.255.255.255", None),
            ("/ip4/224.0.0.1", Some(Hostless::Multicast)),
            ("/ip4/239.255.255.250", Some(Hostless::Multicast)),
            ("/ip6/ff02::1", Some(Hostless::Multicast)),
            ("/ip4/240.0.0.1", Some(Hostless::Reserved)),
            ("/ip4/255.255.255.254", Some(Hostless::Reserved)),
            ("/ip4/255.255.255.255", Some(Hostless::Broadcast)),
            ("/ip6/::ffff:224.0.0.1", Some(Hostless::Multicast)),
            ("/ip6/::ffff:192.0.2.1", None),
            ("/ip6/64:ff9b::224.0.0.1", Some(Hostless::Multicast)),
            ("/ip4/127.0.0.1", None),
            ("/ip4/192.0.2.1", None),
            ("/ip6/::1", None),
            ("/ip6/2001:db8::1", None),
            ("/dns4/example.org", None),
        ] {
            assert_eq!(why(&format!("{host}/udp/4001/quic-v1")), expected, "{host}");
            let port = expected.or(Some(Hostless::Port));
            assert_eq!(why(&format!("{host}/udp/0/quic-v1")), port, "{host}");
        }
        assert_eq!(why("/dnsaddr/example.org"), None);
        let long = format!("{}.{}", "a".repeat(63), "b.".repeat(90));
        for (name, is_right) in [
            ("", false),
            (".", false),
            ("a..b", false),
            (&"a".repeat(64), false),
            (&"a.".repeat(128), false),
            (&long, true),
            ("example.org.", true),
            ("xn--bcher-kva.example", true),
        ] {
            let name = || Cow::Owned(name.to_owned());
            for part in [
                Protocol::Dns(name()),
                Protocol::Dns4(name()),
                Protocol::Dns6(name()),
                Protocol::Dnsaddr(name()),
            ] {
                let why = hostless(&Multiaddr::from_iter([part.clone()]));
                assert_eq!(why.is_none(), is_right, "{part}");
            }
        }
        let relay = "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X";
        let through = format!("/ip4/224.0.0.1/udp/1/quic-v1/p2p/{relay}/p2p-circuit");
        assert_eq!(why(&through), Some(Hostless::Multicast));
        assert_eq!(why(&format!("/p2p/{relay}/p2p-circuit")), None);
    }

    #[test]
    fn an_ipv4_address_inside_an_ipv6_address_is_seen() {
        assert_eq!(faces(ip("64:ff9b::10.1.2.3"))[1..], [ip("10.1.2.3")]);
        assert_eq!(faces(ip("2002:0a01:0203::1"))[1..], [ip("10.1.2.3")]);
        assert_eq!(faces(ip("::ffff:10.1.2.3"))[..], [ip("10.1.2.3")]);
        assert_eq!(faces(ip("2001:db8::1")).len(), 1);
    }
}
