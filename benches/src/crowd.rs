//! Many nodes in one thread, each with an identity and a socket of its own.

use std::{
    array,
    collections::{BTreeSet, VecDeque},
    io::{self, IoSliceMut},
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant as StdInstant, SystemTime, UNIX_EPOCH},
};

use bytes::BytesMut;
use mio::{Events, Interest, Poll, Token, net::UdpSocket};
use peerless_core::{
    Multiaddr,
    identity::Identity,
    ids::SocketId,
    names::ProtocolName,
    node::{AppProtocol, Bound, Config, Datagram, Ecn, Event, Node, Start, Transmit},
    rng::Rng,
    swarm::SwarmConfig,
    time::{Instant, UnixTime},
};
use quinn_udp::{BATCH_SIZE, EcnCodepoint, RecvMeta, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};

/// Room for one received buffer: the most that the kernel joins into one.
const BUFFER: usize = 64 << 10;
/// Of the kernel's, for each socket, as far as it allows.
const SOCKET_BUFFER: usize = 7 << 20;
/// Most segments of one send: 1452 bytes each have to fit into 64 KiB.
const MAX_SEGMENTS: usize = 44;
const SOCKET: SocketId = SocketId(0);

/// A node, its socket, and what it waits for.
struct Member {
    node: Node,
    io: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    due: Option<Instant>,
    /// A batch that the kernel had no room for, how much of it was sent, and its bytes.
    blocked: Option<(Transmit, usize, Vec<u8>)>,
    is_touched: bool,
    is_readable: bool,
}

/// Nodes that take turns. They are known by their numbers.
pub struct Crowd {
    poll: Poll,
    ready: Events,
    members: Vec<Member>,
    timers: BTreeSet<(Instant, usize)>,
    origin: StdInstant,
    rng: Rng,
    buffers: Vec<u8>,
    out: Vec<u8>,
    touched: VecDeque<usize>,
    readable: VecDeque<usize>,
    events: VecDeque<(usize, Event)>,
}

