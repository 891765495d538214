use std::collections::BTreeMap;

use super::*;
use crate::{rng::Rng, swarm::gate::tests::peer};

fn at(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

fn candidate(n: u8) -> Candidate {
    Candidate {
        value: 0,
        streams: 0,
        outbound: false,
        since: at(0),
        peer: peer(n),
        connections: 1,
        spared: false,
    }
}

fn config(low_water: usize, high_water: usize) -> PrunerConfig {
    PrunerConfig { low_water, high_water, ..PrunerConfig::default() }
}

const LATER: Instant = Instant::from_nanos(1_000_000_000_000);

#[test]
fn the_order_is_value_streams_direction_age() {
    let candidates = vec![
        candidate(6),
        Candidate { since: at(5), ..candidate(5) },
        Candidate { outbound: true, ..candidate(4) },
        Candidate { streams: 1, ..candidate(3) },
        Candidate { value: 1, ..candidate(2) },
        Candidate { value: -1, streams: 99, outbound: true, ..candidate(1) },
        Candidate { value: -99, spared: true, ..candidate(0) },
    ];
    let pruned = Pruner::new(config(1, 6)).prune(LATER, 7, candidates);
    assert_eq!(pruned, [1, 6, 5, 4, 3, 2].map(peer));
}

#[test]
fn a_peer_goes_with_all_its_connections_or_not_at_all() {
    let candidates = (0..4).map(|n| Candidate { connections: 3, ..candidate(n) }).collect();
    let pruned = Pruner::new(config(8, 11)).prune(LATER, 12, candidates);
    assert_eq!(pruned.len(), 2, "six connections in place of four");
}

#[test]
fn who_is_in_grace_is_looked_at_again_when_that_is_over() {
    let mut pruner = Pruner::new(config(1, 2));
    let candidates: Vec<_> =
        (0..4).map(|n| Candidate { since: at(1000 * u64::from(n)), ..candidate(n) }).collect();
    pruner.observe(4);
    assert!(pruner.is_due(at(5000), 4));
    assert_eq!(pruner.prune(at(5000), 4, candidates.clone()), []);
    assert_eq!(pruner.deadline(), Some(at(20_000)));
    assert!(!pruner.is_due(at(19_999), 4) && pruner.is_due(at(20_000), 4));
    assert_eq!(pruner.prune(at(20_000), 4, candidates[..].to_vec()), [peer(0)]);
    assert_eq!(pruner.deadline(), Some(at(30_000)), "not before the silence is over");
    pruner.observe(2);
    assert_eq!(pruner.deadline(), None, "nothing to do any more");
}

#[test]
fn if_all_are_spared_nothing_is_waited_for_until_something_changes() {
    let mut pruner = Pruner::new(config(1, 2));
    let spared: Vec<_> = (0..3).map(|n| Candidate { spared: true, ..candidate(n) }).collect();
    assert!(pruner.is_due(LATER, 3));
    assert_eq!(pruner.prune(LATER, 3, spared), []);
    assert!(!pruner.is_due(LATER, 3) && pruner.deadline().is_none());
    pruner.inserted(LATER);
    assert_eq!(pruner.deadline(), Some(LATER + config(1, 2).grace), "when its grace is over");
    pruner.reconsider();
    assert_eq!((pruner.is_due(LATER, 3), pruner.deadline()), (false, Some(LATER + REST)));
    assert!(pruner.is_due(LATER + REST, 3));
}

/// Who is connected, and what a naive pruner does about it.
#[derive(Default)]
struct Crowd {
    peers: BTreeMap<u8, Candidate>,
}

impl Crowd {
    fn connections(&self) -> usize {
        self.peers.values().map(|it| it.connections).sum()
    }

    /// Takes the worst one out, again and again.
    fn prune(&self, now: Instant, config: &PrunerConfig) -> Vec<PeerId> {
        let mut left = self.peers.clone();
        let mut pruned = Vec::new();
        loop {
            let connections: usize = left.values().map(|it| it.connections).sum();
            let key = |it: &Candidate| (it.value, it.streams, it.outbound, it.since, it.peer);
            let old = |it: &&Candidate| !it.spared && now.saturating_duration_since(it.since) >= config.grace;
            let worst = left.values().filter(old).min_by_key(|it| key(it)).map(|it| it.peer);
            let Some(worst) = worst.filter(|_| connections > config.low_water) else { return pruned };
            left.retain(|_, it| it.peer != worst);
            pruned.push(worst);
        }
    }
}

#[test]
fn a_hundred_thousand_random_steps_prune_whom_a_naive_pruner_prunes_and_when() {
    let seed: u64 = 0x5eed_0003;
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut rng = Rng::new(key);
    let config = config(10, 20);
    let mut pruner = Pruner::new(config.clone());
    let mut crowd = Crowd::default();
    let (mut now, mut last, mut prunings) = (at(0), None::<Instant>, 0);
    let mut rest = at(0);
    for step in 0..100_000 {
        now = now + Duration::from_millis(rng.below(2000));
        let n = rng.below(60) as u8;
        match rng.below(10) {
            0..=6 => {
                let fresh = Candidate {
                    value: rng.below(3) as i64,
                    streams: rng.below(3) as usize,
                    outbound: rng.below(2) == 0,
                    since: now,
                    spared: rng.below(4) == 0,
                    connections: 0,
                    ..candidate(n)
                };
                let it = crowd.peers.entry(n).or_insert(fresh);
                it.connections += usize::from(it.connections < 3);
                if !it.spared {
                    pruner.inserted(now);
                }
            }
            7 => {
                crowd.peers.remove(&n);
            }
            8 => {
                if let Some(it) = crowd.peers.get_mut(&n) {
                    it.spared = !it.spared;
                    if !it.spared {
                        pruner.reconsider();
                    }
                }
            }
            _ => {
                if let Some(it) = crowd.peers.get_mut(&n) {
                    it.value = rng.below(5) as i64;
                    it.streams = rng.below(5) as usize;
                }
            }
        }
        let connections = crowd.connections();
        pruner.observe(connections);
        let silent = last.is_some_and(|last| last + config.silence > now) || rest > now;
        let expected =
            if connections > config.high_water && !silent { crowd.prune(now, &config) } else { Vec::new() };
        let pruned = if pruner.is_due(now, connections) {
            let pruned = pruner.prune(now, connections, crowd.peers.values().copied().collect());
            if pruned.is_empty() {
                rest = now + REST;
            }
            pruned
        } else {
            Vec::new()
        };
        assert_eq!(pruned, expected, "step {step} of seed {seed:#x}, {connections} connections");
        if !pruned.is_empty() {
            prunings += 1;
            last = Some(now);
            crowd.peers.retain(|_, it| !pruned.contains(&it.peer));
            pruner.observe(crowd.connections());
        }
        assert!(pruner.deadline().is_none_or(|at| at > now), "step {step} of seed {seed:#x}");
    }
    assert!(prunings > 1000, "{prunings} prunings with seed {seed:#x}");
}
