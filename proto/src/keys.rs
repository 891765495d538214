//! Keys and peer ids; see the
//! [peer id specification](https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md).
//!
//! The types are those of `libp2p-identity`. The functions here add what hostile bytes need: sizes are checked before
//! anything is parsed, an RSA key has a sensible size, and a key has one encoding only, so that nobody has two ids.

use crate::{pb, varint};
use bytes::BytesMut;
use multibase::Base;

pub use libp2p_identity::{KeyType, Keypair, PeerId, PublicKey};

/// The longest encoded public key accepted, in bytes.
pub const MAX_KEY_LEN: usize = 4096;

/// The longest encoded private key accepted, in bytes: one of RSA has nine numbers of its modulus' size or half of it.
pub const MAX_PRIVATE_KEY_LEN: usize = 16 * 1024;

/// The sizes of RSA keys accepted, in bits of the modulus.
pub const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The longest text of a peer id accepted, in bytes.
pub const MAX_PEER_ID_TEXT: usize = 256;

/// Why bytes are not an acceptable key, or a key cannot be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// There are more than [`MAX_KEY_LEN`] bytes, or [`MAX_PRIVATE_KEY_LEN`].
    #[error("encoded key of {0} bytes is too long")]
    TooLong(usize),
    /// The bytes are not a key of a known type.
    #[error("not a key")]
    Malformed,
    /// An RSA key whose size is not within [`RSA_BITS`].
    #[error("RSA key of {0} bits")]
    RsaSize(usize),
    /// The key can be read, but its one encoding is another.
    #[error("key is not in its canonical encoding")]
    NotCanonical,
    /// Private keys of this type cannot be encoded.
    #[error("a private key of this type cannot be encoded")]
    CannotEncode,
}

/// Writes a public key as the protobuf message that peers exchange and hash.
pub fn encode_public_key(key: &PublicKey) -> Vec<u8> {
    key.encode_protobuf()
}

/// Reads a public key. Only the canonical encoding is accepted.
pub fn decode_public_key(bytes: &[u8]) -> Result<PublicKey, KeyError> {
    check_len(bytes, MAX_KEY_LEN)?;
    let key = PublicKey::try_decode_protobuf(bytes).map_err(|_| KeyError::Malformed)?;
    check_rsa(&key)?;
    if key.encode_protobuf() == bytes { Ok(key) } else { Err(KeyError::NotCanonical) }
}

/// Writes a private key as the protobuf message that key files hold. RSA keys can be read only.
pub fn encode_private_key(keypair: &Keypair) -> Result<Vec<u8>, KeyError> {
    keypair.to_protobuf_encoding().map_err(|_| KeyError::CannotEncode)
}

/// Reads the private key in a key file, the old 96-byte form of Ed25519 keys included.
pub fn decode_private_key(bytes: &[u8]) -> Result<Keypair, KeyError> {
    check_len(bytes, MAX_PRIVATE_KEY_LEN)?;
    let mut message: pb::keys::PrivateKey = pb::decode(bytes).map_err(|_| KeyError::Malformed)?;
    if message.r#type == Some(pb::keys::KeyType::Ed25519 as i32) {
        strip_repeated_public_key(message.data.as_mut().ok_or(KeyError::Malformed)?)?;
    }
    let plain = pb::Message::encode_to_vec(&message);
    let keypair = Keypair::from_protobuf_encoding(&plain).map_err(|_| KeyError::Malformed)?;
    check_rsa(&keypair.public())?;
    Ok(keypair)
}

/// Why something is not a peer id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerIdError {
    /// The text has more than [`MAX_PEER_ID_TEXT`] bytes.
    #[error("peer id text of {0} bytes exceeds the limit of {MAX_PEER_ID_TEXT}")]
    TooLong(usize),
    /// The text is in no known base.
    #[error("peer id is neither base58 nor multibase text")]
    BadText,
    /// The text is a CID, but not one of version 1.
    #[error("peer id is not a version 1 CID")]
    BadCid,
    /// The text is a CID of something else than a key.
    #[error("CID is of codec {0:#x}, not of a libp2p key")]
    NotAKey(u64),
    /// The bytes are no multihash, or not one that a key's id can be.
    #[error("not the multihash of a key")]
    BadMultihash,
}

