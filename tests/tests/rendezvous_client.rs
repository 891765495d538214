//! The user of rendezvous points, story by story: registrations kept alive, peers found once or watched.

use std::time::Duration;

use multiaddr::{Multiaddr, Protocol};
use peerless_core::{
    behaviour::Input,
    errors::{CloseReason, DialError, OpenError, StreamFault},
    ids::{ConnectionId, StreamId},
    node::Event,
    protocols::rendezvous::{
        self, RENDEZVOUS, Status,
        client::{
            self, Client, Config, Dialect, Discovery, DiscoveryId, Error, Found, Query, Registration,
            RegistrationState, Watch,
        },
    },
    swarm::{addresses::AddressSource, peerstore::Source},
    time::Instant,
};
use peerless_proto::{
    pb::{
        Message as _, decode,
        rendezvous::{
            Discover, DiscoverResponse, Message, MessageType, PeerInfo, Register, RegisterRecord,
            RegisterResponse,
        },
    },
    peer_record::{self, PeerRecord},
};
use peerless_tests::{
    laws::Laws,
    solo::{Solo, address, circuit, identity, peer},
};

const HOUR: Duration = Duration::from_secs(3600);
const PLACE: &str = "/ip4/203.0.113.1/udp/4001/quic-v1";
const HOME: &str = "/ip4/198.51.100.1/udp/4001/quic-v1";

/// B, who can be reached at home.
fn client() -> Solo<Client> {
    client_with(Config::default())
}

fn client_with(config: Config) -> Solo<Client> {
    let mut solo = Solo::new("B", Client::new(config));
    solo.addresses.add(address(HOME), AddressSource::Listen);
    for name in ["R", "A", "C"] {
        solo.peer(name);
    }
    solo
}

fn point() -> Multiaddr {
    address(PLACE).with(Protocol::P2p(peer("R")))
}

fn register(solo: &mut Solo<Client>) {
    solo.with(|client, cx| client.register(cx, Registration::new(point(), "app"))).expect("a good wish");
}

fn discover(solo: &mut Solo<Client>, query: Query) -> DiscoveryId {
    solo.with(|client, cx| client.discover(cx, query)).expect("a good question")
}

fn watch(solo: &mut Solo<Client>) {
    solo.with(|client, cx| client.watch(cx, Watch::new(point(), "app"))).expect("a good wish");
}

/// What was asked on a stream.
fn asked(solo: &mut Solo<Client>, stream: StreamId) -> Message {
    let sent = solo.sent(stream);
    assert_eq!(sent.len(), 1, "one question");
    decode(&sent[0]).expect("a message")
}

fn asked_register(solo: &mut Solo<Client>, stream: StreamId) -> Register {
    asked(solo, stream).register.expect("REGISTER")
}

fn asked_discover(solo: &mut Solo<Client>, stream: StreamId) -> Discover {
    asked(solo, stream).discover.expect("DISCOVER")
}

/// In which dialect the record on a stream is; the standard one has rust's beside it.
fn dialect(solo: &mut Solo<Client>, stream: StreamId) -> Dialect {
    let register = asked_register(solo, stream);
    let dialect = dialect_of(&register.signed_peer_record.expect("a record"));
    let other = register.other_record.map(|record| dialect_of(&record));
    assert_eq!(other, (dialect == Dialect::Standard).then_some(Dialect::RustLegacy));
    dialect
}

fn dialect_of(record: &[u8]) -> Dialect {
    match RegisterRecord::decode(record).expect("a good record") {
        RegisterRecord::PeerInfo { peer: who, .. } => {
            assert_eq!(who, peer("B"));
            Dialect::PeerInfo
        }
        RegisterRecord::SignedPeerRecord(envelope) => {
            assert_eq!(PeerRecord::open(&envelope).expect("a good signature").peer, peer("B"));
            match peer_record::Dialect::of(&envelope) {
                Some(peer_record::Dialect::RoutingState) => Dialect::RustLegacy,
                _ => Dialect::Standard,
            }
        }
    }
}

fn granted(ttl: u64) -> Message {
    let answer = RegisterResponse { status: Some(0), ttl: Some(ttl), ..Default::default() };
    Message {
        r#type: Some(MessageType::RegisterResponse as i32),
        register_response: Some(answer),
        ..Default::default()
    }
}

