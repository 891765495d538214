//! QUIC as a pipe: datagrams in, authenticated connections with streams out, and the other way round (RFC 9000).
//!
//! The only folder that knows quinn-proto. It does no I/O, reads no clock and draws no randomness but what it is given:
//! with a handshake that is deterministic too, the same inputs make the same bytes in every process.
//!
//! | file            | what it is                                                                            |
//! |-----------------|---------------------------------------------------------------------------------------|
//! | `mod.rs`        | [`Quic`]: inputs, outputs and commands                                                |
//! | `pump.rs`       | what follows from an input: who is let in, events, ends                               |
//! | `connection.rs` | one connection, the table of them, the words for how one ends                         |
//! | `endpoint.rs`   | the endpoint with everything random injected; the rate limit                          |
//! | `admission.rs`  | [`Admission`]: who may connect                                                        |
//! | `timers.rs`     | when each connection wants to be woken                                                |
//! | `crypto.rs`     | [`QuicCrypto`], the seam to the handshake; [`TlsCrypto`], libp2p's                    |
//! | `config.rs`     | [`Config`]: limits, windows, timeouts                                                 |
//! | `clock.rs`      | our instants and quinn-proto's                                                        |
//! | `datagram.rs`, `event.rs`, `stats.rs` | the vocabulary                                                  |
//!
//! One endpoint serves all sockets, so that dialling, listening and hole punching share a port. quinn-proto knows nothing
//! of sockets: a connection sends from the one it was last heard on.

mod admission;
mod clock;
mod config;
mod congestion;
mod connection;
mod crypto;
mod datagram;
mod endpoint;
mod event;
mod pump;
mod stats;
mod timers;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use libp2p_identity::PeerId;
use quinn_proto::{DatagramEvent, Dir, Endpoint};

pub use admission::{Admission, Everybody, Verdict};
pub use config::Config;
pub use crypto::{ClientHandshake, QuicCrypto, TlsCrypto};
pub use datagram::{Datagram, Ecn, Transmit};
pub use event::{ConnectError, Info, OpenError, QuicEvent, Read, ReadError, StreamNote, Taken, WriteError};
pub use stats::{PathStats, Refused, Stats};

use self::{
    clock::{Clock, StdInstant, TokenTime},
    connection::{Connection, Phase, Table},
    endpoint::{Dialer, Rate},
    pump::Answers,
    timers::ConnectionTimers,
};
use crate::{
    errors::CloseReason,
    ids::{QuicId, SocketId},
    rng::Rng,
    time::{Deadline, Instant},
};

/// Most bytes of one batch: what fits a UDP datagram over IPv4, which is how the kernel takes a batch.
const MAX_BATCH: usize = 65_507;

/// All QUIC connections of a node.
///
/// Feed inputs (`handle_*`) and commands in any order; then take [`poll_transmit`](Self::poll_transmit) until it has none,
/// [`poll_event`](Self::poll_event) until it has none, and [`deadline`](Self::deadline). Inputs are total: whatever comes
/// from the network ends in an event or a count. It pays to feed all datagrams at hand before polling, because then they
/// are acknowledged together.
///
/// Instants must not go backwards; one that does counts as the latest seen.
pub struct Quic {
    config: Config,
    crypto: Arc<dyn QuicCrypto>,
    endpoint: Endpoint,
    dialer: Dialer,
    clock: Clock,
    now: Instant,
    token_time: TokenTime,
    sockets: BTreeMap<SocketId, SocketAddr>,
    connections: Table,
    timers: ConnectionTimers,
    /// Connections whose events are to be taken, whose packets are to be asked for, whose deadline is to be looked up.
    touched: VecDeque<QuicId>,
    dirty: VecDeque<QuicId>,
    stale_timers: Vec<QuicId>,
    unvalidated: Rate,
    /// Beside [`Config::max_half_open`].
    most_half_open: usize,
    answers: Answers,
    /// What quinn-proto writes stateless answers into.
    scratch: Vec<u8>,
    events: VecDeque<QuicEvent>,
    stats: Stats,
}

