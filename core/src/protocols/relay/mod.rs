//! Circuit relay v2 (libp2p specs, relay/circuit-v2): the relay itself ([`hop`]), the side that is reached through it
//! ([`stop`]), and the side that reserves and dials ([`client`]).

pub mod client;
pub mod hop;
pub mod limits;
mod roles;
pub mod score;
pub mod stop;
mod wire;

use libp2p_identity::PeerId;

pub use self::roles::Roles;
use crate::{
    behaviour::View,
    ids::ConnectionId,
    names::{Framing, ProtocolName, ProtocolSpec},
};

pub use crate::names::HOP;
/// `/libp2p/circuit/relay/0.2.0/stop`.
pub const STOP: ProtocolName = ProtocolName::from_static("/libp2p/circuit/relay/0.2.0/stop");

/// One of the two protocols; with 0 it is spoken but not answered.
fn spec(name: ProtocolName, inbound_per_peer: usize) -> ProtocolSpec {
    let framing = Framing::Varint { max: peerless_proto::pb::relay::MAX_MESSAGE };
    ProtocolSpec { name, framing, inbound_per_peer }
}

/// The newest direct connection to a peer.
fn direct_connection(view: View<'_>, peer: &PeerId) -> Option<ConnectionId> {
    let best = view.connections.get(view.connections.best(peer)?)?;
    best.relayed.is_none().then_some(best.id)
}
