//! A rendezvous point alone, without sockets and in virtual time: what each of its operations takes, and each registration.

// A bench is what reads the clock.
#![allow(clippy::disallowed_methods)]
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has nothing to say")]

use std::{alloc::System, time::Duration};

use bytes::Bytes;
use clap::Parser;
use cpu_time::ThreadTime;
use peerless_core::{
    Keypair, Multiaddr, PeerId,
    identity::Identity,
    ids::ConnectionId,
    protocols::rendezvous::server::{Config, Limits, Server},
    rng::Rng,
};
use peerless_proto::{
    PeerRecord,
    pb::{
        self, Message as _,
        rendezvous::{Discover, Message, MessageType, Register},
    },
    peer_record::Dialect,
};
use peerless_tests::bare::Bare;
use serde_json::json;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Namespaces in which each peer registers.
const PER_PEER: usize = 10;
/// Registrations in one namespace, but for the smallest points.
const PER_NAMESPACE: usize = 1000;

#[derive(Parser)]
#[command(
    name = "rendezvous_memory",
    about = "What a rendezvous point's own calls cost, in time and in memory"
)]
struct Options {
    /// How many registrations; one row for each
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000,1000000")]
    registrations: Vec<usize>,
    /// How often each operation is measured once the registrations are there
    #[arg(long, default_value_t = 10_000)]
    operations: usize,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Operations per second, and bytes.
struct Figures {
    registrations: usize,
    bytes: f64,
    register: f64,
    refresh: f64,
    new_record: f64,
    discover_one: f64,
    discover_page: f64,
    page: usize,
    poll: f64,
}

fn main() {
    let options = Options::parse();
    if !options.json {
        println!(
            "{:>13} {:>9} | {:>10} {:>10} {:>10} | {:>10} {:>14} {:>10}",
            "registrations",
            "bytes",
            "REGISTER",
            "refresh",
            "new record",
            "DISCOVER 1",
            "DISCOVER page",
            "poll"
        );
        println!(
            "{:>13} {:>9} | {:>10} {:>10} {:>10} | {:>10} {:>14} {:>10}",
            "", "each", "/s", "/s", "/s", "/s", "/s", "/s"
        );
    }
    for count in &options.registrations {
        let figures = measure((*count).max(PER_PEER), options.operations);
        report(&figures, options.json);
    }
}

struct Peer {
    keypair: Keypair,
    id: PeerId,
    record: Vec<u8>,
}

impl Peer {
    fn new(n: usize) -> Self {
        let identity = Identity::generate(&mut Rng::new([1; 32]).fork(&n.to_string()));
        let (keypair, id) = (identity.keypair().clone(), identity.peer());
        let mut peer = Self { keypair, id, record: Vec::new() };
        peer.record = peer.sign(1);
        peer
    }

