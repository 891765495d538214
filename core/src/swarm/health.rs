//! How healthy connections are, by pings that are really sent and by streams that fail, and which of them are to be
//! replaced. The formulas and defaults are py-libp2p's; unlike there, a connection with open streams is pinged as well,
//! because those may be the ones that hang.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::{InvalidConfig, config::require};
use crate::{
    ids::ConnectionId,
    time::{Deadline, Instant, Timers},
};

/// When connections are looked at, and what is wrong with them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HealthConfig {
    /// Whether connections are pinged for their health, and replaced. Off unless asked for.
    pub enabled: bool,
    /// How often, each at a time of its own: after it was made, and again and again.
    pub interval: Duration,
    /// Connections younger than this are left alone.
    pub warm_up: Duration,
    /// What the round-trip time, the share of pings answered and the lack of errors count for in the score.
    pub weights: [f64; 3],
    /// A score below this is unhealthy.
    pub min_score: f64,
    /// A score below this is so bad that a peer's only connection is replaced.
    pub critical_score: f64,
    /// A round-trip time above this is unhealthy.
    pub max_latency: Duration,
    /// A share of answered pings below this is unhealthy.
    pub min_success: f64,
    /// More failed streams than this are unhealthy.
    pub max_failed_streams: u32,
    /// Unhealthy so many times in a row is to be replaced.
    pub patience: u32,
    /// A peer with no more connections than this has none replaced unless that is critical.
    pub min_connections_per_peer: usize,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            interval: Duration::from_secs(60),
            warm_up: Duration::from_secs(5),
            weights: [0.4, 0.4, 0.2],
            min_score: 0.3,
            critical_score: 0.1,
            max_latency: Duration::from_secs(1),
            min_success: 0.7,
            max_failed_streams: 5,
            patience: 3,
            min_connections_per_peer: 1,
        }
    }
}

impl HealthConfig {
    /// Finds the first thing that makes no sense.
    pub(super) fn validate(&self) -> Result<(), InvalidConfig> {
        let is_share = |share: f64| (0.0..=1.0).contains(&share);
        require(!self.interval.is_zero(), "health.interval", "must not be zero")?;
        require(!self.max_latency.is_zero(), "health.max_latency", "must not be zero")?;
        require(self.weights.into_iter().all(is_share), "health.weights", "must be shares, from 0 to 1")?;
        require(is_share(self.min_score), "health.min_score", "must be a share, from 0 to 1")?;
        require(is_share(self.critical_score), "health.critical_score", "must be a share, from 0 to 1")?;
        require(is_share(self.min_success), "health.min_success", "must be a share, from 0 to 1")?;
        require(self.min_connections_per_peer >= 1, "health.min_connections_per_peer", "must be at least 1")
    }
}

/// The weight of the newest ping in the share that was answered.
const ALPHA: f64 = 0.3;
/// Errors further back count no more, and no more than so many are remembered.
const MEMORY: Duration = Duration::from_secs(3600);
const MAX_ERRORS: usize = 100;
/// The round-trip time at which nothing is left of its part of the score.
const WORST_LATENCY: f64 = 1.0;

/// What is known of one connection.
#[derive(Clone, Debug)]
struct Record {
    since: Instant,
    /// When it is looked at next.
    next: Option<Instant>,
    latency: Option<Duration>,
    success: f64,
    failed_streams: u32,
    errors: VecDeque<Instant>,
    /// Looks in a row at which it was unhealthy.
    unhealthy: u32,
    last_chosen: u64,
}

/// The health of one connection, as it was when it was looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct HealthRecord {
    /// From 0 to 1: latency, answers and errors, weighted ([`HealthConfig::weights`]).
    pub score: f64,
    /// The round-trip time of the last ping that was answered, if any was.
    pub latency: Option<Duration>,
    /// The share of pings that were answered, from 0 to 1; the latest weigh most.
    pub success: f64,
    /// Streams that failed for reasons that the connection may be to blame for.
    pub failed_streams: u32,
    /// Failed pings and streams within the last hour, 100 at most.
    pub recent_errors: usize,
    /// Looks in a row at which it was unhealthy; at [`HealthConfig::patience`] it is replaced.
    pub unhealthy_looks: u32,
    /// When it is pinged and looked at next; `None` unless [`HealthConfig::enabled`] is set.
    pub next_look: Option<Instant>,
}

/// What is to be known of a connection besides its health when it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation {
    /// The connection.
    pub connection: ConnectionId,
    /// Whether streams are open on it.
    pub is_used: bool,
    /// Whether it must not be closed.
    pub is_protected: bool,
    /// How many connections to the same peer there are.
    pub siblings: usize,
}

/// The health of connections.
#[derive(Debug)]
pub struct Health {
    config: HealthConfig,
    records: BTreeMap<ConnectionId, Record>,
    looks: Timers<ConnectionId>,
    /// Grows with each choice between connections.
    choices: u64,
}

impl Health {
    /// No connection yet.
    pub fn new(config: HealthConfig) -> Self {
        Self { config, records: BTreeMap::new(), looks: Timers::default(), choices: 0 }
    }