fn refused(code: i32) -> Message {
    let answer = RegisterResponse { status: Some(code), status_text: Some("why".into()), ttl: None };
    Message { register_response: Some(answer), ..granted(0) }
}

fn page(registrations: Vec<Register>, cookie: &str) -> Message {
    let cookie = Some(cookie.as_bytes().to_vec()).filter(|cookie| !cookie.is_empty());
    let answer = DiscoverResponse { registrations, cookie, status: Some(0), status_text: None };
    Message {
        r#type: Some(MessageType::DiscoverResponse as i32),
        discover_response: Some(answer),
        ..Default::default()
    }
}

fn no_page(code: i32) -> Message {
    let answer = DiscoverResponse { status: Some(code), ..Default::default() };
    Message { discover_response: Some(answer), ..page(vec![], "") }
}

/// The registration of a peer for two hours, as the peer itself sent it.
fn registration(name: &str, seq: u64, place: &str) -> Register {
    let record = PeerRecord { peer: peer(name), seq, addresses: vec![address(place)] };
    let sealed =
        record.seal(identity(name).keypair(), peer_record::Dialect::Standard).expect("its own record");
    Register {
        ns: Some("app".into()),
        signed_peer_record: Some(sealed.encode()),
        ttl: Some(7200),
        other_record: None,
    }
}

fn entry(name: &str) -> Register {
    registration(name, 1, PLACE)
}

fn unsigned(name: &str) -> Register {
    let info = PeerInfo { id: Some(peer(name).to_bytes()), addrs: vec![address(HOME).to_vec()] };
    Register { signed_peer_record: Some(info.encode_to_vec()), ..entry(name) }
}

fn answer(solo: &mut Solo<Client>, stream: StreamId, message: &Message) {
    solo.receive(stream, message.encode_to_vec());
    solo.finish(stream);
}

/// Registered for two hours.
fn registered() -> (Solo<Client>, ConnectionId) {
    let mut solo = client();
    register(&mut solo);
    let connection = solo.dialled("R");
    let stream = solo.open();
    answer(&mut solo, stream, &granted(7200));
    assert_eq!(state(&solo), Some(RegistrationState::Active));
    solo.events();
    (solo, connection)
}

/// A watch that knows A.
fn watching() -> (Solo<Client>, ConnectionId) {
    let mut solo = client();
    watch(&mut solo);
    let connection = solo.dialled("R");
    let stream = solo.open();
    answer(&mut solo, stream, &page(vec![entry("A")], "1"));
    let stream = solo.open();
    answer(&mut solo, stream, &page(vec![], "1"));
    assert_eq!(found(&mut solo), ["A"]);
    (solo, connection)
}

fn state(solo: &Solo<Client>) -> Option<RegistrationState> {
    solo.behaviour.registration(&peer("R"), "app")
}

fn events(solo: &mut Solo<Client>) -> Vec<client::Event> {
    let ours = |event| match event {
        Event::Rendezvous(rendezvous::Event::Client(event)) => event,
        other => panic!("{other:?}"),
    };
    solo.events().into_iter().map(ours).collect()
}

fn name_of(who: &peerless_core::PeerId) -> &'static str {
    ["A", "B", "C", "R", "X"].into_iter().find(|name| peer(name) == *who).expect("a name")
}

/// Whom watches were told of since the last call.
fn found(solo: &mut Solo<Client>) -> Vec<&'static str> {
    let new = |event: &client::Event| match event {
        client::Event::Discovered { found, .. } => Some(name_of(&found.peer)),
        _ => None,
    };
    events(solo).iter().filter_map(new).collect()
}

fn outcome(solo: &mut Solo<Client>, ours: DiscoveryId) -> Result<Discovery, Error> {
    solo.events().iter().find_map(|event| event.discover_outcome(ours)).expect("it has ended")
}

fn names(discovery: &Discovery) -> Vec<&'static str> {
    discovery.peers.iter().map(|found| name_of(&found.peer)).collect()
}

fn since_start(solo: &Solo<Client>) -> Duration {
    solo.now().saturating_duration_since(Instant::ZERO)
}

