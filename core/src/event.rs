//! What the embedder is told, and the errors and reasons that events and replies carry.

use std::{any::Any, net::SocketAddr, time::Duration};

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

pub use self::reached::ReachedLimit;
use crate::{
    behaviour::ProtocolName,
    codes::Said,
    ids::{ConnectionId, DialId, QueryId, StreamId},
    protocols::{identify, ping, relay, rendezvous},
    storage::StorageRequest,
    swarm::{Hostless, Refusal, resources::Exceeded, table::Direction},
    time::Instant,
};

mod codes;
mod display;
mod family;
mod reached;

pub use family::Family;

/// What the embedder is told, in order.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// An address that leads to us came up; without our `/p2p`.
    Listening {
        /// The address.
        address: Multiaddr,
    },
    /// An address that led to us is gone.
    ListenClosed {
        /// The address.
        address: Multiaddr,
    },
    /// A connection is authenticated and carries streams.
    Connected {
        /// Its id.
        connection: ConnectionId,
        /// The authenticated remote.
        peer: PeerId,
        /// Where it is.
        address: Multiaddr,
        /// Who opened it.
        direction: Direction,
        /// The relay it runs through, if it does.
        relay: Option<PeerId>,
    },
    /// A dial reached its peer: over a connection just established, or one that was there already.
    Dialed {
        /// The dial.
        dial: DialId,
        /// The connection to use.
        connection: ConnectionId,
        /// The authenticated remote.
        peer: PeerId,
    },
    /// A connection has ended, and all its streams with it.
    Disconnected {
        /// Its id, stale by now.
        connection: ConnectionId,
        /// Its peer.
        peer: PeerId,
        /// Why, and so who is to blame.
        reason: CloseReason,
    },
    /// A dial reached nobody.
    DialFailed {
        /// The dial.
        dial: DialId,
        /// Whom it was to reach, if that was said.
        peer: Option<PeerId>,
        /// What happened at each address.
        error: DialError,
    },
    /// Somebody connected and did not get as far as being a peer.
    InboundFailed {
        /// Where it came from.
        remote: Multiaddr,
        /// What went wrong.
        reason: CloseReason,
        /// How many others failed since the last of these events and are not told of: all are counted, but whoever wants
        /// could make a flood of events otherwise.
        suppressed: u64,
    },
    /// The node did not come to rest after an input: two of its machines answer each other without end, which is a fault of
    /// the program. The rest of the work is left for the next [`handle_timeout`](crate::node::Node::handle_timeout), which is
    /// due at once. Told when it begins; `node.turns_cut_off` counts.
    TurnCutOff {
        /// After so many steps.
        steps: usize,
        /// What was to be done next, and by whom.
        at: String,
    },
    /// Something happened to a stream of the embedder.
    Stream {
        /// The stream.
        stream: StreamId,
        /// What.
        event: AppStreamEvent,
    },
    /// The embedder is asked to resolve a host name; it answers with `Node::handle_resolved`.
    Resolve {
        /// Comes back in the answer.
        query: QueryId,
        /// The name.
        name: String,
        /// Which address family.
        family: Family,
    },
    /// The embedder is asked from which of the node's addresses datagrams to `remote` leave; it answers with
    /// `Node::handle_routed`. Only if that is in doubt, because several sockets are bound to addresses of that family, and
    /// never unless `Config::knows_routes` is set.
    Route {
        /// Comes back in the answer.
        query: QueryId,
        /// Where to.
        remote: SocketAddr,
    },
    /// The embedder's store is asked for something; it answers with `Node::handle_storage`. Never, unless
    /// `Config::storage` is set.
    Storage(StorageRequest),
    /// The embedder is asked for the TXT records of a name; it answers with `Node::handle_resolved_text`. One that cannot
    /// ask for them says so there.
    ResolveText {
        /// Comes back in the answer.
        query: QueryId,
        /// The name.
        name: String,
    },
    /// From ping.
    Ping(ping::Event),
    /// From identify.
    Identify(identify::Event),
    /// From the relay we are.
    Hop(relay::hop::Event),
    /// From the relays we use.
    Reservation(relay::client::Event),
    /// From the rendezvous point we are, and from those we use.
    Rendezvous(rendezvous::Event),
    /// From a behaviour of the embedder.
    Custom {
        /// Its name.
        behaviour: &'static str,
        /// What it says.
        event: Box<dyn Any + Send>,
    },
}

