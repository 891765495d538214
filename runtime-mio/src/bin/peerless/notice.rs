//! Lines on what is not as it should be, or not as it was asked for.

use std::{fmt, time::Duration};

use serde::Serialize;

use crate::report::Span;

/// What is worth a remark. Refusals say how many like them were left out before.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Notice {
    LinesDropped {
        count: u64,
    },
    SignalIgnored {
        signal: &'static str,
    },
    BuffersCapped {
        receive: usize,
        send: usize,
        wanted: usize,
    },
    CircuitLimit {
        limit: u64,
        bytes: u64,
        fits: bool,
    },
    ReservationRefused {
        peer: String,
        address: Option<String>,
        limit: &'static str,
        status: String,
        #[serde(skip_serializing_if = "is_zero")]
        left_out: u64,
    },
    CircuitRefused {
        peer: String,
        address: Option<String>,
        target: Option<String>,
        limit: &'static str,
        status: String,
        #[serde(skip_serializing_if = "is_zero")]
        left_out: u64,
    },
    ConnectionRefused {
        /// If it had proved who it is.
        peer: Option<String>,
        address: String,
        limit: String,
        status: &'static str,
        #[serde(skip_serializing_if = "is_zero")]
        left_out: u64,
    },
    /// It holds all the same; times are in seconds.
    ReservationNotRenewed {
        relay: String,
        reason: String,
        left: u64,
        retry: u64,
        #[serde(skip_serializing_if = "is_zero")]
        left_out: u64,
    },
    ReservationGone {
        relay: String,
        after: u64,
        stated: u64,
        #[serde(skip_serializing_if = "is_zero")]
        left_out: u64,
    },
    RegistrationNotRenewed {
        point: String,
        namespace: String,
        reason: String,
        retry: u64,
        #[serde(skip_serializing_if = "is_zero")]
        left_out: u64,
    },
    RendezvousRefused {
        peer: String,
        request: &'static str,
        namespace: Option<String>,
        status: String,
        reason: &'static str,
        #[serde(skip_serializing_if = "is_zero")]
        left_out: u64,
    },
}

/// The words for people.
impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LinesDropped { count } => {
                write!(f, "{count} lines were dropped here, as they were not read in time")
            }
            Self::SignalIgnored { signal } => {
                write!(
                    f,
                    "{signal} is ignored: there is nothing that could be read anew; SIGTERM ends the node"
                )
            }
            Self::BuffersCapped { receive, send, wanted } => write!(
                f,
                "the system caps the buffers of sockets at {receive} bytes to receive and {send} to send, so that packets \
                 may get lost under load; {}",
                advice(*wanted)
            ),
            Self::CircuitLimit { limit, bytes, fits: true } => {
                write!(f, "the relay allows {} per direction: {bytes} bytes it is", Size(*limit))
            }
            Self::CircuitLimit { limit, bytes, fits: false } => write!(
                f,
                "the relay allows {} per direction, handshakes included: {bytes} bytes are too many, and it will end the \
                 circuit before they are through",
                Size(*limit)
            ),
            Self::ReservationRefused { peer, address, limit, status, left_out } => {
                let place = Place(address.as_deref());
                write!(f, "refused a reservation to {peer}{place}: {limit} ({status}){}", More(*left_out))
            }
            Self::CircuitRefused { peer, address, target, limit, status, left_out } => {
                let place = Place(address.as_deref());
                let target = target.as_ref().map(|target| format!(" to {target}")).unwrap_or_default();
                write!(f, "refused a circuit{target} to {peer}{place}: {limit} ({status}){}", More(*left_out))
            }
            Self::ConnectionRefused { peer, address, limit, status, left_out } => {
                let who = peer.as_ref().map(|peer| format!("{peer} at ")).unwrap_or_default();
                write!(f, "refused a connection from {who}{address}: {limit} ({status}){}", More(*left_out))
            }
            Self::ReservationNotRenewed { relay, reason, left, retry, left_out } => write!(
                f,
                "the reservation at {relay} was not renewed: {reason}; it holds for {}, and is tried again in {}{}",
                seconds(*left),
                seconds(*retry),
                More(*left_out)
            ),
            Self::ReservationGone { relay, after, stated, left_out } => write!(
                f,
                "the reservation at {relay} was gone after {}, though it was to hold for {}; it is asked for again{}",
                seconds(*after),
                seconds(*stated),
                More(*left_out)
            ),
            Self::RegistrationNotRenewed { point, namespace, reason, retry, left_out } => write!(
                f,
                "the registration in {namespace:?} at {point} was not renewed: {reason}; it is tried again in {}{}",
                seconds(*retry),
                More(*left_out)
            ),
            Self::RendezvousRefused { peer, request, namespace, status, reason, left_out } => {
                let place = namespace.as_ref().map(|name| format!(" in {name:?}")).unwrap_or_default();
                write!(f, "refused to {request}{place} for {peer}: {reason} ({status}){}", More(*left_out))
            }
        }
    }
}

/// A size in its largest whole unit.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        match units.iter().find(|(bits, _)| self.0 > 0 && self.0.trailing_zeros() >= *bits) {
            Some((bits, unit)) => write!(f, "{} {unit}", self.0 >> bits),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

/// Where somebody is, if that is known.
struct Place<'a>(Option<&'a str>);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |address| write!(f, " at {address}"))
    }
}

/// How many like it were not told.
struct More(u64);

impl fmt::Display for More {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 > 0 { write!(f, ", and {} more before it", self.0) } else { Ok(()) }
    }
}

fn advice(wanted: usize) -> String {
    if cfg!(target_os = "linux") {
        format!("sysctl -w net.core.rmem_max={wanted} net.core.wmem_max={wanted} allows what is wanted")
    } else {
        format!("{wanted} bytes are wanted")
    }
}

fn seconds(count: u64) -> Span {
    Span(Duration::from_secs(count))
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_in_their_largest_whole_unit() {
        let show = |bytes| Size(bytes).to_string();
        assert_eq!(
            [show(0), show(1023), show(128 << 10), show(3 << 30)],
            ["0 bytes", "1023 bytes", "128 KiB", "3 GiB"]
        );
    }
}
