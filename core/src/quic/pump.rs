//! What follows from an input: who is let in, what is reported, how connections end.

use std::{collections::VecDeque, net::SocketAddr};

use libp2p_identity::PeerId;
use quinn_proto::{ConnectionError, Dir, EndpointEvent, Event, Incoming, StreamEvent};

use super::{
    Admission, Quic, QuicEvent, StreamNote, Transmit, Verdict,
    clock::StdInstant,
    connection::{self, Connection, Phase, close_reason},
};
use crate::{
    errors::CloseReason,
    ids::{QuicId, SocketId},
};

/// Most connections that ended by no command of ours and are still kept; more are forgotten at once.
const MAX_CLOSING: usize = 1024;

/// Application error code of a connection whose peer did not prove who it is; libp2p assigns none.
const NO_IDENTITY: u64 = 0;

impl Quic {
    /// Marks a connection after an input: it may have events, packets and another deadline.
    pub(super) fn touch(&mut self, id: QuicId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if !std::mem::replace(&mut connection.touched, true) {
            self.touched.push_back(id);
        }
        self.touch_output(id);
    }

    /// Marks a connection after a command: it may have packets and another deadline.
    pub(super) fn touch_output(&mut self, id: QuicId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if !std::mem::replace(&mut connection.dirty, true) {
            self.dirty.push_back(id);
        }
        self.touch_timer(id);
    }

    pub(super) fn touch_timer(&mut self, id: QuicId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if !std::mem::replace(&mut connection.stale_timer, true) {
            self.stale_timers.push(id);
        }
    }

    /// Tells the timers when the marked connections want to be woken.
    pub(super) fn look_up_deadlines(&mut self) {
        while let Some(id) = self.stale_timers.pop() {
            let Some(connection) = self.connections.get_mut(id) else { continue };
            connection.stale_timer = false;
            let timer = connection.quinn.poll_timeout().map(|at| self.clock.to_ours(at));
            let due = [timer, connection.handshake_deadline()].into_iter().flatten().min();
            self.timers.set(id, due);
        }
    }

    /// Takes the events of all marked connections.
    pub(super) fn settle(&mut self) {
        while let Some(id) = self.touched.pop_front() {
            self.settle_one(id);
        }
    }

    /// Takes the events of one connection until it is quiet.
    pub(super) fn settle_one(&mut self, id: QuicId) {
        let handle = connection::handle(id);
        let mut drained = false;
        loop {
            let Some(connection) = self.connections.get_mut(id) else { return };
            connection.touched = false;
            while let Some(event) = connection.quinn.poll_endpoint_events() {
                drained |= event.is_drained();
                if let Some(reply) = self.endpoint.handle_event(handle, event) {
                    connection.quinn.handle_event(reply);
                }
            }
            match connection.quinn.poll() {
                Some(event) => self.on_event(id, event),
                None => break,
            }
        }
        if drained {
            self.remove(id);
        } else {
            self.report_path(id);
        }
    }

    /// Decides about somebody who wants to connect.
    pub(super) fn admit(
        &mut self,
        at: StdInstant,
        socket: SocketId,
        incoming: Incoming,
        admission: &mut dyn Admission,
    ) {
        self.scratch.clear();
        if self.answers.is_full() {
            self.stats.refused.ignored += 1;
            return self.endpoint.ignore(incoming);
        }
        let validated = incoming.remote_address_validated();
        let verdict = admission.admit(self.now, incoming.remote_address(), validated);
        if verdict == Verdict::Ignore {
            self.stats.refused.denied += 1;
            return self.endpoint.ignore(incoming);
        }
        // Spoofed addresses get half of the room at most; the other half is for those that have shown that they receive.
        let max_half_open = self.config.max_half_open.min(self.most_half_open);
        let crowded = self.stats.half_open >= max_half_open / 2;
        let unvalidated = incoming.may_retry() && !validated;
        let limit = self.config.max_connections;
        if verdict == Verdict::Refuse {
            self.stats.refused.denied += 1;
            let refusal = self.endpoint.refuse(incoming, &mut self.scratch);
            self.answer(socket, &refusal);
        } else if limit != 0 && self.connections.len() >= limit {
            self.stats.refused.connections += 1;
            let refusal = self.endpoint.refuse(incoming, &mut self.scratch);
            self.answer(socket, &refusal);
        } else if unvalidated && (verdict == Verdict::Validate || crowded || !self.unvalidated.pass(self.now))
        {
            self.stats.refused.retried += 1;
            match self.endpoint.retry(incoming, &mut self.scratch) {
                Ok(retry) => self.answer(socket, &retry),
                Err(error) => self.endpoint.ignore(error.into_incoming()),
            }
        } else if self.stats.half_open >= max_half_open {
            self.stats.refused.half_open += 1;
            let refusal = self.endpoint.refuse(incoming, &mut self.scratch);
            self.answer(socket, &refusal);
        } else {
            self.accept(at, socket, incoming, admission);
        }
    }

