//! The one vocabulary: what a protocol or policy is told ([`Input`]), what it may ask for ([`Action`]), and what it
//! may look at ([`Context`], [`View`]).
//!
//! A [`Behaviour`] is one object per protocol per node. It has no handlers per connection, no tasks and no queue that
//! somebody must poll: it is called with an input and pushes actions into the context, so there is one global order.
//! The built-in protocols use nothing else, so whatever they do an embedder's behaviour can do too.

mod view;

use std::{any::Any, collections::VecDeque, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
pub use peerless_proto::frame::Framing;

pub use self::view::View;

use crate::{
    counters::Counters,
    errors::{CloseReason, DialError, OpenError, StreamFault, UpgradeError},
    ids::{ConnectionId, StreamId, Token},
    info::Info,
    names::{CircuitLimit, ProtocolName, ProtocolSpec, SpliceLimit, SpliceReport, UpgradeRole},
    rng::Rng,
    storage::{Rows, StoreError, Write},
    swarm::{addresses::AddressSource, dial::DialOptions, peerstore::Source, tags::Decay},
    time::{Deadline, Instant, UnixTime},
};

/// A protocol or policy as a pure state machine.
pub trait Behaviour: Any + Send {
    /// A short name, unique in the node; labels its random numbers, its tokens and its lines in transcripts.
    fn name(&self) -> &'static str;

    /// The stream protocols it answers, in order of preference. Read once, when the node is made.
    fn protocols(&self) -> &[ProtocolSpec];

    /// Takes one input and pushes what follows from it into `cx`. Unknown ids and spurious timeouts change nothing.
    fn handle(&mut self, cx: &mut Context<'_>, input: Input);

    /// When it wants [`Input::Timeout`] next. Must not lie in the past after a `handle`.
    fn deadline(&self) -> Option<Deadline> {
        None
    }

    /// Whether it dials this address, which ends in the `/p2p` of whoever is to be reached if that is known: it is told
    /// with [`Input::Dial`]. Of several behaviours that say so the first does. The answer must not change.
    fn dials(&self, address: &Multiaddr) -> bool {
        let _ = address;
        false
    }

    /// One of its frames in a few words, for transcripts; `None` prints the length alone.
    fn describe(&self, protocol: &ProtocolName, frame: &[u8], unix: UnixTime) -> Option<String> {
        let _ = (protocol, frame, unix);
        None
    }
}

/// What a behaviour tells the embedder: any value that prints as one line.
pub trait Notice: Any + fmt::Debug + fmt::Display + Send {}

impl<T: Any + fmt::Debug + fmt::Display + Send> Notice for T {}

/// What a behaviour is told.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Input {
    /// Its deadline has come. May be spurious.
    Timeout,
    /// Something happened to a connection.
    Peer(PeerEvent),
    /// Something happened to one of its streams.
    Stream(StreamId, StreamEvent),
    /// The answer to an action that carried this token.
    Reply(Token, Reply),
    /// Our own addresses or protocols changed; see [`View::addresses`].
    Addresses,
    /// The machine has an address that it did not have: what failed may succeed now.
    Network,
    /// Dial this address, which [`Behaviour::dials`] said yes to; answer with [`Action::Upgrade`] for this dial, or with
    /// [`Action::DialFailed`]. Should the upgrade fail, another one may be asked for, or the dial must be told to have
    /// failed. Until then what the behaviour dials itself does not wait in the queue, as it is a step of this dial.
    Dial(Token, Multiaddr),
}

/// Something that happened to a connection.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum PeerEvent {
    /// It is authenticated and carries streams. Its details are in [`View::connections`].
    Connected {
        /// The new connection.
        connection: ConnectionId,
        /// The authenticated peer.
        peer: PeerId,
    },
    /// It has ended; the view no longer holds it, and its streams are gone without further events.
    Disconnected {
        /// The connection that ended.
        connection: ConnectionId,
        /// Its peer.
        peer: PeerId,
        /// Connections to the same peer that are still there.
        remaining: usize,
        /// Why, and so who is to blame.
        reason: CloseReason,
    },
    /// Identify told what the peer is (again, after each push).
    Identified {
        /// The connection it was told on.
        connection: ConnectionId,
        /// The authenticated peer.
        peer: PeerId,
        /// What it says of itself.
        info: Arc<Info>,
    },
    /// The peer's address changed; the new one is in the view.
    PathChanged {
        /// The connection that moved.
        connection: ConnectionId,
    },
}

