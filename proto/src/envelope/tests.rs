use super::*;
use crate::testing::{bytes_field, hex, keypair};
use proptest::collection::vec;
use proptest::prelude::*;

#[test]
fn a_signed_envelope_verifies_in_its_domain_only() {
    let envelope = Envelope::sign(&keypair(1), "domain", b"type", b"payload".to_vec()).unwrap();
    assert_eq!(envelope.verify("domain", b"type"), Ok((&keypair(1).public(), &b"payload"[..])));
    assert_eq!(envelope.verify("domains", b"type"), Err(EnvelopeError::Signature));
    assert_eq!(envelope.verify("domain", b"types"), Err(EnvelopeError::PayloadType));
}

#[test]
fn the_lengths_keep_domain_type_and_payload_apart() {
    assert_eq!(
        signed_bytes("ab", b"c", b"")[..],
        hex("0261620163").into_iter().chain([0]).collect::<Vec<_>>()
    );
    assert_ne!(signed_bytes("ab", b"c", b"d"), signed_bytes("a", b"bc", b"d"));
    assert_eq!(signed_bytes("", b"", &[9; 300])[..4], hex("0000ac02"));
}

#[test]
fn each_changed_part_breaks_the_signature() {
    let good = Envelope::sign(&keypair(1), "domain", b"type", b"payload".to_vec()).unwrap();
    let mut payload = good.clone();
    payload.payload[0] ^= 1;
    let mut signature = good.clone();
    signature.signature[5] ^= 1;
    let mut key = good.clone();
    key.public_key = keypair(2).public();
    let mut kind = good.clone();
    kind.payload_type = b"typo".to_vec();
    for bad in [payload, signature, key] {
        assert_eq!(bad.verify("domain", b"type"), Err(EnvelopeError::Signature));
    }
    assert_eq!(kind.verify("domain", b"typo"), Err(EnvelopeError::Signature));
}

#[test]
fn bad_envelopes_have_their_errors() {
    assert_eq!(
        Envelope::decode(&vec![0; MAX_ENVELOPE_LEN + 1]),
        Err(EnvelopeError::TooLong(MAX_ENVELOPE_LEN + 1))
    );
    assert_eq!(Envelope::decode(b"\xff"), Err(EnvelopeError::Malformed(DecodeError::Malformed)));
    assert_eq!(Envelope::decode(b""), Err(EnvelopeError::Key(KeyError::Malformed)));
    let many = bytes_field(2, b"").repeat(17);
    assert_eq!(
        Envelope::decode(&many),
        Err(EnvelopeError::Malformed(DecodeError::TooManyFields { max: 16 }))
    );
}

proptest! {
    #[test]
    fn round_trip(
        seed in 1u8..,
        domain in "[a-z-]{0,30}",
        kind in vec(any::<u8>(), 0..10),
        payload in vec(any::<u8>(), 0..200),
    ) {
        let envelope = Envelope::sign(&keypair(seed), &domain, &kind, payload.clone()).unwrap();
        let decoded = Envelope::decode(&envelope.encode()).unwrap();
        prop_assert_eq!(decoded.verify(&domain, &kind), Ok((&keypair(seed).public(), &payload[..])));
        prop_assert_eq!(decoded, envelope);
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = Envelope::decode(&bytes);
        let key = encode_public_key(&keypair(1).public());
        if let Ok(envelope) = Envelope::decode(&[bytes_field(1, &key), bytes].concat()) {
            prop_assert!(envelope.verify("domain", envelope.payload_type()).is_err());
        }
    }
}