impl Crowd {
    /// Nobody yet.
    ///
    /// # Errors
    /// The system has no event queue or no random numbers.
    pub fn new() -> io::Result<Self> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(io::Error::other)?;
        Ok(Self {
            poll: Poll::new()?,
            ready: Events::with_capacity(1024),
            members: Vec::new(),
            timers: BTreeSet::new(),
            origin: StdInstant::now(),
            rng: Rng::new(seed),
            buffers: vec![0; BUFFER * BATCH_SIZE],
            out: Vec::new(),
            touched: VecDeque::new(),
            readable: VecDeque::new(),
            events: VecDeque::new(),
        })
    }

    /// A new identity.
    pub fn identity(&mut self) -> Identity {
        Identity::generate(&mut Rng::new(self.rng.bytes()))
    }

    /// Adds a node with a new identity on a loopback socket. It serves these protocols, with so many streams per peer.
    ///
    /// # Errors
    /// No socket, or no certificate.
    pub fn add(&mut self, protocols: &[ProtocolName], inbound_per_peer: usize) -> io::Result<usize> {
        let identity = self.identity();
        self.add_as(identity, protocols, inbound_per_peer)
    }

    /// The same, with this identity.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn add_as(
        &mut self,
        identity: Identity,
        protocols: &[ProtocolName],
        inbound_per_peer: usize,
    ) -> io::Result<usize> {
        let mut config = Config::new(identity);
        config.swarm = SwarmConfig::unlimited();
        let protocol = |name: &ProtocolName| AppProtocol { name: name.clone(), inbound_per_peer };
        config.app_protocols = protocols.iter().map(protocol).collect();
        config.accept_inbound = inbound_per_peer > 0;
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = self.now();
        let start = Start { now, unix: UnixTime::from_duration(unix), seed: self.rng.bytes() };
        let mut node = Node::new(config, start).map_err(io::Error::other)?;

        let raw = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        raw.set_nonblocking(true)?;
        raw.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        let mut io = UdpSocket::from_std(raw.into());
        let state = UdpSocketState::new((&io).into())?;
        // As far as the system allows.
        let _ = state.set_recv_buffer_size((&io).into(), SOCKET_BUFFER);
        let _ = state.set_send_buffer_size((&io).into(), SOCKET_BUFFER);
        let index = self.members.len();
        self.poll.registry().register(&mut io, Token(index), Interest::READABLE | Interest::WRITABLE)?;
        let local = io.local_addr()?;
        node.handle_socket(now, SOCKET, Some(Bound { local, reachable: Vec::new() }));
        self.members.push(Member {
            node,
            io,
            state,
            local,
            due: None,
            blocked: None,
            is_touched: false,
            is_readable: false,
        });
        self.touch(index);
        Ok(index)
    }

    /// The time, since the crowd was made.
    pub fn now(&self) -> Instant {
        Instant::ZERO + self.origin.elapsed()
    }

    /// The direct address of a node, with its `/p2p`.
    pub fn address(&self, index: usize) -> Multiaddr {
        let Member { local, node, .. } = &self.members[index];
        format!("/ip4/{}/udp/{}/quic-v1/p2p/{}", local.ip(), local.port(), node.local_peer())
            .parse()
            .expect("this is how addresses are written")
    }

    /// A node, to command. What it does in consequence happens in [`next`](Self::next).
    pub fn node(&mut self, index: usize) -> (&mut Node, Instant) {
        let now = self.now();
        self.touch(index);
        (&mut self.members[index].node, now)
    }

    /// The next event of anybody; `None` at `until`.
    ///
    /// # Errors
    /// The system's event queue failed.
    pub fn next(&mut self, until: Instant) -> io::Result<Option<(usize, Event)>> {
        loop {
            while let Some(index) = self.touched.pop_front() {
                self.settle(index);
            }
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            let now = self.now();
            if now >= until {
                return Ok(None);
            }
            self.wait(now, until)?;
            for _ in 0..self.readable.len() {
                let Some(index) = self.readable.pop_front() else { break };
                self.receive(index);
            }
            self.time_out();
        }
    }

    fn touch(&mut self, index: usize) {
        if !std::mem::replace(&mut self.members[index].is_touched, true) {
            self.touched.push_back(index);
        }
    }

    /// Sends what a node has to send and takes its events.
    fn settle(&mut self, index: usize) {
        let now = self.now();
        let member = &mut self.members[index];
        member.is_touched = false;
        member.flush(now, &mut self.out);
        let before = self.events.len();
        while let Some(event) = member.node.poll_event() {
            self.events.push_back((index, event));
        }
        if self.events.len() > before {
            member.flush(now, &mut self.out);
        }
        let due = member.node.deadline().map(|deadline| deadline.at);
        if due != member.due {
            if let Some(old) = std::mem::replace(&mut member.due, due) {
                self.timers.remove(&(old, index));
            }
            self.timers.extend(due.map(|at| (at, index)));
        }
    }

    fn wait(&mut self, now: Instant, until: Instant) -> io::Result<()> {
        let first = self.timers.first().map_or(until, |(at, _)| until.min(*at));
        let wait =
            if self.readable.is_empty() { first.saturating_duration_since(now) } else { Duration::ZERO };
        match self.poll.poll(&mut self.ready, Some(wait)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.ready.clear(),
            result => result?,
        }
        for event in &self.ready {
            let Token(index) = event.token();
            let member = &mut self.members[index];
            if (event.is_readable() || event.is_error()) && !std::mem::replace(&mut member.is_readable, true)
            {
                self.readable.push_back(index);
            }
            if member.blocked.is_some() && !std::mem::replace(&mut member.is_touched, true) {
                self.touched.push_back(index);
            }
        }
        Ok(())
    }

    /// One batch for one node, which comes to the end of the line if there may be more.
    fn receive(&mut self, index: usize) {
        let now = self.now();
        let member = &mut self.members[index];
        let mut chunks = self.buffers.chunks_exact_mut(BUFFER);
        let mut slices: [_; BATCH_SIZE] =
            array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let mut meta = [RecvMeta::default(); BATCH_SIZE];
        let Member { io, state, .. } = member;
        let Ok(batch) = io.try_io(|| state.recv((&*io).into(), &mut slices, &mut meta)) else {
            member.is_readable = false;
            return;
        };
        let received = meta[..batch].iter().zip(self.buffers.chunks_exact(BUFFER));
        let datagrams = received.flat_map(|(meta, bytes)| {
            let ecn = meta.ecn.and_then(|ecn| Ecn::from_bits(ecn as u8));
            let segments = bytes[..meta.len].chunks(meta.stride.max(1));
            segments.map(move |segment| Datagram {
                socket: SOCKET,
                remote: meta.addr,
                local_ip: meta.dst_ip,
                ecn,
                data: BytesMut::from(segment),
            })
        });
        member.node.handle_datagrams(now, datagrams);
        self.readable.push_back(index);
        self.touch(index);
    }

    fn time_out(&mut self) {
        let now = self.now();
        while let Some((at, index)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, index));
            self.members[index].due = None;
            self.members[index].node.handle_timeout(now);
            self.touch(index);
        }
    }
}

impl Member {
    /// Sends until there is nothing more or no room. What the system refuses is lost, as any datagram may be.
    fn flush(&mut self, now: Instant, out: &mut Vec<u8>) {
        if let Some((transmit, mut sent, bytes)) = self.blocked.take()
            && !self.send(&transmit, &mut sent, &bytes)
        {
            self.blocked = Some((transmit, sent, bytes));
            return;
        }
        let segments = self.state.max_gso_segments().min(MAX_SEGMENTS);
        while let Some(transmit) = self.node.poll_transmit(now, segments, out) {
            let mut sent = 0;
            if !self.send(&transmit, &mut sent, out) {
                self.blocked = Some((transmit, sent, std::mem::take(out)));
                return;
            }
        }
    }

    /// Whether all of it could be sent.
    fn send(&self, transmit: &Transmit, sent: &mut usize, bytes: &[u8]) -> bool {
        while *sent < transmit.size {
            let (size, _) = transmit.next_batch(*sent, self.state.max_gso_segments());
            let piece = quinn_udp::Transmit {
                destination: transmit.destination,
                ecn: transmit.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8)),
                contents: &bytes[*sent..*sent + size],
                segment_size: transmit.segment_size,
                src_ip: transmit.src_ip,
            };
            match self.io.try_io(|| self.state.try_send((&self.io).into(), &piece)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Ok(()) | Err(_) => *sent += size,
            }
        }
        true
    }
}
