//! Hosts with several networks, and networks that come and go.

use std::{collections::VecDeque, net::Ipv4Addr};

use peerless_core::{
    ids::{QueryId, SocketId},
    node::Event,
    protocols::relay::client::{self, AutoRelay, When},
    swarm::addresses::AddressSource,
};
use peerless_tests::{
    host::HostId,
    world::{World, ms, secs},
};

const FIRST: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 1);
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 2, 2, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(10, 2, 2, 2);

/// A host in two networks, in this order, and a relay in the second of them.
fn two_networks(order: [Ipv4Addr; 2], knows_routes: bool) -> (World, HostId, HostId) {
    let mut w = World::new(7);
    let there = w.host("R").ip(THERE).relay().start();
    w.no_route(FIRST, THERE);
    w.no_route(THERE, FIRST);
    let [a, b] = order;
    let here = w.host("A").ip(a).ip(b);
    let here = here.configure(move |config| config.knows_routes = knows_routes).start();
    (w, here, there)
}

fn counter(w: &World, host: HostId, name: &str) -> u64 {
    w.node(host).counters().get(name)
}

#[test]
fn a_dial_leaves_from_the_socket_that_the_route_leads_to() {
    for order in [[FIRST, SECOND], [SECOND, FIRST]] {
        let (mut w, here, there) = two_networks(order, true);
        let start = w.now();
        let connection = w.dial(here, there);
        assert!(w.now().saturating_duration_since(start) < ms(200), "{order:?}: it took a second try");
        w.echo(here, connection, 1000);
        assert_eq!(counter(&w, here, "dial.other_socket"), 0);
        assert_eq!(w.traffic().dropped.get("no route"), None, "{order:?}");
        w.reserve(here, there);
        w.wait_for(here, "a reservation", |event| {
            matches!(event, Event::Reservation(client::Event::Reserved { .. })).then_some(())
        });
        w.shutdown();
        w.assert_empty();
    }
}

#[test]
fn a_socket_that_brings_no_answer_is_followed_by_another_in_the_same_dial() {
    let (mut w, here, there) = two_networks([FIRST, SECOND], false);
    let start = w.now();
    let connection = w.dial(here, there);
    assert!(w.now().saturating_duration_since(start) < ms(1500));
    w.echo(here, connection, 1000);
    assert_eq!(counter(&w, here, "dial.other_socket"), 1);
    w.shutdown();
    w.assert_empty();
}

#[test]
fn an_address_that_no_socket_reaches_fails_once() {
    let (mut w, here, there) = two_networks([FIRST, SECOND], true);
    w.no_route(SECOND, THERE);
    let address = w[there].address();
    let error = w.try_dial(here, None, &[address]).unwrap_err();
    assert_eq!(error.attempts.len(), 1, "{error}");
    w.shutdown();
    w.assert_empty();
}

#[test]
fn replies_leave_from_the_socket_that_was_asked() {
    for order in [[FIRST, SECOND], [SECOND, FIRST]] {
        let (mut w, here, there) = two_networks(order, true);
        let address = format!("/ip4/{SECOND}/udp/4001/quic-v1/p2p/{}", w[here].peer()).parse().unwrap();
        let connection = w.try_dial(there, None, &[address]).unwrap();
        w.echo(there, connection, 100_000);
        assert_eq!(w.traffic().dropped.get("no route"), None, "{order:?}");
    }
}

