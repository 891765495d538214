//! A rendezvous point in a node, asked over QUIC: what it stores and where, and long answers.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use peerless_core::{
    Multiaddr,
    behaviour::{Behaviour, Context, Input, Reply, StreamEvent},
    ids::ConnectionId,
    names::{Framing, ProtocolSpec},
    protocols::rendezvous::{RENDEZVOUS, Status, server},
    storage::{Rows, StorageAnswer, StorageId},
};
use peerless_proto::{
    PeerRecord,
    pb::{
        self, Message as _,
        rendezvous::{Discover, Message, MessageType, Register},
    },
    peer_record::Dialect,
};
use peerless_tests::{
    host::HostId,
    store::Store,
    world::{World, secs},
};

/// Says what it is told to, each on a stream of its own, and keeps the answers.
struct Asker {
    protocols: [ProtocolSpec; 1],
    asking: BTreeMap<peerless_core::ids::Token, Bytes>,
    answers: VecDeque<Bytes>,
}

impl Asker {
    fn new() -> Self {
        let framing = Framing::Varint { max: 1 << 20 };
        let protocols = [ProtocolSpec { name: RENDEZVOUS, framing, inbound_per_peer: 0 }];
        Self { protocols, asking: BTreeMap::new(), answers: VecDeque::new() }
    }

    fn ask(&mut self, cx: &mut Context<'_>, connection: ConnectionId, message: &Message) {
        let token = cx.open(connection, RENDEZVOUS);
        self.asking.insert(token, message.encode_to_vec().into());
    }
}

impl Behaviour for Asker {
    fn name(&self) -> &'static str {
        "asker"
    }

    fn protocols(&self) -> &[ProtocolSpec] {
        &self.protocols
    }

    fn handle(&mut self, cx: &mut Context<'_>, input: Input) {
        match input {
            Input::Reply(token, Reply::Stream(Ok(stream))) => {
                if let Some(frame) = self.asking.remove(&token) {
                    cx.send(stream, frame);
                    cx.finish(stream);
                }
            }
            Input::Stream(_, StreamEvent::Frame(frame)) => self.answers.push_back(frame),
            _ => {}
        }
    }
}

/// A point and a client, connected.
fn pair(stored: bool) -> (World, HostId, HostId, ConnectionId) {
    let mut w = World::new(1);
    let point = w.host("R").configure(move |config| {
        config.rendezvous_server = Some(server::Config::default());
        config.storage = stored;
        config.swarm.peerstore.stored = 0;
    });
    let point = point.start();
    let client = w.host("A").configure(|config| config.behaviours.push(Box::new(Asker::new()))).start();
    let connection = w.dial(client, point);
    (w, point, client, connection)
}

fn ask(w: &mut World, client: HostId, connection: ConnectionId, message: &Message) {
    w.command(client, |node, now| {
        node.with::<Asker, _>(now, |asker, cx| asker.ask(cx, connection, message)).expect("an asker");
    });
}

fn answer(w: &mut World, client: HostId) -> Option<Message> {
    let frame = w.command(client, |node, now| {
        node.with::<Asker, _>(now, |asker, _| asker.answers.pop_front()).expect("an asker")
    });
    frame.map(|frame| {
        assert!(frame.len() < 1 << 20);
        pb::decode(&frame).expect("a message")
    })
}

