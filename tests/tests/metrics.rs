//! What a node says of itself in numbers is what happened.

use std::collections::BTreeSet;

use peerless_core::{
    node::{Event, Label, MetricKind, Metrics, Value},
    protocols::relay::{hop, limits::RelayLimits},
};
use peerless_tests::{
    host::HostId,
    world::{World, ms, secs},
};

/// Name, labels and value of a sample.
type Expected<'a> = (&'a str, &'a [(&'a str, &'a str)], u64);

fn assert_values(w: &World, host: HostId, expected: &[Expected<'_>]) {
    let metrics = w.node(host).metrics();
    for (name, labels, value) in expected {
        assert_eq!(metrics.get(name, labels), Some(*value), "{} of {}: {labels:?}", name, w[host].name());
    }
}

/// B reserves at R, and A reaches it; C is one too many.
#[test]
fn the_numbers_of_a_circuit_tell_its_story() {
    let mut w = World::new(1);
    let r = w
        .host("R")
        .relay_with(hop::Config::from(RelayLimits { max_reservations: 1, ..RelayLimits::default() }))
        .start();
    let [a, b, c] = ["A", "B", "C"].map(|name| w.host(name).start());
    w.reserve(b, r);
    w.run_for(secs(1));
    w.reserve(c, r);
    w.run_for(secs(1));
    let connection = w.dial_via(a, r, b);
    w.echo(a, connection, 1832);

    let inbound = ("direction", "inbound");
    let outbound = ("direction", "outbound");
    let (direct, relayed) = (("via", "direct"), ("via", "relay"));
    assert_values(
        &w,
        r,
        &[
            ("peerless_connections", &[inbound, direct], 3),
            ("peerless_connections", &[inbound, relayed], 0),
            ("peerless_quic_connections", &[("state", "connected")], 3),
            ("peerless_handshakes_total", &[inbound, direct, ("result", "completed")], 3),
            ("peerless_splices", &[], 1),
            ("peerless_relay_reservations", &[], 1),
            ("peerless_relay_circuits", &[], 1),
            ("peerless_relay_reservations_accepted_total", &[("renewed", "false")], 1),
            ("peerless_relay_reservations_accepted_total", &[("renewed", "true")], 0),
            ("peerless_relay_reservations_refused_total", &[("status", "RESERVATION_REFUSED")], 1),
            ("peerless_relay_reservations_refused_total", &[("status", "PERMISSION_DENIED")], 0),
            ("peerless_relay_circuits_opened_total", &[], 1),
            ("peerless_counter_total", &[("scope", "relay.hop"), ("name", "reserved")], 1),
            ("peerless_counter_total", &[("scope", "quic.handshake"), ("name", "timed_out")], 0),
        ],
    );
    assert_values(
        &w,
        a,
        &[
            ("peerless_connections", &[outbound, direct], 1),
            ("peerless_connections", &[outbound, relayed], 1),
            ("peerless_handshakes_total", &[outbound, relayed, ("result", "completed")], 1),
            ("peerless_circuits", &[], 1),
        ],
    );
    assert_values(
        &w,
        b,
        &[
            ("peerless_connections", &[inbound, relayed], 1),
            ("peerless_reservations", &[], 1),
            ("peerless_reservations_wanted", &[], 1),
        ],
    );
    assert_values(&w, c, &[("peerless_reservations", &[], 0), ("peerless_reservations_wanted", &[], 1)]);

    let alive = relayed_bytes(&w.node(r).metrics());
    w.close(a, connection);
    w.run_for(ms(500));
    let closed = w[r].log().iter().find_map(|(_, event)| match event {
        Event::Hop(hop::Event::CircuitClosed { bytes_in, bytes_out, .. }) => Some([*bytes_in, *bytes_out]),
        _ => None,
    });
    let over = relayed_bytes(&w.node(r).metrics());
    assert_eq!(Some(over), closed);
    assert!(alive.iter().zip(over).all(|(alive, over)| (1832..=over).contains(alive)), "{alive:?} {over:?}");
    assert_values(
        &w,
        r,
        &[
            ("peerless_splices", &[], 0),
            ("peerless_relay_circuits", &[], 0),
            ("peerless_relay_circuits_closed_total", &[("reason", "finished")], 1),
        ],
    );
    assert_values(&w, a, &[("peerless_connections_closed_total", &[("reason", "local")], 1)]);

    w.shutdown();
    assert_values(
        &w,
        r,
        &[
            ("peerless_connections", &[inbound, direct], 0),
            ("peerless_relay_reservations", &[], 0),
            ("peerless_relay_reservations_ended_total", &[("reason", "disconnected")], 1),
        ],
    );
    let metrics = w.node(b).metrics();
    assert_eq!(metrics.get("peerless_reservations", &[]), Some(0));
    assert_eq!(relayed_bytes(&w.node(r).metrics()), over, "totals stay");
}

fn relayed_bytes(metrics: &Metrics) -> [u64; 2] {
    ["to_target", "to_source"].map(|direction| {
        metrics.get("peerless_relay_bytes_total", &[("direction", direction)]).expect("both directions")
    })
}

#[test]
fn limits_refusals_and_handshakes_that_fail_are_told_apart() {
    let mut w = World::new(2);
    let limits = RelayLimits { circuit_bytes: 8192, ..RelayLimits::default() };
    let r = w.host("R").relay_with(hop::Config::from(limits)).start();
    let [a, b, c] = ["A", "B", "C"].map(|name| w.host(name).start());
    w.reserve(b, r);
    w.run_for(secs(1));
    let connection = w.dial_via(a, r, b);
    let stream = w.start_perf(a, connection, 100_000, 0);
    w.finish_transfer(a, stream, secs(60));
    w.run_for(secs(2));
    let to_nobody = w.circuit(r, c);
    w.try_dial(a, None, &[to_nobody]).expect_err("C holds no reservation");
    let stranger = w[c].peer();
    let wrong = w[b].address();
    let (wrong, _) = peerless_proto::address::split_peer(&wrong);
    w.try_dial(c, Some(stranger), std::slice::from_ref(&wrong)).expect_err("C does not live there");
    w.try_dial(c, Some(w[r].peer()), &[wrong]).expect_err("nor does R");

    assert_values(
        &w,
        r,
        &[
            ("peerless_relay_circuits_closed_total", &[("reason", "data_limit")], 1),
            ("peerless_relay_circuits_refused_total", &[("status", "NO_RESERVATION")], 1),
            ("peerless_relay_circuits_refused_total", &[("status", "CONNECTION_FAILED")], 0),
            ("peerless_counter_total", &[("scope", "relay.hop.refused"), ("name", "no_reservation")], 1),
            ("peerless_relay_bytes_total", &[("direction", "to_target")], 8192),
        ],
    );
    let failed = [("direction", "outbound"), ("via", "direct"), ("result", "failed")];
    assert_values(&w, c, &[("peerless_handshakes_total", &failed, 1)]);
    assert_values(&w, a, &[("peerless_connections_closed_total", &[("reason", "circuit_limit")], 1)]);
}

/// A uses one relay over a circuit; another one is not there.
#[test]
fn each_relay_is_known_by_how_well_it_works() {
    let mut w = World::new(4);
    let [r, absent] = ["R", "Absent"].map(|name| w.host(name).relay().start());
    let [a, b] = ["A", "B"].map(|name| w.host(name).start());
    w.reserve(b, r);
    w.run_for(secs(1));
    w.kill(absent);
    let nowhere = w.circuit(absent, b);
    w.try_dial(a, None, &[nowhere]).expect_err("that relay is not there");
    let circuit = w.dial_via(a, r, b);

    let metrics = w.node(a).metrics();
    let [good, bad] = [r, absent].map(|relay| w[relay].peer());
    let of = |name: &str, relay| match metrics.get_of(&format!("peerless_known_relay_{name}"), relay)? {
        Value::Real(value) => Some(value),
        Value::Whole(_) => panic!("{name} is not whole"),
    };
    assert_eq!(metrics.get("peerless_known_relays", &[]), Some(2));
    assert_eq!(of("success_ratio", &good), Some(1.0));
    assert_eq!(of("success_ratio", &bad), Some(0.0));
    assert_eq!(of("failures", &good), Some(0.0));
    assert!(of("successes", &good).is_some_and(|n| n > 0.5) && of("failures", &bad).is_some_and(|n| n > 0.5));
    // The default link takes 20 ms there and 20 ms back.
    let latency = of("latency_seconds", &good).expect("it was measured");
    assert!((0.04..0.2).contains(&latency), "{latency}");
    assert_eq!((of("latency_seconds", &bad), of("failed_latency_seconds", &good)), (None, None));
    assert!(of("failed_latency_seconds", &bad).is_some_and(|waited| waited > 1.0));
    let score = of("score", &good).expect("it is fit");
    assert!((0.0..1000.0).contains(&score), "{score}");
    assert_eq!(of("score", &bad), None, "who only fails is not fit");
    let active = |w: &World| w.node(a).metrics().get_of("peerless_known_relay_active_circuits", &good);
    assert_eq!(active(&w), Some(Value::Whole(1)));
    w.close(a, circuit);
    w.run_for(secs(1));
    assert_eq!(active(&w), Some(Value::Whole(0)));
    w.run_for(secs(3600));
    let forgiven = w.node(a).metrics().get_of("peerless_known_relay_score", &bad);
    assert!(forgiven.is_some(), "a failure an hour ago is no ban");
}

#[test]
fn names_and_labels_are_what_prometheus_takes() {
    let mut w = World::new(3);
    let r = w.host("R").relay().start();
    let [a, b] = ["A", "B"].map(|name| w.host(name).start());
    w.reserve(b, r);
    w.run_for(secs(1));
    w.dial_via(a, r, b);
    let before = w.node(r).metrics();
    w.shutdown();
    let after = w.node(r).metrics();
    let names = |metrics: &Metrics| metrics.families.iter().map(|f| f.name).collect::<Vec<_>>();
    assert_eq!(names(&before), names(&after));
    assert_eq!(names(&before).iter().collect::<BTreeSet<_>>().len(), before.families.len());
    for family in &after.families {
        let name = family.name;
        let is_word = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        assert!(name.starts_with("peerless_") && is_word(name), "{name}");
        assert_eq!(family.kind == MetricKind::Counter, name.ends_with("_total"), "{name}");
        assert!(!family.help.is_empty() && !family.help.ends_with('.'), "{name}");
        let mut seen = BTreeSet::new();
        for sample in &family.samples {
            assert!(sample.labels.iter().all(|(label, _)| is_word(label)), "{name}");
            assert!(seen.insert(&sample.labels), "{name} has {:?} twice", sample.labels);
            if family.kind == MetricKind::Counter {
                let labels = &sample.labels;
                let word = |(label, value): &(&'static str, Label)| match value {
                    Label::Word(word) => (*label, *word),
                    Label::Peer(_) => panic!("peers come and go, counters stay: {name}"),
                };
                let words: Vec<_> = labels.iter().map(word).collect();
                let old = Value::Whole(before.get(name, &words).unwrap_or(0));
                assert!(sample.value >= old, "{name} {labels:?} fell from {old:?} to {:?}", sample.value);
            }
        }
    }
}