#[test]
fn a_network_that_was_away_for_an_hour_is_back_within_seconds() {
    let mut w = World::new(11).quiet();
    let relay = w.host("R").relay().start();
    let friend = w.host("F").start();
    let other = w.host("O").relay().start();
    let bootstrap = w[other].address();
    let here = w.host("A").wildcard().configure(move |config| {
        config.relay_client.auto = AutoRelay {
            when: When::Always,
            desired: 2,
            max: 2,
            bootstrap: vec![bootstrap.clone()],
            ..AutoRelay::default()
        };
    });
    let here = here.start();
    let (friend_at, friend_peer) = (w[friend].address(), w[friend].peer());
    w.try_dial(here, None, &[friend_at]).unwrap();
    w.command(here, |node, now| node.keep_connected(now, friend_peer, true));
    w.reserve(here, relay);
    w.run_for(secs(30));
    let is_whole = |w: &World| {
        let relays = [relay, other]
            .map(|r| w.node(here).behaviour::<client::Client>().unwrap().reservation(&w[r].peer()));
        (relays.iter().all(|state| *state == Some(client::ReservationState::Active))
            && !w.connections(here, friend).is_empty())
        .then_some(())
    };
    assert!(is_whole(&w).is_some(), "before");
    for changes_address in [false, true] {
        w.plug(here, false);
        w.run_for(secs(3600));
        assert!(w.connections(here, friend).is_empty());
        if changes_address {
            w.readdress(here, Ipv4Addr::new(80, 9, 9, 9));
        }
        let back = w.now();
        w.plug(here, true);
        w.run_until(secs(10), is_whole).unwrap_or_else(|| panic!("not back, changed: {changes_address}"));
        let took = w.now().saturating_duration_since(back);
        assert!(took < secs(5), "{took:?}");
        let told = w.node(here).addresses().advertised();
        assert!(
            told.iter().all(|a| !a.to_string().starts_with("/ip4/80.0.0.4/") || !changes_address),
            "{told:?}"
        );
    }
}

#[test]
fn a_network_without_a_dhcp_server_is_one_too() {
    let mut w = World::new(13);
    let here = w.host("A").start();
    let gained = |w: &mut World, ips: &[&str]| {
        let reachable = ips.iter().map(|ip| ip.parse().expect("an IP address")).collect();
        let local = "0.0.0.0:4002".parse().expect("a socket address");
        let bound = peerless_core::node::Bound { local, reachable };
        w.command(here, |node, now| node.handle_socket(now, SocketId(7), Some(bound)));
        counter(w, here, "network.addresses_gained")
    };
    assert_eq!(gained(&mut w, &["127.0.0.1"]), 0);
    assert_eq!(gained(&mut w, &["127.0.0.1", "169.254.7.7"]), 1);
    w.shutdown();
}

#[test]
fn the_address_of_a_socket_is_told_only_while_the_machine_has_it() {
    let mut w = World::new(14);
    let here = w.host("A").start();
    let has = |w: &mut World, ips: &[&str]| {
        let reachable = ips.iter().map(|ip| ip.parse().expect("an IP address")).collect();
        let local = "80.7.7.7:4002".parse().expect("a socket address");
        let bound = peerless_core::node::Bound { local, reachable };
        w.command(here, |node, now| node.handle_socket(now, SocketId(7), Some(bound)));
        let own = w.node(here).addresses().of(AddressSource::Listen);
        let is_told = own.filter(|address| address.to_string().starts_with("/ip4/80.7.7.7/")).count();
        (is_told, counter(w, here, "network.addresses_gained"))
    };
    assert_eq!(has(&mut w, &[]), (1, 0));
    assert_eq!(
        has(&mut w, &["127.0.0.1", "80.8.8.8"]),
        (0, 0),
        "it is gone, and others are not the socket's"
    );
    assert_eq!(has(&mut w, &["127.0.0.1", "80.8.8.8"]), (0, 0));
    assert_eq!(has(&mut w, &[]), (1, 1), "it is back, and a network with it");
    w.shutdown();
}

#[test]
fn a_new_address_while_connected_costs_no_connection() {
    let mut w = World::new(12);
    let there = w.host("B").start();
    // Whoever listens nowhere has no new address to push, so nothing but the connection itself says where it is now.
    let here = w.host("A").wildcard().configure(|config| config.accept_inbound = false).start();
    let connection = w.dial(here, there);
    w.run_for(secs(5));
    w.readdress(here, Ipv4Addr::new(80, 9, 9, 9));
    w.run_for(secs(1));
    let (theirs, start) = (w.connections(there, here)[0], w.now());
    w.echo(there, theirs, 10_000);
    assert!(w.now().saturating_duration_since(start) < ms(500), "it was looked for where it was");
    w.echo(here, connection, 10_000);
    assert_eq!(w.connections(here, there), [connection]);
    w.shutdown();
    w.assert_empty();
}

