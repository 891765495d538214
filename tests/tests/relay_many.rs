//! Ten thousand peers at one relay for an hour of virtual time, a tenth of them coming and going every minute.
//!
//! The crowd is real relay and client behaviours without QUIC between them; a smaller one is whole nodes.
//! `PEERLESS_MANY_NODES` says of how many whole nodes (default 200; ten thousand take minutes in a release build and
//! gigabytes of memory). Run with `--nocapture` to see the figures.

#[path = "relay_many/crowd.rs"]
mod crowd;

use std::{process::Command, time::Duration};

use peerless_core::{
    behaviour::{Behaviour, Input, StreamEvent},
    identity::Identity,
    ids::{Id, StreamId},
    node::Event,
    protocols::relay::{
        HOP,
        client::{self, ReserveError},
        hop::{self, Hop},
        limits::RelayLimits,
    },
    rng::Rng,
    time::Instant,
};
use peerless_proto::pb::{Message, relay::HopMessage};
use peerless_tests::{
    host::HostId,
    machine::resident,
    world::{World, ms, secs},
};

use self::crowd::{Crowd, Party};

const SEED: u64 = 1;
const PEERS: usize = 10_000;
const MINUTES: u64 = 60;
/// Whole nodes that connect at the same instant; a relay refuses to have more than a thousand half-open connections.
const AT_ONCE: usize = 500;
const TTL: Duration = Duration::from_secs(20 * 60);
/// Where memory is measured, in peers of ten thousand.
const MILESTONES: [usize; 3] = [1_000, 5_000, 10_000];
/// How much more the last peers may take than those before them, each.
const LINEAR: f64 = 1.5;

/// The limits of a public relay, but for the number of reservations.
fn config() -> hop::Config {
    let limits = RelayLimits { max_reservations: 0, ..RelayLimits::public() };
    hop::Config { reservation_ttl: TTL, ..limits.into() }
}

