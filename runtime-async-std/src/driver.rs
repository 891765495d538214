//! The task that drives the node: readable, deadline or command; then transmits, events, and the next deadline.

use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use async_channel::{Receiver, Sender};
use async_io::Timer;
use peerless_core::{
    errors::StreamFault,
    ids::{QueryId, SocketId, StreamId},
    node::{AppStreamEvent, Datagram, Event, Node},
    time::Instant,
};
use peerless_udp::{Answer, Interfaces, Pending, Question, ReceiveBuffers, Resolver, Sent, source_for};

use crate::{
    Stats,
    clock::{Clock, unix_now},
    socket::Socket,
    stream::{StreamInfo, StreamState},
    watch::Watch,
};

/// Datagrams received from a socket before others have their turn.
const RECEIVE_BUDGET: usize = 256;

/// How long a shutdown waits for the goodbyes to be sent.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);
/// What becomes of the streams of a connection that ends, which the node does not say for each.
const LOST: AppStreamEvent = AppStreamEvent::Reset(StreamFault::ConnectionLost);

/// What the driver, the handles and the streams share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    pub(crate) clock: Clock,
    pub(crate) resolver: Resolver,
    pub(crate) events: Receiver<Event>,
    pub(crate) incoming: Receiver<StreamInfo>,
}

/// The node and everybody who waits for something of it.
pub(crate) struct State {
    pub(crate) node: Node,
    /// Taken when the driver is woken, so that it is woken once.
    pub(crate) driver: Option<Waker>,
    pub(crate) streams: BTreeMap<StreamId, StreamState>,
    pub(crate) waiting: BTreeMap<u64, Waiting>,
    pub(crate) next_wait: u64,
    pub(crate) events: Sender<Event>,
    pub(crate) incoming: Sender<StreamInfo>,
    pub(crate) stopping: bool,
    pub(crate) stats: Stats,
}

/// Somebody who waits for an event: returns true, once, when it was the one.
pub(crate) type Waiting = Box<dyn FnMut(&Event) -> bool + Send>;

impl Shared {
    /// Does one step on the state. It is locked for that time, and never while anything is awaited.
    pub(crate) fn step<R>(&self, step: impl FnOnce(&mut State, Instant) -> R) -> R {
        // A panic inside the node is a defect, and what it left behind no worse for the others than an error.
        step(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner), self.clock.now())
    }

    /// A step that commands the node: the driver has to see to the consequences.
    pub(crate) fn command<R>(&self, step: impl FnOnce(&mut State, Instant) -> R) -> R {
        self.step(|state, now| {
            let result = step(state, now);
            state.wake_driver();
            result
        })
    }
}

impl State {
    pub(crate) fn wake_driver(&mut self) {
        self.driver.take().into_iter().for_each(Waker::wake);
    }

    fn on_event(&mut self, shared: &Arc<Shared>, now: Instant, event: Event) {
        match &event {
            Event::Stream { stream, event } => return self.on_stream(now, *stream, event),
            Event::Resolve { query, name, family } => {
                return self.ask(shared, now, *query, Question::Host(name.clone(), *family));
            }
            Event::ResolveText { query, name } => {
                return self.ask(shared, now, *query, Question::Text(name.clone()));
            }
            Event::Disconnected { connection, .. } => {
                let lost = self.streams.values_mut().filter(|stream| stream.connection == *connection);
                lost.for_each(|stream| stream.on_event(&LOST));
            }
            _ => {}
        }
        self.waiting.retain(|_, waiting| !waiting(&event));
        let is_half_full = self.events.capacity().is_some_and(|most| 2 * self.events.len() >= most);
        if event.is_expendable() && is_half_full {
            self.stats.events_missed += 1;
            return;
        }
        let missed = self.events.force_send(event);
        self.stats.events_missed += u64::from(matches!(missed, Ok(Some(_))));
    }

    fn ask(&mut self, shared: &Shared, now: Instant, query: QueryId, question: Question) {
        if let Err(answer) = shared.resolver.ask(query, question) {
            self.answered(now, query, answer);
        }
    }

    /// The resolver has an answer.
    pub(crate) fn answered(&mut self, now: Instant, query: QueryId, answer: Answer) {
        match answer {
            Answer::Host(found) => self.node.handle_resolved(now, query, found),
            Answer::Text(found) => self.node.handle_resolved_text(now, query, found),
        }
    }

    fn on_stream(&mut self, now: Instant, id: StreamId, event: &AppStreamEvent) {
        if let AppStreamEvent::Accepted { connection, peer, protocol } = event {
            let (connection, peer, protocol) = (*connection, *peer, protocol.clone());
            if self.incoming.try_send(StreamInfo { id, connection, peer, protocol }).is_ok() {
                self.streams.insert(id, StreamState::new(connection));
            } else {
                self.stats.streams_refused += 1;
                self.node.reset(now, id);
            }
        } else if let Some(stream) = self.streams.get_mut(&id) {
            stream.on_event(event);
        }
    }
}

