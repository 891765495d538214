//! What a relay allows: functions of a request, of how much is in use, and of the time, without state and without
//! effects.

mod refusal;
mod swarm;

use std::{net::IpAddr, time::Duration};

use smallvec::SmallVec;

pub use self::refusal::Refusal;
pub(super) use crate::rate::Buckets;
pub use crate::rate::Rate;
use crate::{
    names::{CircuitLimit, SpliceLimit},
    time::Instant,
};

/// Reservations that one peer may hold; asking again renews the one it has.
pub const RESERVATIONS_PER_PEER: usize = 1;

/// What a relay allows. In all of them 0 is no limit. Circuits count from the request to the last byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayLimits {
    /// Most reservations at a time. Renewals are not refused for it.
    pub max_reservations: usize,
    /// Most reservations at a time from one IPv4 address, or one IPv6 /64, which is what one host commands.
    pub max_reservations_per_ip: usize,
    /// Most reservations at a time from one IPv6 /56, which is what one household commands.
    pub max_reservations_per_v6_56: usize,
    /// Most reservations at a time from one IPv6 /48, which is what one site commands.
    pub max_reservations_per_v6_48: usize,
    /// Most reservations at a time from one autonomous system, for addresses of which it is known; see
    /// [`hop::Config::asn`](super::hop::Config::asn).
    pub max_reservations_per_asn: usize,
    /// How often one peer may reserve, or renew when less than half of its term is over.
    pub reservation_rate_per_peer: Rate,
    /// How often peers from one IP address may reserve; renewals do not count.
    pub reservation_rate_per_ip: Rate,
    /// Most circuits at a time.
    pub max_circuits: usize,
    /// Most circuits at a time that one peer asked for.
    pub max_circuits_per_source: usize,
    /// Most circuits at a time to one peer.
    pub max_circuits_per_target: usize,
    /// Most circuits at a time that were asked for from one IPv4 address or IPv6 /64.
    pub max_circuits_per_ip: usize,
    /// How often one peer may ask for a circuit. What is refused for another reason does not count.
    pub circuit_rate_per_peer: Rate,
    /// How often peers from one IP address may ask for a circuit.
    pub circuit_rate_per_ip: Rate,
    /// How long a circuit may last.
    pub circuit_duration: Duration,
    /// Bytes that a circuit may carry in each direction.
    pub circuit_bytes: u64,
    /// Bytes that a circuit may carry per second in each direction.
    pub circuit_byte_rate: u64,
    /// How long a circuit may carry nothing in either direction.
    pub circuit_idle: Duration,
    /// Bytes that the whole relay may carry per second, all circuits and directions together.
    pub relay_byte_rate: u64,
}

impl RelayLimits {
    /// For a relay that anybody may use: enough to meet and to punch a hole, too little to live on.
    pub const fn public() -> Self {
        Self {
            max_reservations: 128,
            max_reservations_per_ip: 8,
            max_reservations_per_v6_56: 8,
            max_reservations_per_v6_48: 32,
            max_reservations_per_asn: 32,
            reservation_rate_per_peer: Rate::new(30, 120),
            reservation_rate_per_ip: Rate::new(60, 60),
            max_circuits: 1024,
            max_circuits_per_source: 16,
            max_circuits_per_target: 16,
            max_circuits_per_ip: 64,
            circuit_rate_per_peer: Rate::new(30, 120),
            circuit_rate_per_ip: Rate::new(60, 60),
            circuit_duration: Duration::from_secs(120),
            circuit_bytes: 128 << 10,
            circuit_byte_rate: 0,
            circuit_idle: Duration::ZERO,
            relay_byte_rate: 0,
        }
    }

