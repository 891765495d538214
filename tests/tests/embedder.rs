//! What a machine knows, an embedder reaches: commands and getters, through public calls alone.

use bytes::Bytes;
use peerless_core::{
    behaviour::{Behaviour, Context, Input, PeerEvent, Reply, StreamEvent},
    errors::{CloseReason, OpenError, StreamFault},
    ids::{ConnectionId, StreamId},
    names::{Framing, ProtocolName, ProtocolSpec},
    node::{AppStreamEvent, Event, Read, StreamError},
};
use peerless_tests::{
    app::ECHO,
    host::HostId,
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
    let mut w = World::new(seed);
    let r = w.host("R").relay().start();
    let (a, b) = (w.host("A").start(), w.host("B").start());
    w.reserve(b, r);
    w.run_for(secs(1));
    let connection = w.dial_via(a, r, b);
    w.run_for(secs(1));
    (w, a, b, connection)
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
        move |config: &mut peerless_core::node::Config| {
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
