//! What a full queue of events loses.

use peerless_core::{
    errors::{CloseReason, Refusal},
    ids::Id,
    protocols::rendezvous::{self as point, server},
};

use super::*;

fn dialed(peer: PeerId) -> Event {
    let connection = ConnectionId::from_parts(1, 1);
    Event::Dialed { dial: peerless_core::ids::DialId::from_parts(1, 1), connection, peer }
}

fn pinged(peer: PeerId, asked: bool) -> Event {
    let connection = ConnectionId::from_parts(1, 1);
    Event::Ping(ping::Event { connection, peer, asked, result: Err(ping::Failure::Timeout) })
}

/// What remotes can cause as they like.
fn floods(peer: PeerId) -> [Event; 3] {
    let unregistered = server::Event::Unregistered { peer, namespace: "n".into() };
    [
        Event::InboundFailed {
            remote: Multiaddr::empty(),
            peer: None,
            reason: CloseReason::Refused(Refusal::ShuttingDown),
            suppressed: 0,
        },
        Event::Rendezvous(point::Event::Server(unregistered)),
        pinged(peer, false),
    ]
}

#[test]
fn a_flood_that_remotes_cause_evicts_nothing_and_has_half_of_the_room() {
    let mut config = node::Config::new(peerless_core::identity::Identity::generate(
        &mut peerless_core::rng::Rng::new([1; 32]),
    ));
    config.accept_inbound = false;
    let mut runtime = Runtime::new(config, RuntimeConfig::default()).unwrap();
    let peer = runtime.node().local_peer();
    for kind in 0..3 {
        let mut state = State::default();
        let (node, now) = runtime.node_mut();
        state.on_event(node, now, dialed(peer));
        for _ in 0..4 * MAX_EVENTS {
            let event = floods(peer).into_iter().nth(kind).unwrap();
            state.on_event(node, now, event);
        }
        state.on_event(node, now, pinged(peer, true));
        assert!(matches!(state.events.front(), Some(Event::Dialed { .. })), "{kind}");
        assert!(matches!(state.events.back(), Some(Event::Ping(ping)) if ping.asked), "{kind}");
        assert_eq!(state.events.len(), MAX_EVENTS / 2 + 1);
        assert_eq!(state.stats.events_missed as usize, 4 * MAX_EVENTS + 1 - MAX_EVENTS / 2);
        // Whoever waits is told of what is dropped, too.
        let (told, telling) = std::sync::mpsc::channel();
        state.wait_for(Box::new(move |event| {
            matches!(event, Event::InboundFailed { .. }) && told.send(()).is_ok()
        }));
        let [failed, ..] = floods(peer);
        state.on_event(node, now, failed);
        assert!(telling.try_recv().is_ok());
    }
}
