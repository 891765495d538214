//! What libp2p's addresses say to a QUIC node: sockets, peers and circuits.
//!
//! See the [addressing specification](https://github.com/libp2p/specs/blob/master/addressing/README.md) and, for
//! circuits, [relay](https://github.com/libp2p/specs/blob/master/relay/README.md).

use crate::keys::{PeerId, PeerIdError, parse_peer_id};
use multiaddr::{Multiaddr, Protocol};
use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

/// The longest binary multiaddr accepted, in bytes.
pub const MAX_ADDR_LEN: usize = 1024;

/// The longest text of a multiaddr accepted, in bytes.
pub const MAX_ADDR_TEXT: usize = 4096;

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddrTextError {
    /// The text has more than [`MAX_ADDR_TEXT`] bytes.
    #[error("address of {0} bytes exceeds the limit of {MAX_ADDR_TEXT}")]
    TooLong(usize),
    /// An address begins with a slash.
    #[error("an address begins with a slash, like /ip4/192.0.2.1/udp/4001/quic-v1")]
    NoSlash,
    /// What follows `/p2p` is no peer id.
    #[error("{0:?} is no peer id: {1}")]
    Peer(String, PeerIdError),
    /// Another part is not known, or has a value that it cannot have.
    #[error("not a known address: {0}")]
    Malformed(String),
}

/// Why an address cannot be used so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddrError {
    /// The binary address has more than [`MAX_ADDR_LEN`] bytes.
    #[error("address of {0} bytes exceeds the limit of {MAX_ADDR_LEN}")]
    TooLong(usize),
    /// The bytes are no address, or one with an unknown protocol.
    #[error("not a known multiaddr")]
    Malformed,
    /// The address is not `/ip4|ip6/.../udp/.../quic-v1`, with or without `/p2p/...`.
    #[error("not a QUIC v1 address")]
    NotQuic,
    /// The address names another peer.
    #[error("address is of peer {0}")]
    OtherPeer(PeerId),
    /// The address has no `/p2p-circuit`.
    #[error("not a circuit address")]
    NotCircuit,
    /// There is no `/p2p/...` of the relay before `/p2p-circuit`.
    #[error("circuit address does not name the relay's peer id")]
    NoRelay,
    /// The relay's address has more than one `/p2p/...`.
    #[error("circuit address names more than one relay")]
    ManyRelays,
    /// There is a circuit through a circuit.
    #[error("circuit through a circuit")]
    NestedCircuit,
    /// After `/p2p-circuit` there is something else than one `/p2p/...`.
    #[error("circuit address goes on after its target")]
    AfterTarget,
    /// The relay is its own target.
    #[error("circuit address whose relay is its target")]
    RelayIsTarget,
}

/// Reads a binary multiaddr that came from a peer.
pub fn decode_multiaddr(bytes: Vec<u8>) -> Result<Multiaddr, AddrError> {
    if bytes.len() > MAX_ADDR_LEN {
        return Err(AddrError::TooLong(bytes.len()));
    }
    match Multiaddr::try_from(bytes) {
        Ok(address) if !address.is_empty() => Ok(address),
        _ => Err(AddrError::Malformed),
    }
}

/// Reads an address that somebody wrote. Slashes at its end mean nothing, and peer ids may be CIDs as well as base58 (libp2p
/// specs, peer-ids: both must be read). All text of addresses is read here.
pub fn parse_multiaddr(text: &str) -> Result<Multiaddr, AddrTextError> {
    if text.len() > MAX_ADDR_TEXT {
        return Err(AddrTextError::TooLong(text.len()));
    }
    if !text.starts_with('/') {
        return Err(AddrTextError::NoSlash);
    }
    let mut wrong = None;
    let mut names_peer = false;
    let parts = text.trim_end_matches('/').split('/').map(|part| {
        let is_peer = std::mem::replace(&mut names_peer, matches!(part, "p2p" | "ipfs"));
        match is_peer.then(|| parse_peer_id(part)) {
            Some(Ok(peer)) => Cow::from(peer.to_base58()),
            Some(Err(error)) => {
                wrong.get_or_insert((part, error));
                part.into()
            }
            None => part.into(),
        }
    });
    let text = parts.collect::<Vec<_>>().join("/");
    text.parse().map_err(|error: multiaddr::Error| match wrong {
        // If the address can be read after all, it was the name of something else.
        Some((part, error)) => AddrTextError::Peer(part.into(), error),
        None => AddrTextError::Malformed(error.to_string()),
    })
}

