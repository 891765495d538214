//! Many circuits dialled at once through one relay: all come about, and none waits for the others.
//!
//! In virtual time what counts is round trips; on the loopback interface it is work. Run with `--nocapture` to see the
//! figures.

#![allow(clippy::disallowed_methods, reason = "how long it takes on real sockets is what is measured")]

use std::time::{Duration, Instant};

use peerless_core::{
    Multiaddr,
    identity::Identity,
    ids::{ConnectionId, DialId},
    node::{Config, Event, Node},
    protocols::relay::{hop::Hop, limits::RelayLimits},
    rng::Rng,
};
use peerless_mio::{Runtime, RuntimeConfig};
use peerless_tests::{
    host::HostId,
    world::{World, secs},
};

const COUNTS: [usize; 3] = [1, 10, 100];

/// How the circuits lie.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// From one to each of many.
    Fan,
    /// From each of many to one.
    Funnel,
    /// From each of many to one of its own.
    Pairs,
}

/// Dials `count` circuits at the same instant. Returns how long each took.
fn dial_all(shape: Shape, count: usize) -> Vec<Duration> {
    let mut w = World::new(1).quiet();
    let relay = w.host("R").relay_with(RelayLimits::unlimited().into()).start();
    let mut hosts = |side: &str, alone: bool| -> Vec<HostId> {
        let some = if alone { 1 } else { count };
        let hosts: Vec<_> = (0..some).map(|nth| w.host(format!("{side}{nth}")).start()).collect();
        (0..count).map(|nth| hosts[nth % some]).collect()
    };
    let sources = hosts("A", matches!(shape, Shape::Fan));
    let targets = hosts("B", matches!(shape, Shape::Funnel));
    for target in &targets {
        w.reserve(*target, relay);
    }
    // Connected beforehand, so that what is measured is circuits.
    for source in &sources {
        w.dial(*source, relay);
    }
    w.run_for(secs(1));
    let began = w.now();
    let dials: Vec<_> = sources
        .iter()
        .zip(&targets)
        .map(|(source, target)| {
            let circuit = w.circuit(relay, *target);
            (*source, w.start_dial(*source, None, &[circuit]))
        })
        .collect();
    w.run_for(secs(60));
    let took = dials.iter().map(|(source, dial)| {
        let outcome = w[*source].log().iter().find_map(|(at, event)| Some((*at, event.dial_outcome(*dial)?)));
        let (at, outcome) = outcome.expect("an outcome within a minute");
        let connection = outcome.unwrap_or_else(|error| panic!("{shape:?} of {count}: {error}"));
        (*source, connection, at.saturating_duration_since(began))
    });
    let took: Vec<(_, ConnectionId, _)> = took.collect();
    assert_eq!(w.node(relay).behaviour::<Hop>().map(Hop::circuits), Some(count));
    let echoes: Vec<_> = took
        .iter()
        .map(|(source, connection, _)| (*source, w.start_echo(*source, *connection, 1000)))
        .collect();
    for (source, echo) in echoes {
        let transfer = w.finish_transfer(source, echo, secs(60));
        assert!(transfer.received == 1000 && !transfer.garbled, "{transfer:?}");
    }
    w.shutdown();
    w.assert_empty();
    took.into_iter().map(|(.., took)| took).collect()
}

#[test]
fn a_hundred_circuits_dialled_at_once_take_as_many_round_trips_as_one() {
    for shape in [Shape::Fan, Shape::Funnel, Shape::Pairs] {
        let slowest = COUNTS.map(|count| dial_all(shape, count).into_iter().max().expect("at least one"));
        eprintln!("{shape:?}: the slowest of {COUNTS:?} took {slowest:?}");
        // A round trip on the link to the relay is 40 ms.
        assert!(slowest[1] <= slowest[0] + Duration::from_millis(10), "{shape:?}: {slowest:?}");
        assert!(slowest[2] <= slowest[0] + Duration::from_millis(40), "{shape:?}: {slowest:?}");
    }
}

/// Nodes with sockets, all turned by one thread.
struct Loopback {
    runtimes: Vec<Runtime>,
    events: Vec<Vec<(Instant, Event)>>,
}

impl Loopback {
    fn new() -> Self {
        Self { runtimes: Vec::new(), events: Vec::new() }
    }

