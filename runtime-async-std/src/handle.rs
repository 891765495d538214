//! What programs hold: commands as futures, and streams of events and of inbound streams.

use std::{
    fmt,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use peerless_core::{
    Multiaddr, PeerId,
    behaviour::ProtocolName,
    event::{CircuitLimit, DialError, Event, OpenError},
    ids::ConnectionId,
    node::Node,
    protocols::{
        ping,
        relay::client::{self, ReserveError},
    },
    time::{Instant, UnixTime},
};

use crate::{
    Stats,
    driver::{Inbound, Shared, State},
    stream::{Stream, StreamState},
    wait::{Queue, Waits},
};

/// Reaches the node from any task. Cheap to clone.
///
/// All futures are cancellation-safe: one that is dropped gives up what it began, and nobody else notices. When the
/// last handle is gone, and all that was made from one ([`Stream`], [`Events`], [`Incoming`]), the node shuts down.
#[derive(Clone, Debug)]
pub struct Handle {
    owner: Arc<Owner>,
}

#[derive(Debug)]
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.command(|state, _| state.stopping = true);
    }
}

/// Where a dial led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialed {
    /// The connection to use; it may have been there before.
    pub connection: ConnectionId,
    /// The authenticated remote.
    pub peer: PeerId,
}

/// A relay forwards to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// The relay.
    pub relay: PeerId,
    /// Until when; the node renews it in time.
    pub expires: UnixTime,
    /// The circuit addresses that lead to us, with our own `/p2p`.
    pub addresses: Vec<Multiaddr>,
    /// What the relay grants each circuit.
    pub limit: CircuitLimit,
}

impl Reservation {
    /// What an event means for who waits for a reservation at that relay.
    pub(crate) fn outcome(event: &client::Event) -> Option<(PeerId, Result<Self, Failed<ReserveError>>)> {
        match event {
            client::Event::Reserved { relay, expires, addresses, limit, .. } => {
                let (relay, expires, limit) = (*relay, *expires, *limit);
                Some((relay, Ok(Self { relay, expires, addresses: addresses.clone(), limit })))
            }
            client::Event::Failed { address, reason } => {
                Some((last_peer(address)?, Err(Failed::Node(reason.clone()))))
            }
            client::Event::Lost { relay, reason } => Some((*relay, Err(Failed::Node(reason.clone())))),
            _ => None,
        }
    }
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failed<E: fmt::Debug + fmt::Display> {
    /// The node has been shut down.
    #[error("the node has been shut down")]
    Stopped,
    /// The node says why.
    #[error("{0}")]
    Node(E),
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { owner: Arc::new(Owner(shared)) }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.owner.0
    }

    /// Who the node is.
    pub fn peer(&self) -> PeerId {
        self.shared().peer
    }

