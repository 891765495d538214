//! Circuits: streams through a relay that carry a secured, multiplexed connection of their own.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};

use super::{
    Node,
    pump::Work,
    streaming::flush,
    transport::{QuicUse, Via},
};
use crate::{
    behaviour::Reply,
    errors::{CloseReason, ReachedLimit, Refusal, StreamFault, UpgradeError},
    ids::{Arena, CircuitId, ConnectionId, ConnectionShare, StreamId, Token},
    names::{CircuitLimit, Direction, UpgradeRole},
    quic::StreamNote,
    streams::{Mode, Owner, Read, WriteFault},
    swarm::table::{ConnectionInfo, Relayed},
    time::{Instant, Timers},
    upgrade::{self, MuxEvent, SecuredConnection, Security},
};

/// Most bytes taken from the carrier at a time.
const CHUNK: usize = 64 << 10;

/// By how much the relay's clock of a circuit may be ahead of ours: it says its limit in whole seconds.
const DURATION_SLACK: Duration = Duration::from_secs(1);

/// How long the carrier of a circuit that is over may take to end in both directions.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// What a behaviour asks for; see [`crate::behaviour::Action::Upgrade`].
#[derive(Debug)]
pub(crate) struct Carried {
    /// Who asked for the upgrade, and by which token.
    pub(crate) requester: (usize, Token),
    /// The dial that it serves.
    pub(crate) dial: Option<Token>,
    pub(crate) peer: PeerId,
    pub(crate) role: UpgradeRole,
    pub(crate) limit: CircuitLimit,
    pub(crate) address: Option<Multiaddr>,
}

#[derive(Debug)]
pub(crate) struct Circuit {
    pub(crate) mux: SecuredConnection,
    /// It has something to do in this turn.
    pub(crate) scheduled: bool,
    carrier: StreamId,
    requester: (usize, Token),
    dial: Option<Token>,
    /// What is dialled, if that is no circuit address.
    address: Option<Multiaddr>,
    role: UpgradeRole,
    relay: PeerId,
    via: ConnectionId,
    limit: CircuitLimit,
    pub(crate) opened: Instant,
    /// Bytes that its carrier took.
    pub(crate) sent: u64,
    /// Bytes that its carrier brought.
    pub(crate) received: u64,
    /// What it takes of the limited resources, until it is established.
    opening: Option<ConnectionShare>,
    /// Set once it is established.
    connection: Option<ConnectionId>,
    /// Set once it is established: what secures it, and the name of the muxer.
    pub(crate) upgrades: Option<(Security, &'static str)>,
    /// Taken from the muxer, not yet by the carrier.
    out: Bytes,
    timer: Option<Instant>,
}

/// All circuits that end at this node.
#[derive(Debug, Default)]
pub(crate) struct Circuits {
    table: Arena<CircuitId, Circuit>,
    timers: Timers<CircuitId>,
}

impl Circuits {
    pub(crate) fn get(&self, id: CircuitId) -> Option<&Circuit> {
        self.table.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: CircuitId) -> Option<&mut Circuit> {
        self.table.get_mut(id)
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn timers(&self) -> usize {
        self.timers.len()
    }

    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.next()
    }

    fn remove(&mut self, id: CircuitId) -> Option<Circuit> {
        let circuit = self.table.remove(id)?;
        if let Some(at) = circuit.timer {
            self.timers.clear(at, id);
        }
        Some(circuit)
    }

