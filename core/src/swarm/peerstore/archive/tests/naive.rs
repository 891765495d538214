//! Random lives beside a model that is a plain list, in which rows are what they should be.

use super::*;
use crate::swarm::peerstore::{known::Voucher, row::RowAddress};

const SEED: u8 = 66;
const PEERS: u64 = 12;
const STORED: usize = 7;

struct Known {
    peer: PeerId,
    address: Multiaddr,
    /// Who says so, and until when.
    said: BTreeMap<Voucher, Instant>,
    is_reached: bool,
    /// Connections that were dialled there.
    live: usize,
}

impl Known {
    fn expires(&self) -> Instant {
        self.said.values().copied().max().unwrap_or_default()
    }

    fn source(&self) -> Source {
        match self.said.keys().max() {
            None | Some(Voucher::Dial | Voucher::Heard) => Source::Heard,
            Some(Voucher::Rendezvous) => Source::Rendezvous,
            Some(Voucher::Identify) => Source::Identify,
            Some(Voucher::Certified) => Source::Certified,
            Some(Voucher::Embedder) => Source::Embedder,
        }
    }
}

/// What should be known.
#[derive(Default)]
struct Naive {
    known: Vec<Known>,
    records: BTreeMap<PeerId, u64>,
    touched: BTreeMap<PeerId, Instant>,
    connections: BTreeMap<PeerId, usize>,
}

/// What should stand in a row: the record, and for each address who says so, until when, and whether it led there.
type Expected = (Option<u64>, Vec<(Multiaddr, Source, Option<UnixTime>, bool)>);

impl Naive {
    fn is_connected(&self, peer: &PeerId) -> bool {
        self.connections.get(peer).is_some_and(|count| *count > 0)
    }

    fn expire(&mut self, now: Instant) {
        self.known.retain(|it| it.live > 0 || it.expires() > now);
    }

    fn add(&mut self, peer: PeerId, address: Multiaddr, voucher: Voucher, expires: Instant) -> &mut Known {
        let at = self.known.iter().position(|it| it.peer == peer && it.address == address);
        let at = at.unwrap_or_else(|| {
            self.known.push(Known { peer, address, said: BTreeMap::new(), is_reached: false, live: 0 });
            self.known.len() - 1
        });
        let known = &mut self.known[at];
        let until = known.said.entry(voucher).or_default();
        *until = expires.max(*until);
        known
    }

    fn replace(&mut self, peer: PeerId, listed: &[Multiaddr], voucher: Voucher) {
        for it in &mut self.known {
            let is_out =
                it.peer == peer && !listed.contains(&it.address) && it.said.remove(&voucher).is_some();
            if is_out && it.live == 0 && voucher != Voucher::Rendezvous {
                it.said.remove(&Voucher::Dial);
            }
        }
        self.known.retain(|it| it.live > 0 || !it.said.is_empty());
    }

    /// The rows that there should be, if all were written now.
    fn rows(&self, now: Instant, unix: UnixTime, config: &PeerstoreConfig) -> BTreeMap<PeerId, Expected> {
        let mut all = Vec::new();
        for (peer, touched) in &self.touched {
            let of_peer: Vec<_> = self.known.iter().filter(|it| it.peer == *peer).collect();
            let mut addresses: Vec<_> = of_peer
                .iter()
                .filter(|it| it.is_reached || matches!(it.source(), Source::Certified | Source::Embedder))
                .map(|it| {
                    let held_until = if it.live > 0 { now + config.reached_ttl } else { Instant::ZERO };
                    let expires = it.expires().max(held_until);
                    let left = expires.saturating_duration_since(now);
                    let until = (expires != Instant::FAR_FUTURE).then(|| unix + left);
                    (it.address.clone(), it.source(), until, it.is_reached)
                })
                .collect();
            addresses.sort();
            let record = self.records.get(peer).copied();
            if record.is_some() || !addresses.is_empty() {
                let is_reached = of_peer.iter().any(|it| it.is_reached);
                let use_of_it = ((is_reached, !addresses.is_empty()), *touched, *peer);
                all.push((use_of_it, (record, addresses)));
            }
        }
        all.sort_by_key(|(use_of_it, _)| std::cmp::Reverse(*use_of_it));
        all.into_iter().take(STORED).map(|((_, _, peer), row)| (peer, row)).collect()
    }

    /// Nothing is left but what stands in the rows.
    fn restart(&mut self, now: Instant, rows: &BTreeMap<PeerId, Expected>, config: &PeerstoreConfig) {
        self.connections.clear();
        self.touched.retain(|peer, _| rows.contains_key(peer));
        self.touched.values_mut().for_each(|touched| *touched = Instant::ZERO);
        self.records.retain(|peer, _| rows.contains_key(peer));
        let said = std::mem::take(&mut self.known);
        let stands =
            |it: &Known| rows.get(&it.peer).is_some_and(|(_, all)| all.iter().any(|row| row.0 == it.address));
        self.known = said.into_iter().filter(stands).collect();
        for it in &mut self.known {
            let (source, mut expires) = (it.source(), it.expires());
            if source != Source::Embedder {
                expires = expires.min(now + config.identify_ttl.max(config.reached_ttl));
            }
            (it.live, it.said) = (0, BTreeMap::from([(source.says(), expires)]));
            if it.is_reached {
                it.said.insert(Voucher::Dial, expires.min(now + config.reached_ttl));
            }
        }
    }
}

fn rows_of(life: &Life) -> BTreeMap<PeerId, Expected> {
    let rows = life.table.iter().map(|(key, value)| Row::read(key, value).expect("a good row"));
    rows.map(|(peer, Row { written, record, addresses, .. })| {
        let until = |it: &RowAddress| it.left.map(|left| written + left);
        let said = addresses.into_iter().map(|it| (it.address.clone(), it.source, until(&it), it.is_reached));
        let mut said: Vec<_> = said.filter(|it| it.2.is_none_or(|until| until > life.unix())).collect();
        said.sort();
        (peer, (record, said))
    })
    .collect()
}

