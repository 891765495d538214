//! The libp2p certificate: making one, and checking a peer's (`tls/tls.md`, "Peer Authentication").

use std::time::Duration;

use libp2p_identity::{KeyType, Keypair, PeerId, PublicKey};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, PublicKeyData};
use rustls::SignatureScheme;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::certificate::{X509Certificate, X509CertificateParser};
use x509_parser::nom::Parser;
use x509_parser::prelude::X509Version;

use super::der;
use crate::time::UnixTime;

/// Longest certificate that is looked at, in bytes. One with the largest keys allowed (RSA, 8192 bits, twice) takes
/// under 5 KiB.
pub const MAX_CERTIFICATE_LEN: usize = 16 * 1024;

/// How a certificate's key may sign, both itself and the handshake: hashes of at least 256 bits, curves every libp2p
/// implementation has.
pub(super) const SCHEMES: &[SignatureScheme] = &[
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ED25519,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
];

/// Why a peer's certificate was refused: the rule of `tls/tls.md` or RFC 5280 that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The chain does not hold exactly one certificate.
    #[error("{0} certificates instead of one")]
    NotOne(usize),
    /// The certificate is longer than [`MAX_CERTIFICATE_LEN`].
    #[error("certificate of {0} bytes is too long")]
    TooLong(usize),
    /// The bytes are not one X.509 version 3 certificate in strict DER.
    #[error("malformed certificate")]
    Malformed,
    /// Bytes follow the certificate.
    #[error("{0} bytes after the certificate")]
    TrailingBytes(usize),
    /// A deprecated unique id of issuer or subject is present.
    #[error("certificate has a unique id")]
    UniqueId,
    /// The validity begins later than now. Unix seconds.
    #[error("certificate not valid before {not_before}, now is {now}")]
    NotYetValid {
        /// When it becomes valid.
        not_before: i64,
        /// The time it was checked at.
        now: u64,
    },
    /// The validity has ended. Unix seconds.
    #[error("certificate expired at {not_after}, now is {now}")]
    Expired {
        /// The last second it was valid.
        not_after: i64,
        /// The time it was checked at.
        now: u64,
    },
    /// A critical extension that is not libp2p's.
    #[error("unknown critical extension {0}")]
    UnknownCriticalExtension(String),
    /// No libp2p Public Key Extension.
    #[error("no libp2p extension")]
    MissingExtension,
    /// More than one libp2p Public Key Extension.
    #[error("more than one libp2p extension")]
    DuplicateExtension,
    /// The libp2p extension is not a strict `SignedKey`.
    #[error("malformed libp2p extension")]
    MalformedExtension,
    /// The identity key in the libp2p extension cannot be decoded, or has a type we do not know.
    #[error("identity key cannot be decoded")]
    IdentityKey,
    /// The identity is an RSA key shorter than 2048 or longer than 8192 bits.
    #[error("identity is an RSA key of {0} bits")]
    RsaKeySize(usize),
    /// The certificate's key or signature algorithm is not one we accept.
    #[error("certificate key or signature algorithm not accepted")]
    Algorithm,
    /// The certificate is not signed by its own key.
    #[error("certificate's self-signature is wrong")]
    SelfSignature,
    /// The identity did not sign this certificate's key.
    #[error("identity's signature over the certificate's key is wrong")]
    IdentitySignature,
}

/// Why no certificate could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// The identity key could not sign.
    #[error("identity key cannot sign")]
    Sign,
    /// The certificate's own key or the certificate could not be made.
    #[error("cannot make the certificate: {0}")]
    Certificate(String),
}

