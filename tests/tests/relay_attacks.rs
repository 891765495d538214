//! What hostile clients can do to a relay, and hostile relays to their clients, each with a bound on what it costs.
//!
//! The limits themselves are in `relay_limits`, a reader that does not read in `slow_reader` and `hostile`.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use multiaddr::{Multiaddr, Protocol};
use peerless_core::{
    errors::RelayStatus,
    ids::{ConnectionId, StreamId},
    names::CircuitLimit,
    node::Event,
    protocols::relay::{
        HOP, STOP,
        client::{self, Client, ReservationState, ReserveError},
        hop::{CircuitEnd, Config, Event as HopEvent, Hop},
        limits::RelayLimits,
    },
    swarm::addresses::AddressSource,
    time::Instant,
};
use peerless_proto::{
    pb::{
        Message as _,
        relay::{HopMessage, HopType, Limit, Reservation, StopMessage, StopType},
    },
    voucher::Voucher,
};
use peerless_tests::{
    host::HostId,
    solo::{EPOCH, Solo, address, identity, own_addresses, peer},
    world::{World, ms, secs},
};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// What a public relay holds at most for those who are connected: reservations and what keeps count of them.
const MOST_ENTRIES: usize = 128 * 8;

// Clients against a relay.

fn relay() -> Solo<Hop> {
    Solo::new("R", Hop::new(Config::default()))
}

fn join(solo: &mut Solo<Hop>, name: &str, ip: impl Into<IpAddr>) -> ConnectionId {
    let remote = Multiaddr::from(ip.into()).with(Protocol::Udp(4001)).with(Protocol::QuicV1);
    solo.connect_with(name, |info| info.remote = remote)
}

/// Sends a request; the answer, if there is one already.
fn ask(
    solo: &mut Solo<Hop>,
    connection: ConnectionId,
    request: &HopMessage,
) -> (StreamId, Option<RelayStatus>) {
    let stream = solo.accept(connection, &HOP);
    solo.receive(stream, request.encode_to_vec());
    (stream, answer(solo, stream))
}

fn answer(solo: &mut Solo<Hop>, stream: StreamId) -> Option<RelayStatus> {
    let sent = solo.sent(stream).pop()?;
    Some(HopMessage::decode(sent).expect("a hop message").status.into())
}

/// Sends a request, takes the answer, and ends the stream as one should.
fn ask_nicely(solo: &mut Solo<Hop>, connection: ConnectionId, request: &HopMessage) -> RelayStatus {
    let (stream, status) = ask(solo, connection, request);
    solo.finish(stream);
    status.expect("an answer at once")
}

fn reserve(solo: &mut Solo<Hop>, connection: ConnectionId) -> RelayStatus {
    ask_nicely(solo, connection, &HopMessage::reserve())
}

fn connect_to(target: &str) -> HopMessage {
    HopMessage::connect(peer(target).to_bytes())
}

fn forget_the_past(solo: &mut Solo<Hop>) {
    drop((solo.story(), solo.events()));
}

fn all_leave(solo: &mut Solo<Hop>) {
    let all: Vec<_> = solo.connections.iter().map(|info| info.id).collect();
    all.into_iter().for_each(|connection| solo.disconnect(connection));
    assert!(solo.behaviour.is_empty(), "{} entries are left", solo.behaviour.len());
}

/// One peer asks without end, over connections that come and go.
#[test]
fn a_peer_that_reserves_in_a_loop_holds_one_slot_and_is_soon_refused() {
    let mut solo = relay();
    let mut granted = 0;
    for round in 0..1_000 {
        let connection = join(&mut solo, "A", Ipv4Addr::new(198, 51, 100, (round % 250) as u8));
        for _ in 0..10 {
            granted += u32::from(reserve(&mut solo, connection) == RelayStatus::Ok);
            assert_eq!(
                solo.behaviour.reservations(),
                usize::from(granted > 0 && granted <= 30 && holds(&solo))
            );
            assert!(solo.behaviour.len() < 16, "{} entries", solo.behaviour.len());
        }
        solo.disconnect(connection);
        assert_eq!(solo.behaviour.reservations(), 0, "freed when it leaves");
        forget_the_past(&mut solo);
    }
    assert_eq!(granted, 30, "the burst of a public relay");
    assert_eq!(solo.counters.get("relay.hop.refused.reservation_rate_peer"), 10_000 - 30);
    assert!(solo.behaviour.buckets() <= 30, "one for the peer, one for each address it was granted at");
    all_leave(&mut solo);
}