    /// A connection is there.
    pub fn connected(&mut self, now: Instant, connection: ConnectionId) {
        let next = self.config.enabled.then(|| now + self.config.interval);
        let record = Record {
            since: now,
            next,
            latency: None,
            success: 1.0,
            failed_streams: 0,
            errors: VecDeque::new(),
            unhealthy: 0,
            last_chosen: 0,
        };
        self.records.insert(connection, record);
        if let Some(at) = next {
            self.looks.set(at, connection);
        }
    }

    /// A connection is gone.
    pub fn disconnected(&mut self, connection: ConnectionId) {
        let record = self.records.remove(&connection);
        if let Some(at) = record.and_then(|record| record.next) {
            self.looks.clear(at, connection);
        }
    }

    /// A ping was answered within `rtt`, or not at all.
    pub fn pinged(&mut self, now: Instant, connection: ConnectionId, rtt: Option<Duration>) {
        let Some(record) = self.records.get_mut(&connection) else { return };
        record.success = (1.0 - ALPHA) * record.success + if rtt.is_some() { ALPHA } else { 0.0 };
        match rtt {
            Some(rtt) => record.latency = Some(rtt),
            None => record.error(now),
        }
    }

    /// A stream of ours was lost to a fault that its connection may be to blame for.
    pub fn stream_failed(&mut self, now: Instant, connection: ConnectionId) {
        let Some(record) = self.records.get_mut(&connection) else { return };
        record.failed_streams = record.failed_streams.saturating_add(1);
        record.error(now);
    }

    /// How healthy a connection is, from 0 to 1; one of which nothing is known is healthy.
    pub fn score(&self, now: Instant, connection: ConnectionId) -> f64 {
        self.records.get(&connection).map_or(1.0, |record| record.score(now, &self.config))
    }

    /// What is known of a connection; `None` if it is gone.
    pub fn record(&self, now: Instant, connection: ConnectionId) -> Option<HealthRecord> {
        let record = self.records.get(&connection)?;
        Some(HealthRecord {
            score: record.score(now, &self.config),
            latency: record.latency,
            success: record.success,
            failed_streams: record.failed_streams,
            recent_errors: record.recent_errors(now),
            unhealthy_looks: record.unhealthy,
            next_look: record.next,
        })
    }

    /// A connection was chosen for a stream.
    pub fn chose(&mut self, connection: ConnectionId) {
        self.choices += 1;
        if let Some(record) = self.records.get_mut(&connection) {
            record.last_chosen = self.choices;
        }
    }

    /// By which of all choices a connection was last chosen; 0 is never.
    pub fn last_chosen(&self, connection: ConnectionId) -> u64 {
        self.records.get(&connection).map_or(0, |record| record.last_chosen)
    }

    /// When to [`look`](Self::look).
    pub fn deadline(&self) -> Option<Deadline> {
        self.looks.next().map(|at| Deadline::new(at, "connection health"))
    }

    /// Takes a connection that it is time to [`look`](Self::look) at, and to ping.
    pub fn pop_due(&mut self, now: Instant) -> Option<ConnectionId> {
        let (_, connection) = self.looks.pop_due(now)?;
        let next = now + self.config.interval;
        if let Some(record) = self.records.get_mut(&connection) {
            record.next = Some(next);
            self.looks.set(next, connection);
        }
        Some(connection)
    }

    /// Looks at a connection, by what was heard since the last time. Returns whether it is to be replaced: another one is to
    /// be made first.
    pub fn look(&mut self, now: Instant, situation: &Situation) -> bool {
        let config = self.config;
        self.is_to_be_replaced(now, situation, &config)
    }

    fn is_to_be_replaced(&mut self, now: Instant, situation: &Situation, config: &HealthConfig) -> bool {
        let Some(record) = self.records.get_mut(&situation.connection) else { return false };
        if now.saturating_duration_since(record.since) < config.warm_up {
            return false;
        }
        let score = record.score(now, config);
        let is_unhealthy = score < config.min_score
            || record.latency.is_some_and(|latency| latency > config.max_latency)
            || record.success < config.min_success
            || record.failed_streams > config.max_failed_streams;
        record.unhealthy = if is_unhealthy { record.unhealthy.saturating_add(1) } else { 0 };
        if record.unhealthy < config.patience || situation.is_used || situation.is_protected {
            return false;
        }
        // A share that is averaged never quite reaches zero: this is seven pings in a row without an answer.
        let is_critical = score < config.critical_score || record.success < ALPHA * ALPHA;
        if situation.siblings <= config.min_connections_per_peer && !is_critical {
            return false;
        }
        record.unhealthy = 0;
        true
    }

    /// Number of connections watched.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether no connection is watched.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

impl Record {
    fn error(&mut self, now: Instant) {
        if self.errors.len() >= MAX_ERRORS {
            self.errors.pop_front();
        }
        self.errors.push_back(now);
    }

    fn recent_errors(&self, now: Instant) -> usize {
        self.errors.iter().filter(|at| now.saturating_duration_since(**at) < MEMORY).count()
    }

