//! Every rule of `tls/tls.md` kept and broken, one at a time.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{self as sig, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use proptest::prelude::*;
use rustls::pki_types::{AlgorithmIdentifier, alg_id};

use super::super::testing::{NOW, ed25519, identities, rsa_pkcs8, secp256k1};
use super::*;

fn verify(chain: &[CertificateDer<'_>], now: u64) -> Result<PeerId, CertificateError> {
    super::verify(chain, UnixTime::from_secs(now))
}

fn generate_at(identity: &Keypair, now: u64) -> CertificateDer<'static> {
    generate(identity, UnixTime::from_secs(now)).unwrap().0
}

/// Signs a message with a certificate's key.
type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

/// A certificate assembled by hand, so that each part of it can be wrong; signed over whatever it holds.
struct Draft {
    version: Vec<u8>,
    key_info: Vec<u8>,
    algorithm: Vec<u8>,
    inner_algorithm: Option<Vec<u8>>,
    not_before: &'static str,
    not_after: &'static str,
    unique_id: Vec<u8>,
    unused_bits: u8,
    extensions: Vec<Vec<u8>>,
    junk: Vec<u8>,
    sign: Sign,
}

/// A key's `SubjectPublicKeyInfo`, the algorithm it signs with, and how.
type Signer = (Vec<u8>, AlgorithmIdentifier, Sign);

fn ecdsa(algorithm: &'static sig::EcdsaSigningAlgorithm, id: AlgorithmIdentifier) -> Signer {
    let key = EcdsaKeyPair::generate(algorithm).unwrap();
    let info = key.public_key().as_der().unwrap().as_ref().to_vec();
    (info, id, Box::new(move |m| key.sign(&SystemRandom::new(), m).unwrap().as_ref().to_vec()))
}

fn p256() -> Signer {
    ecdsa(&sig::ECDSA_P256_SHA256_ASN1_SIGNING, alg_id::ECDSA_SHA256)
}

fn ed25519_signer() -> Signer {
    let key = Ed25519KeyPair::generate().unwrap();
    let info = key.public_key().as_der().unwrap().as_ref().to_vec();
    (info, alg_id::ED25519, Box::new(move |m| key.sign(m).as_ref().to_vec()))
}

fn rsa(encoding: &'static dyn sig::RsaEncoding, id: AlgorithmIdentifier) -> Signer {
    let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let info = key.public_key().as_der().unwrap().as_ref().to_vec();
    let sign = move |m: &[u8]| {
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(encoding, &SystemRandom::new(), m, &mut signature).unwrap();
        signature
    };
    (info, id, Box::new(sign))
}

fn extension(oid: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical { der::write(1, &[0xff]) } else { Vec::new() };
    der::write(der::SEQUENCE, &[der::write(6, oid), critical, der::write(der::OCTET_STRING, value)].concat())
}

fn libp2p_extension(identity: &Keypair, key_info: &[u8]) -> Vec<u8> {
    let signature = identity.sign(&signed_message(key_info)).unwrap();
    let value = encode_signed_key(&identity.public().encode_protobuf(), &signature);
    extension(EXTENSION_OID_DER, false, &value)
}

impl Draft {
    fn new(identity: &Keypair, (key_info, algorithm, sign): Signer) -> Self {
        Self {
            version: der::write(0xa0, &der::write(der::INTEGER, &[2])),
            extensions: vec![libp2p_extension(identity, &key_info)],
            key_info,
            algorithm: der::write(der::SEQUENCE, algorithm.as_ref()),
            inner_algorithm: None,
            not_before: "20260101000000Z",
            not_after: "20260101010000Z",
            unique_id: Vec::new(),
            unused_bits: 0,
            junk: Vec::new(),
            sign,
        }
    }

    fn good() -> Self {
        Self::new(&ed25519(1), p256())
    }

