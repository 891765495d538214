//! What who runs the command can rely on: no reader and no other client stops it, it says what it refuses, and signals,
//! keys and limits do what is expected.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
#![allow(clippy::disallowed_methods, reason = "real processes in real time")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    process::{Child, ChildStdout, Stdio},
    thread,
    time::{Duration, Instant},
};

use peerless_core::{
    Multiaddr,
    identity::Identity,
    node::{self, Event},
    protocols::rendezvous::{self, client},
    rng::Rng,
};
use peerless_mio::{Runtime, RuntimeConfig};
use serde_json::Value;

mod process;

use process::*;

/// A point whose lines are read only as far as is said, out of a pipe with room for a few.
struct Unread {
    child: Child,
    lines: BufReader<ChildStdout>,
    address: String,
    metrics: String,
}

impl Unread {
    fn start() -> Self {
        let mut child =
            command(&format!("--json --ephemeral relay {ANY_PORT} --metrics 127.0.0.1:0 --rendezvous"))
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
        let stdout = child.stdout.take().unwrap();
        rustix::pipe::fcntl_setpipe_size(&stdout, 4096).unwrap();
        let mut lines = BufReader::with_capacity(1, stdout);
        let (mut address, mut metrics) = (String::new(), String::new());
        while address.is_empty() || metrics.is_empty() {
            let event = next(&mut lines);
            match event["event"].as_str().unwrap() {
                "listening" => address = text(&event, "address").into(),
                "metrics" => metrics = text(&event, "address").into(),
                _ => {}
            }
        }
        Self { child, lines, address, metrics }
    }

    /// Makes it say more than two thousand lines.
    fn flood(&self) {
        for seed in 0..3 {
            register(&self.address, seed, 700);
        }
    }

