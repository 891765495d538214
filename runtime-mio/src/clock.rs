//! The one place that reads the system's clocks.

use std::time::{Duration, SystemTime};

use peerless_core::time::{Instant, UnixTime, WallClock};

/// How far the wall clock may be from where the monotonic clock expects it before the node is told.
const JUMP: Duration = Duration::from_secs(1);
/// How often the two clocks are compared.
const COMPARE: Duration = Duration::from_secs(1);

/// The wall clock: time since the Unix epoch, zero if the system's clock stands before it.
#[expect(clippy::disallowed_methods, reason = "a runtime is where the clock is read")]
pub fn unix_now() -> UnixTime {
    UnixTime::from_duration(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// The monotonic clock, whose origin is the moment it was made, and a watch on the wall clock beside it.
#[derive(Debug)]
pub(crate) struct Clock {
    origin: std::time::Instant,
    wall: WallClock,
    compared: Instant,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "a runtime is where the clock is read")]
    pub(crate) fn start() -> Self {
        Self {
            origin: std::time::Instant::now(),
            wall: WallClock::new(unix_now(), Instant::ZERO),
            compared: Instant::ZERO,
        }
    }

    pub(crate) fn now(&self) -> Instant {
        Instant::ZERO + self.origin.elapsed()
    }

    /// The wall clock at `now`, as far as is known.
    pub(crate) fn unix(&self, now: Instant) -> UnixTime {
        self.wall.at(now)
    }

    /// The new wall clock time if it was set, or the machine slept, since the last call.
    pub(crate) fn jumped(&mut self, now: Instant) -> Option<UnixTime> {
        if now < self.compared + COMPARE {
            return None;
        }
        self.compared = now;
        self.compare(now, unix_now())
    }

    fn compare(&mut self, now: Instant, actual: UnixTime) -> Option<UnixTime> {
        let expected = self.wall.at(now);
        let error =
            actual.saturating_duration_since(expected).max(expected.saturating_duration_since(actual));
        (error > JUMP).then(|| {
            self.wall = WallClock::new(actual, now);
            actual
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_is_told_once_and_in_both_directions() {
        let mut clock = Clock::start();
        clock.wall = WallClock::new(UnixTime::from_secs(1000), Instant::ZERO);
        let now = Instant::ZERO + Duration::from_secs(10);
        assert_eq!(clock.compare(now, UnixTime::from_secs(1010)), None);
        assert_eq!(clock.compare(now, UnixTime::from_secs(5000)), Some(UnixTime::from_secs(5000)));
        assert_eq!(clock.compare(now, UnixTime::from_secs(5000)), None);
        assert_eq!(clock.compare(now, UnixTime::from_secs(900)), Some(UnixTime::from_secs(900)));
    }
}
