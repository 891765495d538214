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
    store.disconnected(at(5000), peer(1));
    assert_eq!(known(&store, at(5000 + 1799), 1)[0], place(9), "counted from the end of the connection");
    store.unreachable(at(3), &peer(1), &place(9));
    assert_eq!(known(&store, at(5001), 1), [place(1), place(2), place(9)]);
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
    store.disconnected(at(1), peer(3));
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

/// What the store must say, kept as a plain list and searched from the front each time.
#[derive(Default)]
struct Naive {
    entries: Vec<(PeerId, Multiaddr, Source, Instant)>,
    records: Vec<(PeerId, u64, Vec<Multiaddr>)>,
}

impl Naive {
    fn add(&mut self, peer: PeerId, address: Multiaddr, source: Source, expires: Instant) {
        match self.entries.iter_mut().find(|e| e.0 == peer && e.1 == address) {
            Some(entry) => {
                entry.2 = entry.2.max(source);
                entry.3 = entry.3.max(expires);
            }
            None => self.entries.push((peer, address, source, expires)),
        }
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
        self.entries.retain(|e| e.0 != peer || e.2 != Source::Certified || listed.contains(&e.1));
        for address in &listed {
            self.add(peer, address.clone(), Source::Certified, expires);
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
        let source = [Source::Heard, Source::Identify, Source::Embedder][rng.below(3) as usize];
        naive.entries.retain(|entry| entry.3 > now);
        match rng.below(10) {
            0..5 => {
                store.add(now, which, &[place(n)], source, Some(ttl));
                naive.add(which, place(n), source, now + ttl);
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
                naive.entries.retain(|entry| entry.0 != which || entry.1 != place(n));
            }
            _ if rng.below(2) == 0 => {
                store.connected(now, which, Some(&place(n)));
                store.unreachable(now, &which, &place(n));
                store.disconnected(now, which);
                naive.add(which, place(n), Source::Heard, now + store.config().reached_ttl);
            }
            _ if rng.below(50) == 0 => {
                store.forget(now, which);
                naive.entries.retain(|entry| entry.0 != which);
                naive.records.retain(|record| record.0 != which);
            }
            _ => {}
        }
        let mut said: Vec<_> = store
            .addresses(now, &which)
            .into_iter()
            .map(|known| (known.address.clone(), known.source, known.expires))
            .collect();
        let of_peer = naive.entries.iter().filter(|entry| entry.0 == which);
        let mut expected: Vec<_> = of_peer.map(|entry| (entry.1.clone(), entry.2, entry.3)).collect();
        said.sort();
        expected.sort();
        assert_eq!(said, expected, "step {step} of seed {SEED}");
        let held: usize = store.peers.values().map(|entry| entry.addresses.len()).sum();
        assert_eq!(
            (store.addresses, store.order.len()),
            (held, store.peers.len()),
            "step {step} of seed {SEED}"
        );
    }
}
