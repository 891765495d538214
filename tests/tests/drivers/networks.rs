//! Several networks, addresses that come and go, names that are dead: as the system has them, in namespaces.

use std::{
    fs,
    net::UdpSocket,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{
    node::{Node, PATIENCE},
    trouble::{alone, assert_alone, ip},
};

/// All but `std_node`, which has one socket, looks at the interfaces once and blocks for a name.
const WHOLE: [&str; 4] = ["mio_node", "async_std_node", "smol_node", "tokio_node"];

#[test]
fn a_dial_leaves_from_the_socket_that_the_route_leads_to() {
    alone("networks::with_two_networks");
}

/// Another host: a network of its own, for as long as this lives.
struct Host(Child);

impl Host {
    fn new() -> Self {
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        let child =
            Command::new("unshare").args(["--net", "sleep", "600"]).stdin(Stdio::null()).spawn().unwrap();
        let host = Self(child);
        while fs::read_link(format!("/proc/{}/ns/net", host.0.id())).unwrap() == own {
            thread::sleep(Duration::from_millis(10));
        }
        host
    }

    fn ip(&self, args: &str) {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.0.id().to_string(), "ip"]).args(args.split_whitespace());
        assert!(command.status().unwrap().success(), "ip {args}");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "started by a_dial_leaves_from_the_socket_that_the_route_leads_to"]
fn with_two_networks() {
    assert_alone();
    let there = Host::new();
    ip("link set lo up");
    ip("link add first type veth peer name nowhere");
    ip("link set nowhere up");
    ip("addr add 10.1.1.1/24 dev first");
    ip("link set first up");
    ip(&format!("link add second type veth peer name theirs netns {}", there.0.id()));
    ip("addr add 10.2.2.1/24 dev second");
    ip("link set second up");
    there.ip("addr add 10.2.2.2/24 dev theirs");
    there.ip("link set theirs up");
    let (one, two) = ("--listen /ip4/10.1.1.1/udp/0/quic-v1", "--listen /ip4/10.2.2.1/udp/0/quic-v1");
    for driver in WHOLE {
        let relay = Node::start_at(there.0.id(), driver, "relay --listen /ip4/10.2.2.2/udp/0/quic-v1");
        let address = relay.address();
        for listen in [format!("{one} {two}"), format!("{two} {one}")] {
            let begun = now();
            let node = Node::start(driver, &format!("listen {listen} --relay {address}"));
            let reservation = node.event("reservation");
            let took = begun.elapsed();
            assert!(took < Duration::from_secs(2), "{driver} {listen}: {took:?}");
            // Who is called answers from where it was called.
            let circuit = reservation["addresses"][0].as_str().unwrap();
            let peer = circuit.rsplit('/').next().unwrap();
            let listening = node.taken("listening");
            let mut listening = listening.iter().map(|line| line["address"].as_str().unwrap());
            let second = listening.find(|at| at.contains("/10.2.2.1/")).unwrap();
            assert!(second.ends_with(peer));
            let client = Node::start_at(
                there.0.id(),
                driver,
                &format!("echo {second} --bytes 100000 --listen /ip4/10.2.2.2/udp/0/quic-v1"),
            );
            assert_eq!(client.end().0, Some(0), "{driver} {listen}");
            assert_eq!(node.terminate().0, Some(0), "{driver} {listen}");
        }
        assert_eq!(relay.terminate().0, Some(0), "{driver}");
    }
}

#[test]
fn addresses_that_come_and_go_are_followed() {
    alone("networks::with_changing_addresses");
}

#[test]
#[ignore = "started by addresses_that_come_and_go_are_followed"]
fn with_changing_addresses() {
    assert_alone();
    ip("link set lo up");
    ip("link add net type veth peer name other");
    ip("link set other up");
    ip("link set net up");
    for driver in WHOLE {
        ip("addr add 10.1.0.1/24 dev net");
        let relay = Node::start(driver, "relay --listen /ip4/0.0.0.0/udp/0/quic-v1");
        let first = address_at(&relay, "10.1.0.1");
        ip("addr del 10.1.0.1/24 dev net");
        ip("addr add 10.1.0.2/24 dev net");
        let second = address_at(&relay, "10.1.0.2");
        assert_eq!(second.replace("10.1.0.2", "10.1.0.1"), first);
        // What it hands out is where it is, and not where it was.
        let node =
            Node::start(driver, &format!("listen --listen /ip4/10.1.0.2/udp/0/quic-v1 --relay {second}"));
        let reservation = node.event("reservation");
        let handed_out = reservation["addresses"].to_string();
        assert!(
            handed_out.contains("/10.1.0.2/") && !handed_out.contains("/10.1.0.1/"),
            "{driver}: {handed_out}"
        );
        // It does not wake up for nothing.
        let before = relay.cpu();
        thread::sleep(Duration::from_secs(2));
        assert!(relay.cpu() <= before + Duration::from_millis(50), "{driver} spins");
        node.terminate();
        relay.terminate();
        ip("addr del 10.1.0.2/24 dev net");
    }
}

