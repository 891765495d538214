//! The relay: takes reservations, and joins circuits to those who hold them.
//!
//! A peer is who its connection proves it to be; no field of a message says otherwise. A circuit counts from the
//! CONNECT that asks for it to its last byte, so that limits hold at every moment.

mod books;
mod circuit;
mod config;
mod events;
mod grant;
mod lists;
mod reserve;

use std::{collections::BTreeMap, time::Duration};

use libp2p_identity::PeerId;
use peerless_proto::pb::{
    self,
    relay::{HopMessage, HopType},
};
use smallvec::SmallVec;

use self::books::{Books, Party};
pub use self::{
    config::{Acl, Ask, AsnLookup, Config},
    events::{CircuitEnd, Event},
    lists::{CircuitInfo, ReservationInfo},
};
use super::{
    HOP, STOP, direct_connection,
    limits::{ConnectRequest, Place, Places, Refusal},
    spec, wire,
};
use crate::{
    behaviour::{Behaviour, Context, Input, PeerEvent, Reply, StreamEvent},
    errors::{RelayStatus, SpliceEnd},
    ids::{ConnectionId, StreamId, Token},
    names::{ProtocolName, ProtocolSpec, SpliceReport},
    protocols::by_connection::ByConnection,
    time::{Deadline, Instant, Timers, UnixTime},
};

/// Inbound streams per peer beside those that carry circuits: requests being answered.
const SPARE_STREAMS: usize = 8;

/// Inbound streams per peer when its circuits are not limited.
const MANY_STREAMS: usize = 4096;

/// The relay of one node.
#[derive(Debug)]
pub struct Hop {
    config: Config,
    protocols: [ProtocolSpec; 2],
    reservations: BTreeMap<PeerId, Reservation>,
    /// Streams that no splice has taken yet.
    streams: ByConnection<StreamId, State>,
    /// Streams to targets that were asked for.
    opening: ByConnection<Token, CircuitId>,
    circuits: BTreeMap<CircuitId, Circuit>,
    splices: BTreeMap<Token, CircuitId>,
    books: Books,
    next_circuit: u64,
    timers: Timers<Timer>,
}

/// It belongs to the peer: it lasts as long as any direct connection to it, and circuits go there over any of them.
#[derive(Debug)]
struct Reservation {
    /// Over which it was granted last, where circuits are tried first.
    connection: ConnectionId,
    since: Instant,
    until: Instant,
    /// Where it is counted: where it was last granted.
    places: Places,
}

/// What a stream waits for. Besides what is listed, a reset or the end of its connection ends each state.
#[derive(Debug)]
enum State {
    /// The source's request; until it comes, the stream ends, or the timeout.
    Asking { until: Instant },
    /// The source's end of stream after our answer; until it comes or the timeout.
    Answered { until: Instant },
    /// The source's circuit; until that is joined or refused.
    Source(CircuitId),
    /// The target's answer; until it comes, the stream ends, or the circuit's timeout.
    Target(CircuitId),
}

/// A circuit of a relay. Never reused by the same relay until it is restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CircuitId(u64);

#[derive(Debug)]
struct Circuit {
    source: PeerId,
    source_stream: StreamId,
    target: PeerId,
    /// Over which connections the target was asked.
    tried: SmallVec<[ConnectionId; 2]>,
    /// From where it was asked for.
    ip: Option<Place>,
    stage: Stage,
    /// Its timer.
    until: Option<Instant>,
}

impl Circuit {
    fn parties(&self) -> impl Iterator<Item = Party> + use<> {
        let peers = [Party::Source(self.source), Party::Target(self.target)];
        peers.into_iter().chain(self.ip.map(Party::From))
    }
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Over which connection the target is asked is being decided.
    Choosing,
    /// The stream to the target was asked for.
    Opening(Token),
    /// The target was asked.
    Asking(StreamId),
    /// The two are joined. `over` is set when its time is up and the report is awaited.
    Joined { over: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Stream(StreamId),
    Reservation(PeerId),
    Circuit(CircuitId),
}

fn in_bounds(config: Config) -> Config {
    let least = Duration::from_secs(1);
    let (reservation_ttl, timeout) = (config.reservation_ttl.max(least), config.timeout.max(least));
    Config { reservation_ttl, timeout, ..config }
}

fn protocols(config: &Config) -> [ProtocolSpec; 2] {
    let inbound = match config.limits.max_circuits_per_source {
        0 => MANY_STREAMS,
        circuits => circuits.saturating_add(SPARE_STREAMS),
    };
    [spec(HOP, inbound), spec(STOP, 0)]
}

impl Hop {
    /// The relay of one node.
    pub fn new(config: Config) -> Self {
        let config = in_bounds(config);
        Self {
            protocols: protocols(&config),
            config,
            reservations: BTreeMap::new(),
            streams: ByConnection::default(),
            opening: ByConnection::default(),
            circuits: BTreeMap::new(),
            splices: BTreeMap::new(),
            books: Books::default(),
            next_circuit: 0,
            timers: Timers::default(),
        }
    }