    /// A record with four addresses.
    fn sign(&self, seq: u64) -> Vec<u8> {
        let addresses = (1..=4).map(|port| format!("/ip4/192.0.2.1/udp/{port}/quic-v1").parse().unwrap());
        let record = PeerRecord { peer: self.id, seq, addresses: addresses.collect() };
        record.seal(&self.keypair, Dialect::Standard).unwrap().encode()
    }
}

/// A point with so many registrations, and what it does with more requests.
fn measure(registrations: usize, operations: usize) -> Figures {
    let peers: Vec<Peer> = (0..registrations / PER_PEER).map(Peer::new).collect();
    let namespaces = (registrations / PER_NAMESPACE).max(PER_PEER);
    let groups = shuffles(peers.len());
    let place = |n: usize, k: usize| format!("namespace {k}.{}", groups[k][n] % (namespaces / PER_PEER));
    let limits = Limits::unlimited();
    let mut point = Bare::new(Server::new(Config { limits, ..Config::default() }));
    let host: Multiaddr = "/ip4/198.51.100.1/udp/1/quic-v1".parse().unwrap();

    let before = live();
    let mut took = Duration::ZERO;
    for (n, peer) in peers.iter().enumerate() {
        let connection = point.connect(peer.id, host.clone());
        for k in 0..PER_PEER {
            let frame = register(place(n, k), peer.record.clone());
            took += time(|| point.ask(connection, frame));
        }
        point.disconnect(connection);
    }
    let bytes = (live() - before) as f64 / registrations as f64;
    assert_eq!(point.behaviour.registrations(), registrations);
    let register_rate = registrations as f64 / took.as_secs_f64();
    let _pin = settle();

    let refresh = rate(operations, &mut point, &peers, &host, |point, connection, n, peer| {
        let frame = register(place(n, n % PER_PEER), peer.record.clone());
        time(|| point.ask(connection, frame))
    });
    let mut seq = 1;
    let new_record = rate(operations.min(2000), &mut point, &peers, &host, |point, connection, n, peer| {
        seq += 1;
        let frame = register(place(n, n % PER_PEER), peer.sign(seq));
        time(|| point.ask(connection, frame))
    });
    let discover_one = rate(operations, &mut point, &peers, &host, |point, connection, n, _| {
        let frame = discover(place(n, 0), 1, None);
        time(|| point.ask(connection, frame))
    });
    let mut page = 0;
    let discover_page = rate(operations.min(2000), &mut point, &peers, &host, |point, connection, n, _| {
        let frame = discover(place(n, 0), 1000, None);
        let begun = ThreadTime::now();
        let answer = point.ask(connection, frame);
        let took = begun.elapsed();
        page = found(answer).0;
        took
    });
    let poll = rate(operations, &mut point, &peers, &host, |point, connection, n, _| {
        let (_, cookie) = found(point.ask(connection, discover(place(n, 0), 1000, None)));
        let frame = discover(place(n, 0), 1000, Some(cookie));
        time(|| point.ask(connection, frame))
    });
    Figures {
        registrations,
        bytes,
        register: register_rate,
        refresh,
        new_record,
        discover_one,
        discover_page,
        page,
        poll,
    }
}

/// Numbers of the peers in another order for each of their namespaces: who meets whom in one is as in no other.
fn shuffles(peers: usize) -> Vec<Vec<usize>> {
    let mut rng = Rng::new([2; 32]);
    let shuffle = |_| {
        let mut numbers: Vec<usize> = (0..peers).collect();
        for left in (1..peers).rev() {
            numbers.swap(left, rng.below(left as u64 + 1) as usize);
        }
        numbers
    };
    (0..PER_PEER).map(shuffle).collect()
}

/// Leaves a hole in the heap for answers, below what is returned: else the allocator of the C library gives memory back to
/// the system after every large answer, which takes a small point longer than the answer itself.
fn settle() -> Option<Box<[u8]>> {
    let mut blocks: Vec<Box<[u8]>> = (0..64).map(|_| vec![1; 64 << 10].into()).collect();
    blocks.pop()
}

/// How many of these fit in a second of the processor's. Peers are taken from all over the table.
fn rate(
    operations: usize,
    point: &mut Bare<Server>,
    peers: &[Peer],
    host: &Multiaddr,
    mut operation: impl FnMut(&mut Bare<Server>, ConnectionId, usize, &Peer) -> Duration,
) -> f64 {
    let mut took = Duration::ZERO;
    for i in 0..operations {
        let n = i.wrapping_mul(7919) % peers.len();
        let connection = point.connect(peers[n].id, host.clone());
        took += operation(point, connection, n, &peers[n]);
        point.disconnect(connection);
    }
    operations as f64 / took.as_secs_f64()
}

fn time<T>(act: impl FnOnce() -> T) -> Duration {
    let begun = ThreadTime::now();
    let result = act();
    let took = begun.elapsed();
    drop(result);
    took
}

fn found(answer: Option<Bytes>) -> (usize, Vec<u8>) {
    let message: Message = pb::decode(&answer.unwrap()).unwrap();
    let answer = message.discover_response.unwrap();
    assert_eq!(answer.status, Some(0));
    (answer.registrations.len(), answer.cookie.unwrap())
}

fn register(ns: String, record: Vec<u8>) -> Bytes {
    let register = Register { ns: Some(ns), signed_peer_record: Some(record), ttl: None, other_record: None };
    let kind = Some(MessageType::Register as i32);
    Message { r#type: kind, register: Some(register), ..Default::default() }.encode_to_vec().into()
}

fn discover(ns: String, limit: u64, cookie: Option<Vec<u8>>) -> Bytes {
    let discover = Discover { ns: Some(ns), limit: Some(limit), cookie, any_dialect: None };
    let kind = Some(MessageType::Discover as i32);
    Message { r#type: kind, discover: Some(discover), ..Default::default() }.encode_to_vec().into()
}

/// Bytes allocated and not freed.
fn live() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

fn report(figures: &Figures, as_json: bool) {
    let Figures {
        registrations,
        bytes,
        register,
        refresh,
        new_record,
        discover_one,
        discover_page,
        page,
        poll,
    } = figures;
    if as_json {
        println!(
            "{}",
            json!({
                "registrations": registrations, "bytes_each": bytes, "register_per_second": register,
                "refresh_per_second": refresh, "new_record_per_second": new_record,
                "discover_one_per_second": discover_one, "discover_page_per_second": discover_page,
                "page": page, "poll_per_second": poll,
            })
        );
        return;
    }
    let page = format!("{discover_page:.0} ({page})");
    println!(
        "{registrations:>13} {bytes:>9.0} | {register:>10.0} {refresh:>10.0} {new_record:>10.0} | \
         {discover_one:>10.0} {page:>14} {poll:>10.0}"
    );
}
