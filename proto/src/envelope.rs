//! Signed envelopes, by which a statement of a peer can be passed on by others; see
//! [RFC 0002](https://github.com/libp2p/specs/blob/master/RFC/0002-signed-envelopes.md).

use crate::keys::{KeyError, Keypair, PublicKey, decode_public_key, encode_public_key};
use crate::pb::{self, DecodeError, Message as _};
use crate::varint;
use bytes::BytesMut;

/// The longest envelope accepted, in bytes.
pub const MAX_ENVELOPE_LEN: usize = 64 * 1024;

/// A payload with its type and the signature of a key's owner.
///
/// The payload is given out by [`verify`](Self::verify) only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    public_key: PublicKey,
    payload_type: Vec<u8>,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

/// Why bytes are not an envelope, or an envelope proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// There are more than [`MAX_ENVELOPE_LEN`] bytes.
    #[error("envelope of {0} bytes exceeds the limit of {MAX_ENVELOPE_LEN}")]
    TooLong(usize),
    /// The bytes are no envelope message.
    #[error("bad envelope: {0}")]
    Malformed(#[from] DecodeError),
    /// The signer's key is bad.
    #[error("bad key in envelope: {0}")]
    Key(#[from] KeyError),
    /// The payload is something else than expected.
    #[error("envelope holds another type of payload")]
    PayloadType,
    /// The signature is not the key's, of this payload in this domain.
    #[error("bad signature of envelope")]
    Signature,
    /// The key cannot sign.
    #[error("signing failed")]
    Signing,
}

impl Envelope {
    /// Signs a payload of a type for one purpose, the domain.
    pub fn sign(
        keypair: &Keypair,
        domain: &str,
        payload_type: &[u8],
        payload: Vec<u8>,
    ) -> Result<Self, EnvelopeError> {
        let signature = keypair
            .sign(&signed_bytes(domain, payload_type, &payload))
            .map_err(|_| EnvelopeError::Signing)?;
        Ok(Self { public_key: keypair.public(), payload_type: payload_type.to_vec(), payload, signature })
    }

    /// Writes the envelope as a protobuf message.
    pub fn encode(&self) -> Vec<u8> {
        pb::record::Envelope {
            public_key: encode_public_key(&self.public_key),
            payload_type: self.payload_type.clone(),
            payload: self.payload.clone(),
            signature: self.signature.clone(),
        }
        .encode_to_vec()
    }

    /// Reads an envelope. Nothing is proven yet.
    pub fn decode(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        if bytes.len() > MAX_ENVELOPE_LEN {
            return Err(EnvelopeError::TooLong(bytes.len()));
        }
        let message: pb::record::Envelope = pb::decode(bytes)?;
        Ok(Self {
            public_key: decode_public_key(&message.public_key)?,
            payload_type: message.payload_type,
            payload: message.payload,
            signature: message.signature,
        })
    }

    /// The key that is said to have signed.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// What the payload is said to be.
    pub fn payload_type(&self) -> &[u8] {
        &self.payload_type
    }

    /// Checks the type and the signature: the signer and what it signed.
    ///
    /// Whether the signer is the right one is the caller's to check.
    pub fn verify(&self, domain: &str, payload_type: &[u8]) -> Result<(&PublicKey, &[u8]), EnvelopeError> {
        if self.payload_type != payload_type {
            return Err(EnvelopeError::PayloadType);
        }
        let signed = signed_bytes(domain, payload_type, &self.payload);
        if self.public_key.verify(&signed, &self.signature) {
            Ok((&self.public_key, &self.payload))
        } else {
            Err(EnvelopeError::Signature)
        }
    }
}

/// What is signed: domain, type and payload, each with its length before it.
fn signed_bytes(domain: &str, payload_type: &[u8], payload: &[u8]) -> BytesMut {
    let parts = [domain.as_bytes(), payload_type, payload];
    let len: usize = parts.iter().map(|part| varint::MAX_LEN + part.len()).sum();
    let mut out = BytesMut::with_capacity(len);
    for part in parts {
        varint::encode(part.len() as u64, &mut out);
        out.extend_from_slice(part);
    }
    out
}

#[cfg(test)]
mod tests;
