//! Too many connections: who goes and who stays.

use peerless_core::{
    PeerId,
    errors::CloseReason,
    node::{Config, Event},
    swarm::{
        gate::Entry,
        pruner::PrunerConfig,
        resources::Limits,
        tags::{self, Tag},
    },
};
use peerless_tests::{
    host::HostId,
    world::{World, secs},
};

const HIGH: usize = 12;
const LOW: usize = 5;

fn watched(config: &mut Config) {
    config.swarm.limits = Limits::unlimited();
    config.swarm.pruner = PrunerConfig { low_water: LOW, high_water: HIGH, ..PrunerConfig::default() };
}

/// Whom the node closed to have fewer connections, in order.
fn pruned(w: &World, host: HostId) -> Vec<PeerId> {
    let pick = |event: &Event| match event {
        Event::Disconnected { peer, reason: CloseReason::Pruned, .. } => Some(*peer),
        _ => None,
    };
    w[host].log().iter().filter_map(|(_, event)| pick(event)).collect()
}

fn protect(w: &mut World, host: HostId, peer: PeerId, why: &'static str) {
    w.command(host, |node, now| node.tags(now, |tags, now| tags.protect(now, peer, Tag::from(why))));
}

/// The letter (a): with one connection more than the high water mark, all past their grace, as many close as lead to the
/// low one, the least valuable first; whoever is protected, allow-listed or new stays.
#[test]
fn a_above_the_high_water_mark_the_least_valuable_go_until_the_low_one_is_reached() {
    let mut w = World::new(1);
    let b = w.host("B").configure(watched).start();
    let crowd: Vec<_> = (0..HIGH).map(|n| w.host(format!("{n}")).start()).collect();
    for host in &crowd {
        w.dial(*host, b);
        w.run_for(secs(1));
    }
    let peers: Vec<_> = crowd.iter().map(|host| w[*host].peer()).collect();
    protect(&mut w, b, peers[0], tags::BOOTSTRAP);
    w.command(b, |node, now| {
        node.tags(now, |tags, now| {
            tags.tag(now, peers[1], tags::APPLICATION, 10);
            tags.tag(now, peers[3], tags::APPLICATION, -1);
        });
    });
    w.run_for(secs(30));
    assert_eq!(w.node(b).connections().len(), HIGH);
    let late = w.host("late").start();
    w.dial(late, b);
    w.run_for(secs(1));
    // The worst first, then the oldest; 0 is protected, 1 is worth something.
    let expected: Vec<_> = [3, 2, 4, 5, 6, 7, 8, 9].map(|n: usize| peers[n]).to_vec();
    assert_eq!(expected.len(), HIGH + 1 - LOW);
    assert_eq!(pruned(&w, b), expected);
    assert_eq!(w.node(b).connections().len(), LOW);
    assert!(w[crowd[3]].log().iter().any(|(_, event)| matches!(
        event,
        Event::Disconnected { reason: CloseReason::Remote { code: 0x1005, .. }, .. }
    )));
    let closed = w.node(b).metrics().get("peerless_connections_closed_total", &[("reason", "pruned")]);
    assert_eq!(closed, Some(expected.len() as u64));

    // A protected peer that comes back is still protected.
    let connection = w.connections(crowd[0], b)[0];
    w.close(crowd[0], connection);
    w.run_for(secs(1));
    w.dial(crowd[0], b);
    assert!(w.node(b).swarm().tags().is_protected(&peers[0]));
    w.shutdown();
    w.assert_empty();
}

/// A peer is as old as the oldest of its connections: another connection does not make it a new peer.
#[test]
fn a_new_connection_does_not_renew_the_grace_of_its_peer() {
    let mut w = World::new(1);
    let b = w.host("B").configure(watched).start();
    let crowd: Vec<_> = (0..HIGH - 1).map(|n| w.host(format!("{n}")).start()).collect();
    for host in &crowd {
        w.dial(*host, b);
        let peer = w[*host].peer();
        protect(&mut w, b, peer, tags::BOOTSTRAP);
    }
    let old = w.host("old").start();
    w.dial(old, b);
    w.run_for(secs(30));
    let address = w[b].address();
    w.start_own_dial(old, &address);
    w.run_for(secs(1));
    assert_eq!(pruned(&w, b), [w[old].peer(); 2], "both of its connections");
    assert_eq!(w.node(b).connections().len(), HIGH - 1);
    w.shutdown();
    w.assert_empty();
}

