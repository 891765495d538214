//! The rendezvous point, story by story: who is registered, who finds whom, and what survives.

use std::{collections::BTreeSet, time::Duration};

use peerless_core::{
    behaviour::{Input, StreamEvent},
    ids::{ConnectionId, StreamId},
    info::Info,
    protocols::rendezvous::{
        RENDEZVOUS, Status,
        server::{Config, Event, Limits, Server},
    },
    rate::Rate,
    storage::StoreError,
};
use peerless_proto::{
    PeerId,
    pb::{Message as _, rendezvous::Message},
    peer_record::Dialect,
};
use peerless_tests::{
    laws::Laws,
    solo::{Solo, peer},
};

#[path = "rendezvous_server/point.rs"]
mod point;
use point::*;

const TICK: Duration = Duration::from_nanos(1);
/// How long a store that failed is left alone.
const REST: Duration = Duration::from_secs(1);

/// Registers and says how that ended.
fn status(solo: &mut Solo<Server>, connection: ConnectionId, message: &Message) -> Status {
    registered(ask(solo, connection, message)).0
}

// (a) Clients of every kind.

#[test]
fn a_each_client_is_answered_in_the_dialect_it_registers_with() {
    let mut solo = point();
    let clients = ["standard", "rust", "py"].map(|name| (name, solo.connect(name)));
    let records =
        [signed("standard", 1, Dialect::Standard), signed("rust", 1, Dialect::RoutingState), peer_info("py")];
    for ((_, connection), record) in clients.iter().zip(&records) {
        assert_eq!(status(&mut solo, *connection, &register("ns", record.clone(), None)), Status::Ok);
    }
    let kinds = |solo: &mut Solo<Server>, connection: ConnectionId, any: bool| {
        let mut question = discover(Some("ns"), None, None);
        question.discover.as_mut().unwrap().any_dialect = any.then_some(true);
        let answer = ask(solo, connection, &question).unwrap().discover_response.unwrap();
        let records = answer.registrations.into_iter().map(|found| found.signed_peer_record.unwrap());
        records.collect::<Vec<_>>()
    };
    let [(_, standard), (_, rust), (_, py)] = clients;
    assert_eq!(kinds(&mut solo, standard, false), [records[0].clone()], "as it was received");
    assert_eq!(kinds(&mut solo, rust, false), [records[1].clone()], "and nothing it would stumble over");
    let unsigned = kinds(&mut solo, py, false);
    let owners: Vec<_> = unsigned.iter().map(|record| owner(record)).collect();
    assert_eq!(owners, ["standard", "rust", "py"].map(|name| (peer(name), None)), "made of the signed ones");
    assert_eq!(kinds(&mut solo, standard, true), records, "one that reads all is given all");
    assert_eq!(solo.counters.get("rendezvous.left_out"), 4);

    // A client that registers in two dialects is found by those who read either.
    let both = solo.connect("both");
    for dialect in [Dialect::Standard, Dialect::RoutingState] {
        let message = register("ns", signed("both", 1, dialect), None);
        assert_eq!(status(&mut solo, both, &message), Status::Ok);
    }
    for (connection, dialect) in [(standard, Dialect::Standard), (rust, Dialect::RoutingState)] {
        let found = kinds(&mut solo, connection, false);
        assert_eq!(owner(found.last().unwrap()), (peer("both"), Some(dialect)));
        assert_eq!(found.len(), 2);
    }
}

#[test]
fn a_one_request_may_bring_both_signed_dialects_and_each_is_verified() {
    let mut solo = point();
    let [both, rust] = ["both", "rust"].map(|name| solo.connect(name));
    let asking = |seq, other: Vec<u8>| {
        let mut message = register("ns", signed("both", seq, Dialect::Standard), None);
        message.register.as_mut().unwrap().other_record = Some(other);
        message
    };
    let mut altered = signed("both", 1, Dialect::RoutingState);
    *altered.last_mut().unwrap() ^= 1;
    let same_dialect = signed("both", 0, Dialect::Standard);
    for bad in [altered, same_dialect, signed("rust", 1, Dialect::RoutingState), vec![], vec![0; 1 << 20]] {
        let message = asking(1, bad);
        assert_ne!(status(&mut solo, both, &message), Status::Ok);
        assert_eq!(solo.behaviour.registrations(), 0, "all of it or nothing");
    }
    for seq in [2, 3, 3] {
        let message = asking(seq, signed("both", seq, Dialect::RoutingState));
        assert_eq!(status(&mut solo, both, &message), Status::Ok);
    }
    assert_eq!(
        status(&mut solo, both, &asking(3, signed("both", 2, Dialect::RoutingState))),
        Status::InvalidSignedPeerRecord
    );
    let same_dialect = asking(3, signed("both", 4, Dialect::Standard));
    assert_eq!(status(&mut solo, both, &same_dialect), Status::InvalidSignedPeerRecord);
    let message = register("ns", signed("rust", 1, Dialect::RoutingState), None);
    assert_eq!(status(&mut solo, rust, &message), Status::Ok);
    for (connection, expected) in [
        (rust, vec![signed("both", 3, Dialect::RoutingState), signed("rust", 1, Dialect::RoutingState)]),
        (both, vec![signed("both", 3, Dialect::Standard)]),
    ] {
        let answer = ask(&mut solo, connection, &discover(Some("ns"), None, None)).unwrap();
        let found = answer.discover_response.unwrap().registrations.into_iter();
        assert_eq!(found.map(|found| found.signed_peer_record.unwrap()).collect::<Vec<_>>(), expected);
    }
}

/// A point where one peer is registered in each dialect, under `ns`.
fn point_of_all() -> Solo<Server> {
    let mut solo = point();
    let records = [("standard", record("standard")), ("py", peer_info("py"))];
    for (name, record) in [("rust", signed("rust", 1, Dialect::RoutingState))].into_iter().chain(records) {
        let connection = solo.connect(name);
        assert_eq!(status(&mut solo, connection, &register("ns", record, None)), Status::Ok);
        solo.disconnect(connection);
    }
    solo
}

/// Asks for `ns` on a new stream.
fn question(solo: &mut Solo<Server>, connection: ConnectionId) -> StreamId {
    let stream = solo.accept(connection, &RENDEZVOUS);
    solo.receive(stream, discover(Some("ns"), None, None).encode_to_vec());
    stream
}

