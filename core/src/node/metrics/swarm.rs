//! What connection management counts and holds.

use super::{Family, Node, Tally, counter, gauge};
use crate::{
    errors::{Denial, Point, Resource, Scope},
    swarm::resources::Usage,
};

impl Node {
    pub(super) fn swarm_metrics(&self) -> Vec<Family> {
        let mut denials =
            Tally::zero(Point::ALL.iter().flat_map(|point| Denial::NAMES.map(|why| [point.name(), why])));
        for (point, why, count) in self.swarm.denials() {
            denials.add([point.name(), why], count);
        }
        let resources = self.swarm.resources();
        let mut refusals = Tally::default();
        for (scope, resource, count) in resources.refusals() {
            refusals.add([scope.name(), resource.name()], count);
        }
        let mut held = Tally::default();
        for (scope, usage) in [(Scope::System, resources.system()), (Scope::Transient, resources.transient())]
        {
            for (resource, count) in parts(usage) {
                held.add([scope.name(), resource.name()], count as u64);
            }
        }
        let mut services = Tally::default();
        for (service, usage) in resources.services() {
            services.add([service], (usage.inbound_streams + usage.outbound_streams) as u64);
        }
        vec![
            counter(
                "peerless_gate_denials_total",
                "Dials, handshakes and connections that the gate was against",
                denials.samples(["point", "reason"]),
            ),
            counter(
                "peerless_limit_refusals_total",
                "Connections, streams and bytes that would have been too much, by whose limit",
                refusals.samples(["scope", "resource"]),
            ),
            gauge(
                "peerless_resources",
                "What is held of everything that is limited",
                held.samples(["scope", "resource"]),
            ),
            gauge("peerless_service_streams", "Streams by who speaks on them", services.samples(["service"])),
        ]
    }
}

fn parts(usage: Usage) -> [(Resource, usize); 5] {
    [
        (Resource::InboundConnections, usage.inbound_connections),
        (Resource::OutboundConnections, usage.outbound_connections),
        (Resource::InboundStreams, usage.inbound_streams),
        (Resource::OutboundStreams, usage.outbound_streams),
        (Resource::Memory, usage.memory),
    ]
}
