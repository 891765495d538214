//! For simple programs: calls that wait, no longer than they are told, and streams that are [`Read`](std::io::Read) and
//! [`Write`](std::io::Write).
//!
//! [`spawn`] runs a node on a thread of its own. Its [`Handle`] dials, opens and accepts [`Stream`]s, pings, reserves and
//! shuts down, from any thread. One node echoes, the other asks:
//!
//! ```
//! use std::{io, io::prelude::*, thread, time::Duration};
//!
//! use peerless_core::{identity::Identity, names::ProtocolName, node, rng::Rng};
//! use peerless_mio::{RuntimeConfig, blocking};
//!
//! # fn main() -> io::Result<()> {
//! const ECHO: ProtocolName = ProtocolName::from_static("/echo/1.0.0");
//! let node = |n: u8| {
//!     let mut config = node::Config::new(Identity::generate(&mut Rng::new([n; 32])));
//!     config.app_protocols = vec![node::AppProtocol { name: ECHO, inbound_per_peer: 16 }];
//!     config
//! };
//! let listen = vec!["127.0.0.1:0".parse().unwrap()];
//! let server = blocking::spawn(node(1), RuntimeConfig { listen, ..Default::default() })?;
//! let address = server.advertised()?.remove(0);
//! let acceptor = server.clone();
//! thread::spawn(move || {
//!     while let Ok(stream) = acceptor.accept(None) {
//!         // A stream is read and written through a reference too, as a `TcpStream` is.
//!         thread::spawn(move || io::copy(&mut &stream, &mut &stream).and_then(|_| stream.finish()));
//!     }
//! });
//!
//! let patience = Some(Duration::from_secs(10));
//! let client = blocking::spawn(node(2), RuntimeConfig::default())?;
//! let connection = client.dial(Some(server.peer()), &[address], patience)?;
//! let mut stream = client.open(connection, &ECHO)?;
//! stream.set_read_timeout(patience)?;
//! stream.write_all(b"hello")?;
//! stream.finish()?;
//! let mut answer = String::new();
//! stream.read_to_string(&mut answer)?;
//! assert_eq!(answer, "hello");
//!
//! client.shutdown();
//! server.shutdown();
//! # Ok(())
//! # }
//! ```
//!
//! All errors are [`io::Error`]s, with what the node says inside ([`io::Error::get_ref`]). A node that has been shut down is
//! `NotConnected`, an answer that did not come in time `TimedOut`; then what was asked for has been given up.
//!
//! A call that waits asks the node's thread, so it costs two switches of threads; for many small messages a second, write a
//! loop around [`Runtime::turn`] instead.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc::sync_channel},
    thread,
    time::Duration,
};

use peerless_core::{
    Multiaddr, PeerId,
    errors::{OpenError, StreamFault},
    ids::{ConnectionId, StreamId},
    names::ProtocolName,
    node::{self, AppStreamEvent, Event, Node},
    protocols::{
        ping,
        relay::client::ReserveError,
        rendezvous::client::{self as rendezvous, Discovery, Query, Registration},
    },
    time::Instant,
};
use peerless_proto::address::split_peer;

use crate::{HandleError, Runtime, RuntimeConfig, clock::Clock};

mod stream;

use stream::{Opened, StreamState};
pub use stream::{Stream, StreamInfo};

/// Events that wait to be taken; one more drops the oldest. Those that [are expendable](Event::is_expendable) get half of the
/// room.
const MAX_EVENTS: usize = 1024;
/// Streams of remotes that wait to be accepted; one more is reset.
const MAX_INCOMING: usize = 1024;

/// Reaches a node that runs on a thread of its own. Cheap to clone, and meant for many threads. When the last handle and
/// the last [`Stream`] are gone, the node shuts down.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Owner>);

#[derive(Debug)]
struct Owner {
    peer: PeerId,
    runtime: crate::Handle,
    shared: Arc<Shared>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.runtime.shutdown();
    }
}

/// What a node's handles hold and have done. What the node itself holds is [`Node::stats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Streams that the program holds, or that wait to be accepted.
    pub streams: usize,
    /// Calls that wait for an outcome: dials, pings, reservations, registrations, discoveries.
    pub waiting: usize,
    /// Events dropped so far because nobody took them in time.
    pub events_missed: u64,
    /// Streams reset so far because nobody accepted them in time.
    pub streams_refused: u64,
}

