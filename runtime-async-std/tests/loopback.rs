//! Nodes of this runtime over real sockets on the loopback interface.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::{future::Future, io::ErrorKind, pin::pin, task::Poll, time::Duration};

use async_io::Timer;
use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
use peerless_async_std::{Config, Failed, Handle, OpenToError, Stream, spawn};
use peerless_core::{
    Multiaddr,
    errors::OpenError,
    identity::Identity,
    ids::ConnectionId,
    names::ProtocolName,
    node::{self, AppProtocol, Event},
    protocols::rendezvous::{
        Status,
        client::{Client, Error, Query, Registration},
    },
    rng::{Rng, RngCore},
};

const ECHO: ProtocolName = ProtocolName::from_static("/echo/1.0.0");
/// Accepted and left to the test.
const RAW: ProtocolName = ProtocolName::from_static("/raw/1.0.0");
/// Nobody answers it.
const UNKNOWN: ProtocolName = ProtocolName::from_static("/unknown/1.0.0");
/// More than anything here takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn start(seed: u8, config: Config) -> Handle {
    let mut node = node::Config::new(Identity::generate(&mut Rng::new([seed; 32])));
    node.quic.handshake_timeout = Duration::from_secs(2);
    node.app_protocols = [(ECHO, 1024), (RAW, 1024), (UNKNOWN, 0)]
        .map(|(name, inbound_per_peer)| AppProtocol { name, inbound_per_peer })
        .into();
    spawn(node, config).unwrap()
}

fn loopback() -> Config {
    Config { listen: vec!["127.0.0.1:0".parse().unwrap()], ..Config::default() }
}

fn address(handle: &Handle) -> Multiaddr {
    let address = handle.with(|node, _| node.addresses().advertised().remove(0));
    address.with_p2p(handle.peer()).unwrap()
}

/// A server that echoes, and a client connected to it.
struct Pair {
    server: Handle,
    client: Handle,
    connection: ConnectionId,
}

impl Pair {
    async fn new() -> Self {
        let (server, client) = (start(1, loopback()), start(2, loopback()));
        let connection = client.dial(None, &[address(&server)]).await.unwrap();
        Self { server, client, connection }
    }

    async fn echoing() -> Self {
        let pair = Self::new().await;
        let server = pair.server.clone();
        async_std::task::spawn(async move {
            while let Some(stream) = server.accept().await {
                async_std::task::spawn(echo(stream));
            }
        });
        pair
    }

    async fn open(&self, protocol: &ProtocolName) -> Stream {
        loop {
            match self.client.open(self.connection, protocol).await {
                // More streams are granted as those before are used.
                Err(Failed::Node(OpenError::StreamLimit)) => Timer::after(Duration::from_millis(1)).await,
                opened => return opened.unwrap(),
            };
        }
    }

    async fn end(self) {
        future::zip(self.client.shutdown(), self.server.shutdown()).await;
        for handle in [&self.client, &self.server] {
            let stats = handle.stats();
            assert_eq!(stats.waiting, 0, "{stats:?}");
        }
    }
}

