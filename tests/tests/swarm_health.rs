//! The letter (f): new streams leave a connection that is slow or fails, and one that is replaced has its successor before
//! it is closed.

use peerless_core::{
    errors::CloseReason,
    ids::ConnectionId,
    node::{Config, Event},
    swarm::{dial::DialOptions, select::Strategy},
};
use peerless_tests::{
    app::ECHO,
    host::HostId,
    link::Link,
    world::{World, ms, secs},
};

/// A and B, connected through two relays; the connections through the first and the second.
fn two_ways(seed: u64, strategy: Strategy) -> (World, [HostId; 4], [ConnectionId; 2]) {
    let mut w = World::new(seed);
    let relays = [w.host("R").relay().start(), w.host("S").relay().start()];
    let b = w.host("B").start();
    let a = w.host("A").configure(move |config| config.swarm.strategy = strategy).start();
    relays.iter().for_each(|relay| w.reserve(b, *relay));
    w.run_for(secs(1));
    let options = DialOptions { force_new: true, ..DialOptions::default() };
    let ways = relays.map(|relay| {
        let address = w.circuit(relay, b);
        let dial = w.command(a, |node, now| node.dial_with(now, None, &[address], &options));
        w.wait_for(a, "the circuit", |event| event.dial_outcome(dial)).expect("a circuit")
    });
    (w, [a, b, relays[0], relays[1]], ways)
}

/// On which connection a new stream to B is opened; it is closed again.
fn chosen(w: &mut World, a: HostId, b: HostId) -> ConnectionId {
    let peer = w[b].peer();
    let before: Vec<_> = w.connections(a, b).iter().map(|id| w.node(a).health().last_chosen(*id)).collect();
    let stream = w.command(a, |node, now| node.open_to(now, &peer, &ECHO)).expect("a stream");
    w.command(a, |node, now| node.reset(now, stream));
    let after = w.connections(a, b).into_iter().zip(before);
    let changed = after.filter(|(id, before)| w.node(a).health().last_chosen(*id) != *before);
    changed.map(|(id, _)| id).next().expect("one was chosen")
}

#[test]
fn f_new_streams_leave_a_connection_that_becomes_slow() {
    let (mut w, [a, b, r, s], [through_r, through_s]) = two_ways(81, Strategy::LatencyBased);
    w.link(a, r, Link::latency(ms(100)));
    for way in [through_r, through_s] {
        w.ping(a, way);
    }
    assert_eq!(chosen(&mut w, a, b), through_s);
    w.link(a, r, Link::latency(ms(20)));
    w.link(a, s, Link::latency(ms(300)));
    for way in [through_r, through_s] {
        w.ping(a, way);
    }
    assert_eq!(chosen(&mut w, a, b), through_r);
    w.shutdown();
    w.assert_empty();
}

#[test]
fn f_new_streams_leave_a_connection_that_fails() {
    let (mut w, [a, b, r, _], [through_r, through_s]) = two_ways(82, Strategy::HealthBased);
    w.cut(r, b);
    w.command(a, |node, now| node.ping(now, through_r)).unwrap();
    w.run_for(secs(25));
    assert_eq!(chosen(&mut w, a, b), through_s, "its ping was not answered");
    w.shutdown();
    w.run_for(secs(60));
    w.assert_empty();
}

#[test]
fn connections_take_turns() {
    let (mut w, [a, b, ..], ways) = two_ways(83, Strategy::RoundRobin);
    let order: Vec<_> = (0..4).map(|_| chosen(&mut w, a, b)).collect();
    assert_eq!(order, [ways[0], ways[1], ways[0], ways[1]]);
    w.shutdown();
    w.assert_empty();
}

fn watched(config: &mut Config) {
    config.swarm.health.enabled = true;
}

#[test]
fn f_a_sick_connection_is_replaced_and_its_successor_is_there_first() {
    let mut w = World::new(84);
    let (a, b) = (w.host("A").configure(watched).start(), w.host("B").start());
    let first = w.dial(a, b);
    let address = w[b].address();
    let dial = w.start_own_dial(a, &address);
    let second = w.wait_for(a, "another", |event| event.dial_outcome(dial)).expect("another connection");
    w.run_for(secs(200));
    assert_eq!(w.connections(a, b), [first, second], "nothing is wrong with them");
    w.link(a, b, Link::latency(ms(700)));
    for _ in 0..40 {
        w.run_for(secs(10));
        assert!(w.connections(a, b).len() >= 2, "a successor is there before the old one goes");
        if !w.connections(a, b).contains(&first) {
            w.link(a, b, Link::default());
        }
    }
    let replaced =
        |(_, event): &&(_, Event)| matches!(event, Event::Disconnected { reason: CloseReason::Replaced, .. });
    let gone = w[a].log().iter().filter(replaced).count();
    assert!((1..=2).contains(&gone), "{gone} were replaced");
    assert_eq!(w.connections(a, b).len(), 2);
    w.shutdown();
    w.assert_empty();
}

/// Pings of many connections leave one after another, not all in one turn.
#[test]
fn connections_are_pinged_each_at_its_own_time() {
    let mut w = World::new(86);
    let a = w.host("A").configure(watched).start();
    let crowd: Vec<_> = (0..30).map(|n| w.host(format!("{n}")).start()).collect();
    for host in &crowd {
        w.dial(*host, a);
    }
    w.run_for(secs(300));
    let pings = w[a].log().iter().filter(|(_, event)| matches!(event, Event::Ping(_)));
    let mut at: Vec<_> = pings.map(|(at, _)| *at).collect();
    assert!((4 * 30..=5 * 30).contains(&at.len()), "{} pings", at.len());
    at.dedup();
    assert!(at.len() >= 4 * 30, "only {} moments", at.len());
    w.shutdown();
    w.assert_empty();
}

#[test]
fn a_used_connection_is_left_alone_however_slow() {
    let mut w = World::new(85);
    let (a, b) = (w.host("A").configure(watched).start(), w.host("B").start());
    let first = w.dial(a, b);
    let address = w[b].address();
    let dial = w.start_own_dial(a, &address);
    let second = w.wait_for(a, "another", |event| event.dial_outcome(dial)).expect("another connection");
    for connection in [first, second] {
        w.command(a, |node, now| node.open(now, connection, &ECHO)).expect("a stream");
    }
    w.link(a, b, Link::latency(ms(700)));
    w.run_for(secs(600));
    assert_eq!(w.connections(a, b), [first, second]);
    w.shutdown();
    w.assert_empty();
}
