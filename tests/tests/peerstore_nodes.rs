//! What a node knows of others and its successor finds in the embedder's store.

use peerless_core::{
    Multiaddr, PeerId,
    behaviour::{Action, Behaviour, Context, Input},
    errors::DialError,
    identity::Identity,
    ids::DialId,
    names::ProtocolSpec,
    node::{Config, ConfigError, Event, Node, Start},
    rng::Rng,
    swarm::peerstore::Source,
    time::{Instant, UnixTime},
};
use peerless_tests::{
    assert_story,
    host::HostId,
    store::Store,
    world::{World, ms, secs},
};

const TABLE: &str = "peerstore";

/// Two nodes, the first of which has a store.
fn pair(seed: u64) -> (World, HostId, HostId, Store) {
    let mut w = World::new(seed);
    let a = w.host("A").configure(|config| {
        config.storage = true;
        config.behaviours.push(Box::new(Gossip));
    });
    let a = a.start();
    let b = w.host("B").start();
    (w, a, b, Store::default())
}

/// Lets time pass while the store does what it is asked for.
fn run(w: &mut World, store: &mut Store, host: HostId, seconds: u64) {
    for _ in 0..seconds * 10 {
        store.serve(w, host);
        w.run_for(ms(100));
    }
}

/// A, which knows B from its address, has told its store.
fn acquainted(seed: u64) -> (World, HostId, HostId, Store) {
    let (mut w, a, b, mut store) = pair(seed);
    w.dial(a, b);
    run(&mut w, &mut store, a, 15);
    assert_eq!(store.len(TABLE), 1);
    (w, a, b, store)
}

fn outcome(w: &World, host: HostId, id: DialId) -> Option<Result<PeerId, DialError>> {
    w[host].log().iter().find_map(|(_, event)| match event {
        Event::Dialed { dial, peer, .. } if *dial == id => Some(Ok(*peer)),
        Event::DialFailed { dial, error, .. } if *dial == id => Some(Err(error.clone())),
        _ => None,
    })
}

