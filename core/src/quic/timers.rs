//! When each connection wants to be woken: many updates, few queue operations.

use crate::{
    ids::{Id as _, QuicId},
    time::{Instant, Timers},
};

/// One deadline per connection. A connection's deadline mostly moves into the future, packet by packet; its entry in the
/// queue is left where it was and corrected only when it comes up.
#[derive(Debug, Default)]
pub(super) struct ConnectionTimers {
    queue: Timers<QuicId>,
    slots: Vec<Slot>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// When the connection wants to be woken.
    due: Option<Instant>,
    /// Where its entry is in the queue: never later than `due`.
    queued: Option<Instant>,
}

impl ConnectionTimers {
    /// Sets the deadline of `id`; `None` clears it. Ids that share a slot must be cleared before the next is set.
    pub(super) fn set(&mut self, id: QuicId, due: Option<Instant>) {
        let index = id.index() as usize;
        if index >= self.slots.len() {
            self.slots.resize(index + 1, Slot::default());
        }
        let slot = &mut self.slots[index];
        slot.due = due;
        let misplaced = match (due, slot.queued) {
            (Some(due), Some(queued)) => due < queued,
            (due, queued) => due.is_some() || queued.is_some(),
        };
        if misplaced {
            if let Some(queued) = slot.queued {
                self.queue.clear(queued, id);
            }
            slot.queued = due;
            if let Some(due) = due {
                self.queue.set(due, id);
            }
        }
    }

    /// The earliest deadline.
    pub(super) fn next(&mut self) -> Option<Instant> {
        loop {
            let (at, id) = self.queue.first()?;
            if self.settle(at, id) {
                return Some(at);
            }
        }
    }

    /// Takes a connection whose deadline has come.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<QuicId> {
        loop {
            let (at, id) = self.queue.first().filter(|(at, _)| *at <= now)?;
            if self.settle(at, id) {
                self.set(id, None);
                return Some(id);
            }
        }
    }

    /// Moves an entry to where it belongs; whether it was there already.
    fn settle(&mut self, at: Instant, id: QuicId) -> bool {
        let due = self.slots[id.index() as usize].due;
        if due == Some(at) {
            return true;
        }
        self.set(id, None);
        self.set(id, due);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    #[test]
    fn a_deadline_that_moves_away_is_found_where_it_is_and_leaves_nothing_behind() {
        let (a, b) = (QuicId::from_parts(0, 0), QuicId::from_parts(1, 0));
        let mut timers = ConnectionTimers::default();
        timers.set(a, Some(at(10)));
        timers.set(b, Some(at(20)));
        timers.set(a, Some(at(30)));
        assert_eq!(timers.next(), Some(at(20)));
        assert_eq!(timers.pop_due(at(25)), Some(b));
        assert_eq!(timers.pop_due(at(25)), None);
        timers.set(a, Some(at(5)));
        assert_eq!((timers.next(), timers.queue.len()), (Some(at(5)), 1));
        timers.set(a, None);
        assert_eq!((timers.next(), timers.queue.len()), (None, 0));
    }
}
