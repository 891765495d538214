//! TLS and Noise behind one face.

use bytes::{Buf as _, Bytes};
use libp2p_identity::{Keypair, PeerId};

use super::{noise, noise::Noise, noise::NoiseError, yamux};
use crate::{
    errors::UpgradeError,
    names::UpgradeRole,
    tls::{self, ALPN_LIBP2P, ALPN_YAMUX, PeerError, TlsError, TlsIdentity, TlsStream, WrongPeer},
};

/// A protocol that secures a byte pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// TLS 1.3 with libp2p certificates.
    Tls,
    /// Noise XX.
    Noise,
}

impl Security {
    /// Its name in multistream-select.
    pub const fn protocol(self) -> &'static str {
        match self {
            Self::Tls => tls::PROTOCOL,
            Self::Noise => noise::PROTOCOL,
        }
    }
}

/// What a node proves its identity with.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Signs Noise keys.
    pub keypair: Keypair,
    /// The certificate.
    pub tls: TlsIdentity,
}

/// A pipe that is being, or is, secured.
#[derive(Debug)]
pub(super) enum Secure {
    Tls(Box<TlsStream>),
    Noise(Box<Noise>),
}

impl Secure {
    pub(super) fn new(
        security: Security,
        role: UpgradeRole,
        credentials: &Credentials,
        expected: Option<PeerId>,
        seed: [u8; 32],
    ) -> Result<Self, Box<UpgradeError>> {
        let alpn = [ALPN_YAMUX, ALPN_LIBP2P];
        Ok(match (security, role) {
            (Security::Tls, UpgradeRole::Initiator) => {
                let (config, _) = credentials.tls.client_config(expected, &alpn);
                Self::Tls(Box::new(TlsStream::client(config).map_err(tls_failed)?))
            }
            (Security::Tls, UpgradeRole::Responder) => {
                let config = credentials.tls.server_config(expected, &alpn);
                Self::Tls(Box::new(TlsStream::server(config).map_err(tls_failed)?))
            }
            (Security::Noise, role) => {
                let noise = Noise::new(role, &credentials.keypair, expected, seed, &[yamux::PROTOCOL]);
                Self::Noise(Box::new(noise.map_err(noise_failed)?))
            }
        })
    }

    pub(super) const fn security(&self) -> Security {
        match self {
            Self::Tls(_) => Security::Tls,
            Self::Noise(_) => Security::Noise,
        }
    }

    /// Takes ciphertext off the front of `bytes`, nothing while plaintext waits to be read.
    pub(super) fn handle_bytes(&mut self, bytes: &mut Bytes) -> Result<(), Box<UpgradeError>> {
        match self {
            Self::Tls(tls) => {
                let taken = tls.handle_bytes(bytes).map_err(tls_failed)?;
                bytes.advance(taken);
                Ok(())
            }
            Self::Noise(noise) => noise.handle_bytes(bytes).map_err(noise_failed),
        }
    }

    pub(super) fn read(&mut self, max: usize) -> Option<Bytes> {
        match self {
            Self::Tls(tls) => tls.read(max),
            Self::Noise(noise) => noise.read(max),
        }
    }

    pub(super) fn write(&mut self, plaintext: &[u8]) -> usize {
        match self {
            Self::Tls(tls) => tls.write(plaintext),
            Self::Noise(noise) => noise.write(plaintext),
        }
    }

    pub(super) fn poll_transmit(&mut self) -> Option<Bytes> {
        match self {
            Self::Tls(tls) => tls.poll_transmit(),
            Self::Noise(noise) => noise.poll_transmit(),
        }
    }

    /// Who the remote is, once the handshake is complete.
    pub(super) fn peer(&self) -> Option<PeerId> {
        match self {
            Self::Tls(tls) => tls.peer(),
            Self::Noise(noise) => noise.peer(),
        }
    }

    /// Whether the handshake has settled on yamux.
    pub(super) fn has_agreed_on_yamux(&self) -> bool {
        match self {
            Self::Tls(tls) => tls.alpn() == Some(ALPN_YAMUX),
            Self::Noise(noise) => noise.muxer() == Some(yamux::PROTOCOL),
        }
    }

    /// Says that we send nothing more, where the protocol has words for it.
    pub(super) fn close(&mut self) {
        if let Self::Tls(tls) = self {
            tls.close();
        }
    }

    /// Whether the remote said so.
    pub(super) fn is_peer_closed(&self) -> bool {
        matches!(self, Self::Tls(tls) if tls.peer_closed())
    }
}

fn tls_failed(error: TlsError) -> Box<UpgradeError> {
    match error {
        TlsError::Peer(PeerError::WrongPeer(wrong)) => wrong_peer(*wrong),
        error => Box::new(UpgradeError::Handshake(error.to_string())),
    }
}

fn noise_failed(error: NoiseError) -> Box<UpgradeError> {
    match error {
        NoiseError::WrongPeer(wrong) => wrong_peer(*wrong),
        error => Box::new(UpgradeError::Handshake(format!("Noise: {error}"))),
    }
}

fn wrong_peer(WrongPeer { expected, got }: WrongPeer) -> Box<UpgradeError> {
    Box::new(UpgradeError::WrongPeer { expected, found: got })
}
