//! Time as an input: monotonic [`Instant`], wall-clock [`UnixTime`], and [`Deadline`]s that carry their reason.
//!
//! Nothing here can ask what time it is. The embedder says so with every call; arithmetic saturates, so that no
//! integer from the wire can overflow it.

use std::{collections::BTreeSet, fmt, ops::Add, time::Duration};

/// A point on the embedder's monotonic clock, in nanoseconds since an origin of the embedder's choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The origin of the embedder's clock.
    pub const ZERO: Self = Self(0);
    /// Later than anything that will happen.
    pub const FAR_FUTURE: Self = Self(u64::MAX);

    /// The point `nanos` nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time passed since `earlier`; zero if `earlier` is later.
    pub const fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Saturates at [`Instant::FAR_FUTURE`].
impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1_000_000_000, self.0 / 1_000_000 % 1000)
    }
}

/// Wall-clock time since the Unix epoch; used only where a wire format carries it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(Duration);

impl UnixTime {
    /// `secs` seconds after the epoch.
    pub const fn from_secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// The given time after the epoch.
    pub const fn from_duration(since_epoch: Duration) -> Self {
        Self(since_epoch)
    }

    /// Whole seconds since the epoch.
    pub const fn as_secs(self) -> u64 {
        self.0.as_secs()
    }

    /// Time since the epoch.
    pub const fn since_epoch(self) -> Duration {
        self.0
    }

    /// Time from `earlier` to `self`; zero if `earlier` is later.
    pub const fn saturating_duration_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Saturates.
impl Add<Duration> for UnixTime {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// The wall clock as a pair taken once: what it said, and when on the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    unix: UnixTime,
    at: Instant,
}

impl WallClock {
    /// The wall clock said `unix` at `at`.
    pub const fn new(unix: UnixTime, at: Instant) -> Self {
        Self { unix, at }
    }

    /// What the wall clock says at `now`.
    pub fn at(&self, now: Instant) -> UnixTime {
        self.unix + now.saturating_duration_since(self.at)
    }
}

/// An absolute point at which something must be done, and what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline {
    /// When.
    pub at: Instant,
    /// What for, in a few words; printed in transcripts and in busy-loop reports.
    pub why: &'static str,
}

impl Deadline {
    /// Something called `why` is due at `at`.
    pub const fn new(at: Instant, why: &'static str) -> Self {
        Self { at, why }
    }

    /// The earlier of two deadlines, either of which may be absent.
    pub fn earliest(a: Option<Self>, b: Option<Self>) -> Option<Self> {
        match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Whether it is due at `now`.
    pub fn is_due(&self, now: Instant) -> bool {
        self.at <= now
    }
}

/// An ordered queue of timers with keys: O(log n) to set, clear and pop.
#[derive(Clone, Debug)]
pub struct Timers<K> {
    queue: BTreeSet<(Instant, K)>,
}

impl<K: Ord + Copy> Default for Timers<K> {
    fn default() -> Self {
        Self { queue: BTreeSet::new() }
    }
}

impl<K: Ord + Copy> Timers<K> {
    /// Arms a timer. A key may have several; the caller keeps the instant to clear it.
    pub fn set(&mut self, at: Instant, key: K) {
        self.queue.insert((at, key));
    }

    /// Disarms the timer of `key` at `at`; nothing happens if there is none.
    pub fn clear(&mut self, at: Instant, key: K) {
        self.queue.remove(&(at, key));
    }

    /// Takes the earliest timer that is due at `now`.
    pub fn pop_due(&mut self, now: Instant) -> Option<(Instant, K)> {
        let first = *self.queue.first()?;
        if first.0 > now {
            return None;
        }
        self.queue.pop_first()
    }

    /// When the earliest timer is due.
    pub fn next(&self) -> Option<Instant> {
        self.first().map(|(at, _)| at)
    }

    /// The earliest timer.
    pub fn first(&self) -> Option<(Instant, K)> {
        self.queue.first().copied()
    }

    /// Number of armed timers.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether no timer is armed.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Instant::from_nanos(5) + Duration::MAX, Instant::FAR_FUTURE);
        assert_eq!(Instant::ZERO.saturating_duration_since(Instant::from_nanos(1)), Duration::ZERO);
        assert_eq!((UnixTime::from_secs(u64::MAX) + Duration::MAX).since_epoch(), Duration::MAX);
    }

    #[test]
    fn the_earlier_deadline_wins_and_keeps_its_reason() {
        let late = Deadline::new(Instant::from_nanos(2), "late");
        let soon = Deadline::new(Instant::from_nanos(1), "soon");
        assert_eq!(Deadline::earliest(Some(late), Some(soon)), Some(soon));
        assert_eq!(Deadline::earliest(None, Some(late)), Some(late));
    }

    #[test]
    fn timers_pop_in_order_and_only_when_due() {
        let mut timers = Timers::default();
        timers.set(Instant::from_nanos(20), 'b');
        timers.set(Instant::from_nanos(10), 'a');
        timers.set(Instant::from_nanos(15), 'x');
        timers.clear(Instant::from_nanos(15), 'x');
        assert_eq!(timers.pop_due(Instant::from_nanos(9)), None);
        assert_eq!(timers.pop_due(Instant::from_nanos(30)).map(|t| t.1), Some('a'));
        assert_eq!(timers.next(), Some(Instant::from_nanos(20)));
        assert_eq!(timers.len(), 1);
    }
}
