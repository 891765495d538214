//! What a scope holds, and what of that is limited.

use super::ScopeLimit;
use crate::{errors::Resource, names::Direction};

/// What one scope holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Connections that others opened.
    pub inbound_connections: usize,
    /// Connections that we opened.
    pub outbound_connections: usize,
    /// Streams that others opened.
    pub inbound_streams: usize,
    /// Streams that we opened.
    pub outbound_streams: usize,
    /// Bytes.
    pub memory: usize,
}

impl Usage {
    pub(super) fn connection(direction: Direction, memory: usize) -> Self {
        match direction {
            Direction::Inbound => Self { inbound_connections: 1, memory, ..Self::default() },
            Direction::Outbound => Self { outbound_connections: 1, memory, ..Self::default() },
        }
    }

    pub(super) fn stream(direction: Direction, memory: usize) -> Self {
        match direction {
            Direction::Inbound => Self { inbound_streams: 1, memory, ..Self::default() },
            Direction::Outbound => Self { outbound_streams: 1, memory, ..Self::default() },
        }
    }

    pub(super) fn memory(memory: usize) -> Self {
        Self { memory, ..Self::default() }
    }

    pub(super) fn add(&mut self, more: &Self) {
        self.inbound_connections += more.inbound_connections;
        self.outbound_connections += more.outbound_connections;
        self.inbound_streams += more.inbound_streams;
        self.outbound_streams += more.outbound_streams;
        self.memory += more.memory;
    }

    pub(super) fn sub(&mut self, less: &Self) {
        self.inbound_connections -= less.inbound_connections;
        self.outbound_connections -= less.outbound_connections;
        self.inbound_streams -= less.inbound_streams;
        self.outbound_streams -= less.outbound_streams;
        self.memory -= less.memory;
    }

    pub(super) fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

impl ScopeLimit {
    /// Whether a scope that holds `held` may take `more`; else what there is too much of. Only what is taken counts.
    pub(super) fn admits(&self, held: &Usage, more: &Usage) -> Result<(), Resource> {
        use Resource::{
            Connections, InboundConnections, InboundStreams, Memory, OutboundConnections, OutboundStreams,
            Streams,
        };
        let connections = |usage: &Usage| usage.inbound_connections + usage.outbound_connections;
        let streams = |usage: &Usage| usage.inbound_streams + usage.outbound_streams;
        let checks = [
            (
                InboundConnections,
                held.inbound_connections,
                more.inbound_connections,
                self.inbound_connections,
            ),
            (
                OutboundConnections,
                held.outbound_connections,
                more.outbound_connections,
                self.outbound_connections,
            ),
            (Connections, connections(held), connections(more), self.connections),
            (InboundStreams, held.inbound_streams, more.inbound_streams, self.inbound_streams),
            (OutboundStreams, held.outbound_streams, more.outbound_streams, self.outbound_streams),
            (Streams, streams(held), streams(more), self.streams),
            (Memory, held.memory, more.memory, self.memory),
        ];
        let exceeded =
            checks.into_iter().find(|(_, held, more, max)| *more > 0 && held.saturating_add(*more) > *max);
        exceeded.map_or(Ok(()), |(resource, ..)| Err(resource))
    }
}
