//! A whole driver for tokio, and a node that runs on it: what a port to another runtime takes.
//!
//! One task owns the node and its sockets. It waits for whatever comes first, a readable or writable socket, the node's
//! deadline, or a command of another task, and then does what every driver does: feed, send, take events, ask for the
//! deadline.

mod shared;

use std::{
    array,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use peerless_core::{
    event::Event,
    ids::{QueryId, SocketId},
    node::{self, Bound, Datagram, Ecn, Node, Start, Transmit},
    time::Instant,
};
use quinn_udp::{BATCH_SIZE, EcnCodepoint, RecvMeta, UdpSocketState};
use shared::{Clock, Options, app::App};
use tokio::{
    io::Interest,
    net::UdpSocket,
    sync::mpsc::{Receiver, Sender, channel},
    time::{Instant as TokioInstant, sleep_until},
};

/// Room for one received buffer: the most that the kernel joins into one.
const BUFFER: usize = 64 << 10;
/// Batches received in one go before anything else has its turn.
const RECEIVE_BUDGET: usize = 16;
/// How long a shutdown waits for the goodbyes to be sent.
const GRACE: Duration = Duration::from_secs(1);

/// What other tasks may ask for.
type Command = Box<dyn FnOnce(&mut Driver, Instant) + Send>;

struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
}

impl Socket {
    fn bind(address: SocketAddr) -> io::Result<Self> {
        use socket2::{Domain, Protocol, Type};
        let raw = socket2::Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            raw.set_only_v6(true)?;
        }
        raw.set_nonblocking(true)?;
        raw.bind(&address.into())?;
        let io = UdpSocket::from_std(raw.into())?;
        let state = UdpSocketState::new((&io).into())?;
        // As far as the system allows.
        let _ = state.set_recv_buffer_size((&io).into(), 7 << 20);
        let _ = state.set_send_buffer_size((&io).into(), 7 << 20);
        Ok(Self { io, state })
    }

    fn bound(&self) -> io::Result<Bound> {
        let interfaces = if_addrs::get_if_addrs()?;
        let reachable = interfaces.iter().map(if_addrs::Interface::ip).collect();
        Ok(Bound { local: self.io.local_addr()?, reachable })
    }

    /// One batch, segments taken apart; nothing if there is nothing for now.
    fn receive(&self, id: SocketId, buffers: &mut [u8]) -> Vec<Datagram> {
        let mut chunks = buffers.chunks_exact_mut(BUFFER);
        let mut slices: [_; BATCH_SIZE] =
            array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let mut meta = [RecvMeta::default(); BATCH_SIZE];
        let receive = || self.state.recv((&self.io).into(), &mut slices, &mut meta);
        // An error is the end for now, or of an earlier send.
        let batch = self.io.try_io(Interest::READABLE, receive).unwrap_or(0);
        let mut datagrams = Vec::new();
        for (meta, bytes) in meta[..batch].iter().zip(buffers.chunks_exact(BUFFER)) {
            let (socket, remote, local_ip) = (id, meta.addr, meta.dst_ip);
            let ecn = meta.ecn.and_then(|ecn| Ecn::from_bits(ecn as u8));
            let segments = bytes[..meta.len].chunks(meta.stride.max(1));
            datagrams.extend(segments.map(|s| Datagram { socket, remote, local_ip, ecn, data: s.into() }));
        }
        datagrams
    }

    /// Sends what is left of a transmit; returns whether it has to wait for room. What the system refuses is lost, as
    /// any datagram may be.
    fn send(&mut self, transmit: &Transmit, sent: &mut usize, bytes: &[u8]) -> bool {
        while *sent < transmit.size {
            let max_segments = self.state.max_gso_segments();
            let (size, datagrams) = transmit.next_batch(*sent, max_segments);
            let piece = quinn_udp::Transmit {
                destination: transmit.destination,
                ecn: transmit.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8)),
                contents: &bytes[*sent..*sent + size],
                segment_size: transmit.segment_size,
                src_ip: transmit.src_ip,
            };
            let send = || self.state.try_send((&self.io).into(), &piece);
            match self.io.try_io(Interest::WRITABLE, send) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                // Segmentation was the fault: once more without.
                Err(_) if datagrams > 1 && self.state.max_gso_segments() < max_segments => continue,
                Ok(()) | Err(_) => *sent += size,
            }
        }
        false
    }
}

/// The node and what it is driven with.
struct Driver {
    node: Node,
    clock: Clock,
    sockets: Vec<Socket>,
    buffers: Vec<u8>,
    bytes: Vec<u8>,
    pending: Option<(Transmit, usize)>,
    commands: Receiver<Command>,
    commander: Sender<Command>,
    ends: Option<Instant>,
}

/// Why the driver woke up.
enum Woken {
    Readable(usize),
    Writable,
    Deadline,
    Command(Command),
}

impl Driver {
    fn new(node: node::Config, listen: &[SocketAddr], seed: [u8; 32]) -> io::Result<Self> {
        let clock = Clock::start();
        let start = Start { now: clock.now(), unix: Clock::unix(), seed };
        let mut node = Node::new(node, start).map_err(io::Error::other)?;
        let sockets: Vec<_> = listen.iter().map(|at| Socket::bind(*at)).collect::<io::Result<_>>()?;
        for (n, socket) in sockets.iter().enumerate() {
            node.handle_socket(clock.now(), SocketId(n as u32), Some(socket.bound()?));
        }
        let (commander, commands) = channel(256);
        let (buffers, bytes) = (vec![0; BUFFER * BATCH_SIZE], Vec::new());
        Ok(Self { node, clock, sockets, buffers, bytes, pending: None, commands, commander, ends: None })
    }

