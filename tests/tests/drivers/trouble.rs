//! What happens to machines: they sleep, their networks go, their clocks jump. All drivers at once, as most of it is waiting.

use std::{
    io::{Seek, Write},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use peerless_tests::machine;

use super::node::{ANY_PORT, DRIVERS, Node, echo, named};

/// When a connection is lost; [`SHORT`] is well below it, also with a probe timeout on top, and [`LONG`] above.
const IDLE: &str = "--idle 5";
const SHORT: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(8);
/// More than can be sent before the trouble begins.
const BULK: u64 = 48 << 20;
const ENDLESS: &str = "--bytes 100000000000";

fn on_all_drivers(test: impl Fn(&'static str) + Sync) {
    thread::scope(|scope| {
        for driver in DRIVERS {
            let test = &test;
            scope.spawn(move || test(driver));
        }
    });
}

/// A listener and a client in the middle of an echo.
fn busy_pair(driver: &str, listen: &str, echo: &str) -> (Node, String, Node) {
    let server = Node::start(driver, &format!("listen {listen} {IDLE}"));
    let address = server.address();
    let client = Node::start(driver, &format!("echo {address} {echo} {IDLE}"));
    server.event("connected");
    thread::sleep(Duration::from_millis(100));
    (server, address, client)
}

/// The echo goes through to its end.
fn succeeds(driver: &str, client: Node) {
    let (code, lines) = client.end();
    assert_eq!((code, named(&lines, "disconnected")), (Some(0), 1), "{driver}: {lines:?}");
}

/// The client has lost its connection, says so, and for one of these reasons.
fn loses(driver: &str, client: Node, reasons: &[&str]) {
    let (code, lines) = client.end();
    let lost = lines.iter().find(|line| line["event"] == "disconnected");
    let reason = lost.and_then(|line| line["reason"].as_str()).unwrap_or_default();
    assert!(code == Some(1) && reasons.contains(&reason), "{driver}: {lines:?}");
}

/// It has lost one connection, takes others, and is none the worse.
fn serves_on(driver: &str, server: Node, address: &str) {
    server.event("disconnected");
    assert_eq!(echo(driver, address, 100_000, 1), 100_000, "{driver}");
    assert_eq!(server.terminate().0, Some(0), "{driver}");
}

#[test]
fn a_process_that_is_stopped_for_a_moment_loses_nothing() {
    on_all_drivers(|driver| {
        let (server, _, client) = busy_pair(driver, ANY_PORT, &format!("--bytes {BULK}"));
        for stopped in [&server, &client] {
            stopped.signal("STOP");
            thread::sleep(SHORT);
            stopped.signal("CONT");
        }
        succeeds(driver, client);
        assert_eq!(server.terminate().0, Some(0), "{driver}");
    });
}

#[test]
fn a_process_that_sleeps_too_long_loses_its_connections_and_no_more() {
    on_all_drivers(|driver| {
        // The listener sleeps: the client's own timer says so. Whoever wakes up late finds its own timer due.
        let (server, address, client) = busy_pair(driver, ANY_PORT, ENDLESS);
        server.signal("STOP");
        loses(driver, client, &["timed out"]);
        server.signal("CONT");
        serves_on(driver, server, &address);
    });
    on_all_drivers(|driver| {
        let (server, address, client) = busy_pair(driver, ANY_PORT, ENDLESS);
        client.signal("STOP");
        assert_eq!(server.event("disconnected")["reason"], "timed out", "{driver}");
        client.signal("CONT");
        // What it sends is answered with a reset, if it gets to sending before its timer.
        loses(driver, client, &["timed out", "reset by the remote"]);
        assert_eq!(echo(driver, &address, 100_000, 1), 100_000, "{driver}");
        assert_eq!(server.terminate().0, Some(0), "{driver}");
    });
}

/// Interfaces and addresses can be taken away only where nobody else uses them.
#[test]
fn a_network_goes_away_and_comes_back() {
    alone("trouble::in_a_network_of_its_own");
}

/// Runs an ignored test in a network, and with mounts, of its own.
pub(crate) fn alone(test: &str) {
    let alone = |args: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--net", "--mount", "--map-root-user"]).args(args);
        command.env("PEERLESS_ALONE", "1").output()
    };
    match alone(&["ip", "link", "set", "lo", "up"]) {
        Ok(output) if output.status.success() => {}
        found => return machine::lacks(format_args!("a network namespace ({found:?})")),
    }
    let own = std::env::current_exe().unwrap();
    let test = ["--ignored", "--exact", test, "--nocapture"];
    let output = alone(&[&[own.to_str().unwrap()][..], &test].concat()).unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

pub(crate) fn assert_alone() {
    assert!(std::env::var_os("PEERLESS_ALONE").is_some(), "this would take away the machine's own network");
}

pub(crate) fn ip(args: &str) {
    let output = Command::new("ip").args(args.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {args}: {output:?}");
}

#[test]
#[ignore = "started by a_network_goes_away_and_comes_back"]
fn in_a_network_of_its_own() {
    assert_alone();
    let address = "addr add 10.9.0.1/32 dev lo";
    ip("link set lo up");
    ip(address);
    let listen = "--listen /ip4/10.9.0.1/udp/0/quic-v1";

    // The interface goes for a moment: what is lost is sent again.
    let pairs = DRIVERS.map(|driver| busy_pair(driver, listen, &format!("--bytes {BULK}")));
    ip("link set lo down");
    thread::sleep(SHORT);
    ip("link set lo up");
    for (driver, (server, _, client)) in DRIVERS.into_iter().zip(pairs) {
        succeeds(driver, client);
        assert_eq!(server.terminate().0, Some(0), "{driver}");
    }

    // The listener's address goes for good, as it seems: both sides find out by themselves and do not spin meanwhile.
    let pairs = DRIVERS.map(|driver| busy_pair(driver, listen, ENDLESS));
    ip("addr del 10.9.0.1/32 dev lo");
    let before = pairs.each_ref().map(|(server, _, client)| server.cpu() + client.cpu());
    thread::sleep(LONG);
    let after = pairs.each_ref().map(|(server, ..)| server.cpu());
    ip(address);
    for (n, (driver, (server, address, client))) in DRIVERS.into_iter().zip(pairs).enumerate() {
        assert!(after[n] < before[n] + LONG / 4, "{driver} spins: {:?} and {:?}", before[n], after[n]);
        loses(driver, client, &["timed out"]);
        serves_on(driver, server, &address);
    }
}

/// The clocks of a process, which the test sets.
struct Clocks {
    library: PathBuf,
    offsets: tempfile::NamedTempFile,
}

const HOUR: i64 = 3600;

impl Clocks {
    fn new(directory: &Path) -> Self {
        let library = directory.join("clock.so");
        if !library.exists() {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers/clock.c");
            let mut compiler = Command::new("cc");
            compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl");
            assert!(compiler.status().unwrap().success(), "a C compiler is what the build needs too");
        }
        let mut clocks = Self { library, offsets: tempfile::NamedTempFile::new_in(directory).unwrap() };
        clocks.set(0, 0);
        clocks
    }

    /// Seconds by which the wall clock and the monotonic clock are ahead.
    fn set(&mut self, wall: i64, monotonic: i64) {
        self.offsets.rewind().unwrap();
        let [a, b] = [wall, monotonic].map(i64::to_ne_bytes);
        self.offsets.write_all(&[a, b].concat()).unwrap();
    }

    fn start(&self, driver: &str, args: &str) -> Node {
        let env = [("LD_PRELOAD", &*self.library), ("PEERLESS_CLOCK", self.offsets.path())];
        Node::start_with(driver, args, &env)
    }
}

#[test]
fn clocks_that_jump_cost_connections_at_most() {
    let directory = tempfile::tempdir().unwrap();
    // Compiled once.
    drop(Clocks::new(directory.path()));
    on_all_drivers(|driver| {
        let [mut server_clocks, mut client_clocks] = [(); 2].map(|()| Clocks::new(directory.path()));
        let server = server_clocks.start(driver, &format!("listen {ANY_PORT}"));
        let address = server.address();
        let client = client_clocks.start(driver, &format!("echo {address} {ENDLESS}"));
        client.event("connected");

        // Somebody sets the wall clock: certificates made before and after are good on either side, and what is connected
        // stays so.
        for wall in [HOUR, -HOUR, 0] {
            for clocks in [&mut server_clocks, &mut client_clocks] {
                clocks.set(wall, 0);
                thread::sleep(Duration::from_millis(300));
                assert_eq!(echo(driver, &address, 100_000, 1), 100_000, "{driver} at {wall}");
            }
        }
        let (_, lines) = client.terminate();
        let lost: Vec<_> = lines.iter().filter(|line| line["event"] == "disconnected").collect();
        assert!(lost.len() == 1 && lost[0]["reason"] == "closed by us", "{driver}: {lines:?}");

        // The monotonic clock has jumped, as after a night's sleep where it counts that too: every timer is due at once.
        // A connection may survive, if a packet comes before its timer has its turn.
        let client = client_clocks.start(driver, &format!("echo {address} {ENDLESS}"));
        client.event("connected");
        for clocks in [&mut server_clocks, &mut client_clocks] {
            clocks.set(0, HOUR);
            thread::sleep(Duration::from_millis(500));
            assert_eq!(echo(driver, &address, 100_000, 1), 100_000, "{driver}");
        }
        let (code, lines) = client.terminate();
        assert_eq!((code, named(&lines, "error")), (Some(1), 1), "{driver}: {lines:?}");
        assert_eq!(server.terminate().0, Some(0), "{driver}");
    });
}
