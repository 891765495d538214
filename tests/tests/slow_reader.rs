//! A slow reader on one of sixteen circuits costs the others nothing.
//!
//! All sixteen begin at one source, so that they share its connection to the relay: its bandwidth, its flow control
//! and its turns.

use std::time::Duration;

use peerless_core::{
    ids::{ConnectionId, StreamId},
    protocols::relay::limits::RelayLimits,
    quic,
};
use peerless_tests::{
    host::HostId,
    link::Link,
    world::{World, secs},
};

const CIRCUITS: usize = 16;
/// How long is measured, after as much again to get under way.
const MEASURED: Duration = secs(3);
const MIB: u64 = 1 << 20;

/// Why the last target takes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slow {
    /// Its application does not read, on one stream.
    Reader,
    /// Nothing passes between it and the relay, and the source writes to it on many streams.
    Link { streams: usize },
}

/// Where the bandwidth ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bottleneck {
    /// All circuits share it: between source and relay.
    Shared,
    /// Each has its own: between relay and target.
    Own,
}

/// What a run shows.
#[derive(Debug)]
struct Seen {
    /// Bytes a second that came back on each of the other circuits.
    others: Vec<f64>,
    /// Bytes that the source got rid of on the stalled circuit, none of which arrived.
    held: u64,
}

fn run(bottleneck: Bottleneck, slow: Option<Slow>) -> Seen {
    let mut w = World::new(1).quiet();
    let r = w.host("R").relay_with(RelayLimits::unlimited().into()).start();
    let a = w.host("A").start();
    let targets: Vec<_> = (0..CIRCUITS).map(|nth| w.host(format!("B{nth}")).start()).collect();
    targets.iter().for_each(|target| w.reserve(*target, r));
    match bottleneck {
        Bottleneck::Shared => w.link(a, r, Link::default().rate(20_000_000)),
        Bottleneck::Own => targets.iter().for_each(|b| w.link(*b, r, Link::default().rate(1_500_000))),
    }
    w.run_for(secs(1));
    let circuits: Vec<_> = targets.iter().map(|target| w.dial_via(a, r, *target)).collect();

    let (last, others) = circuits.split_last().expect("there are sixteen");
    let stalled =
        slow.map(|slow| stall(&mut w, slow, [a, r, targets[CIRCUITS - 1]], *last)).unwrap_or_default();
    // Until everything on the way is full.
    w.run_for(secs(5));
    let streams: Vec<_> = others.iter().map(|circuit| w.start_echo(a, *circuit, u64::MAX)).collect();
    let received =
        |w: &World| streams.iter().map(|stream| w.transfer(a, *stream).received).collect::<Vec<_>>();
    w.run_for(MEASURED);
    let before = received(&w);
    w.run_for(MEASURED);
    let during = received(&w).into_iter().zip(before).map(|(after, before)| after - before);
    let others = during.map(|bytes| bytes as f64 / MEASURED.as_secs_f64()).collect();
    let held = stalled.iter().map(|stream| w.transfer(a, *stream).sent).sum();
    assert!(streams.iter().all(|stream| !w.transfer(a, *stream).garbled));
    Seen { others, held }
}

fn stall(w: &mut World, slow: Slow, [a, r, target]: [HostId; 3], circuit: ConnectionId) -> Vec<StreamId> {
    let streams = match slow {
        Slow::Reader => {
            w.stop_reading(target);
            1
        }
        Slow::Link { streams } => {
            w.cut(r, target);
            streams
        }
    };
    (0..streams).map(|_| w.start_echo(a, circuit, u64::MAX)).collect()
}

/// Jain's index: 1 when all have the same, 1/n when one has it all.
fn fairness(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    sum * sum / (shares.len() as f64 * shares.iter().map(|share| share * share).sum::<f64>())
}

fn costs_nothing(bottleneck: Bottleneck) {
    let alone = run(bottleneck, None);
    // What the relay may hold of a circuit's bytes: a window of the stream on each side of it.
    let windows = 2 * u64::from(quic::Config::default().stream_window);
    let total = |seen: &Seen| seen.others.iter().sum::<f64>();
    eprintln!(
        "{bottleneck:?}, nobody slow: fairness {:.4}, {:.2} MB/s",
        fairness(&alone.others),
        total(&alone) / 1e6
    );
    for (slow, most_held) in [(Slow::Reader, MIB), (Slow::Link { streams: 32 }, windows + MIB)] {
        let seen = run(bottleneck, Some(slow));
        let fair = fairness(&seen.others);
        let shares = seen.others.iter().zip(&alone.others).map(|(with, without)| with / without);
        let (least, most) = shares.fold((f64::MAX, 0_f64), |(least, most), s| (least.min(s), most.max(s)));
        let (rate, held) = (total(&seen), seen.held);
        eprintln!(
            "{bottleneck:?}, {slow:?}: fairness {fair:.4}, {:.2} MB/s, each {least:.3} to {most:.3} of before, {} KiB held",
            rate / 1e6,
            held / 1024
        );
        assert!(fair >= 0.95, "fairness {fair}");
        assert!(rate >= 0.95 * total(&alone), "{rate} bytes a second instead of {}", total(&alone));
        // Which circuit is ahead on a shared link differs from run to run.
        assert!(least >= 0.95 || bottleneck == Bottleneck::Shared, "somebody has {least} of what it had");
        assert!(held > 0 && held <= most_held, "{held} bytes held");
    }
}

#[test]
fn a_slow_reader_costs_circuits_with_a_link_of_their_own_nothing() {
    costs_nothing(Bottleneck::Own);
}

#[test]
fn a_slow_reader_costs_circuits_on_a_shared_link_nothing() {
    costs_nothing(Bottleneck::Shared);
}
