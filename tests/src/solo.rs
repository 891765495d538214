//! One behaviour alone, in virtual time: the test plays the node and everybody else.
//!
//! [`Solo`] keeps the books that a node would keep (connections, streams, addresses), carries out what needs no
//! decision (own addresses, resets), and leaves the rest to the test: whether a stream opens, what the remote says.
//! Everything that happens becomes a line of a transcript in which peers have names.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::Bound,
    time::Duration,
};

use bytes::Bytes;
use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};
use peerless_core::{
    behaviour::{Action, Behaviour, Context, ContextParts, Input, PeerEvent, Reply, StreamEvent, View},
    counters::Counters,
    errors::{CloseReason, DialError, OpenError, SpliceEnd, StreamFault, UpgradeError},
    identity::Identity,
    ids::{Arena, ConnectionId, StreamId, Token},
    names::{CircuitLimit, Direction, ProtocolName, SpliceLimit, SpliceReport, UpgradeRole},
    node::Event,
    protocols::rendezvous,
    rng::{HashKeys, Rng},
    storage::{Rows, StoreError, Write},
    streams::Queues,
    swarm::{
        addresses::{AddressSource, Addresses},
        peerstore::{Peerstore, PeerstoreConfig},
        table::{ConnectionInfo, Connections, Relayed},
    },
    time::{Instant, UnixTime, WallClock},
};

/// Rows that the store gives at once.
const ROWS_AT_ONCE: usize = 100;

/// Wall-clock time when a [`Solo`] starts.
pub const EPOCH: UnixTime = UnixTime::from_secs(1_700_000_000);

/// The socket that all connections of a [`Solo`] run over.
pub const LISTENER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 4001);

/// The identity that belongs to a name, the same in every test.
pub fn identity(name: &str) -> Identity {
    Identity::generate(&mut Rng::new([0; 32]).fork(name))
}

/// The PeerId that belongs to a name.
pub fn peer(name: &str) -> PeerId {
    identity(name).peer()
}

/// One behaviour and a world for it.
pub struct Solo<B> {
    /// The behaviour itself.
    pub behaviour: B,
    /// What it counted.
    pub counters: Counters,
    /// The established connections.
    pub connections: Connections,
    /// Our own addresses.
    pub addresses: Addresses,
    /// What is known of other peers.
    pub peerstore: Peerstore,
    /// The protocols that the node is said to answer.
    pub protocols: Vec<ProtocolName>,
    /// Events emitted and not yet taken.
    pub events: Vec<Event>,
    /// Actions to be answered, oldest first.
    pub pending: VecDeque<Action>,
    /// Whom it wants spared from pruning, and why.
    pub protected: BTreeSet<(PeerId, &'static str)>,
    /// What is stored, by table and key.
    pub rows: BTreeMap<(&'static str, Bytes), Bytes>,
    /// Whether the store waits to be told to answer; see [`Solo::store_answers`].
    pub holds_store: bool,
    identity: Identity,
    now: Instant,
    clock: WallClock,
    rng: Rng,
    next_token: u64,
    queues: FakeQueues,
    streams: Arena<StreamId, Stream>,
    replies: VecDeque<Input>,
    names: BTreeMap<String, String>,
    lines: Vec<String>,
    muted: bool,
    most_actions: usize,
    all_actions: usize,
}

#[derive(Debug, Default)]
struct FakeQueues(BTreeMap<StreamId, usize>);

impl Queues for FakeQueues {
    fn queued(&self, stream: StreamId) -> usize {
        self.0.get(&stream).copied().unwrap_or(0)
    }

    fn limit(&self, _: StreamId) -> usize {
        256 << 10
    }
}

#[derive(Debug)]
struct Stream {
    connection: ConnectionId,
    protocol: ProtocolName,
    sent: VecDeque<Bytes>,
    /// Whether the remote has said nothing since the stream opened or we last sent.
    their_turn: bool,
    we_finished: bool,
    they_finished: bool,
    splice: Option<Splice>,
}

#[derive(Clone, Copy, Debug)]
struct Splice {
    token: Token,
    other: StreamId,
    is_a: bool,
}

/// What a test sees of [`Action::Upgrade`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// Its token.
    pub token: Token,
    /// The stream.
    pub stream: StreamId,
    /// Who must be at the other end.
    pub peer: PeerId,
    /// Our side of the handshakes.
    pub role: UpgradeRole,
    /// What the relay grants.
    pub limit: CircuitLimit,
}

impl<B: Behaviour> Solo<B> {
    /// A world for `behaviour` on the node called `name`, at time zero and without connections.
    pub fn new(name: &str, behaviour: B) -> Self {
        Self::seeded(name, behaviour, [7; 32])
    }

