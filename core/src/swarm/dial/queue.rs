//! Who dials next: the highest priority first, equal ones in order, a bounded number at a time and in wait.

use std::{cmp::Reverse, collections::BTreeMap};

/// There are as many waiting as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the dial queue is full")]
pub struct QueueFull;

/// Its place in the line: higher priorities first, then who came first.
type Place = (Reverse<u8>, u64);

/// Keys that wait for one of a bounded number of places.
#[derive(Clone, Debug)]
pub struct DialQueue<K> {
    waiting: BTreeMap<Place, K>,
    places: BTreeMap<K, Place>,
    running: usize,
    next: u64,
    max_running: usize,
    max_waiting: usize,
}

impl<K: Ord + Copy> DialQueue<K> {
    /// A queue for at most so many at a time and in wait.
    pub fn new(max_running: usize, max_waiting: usize) -> Self {
        Self {
            waiting: BTreeMap::new(),
            places: BTreeMap::new(),
            running: 0,
            next: 0,
            max_running: max_running.max(1),
            max_waiting,
        }
    }

    /// Lines `key` up. While there is a free place it does not count as waiting.
    ///
    /// # Errors
    /// If the queue is full; nothing has changed then.
    pub fn push(&mut self, key: K, priority: u8) -> Result<(), QueueFull> {
        let free = self.max_running.saturating_sub(self.running);
        if self.waiting.len() >= free.saturating_add(self.max_waiting) {
            return Err(QueueFull);
        }
        let place = (Reverse(priority), self.next);
        self.next += 1;
        self.waiting.insert(place, key);
        self.places.insert(key, place);
        Ok(())
    }

    /// Moves `key` to a higher priority, if that is higher; it keeps its age.
    pub fn raise(&mut self, key: K, priority: u8) {
        let Some(place) = self.places.get_mut(&key).filter(|place| place.0.0 < priority) else { return };
        self.waiting.remove(place);
        place.0 = Reverse(priority);
        self.waiting.insert(*place, key);
    }

    /// Takes the next one, if there is a free place; [`finish`](Self::finish) must follow when it has ended.
    pub fn start(&mut self) -> Option<K> {
        if self.running >= self.max_running {
            return None;
        }
        let (_, key) = self.waiting.pop_first()?;
        self.places.remove(&key);
        self.running += 1;
        Some(key)
    }

    /// One that was started has ended.
    pub fn finish(&mut self) {
        self.running = self.running.saturating_sub(1);
    }

    /// Takes `key` out of the line. Returns whether it waited.
    pub fn remove(&mut self, key: K) -> bool {
        let Some(place) = self.places.remove(&key) else { return false };
        self.waiting.remove(&place);
        true
    }

    /// How many have been started and have not ended.
    pub fn running(&self) -> usize {
        self.running
    }

    /// How many are in line.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn higher_priorities_go_first_and_equal_ones_in_order() {
        let mut queue = DialQueue::new(1, 10);
        for (key, priority) in [(1, 50), (2, 50), (3, 90), (4, 10)] {
            queue.push(key, priority).unwrap();
        }
        queue.raise(4, 60);
        queue.raise(3, 20);
        let mut order = Vec::new();
        while let Some(key) = queue.start() {
            assert_eq!(queue.start(), None, "one at a time");
            order.push(key);
            queue.finish();
        }
        assert_eq!(order, [3, 4, 1, 2]);
    }

    #[test]
    fn a_full_queue_refuses_and_changes_nothing() {
        let mut queue = DialQueue::new(2, 1);
        assert!((0..3).all(|key| queue.push(key, 50).is_ok()), "two may run, one may wait");
        assert_eq!(queue.push(3, 255), Err(QueueFull));
        assert_eq!((queue.start(), queue.start(), queue.start()), (Some(0), Some(1), None));
        assert_eq!((queue.waiting(), queue.push(3, 255)), (1, Err(QueueFull)));
        assert!(queue.remove(2) && !queue.remove(2));
        assert_eq!(queue.push(3, 50), Ok(()));
    }

    /// A list in order of arrival, searched from the front each time.
    #[derive(Default)]
    struct Naive {
        line: Vec<(u32, u8)>,
        running: usize,
    }

    impl Naive {
        fn start(&mut self, most: usize) -> Option<u32> {
            let best = self.line.iter().map(|(_, priority)| *priority).max()?;
            if self.running >= most {
                return None;
            }
            let at = self.line.iter().position(|(_, priority)| *priority == best)?;
            self.running += 1;
            Some(self.line.remove(at).0)
        }
    }

    #[test]
    fn a_hundred_thousand_random_operations_agree_with_a_naive_list() {
        const SEED: u8 = 61;
        let mut rng = Rng::new([SEED; 32]);
        let (mut queue, mut naive) = (DialQueue::new(7, 20), Naive::default());
        for key in 0..100_000_u32 {
            let any = naive.line.get(rng.below(30) as usize).map_or(key, |(key, _)| *key);
            let priority = [10, 50, 50, 90][rng.below(4) as usize];
            match rng.below(10) {
                0..4 => {
                    let has_room = naive.line.len() < 20 + 7 - naive.running;
                    assert_eq!(queue.push(key, priority).is_ok(), has_room, "at {key} of seed {SEED}");
                    if has_room {
                        naive.line.push((key, priority));
                    }
                }
                4..6 => assert_eq!(queue.start(), naive.start(7), "at {key} of seed {SEED}"),
                6..8 => {
                    queue.finish();
                    naive.running = naive.running.saturating_sub(1);
                }
                8 => {
                    queue.raise(any, priority);
                    if let Some(entry) = naive.line.iter_mut().find(|(key, _)| *key == any) {
                        entry.1 = entry.1.max(priority);
                    }
                }
                _ => {
                    let before = naive.line.len();
                    naive.line.retain(|(key, _)| *key != any);
                    assert_eq!(queue.remove(any), naive.line.len() < before, "at {key} of seed {SEED}");
                }
            }
            assert_eq!(
                (queue.waiting(), queue.running()),
                (naive.line.len(), naive.running),
                "at {key} of seed {SEED}"
            );
            assert_eq!(queue.waiting.len(), queue.places.len(), "at {key} of seed {SEED}");
        }
    }
}
