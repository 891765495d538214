//! Three nodes and the wires between them, in virtual time, and what the middle one costs.

use std::{
    alloc::System,
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use bytes::BytesMut;
use cpu_time::ThreadTime;
use peerless_core::{
    Multiaddr, PeerId,
    ids::SocketId,
    node::{Bound, Datagram, Ecn, Event, Node},
    time::Instant,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The one who sends.
pub(crate) const SOURCE: usize = 0;
/// The one between, whose costs are counted.
pub(crate) const RELAY: usize = 1;
/// The one who receives.
pub(crate) const TARGET: usize = 2;

/// Segments of 1452 bytes that fit in one send of 64 KiB.
const MAX_SEGMENTS: usize = 44;
const SOCKET: SocketId = SocketId(0);

/// What the relay has cost, and what for. Times are processor time of this thread.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    /// In inputs, events and deadlines.
    pub(crate) handling: Duration,
    /// In making datagrams.
    pub(crate) transmitting: Duration,
    pub(crate) allocations: usize,
    pub(crate) allocated_bytes: usize,
    /// Datagrams that came from the source.
    pub(crate) from_source: u64,
    /// Datagrams that came from the target, acknowledgements for the most part.
    pub(crate) from_target: u64,
    pub(crate) sent: u64,
    /// Batches in which datagrams came from the source.
    pub(crate) batches_in: u64,
    /// Batches in which datagrams left, in either direction.
    pub(crate) batches_out: u64,
}

struct Host {
    node: Node,
    address: SocketAddr,
    events: VecDeque<Event>,
    deadline: Option<Instant>,
}

/// What one send put on the wire: it arrives as one batch.
struct Flight {
    at: Instant,
    from: usize,
    to: usize,
    ecn: Option<Ecn>,
    datagrams: Vec<BytesMut>,
}

/// Nodes on wires of infinite speed and no loss; each datagram takes the same time.
pub(crate) struct Network {
    now: Instant,
    one_way: Duration,
    hosts: Vec<Host>,
    /// In the order of arrival.
    wire: VecDeque<Flight>,
    buffer: Vec<u8>,
    pub(crate) cost: Cost,
}

impl Network {
    pub(crate) fn new(nodes: [Node; 3], round_trip: Duration) -> Self {
        let address = |n: usize| SocketAddr::from((Ipv4Addr::new(10, 0, 0, n as u8 + 1), 4001));
        let host = |(n, node)| Host { node, address: address(n), events: VecDeque::new(), deadline: None };
        let hosts = nodes.into_iter().enumerate().map(host).collect();
        let mut network = Self {
            now: Instant::ZERO,
            one_way: round_trip / 2,
            hosts,
            wire: VecDeque::new(),
            buffer: Vec::new(),
            cost: Cost::default(),
        };
        for host in [SOURCE, RELAY, TARGET] {
            let bound = Bound { local: network.hosts[host].address, reachable: Vec::new() };
            network.command(host, |node, now| node.handle_socket(now, SOCKET, Some(bound)));
        }
        network
    }

    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    pub(crate) fn peer(&self, host: usize) -> PeerId {
        self.hosts[host].node.local_peer()
    }

    /// The address of a host, with its `/p2p`.
    pub(crate) fn address(&self, host: usize) -> Multiaddr {
        let (at, peer) = (self.hosts[host].address, self.peer(host));
        format!("/ip4/{}/udp/{}/quic-v1/p2p/{peer}", at.ip(), at.port())
            .parse()
            .expect("this is how addresses are written")
    }

    /// Asks a node for something, or tells it, and takes what comes of it.
    pub(crate) fn command<R>(&mut self, host: usize, command: impl FnOnce(&mut Node, Instant) -> R) -> R {
        let (result, took) = self.meter(host, |host, now| command(&mut host.node, now));
        self.cost.handling += took;
        self.flush(host);
        let ((), took) = self.meter(host, |host, _| {
            host.events.extend(std::iter::from_fn(|| host.node.poll_event()));
            host.deadline = host.node.deadline().map(|due| due.at);
        });
        self.cost.handling += took;
        result
    }

    pub(crate) fn poll_event(&mut self, host: usize) -> Option<Event> {
        self.hosts[host].events.pop_front()
    }

    /// Goes to the next moment at which something happens. `None` if nothing ever will.
    pub(crate) fn step(&mut self) -> Option<()> {
        let timeout = (SOURCE..=TARGET).filter_map(|host| Some((self.hosts[host].deadline?, host))).min();
        let arrival = self.wire.front().map(|flight| flight.at);
        match (arrival, timeout) {
            (Some(at), Some((due, host))) if due < at => self.time_out(due, host),
            (Some(_), _) => self.arrive(),
            (None, Some((due, host))) => self.time_out(due, host),
            (None, None) => return None,
        }
        Some(())
    }

    fn time_out(&mut self, at: Instant, host: usize) {
        self.now = self.now.max(at);
        self.command(host, |node, now| node.handle_timeout(now));
    }

    fn arrive(&mut self) {
        let Some(Flight { at, from, to, ecn, datagrams }) = self.wire.pop_front() else { return };
        self.now = self.now.max(at);
        let count = datagrams.len() as u64;
        let (remote, local_ip) = (self.hosts[from].address, Some(self.hosts[to].address.ip()));
        let datagram = |data| Datagram { socket: SOCKET, remote, local_ip, ecn, data };
        self.command(to, |node, now| node.handle_datagrams(now, datagrams.into_iter().map(datagram)));
        match (from, to) {
            (SOURCE, RELAY) => {
                self.cost.from_source += count;
                self.cost.batches_in += 1;
            }
            (TARGET, RELAY) => self.cost.from_target += count,
            _ => {}
        }
    }

    /// Puts on the wire what a node has to send.
    fn flush(&mut self, from: usize) {
        loop {
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.clear();
            let (transmit, took) =
                self.meter(from, |host, now| host.node.poll_transmit(now, MAX_SEGMENTS, &mut buffer));
            self.cost.transmitting += took;
            self.buffer = buffer;
            let Some(transmit) = transmit else { return };
            let bytes = &self.buffer[..transmit.size];
            let datagrams: Vec<_> =
                bytes.chunks(transmit.segment_size.unwrap_or(transmit.size)).map(BytesMut::from).collect();
            if from == RELAY {
                self.cost.sent += datagrams.len() as u64;
                self.cost.batches_out += 1;
            }
            let destination = self.hosts.iter().position(|host| host.address == transmit.destination);
            if let Some(to) = destination {
                let (at, ecn) = (self.now + self.one_way, transmit.ecn);
                self.wire.push_back(Flight { at, from, to, ecn, datagrams });
            }
        }
    }

    /// Calls into a node; if that is the relay, says how long it took and counts its allocations.
    fn meter<R>(&mut self, host: usize, call: impl FnOnce(&mut Host, Instant) -> R) -> (R, Duration) {
        let now = self.now;
        if host != RELAY {
            return (call(&mut self.hosts[host], now), Duration::ZERO);
        }
        let before = ALLOCATOR.stats();
        let started = ThreadTime::now();
        let result = call(&mut self.hosts[host], now);
        let took = started.elapsed();
        let after = ALLOCATOR.stats();
        let count = |stats: stats_alloc::Stats| stats.allocations + stats.reallocations;
        self.cost.allocations += count(after) - count(before);
        self.cost.allocated_bytes += after.bytes_allocated - before.bytes_allocated;
        (result, took)
    }
}
