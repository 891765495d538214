//! Nodes on threads of their own, over real sockets on the loopback interface.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests fail, have threads and read clocks"
)]

use std::{
    io::{self, ErrorKind, Read, Write},
    net::UdpSocket,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use peerless_core::{
    Multiaddr,
    errors::{DialError, OpenError},
    identity::Identity,
    ids::ConnectionId,
    names::ProtocolName,
    node::{self, AppProtocol, Event},
    protocols::{
        relay::{client::ReserveError, hop},
        rendezvous::client::{Query, Registration},
    },
    rng::{Rng, RngCore},
};
use peerless_mio::{
    HandleError, RuntimeConfig,
    blocking::{Handle, Stream, spawn},
};

const ECHO: ProtocolName = ProtocolName::from_static("/echo/1.0.0");
/// Accepted and left to the test.
const RAW: ProtocolName = ProtocolName::from_static("/raw/1.0.0");
/// Nobody answers it.
const UNKNOWN: ProtocolName = ProtocolName::from_static("/unknown/1.0.0");
/// More than anything here takes on a slow machine.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));
/// For what must not come.
const MOMENT: Option<Duration> = Some(Duration::from_millis(200));

fn config(seed: u8) -> node::Config {
    let mut node = node::Config::new(Identity::generate(&mut Rng::new([seed; 32])));
    node.app_protocols = [(ECHO, 1024), (RAW, 1024), (UNKNOWN, 0)]
        .map(|(name, inbound_per_peer)| AppProtocol { name, inbound_per_peer })
        .into();
    node
}

fn start(node: node::Config) -> Handle {
    let listen = vec!["127.0.0.1:0".parse().unwrap()];
    spawn(node, RuntimeConfig { listen, ..RuntimeConfig::default() }).unwrap()
}

fn address(handle: &Handle) -> Multiaddr {
    handle.advertised().unwrap().remove(0).with_p2p(handle.peer()).unwrap()
}

/// A server, and a client connected to it.
struct Pair {
    server: Handle,
    client: Handle,
    connection: ConnectionId,
}

impl Pair {
    fn new() -> Self {
        let (server, client) = (start(config(1)), start(config(2)));
        let connection = client.dial(None, &[address(&server)], PATIENCE).unwrap();
        Self { server, client, connection }
    }

    /// A stream, with something written so that the server sees it, and the server's end.
    fn stream(&self) -> (Stream, Stream) {
        let mut near = self.client.open(self.connection, &RAW).unwrap();
        near.write_all(b"x").unwrap();
        let mut far = self.server.accept(PATIENCE).unwrap();
        far.read_exact(&mut [0]).unwrap();
        (near, far)
    }

    /// Nothing is left of what was open.
    fn settle(&self) {
        settle(&self.client, [0; 4]);
        settle(&self.server, [0; 4]);
    }
}

/// Waits until the counts of what a node and its handles hold are as wanted: streams and dials of the node, streams and
/// waiting calls of the handles.
fn settle(handle: &Handle, wanted: [usize; 4]) {
    let start = Instant::now();
    loop {
        let (node, stats) = (handle.runtime().call(|node, _| node.stats()).unwrap(), handle.stats());
        let counts = [node.streams, node.dials, stats.streams, stats.waiting];
        if counts == wanted {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{counts:?} instead of {wanted:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn kind<T>(result: io::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn bytes_pass_both_ways_at_once() {
    const SIZE: usize = 8 << 20;
    let pair = Pair::new();
    let server = pair.server.clone();
    let echo = thread::spawn(move || {
        let stream = server.accept(PATIENCE).unwrap();
        let copied = io::copy(&mut &stream, &mut &stream).unwrap();
        stream.finish().unwrap();
        copied
    });
    let stream = Arc::new(pair.client.open(pair.connection, &ECHO).unwrap());
    let mut sent = vec![0; SIZE];
    Rng::new([7; 32]).fill_bytes(&mut sent);
    let (writer, bytes) = (Arc::clone(&stream), sent.clone());
    let write = thread::spawn(move || {
        (&*writer).write_all(&bytes).unwrap();
        writer.finish().unwrap();
    });
    let mut got = Vec::new();
    (&*stream).read_to_end(&mut got).unwrap();
    assert!(got == sent, "{} bytes came back", got.len());
    write.join().unwrap();
    assert_eq!(echo.join().unwrap(), SIZE as u64);
    drop(stream);
    pair.settle();
}

#[test]
fn a_read_that_times_out_loses_nothing() {
    let pair = Pair::new();
    let (near, mut far) = pair.stream();
    assert_eq!(kind(near.set_read_timeout(Some(Duration::ZERO))), Some(ErrorKind::InvalidInput));
    near.set_read_timeout(MOMENT).unwrap();
    let (start, mut buffer) = (Instant::now(), [0; 16]);
    assert_eq!(kind((&near).read(&mut buffer)), Some(ErrorKind::TimedOut));
    assert!((MOMENT.unwrap()..PATIENCE.unwrap()).contains(&start.elapsed()));
    far.write_all(b"late").unwrap();
    near.set_read_timeout(PATIENCE).unwrap();
    (&near).read_exact(&mut buffer[..4]).unwrap();
    assert_eq!(&buffer[..4], b"late");
    // The end comes again and again.
    far.finish().unwrap();
    far.finish().unwrap();
    assert_eq!((&near).read(&mut buffer).unwrap(), 0);
    assert_eq!((&near).read(&mut buffer).unwrap(), 0);
    drop((near, far));
    pair.settle();
}

#[test]
fn a_reader_that_stops_stalls_its_own_stream_and_nothing_is_held_for_it() {
    let pair = Pair::new();
    let (mut stalled, mut far_stalled) = pair.stream();
    stalled.set_write_timeout(MOMENT).unwrap();
    let (chunk, mut written) = (vec![1; 64 << 10], 0);
    let error = loop {
        match stalled.write(&chunk) {
            Ok(count) => written += count,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!((1 << 20..64 << 20).contains(&written), "{written} bytes fit");
    // Its neighbour goes on.
    let (mut near, mut far) = pair.stream();
    near.write_all(b"through").unwrap();
    near.finish().unwrap();
    let mut got = String::new();
    far.read_to_string(&mut got).unwrap();
    assert_eq!(got, "through");
    // And so does the stalled one, as soon as it is read.
    let reader = thread::spawn(move || {
        let (mut buffer, mut count) = (vec![0; 64 << 10], 0);
        loop {
            match far_stalled.read(&mut buffer).unwrap() {
                0 => return count,
                read => count += read,
            }
        }
    });
    stalled.set_write_timeout(PATIENCE).unwrap();
    stalled.write_all(&chunk).unwrap();
    stalled.finish().unwrap();
    assert_eq!(reader.join().unwrap(), written + chunk.len());
    drop((near, far, stalled));
    pair.settle();
}

#[test]
fn the_kind_of_an_error_tells_what_happened() {
    let pair = Pair::new();
    let mut buffer = [0; 16];
    // Reset by the remote, while we wait.
    let (near, far) = pair.stream();
    let waiting = thread::spawn(move || kind((&near).read(&mut [0; 16])));
    thread::sleep(Duration::from_millis(50));
    drop(far);
    assert_eq!(waiting.join().unwrap(), Some(ErrorKind::ConnectionReset));
    // The remote has finished and reads no more.
    let (mut near, far) = pair.stream();
    far.finish().unwrap();
    drop(far);
    assert_eq!(near.read(&mut buffer).unwrap(), 0);
    let start = Instant::now();
    while near.write(b"x").is_ok() {
        assert!(start.elapsed() < Duration::from_secs(20), "the stop does not arrive");
    }
    assert_eq!(kind(near.write(b"x")), Some(ErrorKind::BrokenPipe));
    drop(near);
    // We have finished.
    let (mut near, far) = pair.stream();
    near.finish().unwrap();
    assert_eq!(kind(near.write(b"x")), Some(ErrorKind::BrokenPipe));
    far.reset();
    drop(near);
    // A protocol that nobody speaks.
    let mut unknown = pair.client.open(pair.connection, &UNKNOWN).unwrap();
    assert_eq!(kind(unknown.read(&mut buffer)), Some(ErrorKind::Unsupported));
    assert_eq!(kind(unknown.write(b"x")), Some(ErrorKind::Unsupported));
    drop(unknown);
    settle(&pair.client, [0; 4]);
    // The connection goes, while we wait and for later.
    let (near, far) = pair.stream();
    let waiting = thread::spawn(move || {
        let kinds = [kind((&far).read(&mut [0; 16])), kind((&far).read(&mut [0; 16]))];
        (kinds, kind((&far).write(b"x")))
    });
    thread::sleep(Duration::from_millis(50));
    pair.client.close(pair.connection);
    let aborted = Some(ErrorKind::ConnectionAborted);
    assert_eq!(waiting.join().unwrap(), ([aborted, aborted], aborted));
    while !matches!(pair.client.next_event(PATIENCE).unwrap(), Event::Disconnected { .. }) {}
    assert_eq!(kind((&near).write(b"x")), aborted);
    let error = pair.client.open(pair.connection, &RAW).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotConnected);
    assert_eq!(error.get_ref().unwrap().downcast_ref(), Some(&OpenError::NoConnection));
    assert_eq!(kind(pair.client.ping(pair.connection, PATIENCE)), Some(ErrorKind::NotConnected));
    drop(near);
    pair.settle();
}

#[test]
fn a_dial_that_takes_too_long_is_given_up() {
    let client = start(config(2));
    // Bound, and silent.
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent: Multiaddr =
        format!("/ip4/127.0.0.1/udp/{}/quic-v1", nobody.local_addr().unwrap().port()).parse().unwrap();
    assert_eq!(kind(client.dial(None, &[silent], MOMENT)), Some(ErrorKind::TimedOut));
    settle(&client, [0; 4]);
    // Nothing to dial is an error of another kind, with the node's own words inside.
    let error = client.dial(None, &[], PATIENCE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.get_ref().unwrap().is::<DialError>());
    let someone_else = address(&start(config(3)));
    let server = start(config(1));
    let wrong: Multiaddr = server.advertised().unwrap().remove(0);
    let wrong = wrong.with_p2p(someone_else.iter().find_map(peer_id).unwrap()).unwrap();
    assert_eq!(kind(client.dial(None, &[wrong], PATIENCE)), Some(ErrorKind::PermissionDenied));
    settle(&client, [0; 4]);
}

fn peer_id(protocol: multiaddr::Protocol<'_>) -> Option<peerless_core::PeerId> {
    match protocol {
        multiaddr::Protocol::P2p(peer) => Some(peer),
        _ => None,
    }
}

#[test]
fn waiting_for_streams_and_events_ends_in_time_and_with_the_node() {
    let pair = Pair::new();
    assert_eq!(kind(pair.server.accept(MOMENT)), Some(ErrorKind::TimedOut));
    while pair.server.next_event(MOMENT).is_ok() {}
    assert!(pair.client.ping(pair.connection, PATIENCE).unwrap() > Duration::ZERO);
    // Streams that nobody accepts cost nothing for good.
    let mut unaccepted = pair.client.open(pair.connection, &RAW).unwrap();
    unaccepted.write_all(b"x").unwrap();
    let (server, events) = (pair.server.clone(), pair.server.clone());
    settle(&server, [1, 0, 1, 0]);
    drop(server.accept(PATIENCE).unwrap());
    let accepting = thread::spawn(move || kind(server.accept(None)));
    let waiting = thread::spawn(move || {
        loop {
            match events.next_event(None) {
                Ok(_) => {}
                Err(error) => return error.kind(),
            }
        }
    });
    thread::sleep(Duration::from_millis(50));
    pair.server.shutdown();
    assert_eq!(accepting.join().unwrap(), Some(ErrorKind::NotConnected));
    assert_eq!(waiting.join().unwrap(), ErrorKind::NotConnected);
    assert_eq!(kind(pair.server.dial(None, &[], None)), Some(ErrorKind::NotConnected));
    // The peer was told.
    let closed = loop {
        match pair.client.next_event(PATIENCE).unwrap() {
            Event::Disconnected { reason, .. } => break reason.to_string(),
            _ => continue,
        }
    };
    assert!(closed.contains("closed by the remote"), "{closed}");
    drop(unaccepted);
    settle(&pair.client, [0; 4]);
}

#[test]
fn the_node_ends_with_its_last_handle() {
    let Pair { server, client, connection } = Pair::new();
    let runtime = client.runtime().clone();
    let mut stream = client.open(connection, &RAW).unwrap();
    drop(client);
    // A stream is a handle too.
    stream.write_all(b"x").unwrap();
    drop(server.accept(PATIENCE).unwrap());
    drop(stream);
    let start = Instant::now();
    while runtime.call(|_, _| ()) != Err(HandleError::Gone) {
        assert!(start.elapsed() < Duration::from_secs(20), "the node lives on");
        thread::sleep(Duration::from_millis(10));
    }
    settle(&server, [0; 4]);
}

#[test]
fn more_threads_than_the_command_queue_has_room_for() {
    let listen = vec!["127.0.0.1:0".parse().unwrap()];
    let narrow = RuntimeConfig { listen, command_queue: 1, ..RuntimeConfig::default() };
    let (server, client) = (spawn(config(1), narrow).unwrap(), start(config(2)));
    let connection = client.dial(None, &[address(&server)], PATIENCE).unwrap();
    let pair = Pair { server, client, connection };
    let echoing: Vec<_> = (0..16)
        .map(|_| {
            let server = pair.server.clone();
            thread::spawn(move || {
                let stream = server.accept(PATIENCE).unwrap();
                io::copy(&mut &stream, &mut &stream).unwrap();
                stream.finish().unwrap();
            })
        })
        .collect();
    let asking: Vec<_> = (0..16_u8)
        .map(|n| {
            let client = pair.client.clone();
            thread::spawn(move || {
                let mut stream = client.open(connection, &ECHO).unwrap();
                stream.set_read_timeout(PATIENCE).unwrap();
                for round in 0..50 {
                    stream.write_all(&[n, round]).unwrap();
                    let mut back = [0; 2];
                    stream.read_exact(&mut back).unwrap();
                    assert_eq!(back, [n, round]);
                }
                stream.finish().unwrap();
                assert_eq!(stream.read(&mut [0]).unwrap(), 0);
            })
        })
        .collect();
    for thread in asking.into_iter().chain(echoing) {
        thread.join().unwrap();
    }
    pair.settle();
}

#[test]
fn a_reservation_leads_to_us_through_the_relay() {
    let mut relay = config(9);
    relay.hop = Some(hop::Config::default());
    let (relay, server, client) = (start(relay), start(config(1)), start(config(2)));
    let addresses = server.reserve(address(&relay), PATIENCE).unwrap();
    let connection = client.dial(None, &addresses[..1], PATIENCE).unwrap();
    let mut near = client.open(connection, &RAW).unwrap();
    near.write_all(b"through a relay").unwrap();
    near.finish().unwrap();
    let (mut far, mut got) = (server.accept(PATIENCE).unwrap(), String::new());
    far.read_to_string(&mut got).unwrap();
    assert_eq!(got, "through a relay");

    let error = client.reserve("/ip4/127.0.0.1/udp/1/quic-v1".parse().unwrap(), PATIENCE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(error.get_ref().unwrap().downcast_ref(), Some(&ReserveError::NoPeer));
    // The server is no relay.
    assert!(client.reserve(address(&server), PATIENCE).is_err());
    drop((near, far));
    // The circuit is a stream too.
    client.close(connection);
    settle(&client, [0; 4]);
}

#[test]
fn a_peer_is_found_at_a_rendezvous_point() {
    let mut point = config(9);
    point.rendezvous_server = Some(Default::default());
    let (point, server, client) = (start(point), start(config(1)), start(config(2)));
    let granted = server.register(Registration::new(address(&point), "app"), PATIENCE).unwrap();
    assert_eq!(granted, Duration::from_secs(7200));
    let found = client.discover(Query::new(address(&point), "app"), PATIENCE).unwrap().peers.remove(0);
    assert_eq!(found.peer, server.peer());
    client.dial(Some(found.peer), &found.addresses, PATIENCE).unwrap();

    let nobody = Registration::new("/ip4/127.0.0.1/udp/1/quic-v1".parse().unwrap(), "app");
    let error = client.register(nobody, PATIENCE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    // The server is no point.
    let error = client.discover(Query::new(address(&server), "app"), PATIENCE).unwrap_err();
    assert!([ErrorKind::Unsupported, ErrorKind::ConnectionReset].contains(&error.kind()), "{error}");
    settle(&client, [0; 4]);
}

#[test]
fn a_stream_to_a_peer_is_opened_over_a_connection_that_is_dialled_if_there_is_none() {
    let (server, client) = (start(config(1)), start(config(2)));
    let (peer, at) = (server.peer(), [address(&server)]);
    assert!(client.open_to(peer, &[], &RAW, PATIENCE).is_err(), "nobody knows where it is");
    let mut first = client.open_to(peer, &at, &RAW, PATIENCE).unwrap();
    first.write_all(b"x").unwrap();
    drop(server.accept(PATIENCE).unwrap());
    let second = client.open_to(peer, &[], &RAW, PATIENCE).unwrap();
    assert_eq!(first.info().connection, second.info().connection);
    let never = ProtocolName::from_static("/never/1.0.0");
    let error = client.open_to(peer, &at, &never, PATIENCE).unwrap_err();
    assert!(error.get_ref().unwrap().is::<OpenError>());
    drop((first, second));
    client.shutdown();
    server.shutdown();
}
