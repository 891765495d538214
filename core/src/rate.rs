//! How often something may happen: token buckets, each of which is a single point in time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::time::Instant;

/// Most buckets that are kept. Beyond that the one is forgotten that would be full again the soonest.
const MAX_BUCKETS: usize = 8192;

/// A bucket of tokens: so many to begin with, and one more each time `every` has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many may be taken at once; 0 is no limit.
    pub burst: u32,
    /// After how long one more may be taken; zero is no limit.
    pub every: Duration,
}

impl Rate {
    /// No limit.
    pub const UNLIMITED: Self = Self { burst: 0, every: Duration::ZERO };

    /// `burst` at once, then one each `secs` seconds.
    pub const fn new(burst: u32, secs: u64) -> Self {
        Self { burst, every: Duration::from_secs(secs) }
    }

    /// Takes a token at `now` from a bucket that is full again at `full_at` (in the past: it is full). Returns when it
    /// is full after that; `None` if it is empty.
    pub fn take(self, full_at: Instant, now: Instant) -> Option<Instant> {
        if self.burst == 0 {
            return Some(now);
        }
        // No longer than what the clock can count, so that a bucket cannot seem fuller than it is.
        let every = self.every.min(Duration::from_nanos(u64::MAX / u64::from(self.burst)));
        let missing = full_at.saturating_duration_since(now).as_nanos();
        let allowed = missing + every.as_nanos() <= u128::from(self.burst) * every.as_nanos();
        allowed.then(|| full_at.max(now) + every)
    }
}

/// The buckets of many, for one [`Rate`]. Who has no entry has a full bucket.
#[derive(Debug)]
pub(crate) struct Buckets<K> {
    full_at: BTreeMap<K, Instant>,
    queue: BTreeSet<(Instant, K)>,
}

impl<K: Ord + Copy> Default for Buckets<K> {
    fn default() -> Self {
        Self { full_at: BTreeMap::new(), queue: BTreeSet::new() }
    }
}

impl<K: Ord + Copy> Buckets<K> {
    /// When the bucket of `key` is full again; the past if it is full.
    pub(crate) fn full_at(&self, key: &K) -> Instant {
        self.full_at.get(key).copied().unwrap_or_default()
    }

    /// Takes a token from the bucket of `key`, if there is one.
    pub(crate) fn take(&mut self, rate: Rate, key: K, now: Instant) {
        self.forget_full(now);
        let Some(full_at) = rate.take(self.full_at(&key), now).filter(|at| *at > now) else { return };
        if let Some(old) = self.full_at.insert(key, full_at) {
            self.queue.remove(&(old, key));
        }
        self.queue.insert((full_at, key));
        if self.queue.len() > MAX_BUCKETS {
            self.forget_first();
        }
    }

    /// Forgets all buckets that are full at `now`.
    fn forget_full(&mut self, now: Instant) {
        while self.queue.first().is_some_and(|(at, _)| *at <= now) {
            self.forget_first();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.full_at.len()
    }

    fn forget_first(&mut self) {
        if let Some((_, key)) = self.queue.pop_first() {
            self.full_at.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate::new(3, 10);

    fn at(secs: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(secs)
    }

    #[test]
    fn the_burst_passes_at_once_and_then_one_at_each_exact_tick() {
        let mut full_at = Instant::ZERO;
        for _ in 0..3 {
            full_at = RATE.take(full_at, at(100)).unwrap();
        }
        let early = Instant::from_nanos(at(110).as_nanos() - 1);
        assert_eq!((RATE.take(full_at, at(100)), RATE.take(full_at, early)), (None, None));
        full_at = RATE.take(full_at, at(110)).unwrap();
        assert_eq!(RATE.take(full_at, at(110)), None);
        assert_eq!(full_at, at(140), "full when all three are back");
    }

    #[test]
    fn the_ends_of_the_scale() {
        let none = [Rate::UNLIMITED, Rate { burst: 0, ..RATE }, Rate { every: Duration::ZERO, ..RATE }];
        assert!(none.iter().all(|rate| rate.take(Instant::FAR_FUTURE, at(1)) == Some(at(1))
            || rate.every.is_zero() && rate.take(at(1), at(1)) == Some(at(1))));
        for burst in [1, 2, u32::MAX] {
            let rate = Rate { burst, every: Duration::MAX };
            let mut full_at = Instant::ZERO;
            for _ in 0..burst.min(2) {
                full_at = rate.take(full_at, at(1)).unwrap();
            }
            assert_eq!(rate.take(full_at, at(1)).is_some(), burst > 2);
        }
        let once = Rate { burst: 1, every: Duration::MAX };
        let full_at = once.take(Instant::ZERO, at(1)).unwrap();
        assert_eq!(once.take(full_at, at(1 << 30)), None, "not within thirty years");
    }

    #[test]
    fn buckets_are_few_and_go_when_they_are_full() {
        let mut buckets = Buckets::default();
        for key in 0..MAX_BUCKETS as u64 + 10 {
            buckets.take(RATE, key, Instant::from_nanos(key));
            assert!(buckets.len() <= MAX_BUCKETS && buckets.queue.len() == buckets.len());
        }
        assert_eq!(buckets.full_at(&9), Instant::ZERO, "the oldest was forgotten");
        assert!(buckets.full_at(&10) > Instant::ZERO);
        buckets.forget_full(at(20));
        assert_eq!(buckets.len(), 0);
    }
}
