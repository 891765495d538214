//! A crowd of nodes that dial each other at random, restart, and are cut off from each other: after every step of every
//! node what connection management promises holds, and in the end nothing is left.

#[path = "swarm_crowd/invariants.rs"]
mod invariants;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
    rc::Rc,
    time::{Duration, Instant as WallClock},
};

use invariants::Invariants;
use peerless_core::{
    Multiaddr, PeerId,
    errors::{Resource, Scope},
    node::{Config, Event},
    rate::Rate,
    rng::Rng,
    swarm::{
        gate::Entry,
        resources::{Limits, ScopeLimit},
        tags::{KEEP_ALIVE, Tag},
    },
    time::Instant,
};
use peerless_tests::{
    host::HostId,
    link::Link,
    machine,
    world::{World, ms, secs},
};

const LOW_WATER: usize = 10;
const HIGH_WATER: usize = 16;
const GRACE: Duration = secs(20);
const SILENCE: Duration = secs(10);
const DIALS: usize = 3;
const WAITING_DIALS: usize = 4;
/// Where nobody may dial.
const DENIED: &str = "203.0.113.0/24";

/// Limits so tight that a crowd meets all of them.
fn limits() -> Limits {
    const NONE: ScopeLimit = ScopeLimit::UNLIMITED;
    Limits {
        system: ScopeLimit {
            connections: 18,
            inbound_connections: 12,
            outbound_connections: 11,
            streams: 26,
            inbound_streams: 20,
            outbound_streams: 21,
            memory: 352 << 10,
        },
        transient: ScopeLimit {
            connections: 5,
            inbound_connections: 3,
            outbound_connections: 4,
            streams: 6,
            memory: 101 << 10,
            ..NONE
        },
        service: ScopeLimit { streams: 18, inbound_streams: 5, outbound_streams: 17, ..NONE },
        protocol: ScopeLimit { streams: 18, inbound_streams: 12, outbound_streams: 15, ..NONE },
        peer: ScopeLimit { connections: 2, streams: 12, outbound_streams: 9, memory: 50 << 10, ..NONE },
        connection: ScopeLimit { streams: 11, inbound_streams: 4, memory: 10 << 10, ..NONE },
        stream: ScopeLimit { memory: 4 << 10, ..NONE },
        per_ip: 2,
        per_v6_56: 3,
        per_v6_48: 4,
        networks: Vec::new(),
        rate_per_ip: Rate { burst: 6, every: secs(1) },
        rate_per_subnet: Rate { burst: 16, every: ms(250) },
    }
}

fn configure(config: &mut Config) {
    let swarm = &mut config.swarm;
    swarm.limits = limits();
    (swarm.pruner.low_water, swarm.pruner.high_water) = (LOW_WATER, HIGH_WATER);
    (swarm.pruner.grace, swarm.pruner.silence) = (GRACE, SILENCE);
    (swarm.dial.parallel, swarm.dial.queue) = (DIALS, WAITING_DIALS);
    swarm.gate.deny_networks.insert(DENIED.parse().expect("a network"));
    swarm.auto_connect.peers = 3;
}

#[test]
fn a_small_crowd_for_five_minutes() {
    crowd(40, 300, 6, 1);
}

/// `cargo test --release -p peerless-tests --test swarm_crowd -- --ignored --nocapture`: four minutes of a processor, and
/// 0.8 GB. `PEERLESS_CROWD_NODES` and `PEERLESS_CROWD_SECONDS` are other sizes.
#[test]
#[ignore = "takes minutes, even when optimised"]
fn a_thousand_nodes_for_an_hour() {
    let nodes = machine::size("PEERLESS_CROWD_NODES", 1000) as usize;
    crowd(nodes, machine::size("PEERLESS_CROWD_SECONDS", 3600), 1, 2);
}

