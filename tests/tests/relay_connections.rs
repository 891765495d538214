//! A relay and its peer with more than one connection: the reservation belongs to the peer (circuit-v2: it is valid as long
//! as there is an active connection).

use peerless_core::{
    errors::CloseReason,
    node::Event,
    protocols::relay::{
        client,
        hop::{self, Hop},
    },
    swarm::addresses::AddressSource,
};
use peerless_tests::{
    host::HostId,
    link::Link,
    world::{World, ms, secs},
};

fn advertises_a_circuit(w: &World, host: HostId) -> bool {
    w.node(host).addresses().of(AddressSource::Relay).next().is_some()
}

fn reservations(w: &World, relay: HostId) -> usize {
    w.node(relay).behaviour::<Hop>().map_or(0, Hop::reservations)
}

/// What the relay or the client said was lost.
fn losses(w: &World, host: HostId) -> Vec<String> {
    let is_loss = |event: &&Event| {
        use client::Event::{Failed, Lost};
        matches!(
            event,
            Event::Reservation(Lost { .. } | Failed { .. }) | Event::Hop(hop::Event::ReservationEnded { .. })
        )
    };
    w[host].log().iter().map(|(_, event)| event).filter(is_loss).map(ToString::to_string).collect()
}

/// The relay and the client dial each other at about the same moment, the client to reserve; our own rule closes one of the
/// two connections a second later. Whichever that is, the reservation stays.
#[test]
fn simultaneous_dials_cost_no_reservation() {
    let mut closed = 0;
    for seed in 0..110 {
        let mut w = World::new(6000 + seed);
        let r = w.host("R").relay().start();
        let b = w.host("B").start();
        let a = w.host("A").start();
        w.link(r, b, Link::latency(ms(5 + seed % 40)));
        let to_b = w[b].address();
        let offset = ms(seed * 7 % 90);
        if seed % 2 == 0 {
            w.reserve(b, r);
            w.run_for(offset);
            w.start_dial(r, None, &[to_b]);
        } else {
            w.start_dial(r, None, &[to_b]);
            w.run_for(offset);
            w.reserve(b, r);
        }
        w.run_for(secs(1));
        for _ in 0..100 {
            assert!(advertises_a_circuit(&w, b), "seed {seed} at {}", w.now());
            assert_eq!(reservations(&w, r), 1, "seed {seed} at {}", w.now());
            w.run_for(ms(100));
        }
        assert_eq!((losses(&w, b), losses(&w, r)), (vec![], vec![]), "seed {seed}");
        assert_eq!((w.connections(r, b).len(), w.connections(b, r).len()), (1, 1), "seed {seed}");
        let is_it =
            |event: &Event| matches!(event, Event::Disconnected { reason: CloseReason::Duplicate, .. });
        closed += [r, b]
            .map(|host| w[host].log().iter().filter(|(_, event)| is_it(event)).count())
            .iter()
            .sum::<usize>();
        let conn = w.dial_via(a, r, b);
        w.echo(a, conn, 1000);
        w.shutdown();
        w.assert_empty();
    }
    assert!(closed > 20, "hardly ever were there two connections: {closed}");
}

/// R#6569: circuits to a peer with several connections, while these come and go.
#[test]
fn circuits_to_a_peer_with_several_connections_are_joined_whichever_end() {
    let mut w = World::new(6200);
    let r = w.host("R").relay().start();
    let b = w.host("B").start();
    let a = w.host("A").start();
    w.reserve(b, r);
    w.run_for(secs(1));
    let to_r = w[r].address();
    for round in 0..12 {
        w.start_own_dial(b, &to_r);
        w.start_own_dial(b, &to_r);
        w.run_for(secs(1));
        let all = w.connections(b, r);
        assert!(all.len() >= 3, "round {round}: {}", all.len());
        let conn = w.dial_via(a, r, b);
        w.echo(a, conn, 1000);
        w.close(a, conn);
        // One of them ends, by the one side or the other, and a circuit is asked for while the other does not know it yet.
        let side = if round % 2 == 0 { (b, r) } else { (r, b) };
        let all = w.connections(side.0, side.1);
        w.close(side.0, all[round % all.len()]);
        let conn = w.dial_via(a, r, b);
        w.echo(a, conn, 1000);
        w.close(a, conn);
        for connection in w.connections(b, r).into_iter().skip(1 + round % 2).collect::<Vec<_>>() {
            w.close(b, connection);
        }
        w.run_for(ms(200));
        assert!(advertises_a_circuit(&w, b) && reservations(&w, r) == 1, "round {round}");
    }
    assert_eq!((losses(&w, b), losses(&w, r)), (vec![], vec![]));
    w.shutdown();
    w.assert_empty();
}
