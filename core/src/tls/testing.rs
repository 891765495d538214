//! Identities for tests, one of each key type.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use libp2p_identity::{Keypair, ecdsa, secp256k1};

use super::{TlsIdentity, WallClock};
use crate::time::UnixTime;

/// 2026-01-01.
pub(super) const NOW: u64 = 1_767_225_600;

pub(super) fn rsa_pkcs8(size: KeySize) -> Vec<u8> {
    RsaKeyPair::generate(size).unwrap().as_der().unwrap().as_ref().to_vec()
}

pub(super) fn ed25519(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap()
}

pub(super) fn secp256k1(seed: u8) -> Keypair {
    secp256k1::Keypair::from(secp256k1::SecretKey::try_from_bytes([seed; 32]).unwrap()).into()
}

pub(super) fn identities() -> Vec<Keypair> {
    vec![
        ed25519(201),
        secp256k1(202),
        ecdsa::Keypair::from(ecdsa::SecretKey::try_from_bytes([203; 32]).unwrap()).into(),
        Keypair::rsa_from_pkcs8(&mut rsa_pkcs8(KeySize::Rsa2048)).unwrap(),
    ]
}

pub(super) fn tls_identity(keypair: &Keypair) -> TlsIdentity {
    TlsIdentity::new(keypair, WallClock::new(UnixTime::from_secs(NOW))).unwrap()
}