fn holds(solo: &Solo<Hop>) -> bool {
    solo.behaviour.reservations() == 1
}

/// Ever new peers ask: behind one address, one /64, one /56 and one /48. Each crowd gets its share, and others the rest.
#[test]
fn crowds_from_one_place_get_the_share_of_that_place() {
    type Nth<'a> = &'a dyn Fn(u16) -> IpAddr;
    let site = |home: u8, net: u8, host: u16| {
        IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 1, u16::from(home) << 8 | u16::from(net), 0, 0, 0, host))
    };
    let crowds: [(&str, Nth<'_>, usize); 4] = [
        ("address", &|_| Ipv4Addr::new(198, 51, 100, 1).into(), 8),
        ("/64", &|n| site(1, 1, n), 8),
        // The /56 of the crowd before, which has used it up.
        ("/56", &|n| site(1, (n % 250) as u8, n), 0),
        ("/48", &|n| site((n % 250) as u8, 7, n), 32 - 8),
    ];
    let mut solo = relay();
    let mut held = 0;
    for (place, nth, share) in crowds {
        for n in 0..200 {
            let connection = join(&mut solo, &format!("{place} {n}"), nth(n));
            reserve(&mut solo, connection);
            forget_the_past(&mut solo);
        }
        held += share;
        assert_eq!(solo.behaviour.reservations(), held, "{place}");
    }
    for n in 0..88 {
        let honest = join(&mut solo, &format!("honest {n}"), Ipv4Addr::new(203, 0, 113, n));
        assert_eq!(reserve(&mut solo, honest), RelayStatus::Ok, "there is room for {n} elsewhere");
    }
    assert_eq!(solo.behaviour.reservations(), 128);
    assert!(solo.behaviour.len() <= MOST_ENTRIES, "{} entries", solo.behaviour.len());
    all_leave(&mut solo);
}

/// Peers from all over the world reserve and leave: what is remembered of each is how often it and its address asked,
/// and that not for long.
#[test]
fn peers_that_come_once_and_leave_are_forgotten() {
    const PEERS: usize = 500;
    let mut solo = relay();
    for n in 1..=PEERS {
        let ip = Ipv6Addr::from_bits(0x2001_0db8 << 96 | (n as u128) << 80 | 1);
        let connection = join(&mut solo, &format!("P{n}"), ip);
        assert_eq!(reserve(&mut solo, connection), RelayStatus::Ok);
        solo.disconnect(connection);
        assert!(solo.behaviour.is_empty());
        assert_eq!(solo.behaviour.buckets(), 2 * n);
        forget_the_past(&mut solo);
    }
    solo.advance(Duration::from_secs(120));
    let last = join(&mut solo, "last", Ipv4Addr::new(198, 51, 100, 1));
    reserve(&mut solo, last);
    assert_eq!(solo.behaviour.buckets(), 2, "nothing is known of the others");
    all_leave(&mut solo);
}

