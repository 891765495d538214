//! What the command prints: lines for people, or one JSON object a line for programs.

use std::{
    fmt,
    io::{self, Write},
    time::Duration,
};

use peerless_core::{
    Multiaddr, PeerId,
    event::Event,
    protocols::{
        relay::{client, hop},
        rendezvous::{self, client::Found, server},
    },
    time::UnixTime,
};
use peerless_mio::unix_now;
use peerless_proto::address;
use serde::Serialize;

#[cfg(unix)]
use crate::status::Status;

/// One line of output.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Line {
    Id {
        peer: String,
    },
    Metrics {
        address: String,
    },
    #[cfg(unix)]
    Status(Status),
    Listening {
        address: String,
    },
    Reservation {
        relay: String,
        expires: u64,
        addresses: Vec<String>,
    },
    ReservationLost {
        relay: String,
        reason: String,
    },
    Connected {
        peer: String,
        address: String,
        relayed: bool,
    },
    Disconnected {
        peer: String,
        reason: String,
    },
    ReservationAccepted {
        peer: String,
        expires: u64,
        renewed: bool,
    },
    ReservationEnded {
        peer: String,
        reason: String,
    },
    CircuitOpened {
        source: String,
        target: String,
    },
    RegistrationsLoaded {
        count: usize,
    },
    RegistrationAccepted {
        peer: String,
        namespace: String,
        ttl: u64,
        renewed: bool,
    },
    RegistrationEnded {
        peer: String,
        namespace: String,
        reason: &'static str,
    },
    RendezvousRefused {
        peer: String,
        request: &'static str,
        namespace: Option<String>,
        status: String,
        reason: &'static str,
    },
    CircuitClosed {
        source: String,
        target: String,
        bytes_in: u64,
        bytes_out: u64,
        reason: String,
    },
    Registered {
        namespace: String,
        ttl: u64,
    },
    RegistrationLost {
        namespace: String,
        reason: String,
    },
    Peer {
        peer: String,
        addresses: Vec<String>,
        ttl: u64,
        signed: bool,
    },
    Expired {
        peer: String,
    },
    StoreDown {
        reason: String,
    },
    StoreUp {
        seconds: u64,
    },
    Ping {
        peer: String,
        rtt_us: u64,
    },
    Perf {
        direction: &'static str,
        bytes: u64,
        seconds: f64,
        bits_per_second: f64,
    },
    Echo {
        bytes: u64,
        ok: bool,
    },
    Error {
        message: String,
    },
}

