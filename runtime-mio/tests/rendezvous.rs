//! A rendezvous point as a real process, killed while thousands register: what it had acknowledged is there afterwards.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
#![allow(clippy::disallowed_methods, reason = "real processes in real time")]

#[path = "rendezvous/full_disk.rs"]
mod full_disk;
#[cfg(target_os = "linux")]
#[path = "rendezvous/stalled_disk.rs"]
mod stalled_disk;

use std::{
    collections::{BTreeMap, VecDeque},
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use bytes::Bytes;
use peerless_core::{
    Multiaddr,
    identity::Identity,
    ids::{ConnectionId, StreamId},
    names::ProtocolName,
    node::{AppProtocol, AppStreamEvent, Config, Event, Read},
    rng::Rng,
};
use peerless_mio::{Runtime, RuntimeConfig};
use peerless_proto::{
    FrameDecoder, Framing, PeerRecord, encode_frame,
    pb::{
        self, Message as _,
        rendezvous::{Discover, DiscoverResponse, Message, MessageType, Register},
    },
    peer_record::Dialect,
};

/// More than anything here takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);
const RENDEZVOUS: ProtocolName = ProtocolName::from_static("/rendezvous/1.0.0");
const FRAMING: Framing = Framing::Varint { max: 1 << 20 };
const TOTAL: usize = 10_000;
const TTL: u64 = 7200;
/// Streams that are used at once, and requests on each that wait for their answers.
const STREAMS: usize = 8;
const DEPTH: usize = 8;

struct Point {
    child: Child,
    address: Multiaddr,
    /// Where it serves metrics.
    metrics: String,
    events: Receiver<serde_json::Value>,
}

impl Point {
    fn start(folder: &Path, port: u16) -> Self {
        Self::start_with(folder, port, &[])
    }

    /// With variables in its environment.
    fn start_with(folder: &Path, port: u16, env: &[(&str, &Path)]) -> Self {
        let command = format!(
            "--json --identity {0} rendezvous --listen /ip4/127.0.0.1/udp/{port}/quic-v1 --store {0}/store \
             --max-registrations-per-peer 0 --request-rate 0 --request-rate-per-ip 0 --metrics 127.0.0.1:0",
            folder.display()
        );
        let mut child = Command::new(env!("CARGO_BIN_EXE_peerless"))
            .args(command.split_whitespace())
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, events) = channel();
        // It must not be held up by a pipe that nobody reads.
        std::thread::spawn(move || {
            for line in lines {
                // The test may be over.
                let _ = sender.send(serde_json::from_str(&line.unwrap()).unwrap());
            }
        });
        let address = "/ip4/127.0.0.1/udp/1/quic-v1".parse().unwrap();
        let mut point = Self { child, address, metrics: String::new(), events };
        point.metrics = point.event("metrics")["address"].as_str().unwrap().into();
        point.address = point.event("listening")["address"].as_str().unwrap().parse().unwrap();
        point
    }

    /// The next event of that name; others are passed over.
    fn event(&self, name: &str) -> serde_json::Value {
        loop {
            let event = self.events.recv_timeout(PATIENCE).unwrap();
            if event["event"] == name {
                return event;
            }
        }
    }

    /// `SIGKILL`: it cannot even begin to tidy up.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Point {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A peer that says what it is told to on streams of its own.
struct Client {
    runtime: Runtime,
    connection: Option<ConnectionId>,
    record: Vec<u8>,
    frames: BTreeMap<StreamId, FrameDecoder>,
    answers: VecDeque<(StreamId, Message)>,
}

impl Client {
    fn new() -> Self {
        let identity = Identity::generate(&mut Rng::new([5; 32]));
        let addresses = vec!["/ip4/192.0.2.1/udp/1/quic-v1".parse().unwrap()];
        let record = PeerRecord { peer: identity.peer(), seq: 1, addresses };
        let record = record.seal(identity.keypair(), Dialect::Standard).unwrap().encode();
        let mut config = Config::new(identity);
        config.app_protocols = vec![AppProtocol { name: RENDEZVOUS, inbound_per_peer: 0 }];
        config.accept_inbound = false;
        let runtime = RuntimeConfig { listen: vec!["127.0.0.1:0".parse().unwrap()], ..Default::default() };
        let runtime = Runtime::new(config, runtime).unwrap();
        Self { runtime, connection: None, record, frames: BTreeMap::new(), answers: VecDeque::new() }
    }

    /// Turns until `done` says so, but no longer than patience lasts.
    fn until<T>(&mut self, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(value) = done(self) {
                return value;
            }
            assert!(Instant::now() < end, "nothing came");
            self.runtime.turn(Some(Duration::from_millis(100))).unwrap();
            while let Some(event) = self.runtime.poll_event() {
                self.on_event(&event);
            }
        }
    }

    fn on_event(&mut self, event: &Event) {
        match event {
            Event::Dialed { connection, .. } => self.connection = Some(*connection),
            Event::DialFailed { error, .. } => panic!("{error}"),
            Event::Disconnected { .. } => self.connection = None,
            Event::Stream { stream, event: AppStreamEvent::Readable } => {
                let (node, now) = self.runtime.node_mut();
                let frames = self.frames.get_mut(stream).unwrap();
                while let Ok(Read::Data(data)) = node.read(now, *stream, 1 << 16) {
                    frames.push(data);
                    while let Some(frame) = frames.next_frame().unwrap() {
                        self.answers.push_back((*stream, pb::decode(&frame).unwrap()));
                    }
                }
            }
            _ => {}
        }
    }

    fn connect(&mut self, point: &Point) {
        let (node, now) = self.runtime.node_mut();
        node.dial(now, None, std::slice::from_ref(&point.address));
        self.until(|client| client.connection);
    }

    fn open(&mut self) -> StreamId {
        let (node, now) = self.runtime.node_mut();
        let stream = node.open(now, self.connection.unwrap(), &RENDEZVOUS).unwrap();
        self.frames.insert(stream, FrameDecoder::new(FRAMING));
        stream
    }

    fn say(&mut self, stream: StreamId, message: &Message) {
        let mut frame: Bytes = encode_frame(FRAMING, &message.encode_to_vec());
        let (node, now) = self.runtime.node_mut();
        let len = frame.len();
        assert_eq!(node.write(now, stream, &mut frame).unwrap(), len, "requests are short");
    }

    fn register(&mut self, stream: StreamId, ns: String) {
        let register = Register {
            ns: Some(ns),
            signed_peer_record: Some(self.record.clone()),
            ttl: Some(TTL),
            other_record: None,
        };
        let kind = Some(MessageType::Register as i32);
        self.say(stream, &Message { r#type: kind, register: Some(register), ..Default::default() });
    }

    fn discover(&mut self, ns: Option<&str>, cookie: Vec<u8>) -> DiscoverResponse {
        let discover =
            Discover { ns: ns.map(Into::into), limit: None, cookie: Some(cookie), any_dialect: None };
        let kind = Some(MessageType::Discover as i32);
        let stream = self.open();
        self.say(stream, &Message { r#type: kind, discover: Some(discover), ..Default::default() });
        let (of, answer) = self.until(|client| client.answers.pop_front());
        assert_eq!(of, stream);
        let (node, now) = self.runtime.node_mut();
        node.reset(now, stream);
        answer.discover_response.unwrap()
    }
}

/// What of `TOTAL` was acknowledged, and when, until `enough` were and the point is killed.
fn register_and_kill(client: &mut Client, point: &mut Point, enough: usize) -> BTreeMap<String, Instant> {
    let mut acknowledged = BTreeMap::new();
    let mut wanted = (1..TOTAL).map(|n| format!("ns {n}"));
    let mut waiting: BTreeMap<StreamId, VecDeque<String>> =
        (0..STREAMS).map(|_| (client.open(), VecDeque::new())).collect();
    for (stream, asked) in &mut waiting {
        for ns in wanted.by_ref().take(DEPTH) {
            client.register(*stream, ns.clone());
            asked.push_back(ns);
        }
    }
    while acknowledged.len() < enough {
        let (stream, answer) = client.until(|client| client.answers.pop_front());
        let answer = answer.register_response.unwrap();
        assert_eq!((answer.status, answer.ttl), (Some(0), Some(TTL)), "{answer:?}");
        let asked = waiting.get_mut(&stream).unwrap();
        acknowledged.insert(asked.pop_front().unwrap(), Instant::now());
        if let Some(ns) = wanted.next() {
            client.register(stream, ns.clone());
            asked.push_back(ns);
        }
    }
    assert!(waiting.values().any(|asked| !asked.is_empty()), "killed in the middle of it");
    point.kill();
    // What had been said before it died counts too.
    let end = Instant::now() + Duration::from_millis(200);
    client.until(|client| {
        while let Some((stream, answer)) = client.answers.pop_front() {
            assert_eq!(answer.register_response.unwrap().status, Some(0));
            let ns = waiting.get_mut(&stream).unwrap().pop_front().unwrap();
            acknowledged.insert(ns, Instant::now());
        }
        (Instant::now() > end).then_some(())
    });
    acknowledged
}

/// Every registration, by its namespace, with the seconds that it has left.
fn all(client: &mut Client) -> BTreeMap<String, u64> {
    let (mut found, mut cookie) = (BTreeMap::new(), Vec::new());
    loop {
        let page = client.discover(None, cookie);
        assert_eq!(page.status, Some(0));
        if page.registrations.is_empty() {
            return found;
        }
        found.extend(page.registrations.into_iter().map(|found| (found.ns.unwrap(), found.ttl.unwrap())));
        cookie = page.cookie.unwrap();
    }
}

#[test]
fn what_was_acknowledged_before_kill_9_is_there_after_it_and_cookies_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut point = Point::start(folder.path(), 0);
    let port = peerless_proto::address::parse_quic_v1(&point.address).unwrap().0.port();
    let mut client = Client::new();
    client.connect(&point);
    let stream = client.open();
    client.register(stream, "before".into());
    let (_, answer) = client.until(|client| client.answers.pop_front());
    assert_eq!(answer.register_response.unwrap().status, Some(0));
    let cookies = [None, Some("before")].map(|ns| (ns, client.discover(ns, Vec::new()).cookie.unwrap()));

    let acknowledged = register_and_kill(&mut client, &mut point, TOTAL / 2);
    drop(client);

    let point = Point::start(folder.path(), port);
    let mut client = Client::new();
    client.connect(&point);
    let asked = Instant::now();
    let found = all(&mut client);
    let lost: Vec<_> = acknowledged.keys().filter(|ns| !found.contains_key(*ns)).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), acknowledged.len());
    assert!(found.len() <= acknowledged.len() + 1 + STREAMS * DEPTH, "and nothing was made up");
    for (ns, at) in &acknowledged {
        let passed = asked.duration_since(*at).as_secs();
        let left = found[ns];
        // It is rounded up, and was granted a little before it was acknowledged.
        assert!((TTL - passed - 30..=TTL - passed + 1).contains(&left), "{ns}: {left} after {passed} s");
    }
    for (ns, cookie) in cookies {
        let news = client.discover(ns, cookie);
        assert_eq!(news.status, Some(0), "a cookie from before is good");
        let all_new = news.registrations.iter().all(|found| found.ns.as_deref() != Some("before"));
        assert!(all_new && news.registrations.is_empty() == ns.is_some(), "and gives only what is new since");
    }
    println!("{} acknowledged before the kill, {} found after it", acknowledged.len(), found.len());
}
