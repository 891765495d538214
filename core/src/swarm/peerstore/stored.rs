//! What of the peerstore is worth storing, how it becomes a row, and what becomes of a row in the next node.

use std::{collections::BTreeSet, time::Duration};

use libp2p_identity::PeerId;

use super::{
    Entry, Peerstore, Source,
    known::{Known, Voucher},
    row::{MAX_ADDRESSES, Row, RowAddress},
};
use crate::{
    names::HOP,
    time::{Instant, UnixTime},
};

/// What is not stored yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    /// Peers whose rows say something else; only such of which something is known.
    pub(super) peers: BTreeSet<PeerId>,
    /// Since when there is something to do.
    since: Option<Instant>,
}

/// What makes a peer worth storing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    /// The number of its record, so that an older one is not believed.
    Record,
    /// An address that somebody vouches for.
    Address,
    /// An address that led there.
    Reached,
}

impl Peerstore {
    /// From now on changes are noted.
    pub(super) fn note_changes(&mut self) {
        self.changes.get_or_insert_default();
    }

    /// Since when there are changes.
    pub(super) fn changed_since(&self) -> Option<Instant> {
        self.changes.as_ref()?.since
    }

    /// The peers whose rows say something else than what is known; they do not count as changed any more.
    pub(super) fn take_changes(&mut self) -> BTreeSet<PeerId> {
        self.changes.as_mut().map(std::mem::take).unwrap_or_default().peers
    }

    /// The row of a peer, if there is one, must be written anew.
    pub(super) fn note(&mut self, now: Instant, peer: PeerId) {
        let Some(changes) = &mut self.changes else { return };
        changes.since.get_or_insert(now);
        if self.peers.contains_key(&peer) {
            changes.peers.insert(peer);
        }
    }

    /// The peers that are connected and have an address that led there: it is believed as long as they are, and longer.
    pub(super) fn connected_where_dialled(&self) -> Vec<PeerId> {
        let is_it = |(_, entry): &(&PeerId, &Entry)| entry.connections > 0 && entry.is_reached();
        self.peers.iter().filter(is_it).map(|(peer, _)| *peer).collect()
    }

    pub(super) fn is_worth_storing(&self, now: Instant, peer: &PeerId) -> bool {
        self.changes.is_some() && self.peers.get(peer).is_some_and(|entry| entry.worth(now).is_some())
    }

    /// The peers that are worth storing, the `most` most useful if there are more: those that were reached, then those of
    /// which an address is known, then those of which the number of a record is; and the latest first.
    pub(super) fn worth_storing(&self, now: Instant, most: usize) -> BTreeSet<PeerId> {
        let worth = |(peer, entry): (&PeerId, &Entry)| Some((entry.worth(now)?, entry.touched, *peer));
        let mut all: Vec<_> = self.peers.iter().filter_map(worth).collect();
        if all.len() > most {
            all.select_nth_unstable_by(most, |a, b| b.cmp(a));
            all.truncate(most);
        }
        all.into_iter().map(|(_, _, peer)| peer).collect()
    }

    /// What is to be stored of a peer; `None` if nothing is known of it.
    pub(super) fn row(&self, now: Instant, unix: UnixTime, peer: &PeerId) -> Option<Row> {
        let entry = self.peers.get(peer)?;
        let is_in = |known: &&Known| known.is_worth_storing() && known.is_believed(now);
        let mut known: Vec<_> = entry.addresses.iter().filter(is_in).collect();
        known.sort_by_key(|known| std::cmp::Reverse((known.reached, known.source())));
        let left = |known: &Known| {
            let left = known.expires().saturating_duration_since(now);
            // It holds while the peer is connected, and that may end with the node.
            if known.connections > 0 { left.max(self.config.reached_ttl) } else { left }
        };
        let address = |known: &Known| RowAddress {
            address: known.address.clone(),
            source: known.source(),
            left: (known.expires() != Instant::FAR_FUTURE).then(|| left(known)),
            is_reached: known.reached.is_some(),
        };
        Some(Row {
            written: unix,
            record: entry.record.as_ref().map(|(number, _)| *number),
            is_relay: entry.is_relay(),
            addresses: known.into_iter().take(MAX_ADDRESSES).map(address).collect(),
        })
    }

    /// Takes over what an earlier node knew. What is known already weighs more, and of two records the newer. What others
    /// said is believed no longer than what they say now, whatever became of the wall clock. Returns whether there was
    /// room.
    pub(super) fn restore(&mut self, now: Instant, unix: UnixTime, peer: PeerId, row: Row) -> bool {
        let passed = unix.saturating_duration_since(row.written);
        let longest = self.config.identify_ttl.max(self.config.reached_ttl);
        let mut is_shortened = false;
        let mut expires = |known: &RowAddress| {
            let left = match (known.left, known.source) {
                (None, Source::Embedder) => return Some(Instant::FAR_FUTURE),
                (None, _) => Duration::MAX,
                (Some(left), _) => left.saturating_sub(passed),
            };
            let may_last = if known.source == Source::Embedder { left } else { left.min(longest) };
            is_shortened |= may_last < left;
            (!may_last.is_zero()).then(|| now + may_last)
        };
        let addresses: Vec<_> = row
            .addresses
            .into_iter()
            .filter_map(|known| expires(&known).map(|expires| (known, expires)))
            .collect();
        if addresses.is_empty() && row.record.is_none() {
            return true;
        }
        let is_reached = addresses.iter().any(|(known, _)| known.is_reached);
        if !self.peers.contains_key(&peer) && self.peers.len() >= self.config.peers {
            match self.order.first() {
                Some(least) if *least < (is_reached, Instant::ZERO, peer) => self.remove(now, least.2),
                _ => return false,
            }
        }
        let (most, reached_until) = (self.config.addresses, now + self.config.reached_ttl);
        self.alter(now, Instant::ZERO, peer, |entry| {
            if row.is_relay && entry.protocols.is_empty() {
                entry.protocols.push(HOP);
            }
            let newest = entry.record.as_ref().map(|(number, _)| *number);
            if row.record > newest {
                entry.drop_voucher(Voucher::Certified);
                entry.record = row.record.map(|number| (number, None));
            }
            let has_said =
                |voucher: Voucher| entry.addresses.iter().any(|known| known.until[voucher as usize] > now);
            let said = [Voucher::Identify, Voucher::Rendezvous].map(has_said);
            for (RowAddress { address, source, is_reached, .. }, expires) in addresses {
                let is_outdated = match source {
                    Source::Certified => row.record < newest,
                    Source::Identify => said[0],
                    Source::Rendezvous => said[1],
                    _ => false,
                };
                if is_outdated || !entry.add(address, source.says(), expires, most) || !is_reached {
                    continue;
                }
                let known = entry.addresses.last_mut().expect("it was added");
                known.vouch(Voucher::Dial, expires.min(reached_until));
                // Longer ago than anything that this node reaches.
                known.reached = Some(Instant::ZERO);
            }
        });
        if is_shortened {
            self.note(now, peer);
        }
        true
    }
}

impl Entry {
    /// Why it is worth storing, if it is.
    fn worth(&self, now: Instant) -> Option<Worth> {
        let of_address = |known: &Known| match known.reached {
            Some(_) => Worth::Reached,
            None => Worth::Address,
        };
        let known = self.addresses.iter().filter(|known| known.is_worth_storing() && known.is_believed(now));
        known.map(of_address).max().or(self.record.is_some().then_some(Worth::Record))
    }
}
