//! `/ipfs/id/1.0.0` and `/ipfs/id/push/1.0.0` (libp2p specs, identify): what each side is, speaks and sees.

mod info;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use peerless_proto::{
    address::parse_quic_v1,
    keys::encode_public_key,
    pb::{self, Message as _, identify::Identify as Message},
    peer_record::{Dialect, PeerRecord},
};

pub use self::info::Info;
use super::by_connection::ByConnection;
use crate::{
    addresses::AddressSource,
    behaviour::{
        Action, Behaviour, Context, Framing, Input, PeerEvent, ProtocolName, ProtocolSpec, Reply, StreamEvent,
    },
    event,
    event::OpenError,
    ids::{ConnectionId, StreamId, Token},
    time::{Deadline, Instant, Timers, UnixTime},
};

/// `/ipfs/id/1.0.0`: the opener is told.
pub const PROTOCOL: ProtocolName = ProtocolName::from_static("/ipfs/id/1.0.0");

/// `/ipfs/id/push/1.0.0`: the opener tells.
pub const PUSH: ProtocolName = ProtocolName::from_static("/ipfs/id/push/1.0.0");

/// The longest message accepted, in bytes.
const MAX_MESSAGE: usize = 8 * 1024;

/// Most messages in a row that are taken for one.
const MAX_MESSAGES: usize = 10;

/// The longest message sent, in bytes. rust-libp2p accepts no longer one, and reads one only.
const MAX_SENT: usize = 4096;

/// Pushes under way at a time.
const MAX_PUSHES: usize = 32;

/// How long a message may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What we say of ourselves, beside what the node knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Our software, such as `peerless/0.1.0`.
    pub agent: String,
    /// Our protocol family.
    pub protocol_version: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            agent: concat!("peerless/", env!("CARGO_PKG_VERSION")).into(),
            protocol_version: "ipfs/0.1.0".into(),
        }
    }
}

/// A peer told what it is, for the first time or anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The connection it was told on.
    pub connection: ConnectionId,
    /// The authenticated peer.
    pub peer: PeerId,
    /// What it says.
    pub info: Arc<Info>,
}

impl From<Event> for event::Event {
    fn from(event: Event) -> Self {
        Self::Identify(event)
    }
}

/// Asks every peer what it is, answers when asked, and tells again when our addresses change.
#[derive(Debug)]
pub struct Identify {
    config: Config,
    protocols: [ProtocolSpec; 2],
    connections: BTreeMap<ConnectionId, Known>,
    opening: ByConnection<Token, Role>,
    streams: ByConnection<StreamId, State>,
    timers: Timers<StreamId>,
    /// Connections to push to, as soon as there is room.
    to_push: BTreeSet<ConnectionId>,
    /// Pushes under way.
    pushes: usize,
    ours: Ours,
}

/// What is known of a connection.
#[derive(Debug)]
struct Known {
    peer: PeerId,
    info: Option<Arc<Info>>,
    /// The number of the newest record.
    seq: Option<u64>,
    /// The generation of [`Ours`] that it was told last.
    told: u64,
}

/// What we say of ourselves.
#[derive(Debug, Default)]
struct Ours {
    addresses: Vec<Multiaddr>,
    protocols: Vec<ProtocolName>,
    /// Grows with each change.
    generation: u64,
    seq: u64,
    /// The signed record of the addresses; empty if the key cannot sign. Made when first needed.
    record: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// We ask.
    Ask,
    /// We tell unasked.
    Push,
}

/// What a stream waits for. A reset, the end of the connection, and the timeout end each state as well.
#[derive(Debug)]
enum State {
    /// Messages, until the end of the stream.
    Reading { until: Instant, bytes: BytesMut, messages: usize },
    /// The remote's end of a push of ours.
    Pushing { until: Instant },
    /// The remote's end of a stream on which all is said.
    Closing { until: Instant },
}

impl State {
    fn until(&self) -> Instant {
        match self {
            Self::Reading { until, .. } | Self::Pushing { until } | Self::Closing { until } => *until,
        }
    }
}

