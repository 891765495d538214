//! Whole nodes on a simulated network in virtual time.
//!
//! A world is a function of its seed: the same seed and the same calls give the same datagrams in the same order, with
//! [`PlainCrypto`](crate::plain) byte for byte. If a test panics, its world prints its seed and the end of its story.

mod commands;
mod network;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use peerless_core::{
    node::{AppProtocol, Bound, Config, Event, Node, Start, Transmit},
    rng::Rng,
    time::{Instant, UnixTime},
    upgrade::Security,
};
use sha2::{Digest, Sha256};

use self::network::Path;
pub use self::network::Traffic;
use crate::{
    app::{ECHO, PERF},
    host::{Host, HostBuilder, HostId, Timer},
    link::{Link, Packet, Wire},
    plain::PlainCrypto,
    transcript::{Entry, Names, Transcript},
};

/// Virtual time that the waiting helpers wait at most.
const PATIENCE: Duration = Duration::from_secs(60);
/// Datagrams of one size that a node may send in one batch.
const MAX_SEGMENTS: usize = 10;
/// Timeouts in a row that may leave the deadline where it was.
const MAX_STUCK: u32 = 64;
/// The wall clock at the start.
const UNIX_START: UnixTime = UnixTime::from_secs(1_700_000_000);

/// `n` seconds.
pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// `n` milliseconds.
pub const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Hosts, links between them, and a clock that moves from event to event.
pub struct World {
    seed: u64,
    rng: Rng,
    real_tls: bool,
    now: Instant,
    seq: u64,
    queue: BTreeMap<(Instant, u64), Item>,
    hosts: Vec<Host>,
    by_ip: BTreeMap<IpAddr, HostId>,
    default_link: Link,
    paths: BTreeMap<(HostId, HostId), Path>,
    /// The sockets of hosts that take time to read what has come.
    sockets: BTreeMap<HostId, Wire>,
    /// From which addresses there is no way to which.
    no_routes: BTreeSet<(IpAddr, IpAddr)>,
    in_flight: usize,
    traffic: Traffic,
    wire: Sha256,
    tracing: bool,
    story: Vec<Entry>,
    buffer: Vec<u8>,
    watch: Option<Watch>,
}

/// What is done after every step of a host.
type Watch = Box<dyn FnMut(&World, HostId)>;

#[derive(Debug)]
enum Item {
    Arrival(Packet),
    /// Its turn in the socket's buffer has come.
    Reading(Packet),
    Timeout(HostId),
}

impl World {
    /// A world without TLS, in which every byte on the wire follows from `seed`.
    pub fn new(seed: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        Self {
            seed,
            rng: Rng::new(key),
            real_tls: false,
            now: Instant::ZERO,
            seq: 0,
            queue: BTreeMap::new(),
            hosts: Vec::new(),
            by_ip: BTreeMap::new(),
            default_link: Link::default(),
            paths: BTreeMap::new(),
            sockets: BTreeMap::new(),
            no_routes: BTreeSet::new(),
            in_flight: 0,
            traffic: Traffic::default(),
            wire: Sha256::new(),
            tracing: true,
            story: Vec::new(),
            buffer: Vec::new(),
            watch: None,
        }
    }

    /// A world with the real TLS, whose bytes differ from run to run: assert events there.
    pub fn with_tls(seed: u64) -> Self {
        let mut world = Self::new(seed);
        world.real_tls = true;
        world
    }

    /// Records no story; for worlds of many hosts.
    pub fn quiet(mut self) -> Self {
        self.tracing = false;
        self
    }

    /// Calls `watch` after every step of a host: whenever its node has been given an input or a command and everything that
    /// follows has been taken from it, and whenever something has come to a bare host.
    pub fn watch(&mut self, watch: impl FnMut(&Self, HostId) + 'static) {
        self.watch = Some(Box::new(watch));
    }

    /// Begins a host. Its name stands in transcripts.
    pub fn host(&mut self, name: impl Into<String>) -> HostBuilder<'_> {
        HostBuilder::new(self, name.into())
    }
}

