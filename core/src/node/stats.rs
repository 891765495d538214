//! How much a node holds.

use super::Node;
use crate::quic;

/// Counts of what is alive. After everything has been closed and its timers have run out, all but the sums are zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Established connections, direct and relayed.
    pub connections: usize,
    /// Streams, negotiating ones included.
    pub streams: usize,
    /// Relayed pairs of streams.
    pub splices: usize,
    /// Circuits that are or become connections of ours.
    pub circuits: usize,
    /// Requests to dial that have no answer yet. Those for the same connection are served by one dial.
    pub dials: usize,
    /// Dials that hold one of the [places](crate::swarm::dial::DialConfig::parallel).
    pub dials_running: usize,
    /// Dials that wait for one.
    pub dials_waiting: usize,
    /// Armed timers of the stream layer, splices, circuits and dials.
    pub timers: usize,
    /// Requests to the embedder's store that it has not answered yet.
    pub storage: usize,
    /// Events not taken yet.
    pub events: usize,
    /// The QUIC pipe's own counts.
    pub quic: quic::Stats,
}

impl Node {
    /// How much the node holds right now.
    pub fn stats(&self) -> Stats {
        Stats {
            connections: self.connections.len(),
            streams: self.streams.len(),
            splices: self.splices.len(),
            circuits: self.transport.circuits.len(),
            dials: self.dialing.len(),
            dials_running: self.dialing.running(),
            dials_waiting: self.dialing.waiting(),
            timers: self.streams.timers()
                + self.splices.timers()
                + self.transport.circuits.timers()
                + self.dialing.timers()
                + self.duplicates.len(),
            storage: self.storage.len(),
            events: self.events.len(),
            quic: self.transport.quic.stats(),
        }
    }
}
