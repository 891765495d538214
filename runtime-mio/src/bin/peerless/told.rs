//! What happens to a node, told line by line.

use std::time::Duration;

use peerless_core::{
    Multiaddr, PeerId,
    errors::{CloseReason, Refusal, UpgradeError},
    node::{Event, Node},
    protocols::{
        relay::{client, hop},
        rendezvous::{self, server},
    },
    rate::Rate,
    time::Instant,
};
use peerless_proto::address;

use crate::{
    notice::Notice,
    report::{Line, Reporter, line_of_peer},
};

/// How often a line of each kind is told that others can cause as they like. Whoever is refused may come again at once, and so
/// may a thousand others: all are counted in the metrics.
const TOLD: Rate = Rate { burst: 10, every: Duration::from_secs(1) };

/// Tells what happens to one node.
#[derive(Debug)]
pub(crate) struct Teller {
    report: Reporter,
    rations: [Rationed; 7],
}

/// The lines of one kind.
#[derive(Clone, Copy, Debug, Default)]
struct Rationed {
    full_at: Instant,
    /// How many were not told since the last that was.
    left_out: u64,
}

impl Rationed {
    /// Whether one may be told now, and then how many were left out before it.
    fn take(&mut self, now: Instant) -> Option<u64> {
        match TOLD.take(self.full_at, now) {
            Some(full_at) => {
                self.full_at = full_at;
                Some(std::mem::take(&mut self.left_out))
            }
            None => {
                self.left_out += 1;
                None
            }
        }
    }
}

impl Teller {
    pub(crate) fn new(report: Reporter) -> Self {
        Self { report, rations: Default::default() }
    }

    /// Prints what the event has to say, if it is one of those that are printed.
    pub(crate) fn tell(&mut self, node: &Node, now: Instant, event: &Event) {
        let mut left_out = 0;
        if let Some(kind) = rationed(event) {
            let Some(before) = self.rations[kind as usize].take(now) else { return };
            left_out = before;
        }
        match line_of(node, event, left_out) {
            Some(line) => self.report.line(&line),
            None => tracing::debug!("{event}"),
        }
    }
}

/// What was refused, to others or to us.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Reservation,
    Circuit,
    Connection,
    Rendezvous,
    Renewal,
    Gone,
    Registration,
}

fn rationed(event: &Event) -> Option<Kind> {
    match event {
        Event::Reservation(client::Event::RefreshFailed { .. }) => Some(Kind::Renewal),
        Event::Reservation(client::Event::Gone { .. }) => Some(Kind::Gone),
        Event::Rendezvous(rendezvous::Event::Client(rendezvous::client::Event::RefreshFailed { .. })) => {
            Some(Kind::Registration)
        }
        Event::Hop(hop::Event::ReservationRefused { .. }) => Some(Kind::Reservation),
        Event::Hop(hop::Event::CircuitRefused { .. }) => Some(Kind::Circuit),
        Event::InboundFailed { reason, .. } if refusal_in(reason).is_some() => Some(Kind::Connection),
        Event::Rendezvous(rendezvous::Event::Server(server::Event::Refused { .. })) => Some(Kind::Rendezvous),
        _ => None,
    }
}

/// Connection management's own no, if that is the reason.
fn refusal_in(reason: &CloseReason) -> Option<&Refusal> {
    match reason {
        CloseReason::Refused(refusal) | CloseReason::Upgrade(UpgradeError::Refused(refusal)) => Some(refusal),
        _ => None,
    }
}