    fn der(&self) -> CertificateDer<'static> {
        let time = |text: &str| der::write(0x18, text.as_bytes());
        let name = der::write(der::SEQUENCE, &[]);
        let signed = der::write(
            der::SEQUENCE,
            &[
                self.version.clone(),
                der::write(der::INTEGER, &[1]),
                self.inner_algorithm.clone().unwrap_or_else(|| self.algorithm.clone()),
                name.clone(),
                der::write(der::SEQUENCE, &[time(self.not_before), time(self.not_after)].concat()),
                name,
                self.key_info.clone(),
                self.unique_id.clone(),
                der::write(0xa3, &der::write(der::SEQUENCE, &self.extensions.concat())),
                self.junk.clone(),
            ]
            .concat(),
        );
        let signature = [vec![self.unused_bits], (self.sign)(&signed)].concat();
        let fields = [signed, self.algorithm.clone(), der::write(der::BIT_STRING, &signature)];
        der::write(der::SEQUENCE, &fields.concat()).into()
    }

    fn verify(&self) -> Result<PeerId, CertificateError> {
        verify(&[self.der()], NOW)
    }
}

fn refused(change: impl FnOnce(&mut Draft)) -> CertificateError {
    let mut draft = Draft::good();
    change(&mut draft);
    draft.verify().unwrap_err()
}

fn bytes(hex: &str) -> CertificateDer<'static> {
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect::<Vec<_>>().into()
}

#[test]
fn the_vectors_of_the_specification() {
    let peer = |hex| verify(&[bytes(hex)], NOW).map(|peer| peer.to_base58());
    assert_eq!(peer(ED25519).unwrap(), "12D3KooWM6CgA9iBFZmcYAHA6A2qvbAxqfkmrYiRQuz3XEsk4Ksv");
    assert_eq!(peer(ECDSA).unwrap(), "QmfXbAwNjJLXfesgztEHe8HwgVDCMMpZ9Eax1HYq6hn9uE");
    assert_eq!(peer(SECP256K1).unwrap(), "16Uiu2HAkutTMoTzDw1tCvSRtu6YoixJwS46S1ZFxW8hSx9fWHiPs");
    assert_eq!(peer(WRONG_SIGNER).unwrap_err(), CertificateError::IdentitySignature);
}

#[test]
fn our_own_certificates_are_good_for_every_identity_and_name_nobody() {
    for identity in identities() {
        let peer = identity.public().to_peer_id();
        let chain = [generate_at(&identity, NOW)];
        assert_eq!(verify(&chain, NOW), Ok(peer));
        assert_eq!(verify(&chain, NOW - 3600), Ok(peer));
        assert_eq!(verify(&chain, NOW + LIFETIME), Ok(peer));
        assert!(matches!(verify(&chain, NOW - 3601), Err(CertificateError::NotYetValid { .. })));
        assert!(matches!(verify(&chain, NOW + LIFETIME + 1), Err(CertificateError::Expired { .. })));
        let certificate = parse(&chain[0]).unwrap();
        assert_eq!(certificate.x509.subject().to_string(), "O=libp2p.io");
    }
}

#[test]
fn certificates_can_be_made_at_any_time() {
    let identity = ed25519(2);
    for now in [0, 2_524_607_999, LAST_SECOND] {
        let chain = [generate_at(&identity, now)];
        assert_eq!(verify(&chain, now), Ok(identity.public().to_peer_id()), "{now}");
    }
    assert!(generate(&identity, UnixTime::from_secs(u64::MAX)).is_ok());
}

#[test]
fn every_accepted_key_may_sign_the_certificate() {
    let identity = ed25519(3);
    for signer in [
        p256(),
        ecdsa(&sig::ECDSA_P384_SHA384_ASN1_SIGNING, alg_id::ECDSA_SHA384),
        ed25519_signer(),
        rsa(&sig::RSA_PKCS1_SHA256, alg_id::RSA_PKCS1_SHA256),
        rsa(&sig::RSA_PKCS1_SHA512, alg_id::RSA_PKCS1_SHA512),
        rsa(&sig::RSA_PSS_SHA256, alg_id::RSA_PSS_SHA256),
        rsa(&sig::RSA_PSS_SHA384, alg_id::RSA_PSS_SHA384),
    ] {
        assert_eq!(Draft::new(&identity, signer).verify(), Ok(identity.public().to_peer_id()));
    }
}

#[test]
fn other_keys_may_not_sign_the_certificate() {
    let identity = ed25519(4);
    for signer in [
        ecdsa(&sig::ECDSA_P256K1_SHA256_ASN1_SIGNING, alg_id::ECDSA_SHA256),
        ecdsa(&sig::ECDSA_P521_SHA512_ASN1_SIGNING, alg_id::ECDSA_SHA512),
    ] {
        assert_eq!(Draft::new(&identity, signer).verify(), Err(CertificateError::Algorithm));
    }
}