impl Event {
    /// Whether a full queue of events should rather lose this one than others: remotes cause it as they like, and nothing has
    /// to be done about it.
    pub fn is_expendable(&self) -> bool {
        matches!(self, Self::InboundFailed { .. } | Self::Identify(_) | Self::Ping(_) | Self::Hop(_))
    }

    /// How that dial ended, if this event says so.
    pub fn dial_outcome(&self, ours: DialId) -> Option<Result<ConnectionId, DialError>> {
        match self {
            Self::Dialed { dial, connection, .. } if *dial == ours => Some(Ok(*connection)),
            Self::DialFailed { dial, error, .. } if *dial == ours => Some(Err(error.clone())),
            _ => None,
        }
    }

    /// How a ping of that connection ended, if this event says so.
    pub fn ping_outcome(&self, ours: ConnectionId) -> Option<Result<Duration, ping::Failure>> {
        match self {
            Self::Ping(ping) if ping.connection == ours => Some(ping.result.clone()),
            _ => None,
        }
    }

    /// What that relay said to our request for a reservation, if this event says so: the circuit addresses that lead to
    /// us, with our `/p2p`.
    pub fn reserve_outcome(
        &self,
        ours: PeerId,
    ) -> Option<Result<Vec<Multiaddr>, relay::client::ReserveError>> {
        use relay::client::Event::{Failed, Lost, Reserved};
        match self {
            Self::Reservation(Reserved { relay, addresses, .. }) if *relay == ours => {
                Some(Ok(addresses.clone()))
            }
            Self::Reservation(Lost { relay, reason, .. } | Failed { relay, reason, .. })
                if *relay == ours =>
            {
                Some(Err(reason.clone()))
            }
            _ => None,
        }
    }

    /// What that point said to our registration in a namespace, if this event says so: for how long it was granted.
    pub fn register_outcome(
        &self,
        ours: PeerId,
        name: &str,
    ) -> Option<Result<Duration, rendezvous::client::Error>> {
        use rendezvous::client::Event::{Registered, RegistrationFailed, RegistrationLost};
        let Self::Rendezvous(rendezvous::Event::Client(event)) = self else { return None };
        match event {
            Registered { point, namespace, ttl, .. } if *point == ours && namespace == name => Some(Ok(*ttl)),
            RegistrationFailed { point, namespace, reason, .. }
            | RegistrationLost { point, namespace, reason, .. }
                if *point == ours && namespace == name =>
            {
                Some(Err(reason.clone()))
            }
            _ => None,
        }
    }

    /// What came of that discovery, if this event says so.
    pub fn discover_outcome(
        &self,
        ours: rendezvous::client::DiscoveryId,
    ) -> Option<Result<rendezvous::client::Discovery, rendezvous::client::Error>> {
        use rendezvous::client::Event::DiscoveryEnded;
        match self {
            Self::Rendezvous(rendezvous::Event::Client(DiscoveryEnded { discovery, result }))
                if *discovery == ours =>
            {
                Some(result.clone())
            }
            _ => None,
        }
    }
}

/// Something that happened to a stream of the embedder.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AppStreamEvent {
    /// The remote opened it for one of the embedder's protocols.
    Accepted {
        /// The connection it belongs to.
        connection: ConnectionId,
        /// The authenticated remote.
        peer: PeerId,
        /// The protocol agreed on.
        protocol: ProtocolName,
    },
    /// The remote agreed to the protocol of a stream we opened.
    Agreed,
    /// There is something to read: data, the end, or an error.
    Readable,
    /// There is room to write again, after a write that was blocked.
    Writable,
    /// The stream is gone and its id is stale.
    Reset(StreamFault),
}

/// Why a stream is gone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamFault {
    /// The remote gave it up.
    #[error("the remote reset the stream{}", Said::of_stream(*.0))]
    Remote(u64),
    /// Its connection ended.
    #[error("the connection ended")]
    ConnectionLost,
    /// The remote does not speak the protocol.
    #[error("the remote does not speak the protocol")]
    Unsupported,
    /// Agreeing on a protocol took too long.
    #[error("protocol negotiation timed out")]
    NegotiationTimeout,
    /// The remote broke multistream-select or the protocol's framing.
    #[error("the remote broke the framing: {0}")]
    Malformed(String),
    /// There is too much memory in use already.
    #[error("{0}")]
    Limit(Exceeded),
    /// The remote does not read, and our write queue is full.
    #[error("the write queue is full")]
    WriteQueueFull,
}

