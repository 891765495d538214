//! The certificate check as rustls calls it, for both sides, and how its refusal is recognised afterwards.

use std::fmt;
use std::sync::{Arc, OnceLock};

use libp2p_identity::PeerId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme, pki_types};

use super::certificate::{self, CertificateError, SCHEMES};
use super::config::signature_algorithms;
use crate::time::UnixTime;

/// Another peer answered than the one that was expected.
///
/// `Debug` leaves the expected peer out: the QUIC library puts the debug form into the close frame it sends, and the
/// stranger at the other end has no business knowing whom we looked for.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected peer {expected}, got {got}")]
pub struct WrongPeer {
    /// The peer that was dialled.
    pub expected: PeerId,
    /// The peer that proved its identity.
    pub got: PeerId,
}

impl fmt::Debug for WrongPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WrongPeer").field("got", &self.got).finish_non_exhaustive()
    }
}

/// Why a peer was refused during the handshake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// Its certificate breaks a rule.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// It is not the peer that was expected.
    #[error(transparent)]
    WrongPeer(Box<WrongPeer>),
}

impl PeerError {
    /// The refusal inside a rustls error, if it is one of ours.
    pub(super) fn find(error: &rustls::Error) -> Option<Self> {
        match error {
            rustls::Error::InvalidCertificate(rustls::CertificateError::Other(OtherError(inner))) => {
                inner.downcast_ref().cloned()
            }
            rustls::Error::NoCertificatesPresented => Some(CertificateError::NotOne(0).into()),
            _ => None,
        }
    }
}

impl From<PeerError> for rustls::Error {
    fn from(error: PeerError) -> Self {
        rustls::CertificateError::Other(OtherError(Arc::new(error))).into()
    }
}

/// The mismatch inside a rustls error, if that is why the handshake failed.
pub fn wrong_peer(error: &rustls::Error) -> Option<WrongPeer> {
    match PeerError::find(error)? {
        PeerError::WrongPeer(wrong) => Some(*wrong),
        PeerError::Certificate(_) => None,
    }
}

/// Where the verifier of *one* connection leaves its judgement.
///
/// QUIC passes on only an alert code and a text when a handshake fails; whoever dialled keeps this beside the
/// connection to learn why. Cheap to clone, all clones see the same judgement.
#[derive(Debug, Clone, Default)]
pub struct Verdict(Arc<OnceLock<Result<PeerId, PeerError>>>);

impl Verdict {
    /// The judgement on the peer's certificate, `None` until it arrives. The peer has proven to hold the
    /// certificate's key only when the handshake completes.
    pub fn get(&self) -> Option<&Result<PeerId, PeerError>> {
        self.0.get()
    }
}

/// Checks the other side's certificate, as client and as server.
#[derive(Debug)]
pub(super) struct PeerVerifier {
    expected: Option<PeerId>,
    verdict: Option<Verdict>,
}

impl PeerVerifier {
    /// Accepts `expected` only, or every peer if `None`; leaves its judgement in `verdict` if there is one.
    pub(super) fn new(expected: Option<PeerId>, verdict: Option<Verdict>) -> Self {
        Self { expected, verdict }
    }

    fn judge(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: pki_types::UnixTime,
    ) -> Result<(), rustls::Error> {
        let judgement = self.peer(certificate, intermediates, now);
        if let Some(Verdict(slot)) = &self.verdict {
            // A second handshake on the same configuration does not overwrite the first judgement.
            let _ = slot.set(judgement.clone());
        }
        Ok(judgement.map(|_| ())?)
    }

    fn peer(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: pki_types::UnixTime,
    ) -> Result<PeerId, PeerError> {
        if !intermediates.is_empty() {
            return Err(CertificateError::NotOne(1 + intermediates.len()).into());
        }
        let got = certificate::verify(std::slice::from_ref(certificate), UnixTime::from_secs(now.as_secs()))?;
        match self.expected {
            Some(expected) if expected != got => {
                Err(PeerError::WrongPeer(Box::new(WrongPeer { expected, got })))
            }
            _ => Ok(got),
        }
    }
}

/// That the other side holds the certificate's key: its signature over the handshake so far.
fn check_handshake_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    if !SCHEMES.contains(&signature.scheme) {
        return Err(rustls::PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
    }
    let key = certificate::public_key_info(certificate).map_err(PeerError::from)?;
    rustls::crypto::verify_tls13_signature_with_raw_key(
        message,
        &SubjectPublicKeyInfoDer::from(key),
        signature,
        &signature_algorithms(),
    )
}

fn refuse_tls12() -> rustls::Error {
    rustls::Error::General("libp2p TLS is TLS 1.3".to_owned())
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: pki_types::UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge(certificate, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(refuse_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        check_handshake_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: pki_types::UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.judge(certificate, intermediates, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(refuse_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        check_handshake_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}
