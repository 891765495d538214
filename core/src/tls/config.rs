//! rustls configurations for libp2p: TLS 1.3, both sides authenticated, no SNI, no resumption.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use libp2p_identity::{Keypair, PeerId};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ServerConfig, SupportedCipherSuite, pki_types};

use super::certificate::{self, GenerateError};
use super::verifier::{PeerVerifier, Verdict};
use crate::time::UnixTime;

/// ALPN of QUIC, and of streams whose muxer is negotiated afterwards (`tls/tls.md`, "ALPN").
pub const ALPN_LIBP2P: &[u8] = b"libp2p";

/// ALPN that settles on yamux within the handshake (`connections/inlined-muxer-negotiation.md`).
pub const ALPN_YAMUX: &[u8] = b"/yamux/1.0.0";

/// The time certificates are made and checked at. Its owner sets it; nothing here asks the system.
#[derive(Debug, Clone, Default)]
pub struct WallClock(Arc<AtomicU64>);

impl WallClock {
    /// A clock that stands at `now` until it is set.
    pub fn new(now: UnixTime) -> Self {
        Self(Arc::new(AtomicU64::new(now.as_secs())))
    }

    /// Sets the time for all clones, to the second.
    pub fn set(&self, now: UnixTime) {
        self.0.store(now.as_secs(), Ordering::Relaxed);
    }

    /// The time it was last set to.
    pub fn now(&self) -> UnixTime {
        UnixTime::from_secs(self.0.load(Ordering::Relaxed))
    }
}

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<pki_types::UnixTime> {
        Some(pki_types::UnixTime::since_unix_epoch(self.now().since_epoch()))
    }
}

/// One node's certificate, and the configurations made with it.
///
/// The certificate is made once: peers allow its reuse, and a fresh one per connection would cost two signatures
/// each.
#[derive(Debug, Clone)]
pub struct TlsIdentity {
    certified_key: Arc<CertifiedKey>,
    provider: Arc<CryptoProvider>,
    clock: WallClock,
}

impl TlsIdentity {
    /// Makes a certificate for `identity`, valid from an hour before the clock's present time.
    ///
    /// # Errors
    /// If the identity cannot sign or the certificate cannot be made.
    pub fn new(identity: &Keypair, clock: WallClock) -> Result<Self, GenerateError> {
        let (certificate, key) = certificate::generate(identity, clock.now())?;
        let key = aws_lc_rs::sign::any_ecdsa_type(&key)
            .map_err(|error| GenerateError::Certificate(error.to_string()))?;
        let certified_key = Arc::new(CertifiedKey::new(vec![certificate], key));
        Ok(Self { certified_key, provider: Arc::new(provider()), clock })
    }

    /// A configuration to dial *one* connection with, and where its verifier leaves its judgement. Any peer but
    /// `expected` fails the handshake; `None` accepts all. `alpn` is in order of preference.
    ///
    /// It fits [`TlsStream::client`](super::TlsStream::client) and, with [`ALPN_LIBP2P`], quinn's
    /// `QuicClientConfig`.
    pub fn client_config(&self, expected: Option<PeerId>, alpn: &[&[u8]]) -> (Arc<ClientConfig>, Verdict) {
        let verdict = Verdict::default();
        let verifier = PeerVerifier::new(expected, Some(verdict.clone()));
        let mut config =
            ClientConfig::builder_with_details(self.provider.clone(), Arc::new(self.clock.clone()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .expect("the provider has TLS 1.3 suites and key exchanges")
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
                .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(self.certified_key.clone())));
        config.alpn_protocols = owned(alpn);
        config.enable_sni = false;
        // A resumed session shows no certificate, so whom it belongs to would rest on the ticket alone.
        config.resumption = Resumption::disabled();
        (Arc::new(config), verdict)
    }

