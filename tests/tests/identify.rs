//! Identify: both directions, pushes, and everything that a peer may not say.

use std::time::Duration;

use multiaddr::{Multiaddr, Protocol};
use peerless_core::{
    behaviour::Input,
    errors::{OpenError, StreamFault},
    ids::{ConnectionId, StreamId},
    info::Info,
    names::{Direction, ProtocolName},
    node::Event,
    protocols::identify::{Config, Identify, PROTOCOL, PUSH_PROTOCOL},
    swarm::addresses::AddressSource,
};
use peerless_proto::{
    Envelope, PeerRecord,
    keys::encode_public_key,
    pb::{self, Message as _, identify::Identify as Message},
    peer_record::Dialect,
};
use peerless_tests::{
    laws::Laws,
    solo::{EPOCH, Solo, address, identity, own_addresses, peer},
};

const SEEN: &str = "/ip4/203.0.113.9/udp/7000/quic-v1";
const LISTEN: &str = "/ip4/198.51.100.2/udp/4001/quic-v1";

fn solo() -> Solo<Identify> {
    Solo::new("A", Identify::new(Config { agent: "test/1".into(), ..Config::default() }))
}

/// What the peer called `name` says: all there is, without a signed record.
fn says(name: &str) -> Message {
    Message {
        public_key: Some(encode_public_key(&identity(name).public())),
        listen_addrs: vec![address(LISTEN).to_vec()],
        protocols: vec!["/ipfs/id/1.0.0".into(), "/ipfs/id/push/1.0.0".into(), "/ipfs/ping/1.0.0".into()],
        observed_addr: Some(address(SEEN).to_vec()),
        protocol_version: Some("ipfs/0.1.0".into()),
        agent_version: Some("other/2".into()),
        signed_peer_record: None,
    }
}

fn record(name: &str, seq: u64, addresses: &[&str]) -> Envelope {
    let addresses = addresses.iter().map(|text| address(text)).collect();
    let record = PeerRecord { peer: peer(name), seq, addresses };
    record.seal(identity(name).keypair(), Dialect::Standard).expect("a record that can be sealed")
}

fn infos(solo: &mut Solo<Identify>) -> Vec<Info> {
    let info = |event| match event {
        Event::Identify(event) => (*event.info).clone(),
        other => panic!("{other:?}"),
    };
    solo.events().into_iter().map(info).collect()
}

/// `name` is connected and has answered `message`.
fn identified(solo: &mut Solo<Identify>, name: &str, message: &Message) -> ConnectionId {
    let connection = solo.connect(name);
    answer(solo, message);
    connection
}

/// The remote of the oldest stream that was asked for answers.
fn answer(solo: &mut Solo<Identify>, message: &Message) {
    let stream = solo.open();
    assert_eq!(solo.protocol(stream), Some(PROTOCOL));
    solo.receive(stream, message.encode_to_vec());
    solo.finish(stream);
    assert!(!solo.is_open(stream));
}

fn pushed(solo: &mut Solo<Identify>, connection: ConnectionId, message: &Message) {
    let stream = solo.accept(connection, &PUSH_PROTOCOL);
    solo.receive(stream, message.encode_to_vec());
    solo.finish(stream);
}

/// The remote asks what we are.
fn ask(solo: &mut Solo<Identify>, connection: ConnectionId) -> Message {
    let stream = solo.accept(connection, &PROTOCOL);
    let message = told(solo, stream);
    assert!(solo.is_finished(stream));
    solo.finish(stream);
    message
}

fn told(solo: &mut Solo<Identify>, stream: StreamId) -> Message {
    let [frame] = solo.sent(stream).try_into().expect("one frame");
    assert!(frame.len() <= 4096, "{} bytes are more than some peers accept", frame.len());
    pb::decode(&frame).expect("a message")
}

/// The lines of the transcript that are frames.
fn frames(solo: &mut Solo<Identify>) -> String {
    solo.story().lines().filter(|line| line.contains("  >  ")).map(|line| format!("{line}\n")).collect()
}

fn listen(solo: &mut Solo<Identify>, text: &str) {
    solo.addresses.add(address(text), AddressSource::Listen);
    solo.input(Input::Addresses);
}

