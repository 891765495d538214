//! The least that carries datagrams between pipes: virtual time, one delay, a hash of all that passes.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use peerless_core::{
    PeerId,
    errors::CloseReason,
    identity::Identity,
    ids::{QuicId, SocketId},
    quic::{
        Config, Datagram, Everybody, Quic, QuicCrypto, QuicEvent, Read, ReadError, StreamNote, TlsCrypto,
        Transmit, WriteError,
    },
    rng::Rng,
    time::{Instant, UnixTime},
    tls::WallClock,
};
use peerless_tests::plain::PlainCrypto;

/// One way.
const DELAY: Duration = Duration::from_millis(10);

/// 2026-01-01.
const UNIX_NOW: UnixTime = UnixTime::from_secs(1_767_225_600);

const SEGMENTS: usize = 64;

/// Which handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crypto {
    Plain,
    Tls,
}

impl Crypto {
    fn of(self, identity: &Identity) -> Arc<dyn QuicCrypto> {
        match self {
            Self::Plain => Arc::new(PlainCrypto::new(identity.peer())),
            Self::Tls => {
                Arc::new(TlsCrypto::new(identity.keypair(), WallClock::new(UNIX_NOW)).expect("a certificate"))
            }
        }
    }
}

pub(crate) type Stream = (QuicId, u64);

/// A pipe and the simplest application: it writes what is in the outbox, and reads all there is while `reads`.
pub(crate) struct Host {
    pub(crate) quic: Quic,
    pub(crate) peer: PeerId,
    pub(crate) sockets: BTreeMap<SocketId, SocketAddr>,
    pub(crate) reads: bool,
    pub(crate) connected: Vec<(QuicId, PeerId)>,
    pub(crate) closed: Vec<(QuicId, CloseReason, bool)>,
    pub(crate) moved: Vec<SocketAddr>,
    pub(crate) notes: Vec<(u64, StreamNote)>,
    pub(crate) outbox: BTreeMap<Stream, Bytes>,
    pub(crate) inbox: BTreeMap<Stream, Vec<u8>>,
    pub(crate) ended: Vec<(Stream, Result<(), ReadError>)>,
    pub(crate) streams_available: usize,
}

impl Host {
    /// Where to dial it.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.sockets[&SOCKET]
    }

    pub(crate) fn bind(&mut self, now: Instant, socket: SocketId, local: SocketAddr) {
        self.sockets.insert(socket, local);
        self.quic.handle_socket(now, socket, Some(local));
    }

    pub(crate) fn unbind(&mut self, now: Instant, socket: SocketId) {
        self.sockets.remove(&socket);
        self.quic.handle_socket(now, socket, None);
    }

    pub(crate) fn open(&mut self, now: Instant, id: QuicId, data: Bytes) -> Stream {
        let stream = (id, self.quic.open(now, id).expect("streams are granted"));
        self.outbox.insert(stream, data);
        self.write(now, stream);
        stream
    }

    /// Answers on a stream the other side opened.
    pub(crate) fn answer(&mut self, now: Instant, stream: Stream, data: Bytes) {
        self.outbox.insert(stream, data);
        self.write(now, stream);
    }

    pub(crate) fn read_all(&mut self, now: Instant) {
        self.reads = true;
        let streams: Vec<Stream> = self.inbox.keys().copied().collect();
        for stream in streams {
            self.read(now, stream);
        }
    }

    /// How many bytes have come.
    pub(crate) fn received(&self) -> usize {
        self.inbox.values().map(Vec::len).sum()
    }

    fn write(&mut self, now: Instant, stream: Stream) {
        let Some(data) = self.outbox.get_mut(&stream) else { return };
        match self.quic.write(now, stream.0, stream.1, data) {
            Ok(_) | Err(WriteError::Blocked) => {}
            Err(_) => data.clear(),
        }
        if data.is_empty() {
            self.outbox.remove(&stream);
            let _ = self.quic.finish(now, stream.0, stream.1);
        }
    }

    fn read(&mut self, now: Instant, stream: Stream) {
        loop {
            match self.quic.read(now, stream.0, stream.1, 64 * 1024) {
                Ok(Read::Data(data)) => self.inbox.entry(stream).or_default().extend_from_slice(&data),
                Ok(Read::Blocked) => return,
                Ok(Read::Finished) => return self.ended.push((stream, Ok(()))),
                Err(ReadError::Gone) => return,
                Err(error) => return self.ended.push((stream, Err(error))),
            }
        }
    }

    fn on_event(&mut self, now: Instant, event: QuicEvent) {
        match event {
            QuicEvent::Connected { id, peer, .. } => self.connected.push((id, peer)),
            QuicEvent::Closed { id, reason, was_connected, .. } => {
                self.closed.push((id, reason, was_connected));
            }
            QuicEvent::PathChanged { remote, .. } => self.moved.push(remote),
            QuicEvent::StreamsAvailable { .. } => self.streams_available += 1,
            QuicEvent::Stream { id, stream, event } => {
                self.notes.push((stream, event));
                match event {
                    StreamNote::Opened | StreamNote::Readable => {
                        self.inbox.entry((id, stream)).or_default();
                        if self.reads {
                            self.read(now, (id, stream));
                        }
                    }
                    StreamNote::Writable => self.write(now, (id, stream)),
                    StreamNote::Finished | StreamNote::Stopped(_) => {}
                }
            }
        }
    }
}

