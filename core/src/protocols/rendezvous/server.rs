//! The rendezvous point: takes registrations and answers who is registered.
//!
//! A peer is who its connection proves it to be, and registers nobody but itself. Its registrations outlive its
//! connection, up to their time. Lifetimes are kept by the monotonic clock, so that setting the wall clock changes none;
//! only what is stored has times of the wall clock.
//!
//! A stream carries any number of requests, which are answered in order, one at a time. Requests that come before the
//! registrations of an earlier life have been loaded wait for that. A registration is acknowledged when the store has
//! confirmed it; others see it at once.
//!
//! Each client is answered in the dialect of records that it registers with; one that says it reads all of them gets all.
//! Else what identify tells of its library decides, and its first question waits up to two seconds for that; else it is
//! taken to read the specification's. What it does not read is left out: most clients give up a whole answer over one record
//! of another kind.

mod card;
mod config;
mod cookie;
mod dialect;
mod journal;
mod load;
mod order;
mod owners;
mod readers;
mod refusal;
mod requests;
mod rows;
mod table;

use std::{collections::VecDeque, time::Duration};

use libp2p_identity::PeerId;
use peerless_proto::{
    address,
    pb::{
        self,
        rendezvous::{Discover, Message, MessageType, Register, Unregister},
    },
};

pub use self::config::{Config, Event, Limits};
use self::{
    cookie::Baker,
    dialect::{Dialect, Reads},
    journal::Journal,
    load::Loading,
    readers::{Readers, Turn},
    table::Table,
};
use super::{spec, wire};
use crate::{
    behaviour::{Behaviour, Context, Input, PeerEvent, Reply, StreamEvent, View},
    ids::{ConnectionId, StreamId},
    info::Info,
    names::{Framing, ProtocolName, ProtocolSpec},
    protocols::{
        by_connection::ByConnection,
        relay::limits::{Place, places},
    },
    rate::Buckets,
    time::{Deadline, Instant, Timers, UnixTime},
};

/// Where registrations are stored.
const TABLE: &str = "rendezvous";
/// Inbound streams that one peer may have open.
const STREAMS_PER_PEER: usize = 8;
/// Requests that may wait on one stream for the answers to those before them.
const WAITING_PER_STREAM: usize = 8;
/// Bytes of answers that one stream may not have taken yet when the next request is looked at.
const UNSENT_PER_STREAM: usize = 64 << 10;
/// Bytes of answers that all streams together may not have taken yet.
const MAX_UNSENT: usize = 128 << 20;
/// What a request has beside its record: the namespace, keys and numbers.
const REQUEST_SPARE: usize = 1024;

/// The rendezvous point of one node.
#[derive(Debug)]
pub struct Server {
    config: Config,
    protocols: [ProtocolSpec; 1],
    phase: Phase,
    /// How often in a row the store could not be read.
    load_failures: u32,
    exchanges: ByConnection<StreamId, Exchange>,
    readers: Readers,
    peers: Buckets<PeerId>,
    hosts: Buckets<Place>,
    timers: Timers<StreamId>,
    /// Bytes of answers not taken yet.
    unsent: usize,
}

/// Whether there are registrations to speak of.
#[derive(Debug)]
enum Phase {
    /// Nothing has happened yet; until the node has an address or a connection.
    New,
    /// The store is being read; until it has been, or cannot be.
    Loading(Box<Loading>),
    /// In service.
    Ready(Box<Point>),
    /// The store could not be read; until then, when it is tried again. Everything is refused meanwhile.
    Unread { again: Instant },
}

/// The point in service.
#[derive(Debug)]
struct Point {
    table: Table,
    journal: Journal,
    baker: Baker,
}

/// A stream of a client.
#[derive(Debug)]
struct Exchange {
    peer: PeerId,
    /// What has not been looked at yet.
    requests: VecDeque<Request>,
    /// Whether a registration waits for the store.
    storing: bool,
    /// Whether the client will send no more.
    ended: bool,
    /// Whether we have said that we will not either.
    finished: bool,
    /// Bytes of answers not taken yet.
    unsent: usize,
    /// Its timer.
    until: Instant,
}

