//! What hostile peers get: a typed error or a counted drop, and no memory.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use peerless_core::{
    errors::{AttemptError, CloseReason, DialError},
    node::{Event, Stats},
    protocols::relay::{HOP, hop, limits::RelayLimits},
    rng::{Rng, RngCore as _},
};
use peerless_proto::{multistream::encode_line, varint};
use peerless_tests::{
    host::HostId,
    machine::resident,
    raw::RawPeer,
    world::{World, ms, secs},
};

const MIB: usize = 1 << 20;

/// Tests that look at the memory of the process run one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn assert_flat(before: usize, allowed: usize) {
    let grown = resident().saturating_sub(before);
    assert!(grown <= allowed, "memory grew by {grown} bytes, allowed are {allowed}");
}

/// Everything that the QUIC pipe of a node turned away.
fn refused(stats: &Stats) -> u64 {
    stats.quic.refused.named().iter().map(|(_, count)| count).sum()
}

/// The lines that open a stream for `protocol`.
fn proposal(protocol: &str) -> BytesMut {
    let mut lines = BytesMut::new();
    encode_line("/multistream/1.0.0", &mut lines);
    encode_line(protocol, &mut lines);
    lines
}

/// An honest peer is still served.
fn assert_alive(w: &mut World, victim: HostId) {
    let friend = w.host("Friend").start();
    let conn = w.dial(friend, victim);
    w.echo(friend, conn, 10_000);
}

#[test]
fn a_dial_to_the_wrong_peer_fails_and_says_who_was_there() {
    let _alone = alone();
    for mut w in [World::new(1), World::with_tls(1)] {
        let b = w.host("B").start();
        let c = w.host("C").start();
        let a = w.host("A").start();
        let (expected, found) = (w[c].peer(), w[b].peer());
        let socket = w[b].socket_address();
        let address =
            format!("/ip4/{}/udp/{}/quic-v1/p2p/{expected}", socket.ip(), socket.port()).parse().unwrap();
        let DialError { attempts } = w.try_dial(a, None, &[address]).unwrap_err();
        let [(_, AttemptError::Failed(reason))] = &attempts[..] else { panic!("{attempts:?}") };
        assert_eq!(*reason, CloseReason::WrongPeer { expected, found });
        w.run_for(secs(1));
        let connected = |event: &Event| matches!(event, Event::Connected { .. });
        assert!(!w[a].log().iter().any(|(_, event)| connected(event)));
        assert_eq!((w.node(a).stats().connections, w.node(b).stats().connections), (0, 0));
        w.shutdown();
        w.assert_empty();
    }
}

#[test]
fn garbage_datagrams_are_counted_and_forgotten() {
    let _alone = alone();
    let mut w = World::new(2).quiet();
    let b = w.host("B").start();
    let a = w.host("A").start();
    let vandal = w.host("Vandal").bare();
    let conn = w.dial(a, b);
    let target = w[b].socket_address();
    let mut rng = w.fork("garbage");
    let mut throw = |w: &mut World, count: usize| {
        for _ in 0..count {
            let data = garbage(&mut rng);
            w.send_from(vandal, target, data);
            w.run_for(Duration::from_micros(100));
        }
        w.run_for(secs(1));
        w.receive(vandal).len()
    };
    throw(&mut w, 10_000);
    let (memory, before) = (resident(), w.node(b).stats());
    let answered = throw(&mut w, 100_000);
    let after = w.node(b).stats();
    assert_flat(memory, 2 * MIB);
    assert_eq!(refused(&after) - refused(&before), 100_000, "each is counted: {:?}", after.quic);
    assert_eq!((after.quic.half_open, after.connections), (0, 1));
    assert!(answered < 50_000, "{answered} of them were answered");
    w.echo(a, conn, 100_000);
    w.shutdown();
    w.assert_empty();
}

/// Random bytes of random length; most look like QUIC at first sight.
fn garbage(rng: &mut Rng) -> Bytes {
    let mut data = vec![0; 1 + rng.below(1400) as usize];
    rng.fill_bytes(&mut data);
    match rng.below(4) {
        0 => {}
        1 => data[0] = 0x40 | data[0] & 0x3f,
        _ => {
            data[0] |= 0xc0;
            // QUIC version 1, with room for an Initial packet.
            if data.len() > 6 {
                data[1..6].copy_from_slice(&[0, 0, 0, 1, 8]);
            }
            data.resize(1200.max(data.len()), 0);
        }
    }
    data.into()
}

#[test]
fn a_length_prefix_of_five_gigabytes_resets_the_stream_at_once() {
    let _alone = alone();
    let mut w = World::new(3);
    let r = w.host("R").relay().start();
    let mut vandal = RawPeer::connect(&mut w, "Vandal", r);
    let memory = resident();
    for protocol in [HOP.as_str(), "/ipfs/id/push/1.0.0"] {
        for length in [5_000_000_000, u64::from(u32::MAX), 1 << 62] {
            let mut bytes = proposal(protocol);
            varint::encode(length, &mut bytes);
            bytes.extend_from_slice(&[0x0a; 1000]);
            let stream = vandal.open(&w, bytes.freeze());
            vandal.run(&mut w, ms(200));
            assert!(vandal.was_stopped(stream), "{protocol} with a frame of {length} bytes");
        }
    }
    assert!(vandal.is_connected());
    assert_flat(memory, 4 * MIB);
    assert_alive(&mut w, r);
}

