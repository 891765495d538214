//! The relay's limits: each lets so many pass and not one more, says so in its own words, and lets the next one in when
//! one has gone; and all of them hold at every step of a long hostile run.

#[path = "relay_limits/circuit.rs"]
mod circuit;
#[path = "relay_limits/table.rs"]
mod table;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use multiaddr::{Multiaddr, Protocol};
use peerless_core::{
    behaviour::Behaviour as _,
    errors::{AttemptError, RelayStatus, SpliceEnd},
    ids::{ConnectionId, StreamId},
    names::{CircuitLimit, ProtocolSpec, SpliceReport},
    node::{self, Event, Node, Start},
    protocols::relay::{
        HOP, Roles, STOP,
        client::Client,
        hop::{self, Acl, Ask, AsnLookup, Config, Hop},
        limits::{Asn, Rate, RelayLimits},
    },
    rng::Rng,
    time::Instant,
};
use peerless_proto::pb::{
    Message as _,
    relay::{HopMessage, StopMessage, StopType},
};
use peerless_tests::solo::{self, EPOCH, Solo, identity, peer};

use self::circuit::TICK;

const NONE: RelayLimits = RelayLimits::unlimited();

fn at(solo: &mut Solo<Hop>, name: &str, ip: impl Into<IpAddr>) -> ConnectionId {
    let ip = ip.into();
    solo.connect_with(name, |info| {
        info.remote = Multiaddr::from(ip).with(Protocol::Udp(4001)).with(Protocol::QuicV1);
    })
}

/// The `n`th address of a net: 198.51.`net`.`n`.
fn v4(net: u8, n: usize) -> IpAddr {
    Ipv4Addr::new(198, 51, net, n as u8).into()
}

/// An IPv6 address by its /48, the 8 bits up to the /56, the 8 bits up to the /64, and the host.
fn v6(site: u16, home: u8, net: u8, host: u64) -> IpAddr {
    let front = [0x2001, 0xdb8, site, u16::from(home) << 8 | u16::from(net)];
    let bits = front.iter().fold(0_u128, |bits, part| bits << 16 | u128::from(*part));
    Ipv6Addr::from_bits(bits << 64 | u128::from(host)).into()
}

fn ask(solo: &mut Solo<Hop>, connection: ConnectionId, message: &HopMessage) -> StreamId {
    let stream = solo.accept(connection, &HOP);
    solo.receive(stream, message.encode_to_vec());
    stream
}

fn status(solo: &mut Solo<Hop>, stream: StreamId) -> Option<RelayStatus> {
    let sent = solo.sent(stream).pop()?;
    Some(HopMessage::decode(sent).expect("a hop message").status.into())
}

fn reserve(solo: &mut Solo<Hop>, connection: ConnectionId) -> RelayStatus {
    let stream = ask(solo, connection, &HopMessage::reserve());
    let status = status(solo, stream).expect("an answer");
    solo.finish(stream);
    status
}

