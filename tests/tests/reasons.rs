//! What the two ends are told when a connection or a stream ends: the codes of the libp2p specs, and limits by their names.

use peerless_core::{
    errors::{CloseReason, ReachedLimit, StreamFault},
    node::Event,
    protocols::relay::{hop, limits::RelayLimits},
};
use peerless_tests::{
    app::ECHO,
    host::HostId,
    link::Link,
    world::{World, ms, secs},
};

/// Why connections between the two ended, as the first of them heard.
fn ends(w: &World, host: HostId, other: HostId) -> Vec<CloseReason> {
    let other = w[other].peer();
    let reason = |event: &Event| match event {
        Event::Disconnected { peer, reason, .. } if *peer == other => Some(reason.clone()),
        _ => None,
    };
    w[host].log().iter().filter_map(|(_, event)| reason(event)).collect()
}

fn through_a_relay(seed: u64, limits: RelayLimits) -> (World, HostId, HostId, HostId) {
    let mut w = World::new(seed);
    let r = w.host("R").relay_with(hop::Config::from(limits)).start();
    let b = w.host("B").start();
    let a = w.host("A").start();
    w.reserve(b, r);
    w.run_for(secs(1));
    (w, r, a, b)
}

#[test]
fn both_ends_of_a_circuit_that_carried_all_it_may_are_told_the_relays_limit() {
    for (latency, bytes) in [(1, 128 << 10), (20, 128 << 10), (150, 128 << 10), (20, 1 << 20)] {
        for upload in [true, false] {
            let limits = RelayLimits { circuit_bytes: bytes, ..RelayLimits::public() };
            let (mut w, r, a, b) = through_a_relay(6400 + latency, limits);
            for end in [a, b] {
                w.link(end, r, Link::latency(ms(latency)));
            }
            let conn = w.dial_via(a, r, b);
            let (up, down) = if upload { (4 << 20, 0) } else { (0, 4 << 20) };
            w.start_perf(a, conn, up, down);
            w.run_for(secs(20));
            let limit = CloseReason::CircuitLimit(ReachedLimit::Data(bytes));
            let told = (ends(&w, a, b), ends(&w, b, a));
            assert_eq!(
                told,
                (vec![limit.clone()], vec![limit]),
                "{latency} ms, {bytes} bytes, upload {upload}"
            );
            w.shutdown();
            w.assert_empty();
        }
    }
    let limit = CloseReason::CircuitLimit(ReachedLimit::Data(128 << 10));
    assert_eq!(limit.to_string(), "the circuit reached its limit: the relay allows 128 KiB per direction");
}

#[test]
fn both_ends_of_a_circuit_that_lasted_as_long_as_it_may_are_told_the_relays_limit() {
    for latency in [1, 20, 300] {
        let (mut w, r, a, b) = through_a_relay(6410, RelayLimits::public());
        for end in [a, b] {
            w.link(end, r, Link::latency(ms(latency)));
        }
        w.dial_via(a, r, b);
        w.run_for(secs(130));
        let limit = CloseReason::CircuitLimit(ReachedLimit::Duration(secs(120)));
        assert_eq!((ends(&w, a, b), ends(&w, b, a)), (vec![limit.clone()], vec![limit]), "{latency} ms");
        w.shutdown();
        w.assert_empty();
    }
    let limit = CloseReason::CircuitLimit(ReachedLimit::Duration(secs(120)));
    assert_eq!(limit.to_string(), "the circuit reached its limit: the relay allows 2 minutes");
    let limit = CloseReason::CircuitLimit(ReachedLimit::Duration(secs(90)));
    assert_eq!(limit.to_string(), "the circuit reached its limit: the relay allows 90 seconds");
}

#[test]
fn a_circuit_that_ends_before_its_limit_is_not_said_to_have_reached_it() {
    let (mut w, r, a, b) = through_a_relay(6420, RelayLimits::public());
    let conn = w.dial_via(a, r, b);
    w.echo(a, conn, 50_000);
    let relay = w.connections(r, b)[0];
    w.close(r, relay);
    w.run_for(secs(1));
    assert_eq!(ends(&w, a, b), [CloseReason::Circuit(StreamFault::Remote(0))]);
    assert_eq!(ends(&w, b, a), [CloseReason::Circuit(StreamFault::ConnectionLost)]);
    w.shutdown();
    w.assert_empty();
}

#[test]
fn who_shuts_down_says_so_directly_and_through_a_relay() {
    let (mut w, r, a, b) = through_a_relay(6430, RelayLimits::public());
    w.dial_via(a, r, b);
    w.run_for(secs(1));
    w.command(a, |node, now| node.shutdown(now));
    w.run_for(secs(1));
    for other in [r, b] {
        let [CloseReason::Remote { code, .. }] = ends(&w, other, a)[..] else {
            panic!("{:?}", ends(&w, other, a));
        };
        assert_eq!(code, 0x1006);
    }
    let said = ends(&w, b, a)[0].to_string();
    assert_eq!(said, "closed by the remote: it shuts down (code 0x1006)");
    w.shutdown();
}

#[test]
fn the_duplicate_of_a_connection_is_closed_as_supplanted() {
    let mut w = World::new(6440);
    let (a, b) = (w.host("A").start(), w.host("B").start());
    let (to_a, to_b) = (w[a].address(), w[b].address());
    w.start_dial(a, None, &[to_b]);
    w.start_dial(b, None, &[to_a]);
    w.run_for(secs(5));
    let mut all = [ends(&w, a, b), ends(&w, b, a)].concat();
    all.retain(|reason| *reason != CloseReason::Duplicate);
    let [CloseReason::Remote { code, .. }] = all[..] else { panic!("{all:?}") };
    assert_eq!(code, 0x1004);
    w.shutdown();
    w.assert_empty();
}

#[test]
fn a_stream_too_many_is_reset_for_a_limit() {
    let mut w = World::new(6450);
    let (a, b) = (w.host("A").start(), w.host("B").start());
    let conn = w.dial(a, b);
    w.stop_reading(b);
    let streams: Vec<_> = (0..65).map(|_| w.start_echo(a, conn, 1 << 20)).collect();
    w.run_for(secs(5));
    let faults: Vec<_> = streams
        .iter()
        .filter_map(|stream| w.transfer(a, *stream).fault)
        .map(|fault| fault.to_string())
        .collect();
    assert_eq!(faults, ["the remote reset the stream: a resource limit was reached (code 0x1002)"], "{ECHO}");
    w.shutdown();
    w.assert_empty();
}
