use std::collections::BTreeMap;

use multiaddr::Multiaddr;

use super::*;
use crate::{
    rng::Rng,
    swarm::peerstore::{PeerstoreConfig, RecordError, Source},
};

mod naive;

const SECOND: Duration = Duration::from_secs(1);

fn peer(n: u64) -> PeerId {
    let mut secret = [0; 32];
    secret[..8].copy_from_slice(&n.to_be_bytes());
    libp2p_identity::Keypair::ed25519_from_bytes(secret).unwrap().public().to_peer_id()
}

fn place(n: u64) -> Multiaddr {
    format!("/ip4/192.0.2.{}/udp/{}/quic-v1", n % 250 + 1, 4001 + n / 250).parse().unwrap()
}

/// A peerstore, its archive and the embedder's table, which answers at once unless told otherwise.
struct Life {
    now: Instant,
    /// What the wall clock says at the beginning of time.
    unix: UnixTime,
    config: PeerstoreConfig,
    store: Peerstore,
    archive: Archive,
    table: BTreeMap<Bytes, Bytes>,
    counters: Counters,
    /// Rows of a page.
    page: usize,
    requests: usize,
    /// Where the connections that are there were dialled.
    dialled: Vec<(PeerId, Multiaddr)>,
}

impl Life {
    fn new(config: PeerstoreConfig) -> Self {
        let mut store = Peerstore::new(config);
        let archive = Archive::new(&mut store).expect("it wants one");
        let (unix, counters) = (UnixTime::from_secs(1_800_000_000), Counters::default());
        let now = Instant::ZERO + 1000 * SECOND;
        let (table, dialled) = (BTreeMap::new(), Vec::new());
        Self { now, unix, config, store, archive, table, counters, page: 3, requests: 0, dialled }
    }

    /// The same with what an earlier life stored, read.
    fn loaded(config: PeerstoreConfig) -> Self {
        let mut life = Self::new(config);
        life.serve();
        life
    }

    /// Another node with the same table.
    fn restart(&mut self) {
        self.dialled.clear();
        self.store = Peerstore::new(self.config);
        self.archive = Archive::new(&mut self.store).expect("it wants one");
        self.serve();
    }

    fn unix(&self) -> UnixTime {
        self.unix + self.now.saturating_duration_since(Instant::ZERO)
    }

    fn ask(&mut self) -> Option<StorageAsk> {
        assert!(
            self.archive.rows.len() <= self.config.stored + self.page,
            "it reads no more than it may keep"
        );
        let changes = self.store.changes.as_ref().expect("they are noted");
        assert!(
            changes.peers.iter().all(|peer| self.store.peers.contains_key(peer)),
            "only such as are known"
        );
        let ask = self.archive.ask(self.now, self.unix(), &mut self.store)?;
        self.requests += 1;
        assert!(self.archive.deadline(&self.store).is_none(), "one at a time");
        Some(ask)
    }

    fn answer(&mut self, answer: Result<StorageAnswer, StoreError>) {
        let unix = self.unix();
        self.archive.answered(self.now, unix, &mut self.store, &mut self.counters, answer);
    }

    fn fail(&mut self) {
        self.answer(Err(StoreError::Failed("no space".into())));
    }

