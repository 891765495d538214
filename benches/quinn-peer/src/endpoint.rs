//! Sockets with a certificate.

use std::{net::SocketAddr, sync::Arc};

use libp2p_identity::Keypair;
use quinn::{
    ClientConfig, Connection, Endpoint, ServerConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    RootCertStore,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    version::TLS13,
};

use crate::Failure;

/// The name in the certificate.
const NAME: &str = "localhost";
/// RFC 8410 around the 32 bytes of an Ed25519 key.
const PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// A libp2p peer, which prints the address it listens at.
///
/// These configurations put ChaCha20 first, but leave the choice to the peers: to the client of one leg, and to the
/// server of the other if it insists. Peerless at both ends means AES-128 on both legs.
pub(crate) fn libp2p(listen: SocketAddr) -> Result<Endpoint, Failure> {
    let key = Keypair::generate_ed25519();
    let server = QuicServerConfig::try_from(libp2p_tls::make_server_config(&key)?)?;
    let client = QuicClientConfig::try_from(libp2p_tls::make_client_config(&key, None)?)?;
    let mut endpoint = Endpoint::server(ServerConfig::with_crypto(Arc::new(server)), listen)?;
    endpoint.set_default_client_config(ClientConfig::new(Arc::new(client)));
    let peer = format!("/p2p/{}", key.public().to_peer_id());
    announce(&endpoint, &peer)?;
    Ok(endpoint)
}

/// A server that speaks AES-128, and prints the address it listens at.
pub(crate) fn server(listen: SocketAddr) -> Result<Endpoint, Failure> {
    let (certificate, key) = certificate()?;
    let tls = rustls::ServerConfig::builder_with_provider(aes())
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.into())?;
    let server = QuicServerConfig::try_from(tls)?;
    let endpoint = Endpoint::server(ServerConfig::with_crypto(Arc::new(server)), listen)?;
    announce(&endpoint, "")?;
    Ok(endpoint)
}

/// A connection to such a server.
pub(crate) async fn connect(to: SocketAddr) -> Result<(Endpoint, Connection), Failure> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate()?.0)?;
    let tls = rustls::ClientConfig::builder_with_provider(aes())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = QuicClientConfig::try_from(tls)?;
    let mut endpoint = Endpoint::client(SocketAddr::new(to.ip(), 0))?;
    endpoint.set_default_client_config(ClientConfig::new(Arc::new(client)));
    let connection = endpoint.connect(to, NAME)?.await?;
    Ok((endpoint, connection))
}

/// The same in every process, as Ed25519 needs no randomness: everybody can have this key.
fn certificate() -> Result<(CertificateDer<'static>, PrivatePkcs8KeyDer<'static>), Failure> {
    let key = PrivatePkcs8KeyDer::from([&PKCS8[..], &[7; 32]].concat());
    let pair = KeyPair::from_pkcs8_der_and_sign_algo(&key, &rcgen::PKCS_ED25519)?;
    let certificate = CertificateParams::new([NAME.to_owned()])?.self_signed(&pair)?;
    Ok((certificate.der().clone(), key))
}

fn aes() -> Arc<CryptoProvider> {
    let cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    Arc::new(CryptoProvider { cipher_suites, ..aws_lc_rs::default_provider() })
}

fn announce(endpoint: &Endpoint, peer: &str) -> Result<(), Failure> {
    let local = endpoint.local_addr()?;
    let family = if local.is_ipv4() { "ip4" } else { "ip6" };
    let (ip, port) = (local.ip(), local.port());
    println!(r#"{{"event":"listening","address":"/{family}/{ip}/udp/{port}/quic-v1{peer}"}}"#);
    Ok(())
}