    /// What it allows from now on. What it has granted lasts as it was granted.
    pub(crate) fn configure(&mut self, config: Config) {
        self.config = in_bounds(config);
        self.protocols = protocols(&self.config);
    }

    /// Reservations held now.
    pub fn reservations(&self) -> usize {
        self.reservations.len()
    }

    /// Circuits now, those being set up included.
    pub fn circuits(&self) -> usize {
        self.circuits.len()
    }

    /// Entries in all tables; zero when no peer is left.
    pub fn len(&self) -> usize {
        self.reservations.len()
            + self.streams.len()
            + self.opening.len()
            + self.circuits.len()
            + self.splices.len()
            + self.books.len()
            + self.timers.len()
    }

    /// Whether all tables are empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Peers and addresses of which it is remembered how often they asked of late. At most some ten thousand, and they
    /// stay when their peers leave; those of which the rates need no memory go when others ask.
    pub fn buckets(&self) -> usize {
        self.books.buckets()
    }

    // Requests.

    fn on_accepted(&mut self, cx: &mut Context<'_>, stream: StreamId, connection: ConnectionId) {
        let until = cx.now() + self.config.timeout;
        self.timers.set(until, Timer::Stream(stream));
        self.streams.insert(stream, connection, State::Asking { until });
    }

    fn on_frame(&mut self, cx: &mut Context<'_>, stream: StreamId, frame: &[u8]) {
        match self.streams.get(stream) {
            Some(State::Asking { .. }) => self.on_request(cx, stream, frame),
            Some(State::Source(circuit)) => self.fail(cx, *circuit, Refusal::Unexpected),
            Some(State::Target(circuit)) => self.on_stop_answer(cx, *circuit, stream, frame),
            Some(State::Answered { .. }) | None => {}
        }
    }

    fn on_request(&mut self, cx: &mut Context<'_>, stream: StreamId, frame: &[u8]) {
        let Some((connection, _)) = self.take(stream) else { return };
        let Some(info) = cx.view().connections.get(connection) else { return };
        let asker = Asker { stream, connection, peer: info.peer, relayed: info.relayed.is_some() };
        let Ok(message) = pb::decode::<HopMessage>(frame) else {
            return self.refuse_circuit(cx, asker, None, Refusal::Malformed);
        };
        match (message.kind(), message.r#type) {
            (Some(HopType::Reserve), _) => self.on_reserve(cx, asker),
            (Some(HopType::Connect), _) => self.on_connect(cx, asker, wire::peer_of(message.peer.as_ref())),
            (_, Some(_)) => self.refuse_circuit(cx, asker, None, Refusal::Unexpected),
            (_, None) => self.refuse_circuit(cx, asker, None, Refusal::Malformed),
        }
    }

    /// Answers a request, and waits for the remote's end of stream.
    fn answer(&mut self, cx: &mut Context<'_>, asker: Asker, message: &HopMessage) {
        cx.send(asker.stream, wire::encode(message));
        cx.finish(asker.stream);
        let until = cx.now() + self.config.timeout;
        self.timers.set(until, Timer::Stream(asker.stream));
        self.streams.insert(asker.stream, asker.connection, State::Answered { until });
    }

    fn refuse_circuit(
        &mut self,
        cx: &mut Context<'_>,
        asker: Asker,
        target: Option<PeerId>,
        refusal: Refusal,
    ) {
        cx.count(refusal.counter());
        let (source, status, why) = (asker.peer, refusal.status(), refusal.why());
        self.answer(cx, asker, &wire::hop_answer(status));
        cx.emit(Event::CircuitRefused { source, target, status, why });
    }

    // Circuits: `circuit.rs` asks the target.

    fn on_connect(&mut self, cx: &mut Context<'_>, asker: Asker, target: Option<PeerId>) {
        let Some(target) = target else {
            return self.refuse_circuit(cx, asker, None, Refusal::Malformed);
        };
        if let Err(refusal) = self.may_connect(cx, asker, target) {
            return self.refuse_circuit(cx, asker, Some(target), refusal);
        }
        let ip = self.places_of(cx.view(), asker.connection).first().copied();
        self.books.spend_circuit(&self.config.limits, asker.peer, ip, cx.now());
        let id = CircuitId(self.next_circuit);
        self.next_circuit += 1;
        self.streams.insert(asker.stream, asker.connection, State::Source(id));
        let (source, source_stream) = (asker.peer, asker.stream);
        let (stage, tried) = (Stage::Choosing, SmallVec::new());
        let circuit = Circuit { source, source_stream, target, tried, ip, stage, until: None };
        self.books.circuits.add(circuit.parties());
        self.circuits.insert(id, circuit);
        self.ask_target(cx, id, Refusal::NoReservation);
    }