    /// The addresses that the sockets are bound to.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.shared().local
    }

    /// Runs a command on the node, or looks at it, at once. Everything else waits meanwhile, so it must be short; it must
    /// not use this handle, nor streams of this node.
    pub fn with<R>(&self, command: impl FnOnce(&mut Node, Instant) -> R) -> R {
        self.shared().command(|state, now| command(&mut state.node, now))
    }

    /// Connects to whoever the addresses name, or to `peer` at any of them. Names and circuit addresses are dialled too.
    /// A dial that is dropped is given up; a connection that it made just before stays.
    ///
    /// # Errors
    /// No address led there; what happened at each.
    pub async fn dial(
        &self,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
    ) -> Result<Dialed, Failed<DialError>> {
        let id = self.begin(|state, now| {
            let dial = state.node.dial(now, peer, addresses);
            Ok(state.dials.add(dial))
        })?;
        self.wait(id, |state| &mut state.dials, |state, now, dial| state.node.cancel_dial(now, dial)).await
    }

    /// Opens a stream for one of [`Config::app_protocols`](peerless_core::node::Config::app_protocols). It may be
    /// written to at once; that the remote does not speak the protocol is an error of the stream, met when it is used.
    ///
    /// # Errors
    /// The connection is gone, the protocol is not ours, or the remote grants no more streams for now.
    pub async fn open(
        &self,
        connection: ConnectionId,
        protocol: &ProtocolName,
    ) -> Result<Stream, Failed<OpenError>> {
        let stream = self.begin(|state, now| {
            let peer = state.node.connections().get(connection).map(|info| info.peer);
            let peer = peer.ok_or(Failed::Node(OpenError::NoConnection))?;
            let stream = state.node.open(now, connection, protocol).map_err(Failed::Node)?;
            state.streams.insert(stream, StreamState::opened(connection));
            Ok(Inbound { stream, connection, peer, protocol: protocol.clone() })
        })?;
        Ok(Stream::new(self.clone(), stream))
    }

    /// Asks a relay for a reservation, which is kept alive until [`cancel_reservation`](Self::cancel_reservation). If
    /// the future is dropped before there is an answer, the reservation is given up, unless another waits for it.
    ///
    /// # Errors
    /// The address does not end in the relay's `/p2p`, or the relay granted nothing.
    pub async fn reserve(&self, relay: Multiaddr) -> Result<Reservation, Failed<ReserveError>> {
        let peer = last_peer(&relay).ok_or(Failed::Node(ReserveError::NoPeer))?;
        let id = self.begin(|state, now| {
            state.node.reserve(now, relay).map_err(Failed::Node)?;
            Ok(state.reservations.add(peer))
        })?;
        let cancel = |state: &mut State, now, relay| state.node.cancel_reservation(now, relay);
        self.wait(id, |state| &mut state.reservations, cancel).await
    }

    /// Gives up the reservation at a relay.
    pub fn cancel_reservation(&self, relay: PeerId) {
        self.with(|node, now| node.cancel_reservation(now, relay));
    }

    /// Pings a peer; the round-trip time. A ping that is dropped ends by itself.
    ///
    /// # Errors
    /// The connection is gone, or the peer did not answer as it should.
    pub async fn ping(&self, connection: ConnectionId) -> Result<Duration, Failed<ping::Failure>> {
        let id = self.begin(|state, now| {
            if state.node.connections().get(connection).is_none() {
                return Err(Failed::Node(ping::Failure::Open(OpenError::NoConnection)));
            }
            state.node.ping(now, connection);
            Ok(state.pings.add(connection))
        })?;
        self.wait(id, |state| &mut state.pings, |_, _, _| {}).await
    }

    /// Closes a connection at once, with all its streams, and waits until that is done. It is closed even if the future
    /// is dropped after its first poll.
    pub async fn close(&self, connection: ConnectionId) {
        let id = self.shared().command(|state, now| {
            let there = !state.stopped && state.node.connections().get(connection).is_some();
            state.node.close(now, connection);
            there.then(|| state.closing.add(connection))
        });
        if let Some(id) = id {
            self.wait(id, |state| &mut state.closing, |_, _, _| {}).await;
        }
    }

    /// Closes all connections and ends the node; resolves when the peers have been told and the sockets are closed.
    /// What has not arrived by then is lost: finish streams, and wait for the remote's end, before. The node goes down
    /// even if the future is dropped after its first poll.
    pub async fn shutdown(&self) {
        let id = self.shared().command(|state, _| {
            state.stopping = true;
            (!state.stopped).then(|| state.ending.add(()))
        });
        if let Some(id) = id {
            self.wait(id, |state| &mut state.ending, |_, _, ()| {}).await;
        }
    }

    /// The node's events. Several consumers share them: each event goes to one. At most
    /// [`Config::event_queue`](crate::Config::event_queue) wait to be taken; then the oldest is dropped, and counted in
    /// [`Stats::events_missed`]: the node never waits for who reads its events. Outcomes of futures, and whatever
    /// happens to streams, do not come this way alone, so a program may leave its events alone.
    pub fn events(&self) -> Events {
        let consumer = self.shared().step(|state, _| state.events.subscribe());
        Events { handle: self.clone(), consumer }
    }

    /// The streams that remotes open for our protocols. Several consumers share them: each stream goes to one. At most
    /// [`Config::incoming_queue`](crate::Config::incoming_queue) wait to be taken; then the oldest is reset, and counted
    /// in [`Stats::streams_refused`].
    pub fn incoming(&self) -> Incoming {
        let consumer = self.shared().step(|state, _| state.incoming.subscribe());
        Incoming { handle: self.clone(), consumer }
    }

    /// What the runtime holds and has done. What the node holds is [`Node::stats`], by way of [`Handle::with`].
    pub fn stats(&self) -> Stats {
        self.shared().step(|state, _| state.stats())
    }

    fn begin<R, E: fmt::Debug + fmt::Display>(
        &self,
        command: impl FnOnce(&mut State, Instant) -> Result<R, Failed<E>>,
    ) -> Result<R, Failed<E>> {
        self.shared().command(|state, now| match state.stopping {
            true => Err(Failed::Stopped),
            false => command(state, now),
        })
    }

    fn wait<K: Ord + Copy + Unpin, T: Clone>(
        &self,
        id: (K, u64),
        waits: fn(&mut State) -> &mut Waits<K, T>,
        cancel: fn(&mut State, Instant, K),
    ) -> Waiting<'_, K, T> {
        Waiting { shared: self.shared(), id, waits, cancel }
    }
}

/// Waits for an outcome; cancels when dropped before.
struct Waiting<'a, K: Ord + Copy, T: Clone> {
    shared: &'a Shared,
    id: (K, u64),
    waits: fn(&mut State) -> &mut Waits<K, T>,
    cancel: fn(&mut State, Instant, K),
}

impl<K: Ord + Copy + Unpin, T: Clone> Future for Waiting<'_, K, T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        self.shared.step(|state, _| (self.waits)(state).poll(self.id, cx))
    }
}

impl<K: Ord + Copy, T: Clone> Drop for Waiting<'_, K, T> {
    fn drop(&mut self) {
        self.shared.step(|state, now| {
            if (self.waits)(state).remove(self.id) {
                (self.cancel)(state, now, self.id.0);
                state.wake_driver();
            }
        });
    }
}

/// The node's events; see [`Handle::events`]. Ends when the node is shut down.
#[derive(Debug)]
pub struct Events {
    handle: Handle,
    consumer: u64,
}

/// Streams that remotes open; see [`Handle::incoming`]. Ends when the node is shut down.
#[derive(Debug)]
pub struct Incoming {
    handle: Handle,
    consumer: u64,
}

impl futures_core::Stream for Events {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.handle.shared().step(|state, _| state.events.poll(self.consumer, cx))
    }
}

impl futures_core::Stream for Incoming {
    type Item = Stream;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Stream>> {
        let next = self.handle.shared().step(|state, _| state.incoming.poll(self.consumer, cx));
        next.map(|inbound| inbound.map(|inbound| Stream::new(self.handle.clone(), inbound)))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let leave =
            |state: &mut State| Queue::unsubscribe(&mut state.events, self.consumer, &mut state.wakes);
        self.handle.shared().step(|state, _| leave(state));
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let leave =
            |state: &mut State| Queue::unsubscribe(&mut state.incoming, self.consumer, &mut state.wakes);
        self.handle.shared().step(|state, _| leave(state));
    }
}

fn last_peer(address: &Multiaddr) -> Option<PeerId> {
    peerless_proto::address::split_peer(address).1
}
