//! Why a point says no: each reason with what the client is told, its words, and its counter.

use std::borrow::Cow;

use super::{super::Status, config::Limits};

/// Why a point says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The peer asks too often.
    RatePeer,
    /// The IP address asks too often.
    RateIp,
    /// The namespace is missing or too long.
    Namespace,
    /// The time asked for is below the minimum.
    TtlShort,
    /// The time asked for is above the maximum.
    TtlLong,
    /// The record is missing, too long or none.
    Record,
    /// The signature is not the signer's, or the signer not the record's peer.
    Signature,
    /// The record is older than the one that the peer gave before.
    OldRecord,
    /// Unsigned records are not taken.
    Unsigned,
    /// The record is another peer's.
    Foreign,
    /// Nobody is reached at any of the record's addresses.
    Hostless,
    /// There are too many registrations.
    Full,
    /// The peer has too many registrations.
    PeerFull,
    /// There are too many registrations from the IP address.
    IpFull,
    /// There are too many registrations in the namespace.
    NamespaceFull,
    /// The cookie is not one of ours for this namespace.
    Cookie,
    /// The store could not be read at the start.
    OutOfService,
    /// The store does not keep up.
    StoreBehind,
    /// The store failed.
    StoreFailed,
    /// Too much that was sent has not been taken yet.
    Unsent,
}

impl Refusal {
    /// What the client is told.
    pub(super) fn status(self) -> Status {
        self.row().0
    }

    /// The limit or rule in a few words.
    pub(super) fn why(self) -> &'static str {
        self.row().1
    }

    /// What the client reads beside the status: the rule, with its number where that helps to ask better.
    pub(super) fn text(self, limits: &Limits) -> Cow<'static, str> {
        match self {
            Self::TtlShort => {
                format!("{}, at least {} s", self.why(), limits.min_ttl.as_secs().max(1)).into()
            }
            Self::TtlLong => format!("{}, at most {} s", self.why(), limits.max_ttl.as_secs()).into(),
            _ => self.why().into(),
        }
    }

    /// The counter that counts it.
    pub(super) fn counter(self) -> &'static str {
        self.row().2
    }

    #[rustfmt::skip]
    fn row(self) -> (Status, &'static str, &'static str) {
        use Status::{InvalidCookie, InvalidNamespace, InvalidSignedPeerRecord as Record, InvalidTtl, NotAuthorized, Unavailable};
        match self {
            Self::RatePeer => (Unavailable, "asked too often", "rendezvous.refused.rate_peer"),
            Self::RateIp => (Unavailable, "asked too often from the IP address", "rendezvous.refused.rate_ip"),
            Self::Namespace => (InvalidNamespace, "a namespace has 1 to 255 bytes", "rendezvous.refused.namespace"),
            Self::TtlShort => (InvalidTtl, "the time is too short", "rendezvous.refused.ttl_short"),
            Self::TtlLong => (InvalidTtl, "the time is too long", "rendezvous.refused.ttl_long"),
            Self::Record => (Record, "not a peer record", "rendezvous.refused.record"),
            Self::Signature => (Record, "not signed by its peer", "rendezvous.refused.signature"),
            Self::OldRecord => (Record, "older than the record before", "rendezvous.refused.old_record"),
            Self::Unsigned => (Record, "not signed", "rendezvous.refused.unsigned"),
            Self::Foreign => (NotAuthorized, "another peer's record", "rendezvous.refused.foreign"),
            Self::Hostless => (Record, "no host is at any of its addresses", "rendezvous.refused.hostless"),
            Self::Full => (Unavailable, "too many registrations", "rendezvous.refused.full"),
            Self::PeerFull => (Unavailable, "too many registrations of the peer", "rendezvous.refused.peer_full"),
            Self::IpFull => (Unavailable, "too many registrations from the IP address", "rendezvous.refused.ip_full"),
            Self::NamespaceFull => (Unavailable, "too many registrations in the namespace", "rendezvous.refused.namespace_full"),
            Self::Cookie => (InvalidCookie, "not a cookie of this point for this namespace", "rendezvous.refused.cookie"),
            Self::OutOfService => (Unavailable, "out of service", "rendezvous.refused.out_of_service"),
            Self::StoreBehind => (Unavailable, "the store does not keep up", "rendezvous.refused.store_behind"),
            Self::StoreFailed => (Unavailable, "the store failed", "rendezvous.refused.store_failed"),
            Self::Unsent => (Unavailable, "too many answers wait to be read", "rendezvous.refused.unsent"),
        }
    }
}
