//! The task that drives the node: readable, deadline or command; then transmits, events, and the next deadline.

use std::{
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use async_io::Timer;
use peerless_core::{
    PeerId,
    behaviour::ProtocolName,
    event::{AppStreamEvent, DialError, Event, StreamFault},
    ids::{ConnectionId, DialId, StreamId},
    node::Node,
    protocols::{ping, relay::client::ReserveError},
    time::Instant,
};

use crate::{
    Config, IoStats, Stats,
    clock::Clock,
    handle::{Dialed, Failed, Reservation},
    resolve::{self, MAX_LOOKUPS},
    socket::{Pending, ReceiveBuffers, Sent, Socket},
    stream::StreamState,
    wait::{Queue, Waits, Wakes, set},
};

/// Datagrams received before other tasks have their turn, empty ones included.
const RECEIVE_BUDGET: usize = 256;

/// What the driver, the handles and the streams share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    pub(crate) peer: PeerId,
    pub(crate) local: Vec<SocketAddr>,
}

/// The node and everybody who waits for something of it. Locked for the time of one step and never while anything is
/// awaited.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) node: Node,
    clock: Clock,
    /// Taken when the driver is woken, so that it is woken once.
    driver: Option<Waker>,
    pub(crate) wakes: Wakes,
    pub(crate) streams: BTreeMap<StreamId, StreamState>,
    pub(crate) dials: Waits<DialId, Result<Dialed, Failed<DialError>>>,
    pub(crate) pings: Waits<ConnectionId, Result<Duration, Failed<ping::Failure>>>,
    pub(crate) reservations: Waits<PeerId, Result<Reservation, Failed<ReserveError>>>,
    pub(crate) closing: Waits<ConnectionId, ()>,
    pub(crate) ending: Waits<(), ()>,
    pub(crate) events: Queue<Event>,
    pub(crate) incoming: Queue<Inbound>,
    pub(crate) lookups: usize,
    pub(crate) stopping: bool,
    pub(crate) stopped: bool,
    io: IoStats,
    events_missed: u64,
    streams_refused: u64,
}

/// A stream that a remote opened.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) stream: StreamId,
    pub(crate) connection: ConnectionId,
    pub(crate) peer: PeerId,
    pub(crate) protocol: ProtocolName,
}

impl Shared {
    pub(crate) fn new(state: State, local: Vec<SocketAddr>) -> Self {
        Self { peer: state.node.local_peer(), local, state: Mutex::new(state) }
    }

    /// Does one step on the state, and wakes whom that concerns when the lock is free again.
    pub(crate) fn step<R>(&self, step: impl FnOnce(&mut State, Instant) -> R) -> R {
        let mut state = self.lock();
        let now = state.clock.now();
        let result = step(&mut state, now);
        let wakes = std::mem::take(&mut state.wakes);
        drop(state);
        wakes.into_iter().for_each(Waker::wake);
        result
    }

