//! The identify message of a peer, and what is believed of it.

use std::{collections::BTreeSet, net::SocketAddr};

use libp2p_identity::{PeerId, PublicKey};
use multiaddr::Multiaddr;
use peerless_proto::{
    address,
    envelope::Envelope,
    keys,
    pb::{self, identify::Identify as Message},
    peer_record::PeerRecord,
};

use super::Says;
use crate::{
    behaviour::Context,
    info::Info,
    names::ProtocolName,
    swarm::{
        dial::rank::{Reach, reach},
        hostless,
    },
};

/// The longest message accepted, in bytes.
pub(super) const MAX_MESSAGE: usize = 8192;

/// Most addresses and protocols of one peer.
pub(super) const MAX_ADDRESSES: usize = 500;
pub(super) const MAX_PROTOCOLS: usize = 1000;

/// The longest agent and protocol version kept, in bytes; the rest is cut off.
const MAX_TEXT: usize = 128;

/// The longest protocol id, in bytes. A longer one is left out: cut off it would be another.
const MAX_PROTOCOL_ID: usize = 256;

/// Why what a peer says of itself is not believed at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Malformed,
    TooManyAddresses,
    TooManyProtocols,
    Key,
}

impl Refusal {
    pub(super) fn counter(self) -> &'static str {
        match self {
            Self::Malformed => "identify.refused.malformed",
            Self::TooManyAddresses => "identify.refused.too_many_addresses",
            Self::TooManyProtocols => "identify.refused.too_many_protocols",
            Self::Key => "identify.refused.key",
        }
    }
}

/// Adds one more message to those read before: lists grow, other fields are replaced.
pub(super) fn merge(into: &mut Message, frame: &[u8]) -> Result<(), Refusal> {
    let next: Message = pb::decode(frame).map_err(|_| Refusal::Malformed)?;
    if into.listen_addrs.len() + next.listen_addrs.len() > MAX_ADDRESSES {
        return Err(Refusal::TooManyAddresses);
    }
    if into.protocols.len() + next.protocols.len() > MAX_PROTOCOLS {
        return Err(Refusal::TooManyProtocols);
    }
    into.listen_addrs.extend(next.listen_addrs);
    into.protocols.extend(next.protocols);
    into.public_key = next.public_key.or(into.public_key.take());
    into.observed_addr = next.observed_addr.or(into.observed_addr.take());
    into.protocol_version = next.protocol_version.or(into.protocol_version.take());
    into.agent_version = next.agent_version.or(into.agent_version.take());
    into.signed_peer_record = next.signed_peer_record.or(into.signed_peer_record.take());
    Ok(())
}

/// What is known of a peer before it says more.
pub(super) struct Before<'a> {
    /// The authenticated peer.
    pub(super) peer: PeerId,
    /// What it said last on the same connection.
    pub(super) info: Option<&'a Info>,
    /// The newest record of it seen on any of its connections.
    pub(super) seq: Option<u64>,
}

/// What a peer says of itself.
pub(super) struct Said {
    /// Missing fields are as before.
    pub(super) info: Info,
    /// The number of its record if there is a good one.
    pub(super) seq: Option<u64>,
    pub(super) says: Says,
}

/// What a peer says of itself.
pub(super) fn read(cx: &mut Context<'_>, message: Message, before: &Before<'_>) -> Result<Said, Refusal> {
    let last = before.info;
    let public_key = read_key(message.public_key.as_deref(), before)?;
    let protocols = read_protocols(cx, message.protocols);
    let record = message.signed_peer_record.map(|bytes| read_record(cx, &bytes, before));
    let said = read_addresses(cx, message.listen_addrs, before.peer);
    let unchanged = last.map(|info| (info.listen_addresses.clone(), info.certified));
    let (seq, addresses, is_new) = match (record, unchanged) {
        (Some(Record::Good(record)), _) if !record.addresses.is_empty() || said.is_empty() => {
            let addresses = tidy(cx, record.addresses, before.peer);
            (Some(record.seq), (addresses, true), true)
        }
        (Some(Record::RolledBack), Some(unchanged)) => (None, unchanged, false),
        (_, Some(unchanged)) if said.is_empty() => (None, unchanged, false),
        _ => (None, (said, false), true),
    };
    let says = Says { addresses: is_new, protocols: last.is_none() || !protocols.is_empty() };
    let text = |new: Option<String>, old: fn(&Info) -> &String| match new {
        Some(text) => clip(&text),
        None => last.map(|info| old(info).clone()).unwrap_or_default(),
    };
    let observed = message.observed_addr.and_then(|bytes| address::decode_multiaddr(bytes).ok());
    let info = Info {
        public_key,
        protocols: match last {
            Some(last) if protocols.is_empty() => last.protocols.clone(),
            _ => protocols,
        },
        listen_addresses: addresses.0,
        certified: addresses.1,
        observed: observed.or_else(|| last?.observed.clone()),
        agent: text(message.agent_version, |info| &info.agent),
        protocol_version: text(message.protocol_version, |info| &info.protocol_version),
    };
    Ok(Said { info, seq, says })
}