#[path = "rendezvous_client/registering.rs"]
mod registering;
#[path = "rendezvous_client/searching.rs"]
mod searching;

#[test]
fn the_client_only_speaks_the_protocol() {
    assert!(client().protocols.is_empty());
}

#[test]
fn what_cannot_be_wanted_is_said_at_once() {
    let mut solo =
        client_with(Config { max_registrations: 1, max_watches: 1, max_discoveries: 1, ..Config::default() });
    let mut register = |change: fn(&mut Registration)| {
        let mut wanted = Registration::new(point(), "app");
        change(&mut wanted);
        solo.with(|client, cx| client.register(cx, wanted))
    };
    assert_eq!(register(|r| r.point = address(PLACE)), Err(Error::NoPeer));
    assert_eq!(register(|r| r.point.push(Protocol::P2p(peer("B")))), Err(Error::Own));
    assert_eq!(register(|r| r.namespace.clear()), Err(Error::Namespace(0)));
    assert_eq!(register(|r| r.namespace = "x".repeat(256)), Err(Error::Namespace(256)));
    assert_eq!(register(|r| r.ttl = Duration::ZERO), Err(Error::Ttl(Duration::ZERO)));
    assert_eq!(register(|r| r.ttl = 73 * HOUR), Err(Error::Ttl(73 * HOUR)));
    assert_eq!(register(|r| r.namespace = "x".repeat(255)), Ok(()));
    assert_eq!(register(|_| {}), Err(Error::TooMany("registrations")));
    solo.with(|client, cx| client.unregister(cx, peer("R"), &"x".repeat(255)));

    watch(&mut solo);
    let more = Watch { namespace: None, ..Watch::new(point(), "") };
    assert_eq!(solo.with(|client, cx| client.watch(cx, more)), Err(Error::TooMany("watches")));
    watch(&mut solo);
    solo.with(|client, cx| client.unwatch(cx, peer("R"), Some("app")));

    let id = discover(&mut solo, Query::new(point(), "app"));
    let more = Query::new(point(), "app");
    assert_eq!(solo.with(|client, cx| client.discover(cx, more)), Err(Error::TooMany("discoveries")));
    solo.with(|client, cx| client.cancel_discovery(cx, id));
    assert!(solo.behaviour.is_empty(), "{:?}", solo.behaviour);

    let address = address(HOME);
    solo.addresses.remove(&address, AddressSource::Listen);
    let nowhere = solo.with(|client, cx| client.register(cx, Registration::new(point(), "app")));
    assert_eq!(nowhere, Err(Error::NoAddress));
}

#[test]
fn every_failure_of_a_request_says_why_and_leaves_nothing_behind() {
    type Fault = fn(&mut Solo<Client>);
    let refusal = |status| Error::Refused { status, text: String::new() };
    let faults: [(Error, Fault); 10] = [
        (Error::Unreachable(DialError { attempts: Vec::new() }), |solo| {
            solo.dial_fails(DialError { attempts: Vec::new() });
        }),
        (Error::Open(OpenError::StreamLimit), |solo| {
            solo.dialled("R");
            solo.refuse_open(OpenError::StreamLimit);
        }),
        (Error::Disconnected(CloseReason::TimedOut), |solo| {
            let connection = solo.dialled("R");
            solo.open();
            solo.disconnect(connection);
        }),
        (Error::Stream(StreamFault::Unsupported), |solo| {
            solo.dialled("R");
            let stream = solo.open();
            solo.reset(stream, StreamFault::Unsupported);
        }),
        (Error::Malformed("no answer"), |solo| {
            solo.dialled("R");
            let stream = solo.open();
            solo.finish(stream);
        }),
        (Error::Malformed("not a rendezvous message"), |solo| {
            solo.dialled("R");
            let stream = solo.open();
            solo.receive(stream, vec![255; 3]);
            solo.finish(stream);
        }),
        (Error::Malformed("not an answer"), |solo| {
            solo.dialled("R");
            let stream = solo.open();
            answer(solo, stream, &granted(7200));
        }),
        (refusal(Status::NotAuthorized), |solo| {
            solo.dialled("R");
            let stream = solo.open();
            answer(solo, stream, &no_page(200));
        }),
        (refusal(Status::Other(7)), |solo| {
            solo.dialled("R");
            let stream = solo.open();
            answer(solo, stream, &no_page(7));
        }),
        (Error::TimedOut, |solo| {
            solo.dialled("R");
            solo.open();
            solo.advance(Duration::from_secs(30));
        }),
    ];
    for (error, fault) in faults {
        let mut solo = client();
        let id = discover(&mut solo, Query::new(point(), "app"));
        fault(&mut solo);
        assert_eq!(outcome(&mut solo, id), Err(error));
        assert!(solo.streams().is_empty() && solo.opening().is_empty());
        assert!(solo.behaviour.is_empty(), "{:?}", solo.behaviour);
    }
}

