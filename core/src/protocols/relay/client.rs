//! The side that uses relays: keeps reservations alive, accepts circuits through them, and dials through circuits.

mod auto;
mod check;
mod connect;
mod events;
mod grant;
mod known;
mod reserve;
mod term;

use std::{collections::BTreeMap, time::Duration};

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use peerless_proto::address;

pub(crate) use self::connect::{any_relay, through_any_relay};
use self::{
    auto::Auto,
    connect::Circuit,
    known::{Candidate, Known},
    reserve::Relay,
};
pub use self::{
    auto::{AutoRelay, Reachability, When},
    events::{Event, HeldReservation, ReservationState, ReserveError},
};
use super::{
    HOP, STOP,
    score::{ScorePolicy, Scores},
    spec, stop, wire,
};
use crate::{
    behaviour::{Action, Behaviour, Context, Input, PeerEvent, Reply, StreamEvent},
    errors::{
        AttemptError, CloseReason, DialError, InvalidConfig, OpenError, RelayStatus, StreamFault, require,
    },
    ids::{ConnectionId, StreamId, Token},
    info::Info,
    names::{ProtocolName, ProtocolSpec, UpgradeRole},
    protocols::by_connection::ByConnection,
    time::{Deadline, Instant, Timers, UnixTime},
};

/// How patient the client is, how much it accepts, and what it does unasked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How long a relay may take to answer, and a dial through it as a whole; at least a second.
    pub timeout: Duration,
    /// Whether to dial circuit addresses.
    pub dials: bool,
    /// Most circuits that one relay may have open to us.
    pub max_inbound_circuits: usize,
    /// Reservations kept without being asked for.
    pub auto: AutoRelay,
    /// What makes a relay better than another.
    pub score: ScorePolicy,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            dials: true,
            max_inbound_circuits: 256,
            auto: AutoRelay::default(),
            score: ScorePolicy::default(),
        }
    }
}

impl Config {
    /// Finds the first thing that makes no sense.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let (auto, score) = (&self.auto, &self.score);
        let is_share = |share: f64| (0.0..=1.0).contains(&share);
        let least = Duration::from_secs(1);
        require(self.timeout >= least, "relay_client.timeout", "must be at least a second")?;
        let enough = auto.when == When::Never || auto.max >= auto.desired;
        require(enough, "relay_client.auto.max", "must not be below relay_client.auto.desired")?;
        require(
            auto.bootstrap.len() <= known::MAX_CANDIDATES,
            "relay_client.auto.bootstrap",
            "must not be more than 256 relays",
        )?;
        require(is_share(score.ema_alpha), "relay_client.score.ema_alpha", "must be from 0 to 1")?;
        let rate = score.min_success_rate;
        require(is_share(rate), "relay_client.score.min_success_rate", "must be from 0 to 1")
    }
}

/// Most addresses at which a relay is dialled at once.
const MAX_PLACES: usize = 16;

/// The user of relays in one node.
#[derive(Debug)]
pub struct Client {
    config: Config,
    protocols: [ProtocolSpec; 2],
    relays: BTreeMap<PeerId, Relay>,
    /// Dials through relays, by their token.
    circuits: BTreeMap<Token, Circuit>,
    /// Connections to relays under way, each of which may serve several.
    links: BTreeMap<Token, Link>,
    link_to: BTreeMap<(PeerId, Vec<Multiaddr>), Token>,
    opening: ByConnection<Token, Purpose>,
    streams: ByConnection<StreamId, Purpose>,
    /// Connections through relays, ours and others'.
    through: BTreeMap<ConnectionId, PeerId>,
    timers: Timers<Timer>,
    /// What is remembered of relays; bounded, and not tied to any connection.
    known: Known,
    scores: Scores,
    auto: Auto,
}

/// A connection to a relay under way.
#[derive(Debug)]
struct Link {
    relay: PeerId,
    addresses: Vec<Multiaddr>,
    since: Instant,
    /// Dials that wait for it.
    circuits: Vec<Token>,
}