    /// Decides on a circuit.
    fn may_connect(&self, cx: &Context<'_>, asker: Asker, target: PeerId) -> Result<(), Refusal> {
        let (view, source) = (cx.view(), asker.peer);
        let ip = self.places_of(view, asker.connection).first().copied();
        let circuits = &self.books.circuits;
        let (peer_full_at, ip_full_at) = self.books.connecting.full_at(&source, ip);
        let ask = |address| Ask::Connect { source, address, target };
        let reserved = self.reservations.contains_key(&target);
        let request = ConnectRequest {
            relayed: asker.relayed,
            // A peer that asks for itself learns whether it holds a reservation.
            to_itself: target == view.local_peer() || (target == source && reserved),
            allowed: self.allows(view, asker.connection, ask),
            reserved,
            circuits: self.circuits.len(),
            of_source: circuits.get(&Party::Source(source)),
            of_target: circuits.get(&Party::Target(target)),
            of_ip: ip.map_or(0, |ip| circuits.get(&Party::From(ip))),
            peer_full_at,
            ip_full_at,
        };
        self.config.limits.connect(cx.now(), &request)
    }

    fn join(&mut self, cx: &mut Context<'_>, id: CircuitId, target_stream: StreamId) {
        let Some(circuit) = self.circuits.get_mut(&id) else { return };
        let Circuit { source, source_stream, target, .. } = *circuit;
        if let Some(until) = circuit.until.take() {
            self.timers.clear(until, Timer::Circuit(id));
        }
        circuit.stage = Stage::Joined { over: false };
        circuit.until = self.config.limits.circuit().duration.map(|duration| cx.now() + duration);
        if let Some(until) = circuit.until {
            self.timers.set(until, Timer::Circuit(id));
        }
        self.streams.remove(source_stream);
        self.streams.remove(target_stream);
        let mut message = wire::hop_answer(RelayStatus::Ok);
        message.limit = wire::limit_to_wire(self.config.limits.circuit());
        cx.send(source_stream, wire::encode(&message));
        let token = cx.splice(source_stream, target_stream, self.config.limits.splice());
        self.splices.insert(token, id);
        cx.count("relay.hop.circuits");
        cx.emit(Event::CircuitOpened { source, target });
    }

    fn on_spliced(&mut self, cx: &mut Context<'_>, token: Token, report: SpliceReport) {
        let Some(id) = self.splices.remove(&token) else { return };
        let Some(Circuit { source, target, stage, .. }) = self.remove(id) else { return };
        let over = matches!(stage, Stage::Joined { over: true });
        let end = match report.end {
            SpliceEnd::Local if over => CircuitEnd::Duration,
            end => end.into(),
        };
        match end {
            CircuitEnd::DataLimit => cx.count("relay.hop.ended.circuit_bytes"),
            CircuitEnd::Duration => cx.count("relay.hop.ended.circuit_duration"),
            CircuitEnd::Idle => cx.count("relay.hop.ended.circuit_idle"),
            _ => {}
        }
        let SpliceReport { a_to_b: bytes_in, b_to_a: bytes_out, .. } = report;
        cx.count_n("relay.hop.bytes", bytes_in.saturating_add(bytes_out));
        cx.emit(Event::CircuitClosed { source, target, bytes_in, bytes_out, end });
    }

    /// A circuit that is not joined cannot be: its source is told why.
    fn fail(&mut self, cx: &mut Context<'_>, id: CircuitId, refusal: Refusal) {
        self.drop_target(cx, id);
        let Some(circuit) = self.remove(id) else { return };
        let (stream, peer) = (circuit.source_stream, circuit.source);
        let Some((connection, _)) = self.streams.remove(stream) else { return };
        let asker = Asker { stream, connection, peer, relayed: false };
        self.refuse_circuit(cx, asker, Some(circuit.target), refusal);
    }

    /// The source of a circuit that is not joined went away.
    fn abandon(&mut self, cx: &mut Context<'_>, id: CircuitId) {
        self.drop_target(cx, id);
        let Some(circuit) = self.remove(id) else { return };
        self.streams.remove(circuit.source_stream);
        cx.count("relay.hop.abandoned");
    }

    /// Takes a circuit out of the books, its counts and its timer included.
    fn remove(&mut self, id: CircuitId) -> Option<Circuit> {
        let circuit = self.circuits.remove(&id)?;
        if let Some(until) = circuit.until {
            self.timers.clear(until, Timer::Circuit(id));
        }
        self.books.circuits.sub(circuit.parties());
        Some(circuit)
    }

