//! Ping: echo, one stream per ping, and every way in which it ends.

use std::time::Duration;

use peerless_core::{
    errors::{OpenError, StreamFault},
    node::Event,
    protocols::ping::{self, Config, Failure, Ping},
};
use peerless_tests::{laws::Laws, solo::Solo};

fn solo(interval: Option<u64>) -> Solo<Ping> {
    let interval = interval.map(Duration::from_secs);
    Solo::new("A", Ping::new(Config { interval, ..Config::default() }))
}

fn results(solo: &mut Solo<Ping>) -> Vec<Result<Duration, Failure>> {
    let ping = |event| match event {
        Event::Ping(event) => event.result,
        other => panic!("{other:?}"),
    };
    solo.events().into_iter().map(ping).collect()
}

#[test]
fn a_ping_is_answered_with_its_own_bytes() {
    let mut solo = solo(None);
    let b = solo.connect("B");
    let stream = solo.accept(b, &ping::PROTOCOL);
    for byte in [1, 2] {
        solo.receive(stream, vec![byte; 32]);
        assert_eq!(solo.sent(stream), [vec![byte; 32]]);
    }
    solo.finish(stream);
    assert!(!solo.is_open(stream));
    assert!(solo.behaviour.is_empty());
}

#[test]
fn each_ping_has_its_own_stream_and_random_bytes() {
    let mut solo = solo(None);
    let b = solo.connect("B");
    let mut payloads = Vec::new();
    for _ in 0..2 {
        solo.with(|ping, cx| ping.ping(cx, b)).unwrap();
        let stream = solo.open();
        let payload = solo.sent(stream).remove(0);
        solo.advance(Duration::from_millis(25));
        solo.receive(stream, payload.clone());
        assert!(solo.is_finished(stream), "we are done, and say so");
        solo.finish(stream);
        assert!(solo.behaviour.is_empty());
        payloads.push(payload);
    }
    assert_ne!(payloads[0], payloads[1]);
    assert_eq!(results(&mut solo), [Ok(Duration::from_millis(25)), Ok(Duration::from_millis(25))]);
}

#[test]
fn a_wrong_answer_and_an_early_end_are_failures() {
    let mut solo = solo(None);
    let b = solo.connect("B");
    for end in [true, false] {
        solo.with(|ping, cx| ping.ping(cx, b)).unwrap();
        let stream = solo.open();
        if end {
            solo.finish(stream)
        } else {
            solo.receive(stream, vec![0; 32])
        }
        assert!(!solo.is_open(stream));
        assert_eq!(results(&mut solo), [Err(Failure::Mismatch)]);
        assert!(solo.behaviour.is_empty());
    }
}

#[test]
fn silence_is_a_failure_at_the_exact_tick() {
    let mut solo = solo(None);
    let b = solo.connect("B");
    solo.with(|ping, cx| ping.ping(cx, b)).unwrap();
    let stream = solo.open();
    solo.advance(Duration::from_secs(10) - Duration::from_nanos(1));
    assert!(solo.is_open(stream));
    solo.advance(Duration::from_nanos(1));
    assert!(!solo.is_open(stream));
    assert_eq!(results(&mut solo), [Err(Failure::Timeout)]);
    assert!(solo.behaviour.is_empty());
}

#[test]
fn an_answered_stream_that_the_remote_never_ends_is_given_up() {
    let mut solo = solo(None);
    let b = solo.connect("B");
    solo.with(|ping, cx| ping.ping(cx, b)).unwrap();
    let stream = solo.open();
    let payload = solo.sent(stream).remove(0);
    solo.receive(stream, payload);
    solo.advance(Duration::from_secs(10));
    assert!(!solo.is_open(stream));
    assert!(solo.behaviour.is_empty());
    assert_eq!(results(&mut solo).len(), 1);
}

#[test]
fn faults_are_told_once() {
    let mut solo = solo(None);
    let b = solo.connect("B");
    for _ in 0..3 {
        solo.with(|ping, cx| ping.ping(cx, b)).unwrap();
    }
    solo.refuse_open(OpenError::StreamLimit);
    let stream = solo.open();
    solo.reset(stream, StreamFault::Unsupported);
    let _ = solo.open();
    solo.disconnect(b);
    assert_eq!(solo.with(|ping, cx| ping.ping(cx, b)), Err(OpenError::NoConnection));
    assert_eq!(
        results(&mut solo),
        [
            Err(Failure::Open(OpenError::StreamLimit)),
            Err(Failure::Stream(StreamFault::Unsupported)),
            Err(Failure::Stream(StreamFault::ConnectionLost)),
        ]
    );
    assert!(solo.behaviour.is_empty());
}

#[test]
fn with_an_interval_every_connection_is_pinged_again_after_each_outcome() {
    let mut solo = solo(Some(15));
    let b = solo.connect("B");
    assert_eq!(solo.next_deadline(), "next ping");
    let stream = solo.open();
    let payload = solo.sent(stream).remove(0);
    solo.advance(Duration::from_millis(40));
    solo.receive(stream, payload);
    solo.finish(stream);
    assert_eq!(solo.next_deadline(), "next ping");
    let _never_answered = solo.open();
    assert_eq!(solo.next_deadline(), "ping timeout");
    assert_eq!(solo.next_deadline(), "next ping");
    insta::assert_snapshot!(solo.story(), @r"
    15.000  A  >  B  ping
    15.040  B  >  A  ping
    15.040  A  *  Ping { peer: B, result: Ok(40ms) }
    30.040  A  >  B  ping
    40.040  A  x  B  ping reset
    40.040  A  *  Ping { peer: B, result: Err(Timeout) }
    ");
    solo.disconnect(b);
    assert!(solo.behaviour.is_empty());
}

#[test]
fn laws() {
    let laws = Laws {
        make: || Ping::new(Config { interval: Some(Duration::from_secs(15)), ..Config::default() }),
        command: |solo, _| {
            if let Some(connection) = solo.connections.iter().map(|info| info.id).last() {
                solo.with(|ping, cx| ping.ping(cx, connection)).unwrap();
            }
        },
        settle: |_| (),
        entries: Ping::len,
        frames: vec![(ping::PROTOCOL, vec![0; 32].into())],
        most_actions: 40,
        reaches: &["ping.answered", "ping.failed"],
    };
    laws.check(30);
}
