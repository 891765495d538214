//! One suite for all drivers: the examples as real processes that talk over the loopback interface.
//!
//! Cargo builds the examples when it tests the whole package; for this suite alone, first
//! `cargo build -p peerless-tests --examples`. `PEERLESS_BULK_MIB` says how much the bulk test sends, each way and per driver; 256 by default, half a
//! minute for all of them in a debug build.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "drivers/networks.rs"]
mod networks;
#[path = "drivers/node.rs"]
mod node;
#[path = "drivers/trouble.rs"]
mod trouble;

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use node::{ANY_PORT, DRIVERS, Node, PATIENCE, echo, listen, named};
use serde_json::Value;

#[test]
fn every_driver_talks_to_every_other() {
    for server in DRIVERS {
        let (node, address) = listen(server);
        for client in DRIVERS {
            assert_eq!(echo(client, &address, 200_000, 3), 600_000, "{client} to {server}");
            let (code, lines) = Node::start(client, &format!("ping {address} --count 3")).end();
            assert_eq!((code, named(&lines, "ping")), (Some(0), 3), "{client} to {server}: {lines:?}");
        }
        let (code, lines) = node.terminate();
        assert_eq!(code, Some(0), "{server}");
        // Two connections of each client, and each of them was told the end of.
        assert_eq!(
            (named(&lines, "connected"), named(&lines, "disconnected")),
            (10, 10),
            "{server}: {lines:?}"
        );
    }
}

#[test]
fn bulk_goes_both_ways() {
    let mib: u64 = std::env::var("PEERLESS_BULK_MIB").map_or(256, |text| text.parse().unwrap());
    for driver in DRIVERS {
        let (_node, address) = listen(driver);
        assert_eq!(echo(driver, &address, mib << 20, 1), mib << 20, "{driver}");
    }
}

#[test]
fn a_thousand_streams() {
    for driver in DRIVERS {
        let (_node, address) = listen(driver);
        assert_eq!(echo(driver, &address, 1000, 1000), 1_000_000, "{driver}");
    }
}

#[test]
fn a_dial_that_nobody_answers_is_interrupted_at_once() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = format!("/ip4/127.0.0.1/udp/{}/quic-v1", silent.local_addr().unwrap().port());
    for driver in DRIVERS {
        silent.set_read_timeout(Some(PATIENCE)).unwrap();
        let node = Node::start(driver, &format!("ping {address}"));
        // It is dialling.
        silent.recv_from(&mut [0; 2000]).unwrap();
        let (code, lines) = node.terminate();
        assert_eq!((code, named(&lines, "error")), (Some(1), 1), "{driver}: {lines:?}");
        let message = lines.last().unwrap()["message"].as_str().unwrap();
        assert!(
            message == "interrupted" || message.ends_with("this node is shutting down"),
            "{driver}: {message}"
        );
        // What it sent before is not taken for the next driver's.
        silent.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        while silent.recv_from(&mut [0; 2000]).is_ok() {}
    }
}

#[test]
fn a_client_that_goes_in_the_middle_of_an_echo_costs_the_server_nothing() {
    for driver in DRIVERS {
        let (node, address) = listen(driver);
        let client = Node::start(driver, &format!("echo {address} --bytes 100000000000 --streams 5"));
        client.event("connected");
        thread::sleep(Duration::from_millis(300));
        let (code, lines) = client.terminate();
        assert_eq!((code, named(&lines, "echo")), (Some(1), 0), "{driver}: {lines:?}");
        node.event("disconnected");
        assert_eq!(echo(driver, &address, 100_000, 1), 100_000, "{driver}");
        assert_eq!(node.terminate().0, Some(0), "{driver}");
    }
}

#[test]
fn a_server_that_shuts_down_with_data_in_flight_tells_its_clients() {
    for driver in DRIVERS {
        let (node, address) = listen(driver);
        let client = Node::start(driver, &format!("echo {address} --bytes 100000000000 --streams 5"));
        client.event("connected");
        thread::sleep(Duration::from_millis(300));
        assert_eq!(node.terminate().0, Some(0), "{driver}");
        let (code, lines) = client.end();
        assert_eq!(code, Some(1), "{driver}: {lines:?}");
        let closed = lines.iter().find(|line| line["event"] == "disconnected");
        let reason = closed.map(|line| line["reason"].to_string()).unwrap_or_default();
        assert!(reason.contains("closed by the remote"), "{driver}: {lines:?}");
    }
}

