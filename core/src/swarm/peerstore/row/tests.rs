use super::*;
use crate::rng::Rng;

const SEED: u8 = 64;

fn peer(n: u8) -> PeerId {
    libp2p_identity::Keypair::ed25519_from_bytes([n; 32]).unwrap().public().to_peer_id()
}

fn random(rng: &mut Rng) -> Row {
    let address = |rng: &mut Rng| {
        let port = 1 + rng.below(u64::from(u16::MAX));
        let host = ["/ip4/192.0.2.1", "/ip6/2001:db8::1", "/dns/example.com"][rng.below(3) as usize];
        RowAddress {
            address: format!("{host}/udp/{port}/quic-v1").parse().unwrap(),
            source: SOURCES[rng.below(4) as usize],
            left: (rng.below(3) > 0).then(|| Duration::from_millis(rng.below(FOR_GOOD))),
            is_reached: rng.below(2) == 0,
        }
    };
    Row {
        written: UnixTime::from_duration(Duration::from_millis(rng.below(u64::MAX))),
        record: (rng.below(2) == 0).then(|| rng.below(u64::MAX)),
        is_relay: rng.below(2) == 0,
        addresses: (0..rng.below(MAX_ADDRESSES as u64 + 1)).map(|_| address(rng)).collect(),
    }
}

#[test]
fn rows_come_back() {
    let mut rng = Rng::new([SEED; 32]);
    for step in 0..1000 {
        let (peer, row) = (peer(rng.below(256) as u8), random(&mut rng));
        assert_eq!(
            Row::read(&peer.to_bytes(), &row.write()),
            Some((peer, row)),
            "step {step} of seed {SEED}"
        );
    }
}

#[test]
fn a_row_stands_as_it_was_agreed() {
    let address = RowAddress {
        address: "/ip4/192.0.2.1/udp/4001".parse().unwrap(),
        source: Source::Certified,
        left: Some(Duration::from_secs(1)),
        is_reached: true,
    };
    let row =
        Row { written: UnixTime::from_secs(2), record: Some(3), is_relay: false, addresses: vec![address] };
    let hex = |row: &Row| row.write().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let relay = Row { record: None, is_relay: true, addresses: Vec::new(), ..row.clone() };
    assert_eq!(hex(&relay), "0100000000000007d002", "version, milliseconds, a relay");
    let hex = hex(&row);
    assert_eq!(
        hex,
        concat!(
            "01",
            "00000000000007d0",
            "01",
            "0000000000000003", // version, milliseconds, record
            "82",
            "00000000000003e8",
            "0009",
            "04c0000201",
            "91020fa1", // reached and certified, left, address
        )
    );
}

/// What is read is written again as the same bytes, so no two rows say the same.
fn judge(key: &[u8], value: &[u8]) -> bool {
    let read = Row::read(key, value);
    if let Some((peer, row)) = &read {
        assert_eq!((&peer.to_bytes()[..], &row.write()[..]), (key, value));
        assert!(row.addresses.len() <= MAX_ADDRESSES);
    }
    read.is_some()
}

#[test]
fn rows_cut_short_or_with_any_byte_flipped_are_no_rows_or_other_good_ones() {
    let mut rng = Rng::new([SEED + 1; 32]);
    let (mut cut, mut good) = (0, 0);
    for _ in 0..50 {
        let (key, value) = (peer(rng.below(256) as u8).to_bytes(), random(&mut rng).write());
        for len in 0..value.len() {
            cut += usize::from(judge(&key, &value[..len]));
        }
        for at in 0..value.len() {
            for bit in 0..8 {
                let mut value = value.to_vec();
                value[at] ^= 1 << bit;
                good += usize::from(judge(&key, &value));
            }
        }
        for at in 0..key.len() {
            let mut key = key.clone();
            key[at] ^= 1 << rng.below(8);
            judge(&key, &value);
            judge(&key[..at], &value);
        }
    }
    assert!(cut > 50 && good > 1000, "addresses may be missing, and numbers may be others: {cut}, {good}");
}

#[test]
fn counts_and_lengths_are_not_believed() {
    let key = peer(1).to_bytes();
    let head = |record: &[u8]| [&[VERSION][..], &[0xff; 8], record].concat();
    let entry =
        |kind: u8, len: u16, address: &[u8]| [&[kind][..], &[0xff; 8], &len.to_be_bytes(), address].concat();
    let place: Multiaddr = "/ip4/192.0.2.1/udp/4001/quic-v1".parse().unwrap();
    let good = entry(3, place.len() as u16, place.as_ref());
    let read = |value: &[u8]| Row::read(&key, value).map(|(_, row)| row);

    let row = read(&[head(&[1]), vec![0xff; 8], good.clone()].concat()).unwrap();
    assert_eq!((row.record, row.addresses[0].left), (Some(u64::MAX), None));
    assert!(read(&head(&[0])).is_some());
    assert_eq!(read(&[&head(&[0])[..], &good.repeat(MAX_ADDRESSES + 1)].concat()), None, "too many");
    assert_eq!(read(&head(&[4])), None, "something of which we know nothing");
    assert_eq!(read(&[head(&[0]), entry(4, 9, place.as_ref())].concat()), None, "an unknown source");
    assert_eq!(read(&[head(&[0]), entry(3, u16::MAX, place.as_ref())].concat()), None, "longer than the row");
    assert_eq!(read(&[head(&[0]), entry(3, 0, &[])].concat()), None, "an empty address");
    let long: Multiaddr = format!("/dns/{}", "a".repeat(MAX_ADDR_LEN)).parse().unwrap();
    assert_eq!(read(&[head(&[0]), entry(3, long.len() as u16, long.as_ref())].concat()), None, "too long");
    let other = place.with(multiaddr::Protocol::P2p(peer(2)));
    assert_eq!(
        read(&[head(&[0]), entry(3, other.len() as u16, other.as_ref())].concat()),
        None,
        "of another"
    );
    assert_eq!(read(&vec![VERSION; MAX_ROW + 1]), None);
    assert_eq!(Row::read(b"", &head(&[0])), None);
    assert_eq!(Row::read(b"rendezvous", &head(&[0])), None);
}