async fn echo(mut stream: Stream) -> std::io::Result<()> {
    let mut chunk = vec![0; 64 << 10];
    loop {
        let read = stream.read(&mut chunk).await?;
        if read == 0 {
            return stream.close().await;
        }
        stream.write_all(&chunk[..read]).await?;
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    async_std::task::block_on(patiently(test))
}

async fn patiently<T>(test: impl Future<Output = T>) -> T {
    let late = async {
        Timer::after(PATIENCE).await;
        panic!("nothing came of it");
    };
    future::or(test, late).await
}

/// Polls once, and drops it.
async fn begin_and_drop<T>(future: impl Future<Output = T>) {
    let mut future = pin!(future);
    future::poll_fn(|cx| {
        assert!(future.as_mut().poll(cx).is_pending(), "it did not have to wait");
        Poll::Ready(())
    })
    .await;
}

/// Waits until the counts of what a node and its runtime hold are as wanted: streams and dials of the node, streams
/// and waiting futures of the runtime.
async fn settle(handle: &Handle, wanted: [usize; 4]) {
    let mut counts = [0; 4];
    for _ in 0..200 {
        let node = handle.with(|node, _| node.stats());
        let stats = handle.stats();
        counts = [node.streams, node.dials, stats.streams, stats.waiting];
        if counts == wanted {
            return;
        }
        Timer::after(Duration::from_millis(20)).await;
    }
    panic!("{counts:?} instead of {wanted:?}");
}

async fn event<T>(
    events: &mut async_channel::Receiver<Event>,
    mut find: impl FnMut(Event) -> Option<T>,
) -> T {
    loop {
        if let Some(found) = find(events.recv().await.expect("the node is alive")) {
            return found;
        }
    }
}

#[test]
fn bytes_come_back_as_they_were_sent() {
    run(async {
        const SIZE: usize = 4 << 20;
        let pair = Pair::echoing().await;
        let mut sent = vec![0; SIZE];
        Rng::new([7; 32]).fill_bytes(&mut sent);
        let (mut reader, mut writer) = futures_lite::io::split(pair.open(&ECHO).await);
        let mut got = Vec::new();
        let write = async {
            writer.write_all(&sent).await?;
            writer.close().await
        };
        let (written, read) = future::zip(write, reader.read_to_end(&mut got)).await;
        written.unwrap();
        assert_eq!(read.unwrap(), SIZE);
        assert!(got == sent, "other bytes came back");
        drop((reader, writer));
        settle(&pair.client, [0; 4]).await;
        settle(&pair.server, [0; 4]).await;
        pair.end().await;
    });
}

#[test]
fn a_ping_is_answered_and_one_to_nobody_is_an_error() {
    run(async {
        let pair = Pair::new().await;
        assert!(pair.client.ping(pair.connection).await.unwrap() > Duration::ZERO);
        let (client, connection) = (pair.client.clone(), pair.connection);
        client.close(connection);
        assert!(matches!(client.ping(connection).await, Err(Failed::Node(_))));
        assert!(matches!(client.open(connection, &ECHO).await, Err(Failed::Node(OpenError::NoConnection))));
        pair.end().await;
        assert_eq!(client.dial(None, &[]).await, Err(Failed::Stopped));
    });
}

#[test]
fn a_dropped_dial_is_given_up() {
    run(async {
        let client = start(2, loopback());
        // Bound, and silent.
        let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = nobody.local_addr().unwrap().port();
        let address: Multiaddr = format!("/ip4/127.0.0.1/udp/{port}/quic-v1").parse().unwrap();
        let counts = || (client.with(|node, _| node.stats().dials), client.stats().waiting);
        let addresses = [address];
        let mut dial = Box::pin(client.dial(None, &addresses));
        assert!(future::poll_once(&mut dial).await.is_none());
        assert_eq!(counts(), (1, 1));
        drop(dial);
        assert_eq!(counts(), (0, 0));
        // The answer to a question that nobody asks any more changes nothing.
        let unresolved = ["/dns4/peer.invalid/udp/1/quic-v1".parse().unwrap()];
        let mut dial = Box::pin(client.dial(None, &unresolved));
        assert!(future::poll_once(&mut dial).await.is_none());
        drop(dial);
        assert_eq!(counts(), (0, 0));
        Timer::after(Duration::from_millis(200)).await;
        assert_eq!(counts(), (0, 0));
        client.shutdown().await;
    });
}

#[test]
fn a_dropped_reservation_is_given_up() {
    run(async {
        let client = start(2, loopback());
        let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = nobody.local_addr().unwrap().port();
        let relay = Identity::generate(&mut Rng::new([3; 32])).peer();
        let address: Multiaddr = format!("/ip4/127.0.0.1/udp/{port}/quic-v1/p2p/{relay}").parse().unwrap();
        let mut reserve = Box::pin(client.reserve(address));
        assert!(future::poll_once(&mut reserve).await.is_none());
        assert_eq!((client.with(|node, _| node.stats().dials), client.stats().waiting), (1, 1));
        drop(reserve);
        assert_eq!(client.stats().waiting, 0);
        // The dial that it began ends when the handshake has had its time.
        settle(&client, [0; 4]).await;
        client.shutdown().await;
    });
}

#[test]
fn a_dropped_ping_and_a_dropped_read_leave_nothing() {
    run(async {
        let pair = Pair::new().await;
        begin_and_drop(pair.client.ping(pair.connection)).await;
        let mut stream = pair.open(&RAW).await;
        stream.write_all(b"early").await.unwrap();
        begin_and_drop(stream.read(&mut [0; 16])).await;
        let mut far = pair.server.accept().await.unwrap();
        far.read_exact(&mut [0; 5]).await.unwrap();
        // The read that was dropped took nothing.
        far.write_all(b"late").await.unwrap();
        let mut got = [0; 4];
        stream.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"late");
        drop(stream);
        let error = far.read(&mut got).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        drop(far);
        settle(&pair.client, [0; 4]).await;
        settle(&pair.server, [0; 4]).await;
        pair.end().await;
    });
}

