//! A rendezvous point alone, and what clients of all kinds say to it.

use std::time::Duration;

use peerless_core::{
    behaviour::{Input, PeerEvent, StreamEvent},
    ids::{ConnectionId, StreamId},
    info::Info,
    node::Event as NodeEvent,
    protocols::rendezvous::{
        self, RENDEZVOUS, Status,
        server::{Config, Event, Limits, Server},
    },
};
use peerless_proto::{
    PeerId,
    pb::{
        self, Message as _,
        rendezvous::{
            Discover, Message, MessageType, PeerInfo, Register, RegisterRecord, RegisterResponse, Unregister,
        },
    },
    peer_record::{Dialect, PeerRecord},
};
use peerless_tests::solo::{Solo, address, identity, peer};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// A point with its defaults.
pub(crate) fn point() -> Solo<Server> {
    point_with(Config::default())
}

/// A point with these limits.
pub(crate) fn limited(limits: Limits) -> Solo<Server> {
    point_with(Config { limits, ..Config::default() })
}

pub(crate) fn point_with(config: Config) -> Solo<Server> {
    let mut solo = Solo::new("R", Server::new(config));
    solo.input(Input::Addresses);
    solo
}

/// A signed record of `name`.
pub(crate) fn signed(name: &str, seq: u64, dialect: Dialect) -> Vec<u8> {
    let addresses = vec![address(&format!("/ip4/192.0.2.7/udp/{}/quic-v1", 1000 + seq % 50_000))];
    let record = PeerRecord { peer: peer(name), seq, addresses };
    record.seal(identity(name).keypair(), dialect).expect("a record").encode()
}

/// The specification's record of `name`.
pub(crate) fn record(name: &str) -> Vec<u8> {
    signed(name, 1, Dialect::Standard)
}

/// What py-libp2p and berty's go send.
pub(crate) fn peer_info(name: &str) -> Vec<u8> {
    let addrs = vec![address("/ip4/192.0.2.7/tcp/1").to_vec()];
    PeerInfo { id: Some(peer(name).to_bytes()), addrs }.encode_to_vec()
}

pub(crate) fn register(ns: &str, record: Vec<u8>, ttl: Option<u64>) -> Message {
    Message {
        r#type: Some(MessageType::Register as i32),
        register: Some(Register {
            ns: Some(ns.into()),
            signed_peer_record: Some(record),
            ttl,
            other_record: None,
        }),
        ..Default::default()
    }
}

pub(crate) fn unregister(ns: &str) -> Message {
    Message {
        r#type: Some(MessageType::Unregister as i32),
        unregister: Some(Unregister { ns: Some(ns.into()), id: None }),
        ..Default::default()
    }
}

