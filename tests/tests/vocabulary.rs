//! What behaviours may ask for and are told, each by one that is not built in and has nothing but the public vocabulary.

#[path = "vocabulary/probe.rs"]
mod probe;
#[path = "vocabulary/tunnel.rs"]
mod tunnel;

use std::time::Duration;

use peerless_core::{
    Multiaddr,
    behaviour::{Action, Reply, StreamEvent},
    errors::{AttemptError, DialError},
    ids::{ConnectionId, SocketId, StreamId, Token},
    names::{Framing, ProtocolName, ProtocolSpec},
    node::Event,
    swarm::{dial::DialOptions, tags::Decay},
};
use peerless_tests::{
    host::HostId,
    world::{World, ms, secs},
};

use self::tunnel::{Tunnel, tunnel_address};

/// Has the probe of a host dial, and waits for its reply.
fn dial(
    world: &mut World,
    host: HostId,
    to: HostId,
    address: &Multiaddr,
    options: DialOptions,
) -> Result<ConnectionId, DialError> {
    let peer = world[to].peer();
    let token = probe::with(world, host, |_, cx| cx.dial_with(Some(peer), vec![address.clone()], options));
    let reply = probe::wait(world, host, |probe| probe.reply(token));
    match reply {
        Reply::Dial(result) => result,
        other => panic!("not the answer to a dial: {other:?}"),
    }
}

fn close(world: &mut World, host: HostId, connection: ConnectionId) {
    probe::with(world, host, |_, cx| cx.close(connection));
    world.run_for(secs(1));
}

fn only_error(result: Result<ConnectionId, DialError>) -> AttemptError {
    let mut attempts = result.expect_err("it must fail").attempts;
    assert_eq!(attempts.len(), 1, "{attempts:?}");
    attempts.remove(0).1
}

#[test]
fn a_behaviour_dials_with_options() {
    let mut world = World::new(1);
    let a = world.host("A").ip([80, 0, 1, 1]).ip([80, 0, 1, 2]).configure(probe::add).start();
    let b = world.host("B").start();
    let relay = world.host("R").relay().start();
    let address = world[b].address();

    let first = dial(&mut world, a, b, &address, DialOptions::default()).expect("it is there");
    let again = dial(&mut world, a, b, &address, DialOptions::default());
    assert_eq!(again, Ok(first), "the connection that is there");
    let forced = DialOptions { force_new: true, ..DialOptions::default() };
    let second = dial(&mut world, a, b, &address, forced).expect("it is there");
    assert_ne!(second, first, "one of its own");
    close(&mut world, a, second);

    for (socket, ip) in [(0, "80.0.1.1"), (1, "80.0.1.2")] {
        let from = DialOptions { socket: Some(SocketId(socket)), ..DialOptions::default() };
        let here = dial(&mut world, a, b, &address, from).expect("it is there");
        assert!(here != first && here != second, "one of its own");
        world.run_for(ms(100));
        let there = *world.connections(b, a).last().expect("it is there");
        let remote = world.node(b).connections().get(there).expect("it is there").remote.to_string();
        assert!(remote.contains(ip), "from socket {socket}: {remote}");
        close(&mut world, a, here);
    }
    let nowhere = DialOptions { socket: Some(SocketId(7)), ..DialOptions::default() };
    assert_eq!(only_error(dial(&mut world, a, b, &address, nowhere)), AttemptError::NoSocket);

    world.reserve(b, relay);
    world.run_for(secs(1));
    let circuit = world.circuit(relay, b);
    let direct = DialOptions { direct_only: true, ..DialOptions::default() };
    let c = world.host("C").configure(probe::add).start();
    let refused = dial(&mut world, c, b, &circuit, direct.clone());
    assert_eq!(only_error(refused), AttemptError::NotDirect);
    let relayed = dial(&mut world, c, b, &circuit, DialOptions::default()).expect("it is there");
    let address = world[b].address();
    let direct = dial(&mut world, c, b, &address, direct).expect("it is there");
    assert_ne!(direct, relayed, "a relayed connection will not do");
}

