//! A million operations of hostile clients, and a crowd of honest ones: what a point's memory does.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::time::Duration;

use bytes::Bytes;
use peerless_core::{
    Multiaddr, PeerId,
    identity::Identity,
    ids::ConnectionId,
    protocols::rendezvous::{
        Status,
        server::{Config, Limits, Server},
    },
    rng::{Rng, RngCore as _},
};
use peerless_proto::{
    PeerRecord,
    pb::{
        self, Message as _,
        rendezvous::{Discover, Message, MessageType, PeerInfo, Register, Unregister},
    },
    peer_record::Dialect,
};
use peerless_tests::{bare::Bare, machine::resident};

const OPERATIONS: usize = 1_000_000;

struct Attacker {
    peer: PeerId,
    host: Multiaddr,
    connection: ConnectionId,
    records: [Vec<u8>; 3],
}

impl Attacker {
    fn new(n: usize, point: &mut Bare<Server>) -> Self {
        let identity = Identity::generate(&mut Rng::new([n as u8; 32]));
        let peer = identity.peer();
        let host: Multiaddr = format!("/ip4/198.51.100.{}/udp/1/quic-v1", n % 8).parse().unwrap();
        let record = PeerRecord { peer, seq: 1, addresses: vec![host.clone()] };
        let sealed = |dialect| record.seal(identity.keypair(), dialect).unwrap().encode();
        let unsigned = PeerInfo { id: Some(peer.to_bytes()), addrs: vec![host.to_vec()] }.encode_to_vec();
        let records = [sealed(Dialect::Standard), sealed(Dialect::RoutingState), unsigned];
        let connection = point.connect(peer, host.clone());
        Self { peer, host, connection, records }
    }

    fn reconnect(&mut self, point: &mut Bare<Server>) {
        point.disconnect(self.connection);
        self.connection = point.connect(self.peer, self.host.clone());
    }
}

