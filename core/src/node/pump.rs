//! The pump: one queue of work, emptied after every input, so that there is one global order.

use std::{net::SocketAddr, sync::Arc};

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use peerless_proto::address;

use super::{
    Node,
    transport::{Link, QuicUse, Via},
};
use crate::{
    behaviour::{Input, Notice, PeerEvent},
    errors::{CloseReason, Refusal},
    ids::{ConnectionId, ConnectionShare, JobId, QuicId, SpliceId, StreamId},
    names::Direction,
    node::Event,
    quic::{QuicEvent, StreamNote},
    streams::windows::Windows,
    swarm::{
        addresses::AddressSource,
        table::{ConnectionInfo, Relayed},
    },
    trace::Glyph,
};

/// Something to do.
#[derive(Debug)]
pub(super) enum Work {
    /// Give an input to the behaviour with this index.
    Input(usize, Input),
    /// Tell all behaviours, in order.
    Tell(Input),
    /// See what can be read from a stream.
    Read(StreamId),
    /// See what can be written to a stream.
    Write(StreamId),
    /// One turn of a splice.
    Splice(SpliceId),
}

/// More steps than any one input can cause, unless two machines answer each other for ever; and more than each connection
/// can cause when all end at once.
const MAX_STEPS: usize = 100_000;
const STEPS_PER_CONNECTION: usize = 100;

/// Most characters of what a turn was cut off at.
const MAX_CULPRIT: usize = 200;

impl Node {
    /// Works until there is nothing left to do.
    pub(super) fn pump(&mut self) {
        self.pump_after(1);
    }

    /// The same after so many inputs at once.
    pub(super) fn pump_after(&mut self, inputs: usize) {
        let was_cut_off = std::mem::take(&mut self.is_cut_off);
        let most = MAX_STEPS.saturating_mul(inputs + 1)
            + STEPS_PER_CONNECTION * (self.connections.len() + self.streams.len());
        for _ in 0..most {
            if !self.work() {
                return;
            }
        }
        self.is_cut_off = true;
        self.counters.add("node.turns_cut_off", 1);
        if !was_cut_off {
            self.emit(Event::TurnCutOff { steps: most, at: self.culprit() });
        }
    }

    /// Does the next thing that is to be done. Returns whether there was one.
    fn work(&mut self) -> bool {
        if let Some(work) = self.work.pop_front() {
            self.step(work);
        } else if let Some(event) = self.transport.quic.poll_event() {
            self.quic_event(event);
        } else if let Some(circuit) = self.transport.busy_circuits.pop_front() {
            self.drive_circuit(circuit);
        } else {
            return self.start_queued_dial() || self.resume_splices() || self.prune();
        }
        true
    }

    /// What is to be done next, and by whom.
    fn culprit(&self) -> String {
        let text = match self.work.front() {
            Some(Work::Input(index, input)) => {
                format!("{}: {input:?}", self.behaviours[*index].behaviour.name())
            }
            Some(Work::Read(stream) | Work::Write(stream)) => {
                let protocol = self.streams.get(*stream).and_then(|stream| stream.protocol.as_ref());
                let name = protocol.map_or("a stream without protocol", |protocol| protocol.as_str());
                format!("{name}: {:?}", self.work.front())
            }
            Some(work) => format!("{work:?}"),
            None => "an event of QUIC, a circuit, a queued dial, a splice or pruning".into(),
        };
        text.chars().take(MAX_CULPRIT).collect()
    }

    fn step(&mut self, work: Work) {
        match work {
            Work::Input(index, input) => self.call(index, |behaviour, cx| behaviour.handle(cx, input)),
            Work::Tell(input) => {
                for index in 0..self.behaviours.len() {
                    self.call(index, |behaviour, cx| behaviour.handle(cx, input.clone()));
                }
            }
            Work::Read(stream) => self.read_stream(stream),
            Work::Write(stream) => self.write_stream(stream),
            Work::Splice(splice) => self.turn_splice(splice),
        }
    }

