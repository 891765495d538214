//! The user of relays, story by story: reservations kept alive, circuits dialled and accepted.

use std::time::Duration;

use multiaddr::{Multiaddr, Protocol};
use peerless_core::{
    errors::{AttemptError, CloseReason, DialError, OpenError, RelayStatus, StreamFault, UpgradeError},
    identity::Identity,
    ids::{ConnectionId, StreamId},
    names::{CircuitLimit, UpgradeRole},
    node::Event,
    protocols::relay::{
        HOP, STOP,
        client::{self, Client, Config, ReserveError},
    },
    swarm::{addresses::AddressSource, peerstore::Source},
    time::Instant,
};
use peerless_proto::{
    pb::{
        Message as _,
        relay::{HopMessage, HopType, Limit, Reservation, StopMessage},
    },
    voucher::Voucher,
};
use peerless_tests::{
    laws::Laws,
    solo::{EPOCH, Solo, address, circuit, identity, own_addresses, peer},
};

const HOUR: u64 = 3600;
const PLACE: &str = "/ip4/203.0.113.1/udp/4001/quic-v1";

fn client() -> Solo<Client> {
    let mut solo = Solo::new("B", Client::new(Config::default()));
    solo.peer("R");
    solo
}

fn relay_address() -> Multiaddr {
    address(PLACE).with(Protocol::P2p(peer("R")))
}

fn through(place: &str) -> String {
    format!("{place}/p2p/{}/p2p-circuit", peer("R"))
}

/// The relay's word on a reservation that ends `seconds` after the start of the test.
fn granted(seconds: u64, addrs: &[&str], voucher: Option<Vec<u8>>) -> HopMessage {
    let addrs = addrs.iter().map(|text| address(text).with(Protocol::P2p(peer("R"))).to_vec()).collect();
    HopMessage {
        r#type: Some(HopType::Status as i32),
        status: Some(100),
        reservation: Some(Reservation { expire: Some(EPOCH.as_secs() + seconds), addrs, voucher }),
        limit: Some(Limit { duration: Some(120), data: Some(128 << 10) }),
        ..Default::default()
    }
}