fn line_of(node: &Node, event: &Event, left_out: u64) -> Option<Line> {
    let me = node.local_peer();
    Some(match event {
        Event::Listening { address } => Line::Listening { address: with_peer(address, me).to_string() },
        Event::Connected { peer, address, relay, .. } => {
            Line::Connected { peer: peer.to_string(), address: address.to_string(), relayed: relay.is_some() }
        }
        Event::Disconnected { peer, reason, .. } => {
            Line::Disconnected { peer: peer.to_string(), reason: reason.to_string() }
        }
        Event::InboundFailed { remote, peer, reason, suppressed } => {
            let refusal = refusal_in(reason)?;
            Line::Notice(Notice::ConnectionRefused {
                peer: peer.map(|peer| peer.to_string()),
                address: remote.to_string(),
                limit: refusal.to_string(),
                status: match refusal {
                    Refusal::Denied(_) => "GATED",
                    _ => "RESOURCE_LIMIT_EXCEEDED",
                },
                left_out: left_out.saturating_add(*suppressed),
            })
        }
        // A fault of ours, which is to be reported.
        Event::TurnCutOff { .. } => Line::Error { message: event.to_string() },
        Event::Hop(event) => line_of_relay(node, event, left_out)?,
        Event::Rendezvous(rendezvous::Event::Server(event)) => line_of_point(event, left_out)?,
        Event::Rendezvous(rendezvous::Event::Client(event)) => line_of_point_user(event, left_out)?,
        Event::Reservation(event) => line_of_relay_user(event, left_out)?,
        _ => return None,
    })
}

fn line_of_relay_user(event: &client::Event, left_out: u64) -> Option<Line> {
    use client::Event::{Failed, Gone, Lost, RefreshFailed, Reserved};
    Some(match event {
        Reserved { relay, expires, addresses, .. } => Line::Reservation {
            relay: relay.to_string(),
            expires: expires.as_secs(),
            addresses: addresses.iter().map(Multiaddr::to_string).collect(),
        },
        RefreshFailed { relay, reason, left, retry } => Line::Notice(Notice::ReservationNotRenewed {
            relay: relay.to_string(),
            reason: reason.to_string(),
            left: left.as_secs(),
            retry: retry.as_secs(),
            left_out,
        }),
        Gone { relay, after, stated } => Line::Notice(Notice::ReservationGone {
            relay: relay.to_string(),
            after: after.as_secs(),
            stated: stated.as_secs(),
            left_out,
        }),
        Lost { relay, reason, .. } => {
            Line::ReservationLost { relay: relay.to_string(), reason: reason.to_string() }
        }
        Failed { address, reason, .. } => {
            Line::Error { message: format!("no reservation at {address}: {reason}") }
        }
        _ => return None,
    })
}

fn line_of_relay(node: &Node, event: &hop::Event, left_out: u64) -> Option<Line> {
    Some(match event {
        hop::Event::ReservationAccepted { peer, expires, renewed } => Line::ReservationAccepted {
            peer: peer.to_string(),
            expires: expires.as_secs(),
            renewed: *renewed,
        },
        hop::Event::ReservationRefused { peer, status, why } => Line::Notice(Notice::ReservationRefused {
            peer: peer.to_string(),
            address: address_of(node, peer),
            limit: why,
            status: status.to_string(),
            left_out,
        }),
        hop::Event::ReservationEnded { peer, why } => {
            Line::ReservationEnded { peer: peer.to_string(), reason: (*why).to_owned() }
        }
        hop::Event::CircuitRefused { source, target, status, why } => Line::Notice(Notice::CircuitRefused {
            peer: source.to_string(),
            address: address_of(node, source),
            target: target.as_ref().map(PeerId::to_string),
            limit: why,
            status: status.to_string(),
            left_out,
        }),
        hop::Event::CircuitOpened { source, target } => {
            Line::CircuitOpened { source: source.to_string(), target: target.to_string() }
        }
        hop::Event::CircuitClosed { source, target, bytes_in, bytes_out, end } => Line::CircuitClosed {
            source: source.to_string(),
            target: target.to_string(),
            bytes_in: *bytes_in,
            bytes_out: *bytes_out,
            reason: end.to_string(),
        },
        _ => return None,
    })
}

/// Where a peer is connected from.
fn address_of(node: &Node, peer: &PeerId) -> Option<String> {
    let connections = node.connections();
    connections.best(peer).and_then(|id| connections.get(id)).map(|info| info.remote.to_string())
}