    fn done(&mut self, ask: StorageAsk) -> StorageAnswer {
        match ask {
            StorageAsk::Load { after } => {
                let behind =
                    self.table.iter().filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after));
                let mut behind = behind.map(|(key, value)| (key.clone(), value.clone()));
                let rows = behind.by_ref().take(self.page).collect();
                StorageAnswer::Loaded(Rows { rows, more: behind.next().is_some() })
            }
            StorageAsk::Store(writes) => {
                let size: usize = writes.iter().map(Write::size).sum();
                assert!(!writes.is_empty() && size <= MAX_BATCH + (16 << 10), "{size} bytes");
                for write in writes {
                    match write {
                        Write::Put { key, value } => _ = self.table.insert(key, value),
                        Write::Delete { key } => _ = self.table.remove(&key),
                    }
                }
                let is_read = matches!(self.archive.phase, Phase::Ready);
                assert!(!is_read || self.table.len() <= self.config.stored, "{} rows", self.table.len());
                StorageAnswer::Stored
            }
        }
    }

    /// Answers everything that is asked for now.
    fn serve(&mut self) {
        while let Some(ask) = self.ask() {
            let answer = self.done(ask);
            self.answer(Ok(answer));
        }
    }

    /// Lets time pass, and answers everything that is asked for meanwhile.
    fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(due) = self.archive.deadline(&self.store).filter(|due| due.at <= end) {
            self.now = self.now.max(due.at);
            self.serve();
        }
        self.now = end;
    }

    fn add(&mut self, peer: PeerId, n: u64, source: Source, ttl: Option<Duration>) {
        self.store.add(self.now, peer, &[place(n)], source, ttl);
    }

    fn connect(&mut self, peer: PeerId, n: u64) {
        self.store.connected(self.now, peer, Some(&place(n)));
        self.dialled.push((peer, place(n)));
    }

    /// The connection that was made last ends.
    fn disconnect(&mut self, peer: PeerId) -> Option<Multiaddr> {
        let at = self.dialled.iter().rposition(|(of, _)| *of == peer);
        let address = at.map(|at| self.dialled.remove(at).1);
        self.store.disconnected(self.now, peer, address.as_ref());
        address
    }

    fn record(&mut self, peer: PeerId, number: u64, n: u64) -> Result<usize, RecordError> {
        self.store.add_record(self.now, peer, number, &[place(n)], 3600 * SECOND)
    }

    fn known(&self, peer: PeerId) -> Vec<Multiaddr> {
        let known = self.store.addresses(self.now, &peer).into_iter();
        known.map(|known| known.address.clone()).collect()
    }

    fn deadline(&self) -> Option<Duration> {
        Some(self.archive.deadline(&self.store)?.at.saturating_duration_since(self.now))
    }

    fn has_row(&self, peer: PeerId) -> bool {
        self.table.contains_key(&peer.to_bytes()[..])
    }
}

fn life() -> Life {
    Life::loaded(PeerstoreConfig::default())
}

#[test]
fn there_is_nothing_to_wait_for_until_something_worth_storing_is_learnt() {
    let mut life = Life::new(PeerstoreConfig::default());
    assert_eq!(life.deadline(), Some(Duration::ZERO), "the table is read at once");
    assert!(life.archive.is_loading());
    life.serve();
    assert_eq!((life.requests, life.deadline(), life.archive.is_loading()), (1, None, false));
    life.add(peer(1), 1, Source::Heard, None);
    life.add(peer(1), 2, Source::Identify, None);
    life.store.connected(life.now, peer(1), None);
    life.store.measured(life.now, peer(1), SECOND);
    life.store.set_protocols(life.now, peer(1), &["/x".into()]);
    assert_eq!(life.deadline(), None);
    life.add(peer(1), 3, Source::Embedder, None);
    assert_eq!(life.deadline(), Some(DELAY));
    life.pass(DELAY);
    assert_eq!((life.requests, life.deadline()), (2, None));
    assert!(Archive::new(&mut Peerstore::new(PeerstoreConfig { stored: 0, ..life.config })).is_none());
}

#[test]
fn what_is_learnt_within_ten_seconds_goes_together_and_what_comes_meanwhile_goes_next() {
    let mut life = life();
    life.add(peer(1), 1, Source::Embedder, None);
    life.pass(9 * SECOND);
    life.add(peer(2), 2, Source::Embedder, None);
    assert_eq!(life.table.len(), 0);
    life.now = life.now + SECOND;
    let ask = life.ask().expect("it is time");
    life.add(peer(1), 3, Source::Embedder, None);
    life.add(peer(3), 3, Source::Embedder, None);
    assert_eq!(life.ask(), None);
    let answer = life.done(ask);
    life.answer(Ok(answer));
    assert_eq!((life.table.len(), life.ask()), (2, None));
    life.pass(DELAY);
    assert_eq!((life.table.len(), life.requests), (3, 3));
    life.restart();
    assert_eq!(life.known(peer(1)), [place(1), place(3)]);
}

#[test]
fn what_a_peer_says_now_replaces_what_it_said_to_an_earlier_life() {
    let mut life = life();
    let hour = Some(3600 * SECOND);
    life.add(peer(1), 1, Source::Identify, hour);
    life.connect(peer(1), 1);
    life.disconnect(peer(1));
    life.pass(DELAY);
    life.restart();
    assert_eq!(life.known(peer(1)), [place(1)]);
    life.add(peer(1), 2, Source::Identify, hour);
    assert_eq!(life.known(peer(1)), [place(2)]);
    // Or before the row was read.
    life.disconnect(peer(1));
    life.store = Peerstore::new(life.config);
    life.archive = Archive::new(&mut life.store).expect("it wants one");
    life.add(peer(1), 3, Source::Identify, hour);
    life.serve();
    assert_eq!(life.known(peer(1)), [place(3)]);
}

