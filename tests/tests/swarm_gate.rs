//! Whom a node talks to: what is denied can never connect, by whatever way it comes or is found.

use std::net::{IpAddr, Ipv4Addr};

use multiaddr::Protocol;
use peerless_core::{
    Multiaddr, PeerId,
    errors::{AttemptError, CloseReason, Denial, Denied, Point, Refusal, UpgradeError},
    network::Network,
    node::{Config, Event},
    swarm::{
        gate::{Entry, GateConfig},
        resources::Limits,
    },
    time::Instant,
};
use peerless_tests::{
    host::HostId,
    world::{World, ms, secs},
};

fn network(text: &str) -> Network {
    text.parse().expect("a network")
}

fn denied_network(text: &str, at: Point) -> Refusal {
    Refusal::Denied(Denied { at, why: Denial::Network(network(text)) })
}

fn deny_network(text: &'static str) -> impl Fn(&mut Config) {
    move |config| {
        config.swarm.gate.deny_networks.insert(network(text));
    }
}

fn ip(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    Ipv4Addr::new(a, b, c, d).into()
}

fn denials(w: &World, host: HostId, point: &str, reason: &str) -> Option<u64> {
    w.node(host).metrics().get("peerless_gate_denials_total", &[("point", point), ("reason", reason)])
}

/// What the node says of handshakes that came to nothing.
fn inbound_failures(w: &World, host: HostId) -> Vec<CloseReason> {
    let pick = |event: &Event| match event {
        Event::InboundFailed { reason, .. } => Some(reason.clone()),
        _ => None,
    };
    w[host].log().iter().filter_map(|(_, event)| pick(event)).collect()
}

/// An address without the peer that it names.
fn at(address: Multiaddr) -> Multiaddr {
    address.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect()
}

/// Who was refused, and where it is.
fn refused(w: &World, host: HostId) -> Vec<(Option<PeerId>, Multiaddr)> {
    let pick = |event: &Event| match event {
        Event::InboundFailed { peer, remote, .. } => Some((*peer, remote.clone())),
        _ => None,
    };
    w[host].log().iter().filter_map(|(_, event)| pick(event)).collect()
}

#[test]
fn a_peer_that_is_refused_at_the_end_of_a_circuit_is_told_of_as_one_that_comes_directly() {
    let mut w = World::new(13);
    let relay = w.host("R").relay().start();
    let a = w.host("A").start();
    let peer = w[a].peer();
    let b = w.host("B").configure(move |config| _ = config.swarm.gate.deny_peers.insert(peer)).start();
    w.reserve(b, relay);
    w.run_for(secs(1));
    let to_b = w.circuit(relay, b);
    w.start_dial(a, None, &[to_b]);
    w.run_for(secs(2));
    let through = w[relay].address().with(Protocol::P2pCircuit);
    assert_eq!(refused(&w, b), [(Some(peer), through)]);
    w.shutdown();
    w.assert_empty();
}

/// The letter (d): a denied network never connects to us.
#[test]
fn d_from_a_denied_network_no_handshake_begins_and_who_tries_is_told_at_once() {
    let mut w = World::new(1);
    let b = w.host("B").configure(deny_network("203.0.113.0/24")).start();
    let a = w.host("A").ip(ip(203, 0, 113, 9)).start();
    let address = w[b].address();
    let sent_by_b = w.node(b).stats().quic.datagrams_out;
    let error = w.try_dial(a, None, &[address]).expect_err("B does not talk to that network");
    assert_eq!(error.attempts[0].1, AttemptError::Failed(CloseReason::ConnectionRefused));
    assert!(error.to_string().contains("the remote refuses the connection: it denies this address"));
    assert_eq!(w.now(), Instant::ZERO + ms(40), "a round trip");
    let stats = w.node(b).stats();
    assert_eq!((stats.quic.datagrams_out, stats.quic.half_open), (sent_by_b + 1, 0));
    assert!(20 * stats.quic.bytes_out < stats.quic.bytes_in, "who is denied cannot make it send much");
    let refusal = denied_network("203.0.113.0/24", Point::Accept);
    assert_eq!(inbound_failures(&w, b)[0], CloseReason::Refused(refusal));
    assert!(denials(&w, b, "accept", "network") > Some(0));
    w.shutdown();
    w.assert_empty();
}

