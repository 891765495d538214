//! Keys; see the [peer id specification](https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md#keys).
//! [`crate::keys`] turns these messages into keys that can be used.

use super::Wire;

/// A public key.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PublicKey {
    /// A [`KeyType`].
    #[prost(int32, optional, tag = "1")]
    pub r#type: Option<i32>,
    /// The key, in the format of its type.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub data: Option<Vec<u8>>,
}

impl Wire for PublicKey {
    const MAX_FIELDS: usize = 2;
}

/// A private key as it is kept in files. Never sent.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub struct PrivateKey {
    /// A [`KeyType`].
    #[prost(int32, optional, tag = "1")]
    pub r#type: Option<i32>,
    /// The key, in the format of its type.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub data: Option<Vec<u8>>,
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PrivateKey").field("type", &self.r#type).finish_non_exhaustive()
    }
}

impl Wire for PrivateKey {
    const MAX_FIELDS: usize = 2;
}

/// The types of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum KeyType {
    /// RSA of 2048 to 8192 bits.
    Rsa = 0,
    /// Ed25519, the usual one.
    Ed25519 = 1,
    /// ECDSA over secp256k1.
    Secp256k1 = 2,
    /// ECDSA over P-256.
    Ecdsa = 3,
}
