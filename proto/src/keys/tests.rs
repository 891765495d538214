use super::*;
use crate::testing::{bytes_field, hex, keypair};
use proptest::collection::vec;
use proptest::prelude::*;

const RSA_PRIVATE: &[u8] = include_bytes!("../../tests/vectors/rsa-private-key.bin");
const RSA_PUBLIC: &[u8] = include_bytes!("../../tests/vectors/rsa-public-key.bin");

/// The vectors of the specification: type, private key, public key.
fn vectors() -> Vec<(KeyType, Vec<u8>, Vec<u8>)> {
    vec![
        (
            KeyType::Ecdsa,
            hex(
                "08031279307702010104203E5B1FE9712E6C314942A750BD67485DE3C1EFE85B1BFB520AE8F9AE3DFA4A4CA00A06082A86\
                 48CE3D030107A14403420004DE3D300FA36AE0E8F5D530899D83ABAB44ABF3161F162A4BC901D8E6ECDA020E8B6D5F8DA3\
                 0525E71D6851510C098E5C47C646A597FB4DCEC034E9F77C409E62",
            ),
            hex(
                "0803125b3059301306072a8648ce3d020106082a8648ce3d03010703420004de3d300fa36ae0e8f5d530899d83abab44ab\
                 f3161f162a4bc901d8e6ecda020e8b6d5f8da30525e71d6851510c098e5c47c646a597fb4dcec034e9f77c409e62",
            ),
        ),
        (
            KeyType::Ed25519,
            hex(
                "080112407e0830617c4a7de83925dfb2694556b12936c477a0e1feb2e148ec9da60fee7d1ed1e8fae2c4a144b8be8fd4b4\
                 7bf3d3b34b871c3cacf6010f0e42d474fce27e",
            ),
            hex("080112201ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e"),
        ),
        (
            KeyType::Secp256k1,
            hex("0802122053DADF1D5A164D6B4ACDB15E24AA4C5B1D3461BDBD42ABEDB0A4404D56CED8FB"),
            hex("08021221037777e994e452c21604f91de093ce415f5432f701dd8cd1a7a6fea0e630bfca99"),
        ),
        (KeyType::RSA, RSA_PRIVATE.to_vec(), RSA_PUBLIC.to_vec()),
    ]
}

#[test]
fn vectors_of_the_specification() {
    for (kind, private, public) in vectors() {
        let keypair = decode_private_key(&private).unwrap();
        assert_eq!(keypair.key_type(), kind);
        assert_eq!(encode_public_key(&keypair.public()), public);
        let key = decode_public_key(&public).unwrap();
        assert_eq!(key, keypair.public());
        assert!(key.verify(b"message", &keypair.sign(b"message").unwrap()));
        match encode_private_key(&keypair) {
            Ok(encoded) => assert_eq!(encoded, private),
            Err(error) => assert_eq!((error, kind), (KeyError::CannotEncode, KeyType::RSA)),
        }
    }
}

#[test]
fn short_keys_are_in_their_ids_and_long_ones_hashed() {
    let ids: Vec<_> = vectors()
        .iter()
        .map(|(_, _, public)| decode_public_key(public).unwrap().to_peer_id().to_bytes()[..2].to_vec())
        .collect();
    assert_eq!(ids, [[0x12, 32], [0, 36], [0, 37], [0x12, 32]]);
}

#[test]
fn the_old_form_of_ed25519_files() {
    let plain = hex("7e0830617c4a7de83925dfb2694556b12936c477a0e1feb2e148ec9da60fee7d");
    let public = hex("1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e");
    let file = |last: &[u8]| [&hex("08011260")[..], &plain, &public, last].concat();
    assert_eq!(decode_private_key(&file(&public)).unwrap().public().encode_protobuf()[4..], public);
    assert_eq!(decode_private_key(&file(&plain)).unwrap_err(), KeyError::Malformed);
}

