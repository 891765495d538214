//! What lies between two hosts: links that delay, lose, reorder and queue datagrams.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use peerless_core::{node::Ecn, rng::Rng, time::Instant};

/// A UDP datagram under way.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Who sent it, as the place where it is now sees it.
    pub from: SocketAddr,
    /// Where it goes, as the place where it is now sees it.
    pub to: SocketAddr,
    /// Its ECN codepoint.
    pub ecn: Option<Ecn>,
    /// The UDP payload.
    pub data: Bytes,
}

impl Packet {
    /// Bytes on an IP link: payload, UDP header and IP header.
    pub fn ip_size(&self) -> usize {
        let headers = if self.to.is_ipv4() { 28 } else { 48 };
        self.data.len() + headers
    }
}

/// One piece of network that datagrams pass in one direction. A path is a chain of them; a piece may hold packets
/// back, drop them, copy them, or rewrite their addresses.
pub trait Hop {
    /// Takes in a packet at `now` and tells `out` what becomes of it.
    fn pass(&mut self, now: Instant, packet: Packet, out: &mut Outlet);
}

/// What came out of a [`Hop`].
#[derive(Debug, Default)]
pub struct Outlet {
    /// Packets that go on, and when.
    pub forwarded: Vec<(Instant, Packet)>,
    /// Why packets were dropped, one entry each.
    pub dropped: Vec<&'static str>,
}

impl Outlet {
    /// Sends a packet on at `at`.
    pub fn forward(&mut self, at: Instant, packet: Packet) {
        self.forwarded.push((at, packet));
    }

    /// Counts a packet as dropped.
    pub fn drop(&mut self, why: &'static str) {
        self.dropped.push(why);
    }
}

/// The properties of one direction of a link.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// Time a datagram needs on an empty link.
    pub latency: Duration,
    /// Up to this much is added at random; datagrams keep their order.
    pub jitter: Duration,
    /// Share of datagrams lost, 0.0 to 1.0.
    pub loss: f64,
    /// Share of datagrams that are held back for one more latency, and so overtaken.
    pub reorder: f64,
    /// Bits per second; `None` is infinitely fast.
    pub rate: Option<u64>,
    /// Bytes that may wait for a link with a rate; what comes on top is dropped.
    pub queue: usize,
    /// Largest IP packet; larger ones are dropped.
    pub mtu: usize,
}

/// 20 ms, nothing lost, infinitely fast, 1500 bytes.
impl Default for Link {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(20),
            jitter: Duration::ZERO,
            loss: 0.0,
            reorder: 0.0,
            rate: None,
            queue: 256 * 1024,
            mtu: 1500,
        }
    }
}

impl Link {
    /// A link of this latency, otherwise like the default.
    pub fn latency(latency: Duration) -> Self {
        Self { latency, ..Self::default() }
    }

    /// With this much jitter.
    pub fn jitter(self, jitter: Duration) -> Self {
        Self { jitter, ..self }
    }

    /// With this share of datagrams lost.
    pub fn loss(self, loss: f64) -> Self {
        Self { loss, ..self }
    }

    /// With this share of datagrams overtaken by later ones.
    pub fn reorder(self, reorder: f64) -> Self {
        Self { reorder, ..self }
    }

    /// With this many bits per second.
    pub fn rate(self, bits_per_second: u64) -> Self {
        Self { rate: Some(bits_per_second), ..self }
    }

    /// With room for this many waiting bytes.
    pub fn queue(self, queue: usize) -> Self {
        Self { queue, ..self }
    }

    /// With this largest IP packet.
    pub fn mtu(self, mtu: usize) -> Self {
        Self { mtu, ..self }
    }
}

/// One direction of a link at work.
#[derive(Debug)]
pub struct Wire {
    /// Its properties; they may change at any time.
    pub link: Link,
    rng: Rng,
    busy_until: Instant,
    last_arrival: Instant,
}

impl Wire {
    /// An idle wire that draws its luck from `rng`.
    pub fn new(link: Link, rng: Rng) -> Self {
        Self { link, rng, busy_until: Instant::ZERO, last_arrival: Instant::ZERO }
    }

    fn happens(&mut self, share: f64) -> bool {
        const PRECISION: u64 = 1 << 32;
        share > 0.0 && (self.rng.below(PRECISION) as f64) < share * PRECISION as f64
    }