/// Something that happened to a stream of the behaviour.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamEvent {
    /// The remote opened it and one of our protocols was agreed on.
    Accepted {
        /// The connection it belongs to.
        connection: ConnectionId,
        /// The authenticated remote.
        peer: PeerId,
        /// The protocol agreed on.
        protocol: ProtocolName,
    },
    /// The remote agreed to one of the several protocols that were proposed.
    Agreed {
        /// That one.
        protocol: ProtocolName,
    },
    /// One whole frame.
    Frame(Bytes),
    /// Everything sent so far has left the write queue.
    Drained,
    /// The remote wants no more of what we send, and gives this code for it; what was queued is dropped, and our direction
    /// has ended. What it sends still comes.
    Stopped(u64),
    /// The remote will send no more.
    Finished,
    /// The stream is gone and its id is stale.
    Reset(StreamFault),
}

/// The answer to an action that carried a token.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Reply {
    /// To [`Action::Open`]. Negotiation is optimistic: frames may be sent at once, and a remote that does not speak
    /// the protocol shows as [`StreamFault::Unsupported`].
    Stream(Result<StreamId, OpenError>),
    /// To [`Action::Dial`].
    Dial(Result<ConnectionId, DialError>),
    /// To [`Action::Splice`], when it has ended; both streams are gone.
    Spliced(SpliceReport),
    /// To [`Action::Upgrade`]; the stream has become the connection, or is gone.
    Upgraded(Result<ConnectionId, UpgradeError>),
    /// To [`Action::Load`].
    Loaded(Result<Rows, StoreError>),
    /// To [`Action::Store`]: the changes will survive a crash, or none of them was made.
    Stored(Result<(), StoreError>),
}