#[test]
fn a_behaviour_says_how_long_a_dial_may_take_and_whether_back_offs_count() {
    let mut world = World::new(2);
    let a = world.host("A").configure(probe::add).start();
    let dead = world.host("B").bare();
    let address = world[dead].address();
    let begun = world.now();
    let hasty = DialOptions { timeout: Some(ms(1500)), ..DialOptions::default() };
    let error = only_error(dial(&mut world, a, dead, &address, hasty));
    assert_eq!((error, world.now().saturating_duration_since(begun)), (AttemptError::TimedOut, ms(1500)));
    let patient = DialOptions::default();
    only_error(dial(&mut world, a, dead, &address, patient));
    let wary = DialOptions { respect_backoff: Some(true), ..DialOptions::default() };
    let error = only_error(dial(&mut world, a, dead, &address, wary));
    assert!(matches!(error, AttemptError::BackedOff { .. }), "{error}");
    let bold = DialOptions { respect_backoff: Some(false), timeout: Some(ms(300)), ..DialOptions::default() };
    assert_eq!(only_error(dial(&mut world, a, dead, &address, bold)), AttemptError::TimedOut);
}

/// A dialler, a middle node and a target, all of which speak the tunnel; the dialler has room for one dial at a time.
fn tunnelled(seed: u64) -> (World, [HostId; 3]) {
    let mut world = World::new(seed);
    let mut start = |name| {
        let host = world.host(name).configure(|config| {
            config.behaviours.push(Box::new(Tunnel::default()));
            config.swarm.dial.parallel = 1;
        });
        host.configure(probe::add).start()
    };
    let hosts = ["D", "M", "T"].map(&mut start);
    (world, hosts)
}

#[test]
fn a_transport_of_its_own_carries_connections_through_a_middle_node() {
    let (mut world, [d, m, t]) = tunnelled(3);
    let address = tunnel_address(&world[m].address(), world[t].peer());
    let error = world
        .try_dial(d, None, std::slice::from_ref(&address))
        .expect_err("the middle node does not know it");
    assert!(error.to_string().contains("the relay could not be reached"), "{error}");

    world.dial(t, m);
    let connection = world
        .try_dial(d, None, std::slice::from_ref(&address))
        .expect("its step does not wait for its own end");
    let info = world.node(d).connections().get(connection).expect("it is there");
    assert_eq!(info.peer, world[t].peer());
    assert_eq!(info.relayed.as_ref().map(|relayed| relayed.relay), Some(world[m].peer()));
    let place: Multiaddr = format!("{}/memory/7", world[m].address()).parse().expect("well-formed");
    assert_eq!(info.remote, place, "by its own form of address");
    let stream = world.start_echo(d, connection, 100_000);
    world.run_for(secs(5));
    assert!(world[d].app().transfer(stream).is_some_and(|t| t.received == 100_000), "bytes go through");
    assert_eq!(world.node(d).stats().dials, 0);
}

#[test]
fn only_who_was_given_a_dial_can_fail_it() {
    let (mut world, [d, m, t]) = tunnelled(4);
    world.dial(t, m);
    let address = tunnel_address(&world[m].address(), world[t].peer());
    let dial = world.start_dial(d, None, &[address]);
    probe::with(&mut world, d, |_, cx| {
        for token in (0..1000).map(Token) {
            let error = DialError { attempts: Vec::new() };
            cx.push(Action::DialFailed { token, error });
        }
    });
    world.wait_for(d, "the dial", |event| match event {
        Event::Dialed { dial: ended, .. } => (*ended == dial).then_some(()),
        Event::DialFailed { error, .. } => panic!("somebody else ended it: {error}"),
        _ => None,
    });
}