/// What a stream is for. Besides what is listed, a reset or the end of its connection ends each.
#[derive(Clone, Copy, Debug)]
enum Purpose {
    /// RESERVE was or will be sent; until the answer, the end, or the relay's timer.
    Reserve(PeerId),
    /// CONNECT to ourselves was or will be sent; until the answer, the end, or the relay's timer.
    Check(PeerId),
    /// CONNECT was or will be sent; until the answer, the end, or the circuit's timer.
    Connect(Token),
    /// A relay opened it; until its CONNECT, the end, or the timeout.
    Stop { until: Instant },
    /// All is said; until the remote's end or the timeout.
    Closing { until: Instant },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// The next step of a relay's state.
    Relay(PeerId),
    Expiry(PeerId),
    Circuit(Token),
    Stream(StreamId),
    /// Looking for relays.
    Auto,
}

impl Client {
    /// The user of relays in one node.
    pub fn new(mut config: Config) -> Self {
        config.timeout = config.timeout.max(Duration::from_secs(1));
        let protocols = [spec(HOP, 0), spec(STOP, config.max_inbound_circuits)];
        let mut client = Self {
            scores: Scores::new(config.score.clone()),
            config,
            protocols,
            relays: BTreeMap::new(),
            circuits: BTreeMap::new(),
            links: BTreeMap::new(),
            link_to: BTreeMap::new(),
            opening: ByConnection::default(),
            streams: ByConnection::default(),
            through: BTreeMap::new(),
            timers: Timers::default(),
            known: Known::default(),
            auto: Auto::default(),
        };
        client.auto_boot();
        client
    }

    /// Relays where we hold a reservation or try to, whether connected or not.
    pub fn relays(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.relays.keys().copied()
    }

    /// What is known of how well relays work.
    pub fn scores(&self) -> &Scores {
        &self.scores
    }

    /// Forgets how well relays work.
    pub fn reset_scores(&mut self) {
        self.scores.reset();
    }

    /// Entries in all tables; zero when no peer is left, no relay wanted and no dial under way. What is remembered of
    /// relays for later does not count.
    pub fn len(&self) -> usize {
        self.relays.len()
            + self.circuits.len()
            + self.links.len()
            + self.link_to.len()
            + self.opening.len()
            + self.streams.len()
            + self.through.len()
            + self.timers.len()
    }

    /// Whether all tables are empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Connects to a relay, or joins in with who is already connecting to it at these addresses.
    fn link(&mut self, cx: &mut Context<'_>, relay: PeerId, addresses: Vec<Multiaddr>) -> Token {
        let key = (relay, addresses);
        if let Some(token) = self.link_to.get(&key) {
            return *token;
        }
        let token = cx.dial(Some(relay), key.1.clone());
        let link = Link { relay, addresses: key.1.clone(), since: cx.now(), circuits: Vec::new() };
        self.links.insert(token, link);
        self.link_to.insert(key, token);
        token
    }

    /// Where a relay may be, each with its `/p2p`: where the caller says, where we were asked to find it, where it said that it
    /// is, and what is known of it otherwise.
    fn places_of(&self, cx: &Context<'_>, relay: &PeerId, named: Option<Multiaddr>) -> Vec<Multiaddr> {
        let wanted = self.relays.get(relay);
        let wanted = wanted.into_iter().flat_map(|wanted| wanted.addresses.iter().chain(&wanted.told));
        let known = self.known.get(relay).into_iter().flat_map(Candidate::addresses);
        let stored = cx.view().peerstore.addresses(cx.now(), relay).into_iter();
        let stored = stored.filter_map(|known| address::with_peer(known.address.clone(), *relay).ok());
        let mut places = Vec::new();
        for place in named.into_iter().chain(wanted.cloned()).chain(known.cloned()).chain(stored) {
            if places.len() < MAX_PLACES && !address::is_circuit(&place) && !places.contains(&place) {
                places.push(place);
            }
        }
        places
    }