#[test]
fn exactly_one_certificate() {
    let good = Draft::good().der();
    assert_eq!(verify(&[], NOW), Err(CertificateError::NotOne(0)));
    assert_eq!(verify(&[good.clone(), good.clone()], NOW), Err(CertificateError::NotOne(2)));
    assert!(verify(&[good], NOW).is_ok());
}

#[test]
fn both_ends_of_the_validity_belong_to_it() {
    let chain = [Draft::good().der()];
    let (not_before, not_after) = (NOW as i64, NOW as i64 + 3600);
    assert_eq!(verify(&chain, NOW - 1), Err(CertificateError::NotYetValid { not_before, now: NOW - 1 }));
    assert!(verify(&chain, NOW).is_ok());
    assert!(verify(&chain, NOW + 3600).is_ok());
    assert_eq!(verify(&chain, NOW + 3601), Err(CertificateError::Expired { not_after, now: NOW + 3601 }));
    assert!(matches!(verify(&chain, u64::MAX), Err(CertificateError::Expired { .. })));
}

#[test]
fn the_peer_id_is_readable_after_the_certificate_expired() {
    let identity = ed25519(5);
    let chain = [Draft::new(&identity, p256()).der()];
    assert!(verify(&chain, NOW + 4000).is_err());
    assert_eq!(peer_id_of_verified(&chain), Some(identity.public().to_peer_id()));
    assert_eq!(peer_id_of_verified(&[]), None);
}

#[test]
fn the_extension_is_there_exactly_once() {
    assert_eq!(refused(|d| d.extensions.clear()), CertificateError::MissingExtension);
    let wrong_oid = [0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xa2, 0x5a, 0x01, 0x02];
    let wrong = |d: &mut Draft| d.extensions = vec![extension(&wrong_oid, false, &[])];
    assert_eq!(refused(wrong), CertificateError::MissingExtension);
    let twice = |d: &mut Draft| d.extensions.push(d.extensions[0].clone());
    assert_eq!(refused(twice), CertificateError::DuplicateExtension);
}

#[test]
fn unknown_extensions_are_ignored_unless_critical() {
    let mut draft = Draft::good();
    draft.extensions.push(extension(&[0x2a, 0x03], false, b"not even DER"));
    assert!(draft.verify().is_ok());
    // Key usage too: nothing but our own extension is understood.
    for oid in [&[0x2a, 0x03][..], &[0x55, 0x1d, 0x0f]] {
        let critical = |d: &mut Draft| d.extensions.push(extension(oid, true, &[3, 2, 7, 0x80]));
        assert!(matches!(refused(critical), CertificateError::UnknownCriticalExtension(_)));
    }
    let unknown = |d: &mut Draft| d.extensions.insert(0, extension(&[0x2a, 0x03], true, &[]));
    assert_eq!(refused(unknown), CertificateError::UnknownCriticalExtension("1.2.3".to_owned()));
}

#[test]
fn the_extension_may_be_critical() {
    let identity = secp256k1(6);
    let mut draft = Draft::new(&identity, p256());
    let signature = identity.sign(&signed_message(&draft.key_info)).unwrap();
    let value = encode_signed_key(&identity.public().encode_protobuf(), &signature);
    draft.extensions = vec![extension(EXTENSION_OID_DER, true, &value)];
    assert_eq!(draft.verify(), Ok(identity.public().to_peer_id()));
}

#[test]
fn the_extension_is_strict() {
    let with = |value: Vec<u8>| refused(|d| d.extensions = vec![extension(EXTENSION_OID_DER, false, &value)]);
    let one = der::write(der::OCTET_STRING, b"key");
    for value in [
        vec![],
        one.clone(),
        der::write(der::SEQUENCE, &one),
        der::write(der::SEQUENCE, &[&one[..], &one, &one].concat()),
        [der::write(der::SEQUENCE, &[&one[..], &one].concat()), vec![0]].concat(),
        der::write(der::SEQUENCE, &[&[0x04, 0x81, 1, 7][..], &one].concat()),
    ] {
        assert_eq!(with(value), CertificateError::MalformedExtension);
    }
    for key in [&b"key"[..], &[], &[8, 9, 18, 1, 0], &[8, 1, 18, 2, 1, 1], &[0; MAX_IDENTITY_KEY_LEN + 1]] {
        assert_eq!(with(encode_signed_key(key, b"signature")), CertificateError::IdentityKey, "{key:?}");
    }
}

