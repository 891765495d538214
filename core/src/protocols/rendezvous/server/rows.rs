//! Rows of the store: one for the table, one per peer with its records, one per registration. Their keys order them so
//! that a peer is loaded before its registrations.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use bytes::{BufMut as _, Bytes};

use super::{
    dialect::{Dialect, Record},
    owners::Owner,
};
use crate::{protocols::relay::limits::Place, storage::Write, time::UnixTime};

/// What is true of the table as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    /// Drawn when the table was begun: numbers of another table mean nothing here.
    pub(super) epoch: [u8; 16],
    /// No larger number has been given.
    pub(super) reserved: u64,
}

/// A row, read.
#[derive(Debug)]
pub(super) enum Row<'a> {
    Meta(Meta),
    Owner { peer: &'a [u8], host: Option<Place>, records: Vec<Record> },
    Registration { peer: &'a [u8], namespace: &'a str, created: u64, refreshed: u64, expires: UnixTime },
}

const META: u8 = b'm';
const OWNER: u8 = b'p';
const REGISTRATION: u8 = b'r';

impl<'a> Row<'a> {
    /// Reads a row; `None` if it is none of ours.
    pub(super) fn read(key: &'a [u8], mut value: &'a [u8]) -> Option<Self> {
        let (kind, key) = key.split_first()?;
        match *kind {
            META => Some(Self::Meta(Meta { epoch: *take(&mut value)?, reserved: take_u64(&mut value)? })),
            OWNER => {
                let host = take_host(&mut value)?;
                let mut records = Vec::new();
                while !value.is_empty() {
                    records.push(take_record(&mut value)?);
                }
                Some(Self::Owner { peer: key, host, records })
            }
            REGISTRATION => {
                let (len, rest) = key.split_first()?;
                let (peer, namespace) = rest.split_at_checked(usize::from(*len))?;
                Some(Self::Registration {
                    peer,
                    namespace: std::str::from_utf8(namespace).ok()?,
                    created: take_u64(&mut value)?,
                    refreshed: take_u64(&mut value)?,
                    expires: UnixTime::from_duration(Duration::from_millis(take_u64(&mut value)?)),
                })
            }
            _ => None,
        }
    }
}

pub(super) fn put_meta(meta: Meta) -> Write {
    let value = [&meta.epoch[..], &meta.reserved.to_be_bytes()].concat();
    Write::Put { key: Bytes::from_static(&[META]), value: value.into() }
}

pub(super) fn put_owner(owner: Owner<'_>) -> Write {
    let mut value = Vec::new();
    match owner.host() {
        Some(Place::Ip(IpAddr::V4(ip))) => {
            value.put_u8(4);
            value.put_slice(&ip.octets());
        }
        Some(Place::Ip(IpAddr::V6(ip))) => {
            value.put_u8(6);
            value.put_slice(&ip.octets());
        }
        _ => value.put_u8(0),
    }
    for record in owner.records() {
        value.put_u8(record.dialect as u8);
        value.put_u64(record.seq);
        value.put_u32(record.bytes.len() as u32);
        value.put_slice(&record.bytes);
    }
    Write::Put { key: owner_key(owner.peer()), value: value.into() }
}

pub(super) fn delete_owner(peer: &[u8]) -> Write {
    Write::Delete { key: owner_key(peer) }
}

pub(super) fn put_registration(
    peer: &[u8],
    namespace: &str,
    (created, refreshed): (u64, u64),
    expires: UnixTime,
) -> Write {
    let mut value = Vec::with_capacity(24);
    value.put_u64(created);
    value.put_u64(refreshed);
    value.put_u64(u64::try_from(expires.since_epoch().as_millis()).unwrap_or(u64::MAX));
    Write::Put { key: registration_key(peer, namespace), value: value.into() }
}

pub(super) fn delete_registration(peer: &[u8], namespace: &str) -> Write {
    Write::Delete { key: registration_key(peer, namespace) }
}

fn owner_key(peer: &[u8]) -> Bytes {
    [&[OWNER], peer].concat().into()
}

fn registration_key(peer: &[u8], namespace: &str) -> Bytes {
    // A PeerId has at most 80 bytes or so.
    [&[REGISTRATION, peer.len() as u8], peer, namespace.as_bytes()].concat().into()
}

fn take<'a, const N: usize>(value: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (first, rest) = value.split_first_chunk::<N>()?;
    *value = rest;
    Some(first)
}

fn take_u64(value: &mut &[u8]) -> Option<u64> {
    take(value).map(|bytes| u64::from_be_bytes(*bytes))
}

/// The outer `None` is a bad row.
fn take_host(value: &mut &[u8]) -> Option<Option<Place>> {
    match *take(value)? {
        [0] => Some(None),
        [4] => take(value).map(|octets: &[u8; 4]| Some(Place::Ip(Ipv4Addr::from(*octets).into()))),
        [6] => take(value).map(|octets: &[u8; 16]| Some(Place::Ip(Ipv6Addr::from(*octets).into()))),
        _ => None,
    }
}

fn take_record(value: &mut &[u8]) -> Option<Record> {
    let [dialect] = *take(value)?;
    let dialect = *Dialect::ALL.get(usize::from(dialect))?;
    let seq = take_u64(value)?;
    let len = u32::from_be_bytes(*take(value)?) as usize;
    let (bytes, rest) = value.split_at_checked(len)?;
    *value = rest;
    Some(Record { dialect, seq, bytes: bytes.into() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_row_is_too_strange_to_be_looked_at(key: Vec<u8>, value: Vec<u8>) {
            for kind in [META, OWNER, REGISTRATION] {
                let key = [&[kind][..], &key].concat();
                if let Some(Row::Registration { peer, namespace, .. }) = Row::read(&key, &value) {
                    prop_assert_eq!(&registration_key(peer, namespace)[..], &key[..]);
                }
            }
        }

        #[test]
        fn registrations_come_back(
            peer in prop::collection::vec(any::<u8>(), 1..80),
            namespace in "\\PC{1,63}",
            (created, refreshed, millis) in any::<(u64, u64, u64)>(),
        ) {
            let expires = UnixTime::from_duration(Duration::from_millis(millis));
            let write = put_registration(&peer, &namespace, (created, refreshed), expires);
            let Write::Put { key, value } = write else { panic!("not a row") };
            match Row::read(&key, &value) {
                Some(Row::Registration { peer: p, namespace: n, created: c, refreshed: r, expires: e }) => {
                    prop_assert_eq!((p, n, c, r, e), (&peer[..], &namespace[..], created, refreshed, expires));
                }
                other => panic!("{other:?}"),
            }
            prop_assert_eq!(delete_registration(&peer, &namespace), Write::Delete { key });
        }
    }
}
