use super::*;
use crate::keys::{Keypair, decode_peer_id};
use crate::peer_record::{Dialect, PeerRecord};
use crate::testing::{assert_round_trip, bytes_field, hex, keypair};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use rendezvous::{RegisterRecord, RegisterRecordError};

fn blob() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..20)
}

fn blobs() -> impl Strategy<Value = Vec<Vec<u8>>> {
    vec(blob(), 0..5)
}

#[test]
fn known_bytes() {
    assert_eq!(encode_delimited(&relay::HopMessage::reserve())[..], hex("020800"));
    assert_eq!(
        encode_delimited(&relay::HopMessage::connect(vec![7]))[..],
        hex("0708011203").into_iter().chain([0x0a, 1, 7]).collect::<Vec<_>>()
    );
    assert_eq!(relay::HopMessage::answer(relay::Status::NoReservation).encode_to_vec(), hex("080228cc01"));
    assert_eq!(relay::StopMessage::answer(relay::Status::Ok).encode_to_vec(), hex("08012064"));
    assert_eq!(dcutr::HolePunch::connect(vec![vec![1]]).encode_to_vec(), hex("0864120101"));
    assert_eq!(dcutr::HolePunch::sync().encode_to_vec(), hex("08ac02"));
    let identify = identify::Identify { signed_peer_record: Some(vec![5]), ..Default::default() };
    assert_eq!(identify.encode_to_vec(), hex("420105"));
    assert_eq!(autonat::v2::DialBack { nonce: 1 }.encode_to_vec(), hex("090100000000000000"));
}

