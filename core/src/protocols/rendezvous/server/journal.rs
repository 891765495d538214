//! What is to be stored, and who waits for it: one request to the store at a time, and everything that comes meanwhile
//! goes in the next. What a request that failed was to write goes in the next too, so that the store lacks nothing once it
//! works again: neither what has ended nor the numbers that are reserved.

use std::{collections::BTreeMap, time::Duration};

use libp2p_identity::PeerId;

use crate::{
    behaviour::Context,
    ids::{StreamId, Token},
    storage::Write,
    time::Instant,
};

use super::{
    TABLE,
    rows::{self, Meta},
};

/// Most bytes that wait for the store before registrations are refused.
const MAX_WAITING: usize = 16 << 20;
/// How long a store that failed to write is left alone.
pub(super) const REST: Duration = Duration::from_secs(1);
/// How many numbers are reserved at once, so that none is given twice if the table is loaded again.
const RESERVE: u64 = 1 << 20;

/// Who registered and waits to be told.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) stream: StreamId,
    pub(super) peer: PeerId,
    pub(super) namespace: String,
    /// The number that the registration was given.
    pub(super) number: u64,
    pub(super) ttl: Duration,
    /// Whether it was there before.
    pub(super) refreshed: bool,
}

/// Writes on their way to the store.
#[derive(Debug)]
pub(super) struct Journal {
    pub(super) meta: Meta,
    /// The request under way, and what it writes.
    under_way: Option<(Token, Vec<Write>)>,
    /// Who waits for that.
    storing: Vec<Waiting>,
    /// What goes in the next request.
    writes: Vec<Write>,
    size: usize,
    /// Who waits for the next request.
    waiting: Vec<Waiting>,
    /// The store has failed and is not asked before.
    not_before: Option<Instant>,
}

impl Journal {
    pub(super) fn new(meta: Meta) -> Self {
        Self {
            meta,
            under_way: None,
            storing: Vec::new(),
            writes: Vec::new(),
            size: 0,
            waiting: Vec::new(),
            not_before: None,
        }
    }

    /// Whether so much waits that nothing more should be accepted.
    pub(super) fn is_full(&self) -> bool {
        self.size >= MAX_WAITING
    }

    /// Whether the store has just failed, so that nothing more should be accepted.
    pub(super) fn is_resting(&self, now: Instant) -> bool {
        self.not_before.is_some_and(|at| now < at)
    }

    /// When a store that failed is to be asked again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.not_before.filter(|_| self.under_way.is_none() && !self.writes.is_empty())
    }

    /// Requests and writes that wait, and those who wait for them.
    pub(super) fn len(&self) -> usize {
        usize::from(self.under_way.is_some()) + self.storing.len() + self.writes.len() + self.waiting.len()
    }

    /// Writes something with the next request.
    pub(super) fn write(&mut self, write: Write) {
        self.size += write.size();
        self.writes.push(write);
    }

    /// Tells somebody when everything so far has been stored.
    pub(super) fn wait(&mut self, waiting: Waiting) {
        self.waiting.push(waiting);
    }

    /// A registration that waits counts as new: the one that it was to refresh has not come about.
    pub(super) fn is_new(&mut self, peer: &PeerId, namespace: &str) {
        let is_it = |waiting: &&mut Waiting| waiting.peer == *peer && waiting.namespace == namespace;
        if let Some(waiting) = self.waiting.iter_mut().find(is_it) {
            waiting.refreshed = false;
        }
    }

    /// Sends what there is, unless a request is under way or the store rests. `latest` is the number given last.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>, latest: u64) {
        if self.under_way.is_some() || self.writes.is_empty() || self.is_resting(cx.now()) {
            return;
        }
        // Long before they are used up: a cookie must not show a number that could be given again after a crash.
        if latest.saturating_add(RESERVE / 2) > self.meta.reserved {
            self.meta.reserved = latest.saturating_add(RESERVE);
            self.writes.push(rows::put_meta(self.meta));
        }
        self.size = 0;
        self.not_before = None;
        self.storing = std::mem::take(&mut self.waiting);
        let writes = std::mem::take(&mut self.writes);
        self.under_way = Some((cx.store(TABLE, writes.clone()), writes));
    }

    /// Who waited for the request that has ended; `None` if it is not ours.
    pub(super) fn ended(&mut self, now: Instant, token: Token, is_stored: bool) -> Option<Vec<Waiting>> {
        let (_, writes) = self.under_way.take_if(|(ours, _)| *ours == token)?;
        if !is_stored {
            self.not_before = Some(now + REST);
            self.put_back(writes);
        }
        Some(std::mem::take(&mut self.storing))
    }

    /// What could not be written goes in the next request, of each row what was said last.
    fn put_back(&mut self, mut writes: Vec<Write>) {
        writes.append(&mut self.writes);
        let last: BTreeMap<_, _> = writes.into_iter().map(|write| (write.key().clone(), write)).collect();
        self.writes = last.into_values().collect();
        self.size = self.writes.iter().map(Write::size).sum();
    }
}
