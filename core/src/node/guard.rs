//! Connection management at work: who is turned away on the way to a connection, and who is closed afterwards.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use peerless_proto::address;

use super::{Node, transport::QuicUse};
use crate::{
    errors::{AttemptError, CloseReason, OpenError, Refusal},
    ids::{ConnectionId, ConnectionShare, JobId, QuicId, SocketId, StreamShare},
    names::{Direction, ProtocolName},
    node::Event,
    quic::ConnectError,
    streams::Owner,
    swarm::{
        gate::{Candidate, Gate},
        pruner,
        resources::EMBEDDER,
        table::ConnectionInfo,
        tags::Tags,
    },
    time::Instant,
};

impl Node {
    /// Changes the lists of whom to talk to, and closes every connection that they are against now, with
    /// [`CloseReason::Refused`].
    pub fn change_gate<R>(&mut self, now: Instant, change: impl FnOnce(&mut Gate) -> R) -> R {
        self.advance(now);
        let result = change(&mut self.swarm.gate);
        self.swarm.pruner.reconsider();
        for connection in self.connections.iter().map(|info| info.id).collect::<Vec<_>>() {
            self.judge_again(connection);
        }
        self.pump();
        result
    }

    /// A behaviour wants nothing to do with a peer for so long; see [`crate::behaviour::Action::Deny`].
    pub(super) fn deny_for(&mut self, peer: PeerId, duration: Duration) {
        self.swarm.gate.deny_until(peer, self.now + duration);
        self.swarm.gate.expire(self.now);
        self.swarm.pruner.reconsider();
        for connection in self.connections.of(&peer).to_vec() {
            self.judge_again(connection);
        }
    }

    /// Closes a connection that may no longer be there: the lists, or its address, have changed.
    pub(super) fn judge_again(&mut self, connection: ConnectionId) {
        let Some(info) = self.connections.get(connection) else { return };
        let ip = address::ip_of(&info.remote);
        if let Err(refusal) = self.swarm.judge(&Candidate::Upgraded { connection: info, ip }) {
            self.close_because(connection, CloseReason::Refused(refusal));
        }
    }

    /// Whether a peer may be dialled at all.
    pub(super) fn judge_peer_dial(&mut self, peer: Option<PeerId>) -> Result<(), Refusal> {
        peer.map_or(Ok(()), |peer| self.swarm.judge(&Candidate::PeerDial { peer }))
    }

    /// Dials an address, if packets may go there and there is room for a connection.
    pub(super) fn connect_quic(
        &mut self,
        dial: JobId,
        remote: SocketAddr,
        peer: Option<PeerId>,
        from: Option<SocketId>,
    ) -> Result<QuicId, AttemptError> {
        let share = self.open_outbound(remote.ip(), peer).map_err(AttemptError::Refused)?;
        match self.transport.quic.connect_from(self.now, remote, peer, from) {
            Ok(quic) => {
                self.swarm.opening.insert(quic, share);
                self.transport.by_quic.insert(quic, QuicUse::Dialing(dial));
                Ok(quic)
            }
            Err(error) => {
                self.swarm.resources.close_connection(share);
                Err(match error {
                    ConnectError::NoSocket => AttemptError::NoSocket,
                    error => AttemptError::Unsupported(error.to_string()),
                })
            }
        }
    }

    fn open_outbound(&mut self, ip: IpAddr, peer: Option<PeerId>) -> Result<ConnectionShare, Refusal> {
        self.swarm.judge(&Candidate::AddressDial { ip, peer })?;
        self.swarm.resources.open_connection(self.now, Direction::Outbound, None).map_err(Refusal::Limit)
    }

