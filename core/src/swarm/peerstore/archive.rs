//! When the peerstore's rows are read and written: one request to the store at a time, in batches, and never more rows than
//! are to be. A store that fails is asked again later and later; meanwhile nothing grows but what is known anyway.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use libp2p_identity::PeerId;

use super::{Peerstore, row::Row};
use crate::{
    counters::Counters,
    storage::{Rows, StorageAnswer, StorageAsk, StoreError, Write},
    time::{Deadline, Instant, UnixTime},
};

/// The table of rows.
pub(crate) const TABLE: &str = "peerstore";

/// How long changes are collected, and how long a store that failed is left alone at first.
const DELAY: Duration = Duration::from_secs(10);
/// How long it is left alone at most.
const MAX_DELAY: Duration = Duration::from_secs(600);
/// A batch is over when it has so many bytes.
const MAX_BATCH: usize = 256 << 10;

/// What of a peerstore is in the embedder's store.
#[derive(Debug)]
pub(crate) struct Archive {
    /// Most rows.
    most: usize,
    phase: Phase,
    asked: Option<Asked>,
    /// Whose rows the table has.
    rows: BTreeSet<PeerId>,
    /// Keys of rows that are of no use.
    stale: Vec<Bytes>,
    /// The store is not asked before.
    not_before: Instant,
    /// Requests in a row that failed.
    failures: u32,
    /// When all rows are looked at, and those of connected peers written anew, so that a crash finds them fresh.
    refresh: Option<Instant>,
    /// Changes are not collected any longer.
    is_urgent: bool,
}

#[derive(Debug)]
enum Phase {
    /// What an earlier node stored is read, from behind this key. Exit: [`Phase::Ready`] after the last page.
    Loading(Option<Bytes>),
    /// All of it is known.
    Ready,
}

/// The request under way.
#[derive(Debug)]
enum Asked {
    Load,
    Store(Batch),
}

/// Changes of the table that belong together.
#[derive(Debug, Default)]
struct Batch {
    stale: Vec<Bytes>,
    deleted: Vec<PeerId>,
    put: Vec<PeerId>,
    writes: Vec<Write>,
    size: usize,
}

impl Archive {
    /// The archive of a peerstore, whose changes are noted from now on; `None` if it wants none.
    pub(crate) fn new(store: &mut Peerstore) -> Option<Self> {
        let most = store.config().stored;
        if most == 0 {
            return None;
        }
        store.note_changes();
        Some(Self {
            most,
            phase: Phase::Loading(None),
            asked: None,
            rows: BTreeSet::new(),
            stale: Vec::new(),
            not_before: Instant::ZERO,
            failures: 0,
            refresh: None,
            is_urgent: false,
        })
    }

    /// Whether what an earlier node stored may still come, and nothing has gone wrong.
    pub(crate) fn is_loading(&self) -> bool {
        matches!(self.phase, Phase::Loading(_)) && self.failures == 0
    }

    /// When [`Archive::ask`] has something to ask for.
    pub(crate) fn deadline(&self, store: &Peerstore) -> Option<Deadline> {
        if self.asked.is_some() {
            return None;
        }
        let delay = if self.is_urgent { Duration::ZERO } else { DELAY };
        let at = match self.phase {
            Phase::Loading(_) => Some(Instant::ZERO),
            Phase::Ready => {
                [store.changed_since().map(|since| since + delay), self.refresh].into_iter().flatten().min()
            }
        };
        at.map(|at| Deadline::new(at.max(self.not_before), "peerstore"))
    }

    /// What the store is to be asked for now, if anything.
    pub(crate) fn ask(&mut self, now: Instant, unix: UnixTime, store: &mut Peerstore) -> Option<StorageAsk> {
        if !self.deadline(store)?.is_due(now) {
            return None;
        }
        let mut batch = match &self.phase {
            Phase::Loading(_) if self.stale.is_empty() && self.rows.len() <= self.most => Batch::default(),
            Phase::Loading(_) => self.tidy(&store.worth_storing(now, self.most)),
            Phase::Ready => self.write(now, unix, store),
        };
        if !batch.writes.is_empty() {
            let writes = std::mem::take(&mut batch.writes);
            self.asked = Some(Asked::Store(batch));
            return Some(StorageAsk::Store(writes));
        }
        let Phase::Loading(after) = &self.phase else { return None };
        self.asked = Some(Asked::Load);
        Some(StorageAsk::Load { after: after.clone() })
    }

