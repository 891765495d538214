//! Who is registered where: the registrations with their orders, and whose records they are. No protocol, no clock.
//!
//! A peer has one record of each kind for all its namespaces, the newest; names are kept once. So a registration is a
//! row of numbers, and each operation looks up hashes and touches a few ordered maps.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, Hash},
};

use hashbrown::HashTable;
use libp2p_identity::PeerId;
use slab::Slab;
use smallvec::SmallVec;

use super::{
    cookie::Position,
    dialect::Record,
    order::{Entry, Order},
    owners::{Owner, Owners},
};
use crate::{
    protocols::relay::limits::Place,
    rng::HashKeys,
    time::{Instant, Timers},
};

/// Registrations read together.
const FETCHED: usize = 32;

/// A registration's slot. It may be taken by another after the registration has ended.
pub(super) type Slot = u32;

/// A binary PeerId, without a place of its own in memory if it is as short as those of libp2p.
pub(super) type PeerBytes = SmallVec<[u8; 40]>;

/// All registrations.
#[derive(Debug)]
pub(super) struct Table {
    keys: HashKeys,
    registrations: Slab<Registration>,
    /// Until when each lasts, in the same places: what pages read of registrations.
    expires: Vec<Instant>,
    by_pair: HashTable<Slot>,
    owners: Owners,
    namespaces: Slab<Namespace>,
    namespaces_by_name: HashTable<u32>,
    all: Orders,
    /// That of a namespace in which nobody is registered.
    nothing: Orders,
    expiry: Timers<Slot>,
    hosts: BTreeMap<Place, usize>,
    latest: u64,
}

/// One peer in one namespace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Registration {
    pub(super) owner: u32,
    pub(super) namespace: u32,
    /// Its number when it was made.
    pub(super) created: u64,
    /// Its number when it was last refreshed.
    pub(super) refreshed: u64,
    /// Its timer, which is not armed anew before it is due: most registrations are refreshed long before.
    timer: Instant,
}

#[derive(Debug)]
struct Namespace {
    name: Box<str>,
    orders: Orders,
}

/// The orders in which registrations are read; see [`Position`].
#[derive(Debug, Default)]
struct Orders {
    by_created: Order,
    by_refreshed: Order,
}

/// What a registration was when it ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) peer: PeerBytes,
    pub(super) namespace: Box<str>,
    /// Whether the peer is registered nowhere else.
    pub(super) last: bool,
}

impl Ended {
    /// The peer.
    pub(super) fn peer(&self) -> PeerId {
        peer_of(&self.peer)
    }
}

/// A part of a reading.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// This one is next, and then the reading stands here.
    Next(Entry, Position),
    /// There is no more for now, and the next reading starts here.
    End(Position),
}

impl Table {
    pub(super) fn new(keys: HashKeys) -> Self {
        Self {
            keys,
            registrations: Slab::new(),
            expires: Vec::new(),
            by_pair: HashTable::new(),
            owners: Owners::new(keys),
            namespaces: Slab::new(),
            namespaces_by_name: HashTable::new(),
            all: Orders::default(),
            nothing: Orders::default(),
            expiry: Timers::default(),
            hosts: BTreeMap::new(),
            latest: 0,
        }
    }

    /// Number of registrations.
    pub(super) fn len(&self) -> usize {
        self.registrations.len()
    }

    /// Number of peers that are registered somewhere.
    pub(super) fn owners(&self) -> usize {
        self.owners.len()
    }

    /// Number of namespaces in which somebody is registered.
    pub(super) fn namespaces(&self) -> usize {
        self.namespaces.len()
    }

    /// The number given last.
    pub(super) fn latest(&self) -> u64 {
        self.latest
    }

    /// Gives no number up to `latest` any more.
    pub(super) fn skip_to(&mut self, latest: u64) {
        self.latest = self.latest.max(latest);
    }

    // Looking up.

    /// The peer's number, while it is registered somewhere.
    pub(super) fn owner(&self, peer: &[u8]) -> Option<u32> {
        self.owners.find(peer)
    }