/// Each node acts so many times a minute.
#[expect(clippy::disallowed_methods, reason = "measures how fast the world turns")]
fn crowd(nodes: usize, seconds: u64, rate: u32, seed: u64) {
    println!("{nodes} nodes, {seconds} s, seed {seed}");
    let begun = WallClock::now();
    let mut scene = Scene::new(nodes, seed);
    let end = scene.w.now() + secs(seconds);
    let mut acts = 0;
    while scene.w.now() < end {
        scene.act();
        acts += 1;
        let pause = scene.rng.between(ms(0), secs(120) / (nodes as u32 * rate));
        scene.run_for(pause);
    }
    let invariants = Rc::clone(&scene.invariants);
    let datagrams = scene.end();
    let took = begun.elapsed().as_secs_f64();
    let tally = &invariants.borrow().tally;
    println!("{nodes} nodes, {seconds} s, {acts} acts, {took:.1} s of wall time: {datagrams} datagrams");
    println!("{tally:#?}");
    let a_second = |count: u64| count as f64 / took;
    println!("a second: {:.0} datagrams, {:.0} events", a_second(datagrams), a_second(tally.events));
    assert!(tally.pruned > 0 && tally.duplicates > 0, "hardly anything has happened");
}

/// What happens a while after two nodes have dialled each other.
enum Later {
    /// All their connections carry streams when one of them is about to be closed.
    Use(HostId, HostId),
    /// One of their connections is closed before the other is closed as superfluous.
    Close(HostId, HostId),
}

struct Scene {
    w: World,
    rng: Rng,
    hosts: Vec<HostId>,
    by_peer: BTreeMap<PeerId, HostId>,
    /// Denied by all, it calls everybody.
    outcast: HostId,
    cut: Vec<Vec<(HostId, HostId)>>,
    later: BTreeMap<(Instant, usize), Later>,
    invariants: Rc<RefCell<Invariants>>,
    /// How often which limit was met, by those that have been restarted since.
    met: BTreeMap<(Scope, Resource), u64>,
}

impl Scene {
    fn new(nodes: usize, seed: u64) -> Self {
        let mut w = World::new(seed).quiet();
        w.default_link(Link::default().loss(0.005).jitter(ms(5)));
        let rng = w.fork("crowd");
        let mute = w.host("mute").ip(Ipv4Addr::new(203, 0, 113, 1)).bare();
        let outcast = w.host("outcast").ip(Ipv4Addr::new(203, 0, 113, 2)).start();
        let hosts: Vec<_> = (0..nodes).map(|n| start(&mut w, n as u16)).collect();
        let by_peer = hosts.iter().map(|host| (w[*host].peer(), *host)).collect();
        let invariants = Rc::new(RefCell::new(Invariants::new(limits(), &w, &hosts, mute, outcast)));
        let watch = Rc::clone(&invariants);
        w.watch(move |w, host| watch.borrow_mut().check(w, host));
        Self {
            w,
            rng,
            hosts,
            by_peer,
            outcast,
            cut: Vec::new(),
            later: BTreeMap::new(),
            invariants,
            met: BTreeMap::new(),
        }
    }

    /// Two of the crowd, often neighbours.
    fn any_pair(&mut self) -> (HostId, HostId) {
        let count = self.hosts.len() as u64;
        loop {
            let a = self.rng.below(count);
            let b =
                if self.rng.below(2) == 0 { self.rng.below(count) } else { (a + self.rng.below(16)) % count };
            if a != b {
                return (self.hosts[a as usize], self.hosts[b as usize]);
            }
        }
    }

    fn act(&mut self) {
        let (a, b) = self.any_pair();
        let (peer, address) = (self.w[b].peer(), self.w[b].address());
        match self.rng.below(32) {
            0..6 => _ = self.w.start_dial(a, Some(peer), &[address]),
            6..12 => {
                let back = self.w[a].address();
                self.w.start_dial(a, Some(peer), &[address]);
                self.w.start_dial(b, None, &[back]);
                let later = match self.rng.below(8) {
                    0..2 => (self.rng.between(ms(900), ms(1100)), Later::Use(a, b)),
                    2 => (ms(300), Later::Close(a, b)),
                    _ => return,
                };
                self.later.insert((self.w.now() + later.0, self.later.len()), later.1);
            }
            12..14 => _ = self.w.start_dial(a, Some(peer), &[]),
            14 => {
                self.w.start_dial(a, Some(peer), &[]);
                self.w.start_dial(a, Some(peer), &[address]);
            }
            15 => self.tempt(a, peer, address),
            16..18 => self.storm(a),
            18 => {
                if let Some(connection) = self.w.connections(a, b).first().copied() {
                    self.w.close(a, connection);
                }
            }
            19 => self.restart(a),
            20..22 => self.part(vec![(a, b)]),
            22 => self.part_neighbours(),
            23..25 if !self.cut.is_empty() => self.mend(),
            25 => self.protect(a),
            26 => self.deny(a, peer),
            27..30 => self.talk(a, 13),
            _ => self.talk(a, 1),
        }
    }

