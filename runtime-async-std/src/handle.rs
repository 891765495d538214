//! What programs hold: commands as futures, the node's events, and the streams that remotes open.

use std::{fmt, sync::Arc, time::Duration};

use async_channel::{Receiver, bounded};
use peerless_core::{
    Multiaddr, PeerId,
    errors::{DialError, OpenError},
    ids::ConnectionId,
    names::ProtocolName,
    node::{Event, Node},
    protocols::{ping, relay::client::ReserveError, rendezvous::client as rendezvous},
    time::Instant,
};
use peerless_proto::address::split_peer;

use crate::{
    Stats,
    driver::{Shared, State},
    stream::{Stream, StreamInfo, StreamState},
};

/// Reaches the node from any task. Cheap to clone.
///
/// All futures are cancellation-safe: one that is dropped gives up what it began. When the last handle and the last
/// [`Stream`] are gone, the node shuts down.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Owner>);

#[derive(Debug)]
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.command(|state, _| state.stopping = true);
    }
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failed<E> {
    /// The node has been shut down.
    #[error("the node has been shut down")]
    Stopped,
    /// The node says why.
    #[error("{0}")]
    Node(E),
}

impl<E> Failed<E> {
    fn map<F>(self, f: impl FnOnce(E) -> F) -> Failed<F> {
        match self {
            Self::Stopped => Failed::Stopped,
            Self::Node(error) => Failed::Node(f(error)),
        }
    }
}

/// Why no stream to a peer could be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenToError {
    /// The peer was not reached.
    #[error(transparent)]
    Dial(DialError),
    /// Its connection grants no stream.
    #[error(transparent)]
    Open(OpenError),
}

