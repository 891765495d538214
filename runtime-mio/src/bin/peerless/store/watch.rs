//! How the store is, for those who ask from other threads.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How the store is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch(Arc<Mutex<Condition>>);

#[derive(Debug, Default)]
struct Condition {
    /// Since when it is down, and why.
    down: Option<(Instant, String)>,
    figures: Figures,
}

/// What is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Whether it works.
    pub(crate) up: bool,
    /// Requests that failed, and attempts to open it again.
    pub(crate) failures: u64,
    /// Times that it was opened again.
    pub(crate) reopened: u64,
    /// Requests that took too long.
    pub(crate) stalls: u64,
    /// Requests that were answered with a failure.
    pub(crate) refused: u64,
}

impl Watch {
    /// Why it is down; `None` if it works.
    pub(crate) fn fault(&self) -> Option<String> {
        let condition = self.lock();
        let (since, reason) = condition.down.as_ref()?;
        Some(format!("the store has been down for {} s: {reason}", since.elapsed().as_secs()))
    }

    pub(crate) fn figures(&self) -> Figures {
        let condition = self.lock();
        Figures { up: condition.down.is_none(), ..condition.figures }
    }

    /// It is down from now on; says whether that is news.
    pub(super) fn down(&self, reason: &str) -> bool {
        let mut condition = self.lock();
        let since = condition.down.as_ref().map(|(since, _)| *since);
        condition.down = Some((since.unwrap_or_else(now), reason.to_owned()));
        since.is_none()
    }

    /// It works again; says how long it was down.
    pub(super) fn up(&self) -> Option<Duration> {
        self.lock().down.take().map(|(since, _)| since.elapsed())
    }

    pub(super) fn failed(&self) {
        self.lock().figures.failures += 1;
    }

    pub(super) fn reopened(&self) {
        self.lock().figures.reopened += 1;
    }

    pub(super) fn stalled(&self) {
        self.lock().figures.stalls += 1;
    }

    pub(super) fn refused(&self) {
        self.lock().figures.refused += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Condition> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(clippy::disallowed_methods, reason = "runtimes read the clock")]
fn now() -> Instant {
    Instant::now()
}