    /// One calls many, and many call one.
    fn storm(&mut self, a: HostId) {
        let back = self.w[a].address();
        let at = self.hosts.iter().position(|host| *host == a).expect("it is one of them");
        for n in 1..=10 {
            let (b, _) = self.any_pair();
            let address = self.w[b].address();
            self.w.start_dial(a, None, &[address]);
            let neighbour = self.hosts[(at + n) % self.hosts.len()];
            self.w.start_dial(neighbour, None, std::slice::from_ref(&back));
        }
    }

    /// Shows a node an address where it may not dial, and has whoever is there call.
    fn tempt(&mut self, a: HostId, peer: PeerId, address: Multiaddr) {
        let denied: Multiaddr = "/ip4/203.0.113.1/udp/4001/quic-v1".parse().expect("a multiaddr");
        let known = std::slice::from_ref(&denied);
        self.w.command(a, |node, now| node.add_peer_addresses(now, peer, known, None));
        let theirs = self.w[self.outcast].address();
        self.w.start_dial(a, None, &[theirs]);
        self.w.start_dial(a, Some(peer), &[denied, address]);
        let ours = self.w[a].address();
        self.w.start_dial(self.outcast, None, &[ours]);
    }

    /// Lets time pass, and does what was to be done later.
    fn run_for(&mut self, pause: Duration) {
        let end = self.w.now() + pause;
        while let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= end) {
            let ((at, _), act) = entry.remove_entry();
            self.w.run_for(at.saturating_duration_since(self.w.now()));
            match act {
                Later::Use(a, b) => {
                    for connection in self.w.connections(a, b) {
                        self.w.try_start_echo(a, connection, 2000);
                    }
                }
                Later::Close(a, b) => {
                    let connections = self.w.connections(a, b);
                    let at = self.rng.below(connections.len().max(1) as u64) as usize;
                    if let Some(connection) = connections.get(at) {
                        self.w.close(a, *connection);
                    }
                }
            }
        }
        self.w.run_for(end.saturating_duration_since(self.w.now()));
    }

    /// Begins streams on connections of a node, up to so many on each, and a few at their other ends.
    fn talk(&mut self, a: HostId, most: u64) {
        let all: Vec<_> = self.w.node(a).connections().iter().map(|info| (info.id, info.peer)).collect();
        for (connection, peer) in all.into_iter().take(3) {
            for _ in 0..=self.rng.below(most) {
                self.w.try_start_echo(a, connection, 2000);
            }
            let b = self.by_peer[&peer];
            for connection in self.w.connections(b, a) {
                for _ in 0..=self.rng.below(most.min(3)) {
                    self.w.try_start_echo(b, connection, 2000);
                }
            }
        }
    }

    /// Protects one of those connected, or no more.
    fn protect(&mut self, a: HostId) {
        let Some(peer) = self.w.node(a).connections().iter().map(|info| info.peer).next() else { return };
        let is_protected = self.w.node(a).swarm().tags().is_protected(&peer);
        self.w.command(a, |node, now| {
            node.tags(now, |tags, now| match is_protected {
                true => _ = tags.unprotect(&peer, KEEP_ALIVE),
                false => tags.protect(now, peer, Tag::from(KEEP_ALIVE)),
            });
        });
    }

    /// Denies a peer, and none of those denied before any more.
    fn deny(&mut self, a: HostId, peer: PeerId) {
        let before = std::mem::take(self.invariants.borrow_mut().denials.entry(a).or_default());
        self.w.command(a, |node, now| {
            node.change_gate(now, |gate| {
                before.iter().for_each(|peer| _ = gate.undeny(Entry::Peer(*peer)));
                gate.deny(Entry::Peer(peer));
            });
        });
        self.invariants.borrow_mut().denials.insert(a, BTreeSet::from([peer]));
    }

    fn restart(&mut self, a: HostId) {
        self.note_refusals(a);
        self.invariants.borrow_mut().denials.remove(&a);
        self.w.restart(a);
    }

    fn part(&mut self, pairs: Vec<(HostId, HostId)>) {
        pairs.iter().for_each(|(a, b)| self.w.cut(*a, *b));
        self.cut.push(pairs);
    }

    /// Cuts two neighbourhoods off from each other.
    fn part_neighbours(&mut self) {
        let from = self.rng.below(self.hosts.len() as u64 - 12) as usize;
        let (left, right) = self.hosts[from..from + 12].split_at(6);
        self.part(left.iter().flat_map(|a| right.iter().map(|b| (*a, *b))).collect());
    }

    fn mend(&mut self) {
        let at = self.rng.below(self.cut.len() as u64) as usize;
        for (a, b) in self.cut.swap_remove(at) {
            self.w.restore(a, b);
        }
    }

    fn note_refusals(&mut self, host: HostId) {
        for (scope, resource, count) in self.w.node(host).swarm().resources().refusals() {
            *self.met.entry((scope, resource)).or_default() += count;
        }
    }

    /// Everything is mended and comes to rest: a pair has one connection at most, the same on both sides.
    fn end(mut self) -> u64 {
        while !self.cut.is_empty() {
            self.mend();
        }
        self.w.run_for(secs(120));
        let mut connected = 0;
        for a in self.hosts.clone() {
            for info in self.w.node(a).connections().iter() {
                let of_peer = self.w.node(a).connections().of(&info.peer);
                assert_eq!(of_peer.len(), 1, "{} has more than one to a peer", self.w[a].name());
                connected += 1;
            }
            self.note_refusals(a);
        }
        assert!(connected > self.hosts.len(), "{connected}: hardly anybody is connected");
        println!("limits met: {:?}", self.met);
        for scope in [Scope::System, Scope::Transient, Scope::Service, Scope::Protocol, Scope::Peer]
            .into_iter()
            .chain([Scope::Connection, Scope::Ip, Scope::V6Slash56, Scope::V6Slash48])
        {
            assert!(self.met.keys().any(|(met, _)| *met == scope), "no limit of a {} is met", scope.name());
        }
        let datagrams = self.w.traffic().datagrams;
        self.invariants.borrow_mut().is_over = true;
        self.w.shutdown();
        self.w.run_for(secs(120));
        self.w.assert_empty();
        for host in &self.hosts {
            assert!(self.w.node(*host).swarm().resources().is_empty());
            let log = self.w[*host].log();
            let opened = log.iter().filter(|(_, event)| matches!(event, Event::Connected { .. })).count();
            let closed = log.iter().filter(|(_, event)| matches!(event, Event::Disconnected { .. })).count();
            assert_eq!(opened, closed, "{}: every connection that began has ended", self.w[*host].name());
        }
        datagrams
    }
}

/// Every host has an address of its own, and lives in a household of eight, four to a room, in a site of sixteen. Every
/// other one prefers IPv6.
fn start(w: &mut World, n: u16) -> HostId {
    let [high, low] = n.to_be_bytes();
    let v4 = Ipv4Addr::new(80, 0, high, low);
    let v6 = Ipv6Addr::new(0x2a00, 0, n / 16, ((n / 8) << 8) | (n / 4 % 2), 0, 0, 0, n);
    let host = w.host(format!("N{n}"));
    let host = if n.is_multiple_of(2) { host.ip(v4).ip(v6) } else { host.ip(v6).ip(v4) };
    host.configure(configure).start()
}