    fn on_linked(&mut self, cx: &mut Context<'_>, token: Token, result: Result<ConnectionId, DialError>) {
        let Some(Link { relay, addresses, since, circuits }) = self.links.remove(&token) else { return };
        self.link_to.remove(&(relay, addresses));
        if result.is_err() && circuits.is_empty() && !self.relays.contains_key(&relay) {
            self.auto_unreachable(cx, relay, since);
        }
        self.reserve_linked(cx, relay, token, &result);
        for circuit in circuits {
            self.circuit_linked(cx, circuit, relay, &result);
        }
    }

    /// Opens a stream to a relay.
    fn open(&mut self, cx: &mut Context<'_>, connection: ConnectionId, purpose: Purpose) -> Token {
        let token = cx.open(connection, HOP);
        self.opening.insert(token, connection, purpose);
        token
    }

    fn on_opened(&mut self, cx: &mut Context<'_>, token: Token, result: Result<StreamId, OpenError>) {
        let Some((connection, purpose)) = self.opening.remove(token) else {
            // Whoever wanted it gave up meanwhile.
            if let Ok(stream) = result {
                cx.reset(stream);
            }
            return;
        };
        if let Ok(stream) = result {
            self.streams.insert(stream, connection, purpose);
        }
        match purpose {
            Purpose::Reserve(relay) => self.reserve_opened(cx, relay, result),
            Purpose::Check(relay) => self.check_opened(cx, relay, result),
            Purpose::Connect(circuit) => self.circuit_opened(cx, circuit, result),
            Purpose::Stop { .. } | Purpose::Closing { .. } => {}
        }
    }

    /// Gives up a stream that is asked for or open.
    fn drop_request(&mut self, cx: &mut Context<'_>, request: Request) {
        match request {
            Request::Opening(token) => {
                self.opening.remove(token);
            }
            Request::Asked(stream) => {
                // A lost stream is not in the table any more, and an answered one has another purpose.
                if let Some(Purpose::Reserve(_) | Purpose::Check(_) | Purpose::Connect(_)) =
                    self.streams.get(stream)
                {
                    self.streams.remove(stream);
                    cx.reset(stream);
                }
            }
        }
    }

    /// Says no more on a stream, and waits for the remote's end.
    fn close(&mut self, cx: &mut Context<'_>, stream: StreamId, connection: ConnectionId) {
        cx.finish(stream);
        let until = cx.now() + self.config.timeout;
        self.timers.set(until, Timer::Stream(stream));
        self.streams.insert(stream, connection, Purpose::Closing { until });
    }

    fn on_stream(&mut self, cx: &mut Context<'_>, stream: StreamId, event: StreamEvent) {
        if let StreamEvent::Accepted { connection, .. } = event {
            let until = cx.now() + self.config.timeout;
            self.timers.set(until, Timer::Stream(stream));
            self.streams.insert(stream, connection, Purpose::Stop { until });
            return;
        }
        let Some(purpose) = self.streams.get(stream).copied() else { return };
        match (purpose, event) {
            (Purpose::Reserve(relay), StreamEvent::Frame(frame)) => {
                self.reserve_answered(cx, relay, stream, &frame)
            }
            (Purpose::Check(relay), StreamEvent::Frame(frame)) => {
                self.check_answered(cx, relay, stream, &frame);
            }
            (Purpose::Connect(circuit), StreamEvent::Frame(frame)) => {
                self.circuit_answered(cx, circuit, stream, &frame);
            }
            (Purpose::Stop { .. }, StreamEvent::Frame(frame)) => self.on_stop(cx, stream, &frame),
            (_, StreamEvent::Finished) => self.on_stream_end(cx, stream, purpose, None),
            (_, StreamEvent::Reset(fault)) => self.on_stream_end(cx, stream, purpose, Some(fault)),
            _ => {}
        }
    }