#[derive(Debug)]
enum Request {
    Register(Register),
    Unregister(Unregister),
    Discover(Discover),
}

/// Who sent a request.
#[derive(Clone, Copy, Debug)]
struct Client {
    stream: StreamId,
    connection: ConnectionId,
    peer: PeerId,
    host: Option<Place>,
}

fn in_bounds(mut config: Config) -> Config {
    config.timeout = config.timeout.max(Duration::from_secs(1));
    config.limits.min_ttl = config.limits.min_ttl.max(Duration::from_secs(1));
    config
}

fn protocols(config: &Config) -> [ProtocolSpec; 1] {
    let max = config.limits.max_record.saturating_mul(2).saturating_add(REQUEST_SPARE);
    [ProtocolSpec { framing: Framing::Varint { max }, ..spec(STREAMS_PER_PEER) }]
}

impl Server {
    /// The rendezvous point of one node.
    pub fn new(config: Config) -> Self {
        let config = in_bounds(config);
        Self {
            protocols: protocols(&config),
            config,
            phase: Phase::New,
            load_failures: 0,
            exchanges: ByConnection::default(),
            readers: Readers::default(),
            peers: Buckets::default(),
            hosts: Buckets::default(),
            timers: Timers::default(),
            unsent: 0,
        }
    }

    /// What it allows from now on. Registrations last as they were granted.
    pub(crate) fn configure(&mut self, config: Config) {
        self.config = in_bounds(config);
        self.protocols = protocols(&self.config);
    }

    /// Registrations now.
    pub fn registrations(&self) -> usize {
        self.point().map_or(0, |point| point.table.len())
    }

    /// Peers that are registered somewhere.
    pub fn registrants(&self) -> usize {
        self.point().map_or(0, |point| point.table.owners())
    }

    /// Namespaces in which somebody is registered.
    pub fn namespaces(&self) -> usize {
        self.point().map_or(0, |point| point.table.namespaces())
    }