    fn accept(
        &mut self,
        at: StdInstant,
        socket: SocketId,
        incoming: Incoming,
        admission: &mut dyn Admission,
    ) {
        let remote = incoming.remote_address();
        match self.endpoint.accept(incoming, at, &mut self.scratch, None) {
            Ok((handle, quinn)) => {
                let deadline = self.now + self.config.handshake_timeout;
                let phase = Phase::Handshaking { deadline, expected: None, refusal: None };
                let connection = Connection::new(quinn, socket, remote, false, phase);
                let id = self.connections.insert(handle, connection);
                self.stats.half_open += 1;
                admission.admitted(self.now, id, remote);
                self.touch(id);
            }
            Err(error) => {
                self.stats.refused.invalid += 1;
                if let Some(response) = error.response {
                    self.answer(socket, &response);
                }
            }
        }
    }

    /// Queues what quinn-proto wrote to `scratch`.
    pub(super) fn answer(&mut self, socket: SocketId, transmit: &quinn_proto::Transmit) {
        self.answers.push(Transmit::new(socket, transmit), &self.scratch[..transmit.size]);
    }

    /// The handshake took too long.
    pub(super) fn give_up(&mut self, id: QuicId) {
        self.settle_one(id);
        // It may have been completed, or have failed, by what had come before.
        if self.live(id).is_some_and(|connection| connection.handshake_deadline().is_some()) {
            self.stats.refused.timed_out += 1;
            self.report_end(id, CloseReason::TimedOut);
            self.forget(id);
        } else {
            self.touch(id);
        }
    }

    /// Moves all connections of a socket that is gone to another.
    pub(super) fn leave_socket(&mut self, socket: SocketId) {
        let ids: Vec<QuicId> = self.connections.ids().collect();
        for id in ids {
            let Some(connection) = self.connections.get(id).filter(|c| c.socket == socket) else { continue };
            let Some(other) = self.socket_for(&connection.remote) else { continue };
            let Some(connection) = self.connections.get_mut(id) else { continue };
            connection.socket = other;
            connection.quinn.local_address_changed();
            self.touch(id);
        }
    }

    /// Whether there is a socket to dial `remote` from.
    pub(crate) fn reaches(&self, remote: &SocketAddr) -> bool {
        self.socket_for(remote).is_some()
    }

    /// The socket to dial `remote` from: of its address family, and rather one that is not confined to, or away from,
    /// this machine.
    pub(super) fn socket_for(&self, remote: &SocketAddr) -> Option<SocketId> {
        let of_family = || self.sockets.iter().filter(|(_, local)| local.is_ipv4() == remote.is_ipv4());
        let fitting = of_family().find(|(_, local)| {
            local.ip().is_unspecified() || local.ip().is_loopback() == remote.ip().is_loopback()
        });
        fitting.or_else(|| of_family().next()).map(|(socket, _)| *socket)
    }

    fn on_event(&mut self, id: QuicId, event: Event) {
        match event {
            Event::Connected => self.on_connected(id),
            Event::ConnectionLost { reason } => self.on_lost(id, &reason),
            Event::Stream(event) => self.on_stream_event(id, event),
            Event::HandshakeDataReady | Event::DatagramReceived | Event::DatagramsUnblocked => {}
        }
    }

    fn on_connected(&mut self, id: QuicId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Phase::Handshaking { expected, .. } = connection.phase else { return };
        let found = connection.quinn.crypto_session().peer_identity().and_then(|i| self.crypto.peer_of(i));
        match (found, expected) {
            (None, _) => self.refuse_peer(id, CloseReason::Handshake("the peer has no identity".into())),
            (Some(found), Some(expected)) if found != expected => {
                self.refuse_peer(id, CloseReason::WrongPeer { expected, found });
            }
            (Some(peer), _) => self.report_connected(id, peer),
        }
    }

    /// The last line of defence: a handshake that let somebody through whom it should not have.
    fn refuse_peer(&mut self, id: QuicId, reason: CloseReason) {
        let at = self.clock.to_std(self.now);
        if let Some(connection) = self.connections.get_mut(id) {
            connection.close(at, NO_IDENTITY, b"");
            self.report_end(id, reason);
        }
    }

    fn report_connected(&mut self, id: QuicId, peer: PeerId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.phase = Phase::Connected(peer);
        let (remote, outbound) = (connection.quinn.remote_address(), connection.outbound);
        connection.remote = remote;
        let handshaking = if outbound { &mut self.stats.dialing } else { &mut self.stats.half_open };
        *handshaking -= 1;
        self.stats.connected += 1;
        self.events.push_back(QuicEvent::Connected { id, peer, remote, outbound });
    }

