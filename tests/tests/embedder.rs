//! What a machine knows, an embedder reaches: commands and getters, through public calls alone.

use std::time::Duration;

use bytes::Bytes;
use peerless_core::{
    Multiaddr,
    behaviour::{Behaviour, Context, Input, PeerEvent, Reply, StreamEvent},
    errors::{CloseReason, OpenError, StreamFault},
    identity::Identity,
    ids::{ConnectionId, StreamId},
    names::{Direction, Framing, ProtocolName, ProtocolSpec},
    node::{
        AppStreamEvent, Config, ConfigError, Event, Node, Read, SettingError, Start, StreamError, StreamState,
    },
    protocols::{
        relay::{
            client::{Client, Reachability, ReservationState, When},
            hop,
            limits::RelayLimits,
        },
        rendezvous::{client::Registration, server},
    },
    rng::Rng,
    swarm::dial::black_hole,
    time::{Instant, UnixTime},
};
use peerless_proto::address;
use peerless_tests::{
    app::ECHO,
    host::HostId,
    link::Link,
    world::{World, ms, secs},
};

/// Two hosts and their connection.
fn pair(seed: u64) -> (World, HostId, HostId, ConnectionId) {
    let mut w = World::new(seed);
    let (a, b) = (w.host("A").start(), w.host("B").start());
    let connection = w.dial(a, b);
    w.run_for(secs(1));
    (w, a, b, connection)
}

/// Two hosts, connected through a relay.
fn circuit(seed: u64) -> (World, HostId, HostId, ConnectionId) {
    let (w, [_, a, b], connection) = relayed(seed);
    (w, a, b, connection)
}

/// The same, and the relay.
fn relayed(seed: u64) -> (World, [HostId; 3], ConnectionId) {
    let mut w = World::new(seed);
    let r = w.host("R").relay().start();
    let (a, b) = (w.host("A").start(), w.host("B").start());
    w.reserve(b, r);
    w.run_for(secs(1));
    let connection = w.dial_via(a, r, b);
    w.run_for(secs(1));
    (w, [r, a, b], connection)
}

/// The last stream that was opened to a host.
fn accepted(w: &World, host: HostId) -> StreamId {
    let accepted = w[host].log().iter().rev().find_map(|(_, event)| match event {
        Event::Stream { stream, event: AppStreamEvent::Accepted { .. } } => Some(*stream),
        _ => None,
    });
    accepted.expect("a stream has come")
}

/// Why connections to another host ended, as a host was told.
fn ends(w: &World, host: HostId, other: HostId) -> Vec<CloseReason> {
    let other = w[other].peer();
    let log = w[host].log().iter();
    log.filter_map(|(_, event)| match event {
        Event::Disconnected { peer, reason, .. } if *peer == other => Some(reason.clone()),
        _ => None,
    })
    .collect()
}

fn said(code: u64) -> CloseReason {
    CloseReason::Remote { code, text: String::new() }
}

#[test]
fn a_ping_of_a_connection_that_is_gone_is_an_error_at_once() {
    let (mut w, a, _, connection) = pair(7100);
    assert_eq!(w.command(a, |node, now| node.ping(now, connection)), Ok(()));
    w.close(a, connection);
    let told = w[a].log().iter().filter(|(_, event)| matches!(event, Event::Ping(_))).count();
    assert_eq!(told, 1, "a ping under way ends in an event");
    let stale = w.command(a, |node, now| node.ping(now, connection));
    assert_eq!(stale, Err(OpenError::NoConnection));
}

#[test]
fn a_connection_is_closed_with_a_code_that_the_remote_hears() {
    for make in [pair, circuit] {
        let (mut w, a, b, connection) = make(7110);
        w.command(a, |node, now| node.close_with(now, connection, 0x1234));
        w.run_for(secs(1));
        assert_eq!(ends(&w, a, b), [CloseReason::Local]);
        assert_eq!(ends(&w, b, a), [said(0x1234)]);
        w.shutdown();
        w.assert_empty();
    }
}