pub(crate) fn discover(ns: Option<&str>, limit: Option<u64>, cookie: Option<&[u8]>) -> Message {
    let cookie = cookie.map(<[u8]>::to_vec);
    let discover = Discover { ns: ns.map(Into::into), limit, cookie, any_dialect: None };
    Message { r#type: Some(MessageType::Discover as i32), discover: Some(discover), ..Default::default() }
}

/// Says something on a new stream and takes the answer, if there is one. Who only discovers tells nothing of itself then.
pub(crate) fn ask(solo: &mut Solo<Server>, connection: ConnectionId, message: &Message) -> Option<Message> {
    let stream = solo.accept(connection, &RENDEZVOUS);
    solo.receive(stream, message.encode_to_vec());
    let mut answer = take(solo, stream);
    if answer.is_none() && message.discover.is_some() {
        identified(solo, connection, &library(""));
        answer = take(solo, stream);
    }
    solo.finish(stream);
    answer
}

/// What identify tells of a program with this agent.
pub(crate) fn library(agent: &str) -> Info {
    Info {
        public_key: identity("guest").keypair().public(),
        protocols: Vec::new(),
        listen_addresses: Vec::new(),
        certified: false,
        observed: None,
        agent: agent.into(),
        protocol_version: "ipfs/0.1.0".into(),
    }
}

/// Identify tells what is behind a connection.
pub(crate) fn identified(solo: &mut Solo<Server>, connection: ConnectionId, info: &Info) {
    let peer = peer("guest");
    solo.input(Input::Peer(PeerEvent::Identified { connection, peer, info: info.clone().into() }));
}

/// Takes what was said on a stream, and lets it leave.
pub(crate) fn take(solo: &mut Solo<Server>, stream: StreamId) -> Option<Message> {
    let mut sent = solo.sent(stream);
    assert!(sent.len() <= 1, "one answer at a time");
    solo.input(Input::Stream(stream, StreamEvent::Drained));
    sent.pop().map(|frame| {
        assert!(frame.len() < 1 << 20, "an answer of {} bytes", frame.len());
        pb::decode(&frame).expect("a message")
    })
}

/// The answer to a registration.
pub(crate) fn registered(answer: Option<Message>) -> (Status, Option<u64>) {
    let RegisterResponse { status, ttl, .. } =
        answer.and_then(|answer| answer.register_response).expect("an answer to a registration");
    (status.into(), ttl)
}

/// Registers `name` under its record, for two hours.
pub(crate) fn enlist(solo: &mut Solo<Server>, connection: ConnectionId, name: &str, ns: &str) {
    let answer = ask(solo, connection, &register(ns, record(name), None));
    assert_eq!(registered(answer), (Status::Ok, Some(7200)), "{name} in {ns}");
}

/// What a discovery found: peers with the seconds they have left, and the cookie.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) status: Status,
    pub(crate) peers: Vec<(PeerId, String, u64)>,
    pub(crate) cookie: Vec<u8>,
}

impl Found {
    pub(crate) fn ids(&self) -> Vec<PeerId> {
        self.peers.iter().map(|(peer, ..)| *peer).collect()
    }
}

pub(crate) fn find(
    solo: &mut Solo<Server>,
    connection: ConnectionId,
    ns: Option<&str>,
    limit: Option<u64>,
    cookie: Option<&[u8]>,
) -> Found {
    let answer = ask(solo, connection, &discover(ns, limit, cookie)).expect("an answer");
    let answer = answer.discover_response.expect("an answer to a discovery");
    let peers = answer.registrations.into_iter().map(|registration| {
        let record = registration.signed_peer_record.expect("a record");
        let ns = registration.ns.expect("a namespace");
        (owner(&record).0, ns, registration.ttl.expect("a time"))
    });
    Found { status: answer.status.into(), peers: peers.collect(), cookie: answer.cookie.unwrap_or_default() }
}

/// Whose record it is, and of what kind: `None` is unsigned.
pub(crate) fn owner(record: &[u8]) -> (PeerId, Option<Dialect>) {
    match RegisterRecord::decode(record).expect("a record") {
        RegisterRecord::SignedPeerRecord(envelope) => {
            (PeerRecord::open(&envelope).expect("a good signature").peer, Dialect::of(&envelope))
        }
        RegisterRecord::PeerInfo { peer, .. } => (peer, None),
    }
}

/// Takes the point's events.
pub(crate) fn events(solo: &mut Solo<Server>) -> Vec<Event> {
    let events = solo.events().into_iter();
    events
        .map(|event| match event {
            NodeEvent::Rendezvous(rendezvous::Event::Server(event)) => event,
            other => panic!("not the point's: {other:?}"),
        })
        .collect()
}

/// A new point with what this one has stored, `pause` later on the wall clock.
pub(crate) fn restart(old: &Solo<Server>, pause: Duration) -> Solo<Server> {
    let mut solo = Solo::seeded("R", Server::new(Config::default()), [8; 32]);
    solo.rows = old.rows.clone();
    let passed = old.unix().saturating_duration_since(peerless_tests::solo::EPOCH);
    solo.advance(passed + pause);
    solo.input(Input::Addresses);
    solo
}
