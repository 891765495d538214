//! The relay, story by story: who gets a reservation, who gets a circuit, and that nothing is left behind.

use std::time::Duration;

use peerless_core::{
    errors::{OpenError, RelayStatus, SpliceEnd, StreamFault},
    ids::{ConnectionId, StreamId},
    names::SpliceReport,
    node::Event,
    protocols::relay::{
        HOP, STOP,
        hop::{self, CircuitEnd, Config, Hop},
        limits::RelayLimits,
    },
    swarm::addresses::AddressSource,
};
use peerless_proto::{
    envelope::Envelope,
    pb::{
        Message as _,
        relay::{HopMessage, StopMessage, StopType},
    },
    voucher::Voucher,
};
use peerless_tests::{
    laws::Laws,
    solo::{EPOCH, Solo, address, peer},
};

const TICK: Duration = Duration::from_nanos(1);

fn relay() -> Solo<Hop> {
    relay_with(Config::default())
}

fn relay_with(config: impl Into<Config>) -> Solo<Hop> {
    let mut solo = Solo::new("R", Hop::new(config.into()));
    solo.addresses.add(address("/ip4/203.0.113.1/udp/4001/quic-v1"), AddressSource::Listen);
    solo
}

/// Sends a request on a new stream.
fn ask(solo: &mut Solo<Hop>, connection: ConnectionId, message: &HopMessage) -> StreamId {
    let stream = solo.accept(connection, &HOP);
    solo.receive(stream, message.encode_to_vec());
    stream
}

/// Takes what the relay said on a stream.
fn answer(solo: &mut Solo<Hop>, stream: StreamId) -> HopMessage {
    let mut sent = solo.sent(stream);
    assert_eq!(sent.len(), 1, "one answer");
    HopMessage::decode(sent.remove(0)).expect("a hop message")
}

fn status(solo: &mut Solo<Hop>, stream: StreamId) -> RelayStatus {
    answer(solo, stream).status.into()
}

fn reserve(solo: &mut Solo<Hop>, connection: ConnectionId) -> RelayStatus {
    let stream = ask(solo, connection, &HopMessage::reserve());
    let status = status(solo, stream);
    solo.finish(stream);
    status
}

fn connect(solo: &mut Solo<Hop>, connection: ConnectionId, target: &str) -> StreamId {
    let target = solo.peer(target);
    ask(solo, connection, &HopMessage::connect(target.to_bytes()))
}

/// The target accepts the circuit that it is offered.
fn accept(solo: &mut Solo<Hop>) -> StreamId {
    let stop = solo.open();
    solo.receive(stop, stop_status(100));
    stop
}

