//! A relay gives no more than it granted.

use std::time::Duration;

use peerless_core::{
    errors::StreamFault,
    names::CircuitLimit,
    node::Event,
    protocols::relay::{
        hop::{self, CircuitEnd},
        limits::RelayLimits,
    },
};
use peerless_tests::{
    host::HostId,
    world::{World, ms, secs},
};

struct Scene {
    w: World,
    r: HostId,
    a: HostId,
    conn: peerless_core::ids::ConnectionId,
}

/// A is connected to B through a relay with this limit.
fn circuit(seed: u64, limit: CircuitLimit) -> Scene {
    let limits = RelayLimits {
        circuit_duration: limit.duration.unwrap_or_default(),
        circuit_bytes: limit.data.unwrap_or_default(),
        ..RelayLimits::default()
    };
    let mut w = World::new(seed);
    let r = w.host("R").relay_with(hop::Config::from(limits)).start();
    let b = w.host("B").start();
    let a = w.host("A").start();
    w.reserve(b, r);
    w.run_for(secs(1));
    let conn = w.dial_via(a, r, b);
    Scene { w, r, a, conn }
}

/// What the relay told of the circuit's end: bytes from A to B, bytes from B to A, and why; and when it told.
fn closed(w: &World, r: HostId) -> Option<(u64, u64, CircuitEnd, Duration)> {
    w[r].log().iter().find_map(|(at, event)| match event {
        Event::Hop(hop::Event::CircuitClosed { bytes_in, bytes_out, end, .. }) => {
            Some((*bytes_in, *bytes_out, end.clone(), Duration::from_nanos(at.as_nanos())))
        }
        _ => None,
    })
}

fn lost_circuit(w: &World, a: HostId) -> bool {
    w[a].log().iter().any(|(_, event)| matches!(event, Event::Disconnected { .. }))
}

const DATA: u64 = 131_072;

#[test]
fn exactly_the_granted_bytes_pass_from_source_to_target_then_both_streams_are_reset() {
    let limit = CircuitLimit { duration: Some(secs(120)), data: Some(DATA) };
    let Scene { mut w, r, a, conn } = circuit(1, limit);
    let stream = w.start_perf(a, conn, 1_000_000, 0);
    let transfer = w.finish_transfer(a, stream, secs(60));
    assert!(transfer.fault.is_some(), "{transfer:?}");
    w.run_for(ms(100));
    let (to_b, to_a, end, _) = closed(&w, r).expect("the circuit is closed");
    assert_eq!((to_b, end), (DATA, CircuitEnd::DataLimit));
    assert!(to_a < DATA);
    assert!(lost_circuit(&w, a));
    assert_eq!(w.node(r).stats().splices, 0);
    w.shutdown();
    w.assert_empty();
}

#[test]
fn exactly_the_granted_bytes_pass_from_target_to_source() {
    let limit = CircuitLimit { duration: Some(secs(120)), data: Some(DATA) };
    let Scene { mut w, r, a, conn } = circuit(2, limit);
    let stream = w.start_perf(a, conn, 0, 1_000_000);
    let transfer = w.finish_transfer(a, stream, secs(60));
    assert!(transfer.fault.is_some() && (100_000..DATA).contains(&transfer.received), "{transfer:?}");
    w.run_for(ms(100));
    let (to_b, to_a, end, _) = closed(&w, r).expect("the circuit is closed");
    assert_eq!((to_a, end), (DATA, CircuitEnd::DataLimit));
    assert!(to_b < DATA);
    w.shutdown();
    w.assert_empty();
}

#[test]
fn a_circuit_below_its_limit_is_left_alone() {
    let Scene { mut w, r, a, conn } = circuit(3, CircuitLimit { duration: None, data: Some(DATA) });
    w.echo(a, conn, 100_000);
    w.run_for(secs(600));
    assert_eq!(closed(&w, r), None);
    w.close(a, conn);
    w.run_for(secs(1));
    let (to_b, to_a, end, _) = closed(&w, r).expect("the circuit is closed");
    assert!(end == CircuitEnd::Finished || end == CircuitEnd::Source(StreamFault::Remote(0)), "{end}");
    assert!((100_000..DATA).contains(&to_b) && (100_000..DATA).contains(&to_a));
}

#[test]
fn without_a_limit_megabytes_pass() {
    let Scene { mut w, r, a, conn } = circuit(4, CircuitLimit { duration: None, data: None });
    w.echo(a, conn, 5_000_000);
    assert_eq!(closed(&w, r), None);
    w.shutdown();
    w.assert_empty();
}

#[test]
fn a_circuit_ends_when_its_time_is_up() {
    let Scene { mut w, r, a, conn } = circuit(5, CircuitLimit { duration: Some(secs(30)), data: None });
    let opened = w[r].log().iter().find_map(|(at, event)| {
        matches!(event, Event::Hop(hop::Event::CircuitOpened { .. }))
            .then_some(Duration::from_nanos(at.as_nanos()))
    });
    let opened = opened.expect("the circuit is open");
    for _ in 0..5 {
        w.echo(a, conn, 1000);
        w.run_for(secs(5));
    }
    assert_eq!(closed(&w, r), None);
    w.run_for(secs(10));
    let (_, _, end, at) = closed(&w, r).expect("the circuit is closed");
    assert_eq!(end, CircuitEnd::Duration);
    assert_eq!(at - opened, secs(30));
    assert!(lost_circuit(&w, a));
    w.shutdown();
    w.assert_empty();
}