    /// Whether it is in service: what was stored has been loaded.
    pub fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready(_))
    }

    /// Entries in all tables but those of rates; zero when nobody is registered and no peer is left.
    pub fn len(&self) -> usize {
        let point = self.point().map_or(0, |Point { table, journal, .. }| {
            table.len() + table.owners() + table.namespaces() + journal.len()
        });
        point + self.exchanges.len() + self.readers.len() + self.timers.len() + self.unsent
    }

    /// Whether all tables are empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Peers and addresses of which it is remembered how often they asked of late; some ten thousand at most.
    pub fn buckets(&self) -> usize {
        self.peers.len() + self.hosts.len()
    }

    fn point(&self) -> Option<&Point> {
        match &self.phase {
            Phase::Ready(point) => Some(point),
            _ => None,
        }
    }

    // Streams.

    fn on_accepted(
        &mut self,
        cx: &mut Context<'_>,
        stream: StreamId,
        connection: ConnectionId,
        peer: PeerId,
    ) {
        let until = cx.now() + self.config.timeout;
        self.timers.set(until, stream);
        let exchange = Exchange {
            peer,
            requests: VecDeque::new(),
            storing: false,
            ended: false,
            finished: false,
            unsent: 0,
            until,
        };
        self.exchanges.insert(stream, connection, exchange);
    }

    fn on_frame(&mut self, cx: &mut Context<'_>, stream: StreamId, frame: &[u8]) {
        let Some(exchange) = self.exchanges.get_mut(stream) else { return };
        let Some(request) = read_request(frame) else {
            return self.give_up(cx, stream, "rendezvous.malformed");
        };
        if exchange.requests.len() >= WAITING_PER_STREAM {
            return self.give_up(cx, stream, "rendezvous.too_many_waiting");
        }
        exchange.requests.push_back(request);
        self.timers.clear(exchange.until, stream);
        exchange.until = cx.now() + self.config.timeout;
        self.timers.set(exchange.until, stream);
        self.serve(cx, stream);
    }

    /// Answers what waits on a stream, as far as that is possible now.
    fn serve(&mut self, cx: &mut Context<'_>, stream: StreamId) {
        if matches!(self.phase, Phase::New | Phase::Loading(_)) {
            return;
        }
        while let Some(exchange) = self.exchanges.get_mut(stream)
            && !exchange.storing
            && exchange.unsent <= UNSENT_PER_STREAM
        {
            if let Some(request) = exchange.requests.pop_front() {
                match self.reads(cx, stream, &request) {
                    Some(reads) => self.on_request(cx, stream, request, reads),
                    None => return self.put_back(stream, request),
                }
                continue;
            }
            if exchange.ended && !exchange.finished {
                exchange.finished = true;
                cx.finish(stream);
            }
            if exchange.finished && exchange.unsent == 0 {
                self.remove(stream);
            }
            break;
        }
    }

    /// What the client of a request is to be answered with, for whom that matters; `None` while that is waited for.
    fn reads(&mut self, cx: &mut Context<'_>, stream: StreamId, request: &Request) -> Option<Reads> {
        let Request::Discover(request) = request else { return Some(Reads::Any) };
        let Some((connection, exchange)) = self.exchanges.entry(stream) else { return Some(Reads::Any) };
        if request.any_dialect == Some(true) {
            return Some(Reads::Any);
        }
        if let Some(dialect) = self.given(exchange.peer) {
            return Some(Reads::Only(dialect));
        }
        match self.readers.on_question(connection, cx.now()) {
            Turn::Answer(dialect) => Some(Reads::Only(dialect)),
            Turn::Wait => None,
            Turn::Guess => {
                cx.count("rendezvous.identify_not_awaited");
                Some(Reads::Only(Dialect::GUESS))
            }
        }
    }

    /// In which dialect a peer is registered.
    fn given(&self, peer: PeerId) -> Option<Dialect> {
        let table = &self.point()?.table;
        table.owner_at(table.owner(&peer.to_bytes())?).dialect()
    }

    fn put_back(&mut self, stream: StreamId, request: Request) {
        if let Some(exchange) = self.exchanges.get_mut(stream) {
            exchange.requests.push_front(request);
        }
    }

    /// Answers what waits on the streams of a connection.
    fn serve_connection(&mut self, cx: &mut Context<'_>, connection: ConnectionId) {
        for stream in self.exchanges.on_connection(connection) {
            self.serve(cx, stream);
        }
    }

    fn on_identified(&mut self, cx: &mut Context<'_>, connection: ConnectionId, info: &Info) {
        if self.readers.on_identified(connection, info) {
            self.serve_connection(cx, connection);
        }
    }

    fn on_drained(&mut self, cx: &mut Context<'_>, stream: StreamId) {
        if let Some(exchange) = self.exchanges.get_mut(stream) {
            self.unsent -= std::mem::take(&mut exchange.unsent);
            self.serve(cx, stream);
        }
    }

    fn on_finished(&mut self, cx: &mut Context<'_>, stream: StreamId) {
        if let Some(exchange) = self.exchanges.get_mut(stream) {
            exchange.ended = true;
            self.serve(cx, stream);
        }
    }

    fn on_disconnected(&mut self, connection: ConnectionId) {
        self.readers.on_disconnected(connection);
        for (stream, exchange) in self.exchanges.remove_connection(connection) {
            self.timers.clear(exchange.until, stream);
            self.unsent -= exchange.unsent;
        }
    }

    /// Takes a stream out of the tables.
    fn remove(&mut self, stream: StreamId) -> bool {
        let Some((_, exchange)) = self.exchanges.remove(stream) else { return false };
        self.timers.clear(exchange.until, stream);
        self.unsent -= exchange.unsent;
        true
    }

    fn give_up(&mut self, cx: &mut Context<'_>, stream: StreamId, counter: &'static str) {
        if self.remove(stream) {
            cx.count(counter);
            cx.reset(stream);
        }
    }

    fn client(&self, view: View<'_>, stream: StreamId) -> Option<Client> {
        let (connection, exchange) = self.exchanges.entry(stream)?;
        let ip = view.connections.get(connection).and_then(|info| address::ip_of(&info.remote));
        let host = ip.and_then(|ip| places(ip, None).first().copied());
        Some(Client { stream, connection, peer: exchange.peer, host })
    }

    // Time.

    /// Ends what is over.
    fn expire(&mut self, cx: &mut Context<'_>) {
        let now = cx.now();
        while let Some((_, stream)) = self.timers.pop_due(now) {
            self.give_up(cx, stream, "rendezvous.request_timeout");
        }
        while let Some(connection) = self.readers.pop_silent(now) {
            cx.count("rendezvous.identify_missing");
            self.serve_connection(cx, connection);
        }
        let Phase::Ready(point) = &mut self.phase else { return };
        while let Some(ended) = point.table.expire(now) {
            point.unstore(&ended);
            cx.count("rendezvous.expired");
            cx.emit(Event::Expired { peer: ended.peer(), namespace: ended.namespace.into() });
        }
    }
}

