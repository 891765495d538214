//! Noise on the wire: its frames, and the payload that binds an identity to a Noise key; see the
//! [noise specification](https://github.com/libp2p/specs/blob/master/noise/README.md). The cipher is not here.

use crate::frame::Assembler;
use crate::keys::{KeyError, Keypair, PublicKey, decode_public_key, encode_public_key};
use crate::pb::{self, DecodeError, Message as _};
use bytes::{BufMut, Bytes, BytesMut};

/// What is signed before the static key, so that the signature means nothing elsewhere.
pub const SIGNATURE_DOMAIN: &str = "noise-libp2p-static-key:";

/// The longest Noise message, in bytes.
pub const MAX_MESSAGE: usize = u16::MAX as usize;

/// The longest signature accepted in a payload, in bytes: that of the largest RSA key.
pub const MAX_SIGNATURE_LEN: usize = 1024;

/// A Noise message is longer than its frame's two bytes of length can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("noise message of {0} bytes exceeds the limit of {MAX_MESSAGE}")]
pub struct MessageTooLong(pub usize);

/// Appends a Noise message to `out`, its length in two big-endian bytes before it.
pub fn encode_message(message: &[u8], out: &mut BytesMut) -> Result<(), MessageTooLong> {
    let len = u16::try_from(message.len()).map_err(|_| MessageTooLong(message.len()))?;
    out.put_u16(len);
    out.extend_from_slice(message);
    Ok(())
}

/// Cuts a stream into Noise messages. Every stream of bytes is one of messages, so nothing can fail.
#[derive(Debug, Default)]
pub struct MessageDecoder {
    input: Assembler,
}

impl MessageDecoder {
    /// A decoder at the start of a message.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next bytes of the stream.
    pub fn push(&mut self, chunk: Bytes) {
        self.input.push(chunk);
    }

    /// The next whole message, without its length; `None` until more bytes are pushed.
    pub fn next_message(&mut self) -> Option<Bytes> {
        loop {
            if let Ok(prefix) = <[u8; 2]>::try_from(self.input.prefix()) {
                return self.input.take_body(u16::from_be_bytes(prefix).into());
            }
            if !self.input.take_prefix_byte() {
                return None;
            }
        }
    }

    /// Takes back what was pushed and not returned, in order and byte for byte.
    pub fn take_rest(&mut self) -> Vec<Bytes> {
        self.input.take_rest()
    }

    /// How many bytes are held.
    pub fn buffered(&self) -> usize {
        self.input.len()
    }
}

/// What each side proves and offers in the encrypted part of its handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandshakePayload {
    identity_key: PublicKey,
    identity_sig: Vec<u8>,
    /// The stream muxers the sender supports, the preferred one first; empty if it offers none here.
    pub stream_muxers: Vec<String>,
    /// Certificate hashes of a WebTransport server, as multihashes.
    pub webtransport_certhashes: Vec<Vec<u8>>,
}

/// Why a payload is bad, or cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// The bytes are no payload message.
    #[error("bad noise payload: {0}")]
    Malformed(#[from] DecodeError),
    /// There is no identity key.
    #[error("noise payload without identity key")]
    NoKey,
    /// There is no signature.
    #[error("noise payload without signature")]
    NoSignature,
    /// The signature has more than [`MAX_SIGNATURE_LEN`] bytes.
    #[error("signature of {0} bytes exceeds the limit of {MAX_SIGNATURE_LEN}")]
    SignatureTooLong(usize),
    /// The identity key is bad.
    #[error("bad identity key in noise payload: {0}")]
    Key(#[from] KeyError),
    /// The signature is not the identity key's, of this static key.
    #[error("bad signature in noise payload")]
    Signature,
    /// The key cannot sign.
    #[error("signing failed")]
    Signing,
}

impl HandshakePayload {
    /// Binds `keypair`'s identity to a Noise static key, and offers nothing.
    pub fn new(keypair: &Keypair, static_key: &[u8; 32]) -> Result<Self, PayloadError> {
        let identity_sig = keypair.sign(&signed_bytes(static_key)).map_err(|_| PayloadError::Signing)?;
        Ok(Self {
            identity_key: keypair.public(),
            identity_sig,
            stream_muxers: Vec::new(),
            webtransport_certhashes: Vec::new(),
        })
    }

    /// Writes the payload as a protobuf message.
    pub fn encode(&self) -> Vec<u8> {
        let extensions = pb::noise::NoiseExtensions {
            webtransport_certhashes: self.webtransport_certhashes.clone(),
            stream_muxers: self.stream_muxers.clone(),
        };
        pb::noise::NoiseHandshakePayload {
            identity_key: Some(encode_public_key(&self.identity_key)),
            identity_sig: Some(self.identity_sig.clone()),
            extensions: (extensions != Default::default()).then_some(extensions),
        }
        .encode_to_vec()
    }

    /// Reads a payload. Nothing is proven yet.
    pub fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
        let message: pb::noise::NoiseHandshakePayload = pb::decode(bytes)?;
        let identity_sig = message.identity_sig.ok_or(PayloadError::NoSignature)?;
        if identity_sig.len() > MAX_SIGNATURE_LEN {
            return Err(PayloadError::SignatureTooLong(identity_sig.len()));
        }
        let extensions = message.extensions.unwrap_or_default();
        Ok(Self {
            identity_key: decode_public_key(&message.identity_key.ok_or(PayloadError::NoKey)?)?,
            identity_sig,
            stream_muxers: extensions.stream_muxers,
            webtransport_certhashes: extensions.webtransport_certhashes,
        })
    }

    /// The identity, if it has signed the static key that the handshake has shown.
    pub fn verify(&self, static_key: &[u8; 32]) -> Result<&PublicKey, PayloadError> {
        if self.identity_key.verify(&signed_bytes(static_key), &self.identity_sig) {
            Ok(&self.identity_key)
        } else {
            Err(PayloadError::Signature)
        }
    }
}

fn signed_bytes(static_key: &[u8; 32]) -> Vec<u8> {
    [SIGNATURE_DOMAIN.as_bytes(), static_key].concat()
}

#[cfg(test)]
mod tests;