    /// As [`Solo::new`], with another seed.
    pub fn seeded(name: &str, behaviour: B, seed: [u8; 32]) -> Self {
        let rng = Rng::new(seed);
        let keys = HashKeys::new(&mut rng.fork("hash"));
        let protocols = behaviour
            .protocols()
            .iter()
            .filter(|spec| spec.inbound_per_peer > 0)
            .map(|spec| spec.name.clone())
            .collect();
        let rng = rng.fork(behaviour.name());
        let mut solo = Self {
            behaviour,
            counters: Counters::default(),
            connections: Connections::new(keys),
            addresses: Addresses::default(),
            peerstore: Peerstore::new(PeerstoreConfig::default()),
            protocols,
            events: Vec::new(),
            pending: VecDeque::new(),
            protected: BTreeSet::new(),
            rows: BTreeMap::new(),
            holds_store: false,
            identity: identity(name),
            now: Instant::ZERO,
            clock: WallClock::new(EPOCH, Instant::ZERO),
            rng,
            next_token: 0,
            queues: FakeQueues::default(),
            streams: Arena::default(),
            replies: VecDeque::new(),
            names: BTreeMap::new(),
            lines: Vec::new(),
            muted: false,
            most_actions: 0,
            all_actions: 0,
        };
        solo.peer(name);
        solo
    }

    /// Monotonic time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Wall-clock time.
    pub fn unix(&self) -> UnixTime {
        self.clock.at(self.now)
    }

    /// Most actions that one input led to so far.
    pub fn most_actions(&self) -> usize {
        self.most_actions
    }

    /// Actions so far.
    pub fn all_actions(&self) -> usize {
        self.all_actions
    }

    /// The PeerId that belongs to `name`, which stands for it in the transcript from now on.
    pub fn peer(&mut self, name: &str) -> PeerId {
        let peer = peer(name);
        self.names.insert(peer.to_base58(), name.into());
        peer
    }

    /// Writes no transcript from now on, which takes longer the more peers have names.
    pub fn mute(&mut self) {
        self.muted = true;
    }

    /// Takes the transcript since the last call.
    pub fn story(&mut self) -> String {
        let mut story = String::new();
        for line in self.lines.drain(..) {
            writeln!(story, "{line}").expect("a string takes everything");
        }
        story
    }

    /// Takes the events since the last call.
    pub fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    // Connections.

    /// `name` connects to us directly, from an address of its own.
    pub fn connect(&mut self, name: &str) -> ConnectionId {
        self.connect_with(name, |_| ())
    }

    /// `name` is connected to us through the relay at the other end of `via`.
    pub fn connect_via(&mut self, name: &str, via: ConnectionId) -> ConnectionId {
        let relay = self.connections.get(via).expect("the connection to the relay").clone();
        self.connect_with(name, |info| {
            info.socket = None;
            info.relayed = Some(Relayed { relay: relay.peer, via, limit: CircuitLimit::default() });
            info.remote = relay.remote.with(Protocol::P2p(relay.peer)).with(Protocol::P2pCircuit);
        })
    }

    /// `name` is connected to us, with some details changed.
    pub fn connect_with(&mut self, name: &str, change: impl FnOnce(&mut ConnectionInfo)) -> ConnectionId {
        let connection = self.establish(name, change);
        let peer = self.peer(name);
        self.input(Input::Peer(PeerEvent::Connected { connection, peer }));
        connection
    }

    /// The connection is lost.
    pub fn disconnect(&mut self, connection: ConnectionId) {
        self.disconnect_because(connection, CloseReason::TimedOut);
    }