    /// Drives the node until it is shut down. `on_event` may command it.
    async fn run(&mut self, mut on_event: impl FnMut(&mut Self, Instant, Event)) {
        loop {
            let now = self.clock.now();
            self.node.set_wall_clock(now, Clock::unix());
            self.flush(now);
            while let Some(event) = self.node.poll_event() {
                match event {
                    Event::Resolve { query, name, .. } => self.resolve(query, name),
                    event => on_event(self, now, event),
                }
                self.flush(now);
            }
            let is_idle = self.node.is_idle() && self.pending.is_none();
            if self.ends.is_some_and(|end| end <= now || is_idle) {
                return;
            }
            let deadline =
                self.node.deadline().map(|deadline| deadline.at).into_iter().chain(self.ends).min();
            match self.wait(now, deadline).await {
                Woken::Readable(index) => self.receive(index),
                Woken::Writable => {}
                Woken::Deadline => self.node.handle_timeout(self.clock.now()),
                Woken::Command(command) => command(self, self.clock.now()),
            }
        }
    }

    /// Readable, writable if that is waited for, deadline, or command: whatever comes first. Nothing is lost with those
    /// that did not.
    async fn wait(&mut self, now: Instant, deadline: Option<Instant>) -> Woken {
        let wait = deadline.map(|at| at.saturating_duration_since(now));
        // A far deadline for none: the loop just goes round.
        let until = TokioInstant::now() + wait.unwrap_or(Duration::from_secs(86_400));
        let blocked = self.pending.as_ref().map(|(transmit, _)| transmit.socket.0 as usize);
        let ready = std::future::poll_fn(|cx| {
            let readable = self.sockets.iter().position(|socket| socket.io.poll_recv_ready(cx).is_ready());
            let mut is_writable = |index: usize| self.sockets[index].io.poll_send_ready(cx).is_ready();
            match (readable, blocked) {
                (Some(index), _) => std::task::Poll::Ready(Woken::Readable(index)),
                (None, Some(index)) if is_writable(index) => std::task::Poll::Ready(Woken::Writable),
                _ => std::task::Poll::Pending,
            }
        });
        tokio::select! {
            woken = ready => woken,
            () = sleep_until(until) => Woken::Deadline,
            Some(command) = self.commands.recv() => Woken::Command(command),
        }
    }

    fn receive(&mut self, index: usize) {
        for _ in 0..RECEIVE_BUDGET {
            let batch = self.sockets[index].receive(SocketId(index as u32), &mut self.buffers);
            if batch.is_empty() {
                break;
            }
            self.node.handle_datagrams(self.clock.now(), batch);
        }
        let now = self.clock.now();
        if self.node.deadline().is_some_and(|deadline| deadline.is_due(now)) {
            self.node.handle_timeout(now);
        }
    }

    /// Sends until the node has nothing more to send or a socket is full.
    fn flush(&mut self, now: Instant) {
        let most = self.sockets.iter().map(|socket| socket.state.max_gso_segments()).max().unwrap_or(1);
        let mut next = |bytes: &mut Vec<u8>| Some((self.node.poll_transmit(now, most, bytes)?, 0));
        while let Some((transmit, mut sent)) = self.pending.take().or_else(|| next(&mut self.bytes)) {
            let socket = &mut self.sockets[transmit.socket.0 as usize];
            if socket.send(&transmit, &mut sent, &self.bytes) {
                self.pending = Some((transmit, sent));
                return;
            }
        }
    }

    /// Asks the system where blocking is allowed; the answer is a command.
    fn resolve(&self, query: QueryId, name: String) {
        let commander = self.commander.clone();
        tokio::spawn(async move {
            let found = tokio::net::lookup_host((name, 0)).await;
            let found = found.map(|found| found.map(|at| at.ip()).collect::<Vec<IpAddr>>());
            let found = found.map_err(|error| error.to_string());
            let answer: Command = Box::new(move |driver, now| driver.node.handle_resolved(now, query, found));
            // Nobody asks any more if the driver is gone.
            let _ = commander.send(answer).await;
        });
    }

    fn shutdown(&mut self, now: Instant) {
        if self.ends.is_none() {
            self.ends = Some(now + GRACE);
            self.node.shutdown(now);
        }
    }
}

#[tokio::main]
async fn main() -> io::Result<ExitCode> {
    let options = Options::from_args();
    let mut driver = Driver::new(options.node(), &options.listen, options.seed)?;
    let commander = driver.commander.clone();
    shared::on_signal(move || _ = commander.blocking_send(Box::new(|driver, now| driver.shutdown(now))));
    let mut app = App::new(&options);
    app.start(&mut driver.node, driver.clock.now());
    let on_event = |driver: &mut Driver, now, event| {
        app.on_event(&mut driver.node, now, &event);
        if app.is_over() {
            driver.shutdown(now);
        }
    };
    driver.run(on_event).await;
    Ok(app.exit(&driver.node))
}
