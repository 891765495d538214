//! When a remote hears that we end a stream: not before it has agreed to our proposal, and not before its handler listens.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use peerless_core::{
    behaviour::{Behaviour, Context, Input, Reply},
    errors::StreamFault,
    ids::{ConnectionId, StreamId},
    names::{Framing, ProtocolName, ProtocolSpec},
    node::{self, AppStreamEvent, Event},
    quic::{Read, ReadError},
};
use peerless_proto::multistream::encode_line;
use peerless_tests::{
    app::ECHO,
    host::HostId,
    link::Link,
    raw::RawPeer,
    world::{World, ms, secs},
};

/// Says all it has to say as soon as it may: opens a stream, sends a frame, and ends its direction.
struct Hasty;

const HASTY: ProtocolName = ProtocolName::from_static("/hasty/1.0.0");
static HASTY_SPEC: [ProtocolSpec; 1] =
    [ProtocolSpec { name: HASTY, framing: Framing::Varint { max: 10 }, inbound_per_peer: 0 }];

impl Behaviour for Hasty {
    fn name(&self) -> &'static str {
        "hasty"
    }
    fn protocols(&self) -> &[ProtocolSpec] {
        &HASTY_SPEC
    }
    fn handle(&mut self, cx: &mut Context<'_>, input: Input) {
        if let Input::Reply(_, Reply::Stream(Ok(stream))) = input {
            cx.send(stream, Bytes::from_static(b"1"));
            cx.finish(stream);
        }
    }
}

/// A node, and a remote that speaks for itself, a millisecond from each other.
struct Stage {
    w: World,
    node: HostId,
    remote: RawPeer,
    connection: ConnectionId,
}

impl Stage {
    fn new() -> Self {
        let mut w = World::new(1).quiet();
        w.default_link(Link::latency(Duration::from_micros(500)));
        let node = w.host("A").configure(|config| config.behaviours.push(Box::new(Hasty))).start();
        let remote = RawPeer::connect(&mut w, "Remote", node);
        let connection = w.connections(node, remote.host())[0];
        Self { w, node, remote, connection }
    }

    /// The node opens a stream and writes `data`; returns it and its number at the remote.
    fn open(&mut self, data: &'static [u8]) -> (StreamId, u64) {
        let connection = self.connection;
        let stream = self.w.command(self.node, |node, now| {
            let stream = node.open(now, connection, &ECHO).expect("a stream");
            assert_eq!(node.write(now, stream, &mut Bytes::from_static(data)), Ok(data.len()));
            stream
        });
        self.run(ms(100));
        (stream, *self.remote.opened().last().expect("it was opened"))
    }

    fn run(&mut self, duration: Duration) {
        self.remote.run(&mut self.w, duration);
    }

    fn finish(&mut self, stream: StreamId) {
        self.w.command(self.node, |node, now| node.finish(now, stream)).expect("it can be finished");
        self.run(ms(100));
    }

    fn stop(&mut self, stream: StreamId) {
        self.w.command(self.node, |node, now| node.stop(now, stream));
        self.run(ms(100));
    }

    /// The remote answers the proposal.
    fn answer(&mut self, number: u64, protocol: &str) {
        let mut lines = BytesMut::new();
        encode_line("/multistream/1.0.0", &mut lines);
        encode_line(protocol, &mut lines);
        self.remote.write(&self.w, number, lines.freeze());
    }

    /// What the remote reads: all bytes that are there, and whether they are followed by the end.
    fn read(&mut self, number: u64) -> Result<(Vec<u8>, bool), ReadError> {
        let mut bytes = Vec::new();
        loop {
            match self.remote.read(&self.w, number)? {
                Read::Data(data) => bytes.extend_from_slice(&data),
                Read::Blocked => return Ok((bytes, false)),
                Read::Finished => return Ok((bytes, true)),
            }
        }
    }

    /// Whether the end is there, and nothing else.
    fn is_ended(&mut self, number: u64) -> bool {
        let (bytes, ended) = self.read(number).expect("the stream is there");
        assert!(bytes.is_empty());
        ended
    }

    fn was_told(&self, stream: StreamId, wanted: &AppStreamEvent) -> bool {
        let is_it = |event: &Event| matches!(event, Event::Stream { stream: s, event } if *s == stream && event == wanted);
        self.w[self.node].log().iter().any(|(_, event)| is_it(event))
    }
}

