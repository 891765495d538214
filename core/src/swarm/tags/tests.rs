use super::*;
use crate::{rng::Rng, swarm::gate::tests::peer};

fn at(secs: u64) -> Instant {
    Instant::from_nanos(secs * 1_000_000_000)
}

const GRACE: Duration = Duration::from_secs(20);

#[test]
fn values_add_up_and_protection_counts_by_reason() {
    let mut tags = Tags::new(GRACE);
    tags.connected(at(0), peer(1));
    tags.tag(at(0), peer(1), "a", 5);
    tags.tag(at(0), peer(1), "a", 7);
    tags.bump(at(0), peer(1), "b", -100, (-10, 10));
    assert_eq!(tags.value(at(0), &peer(1)), -3);
    assert!(tags.untag(&peer(1), "a") && !tags.untag(&peer(1), "a"));
    tags.protect(at(0), peer(1), RELAY);
    tags.protect(at(0), peer(1), BOOTSTRAP);
    assert!(tags.unprotect(&peer(1), RELAY), "the other reason is left");
    assert!(!tags.unprotect(&peer(1), BOOTSTRAP));
    assert_eq!(tags.protected().count(), 0);
}

#[test]
fn protection_outlives_connections_and_keeps_the_tags() {
    let mut tags = Tags::new(GRACE);
    for n in [1, 2] {
        tags.connected(at(0), peer(n));
        tags.tag(at(0), peer(n), APPLICATION, 5);
    }
    tags.protect(at(0), peer(1), RELAY);
    tags.disconnected(&peer(1));
    tags.disconnected(&peer(2));
    tags.connected(at(1000), peer(1));
    assert!(tags.is_protected_for(&peer(1), RELAY));
    assert_eq!((tags.value(at(1000), &peer(1)), tags.value(at(1000), &peer(2))), (5, 0));
    tags.unprotect(&peer(1), RELAY);
    tags.disconnected(&peer(1));
    assert!(tags.is_empty() && tags.temporary.is_empty());
}

#[test]
fn who_was_tagged_and_never_came_is_forgotten_after_the_grace_period() {
    let mut tags = Tags::new(GRACE);
    tags.tag(at(0), peer(1), "a", 1);
    tags.tag(at(0), peer(2), "a", 1);
    assert!(tags.info(at(0), &peer(1)).unwrap().temporary);
    tags.connected(at(10), peer(2));
    assert!(!tags.info(at(10), &peer(2)).unwrap().temporary);
    tags.tag(at(20), peer(3), "a", 1);
    assert_eq!(tags.len(), 3);
    tags.tag(at(21), peer(3), "a", 1);
    assert_eq!((tags.info(at(21), &peer(1)), tags.len()), (None, 2));
}

#[test]
fn tags_decay_by_steps_or_by_half_and_a_bump_does_not_stop_the_clock() {
    let mut tags = Tags::new(GRACE);
    tags.connected(at(0), peer(1));
    tags.tag_decaying(at(0), peer(1), "steps", 10, Decay::Linear { every: GRACE, step: 3 });
    tags.tag_decaying(at(0), peer(1), "half", -9, Decay::Halving { every: GRACE });
    let value = |tags: &Tags, at, tag| tags.tag_value(at, &peer(1), tag);
    assert_eq!([19, 20, 40, 60, 80, 999].map(|s| value(&tags, at(s), "steps")), [10, 7, 4, 1, 0, 0]);
    assert_eq!([19, 20, 40, 60, 80, 999_999].map(|s| value(&tags, at(s), "half")), [-9, -4, -2, -1, 0, 0]);
    tags.bump(at(30), peer(1), "steps", 5, (0, 100));
    assert_eq!([30, 39, 40].map(|s| value(&tags, at(s), "steps")), [12, 12, 9]);
    tags.tag_decaying(at(0), peer(1), "never", 10, Decay::Linear { every: Duration::ZERO, step: 3 });
    assert_eq!(value(&tags, at(1 << 30), "never"), 10);
}