/// Who is in the answer on a stream, and in which dialect; `None` if there is no answer.
fn kinds(solo: &mut Solo<Server>, stream: StreamId) -> Option<Vec<(PeerId, Option<Dialect>)>> {
    let answer = take(solo, stream)?.discover_response.expect("an answer to a discovery");
    let records = answer.registrations.into_iter().map(|found| found.signed_peer_record.expect("a record"));
    Some(records.map(|record| owner(&record)).collect())
}

fn standard() -> Vec<(PeerId, Option<Dialect>)> {
    vec![(peer("standard"), Some(Dialect::Standard))]
}

fn older() -> Vec<(PeerId, Option<Dialect>)> {
    vec![(peer("rust"), Some(Dialect::RoutingState))]
}

fn unsigned() -> Vec<(PeerId, Option<Dialect>)> {
    ["rust", "standard", "py"].map(|name| (peer(name), None)).to_vec()
}

#[test]
fn a_who_has_never_registered_is_known_by_its_library_or_reads_the_standard() {
    let mut solo = point_of_all();
    let named = |agent: &str| library(agent);
    let own_agent = |certified, version: &str| Info {
        certified,
        protocol_version: version.into(),
        ..library("my-node/1.0")
    };
    for (info, expected) in [
        (named("rust-libp2p/0.48.0"), older()),
        (named("py-libp2p/0.8.1"), unsigned()),
        (named("github.com/libp2p/go-libp2p"), unsigned()),
        (named("example.org/node@v1.2.3"), unsigned()),
        (named("js-libp2p/3.3.11 node/v24"), standard()),
        (named("nim-libp2p/0.0.1"), standard()),
        (named(""), standard()),
        (own_agent(false, "/my-net/1.0.0"), older()),
        (own_agent(true, "/my-net/1.0.0"), standard()),
        (own_agent(false, "ipfs/0.1.0"), standard()),
    ] {
        let connection = solo.connect("guest");
        identified(&mut solo, connection, &info);
        let stream = question(&mut solo, connection);
        assert_eq!(kinds(&mut solo, stream), Some(expected), "{} {}", info.agent, info.protocol_version);
        solo.disconnect(connection);
    }
}

#[test]
fn a_nothing_that_a_stranger_may_not_read_is_given_to_it_even_if_there_is_nothing_else() {
    let mut solo = point();
    let go = solo.connect("go");
    assert_eq!(status(&mut solo, go, &register("ns", peer_info("go"), None)), Status::Ok);
    let stranger = solo.connect("stranger");
    identified(&mut solo, stranger, &library(""));
    let stream = question(&mut solo, stranger);
    assert_eq!(kinds(&mut solo, stream), Some(vec![]));
    assert_eq!(solo.counters.get("rendezvous.left_out"), 1);
}

#[test]
fn a_a_question_waits_for_identify_and_those_behind_it_wait_too() {
    let mut solo = point_of_all();
    let guest = solo.connect("guest");
    let streams = [question(&mut solo, guest), question(&mut solo, guest)];
    solo.receive(streams[0], discover(Some("elsewhere"), None, None).encode_to_vec());
    solo.advance(Duration::from_millis(1999));
    for stream in streams {
        assert_eq!(kinds(&mut solo, stream), None);
    }
    identified(&mut solo, guest, &library("rust-libp2p/0.48.0"));
    let answers = solo.sent(streams[0]);
    assert_eq!(answers.len(), 2, "in the order of the questions");
    assert_eq!(kinds(&mut solo, streams[1]), Some(older()));
    assert_eq!(solo.counters.get("rendezvous.identify_missing"), 0);
}

#[test]
fn a_a_question_waits_two_seconds_for_identify_and_then_the_standard_is_the_guess() {
    let mut solo = point_of_all();
    let guest = solo.connect("guest");
    let first = question(&mut solo, guest);
    solo.advance(Duration::from_secs(2));
    assert_eq!(kinds(&mut solo, first), Some(standard()));
    assert_eq!(solo.counters.get("rendezvous.identify_missing"), 1);
    let second = question(&mut solo, guest);
    assert_eq!(kinds(&mut solo, second), Some(standard()), "it waits once");

    identified(&mut solo, guest, &library("py-libp2p/0.8.1"));
    let third = question(&mut solo, guest);
    assert_eq!(kinds(&mut solo, third), Some(unsigned()), "better late than never");
}

#[test]
fn a_no_question_waits_of_whom_the_dialect_is_known_otherwise() {
    let mut solo = point_of_all();
    let any = solo.connect("any");
    let mut message = discover(Some("ns"), None, None);
    message.discover.as_mut().unwrap().any_dialect = Some(true);
    let stream = solo.accept(any, &RENDEZVOUS);
    solo.receive(stream, message.encode_to_vec());
    assert_eq!(kinds(&mut solo, stream).map(|found| found.len()), Some(3));

    let rust = solo.connect("rust");
    let stream = question(&mut solo, rust);
    assert_eq!(kinds(&mut solo, stream), Some(older()), "it registered on an earlier connection");

    // A registration meanwhile ends the wait.
    let late = solo.connect("late");
    let stream = question(&mut solo, late);
    assert_eq!(status(&mut solo, late, &register("elsewhere", peer_info("late"), None)), Status::Ok);
    assert_eq!(kinds(&mut solo, stream), Some(unsigned()));
}

#[test]
fn a_the_connections_that_are_waited_for_are_counted_and_leave_nothing() {
    let mut solo = point_of_all();
    let before = solo.behaviour.len();
    let connections: Vec<_> = (0..1025).map(|n| solo.connect(&format!("guest {n}"))).collect();
    let streams: Vec<_> = connections.iter().map(|connection| question(&mut solo, *connection)).collect();
    assert_eq!(kinds(&mut solo, streams[1023]), None);
    assert_eq!(kinds(&mut solo, streams[1024]), Some(standard()), "one too many is answered by a guess");
    assert_eq!(solo.counters.get("rendezvous.identify_not_awaited"), 1);
    connections.into_iter().for_each(|connection| solo.disconnect(connection));
    assert_eq!(solo.behaviour.len(), before);
}

// (b) Cookies.

