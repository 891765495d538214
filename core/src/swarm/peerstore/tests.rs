use super::*;
use crate::rng::Rng;

const SECOND: Duration = Duration::from_secs(1);

fn peer(n: u8) -> PeerId {
    let key = libp2p_identity::Keypair::ed25519_from_bytes([n; 32]).unwrap();
    key.public().to_peer_id()
}

fn place(n: u64) -> Multiaddr {
    format!("/ip4/192.0.2.{}/udp/{}/quic-v1", n % 250 + 1, 4001 + n / 250).parse().unwrap()
}

fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

fn store() -> Peerstore {
    Peerstore::new(PeerstoreConfig::default())
}

fn known(store: &Peerstore, now: Instant, peer: u8) -> Vec<Multiaddr> {
    store.addresses(now, &self::peer(peer)).into_iter().map(|known| known.address.clone()).collect()
}

#[test]
fn each_address_expires_on_its_own() {
    let mut store = store();
    assert_eq!(store.add(at(0), peer(1), &[place(1)], Source::Heard, Some(10 * SECOND)), 1);
    assert_eq!(store.add(at(0), peer(1), &[place(2)], Source::Identify, Some(100 * SECOND)), 1);
    assert_eq!(store.add(at(0), peer(1), &[place(3)], Source::Embedder, None), 1);
    assert_eq!(known(&store, at(9), 1).len(), 3);
    assert_eq!(known(&store, at(10), 1), [place(3), place(2)]);
    assert_eq!(known(&store, at(1_000_000), 1), [place(3)]);
    assert_eq!(store.add(at(200), peer(1), &[place(3)], Source::Heard, Some(SECOND)), 0, "for good stays");
    assert_eq!((store.address_count(), known(&store, at(300), 1)), (1, vec![place(3)]));
}

#[test]
fn an_older_record_and_an_equal_one_that_says_something_else_are_rejected() {
    let mut store = store();
    let hour = 3600 * SECOND;
    assert_eq!(store.add_record(at(0), peer(1), 7, &[place(1), place(2)], hour), Ok(2));
    assert_eq!(
        store.add_record(at(1), peer(1), 6, &[place(3)], hour),
        Err(RecordError::Old { given: 6, known: 7 })
    );
    assert_eq!(store.add_record(at(1), peer(1), 7, &[place(3)], hour), Err(RecordError::Conflict(7)));
    assert_eq!(store.add_record(at(1), peer(1), 7, &[place(2), place(1)], hour), Ok(0), "only longer");
    assert_eq!(known(&store, at(3600), 1).len(), 2);
    assert_eq!(store.add_record(at(2), peer(1), 8, &[place(3)], hour), Ok(1));
    assert_eq!((known(&store, at(3), 1), store.record(&peer(1))), (vec![place(3)], Some(8)));
}

#[test]
fn what_led_there_goes_first_until_it_fails() {
    let mut store = store();
    store.add(at(0), peer(1), &[place(1), place(2)], Source::Certified, None);
    store.connected(at(1), peer(1), Some(&place(9)));
    assert_eq!(known(&store, at(1), 1)[0], place(9));
    store.disconnected(at(5000), peer(1), Some(&place(9)));
    assert_eq!(known(&store, at(5000 + 1799), 1)[0], place(9), "counted from the end of the connection");
    store.unreachable(at(3), &peer(1), &place(9));
    assert_eq!(known(&store, at(5001), 1), [place(1), place(2), place(9)]);
}