/// A missing key is the one known, or the one that the PeerId itself spells out.
fn read_key(bytes: Option<&[u8]>, before: &Before<'_>) -> Result<PublicKey, Refusal> {
    const IDENTITY: u64 = 0;
    let key = match (bytes, before.info) {
        (Some(bytes), _) => keys::decode_public_key(bytes),
        (None, Some(info)) => return Ok(info.public_key.clone()),
        (None, None) if before.peer.as_ref().code() == IDENTITY => {
            keys::decode_public_key(before.peer.as_ref().digest())
        }
        (None, None) => return Err(Refusal::Key),
    };
    key.ok().filter(|key| key.to_peer_id() == before.peer).ok_or(Refusal::Key)
}

fn read_protocols(cx: &mut Context<'_>, names: Vec<String>) -> Vec<ProtocolName> {
    let mut seen = BTreeSet::new();
    let mut protocols = Vec::new();
    for name in names {
        if name.is_empty() || name.len() > MAX_PROTOCOL_ID {
            cx.count("identify.skipped.protocol");
            continue;
        }
        let name = ProtocolName::from(name.as_str());
        if seen.insert(name.clone()) {
            protocols.push(name);
        }
    }
    protocols
}

enum Record {
    Good(PeerRecord),
    RolledBack,
    Refused,
}

fn read_record(cx: &mut Context<'_>, bytes: &[u8], before: &Before<'_>) -> Record {
    let record = Envelope::decode(bytes).map_err(Into::into).and_then(|e| PeerRecord::open(&e));
    match record {
        Err(_) => {
            cx.count("identify.record.bad");
            Record::Refused
        }
        Ok(record) if record.peer != before.peer => {
            cx.count("identify.record.foreign");
            Record::Refused
        }
        Ok(record) if Some(record.seq) < before.seq => {
            cx.count("identify.record.rolled_back");
            Record::RolledBack
        }
        Ok(record) => Record::Good(record),
    }
}

/// Addresses of protocols that we do not know are left out; that is no fault of the peer.
fn read_addresses(cx: &mut Context<'_>, addresses: Vec<Vec<u8>>, peer: PeerId) -> Vec<Multiaddr> {
    let known = addresses.into_iter().filter_map(|bytes| address::decode_multiaddr(bytes).ok());
    let known: Vec<_> = known.collect();
    tidy(cx, known, peer)
}

/// Each address once, without the peer's own `/p2p`; none that names somebody else or leads to no host.
fn tidy(cx: &mut Context<'_>, addresses: Vec<Multiaddr>, peer: PeerId) -> Vec<Multiaddr> {
    let mut seen = BTreeSet::new();
    let mut tidied = Vec::new();
    for address in addresses {
        let (address, named) = address::split_peer(&address);
        let is_foreign = named.is_some_and(|named| named != peer);
        if address.is_empty() || is_foreign || hostless(&address).is_some() {
            cx.count("identify.skipped.address");
        } else if seen.insert(address.clone()) {
            tidied.push(address);
        }
    }
    tidied
}

/// Where a peer sees us, if it may be true: the QUIC address of one host.
pub(super) fn plausible(observed: &Multiaddr, local: PeerId) -> Option<Multiaddr> {
    let (mut socket, named) = address::parse_quic_v1(observed).ok()?;
    socket.set_ip(socket.ip().to_canonical());
    let address = address::quic_v1(socket);
    (hostless(&address).is_none() && named.is_none_or(|named| named == local)).then_some(address)
}

/// Whether a socket may be seen there by a peer that is there: it sends over its own address family, and to nobody but this
/// machine from a loopback address.
pub(super) fn fits(seen: &Multiaddr, socket: SocketAddr, remote: &Multiaddr) -> bool {
    let is_loopback = |address: &Multiaddr| reach(address) == Reach::Loopback;
    let is_family = address::ip_of(seen).is_some_and(|ip| ip.is_ipv4() == socket.is_ipv4());
    is_family && (!is_loopback(seen) || is_loopback(remote))
}

/// Without control characters, and cut off at [`MAX_TEXT`].
pub(super) fn clip(text: &str) -> String {
    let mut clipped = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if clipped.len() + c.len_utf8() > MAX_TEXT {
            break;
        }
        clipped.push(c);
    }
    clipped
}

/// A message in a few words.
pub(super) fn describe(kind: &str, frame: &[u8]) -> Option<String> {
    let message: Message = pb::decode(frame).ok()?;
    let mut text = kind.to_owned();
    if let Some(agent) = message.agent_version {
        text += &format!(" agent={}", clip(&agent));
    }
    text += &format!(" protocols={} addresses={}", message.protocols.len(), message.listen_addrs.len());
    if let Some(observed) = message.observed_addr.and_then(|bytes| address::decode_multiaddr(bytes).ok()) {
        text += &format!(" observed={observed}");
    }
    if message.signed_peer_record.is_some() {
        text += " signed";
    }
    Some(text)
}
