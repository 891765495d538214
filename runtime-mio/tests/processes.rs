//! The command as real processes on the loopback interface.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Stdio, thread, time::Duration};

use serde_json::Value;

mod process;

use process::*;

const STRANGER: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

#[test]
fn a_listener_answers_ping_echo_and_perf_directly() {
    let listener = Peerless::start(&format!("--ephemeral listen {ANY_PORT}"));
    let address = listener.address();

    let (events, code) = run_json(&format!("ping {address} -c 3 -i 10ms"));
    assert_eq!(code, 0, "{events:?}");
    let pings = named(&events, "ping");
    assert_eq!(pings.len(), 3);
    assert!(
        pings.iter().all(|ping| ping["peer"] == peer_of(&address) && ping["rtt_us"].as_u64().unwrap() > 0)
    );
    let connected = named(&events, "connected");
    assert_eq!((connected.len(), &connected[0]["relayed"]), (1, &Value::Bool(false)));

    let (events, code) = run_json(&format!("echo {address} --bytes 3000001"));
    assert_eq!(code, 0, "{events:?}");
    let echo = named(&events, "echo")[0];
    assert_eq!((&echo["bytes"], &echo["ok"]), (&3_000_001.into(), &true.into()));

    let (events, code) = run_json(&format!("perf {address} --upload 3MiB --download 2MiB --streams 7"));
    assert_eq!(code, 0, "{events:?}");
    let bytes: Vec<_> =
        named(&events, "perf").iter().map(|p| (text(p, "direction"), p["bytes"].as_u64())).collect();
    assert_eq!(bytes, [("upload", Some(3 << 20)), ("download", Some(2 << 20))]);
}

#[test]
fn no_bytes_and_one_byte_are_transfers_too() {
    let listener = Peerless::start(&format!("--ephemeral listen {ANY_PORT}"));
    let address = listener.address();
    for bytes in [0, 1] {
        let (events, code) = run_json(&format!("echo {address} --bytes {bytes}"));
        assert_eq!((code, named(&events, "echo")[0]["bytes"].as_u64()), (0, Some(bytes)));
        let (events, code) =
            run_json(&format!("perf {address} --upload {bytes} --download {bytes} --streams 3"));
        assert_eq!((code, named(&events, "perf").len()), (0, 2 * bytes as usize), "{events:?}");
    }
}

#[test]
fn three_processes_meet_through_the_relay() {
    let relay =
        Peerless::start(&format!("--ephemeral relay {ANY_PORT} --circuit-bytes 0 --circuit-duration 0"));
    let relay_address = relay.address();
    let mut listener = Peerless::start(&format!("--ephemeral listen {ANY_PORT} --relay {relay_address}"));
    let me = peer_of(&listener.address()).to_owned();
    let reservation = listener.event("reservation");
    assert_eq!(text(&reservation, "relay"), peer_of(&relay_address));
    let address = reservation["addresses"][0].as_str().unwrap().to_owned();
    assert_eq!(address, format!("{relay_address}/p2p-circuit/p2p/{me}"));

    for security in ["tls", "noise"] {
        let (events, code) = run_json(&format!("--security {security} ping {address} -c 5 -i 10ms"));
        assert_eq!((code, named(&events, "ping").len()), (0, 5), "{security}: {events:?}");
        let relayed: Vec<_> = named(&events, "connected").iter().map(|c| c["relayed"].as_bool()).collect();
        assert_eq!(relayed, [Some(false), Some(true)]);
        assert_eq!(text(&relay.event("circuit_opened"), "target"), me);
        relay.event("circuit_closed");
    }

    let (events, code) = run_json(&format!("echo {address} --bytes 3000000"));
    assert_eq!((code, named(&events, "echo")[0]["ok"].as_bool()), (0, Some(true)), "{events:?}");
    let closed = relay.event("circuit_closed");
    assert_eq!(text(&closed, "target"), me);
    for direction in ["bytes_in", "bytes_out"] {
        assert!(closed[direction].as_u64().unwrap() > 3_000_000, "{closed}");
    }

    let (events, code) = run_json(&format!("perf {address} --upload 4MiB --download 4MiB --streams 2"));
    assert_eq!((code, named(&events, "perf").len()), (0, 2), "{events:?}");
    assert!(listener.terminate().success());
}

