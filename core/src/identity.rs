//! Who this node is: a key pair and the PeerId derived from it.

use std::fmt;

use libp2p_identity::{Keypair, PeerId, PublicKey};

use crate::rng::Rng;

/// The node's key pair and its PeerId.
#[derive(Clone)]
pub struct Identity {
    keypair: Keypair,
    peer: PeerId,
}

impl Identity {
    /// The identity of an existing key pair (libp2p specs, peer-ids).
    pub fn new(keypair: Keypair) -> Self {
        Self { peer: keypair.public().to_peer_id(), keypair }
    }

    /// A new Ed25519 identity, drawn from `rng`.
    pub fn generate(rng: &mut Rng) -> Self {
        let keypair =
            Keypair::ed25519_from_bytes(rng.bytes::<32>()).expect("any 32 bytes are an Ed25519 secret key");
        Self::new(keypair)
    }

    /// The node's PeerId.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// The public half of the key pair.
    pub fn public(&self) -> PublicKey {
        self.keypair.public()
    }

    /// The key pair itself, for the handshakes and envelopes that sign with it.
    pub fn keypair(&self) -> &Keypair {
        &self.keypair
    }
}

/// Shows the PeerId only, never the key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.peer)
    }
}