pub(crate) struct Net {
    pub(crate) now: Instant,
    pub(crate) hosts: Vec<Host>,
    /// Nothing arrives.
    pub(crate) cut: bool,
    /// Every host is woken at every step, due or not.
    pub(crate) spurious: bool,
    /// One bit of every so many datagrams is flipped; zero is none.
    pub(crate) damage_every: u64,
    /// The largest batch anybody sent, in bytes.
    pub(crate) largest_batch: usize,
    /// Hash of all that was sent: when, where to, what.
    pub(crate) wire: u64,
    sent: u64,
    in_flight: VecDeque<Flying>,
}

struct Flying {
    arrives: Instant,
    destination: SocketAddr,
    datagram: Datagram,
}

pub(crate) const SOCKET: SocketId = SocketId(0);

impl Net {
    /// Hosts 10.0.0.1, 10.0.0.2, ..., one for each configuration.
    pub(crate) fn new(crypto: Crypto, configs: &[Config]) -> Self {
        Self::seeded(7, crypto, configs)
    }

    pub(crate) fn seeded(seed: u8, crypto: Crypto, configs: &[Config]) -> Self {
        let now = Instant::ZERO;
        let host = |(index, config): (usize, &Config)| {
            let rng = Rng::new([seed; 32]).fork(&format!("host {index}"));
            let identity = Identity::generate(&mut rng.fork("identity"));
            let addr = SocketAddr::from(([10, 0, 0, index as u8 + 1], 4001));
            let (reset_key, rng) = (rng.fork("reset key").bytes(), rng.fork("quic"));
            let mut quic = Quic::new(config.clone(), crypto.of(&identity), &rng, reset_key, true, now);
            quic.handle_socket(now, SOCKET, Some(addr));
            Host {
                quic,
                peer: identity.peer(),
                sockets: BTreeMap::from([(SOCKET, addr)]),
                reads: true,
                connected: Vec::new(),
                closed: Vec::new(),
                moved: Vec::new(),
                notes: Vec::new(),
                outbox: BTreeMap::new(),
                inbox: BTreeMap::new(),
                ended: Vec::new(),
                streams_available: 0,
            }
        };
        Self {
            now,
            hosts: configs.iter().enumerate().map(host).collect(),
            cut: false,
            spurious: false,
            damage_every: 0,
            sent: 0,
            largest_batch: 0,
            wire: 0xcbf2_9ce4_8422_2325,
            in_flight: VecDeque::new(),
        }
    }

    /// Host 0 and host 1, connected.
    pub(crate) fn connected(crypto: Crypto, config: &Config) -> (Self, QuicId, QuicId) {
        let mut net = Self::new(crypto, &[config.clone(), config.clone()]);
        let (a, b) = net.connect(0, 1);
        (net, a, b)
    }

    /// Dials `to` from `from`, naming it, and waits.
    pub(crate) fn connect(&mut self, from: usize, to: usize) -> (QuicId, QuicId) {
        let (addr, peer) = (self.hosts[to].addr(), self.hosts[to].peer);
        let id = self.hosts[from].quic.connect(self.now, addr, Some(peer)).expect("a socket");
        let before = self.hosts[to].connected.len();
        self.run(|net| {
            net.hosts[from].connected.iter().any(|(c, _)| *c == id) && net.hosts[to].connected.len() > before
        });
        assert!(self.hosts[from].connected.contains(&(id, peer)));
        let (other, dialer) = *self.hosts[to].connected.last().expect("the other side is connected too");
        assert_eq!(dialer, self.hosts[from].peer);
        (id, other)
    }

    /// Steps until `done`, for an hour at most.
    pub(crate) fn run(&mut self, mut done: impl FnMut(&Self) -> bool) {
        let limit = self.now + Duration::from_secs(3600);
        loop {
            self.turns();
            if done(self) {
                return;
            }
            assert!(self.step() && self.now < limit, "nothing more happens at {}", self.now);
        }
    }