/// An RSA public key message with this modulus.
fn rsa_key(modulus: &[u8]) -> Vec<u8> {
    let der = |tag: u8, content: &[u8]| {
        let len = (content.len() as u16).to_be_bytes();
        let head = match content.len() {
            0..=0x7f => vec![tag, len[1]],
            0x80..=0xff => vec![tag, 0x81, len[1]],
            _ => vec![tag, 0x82, len[0], len[1]],
        };
        [&head[..], content].concat()
    };
    let pkcs1 = der(0x30, &[der(2, modulus), der(2, &[1, 0, 1])].concat());
    let algorithm = hex("300d06092a864886f70d0101010500");
    let bits = der(3, &[&[0][..], &pkcs1].concat());
    [&[8, 0][..], &bytes_field(2, &der(0x30, &[algorithm, bits].concat()))].concat()
}

#[test]
fn rsa_keys_have_a_sensible_size() {
    let modulus = |bits: usize| [&[0, 0x80][..], &vec![1; bits / 8 - 1]].concat();
    assert!(decode_public_key(&rsa_key(&modulus(2048))).is_ok());
    assert!(decode_public_key(&rsa_key(&modulus(8192))).is_ok());
    assert_eq!(decode_public_key(&rsa_key(&modulus(1024))), Err(KeyError::RsaSize(1024)));
    assert_eq!(decode_public_key(&rsa_key(&modulus(512))), Err(KeyError::RsaSize(512)));
    assert_eq!(decode_public_key(&rsa_key(&modulus(16384))), Err(KeyError::RsaSize(16384)));
    let just_below = [&[0x7f][..], &[0xff; 255]].concat();
    assert_eq!(decode_public_key(&rsa_key(&just_below)), Err(KeyError::RsaSize(2047)));
    assert_eq!(decode_public_key(&rsa_key(&[0; 256])), Err(KeyError::Malformed));
    assert_eq!(decode_public_key(&rsa_key(&[])), Err(KeyError::Malformed));
}

#[test]
fn a_key_has_one_encoding() {
    let good = encode_public_key(&keypair(1).public());
    for bad in [
        [&hex("1220")[..], &good[4..], &hex("0801")].concat(), // fields swapped
        [&hex("088100")[..], &good[2..]].concat(),             // padded varint
    ] {
        assert_eq!(decode_public_key(&bad), Err(KeyError::NotCanonical));
    }
    let with_more = [&good[..], &hex("1801")].concat();
    assert_eq!(decode_public_key(&with_more), Err(KeyError::NotCanonical));
}

#[test]
fn too_long_or_senseless_keys() {
    assert_eq!(decode_public_key(&[0; 4097]), Err(KeyError::TooLong(4097)));
    assert_eq!(decode_private_key(&[0; 16385]).unwrap_err(), KeyError::TooLong(16385));
    assert_eq!(decode_public_key(&[]), Err(KeyError::Malformed));
    assert_eq!(decode_public_key(&hex("08041200")), Err(KeyError::Malformed));
    assert_eq!(decode_private_key(&hex("0801")).unwrap_err(), KeyError::Malformed);
}

#[test]
fn peer_ids_of_the_specification() {
    let cid = "bafzbeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe";
    let qm = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N";
    assert_eq!(parse_peer_id(cid).unwrap().to_base58(), qm);
    assert_eq!(peer_id_to_cid(&parse_peer_id(qm).unwrap()), cid);
    let ed25519 = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
    assert_eq!(parse_peer_id(ed25519).unwrap().to_string(), ed25519);
}

#[test]
fn a_peer_id_as_go_writes_it() {
    let peer = keypair(1).public().to_peer_id();
    assert_eq!(peer.to_string(), "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5");
    let cid = "bafzaajaiaejcbcui4poxicprsx6vfwznhs5f24wkm4e36hmucin7g5eiag2a6324";
    assert_eq!(peer_id_to_cid(&peer), cid);
    assert_eq!(parse_peer_id(cid), Ok(peer));
    let (_, bytes) = multibase::decode(cid).unwrap();
    for base in [Base::Base36Lower, Base::Base58Btc, Base::Base16Lower, Base::Base64] {
        assert_eq!(parse_peer_id(&multibase::encode(base, &bytes)), Ok(peer));
    }
}