/// Binds the sockets, makes the node, and runs it on a thread of its own.
///
/// # Errors
/// As [`Runtime::new`], and if the system gives no thread.
pub fn spawn(node: node::Config, runtime: RuntimeConfig) -> io::Result<Handle> {
    let runtime = Runtime::new(node, runtime)?;
    let shared = Arc::new(Shared { state: Mutex::default(), news: Condvar::new(), clock: Clock::start() });
    let (peer, handle) = (runtime.node().local_peer(), runtime.handle());
    let owner = Owner { peer, runtime: handle, shared: Arc::clone(&shared) };
    thread::Builder::new().name("peerless".into()).spawn(move || {
        // In this order: the sockets are closed when the end is told.
        let ending = Ending(shared);
        let mut runtime = runtime;
        let result = runtime.run(|runtime, event| {
            let (node, now) = runtime.node_mut();
            ending.0.lock().on_event(node, now, event);
            ending.0.news.notify_all();
        });
        if let Err(error) = result {
            tracing::error!(%error, "the event loop failed");
        }
    })?;
    Ok(Handle(Arc::new(owner)))
}

impl Handle {
    /// Who the node is.
    pub fn peer(&self) -> PeerId {
        self.0.peer
    }

    /// The addresses that lead to the node, as it tells its peers; without its `/p2p`.
    ///
    /// # Errors
    /// The node has been shut down (kind [`io::ErrorKind::NotConnected`]).
    pub fn advertised(&self) -> io::Result<Vec<Multiaddr>> {
        Ok(self.0.runtime.call(|node, _| node.addresses().advertised())?)
    }

    /// To command the node, or to look at it, as other threads do.
    pub fn runtime(&self) -> &crate::Handle {
        &self.0.runtime
    }

    /// Connects to whoever the addresses name, or to `peer` at any of them. Names and circuit addresses are dialled too.
    /// Without a timeout it ends when the handshakes have had their time.
    ///
    /// # Errors
    /// No address led there: a [`DialError`](peerless_core::errors::DialError) that says what happened at each.
    pub fn dial(
        &self,
        peer: Option<PeerId>,
        to: &[Multiaddr],
        timeout: Option<Duration>,
    ) -> io::Result<ConnectionId> {
        let to = to.to_vec();
        let begin = move |node: &mut Node, now| Ok(node.dial(now, peer, &to));
        self.run(timeout, begin, |event, ours| event.dial_outcome(ours), Node::cancel_dial)
    }

    /// Opens a stream for one of [`node::Config::app_protocols`]. It may be written to at once; that the remote does not
    /// speak the protocol is an error of the stream, met when it is used.
    ///
    /// # Errors
    /// The connection is gone, the protocol is not ours, or the remote grants no more streams for now: an [`OpenError`].
    pub fn open(&self, connection: ConnectionId, protocol: &ProtocolName) -> io::Result<Stream> {
        let (shared, protocol) = (Arc::clone(&self.0.shared), protocol.clone());
        let opened = self.0.runtime.call(move |node, now| {
            let peer = node.connections().get(connection).map(|info| info.peer);
            let peer = peer.ok_or(OpenError::NoConnection)?;
            let id = node.open(now, connection, &protocol)?;
            Ok::<_, OpenError>(shared.lock().add(StreamInfo { id, connection, peer, protocol }))
        });
        Ok(Stream::new(self.clone(), opened??))
    }

    /// Opens a stream to a peer: over a connection that is there, or else one that is dialled, at `to` or where it is known to
    /// be. The timeout is that of the dial.
    ///
    /// # Errors
    /// Those of [`Node::dial`](Self::dial) and [`Node::open`](Self::open).
    pub fn open_to(
        &self,
        peer: PeerId,
        to: &[Multiaddr],
        protocol: &ProtocolName,
        timeout: Option<Duration>,
    ) -> io::Result<Stream> {
        let connection = self.dial(Some(peer), to, timeout)?;
        self.open(connection, protocol)
    }

    /// Waits for the next stream that a remote opens for one of our protocols. Each goes to one caller. When 1024 of them
    /// wait, further ones are reset, and counted in [`Stats::streams_refused`].
    ///
    /// # Errors
    /// None came in time (kind [`io::ErrorKind::TimedOut`]), or the node has been shut down
    /// ([`io::ErrorKind::NotConnected`]).
    pub fn accept(&self, timeout: Option<Duration>) -> io::Result<Stream> {
        let accepted = self.next(timeout, |state| state.incoming.pop_front())?;
        Ok(Stream::new(self.clone(), accepted))
    }

