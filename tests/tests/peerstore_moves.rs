//! A peer that moves: what it says last is where it is.

use peerless_core::{
    Multiaddr,
    behaviour::{Action, Behaviour, Context, Input, Reply},
    errors::AttemptError,
    ids::ConnectionId,
    names::{Framing, ProtocolSpec},
    protocols::identify::PUSH_PROTOCOL,
    swarm::peerstore::Source,
};
use peerless_proto::pb::{Message as _, identify::Identify as Message};
use peerless_tests::{
    host::HostId,
    solo::address,
    world::{World, secs},
};

/// Pushes what it is told to, as software does that signs no records.
struct Unsigned {
    specs: [ProtocolSpec; 1],
    next: Message,
}

impl Unsigned {
    fn new() -> Self {
        let framing = Framing::Varint { max: 8192 };
        let spec = ProtocolSpec { name: PUSH_PROTOCOL, framing, inbound_per_peer: 0 };
        Self { specs: [spec], next: Message::default() }
    }
}

impl Behaviour for Unsigned {
    fn name(&self) -> &'static str {
        "unsigned"
    }
    fn protocols(&self) -> &[ProtocolSpec] {
        &self.specs
    }
    fn handle(&mut self, cx: &mut Context<'_>, input: Input) {
        if let Input::Reply(_, Reply::Stream(Ok(stream))) = input {
            cx.send(stream, self.next.encode_to_vec());
            cx.push(Action::Finish { stream });
        }
    }
}

/// A knows M, which listens nowhere and tells by pushes where it is.
fn pair(seed: u64) -> (World, HostId, HostId) {
    let mut w = World::new(seed);
    let a = w.host("A").start();
    let m = w.host("M").configure(|config| {
        config.accept_inbound = false;
        config.behaviours.push(Box::new(Unsigned::new()));
    });
    let m = m.start();
    (w, a, m)
}

fn push(w: &mut World, m: HostId, connection: ConnectionId, message: Message) {
    w.command(m, |node, now| {
        node.with::<Unsigned, _>(now, |unsigned, cx| {
            unsigned.next = message;
            cx.open(connection, PUSH_PROTOCOL);
        })
    });
    w.run_for(secs(1));
}

fn places(n: u8) -> Vec<Multiaddr> {
    [1, 2, 3].map(|i| address(&format!("/ip4/81.{n}.0.{i}/udp/4001/quic-v1"))).to_vec()
}

fn at(places: &[Multiaddr]) -> Message {
    Message { listen_addrs: places.iter().map(Multiaddr::to_vec).collect(), ..Message::default() }
}

/// What A believes of M.
fn believed(w: &World, a: HostId, m: HostId) -> Vec<Multiaddr> {
    let known = w.node(a).peerstore().addresses(w.now(), &w[m].peer());
    let mut known: Vec<_> = known.into_iter().map(|known| known.address.clone()).collect();
    known.sort();
    known
}

#[test]
fn of_a_peer_that_moved_ten_times_only_the_last_addresses_are_believed_and_dialled() {
    let (mut w, a, m) = pair(161);
    // One connection, that migrates: a new one would begin with a signed record of nothing, which replaces all by itself.
    let connection = w.dial(m, a);
    w.run_for(secs(1));
    for n in 0..10 {
        push(&mut w, m, connection, at(&places(n)));
        assert_eq!(believed(&w, a, m), places(n), "after move {n}");
    }
    w.close(m, connection);
    w.run_for(secs(1));
    let error = w.try_dial(a, Some(w[m].peer()), &[]).expect_err("nobody is there");
    let dialled = error.attempts.iter().filter(|(_, error)| *error != AttemptError::NoRelay);
    let mut dialled: Vec<_> = dialled.map(|(address, _)| address.clone()).collect();
    dialled.sort();
    assert_eq!(dialled, places(9));
    w.shutdown();
}

#[test]
fn a_push_that_says_nothing_of_addresses_does_not_bring_old_ones_back() {
    let (mut w, a, m) = pair(162);
    let first = w.dial(m, a);
    w.run_for(secs(1));
    push(&mut w, m, first, at(&places(1)));
    let (peer, to) = (w[a].peer(), w[a].address());
    let dial = w.command(m, |node, now| {
        let options = peerless_core::swarm::dial::DialOptions { force_new: true, ..Default::default() };
        node.dial_with(now, Some(peer), &[to], &options)
    });
    let second = w.run_until(secs(5), |w| {
        w[m].log().iter().find_map(|(_, event)| match event {
            peerless_core::node::Event::Dialed { dial: of, connection, .. } if *of == dial => {
                Some(*connection)
            }
            _ => None,
        })
    });
    w.run_for(secs(1));
    push(&mut w, m, second.expect("a second connection"), at(&places(2)));
    assert_eq!(believed(&w, a, m), places(2));
    let protocols = vec!["/new/1".into()];
    push(&mut w, m, first, Message { protocols, ..Message::default() });
    assert_eq!(believed(&w, a, m), places(2), "a word on protocols is none on addresses");
    assert_eq!(w.node(a).peerstore().protocols(&w[m].peer()).len(), 1);
    push(&mut w, m, first, at(&places(1)));
    assert_eq!(believed(&w, a, m), places(1), "but this is the last word");
    w.shutdown();
}

#[test]
fn what_others_say_of_it_is_not_its_to_take_back() {
    let (mut w, a, m) = pair(163);
    let peer = w[m].peer();
    let ours = address("/ip4/82.0.0.1/udp/4001/quic-v1");
    w.command(a, |node, now| node.add_peer_addresses(now, peer, std::slice::from_ref(&ours), None));
    let connection = w.dial(m, a);
    w.run_for(secs(1));
    push(&mut w, m, connection, at(&places(1)));
    push(&mut w, m, connection, at(&places(2)));
    let known = w.node(a).peerstore().addresses(w.now(), &peer);
    let sources: Vec<_> = known.iter().map(|known| known.source).collect();
    assert_eq!(sources, [Source::Embedder, Source::Identify, Source::Identify, Source::Identify]);
    w.shutdown();
}
