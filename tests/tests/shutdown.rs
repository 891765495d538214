//! A node that shuts down: who dials it then, by whatever way, is told at once, and it is idle in the time promised.

use std::time::Duration;

use peerless_core::{
    Multiaddr,
    errors::{AttemptError, CloseReason, DialError, StreamFault},
    ids::{ConnectionId, DialId},
    node::{Event, SHUTDOWN},
    protocols::rendezvous,
    time::Instant,
};
use peerless_tests::{
    host::HostId,
    link::Link,
    world::{World, ms, secs},
};

/// The application error code of a node that goes, as in go-libp2p.
const GOING: u64 = 0x1006;

fn shut_down(w: &mut World, host: HostId) -> Instant {
    w.command(host, |node, now| node.shutdown(now));
    w.now()
}

/// What has come of a dial, and when.
fn outcome(w: &World, host: HostId, dial: DialId) -> Option<(Instant, Result<ConnectionId, DialError>)> {
    w[host].log().iter().find_map(|(at, event)| Some((*at, event.dial_outcome(dial)?)))
}

/// When and why a connection ended.
fn end(w: &World, host: HostId, ours: ConnectionId) -> Option<(Instant, CloseReason)> {
    w[host].log().iter().find_map(|(at, event)| match event {
        Event::Disconnected { connection, reason, .. } if *connection == ours => Some((*at, reason.clone())),
        _ => None,
    })
}

/// Until when a dialler believes in the node: its dial has failed, or its connection has ended.
fn told(w: &World, host: HostId, dial: DialId) -> Option<Instant> {
    match outcome(w, host, dial)? {
        (at, Err(_)) => Some(at),
        (_, Ok(connection)) => end(w, host, connection).map(|(at, _)| at),
    }
}

fn assert_idle_in_time(w: &mut World, host: HostId, since: Instant) {
    let left = SHUTDOWN - w.now().saturating_duration_since(since).min(SHUTDOWN);
    w.run_for(left);
    let node = w.node(host);
    assert!(node.is_idle(), "{:?}", node.stats());
}

#[test]
fn who_dials_a_node_that_has_shut_down_is_told_within_a_round_trip() {
    let mut w = World::new(1);
    let [a, b, c] = ["A", "B", "C"].map(|name| w.host(name).start());
    w.dial(c, b);
    let address = w[b].address();
    let since = shut_down(&mut w, b);
    w.run_for(ms(20));
    let begun = w.now();
    let error = w.try_dial(a, None, &[address]).expect_err("B is going");
    let [(_, AttemptError::Failed(CloseReason::ConnectionRefused))] = &error.attempts[..] else {
        panic!("{error}")
    };
    assert!(error.to_string().contains("the remote refuses the connection"), "{error}");
    assert!(w.now().saturating_duration_since(begun) <= ms(40));
    assert!(w.node(b).stats().quic.refused.denied > 0);
    assert_idle_in_time(&mut w, b, since);
    w.run_for(secs(5));
    assert!(w.node(b).is_idle());
    w.shutdown();
    w.assert_empty();
}

/// Before, while and after B shuts down, A dials it: never is A left with a connection that nobody serves.
#[test]
fn a_handshake_that_meets_the_shutdown_ends_with_it() {
    for latency in [1, 20, 100] {
        for offset in (0..8 * latency).step_by(latency as usize / 2 + 1) {
            let mut w = World::new(offset);
            w.default_link(Link::latency(ms(latency)));
            let [a, b] = ["A", "B"].map(|name| w.host(name).start());
            let address = w[b].address();
            let dial = w.start_dial(a, None, &[address]);
            w.run_for(ms(offset));
            let since = shut_down(&mut w, b);
            assert_idle_in_time(&mut w, b, since);
            w.run_for(secs(1));
            let told = told(&w, a, dial);
            let told = told.unwrap_or_else(|| panic!("{latency} ms, {offset} ms: A was not told"));
            let took = told.saturating_duration_since(since);
            assert!(took <= ms(3 * latency), "{latency} ms, {offset} ms: told after {took:?}");
            if let Some((_, Ok(connection))) = outcome(&w, a, dial) {
                let reason = end(&w, a, connection).map(|(_, reason)| reason);
                let is_clear = matches!(reason, Some(CloseReason::Remote { code: GOING, .. }));
                assert!(is_clear, "{latency} ms, {offset} ms: {reason:?}");
            }
            w.shutdown();
            w.assert_empty();
        }
    }
}