    fn score(&self, now: Instant, config: &HealthConfig) -> f64 {
        let [latency, success, stability] = config.weights;
        let slowness = self.latency.map_or(0.0, |rtt| rtt.as_secs_f64() / WORST_LATENCY);
        let recent = self.recent_errors(now);
        let hours = now.saturating_duration_since(self.since).as_secs_f64() / 3600.0;
        let unrest = 0.1 * recent as f64 / hours.max(1.0);
        latency * (1.0 - slowness).max(0.0)
            + success * self.success
            + stability * (1.0 - unrest).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Id;

    const MS: Duration = Duration::from_millis(1);

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    fn one() -> ConnectionId {
        ConnectionId::from_parts(1, 0)
    }

    fn watched() -> Health {
        let mut health = Health::new(HealthConfig { enabled: true, ..HealthConfig::default() });
        health.connected(at(0), one());
        health
    }

    fn idle(siblings: usize) -> Situation {
        Situation { connection: one(), is_used: false, is_protected: false, siblings }
    }

    fn look_at(health: &mut Health, seconds: u64, situation: &Situation) -> Vec<ConnectionId> {
        let is_sick = health.look(at(seconds), situation);
        is_sick.then_some(situation.connection).into_iter().collect()
    }

    #[test]
    fn each_connection_is_looked_at_a_minute_after_it_was_made_and_each_minute_then() {
        let mut health = Health::new(HealthConfig { enabled: true, ..HealthConfig::default() });
        let nth = |n: u64| ConnectionId::from_parts(n as u32, 0);
        (0..10).for_each(|n| health.connected(at(n), nth(n)));
        for minute in 1..4 {
            for n in 0..10 {
                let now = at(60 * minute + n);
                assert_eq!(health.deadline().map(|deadline| deadline.at), Some(now));
                assert_eq!((health.pop_due(now), health.pop_due(now)), (Some(nth(n)), None));
            }
        }
        (0..10).for_each(|n| health.disconnected(nth(n)));
        assert_eq!(health.deadline(), None);
    }

    #[test]
    fn the_score_follows_the_formula() {
        let mut health = watched();
        assert!((health.score(at(1), one()) - 1.0).abs() < 1e-9);
        health.pinged(at(1), one(), Some(250 * MS));
        assert!((health.score(at(1), one()) - (0.4 * 0.75 + 0.4 + 0.2)).abs() < 1e-9);
        health.pinged(at(2), one(), None);
        assert!((health.score(at(2), one()) - (0.4 * 0.75 + 0.4 * 0.7 + 0.2 * 0.9)).abs() < 1e-9);
        assert!(
            (health.score(at(3602), one()) - (0.4 * 0.75 + 0.4 * 0.7 + 0.2)).abs() < 1e-9,
            "an hour later"
        );
    }

    #[test]
    fn three_bad_looks_in_a_row_are_needed_and_a_good_one_in_between_forgives() {
        let mut health = watched();
        let look = |health: &mut Health, n: u64, rtt: u32| {
            health.pinged(at(60 * n), one(), Some(rtt * MS));
            look_at(health, 60 * n, &idle(2))
        };
        let bad: Vec<_> =
            [1500, 1500, 20, 1500, 1500].iter().zip(1..).map(|(rtt, n)| look(&mut health, n, *rtt)).collect();
        assert!(bad.iter().all(Vec::is_empty));
        assert_eq!(look(&mut health, 6, 1500), [one()]);
    }

    #[test]
    fn what_is_used_or_protected_or_all_there_is_stays() {
        for (situation, replaced) in [
            (Situation { is_used: true, ..idle(2) }, false),
            (Situation { is_protected: true, ..idle(2) }, false),
            (idle(1), false),
            (idle(2), true),
        ] {
            let mut health = watched();
            health.pinged(at(1), one(), Some(1500 * MS));
            let looks = (1..=3).map(|n| look_at(&mut health, 60 * n, &situation));
            assert_eq!(looks.last().map(|found| !found.is_empty()), Some(replaced), "{situation:?}");
        }
    }

    #[test]
    fn a_peers_only_connection_is_replaced_when_nothing_is_answered_any_more() {
        let mut health = watched();
        let found = (1..20).find(|n| {
            health.pinged(at(60 * n), one(), None);
            health.look(at(60 * n), &idle(1))
        });
        assert_eq!(found, Some(7), "0.7 to the seventh is below 0.09");
    }

    #[test]
    fn failed_streams_make_it_unhealthy() {
        let mut health = watched();
        (0..6).for_each(|_| health.stream_failed(at(1), one()));
        let found: Vec<_> = (1..=3).map(|n| look_at(&mut health, 60 * n, &idle(2))).collect();
        assert_eq!(found, [vec![], vec![], vec![one()]]);
    }

    #[test]
    fn nothing_ticks_without_connections_or_when_off() {
        let mut health = watched();
        assert!(health.deadline().is_some());
        health.disconnected(one());
        assert_eq!((health.deadline(), health.is_empty()), (None, true));
        let mut off = Health::new(HealthConfig::default());
        off.connected(at(0), one());
        assert_eq!(off.deadline(), None);
    }
}