/// Circuits to where none may go, thousands of them: each is answered, and none is begun.
#[test]
fn circuits_to_where_none_may_go_are_refused_and_begin_nothing() {
    let mut solo = relay();
    let (a, b) = (
        join(&mut solo, "A", Ipv4Addr::new(198, 51, 100, 1)),
        join(&mut solo, "B", Ipv4Addr::new(198, 51, 100, 2)),
    );
    assert_eq!(reserve(&mut solo, b), RelayStatus::Ok);
    let relayed = solo.connect_via("C", a);
    let idle = solo.behaviour.len();
    let nonsense = HopMessage { r#type: Some(HopType::Connect as i32), ..Default::default() };
    for _ in 0..1_000 {
        for (from, request, status) in [
            (a, connect_to("Nobody"), RelayStatus::NoReservation),
            (a, connect_to("A"), RelayStatus::NoReservation),
            (b, connect_to("B"), RelayStatus::PermissionDenied),
            (a, connect_to("R"), RelayStatus::PermissionDenied),
            (relayed, connect_to("B"), RelayStatus::PermissionDenied),
            (relayed, HopMessage::reserve(), RelayStatus::PermissionDenied),
            (a, nonsense.clone(), RelayStatus::MalformedMessage),
        ] {
            assert_eq!(ask_nicely(&mut solo, from, &request), status);
        }
        assert_eq!((solo.behaviour.circuits(), solo.behaviour.len()), (0, idle));
        assert!(solo.opening().is_empty(), "nobody else hears of it");
        forget_the_past(&mut solo);
    }
    all_leave(&mut solo);
}

/// A target that never answers holds so many circuits at a time, for so long each; and one that stops being one
/// meanwhile changes nothing.
#[test]
fn a_target_that_never_answers_holds_its_share_for_half_a_minute() {
    let mut solo = relay();
    let source = |solo: &mut Solo<Hop>, n: u8| join(solo, &format!("A{n}"), Ipv4Addr::new(198, 51, n, 1));
    let sources: Vec<_> = (0..40).map(|n| source(&mut solo, n)).collect();
    let target = join(&mut solo, "B", Ipv4Addr::new(203, 0, 113, 1));
    assert_eq!(reserve(&mut solo, target), RelayStatus::Ok);
    // Its reservation ends while the last circuits wait.
    solo.advance(HOUR - Duration::from_secs(10));
    let mut waiting = Vec::new();
    for source in &sources {
        let (stream, status) = ask(&mut solo, *source, &connect_to("B"));
        match status {
            None => waiting.push((solo.open(), stream)),
            Some(status) => assert_eq!(status, RelayStatus::ResourceLimitExceeded),
        }
        assert!(solo.behaviour.circuits() <= 16);
    }
    assert_eq!(waiting.len(), 16);
    solo.advance(Duration::from_secs(10));
    assert_eq!((solo.behaviour.reservations(), solo.behaviour.circuits()), (0, 16), "it expires meanwhile");
    solo.advance(Duration::from_secs(20) - Duration::from_nanos(1));
    assert_eq!(solo.behaviour.circuits(), 16);
    solo.advance(Duration::from_nanos(1));
    assert_eq!(solo.behaviour.circuits(), 0);
    for (stop, hop) in waiting {
        assert_eq!(answer(&mut solo, hop), Some(RelayStatus::ConnectionFailed));
        assert!(!solo.is_open(stop), "the target's stream is reset");
    }
    all_leave(&mut solo);
}

/// A target with several connections is asked over the one from which it reserved last, once per circuit.
#[test]
fn a_target_with_many_connections_is_asked_once() {
    let mut solo = relay();
    let a = join(&mut solo, "A", Ipv4Addr::new(198, 51, 100, 1));
    let connections: Vec<_> = (1..=8).map(|n| join(&mut solo, "B", Ipv4Addr::new(203, 0, 113, n))).collect();
    for last in &connections {
        assert_eq!(reserve(&mut solo, *last), RelayStatus::Ok);
        let (stream, status) = ask(&mut solo, a, &connect_to("B"));
        assert_eq!((status, solo.opening()), (None, vec![*last]));
        let stop = solo.open();
        let no =
            StopMessage { r#type: Some(StopType::Status as i32), status: Some(202), ..Default::default() };
        solo.receive(stop, no.encode_to_vec());
        assert_eq!(answer(&mut solo, stream), Some(RelayStatus::ConnectionFailed));
        solo.finish(stop);
        solo.finish(stream);
    }
    assert_eq!((solo.behaviour.reservations(), solo.behaviour.circuits()), (1, 0));
    all_leave(&mut solo);
}

// Relays against a client.

const PLACE: &str = "/ip4/203.0.113.1/udp/4001/quic-v1";

fn relay_address() -> Multiaddr {
    address(PLACE).with(Protocol::P2p(peer("R")))
}

/// A client that wants a reservation at R.
fn client() -> Solo<Client> {
    let mut solo = Solo::new("B", Client::new(client::Config::default()));
    solo.peer("R");
    solo.with(|client, cx| client.reserve(cx, relay_address())).expect("a relay's address");
    solo
}

/// A grant for so long from now.
fn grant(solo: &Solo<Client>, term: Duration) -> HopMessage {
    let expire = (solo.unix() + term).as_secs();
    HopMessage {
        r#type: Some(HopType::Status as i32),
        status: Some(100),
        reservation: Some(Reservation { expire: Some(expire), addrs: Vec::new(), voucher: None }),
        limit: Some(Limit { duration: Some(120), data: Some(128 << 10) }),
        ..Default::default()
    }
}

/// Answers the request that is waiting.
fn give(solo: &mut Solo<Client>, message: &HopMessage) {
    let stream = solo.open();
    // Or whether it holds a reservation still.
    let questions = [HopMessage::reserve(), connect_to("B")].map(|question| question.encode_to_vec());
    let sent = solo.sent(stream);
    assert!(sent.len() == 1 && questions.iter().any(|question| sent[0] == *question), "{sent:?}");
    solo.receive(stream, message.encode_to_vec());
    solo.finish(stream);
}

fn told(solo: &mut Solo<Client>) -> Option<client::Event> {
    solo.events().into_iter().rev().find_map(|event| match event {
        Event::Reservation(event) => Some(event),
        _ => None,
    })
}

fn advertised(solo: &Solo<Client>) -> Vec<String> {
    own_addresses(solo, AddressSource::Relay)
}

/// A voucher that the relay did not sign, for somebody else, of another relay, or over: each is named, and nothing is
/// advertised.
#[test]
fn a_voucher_that_is_not_ours_makes_no_reservation() {
    let good = EPOCH.as_secs() + 3600;
    let sealed = |signer: &str, relay: &str, holder: &str, expiration: u64| {
        let voucher = Voucher { relay: peer(relay), peer: peer(holder), expiration };
        voucher.seal(identity(signer).keypair()).map(|envelope| envelope.encode())
    };
    let mut forged = sealed("R", "R", "B", good).expect("its own");
    let middle = forged.len() / 2;
    forged[middle] ^= 1;
    let others =
        [sealed("X", "X", "B", good), sealed("R", "R", "X", good), sealed("R", "R", "B", EPOCH.as_secs())];
    let others = others.into_iter().map(|voucher| voucher.expect("signed by whom it names"));
    for voucher in others.chain([forged, Vec::new(), vec![0xff; 2048]]) {
        let mut solo = client();
        solo.dialled("R");
        let mut message = grant(&solo, HOUR);
        message.reservation.as_mut().expect("just made").voucher = Some(voucher);
        give(&mut solo, &message);
        assert!(
            matches!(told(&mut solo), Some(client::Event::Failed { reason: ReserveError::Voucher(_), .. })),
            "it is named"
        );
        assert_eq!(advertised(&solo), [""; 0]);
        assert_eq!(solo.behaviour.reservation(&peer("R")), Some(ReservationState::BackingOff));
    }
    assert!(sealed("X", "R", "B", good).is_err(), "nobody signs for another relay by mistake");
}

/// Addresses of others, of nobody and of the client's own network, and far too many: sixteen at most are advertised.
#[test]
fn a_relay_that_lies_about_its_addresses_is_not_repeated() {
    let mut solo = client();
    solo.dialled("R");
    let mut message = grant(&solo, HOUR);
    let addrs = &mut message.reservation.as_mut().expect("just made").addrs;
    let lies = ["127.0.0.1", "10.0.0.1", "192.168.1.1", "100.64.0.1", "169.254.1.1", "0.0.0.0", "224.0.0.1"];
    addrs.extend(lies.map(|ip| address(&format!("/ip4/{ip}/udp/1/quic-v1")).to_vec()));
    addrs.extend(
        ["::1", "fd00::1", "fe80::1", "::"].map(|ip| address(&format!("/ip6/{ip}/udp/1/quic-v1")).to_vec()),
    );
    addrs.push(address(PLACE).with(Protocol::P2p(peer("X"))).to_vec());
    addrs.push(relay_address().with(Protocol::P2pCircuit).to_vec());
    addrs.extend([vec![], vec![0xff; 9]]);
    addrs.extend((0..200_u8).map(|n| address(&format!("/ip4/198.51.100.{n}/udp/1/quic-v1")).to_vec()));
    assert!(message.encoded_len() < 4096, "it fits a frame");
    give(&mut solo, &message);
    let advertised = advertised(&solo);
    assert_eq!(advertised.len(), 16);
    assert!(advertised.iter().all(|address| address.starts_with("/ip4/198.51.100.")), "{advertised:?}");
}

/// A renewal with less: what it grants now is told, and the address stays as it was.
#[test]
fn a_renewal_with_smaller_limits_is_told_and_withdraws_nothing() {
    let mut solo = client();
    solo.dialled("R");
    let first = grant(&solo, HOUR);
    give(&mut solo, &first);
    let before = advertised(&solo);
    solo.next_deadline();
    let limit = Some(Limit { duration: Some(1), data: Some(1) });
    let less = HopMessage { limit, ..grant(&solo, Duration::from_secs(600)) };
    give(&mut solo, &less);
    let smallest = CircuitLimit { duration: Some(Duration::from_secs(1)), data: Some(1) };
    match told(&mut solo) {
        Some(client::Event::Reserved { limit, renewed: true, .. }) => assert_eq!(limit, smallest),
        other => panic!("{other:?}"),
    }
    assert_eq!((advertised(&solo), before.len()), (before.clone(), 1));
}

/// How often a relay is asked in a day.
fn asked_in_a_day(mut solo: Solo<Client>, mut react: impl FnMut(&mut Solo<Client>)) -> u32 {
    let (mut asked, end) = (0, Instant::ZERO + DAY);
    while solo.now() < end {
        if !solo.dialling().is_empty() {
            solo.dialled("R");
        } else if !solo.opening().is_empty() {
            asked += 1;
            react(&mut solo);
        } else {
            solo.next_deadline();
        }
        drop(solo.story());
        assert!(solo.behaviour.len() < 16, "{} entries", solo.behaviour.len());
    }
    asked
}

/// Whatever a relay does with its reservations, it does not make its client a busy one.
#[test]
fn a_relay_that_flaps_shrinks_or_refuses_is_asked_no_more_than_its_clients_can_bear() {
    type React = fn(&mut Solo<Client>);
    let refuses: React = |solo| {
        let no = HopMessage { r#type: Some(HopType::Status as i32), status: Some(200), ..Default::default() };
        give(solo, &no);
    };
    let past: React = |solo| {
        let message = grant(solo, Duration::ZERO);
        give(solo, &message);
    };
    let second: React = |solo| {
        let message = grant(solo, Duration::from_secs(1));
        give(solo, &message);
    };
    let flaps: React = |solo| {
        let message = grant(solo, HOUR);
        give(solo, &message);
        let connection = solo.connections.of(&peer("R")).last().copied().expect("it asked over it");
        solo.disconnect(connection);
    };
    let shrinks: React = |solo| {
        let holds = solo.behaviour.reservation(&peer("R")) == Some(ReservationState::Refreshing);
        let message = grant(solo, if holds { Duration::ZERO } else { HOUR });
        give(solo, &message);
    };
    let hurries: React = |solo| {
        let message = grant(solo, Duration::from_secs(6));
        give(solo, &message);
    };
    // Pauses grow to between two and a half and five minutes; a reservation of seconds is renewed each five seconds.
    for (how, react, most) in [
        ("refuses", refuses, 600),
        ("grants until now", past, 600),
        ("grants a second", second, 600),
        ("flaps", flaps, 600),
        ("shrinks", shrinks, 100),
        ("hurries", hurries, 24 * 3600 * 20 / 95 + 1),
    ] {
        let asked = asked_in_a_day(client(), react);
        assert!(asked > 20 && asked <= most, "a relay that {how} is asked {asked} times in a day");
    }
}

/// A relay opens circuits without end: no more than 256 streams of it are served, and silence is given up.
#[test]
fn a_relay_that_opens_circuits_without_end_is_served_its_share() {
    let mut w = World::new(1).quiet();
    let relay = w.host("R").configure(|config| {
        config.relay_roles = peerless_core::protocols::relay::Roles::NONE;
        let name = STOP;
        config.app_protocols.push(peerless_core::node::AppProtocol { name, inbound_per_peer: 0 });
    });
    let relay = relay.start();
    let victim: HostId = w.host("B").start();
    let connection = w.dial(relay, victim);
    for _ in 0..1_000 {
        let opened = w.command(relay, |node, now| node.open(now, connection, &STOP));
        drop(opened);
        w.run_for(ms(1));
        assert!(w.node(victim).stats().streams <= 256 + 64, "{} streams", w.node(victim).stats().streams);
    }
    w.run_for(secs(120));
    assert!(w.node(victim).stats().streams <= 2, "silence is given up: {:?}", w.node(victim).stats());
    w.shutdown();
}

/// What is cut by a limit is told as such and never as an end that both agreed to.
#[test]
fn a_cut_circuit_never_looks_finished() {
    let mut w = World::new(2).quiet();
    let limits = RelayLimits { circuit_bytes: 4096, ..RelayLimits::public() };
    let relay = w.host("R").relay_with(limits.into()).start();
    let [a, b] = ["A", "B"].map(|name| w.host(name).start());
    w.reserve(b, relay);
    w.run_for(secs(1));
    let connection = w.dial_via(a, relay, b);
    let stream = w.start_perf(a, connection, 100_000, 0);
    let transfer = w.finish_transfer(a, stream, secs(60));
    assert!(transfer.fault.is_some() && transfer.finished.is_none(), "{transfer:?}");
    w.run_for(secs(1));
    let ends: Vec<_> = w[relay]
        .log()
        .iter()
        .filter_map(|(_, event)| match event {
            Event::Hop(HopEvent::CircuitClosed { end, .. }) => Some(end.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(ends, [CircuitEnd::DataLimit]);
}
