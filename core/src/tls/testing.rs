//! Identities for tests, one of each key type.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use libp2p_identity::Keypair;

use super::{TlsIdentity, WallClock};

/// 2026-01-01.
pub(super) const NOW: u64 = 1_767_225_600;

pub(super) fn rsa_pkcs8(size: KeySize) -> Vec<u8> {
    RsaKeyPair::generate(size).unwrap().as_der().unwrap().as_ref().to_vec()
}

pub(super) fn identities() -> Vec<Keypair> {
    vec![
        Keypair::generate_ed25519(),
        Keypair::generate_secp256k1(),
        Keypair::generate_ecdsa(),
        Keypair::rsa_from_pkcs8(&mut rsa_pkcs8(KeySize::Rsa2048)).unwrap(),
    ]
}

pub(super) fn tls_identity(keypair: &Keypair) -> TlsIdentity {
    TlsIdentity::new(keypair, WallClock::new(NOW)).unwrap()
}