#[test]
fn a_peer_is_closed_whole_direct_connections_and_circuits() {
    let (mut w, a, b, _) = circuit(7120);
    let address = w[b].address();
    let own = w.start_own_dial(a, &address);
    w.wait_for(a, "a direct connection", |event| event.dial_outcome(own)).unwrap();
    w.run_for(ms(500));
    let peer = w[b].peer();
    assert_eq!(w.connections(a, b).len(), 2);
    assert_eq!(w.command(a, |node, now| node.close_peer_with(now, &peer, 7)), 2);
    assert_eq!(w.connections(a, b), []);
    w.run_for(secs(1));
    assert_eq!(ends(&w, b, a), [said(7), said(7)]);
    assert_eq!(w.command(a, |node, now| node.close_peer(now, &peer)), 0);
    w.shutdown();
    w.assert_empty();
}

#[test]
fn a_stream_is_reset_with_a_code_that_its_owner_reads_directly_and_through_a_relay() {
    for make in [pair, circuit] {
        let (mut w, a, b, connection) = make(7130);
        let stream = w.command(a, |node, now| {
            let stream = node.open(now, connection, &ECHO).unwrap();
            node.write(now, stream, &mut Bytes::from_static(b"to be echoed")).unwrap();
            stream
        });
        w.run_for(secs(1));
        let theirs = accepted(&w, b);
        w.command(b, |node, now| node.reset_with(now, theirs, 0x42));
        w.run_for(secs(1));
        let fault = w.command(a, |node, now| {
            loop {
                match node.read(now, stream, 100) {
                    Ok(Read::Data(_)) => {}
                    other => break other,
                }
            }
        });
        assert_eq!(fault, Err(StreamError::Lost(StreamFault::Remote(0x42))));
        w.shutdown();
        w.assert_empty();
    }
}

#[test]
fn a_stream_is_stopped_with_a_code_that_its_writer_reads() {
    let (mut w, a, b, connection) = pair(7140);
    let stream = w.command(a, |node, now| {
        let stream = node.open(now, connection, &ECHO).unwrap();
        node.write(now, stream, &mut Bytes::from_static(b"first")).unwrap();
        stream
    });
    w.run_for(secs(1));
    let theirs = accepted(&w, b);
    w.command(b, |node, now| node.stop_with(now, theirs, 0x43));
    w.run_for(secs(1));
    let write =
        |w: &mut World| w.command(a, |node, now| node.write(now, stream, &mut Bytes::from_static(b"second")));
    assert_eq!(write(&mut w), Err(StreamError::Stopped(0x43)));
    let echoed = w.command(a, |node, now| node.read(now, stream, 100));
    assert_eq!(echoed, Ok(Read::Data(Bytes::from_static(b"first"))), "what it sends can still be read");
    w.command(a, |node, now| node.reset(now, stream));
    w.shutdown();
    w.assert_empty();
}

const CODES: ProtocolName = ProtocolName::from_static("/codes/1.0.0");

/// Says a word on each connection that it opened, and notes what becomes of it. Whoever hears a word answers with what it
/// was made for.
#[derive(Debug)]
struct Codes {
    protocols: [ProtocolSpec; 1],
    answer: fn(&mut Context<'_>, ConnectionId, StreamId),
    opener: bool,
    at: Option<ConnectionId>,
    ends: Vec<StreamEvent>,
}

impl Codes {
    fn new(opener: bool, answer: fn(&mut Context<'_>, ConnectionId, StreamId)) -> Self {
        let framing = Framing::Varint { max: 100 };
        let protocols = [ProtocolSpec { name: CODES, framing, inbound_per_peer: 4 }];
        Self { protocols, answer, opener, at: None, ends: Vec::new() }
    }
}

impl Behaviour for Codes {
    fn name(&self) -> &'static str {
        "codes"
    }

    fn protocols(&self) -> &[ProtocolSpec] {
        &self.protocols
    }

