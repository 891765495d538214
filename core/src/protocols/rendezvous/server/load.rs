//! Reading what an earlier life has stored.

use std::time::Duration;

use bytes::Bytes;

use super::{
    Event, Phase, Point, Server, TABLE,
    cookie::Baker,
    journal::{Journal, REST},
    rows::{self, Meta, Row},
    table::Table,
};
use crate::{
    behaviour::Context,
    ids::{StreamId, Token},
    rng::HashKeys,
    storage::{Rows, StoreError, Write},
};

/// What the key of cookies is derived for, if the identity's key can be derived from.
const COOKIE_KEY: &[u8] = b"peerless rendezvous cookie";

/// How long a store that cannot be read is left alone at most; [`REST`] at first.
const MAX_REST: Duration = Duration::from_secs(60);

/// The store is being read.
#[derive(Debug)]
pub(super) struct Loading {
    token: Token,
    table: Table,
    meta: Option<Meta>,
    /// Rows that are of no use any more.
    stale: Vec<Write>,
}

impl Server {
    /// Begins to read the store, if that has not begun or is to be tried again.
    pub(super) fn start(&mut self, cx: &mut Context<'_>) {
        let is_due = match self.phase {
            Phase::New => true,
            Phase::Unread { again } => cx.now() >= again,
            Phase::Loading(_) | Phase::Ready(_) => false,
        };
        if is_due {
            let table = Table::new(HashKeys::new(cx.rng()));
            let token = cx.load(TABLE, None);
            self.phase = Phase::Loading(Box::new(Loading { token, table, meta: None, stale: Vec::new() }));
        }
    }

    pub(super) fn on_loaded(&mut self, cx: &mut Context<'_>, token: Token, result: Result<Rows, StoreError>) {
        let Phase::Loading(loading) = &mut self.phase else { return };
        if loading.token != token {
            return;
        }
        match result {
            Ok(Rows { rows, more }) => {
                for (key, value) in &rows {
                    loading.take(cx, key, value, self.config.limits.max_ttl);
                }
                match rows.last().filter(|_| more) {
                    Some((last, _)) => loading.token = cx.load(TABLE, Some(last.clone())),
                    None => self.loaded(cx),
                }
            }
            Err(error) => {
                cx.count("rendezvous.store_failed");
                cx.emit(Event::StoreFailed { error: error.to_string() });
                let wait = REST.saturating_mul(1 << self.load_failures.min(6)).min(MAX_REST);
                self.load_failures = self.load_failures.saturating_add(1);
                self.phase = Phase::Unread { again: cx.now() + wait };
                self.serve_all(cx);
            }
        }
    }

    fn loaded(&mut self, cx: &mut Context<'_>) {
        let Phase::Loading(loading) = std::mem::replace(&mut self.phase, Phase::New) else { return };
        let Loading { mut table, meta, mut stale, .. } = *loading;
        stale.extend(table.forget_idle().iter().map(|peer| rows::delete_owner(peer)));
        if table.len() > 0 {
            cx.emit(Event::Loaded { registrations: table.len() });
        }
        let meta = meta.unwrap_or_else(|| Meta { epoch: cx.rng().bytes(), reserved: 0 });
        table.skip_to(meta.reserved);
        let secret = cx.view().identity.keypair().derive_secret(COOKIE_KEY);
        // Without a secret of the identity the epoch is one: it is random and nobody else knows it.
        let baker = Baker::new(secret.as_ref().map_or(&[], |secret| secret), &meta.epoch);
        let mut journal = Journal::new(meta);
        stale.into_iter().for_each(|write| journal.write(write));
        self.phase = Phase::Ready(Box::new(Point { table, journal, baker }));
        self.serve_all(cx);
    }

    fn serve_all(&mut self, cx: &mut Context<'_>) {
        let streams: Vec<StreamId> = self.exchanges.keys().collect();
        for stream in streams {
            self.serve(cx, stream);
        }
    }
}

impl Loading {
    fn take(&mut self, cx: &mut Context<'_>, key: &Bytes, value: &Bytes, max_ttl: Duration) {
        match Row::read(key, value) {
            Some(Row::Meta(meta)) => self.meta = Some(meta),
            Some(Row::Owner { peer, host, records }) if libp2p_identity::PeerId::from_bytes(peer).is_ok() => {
                let owner = self.table.add_owner(peer);
                self.table.move_owner(owner, host);
                for record in records {
                    self.table.put_record(owner, &record);
                }
            }
            Some(Row::Registration { peer, namespace, created, refreshed, expires }) => {
                // If the wall clock was set back meanwhile, it lasts no longer than it may.
                let left = expires.saturating_duration_since(cx.unix()).min(max_ttl);
                let owner = self.table.owner(peer).filter(|_| !left.is_zero());
                match owner {
                    Some(owner) => {
                        self.table.insert(owner, namespace, (created, refreshed), cx.now() + left);
                    }
                    None => self.stale.push(Write::Delete { key: key.clone() }),
                }
            }
            _ => {
                cx.count("rendezvous.bad_row");
                self.stale.push(Write::Delete { key: key.clone() });
            }
        }
    }
}