    /// Makes room for the circuit that a relay offers, or was asked for, if it may become a connection.
    pub(super) fn open_circuit(
        &mut self,
        via: ConnectionId,
        peer: PeerId,
        direction: Direction,
    ) -> Result<ConnectionShare, Refusal> {
        if self.is_ending() {
            return Err(self.refuse_as_ending());
        }
        let relay = self.connections.get(via).and_then(|info| address::ip_of(&info.remote));
        if let Some(ip) = relay {
            self.swarm.judge(&match direction {
                Direction::Inbound => Candidate::Accept { ip },
                Direction::Outbound => Candidate::AddressDial { ip, peer: Some(peer) },
            })?;
        }
        self.swarm.resources.open_connection(self.now, direction, None).map_err(Refusal::Limit)
    }

    /// Takes a connection whose peer has proved who it is into the table, if it may be there; else gives back what it
    /// took.
    pub(super) fn admit_connection(
        &mut self,
        share: ConnectionShare,
        make: impl FnOnce(ConnectionId) -> ConnectionInfo,
    ) -> Result<ConnectionId, Refusal> {
        let connection = self.connections.insert_with(make);
        let admitted = self.admit_inserted(connection, share);
        if admitted.is_err() {
            self.connections.remove(connection);
            self.swarm.resources.close_connection(share);
        }
        admitted.map(|()| connection)
    }

    fn admit_inserted(&mut self, connection: ConnectionId, share: ConnectionShare) -> Result<(), Refusal> {
        let Some(info) = self.connections.get(connection) else { return Ok(()) };
        let (peer, ip) = (info.peer, address::ip_of(&info.remote));
        if self.is_ending() {
            return Err(self.refuse_as_ending());
        }
        self.swarm.judge(&Candidate::Secured { peer, ip, direction: info.direction })?;
        self.swarm.resources.set_peer(share, peer).map_err(Refusal::Limit)?;
        self.swarm.judge(&Candidate::Upgraded { connection: info, ip })
    }

    /// Ends a QUIC connection that its peer has completed and that we do not want.
    pub(super) fn turn_away(
        &mut self,
        id: QuicId,
        dial: Option<JobId>,
        (peer, remote): (PeerId, SocketAddr),
        refusal: Refusal,
    ) {
        let direction = if dial.is_some() { Direction::Outbound } else { Direction::Inbound };
        self.totals.handshake_failed(direction, false);
        self.transport.by_quic.insert(id, QuicUse::Abandoned);
        self.transport.quic.close(self.now, id, refusal.code(), b"");
        let reason = CloseReason::Refused(refusal);
        match dial {
            Some(dial) => self.quic_attempt_failed(dial, id, reason),
            None => self.tell_inbound_failed(address::quic_v1(remote), Some(peer), reason),
        }
    }

    /// Tells the embedder of handshakes that were not even begun.
    pub(super) fn tell_turned_away(&mut self) {
        while let Some((remote, refusal, suppressed)) = self.swarm.pop_turned_away() {
            let (remote, reason) = (address::quic_v1(remote), CloseReason::Refused(refusal));
            self.emit(Event::InboundFailed { remote, peer: None, reason, suppressed });
        }
        self.count_untold();
    }

    /// Tells the embedder of a handshake that came to nothing, if it has not been told of too many. `peer` is whoever has
    /// proved to be that.
    pub(super) fn tell_inbound_failed(
        &mut self,
        remote: Multiaddr,
        peer: Option<PeerId>,
        reason: CloseReason,
    ) {
        if let Some(suppressed) = self.swarm.may_tell(self.now) {
            self.emit(Event::InboundFailed { remote, peer, reason, suppressed });
        }
        self.count_untold();
    }

    fn count_untold(&mut self) {
        let untold = self.swarm.take_uncounted();
        if untold > 0 {
            self.counters.add("events.inbound_failed.suppressed", untold);
        }
    }

    /// Makes room for a stream of ours.
    pub(super) fn open_stream_share(
        &mut self,
        connection: ConnectionId,
        owner: Owner,
        protocol: &ProtocolName,
    ) -> Result<StreamShare, OpenError> {
        let link = self.transport.links.get(&connection).ok_or(OpenError::NoConnection)?;
        let service = self.service(owner);
        let resources = &mut self.swarm.resources;
        let share = resources.open_stream(link.share, Direction::Outbound).map_err(OpenError::Limit)?;
        if let Err(exceeded) = resources.set_protocol(share, service, protocol) {
            resources.close_stream(share);
            return Err(OpenError::Limit(exceeded));
        }
        Ok(share)
    }

