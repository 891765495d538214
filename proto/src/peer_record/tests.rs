use super::*;
use crate::testing::{hex, keypair};
use proptest::collection::vec;
use proptest::prelude::*;

/// Written by go-libp2p 0.48.0.
const GO: &str = "0a24080112208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c120203011a550a2600240801\
    12208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c10bdaadeec051a0d0a0b04c00002009102002acd031a\
    160a142920010db800000000000000000000000106002a2a40c7a043f8dffc8aa8d29294985fbb8e8b012d83a1f5d8e37e97d837bd5c4e82\
    333f8336a901a0412cf823b858bf2dbb07e84e739e2d2b994d0d099d7ac4e9e40f";

/// Written by libp2p-core 0.44.0 of rust, its `PeerRecord::new`.
const OLD_RUST: &str = "0a24080112208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c121c2f6c696270327\
    02f726f7574696e672d73746174652d7265636f72641a550a260024080112208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf\
    3748801b40f6f5c10b1bd80d8061a0d0a0b04c00002009102002acd031a160a142920010db800000000000000000000000106002a2a405be\
    8621971d23731d44630555721360390ea64add2520ec5dd00c7f435d11e70ed7cd97d97aedfa822f85fab9547b745bb97a18a5b57445b39f\
    9b7c7322c2201";

/// Written by libp2p-core 0.44.0 of rust, its `PeerRecord::new_interop`.
const NEW_RUST: &str = "0a24080112208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c120203011a550a260\
    024080112208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c10b1bd80d8061a0d0a0b04c00002009102002\
    acd031a160a142920010db800000000000000000000000106002a2a40c07ddf0c0b4185f96d2e6dd21ba606b988326e92a648caafedf693e\
    ffd2303aec3a5af1cdbaa3f40905fecef31658f72d9c296db07f9877034e0727d1c0da90f";

fn record(seq: u64) -> PeerRecord {
    PeerRecord {
        peer: keypair(1).public().to_peer_id(),
        seq,
        addresses: ["/ip4/192.0.2.0/udp/42/quic-v1", "/ip6/2001:db8::1/tcp/42"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect(),
    }
}

#[test]
fn records_of_other_implementations_open_and_are_written_alike() {
    for (bytes, dialect, seq) in [
        (GO, Dialect::Standard, 1570215229),
        (NEW_RUST, Dialect::Standard, 1795169969),
        (OLD_RUST, Dialect::RoutingState, 1795169969),
    ] {
        let bytes = hex(bytes);
        let envelope = Envelope::decode(&bytes).unwrap();
        assert_eq!(Dialect::of(&envelope), Some(dialect));
        assert_eq!(PeerRecord::open(&envelope), Ok(record(seq)));
        assert_eq!(record(seq).seal(&keypair(1), dialect).unwrap().encode(), bytes);
    }
}

#[test]
fn only_the_peer_itself_signs() {
    let other = keypair(2);
    let signer = other.public().to_peer_id();
    assert_eq!(record(1).seal(&other, Dialect::Standard), Err(PeerRecordError::Signer(signer)));
    let payload = record_message(record(1).addresses.iter().map(Multiaddr::to_vec)).encode_to_vec();
    for dialect in [Dialect::Standard, Dialect::RoutingState] {
        let forged =
            Envelope::sign(&other, dialect.domain(), dialect.payload_type(), payload.clone()).unwrap();
        assert_eq!(PeerRecord::open(&forged), Err(PeerRecordError::Signer(signer)));
    }
}

fn record_message(addresses: impl Iterator<Item = Vec<u8>>) -> pb::record::PeerRecord {
    pb::record::PeerRecord {
        peer_id: record(1).peer.to_bytes(),
        seq: 1,
        addresses: addresses.map(|multiaddr| pb::record::AddressInfo { multiaddr }).collect(),
    }
}

/// Opens an envelope, rightly signed, with this payload.
fn open(payload: Vec<u8>) -> Result<PeerRecord, PeerRecordError> {
    let dialect = Dialect::Standard;
    PeerRecord::open(&Envelope::sign(&keypair(1), dialect.domain(), dialect.payload_type(), payload).unwrap())
}

fn open_with(addresses: impl Iterator<Item = Vec<u8>>) -> Result<PeerRecord, PeerRecordError> {
    open(record_message(addresses).encode_to_vec())
}

#[test]
fn addresses_are_counted_and_measured() {
    let address = record(1).addresses[0].to_vec();
    let copies = |count| std::iter::repeat_n(address.clone(), count);
    assert_eq!(open_with(copies(500)).unwrap().addresses.len(), 500);
    assert_eq!(open_with(copies(501)), Err(PeerRecordError::TooManyAddresses(501)));
    assert!(matches!(
        open_with(copies(900)),
        Err(PeerRecordError::Malformed(DecodeError::TooManyFields { .. }))
    ));
    assert_eq!(open_with([vec![0; 1025]].into_iter()), Err(PeerRecordError::AddressTooLong(1025)));

    let many = PeerRecord { addresses: vec![record(1).addresses[0].clone(); 501], ..record(1) };
    assert_eq!(many.seal(&keypair(1), Dialect::Standard), Err(PeerRecordError::TooManyAddresses(501)));
}

#[test]
fn unknown_addresses_are_left_out() {
    let known = record(1).addresses;
    let with_unknown = [known[0].to_vec(), vec![0xff, 0xff, 0x03, 1, 2], vec![], known[1].to_vec()];
    assert_eq!(open_with(with_unknown.into_iter()).unwrap().addresses, known);
}

#[test]
fn envelopes_of_something_else() {
    let voucher = Envelope::sign(&keypair(1), "libp2p-relay-rsvp", &[3, 2], vec![]).unwrap();
    assert_eq!(PeerRecord::open(&voucher), Err(EnvelopeError::PayloadType.into()));
    let crossed = Envelope::sign(&keypair(1), "libp2p-routing-state", &[3, 1], vec![]).unwrap();
    assert_eq!(PeerRecord::open(&crossed), Err(EnvelopeError::Signature.into()));
    assert_eq!(open(vec![]), Err(PeerIdError::BadMultihash.into()));
    assert_eq!(open(vec![0xff]), Err(DecodeError::Malformed.into()));
}

proptest! {
    #[test]
    fn round_trip(seq in any::<u64>(), ports in vec(any::<u16>(), 0..20), old in any::<bool>()) {
        let addresses = ports.iter().map(|port| format!("/ip4/10.0.0.1/udp/{port}/quic-v1").parse().unwrap());
        let record = PeerRecord { addresses: addresses.collect(), ..record(seq) };
        let dialect = if old { Dialect::RoutingState } else { Dialect::Standard };
        let sealed = record.seal(&keypair(1), dialect).unwrap().encode();
        prop_assert_eq!(PeerRecord::open(&Envelope::decode(&sealed).unwrap()), Ok(record));
    }

    #[test]
    fn random_payloads_never_panic(bytes in vec(any::<u8>(), 0..100)) {
        let _ = open(bytes);
    }

    #[test]
    fn random_addresses_never_panic(addresses in vec(vec(any::<u8>(), 0..40), 0..8)) {
        prop_assert!(open_with(addresses.into_iter()).is_ok());
    }
}