#[test]
fn the_next_life_dials_what_led_to_the_peer_first_and_nothing_that_was_only_heard() {
    let mut life = life();
    let hour = Some(3600 * SECOND);
    life.add(peer(1), 1, Source::Heard, None);
    life.add(peer(1), 2, Source::Identify, hour);
    life.add(peer(1), 3, Source::Embedder, hour);
    life.record(peer(1), 7, 4).unwrap();
    life.connect(peer(1), 5);
    life.now = life.now + SECOND;
    life.connect(peer(1), 2);
    life.disconnect(peer(1));
    life.disconnect(peer(1));
    life.pass(DELAY);
    life.restart();
    assert_eq!(life.known(peer(1)), [place(2), place(5), place(3), place(4)]);
    let sources = life.store.addresses(life.now, &peer(1)).into_iter().map(|known| known.source);
    assert_eq!(
        sources.collect::<Vec<_>>(),
        [Source::Identify, Source::Heard, Source::Embedder, Source::Certified]
    );
    // What this life learns goes before.
    life.connect(peer(1), 9);
    assert_eq!(life.known(peer(1))[..3], [place(9), place(2), place(5)]);
    // And each lasts as long as it would have.
    life.disconnect(peer(1));
    life.pass(3600 * SECOND);
    assert_eq!(life.known(peer(1)), Vec::<Multiaddr>::new());
    life.pass(3600 * SECOND);
    life.restart();
    assert_eq!(life.store.record(&peer(1)), Some(7), "but the number of the record is known");
}

#[test]
fn a_record_is_not_rolled_back_by_a_restart() {
    let mut life = life();
    life.record(peer(1), 7, 1).unwrap();
    life.pass(DELAY);
    life.restart();
    assert_eq!(life.record(peer(1), 6, 2), Err(RecordError::Old { given: 6, known: 7 }));
    assert_eq!(life.known(peer(1)), [place(1)]);
    // Of the record itself the number is all that is known.
    assert_eq!(life.record(peer(1), 7, 1), Ok(0));
    assert_eq!(life.record(peer(1), 7, 2), Err(RecordError::Conflict(7)));
    assert_eq!(life.record(peer(1), 8, 3), Ok(1));
    assert_eq!(life.known(peer(1)), [place(3)]);
}

#[test]
fn of_two_records_the_newer_wins_whether_it_was_stored_or_came_while_the_table_was_read() {
    let mut life = life();
    for n in 1..=2 {
        life.record(peer(n), 7, 10 + n).unwrap();
        life.connect(peer(n), 20 + n);
        life.disconnect(peer(n));
    }
    life.pass(DELAY);
    life.store = Peerstore::new(life.config);
    life.archive = Archive::new(&mut life.store).unwrap();
    life.record(peer(1), 6, 1).unwrap();
    life.record(peer(2), 8, 2).unwrap();
    life.store.connected(life.now, peer(1), Some(&place(3)));
    life.store.unreachable(life.now, &peer(1), &place(3));
    life.serve();
    assert_eq!((life.store.record(&peer(1)), life.store.record(&peer(2))), (Some(7), Some(8)));
    assert_eq!(life.known(peer(1)), [place(21), place(11), place(3)]);
    assert_eq!(life.known(peer(2)), [place(22), place(2)]);
    life.pass(DELAY);
    life.restart();
    assert_eq!((life.store.record(&peer(1)), life.store.record(&peer(2))), (Some(7), Some(8)));
}

#[test]
fn what_is_connected_is_stored_anew_so_that_a_crash_finds_it_fresh() {
    let mut life = life();
    life.connect(peer(1), 1);
    life.pass(DELAY);
    assert_eq!((life.requests, life.deadline()), (2, Some(600 * SECOND)));
    // Changes of others do not put that off.
    life.pass(300 * SECOND);
    life.add(peer(2), 1, Source::Embedder, Some(60 * SECOND));
    life.pass(DELAY);
    assert_eq!(life.deadline(), Some(290 * SECOND));
    life.pass(86400 * SECOND);
    assert!(!life.has_row(peer(2)), "and on the way what has expired goes");
    life.restart();
    assert_eq!(life.known(peer(1)), [place(1)]);
    life.pass(1800 * SECOND);
    assert_eq!((life.known(peer(1)).len(), life.deadline()), (0, None));
}