#[test]
fn a_behaviour_makes_a_connection_that_nobody_dials() {
    let (mut world, [d, m, t]) = tunnelled(5);
    world.dial(t, m);
    let to_middle = world.dial(d, m);
    let target = world[t].peer();
    world.command(d, |node, now| {
        node.with::<Tunnel, _>(now, |tunnel, cx| tunnel.reach(cx, to_middle, target))
    });
    world.run_for(Duration::from_secs(2));
    assert_eq!((world.connections(d, t).len(), world.connections(t, d).len()), (1, 1));
}

const MESH: [&str; 3] = ["/test/mesh/1.2", "/test/mesh/1.1", "/test/flood"];

/// Has the probe of a host open a stream, most wanted protocol first.
fn open(world: &mut World, host: HostId, connection: ConnectionId, protocols: &[&str]) -> StreamId {
    let names: Vec<_> = protocols.iter().map(|name| ProtocolName::from(*name)).collect();
    let token = probe::with(world, host, |_, cx| cx.open_any(connection, names));
    match probe::wait(world, host, |probe| probe.reply(token)) {
        Reply::Stream(Ok(stream)) => stream,
        other => panic!("no stream: {other:?}"),
    }
}

/// The last thing that happened to a stream, that is of any interest.
fn last(world: &World, host: HostId, stream: StreamId) -> Option<StreamEvent> {
    let events = probe::of(world, host).on_streams();
    events
        .filter(|(id, event)| *id == stream && **event != StreamEvent::Drained)
        .last()
        .map(|(_, e)| e.clone())
}

#[test]
fn the_most_wanted_protocol_that_both_speak_is_agreed_and_told() {
    for spoken in 0..4 {
        let mut world = World::new(6);
        let a = world.host("A").configure(probe::add_speaking(&MESH)).start();
        let b = world.host("B").configure(move |config| {
            let speaks: &[&str] = if spoken < 3 { &MESH[spoken..] } else { &["/test/other"] };
            config.behaviours.push(Box::new(probe::Probe::speaking(speaks, 1 << 20)));
        });
        let b = b.start();
        let connection = world.dial(a, b);
        let stream = open(&mut world, a, connection, &MESH);
        probe::with(&mut world, a, |_, cx| {
            cx.send(stream, "sent at once");
            cx.finish(stream);
        });
        world.run_for(secs(2));
        if spoken == 3 {
            let lost = last(&world, a, stream);
            assert!(matches!(lost, Some(StreamEvent::Reset(_))), "{lost:?}");
            continue;
        }
        let protocol = ProtocolName::from(MESH[spoken]);
        assert_eq!(last(&world, a, stream), Some(StreamEvent::Agreed { protocol: protocol.clone() }));
        assert_eq!(probe::of(&world, b).frames(), [b"sent at once"]);
        let theirs = probe::of(&world, b).accepted().expect("it was opened");
        assert_eq!(last(&world, b, theirs), Some(StreamEvent::Finished));
        let resources = world.node(a).swarm().resources();
        assert_eq!(resources.protocol(protocol.as_str()).outbound_streams, 1, "counted as what it is");
    }
}

#[test]
fn what_a_behaviour_answers_changes_and_peers_are_told() {
    let mut world = World::new(7);
    let a = world.host("A").configure(probe::add).start();
    let b = world.host("B").configure(probe::add).start();
    let connection = world.dial(a, b);
    world.run_for(secs(1));
    let peer = world[b].peer();
    let speaks = |world: &World, name: &str| {
        world.node(a).peerstore().protocols(&peer).iter().any(|known| known.as_str() == name)
    };
    let name = ProtocolName::from("/test/channel");
    let framing = Framing::Varint { max: 100 };
    for inbound_per_peer in [2, 0, 1] {
        let spec = ProtocolSpec { name: name.clone(), framing, inbound_per_peer };
        probe::with(&mut world, b, |_, cx| cx.push(Action::Answer { spec }));
        world.run_for(secs(10));
        assert_eq!(speaks(&world, name.as_str()), inbound_per_peer > 0, "identify pushes it");
    }
    let spec = ProtocolSpec { name: name.clone(), framing, inbound_per_peer: 0 };
    probe::with(&mut world, a, |_, cx| cx.push(Action::Answer { spec }));
    let stream = open(&mut world, a, connection, &["/test/channel"]);
    probe::with(&mut world, a, |_, cx| cx.send(stream, "hello"));
    world.run_for(secs(1));
    assert_eq!(probe::of(&world, b).frames(), [b"hello"]);
    let ping = ProtocolSpec { name: "/ipfs/ping/1.0.0".into(), framing, inbound_per_peer: 1 };
    probe::with(&mut world, b, |_, cx| cx.push(Action::Answer { spec: ping }));
    assert_eq!(world.node(b).counters().get("behaviours.answer_refused"), 1);
    world.ping(a, connection);
}

