//! What pages read of a peer, in one place and in few bytes: they read hundreds, from memory that no cache holds.

use super::dialect::{Dialect, Record};

/// Bytes for which there is room in place: a PeerId and a signed record with seven addresses of IPv4. A card is four cache
/// lines then.
const ROOM: usize = 235;

/// What a processor fetches at once, in bytes.
const CACHE_LINE: usize = 64;

/// Who a peer is, and a record of it without its name. In a signed record that stands twice: as the PeerId, and before it
/// as the key that is the end of the PeerId.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(super) struct Card {
    /// `None` while there is no record.
    dialect: Option<Dialect>,
    /// The length of the PeerId.
    peer: u8,
    /// Where in the record the key was, if it was cut out; else 0, where it is left in.
    key: u8,
    /// Where the PeerId was, likewise.
    id: u8,
    /// How many of the bytes are used.
    len: u8,
    /// The PeerId, then what is left of the record, as far as there is room.
    bytes: [u8; ROOM],
    /// Not looked at unless there is no more room.
    overflow: Box<[u8]>,
}

/// The bytes of a record, in pieces that follow each other.
pub(super) type Pieces<'a> = [&'a [u8]; 6];

impl Card {
    /// Of a peer that has given no record.
    pub(super) fn blank(peer: &[u8]) -> Self {
        let mut bytes = [0; ROOM];
        // A PeerId has at most 66 bytes.
        bytes[..peer.len()].copy_from_slice(peer);
        let len = peer.len() as u8;
        Self { bytes, len, peer: len, key: 0, id: 0, dialect: None, overflow: Box::default() }
    }

    /// Of the same peer, with this record.
    pub(super) fn with(&self, record: &Record) -> Self {
        let (mut card, bytes) = (Self::blank(self.peer()), &record.bytes[..]);
        let (peer, key) = (self.peer(), self.key());
        let near = &bytes[..bytes.len().min(ROOM)];
        card.dialect = Some(record.dialect);
        card.id = find(near, peer).unwrap_or(0);
        card.key = find(&near[..card.id.into()], key).unwrap_or(0);
        let (key_at, id_at): (usize, usize) = (card.key.into(), card.id.into());
        let key_end = key_at + if key_at > 0 { key.len() } else { 0 };
        let id_end = id_at + if id_at > 0 { peer.len() } else { 0 };
        let rest = [&bytes[..key_at], &bytes[key_end..id_at], &bytes[id_end..]].concat();
        let (in_place, overflow) = rest.split_at(rest.len().min(ROOM - peer.len()));
        let len = peer.len() + in_place.len();
        card.bytes[peer.len()..len].copy_from_slice(in_place);
        card.len = len as u8;
        card.overflow = overflow.into();
        card
    }

    /// The binary PeerId.
    pub(super) fn peer(&self) -> &[u8] {
        &self.bytes[..self.peer.into()]
    }

    /// The kind of the record.
    pub(super) fn dialect(&self) -> Option<Dialect> {
        self.dialect
    }

    /// The record as it was received.
    pub(super) fn pieces(&self) -> Pieces<'_> {
        let (peer, rest) = self.bytes[..self.len.into()].split_at(self.peer.into());
        let (key, id): (usize, usize) = (self.key.into(), self.id.into());
        if id == 0 {
            return [rest, self.overflow(), &[], &[], &[], &[]];
        }
        let cut = if key == 0 { &[] } else { self.key() };
        let (before, rest) = rest.split_at(key);
        let (between, after) = rest.split_at(id - key - cut.len());
        [before, cut, between, peer, after, self.overflow()]
    }

    /// Whether the record was received as these bytes.
    pub(super) fn is(&self, bytes: &[u8]) -> bool {
        let mut rest = Some(bytes);
        for piece in self.pieces() {
            rest = rest.and_then(|rest| rest.strip_prefix(piece));
        }
        self.dialect.is_some() && rest == Some(&[])
    }

    /// Reads a byte of each cache line, wherever the record ends: to look for its end would be to wait for the first line.
    pub(super) fn touch(&self) -> u8 {
        lines(&self.bytes)
    }

    /// Reads a byte of each cache line of what had no room.
    pub(super) fn touch_overflow(&self) -> u8 {
        let overflow = self.overflow();
        lines(overflow) ^ overflow.last().copied().unwrap_or_default()
    }

    fn overflow(&self) -> &[u8] {
        if usize::from(self.len) < ROOM { &[] } else { &self.overflow }
    }

    /// The public key in a PeerId, if it is of the kind that holds its key. The first two bytes say so.
    fn key(&self) -> &[u8] {
        self.peer().get(2..).unwrap_or_default()
    }
}

/// Reads a byte of each cache line of these.
fn lines(bytes: &[u8]) -> u8 {
    bytes.iter().step_by(CACHE_LINE).fold(0, |sum, byte| sum ^ byte)
}

/// Where a name stands first in no more than [`ROOM`] bytes.
fn find(bytes: &[u8], name: &[u8]) -> Option<u8> {
    bytes.windows(name.len().max(1)).position(|window| window == name).map(|at| at as u8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(bytes: &[u8]) -> Record {
        Record { dialect: Dialect::Standard, seq: 1, bytes: bytes.into() }
    }

    proptest! {
        /// Wherever and however often its peer is named in it.
        #[test]
        fn a_record_comes_back_as_it_was(
            peer in prop::collection::vec(any::<u8>(), 2..66),
            parts in prop::collection::vec((0..4_u8, prop::collection::vec(any::<u8>(), 0..300)), 0..5),
        ) {
            let parts: Vec<&[u8]> = parts.iter().map(|(kind, bytes)| match kind {
                0 => &peer[..],
                1 => &peer[2..],
                _ => &bytes[..],
            }).collect();
            let bytes = parts.concat();
            let blank = Card::blank(&peer);
            prop_assert_eq!(blank.peer(), &peer[..]);
            prop_assert!(!blank.is(&bytes) && blank.dialect().is_none());
            let card = blank.with(&record(&bytes));
            prop_assert_eq!(card.peer(), &peer[..]);
            prop_assert_eq!(card.pieces().concat(), &bytes[..]);
            prop_assert!(card.is(&bytes) && !card.is(&[&bytes[..], &[0]].concat()));
            prop_assert!(bytes.is_empty() || !card.is(&bytes[1..]));
            // The record after it leaves nothing of it.
            let short = card.with(&record(b"short"));
            prop_assert!(short.is(b"short") && short.peer() == peer);
        }
    }

    #[test]
    fn the_name_is_cut_out_of_a_record() {
        let peer = [&[0, 36][..], &[7; 36]].concat();
        let bytes = [&[10, 36][..], &peer[2..], &[1, 2, 3], &peer, &[4; 97]].concat();
        let card = Card::blank(&peer).with(&record(&bytes));
        assert_eq!(usize::from(card.len), peer.len() + 2 + 3 + 97);
        assert!(card.overflow.is_empty());
        assert_eq!(size_of::<Card>(), 4 * CACHE_LINE);
    }
}