#[test]
fn peers_behind_a_relay_find_each_other_at_a_point() {
    let point = Peerless::start(&format!("--ephemeral relay --rendezvous {ANY_PORT}"));
    let at = point.address();
    let there = format!("--point {at} --namespace app");
    let mut keeper = Peerless::start(&format!("--ephemeral register {there} --keep {ANY_PORT} --relay {at}"));
    let registered = keeper.event("registered");
    assert_eq!((text(&registered, "namespace"), &registered["ttl"]), ("app", &7200.into()));

    let mut watcher = Peerless::start(&format!("--ephemeral discover {there} --watch --interval 1s"));
    let peer = watcher.event("peer");
    let addresses: Vec<_> =
        peer["addresses"].as_array().unwrap().iter().map(|address| address.as_str().unwrap()).collect();
    assert!(addresses.iter().all(|address| peer_of(address) == text(&peer, "peer")), "{peer}");
    assert_eq!(
        (addresses.len(), &peer["signed"], peer["ttl"].as_u64().unwrap() > 7100),
        (2, &true.into(), true)
    );
    for address in addresses {
        let (events, code) = run_json(&format!("ping {address} -c 1"));
        assert_eq!(code, 0, "{events:?}");
    }

    // Without --keep the registration outlives the command.
    let other = format!("--point {at} --namespace other");
    let (events, code) = run_json(&format!("register {other} --ttl 3h {ANY_PORT}"));
    assert_eq!((code, named(&events, "registered")[0]["ttl"].as_u64()), (0, Some(3 * 3600)), "{events:?}");
    let (events, code) = run_json(&format!("discover {other} --limit 7"));
    assert_eq!((code, named(&events, "peer").len()), (0, 1), "{events:?}");

    assert!(keeper.terminate().success());
    let (events, code) = run_json(&format!("discover {there}"));
    assert_eq!((code, named(&events, "peer").len()), (0, 0), "{events:?}");
    assert!(watcher.terminate().success());

    let (events, code) = run_json(&format!("register {there} --ttl 60s"));
    assert_eq!(code, 1);
    let message = text(named(&events, "error")[0], "message");
    assert!(message.contains("E_INVALID_TTL"), "{message}");
    let listener = Peerless::start(&format!("--ephemeral listen {ANY_PORT}"));
    let no_point = listener.address();
    for watch in ["", " --watch"] {
        let (events, code) = run_json(&format!("discover --point {no_point} --namespace app{watch}"));
        assert_eq!(code, 1, "{events:?}");
        let message = text(named(&events, "error")[0], "message");
        assert!(message.contains("no answer from"), "{message}");
    }
}

#[test]
fn a_relay_and_its_client_serve_their_metrics() {
    let relay = Peerless::start(&format!("--ephemeral relay {ANY_PORT} --metrics 127.0.0.1:0"));
    let relay_metrics = text(&relay.event("metrics"), "address").to_owned();
    let relay_address = relay.address();
    let listen = format!("--ephemeral listen {ANY_PORT} --relay {relay_address} --metrics 127.0.0.1:0");
    let listener = Peerless::start(&listen);
    let listener_metrics = text(&listener.event("metrics"), "address").to_owned();
    let address = listener.event("reservation")["addresses"][0].as_str().unwrap().to_owned();

    let (events, code) = run_json(&format!("echo {address} --bytes 30000"));
    assert_eq!(code, 0, "{events:?}");
    let closed = relay.event("circuit_closed");
    for metrics in [&relay_metrics, &listener_metrics] {
        let health = get(metrics, "/healthz");
        assert!(health.starts_with("HTTP/1.1 200 OK\r\n") && health.ends_with("\r\n\r\nok\n"), "{health}");
    }

    let metrics = get(&relay_metrics, "/metrics");
    assert!(
        metrics.starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/openmetrics-text"),
        "{metrics}"
    );
    for (series, value) in [
        ("peerless_relay_reservations", 1),
        ("peerless_relay_reservations_accepted_total{renewed=\"false\"}", 1),
        ("peerless_relay_circuits", 0),
        ("peerless_relay_circuits_opened_total", 1),
        ("peerless_relay_bytes_total{direction=\"to_target\"}", closed["bytes_in"].as_u64().unwrap()),
        ("peerless_relay_bytes_total{direction=\"to_source\"}", closed["bytes_out"].as_u64().unwrap()),
        ("peerless_handshakes_total{direction=\"inbound\",via=\"direct\",result=\"completed\"}", 2),
        ("peerless_counter_total{scope=\"relay.hop\",name=\"circuits\"}", 1),
    ] {
        assert_eq!(sample(&metrics, series), value, "{series}");
    }
    assert!(sample(&metrics, "peerless_relay_bytes_total{direction=\"to_target\"}") > 30_000);
    assert!(sample(&metrics, "peerless_datagram_bytes_total{direction=\"out\"}") > 60_000);

    let metrics = get(&listener_metrics, "/metrics");
    assert_eq!(sample(&metrics, "peerless_reservations"), 1);
    assert_eq!(sample(&metrics, "peerless_connections{direction=\"outbound\",via=\"direct\"}"), 1);

    let (events, code) = run_json(&format!("relay {ANY_PORT} --metrics {relay_metrics}"));
    assert_eq!((code, named(&events, "error").len()), (1, 1), "the address is taken: {events:?}");
}