    /// The connection is lost for a reason.
    pub fn disconnect_because(&mut self, connection: ConnectionId, reason: CloseReason) {
        let lost: Vec<_> =
            self.streams.iter().filter(|(_, s)| s.connection == connection).map(|(id, _)| id).collect();
        for stream in lost {
            self.drop_stream(stream, |is_a| {
                let fault = StreamFault::ConnectionLost;
                if is_a { SpliceEnd::A(fault) } else { SpliceEnd::B(fault) }
            });
        }
        let info = self.connections.remove(connection).expect("a connection");
        let (peer, remaining) = (info.peer, self.connections.of(&info.peer).len());
        self.input(Input::Peer(PeerEvent::Disconnected { connection, peer, remaining, reason }));
    }

    fn establish(&mut self, name: &str, change: impl FnOnce(&mut ConnectionInfo)) -> ConnectionId {
        let (peer, now, host) = (self.peer(name), self.now, self.connections.len() % 250 + 1);
        self.connections.insert_with(|id| {
            let mut info = ConnectionInfo {
                id,
                peer,
                direction: Direction::Inbound,
                remote: address(&format!("/ip4/192.0.2.{host}/udp/4001/quic-v1")),
                socket: Some(LISTENER),
                relayed: None,
                established: now,
                rtt: None,
                is_superseded: false,
            };
            change(&mut info);
            info
        })
    }

    // Streams.

    /// The remote opens a stream.
    pub fn accept(&mut self, connection: ConnectionId, protocol: &ProtocolName) -> StreamId {
        let peer = self.connections.get(connection).expect("a connection").peer;
        let stream = self.new_stream(connection, protocol.clone());
        let event = StreamEvent::Accepted { connection, peer, protocol: protocol.clone() };
        self.input(Input::Stream(stream, event));
        stream
    }

    /// The remote sends a frame.
    pub fn receive(&mut self, stream: StreamId, frame: impl Into<Bytes>) {
        let frame = frame.into();
        if let Some(text) = self.describe(stream, &frame) {
            let from = self.remote_of(stream);
            let to = self.identity.peer().to_base58();
            self.line(&from, '>', &format!("{to}  {text}"));
        }
        if let Some(state) = self.streams.get_mut(stream) {
            state.their_turn = false;
        }
        self.input(Input::Stream(stream, StreamEvent::Frame(frame)));
    }

    /// The remote sends no more.
    pub fn finish(&mut self, stream: StreamId) {
        if let Some(state) = self.streams.get_mut(stream) {
            state.they_finished = true;
        }
        self.input(Input::Stream(stream, StreamEvent::Finished));
        self.sweep(stream);
    }

    /// The remote resets the stream.
    pub fn reset(&mut self, stream: StreamId, fault: StreamFault) {
        self.streams.remove(stream);
        self.input(Input::Stream(stream, StreamEvent::Reset(fault)));
    }

    /// What we sent on a stream since the last call.
    pub fn sent(&mut self, stream: StreamId) -> Vec<Bytes> {
        self.streams.get_mut(stream).map(|s| s.sent.drain(..).collect()).unwrap_or_default()
    }

    /// Whether the stream has not been reset, and not been finished by both sides.
    pub fn is_open(&self, stream: StreamId) -> bool {
        self.streams.get(stream).is_some()
    }

    /// Whether we said that we send no more.
    pub fn is_finished(&self, stream: StreamId) -> bool {
        self.streams.get(stream).is_some_and(|s| s.we_finished)
    }

    /// Whether the remote has said nothing since the stream opened or we last sent.
    pub fn is_their_turn(&self, stream: StreamId) -> bool {
        self.streams.get(stream).is_some_and(|s| s.their_turn)
    }

    /// Whether the remote said that it sends no more.
    pub fn is_ended(&self, stream: StreamId) -> bool {
        self.streams.get(stream).is_some_and(|s| s.they_finished)
    }

    /// Streams that are open.
    pub fn streams(&self) -> Vec<StreamId> {
        self.streams.ids().collect()
    }