    fn quic_event(&mut self, event: QuicEvent) {
        match event {
            QuicEvent::Connected { id, peer, remote, outbound } => {
                self.quic_connected(id, peer, remote, outbound)
            }
            QuicEvent::Closed { id, remote, reason, .. } => self.quic_closed(id, remote, reason),
            QuicEvent::PathChanged { id, remote } => {
                let Some(connection) = self.quic_connection(id) else { return };
                let socket = self.listening_socket(id);
                self.connections.set_remote(connection, address::quic_v1(remote));
                self.connections.set_socket(connection, socket);
                self.swarm.pruner.reconsider();
                self.path_changed(connection);
                self.work.push_back(Work::Tell(Input::Peer(PeerEvent::PathChanged { connection })));
                self.tell_path_changed(connection);
                self.judge_again(connection);
            }
            QuicEvent::Stream { id, stream, event } => {
                if let Some(connection) = self.quic_connection(id) {
                    self.stream_note(connection, stream, event);
                }
            }
            QuicEvent::StreamsAvailable { id } => {
                if let Some(connection) = self.quic_connection(id) {
                    self.streams_granted(connection);
                }
            }
        }
    }

    fn quic_closed(&mut self, id: QuicId, remote: SocketAddr, reason: CloseReason) {
        if let Some(share) = self.swarm.opening.remove(&id) {
            self.swarm.resources.close_connection(share);
        }
        match self.transport.by_quic.remove(&id) {
            Some(QuicUse::Connected(connection)) => self.disconnected(connection, reason),
            Some(QuicUse::Dialing(dial)) => {
                self.totals.handshake_failed(Direction::Outbound, false);
                self.quic_attempt_failed(dial, id, reason);
            }
            Some(QuicUse::Abandoned) => {}
            None => {
                self.counters.add("quic.handshake.failed", 1);
                self.totals.handshake_failed(Direction::Inbound, false);
                let reason = match reason {
                    CloseReason::Local => CloseReason::Refused(Refusal::ShuttingDown),
                    reason => reason,
                };
                self.tell_inbound_failed(address::quic_v1(remote), None, reason);
            }
        }
    }

    fn quic_connected(&mut self, id: QuicId, peer: PeerId, remote: SocketAddr, outbound: bool) {
        let dial = match self.transport.by_quic.get(&id) {
            Some(QuicUse::Dialing(dial)) => Some(*dial),
            Some(_) => return,
            None => None,
        };
        let (established, socket) = (self.now, self.listening_socket(id));
        let make = |id| ConnectionInfo {
            id,
            peer,
            direction: if outbound { Direction::Outbound } else { Direction::Inbound },
            remote: address::quic_v1(remote),
            socket,
            relayed: None,
            established,
            rtt: None,
            is_superseded: false,
        };
        let admitted = self.swarm.take_opening(id).and_then(|share| {
            let connection = self.admit_connection(share, make)?;
            Ok((connection, share))
        });
        match admitted {
            Ok((connection, share)) => {
                self.transport.by_quic.insert(id, QuicUse::Connected(connection));
                self.established(connection, share, Via::Quic(id), dial);
            }
            Err(refusal) => self.turn_away(id, dial, (peer, remote), refusal),
        }
    }

    /// The local address of the socket of a connection, if others may connect to it.
    pub(super) fn listening_socket(&self, id: QuicId) -> Option<SocketAddr> {
        let info = self.transport.quic.info(id).filter(|_| self.accept_inbound)?;
        self.sockets.get(&info.socket).map(|bound| bound.local)
    }

    fn quic_connection(&self, id: QuicId) -> Option<ConnectionId> {
        match self.transport.by_quic.get(&id) {
            Some(QuicUse::Connected(connection)) => Some(*connection),
            _ => None,
        }
    }

    /// Something happened to a stream of a connection, whatever that runs over.
    pub(super) fn stream_note(&mut self, connection: ConnectionId, number: u64, note: StreamNote) {
        match note {
            StreamNote::Opened => self.stream_opened(connection, number),
            StreamNote::Readable => {
                if let Some(stream) = self.transport.stream(connection, number) {
                    self.work.push_back(Work::Read(stream));
                }
            }
            StreamNote::Writable => {
                if let Some(stream) = self.transport.stream(connection, number) {
                    self.work.push_back(Work::Write(stream));
                }
            }
            StreamNote::Stopped(code) => {
                if let Some(stream) = self.transport.stream(connection, number) {
                    self.remote_stopped(stream, code);
                }
            }
            StreamNote::Finished => {}
        }
    }

