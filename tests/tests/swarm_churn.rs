//! C3: connections that come and go leave nothing behind, a million of them in all the machines of connection management, and
//! as many as there is time for between whole nodes.
#![cfg(target_os = "linux")]

#[path = "swarm_churn/machines.rs"]
mod machines;

use std::sync::{Mutex, PoisonError};

use machines::{Machines, SEED};
use peerless_core::{node::Event, swarm::resources::Limits};
use peerless_tests::{
    machine::{self, resident},
    world::{World, ms, secs},
};

/// How much more memory there may be at the end than after the first tenth.
const FLAT: usize = 2 << 20;

/// Memory is counted by process, so one test at a time uses it.
static ALONE: Mutex<()> = Mutex::new(());

/// Runs so many cycles; memory must be flat once a tenth of them are done, or as many as `settled`.
fn assert_flat(cycles: u64, settled: u64, mut cycle: impl FnMut(u64)) {
    let (start, mut early) = (resident(), 0);
    for n in 0..cycles {
        if n == settled {
            early = resident();
        }
        cycle(n);
    }
    let end = resident();
    println!(
        "{cycles} cycles: {} KiB at first, {} after {settled}, {} in the end",
        start >> 10,
        early >> 10,
        end >> 10
    );
    assert!(end.saturating_sub(early) < FLAT, "memory grows");
}

#[test]
fn a_million_connections_that_come_and_go_leave_nothing_behind() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut machines = Machines::new();
    println!("seed {SEED:#x}");
    // What is remembered of those that are gone is as much as it gets after a fifth.
    assert_flat(1_000_000, 200_000, |_| machines.cycle());
    machines.end();
}

#[test]
fn two_thousand_connections_of_whole_nodes_leave_nothing_behind() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    whole_nodes(2_000);
}

/// `cargo test --release -p peerless-tests --test swarm_churn -- --ignored --nocapture`: a minute of a processor.
/// `PEERLESS_CHURN_CYCLES` is another number of cycles.
#[test]
#[ignore = "takes minutes"]
fn a_hundred_thousand_connections_of_whole_nodes_leave_nothing_behind() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    whole_nodes(machine::size("PEERLESS_CHURN_CYCLES", 100_000));
}

/// Nodes dial each other, every other time both at once, with a handshake and identify each time, and one of them closes, or
/// both, or they are cut off from each other meanwhile. What they have told is thrown away, as it would be by an embedder.
fn whole_nodes(cycles: u64) {
    let mut w = World::new(SEED).quiet();
    let mut hosts: Vec<_> = ["A", "B", "C", "D"]
        .into_iter()
        .map(|name| w.host(name).configure(|config| config.swarm.limits = Limits::unlimited()).start())
        .collect();
    let mut rng = w.fork("cycles");
    let mut connected = 0;
    assert_flat(cycles, cycles / 10, |n| {
        let at = rng.below(4) as usize;
        hosts.rotate_left(at);
        let (a, b) = (hosts[0], hosts[1]);
        let (to, back) = (w[b].address(), w[a].address());
        w.start_dial(a, None, &[to]);
        if n.is_multiple_of(2) {
            w.start_dial(b, None, &[back]);
        }
        // Now and then long enough for the superfluous one of two to be closed.
        w.run_for(if n % 16 == 2 { ms(1500) } else { ms(200) });
        if n.is_multiple_of(8) {
            w.cut(a, b);
        }
        for (from, of) in [(a, b), (b, a)].into_iter().take(1 + (n % 3) as usize) {
            for connection in w.connections(from, of) {
                connected += 1;
                w.close(from, connection);
            }
        }
        w.restore(a, b);
        w.run_for(ms(100));
        if n % 100 == 99 {
            // Whoever was cut off notices, and what was closed is forgotten.
            w.run_for(secs(60));
            for host in &hosts {
                let stats = w.node(*host).stats();
                assert_eq!((stats.connections, stats.streams, stats.dials), (0, 0, 0), "after {n}");
                assert_eq!((stats.quic.closing, w.node(*host).health().len()), (0, 0), "after {n}");
                assert!(w.node(*host).swarm().resources().is_empty(), "after {n}");
                assert!(w.node(*host).swarm().tags().is_empty(), "after {n}");
                let log = w.take_log(*host);
                let failed =
                    log.iter().filter(|(_, event)| matches!(event, Event::DialFailed { .. })).count();
                assert_eq!(failed, 0, "after {n}");
            }
        }
    });
    println!("{connected} connections");
    let settled: u64 = hosts.iter().map(|host| w.node(*host).counters().get("swarm.duplicates")).sum();
    assert!(connected > cycles && settled > cycles / 4, "hardly anybody has met");
    w.shutdown();
    w.assert_empty();
}