#[test]
fn unknown_values_are_kept_and_are_no_known_ones() {
    let message: relay::HopMessage = decode(&hex("080928e807")).unwrap();
    assert_eq!((message.r#type, message.kind()), (Some(9), None));
    assert_eq!((message.status, message.known_status()), (Some(1000), None));
    assert_eq!(message.encode_to_vec(), hex("080928e807"));
    assert_eq!(relay::HopMessage::default().kind(), None, "absent is not RESERVE");
}

#[test]
fn rendezvous_reads_the_zeros_that_proto3_leaves_out() {
    use rendezvous::{Message, MessageType, ResponseStatus};
    let asked: Message = decode(&hex("12040a026e73")).unwrap();
    assert_eq!(asked.kind(), Some(MessageType::Register));
    assert_eq!(asked.register.unwrap().ns.as_deref(), Some("ns"));
    let answer: Message = decode(&hex("08011a0318a038")).unwrap();
    assert_eq!(answer.kind(), Some(MessageType::RegisterResponse));
    let answer = answer.register_response.unwrap();
    assert_eq!((answer.known_status(), answer.ttl), (Some(ResponseStatus::Ok), Some(7200)));
    assert_eq!(decode::<Message>(&hex("0805")).unwrap().kind(), None);
}

#[test]
fn unknown_fields_are_skipped() {
    let message: relay::HopMessage = decode(&hex("0800a20602abcd")).unwrap();
    assert_eq!(message, relay::HopMessage::reserve());
}

#[test]
fn fields_are_counted_where_they_hide() {
    let empty_address = bytes_field(2, b"");
    let peer = |count: usize| bytes_field(2, &empty_address.repeat(count));
    let max = relay::HopMessage::MAX_FIELDS;
    assert!(decode::<relay::HopMessage>(&peer(max - 1)).is_ok());
    assert_eq!(decode::<relay::HopMessage>(&peer(max)), Err(DecodeError::TooManyFields { max }));

    let found = bytes_field(6, &bytes_field(1, b"").repeat(500_000));
    assert_eq!(decode::<rendezvous::Message>(&found), Err(DecodeError::TooManyFields { max: 8192 }));
    let unknown = hex("7801").repeat(2000);
    assert_eq!(decode::<dcutr::HolePunch>(&unknown), Err(DecodeError::TooManyFields { max: 128 }));
    assert_eq!(
        decode_within::<dcutr::HolePunch>(&hex("0864120101"), 1),
        Err(DecodeError::TooManyFields { max: 1 })
    );
}

#[test]
fn what_is_not_protobuf() {
    for bytes in [
        "80",
        "08",
        "0a05aa",
        "0b",
        "0c",
        "0f",
        "09aabb",
        "0daa",
        "08ffffffffffffffffffffff01",
        "12ffffffffffffffff7f",
    ] {
        assert_eq!(guard(&hex(bytes), 9, Shape::FLAT), Err(DecodeError::Malformed), "{bytes}");
    }
    assert!(matches!(decode::<identify::Identify>(&hex("1a02ff00")), Err(DecodeError::Field(_))));
    assert!(matches!(decode::<identify::Identify>(&hex("1801")), Err(DecodeError::Field(_))));
    assert!(matches!(decode::<identify::Identify>(&hex("0000")), Err(DecodeError::Field(_))));
}

#[test]
fn private_keys_are_not_printed() {
    let key = keys::PrivateKey { r#type: Some(1), data: Some(vec![77; 64]) };
    assert_eq!(format!("{key:?}"), "PrivateKey { type: Some(1), .. }");
}

fn signed(keypair: &Keypair) -> Vec<u8> {
    let peer = keypair.public().to_peer_id();
    PeerRecord { peer, seq: 1, addresses: vec![] }.seal(keypair, Dialect::Standard).unwrap().encode()
}

#[test]
fn both_dialects_of_registrations() {
    let key = keypair(1);
    let peer = key.public().to_peer_id();
    let RegisterRecord::SignedPeerRecord(envelope) = RegisterRecord::decode(&signed(&key)).unwrap() else {
        panic!("an envelope is a signed record")
    };
    assert_eq!(PeerRecord::open(&envelope).unwrap().peer, peer);

    let address: multiaddr::Multiaddr = "/ip4/192.0.2.1/udp/4001/quic-v1".parse().unwrap();
    let unknown = hex("ffff03");
    let info = rendezvous::PeerInfo { id: Some(peer.to_bytes()), addrs: vec![address.to_vec(), unknown] };
    let expected = RegisterRecord::PeerInfo { peer, addresses: vec![address] };
    assert_eq!(RegisterRecord::decode(&info.encode_to_vec()), Ok(expected));
}

#[test]
fn bad_registrations_have_their_errors() {
    let id = keypair(1).public().to_peer_id().to_bytes();
    let decode = |info: rendezvous::PeerInfo| RegisterRecord::decode(&info.encode_to_vec()).unwrap_err();
    let many = rendezvous::PeerInfo { id: Some(id.clone()), addrs: vec![vec![1]; 501] };
    assert_eq!(decode(many), RegisterRecordError::TooManyAddresses(501));
    let long = rendezvous::PeerInfo { id: Some(id), addrs: vec![vec![0; 1025]] };
    assert!(matches!(decode(long), RegisterRecordError::Address(_)));
    assert!(matches!(decode(rendezvous::PeerInfo::default()), RegisterRecordError::PeerId(_)));
    let no_key = bytes_field(5, b"signature");
    assert!(matches!(RegisterRecord::decode(&no_key), Err(RegisterRecordError::Envelope(_))));
    assert!(matches!(RegisterRecord::decode(&[0xff]), Err(RegisterRecordError::PeerInfo(_))));
}

proptest! {
    #[test]
    fn identify_round_trips(
        (public_key, observed_addr, signed_peer_record) in (of(blob()), of(blob()), of(blob())),
        listen_addrs in blobs(),
        protocols in vec("\\PC{0,12}", 0..5),
        (protocol_version, agent_version) in (of("\\PC{0,12}"), of("\\PC{0,12}")),
    ) {
        assert_round_trip(&identify::Identify {
            public_key, listen_addrs, protocols, observed_addr, protocol_version, agent_version, signed_peer_record,
        });
    }

    #[test]
    fn relay_round_trips(
        (kind, status) in (of(any::<i32>()), of(any::<i32>())),
        (id, addrs) in (of(blob()), blobs()),
        (expire, voucher) in (of(any::<u64>()), of(blob())),
        (duration, data) in (of(any::<u32>()), of(any::<u64>())),
    ) {
        let peer = Some(relay::Peer { id: id.clone(), addrs: addrs.clone() });
        let reservation = Some(relay::Reservation { expire, addrs, voucher: voucher.clone() });
        let limit = Some(relay::Limit { duration, data });
        assert_round_trip(&relay::HopMessage { r#type: kind, peer: peer.clone(), reservation, limit, status });
        assert_round_trip(&relay::StopMessage { r#type: kind, peer, limit, status });
        assert_round_trip(&relay::VoucherPayload { relay: id, peer: voucher, expiration: expire });
    }

    #[test]
    fn dcutr_and_noise_round_trip(kind in of(any::<i32>()), (a, b) in (of(blob()), of(blob())), many in blobs(),
        muxers in vec("\\PC{0,12}", 0..5),
    ) {
        assert_round_trip(&dcutr::HolePunch { r#type: kind, obs_addrs: many.clone() });
        let extensions = Some(noise::NoiseExtensions { webtransport_certhashes: many, stream_muxers: muxers });
        assert_round_trip(&noise::NoiseHandshakePayload { identity_key: a.clone(), identity_sig: b.clone(), extensions });
        assert_round_trip(&keys::PublicKey { r#type: kind, data: a });
        assert_round_trip(&keys::PrivateKey { r#type: kind, data: b });
    }

    #[test]
    fn records_round_trip((a, b, c, d) in (blob(), blob(), blob(), blob()), seq in any::<u64>(), many in blobs()) {
        let addresses = many.into_iter().map(|multiaddr| record::AddressInfo { multiaddr }).collect();
        assert_round_trip(&record::PeerRecord { peer_id: a.clone(), seq, addresses });
        assert_round_trip(&record::Envelope { public_key: a, payload_type: b, payload: c, signature: d });
    }

    #[test]
    fn rendezvous_round_trips(
        (kind, status) in (of(any::<i32>()), of(any::<i32>())),
        (ns, status_text) in (of("\\PC{0,12}"), of("\\PC{0,12}")),
        (blob, number) in (of(blob()), of(any::<u64>())),
        many in blobs(),
    ) {
        let register = rendezvous::Register { ns: ns.clone(), signed_peer_record: blob.clone(), ttl: number, other_record: blob.clone() };
        assert_round_trip(&rendezvous::Message {
            r#type: kind,
            register: Some(register.clone()),
            register_response: Some(rendezvous::RegisterResponse { status, status_text: status_text.clone(), ttl: number }),
            unregister: Some(rendezvous::Unregister { ns: ns.clone(), id: blob.clone() }),
            discover: Some(rendezvous::Discover { ns, limit: number, cookie: blob.clone(), any_dialect: None }),
            discover_response: Some(rendezvous::DiscoverResponse {
                registrations: vec![register; 3], cookie: blob.clone(), status, status_text,
            }),
        });
        assert_round_trip(&rendezvous::PeerInfo { id: blob, addrs: many });
    }

    #[test]
    fn a_page_is_the_message_it_stands_for(
        many in prop::collection::vec(("\\PC{0,40}", blob(), any::<u64>()), 0..8),
        cookie in blob(),
    ) {
        let mut page = rendezvous::Page::default();
        let mut registrations = Vec::new();
        for (ns, record, ttl) in many {
            page.push(&ns, &[&record], ttl);
            registrations.push(rendezvous::Register { ns: Some(ns), signed_peer_record: Some(record), ttl: Some(ttl), other_record: None });
        }
        let size = page.size();
        let whole = rendezvous::Message {
            r#type: Some(4),
            discover_response: Some(rendezvous::DiscoverResponse {
                registrations, cookie: Some(cookie.clone()), status: Some(0), status_text: None,
            }),
            ..Default::default()
        };
        let bytes = page.finish(cookie.clone());
        prop_assert_eq!(&bytes[..], &whole.encode_to_vec()[..]);
        prop_assert!(bytes.len() - size - cookie.len() < 32);
    }

    #[test]
    fn autonat_round_trips(
        (number, small, code, kind) in (any::<u64>(), any::<u32>(), any::<i32>(), of(any::<i32>())),
        (bytes, addrs) in (blob(), blobs()),
        status_text in of("\\PC{0,12}"),
    ) {
        use autonat::v2::*;
        for msg in [
            Msg::DialRequest(DialRequest { addrs: addrs.clone(), nonce: number }),
            Msg::DialResponse(DialResponse { status: code, addr_idx: small, dial_status: code }),
            Msg::DialDataRequest(DialDataRequest { addr_idx: small, num_bytes: number }),
            Msg::DialDataResponse(DialDataResponse { data: bytes.clone() }),
        ] {
            assert_round_trip(&Message { msg: Some(msg) });
        }
        assert_round_trip(&DialBack { nonce: number });
        assert_round_trip(&DialBackResponse { status: code });
        let peer = Some(autonat::v1::PeerInfo { id: Some(bytes.clone()), addrs });
        assert_round_trip(&autonat::v1::Message {
            r#type: kind,
            dial: Some(autonat::v1::Dial { peer }),
            dial_response: Some(autonat::v1::DialResponse { status: kind, status_text, addr: Some(bytes) }),
        });
    }

    /// What prost takes, the guard takes, as long as there are few fields and no groups.
    #[test]
    fn the_guard_lets_pass_what_is_fine(protocols in vec("[a-z]{0,5}", 0..50), public_key in of(blob())) {
        let count = protocols.len() + usize::from(public_key.is_some());
        let message = identify::Identify { protocols, public_key, ..Default::default() };
        prop_assert_eq!(guard(&message.encode_to_vec(), count, Shape::FLAT), Ok(()));
        if count > 0 {
            let max = count - 1;
            prop_assert_eq!(guard(&message.encode_to_vec(), max, Shape::FLAT), Err(DecodeError::TooManyFields { max }));
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..120), tag in 1u32..8, inner in 1u32..8) {
        let likely = bytes_field(tag, &bytes_field(inner, &bytes));
        for bytes in [&bytes, &likely] {
            let _ = decode::<identify::Identify>(bytes);
            let _ = decode::<relay::HopMessage>(bytes);
            let _ = decode::<relay::StopMessage>(bytes);
            let _ = decode::<dcutr::HolePunch>(bytes);
            let _ = decode::<rendezvous::Message>(bytes);
            let _ = decode::<autonat::v1::Message>(bytes);
            let _ = decode::<autonat::v2::Message>(bytes);
            let _ = decode::<noise::NoiseHandshakePayload>(bytes);
            let _ = decode::<record::PeerRecord>(bytes);
            let _ = RegisterRecord::decode(bytes);
            let _ = decode_peer_id(bytes);
        }
    }
}
