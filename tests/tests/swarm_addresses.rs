//! Addresses at which nobody else can be: they are not dialled, and not believed if somebody says them.

use multiaddr::{Multiaddr, Protocol};
use peerless_core::{
    PeerId,
    behaviour::{Action, Behaviour, Context, Input},
    errors::DialError,
    names::ProtocolSpec,
    swarm::peerstore::Source,
};
use peerless_tests::{
    host::HostId,
    solo::{address, peer},
    world::{World, secs},
};

fn places(text: &[&str]) -> Vec<Multiaddr> {
    text.iter().map(|text| address(text)).collect()
}

/// No packet leaves for any of them, and each says why.
fn refused(w: &mut World, host: HostId, peer: Option<PeerId>, address: Multiaddr) -> String {
    let before = w.traffic().datagrams;
    let error: DialError =
        w.try_dial(host, peer, std::slice::from_ref(&address)).expect_err("nobody is there");
    assert_eq!(w.traffic().datagrams, before, "{address}");
    assert_eq!(w.node(host).stats().quic.dialing, 0);
    error.attempts[0].1.to_string()
}

#[test]
fn addresses_that_lead_to_no_host_are_not_dialled() {
    let mut w = World::new(171);
    let a = w.host("A").start();
    let somebody = peer("B");
    for (text, why) in [
        ("/ip4/0.0.0.0/udp/4001/quic-v1", "0.0.0.0 and :: name no host"),
        ("/ip4/224.0.0.1/udp/4001/quic-v1", "a multicast address names no single host"),
        ("/ip6/ff02::1/udp/4001/quic-v1", "a multicast address names no single host"),
        ("/ip4/240.0.0.1/udp/4001/quic-v1", "240.0.0.0/4 is reserved, no host is there"),
        ("/ip4/255.255.255.255/udp/4001/quic-v1", "a broadcast address names no single host"),
        ("/ip4/203.0.113.7/udp/0/quic-v1", "port 0 is no port"),
        ("/dns4/example.org/udp/0/quic-v1", "port 0 is no port"),
        ("/ip6/::ffff:224.0.0.1/udp/4001/quic-v1", "a multicast address names no single host"),
        (
            "/ip6/fe80::1/udp/4001/quic-v1",
            "a link-local IPv6 address leads to no host without its interface, which multiaddrs of QUIC do not name",
        ),
    ] {
        assert_eq!(refused(&mut w, a, Some(somebody), address(text)), why);
        let relay = address(text).with(Protocol::P2p(peer("R"))).with(Protocol::P2pCircuit);
        assert_eq!(refused(&mut w, a, None, relay.with(Protocol::P2p(somebody))), why, "through {text}");
    }
    assert_eq!(w.node(a).counters().get("dial.refused.hostless"), 18);
    w.shutdown();
}

#[test]
fn an_address_of_our_own_is_not_dialled_whoever_is_said_to_be_there() {
    let mut w = World::new(172);
    let (a, b) = (w.host("A").start(), w.host("B").start());
    let ours: Multiaddr = w[a].address().iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect();
    let why = "that is an address of this node itself";
    assert_eq!(refused(&mut w, a, None, ours.clone()), why);
    assert_eq!(refused(&mut w, a, Some(peer("X")), ours.clone()), why);
    assert_eq!(w.node(a).counters().get("dial.refused.own_address"), 2);
    // Another port of the same machine may be somebody's.
    let other: Multiaddr = ours
        .iter()
        .map(|part| match part {
            Protocol::Udp(port) => Protocol::Udp(port + 1),
            part => part,
        })
        .collect();
    let error = w.try_dial(a, Some(peer("X")), &[other]).expect_err("nobody is there");
    assert_ne!(error.attempts[0].1.to_string(), why);
    w.dial(a, b);
    w.shutdown();
}

/// Says of a peer what it is told to say.
struct Gossip;

impl Behaviour for Gossip {
    fn name(&self) -> &'static str {
        "gossip"
    }
    fn protocols(&self) -> &[ProtocolSpec] {
        &[]
    }
    fn handle(&mut self, _: &mut Context<'_>, _: Input) {}
}

#[test]
fn what_somebody_says_of_such_addresses_is_not_believed() {
    let mut w = World::new(173);
    let a = w.host("A").configure(|config| config.behaviours.push(Box::new(Gossip))).start();
    let ours = w[a].address().iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect();
    let (good, x) = (address("/ip4/203.0.113.7/udp/4001/quic-v1"), peer("X"));
    let bad = places(&[
        "/ip4/0.0.0.0/udp/4001/quic-v1",
        "/ip4/224.0.0.1/udp/4001/quic-v1",
        "/ip4/255.255.255.255/udp/4001/quic-v1",
        "/ip4/203.0.113.7/udp/0/quic-v1",
        "/ip6/::ffff:0.0.0.0/udp/4001/quic-v1",
    ]);
    for (record, who) in [(None, x), (Some(1), peer("Y"))] {
        let addresses: Vec<_> = bad.iter().chain([&ours, &good]).cloned().collect();
        w.command(a, |node, now| {
            node.with::<Gossip, _>(now, |_, cx| {
                let (source, ttl) = (Source::Heard, secs(60));
                cx.push(Action::Learn { peer: who, addresses, source, record, ttl });
            })
        });
        let known = w.node(a).peerstore().addresses(w.now(), &who);
        let known: Vec<_> = known.into_iter().map(|known| known.address.clone()).collect();
        assert_eq!(known, std::slice::from_ref(&good));
    }
    assert_eq!(w.node(a).counters().get("peerstore.refused.address"), 12);
    w.shutdown();
}
