//! Rows of the table: one per peer, under the bytes of its PeerId.

use std::time::Duration;

use bytes::{BufMut as _, Bytes};
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use peerless_proto::address::{self, MAX_ADDR_LEN};

use super::{Source, usable};
use crate::time::UnixTime;

/// Most addresses in a row.
pub(super) const MAX_ADDRESSES: usize = 16;
/// The longest row.
const MAX_ROW: usize = 18 + MAX_ADDRESSES * (11 + MAX_ADDR_LEN);
const VERSION: u8 = 1;
/// What a row holds beside addresses: the number of a record, and that the peer is a relay.
const RECORD: u8 = 1;
const RELAY: u8 = 2;
const REACHED: u8 = 0x80;
const FOR_GOOD: u64 = u64::MAX;

/// What is stored of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// When it was written.
    pub(super) written: UnixTime,
    /// The number of the newest signed record.
    pub(super) record: Option<u64>,
    /// Whether it relays for others.
    pub(super) is_relay: bool,
    /// The most useful first; [`MAX_ADDRESSES`] at most.
    pub(super) addresses: Vec<RowAddress>,
}

/// Where a peer is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RowAddress {
    pub(super) address: Multiaddr,
    pub(super) source: Source,
    /// For how long it was still believed when the row was written, in whole milliseconds; `None` is for good.
    pub(super) left: Option<Duration>,
    /// Whether it had led to the peer, and nothing spoke against it since.
    pub(super) is_reached: bool,
}

/// As they are numbered in rows.
const SOURCES: [Source; 5] =
    [Source::Heard, Source::Identify, Source::Certified, Source::Embedder, Source::Rendezvous];

impl Row {
    /// Reads a row; `None` if it is none of ours.
    pub(super) fn read(key: &[u8], mut value: &[u8]) -> Option<(PeerId, Self)> {
        let peer = PeerId::from_bytes(key).ok().filter(|peer| peer.to_bytes() == key)?;
        if value.len() > MAX_ROW || *take(&mut value)? != [VERSION] {
            return None;
        }
        let written = UnixTime::from_duration(Duration::from_millis(take_u64(&mut value)?));
        let [flags] = *take(&mut value)?;
        if flags & !(RECORD | RELAY) != 0 {
            return None;
        }
        let record = if flags & RECORD != 0 { Some(take_u64(&mut value)?) } else { None };
        let is_relay = flags & RELAY != 0;
        let mut addresses = Vec::new();
        while !value.is_empty() {
            if addresses.len() == MAX_ADDRESSES {
                return None;
            }
            addresses.push(RowAddress::take(&mut value, peer)?);
        }
        Some((peer, Self { written, record, is_relay, addresses }))
    }

    /// The bytes of the row.
    pub(super) fn write(&self) -> Bytes {
        let mut value = Vec::with_capacity(18 + self.addresses.len() * 32);
        value.put_u8(VERSION);
        value.put_u64(millis(self.written.since_epoch()));
        let relay = if self.is_relay { RELAY } else { 0 };
        value.put_u8(relay | self.record.map_or(0, |_| RECORD));
        if let Some(number) = self.record {
            value.put_u64(number);
        }
        for RowAddress { address, source, left, is_reached } in &self.addresses {
            let source = SOURCES.iter().position(|each| each == source).unwrap_or(0) as u8;
            value.put_u8(source | if *is_reached { REACHED } else { 0 });
            value.put_u64(left.map_or(FOR_GOOD, |left| millis(left).min(FOR_GOOD - 1)));
            // The peerstore takes none that is longer than MAX_ADDR_LEN.
            value.put_u16(address.len() as u16);
            value.put_slice(address.as_ref());
        }
        value.into()
    }
}

impl RowAddress {
    fn take(value: &mut &[u8], peer: PeerId) -> Option<Self> {
        let [kind] = *take(value)?;
        let source = *SOURCES.get(usize::from(kind & !REACHED))?;
        let left = Some(take_u64(value)?).filter(|left| *left != FOR_GOOD).map(Duration::from_millis);
        let len = u16::from_be_bytes(*take(value)?);
        let (bytes, rest) = value.split_at_checked(usize::from(len))?;
        *value = rest;
        let address = usable(&address::decode_multiaddr(bytes.to_vec()).ok()?, peer)?;
        Some(Self { address, source, left, is_reached: kind & REACHED != 0 })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn take<'a, const N: usize>(value: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (first, rest) = value.split_first_chunk::<N>()?;
    *value = rest;
    Some(first)
}

fn take_u64(value: &mut &[u8]) -> Option<u64> {
    take(value).map(|bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests;
