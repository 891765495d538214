//! Networks: an IP address and how much of it counts.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// All IP addresses with the same first bits (CIDR notation, RFC 4632). A single address is a network of one. IPv4 in IPv6
/// (`::ffff:0:0/96`) is IPv4.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    first: IpAddr,
    length: u8,
}

impl Network {
    /// The network of the addresses that share their first `length` bits with `ip`; `None` if it has fewer bits than that.
    pub const fn new(ip: IpAddr, length: u8) -> Option<Self> {
        let first = match ip {
            IpAddr::V4(_) if length > 32 => return None,
            IpAddr::V6(_) if length > 128 => return None,
            IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & mask(length, 32) as u32)),
            IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
                Some(_) if length < 96 => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask(length, 128))),
                Some(ip) => return Self::new(IpAddr::V4(ip), length - 96),
                None => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask(length, 128))),
            },
        };
        Some(Self { first, length })
    }

    /// The network of one address.
    pub fn single(ip: IpAddr) -> Self {
        let first = ip.to_canonical();
        Self { first, length: if first.is_ipv4() { 32 } else { 128 } }
    }

    /// Whether `ip` is in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.first, ip.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(ip)) => {
                (first.to_bits() ^ ip.to_bits()) & mask(self.length, 32) as u32 == 0
            }
            (IpAddr::V6(first), IpAddr::V6(ip)) => {
                (first.to_bits() ^ ip.to_bits()) & mask(self.length, 128) == 0
            }
            _ => false,
        }
    }

    /// Its first address.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// How many bits its addresses share.
    pub fn length(&self) -> u8 {
        self.length
    }

    fn kind(&self) -> (bool, u8) {
        (self.first.is_ipv6(), self.length)
    }
}

/// The `length` highest of the lowest `width` bits.
const fn mask(length: u8, width: u8) -> u128 {
    if length == 0 {
        return 0;
    }
    (u128::MAX >> (128 - width)) & (u128::MAX << (width - length))
}

/// Values by network, of which the smallest that an address is in is found. A look-up takes as many steps as there are
/// different lengths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetworkMap<T> {
    values: BTreeMap<Network, T>,
    /// How many there are by width of the address and length, to look for no others.
    lengths: BTreeMap<(bool, u8), usize>,
}

impl<T> Default for NetworkMap<T> {
    fn default() -> Self {
        Self { values: BTreeMap::new(), lengths: BTreeMap::new() }
    }
}

impl<T> NetworkMap<T> {
    /// Sets the value of a network. Returns whether there was none.
    pub(crate) fn insert(&mut self, network: Network, value: T) -> bool {
        let is_new = self.values.insert(network, value).is_none();
        if is_new {
            *self.lengths.entry(network.kind()).or_default() += 1;
        }
        is_new
    }

    /// Removes a network. Returns whether it was there.
    pub(crate) fn remove(&mut self, network: &Network) -> bool {
        let was_there = self.values.remove(network).is_some();
        if was_there && let Some(count) = self.lengths.get_mut(&network.kind()) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&network.kind());
            }
        }
        was_there
    }

    /// The smallest network that `ip` is in, and its value.
    pub(crate) fn find(&self, ip: IpAddr) -> Option<(Network, &T)> {
        let ip = ip.to_canonical();
        let is_v6 = ip.is_ipv6();
        let mut lengths = self.lengths.range((is_v6, 0)..=(is_v6, u8::MAX)).rev();
        lengths.find_map(|((_, length), _)| {
            let (network, value) = self.values.get_key_value(&Network::new(ip, *length)?)?;
            Some((*network, value))
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

impl FromIterator<Network> for NetworkMap<()> {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> Self {
        let mut map = Self::default();
        for network in networks {
            map.insert(network, ());
        }
        map
    }
}

/// Why a text is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a network is an IP address, or one followed by a slash and how many of its bits count, like 192.0.2.0/24"
)]
pub struct NotANetwork;

/// An address alone, or with a slash and a length. Bits beyond the length must be zero: `192.0.2.1/24` is more likely a
/// slip than a network.
impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let Some((ip, length)) = text.split_once('/') else {
            return text.parse().map(Self::single).map_err(|_| NotANetwork);
        };
        if !length.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NotANetwork);
        }
        let ip: IpAddr = ip.parse().map_err(|_| NotANetwork)?;
        let length: u8 = length.parse().map_err(|_| NotANetwork)?;
        Self::new(ip, length).filter(|network| network.first == ip.to_canonical()).ok_or(NotANetwork)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.length)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_holds_what_shares_its_bits() {
        for (net, inside, outside) in [
            ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("10.0.0.0/9", "10.127.255.255", "10.128.0.0"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::/0", "ffff::", "1.2.3.4"),
            ("fe80::1", "fe80::1", "fe80::2"),
        ] {
            assert!(network(net).contains(ip(inside)), "{inside} in {net}");
            assert!(!network(net).contains(ip(outside)), "{outside} not in {net}");
        }
    }

    #[test]
    fn ipv4_in_ipv6_is_ipv4() {
        assert!(network("192.0.2.0/24").contains(ip("::ffff:192.0.2.7")));
        assert!(network("::ffff:192.0.2.0/120").contains(ip("192.0.2.7")));
        assert_eq!(network("::ffff:192.0.2.0/120"), network("192.0.2.0/24"));
        assert_eq!(network("::ffff:192.0.2.1").to_string(), "192.0.2.1/32");
    }

    #[test]
    fn the_smallest_network_is_found_as_long_as_it_is_there() {
        let mut map = NetworkMap::default();
        let texts = ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "::/0", "2001:db8::/32"];
        for text in texts {
            assert!(map.insert(network(text), text));
            assert!(!map.insert(network(text), text));
        }
        let found = |map: &NetworkMap<&'static str>, at| map.find(ip(at)).map(|(_, value)| *value);
        assert_eq!(found(&map, "10.1.2.3"), Some("10.1.2.3"));
        assert_eq!(found(&map, "::ffff:10.1.2.4"), Some("10.1.0.0/16"));
        assert_eq!(found(&map, "10.2.0.0"), Some("10.0.0.0/8"));
        assert_eq!(found(&map, "11.0.0.0"), Some("0.0.0.0/0"));
        assert_eq!(found(&map, "2001:db8::1"), Some("2001:db8::/32"));
        assert!(map.remove(&network("10.1.0.0/16")) && !map.remove(&network("10.1.0.0/16")));
        assert_eq!(found(&map, "10.1.9.9"), Some("10.0.0.0/8"));
        for text in texts {
            map.remove(&network(text));
        }
        assert!(map.is_empty() && map.lengths.is_empty() && map.find(ip("10.1.2.3")).is_none());
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "192.0.2.0/33",
            "2001:db8::/129",
            "192.0.2.1/24",
            "192.0.2/24",
            "192.0.2.0/",
            "x",
            "/8",
            "1.2.3.4/+8",
        ] {
            assert_eq!(text.parse::<Network>(), Err(NotANetwork), "{text:?}");
        }
        for text in ["192.0.2.0/24", "2001:db8::/32", "192.0.2.1/32", "0.0.0.0/0"] {
            assert_eq!(network(text).to_string(), text);
        }
    }
}
