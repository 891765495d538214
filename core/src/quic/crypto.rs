//! The seam between QUIC and its handshake: libp2p TLS in earnest, anything else in tests.

use std::{any::Any, sync::Arc};

use libp2p_identity::{Keypair, PeerId};
use quinn_proto::crypto::{
    ClientConfig, ServerConfig,
    rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::pki_types::CertificateDer;

use crate::{
    errors::CloseReason,
    tls::{self, ALPN_LIBP2P, GenerateError, PeerError, TlsIdentity, Verdict, WallClock},
};

/// A handshake that proves who the peer is.
pub trait QuicCrypto: Send + Sync {
    /// To dial one connection with. Any peer but `expected` must fail *during* the handshake; `None` accepts all.
    fn client(&self, expected: Option<PeerId>) -> ClientHandshake;

    /// To accept connections with, as many as come.
    fn server(&self) -> Arc<dyn ServerConfig>;

    /// Whom the session proved, given its `peer_identity` once the handshake is complete; `None` if nobody.
    fn peer_of(&self, identity: Box<dyn Any>) -> Option<PeerId>;
}

/// One dial's side of a handshake.
pub struct ClientHandshake {
    /// What the session is started from.
    pub config: Arc<dyn ClientConfig>,
    /// Why this side refused the peer, if it did. QUIC itself passes on only an alert code and a text.
    pub refusal: Box<dyn Fn() -> Option<CloseReason> + Send>,
}

/// The handshake of libp2p (libp2p specs, `tls/tls.md`).
#[derive(Debug)]
pub struct TlsCrypto {
    identity: TlsIdentity,
}

impl TlsCrypto {
    /// Makes a certificate for `identity`. Certificates are judged at the time `clock` was last set to.
    ///
    /// # Errors
    /// If the identity cannot sign or the certificate cannot be made.
    pub fn new(identity: &Keypair, clock: WallClock) -> Result<Self, GenerateError> {
        Ok(Self { identity: TlsIdentity::new(identity, clock)? })
    }
}

impl From<TlsIdentity> for TlsCrypto {
    fn from(identity: TlsIdentity) -> Self {
        Self { identity }
    }
}

const HAS_INITIAL_SUITE: &str = "the provider has AES-128-GCM, which Initial packets need";

impl QuicCrypto for TlsCrypto {
    fn client(&self, expected: Option<PeerId>) -> ClientHandshake {
        let (config, verdict) = self.identity.client_config(expected, &[ALPN_LIBP2P]);
        let config = QuicClientConfig::try_from(config).expect(HAS_INITIAL_SUITE);
        ClientHandshake { config: Arc::new(config), refusal: Box::new(move || refusal(&verdict)) }
    }

    fn server(&self) -> Arc<dyn ServerConfig> {
        let config = self.identity.server_config(None, &[ALPN_LIBP2P]);
        Arc::new(QuicServerConfig::try_from(config).expect(HAS_INITIAL_SUITE))
    }

    fn peer_of(&self, identity: Box<dyn Any>) -> Option<PeerId> {
        let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        tls::peer_id_of_verified(&chain)
    }
}

fn refusal(verdict: &Verdict) -> Option<CloseReason> {
    match verdict.get()?.as_ref().err()? {
        PeerError::WrongPeer(wrong) => {
            Some(CloseReason::WrongPeer { expected: wrong.expected, found: wrong.got })
        }
        error => Some(CloseReason::Handshake(error.to_string())),
    }
}
