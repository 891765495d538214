//! How much the sources of circuits have under way: what fills a long path, and what the relay's socket can hold.

use std::time::Duration;

use peerless_core::{
    ids::{ConnectionId, StreamId},
    protocols::relay::limits::RelayLimits,
};
use peerless_tests::{
    host::HostId,
    link::Link,
    world::{World, ms, secs},
};

/// What a usual system allows.
const SOCKET_BUFFER: usize = 4 << 20;
const MBIT: u64 = 1_000_000 / 8;

/// A relay that forwards so many bytes a second, and `circuits` through it, each with a source and a target of its own.
struct Crowd {
    w: World,
    circuits: Vec<(HostId, HostId, ConnectionId)>,
}

impl Crowd {
    fn new(circuits: usize, link: Link, per_second: u64) -> Self {
        let mut w = World::new(1).quiet();
        w.default_link(link);
        let relay = w.host("R").relay_with(RelayLimits::unlimited().into()).start();
        let ends: Vec<_> = (0..circuits)
            .map(|n| (w.host(format!("A{n}")).start(), w.host(format!("B{n}")).start()))
            .collect();
        for (_, target) in &ends {
            w.reserve(*target, relay);
        }
        w.run_for(secs(2));
        let circuits = ends.iter().map(|(a, b)| (*a, *b, w.dial_via(*a, relay, *b))).collect();
        w.run_for(secs(1));
        w.socket_buffer(relay, SOCKET_BUFFER, per_second);
        Self { w, circuits }
    }

    /// Has all sources send without end, each on so many streams.
    fn upload(&mut self, streams: usize) -> Vec<Vec<StreamId>> {
        let mut start = |a, circuit| self.w.start_perf(a, circuit, u64::MAX, 0);
        self.circuits.iter().map(|(a, _, c)| (0..streams).map(|_| start(*a, *c)).collect()).collect()
    }

    /// What each circuit carries in a second, over so long a time.
    fn rates(&mut self, streams: &[Vec<StreamId>], time: Duration) -> Vec<f64> {
        let sent = |crowd: &Self| -> Vec<u64> {
            let sent = |a, streams: &[StreamId]| streams.iter().map(|s| crowd.w.transfer(a, *s).sent).sum();
            crowd.circuits.iter().zip(streams).map(|((a, ..), streams)| sent(*a, streams)).collect()
        };
        let before = sent(self);
        self.w.run_for(time);
        let after = sent(self);
        after.iter().zip(before).map(|(after, before)| (after - before) as f64 / time.as_secs_f64()).collect()
    }

    fn lost(&self) -> u64 {
        self.w.traffic().dropped.values().sum()
    }
}

/// Jain's index: 1 when all have the same, 1/n when one has it all.
fn fairness(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    sum * sum / (shares.len() as f64 * shares.iter().map(|share| share * share).sum::<f64>())
}

#[test]
fn one_circuit_fills_200_mbit_over_legs_of_100_ms() {
    // The queue of the link holds what is under way once, as that of a router does.
    let link = Link::latency(ms(100)).rate(8 * 200 * MBIT).queue(5 << 20);
    let mut crowd = Crowd::new(1, link, 1000 * MBIT);
    let streams = crowd.upload(1);
    crowd.w.run_for(secs(7));
    let rate = crowd.rates(&streams, secs(3))[0] / MBIT as f64;
    eprintln!("{rate:.0} Mbit/s, {:?}", crowd.w.traffic().dropped);
    assert!(rate >= 160.0, "{rate:.0} Mbit/s");
    assert!(rate <= 200.0, "{rate:.0} Mbit/s, more than the link has");
}

#[test]
fn a_direct_stream_fills_200_mbit_over_100_ms() {
    let mut w = World::new(1).quiet();
    w.default_link(Link::latency(ms(100)).rate(8 * 200 * MBIT).queue(5 << 20));
    let [a, b] = ["A", "B"].map(|name| w.host(name).start());
    let connection = w.dial(a, b);
    let stream = w.start_perf(a, connection, u64::MAX, 0);
    w.run_for(secs(4));
    let before = w.transfer(a, stream).sent;
    w.run_for(secs(2));
    let rate = (w.transfer(a, stream).sent - before) as f64 / 2.0 / MBIT as f64;
    eprintln!("{rate:.0} Mbit/s");
    assert!(rate >= 160.0, "{rate:.0} Mbit/s");
}

/// So many circuits at once over a millisecond, through a relay that reads 400 Mbit/s. The targets of the last `stalled` read
/// nothing.
fn shared_without_a_loss(circuits: usize, stalled: usize, time: Duration) {
    let mut crowd = Crowd::new(circuits, Link::latency(ms(1)), 400 * MBIT);
    for (_, target, _) in &crowd.circuits[circuits - stalled..] {
        crowd.w.stop_reading(*target);
    }
    let before = crowd.lost();
    // A stream of a circuit has a window of its own; a program with several has more under way.
    let streams = crowd.upload(4);
    crowd.w.run_for(time);
    let mut rates = crowd.rates(&streams, time);
    rates.truncate(circuits - stalled);
    let (fair, lost) = (fairness(&rates), crowd.lost() - before);
    let total = rates.iter().sum::<f64>() / MBIT as f64;
    eprintln!("{circuits} circuits: {total:.0} Mbit/s, fairness {fair:.4}, {lost} datagrams lost");
    assert_eq!(lost, 0, "datagrams did not fit the socket's buffer: {:?}", crowd.w.traffic().dropped);
    assert!(fair >= 0.95, "fairness {fair}");
    assert!(total >= 300.0, "{total:.0} Mbit/s of 400");
}

#[test]
fn sixteen_circuits_at_1_ms_lose_nothing_and_share() {
    shared_without_a_loss(16, 0, ms(600));
}

#[test]
fn sixty_four_circuits_at_1_ms_lose_nothing_and_share() {
    shared_without_a_loss(64, 0, ms(600));
}

#[test]
fn a_target_that_reads_nothing_costs_fifteen_others_nothing() {
    shared_without_a_loss(16, 1, ms(600));
}

/// A source with two circuits, of which one leads to a target that has gone silent.
#[test]
fn what_lies_unread_keeps_neither_pings_nor_other_circuits_of_a_source_back() {
    let mut w = World::new(1).quiet();
    w.default_link(Link::latency(ms(1)).rate(8 * 100 * MBIT).queue(1 << 20));
    let relay = w.host("R").relay_with(RelayLimits::unlimited().into()).start();
    let [a, gone, b] = ["A", "gone", "B"].map(|name| w.host(name).start());
    [gone, b].iter().for_each(|target| w.reserve(*target, relay));
    w.run_for(secs(2));
    let [stalled, live] = [gone, b].map(|target| w.dial_via(a, relay, target));
    w.cut(relay, gone);
    // Each stream of a circuit has 256 KiB at first: together they want more than the relay holds.
    let _stalled: Vec<_> = (0..128).map(|_| w.start_perf(a, stalled, u64::MAX, 0)).collect();
    w.run_for(secs(8));
    let direct = w.connections(a, relay)[0];
    assert!(w.ping(a, direct) < ms(500));
    let from = w.now();
    w.echo(a, live, 1 << 20);
    let took = w.now().saturating_duration_since(from);
    assert!(took < secs(1), "a MiB there and back took {took:?}");
}
