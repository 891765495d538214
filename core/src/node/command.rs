//! What the embedder may ask of a node.

use bytes::Bytes;
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

use super::{Node, dialing::Requester, streaming::flush, transport::RESET_CODE};
use crate::{
    errors::{OpenError, StreamFault},
    ids::{ConnectionId, DialId, StreamId},
    names::{Framing, ProtocolName},
    protocols::{
        ping::Ping,
        relay::client::{Client, ReserveError},
        rendezvous::client::{self as rendezvous, DiscoveryId, Query, Registration, Watch},
    },
    streams::{Mode, Owner, Read, Stream, WriteFault},
    swarm::dial::DialOptions,
    time::Instant,
    trace::Glyph,
};

/// Why a stream cannot be read from, written to or finished.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The id is stale, or the stream belongs to a protocol of the node.
    #[error("no such stream")]
    NoStream,
    /// Our direction was finished before.
    #[error("the stream is finished")]
    Finished,
    /// The remote wants no more, for this reason; what it sends can still be read.
    #[error("the remote wants no more (code {0})")]
    Stopped(u64),
    /// The stream is lost; its id is stale from now on and no event follows.
    #[error("{0}")]
    Lost(StreamFault),
}

impl Node {
    /// Connects to whoever the addresses name, or to `peer` at any of them. Ends in [`crate::node::Event::Dialed`] or
    /// [`crate::node::Event::DialFailed`]. Names are dialled too, and circuit addresses: `/…/p2p/R/p2p-circuit/p2p/T`
    /// goes through the relay `R`, and `/p2p-circuit/p2p/T` through the best relays known, up to three, until one leads
    /// there. For a `peer` without any address the addresses known of it are dialled, and the latter last; those that
    /// failed a moment ago are left out ([`DialOptions::respect_backoff`]).
    pub fn dial(&mut self, now: Instant, peer: Option<PeerId>, addresses: &[Multiaddr]) -> DialId {
        self.dial_with(now, peer, addresses, &DialOptions::default())
    }

    /// The same, not as usual.
    pub fn dial_with(
        &mut self,
        now: Instant,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        options: &DialOptions,
    ) -> DialId {
        self.advance(now);
        self.trace.line(self.now, Glyph::Command, None, || {
            let name = peer.filter(|_| addresses.is_empty()).map(|peer| peer.to_string());
            let list: Vec<_> = name.into_iter().chain(addresses.iter().map(ToString::to_string)).collect();
            format!("dial {}", list.join(" "))
        });
        let id = self.start_dial(Requester::Embedder, peer, addresses, options);
        self.pump();
        id
    }

    /// Gives up a dial; no event follows. A dial that has ended already changes nothing, and the connection that it
    /// made stays.
    pub fn cancel_dial(&mut self, now: Instant, dial: DialId) {
        self.advance(now);
        self.forget_dial(dial);
        self.pump();
    }

    /// Closes a connection at once; [`crate::node::Event::Disconnected`] follows.
    pub fn close(&mut self, now: Instant, connection: ConnectionId) {
        self.close_with(now, connection, RESET_CODE);
    }

    /// The same with a code that tells the remote why, which hears [`CloseReason::Remote`](crate::errors::CloseReason) with
    /// it. Codes are as those of [`Node::reset_with`].
    pub fn close_with(&mut self, now: Instant, connection: ConnectionId, code: u64) {
        self.advance(now);
        self.close_connection(connection, code);
        self.pump();
    }

    /// Closes all connections of a peer, direct ones and circuits; returns how many there were. It may connect again, and is dialled again if it is to be kept ([`Node::keep_connected`]).
    pub fn close_peer(&mut self, now: Instant, peer: &PeerId) -> usize {
        self.close_peer_with(now, peer, RESET_CODE)
    }

    /// The same with a code that tells the peer why; see [`Node::close_with`].
    pub fn close_peer_with(&mut self, now: Instant, peer: &PeerId, code: u64) -> usize {
        self.advance(now);
        let connections = self.connections.of(peer).to_vec();
        for connection in &connections {
            self.close_connection(*connection, code);
        }
        self.pump();
        connections.len()
    }

    /// Asks a relay for a reservation and keeps it alive. The address must end in the relay's `/p2p`. What becomes of it
    /// comes as [`crate::node::Event::Reservation`].
    pub fn reserve(&mut self, now: Instant, relay: Multiaddr) -> Result<(), ReserveError> {
        self.advance(now);
        self.trace.line(self.now, Glyph::Command, None, || format!("reserve on {relay}"));
        self.with::<Client, _>(now, |client, cx| client.reserve(cx, relay))
            .unwrap_or(Err(ReserveError::Cancelled))
    }

    /// Gives up the reservation at a relay.
    pub fn cancel_reservation(&mut self, now: Instant, relay: PeerId) {
        self.with::<Client, _>(now, |client, cx| client.cancel(cx, relay));
    }