#[test]
fn the_end_of_a_stream_waits_for_the_agreement_and_its_bytes_do_not() {
    for data in [&b""[..], b"1"] {
        let mut stage = Stage::new();
        let (stream, number) = stage.open(data);
        stage.finish(stream);
        let (sent, ended) = stage.read(number).unwrap();
        assert_eq!(&sent[sent.len() - data.len()..], data, "it leaves with the proposal");
        assert!(!ended, "{} bytes: ended before the agreement", data.len());
        stage.run(secs(5));
        assert!(!stage.is_ended(number), "{} bytes: ended before the agreement", data.len());
        stage.answer(number, ECHO.as_str());
        stage.run(ms(100));
        assert!(stage.is_ended(number));
        assert!(stage.was_told(stream, &AppStreamEvent::Agreed));
    }
}

#[test]
fn the_end_waits_a_little_longer_for_the_handler_of_an_unknown_library_or_its_first_word() {
    for speaks in [false, true] {
        let mut stage = Stage::new();
        let (stream, number) = stage.open(b"1");
        stage.finish(stream);
        stage.read(number).unwrap();
        stage.answer(number, ECHO.as_str());
        stage.run(ms(20));
        assert!(!stage.is_ended(number), "its handler may not listen yet");
        if speaks {
            stage.remote.write(&stage.w, number, &b"1"[..]);
            stage.run(ms(5));
            let read = stage.w.command(stage.node, |node, now| node.read(now, stream, 10));
            assert_eq!(read, Ok(node::Read::Data(Bytes::from_static(b"1"))));
            stage.run(ms(5));
        } else {
            stage.run(ms(40));
        }
        assert!(stage.is_ended(number), "speaks: {speaks}");
    }
}

#[test]
fn the_end_of_a_behaviour_s_stream_waits_as_well() {
    for speaks in [false, true] {
        let mut stage = Stage::new();
        let connection = stage.connection;
        stage.w.command(stage.node, |node, now| {
            node.with(now, |_: &mut Hasty, cx| cx.open(connection, HASTY)).expect("is there")
        });
        stage.run(secs(5));
        let number = *stage.remote.opened().last().expect("it was opened");
        let (flight, ended) = stage.read(number).unwrap();
        assert_eq!(flight, b"\x13/multistream/1.0.0\n\x0d/hasty/1.0.0\n\x011");
        assert!(!ended, "ended before the agreement");
        stage.answer(number, HASTY.as_str());
        stage.run(ms(20));
        assert!(!stage.is_ended(number), "its handler may not listen yet");
        if speaks {
            stage.remote.write(&stage.w, number, &b"\x011"[..]);
            stage.run(ms(5));
        } else {
            stage.run(ms(40));
        }
        assert!(stage.is_ended(number), "speaks: {speaks}");
    }
}

#[test]
fn an_end_that_comes_later_than_that_is_not_held() {
    let mut stage = Stage::new();
    let (stream, number) = stage.open(b"1");
    stage.answer(number, ECHO.as_str());
    stage.run(ms(100));
    stage.read(number).unwrap();
    stage.w.command(stage.node, |node, now| node.finish(now, stream)).unwrap();
    stage.run(ms(5));
    assert!(stage.is_ended(number));
}

#[test]
fn no_end_is_held_beyond_the_agreement_for_a_library_that_is_known_to_hear_it() {
    let mut w = World::new(1).quiet();
    w.default_link(Link::latency(Duration::from_micros(500)));
    let [a, b] = ["A", "B"].map(|name| w.host(name).start());
    let connection = w.dial(a, b);
    w.run_for(secs(1));
    for bytes in [0, 1] {
        let began = w.now();
        w.echo(a, connection, bytes);
        let took = w.now().saturating_duration_since(began);
        assert!(took <= ms(5), "{bytes} bytes took {took:?}");
    }
}

#[test]
fn giving_up_reading_waits_for_the_agreement_too() {
    let mut stage = Stage::new();
    let before = stage.w.node(stage.node).stats().streams;
    let (stream, number) = stage.open(b"1");
    stage.stop(stream);
    assert!(!stage.remote.was_stopped(number), "it could not even agree then");
    stage.finish(stream);
    stage.answer(number, ECHO.as_str());
    stage.run(ms(100));
    assert!(stage.remote.was_stopped(number));
    assert!(stage.read(number).unwrap().1, "and the end came");
    assert_eq!(stage.w.node(stage.node).stats().streams, before);
}

#[test]
fn a_remote_that_never_agrees_meets_the_time_limit_of_negotiation() {
    for stops in [false, true] {
        let mut stage = Stage::new();
        let (stream, number) = stage.open(b"");
        if stops {
            stage.stop(stream);
        }
        stage.finish(stream);
        stage.read(number).unwrap();
        stage.run(secs(10));
        assert!(stage.was_told(stream, &AppStreamEvent::Reset(StreamFault::NegotiationTimeout)));
        assert!(matches!(stage.read(number), Err(ReadError::Reset(_))));
    }
}