#[test]
fn a_wall_clock_that_was_set_makes_nothing_last_longer_than_it_may() {
    const YEAR: u64 = 365 * 86400;
    let (good, long) = (Source::Embedder, Source::Certified);
    for (set_to, expected) in [(1_800_000_000 + YEAR, vec![1, 3]), (0, vec![1, 2, 3, 4])] {
        let mut life = life();
        life.add(peer(1), 1, good, None);
        life.add(peer(1), 2, good, Some(20_000 * SECOND));
        life.add(peer(1), 3, long, None);
        life.add(peer(1), 4, Source::Certified, Some(100 * SECOND));
        life.pass(DELAY);
        life.unix = UnixTime::from_secs(set_to);
        life.restart();
        let mut known = life.known(peer(1));
        known.sort();
        assert_eq!(known, expected.into_iter().map(place).collect::<Vec<_>>());
        life.now = life.now + 91 * SECOND;
        assert!(!life.known(peer(1)).contains(&place(4)));
        life.now = life.now + life.config.identify_ttl;
        assert!(!life.known(peer(1)).contains(&place(3)), "nobody but the embedder says \"for good\"");
        life.now = life.now + 20_000 * SECOND;
        assert_eq!(life.known(peer(1)), [place(1)]);
    }
}

#[test]
fn rows_of_no_use_are_deleted_page_by_page_and_counted_if_they_are_none_of_ours() {
    let mut life = Life::new(PeerstoreConfig { stored: 50, ..PeerstoreConfig::default() });
    for n in 0..20 {
        life.add(peer(n), n, Source::Embedder, (n < 10).then_some(60 * SECOND));
    }
    life.serve();
    life.pass(DELAY);
    assert_eq!(life.table.len(), 20);
    for n in 0..1000_u32 {
        life.table.insert(n.to_be_bytes().to_vec().into(), "?".into());
    }
    let key = Bytes::from(peer(19).to_bytes());
    life.table.insert(key.clone(), life.table[&key].slice(1..));
    life.now = life.now + 3600 * SECOND;
    life.requests = 0;
    life.restart();
    assert_eq!((life.table.len(), life.store.len()), (9, 9));
    assert_eq!(life.counters.get("peerstore.corrupt_rows"), 1001);
    assert!(life.requests > 600, "{} requests", life.requests);
    assert_eq!(life.deadline(), None);
}

#[test]
fn rows_of_no_use_are_deleted_later_if_the_store_fails() {
    let mut life = Life::new(PeerstoreConfig::default());
    life.table.insert("none of ours".into(), "?".into());
    let load = life.ask().unwrap();
    let answer = life.done(load);
    life.answer(Ok(answer));
    assert!(matches!(life.ask(), Some(StorageAsk::Store(_))));
    life.fail();
    assert_eq!((life.table.len(), life.deadline()), (1, Some(DELAY)));
    life.pass(DELAY);
    assert_eq!((life.table.len(), life.deadline()), (0, None));
}

#[test]
fn fewer_rows_are_wanted_than_there_are_and_the_most_useful_stay() {
    let mut life = Life::loaded(PeerstoreConfig { stored: 100, ..PeerstoreConfig::default() });
    for n in 0..100 {
        life.add(peer(n), n, Source::Embedder, None);
    }
    life.connect(peer(42), 42);
    life.disconnect(peer(42));
    life.pass(DELAY);
    life.config = PeerstoreConfig { stored: 5, peers: 10, ..life.config };
    life.restart();
    assert_eq!((life.table.len(), life.store.len()), (5, 10));
    assert!(life.has_row(peer(42)));

    life.store = Peerstore::new(life.config);
    life.archive = Archive::new(&mut life.store).unwrap();
    (0..10).for_each(|n| life.store.connected(life.now, peer(1000 + n), None));
    life.serve();
    assert_eq!((life.table.len(), life.counters.get("peerstore.dropped_rows")), (0, 5), "there is no room");
}

