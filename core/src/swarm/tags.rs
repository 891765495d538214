//! What peers are worth to us, and who must stay: tags with values, some of which decay, and protection.
//!
//! Tags of a peer go with its last connection, or a grace period after they were set if it never had one. Protection, and
//! the tags of whoever is protected, outlive connections: a relay that we need is as dear when it comes back.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use libp2p_identity::PeerId;

use crate::time::Instant;

/// The name of a tag, or of a reason to protect.
pub type Tag = Cow<'static, str>;

/// A peer that we want to stay connected to.
pub const KEEP_ALIVE: &str = "keep-alive";
/// A peer by which we find others.
pub const BOOTSTRAP: &str = "bootstrap";
/// A relay that we use.
pub const RELAY: &str = "relay";
/// A peer that holds a reservation with us.
pub const RESERVATION: &str = "relay-reservation";
/// A rendezvous point that we use.
pub const RENDEZVOUS: &str = "rendezvous";
/// A peer of the routing table.
pub const DHT: &str = "dht";
/// A peer of a mesh.
pub const PUBSUB: &str = "pubsub";
/// A peer with whom blocks are exchanged.
pub const BITSWAP: &str = "bitswap";
/// A peer that the application values.
pub const APPLICATION: &str = "application";
/// A peer with streams under way.
pub const ACTIVE_STREAMS: &str = "active-streams";

/// How a tag loses its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Decay {
    /// Not at all.
    #[default]
    None,
    /// By `step` towards zero each time `every` has passed.
    Linear {
        /// After how long.
        every: Duration,
        /// How much.
        step: i64,
    },
    /// By half, rounded towards zero, each time `every` has passed.
    Halving {
        /// After how long.
        every: Duration,
    },
}

impl Decay {
    /// What is left of `value` after `age`.
    fn after(self, value: i64, age: Duration) -> i64 {
        let times = |every: Duration| age.as_nanos().checked_div(every.as_nanos()).unwrap_or(0);
        match self {
            Self::None => value,
            Self::Linear { every, step } => {
                let lost =
                    u64::try_from(times(every)).unwrap_or(u64::MAX).saturating_mul(step.unsigned_abs());
                let left = value.unsigned_abs().saturating_sub(lost);
                // Not above what it was, so it fits.
                value.signum() * i64::try_from(left).unwrap_or(i64::MAX)
            }
            Self::Halving { every } => {
                let times = u32::try_from(times(every)).unwrap_or(u32::MAX);
                let left = value.unsigned_abs().checked_shr(times).unwrap_or(0);
                value.signum() * i64::try_from(left).unwrap_or(i64::MAX)
            }
        }
    }

    /// The part of `age` in which nothing decayed yet, which a value that is set anew keeps.
    fn rest(self, age: Duration) -> Duration {
        let every = match self {
            Self::None => return Duration::ZERO,
            Self::Linear { every, .. } | Self::Halving { every } => every,
        };
        let nanos = age.as_nanos().checked_rem(every.as_nanos()).unwrap_or(0);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// What is known of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagInfo {
    /// When it was first tagged, protected or connected.
    pub first_seen: Instant,
    /// The sum of its tags.
    pub value: i64,
    /// Its tags.
    pub tags: BTreeMap<Tag, i64>,
    /// Why it is protected, if it is.
    pub protections: BTreeSet<Tag>,
    /// Its connections.
    pub connections: usize,
    /// Whether it has never been connected.
    pub temporary: bool,
}

#[derive(Debug)]
struct Peer {
    first_seen: Instant,
    tags: BTreeMap<Tag, Value>,
    protections: BTreeSet<Tag>,
    connections: usize,
    temporary: bool,
}

#[derive(Clone, Copy, Debug)]
struct Value {
    value: i64,
    at: Instant,
    decay: Decay,
}

impl Value {
    fn now(&self, now: Instant) -> i64 {
        self.decay.after(self.value, now.saturating_duration_since(self.at))
    }
}

/// What all peers are worth.
#[derive(Debug, Default)]
pub struct Tags {
    grace: Duration,
    peers: BTreeMap<PeerId, Peer>,
    /// Peers that have never been connected, by when they were first seen.
    temporary: BTreeSet<(Instant, PeerId)>,
    /// A connected peer has lost its last protection.
    released: bool,
}

impl Tags {
    /// Peers that are not connected within `grace` lose their tags.
    pub fn new(grace: Duration) -> Self {
        Self { grace, ..Self::default() }
    }

    /// Sets a tag.
    pub fn tag(&mut self, now: Instant, peer: PeerId, tag: impl Into<Tag>, value: i64) {
        self.tag_decaying(now, peer, tag, value, Decay::None);
    }

    /// Sets a tag that loses its value.
    pub fn tag_decaying(
        &mut self,
        now: Instant,
        peer: PeerId,
        tag: impl Into<Tag>,
        value: i64,
        decay: Decay,
    ) {
        self.entry(now, peer).tags.insert(tag.into(), Value { value, at: now, decay });
    }

    /// Sets a tag to what `change` makes of its value now, which is 0 if there is none. It decays as before.
    pub fn upsert(
        &mut self,
        now: Instant,
        peer: PeerId,
        tag: impl Into<Tag>,
        change: impl FnOnce(i64) -> i64,
    ) {
        let none = Value { value: 0, at: now, decay: Decay::None };
        let tag = self.entry(now, peer).tags.entry(tag.into()).or_insert(none);
        let age = now.saturating_duration_since(tag.at);
        tag.value = change(tag.now(now));
        let since = now.as_nanos().saturating_sub(tag.decay.rest(age).as_nanos() as u64);
        tag.at = Instant::from_nanos(since);
    }