/// The letter (d): nor do we to it, though a name has a good answer beside the bad ones.
#[test]
fn d_of_a_name_with_mixed_answers_only_those_that_are_allowed_are_dialled() {
    let mut w = World::new(2);
    let bad = w.host("bad").ip(ip(203, 0, 113, 9)).bare();
    let b = w.host("B").start();
    let a = w.host("A").configure(deny_network("203.0.113.0/24")).start();
    let name: Multiaddr = "/dns/mixed.example/udp/4001/quic-v1".parse().expect("a multiaddr");
    let dial = w.start_dial(a, Some(w[b].peer()), std::slice::from_ref(&name));
    let query = resolve(&w, a);
    let good = w[b].socket_address().ip();
    let mapped = Ipv4Addr::new(203, 0, 113, 10).to_ipv6_mapped().into();
    w.command(a, |node, now| node.handle_resolved(now, query, Ok(vec![ip(203, 0, 113, 9), mapped, good])));
    w.wait_for(a, "the good answer", |event| event.dial_outcome(dial)).expect("B answers");
    assert_eq!(denials(&w, a, "address_dial", "network"), Some(2));
    w.run_for(secs(20));
    assert!(w.receive(bad).is_empty(), "a datagram has left for a denied address");

    let dial = w.start_dial(a, Some(w[bad].peer()), &[name]);
    let query = resolve(&w, a);
    w.command(a, |node, now| node.handle_resolved(now, query, Ok(vec![ip(203, 0, 113, 9)])));
    let outcome = w[a].log().iter().find_map(|(_, event)| event.dial_outcome(dial));
    let error = outcome.expect("there is nothing to wait for").expect_err("it is denied");
    let refusal = denied_network("203.0.113.0/24", Point::AddressDial);
    assert_eq!(error.attempts[0].1, AttemptError::Refused(refusal));
    w.run_for(secs(20));
    assert!(w.receive(bad).is_empty(), "a datagram has left for a denied address");
    w.shutdown();
    w.assert_empty();
}

fn resolve(w: &World, host: HostId) -> peerless_core::ids::QueryId {
    let queries = w[host].log().iter().rev().find_map(|(_, event)| match event {
        Event::Resolve { query, .. } => Some(*query),
        _ => None,
    });
    queries.expect("a name is to be resolved")
}