    /// The protocol of an open stream.
    pub fn protocol(&self, stream: StreamId) -> Option<ProtocolName> {
        self.streams.get(stream).map(|s| s.protocol.clone())
    }

    // Answers to actions.

    /// The oldest stream that was asked for opens.
    pub fn open(&mut self) -> StreamId {
        let (token, connection, protocol) = self.take_open().expect("a stream was asked for");
        let stream = self.new_stream(connection, protocol);
        self.input(Input::Reply(token, Reply::Stream(Ok(stream))));
        stream
    }

    /// The oldest stream that was asked for does not open.
    pub fn refuse_open(&mut self, error: OpenError) {
        let (token, _, _) = self.take_open().expect("a stream was asked for");
        self.input(Input::Reply(token, Reply::Stream(Err(error))));
    }

    /// On which connections streams are asked for.
    pub fn opening(&self) -> Vec<ConnectionId> {
        let opening = |action: &Action| match action {
            Action::Open { connection, .. } => Some(*connection),
            _ => None,
        };
        self.pending.iter().filter_map(opening).collect()
    }

    /// The oldest dial leads to `name`, at the first of its addresses if it has any.
    pub fn dialled(&mut self, name: &str) -> ConnectionId {
        let (token, addresses) = self.take_dial().expect("a dial");
        let connection = self.connect_with(name, |info| {
            info.direction = Direction::Outbound;
            if let Some(first) = addresses.first() {
                info.remote = first.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect();
            }
        });
        self.input(Input::Reply(token, Reply::Dial(Ok(connection))));
        connection
    }

    /// The oldest dial leads nowhere.
    pub fn dial_fails(&mut self, error: DialError) {
        let (token, _) = self.take_dial().expect("a dial");
        self.input(Input::Reply(token, Reply::Dial(Err(error))));
    }

    /// Where the node is asked to dial.
    pub fn dialling(&self) -> Vec<Vec<Multiaddr>> {
        let dialling = |action: &Action| match action {
            Action::Dial { addresses, .. } => Some(addresses.clone()),
            _ => None,
        };
        self.pending.iter().filter_map(dialling).collect()
    }

    /// The splice of which `stream` is a part ends, and both streams with it.
    pub fn splice_ends(&mut self, stream: StreamId, report: SpliceReport) {
        let splice = self.streams.get(stream).and_then(|s| s.splice).expect("a spliced stream");
        self.streams.remove(stream);
        self.streams.remove(splice.other);
        self.input(Input::Reply(splice.token, Reply::Spliced(report)));
    }

    /// Whether the stream is spliced to another.
    pub fn is_spliced(&self, stream: StreamId) -> bool {
        self.streams.get(stream).is_some_and(|s| s.splice.is_some())
    }

    /// Takes the upgrades that were asked for. They stay unanswered.
    pub fn upgrades(&mut self) -> Vec<Upgrade> {
        let mut upgrades = Vec::new();
        self.pending.retain(|action| {
            let Action::Upgrade { token, stream, peer, role, limit, .. } = action else { return true };
            upgrades.push(Upgrade {
                token: *token,
                stream: *stream,
                peer: *peer,
                role: *role,
                limit: *limit,
            });
            false
        });
        upgrades
    }

    /// Takes the circuit dials that failed.
    pub fn failed_dials(&mut self) -> Vec<(Token, DialError)> {
        let mut failed = Vec::new();
        self.pending.retain(|action| {
            let Action::DialFailed { token, error } = action else { return true };
            failed.push((*token, error.clone()));
            false
        });
        failed
    }

    /// An upgrade has ended.
    pub fn upgraded(&mut self, upgrade: &Upgrade, result: Result<ConnectionId, UpgradeError>) {
        self.streams.remove(upgrade.stream);
        self.input(Input::Reply(upgrade.token, Reply::Upgraded(result)));
    }

    /// The store does the oldest of what it was asked for and had to hold, or fails to.
    pub fn store_answers(&mut self, result: Result<(), StoreError>) {
        let is_store = |action: &Action| matches!(action, Action::Load { .. } | Action::Store { .. });
        let at = self.pending.iter().position(is_store).expect("the store was asked for something");
        let action = self.pending.remove(at).expect("an action");
        let input = self.do_store(action, result);
        self.input(input);
    }