/// Time.
impl World {
    /// What time it is.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Lets everything happen that happens within `duration`.
    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.step(end) {}
        self.now = end;
    }

    /// Lets things happen until `found` finds what it looks for, for `patience` at most.
    pub fn run_until<T>(
        &mut self,
        patience: Duration,
        mut found: impl FnMut(&World) -> Option<T>,
    ) -> Option<T> {
        let end = self.now + patience;
        loop {
            if let Some(value) = found(self) {
                return Some(value);
            }
            if !self.step(end) {
                self.now = end;
                return found(self);
            }
        }
    }

    /// Lets things happen until the node of `host` tells an event that `pick` takes. Only events told after this call
    /// count. Panics if none comes.
    pub fn wait_for<T>(&mut self, host: HostId, what: &str, pick: impl FnMut(&Event) -> Option<T>) -> T {
        let from = self[host].log.len();
        self.wait_from(host, from, what, pick)
    }

    fn wait_from<T>(
        &mut self,
        host: HostId,
        mut from: usize,
        what: &str,
        mut pick: impl FnMut(&Event) -> Option<T>,
    ) -> T {
        let found = self.run_until(PATIENCE, |world| {
            let news = world[host].log.get(from..).unwrap_or_default();
            from += news.len();
            news.iter().find_map(|(_, event)| pick(event))
        });
        found.unwrap_or_else(|| panic!("{} waited in vain for {what}", self[host].name))
    }

    /// Does the next thing that is due by `end`; false if there is none.
    fn step(&mut self, end: Instant) -> bool {
        let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= end) else {
            return false;
        };
        let ((at, _), item) = entry.remove_entry();
        self.now = at;
        match item {
            Item::Arrival(packet) => self.arrive(packet),
            Item::Reading(packet) => self.read(packet),
            Item::Timeout(id) => self.time_out(id),
        }
        true
    }

    fn time_out(&mut self, id: HostId) {
        let Some(fired) = self.hosts[id.0].timer.take() else { return };
        let now = self.now;
        self.input(id, |node| node.handle_timeout(now));
        let host = &mut self.hosts[id.0];
        let Some(timer) = &mut host.timer else { return };
        if timer.deadline.at <= now {
            timer.stuck = fired.stuck + 1;
            let why = timer.deadline.why;
            assert!(
                timer.stuck < MAX_STUCK,
                "{} is in a busy loop: its deadline for \"{why}\" stays due",
                host.name
            );
        }
    }

    /// An item that is overdue comes after everything that is due now.
    fn schedule(&mut self, at: Instant, item: Item) -> (Instant, u64) {
        self.seq += 1;
        let key = (at.max(self.now), self.seq);
        self.queue.insert(key, item);
        key
    }
}

/// The driving contract of a node: after every input all transmits, all events, then the deadline.
impl World {
    pub(crate) fn add(&mut self, host: Host) -> HostId {
        let id = HostId(self.hosts.len());
        assert!(self.hosts.iter().all(|other| other.name != host.name), "there are two hosts {}", host.name);
        for (_, address) in &host.sockets {
            let taken = self.by_ip.insert(address.ip(), id);
            assert!(taken.is_none(), "{} is already taken", address.ip());
        }
        self.hosts.push(host);
        id
    }

    /// Makes the node of a host and gives it its sockets.
    pub(crate) fn boot(&mut self, id: HostId) {
        let host = &self.hosts[id.0];
        let seed = self.rng.fork(&format!("node {} {}", host.name, host.starts)).bytes();
        let mut config = self.config(host);
        for change in &host.configure {
            change(&mut config);
        }
        let now = self.now;
        let unix = UNIX_START + now.saturating_duration_since(Instant::ZERO);
        let node = Node::new(config, Start { now, unix, seed }).expect("the test's configuration is valid");
        let host = &mut self.hosts[id.0];
        host.starts += 1;
        host.node = Some(node);
        self.tell_sockets(id);
    }

    /// Tells the node of a host where its sockets are.
    pub(crate) fn tell_sockets(&mut self, id: HostId) {
        let now = self.now;
        let host = &self.hosts[id.0];
        let (wildcard, plugged) = (host.wildcard, host.plugged);
        for (socket, local) in host.sockets.clone() {
            let bound = match (wildcard, plugged) {
                (false, false) => None,
                (false, true) => Some(Bound { local, reachable: Vec::new() }),
                (true, _) => {
                    let any = if local.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
                    let reachable = if plugged { vec![local.ip()] } else { Vec::new() };
                    Some(Bound { local: SocketAddr::new(any, local.port()), reachable })
                }
            };
            self.input(id, |node| node.handle_socket(now, socket, bound));
        }
    }

