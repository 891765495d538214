use super::*;
use crate::testing::{bytes_field, hex, keypair};
use proptest::collection::vec;
use proptest::prelude::*;

const STATIC: [u8; 32] = [9; 32];

fn drain(decoder: &mut MessageDecoder) -> Vec<Bytes> {
    std::iter::from_fn(|| decoder.next_message()).collect()
}

#[test]
fn messages_have_two_bytes_of_length() {
    let mut out = BytesMut::new();
    encode_message(b"abc", &mut out).unwrap();
    encode_message(b"", &mut out).unwrap();
    assert_eq!(&out[..], b"\x00\x03abc\x00\x00");
    let mut decoder = MessageDecoder::new();
    decoder.push(out.freeze());
    assert_eq!(drain(&mut decoder), ["abc", ""]);
    assert_eq!(decoder.buffered(), 0);
}

#[test]
fn the_longest_message_and_one_more_byte() {
    let mut out = BytesMut::new();
    encode_message(&vec![1; MAX_MESSAGE], &mut out).unwrap();
    assert_eq!(out[..2], [0xff, 0xff]);
    let len = out.len();
    assert_eq!(encode_message(&vec![1; MAX_MESSAGE + 1], &mut out), Err(MessageTooLong(MAX_MESSAGE + 1)));
    assert_eq!(out.len(), len, "nothing is written of what cannot be");
}

#[test]
fn the_signature_is_the_one_go_makes() {
    let go = "79b79faadebaca333a814067eabcf893c080f220e6c6d5873702e73ccac74e7f6a7926ff77013c62e5d1e6d88f7af6ff634491e\
        62beee96e8d5e9390cb297a0a";
    let payload = HandshakePayload::new(&keypair(1), &STATIC).unwrap();
    assert_eq!(payload.identity_sig, hex(go));
    let key = encode_public_key(&keypair(1).public());
    assert_eq!(payload.encode(), [bytes_field(1, &key), bytes_field(2, &hex(go))].concat());
}

#[test]
fn the_payload_is_bound_to_its_static_key() {
    let payload = HandshakePayload::new(&keypair(1), &STATIC).unwrap();
    assert_eq!(payload.verify(&STATIC), Ok(&keypair(1).public()));
    assert_eq!(payload.verify(&[8; 32]), Err(PayloadError::Signature));
    let stolen = HandshakePayload { identity_key: keypair(2).public(), ..payload };
    assert_eq!(stolen.verify(&STATIC), Err(PayloadError::Signature));
}

#[test]
fn bad_payloads_have_their_errors() {
    let key = bytes_field(1, &encode_public_key(&keypair(1).public()));
    let decode = |parts: &[&[u8]]| HandshakePayload::decode(&parts.concat()).unwrap_err();
    assert_eq!(decode(&[&key]), PayloadError::NoSignature);
    assert_eq!(decode(&[&bytes_field(2, b"s")]), PayloadError::NoKey);
    assert_eq!(
        decode(&[&bytes_field(1, b"k"), &bytes_field(2, b"s")]),
        PayloadError::Key(KeyError::Malformed)
    );
    assert_eq!(decode(&[&key, &bytes_field(2, &[0; 1025])]), PayloadError::SignatureTooLong(1025));
    assert_eq!(decode(&[&[0xff]]), PayloadError::Malformed(DecodeError::Malformed));
    let muxers = bytes_field(4, &bytes_field(2, b"").repeat(64));
    assert_eq!(decode(&[&muxers]), PayloadError::Malformed(DecodeError::TooManyFields { max: 64 }));
}

proptest! {
    #[test]
    fn payloads_round_trip(
        seed in 1u8..,
        stream_muxers in vec("[a-z/.0-9]{0,20}", 0..4),
        webtransport_certhashes in vec(vec(any::<u8>(), 0..40), 0..4),
    ) {
        let payload = HandshakePayload {
            stream_muxers,
            webtransport_certhashes,
            ..HandshakePayload::new(&keypair(seed), &STATIC).unwrap()
        };
        prop_assert_eq!(HandshakePayload::decode(&payload.encode()), Ok(payload));
    }

    #[test]
    fn any_boundaries_give_the_same_messages(
        messages in vec(vec(any::<u8>(), 0..300), 0..6),
        tail in vec(0xffu8.., 0..40),
        step in 1usize..40,
    ) {
        let mut stream = BytesMut::new();
        for message in &messages {
            encode_message(message, &mut stream).unwrap();
        }
        stream.extend_from_slice(&tail);
        let mut decoder = MessageDecoder::new();
        let mut got = Vec::new();
        for piece in stream.chunks(step) {
            decoder.push(Bytes::copy_from_slice(piece));
            got.extend(drain(&mut decoder));
        }
        prop_assert_eq!(got, messages);
        prop_assert_eq!(decoder.take_rest().concat(), tail);
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = HandshakePayload::decode(&bytes);
        let key = bytes_field(1, &encode_public_key(&keypair(1).public()));
        if let Ok(payload) = HandshakePayload::decode(&[key, bytes].concat()) {
            prop_assert!(payload.verify(&STATIC).is_err());
        }
    }
}