/// The multicodec of keys in CIDs.
const LIBP2P_KEY: u64 = 0x72;

/// The length of a SHA-256 digest in bytes, and the code of its multihash.
const SHA256_LEN: usize = 32;
const SHA256: u64 = 0x12;

/// Reads a peer id from text: base58, or a version 1 CID in any base.
pub fn parse_peer_id(text: &str) -> Result<PeerId, PeerIdError> {
    if text.len() > MAX_PEER_ID_TEXT {
        return Err(PeerIdError::TooLong(text.len()));
    }
    if text.starts_with('1') || text.starts_with("Qm") {
        let bytes = Base::Base58Btc.decode(text).map_err(|_| PeerIdError::BadText)?;
        return decode_peer_id(&bytes);
    }
    let (_, cid) = multibase::decode(text).map_err(|_| PeerIdError::BadText)?;
    let (version, rest) = split_varint(&cid)?;
    if version != 1 {
        return Err(PeerIdError::BadCid);
    }
    match split_varint(rest)? {
        (LIBP2P_KEY, multihash) => decode_peer_id(multihash),
        (codec, _) => Err(PeerIdError::NotAKey(codec)),
    }
}

/// The text of a peer id as a version 1 CID in base32. The usual text is its `Display`, base58.
pub fn peer_id_to_cid(peer: &PeerId) -> String {
    let mut cid = BytesMut::new();
    varint::encode(1, &mut cid);
    varint::encode(LIBP2P_KEY, &mut cid);
    cid.extend_from_slice(&peer.to_bytes());
    multibase::encode(Base::Base32Lower, cid)
}

/// Reads a binary peer id: a whole SHA-256 multihash, or an identity multihash of at most 42 bytes.
pub fn decode_peer_id(bytes: &[u8]) -> Result<PeerId, PeerIdError> {
    let peer = PeerId::from_bytes(bytes).map_err(|_| PeerIdError::BadMultihash)?;
    let hash = peer.as_ref();
    let truncated = hash.code() == SHA256 && hash.digest().len() != SHA256_LEN;
    if truncated || peer.to_bytes() != bytes { Err(PeerIdError::BadMultihash) } else { Ok(peer) }
}

fn split_varint(bytes: &[u8]) -> Result<(u64, &[u8]), PeerIdError> {
    let (value, len) = varint::decode(bytes).ok().flatten().ok_or(PeerIdError::BadCid)?;
    Ok((value, &bytes[len..]))
}

fn check_len(bytes: &[u8], most: usize) -> Result<(), KeyError> {
    if bytes.len() > most { Err(KeyError::TooLong(bytes.len())) } else { Ok(()) }
}

fn check_rsa(key: &PublicKey) -> Result<(), KeyError> {
    let Ok(rsa) = key.clone().try_into_rsa() else { return Ok(()) };
    let bits = rsa_bits(&rsa.encode_pkcs1()).ok_or(KeyError::Malformed)?;
    if RSA_BITS.contains(&bits) { Ok(()) } else { Err(KeyError::RsaSize(bits)) }
}

/// The bits of the modulus in a PKCS#1 `RSAPublicKey`: a DER sequence of two integers.
fn rsa_bits(der: &[u8]) -> Option<usize> {
    const SEQUENCE: u8 = 0x30;
    const INTEGER: u8 = 0x02;
    let (sequence, rest) = split_der(der, SEQUENCE)?;
    let (modulus, exponent) = split_der(sequence, INTEGER)?;
    let (_, end) = split_der(exponent, INTEGER)?;
    if !rest.is_empty() || !end.is_empty() || modulus.first()? & 0x80 != 0 {
        return None;
    }
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let top = modulus.get(zeros)?;
    Some(8 * (modulus.len() - zeros) - top.leading_zeros() as usize)
}

/// The content of the DER element with this tag at the start, and what follows it.
fn split_der(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = bytes.split_first_chunk()?;
    if found != tag {
        return None;
    }
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => {
            let (len, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*len)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(len)
}

/// Old Ed25519 files hold the public key twice; both must be the same.
fn strip_repeated_public_key(data: &mut Vec<u8>) -> Result<(), KeyError> {
    if data.len() == 96 {
        if data[32..64] != data[64..] {
            return Err(KeyError::Malformed);
        }
        data.truncate(64);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