    /// Has a rendezvous point tell others where we are, and keeps that alive until [`Node::unregister`]. What becomes of it
    /// comes as [`crate::node::Event::Rendezvous`].
    pub fn register(&mut self, now: Instant, registration: Registration) -> Result<(), rendezvous::Error> {
        self.advance(now);
        self.trace.line(self.now, Glyph::Command, None, || {
            format!("register {:?} at {}", registration.namespace, registration.point)
        });
        self.with::<rendezvous::Client, _>(now, |client, cx| client.register(cx, registration))
            .unwrap_or(Err(rendezvous::Error::Cancelled))
    }

    /// Gives up the registration in a namespace of a rendezvous point, and tells the point.
    pub fn unregister(&mut self, now: Instant, point: PeerId, namespace: &str) {
        self.with::<rendezvous::Client, _>(now, |client, cx| client.unregister(cx, point, namespace));
    }

    /// Asks a rendezvous point once who is registered. Ends in
    /// [`DiscoveryEnded`](crate::protocols::rendezvous::client::Event::DiscoveryEnded).
    pub fn discover(&mut self, now: Instant, query: Query) -> Result<DiscoveryId, rendezvous::Error> {
        self.advance(now);
        self.trace.line(self.now, Glyph::Command, None, || {
            format!("discover {:?} at {}", query.namespace.as_deref().unwrap_or("*"), query.point)
        });
        self.with::<rendezvous::Client, _>(now, |client, cx| client.discover(cx, query))
            .unwrap_or(Err(rendezvous::Error::Cancelled))
    }

    /// Gives up a discovery; no event follows.
    pub fn cancel_discovery(&mut self, now: Instant, discovery: DiscoveryId) {
        self.with::<rendezvous::Client, _>(now, |client, cx| client.cancel_discovery(cx, discovery));
    }

    /// Asks a rendezvous point again and again who is registered, until [`Node::unwatch`]. What it says that is new comes
    /// as [`crate::node::Event::Rendezvous`].
    pub fn watch(&mut self, now: Instant, watch: Watch) -> Result<(), rendezvous::Error> {
        self.advance(now);
        self.trace.line(self.now, Glyph::Command, None, || {
            format!("watch {:?} at {}", watch.namespace.as_deref().unwrap_or("*"), watch.point)
        });
        self.with::<rendezvous::Client, _>(now, |client, cx| client.watch(cx, watch))
            .unwrap_or(Err(rendezvous::Error::Cancelled))
    }

    /// Watches a namespace of a rendezvous point no more; `None` is the watch of all of them.
    pub fn unwatch(&mut self, now: Instant, point: PeerId, namespace: Option<&str>) {
        self.with::<rendezvous::Client, _>(now, |client, cx| client.unwatch(cx, point, namespace));
    }

    /// Pings a peer; [`crate::node::Event::Ping`] follows, also if the connection ends meanwhile.
    ///
    /// # Errors
    /// The connection is gone already; no event follows.
    pub fn ping(&mut self, now: Instant, connection: ConnectionId) -> Result<(), OpenError> {
        self.with::<Ping, _>(now, |ping, cx| ping.ping(cx, connection))
            .unwrap_or(Err(OpenError::NoConnection))
    }

    /// Opens a stream for one of the embedder's protocols. It may be written to at once: the bytes travel with the
    /// proposal. [`crate::node::AppStreamEvent::Agreed`] follows when the remote speaks the protocol, and a reset when
    /// not.
    pub fn open(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        protocol: &ProtocolName,
    ) -> Result<StreamId, OpenError> {
        self.advance(now);
        if !self.routes.get(protocol).is_some_and(|route| route.owner == Owner::App) {
            return Err(OpenError::UnknownProtocol(protocol.clone()));
        }
        let opened = self.open_stream(connection, protocol, Owner::App, Framing::Raw);
        self.pump();
        opened
    }