/// What comes of a command.
pub type Outcome<T, E> = Result<T, Failed<E>>;

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(Arc::new(Owner(shared)))
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0.0
    }

    /// Who the node is.
    pub fn peer(&self) -> PeerId {
        self.shared().step(|state, _| state.node.local_peer())
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
    pub async fn dial(&self, peer: Option<PeerId>, to: &[Multiaddr]) -> Outcome<ConnectionId, DialError> {
        let begin = |node: &mut Node, now| Ok(node.dial(now, peer, to));
        self.run(begin, |event, ours| event.dial_outcome(ours), Node::cancel_dial).await
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
    ) -> Outcome<Stream, OpenError> {
        let (id, peer) = self.shared().command(|state, now| {
            let peer = state.node.connections().get(connection).map(|info| info.peer);
            let peer = peer.ok_or(Failed::Node(OpenError::NoConnection))?;
            let id = state.node.open(now, connection, protocol).map_err(Failed::Node)?;
            state.streams.insert(id, StreamState::new(connection));
            Ok((id, peer))
        })?;
        Ok(Stream::new(self.clone(), StreamInfo { id, connection, peer, protocol: protocol.clone() }))
    }

    /// Opens a stream to a peer: over a connection that is there, or else one that is dialled, at `to` or where it is known to
    /// be. A dial that is dropped is given up.
    ///
    /// # Errors
    /// Those of [`Handle::dial`] and [`Handle::open`].
    pub async fn open_to(
        &self,
        peer: PeerId,
        to: &[Multiaddr],
        protocol: &ProtocolName,
    ) -> Outcome<Stream, OpenToError> {
        let connection = self.dial(Some(peer), to).await.map_err(|failed| failed.map(OpenToError::Dial))?;
        self.open(connection, protocol).await.map_err(|failed| failed.map(OpenToError::Open))
    }

    /// The next stream that a remote opened for one of our protocols; `None` when the node has ended. Each goes to one
    /// caller. When [`Config::queue`](crate::Config::queue) of them wait, further ones are reset, and
    /// counted in [`Stats::streams_refused`].
    pub async fn accept(&self) -> Option<Stream> {
        self.shared().incoming.recv().await.ok().map(|info| Stream::new(self.clone(), info))
    }

    /// Asks a relay for a reservation and returns the circuit addresses that lead to us. It is kept alive until
    /// [`Node::cancel_reservation`], or given up if the future is dropped before there is an answer.
    ///
    /// # Errors
    /// The address does not end in the relay's `/p2p`, or the relay granted nothing.
    pub async fn reserve(&self, at: Multiaddr) -> Outcome<Vec<Multiaddr>, ReserveError> {
        let relay = split_peer(&at).1.ok_or(Failed::Node(ReserveError::NoPeer))?;
        let begin = |node: &mut Node, now| node.reserve(now, at).map(|()| relay);
        self.run(begin, |event, ours| event.reserve_outcome(ours), Node::cancel_reservation).await
    }

    /// Has a rendezvous point tell others where we are and returns for how long. It is kept alive until
    /// [`Node::unregister`], or given up if the future is dropped before there is an answer.
    ///
    /// # Errors
    /// What is asked for makes no sense, or the point did not grant it; unless its refusal is final, it is asked again
    /// until [`Node::unregister`].
    pub async fn register(&self, wanted: rendezvous::Registration) -> Outcome<Duration, rendezvous::Error> {
        let (point, name) = (split_peer(&wanted.point).1, wanted.namespace.clone());
        let (point, ours) = (point.ok_or(Failed::Node(rendezvous::Error::NoPeer))?, name.clone());
        let begin = |node: &mut Node, now| node.register(now, wanted).map(|()| point);
        let outcome = move |event: &Event, point| event.register_outcome(point, &ours);
        self.run(begin, outcome, |node, now, point| node.unregister(now, point, &name)).await
    }

    /// Asks a rendezvous point who is registered. A question that is dropped is given up.
    ///
    /// # Errors
    /// What is asked for makes no sense, or the point gave no answer.
    pub async fn discover(
        &self,
        query: rendezvous::Query,
    ) -> Outcome<rendezvous::Discovery, rendezvous::Error> {
        let begin = |node: &mut Node, now| node.discover(now, query);
        self.run(begin, |event, ours| event.discover_outcome(ours), Node::cancel_discovery).await
    }

    /// Pings a peer; the round-trip time. A ping that is dropped ends by itself.
    ///
    /// # Errors
    /// The connection is gone, or the peer did not answer as it should.
    pub async fn ping(&self, connection: ConnectionId) -> Outcome<Duration, ping::Failure> {
        let begin = |node: &mut Node, now| {
            node.ping(now, connection).map(|()| connection).map_err(ping::Failure::Open)
        };
        self.run(begin, |event, ours| event.ping_outcome(ours), |_, _, _| {}).await
    }

    /// Closes a connection at once, with all its streams. There is nothing to wait for.
    pub fn close(&self, connection: ConnectionId) {
        self.with(|node, now| node.close(now, connection));
    }

    /// Closes all connections and ends the node; resolves when the peers have been told.
    /// What has not arrived by then is lost: finish streams, and wait for the remote's end, before. The node goes down
    /// even if the future is dropped after its first poll.
    pub async fn shutdown(&self) {
        let events = self.shared().command(|state, _| {
            state.stopping = true;
            state.events.clone()
        });
        // They end with the node.
        events.closed().await;
    }

    /// The node's events, as a `futures_core::Stream` that ends with the node. Clones share them: each event goes to
    /// one. At most [`Config::queue`](crate::Config::queue) wait to be taken; then the oldest is dropped, and
    /// counted in [`Stats::events_missed`]: the node never waits for who reads its events. Whatever concerns a future or
    /// a stream is told there as well, so a program may leave its events alone.
    pub fn events(&self) -> Receiver<Event> {
        self.shared().events.clone()
    }

    /// What the runtime holds and has done. What the node holds is [`Node::stats`], by way of [`Handle::with`].
    pub fn stats(&self) -> Stats {
        self.shared().step(|state, _| {
            let (streams, waiting) = (state.streams.len(), state.waiting.len());
            Stats { streams, waiting, ..state.stats }
        })
    }

    /// Gives the node a command and waits for the event that is its outcome; cancels when dropped before.
    async fn run<K: Copy + Send + 'static, T: Send + 'static, E: Send + 'static>(
        &self,
        begin: impl FnOnce(&mut Node, Instant) -> Result<K, E>,
        outcome: impl Fn(&Event, K) -> Option<Result<T, E>> + Send + 'static,
        cancel: impl Fn(&mut Node, Instant, K),
    ) -> Outcome<T, E> {
        let (sender, receiver) = bounded(1);
        let (id, key) = self.shared().command(|state, now| {
            if state.stopping {
                return Err(Failed::Stopped);
            }
            let key = begin(&mut state.node, now).map_err(Failed::Node)?;
            let settle = move |event: &Event| outcome(event, key).is_some_and(|o| sender.try_send(o).is_ok());
            state.next_wait += 1;
            state.waiting.insert(state.next_wait, Box::new(settle));
            Ok((state.next_wait, key))
        })?;
        let _guard = scopeguard::guard((), |()| {
            self.shared().command(|state, now| {
                state.waiting.remove(&id).into_iter().for_each(|_| cancel(&mut state.node, now, key));
            });
        });
        receiver.recv().await.map_or(Err(Failed::Stopped), |result| result.map_err(Failed::Node))
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("node", &self.node).field("stats", &self.stats).finish_non_exhaustive()
    }
}