#[test]
fn a_circuit_ends_at_its_byte_limit() {
    let relay = Peerless::start(&format!("--ephemeral relay {ANY_PORT} --circuit-bytes 131072"));
    let relay_address = relay.address();
    let listener = Peerless::start(&format!("--ephemeral listen {ANY_PORT} --relay {relay_address}"));
    let address = listener.event("reservation")["addresses"][0].as_str().unwrap().to_owned();
    let (events, code) = run_json(&format!("perf {address} --upload 1000000"));
    assert_eq!((code, named(&events, "error").len()), (1, 1), "{events:?}");
    let closed = relay.event("circuit_closed");
    assert_eq!((closed["bytes_in"].as_u64(), text(&closed, "reason")), (Some(131_072), "byte limit reached"));
}

#[test]
fn a_relay_that_goes_away_takes_its_reservations_along() {
    let mut relay = Peerless::start(&format!("--ephemeral relay {ANY_PORT}"));
    let relay_address = relay.address();
    let listener = Peerless::start(&format!("--ephemeral listen {ANY_PORT} --relay {relay_address}"));
    listener.event("reservation");
    assert!(relay.terminate().success());
    assert_eq!(text(&listener.event("reservation_lost"), "relay"), peer_of(&relay_address));
}

#[test]
fn a_peer_that_is_no_relay_gives_no_reservation() {
    let other = Peerless::start(&format!("--ephemeral listen {ANY_PORT}"));
    let listener = Peerless::start(&format!("--ephemeral listen {ANY_PORT} --relay {}", other.address()));
    let message = listener.event("error");
    assert!(text(&message, "message").contains("no reservation at"), "{message}");
}

#[test]
fn another_peer_than_the_one_named_is_an_error() {
    let listener = Peerless::start(&format!("--ephemeral listen {ANY_PORT}"));
    let address = listener.address();
    let found = peer_of(&address);
    let (events, code) = run_json(&format!("ping {}", address.replace(found, STRANGER)));
    assert_eq!((code, named(&events, "connected").len()), (1, 0));
    let message = text(named(&events, "error")[0], "message");
    assert!(message.contains(&format!("expected peer {STRANGER}, found {found}")), "{message}");
}

#[test]
fn a_listener_told_to_stop_says_goodbye() {
    let mut listener = Peerless::start(&format!("--ephemeral listen {ANY_PORT}"));
    let mut dialer = Peerless::start(&format!("--ephemeral ping {} -c 1000", listener.address()));
    dialer.event("ping");
    assert!(listener.terminate().success());
    let reason = dialer.event("disconnected");
    assert!(text(&reason, "reason").starts_with("closed by the remote"), "{reason}");
    dialer.event("error");
    assert_eq!(dialer.child.wait().unwrap().code(), Some(1));
}

#[test]
fn a_ping_told_to_stop_succeeds_if_nothing_was_lost() {
    let listener = Peerless::start(&format!("--ephemeral listen {ANY_PORT}"));
    let mut dialer = Peerless::start(&format!("--ephemeral ping {} -c 1000", listener.address()));
    dialer.event("ping");
    assert!(dialer.terminate().success());
    assert!(text(&listener.event("disconnected"), "reason").starts_with("closed by the remote"));
}

#[test]
fn a_mistake_exits_2_with_one_sentence_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let identity = directory.path().join("none");
    for args in [
        "",
        "relays",
        "id --jsno",
        "ping",
        "ping /ip4/127.0.0.1/tcp/1",
        "ping 127.0.0.1:4001",
        "echo /ip4/127.0.0.1/udp/1/quic-v1 --bytes lots",
        "relay --listen /ip4/127.0.0.1/udp/0",
        "relay --metrics 127.0.0.1",
        "relay --signed-only",
        "listen --metrics :9090",
        "listen --relay /ip4/127.0.0.1/udp/1/quic-v1",
    ] {
        let output = run(&format!("{args} --identity {}", identity.display()));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            (output.status.code(), output.stdout.len(), stderr.lines().count()),
            (Some(2), 0, 1),
            "{stderr}"
        );
        assert!(!identity.exists());
    }
}