    fn handle(&mut self, cx: &mut Context<'_>, input: Input) {
        match input {
            Input::Peer(PeerEvent::Connected { connection, .. }) if self.opener => {
                cx.open(connection, CODES);
            }
            Input::Reply(_, Reply::Stream(Ok(stream))) => cx.send(stream, &b"a word"[..]),
            Input::Stream(_, StreamEvent::Accepted { connection, .. }) => self.at = Some(connection),
            Input::Stream(stream, StreamEvent::Frame(_)) if !self.opener => {
                let connection = self.at.expect("the stream was accepted");
                (self.answer)(cx, connection, stream);
            }
            Input::Stream(
                _,
                event @ (StreamEvent::Frame(_) | StreamEvent::Stopped(_) | StreamEvent::Reset(_)),
            ) => {
                self.ends.push(event);
            }
            _ => {}
        }
    }
}

/// What the behaviour that opened a stream hears, and why its connection ended.
fn with_codes(
    seed: u64,
    answer: fn(&mut Context<'_>, ConnectionId, StreamId),
) -> (Vec<StreamEvent>, Vec<CloseReason>) {
    let mut w = World::new(seed);
    let behaviour = move |opener| {
        move |config: &mut Config| {
            config.behaviours.push(Box::new(Codes::new(opener, answer)));
        }
    };
    let a = w.host("A").configure(behaviour(true)).start();
    let b = w.host("B").configure(behaviour(false)).start();
    w.dial(a, b);
    w.run_for(secs(1));
    let heard = w.node(a).behaviour::<Codes>().map(|codes| codes.ends.clone()).unwrap_or_default();
    let ended = ends(&w, a, b);
    w.shutdown();
    w.assert_empty();
    (heard, ended)
}

#[test]
fn a_behaviour_says_why_it_closes_resets_and_stops_and_hears_it() {
    let (heard, ended) = with_codes(7150, |cx, connection, _| cx.close_with(connection, 0x51));
    assert_eq!((heard, ended), (vec![], vec![said(0x51)]));

    let (heard, ended) = with_codes(7151, |cx, _, stream| cx.reset_with(stream, 0x52));
    assert_eq!((heard, ended), (vec![StreamEvent::Reset(StreamFault::Remote(0x52))], vec![]));

    let (heard, ended) = with_codes(7152, |cx, _, stream| {
        cx.stop_with(stream, 0x53);
        cx.send(stream, &b"no more, thanks"[..]);
    });
    let word = StreamEvent::Frame(Bytes::from_static(b"no more, thanks"));
    assert!(heard.contains(&StreamEvent::Stopped(0x53)) && heard.contains(&word), "{heard:?}");
    assert_eq!(ended, []);
}

#[test]
fn the_streams_of_a_connection_are_listed_with_protocol_direction_bytes_age_and_state() {
    for make in [pair, circuit] {
        let (mut w, a, b, connection) = make(7160);
        let begun = w.now();
        let stream = w.command(a, |node, now| {
            let stream = node.open(now, connection, &ECHO).unwrap();
            node.write(now, stream, &mut Bytes::from_static(b"to be echoed")).unwrap();
            stream
        });
        let ours =
            |w: &World| w.node(a).streams_of(connection).into_iter().find(|info| info.stream == stream);
        assert_eq!(ours(&w).unwrap().state, StreamState::Negotiating);
        w.run_for(secs(1));
        w.command(a, |node, now| while let Ok(Read::Data(_)) = node.read(now, stream, 100) {});
        let info = ours(&w).unwrap();
        assert_eq!((&info.protocol, info.direction), (&Some(ECHO), Direction::Outbound));
        assert_eq!((info.state, info.opened, info.queued), (StreamState::Open, begun, 0));
        assert!(info.read >= 12 && info.written == info.read, "both ways say the same: {info:?}");

        let theirs = accepted(&w, b);
        let back = w.connections(b, a)[0];
        let far = w.node(b).streams_of(back).into_iter().find(|info| info.stream == theirs).unwrap();
        assert_eq!((far.protocol, far.direction), (Some(ECHO), Direction::Inbound));
        assert_eq!((far.read, far.written), (info.written, info.read));

        w.command(a, |node, now| node.finish(now, stream)).unwrap();
        assert_eq!(ours(&w).unwrap().state, StreamState::LocalFinished);
        w.run_for(secs(1));
        w.command(a, |node, now| while let Ok(Read::Data(_)) = node.read(now, stream, 100) {});
        assert_eq!(ours(&w), None);
        w.close(a, connection);
        assert_eq!(w.node(a).streams_of(connection), []);
    }
}

#[test]
fn a_relay_sees_what_passes_on_the_streams_of_a_circuit_and_its_ends_the_carrier() {
    let (mut w, [r, a, _], connection) = relayed(7165);
    w.echo(a, connection, 50_000);
    let at_relay = w.connections(r, a)[0];
    let relayed: Vec<_> = w.node(r).streams_of(at_relay);
    let relayed: Vec<_> = relayed.iter().filter(|info| info.state == StreamState::Relayed).collect();
    assert_eq!(relayed.len(), 1);
    assert!(relayed[0].read > 50_000 && relayed[0].written > 50_000, "{relayed:?}");
    let via = w.connections(a, r)[0];
    let carriers = w.node(a).streams_of(via);
    let carrier = carriers.iter().find(|info| info.state == StreamState::CarriesCircuit).unwrap();
    assert!(carrier.read > 50_000 && carrier.written > 50_000, "{carrier:?}");
}

#[test]
fn the_path_of_a_connection_is_shown_with_its_addresses_rtt_mtu_window_and_counts() {
    let mut w = World::new(7170);
    let (a, b) = (w.host("A").start(), w.host("B").start());
    w.link(a, b, Link::latency(ms(20)).loss(0.02));
    let connection = w.dial(a, b);
    w.echo(a, connection, 1 << 20);
    let path = w.node(a).path_of(connection).unwrap();
    assert_eq!(path.remote, w[b].socket_address());
    assert_eq!(path.local, Some(w[a].socket_address()));
    let stats = path.stats;
    assert!((ms(40)..ms(60)).contains(&stats.rtt), "{stats:?}");
    assert!(stats.mtu >= 1200 && stats.congestion_window >= 2 * 1200, "{stats:?}");
    assert!(stats.lost_packets > 0 && stats.lost_bytes > 0 && stats.congestion_events > 0, "{stats:?}");
    assert!(stats.bytes_sent > 1 << 20 && stats.bytes_received > 1 << 20, "{stats:?}");
    assert!(stats.datagrams_sent > 700 && stats.datagrams_received > 700, "{stats:?}");
    w.run_for(secs(5));
    assert_eq!(w.node(a).path_of(connection).unwrap().stats.in_flight, 0, "all is acknowledged");
    let stream = w.start_perf(a, connection, 8 << 20, 0);
    w.run_for(ms(100));
    let busy = w.node(a).path_of(connection).unwrap().stats;
    assert!(busy.in_flight > 0 && busy.in_flight <= 2 * busy.congestion_window, "{busy:?}");
    w.finish_transfer(a, stream, secs(60));
    w.close(a, connection);
    assert_eq!(w.node(a).path_of(connection), None);
}

#[test]
fn what_protects_a_connection_and_divides_it_is_shown_directly_and_through_a_relay() {
    let (w, a, _, connection) = pair(7180);
    let direct = w.node(a).upgrades_of(connection).unwrap();
    assert_eq!((direct.security, direct.muxer), ("tls1.3", "quic"));
    let (mut w, a, b, connection) = circuit(7181);
    let through = w.node(a).upgrades_of(connection).unwrap();
    assert_eq!((through.security, through.muxer), ("/noise", "/yamux/1.0.0"));
    assert_eq!(w.node(a).path_of(connection), None, "its path is that of the connection to the relay");
    let relayed = w.node(a).connections().get(connection).unwrap().relayed.clone().unwrap();
    assert!(w.node(a).path_of(relayed.via).is_some());
    w.close(b, w.connections(b, a)[0]);
    w.run_for(secs(1));
    assert_eq!(w.node(a).upgrades_of(connection), None);
}

#[test]
fn the_health_of_a_connection_is_a_record() {
    let (mut w, a, _, connection) = pair(7190);
    let rtt = w.ping(a, connection);
    let record = w.node(a).health().record(w.now(), connection).unwrap();
    assert_eq!((record.latency, record.success, record.failed_streams), (Some(rtt), 1.0, 0));
    assert_eq!((record.recent_errors, record.unhealthy_looks, record.next_look), (0, 0, None));
    assert!(record.score > 0.9, "{record:?}");
    w.close(a, connection);
    assert_eq!(w.node(a).health().record(w.now(), connection), None);
}

#[test]
fn what_is_left_alone_because_it_failed_is_listed_and_can_be_forgotten() {
    let mut w = World::new(7200);
    let (a, b) = (w.host("A").start(), w.host("B").start());
    let (peer, address) = (w[b].peer(), w[b].address());
    let (address_alone, _) = address::split_peer(&address);
    w.kill(b);
    assert!(w.try_dial(a, Some(peer), std::slice::from_ref(&address)).is_err());
    let entries = w.node(a).backed_off();
    assert!(entries.iter().any(|entry| entry.address.as_ref() == Some(&address_alone)), "{entries:?}");
    assert!(entries.iter().all(|entry| entry.peer == peer && entry.failures == 1), "{entries:?}");
    w.command(a, |node, now| {
        node.add_peer_addresses(now, peer, std::slice::from_ref(&address), None);
        node.keep_connected(now, peer, true);
    });
    let resting = |w: &World| Some(w.node(a).resting_peers()).filter(|peers| !peers.is_empty());
    let rests = w.run_until(secs(60), resting).expect("it is left alone in between");
    assert_eq!(rests.iter().map(|(peer, _)| *peer).collect::<Vec<_>>(), [peer]);
    let entries = w.node(a).backed_off();
    assert!(!entries.is_empty());
    assert!(entries.iter().all(|entry| entry.until > w.now() && entry.failures > 0), "{entries:?}");
    let holes = w.node(a).black_holes();
    assert_eq!((holes.udp, holes.ipv6), (black_hole::State::Probing, black_hole::State::Probing));

    w.restart(b);
    let before = w.now();
    w.command(a, |node, now| node.forget_failures_of(now, &peer));
    assert_eq!((w.node(a).backed_off(), w.node(a).resting_peers()), (vec![], vec![]));
    w.wait_for(a, "a connection", |event| matches!(event, Event::Connected { .. }).then_some(()));
    assert!(w.now().saturating_duration_since(before) < secs(1), "it is dialled at once");

    w.kill(b);
    w.run_until(secs(90), resting).expect("it is left alone in between");
    w.command(a, |node, now| node.forget_failures(now));
    assert_eq!((w.node(a).backed_off(), w.node(a).resting_peers()), (vec![], vec![]));
}

#[test]
fn one_address_of_a_peer_is_forgotten_and_a_peer_is_kept_in_a_full_peerstore() {
    let mut w = World::new(7210);
    let one = |config: &mut Config| config.swarm.peerstore.peers = 2;
    let a = w.host("A").configure(one).start();
    let others: Vec<_> = ["B", "C", "D", "E"].map(|name| w.host(name).start()).to_vec();
    let peers: Vec<_> = others.iter().map(|host| (w[*host].peer(), w[*host].address())).collect();
    let known = |w: &World, peer| {
        let addresses = w.node(a).peerstore().addresses(w.now(), &peer);
        addresses.into_iter().map(|known| known.address).collect::<Vec<_>>()
    };
    let (first, at) = peers[0].clone();
    let elsewhere: Multiaddr = "/ip4/9.9.9.9/udp/9/quic-v1".parse().unwrap();
    w.command(a, |node, now| node.add_peer_addresses(now, first, &[at.clone(), elsewhere.clone()], None));
    assert_eq!(known(&w, first).len(), 2);
    assert!(w.command(a, |node, now| node.remove_peer_address(now, first, &at)));
    assert!(!w.command(a, |node, now| node.remove_peer_address(now, first, &at)), "it is not known any more");
    assert_eq!(known(&w, first), std::slice::from_ref(&elsewhere));

    w.command(a, |node, now| node.protect_in_peerstore(now, first, true));
    let tell_others = |w: &mut World| {
        for (peer, address) in &peers[1..] {
            w.run_for(secs(1));
            w.command(a, |node, now| {
                node.add_peer_addresses(now, *peer, std::slice::from_ref(address), None)
            });
        }
    };
    tell_others(&mut w);
    assert_eq!(known(&w, first), [elsewhere], "it is protected");
    w.command(a, |node, now| node.protect_in_peerstore(now, first, false));
    tell_others(&mut w);
    assert_eq!(known(&w, first), Vec::<Multiaddr>::new(), "others made room for themselves");
}

#[test]
fn a_relay_lists_its_reservations_and_circuits_and_ends_them() {
    let (mut w, [r, a, b], connection) = relayed(7220);
    let (source, target) = (w[a].peer(), w[b].peer());
    w.echo(a, connection, 50_000);
    let held = w.node(r).granted_reservations();
    let [held] = &held[..] else { panic!("{held:?}") };
    assert_eq!((held.peer, held.connection), (target, w.connections(r, b)[0]));
    assert!(held.granted < w.now() && held.expires > w.now() + secs(3000), "{held:?}");

    let circuits = w.node(r).relayed_circuits();
    let [circuit] = &circuits[..] else { panic!("{circuits:?}") };
    assert_eq!((circuit.source, circuit.target, circuit.is_open), (source, target, true));
    assert!(circuit.bytes_in > 50_000 && circuit.bytes_out > 50_000, "{circuit:?}");
    assert_eq!(circuit.expires.is_some(), circuit.limit.duration.is_some());

    let id = circuit.id;
    assert!(w.command(r, |node, now| node.end_relayed_circuit(now, id)));
    assert!(!w.command(r, |node, now| node.end_relayed_circuit(now, id)), "it is over");
    w.run_for(secs(1));
    assert_eq!((ends(&w, a, b).len(), ends(&w, b, a).len()), (1, 1));
    assert_eq!(w.node(r).relayed_circuits(), []);

    assert!(w.command(r, |node, now| node.revoke_reservation(now, target)));
    assert!(!w.command(r, |node, now| node.revoke_reservation(now, target)));
    assert_eq!(w.node(r).granted_reservations(), []);
    let through = w.circuit(r, b);
    assert!(w.try_dial(a, None, &[through]).is_err(), "nobody is reached without a reservation");
    w.shutdown();
    w.assert_empty();
}

#[test]
fn a_circuit_that_is_not_open_yet_is_listed_and_ended_as_well() {
    let mut w = World::new(7230);
    let r = w.host("R").relay().start();
    let (a, b) = (w.host("A").start(), w.host("B").start());
    w.link(r, b, Link::latency(ms(400)));
    w.reserve(b, r);
    w.run_for(secs(5));
    let to_relay = w.dial(a, r);
    w.ping(a, to_relay);
    let through = w.circuit(r, b);
    w.start_dial(a, None, &[through]);
    w.run_for(ms(200));
    let circuits = w.node(r).relayed_circuits();
    let [circuit] = &circuits[..] else { panic!("{circuits:?}") };
    assert!(!circuit.is_open && circuit.expires.is_some(), "{circuit:?}");
    let id = circuit.id;
    assert!(w.command(r, |node, now| node.end_relayed_circuit(now, id)));
    assert_eq!(w.node(r).relayed_circuits(), []);
    w.wait_for(a, "a failure", |event| matches!(event, Event::DialFailed { .. }).then_some(()));
    w.shutdown();
    w.assert_empty();
}

#[test]
fn who_uses_relays_lists_its_reservations_and_circuits() {
    let limits = RelayLimits::public();
    let mut w = World::new(7240);
    let r = w.host("R").relay_with(hop::Config::from(limits.clone())).start();
    let (a, b) = (w.host("A").start(), w.host("B").start());
    assert_eq!(w.node(b).reservations(), []);
    w.reserve(b, r);
    w.run_for(secs(1));
    let relay = w[r].peer();
    let held = w.node(b).reservations();
    let [held] = &held[..] else { panic!("{held:?}") };
    assert_eq!((held.relay, held.state, held.failures), (relay, ReservationState::Active, 0));
    assert!(held.addresses.iter().all(|address| address.to_string().ends_with("/p2p-circuit")), "{held:?}");
    assert!(!held.addresses.is_empty() && !held.is_auto);
    assert_eq!(held.limit.and_then(|limit| limit.data), Some(limits.circuit_bytes));
    assert!(held.expires > held.next_step && held.next_step > Some(w.now()), "{held:?}");

    let connection = w.dial_via(a, r, b);
    w.echo(a, connection, 10_000);
    let (ours, theirs) = (w.node(a).circuits(), w.node(b).circuits());
    let ([ours], [theirs]) = (&ours[..], &theirs[..]) else { panic!("{ours:?} {theirs:?}") };
    assert_eq!((ours.connection, ours.peer, ours.relay), (connection, w[b].peer(), relay));
    assert_eq!((ours.direction, theirs.direction), (Direction::Outbound, Direction::Inbound));
    assert_eq!(ours.via, w.connections(a, r)[0]);
    assert_eq!(ours.limit.duration, Some(limits.circuit_duration));
    assert!(ours.expires.is_some_and(|at| at > w.now() && at < w.now() + limits.circuit_duration));
    assert!(ours.sent > 10_000 && ours.received > 10_000, "{ours:?}");
    assert_eq!(w.node(a).circuit_of(ours.via), None, "that one is direct");

    w.command(b, |node, now| node.cancel_reservation(now, relay));
    assert_eq!(w.node(b).reservations(), []);
    w.close(a, connection);
    assert_eq!(w.node(a).circuits(), []);
    w.shutdown();
    w.assert_empty();
}

/// What `Node::new` says of a setting.
fn refused(change: impl FnOnce(&mut Config)) -> Option<String> {
    let mut config = Config::new(Identity::generate(&mut Rng::new([7; 32])));
    change(&mut config);
    let start = Start { now: Instant::ZERO, unix: UnixTime::from_secs(1_700_000_000), seed: [7; 32] };
    match Node::new(config, start) {
        Ok(_) => None,
        Err(ConfigError::Invalid(error)) => Some(error.field.to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

#[test]
fn a_setting_that_makes_no_sense_is_named_when_the_node_is_made() {
    assert_eq!(refused(|_| {}), None);
    let said = |field: &str| Some(field.to_owned());
    let zero = Duration::ZERO;
    assert_eq!(refused(|c| c.quic.handshake_timeout = zero), said("quic.handshake_timeout"));
    assert_eq!(refused(|c| c.quic.idle_timeout = secs(1 << 40)), said("quic.idle_timeout"));
    assert_eq!(refused(|c| c.quic.keep_alive = Some(secs(30))), said("quic.keep_alive"));
    assert_eq!(refused(|c| c.quic.keep_alive = None), None);
    assert_eq!(refused(|c| c.quic.max_streams = 0), said("quic.max_streams"));
    assert_eq!(refused(|c| c.quic.max_mtu = 1199), said("quic.max_mtu"));
    assert_eq!(refused(|c| c.quic.max_half_open = 0), said("quic.max_half_open"));
    assert_eq!(refused(|c| c.streams.negotiation_timeout = zero), said("streams.negotiation_timeout"));
    assert_eq!(refused(|c| c.streams.windows.rate = 0), said("streams.windows.rate"));
    assert_eq!(refused(|c| c.upgrade.security.clear()), said("upgrade.security"));
    assert_eq!(refused(|c| c.upgrade.yamux.max_stream_window = 1), said("upgrade.yamux.max_stream_window"));
    assert_eq!(refused(|c| c.ping.timeout = zero), said("ping.timeout"));
    assert_eq!(refused(|c| c.relay_client.timeout = ms(999)), said("relay_client.timeout"));
    assert_eq!(refused(|c| c.relay_client.score.ema_alpha = f64::NAN), said("relay_client.score.ema_alpha"));
    assert_eq!(refused(|c| c.rendezvous_client.page = 0), said("rendezvous_client.page"));
    let hop = hop::Config { reservation_ttl: zero, ..hop::Config::default() };
    assert_eq!(refused(|c| c.hop = Some(hop)), said("hop.reservation_ttl"));
    let point = server::Config { default_ttl: secs(1), ..server::Config::default() };
    assert_eq!(refused(|c| c.rendezvous_server = Some(point)), said("rendezvous_server.default_ttl"));
    assert_eq!(refused(|c| c.swarm.limits.peer.connections = 0), said("limits.peer.connections"));
}

#[test]
fn limits_change_at_run_time_and_are_checked() {
    let (mut w, a, b, _) = pair(7300);
    let mut limits = w.node(b).swarm().resources().limits().clone();
    let mut none = limits.clone();
    none.peer.connections = 0;
    let error = w.command(b, |node, now| node.set_limits(now, none)).unwrap_err();
    assert_eq!(error.to_string(), "limits.peer.connections must be at least 1");
    limits.per_ip = 1;
    limits.networks.clear();
    w.command(b, |node, now| node.set_limits(now, limits.clone())).unwrap();
    assert_eq!(w.connections(b, a).len(), 1, "what is held stays");
    let address = w[b].address();
    let outcome = |w: &mut World| {
        let dial = w.start_own_dial(a, &address);
        w.wait_for(a, "an outcome", |event| event.dial_outcome(dial))
    };
    assert!(outcome(&mut w).is_err(), "there is one from this address already");
    limits.per_ip = 2;
    w.command(b, |node, now| node.set_limits(now, limits)).unwrap();
    assert!(outcome(&mut w).is_ok());
    w.shutdown();
    w.assert_empty();
}

#[test]
fn what_a_relay_allows_changes_at_run_time_and_is_checked() {
    let (mut w, [r, a, b], connection) = relayed(7310);
    let wrong = hop::Config { timeout: ms(1), ..hop::Config::default() };
    let error = w.command(r, |node, now| node.set_hop(now, wrong)).unwrap_err();
    assert_eq!(error.to_string(), "hop.timeout must be at least a second");
    let error = w.command(a, |node, now| node.set_hop(now, hop::Config::default())).unwrap_err();
    assert_eq!(error, SettingError::NoSuchRole("a relay"));

    let none = RelayLimits { max_circuits: 1, ..RelayLimits::public() };
    w.command(r, |node, now| node.set_hop(now, none.into())).unwrap();
    w.echo(a, connection, 1000);
    let through = w.circuit(r, b);
    let own = w.start_own_dial(a, &through);
    let refused = w.wait_for(a, "an outcome", |event| event.dial_outcome(own));
    assert!(refused.is_err(), "there is one circuit already");
    w.command(r, |node, now| node.set_hop(now, RelayLimits::public().into())).unwrap();
    let own = w.start_own_dial(a, &through);
    assert!(w.wait_for(a, "an outcome", |event| event.dial_outcome(own)).is_ok());
    w.shutdown();
    w.assert_empty();
}

#[test]
fn what_a_rendezvous_point_allows_changes_at_run_time_and_is_checked() {
    let mut w = World::new(7320);
    let point = w.host("P").configure(|c| c.rendezvous_server = Some(server::Config::default())).start();
    let a = w.host("A").start();
    let strict = server::Limits { min_ttl: secs(3 * 3600), ..server::Limits::default() };
    let wrong = server::Config { limits: strict.clone(), ..server::Config::default() };
    let error = w.command(point, |node, now| node.set_rendezvous_server(now, wrong)).unwrap_err();
    assert!(error.to_string().starts_with("rendezvous_server.default_ttl must be"), "{error}");
    let right = server::Config { limits: strict, default_ttl: secs(4 * 3600), ..server::Config::default() };
    w.command(point, |node, now| node.set_rendezvous_server(now, right)).unwrap();
    let peer = w[point].peer();
    let short = Registration::new(w[point].address(), "chat");
    w.command(a, |node, now| node.register(now, short)).unwrap();
    let outcome = w.wait_for(a, "an outcome", |event| event.register_outcome(peer, "chat"));
    assert!(outcome.is_err(), "two hours are too short now");
    let error =
        w.command(a, |node, now| node.set_rendezvous_server(now, server::Config::default())).unwrap_err();
    assert_eq!(error.to_string(), "the node was made without being a rendezvous point");
}

#[test]
fn a_peer_that_moves_is_told_of_with_its_new_address() {
    let (mut w, a, b, connection) = pair(7330);
    w.readdress(a, [10, 99, 0, 1]);
    w.ping(a, connection);
    w.run_for(secs(5));
    let at = w.connections(b, a)[0];
    let moved = w[b].log().iter().find_map(|(_, event)| match event {
        Event::PathChanged { connection, peer, address } => Some((*connection, *peer, address.to_string())),
        _ => None,
    });
    let port = w[a].socket_address().port();
    assert_eq!(moved, Some((at, w[a].peer(), format!("/ip4/10.99.0.1/udp/{port}/quic-v1"))));
    assert_eq!(w.node(b).path_of(at).unwrap().remote, w[a].socket_address());
}

#[test]
fn a_relay_is_named_by_call_and_chosen_while_others_cannot_connect() {
    let mut w = World::new(7340);
    let r = w.host("R").relay().start();
    let a = w.host("A").configure(|c| c.relay_client.auto.when = When::WhenPrivate).start();
    assert_eq!(w.node(a).reachability(), Reachability::Unknown);
    let address = w[r].address();
    let nobody: Multiaddr = "/ip4/192.0.2.1/udp/1/quic-v1".parse().unwrap();
    assert!(w.command(a, |node, now| node.add_relay_candidate(now, &nobody)).is_err());
    w.command(a, |node, now| node.add_relay_candidate(now, &address)).unwrap();
    w.run_for(secs(5));
    assert_eq!(w.node(a).reservations(), [], "it is not private");
    w.command(a, |node, now| {
        node.with::<Client, _>(now, |client, cx| client.set_reachability(cx, Reachability::Private))
    });
    assert_eq!(w.node(a).reachability(), Reachability::Private);
    w.run_for(secs(5));
    let held = w.node(a).reservations();
    assert!(held.len() == 1 && held[0].is_auto && held[0].state == ReservationState::Active, "{held:?}");
}