    /// Adds to a tag, and keeps it within `min` and `max`.
    pub fn bump(
        &mut self,
        now: Instant,
        peer: PeerId,
        tag: impl Into<Tag>,
        delta: i64,
        (min, max): (i64, i64),
    ) {
        self.upsert(now, peer, tag, |value| value.saturating_add(delta).min(max).max(min));
    }

    /// Removes a tag. Returns whether it was there.
    pub fn untag(&mut self, peer: &PeerId, tag: &str) -> bool {
        let was_there = self.peers.get_mut(peer).is_some_and(|peer| peer.tags.remove(tag).is_some());
        self.forget_unused(peer);
        was_there
    }

    /// Removes all tags of a peer; protection stays.
    pub fn clear(&mut self, peer: &PeerId) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.tags.clear();
        }
        self.forget_unused(peer);
    }

    /// The value of a tag, 0 if there is none.
    pub fn tag_value(&self, now: Instant, peer: &PeerId, tag: &str) -> i64 {
        self.peers.get(peer).and_then(|peer| peer.tags.get(tag)).map_or(0, |value| value.now(now))
    }

    /// The sum of all tags of a peer.
    pub fn value(&self, now: Instant, peer: &PeerId) -> i64 {
        let tags = self.peers.get(peer).into_iter().flat_map(|peer| peer.tags.values());
        tags.fold(0, |sum, value| sum.saturating_add(value.now(now)))
    }

    /// All that is known of a peer.
    pub fn info(&self, now: Instant, peer: &PeerId) -> Option<TagInfo> {
        let known = self.peers.get(peer)?;
        Some(TagInfo {
            first_seen: known.first_seen,
            value: self.value(now, peer),
            tags: known.tags.iter().map(|(tag, value)| (tag.clone(), value.now(now))).collect(),
            protections: known.protections.clone(),
            connections: known.connections,
            temporary: known.temporary,
        })
    }

    /// Spares a peer from pruning, for this reason, until [`Tags::unprotect`].
    pub fn protect(&mut self, now: Instant, peer: PeerId, why: impl Into<Tag>) {
        self.entry(now, peer).protections.insert(why.into());
    }

    /// Takes back one reason to spare a peer. Returns whether another is left.
    pub fn unprotect(&mut self, peer: &PeerId, why: &str) -> bool {
        if let Some(peer) = self.peers.get_mut(peer) {
            let was_there = peer.protections.remove(why);
            self.released |= was_there && peer.protections.is_empty() && peer.connections > 0;
        }
        let is_left = self.is_protected(peer);
        self.forget_unused(peer);
        is_left
    }

    /// Whether a connected peer has lost its last protection since this was last asked.
    pub(crate) fn take_released(&mut self) -> bool {
        std::mem::take(&mut self.released)
    }

    /// Whether there is any reason to spare a peer.
    pub fn is_protected(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|peer| !peer.protections.is_empty())
    }

    /// Whether a peer is spared for this reason.
    pub fn is_protected_for(&self, peer: &PeerId, why: &str) -> bool {
        self.peers.get(peer).is_some_and(|peer| peer.protections.contains(why))
    }

    /// All peers that are spared.
    pub fn protected(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.peers.iter().filter(|(_, peer)| !peer.protections.is_empty()).map(|(peer, _)| *peer)
    }

    /// A connection to a peer is there.
    pub fn connected(&mut self, now: Instant, peer: PeerId) {
        let entry = self.entry(now, peer);
        entry.connections += 1;
        let first_seen = entry.first_seen;
        if std::mem::take(&mut entry.temporary) {
            self.temporary.remove(&(first_seen, peer));
        }
    }

    /// A connection to a peer is gone.
    pub fn disconnected(&mut self, peer: &PeerId) {
        let Some(known) = self.peers.get_mut(peer) else { return };
        known.connections = known.connections.saturating_sub(1);
        if known.connections == 0 && known.protections.is_empty() {
            known.tags.clear();
        }
        self.forget_unused(peer);
    }

    /// Number of peers of whom anything is known.
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether nothing is known of anybody.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    fn entry(&mut self, now: Instant, peer: PeerId) -> &mut Peer {
        self.forget_late(now);
        self.peers.entry(peer).or_insert_with(|| {
            self.temporary.insert((now, peer));
            Peer {
                first_seen: now,
                tags: BTreeMap::new(),
                protections: BTreeSet::new(),
                connections: 0,
                temporary: true,
            }
        })
    }

    /// Forgets whoever was tagged and never came.
    fn forget_late(&mut self, now: Instant) {
        while let Some((since, peer)) = self.temporary.first().copied() {
            if now.saturating_duration_since(since) <= self.grace {
                return;
            }
            self.temporary.pop_first();
            if let Some(known) = self.peers.get_mut(&peer) {
                known.temporary = false;
                if known.protections.is_empty() {
                    known.tags.clear();
                }
            }
            self.forget_unused(&peer);
        }
    }

    fn forget_unused(&mut self, peer: &PeerId) {
        let unused = |known: &Peer| {
            known.connections == 0
                && known.protections.is_empty()
                && (known.tags.is_empty() || !known.temporary)
        };
        if self.peers.get(peer).is_some_and(unused)
            && let Some(known) = self.peers.remove(peer)
        {
            self.temporary.remove(&(known.first_seen, *peer));
        }
    }
}

#[cfg(test)]
mod tests;