    /// Arms the timer anew if the muxer's deadline has moved.
    fn rearm(&mut self, id: CircuitId) {
        let Some(circuit) = self.table.get_mut(id) else { return };
        let next = circuit.mux.deadline().map(|d| d.at);
        if next != circuit.timer {
            if let Some(at) = circuit.timer {
                self.timers.clear(at, id);
            }
            if let Some(at) = next {
                self.timers.set(at, id);
            }
            circuit.timer = next;
        }
    }
}

impl Node {
    /// Makes a stream carry a connection; see [`crate::behaviour::Action::Upgrade`].
    pub(super) fn start_circuit(&mut self, carrier: Option<StreamId>, carried: Carried) {
        let Carried { requester, dial, peer, role, limit, address } = carried;
        let (index, token) = requester;
        let stream = carrier.and_then(|id| self.streams.get_mut(id).map(|stream| (id, stream)));
        let Some((carrier, stream)) = stream.filter(|(_, s)| matches!(s.mode, Mode::Framed(_))) else {
            self.upgrade_failed(index, token, UpgradeError::NoStream);
            return;
        };
        if dial.is_some_and(|dial| !self.dialing.has_token(index, dial)) {
            // Another address of the same dial was faster.
            self.drop_stream(carrier);
            self.upgrade_failed(index, token, UpgradeError::NoStream);
            return;
        }
        let (relay, via) = (stream.peer, stream.connection);
        let share = match self.open_circuit(via, peer, direction(role)) {
            Ok(share) => share,
            Err(refusal) => {
                self.drop_stream(carrier);
                self.upgrade_failed(index, token, UpgradeError::Refused(refusal));
                return;
            }
        };
        let Some(stream) = self.streams.get_mut(carrier) else { return self.give_back(Some(share)) };
        let mut mux = SecuredConnection::new(
            role,
            self.upgrade_config.clone(),
            Arc::clone(&self.credentials),
            Some(peer),
            self.upgrade_rng.bytes(),
            self.now,
        );
        let rest = match &mut stream.mode {
            Mode::Framed(decoder) => decoder.take_rest(),
            _ => Vec::new(),
        };
        let rest_len = rest.iter().map(|chunk| chunk.len() as u64).sum();
        rest.into_iter().for_each(|chunk| mux.handle_bytes(self.now, chunk));
        let circuit = Circuit {
            mux,
            scheduled: false,
            carrier,
            requester,
            dial,
            address,
            role,
            relay,
            via,
            limit,
            opened: self.now,
            sent: 0,
            received: rest_len,
            opening: Some(share),
            connection: None,
            upgrades: None,
            out: Bytes::new(),
            timer: None,
        };
        let id = self.transport.circuits.table.insert(circuit);
        stream.mode = Mode::Carrying(id);
        stream.end_from = None;
        stream.owner = Owner::Nobody;
        self.schedule_circuit(id);
    }

    pub(super) fn schedule_circuit(&mut self, id: CircuitId) {
        if let Some(circuit) = self.transport.circuits.get_mut(id)
            && !std::mem::replace(&mut circuit.scheduled, true)
        {
            self.transport.busy_circuits.push_back(id);
        }
    }

    /// Moves a circuit's bytes in and out, and acts on what they mean.
    pub(super) fn drive_circuit(&mut self, id: CircuitId) {
        let Some(circuit) = self.transport.circuits.get_mut(id) else { return };
        circuit.scheduled = false;
        let carrier = circuit.carrier;
        let moved = self.circuit_input(id).and_then(|()| {
            self.circuit_events(id);
            // What leaves makes room, which is an event in turn.
            loop {
                self.circuit_output(id)?;
                if !self.circuit_events(id) {
                    return Ok(());
                }
            }
        });
        match moved {
            Ok(()) => self.transport.circuits.rearm(id),
            Err(fault) => self.fail_stream(carrier, fault),
        }
    }

    fn circuit_input(&mut self, id: CircuitId) -> Result<(), StreamFault> {
        loop {
            let Some(circuit) = self.transport.circuits.get_mut(id).filter(|c| c.mux.wants_input()) else {
                return Ok(());
            };
            let Some(carrier) = self.streams.get_mut(circuit.carrier).filter(|s| !s.remote_finished) else {
                return Ok(());
            };
            let read = self.transport.read(carrier.connection, carrier.number, CHUNK)?;
            let Some(circuit) = self.transport.circuits.get_mut(id) else { return Ok(()) };
            match read {
                Read::Blocked => return Ok(()),
                Read::Data(chunk) => {
                    circuit.received += chunk.len() as u64;
                    circuit.mux.handle_bytes(self.now, chunk);
                }
                Read::Finished => {
                    carrier.remote_finished = true;
                    circuit.mux.handle_finish();
                }
            }
        }
    }

    /// Acts on the circuit's events. Returns whether there were any.
    fn circuit_events(&mut self, id: CircuitId) -> bool {
        let mut any = false;
        while let Some(circuit) = self.transport.circuits.get_mut(id) {
            let connection = circuit.connection;
            match (circuit.mux.poll_event(), connection) {
                (None, _) => return any,
                (Some(upgrade::Event::Established { peer, security, muxer }), _) => {
                    circuit.upgrades = Some((security, muxer));
                    self.circuit_established(id, peer);
                }
                (Some(upgrade::Event::Failed(error)), _) => {
                    let (requester, role) = (circuit.requester, circuit.role);
                    self.totals.handshake_failed(direction(role), true);
                    self.retire_circuit(id);
                    self.upgrade_failed(requester.0, requester.1, error);
                }
                (Some(upgrade::Event::Mux(MuxEvent::Closed(reason))), connection) => {
                    let reason = circuit.close_reason(reason, self.now);
                    self.retire_circuit(id);
                    if let Some(connection) = connection {
                        self.disconnected(connection, reason);
                    }
                }
                (Some(upgrade::Event::Mux(event)), Some(connection)) => self.mux_event(connection, event),
                (Some(upgrade::Event::Mux(_)), None) => {}
            }
            any = true;
        }
        any
    }

