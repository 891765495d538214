//! Dialling: addresses beside each other, dials that are one, dials of both sides at the same moment, what has failed.

use std::{net::SocketAddr, time::Duration};

use multiaddr::{Multiaddr, Protocol};
use peerless_core::{
    PeerId,
    errors::{AttemptError, CloseReason},
    ids::{DialId, QueryId},
    names::Direction,
    node::{Config, Event},
    swarm::dial::DialOptions,
};
use peerless_proto::keys::peer_id_to_cid;
use peerless_tests::{
    host::HostId,
    link::Link,
    world::{World, ms, secs},
};

/// A place on the Internet where nobody is.
fn nowhere(n: u8) -> Multiaddr {
    format!("/ip4/81.0.0.{n}/udp/4001/quic-v1").parse().expect("a multiaddr")
}

fn dialed(w: &World, host: HostId) -> Vec<DialId> {
    let outcome = |event: &Event| match event {
        Event::Dialed { dial, .. } => Some(*dial),
        _ => None,
    };
    w[host].log().iter().filter_map(|(_, event)| outcome(event)).collect()
}

#[test]
fn c_one_dead_and_one_live_address_take_the_stagger_and_a_round_trip() {
    let mut w = World::new(61);
    let (a, b) = (w.host("A").start(), w.host("B").start());
    let peer = w[b].peer();
    let addresses = [nowhere(1), w[b].address()];
    let begun = w.now();
    w.try_dial(a, Some(peer), &addresses).unwrap();
    let took = w.now().saturating_duration_since(begun);
    assert_eq!(
        took,
        ms(250) + ms(40),
        "the second address is tried after 250 ms, and is 40 ms away and back"
    );
    w.run_for(secs(60));
    assert_eq!((w.connections(a, b).len(), w.connections(b, a).len()), (1, 1));
    assert_eq!(w.node(a).stats().quic.dialing, 0, "the other attempt was given up");
    w.shutdown();
    w.assert_empty();
}

#[test]
fn both_sides_dial_at_the_same_moment_and_keep_the_same_connection() {
    for offset in [0, 1, 10, 19, 20, 21, 29, 30, 31, 39, 40, 60] {
        let mut w = World::new(62 + offset);
        let (a, b) = (w.host("A").start(), w.host("B").start());
        let (to_a, to_b) = (w[a].address(), w[b].address());
        let first = w.start_dial(a, None, &[to_b]);
        w.run_for(ms(offset));
        let second = w.start_dial(b, None, &[to_a]);
        w.run_for(secs(10));
        let ([ours], [theirs]) = (&w.connections(a, b)[..], &w.connections(b, a)[..]) else {
            panic!("offset {offset}: {} and {}", w.connections(a, b).len(), w.connections(b, a).len());
        };
        let direction = |host, id| w.node(host).connections().get(id).map(|info| info.direction);
        let ends = (direction(a, *ours), direction(b, *theirs));
        let one = (Some(Direction::Outbound), Some(Direction::Inbound));
        assert!(ends == one || (ends.1, ends.0) == one, "offset {offset}: not the same: {ends:?}");
        assert_eq!((dialed(&w, a), dialed(&w, b)), (vec![first], vec![second]), "each dial has its answer");
        let ours = *ours;
        w.echo(a, ours, 1000);
        w.shutdown();
        w.assert_empty();
    }
}

#[test]
fn a_superfluous_connection_in_use_is_kept_until_it_is_not() {
    let mut w = World::new(63);
    let (a, b) = (w.host("A").start(), w.host("B").start());
    w.link(a, b, Link::latency(ms(20)).rate(1_000_000));
    let (to_a, to_b) = (w[a].address(), w[b].address());
    let dials = [w.start_dial(a, None, &[to_b]), w.start_dial(b, None, &[to_a])];
    w.run_for(ms(100));
    assert_eq!(w.connections(a, b).len(), 2);
    let transfers: Vec<_> =
        w.connections(a, b).into_iter().map(|connection| w.start_echo(a, connection, 1_000_000)).collect();
    for stream in transfers {
        let transfer = w.finish_transfer(a, stream, secs(120));
        assert_eq!((transfer.received, transfer.fault), (1_000_000, None));
    }
    w.run_for(secs(70));
    assert_eq!((w.connections(a, b).len(), w.connections(b, a).len()), (1, 1));
    let closed = |host: HostId| {
        let is_it =
            |event: &Event| matches!(event, Event::Disconnected { reason: CloseReason::Duplicate, .. });
        w[host].log().iter().filter(|(_, event)| is_it(event)).count()
    };
    assert_eq!(closed(a) + closed(b), 1, "whoever dialled it closes it");
    assert_eq!(dials.len(), 2);
    w.shutdown();
    w.assert_empty();
}

