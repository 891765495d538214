//! How datagrams get from host to host.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use peerless_core::node::Datagram;
use sha2::Digest;

use super::{Item, World};
use crate::{
    fault::{Fault, Faults},
    host::HostId,
    link::{Hop, Link, Outlet, Packet, Wire},
};

/// What has crossed the network so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Datagrams sent.
    pub datagrams: u64,
    /// Their payload in bytes.
    pub bytes: u64,
    /// Datagrams that reached a socket.
    pub delivered: u64,
    /// Datagrams that did not, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
}

impl World {
    /// Sets what links between hosts are like that have not yet exchanged a datagram.
    pub fn default_link(&mut self, link: Link) {
        self.default_link = link;
    }

    /// Sets the link between two hosts, in both directions.
    pub fn link(&mut self, a: HostId, b: HostId, link: Link) {
        self.link_one_way(a, b, link.clone());
        self.link_one_way(b, a, link);
    }

    /// Sets the link in one direction.
    pub fn link_one_way(&mut self, from: HostId, to: HostId, link: Link) {
        self.path(from, to).wire.link = link;
    }

    /// Gives the sockets of a host a buffer of so many bytes, from which its node reads so many a second. Without, it
    /// reads at once.
    pub fn socket_buffer(&mut self, host: HostId, bytes: usize, per_second: u64) {
        let link = Link::latency(Duration::ZERO).rate(8 * per_second).queue(bytes);
        let wire = Wire::new(link, self.rng.fork(&format!("socket {}", host.0)));
        self.sockets.insert(host, wire);
    }

    /// Lets nothing pass between two hosts.
    pub fn cut(&mut self, a: HostId, b: HostId) {
        self.path(a, b).faults.set_cut(true);
        self.path(b, a).faults.set_cut(true);
    }

    /// Undoes [`World::cut`].
    pub fn restore(&mut self, a: HostId, b: HostId) {
        self.path(a, b).faults.set_cut(false);
        self.path(b, a).faults.set_cut(false);
    }

    /// Says that there is no way from an address of a host to another address.
    pub fn no_route(&mut self, from: impl Into<IpAddr>, to: impl Into<IpAddr>) {
        self.no_routes.insert((from.into(), to.into()));
    }

    /// Takes the network away from a host, and its node learns that it has no address any more; or gives it back.
    pub fn plug(&mut self, host: HostId, is_in: bool) {
        self.hosts[host.0].plugged = is_in;
        self.tell_sockets(host);
    }

    /// Gives a host with one socket another address in place of the one it had.
    pub fn readdress(&mut self, host: HostId, ip: impl Into<IpAddr>) {
        let ip = ip.into();
        let (_, local) = &mut self.hosts[host.0].sockets[0];
        self.by_ip.remove(&local.ip());
        local.set_ip(ip);
        self.by_ip.insert(ip, host);
        self.tell_sockets(host);
    }

    /// Plans what happens to the `nth` datagram from now on that `from` sends to `to`; the next one is the first.
    pub fn fault(&mut self, from: HostId, to: HostId, nth: u64, fault: Fault) {
        self.path(from, to).faults.plan(nth, fault);
    }

    /// What has crossed the network so far.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Datagrams under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// A hash of all datagrams sent so far: when, from where, to where and which bytes.
    pub fn wire_hash(&self) -> String {
        self.wire.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Sends a datagram from a host's first socket, whatever its node thinks of it.
    pub fn send_from(&mut self, host: HostId, to: SocketAddr, data: impl Into<Bytes>) {
        let from = self[host].socket_address();
        self.send(host, Packet { from, to, ecn: None, data: data.into() });
    }

    /// Takes what has arrived at a bare host.
    pub fn receive(&mut self, host: HostId) -> VecDeque<Packet> {
        self.hosts[host.0].inbox.as_mut().map(std::mem::take).expect("only a bare host keeps what arrives")
    }

    fn path(&mut self, from: HostId, to: HostId) -> &mut Path {
        self.paths.entry((from, to)).or_insert_with(|| {
            let rng = self.rng.fork(&format!("path {} {}", from.0, to.0));
            let faults = Faults::new(rng.fork("faults"));
            Path { faults, wire: Wire::new(self.default_link.clone(), rng.fork("wire")) }
        })
    }

    pub(super) fn send(&mut self, from: HostId, packet: Packet) {
        self.account(&packet);
        let Some(to) = self.by_ip.get(&packet.to.ip()).copied() else { return self.lose("no such host") };
        if self.no_routes.contains(&(packet.from.ip(), packet.to.ip())) {
            return self.lose("no route");
        }
        if ![from, to].iter().all(|host| self.hosts[host.0].plugged) {
            return self.lose("no network");
        }
        let now = self.now;
        let mut under_way = vec![(now, packet)];
        let mut out = Outlet::default();
        for hop in self.path(from, to).hops() {
            for (at, packet) in under_way.drain(..) {
                hop.pass(at, packet, &mut out);
            }
            std::mem::swap(&mut under_way, &mut out.forwarded);
        }
        for why in out.dropped {
            self.lose(why);
        }
        for (at, packet) in under_way {
            self.in_flight += 1;
            self.schedule(at, Item::Arrival(packet));
        }
    }

    fn account(&mut self, packet: &Packet) {
        self.traffic.datagrams += 1;
        self.traffic.bytes += packet.data.len() as u64;
        self.wire.update(self.now.as_nanos().to_be_bytes());
        self.wire.update(format!("{} {} {}", packet.from, packet.to, packet.data.len()));
        self.wire.update(&packet.data);
    }

    pub(super) fn lose(&mut self, why: &'static str) {
        *self.traffic.dropped.entry(why).or_default() += 1;
    }

    pub(super) fn arrive(&mut self, packet: Packet) {
        let id = self.by_ip[&packet.to.ip()];
        let Some(socket) = self.sockets.get_mut(&id) else { return self.read(packet) };
        let mut out = Outlet::default();
        socket.pass(self.now, packet, &mut out);
        match out.forwarded.pop() {
            Some((at, packet)) => _ = self.schedule(at, Item::Reading(packet)),
            None => {
                self.in_flight -= 1;
                self.lose("socket full");
            }
        }
    }

    pub(super) fn read(&mut self, packet: Packet) {
        self.in_flight -= 1;
        let now = self.now;
        let Packet { from: remote, to, ecn, data } = packet;
        let Some(id) = self.by_ip.get(&to.ip()).copied() else { return self.lose("no such host") };
        let host = &mut self.hosts[id.0];
        let Some(socket) = host.socket_at(to) else { return self.lose("no such socket") };
        if host.node.is_none() && host.inbox.is_none() {
            return self.lose("host is down");
        }
        self.traffic.delivered += 1;
        if let Some(inbox) = &mut host.inbox {
            inbox.push_back(Packet { from: remote, to, ecn, data });
            return self.stepped(id);
        }
        let data = BytesMut::from(&data[..]);
        let datagram = Datagram { socket, remote, local_ip: Some(to.ip()), ecn, data };
        self.input(id, |node| node.handle_datagram(now, datagram));
    }
}

/// Everything between two hosts, in one direction.
#[derive(Debug)]
pub(super) struct Path {
    faults: Faults,
    wire: Wire,
}

impl Path {
    fn hops(&mut self) -> [&mut dyn Hop; 2] {
        [&mut self.faults, &mut self.wire]
    }
}