#[test]
fn b_a_cookie_gives_only_what_is_new_since() {
    let mut solo = point();
    let [a, b, c] = ["A", "B", "C"].map(|name| solo.connect(name));
    enlist(&mut solo, a, "A", "ns");
    let first = find(&mut solo, b, Some("ns"), None, None);
    assert_eq!((first.status, first.ids()), (Status::Ok, vec![peer("A")]));
    enlist(&mut solo, c, "C", "ns");
    enlist(&mut solo, c, "C", "elsewhere");
    let second = find(&mut solo, b, Some("ns"), None, Some(&first.cookie));
    assert_eq!(second.ids(), [peer("C")]);
    let third = find(&mut solo, b, Some("ns"), None, Some(&second.cookie));
    assert_eq!((third.status, third.ids()), (Status::Ok, vec![]));
    assert_eq!(find(&mut solo, b, Some("ns"), None, Some(&third.cookie)).ids(), [], "nor a fourth");

    // Those who follow hear of a refresh, or they would think that A is gone when its first time is up.
    solo.advance(HOUR);
    enlist(&mut solo, a, "A", "ns");
    let news = find(&mut solo, b, Some("ns"), None, Some(&third.cookie));
    assert_eq!(news.peers, [(peer("A"), "ns".into(), 7200)]);
}

#[test]
fn b_a_cookie_that_was_altered_or_is_from_elsewhere_is_invalid() {
    let mut solo = limited(Limits::unlimited());
    let a = solo.connect("A");
    enlist(&mut solo, a, "A", "ns");
    enlist(&mut solo, a, "A", "other");
    let cookies = [None, Some("ns"), Some("other"), Some("nobody is here")]
        .map(|ns| (ns, find(&mut solo, a, ns, None, None).cookie));
    for (of, cookie) in &cookies {
        for (at, _) in &cookies {
            let expected = if of == at { Status::Ok } else { Status::InvalidCookie };
            let found = find(&mut solo, a, *at, None, Some(cookie));
            assert_eq!(found.status, expected, "of {of:?} at {at:?}");
        }
        for bit in 0..8 * cookie.len() {
            let mut forged = cookie.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(find(&mut solo, a, *of, None, Some(&forged)).status, Status::InvalidCookie, "{bit}");
        }
        assert_eq!(find(&mut solo, a, *of, None, Some(b"x")).status, Status::InvalidCookie);
    }
    assert_eq!(Status::InvalidCookie.code(), 103);
    // What is kept in memory alone begins anew: the cookies of the life before tell nothing about it.
    let mut other = Solo::seeded("R", Server::new(Config::default()), [9; 32]);
    other.input(Input::Addresses);
    let a = other.connect("A");
    let found = find(&mut other, a, Some("ns"), None, Some(&cookies[1].1));
    assert_eq!(found.status, Status::InvalidCookie);
}

// (c) Paging.

/// Many peers, each with a connection that is closed again.
fn crowd(solo: &mut Solo<Server>, count: usize, ns: &str, ttl: impl Fn(usize) -> Option<u64>) -> Vec<PeerId> {
    solo.mute();
    (0..count)
        .map(|n| {
            let name = format!("P{n}");
            let connection = solo.connect(&name);
            let answer = ask(solo, connection, &register(ns, peer_info(&name), ttl(n)));
            assert_eq!(registered(answer).0, Status::Ok, "{name}");
            solo.disconnect(connection);
            peer(&name)
        })
        .collect()
}

#[test]
fn c_paging_gives_each_of_2500_once_while_others_refresh_expire_and_come() {
    let mut solo = limited(Limits::unlimited());
    // Every fifth has two hours, the others three.
    let ttl = |n: usize| Some(if n.is_multiple_of(5) { 7200 } else { 10_800 });
    let all = crowd(&mut solo, 2500, "ns", ttl);
    let reader = solo.connect("reader");
    let message = register("elsewhere", peer_info("reader"), None);
    assert_eq!(status(&mut solo, reader, &message), Status::Ok);
    let (mut seen, mut cookie, mut pages) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        // Its own registration expires meanwhile; what it reads is known none the less.
        let page = find(&mut solo, reader, Some("ns"), Some(1000), Some(&cookie));
        assert_eq!(page.status, Status::Ok);
        pages.push(page.peers.len());
        seen.extend(page.ids());
        cookie = page.cookie;
        if pages.last() < Some(&1000) {
            break;
        }
        // In between one in seven refreshes, read or not, and somebody new comes.
        for n in (0..2500).step_by(7).filter(|n| *n % 5 != 0) {
            let name = format!("P{n}");
            let connection = solo.connect(&name);
            let refresh = register("ns", peer_info(&name), Some(10_800));
            assert_eq!(status(&mut solo, connection, &refresh), Status::Ok);
            solo.disconnect(connection);
        }
        let late = format!("late {}", pages.len());
        let connection = solo.connect(&late);
        assert_eq!(status(&mut solo, connection, &register("ns", peer_info(&late), None)), Status::Ok);
        solo.disconnect(connection);
        if pages.len() == 1 {
            solo.advance(2 * HOUR);
        }
    }
    let unique: BTreeSet<_> = seen.iter().copied().collect();
    assert_eq!(unique.len(), seen.len(), "nobody comes twice");
    // The first page was read before anybody had expired; of the rest, one in five has.
    let lives = |n: usize| n < 1000 || !n.is_multiple_of(5);
    let expected: BTreeSet<_> = (0..2500).filter(|n| lives(*n)).map(|n| all[n]).collect();
    assert!(unique == expected, "{} of {}: nobody is missing", unique.len(), expected.len());
    assert_eq!(pages, [1000, 1000, 200]);
    // What came and what was refreshed meanwhile comes next.
    let news = find(&mut solo, reader, Some("ns"), None, Some(&cookie));
    let refreshed = (0..2500).step_by(7).filter(|n| *n % 5 != 0).map(|n| all[n]);
    let expected: BTreeSet<_> = refreshed.chain([peer("late 2")]).collect();
    let news: BTreeSet<_> = news.ids().into_iter().collect();
    assert!(news.is_superset(&expected), "{} of {}", news.len(), expected.len());
    assert!(news.difference(&expected).eq([&peer("late 1")]) || news == expected);
}

