//! The events, one JSON object a line on standard output.

use std::error::Error;

use libp2p::{Multiaddr, PeerId, Swarm, identify, multiaddr::Protocol, swarm::SwarmEvent};
use serde_json::{Value, json};

use crate::{Peer, PeerEvent};

/// Prints the event, if it is one the suite wants to see, else notes it on standard error.
pub(crate) fn report(swarm: &Swarm<Peer>, event: &SwarmEvent<PeerEvent>) {
    let me = *swarm.local_peer_id();
    match event {
        SwarmEvent::NewListenAddr { address, .. } if is_relayed(address) => emit(json!({
            "event": "reservation",
            "relay": relay_of(address).map(|relay| relay.to_string()),
            "expires": null,
            "addresses": [full(address, me)],
        })),
        SwarmEvent::NewListenAddr { address, .. } => {
            emit(json!({ "event": "listening", "address": full(address, me) }));
        }
        SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } => emit(json!({
            "event": "connected",
            "peer": peer_id.to_string(),
            "address": full(endpoint.get_remote_address(), *peer_id),
            "relayed": endpoint.is_relayed(),
        })),
        SwarmEvent::Behaviour(PeerEvent::Identify(identify::Event::Received { peer_id, info, .. })) => {
            emit(json!({
                "event": "identified",
                "peer": peer_id.to_string(),
                "agent": info.agent_version,
                "protocols": info.protocols.iter().map(|p| p.to_string()).collect::<Vec<_>>(),
                "observed": info.observed_addr.to_string(),
            }));
        }
        // They repeat what the answers hold.
        SwarmEvent::Behaviour(PeerEvent::Point(_)) => {}
        other => eprintln!("{other:?}"),
    }
}

pub(crate) fn error(error: &(dyn Error + Send + Sync + 'static)) {
    emit(json!({ "event": "error", "message": error.to_string() }));
}

pub(crate) fn emit(line: Value) {
    println!("{line}");
}

pub(crate) fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

fn relay_of(address: &Multiaddr) -> Option<PeerId> {
    address.iter().find_map(|part| match part {
        Protocol::P2p(peer) => Some(peer),
        _ => None,
    })
}

/// The address with the peer's id at its end.
pub(crate) fn full(address: &Multiaddr, peer: PeerId) -> String {
    address.clone().with_p2p(peer).unwrap_or_else(|other| other).to_string()
}