#[test]
fn what_was_written_before_a_close_arrives_though_the_stream_is_dropped_at_once() {
    run(async {
        let pair = Pair::new().await;
        let mut stream = pair.open(&RAW).await;
        let sent = vec![5; 200_000];
        stream.write_all(&sent).await.unwrap();
        stream.close().await.unwrap();
        drop(stream);
        let mut far = pair.server.accept().await.unwrap();
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        assert!(got == sent, "{} bytes came", got.len());
        assert_eq!(far.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        drop(far);
        settle(&pair.client, [0; 4]).await;
        settle(&pair.server, [0; 4]).await;
        pair.end().await;
    });
}

#[test]
fn a_protocol_that_the_remote_does_not_speak_is_an_error_of_the_stream() {
    run(async {
        let pair = Pair::new().await;
        let mut stream = pair.open(&UNKNOWN).await;
        assert_eq!(stream.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(stream.write(b"x").await.unwrap_err().kind(), ErrorKind::Unsupported);
        drop(stream);
        settle(&pair.client, [0; 4]).await;
        pair.end().await;
    });
}

#[test]
fn a_consumer_that_does_not_read_stalls_only_its_own_stream() {
    run(async {
        let pair = Pair::new().await;
        let mut stalled = pair.open(&RAW).await;
        // Until nothing more fits.
        let chunk = vec![1; 64 << 10];
        let mut written = 0;
        while let Some(result) = future::or(async { Some(stalled.write(&chunk).await) }, async {
            Timer::after(Duration::from_secs(1)).await;
            None
        })
        .await
        {
            written += result.unwrap();
        }
        assert!((1 << 20..64 << 20).contains(&written), "{written} bytes fit");
        let far_stalled = pair.server.accept().await.unwrap();
        let mut stream = pair.open(&RAW).await;
        stream.write_all(b"through").await.unwrap();
        stream.close().await.unwrap();
        let mut far = pair.server.accept().await.unwrap();
        let mut got = String::new();
        far.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "through");
        // And the stalled one goes on as soon as it is read.
        let (mut reader, mut count) = (far_stalled, 0);
        let mut buffer = vec![0; 64 << 10];
        while count < written {
            count += reader.read(&mut buffer).await.unwrap();
        }
        stalled.write_all(b"more").await.unwrap();
        drop((stream, far, stalled, reader));
        settle(&pair.client, [0; 4]).await;
        settle(&pair.server, [0; 4]).await;
        pair.end().await;
    });
}

#[test]
fn a_thousand_streams_at_once() {
    run(async {
        let pair = Pair::echoing().await;
        let mut streams = Vec::new();
        for n in 0..1000_u32 {
            let mut stream = pair.open(&ECHO).await;
            stream.write_all(&n.to_be_bytes()).await.unwrap();
            streams.push(stream);
            // No more than the remote lets negotiate at once.
            if n % 100 == 99 {
                streams[n as usize].read_exact(&mut [0]).await.unwrap();
            }
        }
        assert_eq!(pair.client.stats().streams, 1000);
        for (n, stream) in (0..).zip(&mut streams) {
            stream.close().await.unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).await.unwrap();
            assert!(u32::to_be_bytes(n).ends_with(&got) && got.len() >= 3, "{got:?} from stream {n}");
        }
        drop(streams);
        settle(&pair.client, [0; 4]).await;
        settle(&pair.server, [0; 4]).await;
        pair.end().await;
    });
}

#[test]
fn a_shutdown_with_data_in_flight_ends_everything_on_both_sides() {
    run(async {
        let pair = Pair::echoing().await;
        let mut events = pair.server.events();
        let mut stream = pair.open(&ECHO).await;
        let flood = async {
            let chunk = vec![3; 64 << 10];
            loop {
                if let Err(error) = stream.write_all(&chunk).await {
                    return error.kind();
                }
            }
        };
        let shutdown = async {
            Timer::after(Duration::from_millis(200)).await;
            pair.client.shutdown().await;
        };
        let (kind, ()) = future::zip(flood, shutdown).await;
        assert_eq!(kind, ErrorKind::ConnectionAborted);
        let disconnected = event(&mut events, |event| match event {
            Event::Disconnected { reason, .. } => Some(reason.to_string()),
            _ => None,
        });
        assert!(disconnected.await.contains("closed by the remote"));
        drop((stream, events));
        settle(&pair.server, [0; 4]).await;
        pair.end().await;
    });
}