/// Verifies the chain a peer presented, as of `now`, and tells whose it is.
///
/// Cheap rules come first, signatures last. Call this once per connection, within the handshake; afterwards
/// [`peer_id_of_verified`] reads the peer id at no cost.
///
/// # Errors
/// The first rule that failed.
pub fn verify(chain: &[CertificateDer<'_>], now: UnixTime) -> Result<PeerId, CertificateError> {
    let [certificate] = chain else { return Err(CertificateError::NotOne(chain.len())) };
    let certificate = parse(certificate)?;
    check_validity(&certificate.x509, now)?;
    let signed_key = certificate.signed_key()?;
    let identity = signed_key.identity()?;
    certificate.check_self_signature()?;
    let message = signed_message(certificate.x509.tbs_certificate.subject_pki.raw);
    if !identity.verify(&message, signed_key.signature) {
        return Err(CertificateError::IdentitySignature);
    }
    Ok(identity.to_peer_id())
}

/// The peer a chain names, given that [`verify`] accepted this very chain during the handshake: nothing is checked
/// again. `None` for a chain that [`verify`] would not have accepted, as far as reading it shows.
pub fn peer_id_of_verified(chain: &[CertificateDer<'_>]) -> Option<PeerId> {
    let [certificate] = chain else { return None };
    let identity = parse(certificate).ok()?.signed_key().ok()?.identity().ok()?;
    Some(identity.to_peer_id())
}

/// The DER `SubjectPublicKeyInfo` of a certificate that [`verify`] accepted.
pub(super) fn public_key_info<'a>(certificate: &'a CertificateDer<'_>) -> Result<&'a [u8], CertificateError> {
    Ok(parse(certificate)?.x509.tbs_certificate.subject_pki.raw)
}

/// Makes a fresh P-256 key and a self-signed certificate that binds it to `identity`, valid from an hour
/// before `now`.
pub(super) fn generate(
    identity: &Keypair,
    now: UnixTime,
) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), GenerateError> {
    let failed = |error: rcgen::Error| GenerateError::Certificate(error.to_string());
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let signature =
        identity.sign(&signed_message(&key.subject_public_key_info())).map_err(|_| GenerateError::Sign)?;

    let mut params = CertificateParams::default();
    // The name of the specification's examples, the same for all: a name of our own could be used to track us.
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "libp2p.io");
    let now = now.as_secs();
    let at = |unix_seconds: u64| {
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(unix_seconds.min(LAST_SECOND))
    };
    params.not_before = at(now.saturating_sub(CLOCK_SKEW));
    params.not_after = at(now.saturating_add(LIFETIME));
    // Not critical: the specification leaves it open, and a general X.509 library can then still read the rest.
    params.custom_extensions.push(CustomExtension::from_oid_content(
        EXTENSION_OID,
        encode_signed_key(&identity.public().encode_protobuf(), &signature),
    ));
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok((certificate.into(), PrivatePkcs8KeyDer::from(key.serialize_der()).into()))
}

/// 1.3.6.1.4.1.53594.1.1, the libp2p Public Key Extension.
const EXTENSION_OID: &[u64] = &[1, 3, 6, 1, 4, 1, 53594, 1, 1];
const EXTENSION_OID_DER: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xa2, 0x5a, 0x01, 0x01];

const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// An RSA key of 8192 bits takes 1060 bytes; no other key comes near.
const MAX_IDENTITY_KEY_LEN: usize = 2048;

/// A peer's clock may be this far behind ours, in seconds.
const CLOCK_SKEW: u64 = 60 * 60;

/// 100 years, as go-libp2p and js-libp2p have it. Peers check the dates and limit nothing else, and a node that runs
/// for longer than a short validity would one day be refused by all. The key lives only as long as the process.
const LIFETIME: u64 = 100 * 365 * 24 * 60 * 60;

/// 9999-12-31T23:59:59Z, the last second X.509 can express.
const LAST_SECOND: u64 = 253_402_300_799;

/// What the identity signs.
fn signed_message(public_key_info: &[u8]) -> Vec<u8> {
    [b"libp2p-tls-handshake:", public_key_info].concat()
}

fn encode_signed_key(public_key: &[u8], signature: &[u8]) -> Vec<u8> {
    let fields = [der::write(der::OCTET_STRING, public_key), der::write(der::OCTET_STRING, signature)];
    der::write(der::SEQUENCE, &fields.concat())
}

/// `SignedKey`, the content of the libp2p extension.
struct SignedKey<'a> {
    /// Protobuf `PublicKey`.
    public_key: &'a [u8],
    signature: &'a [u8],
}

impl<'a> SignedKey<'a> {
    fn decode(extension: &'a [u8]) -> Result<Self, CertificateError> {
        let (public_key, signature) =
            der::pair(extension, der::OCTET_STRING).ok_or(CertificateError::MalformedExtension)?;
        Ok(Self { public_key, signature })
    }

    fn identity(&self) -> Result<PublicKey, CertificateError> {
        if self.public_key.len() > MAX_IDENTITY_KEY_LEN {
            return Err(CertificateError::IdentityKey);
        }
        let key =
            PublicKey::try_decode_protobuf(self.public_key).map_err(|_| CertificateError::IdentityKey)?;
        if key.key_type() == KeyType::RSA {
            check_rsa_size(key.clone())?;
        }
        Ok(key)
    }
}

fn check_rsa_size(key: PublicKey) -> Result<(), CertificateError> {
    let key = key.try_into_rsa().map_err(|_| CertificateError::IdentityKey)?.encode_pkcs1();
    let (modulus, _exponent) = der::pair(&key, der::INTEGER).ok_or(CertificateError::IdentityKey)?;
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let first_bits = modulus.get(zeros).map_or(0, |byte| byte.leading_zeros() as usize);
    let bits = (modulus.len() - zeros) * 8 - first_bits;
    if RSA_BITS.contains(&bits) { Ok(()) } else { Err(CertificateError::RsaKeySize(bits)) }
}