#[test]
fn a_denied_peer_is_told_so_after_it_has_proved_who_it_is_and_is_not_dialled() {
    let mut w = World::new(3);
    let a = w.host("A").start();
    let peer = w[a].peer();
    let b = w.host("B").configure(move |config| _ = config.swarm.gate.deny_peers.insert(peer)).start();
    let address = w[b].address();
    let a_address = w[a].address();
    // The handshake is complete for A before B knows who it is.
    w.start_dial(a, None, &[address]);
    let reason = w.wait_for(a, "the end", |event| match event {
        Event::Disconnected { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert!(matches!(reason, CloseReason::Remote { code: 0x1007, .. }), "{reason}");
    assert!(!w[b].log().iter().any(|(_, event)| matches!(event, Event::Connected { .. })));
    assert_eq!(denials(&w, b, "secured", "peer"), Some(1));
    assert_eq!(refused(&w, b), [(Some(peer), at(w[a].address()))]);
    let error = w.try_dial(b, None, &[a_address]).expect_err("A is denied");
    assert!(matches!(error.attempts[0].1, AttemptError::Refused(_)), "{error}");
    assert_eq!(denials(&w, b, "peer_dial", "peer"), Some(1));
    w.shutdown();
    w.assert_empty();
}

#[test]
fn who_is_denied_while_connected_is_closed_and_may_come_back_when_that_is_taken_back() {
    let mut w = World::new(4);
    let b = w.host("B").start();
    let a = w.host("A").start();
    let c = w.host("C").start();
    w.dial(a, b);
    w.dial(c, b);
    let entry = Entry::Network(Network::single(w[a].socket_address().ip()));
    assert!(w.command(b, |node, now| node.change_gate(now, |gate| gate.deny(entry))));
    let closed: Vec<_> = w[b]
        .log()
        .iter()
        .filter_map(|(_, event)| match event {
            Event::Disconnected { peer, reason, .. } => Some((*peer, reason.clone())),
            _ => None,
        })
        .collect();
    let why = Denial::Network(Network::single(w[a].socket_address().ip()));
    let refusal = Refusal::Denied(Denied { at: Point::Upgraded, why });
    assert_eq!(closed, [(w[a].peer(), CloseReason::Refused(refusal))]);
    w.run_for(secs(1));
    assert!(w.connections(a, b).is_empty() && w.connections(c, b).len() == 1);
    assert!(w.command(b, |node, now| node.change_gate(now, |gate| gate.undeny(entry))));
    w.dial(a, b);
    w.shutdown();
    w.assert_empty();
}

/// A, B and the relay R; B holds a reservation.
fn circuit_scene(seed: u64) -> (World, [HostId; 3]) {
    let mut w = World::new(seed);
    let r = w.host("R").relay().start();
    let b = w.host("B").start();
    let a = w.host("A").start();
    w.reserve(b, r);
    w.run_for(secs(1));
    (w, [a, b, r])
}

#[test]
fn a_circuit_is_judged_by_the_peer_at_its_other_end() {
    let (mut w, [a, b, r]) = circuit_scene(5);
    let peer = w[a].peer();
    w.command(b, |node, now| node.change_gate(now, |gate| gate.deny(Entry::Peer(peer))));
    let address = w.circuit(r, b);
    let dial = w.start_dial(a, None, &[address]);
    w.run_for(secs(5));
    assert!(!w[b].log().iter().any(|(_, event)| matches!(event, Event::Connected { relay: Some(_), .. })));
    assert_eq!(denials(&w, b, "secured", "peer"), Some(1));
    assert!(w.connections(a, b).is_empty(), "{dial}");
    w.shutdown();
    w.assert_empty();
}

#[test]
fn a_circuit_is_judged_by_the_address_of_its_relay() {
    let (mut w, [a, b, r]) = circuit_scene(6);
    let relay = Entry::Network(Network::single(w[r].socket_address().ip()));
    let address = w.circuit(r, b);
    w.command(a, |node, now| node.change_gate(now, |gate| gate.deny(relay)));
    let error = w.try_dial(a, None, std::slice::from_ref(&address)).expect_err("the relay is denied");
    assert!(error.to_string().contains("is denied"), "{error}");
    assert_eq!(w.node(r).connections().len(), 1, "A has not even connected to the relay");
    w.shutdown();
    w.assert_empty();
}

#[test]
fn with_an_allow_list_nobody_else_passes() {
    let mut w = World::new(7);
    let a = w.host("A").start();
    let c = w.host("C").start();
    let allowed = Network::single(w[a].socket_address().ip());
    let gate = GateConfig { allow_networks: [allowed].into(), ..GateConfig::default() };
    let b = w.host("B").configure(move |config| config.swarm.gate = gate.clone()).start();
    w.dial(a, b);
    let (b_address, c_address) = (w[b].address(), w[c].address());
    let error = w.try_dial(c, None, &[b_address]).expect_err("C is not on the list");
    assert_eq!(error.attempts[0].1, AttemptError::Failed(CloseReason::ConnectionRefused));
    let error = w.try_dial(b, None, &[c_address]).expect_err("C is not on the list");
    let refusal = Denied { at: Point::AddressDial, why: Denial::NotAllowed };
    assert_eq!(error.attempts[0].1, AttemptError::Refused(Refusal::Denied(refusal)));
    w.shutdown();
    w.assert_empty();
}

#[test]
fn a_flood_of_denied_handshakes_is_counted_in_full_and_told_in_part() {
    let mut w = World::new(8);
    let b = w.host("B").configure(deny_network("203.0.113.0/24")).start();
    let a = w.host("A").ip(ip(203, 0, 113, 9)).start();
    let address = w[b].address();
    for _ in 0..100 {
        w.start_own_dial(a, &address);
    }
    w.run_for(ms(100));
    assert_eq!(denials(&w, b, "accept", "network"), Some(100));
    assert!(inbound_failures(&w, b).len() < 20);
    w.run_for(secs(20));
    w.shutdown();
    w.assert_empty();
}

/// Whoever floods gets fewer answers than a hundred a second and a hundred at once, each much smaller than what it sent.
#[test]
fn a_flood_of_denied_handshakes_is_not_answered_in_full() {
    let mut w = World::new(9);
    let b = w.host("B").configure(deny_network("203.0.113.0/24")).start();
    let eager = |config: &mut Config| {
        config.swarm.dial.parallel = 1000;
        config.swarm.limits = Limits::unlimited();
    };
    let a = w.host("A").ip(ip(203, 0, 113, 9)).configure(eager).start();
    let address = w[b].address();
    for _ in 0..400 {
        w.start_own_dial(a, &address);
    }
    w.run_for(ms(100));
    let quic = w.node(b).stats().quic;
    assert_eq!((quic.refused.denied, denials(&w, b, "accept", "network")), (400, Some(400)));
    assert!((100..120).contains(&quic.datagrams_out), "{quic:?}");
    w.run_for(secs(20));
    w.shutdown();
    w.assert_empty();
}

/// The same for handshakes that were begun and came to nothing: the embedder hears of some, and of how many it did not.
#[test]
fn a_flood_of_handshakes_that_are_given_up_is_counted_in_full_and_told_in_part() {
    let mut w = World::new(10);
    let b = w.host("B").configure(|config| config.swarm.limits = Limits::unlimited()).start();
    let eager = |config: &mut Config| {
        config.swarm.dial.parallel = 1000;
        config.swarm.limits = Limits::unlimited();
    };
    let a = w.host("A").configure(eager).start();
    let address = w[b].address();
    let give_up = |w: &mut World, count: usize| {
        let dials: Vec<_> = (0..count).map(|_| w.start_own_dial(a, &address)).collect();
        w.run_for(ms(30));
        for dial in dials {
            w.command(a, |node, now| node.cancel_dial(now, dial));
        }
        w.run_for(ms(50));
    };
    give_up(&mut w, 300);
    let told = inbound_failures(&w, b).len() as u64;
    let counters = w.node(b).counters();
    assert!((1..30).contains(&told), "{told}");
    assert_eq!(counters.get("quic.handshake.failed"), 300);
    assert_eq!(counters.get("events.inbound_failed.suppressed"), 300 - told);
    w.run_for(secs(2));
    give_up(&mut w, 1);
    let last = w[b].log().iter().rev().find_map(|(_, event)| match event {
        Event::InboundFailed { suppressed, .. } => Some(*suppressed),
        _ => None,
    });
    assert_eq!(last, Some(300 - told), "the next one says how many it was not told of");
    w.shutdown();
    w.assert_empty();
}

/// Nothing else has this shape: an upgrade that was refused says why.
#[test]
fn a_refused_upgrade_reads_as_a_sentence() {
    let refusal = denied_network("10.0.0.0/8", Point::Accept);
    assert_eq!(UpgradeError::Refused(refusal).to_string(), "denied: the network 10.0.0.0/8 is denied");
}