    /// Requests that the store holds.
    pub fn storing(&self) -> usize {
        let is_store = |action: &&Action| matches!(action, Action::Load { .. } | Action::Store { .. });
        self.pending.iter().filter(is_store).count()
    }

    // Commands and time.

    /// The embedder commands something.
    pub fn with<R>(&mut self, command: impl FnOnce(&mut B, &mut Context<'_>) -> R) -> R {
        let (actions, result) = self.call(command);
        self.carry_out(actions);
        self.pump();
        result
    }

    /// The node asks for a circuit.
    pub fn dial(&mut self, circuit: Multiaddr) -> Token {
        let token = Token(self.next_token);
        self.next_token += 1;
        self.input(Input::Dial(token, circuit));
        token
    }

    /// Anything else happens.
    pub fn input(&mut self, input: Input) {
        self.replies.push_back(input);
        self.pump();
    }

    /// Time passes; every deadline on the way is kept to the nanosecond.
    pub fn advance(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(deadline) = self.behaviour.deadline().filter(|deadline| deadline.at <= end) {
            self.now = deadline.at;
            self.input(Input::Timeout);
        }
        self.now = end;
    }

    /// Time passes up to the next deadline; says what that was for.
    pub fn next_deadline(&mut self) -> &'static str {
        let deadline = self.behaviour.deadline().expect("a deadline");
        self.now = deadline.at;
        self.input(Input::Timeout);
        deadline.why
    }

    fn pump(&mut self) {
        while let Some(input) = self.replies.pop_front() {
            let (actions, ()) = self.call(|behaviour, cx| behaviour.handle(cx, input));
            if let Some(deadline) = self.behaviour.deadline() {
                assert!(
                    deadline.at > self.now,
                    "{} is due at {} but it is {}",
                    deadline.why,
                    deadline.at,
                    self.now
                );
            }
            self.most_actions = self.most_actions.max(actions.len());
            self.all_actions += actions.len();
            self.carry_out(actions);
        }
    }

