//! The one place that reads the system's clocks.

use std::time::SystemTime;

use peerless_core::time::{Instant, UnixTime};

/// The monotonic clock; its origin is the moment it was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(std::time::Instant);

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "a runtime is where the clock is read")]
    pub(crate) fn start() -> Self {
        Self(std::time::Instant::now())
    }

    pub(crate) fn now(self) -> Instant {
        Instant::ZERO + self.0.elapsed()
    }

    /// `at` on the system's monotonic clock; `None` if that lies beyond its end.
    pub(crate) fn to_std(self, at: Instant) -> Option<std::time::Instant> {
        self.0.checked_add(at.saturating_duration_since(Instant::ZERO))
    }
}

/// The wall clock.
#[expect(clippy::disallowed_methods, reason = "a runtime is where the clock is read")]
pub(crate) fn unix_now() -> UnixTime {
    UnixTime::from_duration(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}