#[test]
fn what_a_source_says_last_replaces_what_it_said_before_and_nobody_elses_word() {
    let mut store = store();
    let hour = Some(3600 * SECOND);
    store.add(at(0), peer(1), &[place(1), place(2)], Source::Identify, hour);
    store.add(at(0), peer(1), &[place(1)], Source::Heard, hour);
    store.add(at(0), peer(1), &[place(3)], Source::Embedder, hour);
    store.add(at(0), peer(1), &[place(4)], Source::Rendezvous, hour);
    store.add_record(at(0), peer(1), 1, &[place(5), place(2)], 3600 * SECOND).unwrap();
    assert_eq!(known(&store, at(1), 1).len(), 5);
    store.add(at(1), peer(1), &[place(6)], Source::Identify, hour);
    let all = [3, 5, 2, 6, 4, 1].map(place);
    let mut told = known(&store, at(1), 1);
    told.sort();
    let mut expected = all.to_vec();
    expected.sort();
    assert_eq!(told, expected, "somebody else, and the record, still say 1 and 2");
    store.add(at(1), peer(1), &[place(7)], Source::Rendezvous, hour);
    assert!(!known(&store, at(1), 1).contains(&place(4)));
    store.add_record(at(2), peer(1), 2, &[place(8)], 3600 * SECOND).unwrap();
    let left = known(&store, at(2), 1);
    assert!(!left.contains(&place(5)) && !left.contains(&place(2)), "{left:?}");
    store.add(at(3), peer(1), &[], Source::Identify, hour);
    assert!(!known(&store, at(3), 1).contains(&place(6)), "nowhere is a place too");
}

#[test]
fn where_a_peer_was_dialled_is_forgotten_when_it_says_that_it_has_left() {
    let mut store = store();
    let hour = Some(3600 * SECOND);
    for n in 0..10 {
        store.connected(at(n), peer(1), Some(&place(3 * n)));
        let now_at = [0, 1, 2].map(|i| place(3 * n + i));
        store.add(at(n), peer(1), &now_at, Source::Identify, hour);
        assert!(n == 0 || known(&store, at(n), 1).len() == 3, "after move {n}");
        store.disconnected(at(n), peer(1), Some(&place(3 * n)));
    }
    assert_eq!(known(&store, at(10), 1), [27, 28, 29].map(place));
    // It never said that it was there, so it cannot say that it left.
    store.connected(at(11), peer(1), Some(&place(99)));
    store.disconnected(at(11), peer(1), Some(&place(99)));
    store.add(at(12), peer(1), &[place(50)], Source::Identify, hour);
    assert_eq!(known(&store, at(12), 1), [99, 50].map(place));
}

#[test]
fn an_old_address_does_not_live_on_because_another_one_is_used() {
    let mut store = store();
    for n in 0..10 {
        store.connected(at(900 * n), peer(1), Some(&place(n)));
        store.disconnected(at(900 * n + 1), peer(1), Some(&place(n)));
    }
    assert_eq!(
        known(&store, at(8102), 1),
        [9, 8].map(place),
        "each for half an hour after its own connection"
    );
    store.connected(at(8103), peer(1), Some(&place(9)));
    assert_eq!(known(&store, at(20_000), 1), [place(9)], "and as long as that lasts");
}

#[test]
fn addresses_of_others_and_oversized_ones_are_left_out() {
    let mut store = store();
    let mine = place(1).with(multiaddr::Protocol::P2p(peer(1)));
    let theirs = place(2).with(multiaddr::Protocol::P2p(peer(2)));
    let long = place(3).with(multiaddr::Protocol::Dns("x".repeat(MAX_ADDR_LEN).into()));
    let given = [mine, theirs, long, Multiaddr::empty()];
    assert_eq!(store.add(at(0), peer(1), &given, Source::Embedder, None), 1);
    assert_eq!(known(&store, at(0), 1), [place(1)]);
}

#[test]
fn a_flood_of_addresses_displaces_only_what_weighs_less() {
    let mut store = store();
    store.add(at(0), peer(1), &[place(0)], Source::Certified, Some(9000 * SECOND));
    store.connected(at(0), peer(1), Some(&place(1)));
    for n in 2..20_000 {
        store.add(at(1), peer(1), &[place(n)], Source::Heard, Some(60 * SECOND));
    }
    let left = known(&store, at(1), 1);
    assert_eq!((left.len(), store.address_count()), (64, 64));
    assert!(left.contains(&place(0)) && left.contains(&place(1)));
}

