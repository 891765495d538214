use super::*;
use crate::{keys::peer_id_to_cid, testing::keypair};
use proptest::collection::vec;
use proptest::prelude::*;

fn peer(byte: u8) -> PeerId {
    keypair(byte).public().to_peer_id()
}

/// Parses an address in which R and T stand for the ids of two peers.
fn addr(text: &str) -> Multiaddr {
    let parts = text.split('/').map(|part| match part {
        "R" => peer(1).to_string(),
        "T" => peer(2).to_string(),
        other => other.to_owned(),
    });
    parts.collect::<Vec<_>>().join("/").parse().unwrap()
}

#[test]
fn quic_addresses() {
    let v4: SocketAddr = "192.0.2.1:4001".parse().unwrap();
    let v6: SocketAddr = "[2001:db8::1]:4001".parse().unwrap();
    assert_eq!(quic_v1(v4), addr("/ip4/192.0.2.1/udp/4001/quic-v1"));
    assert_eq!(quic_v1(v6), addr("/ip6/2001:db8::1/udp/4001/quic-v1"));
    assert_eq!(parse_quic_v1(&quic_v1(v6)), Ok((v6, None)));
    assert_eq!(parse_quic_v1(&addr("/ip4/192.0.2.1/udp/4001/quic-v1/p2p/T")), Ok((v4, Some(peer(2)))));
}

#[test]
fn other_addresses_are_not_quic() {
    for text in [
        "/ip4/192.0.2.1/udp/4001",
        "/ip4/192.0.2.1/udp/4001/quic",
        "/ip4/192.0.2.1/tcp/4001",
        "/dns4/example.org/udp/4001/quic-v1",
        "/ip4/192.0.2.1/udp/4001/quic-v1/webtransport",
        "/ip4/192.0.2.1/udp/4001/quic-v1/p2p/R/p2p-circuit",
        "/p2p/R",
    ] {
        assert_eq!(parse_quic_v1(&addr(text)), Err(AddrError::NotQuic), "{text}");
    }
    assert_eq!(parse_quic_v1(&Multiaddr::empty()), Err(AddrError::NotQuic));
}

#[test]
fn circuit_addresses() {
    let whole = addr("/ip4/192.0.2.1/udp/4001/quic-v1/p2p/R/p2p-circuit/p2p/T");
    let relay_addr = addr("/ip4/192.0.2.1/udp/4001/quic-v1");
    let circuit = CircuitAddr { relay_addr, relay: peer(1), target: Some(peer(2)) };
    assert_eq!(CircuitAddr::parse(&whole), Ok(circuit.clone()));
    assert_eq!(Multiaddr::from(circuit.clone()), whole);
    assert_eq!(circuit.relay_with_peer(), addr("/ip4/192.0.2.1/udp/4001/quic-v1/p2p/R"));

    let listen = CircuitAddr::parse(&addr("/dns/relay.example/udp/4001/quic-v1/p2p/R/p2p-circuit")).unwrap();
    assert_eq!((listen.relay, listen.target), (peer(1), None));
    assert!(CircuitAddr::parse(&addr("/p2p/R/p2p-circuit/p2p/T")).unwrap().relay_addr.is_empty());
}

#[test]
fn bad_circuit_addresses_have_their_errors() {
    for (text, error) in [
        ("/ip4/192.0.2.1/udp/1/quic-v1/p2p/R", AddrError::NotCircuit),
        ("/ip4/192.0.2.1/udp/1/quic-v1/p2p-circuit/p2p/T", AddrError::NoRelay),
        ("/p2p-circuit", AddrError::NoRelay),
        ("/ip4/192.0.2.1/udp/1/quic-v1/p2p/T/p2p/R/p2p-circuit", AddrError::ManyRelays),
        ("/p2p/R/p2p-circuit/p2p/T/p2p-circuit", AddrError::NestedCircuit),
        ("/p2p/R/p2p-circuit/p2p/T/p2p/T", AddrError::AfterTarget),
        ("/p2p/R/p2p-circuit/ip4/192.0.2.1", AddrError::AfterTarget),
        ("/p2p/R/p2p-circuit/p2p/R", AddrError::RelayIsTarget),
    ] {
        assert_eq!(CircuitAddr::parse(&addr(text)), Err(error), "{text}");
    }
}

#[test]
fn the_peer_at_the_end() {
    let plain = addr("/ip4/192.0.2.1/udp/1/quic-v1");
    let full = addr("/ip4/192.0.2.1/udp/1/quic-v1/p2p/T");
    assert_eq!(with_peer(plain.clone(), peer(2)), Ok(full.clone()));
    assert_eq!(with_peer(full.clone(), peer(2)), Ok(full.clone()));
    assert_eq!(with_peer(full.clone(), peer(1)), Err(AddrError::OtherPeer(peer(2))));
    assert_eq!(split_peer(&full), (plain.clone(), Some(peer(2))));
    assert_eq!(split_peer(&plain), (plain, None));
    assert_eq!(split_peer(&addr("/p2p/R/p2p-circuit/p2p/T")), (addr("/p2p/R/p2p-circuit"), Some(peer(2))));
    assert_eq!(split_peer(&Multiaddr::empty()), (Multiaddr::empty(), None));
}