    fn dropped(&self) -> u64 {
        sample(&get(&self.metrics, "/metrics"), "peerless_log_lines_dropped_total")
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn next(lines: &mut impl BufRead) -> Value {
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"))
}

/// Registers in that many namespaces.
fn register(point: &str, seed: u8, namespaces: usize) {
    let point: Multiaddr = point.parse().unwrap();
    let config = RuntimeConfig { listen: vec!["127.0.0.1:0".parse().unwrap()], ..RuntimeConfig::default() };
    let mut node = node::Config::new(Identity::generate(&mut Rng::new([seed; 32])));
    node.rendezvous_client.max_registrations = namespaces;
    let mut runtime = Runtime::new(node, config).unwrap();
    let (node, now) = runtime.node_mut();
    for n in 0..namespaces {
        node.register(now, client::Registration::new(point.clone(), format!("{seed}-{n}"))).unwrap();
    }
    let mut registered = 0;
    let end = Instant::now() + PATIENCE;
    while registered < namespaces {
        assert!(Instant::now() < end, "{registered} of {namespaces} registered");
        runtime.turn(Some(Duration::from_millis(100))).unwrap();
        while let Some(event) = runtime.poll_event() {
            match event {
                Event::Rendezvous(rendezvous::Event::Client(client::Event::Registered { .. })) => {
                    registered += 1;
                }
                Event::Rendezvous(rendezvous::Event::Client(client::Event::RegistrationFailed {
                    reason,
                    ..
                })) => panic!("{reason}"),
                _ => {}
            }
        }
    }
}

fn is_ok(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 200 OK\r\n")
}

fn ping(address: &str, count: usize) {
    let (events, code) = run_json(&format!("ping {address} -c {count} -i 1ms"));
    assert_eq!((code, named(&events, "ping").len()), (0, count), "{events:?}");
}

#[test]
fn a_relay_whose_lines_nobody_reads_goes_on_counts_them_and_ends_when_told() {
    let mut relay = Unread::start();
    relay.flood();
    ping(&relay.address, 100);
    assert!(is_ok(&get(&relay.metrics, "/healthz")));
    assert!(relay.dropped() > 0);
    let told = Instant::now();
    signal(&relay.child, "TERM");
    assert!(relay.child.wait().unwrap().success());
    assert!(told.elapsed() < Duration::from_secs(4), "{:?}", told.elapsed());
}

#[test]
fn whoever_reads_again_is_told_how_many_lines_are_missing() {
    let mut relay = Unread::start();
    relay.flood();
    let dropped = relay.dropped();
    let (mut told, mut lines) = (0, 0);
    while told == 0 {
        let event = next(&mut relay.lines);
        lines += 1;
        if event["event"] == "lines_dropped" {
            told = event["count"].as_u64().unwrap();
        }
    }
    assert!(dropped > 0 && told == dropped && lines > 1000, "{told} of {dropped} after {lines}");
}

#[test]
fn results_wait_for_a_reader_who_is_slow() {
    let listener = Peerless::start(&format!("--ephemeral listen {ANY_PORT}"));
    let mut child = command(&format!("--json ping {} -c 2500 -i 0ms", listener.address()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = child.stdout.take().unwrap();
    rustix::pipe::fcntl_setpipe_size(&stdout, 4096).unwrap();
    thread::sleep(Duration::from_secs(3));
    let events: Vec<Value> =
        BufReader::new(stdout).lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    assert!(child.wait().unwrap().success());
    assert_eq!((named(&events, "ping").len(), named(&events, "lines_dropped").len()), (2500, 0));
}

#[test]
fn a_relay_goes_on_when_its_reader_is_gone_and_says_so() {
    let mut relay = Unread::start();
    let (reader, _) = std::io::pipe().unwrap();
    drop(std::mem::replace(
        &mut relay.lines,
        BufReader::new(ChildStdout::from(std::os::fd::OwnedFd::from(reader))),
    ));
    ping(&relay.address, 10);
    assert!(is_ok(&get(&relay.metrics, "/healthz")));
    signal(&relay.child, "TERM");
    let told = Instant::now();
    assert!(relay.child.wait().unwrap().success());
    assert!(told.elapsed() < Duration::from_secs(4));
    let mut stderr = String::new();
    relay.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(stderr.lines().count() == 1 && stderr.contains("stdout cannot be written: "), "{stderr}");
}

#[test]
fn clients_that_dawdle_at_the_metrics_and_at_the_control_socket_hold_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let control = format!("--control {}/control", folder.path().display());
    let relay = Peerless::start(&format!("--ephemeral {control} relay {ANY_PORT} --metrics 127.0.0.1:0"));
    let metrics = text(&relay.event("metrics"), "address").to_owned();
    let address = relay.address();
    // None of them reads; some send nothing, and some their header byte by byte.
    let mut dawdlers: Vec<_> = (0..40).map(|_| TcpStream::connect(&metrics).unwrap()).collect();
    let asking = "GET /metrics HTTP/1.1\r\n";
    let silent: Vec<_> =
        (0..20).map(|_| UnixStream::connect(folder.path().join("control")).unwrap()).collect();
    for byte in asking.as_bytes() {
        for client in &mut dawdlers {
            // It may have been hung up on.
            let _ = client.write_all(&[*byte]);
        }
        thread::sleep(Duration::from_millis(20));
    }
    ping(&address, 20);
    assert!(is_ok(&get(&metrics, "/healthz")));
    let began = Instant::now();
    let status = run(&format!("--json {control} status"));
    assert!(status.status.success(), "{status:?}");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    drop((dawdlers, silent));
}

#[test]
fn a_hang_up_while_a_node_starts_does_not_end_it() {
    let folder = tempfile::tempdir().unwrap();
    for n in 0..5 {
        let identity = folder.path().join(n.to_string());
        let mut child = command(&format!("--json --identity {} listen {ANY_PORT}", identity.display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let end = Instant::now() + PATIENCE;
        while !identity.join("identity.key").exists() {
            assert!(Instant::now() < end, "no key was made");
            thread::sleep(Duration::from_micros(100));
        }
        signal(&child, "HUP");
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        while next(&mut lines)["event"] != "listening" {}
        signal(&child, "TERM");
        assert!(child.wait().unwrap().success());
    }
}

/// What the command does where a stream is full, and its exit code.
fn with_full(args: &str, is_stdout: bool) -> Option<i32> {
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = command(args);
    if is_stdout {
        command.stdout(full())
    } else {
        command.stderr(full())
    };
    command.output().unwrap().status.code()
}

#[test]
fn a_result_that_could_not_be_written_is_a_failure() {
    let listener = Peerless::start(&format!("--ephemeral listen {ANY_PORT}"));
    let at = listener.address();
    for args in ["--ephemeral id", "--json --ephemeral id", "--help", &format!("echo --bytes 1 {at}")] {
        assert_eq!(with_full(args, true), Some(1), "{args}");
    }
    assert_eq!(with_full("frobnicate", false), Some(2));
    assert_eq!(with_full("--ephemeral id", false), Some(0));
}

#[test]
fn a_key_that_leads_nowhere_or_is_no_file_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("identity.key");
    let refused = || {
        let mut child = command(&format!("--identity {} id", folder.path().display()))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > end {
                child.kill().unwrap();
            }
            thread::sleep(Duration::from_millis(10));
        }
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(2), 1), "{stderr}");
        fs::remove_file(&key).unwrap();
        stderr
    };
    std::os::unix::fs::symlink("/nowhere/at/all", &key).unwrap();
    assert!(refused().contains("is a link that leads nowhere"));
    assert!(std::process::Command::new("mkfifo").arg(&key).status().unwrap().success());
    assert!(refused().contains("is no regular file"));
}

#[test]
fn who_says_more_than_is_read_gets_its_answer_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let control = folder.path().join("control");
    let relay = Peerless::start(&format!(
        "--ephemeral --control {} relay {ANY_PORT} --metrics 127.0.0.1:0",
        control.display()
    ));
    let metrics = text(&relay.event("metrics"), "address").to_owned();
    relay.address();
    let mut client = UnixStream::connect(&control).unwrap();
    client.write_all(b"half a li").unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert!(serde_json::from_slice::<Value>(&answer).unwrap()["connections"].is_array());
    let mut client = TcpStream::connect(&metrics).unwrap();
    client.write_all(b"POST /metrics HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n").unwrap();
    thread::sleep(Duration::from_millis(300));
    client.write_all(&[b'x'; 1_000_000]).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.ends_with("GET or HEAD is needed\n"), "{answer}");
}