fn line_of_point(event: &server::Event, left_out: u64) -> Option<Line> {
    use server::Event::{Expired, Loaded, Refused, Registered, StoreFailed, Unregistered};
    let ended = |peer: &PeerId, namespace: &str, reason| Line::RegistrationEnded {
        peer: peer.to_string(),
        namespace: namespace.to_owned(),
        reason,
    };
    Some(match event {
        Registered { peer, namespace, ttl, refreshed } => Line::RegistrationAccepted {
            peer: peer.to_string(),
            namespace: namespace.clone(),
            ttl: ttl.as_secs(),
            renewed: *refreshed,
        },
        Expired { peer, namespace } => ended(peer, namespace, "expired"),
        Unregistered { peer, namespace } => ended(peer, namespace, "unregistered"),
        Refused { peer, request, namespace, status, why } => Line::Notice(Notice::RendezvousRefused {
            peer: peer.to_string(),
            request,
            namespace: namespace.clone(),
            status: status.to_string(),
            reason: why,
            left_out,
        }),
        Loaded { registrations } => Line::RegistrationsLoaded { count: *registrations },
        // The store has said so itself, once.
        StoreFailed { .. } => return None,
        _ => return None,
    })
}

fn line_of_point_user(event: &rendezvous::client::Event, left_out: u64) -> Option<Line> {
    use rendezvous::client::Event::{
        Discovered, Expired, RefreshFailed, Registered, RegistrationLost, Updated,
    };
    Some(match event {
        RefreshFailed { point, namespace, reason, retry } => Line::Notice(Notice::RegistrationNotRenewed {
            point: point.to_string(),
            namespace: namespace.clone(),
            reason: reason.to_string(),
            retry: retry.as_secs(),
            left_out,
        }),
        Registered { namespace, ttl, .. } => {
            Line::Registered { namespace: namespace.clone(), ttl: ttl.as_secs() }
        }
        RegistrationLost { namespace, reason, .. } => {
            Line::RegistrationLost { namespace: namespace.clone(), reason: reason.to_string() }
        }
        Discovered { found, .. } | Updated { found, .. } => line_of_peer(found),
        Expired { peer, .. } => Line::Expired { peer: peer.to_string() },
        _ => return None,
    })
}

/// `address` with `/p2p/PEER` at its end, once.
fn with_peer(address: &Multiaddr, peer: PeerId) -> Multiaddr {
    address::with_peer(address.clone(), peer).unwrap_or_else(|_| address.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_peer_id_ends_the_address_once() {
        let me: PeerId = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN".parse().unwrap();
        let address: Multiaddr = "/ip4/127.0.0.1/udp/4001/quic-v1".parse().unwrap();
        assert_eq!(with_peer(&address, me).to_string(), format!("{address}/p2p/{me}"));
        assert_eq!(with_peer(&with_peer(&address, me), me), with_peer(&address, me));
    }

    #[test]
    fn what_becomes_of_reservations_and_registrations_between_grant_and_end_is_told() {
        let relay: PeerId = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN".parse().unwrap();
        let [after, stated] = [61, 3600].map(Duration::from_secs);
        let line = line_of_relay_user(&client::Event::Gone { relay, after, stated }, 2).unwrap();
        assert_eq!(
            line.to_string(),
            format!(
                "the reservation at {relay} was gone after 1 min 1 s, though it was to hold for 1 h 0 min; it is asked for \
                 again, and 2 more before it"
            )
        );
        let event = rendezvous::client::Event::RefreshFailed {
            point: relay,
            namespace: "app".into(),
            reason: rendezvous::client::Error::NoAddress,
            retry: after,
        };
        let line = line_of_point_user(&event, 0).unwrap().to_string();
        let why = rendezvous::client::Error::NoAddress;
        assert_eq!(
            line,
            format!(
                "the registration in \"app\" at {relay} was not renewed: {why}; it is tried again in 1 min 1 s"
            )
        );
    }

    #[test]
    fn a_flood_of_refusals_is_told_ten_times_and_then_once_a_second_with_how_many_were_left_out() {
        let mut refused = Rationed::default();
        let at = |ms: u64| Instant::ZERO + Duration::from_millis(60_000 + ms);
        assert!((0..10).all(|_| refused.take(at(0)) == Some(0)));
        assert!((0..990).all(|ms| refused.take(at(ms)).is_none()));
        assert_eq!(refused.take(at(1000)), Some(990));
        assert_eq!(refused.take(at(1001)), None);
    }
}