/// Runs the test of this name in a process of its own, as memory is counted by process.
fn alone(name: &str, test: impl FnOnce()) {
    const CHILD: &str = "PEERLESS_MANY_CHILD";
    if std::env::var_os(CHILD).is_some() {
        return test();
    }
    let this = std::env::current_exe().expect("the test's own path");
    let args = [name, "--exact", "--nocapture", "--test-threads=1"];
    let output = Command::new(this).args(args).env(CHILD, "1").output().expect("it runs once more");
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Memory at each milestone: what comes on top from one to the next must be the same per peer.
struct Growth {
    what: &'static str,
    start: usize,
    seen: Vec<(usize, usize)>,
}

impl Growth {
    fn new(what: &'static str) -> Self {
        Self { what, start: resident(), seen: Vec::new() }
    }

    fn measure(&mut self, peers: usize) {
        let bytes = resident().saturating_sub(self.start);
        let (before, bytes_before) = self.seen.last().copied().unwrap_or_default();
        let each = bytes.saturating_sub(bytes_before) / (peers - before);
        eprintln!("{}: {bytes} bytes for {peers} peers, {each} for each since {before}", self.what);
        self.seen.push((peers, bytes));
    }

    fn assert_linear(&self) {
        if self.start == 0 {
            return;
        }
        let each: Vec<_> = self
            .seen
            .windows(2)
            .map(|pair| pair[1].1.saturating_sub(pair[0].1) as f64 / (pair[1].0 - pair[0].0) as f64)
            .collect();
        let (first, last) = (each[0], each[each.len() - 1]);
        assert!(last > 0.0 && last < LINEAR * first, "{}: not linear: {:?}", self.what, self.seen);
    }
}

#[test]
fn ten_thousand_peers_hold_their_reservations_for_an_hour() {
    alone("ten_thousand_peers_hold_their_reservations_for_an_hour", || {
        let mut crowd = Crowd::new(SEED, config());
        let mut dice = Rng::new([0; 32]).fork(&format!("churn {SEED}"));
        let mut growth = Growth::new("relay and client behaviours");
        for peers in MILESTONES {
            while crowd.members().len() < peers {
                (0..100).for_each(|_| crowd.join());
            }
            crowd.run_for(secs(1));
            assert_eq!(crowd.reserved(), peers);
            growth.measure(peers);
        }
        let mut fewest = PEERS;
        for _ in 0..MINUTES {
            churn(&mut crowd, &mut dice);
            fewest = fewest.min(crowd.reserved());
        }
        eprintln!("seed {SEED}: {:?}, at least {fewest} held", crowd.tally);
        // A tenth is gone a minute, for two seconds of back-off and half a second of dialling.
        assert!(fewest > PEERS * 99 / 100, "only {fewest} held");
        assert!(crowd.tally.renewed > PEERS as u64 / 10, "hardly anybody stays long enough to renew");
        crowd.end();
        growth.assert_linear();
    });
}

/// What a reservation costs the relay behaviour alone, its share of the table of connections included.
#[test]
fn a_relay_takes_the_same_memory_for_each_reservation() {
    alone("a_relay_takes_the_same_memory_for_each_reservation", || {
        let rng = Rng::new([0; 32]).fork(&format!("relay {SEED}"));
        let reserve = HopMessage::reserve().encode_to_vec();
        let mut growth = Growth::new("relay behaviour");
        let mut relay = Party::new(Hop::new(config()), &rng);
        let mut connections = Vec::with_capacity(PEERS);
        for peers in MILESTONES {
            for nth in connections.len()..peers {
                let peer = Identity::generate(&mut rng.fork(&format!("peer {nth}"))).peer();
                let connection = relay.connect(Instant::ZERO, peer, crowd::ip(nth));
                let stream = StreamId::from_parts(0, nth as u32);
                let accepted = StreamEvent::Accepted { connection, peer, protocol: HOP };
                for event in [accepted, StreamEvent::Frame(reserve.clone().into()), StreamEvent::Finished] {
                    relay.call(Instant::ZERO, |hop, cx| hop.handle(cx, Input::Stream(stream, event)));
                }
                connections.push(connection);
            }
            assert_eq!(relay.behaviour.reservations(), peers);
            growth.measure(peers);
        }
        for connection in connections {
            let (now, input) = (Instant::ZERO, relay.disconnect(connection));
            relay.call(now, |hop, cx| hop.handle(cx, input));
        }
        assert!(relay.behaviour.is_empty());
        growth.assert_linear();
    });
}

#[test]
fn whole_nodes_hold_their_reservations_for_an_hour() {
    alone("whole_nodes_hold_their_reservations_for_an_hour", || {
        let nodes =
            std::env::var("PEERLESS_MANY_NODES").map_or(200, |number| number.parse().expect("a number"));
        let mut w = World::new(SEED).quiet();
        let mut dice = w.fork("churn");
        let relay = w.host("R").relay_with(config()).start();
        let mut growth = Growth::new("whole nodes, the relay's share included");
        let mut hosts = Vec::new();
        for peers in [nodes / 4, nodes / 2, nodes] {
            for nth in hosts.len()..peers {
                let host = w.host(format!("P{nth}")).start();
                w.reserve(host, relay);
                hosts.push(host);
                if hosts.len() % AT_ONCE == 0 {
                    w.run_for(ms(200));
                }
            }
            w.run_for(secs(5));
            assert_eq!(held(&w, relay, &hosts), peers);
            growth.measure(peers);
        }
        for _ in 0..MINUTES {
            for _ in 0..nodes.div_ceil(20) {
                let [closed, restarted] = [(); 2].map(|()| hosts[dice.below(nodes as u64) as usize]);
                for connection in w.connections(closed, relay) {
                    w.close(closed, connection);
                }
                w.restart(restarted);
                w.reserve(restarted, relay);
                w.run_for(secs(40) / nodes.div_ceil(20) as u32);
            }
            w.run_for(secs(20));
            let held = held(&w, relay, &hosts);
            assert!(held >= nodes * 99 / 100, "only {held} of {nodes} hold a reservation at {}", w.now());
        }
        let counted = |name| w.node(relay).counters().get(name);
        let (reserved, renewed) = (counted("relay.hop.reserved"), counted("relay.hop.renewed"));
        let datagrams = w.traffic().datagrams;
        eprintln!(
            "seed {SEED}: {nodes} nodes, {reserved} reserved, {renewed} renewed, {datagrams} datagrams"
        );
        assert!(renewed as usize > nodes / 10);
        w.shutdown();
        w.assert_empty();
        growth.assert_linear();
    });
}

/// Hosts of whom client and relay agree that they hold a reservation; nobody may have lost one but with its connection.
fn held(w: &World, relay: HostId, hosts: &[HostId]) -> usize {
    for (at, event) in w[relay].log() {
        let expired = matches!(event, Event::Hop(hop::Event::ReservationEnded { why: "expired", .. }));
        assert!(!expired, "at {at}: {event:?}");
    }
    let holds = |host: &&HostId| {
        let told = w[**host].log().iter().filter_map(|(_, event)| match event {
            Event::Reservation(event) => Some(event),
            _ => None,
        });
        let mut reserved = false;
        for event in told {
            match event {
                client::Event::Reserved { .. } => reserved = true,
                client::Event::Lost { reason: ReserveError::Disconnected(_), .. } => reserved = false,
                client::Event::Lost { .. } | client::Event::Failed { .. } => {
                    panic!("{:?}: {event:?}", w[**host])
                }
                _ => {}
            }
        }
        reserved
    };
    let holding = hosts.iter().filter(holds).count();
    let granted = w.node(relay).behaviour::<Hop>().map_or(0, Hop::reservations);
    assert!(granted >= holding, "{holding} believe in a reservation, the relay has {granted}");
    holding
}

/// A minute in which a tenth of the peers is hit: one half loses its connection, which every other time the relay
/// notices late, and one half goes for good, for others to come.
fn churn(crowd: &mut Crowd, dice: &mut Rng) {
    const SLICES: usize = 20;
    for slice in 0..SLICES {
        let members = crowd.members();
        let hits = PEERS / 10 * (slice + 1) / SLICES - PEERS / 10 * slice / SLICES;
        for hit in 0..hits {
            let member = members[dice.below(members.len() as u64) as usize];
            if hit % 2 == 0 {
                crowd.disconnect(member, dice.below(2) == 0);
            } else if crowd.leave(member) {
                crowd.join();
            }
        }
        crowd.run_for(secs(3));
    }
}
