//! The side that is reached through a relay: accepts circuits from relays that we hold a reservation with.
//!
//! [`client::Client`](super::client::Client) asks here what to say to a CONNECT, since it knows our reservations.

use libp2p_identity::PeerId;
use peerless_proto::pb::{
    self,
    relay::{StopMessage, StopType},
};

use super::wire;
use crate::{errors::RelayStatus, names::CircuitLimit};

/// A circuit to be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Incoming {
    /// Who asked the relay for it; still to be proven.
    pub(super) source: PeerId,
    /// What the relay grants it.
    pub(super) limit: CircuitLimit,
}

/// Decides on a relay's first message. `reserved` says whether we hold a reservation with it; `us` is our own peer id.
pub(super) fn judge(frame: &[u8], reserved: bool, us: PeerId) -> Result<Incoming, RelayStatus> {
    let message: StopMessage = pb::decode(frame).map_err(|_| RelayStatus::MalformedMessage)?;
    match message.kind() {
        Some(StopType::Connect) => {}
        None if message.r#type.is_none() => return Err(RelayStatus::MalformedMessage),
        _ => return Err(RelayStatus::UnexpectedMessage),
    }
    let source = wire::peer_of(message.peer.as_ref()).ok_or(RelayStatus::MalformedMessage)?;
    if !reserved || source == us {
        return Err(RelayStatus::PermissionDenied);
    }
    Ok(Incoming { source, limit: wire::limit_from_wire(message.limit.as_ref()) })
}

/// The counter that counts a refusal.
pub(super) fn counter(status: RelayStatus) -> &'static str {
    match status {
        RelayStatus::PermissionDenied => "relay.stop.refused.permission_denied",
        RelayStatus::UnexpectedMessage => "relay.stop.refused.unexpected",
        _ => "relay.stop.refused.malformed",
    }
}
