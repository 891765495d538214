//! What a peer says of itself, as far as it can be believed.

use libp2p_identity::{PeerId, PublicKey};
use multiaddr::Multiaddr;
use peerless_proto::{
    address::decode_multiaddr,
    envelope::Envelope,
    keys::decode_public_key,
    pb::{self, DecodeError, identify::Identify as Message},
    peer_record::PeerRecord,
};

use crate::behaviour::ProtocolName;

/// Most addresses that one peer may have.
const MAX_ADDRESSES: usize = 500;

/// Most protocols that one peer may have.
const MAX_PROTOCOLS: usize = 1000;

/// Most bytes in the name of a protocol; longer ones are left out.
const MAX_PROTOCOL_NAME: usize = 256;

/// Most bytes kept of the other strings.
const MAX_TEXT: usize = 256;

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

/// Why a message is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Malformed,
    TooMany,
    NoKey,
    OtherKey,
}

impl Fault {
    pub(super) fn counter(self) -> &'static str {
        match self {
            Self::Malformed => "identify.refused.malformed",
            Self::TooMany => "identify.refused.too_many",
            Self::NoKey => "identify.refused.no_key",
            Self::OtherKey => "identify.refused.other_key",
        }
    }
}

/// What a message brought, besides the information itself.
#[derive(Debug)]
pub(super) struct News {
    pub(super) info: Info,
    /// The sequence number of the newest record so far.
    pub(super) seq: Option<u64>,
    /// Whether there was a record that proves nothing.
    pub(super) bad_record: bool,
}

/// Reads what `peer` says in `bytes`: one or more messages in a row, of which protobuf makes one. Fields that are
/// missing stay as they were `before`, where there also was a record with the number `seq`.
pub(super) fn read(
    bytes: &[u8],
    peer: &PeerId,
    before: Option<&Info>,
    seq: Option<u64>,
) -> Result<News, Fault> {
    let message: Message = pb::decode(bytes).map_err(|error| match error {
        DecodeError::TooManyFields { .. } => Fault::TooMany,
        _ => Fault::Malformed,
    })?;
    if message.listen_addrs.len() > MAX_ADDRESSES || message.protocols.len() > MAX_PROTOCOLS {
        return Err(Fault::TooMany);
    }
    let public_key = public_key(message.public_key.as_deref(), peer, before)?;
    let record = message.signed_peer_record.as_deref().map(|bytes| record(bytes, peer, seq));
    let mut news = News {
        info: before.cloned().unwrap_or_else(|| Info {
            public_key: public_key.clone(),
            protocols: Vec::new(),
            listen_addresses: Vec::new(),
            certified: false,
            observed: None,
            agent: String::new(),
            protocol_version: String::new(),
        }),
        seq,
        bad_record: matches!(record, Some(None)),
    };
    let info = &mut news.info;
    info.public_key = public_key;
    if !message.protocols.is_empty() {
        let fits = |name: &String| !name.is_empty() && name.len() <= MAX_PROTOCOL_NAME;
        info.protocols =
            message.protocols.into_iter().filter(fits).map(|name| name.as_str().into()).collect();
    }
    if let Some(Some(record)) = record {
        news.seq = Some(record.seq);
        info.listen_addresses = record.addresses;
        info.certified = true;
    } else if !message.listen_addrs.is_empty() {
        // Addresses with protocols that are not known here are left out.
        info.listen_addresses =
            message.listen_addrs.into_iter().filter_map(|bytes| decode_multiaddr(bytes).ok()).collect();
        info.certified = false;
    }
    if let Some(observed) = message.observed_addr {
        info.observed = decode_multiaddr(observed).ok();
    }
    if let Some(agent) = message.agent_version {
        info.agent = shortened(agent);
    }
    if let Some(version) = message.protocol_version {
        info.protocol_version = shortened(version);
    }
    Ok(news)
}

/// The key behind `peer`: as told, as told before, or from the peer id itself if that holds it.
fn public_key(told: Option<&[u8]>, peer: &PeerId, before: Option<&Info>) -> Result<PublicKey, Fault> {
    /// The multihash that is the data itself.
    const IDENTITY: u64 = 0;
    let Some(told) = told else {
        let embedded = (peer.as_ref().code() == IDENTITY).then(|| peer.as_ref().digest());
        let known = before.map(|info| info.public_key.clone());
        return known.or_else(|| decode_public_key(embedded?).ok()).ok_or(Fault::NoKey);
    };
    let key = decode_public_key(told).map_err(|_| Fault::Malformed)?;
    if key.to_peer_id() == *peer { Ok(key) } else { Err(Fault::OtherKey) }
}

/// A record that the peer itself has signed and that is not older than the one before.
fn record(bytes: &[u8], peer: &PeerId, seq: Option<u64>) -> Option<PeerRecord> {
    let record = PeerRecord::open(&Envelope::decode(bytes).ok()?).ok()?;
    (record.peer == *peer && seq.is_none_or(|seq| record.seq >= seq)).then_some(record)
}

fn shortened(mut text: String) -> String {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
    text
}