#[test]
fn bad_peer_ids_have_their_errors() {
    let cid = |bytes: &[u8]| multibase::encode(Base::Base32Lower, bytes);
    let multihash = keypair(1).public().to_peer_id().to_bytes();
    let with = |head: &[u8]| parse_peer_id(&cid(&[head, &multihash].concat()));
    assert!(with(&[1, 0x72]).is_ok());
    assert_eq!(with(&[1, 0x70]), Err(PeerIdError::NotAKey(0x70)));
    assert_eq!(with(&[0, 0x72]), Err(PeerIdError::BadCid));
    assert_eq!(with(&[0x81, 0x00, 0x72]), Err(PeerIdError::BadCid));
    assert_eq!(parse_peer_id(""), Err(PeerIdError::BadText));
    assert_eq!(parse_peer_id("Qm0"), Err(PeerIdError::BadText));
    assert_eq!(parse_peer_id("1"), Err(PeerIdError::BadMultihash));
    assert_eq!(parse_peer_id("älter"), Err(PeerIdError::BadText));
    assert_eq!(parse_peer_id(&"1".repeat(257)), Err(PeerIdError::TooLong(257)));
}

#[test]
fn only_hashes_that_keys_have() {
    assert!(decode_peer_id(&[&[0x12, 32][..], &[7; 32]].concat()).is_ok());
    assert!(decode_peer_id(&[&[0, 42][..], &[7; 42]].concat()).is_ok());
    for bad in [
        [&[0x12, 20][..], &[7; 20]].concat(),       // a truncated digest
        [&[0x92, 0x00, 32][..], &[7; 32]].concat(), // a padded code
        [&[0, 43][..], &[7; 43]].concat(),
        [&[0x13, 64][..], &[7; 64]].concat(),
        [&[0x12, 32][..], &[7; 33]].concat(),
        vec![],
    ] {
        assert_eq!(decode_peer_id(&bad), Err(PeerIdError::BadMultihash));
    }
}

proptest! {
    #[test]
    fn ed25519_round_trip(seed in any::<[u8; 32]>()) {
        let keypair = Keypair::ed25519_from_bytes(seed).unwrap();
        let file = encode_private_key(&keypair).unwrap();
        prop_assert_eq!(decode_private_key(&file).unwrap().public(), keypair.public());
        let peer = keypair.public().to_peer_id();
        prop_assert_eq!(decode_public_key(&encode_public_key(&keypair.public())), Ok(keypair.public()));
        prop_assert_eq!(decode_peer_id(&peer.to_bytes()), Ok(peer));
        prop_assert_eq!(parse_peer_id(&peer.to_string()), Ok(peer));
        prop_assert_eq!(parse_peer_id(&peer_id_to_cid(&peer)), Ok(peer));
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..200), kind in 0u8..5) {
        let likely = [&[8, kind][..], &bytes_field(2, &bytes)].concat();
        for bytes in [&bytes, &likely] {
            if let Ok(key) = decode_public_key(bytes) {
                prop_assert_eq!(&encode_public_key(&key), bytes);
            }
            let _ = decode_private_key(bytes);
            if let Ok(peer) = decode_peer_id(bytes) {
                prop_assert_eq!(&peer.to_bytes(), bytes);
            }
        }
    }

    #[test]
    fn mutated_keys_never_panic(which in 0usize..4, at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let (_, mut private, mut public) = vectors().swap_remove(which);
        let index = at.index(public.len());
        public[index] = value;
        if let Ok(key) = decode_public_key(&public) {
            prop_assert_eq!(encode_public_key(&key), public);
        }
        let index = at.index(private.len());
        private[index] = value;
        let _ = decode_private_key(&private);
    }

    #[test]
    fn random_text_never_panics(text in "\\PC{0,40}", base in "[fbkzm1Q]") {
        let _ = parse_peer_id(&text);
        let _ = parse_peer_id(&(base + &text));
    }
}
