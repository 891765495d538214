//! Who waits for what: outcomes under a key, and bounded queues.
//!
//! Wakers to call are collected, not called: that happens when the lock is no longer held.

use std::{
    collections::{BTreeMap, VecDeque},
    task::{Context, Poll, Waker},
};

/// Wakers to call once the lock is free.
pub(crate) type Wakes = Vec<Waker>;

/// Futures that wait for the outcome of something, each under its key and a number of its own.
#[derive(Debug)]
pub(crate) struct Waits<K, T> {
    waiting: BTreeMap<(K, u64), Wait<T>>,
    next: u64,
}

#[derive(Debug)]
enum Wait<T> {
    Waiting(Option<Waker>),
    Done(T),
}

impl<K, T> Default for Waits<K, T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), next: 0 }
    }
}

impl<K: Ord + Copy, T: Clone> Waits<K, T> {
    pub(crate) fn add(&mut self, key: K) -> (K, u64) {
        self.next += 1;
        self.waiting.insert((key, self.next), Wait::Waiting(None));
        (key, self.next)
    }

    /// Gives all who wait under `key` the outcome.
    pub(crate) fn finish(&mut self, key: K, outcome: &T, wakes: &mut Wakes) {
        for (_, wait) in self.waiting.range_mut((key, 0)..=(key, u64::MAX)) {
            end(wait, outcome, wakes);
        }
    }

    /// Gives all who wait the outcome.
    pub(crate) fn finish_all(&mut self, outcome: &T, wakes: &mut Wakes) {
        self.waiting.values_mut().for_each(|wait| end(wait, outcome, wakes));
    }

    pub(crate) fn poll(&mut self, id: (K, u64), cx: &mut Context<'_>) -> Poll<T> {
        match self.waiting.get_mut(&id) {
            Some(Wait::Done(outcome)) => Poll::Ready(outcome.clone()),
            Some(Wait::Waiting(waker)) => {
                set(waker, cx);
                Poll::Pending
            }
            None => Poll::Pending,
        }
    }

    /// Whoever waited no longer does. Returns whether nobody else waits under that key, and there was no outcome.
    pub(crate) fn remove(&mut self, id: (K, u64)) -> bool {
        let was_waiting = matches!(self.waiting.remove(&id), Some(Wait::Waiting(_)));
        was_waiting && self.waiting.range((id.0, 0)..=(id.0, u64::MAX)).next().is_none()
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }
}

fn end<T: Clone>(wait: &mut Wait<T>, outcome: &T, wakes: &mut Wakes) {
    if let Wait::Waiting(waker) = wait {
        wakes.extend(waker.take());
        *wait = Wait::Done(outcome.clone());
    }
}

/// A bounded queue, each item of which goes to one of its consumers.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    items: VecDeque<T>,
    capacity: usize,
    wakers: BTreeMap<u64, Waker>,
    next: u64,
    closed: bool,
}

impl<T> Queue<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        let (items, wakers) = (VecDeque::new(), BTreeMap::new());
        Self { items, capacity: capacity.max(1), wakers, next: 0, closed: false }
    }

    /// Adds an item. If there is no room, the oldest is taken out and returned.
    pub(crate) fn push(&mut self, item: T, wakes: &mut Wakes) -> Option<T> {
        let oldest = if self.items.len() >= self.capacity { self.items.pop_front() } else { None };
        self.items.push_back(item);
        wakes.extend(self.wakers.pop_first().map(|(_, waker)| waker));
        oldest
    }

    /// Lets the consumers have what is there, and then the end.
    pub(crate) fn close(&mut self, wakes: &mut Wakes) {
        self.closed = true;
        wakes.extend(std::mem::take(&mut self.wakers).into_values());
    }

    pub(crate) fn subscribe(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(crate) fn poll(&mut self, consumer: u64, cx: &mut Context<'_>) -> Poll<Option<T>> {
        match self.items.pop_front() {
            Some(item) => Poll::Ready(Some(item)),
            None if self.closed => Poll::Ready(None),
            None => {
                self.wakers.insert(consumer, cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// A consumer is gone. It may have been woken for an item that another must take now.
    pub(crate) fn unsubscribe(&mut self, consumer: u64, wakes: &mut Wakes) {
        if self.wakers.remove(&consumer).is_none() && !self.items.is_empty() {
            wakes.extend(self.wakers.pop_first().map(|(_, waker)| waker));
        }
    }

    pub(crate) fn waiting(&self) -> usize {
        self.wakers.len()
    }
}

/// Keeps the task's waker, unless it is there already.
pub(crate) fn set(slot: &mut Option<Waker>, cx: &mut Context<'_>) {
    if !slot.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *slot = Some(cx.waker().clone());
    }
}
