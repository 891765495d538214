//! `/ipfs/id/1.0.0` and `/ipfs/id/push/1.0.0` (libp2p specs, identify): what each side is, speaks and sees.

use std::sync::Arc;

use libp2p_identity::{PeerId, PublicKey};
use multiaddr::Multiaddr;

use crate::{behaviour::ProtocolName, event, ids::ConnectionId};

/// What a peer says of itself. Only the public key is proven (it hashes to the authenticated PeerId), and the addresses
/// where [`Info::certified`] says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The key behind the PeerId.
    pub public_key: PublicKey,
    /// Stream protocols it answers.
    pub protocols: Vec<ProtocolName>,
    /// Where it says it listens.
    pub listen_addresses: Vec<Multiaddr>,
    /// Whether the addresses come from a record signed by the peer.
    pub certified: bool,
    /// Where it sees us.
    pub observed: Option<Multiaddr>,
    /// Its software.
    pub agent: String,
    /// Its protocol family, such as `ipfs/0.1.0`.
    pub protocol_version: String,
}

/// A peer told what it is, for the first time or anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The connection it was told on.
    pub connection: ConnectionId,
    /// The authenticated peer.
    pub peer: PeerId,
    /// What it says.
    pub info: Arc<Info>,
}

impl From<Event> for event::Event {
    fn from(event: Event) -> Self {
        Self::Identify(event)
    }
}

/// temp
#[derive(Clone, Debug, Default)]
pub struct Config {}
/// temp
#[derive(Debug)]
pub struct Identify;
impl Identify {
    /// temp
    pub fn new(_: Config) -> Self {
        Self
    }
}
impl crate::behaviour::Behaviour for Identify {
    fn name(&self) -> &'static str {
        "Identify"
    }
    fn protocols(&self) -> &[crate::behaviour::ProtocolSpec] {
        &[]
    }
    fn handle(&mut self, _: &mut crate::behaviour::Context<'_>, _: crate::behaviour::Input) {}
}