    /// The peer with this number.
    pub(super) fn owner_at(&self, owner: u32) -> Owner<'_> {
        self.owners.get(owner)
    }

    /// The namespace's number, while somebody is registered in it.
    pub(super) fn namespace(&self, name: &str) -> Option<u32> {
        let hash = self.hash(name.as_bytes());
        self.namespaces_by_name.find(hash, |at| *self.namespaces[*at as usize].name == *name).copied()
    }

    /// The name of the namespace of the registration in a slot.
    pub(super) fn name_at(&self, slot: Slot) -> &str {
        &self.namespaces[self.registrations[slot as usize].namespace as usize].name
    }

    /// Registrations in the namespace with this number.
    pub(super) fn in_namespace(&self, namespace: u32) -> usize {
        self.namespaces[namespace as usize].orders.by_created.len()
    }

    /// Registrations that are counted at a host.
    pub(super) fn at_host(&self, host: Place) -> usize {
        self.hosts.get(&host).copied().unwrap_or(0)
    }

    /// Where the peer's registration in the namespace is.
    pub(super) fn find(&self, owner: u32, namespace: u32) -> Option<Slot> {
        let is = |at: &Slot| {
            let found = &self.registrations[*at as usize];
            (found.owner, found.namespace) == (owner, namespace)
        };
        self.by_pair.find(self.hash((owner, namespace)), is).copied()
    }

    /// The registration in a slot.
    pub(super) fn get(&self, slot: Slot) -> Option<&Registration> {
        self.registrations.get(slot as usize)
    }

    /// When the registration in a slot ends.
    pub(super) fn expires(&self, slot: Slot) -> Instant {
        self.expires[slot as usize]
    }

    // Changes.

    /// Makes room for a peer, with no registrations yet. If none follows, [`forget_idle`](Self::forget_idle).
    pub(super) fn add_owner(&mut self, peer: &[u8]) -> u32 {
        self.owners.add(peer)
    }

    /// Drops all peers that are registered nowhere, and names them.
    pub(super) fn forget_idle(&mut self) -> Vec<PeerBytes> {
        let idle = self.owners.idle().into_iter();
        idle.map(|owner| {
            let peer = self.owners.get(owner).peer().into();
            self.owners.forget(owner);
            peer
        })
        .collect()
    }

    /// Keeps a record as the one that its peer gave last; says whether anything changed.
    pub(super) fn put_record(&mut self, owner: u32, record: &Record) -> bool {
        self.owners.put(owner, record)
    }

    /// Keeps a record that was given beside the last, which is of another kind; says whether anything changed.
    pub(super) fn put_beside(&mut self, owner: u32, record: Record) -> bool {
        self.owners.put_beside(owner, record)
    }

    /// Counts all registrations of a peer somewhere else from now on.
    pub(super) fn move_owner(&mut self, owner: u32, host: Option<Place>) {
        let account = self.owners.account(owner);
        let (count, old) = (account.registrations, std::mem::replace(&mut account.host, host));
        self.uncount(old, count);
        self.count(host, count);
    }

    /// Registers a peer, or refreshes its registration; returns the slot, and whether it is a new one.
    pub(super) fn register(&mut self, owner: u32, namespace: &str, expires: Instant) -> (Slot, bool) {
        let number = self.latest + 1;
        let found = self.namespace(namespace).and_then(|namespace| self.find(owner, namespace));
        let Some(slot) = found else {
            return (self.insert(owner, namespace, (number, number), expires), true);
        };
        self.latest = number;
        let registration = &mut self.registrations[slot as usize];
        let old = std::mem::replace(&mut registration.refreshed, number);
        self.expires[slot as usize] = expires;
        if expires < registration.timer {
            self.expiry.clear(registration.timer, slot);
            registration.timer = expires;
            self.expiry.set(expires, slot);
        }
        let orders = &mut self.namespaces[registration.namespace as usize].orders;
        for orders in [orders, &mut self.all] {
            orders.by_refreshed.insert(Entry { number, slot, owner });
            orders.by_refreshed.remove(old, slot);
        }
        (slot, false)
    }

    /// Adds a registration that is not there, with its numbers when it was made and last refreshed.
    pub(super) fn insert(
        &mut self,
        owner: u32,
        namespace: &str,
        (created, refreshed): (u64, u64),
        expires: Instant,
    ) -> Slot {
        self.skip_to(created.max(refreshed));
        let namespace = self.add_namespace(namespace);
        let registration = Registration { owner, namespace, created, refreshed, timer: expires };
        let slot = self.registrations.insert(registration) as Slot;
        match self.expires.get_mut(slot as usize) {
            Some(place) => *place = expires,
            None => self.expires.push(expires),
        }
        let hash = self.hash((owner, namespace));
        let Self { registrations, by_pair, keys, .. } = self;
        by_pair.insert_unique(hash, slot, |at| {
            let Registration { owner, namespace, .. } = registrations[*at as usize];
            keys.hash_one((owner, namespace))
        });
        for orders in [&mut self.namespaces[namespace as usize].orders, &mut self.all] {
            orders.by_created.insert(Entry { number: created, slot, owner });
            orders.by_refreshed.insert(Entry { number: refreshed, slot, owner });
        }
        self.expiry.set(expires, slot);
        let account = self.owners.account(owner);
        account.registrations += 1;
        let host = account.host;
        self.count(host, 1);
        slot
    }

    /// Ends a registration, and drops its peer and its namespace if it was their last.
    pub(super) fn remove(&mut self, slot: Slot) -> Option<Ended> {
        let registration = self.registrations.try_remove(slot as usize)?;
        let Registration { owner, namespace, created, refreshed, timer, .. } = registration;
        let hash = self.hash((owner, namespace));
        if let Ok(entry) = self.by_pair.find_entry(hash, |at| *at == slot) {
            entry.remove();
        }
        for orders in [&mut self.namespaces[namespace as usize].orders, &mut self.all] {
            orders.by_created.remove(created, slot);
            orders.by_refreshed.remove(refreshed, slot);
        }
        self.expiry.clear(timer, slot);
        let account = self.owners.account(owner);
        account.registrations -= 1;
        let (host, last) = (account.host, account.registrations == 0);
        let peer = self.owners.get(owner).peer().into();
        self.uncount(host, 1);
        if last {
            self.owners.forget(owner);
        }
        let name = self.namespaces[namespace as usize].name.clone();
        if self.in_namespace(namespace) == 0 {
            let hash = self.hash(name.as_bytes());
            if let Ok(entry) = self.namespaces_by_name.find_entry(hash, |at| *at == namespace) {
                entry.remove();
            }
            self.namespaces.remove(namespace as usize);
        }
        Some(Ended { peer, namespace: name, last })
    }

    /// Ends the next registration whose time is up.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Ended> {
        loop {
            let (_, slot) = self.expiry.pop_due(now)?;
            match self.registrations.get_mut(slot as usize) {
                Some(registration) if self.expires[slot as usize] > now => {
                    registration.timer = self.expires[slot as usize];
                    self.expiry.set(registration.timer, slot);
                }
                _ => return self.remove(slot),
            }
        }
    }

    /// When to look for registrations whose time is up: not later than the next.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.expiry.next()
    }

    // Reading.

    /// Where the first reading begins.
    pub(super) fn start(&self) -> Position {
        Position::Listing { after: 0, until: self.latest }
    }

    /// Reads a namespace, or all of them, from `position` on; about `wanted` steps will be taken. The last one is
    /// [`Step::End`].
    pub(super) fn read(
        &self,
        namespace: Option<&str>,
        position: Position,
        wanted: usize,
    ) -> impl Iterator<Item = Step> {
        let orders = match namespace {
            None => &self.all,
            Some(name) => {
                self.namespace(name).map_or(&self.nothing, |at| &self.namespaces[at as usize].orders)
            }
        };
        let (order, after, last, end) = match position {
            Position::Listing { after, until } => (&orders.by_created, after, until, until),
            Position::Following { after } => (&orders.by_refreshed, after, u64::MAX, self.latest),
        };
        let at = move |number| match position {
            Position::Listing { until, .. } => Position::Listing { after: number, until },
            Position::Following { .. } => Position::Following { after: number },
        };
        self.fetched(order.after(after).take_while(move |entry| entry.number <= last), wanted)
            .map(move |entry| Step::Next(entry, at(entry.number)))
            .chain([Step::End(Position::Following { after: end })])
    }

    /// The same entries, a few at a time until there are `wanted`, with what they lead to brought into the processor's
    /// caches together: what follows each other in an order lies anywhere in memory.
    fn fetched(
        &self,
        mut entries: impl Iterator<Item = Entry>,
        wanted: usize,
    ) -> impl Iterator<Item = Entry> {
        let few = wanted.clamp(1, FETCHED);
        std::iter::from_fn(move || {
            let some: SmallVec<[Entry; FETCHED]> = entries.by_ref().take(few).collect();
            (!some.is_empty()).then(|| {
                self.touch(&some);
                some
            })
        })
        .flatten()
    }

    fn touch(&self, entries: &[Entry]) {
        let card = |entry: &Entry| self.owners.get(entry.owner).card();
        let mut sum = 0;
        for entry in entries {
            sum ^= self.expires(entry.slot).as_nanos() ^ u64::from(card(entry).touch());
        }
        for entry in entries {
            sum ^= u64::from(card(entry).touch_overflow());
        }
        std::hint::black_box(sum);
    }

    fn add_namespace(&mut self, name: &str) -> u32 {
        if let Some(namespace) = self.namespace(name) {
            return namespace;
        }
        let hash = self.hash(name.as_bytes());
        let namespace = Namespace { name: name.into(), orders: Orders::default() };
        let at = self.namespaces.insert(namespace) as u32;
        let Self { namespaces, namespaces_by_name, keys, .. } = self;
        namespaces_by_name
            .insert_unique(hash, at, |at| keys.hash_one(namespaces[*at as usize].name.as_bytes()));
        at
    }

    fn count(&mut self, host: Option<Place>, count: usize) {
        if let Some(host) = host.filter(|_| count > 0) {
            *self.hosts.entry(host).or_default() += count;
        }
    }

    fn uncount(&mut self, host: Option<Place>, count: usize) {
        let Some(host) = host.filter(|_| count > 0) else { return };
        if let Some(used) = self.hosts.get_mut(&host) {
            *used -= count;
            if *used == 0 {
                self.hosts.remove(&host);
            }
        }
    }

    fn hash(&self, key: impl Hash) -> u64 {
        self.keys.hash_one(key)
    }
}

/// The PeerId in bytes that were made from one.
pub(super) fn peer_of(bytes: &[u8]) -> PeerId {
    PeerId::from_bytes(bytes).expect("peers are kept as the bytes of their PeerIds")
}