#[test]
fn peers_make_room_but_for_those_connected_or_protected() {
    let mut store = Peerstore::new(PeerstoreConfig { peers: 4, ..PeerstoreConfig::default() });
    store.connected(at(0), peer(1), None);
    store.protect(at(0), peer(2), true);
    store.connected(at(1), peer(3), Some(&place(3)));
    store.disconnected(at(1), peer(3), Some(&place(3)));
    for n in 10..60 {
        store.add(at(n), peer(n as u8), &[place(n)], Source::Heard, None);
    }
    assert_eq!(store.len(), 4);
    assert_eq!(known(&store, at(60), 3), [place(3)], "it was reached before, the others never");
    assert_eq!(known(&store, at(60), 59), [place(59)]);
    store.protect(at(60), peer(3), true);
    store.protect(at(60), peer(59), true);
    assert_eq!(store.add(at(61), peer(60), &[place(60)], Source::Embedder, None), 0, "no room");
    assert_eq!(store.add_record(at(61), peer(60), 1, &[place(1)], SECOND), Err(RecordError::Full));
    assert!(store.forget(at(62), peer(59)));
    assert_eq!(store.len(), 4, "protected peers stay, without their addresses");
    assert!(
        store.add(at(62), peer(1), &[place(5)], Source::Heard, None) == 1,
        "there is room at a known peer"
    );
}

#[test]
fn latency_is_an_average_with_a_weight_of_a_tenth() {
    let mut store = store();
    store.measured(at(0), peer(1), 100 * SECOND);
    store.measured(at(0), peer(1), 200 * SECOND);
    assert_eq!(store.latency(&peer(1)), Some(110 * SECOND));
}

/// What the store must say, kept as a plain list of who said what and searched from the front each time.
#[derive(Default)]
struct Naive {
    said: Vec<(PeerId, Multiaddr, Voucher, Instant)>,
    records: Vec<(PeerId, u64, Vec<Multiaddr>)>,
}

impl Naive {
    fn add(&mut self, peer: PeerId, address: Multiaddr, voucher: Voucher, expires: Instant) {
        match self.said.iter_mut().find(|it| (it.0, &it.1, it.2) == (peer, &address, voucher)) {
            Some(it) => it.3 = it.3.max(expires),
            None => self.said.push((peer, address, voucher, expires)),
        }
    }

    /// What was only said before and by the same is said no more, and if the peer takes it back, no dial speaks for it.
    fn replace(&mut self, peer: PeerId, listed: &[Multiaddr], voucher: Voucher) {
        let is_out = |it: &(PeerId, Multiaddr, Voucher, Instant)| {
            it.0 == peer && it.2 == voucher && !listed.contains(&it.1)
        };
        let out: Vec<_> = self.said.iter().filter(|it| is_out(it)).map(|it| it.1.clone()).collect();
        let is_peer = voucher != Voucher::Rendezvous;
        self.said.retain(|it| {
            let is_dial = is_peer && it.0 == peer && it.2 == Voucher::Dial && out.contains(&it.1);
            !is_out(it) && !is_dial
        });
    }

    /// All is forgotten of an address at once, when nobody's word holds any more.
    fn expire(&mut self, now: Instant) {
        let said = self.said.clone();
        self.said.retain(|it| said.iter().any(|other| (other.0, &other.1) == (it.0, &it.1) && other.3 > now));
    }