    /// For a relay among friends: circuits to live on, and room for many behind one address.
    pub const fn broad() -> Self {
        Self {
            max_reservations: 4096,
            max_reservations_per_ip: 256,
            max_reservations_per_v6_56: 256,
            max_reservations_per_v6_48: 1024,
            max_reservations_per_asn: 0,
            reservation_rate_per_peer: Rate::new(60, 10),
            reservation_rate_per_ip: Rate::new(600, 1),
            max_circuits: 16_384,
            max_circuits_per_source: 256,
            max_circuits_per_target: 256,
            max_circuits_per_ip: 1024,
            circuit_rate_per_peer: Rate::new(300, 1),
            circuit_rate_per_ip: Rate { burst: 3000, every: Duration::from_millis(100) },
            circuit_duration: Duration::from_secs(24 * 3600),
            circuit_bytes: 0,
            circuit_byte_rate: 0,
            circuit_idle: Duration::from_secs(600),
            relay_byte_rate: 0,
        }
    }

    /// No limit at all, for tests and measurements.
    pub const fn unlimited() -> Self {
        Self {
            max_reservations: 0,
            max_reservations_per_ip: 0,
            max_reservations_per_v6_56: 0,
            max_reservations_per_v6_48: 0,
            max_reservations_per_asn: 0,
            reservation_rate_per_peer: Rate::UNLIMITED,
            reservation_rate_per_ip: Rate::UNLIMITED,
            max_circuits: 0,
            max_circuits_per_source: 0,
            max_circuits_per_target: 0,
            max_circuits_per_ip: 0,
            circuit_rate_per_peer: Rate::UNLIMITED,
            circuit_rate_per_ip: Rate::UNLIMITED,
            circuit_duration: Duration::ZERO,
            circuit_bytes: 0,
            circuit_byte_rate: 0,
            circuit_idle: Duration::ZERO,
            relay_byte_rate: 0,
        }
    }

    /// What peers are told of a circuit's limits.
    pub fn circuit(&self) -> CircuitLimit {
        CircuitLimit {
            duration: (!self.circuit_duration.is_zero()).then_some(self.circuit_duration),
            data: (self.circuit_bytes > 0).then_some(self.circuit_bytes),
        }
    }

    /// What the data plane is told of a circuit's limits.
    pub fn splice(&self) -> SpliceLimit {
        SpliceLimit { bytes: self.circuit_bytes, rate: self.circuit_byte_rate, idle: self.circuit_idle }
    }

    /// Decides on a reservation.
    pub fn reserve(&self, now: Instant, request: &ReserveRequest<'_>) -> Result<(), Refusal> {
        if request.relayed {
            return Err(Refusal::ReserveRelayed);
        }
        if !request.allowed {
            return Err(Refusal::ReserveDenied);
        }
        let is_new = request.renewal == Renewal::New;
        if is_new && reached(request.reservations, self.max_reservations) {
            return Err(Refusal::ReservationsFull);
        }
        for (place, count) in request.places {
            let (max, refusal) = self.of_place(*place);
            if reached(*count, max) {
                return Err(refusal);
            }
        }
        let due = request.renewal == Renewal::Due;
        if !due && self.reservation_rate_per_peer.take(request.peer_full_at, now).is_none() {
            return Err(Refusal::ReservationRatePeer);
        }
        if is_new && self.reservation_rate_per_ip.take(request.ip_full_at, now).is_none() {
            return Err(Refusal::ReservationRateIp);
        }
        Ok(())
    }

    /// Decides on a circuit.
    pub fn connect(&self, now: Instant, request: &ConnectRequest) -> Result<(), Refusal> {
        if request.relayed {
            return Err(Refusal::ConnectRelayed);
        }
        if request.to_itself {
            return Err(Refusal::ToItself);
        }
        if !request.allowed {
            return Err(Refusal::ConnectDenied);
        }
        if !request.reserved {
            return Err(Refusal::NoReservation);
        }
        let counts = [
            (request.circuits, self.max_circuits, Refusal::CircuitsFull),
            (request.of_source, self.max_circuits_per_source, Refusal::SourceFull),
            (request.of_target, self.max_circuits_per_target, Refusal::TargetFull),
            (request.of_ip, self.max_circuits_per_ip, Refusal::CircuitsIp),
        ];
        if let Some((.., refusal)) = counts.into_iter().find(|(count, max, _)| reached(*count, *max)) {
            return Err(refusal);
        }
        if self.circuit_rate_per_peer.take(request.peer_full_at, now).is_none() {
            return Err(Refusal::CircuitRatePeer);
        }
        if self.circuit_rate_per_ip.take(request.ip_full_at, now).is_none() {
            return Err(Refusal::CircuitRateIp);
        }
        Ok(())
    }