impl Behaviour for Server {
    fn name(&self) -> &'static str {
        "rendezvous"
    }

    fn protocols(&self) -> &[ProtocolSpec] {
        &self.protocols
    }

    fn handle(&mut self, cx: &mut Context<'_>, input: Input) {
        self.expire(cx);
        if matches!(self.phase, Phase::Unread { .. }) {
            self.start(cx);
        }
        match input {
            Input::Addresses | Input::Peer(PeerEvent::Connected { .. }) => self.start(cx),
            Input::Peer(PeerEvent::Identified { connection, info, .. }) => {
                self.on_identified(cx, connection, &info);
            }
            Input::Peer(PeerEvent::Disconnected { connection, .. }) => self.on_disconnected(connection),
            Input::Stream(stream, event) => match event {
                StreamEvent::Accepted { connection, peer, .. } => {
                    self.on_accepted(cx, stream, connection, peer);
                }
                StreamEvent::Frame(frame) => self.on_frame(cx, stream, &frame),
                StreamEvent::Drained => self.on_drained(cx, stream),
                StreamEvent::Stopped(_) | StreamEvent::Agreed { .. } => {}
                StreamEvent::Finished => self.on_finished(cx, stream),
                StreamEvent::Reset(_) => drop(self.remove(stream)),
            },
            Input::Reply(token, Reply::Loaded(result)) => self.on_loaded(cx, token, result),
            Input::Reply(token, Reply::Stored(result)) => self.on_stored(cx, token, result),
            _ => {}
        }
        if let Phase::Ready(point) = &mut self.phase {
            point.journal.flush(cx, point.table.latest());
        }
    }

    fn deadline(&self) -> Option<Deadline> {
        let stream = self.timers.next().map(|at| Deadline::new(at, "rendezvous request timeout"));
        let expiry = self.point().and_then(|point| point.table.next_expiry());
        let store = match &self.phase {
            Phase::Ready(point) => point.journal.deadline(),
            Phase::Unread { again } => Some(*again),
            Phase::New | Phase::Loading(_) => None,
        };
        let others = Deadline::earliest(
            expiry.map(|at| Deadline::new(at, "registration expires")),
            store.map(|at| Deadline::new(at, "rendezvous store")),
        );
        let identify = self.readers.next().map(|at| Deadline::new(at, "rendezvous waits for identify"));
        Deadline::earliest(Deadline::earliest(stream, identify), others)
    }

    fn describe(&self, _: &ProtocolName, frame: &[u8], _: UnixTime) -> Option<String> {
        Some(wire::describe(frame))
    }
}

/// The request in a frame; `None` if it is not one.
fn read_request(frame: &[u8]) -> Option<Request> {
    let message = pb::decode::<Message>(frame).ok()?;
    match message.kind()? {
        MessageType::Register => message.register.map(Request::Register),
        MessageType::Unregister => message.unregister.map(Request::Unregister),
        MessageType::Discover => Some(Request::Discover(message.discover.unwrap_or_default())),
        MessageType::RegisterResponse | MessageType::DiscoverResponse => None,
    }
}
