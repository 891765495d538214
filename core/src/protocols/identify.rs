//! `/ipfs/id/1.0.0` and `/ipfs/id/push/1.0.0` (libp2p specs, identify): what each side is, speaks and sees.

use std::fmt;
use std::{collections::BTreeSet, sync::Arc, time::Duration};

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use peerless_proto::pb::identify::Identify as Message;

use self::{
    message::{Before, MAX_MESSAGE, Said},
    observed::{Change, Observed, Sighting},
    ours::Ours,
};
use super::by_connection::ByConnection;
use crate::{
    behaviour::{Action, Behaviour, Context, Input, PeerEvent, Reply, StreamEvent},
    errors::{OpenError, StreamFault},
    ids::{ConnectionId, StreamId, Token},
    info::Info,
    names::{Direction, Framing, ProtocolName, ProtocolSpec},
    swarm::addresses::{AddressSource, Audience, site},
    time::{Deadline, Instant, Timers, UnixTime},
};

mod message;
mod observed;
mod ours;

/// `/ipfs/id/1.0.0`: the side that opens the stream is told.
pub const PROTOCOL: ProtocolName = ProtocolName::from_static("/ipfs/id/1.0.0");

/// `/ipfs/id/push/1.0.0`: the side that opens the stream tells.
pub const PUSH_PROTOCOL: ProtocolName = ProtocolName::from_static("/ipfs/id/push/1.0.0");

/// How long a stream may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Most messages that a peer may split what it says into.
const MAX_MESSAGES: usize = 10;

/// Most pushes of ours under way at a time.
const MAX_PUSHES: usize = 32;

/// Most pushes accepted on a connection in each [`PUSH_WINDOW`].
const MAX_PUSHES_ACCEPTED: usize = 30;
const PUSH_WINDOW: Duration = Duration::from_secs(60);

/// What we say of ourselves besides what the node knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Our software; cut off after 128 bytes.
    pub agent: String,
    /// Our protocol family; cut off after 128 bytes.
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
    /// The number of the signed record that its addresses come from.
    pub record: Option<u64>,
    /// What of it is from this message.
    pub says: Says,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "identified {} as {}", self.peer, self.info.agent)
    }
}

/// What a message speaks of; the rest of an [`Info`] is from before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Says {
    /// Where the peer listens.
    pub addresses: bool,
    /// What it speaks.
    pub protocols: bool,
}

/// Tells every peer that asks what we are, asks every new connection, and pushes what changes to those that listen.
#[derive(Debug)]
pub struct Identify {
    config: Config,
    protocols: [ProtocolSpec; 2],
    ours: Ours,
    /// The version of `ours` that was last pushed, or is being.
    announced: u64,
    /// When to look again what has changed of `ours`.
    settles: Option<Instant>,
    links: ByConnection<ConnectionId, Link>,
    opening: ByConnection<Token, Purpose>,
    streams: ByConnection<StreamId, Stream>,
    timers: Timers<StreamId>,
    /// Connections to push to when others are done.
    queue: BTreeSet<ConnectionId>,
    /// Pushes of ours under way.
    pushing: usize,
    /// Where we are seen, and by whom.
    observed: Observed,
}

/// One connection, until it ends.
#[derive(Debug)]
struct Link {
    connection: ConnectionId,
    peer: PeerId,
    info: Option<Arc<Info>>,
    /// The number of the newest good record seen on it.
    seq: Option<u64>,
    /// Whether a stream is being opened to tell it.
    is_opening: bool,
    /// The version of `ours` last sent on it, and for whom that was meant.
    told: Option<(Audience, u64)>,
    /// Where it sees us.
    observed: Option<Sighting>,
    window: Instant,
    pushes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Ask,
    Push,
}

/// A stream, until the remote finishes or resets it, the connection ends, or the time is up.
#[derive(Debug)]
struct Stream {
    until: Instant,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The remote asked and has been told.
    Answered,
    /// We opened it and have told.
    Pushed,
    /// The remote tells.
    Reading { messages: usize, merged: Box<Message> },
}

impl Identify {
    /// A behaviour for one node.
    pub fn new(config: Config) -> Self {
        let framing = Framing::Varint { max: MAX_MESSAGE };
        Self {
            config,
            protocols: [
                ProtocolSpec { name: PROTOCOL, framing, inbound_per_peer: 4 },
                ProtocolSpec { name: PUSH_PROTOCOL, framing, inbound_per_peer: 2 },
            ],
            ours: Ours::default(),
            announced: 0,
            settles: None,
            links: ByConnection::default(),
            opening: ByConnection::default(),
            streams: ByConnection::default(),
            timers: Timers::default(),
            queue: BTreeSet::new(),
            pushing: 0,
            observed: Observed::default(),
        }
    }

