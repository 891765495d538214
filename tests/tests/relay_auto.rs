//! Relays found, chosen, lost and replaced without anybody asking for it, story by story.

use std::sync::Arc;

use multiaddr::{Multiaddr, Protocol};
use peerless_core::{
    behaviour::{Input, PeerEvent},
    errors::{AttemptError, CloseReason, DialError, OpenError, RelayStatus},
    ids::ConnectionId,
    info::Info,
    names::{Direction, ProtocolName},
    node::{Config as NodeConfig, Event, Node, Start},
    protocols::relay::{
        HOP, STOP,
        client::{self, AutoRelay, Client, Config, Reachability, ReservationState, ReserveError, When},
        score::{ScorePolicy, Scores},
    },
    swarm::addresses::AddressSource,
    time::Instant,
};
use peerless_proto::{
    pb::{
        Message as _,
        relay::{HopMessage, HopType, Limit, Reservation},
    },
    voucher::Voucher,
};
use peerless_tests::{
    assert_story,
    host::HostId,
    laws::Laws,
    link::Link,
    solo::{EPOCH, Solo, address, circuit, identity, own_addresses, peer},
    world::{World, ms, secs},
};

const HOUR: u64 = 3600;

/// Where a relay of the tests is; each in a /16 of its own.
fn place(relay: &str) -> Multiaddr {
    let number = relay.bytes().last().expect("a name");
    address(&format!("/ip4/203.{number}.113.1/udp/4001/quic-v1"))
}

fn relay_address(relay: &str) -> Multiaddr {
    place(relay).with(Protocol::P2p(peer(relay)))
}

fn auto(desired: usize, max: usize, bootstrap: &[&str]) -> AutoRelay {
    let bootstrap = bootstrap.iter().map(|relay| relay_address(relay)).collect();
    AutoRelay { when: When::Always, desired, max, bootstrap, ..AutoRelay::default() }
}

/// Explores nothing, so that a choice is the best one.
fn steady() -> ScorePolicy {
    ScorePolicy { explore_one_in: 0, ..ScorePolicy::default() }
}

fn seeking(auto: AutoRelay) -> Solo<Client> {
    let mut solo = Solo::new("B", Client::new(Config { auto, score: steady(), ..Config::default() }));
    for relay in ["R1", "R2", "R3"] {
        solo.peer(relay);
    }
    solo
}

/// `name` says which protocols it answers, and where it listens.
fn identified(
    solo: &mut Solo<Client>,
    connection: ConnectionId,
    protocols: &[ProtocolName],
    at: &[Multiaddr],
) {
    let peer = solo.connections.get(connection).expect("a connection").peer;
    let info = Info {
        public_key: identity("anybody").keypair().public(),
        protocols: protocols.to_vec(),
        listen_addresses: at.to_vec(),
        certified: true,
        observed: None,
        agent: String::new(),
        protocol_version: String::new(),
    };
    solo.input(Input::Peer(PeerEvent::Identified { connection, peer, info: Arc::new(info) }));
}

/// We have connected to a relay, and it has said that it is one.
fn meet(solo: &mut Solo<Client>, relay: &str) -> ConnectionId {
    let connection = solo.connect_with(relay, |info| {
        info.direction = Direction::Outbound;
        info.remote = place(relay);
    });
    identified(solo, connection, &[HOP], &[]);
    connection
}

