//! `/rendezvous/1.0.0`; see the
//! [rendezvous specification](https://github.com/libp2p/specs/blob/master/rendezvous/README.md#protobuf).

use super::{DecodeError, Message as _, Shape, Wire, decode, has_field};
use crate::address::{AddrError, decode_multiaddr};
use crate::envelope::{Envelope, EnvelopeError};
use crate::keys::{PeerIdError, decode_peer_id};
use crate::peer_record::MAX_ADDRESSES;
use bytes::Bytes;
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

/// The one message of the protocol.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Message {
    /// A [`MessageType`]; see [`kind`](Self::kind).
    #[prost(int32, optional, tag = "1")]
    pub r#type: Option<i32>,
    /// With REGISTER.
    #[prost(message, optional, tag = "2")]
    pub register: Option<Register>,
    /// With REGISTER_RESPONSE.
    #[prost(message, optional, tag = "3")]
    pub register_response: Option<RegisterResponse>,
    /// With UNREGISTER.
    #[prost(message, optional, tag = "4")]
    pub unregister: Option<Unregister>,
    /// With DISCOVER.
    #[prost(message, optional, tag = "5")]
    pub discover: Option<Discover>,
    /// With DISCOVER_RESPONSE.
    #[prost(message, optional, tag = "6")]
    pub discover_response: Option<DiscoverResponse>,
}

impl Message {
    /// The type, if it is known. A missing one is REGISTER: clients that speak proto3 (go, py) leave zeros out.
    pub fn kind(&self) -> Option<MessageType> {
        self.r#type.unwrap_or_default().try_into().ok()
    }
}

impl Wire for Message {
    const MAX_FIELDS: usize = 8192;
    const SHAPE: Shape = Shape(&[
        (2, Shape::FLAT),
        (3, Shape::FLAT),
        (4, Shape::FLAT),
        (5, Shape::FLAT),
        (6, Shape(&[(1, Shape::FLAT)])),
    ]);
}

/// Asks to be found in a namespace; in an answer, a peer that asked so.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Register {
    /// The namespace.
    #[prost(string, optional, tag = "1")]
    pub ns: Option<String>,
    /// Who registers and where; [`RegisterRecord::decode`] tells the dialects apart.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub signed_peer_record: Option<Vec<u8>>,
    /// For how long, in seconds.
    #[prost(uint64, optional, tag = "3")]
    pub ttl: Option<u64>,
    /// The same in another dialect, for those who read only that. Not in the specification: points that do not know it
    /// skip it, as protobuf has them do; no answer has it.
    #[prost(bytes = "vec", optional, tag = "100")]
    pub other_record: Option<Vec<u8>>,
}

/// Answers [`Register`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RegisterResponse {
    /// A [`ResponseStatus`]; see [`known_status`](Self::known_status).
    #[prost(int32, optional, tag = "1")]
    pub status: Option<i32>,
    /// Says more, for humans.
    #[prost(string, optional, tag = "2")]
    pub status_text: Option<String>,
    /// The time granted, in seconds.
    #[prost(uint64, optional, tag = "3")]
    pub ttl: Option<u64>,
}

impl RegisterResponse {
    /// The status, if it is known. A missing one is OK: points that speak proto3 (go, py) leave zeros out.
    pub fn known_status(&self) -> Option<ResponseStatus> {
        self.status.unwrap_or_default().try_into().ok()
    }
}

/// Asks to be found no more.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Unregister {
    /// The namespace.
    #[prost(string, optional, tag = "1")]
    pub ns: Option<String>,
    /// The binary peer id that old implementations send. The authenticated peer counts, not this.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub id: Option<Vec<u8>>,
}

/// Asks for peers.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Discover {
    /// The namespace; absent for all.
    #[prost(string, optional, tag = "1")]
    pub ns: Option<String>,
    /// The most registrations wanted.
    #[prost(uint64, optional, tag = "2")]
    pub limit: Option<u64>,
    /// From an earlier answer: only what is new since.
    #[prost(bytes = "vec", optional, tag = "3")]
    pub cookie: Option<Vec<u8>>,
    /// Whether the client reads the records of every dialect, and is not confused by those of others. Not in the
    /// specification: points that do not know it skip it, as protobuf has them do.
    #[prost(bool, optional, tag = "100")]
    pub any_dialect: Option<bool>,
}

/// Answers [`Discover`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DiscoverResponse {
    /// The peers found.
    #[prost(message, repeated, tag = "1")]
    pub registrations: Vec<Register>,
    /// For the next question.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub cookie: Option<Vec<u8>>,
    /// A [`ResponseStatus`]; see [`known_status`](Self::known_status).
    #[prost(int32, optional, tag = "3")]
    pub status: Option<i32>,
    /// Says more, for humans.
    #[prost(string, optional, tag = "4")]
    pub status_text: Option<String>,
}

impl DiscoverResponse {
    /// The status, if it is known. A missing one is OK: points that speak proto3 (go, py) leave zeros out.
    pub fn known_status(&self) -> Option<ResponseStatus> {
        self.status.unwrap_or_default().try_into().ok()
    }
}

/// Writes a DISCOVER_RESPONSE one registration after the other, without a value for each in memory.
#[derive(Clone, Debug)]
pub struct Page {
    /// Room for what stands before the registrations, then the registrations.
    bytes: Vec<u8>,
    len: usize,
}

/// The type with its key, and the key and length of the response.
const PAGE_HEAD: usize = 2 + 1 + 10;

impl Default for Page {
    fn default() -> Self {
        Self { bytes: vec![0; PAGE_HEAD], len: 0 }
    }
}