    /// When the last bit of `size` bytes is on the wire; `None` if the queue is full.
    fn serialise(&mut self, now: Instant, size: usize) -> Option<Instant> {
        let Some(rate) = self.link.rate else { return Some(now) };
        let start = self.busy_until.max(now);
        let waiting = start.saturating_duration_since(now).as_nanos() * u128::from(rate) / 8_000_000_000;
        if waiting + size as u128 > self.link.queue as u128 {
            return None;
        }
        self.busy_until = start + Duration::from_nanos(size as u64 * 8 * 1_000_000_000 / rate.max(1));
        Some(self.busy_until)
    }
}

impl Hop for Wire {
    fn pass(&mut self, now: Instant, packet: Packet, out: &mut Outlet) {
        let size = packet.ip_size();
        if size > self.link.mtu {
            return out.drop("too large");
        }
        let Some(sent) = self.serialise(now, size) else { return out.drop("queue full") };
        if self.happens(self.link.loss) {
            return out.drop("lost");
        }
        let jitter = self.rng.between(Duration::ZERO, self.link.jitter);
        let arrival = (sent + self.link.latency + jitter).max(self.last_arrival);
        if self.happens(self.link.reorder) {
            return out.forward(arrival + self.link.latency, packet);
        }
        self.last_arrival = arrival;
        out.forward(arrival, packet);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn packet(len: usize) -> Packet {
        let address = |host| SocketAddr::from(([192, 0, 2, host], 4001));
        Packet { from: address(1), to: address(2), ecn: None, data: Bytes::from(vec![0; len]) }
    }

    fn pass(wire: &mut Wire, now: Instant, len: usize) -> Outlet {
        let mut out = Outlet::default();
        wire.pass(now, packet(len), &mut out);
        out
    }

    fn arrivals(link: Link, count: usize) -> (Vec<Instant>, Vec<&'static str>) {
        let mut wire = Wire::new(link, Rng::new([3; 32]));
        let mut out = Outlet::default();
        for i in 0..count {
            wire.pass(Instant::from_nanos(i as u64), packet(972), &mut out);
        }
        (out.forwarded.into_iter().map(|(at, _)| at).collect(), out.dropped)
    }

    #[test]
    fn a_plain_link_only_takes_time() {
        let mut wire = Wire::new(Link::latency(5 * MS), Rng::new([0; 32]));
        assert_eq!(pass(&mut wire, Instant::ZERO, 100).forwarded[0].0, Instant::ZERO + 5 * MS);
    }

    #[test]
    fn the_largest_packet_passes_and_one_byte_more_does_not() {
        let mut wire = Wire::new(Link::default().mtu(1500), Rng::new([0; 32]));
        assert_eq!(pass(&mut wire, Instant::ZERO, 1472).dropped.len(), 0);
        assert_eq!(pass(&mut wire, Instant::ZERO, 1473).dropped, ["too large"]);
    }

    #[test]
    fn a_rate_spaces_datagrams_and_its_queue_overflows() {
        // 1000 bytes at 8 Mbit/s are 1 ms each; five of them fit the queue.
        let link = Link::latency(MS).rate(8_000_000).queue(5000);
        let (arrivals, dropped) = arrivals(link, 7);
        let whole: Vec<_> = arrivals.iter().map(|at| at.as_nanos() / 1_000_000).collect();
        assert_eq!(whole, [2, 3, 4, 5, 6]);
        assert_eq!(dropped, ["queue full"; 2]);
    }

    #[test]
    fn loss_takes_its_share() {
        let (arrived, dropped) = arrivals(Link::default().loss(0.25), 4000);
        assert_eq!(arrived.len() + dropped.len(), 4000);
        assert!((900..1100).contains(&dropped.len()), "{} of 4000 lost", dropped.len());
    }

    #[test]
    fn jitter_keeps_the_order_and_reordering_does_not() {
        let (jittered, _) = arrivals(Link::default().jitter(10 * MS), 500);
        assert!(jittered.is_sorted());
        assert!(jittered.iter().any(|at| *at > Instant::ZERO + 21 * MS));
        let (reordered, _) = arrivals(Link::default().reorder(0.1), 500);
        assert!(!reordered.is_sorted());
    }
}
