//! The simulated world itself: what it must catch, and how far it carries.

use std::panic::{AssertUnwindSafe, catch_unwind};

use peerless_core::{
    behaviour::{Behaviour, Context, Input},
    names::ProtocolSpec,
    node::Event,
    protocols::relay::client,
    time::{Deadline, Instant},
};
use peerless_tests::{
    fault::Fault,
    link::Link,
    world::{World, ms, secs},
};

/// A behaviour whose deadline never moves.
struct Stuck;

impl Behaviour for Stuck {
    fn name(&self) -> &'static str {
        "stuck"
    }

    fn protocols(&self) -> &[ProtocolSpec] {
        &[]
    }

    fn handle(&mut self, _: &mut Context<'_>, _: Input) {}

    fn deadline(&self) -> Option<Deadline> {
        Some(Deadline::new(Instant::from_nanos(1_000_000), "never satisfied"))
    }
}

#[test]
#[should_panic(expected = "A is in a busy loop: its deadline for \"never satisfied\" stays due")]
fn a_deadline_that_stays_due_is_a_busy_loop() {
    let mut w = World::new(1);
    w.host("A").configure(|config| config.behaviours.push(Box::new(Stuck))).start();
    w.run_for(secs(1));
}

#[test]
fn what_is_left_is_noticed() {
    let mut w = World::new(2);
    let b = w.host("B").start();
    let a = w.host("A").start();
    w.dial(a, b);
    let left = catch_unwind(AssertUnwindSafe(|| w.assert_empty())).expect_err("two connections are left");
    let message = left.downcast_ref::<String>().expect("a text");
    assert!(
        message.contains("datagrams are under way") || message.contains("still has connections"),
        "{message}"
    );
}

#[test]
fn a_wait_in_vain_says_what_for() {
    let mut w = World::new(3);
    let a = w.host("A").start();
    let vain =
        catch_unwind(AssertUnwindSafe(|| w.wait_for(a, "Godot", |_| None::<()>))).expect_err("nobody comes");
    assert_eq!(vain.downcast_ref::<String>().map(String::as_str), Some("A waited in vain for Godot"));
    assert_eq!(w.now(), Instant::ZERO + secs(60));
}

#[test]
fn datagrams_arrive_where_and_when_they_should_or_are_counted() {
    let mut w = World::new(4);
    let b = w.host("B").ip([192, 0, 2, 7]).port(9).bare();
    let a = w.host("A").bare();
    w.link_one_way(a, b, Link::latency(ms(7)).mtu(1000));
    let to = w[b].socket_address();
    assert_eq!(to.to_string(), "192.0.2.7:9");
    w.send_from(a, to, "hello");
    w.run_for(ms(6));
    assert_eq!((w.receive(b).len(), w.in_flight()), (0, 1));
    w.run_for(ms(1));
    let arrived = w.receive(b);
    assert_eq!((&arrived[0].data[..], arrived[0].from), (&b"hello"[..], w[a].socket_address()));

    w.send_from(a, to, vec![0; 973]);
    w.send_from(a, "192.0.2.8:9".parse().unwrap(), "nobody");
    w.send_from(a, "192.0.2.7:10".parse().unwrap(), "no such door");
    w.cut(a, b);
    w.send_from(a, to, "cut");
    w.restore(a, b);
    w.fault(a, b, 1, Fault::Drop);
    w.send_from(a, to, "dropped");
    w.send_from(a, to, "and again");
    w.run_for(secs(1));
    assert_eq!(w.receive(b).len(), 1);
    let dropped: Vec<_> = w.traffic().dropped.clone().into_iter().collect();
    let expected = [("cut", 1), ("fault", 1), ("no such host", 1), ("no such socket", 1), ("too large", 1)];
    assert_eq!((dropped, w.traffic().datagrams, w.traffic().delivered), (expected.to_vec(), 7, 2));
}

#[test]
fn a_host_that_is_killed_hears_nothing_until_it_restarts() {
    let mut w = World::new(5);
    let b = w.host("B").start();
    let a = w.host("A").start();
    w.kill(b);
    let address = w[b].address();
    w.try_dial(a, None, std::slice::from_ref(&address)).expect_err("B is down");
    assert!(w.traffic().dropped["host is down"] > 0);
    w.restart(b);
    let conn = w.try_dial(a, None, &[address]).expect("B is up");
    w.echo(a, conn, 1000);
}

#[test]
fn a_thousand_hosts_behind_ten_relays() {
    let mut w = World::new(6).quiet();
    let relays: Vec<_> = (0..10).map(|n| w.host(format!("R{n}")).relay().start()).collect();
    let peers: Vec<_> = (0..990).map(|n| w.host(format!("P{n}")).start()).collect();
    for (n, peer) in peers.iter().enumerate() {
        w.reserve(*peer, relays[n % relays.len()]);
    }
    w.run_for(secs(10));
    let reserved = |event: &Event| matches!(event, Event::Reservation(client::Event::Reserved { .. }));
    for peer in &peers {
        assert_eq!(w[*peer].log().iter().filter(|(_, event)| reserved(event)).count(), 1);
    }
    for n in (0..peers.len() - 1).step_by(33) {
        let conn = w.dial_via(peers[n], relays[(n + 1) % relays.len()], peers[n + 1]);
        w.echo(peers[n], conn, 1000);
    }
    w.shutdown();
    w.assert_empty();
}
