//! What the unit tests share.

use crate::Keypair;

/// The bytes written as hexadecimal digits.
pub(crate) fn hex(digits: &str) -> Vec<u8> {
    let digit = |c: u8| (c as char).to_digit(16).unwrap() as u8;
    digits.as_bytes().chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// The Ed25519 key whose secret is this byte 32 times.
pub(crate) fn keypair(byte: u8) -> Keypair {
    Keypair::ed25519_from_bytes([byte; 32]).unwrap()
}

/// The field `number` with these bytes.
pub(crate) fn bytes_field(number: u32, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut out);
    prost::encoding::encode_varint(value.len() as u64, &mut out);
    out.extend_from_slice(value);
    out
}

/// A message survives its own encoding.
pub(crate) fn assert_round_trip<M: crate::pb::Wire + PartialEq + std::fmt::Debug>(message: &M) {
    let decoded = crate::pb::decode::<M>(&message.encode_to_vec());
    assert_eq!(decoded.as_ref(), Ok(message));
}
