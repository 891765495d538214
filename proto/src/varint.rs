//! Unsigned varints: seven bits a byte, least significant group first, the high bit meaning "more follows".
//!
//! As the [multiformats specification][spec] demands, a value takes at most [`MAX_LEN`] bytes (so at most 63
//! bits) and only its shortest encoding is accepted. Protobuf's own varints are another format: they may be
//! padded and reach 64 bits; see [`pb::guard`](crate::pb::guard).
//!
//! [spec]: https://github.com/multiformats/unsigned-varint

use bytes::{BufMut, BytesMut};

/// The longest encoding of a value, in bytes.
pub const MAX_LEN: usize = 9;

/// The largest value that can be encoded: 2^63 - 1.
pub const MAX: u64 = (1 << 63) - 1;

/// Why bytes are not an unsigned varint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VarintError {
    /// The value has not ended after [`MAX_LEN`] bytes.
    #[error("varint is longer than {MAX_LEN} bytes")]
    TooLong,
    /// The value was padded: a shorter encoding exists.
    #[error("varint is not in its minimal form")]
    NotMinimal,
}

/// Appends `value` to `out`.
///
/// # Panics
/// If `value` exceeds [`MAX`], which no length of a buffer in memory does.
pub fn encode(value: u64, out: &mut BytesMut) {
    assert!(value <= MAX, "an unsigned varint holds at most 63 bits");
    let mut rest = value;
    while rest >= 0x80 {
        out.put_u8((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

/// How many bytes [`encode`] writes for `value`.
pub const fn encoded_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Reads the varint at the start of `bytes`: the value and how many bytes it took, or `None` if it has not
/// ended yet.
pub fn decode(bytes: &[u8]) -> Result<Option<(u64, usize)>, VarintError> {
    let mut value = 0u64;
    for (index, &byte) in bytes.iter().take(MAX_LEN).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let padded = byte == 0 && index > 0;
            return if padded { Err(VarintError::NotMinimal) } else { Ok(Some((value, index + 1))) };
        }
    }
    if bytes.len() >= MAX_LEN { Err(VarintError::TooLong) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(value: u64) -> BytesMut {
        let mut out = BytesMut::new();
        encode(value, &mut out);
        out
    }

    #[test]
    fn vectors_of_the_specification() {
        for (value, bytes) in [
            (0u64, &[0x00u8][..]),
            (1, &[0x01]),
            (127, &[0x7f]),
            (128, &[0x80, 0x01]),
            (255, &[0xff, 0x01]),
            (300, &[0xac, 0x02]),
            (16384, &[0x80, 0x80, 0x01]),
            (MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        ] {
            assert_eq!(&encoded(value)[..], bytes);
            assert_eq!(decode(bytes), Ok(Some((value, bytes.len()))));
        }
    }

    #[test]
    fn padding_and_excess_are_refused() {
        assert_eq!(decode(&[0x80, 0x00]), Err(VarintError::NotMinimal));
        assert_eq!(decode(&[0x81, 0x80, 0x00]), Err(VarintError::NotMinimal));
        assert_eq!(decode(&[0xff; 8]), Ok(None));
        assert_eq!(decode(&[0xff; 9]), Err(VarintError::TooLong));
        let two_to_the_63 = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];
        assert_eq!(decode(&two_to_the_63), Err(VarintError::TooLong));
    }

    #[test]
    #[should_panic(expected = "63 bits")]
    fn a_value_above_63_bits_cannot_be_encoded() {
        encoded(MAX + 1);
    }

    proptest! {
        #[test]
        fn round_trip(value in 0..=MAX, tail in proptest::collection::vec(any::<u8>(), 0..4)) {
            let mut bytes = encoded(value);
            let len = bytes.len();
            prop_assert_eq!(encoded_len(value), len);
            for cut in 0..len {
                prop_assert_eq!(decode(&bytes[..cut]), Ok(None));
            }
            bytes.extend_from_slice(&tail);
            prop_assert_eq!(decode(&bytes), Ok(Some((value, len))));
        }

        #[test]
        fn what_decodes_is_the_one_encoding(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            if let Ok(Some((value, len))) = decode(&bytes) {
                prop_assert_eq!(&encoded(value)[..], &bytes[..len]);
            }
        }
    }
}
