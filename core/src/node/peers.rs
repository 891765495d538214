//! What the node learns of other peers, and where it puts it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use peerless_proto::address;

use crate::{
    ids::ConnectionId,
    names::Direction,
    node::{Bound, Node},
    protocols::identify,
    swarm::{addresses::AddressSource, hostless, peerstore::Source, table::ConnectionInfo},
    time::Instant,
};

impl Node {
    /// Remembers addresses of a peer, for `ttl` or for good. A `/p2p` at their end must be the peer's; others are left
    /// out. Returns how many are new.
    pub fn add_peer_addresses(
        &mut self,
        now: Instant,
        peer: PeerId,
        addresses: &[Multiaddr],
        ttl: Option<Duration>,
    ) -> usize {
        self.advance(now);
        self.learn_addresses(peer, addresses, Source::Embedder, None, ttl)
    }

    /// Forgets where a peer is reached and what it speaks.
    pub fn forget_peer(&mut self, now: Instant, peer: PeerId) {
        self.advance(now);
        self.peerstore.forget(self.now, peer);
        self.dialing.backoff.renew(&peer);
    }

    /// Somebody told where a peer is reached, who may be new; `record` is the number of the signed record that the
    /// addresses come from.
    pub(super) fn learn_addresses(
        &mut self,
        peer: PeerId,
        addresses: &[Multiaddr],
        source: Source,
        record: Option<u64>,
        ttl: Option<Duration>,
    ) -> usize {
        let new = self.take_addresses(peer, addresses, source, record, ttl);
        if new > 0 {
            self.auto_connect.discovered(self.now, self.connections.peers());
        }
        new
    }

    /// Identify told what a peer is. What it left out is from before, and others may know better by now.
    pub(super) fn learn(&mut self, told: &identify::Event) {
        let (peer, info) = (told.peer, &told.info);
        if told.says.addresses {
            let ttl = self.peerstore.config().identify_ttl;
            self.take_addresses(peer, &info.listen_addresses, Source::Identify, told.record, Some(ttl));
            if told.record.is_some() {
                self.peerstore.withdraw_unsigned(self.now, peer);
            }
        }
        if told.says.protocols {
            self.peerstore.set_protocols(self.now, peer, &info.protocols);
        }
    }

    fn take_addresses(
        &mut self,
        peer: PeerId,
        addresses: &[Multiaddr],
        source: Source,
        record: Option<u64>,
        ttl: Option<Duration>,
    ) -> usize {
        let (mut believed, mut left_out) = (Vec::new(), 0);
        for address in addresses {
            let remote = address::parse_quic_v1(address).map(|(remote, _)| remote);
            match hostless(address).is_some() || remote.is_ok_and(|remote| self.is_own(remote)) {
                true => left_out += 1,
                false => believed.push(address.clone()),
            }
        }
        self.counters.add("peerstore.refused.address", left_out);
        let addresses = &believed;
        let new = match (record, ttl) {
            (Some(number), Some(ttl)) => {
                let taken = self.peerstore.add_record(self.now, peer, number, addresses, ttl);
                taken.unwrap_or_else(|_| {
                    self.counters.add("peerstore.refused.record", 1);
                    0
                })
            }
            _ => self.peerstore.add(self.now, peer, addresses, source, ttl),
        };
        if new > 0 {
            self.dialing.backoff.renew(&peer);
        }
        new
    }

    /// Whether an address is ours, so that nobody else is there: a socket is bound to it, or the embedder says so. Not
    /// where peers see us: enough liars could keep us from dialling somebody.
    pub(super) fn is_own(&self, remote: SocketAddr) -> bool {
        let is_bound = |bound: &Bound| {
            let (local, ip) = (bound.local, remote.ip());
            let is_here = local.ip() == ip
                || local.ip().is_unspecified()
                    && (bound.reachable.contains(&ip)
                        || ip == IpAddr::from(Ipv4Addr::LOCALHOST)
                        || ip == IpAddr::from(Ipv6Addr::LOCALHOST));
            local.port() == remote.port() && local.is_ipv4() == ip.is_ipv4() && is_here
        };
        let mut announced = self.addresses.of(AddressSource::External);
        self.sockets.values().any(is_bound)
            || announced.any(|own| address::parse_quic_v1(own).is_ok_and(|(own, _)| own == remote))
    }

    /// A connection is there.
    pub(super) fn settle_in(&mut self, connection: ConnectionId) {
        let Some(info) = self.connections.get(connection) else { return };
        let (peer, remote) = (info.peer, info.remote.clone());
        let dialled = (info.direction == Direction::Outbound && info.relayed.is_none()).then_some(remote);
        self.peerstore.connected(self.now, peer, dialled.as_ref());
        if let Some(address) = &dialled {
            self.dialing.record(address, true);
        }
        self.dialing.backoff.succeeded(peer, dialled);
        self.auto_connect.connected(&peer);
        self.health.connected(self.now, connection);
        self.settle_duplicates(connection);
    }

    /// A connection is gone.
    pub(super) fn left_behind(&mut self, info: &ConnectionInfo) {
        let dialled =
            (info.direction == Direction::Outbound && info.relayed.is_none()).then_some(&info.remote);
        self.peerstore.disconnected(self.now, info.peer, dialled);
        self.health.disconnected(info.id);
        self.reinstate(info);
        if self.connections.of(&info.peer).is_empty() {
            self.auto_connect.disconnected(self.now, info.peer);
        }
    }
}