/// The questions for names that were not taken yet.
fn questions(w: &World, host: HostId, seen: &mut usize) -> Vec<(QueryId, String)> {
    let new = w[host].log()[*seen..].iter();
    let asked = new.filter_map(|(_, event)| match event {
        Event::Resolve { query, name, .. } | Event::ResolveText { query, name } => {
            Some((*query, name.clone()))
        }
        _ => None,
    });
    let asked = asked.collect();
    *seen = w[host].log().len();
    asked
}

#[test]
fn names_that_are_dead_delay_none_that_lives() {
    for dead in [1, 8, 24] {
        let mut w = World::new(13);
        let there = w.host("B").start();
        let here = w.host("A").configure(|config| config.resolves_text = true).start();
        let (peer, ip) = (w[there].peer(), w[there].socket_address().ip());
        let name = |n: usize| match n % 2 {
            0 => format!("/dns4/dead{n}.example/udp/4001/quic-v1/p2p/{peer}"),
            _ => format!("/dnsaddr/dead{n}.example/p2p/{peer}"),
        };
        let live = format!("/dns4/live.example/udp/4001/quic-v1/p2p/{peer}");
        let addresses: Vec<_> = (0..dead).map(name).chain([live]).map(|text| text.parse().unwrap()).collect();
        let (start, mut seen) = (w.now(), 0);
        w.start_dial(here, None, &addresses);
        let asked = questions(&w, here, &mut seen);
        assert_eq!(asked.len(), dead + 1, "all are asked for at once");
        let (query, _) = asked.iter().find(|(_, name)| name == "live.example").unwrap();
        w.run_for(ms(30));
        w.command(here, |node, now| node.handle_resolved(now, *query, Ok(vec![ip])));
        w.wait_for(here, "a connection", |event| matches!(event, Event::Dialed { .. }).then_some(()));
        assert!(w.now().saturating_duration_since(start) < ms(200));
        w.shutdown();
        w.assert_empty();
    }
}

#[test]
fn more_names_than_may_be_asked_for_at_once_come_as_others_are_answered() {
    let mut w = World::new(14);
    let there = w.host("B").start();
    let here = w.host("A").configure(|config| config.resolves_text = true).start();
    let peer = w[there].peer();
    let lists: Vec<_> =
        (0..2).map(|n| format!("/dnsaddr/l{n}.example/p2p/{peer}").parse().unwrap()).collect();
    let mut seen = 0;
    let dial = w.start_dial(here, None, &lists);
    for (query, list) in questions(&w, here, &mut seen) {
        let entry = |n: usize| format!("dnsaddr=/dns4/n{n}.{list}/udp/4001/quic-v1/p2p/{peer}");
        let texts = (0..25).map(entry).collect();
        w.command(here, |node, now| node.handle_resolved_text(now, query, Ok(texts)));
    }
    let mut under_way: VecDeque<_> = questions(&w, here, &mut seen).into();
    assert_eq!(under_way.len(), 32);
    let mut asked = 32;
    while let Some((query, _)) = under_way.pop_front() {
        w.command(here, |node, now| node.handle_resolved(now, query, Err("no such name".into())));
        let next = questions(&w, here, &mut seen);
        asked += next.len();
        under_way.extend(next);
    }
    assert_eq!(asked, 50);
    let outcome = w[here].log().iter().find_map(|(_, event)| event.dial_outcome(dial));
    assert_eq!(outcome.expect("it has ended").unwrap_err().attempts.len(), 50);
    w.shutdown();
    w.assert_empty();
}
