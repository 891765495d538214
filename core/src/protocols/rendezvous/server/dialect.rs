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
use crate::{info::Info, swarm::hostless};

/// The protocol version that every library but rust-libp2p tells by itself.
const PROTOCOL_VERSION: &str = "ipfs/0.1.0";

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

    /// What a client is taken to read of which nothing is known: the specification's.
    pub(super) const GUESS: Self = Self::Standard;

    /// What a client reads that has registered nothing, by what identify tells of its library. Programs may give themselves
    /// any agent; those of rust-libp2p are known then by what they leave out or have to choose: other libraries send a
    /// signed record, or the protocol version `ipfs/0.1.0`. Those of Go that go by the library's default are known by their
    /// module's path.
    pub(super) fn of_library(info: &Info) -> Self {
        let agent = info.agent.as_str();
        let is = |library: &str| agent.contains(library);
        if is("rust-libp2p") {
            Self::RoutingState
        } else if is("py-libp2p") || is("berty") || is("go-libp2p") || is_module(agent) {
            Self::PeerInfo
        } else if is("js-libp2p") || is("nim-libp2p") || info.certified {
            Self::Standard
        } else if !info.protocol_version.is_empty() && info.protocol_version != PROTOCOL_VERSION {
            Self::RoutingState
        } else {
            Self::GUESS
        }
    }
}

/// Whether an agent is the path of a Go module and its version, such as `example.org/node@v1.2.3`.
fn is_module(agent: &str) -> bool {
    let host = agent.split_once('@').and_then(|(path, _)| path.split_once('/'));
    host.is_some_and(|(host, _)| host.contains('.') && !host.contains(' '))
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