    /// What the remote of a connection last said of itself.
    pub fn info(&self, connection: ConnectionId) -> Option<&Arc<Info>> {
        self.links.get(connection)?.info.as_ref()
    }

    /// Everything kept on behalf of peers; zero when no peer is left.
    pub fn len(&self) -> usize {
        let streams = self.opening.len() + self.streams.len() + self.timers.len();
        self.links.len() + streams + self.queue.len() + self.pushing + self.observed.len()
    }

    /// Whether nothing is kept on behalf of peers.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn on_peer(&mut self, cx: &mut Context<'_>, event: PeerEvent) {
        match event {
            PeerEvent::Connected { connection, peer } => {
                let link = Link {
                    connection,
                    peer,
                    info: None,
                    seq: None,
                    is_opening: false,
                    told: None,
                    observed: None,
                    window: cx.now(),
                    pushes: 0,
                };
                self.links.insert(connection, connection, link);
                self.open(cx, connection, Purpose::Ask);
            }
            PeerEvent::Disconnected { connection, .. } => {
                if let Some((_, link)) = self.links.remove(connection) {
                    self.unobserve(cx, link.observed);
                }
                self.queue.remove(&connection);
                for (_, purpose) in self.opening.remove_connection(connection) {
                    self.pushing -= usize::from(purpose == Purpose::Push);
                }
                for (id, stream) in self.streams.remove_connection(connection) {
                    self.released(id, &stream);
                }
                if self.links.len() == 0 {
                    // Whoever comes next is told what there is then.
                    self.settles = None;
                }
                self.push_next(cx);
            }
            _ => {}
        }
    }

    fn open(&mut self, cx: &mut Context<'_>, connection: ConnectionId, purpose: Purpose) {
        let protocol = match purpose {
            Purpose::Ask => PROTOCOL,
            Purpose::Push => PUSH_PROTOCOL,
        };
        let token = cx.open(connection, protocol);
        self.opening.insert(token, connection, purpose);
    }

    fn on_opened(&mut self, cx: &mut Context<'_>, token: Token, result: Result<StreamId, OpenError>) {
        let Some((connection, purpose)) = self.opening.remove(token) else { return };
        if let Some(link) = self.links.get_mut(connection).filter(|_| purpose == Purpose::Push) {
            link.is_opening = false;
        }
        match (purpose, result) {
            (Purpose::Ask, Ok(stream)) => self.keep(cx, connection, stream, State::reading()),
            (Purpose::Ask, Err(_)) => cx.count("identify.failed.open"),
            (Purpose::Push, Ok(stream)) => {
                self.tell(cx, connection, stream);
                self.keep(cx, connection, stream, State::Pushed);
            }
            (Purpose::Push, Err(_)) => {
                cx.count("identify.push.failed");
                self.pushing -= 1;
                self.push_next(cx);
            }
        }
    }

    fn on_accepted(
        &mut self,
        cx: &mut Context<'_>,
        stream: StreamId,
        connection: ConnectionId,
        protocol: &ProtocolName,
    ) {
        if *protocol == PROTOCOL {
            cx.count("identify.answered");
            self.tell(cx, connection, stream);
            self.keep(cx, connection, stream, State::Answered);
        } else if self.links.get_mut(connection).is_some_and(|link| link.admits_push(cx.now())) {
            cx.count("identify.push.received");
            self.keep(cx, connection, stream, State::reading());
        } else {
            cx.count("identify.push.flood");
            cx.reset(stream);
        }
    }

    /// Sends what we are now, and nothing after it.
    fn tell(&mut self, cx: &mut Context<'_>, connection: ConnectionId, stream: StreamId) {
        self.settles = self.ours.refresh(cx);
        if let Some(info) = cx.view().connections.get(connection) {
            let (message, told) = self.ours.message_for(cx, &self.config, info);
            cx.send(stream, message);
            if let Some(link) = self.links.get_mut(connection) {
                link.told = Some(told);
            }
        }
        cx.finish(stream);
    }

    fn on_stream(&mut self, cx: &mut Context<'_>, id: StreamId, event: StreamEvent) {
        if let StreamEvent::Accepted { connection, protocol, .. } = event {
            return self.on_accepted(cx, id, connection, &protocol);
        }
        let Some(stream) = self.streams.get_mut(id) else { return };
        match (&mut stream.state, event) {
            (State::Reading { messages, merged }, StreamEvent::Frame(frame)) => {
                *messages += 1;
                let refused = if *messages > MAX_MESSAGES {
                    Some("identify.refused.too_many_messages")
                } else {
                    message::merge(merged, &frame).err().map(message::Refusal::counter)
                };
                if let Some(counter) = refused {
                    cx.count(counter);
                    cx.reset(id);
                    self.remove(cx, id);
                }
            }
            (_, StreamEvent::Frame(_)) => {
                cx.count("identify.refused.unexpected");
                cx.reset(id);
                self.remove(cx, id);
            }
            (State::Reading { .. }, StreamEvent::Finished) => {
                cx.finish(id);
                self.conclude(cx, id, "identify.failed.empty");
            }
            (State::Reading { .. }, StreamEvent::Reset(StreamFault::Remote(_))) => {
                self.conclude(cx, id, "identify.failed.stream");
            }
            (State::Reading { .. }, StreamEvent::Reset(_)) => {
                cx.count("identify.failed.stream");
                self.remove(cx, id);
            }
            (State::Pushed, StreamEvent::Finished) => {
                cx.count("identify.push.sent");
                self.remove(cx, id);
            }
            (State::Pushed, StreamEvent::Reset(_)) => {
                cx.count("identify.push.failed");
                self.remove(cx, id);
            }
            (State::Answered, StreamEvent::Finished | StreamEvent::Reset(_)) => {
                self.remove(cx, id);
            }
            _ => {}
        }
    }

    /// The remote has said what it has to say, if anything.
    fn conclude(&mut self, cx: &mut Context<'_>, id: StreamId, silent: &'static str) {
        let Some((connection, State::Reading { messages, merged })) = self.remove(cx, id) else { return };
        let Some(link) = self.links.get(connection) else { return };
        if messages == 0 {
            return cx.count(silent);
        }
        let siblings = cx.view().connections.of(&link.peer).iter();
        let seq = siblings.filter_map(|id| self.links.get(*id)?.seq).max();
        let before = Before { peer: link.peer, info: link.info.as_deref(), seq };
        match message::read(cx, *merged, &before) {
            Ok(said) => self.learn(cx, connection, said),
            Err(refusal) => cx.count(refusal.counter()),
        }
    }

    fn learn(&mut self, cx: &mut Context<'_>, connection: ConnectionId, said: Said) {
        let Said { info, seq, says } = said;
        self.observe(cx, connection, info.observed.as_ref());
        let Some(link) = self.links.get_mut(connection) else { return };
        link.seq = link.seq.max(seq);
        // What it says again counts if it said something else over another connection meanwhile.
        let is_last_word = says.addresses && cx.view().connections.of(&link.peer).len() > 1;
        if is_last_word || link.info.as_deref() != Some(&info) {
            let info = Arc::new(info);
            link.info = Some(Arc::clone(&info));
            let record = link.seq.filter(|_| info.certified);
            cx.emit(Event { connection, peer: link.peer, info, record, says });
        }
        // What changed between our answer and now has not been pushed: it was not known that the peer listens.
        if link.told.is_some() && self.listens(cx, connection) {
            self.queue.insert(connection);
            self.push_next(cx);
        }
    }

    /// Takes note of where the remote of a direct connection sees us, in place of where it saw us before.
    fn observe(&mut self, cx: &mut Context<'_>, connection: ConnectionId, said: Option<&Multiaddr>) {
        let view = cx.view();
        let (Some(said), Some(remote)) = (said, view.connections.get(connection)) else { return };
        if remote.relayed.is_some() {
            return;
        }
        let is_elsewhere = |seen: &Multiaddr| view.connections.is_remote(seen);
        // Of a socket where nobody reaches us it says nothing that would help others.
        let Some(socket) = remote.socket else { return cx.count("identify.observed.not_listening") };
        let may_be = |seen: &Multiaddr| !is_elsewhere(seen) && message::fits(seen, socket, &remote.remote);
        let seen = message::plausible(said, view.local_peer()).filter(may_be);
        let (Some(address), Some(site)) = (seen, site(&remote.remote)) else {
            return cx.count("identify.observed.refused");
        };
        let is_dialled = remote.direction == Direction::Outbound;
        let sighting = Sighting { address, socket, site, is_dialled };
        let Some(link) = self.links.get_mut(connection) else { return };
        if link.observed.as_ref() == Some(&sighting) {
            return;
        }
        let old = link.observed.replace(sighting.clone());
        let changes = self.observed.note(&sighting, true);
        self.changed(cx, changes);
        self.unobserve(cx, old);
    }

    /// One connection less tells that we are seen there.
    fn unobserve(&mut self, cx: &mut Context<'_>, observed: Option<Sighting>) {
        if let Some(sighting) = observed {
            let changes = self.observed.note(&sighting, false);
            self.changed(cx, changes);
        }
    }

    fn changed(&mut self, cx: &mut Context<'_>, changes: Vec<Change>) {
        for Change { address, source, is_there } in changes {
            if is_there && source == AddressSource::Confirmed {
                cx.count("identify.observed.confirmed");
            }
            cx.push(match is_there {
                true => Action::AddAddress { address, source },
                false => Action::RemoveAddress { address, source },
            });
        }
    }

    /// What was seen through a socket that is gone, or was moved, is not true any more.
    fn follow_sockets(&mut self, cx: &mut Context<'_>) {
        let connections = cx.view().connections;
        let mut stale = Vec::new();
        for link in self.links.values_mut() {
            let socket = connections.get(link.connection).and_then(|info| info.socket);
            stale.extend(link.observed.take_if(|seen| Some(seen.socket) != socket));
        }
        for sighting in stale {
            self.unobserve(cx, Some(sighting));
        }
    }

    /// One pass over the peers for each change; one connection per peer. Changes that follow each other closely are one:
    /// whoever makes us change must not make us sign and push as often.
    fn on_addresses(&mut self, cx: &mut Context<'_>) {
        self.settles = self.ours.refresh(cx).filter(|_| self.links.len() > 0);
        if self.settles.is_some() || self.announced == self.ours.version() {
            return;
        }
        self.announced = self.ours.version();
        self.follow_sockets(cx);
        let connections = cx.view().connections;
        for info in connections.iter() {
            if self.listens(cx, info.id) && connections.best(&info.peer) == Some(info.id) {
                self.queue.insert(info.id);
            }
        }
        self.push_next(cx);
    }

    /// Whether the remote accepts pushes and has not been told what we are now.
    fn listens(&self, cx: &Context<'_>, connection: ConnectionId) -> bool {
        let (Some(link), Some(info)) = (self.links.get(connection), cx.view().connections.get(connection))
        else {
            return false;
        };
        let speaks = link.info.as_ref().is_some_and(|info| info.protocols.contains(&PUSH_PROTOCOL));
        speaks && link.told != Some(self.ours.told_to(info))
    }

    fn push_next(&mut self, cx: &mut Context<'_>) {
        while self.pushing < MAX_PUSHES
            && let Some(connection) = self.queue.pop_first()
        {
            if self.listens(cx, connection)
                && let Some(link) = self.links.get_mut(connection)
                && !std::mem::replace(&mut link.is_opening, true)
            {
                self.pushing += 1;
                self.open(cx, connection, Purpose::Push);
            }
        }
    }

    fn on_timeout(&mut self, cx: &mut Context<'_>, id: StreamId) {
        cx.reset(id);
        match self.streams.get(id).map(|stream| &stream.state) {
            Some(State::Reading { .. }) => self.conclude(cx, id, "identify.failed.timeout"),
            Some(State::Pushed) => {
                cx.count("identify.push.failed");
                self.remove(cx, id);
            }
            Some(State::Answered) | None => {
                self.remove(cx, id);
            }
        }
    }

    fn keep(&mut self, cx: &mut Context<'_>, connection: ConnectionId, id: StreamId, state: State) {
        let until = cx.now() + TIMEOUT;
        self.timers.set(until, id);
        self.streams.insert(id, connection, Stream { until, state });
    }

    fn remove(&mut self, cx: &mut Context<'_>, id: StreamId) -> Option<(ConnectionId, State)> {
        let (connection, stream) = self.streams.remove(id)?;
        self.released(id, &stream);
        self.push_next(cx);
        Some((connection, stream.state))
    }

    fn released(&mut self, id: StreamId, stream: &Stream) {
        self.timers.clear(stream.until, id);
        self.pushing -= usize::from(matches!(stream.state, State::Pushed));
    }
}

impl State {
    fn reading() -> Self {
        Self::Reading { messages: 0, merged: Box::default() }
    }
}

impl Link {
    fn admits_push(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.window) >= PUSH_WINDOW {
            self.window = now;
            self.pushes = 0;
        }
        self.pushes += 1;
        self.pushes <= MAX_PUSHES_ACCEPTED
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
        if self.settles.is_some_and(|at| at <= cx.now()) {
            self.on_addresses(cx);
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
        let timeout = self.timers.next().map(|at| Deadline::new(at, "identify timeout"));
        Deadline::earliest(timeout, self.settles.map(|at| Deadline::new(at, "identify push")))
    }

    fn describe(&self, protocol: &ProtocolName, frame: &[u8], _: UnixTime) -> Option<String> {
        message::describe(if *protocol == PROTOCOL { "identify" } else { "push" }, frame)
    }
}