fn status(code: i32) -> HopMessage {
    HopMessage { r#type: Some(HopType::Status as i32), status: Some(code), ..Default::default() }
}

/// Grants until so many seconds after the start of the test.
fn granted(until: u64) -> HopMessage {
    let expire = Some(EPOCH.as_secs() + until);
    let reservation = Some(Reservation { expire, addrs: Vec::new(), voucher: None });
    HopMessage { reservation, limit: Some(Limit { duration: Some(120), data: None }), ..status(100) }
}

/// The oldest stream asked for opens, and the relay answers on it.
fn answer(solo: &mut Solo<Client>, message: &HopMessage) {
    let stream = solo.open();
    solo.receive(stream, message.encode_to_vec());
    solo.finish(stream);
}

fn at(solo: &Solo<Client>, names: &[&str]) -> Vec<Option<ReservationState>> {
    names.iter().map(|name| solo.behaviour.reservation(&peer(name))).collect()
}

fn failures(solo: &mut Solo<Client>) -> Vec<ReserveError> {
    let reason = |event| match event {
        Event::Reservation(client::Event::Failed { reason, .. } | client::Event::Lost { reason, .. }) => {
            Some(reason)
        }
        _ => None,
    };
    solo.events().into_iter().filter_map(reason).collect()
}

const ACTIVE: Option<ReservationState> = Some(ReservationState::Active);

// Finding.

#[test]
fn nothing_is_done_unless_it_is_wanted() {
    let mut solo = seeking(AutoRelay::default());
    meet(&mut solo, "R1");
    solo.advance(secs(60));
    assert_eq!((solo.behaviour.candidates().count(), solo.opening().len(), solo.dialling().len()), (1, 0, 0));
}

#[test]
fn refused_here_is_retried_elsewhere() {
    let mut solo = seeking(auto(1, 1, &["R1"]));
    solo.advance(ms(10));
    solo.dialled("R1");
    meet(&mut solo, "R2");
    solo.advance(secs(1));
    // Both are unknown; which one is first does not matter here.
    answer(&mut solo, &status(200));
    answer(&mut solo, &granted(HOUR));
    assert_eq!(failures(&mut solo), [ReserveError::Refused(RelayStatus::ReservationRefused)]);
    insta::assert_snapshot!(solo.story(), @r"
    0.000  B  !  dial /ip4/203.49.113.1/udp/4001/quic-v1/p2p/R1
    1.000  B  *  reservation requesting from R1
    1.010  B  >  R1  hop RESERVE
    1.010  R1  >  B  hop STATUS RESERVATION_REFUSED
    1.010  B  *  reservation not granted by R1: the relay refused: RESERVATION_REFUSED; backing off for 1.202 s
    1.010  B  *  reservation requesting from R2
    1.010  B  >  R2  hop RESERVE
    1.010  R2  >  B  hop STATUS OK expire=+3599s limit=120s/none
    1.010  B  +  Relay /ip4/203.50.113.1/udp/4001/quic-v1/p2p/R2/p2p-circuit
    1.010  B  *  reservation active at R2
    ");
    assert_eq!(solo.behaviour.chosen().count(), 1);
}

#[test]
fn a_forged_voucher_is_a_named_failure_and_another_relay_is_asked() {
    let mut solo = seeking(auto(1, 1, &[]));
    meet(&mut solo, "R1");
    solo.advance(secs(1));
    let voucher = Voucher { relay: peer("R1"), peer: peer("B"), expiration: EPOCH.as_secs() + HOUR };
    let mut message = granted(HOUR);
    let mut forged = voucher.seal(identity("R1").keypair()).expect("a signature").encode();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    message.reservation.as_mut().expect("a grant").voucher = Some(forged);
    answer(&mut solo, &message);
    meet(&mut solo, "R2");
    answer(&mut solo, &granted(HOUR));
    match &failures(&mut solo)[..] {
        [ReserveError::Voucher(why)] => assert!(why.contains("signature"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(at(&solo, &["R1", "R2"]), [None, ACTIVE]);
    insta::assert_snapshot!(solo.story(), @r"
    1.000  B  *  reservation requesting from R1
    1.000  B  >  R1  hop RESERVE
    1.000  R1  >  B  hop STATUS OK expire=+3599s limit=120s/none voucher(bad)
    1.000  B  *  reservation not granted by R1: the voucher is not valid: bad signature of envelope; backing off for 1.202 s
    1.000  B  *  reservation requesting from R2
    1.000  B  >  R2  hop RESERVE
    1.000  R2  >  B  hop STATUS OK expire=+3599s limit=120s/none
    1.000  B  +  Relay /ip4/203.50.113.1/udp/4001/quic-v1/p2p/R2/p2p-circuit
    1.000  B  *  reservation active at R2
    ");
}

#[test]
fn an_end_shrunk_to_the_past_is_a_loss_and_another_relay_is_asked_at_once() {
    let mut solo = seeking(auto(1, 1, &[]));
    meet(&mut solo, "R1");
    solo.advance(secs(1));
    answer(&mut solo, &granted(HOUR));
    meet(&mut solo, "R2");
    while solo.opening().is_empty() {
        assert_eq!(solo.next_deadline(), "reservation step");
    }
    answer(&mut solo, &granted(60));
    assert_eq!(own_addresses(&solo, AddressSource::Relay), [""; 0], "R2 is only asked yet");
    answer(&mut solo, &granted(2 * HOUR));
    assert_eq!(failures(&mut solo), [ReserveError::Expired]);
    assert_eq!(at(&solo, &["R1", "R2"]), [None, ACTIVE]);
    insta::assert_snapshot!(solo.story(), @r"
       1.000  B  *  reservation requesting from R1
       1.000  B  >  R1  hop RESERVE
       1.000  R1  >  B  hop STATUS OK expire=+3599s limit=120s/none
       1.000  B  +  Relay /ip4/203.49.113.1/udp/4001/quic-v1/p2p/R1/p2p-circuit
       1.000  B  *  reservation active at R1
    2765.376  B  *  reservation refreshing at R1
    2765.376  B  >  R1  hop RESERVE
    2765.376  R1  >  B  hop STATUS OK expire=-2705s limit=120s/none
    2765.376  B  -  Relay /ip4/203.49.113.1/udp/4001/quic-v1/p2p/R1/p2p-circuit
    2765.376  B  *  reservation lost at R1: expired; backing off for 1.100 s
    2765.376  B  *  reservation requesting from R2
    2765.376  B  >  R2  hop RESERVE
    2765.376  R2  >  B  hop STATUS OK expire=+4435s limit=120s/none
    2765.376  B  +  Relay /ip4/203.50.113.1/udp/4001/quic-v1/p2p/R2/p2p-circuit
    2765.376  B  *  reservation active at R2
    ");
}

#[test]
fn the_only_relay_there_is_is_asked_again_after_a_pause_that_grows() {
    let mut solo = seeking(auto(1, 1, &["R1"]));
    solo.advance(ms(10));
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let failed = solo.now();
        solo.dial_fails(DialError::one(place("R1"), AttemptError::TimedOut));
        while solo.dialling().is_empty() {
            solo.next_deadline();
        }
        pauses.push(solo.now().saturating_duration_since(failed));
    }
    assert!(pauses.is_sorted() && pauses[0] <= secs(2) && pauses[7] >= secs(100), "{pauses:?}");
    solo.dialled("R1");
    answer(&mut solo, &granted(HOUR));
    assert_eq!(at(&solo, &["R1"]), [ACTIVE]);
}

#[test]
fn relays_in_one_network_are_taken_only_if_there_are_no_others() {
    let mut solo = seeking(auto(2, 3, &[]));
    for (relay, ip) in [("R1", "203.0.113.1"), ("R2", "203.0.99.1"), ("R3", "198.51.100.1")] {
        let connection = solo.connect_with(relay, |info| {
            info.remote = address(&format!("/ip4/{ip}/udp/4001/quic-v1"));
        });
        identified(&mut solo, connection, &[HOP, STOP], &[]);
    }
    solo.advance(secs(1));
    let name = |solo: &Solo<Client>, connection| {
        let asked = solo.connections.get(connection).expect("a connection").peer;
        ["R1", "R2", "R3"].into_iter().find(|name| peer(name) == asked).expect("a relay")
    };
    let asked: Vec<_> = solo.opening().iter().map(|connection| name(&solo, *connection)).collect();
    assert_eq!(asked.len(), 3);
    assert!(asked[..2].contains(&"R3"), "{asked:?}: the third comes from a network that is used already");
}

#[test]
fn more_than_are_desired_are_taken_from_those_connected_but_nobody_is_dialled_for_it() {
    let mut solo = seeking(auto(1, 2, &["R1", "R2"]));
    solo.advance(ms(10));
    solo.dialled("R1");
    solo.dial_fails(DialError::one(place("R2"), AttemptError::TimedOut));
    solo.advance(secs(30));
    assert_eq!((solo.opening().len(), solo.dialling().len()), (1, 0));
    meet(&mut solo, "R3");
    assert_eq!(solo.opening().len(), 2);
}

#[test]
fn relays_are_kept_while_we_cannot_be_reached_directly() {
    let mut solo = seeking(AutoRelay { when: When::WhenPrivate, ..auto(2, 2, &["R1", "R2"]) });
    solo.advance(secs(60));
    assert_eq!(solo.dialling().len(), 0);
    solo.with(|client, cx| client.set_reachability(cx, Reachability::Private));
    solo.dialled("R1");
    solo.dialled("R2");
    solo.advance(secs(1));
    answer(&mut solo, &granted(HOUR));
    answer(&mut solo, &granted(HOUR));
    assert_eq!(own_addresses(&solo, AddressSource::Relay).len(), 2);
    solo.with(|client, cx| client.set_reachability(cx, Reachability::Public));
    assert_eq!(failures(&mut solo), [ReserveError::Cancelled, ReserveError::Cancelled]);
    assert_eq!(own_addresses(&solo, AddressSource::Relay), [""; 0]);
    assert_eq!(solo.behaviour.relays().count(), 0);
}

#[test]
fn a_relay_asked_for_by_hand_counts_and_is_not_replaced() {
    let mut solo = seeking(auto(1, 1, &[]));
    let by_hand = meet(&mut solo, "R1");
    solo.with(|client, cx| client.reserve(cx, relay_address("R1"))).expect("a relay's address");
    meet(&mut solo, "R2");
    solo.advance(secs(2));
    answer(&mut solo, &granted(HOUR));
    assert_eq!((solo.opening().len(), solo.behaviour.chosen().count()), (0, 0));
    solo.disconnect_because(by_hand, CloseReason::Reset);
    solo.advance(secs(3));
    assert_eq!(at(&solo, &["R1"]), [Some(ReservationState::Connecting)], "it stays wanted");
}

#[test]
fn candidates_are_capped_and_aged_and_forgotten_when_they_are_relays_no_more() {
    let mut solo = seeking(AutoRelay { bootstrap: vec![relay_address("R0")], ..auto(1, 1, &[]) });
    solo.advance(ms(10));
    solo.dial_fails(DialError { attempts: Vec::new() });
    for n in 0..300 {
        let connection = meet(&mut solo, &format!("X{n}"));
        solo.disconnect(connection);
        solo.advance(ms(1));
    }
    let knows = |solo: &Solo<Client>, name: &str| solo.behaviour.candidates().any(|p| p == peer(name));
    assert_eq!(solo.behaviour.candidates().count(), 256);
    assert_eq!(
        ["R0", "X0", "X44", "X45", "X299"].map(|name| knows(&solo, name)),
        [true, false, false, true, true]
    );

    let connection = meet(&mut solo, "R1");
    let relayed = solo.connect_via("R2", connection);
    identified(&mut solo, relayed, &[HOP], &[]);
    assert_eq!(["R1", "R2"].map(|name| knows(&solo, name)), [true, false], "a relay behind a relay is none");
    solo.advance(secs(1800));
    solo.with(|client, cx| client.best(cx, &peer("T")));
    assert_eq!(solo.behaviour.candidates().count(), 2, "the one that is configured and the one connected");
    identified(&mut solo, connection, &[STOP], &[]);
    assert!(!knows(&solo, "R1"));
}

#[test]
fn relays_that_are_connected_are_not_pushed_out_by_many_that_come_and_go() {
    let mut solo = seeking(AutoRelay::default());
    meet(&mut solo, "R1");
    for n in 0..300 {
        solo.advance(ms(1));
        let connection = meet(&mut solo, &format!("X{n}"));
        solo.disconnect(connection);
    }
    assert!(solo.behaviour.candidates().any(|relay| relay == peer("R1")));
    solo.with(|client, cx| client.stop(cx));
    assert_eq!((solo.behaviour.len(), solo.behaviour.candidates().count()), (0, 256));
}

#[test]
fn a_relay_that_connected_to_us_is_known_by_where_it_listens() {
    let mut solo = seeking(auto(1, 1, &[]));
    let port_of_theirs = address("/ip4/203.0.113.9/udp/55555/quic-v1");
    let connection = solo.connect_with("R1", |info| info.remote = port_of_theirs);
    let listens = ["/ip4/10.0.0.1/udp/4001/quic-v1", "/ip4/203.0.113.9/udp/4001/quic-v1"].map(address);
    identified(&mut solo, connection, &[HOP], &listens);
    solo.disconnect(connection);
    solo.advance(secs(1));
    assert_eq!(solo.dialling(), [[listens[1].clone().with(Protocol::P2p(peer("R1")))]]);
}

// Going through relays.

fn anywhere(target: &str) -> Multiaddr {
    Multiaddr::empty().with(Protocol::P2pCircuit).with(Protocol::P2p(peer(target)))
}

#[test]
fn through_whichever_relay_is_best_and_then_the_next() {
    let mut solo = seeking(AutoRelay::default());
    solo.peer("T");
    for (relay, rtt) in [("R1", 30), ("R2", 10), ("R3", 20)] {
        let connection = meet(&mut solo, relay);
        solo.connections.set_rtt(connection, ms(rtt));
    }
    solo.dial(anywhere("T"));
    answer(&mut solo, &status(204));
    let silent = solo.open();
    solo.advance(secs(10));
    assert!(!solo.is_open(silent));
    answer(&mut solo, &status(201));
    let attempts = solo.failed_dials().remove(0).1.attempts;
    let through = |relay: &str| circuit(&place(relay).to_string(), relay, "T");
    let expected = [
        (through("R2"), AttemptError::TargetUnknown),
        (through("R3"), AttemptError::TimedOut),
        (through("R1"), AttemptError::RelayLimit),
    ];
    assert_eq!(attempts, expected);
    insta::assert_snapshot!(solo.story(), @r"
     0.000  B  >  R2  hop CONNECT T
     0.000  R2  >  B  hop STATUS NO_RESERVATION
     0.000  B  >  R3  hop CONNECT T
    10.000  B  x  R3  hop reset
    10.000  B  >  R1  hop CONNECT T
    10.000  R1  >  B  hop STATUS RESOURCE_LIMIT_EXCEEDED
    10.000  B  x  dial failed: /ip4/203.50.113.1/udp/4001/quic-v1/p2p/R2/p2p-circuit/p2p/T: the peer holds no reservation at the relay; /ip4/203.51.113.1/udp/4001/quic-v1/p2p/R3/p2p-circuit/p2p/T: timed out; /ip4/203.49.113.1/udp/4001/quic-v1/p2p/R1/p2p-circuit/p2p/T: the relay has reached a limit
    ");
    let stats = |relay: &str| solo.behaviour.scores().get(&peer(relay)).expect("tried").failures;
    assert_eq!(
        [stats("R2"), stats("R3")].map(|f| f > 0.9),
        [false, true],
        "a peer that is not there is nobody's fault"
    );
}

#[test]
fn no_more_than_three_relays_are_tried() {
    let mut solo = seeking(AutoRelay::default());
    for relay in ["R1", "R2", "R3", "R4", "R5"] {
        meet(&mut solo, relay);
    }
    solo.dial(anywhere("T"));
    for _ in 0..3 {
        solo.refuse_open(OpenError::StreamLimit);
    }
    assert_eq!((solo.failed_dials().remove(0).1.attempts.len(), solo.opening().len()), (3, 0));
    assert_eq!(solo.behaviour.len(), 0);
}

#[test]
fn where_a_peer_says_it_is_comes_first() {
    let mut solo = seeking(AutoRelay::default());
    meet(&mut solo, "R1");
    let target = solo.connect("T");
    identified(&mut solo, target, &[STOP], &[circuit(&place("R2").to_string(), "R2", "T"), place("T")]);
    solo.disconnect(target);
    solo.dial(anywhere("T"));
    assert_eq!(solo.dialling(), [[relay_address("R2")]]);
    solo.dial_fails(DialError::one(place("R2"), AttemptError::TimedOut));
    assert_eq!(solo.opening().len(), 1, "R1, though T does not say so");
}

#[test]
fn who_knows_no_relay_says_so() {
    let mut solo = seeking(AutoRelay::default());
    solo.dial(anywhere("T"));
    solo.dial(anywhere("B"));
    let errors = solo.failed_dials().into_iter().map(|(_, error)| error);
    let expected = [("T", AttemptError::NoRelay), ("B", AttemptError::Own)];
    assert!(errors.eq(expected.map(|(to, error)| DialError::one(anywhere(to), error))));

    let start = Start { now: Instant::ZERO, unix: EPOCH, seed: [1; 32] };
    let mut node = Node::new(NodeConfig::new(identity("B")), start).expect("a node");
    let dial = node.dial(Instant::ZERO, Some(peer("T")), &[]);
    match node.poll_event() {
        Some(Event::DialFailed { dial: failed, error, .. }) => {
            assert_eq!((failed, error), (dial, DialError::one(anywhere("T"), AttemptError::NoRelay)));
        }
        other => panic!("{other:?}"),
    }
}

// In a world.

/// Which relay a new connection from A to T runs through, if none is named.
fn goes_through(w: &mut World, a: HostId, t: HostId) -> Option<String> {
    let target = w[t].peer();
    let connection = w.try_dial(a, Some(target), &[]).expect("T can be reached");
    let relay =
        w.node(a).connections().get(connection).and_then(|info| info.relayed.as_ref()).map(|r| r.relay);
    w.close(a, connection);
    w.run_for(ms(500));
    w.hosts().iter().find(|host| Some(host.peer()) == relay).map(|host| host.name().to_owned())
}

#[test]
fn the_choice_moves_when_a_relay_slows_down_and_moves_back() {
    let mut w = World::new(31).quiet();
    let r1 = w.host("R1").relay().start();
    let r2 = w.host("R2").relay().start();
    let t = w.host("T").start();
    let a = w
        .host("A")
        .configure(|config| {
            config.relay_client.score = steady();
            config.ping.interval = Some(secs(10));
        })
        .start();
    w.link(a, r1, Link::latency(ms(10)));
    w.link(a, r2, Link::latency(ms(40)));
    w.reserve(t, r1);
    w.reserve(t, r2);
    w.dial(a, r1);
    w.dial(a, r2);
    w.run_for(secs(20));
    let mut choices = Vec::new();
    let mut watch = |w: &mut World, what: &str, dials: usize| {
        for _ in 0..dials {
            choices.push(format!("{what}: {}", goes_through(w, a, t).expect("a relay")));
            w.run_for(secs(10));
        }
    };
    watch(&mut w, "R1 is fast", 4);
    w.link(a, r1, Link::latency(ms(300)));
    watch(&mut w, "R1 is slow", 8);
    w.link(a, r1, Link::latency(ms(10)));
    watch(&mut w, "R1 is fast again", 20);
    choices.dedup();
    let relays = w.node(a).behaviour::<Client>().expect("a client").scores().export(w.now());
    assert!(
        relays.iter().all(|relay| relay.score.is_some() && relay.stats.active_circuits == 0),
        "{relays:?}"
    );
    assert_eq!(relays.len(), 2);
    insta::assert_snapshot!(choices.join("\n"), @r"
    R1 is fast: R1
    R1 is slow: R1
    R1 is slow: R2
    R1 is fast again: R2
    R1 is fast again: R1
    ");
}

/// Every circuit address that A was told of last by B.
fn told(w: &World, a: HostId, b: HostId) -> usize {
    let b = w[b].peer();
    let told = w[a].log().iter().rev().find_map(|(_, event)| match event {
        Event::Identify(told) if told.peer == b => Some(Arc::clone(&told.info)),
        _ => None,
    });
    let is_circuit = |address: &&Multiaddr| address.iter().any(|part| part == Protocol::P2pCircuit);
    told.map_or(0, |info| info.listen_addresses.iter().filter(is_circuit).count())
}

#[test]
fn a_reservation_survives_the_restart_of_its_relay_and_everybody_is_told() {
    let mut w = World::new(32);
    let r = w.host("R").relay().start();
    let b = w.host("B").start();
    let a = w.host("A").start();
    w.dial(a, b);
    w.run_for(secs(1));
    assert_eq!(told(&w, a, b), 0);
    w.reserve(b, r);
    w.run_for(secs(1));
    assert_eq!(told(&w, a, b), 1, "a push tells A where B is");
    w.run_for(secs(3600));
    assert_eq!(told(&w, a, b), 1);
    w.kill(r);
    w.run_for(secs(60));
    assert_eq!(told(&w, a, b), 0, "a push tells A that B is not there any more");
    w.restart(r);
    w.run_for(secs(60));
    assert_eq!(told(&w, a, b), 1);
    let conn = w.dial_via(a, r, b);
    w.echo(a, conn, 1000);
    let story = w.transcript().only(|line| {
        line.host == "B" && (line.text.starts_with("reservation") || line.text.starts_with("hop"))
    });
    assert_story!(story, @r"
       1.040  B  *  reservation connecting to R
       1.080  B  *  reservation requesting from R
       1.080  B  >  R  hop  RESERVE
       1.120  B  *  reservation active at R
    2775.801  B  *  reservation refreshing at R
    2775.801  B  >  R  hop  RESERVE
    2775.841  B  *  reservation renewed at R
    3634.416  B  *  reservation lost at R: the connection to the relay ended: timed out; backing off for 1.328 s
    3635.744  B  *  reservation connecting to R
    3645.744  B  *  reservation not granted by R: R: timed out; backing off for 3.031 s
    3648.775  B  *  reservation connecting to R
    3658.775  B  *  reservation not granted by R: R: timed out; backing off for 4.086 s
    3662.861  B  *  reservation connecting to R
    3662.901  B  *  reservation requesting from R after 3 failures
    3662.901  B  >  R  hop  RESERVE
    3662.941  B  *  reservation active at R
    ");
    w.shutdown();
    w.assert_empty();
}

#[test]
fn a_lost_relay_is_replaced_by_another_at_once() {
    let mut w = World::new(33);
    let relays = ["R1", "R2", "R3"].map(|name| w.host(name).relay().start());
    let bootstrap = relays.map(|relay| w[relay].address()).to_vec();
    let b = w
        .host("B")
        .configure(move |config| {
            config.relay_client.auto =
                AutoRelay { when: When::WhenPrivate, bootstrap: bootstrap.clone(), ..AutoRelay::default() };
            config.relay_client.score = steady();
        })
        .start();
    w.command(b, |node, now| {
        node.with::<Client, _>(now, |client, cx| client.set_reachability(cx, Reachability::Private))
    });
    w.run_for(secs(5));
    let chosen = |w: &World| -> Vec<_> {
        let client = w.node(b).behaviour::<Client>().expect("a client");
        relays.into_iter().filter(|relay| client.chosen().any(|peer| peer == w[*relay].peer())).collect()
    };
    let before = chosen(&w);
    assert_eq!(before.len(), 2);
    w.kill(before[0]);
    w.run_for(secs(60));
    let after = chosen(&w);
    assert!(after.len() == 2 && !after.contains(&before[0]), "{after:?}");
    w.restart(before[0]);
    w.run_for(secs(600));
    assert_eq!(chosen(&w), after, "what works is kept");
    w.command(b, |node, now| {
        node.with::<Client, _>(now, |client, cx| client.set_reachability(cx, Reachability::Public))
    });
    // R1 ends at 5 s. What B pushes at 6.04, five seconds after its addresses changed, is the first thing that is not
    // acknowledged, and 30 s later the connection times out (RFC 9000 section 10.1).
    let story = w.transcript().only(|line| line.host == "B" && line.text.starts_with("reservation"));
    assert_story!(story, @r"
      1.000  B   *  reservation requesting from R2
      1.000  B   *  reservation requesting from R1
      1.040  B   *  reservation active at R2
      1.040  B   *  reservation active at R1
     36.040  B   *  reservation lost at R1: the connection to the relay ended: timed out; backing off for 1.326 s
     36.040  B   *  reservation requesting from R3
     36.080  B   *  reservation active at R3
    665.000  B   *  reservation lost at R2: given up by us
    665.000  B   *  reservation lost at R3: given up by us
    ");
    w.shutdown();
    w.assert_empty();
}

#[test]
fn laws() {
    let answers = [granted(HOUR), granted(200), granted(5), status(100), status(200), status(204)];
    let laws = Laws {
        make: || {
            let bootstrap = ["A", "B", "C"].map(relay_address).to_vec();
            let auto = AutoRelay { when: When::WhenPrivate, bootstrap, ..AutoRelay::default() };
            Client::new(Config { auto, ..Config::default() })
        },
        command: |solo, number| {
            let relay = ["A", "B", "C"][(number % 3) as usize];
            let first = solo.connections.iter().nth((number % 5) as usize).map(|info| info.id);
            match (number / 16 % 6, first) {
                (0, _) => solo.with(|client, cx| client.set_reachability(cx, Reachability::Public)),
                (1, _) => solo.with(|client, cx| client.cancel(cx, peer(relay))),
                (2, Some(connection)) => identified(solo, connection, &[], &[]),
                (3, Some(connection)) => {
                    identified(solo, connection, &[HOP], &[circuit(&place("A").to_string(), "A", relay)]);
                }
                (4, _) => drop(solo.dial(anywhere(relay))),
                _ => solo.with(|client, cx| client.set_reachability(cx, Reachability::Private)),
            }
        },
        settle: |solo| {
            solo.with(|client, cx| client.set_reachability(cx, Reachability::Public));
            while !solo.dialling().is_empty() {
                solo.dial_fails(DialError { attempts: Vec::new() });
            }
            assert!(solo.behaviour.scores().iter().count() <= Scores::MAX_RELAYS);
        },
        entries: Client::len,
        frames: answers.map(|message| (HOP, message.encode_to_vec().into())).to_vec(),
        most_actions: 60,
        reaches: &["relay.client.reserved", "relay.client.lost", "relay.client.failed"],
    };
    laws.check(30);
}
