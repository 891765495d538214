//! What behaviours and the peerstore keep beyond the life of a node: rows of bytes in named tables, in the embedder's own
//! store.
//!
//! A behaviour asks with [`Action::Load`](crate::behaviour::Action::Load) and
//! [`Action::Store`](crate::behaviour::Action::Store). If [`Config::storage`](crate::node::Config::storage) is set, the
//! embedder gets [`Event::Storage`](crate::node::Event::Storage) and answers with
//! [`Node::handle_storage`](crate::node::Node::handle_storage), whenever it likes: nothing waits but what needs the
//! answer. If it is not set, nobody is asked: every table is empty and every write succeeds, into nothing.
//!
//! A behaviour has one request under way at a time and collects meanwhile what it writes next, so an embedder that
//! answers after each sync to disk commits in groups without doing anything for it, and its queue is as short as the
//! list of those that store.

use bytes::Bytes;

/// One change of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Set the row.
    Put {
        /// Its key.
        key: Bytes,
        /// Its value.
        value: Bytes,
    },
    /// Remove the row, if it is there.
    Delete {
        /// Its key.
        key: Bytes,
    },
}

impl Write {
    /// Which row it is about.
    pub fn key(&self) -> &Bytes {
        let (Self::Put { key, .. } | Self::Delete { key }) = self;
        key
    }

    /// Bytes of the key and the value.
    pub fn size(&self) -> usize {
        match self {
            Self::Put { key, value } => key.len() + value.len(),
            Self::Delete { key } => key.len(),
        }
    }
}

/// Names a request to the embedder's store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorageId(pub u64);

/// The embedder's store is asked for something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageRequest {
    /// Comes back in the answer.
    pub id: StorageId,
    /// Which table; tables come into being with their first row.
    pub table: &'static str,
    /// What is asked for.
    pub ask: StorageAsk,
}

/// What a store is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StorageAsk {
    /// The rows behind a key, in ascending order of their keys; as many as the store likes to give at once, but at
    /// least one if there is one. Answered by [`StorageAnswer::Loaded`].
    Load {
        /// The last key that was given; `None` starts at the first row.
        after: Option<Bytes>,
    },
    /// Make these changes, in order and all or none of them. Answered by [`StorageAnswer::Stored`] when they will
    /// survive a crash.
    Store(Vec<Write>),
}

/// What a store answers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StorageAnswer {
    /// Some rows of the table.
    Loaded(Rows),
    /// The changes are made.
    Stored,
}

/// Rows of a table, in ascending order of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Keys and values.
    pub rows: Vec<(Bytes, Bytes)>,
    /// Whether there are more behind the last of these; without any it is ignored.
    pub more: bool,
}

/// Why a store did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store failed; the embedder's words.
    #[error("the store failed: {0}")]
    Failed(String),
    /// It answered something else than what it was asked for.
    #[error("the store answered another question")]
    Mismatch,
}