#[test]
fn requests_to_a_point_share_its_connection_and_take_turns() {
    let mut solo = client();
    let ids: Vec<_> = (0..10).map(|_| discover(&mut solo, Query::new(point(), "app"))).collect();
    assert_eq!(solo.dialling(), [[point()]]);
    solo.dialled("R");
    assert_eq!(solo.opening().len(), 4);
    for id in ids {
        let stream = solo.open();
        answer(&mut solo, stream, &page(vec![], ""));
        assert_eq!(names(&outcome(&mut solo, id).unwrap()), [""; 0]);
    }
    assert!(solo.behaviour.is_empty(), "{:?}", solo.behaviour);
}

#[test]
fn a_point_that_never_ends_a_stream_is_cut_off() {
    let mut solo = client();
    discover(&mut solo, Query::new(point(), "app"));
    solo.dialled("R");
    let stream = solo.open();
    solo.receive(stream, page(vec![], "").encode_to_vec());
    assert!(solo.is_finished(stream) && solo.is_open(stream));
    assert_eq!(solo.next_deadline(), "rendezvous stream timeout");
    assert!(!solo.is_open(stream));
    assert_eq!(solo.counters.get("rendezvous.client.stream_timeout"), 1);
}

#[test]
fn laws() {
    // Each answers whatever is asked.
    let both = |registered: Message, found: Message| Message {
        register_response: registered.register_response,
        ..found
    };
    let messages = [
        both(granted(10), page(vec![entry("A"), entry("B"), unsigned("C")], "1")),
        both(granted(60), page(vec![Register { ttl: Some(3), ..entry("A") }], "2")),
        both(granted(10), page(vec![registration("A", 2, HOME)], "3")),
        both(granted(10), page(vec![], "4")),
        both(granted(10), page(vec![], "")),
        both(refused(101), no_page(103)),
        both(refused(400), no_page(103)),
        both(refused(102), no_page(400)),
        granted(10),
    ];
    let laws = Laws {
        make: || Client::new(Config { max_peers: 2, interval: Duration::from_secs(5), ..Config::default() }),
        command: |solo, number| {
            let name = ["A", "B", "C"][(number % 3) as usize];
            let point = address(PLACE).with(Protocol::P2p(peer(name)));
            let namespace = ["app", "x"][(number / 3 % 2) as usize];
            solo.with(|client, cx| match number / 6 % 16 {
                0..=5 => drop(client.register(cx, Registration::new(point, namespace))),
                6 => client.unregister(cx, peer(name), namespace),
                7..=9 => drop(client.discover(cx, Query::new(point, namespace))),
                10..=13 => drop(client.watch(cx, Watch::new(point, "app"))),
                14 => client.unwatch(cx, peer(name), Some("app")),
                _ => client.stop(cx),
            });
        },
        settle: |solo| solo.with(|client, cx| client.stop(cx)),
        entries: Client::len,
        frames: messages.map(|message| (RENDEZVOUS, message.encode_to_vec().into())).into(),
        most_actions: 120,
        reaches: &[
            "rendezvous.client.registered",
            "rendezvous.client.renewed",
            "rendezvous.client.refresh_failed",
            "rendezvous.client.lost",
            "rendezvous.client.failed",
            "rendezvous.client.other_dialect",
            "rendezvous.client.unregistered",
            "rendezvous.client.discovered",
            "rendezvous.client.polled",
            "rendezvous.client.started_over",
            "rendezvous.client.search_failed",
            "rendezvous.client.expired",
        ],
    };
    laws.check(48);
}
