//! Connection management at work: who is turned away on the way to a connection, and who is closed afterwards.

use std::net::{IpAddr, SocketAddr};

use libp2p_identity::PeerId;
use peerless_proto::address;

use super::{Node, transport::QuicUse};
use crate::{
    event::{CloseReason, Event},
    ids::{ConnectionId, DialId, QuicId},
    swarm::{
        Refusal,
        gate::{Candidate, Gate},
        table::{ConnectionInfo, Direction},
    },
    time::Instant,
};

impl Node {
    /// Changes the lists of whom to talk to, and closes every connection that they are against now, with
    /// [`CloseReason::Refused`].
    pub fn change_gate<R>(&mut self, now: Instant, change: impl FnOnce(&mut Gate) -> R) -> R {
        self.advance(now);
        let result = change(&mut self.swarm.gate);
        for connection in self.connections.iter().map(|info| info.id).collect::<Vec<_>>() {
            self.judge_again(connection);
        }
        self.pump();
        result
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

    /// Whether packets may go to this address for the sake of a connection.
    pub(super) fn judge_address_dial(&mut self, ip: IpAddr, peer: Option<PeerId>) -> Result<(), Refusal> {
        self.swarm.judge(&Candidate::AddressDial { ip, peer })
    }

    /// Whether the circuit that a relay offers, or was asked for, may become a connection.
    pub(super) fn judge_circuit(
        &mut self,
        via: ConnectionId,
        peer: PeerId,
        direction: Direction,
    ) -> Result<(), Refusal> {
        let relay = self.connections.get(via).and_then(|info| address::ip_of(&info.remote));
        let Some(ip) = relay else { return Ok(()) };
        match direction {
            Direction::Inbound => self.swarm.judge(&Candidate::Accept { ip }),
            Direction::Outbound => self.judge_address_dial(ip, Some(peer)),
        }
    }

    /// Takes a connection whose peer has proved who it is into the table, if it may be there.
    pub(super) fn admit_connection(
        &mut self,
        make: impl FnOnce(ConnectionId) -> ConnectionInfo,
    ) -> Result<ConnectionId, Refusal> {
        let connection = self.connections.insert_with(make);
        let info = self.connections.get(connection).expect("just inserted");
        let ip = address::ip_of(&info.remote);
        let secured = Candidate::Secured { peer: info.peer, ip, direction: info.direction };
        let admitted = self
            .swarm
            .judge(&secured)
            .and_then(|()| self.swarm.judge(&Candidate::Upgraded { connection: info, ip }));
        if admitted.is_err() {
            self.connections.remove(connection);
        }
        admitted.map(|()| connection)
    }

    /// Ends a QUIC connection that its peer has completed and that we do not want.
    pub(super) fn turn_away(
        &mut self,
        id: QuicId,
        dial: Option<DialId>,
        remote: SocketAddr,
        refusal: Refusal,
    ) {
        let direction = if dial.is_some() { Direction::Outbound } else { Direction::Inbound };
        self.totals.handshake_failed(direction, false);
        self.transport.by_quic.insert(id, QuicUse::Abandoned);
        self.transport.quic.close(self.now, id, refusal.code(), b"");
        let reason = CloseReason::Refused(refusal);
        match dial {
            Some(dial) => self.quic_attempt_failed(dial, id, reason),
            None => self.emit(Event::InboundFailed { remote: address::quic_v1(remote), reason }),
        }
    }

    /// Tells the embedder of handshakes that were not even begun.
    pub(super) fn tell_turned_away(&mut self) {
        while let Some((remote, refusal)) = self.swarm.pop_turned_away() {
            let reason = CloseReason::Refused(refusal);
            self.emit(Event::InboundFailed { remote: address::quic_v1(remote), reason });
        }
    }
}