    fn known(&self, peer: PeerId) -> Vec<(Multiaddr, Source, Instant)> {
        let of_peer: Vec<_> = self.said.iter().filter(|it| it.0 == peer).collect();
        let mut known: Vec<(Multiaddr, Source, Instant)> = Vec::new();
        for (_, address, voucher, expires) in of_peer {
            let source = match voucher {
                Voucher::Dial | Voucher::Heard => Source::Heard,
                Voucher::Rendezvous => Source::Rendezvous,
                Voucher::Identify => Source::Identify,
                Voucher::Certified => Source::Certified,
                Voucher::Embedder => Source::Embedder,
            };
            match known.iter_mut().find(|it| it.0 == *address) {
                Some(it) => (it.1, it.2) = (it.1.max(source), it.2.max(*expires)),
                None => known.push((address.clone(), source, *expires)),
            }
        }
        known.sort();
        known
    }

    fn record(
        &mut self,
        peer: PeerId,
        number: u64,
        mut listed: Vec<Multiaddr>,
        expires: Instant,
    ) -> Result<(), RecordError> {
        listed.sort();
        listed.dedup();
        if let Some((_, known, same)) = self.records.iter().find(|record| record.0 == peer) {
            if *known > number {
                return Err(RecordError::Old { given: number, known: *known });
            }
            if *known == number && *same != listed {
                return Err(RecordError::Conflict(number));
            }
        }
        self.records.retain(|record| record.0 != peer);
        self.replace(peer, &listed, Voucher::Certified);
        for address in &listed {
            self.add(peer, address.clone(), Voucher::Certified, expires);
        }
        self.records.push((peer, number, listed));
        Ok(())
    }
}

#[test]
fn a_hundred_thousand_random_operations_agree_with_a_naive_list() {
    const SEED: u8 = 62;
    let mut rng = Rng::new([SEED; 32]);
    let peers: Vec<_> = (0..12).map(peer).collect();
    let (mut store, mut naive, mut now) = (store(), Naive::default(), at(0));
    for step in 0..100_000 {
        now = now + rng.between(Duration::ZERO, SECOND);
        let (which, n) = (peers[rng.below(12) as usize], rng.below(12));
        let ttl = Duration::from_secs(1 + rng.below(60));
        let source = [Source::Heard, Source::Rendezvous, Source::Identify, Source::Embedder];
        let source = source[rng.below(4) as usize];
        naive.expire(now);
        match rng.below(10) {
            0..5 => {
                store.add(now, which, &[place(n)], source, Some(ttl));
                if source.replaces() {
                    naive.replace(which, &[place(n)], source.says());
                }
                naive.add(which, place(n), source.says(), now + ttl);
            }
            5..8 => {
                let listed = vec![place(n), place(rng.below(12))];
                let number = rng.below(4) + step / 1000;
                let taken = store.add_record(now, which, number, &listed, ttl).map(|_| ());
                assert_eq!(
                    taken,
                    naive.record(which, number, listed, now + ttl),
                    "step {step} of seed {SEED}"
                );
            }
            8 => {
                store.remove_address(now, which, &place(n));
                naive.said.retain(|it| it.0 != which || it.1 != place(n));
            }
            _ if rng.below(2) == 0 => {
                store.connected(now, which, Some(&place(n)));
                store.unreachable(now, &which, &place(n));
                store.disconnected(now, which, Some(&place(n)));
                naive.add(which, place(n), Voucher::Dial, now + store.config().reached_ttl);
            }
            _ if rng.below(50) == 0 => {
                store.forget(now, which);
                naive.said.retain(|it| it.0 != which);
                naive.records.retain(|record| record.0 != which);
            }
            _ => {}
        }
        let mut said: Vec<_> = store
            .addresses(now, &which)
            .into_iter()
            .map(|known| (known.address, known.source, known.expires))
            .collect();
        said.sort();
        naive.expire(now);
        assert_eq!(said, naive.known(which), "step {step} of seed {SEED}");
        let held: usize = store.peers.values().map(|entry| entry.addresses.len()).sum();
        assert_eq!(
            (store.addresses, store.order.len()),
            (held, store.peers.len()),
            "step {step} of seed {SEED}"
        );
    }
}
