//! A crowd of nodes that dial each other at random, restart, and are cut off from each other: whatever happens, what
//! connection management promises holds, and in the end nothing is left.

use std::time::Instant as WallClock;

use peerless_core::{event::Event, node::Config, rng::Rng};
use peerless_tests::{
    host::HostId,
    world::{World, ms, secs},
};

/// Most connections of a node.
const LIMIT: usize = 24;
/// Where nobody may dial.
const DENIED: &str = "203.0.113.0/24";

#[test]
fn a_small_crowd_for_five_minutes() {
    crowd(60, 300, 1);
}

/// `cargo test --release --test swarm_crowd -- --ignored --nocapture`
#[test]
#[ignore = "takes minutes, even when optimised"]
fn a_thousand_nodes_for_an_hour() {
    crowd(1000, 3600, 2);
}

fn configure(config: &mut Config) {
    config.swarm.limits.system.connections = LIMIT;
    (config.swarm.pruner.low_water, config.swarm.pruner.high_water) = (10, 20);
    config.swarm.gate.deny_networks.insert(DENIED.parse().expect("a network"));
    config.swarm.auto_connect.peers = 3;
}

#[expect(clippy::disallowed_methods, reason = "measures how fast the world turns")]
fn crowd(nodes: usize, seconds: u64, seed: u64) {
    println!("seed {seed}");
    let begun = WallClock::now();
    let mut scene = Scene::new(nodes, seed);
    let mut acts = 0;
    let end = scene.w.now() + secs(seconds);
    while scene.w.now() < end {
        // About one act a minute and node.
        scene.act();
        acts += 1;
        let pause = scene.rng.between(ms(0), secs(120) / nodes as u32);
        scene.w.run_for(pause);
        if acts % 20 == 0 {
            scene.check_limits();
        }
    }
    let packets = scene.end();
    let took = begun.elapsed().as_secs_f64();
    println!(
        "{nodes} nodes, {seconds} s, {acts} acts: {packets} datagrams in {took:.1} s, {:.0} a second",
        packets as f64 / took
    );
}

struct Scene {
    w: World,
    rng: Rng,
    hosts: Vec<HostId>,
    /// Where nobody may dial: what comes there is kept.
    denied: HostId,
    cut: Vec<(HostId, HostId)>,
}

impl Scene {
    fn new(nodes: usize, seed: u64) -> Self {
        let mut w = World::new(seed).quiet();
        let rng = w.fork("crowd");
        let denied = w.host("denied").ip(std::net::Ipv4Addr::new(203, 0, 113, 1)).bare();
        let hosts = (0..nodes).map(|n| w.host(format!("N{n}")).configure(configure).start()).collect();
        Self { w, rng, hosts, denied, cut: Vec::new() }
    }

    fn any(&mut self) -> HostId {
        self.hosts[self.rng.below(self.hosts.len() as u64) as usize]
    }

    fn any_pair(&mut self) -> (HostId, HostId) {
        loop {
            let pair = (self.any(), self.any());
            if pair.0 != pair.1 {
                return pair;
            }
        }
    }

    fn act(&mut self) {
        let (a, b) = self.any_pair();
        let (peer, address) = (self.w[b].peer(), self.w[b].address());
        match self.rng.below(20) {
            0..6 => _ = self.w.start_dial(a, Some(peer), &[address]),
            6..10 => {
                let back = self.w[a].address();
                self.w.start_dial(a, Some(peer), &[address]);
                self.w.start_dial(b, None, &[back]);
            }
            10..12 => _ = self.w.start_dial(a, Some(peer), &[]),
            12 => {
                let denied = "/ip4/203.0.113.1/udp/4001/quic-v1".parse().expect("a multiaddr");
                self.w.start_dial(a, Some(peer), &[denied, address]);
            }
            13..15 => {
                if let Some(connection) = self.w.connections(a, b).first().copied() {
                    self.w.close(a, connection);
                }
            }
            15 => self.w.restart(a),
            16..18 => {
                self.w.cut(a, b);
                self.cut.push((a, b));
            }
            18 if !self.cut.is_empty() => {
                let at = self.rng.below(self.cut.len() as u64) as usize;
                let (a, b) = self.cut.swap_remove(at);
                self.w.restore(a, b);
            }
            _ => {
                if let Some(connection) = self.w.connections(a, b).first().copied() {
                    self.w.try_start_echo(a, connection, 2000);
                }
            }
        }
    }

    fn check_limits(&mut self) {
        for host in &self.hosts {
            let node = self.w.node(*host);
            assert!(node.connections().len() <= LIMIT, "{} holds too many", self.w[*host].name());
            assert!(node.stats().dials <= 600);
        }
        let denied = self.denied;
        assert!(self.w.receive(denied).is_empty(), "a datagram has left for a denied address");
    }

    /// Everything is mended and comes to rest: a pair has one connection at most, the same on both sides.
    fn end(mut self) -> u64 {
        for (a, b) in std::mem::take(&mut self.cut) {
            self.w.restore(a, b);
        }
        self.w.run_for(secs(120));
        self.check_limits();
        let mut connected = 0;
        for a in &self.hosts {
            for info in self.w.node(*a).connections().iter() {
                let of_peer = self.w.node(*a).connections().of(&info.peer);
                assert_eq!(of_peer.len(), 1, "{} has more than one to a peer", self.w[*a].name());
                connected += 1;
            }
        }
        assert!(connected > self.hosts.len(), "{connected}: hardly anybody is connected");
        let packets = self.w.traffic().datagrams;
        self.w.shutdown();
        self.w.run_for(secs(120));
        self.w.assert_empty();
        for host in &self.hosts {
            let log = self.w[*host].log();
            let opened = log.iter().filter(|(_, event)| matches!(event, Event::Connected { .. })).count();
            let closed = log.iter().filter(|(_, event)| matches!(event, Event::Disconnected { .. })).count();
            assert_eq!(opened, closed, "{}: every connection that began has ended", self.w[*host].name());
        }
        packets
    }
}