#[test]
fn two_dials_of_one_peer_are_one_and_each_has_its_answer() {
    let mut w = World::new(64);
    let (a, b) = (w.host("A").start(), w.host("B").start());
    let (peer, live) = (w[b].peer(), w[b].address());
    let first = w.start_dial(a, Some(peer), &[nowhere(1)]);
    let second = w.start_dial(a, Some(peer), &[nowhere(1), live]);
    w.run_for(secs(1));
    assert_eq!(dialed(&w, a), [first, second], "the address of the second serves the first");
    assert_eq!((w.connections(a, b).len(), w.node(a).counters().get("dial.joined")), (1, 1));
    let third = w.start_dial(a, Some(peer), &[nowhere(2)]);
    w.command(a, |node, now| node.cancel_dial(now, third));
    w.shutdown();
    w.assert_empty();
}

#[test]
fn a_peer_is_dialled_where_it_was_before() {
    let mut w = World::new(65);
    let (a, b) = (w.host("A").start(), w.host("B").start());
    let peer = w[b].peer();
    let error = w.try_dial(a, Some(peer), &[]).unwrap_err();
    assert!(matches!(error.attempts[..], [(_, AttemptError::NoRelay)]), "nothing is known of it: {error}");
    let connection = w.dial(a, b);
    w.run_for(secs(1));
    w.close(a, connection);
    w.run_for(secs(600));
    w.try_dial(a, Some(peer), &[]).unwrap();
    w.shutdown();
    w.assert_empty();
}

#[test]
fn a_peer_that_failed_is_left_alone_unless_its_address_is_named_or_a_new_one_is_known() {
    let mut w = World::new(66);
    let (a, b) = (w.host("A").start(), w.host("B").start());
    let (peer, live) = (w[b].peer(), w[b].address());
    w.cut(a, b);
    w.command(a, |node, now| node.add_peer_addresses(now, peer, std::slice::from_ref(&live), None));
    let error = w.try_dial(a, Some(peer), &[]).unwrap_err();
    assert!(
        error.attempts.iter().any(|(_, e)| matches!(e, AttemptError::Failed(CloseReason::TimedOut))),
        "{error}"
    );
    w.restore(a, b);
    let begun = w.now();
    let error = w.try_dial(a, Some(peer), &[]).unwrap_err();
    assert_eq!(w.now(), begun, "nothing was sent");
    let whole = Multiaddr::empty().with(Protocol::P2p(peer));
    assert!(
        matches!(&error.attempts[..], [(address, AttemptError::BackedOff { .. })] if *address == whole),
        "{error}"
    );
    w.command(a, |node, now| node.add_peer_addresses(now, peer, &[nowhere(1)], None));
    let forced = DialOptions { respect_backoff: Some(false), ..DialOptions::default() };
    let dial = w.command(a, |node, now| node.dial_with(now, Some(peer), &[], &forced));
    let connection = w.wait_for(a, "the dial", |event| event.dial_outcome(dial)).unwrap();
    w.close(a, connection);
    w.run_for(secs(1));
    w.try_dial(a, Some(peer), &[live]).unwrap();
    w.shutdown();
    w.assert_empty();
}

