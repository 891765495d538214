//! Peerless on a blocking event loop: UDP sockets, a clock, a resolver and a command queue around one
//! [`Node`], on [`mio`].
//!
//! A [`Runtime`] belongs to one thread. That thread calls [`Runtime::turn`], which waits for whatever comes first (a
//! datagram, a deadline of the node, a command of another thread), feeds it to the node and sends what the node wants
//! sent; and then takes the events. [`Runtime::run`] does both in a loop. Other threads reach the node through a
//! [`Handle`].
//!
//! A program that would rather call and wait than have a loop uses [`blocking`]: a node on a thread of its own, and streams
//! that are `Read` and `Write`, with timeouts.
//!
//! Two nodes, one of which pings the other:
//!
//! ```
//! use std::{thread, time::Duration};
//!
//! use peerless_core::{Multiaddr, identity::Identity, node::{self, Event}, rng::Rng};
//! use peerless_mio::{Runtime, RuntimeConfig};
//!
//! # fn main() -> std::io::Result<()> {
//! let identity = |n| Identity::generate(&mut Rng::new([n; 32]));
//!
//! let config = RuntimeConfig { listen: vec!["127.0.0.1:0".parse().unwrap()], ..Default::default() };
//! let mut server = Runtime::new(node::Config::new(identity(1)), config)?;
//! let address: Multiaddr = format!(
//!     "/ip4/127.0.0.1/udp/{}/quic-v1/p2p/{}",
//!     server.local_addrs()[0].port(),
//!     server.node().local_peer(),
//! )
//! .parse()
//! .unwrap();
//! let handle = server.handle();
//! let thread = thread::spawn(move || server.run(|_runtime, event| println!("server: {event:?}")));
//!
//! let mut client = Runtime::new(node::Config::new(identity(2)), RuntimeConfig::default())?;
//! let (node, now) = client.node_mut();
//! node.dial(now, None, &[address]);
//! client.run(|runtime, event| match event {
//!     Event::Connected { connection, .. } => {
//!         let (node, now) = runtime.node_mut();
//!         node.ping(now, connection).expect("the connection is there");
//!     }
//!     Event::Ping(ping) => {
//!         println!("round trip: {:?}", ping.result.expect("the server answers"));
//!         runtime.shutdown();
//!     }
//!     Event::DialFailed { error, .. } => panic!("{error}"),
//!     _ => {}
//! })?;
//!
//! handle.shutdown();
//! thread.join().unwrap()
//! # }
//! ```

use std::{
    fmt, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
    time::Duration,
};

#[cfg(unix)]
use std::os::fd::{AsRawFd, RawFd};

use mio::{Events, Poll, Token, Waker};
use peerless_core::{
    ids::{QueryId, SocketId},
    node::{self, Datagram, Event, Node, Start},
    time::Instant,
};
use peerless_udp::{Answer, Pending, ReceiveBuffers, Resolver};

pub mod blocking;
mod clock;
mod handle;
mod socket;
mod turn;
mod watch;

use clock::Clock;
pub use clock::unix_now;
use handle::Command;
pub use handle::{Handle, HandleError};
use socket::Socket;

/// The token of the waker; the sockets have their indices.
const WAKER: Token = Token(usize::MAX);
/// The token of what tells that the interfaces have changed.
const INTERFACES: Token = Token(usize::MAX - 1);

/// How a [`Runtime`] is set up.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// Addresses to bind UDP sockets to. Empty binds the wildcard address of both families with a port of the
    /// system's choice, which is what a node that only dials needs. On a machine without IPv6 `[::]` is passed over if
    /// another address stands before it.
    pub listen: Vec<SocketAddr>,
    /// Size in bytes of the kernel's buffers of each socket, as far as the system allows. Default: 7 MiB.
    pub socket_buffer: usize,
    /// Where all of the node's randomness comes from. Default: `None`, the operating system's.
    pub seed: Option<[u8; 32]>,
    /// Whom to ask for the addresses of hosts, and for the TXT records that `/dnsaddr` addresses are published in. Default:
    /// empty, the name servers in `/etc/resolv.conf`, and the system itself for hosts that those do not know.
    pub name_servers: Vec<SocketAddr>,
    /// How many commands of [`Handle`]s may wait. Default: 256.
    pub command_queue: usize,
    /// How long a shutdown waits for close frames to be sent. Default: 1 s.
    pub shutdown_grace: Duration,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            socket_buffer: 7 << 20,
            seed: None,
            name_servers: Vec::new(),
            command_queue: 256,
            shutdown_grace: Duration::from_secs(1),
        }
    }
}

/// What passed through the sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IoStats {
    /// Datagrams received, empty ones included.
    pub received: u64,
    /// Datagrams handed to the system.
    pub sent: u64,
    /// Datagrams that the system would not send: too large for the path, no route, no buffer, not permitted.
    pub send_dropped: u64,
    /// Times a socket's send buffer was full, so that sending waited.
    pub send_blocked: u64,
}

/// A node with its sockets, clock, resolver and command queue.
pub struct Runtime {
    node: Node,
    clock: Clock,
    poll: Poll,
    ready: Events,
    sockets: Vec<Socket>,
    receive_buffers: ReceiveBuffers,
    /// One batch on its way to the node; kept for its capacity.
    received: Vec<Datagram>,
    transmit: Vec<u8>,
    pending: Option<Pending>,
    blocked_on: Option<usize>,
    interfaces: watch::Watch,
    resolver: Resolver,
    answers: Receiver<(QueryId, Answer)>,
    handle: Handle,
    commands: Receiver<Command>,
    more_commands: bool,
    event: Option<Event>,
    grace: Duration,
    stopping: Option<Instant>,
    stopped: bool,
    stats: IoStats,
}