    fn add(&mut self, configure: impl FnOnce(&mut Config)) -> usize {
        let nth = self.runtimes.len();
        let mut config = Config::new(Identity::generate(&mut Rng::new([0; 32]).fork(&format!("node {nth}"))));
        configure(&mut config);
        let listen = vec!["127.0.0.1:0".parse().expect("an address")];
        let runtime = Runtime::new(config, RuntimeConfig { listen, ..RuntimeConfig::default() });
        self.runtimes.push(runtime.expect("a port on the loopback interface"));
        self.events.push(Vec::new());
        nth
    }

    fn node(&self, nth: usize) -> &Node {
        self.runtimes[nth].node()
    }

    /// Its address, with its `/p2p`.
    fn address(&self, nth: usize) -> Multiaddr {
        let (port, peer) = (self.runtimes[nth].local_addrs()[0].port(), self.node(nth).local_peer());
        format!("/ip4/127.0.0.1/udp/{port}/quic-v1/p2p/{peer}").parse().expect("an address")
    }

    fn run_until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let began = Instant::now();
        while !done(self) {
            assert!(began.elapsed() < Duration::from_secs(120), "{what}: not within two minutes");
            for (runtime, events) in self.runtimes.iter_mut().zip(&mut self.events) {
                runtime.turn(Some(Duration::ZERO)).expect("the system's event queue");
                while let Some(event) = runtime.poll_event() {
                    events.push((Instant::now(), event));
                }
            }
        }
    }

    fn outcome(&self, nth: usize, dial: DialId) -> Option<(Instant, ConnectionId)> {
        self.events[nth].iter().find_map(|(at, event)| {
            let outcome = event.dial_outcome(dial)?;
            Some((*at, outcome.unwrap_or_else(|error| panic!("dial failed: {error}"))))
        })
    }
}

/// Dials `count` circuits at once from one source to as many targets. Returns how long the first and the last took.
fn dial_for_real(count: usize) -> (Duration, Duration) {
    let mut net = Loopback::new();
    let relay = net.add(|config| config.hop = Some(RelayLimits::unlimited().into()));
    let source = net.add(|_| ());
    let targets: Vec<_> = (0..count).map(|_| net.add(|_| ())).collect();
    let relay_address = net.address(relay);
    for target in &targets {
        let (node, now) = net.runtimes[*target].node_mut();
        node.reserve(now, relay_address.clone()).expect("the address names the relay");
    }
    let (node, now) = net.runtimes[source].node_mut();
    let direct = node.dial(now, None, std::slice::from_ref(&relay_address));
    net.run_until("reservations", |net| {
        net.outcome(source, direct).is_some()
            && net.node(relay).behaviour::<Hop>().is_some_and(|hop| hop.reservations() == count)
    });
    let circuits: Vec<Multiaddr> = targets
        .iter()
        .map(|target| {
            let circuit = format!("{relay_address}/p2p-circuit/p2p/{}", net.node(*target).local_peer());
            circuit.parse().expect("an address")
        })
        .collect();
    let (began, (node, now)) = (Instant::now(), net.runtimes[source].node_mut());
    let dials: Vec<_> =
        circuits.iter().map(|circuit| node.dial(now, None, std::slice::from_ref(circuit))).collect();
    net.run_until("circuits", |net| dials.iter().all(|dial| net.outcome(source, *dial).is_some()));
    let took = dials.iter().filter_map(|dial| Some(net.outcome(source, *dial)?.0.duration_since(began)));
    let took: Vec<_> = took.collect();
    assert_eq!(took.len(), count);
    assert_eq!(net.node(relay).behaviour::<Hop>().map(Hop::circuits), Some(count));
    (took.iter().min().copied().unwrap_or_default(), took.iter().max().copied().unwrap_or_default())
}

#[test]
fn a_hundred_circuits_dialled_at_once_over_real_sockets_all_come_about_in_time() {
    for count in COUNTS {
        let (first, last) = dial_for_real(count);
        eprintln!(
            "{count} at once over the loopback interface: the first in {first:?}, the last in {last:?}"
        );
        // A hundredth of a second each is usual without optimisation; a stall would be one of many seconds for few.
        let most = Duration::from_secs(2) + Duration::from_millis(100) * count as u32;
        assert!(last <= most, "{count} at once: the last took {last:?}");
    }
}