impl std::fmt::Debug for Quic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quic").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Quic {
    /// A pipe without sockets. `rng` is used up by it alone. Without `accept_inbound` it only dials. With the same
    /// `reset_key` as before a restart it tells peers at once that their connections are gone (RFC 9000 section 10.3).
    pub fn new(
        config: Config,
        crypto: Arc<dyn QuicCrypto>,
        rng: &Rng,
        reset_key: [u8; 32],
        accept_inbound: bool,
        now: Instant,
    ) -> Self {
        let transport = config.transport();
        let token_time = TokenTime::default();
        let server = accept_inbound.then_some(&*crypto);
        Self {
            endpoint: endpoint::new(rng, reset_key, &transport, server, token_time.clone()),
            dialer: Dialer::new(rng, transport),
            unvalidated: Rate::new(config.unvalidated_rate),
            most_half_open: usize::MAX,
            config,
            crypto,
            clock: Clock::new(),
            now,
            token_time,
            sockets: BTreeMap::new(),
            connections: Table::default(),
            timers: ConnectionTimers::default(),
            touched: VecDeque::new(),
            dirty: VecDeque::new(),
            stale_timers: Vec::new(),
            answers: Answers::default(),
            scratch: Vec::new(),
            events: VecDeque::new(),
            stats: Stats::default(),
        }
    }

    /// A socket was bound to `local`, or is gone. Connections of a socket that is gone move to another of its address
    /// family, if there is one.
    pub fn handle_socket(&mut self, now: Instant, socket: SocketId, local: Option<SocketAddr>) {
        self.tick(now);
        match local {
            Some(local) => {
                self.sockets.insert(socket, local);
            }
            None => {
                self.sockets.remove(&socket);
                self.leave_socket(socket);
            }
        }
    }

    /// A socket is bound as before, but has lost one of the machine's addresses: connections that may have used it find out
    /// at once whether they go on from another (RFC 9000 section 9).
    pub fn addresses_changed(&mut self, now: Instant, socket: SocketId) {
        self.tick(now);
        let ids: Vec<QuicId> = self.connections.ids().collect();
        for id in ids {
            let Some(connection) = self.connections.get_mut(id).filter(|c| c.socket == socket) else {
                continue;
            };
            connection.quinn.local_address_changed();
            self.touch(id);
        }
    }

    /// A datagram came; if it is the first of somebody, `admission` decides.
    pub fn handle_datagram(&mut self, now: Instant, datagram: Datagram, admission: &mut dyn Admission) {
        let at = self.tick(now);
        self.token_time.set(self.now);
        self.stats.datagrams_in += 1;
        self.stats.bytes_in += datagram.data.len() as u64;
        let Datagram { socket, remote, local_ip, ecn, data } = datagram;
        if remote.port() == 0 {
            // Nobody can be answered there.
            self.stats.refused.unroutable += 1;
            return;
        }
        self.scratch.clear();
        let ecn = ecn.map(Ecn::to_quinn);
        match self.endpoint.handle(at, remote, local_ip, ecn, data, &mut self.scratch) {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                let Some(id) = self.connections.id(handle) else { return };
                let Some(connection) = self.connections.get_mut(id) else { return };
                if connection.handle(event, socket) && connection.quinn.remote_address() == remote {
                    connection.socket = socket;
                }
                self.touch(id);
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.admit(at, socket, incoming, admission),
            Some(DatagramEvent::Response(transmit)) => {
                self.stats.refused.answered += 1;
                self.answer(socket, &transmit);
            }
            None => self.stats.refused.unroutable += 1,
        }
    }

    /// Time has passed. Nothing happens before the [`deadline`](Self::deadline).
    pub fn handle_timeout(&mut self, now: Instant) {
        let at = self.tick(now);
        self.look_up_deadlines();
        while let Some(id) = self.timers.pop_due(self.now) {
            let Some(connection) = self.connections.get_mut(id) else { continue };
            if connection.handshake_deadline().is_some_and(|deadline| deadline <= self.now) {
                self.give_up(id);
            } else {
                connection.quinn.handle_timeout(at);
                self.touch(id);
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next: at once if there are events to be polled.
    pub fn deadline(&mut self) -> Option<Deadline> {
        self.settle();
        if !self.events.is_empty() {
            return Some(Deadline::new(self.now, "quic event"));
        }
        self.look_up_deadlines();
        self.timers.next().map(|at| Deadline::new(at, "quic timer"))
    }

    /// The next datagrams to send: up to `max_segments` of one size to one destination, written to `buf`, which is
    /// cleared. Connections take turns, one batch each.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        max_segments: usize,
        buf: &mut Vec<u8>,
    ) -> Option<Transmit> {
        let at = self.tick(now);
        self.settle();
        buf.clear();
        if let Some(transmit) = self.answers.pop(buf) {
            return Some(self.count_out(transmit));
        }
        while let Some(id) = self.dirty.pop_front() {
            let Some(connection) = self.connections.get_mut(id) else { continue };
            let segments = max_segments.min(MAX_BATCH / usize::from(connection.quinn.current_mtu())).max(1);
            let Some(transmit) = connection.quinn.poll_transmit(at, segments, buf) else {
                connection.dirty = false;
                self.touch_timer(id);
                self.settle_one(id);
                continue;
            };
            let transmit = Transmit::new(connection.socket, &transmit);
            self.dirty.push_back(id);
            if self.sockets.contains_key(&transmit.socket) {
                return Some(self.count_out(transmit));
            }
            self.stats.refused.no_socket += 1;
            buf.clear();
        }
        None
    }

    /// What happened next.
    pub fn poll_event(&mut self) -> Option<QuicEvent> {
        self.settle();
        self.events.pop_front()
    }

    /// Dials from whichever socket fits. [`QuicEvent::Connected`] or [`QuicEvent::Closed`] follows; with `expected`, any other peer fails the
    /// handshake.
    ///
    /// # Errors
    /// If there is no socket of that address family, or the address is not one to send to.
    pub fn connect(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        expected: Option<PeerId>,
    ) -> Result<QuicId, ConnectError> {
        self.connect_from(now, remote, expected, None)
    }

    /// The same from `socket`, if it is there.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_from(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        expected: Option<PeerId>,
        socket: Option<SocketId>,
    ) -> Result<QuicId, ConnectError> {
        let at = self.tick(now);
        let wanted = socket.filter(|socket| self.sockets.contains_key(socket));
        let socket = wanted.or_else(|| self.socket_for(&remote)).ok_or(ConnectError::NoSocket)?;
        let handshake = self.crypto.client(expected);
        let config = self.dialer.config(handshake.config);
        // The name is needed to begin TLS and never sent; rust-libp2p has the same.
        let (handle, quinn) =
            self.endpoint.connect(at, config, remote, "l").map_err(|error| match error {
                quinn_proto::ConnectError::InvalidRemoteAddress(remote) => ConnectError::Address(remote),
                error => ConnectError::Handshake(error.to_string()),
            })?;
        let deadline = self.now + self.config.handshake_timeout;
        let phase = Phase::Handshaking { deadline, expected, refusal: Some(handshake.refusal) };
        let id = self.connections.insert(handle, Connection::new(quinn, socket, remote, true, phase));
        self.stats.dialing += 1;
        self.touch(id);
        Ok(id)
    }

    /// Opens a bidirectional stream. The remote learns of it with the first bytes written.
    ///
    /// # Errors
    /// If the peer grants no more streams, or the connection is gone.
    pub fn open(&mut self, now: Instant, id: QuicId) -> Result<u64, OpenError> {
        self.tick(now);
        let connection = self.live(id).ok_or(OpenError::Gone)?;
        connection.quinn.streams().open(Dir::Bi).map(u64::from).ok_or(OpenError::Blocked)
    }

    /// Reads the next bytes of a stream, `max` at most and at least one.
    ///
    /// # Errors
    /// If the remote reset the stream, or there is no such reading half.
    pub fn read(&mut self, now: Instant, id: QuicId, stream: u64, max: usize) -> Result<Read, ReadError> {
        self.tick(now);
        let connection = self.live(id).ok_or(ReadError::Gone)?;
        let (read, tell_peer) = connection.read(stream, max);
        if tell_peer {
            self.touch_output(id);
        }
        read
    }

    /// Reads up to `most` bytes of a stream, chunk by chunk: the same as to [`read`](Self::read) again and again, and
    /// cheaper. An error may come after some bytes.
    ///
    /// # Errors
    /// If the remote reset the stream, or there is no such reading half.
    pub fn take(
        &mut self,
        now: Instant,
        id: QuicId,
        stream: u64,
        most: usize,
        each: impl FnMut(Bytes),
    ) -> Result<Taken, ReadError> {
        self.tick(now);
        let connection = self.live(id).ok_or(ReadError::Gone)?;
        let (taken, tell_peer) = connection.take(stream, most, each);
        if tell_peer {
            self.touch_output(id);
        }
        taken
    }

    /// Writes as much of `data` as there is room for and takes it off its front; tells how much.
    ///
    /// # Errors
    /// If there is no room at all, the remote stopped the stream, or there is no such writing half.
    pub fn write(
        &mut self,
        now: Instant,
        id: QuicId,
        stream: u64,
        data: &mut Bytes,
    ) -> Result<usize, WriteError> {
        self.command(now, id, |connection| connection.write(stream, data)).ok_or(WriteError::Gone)?
    }

    /// Nothing more will be written. [`StreamNote::Finished`] follows once all has been acknowledged.
    ///
    /// # Errors
    /// If the remote stopped the stream, or there is no such writing half.
    pub fn finish(&mut self, now: Instant, id: QuicId, stream: u64) -> Result<(), WriteError> {
        self.command(now, id, |connection| connection.finish(stream)).ok_or(WriteError::Gone)?
    }

    /// Gives up writing; what has not arrived may be lost. Nothing happens if there is no such writing half.
    pub fn reset(&mut self, now: Instant, id: QuicId, stream: u64, code: u64) {
        self.command(now, id, |connection| connection.reset(stream, code));
    }

    /// Gives up reading and asks the remote to write no more. Nothing happens if there is no such reading half.
    pub fn stop(&mut self, now: Instant, id: QuicId, stream: u64, code: u64) {
        self.command(now, id, |connection| connection.stop(stream, code));
    }

    /// Closes a connection and all its streams at once; the remote is told once, and again if it goes on sending.
    /// [`QuicEvent::Closed`] follows.
    pub fn close(&mut self, now: Instant, id: QuicId, code: u64, reason: &[u8]) {
        let at = self.tick(now);
        // What has happened before is reported before.
        self.settle_one(id);
        let Some(connection) = self.live(id) else { return };
        connection.close(at, code, reason);
        self.report_end(id, CloseReason::Local);
        self.touch(id);
    }

    /// Closes all connections, handshakes under way included.
    pub fn close_all(&mut self, now: Instant, code: u64) {
        for id in self.connections.ids().collect::<Vec<_>>() {
            self.close(now, id, code, b"");
        }
    }

    /// What is known about a connection that has not ended.
    pub fn info(&self, id: QuicId) -> Option<Info> {
        let connection = self.connections.get(id).filter(|connection| !connection.is_closing())?;
        Some(Info {
            remote: connection.quinn.remote_address(),
            socket: connection.socket,
            local_ip: connection.quinn.local_ip(),
            outbound: connection.outbound,
            peer: connection.peer(),
            rtt: connection.quinn.rtt(),
            mtu: connection.quinn.current_mtu(),
        })
    }

    /// How well the path of a connection carries that has not ended.
    pub fn path_stats(&self, id: QuicId) -> Option<PathStats> {
        let connection = self.connections.get(id).filter(|connection| !connection.is_closing())?;
        Some(connection.path_stats())
    }

    /// The smoothed round-trip time of a connection that has not ended.
    pub fn rtt(&self, id: QuicId) -> Option<Duration> {
        let connection = self.connections.get(id).filter(|connection| !connection.is_closing())?;
        Some(connection.quinn.rtt())
    }

    /// No more inbound handshakes than this may be under way from now on, whatever [`Config::max_half_open`] says.
    pub fn limit_half_open(&mut self, most: usize) {
        self.most_half_open = most;
    }

    /// How many bytes the peer may have under way on the connection from now on, unread by us. What it has been granted
    /// stays granted: a smaller window begins to count as it is used up.
    pub fn set_connection_window(&mut self, now: Instant, id: QuicId, bytes: u64) {
        self.command(now, id, |connection| connection.set_window(bytes));
    }

    /// How many connections are held, whatever their state; [`stats`](Self::stats) tells them apart.
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether no connection is held, not even one that is over and answers late packets.
    pub fn is_empty(&self) -> bool {
        self.connections.len() == 0
    }

    /// Numbers.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Moves the clock on, never back.
    fn tick(&mut self, now: Instant) -> StdInstant {
        self.now = self.now.max(now);
        self.clock.to_std(self.now)
    }

    /// A connection whose end has not been reported.
    fn live(&mut self, id: QuicId) -> Option<&mut Connection> {
        self.connections.get_mut(id).filter(|connection| !connection.is_closing())
    }

    fn command<R>(
        &mut self,
        now: Instant,
        id: QuicId,
        command: impl FnOnce(&mut Connection) -> R,
    ) -> Option<R> {
        self.tick(now);
        let result = command(self.live(id)?);
        self.touch_output(id);
        Some(result)
    }

    fn count_out(&mut self, transmit: Transmit) -> Transmit {
        self.stats.datagrams_out +=
            transmit.segment_size.map_or(1, |segment| transmit.size.div_ceil(segment.max(1))) as u64;
        self.stats.bytes_out += transmit.size as u64;
        transmit
    }
}