#[test]
fn our_own_dials_end_at_once_and_new_ones_are_refused() {
    let mut w = World::new(2);
    let [a, b] = ["A", "B"].map(|name| w.host(name).start());
    let nowhere: Multiaddr = "/ip4/81.0.0.1/udp/4001/quic-v1".parse().expect("a multiaddr");
    let (to_b, b_peer) = (w[b].address(), w[b].peer());
    let under_way = w.start_dial(a, None, &[nowhere.clone(), to_b.clone()]);
    let since = shut_down(&mut w, a);
    let after = [
        w.start_dial(a, None, std::slice::from_ref(&to_b)),
        w.start_dial(a, Some(b_peer), &[]),
        w.start_dial(a, None, &[nowhere]),
    ];
    for dial in after.into_iter().chain([under_way]) {
        let (at, result) = outcome(&w, a, dial).expect("there is nothing to wait for");
        let error = result.expect_err("A is going");
        assert_eq!(at, since);
        let is_clear = |(_, e): &(_, AttemptError)| *e == AttemptError::ShuttingDown;
        assert!(!error.attempts.is_empty() && error.attempts.iter().all(is_clear), "{error}");
    }
    assert_idle_in_time(&mut w, a, since);
    w.shutdown();
    w.assert_empty();
}

/// How long after B began to go A knows that it cannot reach it, if A dials so much later through a relay.
fn over_a_circuit(relay_goes: bool, later: Duration) -> Option<Duration> {
    let mut w = World::new(3);
    let relay = w.host("R").relay().start();
    let [a, b] = ["A", "B"].map(|name| w.host(name).start());
    w.reserve(b, relay);
    w.dial(a, relay);
    w.run_for(secs(1));
    let circuit = w.circuit(relay, b);
    let early = (later < ms(200)).then(|| w.start_dial(a, None, std::slice::from_ref(&circuit)));
    if early.is_some() {
        w.run_for(later);
    }
    let going = if relay_goes { relay } else { b };
    let since = shut_down(&mut w, going);
    let dial = early.unwrap_or_else(|| {
        w.run_for(later - ms(200));
        w.start_dial(a, None, std::slice::from_ref(&circuit))
    });
    assert_idle_in_time(&mut w, going, since);
    w.run_for(secs(60));
    let told = told(&w, a, dial)?;
    w.shutdown();
    w.assert_empty();
    Some(told.saturating_duration_since(since))
}

#[test]
fn circuits_to_a_node_that_goes_and_through_a_relay_that_goes_end_as_soon() {
    for relay_goes in [false, true] {
        for later in (0..400).step_by(10) {
            let took = over_a_circuit(relay_goes, ms(later));
            // A few round trips, of 40 ms to the relay and 40 ms from there.
            let is_soon = took.is_some_and(|took| took <= ms(200 + 240));
            assert!(is_soon, "relay goes: {relay_goes}, {later} ms: told after {took:?}");
        }
    }
}

#[test]
fn streams_that_come_after_the_word_are_refused() {
    let mut w = World::new(4);
    let relay = w.host("R").relay().start();
    let a = w.host("A").start();
    let connection = w.dial(a, relay);
    w.run_for(secs(1));
    // The stream is under way when the relay is told to go, and what it asks for is not granted any more.
    w.reserve(a, relay);
    w.start_echo(a, connection, 1000);
    w.run_for(ms(10));
    let since = shut_down(&mut w, relay);
    w.run_for(ms(500));
    let reserved = w[relay].log().iter().any(|(_, event)| matches!(event, Event::Hop(_)));
    assert!(!reserved && w.connections(a, relay).is_empty());
    assert_idle_in_time(&mut w, relay, since);
    w.shutdown();
    w.assert_empty();
}

/// A point that is slow to hear that we leave keeps the connections of a node that shuts down alive for a while; what peers open
/// on them meanwhile is refused at once, whatever it is for.
#[test]
fn streams_that_come_while_a_node_says_its_goodbyes_are_refused() {
    let mut w = World::new(5);
    let point = w
        .host("P")
        .configure(|config| config.rendezvous_server = Some(rendezvous::server::Config::default()))
        .start();
    let relay = w.host("R").relay().start();
    let [a, b] = ["A", "B"].map(|name| w.host(name).start());
    let connection = w.dial(a, relay);
    w.reserve(b, relay);
    let to_point = w[point].address();
    let wanted = rendezvous::client::Registration::new(to_point, "app");
    w.command(relay, |node, now| node.register(now, wanted)).expect("a registration");
    w.run_for(secs(2));
    w.link(relay, point, Link::latency(ms(250)));
    let before = hop_events(&w, relay);
    let since = shut_down(&mut w, relay);
    w.run_for(ms(20));
    w.reserve(a, relay);
    let echo = w.start_echo(a, connection, 1000);
    w.start_dial(a, None, &[w.circuit(relay, b)]);
    w.run_for(ms(60));
    assert!(!w.connections(a, relay).is_empty(), "the goodbyes are still on their way");
    assert_eq!(hop_events(&w, relay), before, "nothing was granted");
    assert_eq!(w.node(relay).counters().get("streams.refused.shutting_down"), 3);
    let fault = w.transfer(a, echo).fault;
    assert_eq!(fault, Some(StreamFault::Remote(0x1007)));
    assert_idle_in_time(&mut w, relay, since);
    w.shutdown();
    w.assert_empty();
}

fn hop_events(w: &World, host: HostId) -> usize {
    w[host].log().iter().filter(|(_, event)| matches!(event, Event::Hop(_))).count()
}
