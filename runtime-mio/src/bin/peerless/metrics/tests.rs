use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
};

use peerless_core::{identity::Identity, node::Config, rng::Rng};
use peerless_mio::{Runtime, RuntimeConfig};

use super::*;

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn runtime() -> Runtime {
    let identity = Identity::generate(&mut Rng::new([1; 32]));
    let listen = vec!["127.0.0.1:0".parse().unwrap()];
    Runtime::new(Config::new(identity), RuntimeConfig { listen, ..RuntimeConfig::default() }).unwrap()
}

#[test]
fn a_node_is_healthy_while_its_loop_turns_and_only_then() {
    let mut runtime = runtime();
    let handle = runtime.handle();
    let any = "127.0.0.1:0".parse().unwrap();
    let impatient = serve(any, runtime.handle(), Duration::from_millis(50), None, || 0).unwrap();
    for path in ["/healthz", "/metrics"] {
        let answer = get(impatient, path);
        assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nthe runtime does not answer\n"), "{answer}");
    }

    let patient = serve(any, runtime.handle(), Duration::from_secs(60), None, || 7).unwrap();
    let thread = thread::Builder::new().spawn(move || runtime.run(|_, _| {})).unwrap();
    assert!(get(patient, "/healthz").ends_with("\r\n\r\nok\n"));
    let metrics = get(patient, "/metrics?x");
    assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n"), "{metrics}");
    assert!(metrics.contains("\npeerless_log_lines_dropped_total 7\n"), "{metrics}");
    assert!(get(patient, "/").starts_with("HTTP/1.1 404 Not Found\r\n"));

    handle.shutdown();
    thread.join().unwrap().unwrap();
    assert!(get(patient, "/healthz").ends_with("\r\n\r\nthe runtime is gone\n"));
}

#[test]
fn counters_and_gauges_are_written_with_their_help_and_labels() {
    let text = text(runtime().node().metrics(), None, 0);
    for lines in [
        "# HELP peerless_streams Streams, those being negotiated included\n# TYPE peerless_streams gauge\npeerless_streams 0\n",
        "# TYPE peerless_relay_circuits_opened counter\npeerless_relay_circuits_opened_total 0\n",
        "\npeerless_connections{direction=\"inbound\",via=\"relay\"} 0\n",
        "\npeerless_counter_total{scope=\"quic.handshake\",name=\"timed_out\"} 0\n",
    ] {
        assert!(text.contains(lines), "{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn relays_are_written_with_their_peer_ids_and_numbers_with_fractions() {
    let mut runtime = runtime();
    let relay = Identity::generate(&mut Rng::new([2; 32])).peer();
    // There is no socket for it, so that the attempt fails at once.
    let address = format!("/ip6/::1/udp/1/quic-v1/p2p/{relay}").parse().unwrap();
    let (node, now) = runtime.node_mut();
    node.reserve(now, address).unwrap();
    let text = text(runtime.node().metrics(), None, 0);
    for lines in [
        "# TYPE peerless_known_relay_success_ratio gauge\npeerless_known_relay_success_ratio{relay=\"",
        &format!("\npeerless_known_relay_success_ratio{{relay=\"{relay}\"}} 0.0\n"),
        &format!("\npeerless_known_relay_failures{{relay=\"{relay}\"}} "),
        &format!("\npeerless_known_relay_active_circuits{{relay=\"{relay}\"}} 0\n"),
    ] {
        assert!(text.contains(lines), "{lines} in {text}");
    }
    assert!(!text.contains("peerless_known_relay_score{"), "who only fails has no score: {text}");
}