    fn config(&self, host: &Host) -> Config {
        let mut config = Config::new(host.identity.clone());
        config.trace = self.tracing;
        config.knows_routes = true;
        config.app_protocols = [ECHO, PERF].map(|name| AppProtocol { name, inbound_per_peer: 64 }).to_vec();
        if !self.real_tls {
            config.crypto = Some(Arc::new(PlainCrypto::new(host.peer())));
            config.upgrade.security = vec![Security::Noise];
        }
        config
    }

    /// Gives a node one input or command and drains it. A host without a node ignores it.
    fn input(&mut self, id: HostId, act: impl FnOnce(&mut Node)) {
        if let Some(node) = &mut self.hosts[id.0].node {
            act(node);
            self.drain(id);
        }
    }

    fn drain(&mut self, id: HostId) {
        loop {
            while let Some(transmit) = self.poll_transmit(id) {
                self.send_batch(id, &transmit);
            }
            let routes = &self.no_routes;
            if !self.hosts[id.0].take_events(self.now, |from, to| !routes.contains(&(from, to))) {
                break;
            }
        }
        self.take_trace(id);
        self.rearm(id);
        self.stepped(id);
    }

    fn stepped(&mut self, id: HostId) {
        if let Some(mut watch) = self.watch.take() {
            watch(self, id);
            self.watch = Some(watch);
        }
    }

    fn poll_transmit(&mut self, id: HostId) -> Option<Transmit> {
        let node = self.hosts[id.0].node.as_mut()?;
        node.poll_transmit(self.now, MAX_SEGMENTS, &mut self.buffer)
    }

    fn send_batch(&mut self, id: HostId, transmit: &Transmit) {
        let buffer = std::mem::take(&mut self.buffer);
        let host = &self.hosts[id.0];
        let sockets = host.sockets.iter();
        let (_, local) = *sockets
            .clone()
            .find(|(socket, _)| *socket == transmit.socket)
            .expect("nodes send through their own sockets");
        // A socket that is bound to an address sends from there.
        let ip = transmit.src_ip.filter(|_| host.wildcard).unwrap_or(local.ip());
        let is_own = sockets.clone().any(|(_, local)| local.ip() == ip);
        let from = SocketAddr::new(ip, local.port());
        let segment = transmit.segment_size.unwrap_or(transmit.size).max(1);
        for data in buffer[..transmit.size].chunks(segment) {
            let (to, ecn) = (transmit.destination, transmit.ecn);
            if !is_own {
                self.lose("no address of the host");
                continue;
            }
            self.send(id, Packet { from, to, ecn, data: Bytes::copy_from_slice(data) });
        }
        self.buffer = buffer;
    }

    fn take_trace(&mut self, id: HostId) {
        if let Some(node) = self.hosts[id.0].node.as_mut().filter(|_| self.tracing) {
            self.story.extend(node.take_trace().into_iter().map(|line| Entry { host: id, line }));
        }
    }

    fn rearm(&mut self, id: HostId) {
        let host = &mut self.hosts[id.0];
        let deadline = host.node.as_mut().and_then(Node::deadline);
        if host.timer.map(|timer| timer.deadline) == deadline {
            return;
        }
        if let Some(timer) = host.timer.take() {
            self.queue.remove(&timer.key);
        }
        if let Some(deadline) = deadline {
            let key = self.schedule(deadline.at, Item::Timeout(id));
            self.hosts[id.0].timer = Some(Timer { deadline, key, stuck: 0 });
        }
    }
}

/// Looking at it.
impl World {
    /// All hosts in the order of their start.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// A stream of random numbers of the test's own, named `label`.
    pub fn fork(&self, label: &str) -> Rng {
        self.rng.fork(label)
    }

    /// Everything that has happened, as a story.
    pub fn transcript(&self) -> Transcript {
        Transcript::new(Names::of(&self.hosts), &self.story)
    }
}

impl std::ops::Index<HostId> for World {
    type Output = Host;

    fn index(&self, id: HostId) -> &Host {
        &self.hosts[id.0]
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "World of seed {} at {} with {:?}", self.seed, self.now, self.hosts)
    }
}

/// Tells how to see a failure again.
impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let story = self.transcript().to_string();
            let lines: Vec<_> = story.lines().collect();
            let last = &lines[lines.len().saturating_sub(40)..];
            eprintln!("world seed {} at {}; the end of its story:\n{}", self.seed, self.now, last.join("\n"));
        }
    }
}