#[test]
fn a_network_that_returns_is_used_at_once() {
    alone("networks::with_a_network_that_returns");
}

#[test]
#[ignore = "started by a_network_that_returns_is_used_at_once"]
fn with_a_network_that_returns() {
    assert_alone();
    let there = Host::new();
    ip("link set lo up");
    ip(&format!("link add ours type veth peer name theirs netns {}", there.0.id()));
    ip("addr add 10.2.2.1/24 dev ours");
    ip("link set ours up");
    there.ip("addr add 10.2.2.2/24 dev theirs");
    there.ip("link set theirs up");
    let pairs = WHOLE.map(|driver| {
        let relay =
            Node::start_at(there.0.id(), driver, "relay --listen /ip4/10.2.2.2/udp/0/quic-v1 --idle 5");
        let listen = "listen --listen /ip4/0.0.0.0/udp/0/quic-v1";
        let node = Node::start(driver, &format!("{listen} --relay {} --idle 5", relay.address()));
        node.event("reservation");
        (relay, node)
    });
    // Long enough for the pauses between tries to be of many seconds.
    ip("link set ours down");
    ip("addr flush dev ours");
    thread::sleep(Duration::from_secs(30));
    ip("addr add 10.2.2.1/24 dev ours");
    ip("link set ours up");
    let begun = now();
    for (driver, (relay, node)) in WHOLE.into_iter().zip(pairs) {
        node.event("reservation");
        assert!(begun.elapsed() < Duration::from_secs(6), "{driver}: {:?}", begun.elapsed());
        node.terminate();
        relay.terminate();
    }
}

/// Where the node is listening at this IP address, once it says so.
fn address_at(node: &Node, ip: &str) -> String {
    let begun = now();
    loop {
        let address = node.address();
        if address.contains(&format!("/{ip}/")) {
            return address;
        }
        assert!(begun.elapsed() < PATIENCE, "it never listens at {ip}");
    }
}

#[expect(clippy::disallowed_methods, reason = "a test of processes takes its time")]
fn now() -> Instant {
    Instant::now()
}

#[test]
fn names_that_are_dead_delay_none_that_lives() {
    alone("networks::with_a_name_server_that_knows_one_name");
}

/// Answers for `live.example`, with 127.0.0.1, and for nothing else.
fn serve_names() {
    let socket = UdpSocket::bind("127.0.0.1:53").unwrap();
    let work = move || {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let question = &buffer[..length];
            let name = b"\x04live\x07example\0";
            if !question[12..].starts_with(name) {
                continue;
            }
            let end = 12 + name.len() + 4;
            let is_v4 = question[end - 3] == 1;
            let mut message = question[..2].to_vec();
            message.extend([0x81, 0x80, 0, 1, 0, u8::from(is_v4), 0, 0, 0, 0]);
            message.extend(&question[12..end]);
            if is_v4 {
                message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
            }
            socket.send_to(&message, from).unwrap();
        }
    };
    thread::Builder::new().spawn(work).unwrap();
}

#[test]
#[ignore = "started by names_that_are_dead_delay_none_that_lives"]
fn with_a_name_server_that_knows_one_name() {
    assert_alone();
    ip("link set lo up");
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "nameserver 127.0.0.1\n").unwrap();
    let mut mount = Command::new("mount");
    mount.arg("--bind").arg(file.path()).arg("/etc/resolv.conf");
    assert!(mount.status().unwrap().success());
    serve_names();
    for driver in WHOLE {
        let (server, address) = super::listen(driver);
        let (port, peer) = (address.split('/').nth(4).unwrap(), address.rsplit('/').next().unwrap());
        let live = format!("/dns4/live.example/udp/{port}/quic-v1/p2p/{peer}");
        for dead in [1, 8] {
            let dead = (0..dead).map(|n| match n % 2 {
                0 => format!("/dns4/dead{n}.example/udp/{port}/quic-v1/p2p/{peer}"),
                _ => format!("/dnsaddr/dead{n}.example/p2p/{peer}"),
            });
            let all: Vec<String> = dead.chain([live.clone()]).collect();
            let begun = now();
            let client = Node::start(driver, &format!("ping --count 1 {}", all.join(" ")));
            client.event("connected");
            let took = begun.elapsed();
            assert!(took < Duration::from_millis(1500), "{driver} {}: {took:?}", all.len());
            assert_eq!(client.end().0, Some(0), "{driver}");
        }
        assert_eq!(server.terminate().0, Some(0), "{driver}");
    }
}