/// The same by keeping everything as a list and looking through all of it.
#[derive(Default)]
struct Naive {
    tags: Vec<(PeerId, String, i64)>,
    protections: Vec<(PeerId, String)>,
    connections: Vec<PeerId>,
    /// Who has never been connected, and since when it is known.
    temporary: Vec<(PeerId, Instant)>,
}

impl Naive {
    fn is_protected(&self, peer: PeerId) -> bool {
        self.protections.iter().any(|it| it.0 == peer)
    }

    fn is_known(&self, peer: PeerId) -> bool {
        self.connections.contains(&peer) || self.is_protected(peer) || self.tags.iter().any(|it| it.0 == peer)
    }

    fn sweep(&mut self, now: Instant) {
        let late: Vec<_> = self
            .temporary
            .iter()
            .filter(|(_, since)| now.saturating_duration_since(*since) > GRACE)
            .map(|it| it.0)
            .collect();
        self.temporary.retain(|it| !late.contains(&it.0));
        for peer in late {
            if !self.is_protected(peer) {
                self.tags.retain(|it| it.0 != peer);
            }
        }
    }

    fn enter(&mut self, now: Instant, peer: PeerId) {
        self.sweep(now);
        if !self.is_known(peer) {
            self.temporary.push((peer, now));
        }
    }

    fn leave(&mut self, peer: PeerId) {
        let was_there = self.temporary.iter().any(|it| it.0 == peer);
        if !self.connections.contains(&peer) && !self.is_protected(peer) && !was_there {
            self.tags.retain(|it| it.0 != peer);
        }
        if !self.is_known(peer) {
            self.temporary.retain(|it| it.0 != peer);
        }
    }
}

#[test]
fn a_hundred_thousand_random_changes_give_what_looking_through_lists_gives() {
    let seed: u64 = 0x5eed_0002;
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut rng = Rng::new(key);
    let mut tags = Tags::new(GRACE);
    let mut naive = Naive::default();
    let names = ["a", "b", "c"];
    let mut now = at(0);
    for step in 0..100_000 {
        now = now + Duration::from_millis(rng.below(4000));
        let peer = peer(rng.below(6) as u8);
        let name = names[rng.below(3) as usize];
        match rng.below(8) {
            0..=1 => {
                let value = rng.below(21) as i64 - 10;
                tags.tag(now, peer, name, value);
                naive.enter(now, peer);
                naive.tags.retain(|it| (it.0, it.1.as_str()) != (peer, name));
                naive.tags.push((peer, name.into(), value));
            }
            2 => {
                tags.untag(&peer, name);
                naive.tags.retain(|it| (it.0, it.1.as_str()) != (peer, name));
                naive.leave(peer);
            }
            3 => {
                tags.protect(now, peer, name);
                naive.enter(now, peer);
                naive.protections.retain(|it| (it.0, it.1.as_str()) != (peer, name));
                naive.protections.push((peer, name.into()));
            }
            4 => {
                tags.unprotect(&peer, name);
                naive.protections.retain(|it| (it.0, it.1.as_str()) != (peer, name));
                naive.leave(peer);
            }
            5..=6 if naive.connections.len() < 4 => {
                tags.connected(now, peer);
                naive.enter(now, peer);
                naive.connections.push(peer);
                naive.temporary.retain(|it| it.0 != peer);
            }
            _ => {
                let Some(gone) = naive.connections.iter().position(|it| *it == peer) else { continue };
                tags.disconnected(&peer);
                naive.connections.remove(gone);
                if !naive.connections.contains(&peer) && !naive.is_protected(peer) {
                    naive.tags.retain(|it| it.0 != peer);
                }
                naive.leave(peer);
            }
        }
        let expected: i64 = naive.tags.iter().filter(|it| it.0 == peer).map(|it| it.2).sum();
        assert_eq!(tags.value(now, &peer), expected, "step {step} of seed {seed:#x}");
        assert_eq!(tags.is_protected(&peer), naive.is_protected(peer), "step {step} of seed {seed:#x}");
        assert_eq!(tags.info(now, &peer).is_some(), naive.is_known(peer), "step {step} of seed {seed:#x}");
        assert_eq!(tags.temporary.len(), naive.temporary.len(), "step {step} of seed {seed:#x}");
    }
}
