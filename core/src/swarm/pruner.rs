//! Who goes when there are too many connections.
//!
//! Above the high water mark, peers are closed until the low one is reached: those with the least value first, then those with
//! the fewest streams, then those who called us before those whom we called, then the oldest. Peers are judged and closed as
//! a whole, not one connection of several. Nobody is closed who is protected, whom the allow list names, or who has been
//! connected for less than the grace period.

use std::time::Duration;

use libp2p_identity::PeerId;

use super::config::{InvalidConfig, require};
use crate::time::Instant;

/// When there are too many connections, and how many stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrunerConfig {
    /// Connections that are left after pruning. 100.
    pub low_water: usize,
    /// Connections above which pruning begins; `usize::MAX` never prunes. 300.
    pub high_water: usize,
    /// How long a new peer is spared, counted from the oldest of its connections. 20 s.
    pub grace: Duration,
    /// How long nothing is pruned after pruning, so that peers that come back at once are not thrown out as fast as they
    /// come. 10 s, as in go-libp2p.
    pub silence: Duration,
}

impl Default for PrunerConfig {
    fn default() -> Self {
        Self {
            low_water: 100,
            high_water: 300,
            grace: Duration::from_secs(20),
            silence: Duration::from_secs(10),
        }
    }
}

impl PrunerConfig {
    /// Nobody is pruned.
    pub fn never() -> Self {
        Self { low_water: usize::MAX, high_water: usize::MAX, ..Self::default() }
    }

    pub(super) fn validate(&self) -> Result<(), InvalidConfig> {
        require(self.low_water <= self.high_water, "pruner.low_water", "must not be above pruner.high_water")
    }
}

/// How long nobody is looked at after a look at which nobody could be pruned: peers that come and go must not cause one each.
const REST: Duration = Duration::from_secs(1);

/// A connected peer, as far as pruning goes. In the order in which peers are pruned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// The value of its tags.
    pub value: i64,
    /// Its streams.
    pub streams: usize,
    /// Whether we opened one of its connections.
    pub outbound: bool,
    /// When the oldest of its connections was established.
    pub since: Instant,
    /// The peer.
    pub peer: PeerId,
    /// Its connections.
    pub connections: usize,
    /// Whether it is spared whatever its worth.
    pub spared: bool,
}

/// Watches the number of connections.
#[derive(Debug)]
pub struct Pruner {
    config: PrunerConfig,
    last: Option<Instant>,
    /// How often all peers were looked at, and until when not to after nobody could be pruned.
    looks: u64,
    rest: Option<Instant>,
    /// When to look again, while there are too many.
    timer: Option<Instant>,
}

impl Pruner {
    /// Nothing has been pruned yet.
    pub fn new(config: PrunerConfig) -> Self {
        Self { config, last: None, looks: 0, rest: None, timer: None }
    }

    /// Whether with so many connections it is time to prune.
    pub fn is_due(&self, now: Instant, connections: usize) -> bool {
        connections > self.config.high_water
            && self.timer.is_none_or(|at| at <= now)
            && self.not_before().is_none_or(|until| until <= now)
    }

    /// There are so many connections: looks later if there are too many and it is not time yet, and need not look if
    /// there are not.
    pub fn observe(&mut self, connections: usize) {
        if connections <= self.config.high_water {
            self.timer = None;
        } else if self.timer.is_none() {
            self.timer = self.not_before();
        }
    }

    /// A connection is new, of a peer that is not spared. If there was nobody to prune before, there may be when the grace of
    /// this one is over: nobody has to be looked at before.
    pub fn inserted(&mut self, now: Instant) {
        if self.timer.is_some() {
            let ends = now + self.config.grace;
            let at = self.not_before().map_or(ends, |until| until.max(ends));
            self.timer = self.timer.map(|timer| timer.min(at));
        }
    }

    /// Something has changed that lets a peer go that was spared.
    pub fn reconsider(&mut self) {
        self.timer = self.not_before().filter(|_| self.timer.is_some());
    }

    /// Chooses who goes, in order. If that is not enough, it is time again when the next peer's grace is over.
    pub fn prune(&mut self, now: Instant, connections: usize, mut candidates: Vec<Candidate>) -> Vec<PeerId> {
        self.looks += 1;
        let mut surplus = connections.saturating_sub(self.config.low_water);
        let mut left = connections;
        candidates.sort_unstable();
        let mut pruned = Vec::new();
        let mut next_grace: Option<Instant> = None;
        for candidate in candidates.into_iter().filter(|candidate| !candidate.spared) {
            let grace_ends = candidate.since + self.config.grace;
            if grace_ends > now {
                next_grace = Some(next_grace.map_or(grace_ends, |at| at.min(grace_ends)));
            } else if surplus > 0 {
                surplus = surplus.saturating_sub(candidate.connections);
                left -= candidate.connections.min(left);
                pruned.push(candidate.peer);
            }
        }
        if pruned.is_empty() {
            self.rest = Some(now + REST);
        } else {
            self.last = Some(now);
        }
        // With nobody in grace only a change can help, which comes with a new connection or with `reconsider`.
        let again = next_grace.map(|at| self.not_before().map_or(at, |until| until.max(at)));
        self.timer = if left > self.config.high_water { again.or(Some(Instant::FAR_FUTURE)) } else { None };
        pruned
    }

    /// When to look again.
    pub fn deadline(&self) -> Option<Instant> {
        self.timer.filter(|at| *at < Instant::FAR_FUTURE)
    }

    /// When peers were last pruned.
    pub fn last(&self) -> Option<Instant> {
        self.last
    }

    /// How it was configured.
    pub fn config(&self) -> &PrunerConfig {
        &self.config
    }

    /// How often all peers were looked at, which takes as long as there are many.
    pub fn looks(&self) -> u64 {
        self.looks
    }

    fn not_before(&self) -> Option<Instant> {
        self.last.map(|last| last + self.config.silence).max(self.rest)
    }
}

#[cfg(test)]
mod tests;
