//! From which socket an address is dialled, when several are bound to addresses of its family.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

use super::{Dialing, Job, attempt::Attempt, target::Target};
use crate::{
    errors::AttemptError,
    ids::{JobId, QueryId, SocketId},
    node::{BlackHoles, Event, Node},
    swarm::dial::black_hole::BlackHole,
};

/// How long the socket that the route leads to, or the first, may be without an answer before another one is tried as
/// well: QUIC has sent its first packet twice by then.
const OTHER_SOCKET: Duration = Duration::from_secs(1);

impl Dialing {
    /// There is a network that was not there before: what failed until now may work.
    /// Whether networks are taken to swallow what is sent over them.
    pub(in crate::node) fn black_holes(&self) -> BlackHoles {
        BlackHoles { udp: self.udp.state(), ipv6: self.ipv6.state() }
    }

    pub(in crate::node) fn network_is_back(&mut self) {
        self.backoff.clear();
        self.udp = BlackHole::new(self.config.black_hole);
        self.ipv6 = BlackHole::new(self.config.black_hole);
    }
}

impl Job {
    /// Whether an address that failed from one socket is, or will be, tried from another.
    pub(super) fn is_tried_elsewhere(&self, address: &Multiaddr) -> bool {
        self.running.iter().any(|(running, _)| running == address)
            || self.waiting.iter().any(|(target, _)| target.address() == address)
    }
}

impl Node {
    pub(super) fn attempt_direct(
        &mut self,
        id: JobId,
        address: Multiaddr,
        remote: SocketAddr,
        peer: Option<PeerId>,
        from: Option<SocketId>,
    ) -> Result<(Multiaddr, Attempt), (Multiaddr, AttemptError)> {
        let said = self.dialing.jobs.get(id).and_then(|job| job.socket);
        let fits = |socket| self.sockets_for(remote, None).contains(&socket);
        if said.is_some_and(|socket| !fits(socket)) {
            return Err((address, AttemptError::NoSocket));
        }
        let from = match from {
            _ if said.is_some() => said,
            Some(socket) => {
                self.counters.add("dial.other_socket", 1);
                Some(socket)
            }
            None if !self.is_route_in_doubt(remote) => None,
            None if self.knows_routes => {
                let query = self.dialing.next_query(id);
                self.emit(Event::Route { query, remote });
                return Ok((address, Attempt::Routing { query, remote, peer }));
            }
            None => self.others_later(id, &address, remote, peer, None),
        };
        match self.connect_quic(id, remote, peer, from) {
            Ok(quic) => Ok((address, Attempt::Quic(quic))),
            Err(error) => Err((address, error)),
        }
    }

    /// Whether a socket has to be chosen: a wildcard socket leaves that to the system.
    fn is_route_in_doubt(&self, remote: SocketAddr) -> bool {
        let is_wildcard = |socket: &SocketId| self.sockets[socket].local.ip().is_unspecified();
        let sockets = self.sockets_for(remote, None);
        sockets.len() > 1 && !sockets.iter().any(is_wildcard)
    }

    /// The sockets of that family, best first: the one with the address that the route has, then those that are confined to
    /// this machine, or are not, as `remote` is.
    fn sockets_for(&self, remote: SocketAddr, source: Option<IpAddr>) -> Vec<SocketId> {
        let of_family = self.sockets.iter().filter(|(_, b)| b.local.is_ipv4() == remote.is_ipv4());
        let mut sockets: Vec<_> = of_family.map(|(id, bound)| (*id, bound.local.ip())).collect();
        let fits = |ip: &IpAddr| ip.is_loopback() == remote.ip().is_loopback();
        sockets.sort_by_key(|(id, ip)| (Some(*ip) != source, !fits(ip), *id));
        sockets.into_iter().map(|(id, _)| id).collect()
    }

    /// The best socket; the others are tried later, unless a connection is there by then.
    fn others_later(
        &mut self,
        id: JobId,
        address: &Multiaddr,
        remote: SocketAddr,
        peer: Option<PeerId>,
        source: Option<IpAddr>,
    ) -> Option<SocketId> {
        let mut sockets = self.sockets_for(remote, source).into_iter();
        let best = sockets.next();
        let job = self.dialing.jobs.get_mut(id)?;
        for socket in sockets {
            let target = Target::Direct { address: address.clone(), remote, peer, from: Some(socket) };
            let at = job.waiting.iter().position(|(target, _)| target.is_carried());
            job.waiting.insert(at.unwrap_or(job.waiting.len()), (target, OTHER_SOCKET));
        }
        best
    }

    /// The route of an address is known: the source address that it has, if there is one.
    pub(in crate::node) fn routed(&mut self, query: QueryId, source: Option<IpAddr>) {
        let Some((id, address, attempt)) = self.take_query(query) else { return };
        let Attempt::Routing { remote, peer, .. } = attempt else { return };
        let from = self.others_later(id, &address, remote, peer, source);
        let outcome = self.connect_quic(id, remote, peer, from);
        let Some(job) = self.dialing.jobs.get_mut(id) else { return };
        match outcome {
            Ok(quic) => {
                job.running.push((address, Attempt::Quic(quic)));
                self.arm(id);
            }
            Err(error) => {
                if !job.is_tried_elsewhere(&address) {
                    job.failed.push((address, error));
                }
                self.next_attempt(id);
            }
        }
    }
}