#[test]
fn c_answers_stay_below_a_mebibyte_and_all_namespaces_are_read_with_one_cookie() {
    let mut solo = limited(Limits { max_record: 32 << 10, ..Limits::unlimited() });
    let names: Vec<String> = (0..60).map(|n| format!("P{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        let connection = solo.connect(name);
        let addresses = (0..450).map(|port| {
            peerless_tests::solo::address(&format!(
                "/dns/a-long-name-of-a-host-{port}.example.com/tcp/{port}"
            ))
        });
        let info = peerless_proto::pb::rendezvous::PeerInfo {
            id: Some(peer(name).to_bytes()),
            addrs: addresses.map(|address| address.to_vec()).collect(),
        };
        let message = register(&format!("ns {}", n % 7), info.encode_to_vec(), None);
        assert_eq!(status(&mut solo, connection, &message), Status::Ok);
    }
    let reader = solo.connections.iter().next().unwrap().id;
    let (mut seen, mut cookie, mut pages) = (BTreeSet::new(), Vec::new(), 0);
    while seen.len() < names.len() {
        // The length is asserted where the answer is taken.
        let page = find(&mut solo, reader, None, None, Some(&cookie));
        assert!(!page.peers.is_empty());
        seen.extend(page.peers);
        cookie = page.cookie;
        pages += 1;
    }
    assert_eq!((seen.len(), pages), (60, 2));
    assert_eq!(find(&mut solo, reader, None, None, Some(&cookie)).ids(), []);
}

// (d) Lifetimes.

#[test]
fn d_without_a_time_two_hours_are_granted_and_end_to_the_nanosecond() {
    let mut solo = point();
    let [a, b] = ["A", "B"].map(|name| solo.connect(name));
    enlist(&mut solo, a, "A", "ns");
    solo.advance(HOUR / 2 - TICK);
    let left = |solo: &mut Solo<Server>| find(solo, b, Some("ns"), None, None).peers.first().map(|p| p.2);
    assert_eq!(left(&mut solo), Some(5401), "what is left, rounded up");
    solo.advance(TICK);
    assert_eq!(left(&mut solo), Some(5400));
    solo.disconnect(a);
    solo.advance(3 * HOUR / 2 - TICK);
    assert_eq!(left(&mut solo), Some(1), "it outlives the connection");
    events(&mut solo);
    solo.advance(TICK);
    assert_eq!(left(&mut solo), None);
    assert_eq!(events(&mut solo), [Event::Expired { peer: peer("A"), namespace: "ns".into() }]);
    solo.disconnect(b);
    solo.advance(HOUR);
    assert_eq!((solo.behaviour.len(), solo.rows.len()), (0, 1), "the store keeps the epoch alone");
}

#[test]
fn d_what_was_asked_for_last_counts_be_it_longer_or_shorter() {
    let mut solo = point();
    let a = solo.connect("A");
    for (ttl, lasts) in [(7200, 2 * HOUR), (10_800, 3 * HOUR), (72 * 3600, 72 * HOUR), (7200, 2 * HOUR)] {
        enlist(&mut solo, a, "A", "ns");
        solo.advance(HOUR);
        assert_eq!(status(&mut solo, a, &register("ns", record("A"), Some(ttl))), Status::Ok);
        events(&mut solo);
        solo.advance(lasts - TICK);
        assert_eq!((solo.behaviour.registrations(), events(&mut solo)), (1, vec![]), "{ttl}");
        solo.advance(TICK);
        assert_eq!((solo.behaviour.registrations(), events(&mut solo).len()), (0, 1), "{ttl}");
    }
    // A shorter time than what is left.
    assert_eq!(status(&mut solo, a, &register("ns", record("A"), Some(72 * 3600))), Status::Ok);
    enlist(&mut solo, a, "A", "ns");
    solo.advance(2 * HOUR);
    assert_eq!(solo.behaviour.registrations(), 0);
}

#[test]
fn d_who_asks_for_a_time_out_of_bounds_is_told_the_bound() {
    let mut solo = limited(Limits { min_ttl: Duration::from_secs(600), ..Limits::default() });
    let a = solo.connect("A");
    let mut told = |ttl| {
        let answer = ask(&mut solo, a, &register("ns", record("A"), Some(ttl)));
        answer.unwrap().register_response.unwrap().status_text.unwrap()
    };
    assert_eq!(told(599), "the time is too short, at least 600 s");
    assert_eq!(told(72 * 3600 + 1), "the time is too long, at most 259200 s");
}

#[test]
fn d_times_out_of_bounds_are_refused() {
    let mut solo = point();
    let a = solo.connect("A");
    for (ttl, expected) in [
        (0, Status::InvalidTtl),
        (1, Status::InvalidTtl),
        (7199, Status::InvalidTtl),
        (7200, Status::Ok),
        (72 * 3600, Status::Ok),
        (72 * 3600 + 1, Status::InvalidTtl),
        (73 * 3600, Status::InvalidTtl),
        (u64::MAX, Status::InvalidTtl),
    ] {
        let answer = ask(&mut solo, a, &register("ns", record("A"), Some(ttl)));
        let granted = (expected == Status::Ok).then_some(ttl);
        assert_eq!(registered(answer), (expected, granted), "{ttl}");
    }
    assert_eq!(Status::InvalidTtl.code(), 102);
    let mut short = limited(Limits { min_ttl: Duration::ZERO, ..Limits::default() });
    let a = short.connect("A");
    assert_eq!(status(&mut short, a, &register("ns", record("A"), Some(0))), Status::InvalidTtl);
    assert_eq!(status(&mut short, a, &register("ns", record("A"), Some(1))), Status::Ok);
    short.advance(Duration::from_secs(1));
    assert_eq!(short.behaviour.registrations(), 0);
}

#[test]
fn d_namespaces_have_1_to_255_bytes() {
    let mut solo = point();
    let a = solo.connect("A");
    let euros = "€".repeat(85);
    for (ns, expected) in [
        (String::new(), Status::InvalidNamespace),
        ("n".into(), Status::Ok),
        (euros.clone(), Status::Ok),
        (euros + "n", Status::InvalidNamespace),
    ] {
        assert_eq!(status(&mut solo, a, &register(&ns, record("A"), None)), expected, "{ns}");
        let found = find(&mut solo, a, Some(&ns), None, None);
        assert_eq!(found.status, if ns.is_empty() { Status::Ok } else { expected }, "empty is all");
    }
    let mut none = register("", record("A"), None);
    none.register.as_mut().unwrap().ns = None;
    assert_eq!(status(&mut solo, a, &none), Status::InvalidNamespace);
}

// (e) Whose records.

#[test]
fn e_forged_records_and_those_of_others_are_refused() {
    let mut solo = point();
    let a = solo.connect("A");
    let good = record("A");
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    let foreign = [record("B"), signed("B", 1, Dialect::RoutingState), peer_info("B")];
    // B signs what it says of A.
    let mut stolen = record("B");
    let (whose, as_whose) = (peer("B").to_bytes(), peer("A").to_bytes());
    let at = stolen.windows(whose.len()).position(|window| window == whose).expect("B's id");
    stolen[at..at + whose.len()].copy_from_slice(&as_whose);
    for bad in [forged, stolen, b"junk".to_vec(), vec![], vec![0; 9000]] {
        let message = register("ns", bad, None);
        assert_eq!(status(&mut solo, a, &message), Status::InvalidSignedPeerRecord);
    }
    for record in foreign {
        assert_eq!(status(&mut solo, a, &register("ns", record, None)), Status::NotAuthorized);
    }
    assert_eq!((Status::InvalidSignedPeerRecord.code(), Status::NotAuthorized.code()), (101, 200));
    assert_eq!((solo.behaviour.registrations(), solo.behaviour.namespaces()), (0, 0));
    assert_eq!(solo.behaviour.registrants(), 0);
    assert_eq!(status(&mut solo, a, &register("ns", good, None)), Status::Ok);
}

#[test]
fn e_a_record_is_not_rolled_back_and_a_renamed_unregister_takes_nothing_of_others() {
    let mut solo = point();
    let [a, b] = ["A", "B"].map(|name| solo.connect(name));
    for (seq, expected) in [
        (5, Status::Ok),
        (4, Status::InvalidSignedPeerRecord),
        (5, Status::Ok),
        (6, Status::Ok),
        (5, Status::InvalidSignedPeerRecord),
    ] {
        let message = register("ns", signed("A", seq, Dialect::Standard), None);
        assert_eq!(status(&mut solo, a, &message), expected, "{seq}");
    }
    // B names A, as old clients name themselves; the connection's peer counts.
    let mut theirs = unregister("ns");
    theirs.unregister.as_mut().unwrap().id = Some(peer("A").to_bytes());
    assert_eq!(ask(&mut solo, b, &theirs), None);
    assert_eq!(ask(&mut solo, a, &unregister("elsewhere")), None);
    assert_eq!(find(&mut solo, b, Some("ns"), None, None).ids(), [peer("A")]);
    events(&mut solo);
    assert_eq!(ask(&mut solo, a, &unregister("ns")), None);
    assert_eq!(find(&mut solo, b, Some("ns"), None, None).ids(), []);
    assert_eq!(events(&mut solo), [Event::Unregistered { peer: peer("A"), namespace: "ns".into() }]);
}

#[test]
fn e_an_unsigned_record_is_passed_on_without_what_is_no_address() {
    let mut solo = point();
    let a = solo.connect("A");
    let good = peerless_tests::solo::address("/ip4/192.0.2.1/tcp/1").to_vec();
    let info = peerless_proto::pb::rendezvous::PeerInfo {
        id: Some(peer("A").to_bytes()),
        addrs: vec![vec![0xff; 9], good.clone(), vec![]],
    };
    assert_eq!(status(&mut solo, a, &register("ns", info.encode_to_vec(), None)), Status::Ok);
    let answer = ask(&mut solo, a, &discover(Some("ns"), None, None)).unwrap().discover_response.unwrap();
    let record = answer.registrations[0].signed_peer_record.clone().unwrap();
    let record = peerless_proto::pb::rendezvous::PeerInfo::decode(&record[..]).unwrap();
    assert!(record.addrs.contains(&good) && !record.addrs.contains(&vec![0xff; 9]));
    let mut strict = point_with(Config { accept_unsigned: false, ..Config::default() });
    let a = strict.connect("A");
    let message = register("ns", peer_info("A"), None);
    assert_eq!(status(&mut strict, a, &message), Status::InvalidSignedPeerRecord);
}

// (f) Limits.

#[test]
fn f_at_each_cap_others_are_refused_and_ones_own_refresh_is_not() {
    let full = |limits: Limits, fill: &[(&str, &str)], refused: (&str, &str), counter: &str| {
        let mut solo = limited(limits);
        let at = |solo: &mut Solo<Server>, name: &str| {
            let known = solo.connections.of(&peer(name)).first().copied();
            known.unwrap_or_else(|| {
                solo.connect_with(name, |info| {
                    info.remote = peerless_tests::solo::address("/ip4/192.0.2.1/udp/1/quic-v1");
                })
            })
        };
        for (name, ns) in fill {
            let connection = at(&mut solo, name);
            enlist(&mut solo, connection, name, ns);
        }
        let (name, ns) = refused;
        let connection = at(&mut solo, name);
        let message = register(ns, record(name), None);
        assert_eq!(status(&mut solo, connection, &message), Status::Unavailable, "{counter}");
        assert_eq!(solo.counters.get(counter), 1, "{counter}: {:?}", solo.counters);
        for (name, ns) in fill {
            let connection = at(&mut solo, name);
            enlist(&mut solo, connection, name, ns);
        }
        // Room that is made is there at once.
        let (name, ns) = fill[0];
        let connection = at(&mut solo, name);
        ask(&mut solo, connection, &unregister(ns));
        let connection = at(&mut solo, refused.0);
        enlist(&mut solo, connection, refused.0, refused.1);
    };
    let none = Limits::unlimited;
    let total = Limits { max_registrations: 2, ..none() };
    full(total, &[("A", "1"), ("B", "2")], ("C", "3"), "rendezvous.refused.full");
    let of_peer = Limits { max_per_peer: 2, ..none() };
    full(of_peer, &[("A", "1"), ("A", "2"), ("B", "1")], ("A", "3"), "rendezvous.refused.peer_full");
    let in_namespace = Limits { max_per_namespace: 2, ..none() };
    let fill = [("A", "1"), ("B", "1"), ("A", "2")];
    full(in_namespace, &fill, ("C", "1"), "rendezvous.refused.namespace_full");
    let of_ip = Limits { max_per_ip: 2, ..none() };
    full(of_ip, &[("A", "1"), ("B", "2")], ("C", "1"), "rendezvous.refused.ip_full");
    assert_eq!(Status::Unavailable.code(), 400);
}

#[test]
fn f_moving_between_addresses_overfills_none() {
    let mut solo = limited(Limits { max_per_ip: 2, ..Limits::unlimited() });
    let at = |solo: &mut Solo<Server>, name: &str, host: u8| {
        solo.connect_with(name, |info| {
            info.remote = peerless_tests::solo::address(&format!("/ip4/192.0.2.{host}/udp/1/quic-v1"));
        })
    };
    for name in ["A", "B"] {
        for ns in ["1", "2"] {
            let connection = at(&mut solo, name, if name == "A" { 1 } else { 2 });
            enlist(&mut solo, connection, name, ns);
        }
    }
    // A refreshes from where B is: that succeeds, but A goes on counting where it was.
    let moved = at(&mut solo, "A", 2);
    enlist(&mut solo, moved, "A", "1");
    let third = at(&mut solo, "C", 1);
    assert_eq!(status(&mut solo, third, &register("1", record("C"), None)), Status::Unavailable);
    // Where there is room, it moves as a whole.
    let moved = at(&mut solo, "A", 3);
    enlist(&mut solo, moved, "A", "1");
    enlist(&mut solo, third, "C", "1");
    enlist(&mut solo, third, "C", "2");
    let third = at(&mut solo, "D", 3);
    assert_eq!(status(&mut solo, third, &register("1", record("D"), None)), Status::Unavailable);
}

#[test]
fn f_who_asks_too_often_is_told_so_and_may_ask_again_later() {
    let rate = Rate::new(3, 10);
    let mut solo = limited(Limits { request_rate_per_peer: rate, ..Limits::unlimited() });
    let [a, b] = ["A", "B"].map(|name| solo.connect(name));
    let ask = |solo: &mut Solo<Server>, connection| find(solo, connection, Some("x"), None, None).status;
    let statuses: Vec<_> = (0..4).map(|_| ask(&mut solo, a)).collect();
    assert_eq!(statuses, [Status::Ok, Status::Ok, Status::Ok, Status::Unavailable]);
    assert_eq!(ask(&mut solo, b), Status::Ok, "others are not held up");
    solo.disconnect(a);
    let a = solo.connect("A");
    assert_eq!(ask(&mut solo, a), Status::Unavailable, "a new connection does not help");
    solo.advance(Duration::from_secs(10));
    assert_eq!(ask(&mut solo, a), Status::Ok);
    let mut solo = limited(Limits { request_rate_per_ip: rate, ..Limits::unlimited() });
    let names = ["A", "B", "C", "D"].map(|name| {
        solo.connect_with(name, |info| {
            info.remote = peerless_tests::solo::address("/ip6/2001:db8::1/udp/1/quic-v1");
        })
    });
    let statuses = names.map(|connection| ask(&mut solo, connection));
    assert_eq!(statuses, [Status::Ok, Status::Ok, Status::Ok, Status::Unavailable]);
}

// (g) Restarts, and the store.

#[test]
fn g_after_a_restart_everything_is_there_with_its_time_and_cookies_go_on() {
    let mut solo = point();
    let [a, b, reader] = ["A", "B", "reader"].map(|name| solo.connect(name));
    for n in 0..150 {
        enlist(&mut solo, a, "A", &format!("ns {n}"));
    }
    solo.advance(HOUR);
    enlist(&mut solo, b, "B", "ns 1");
    let before = find(&mut solo, reader, Some("ns 1"), None, None);
    assert_eq!(before.ids(), [peer("A"), peer("B")]);
    let all = find(&mut solo, reader, None, Some(100), None);

    let mut solo = restart(&solo, Duration::from_secs(300));
    assert_eq!(events(&mut solo), [Event::Loaded { registrations: 151 }]);
    let reader = solo.connect("reader");
    let found = find(&mut solo, reader, Some("ns 1"), None, None);
    assert_eq!(found.peers, [(peer("A"), "ns 1".into(), 3300), (peer("B"), "ns 1".into(), 6900)]);
    let c = solo.connect("C");
    enlist(&mut solo, c, "C", "ns 1");
    let news = find(&mut solo, reader, Some("ns 1"), None, Some(&before.cookie));
    assert_eq!((news.status, news.ids()), (Status::Ok, vec![peer("C")]));
    let rest = find(&mut solo, reader, None, None, Some(&all.cookie));
    assert_eq!((all.peers.len(), rest.peers.len()), (100, 51));

    // And again, after A's time: what has expired is not there and is not stored any more.
    let mut solo = restart(&solo, HOUR);
    assert_eq!(events(&mut solo), [Event::Loaded { registrations: 2 }]);
    assert_eq!(solo.rows.len(), 5, "the table, two peers, two registrations");
    solo.advance(2 * HOUR);
    assert_eq!((solo.behaviour.len(), solo.rows.len()), (0, 1));
}

#[test]
fn g_a_registration_is_acknowledged_when_it_is_stored_and_what_comes_meanwhile_goes_together() {
    let mut solo = point();
    solo.holds_store = true;
    let streams: Vec<_> = (0..5)
        .map(|n| {
            let name = format!("P{n}");
            let connection = solo.connect(&name);
            let stream = solo.accept(connection, &RENDEZVOUS);
            solo.receive(stream, register("ns", record(&name), None).encode_to_vec());
            stream
        })
        .collect();
    // What follows on the same stream waits for its turn.
    solo.receive(streams[0], discover(Some("ns"), None, None).encode_to_vec());
    assert_eq!(solo.storing(), 1, "one request at a time");
    assert!(streams.iter().all(|stream| solo.sent(*stream).is_empty()));
    events(&mut solo);
    solo.store_answers(Ok(()));
    let answered = |solo: &mut Solo<Server>| streams.iter().map(|s| solo.sent(*s).len()).collect::<Vec<_>>();
    assert_eq!(answered(&mut solo), [2, 0, 0, 0, 0]);
    assert_eq!(solo.storing(), 1, "the other four go together");
    solo.store_answers(Ok(()));
    assert_eq!(answered(&mut solo), [0, 1, 1, 1, 1]);
    assert_eq!((solo.storing(), events(&mut solo).len()), (0, 5));
}

#[test]
fn g_what_could_not_be_stored_is_refused_and_not_there() {
    let mut solo = point();
    let [a, b] = ["A", "B"].map(|name| solo.connect(name));
    enlist(&mut solo, a, "A", "ns");
    solo.holds_store = true;
    let failed = || Err(StoreError::Failed("no space".into()));
    for (connection, name, found) in [(a, "A", 1), (b, "B", 1)] {
        let stream = solo.accept(connection, &RENDEZVOUS);
        solo.receive(stream, register("ns", record(name), None).encode_to_vec());
        solo.store_answers(failed());
        assert_eq!(registered(take(&mut solo, stream)), (Status::Unavailable, None));
        solo.finish(stream);
        solo.advance(REST);
        while solo.storing() > 0 {
            solo.store_answers(Ok(()));
        }
        assert_eq!(find(&mut solo, a, Some("ns"), None, None).peers.len(), found, "{name}");
    }
    let failures =
        events(&mut solo).into_iter().filter(|event| matches!(event, Event::StoreFailed { .. })).count();
    assert_eq!(failures, 2);
    // Once it can, it is stored as a whole, though the point had seen the record before.
    solo.holds_store = false;
    enlist(&mut solo, b, "B", "ns");
    let solo = restart(&solo, Duration::ZERO);
    assert_eq!(solo.behaviour.registrations(), 2);
}

#[test]
fn g_requests_wait_while_the_store_is_read_and_are_refused_if_it_cannot_be() {
    for readable in [true, false] {
        let mut solo = Solo::new("R", Server::new(Config::default()));
        solo.holds_store = true;
        let a = solo.connect("A");
        let stream = solo.accept(a, &RENDEZVOUS);
        solo.receive(stream, register("ns", record("A"), None).encode_to_vec());
        assert!(solo.sent(stream).is_empty() && !solo.behaviour.is_ready());
        solo.holds_store = false;
        solo.store_answers(if readable { Ok(()) } else { Err(StoreError::Failed("torn".into())) });
        let expected = if readable { (Status::Ok, Some(7200)) } else { (Status::Unavailable, None) };
        assert_eq!(registered(take(&mut solo, stream)), expected);
        assert_eq!(solo.behaviour.is_ready(), readable);
        let found = find(&mut solo, a, Some("ns"), None, None);
        assert_eq!(found.status, expected.0);
    }
}

fn no_space() -> Result<(), StoreError> {
    Err(StoreError::Failed("no space".into()))
}

#[test]
fn g_a_store_that_could_not_be_read_is_read_again_later_and_later_until_it_can_be() {
    let mut solo = point();
    let a = solo.connect("A");
    enlist(&mut solo, a, "A", "ns");
    let rows = solo.rows.clone();
    let mut solo = Solo::new("R", Server::new(Config::default()));
    (solo.rows, solo.holds_store) = (rows, true);
    let a = solo.connect("A");
    for rest in [1, 2, 4, 8, 16, 32, 60, 60] {
        solo.store_answers(no_space());
        assert_eq!(find(&mut solo, a, Some("ns"), None, None).status, Status::Unavailable);
        solo.advance(Duration::from_secs(rest) - TICK);
        assert_eq!(solo.storing(), 0, "it is left alone for {rest} s");
        solo.advance(TICK);
        assert_eq!(solo.storing(), 1);
    }
    solo.holds_store = false;
    solo.store_answers(Ok(()));
    assert_eq!(find(&mut solo, a, Some("ns"), None, None).ids(), [peer("A")]);
    assert_eq!(events(&mut solo).pop(), Some(Event::Loaded { registrations: 1 }));
}

#[test]
fn g_a_store_that_failed_rests_and_then_gets_what_it_lacks_though_nobody_asks() {
    let mut solo = point();
    let a = solo.connect("A");
    for namespace in ["kept", "left"] {
        enlist(&mut solo, a, "A", namespace);
    }
    solo.holds_store = true;
    let tell = |solo: &mut Solo<Server>, message: &Message| {
        let stream = solo.accept(a, &RENDEZVOUS);
        solo.receive(stream, message.encode_to_vec());
        stream
    };
    tell(&mut solo, &unregister("left"));
    tell(&mut solo, &register("refused", record("A"), None));
    for _ in 0..3 {
        solo.store_answers(no_space());
        assert_eq!(solo.storing(), 0);
        let stream = tell(&mut solo, &register("refused", record("A"), None));
        assert_eq!(registered(take(&mut solo, stream)).0, Status::Unavailable, "at once");
        solo.advance(REST - TICK);
        assert_eq!(solo.storing(), 0, "it is left alone");
        solo.advance(TICK);
        assert_eq!(solo.storing(), 1, "and then tried again");
    }
    solo.store_answers(Ok(()));
    assert_eq!(solo.storing(), 0);
    assert_eq!(solo.counters.get("rendezvous.refused.store_failed"), 4);
    let mut solo = restart(&solo, Duration::ZERO);
    let reader = solo.connect("A");
    assert_eq!(find(&mut solo, reader, None, None, None).peers, [(peer("A"), "kept".into(), 7197)]);
}

#[test]
fn g_a_refresh_that_was_acknowledged_outlives_the_failure_of_what_it_refreshed() {
    for second_fails in [false, true] {
        let mut solo = point();
        let a = solo.connect("A");
        solo.holds_store = true;
        let [first, second] = [(); 2].map(|()| {
            let stream = solo.accept(a, &RENDEZVOUS);
            solo.receive(stream, register("ns", record("A"), None).encode_to_vec());
            stream
        });
        solo.store_answers(no_space());
        assert_eq!(registered(take(&mut solo, first)).0, Status::Unavailable);
        solo.advance(REST);
        solo.store_answers(if second_fails { no_space() } else { Ok(()) });
        let (expected, left) = if second_fails { (Status::Unavailable, 0) } else { (Status::Ok, 1) };
        assert_eq!(registered(take(&mut solo, second)).0, expected);
        assert_eq!(solo.behaviour.registrations(), left);
        solo.advance(REST);
        while solo.storing() > 0 {
            solo.store_answers(Ok(()));
        }
        assert_eq!(restart(&solo, Duration::ZERO).behaviour.registrations(), left);
    }
}

#[test]
fn g_numbers_that_were_reserved_while_the_store_failed_are_given_to_nobody_else() {
    let mut solo = Solo::new("R", Server::new(Config::default()));
    let a = solo.connect("A");
    solo.holds_store = true;
    let stream = solo.accept(a, &RENDEZVOUS);
    solo.receive(stream, register("ns", record("A"), None).encode_to_vec());
    solo.store_answers(no_space());
    take(&mut solo, stream);
    solo.advance(REST);
    while solo.storing() > 0 {
        solo.store_answers(Ok(()));
    }
    solo.holds_store = false;
    enlist(&mut solo, a, "A", "ns");
    let cookie = find(&mut solo, a, Some("ns"), None, None).cookie;
    let mut solo = restart(&solo, Duration::ZERO);
    let reader = solo.connect("A");
    let news = find(&mut solo, reader, Some("ns"), None, Some(&cookie));
    assert_eq!((news.status, news.peers.len()), (Status::Ok, 0), "the cookie is still good");
}

#[test]
fn g_bad_rows_are_passed_over() {
    let mut solo = point();
    let a = solo.connect("A");
    enlist(&mut solo, a, "A", "ns");
    let table = solo.rows.keys().next().unwrap().0;
    let (good, rows) = (solo.rows.clone(), solo.rows.len());
    for (key, value) in [
        (&b"x"[..], &b"what"[..]),
        (b"p", b""),
        (b"pnobody", b"\0"),
        (b"r\xffA", b"short"),
        (b"r", b""),
        (b"", b""),
    ] {
        solo.rows.insert((table, key.to_vec().into()), value.to_vec().into());
    }
    // Cut any value short, and flip any bit of it: the rest is still there, and nothing panics.
    for (key, value) in &good {
        for len in 0..value.len() {
            let mut torn = restart(&solo, Duration::ZERO);
            torn.rows.insert(key.clone(), value.slice(..len));
            let torn = restart(&torn, Duration::ZERO);
            assert!(torn.behaviour.registrations() <= 1);
        }
    }
    let after = restart(&solo, Duration::ZERO);
    assert_eq!((after.behaviour.registrations(), after.rows.len()), (1, rows));
    assert_eq!(after.counters.get("rendezvous.bad_row"), 6);
}

// Streams.

#[test]
fn requests_on_one_stream_are_answered_in_order_and_noise_ends_it() {
    let mut solo = point();
    let a = solo.connect("A");
    let stream = solo.accept(a, &RENDEZVOUS);
    for message in [
        register("ns", record("A"), None),
        discover(Some("ns"), None, None),
        unregister("ns"),
        discover(None, None, None),
    ] {
        solo.receive(stream, message.encode_to_vec());
    }
    let answers = solo.sent(stream);
    let counts: Vec<_> = answers
        .iter()
        .map(|frame| Message::decode(&frame[..]).unwrap())
        .map(|answer| answer.discover_response.map(|found| found.registrations.len()))
        .collect();
    assert_eq!(counts, [None, Some(1), Some(0)]);
    solo.receive(stream, &b"\xff\xff"[..]);
    assert!(!solo.is_open(stream));
    assert_eq!(solo.counters.get("rendezvous.malformed"), 1);
    // Somebody says nothing, or reads nothing.
    let silent = solo.accept(a, &RENDEZVOUS);
    solo.advance(Duration::from_secs(30));
    assert!(!solo.is_open(silent));
    solo.disconnect(a);
    assert_eq!(solo.behaviour.len(), 0);
}

#[test]
fn who_takes_no_answers_is_given_no_more() {
    let mut solo = limited(Limits::unlimited());
    let ns = &"n".repeat(40);
    crowd(&mut solo, 900, ns, |_| None);
    let reader = solo.connect("reader");
    identified(&mut solo, reader, &library("js-libp2p/3"));
    let stream = solo.accept(reader, &RENDEZVOUS);
    let py = solo.connect("py");
    assert_eq!(status(&mut solo, py, &register(ns, peer_info("py"), None)), Status::Ok);
    let greedy = solo.accept(py, &RENDEZVOUS);
    let page = discover(Some(ns), None, None).encode_to_vec();
    let mut sent = 0;
    for n in 0..20 {
        solo.receive(greedy, page.clone());
        sent += solo.sent(greedy).len();
        assert_eq!(solo.is_open(greedy), n < 9, "after {n}");
        if n == 9 {
            break;
        }
    }
    assert_eq!(sent, 1, "the rest waits until the first has left");
    assert_eq!(solo.counters.get("rendezvous.too_many_waiting"), 1);
    solo.receive(stream, page);
    assert_eq!(solo.sent(stream).len(), 1, "others go on");
    let waiting = solo.accept(py, &RENDEZVOUS);
    for _ in 0..3 {
        solo.receive(waiting, discover(Some(ns), None, None).encode_to_vec());
    }
    for _ in 0..3 {
        assert_eq!(solo.sent(waiting).len(), 1);
        solo.input(Input::Stream(waiting, StreamEvent::Drained));
    }
}

// Laws.

#[test]
fn the_point_obeys_the_laws_of_behaviours() {
    let names = ["A", "B", "C"];
    let mut frames = Vec::new();
    for name in names {
        for (ns, ttl) in [("one", None), ("two", Some(7200)), ("two", Some(1))] {
            frames.push(register(ns, record(name), ttl));
            frames.push(register(ns, peer_info(name), ttl));
        }
    }
    frames.extend([
        unregister("one"),
        discover(Some("one"), None, None),
        discover(None, Some(1), Some(b"cookie")),
    ]);
    Laws {
        make: || {
            Server::new(Config {
                limits: Limits { max_per_namespace: 2, ..Limits::default() },
                ..Config::default()
            })
        },
        command: |_, _| (),
        settle: |solo| solo.advance(80 * HOUR),
        entries: Server::len,
        frames: frames.iter().map(|frame| (RENDEZVOUS, frame.encode_to_vec().into())).collect(),
        most_actions: 64,
        reaches: &[
            "rendezvous.registered",
            "rendezvous.refreshed",
            "rendezvous.unregistered",
            "rendezvous.discovered",
            "rendezvous.expired",
            "rendezvous.malformed",
            "rendezvous.request_timeout",
            "rendezvous.refused.foreign",
            "rendezvous.refused.ttl_short",
            "rendezvous.refused.cookie",
            "rendezvous.refused.namespace_full",
            "rendezvous.left_out",
        ],
    }
    .check(30);
}
