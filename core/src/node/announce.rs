//! Our own addresses: what the embedder says of them, and which socket a connection runs over.

use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};
use peerless_proto::address::{self, MAX_ADDR_LEN};

use super::{Node, transport::Via};
use crate::{
    errors::Hostless,
    network::Network,
    swarm::{addresses::AddressSource, hostless},
    time::Instant,
    trace::Glyph,
};

/// Why an address is not announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnnounceError {
    /// It names another peer.
    #[error("it names peer {0}, not this node")]
    OtherPeer(PeerId),
    /// Nobody can be there.
    #[error("{0}")]
    Hostless(Hostless),
    /// It is neither a QUIC address, nor `/dnsaddr/NAME`, nor a circuit.
    #[error(
        "an address to announce looks like /ip4/192.0.2.1/udp/4001/quic-v1 or /dns4/example.org/udp/4001/quic-v1"
    )]
    NotDialable,
    /// It lies in a network of [`Config::no_announce`](super::Config::no_announce).
    #[error("it lies in {0}, whose addresses are not announced")]
    Withheld(Network),
}

/// An address as it is announced: without our own `/p2p`.
///
/// # Errors
/// If nobody could reach `peer` there.
pub fn announceable(address: &Multiaddr, peer: Option<PeerId>) -> Result<Multiaddr, AnnounceError> {
    use Protocol::{Dns, Dns4, Dns6, Dnsaddr, Ip4, Ip6, P2pCircuit, QuicV1, Udp};
    let (place, named) = address::split_peer(address);
    if let (Some(named), Some(peer)) = (named, peer)
        && named != peer
    {
        return Err(AnnounceError::OtherPeer(named));
    }
    if let Some(why) = hostless(&place) {
        return Err(AnnounceError::Hostless(why));
    }
    // IPv4 in IPv6 is IPv4: others could not tell what it is, nor dial it.
    let place: Multiaddr = place
        .iter()
        .map(|part| match part {
            Ip6(ip) => ip.to_ipv4_mapped().map_or(part, Ip4),
            other => other,
        })
        .collect();
    let parts: Vec<_> = place.iter().collect();
    let is_dialable = match parts[..] {
        [Ip4(_) | Ip6(_) | Dns(_) | Dns4(_) | Dns6(_), Udp(_), QuicV1] | [Dnsaddr(_)] => true,
        [.., P2pCircuit] => address::CircuitAddr::parse(&place).is_ok(),
        _ => false,
    };
    if is_dialable && place.len() <= MAX_ADDR_LEN { Ok(place) } else { Err(AnnounceError::NotDialable) }
}

impl Node {
    /// Says that others reach us at an address: a port forwarded to us, a name. It is told to all peers before addresses
    /// found out by ourselves. Our own `/p2p` at its end may be there or not. Returns whether it is new.
    ///
    /// # Errors
    /// If nobody could reach us there, or [`Config::no_announce`](super::Config::no_announce) is against it.
    pub fn add_address(&mut self, now: Instant, address: &Multiaddr) -> Result<bool, AnnounceError> {
        self.advance(now);
        let address = announceable(address, Some(self.local_peer()))?;
        if let Some(network) = self.addresses.withheld(&address) {
            return Err(AnnounceError::Withheld(network));
        }
        self.trace.line(self.now, Glyph::Command, None, || format!("announce {address}"));
        let before = self.addresses.revision();
        self.advertise(address, AddressSource::External);
        self.pump();
        Ok(self.addresses.revision() != before)
    }

    /// Takes back what [`Node::add_address`] said. Returns whether it had been said.
    pub fn remove_address(&mut self, now: Instant, address: &Multiaddr) -> bool {
        self.advance(now);
        let Ok(address) = announceable(address, Some(self.local_peer())) else { return false };
        self.trace.line(self.now, Glyph::Command, None, || format!("announce no more {address}"));
        let before = self.addresses.revision();
        self.withdraw(address, AddressSource::External);
        self.pump();
        self.addresses.revision() != before
    }

    /// Sockets have come or gone, and connections with them.
    pub(super) fn connections_follow_sockets(&mut self) {
        for connection in self.connections.iter().map(|info| info.id).collect::<Vec<_>>() {
            let Some(Via::Quic(id)) = self.transport.links.get(&connection).map(|link| link.via) else {
                continue;
            };
            let socket = self.listening_socket(id);
            self.connections.set_socket(connection, socket);
        }
    }
}