#[test]
fn what_an_address_begins_with_and_leads_through() {
    assert_eq!(ip_of(&addr("/ip4/192.0.2.1/udp/1/quic-v1")), Some("192.0.2.1".parse().unwrap()));
    assert_eq!(ip_of(&addr("/ip6/::1/tcp/1")), Some("::1".parse().unwrap()));
    assert_eq!(ip_of(&addr("/dns4/example.org/tcp/1")), None);
    assert!(is_circuit(&addr("/p2p/R/p2p-circuit")));
    assert!(!is_circuit(&addr("/p2p/R")));
}

#[test]
fn binary_addresses_are_measured() {
    let bytes = addr("/ip4/192.0.2.1/udp/1/quic-v1").to_vec();
    assert!(decode_multiaddr(bytes.clone()).is_ok());
    assert_eq!(decode_multiaddr(vec![]), Err(AddrError::Malformed));
    assert_eq!(decode_multiaddr(bytes[..3].to_vec()), Err(AddrError::Malformed));
    assert_eq!(decode_multiaddr(vec![0; 1025]), Err(AddrError::TooLong(1025)));
}

proptest! {
    #[test]
    fn quic_round_trip(socket in any::<SocketAddr>(), id in proptest::option::of(1u8..)) {
        let expected = match socket {
            SocketAddr::V6(v6) => SocketAddr::new(v6.ip().to_canonical(), v6.port()),
            v4 => v4,
        };
        let id = id.map(peer);
        let address = match id {
            Some(id) => with_peer(quic_v1(socket), id).unwrap(),
            None => quic_v1(socket),
        };
        prop_assert_eq!(parse_quic_v1(&address), Ok((expected, id)));
        prop_assert_eq!(decode_multiaddr(address.to_vec()), Ok(address));
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..60), start in 0usize..4) {
        let starts: [&[u8]; 4] = [b"", b"\x04\x01\x02\x03\x04", b"\xa5\x03\x22\x12\x20", b"\xa2\x02"];
        if let Ok(address) = decode_multiaddr([starts[start], &bytes].concat()) {
            let _ = parse_quic_v1(&address);
            let _ = split_peer(&address);
            let _ = ip_of(&address);
            if let Ok(circuit) = CircuitAddr::parse(&address) {
                prop_assert_eq!(Multiaddr::from(circuit), address);
            }
        }
    }
}

#[test]
fn text_of_addresses_may_end_in_slashes_and_name_peers_as_cids() {
    let base58 = peer(1).to_base58();
    let plain: Multiaddr = format!("/ip4/192.0.2.1/udp/4001/quic-v1/p2p/{base58}").parse().unwrap();
    let cid = peer_id_to_cid(&peer(1));
    let (_, bytes) = multibase::decode(&cid).unwrap();
    let in_base = |base| multibase::encode(base, &bytes);
    let base36 = in_base(multibase::Base::Base36Lower);
    assert!(cid.starts_with("bafz") && base36.starts_with("k51"), "{cid} {base36}");
    let base58_cid = in_base(multibase::Base::Base58Btc);
    assert!(base58_cid.starts_with("z5"), "{base58_cid}");
    for name in [&base58, &cid, &base36, &base58_cid] {
        for (tag, end) in [("p2p", ""), ("p2p", "/"), ("ipfs", "//")] {
            let text = format!("/ip4/192.0.2.1/udp/4001/quic-v1/{tag}/{name}{end}");
            assert_eq!(parse_multiaddr(&text), Ok(plain.clone()), "{text}");
        }
        let circuit = parse_multiaddr(&format!("/p2p/{name}/p2p-circuit/p2p/{}/", peer(2))).unwrap();
        assert_eq!(circuit, addr("/p2p/R/p2p-circuit/p2p/T"));
    }
    let bare = parse_multiaddr("/ip4/192.0.2.1/udp/4001/quic-v1/").unwrap();
    assert_eq!(bare, addr("/ip4/192.0.2.1/udp/4001/quic-v1"));
    // A host may be called so.
    assert!(parse_multiaddr("/dns4/p2p/udp/4001/quic-v1").is_ok());
}

#[test]
fn text_that_is_no_address_says_what_is_wrong() {
    let said = |text: &str| parse_multiaddr(text).unwrap_err().to_string();
    assert_eq!(said("/p2p/QmWrong"), "\"QmWrong\" is no peer id: not the multihash of a key");
    let raw = "bafkreiemeosfdll427qzow5tipvctkow4jkqr5pvd4tkzmlmfjg5e7vyvq";
    assert!(said(&format!("/p2p/{raw}")).ends_with("CID is of codec 0x55, not of a libp2p key"));
    assert!(said("192.0.2.1:4001").starts_with("an address begins with a slash"));
    assert!(said("").starts_with("an address begins with a slash"));
    assert!(said("/ip4/192.0.2.999").starts_with("not a known address"));
    assert_eq!(parse_multiaddr(&"/".repeat(4097)), Err(AddrTextError::TooLong(4097)));
}

#[test]
fn an_ipv4_address_written_as_an_ipv6_one_is_ipv4() {
    let mapped = addr("/ip6/::ffff:192.0.2.1/udp/4001/quic-v1");
    assert_eq!(parse_quic_v1(&mapped), Ok(("192.0.2.1:4001".parse().unwrap(), None)));
    assert_eq!(ip_of(&mapped), Some("192.0.2.1".parse().unwrap()));
}