    /// Whose streams these are, as far as limits go.
    pub(super) fn service(&self, owner: Owner) -> &'static str {
        match owner {
            Owner::Behaviour(index) => self.behaviours[index].behaviour.name(),
            Owner::App | Owner::Nobody => EMBEDDER,
        }
    }

    /// Says what peers are worth, or who is to be spared from pruning; see [`crate::swarm::tags`].
    pub fn tags<R>(&mut self, now: Instant, change: impl FnOnce(&mut Tags, Instant) -> R) -> R {
        self.advance(now);
        let result = self.change_tags(change);
        self.pump();
        result
    }

    pub(super) fn change_tags<R>(&mut self, change: impl FnOnce(&mut Tags, Instant) -> R) -> R {
        change(&mut self.swarm.tags, self.now)
    }

    /// Whether the peer of a connection is not pruned whatever it is worth.
    pub(super) fn is_spared(&self, connection: ConnectionId) -> bool {
        self.connections.get(connection).is_some_and(|info| {
            let ip = address::ip_of(&info.remote).filter(|_| info.relayed.is_none());
            self.swarm.tags.is_protected(&info.peer) || self.swarm.gate.allows_by_name(&info.peer, ip)
        })
    }

    /// Closes whom there is no more room for, if it is time. Returns whether it was anybody.
    pub(super) fn prune(&mut self) -> bool {
        let connections = self.connections.len();
        if self.swarm.tags.take_released() {
            self.swarm.pruner.reconsider();
        }
        self.swarm.pruner.observe(connections);
        if self.is_ending() || !self.swarm.pruner.is_due(self.now, connections) {
            return false;
        }
        let candidates = self.candidates();
        let pruned = self.swarm.pruner.prune(self.now, connections, candidates);
        for peer in &pruned {
            self.counters.add("swarm.pruned.peers", 1);
            for connection in self.connections.of(peer).to_vec() {
                self.counters.add("swarm.pruned.connections", 1);
                self.close_because(connection, CloseReason::Pruned);
            }
        }
        !pruned.is_empty()
    }

    /// All connected peers as the pruner sees them.
    fn candidates(&self) -> Vec<pruner::Candidate> {
        let mut peers: BTreeMap<PeerId, pruner::Candidate> = BTreeMap::new();
        for info in self.connections.iter() {
            let ip = address::ip_of(&info.remote).filter(|_| info.relayed.is_none());
            let streams = self.streams_on(info.id);
            let candidate = peers.entry(info.peer).or_insert_with(|| pruner::Candidate {
                value: self.swarm.tags.value(self.now, &info.peer),
                streams: 0,
                outbound: false,
                since: info.established,
                peer: info.peer,
                connections: 0,
                spared: self.swarm.tags.is_protected(&info.peer),
            });
            candidate.streams += streams;
            candidate.outbound |= info.direction == Direction::Outbound;
            candidate.since = candidate.since.min(info.established);
            candidate.connections += 1;
            candidate.spared |= self.swarm.gate.allows_by_name(&info.peer, ip);
        }
        peers.into_values().collect()
    }

    /// Streams of a connection, those being negotiated included; 0 if it is gone.
    pub fn streams_on(&self, connection: ConnectionId) -> usize {
        self.transport.links.get(&connection).map_or(0, |link| link.streams.len())
    }

    /// The latest estimate of a connection's round-trip time: the transport's, or that of the last ping through a relay.
    pub fn round_trip(&self, connection: ConnectionId) -> Option<Duration> {
        let of_ping = || self.connections.get(connection).and_then(|info| info.rtt);
        self.transport.rtt(connection).or_else(of_ping)
    }
}
