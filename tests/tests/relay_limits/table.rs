//! Every limit of a relay as a row: what it takes to reach it, and what is said, told on the wire and counted then.

use std::{net::Ipv4Addr, time::Duration};

use peerless_core::protocols::relay::hop;

use super::*;

/// Each limit as it is in its row.
const THREE: RelayLimits = RelayLimits {
    max_reservations: 3,
    max_reservations_per_ip: 3,
    max_reservations_per_v6_56: 3,
    max_reservations_per_v6_48: 3,
    max_reservations_per_asn: 3,
    reservation_rate_per_peer: EVERY_TEN,
    reservation_rate_per_ip: EVERY_TEN,
    max_circuits: 3,
    max_circuits_per_source: 3,
    max_circuits_per_target: 3,
    max_circuits_per_ip: 3,
    circuit_rate_per_peer: EVERY_TEN,
    circuit_rate_per_ip: EVERY_TEN,
    circuit_duration: Duration::from_secs(3),
    circuit_bytes: 3,
    circuit_byte_rate: 8 << 10,
    circuit_idle: Duration::from_secs(3),
    relay_byte_rate: 64 << 10,
};
/// Three at once, then one each ten seconds.
const EVERY_TEN: Rate = Rate::new(3, 10);
const TEN: Duration = Duration::from_secs(10);

/// The largest value of each limit.
const ENDLESS: RelayLimits = RelayLimits {
    max_reservations: usize::MAX,
    max_reservations_per_ip: usize::MAX,
    max_reservations_per_v6_56: usize::MAX,
    max_reservations_per_v6_48: usize::MAX,
    max_reservations_per_asn: usize::MAX,
    reservation_rate_per_peer: Rate { burst: u32::MAX, every: Duration::MAX },
    reservation_rate_per_ip: Rate { burst: u32::MAX, every: Duration::MAX },
    max_circuits: usize::MAX,
    max_circuits_per_source: usize::MAX,
    max_circuits_per_target: usize::MAX,
    max_circuits_per_ip: usize::MAX,
    circuit_rate_per_peer: Rate { burst: u32::MAX, every: Duration::MAX },
    circuit_rate_per_ip: Rate { burst: u32::MAX, every: Duration::MAX },
    circuit_duration: Duration::MAX,
    circuit_bytes: u64::MAX,
    circuit_byte_rate: u64::MAX,
    circuit_idle: Duration::MAX,
    relay_byte_rate: u64::MAX,
};

/// A limit, alone in its relay.
struct Row {
    limits: RelayLimits,
    trial: Trial,
    /// The last part of the counter's name.
    counter: &'static str,
}

