//! Bytes per second: token buckets of the data plane.

use std::{num::NonZeroU64, time::Duration};

use crate::time::Instant;

/// Nanoseconds in a second.
const SECOND: u128 = 1_000_000_000;
/// A bucket holds the bytes of this fraction of a second, but no less than [`MIN_BURST`].
const BURST_FRACTION: u64 = 8;
const MIN_BURST: u64 = 4 << 10;
/// Who ran dry goes on when there are the bytes of this fraction of a second, but no less than [`MIN_HELPING`].
const HELPING_FRACTION: u64 = 64;
const MIN_HELPING: u64 = 1 << 10;

/// A bucket of bytes that fills at a constant rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    rate: NonZeroU64,
    /// In billionths of a byte, so that a nanosecond earns a whole number.
    level: u128,
    /// Up to when it has been filled.
    filled: Instant,
}

impl Pace {
    /// A full bucket; `None` for rate 0, which is no limit.
    pub(crate) fn new(rate: u64, now: Instant) -> Option<Self> {
        let rate = NonZeroU64::new(rate)?;
        let mut pace = Self { rate, level: 0, filled: now };
        pace.level = u128::from(pace.burst()) * SECOND;
        Some(pace)
    }

    /// Bytes that may move at `now`.
    pub(crate) fn available(&mut self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.filled).as_nanos();
        let most = u128::from(self.burst()) * SECOND;
        self.level = self.level.saturating_add(elapsed.saturating_mul(self.rate())).min(most);
        self.filled = self.filled.max(now);
        u64::try_from(self.level / SECOND).unwrap_or(u64::MAX)
    }

    /// Bytes have moved.
    pub(crate) fn spend(&mut self, bytes: u64) {
        self.level = self.level.saturating_sub(u128::from(bytes) * SECOND);
    }

    /// Whether there is enough to go on.
    pub(crate) fn is_ready(&mut self, now: Instant) -> bool {
        self.available(now) >= self.helping()
    }

    /// When there is enough to go on, if nothing moves until then.
    pub(crate) fn ready_at(&self) -> Instant {
        let missing = (u128::from(self.helping()) * SECOND).saturating_sub(self.level);
        self.filled + nanos(missing.div_ceil(self.rate()))
    }

    fn rate(&self) -> u128 {
        self.rate.get().into()
    }

    fn burst(&self) -> u64 {
        (self.rate.get() / BURST_FRACTION).max(MIN_BURST)
    }

    fn helping(&self) -> u64 {
        (self.rate.get() / HELPING_FRACTION).clamp(MIN_HELPING, super::splice::QUANTUM as u64)
    }
}

fn nanos(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate_to_the_tick() {
        let mut pace = Pace::new(8 << 10, at(0)).unwrap();
        assert_eq!(pace.available(at(0)), 4 << 10);
        pace.spend(4 << 10);
        assert_eq!(pace.ready_at(), at(125_000_000));
        assert!(!pace.is_ready(at(124_999_999)) && pace.is_ready(at(125_000_000)));
        assert_eq!(pace.available(at(125_000_000)), 1 << 10);
        assert_eq!(pace.available(at(u64::MAX)), 4 << 10, "no more than the burst is saved up");
        assert_eq!(pace.available(at(0)), 4 << 10, "time that runs backwards changes nothing");
    }

    #[test]
    fn looking_often_earns_no_more() {
        for rate in [1, 3, 1 << 20, 999_999_937, u64::MAX] {
            let (mut pace, mut moved) = (Pace::new(rate, at(0)).unwrap(), 0_u128);
            for tick in 0..20_000 {
                let available = pace.available(at(tick * 977));
                pace.spend(available);
                moved += u128::from(available);
            }
            let most = u128::from(pace.burst()) + u128::from(rate) * 19_999 * 977 / SECOND;
            assert!(moved <= most, "{rate}: {moved} of {most}");
            assert!(moved * 100 >= most * 99, "{rate}: {moved} of {most}");
        }
        assert!(Pace::new(0, at(0)).is_none());
    }
}
