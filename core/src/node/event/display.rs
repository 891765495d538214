//! Events in words, as they stand in traces.

use std::fmt;

use super::Event;
use crate::storage::{StorageAsk, StorageRequest};

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listening { address } => write!(f, "listening on {address}"),
            Self::ListenClosed { address } => write!(f, "no longer listening on {address}"),
            Self::Connected { peer, relay: Some(relay), .. } => write!(f, "connected {peer} through {relay}"),
            Self::Connected { peer, .. } => write!(f, "connected {peer}"),
            Self::PathChanged { peer, address, .. } => write!(f, "{peer} is at {address} now"),
            Self::Dialed { peer, .. } => write!(f, "dialed {peer}"),
            Self::Disconnected { peer, reason, .. } => write!(f, "disconnected {peer}: {reason}"),
            Self::DialFailed { error, .. } => write!(f, "dial failed: {error}"),
            Self::InboundFailed { remote, peer, reason, suppressed } => {
                let who = peer.map(|peer| format!("{peer} at ")).unwrap_or_default();
                write!(f, "inbound from {who}{remote} failed: {reason}")?;
                if *suppressed > 0 { write!(f, "; {suppressed} others before it") } else { Ok(()) }
            }
            Self::TurnCutOff { steps, at } => write!(f, "no rest after {steps} steps, at {at}"),
            Self::Stream { stream, event } => write!(f, "stream {stream}: {event:?}"),
            Self::Resolve { name, .. } => write!(f, "resolve {name}"),
            Self::Route { remote, .. } => write!(f, "route to {remote}"),
            Self::Storage(StorageRequest { table, ask, .. }) => match ask {
                StorageAsk::Load { .. } => write!(f, "storage of {table}: load"),
                StorageAsk::Store(writes) => write!(f, "storage of {table}: writes={}", writes.len()),
            },
            Self::ResolveText { name, .. } => write!(f, "resolve the texts of {name}"),
            Self::Ping(event) => event.fmt(f),
            Self::Identify(event) => event.fmt(f),
            Self::Hop(event) => write!(f, "relay: {event}"),
            Self::Reservation(event) => write!(f, "reservation {event}"),
            Self::Rendezvous(event) => write!(f, "rendezvous: {event}"),
            Self::Notice { behaviour, notice } => write!(f, "{behaviour}: {notice}"),
        }
    }
}
