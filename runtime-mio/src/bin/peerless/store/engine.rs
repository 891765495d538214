//! The database: tables of rows, opened again after a failure.

use std::ops::Bound;

use bytes::Bytes;
use peerless_core::storage::{Rows, StorageAnswer, StorageAsk, Write};
use redb::{Database, TableDefinition, TableError};

use super::disk::{self, OpenError, Source};

/// Bytes of rows that are given at once.
const BATCH: usize = 256 * 1024;
/// The table that shows whether anything can be written; it is there only meanwhile.
const TRIAL: TableDefinition<'_, u64, &'static [u8]> = TableDefinition::new("trial");
/// Bytes of one of its rows.
const TRIAL_ROW: usize = 64 * 1024;

/// A database that is open, or was until something failed.
pub(super) struct Engine {
    source: Source,
    database: Option<Database>,
}

impl Engine {
    /// Opens the database, mends it after a crash, and gives back to the system what it does not need.
    pub(super) fn open(source: Source) -> Result<Self, OpenError> {
        let mut database = disk::open(source()?)?;
        let compacted = disk::guarded(|| database.compact());
        let mut engine = Self { source, database: Some(database) };
        if !matches!(compacted, Ok(Ok(_))) {
            // A full disk has no room for that, but may be read.
            tracing::warn!(?compacted, "the store was not compacted");
            engine.reopen()?;
        }
        Ok(engine)
    }

    /// Opens the database once more after a failure.
    pub(super) fn reopen(&mut self) -> Result<(), OpenError> {
        self.close();
        let disk = (self.source)()?;
        if disk.len()? == 0 {
            return Err(OpenError::Damaged("it is empty".into()));
        }
        disk::rewrite(&disk)?;
        self.database = Some(disk::open(disk)?);
        Ok(())
    }

    /// Writes `size` bytes and deletes them.
    pub(super) fn try_out(&mut self, size: usize) -> Result<(), String> {
        self.with(|database| {
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(TRIAL)?;
                for n in 0..size.div_ceil(TRIAL_ROW) {
                    table.insert(n as u64, &[1; TRIAL_ROW][..])?;
                }
            }
            transaction.commit()?;
            let transaction = database.begin_write()?;
            transaction.delete_table(TRIAL)?;
            Ok(transaction.commit()?)
        })
    }

    /// Does what is asked for. After a failure the database is closed.
    pub(super) fn answer(&mut self, table: &str, ask: &StorageAsk) -> Result<StorageAnswer, String> {
        self.with(|database| match ask {
            StorageAsk::Load { after } => load(database, table, after.as_ref()).map(StorageAnswer::Loaded),
            StorageAsk::Store(writes) => store(database, table, writes).map(|()| StorageAnswer::Stored),
            other => Err(redb::Error::Corrupted(format!("this store cannot do {other:?}"))),
        })
    }

    pub(super) fn close(&mut self) {
        let database = self.database.take();
        if let Err(panic) = disk::guarded(|| drop(database)) {
            tracing::error!(%panic, "the store was not closed properly");
        }
    }

    fn with<T>(&mut self, act: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, String> {
        let Some(database) = &self.database else { return Err("it is closed".into()) };
        let result = match disk::guarded(|| act(database)) {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(panic) => Err(format!("it is damaged ({panic})")),
        };
        if result.is_err() {
            self.close();
        }
        result
    }
}

fn load(database: &Database, table: &str, after: Option<&Bytes>) -> Result<Rows, redb::Error> {
    let read = database.begin_read()?;
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

fn store(database: &Database, table: &str, writes: &[Write]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
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

fn definition(table: &str) -> TableDefinition<'_, &'static [u8], &'static [u8]> {
    TableDefinition::new(table)
}