/// What a behaviour may ask for.
#[derive(Debug)]
#[non_exhaustive]
pub enum Action {
    /// Open a stream; answered by [`Reply::Stream`].
    Open {
        /// Comes back in the reply.
        token: Token,
        /// On this connection.
        connection: ConnectionId,
        /// One of the behaviour's own protocols.
        protocol: ProtocolName,
        /// What to propose if the remote does not speak that, most wanted first. If there is any, frames wait until one is
        /// agreed on, and [`StreamEvent::Agreed`] tells which.
        fallback: Vec<ProtocolName>,
    },
    /// Answer a protocol from now on, or with another limit: 0 is not to answer it. Others are told with
    /// [`Input::Addresses`], and so identify tells the peers. A protocol that the behaviour had before keeps its framing, and
    /// streams that are open stay so. What somebody else answers is left to them, and counted.
    Answer {
        /// The protocol, one of the behaviour's own or a new one.
        spec: ProtocolSpec,
    },
    /// Take no frames from a stream for now. What the remote sends fills its flow control window and then waits there; nothing
    /// is lost. Nor is anything told that comes behind, such as its end or a reset, before [`Action::Resume`].
    Pause {
        /// The stream.
        stream: StreamId,
    },
    /// Take frames again.
    Resume {
        /// The stream.
        stream: StreamId,
    },
    /// Queue one frame. A stream whose write queue overflows is reset with [`StreamFault::WriteQueueFull`].
    Send {
        /// The stream.
        stream: StreamId,
        /// The payload; the stream layer frames it.
        frame: Bytes,
    },
    /// Send no more after what is queued.
    Finish {
        /// The stream.
        stream: StreamId,
    },
    /// Have the remote send no more: what it sends is not delivered from now on, and what we send is not touched. On
    /// circuits the remote cannot be told, and is only slowed down.
    Stop {
        /// The stream.
        stream: StreamId,
        /// Tells the remote why; 0 says nothing. See [`Node::reset_with`](crate::node::Node::reset_with).
        code: u64,
    },
    /// Give the stream up in both directions at once. Its id is stale afterwards and no event follows. On a spliced
    /// stream this ends the splice, with its report, and both remotes are told that a limit was reached if no code says
    /// otherwise.
    Reset {
        /// The stream.
        stream: StreamId,
        /// Tells the remote why; 0 says nothing. See [`Node::reset_with`](crate::node::Node::reset_with).
        code: u64,
    },
    /// Hand two streams to the data plane, which copies each into the other; answered by [`Reply::Spliced`].
    Splice {
        /// Comes back in the reply.
        token: Token,
        /// One stream.
        a: StreamId,
        /// The other stream.
        b: StreamId,
        /// What it may use.
        limit: SpliceLimit,
    },
    /// Make a stream carry a connection to `peer`, which is a relayed one; answered by [`Reply::Upgraded`].
    Upgrade {
        /// Comes back in the reply.
        token: Token,
        /// The dial that this is for, which ends with the connection; `None` if the connection is made unasked. If that dial
        /// has ended by now, the stream is reset and the upgrade fails with [`UpgradeError::NoStream`].
        dial: Option<Token>,
        /// The stream, whose connection's peer is the relay.
        stream: StreamId,
        /// Who must be at the other end.
        peer: PeerId,
        /// Which side of the handshakes we play.
        role: UpgradeRole,
        /// What the relay grants the circuit.
        limit: CircuitLimit,
        /// The address of the new connection, without the peer's `/p2p`; `None` is the circuit address of the relay.
        address: Option<Multiaddr>,
    },
    /// Connect to a peer; answered by [`Reply::Dial`].
    Dial {
        /// Comes back in the reply.
        token: Token,
        /// Who must be there; `None` takes whoever the addresses name.
        peer: Option<PeerId>,
        /// Where; empty for wherever the peer is known to be.
        addresses: Vec<Multiaddr>,
        /// How this dial differs from others.
        options: DialOptions,
    },
    /// The answer to [`Input::Dial`] when it failed. Tokens of dials that were given to others change nothing.
    DialFailed {
        /// The token of the input.
        token: Token,
        /// Why.
        error: DialError,
    },
    /// Close a connection.
    Close {
        /// The connection.
        connection: ConnectionId,
        /// Tells the remote why; 0 says nothing. See [`Node::close_with`](crate::node::Node::close_with).
        code: u64,
    },
    /// Add one of our own addresses, or confirm it again.
    AddAddress {
        /// The address, without our own `/p2p`.
        address: Multiaddr,
        /// How we know it.
        source: AddressSource,
    },
    /// Withdraw one of our own addresses.
    RemoveAddress {
        /// The address.
        address: Multiaddr,
        /// As it was added.
        source: AddressSource,
    },
    /// Read rows that were stored, perhaps by an earlier node; answered by [`Reply::Loaded`]. See
    /// [`storage`](crate::storage).
    Load {
        /// Comes back in the reply.
        token: Token,
        /// The table, whose name should be the behaviour's.
        table: &'static str,
        /// The last key that was loaded; `None` starts at the first row.
        after: Option<Bytes>,
    },
    /// Make these changes, in order and all or none of them; answered by [`Reply::Stored`]. One request at a time: what
    /// is to be written meanwhile is collected and goes in the next one.
    Store {
        /// Comes back in the reply.
        token: Token,
        /// The table, whose name should be the behaviour's.
        table: &'static str,
        /// The changes.
        writes: Vec<Write>,
    },
    /// Say what a peer is worth, for this reason; see [`crate::swarm::tags`].
    Tag {
        /// The peer.
        peer: PeerId,
        /// The reason.
        tag: &'static str,
        /// How much.
        value: i64,
        /// How that changes with time.
        decay: Decay,
    },
    /// Take that back.
    Untag {
        /// The peer.
        peer: PeerId,
        /// The reason.
        tag: &'static str,
    },
    /// Have nothing to do with a peer for so long: its connections are closed, and it is neither dialled nor let in. It
    /// replaces what was said before of the same peer; zero takes it back. The embedder's own lists are not touched.
    Deny {
        /// The peer.
        peer: PeerId,
        /// For how long.
        duration: Duration,
    },
    /// Spare a peer from pruning, for this reason, now and when it comes back.
    Protect {
        /// The peer.
        peer: PeerId,
        /// The reason.
        tag: &'static str,
    },
    /// Take that back. Others may have their reasons too.
    Unprotect {
        /// The peer.
        peer: PeerId,
        /// The reason.
        tag: &'static str,
    },
    /// Remember where a peer is reached, as somebody says. The peer itself is not asked.
    Learn {
        /// Who.
        peer: PeerId,
        /// Where.
        addresses: Vec<Multiaddr>,
        /// Who says so.
        source: Source,
        /// The number of the signed record that they come from, if the peer signed them: they replace those of an older
        /// one, and are left out if a newer one is known.
        record: Option<u64>,
        /// For how long.
        ttl: Duration,
    },
    /// Tell the embedder. What a built-in behaviour says has an event of its own in [`node::Event`](crate::node::Event); what
    /// identify says is also told to all behaviours, as [`PeerEvent::Identified`].
    Emit(Box<dyn Notice>),
}