#[test]
fn a_refusal_is_told_although_nothing_was_to_be_read() {
    let mut stage = Stage::new();
    let (stream, number) = stage.open(b"1");
    stage.stop(stream);
    stage.finish(stream);
    stage.answer(number, "na");
    stage.run(ms(100));
    assert!(stage.was_told(stream, &AppStreamEvent::Reset(StreamFault::Unsupported)));
}

#[test]
fn a_reset_does_not_wait() {
    let mut stage = Stage::new();
    let (stream, number) = stage.open(b"1");
    stage.finish(stream);
    stage.w.command(stage.node, |node, now| node.reset(now, stream));
    stage.run(ms(100));
    let outcome = stage.read(number);
    assert!(matches!(outcome, Err(ReadError::Reset(_))), "{outcome:?}");
    assert!(stage.remote.was_stopped(number));
}

#[test]
fn a_stream_over_a_circuit_ends_with_nothing_and_with_a_byte() {
    let mut w = World::new(1).quiet();
    let r = w.host("R").relay().start();
    let [a, b] = ["A", "B"].map(|name| w.host(name).start());
    w.reserve(b, r);
    let circuit = w.dial_via(a, r, b);
    for bytes in [0, 1, 0, 1] {
        w.echo(a, circuit, bytes);
    }
    w.shutdown();
    w.assert_empty();
}

/// A dialer's first flight: the proposal of something that nobody speaks.
fn foreign_proposal() -> BytesMut {
    let mut flight = BytesMut::new();
    encode_line("/multistream/1.0.0", &mut flight);
    encode_line("/foreign/1.0.0", &mut flight);
    flight
}

/// What is behind a proposal in the same flight: nothing, a line that is cut off, no line, and more than a line may have.
const BEHIND: [&[u8]; 5] = [b"", b"1", b"\x03abc", b"\xff\xff\xff\xff\xff", &[b'x'; 5000]];

#[test]
fn a_refusal_reaches_a_dialer_whatever_came_behind_its_proposal() {
    for ends in [true, false] {
        for behind in BEHIND {
            let mut stage = Stage::new();
            let mut flight = foreign_proposal();
            flight.extend_from_slice(behind);
            let number = stage.remote.open(&stage.w, flight.freeze());
            if ends {
                stage.remote.finish(&stage.w, number);
            }
            stage.run(ms(100));
            let (said, ended) = stage.read(number).expect("not reset");
            assert_eq!(said, b"\x13/multistream/1.0.0\n\x03na\n", "{} bytes", behind.len());
            assert!(ended || !ends, "{} bytes: it is over", behind.len());
            stage.run(secs(20));
            assert_eq!(stage.w.node(stage.node).stats().streams, 0, "it is given up at last");
        }
    }
}

#[test]
fn who_talks_on_after_a_refusal_is_reset_at_last_and_counted() {
    let mut stage = Stage::new();
    let mut flight = foreign_proposal();
    flight.extend_from_slice(b"\x03abc");
    let number = stage.remote.open(&stage.w, flight.freeze());
    for _ in 0..200 {
        stage.remote.write(&stage.w, number, &[7; 1000][..]);
        stage.run(ms(100));
    }
    assert!(stage.remote.was_stopped(number));
    assert_eq!(stage.w.node(stage.node).counters().get("streams.refused.talked_on"), 1);
}

#[test]
fn a_node_hears_that_another_does_not_speak_a_protocol_although_data_and_end_came_with_the_proposal() {
    const FOREIGN: ProtocolName = ProtocolName::from_static("/foreign/1.0.0");
    let mut w = World::new(1).quiet();
    let r = w.host("R").relay().start();
    let speaks = |config: &mut node::Config| {
        config.app_protocols.push(node::AppProtocol { name: FOREIGN, inbound_per_peer: 8 });
    };
    let a = w.host("A").configure(speaks).start();
    let b = w.host("B").start();
    w.reserve(b, r);
    w.run_for(secs(1));
    let circuit = w.dial_via(a, r, b);
    let direct = w.dial(a, r);
    w.run_for(secs(5));
    for connection in [circuit, direct] {
        for behind in BEHIND {
            let stream = w.command(a, |node, now| {
                let stream = node.open(now, connection, &FOREIGN).expect("a stream");
                assert_eq!(node.write(now, stream, &mut Bytes::from_static(behind)), Ok(behind.len()));
                node.finish(now, stream).expect("it is there");
                stream
            });
            let fault = w.wait_for(a, "the refusal", |event| match event {
                Event::Stream { stream: s, event: AppStreamEvent::Reset(fault) } if *s == stream => {
                    Some(fault.clone())
                }
                _ => None,
            });
            assert_eq!(fault, StreamFault::Unsupported, "{} bytes", behind.len());
        }
    }
    w.shutdown();
    w.assert_empty();
}
