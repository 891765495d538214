//! What the node stores, in one file: a redb database on a thread of its own, so that no sync to disk holds the node up.
//!
//! Each request is one transaction, and its answer is given when that is on the disk. The node asks for one thing at a
//! time and collects meanwhile, so the slower the disk the larger the transactions.

use std::{
    fmt,
    io::ErrorKind,
    ops::Bound,
    path::Path,
    sync::mpsc::{Receiver, Sender, channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use peerless_core::storage::{Rows, StorageAnswer, StorageAsk, StorageRequest, StoreError, Write};
use peerless_mio::{Handle, HandleError};
use redb::{Database, DatabaseError, StorageError, TableDefinition, TableError};

use crate::Failure;

/// Bytes of rows that are given at once.
const BATCH: usize = 256 * 1024;
/// How long to wait before the node is told again, if as many commands wait for it as may.
const RETRY: Duration = Duration::from_millis(1);

/// An open store.
pub(crate) struct Store {
    database: Database,
}

impl Store {
    /// Opens the file or makes it, mends it after a crash, and gives back to the system what it does not need.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        if path.is_dir() {
            return Err(Failure::Usage(format!("--store needs a file, and {shown} is a directory")));
        }
        let failed = |error: String| Failure::Failed(format!("cannot open the store {shown}: {error}"));
        let mut database = Database::create(path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => {
                Failure::Usage(format!("the store {shown} is in use: give each process a file of its own"))
            }
            DatabaseError::UpgradeRequired(_) | DatabaseError::Storage(StorageError::Corrupted(_)) => {
                Failure::Usage(format!("{shown} is not a store of this version: name another file"))
            }
            DatabaseError::Storage(StorageError::Io(error)) if error.kind() == ErrorKind::InvalidData => {
                Failure::Usage(format!("{shown} is not a store: name another file"))
            }
            DatabaseError::Storage(StorageError::Io(error)) if error.kind() == ErrorKind::NotFound => {
                Failure::Usage(format!("the directory of the store {shown} does not exist: make it first"))
            }
            error => failed(error.to_string()),
        })?;
        database.compact().map_err(|error| failed(error.to_string()))?;
        Ok(Self { database })
    }

    /// Serves the node that `handle` leads to, on a thread of its own.
    pub(crate) fn serve(self, handle: Handle) -> Result<Serving, Failure> {
        let (sender, requests) = channel();
        let thread =
            thread::Builder::new().name("store".into()).spawn(move || self.run(&requests, &handle))?;
        Ok(Serving { requests: Some(sender), thread: Some(thread) })
    }

    fn run(&self, requests: &Receiver<StorageRequest>, handle: &Handle) {
        while let Ok(StorageRequest { id, table, ask }) = requests.recv() {
            let answer = self.answer(table, &ask).map_err(|error| StoreError::Failed(error.to_string()));
            if let Err(error) = &answer {
                tracing::error!(%error, table, "the store failed");
            }
            loop {
                let answer = answer.clone();
                match handle.send(move |node, now| node.handle_storage(now, id, answer)) {
                    Err(HandleError::Full) => thread::sleep(RETRY),
                    // If the node is gone, what it asked for last is done all the same.
                    _ => break,
                }
            }
        }
    }

    fn answer(&self, table: &str, ask: &StorageAsk) -> Result<StorageAnswer, redb::Error> {
        match ask {
            StorageAsk::Load { after } => self.load(table, after.as_ref()).map(StorageAnswer::Loaded),
            StorageAsk::Store(writes) => self.store(table, writes).map(|()| StorageAnswer::Stored),
            other => Err(redb::Error::Corrupted(format!("this store cannot do {other:?}"))),
        }
    }

    fn load(&self, table: &str, after: Option<&Bytes>) -> Result<Rows, redb::Error> {
        let read = self.database.begin_read()?;
        let table = match read.open_table(definition(table)) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(Rows::default()),
            table => table?,
        };
        let from = after.map_or(Bound::Unbounded, |key| Bound::Excluded(&key[..]));
        let (mut rows, mut size) = (Vec::new(), 0);
        for row in table.range::<&[u8]>((from, Bound::Unbounded))? {
            if size >= BATCH {
                return Ok(Rows { rows, more: true });
            }
            let (key, value) = row?;
            let row = (Bytes::copy_from_slice(key.value()), Bytes::copy_from_slice(value.value()));
            size += row.0.len() + row.1.len();
            rows.push(row);
        }
        Ok(Rows { rows, more: false })
    }

    fn store(&self, table: &str, writes: &[Write]) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(definition(table))?;
            for write in writes {
                match write {
                    Write::Put { key, value } => drop(table.insert(&key[..], &value[..])?),
                    Write::Delete { key } => drop(table.remove(&key[..])?),
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

/// A store that is served. It ends with what it was asked for, so drop the node before.
#[derive(Debug)]
pub(crate) struct Serving {
    requests: Option<Sender<StorageRequest>>,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    /// Asks for something; the node gets the answer.
    pub(crate) fn ask(&self, request: StorageRequest) {
        if self.requests.as_ref().is_none_or(|requests| requests.send(request).is_err()) {
            tracing::error!("the store's thread is gone");
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.requests = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the store's thread has failed");
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

fn definition(table: &str) -> TableDefinition<'_, &'static [u8], &'static [u8]> {
    TableDefinition::new(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: &[u8]) -> Write {
        Write::Put { key: key.to_owned().into(), value: value.to_vec().into() }
    }

    fn load_all(store: &Store, table: &str) -> Vec<(Bytes, Bytes)> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let Rows { rows, more } = store.load(table, after.as_ref()).unwrap();
            after = rows.last().map(|(key, _)| key.clone());
            all.extend(rows);
            if !more {
                return all;
            }
        }
    }

    #[test]
    fn what_is_stored_is_there_after_it_was_opened_again_in_order_and_by_table() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let store = Store::open(&path).unwrap();
        assert_eq!(load_all(&store, "a"), []);
        let writes: Vec<_> = (0..1000).map(|n| put(&format!("{n:04}"), &[n as u8; 1000])).collect();
        store.store("a", &writes).unwrap();
        store.store("b", &[put("x", b"1"), put("x", b"2"), put("y", b"3")]).unwrap();
        store.store("b", &[Write::Delete { key: "y".into() }, Write::Delete { key: "z".into() }]).unwrap();
        drop(store);
        let store = Store::open(&path).unwrap();
        let a = load_all(&store, "a");
        assert!(a.is_sorted() && a.len() == 1000, "{} rows", a.len());
        assert_eq!(load_all(&store, "b"), [("x".into(), "2".into())]);
        assert!(store.load("a", None).unwrap().more, "in bounded batches");
    }

    #[test]
    fn what_is_no_store_is_refused_in_one_sentence_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes");
        std::fs::write(&path, "not a database, by a long way").unwrap();
        for bad in [folder.path(), &path] {
            let Err(Failure::Usage(sentence)) = Store::open(bad).map(drop) else { panic!("{bad:?}") };
            assert!(sentence.contains("file"), "{sentence}");
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"not a database, by a long way");
        let path = folder.path().join("store");
        let _open = Store::open(&path).unwrap();
        let Err(Failure::Usage(sentence)) = Store::open(&path).map(drop) else { panic!("opened twice") };
        assert!(sentence.contains("in use"), "{sentence}");
    }
}
