//! What the embedder is told of registrations and of peers found.

use std::{fmt, time::Duration};

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

use super::{super::Status, Cookie, Dialect, DiscoveryId};
use crate::errors::{CloseReason, DialError, OpenError, StreamFault};

/// A peer found in a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it is registered.
    pub namespace: String,
    /// Who.
    pub peer: PeerId,
    /// Where it says it is, with its `/p2p`. The peerstore remembers it for `ttl`, so [`crate::node::Node::dial`] does
    /// without.
    pub addresses: Vec<Multiaddr>,
    /// For how long the registration goes on.
    pub ttl: Duration,
    /// Whether the peer signed the addresses. If not, they are the point's word alone.
    pub signed: bool,
}

/// What came of a discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// The peers, each once per namespace, without ourselves.
    pub peers: Vec<Found>,
    /// To ask later for only what is new; `None` if the point has no such thing.
    pub cookie: Option<Cookie>,
}

/// What became of our registrations, watches and discoveries: each change of state is one event.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// We are connecting to a point.
    Connecting {
        /// The point.
        point: PeerId,
    },
    /// A point is asked to register us, or to go on doing so.
    Registering {
        /// The point.
        point: PeerId,
        /// The namespace.
        namespace: String,
        /// How many tries in a row have failed before.
        failures: u32,
    },
    /// A point did not take our record in one dialect and is asked in another.
    OtherDialect {
        /// The point.
        point: PeerId,
        /// The namespace.
        namespace: String,
        /// In which it is asked now.
        dialect: Dialect,
        /// What it said to the one before.
        reason: Error,
    },
    /// A point registered us, or goes on doing so.
    Registered {
        /// The point.
        point: PeerId,
        /// The namespace.
        namespace: String,
        /// For how long; it is renewed before.
        ttl: Duration,
        /// Whether it is a refresh.
        renewed: bool,
    },
    /// A registration could not be renewed; it goes on, and is tried to be renewed again before it ends.
    RefreshFailed {
        /// The point.
        point: PeerId,
        /// The namespace.
        namespace: String,
        /// Why.
        reason: Error,
        /// When it is tried again: before the registration ends, unless that is within 0.1 s.
        retry: Duration,
    },
    /// A registration has ended.
    RegistrationLost {
        /// The point.
        point: PeerId,
        /// The namespace.
        namespace: String,
        /// Why.
        reason: Error,
        /// Whether it goes on being tried.
        wanted: bool,
    },
    /// A registration that we asked for was not granted.
    RegistrationFailed {
        /// The point.
        point: PeerId,
        /// The namespace.
        namespace: String,
        /// Why.
        reason: Error,
        /// When it is tried again; `None` if that is of no use.
        retry: Option<Duration>,
    },
    /// A watch found a peer that it did not know.
    Discovered {
        /// The point.
        point: PeerId,
        /// The peer.
        found: Found,
    },
    /// A peer that a watch knows has other addresses now.
    Updated {
        /// The point.
        point: PeerId,
        /// The peer.
        found: Found,
    },
    /// The registration of a peer that a watch knew has ended.
    Expired {
        /// The point.
        point: PeerId,
        /// The namespace.
        namespace: String,
        /// The peer.
        peer: PeerId,
    },
    /// A watch was told everything there is for now.
    Polled {
        /// The point.
        point: PeerId,
        /// The namespace; `None` is all.
        namespace: Option<String>,
        /// Peers known.
        known: usize,
    },
    /// A watch asks for everything again, as the point does not know the cookie. Peers that are known are not told again.
    StartedOver {
        /// The point.
        point: PeerId,
        /// The namespace; `None` is all.
        namespace: Option<String>,
    },
    /// A watch got no answer.
    WatchFailed {
        /// The point.
        point: PeerId,
        /// The namespace; `None` is all.
        namespace: Option<String>,
        /// Why.
        reason: Error,
        /// When it asks again; `None` if that is of no use, and the watch has ended.
        retry: Option<Duration>,
    },
    /// A discovery has ended.
    DiscoveryEnded {
        /// Which.
        discovery: DiscoveryId,
        /// What came of it.
        result: Result<Discovery, Error>,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connecting { point } => write!(f, "connecting to {point}"),
            Self::Registering { point, namespace, failures: 0 } => {
                write!(f, "registering {namespace:?} at {point}")
            }
            Self::Registering { point, namespace, failures } => {
                write!(f, "registering {namespace:?} at {point} after {failures} failures")
            }
            Self::OtherDialect { point, namespace, dialect, reason } => {
                write!(f, "registering {namespace:?} at {point} as {dialect:?}: {reason}")
            }
            Self::Registered { point, namespace, ttl, renewed } => {
                let what = if *renewed { "renewed" } else { "registered" };
                write!(f, "{what} {namespace:?} at {point} for {} s", ttl.as_secs())
            }
            Self::RefreshFailed { point, namespace, reason, retry } => {
                write!(f, "not renewed {namespace:?} at {point}: {reason}; again in {}", Seconds(*retry))
            }
            Self::RegistrationLost { point, namespace, reason, .. } => {
                write!(f, "lost {namespace:?} at {point}: {reason}")
            }
            Self::RegistrationFailed { point, namespace, reason, retry } => {
                write!(f, "not registered {namespace:?} at {point}: {reason}{}", Again(*retry))
            }
            Self::Discovered { point, found } => write!(f, "found {found} at {point}"),
            Self::Updated { point, found } => write!(f, "updated {found} at {point}"),
            Self::Expired { point, namespace, peer } => {
                write!(f, "expired {peer} in {namespace:?} at {point}")
            }
            Self::Polled { point, namespace, known } => {
                write!(f, "polled {} at {point}: {known} known", Name(namespace))
            }
            Self::StartedOver { point, namespace } => {
                write!(f, "asking anew for {} at {point}: the cookie is not known there", Name(namespace))
            }
            Self::WatchFailed { point, namespace, reason, retry } => {
                write!(f, "no answer on {} at {point}: {reason}{}", Name(namespace), Again(*retry))
            }
            Self::DiscoveryEnded { result: Ok(Discovery { peers, .. }), .. } => {
                write!(f, "discovered {} peers", peers.len())?;
                peers.iter().try_for_each(|found| write!(f, "; {found}"))
            }
            Self::DiscoveryEnded { result: Err(error), .. } => write!(f, "discovery failed: {error}"),
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, peer, addresses, ttl, signed } = self;
        let unsigned = if *signed { "" } else { ", unsigned" };
        write!(f, "{peer} in {namespace:?} for {} s{unsigned}", ttl.as_secs())?;
        addresses.iter().try_for_each(|address| write!(f, " {address}"))
    }
}

struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s", self.0.as_secs_f64())
    }
}

struct Again(Option<Duration>);

impl fmt::Display for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(retry) => write!(f, "; again in {}", Seconds(retry)),
            None => f.write_str("; given up"),
        }
    }
}

/// A namespace, or all of them.
struct Name<'a>(&'a Option<String>);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(namespace) => write!(f, "{namespace:?}"),
            None => f.write_str("all namespaces"),
        }
    }
}

/// The point ended a stream instead of answering.
pub(super) const NO_ANSWER: &str = "no answer";

/// Why something asked of a rendezvous point did not come about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address has no `/p2p`, so nobody to authenticate.
    #[error("the point's address must end in /p2p/ and its peer id")]
    NoPeer,
    /// The point is this node itself.
    #[error("the point is this node itself")]
    Own,
    /// The namespace has no bytes, or more than 255.
    #[error("a namespace has 1 to 255 bytes, not {0}")]
    Namespace(usize),
    /// The time to live is shorter than a second or longer than 72 hours.
    #[error("a registration lasts from 1 s to 72 h, not {} s", .0.as_secs())]
    Ttl(Duration),
    /// We have no address to register.
    #[error("there is no address of ours to register")]
    NoAddress,
    /// So many of them are wanted already.
    #[error("more {0} than the configuration allows")]
    TooMany(&'static str),
    /// The cookie is of another point or namespace.
    #[error("the cookie is of another point or namespace")]
    ForeignCookie,
    /// The point could not be reached.
    #[error("{0}")]
    Unreachable(DialError),
    /// The connection to the point ended.
    #[error("the connection to the point ended: {0}")]
    Disconnected(CloseReason),
    /// No stream could be opened.
    #[error("{0}")]
    Open(OpenError),
    /// The stream was lost.
    #[error("{0}")]
    Stream(StreamFault),
    /// The point said no.
    #[error("the point refused: {status}{}{text}", if text.is_empty() { "" } else { ": " })]
    Refused {
        /// Its reason.
        status: Status,
        /// Its words, shortened.
        text: String,
    },
    /// The point broke the protocol.
    #[error("the point broke the protocol: {0}")]
    Malformed(&'static str),
    /// Our own record cannot be made.
    #[error("our record cannot be made: {0}")]
    Record(String),
    /// The point did not answer in time.
    #[error("timed out")]
    TimedOut,
    /// It ended without having been renewed.
    #[error("expired")]
    Expired,
    /// We gave it up.
    #[error("given up by us")]
    Cancelled,
}

impl Error {
    /// Whether the same request cannot succeed later either.
    pub(super) fn is_final(&self) -> bool {
        let Self::Refused { status, .. } = self else { return false };
        matches!(status, Status::InvalidNamespace | Status::InvalidTtl | Status::NotAuthorized)
    }

    /// Whether the point may take the record in another dialect. What a point does with a record that it cannot read is
    /// its own affair: berty's and py's find another's peer id in it, rust's breaks off.
    pub(super) fn is_about_record(&self, accepted_before: bool) -> bool {
        match self {
            Self::Refused { status: Status::InvalidSignedPeerRecord | Status::NotAuthorized, .. } => true,
            Self::Refused { status: Status::InternalError, .. }
            | Self::Stream(StreamFault::Remote(_))
            | Self::Malformed(NO_ANSWER) => !accepted_before,
            _ => false,
        }
    }
}