#[test]
fn events_that_nobody_takes_are_dropped_oldest_first_and_counted() {
    run(async {
        let server = start(1, loopback());
        let client = start(2, Config { queue: 4, ..loopback() });
        let connection = client.dial(None, &[address(&server)]).await.unwrap();
        for _ in 0..10 {
            client.ping(connection).await.unwrap();
        }
        assert!(client.stats().events_missed >= 6);
        let events = client.events();
        for _ in 0..4 {
            assert!(matches!(events.recv().await, Ok(Event::Ping(_))));
        }
        assert!(future::poll_once(events.recv()).await.is_none());
        client.shutdown().await;
        assert!(matches!(events.recv().await, Ok(Event::Disconnected { .. })));
        while let Ok(event) = events.recv().await {
            assert!(matches!(event, Event::ListenClosed { .. }), "{event:?}");
        }
        server.shutdown().await;
    });
}

#[test]
fn the_node_ends_with_its_last_handle() {
    run(async {
        let pair = Pair::new().await;
        let mut events = pair.server.events();
        let stream = pair.open(&RAW).await;
        drop(pair.client);
        // A stream is a handle too.
        let connection = server_side(&pair.server).await;
        assert!(pair.server.ping(connection).await.is_ok());
        drop(stream);
        event(&mut events, |event| matches!(event, Event::Disconnected { .. }).then_some(())).await;
        pair.server.shutdown().await;
    });
}

/// The server's end of the connection, of which the client knows first.
async fn server_side(server: &Handle) -> ConnectionId {
    loop {
        if let Some(id) = server.with(|node, _| node.connections().iter().next().map(|c| c.id)) {
            return id;
        }
        async_std::task::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn peers_register_at_a_point_and_are_found_there() {
    run(async {
        let mut node = node::Config::new(Identity::generate(&mut Rng::new([9; 32])));
        node.rendezvous_server = Some(Default::default());
        let point = spawn(node, loopback()).unwrap();
        let (server, client) = (start(1, loopback()), start(2, loopback()));
        let wanted = || Registration::new(address(&point), "app");
        let query = || Query::new(address(&point), "app");

        begin_and_drop(server.register(wanted())).await;
        begin_and_drop(client.discover(query())).await;
        for handle in [&server, &client] {
            let left = handle.with(|node, _| node.behaviour::<Client>().map(Client::len));
            assert_eq!((left, handle.stats().waiting), (Some(0), 0), "what is dropped is given up");
        }
        assert_eq!(server.register(wanted()).await, Ok(Duration::from_secs(7200)));
        let found = client.discover(query()).await.unwrap().peers.remove(0);
        assert_eq!(found.peer, server.peer());
        client.dial(Some(found.peer), &found.addresses).await.unwrap();

        let short = Registration { ttl: Duration::from_secs(60), ..wanted() };
        let refused = client.register(short).await;
        assert!(
            matches!(refused, Err(Failed::Node(Error::Refused { status: Status::InvalidTtl, .. }))),
            "{refused:?}"
        );
        let nobody = Registration { point: "/ip4/127.0.0.1/udp/1/quic-v1".parse().unwrap(), ..wanted() };
        assert_eq!(client.register(nobody).await, Err(Failed::Node(Error::NoPeer)));
        server.shutdown().await;
        assert_eq!(client.discover(query()).await.unwrap().peers, [], "who is gone is not found");
        future::zip(client.shutdown(), point.shutdown()).await;
    });
}

#[test]
fn a_stream_to_a_peer_is_opened_over_a_connection_that_is_dialled_if_there_is_none() {
    run(async {
        let (server, client) = (start(1, loopback()), start(2, loopback()));
        let (peer, at) = (server.peer(), [address(&server)]);
        let nowhere = client.open_to(peer, &[], &RAW).await;
        assert!(matches!(nowhere, Err(Failed::Node(OpenToError::Dial(_)))));
        let mut first = client.open_to(peer, &at, &RAW).await.unwrap();
        first.write_all(b"x").await.unwrap();
        server.accept().await.unwrap();
        let second = client.open_to(peer, &at, &RAW).await.unwrap();
        assert_eq!(first.info().connection, second.info().connection);
        let unknown = client.open_to(peer, &at, &ProtocolName::from_static("/never/1.0.0")).await;
        assert!(matches!(unknown, Err(Failed::Node(OpenToError::Open(OpenError::UnknownProtocol(_))))));
        drop((first, second));
        client.shutdown().await;
        server.shutdown().await;
    });
}