#[test]
fn a_node_reaches_by_its_name_alone_whom_its_predecessor_knew() {
    let (mut w, a, b, mut store) = acquainted(81);
    let peer = w[b].peer();
    w.restart(a);
    store.serves_another();
    // The dial waits until the store has said what it knows, for as long as it says nothing bad.
    let dial = w.start_dial(a, Some(peer), &[]);
    w.run_for(secs(2));
    assert_eq!(outcome(&w, a, dial).map(|outcome| outcome.is_ok()), None);
    run(&mut w, &mut store, a, 1);
    assert_eq!(outcome(&w, a, dial).map(|outcome| outcome.ok()), Some(Some(peer)));
    assert_story!(w.transcript(), @r"
     0.000  A  *  storage of peerstore: load
     0.000  A  *  listening on A
     0.000  B  *  listening on B
     0.000  A  !  dial B
     0.040  A  *  connected B
     0.040  A  *  dialed B
     0.040  A  *  storage of peerstore: writes=1
     0.060  B  *  connected A
     0.060  B  >  A  identify agent=peerless/0.1.0 protocols=6 addresses=1 observed=A signed
     0.080  A  >  B  identify agent=peerless/0.1.0 protocols=6 addresses=1 observed=B signed
     0.080  A  *  identified B as peerless/0.1.0
     0.100  B  *  identified A as peerless/0.1.0
    10.080  A  *  storage of peerstore: writes=1
    15.040  A  *  storage of peerstore: load
    15.040  A  *  listening on A
    15.040  A  !  dial B
    15.260  B  *  disconnected A: reset by the remote
    17.080  A  *  connected B
    17.080  A  *  dialed B
    17.100  B  *  connected A
    17.100  B  >  A  identify agent=peerless/0.1.0 protocols=6 addresses=1 observed=A signed
    17.120  A  >  B  identify agent=peerless/0.1.0 protocols=6 addresses=1 observed=B signed
    17.120  A  *  identified B as peerless/0.1.0
    17.140  B  *  identified A as peerless/0.1.0
    ");
    w.shutdown();
}

#[test]
fn auto_connect_finds_them_without_being_told() {
    let mut w = World::new(82);
    let a = w.host("A").configure(|config| {
        config.storage = true;
        config.swarm.auto_connect.peers = 1;
    });
    let (a, mut store) = (a.start(), Store::default());
    let b = w.host("B").start();
    w.dial(a, b);
    run(&mut w, &mut store, a, 15);
    w.restart(a);
    store.serves_another();
    run(&mut w, &mut store, a, 2);
    assert!(!w.connections(a, b).is_empty());
    w.shutdown();
}

/// Says of others what it is told to say.
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
fn an_older_record_is_refused_after_a_restart_too() {
    let (mut w, a, b, mut store) = acquainted(83);
    let peer = w[b].peer();
    let number = w.node(a).peerstore().record(&peer).expect("B has signed a record");
    let before = addresses(&w, a, peer);
    w.restart(a);
    store.serves_another();
    run(&mut w, &mut store, a, 1);
    assert_eq!(w.node(a).peerstore().record(&peer), Some(number));
    for (record, refused) in [(number - 1, 1), (number, 1)] {
        w.command(a, |node, now| {
            let addresses = vec!["/ip4/81.0.0.9/udp/4001/quic-v1".parse().expect("a multiaddr")];
            let (source, record, ttl) = (Source::Certified, Some(record), secs(60));
            let learn = Action::Learn { peer, addresses, source, record, ttl };
            node.with::<Gossip, _>(now, |_, cx| cx.push(learn)).expect("it is there");
        });
        assert_eq!(w.node(a).counters().get("peerstore.refused.record"), refused);
        assert_eq!(addresses(&w, a, peer) == before, record < number, "record {record}");
    }
    w.shutdown();
}

#[test]
fn a_store_that_fails_or_says_nothing_stops_nobody() {
    let (mut w, a, b, mut store) = pair(84);
    let peer = w[b].peer();
    // It says nothing.
    let dial = w.start_dial(a, Some(peer), &[]);
    w.dial(a, b);
    w.run_for(secs(61));
    assert_eq!(w.node(a).stats().dials, 0);
    assert!(outcome(&w, a, dial).is_some());

    // It fails: who waits is told at once.
    w.restart(a);
    store.serves_another();
    store.is_broken = true;
    let dial = w.start_dial(a, Some(peer), &[]);
    run(&mut w, &mut store, a, 1);
    assert!(matches!(outcome(&w, a, dial), Some(Err(_))));
    w.dial(a, b);
    run(&mut w, &mut store, a, 3600);
    let asked = requests(&w, a);
    assert!((10..20).contains(&asked), "{asked} times in an hour");
    assert_eq!(w.node(a).counters().get("peerstore.store_failed"), asked as u64);

    // It has been mended.
    store.is_broken = false;
    run(&mut w, &mut store, a, 620);
    assert_eq!(store.len(TABLE), 1);
    w.shutdown();
}

#[test]
fn who_waits_for_the_store_may_give_up_and_is_told_when_the_node_ends() {
    let (mut w, a, b, mut store) = pair(87);
    let peer = w[b].peer();
    let (cancelled, waiting) = (w.start_dial(a, Some(peer), &[]), w.start_dial(a, Some(peer), &[]));
    w.command(a, |node, now| node.cancel_dial(now, cancelled));
    assert_eq!(w.node(a).stats().dials, 1);
    w.command(a, |node, now| node.shutdown(now));
    assert!(matches!(outcome(&w, a, waiting), Some(Err(_))));
    run(&mut w, &mut store, a, 1);
    assert!(outcome(&w, a, cancelled).is_none());
    w.shutdown();
    w.assert_empty();
}

#[test]
fn no_behaviour_may_have_the_name_of_the_table() {
    struct Impostor;
    impl Behaviour for Impostor {
        fn name(&self) -> &'static str {
            TABLE
        }
        fn protocols(&self) -> &[ProtocolSpec] {
            &[]
        }
        fn handle(&mut self, _: &mut Context<'_>, _: Input) {}
    }
    let mut config = Config::new(Identity::generate(&mut Rng::new([88; 32])));
    config.behaviours.push(Box::new(Impostor));
    let start = Start { now: Instant::ZERO, unix: UnixTime::from_secs(1_800_000_000), seed: [88; 32] };
    assert_eq!(Node::new(config, start).err(), Some(ConfigError::NameTwice(TABLE)));
}

#[test]
fn a_node_with_nothing_to_do_waits_for_nothing_and_one_that_ends_stores_first() {
    let (mut w, a, b, mut store) = pair(85);
    store.serve(&mut w, a);
    assert_eq!(requests(&w, a), 1);
    w.dial(a, b);
    w.run_for(secs(1));
    assert_eq!(store.len(TABLE), 0);
    w.command(a, |node, now| node.shutdown(now));
    store.serve(&mut w, a);
    assert_eq!(store.len(TABLE), 1, "as soon as it is to end");
    run(&mut w, &mut store, a, 60);
    w.shutdown();
    store.serve(&mut w, a);
    w.assert_empty();
}

#[test]
fn who_signed_where_it_is_or_that_it_is_nowhere_is_stored_until_it_is_forgotten() {
    let (mut w, a, b, mut store) = pair(86);
    let dialer = w.host("C").configure(|config| config.accept_inbound = false).start();
    w.dial(b, a);
    w.dial(dialer, a);
    run(&mut w, &mut store, a, 15);
    assert_eq!(store.len(TABLE), 2);
    for peer in [b, dialer].map(|host| w[host].peer()) {
        assert!(store.tables[TABLE].contains_key(&peer.to_bytes()[..]));
        assert!(w.node(a).peerstore().record(&peer).is_some());
        w.command(a, |node, now| node.forget_peer(now, peer));
    }
    run(&mut w, &mut store, a, 15);
    assert_eq!(store.len(TABLE), 0, "who is forgotten is forgotten");
    w.shutdown();
}

fn addresses(w: &World, host: HostId, peer: PeerId) -> Vec<Multiaddr> {
    let known = w.node(host).peerstore().addresses(w.now(), &peer).into_iter();
    known.map(|known| known.address.clone()).collect()
}

/// How often the store was asked for anything.
fn requests(w: &World, host: HostId) -> usize {
    w[host].log().iter().filter(|(_, event)| matches!(event, Event::Storage(_))).count()
}