fn register(ns: String, record: Vec<u8>, ttl: Option<u64>) -> Bytes {
    let register = Register { ns: Some(ns), signed_peer_record: Some(record), ttl, other_record: None };
    let kind = Some(MessageType::Register as i32);
    Message { r#type: kind, register: Some(register), ..Default::default() }.encode_to_vec().into()
}

fn discover(ns: Option<String>, limit: u64, cookie: Option<Vec<u8>>) -> Bytes {
    let discover = Discover { ns, limit: Some(limit), cookie, any_dialect: Some(true) };
    let kind = Some(MessageType::Discover as i32);
    Message { r#type: kind, discover: Some(discover), ..Default::default() }.encode_to_vec().into()
}

/// One hostile thing or another.
fn attack(dice: &mut Rng, attackers: &mut [Attacker], point: &mut Bare<Server>) {
    // Some are busier than others, so that each limit is met.
    let me = dice.below(attackers.len() as u64) + 1;
    let me = dice.below(me) as usize;
    let other = dice.below(attackers.len() as u64) as usize;
    let random = |dice: &mut Rng| format!("{:x}", dice.next_u64());
    let frame = match dice.below(16) {
        // Random names, which must leave nothing behind.
        0..=4 => discover(Some(random(dice)), dice.next_u64(), None),
        5 => discover(None, 1 + dice.below(4), None),
        // Forged cookies.
        6..=7 => discover(Some("ns".into()), 1, Some(dice.bytes::<56>().to_vec())),
        // As many namespaces as there are numbers, with every kind of record and of time.
        8..=11 => {
            let ttls = [None, Some(0), Some(1), Some(7200), Some(72 * 3600), Some(u64::MAX)];
            let ttl = ttls[dice.below(6) as usize];
            let record = attackers[me].records[dice.below(3) as usize].clone();
            register(random(dice), record, ttl)
        }
        // The same again and again.
        12 => register("ns".into(), attackers[me].records[2].clone(), None),
        // Those of others, and forged ones; few, as each is verified.
        13 if dice.below(16) == 0 => {
            let mut record = attackers[other].records[0].clone();
            let at = dice.below(record.len() as u64) as usize;
            record[at] ^= 1 << dice.below(8);
            register(random(dice), record, None)
        }
        13 => register(random(dice), attackers[other].records[2].clone(), None),
        14 => {
            let unregister = Unregister { ns: Some("ns".into()), id: Some(attackers[other].peer.to_bytes()) };
            let kind = Some(MessageType::Unregister as i32);
            Message { r#type: kind, unregister: Some(unregister), ..Default::default() }
                .encode_to_vec()
                .into()
        }
        _ => dice.bytes::<32>().to_vec().into(),
    };
    point.ask(attackers[me].connection, frame);
    if dice.below(64) == 0 {
        attackers[me].reconnect(point);
    }
    if dice.below(16) == 0 {
        point.advance(Duration::from_millis(dice.below(2000)));
    }
}

/// (f) with everything else that a hostile client can think of.
#[test]
fn f_a_million_hostile_operations_leave_memory_flat() {
    let limits = Limits { max_registrations: 1000, max_per_peer: 100, max_per_ip: 150, ..Limits::default() };
    let mut point = Bare::new(Server::new(Config { limits: limits.clone(), ..Config::default() }));
    let mut dice = Rng::new([1; 32]);
    let mut attackers: Vec<_> = (0..32).map(|n| Attacker::new(n, &mut point)).collect();
    for _ in 0..OPERATIONS / 10 {
        attack(&mut dice, &mut attackers, &mut point);
    }
    let before = resident();
    for _ in OPERATIONS / 10..OPERATIONS {
        attack(&mut dice, &mut attackers, &mut point);
        assert!(point.behaviour.registrations() <= limits.max_registrations);
    }
    let grown = resident().saturating_sub(before);
    println!("grown by {} KiB; {:#?}", grown >> 10, point.counters);
    assert!(grown <= 4 << 20, "memory grew by {grown} bytes");
    for counter in ["full", "peer_full", "ip_full", "cookie", "ttl_short", "ttl_long", "foreign"] {
        let name = format!("rendezvous.refused.{counter}");
        assert!(point.counters.iter().any(|(found, n)| found == name && n > 0), "nobody met {name}");
    }
    // An honest client is served as ever, and everything goes in the end.
    let honest = Attacker::new(200, &mut point);
    let answer = point.ask(honest.connection, discover(Some("ns".into()), 10, None)).unwrap();
    let answer = pb::decode::<Message>(&answer).unwrap().discover_response.unwrap();
    assert_eq!(Status::from(answer.status), Status::Ok);
    for attacker in attackers.iter().chain([&honest]) {
        point.disconnect(attacker.connection);
    }
    point.advance(Duration::from_secs(73 * 3600));
    assert_eq!(point.behaviour.len(), 0);
}

#[test]
fn memory_grows_with_registrations_and_no_faster() {
    const PEERS: usize = 10_000;
    const NAMESPACES: usize = 10;
    let mut point = Bare::new(Server::new(Config { limits: Limits::unlimited(), ..Config::default() }));
    let host: Multiaddr = "/ip4/198.51.100.1/udp/1/quic-v1".parse().unwrap();
    let mut steps = Vec::new();
    let mut last = resident();
    for n in 0..PEERS {
        // Nobody verifies unsigned records, so that no time goes into making keys.
        let digest = Rng::new([7; 32]).fork(&n.to_string()).bytes::<32>();
        let peer = PeerId::from_bytes(&[&[0x12, 32][..], &digest].concat()).unwrap();
        let addrs = vec![host.to_vec(); 10];
        let record = PeerInfo { id: Some(peer.to_bytes()), addrs }.encode_to_vec();
        let connection = point.connect(peer, host.clone());
        for k in 0..NAMESPACES {
            point.ask(connection, register(format!("ns {}", (n / 100 + k) % 500), record.clone(), None));
        }
        point.disconnect(connection);
        if (n + 1) % (PEERS / 4) == 0 {
            let now = resident();
            steps.push(now.saturating_sub(last) / (PEERS / 4 * NAMESPACES));
            last = now;
        }
    }
    assert_eq!(point.behaviour.registrations(), PEERS * NAMESPACES);
    println!("bytes per registration, quarter by quarter: {steps:?}");
    let mean = steps.iter().sum::<usize>() / steps.len();
    assert!(mean <= 800, "{steps:?}");
    // Tables double now and then, so no quarter is like another; but the second half costs what the first did.
    assert!(steps[2] + steps[3] <= 2 * (steps[0] + steps[1]), "{steps:?}");
}