/// Looking at everybody takes as long as there are many: it happens when there may be somebody to prune, not with every
/// connection, tag or protection.
#[test]
fn where_everybody_is_spared_newcomers_do_not_have_everybody_looked_at() {
    let mut w = World::new(1).quiet();
    let b = w.host("B").configure(watched).start();
    let looks = |w: &World| w.node(b).swarm().pruner().looks();
    let join = |w: &mut World, n: usize| {
        let host = w.host(format!("{n}")).start();
        let peer = w[host].peer();
        protect(w, b, peer, tags::RESERVATION);
        w.dial(host, b);
        w.run_for(secs(1));
        w.command(b, |node, now| node.tags(now, |tags, now| tags.tag(now, peer, tags::APPLICATION, 1)));
        peer
    };
    let peers: Vec<_> = (0..100).map(|n| join(&mut w, n)).collect();
    assert!(looks(&w) <= 2, "{} looks", looks(&w));
    // Who comes and goes within its grace causes one a second at most.
    let before = looks(&w);
    let guests: Vec<_> = (0..10).map(|n| w.host(format!("guest {n}")).start()).collect();
    for turn in 0..100 {
        let guest = guests[turn % 10];
        let connection = w.dial(guest, b);
        w.run_for(secs(1) / 5);
        w.close(guest, connection);
    }
    assert!(looks(&w) - before <= 21, "{} looks in 20 s", looks(&w) - before);
    // Who is not protected any more goes.
    w.command(b, |node, now| node.tags(now, |tags, _| _ = tags.unprotect(&peers[7], tags::RESERVATION)));
    w.run_for(secs(30));
    assert_eq!(pruned(&w, b), [peers[7]]);
    w.shutdown();
    w.assert_empty();
}

/// The letter (a): the allow list spares a peer by where it really is, as long as it stands there.
#[test]
fn a_whom_the_allow_list_names_stays_until_it_does_so_no_more() {
    let mut w = World::new(2);
    let named = Entry::Network("80.0.0.0/8".parse().expect("a network"));
    let b = w.host("B").configure(watched).start();
    w.command(b, |node, now| node.change_gate(now, |gate| gate.allow(named)));
    for n in 0..=HIGH {
        let host = w.host(format!("{n}")).start();
        w.dial(host, b);
    }
    w.run_for(secs(60));
    assert_eq!(w.node(b).connections().len(), HIGH + 1);
    w.command(b, |node, now| node.change_gate(now, |gate| gate.disallow(named)));
    assert_eq!((w.node(b).connections().len(), pruned(&w, b).len()), (LOW, HIGH + 1 - LOW));
    w.shutdown();
    w.assert_empty();
}

/// C1: a flood of strangers up to the high water mark and far beyond displaces nobody who is protected, and prunings keep
/// their distance.
#[test]
fn a_sybil_flood_leaves_the_protected_and_prunings_keep_their_distance() {
    let mut w = World::new(3).quiet();
    let b = w.host("B").configure(watched).start();
    let friends: Vec<_> = (0..4).map(|n| w.host(format!("friend {n}")).start()).collect();
    for host in &friends {
        w.dial(*host, b);
        let peer = w[*host].peer();
        protect(&mut w, b, peer, tags::KEEP_ALIVE);
    }
    let sybils: Vec<_> = (0..60).map(|n| w.host(format!("sybil {n}")).start()).collect();
    let address = w[b].address();
    for _ in 0..60 {
        for host in &sybils {
            if w.connections(*host, b).is_empty() {
                w.start_dial(*host, None, std::slice::from_ref(&address));
            }
        }
        w.run_for(secs(2));
        assert!(friends.iter().all(|host| !w.connections(*host, b).is_empty()));
    }
    let mut instants: Vec<_> = w[b]
        .log()
        .iter()
        .filter(|(_, event)| matches!(event, Event::Disconnected { reason: CloseReason::Pruned, .. }))
        .map(|(at, _)| *at)
        .collect();
    instants.dedup();
    println!("{} prunings in two minutes, {} peers", instants.len(), pruned(&w, b).len());
    assert!((2..=12).contains(&instants.len()), "{instants:?}");
    assert!(instants.windows(2).all(|pair| pair[1].saturating_duration_since(pair[0]) >= secs(10)));
    let friends: Vec<_> = friends.iter().map(|host| w[*host].peer()).collect();
    assert!(!pruned(&w, b).iter().any(|peer| friends.contains(peer)));
    w.shutdown();
    w.assert_empty();
}

#[test]
fn the_relays_that_we_reserve_at_and_the_peers_that_reserve_with_us_are_protected_meanwhile() {
    let mut w = World::new(4);
    let r = w.host("R").relay().start();
    let b = w.host("B").start();
    w.reserve(b, r);
    w.run_for(secs(1));
    let (of_b, of_r) = (w[b].peer(), w[r].peer());
    assert!(w.node(b).swarm().tags().is_protected_for(&of_r, tags::RELAY));
    assert!(w.node(r).swarm().tags().is_protected_for(&of_b, tags::RESERVATION));
    w.command(b, |node, now| node.cancel_reservation(now, of_r));
    assert!(!w.node(b).swarm().tags().is_protected(&of_r));
    w.shutdown();
    w.assert_empty();
    assert!(w.node(r).swarm().tags().is_empty() && w.node(b).swarm().tags().is_empty());
}