    /// A configuration to accept connections with, as many as wanted. Any peer but `expected` fails the handshake;
    /// `None` accepts all. `alpn` is in order of preference, and ours wins over the client's.
    pub fn server_config(&self, expected: Option<PeerId>, alpn: &[&[u8]]) -> Arc<ServerConfig> {
        let verifier = PeerVerifier::new(expected, None);
        let mut config =
            ServerConfig::builder_with_details(self.provider.clone(), Arc::new(self.clock.clone()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .expect("the provider has TLS 1.3 suites and key exchanges")
                .with_client_cert_verifier(Arc::new(verifier))
                .with_cert_resolver(Arc::new(SingleCertAndKey::from(self.certified_key.clone())));
        config.alpn_protocols = owned(alpn);
        config.ignore_client_order = true;
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Arc::new(config)
    }
}

/// The signature algorithms the provider can verify.
pub(super) fn signature_algorithms() -> WebPkiSupportedAlgorithms {
    aws_lc_rs::default_provider().signature_verification_algorithms
}

fn owned(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|protocol| protocol.to_vec()).collect()
}

/// aws-lc with the cheapest cipher suite for this CPU first. Never the process default, which is not ours.
fn provider() -> CryptoProvider {
    CryptoProvider { cipher_suites: cipher_suites(cpu_has_aes()), ..aws_lc_rs::default_provider() }
}

/// AES-128-GCM first where the CPU has instructions for it, ChaCha20 first elsewhere. QUIC needs AES-128-GCM to be
/// there for its Initial packets.
fn cipher_suites(cpu_has_aes: bool) -> Vec<SupportedCipherSuite> {
    let aes = [cipher_suite::TLS13_AES_128_GCM_SHA256, cipher_suite::TLS13_AES_256_GCM_SHA384];
    let chacha = [cipher_suite::TLS13_CHACHA20_POLY1305_SHA256];
    if cpu_has_aes { [&aes[..], &chacha].concat() } else { [&chacha[..], &aes].concat() }
}

fn cpu_has_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    false
}

#[cfg(test)]
mod tests {
    use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
    use rustls::CipherSuite;

    use super::super::testing::{NOW, ed25519, tls_identity};
    use super::*;

    fn names(suites: &[SupportedCipherSuite]) -> Vec<CipherSuite> {
        suites.iter().map(SupportedCipherSuite::suite).collect()
    }

    #[test]
    fn the_cheapest_suite_comes_first() {
        use CipherSuite::{TLS13_AES_128_GCM_SHA256 as AES_128, TLS13_AES_256_GCM_SHA384 as AES_256};
        let chacha = CipherSuite::TLS13_CHACHA20_POLY1305_SHA256;
        assert_eq!(names(&cipher_suites(true)), [AES_128, AES_256, chacha]);
        assert_eq!(names(&cipher_suites(false)), [chacha, AES_128, AES_256]);
    }

    #[test]
    fn the_servers_order_of_suites_wins() {
        let identity = |cpu_has_aes| {
            let mut identity = tls_identity(&ed25519(1));
            let suites = cipher_suites(cpu_has_aes);
            identity.provider = Arc::new(CryptoProvider { cipher_suites: suites, ..provider() });
            identity
        };
        for server_has_aes in [true, false] {
            let server = greeted(&identity(!server_has_aes), &identity(server_has_aes));
            let agreed = server.negotiated_cipher_suite().map(|suite| suite.suite());
            assert_eq!(agreed, names(&cipher_suites(server_has_aes)).first().copied());
        }
    }

    #[test]
    fn no_server_name_is_sent() {
        let identity = tls_identity(&ed25519(3));
        assert_eq!(greeted(&identity, &identity).server_name(), None);
    }

    /// A server that has answered the client's first message.
    fn greeted(client: &TlsIdentity, server: &TlsIdentity) -> rustls::ServerConnection {
        let name = pki_types::ServerName::try_from("peer.example").unwrap();
        let (config, _) = client.client_config(None, &[ALPN_LIBP2P]);
        let mut client = rustls::ClientConnection::new(config, name).unwrap();
        let mut server = rustls::ServerConnection::new(server.server_config(None, &[ALPN_LIBP2P])).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        server.read_tls(&mut &hello[..]).unwrap();
        server.process_new_packets().unwrap();
        server
    }

    #[test]
    fn quic_accepts_the_configurations() {
        let identity = tls_identity(&ed25519(2));
        let (client, _) = identity.client_config(None, &[ALPN_LIBP2P]);
        assert!(QuicClientConfig::try_from(client).is_ok());
        assert!(QuicServerConfig::try_from(identity.server_config(None, &[ALPN_LIBP2P])).is_ok());
    }

    #[test]
    fn all_clones_of_a_clock_show_the_same_time() {
        let clock = WallClock::new(UnixTime::from_secs(NOW));
        let clone = clock.clone();
        clock.set(UnixTime::from_secs(NOW + 1));
        assert_eq!(clone.current_time().map(|time| time.as_secs()), Some(NOW + 1));
    }
}