impl Identify {
    /// A behaviour for one node.
    pub fn new(config: Config) -> Self {
        let spec = |name, inbound_per_peer| {
            let framing = Framing::Varint { max: MAX_MESSAGE };
            ProtocolSpec { name, framing, inbound_per_peer }
        };
        Self {
            config,
            protocols: [spec(PROTOCOL, 8), spec(PUSH, 2)],
            connections: BTreeMap::new(),
            opening: ByConnection::default(),
            streams: ByConnection::default(),
            timers: Timers::default(),
            to_push: BTreeSet::new(),
            pushes: 0,
            ours: Ours::default(),
        }
    }

    /// Entries in all tables; zero when no peer is left.
    pub fn len(&self) -> usize {
        self.connections.len()
            + self.opening.len()
            + self.streams.len()
            + self.timers.len()
            + self.to_push.len()
            + self.pushes
    }

    /// Whether all tables are empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn on_peer(&mut self, cx: &mut Context<'_>, event: PeerEvent) {
        match event {
            PeerEvent::Connected { connection, peer } => {
                self.refresh_ours(cx);
                let told = self.ours.generation;
                self.connections.insert(connection, Known { peer, info: None, seq: None, told });
                let token = cx.open(connection, PROTOCOL);
                self.opening.insert(token, connection, Role::Ask);
            }
            PeerEvent::Disconnected { connection, .. } => {
                self.connections.remove(&connection);
                self.to_push.remove(&connection);
                for (_, role) in self.opening.remove_connection(connection) {
                    self.pushes -= usize::from(role == Role::Push);
                }
                for (stream, state) in self.streams.remove_connection(connection) {
                    self.forget(stream, &state);
                }
                self.push_some(cx);
            }
            _ => {}
        }
    }

    fn on_opened(&mut self, cx: &mut Context<'_>, token: Token, result: Result<StreamId, OpenError>) {
        let Some((connection, role)) = self.opening.remove(token) else { return };
        match (role, result) {
            (Role::Ask, Ok(stream)) => self.start_reading(cx.now(), stream, connection),
            (Role::Push, Ok(stream)) => {
                self.tell(cx, stream, connection);
                self.wait(stream, connection, State::Pushing { until: cx.now() + TIMEOUT });
            }
            (Role::Ask, Err(_)) => cx.count("identify.failed.open"),
            (Role::Push, Err(_)) => {
                cx.count("identify.push.failed");
                self.pushes -= 1;
                self.push_some(cx);
            }
        }
    }

    fn on_stream(&mut self, cx: &mut Context<'_>, stream: StreamId, event: StreamEvent) {
        match event {
            StreamEvent::Accepted { connection, protocol, .. } if protocol == PUSH => {
                self.start_reading(cx.now(), stream, connection);
            }
            StreamEvent::Accepted { connection, .. } => {
                self.tell(cx, stream, connection);
                self.wait(stream, connection, State::Closing { until: cx.now() + TIMEOUT });
            }
            StreamEvent::Frame(frame) => self.on_frame(cx, stream, &frame),
            StreamEvent::Finished => self.on_finished(cx, stream),
            StreamEvent::Reset(_) => {
                if let Some((_, State::Reading { .. })) = self.remove(stream) {
                    cx.count("identify.failed.reset");
                }
                self.push_some(cx);
            }
            StreamEvent::Drained => {}
        }
    }

    fn on_frame(&mut self, cx: &mut Context<'_>, stream: StreamId, frame: &[u8]) {
        let Some(State::Reading { bytes, messages, .. }) = self.streams.get_mut(stream) else { return };
        if *messages == MAX_MESSAGES {
            cx.count("identify.refused.too_many");
            cx.reset(stream);
            self.remove(stream);
            return;
        }
        *messages += 1;
        bytes.extend_from_slice(frame);
    }

    fn on_finished(&mut self, cx: &mut Context<'_>, stream: StreamId) {
        if let Some((connection, State::Reading { bytes, .. })) = self.remove(stream) {
            cx.finish(stream);
            self.learn(cx, connection, &bytes);
        }
        self.push_some(cx);
    }

    fn on_timeout(&mut self, cx: &mut Context<'_>, stream: StreamId) {
        let Some((connection, state)) = self.remove(stream) else { return };
        cx.count("identify.timed_out");
        cx.reset(stream);
        // Who does not end the stream has told what it is nevertheless.
        if let State::Reading { bytes, messages: 1.., .. } = state {
            self.learn(cx, connection, &bytes);
        }
        self.push_some(cx);
    }

    /// Takes in what the peer at the other end of `connection` says.
    fn learn(&mut self, cx: &mut Context<'_>, connection: ConnectionId, bytes: &[u8]) {
        let Some(known) = self.connections.get_mut(&connection) else { return };
        let news = match info::read(bytes, &known.peer, known.info.as_deref(), known.seq) {
            Ok(news) => news,
            Err(fault) => return cx.count(fault.counter()),
        };
        if news.bad_record {
            cx.count("identify.bad_record");
        }
        let info = Arc::new(news.info);
        (known.seq, known.info) = (news.seq, Some(info.clone()));
        if known.told < self.ours.generation && speaks_push(&info) {
            self.to_push.insert(connection);
        }
        let direct = cx.view().connections.get(connection).is_some_and(|info| info.relayed.is_none());
        if let Some(address) = info.observed.as_ref().filter(|_| direct).and_then(dialable) {
            cx.push(Action::AddAddress { address, source: AddressSource::Observed });
        }
        cx.count("identify.identified");
        let peer = known.peer;
        cx.emit(Event { connection, peer, info });
    }

    /// Our addresses or protocols may have changed.
    fn on_addresses(&mut self, cx: &mut Context<'_>) {
        if !self.refresh_ours(cx) {
            return;
        }
        for (connection, known) in &self.connections {
            if known.info.as_deref().is_some_and(speaks_push) {
                self.to_push.insert(*connection);
            }
        }
        self.push_some(cx);
    }

    /// Starts pushes while there is room.
    fn push_some(&mut self, cx: &mut Context<'_>) {
        while self.pushes < MAX_PUSHES {
            let Some(connection) = self.to_push.pop_first() else { return };
            let token = cx.open(connection, PUSH);
            self.opening.insert(token, connection, Role::Push);
            self.pushes += 1;
        }
    }

    /// Says what we are, and no more.
    fn tell(&mut self, cx: &mut Context<'_>, stream: StreamId, connection: ConnectionId) {
        self.refresh_ours(cx);
        let Some(known) = self.connections.get_mut(&connection) else { return };
        known.told = self.ours.generation;
        self.to_push.remove(&connection);
        for message in self.messages(cx, connection) {
            cx.send(stream, message);
        }
        cx.finish(stream);
    }

    /// One message; the record follows in one of its own if the first would be too long.
    fn messages(&mut self, cx: &Context<'_>, connection: ConnectionId) -> Vec<Bytes> {
        let view = cx.view();
        let info = view.connections.get(connection);
        // Through a relay we see the relay only.
        let observed = info.filter(|info| info.relayed.is_none()).map(|info| info.remote.to_vec());
        let mut message = Message {
            public_key: Some(encode_public_key(&view.identity.public())),
            observed_addr: observed,
            protocol_version: Some(self.config.protocol_version.clone()),
            agent_version: Some(self.config.agent.clone()),
            ..Message::default()
        };
        let mut room = MAX_SENT.saturating_sub(message.encoded_len());
        for protocol in self.ours.protocols.iter().map(|name| name.as_str().to_owned()) {
            if take_room(&mut room, protocol.len()) {
                message.protocols.push(protocol);
            }
        }
        for address in self.ours.addresses.iter().map(Multiaddr::to_vec) {
            if take_room(&mut room, address.len()) {
                message.listen_addrs.push(address);
            }
        }
        let record = self.ours.record(cx);
        let mut second = None;
        if take_room(&mut room, record.len()) {
            message.signed_peer_record = Some(record).filter(|record| !record.is_empty());
        } else {
            second = Some(Message { signed_peer_record: Some(record), ..Message::default() });
        }
        let messages = [Some(message), second].into_iter().flatten();
        messages.map(|message| message.encode_to_vec().into()).collect()
    }

    /// Looks at what we are. Returns whether it changed.
    fn refresh_ours(&mut self, cx: &Context<'_>) -> bool {
        let (addresses, protocols) = (cx.view().addresses.advertised(), cx.view().protocols);
        if self.ours.addresses == addresses && self.ours.protocols == protocols {
            return false;
        }
        self.ours.addresses = addresses;
        self.ours.protocols = protocols.to_vec();
        self.ours.generation += 1;
        self.ours.record = None;
        true
    }

    fn start_reading(&mut self, now: Instant, stream: StreamId, connection: ConnectionId) {
        let state = State::Reading { until: now + TIMEOUT, bytes: BytesMut::new(), messages: 0 };
        self.wait(stream, connection, state);
    }

    fn wait(&mut self, stream: StreamId, connection: ConnectionId, state: State) {
        self.timers.set(state.until(), stream);
        self.streams.insert(stream, connection, state);
    }

    fn remove(&mut self, stream: StreamId) -> Option<(ConnectionId, State)> {
        let (connection, state) = self.streams.remove(stream)?;
        self.forget(stream, &state);
        Some((connection, state))
    }

    fn forget(&mut self, stream: StreamId, state: &State) {
        self.timers.clear(state.until(), stream);
        self.pushes -= usize::from(matches!(state, State::Pushing { .. }));
    }
}

