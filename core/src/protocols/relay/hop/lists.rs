//! What a relay holds, as lists, and how the embedder ends some of it.

use libp2p_identity::PeerId;

use super::{Circuit, CircuitId, Hop, Stage};
use crate::{
    behaviour::Context,
    ids::{ConnectionId, StreamId},
    names::CircuitLimit,
    time::Instant,
};

/// A reservation that the relay has granted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReservationInfo {
    /// Who may be reached.
    pub peer: PeerId,
    /// Over which of its connections it was granted last; circuits to it are tried there first.
    pub connection: ConnectionId,
    /// When it was granted last.
    pub granted: Instant,
    /// When it ends if it is not renewed.
    pub expires: Instant,
}

/// A circuit that the relay carries, or sets up.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CircuitInfo {
    /// Its id; see [`Hop::end_circuit`].
    pub id: CircuitId,
    /// Who asked for it.
    pub source: PeerId,
    /// For whom.
    pub target: PeerId,
    /// Whether it carries bytes; if not, the target is being asked.
    pub is_open: bool,
    /// When its time is up: that of the circuit, or for the target to answer. `None` is never.
    pub expires: Option<Instant>,
    /// What it is granted.
    pub limit: CircuitLimit,
    /// Bytes from source to target so far.
    pub bytes_in: u64,
    /// Bytes from target to source so far.
    pub bytes_out: u64,
}

impl Hop {
    /// The reservations granted, by peer.
    pub fn reservation_infos(&self) -> impl Iterator<Item = ReservationInfo> + '_ {
        self.reservations.iter().map(|(peer, held)| ReservationInfo {
            peer: *peer,
            connection: held.connection,
            granted: held.since,
            expires: held.until,
        })
    }

    /// The circuits, oldest first, each with the stream of its source. What they carry the data plane knows.
    pub(crate) fn circuit_infos(&self) -> impl Iterator<Item = (StreamId, CircuitInfo)> + '_ {
        let limit = self.config.limits.circuit();
        self.circuits.iter().map(move |(id, circuit)| {
            let Circuit { source, target, until, .. } = *circuit;
            let is_open = matches!(circuit.stage, Stage::Joined { .. });
            let info = CircuitInfo {
                id: *id,
                source,
                target,
                is_open,
                expires: until,
                limit,
                bytes_in: 0,
                bytes_out: 0,
            };
            (circuit.source_stream, info)
        })
    }

    /// Takes a reservation back; its circuits go on. Returns whether there was one. The protocol has no word for it: the
    /// peer finds out when nobody reaches it any more, and is granted another when it renews, unless the
    /// [`Acl`](super::Acl) is against it.
    pub fn revoke(&mut self, cx: &mut Context<'_>, peer: PeerId) -> bool {
        let is_held = self.reservations.contains_key(&peer);
        self.end_reservation(cx, peer, "revoked");
        is_held
    }

    /// Ends a circuit: both its streams are reset, or nobody is asked any more. Returns whether there was one.
    pub fn end_circuit(&mut self, cx: &mut Context<'_>, id: CircuitId) -> bool {
        let Some(circuit) = self.circuits.get(&id) else { return false };
        let (stream, stage) = (circuit.source_stream, circuit.stage);
        cx.reset(stream);
        if !matches!(stage, Stage::Joined { .. }) {
            self.abandon(cx, id);
        }
        true
    }
}