fn stop_status(code: i32) -> Vec<u8> {
    StopMessage { r#type: Some(StopType::Status as i32), status: Some(code), ..Default::default() }
        .encode_to_vec()
}

fn hop_events(solo: &mut Solo<Hop>) -> Vec<hop::Event> {
    let hop = |event| match event {
        Event::Hop(event) => event,
        other => panic!("{other:?}"),
    };
    solo.events().into_iter().map(hop).collect()
}

/// The last circuit that ended.
fn closed(solo: &mut Solo<Hop>) -> (u64, u64, CircuitEnd) {
    match hop_events(solo).pop() {
        Some(hop::Event::CircuitClosed { bytes_in, bytes_out, end, .. }) => (bytes_in, bytes_out, end),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_circuit_from_reservation_to_end() {
    let mut solo = relay();
    let (a, b) = (solo.connect("A"), solo.connect("B"));
    assert_eq!(reserve(&mut solo, b), RelayStatus::Ok);
    solo.advance(Duration::from_millis(500));
    let source = connect(&mut solo, a, "B");
    solo.advance(Duration::from_millis(40));
    let stop = accept(&mut solo);
    assert!(solo.is_spliced(source) && solo.is_spliced(stop));
    solo.advance(Duration::from_secs(2));
    solo.splice_ends(source, SpliceReport { a_to_b: 1832, b_to_a: 1790, end: SpliceEnd::Finished });
    solo.disconnect(b);
    solo.disconnect(a);
    assert!(solo.behaviour.is_empty());
    insta::assert_snapshot!(solo.story(), @r#"
    0.000  B  >  R  hop RESERVE
    0.000  R  >  B  hop STATUS OK expire=+1h limit=120s/128KiB voucher(B,R)
    0.000  R  *  reservation of B granted until Unix time 1700003600
    0.500  A  >  R  hop CONNECT B
    0.540  R  >  B  stop CONNECT A limit=120s/128KiB
    0.540  B  >  R  stop STATUS OK
    0.540  R  >  A  hop STATUS OK limit=120s/128KiB
    0.540  R  =  splice A<->B limit=131072
    0.540  R  *  circuit from A to B opened
    2.540  R  *  circuit from A to B closed after 1832 bytes there and 1790 back: both finished
    2.540  R  *  reservation of B ended: disconnected
    "#);
}

#[test]
fn a_reservation_comes_with_addresses_voucher_and_limit() {
    let mut solo = relay();
    solo.addresses.add(
        address("/ip4/203.0.113.7/udp/1/quic-v1")
            .with(multiaddr::Protocol::P2p(peer("X")))
            .with(multiaddr::Protocol::P2pCircuit),
        AddressSource::Relay,
    );
    solo.addresses.add(address("/ip4/203.0.113.9/udp/1/quic-v1"), AddressSource::Observed);
    let b = solo.connect("B");
    let stream = ask(&mut solo, b, &HopMessage::reserve());
    let message = answer(&mut solo, stream);
    let reservation = message.reservation.unwrap();
    let expire = EPOCH.as_secs() + 3600;
    assert_eq!(reservation.expire, Some(expire));
    let own = address("/ip4/203.0.113.1/udp/4001/quic-v1").with(multiaddr::Protocol::P2p(peer("R")));
    assert_eq!(reservation.addrs, [own.to_vec()], "no circuits, nothing observed");
    let voucher = Voucher::open(&Envelope::decode(&reservation.voucher.unwrap()).unwrap()).unwrap();
    assert_eq!(voucher, Voucher { relay: peer("R"), peer: peer("B"), expiration: expire });
    let limit = message.limit.unwrap();
    assert_eq!((limit.duration, limit.data), (Some(120), Some(128 << 10)));
}

#[test]
fn a_client_is_given_the_addresses_that_it_can_use_from_where_it_is() {
    let mut solo = relay();
    for ip in ["10.0.0.1", "172.17.0.1", "127.0.0.1"] {
        solo.addresses.add(address(&format!("/ip4/{ip}/udp/4001/quic-v1")), AddressSource::Listen);
    }
    for (n, (remote, given)) in
        [("198.51.100.9", 1), ("192.168.1.9", 3), ("127.0.0.1", 4)].into_iter().enumerate()
    {
        let place = address(&format!("/ip4/{remote}/udp/9/quic-v1"));
        let client = solo.connect_with(&format!("B{n}"), |info| info.remote = place);
        let stream = ask(&mut solo, client, &HopMessage::reserve());
        assert_eq!(answer(&mut solo, stream).reservation.unwrap().addrs.len(), given, "{remote}");
    }
}

#[test]
fn many_addresses_do_not_burst_the_frame() {
    let mut solo = relay();
    for port in 1..=500 {
        solo.addresses.add(address(&format!("/ip4/203.0.113.1/udp/{port}/quic-v1")), AddressSource::External);
    }
    let b = solo.connect("B");
    let stream = ask(&mut solo, b, &HopMessage::reserve());
    let sent = solo.sent(stream).remove(0);
    assert!(sent.len() > 3900 && sent.len() <= 4096, "{}", sent.len());
}

#[test]
fn without_limits_none_is_stated_and_zero_is_none() {
    let mut solo = relay_with(RelayLimits {
        circuit_duration: Duration::ZERO,
        circuit_bytes: 0,
        ..RelayLimits::default()
    });
    let (a, b) = (solo.connect("A"), solo.connect("B"));
    let stream = ask(&mut solo, b, &HopMessage::reserve());
    assert_eq!(answer(&mut solo, stream).limit, None);
    let source = connect(&mut solo, a, "B");
    accept(&mut solo);
    assert!(solo.story().contains("splice A<->B limit=0"));
    solo.advance(Duration::from_secs(3599));
    assert!(solo.is_spliced(source), "no duration limit");
}

#[test]
fn the_largest_limits_are_taken_as_they_are() {
    let limits =
        RelayLimits { circuit_duration: Duration::MAX, circuit_bytes: u64::MAX, ..RelayLimits::default() };
    let mut solo = relay_with(Config { reservation_ttl: Duration::MAX, ..limits.into() });
    let (a, b) = (solo.connect("A"), solo.connect("B"));
    let stream = ask(&mut solo, b, &HopMessage::reserve());
    let message = answer(&mut solo, stream);
    let limit = message.limit.unwrap();
    assert_eq!((limit.duration, limit.data), (Some(u32::MAX), Some(u64::MAX)));
    assert_eq!(message.reservation.unwrap().expire, Some(u64::MAX));
    let source = connect(&mut solo, a, "B");
    accept(&mut solo);
    solo.advance(Duration::from_secs(100 * 365 * 86400));
    assert!(solo.is_spliced(source));
}

#[test]
fn the_nth_reservation_is_granted_the_next_refused_and_a_renewal_always_granted() {
    let mut solo = relay_with(RelayLimits { max_reservations: 2, ..RelayLimits::default() });
    let [a, b, c] = ["A", "B", "C"].map(|name| solo.connect(name));
    let outcomes = [a, b, c, a, b, c].map(|connection| reserve(&mut solo, connection));
    let (ok, no) = (RelayStatus::Ok, RelayStatus::ReservationRefused);
    assert_eq!(outcomes, [ok, ok, no, ok, ok, no]);
    assert_eq!(solo.counters.get("relay.hop.refused.reservations_full"), 2);
    assert_eq!(solo.behaviour.reservations(), 2);
    solo.disconnect(b);
    assert_eq!(reserve(&mut solo, c), RelayStatus::Ok);
}

#[test]
fn a_reservation_ends_at_its_exact_tick_unless_renewed() {
    let mut solo = relay();
    let (a, b) = (solo.connect("A"), solo.connect("B"));
    reserve(&mut solo, b);
    solo.advance(Duration::from_secs(3000));
    reserve(&mut solo, b);
    solo.advance(Duration::from_secs(3600) - TICK);
    let stream = connect(&mut solo, a, "B");
    assert!(solo.sent(stream).is_empty(), "the target is asked");
    solo.reset(stream, StreamFault::Remote(0));
    solo.advance(TICK);
    let stream = connect(&mut solo, a, "B");
    assert_eq!(status(&mut solo, stream), RelayStatus::NoReservation);
    assert_eq!(solo.behaviour.reservations(), 0);
}

#[test]
fn a_reservation_lasts_as_long_as_the_peer_is_connected_and_follows_it() {
    let mut solo = relay();
    let (a, first, second) = (solo.connect("A"), solo.connect("B"), solo.connect("B"));
    reserve(&mut solo, first);
    connect(&mut solo, a, "B");
    assert_eq!(solo.opening(), [first], "where the reservation was made, not the newest");
    solo.refuse_open(OpenError::StreamLimit);
    assert_eq!(solo.opening(), [second], "and if no stream opens there, where one may");
    solo.refuse_open(OpenError::StreamLimit);
    let third = solo.connect("B");
    solo.disconnect(third);
    connect(&mut solo, a, "B");
    assert_eq!(solo.opening(), [first], "the end of another connection moves nothing");
    solo.refuse_open(OpenError::StreamLimit);
    solo.refuse_open(OpenError::StreamLimit);
    solo.disconnect(first);
    connect(&mut solo, a, "B");
    assert_eq!(solo.opening(), [second]);
    solo.refuse_open(OpenError::StreamLimit);
    let relayed = solo.connect_via("B", a);
    solo.disconnect(second);
    let stream = connect(&mut solo, a, "B");
    assert_eq!(
        status(&mut solo, stream),
        RelayStatus::NoReservation,
        "a circuit to us is no connection to relay to"
    );
    solo.disconnect(relayed);
    solo.disconnect(a);
    assert!(solo.behaviour.is_empty());
}

#[test]
fn a_renewal_over_another_connection_moves_the_reservation_there() {
    let mut solo = relay();
    let (a, first, second) = (solo.connect("A"), solo.connect("B"), solo.connect("B"));
    reserve(&mut solo, first);
    reserve(&mut solo, second);
    connect(&mut solo, a, "B");
    assert_eq!(solo.opening(), [second]);
}

#[test]
fn a_target_that_is_not_reached_over_one_of_its_connections_is_asked_over_the_next() {
    type Fault = fn(&mut Solo<Hop>, ConnectionId);
    let faults: [Fault; 5] = [
        |solo, _| solo.refuse_open(OpenError::StreamLimit),
        |solo, _| {
            let stop = solo.open();
            solo.reset(stop, StreamFault::Remote(0));
        },
        |solo, connection| {
            solo.open();
            solo.disconnect(connection);
        },
        |solo, connection| {
            solo.disconnect(connection);
            solo.refuse_open(OpenError::NoConnection);
        },
        |solo, _| {
            solo.open();
            solo.advance(Duration::from_secs(10));
        },
    ];
    for fault in faults {
        let mut solo = relay();
        let a = solo.connect("A");
        let (first, second) = (solo.connect("B"), solo.connect("B"));
        reserve(&mut solo, first);
        let source = connect(&mut solo, a, "B");
        assert_eq!(solo.opening(), [first]);
        fault(&mut solo, first);
        assert_eq!(solo.opening(), [second]);
        accept(&mut solo);
        assert!(solo.is_spliced(source));
        assert_eq!((solo.behaviour.circuits(), solo.behaviour.reservations()), (1, 1));
        solo.disconnect(a);
        for connection in solo.connections.of(&peer("B")).to_vec() {
            solo.disconnect(connection);
        }
        assert!(solo.behaviour.is_empty(), "{:?}", solo.behaviour);
    }
}

#[test]
fn the_connection_that_another_superseded_is_asked_last_and_no_more_than_three_are() {
    let mut solo = relay();
    let a = solo.connect("A");
    let all: Vec<_> = (0..5).map(|_| solo.connect("B")).collect();
    solo.connections.set_superseded(all[1], true);
    reserve(&mut solo, all[1]);
    let source = connect(&mut solo, a, "B");
    let mut asked = Vec::new();
    while !solo.opening().is_empty() {
        asked.extend(solo.opening());
        solo.refuse_open(OpenError::StreamLimit);
    }
    assert_eq!(asked, [all[4], all[3], all[2]]);
    assert_eq!(status(&mut solo, source), RelayStatus::ConnectionFailed);
}

#[test]
fn who_comes_over_a_circuit_is_refused() {
    let mut solo = relay();
    let b = solo.connect("B");
    reserve(&mut solo, b);
    let relayed = solo.connect_via("A", b);
    assert_eq!(reserve(&mut solo, relayed), RelayStatus::PermissionDenied);
    let stream = connect(&mut solo, relayed, "B");
    assert_eq!(status(&mut solo, stream), RelayStatus::PermissionDenied);
    assert_eq!(solo.counters.get("relay.hop.refused.reserve_relayed"), 1);
    assert_eq!(solo.counters.get("relay.hop.refused.connect_relayed"), 1);
}

#[test]
fn nobody_is_connected_to_itself_or_to_the_relay() {
    let mut solo = relay();
    let b = solo.connect("B");
    reserve(&mut solo, b);
    for target in ["B", "R"] {
        let stream = connect(&mut solo, b, target);
        assert_eq!(status(&mut solo, stream), RelayStatus::PermissionDenied);
    }
    assert_eq!(solo.counters.get("relay.hop.refused.to_itself"), 2);
    let c = solo.connect("C");
    let stream = connect(&mut solo, c, "C");
    assert_eq!(
        status(&mut solo, stream),
        RelayStatus::NoReservation,
        "who asks for itself learns what it holds"
    );
}

#[test]
fn nonsense_is_named_as_such() {
    let mut solo = relay();
    let a = solo.connect("A");
    let status_message = HopMessage { r#type: Some(2), ..Default::default() };
    let unknown = HopMessage { r#type: Some(77), ..Default::default() };
    let nobody = HopMessage::connect(vec![1, 2, 3]);
    for (frame, expected) in [
        (vec![0xff; 20], RelayStatus::MalformedMessage),
        (vec![], RelayStatus::MalformedMessage),
        (nobody.encode_to_vec(), RelayStatus::MalformedMessage),
        (status_message.encode_to_vec(), RelayStatus::UnexpectedMessage),
        (unknown.encode_to_vec(), RelayStatus::UnexpectedMessage),
    ] {
        let stream = solo.accept(a, &HOP);
        solo.receive(stream, frame);
        assert_eq!(status(&mut solo, stream), expected);
        solo.finish(stream);
        assert!(!solo.is_open(stream));
    }
    assert!(solo.behaviour.is_empty());
    assert_eq!(hop_events(&mut solo).len(), 5);
}

#[test]
fn who_says_nothing_is_given_up_and_who_does_not_end_after_the_answer_too() {
    let mut solo = relay();
    let a = solo.connect("A");
    let silent = solo.accept(a, &HOP);
    let answered = ask(&mut solo, a, &HopMessage::reserve());
    solo.advance(Duration::from_secs(30) - TICK);
    assert!(solo.is_open(silent) && solo.is_open(answered));
    solo.advance(TICK);
    assert!(!solo.is_open(silent) && !solo.is_open(answered));
    assert_eq!(solo.counters.get("relay.hop.request_timeout"), 2);
}

#[test]
fn circuits_are_limited_per_source_per_target_and_in_all() {
    let limits = RelayLimits {
        max_circuits: 3,
        max_circuits_per_source: 2,
        max_circuits_per_target: 2,
        ..RelayLimits::default()
    };
    let mut solo = relay_with(limits);
    let [a, b, c, d, e] = ["A", "B", "C", "D", "E"].map(|name| solo.connect(name));
    for connection in [b, c, e] {
        reserve(&mut solo, connection);
    }
    let mut outcome = |source, target| {
        let stream = connect(&mut solo, source, target);
        assert!(solo.behaviour.circuits() <= 3);
        if solo.sent(stream).is_empty() { "asked" } else { hop_why(&mut solo) }
    };
    assert_eq!(outcome(a, "B"), "asked");
    assert_eq!(outcome(a, "C"), "asked");
    assert_eq!(outcome(a, "E"), "too many circuits of the source", "those being set up count");
    assert_eq!(outcome(d, "B"), "asked");
    assert_eq!(outcome(e, "C"), "too many circuits");
    solo.refuse_open(OpenError::StreamLimit);
    assert_eq!(solo.behaviour.circuits(), 2, "the failed one is free again");
    let again = connect(&mut solo, e, "B");
    assert!(solo.sent(again).is_empty());
    let full = connect(&mut solo, d, "C");
    assert_eq!(status(&mut solo, full), RelayStatus::ResourceLimitExceeded);
    for connection in [a, d, e] {
        solo.disconnect(connection);
    }
    assert_eq!(solo.behaviour.circuits(), 0);
}

fn hop_why(solo: &mut Solo<Hop>) -> &'static str {
    match hop_events(solo).pop() {
        Some(hop::Event::CircuitRefused { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_target_of_too_many_circuits_is_spared() {
    let mut solo = relay_with(RelayLimits { max_circuits_per_target: 2, ..RelayLimits::default() });
    let [a, b, c, d] = ["A", "B", "C", "D"].map(|name| solo.connect(name));
    reserve(&mut solo, b);
    connect(&mut solo, a, "B");
    connect(&mut solo, c, "B");
    let stream = connect(&mut solo, d, "B");
    assert_eq!(status(&mut solo, stream), RelayStatus::ResourceLimitExceeded);
    assert_eq!(hop_why(&mut solo), "too many circuits of the target");
}

#[test]
fn many_circuits_one_after_the_other_are_no_more_than_one() {
    let mut solo = relay_with(RelayLimits {
        max_circuits: 1,
        max_circuits_per_source: 1,
        max_circuits_per_target: 1,
        ..RelayLimits::default()
    });
    let (a, b) = (solo.connect("A"), solo.connect("B"));
    reserve(&mut solo, b);
    for end in [SpliceEnd::Finished, SpliceEnd::Limit, SpliceEnd::A(StreamFault::Remote(1))] {
        let source = connect(&mut solo, a, "B");
        accept(&mut solo);
        solo.splice_ends(source, SpliceReport { a_to_b: 1, b_to_a: 2, end: end.clone() });
        assert_eq!(closed(&mut solo), (1, 2, end.into()));
    }
    assert_eq!(solo.counters.get("relay.hop.circuits"), 3);
    assert_eq!(solo.counters.get("relay.hop.bytes"), 9);
}

#[test]
fn a_circuit_is_cut_at_the_exact_end_of_its_time() {
    let mut solo = relay();
    let (a, b) = (solo.connect("A"), solo.connect("B"));
    reserve(&mut solo, b);
    let source = connect(&mut solo, a, "B");
    solo.advance(Duration::from_secs(20));
    let stop = accept(&mut solo);
    solo.advance(Duration::from_secs(120) - TICK);
    assert!(solo.is_open(source) && solo.is_open(stop));
    solo.advance(TICK);
    assert!(!solo.is_open(source) && !solo.is_open(stop));
    assert_eq!(closed(&mut solo).2, CircuitEnd::Duration);
    assert_eq!(solo.behaviour.circuits(), 0);
}

#[test]
fn a_target_that_never_answers_fails_the_circuit_after_thirty_seconds() {
    let mut solo = relay();
    let (a, b) = (solo.connect("A"), solo.connect("B"));
    reserve(&mut solo, b);
    let source = connect(&mut solo, a, "B");
    let stop = solo.open();
    solo.advance(Duration::from_secs(30));
    assert!(!solo.is_open(stop));
    assert_eq!(status(&mut solo, source), RelayStatus::ConnectionFailed);
    assert_eq!(hop_why(&mut solo), "the target did not answer");
    assert_eq!(solo.behaviour.circuits(), 0);
}

#[test]
fn every_other_failure_of_the_target_is_told_and_cleaned_up() {
    type Fault = fn(&mut Solo<Hop>, ConnectionId);
    let faults: [(&str, Fault); 7] = [
        ("no stream to the target", |solo, _| solo.refuse_open(OpenError::StreamLimit)),
        ("the target refused", |solo, _| {
            let stop = solo.open();
            solo.receive(stop, stop_status(202));
        }),
        ("the target refused", |solo, _| {
            let stop = solo.open();
            let no_status = StopMessage { r#type: Some(1), ..Default::default() };
            solo.receive(stop, no_status.encode_to_vec());
        }),
        ("the target failed", |solo, _| {
            let stop = solo.open();
            solo.receive(stop, vec![0xff]);
        }),
        ("the target failed", |solo, _| {
            let stop = solo.open();
            solo.finish(stop);
        }),
        ("the target failed", |solo, _| {
            let stop = solo.open();
            solo.reset(stop, StreamFault::Unsupported);
        }),
        ("the target disconnected", |solo, b| {
            solo.open();
            solo.disconnect(b);
        }),
    ];
    for (why, fault) in faults {
        let mut solo = relay();
        let (a, b) = (solo.connect("A"), solo.connect("B"));
        reserve(&mut solo, b);
        let source = connect(&mut solo, a, "B");
        fault(&mut solo, b);
        assert_eq!(status(&mut solo, source), RelayStatus::ConnectionFailed, "{why}");
        let refused =
            |event: &hop::Event| matches!(event, hop::Event::CircuitRefused { why: w, .. } if *w == why);
        assert!(hop_events(&mut solo).iter().any(refused), "{why}");
        assert_eq!(solo.behaviour.circuits(), 0);
        solo.finish(source);
        assert!(solo.streams().is_empty(), "{why}");
    }
}

#[test]
fn a_source_that_leaves_early_leaves_nothing_behind() {
    type Leave = fn(&mut Solo<Hop>, ConnectionId, StreamId);
    let ways: [Leave; 3] = [
        |solo, a, _| solo.disconnect(a),
        |solo, _, source| solo.reset(source, StreamFault::Remote(0)),
        |solo, _, source| solo.finish(source),
    ];
    for leave in ways {
        for asked in [false, true] {
            let mut solo = relay();
            let (a, b) = (solo.connect("A"), solo.connect("B"));
            reserve(&mut solo, b);
            let source = connect(&mut solo, a, "B");
            if asked {
                solo.open();
            }
            leave(&mut solo, a, source);
            if !asked {
                solo.open();
            }
            assert_eq!(solo.behaviour.circuits(), 0);
            assert_eq!(solo.streams(), [], "the stream to the target is given up");
            assert_eq!(solo.counters.get("relay.hop.abandoned"), 1);
        }
    }
}

#[test]
fn bytes_before_the_answer_are_out_of_turn() {
    let mut solo = relay();
    let (a, b) = (solo.connect("A"), solo.connect("B"));
    reserve(&mut solo, b);
    let source = connect(&mut solo, a, "B");
    let stop = solo.open();
    solo.receive(source, vec![1, 2, 3]);
    assert_eq!(status(&mut solo, source), RelayStatus::UnexpectedMessage);
    assert!(!solo.is_open(stop));
}

#[test]
fn a_reservation_that_ends_while_the_target_is_asked_does_not_end_the_circuit() {
    let mut solo = relay_with(Config { reservation_ttl: Duration::from_secs(10), ..Config::default() });
    let (a, b) = (solo.connect("A"), solo.connect("B"));
    reserve(&mut solo, b);
    let source = connect(&mut solo, a, "B");
    solo.advance(Duration::from_secs(15));
    assert_eq!(solo.behaviour.reservations(), 0);
    accept(&mut solo);
    assert!(solo.is_spliced(source));
}

#[test]
fn a_lost_connection_ends_its_circuits() {
    let mut solo = relay();
    let (a, b) = (solo.connect("A"), solo.connect("B"));
    reserve(&mut solo, b);
    let source = connect(&mut solo, a, "B");
    accept(&mut solo);
    solo.disconnect(b);
    assert!(!solo.is_open(source));
    solo.disconnect(a);
    assert!(solo.behaviour.is_empty());
    let closed = |event: &hop::Event| {
        let lost = CircuitEnd::Target(StreamFault::ConnectionLost);
        matches!(event, hop::Event::CircuitClosed { end, .. } if *end == lost)
    };
    assert!(hop_events(&mut solo).iter().any(closed));
}

#[test]
fn the_relay_answers_hop_and_only_speaks_stop() {
    let solo = relay();
    assert_eq!(solo.protocols, [HOP]);
    let specs = peerless_core::behaviour::Behaviour::protocols(&solo.behaviour);
    assert_eq!((&specs[1].name, specs[1].inbound_per_peer), (&STOP, 0));
    assert!(specs[0].inbound_per_peer > RelayLimits::default().max_circuits_per_source);
}

#[test]
fn laws() {
    let connect = |name| HopMessage::connect(peer(name).to_bytes());
    let requests = ["A", "B", "C", "R"].map(connect);
    let reserve = std::iter::repeat_n(HopMessage::reserve(), 4);
    let requests = requests.into_iter().chain(reserve).map(|message| (HOP, message.encode_to_vec().into()));
    let answers = [100, 100, 202].map(|code| (STOP, stop_status(code).into()));
    let laws = Laws {
        make: || {
            let limits = RelayLimits {
                max_reservations: 2,
                max_circuits: 2,
                max_circuits_per_source: 2,
                max_circuits_per_target: 2,
                ..RelayLimits::default()
            };
            Hop::new(limits.into())
        },
        command: |_, _| (),
        settle: |_| (),
        entries: Hop::len,
        frames: requests.chain(answers).collect(),
        most_actions: 60,
        reaches: &[
            "relay.hop.reserved",
            "relay.hop.renewed",
            "relay.hop.circuits",
            "relay.hop.abandoned",
            "relay.hop.refused.no_reservation",
            "relay.hop.refused.circuits_full",
            "relay.hop.refused.reservations_full",
            "relay.hop.refused.stop_timeout",
            "relay.hop.refused.target_lost",
            "relay.hop.refused.connect_relayed",
        ],
    };
    laws.check(60);
}