fn refused(code: i32) -> HopMessage {
    HopMessage { r#type: Some(HopType::Status as i32), status: Some(code), ..Default::default() }
}

fn voucher(signer: &Identity, relay: &str, peer_name: &str, expiration: u64) -> Vec<u8> {
    let voucher = Voucher { relay: peer(relay), peer: peer(peer_name), expiration };
    voucher.seal(signer.keypair()).expect("the relay signs its own").encode()
}

/// Asks for a reservation, up to the moment when RESERVE is sent.
fn ask(solo: &mut Solo<Client>) -> (ConnectionId, StreamId) {
    solo.with(|client, cx| client.reserve(cx, relay_address())).expect("a relay's address");
    let relay = solo.dialled("R");
    let stream = solo.open();
    assert_eq!(solo.sent(stream), [HopMessage::reserve().encode_to_vec()]);
    (relay, stream)
}

fn answer(solo: &mut Solo<Client>, stream: StreamId, message: &HopMessage) {
    solo.receive(stream, message.encode_to_vec());
    solo.finish(stream);
}

/// A reservation for an hour.
fn reserved() -> (Solo<Client>, ConnectionId) {
    let mut solo = client();
    let (relay, stream) = ask(&mut solo);
    answer(&mut solo, stream, &granted(HOUR, &[], None));
    assert_eq!(relay_addresses(&solo), [through(PLACE)]);
    solo.events();
    (solo, relay)
}

fn relay_addresses(solo: &Solo<Client>) -> Vec<String> {
    own_addresses(solo, AddressSource::Relay)
}

fn events(solo: &mut Solo<Client>) -> Vec<client::Event> {
    let reservation = |event| match event {
        Event::Reservation(event) => event,
        other => panic!("{other:?}"),
    };
    solo.events().into_iter().map(reservation).collect()
}

fn lost(solo: &mut Solo<Client>) -> ReserveError {
    match events(solo).pop() {
        Some(client::Event::Lost { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

fn failed(solo: &mut Solo<Client>) -> ReserveError {
    match events(solo).pop() {
        Some(client::Event::Failed { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_reservation_is_made_renewed_lost_and_made_again() {
    let mut solo = client();
    let (relay, stream) = ask(&mut solo);
    let expire = EPOCH.as_secs() + HOUR;
    let good = voucher(&identity("R"), "R", "B", expire);
    answer(&mut solo, stream, &granted(HOUR, &[PLACE], Some(good)));
    assert_eq!(solo.next_deadline(), "reservation step");
    let stream = solo.open();
    answer(&mut solo, stream, &granted(2 * HOUR, &[PLACE], None));
    solo.advance(Duration::from_secs(60));
    solo.disconnect_because(relay, CloseReason::Reset);
    assert_eq!(solo.next_deadline(), "reservation step");
    solo.dialled("R");
    let stream = solo.open();
    answer(&mut solo, stream, &granted(2 * HOUR, &[], None));
    insta::assert_snapshot!(solo.story(), @r"
       0.000  B  *  reservation connecting to R
       0.000  B  !  dial /ip4/203.0.113.1/udp/4001/quic-v1/p2p/R
       0.000  B  *  reservation requesting from R
       0.000  B  >  R  hop RESERVE
       0.000  R  >  B  hop STATUS OK expire=+1h limit=120s/128KiB voucher(B,R)
       0.000  B  +  Relay /ip4/203.0.113.1/udp/4001/quic-v1/p2p/R/p2p-circuit
       0.000  B  *  reservation active at R
    2765.144  B  *  reservation refreshing at R
    2765.144  B  >  R  hop RESERVE
    2765.144  R  >  B  hop STATUS OK expire=+4435s limit=120s/128KiB
    2765.144  B  *  reservation renewed at R
    2825.144  B  -  Relay /ip4/203.0.113.1/udp/4001/quic-v1/p2p/R/p2p-circuit
    2825.144  B  *  reservation lost at R: the connection to the relay ended: reset by the remote; backing off for 1.358 s
    2826.502  B  *  reservation connecting to R
    2826.502  B  !  dial /ip4/203.0.113.1/udp/4001/quic-v1/p2p/R
    2826.502  B  *  reservation requesting from R after 1 failures
    2826.502  B  >  R  hop RESERVE
    2826.502  R  >  B  hop STATUS OK expire=+4374s limit=120s/128KiB
    2826.502  B  +  Relay /ip4/203.0.113.1/udp/4001/quic-v1/p2p/R/p2p-circuit
    2826.502  B  *  reservation active at R
    ");
}

#[test]
fn a_renewal_comes_at_four_fifths_of_the_term_or_a_little_before() {
    let (mut solo, relay) = reserved();
    assert_eq!(solo.next_deadline(), "reservation step");
    assert_eq!(solo.opening(), [relay]);
    let at = solo.now().saturating_duration_since(Instant::ZERO);
    assert!(Duration::from_secs(2736) <= at && at <= Duration::from_secs(2880), "{at:?}");
}

const ELSEWHERE: &str = "/ip4/203.0.113.9/udp/4001/quic-v1";

fn at(place: &str) -> Multiaddr {
    address(place).with(Protocol::P2p(peer("R")))
}

#[test]
fn all_addresses_of_a_relay_are_tried_whoever_told_them() {
    let mut solo = client();
    solo.with(|client, cx| client.reserve(cx, at(PLACE))).unwrap();
    solo.with(|client, cx| client.reserve(cx, at(ELSEWHERE))).unwrap();
    assert_eq!(solo.dialling(), [[at(PLACE)], [at(ELSEWHERE)]], "the second joins in");
    solo.dialled("R");
    solo.dial_fails(DialError { attempts: Vec::new() });
    let stream = solo.open();
    let told = "/ip4/203.0.113.7/udp/4001/quic-v1";
    answer(&mut solo, stream, &granted(HOUR, &[told], None));
    let stored = "/ip4/203.0.113.8/udp/4001/quic-v1";
    let now = solo.now();
    solo.peerstore.add(now, peer("R"), &[address(stored)], Source::Identify, None);
    for connection in solo.connections.of(&peer("R")).to_vec() {
        solo.disconnect(connection);
    }
    solo.next_deadline();
    assert_eq!(solo.dialling(), [[at(PLACE), at(ELSEWHERE), at(told), at(stored)]]);
}

#[test]
fn no_more_addresses_of_a_relay_are_kept_than_eight() {
    let mut solo = client();
    for n in 0..100 {
        let place = format!("/ip4/203.0.113.{n}/udp/4001/quic-v1");
        solo.with(|client, cx| client.reserve(cx, at(&place))).unwrap();
    }
    while !solo.dialling().is_empty() {
        solo.dial_fails(DialError { attempts: Vec::new() });
    }
    solo.next_deadline();
    let [dialled] = &solo.dialling()[..] else { panic!("one dial") };
    let latest: Vec<_> = (92..100).map(|n| at(&format!("/ip4/203.0.113.{n}/udp/4001/quic-v1"))).collect();
    assert_eq!(*dialled, latest);
}

#[test]
fn a_circuit_through_a_relay_that_is_only_known_by_its_name_goes_where_it_is_known_to_be() {
    let mut solo = client();
    let now = solo.now();
    let listed = [address(ELSEWHERE), circuit(PLACE, "X", "R")];
    solo.peerstore.add(now, peer("R"), &listed, Source::Identify, None);
    solo.dial(circuit("", "R", "A"));
    assert_eq!(solo.dialling(), [[at(ELSEWHERE)]], "but not over a circuit");
    solo.dialled("R");
    assert_eq!(solo.opening().len(), 1);
}

#[test]
fn a_relay_we_are_connected_to_is_not_dialled_but_not_asked_over_a_circuit() {
    let mut solo = client();
    let other = solo.connect("X");
    solo.connect_via("R", other);
    solo.with(|client, cx| client.reserve(cx, relay_address())).unwrap();
    assert_eq!(solo.dialling(), [[relay_address()]]);
    let direct = solo.dialled("R");
    assert_eq!(solo.opening(), [direct]);

    let mut solo = client();
    let direct = solo.connect("R");
    solo.with(|client, cx| client.reserve(cx, relay_address())).unwrap();
    assert_eq!((solo.opening(), solo.dialling().len()), (vec![direct], 0));
}

#[test]
fn an_address_must_name_a_relay_that_can_be_one() {
    let mut solo = client();
    let mut reserve = |address: Multiaddr| solo.with(|client, cx| client.reserve(cx, address)).unwrap_err();
    assert_eq!(reserve(address(PLACE)), ReserveError::NoPeer);
    let own = address(PLACE).with(Protocol::P2p(peer("B")));
    assert_eq!(reserve(own.clone()), ReserveError::Unreachable(DialError::one(own, AttemptError::Own)));
    assert!(matches!(reserve(circuit(PLACE, "R", "X")), ReserveError::Unreachable(_)));
    assert!(solo.behaviour.is_empty());
}

#[test]
fn vouchers_are_checked_and_their_absence_accepted() {
    let expire = EPOCH.as_secs() + HOUR;
    let mut forged = voucher(&identity("R"), "R", "B", expire);
    let last = forged.len() - 1;
    forged[last] ^= 1;
    for (bad, what) in [
        (forged, "signature"),
        (voucher(&identity("X"), "X", "B", expire), "from relay"),
        (voucher(&identity("R"), "R", "X", expire), "for peer"),
        (voucher(&identity("R"), "R", "B", EPOCH.as_secs()), "expired"),
        (vec![1, 2, 3], "envelope"),
    ] {
        let mut solo = client();
        let (_, stream) = ask(&mut solo);
        answer(&mut solo, stream, &granted(HOUR, &[], Some(bad)));
        match failed(&mut solo) {
            ReserveError::Voucher(why) => assert!(why.contains(what), "{why}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(relay_addresses(&solo), [""; 0]);
    }
    let (solo, _) = reserved();
    assert_eq!(solo.counters.get("relay.client.reserved"), 1);
}

#[test]
fn addresses_of_others_and_of_narrower_networks_are_not_believed() {
    let mut solo = client();
    let (_, stream) = ask(&mut solo);
    let mut message = granted(
        HOUR,
        &[
            "/ip4/203.0.113.2/udp/1/quic-v1",
            "/ip4/127.0.0.1/udp/1/quic-v1",
            "/ip4/10.0.0.1/udp/1/quic-v1",
            "/ip4/0.0.0.0/udp/1/quic-v1",
            "/dns4/relay.example/udp/1/quic-v1",
            "/ip4/203.0.113.2/udp/1/quic-v1",
        ],
        None,
    );
    let addrs = &mut message.reservation.as_mut().unwrap().addrs;
    addrs.push(address("/ip4/203.0.113.3/udp/1/quic-v1").with(Protocol::P2p(peer("X"))).to_vec());
    addrs.push(circuit("/ip4/203.0.113.4/udp/1/quic-v1", "X", "R").to_vec());
    addrs.push(vec![0xff, 0xff]);
    answer(&mut solo, stream, &message);
    let mut found = relay_addresses(&solo);
    found.sort();
    assert_eq!(
        found,
        [through("/dns4/relay.example/udp/1/quic-v1"), through("/ip4/203.0.113.2/udp/1/quic-v1")]
    );
}

#[test]
fn on_the_same_host_or_site_the_relays_addresses_there_are_good() {
    let places =
        ["/ip4/127.0.0.1/udp/1/quic-v1", "/ip4/10.0.0.1/udp/1/quic-v1", "/ip4/8.8.8.8/udp/1/quic-v1"];
    for (at, taken) in [("127.0.0.2", 3), ("192.168.0.9", 2), ("9.9.9.9", 1)] {
        let mut solo = client();
        solo.connect_with("R", |info| info.remote = address(&format!("/ip4/{at}/udp/1/quic-v1")));
        solo.with(|client, cx| client.reserve(cx, relay_address())).unwrap();
        let stream = solo.open();
        answer(&mut solo, stream, &granted(HOUR, &places, None));
        assert_eq!(relay_addresses(&solo).len(), taken, "{at}");
    }
}

#[test]
fn a_renewal_with_other_addresses_replaces_the_old_ones() {
    let (mut solo, _) = reserved();
    solo.next_deadline();
    let stream = solo.open();
    answer(&mut solo, stream, &granted(2 * HOUR, &["/ip4/203.0.113.2/udp/1/quic-v1"], None));
    assert_eq!(relay_addresses(&solo), [through("/ip4/203.0.113.2/udp/1/quic-v1")]);
}

#[test]
fn a_first_grant_that_is_over_by_our_clock_is_used_and_checked() {
    let mut solo = client();
    let (_, stream) = ask(&mut solo);
    answer(&mut solo, stream, &granted(0, &[], None));
    assert_eq!(relay_addresses(&solo), [through(PLACE)]);
    solo.next_deadline();
    assert_eq!(solo.now().as_nanos(), 5_000_000_000);
    let check = solo.open();
    assert_eq!(solo.sent(check), [HopMessage::connect(peer("B").to_bytes()).encode_to_vec()]);
    answer(&mut solo, check, &refused(203));
    solo.finish(check);
    assert!(solo.opening().is_empty(), "what is held is not renewed, as relays count how often who asks");
    solo.next_deadline();
    assert_eq!(solo.now().as_nanos(), 10_000_000_000, "it was held for five seconds: now after ten");
    let check = solo.open();
    answer(&mut solo, check, &refused(204));
    assert!(matches!(
        events(&mut solo)[..],
        [.., client::Event::Gone { .. }, client::Event::Refreshing { .. }]
    ));
    let renewal = solo.open();
    answer(&mut solo, renewal, &granted(0, &[], None));
    solo.next_deadline();
    assert!(
        solo.now().as_nanos() <= 15_000_000_000,
        "it is renewed after the five for which it was seen to hold"
    );
    let renewal = solo.open();
    assert_eq!(solo.sent(renewal), [HopMessage::reserve().encode_to_vec()]);
    answer(&mut solo, renewal, &refused(201));
    solo.advance(Duration::from_secs(60));
    let is_lost = |e: &client::Event| matches!(e, client::Event::Lost { reason: ReserveError::Expired, .. });
    assert!(events(&mut solo).iter().any(is_lost), "nor is it taken to last for longer than it was seen to");
}

#[test]
fn a_check_that_comes_to_nothing_is_followed_by_a_renewal() {
    type Fault = fn(&mut Solo<Client>);
    let faults: [Fault; 5] = [
        |solo| solo.refuse_open(OpenError::StreamLimit),
        |solo| {
            let check = solo.open();
            solo.reset(check, StreamFault::Remote(0));
        },
        |solo| {
            let check = solo.open();
            solo.finish(check);
        },
        |solo| {
            let check = solo.open();
            answer(solo, check, &HopMessage::reserve());
        },
        |solo| {
            solo.open();
            solo.advance(Duration::from_secs(30));
        },
    ];
    for fault in faults {
        let mut solo = client();
        let (_, stream) = ask(&mut solo);
        answer(&mut solo, stream, &granted(75 * 60, &[], None));
        solo.next_deadline();
        fault(&mut solo);
        let renewal = solo.open();
        assert_eq!(solo.sent(renewal), [HopMessage::reserve().encode_to_vec()]);
        answer(&mut solo, renewal, &granted(76 * 60, &[], None));
        assert_eq!(relay_addresses(&solo), [through(PLACE)]);
        solo.with(|client, cx| client.cancel(cx, peer("R")));
        for stream in solo.streams() {
            solo.finish(stream);
        }
        assert!(solo.behaviour.is_empty(), "{:?}", solo.behaviour);
    }
}

#[test]
fn a_known_relay_that_shrinks_the_end_to_the_past_ends_the_reservation() {
    let (mut solo, _) = reserved();
    solo.next_deadline();
    let stream = solo.open();
    answer(&mut solo, stream, &granted(10, &[], None));
    assert_eq!(lost(&mut solo), ReserveError::Expired);
    assert_eq!(relay_addresses(&solo), [""; 0]);
}

#[test]
fn the_end_of_time_is_no_overflow() {
    let mut solo = client();
    let (_, stream) = ask(&mut solo);
    let mut message = granted(HOUR, &[], None);
    message.reservation.as_mut().unwrap().expire = Some(u64::MAX);
    message.limit = Some(Limit { duration: Some(u32::MAX), data: Some(u64::MAX) });
    answer(&mut solo, stream, &message);
    match events(&mut solo).pop() {
        Some(client::Event::Reserved { limit, .. }) => {
            assert_eq!(
                limit,
                CircuitLimit { duration: Some(Duration::from_secs(86400)), data: Some(u64::MAX) }
            );
        }
        other => panic!("{other:?}"),
    }
    solo.advance(Duration::from_secs(86400));
    assert_eq!(lost(&mut solo), ReserveError::Expired, "nothing is believed for longer than a day");
}

#[test]
fn a_refused_renewal_leaves_the_reservation_as_it_is_to_its_end() {
    for status in [200, 201, 202, 400, 0] {
        let (mut solo, relay) = reserved();
        let mut refusals = 0;
        while solo.next_deadline() != "reservation expires" {
            while !solo.opening().is_empty() {
                let stream = solo.open();
                answer(&mut solo, stream, &refused(status));
                refusals += 1;
            }
            assert_eq!(relay_addresses(&solo), [through(PLACE)], "still advertised");
            let stop = solo.accept(relay, &STOP);
            solo.receive(stop, stop_connect("A"));
            assert_eq!(stop_status(&mut solo, stop), RelayStatus::Ok, "still accepted");
            solo.reset(stop, StreamFault::Remote(0));
        }
        assert_eq!(solo.now().as_nanos(), HOUR * 1_000_000_000, "held to the end");
        // By the relay's clock as well?
        let stream = solo.open();
        assert_eq!(relay_addresses(&solo), [through(PLACE)], "until it answers");
        answer(&mut solo, stream, &refused(204));
        assert!((5..30).contains(&refusals), "asked {refusals} times in the last twelve minutes");
        let mut told = events(&mut solo);
        let last = told.pop();
        let refused = ReserveError::Refused(RelayStatus::from(Some(status)));
        assert!(matches!(last, Some(client::Event::Lost { reason: ReserveError::Expired, .. })), "{last:?}");
        let kept = |event: &client::Event| match event {
            client::Event::RefreshFailed { reason, left, retry, .. } => *reason == refused && retry < left,
            client::Event::Refreshing { .. } => true,
            _ => false,
        };
        let (last, most) = told.split_last().expect("refusals");
        assert!(most.iter().all(kept), "{told:?}");
        assert!(matches!(last, client::Event::RefreshFailed { .. } | client::Event::Refreshing { .. }));
        assert_eq!(relay_addresses(&solo), [""; 0]);
    }
}

#[test]
fn a_reservation_that_is_over_by_our_clock_alone_is_held_until_it_is_by_the_relay_s() {
    let (mut solo, _) = reserved();
    let end = HOUR + 7 * 60;
    while solo.now().as_nanos() < end * 1_000_000_000 {
        solo.next_deadline();
        while !solo.opening().is_empty() {
            // A renewal is refused, and who asks for a circuit to itself shows that it is still held.
            let stream = solo.open();
            answer(&mut solo, stream, &refused(202));
        }
        assert_eq!(relay_addresses(&solo), [through(PLACE)], "at {}", solo.now());
    }
    // The relay has ended it, and is found out with the next check.
    while solo.counters.get("relay.client.lost") == 0 {
        solo.next_deadline();
        while !solo.opening().is_empty() {
            let stream = solo.open();
            answer(&mut solo, stream, &refused(204));
        }
    }
    assert!(solo.now().as_nanos() < (end + 400) * 1_000_000_000, "{}", solo.now());
    assert_eq!(lost(&mut solo), ReserveError::Expired);
    assert_eq!(relay_addresses(&solo), [""; 0]);
}

#[test]
fn a_renewal_that_is_granted_after_refusals_is_one() {
    let (mut solo, _) = reserved();
    for _ in 0..3 {
        solo.next_deadline();
        let stream = solo.open();
        answer(&mut solo, stream, &refused(201));
    }
    solo.next_deadline();
    let stream = solo.open();
    answer(&mut solo, stream, &granted(2 * HOUR, &[], None));
    let last = events(&mut solo).pop();
    assert!(matches!(last, Some(client::Event::Reserved { renewed: true, .. })), "{last:?}");
    assert_eq!(solo.counters.get("relay.client.lost"), 0);
}

#[test]
fn a_reservation_lasts_as_long_as_any_direct_connection_to_the_relay() {
    let (mut solo, first) = reserved();
    let second = solo.connect("R");
    let third = solo.connect("R");
    solo.disconnect(second);
    assert_eq!((events(&mut solo), solo.opening()), (vec![], vec![]), "another one ended");
    solo.disconnect(first);
    assert_eq!(
        solo.opening(),
        [third],
        "the relay may keep its books by connection: it is asked over the next"
    );
    assert_eq!(relay_addresses(&solo), [through(PLACE)]);
    let stop = solo.accept(third, &STOP);
    solo.receive(stop, stop_connect("A"));
    assert_eq!(stop_status(&mut solo, stop), RelayStatus::Ok);
    let fourth = solo.connect("R");
    solo.disconnect(third);
    solo.refuse_open(OpenError::NoConnection);
    assert_eq!(solo.opening(), [fourth], "it went with its connection, and is asked over the next");
    let stream = solo.open();
    answer(&mut solo, stream, &granted(HOUR, &[], None));
    assert_eq!(solo.counters.get("relay.client.lost") + solo.counters.get("relay.client.refresh_failed"), 0);
    let other = solo.connect("X");
    solo.connect_via("R", other);
    solo.disconnect_because(fourth, CloseReason::Reset);
    assert_eq!(lost(&mut solo), ReserveError::Disconnected(CloseReason::Reset), "a circuit is none");
}

#[test]
fn a_first_request_whose_connection_ends_is_made_over_another() {
    let mut solo = client();
    let (first, stream) = ask(&mut solo);
    let second = solo.connect("R");
    solo.disconnect(first);
    assert!(!solo.is_open(stream));
    assert_eq!(solo.opening(), [second]);
    let stream = solo.open();
    answer(&mut solo, stream, &granted(HOUR, &[], None));
    assert_eq!(solo.counters.get("relay.client.failed"), 0);
    assert_eq!(relay_addresses(&solo), [through(PLACE)]);
}

#[test]
fn a_renewal_that_goes_wrong_is_tried_again_while_the_reservation_lasts() {
    let (mut solo, _) = reserved();
    solo.next_deadline();
    solo.refuse_open(OpenError::StreamLimit);
    solo.next_deadline();
    let stream = solo.open();
    solo.reset(stream, StreamFault::Remote(0));
    solo.next_deadline();
    let silent = solo.open();
    assert_eq!(solo.next_deadline(), "reservation step");
    assert!(!solo.is_open(silent));
    let failed: Vec<_> = events(&mut solo)
        .into_iter()
        .filter_map(|event| match event {
            client::Event::RefreshFailed { reason, .. } => Some(reason),
            client::Event::Refreshing { .. } => None,
            other => panic!("{other:?}"),
        })
        .collect();
    let reset = ReserveError::Stream(StreamFault::Remote(0));
    assert_eq!(failed, [ReserveError::Open(OpenError::StreamLimit), reset, ReserveError::TimedOut]);
    assert_eq!(relay_addresses(&solo).len(), 1);
    while solo.next_deadline() != "reservation expires" {
        while !solo.opening().is_empty() {
            solo.refuse_open(OpenError::StreamLimit);
        }
    }
    assert_eq!(solo.now().as_nanos(), HOUR * 1_000_000_000);
    assert_eq!(lost(&mut solo), ReserveError::Expired);
    assert_eq!(relay_addresses(&solo), [""; 0]);
}

#[test]
fn every_first_failure_is_named_and_tried_again_later() {
    type Fault = fn(&mut Solo<Client>);
    let unreachable = || DialError::one(relay_address(), AttemptError::TimedOut);
    let dial_fails: Fault = |solo| solo.dial_fails(DialError::one(relay_address(), AttemptError::TimedOut));
    let faults: [(ReserveError, Fault); 7] = [
        (ReserveError::Unreachable(unreachable()), dial_fails),
        (ReserveError::Open(OpenError::StreamLimit), |solo| {
            solo.dialled("R");
            solo.refuse_open(OpenError::StreamLimit);
        }),
        (ReserveError::Stream(StreamFault::Unsupported), |solo| {
            solo.dialled("R");
            let stream = solo.open();
            solo.reset(stream, StreamFault::Unsupported);
        }),
        (ReserveError::Disconnected(CloseReason::TimedOut), |solo| {
            let relay = solo.dialled("R");
            solo.open();
            solo.disconnect(relay);
        }),
        (ReserveError::TimedOut, |solo| {
            solo.dialled("R");
            let stream = solo.open();
            solo.advance(Duration::from_secs(30));
            assert!(!solo.is_open(stream));
        }),
        (ReserveError::Refused(RelayStatus::Other(0)), |solo| {
            solo.dialled("R");
            let stream = solo.open();
            let no_status = HopMessage { r#type: Some(2), ..Default::default() };
            answer(solo, stream, &no_status);
        }),
        (ReserveError::Malformed("no reservation in the answer".into()), |solo| {
            solo.dialled("R");
            let stream = solo.open();
            answer(solo, stream, &refused(100));
        }),
    ];
    for (reason, fault) in faults {
        let mut solo = client();
        solo.with(|client, cx| client.reserve(cx, relay_address())).unwrap();
        fault(&mut solo);
        assert_eq!(failed(&mut solo), reason);
        let wait = solo.now();
        assert_eq!(solo.next_deadline(), "reservation step");
        let pause = solo.now().saturating_duration_since(wait);
        assert!(pause >= Duration::from_secs(1) && pause <= Duration::from_secs(2), "{pause:?}");
        assert_eq!(solo.opening().len() + solo.dialling().len(), 1, "{reason}");
        solo.with(|client, cx| client.cancel(cx, peer("R")));
    }
}

#[test]
fn pauses_grow_to_five_minutes_and_no_further() {
    let mut solo = client();
    solo.with(|client, cx| client.reserve(cx, relay_address())).unwrap();
    let mut pauses = Vec::new();
    for _ in 0..12 {
        let failed = solo.now();
        solo.dial_fails(DialError { attempts: Vec::new() });
        solo.next_deadline();
        pauses.push(solo.now().saturating_duration_since(failed).as_secs());
    }
    assert!(pauses[..8].is_sorted() && pauses[0] <= 2, "{pauses:?}");
    assert!(pauses[9..].iter().all(|pause| (150..=300).contains(pause)), "{pauses:?}");
    assert_ne!(pauses[9], pauses[10], "jitter");
    solo.with(|client, cx| client.reserve(cx, relay_address())).unwrap();
    assert_eq!(solo.dialling().len(), 1, "who asks anew does not wait, and nobody dials twice");
}

#[test]
fn a_relay_that_grants_and_drops_is_asked_less_and_less() {
    let mut solo = client();
    solo.with(|client, cx| client.reserve(cx, relay_address())).unwrap();
    let mut pauses = Vec::new();
    for _ in 0..6 {
        let relay = solo.dialled("R");
        let stream = solo.open();
        answer(&mut solo, stream, &granted(HOUR, &[], None));
        solo.disconnect(relay);
        let lost = solo.now();
        solo.next_deadline();
        pauses.push(solo.now().saturating_duration_since(lost));
    }
    assert!(pauses.is_sorted() && pauses[5] >= Duration::from_secs(16), "{pauses:?}");
}

#[test]
fn what_is_cancelled_is_gone_in_every_state() {
    type Go = fn(&mut Solo<Client>);
    let ways: [Go; 5] = [
        |_| (),
        |solo| solo.dial_fails(DialError { attempts: Vec::new() }),
        |solo| {
            solo.dialled("R");
        },
        |solo| {
            solo.dialled("R");
            solo.open();
        },
        |solo| {
            solo.dialled("R");
            let stream = solo.open();
            answer(solo, stream, &granted(HOUR, &[], None));
            solo.next_deadline();
            solo.open();
        },
    ];
    for go in ways {
        let mut solo = client();
        solo.with(|client, cx| client.reserve(cx, relay_address())).unwrap();
        go(&mut solo);
        solo.with(|client, cx| client.cancel(cx, peer("R")));
        if !solo.dialling().is_empty() {
            solo.dialled("R");
        }
        while !solo.opening().is_empty() {
            solo.open();
        }
        assert_eq!((solo.streams(), relay_addresses(&solo)), (vec![], vec![]));
        assert!(solo.behaviour.is_empty(), "{:?}", solo.behaviour);
    }
}

// Circuits to us.

fn stop_connect(source: &str) -> Vec<u8> {
    let limit = Limit { duration: Some(120), data: Some(128 << 10) };
    StopMessage::connect(peer(source).to_bytes(), Some(limit)).encode_to_vec()
}

fn stop_status(solo: &mut Solo<Client>, stream: StreamId) -> RelayStatus {
    StopMessage::decode(solo.sent(stream).remove(0)).expect("a stop message").status.into()
}

#[test]
fn a_circuit_from_our_relay_is_accepted_and_becomes_a_connection() {
    let (mut solo, relay) = reserved();
    solo.peer("A");
    solo.story();
    let stream = solo.accept(relay, &STOP);
    solo.receive(stream, stop_connect("A"));
    insta::assert_snapshot!(solo.story(), @r"
    0.000  R  >  B  stop CONNECT A limit=120s/128KiB
    0.000  B  >  R  stop STATUS OK
    0.000  B  =  upgrade to A as Responder
    ");
    let upgrade = solo.upgrades().remove(0);
    assert_eq!((upgrade.stream, upgrade.peer, upgrade.role), (stream, peer("A"), UpgradeRole::Responder));
    assert_eq!(
        upgrade.limit,
        CircuitLimit { duration: Some(Duration::from_secs(120)), data: Some(128 << 10) }
    );
}

#[test]
fn a_circuit_nobody_asked_for_is_refused() {
    let (mut solo, relay) = reserved();
    let stranger = solo.connect("X");
    let relayed = solo.connect_via("R", stranger);
    for (connection, frame, expected) in [
        (stranger, stop_connect("A"), RelayStatus::PermissionDenied),
        (relayed, stop_connect("A"), RelayStatus::PermissionDenied),
        (relay, stop_connect("B"), RelayStatus::PermissionDenied),
        (relay, vec![0xff], RelayStatus::MalformedMessage),
        (relay, StopMessage::connect(vec![1], None).encode_to_vec(), RelayStatus::MalformedMessage),
        (
            relay,
            StopMessage { r#type: Some(1), ..Default::default() }.encode_to_vec(),
            RelayStatus::UnexpectedMessage,
        ),
    ] {
        let stream = solo.accept(connection, &STOP);
        solo.receive(stream, frame);
        assert_eq!(stop_status(&mut solo, stream), expected);
        assert!(solo.is_finished(stream));
        solo.finish(stream);
    }
    assert!(solo.upgrades().is_empty());
    assert_eq!(solo.counters.get("relay.stop.refused.permission_denied"), 3);
    solo.with(|client, cx| client.cancel(cx, peer("R")));
    let stream = solo.accept(relay, &STOP);
    solo.receive(stream, stop_connect("A"));
    assert_eq!(stop_status(&mut solo, stream), RelayStatus::PermissionDenied, "the reservation is over");
}

#[test]
fn a_relay_that_opens_a_stream_and_says_nothing_is_given_up() {
    let (mut solo, relay) = reserved();
    let stream = solo.accept(relay, &STOP);
    solo.advance(Duration::from_secs(30));
    assert!(!solo.is_open(stream));
}

// Circuits from us.

fn hop_ok() -> HopMessage {
    HopMessage { limit: Some(Limit { duration: Some(120_000), data: None }), ..refused(100) }
}

#[test]
fn a_circuit_is_dialled_through_a_new_connection_to_the_relay() {
    let mut solo = client();
    solo.peer("A");
    let token = solo.dial(circuit(PLACE, "R", "A"));
    solo.dialled("R");
    let stream = solo.open();
    solo.receive(stream, hop_ok().encode_to_vec());
    insta::assert_snapshot!(solo.story(), @r"
    0.000  B  !  dial /ip4/203.0.113.1/udp/4001/quic-v1/p2p/R
    0.000  B  >  R  hop CONNECT A
    0.000  R  >  B  hop STATUS OK limit=120000s/none
    0.000  B  =  upgrade to A as Initiator
    ");
    let upgrade = solo.upgrades().remove(0);
    assert_eq!((upgrade.token, upgrade.stream, upgrade.peer), (token, stream, peer("A")));
    assert_eq!(upgrade.role, UpgradeRole::Initiator);
    let a_day = Duration::from_secs(86400);
    assert_eq!(upgrade.limit, CircuitLimit { duration: Some(a_day), data: None }, "not 33 hours");
    let relay = solo.connections.iter().next().unwrap().id;
    let connection = solo.connect_via("A", relay);
    solo.upgraded(&upgrade, Ok(connection));
    assert_eq!(solo.behaviour.scores().get(&peer("R")).unwrap().active_circuits, 1);
    solo.disconnect(connection);
    let stats = solo.behaviour.scores().get(&peer("R")).unwrap();
    assert_eq!((stats.active_circuits, stats.successes), (0, 1.0));
    assert!(solo.behaviour.is_empty());
}

#[test]
fn many_circuits_at_once_share_one_connection_and_do_not_wait_for_each_other() {
    let mut solo = client();
    let names: Vec<_> = (0..50).map(|n| format!("A{n}")).collect();
    for name in &names {
        solo.dial(circuit(PLACE, "R", name));
    }
    solo.with(|client, cx| client.reserve(cx, relay_address())).unwrap();
    assert_eq!(solo.dialling().len(), 1);
    solo.dialled("R");
    assert_eq!(solo.opening().len(), 51);
    let streams: Vec<_> = (0..51).map(|_| solo.open()).collect();
    // The reservation's stream is the first; the relay answers the others in any order.
    for stream in streams[1..].iter().rev() {
        solo.receive(*stream, hop_ok().encode_to_vec());
    }
    let upgraded: Vec<_> = solo.upgrades().into_iter().map(|upgrade| upgrade.peer).collect();
    let expected: Vec<_> = names.iter().rev().map(|name| peer(name)).collect();
    assert_eq!(upgraded, expected);
}

fn upgrade_fails(solo: &mut Solo<Client>, after: Duration, error: UpgradeError) {
    solo.dialled("R");
    let stream = solo.open();
    solo.receive(stream, hop_ok().encode_to_vec());
    solo.advance(after);
    let upgrade = solo.upgrades().remove(0);
    solo.upgraded(&upgrade, Err(error));
}

#[test]
fn every_failed_circuit_says_why_and_leaves_nothing_behind() {
    type Fault = fn(&mut Solo<Client>);
    let faults: [(AttemptError, Fault); 13] = [
        (AttemptError::RelayUnreachable("no address to dial".into()), |solo| {
            solo.dial_fails(DialError { attempts: Vec::new() });
        }),
        (
            AttemptError::RelayUnreachable(
                "the remote grants no more streams, and too many wait for one".into(),
            ),
            |solo| {
                solo.dialled("R");
                solo.refuse_open(OpenError::StreamLimit);
            },
        ),
        (AttemptError::RelayUnreachable("timed out".into()), |solo| {
            let relay = solo.dialled("R");
            solo.open();
            solo.disconnect(relay);
        }),
        (AttemptError::TargetUnknown, |solo| {
            solo.dialled("R");
            let stream = solo.open();
            answer(solo, stream, &refused(204));
        }),
        (AttemptError::RelayLimit, |solo| {
            solo.dialled("R");
            let stream = solo.open();
            answer(solo, stream, &refused(201));
        }),
        (AttemptError::RelayRefused(RelayStatus::PermissionDenied), |solo| {
            solo.dialled("R");
            let stream = solo.open();
            answer(solo, stream, &refused(202));
        }),
        (AttemptError::Failed(CloseReason::Upgrade(UpgradeError::TimedOut("security"))), |solo| {
            upgrade_fails(solo, Duration::ZERO, UpgradeError::TimedOut("security"));
        }),
        (AttemptError::CircuitLimit, |solo| {
            let limit = Duration::from_secs(86400);
            upgrade_fails(solo, limit, UpgradeError::Carrier(StreamFault::Remote(0)));
        }),
        (AttemptError::RelayFault("not an answer".into()), |solo| {
            solo.dialled("R");
            let stream = solo.open();
            answer(solo, stream, &HopMessage::reserve());
        }),
        (AttemptError::RelayFault("the remote does not speak the protocol".into()), |solo| {
            solo.dialled("R");
            let stream = solo.open();
            solo.reset(stream, StreamFault::Unsupported);
        }),
        (AttemptError::RelayFault("no answer".into()), |solo| {
            solo.dialled("R");
            let stream = solo.open();
            solo.finish(stream);
        }),
        (AttemptError::TimedOut, |solo| {
            solo.dialled("R");
            solo.open();
            solo.advance(Duration::from_secs(30));
        }),
        (AttemptError::TimedOut, |solo| {
            solo.advance(Duration::from_secs(30));
            solo.dialled("R");
        }),
    ];
    for (error, fault) in faults {
        let mut solo = client();
        let token = solo.dial(circuit(PLACE, "R", "A"));
        fault(&mut solo);
        let expected = DialError::one(circuit(PLACE, "R", "A"), error);
        assert_eq!(solo.failed_dials(), [(token, expected)]);
        assert!(solo.streams().is_empty() && solo.opening().is_empty());
        assert!(solo.behaviour.is_empty(), "{:?}", solo.behaviour);
    }
}

#[test]
fn what_is_no_circuit_to_another_is_not_dialled() {
    let mut solo = client();
    let unnamed = relay_address().with(Protocol::P2pCircuit);
    let nowhere = circuit("", "R", "A");
    for address in [circuit(PLACE, "R", "B"), circuit(PLACE, "B", "A"), address(PLACE), unnamed, nowhere] {
        solo.dial(address);
    }
    let errors: Vec<_> =
        solo.failed_dials().into_iter().map(|(_, error)| error.attempts[0].1.to_string()).collect();
    assert_eq!(
        errors,
        [
            "that is this node itself",
            "that is this node itself",
            "not a dialable address: not a circuit address",
            "not a dialable address: circuit address does not name its target",
            "the relay could not be reached: the address does not say where it is",
        ]
    );
    solo.connect("R");
    solo.dial(circuit("", "R", "A"));
    assert_eq!(solo.opening().len(), 1, "a relay that we are connected to needs no address");
}

#[test]
fn the_client_answers_stop_and_only_speaks_hop() {
    let solo = client();
    assert_eq!(solo.protocols, [STOP]);
    let specs = peerless_core::behaviour::Behaviour::protocols(&solo.behaviour);
    assert_eq!((&specs[0].name, specs[0].inbound_per_peer), (&HOP, 0));
}

#[test]
fn laws() {
    let good = voucher(&identity("A"), "A", "R", EPOCH.as_secs() + HOUR);
    let answers = [
        granted(HOUR, &[PLACE], Some(good)),
        granted(HOUR, &[], None),
        granted(500, &[PLACE], None),
        granted(200, &[PLACE], None),
        granted(100, &[], None),
        hop_ok(),
        refused(204),
    ];
    let answers = answers.map(|message| (HOP, message.encode_to_vec().into()));
    let offers = ["A", "B", "C"].map(|name| (STOP, stop_connect(name).into()));
    let laws = Laws {
        make: || Client::new(Config::default()),
        command: |solo, number| {
            let relay = ["A", "B", "C"][(number % 3) as usize];
            let address = address(PLACE).with(Protocol::P2p(peer(relay)));
            solo.with(|client, cx| match number % 16 {
                0 => client.cancel(cx, peer(relay)),
                _ => client.reserve(cx, address).unwrap(),
            });
        },
        settle: |solo| {
            let relays: Vec<_> = solo.behaviour.relays().collect();
            for relay in relays {
                solo.with(|client, cx| client.cancel(cx, relay));
            }
        },
        entries: Client::len,
        frames: answers.into_iter().chain(offers).collect(),
        most_actions: 60,
        reaches: &[
            "relay.client.reserved",
            "relay.client.renewed",
            "relay.client.lost",
            "relay.client.failed",
            "relay.client.dial_failed",
            "relay.stop.accepted",
            "relay.stop.refused.permission_denied",
        ],
    };
    laws.check(60);
}