    fn mux_event(&mut self, connection: ConnectionId, event: MuxEvent) {
        let (stream, note) = match event {
            MuxEvent::Opened(stream) => (stream, StreamNote::Opened),
            // A reset is met by the read that this leads to.
            MuxEvent::Reset(stream, code) => {
                self.transport.note_reset(connection, u64::from(stream.get()), u64::from(code));
                (stream, StreamNote::Readable)
            }
            MuxEvent::Readable(stream) => (stream, StreamNote::Readable),
            MuxEvent::Writable(stream) => (stream, StreamNote::Writable),
            MuxEvent::Stopped(stream, code) => (stream, StreamNote::Stopped(u64::from(code))),
            MuxEvent::Finished(_) | MuxEvent::Available | MuxEvent::Closed(_) => return,
        };
        self.stream_note(connection, u64::from(stream.get()), note);
    }

    fn circuit_output(&mut self, id: CircuitId) -> Result<(), StreamFault> {
        loop {
            let Some(circuit) = self.transport.circuits.get_mut(id) else { return Ok(()) };
            if circuit.out.is_empty() {
                match circuit.mux.poll_transmit() {
                    Some(bytes) => circuit.out = bytes,
                    None => return Ok(()),
                }
            }
            let mut out = std::mem::take(&mut circuit.out);
            let Some(carrier) = self.streams.get_mut(circuit.carrier) else { return Ok(()) };
            flush(carrier, &mut self.transport)?;
            let taken = if carrier.stopped.is_some() {
                // The remote hears nothing any more, but may have a last word.
                std::mem::take(&mut out).len()
            } else if carrier.queue.is_empty() {
                match self.transport.write(carrier.connection, carrier.number, &mut out) {
                    Ok(taken) => taken,
                    Err(WriteFault::Stopped(code)) => {
                        carrier.stop(code);
                        0
                    }
                    Err(WriteFault::Lost(fault)) => return Err(fault),
                }
            } else {
                0
            };
            if let Some(circuit) = self.transport.circuits.get_mut(id) {
                circuit.out = out;
                circuit.sent += taken as u64;
            }
            if taken == 0 {
                return Ok(());
            }
        }
    }

    fn circuit_established(&mut self, id: CircuitId, peer: PeerId) {
        let Some(circuit) = self.transport.circuits.get_mut(id) else { return };
        let (index, token) = circuit.requester;
        let (relay, via, limit, role) = (circuit.relay, circuit.via, circuit.limit, circuit.role);
        let (share, dial, address) = (circuit.opening.take(), circuit.dial, circuit.address.take());
        let remote = address.unwrap_or_else(|| self.circuit_address(via, relay));
        let established = self.now;
        let Some(share) = share else { return };
        let admitted = self.admit_connection(share, |id| ConnectionInfo {
            id,
            peer,
            direction: direction(role),
            remote,
            socket: None,
            relayed: Some(Relayed { relay, via, limit }),
            established,
            rtt: None,
            is_superseded: false,
        });
        let connection = match admitted {
            Ok(connection) => connection,
            Err(refusal) => return self.circuit_refused(id, peer, refusal),
        };
        if let Some(circuit) = self.transport.circuits.get_mut(id) {
            circuit.connection = Some(connection);
        }
        self.reply(index, token, Reply::Upgraded(Ok(connection)));
        let dial = dial.and_then(|dial| self.dialing.take_token(index, dial));
        self.established(connection, share, Via::Circuit(id), dial);
    }

    /// We do not want the peer that a circuit leads to.
    fn circuit_refused(&mut self, id: CircuitId, peer: PeerId, refusal: Refusal) {
        let Some(circuit) = self.transport.circuits.get_mut(id) else { return };
        let ((index, token), role) = (circuit.requester, circuit.role);
        circuit.mux.close();
        let (relay, via) = (circuit.relay, circuit.via);
        self.totals.handshake_failed(direction(role), true);
        if direction(role) == Direction::Inbound {
            let reason = CloseReason::Refused(refusal);
            self.tell_inbound_failed(self.circuit_address(via, relay), Some(peer), reason);
        }
        self.retire_circuit(id);
        self.upgrade_failed(index, token, UpgradeError::Refused(refusal));
    }

    /// `/…/p2p/R/p2p-circuit`, by the address at which we are connected to the relay.
    fn circuit_address(&self, via: ConnectionId, relay: PeerId) -> Multiaddr {
        let relay_address =
            self.connections.get(via).map(|info| info.remote.clone()).unwrap_or_else(Multiaddr::empty);
        relay_address.with(Protocol::P2p(relay)).with(Protocol::P2pCircuit)
    }

