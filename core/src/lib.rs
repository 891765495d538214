//! libp2p without the I/O: pure state machines that consume bytes, timers and commands and emit actions.

pub mod addresses;
pub mod behaviour;
pub mod counters;
pub mod event;
pub mod identity;
pub mod ids;
pub mod node;
pub mod protocols;
pub mod quic;
pub mod rng;
pub mod streams;
pub mod swarm;
pub mod time;
pub mod tls;
pub mod trace;
pub mod upgrade;

pub use libp2p_identity::{Keypair, PeerId, PublicKey};
pub use multiaddr::Multiaddr;
