//! Random hosts, links and faults: whatever happens, the invariants hold, and in the end nothing is left.

use peerless_core::{node::Event, protocols::relay::hop, rng::Rng};
use peerless_tests::{
    app::Transfer,
    fault::Fault,
    host::HostId,
    link::Link,
    world::{World, ms, secs},
};

/// Worlds per run. Each prints its seed if it fails; `PEERLESS_SEEDS=7..8` runs others.
const SEEDS: std::ops::Range<u64> = 0..24;

#[test]
fn random_worlds_keep_their_invariants() {
    for seed in seeds() {
        let mut scene = Scene::new(seed);
        for _ in 0..40 {
            scene.act();
            scene.check();
        }
        scene.end();
    }
}

fn seeds() -> std::ops::Range<u64> {
    let Ok(range) = std::env::var("PEERLESS_SEEDS") else { return SEEDS };
    let (first, end) = range.split_once("..").expect("PEERLESS_SEEDS is a range");
    first.parse().expect("a number")..end.parse().expect("a number")
}

struct Scene {
    w: World,
    rng: Rng,
    relays: Vec<HostId>,
    peers: Vec<HostId>,
    transfers: Vec<(HostId, peerless_core::ids::StreamId)>,
}

impl Scene {
    fn new(seed: u64) -> Self {
        let mut w = World::new(seed);
        let mut rng = w.fork("scene");
        let relays = (0..1 + rng.below(2)).map(|n| w.host(format!("R{n}")).relay().start()).collect();
        let peers = (0..2 + rng.below(5)).map(|n| w.host(format!("P{n}")).start()).collect();
        let mut scene = Self { w, rng, relays, peers, transfers: Vec::new() };
        let hosts: Vec<_> = scene.hosts().collect();
        for (n, a) in hosts.iter().enumerate() {
            for b in &hosts[..n] {
                let link = scene.any_link();
                scene.w.link(*a, *b, link);
            }
        }
        scene
    }

    fn hosts(&self) -> impl Iterator<Item = HostId> + use<> {
        self.relays.iter().chain(&self.peers).copied().collect::<Vec<_>>().into_iter()
    }

    fn any_link(&mut self) -> Link {
        let mut share = |most: f64| self.rng.below(1000) as f64 / 1000.0 * most;
        let link = Link::default().loss(share(0.05)).reorder(share(0.05));
        let link = link.jitter(self.rng.between(ms(0), ms(20)));
        let latency = self.rng.between(ms(1), ms(150));
        let mtu = [1280, 1400, 1500][self.rng.below(3) as usize];
        let link = Link { latency, mtu, ..link };
        match self.rng.below(3) {
            0 => link.rate(1_000_000 + self.rng.below(50_000_000)),
            _ => link,
        }
    }

    fn any(&mut self, hosts: &[HostId]) -> HostId {
        hosts[self.rng.below(hosts.len() as u64) as usize]
    }

    fn any_pair(&mut self) -> (HostId, HostId) {
        let hosts: Vec<_> = self.hosts().collect();
        loop {
            let pair = (self.any(&hosts), self.any(&hosts));
            if pair.0 != pair.1 {
                return pair;
            }
        }
    }

    fn act(&mut self) {
        let (relays, peers) = (self.relays.clone(), self.peers.clone());
        let (a, b) = self.any_pair();
        match self.rng.below(20) {
            0..4 => {
                let (peer, relay) = (self.any(&peers), self.any(&relays));
                self.w.reserve(peer, relay);
            }
            4..7 => {
                let address = self.w[b].address();
                self.w.start_dial(a, None, &[address]);
            }
            7..10 => {
                let relay = self.any(&relays);
                let address = self.w.circuit(relay, b);
                self.w.start_dial(a, None, &[address]);
            }
            10..14 => self.transfer(a, b),
            14 => {
                if let Some(connection) = self.w.connections(a, b).first().copied() {
                    self.w.close(a, connection);
                }
            }
            15 => self.w.cut(a, b),
            16 => self.w.restore(a, b),
            17 => {
                let nth = 1 + self.rng.below(20);
                let fault = [Fault::Drop, Fault::Corrupt, Fault::Duplicate, Fault::Delay(secs(1))];
                self.w.fault(a, b, nth, fault[self.rng.below(4) as usize]);
            }
            18 => self.w.restart(a),
            _ => self.w.run_for(secs(40)),
        }
        let pause = self.rng.between(ms(0), secs(2));
        self.w.run_for(pause);
    }

    fn transfer(&mut self, a: HostId, b: HostId) {
        let bytes = self.rng.below(200_000);
        for connection in self.w.connections(a, b) {
            if let Some(stream) = self.w.try_start_echo(a, connection, bytes) {
                self.transfers.push((a, stream));
            }
        }
    }

    fn check(&self) {
        for (host, stream) in &self.transfers {
            // A host that was restarted has forgotten its streams.
            let Some(Transfer { garbled, received, sent, .. }) = self.w[*host].app().transfer(*stream) else {
                continue;
            };
            assert!(!garbled && received <= sent, "what comes back is what was sent");
        }
        for host in self.hosts() {
            let node = self.w.node(host);
            let relayed = node.connections().iter().filter(|c| c.relayed.is_some());
            for relayed in relayed.filter_map(|c| c.relayed.as_ref()) {
                let via = node.connections().get(relayed.via);
                assert!(via.is_some_and(|via| via.peer == relayed.relay && via.relayed.is_none()));
            }
            let stats = node.stats();
            assert!(
                stats.events == 0
                    && stats.splices <= node.behaviour::<hop::Hop>().map_or(0, hop::Hop::circuits)
            );
        }
    }

    fn end(mut self) {
        for (a, b) in self.hosts().flat_map(|a| self.hosts().map(move |b| (a, b))).collect::<Vec<_>>() {
            self.w.restore(a, b);
            self.w.link(a, b, Link::default());
        }
        self.w.run_for(secs(60));
        self.w.shutdown();
        self.w.run_for(secs(120));
        self.w.assert_empty();
        for host in self.hosts() {
            let count = |pick: fn(&Event) -> bool| self.w[host].log().iter().filter(|(_, e)| pick(e)).count();
            let opened = count(|e| matches!(e, Event::Connected { .. }));
            let closed = count(|e| matches!(e, Event::Disconnected { .. }));
            assert_eq!(opened, closed, "{}: every connection that began has ended", self.w[host].name());
        }
    }
}