#[test]
fn a_paused_stream_loses_nothing_and_holds_up_its_sender() {
    let mut world = World::new(8);
    let a = world.host("A").configure(probe::add).start();
    let b = world.host("B").configure(probe::add).start();
    let connection = world.dial(a, b);
    let stream = open(&mut world, a, connection, &[probe::PROBE.as_str()]);
    probe::with(&mut world, a, |_, cx| cx.send(stream, "first"));
    world.run_for(secs(1));
    let theirs = probe::of(&world, b).accepted().expect("it was opened");
    probe::with(&mut world, b, |_, cx| cx.pause(theirs));
    let chunk = vec![7; 64 << 10];
    let mut sent = 0_usize;
    for _ in 0..400 {
        sent += probe::with(&mut world, a, |_, cx| {
            let room = cx.view().queues.room(stream) / (chunk.len() + 10);
            (0..room).for_each(|_| cx.send(stream, chunk.clone()));
            room
        });
        world.run_for(ms(50));
    }
    assert!((100..300).contains(&sent), "{sent} frames of 64 KiB: a window of 8 MiB and a queue");
    assert_eq!(probe::of(&world, b).frames().len(), 1, "nothing comes while it is paused");
    let (queued, limit) =
        probe::with(&mut world, a, |_, cx| (cx.view().queues.queued(stream), cx.view().queues.limit(stream)));
    assert!(queued > limit - 2 * (64 << 10), "the sender sees it: {queued} of {limit}");
    probe::with(&mut world, b, |_, cx| cx.resume(theirs));
    world.run_for(secs(10));
    let frames = probe::of(&world, b).frames();
    assert_eq!(frames.len(), 1 + sent);
    assert!(frames[1..].iter().all(|frame| *frame == chunk), "whole and in order");
}

#[test]
fn a_behaviour_denies_a_peer_for_a_time_and_values_it_less_and_less() {
    let mut world = World::new(9);
    let a = world.host("A").configure(probe::add).start();
    let b = world.host("B").start();
    world.dial(a, b);
    let peer = world[b].peer();
    let decay = Decay::Halving { every: secs(10) };
    let tag = Action::Tag { peer, tag: "score", value: 100, decay };
    probe::with(&mut world, a, |_, cx| cx.push(tag));
    world.run_for(secs(21));
    assert_eq!(world.command(a, |node, now| node.tags(now, |tags, now| tags.value(now, &peer))), 25);

    probe::with(&mut world, a, |_, cx| cx.push(Action::Deny { peer, duration: secs(60) }));
    world.run_for(secs(1));
    assert!(world.connections(a, b).is_empty(), "its connections are closed");
    let address = world[b].address();
    let refused = dial(&mut world, a, b, &address, DialOptions::default());
    assert!(matches!(only_error(refused), AttemptError::Refused(_)));
    let own = world[a].address();
    world.start_dial(b, None, std::slice::from_ref(&own));
    world.run_for(secs(2));
    assert!(world.connections(a, b).is_empty(), "nor is it let in");
    world.run_for(secs(60));
    let again = DialOptions { respect_backoff: Some(false), ..DialOptions::default() };
    dial(&mut world, a, b, &address, again).expect("the time is over");
}