#[test]
fn two_dials_of_a_peer_by_different_ways_end_with_the_first_connection() {
    let mut w = World::new(73);
    let (a, b) = (w.host("A").start(), w.host("B").start());
    let (peer, address) = (w[b].peer(), w[b].address());
    let known = std::slice::from_ref(&address);
    w.command(a, |node, now| node.add_peer_addresses(now, peer, known, None));
    let dials = [w.start_dial(a, Some(peer), &[]), w.start_dial(a, Some(peer), known)];
    w.run_for(secs(1));
    assert_eq!(dialed(&w, a), dials);
    assert_eq!((w.connections(a, b).len(), w.connections(b, a).len()), (1, 1));
    w.shutdown();
    w.assert_empty();
}

#[test]
fn a_full_queue_is_one_clear_error_and_priorities_go_first() {
    let mut w = World::new(67);
    let a = w
        .host("A")
        .configure(|config| (config.swarm.dial.parallel, config.swarm.dial.queue) = (1, 2))
        .start();
    let peers: Vec<_> = ["B", "C", "D"].map(|name| w.host(name).start()).into();
    let slow = w.start_dial(a, None, &[nowhere(1)]);
    let [b, c, d] = peers[..] else { unreachable!() };
    let (to_b, to_c, to_d) = (w[b].address(), w[c].address(), w[d].address());
    let last = w.start_dial(a, None, &[to_b]);
    let urgent = DialOptions { priority: 90, ..DialOptions::default() };
    let first = w.command(a, |node, now| node.dial_with(now, None, &[to_c], &urgent));
    let error = w.try_dial(a, None, &[to_d]).unwrap_err();
    assert!(matches!(error.attempts[..], [(_, AttemptError::QueueFull)]), "{error}");
    w.command(a, |node, now| node.cancel_dial(now, slow));
    w.run_for(secs(1));
    assert_eq!(dialed(&w, a), [first, last]);
    assert_eq!(w.node(a).counters().get("dial.refused.queue_full"), 1);
    w.shutdown();
    w.assert_empty();
}

/// Answers every question for texts with what `zone` says of the name.
fn answer_texts(w: &mut World, host: HostId, seen: &mut usize, zone: impl Fn(&str) -> Vec<String>) {
    loop {
        let question = |event: &Event| match event {
            Event::ResolveText { query, name } => Some((*query, name.clone())),
            _ => None,
        };
        let asked: Vec<(QueryId, String)> =
            w[host].log()[*seen..].iter().filter_map(|(_, event)| question(event)).collect();
        *seen = w[host].log().len();
        if asked.is_empty() {
            return;
        }
        for (query, name) in asked {
            let found = Ok(zone(&name));
            w.command(host, |node, now| node.handle_resolved_text(now, query, found));
        }
    }
}

#[test]
fn published_lists_lead_to_addresses_of_the_peer_that_is_asked_for() {
    let mut w = World::new(68);
    let a = w.host("A").configure(|config| config.resolves_text = true).start();
    let (b, c) = (w.host("B").start(), w.host("C").start());
    let (theirs, ours) = (w[c].address(), w[b].address());
    let peer = w[b].peer();
    let list: Multiaddr = format!("/dnsaddr/example.org/p2p/{peer}").parse().unwrap();
    let dial = w.start_dial(a, None, &[list]);
    let mut seen = 0;
    answer_texts(&mut w, a, &mut seen, |name| match name {
        "_dnsaddr.example.org" => vec![
            "v=spf1".into(),
            "dnsaddr=nonsense".into(),
            format!("dnsaddr=/dnsaddr/more.example.org/p2p/{peer}"),
            format!("dnsaddr={theirs}"),
        ],
        "_dnsaddr.more.example.org" => vec![format!("dnsaddr={ours}")],
        name => panic!("{name} was asked for"),
    });
    w.run_for(secs(1));
    assert_eq!((dialed(&w, a), w.connections(a, b).len(), w.connections(a, c).len()), (vec![dial], 1, 0));
    w.shutdown();
    w.assert_empty();
}