/// The words for people.
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id { peer } => write!(f, "{peer}"),
            Self::Metrics { address } => write!(f, "metrics at http://{address}/metrics"),
            #[cfg(unix)]
            Self::Status(status) => status.fmt(f),
            Self::Listening { address } => write!(f, "listening at {address}"),
            Self::Reservation { relay, expires, addresses } => {
                let left = UnixTime::from_secs(*expires).saturating_duration_since(unix_now());
                let places = addresses.join("\n  ");
                write!(f, "reserved for {} at {relay}; reachable at\n  {places}", Span(left))
            }
            Self::ReservationLost { relay, reason } => write!(f, "reservation at {relay} lost: {reason}"),
            Self::Connected { peer, address, relayed } => {
                write!(
                    f,
                    "connected to {peer} {} {address}",
                    if *relayed { "through a relay at" } else { "at" }
                )
            }
            Self::Disconnected { peer, reason } => write!(f, "disconnected from {peer}: {reason}"),
            Self::ReservationAccepted { peer, expires, renewed } => {
                let left = UnixTime::from_secs(*expires).saturating_duration_since(unix_now());
                let what = if *renewed { "renewed" } else { "reserved" };
                write!(f, "{what} for {peer} for {}", Span(left))
            }
            Self::ReservationEnded { peer, reason } => write!(f, "reservation of {peer} ended: {reason}"),
            Self::CircuitOpened { source, target } => write!(f, "circuit from {source} to {target} opened"),
            Self::CircuitClosed { source, target, bytes_in, bytes_out, reason } => write!(
                f,
                "circuit from {source} to {target} closed after {bytes_in} bytes there and {bytes_out} back: {reason}"
            ),
            Self::RegistrationsLoaded { count } => write!(f, "{count} registrations from before"),
            Self::RegistrationAccepted { peer, namespace, ttl, renewed } => {
                let what = if *renewed { "renewed" } else { "registered" };
                write!(f, "{what} {peer} in {namespace:?} for {}", Span(Duration::from_secs(*ttl)))
            }
            Self::RegistrationEnded { peer, namespace, reason } => {
                write!(f, "registration of {peer} in {namespace:?} ended: {reason}")
            }
            Self::RendezvousRefused { peer, request, namespace, status, reason } => {
                let place = namespace.as_ref().map(|name| format!(" in {name:?}")).unwrap_or_default();
                write!(f, "refused to {request}{place} for {peer}: {status}, {reason}")
            }
            Self::Registered { namespace, ttl } => {
                write!(f, "registered in {namespace:?} for {}", Span(Duration::from_secs(*ttl)))
            }
            Self::RegistrationLost { namespace, reason } => {
                write!(f, "registration in {namespace:?} lost: {reason}")
            }
            Self::Peer { peer, addresses, ttl, signed } => {
                let word = if *signed { "" } else { ", not signed by it" };
                write!(f, "{peer} for {}{word}", Span(Duration::from_secs(*ttl)))?;
                addresses.iter().try_for_each(|address| write!(f, "\n  {address}"))
            }
            Self::Expired { peer } => write!(f, "{peer} is not registered any more"),
            Self::StoreDown { reason } => write!(f, "the store is down, and will be tried again: {reason}"),
            Self::StoreUp { seconds } => {
                write!(f, "the store works again after {}", Span(Duration::from_secs(*seconds)))
            }
            Self::Ping { peer, rtt_us } => {
                write!(f, "{peer}: {}.{:03} ms", rtt_us / 1000, rtt_us % 1000)
            }
            Self::Perf { direction, bytes, seconds, bits_per_second } => {
                write!(f, "{direction}: {bytes} bytes in {seconds:.3} s, {:.1} Mbit/s", bits_per_second / 1e6)
            }
            Self::Echo { bytes, ok: true } => write!(f, "{bytes} bytes came back as they were sent"),
            Self::Echo { bytes, ok: false } => {
                write!(f, "after {bytes} bytes another came back than was sent")
            }
            Self::Error { message } => write!(f, "error: {message}"),
        }
    }
}

/// A time span in words: its largest unit and the next.
pub(crate) struct Span(pub(crate) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
            (0, 0, s) => write!(f, "{s} s"),
            (0, m, s) => write!(f, "{m} min {s} s"),
            (h, m, _) => write!(f, "{h} h {m} min"),
        }
    }
}

/// Prints lines, each at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reporter {
    json: bool,
}

impl Reporter {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether people are to read it.
    pub(crate) fn is_human(&self) -> bool {
        !self.json
    }

    pub(crate) fn line(&self, line: &Line) {
        let text = if self.json {
            serde_json::to_string(line).expect("strings and numbers always have a JSON form")
        } else {
            line.to_string()
        };
        // Nobody reads any more: that is no reason for a relay to stop.
        let _ = match line {
            Line::Error { .. } if !self.json => write_line(&mut io::stderr().lock(), &text),
            _ => write_line(&mut io::stdout().lock(), &text),
        };
    }

    /// Prints what the event has to say, if it is one of those that are printed. `me` completes our own addresses.
    pub(crate) fn event(&self, me: PeerId, event: &Event) {
        match line_of(me, event) {
            Some(line) => self.line(&line),
            None => tracing::debug!(?event),
        }
    }
}

fn write_line(out: &mut impl Write, text: &str) -> io::Result<()> {
    out.write_all(format!("{text}\n").as_bytes())?;
    out.flush()
}