/// Why no stream could be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The connection is gone.
    #[error("no such connection")]
    NoConnection,
    /// The remote grants no more streams, and too many wait for it to do so.
    #[error("the remote grants no more streams, and too many wait for one")]
    StreamLimit,
    /// There are too many streams already.
    #[error("{0}")]
    Limit(Exceeded),
    /// The protocol is not one that the node was configured with.
    #[error("unknown protocol {0}")]
    UnknownProtocol(ProtocolName),
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// We closed it.
    #[error("closed by us")]
    Local,
    /// We closed it, because it was not healthy and another one has taken its place.
    #[error("closed by us, as a healthier one has taken its place")]
    Replaced,
    /// We closed it, because another one to the same peer is kept.
    #[error("closed by us, as there is another")]
    Duplicate,
    /// The remote closed it.
    #[error("closed by the remote{}", Said::of_connection(*code, text))]
    Remote {
        /// The application error code.
        code: u64,
        /// The remote's words, shortened.
        text: String,
    },
    /// Nothing came for too long.
    #[error("timed out")]
    TimedOut,
    /// The remote lost its state (stateless reset, RFC 9000 section 10.3).
    #[error("reset by the remote")]
    Reset,
    /// The remote does not want to be connected to, and did not say why (CONNECTION_REFUSED, RFC 9000 section 20.1).
    #[error(
        "the remote refuses the connection: it denies this address, has reached a limit, or is shutting down"
    )]
    ConnectionRefused,
    /// The remote is not who it must be.
    #[error("expected peer {expected}, found {found}")]
    WrongPeer {
        /// Who was dialled.
        expected: PeerId,
        /// Who answered.
        found: PeerId,
    },
    /// The handshake failed.
    #[error("handshake failed: {0}")]
    Handshake(String),
    /// The remote broke the transport protocol, or says that we did.
    #[error("transport error: {0}")]
    Transport(String),
    /// The relayed stream that carried it ended.
    #[error("the circuit ended: {0}")]
    Circuit(StreamFault),
    /// The circuit carried as much, or lasted as long, as its relay allows.
    #[error("the circuit reached its limit: the relay allows {0}")]
    CircuitLimit(ReachedLimit),
    /// The relayed stream that carried it ended, with no word of goodbye from the remote.
    #[error("the circuit ended without a goodbye")]
    CircuitFinished,
    /// The circuit's bytes were not a secured, multiplexed connection.
    #[error("upgrade failed: {0}")]
    Upgrade(UpgradeError),
    /// The remote's muxer broke its rules.
    #[error("muxer error: {0}")]
    Muxer(String),
    /// Connection management does not want it.
    #[error("{0}")]
    Refused(Refusal),
    /// There were too many connections, and its peer was worth less than others.
    #[error("closed by us to have fewer connections")]
    Pruned,
}

/// Why a dial reached nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.describe())]
pub struct DialError {
    /// What happened, address by address; empty if there was nothing to dial.
    pub attempts: Vec<(Multiaddr, AttemptError)>,
}

impl DialError {
    /// An error with a single address.
    pub fn one(address: Multiaddr, error: AttemptError) -> Self {
        Self { attempts: vec![(address, error)] }
    }

    fn describe(&self) -> String {
        if self.attempts.is_empty() {
            return "no address to dial".into();
        }
        let parts: Vec<_> =
            self.attempts.iter().map(|(address, error)| format!("{address}: {error}")).collect();
        parts.join("; ")
    }
}