/// Asks for a circuit, which the target accepts.
fn connect(solo: &mut Solo<Hop>, connection: ConnectionId, target: &str) -> (StreamId, RelayStatus) {
    let stream = ask(solo, connection, &HopMessage::connect(peer(target).to_bytes()));
    if let Some(status) = status(solo, stream) {
        solo.finish(stream);
        return (stream, status);
    }
    let stop = solo.open();
    let ok = StopMessage { r#type: Some(StopType::Status as i32), status: Some(100), ..Default::default() };
    solo.receive(stop, ok.encode_to_vec());
    (stream, status(solo, stream).expect("an answer"))
}

fn close(solo: &mut Solo<Hop>, circuit: StreamId) {
    solo.splice_ends(circuit, SpliceReport { a_to_b: 1, b_to_a: 1, end: SpliceEnd::Finished });
}

/// The status and words of the last refusal.
fn refusal(solo: &mut Solo<Hop>) -> (RelayStatus, &'static str) {
    let refused = |event| match event {
        Event::Hop(hop::Event::ReservationRefused { status, why, .. })
        | Event::Hop(hop::Event::CircuitRefused { status, why, .. }) => Some((status, why)),
        _ => None,
    };
    solo.events().into_iter().filter_map(refused).next_back().expect("a refusal")
}

fn name(n: usize) -> String {
    format!("P{n}")
}

fn relay(limits: RelayLimits) -> Solo<Hop> {
    let asn = |ip: IpAddr| match ip {
        IpAddr::V4(ip) if ip.octets()[2] == 7 => Some(Asn(64_496)),
        IpAddr::V6(ip) if ip.segments()[2] == 7 => Some(Asn(64_496)),
        _ => None,
    };
    Solo::new("R", Hop::new(Config { asn: Some(AsnLookup::new(asn)), ..limits.into() }))
}

#[test]
fn a_peer_holds_one_reservation_however_often_it_reserves() {
    let mut solo = relay(NONE);
    let (first, second) = (at(&mut solo, "A", v4(1, 1)), at(&mut solo, "A", v4(2, 1)));
    for connection in [first, second, first, second] {
        assert_eq!(reserve(&mut solo, connection), RelayStatus::Ok);
        assert_eq!(solo.behaviour.reservations(), 1);
    }
    leave(&mut solo);
}

#[test]
fn a_reservation_that_moves_to_a_full_place_is_refused_and_stays_where_it_was() {
    let mut solo = relay(RelayLimits { max_reservations_per_ip: 1, ..NONE });
    let here = at(&mut solo, "A", v4(1, 1));
    let (there, other) = (at(&mut solo, "A", v4(2, 1)), at(&mut solo, "B", v4(2, 1)));
    assert_eq!([here, other].map(|from| reserve(&mut solo, from)), [RelayStatus::Ok; 2]);
    assert_eq!(reserve(&mut solo, there), RelayStatus::ReservationRefused);
    assert_eq!(solo.behaviour.reservations(), 2);
    solo.disconnect(other);
    assert_eq!(reserve(&mut solo, there), RelayStatus::Ok);
    let next = at(&mut solo, "C", v4(1, 1));
    assert_eq!(reserve(&mut solo, next), RelayStatus::Ok, "its first place is free");
    leave(&mut solo);
}

#[test]
fn who_renews_in_time_is_never_too_early() {
    let rate = Rate::new(1, 1_000_000);
    let limits = RelayLimits { reservation_rate_per_peer: rate, reservation_rate_per_ip: rate, ..NONE };
    let mut solo = relay(limits);
    let a = at(&mut solo, "A", v4(1, 1));
    assert_eq!(reserve(&mut solo, a), RelayStatus::Ok);
    for _ in 0..5 {
        solo.advance(Duration::from_secs(1800) - TICK);
        assert_eq!(reserve(&mut solo, a), RelayStatus::ReservationRefused);
        solo.advance(TICK);
        assert_eq!(reserve(&mut solo, a), RelayStatus::Ok);
    }
    leave(&mut solo);
}

#[test]
fn the_embedder_decides_who_reserves_and_who_reaches_whom() {
    let acl = Acl::new(|ask| match ask {
        Ask::Reserve { peer: who, address } => {
            *who != peer("B") && address.to_string().starts_with("/ip4/198.51")
        }
        Ask::Connect { source, target, .. } => (*source, *target) != (peer("A"), peer("T")),
        _ => false,
    });
    let mut solo = Solo::new("R", Hop::new(Config { acl: Some(acl), ..NONE.into() }));
    let [a, b, t] = ["A", "B", "T"].map(|name| at(&mut solo, name, v4(1, 1)));
    let denied = RelayStatus::PermissionDenied;
    assert_eq!([a, b, t].map(|from| reserve(&mut solo, from)), [RelayStatus::Ok, denied, RelayStatus::Ok]);
    assert_eq!(refusal(&mut solo), (denied, "reservation not allowed"));
    assert_eq!(connect(&mut solo, a, "T").1, denied);
    assert_eq!(refusal(&mut solo), (denied, "circuit not allowed"));
    assert_eq!(connect(&mut solo, b, "T").1, RelayStatus::Ok);
    assert_eq!(connect(&mut solo, b, "Nobody").1, RelayStatus::NoReservation);
    assert_eq!(solo.counters.get("relay.hop.refused.reserve_denied"), 1);
    assert_eq!(solo.counters.get("relay.hop.refused.connect_denied"), 1);
    leave(&mut solo);
}

#[test]
fn what_the_data_plane_has_to_keep_is_told_to_it() {
    let limits =
        RelayLimits { circuit_bytes: 5, circuit_byte_rate: 7, circuit_idle: Duration::from_secs(9), ..NONE };
    let mut solo = relay(limits);
    let (a, t) = (at(&mut solo, "A", v4(1, 1)), at(&mut solo, "T", v4(1, 2)));
    reserve(&mut solo, t);
    let (circuit, _) = connect(&mut solo, a, "T");
    assert!(solo.story().contains("splice A<->T limit=5 rate=7 idle=9s"));
    solo.splice_ends(circuit, SpliceReport { a_to_b: 0, b_to_a: 0, end: SpliceEnd::Idle });
    assert!(solo.story().contains("back: idle"));
    leave(&mut solo);
}

#[test]
fn a_node_serves_what_its_roles_say() {
    let circuit = solo::circuit("/ip4/192.0.2.1/udp/1/quic-v1", "R", "T");
    let (hop, stop, client) = (Roles::HOP, Roles::STOP, Roles::CLIENT);
    for roles in [Roles::NONE, hop, stop, client, hop | client, Roles::ALL] {
        let mut config = node::Config::new(identity("A"));
        config.hop = Some(Config::default());
        config.relay_roles = roles;
        let start = Start { now: Instant::ZERO, unix: EPOCH, seed: [1; 32] };
        let mut node = Node::new(config, start).expect("a node");
        assert_eq!(node.behaviour::<Hop>().is_some(), roles.contains(hop), "{roles:?}");
        let user = node.behaviour::<Client>().expect("a client");
        let answers = |spec: &ProtocolSpec| spec.name == STOP && spec.inbound_per_peer > 0;
        assert_eq!(user.protocols().iter().any(answers), roles.contains(stop), "{roles:?}");
        node.dial(Instant::ZERO, None, std::slice::from_ref(&circuit));
        let mut unsupported = false;
        while let Some(event) = node.poll_event() {
            let Event::DialFailed { error, .. } = event else { continue };
            unsupported = error.attempts.iter().any(|(_, why)| matches!(why, AttemptError::Unsupported(_)));
        }
        assert_eq!(unsupported, !roles.contains(client), "{roles:?}");
    }
    assert_eq!(format!("{:?} {:?}", Roles::NONE, hop | client), "NONE HOP|CLIENT");
}

/// What a relay with such limits may hold, kept naively: lists, and counting by going through them.
#[derive(Default)]
struct Model {
    /// Who, and from where when it was granted.
    reservations: Vec<(usize, Seat)>,
    /// Source, from where, target, and the stream.
    circuits: Vec<(usize, Seat, usize, StreamId)>,
}

/// Site, home, net: three peers to a net, nets to a home, homes to a site.
type Seat = (u16, u8, u8);

const PEERS: usize = 60;

fn seat(n: usize) -> Seat {
    ((n / 27) as u16, (n / 9 % 3) as u8, (n / 3 % 3) as u8)
}

const HOSTILE: RelayLimits = RelayLimits {
    max_reservations: 17,
    max_reservations_per_ip: 2,
    max_reservations_per_v6_56: 4,
    max_reservations_per_v6_48: 9,
    max_reservations_per_asn: 15,
    max_circuits: 16,
    max_circuits_per_source: 2,
    max_circuits_per_target: 4,
    max_circuits_per_ip: 3,
    ..NONE
};

impl Model {
    fn may_reserve(&self, who: usize) -> bool {
        let (seat, all) = (seat(who), &self.reservations);
        let count = |same: fn(Seat, Seat) -> bool| all.iter().filter(|(_, at)| same(*at, seat)).count();
        all.iter().any(|(holder, _)| *holder == who)
            || all.len() < 17
                && count(|a, b| a == b) < 2
                && count(|a, b| (a.0, a.1) == (b.0, b.1)) < 4
                && count(|a, b| a.0 == b.0) < 9
                // Sites 0 and 1 are of one system.
                && (seat.0 > 1 || all.iter().filter(|(_, at)| at.0 <= 1).count() < 15)
    }

    fn may_connect(&self, source: usize, target: usize) -> bool {
        let all = &self.circuits;
        source != target
            && self.reservations.iter().any(|(holder, _)| *holder == target)
            && all.len() < 16
            && all.iter().filter(|c| c.0 == source).count() < 2
            && all.iter().filter(|c| c.2 == target).count() < 4
            && all.iter().filter(|c| c.1 == seat(source)).count() < 3
    }
}

#[test]
fn a_long_hostile_run_never_exceeds_a_limit_and_agrees_with_a_naive_model() {
    let asn = AsnLookup::new(|ip| match ip {
        IpAddr::V6(ip) if ip.segments()[2] <= 1 => Some(Asn(1)),
        _ => None,
    });
    let reservation_ttl = Duration::from_secs(1 << 40);
    let mut solo = Solo::new("R", Hop::new(Config { asn: Some(asn), reservation_ttl, ..HOSTILE.into() }));
    let names: Vec<_> = (0..PEERS).map(name).collect();
    let (mut dice, mut model) = (Rng::new([3; 32]), Model::default());
    let mut connections = vec![None; PEERS];
    let (mut granted, mut most) = ([0_u32; 2], 0);
    for step in 0..100_000_u32 {
        let who = dice.below(PEERS as u64) as usize;
        let Some(connection) = connections[who] else {
            let (site, home, net) = seat(who);
            connections[who] = Some(at(&mut solo, &names[who], v6(site, home, net, who as u64)));
            continue;
        };
        match dice.below(10) {
            0..=3 => {
                let expected = model.may_reserve(who);
                assert_eq!(reserve(&mut solo, connection) == RelayStatus::Ok, expected, "step {step}");
                if expected && !model.reservations.iter().any(|(holder, _)| *holder == who) {
                    model.reservations.push((who, seat(who)));
                    granted[0] += 1;
                }
            }
            4..=7 => {
                let target = dice.below(PEERS as u64) as usize;
                let expected = model.may_connect(who, target);
                let (stream, status) = connect(&mut solo, connection, &names[target]);
                assert_eq!(status == RelayStatus::Ok, expected, "step {step}");
                if expected {
                    model.circuits.push((who, seat(who), target, stream));
                    granted[1] += 1;
                }
            }
            8 if !model.circuits.is_empty() => {
                let n = dice.below(model.circuits.len() as u64) as usize;
                close(&mut solo, model.circuits.swap_remove(n).3);
            }
            9 if dice.below(3) == 0 => {
                solo.disconnect(connection);
                connections[who] = None;
                model.reservations.retain(|(holder, _)| *holder != who);
                model.circuits.retain(|circuit| circuit.0 != who && circuit.2 != who);
            }
            _ => {}
        }
        assert_eq!(solo.behaviour.reservations(), model.reservations.len(), "step {step}");
        assert_eq!(solo.behaviour.circuits(), model.circuits.len(), "step {step}");
        assert!(model.reservations.len() <= 17 && model.circuits.len() <= 16);
        most = most.max(solo.behaviour.len());
        if step % 64 == 0 {
            solo.advance(Duration::from_secs(30));
            drop((solo.story(), solo.events()));
        }
    }
    for counter in [
        "reservations_full",
        "reservations_ip",
        "reservations_v6_56",
        "reservations_v6_48",
        "reservations_asn",
        "circuits_full",
        "source_full",
        "target_full",
        "circuits_ip",
        "no_reservation",
    ] {
        assert_ne!(solo.counters.get(&format!("relay.hop.refused.{counter}")), 0, "{counter} is never met");
    }
    // A reservation is counted in five tables and at most four places; a circuit in three and by four.
    assert!(most < 17 * 9 + 16 * 10 + PEERS * 8, "{most} entries");
    assert!(granted.iter().all(|n| *n > 500), "{granted:?}");
    leave(&mut solo);
}

/// Everybody leaves, and nothing is left but the memory of rates, which is bounded.
fn leave(solo: &mut Solo<Hop>) {
    let all: Vec<_> = solo.connections.iter().map(|info| info.id).collect();
    for connection in all {
        solo.disconnect(connection);
    }
    assert!(solo.behaviour.is_empty(), "{:?}", solo.behaviour);
}