    /// The remote sends no more, or the stream is lost.
    fn on_stream_end(
        &mut self,
        cx: &mut Context<'_>,
        stream: StreamId,
        purpose: Purpose,
        fault: Option<StreamFault>,
    ) {
        if fault.is_some() {
            self.take(stream);
        }
        match (purpose, fault) {
            (Purpose::Reserve(relay), None) => {
                self.setback(cx, relay, ReserveError::Malformed("no answer".into()));
            }
            (Purpose::Reserve(relay), Some(fault)) => self.setback(cx, relay, ReserveError::Stream(fault)),
            (Purpose::Check(relay), _) => self.check_over(cx, relay),
            (Purpose::Connect(circuit), None) => {
                self.circuit_failed(cx, circuit, AttemptError::RelayFault("no answer".into()));
            }
            (Purpose::Connect(circuit), Some(fault)) => {
                self.circuit_failed(cx, circuit, AttemptError::RelayFault(fault.to_string()));
            }
            (Purpose::Stop { .. }, None) => {
                self.take(stream);
                cx.finish(stream);
            }
            (Purpose::Closing { .. }, None) => {
                self.take(stream);
            }
            (Purpose::Stop { .. } | Purpose::Closing { .. }, Some(_)) => {}
        }
    }

    /// A relay says that somebody wants to reach us.
    fn on_stop(&mut self, cx: &mut Context<'_>, stream: StreamId, frame: &[u8]) {
        let Some((connection, _)) = self.take(stream) else { return };
        let view = cx.view();
        let Some(info) = view.connections.get(connection) else { return };
        let reserved = info.relayed.is_none() && self.holds(&info.peer);
        match stop::judge(frame, reserved, view.local_peer()) {
            Ok(stop::Incoming { source, limit }) => {
                cx.count("relay.stop.accepted");
                cx.send(stream, wire::encode(&wire::stop_answer(RelayStatus::Ok)));
                let token = cx.token();
                cx.push(Action::Upgrade {
                    token,
                    dial: None,
                    stream,
                    peer: source,
                    role: UpgradeRole::Responder,
                    limit,
                    address: None,
                });
            }
            Err(status) => {
                cx.count(stop::counter(status));
                cx.send(stream, wire::encode(&wire::stop_answer(status)));
                self.close(cx, stream, connection);
            }
        }
    }

    fn on_disconnected(
        &mut self,
        cx: &mut Context<'_>,
        connection: ConnectionId,
        peer: PeerId,
        reason: &CloseReason,
    ) {
        let streams = self.streams.remove_connection(connection);
        for (stream, purpose) in &streams {
            self.disarm(*stream, *purpose);
        }
        let opening = self.opening.remove_connection(connection);
        let purposes = streams.into_iter().map(|s| s.1).chain(opening.into_iter().map(|o| o.1));
        for purpose in purposes {
            match purpose {
                Purpose::Reserve(relay) | Purpose::Check(relay) => self.reserve_cut(cx, relay, reason),
                Purpose::Connect(circuit) => {
                    self.circuit_failed(cx, circuit, AttemptError::RelayUnreachable(reason.to_string()));
                }
                Purpose::Stop { .. } | Purpose::Closing { .. } => {}
            }
        }
        match self.through.remove(&connection) {
            Some(relay) => self.scores.record_closed(&relay),
            None => self.known.disconnected(&peer, cx.now()),
        }
        self.reserve_disconnected(cx, connection, peer, reason);
    }

    fn on_connected(&mut self, cx: &mut Context<'_>, connection: ConnectionId) {
        let relayed = cx.view().connections.get(connection).and_then(|info| info.relayed.as_ref());
        if let Some(relay) = relayed.map(|relayed| relayed.relay) {
            self.through.insert(connection, relay);
            self.scores.record_opened(relay, cx.now());
        }
    }

