//! Between our clock and the one quinn-proto computes with: the only place of the core that names the standard clock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use quinn_proto::TimeSource;

use crate::time::Instant;

/// What quinn-proto takes for an instant.
pub(super) type StdInstant = std::time::Instant;

/// Maps [`Instant::ZERO`] to one standard instant, taken once. quinn-proto only ever compares and subtracts
/// instants, so that which one it is has no effect.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    zero: StdInstant,
}

impl Clock {
    #[allow(
        clippy::disallowed_methods,
        reason = "a std instant cannot be made otherwise; its value is never seen"
    )]
    pub(super) fn new() -> Self {
        Self { zero: StdInstant::now() }
    }

    pub(super) fn to_std(self, at: Instant) -> StdInstant {
        self.zero.checked_add(Duration::from_nanos(at.as_nanos())).unwrap_or(self.zero)
    }

    pub(super) fn to_ours(self, at: StdInstant) -> Instant {
        Instant::ZERO + at.saturating_duration_since(self.zero)
    }
}

/// The time at which Retry tokens are issued and judged. Only we read them and only in this process, so the
/// monotonic clock serves.
#[derive(Clone, Debug, Default)]
pub(super) struct TokenTime(Arc<AtomicU64>);

impl TokenTime {
    pub(super) fn set(&self, now: Instant) {
        self.0.store(now.as_nanos(), Ordering::Relaxed);
    }
}

impl TimeSource for TokenTime {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}