/// What this node cannot dial: other transports, families without a socket, networks that are denied.
fn hopeless(nth: usize, peer: PeerId) -> String {
    let place = match nth % 4 {
        0 => "/ip4/192.0.2.1/tcp/4001/ws",
        1 => "/ip6/2001:db8::1/udp/4001/quic-v1",
        2 => "/ip4/203.0.113.1/udp/4001/quic-v1",
        _ => "/ip4/192.0.2.1/udp/4001/webrtc-direct",
    };
    format!("dnsaddr={}/p2p/{peer}", place.replace("4001", &(1000 + nth).to_string()))
}

#[test]
fn published_addresses_that_cannot_be_dialled_take_no_place_from_one_that_can() {
    let mut w = World::new(74);
    let deny = |config: &mut Config| {
        config.resolves_text = true;
        config.swarm.gate.deny_networks.insert("203.0.113.0/24".parse().expect("a network"));
    };
    let a = w.host("A").configure(deny).start();
    let b = w.host("B").start();
    let (peer, ours) = (w[b].peer(), w[b].socket_address());
    let cid = peer_id_to_cid(&peer);
    let dial = w.start_dial(a, None, &[format!("/dnsaddr/example.org/p2p/{peer}").parse().unwrap()]);
    let mut seen = 0;
    answer_texts(&mut w, a, &mut seen, |_| {
        let good = format!("dnsaddr=/ip4/{}/udp/{}/quic-v1/p2p/{cid}/", ours.ip(), ours.port());
        (0..400).map(|nth| hopeless(nth, peer)).chain([good]).collect()
    });
    w.run_for(secs(1));
    assert_eq!(dialed(&w, a), [dial]);

    // The work is bounded: nobody publishes thousands for a good reason.
    let other = w.host("C").start();
    let (peer, good) = (w[other].peer(), w[other].address());
    let dial = w.start_dial(a, None, &[format!("/dnsaddr/example.org/p2p/{peer}").parse().unwrap()]);
    answer_texts(&mut w, a, &mut seen, |_| {
        (0..3000).map(|nth| hopeless(nth, peer)).chain([format!("dnsaddr={good}")]).collect()
    });
    let outcome = w[a].log().iter().find_map(|(_, event)| event.dial_outcome(dial));
    let error = outcome.expect("it has ended").unwrap_err();
    assert_eq!(error.attempts.len(), 8, "{error}");
    w.shutdown();
    w.assert_empty();
}

#[test]
fn an_ipv4_address_written_as_an_ipv6_one_is_dialled_over_ipv4() {
    let mut w = World::new(75);
    let (a, b) = (w.host("A").start(), w.host("B").start());
    let SocketAddr::V4(local) = w[b].socket_address() else { panic!("hosts have IPv4 addresses") };
    let mapped = format!("/ip6/{}/udp/{}/quic-v1", local.ip().to_ipv6_mapped(), local.port());
    let begun = w.now();
    w.try_dial(a, None, &[mapped.parse().unwrap()]).expect("B is there");
    assert!(w.now().saturating_duration_since(begun) < secs(1));
    w.shutdown();
    w.assert_empty();
}

#[test]
fn published_lists_that_lead_to_each_other_come_to_an_end() {
    let mut w = World::new(69);
    let a = w.host("A").configure(|config| config.resolves_text = true).start();
    let dial = w.start_dial(a, None, &["/dnsaddr/loop.example".parse().unwrap()]);
    let mut seen = 0;
    answer_texts(&mut w, a, &mut seen, |_| vec!["dnsaddr=/dnsaddr/loop.example".into(); 9]);
    let asked = w[a].log().iter().filter(|(_, event)| matches!(event, Event::ResolveText { .. })).count();
    assert!(asked <= 132, "{asked} questions");
    let outcome = w[a].log().iter().find_map(|(_, event)| event.dial_outcome(dial));
    let error = outcome.expect("it has ended").unwrap_err();
    assert!(error.attempts.iter().any(|(_, e)| matches!(e, AttemptError::Unresolved(_))), "{error}");
    w.shutdown();
    w.assert_empty();
}