    /// Steps until so much time has passed, or nothing is left to happen.
    pub(crate) fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            self.turns();
            let next = self.next();
            if next.is_none_or(|next| next > end) || !self.step() {
                break;
            }
        }
        self.now = end;
    }

    /// Steps until nothing is left to happen: no connection, no timer.
    pub(crate) fn run_out(&mut self) {
        self.run_for(Duration::from_secs(600));
        for host in &mut self.hosts {
            assert!(host.quic.is_empty(), "{:?}", host.quic.stats());
            assert_eq!(host.quic.deadline(), None);
            let stats = host.quic.stats();
            assert_eq!((stats.connected, stats.dialing, stats.half_open, stats.closing), (0, 0, 0, 0));
        }
        assert_eq!(self.in_flight.len(), 0);
    }

    /// Delivers a datagram from anywhere, at once.
    pub(crate) fn inject(&mut self, to: usize, remote: SocketAddr, data: &[u8]) {
        let now = self.now;
        let data = BytesMut::from(data);
        self.hosts[to].quic.handle_datagram(
            now,
            Datagram { socket: SOCKET, remote, local_ip: None, ecn: None, data },
            &mut Everybody,
        );
    }

    /// Takes all that is under way off the wire.
    pub(crate) fn take_in_flight(&mut self) -> Vec<Datagram> {
        self.in_flight.drain(..).map(|flying| flying.datagram).collect()
    }

    /// Every host takes its events and sends what it has.
    pub(crate) fn turns(&mut self) {
        let mut buf = Vec::new();
        for index in 0..self.hosts.len() {
            let (now, mut host) = (self.now, &mut self.hosts[index]);
            loop {
                while let Some(event) = host.quic.poll_event() {
                    host.on_event(now, event);
                }
                let Some(transmit) = host.quic.poll_transmit(now, SEGMENTS, &mut buf) else { break };
                let from = host.sockets[&transmit.socket];
                self.send(from, &transmit, &buf);
                host = &mut self.hosts[index];
            }
        }
    }

    fn send(&mut self, from: SocketAddr, transmit: &Transmit, buf: &[u8]) {
        assert_eq!(transmit.size, buf.len());
        self.largest_batch = self.largest_batch.max(transmit.size);
        for data in buf.chunks(transmit.segment_size.unwrap_or(transmit.size)) {
            self.hash(format!("{} {}", self.now, transmit.destination).as_bytes());
            self.hash(data);
            let mut data = BytesMut::from(data);
            self.sent += 1;
            if self.damage_every != 0 && self.sent.is_multiple_of(self.damage_every) {
                let at = self.sent as usize * 31 % data.len();
                data[at] ^= 1 << (self.sent % 8);
            }
            let datagram = Datagram { socket: SOCKET, remote: from, local_ip: None, ecn: transmit.ecn, data };
            let arrives = self.now + DELAY;
            self.in_flight.push_back(Flying { arrives, destination: transmit.destination, datagram });
        }
    }

    fn hash(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.wire = (self.wire ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    /// When something happens next.
    fn next(&mut self) -> Option<Instant> {
        let arrival = self.in_flight.front().map(|flying| flying.arrives);
        let timers =
            self.hosts.iter_mut().filter_map(|host| host.quic.deadline()).map(|deadline| deadline.at);
        timers.chain(arrival).min()
    }

    /// Goes to where something happens next, and lets it; whether there was anything.
    pub(crate) fn step(&mut self) -> bool {
        if self.spurious {
            let now = self.now;
            self.hosts.iter_mut().for_each(|host| host.quic.handle_timeout(now));
            self.turns();
        }
        let Some(next) = self.next() else { return false };
        assert!(next >= self.now, "a deadline stays in the past: {next}");
        self.now = next;
        while self.in_flight.front().is_some_and(|flying| flying.arrives <= next) {
            let Some(Flying { destination, datagram, .. }) = self.in_flight.pop_front() else { break };
            for host in self.hosts.iter_mut().filter(|_| !self.cut) {
                if let Some((socket, _)) = host.sockets.iter().find(|(_, local)| **local == destination) {
                    host.quic.handle_datagram(
                        next,
                        Datagram { socket: *socket, ..datagram.clone() },
                        &mut Everybody,
                    );
                }
            }
        }
        for host in &mut self.hosts {
            if host.quic.deadline().is_some_and(|deadline| deadline.is_due(next)) {
                host.quic.handle_timeout(next);
            }
        }
        true
    }
}
