//! Reservations and circuits, those that we grant and those that we use, as lists.

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

use super::{Node, transport::Via};
use crate::{
    ids::ConnectionId,
    names::{CircuitLimit, Direction},
    protocols::relay::{
        client::{Client, HeldReservation, Reachability, ReserveError},
        hop::{CircuitId, CircuitInfo, Hop, ReservationInfo},
    },
    time::Instant,
};

/// A connection of ours that runs through a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CircuitUse {
    /// The connection; to [close](Node::close) it is to end the circuit.
    pub connection: ConnectionId,
    /// Who is at the other end.
    pub peer: PeerId,
    /// Who opened it.
    pub direction: Direction,
    /// The relay.
    pub relay: PeerId,
    /// Our connection to the relay.
    pub via: ConnectionId,
    /// What the relay grants it.
    pub limit: CircuitLimit,
    /// When the relay ends it, if it limits its time.
    pub expires: Option<Instant>,
    /// Bytes that we have sent through it, those of TLS or Noise and yamux included: these count for the limit.
    pub sent: u64,
    /// Bytes that have come through it.
    pub received: u64,
}

/// What we grant as a relay.
impl Node {
    /// The reservations that we have granted, by peer; none if we are no relay.
    pub fn granted_reservations(&self) -> Vec<ReservationInfo> {
        self.behaviour::<Hop>().into_iter().flat_map(Hop::reservation_infos).collect()
    }

    /// Takes back a reservation that we have granted; see [`Hop::revoke`]. Returns whether there was one.
    pub fn revoke_reservation(&mut self, now: Instant, peer: PeerId) -> bool {
        self.with::<Hop, _>(now, |hop, cx| hop.revoke(cx, peer)).unwrap_or(false)
    }

    /// The circuits that we relay, oldest first; none if we are no relay.
    pub fn relayed_circuits(&self) -> Vec<CircuitInfo> {
        let circuits = self.behaviour::<Hop>().into_iter().flat_map(Hop::circuit_infos);
        let counted = circuits.map(|(source, circuit)| {
            let (bytes_in, bytes_out) = self.spliced_bytes(source).unwrap_or_default();
            CircuitInfo { bytes_in, bytes_out, ..circuit }
        });
        counted.collect()
    }

    /// Ends a circuit that we relay; both ends learn that their streams were reset. Returns whether there was one.
    pub fn end_relayed_circuit(&mut self, now: Instant, circuit: CircuitId) -> bool {
        self.with::<Hop, _>(now, |hop, cx| hop.end_circuit(cx, circuit)).unwrap_or(false)
    }
}

/// What we use of relays.
impl Node {
    /// The reservations that we want, by relay, held or not. [`Node::cancel_reservation`] ends one.
    pub fn reservations(&self) -> Vec<HeldReservation> {
        self.behaviour::<Client>().into_iter().flat_map(Client::reservations).collect()
    }

    /// Names a relay that may be chosen where reservations are kept unasked; see [`Client::add_candidate`].
    ///
    /// # Errors
    /// The address does not end in `/p2p/PEER`, is that of a circuit, or is ours.
    pub fn add_relay_candidate(&mut self, now: Instant, address: &Multiaddr) -> Result<(), ReserveError> {
        self.with::<Client, _>(now, |client, cx| client.add_candidate(cx, address))
            .unwrap_or(Err(ReserveError::Cancelled))
    }

    /// Whether others can connect to us directly, as far as was said with [`Client::set_reachability`].
    pub fn reachability(&self) -> Reachability {
        self.behaviour::<Client>().map_or(Reachability::Unknown, Client::reachability)
    }

    /// The connections of ours that run through relays.
    pub fn circuits(&self) -> Vec<CircuitUse> {
        self.connections.iter().filter_map(|info| self.circuit_of(info.id)).collect()
    }

    /// A connection as the circuit that it is; `None` if it is gone, or direct.
    pub fn circuit_of(&self, connection: ConnectionId) -> Option<CircuitUse> {
        let info = self.connections.get(connection)?;
        let relayed = info.relayed.as_ref()?;
        let Via::Circuit(id) = self.transport.links.get(&connection)?.via else { return None };
        let circuit = self.transport.circuits.get(id)?;
        Some(CircuitUse {
            connection,
            peer: info.peer,
            direction: info.direction,
            relay: relayed.relay,
            via: relayed.via,
            limit: relayed.limit,
            expires: relayed.limit.duration.map(|duration| circuit.opened + duration),
            sent: circuit.sent,
            received: circuit.received,
        })
    }
}
