//! What clients read, connection by connection.
//!
//! A client that has registered is known by its record. One that only discovers is known by what identify tells of its
//! library, which may come after its first question; the question then waits for it.

use std::{collections::BTreeMap, time::Duration};

use super::dialect::Dialect;
use crate::{
    ids::ConnectionId,
    info::Info,
    time::{Instant, Timers},
};

/// How long a question waits for identify: a few round trips, loss included. Clients wait for ten seconds or more for
/// their answer.
const WAIT: Duration = Duration::from_secs(2);
/// Connections whose questions may wait at a time. The questions of one more are answered at once.
const MAX_AWAITED: usize = 1024;

/// The clients of connections that are known, or waited for.
#[derive(Debug, Default)]
pub(super) struct Readers {
    clients: BTreeMap<ConnectionId, Reader>,
    timers: Timers<ConnectionId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    /// Questions wait for identify: until it comes, a record is registered, or the time is over.
    Awaited(Instant),
    /// Identify did not come in time. It may still.
    Silent,
    /// Identify told what it is.
    Identified(Dialect),
    /// It registered a record of this kind.
    Registered(Dialect),
}

/// What is to be done with a client's question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Answer it in this dialect.
    Answer(Dialect),
    /// Wait for identify.
    Wait,
    /// Answer it by a guess, as too many are waited for.
    Guess,
}

impl Readers {
    /// A client whose records are not known asks.
    pub(super) fn on_question(&mut self, connection: ConnectionId, now: Instant) -> Turn {
        match self.clients.get(&connection) {
            Some(Reader::Identified(dialect) | Reader::Registered(dialect)) => Turn::Answer(*dialect),
            Some(Reader::Awaited(_)) => Turn::Wait,
            Some(Reader::Silent) => Turn::Answer(Dialect::GUESS),
            None if self.timers.len() >= MAX_AWAITED => Turn::Guess,
            None => {
                self.set(connection, Reader::Awaited(now + WAIT));
                self.timers.set(now + WAIT, connection);
                Turn::Wait
            }
        }
    }

    /// Identify has come. Returns whether questions waited for it.
    pub(super) fn on_identified(&mut self, connection: ConnectionId, info: &Info) -> bool {
        if matches!(self.clients.get(&connection), Some(Reader::Registered(_))) {
            return false;
        }
        self.set(connection, Reader::Identified(Dialect::of_library(info)))
    }

    /// The client has registered. Returns whether questions waited.
    pub(super) fn on_registered(&mut self, connection: ConnectionId, dialect: Dialect) -> bool {
        self.set(connection, Reader::Registered(dialect))
    }

    pub(super) fn on_disconnected(&mut self, connection: ConnectionId) {
        if let Some(Reader::Awaited(at)) = self.clients.remove(&connection) {
            self.timers.clear(at, connection);
        }
    }

    /// A connection whose questions have waited long enough.
    pub(super) fn pop_silent(&mut self, now: Instant) -> Option<ConnectionId> {
        let (_, connection) = self.timers.pop_due(now)?;
        self.clients.insert(connection, Reader::Silent);
        Some(connection)
    }

    /// When the next one has.
    pub(super) fn next(&self) -> Option<Instant> {
        self.timers.next()
    }

    pub(super) fn len(&self) -> usize {
        self.clients.len() + self.timers.len()
    }

    /// Returns whether questions waited.
    fn set(&mut self, connection: ConnectionId, reader: Reader) -> bool {
        match self.clients.insert(connection, reader) {
            Some(Reader::Awaited(at)) => {
                self.timers.clear(at, connection);
                true
            }
            _ => false,
        }
    }
}