/// Whatever only the driver touches.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    pub(crate) sockets: Vec<Socket>,
    watch: Watch,
    buffers: ReceiveBuffers,
    /// One batch on its way to the node; kept for its capacity.
    received: Vec<Datagram>,
    bytes: Vec<u8>,
    pending: Option<Pending>,
    timer: Timer,
    armed: Option<Instant>,
    ends: Option<Instant>,
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>, sockets: Vec<Socket>, interfaces: Interfaces) -> io::Result<Self> {
        let (buffers, received, bytes) = Default::default();
        let timer = Timer::never();
        let (watch, pending, armed, ends) = (Watch::new(interfaces)?, None, None, None);
        Ok(Self { shared, sockets, watch, buffers, received, bytes, pending, timer, armed, ends })
    }

    /// The future that is the node's life.
    pub(crate) fn run(mut self) -> impl Future<Output = ()> + Send {
        poll_fn(move |cx| Arc::clone(&self.shared).step(|state, now| self.turn(state, now, cx)))
    }

    fn turn(&mut self, state: &mut State, now: Instant, cx: &mut Context<'_>) -> Poll<()> {
        state.driver = Some(cx.waker().clone());
        // It may have been set, and the machine may have slept.
        state.node.set_wall_clock(now, unix_now());
        if state.stopping && self.ends.is_none() {
            self.ends = Some(now + SHUTDOWN_GRACE);
            state.node.shutdown(now);
        }
        if self.watch.changed(cx) {
            for (index, socket) in self.sockets.iter().enumerate() {
                state.node.handle_socket(now, SocketId(index as u32), Some(socket.bound()));
            }
        }
        self.receive(state, cx);
        let now = self.shared.clock.now();
        if state.node.deadline().is_some_and(|deadline| deadline.is_due(now)) {
            state.node.handle_timeout(now);
        }
        // Events may be answered with commands, and sending makes events.
        self.flush(state, now, cx);
        while let Some(event) = state.node.poll_event() {
            match event {
                Event::Route { query, remote } => {
                    let source = source_for(remote, self.sockets.iter().map(|socket| socket.local().ip()));
                    state.node.handle_routed(now, query, source);
                }
                event => state.on_event(&self.shared, now, event),
            }
            self.flush(state, now, cx);
        }
        if self.ends.is_some_and(|end| end <= now || (state.node.is_idle() && self.pending.is_none())) {
            return Poll::Ready(());
        }
        self.arm(state, now, cx);
        Poll::Pending
    }

    /// Receives until all sockets are empty or have had their share.
    fn receive(&mut self, state: &mut State, cx: &mut Context<'_>) {
        for socket in &mut self.sockets {
            let mut left = RECEIVE_BUDGET;
            while left > 0 && socket.is_readable(cx) {
                let count = socket.receive(&mut self.buffers, |datagram| self.received.push(datagram));
                state.stats.received += count as u64;
                left = left.saturating_sub(count.max(1));
                state.node.handle_datagrams(self.shared.clock.now(), self.received.drain(..));
            }
            if left == 0 {
                state.wake_driver();
            }
        }
    }

    /// Sends until the node has nothing more to send or a socket is full.
    fn flush(&mut self, state: &mut State, now: Instant, cx: &mut Context<'_>) {
        let most = self.sockets.iter().map(Socket::max_segments).max().unwrap_or(1);
        let mut next = |bytes: &mut Vec<u8>| state.node.poll_transmit(now, most, bytes).map(Pending::new);
        while let Some(mut pending) = self.pending.take().or_else(|| next(&mut self.bytes)) {
            // There is a socket for each id that the node was told.
            let socket = &mut self.sockets[pending.transmit.socket.0 as usize];
            let Sent { sent, dropped, blocked } = socket.send(&mut pending, &self.bytes);
            state.stats.sent += sent;
            state.stats.send_dropped += dropped;
            if blocked {
                self.pending = Some(pending);
                if !socket.is_writable(cx) {
                    return;
                }
            }
        }
    }

    /// Sets the timer to the next deadline. One set to an earlier time stays: a needless turn costs less than setting
    /// the timer anew after every datagram.
    fn arm(&mut self, state: &mut State, now: Instant, cx: &mut Context<'_>) {
        let next = state.node.deadline().map(|deadline| deadline.at).into_iter().chain(self.ends).min();
        if let Some(at) = next.filter(|at| self.armed.is_none_or(|armed| *at < armed || armed <= now)) {
            self.armed = Some(at);
            self.timer = self.shared.clock.to_std(at).map_or(Timer::never(), Timer::at);
        }
        if Pin::new(&mut self.timer).poll(cx).is_ready() {
            self.armed = None;
            state.wake_driver();
        }
    }
}

/// Nothing will ever come any more.
impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.step(|state, _| {
            state.stopping = true;
            state.waiting.clear();
            state.events.close();
            state.incoming.close();
            state.streams.values_mut().for_each(|stream| stream.on_event(&LOST));
        });
    }
}

#[cfg(test)]
mod tests;