    fn of_place(&self, place: Place) -> (usize, Refusal) {
        match place {
            Place::Ip(_) => (self.max_reservations_per_ip, Refusal::ReservationsIp),
            Place::V6Slash56(_) => (self.max_reservations_per_v6_56, Refusal::ReservationsV6Slash56),
            Place::V6Slash48(_) => (self.max_reservations_per_v6_48, Refusal::ReservationsV6Slash48),
            Place::Asn(_) => (self.max_reservations_per_asn, Refusal::ReservationsAsn),
        }
    }
}

/// Those of a public relay.
impl Default for RelayLimits {
    fn default() -> Self {
        Self::public()
    }
}

fn reached(count: usize, max: usize) -> bool {
    max > 0 && count >= max
}

/// The number of an autonomous system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asn(pub u32);

/// Where a peer is, as far as limits go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// An IPv4 address, or the first address of an IPv6 /64.
    Ip(IpAddr),
    /// The first 56 bits of an IPv6 address.
    V6Slash56(u64),
    /// The first 48 bits of an IPv6 address.
    V6Slash48(u64),
    /// An autonomous system.
    Asn(Asn),
}

/// All places that `ip` is in, the smallest first. IPv4 in IPv6 is IPv4.
pub fn places(ip: IpAddr, asn: Option<Asn>) -> Places {
    let mut places = Places::new();
    match ip.to_canonical() {
        IpAddr::V4(ip) => places.push(Place::Ip(ip.into())),
        IpAddr::V6(ip) => {
            let bits = ip.to_bits();
            places.push(Place::Ip(std::net::Ipv6Addr::from_bits(bits >> 64 << 64).into()));
            places.push(Place::V6Slash56((bits >> 72) as u64));
            places.push(Place::V6Slash48((bits >> 80) as u64));
        }
    }
    places.extend(asn.map(Place::Asn));
    places
}

/// At most one of each kind.
pub type Places = SmallVec<[Place; 4]>;

/// Whether a reservation is asked for anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The peer holds none.
    New,
    /// Less than half of the term of the one it holds is over.
    Early,
    /// It is time to renew.
    Due,
}

/// A peer wants a reservation, or its reservation renewed.
#[derive(Clone, Copy, Debug)]
pub struct ReserveRequest<'a> {
    /// Whether it asks over a circuit.
    pub relayed: bool,
    /// Whether the embedder allows it.
    pub allowed: bool,
    /// Whether it holds one already.
    pub renewal: Renewal,
    /// Reservations held by all peers.
    pub reservations: usize,
    /// Where the peer is, with the reservations held from there; without those places in which its own is counted.
    pub places: &'a [(Place, usize)],
    /// When the peer's bucket is full again.
    pub peer_full_at: Instant,
    /// When its IP address's bucket is full again.
    pub ip_full_at: Instant,
}

/// A peer wants a circuit.
#[derive(Clone, Copy, Debug)]
pub struct ConnectRequest {
    /// Whether it asks over a circuit.
    pub relayed: bool,
    /// Whether the target is the peer itself, or the relay.
    pub to_itself: bool,
    /// Whether the embedder allows it.
    pub allowed: bool,
    /// Whether the target holds a reservation.
    pub reserved: bool,
    /// Circuits of all peers.
    pub circuits: usize,
    /// Circuits that the source asked for.
    pub of_source: usize,
    /// Circuits to the target.
    pub of_target: usize,
    /// Circuits that were asked for from the source's IP address.
    pub of_ip: usize,
    /// When the source's bucket is full again.
    pub peer_full_at: Instant,
    /// When its IP address's bucket is full again.
    pub ip_full_at: Instant,
}