#[test]
fn a_hang_up_does_not_end_a_node() {
    let mut listener = Peerless::start(&format!("--ephemeral listen {ANY_PORT}"));
    let address = listener.address();
    listener.signal("HUP");
    assert_eq!(listener.event("signal_ignored")["signal"], "SIGHUP");
    ping(&address, 1);
    assert!(listener.terminate().success());
}

#[test]
fn a_refusal_is_told_with_peer_address_limit_and_status() {
    let relay = Peerless::start(&format!("--ephemeral relay {ANY_PORT} --max-reservations 1"));
    let at = relay.address();
    let first = Peerless::start(&format!("--ephemeral listen {ANY_PORT} --relay {at}"));
    first.event("reservation");
    let second = Peerless::start(&format!("--ephemeral listen {ANY_PORT} --relay {at}"));
    let me = peer_of(&second.address()).to_owned();
    let refused = relay.event("reservation_refused");
    assert_eq!(
        (text(&refused, "peer"), text(&refused, "status")),
        (&me[..], "RESERVATION_REFUSED"),
        "{refused}"
    );
    assert!(text(&refused, "address").starts_with("/ip4/127.0.0.1/udp/"), "{refused}");
    assert!(!text(&refused, "limit").is_empty(), "{refused}");
    let (_, code) = run_json(&format!("ping -c 1 {at}/p2p-circuit/p2p/{me}"));
    assert_eq!(code, 1);
    let refused = relay.event("circuit_refused");
    assert_eq!(
        (text(&refused, "target"), text(&refused, "status")),
        (&me[..], "NO_RESERVATION"),
        "{refused}"
    );
    assert!(text(&refused, "address").starts_with("/ip4/127.0.0.1/udp/"), "{refused}");
}

#[test]
fn a_peer_that_is_refused_after_it_has_proved_who_it_is_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config");
    let peer = Identity::generate(&mut Rng::new([0; 32]).fork("identity")).peer();
    fs::write(&config, format!("[gate]\ndeny = [\"{peer}\"]")).unwrap();
    let relay = Peerless::start(&format!("--ephemeral --config {} relay {ANY_PORT}", config.display()));
    let output = run(&format!("--seed 0 ping -c 1 {}", relay.address()));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let refused = relay.event("connection_refused");
    assert_eq!(
        (text(&refused, "peer"), text(&refused, "status")),
        (&peer.to_string()[..], "GATED"),
        "{refused}"
    );
}

