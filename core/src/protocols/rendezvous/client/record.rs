//! Registrations as they stand on the wire: ours made, others' read.

use std::time::Duration;

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use peerless_proto::{
    address::{self, MAX_ADDR_LEN},
    envelope::Envelope,
    pb::{
        Message as _,
        rendezvous::{PeerInfo, Register, RegisterRecord},
    },
    peer_record::{self, PeerRecord},
};

use super::{
    super::{DEFAULT_TTL, MAX_TTL},
    Error, Found,
};
use crate::{
    behaviour::Context,
    swarm::{addresses::Audience, hostless},
};

/// How our addresses are sent to a point. Those of others are read in any of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// As the point wants it: by what it calls itself, else by what it accepts, the standard first.
    #[default]
    Auto,
    /// A signed peer record, as the specification says.
    Standard,
    /// The signed record of an older draft, which is the only one that rust-libp2p takes.
    RustLegacy,
    /// Peer id and addresses without a signature, as before there were signed records: go (berty) and py.
    PeerInfo,
}

impl Dialect {
    const ALL: [Self; 3] = [Self::Standard, Self::RustLegacy, Self::PeerInfo];

    /// What a point wants that calls itself so; `None` if that says nothing.
    pub(super) fn of_agent(agent: &str) -> Option<Self> {
        let known = [
            ("rust-libp2p", Self::RustLegacy),
            ("py-libp2p", Self::PeerInfo),
            ("berty", Self::PeerInfo),
            ("peerless", Self::Standard),
        ];
        known.into_iter().find(|(name, _)| agent.contains(name)).map(|(_, dialect)| dialect)
    }

    /// The dialects to be tried in turn; `likely` are first, where `Auto` leaves it open.
    pub(super) fn candidates(self, likely: [Option<Self>; 2]) -> Vec<Self> {
        if self != Self::Auto {
            return vec![self];
        }
        let mut candidates = Vec::new();
        for dialect in likely.into_iter().flatten().chain(Self::ALL) {
            if !candidates.contains(&dialect) {
                candidates.push(dialect);
            }
        }
        candidates
    }
}

/// Makes our own records, each with a larger number than the one before.
#[derive(Debug, Default)]
pub(super) struct Records {
    seq: u64,
}

impl Records {
    /// Our record with these addresses.
    pub(super) fn make(
        &mut self,
        cx: &Context<'_>,
        dialect: Dialect,
        addresses: &[Multiaddr],
    ) -> Result<Vec<u8>, Error> {
        let peer = cx.view().local_peer();
        let sealed_as = match dialect {
            Dialect::PeerInfo => {
                let addrs = addresses.iter().map(Multiaddr::to_vec).collect();
                return Ok(PeerInfo { id: Some(peer.to_bytes()), addrs }.encode_to_vec());
            }
            Dialect::RustLegacy => peer_record::Dialect::RoutingState,
            Dialect::Auto | Dialect::Standard => peer_record::Dialect::Standard,
        };
        let nanos = u64::try_from(cx.unix().since_epoch().as_nanos()).unwrap_or(u64::MAX);
        self.seq = nanos.max(self.seq.saturating_add(1));
        let record = PeerRecord { peer, seq: self.seq, addresses: addresses.to_vec() };
        let sealed = record.seal(cx.view().identity.keypair(), sealed_as);
        sealed.map(|envelope: Envelope| envelope.encode()).map_err(|error| Error::Record(error.to_string()))
    }
}

/// What we have a point tell others of where we are: no more than `max` addresses, none too long to be read. Those who ask
/// may be our neighbours, wherever the point is, but they are on this machine only if the point is, which stands at
/// `address` as far as it is not connected.
pub(super) fn own_addresses(
    cx: &Context<'_>,
    point: &PeerId,
    address: Option<&Multiaddr>,
    max: usize,
) -> Vec<Multiaddr> {
    let view = cx.view();
    let connected = view.connections.best(point).and_then(|id| view.connections.get(id));
    let remote = connected.map(|info| &info.remote).or(address);
    let told = view.addresses.told_to(remote.map_or(Audience::Site, Audience::at).max(Audience::Site));
    told.into_iter().filter(|address| address.len() <= MAX_ADDR_LEN).take(max).collect()
}

/// A registration of somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) found: Found,
    /// Of two signed records the one with the larger number counts.
    pub(super) seq: u64,
    /// Addresses left out because they lead to no host.
    pub(super) hostless: u64,
}

/// Why a registration in an answer is left out, as the name of its counter.
pub(super) type Skip = &'static str;

/// Reads a registration in an answer to a question for `asked`.
pub(super) fn read(
    registration: Register,
    asked: Option<&str>,
    us: PeerId,
    max_addresses: usize,
) -> Result<Read, Skip> {
    // A point that was asked for one namespace need not repeat it.
    let namespace = registration.ns.or_else(|| asked.map(Into::into)).unwrap_or_default();
    if asked.is_some_and(|asked| asked != namespace) || super::check_namespace(&namespace).is_err() {
        return Err("rendezvous.client.skipped.namespace");
    }
    let ttl = registration.ttl.map_or(DEFAULT_TTL, Duration::from_secs).min(MAX_TTL);
    if ttl.is_zero() {
        return Err("rendezvous.client.skipped.ended");
    }
    let bad = "rendezvous.client.skipped.record";
    let record = registration.signed_peer_record.ok_or(bad)?;
    let (peer, seq, addresses, signed) = match RegisterRecord::decode(&record).map_err(|_| bad)? {
        RegisterRecord::SignedPeerRecord(envelope) => {
            let record = PeerRecord::open(&envelope).map_err(|_| bad)?;
            (record.peer, record.seq, record.addresses, true)
        }
        RegisterRecord::PeerInfo { peer, addresses } => (peer, 0, addresses, false),
    };
    if peer == us {
        return Err("rendezvous.client.skipped.own");
    }
    let told = addresses.len();
    let usable: Vec<_> = addresses.into_iter().filter(|address| hostless(address).is_none()).collect();
    let hostless = (told - usable.len()) as u64;
    let whole = usable.into_iter().filter_map(|address| address::with_peer(address, peer).ok());
    let addresses = whole.take(max_addresses).collect();
    Ok(Read { found: Found { namespace, peer, addresses, ttl, signed }, seq, hostless })
}
