//! Which relay to use: a score from measured latency, failures and load, as a pure function of (statistics, now).
//!
//! The formula is a weighted sum, lower is better:
//! `latency · latency_weight + active · circuit_weight + failures · failure_weight − success_rate · success_bonus`,
//! never below zero. Failures and successes fade with a half-life, so that a bad hour is not a ban for ever; latency is
//! learnt from what succeeded only, and what is not measured again drifts back to the score of the unknown; relays never
//! tried are tried now and then on purpose; and if no relay is fit, the answer is none.

use std::{collections::BTreeMap, time::Duration};

use libp2p_identity::PeerId;

use crate::{rng::Rng, time::Instant};

/// The weights and thresholds of the score.
#[derive(Clone, Debug, PartialEq)]
pub struct ScorePolicy {
    /// How much a new latency counts against the average of the old ones, 0 to 1. 0.3.
    pub ema_alpha: f64,
    /// Open circuits at which a relay is not fit. 100.
    pub max_active_circuits: u32,
    /// Per millisecond of average latency. 10.
    pub latency_weight: f64,
    /// Per failure. 1000.
    pub failure_weight: f64,
    /// Success rate below which a relay is not fit, 0 to 1. 0.5.
    pub min_success_rate: f64,
    /// Average latency above which a relay is not fit, if it was measured within the half-life; `None` takes any. What the
    /// targets of circuits take counts as well, so leave it room. None.
    pub max_latency: Option<Duration>,
    /// Per open circuit. 5.
    pub circuit_weight: f64,
    /// Times the success rate. 100.
    pub success_bonus: f64,
    /// What a relay scores of which no latency is known. 1000.
    pub unknown_score: f64,
    /// After which time a failure, a success or an average latency counts half; `None` never forgets. 10 min.
    pub half_life: Option<Duration>,
    /// One choice in so many goes to a relay never tried, if there is one; 0 never explores. 8.
    pub explore_one_in: u64,
}

impl Default for ScorePolicy {
    fn default() -> Self {
        Self {
            ema_alpha: 0.3,
            max_active_circuits: 100,
            latency_weight: 10.0,
            failure_weight: 1000.0,
            min_success_rate: 0.5,
            max_latency: None,
            circuit_weight: 5.0,
            success_bonus: 100.0,
            unknown_score: 1000.0,
            half_life: Some(Duration::from_secs(600)),
            explore_one_in: 8,
        }
    }
}

impl ScorePolicy {
    /// How much something of `then` still counts at `now`, 0 to 1.
    fn fading(&self, then: Instant, now: Instant) -> f64 {
        let Some(half_life) = self.half_life.filter(|h| !h.is_zero()) else { return 1.0 };
        let age = now.saturating_duration_since(then);
        0.5_f64.powf(age.as_secs_f64() / half_life.as_secs_f64())
    }
}

/// What is known of one relay.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RelayStats {
    /// Average latency of attempts that succeeded and of round trips on the connection, in milliseconds.
    pub latency_ms: Option<f64>,
    /// When that was last measured.
    pub latency_at: Instant,
    /// Average time that failed attempts took, in milliseconds.
    pub failed_latency_ms: Option<f64>,
    /// Attempts that succeeded, faded.
    pub successes: f64,
    /// Attempts that failed, faded.
    pub failures: f64,
    /// Circuits open through it now.
    pub active_circuits: u32,
    /// When an attempt was last recorded.
    pub last_updated: Instant,
}

impl RelayStats {
    /// Successes per attempt; 1 if there was none.
    pub fn success_rate(&self) -> f64 {
        let attempts = self.successes + self.failures;
        if attempts > 0.0 { self.successes / attempts } else { 1.0 }
    }

    /// The same with the time since faded out of it.
    fn faded(&self, policy: &ScorePolicy, now: Instant) -> Self {
        let factor = policy.fading(self.last_updated, now);
        Self { successes: self.successes * factor, failures: self.failures * factor, ..self.clone() }
    }
}

/// What is known of one relay, with what follows from it.
#[derive(Clone, Debug, PartialEq)]
pub struct RelayMetrics {
    /// The relay.
    pub relay: PeerId,
    /// Its score; `None` if it is not fit.
    pub score: Option<f64>,
    /// Successes per attempt.
    pub success_rate: f64,
    /// The counts, faded up to now, and the averages.
    pub stats: RelayStats,
}

/// Failures and slowness that have faded this far no longer speak against a relay's fitness; they still count in its score.
const FORGIVEN: f64 = 0.5;

