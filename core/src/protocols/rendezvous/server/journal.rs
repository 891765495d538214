//! What is to be stored, and who waits for it: one request to the store at a time, and everything that comes meanwhile
//! goes in the next.

use std::time::Duration;

use libp2p_identity::PeerId;

use crate::{
    behaviour::Context,
    ids::{StreamId, Token},
    storage::Write,
};

use super::{
    TABLE,
    rows::{self, Meta},
};

/// Most bytes that wait for the store before registrations are refused.
const MAX_WAITING: usize = 16 << 20;
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
    /// The request under way.
    token: Option<Token>,
    /// Who waits for that.
    storing: Vec<Waiting>,
    /// What goes in the next request.
    writes: Vec<Write>,
    size: usize,
    /// Who waits for the next request.
    waiting: Vec<Waiting>,
    /// Whether a request failed, so that the store may lack what it was once given.
    pub(super) has_gaps: bool,
}

impl Journal {
    pub(super) fn new(meta: Meta) -> Self {
        let (token, has_gaps) = (None, false);
        Self { meta, token, storing: Vec::new(), writes: Vec::new(), size: 0, waiting: Vec::new(), has_gaps }
    }

    /// Whether so much waits that nothing more should be accepted.
    pub(super) fn is_full(&self) -> bool {
        self.size >= MAX_WAITING
    }

    /// Requests and writes that wait, and those who wait for them.
    pub(super) fn len(&self) -> usize {
        usize::from(self.token.is_some()) + self.storing.len() + self.writes.len() + self.waiting.len()
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

    /// Sends what there is, unless a request is under way. `latest` is the number given last.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>, latest: u64) {
        if self.token.is_some() || self.writes.is_empty() {
            return;
        }
        // Long before they are used up: a cookie must not show a number that could be given again after a crash.
        if latest.saturating_add(RESERVE / 2) > self.meta.reserved {
            self.meta.reserved = latest.saturating_add(RESERVE);
            self.writes.push(rows::put_meta(self.meta));
        }
        self.size = 0;
        self.storing = std::mem::take(&mut self.waiting);
        self.token = Some(cx.store(TABLE, std::mem::take(&mut self.writes)));
    }

    /// Who waited for the request that has ended; `None` if it is not ours.
    pub(super) fn ended(&mut self, token: Token) -> Option<Vec<Waiting>> {
        self.token.take_if(|ours| *ours == token)?;
        Some(std::mem::take(&mut self.storing))
    }
}
