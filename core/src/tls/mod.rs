//! libp2p TLS 1.3: who the peer is, proven inside the handshake (libp2p specs, `tls/tls.md`).
//!
//! A peer's long-lived identity key never signs TLS messages. Each process makes one throw-away P-256 key and a
//! self-signed certificate for it; an extension of that certificate carries the identity's public key and its
//! signature over the throw-away key. Certificate authorities, host names and SNI play no part.
//!
//! | file             | what it is                                                                     |
//! |------------------|--------------------------------------------------------------------------------|
//! | `certificate.rs` | make a certificate, check one: a pure function of (bytes, unix time)            |
//! | `der.rs`         | strict DER: minimal lengths, nothing left over                                  |
//! | `verifier.rs`    | the check as rustls wants it; a wrong peer fails *during* the handshake         |
//! | `config.rs`      | [`TlsIdentity`]: client and server configurations for QUIC and for streams      |
//! | `stream.rs`      | [`TlsStream`]: `/tls/1.0.0` over byte slices, for TCP and for relayed circuits  |
//!
//! ```text
//!   Keypair, WallClock ──> TlsIdentity ──client_config(expected, alpn)──> ClientConfig + Verdict
//!                                      ──server_config(expected, alpn)──> ServerConfig
//!                 QUIC:  quinn's handshake, then peer_id_of_verified(certificates)
//!                 bytes: TlsStream::client(config) / ::server(config), then peer()
//! ```
//!
//! Time is an input: certificates are made and checked against the [`WallClock`] its owner sets, never the system's
//! clock. Randomness is the one thing not injected: keys and nonces come from the provider's own generator (aws-lc),
//! so bytes on the wire differ from run to run and tests assert outcomes.
//!
//! A certificate is verified exactly once, during the handshake. One that expires a second later does not disturb
//! the connection, and reading the peer id afterwards checks no signature and no date again.

mod certificate;
mod config;
mod der;
mod stream;
#[cfg(test)]
mod testing;
mod verifier;

pub use certificate::{CertificateError, GenerateError, MAX_CERTIFICATE_LEN, peer_id_of_verified, verify};
pub use config::{ALPN_LIBP2P, ALPN_YAMUX, TlsIdentity, WallClock};
pub use stream::{PROTOCOL, TlsError, TlsStream};
pub use verifier::{PeerError, Verdict, WrongPeer, wrong_peer};