/// What a behaviour may look at, and where its actions go.
#[derive(Debug)]
pub struct Context<'a> {
    now: Instant,
    unix: UnixTime,
    rng: &'a mut Rng,
    counters: &'a mut Counters,
    next_token: &'a mut u64,
    actions: &'a mut VecDeque<Action>,
    view: View<'a>,
}

/// The parts a [`Context`] is made of; the node makes one per call, tests make their own.
#[derive(Debug)]
pub struct ContextParts<'a> {
    /// Monotonic time.
    pub now: Instant,
    /// Wall-clock time.
    pub unix: UnixTime,
    /// The behaviour's own fork.
    pub rng: &'a mut Rng,
    /// The node's counters.
    pub counters: &'a mut Counters,
    /// The next token's number.
    pub next_token: &'a mut u64,
    /// Where actions go.
    pub actions: &'a mut VecDeque<Action>,
    /// The world.
    pub view: View<'a>,
}

impl<'a> From<ContextParts<'a>> for Context<'a> {
    fn from(parts: ContextParts<'a>) -> Self {
        let ContextParts { now, unix, rng, counters, next_token, actions, view } = parts;
        Self { now, unix, rng, counters, next_token, actions, view }
    }
}

impl<'a> Context<'a> {
    /// Monotonic time of this input.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Wall-clock time, only for wire formats that carry it.
    pub fn unix(&self) -> UnixTime {
        self.unix
    }

    /// This behaviour's own random numbers.
    pub fn rng(&mut self) -> &mut Rng {
        self.rng
    }