    fn call<R>(&mut self, f: impl FnOnce(&mut B, &mut Context<'_>) -> R) -> (VecDeque<Action>, R) {
        let mut actions = VecDeque::new();
        let mut cx = Context::from(ContextParts {
            now: self.now,
            unix: self.clock.at(self.now),
            rng: &mut self.rng,
            counters: &mut self.counters,
            next_token: &mut self.next_token,
            actions: &mut actions,
            view: View {
                identity: &self.identity,
                connections: &self.connections,
                addresses: &self.addresses,
                peerstore: &self.peerstore,
                protocols: &self.protocols,
                queues: &self.queues,
            },
        });
        let result = f(&mut self.behaviour, &mut cx);
        (actions, result)
    }

    fn carry_out(&mut self, actions: VecDeque<Action>) {
        for action in actions {
            self.log(&action);
            match action {
                Action::Send { stream, frame } => {
                    if let Some(state) = self.streams.get_mut(stream) {
                        state.sent.push_back(frame);
                        state.their_turn = true;
                    }
                }
                Action::Finish { stream } => {
                    if let Some(state) = self.streams.get_mut(stream) {
                        state.we_finished = true;
                    }
                    self.sweep(stream);
                }
                Action::Reset { stream, .. } => self.drop_stream(stream, |_| SpliceEnd::Local),
                Action::Splice { token, a, b, limit: _ } => self.splice(token, a, b),
                Action::AddAddress { address, source } => {
                    self.addresses.add(address, source);
                }
                Action::RemoveAddress { address, source } => {
                    self.addresses.remove(&address, source);
                }
                Action::Load { .. } | Action::Store { .. } if !self.holds_store => {
                    let input = self.do_store(action, Ok(()));
                    self.replies.push_back(input);
                }
                Action::Protect { peer, tag } => _ = self.protected.insert((peer, tag)),
                Action::Unprotect { peer, tag } => _ = self.protected.remove(&(peer, tag)),
                Action::Learn { peer, addresses, record: Some(number), ttl, .. } => {
                    _ = self.peerstore.add_record(self.now, peer, number, &addresses, ttl);
                }
                Action::Learn { peer, addresses, source, record: None, ttl } => {
                    self.peerstore.add(self.now, peer, &addresses, source, Some(ttl));
                }
                Action::Emit(notice) => {
                    let event = Event::from_notice(self.behaviour.name(), notice);
                    let me = self.identity.peer().to_base58();
                    self.line(&me, '*', &brief(&event));
                    self.events.push(event);
                }
                other => self.pending.push_back(other),
            }
        }
    }

    fn do_store(&mut self, action: Action, result: Result<(), StoreError>) -> Input {
        match action {
            Action::Load { token, table, after } => {
                let from =
                    after.map_or(Bound::Included((table, Bytes::new())), |key| Bound::Excluded((table, key)));
                let rows = self.rows.range((from, Bound::Unbounded)).filter(|((of, _), _)| *of == table);
                let mut rows: Vec<_> = rows.map(|((_, key), value)| (key.clone(), value.clone())).collect();
                let more = rows.len() > ROWS_AT_ONCE;
                rows.truncate(ROWS_AT_ONCE);
                Input::Reply(token, Reply::Loaded(result.map(|()| Rows { rows, more })))
            }
            Action::Store { token, table, writes } => {
                for write in writes.into_iter().filter(|_| result.is_ok()) {
                    match write {
                        Write::Put { key, value } => drop(self.rows.insert((table, key), value)),
                        Write::Delete { key } => drop(self.rows.remove(&(table, key))),
                    }
                }
                Input::Reply(token, Reply::Stored(result))
            }
            other => panic!("not for a store: {other:?}"),
        }
    }

    fn new_stream(&mut self, connection: ConnectionId, protocol: ProtocolName) -> StreamId {
        self.streams.insert(Stream {
            connection,
            protocol,
            sent: VecDeque::new(),
            their_turn: true,
            we_finished: false,
            they_finished: false,
            splice: None,
        })
    }

    fn splice(&mut self, token: Token, a: StreamId, b: StreamId) {
        for (stream, other, is_a) in [(a, b, true), (b, a, false)] {
            let state = self.streams.get_mut(stream).expect("only open streams are spliced");
            assert!(state.splice.is_none(), "{stream} is spliced twice");
            state.splice = Some(Splice { token, other, is_a });
        }
    }

    fn drop_stream(&mut self, stream: StreamId, end: impl FnOnce(bool) -> SpliceEnd) {
        let Some(state) = self.streams.remove(stream) else { return };
        if let Some(splice) = state.splice {
            self.streams.remove(splice.other);
            let report = SpliceReport { a_to_b: 0, b_to_a: 0, end: end(splice.is_a) };
            self.replies.push_back(Input::Reply(splice.token, Reply::Spliced(report)));
        }
    }

    fn sweep(&mut self, stream: StreamId) {
        if self.streams.get(stream).is_some_and(|s| s.we_finished && s.they_finished && s.splice.is_none()) {
            self.streams.remove(stream);
        }
    }

    fn take_open(&mut self) -> Option<(Token, ConnectionId, ProtocolName)> {
        let at = self.pending.iter().position(|action| matches!(action, Action::Open { .. }))?;
        match self.pending.remove(at)? {
            Action::Open { token, connection, protocol, .. } => Some((token, connection, protocol)),
            _ => None,
        }
    }

    fn take_dial(&mut self) -> Option<(Token, Vec<Multiaddr>)> {
        let at = self.pending.iter().position(|action| matches!(action, Action::Dial { .. }))?;
        match self.pending.remove(at)? {
            Action::Dial { token, addresses, .. } => Some((token, addresses)),
            _ => None,
        }
    }

    // The transcript.

    fn log(&mut self, action: &Action) {
        let me = self.identity.peer().to_base58();
        match action {
            Action::Send { stream, frame } => {
                let to = self.remote_of(*stream);
                let text = self.describe(*stream, frame).unwrap_or_else(|| format!("{} bytes", frame.len()));
                self.line(&me, '>', &format!("{to}  {text}"));
            }
            Action::Reset { stream, .. } => {
                let (to, protocol) = (self.remote_of(*stream), self.short_protocol(*stream));
                self.line(&me, 'x', &format!("{to}  {protocol} reset"));
            }
            Action::Splice { a, b, limit, .. } => {
                let (a, b) = (self.remote_of(*a), self.remote_of(*b));
                let SpliceLimit { bytes, rate, idle } = limit;
                let mut text = format!("splice {a}<->{b} limit={bytes}");
                if *rate > 0 || !idle.is_zero() {
                    text += &format!(" rate={rate} idle={idle:?}");
                }
                self.line(&me, '=', &text);
            }
            Action::Upgrade { peer, role, .. } => {
                self.line(&me, '=', &format!("upgrade to {peer} as {role:?}"))
            }
            Action::Dial { addresses, .. } => {
                let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                self.line(&me, '!', &format!("dial {}", addresses.join(" ")));
            }
            Action::DialFailed { error, .. } => self.line(&me, 'x', &format!("dial failed: {error}")),
            Action::Close { connection, .. } => {
                let peer =
                    self.connections.get(*connection).map(|info| info.peer.to_base58()).unwrap_or_default();
                self.line(&me, 'x', &format!("{peer}  closed"));
            }
            Action::AddAddress { address, source } => self.line(&me, '+', &format!("{source:?} {address}")),
            Action::RemoveAddress { address, source } => {
                self.line(&me, '-', &format!("{source:?} {address}"))
            }
            _ => {}
        }
    }

    fn describe(&self, stream: StreamId, frame: &[u8]) -> Option<String> {
        let protocol = &self.streams.get(stream)?.protocol;
        Some(
            self.behaviour
                .describe(protocol, frame, self.unix())
                .unwrap_or_else(|| format!("{} {} bytes", self.short_protocol(stream), frame.len())),
        )
    }

    fn remote_of(&self, stream: StreamId) -> String {
        let connection = self.streams.get(stream).and_then(|s| self.connections.get(s.connection));
        connection.map_or_else(|| "?".into(), |info| info.peer.to_base58())
    }

    fn short_protocol(&self, stream: StreamId) -> String {
        let protocol = self.streams.get(stream).map(|s| s.protocol.as_str()).unwrap_or("stale");
        protocol.rsplit('/').find(|part| part.chars().any(char::is_alphabetic)).unwrap_or(protocol).into()
    }

    fn line(&mut self, who: &str, glyph: char, text: &str) {
        if self.muted {
            return;
        }
        let mut line = format!("{who}  {glyph}  {text}");
        for (base58, name) in &self.names {
            line = line.replace(base58, name);
        }
        self.lines.push(format!("{:>8}  {line}", self.now.to_string()));
    }
}

/// Parses an address that a test wrote down.
pub fn address(text: &str) -> Multiaddr {
    text.parse().expect("a multiaddr")
}

/// The circuit address to `target` through `relay`, which listens at `relay_address`.
pub fn circuit(relay_address: &str, relay: &str, target: &str) -> Multiaddr {
    address(relay_address)
        .with(Protocol::P2p(peer(relay)))
        .with(Protocol::P2pCircuit)
        .with(Protocol::P2p(peer(target)))
}

/// The addresses of one source.
pub fn own_addresses<B>(solo: &Solo<B>, source: AddressSource) -> Vec<String> {
    solo.addresses.of(source).map(ToString::to_string).collect()
}

/// An event in a few words.
fn brief(event: &Event) -> String {
    let text = match event {
        Event::Ping(ping) => format!("Ping {{ peer: {}, result: {:?} }}", ping.peer, ping.result),
        Event::Identify(told) => {
            format!("Identified {{ peer: {}, agent: {:?} }}", told.peer, told.info.agent)
        }
        Event::Hop(event) => event.to_string(),
        Event::Reservation(event) => format!("reservation {event}"),
        Event::Rendezvous(rendezvous::Event::Client(event)) => format!("rendezvous {event}"),
        Event::Notice { .. } => event.to_string(),
        other => format!("{other:?}"),
    };
    text.replace("PeerId(\"", "").replace("\")", "")
}