#[test]
fn after_any_hundred_thousand_operations_the_rows_are_those_of_a_naive_list() {
    let mut rng = Rng::new([SEED; 32]);
    let config = PeerstoreConfig {
        stored: STORED,
        reached_ttl: 30 * SECOND,
        identify_ttl: 120 * SECOND,
        ..PeerstoreConfig::default()
    };
    let peers: Vec<_> = (0..PEERS).map(peer).collect();
    let (mut life, mut naive) = (Life::loaded(config), Naive::default());
    let (mut failed, mut compared, mut restarts) = (0, 0, 0);
    for step in 0..100_000 {
        life.now = life.now + Duration::from_millis(rng.below(400));
        if let Some(ask) = life.ask() {
            // Something happens before the store answers, or fails.
            operate(&mut life, &mut naive, &mut rng, &peers);
            if rng.below(4) == 0 {
                failed += 1;
                life.fail();
            } else {
                let answer = life.done(ask);
                life.answer(Ok(answer));
            }
        }
        operate(&mut life, &mut naive, &mut rng, &peers);
        assert!(life.table.len() <= STORED, "step {step} of seed {SEED}");
        if rng.below(40) > 0 {
            continue;
        }
        // Quiescence.
        life.archive.hurry(life.now);
        let due = life.archive.deadline(&life.store).expect("there is something to look at").at;
        life.now = life.now.max(due);
        life.serve();
        naive.expire(life.now);
        let (expected, found) = (naive.rows(life.now, life.unix(), &config), rows_of(&life));
        assert_eq!(found, expected, "step {step} of seed {SEED}");
        compared += 1;
        if rng.below(10) == 0 {
            // Connected peers' addresses lasted longer on the disk.
            for it in naive.known.iter_mut().filter(|it| it.live > 0) {
                let until = it.said.entry(Voucher::Dial).or_default();
                *until = (life.now + config.reached_ttl).max(*until);
            }
            naive.restart(life.now, &expected, &config);
            life.restart();
            restarts += 1;
        }
    }
    assert!(failed > 100 && compared > 1000 && restarts > 100, "{failed}, {compared}, {restarts}");
}

fn operate(life: &mut Life, naive: &mut Naive, rng: &mut Rng, peers: &[PeerId]) {
    let (now, which, n) = (life.now, peers[rng.below(PEERS) as usize], rng.below(12));
    naive.expire(now);
    let is_known = naive.touched.contains_key(&which);
    let touch = |naive: &mut Naive| _ = naive.touched.insert(which, now);
    match rng.below(12) {
        0..4 => {
            let source = [Source::Heard, Source::Rendezvous, Source::Identify, Source::Embedder];
            let source = source[rng.below(4) as usize];
            let ttl = (rng.below(20) > 0).then(|| Duration::from_secs(1 + rng.below(60)));
            life.add(which, n, source, ttl);
            let expires = ttl.map_or(Instant::FAR_FUTURE, |ttl| now + ttl);
            if source.replaces() {
                naive.replace(which, &[place(n)], source.says());
            }
            naive.add(which, place(n), source.says(), expires);
            touch(naive);
        }
        4..6 => {
            let number = now.as_nanos() / 10_000_000_000 + rng.below(4);
            let listed = vec![place(number % 12), place(number * 7 % 12)];
            let ttl = Duration::from_secs(1 + rng.below(60));
            let taken = life.store.add_record(now, which, number, &listed, ttl);
            let is_old = naive.records.get(&which).is_some_and(|known| *known > number);
            assert_eq!(taken.is_err(), is_old);
            if !is_old {
                naive.replace(which, &listed, Voucher::Certified);
                for address in listed {
                    naive.add(which, address, Voucher::Certified, now + ttl);
                }
                naive.records.insert(which, number);
                touch(naive);
            }
        }
        6 | 7 => {
            life.connect(which, n);
            *naive.connections.entry(which).or_default() += 1;
            let known = naive.add(which, place(n), Voucher::Dial, now + life.config.reached_ttl);
            (known.is_reached, known.live) = (true, known.live + 1);
            touch(naive);
        }
        8 | 9 => {
            let address = life.disconnect(which);
            if let Some(count) = naive.connections.get_mut(&which) {
                *count = count.saturating_sub(1);
            }
            for it in naive.known.iter_mut().filter(|it| it.peer == which) {
                if Some(&it.address) == address.as_ref() {
                    it.live = it.live.saturating_sub(1);
                    if it.is_reached {
                        let until = it.said.entry(Voucher::Dial).or_default();
                        *until = (now + life.config.reached_ttl).max(*until);
                    }
                }
            }
            if is_known {
                touch(naive);
            }
        }
        10 => {
            life.store.unreachable(now, &which, &place(n));
            let known = naive.known.iter_mut().filter(|it| it.peer == which && it.address == place(n));
            known.for_each(|it| it.is_reached = false);
        }
        _ if rng.below(3) > 0 => {
            life.store.remove_address(now, which, &place(n));
            naive.known.retain(|it| it.peer != which || it.address != place(n));
            if is_known {
                touch(naive);
            }
        }
        _ if rng.below(4) > 0 => {
            life.store.measured(now, which, SECOND);
            touch(naive);
        }
        _ => {
            life.store.forget(now, which);
            naive.known.retain(|it| it.peer != which);
            naive.records.remove(&which);
            naive.touched.remove(&which);
            if naive.is_connected(&which) {
                naive.touched.insert(which, Instant::ZERO);
            }
        }
    }
}
