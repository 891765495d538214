//! What one event costs a node that has many connections, while their number doubles: what grows with it shows here.

// A bench is what reads the clock.
#![allow(clippy::disallowed_methods)]

use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use cpu_time::ThreadTime;
use peerless_core::{
    Multiaddr, PeerId,
    behaviour::{Input, StreamEvent},
    identity::Identity,
    ids::{ConnectionId, Id as _, StreamId},
    protocols::identify::{self, Identify},
    rng::{HashKeys, Rng},
    swarm::{
        health::{Health, HealthConfig, Situation},
        pruner::PrunerConfig,
        resources::Limits,
        table::Connections,
        tags,
    },
    time::Instant,
};
use peerless_proto::{
    keys::{decode_peer_id, encode_public_key},
    pb::{Message as _, identify::Identify as Message},
};
use peerless_tests::{
    bare::Bare,
    world::{World, secs},
};
use serde_json::json;

#[derive(Parser)]
#[command(name = "growth", about = "What one event costs beside 1250, 2500, 5000 ... connections")]
struct Options {
    /// The last number of connections
    #[arg(long, default_value_t = 40_000)]
    most: usize,
    /// The last number of connections between whole nodes, each of which takes some hundred kilobytes
    #[arg(long, default_value_t = 2000)]
    nodes: usize,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Of so many events the mean is taken.
const EVENTS: u32 = 200;

fn main() {
    let options = Options::parse();
    let sizes = |first: usize, most: usize| {
        std::iter::successors(Some(first), |n| Some(2 * n)).take_while(move |n| *n <= most)
    };
    let tell = |what: &str, connections: usize, each: Duration| match options.json {
        true => {
            println!("{}", json!({"event": what, "connections": connections, "us": each.as_secs_f64() * 1e6}))
        }
        false => println!("{what:32} {connections:8} connections {:10.2} us", each.as_secs_f64() * 1e6),
    };
    for connections in sizes(1250, options.most) {
        tell("identify push", connections, push(connections));
        tell("choice of a dial's addresses", connections, look_up(connections));
        tell("health of what is due", connections, health(connections));
    }
    let mut crowd = Crowd::new();
    for connections in sizes(125, options.nodes) {
        let each = crowd.grow(connections);
        tell("connection, everybody spared", connections, each);
    }
}

fn nth_peer(n: usize) -> PeerId {
    let mut multihash = vec![0x12, 32];
    multihash.extend([0; 24]);
    multihash.extend((n as u64).to_be_bytes());
    decode_peer_id(&multihash).expect("a SHA-256 digest is a peer id")
}

fn nth_address(n: usize) -> Multiaddr {
    let [_, b, c, d] = (n as u32).to_be_bytes();
    format!("/ip4/81.{b}.{c}.{d}/udp/4001/quic-v1").parse().expect("a multiaddr")
}

/// A peer tells where it sees us, somewhere else each time.
fn push(connections: usize) -> Duration {
    let mut bare = Bare::new(Identify::new(identify::Config::default()));
    (1..connections).for_each(|n| _ = bare.connect(nth_peer(n), nth_address(n)));
    let identity = Identity::generate(&mut Rng::new([9; 32]));
    let mut spent = Duration::ZERO;
    for n in 0..EVENTS {
        // A peer may push thirty times a minute on a connection.
        let connection = bare.connect(identity.peer(), nth_address(0));
        let local = ([192, 0, 2, 1], 4001).into();
        bare.connections.set_socket(connection, Some(local));
        let seen: Multiaddr = format!("/ip4/82.0.0.1/udp/{}/quic-v1", 1 + n).parse().expect("a multiaddr");
        let message = Message {
            public_key: Some(encode_public_key(&identity.public())),
            observed_addr: Some(seen.to_vec()),
            ..Message::default()
        };
        let (stream, peer) = (StreamId::from_parts(n, 1), identity.peer());
        let accepted = StreamEvent::Accepted { connection, peer, protocol: identify::PUSH_PROTOCOL };
        let frame = StreamEvent::Frame(Bytes::from(message.encode_to_vec()));
        let begun = ThreadTime::now();
        for event in [accepted, frame, StreamEvent::Finished] {
            bare.input(Input::Stream(stream, event));
        }
        spent += begun.elapsed();
        bare.disconnect(connection);
    }
    assert_eq!(bare.counters.get("identify.push.received"), u64::from(EVENTS));
    spent / EVENTS
}

/// Whether the Internet works over IPv6, which none of the connections shows.
fn look_up(connections: usize) -> Duration {
    let keys = HashKeys::new(&mut Rng::new([3; 32]));
    let mut table = Connections::new(keys);
    for n in 0..connections {
        table.insert_with(|id| peerless_tests::bare::inbound(id, nth_peer(n), nth_address(n), Instant::ZERO));
    }
    let begun = ThreadTime::now();
    let crossing = (0..EVENTS).filter(|_| std::hint::black_box(&table).cross_internet(true)).count();
    assert_eq!(crossing, 0);
    begun.elapsed() / EVENTS
}

/// The turn in which the health of one connection is due.
fn health(connections: usize) -> Duration {
    let mut health = Health::new(HealthConfig { enabled: true, ..HealthConfig::default() });
    let at = |n: usize| Instant::from_nanos(1_000_000 * n as u64);
    let interval = HealthConfig::default().interval;
    (0..connections).for_each(|n| health.connected(at(n), ConnectionId::from_parts(n as u32, 0)));
    let begun = ThreadTime::now();
    for n in 0..EVENTS as usize {
        let now = at(n) + interval;
        while let Some(connection) = health.pop_due(now) {
            let situation = Situation { connection, is_used: false, is_protected: false, siblings: 1 };
            health.look(now, &situation);
        }
    }
    begun.elapsed() / EVENTS
}

/// A node above its high water mark, all of whose peers are protected, and the peers. What is measured is all of them.
struct Crowd {
    world: World,
    node: peerless_tests::host::HostId,
    size: usize,
}

impl Crowd {
    fn new() -> Self {
        let mut world = World::new(1).quiet();
        let node = world.host("node").configure(|config| {
            config.swarm.limits = Limits::unlimited();
            config.swarm.pruner = PrunerConfig { low_water: 10, high_water: 20, ..PrunerConfig::default() };
        });
        Self { node: node.start(), world, size: 0 }
    }

    /// What each of the connections costs with which there are so many.
    fn grow(&mut self, connections: usize) -> Duration {
        let mut spent = Duration::ZERO;
        let new = connections - self.size;
        for n in self.size..connections {
            let host = self.world.host(format!("{n}")).start();
            let peer = self.world[host].peer();
            let protect = |tags: &mut tags::Tags, now| tags.protect(now, peer, tags::RESERVATION);
            self.world.command(self.node, |node, now| node.tags(now, protect));
            let begun = ThreadTime::now();
            self.world.dial(host, self.node);
            spent += begun.elapsed();
        }
        // For identify.
        self.world.run_for(secs(1));
        self.size = connections;
        spent / new as u32
    }
}