fn texts(addresses: &[Multiaddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

/// Exactly these counters counted.
fn counted(solo: &Solo<Identify>, expected: &[(&str, u64)]) {
    assert_eq!(solo.counters.iter().collect::<Vec<_>>(), expected);
}

#[test]
fn both_sides_ask_and_both_are_told() {
    let mut solo = solo();
    solo.addresses.add(address(LISTEN), AddressSource::Listen);
    solo.addresses.add(address("/ip4/10.0.0.1/udp/9/quic-v1"), AddressSource::Observed);
    let b = identified(&mut solo, "B", &says("B"));
    let ours = ask(&mut solo, b);
    insta::assert_snapshot!(frames(&mut solo), @r"
    0.000  B  >  A  identify agent=other/2 protocols=3 addresses=1 observed=/ip4/203.0.113.9/udp/7000/quic-v1
    0.000  A  >  B  identify agent=test/1 protocols=2 addresses=1 observed=/ip4/192.0.2.1/udp/4001/quic-v1 signed
    ");
    assert_eq!(ours.public_key, Some(encode_public_key(&identity("A").public())));
    assert_eq!(ours.listen_addrs, [address(LISTEN).to_vec()]);
    assert_eq!(ours.protocols, ["/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0"]);
    assert_eq!(ours.observed_addr, Some(solo.connections.get(b).unwrap().remote.to_vec()));
    assert_eq!(ours.agent_version.as_deref(), Some("test/1"));
    assert_eq!(ours.protocol_version.as_deref(), Some("ipfs/0.1.0"));
    let envelope = Envelope::decode(&ours.signed_peer_record.unwrap()).unwrap();
    let signed = PeerRecord::open(&envelope).unwrap();
    let seq = u64::try_from(EPOCH.since_epoch().as_nanos()).unwrap();
    assert_eq!(signed, PeerRecord { peer: peer("A"), seq, addresses: vec![address(LISTEN)] });

    let [info] = infos(&mut solo).try_into().unwrap();
    assert_eq!(info.public_key, identity("B").public());
    assert_eq!(
        info.protocols,
        ["/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0"].map(ProtocolName::from)
    );
    assert_eq!(texts(&info.listen_addresses), [LISTEN]);
    assert!(!info.certified);
    assert_eq!((info.agent.as_str(), info.protocol_version.as_str()), ("other/2", "ipfs/0.1.0"));
    assert_eq!(info.observed, Some(address(SEEN)));
    assert_eq!(solo.behaviour.info(b).map(|info| (**info).clone()), Some(info));
}

#[test]
fn the_default_agent_is_this_software() {
    let agent = Config::default().agent;
    assert_eq!(agent, format!("peerless/{}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn what_is_said_in_several_messages_is_one() {
    let mut solo = solo();
    let b = solo.connect("B");
    let stream = solo.open();
    let whole = says("B");
    let more = Message {
        protocols: vec!["/more/1".into(), "/ipfs/ping/1.0.0".into()],
        signed_peer_record: Some(record("B", 5, &[SEEN]).encode()),
        ..Message::default()
    };
    for message in [&whole, &more] {
        solo.receive(stream, message.encode_to_vec());
        assert!(solo.events.is_empty(), "there may be more to come");
    }
    solo.finish(stream);
    assert!(!solo.is_open(stream));
    let [info] = infos(&mut solo).try_into().unwrap();
    assert_eq!(info.protocols.len(), 4, "each once");
    assert_eq!((texts(&info.listen_addresses), info.certified), (vec![SEEN.into()], true));
    assert_eq!(info.agent, "other/2");
    assert!(solo.behaviour.info(b).is_some());
}

#[test]
fn an_eleventh_message_is_one_too_many() {
    for (messages, good) in [(10, true), (11, false)] {
        let mut solo = solo();
        solo.connect("B");
        let stream = solo.open();
        (0..messages).for_each(|_| solo.receive(stream, says("B").encode_to_vec()));
        assert_eq!(solo.is_open(stream), good);
        solo.finish(stream);
        assert_eq!(infos(&mut solo).len(), usize::from(good));
        if !good {
            counted(&solo, &[("identify.refused.too_many_messages", 1)]);
        }
    }
}

#[test]
fn a_peer_that_never_finishes_is_believed_when_the_time_is_up() {
    let mut solo = solo();
    solo.connect("B");
    let stream = solo.open();
    solo.receive(stream, says("B").encode_to_vec());
    solo.advance(Duration::from_secs(10) - Duration::from_nanos(1));
    assert!(solo.is_open(stream) && solo.events.is_empty());
    solo.advance(Duration::from_nanos(1));
    assert!(!solo.is_open(stream));
    assert_eq!(infos(&mut solo).len(), 1);
    counted(&solo, &[]);
}

#[test]
fn silence_is_counted_in_every_shape() {
    let mut solo = solo();
    let b = solo.connect("B");
    let _silent = solo.open();
    assert_eq!(solo.next_deadline(), "identify timeout");
    assert_eq!(solo.now().as_nanos(), 10_000_000_000);
    let pushing = solo.accept(b, &PUSH_PROTOCOL);
    solo.finish(pushing);
    solo.connect("C");
    solo.refuse_open(OpenError::StreamLimit);
    for fault in [StreamFault::Unsupported, StreamFault::Remote(0), StreamFault::Malformed("too long".into())]
    {
        solo.connect("D");
        let stream = solo.open();
        solo.reset(stream, fault);
    }
    assert!(solo.events.is_empty() && solo.streams().is_empty());
    counted(
        &solo,
        &[
            ("identify.failed.empty", 1),
            ("identify.failed.open", 1),
            ("identify.failed.stream", 3),
            ("identify.failed.timeout", 1),
            ("identify.push.received", 1),
        ],
    );
}

#[test]
fn a_reset_by_the_peer_ends_what_it_says_and_a_broken_frame_spoils_it() {
    for (fault, good) in [(StreamFault::Remote(0), true), (StreamFault::Malformed("too long".into()), false)]
    {
        let mut solo = solo();
        solo.connect("B");
        let stream = solo.open();
        solo.receive(stream, says("B").encode_to_vec());
        solo.reset(stream, fault);
        assert_eq!(infos(&mut solo).len(), usize::from(good));
        assert_eq!(solo.counters.get("identify.failed.stream"), u64::from(!good));
    }
}

#[test]
fn one_who_asks_and_never_finishes_is_cut_off() {
    let mut solo = solo();
    let b = solo.connect("B");
    let asked = solo.open();
    solo.receive(asked, says("B").encode_to_vec());
    solo.finish(asked);
    let stream = solo.accept(b, &PROTOCOL);
    assert!(solo.is_finished(stream));
    solo.advance(Duration::from_secs(10));
    assert!(!solo.is_open(stream));
    let stream = solo.accept(b, &PROTOCOL);
    solo.receive(stream, vec![0]);
    assert!(!solo.is_open(stream));
    counted(&solo, &[("identify.answered", 2), ("identify.refused.unexpected", 1)]);
}

#[test]
fn a_key_that_is_not_the_peers_refuses_all_it_says() {
    let foreign = encode_public_key(&identity("M").public());
    for key in [foreign, vec![], vec![8, 1, 18, 1, 0]] {
        let mut solo = solo();
        let b = identified(&mut solo, "B", &Message { public_key: Some(key), ..says("B") });
        assert_eq!((solo.events.len(), solo.behaviour.info(b)), (0, None));
        assert_eq!(own_addresses(&solo, AddressSource::Observed), [""; 0]);
        counted(&solo, &[("identify.refused.key", 1)]);
    }
}

#[test]
fn a_key_that_the_peer_id_spells_out_may_be_missing() {
    let mut solo = solo();
    identified(&mut solo, "B", &Message { public_key: None, ..says("B") });
    let [info] = infos(&mut solo).try_into().unwrap();
    assert_eq!(info.public_key, identity("B").public());
}

#[test]
fn too_many_addresses_or_protocols_are_refused_over_all_messages() {
    let numbered = |n: usize| -> Vec<_> {
        let numbers = 1..=n as u16;
        numbers.map(|n| address("/ip4/192.0.2.1").with(Protocol::Udp(n)).to_vec()).collect()
    };
    for (extra, counter) in [(0, None), (1, Some("identify.refused.too_many_addresses"))] {
        let mut solo = solo();
        solo.connect("B");
        let stream = solo.open();
        let first = Message { listen_addrs: numbered(500)[..250].to_vec(), ..says("B") };
        solo.receive(stream, first.encode_to_vec());
        let rest = Message { listen_addrs: numbered(500 + extra)[250..].to_vec(), ..Message::default() };
        solo.receive(stream, rest.encode_to_vec());
        solo.finish(stream);
        let lens: Vec<_> = infos(&mut solo).iter().map(|info| info.listen_addresses.len()).collect();
        assert_eq!(lens, vec![500; usize::from(counter.is_none())]);
        assert!(counter.is_none_or(|name| solo.counters.get(name) == 1));
    }
    for (count, counter) in [(1000, None), (1001, Some("identify.refused.too_many_protocols"))] {
        let mut solo = solo();
        let protocols = (0..count).map(|n| format!("/{n}")).collect();
        identified(&mut solo, "B", &Message { protocols, ..says("B") });
        let lens: Vec<_> = infos(&mut solo).iter().map(|info| info.protocols.len()).collect();
        assert_eq!(lens, vec![1000; usize::from(counter.is_none())]);
        assert!(counter.is_none_or(|name| solo.counters.get(name) == 1));
    }
}

#[test]
fn bytes_that_are_no_message_and_messages_of_nothing_but_fields_are_refused() {
    for frame in [vec![0xff; 9], [0x12, 0].repeat(2049)] {
        let mut solo = solo();
        solo.connect("B");
        let stream = solo.open();
        solo.receive(stream, frame);
        assert!(!solo.is_open(stream));
        counted(&solo, &[("identify.refused.malformed", 1)]);
    }
}

#[test]
fn texts_are_cut_off_and_cleaned_and_odd_entries_left_out() {
    let mut solo = solo();
    let message = Message {
        agent_version: Some(format!("\x1b[31m{}é", "x".repeat(123))),
        protocols: vec!["".into(), "/ok".into(), "/ok".into(), "/".repeat(257), "/".repeat(256)],
        listen_addrs: vec![
            vec![0xff, 0xff],
            address(LISTEN).with(Protocol::P2p(peer("B"))).to_vec(),
            address(LISTEN).to_vec(),
            address(SEEN).with(Protocol::P2p(peer("M"))).to_vec(),
            address(LISTEN).with(Protocol::P2p(peer("R"))).with(Protocol::P2pCircuit).to_vec(),
        ],
        ..says("B")
    };
    identified(&mut solo, "B", &message);
    let [info] = infos(&mut solo).try_into().unwrap();
    assert_eq!(info.agent, format!("[31m{}", "x".repeat(123)));
    assert_eq!(info.protocols, [ProtocolName::from("/ok"), ProtocolName::from("/".repeat(256).as_str())]);
    let circuit = format!("{LISTEN}/p2p/{}/p2p-circuit", peer("R"));
    assert_eq!(texts(&info.listen_addresses), [LISTEN.to_owned(), circuit]);
    counted(&solo, &[("identify.skipped.address", 1), ("identify.skipped.protocol", 2)]);
}

#[test]
fn a_signed_record_of_the_peer_certifies_its_addresses() {
    let mut solo = solo();
    let signed = |seq, addresses: &[&str]| Message {
        signed_peer_record: Some(record("B", seq, addresses).encode()),
        ..says("B")
    };
    let b = identified(&mut solo, "B", &signed(7, &[SEEN]));
    let again = identified(&mut solo, "B", &signed(7, &[SEEN]));
    pushed(&mut solo, b, &signed(6, &[LISTEN]));
    let third = identified(&mut solo, "B", &signed(6, &[SEEN]));
    pushed(&mut solo, again, &signed(8, &[LISTEN, SEEN]));
    let addresses = |info: &Info| (texts(&info.listen_addresses), info.certified);
    let told: Vec<_> = infos(&mut solo).iter().map(addresses).collect();
    assert_eq!(
        told,
        [
            (vec![SEEN.into()], true),
            (vec![SEEN.into()], true),
            (vec![LISTEN.into()], false),
            (vec![LISTEN.into(), SEEN.into()], true),
        ],
        "a record older than another changes nothing, and certifies nothing"
    );
    assert_eq!(solo.counters.get("identify.record.rolled_back"), 2);
    assert!(!solo.behaviour.info(third).unwrap().certified);
}

#[test]
fn a_forged_record_certifies_nothing() {
    let mut broken = record("B", 1, &[SEEN]).encode();
    *broken.last_mut().unwrap() ^= 1;
    let foreign = record("M", 1, &[SEEN]).encode();
    for (envelope, counter) in [(broken, "identify.record.bad"), (foreign, "identify.record.foreign")] {
        let mut solo = solo();
        identified(&mut solo, "B", &Message { signed_peer_record: Some(envelope), ..says("B") });
        let [info] = infos(&mut solo).try_into().unwrap();
        assert_eq!((texts(&info.listen_addresses), info.certified), (vec![LISTEN.into()], false));
        counted(&solo, &[(counter, 1)]);
    }
}

#[test]
fn a_push_changes_what_it_names_and_nothing_else() {
    let mut solo = solo();
    let b = identified(&mut solo, "B", &says("B"));
    let [first] = infos(&mut solo).try_into().unwrap();
    pushed(&mut solo, b, &Message { protocols: vec!["/new/1".into()], ..Message::default() });
    let [second] = infos(&mut solo).try_into().unwrap();
    assert_eq!(second, Info { protocols: vec![ProtocolName::from("/new/1")], ..first });
    pushed(&mut solo, b, &Message::default());
    assert_eq!(infos(&mut solo), [], "nothing is new");
    let empty = record("B", 1, &[]).encode();
    pushed(&mut solo, b, &Message { signed_peer_record: Some(empty), ..Message::default() });
    let [third] = infos(&mut solo).try_into().unwrap();
    assert_eq!(third, Info { listen_addresses: vec![], certified: true, ..second });
    counted(&solo, &[("identify.push.received", 3)]);
}

#[test]
fn a_flood_of_pushes_is_refused_until_the_minute_is_over() {
    let mut solo = solo();
    let b = identified(&mut solo, "B", &says("B"));
    (0..31).for_each(|_| pushed(&mut solo, b, &says("B")));
    counted(&solo, &[("identify.push.flood", 1), ("identify.push.received", 30)]);
    assert_eq!(infos(&mut solo).len(), 1);
    solo.advance(Duration::from_secs(60));
    pushed(&mut solo, b, &says("B"));
    assert_eq!(solo.counters.get("identify.push.received"), 31);
    assert!(solo.streams().is_empty());
}

#[test]
fn a_new_address_is_pushed_once_to_each_peer_that_listens() {
    let mut solo = solo();
    let quiet = Message { protocols: vec!["/ipfs/id/1.0.0".into()], ..says("C") };
    let b = identified(&mut solo, "B", &says("B"));
    let second = identified(&mut solo, "B", &says("B"));
    identified(&mut solo, "C", &quiet);
    solo.connect("D");
    let before = ask(&mut solo, b);
    solo.input(Input::Addresses);
    let _unidentified = solo.open();
    assert_eq!(solo.opening(), [second], "the first time is a change for one who never asked");
    let stream = solo.open();
    solo.finish(stream);
    solo.story();

    listen(&mut solo, LISTEN);
    solo.addresses.add(address(SEEN), AddressSource::External);
    assert_eq!(solo.opening(), [second]);
    let stream = solo.open();
    assert_eq!(solo.protocol(stream), Some(PUSH_PROTOCOL));
    let push = told(&mut solo, stream);
    assert!(solo.is_finished(stream));
    solo.finish(stream);
    insta::assert_snapshot!(
        frames(&mut solo),
        @"   0.000  A  >  B  push agent=test/1 protocols=2 addresses=2 observed=/ip4/192.0.2.2/udp/4001/quic-v1 signed"
    );
    assert_eq!(push.listen_addrs, [SEEN, LISTEN].map(|text| address(text).to_vec()), "as of the opening");
    let seq = |message: &Message| {
        let envelope = Envelope::decode(message.signed_peer_record.as_ref().unwrap()).unwrap();
        PeerRecord::open(&envelope).unwrap().seq
    };
    assert!(seq(&push) > seq(&before), "though no time has passed");
    solo.input(Input::Addresses);
    assert_eq!(solo.opening(), [], "it has been told already");
}

#[test]
fn changes_that_cancel_out_and_observations_are_not_pushed() {
    let mut solo = solo();
    let b = identified(&mut solo, "B", &says("B"));
    listen(&mut solo, LISTEN);
    let stream = solo.open();
    solo.finish(stream);
    solo.addresses.add(address(SEEN), AddressSource::External);
    solo.addresses.remove(&address(SEEN), AddressSource::External);
    solo.input(Input::Addresses);
    solo.addresses.add(address(LISTEN), AddressSource::External);
    solo.input(Input::Addresses);
    pushed(&mut solo, b, &Message { observed_addr: Some(address(LISTEN).to_vec()), ..Message::default() });
    solo.input(Input::Addresses);
    assert_eq!(solo.opening(), []);
    solo.protocols.push(ProtocolName::from("/new/1"));
    solo.input(Input::Addresses);
    assert_eq!(solo.opening(), [b], "a protocol is worth telling");
}

#[test]
fn a_change_before_it_is_known_that_the_peer_listens_is_pushed_afterwards() {
    let mut solo = solo();
    let b = solo.connect("B");
    ask(&mut solo, b);
    let stream = solo.open();
    listen(&mut solo, LISTEN);
    assert_eq!(solo.opening(), []);
    solo.receive(stream, says("B").encode_to_vec());
    solo.finish(stream);
    assert_eq!(solo.opening(), [b]);
    let stream = solo.open();
    assert_eq!(solo.protocol(stream), Some(PUSH_PROTOCOL));
    assert_eq!(told(&mut solo, stream).listen_addrs.len(), 1);
}

#[test]
fn at_most_32_pushes_are_under_way_and_each_end_makes_room() {
    let mut solo = solo();
    let peers: Vec<_> = (0..40).map(|n| format!("P{n}")).collect();
    let connections: Vec<_> = peers.iter().map(|name| identified(&mut solo, name, &says(name))).collect();
    listen(&mut solo, LISTEN);
    assert_eq!(solo.opening(), connections[..32]);
    solo.refuse_open(OpenError::StreamLimit);
    assert_eq!(solo.opening().len(), 32);
    let finished = solo.open();
    solo.finish(finished);
    let reset = solo.open();
    solo.reset(reset, StreamFault::Unsupported);
    solo.disconnect(connections[3]);
    solo.refuse_open(OpenError::NoConnection);
    let unread = solo.open();
    solo.disconnect(connections[4]);
    assert!(!solo.is_open(unread));
    assert_eq!(solo.opening().last(), Some(&connections[36]));
    let _unread = solo.open();
    solo.advance(Duration::from_secs(10));
    assert_eq!(solo.opening().last(), Some(&connections[37]));
    counted(&solo, &[("identify.push.failed", 3), ("identify.push.sent", 1)]);
    connections
        .iter()
        .filter(|c| ![connections[3], connections[4]].contains(c))
        .for_each(|c| solo.disconnect(*c));
    assert!(solo.behaviour.is_empty());
}

#[test]
fn more_addresses_than_fit_are_left_out_from_the_end() {
    let mut solo = solo();
    for n in 0..600 {
        solo.addresses.add(
            address("/ip4/192.0.2.1").with(Protocol::Udp(n)).with(Protocol::QuicV1),
            AddressSource::Listen,
        );
    }
    solo.protocols = (0..1000).map(|n| ProtocolName::from(format!("/protocol/{n:04}").as_str())).collect();
    let b = solo.connect("B");
    let message = ask(&mut solo, b);
    let sent = message.listen_addrs.len();
    assert!(sent > 30, "{sent} addresses");
    let advertised: Vec<_> = solo.addresses.advertised().iter().map(Multiaddr::to_vec).collect();
    assert_eq!(message.listen_addrs, advertised[..sent]);
    let envelope = Envelope::decode(&message.signed_peer_record.unwrap()).unwrap();
    assert_eq!(PeerRecord::open(&envelope).unwrap().addresses.len(), sent);
    assert!(message.protocols.len() > 100);
}

#[test]
fn only_a_direct_peer_tells_where_we_are_seen_and_only_what_may_be_true() {
    let me = format!("{SEEN}/p2p/{}", peer("A"));
    let good = [
        (SEEN, SEEN),
        (&me, SEEN),
        ("/ip4/192.168.1.4/udp/5/quic-v1", "/ip4/192.168.1.4/udp/5/quic-v1"),
        ("/ip6/::ffff:203.0.113.9/udp/7000/quic-v1", SEEN),
    ];
    let circuit = format!("{SEEN}/p2p/{}/p2p-circuit", peer("R"));
    let other = format!("{SEEN}/p2p/{}", peer("R"));
    let bad = [
        "/ip4/0.0.0.0/udp/5/quic-v1",
        "/ip6/::/udp/5/quic-v1",
        "/ip6/::ffff:0.0.0.0/udp/5/quic-v1",
        "/ip4/224.0.0.1/udp/5/quic-v1",
        "/ip6/ff02::1/udp/5/quic-v1",
        "/ip4/255.255.255.255/udp/5/quic-v1",
        "/ip4/203.0.113.9/udp/0/quic-v1",
        "/ip4/203.0.113.9/tcp/5",
        "/dns4/example.org/udp/5/quic-v1",
        "/ip4/192.0.2.1/udp/4001/quic-v1",
        "/ip6/2001:db8::1/udp/5/quic-v1",
        "/ip4/127.0.0.1/udp/5/quic-v1",
        &circuit,
        &other,
    ];
    let observed = |text: &str| Message { observed_addr: Some(address(text).to_vec()), ..says("B") };
    for (said, kept) in good {
        let mut solo = solo();
        identified(&mut solo, "B", &observed(said));
        assert_eq!(own_addresses(&solo, AddressSource::Observed), [kept]);
    }
    for said in bad {
        let mut solo = solo();
        identified(&mut solo, "B", &observed(said));
        assert_eq!(own_addresses(&solo, AddressSource::Observed), [""; 0], "{said}");
        assert_eq!(infos(&mut solo)[0].observed, Some(address(said)), "what it said is told");
        counted(&solo, &[("identify.observed.refused", 1)]);
    }
}

#[test]
fn through_a_relay_nobody_is_told_and_nobody_is_believed() {
    let mut solo = solo();
    let relay = solo.connect("R");
    let _asking_the_relay = solo.open();
    let b = solo.connect_via("B", relay);
    answer(&mut solo, &says("B"));
    assert_eq!(own_addresses(&solo, AddressSource::Observed), [""; 0]);
    assert_eq!(ask(&mut solo, b).observed_addr, None);
    assert!(ask(&mut solo, relay).observed_addr.is_some());
}

#[test]
fn an_observed_address_lasts_as_long_as_somebody_sees_it() {
    let mut solo = solo();
    let b = identified(&mut solo, "B", &says("B"));
    let c = identified(&mut solo, "C", &says("C"));
    solo.disconnect(b);
    assert_eq!(own_addresses(&solo, AddressSource::Observed), [SEEN]);
    let moved = "/ip4/203.0.113.9/udp/7001/quic-v1";
    pushed(&mut solo, c, &Message { observed_addr: Some(address(moved).to_vec()), ..Message::default() });
    assert_eq!(own_addresses(&solo, AddressSource::Observed), [moved]);
    solo.disconnect(c);
    assert_eq!(own_addresses(&solo, AddressSource::Observed), [""; 0]);
    assert!(solo.behaviour.is_empty());
}

/// A peer at this IP address tells where it sees us.
fn observer(solo: &mut Solo<Identify>, name: &str, ip: &str, seen: &str) -> ConnectionId {
    let place = address(&format!("/ip4/{ip}/udp/4001/quic-v1"));
    let connection = solo.connect_with(name, |info| info.remote = place);
    answer(solo, &Message { observed_addr: Some(address(seen).to_vec()), ..says(name) });
    connection
}

#[test]
fn an_observed_address_is_believed_when_four_places_see_it_until_only_one_does() {
    let mut solo = solo();
    for n in 0..200 {
        observer(&mut solo, "liar", &format!("198.18.{n}.1"), "/ip4/192.0.2.66/udp/6/quic-v1");
    }
    assert_eq!(
        own_addresses(&solo, AddressSource::Confirmed),
        [""; 0],
        "a crowd in one place may be one liar"
    );
    let places = ["B", "C", "D", "E"].map(|name| (name, format!("{}.7.0.1", 11 + name.as_bytes()[0])));
    let seen: Vec<_> = places.iter().map(|(name, ip)| observer(&mut solo, name, ip, SEEN)).collect();
    assert_eq!(own_addresses(&solo, AddressSource::Confirmed), [SEEN]);
    solo.disconnect(seen[0]);
    solo.disconnect(seen[1]);
    assert_eq!(own_addresses(&solo, AddressSource::Confirmed), [SEEN], "each change is told to everybody");
    solo.disconnect(seen[2]);
    assert_eq!(own_addresses(&solo, AddressSource::Confirmed), [""; 0]);
    counted(&solo, &[("identify.observed.confirmed", 1)]);
}

#[test]
fn each_socket_has_three_confirmed_addresses_at_most_and_those_supported_best() {
    let mut solo = solo();
    let seen = |n: usize| format!("/ip4/203.0.113.{n}/udp/7000/quic-v1");
    // Address n is seen from 3 + n places.
    for n in 1..=8 {
        for place in 0..3 + n {
            observer(&mut solo, "B", &format!("{}.{place}.0.1", 20 + n), &seen(n));
        }
    }
    assert_eq!(own_addresses(&solo, AddressSource::Confirmed), [6, 7, 8].map(seen));
    // Who comes to us may be a crowd of liars; where we go is our own choice.
    for place in 0..4 {
        let remote = address(&format!("/ip4/99.{place}.0.1/udp/4001/quic-v1"));
        solo.connect_with("C", |info| (info.remote, info.direction) = (remote, Direction::Outbound));
        answer(&mut solo, &Message { observed_addr: Some(address(&seen(9)).to_vec()), ..says("C") });
    }
    assert_eq!(own_addresses(&solo, AddressSource::Confirmed), [7, 8, 9].map(seen));
    // Another socket has its own three.
    let other = "[::]:4001".parse().unwrap();
    for place in 0..4 {
        let remote = address(&format!("/ip6/2001:{place}::1/udp/4001/quic-v1"));
        solo.connect_with("D", |info| (info.remote, info.socket) = (remote, Some(other)));
        let observed = address("/ip6/2001:db8::1/udp/7000/quic-v1").to_vec();
        answer(&mut solo, &Message { observed_addr: Some(observed), ..says("D") });
    }
    assert_eq!(own_addresses(&solo, AddressSource::Confirmed).len(), 4);
}

#[test]
fn what_is_seen_of_a_socket_where_nobody_can_connect_says_nothing() {
    let mut solo = solo();
    for place in 0..8 {
        let remote = address(&format!("/ip4/{}.0.0.1/udp/4001/quic-v1", 20 + place));
        solo.connect_with("B", |info| (info.remote, info.socket) = (remote, None));
        answer(&mut solo, &says("B"));
    }
    assert_eq!(own_addresses(&solo, AddressSource::Observed), [""; 0]);
    counted(&solo, &[("identify.observed.not_listening", 8)]);
}

#[test]
fn what_was_seen_of_a_socket_that_is_gone_is_forgotten() {
    let mut solo = solo();
    let seen: Vec<_> = (0..4).map(|n| observer(&mut solo, "B", &format!("2{n}.7.0.1"), SEEN)).collect();
    assert_eq!(own_addresses(&solo, AddressSource::Confirmed), [SEEN]);
    for connection in &seen {
        solo.connections.set_socket(*connection, None);
    }
    listen(&mut solo, LISTEN);
    assert_eq!(own_addresses(&solo, AddressSource::Observed), [""; 0]);
    assert_eq!(own_addresses(&solo, AddressSource::Confirmed), [""; 0]);
}

#[test]
fn changes_that_follow_each_other_closely_are_pushed_together() {
    let mut solo = solo();
    let b = identified(&mut solo, "B", &says("B"));
    let mut pushes = 0;
    // Five minutes in which an address changes every 100 ms.
    for n in 0..3000 {
        listen(&mut solo, &format!("/ip4/198.51.100.2/udp/{}/quic-v1", 5000 + n));
        if n > 0 {
            solo.addresses.remove(
                &address(&format!("/ip4/198.51.100.2/udp/{}/quic-v1", 4999 + n)),
                AddressSource::Listen,
            );
        }
        while !solo.opening().is_empty() {
            assert_eq!(solo.opening(), [b]);
            let stream = solo.open();
            pushes += 1;
            solo.finish(stream);
        }
        solo.advance(Duration::from_millis(100));
    }
    assert!((50..=65).contains(&pushes), "{pushes} pushes in 5 minutes, of which 150 would be accepted");
    solo.advance(Duration::from_secs(10));
    while !solo.opening().is_empty() {
        let stream = solo.open();
        let push = told(&mut solo, stream);
        assert_eq!(push.listen_addrs, [address("/ip4/198.51.100.2/udp/7999/quic-v1").to_vec()]);
        solo.finish(stream);
    }
    let asked = ask(&mut solo, b);
    assert_eq!(asked.listen_addrs, [address("/ip4/198.51.100.2/udp/7999/quic-v1").to_vec()]);
}

#[test]
fn a_peer_is_told_what_it_can_use_from_where_it_is() {
    let mut solo = solo();
    for ip in ["198.51.100.2", "10.0.0.2", "127.0.0.1"] {
        listen(&mut solo, &format!("/ip4/{ip}/udp/4001/quic-v1"));
    }
    let told_at = |solo: &mut Solo<Identify>, remote: &str| {
        let place = address(&format!("/ip4/{remote}/udp/9/quic-v1"));
        let connection = solo.connect_with("B", |info| info.remote = place);
        let message = ask(solo, connection);
        let record = Envelope::decode(&message.signed_peer_record.unwrap()).unwrap();
        let record = PeerRecord::open(&record).unwrap();
        let signed: Vec<_> = record.addresses.iter().map(Multiaddr::to_vec).collect();
        assert_eq!(signed, message.listen_addrs, "no more in the record");
        (message.listen_addrs.len(), record.seq)
    };
    let (world, site, machine) = (
        told_at(&mut solo, "203.0.113.1"),
        told_at(&mut solo, "192.168.1.1"),
        told_at(&mut solo, "127.0.0.1"),
    );
    assert_eq!((world.0, site.0, machine.0), (1, 2, 3));
    assert!(world.1 < site.1 && site.1 < machine.1, "who is told more has the newer record");
    assert_eq!(told_at(&mut solo, "203.0.113.2"), world);
}

#[test]
fn where_somebody_else_is_we_are_not() {
    let mut solo = solo();
    let relay = "/ip4/203.0.113.77/udp/4001/quic-v1";
    solo.connect_with("R", |info| info.remote = address(relay));
    let _asking_the_relay = solo.open();
    for n in 1..6 {
        observer(&mut solo, "B", &format!("{n}.7.0.1"), relay);
    }
    assert_eq!(own_addresses(&solo, AddressSource::Observed), [""; 0]);
}

#[test]
fn nothing_is_left_of_a_peer_that_is_gone() {
    let mut solo = solo();
    let b = identified(&mut solo, "B", &says("B"));
    listen(&mut solo, LISTEN);
    let _pushing = solo.open();
    let _asking = solo.accept(b, &PROTOCOL);
    let _telling = solo.accept(b, &PUSH_PROTOCOL);
    listen(&mut solo, SEEN);
    let c = solo.connect("C");
    assert!(!solo.behaviour.is_empty());
    solo.disconnect(b);
    solo.disconnect(c);
    assert!(solo.behaviour.is_empty());
    let stale = solo.open();
    solo.receive(stale, says("C").encode_to_vec());
    solo.finish(stale);
    assert!(solo.behaviour.is_empty());
    assert_eq!(infos(&mut solo).len(), 1);
}

#[test]
fn laws() {
    let signed = Message { signed_peer_record: Some(record("B", 1, &[LISTEN]).encode()), ..says("B") };
    let anybody = Message { public_key: None, ..says("B") };
    let messages = [signed, anybody, Message::default()];
    let frames = messages.iter().flat_map(|message| {
        let frame = bytes::Bytes::from(message.encode_to_vec());
        [(PROTOCOL, frame.clone()), (PUSH_PROTOCOL, frame)]
    });
    let laws = Laws {
        make: || Identify::new(Config::default()),
        command: |_, _| (),
        settle: |_| (),
        entries: Identify::len,
        frames: frames.collect(),
        most_actions: 40,
        reaches: &["identify.answered", "identify.push.sent", "identify.push.received"],
    };
    laws.check(40);
}
