use super::*;

pub(crate) fn peer(n: u8) -> PeerId {
    let mut multihash = vec![0x12, 32]; // SHA-256
    multihash.extend([n; 32]);
    PeerId::from_bytes(&multihash).expect("a SHA-256 digest is a peer id")
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn network(text: &str) -> Network {
    text.parse().unwrap()
}

fn address_dial(gate: &Gate, at: &str, peer: Option<PeerId>) -> Result<(), Denial> {
    gate.judge(&Candidate::AddressDial { ip: ip(at), peer }).map_err(|denied| denied.why)
}

fn accept(gate: &Gate, at: &str) -> Result<(), Denial> {
    gate.judge(&Candidate::Accept { ip: ip(at) }).map_err(|denied| denied.why)
}

fn secured(gate: &Gate, at: Option<&str>, peer: PeerId) -> Result<(), Denial> {
    let candidate = Candidate::Secured { peer, ip: at.map(ip), direction: Direction::Inbound };
    gate.judge(&candidate).map_err(|denied| denied.why)
}

#[test]
fn by_default_all_pass() {
    let gate = Gate::new(GateConfig::default());
    assert_eq!(gate.judge(&Candidate::PeerDial { peer: peer(1) }), Ok(()));
    assert_eq!(accept(&gate, "127.0.0.1"), Ok(()));
    assert_eq!(secured(&gate, None, peer(1)), Ok(()));
}

#[test]
fn what_is_denied_is_denied_though_it_is_allowed_too() {
    let mut gate = Gate::new(GateConfig::default());
    gate.allow(Entry::Network(network("192.0.2.0/24")));
    gate.allow(Entry::Peer(peer(1)));
    gate.deny(Entry::Network(network("192.0.2.0/25")));
    gate.deny(Entry::Peer(peer(2)));
    let denied = Err(Denial::Network(network("192.0.2.0/25")));
    assert_eq!(accept(&gate, "192.0.2.1"), denied);
    assert_eq!(accept(&gate, "::ffff:192.0.2.1"), denied, "the same address in IPv6");
    assert_eq!(accept(&gate, "64:ff9b::192.0.2.1"), denied, "through NAT64");
    assert_eq!(address_dial(&gate, "192.0.2.1", Some(peer(1))), denied);
    assert_eq!(accept(&gate, "192.0.2.129"), Ok(()));
    assert_eq!(secured(&gate, Some("192.0.2.129"), peer(2)), Err(Denial::Peer));
    let denied = gate.judge(&Candidate::PeerDial { peer: peer(2) });
    assert_eq!(denied, Err(Denied { at: Point::PeerDial, why: Denial::Peer }));
}

#[test]
fn an_allow_list_of_networks_lets_nothing_else_in() {
    let mut gate = Gate::new(GateConfig::default());
    gate.allow(Entry::Network(network("192.0.2.0/24")));
    assert_eq!(accept(&gate, "198.51.100.1"), Err(Denial::NotAllowed));
    assert_eq!(address_dial(&gate, "198.51.100.1", Some(peer(1))), Err(Denial::NotAllowed));
    assert_eq!(gate.judge(&Candidate::PeerDial { peer: peer(1) }), Ok(()), "its address is judged later");
    assert_eq!(
        secured(&gate, None, peer(1)),
        Err(Denial::NotAllowed),
        "nothing is known that would allow it"
    );
    assert!(gate.disallow(Entry::Network(network("192.0.2.0/24"))));
    assert_eq!(accept(&gate, "198.51.100.1"), Ok(()), "without a list all pass");
}

#[test]
fn an_allow_list_of_peers_is_asked_as_soon_as_the_peer_is_known() {
    let mut gate = Gate::new(GateConfig::default());
    gate.allow(Entry::Peer(peer(1)));
    assert_eq!(accept(&gate, "198.51.100.1"), Ok(()), "it may be the peer");
    assert_eq!(secured(&gate, Some("198.51.100.1"), peer(2)), Err(Denial::NotAllowed));
    assert_eq!(secured(&gate, Some("198.51.100.1"), peer(1)), Ok(()));
    assert!(gate.judge(&Candidate::PeerDial { peer: peer(2) }).is_err());
    gate.allow(Entry::Network(network("198.51.100.0/24")));
    assert_eq!(secured(&gate, Some("198.51.100.1"), peer(2)), Ok(()), "one of the two is enough");
    assert!(gate.allows_by_name(&peer(1), None) && !gate.allows_by_name(&peer(2), Some(ip("192.0.2.1"))));
    assert!(gate.allows_by_name(&peer(2), Some(ip("198.51.100.1"))));
}

#[test]
fn private_addresses_pass_only_if_they_may() {
    let gate = Gate::new(GateConfig { allow_private: false, ..GateConfig::default() });
    for at in
        ["10.0.0.1", "127.0.0.1", "::1", "fe80::1", "::ffff:192.168.0.1", "2002:a00:1::", "64:ff9b::10.0.0.1"]
    {
        assert!(matches!(accept(&gate, at), Err(Denial::Private(_))), "{at}");
        assert!(matches!(address_dial(&gate, at, None), Err(Denial::Private(_))), "{at}");
    }
    assert_eq!(accept(&gate, "1.1.1.1"), Ok(()));
}

#[test]
fn the_embedder_has_the_last_word_at_every_point() {
    let gater = Gater::new(|candidate| !matches!(candidate, Candidate::Accept { ip } if ip.is_ipv6()));
    let gate = Gate::new(GateConfig { gater: Some(gater), ..GateConfig::default() });
    assert_eq!(accept(&gate, "2001:db8::1"), Err(Denial::Gater));
    assert_eq!(accept(&gate, "192.0.2.1"), Ok(()));
}

#[test]
fn an_entry_is_a_network_or_a_peer_and_nothing_else() {
    assert_eq!("10.0.0.0/8".parse(), Ok(Entry::Network(network("10.0.0.0/8"))));
    assert_eq!(peer(1).to_string().parse(), Ok(Entry::Peer(peer(1))));
    for text in ["10.0.0.0/33", "10.0.0.1/8", "example.org", "", "Qm"] {
        assert_eq!(text.parse::<Entry>(), Err(NotAnEntry), "{text:?}");
    }
}

#[test]
fn an_entry_may_name_a_peer_as_a_cid() {
    let (peer, cid) = (peer(1), peerless_proto::keys::peer_id_to_cid(&peer(1)));
    for text in [peer.to_base58(), cid] {
        assert_eq!(text.parse(), Ok(Entry::Peer(peer)), "{text}");
    }
}
