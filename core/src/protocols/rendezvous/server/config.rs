//! What a rendezvous point allows, and what it tells the embedder.

use std::{fmt, time::Duration};

use libp2p_identity::PeerId;

use super::super::{DEFAULT_TTL, MAX_PAGE, MAX_TTL, MIN_TTL, Status};
use crate::{
    errors::{InvalidConfig, require},
    rate::Rate,
};

/// How to be a rendezvous point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What it allows.
    pub limits: Limits,
    /// What a registration lasts whose client did not say.
    pub default_ttl: Duration,
    /// Whether it takes the unsigned records of old clients (py-libp2p, berty's go). Who registers is known either way,
    /// but others have only this point's word for the addresses.
    pub accept_unsigned: bool,
    /// How long a client may take to say what it wants; at least a second.
    pub timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            default_ttl: DEFAULT_TTL,
            accept_unsigned: true,
            timeout: Duration::from_secs(30),
        }
    }
}

impl Config {
    /// Finds the first thing that makes no sense.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        const SECOND: Duration = Duration::from_secs(1);
        const AT_LEAST: &str = "must be at least a second";
        let Limits { min_ttl, max_ttl, max_record, .. } = self.limits;
        require(self.timeout >= SECOND, "rendezvous_server.timeout", AT_LEAST)?;
        require(min_ttl >= SECOND, "rendezvous_server.limits.min_ttl", AT_LEAST)?;
        require(
            max_ttl >= min_ttl,
            "rendezvous_server.limits.max_ttl",
            "must not be below rendezvous_server.limits.min_ttl",
        )?;
        require(
            (min_ttl..=max_ttl).contains(&self.default_ttl),
            "rendezvous_server.default_ttl",
            "must be from rendezvous_server.limits.min_ttl to max_ttl",
        )?;
        require(max_record >= 1, "rendezvous_server.limits.max_record", "must be at least 1")
    }
}

/// What a rendezvous point allows. In the counts and rates 0 is no limit. A client's own registration can be refreshed
/// whatever the counts say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most registrations at a time.
    pub max_registrations: usize,
    /// Most registrations of one peer at a time.
    pub max_per_peer: usize,
    /// Most registrations at a time from one IPv4 address or IPv6 /64.
    pub max_per_ip: usize,
    /// Most registrations in one namespace at a time.
    pub max_per_namespace: usize,
    /// The shortest that a client may ask for; at least a second.
    pub min_ttl: Duration,
    /// The longest that a client may ask for.
    pub max_ttl: Duration,
    /// The longest record, in bytes.
    pub max_record: usize,
    /// Most registrations in one answer.
    pub max_page: usize,
    /// How often one peer may ask for anything.
    pub request_rate_per_peer: Rate,
    /// How often peers from one IPv4 address or IPv6 /64 may ask for anything.
    pub request_rate_per_ip: Rate,
}

impl Limits {
    /// No limit but on the lifetimes and the size of records and answers, for tests and measurements.
    pub const fn unlimited() -> Self {
        Self {
            max_registrations: 0,
            max_per_peer: 0,
            max_per_ip: 0,
            max_per_namespace: 0,
            request_rate_per_peer: Rate::UNLIMITED,
            request_rate_per_ip: Rate::UNLIMITED,
            ..Self::public()
        }
    }

    /// For a point that anybody may use, which is the default.
    pub const fn public() -> Self {
        Self {
            max_registrations: 100_000,
            max_per_peer: 1000,
            max_per_ip: 10_000,
            max_per_namespace: 50_000,
            min_ttl: MIN_TTL,
            max_ttl: MAX_TTL,
            max_record: 8 << 10,
            max_page: MAX_PAGE,
            request_rate_per_peer: Rate { burst: 1000, every: Duration::from_millis(100) },
            request_rate_per_ip: Rate { burst: 10_000, every: Duration::from_millis(10) },
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::public()
    }
}

/// What the point did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A peer can be found in a namespace.
    Registered {
        /// The peer.
        peer: PeerId,
        /// Where it can be found.
        namespace: String,
        /// For how long.
        ttl: Duration,
        /// Whether it could be found there before.
        refreshed: bool,
    },
    /// A peer's request was refused.
    Refused {
        /// The peer.
        peer: PeerId,
        /// What it wanted: `register` or `discover`.
        request: &'static str,
        /// The namespace, if it was named and can be one.
        namespace: Option<String>,
        /// What the peer was told.
        status: Status,
        /// The limit or rule that said no.
        why: &'static str,
    },
    /// A peer does not want to be found any more.
    Unregistered {
        /// The peer.
        peer: PeerId,
        /// Where it could be found.
        namespace: String,
    },
    /// A registration's time is up.
    Expired {
        /// Whose.
        peer: PeerId,
        /// Where it could be found.
        namespace: String,
    },
    /// What was kept from before has been loaded; requests had to wait until now.
    Loaded {
        /// How many registrations are still good.
        registrations: usize,
    },
    /// The store failed. If it failed to load, the point is out of service until it has tried that again with success, 1 s
    /// to 60 s later; otherwise it refuses what it could not write and takes nothing for a second.
    StoreFailed {
        /// The store's words.
        error: String,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registered { peer, namespace, ttl, refreshed } => {
                let what = if *refreshed { "refreshed" } else { "registered" };
                write!(f, "{what} {peer} in {namespace:?} for {} s", ttl.as_secs())
            }
            Self::Refused { peer, request, namespace, status, why } => {
                let place = namespace.as_ref().map(|name| format!(" in {name:?}")).unwrap_or_default();
                write!(f, "refused to {request}{place} for {peer}: {status}, {why}")
            }
            Self::Unregistered { peer, namespace } => write!(f, "unregistered {peer} in {namespace:?}"),
            Self::Expired { peer, namespace } => write!(f, "registration of {peer} in {namespace:?} expired"),
            Self::Loaded { registrations } => write!(f, "loaded {registrations} registrations"),
            Self::StoreFailed { error } => write!(f, "storing: {error}"),
        }
    }
}