fn line_of(me: PeerId, event: &Event) -> Option<Line> {
    Some(match event {
        Event::Listening { address } => Line::Listening { address: with_peer(address, me).to_string() },
        Event::Connected { peer, address, relay, .. } => {
            Line::Connected { peer: peer.to_string(), address: address.to_string(), relayed: relay.is_some() }
        }
        Event::Disconnected { peer, reason, .. } => {
            Line::Disconnected { peer: peer.to_string(), reason: reason.to_string() }
        }
        Event::Hop(hop::Event::ReservationAccepted { peer, expires, renewed }) => Line::ReservationAccepted {
            peer: peer.to_string(),
            expires: expires.as_secs(),
            renewed: *renewed,
        },
        Event::Hop(hop::Event::ReservationEnded { peer, why }) => {
            Line::ReservationEnded { peer: peer.to_string(), reason: (*why).to_owned() }
        }
        Event::Hop(hop::Event::CircuitOpened { source, target }) => {
            Line::CircuitOpened { source: source.to_string(), target: target.to_string() }
        }
        Event::Hop(hop::Event::CircuitClosed { source, target, bytes_in, bytes_out, end }) => {
            Line::CircuitClosed {
                source: source.to_string(),
                target: target.to_string(),
                bytes_in: *bytes_in,
                bytes_out: *bytes_out,
                reason: end.to_string(),
            }
        }
        Event::Rendezvous(rendezvous::Event::Server(event)) => line_of_point(event)?,
        Event::Rendezvous(rendezvous::Event::Client(event)) => line_of_point_user(event)?,
        Event::Reservation(client::Event::Reserved { relay, expires, addresses, .. }) => Line::Reservation {
            relay: relay.to_string(),
            expires: expires.as_secs(),
            addresses: addresses.iter().map(Multiaddr::to_string).collect(),
        },
        Event::Reservation(client::Event::Lost { relay, reason, .. }) => {
            Line::ReservationLost { relay: relay.to_string(), reason: reason.to_string() }
        }
        Event::Reservation(client::Event::Failed { address, reason, .. }) => {
            Line::Error { message: format!("no reservation at {address}: {reason}") }
        }
        _ => return None,
    })
}

fn line_of_point(event: &server::Event) -> Option<Line> {
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
        Refused { peer, request, namespace, status, why } => Line::RendezvousRefused {
            peer: peer.to_string(),
            request,
            namespace: namespace.clone(),
            status: status.to_string(),
            reason: why,
        },
        Loaded { registrations } => Line::RegistrationsLoaded { count: *registrations },
        // The store has said so itself, once.
        StoreFailed { .. } => return None,
        _ => return None,
    })
}

fn line_of_point_user(event: &rendezvous::client::Event) -> Option<Line> {
    use rendezvous::client::Event::{Discovered, Expired, Registered, RegistrationLost, Updated};
    Some(match event {
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

/// A peer that was found.
pub(crate) fn line_of_peer(found: &Found) -> Line {
    Line::Peer {
        peer: found.peer.to_string(),
        addresses: found.addresses.iter().map(Multiaddr::to_string).collect(),
        ttl: found.ttl.as_secs(),
        signed: found.signed,
    }
}

/// `address` with `/p2p/PEER` at its end, once.
fn with_peer(address: &Multiaddr, peer: PeerId) -> Multiaddr {
    address::with_peer(address.clone(), peer).unwrap_or_else(|_| address.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_stands_first_and_our_peer_id_ends_the_address() {
        let me: PeerId = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN".parse().unwrap();
        let address: Multiaddr = "/ip4/127.0.0.1/udp/4001/quic-v1".parse().unwrap();
        let line = line_of(me, &Event::Listening { address: address.clone() }).unwrap();
        let json = format!(r#"{{"event":"listening","address":"{address}/p2p/{me}"}}"#);
        assert_eq!(serde_json::to_string(&line).unwrap(), json);
        assert_eq!(with_peer(&with_peer(&address, me), me), with_peer(&address, me));
        let lost = Line::ReservationLost { relay: "R".into(), reason: "\"\n".into() };
        let json = r#"{"event":"reservation_lost","relay":"R","reason":"\"\n"}"#;
        assert_eq!(serde_json::to_string(&lost).unwrap(), json);
    }

    #[test]
    fn spans_keep_their_two_largest_units() {
        let show = |seconds| Span(Duration::from_secs(seconds)).to_string();
        assert_eq!(
            [show(0), show(61), show(3599), show(7384)],
            ["0 s", "1 min 1 s", "59 min 59 s", "2 h 3 min"]
        );
    }
}