#[test]
fn rsa_identities_have_2048_to_8192_bits() {
    let with_modulus = |first: u8, len: usize| {
        let modulus = [vec![0, first], vec![0x55; len - 1]].concat();
        let modulus = if first & 0x80 == 0 { modulus[1..].to_vec() } else { modulus };
        let numbers = [der::write(der::INTEGER, &modulus), der::write(der::INTEGER, &[1, 0, 1])].concat();
        let key = [vec![0], der::write(der::SEQUENCE, &numbers)].concat();
        let algorithm = der::write(der::SEQUENCE, alg_id::RSA_ENCRYPTION.as_ref());
        let info = der::write(der::SEQUENCE, &[algorithm, der::write(der::BIT_STRING, &key)].concat());
        let len = u16::try_from(info.len()).unwrap();
        let len = [(len & 0x7f) as u8 | 0x80, (len >> 7) as u8];
        let key = [&[8, 0, 18][..], &len, &info].concat();
        let value = encode_signed_key(&key, b"signature");
        refused(|d| d.extensions = vec![extension(EXTENSION_OID_DER, false, &value)])
    };
    assert_eq!(with_modulus(0x80, 128), CertificateError::RsaKeySize(1024));
    assert_eq!(with_modulus(0x7f, 256), CertificateError::RsaKeySize(2047));
    assert_eq!(with_modulus(0x80, 256), CertificateError::IdentitySignature);
    assert_eq!(with_modulus(0x80, 1024), CertificateError::IdentitySignature);
    assert_eq!(with_modulus(0x01, 1025), CertificateError::RsaKeySize(8193));

    let identity = Keypair::rsa_from_pkcs8(&mut rsa_pkcs8(KeySize::Rsa4096)).unwrap();
    assert_eq!(Draft::new(&identity, p256()).verify(), Ok(identity.public().to_peer_id()));
}

#[test]
fn the_identity_signed_this_very_key() {
    let identity = ed25519(7);
    let (other_key, ..) = p256();
    let stolen = |d: &mut Draft| d.extensions = vec![libp2p_extension(&identity, &other_key)];
    assert_eq!(refused(stolen), CertificateError::IdentitySignature);
    let unprefixed = |d: &mut Draft| {
        let signature = identity.sign(&d.key_info).unwrap();
        let value = encode_signed_key(&identity.public().encode_protobuf(), &signature);
        d.extensions = vec![extension(EXTENSION_OID_DER, false, &value)];
    };
    assert_eq!(refused(unprefixed), CertificateError::IdentitySignature);
}

#[test]
fn the_certificate_signed_itself() {
    let (_, _, other) = p256();
    assert_eq!(refused(|d| d.sign = other), CertificateError::SelfSignature);
    assert_eq!(refused(|d| d.sign = Box::new(|_| Vec::new())), CertificateError::SelfSignature);
    let sha512 = der::write(der::SEQUENCE, alg_id::ECDSA_SHA512.as_ref());
    assert_eq!(refused(|d| d.algorithm = sha512.clone()), CertificateError::Algorithm);
    assert_eq!(refused(|d| d.inner_algorithm = Some(sha512)), CertificateError::Malformed);
}

#[test]
fn only_version_3_without_unique_ids() {
    assert_eq!(refused(|d| d.version.clear()), CertificateError::Malformed);
    let version_2 = der::write(0xa0, &der::write(der::INTEGER, &[1]));
    assert_eq!(refused(|d| d.version = version_2), CertificateError::Malformed);
    for tag in [0x81, 0x82] {
        assert_eq!(refused(|d| d.unique_id = der::write(tag, &[0, 1])), CertificateError::UniqueId);
    }
}