#[test]
fn a_key_is_made_on_first_use_and_a_broken_one_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let id = format!("id --identity {}", directory.path().display());
    let first = run(&id);
    assert!(first.status.success() && first.stdout.starts_with(b"12D3KooW"));
    assert_eq!(run(&id).stdout, first.stdout);
    let key = directory.path().join("identity.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    fs::write(&key, "broken").unwrap();
    let refused = run(&id);
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(2), 0));
    assert_eq!(fs::read(&key).unwrap(), b"broken");
}

#[test]
fn a_process_killed_at_any_moment_leaves_its_key_whole_or_not_there() {
    let parent = tempfile::tempdir().unwrap();
    let id = |directory: &Path| format!("id --identity {}", directory.display());
    let key = |directory: &Path| fs::read(directory.join("identity.key"));
    #[expect(clippy::disallowed_methods, reason = "when to kill depends on how fast this machine is")]
    let now = std::time::Instant::now;
    // The whole of it, and a little more.
    let start = now();
    assert!(run(&id(&parent.path().join("timing"))).status.success());
    let (whole, length) = (start.elapsed() * 5 / 4, key(&parent.path().join("timing")).unwrap().len());
    let (kills, mut before, mut after) = (100, 0, 0);
    for n in 0..=kills {
        let directory = parent.path().join(n.to_string());
        let mut child = command(&id(&directory)).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(whole * n / kills);
        child.kill().unwrap();
        child.wait().unwrap();
        let left = key(&directory);
        match &left {
            Ok(left) => {
                after += 1;
                assert_eq!(left.len(), length);
            }
            Err(error) => {
                before += 1;
                assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
            }
        }
        // The next one goes on from there.
        let next = run(&id(&directory));
        assert!(next.status.success(), "{next:?}");
        let kept = key(&directory).unwrap();
        assert!(left.is_err() || left.unwrap() == kept);
        assert_eq!(run(&id(&directory)).stdout, next.stdout);
    }
    assert!(before > 0, "no kill came before the key was there, of which {after} came after");

    // And one that runs with its key for a while has it still.
    let directory = parent.path().join("0");
    let expected = key(&directory).unwrap();
    let mut listener = Peerless::start(&format!("listen {ANY_PORT} --identity {}", directory.display()));
    listener.address();
    listener.child.kill().unwrap();
    listener.child.wait().unwrap();
    assert_eq!(key(&directory).unwrap(), expected);
}

#[test]
fn the_same_seed_is_the_same_peer() {
    let peer = |seed| run_json_seed(seed);
    assert_eq!(peer(1), peer(1));
    assert_ne!(peer(1), peer(2));
}

fn run_json_seed(seed: u64) -> Value {
    let output = run(&format!("--json --seed {seed} id"));
    serde_json::from_slice::<Value>(&output.stdout).unwrap()["peer"].clone()
}

#[test]
fn a_configuration_file_is_obeyed_and_a_wrong_one_is_refused_before_anything_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let (file, identity) = (directory.path().join("peerless.toml"), directory.path().join("identity"));
    let arguments = format!("--config {} --identity {}", file.display(), identity.display());
    let listen = "listen --listen /ip4/127.0.0.1/udp/0/quic-v1";
    for (text, words) in [
        ("[limits]\nper_iP = 3", "line 2: unknown field `per_iP`"),
        ("[pruner]\nlow_water = 9999", "pruner.low_water must not be above pruner.high_water"),
        ("[gate]\ndeny = [\"10.0.0.0/99\"]", "is no entry"),
    ] {
        fs::write(&file, text).unwrap();
        let output = run(&format!("{arguments} {listen}"));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(2), 1), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
        assert!(!identity.exists());
    }
    fs::write(&file, "[gate]\ndeny = [\"127.0.0.0/8\"]").unwrap();
    let target = Peerless::start("--ephemeral listen --listen /ip4/127.0.0.1/udp/0/quic-v1");
    let output = run(&format!("--ephemeral --config {} ping -c 1 {}", file.display(), target.address()));
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("denied: the network 127.0.0.0/8 is denied"), "{said}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_running_node_tells_its_connections_over_its_control_socket() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control");
    let control = format!("--control {}", socket.display());
    let none = run(&format!("{control} status"));
    assert_eq!(none.status.code(), Some(1));
    assert_eq!(run("status").status.code(), Some(2));

    let relay = Peerless::start("--ephemeral relay --listen /ip4/127.0.0.1/udp/0/quic-v1");
    let relay_address = relay.address();
    let node = Peerless::start(&format!(
        "--ephemeral {control} listen --listen /ip4/127.0.0.1/udp/0/quic-v1 --relay {relay_address}"
    ));
    node.event("reservation");
    let output = run(&format!("--json {control} status"));
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    let row = &status["connections"][0];
    assert_eq!(status["event"], "status");
    assert_eq!((&row["direction"], &row["transport"]), (&"outbound".into(), &"quic".into()), "{status}");
    assert_eq!(row["protected"][0], "relay");
    assert!(row["rtt_us"].as_u64().unwrap() > 0 && relay_address.contains(row["peer"].as_str().unwrap()));
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);

    let table = String::from_utf8(run(&format!("{control} status")).stdout).unwrap();
    assert!(
        table.contains("connections 1,") && table.contains("DIRECTION") && table.contains("!relay"),
        "{table}"
    );
    let second = run(&format!("--ephemeral {control} listen --listen /ip4/127.0.0.1/udp/0/quic-v1"));
    assert_eq!(second.status.code(), Some(2), "one socket is for one node");
    let file = directory.path().join("file");
    fs::write(&file, "precious").unwrap();
    let spared = run(&format!("--ephemeral --control {} listen", file.display()));
    assert_eq!((spared.status.code(), fs::read_to_string(&file).unwrap()), (Some(2), "precious".into()));
}