/// The score of a relay at `now`; lower is better, `None` is not fit.
pub fn score(policy: &ScorePolicy, stats: Option<&RelayStats>, now: Instant) -> Option<f64> {
    let Some(stats) = stats else { return Some(policy.unknown_score) };
    let stats = stats.faded(policy, now);
    if stats.success_rate() < policy.min_success_rate && stats.failures > FORGIVEN
        || stats.active_circuits >= policy.max_active_circuits
    {
        return None;
    }
    let Some(latency) = stats.latency_ms else { return Some(policy.unknown_score) };
    let fresh = policy.fading(stats.latency_at, now);
    let is_slow = policy.max_latency.is_some_and(|most| latency > most.as_secs_f64() * 1000.0);
    if is_slow && fresh > FORGIVEN {
        return None;
    }
    let sum = latency * policy.latency_weight
        + f64::from(stats.active_circuits) * policy.circuit_weight
        + stats.failures * policy.failure_weight
        - stats.success_rate() * policy.success_bonus;
    Some(sum.max(0.0) * fresh + policy.unknown_score * (1.0 - fresh))
}

/// Statistics of relays, at most [`Scores::MAX_RELAYS`]; the one not heard of for longest makes room.
#[derive(Clone, Debug, Default)]
pub struct Scores {
    policy: ScorePolicy,
    relays: BTreeMap<PeerId, RelayStats>,
}

impl Scores {
    /// Most relays remembered.
    pub const MAX_RELAYS: usize = 256;

    /// Nothing known yet.
    pub fn new(policy: ScorePolicy) -> Self {
        Self { policy, relays: BTreeMap::new() }
    }

    /// An attempt to use a relay took `latency` and succeeded or failed.
    pub fn record_attempt(&mut self, relay: PeerId, latency: Duration, succeeded: bool, now: Instant) {
        if succeeded {
            self.record_latency(relay, latency, now);
        }
        let alpha = self.policy.ema_alpha;
        let stats = self.faded_entry(relay, now);
        if succeeded {
            stats.successes += 1.0;
        } else {
            stats.failures += 1.0;
            average(&mut stats.failed_latency_ms, latency, alpha);
        }
    }

    /// A relay that worked does so no more.
    pub fn record_loss(&mut self, relay: PeerId, now: Instant) {
        self.faded_entry(relay, now).failures += 1.0;
    }

    /// A round trip to the relay took `latency`.
    pub fn record_latency(&mut self, relay: PeerId, latency: Duration, now: Instant) {
        let alpha = self.policy.ema_alpha;
        let stats = self.entry(relay, now);
        average(&mut stats.latency_ms, latency, alpha);
        stats.latency_at = now;
    }

    /// A circuit was opened through the relay.
    pub fn record_opened(&mut self, relay: PeerId, now: Instant) {
        let stats = self.entry(relay, now);
        stats.active_circuits = stats.active_circuits.saturating_add(1);
    }

    /// A circuit through the relay was closed; relays not known are ignored.
    pub fn record_closed(&mut self, relay: &PeerId) {
        if let Some(stats) = self.relays.get_mut(relay) {
            stats.active_circuits = stats.active_circuits.saturating_sub(1);
        }
    }

