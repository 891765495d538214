//! The identify message: ours as it is sent, and what is believed of a peer's.

use std::collections::BTreeSet;

use bytes::Bytes;
use libp2p_identity::{PeerId, PublicKey};
use multiaddr::Multiaddr;
use peerless_proto::{
    address::{self, MAX_ADDR_LEN},
    envelope::Envelope,
    keys,
    pb::{self, Message as _, identify::Identify as Message},
    peer_record::{Dialect, PeerRecord},
};

use super::{Config, Info, Says};
use crate::{
    behaviour::{Context, ProtocolName, View},
    swarm::{hostless, table::ConnectionInfo},
    time::UnixTime,
};

/// The longest message accepted, in bytes.
pub(super) const MAX_MESSAGE: usize = 8192;

/// The longest message sent, in bytes: some peers accept no more, and no second one.
const MAX_SENT: usize = 4096;

/// Left free in what is sent for the observed address, which differs by connection.
const OBSERVED_ROOM: usize = 128;

/// Least that the fields around an address take, in the list and in the signed record together.
const ADDRESS_FRAMING: usize = 6;

/// Most addresses and protocols of one peer.
const MAX_ADDRESSES: usize = 500;
const MAX_PROTOCOLS: usize = 1000;

/// The longest agent and protocol version kept, in bytes; the rest is cut off.
const MAX_TEXT: usize = 128;

/// The longest protocol id, in bytes. A longer one is left out: cut off it would be another.
const MAX_PROTOCOL_ID: usize = 256;

/// What we say of ourselves, made anew when it changes.
#[derive(Debug, Default)]
pub(super) struct Local {
    /// Counts the changes; zero before the first message.
    pub(super) version: u64,
    revision: u64,
    addresses: Vec<Multiaddr>,
    protocols: Vec<ProtocolName>,
    seq: u64,
    message: Message,
}

impl Local {
    /// Brings the message up to date.
    pub(super) fn refresh(&mut self, cx: &mut Context<'_>, config: &Config) {
        let view = cx.view();
        let known = self.version > 0 && self.protocols == view.protocols;
        if known && self.revision == view.addresses.revision() {
            return;
        }
        self.revision = view.addresses.revision();
        let addresses = view.addresses.advertised();
        if known && self.addresses == addresses {
            return;
        }
        self.addresses = addresses;
        self.protocols = view.protocols.to_vec();
        self.version += 1;
        self.seq = nanos(cx.unix()).max(self.seq.saturating_add(1));
        self.message = self.compose(view, config);
        if self.message.signed_peer_record.is_none() {
            cx.count("identify.record.unsigned");
        }
    }

    /// The message for the remote of one connection. Where a relay sees us is nobody's business but the relay's.
    pub(super) fn message_for(&self, connection: &ConnectionInfo) -> Bytes {
        let direct = connection.relayed.is_none() && connection.remote.len() < OBSERVED_ROOM;
        let observed_addr = direct.then(|| connection.remote.to_vec());
        Message { observed_addr, ..self.message.clone() }.encode_to_vec().into()
    }

    /// As much as fits: the last addresses are the first to go, the signed record only if it leaves no room at all.
    fn compose(&self, view: View<'_>, config: &Config) -> Message {
        let mut message = Message {
            public_key: Some(keys::encode_public_key(&view.identity.public())),
            protocol_version: Some(clip(&config.protocol_version)),
            agent_version: Some(clip(&config.agent)),
            ..Message::default()
        };
        let mut room = MAX_SENT / 2;
        for protocol in self.protocols.iter().take(MAX_PROTOCOLS) {
            let Some(rest) = room.checked_sub(protocol.as_str().len() + 3) else { break };
            room = rest;
            message.protocols.push(protocol.as_str().into());
        }
        let mut addresses: Vec<_> =
            self.addresses.iter().filter(|a| a.len() <= MAX_ADDR_LEN).take(MAX_ADDRESSES).cloned().collect();
        loop {
            message.listen_addrs = addresses.iter().map(Multiaddr::to_vec).collect();
            message.signed_peer_record = self.signed(view, &addresses);
            let mut excess = (message.encoded_len() + OBSERVED_ROOM).saturating_sub(MAX_SENT);
            if excess == 0 {
                return message;
            }
            if addresses.is_empty() {
                return Message { signed_peer_record: None, ..message };
            }
            while let (1.., Some(dropped)) = (excess, addresses.pop()) {
                excess = excess.saturating_sub(2 * dropped.len() + ADDRESS_FRAMING);
            }
        }
    }

    fn signed(&self, view: View<'_>, addresses: &[Multiaddr]) -> Option<Vec<u8>> {
        let record = PeerRecord { peer: view.local_peer(), seq: self.seq, addresses: addresses.to_vec() };
        Some(record.seal(view.identity.keypair(), Dialect::Standard).ok()?.encode())
    }
}

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

/// Without control characters, and cut off at [`MAX_TEXT`].
fn clip(text: &str) -> String {
    let mut clipped = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if clipped.len() + c.len_utf8() > MAX_TEXT {
            break;
        }
        clipped.push(c);
    }
    clipped
}

fn nanos(unix: UnixTime) -> u64 {
    u64::try_from(unix.since_epoch().as_nanos()).unwrap_or(u64::MAX)
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
