//! An embedder's store, which outlives the nodes that it serves.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;
use peerless_core::{
    node::Event,
    storage::{Rows, StorageAnswer, StorageAsk, StorageId, StorageRequest, StoreError, Write},
};

use crate::{host::HostId, world::World};

/// Tables of rows, and how many requests of the node that runs now were seen.
#[derive(Debug, Default)]
pub struct Store {
    /// The rows of each table.
    pub tables: BTreeMap<&'static str, BTreeMap<Bytes, Bytes>>,
    /// Whether it fails to do anything.
    pub is_broken: bool,
    taken: usize,
    last: Option<StorageId>,
}

impl Store {
    /// What the node of `host` asks for next, if anything. To be answered by the test.
    pub fn next(&mut self, w: &World, host: HostId) -> Option<StorageRequest> {
        let mut requests = w[host].log().iter().filter_map(|(_, event)| match event {
            Event::Storage(request) => Some(request.clone()),
            _ => None,
        });
        let request = requests.nth(self.taken)?;
        self.taken += 1;
        self.last = Some(request.id);
        Some(request)
    }

    /// The request that it saw last.
    pub fn last(&self) -> Option<StorageId> {
        self.last
    }

    /// Rows of a table.
    pub fn len(&self, table: &str) -> usize {
        self.tables.get(table).map_or(0, BTreeMap::len)
    }

    /// From now on it serves the node that has been started in place of another, and whose log is its own.
    pub fn serves_another(&mut self) {
        self.taken = 0;
    }

    /// Does everything that it is asked for; gives one row at a time.
    pub fn serve(&mut self, w: &mut World, host: HostId) {
        while let Some(StorageRequest { id, table, ask }) = self.next(w, host) {
            let answer = match self.is_broken {
                true => Err(StoreError::Failed("no space".into())),
                false => Ok(self.answer(table, ask)),
            };
            w.command(host, |node, now| node.handle_storage(now, id, answer));
        }
    }

    fn answer(&mut self, table: &'static str, ask: StorageAsk) -> StorageAnswer {
        let table = self.tables.entry(table).or_default();
        match ask {
            StorageAsk::Load { after } => {
                let from = after.map_or(Bound::Unbounded, Bound::Excluded);
                let mut rows = table.range((from, Bound::Unbounded));
                let row = rows.next().map(|(key, value)| (key.clone(), value.clone()));
                StorageAnswer::Loaded(Rows { rows: row.into_iter().collect(), more: rows.next().is_some() })
            }
            StorageAsk::Store(writes) => {
                for write in writes {
                    match write {
                        Write::Put { key, value } => _ = table.insert(key, value),
                        Write::Delete { key } => _ = table.remove(&key),
                    }
                }
                StorageAnswer::Stored
            }
            other => panic!("{other:?}"),
        }
    }
}