    /// The best of `candidates`, in whose order ties are broken; `None` if none is fit.
    pub fn best(&self, candidates: &[PeerId], rng: &mut Rng, now: Instant) -> Option<PeerId> {
        let explores = self.policy.explore_one_in > 0 && rng.below(self.policy.explore_one_in) == 0;
        if explores {
            let unknown: Vec<_> =
                candidates.iter().filter(|relay| !self.relays.contains_key(relay)).collect();
            if !unknown.is_empty() {
                return Some(*unknown[rng.below(unknown.len() as u64) as usize]);
            }
        }
        let scored = candidates.iter().filter_map(|relay| Some((self.score(relay, now)?, relay)));
        scored.min_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, relay)| *relay)
    }

    /// The score of one relay.
    pub fn score(&self, relay: &PeerId, now: Instant) -> Option<f64> {
        score(&self.policy, self.relays.get(relay), now)
    }

    /// What is known of one relay.
    pub fn get(&self, relay: &PeerId) -> Option<&RelayStats> {
        self.relays.get(relay)
    }

    /// What is known of all relays.
    pub fn iter(&self) -> impl Iterator<Item = (&PeerId, &RelayStats)> {
        self.relays.iter()
    }

    /// Everything that is known at `now`, as plain data, in the order of the peer ids.
    pub fn export(&self, now: Instant) -> Vec<RelayMetrics> {
        let metrics = |(relay, stats): (&PeerId, &RelayStats)| {
            let faded = stats.faded(&self.policy, now);
            RelayMetrics {
                relay: *relay,
                score: score(&self.policy, Some(stats), now),
                success_rate: faded.success_rate(),
                stats: faded,
            }
        };
        self.relays.iter().map(metrics).collect()
    }

    /// Forgets everything but which circuits are open.
    pub fn reset(&mut self) {
        self.relays.retain(|_, stats| stats.active_circuits > 0);
        for stats in self.relays.values_mut() {
            *stats = RelayStats { active_circuits: stats.active_circuits, ..RelayStats::default() };
        }
    }

    /// What is known of a relay, with the time up to `now` faded out of its counts.
    fn faded_entry(&mut self, relay: PeerId, now: Instant) -> &mut RelayStats {
        let policy = self.policy.clone();
        let stats = self.entry(relay, now);
        *stats = stats.faded(&policy, now);
        stats.last_updated = now;
        stats
    }

    fn entry(&mut self, relay: PeerId, now: Instant) -> &mut RelayStats {
        if !self.relays.contains_key(&relay) && self.relays.len() >= Self::MAX_RELAYS {
            let idle = self.relays.iter().filter(|(_, stats)| stats.active_circuits == 0);
            if let Some(oldest) = idle.min_by_key(|(_, stats)| stats.last_updated).map(|(relay, _)| *relay) {
                self.relays.remove(&oldest);
            }
        }
        self.relays.entry(relay).or_insert_with(|| RelayStats { last_updated: now, ..RelayStats::default() })
    }
}