    /// The circuit is over for us: its last bytes (an alert, a go-away) still leave, then the carrier ends.
    fn retire_circuit(&mut self, id: CircuitId) {
        let Some(mut circuit) = self.transport.circuits.remove(id) else { return };
        self.give_back(circuit.opening);
        let Some(carrier) = self.streams.get_mut(circuit.carrier) else { return };
        carrier.enqueue(std::mem::take(&mut circuit.out));
        while let Some(bytes) = circuit.mux.poll_transmit() {
            carrier.enqueue(bytes);
        }
        carrier.mode = Mode::Draining;
        carrier.finishing = true;
        self.streams.set_deadline(circuit.carrier, Some(self.now + DRAIN_TIMEOUT));
        self.work.push_back(Work::Write(circuit.carrier));
        self.work.push_back(Work::Read(circuit.carrier));
    }

    /// The stream under a circuit is gone.
    pub(super) fn carrier_lost(&mut self, id: CircuitId, fault: StreamFault) {
        let Some(circuit) = self.transport.circuits.remove(id) else { return };
        self.give_back(circuit.opening);
        match circuit.connection {
            Some(connection) => {
                let limit = circuit.reached(self.now).filter(|_| matches!(fault, StreamFault::Remote(_)));
                self.disconnected(
                    connection,
                    limit.map_or(CloseReason::Circuit(fault), CloseReason::CircuitLimit),
                );
            }
            None => {
                self.totals.handshake_failed(direction(circuit.role), true);
                self.upgrade_failed(circuit.requester.0, circuit.requester.1, UpgradeError::Carrier(fault))
            }
        }
    }

    fn give_back(&mut self, opening: Option<ConnectionShare>) {
        if let Some(share) = opening {
            self.swarm.resources.close_connection(share);
        }
    }

    fn upgrade_failed(&mut self, index: usize, token: Token, error: UpgradeError) {
        self.counters.add("circuits.upgrade.failed", 1);
        self.reply(index, token, Reply::Upgraded(Err(error)));
    }

    pub(super) fn expire_circuits(&mut self) {
        while let Some((_, id)) = self.transport.circuits.timers.pop_due(self.now) {
            if let Some(circuit) = self.transport.circuits.get_mut(id) {
                circuit.timer = None;
                circuit.mux.handle_timeout(self.now);
                self.schedule_circuit(id);
            }
        }
    }

    /// Sends the transport's goodbye; the caller tells everybody else.
    pub(super) fn close_transport(&mut self, connection: ConnectionId, code: u64) {
        let Some(link) = self.transport.links.get(&connection) else { return };
        match link.via {
            Via::Quic(id) => {
                self.transport.by_quic.insert(id, QuicUse::Abandoned);
                self.transport.quic.close(self.now, id, code, b"");
            }
            Via::Circuit(id) => {
                if let Some(circuit) = self.transport.circuits.get_mut(id) {
                    circuit.mux.close_with(u32::try_from(code).unwrap_or(0));
                }
                self.retire_circuit(id);
            }
        }
    }
}

impl Circuit {
    /// The limit that the circuit has reached, if it has. What the relay cut off at its limit may not all have arrived.
    fn reached(&self, now: Instant) -> Option<ReachedLimit> {
        let age = now.saturating_duration_since(self.opened);
        let data = self.limit.data.filter(|most| self.sent >= *most || self.received >= most - most / 8);
        let duration = self.limit.duration.filter(|most| age + DURATION_SLACK >= *most);
        data.map(ReachedLimit::Data).or(duration.map(ReachedLimit::Duration))
    }

    /// Why the muxer closed, as the reason for which its connection ended.
    fn close_reason(&self, reason: upgrade::CloseReason, now: Instant) -> CloseReason {
        match reason {
            upgrade::CloseReason::Local => CloseReason::Local,
            upgrade::CloseReason::Remote(code) => {
                CloseReason::Remote { code: u64::from(u32::from(code)), text: String::new() }
            }
            upgrade::CloseReason::Unresponsive => CloseReason::TimedOut,
            upgrade::CloseReason::Ended => {
                self.reached(now).map_or(CloseReason::CircuitFinished, CloseReason::CircuitLimit)
            }
            upgrade::CloseReason::Violation(error) => CloseReason::Muxer(error.to_string()),
            upgrade::CloseReason::Broken(error) => CloseReason::Transport(error),
        }
    }
}

fn direction(role: UpgradeRole) -> Direction {
    match role {
        UpgradeRole::Initiator => Direction::Outbound,
        UpgradeRole::Responder => Direction::Inbound,
    }
}