/// What the relay, a listener that is reached through it, and a client of that say, in this order.
const CIRCUIT_STORY: [&[&str]; 3] = [
    &[
        "listening",
        "connected listener",
        "connected client",
        "circuit_opened client listener",
        "circuit_closed client listener",
        "disconnected client",
        "disconnected listener",
    ],
    &[
        "listening",
        "connected relay",
        "reservation relay",
        "connected client through the relay",
        "disconnected client",
        "reservation_lost relay",
        "disconnected relay",
    ],
    &[
        "connected relay",
        "connected listener through the relay",
        "echo",
        "disconnected listener",
        "disconnected relay",
    ],
];

fn circuit_story(relay: &str, listener: &str, client: &str) -> [Vec<String>; 3] {
    let relay = Node::start(relay, &format!("relay {ANY_PORT}"));
    let relay_address = relay.address();
    let listener = Node::start(listener, &format!("listen {ANY_PORT} --relay {relay_address}"));
    let reservation = listener.event("reservation");
    let address = reservation["addresses"][0].as_str().unwrap_or_else(|| panic!("{reservation}"));
    let peer_of = |address: &str| address.rsplit('/').next().unwrap().to_owned();
    let peers = [(peer_of(&relay_address), "relay"), (peer_of(address), "listener")];
    let (code, lines) = Node::start(client, &format!("echo {address} --bytes 50000")).end();
    assert_eq!(code, Some(0), "{client}: {lines:?}");
    let closed = relay.event("circuit_closed");
    assert!(closed["bytes_in"].as_u64().unwrap() > 50_000, "{closed}");
    let (listener, relay) = (listener.terminate(), relay.terminate());
    assert_eq!((listener.0, relay.0), (Some(0), Some(0)));
    let mut stories =
        [relay.1, listener.1, lines].map(|lines| lines.iter().map(|line| tell(line, &peers)).collect());
    // The only order that is nobody's to decide: the client closes its connection to the relay right after the one through
    // it, and which of the two ends the splice is up to when the packets of client and listener arrive.
    let of_relay: &mut Vec<String> = &mut stories[0];
    if let Some(at) = of_relay.iter().position(|line| line == "disconnected client")
        && of_relay.get(at + 1).is_some_and(|line| line.starts_with("circuit_closed"))
    {
        of_relay.swap(at, at + 1);
    }
    stories
}

/// An event and whom it is about.
fn tell(line: &Value, peers: &[(String, &str)]) -> String {
    let mut story = line["event"].as_str().unwrap().to_owned();
    for peer in ["peer", "relay", "source", "target"].iter().filter_map(|field| line[*field].as_str()) {
        let known = peers.iter().find(|(known, _)| known == peer);
        story += &format!(" {}", known.map_or("client", |(_, name)| name));
    }
    story + if line["relayed"] == true { " through the relay" } else { "" }
}

#[test]
fn the_story_of_a_circuit_is_the_same_on_every_driver() {
    for (n, driver) in DRIVERS.iter().enumerate() {
        let others = [DRIVERS[(n + 1) % 5], DRIVERS[(n + 2) % 5]];
        for [listener, client] in [[driver; 2], [&others[0], &others[1]]] {
            let stories = circuit_story(driver, listener, client);
            assert_eq!(stories, CIRCUIT_STORY, "{driver} for {listener} and {client}");
        }
    }
}

/// Lines that are neither blank, nor comments, nor tests, which stand last in a file.
fn lines_of_code(path: &Path) -> usize {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("\n#[cfg(test)]\n").next().unwrap();
    let counts = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with("//");
    code.lines().filter(counts).count()
}

#[test]
fn the_drivers_are_small() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let library = |folder: &str| -> usize {
        let files = fs::read_dir(root.join("..").join(folder)).unwrap();
        let files = files.map(|entry| entry.unwrap().path());
        let is_code = |path: &PathBuf| path.is_file() && !path.ends_with("tests.rs");
        files.filter(is_code).map(|path| lines_of_code(&path)).sum()
    };
    let example = |name: &str| lines_of_code(&root.join("examples").join(name));
    // What stands on top of the driver, for programs without a loop, has a limit of its own.
    let blocking = root.join("../runtime-mio/src/blocking.rs");
    let blocking_lines = lines_of_code(&blocking) + library("runtime-mio/src/blocking");
    let counts: [(&str, usize, usize); 6] = [
        // What all of them share.
        ("peerless-udp", library("runtime-mio/udp/src"), 700),
        ("peerless-mio", library("runtime-mio/src") - lines_of_code(&blocking), 720),
        ("peerless-mio, blocking", blocking_lines, 480),
        ("peerless-async-std", library("runtime-async-std/src"), 720),
        ("tokio_node", example("tokio_node.rs"), 250),
        ("std_node", example("std_node.rs"), 80),
    ];
    for (name, lines, limit) in counts {
        println!("{name}: {lines} lines of at most {limit}");
        assert!(lines <= limit, "{name} has {lines} lines");
    }
}
