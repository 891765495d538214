//! What whole nodes tell others of where they are, whatever others say.

use peerless_core::{
    Multiaddr,
    behaviour::{Action, Behaviour, Context, Input, Reply},
    names::{Framing, ProtocolSpec},
    node::Event,
    protocols::identify::PUSH_PROTOCOL,
    swarm::addresses::AddressSource,
};
use peerless_proto::{
    address::{is_circuit, split_peer},
    pb::{Message as _, identify::Identify as Message},
};
use peerless_tests::{
    host::HostId,
    solo::address,
    world::{World, ms, secs},
};

/// Tells whomever it is connected to, when it is asked to, that it sees them there.
struct Liar {
    specs: [ProtocolSpec; 1],
    seen: Multiaddr,
}

impl Liar {
    fn lie(&self, cx: &mut Context<'_>) {
        for connection in cx.view().connections.iter().map(|info| info.id).collect::<Vec<_>>() {
            cx.open(connection, PUSH_PROTOCOL);
        }
    }
}

impl Behaviour for Liar {
    fn name(&self) -> &'static str {
        "liar"
    }
    fn protocols(&self) -> &[ProtocolSpec] {
        &self.specs
    }
    fn handle(&mut self, cx: &mut Context<'_>, input: Input) {
        if let Input::Reply(_, Reply::Stream(Ok(stream))) = input {
            let observed_addr = Some(self.seen.to_vec());
            cx.send(stream, Message { observed_addr, ..Message::default() }.encode_to_vec());
            cx.push(Action::Finish { stream });
        }
    }
}

fn liar(w: &mut World, n: usize, seen: &str) -> HostId {
    let seen = address(seen);
    let ip: std::net::IpAddr = format!("{}.7.{}.1", 20 + n % 36, n / 36).parse().expect("an IP address");
    let liar = w.host(format!("L{n}")).ip(ip).configure(move |config| {
        let framing = Framing::Varint { max: 8192 };
        let spec = ProtocolSpec { name: PUSH_PROTOCOL, framing, inbound_per_peer: 0 };
        config.behaviours.push(Box::new(Liar { specs: [spec], seen: seen.clone() }));
    });
    liar.start()
}

/// Those of the addresses that nobody is at.
fn lies(addresses: &[Multiaddr]) -> usize {
    addresses.iter().filter(|address| address.to_string().contains("/203.0.113.")).count()
}

/// What `host` was told last by the node at `of` of where that is.
fn told(w: &World, host: HostId, of: HostId) -> Vec<Multiaddr> {
    let peer = w[of].peer();
    let infos = w[host].log().iter().rev().filter_map(|(_, event)| match event {
        Event::Identify(told) if told.peer == peer => Some(told.info.listen_addresses.clone()),
        _ => None,
    });
    infos.into_iter().next().expect("it was told")
}

#[test]
fn a_crowd_of_liars_does_not_crowd_out_where_a_node_is() {
    let mut w = World::new(181).quiet();
    let r = w.host("R").relay().start();
    let v = w.host("V").start();
    w.reserve(v, r);
    w.run_for(secs(10));
    let ours = split_peer(&w[v].address()).0;
    let before = told(&w, r, v);
    assert!(before.contains(&ours) && before.iter().any(is_circuit), "{before:?}");
    let pushes = |w: &World| w.node(r).counters().get("identify.push.received");
    let (begun, since) = (pushes(&w), w.now());
    // 288 connections from 36 places: four places for each of 72 addresses. They are honest at first.
    let mut liars = Vec::new();
    for n in 0..288 {
        let liar = liar(&mut w, n, &format!("/ip4/203.0.113.{}/udp/4001/quic-v1", n / 4 + 1));
        w.dial(liar, v);
        liars.push(liar);
        w.run_for(ms(50));
    }
    w.run_for(secs(1));
    for liar in liars {
        w.command(liar, |node, now| node.with(now, |liar: &mut Liar, cx| liar.lie(cx)))
            .expect("it is a liar");
        w.run_for(ms(50));
    }
    w.run_for(secs(10));
    assert_eq!(w.node(v).counters().get("identify.push.received"), 288, "all lies were heard");
    assert_eq!(w.node(v).connections().len(), 289);
    let c = w.host("C").start();
    w.dial(c, v);
    w.run_for(secs(1));
    for host in [r, c] {
        let told = told(&w, host, v);
        assert!(told.contains(&ours), "where its socket is bound: {told:?}");
        assert!(told.iter().any(is_circuit), "where its relay is: {told:?}");
        assert_eq!(lies(&told), 3, "as many as one socket may have: {told:?}");
    }
    let confirmed: Vec<_> = w.node(v).addresses().of(AddressSource::Confirmed).cloned().collect();
    assert_eq!(lies(&confirmed), 3);
    let minutes = w.now().saturating_duration_since(since).as_secs_f64() / 60.0;
    let rate = (pushes(&w) - begun) as f64 / minutes;
    assert!(rate <= 13.0, "{rate} pushes a minute");
    assert_eq!(w.node(r).counters().get("identify.push.flood"), 0);
    w.shutdown();
}

