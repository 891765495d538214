//! The protobuf messages of libp2p, written by hand: no compiler is needed to build them.
//!
//! [`decode`] is the way in. Before anything is allocated it walks the bytes once and counts the fields, so that a
//! small message of many empty elements cannot become a large value in memory. Enum values are kept as the `i32`
//! they were on the wire, with a method that gives the known value or `None`: a value of the future is neither an
//! error nor mistaken for another.

pub mod autonat;
pub mod dcutr;
pub mod identify;
pub mod keys;
pub mod noise;
pub mod record;
pub mod relay;
pub mod rendezvous;

pub use prost::Message;

use bytes::Bytes;

/// A message with a bound on how many fields it may carry.
pub trait Wire: Message + Default {
    /// The most fields accepted, those of nested messages counted.
    const MAX_FIELDS: usize;
    /// Which fields are messages, so that their fields are counted too.
    const SHAPE: Shape = Shape::FLAT;
}

/// Which fields of a message are messages themselves.
#[derive(Clone, Copy, Debug)]
pub struct Shape(pub &'static [(u32, Shape)]);

impl Shape {
    /// No field is a message.
    pub const FLAT: Shape = Shape(&[]);

    fn nested(&self, field: u64) -> Option<&'static Shape> {
        self.0.iter().find(|(number, _)| u64::from(*number) == field).map(|(_, shape)| shape)
    }
}

/// Why bytes are not an acceptable message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// There are more fields than the message may have.
    #[error("more than {max} fields")]
    TooManyFields {
        /// The most accepted.
        max: usize,
    },
    /// The bytes are not protobuf, or use groups, which no libp2p message has.
    #[error("not a protobuf message")]
    Malformed,
    /// A field has another type than the message gives it.
    #[error(transparent)]
    Field(#[from] prost::DecodeError),
}

/// Reads a message that has at most [`Wire::MAX_FIELDS`] fields. Unknown fields are counted and skipped.
pub fn decode<M: Wire>(bytes: &[u8]) -> Result<M, DecodeError> {
    decode_within(bytes, M::MAX_FIELDS)
}

/// Reads a message that has at most `max_fields` fields, those of nested messages counted.
pub fn decode_within<M: Wire>(bytes: &[u8], max_fields: usize) -> Result<M, DecodeError> {
    guard(bytes, max_fields, M::SHAPE)?;
    Ok(M::decode(bytes)?)
}

/// Writes a message with its length before it, the frame of
/// [`Framing::Varint`](crate::frame::Framing::Varint).
pub fn encode_delimited<M: Message>(message: &M) -> Bytes {
    message.encode_length_delimited_to_vec().into()
}

/// Walks the wire format and counts the fields, without allocating. `shape` says into which fields to descend.
pub fn guard(bytes: &[u8], max_fields: usize, shape: Shape) -> Result<(), DecodeError> {
    count(bytes, max_fields, &shape).map(|_| ()).map_err(|fault| match fault {
        Fault::TooMany => DecodeError::TooManyFields { max: max_fields },
        Fault::Malformed => DecodeError::Malformed,
    })
}

enum Fault {
    TooMany,
    Malformed,
}

/// Takes the fields in `bytes` off `budget`. Recurses only as deep as the shape does.
fn count(mut bytes: &[u8], mut budget: usize, shape: &Shape) -> Result<usize, Fault> {
    while let Some((field, value, rest)) = split_field(bytes).ok_or(Fault::Malformed)? {
        budget = budget.checked_sub(1).ok_or(Fault::TooMany)?;
        if let (Some(value), Some(nested)) = (value, shape.nested(field)) {
            budget = count(value, budget, nested)?;
        }
        bytes = rest;
    }
    Ok(budget)
}

/// A field's number, its bytes if it is length-delimited, and what follows.
type Field<'a> = (u64, Option<&'a [u8]>, &'a [u8]);

/// The first field; `Some(None)` at the end, `None` if malformed.
fn split_field(bytes: &[u8]) -> Option<Option<Field<'_>>> {
    if bytes.is_empty() {
        return Some(None);
    }
    let (key, rest) = split_varint(bytes)?;
    let (value, rest) = match key & 7 {
        0 => (None, split_varint(rest)?.1),
        1 => (None, rest.get(8..)?),
        2 => {
            let (len, rest) = split_varint(rest)?;
            let (value, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
            (Some(value), rest)
        }
        5 => (None, rest.get(4..)?),
        _ => return None,
    };
    Some(Some((key >> 3, value, rest)))
}

/// Protobuf's varint: up to ten bytes, padding allowed.
fn split_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (index, &byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

/// Whether a field with this number is present at the top level.
pub(crate) fn has_field(mut bytes: &[u8], wanted: u64) -> bool {
    while let Some(Some((field, _, rest))) = split_field(bytes) {
        if field == wanted {
            return true;
        }
        bytes = rest;
    }
    false
}

#[cfg(test)]
mod tests;