impl Ours {
    /// The envelope with our addresses, signed once for each change.
    fn record(&mut self, cx: &Context<'_>) -> Vec<u8> {
        if let Some(record) = &self.record {
            return record.clone();
        }
        let now = u64::try_from(cx.unix().since_epoch().as_nanos()).unwrap_or(u64::MAX);
        self.seq = now.max(self.seq.saturating_add(1));
        let identity = cx.view().identity;
        let record = PeerRecord { peer: identity.peer(), seq: self.seq, addresses: self.addresses.clone() };
        let sealed = record.seal(identity.keypair(), Dialect::Standard);
        self.record.insert(sealed.map(|envelope| envelope.encode()).unwrap_or_default()).clone()
    }
}

impl Behaviour for Identify {
    fn name(&self) -> &'static str {
        "identify"
    }

    fn protocols(&self) -> &[ProtocolSpec] {
        &self.protocols
    }

    fn handle(&mut self, cx: &mut Context<'_>, input: Input) {
        while let Some((_, stream)) = self.timers.pop_due(cx.now()) {
            self.on_timeout(cx, stream);
        }
        match input {
            Input::Peer(event) => self.on_peer(cx, event),
            Input::Stream(stream, event) => self.on_stream(cx, stream, event),
            Input::Reply(token, Reply::Stream(result)) => self.on_opened(cx, token, result),
            Input::Addresses => self.on_addresses(cx),
            _ => {}
        }
    }

    fn deadline(&self) -> Option<Deadline> {
        self.timers.next().map(|at| Deadline::new(at, "identify timeout"))
    }

    fn describe(&self, protocol: &ProtocolName, frame: &[u8], _: UnixTime) -> Option<String> {
        let name = if *protocol == PUSH { "push" } else { "id" };
        let Ok(message) = pb::decode::<Message>(frame) else { return Some(format!("{name} malformed")) };
        let agent = message.agent_version.as_deref().unwrap_or("-");
        let record = if message.signed_peer_record.is_some() { " record" } else { "" };
        let (protocols, addresses) = (message.protocols.len(), message.listen_addrs.len());
        Some(format!("{name} {agent} protocols={protocols} addresses={addresses}{record}"))
    }
}

fn speaks_push(info: &Info) -> bool {
    info.protocols.contains(&PUSH)
}

/// The address without its `/p2p`, if it is one where others might reach us.
fn dialable(address: &Multiaddr) -> Option<Multiaddr> {
    let (socket, _) = parse_quic_v1(address).ok()?;
    let ip = socket.ip();
    let nobody = ip.is_unspecified() || ip.is_multicast() || socket.port() == 0;
    (!nobody).then(|| peerless_proto::address::quic_v1(socket))
}

/// Takes the room of one more field with `len` bytes.
fn take_room(room: &mut usize, len: usize) -> bool {
    /// Most bytes of a field's key and length.
    const OVERHEAD: usize = 4;
    let Some(left) = room.checked_sub(len + OVERHEAD) else { return false };
    *room = left;
    true
}