#[test]
fn a_reservation_that_is_not_renewed_is_told_of_while_it_holds() {
    let relay = Peerless::start(&format!(
        "--ephemeral relay {ANY_PORT} --reservation-ttl 30s --reservation-rate 1/1h"
    ));
    let at = relay.address();
    let listener = Peerless::start(&format!("--ephemeral listen {ANY_PORT} --relay {at}"));
    listener.event("reservation");
    let told = listener.event("reservation_not_renewed");
    assert_eq!(text(&told, "relay"), peer_of(&at), "{told}");
    assert!(text(&told, "reason").contains("RESERVATION_REFUSED"), "{told}");
    assert!(told["left"].as_u64().unwrap() > 0 && told["retry"].is_u64(), "{told}");
}

#[test]
fn refused_connections_are_told_without_a_flood() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config");
    fs::write(&config, "[gate]\ndeny = [\"127.0.0.0/8\"]").unwrap();
    let mut relay = Peerless::start(&format!("--ephemeral --config {} relay {ANY_PORT}", config.display()));
    let at: Multiaddr = relay.address().parse().unwrap();
    let mut runtime =
        Runtime::new(node::Config::new(Identity::generate(&mut Rng::new([9; 32]))), RuntimeConfig::default())
            .unwrap();
    let (node, now) = runtime.node_mut();
    node.dial(now, None, std::slice::from_ref(&at));
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        runtime.turn(Some(Duration::from_millis(100))).unwrap();
        while runtime.poll_event().is_some() {}
    }
    assert!(relay.terminate().success());
    let events: Vec<_> = relay.events.iter().collect();
    let refused = named(&events, "connection_refused");
    assert!((1..=14).contains(&refused.len()), "{events:?}");
    assert_eq!(text(refused[0], "status"), "GATED");
    assert!(text(refused[0], "limit").contains("the network 127.0.0.0/8 is denied"), "{}", refused[0]);
    assert!(text(refused[0], "address").starts_with("/ip4/127.0.0.1/udp/"), "{}", refused[0]);
}

#[test]
fn every_line_has_its_time_and_no_colors_and_no_dumps_get_into_files() {
    let listener = Peerless::start(&format!("--ephemeral listen {ANY_PORT}"));
    let address = listener.address();
    let (events, _) = run_json(&format!("ping -c 1 {address}"));
    for event in events.iter().chain([&listener.event("connected")]) {
        assert!(humantime::parse_rfc3339(text(event, "time")).is_ok(), "{event}");
        assert_eq!(text(event, "time").len(), 24, "{event}");
    }
    let output = run(&format!("-v ping -c 1 {address}"));
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(stderr.lines().count() > 0);
    for line in stdout.lines().chain(stderr.lines()) {
        let time = line.split(' ').next().unwrap();
        assert!(time.len() == 24 && humantime::parse_rfc3339(time).is_ok(), "{line}");
        assert!(!line.contains('\u{1b}') && !line.contains(" { ") && !line.contains("event="), "{line}");
    }
}

#[test]
fn a_filter_for_logs_that_cannot_be_read_is_a_mistake() {
    let output = command("--ephemeral id").env("RUST_LOG", "peerless=lots").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), output.stdout.len(), stderr.lines().count()),
        (Some(2), 0, 1),
        "{stderr}"
    );
    assert!(stderr.contains("RUST_LOG=peerless=lots cannot be read"), "{stderr}");
    let output = command("--ephemeral id").env("RUST_LOG", "peerless=debug").output().unwrap();
    assert!(output.status.success());
}

#[test]
fn an_identity_is_used_by_one_process_at_a_time_and_free_after_any_end() {
    let folder = tempfile::tempdir().unwrap();
    let identity = format!("--identity {}", folder.path().display());
    let mut first = Peerless::start(&format!("{identity} listen {ANY_PORT}"));
    let address = first.address();
    for second in [format!("ping -c 1 {address}"), format!("listen {ANY_PORT}")] {
        let output = run(&format!("{identity} {second}"));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(2), 1), "{stderr}");
        assert!(stderr.contains("is in use by another process"), "{stderr}");
    }
    assert!(run(&format!("{identity} id")).status.success(), "looking is allowed");
    first.signal("KILL");
    first.child.wait().unwrap();
    let second = Peerless::start(&format!("{identity} listen {ANY_PORT}"));
    assert_eq!(peer_of(&second.address()), peer_of(&address));
}