/// Why one address led nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttemptError {
    /// Not an address that this node can dial.
    #[error("not a dialable address: {0}")]
    Unsupported(String),
    /// It names another peer than the dial.
    #[error("names peer {found}, not {expected}")]
    OtherPeer {
        /// Whom the dial is for.
        expected: PeerId,
        /// Whom the address names.
        found: PeerId,
    },
    /// It leads to ourselves.
    #[error("that is this node itself")]
    Own,
    /// No host, or none but ours, is there.
    #[error("{0}")]
    Hostless(Hostless),
    /// The embedder gave no socket of that address family.
    #[error("no socket of that address family")]
    NoSocket,
    /// The name has no address.
    #[error("the name does not resolve: {0}")]
    Unresolved(String),
    /// It failed a moment ago and is left alone until then; `/p2p/PEER` is all addresses of a peer.
    #[error("failed a moment ago, not tried again before {until}")]
    BackedOff {
        /// On the embedder's clock.
        until: Instant,
    },
    /// Next to nothing that was sent to such addresses was answered; few are tried.
    #[error("addresses of this kind have not answered for long")]
    BlackHole,
    /// [`Node::shutdown`](crate::node::Node::shutdown) was called.
    #[error("this node is shutting down")]
    ShuttingDown,
    /// As many dials wait as may.
    #[error("too many dials are waiting")]
    QueueFull,
    /// The connection failed before it was established.
    #[error("{0}")]
    Failed(CloseReason),
    /// Connection management does not want it; nothing was sent there.
    #[error("{0}")]
    Refused(Refusal),
    /// No relay is known that is fit to be asked.
    #[error("no relay to go through is known")]
    NoRelay,
    /// The relay could not be reached.
    #[error("the relay could not be reached: {0}")]
    RelayUnreachable(String),
    /// The relay refused, for another reason than the two that follow.
    #[error("the relay refused: {0}")]
    RelayRefused(relay::Status),
    /// The peer has no reservation at the relay (NO_RESERVATION).
    #[error("the peer holds no reservation at the relay")]
    TargetUnknown,
    /// The relay has no room for another circuit (RESOURCE_LIMIT_EXCEEDED).
    #[error("the relay has reached a limit")]
    RelayLimit,
    /// The circuit reached its limit before it was a connection.
    #[error("the circuit reached its limit before it was a connection")]
    CircuitLimit,
    /// The relay does not speak circuit relay v2, or broke it.
    #[error("the relay broke the protocol: {0}")]
    RelayFault(String),
    /// The relay did not answer in time.
    #[error("timed out")]
    TimedOut,
}

impl AttemptError {
    /// Whether the network had a chance to answer.
    pub(crate) fn was_tried(&self) -> bool {
        !matches!(
            self,
            Self::Unsupported(_)
                | Self::OtherPeer { .. }
                | Self::Own
                | Self::Hostless(_)
                | Self::NoSocket
                | Self::NoRelay
                | Self::BackedOff { .. }
                | Self::BlackHole
                | Self::QueueFull
                | Self::ShuttingDown
                | Self::Refused(_)
        )
    }
}

/// Which side of the handshakes on a circuit we play.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpgradeRole {
    /// We sent CONNECT: multistream dialer, TLS client, Noise and yamux initiator.
    Initiator,
    /// We answered CONNECT.
    Responder,
}

/// What a relay grants a circuit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CircuitLimit {
    /// For how long; `None` is unlimited.
    pub duration: Option<Duration>,
    /// Bytes per direction; `None` is unlimited.
    pub data: Option<u64>,
}

/// Why a stream did not become a connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpgradeError {
    /// The stream's id is stale.
    #[error("no such stream")]
    NoStream,
    /// Connection management does not want it.
    #[error("{0}")]
    Refused(Refusal),
    /// The carrying stream ended.
    #[error("the circuit ended: {0}")]
    Carrier(StreamFault),
    /// It took too long.
    #[error("timed out during {0}")]
    TimedOut(&'static str),
    /// No security or muxer in common, or multistream-select broken.
    #[error("negotiation failed: {0}")]
    Negotiation(String),
    /// The security handshake failed.
    #[error("handshake failed: {0}")]
    Handshake(String),
    /// The remote is not who it must be.
    #[error("expected peer {expected}, found {found}")]
    WrongPeer {
        /// Who must be there.
        expected: PeerId,
        /// Who is.
        found: PeerId,
    },
}

/// What a splice may use. In all of them 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpliceLimit {
    /// Bytes per direction.
    pub bytes: u64,
    /// Bytes per second and direction, in bursts of at most an eighth of a second's worth or 4 KiB.
    pub rate: u64,
    /// How long nothing may move in either direction.
    pub idle: Duration,
}

/// How a splice ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpliceReport {
    /// Bytes copied from `a` to `b`.
    pub a_to_b: u64,
    /// Bytes copied from `b` to `a`.
    pub b_to_a: u64,
    /// Why.
    pub end: SpliceEnd,
}

/// Why a splice ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpliceEnd {
    /// Both sides finished; everything was delivered.
    #[error("both finished")]
    Finished,
    /// A direction reached its limit.
    #[error("byte limit reached")]
    Limit,
    /// Nothing moved for too long.
    #[error("idle")]
    Idle,
    /// The behaviour reset one of the streams.
    #[error("reset by us")]
    Local,
    /// Stream `a` was lost.
    #[error("source: {0}")]
    A(StreamFault),
    /// Stream `b` was lost.
    #[error("target: {0}")]
    B(StreamFault),
}
