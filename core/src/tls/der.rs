//! Strict DER (X.690): definite lengths in their shortest form, and nothing left over.
//!
//! The X.509 parser accepts some non-minimal lengths and some bytes left over inside a structure. One certificate
//! must have one encoding, so [`is_strict`] looks at the whole of it first.

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const SEQUENCE: u8 = 0x30;

const CONSTRUCTED: u8 = 0x20;
const HIGH_TAG: u8 = 0x1f;
const MAX_DEPTH: usize = 16;

/// One tag-length-value element.
#[derive(Clone, Copy)]
pub(super) struct Element<'a> {
    pub(super) tag: u8,
    pub(super) content: &'a [u8],
    /// Tag, length and content.
    pub(super) raw: &'a [u8],
}

/// The first element of `input` and what follows it. `None` if it is cut short, or its length is indefinite, longer
/// than needed or above 2^16.
pub(super) fn read(input: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (&tag, after_tag) = input.split_first()?;
    let (&first, after_first) = after_tag.split_first()?;
    let (len, body) = match first {
        0..=0x7f => (usize::from(first), after_first),
        0x81 => {
            let (&len, body) = after_first.split_first()?;
            (usize::from(len), body)
        }
        0x82 => {
            let (&len, body) = after_first.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(len)), body)
        }
        _ => return None,
    };
    let shortest = match first {
        0x81 => len >= 0x80,
        0x82 => len >= 0x100,
        _ => true,
    };
    if !shortest || tag & HIGH_TAG == HIGH_TAG {
        return None;
    }
    let (content, rest) = body.split_at_checked(len)?;
    let raw = &input[..input.len() - rest.len()];
    Some((Element { tag, content, raw }, rest))
}

/// The first element of `input` if it has this tag, and what follows it.
pub(super) fn read_tag(input: &[u8], tag: u8) -> Option<(Element<'_>, &[u8])> {
    read(input).filter(|(element, _)| element.tag == tag)
}

/// The only element of `input`, which must have this tag.
pub(super) fn only(input: &[u8], tag: u8) -> Option<Element<'_>> {
    let (element, rest) = read_tag(input, tag)?;
    rest.is_empty().then_some(element)
}

/// The elements `SEQUENCE { a, b }` of exactly two, both with this tag.
pub(super) fn pair(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = read_tag(only(input, SEQUENCE)?.content, tag)?;
    Some((first.content, only(rest, tag)?.content))
}

/// Whether `input` is a series of strict elements all the way down.
pub(super) fn is_strict(input: &[u8]) -> bool {
    is_strict_to(input, MAX_DEPTH)
}

fn is_strict_to(mut input: &[u8], depth: usize) -> bool {
    while !input.is_empty() {
        let Some((element, rest)) = read(input) else { return false };
        if element.tag & CONSTRUCTED != 0 && (depth == 0 || !is_strict_to(element.content, depth - 1)) {
            return false;
        }
        input = rest;
    }
    true
}

/// One element with this tag and content, which must be shorter than 2^16 bytes.
pub(super) fn write(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(content.len()).expect("our own structures are a few KiB");
    let [high, low] = len.to_be_bytes();
    let mut out = vec![tag];
    match len {
        0..=0x7f => out.push(low),
        0x80..=0xff => out.extend([0x81, low]),
        _ => out.extend([0x82, high, low]),
    }
    out.extend_from_slice(content);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_lengths_read_back_and_are_shortest() {
        for len in [0, 1, 127, 128, 255, 256, 65535] {
            let content = vec![7; len];
            let der = write(OCTET_STRING, &content);
            let element = only(&der, OCTET_STRING).expect("just written");
            assert_eq!((element.content, element.raw), (&content[..], &der[..]));
            assert!(is_strict(&der));
        }
    }

    #[test]
    fn long_indefinite_and_cut_forms_are_refused() {
        for bad in [
            &[0x04, 0x80, 0, 0][..],
            &[0x04, 0x81, 1, 9],
            &[0x04, 0x82, 0, 0x80],
            &[0x04, 0x83, 1, 0, 0],
            &[0x04, 2, 9],
            &[0x1f, 0x20, 0],
            &[0x04],
            &[0x30, 3, 0x04, 0x81, 0],
        ] {
            assert!(!is_strict(bad), "{bad:x?}");
        }
        let nested = (0..MAX_DEPTH + 2).fold(Vec::new(), |inner, _| write(SEQUENCE, &inner));
        assert!(!is_strict(&nested));
    }
}