    /// The store has answered. More may be to be asked for.
    pub(crate) fn answered(
        &mut self,
        now: Instant,
        unix: UnixTime,
        store: &mut Peerstore,
        counters: &mut Counters,
        answer: Result<StorageAnswer, StoreError>,
    ) {
        match (self.asked.take(), answer) {
            (Some(Asked::Load), Ok(StorageAnswer::Loaded(page))) => {
                self.failures = 0;
                self.loaded(now, unix, store, counters, &page);
            }
            (Some(Asked::Store(batch)), Ok(StorageAnswer::Stored)) => {
                self.failures = 0;
                batch.deleted.iter().for_each(|peer| _ = self.rows.remove(peer));
                self.rows.extend(batch.put);
            }
            (asked, _) => {
                counters.add("peerstore.store_failed", 1);
                self.not_before = now + (DELAY * 2_u32.saturating_pow(self.failures)).min(MAX_DELAY);
                self.failures = self.failures.saturating_add(1);
                if let Some(Asked::Store(batch)) = asked {
                    // What was to be deleted may be wanted again, and then says something else.
                    batch.put.iter().chain(&batch.deleted).for_each(|peer| store.note(now, *peer));
                    self.stale.extend(batch.stale);
                    self.refresh = Some(now);
                }
            }
        }
    }

    /// Stores what there is without waiting for more.
    pub(crate) fn hurry(&mut self, now: Instant) {
        self.is_urgent = true;
        self.refresh = Some(now);
    }

    fn loaded(
        &mut self,
        now: Instant,
        unix: UnixTime,
        store: &mut Peerstore,
        counters: &mut Counters,
        page: &Rows,
    ) {
        for (key, value) in &page.rows {
            match Row::read(key, value) {
                Some((peer, row)) => {
                    self.rows.insert(peer);
                    if !store.restore(now, unix, peer, row) {
                        counters.add("peerstore.dropped_rows", 1);
                    }
                }
                None => {
                    counters.add("peerstore.corrupt_rows", 1);
                    self.stale.push(key.clone());
                }
            }
        }
        match page.rows.last().filter(|_| page.more) {
            Some((last, _)) => self.phase = Phase::Loading(Some(last.clone())),
            None => {
                self.phase = Phase::Ready;
                self.refresh = Some(now);
            }
        }
    }

    /// Deletes what is of no use.
    fn tidy(&mut self, wanted: &BTreeSet<PeerId>) -> Batch {
        let mut batch = Batch::default();
        for key in std::mem::take(&mut self.stale) {
            batch.push(Write::Delete { key: key.clone() });
            batch.stale.push(key);
        }
        for peer in self.rows.difference(wanted) {
            batch.push(Write::Delete { key: peer.to_bytes().into() });
            batch.deleted.push(*peer);
        }
        batch
    }

    /// Makes room in the table, and then writes what is new.
    fn write(&mut self, now: Instant, unix: UnixTime, store: &mut Peerstore) -> Batch {
        let reached = store.connected_where_dialled();
        if self.refresh.take_if(|at| *at <= now).is_some() {
            reached.iter().for_each(|peer| store.note(now, *peer));
        }
        if self.refresh.is_none() && !reached.is_empty() {
            self.refresh = Some(now + (store.config().reached_ttl / 3).max(DELAY));
        }
        let wanted = store.worth_storing(now, self.most);
        let mut batch = self.tidy(&wanted);
        let mut changed = store.take_changes();
        changed.retain(|peer| wanted.contains(peer));
        changed.extend(wanted.difference(&self.rows));
        let was_urgent = std::mem::take(&mut self.is_urgent);
        for peer in changed {
            if batch.size >= MAX_BATCH {
                store.note(now, peer);
                self.is_urgent = was_urgent;
            } else if let Some(row) = store.row(now, unix, &peer) {
                batch.push(Write::Put { key: peer.to_bytes().into(), value: row.write() });
                batch.put.push(peer);
            }
        }
        batch
    }
}

impl Batch {
    fn push(&mut self, write: Write) {
        self.size += write.size();
        self.writes.push(write);
    }
}

#[cfg(test)]
mod tests;