impl Page {
    /// Adds a registration: [`Register`] with namespace, record (in pieces that follow each other) and time left.
    pub fn push(&mut self, ns: &str, record: &[&[u8]], ttl: u64) {
        let len = record.iter().map(|piece| piece.len()).sum();
        let inner = field_len(ns.len()) + field_len(len) + 1 + encoded_len_varint(ttl);
        let out = &mut self.bytes;
        out.reserve(field_len(inner));
        put_key(1, inner, out);
        put_key(1, ns.len(), out);
        out.extend_from_slice(ns.as_bytes());
        put_key(2, len, out);
        record.iter().for_each(|piece| out.extend_from_slice(piece));
        encode_key(3, WireType::Varint, out);
        encode_varint(ttl, out);
        self.len += 1;
    }

    /// How many registrations were added.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none was added.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes the registrations take.
    pub fn size(&self) -> usize {
        self.bytes.len() - PAGE_HEAD
    }

    /// The whole [`Message`], with status OK.
    pub fn finish(mut self, cookie: Vec<u8>) -> Bytes {
        let rest = DiscoverResponse {
            cookie: Some(cookie),
            status: Some(ResponseStatus::Ok as i32),
            ..Default::default()
        };
        let rest = rest.encode_to_vec();
        self.bytes.extend_from_slice(&rest);
        let mut head = Vec::with_capacity(PAGE_HEAD);
        encode_key(1, WireType::Varint, &mut head);
        encode_varint(MessageType::DiscoverResponse as u64, &mut head);
        put_key(6, self.bytes.len() - PAGE_HEAD, &mut head);
        // It ends where the registrations begin.
        let begin = PAGE_HEAD - head.len();
        self.bytes[begin..PAGE_HEAD].copy_from_slice(&head);
        Bytes::from(self.bytes).slice(begin..)
    }
}

/// A length-delimited field of this many bytes, with its key, which is below 16, and its length.
fn field_len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

fn put_key(tag: u32, len: usize, out: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(len as u64, out);
}

/// The unsigned record that implementations older than signed peer records put in [`Register`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PeerInfo {
    /// The binary peer id.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub id: Option<Vec<u8>>,
    /// Binary multiaddrs.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub addrs: Vec<Vec<u8>>,
}

impl Wire for PeerInfo {
    const MAX_FIELDS: usize = MAX_ADDRESSES + 16;
}

/// What the second field of [`Register`] holds, by the dialect of its sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegisterRecord {
    /// The specification's: an envelope, not verified yet, with a
    /// [`PeerRecord`](crate::peer_record::PeerRecord).
    SignedPeerRecord(Envelope),
    /// The old one: nothing is proven. It holds only if the authenticated sender is `peer`.
    PeerInfo {
        /// Who is said to register.
        peer: PeerId,
        /// Where it is said to listen. Addresses of unknown protocols are left out.
        addresses: Vec<Multiaddr>,
    },
}

/// Why a registration's record is of neither dialect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterRecordError {
    /// It has a signature but is no envelope.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// It has no signature and is no [`PeerInfo`] either.
    #[error(transparent)]
    PeerInfo(#[from] DecodeError),
    /// The peer id of a [`PeerInfo`] is missing or bad.
    #[error(transparent)]
    PeerId(#[from] PeerIdError),
    /// There are more than [`MAX_ADDRESSES`] addresses.
    #[error("{0} addresses")]
    TooManyAddresses(usize),
    /// An address is too long.
    #[error(transparent)]
    Address(#[from] AddrError),
}

impl RegisterRecord {
    /// Reads the second field of [`Register`]. An envelope always has a signature in field 5, which a [`PeerInfo`]
    /// never has.
    pub fn decode(bytes: &[u8]) -> Result<Self, RegisterRecordError> {
        const SIGNATURE: u64 = 5;
        if has_field(bytes, SIGNATURE) {
            return Ok(Self::SignedPeerRecord(Envelope::decode(bytes)?));
        }
        let info: PeerInfo = decode(bytes)?;
        if info.addrs.len() > MAX_ADDRESSES {
            return Err(RegisterRecordError::TooManyAddresses(info.addrs.len()));
        }
        let peer = decode_peer_id(&info.id.unwrap_or_default())?;
        Ok(Self::PeerInfo { peer, addresses: known_multiaddrs(info.addrs)? })
    }
}

/// The addresses that can be read, in order; too long a one is an error.
fn known_multiaddrs(addrs: Vec<Vec<u8>>) -> Result<Vec<Multiaddr>, AddrError> {
    addrs
        .into_iter()
        .filter_map(|bytes| match decode_multiaddr(bytes) {
            Err(AddrError::Malformed) => None,
            read => Some(read),
        })
        .collect()
}

/// The types of a [`Message`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum MessageType {
    /// Asks to be found.
    Register = 0,
    /// Answers it.
    RegisterResponse = 1,
    /// Asks to be found no more; not answered.
    Unregister = 2,
    /// Asks for peers.
    Discover = 3,
    /// Answers it.
    DiscoverResponse = 4,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ResponseStatus {
    /// Done.
    Ok = 0,
    /// The namespace is too long or forbidden.
    InvalidNamespace = 100,
    /// The record is not one, or not the sender's.
    InvalidSignedPeerRecord = 101,
    /// The time asked for is too short or too long.
    InvalidTtl = 102,
    /// The cookie is not one of this point's.
    InvalidCookie = 103,
    /// The point's policy forbids it.
    NotAuthorized = 200,
    /// The point failed.
    InternalError = 300,
    /// The point is out of service or full.
    Unavailable = 400,
}