#[test]
fn who_was_known_before_an_end_of_any_kind_is_found_again_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config");
    fs::write(&config, "[auto_connect]\npeers = 1").unwrap();
    let relay =
        Peerless::start(&format!("--ephemeral relay {ANY_PORT} --store {}/relay", folder.path().display()));
    let address = relay.address();
    for is_crash in [false, true] {
        let args = format!(
            "--identity {0} --config {1} listen {ANY_PORT} --store {0}/store-{is_crash}",
            folder.path().display(),
            config.display()
        );
        let mut listener = Peerless::start(&format!("{args} --relay {address}"));
        listener.event("reservation");
        if is_crash {
            // So long changes are collected.
            thread::sleep(Duration::from_secs(11));
            listener.child.kill().unwrap();
            listener.child.wait().unwrap();
        } else {
            assert!(listener.terminate().success());
        }
        // Nobody tells it of the relay now.
        let listener = Peerless::start(&args);
        assert_eq!(
            text(&listener.event("connected"), "peer"),
            peer_of(&address),
            "after a crash: {is_crash}"
        );
    }
}

#[test]
fn what_is_announced_is_handed_on_by_a_relay_and_what_is_not_is_not() {
    let relay = Peerless::start(&format!(
        "--ephemeral relay {ANY_PORT} --announce /ip4/203.0.113.5/udp/4001/quic-v1 --no-announce 127.0.0.2/32"
    ));
    let client = Peerless::start(&format!("--ephemeral listen {ANY_PORT} --relay {}", relay.address()));
    let reservation = client.event("reservation");
    let addresses: Vec<_> =
        reservation["addresses"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    assert!(
        addresses.iter().any(|a| a.starts_with("/ip4/203.0.113.5/udp/4001/quic-v1/p2p/")),
        "{addresses:?}"
    );
    assert!(addresses.iter().any(|a| a.starts_with("/ip4/127.0.0.1/")), "{addresses:?}");
}

#[test]
fn a_node_of_which_nobody_can_be_told_says_so_once() {
    let node = Peerless::start(&format!("--ephemeral listen {ANY_PORT} --no-announce 127.0.0.0/8"));
    node.event("no_address");
}

#[test]
fn an_address_that_cannot_be_announced_is_refused_with_a_sentence() {
    let stranger = format!("/ip4/203.0.113.5/udp/4001/quic-v1/p2p/{STRANGER}");
    for (flags, sentence) in [
        ("--announce /ip4/203.0.113.5/udp/0/quic-v1", "port 0 is no port"),
        ("--announce /ip4/10.0.0.1/udp/1/quic-v1 --no-announce 10.0.0.0/8", "as it lies in 10.0.0.0/8"),
        ("--no-announce 10.0.0.0/33", "network"),
        (&format!("--announce {stranger}"), "it names peer"),
    ] {
        let output = run(&format!("--ephemeral listen {ANY_PORT} {flags}"));
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), told.lines().count()), (Some(2), 1), "{told}");
        assert!(told.contains(sentence), "{told}");
    }
}
