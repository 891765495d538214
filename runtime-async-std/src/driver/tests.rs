//! What a full queue of events loses.

use peerless_core::{
    Multiaddr, PeerId,
    errors::{CloseReason, Refusal},
    identity::Identity,
    ids::{ConnectionId, DialId, Id},
    node,
    protocols::{
        ping,
        rendezvous::{self, server},
    },
    rng::Rng,
};

use super::*;
use crate::Config;

const QUEUE: usize = 64;

fn dialed(peer: PeerId) -> Event {
    Event::Dialed { dial: DialId::from_parts(1, 1), connection: ConnectionId::from_parts(1, 1), peer }
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
        Event::Rendezvous(rendezvous::Event::Server(unregistered)),
        pinged(peer, false),
    ]
}

#[test]
fn a_flood_that_remotes_cause_evicts_nothing_and_has_half_of_the_room() {
    for kind in 0..3 {
        let config = node::Config::new(Identity::generate(&mut Rng::new([1; 32])));
        let (handle, driver) =
            crate::build_driver(config, Config { queue: QUEUE, ..Config::default() }).unwrap();
        let (shared, events) = (Arc::clone(&driver.shared), handle.events());
        shared.step(|state, now| {
            let peer = state.node.local_peer();
            state.on_event(&shared, now, dialed(peer));
            for _ in 0..4 * QUEUE {
                let event = floods(peer).into_iter().nth(kind).unwrap();
                state.on_event(&shared, now, event);
            }
            state.on_event(&shared, now, pinged(peer, true));
            assert_eq!(state.stats.events_missed as usize, 4 * QUEUE + 1 - QUEUE / 2);
        });
        let kept: Vec<_> = std::iter::from_fn(|| events.try_recv().ok()).collect();
        assert_eq!(kept.len(), QUEUE / 2 + 1);
        assert!(matches!(kept.first(), Some(Event::Dialed { .. })), "{kind}");
        assert!(matches!(kept.last(), Some(Event::Ping(ping)) if ping.asked), "{kind}");
    }
}