    /// The world, read-only.
    pub fn view(&self) -> View<'a> {
        self.view
    }

    /// Adds one to the named counter. Names are dotted, from the general to the particular.
    pub fn count(&mut self, name: &'static str) {
        self.counters.add(name, 1);
    }

    /// Adds `n` to the named counter.
    pub fn count_n(&mut self, name: &'static str, n: u64) {
        self.counters.add(name, n);
    }

    /// A token not used before in this node.
    pub fn token(&mut self) -> Token {
        let token = Token(*self.next_token);
        *self.next_token += 1;
        token
    }

    /// Asks for anything.
    pub fn push(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    /// Asks for a stream; see [`Action::Open`].
    pub fn open(&mut self, connection: ConnectionId, protocol: ProtocolName) -> Token {
        let token = self.token();
        self.push(Action::Open { token, connection, protocol, fallback: Vec::new() });
        token
    }

    /// Asks for a stream that speaks the first of these protocols that the remote speaks, which must be at least one; see
    /// [`Action::Open`].
    pub fn open_any(
        &mut self,
        connection: ConnectionId,
        protocols: impl IntoIterator<Item = ProtocolName>,
    ) -> Token {
        let token = self.token();
        let mut protocols = protocols.into_iter();
        let protocol = protocols.next().unwrap_or(ProtocolName::from_static(""));
        self.push(Action::Open { token, connection, protocol, fallback: protocols.collect() });
        token
    }

    /// Takes no frames from a stream for now; see [`Action::Pause`].
    pub fn pause(&mut self, stream: StreamId) {
        self.push(Action::Pause { stream });
    }

    /// Takes frames again; see [`Action::Resume`].
    pub fn resume(&mut self, stream: StreamId) {
        self.push(Action::Resume { stream });
    }

    /// Queues a frame; see [`Action::Send`].
    pub fn send(&mut self, stream: StreamId, frame: impl Into<Bytes>) {
        self.push(Action::Send { stream, frame: frame.into() });
    }

    /// Ends our direction; see [`Action::Finish`].
    pub fn finish(&mut self, stream: StreamId) {
        self.push(Action::Finish { stream });
    }

    /// Gives a stream up; see [`Action::Reset`].
    pub fn reset(&mut self, stream: StreamId) {
        self.reset_with(stream, 0);
    }

    /// The same with a code that tells the remote why; see [`Action::Reset`].
    pub fn reset_with(&mut self, stream: StreamId, code: u64) {
        self.push(Action::Reset { stream, code });
    }

    /// Has the remote send no more; see [`Action::Stop`].
    pub fn stop_with(&mut self, stream: StreamId, code: u64) {
        self.push(Action::Stop { stream, code });
    }

    /// Joins two streams; see [`Action::Splice`].
    pub fn splice(&mut self, a: StreamId, b: StreamId, limit: SpliceLimit) -> Token {
        let token = self.token();
        self.push(Action::Splice { token, a, b, limit });
        token
    }

    /// Connects to a peer; see [`Action::Dial`].
    pub fn dial(&mut self, peer: Option<PeerId>, addresses: Vec<Multiaddr>) -> Token {
        self.dial_with(peer, addresses, DialOptions::default())
    }

    /// Connects to a peer with options; see [`Action::Dial`].
    pub fn dial_with(
        &mut self,
        peer: Option<PeerId>,
        addresses: Vec<Multiaddr>,
        options: DialOptions,
    ) -> Token {
        let token = self.token();
        self.push(Action::Dial { token, peer, addresses, options });
        token
    }

    /// Reads rows of a table; see [`Action::Load`].
    pub fn load(&mut self, table: &'static str, after: Option<Bytes>) -> Token {
        let token = self.token();
        self.push(Action::Load { token, table, after });
        token
    }

    /// Changes a table; see [`Action::Store`].
    pub fn store(&mut self, table: &'static str, writes: Vec<Write>) -> Token {
        let token = self.token();
        self.push(Action::Store { token, table, writes });
        token
    }

    /// Closes a connection; see [`Action::Close`].
    pub fn close(&mut self, connection: ConnectionId) {
        self.close_with(connection, 0);
    }

    /// The same with a code that tells the remote why; see [`Action::Close`].
    pub fn close_with(&mut self, connection: ConnectionId, code: u64) {
        self.push(Action::Close { connection, code });
    }

    /// Spares a peer from pruning; see [`Action::Protect`].
    pub fn protect(&mut self, peer: PeerId, tag: &'static str) {
        self.push(Action::Protect { peer, tag });
    }

    /// Takes that back; see [`Action::Unprotect`].
    pub fn unprotect(&mut self, peer: PeerId, tag: &'static str) {
        self.push(Action::Unprotect { peer, tag });
    }

    /// Tells the embedder; see [`Action::Emit`].
    pub fn emit(&mut self, notice: impl Notice) {
        self.push(Action::Emit(Box::new(notice)));
    }
}