impl Runtime {
    /// Binds the sockets and makes the node.
    ///
    /// # Errors
    /// A socket could not be bound, the system has no random numbers or no event queue, or the node refused its
    /// configuration (kind [`io::ErrorKind::InvalidInput`]).
    pub fn new(mut config: node::Config, runtime: RuntimeConfig) -> io::Result<Self> {
        config.resolves_text = true;
        config.knows_routes = true;
        let clock = Clock::start();
        let now = clock.now();
        let mut seed = runtime.seed.unwrap_or_default();
        if runtime.seed.is_none() {
            getrandom::fill(&mut seed).map_err(io::Error::other)?;
        }
        let mut node = Node::new(config, Start { now, unix: clock.unix(now), seed })
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let (handle, commands) = Handle::new(Arc::clone(&waker), runtime.command_queue);
        let (answer, answers) = channel();
        let resolver = Resolver::new(runtime.name_servers.clone(), move |query, found| {
            // Nobody asks any more if the runtime is gone.
            let _ = answer.send((query, found));
            let _ = waker.wake();
        });
        // Before the sockets are asked for their addresses, so that no change is missed.
        let interfaces = watch::Watch::start(poll.registry())?;
        let mut sockets = bind_all(&runtime)?;
        for (index, socket) in sockets.iter_mut().enumerate() {
            socket.register(poll.registry(), Token(index))?;
            node.handle_socket(now, SocketId(index as u32), Some(socket.bound()));
        }
        Ok(Self {
            node,
            clock,
            poll,
            ready: Events::with_capacity(64),
            sockets,
            receive_buffers: ReceiveBuffers::default(),
            received: Vec::new(),
            transmit: Vec::new(),
            pending: None,
            blocked_on: None,
            interfaces,
            resolver,
            answers,
            handle,
            commands,
            more_commands: false,
            event: None,
            grace: runtime.shutdown_grace,
            stopping: None,
            stopped: false,
            stats: IoStats::default(),
        })
    }

    /// The node, to look at.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The node, to command, with the time that its commands want. What it does in consequence happens in the next
    /// [`turn`](Self::turn).
    pub fn node_mut(&mut self) -> (&mut Node, Instant) {
        (&mut self.node, self.clock.now())
    }

    /// The time on the runtime's clock, which starts at zero with the runtime.
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// A way to this runtime from other threads.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The addresses that the sockets are bound to.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(Socket::local).collect()
    }

    /// Bytes of the smallest buffers that the system gives a socket to receive and to send: less than
    /// [`RuntimeConfig::socket_buffer`] where the system has a cap below it.
    pub fn socket_buffers(&self) -> (usize, usize) {
        let smallest = |(a, b): (usize, usize), (c, d): (usize, usize)| (a.min(c), b.min(d));
        self.sockets.iter().map(Socket::buffers).reduce(smallest).unwrap_or_default()
    }

    /// What passed through the sockets so far.
    pub fn stats(&self) -> IoStats {
        self.stats
    }

    /// The next event; take all of them after each [`turn`](Self::turn). [`Event::Resolve`],
    /// [`Event::ResolveText`] and [`Event::Route`] never come out: the runtime answers them.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.event.take().or_else(|| self.next_event())
    }

    /// Turns, and hands events to `on_event`, until a shutdown is complete.
    ///
    /// # Errors
    /// As [`turn`](Self::turn).
    pub fn run(&mut self, mut on_event: impl FnMut(&mut Self, Event)) -> io::Result<()> {
        loop {
            while let Some(event) = self.poll_event() {
                on_event(self, event);
            }
            if self.stopped {
                return Ok(());
            }
            self.turn(None)?;
        }
    }

    /// Begins a graceful shutdown: connections are closed, and the turns that follow tell the peers.
    pub fn shutdown(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        let now = self.clock.now();
        let relayed = self.node.connections().iter().filter(|info| info.relayed.is_some());
        for connection in relayed.map(|info| info.id).collect::<Vec<_>>() {
            self.node.close(now, connection);
        }
        // The goodbyes in circuits have to be on their way before the connections that carry them are closed.
        if let Err(error) = self.flush() {
            tracing::debug!(%error, "no goodbyes in circuits");
        }
        self.node.shutdown(now);
        self.stopping = Some(now + self.grace);
    }

    /// Whether a shutdown has begun.
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// Whether a shutdown is complete: nothing is left to be sent, or
    /// [`RuntimeConfig::shutdown_grace`] is over.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }
}

/// For loops of your own: readable when there is something to do. Wait for that no longer than [`Runtime::wait`] says, and
/// then call [`Runtime::turn`] with a wait of zero. See the example `embedded_loop`.
#[cfg(unix)]
impl AsRawFd for Runtime {
    fn as_raw_fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sockets, stats, .. } = self;
        f.debug_struct("Runtime").field("sockets", sockets).field("stats", stats).finish_non_exhaustive()
    }
}

fn bind_all(config: &RuntimeConfig) -> io::Result<Vec<Socket>> {
    let wildcards = [(Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv6Addr::UNSPECIFIED, 0).into()];
    let listen = if config.listen.is_empty() { &wildcards[..] } else { &config.listen };
    peerless_udp::bind_all(listen, |id, address| Socket::bind(id, address, config.socket_buffer))
}

#[cfg(test)]
mod tests;