#[test]
fn what_was_reached_makes_room_for_itself_and_what_was_not_does_not() {
    let mut life = Life::loaded(PeerstoreConfig { peers: 10, ..PeerstoreConfig::default() });
    for n in 0..10 {
        life.add(peer(n), n, Source::Embedder, None);
    }
    life.connect(peer(4), 4);
    life.disconnect(peer(4));
    life.pass(DELAY);
    life.store = Peerstore::new(life.config);
    life.archive = Archive::new(&mut life.store).unwrap();
    (0..10).for_each(|n| life.add(peer(1000 + n), n, Source::Heard, None));
    life.serve();
    assert_eq!((life.store.len(), life.table.len(), life.has_row(peer(4))), (10, 1, true));
    assert_eq!(life.counters.get("peerstore.dropped_rows"), 9);
}

#[test]
fn a_store_that_fails_is_asked_less_and_less_often_and_nothing_is_lost_or_grows() {
    let mut life = life();
    life.add(peer(1), 1, Source::Embedder, None);
    let mut gaps = Vec::new();
    for n in 2..12 {
        let wait = life.deadline().expect("it is tried again");
        gaps.push(wait.as_secs());
        life.now = life.now + wait;
        assert!(life.ask().is_some());
        life.fail();
        life.add(peer(n), 1, Source::Embedder, None);
        life.store.forget(life.now, peer(n - 1));
    }
    assert_eq!(gaps, [10, 10, 20, 40, 80, 160, 320, 600, 600, 600]);
    assert_eq!((life.counters.get("peerstore.store_failed"), life.store.len()), (10, 1));
    life.pass(MAX_DELAY);
    assert_eq!((life.table.len(), life.has_row(peer(11)), life.deadline()), (1, true, None));

    // While it cannot be read, nothing is written, and nothing waits for it.
    life.archive = Archive::new(&mut life.store).unwrap();
    life.ask().unwrap();
    assert!(life.archive.is_loading());
    life.fail();
    assert!(!life.archive.is_loading());
    life.add(peer(20), 1, Source::Embedder, None);
    life.now = life.now + DELAY;
    assert_eq!(life.ask(), Some(StorageAsk::Load { after: None }));
    life.answer(Ok(StorageAnswer::Stored));
    assert_eq!(life.deadline(), Some(2 * DELAY), "that was no answer to the question");
    life.pass(100 * SECOND);
    assert_eq!((life.table.len(), life.deadline()), (2, None));
}

#[test]
fn ten_thousand_peers_leave_a_thousand_rows_and_those_that_were_reached_are_among_them() {
    let mut life = Life::loaded(PeerstoreConfig { peers: 5_000, ..PeerstoreConfig::default() });
    life.page = 100;
    let friends = 0..300;
    for n in friends.clone() {
        life.connect(peer(n), n);
        life.disconnect(peer(n));
    }
    for n in 300..10_000 {
        life.record(peer(n), 1, n).unwrap();
        life.pass(SECOND / 20);
        assert!(life.table.len() <= 1000);
    }
    life.pass(DELAY);
    assert_eq!((life.store.len(), life.table.len(), life.deadline()), (5_000, 1000, None));
    assert!(friends.clone().all(|n| life.has_row(peer(n))));
    assert!((9_300..10_000).all(|n| life.has_row(peer(n))), "and the latest of the others");
    assert!(life.requests < 60, "{} requests", life.requests);
    life.restart();
    assert_eq!(life.store.len(), 1000);
    for n in friends {
        life.store.forget(life.now, peer(n));
    }
    life.pass(DELAY);
    assert_eq!((life.store.len(), life.table.len()), (700, 700));
}

#[test]
fn long_rows_go_in_several_batches_and_at_once_if_the_node_is_about_to_end() {
    let mut life = life();
    let long = |n: u64| {
        format!("/dns/{}{n}/udp/1/quic-v1", format!("{}.", "a".repeat(59)).repeat(4))
            .parse::<Multiaddr>()
            .unwrap()
    };
    for n in 0..400 {
        let addresses: Vec<_> = (0..40).map(|k| long(100 * n + k)).collect();
        life.store.add(life.now, peer(n), &addresses, Source::Embedder, None);
    }
    life.pass(DELAY);
    let rows = life.table.len();
    assert!((50..70).contains(&rows), "{rows} rows of 4 KiB in 256 KiB");
    life.archive.hurry(life.now);
    life.serve();
    assert_eq!((life.table.len(), life.requests, life.deadline()), (400, 2 + 6, None));
    life.restart();
    assert_eq!(life.known(peer(1)).len(), 16);
}