#[test]
fn an_endless_multistream_line_resets_the_stream_at_once() {
    let _alone = alone();
    let mut w = World::new(4);
    let b = w.host("B").start();
    let mut vandal = RawPeer::connect(&mut w, "Vandal", b);
    let memory = resident();
    let mut announced = proposal("/x");
    varint::encode(1 << 40, &mut announced);
    let mut proposals = BytesMut::new();
    encode_line("/multistream/1.0.0", &mut proposals);
    (0..100_000).for_each(|_| encode_line("/not/a/protocol", &mut proposals));
    let beginnings: [&[u8]; 5] = [&announced, &[0xff; 64], &[b'/'; 1000], &[0x80; 9], &proposals];
    for beginning in beginnings {
        let stream = vandal.open(&w, Bytes::copy_from_slice(beginning));
        for _ in 0..100 {
            vandal.write(&w, stream, vec![b'a'; 10_000]);
            vandal.run(&mut w, ms(5));
        }
        vandal.run(&mut w, ms(200));
        assert!(vandal.was_stopped(stream), "beginning with {:?}", &beginning[..9]);
    }
    assert_eq!(w.node(b).counters().get("streams.negotiation.malformed"), 4);
    assert_eq!(w.node(b).counters().get("streams.refused.talked_on"), 1, "the one that was refused before");
    assert_flat(memory, 4 * MIB);
    assert_alive(&mut w, b);
}

#[test]
fn a_line_that_never_ends_is_given_ten_seconds() {
    let _alone = alone();
    let mut w = World::new(5);
    let b = w.host("B").start();
    let mut vandal = RawPeer::connect(&mut w, "Vandal", b);
    let stream = vandal.open(&w, Bytes::from_static(b"\x13/multistream/1.0."));
    vandal.run(&mut w, secs(9));
    assert!(!vandal.was_stopped(stream));
    vandal.run(&mut w, secs(2));
    assert!(vandal.was_stopped(stream));
    // The other is our identify stream, which the vandal left without an answer.
    assert_eq!(w.node(b).counters().get("streams.negotiation.timeout"), 2);
    assert_eq!(w.node(b).stats().streams, 0);
}

#[test]
fn streams_that_never_agree_are_limited() {
    let _alone = alone();
    let mut w = World::new(6);
    let b = w.host("B").start();
    let mut vandal = RawPeer::connect(&mut w, "Vandal", b);
    for _ in 0..500 {
        let stream = vandal.try_open(&w).unwrap_or_else(|| {
            vandal.run(&mut w, ms(50));
            vandal.try_open(&w).expect("the peer grants more as it is asked for more")
        });
        vandal.write(&w, stream, Bytes::from_static(b"\x13/multi"));
    }
    vandal.run(&mut w, ms(300));
    let stats = w.node(b).stats();
    assert!(stats.streams <= 140, "{stats:?}");
    assert!(w.node(b).counters().get("streams.refused.negotiating") >= 360);
    assert_alive(&mut w, b);
}

#[test]
fn a_peer_that_pings_and_never_reads_is_cut_off() {
    let _alone = alone();
    let mut w = World::new(7);
    let b = w.host("B").start();
    let mut vandal = RawPeer::connect(&mut w, "Vandal", b);
    let memory = resident();
    let stream = vandal.open(&w, proposal("/ipfs/ping/1.0.0").freeze());
    let mut written = 0;
    for _ in 0..2000 {
        written += vandal.write(&w, stream, vec![7; 320 * 32]);
        vandal.run(&mut w, ms(5));
        if vandal.was_stopped(stream) {
            break;
        }
    }
    assert!(vandal.was_stopped(stream), "after {written} bytes that were never read back");
    assert!(w.node(b).counters().get("streams.write_queue_full") > 0);
    assert_flat(memory, 32 * MIB);
    assert_alive(&mut w, b);
}

#[test]
fn a_reader_that_never_reads_stops_the_writer() {
    let _alone = alone();
    let mut w = World::new(8).quiet();
    let b = w.host("B").start();
    let a = w.host("A").start();
    w.stop_reading(b);
    let conn = w.dial(a, b);
    let memory = resident();
    let stream = w.start_echo(a, conn, 1 << 40);
    w.run_for(secs(600));
    let transfer = w.transfer(a, stream);
    assert!((100_000..16 * MIB as u64).contains(&transfer.sent), "{transfer:?}");
    assert_flat(memory, 32 * MIB);
}

#[test]
fn a_target_that_never_reads_stops_the_source_and_not_the_relay() {
    let _alone = alone();
    let mut w = World::new(9).quiet();
    let free = hop::Config::from(RelayLimits::unlimited());
    let r = w.host("R").relay_with(free).start();
    let b = w.host("B").start();
    let a = w.host("A").start();
    w.reserve(b, r);
    w.run_for(secs(1));
    w.stop_reading(b);
    let conn = w.dial_via(a, r, b);
    let memory = resident();
    let stream = w.start_echo(a, conn, 1 << 40);
    w.run_for(secs(600));
    let transfer = w.transfer(a, stream);
    assert!((100_000..32 * MIB as u64).contains(&transfer.sent), "{transfer:?}");
    assert_flat(memory, 64 * MIB);
    assert_alive(&mut w, r);
}
