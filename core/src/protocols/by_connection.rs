//! What a behaviour keeps per stream or per request, found by its id and, when a connection ends, by the connection.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::ConnectionId;

/// Values by key, none of which outlives the connection it was made on.
#[derive(Debug)]
pub(crate) struct ByConnection<K, V> {
    entries: BTreeMap<K, (ConnectionId, V)>,
    keys: BTreeMap<ConnectionId, BTreeSet<K>>,
}

impl<K, V> Default for ByConnection<K, V> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), keys: BTreeMap::new() }
    }
}

impl<K: Ord + Copy, V> ByConnection<K, V> {
    pub(crate) fn insert(&mut self, key: K, connection: ConnectionId, value: V) {
        self.remove(key);
        self.entries.insert(key, (connection, value));
        self.keys.entry(connection).or_default().insert(key);
    }

    pub(crate) fn get(&self, key: K) -> Option<&V> {
        self.entries.get(&key).map(|(_, value)| value)
    }

    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        self.entries.get_mut(&key).map(|(_, value)| value)
    }

    /// The value and the connection it was made on.
    pub(crate) fn entry(&self, key: K) -> Option<(ConnectionId, &V)> {
        self.entries.get(&key).map(|(connection, value)| (*connection, value))
    }

    /// All keys, in order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = K> {
        self.entries.keys().copied()
    }

    /// The keys of a connection, in order.
    pub(crate) fn on_connection(&self, connection: ConnectionId) -> Vec<K> {
        self.keys.get(&connection).into_iter().flatten().copied().collect()
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.entries.values_mut().map(|(_, value)| value)
    }

    pub(crate) fn remove(&mut self, key: K) -> Option<(ConnectionId, V)> {
        let (connection, value) = self.entries.remove(&key)?;
        if let Some(keys) = self.keys.get_mut(&connection) {
            keys.remove(&key);
            if keys.is_empty() {
                self.keys.remove(&connection);
            }
        }
        Some((connection, value))
    }

    /// Takes everything that lived on `connection`, in the order of the keys.
    pub(crate) fn remove_connection(&mut self, connection: ConnectionId) -> Vec<(K, V)> {
        let keys = self.keys.remove(&connection).unwrap_or_default();
        keys.into_iter().filter_map(|key| self.entries.remove(&key).map(|(_, value)| (key, value))).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}