/// A certificate that was read but not verified.
struct Parsed<'a> {
    x509: X509Certificate<'a>,
    /// `tbsCertificate`, the bytes under the self-signature.
    signed: &'a [u8],
    /// Content of the outer `signatureAlgorithm`.
    algorithm: &'a [u8],
}

fn parse(certificate: &[u8]) -> Result<Parsed<'_>, CertificateError> {
    if certificate.len() > MAX_CERTIFICATE_LEN {
        return Err(CertificateError::TooLong(certificate.len()));
    }
    let (outer, rest) = der::read_tag(certificate, der::SEQUENCE).ok_or(CertificateError::Malformed)?;
    if !rest.is_empty() {
        return Err(CertificateError::TrailingBytes(rest.len()));
    }
    if !der::is_strict(outer.content) {
        return Err(CertificateError::Malformed);
    }
    let (signed, algorithm) = signed_parts(outer.content).ok_or(CertificateError::Malformed)?;
    let (_, x509) = X509CertificateParser::new()
        .with_deep_parse_extensions(false)
        .parse(certificate)
        .map_err(|_| CertificateError::Malformed)?;
    let tbs = &x509.tbs_certificate;
    if tbs.version != X509Version::V3 || tbs.signature != x509.signature_algorithm || !whole_bytes(&x509) {
        return Err(CertificateError::Malformed);
    }
    if tbs.issuer_uid.is_some() || tbs.subject_uid.is_some() {
        return Err(CertificateError::UniqueId);
    }
    Ok(Parsed { x509, signed, algorithm })
}

/// `tbsCertificate` and the content of `signatureAlgorithm`, out of the three fields of a certificate.
fn signed_parts(fields: &[u8]) -> Option<(&[u8], &[u8])> {
    let (signed, rest) = der::read_tag(fields, der::SEQUENCE)?;
    let (algorithm, rest) = der::read_tag(rest, der::SEQUENCE)?;
    der::only(rest, der::BIT_STRING)?;
    Some((signed.raw, algorithm.content))
}

/// Keys and signatures are whole bytes: no unused bits.
fn whole_bytes(x509: &X509Certificate<'_>) -> bool {
    x509.signature_value.unused_bits == 0
        && x509.tbs_certificate.subject_pki.subject_public_key.unused_bits == 0
}

/// Both ends of the validity belong to it (RFC 5280 section 4.1.2.5).
fn check_validity(x509: &X509Certificate<'_>, now: UnixTime) -> Result<(), CertificateError> {
    let not_before = x509.validity().not_before.timestamp();
    let not_after = x509.validity().not_after.timestamp();
    let now = now.as_secs();
    let instant = i64::try_from(now).unwrap_or(i64::MAX);
    if instant < not_before {
        Err(CertificateError::NotYetValid { not_before, now })
    } else if instant > not_after {
        Err(CertificateError::Expired { not_after, now })
    } else {
        Ok(())
    }
}

impl<'a> Parsed<'a> {
    /// The libp2p extension. Extensions we do not know are skipped, unless they are critical.
    fn signed_key(&self) -> Result<SignedKey<'a>, CertificateError> {
        let mut found = None;
        for extension in self.x509.tbs_certificate.extensions() {
            if extension.oid.as_bytes() == EXTENSION_OID_DER {
                if found.replace(extension.value).is_some() {
                    return Err(CertificateError::DuplicateExtension);
                }
            } else if extension.critical {
                return Err(CertificateError::UnknownCriticalExtension(extension.oid.to_string()));
            }
        }
        SignedKey::decode(found.ok_or(CertificateError::MissingExtension)?)
    }

    fn check_self_signature(&self) -> Result<(), CertificateError> {
        let key_info = &self.x509.tbs_certificate.subject_pki;
        let key_algorithm = der::only(key_info.raw, der::SEQUENCE)
            .and_then(|fields| der::read_tag(fields.content, der::SEQUENCE))
            .map(|(algorithm, _)| algorithm.content)
            .ok_or(CertificateError::Malformed)?;
        let WebPkiSupportedAlgorithms { mapping, .. } = super::config::signature_algorithms();
        let algorithm = mapping
            .iter()
            .filter(|(scheme, _)| SCHEMES.contains(scheme))
            .flat_map(|(_, algorithms)| algorithms.iter())
            .find(|known| {
                known.public_key_alg_id().as_ref() == key_algorithm
                    && known.signature_alg_id().as_ref() == self.algorithm
            })
            .ok_or(CertificateError::Algorithm)?;
        algorithm
            .verify_signature(&key_info.subject_public_key.data, self.signed, &self.x509.signature_value.data)
            .map_err(|_| CertificateError::SelfSignature)
    }
}

#[cfg(test)]
mod tests;
