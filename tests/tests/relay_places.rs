//! Where relays are: several addresses, names, and what an earlier node knew.

use peerless_core::{
    Multiaddr,
    ids::QueryId,
    node::Event,
    protocols::relay::client::{AutoRelay, When},
    swarm::addresses::AddressSource,
};
use peerless_tests::{
    host::HostId,
    store::Store,
    world::{World, secs},
};

fn advertised(w: &World, host: HostId) -> Vec<Multiaddr> {
    w.node(host).addresses().of(AddressSource::Relay).cloned().collect()
}

fn nowhere(w: &World, relay: HostId) -> Multiaddr {
    format!("/ip4/80.99.99.99/udp/4001/quic-v1/p2p/{}", w[relay].peer()).parse().expect("a multiaddr")
}

/// Whichever of the two is named first, and after the relay came back as well.
#[test]
fn a_relay_with_a_dead_address_beside_the_one_that_works_is_reserved_at_again_and_again() {
    for dead_first in [false, true] {
        let mut w = World::new(6300);
        let r = w.host("R").relay().start();
        let b = w.host("B").start();
        let mut flags = [w[r].address(), nowhere(&w, r)];
        if dead_first {
            flags.reverse();
        }
        for address in flags {
            w.command(b, |node, now| node.reserve(now, address)).expect("a relay's address");
        }
        for round in 0..3 {
            w.run_for(secs(90));
            assert_eq!(advertised(&w, b).len(), 1, "dead first: {dead_first}, round {round}");
            w.restart(r);
            w.run_for(secs(20));
        }
        w.shutdown();
        w.assert_empty();
    }
}

fn announces(w: &mut World, relay: HostId, place: &str, is_there: bool) {
    let place = place.parse().expect("an address");
    w.command(relay, |node, now| match is_there {
        true => _ = node.add_address(now, &place).expect("it can be announced"),
        false => assert!(node.remove_address(now, &place)),
    });
}

#[test]
fn a_relay_that_says_that_it_is_elsewhere_is_advertised_there_within_a_minute() {
    let mut w = World::new(8);
    let r = w.host("R").relay().start();
    announces(&mut w, r, "/ip4/81.0.0.1/udp/1/quic-v1", true);
    let b = w.host("B").start();
    w.reserve(b, r);
    w.run_for(secs(10));
    let at = |w: &World, place: &str| advertised(w, b).iter().any(|a| a.to_string().starts_with(place));
    assert!(at(&w, "/ip4/81.0.0.1/"));
    // It moves on every 100 s, and is followed.
    for n in 2..6 {
        announces(&mut w, r, &format!("/ip4/81.0.0.{}/udp/1/quic-v1", n - 1), false);
        announces(&mut w, r, &format!("/ip4/81.0.0.{n}/udp/1/quic-v1"), true);
        w.run_for(secs(70));
        assert!(at(&w, &format!("/ip4/81.0.0.{n}/")), "{:?}", advertised(&w, b));
        assert!(!at(&w, &format!("/ip4/81.0.0.{}/", n - 1)), "{:?}", advertised(&w, b));
        w.run_for(secs(30));
    }
    // One that never stays anywhere is not asked more often than once in a minute.
    let renewed = |w: &World| w.node(r).counters().get("relay.hop.renewed");
    let before = renewed(&w);
    for n in 0..60 {
        announces(&mut w, r, &format!("/ip4/82.0.0.{n}/udp/1/quic-v1"), true);
        w.run_for(secs(10));
    }
    assert!(renewed(&w) - before <= 10, "{}", renewed(&w) - before);
    w.shutdown();
    w.assert_empty();
}

/// Answers every question for texts with the address of `relay`.
fn publish(w: &mut World, host: HostId, seen: &mut usize, relay: HostId) {
    let question = |event: &Event| match event {
        Event::ResolveText { query, .. } => Some(*query),
        _ => None,
    };
    let asked: Vec<QueryId> =
        w[host].log()[*seen..].iter().filter_map(|(_, event)| question(event)).collect();
    *seen = w[host].log().len();
    for query in asked {
        let found = Ok(vec![format!("dnsaddr={}", w[relay].address())]);
        w.command(host, |node, now| node.handle_resolved_text(now, query, found));
    }
}

#[test]
fn a_relay_that_is_published_under_a_name_is_reserved_at_and_led_through() {
    let mut w = World::new(6301);
    let r = w.host("R").relay().start();
    let b = w.host("B").configure(|config| config.resolves_text = true).start();
    let a = w.host("A").configure(|config| config.resolves_text = true).start();
    let named: Multiaddr =
        format!("/dnsaddr/relay.example/p2p/{}", w[r].peer()).parse().expect("a multiaddr");
    let (mut seen_b, mut seen_a) = (0, 0);
    w.command(b, |node, now| node.reserve(now, named.clone())).expect("a relay's address");
    publish(&mut w, b, &mut seen_b, r);
    w.run_for(secs(2));
    assert_eq!(advertised(&w, b).len(), 1);
    let circuit = format!("{named}/p2p-circuit/p2p/{}", w[b].peer()).parse().expect("a multiaddr");
    w.start_dial(a, None, &[circuit]);
    publish(&mut w, a, &mut seen_a, r);
    w.run_for(secs(2));
    let [conn] = w.connections(a, b)[..] else { panic!("one circuit") };
    w.echo(a, conn, 1000);
    w.restart(r);
    for _ in 0..60 {
        w.run_for(secs(1));
        publish(&mut w, b, &mut seen_b, r);
    }
    assert_eq!(advertised(&w, b).len(), 1, "and again");
    w.shutdown();
    w.assert_empty();
}

/// A node that had met a relay is started anew with its store: it knows of whom to ask, though nobody names any relay.
#[test]
fn a_node_reserves_at_the_relays_that_its_predecessor_knew() {
    let mut w = World::new(6302);
    let r = w.host("R").relay().start();
    let p = w.host("P").start();
    let b = w.host("B").configure(|config| {
        config.storage = true;
        config.relay_client.auto =
            AutoRelay { when: When::Always, desired: 1, max: 1, ..AutoRelay::default() };
    });
    let (b, mut store) = (b.start(), Store::default());
    let run = |w: &mut World, store: &mut Store, seconds: u64| {
        for _ in 0..seconds {
            store.serve(w, b);
            w.run_for(secs(1));
        }
    };
    run(&mut w, &mut store, 1);
    w.dial(b, p);
    w.dial(b, r);
    run(&mut w, &mut store, 30);
    assert_eq!(advertised(&w, b).len(), 1, "it was met");
    w.restart(b);
    store.serves_another();
    run(&mut w, &mut store, 70);
    assert_eq!(advertised(&w, b).len(), 1, "it was remembered");
    assert!(w.connections(b, p).is_empty(), "who is no relay is not asked");
    w.shutdown();
}