    // Ends.

    fn on_stream_end(&mut self, cx: &mut Context<'_>, stream: StreamId, lost: bool) {
        let Some((_, state)) = self.take(stream) else { return };
        match state {
            State::Asking { .. } if !lost => cx.finish(stream),
            State::Asking { .. } | State::Answered { .. } => {}
            State::Source(id) => {
                if !lost {
                    cx.reset(stream);
                }
                self.abandon(cx, id);
            }
            State::Target(id) => {
                if !lost {
                    cx.reset(stream);
                }
                self.ask_target(cx, id, Refusal::StopFault);
            }
        }
    }

    fn on_disconnected(&mut self, cx: &mut Context<'_>, connection: ConnectionId, peer: PeerId) {
        for (stream, state) in self.streams.remove_connection(connection) {
            match state {
                State::Asking { until } | State::Answered { until } => {
                    self.timers.clear(until, Timer::Stream(stream));
                }
                State::Source(id) => self.abandon(cx, id),
                State::Target(id) => self.ask_target(cx, id, Refusal::TargetLost),
            }
        }
        for (_, id) in self.opening.remove_connection(connection) {
            self.ask_target(cx, id, Refusal::TargetLost);
        }
        let other = direct_connection(cx.view(), &peer);
        let Some(reservation) = self.reservations.get_mut(&peer) else { return };
        match other {
            // The reservation lasts as long as the peer is connected.
            Some(other) if reservation.connection == connection => reservation.connection = other,
            None => self.end_reservation(cx, peer, "disconnected"),
            Some(_) => {}
        }
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, timer: Timer) {
        match timer {
            Timer::Stream(stream) => {
                if self.streams.remove(stream).is_some() {
                    cx.count("relay.hop.request_timeout");
                    cx.reset(stream);
                }
            }
            Timer::Reservation(peer) => self.end_reservation(cx, peer, "expired"),
            Timer::Circuit(id) => match self.circuits.get_mut(&id) {
                Some(Circuit { stage: Stage::Joined { over }, source_stream, until, .. }) => {
                    *over = true;
                    *until = None;
                    cx.reset(*source_stream);
                }
                Some(_) => self.ask_target(cx, id, Refusal::StopTimeout),
                None => {}
            },
        }
    }

    /// Takes a stream out of the table, and disarms its timer.
    fn take(&mut self, stream: StreamId) -> Option<(ConnectionId, State)> {
        let (connection, state) = self.streams.remove(stream)?;
        if let State::Asking { until } | State::Answered { until } = state {
            self.timers.clear(until, Timer::Stream(stream));
        }
        Some((connection, state))
    }
}

impl Behaviour for Hop {
    fn name(&self) -> &'static str {
        "hop"
    }

    fn protocols(&self) -> &[ProtocolSpec] {
        &self.protocols
    }

    fn handle(&mut self, cx: &mut Context<'_>, input: Input) {
        while let Some((_, timer)) = self.timers.pop_due(cx.now()) {
            self.on_timer(cx, timer);
        }
        match input {
            Input::Peer(PeerEvent::Disconnected { connection, peer, .. }) => {
                self.on_disconnected(cx, connection, peer);
            }
            Input::Stream(stream, event) => match event {
                StreamEvent::Accepted { connection, .. } => self.on_accepted(cx, stream, connection),
                StreamEvent::Frame(frame) => self.on_frame(cx, stream, &frame),
                StreamEvent::Finished => self.on_stream_end(cx, stream, false),
                StreamEvent::Reset(_) => self.on_stream_end(cx, stream, true),
                StreamEvent::Drained | StreamEvent::Stopped(_) | StreamEvent::Agreed { .. } => {}
            },
            Input::Reply(token, Reply::Stream(result)) => self.on_opened(cx, token, result),
            Input::Reply(token, Reply::Spliced(report)) => self.on_spliced(cx, token, report),
            _ => {}
        }
    }

    fn deadline(&self) -> Option<Deadline> {
        self.timers.first().map(|(at, timer)| {
            Deadline::new(
                at,
                match timer {
                    Timer::Stream(_) => "hop request timeout",
                    Timer::Reservation(_) => "reservation expires",
                    Timer::Circuit(_) => "circuit timeout",
                },
            )
        })
    }

    fn describe(&self, protocol: &ProtocolName, frame: &[u8], unix: UnixTime) -> Option<String> {
        Some(wire::describe(protocol, frame, unix))
    }
}

/// Who sent a request.
#[derive(Clone, Copy, Debug)]
struct Asker {
    stream: StreamId,
    connection: ConnectionId,
    peer: PeerId,
    relayed: bool,
}
