//! The sockets, and what follows when they, or their addresses, come and go.

use std::net::{IpAddr, SocketAddr};

use multiaddr::Multiaddr;
use peerless_proto::address;

use super::{Bound, Node, pump::Work};
use crate::{behaviour::Input, ids::SocketId, swarm::addresses::AddressSource, time::Instant};

impl Node {
    /// A socket is there (also: has other addresses than before), or is gone.
    ///
    /// If one has an address that it did not have, a network may be back: whoever is to be kept, and reservations and
    /// registrations that failed, are tried at once, and no address is left alone any more because it led nowhere before.
    pub fn handle_socket(&mut self, now: Instant, socket: SocketId, bound: Option<Bound>) {
        self.advance(now);
        self.transport.quic.handle_socket(self.now, socket, bound.as_ref().map(|b| b.local));
        let old = match &bound {
            Some(bound) => self.sockets.insert(socket, bound.clone()),
            None => self.sockets.remove(&socket),
        };
        self.connections_follow_sockets();
        let (before, after) = (own_ips(old.as_ref()), own_ips(bound.as_ref()));
        if before.iter().any(|ip| !after.contains(ip)) {
            self.transport.quic.addresses_changed(self.now, socket);
        }
        if after.iter().any(|ip| !before.contains(ip)) {
            self.counters.add("network.addresses_gained", u64::from(old.is_some()));
            self.network_is_back();
        }
        if self.accept_inbound {
            let (old, new) = (listen_addresses(old.as_ref()), listen_addresses(bound.as_ref()));
            for address in old.iter().filter(|a| !new.contains(a)) {
                self.withdraw(address.clone(), AddressSource::Listen);
            }
            for address in new {
                self.advertise(address, AddressSource::Listen);
            }
        }
        self.pump();
    }

    /// What failed may have failed for want of a network.
    fn network_is_back(&mut self) {
        self.dialing.network_is_back();
        self.auto_connect.network_is_back(self.now);
        for index in 0..self.behaviours.len() {
            self.work.push_back(Work::Input(index, Input::Network));
        }
        self.auto_connect();
    }
}

/// The addresses by which packets of a socket may reach others.
fn own_ips(bound: Option<&Bound>) -> Vec<IpAddr> {
    let Some(bound @ Bound { local, reachable }) = bound else { return Vec::new() };
    let all =
        if local.ip().is_unspecified() { reachable.clone() } else { fixed(bound).into_iter().collect() };
    let is_own = |ip: &IpAddr| {
        // Every interface has one of IPv6; one of IPv4 is a network without a DHCP server (RFC 3927).
        let is_link_local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        ip.is_ipv4() == local.is_ipv4() && !ip.is_unspecified() && !ip.is_loopback() && !is_link_local
    };
    all.into_iter().filter(is_own).collect()
}

/// The one address that a socket is bound to, if the machine has it.
fn fixed(Bound { local, reachable }: &Bound) -> Option<IpAddr> {
    Some(local.ip()).filter(|ip| reachable.is_empty() || reachable.contains(ip))
}

/// The addresses by which a socket can be reached.
fn listen_addresses(bound: Option<&Bound>) -> Vec<Multiaddr> {
    let Some(bound @ Bound { local, reachable }) = bound else { return Vec::new() };
    if !local.ip().is_unspecified() {
        return fixed(bound).map(|_| address::quic_v1(*local)).into_iter().collect();
    }
    // A link-local address means nothing without a zone, which multiaddrs of QUIC do not carry.
    let is_usable = |ip: &&IpAddr| match ip {
        IpAddr::V4(_) => local.is_ipv4(),
        IpAddr::V6(ip) => local.is_ipv6() && !ip.is_unicast_link_local(),
    };
    reachable
        .iter()
        .filter(is_usable)
        .map(|ip| address::quic_v1(SocketAddr::new(*ip, local.port())))
        .collect()
}
