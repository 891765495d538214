//! What connection management counts.

use super::{Family, Node, Tally, counter};
use crate::swarm::gate::{Denial, Point};

impl Node {
    pub(super) fn swarm_metrics(&self) -> Vec<Family> {
        let mut denials =
            Tally::zero(Point::ALL.iter().flat_map(|point| Denial::NAMES.map(|why| [point.name(), why])));
        for (point, why, count) in self.swarm.denials() {
            denials.add([point.name(), why], count);
        }
        vec![counter(
            "peerless_gate_denials_total",
            "Dials, handshakes and connections that the gate was against",
            denials.samples(["point", "reason"]),
        )]
    }
}
