//! Between those that keep something, the behaviours and the peerstore, and the embedder's store.

use std::collections::BTreeMap;

use super::{Node, pump::Work};
use crate::{
    behaviour::{Input, Reply},
    ids::Token,
    node::Event,
    storage::{Rows, StorageAnswer, StorageAsk, StorageId, StorageRequest, StoreError},
    swarm::peerstore::{self, Archive},
    time::Instant,
};

/// The requests that the embedder has not answered yet.
#[derive(Debug)]
pub(super) struct Storage {
    /// Whether there is a store at all.
    is_there: bool,
    next: u64,
    waiting: BTreeMap<StorageId, Waiting>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    asker: Asker,
    is_load: bool,
}

/// Who asks the store.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asker {
    /// The behaviour with this index, under this token.
    Behaviour(usize, Token),
    Peerstore,
}

impl Storage {
    pub(super) fn new(is_there: bool) -> Self {
        Self { is_there, next: 0, waiting: BTreeMap::new() }
    }

    /// Requests under way.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

impl Node {
    /// The answer to [`Event::Storage`]. An id that is not waited for changes nothing.
    pub fn handle_storage(&mut self, now: Instant, id: StorageId, answer: Result<StorageAnswer, StoreError>) {
        self.advance(now);
        if let Some(waiting) = self.storage.waiting.remove(&id) {
            self.stored(waiting, answer);
        }
        self.pump();
    }

    /// Asks the embedder's store, if there is one.
    pub(super) fn ask_store(&mut self, asker: Asker, table: &'static str, ask: StorageAsk) {
        let is_load = matches!(ask, StorageAsk::Load { .. });
        let waiting = Waiting { asker, is_load };
        if !self.storage.is_there {
            let nothing =
                if is_load { StorageAnswer::Loaded(Rows::default()) } else { StorageAnswer::Stored };
            return self.stored(waiting, Ok(nothing));
        }
        let id = StorageId(self.storage.next);
        self.storage.next += 1;
        self.storage.waiting.insert(id, waiting);
        self.emit(Event::Storage(StorageRequest { id, table, ask }));
    }

    fn stored(&mut self, waiting: Waiting, answer: Result<StorageAnswer, StoreError>) {
        let Waiting { asker, is_load } = waiting;
        if answer.is_err() {
            self.counters.add("storage.failed", 1);
        }
        let (behaviour, token) = match asker {
            Asker::Behaviour(behaviour, token) => (behaviour, token),
            Asker::Peerstore => return self.archive_answered(answer),
        };
        let reply = if is_load {
            Reply::Loaded(answer.and_then(|answer| match answer {
                StorageAnswer::Loaded(rows) => Ok(rows),
                StorageAnswer::Stored => Err(StoreError::Mismatch),
            }))
        } else {
            Reply::Stored(answer.and_then(|answer| match answer {
                StorageAnswer::Stored => Ok(()),
                StorageAnswer::Loaded(_) => Err(StoreError::Mismatch),
            }))
        };
        self.work.push_back(Work::Input(behaviour, Input::Reply(token, reply)));
    }

    /// Begins to read what of the peerstore is stored, if there is a store.
    pub(super) fn open_archive(&mut self) {
        if self.storage.is_there {
            self.archive = Archive::new(&mut self.peerstore);
            self.archive_peers();
        }
    }

    /// Reads and writes what of the peerstore is stored, if it is time.
    pub(super) fn archive_peers(&mut self) {
        let (now, unix) = (self.now, self.wall.at(self.now));
        let ask = self.archive.as_mut().and_then(|archive| archive.ask(now, unix, &mut self.peerstore));
        if let Some(ask) = ask {
            self.ask_store(Asker::Peerstore, peerstore::TABLE, ask);
        }
    }

    fn archive_answered(&mut self, answer: Result<StorageAnswer, StoreError>) {
        let (now, unix) = (self.now, self.wall.at(self.now));
        let Some(archive) = &mut self.archive else { return };
        let was_loading = archive.is_loading();
        archive.answered(now, unix, &mut self.peerstore, &mut self.counters, answer);
        if was_loading && !archive.is_loading() {
            self.begin_unplanned();
            self.auto_connect.begin(now);
            self.auto_connect();
        }
        self.archive_peers();
    }
}
