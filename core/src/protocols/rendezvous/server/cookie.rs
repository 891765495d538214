//! Cookies: where a client's reading of a namespace stands, told by the client itself, so that nothing is kept for it.
//!
//! 8 bytes and then text, because rust-libp2p's client takes a cookie apart into eight bytes and a namespace of UTF-8, and
//! breaks off if it cannot. The rest of the position and the MAC, which covers the namespace, are written in hexadecimal.

use std::hash::Hasher as _;

use sha2::{Digest as _, Sha256};
use siphasher::sip128::{Hasher128 as _, SipHasher24};

/// 8 bytes, and twice as many digits as there are bytes in a number and a MAC.
const LEN: usize = 8 + 2 * (8 + 16);

/// How far a client has read the registrations of one namespace, or of all of them.
///
/// The first reading is in the order in which registrations were made, which refreshing does not change, so that each
/// comes once; it ends with what was there when it began. From then on it is in the order in which they were last
/// refreshed, so that what is new and what has been refreshed comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// Has read what was made up to `after`, and is to read what was made up to `until`.
    Listing { after: u64, until: u64 },
    /// Has read what was made or refreshed up to here.
    Following { after: u64 },
}

impl Position {
    /// The largest number in it.
    pub(super) fn latest(self) -> u64 {
        match self {
            Self::Listing { after, until } => after.max(until),
            Self::Following { after } => after,
        }
    }
}

/// Makes cookies and takes them back.
#[derive(Clone, Debug)]
pub(super) struct Baker {
    key: [u8; 16],
}

impl Baker {
    /// `secret` belongs to the point's identity, `epoch` to its table of registrations, whose numbers mean nothing in
    /// another.
    pub(super) fn new(secret: &[u8], epoch: &[u8; 16]) -> Self {
        let mut hash = Sha256::new();
        hash.update(epoch);
        hash.update(secret);
        let digest = hash.finalize();
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        Self { key }
    }

    /// The cookie for `position` in a namespace; `None` is all of them.
    pub(super) fn bake(&self, namespace: Option<&str>, position: Position) -> Vec<u8> {
        let (after, until) = match position {
            Position::Listing { after, until } => (after, until),
            Position::Following { after } => (after, u64::MAX),
        };
        let mut cookie = Vec::with_capacity(LEN);
        cookie.extend_from_slice(&after.to_be_bytes());
        put_hex(&until.to_be_bytes(), &mut cookie);
        put_hex(&self.mac(namespace, after, until), &mut cookie);
        cookie
    }

    /// The position in a cookie of ours for this namespace; `None` if it is not one.
    pub(super) fn taste(&self, namespace: Option<&str>, cookie: &[u8]) -> Option<Position> {
        let (after, text) = cookie.split_first_chunk::<8>()?;
        let (until, mac) = text.split_at_checked(16)?;
        let (after, until) = (u64::from_be_bytes(*after), u64::from_be_bytes(take_hex(until)?));
        let mac: [u8; 16] = take_hex(mac)?;
        if mac != self.mac(namespace, after, until) {
            return None;
        }
        Some(if until == u64::MAX {
            Position::Following { after }
        } else {
            Position::Listing { after, until }
        })
    }

    fn mac(&self, namespace: Option<&str>, after: u64, until: u64) -> [u8; 16] {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write(&after.to_be_bytes());
        hasher.write(&until.to_be_bytes());
        hasher.write(&[u8::from(namespace.is_some())]);
        hasher.write(namespace.unwrap_or_default().as_bytes());
        hasher.finish128().as_bytes()
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

fn put_hex(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        out.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

/// `N` bytes in the digits that [`put_hex`] writes, and no others.
fn take_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| DIGITS.iter().position(|digit| *digit == byte);
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POSITIONS: [Position; 3] = [
        Position::Listing { after: 0, until: 0 },
        Position::Listing { after: 7, until: u64::MAX - 1 },
        Position::Following { after: 1 << 40 },
    ];

    fn baker() -> Baker {
        Baker::new(b"secret", &[1; 16])
    }

    #[test]
    fn a_cookie_is_good_where_it_was_baked_and_in_its_namespace_alone() {
        let namespaces = [None, Some(""), Some("a"), Some("ab")];
        for position in POSITIONS {
            for namespace in namespaces {
                let cookie = baker().bake(namespace, position);
                for other in namespaces {
                    let expected = (other == namespace).then_some(position);
                    assert_eq!(baker().taste(other, &cookie), expected, "{namespace:?} in {other:?}");
                }
                assert_eq!(Baker::new(b"secret", &[2; 16]).taste(namespace, &cookie), None);
                assert_eq!(Baker::new(b"other", &[1; 16]).taste(namespace, &cookie), None);
            }
        }
    }

    #[test]
    fn no_bit_can_be_changed_and_nothing_cut_off_or_added() {
        let cookie = baker().bake(Some("ns"), POSITIONS[2]);
        for bit in 0..8 * cookie.len() {
            let mut forged = cookie.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(baker().taste(Some("ns"), &forged), None, "bit {bit}");
        }
        for len in 0..cookie.len() {
            assert_eq!(baker().taste(Some("ns"), &cookie[..len]), None, "{len} bytes");
        }
        assert_eq!(baker().taste(Some("ns"), &[&cookie[..], b"0"].concat()), None);
    }

    #[test]
    fn rust_libp2p_can_take_it_apart() {
        for position in POSITIONS {
            let cookie = baker().bake(Some(&"n".repeat(255)), position);
            assert_eq!(cookie.len(), LEN);
            let namespace = std::str::from_utf8(&cookie[8..]).expect("UTF-8");
            assert!(!namespace.is_empty() && namespace.len() <= 255);
        }
    }
}
