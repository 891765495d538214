//! Every beginning has an end: after everything is closed nothing is left anywhere.

use peerless_core::{errors::CloseReason, names::Direction, node::Event, protocols::relay::hop};
use peerless_tests::{
    fault::Fault,
    link::Link,
    world::{World, ms, secs},
};

#[test]
fn a_direct_connection_carries_streams_and_ends() {
    let mut w = World::new(1);
    let b = w.host("B").start();
    let a = w.host("A").start();
    let conn = w.dial(a, b);
    assert_eq!(w.ping(a, conn), ms(40));
    w.echo(a, conn, 1832);
    w.echo(a, conn, 1_000_000);
    let [back] = w.connections(b, a)[..] else { panic!("one connection back") };
    assert_eq!(w.node(b).connections().get(back).map(|c| c.direction), Some(Direction::Inbound));
    w.echo(b, back, 10_000);
    w.close(a, conn);
    let reason = w.wait_for(b, "the end", |event| match event {
        Event::Disconnected { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert!(matches!(reason, CloseReason::Remote { code: 0, .. }), "{reason:?}");
    w.shutdown();
    w.assert_empty();
}

#[test]
fn the_same_with_real_tls() {
    let mut w = World::with_tls(2);
    let b = w.host("B").start();
    let a = w.host("A").start();
    let conn = w.dial(a, b);
    assert_eq!(w.ping(a, conn), ms(40));
    w.echo(a, conn, 300_000);
    w.shutdown();
    w.assert_empty();
}

#[test]
fn perf_counts_both_ways() {
    let mut w = World::new(3);
    let b = w.host("B").start();
    let a = w.host("A").start();
    w.link(a, b, Link::latency(ms(5)).rate(100_000_000));
    let conn = w.dial(a, b);
    let stream = w.start_perf(a, conn, 2_000_000, 3_000_000);
    let transfer = w.finish_transfer(a, stream, secs(30));
    assert_eq!((transfer.sent, transfer.received, transfer.fault), (2_000_008, 3_000_000, None));
    w.shutdown();
    w.assert_empty();
}

#[test]
fn a_reservation_and_a_circuit_leave_nothing_behind() {
    for real_tls in [false, true] {
        let mut w = if real_tls { World::with_tls(4) } else { World::new(4) };
        let r = w.host("R").relay().start();
        let b = w.host("B").start();
        let a = w.host("A").start();
        w.reserve(b, r);
        w.run_for(secs(1));
        assert_eq!(w.node(r).behaviour::<hop::Hop>().map(hop::Hop::reservations), Some(1));
        let conn = w.dial_via(a, r, b);
        assert!(w.node(a).connections().get(conn).is_some_and(|c| c.relayed.is_some()));
        assert_eq!(w.ping(a, conn), ms(80));
        w.echo(a, conn, 20_000);
        assert_eq!(w.node(r).behaviour::<hop::Hop>().map(hop::Hop::circuits), Some(1));
        w.close(a, conn);
        w.run_for(secs(5));
        assert_eq!(w.node(r).behaviour::<hop::Hop>().map(hop::Hop::circuits), Some(0));
        w.shutdown();
        w.assert_empty();
    }
}

#[test]
fn a_reservation_is_refreshed_and_dies_with_its_connection() {
    let mut w = World::new(5);
    let r = w.host("R").relay().start();
    let b = w.host("B").start();
    w.reserve(b, r);
    let held = |w: &World| w.node(r).behaviour::<hop::Hop>().map(hop::Hop::reservations);
    for _ in 0..5 {
        w.run_for(secs(3600));
        assert_eq!(held(&w), Some(1));
    }
    w.kill(b);
    w.run_for(secs(120));
    assert_eq!(held(&w), Some(0));
    w.shutdown();
    w.assert_empty();
}

#[test]
fn a_peer_that_restarts_is_noticed_and_reached_again() {
    let mut w = World::new(6);
    let b = w.host("B").start();
    let a = w.host("A").start();
    w.dial(a, b);
    w.restart(b);
    w.wait_for(a, "the loss", |event| matches!(event, Event::Disconnected { .. }).then_some(()));
    let conn = w.dial(a, b);
    w.echo(a, conn, 5000);
    w.shutdown();
    w.assert_empty();
}

#[test]
fn a_dial_into_the_void_fails_and_leaves_nothing() {
    let mut w = World::new(7);
    let b = w.host("B").start();
    let a = w.host("A").start();
    w.cut(a, b);
    let address = w[b].address();
    w.try_dial(a, None, &[address]).expect_err("nobody answers");
    w.restore(a, b);
    w.dial(a, b);
    w.shutdown();
    w.assert_empty();
}

#[test]
fn scripted_faults_and_a_bad_link_are_survived() {
    let mut w = World::new(8);
    let b = w.host("B").start();
    let a = w.host("A").start();
    w.link(a, b, Link::latency(ms(30)).jitter(ms(10)).loss(0.03).reorder(0.05).rate(20_000_000));
    w.fault(a, b, 1, Fault::Drop);
    w.fault(a, b, 2, Fault::Corrupt);
    w.fault(b, a, 1, Fault::Duplicate);
    w.fault(b, a, 2, Fault::Delay(ms(500)));
    let conn = w.dial(a, b);
    let stream = w.start_echo(a, conn, 500_000);
    let transfer = w.finish_transfer(a, stream, secs(120));
    assert_eq!((transfer.received, transfer.garbled, transfer.fault), (500_000, false, None));
    assert!(w.traffic().dropped["lost"] > 0 && w.traffic().dropped["fault"] == 1);
    w.shutdown();
    w.assert_empty();
}

#[test]
fn streams_beyond_what_the_peer_grants_wait_for_their_turn() {
    let mut w = World::new(30);
    let b = w.host("B").configure(|config| config.quic.max_streams = 4).start();
    let a = w.host("A").start();
    let conn = w.dial(a, b);
    let streams: Vec<_> = (0..20).map(|_| w.start_echo(a, conn, 5_000)).collect();
    let gone = w.start_echo(a, conn, 5_000);
    w.command(a, |node, now| node.reset(now, gone));
    for stream in streams {
        let transfer = w.finish_transfer(a, stream, secs(10));
        assert_eq!((transfer.received, transfer.fault), (5_000, None));
    }
    w.shutdown();
    w.assert_empty();
}

#[test]
fn streams_that_are_never_granted_are_given_up_and_too_many_are_refused() {
    let mut w = World::new(31);
    let b = w.host("B").configure(|config| config.quic.max_streams = 1).start();
    let a = w.host("A").start();
    let conn = w.dial(a, b);
    w.run_for(secs(1));
    w.stop_reading(b);
    let mut opened = 0;
    while w.try_start_echo(a, conn, 10_000_000).is_some() {
        opened += 1;
    }
    assert_eq!(opened, 1024, "no connection has more, granted or not");
    w.run_for(secs(11));
    assert_eq!(w.node(a).stats().streams, 1, "negotiation has timed out for those that waited");
    w.shutdown();
    w.assert_empty();
}