    /// Opens a stream to a peer, on the connection that the [`Strategy`](crate::swarm::select::Strategy) prefers, or on
    /// the next best one if that grants none.
    pub fn open_to(
        &mut self,
        now: Instant,
        peer: &PeerId,
        protocol: &ProtocolName,
    ) -> Result<StreamId, OpenError> {
        self.advance(now);
        let mut last = OpenError::NoConnection;
        for connection in self.by_preference(peer) {
            match self.open(now, connection, protocol) {
                Ok(stream) => {
                    self.health.chose(connection);
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Takes up to `max` bytes of what the remote sent, without copying.
    pub fn read(&mut self, now: Instant, stream: StreamId, max: usize) -> Result<Read, StreamError> {
        self.advance(now);
        let result = self.read_app(stream, max);
        self.pump();
        result
    }

    fn read_app(&mut self, id: StreamId, max: usize) -> Result<Read, StreamError> {
        let stream = self.app_stream(id)?;
        let Mode::Pulled(rest) = &mut stream.mode else { return Ok(Read::Blocked) };
        if let Some(front) = rest.front_mut() {
            let data = front.split_to(front.len().min(max));
            if front.is_empty() {
                rest.pop_front();
            }
            return Ok(Read::Data(data));
        }
        if stream.remote_finished {
            return Ok(Read::Finished);
        }
        let (connection, number) = (stream.connection, stream.number);
        let read = self.transport.read(connection, number, max).map_err(|fault| self.lose(id, fault))?;
        let stream = self.app_stream(id)?;
        match &read {
            Read::Data(data) => {
                stream.read += data.len() as u64;
                self.heard_from(id);
            }
            Read::Blocked => stream.told_readable = false,
            Read::Finished => {
                stream.remote_finished = true;
                self.remove_if_over(id);
            }
        }
        Ok(read)
    }

    /// Takes a prefix off `data` and sends it; returns its length. 0 means that there is no room, and
    /// [`crate::node::AppStreamEvent::Writable`] follows when there is.
    pub fn write(&mut self, now: Instant, stream: StreamId, data: &mut Bytes) -> Result<usize, StreamError> {
        self.advance(now);
        let result = self.write_app(stream, data);
        self.pump();
        result
    }

    fn write_app(&mut self, id: StreamId, data: &mut Bytes) -> Result<usize, StreamError> {
        self.app_stream(id)?;
        let Some(stream) = self.streams.get_mut(id) else { return Err(StreamError::NoStream) };
        if stream.finishing {
            return Err(stream.stopped.map_or(StreamError::Finished, StreamError::Stopped));
        }
        if data.is_empty() {
            return Ok(0);
        }
        let flushed = flush(stream, &mut self.transport);
        let taken = match flushed {
            Ok(()) if stream.queue.is_empty() => self.transport.write(stream.connection, stream.number, data),
            Ok(()) => Ok(0),
            Err(fault) => Err(WriteFault::Lost(fault)),
        };
        match taken {
            Ok(taken) => {
                stream.wants_to_write = taken == 0;
                stream.written += taken as u64;
                Ok(taken)
            }
            Err(WriteFault::Stopped(code)) => {
                self.stream_stopped(id, code);
                Err(StreamError::Stopped(code))
            }
            Err(WriteFault::Lost(fault)) => Err(self.lose(id, fault)),
        }
    }

    /// Sends no more after what was written. The remote hears of it when it has agreed on the protocol.
    pub fn finish(&mut self, now: Instant, stream: StreamId) -> Result<(), StreamError> {
        self.advance(now);
        if std::mem::replace(&mut self.app_stream(stream)?.finishing, true) {
            return Err(StreamError::Finished);
        }
        self.finish_stream(stream);
        self.pump();
        Ok(())
    }

    /// Wants no more of what the remote sends; what we send is not touched. The remote hears of it when it has agreed on the
    /// protocol. Stale ids change nothing.
    pub fn stop(&mut self, now: Instant, stream: StreamId) {
        self.stop_with(now, stream, RESET_CODE);
    }

    /// The same with a code that tells the remote why (RFC 9000 section 19.5); its writes fail with
    /// [`StreamError::Stopped`]. The muxer of circuits cannot say it: there the remote is only slowed down.
    pub fn stop_with(&mut self, now: Instant, stream: StreamId, code: u64) {
        self.advance(now);
        if self.app_stream(stream).is_ok() {
            self.stop_stream(stream, code);
            self.pump();
        }
    }

    /// Gives a stream up in both directions. Stale ids change nothing.
    pub fn reset(&mut self, now: Instant, stream: StreamId) {
        self.reset_with(now, stream, RESET_CODE);
    }

    /// The same with a code that tells the remote why, which hears [`StreamFault::Remote`] with it. Codes are below 2^62,
    /// and below 2^32 through a relay; a larger one arrives as 2^62 - 1, and as 0 through a relay. Those from 0x1000 on have
    /// a meaning (libp2p specs, error-codes).
    pub fn reset_with(&mut self, now: Instant, stream: StreamId, code: u64) {
        self.advance(now);
        if self.app_stream(stream).is_ok() {
            self.drop_stream_because(stream, code);
            self.pump();
        }
    }

    /// The embedder learns from the returned error that the stream is lost.
    fn lose(&mut self, id: StreamId, fault: StreamFault) -> StreamError {
        self.drop_stream(id);
        StreamError::Lost(fault)
    }

    fn app_stream(&mut self, id: StreamId) -> Result<&mut Stream, StreamError> {
        self.streams.get_mut(id).filter(|s| s.owner == Owner::App).ok_or(StreamError::NoStream)
    }
}