#[test]
fn nothing_is_left_over() {
    let good = Draft::good().der();
    let longer = [&good[..], &[0, 0]].concat();
    assert_eq!(verify(&[longer.into()], NOW), Err(CertificateError::TrailingBytes(2)));
    let junk = der::write(der::OCTET_STRING, b"junk");
    assert_eq!(refused(|d| d.junk = junk), CertificateError::Malformed);
    let long = vec![der::SEQUENCE; MAX_CERTIFICATE_LEN + 1];
    assert_eq!(verify(&[long.into()], NOW), Err(CertificateError::TooLong(MAX_CERTIFICATE_LEN + 1)));
}

#[test]
fn lengths_are_shortest_and_bits_come_in_bytes() {
    let long_length = |d: &mut Draft| d.version = vec![0xa0, 0x81, 3, 2, 1, 2];
    assert_eq!(refused(long_length), CertificateError::Malformed);
    let long_length = |d: &mut Draft| d.extensions.push(vec![0x30, 0x81, 6, 6, 2, 0x2a, 3, 4, 0]);
    assert_eq!(refused(long_length), CertificateError::Malformed);
    for bits in 1..8 {
        assert_eq!(refused(|d| d.unused_bits = bits), CertificateError::Malformed);
    }
    let identity = ed25519(8);
    // An even key: the bit declared unused is zero, as DER wants it.
    let even = |signer: &Signer| signer.0.last().is_some_and(|byte| byte % 2 == 0);
    let (mut key_info, algorithm, sign) = std::iter::repeat_with(p256).find(even).unwrap();
    let unused_bits = key_info.len() - 66;
    assert_eq!(key_info[unused_bits..unused_bits + 2], [0, 4]);
    key_info[unused_bits] = 1;
    let draft = Draft::new(&identity, (key_info, algorithm, sign));
    assert_eq!(draft.verify(), Err(CertificateError::Malformed));
}

#[test]
fn no_cut_and_no_flipped_byte_is_accepted() {
    let good = Draft::good().der();
    for len in 0..good.len() {
        let cut = CertificateDer::from_slice(&good[..len]);
        assert_eq!(verify(&[cut], NOW), Err(CertificateError::Malformed), "cut at {len}");
    }
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut flipped = good.to_vec();
            flipped[at] ^= 1 << bit;
            assert!(verify(&[flipped.into()], NOW).is_err(), "bit {bit} of byte {at}");
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = verify(&[CertificateDer::from(bytes.clone())], NOW);
        let sequence = der::write(der::SEQUENCE, &bytes);
        let _ = verify(&[CertificateDer::from(sequence)], NOW);
    }

    #[test]
    fn no_mangled_certificate_panics(at in 0..430usize, with in prop::collection::vec(any::<u8>(), 1..8)) {
        let mut mangled = bytes(ED25519).to_vec();
        let end = (at + with.len()).min(mangled.len());
        mangled[at..end].copy_from_slice(&with[..end - at]);
        let _ = verify(&[CertificateDer::from(mangled)], NOW);
    }
}

const ED25519: &str = "\
    308201ae30820156a0030201020204499602d2300a06082a8648ce3d040302302031123010060355040a13096c696270\
    32702e696f310a300806035504051301313020170d3735303130313133303030305a180f343039363031303131333030\
    30305a302031123010060355040a13096c69627032702e696f310a300806035504051301313059301306072a8648ce3d\
    020106082a8648ce3d030107034200040c901d423c831ca85e27c73c263ba132721bb9d7a84c4f0380b2a6756fd60133\
    1c8870234dec878504c174144fa4b14b66a651691606d8173e55bd37e381569ea37c307a3078060a2b0601040183a25a\
    0101046a3068042408011220a77f1d92fedb59dddaea5a1c4abd1ac2fbde7d7b879ed364501809923d7c11b90440d90d\
    2769db992d5e6195dbb08e706b6651e024fda6cfb8846694a435519941cac215a8207792e42849cccc6cd8136c6e4bde\
    92a58c5e08cfd4206eb5fe0bf909300a06082a8648ce3d0403020346003043021f50f6b6c52711a881778718238f650c\
    9fb48943ae6ee6d28427dc6071ae55e702203625f116a7a454db9c56986c82a25682f7248ea1cb764d322ea983ed36a3\
    1b77";
