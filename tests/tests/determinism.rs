//! The same seed gives the same bytes on the wire, in one process and in two.

use std::process::Command;

use peerless_tests::{
    link::Link,
    world::{World, ms, secs},
};

const CHILD: &str = "PEERLESS_WIRE_HASH_OF_SEED";

/// Reservation, circuit, direct connection and streams over links that lose, delay and reorder at random.
fn wire_hash(seed: u64) -> String {
    let mut w = World::new(seed);
    w.default_link(Link::latency(ms(20)).jitter(ms(5)).loss(0.01).reorder(0.01));
    let r = w.host("R").relay().start();
    let b = w.host("B").start();
    let a = w.host("A").start();
    w.reserve(b, r);
    w.run_for(secs(3));
    let circuit = w.dial_via(a, r, b);
    w.echo(a, circuit, 50_000);
    let direct = w.dial(a, b);
    w.echo(a, direct, 300_000);
    w.shutdown();
    let traffic = w.traffic();
    assert!(traffic.datagrams > 500 && traffic.dropped["lost"] > 0, "too little happened: {traffic:?}");
    w.wire_hash()
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    assert_eq!(wire_hash(7), wire_hash(7));
}

#[test]
fn another_seed_gives_other_bytes() {
    assert_ne!(wire_hash(7), wire_hash(8));
}

#[test]
fn two_processes_send_the_same_bytes() {
    let outputs: Vec<_> = (0..2)
        .map(|_| {
            let this = std::env::current_exe().expect("the test binary");
            let child = Command::new(this)
                .args(["--exact", "child_prints_its_wire_hash", "--nocapture"])
                .env(CHILD, "9")
                .output()
                .expect("the test binary runs");
            assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
            let output = String::from_utf8(child.stdout).expect("text");
            let hash = output.split_once("wire hash ").expect("the child prints its hash").1;
            hash.chars().take_while(char::is_ascii_hexdigit).collect::<String>()
        })
        .collect();
    assert_eq!(outputs[0].len(), 64);
    assert_eq!(outputs[0], outputs[1]);
    assert_eq!(outputs[0], wire_hash(9));
}

/// Does nothing unless it is run by [`two_processes_send_the_same_bytes`].
#[test]
fn child_prints_its_wire_hash() {
    if let Ok(seed) = std::env::var(CHILD) {
        println!("wire hash {}", wire_hash(seed.parse().expect("a number")));
    }
}