fn register(w: &World, client: HostId, ns: &str, addresses: usize) -> Message {
    let identity = w[client].identity();
    let addresses = (0..addresses)
        .map(|n| format!("/dns/a-host-with-a-long-name-{n}.example.com/udp/1/quic-v1").parse::<Multiaddr>());
    let addresses = addresses.map(|address| address.expect("a multiaddr")).collect();
    let record = PeerRecord { peer: identity.peer(), seq: 1, addresses };
    let record = record.seal(identity.keypair(), Dialect::Standard).expect("a record").encode();
    let register =
        Register { ns: Some(ns.into()), signed_peer_record: Some(record), ttl: None, other_record: None };
    let kind = Some(MessageType::Register as i32);
    Message { r#type: kind, register: Some(register), ..Default::default() }
}

fn discover(cookie: Vec<u8>) -> Message {
    let discover = Discover { cookie: Some(cookie), ..Default::default() };
    let kind = Some(MessageType::Discover as i32);
    Message { r#type: kind, discover: Some(discover), ..Default::default() }
}

fn status(answer: Option<Message>) -> Option<Status> {
    answer.map(|answer| answer.register_response.expect("an answer to a registration").status.into())
}

#[test]
fn an_embedder_without_a_store_is_asked_for_nothing() {
    let (mut w, point, client, connection) = pair(false);
    let message = register(&w, client, "ns", 1);
    ask(&mut w, client, connection, &message);
    w.run_for(secs(1));
    assert_eq!(status(answer(&mut w, client)), Some(Status::Ok));
    assert!(Store::default().next(&w, point).is_none());
    assert_eq!(w.node(point).stats().storage, 0);
    w.shutdown();
}

#[test]
fn a_client_hears_of_its_registration_when_the_embedder_has_stored_it_and_a_new_node_knows_it() {
    let (mut w, point, client, connection) = pair(true);
    let mut store = Store::default();
    let message = register(&w, client, "ns", 1);
    ask(&mut w, client, connection, &message);
    w.run_for(secs(5));
    assert!(answer(&mut w, client).is_none(), "it has not been loaded yet");
    assert_eq!(w.node(point).stats().storage, 1);
    let load = store.next(&w, point).expect("a request to load");
    let nothing = || Ok(StorageAnswer::Loaded(Rows::default()));
    w.command(point, |node, now| node.handle_storage(now, load.id, nothing()));
    w.run_for(secs(5));
    assert!(answer(&mut w, client).is_none(), "it has not been stored yet");
    store.serve(&mut w, point);
    w.run_for(secs(1));
    assert_eq!(status(answer(&mut w, client)), Some(Status::Ok));
    // Answers to nothing change nothing.
    let last = store.last().expect("it was asked to store");
    w.command(point, |node, now| {
        node.handle_storage(now, last, Ok(StorageAnswer::Stored));
        node.handle_storage(now, StorageId(99), nothing());
    });

    w.kill(point);
    w.close(client, connection);
    w.restart(point);
    store.serves_another();
    let connection = w.dial(client, point);
    for _ in 0..10 {
        store.serve(&mut w, point);
    }
    ask(&mut w, client, connection, &discover(Vec::new()));
    w.run_for(secs(1));
    let found = answer(&mut w, client).expect("an answer").discover_response.expect("what was found");
    assert_eq!(found.registrations.len(), 1);
    assert!(found.registrations[0].ttl < Some(7200), "its time went on");
    assert!(store.tables.keys().eq(&["rendezvous"]), "no peers are stored");
}

#[test]
fn the_longest_answers_go_through_though_the_write_queue_is_shorter() {
    let (mut w, point, client, connection) = pair(false);
    for n in 0..220 {
        let message = register(&w, client, &format!("ns {n}"), 120);
        ask(&mut w, client, connection, &message);
        w.run_for(secs(1));
        assert_eq!(status(answer(&mut w, client)), Some(Status::Ok), "{n}");
    }
    let (mut cookie, mut pages) = (Vec::new(), Vec::new());
    while pages.iter().sum::<usize>() < 220 {
        ask(&mut w, client, connection, &discover(cookie));
        w.run_for(secs(20));
        let found = answer(&mut w, client).expect("an answer").discover_response.expect("what was found");
        pages.push(found.registrations.len());
        cookie = found.cookie.expect("a cookie");
    }
    assert!(pages.len() == 2 && pages[0] > 150, "{pages:?}");
    assert_eq!(w.node(point).counters().get("streams.write_queue_full"), 0);
    w.shutdown();
}