/// How to reach a limit. The `n`th request is always within the limit's reach; `other` is one that is not.
enum Trial {
    /// Three at a time. Who leaves makes room.
    Reservations { nth: fn(usize) -> Peer, other: Option<Peer>, why: &'static str },
    /// Three, each from somebody who leaves at once, and then one each ten seconds.
    ReservationRate { nth: fn(usize) -> Peer, other: Peer, why: &'static str },
    /// Three at a time. One that ends makes room.
    Circuits { nth: fn(usize) -> (Peer, String), other: Option<(Peer, String)>, why: &'static str },
    /// Three, each from somebody who leaves at once, and then one each ten seconds.
    CircuitRate { nth: fn(usize) -> (Peer, String), other: (Peer, String), why: &'static str },
    /// Bytes through a whole relay, which the counter's name is given to as well.
    Carried(fn(&RelayLimits, &str)),
}

/// A name and a place.
type Peer = (String, IpAddr);

fn source(n: usize) -> Peer {
    (name(n), v4(n as u8, 1))
}

fn target(n: usize) -> String {
    format!("T{n}")
}

#[rustfmt::skip]
#[deny(unused_variables)]
fn rows() -> Vec<Row> {
    use Trial::{Carried, CircuitRate, Circuits, ReservationRate, Reservations};
    // Taken apart by name, so that a limit without a row does not compile.
    let RelayLimits {
        max_reservations, max_reservations_per_ip, max_reservations_per_v6_56, max_reservations_per_v6_48,
        max_reservations_per_asn, reservation_rate_per_peer, reservation_rate_per_ip,
        max_circuits, max_circuits_per_source, max_circuits_per_target, max_circuits_per_ip,
        circuit_rate_per_peer, circuit_rate_per_ip,
        circuit_duration, circuit_bytes, circuit_byte_rate, circuit_idle, relay_byte_rate,
    } = THREE;
    vec![
        Row {
            limits: RelayLimits { max_reservations, ..NONE }, counter: "reservations_full",
            trial: Reservations { nth: source, other: None, why: "too many reservations" },
        },
        Row {
            limits: RelayLimits { max_reservations_per_ip, ..NONE }, counter: "reservations_ip",
            trial: Reservations {
                nth: |n| (name(n), v4(1, 1)), other: Some((name(99), v4(1, 2))),
                why: "too many reservations from the IP address",
            },
        },
        Row { // A host rotates through its /64.
            limits: RelayLimits { max_reservations_per_ip, ..NONE }, counter: "reservations_ip",
            trial: Reservations {
                nth: |n| (name(n), v6(1, 1, 1, n as u64)), other: Some((name(99), v6(1, 1, 2, 1))),
                why: "too many reservations from the IP address",
            },
        },
        Row { // IPv4 in IPv6 is IPv4, not one /64 with all others.
            limits: RelayLimits { max_reservations_per_ip, ..NONE }, counter: "reservations_ip",
            trial: Reservations {
                nth: |n| (name(n), if n % 2 == 0 { v4(1, 1) } else { Ipv4Addr::new(198, 51, 1, 1).to_ipv6_mapped().into() }),
                other: Some((name(99), Ipv4Addr::new(198, 51, 1, 2).to_ipv6_mapped().into())),
                why: "too many reservations from the IP address",
            },
        },
        Row {
            limits: RelayLimits { max_reservations_per_v6_56, ..NONE }, counter: "reservations_v6_56",
            trial: Reservations {
                nth: |n| (name(n), v6(1, 1, n as u8, 1)), other: Some((name(99), v6(1, 2, 0, 1))),
                why: "too many reservations from the IPv6 /56",
            },
        },
        Row {
            limits: RelayLimits { max_reservations_per_v6_48, ..NONE }, counter: "reservations_v6_48",
            trial: Reservations {
                nth: |n| (name(n), v6(1, n as u8, 0, 1)), other: Some((name(99), v6(2, 0, 0, 1))),
                why: "too many reservations from the IPv6 /48",
            },
        },
        Row { // 198.51.7.0/24 and 2001:db8:7::/48 are of one system.
            limits: RelayLimits { max_reservations_per_asn, ..NONE }, counter: "reservations_asn",
            trial: Reservations {
                nth: |n| (name(n), if n % 2 == 0 { v4(7, n) } else { v6(7, n as u8, 0, 1) }),
                other: Some((name(99), v4(8, 1))), why: "too many reservations from the autonomous system",
            },
        },
        Row { // New connections from elsewhere do not refill it.
            limits: RelayLimits { reservation_rate_per_peer, ..NONE }, counter: "reservation_rate_peer",
            trial: ReservationRate {
                nth: |n| (name(0), v4(n as u8, 1)), other: (name(99), v4(1, 1)), why: "reservations asked for too often",
            },
        },
        Row {
            limits: RelayLimits { reservation_rate_per_ip, ..NONE }, counter: "reservation_rate_ip",
            trial: ReservationRate {
                nth: |n| (name(n), v6(1, 1, 1, n as u64)), other: (name(0), v6(1, 1, 2, 0)),
                why: "reservations asked for too often from the IP address",
            },
        },
        Row {
            limits: RelayLimits { max_circuits, ..NONE }, counter: "circuits_full",
            trial: Circuits { nth: |n| (source(n), target(n)), other: None, why: "too many circuits" },
        },
        Row {
            limits: RelayLimits { max_circuits_per_source, ..NONE }, counter: "source_full",
            trial: Circuits {
                nth: |n| (source(0), target(n)), other: Some((source(1), target(0))),
                why: "too many circuits of the source",
            },
        },
        Row {
            limits: RelayLimits { max_circuits_per_target, ..NONE }, counter: "target_full",
            trial: Circuits {
                nth: |n| (source(n), target(0)), other: Some((source(0), target(1))),
                why: "too many circuits of the target",
            },
        },
        Row {
            limits: RelayLimits { max_circuits_per_ip, ..NONE }, counter: "circuits_ip",
            trial: Circuits {
                nth: |n| ((name(n), v4(1, 1)), target(n)), other: Some(((name(99), v4(1, 2)), target(0))),
                why: "too many circuits from the IP address",
            },
        },
        Row {
            limits: RelayLimits { circuit_rate_per_peer, ..NONE }, counter: "circuit_rate_peer",
            trial: CircuitRate {
                nth: |n| ((name(0), v4(n as u8, 1)), target(n)), other: (source(1), target(0)),
                why: "circuits asked for too often",
            },
        },
        Row {
            limits: RelayLimits { circuit_rate_per_ip, ..NONE }, counter: "circuit_rate_ip",
            trial: CircuitRate {
                nth: |n| ((name(n), v4(1, 1)), target(n)), other: ((name(0), v4(1, 2)), target(0)),
                why: "circuits asked for too often from the IP address",
            },
        },
        Row { limits: RelayLimits { circuit_duration, ..NONE }, counter: "circuit_duration", trial: Carried(circuit::duration) },
        Row { limits: RelayLimits { circuit_bytes, ..NONE }, counter: "circuit_bytes", trial: Carried(circuit::bytes) },
        Row { limits: RelayLimits { circuit_idle, ..NONE }, counter: "circuit_idle", trial: Carried(circuit::idle) },
        Row { limits: RelayLimits { circuit_byte_rate, ..NONE }, counter: "circuit_byte_rate", trial: Carried(circuit::circuit_rate) },
        Row { limits: RelayLimits { relay_byte_rate, ..NONE }, counter: "relay_byte_rate", trial: Carried(circuit::relay_rate) },
    ]
}

#[test]
fn each_limit_lets_its_number_pass_and_not_one_more_and_the_next_when_one_has_gone() {
    for row in rows() {
        if let Trial::Carried(trial) = row.trial {
            let scope = if row.counter.ends_with("rate") { "splices.held_back" } else { "relay.hop.ended" };
            trial(&row.limits, &format!("{scope}.{}", row.counter));
            continue;
        }
        three_pass(&row);
        for limits in [NONE, ENDLESS] {
            let mut solo = relay(limits);
            (0..5).for_each(|n| {
                assert_eq!(row.ask(&mut solo, n), RelayStatus::Ok, "{}: no limit", row.counter)
            });
            leave(&mut solo);
        }
    }
    circuit::free(&NONE, CircuitLimit::default());
    let most = Duration::from_secs(u32::MAX.into());
    circuit::free(&ENDLESS, CircuitLimit { duration: Some(most), data: Some(u64::MAX) });
}

fn three_pass(row: &Row) {
    let mut solo = relay(row.limits.clone());
    let counter = format!("relay.hop.refused.{}", row.counter);
    let (status, why) = row.refusal();
    let mut n = 0;
    let mut next = |solo: &mut Solo<Hop>| {
        n += 1;
        row.ask(solo, n - 1)
    };
    for _ in 0..3 {
        assert_eq!(next(&mut solo), RelayStatus::Ok, "{counter}");
    }
    assert_eq!((next(&mut solo), refusal(&mut solo)), (status, (status, why)));
    assert_eq!(solo.counters.get(&counter), 1, "{counter}");
    assert_eq!(row.ask_other(&mut solo), RelayStatus::Ok, "{counter}: not within its reach");
    row.free_one(&mut solo, |solo| assert_eq!(next(solo), status, "{counter}: a tick early"));
    assert_eq!(next(&mut solo), RelayStatus::Ok, "{counter}: one has gone");
    assert_eq!(next(&mut solo), status, "{counter}");
    row.free_all(&mut solo);
    for _ in 0..3 {
        assert_eq!(next(&mut solo), RelayStatus::Ok, "{counter}: all have gone");
    }
    assert_eq!(next(&mut solo), status, "{counter}");
    leave(&mut solo);
}

impl Row {
    fn refusal(&self) -> (RelayStatus, &'static str) {
        match self.trial {
            Trial::Reservations { why, .. } | Trial::ReservationRate { why, .. } => {
                (RelayStatus::ReservationRefused, why)
            }
            Trial::Circuits { why, .. } | Trial::CircuitRate { why, .. } => {
                (RelayStatus::ResourceLimitExceeded, why)
            }
            Trial::Carried(_) => unreachable!("nothing is refused"),
        }
    }

    fn ask(&self, solo: &mut Solo<Hop>, n: usize) -> RelayStatus {
        match &self.trial {
            Trial::Reservations { nth, .. } => ask_to_reserve(solo, &nth(n), false),
            Trial::ReservationRate { nth, .. } => ask_to_reserve(solo, &nth(n), true),
            Trial::Circuits { nth, .. } => ask_to_connect(solo, &nth(n), false),
            Trial::CircuitRate { nth, .. } => ask_to_connect(solo, &nth(n), true),
            Trial::Carried(_) => unreachable!("nothing is asked"),
        }
    }

    /// Somebody of whom the limit does not speak: at a full relay that is one who renews.
    fn ask_other(&self, solo: &mut Solo<Hop>) -> RelayStatus {
        match &self.trial {
            Trial::Reservations { nth, other, .. } => {
                let renewed = ask_to_reserve(solo, &nth(1), false);
                other.as_ref().map_or(renewed, |other| ask_to_reserve(solo, other, false))
            }
            Trial::ReservationRate { other, .. } => ask_to_reserve(solo, other, true),
            Trial::Circuits { other, .. } => {
                other.as_ref().map_or(RelayStatus::Ok, |other| ask_to_connect(solo, other, false))
            }
            Trial::CircuitRate { other, .. } => ask_to_connect(solo, other, true),
            Trial::Carried(_) => unreachable!("nothing is asked"),
        }
    }

    /// Makes room for one. Where that is a matter of time, `early` happens a tick before.
    fn free_one(&self, solo: &mut Solo<Hop>, early: impl FnOnce(&mut Solo<Hop>)) {
        match &self.trial {
            Trial::Reservations { nth, .. } => {
                let gone = by(solo, &nth(0));
                solo.disconnect(gone);
            }
            Trial::Circuits { .. } => end_circuits(solo, 1),
            Trial::ReservationRate { .. } | Trial::CircuitRate { .. } => {
                solo.advance(TEN - TICK);
                early(solo);
                solo.advance(TICK);
            }
            Trial::Carried(_) => unreachable!("there is nothing to be freed"),
        }
    }

    fn free_all(&self, solo: &mut Solo<Hop>) {
        match &self.trial {
            Trial::Reservations { .. } => {
                solo.advance(hop::Config::default().reservation_ttl);
                assert_eq!(solo.behaviour.reservations(), 0, "all expire");
            }
            Trial::Circuits { .. } => end_circuits(solo, usize::MAX),
            Trial::ReservationRate { .. } | Trial::CircuitRate { .. } => solo.advance(3 * TEN),
            Trial::Carried(_) => unreachable!("there is nothing to be freed"),
        }
    }
}

/// The connection of a peer, which is made if there is none.
fn by(solo: &mut Solo<Hop>, (name, ip): &Peer) -> ConnectionId {
    let known = solo.connections.of(&peer(name)).last().copied();
    known.unwrap_or_else(|| at(solo, name, *ip))
}

fn ask_to_reserve(solo: &mut Solo<Hop>, who: &Peer, leaves: bool) -> RelayStatus {
    let connection = by(solo, who);
    let status = reserve(solo, connection);
    if leaves {
        solo.disconnect(connection);
    }
    status
}

/// The target has a reservation, or gets one.
fn ask_to_connect(solo: &mut Solo<Hop>, (who, target): &(Peer, String), leaves: bool) -> RelayStatus {
    let holder = by(solo, &(target.clone(), v4(200, 1)));
    assert_eq!(reserve(solo, holder), RelayStatus::Ok);
    let connection = by(solo, who);
    let (_, status) = connect(solo, connection, target);
    if leaves {
        solo.disconnect(connection);
    }
    status
}

fn end_circuits(solo: &mut Solo<Hop>, most: usize) {
    let joined: Vec<_> = solo.streams().into_iter().filter(|stream| solo.is_spliced(*stream)).collect();
    for stream in joined.into_iter().take(most) {
        // Each circuit is two streams.
        if solo.is_spliced(stream) {
            close(solo, stream);
        }
    }
}