/// An exponential moving average.
fn average(average: &mut Option<f64>, latest: Duration, alpha: f64) {
    let ms = latest.as_secs_f64() * 1000.0;
    *average = Some(average.map_or(ms, |old| alpha * ms + (1.0 - alpha) * old));
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Instant = Instant::ZERO;

    fn relay(n: u8) -> PeerId {
        crate::identity::Identity::generate(&mut Rng::new([n; 32])).peer()
    }

    fn stats(latency_ms: f64, active_circuits: u32, successes: f64, failures: f64) -> RelayStats {
        RelayStats {
            latency_ms: Some(latency_ms),
            active_circuits,
            successes,
            failures,
            ..RelayStats::default()
        }
    }

    fn minutes(n: u64) -> Instant {
        T0 + Duration::from_secs(60 * n)
    }

    #[test]
    fn the_three_check_values() {
        let score = |stats| score(&ScorePolicy::default(), Some(&stats), T0);
        assert_eq!(score(stats(50.0, 0, 10.0, 0.0)), Some(400.0));
        assert_eq!(score(stats(50.0, 4, 9.0, 1.0)), Some(1430.0));
        assert_eq!(score(stats(5.0, 0, 10.0, 0.0)), Some(0.0));
    }

    #[test]
    fn unfit_is_none_and_unknown_has_its_own_score() {
        let score = |stats: Option<&RelayStats>| score(&ScorePolicy::default(), stats, T0);
        assert_eq!(score(Some(&stats(5.0, 0, 4.0, 6.0))), None);
        assert_eq!(score(Some(&stats(5.0, 100, 9.0, 0.0))), None);
        assert_eq!(score(Some(&stats(5.0, 99, 9.0, 0.0))), Some(445.0));
        assert_eq!(score(None), Some(1000.0));
    }

    #[test]
    fn a_relay_that_failed_for_an_hour_is_fit_again_after_a_while() {
        let mut scores = Scores::new(ScorePolicy::default());
        scores.record_attempt(relay(1), Duration::from_millis(20), true, T0);
        (0..60).for_each(|m| scores.record_attempt(relay(1), Duration::from_secs(10), false, minutes(m)));
        assert_eq!(scores.score(&relay(1), minutes(60)), None);
        let back = (60..200).find(|m| scores.score(&relay(1), minutes(*m)).is_some());
        assert!(back.is_some_and(|m| m < 120), "{back:?}");
    }

    #[test]
    fn a_relay_slower_than_allowed_is_unfit_until_that_is_long_ago() {
        let policy = ScorePolicy { max_latency: Some(Duration::from_secs(1)), ..ScorePolicy::default() };
        let mut scores = Scores::new(policy);
        scores.record_latency(relay(1), Duration::from_secs(1), T0);
        scores.record_latency(relay(2), Duration::from_millis(1001), T0);
        let fit = |n, at| scores.score(&relay(n), at).is_some();
        assert_eq!(
            [fit(1, T0), fit(2, T0), fit(2, minutes(9)), fit(2, minutes(11))],
            [true, false, false, true]
        );
    }

    #[test]
    fn the_latency_of_failures_is_kept_apart() {
        let mut scores = Scores::new(ScorePolicy::default());
        scores.record_attempt(relay(1), Duration::from_millis(20), true, T0);
        scores.record_attempt(relay(1), Duration::from_secs(30), false, T0);
        let stats = scores.get(&relay(1)).unwrap();
        assert_eq!((stats.latency_ms, stats.failed_latency_ms), (Some(20.0), Some(30_000.0)));
    }

    #[test]
    fn the_average_follows_slowly() {
        let mut scores = Scores::new(ScorePolicy::default());
        scores.record_attempt(relay(1), Duration::from_millis(100), true, T0);
        scores.record_attempt(relay(1), Duration::from_millis(200), true, T0);
        assert_eq!(scores.get(&relay(1)).unwrap().latency_ms, Some(130.0));
    }

    #[test]
    fn the_best_is_taken_ties_go_to_the_first_and_nobody_fit_is_nobody() {
        let policy = ScorePolicy { explore_one_in: 0, ..ScorePolicy::default() };
        let mut scores = Scores::new(policy);
        let mut rng = Rng::new([0; 32]);
        let mut best = |scores: &Scores, list: &[u8]| {
            let list: Vec<_> = list.iter().map(|n| relay(*n)).collect();
            scores.best(&list, &mut rng, T0)
        };
        for (n, ms) in [(1, 80), (2, 20), (3, 80)] {
            scores.record_attempt(relay(n), Duration::from_millis(ms), true, T0);
        }
        assert_eq!(best(&scores, &[1, 2, 3]), Some(relay(2)));
        assert_eq!(best(&scores, &[3, 1]), Some(relay(3)));
        assert_eq!(best(&scores, &[]), None);
        scores.record_attempt(relay(4), Duration::from_millis(1), false, T0);
        assert_eq!(best(&scores, &[4]), None);
    }

    #[test]
    fn relays_never_tried_are_explored_now_and_then() {
        let mut scores = Scores::new(ScorePolicy::default());
        scores.record_attempt(relay(1), Duration::from_millis(5), true, T0);
        let mut rng = Rng::new([9; 32]);
        let list = [relay(1), relay(2)];
        let explored = (0..800).filter(|_| scores.best(&list, &mut rng, T0) == Some(relay(2))).count();
        assert!((60..140).contains(&explored), "{explored}");
    }

    #[test]
    fn a_latency_not_measured_again_drifts_to_the_score_of_the_unknown() {
        let mut scores = Scores::new(ScorePolicy::default());
        scores.record_attempt(relay(1), Duration::from_millis(10), true, T0);
        scores.record_attempt(relay(2), Duration::from_millis(300), true, T0);
        let at = |n, m| scores.score(&relay(n), minutes(m)).unwrap();
        assert_eq!((at(1, 0), at(1, 10), at(2, 0), at(2, 10)), (0.0, 500.0, 2900.0, 1950.0));
        assert!(at(1, 200) > 999.0 && at(2, 200) < 1001.0, "{} {}", at(1, 200), at(2, 200));
        let export = scores.export(minutes(10));
        assert!(export.iter().all(|m| m.stats.successes == 0.5 && m.success_rate == 1.0), "{export:?}");
        assert!(export.is_sorted_by_key(|m| m.relay) && export.len() == 2);
        scores.record_opened(relay(1), minutes(10));
        scores.reset();
        assert_eq!(scores.export(T0).iter().map(|m| m.relay).collect::<Vec<_>>(), [relay(1)]);
        assert_eq!(scores.get(&relay(1)).unwrap().active_circuits, 1, "the circuit is still there");
    }

    #[test]
    fn memory_is_bounded_and_active_circuits_never_go_below_zero() {
        let mut scores = Scores::new(ScorePolicy::default());
        for n in 0..=255 {
            scores.record_attempt(relay(n), Duration::ZERO, true, minutes(u64::from(n)));
        }
        let other = crate::identity::Identity::generate(&mut Rng::new([1; 32]).fork("other")).peer();
        scores.record_opened(other, minutes(999));
        assert_eq!(scores.iter().count(), Scores::MAX_RELAYS);
        assert!(scores.get(&relay(0)).is_none());
        scores.record_closed(&other);
        scores.record_closed(&other);
        assert_eq!(scores.get(&other).unwrap().active_circuits, 0);
    }
}