    fn on_identified(&mut self, cx: &mut Context<'_>, connection: ConnectionId, info: &Info) {
        let view = cx.view();
        let Some(connection) = view.connections.get(connection) else { return };
        self.known.identified(view, connection, info, cx.now());
        if connection.relayed.is_none() {
            self.relay_moved(cx.now(), connection.peer, &info.listen_addresses);
        }
        if self.auto_is_short() {
            self.auto_review(cx);
        }
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, timer: Timer) {
        match timer {
            Timer::Relay(relay) => self.reserve_step(cx, relay),
            Timer::Expiry(relay) => self.reserve_over(cx, relay),
            Timer::Circuit(circuit) => self.circuit_failed(cx, circuit, AttemptError::TimedOut),
            Timer::Auto => self.on_auto_timer(cx),
            Timer::Stream(stream) => {
                if self.streams.remove(stream).is_some() {
                    cx.count("relay.client.stream_timeout");
                    cx.reset(stream);
                }
            }
        }
    }

    /// Takes a stream out of the table, and disarms its timer.
    fn take(&mut self, stream: StreamId) -> Option<(ConnectionId, Purpose)> {
        let (connection, purpose) = self.streams.remove(stream)?;
        self.disarm(stream, purpose);
        Some((connection, purpose))
    }

    fn disarm(&mut self, stream: StreamId, purpose: Purpose) {
        if let Purpose::Stop { until } | Purpose::Closing { until } = purpose {
            self.timers.clear(until, Timer::Stream(stream));
        }
    }
}

impl Behaviour for Client {
    fn name(&self) -> &'static str {
        "relay-client"
    }

    fn protocols(&self) -> &[ProtocolSpec] {
        &self.protocols
    }

    fn handle(&mut self, cx: &mut Context<'_>, input: Input) {
        while let Some((_, timer)) = self.timers.pop_due(cx.now()) {
            self.on_timer(cx, timer);
        }
        match input {
            Input::Peer(PeerEvent::Disconnected { connection, peer, reason, .. }) => {
                self.on_disconnected(cx, connection, peer, &reason);
            }
            Input::Peer(PeerEvent::Connected { connection, .. }) => self.on_connected(cx, connection),
            Input::Peer(PeerEvent::Identified { connection, info, .. }) => {
                self.on_identified(cx, connection, &info);
            }
            Input::Stream(stream, event) => self.on_stream(cx, stream, event),
            Input::Reply(token, Reply::Stream(result)) => self.on_opened(cx, token, result),
            Input::Reply(token, Reply::Dial(result)) => self.on_linked(cx, token, result),
            Input::Reply(token, Reply::Upgraded(result)) => self.circuit_upgraded(cx, token, result),
            Input::Dial(token, address) => self.on_dial(cx, token, address),
            Input::Network => self.network_is_back(cx),
            _ => {}
        }
    }

    fn dials(&self, address: &Multiaddr) -> bool {
        self.config.dials && address::is_circuit(address)
    }

    fn deadline(&self) -> Option<Deadline> {
        self.timers.first().map(|(at, timer)| {
            Deadline::new(
                at,
                match timer {
                    Timer::Relay(_) => "reservation step",
                    Timer::Expiry(_) => "reservation expires",
                    Timer::Circuit(_) => "circuit dial timeout",
                    Timer::Stream(_) => "relay stream timeout",
                    Timer::Auto => "looking for relays",
                },
            )
        })
    }

    fn describe(&self, protocol: &ProtocolName, frame: &[u8], unix: UnixTime) -> Option<String> {
        Some(wire::describe(protocol, frame, unix))
    }
}

/// How far a request to a relay is.
#[derive(Clone, Copy, Debug)]
enum Request {
    /// Its stream was asked for.
    Opening(Token),
    /// It was sent.
    Asked(StreamId),
}