    /// Waits for the node's next event. Each goes to one caller. At most 1024 wait to be taken; then the oldest is dropped,
    /// and counted in [`Stats::events_missed`]. Whatever concerns a call or a stream is told there as well, so a program
    /// may leave its events alone.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub fn next_event(&self, timeout: Option<Duration>) -> io::Result<Event> {
        self.next(timeout, |state| state.events.pop_front())
    }

    /// Asks a relay for a reservation and returns the circuit addresses that lead to us. It is kept alive until
    /// [`Node::cancel_reservation`], or given up if there is no answer in time.
    ///
    /// # Errors
    /// The address does not end in the relay's `/p2p`, or the relay granted nothing: a [`ReserveError`].
    pub fn reserve(&self, at: Multiaddr, timeout: Option<Duration>) -> io::Result<Vec<Multiaddr>> {
        let relay = split_peer(&at).1.ok_or(ReserveError::NoPeer)?;
        let begin = move |node: &mut Node, now| node.reserve(now, at).map(|()| relay);
        self.run(timeout, begin, |event, ours| event.reserve_outcome(ours), Node::cancel_reservation)
    }

    /// Has a rendezvous point tell others where we are and returns for how long. It is kept alive until
    /// [`Node::unregister`], or given up if there is no answer in time.
    ///
    /// # Errors
    /// What is asked for makes no sense, or the point did not grant it: a [`rendezvous::Error`]. Unless its refusal is
    /// final, the point is asked again until [`Node::unregister`].
    pub fn register(&self, wanted: Registration, timeout: Option<Duration>) -> io::Result<Duration> {
        let (point, name) = (split_peer(&wanted.point).1, wanted.namespace.clone());
        let (point, ours) = (point.ok_or(rendezvous::Error::NoPeer)?, name.clone());
        let begin = move |node: &mut Node, now| node.register(now, wanted).map(|()| point);
        let outcome = move |event: &Event, point| event.register_outcome(point, &ours);
        self.run(timeout, begin, outcome, move |node, now, point| node.unregister(now, point, &name))
    }

    /// Asks a rendezvous point who is registered.
    ///
    /// # Errors
    /// What is asked for makes no sense, or the point gave no answer: a [`rendezvous::Error`].
    pub fn discover(&self, query: Query, timeout: Option<Duration>) -> io::Result<Discovery> {
        let begin = move |node: &mut Node, now| node.discover(now, query);
        self.run(timeout, begin, |event, ours| event.discover_outcome(ours), Node::cancel_discovery)
    }

    /// Pings a peer; the round-trip time.
    ///
    /// # Errors
    /// The connection is gone, or the peer did not answer as it should: a [`ping::Failure`].
    pub fn ping(&self, connection: ConnectionId, timeout: Option<Duration>) -> io::Result<Duration> {
        let begin = move |node: &mut Node, now| {
            node.ping(now, connection).map(|()| connection).map_err(ping::Failure::Open)
        };
        self.run(timeout, begin, |event, ours| event.ping_outcome(ours), |_, _, _| {})
    }

    /// Closes a connection at once, with all its streams. There is nothing to wait for.
    pub fn close(&self, connection: ConnectionId) {
        // A node that is gone has no connections.
        let _ = self.0.runtime.send_wait(Box::new(move |node, now| node.close(now, connection)));
    }

    /// Closes all connections and ends the node; returns when the peers have been told. What has not arrived by then is
    /// lost: finish streams, and wait for the remote's end, before.
    pub fn shutdown(&self) {
        self.0.runtime.shutdown();
        self.0.shared.wait(&self.0.shared.news, None, |state| state.ended.then_some(()));
    }

    /// What the handles hold and have done.
    pub fn stats(&self) -> Stats {
        let state = self.0.shared.lock();
        Stats { streams: state.streams.len(), waiting: state.waiting.len(), ..state.stats }
    }

    fn next<T>(&self, timeout: Option<Duration>, take: fn(&mut State) -> Option<T>) -> io::Result<T> {
        let shared = &self.0.shared;
        let next = |state: &mut State| take(state).map(Ok).or(state.ended.then_some(Err(HandleError::Gone)));
        Ok(shared.wait(&shared.news, timeout, next).ok_or(io::ErrorKind::TimedOut)??)
    }

    /// Gives the node a command and waits for the event that is its outcome; cancels when that does not come in time.
    fn run<K: Copy + Send + 'static, T: Send + 'static, E: Into<io::Error> + Send + 'static>(
        &self,
        timeout: Option<Duration>,
        begin: impl FnOnce(&mut Node, Instant) -> Result<K, E> + Send + 'static,
        outcome: impl Fn(&Event, K) -> Option<Result<T, E>> + Send + 'static,
        cancel: impl Fn(&mut Node, Instant, K) + Send + 'static,
    ) -> io::Result<T> {
        let (sender, receiver) = sync_channel(1);
        let shared = Arc::clone(&self.0.shared);
        let begun = self.0.runtime.call(move |node, now| {
            let key = begin(node, now)?;
            let settle = move |event: &Event| outcome(event, key).is_some_and(|o| sender.try_send(o).is_ok());
            Ok((shared.lock().wait_for(Box::new(settle)), key))
        });
        let (id, key) = begun?.map_err(E::into)?;
        let waited = timeout.map_or_else(|| receiver.recv().ok(), |t| receiver.recv_timeout(t).ok());
        let result = waited.map_or_else(
            || {
                let shared = Arc::clone(&self.0.shared);
                self.0.runtime.call(move |node, now| {
                    shared.lock().waiting.remove(&id).into_iter().for_each(|_| cancel(node, now, key));
                })?;
                // It may have come just before.
                receiver.try_recv().map_err(|_| io::Error::from(io::ErrorKind::TimedOut))
            },
            Ok,
        );
        result?.map_err(E::into)
    }
}