    /// A connection carries streams from now on.
    pub(super) fn established(
        &mut self,
        connection: ConnectionId,
        share: ConnectionShare,
        via: Via,
        dial: Option<JobId>,
    ) {
        let window = self.windows.as_mut().filter(|_| matches!(via, Via::Quic(_))).map(Windows::opened);
        let link = Link {
            via,
            share,
            streams: Default::default(),
            resets: Default::default(),
            negotiating: 0,
            may_miss_ends: true,
            window,
        };
        self.transport.links.insert(connection, link);
        self.resize_window(connection, true);
        self.measure(connection);
        let Some(info) = self.connections.get(connection) else { return };
        let (peer, address, direction) = (info.peer, info.remote.clone(), info.direction);
        self.swarm.tags.connected(self.now, peer);
        if !self.is_spared(connection) {
            self.swarm.pruner.inserted(self.now);
        }
        let relay = info.relayed.as_ref().map(|Relayed { relay, .. }| *relay);
        self.emit(Event::Connected { connection, peer, address, direction, relay });
        self.settle_in(connection);
        if let Some(dial) = dial {
            self.dial_succeeded(dial, connection);
        }
        self.serve_dials(peer, connection, relay.is_some());
        self.work.push_back(Work::Tell(Input::Peer(PeerEvent::Connected { connection, peer })));
    }

    /// Takes the transport's round-trip time over into the table.
    pub(super) fn measure(&mut self, connection: ConnectionId) {
        if let Some(rtt) = self.transport.rtt(connection) {
            self.connections.set_rtt(connection, rtt);
        }
    }

    /// A connection is over.
    pub(super) fn disconnected(&mut self, connection: ConnectionId, reason: CloseReason) {
        let Some(link) = self.transport.links.remove(&connection) else { return };
        for stream in link.streams.into_values() {
            self.stream_lost_with_connection(stream);
        }
        if let Some(windows) = self.windows.as_mut().filter(|_| link.window.is_some()) {
            windows.closed();
        }
        self.swarm.resources.close_connection(link.share);
        let Some(info) = self.connections.remove(connection) else { return };
        self.left_behind(&info);
        let (peer, remaining) = (info.peer, self.connections.of(&info.peer).len());
        self.swarm.tags.disconnected(&peer);
        let event = PeerEvent::Disconnected { connection, peer, remaining, reason: reason.clone() };
        self.work.push_back(Work::Tell(Input::Peer(event)));
        self.emit(Event::Disconnected { connection, peer, reason });
    }

    /// Tells the embedder what a behaviour says.
    pub(super) fn emit_notice(&mut self, index: usize, notice: Box<dyn Notice>) {
        let slot = &self.behaviours[index];
        let behaviour = slot.behaviour.name();
        self.emit(if slot.is_built_in {
            Event::from_notice(behaviour, notice)
        } else {
            Event::Notice { behaviour, notice }
        });
    }

    /// Tells the embedder, and whoever else must know.
    pub(super) fn emit(&mut self, event: Event) {
        self.trace.line(self.now, Glyph::Event, None, || event.to_string());
        self.totals.note(&event);
        match &event {
            Event::Identify(told) => {
                let (connection, peer, info) = (told.connection, told.peer, Arc::clone(&told.info));
                self.learn(told);
                self.learn_end_hearing(connection, &info.agent);
                self.work.push_back(Work::Tell(Input::Peer(PeerEvent::Identified {
                    connection,
                    peer,
                    info,
                })));
            }
            Event::Ping(ping) => {
                self.health.pinged(self.now, ping.connection, ping.result.as_ref().ok().copied());
                if let Ok(rtt) = &ping.result
                    && self.connections.get(ping.connection).is_some()
                {
                    self.connections.set_rtt(ping.connection, *rtt);
                    self.peerstore.measured(self.now, ping.peer, *rtt);
                }
            }
            _ => {}
        }
        self.events.push_back(event);
    }

    pub(super) fn advertise(&mut self, address: Multiaddr, source: AddressSource) {
        if self.addresses.add(address.clone(), source) && source != AddressSource::Observed {
            if source == AddressSource::Listen {
                self.emit(Event::Listening { address });
            }
            self.work.push_back(Work::Tell(Input::Addresses));
        }
    }

    pub(super) fn withdraw(&mut self, address: Multiaddr, source: AddressSource) {
        if self.addresses.remove(&address, source) && source != AddressSource::Observed {
            if source == AddressSource::Listen {
                self.emit(Event::ListenClosed { address });
            }
            self.work.push_back(Work::Tell(Input::Addresses));
        }
    }
}