const ECDSA: &str = "\
    308201f63082019da0030201020204499602d2300a06082a8648ce3d040302302031123010060355040a13096c696270\
    32702e696f310a300806035504051301313020170d3735303130313133303030305a180f343039363031303131333030\
    30305a302031123010060355040a13096c69627032702e696f310a300806035504051301313059301306072a8648ce3d\
    020106082a8648ce3d030107034200040c901d423c831ca85e27c73c263ba132721bb9d7a84c4f0380b2a6756fd60133\
    1c8870234dec878504c174144fa4b14b66a651691606d8173e55bd37e381569ea381c23081bf3081bc060a2b06010401\
    83a25a01010481ad3081aa045f0803125b3059301306072a8648ce3d020106082a8648ce3d03010703420004bf30511f\
    909414ebdd3242178fd290f093a551cf75c973155de0bb5a96fedf6cb5d52da7563e794b512f66e60c7f55ba8a3acf3d\
    d72a801980d205e8a1ad29f2044730450220064ea8124774caf8f50e57f436aa62350ce652418c019df5d98a3ac666c9\
    386a022100aa59d704a931b5f72fb9222cb6cc51f954d04a4e2e5450f8805fe8918f71eaae300a06082a8648ce3d0403\
    0203470030440220799395b0b6c1e940a7e4484705f610ab51ed376f19ff9d7c16757cfbf61b8d4302206205c03fbb0f\
    95205c779be86581d3e31c01871ad5d1f3435bcf375cb0e5088a";
const SECP256K1: &str = "\
    308201ba3082015fa0030201020204499602d2300a06082a8648ce3d040302302031123010060355040a13096c696270\
    32702e696f310a300806035504051301313020170d3735303130313133303030305a180f343039363031303131333030\
    30305a302031123010060355040a13096c69627032702e696f310a300806035504051301313059301306072a8648ce3d\
    020106082a8648ce3d030107034200040c901d423c831ca85e27c73c263ba132721bb9d7a84c4f0380b2a6756fd60133\
    1c8870234dec878504c174144fa4b14b66a651691606d8173e55bd37e381569ea38184308181307f060a2b0601040183\
    a25a01010471306f0425080212210206dc6968726765b820f050263ececf7f71e4955892776c0970542efd689d238204\
    4630440220145e15a991961f0d08cd15425bb95ec93f6ffa03c5a385eedc34ecf464c7a8ab022026b3109b8a3f40ef83\
    3169777eb2aa337cfb6282f188de0666d1bcec2a4690dd300a06082a8648ce3d0403020349003046022100e1a217eeef\
    9ec9204b3f774a08b70849646b6a1e6b8b27f93dc00ed58545d9fe022100b00dafa549d0f03547878338c7b15e750288\
    8f6d45db387e5ae6b5d46899cef0";
const WRONG_SIGNER: &str = "\
    308201f73082019da0030201020204499602d2300a06082a8648ce3d040302302031123010060355040a13096c696270\
    32702e696f310a300806035504051301313020170d3735303130313133303030305a180f343039363031303131333030\
    30305a302031123010060355040a13096c69627032702e696f310a300806035504051301313059301306072a8648ce3d\
    020106082a8648ce3d030107034200040c901d423c831ca85e27c73c263ba132721bb9d7a84c4f0380b2a6756fd60133\
    1c8870234dec878504c174144fa4b14b66a651691606d8173e55bd37e381569ea381c23081bf3081bc060a2b06010401\
    83a25a01010481ad3081aa045f0803125b3059301306072a8648ce3d020106082a8648ce3d03010703420004bf30511f\
    909414ebdd3242178fd290f093a551cf75c973155de0bb5a96fedf6cb5d52da7563e794b512f66e60c7f55ba8a3acf3d\
    d72a801980d205e8a1ad29f204473045022100bb6e03577b7cc7a3cd1558df0da2b117dfdcc0399bc2504ebe7de6f65c\
    ade72802206de96e2a5be9b6202adba24ee0362e490641ac45c240db71fe955f2c5cf8df6e300a06082a8648ce3d0403\
    020348003045022100e847f267f43717358f850355bdcabbefb2cfbf8a3c043b203a14788a092fe8db022027c1d04a2d\
    41fd6b57a7e8b3989e470325de4406e52e084e34a3fd56eef0d0df";
