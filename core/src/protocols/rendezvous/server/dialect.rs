//! The dialects of records: which kinds a peer has given, and which of them a client can read.
//!
//! A record is passed on as it was received, because nobody but its peer can sign it. What a client cannot read is left
//! out of its answers: clients of rust-libp2p give up on a whole answer when they meet a record of another kind. An
//! unsigned record can be made of a signed one, never the reverse.

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use peerless_proto::{
    pb::{
        self, Message as _,
        rendezvous::{PeerInfo, RegisterRecord},
    },
    peer_record::{self, PeerRecord},
};

use super::refusal::Refusal;
use crate::swarm::hostless;

/// What kind of record a peer gives, and clients of its kind read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Dialect {
    /// The specification's signed record.
    Standard = 0,
    /// The signed record of rust-libp2p's rendezvous, from a draft of the specification.
    RoutingState = 1,
    /// The unsigned record of old clients.
    PeerInfo = 2,
}

impl Dialect {
    pub(super) const ALL: [Self; 3] = [Self::Standard, Self::RoutingState, Self::PeerInfo];

    /// What the libraries are known to read that an agent names. Only for clients that have registered nothing, which
    /// tell nothing else by which they could be known.
    pub(super) fn of_agent(agent: &str) -> Option<Self> {
        if agent.starts_with("rust-libp2p") {
            Some(Self::RoutingState)
        } else if agent.contains("py-libp2p") || agent.contains("berty") {
            Some(Self::PeerInfo)
        } else {
            None
        }
    }
}

/// What a client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reads {
    /// Every kind: it says so.
    Any,
    /// One kind.
    Only(Dialect),
}

/// A record as it was received. An unsigned one is written anew, without what is no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) dialect: Dialect,
    /// Of two signed records the one with the larger number is the newer; 0 in an unsigned one.
    pub(super) seq: u64,
    pub(super) bytes: Box<[u8]>,
}

/// Reads and verifies what `sender` gave as its record.
pub(super) fn verify(bytes: &[u8], sender: PeerId, accept_unsigned: bool) -> Result<Record, Refusal> {
    match RegisterRecord::decode(bytes).map_err(|_| Refusal::Record)? {
        RegisterRecord::SignedPeerRecord(envelope) => {
            let signed = peer_record::Dialect::of(&envelope).ok_or(Refusal::Record)?;
            let dialect = match signed {
                peer_record::Dialect::Standard => Dialect::Standard,
                peer_record::Dialect::RoutingState => Dialect::RoutingState,
            };
            let PeerRecord { peer, seq, addresses } =
                PeerRecord::open(&envelope).map_err(|_| Refusal::Signature)?;
            if peer != sender {
                return Err(Refusal::Foreign);
            }
            // Its readers give up on a whole answer if one address in it is none.
            let readable = dialect != Dialect::RoutingState
                || signed_addresses(bytes).is_some_and(|all| all.len() == addresses.len());
            if !readable {
                return Err(Refusal::Record);
            }
            some_host(&addresses)?;
            Ok(Record { dialect, seq, bytes: bytes.into() })
        }
        RegisterRecord::PeerInfo { .. } if !accept_unsigned => Err(Refusal::Unsigned),
        RegisterRecord::PeerInfo { peer, .. } if peer != sender => Err(Refusal::Foreign),
        RegisterRecord::PeerInfo { peer, addresses } => {
            some_host(&addresses)?;
            let addrs = addresses.iter().map(|address| address.to_vec()).collect();
            let info = PeerInfo { id: Some(peer.to_bytes()), addrs };
            Ok(Record { dialect: Dialect::PeerInfo, seq: 0, bytes: info.encode_to_vec().into() })
        }
    }
}

/// Whoever names addresses must be at one of them.
fn some_host(addresses: &[Multiaddr]) -> Result<(), Refusal> {
    let is_nowhere = !addresses.is_empty() && addresses.iter().all(|address| hostless(address).is_some());
    if is_nowhere { Err(Refusal::Hostless) } else { Ok(()) }
}

/// The unsigned form of a record of `peer` that was verified when it came.
pub(super) fn unsigned(peer: &[u8], record: &[u8]) -> Option<Vec<u8>> {
    let addrs = signed_addresses(record)?;
    Some(PeerInfo { id: Some(peer.to_vec()), addrs }.encode_to_vec())
}

/// The addresses in a signed record, as they stand there.
fn signed_addresses(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let envelope = pb::decode::<pb::record::Envelope>(bytes).ok()?;
    let record = pb::decode::<pb::record::PeerRecord>(&envelope.payload).ok()?;
    Some(record.addresses.into_iter().map(|info| info.multiaddr).collect())
}