#[test]
fn whoever_only_asks_leaves_no_key_behind_and_id_says_where_it_is() {
    let home = tempfile::tempdir().unwrap();
    let with_home = |args: &str| {
        let mut command = command(args);
        command.env("HOME", home.path()).env("XDG_DATA_HOME", home.path().join("data"));
        command.output().unwrap()
    };
    let listener = Peerless::start(&format!("--ephemeral listen {ANY_PORT}"));
    let address = listener.address();
    for args in [format!("ping -c 1 {address}"), format!("echo {address} --bytes 10")] {
        assert!(with_home(&args).status.success());
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "{args}");
    }
    let key = home.path().join("data/peerless/identity.key");
    let id = with_home("id");
    assert!(fs::exists(&key).unwrap());
    let stdout = String::from_utf8(id.stdout).unwrap();
    assert!(stdout.starts_with("12D3KooW") && stdout.lines().count() == 1, "{stdout}");
    let stderr = String::from_utf8(id.stderr).unwrap();
    assert_eq!(stderr, format!("key in {}\n", key.display()));
    let id: Value = serde_json::from_slice(&with_home("--json id").stdout).unwrap();
    assert_eq!(text(&id, "key"), key.display().to_string());
    fs::write(&key, "").unwrap();
    let refused = with_home("id");
    let stderr = String::from_utf8(refused.stderr).unwrap();
    assert_eq!((refused.status.code(), stderr.contains("is empty")), (Some(2), true), "{stderr}");
}

#[test]
fn transfers_stay_below_what_the_relay_allows_or_say_that_they_do_not() {
    let relay = Peerless::start(&format!("--ephemeral relay {ANY_PORT}"));
    let listener = Peerless::start(&format!("--ephemeral listen {ANY_PORT} --relay {}", relay.address()));
    let address = listener.event("reservation")["addresses"][0].as_str().unwrap().to_owned();
    for security in ["tls", "noise"] {
        for (transfer, lines) in
            [("echo", 1), ("perf", 2), ("perf --streams 100", 2), ("perf --download 10KiB", 0)]
        {
            let (events, code) = run_json(&format!("--security {security} {transfer} {address}"));
            assert_eq!(code, 0, "{transfer}: {events:?}");
            let told = named(&events, "circuit_limit");
            assert_eq!(told.len(), lines, "{transfer}: {events:?}");
            assert!(told.iter().all(|it| it["limit"] == 131_072 && it["fits"] == true), "{events:?}");
        }
    }
    let (events, code) = run_json(&format!("echo {address} --bytes 10MB"));
    let told = named(&events, "circuit_limit");
    assert_eq!((code, told.len(), &told[0]["fits"]), (1, 1, &false.into()), "{events:?}");
}

#[test]
fn capped_buffers_are_mentioned_once_with_what_to_set() {
    let most = |name: &str| -> usize {
        fs::read_to_string(format!("/proc/sys/net/core/{name}_max")).unwrap().trim().parse().unwrap()
    };
    let wanted = RuntimeConfig::default().socket_buffer;
    let is_capped = most("rmem") < wanted || most("wmem") < wanted;
    let mut child =
        command(&format!("--ephemeral listen {ANY_PORT} {ANY_PORT}")).stdout(Stdio::piped()).spawn().unwrap();
    thread::sleep(Duration::from_secs(1));
    signal(&child, "TERM");
    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    child.wait().unwrap();
    let advice = format!("sysctl -w net.core.rmem_max={wanted} net.core.wmem_max={wanted}");
    assert_eq!(output.matches(&advice).count(), usize::from(is_capped), "{output}");
}

#[test]
fn whoever_asks_a_point_for_too_short_a_time_is_told_the_least() {
    let point = Peerless::start(&format!("--ephemeral rendezvous {ANY_PORT}"));
    let at = point.address();
    let (events, code) = run_json(&format!("register {ANY_PORT} --point {at} --namespace x --ttl 1h"));
    assert_eq!(code, 1);
    let message = text(named(&events, "error")[0], "message");
    assert!(message.contains("E_INVALID_TTL") && message.contains("at least 7200 s"), "{message}");
    assert_eq!(text(&point.event("rendezvous_refused"), "status"), "E_INVALID_TTL");
}
