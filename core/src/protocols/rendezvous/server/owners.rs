//! Peers that are registered somewhere, and their records: one of each kind for all their namespaces, the newest.

use std::hash::BuildHasher as _;

use hashbrown::HashTable;
use slab::Slab;

use super::{
    card::{Card, Pieces},
    dialect::{self, Dialect, Reads, Record},
};
use crate::{protocols::relay::limits::Place, rng::HashKeys};

/// The peers, by numbers that are given anew once they are free.
#[derive(Debug)]
pub(super) struct Owners {
    keys: HashKeys,
    by_peer: HashTable<u32>,
    /// Who each is, with the record given last.
    cards: Slab<Card>,
    /// The rest, in the same places.
    accounts: Vec<Account>,
}

/// What no page reads of a peer, as long as it has one record.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// Where it is counted: from where it last registered, or before that if there was no room.
    pub(super) host: Option<Place>,
    pub(super) registrations: usize,
    /// The number of the record given last.
    seq: u64,
    /// Records of other kinds, one of each.
    others: Vec<Record>,
}

/// A peer that is registered somewhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner<'a> {
    card: &'a Card,
    account: &'a Account,
}

/// What a client is given as a record.
#[derive(Debug)]
pub(super) enum Given<'a> {
    Kept(Pieces<'a>),
    Made(Vec<u8>),
}

impl Owners {
    pub(super) fn new(keys: HashKeys) -> Self {
        Self { keys, by_peer: HashTable::new(), cards: Slab::new(), accounts: Vec::new() }
    }

    /// Number of peers.
    pub(super) fn len(&self) -> usize {
        self.cards.len()
    }

    /// The peer's number, if it is there.
    pub(super) fn find(&self, peer: &[u8]) -> Option<u32> {
        self.by_peer.find(self.keys.hash_one(peer), |at| self.cards[*at as usize].peer() == peer).copied()
    }

    /// The peer with this number.
    pub(super) fn get(&self, owner: u32) -> Owner<'_> {
        Owner { card: &self.cards[owner as usize], account: &self.accounts[owner as usize] }
    }

    /// The account of the peer with this number.
    pub(super) fn account(&mut self, owner: u32) -> &mut Account {
        &mut self.accounts[owner as usize]
    }

    /// Makes room for a peer, if it is not there.
    pub(super) fn add(&mut self, peer: &[u8]) -> u32 {
        if let Some(owner) = self.find(peer) {
            return owner;
        }
        let at = self.cards.insert(Card::blank(peer));
        match self.accounts.get_mut(at) {
            Some(account) => *account = Account::default(),
            None => self.accounts.push(Account::default()),
        }
        let Self { cards, by_peer, keys, .. } = self;
        let hash = |at: &u32| keys.hash_one(cards[*at as usize].peer());
        by_peer.insert_unique(keys.hash_one(peer), at as u32, hash);
        at as u32
    }

    /// Drops a peer that is registered nowhere.
    pub(super) fn forget(&mut self, owner: u32) {
        let at = owner as usize;
        if self.cards.contains(at) && self.accounts[at].registrations == 0 {
            let hash = self.keys.hash_one(self.cards[at].peer());
            if let Ok(entry) = self.by_peer.find_entry(hash, |at| *at == owner) {
                entry.remove();
            }
            self.cards.remove(at);
            self.accounts[at] = Account::default();
        }
    }

    /// Numbers of the peers that are registered nowhere.
    pub(super) fn idle(&self) -> Vec<u32> {
        let is_idle = |at: &usize| self.accounts[*at].registrations == 0;
        self.cards.iter().map(|(at, _)| at).filter(is_idle).map(|at| at as u32).collect()
    }

    /// Keeps a record as the one given last; says whether anything changed.
    pub(super) fn put(&mut self, owner: u32, record: &Record) -> bool {
        let (card, account) = (&mut self.cards[owner as usize], &mut self.accounts[owner as usize]);
        if card.is(&record.bytes) {
            return false;
        }
        if let Some(last) = record_on(card, account.seq).filter(|last| last.dialect != record.dialect) {
            account.others.push(last);
        }
        account.others.retain(|other| other.dialect != record.dialect);
        account.seq = record.seq;
        *card = card.with(record);
        true
    }

    /// Keeps a record that was given beside the last, which is of another kind; says whether anything changed.
    pub(super) fn put_beside(&mut self, owner: u32, record: Record) -> bool {
        let others = &mut self.accounts[owner as usize].others;
        if others.contains(&record) {
            return false;
        }
        others.retain(|other| other.dialect != record.dialect);
        others.push(record);
        true
    }
}

impl<'a> Owner<'a> {
    /// The binary PeerId.
    pub(super) fn peer(self) -> &'a [u8] {
        self.card.peer()
    }

    /// Where it is counted.
    pub(super) fn host(self) -> Option<Place> {
        self.account.host
    }

    /// In how many namespaces it is.
    pub(super) fn registrations(self) -> usize {
        self.account.registrations
    }

    /// The kind of the record given last.
    pub(super) fn dialect(self) -> Option<Dialect> {
        self.card.dialect()
    }

    /// All records, the one given last at the end.
    pub(super) fn records(self) -> impl Iterator<Item = Record> {
        self.account.others.iter().cloned().chain(record_on(self.card, self.account.seq))
    }

    /// Whether exactly these bytes were given last.
    pub(super) fn gave_last(self, bytes: &[u8]) -> bool {
        self.card.is(bytes)
    }

    /// Whether exactly these bytes were given beside the last.
    pub(super) fn gave_beside(self, bytes: &[u8]) -> bool {
        self.account.others.iter().any(|other| *other.bytes == *bytes)
    }

    /// Whether a record is not older than the one there is of its kind.
    pub(super) fn accepts(self, record: &Record) -> bool {
        let last = self.dialect().map(|dialect| (dialect, self.account.seq));
        let mut kept = self.account.others.iter().map(|other| (other.dialect, other.seq)).chain(last);
        kept.all(|(dialect, seq)| dialect != record.dialect || seq <= record.seq)
    }

    /// What a client is given that reads `reads`; `None` if it can read nothing of this.
    pub(super) fn for_reader(self, reads: Reads) -> Option<Given<'a>> {
        match reads {
            Reads::Any => Dialect::ALL.into_iter().find_map(|dialect| self.of(dialect)),
            Reads::Only(dialect) => {
                let unsigned = || dialect::unsigned(self.peer(), &self.card.pieces().concat());
                let made = || (dialect == Dialect::PeerInfo).then(unsigned).flatten();
                self.of(dialect).or_else(|| made().map(Given::Made))
            }
        }
    }

    /// What pages read.
    pub(super) fn card(self) -> &'a Card {
        self.card
    }

    fn of(self, dialect: Dialect) -> Option<Given<'a>> {
        if self.dialect() == Some(dialect) {
            return Some(Given::Kept(self.card.pieces()));
        }
        let other = self.account.others.iter().find(|other| other.dialect == dialect);
        other.map(|other| Given::Kept([&other.bytes, &[], &[], &[], &[], &[]]))
    }
}

impl Given<'_> {
    /// The bytes, in pieces that follow each other.
    pub(super) fn pieces(&self) -> Pieces<'_> {
        match self {
            Self::Kept(pieces) => *pieces,
            Self::Made(bytes) => [bytes, &[], &[], &[], &[], &[]],
        }
    }
}

fn record_on(card: &Card, seq: u64) -> Option<Record> {
    card.dialect().map(|dialect| Record { dialect, seq, bytes: card.pieces().concat().into() })
}