#[test]
fn the_overall_timeout_ends_a_dial_that_is_not_answered() {
    let mut w = World::new(70);
    let a = w.host("A").start();
    let options = DialOptions { timeout: Some(Duration::from_secs(3)), ..DialOptions::default() };
    let begun = w.now();
    let dial = w.command(a, |node, now| node.dial_with(now, None, &[nowhere(1), nowhere(2)], &options));
    let error = w.wait_for(a, "the end", |event| event.dial_outcome(dial)).unwrap_err();
    assert_eq!(w.now().saturating_duration_since(begun), secs(3));
    assert!(error.attempts.len() == 2 && error.attempts.iter().all(|(_, e)| *e == AttemptError::TimedOut));
    w.shutdown();
    w.assert_empty();
}

#[test]
fn b_below_the_wanted_number_known_peers_are_dialled_and_dead_ones_less_and_less() {
    let mut w = World::new(71);
    let a = w.host("A").configure(|config| config.swarm.auto_connect.peers = 6).start();
    let live: Vec<_> = (0..5).map(|n| w.host(format!("L{n}")).start()).collect();
    let dead: Vec<_> = (0..4).map(|n| w.host(format!("D{n}")).start()).collect();
    for host in live.iter().chain(&dead).copied() {
        let (peer, address) = (w[host].peer(), w[host].address());
        w.command(a, |node, now| node.add_peer_addresses(now, peer, &[address], None));
    }
    dead.iter().for_each(|host| w.kill(*host));
    let bootstrap = w[live[0]].address().with(Protocol::P2p(w[live[0]].peer()));
    let one = w.host("L5").start();
    w.command(a, |node, now| node.add_bootstrap(now, &[bootstrap])).expect("an address with a peer");
    w.run_for(secs(60));
    assert_eq!(w.node(a).connections().peers(), 5, "all that live");
    w.run_for(secs(3 * 3600));
    let failures = |w: &World| w.node(a).auto_connections().len();
    assert_eq!(failures(&w), 4, "the dead ones rest");
    assert!(w.node(a).auto_connections().resting(&w[dead[0]].peer()).is_some());
    let (peer, address) = (w[one].peer(), w[one].address());
    w.command(a, |node, now| node.add_peer_addresses(now, peer, &[address], None));
    w.run_for(secs(60));
    assert_eq!(w.node(a).connections().peers(), 6, "and the one that was missing, once it is known");
    let lost = w.connections(a, live[1])[0];
    w.close(a, lost);
    w.run_for(secs(60));
    assert_eq!(w.node(a).connections().peers(), 6, "one that is lost is dialled again");
    w.shutdown();
    w.assert_empty();
}

#[test]
fn the_first_address_that_is_told_is_dialled_by_a_node_that_wants_peers() {
    let mut w = World::new(73);
    let a = w.host("A").configure(|config| config.swarm.auto_connect.peers = 1).start();
    let [b, c] = ["B", "C"].map(|name| w.host(name).start());
    for host in [b, c] {
        let (peer, address) = (w[host].peer(), w[host].address());
        w.command(a, |node, now| node.add_peer_addresses(now, peer, &[address], None));
        w.run_for(secs(60));
    }
    assert_eq!((w.connections(a, b).len(), w.connections(a, c).len()), (1, 0), "one is enough");
    w.shutdown();
    w.assert_empty();
}

#[test]
fn a_peer_to_be_kept_is_dialled_again_when_it_is_back() {
    let mut w = World::new(72);
    let (a, b) = (w.host("A").start(), w.host("B").start());
    let (peer, address) = (w[b].peer(), w[b].address());
    w.command(a, |node, now| node.add_peer_addresses(now, peer, &[address], None));
    w.command(a, |node, now| node.keep_connected(now, peer, true));
    w.run_for(secs(1));
    assert_eq!(w.connections(a, b).len(), 1);
    w.restart(b);
    w.run_for(secs(120));
    assert_eq!(w.connections(a, b).len(), 1, "it has restarted, and was dialled again");
    w.command(a, |node, now| node.keep_connected(now, peer, false));
    let lost = w.connections(a, b)[0];
    w.close(a, lost);
    w.run_for(secs(120));
    assert_eq!(w.connections(a, b).len(), 0);
    w.shutdown();
    w.assert_empty();
}