    fn on_lost(&mut self, id: QuicId, error: &ConnectionError) {
        let Some(connection) = self.live(id) else { return };
        let refusal = match &connection.phase {
            Phase::Handshaking { refusal: Some(refusal), .. } => refusal(),
            _ => None,
        };
        let was_connected = connection.peer().is_some();
        self.report_end(id, refusal.unwrap_or_else(|| close_reason(error, was_connected)));
        if self.stats.closing > MAX_CLOSING {
            self.stats.refused.forgotten += 1;
            self.forget(id);
        }
    }

    fn on_stream_event(&mut self, id: QuicId, event: StreamEvent) {
        let Some(connection) = self.connections.get_mut(id).filter(|connection| !connection.is_closing())
        else {
            return;
        };
        let events = &mut self.events;
        let mut report = |stream, event| {
            let event = QuicEvent::Stream { id, stream, event };
            // quinn-proto says "readable" once a packet; nobody has to hear it twice in a row.
            if events.back() != Some(&event) {
                events.push_back(event);
            }
        };
        match event {
            StreamEvent::Opened { dir: Dir::Bi } => {
                while let Some(stream) = connection.quinn.streams().accept(Dir::Bi) {
                    report(stream.into(), StreamNote::Opened);
                }
                if connection.grant_streams(self.config.max_streams) {
                    self.touch_output(id);
                }
            }
            StreamEvent::Readable { id } => report(id.into(), StreamNote::Readable),
            StreamEvent::Writable { id } => report(id.into(), StreamNote::Writable),
            StreamEvent::Finished { id } => report(id.into(), StreamNote::Finished),
            StreamEvent::Stopped { id, error_code } => {
                report(id.into(), StreamNote::Stopped(error_code.into_inner()));
            }
            StreamEvent::Available { dir: Dir::Bi } => events.push_back(QuicEvent::StreamsAvailable { id }),
            // We grant no unidirectional streams and open none.
            StreamEvent::Opened { dir: Dir::Uni } | StreamEvent::Available { dir: Dir::Uni } => {}
        }
    }

    /// quinn-proto has no event for this.
    fn report_path(&mut self, id: QuicId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let remote = connection.quinn.remote_address();
        if connection.remote != remote && connection.peer().is_some() {
            connection.remote = remote;
            self.events.push_back(QuicEvent::PathChanged { id, remote });
        }
    }

    /// Reports the end of a connection, once.
    pub(super) fn report_end(&mut self, id: QuicId, reason: CloseReason) {
        let Some(connection) = self.live(id) else { return };
        let (remote, outbound) = (connection.quinn.remote_address(), connection.outbound);
        let before = std::mem::replace(&mut connection.phase, Phase::Closing);
        let was_connected = matches!(before, Phase::Connected(_));
        let count = match (was_connected, outbound) {
            (true, _) => &mut self.stats.connected,
            (false, true) => &mut self.stats.dialing,
            (false, false) => &mut self.stats.half_open,
        };
        *count -= 1;
        self.stats.closing += 1;
        self.events.push_back(QuicEvent::Closed { id, remote, reason, was_connected });
    }

    /// Lets go of a connection without waiting for late packets.
    fn forget(&mut self, id: QuicId) {
        self.endpoint.handle_event(connection::handle(id), EndpointEvent::drained());
        self.remove(id);
    }

    /// Lets go of all connections that are over, without waiting for late packets.
    pub(crate) fn forget_all(&mut self) {
        for id in self.connections.ids().collect::<Vec<_>>() {
            if self.connections.get(id).is_some_and(Connection::is_closing) {
                self.forget(id);
            }
        }
    }

    /// Lets go of a connection that quinn-proto's endpoint has let go of.
    fn remove(&mut self, id: QuicId) {
        self.report_end(id, CloseReason::Transport("the connection was dropped".into()));
        if self.connections.remove(id).is_some() {
            self.stats.closing -= 1;
            self.timers.set(id, None);
        }
    }
}

/// Answers that belong to no connection, waiting to be sent.
#[derive(Debug, Default)]
pub(super) struct Answers {
    queue: VecDeque<(Transmit, Vec<u8>)>,
    /// Buffers to use again.
    spare: Vec<Vec<u8>>,
}

impl Answers {
    /// Most answers that wait.
    const MAX: usize = 1024;

    /// Most buffers kept for use again.
    const MAX_SPARE: usize = 64;

    fn is_full(&self) -> bool {
        self.queue.len() >= Self::MAX
    }

    /// Queues an answer, unless too many wait: none of them is owed.
    fn push(&mut self, transmit: Transmit, data: &[u8]) {
        if !self.is_full() {
            let mut buf = self.spare.pop().unwrap_or_default();
            buf.clear();
            buf.extend_from_slice(data);
            self.queue.push_back((transmit, buf));
        }
    }

    /// Writes the next answer to `buf`.
    pub(super) fn pop(&mut self, buf: &mut Vec<u8>) -> Option<Transmit> {
        let (transmit, data) = self.queue.pop_front()?;
        buf.extend_from_slice(&data);
        if self.spare.len() < Self::MAX_SPARE {
            self.spare.push(data);
        }
        Some(transmit)
    }
}