/// The QUIC v1 address of a socket. An IPv6 scope is not part of it.
pub fn quic_v1(socket: SocketAddr) -> Multiaddr {
    Multiaddr::from(socket.ip()).with(Protocol::Udp(socket.port())).with(Protocol::QuicV1)
}

/// Reads `/ip4|ip6/IP/udp/PORT/quic-v1`, with or without `/p2p/PEER`. An IPv4 address written as an IPv6 one
/// (`::ffff:192.0.2.1`) is that IPv4 address: no packet can be sent to it over IPv6 (RFC 4291 section 2.5.5.2).
pub fn parse_quic_v1(address: &Multiaddr) -> Result<(SocketAddr, Option<PeerId>), AddrError> {
    let mut parts = address.iter();
    let ip = match parts.next() {
        Some(Protocol::Ip4(ip)) => IpAddr::from(ip),
        Some(Protocol::Ip6(ip)) => ip.to_canonical(),
        _ => return Err(AddrError::NotQuic),
    };
    let (Some(Protocol::Udp(port)), Some(Protocol::QuicV1)) = (parts.next(), parts.next()) else {
        return Err(AddrError::NotQuic);
    };
    match (parts.next(), parts.next()) {
        (None, _) => Ok((SocketAddr::new(ip, port), None)),
        (Some(Protocol::P2p(peer)), None) => Ok((SocketAddr::new(ip, port), Some(peer))),
        _ => Err(AddrError::NotQuic),
    }
}

/// The address with `/p2p/PEER` at its end, once.
pub fn with_peer(address: Multiaddr, peer: PeerId) -> Result<Multiaddr, AddrError> {
    match address.iter().last() {
        Some(Protocol::P2p(found)) if found == peer => Ok(address),
        Some(Protocol::P2p(found)) => Err(AddrError::OtherPeer(found)),
        _ => Ok(address.with(Protocol::P2p(peer))),
    }
}

/// The address without the `/p2p/PEER` at its end, and that peer. Of a circuit address this is the target.
pub fn split_peer(address: &Multiaddr) -> (Multiaddr, Option<PeerId>) {
    let mut rest = address.clone();
    match rest.pop() {
        Some(Protocol::P2p(peer)) => (rest, Some(peer)),
        _ => (address.clone(), None),
    }
}

/// The IP address at the start, IPv4 if it is an IPv4 address written as an IPv6 one. Of a circuit address this is the
/// relay's.
pub fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => Some(ip.into()),
        Some(Protocol::Ip6(ip)) => Some(ip.to_canonical()),
        _ => None,
    }
}

/// Whether the address leads through a relay.
pub fn is_circuit(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

/// An address through a relay: `RELAY-ADDRESS/p2p/RELAY/p2p-circuit[/p2p/TARGET]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CircuitAddr {
    /// How to reach the relay, without its `/p2p/...`. Empty if the address does not say.
    pub relay_addr: Multiaddr,
    /// The relay.
    pub relay: PeerId,
    /// The peer behind it; `None` in an address on which to listen.
    pub target: Option<PeerId>,
}

impl CircuitAddr {
    /// Reads a circuit address.
    pub fn parse(address: &Multiaddr) -> Result<Self, AddrError> {
        match address.iter().filter(|part| *part == Protocol::P2pCircuit).count() {
            0 => return Err(AddrError::NotCircuit),
            1 => {}
            _ => return Err(AddrError::NestedCircuit),
        }
        let mut parts = address.iter();
        let before = parts.by_ref().take_while(|part| *part != Protocol::P2pCircuit).collect();
        let target = match (parts.next(), parts.next()) {
            (None, _) => None,
            (Some(Protocol::P2p(target)), None) => Some(target),
            _ => return Err(AddrError::AfterTarget),
        };
        let (relay_addr, relay) = split_peer(&before);
        let relay = relay.ok_or(AddrError::NoRelay)?;
        if relay_addr.iter().any(|part| matches!(part, Protocol::P2p(_))) {
            return Err(AddrError::ManyRelays);
        }
        if target == Some(relay) {
            return Err(AddrError::RelayIsTarget);
        }
        Ok(Self { relay_addr, relay, target })
    }

    /// The relay's own address, with its peer id.
    pub fn relay_with_peer(&self) -> Multiaddr {
        self.relay_addr.clone().with(Protocol::P2p(self.relay))
    }
}

impl From<CircuitAddr> for Multiaddr {
    fn from(circuit: CircuitAddr) -> Self {
        let address = circuit.relay_with_peer().with(Protocol::P2pCircuit);
        match circuit.target {
            Some(target) => address.with(Protocol::P2p(target)),
            None => address,
        }
    }
}

#[cfg(test)]
mod tests;