#[test]
fn a_relay_tells_its_neighbours_alone_that_it_is_their_neighbour() {
    let mut w = World::new(182);
    let private = "/ip4/10.0.0.9/udp/4001/quic-v1";
    let r = w.host("R").relay().start();
    w.command(r, |node, now| {
        let local = "10.0.0.9:4001".parse().expect("a socket address");
        let bound = peerless_core::node::Bound { local, reachable: Vec::new() };
        node.handle_socket(now, peerless_core::ids::SocketId(77), Some(bound));
    });
    let ip: std::net::IpAddr = "10.0.0.3".parse().expect("an IP address");
    let (public, neighbour) = (w.host("P").start(), w.host("N").ip(ip).start());
    for (client, knows) in [(public, false), (neighbour, true)] {
        w.dial(client, r);
        w.run_for(secs(10));
        assert_eq!(told(&w, client, r).contains(&address(private)), knows);
    }
    w.shutdown();
}

#[test]
fn what_the_embedder_announces_is_told_at_once_until_it_takes_that_back() {
    let mut w = World::new(183);
    let (a, b) = (w.host("A").start(), w.host("B").start());
    w.dial(a, b);
    w.run_for(secs(10));
    let ours = address("/dns4/example.org/udp/4001/quic-v1");
    assert_eq!(w.command(a, |node, now| node.add_address(now, &ours)), Ok(true));
    assert_eq!(w.command(a, |node, now| node.add_address(now, &ours)), Ok(false));
    w.run_for(secs(1));
    assert_eq!(told(&w, b, a), [ours.clone(), split_peer(&w[a].address()).0]);
    w.run_for(secs(10));
    assert!(w.command(a, |node, now| node.remove_address(now, &ours)));
    assert!(!w.command(a, |node, now| node.remove_address(now, &ours)));
    w.run_for(secs(1));
    assert_eq!(told(&w, b, a), [split_peer(&w[a].address()).0]);
    let mapped = address("/ip6/::ffff:203.0.113.9/udp/4001/quic-v1");
    assert_eq!(w.command(a, |node, now| node.add_address(now, &mapped)), Ok(true));
    let said = address("/ip4/203.0.113.9/udp/4001/quic-v1");
    assert!(w.node(a).addresses().advertised().contains(&said), "IPv4 in IPv6 is IPv4");
    assert!(w.command(a, |node, now| node.remove_address(now, &mapped)), "by whichever name");
    w.run_for(secs(10));
    let errors = [
        ("/ip4/224.0.0.1/udp/4001/quic-v1".to_owned(), "a multicast address names no single host".to_owned()),
        (w[b].address().to_string(), format!("it names peer {}, not this node", w[b].peer())),
    ];
    for (wrong, why) in errors {
        let error =
            w.command(a, |node, now| node.add_address(now, &address(&wrong))).expect_err("it is wrong");
        assert_eq!(error.to_string(), why);
    }
    w.shutdown();
}

#[test]
fn addresses_in_a_network_that_is_not_to_be_announced_are_told_to_nobody() {
    let mut w = World::new(184);
    let a =
        w.host("A").configure(|config| config.no_announce = vec!["0.0.0.0/0".parse().expect("a network")]);
    let (a, b) = (a.start(), w.host("B").start());
    w.dial(b, a);
    w.run_for(secs(1));
    assert_eq!(told(&w, b, a), [] as [Multiaddr; 0]);
    let ours = address("/ip4/203.0.113.1/udp/4001/quic-v1");
    let error = w.command(a, |node, now| node.add_address(now, &ours)).expect_err("it is withheld");
    assert_eq!(error.to_string(), "it lies in 0.0.0.0/0, whose addresses are not announced");
    w.shutdown();
}
