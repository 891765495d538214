//! What a relay is made of: its limits, and what the embedder knows and decides.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

use super::super::limits::{Asn, RelayLimits};
use crate::errors::{InvalidConfig, require};

/// How to be a relay.
#[derive(Clone, Debug)]
pub struct Config {
    /// What it allows.
    pub limits: RelayLimits,
    /// For how long a reservation is good if it is not renewed; at least a second.
    pub reservation_ttl: Duration,
    /// How long a peer may take to say what it wants, and a target to accept a circuit; at least a second.
    pub timeout: Duration,
    /// Which autonomous system an address is in; `None` is not to know of any.
    pub asn: Option<AsnLookup>,
    /// What the embedder allows; `None` allows all.
    pub acl: Option<Acl>,
}

impl Default for Config {
    fn default() -> Self {
        RelayLimits::default().into()
    }
}

impl Config {
    /// Finds the first thing that makes no sense.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        const SECOND: Duration = Duration::from_secs(1);
        const AT_LEAST: &str = "must be at least a second";
        require(self.reservation_ttl >= SECOND, "hop.reservation_ttl", AT_LEAST)?;
        require(self.timeout >= SECOND, "hop.timeout", AT_LEAST)
    }
}

impl From<RelayLimits> for Config {
    fn from(limits: RelayLimits) -> Self {
        Self {
            limits,
            reservation_ttl: Duration::from_secs(3600),
            timeout: Duration::from_secs(30),
            asn: None,
            acl: None,
        }
    }
}

/// The embedder's knowledge of autonomous systems. Must answer at once and always the same.
#[derive(Clone)]
pub struct AsnLookup(Arc<dyn Fn(IpAddr) -> Option<Asn> + Send + Sync>);

impl AsnLookup {
    /// Asks `lookup`.
    pub fn new(lookup: impl Fn(IpAddr) -> Option<Asn> + Send + Sync + 'static) -> Self {
        Self(Arc::new(lookup))
    }

    pub(super) fn find(&self, ip: IpAddr) -> Option<Asn> {
        (self.0)(ip)
    }
}

impl fmt::Debug for AsnLookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AsnLookup")
    }
}

/// The embedder's decision on who may reserve and who may reach whom. Must answer at once.
#[derive(Clone)]
pub struct Acl(Arc<dyn Fn(&Ask<'_>) -> bool + Send + Sync>);

/// What the embedder decides on. Peers are who their connections prove them to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ask<'a> {
    /// A peer wants a reservation, or its reservation renewed.
    Reserve {
        /// The peer.
        peer: PeerId,
        /// Where it is.
        address: &'a Multiaddr,
    },
    /// A peer wants a circuit.
    Connect {
        /// The peer.
        source: PeerId,
        /// Where it is.
        address: &'a Multiaddr,
        /// To whom.
        target: PeerId,
    },
}

impl Acl {
    /// Allows what `allows` says yes to; others get PERMISSION_DENIED.
    pub fn new(allows: impl Fn(&Ask<'_>) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(allows))
    }

    pub(super) fn allows(&self, ask: &Ask<'_>) -> bool {
        (self.0)(ask)
    }
}

impl fmt::Debug for Acl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acl")
    }
}