/// A node that is gone is not connected to anybody.
impl From<HandleError> for io::Error {
    fn from(error: HandleError) -> Self {
        let kind = match error {
            HandleError::Full => io::ErrorKind::WouldBlock,
            HandleError::Gone => io::ErrorKind::NotConnected,
            HandleError::TimedOut => io::ErrorKind::TimedOut,
        };
        Self::new(kind, error)
    }
}

/// What the node's thread, the handles and the streams share. No bytes: those stay in the node.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// An event, a stream to accept, or the end.
    news: Condvar,
    clock: Clock,
}

#[derive(Default)]
struct State {
    streams: BTreeMap<StreamId, StreamState>,
    waiting: BTreeMap<u64, Waiting>,
    next_wait: u64,
    incoming: VecDeque<Opened>,
    events: VecDeque<Event>,
    ended: bool,
    stats: Stats,
}

/// Somebody who waits for an event: returns true, once, when it was the one.
type Waiting = Box<dyn FnMut(&Event) -> bool + Send>;

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `check` finds something; `None` if that takes too long.
    fn wait<T>(
        &self,
        changed: &Condvar,
        timeout: Option<Duration>,
        mut check: impl FnMut(&mut State) -> Option<T>,
    ) -> Option<T> {
        let mut found = None;
        let goes_on = |state: &mut State| {
            found = check(state);
            found.is_none()
        };
        // What another thread's panic left behind is no worse than what is there without.
        match timeout {
            None => drop(changed.wait_while(self.lock(), goes_on)),
            Some(timeout) => drop(changed.wait_timeout_while(self.lock(), timeout, goes_on)),
        }
        found
    }
}

impl State {
    fn add(&mut self, info: StreamInfo) -> Opened {
        let stream = StreamState::new(info.connection);
        let changed = Arc::clone(&stream.changed);
        self.streams.insert(info.id, stream);
        (info, changed)
    }

    fn wait_for(&mut self, waiting: Waiting) -> u64 {
        self.next_wait += 1;
        self.waiting.insert(self.next_wait, waiting);
        self.next_wait
    }

    fn on_event(&mut self, node: &mut Node, now: Instant, event: Event) {
        match &event {
            Event::Stream { stream, event } => return self.on_stream(node, now, *stream, event),
            Event::Disconnected { connection, .. } => {
                self.lose_streams(|stream| stream.connection == *connection)
            }
            _ => {}
        }
        self.waiting.retain(|_, waiting| !waiting(&event));
        if event.is_expendable() && self.events.len() >= MAX_EVENTS / 2 {
            self.stats.events_missed += 1;
            return;
        }
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
            self.stats.events_missed += 1;
        }
        self.events.push_back(event);
    }

    fn on_stream(&mut self, node: &mut Node, now: Instant, id: StreamId, event: &AppStreamEvent) {
        if let AppStreamEvent::Accepted { connection, peer, protocol } = event {
            if self.incoming.len() == MAX_INCOMING {
                self.stats.streams_refused += 1;
                return node.reset(now, id);
            }
            let (connection, peer, protocol) = (*connection, *peer, protocol.clone());
            let opened = self.add(StreamInfo { id, connection, peer, protocol });
            self.incoming.push_back(opened);
        } else if let Some(stream) = self.streams.get_mut(&id) {
            stream.on_event(event);
        }
    }

    /// What becomes of the streams of a connection that ends, which the node does not say for each.
    fn lose_streams(&mut self, is_lost: impl Fn(&StreamState) -> bool) {
        let lost = AppStreamEvent::Reset(StreamFault::ConnectionLost);
        self.streams.values_mut().filter(|stream| is_lost(stream)).for_each(|stream| stream.on_event(&lost));
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("streams", &self.streams)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

/// Tells everybody who waits, when the node's thread ends however it ends.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.ended = true;
        state.waiting.clear();
        state.incoming.clear();
        state.lose_streams(|_| true);
        drop(state);
        self.0.news.notify_all();
    }
}

#[cfg(test)]
mod tests;
