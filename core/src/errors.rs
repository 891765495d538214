//! Errors and reasons, as events, replies and streams carry them.

mod codes;
mod invalid;
mod reached;
mod refusal;

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

pub use self::invalid::InvalidConfig;
pub(crate) use self::invalid::require;
pub use self::reached::ReachedLimit;
pub use self::refusal::{Denial, Denied, Exceeded, Hostless, Point, Refusal, Resource, Scope};
use crate::{codes::Said, names::ProtocolName, time::Instant};

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
    /// The embedder gave no socket of that address family, or the one to dial from is not of that family.
    #[error("no socket of that address family")]
    NoSocket,
    /// It leads through somebody else, and the dial is to be direct.
    #[error("it leads through another peer, and only direct addresses are to be dialled")]
    NotDirect,
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
    RelayRefused(RelayStatus),
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
                | Self::NotDirect
                | Self::NoRelay
                | Self::BackedOff { .. }
                | Self::BlackHole
                | Self::QueueFull
                | Self::ShuttingDown
                | Self::Refused(_)
        )
    }
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

/// Status codes of circuit relay v2 on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[non_exhaustive]
pub enum RelayStatus {
    /// 100.
    #[error("OK")]
    Ok,
    /// 200.
    #[error("RESERVATION_REFUSED")]
    ReservationRefused,
    /// 201.
    #[error("RESOURCE_LIMIT_EXCEEDED")]
    ResourceLimitExceeded,
    /// 202.
    #[error("PERMISSION_DENIED")]
    PermissionDenied,
    /// 203.
    #[error("CONNECTION_FAILED")]
    ConnectionFailed,
    /// 204.
    #[error("NO_RESERVATION")]
    NoReservation,
    /// 400.
    #[error("MALFORMED_MESSAGE")]
    MalformedMessage,
    /// 401.
    #[error("UNEXPECTED_MESSAGE")]
    UnexpectedMessage,
    /// A code that the specification does not know, or none.
    #[error("status {0}")]
    Other(i32),
}

impl RelayStatus {
    /// The code on the wire.
    pub fn code(self) -> i32 {
        match self {
            Self::Ok => 100,
            Self::ReservationRefused => 200,
            Self::ResourceLimitExceeded => 201,
            Self::PermissionDenied => 202,
            Self::ConnectionFailed => 203,
            Self::NoReservation => 204,
            Self::MalformedMessage => 400,
            Self::UnexpectedMessage => 401,
            Self::Other(code) => code,
        }
    }
}

/// A missing code is 0, which the specification never sends.
impl From<Option<i32>> for RelayStatus {
    fn from(code: Option<i32>) -> Self {
        match code.unwrap_or(0) {
            100 => Self::Ok,
            200 => Self::ReservationRefused,
            201 => Self::ResourceLimitExceeded,
            202 => Self::PermissionDenied,
            203 => Self::ConnectionFailed,
            204 => Self::NoReservation,
            400 => Self::MalformedMessage,
            401 => Self::UnexpectedMessage,
            code => Self::Other(code),
        }
    }
}
