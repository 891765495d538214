//! What a peer says of itself.

use libp2p_identity::PublicKey;
use multiaddr::Multiaddr;

use crate::names::ProtocolName;

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