    /// A step that commands the node: the driver has to see to the consequences.
    pub(crate) fn command<R>(&self, step: impl FnOnce(&mut State, Instant) -> R) -> R {
        self.step(|state, now| {
            let result = step(state, now);
            state.wake_driver();
            result
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic inside the node is a defect, and what it left behind no worse for the others than an error.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(crate) fn new(node: Node, clock: Clock, config: &Config) -> Self {
        Self {
            node,
            clock,
            driver: None,
            wakes: Wakes::new(),
            streams: BTreeMap::new(),
            dials: Waits::default(),
            pings: Waits::default(),
            reservations: Waits::default(),
            closing: Waits::default(),
            ending: Waits::default(),
            events: Queue::new(config.event_queue),
            incoming: Queue::new(config.incoming_queue),
            lookups: 0,
            stopping: false,
            stopped: false,
            io: IoStats::default(),
            events_missed: 0,
            streams_refused: 0,
        }
    }

    pub(crate) fn wake_driver(&mut self) {
        self.wakes.extend(self.driver.take());
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            io: self.io,
            streams: self.streams.len(),
            waiting: self.dials.len()
                + self.pings.len()
                + self.reservations.len()
                + self.closing.len()
                + self.ending.len(),
            wakers: self.events.waiting()
                + self.incoming.waiting()
                + self.streams.values().map(StreamState::wakers).sum::<usize>(),
            lookups: self.lookups,
            events_missed: self.events_missed,
            streams_refused: self.streams_refused,
        }
    }

    fn on_event(&mut self, shared: &Arc<Shared>, now: Instant, event: Event) {
        let wakes = &mut self.wakes;
        match &event {
            Event::Stream { stream, event } => return self.on_stream(now, *stream, event),
            Event::Resolve { query, .. } if self.lookups >= MAX_LOOKUPS => {
                return self.node.handle_resolved(now, *query, Err("the resolver is busy".into()));
            }
            Event::Resolve { query, name, family } => {
                self.lookups += 1;
                return resolve::ask(shared, *query, name.clone(), *family);
            }
            Event::Dialed { dial, connection, peer } => {
                let dialed = Dialed { connection: *connection, peer: *peer };
                self.dials.finish(*dial, &Ok(dialed), wakes);
            }
            Event::DialFailed { dial, error, .. } => {
                self.dials.finish(*dial, &Err(Failed::Node(error.clone())), wakes);
            }
            Event::Ping(ping) => {
                let outcome = ping.result.clone().map_err(Failed::Node);
                self.pings.finish(ping.connection, &outcome, wakes);
            }
            Event::Reservation(event) => {
                if let Some((relay, outcome)) = Reservation::outcome(event) {
                    self.reservations.finish(relay, &outcome, wakes);
                }
            }
            Event::Disconnected { connection, .. } => {
                self.closing.finish(*connection, &(), wakes);
                let lost = self.streams.values_mut().filter(|stream| stream.connection == *connection);
                lost.for_each(|stream| stream.lose(StreamFault::ConnectionLost, wakes));
            }
            _ => {}
        }
        self.events_missed += u64::from(self.events.push(event, wakes).is_some());
    }

    fn on_stream(&mut self, now: Instant, id: StreamId, event: &AppStreamEvent) {
        if let AppStreamEvent::Accepted { connection, peer, protocol } = event {
            self.streams.insert(id, StreamState::accepted(*connection));
            let (connection, peer, protocol) = (*connection, *peer, protocol.clone());
            let inbound = Inbound { stream: id, connection, peer, protocol };
            if let Some(oldest) = self.incoming.push(inbound, &mut self.wakes) {
                self.streams_refused += 1;
                self.streams.remove(&oldest.stream);
                self.node.reset(now, oldest.stream);
            }
        } else if let Some(stream) = self.streams.get_mut(&id) {
            stream.on_event(event, &mut self.wakes);
        }
    }

    /// The driver is gone: nothing will ever come any more.
    fn stop(&mut self) {
        let wakes = &mut self.wakes;
        (self.stopping, self.stopped) = (true, true);
        self.dials.finish_all(&Err(Failed::Stopped), wakes);
        self.pings.finish_all(&Err(Failed::Stopped), wakes);
        self.reservations.finish_all(&Err(Failed::Stopped), wakes);
        self.closing.finish_all(&(), wakes);
        self.ending.finish_all(&(), wakes);
        self.events.close(wakes);
        self.incoming.close(wakes);
        self.streams.values_mut().for_each(|stream| stream.lose(StreamFault::ConnectionLost, wakes));
    }
}

/// The future that is the node's life: it ends when the node is shut down. Any executor can run it. If it is dropped
/// before, everything that waits for the node ends with an error.
#[derive(Debug)]
pub struct Driver {
    shared: Arc<Shared>,
    sockets: Vec<Socket>,
    buffers: ReceiveBuffers,
    transmit: Vec<u8>,
    pending: Option<Pending>,
    timer: Timer,
    armed: Option<std::time::Instant>,
    grace: Duration,
    ends: Option<Instant>,
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>, sockets: Vec<Socket>, grace: Duration) -> Self {
        Self {
            shared,
            sockets,
            buffers: ReceiveBuffers::new(),
            transmit: Vec::new(),
            pending: None,
            timer: Timer::never(),
            armed: None,
            grace,
            ends: None,
        }
    }

    fn turn(&mut self, state: &mut State, now: Instant, cx: &mut Context<'_>) -> Poll<()> {
        set(&mut state.driver, cx);
        if let Some(unix) = state.clock.jumped(now) {
            state.node.set_wall_clock(now, unix);
        }
        if state.stopping && self.ends.is_none() {
            self.ends = Some(now + self.grace);
            state.node.shutdown(now);
        }
        let more = self.receive(state, cx);
        let now = state.clock.now();
        if state.node.deadline().is_some_and(|deadline| deadline.is_due(now)) {
            state.node.handle_timeout(now);
        }
        loop {
            self.flush(state, now, cx);
            let Some(event) = state.node.poll_event() else { break };
            state.on_event(&self.shared, now, event);
            while let Some(event) = state.node.poll_event() {
                state.on_event(&self.shared, now, event);
            }
        }
        if self.ends.is_some_and(|end| end <= now || (state.node.is_idle() && self.pending.is_none())) {
            return Poll::Ready(());
        }
        self.arm(state, now, cx);
        if more {
            state.wake_driver();
        }
        Poll::Pending
    }

    /// Receives until all sockets are empty or have had their share; returns whether there may be more.
    fn receive(&mut self, state: &mut State, cx: &mut Context<'_>) -> bool {
        let mut more = false;
        for socket in &mut self.sockets {
            let mut left = RECEIVE_BUDGET;
            while left > 0 && socket.poll_readable(cx).is_ready() {
                let now = state.clock.now();
                let node = &mut state.node;
                let count = socket.receive(&mut self.buffers, |datagram| node.handle_datagram(now, datagram));
                state.io.received += count as u64;
                left = left.saturating_sub(count);
            }
            more |= left == 0;
        }
        more
    }

    /// Sends until the node has nothing more to send or a socket is full.
    fn flush(&mut self, state: &mut State, now: Instant, cx: &mut Context<'_>) {
        while let Some(mut pending) = self.pending.take().or_else(|| self.next_transmit(state, now)) {
            let Some(socket) = self.sockets.get_mut(pending.transmit.socket.0 as usize) else { continue };
            let Sent { sent, dropped, blocked } = socket.send(&mut pending, &self.transmit);
            state.io.sent += sent;
            state.io.send_dropped += dropped;
            if blocked {
                state.io.send_blocked += 1;
                let room = socket.poll_writable(cx).is_ready();
                self.pending = Some(pending);
                if !room {
                    return;
                }
            }
        }
    }

    fn next_transmit(&mut self, state: &mut State, now: Instant) -> Option<Pending> {
        let max_segments = self.sockets.iter().map(Socket::max_segments).max().unwrap_or(1);
        let transmit = state.node.poll_transmit(now, max_segments, &mut self.transmit)?;
        Some(Pending { transmit, sent: 0 })
    }

    /// Sets the timer to the next deadline. One set to an earlier time stays: a needless turn costs less than setting
    /// the timer anew after every datagram.
    fn arm(&mut self, state: &mut State, now: Instant, cx: &mut Context<'_>) {
        let next = state.node.deadline().map(|deadline| deadline.at).into_iter().chain(self.ends).min();
        let Some((at, now)) = next.and_then(|at| state.clock.to_std(at).zip(state.clock.to_std(now))) else {
            return;
        };
        if self.armed.is_none_or(|armed| at < armed || armed <= now) {
            self.timer.set_at(at);
            self.armed = Some(at);
        }
        if Pin::new(&mut self.timer).poll(cx).is_ready() {
            self.armed = None;
            state.wake_driver();
        }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let driver = self.get_mut();
        let shared = Arc::clone(&driver.shared);
        shared.step(|state, now| driver.turn(state, now, cx))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.step(|state, _| state.stop());
    }
}
