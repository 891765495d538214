//! Peerless on [`async_std`]: one task that drives a [`Node`], and handles and streams for all others.
//!
//! [`spawn`] binds the sockets, makes the node and starts the task that drives it; the [`Handle`] that it returns dials, opens
//! [`Stream`]s, pings, reserves, registers, discovers and shuts down, each as a future that may be dropped at any time. One
//! node echoes, the other asks:
//!
//! ```
//! use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
//! use peerless_async_std::{Config, spawn};
//! use peerless_core::{Multiaddr, identity::Identity, names::ProtocolName, node, rng::Rng};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! const ECHO: ProtocolName = ProtocolName::from_static("/echo/1.0.0");
//! let node = |n: u8| {
//!     let mut config = node::Config::new(Identity::generate(&mut Rng::new([n; 32])));
//!     config.app_protocols = vec![node::AppProtocol { name: ECHO, inbound_per_peer: 16 }];
//!     config
//! };
//! async_std::task::block_on(async {
//!     let server = spawn(node(1), Config { listen: vec!["127.0.0.1:0".parse()?], ..Config::default() })?;
//!     let address: Multiaddr = server.with(|node, _| node.addresses().advertised().remove(0));
//!     let acceptor = server.clone();
//!     async_std::task::spawn(async move {
//!         while let Some(stream) = acceptor.accept().await {
//!             let (reader, mut writer) = futures_lite::io::split(stream);
//!             async_std::task::spawn(async move {
//!                 futures_lite::io::copy(reader, &mut writer).await?;
//!                 writer.close().await
//!             });
//!         }
//!     });
//!
//!     let client = spawn(node(2), Config::default())?;
//!     let connection = client.dial(Some(server.peer()), &[address]).await?;
//!     let mut stream = client.open(connection, &ECHO).await?;
//!     stream.write_all(b"hello").await?;
//!     stream.close().await?;
//!     let mut answer = String::new();
//!     stream.read_to_string(&mut answer).await?;
//!     assert_eq!(answer, "hello");
//!
//!     future::zip(client.shutdown(), server.shutdown()).await;
//!     Ok(())
//! })
//! # }
//! ```
//!
//! # Other executors
//!
//! Sockets and timers are those of `async-io`, which async-std shares with smol and which brings its own thread, so
//! [`build`] gives the driver as a future that any executor can run: `smol::spawn(driver).detach()`, see the example `smol`.
//! To be rid of the dependency on async-std altogether, change the body of the last function of this file to
//! `smol::spawn(driver).detach()`: nothing else names it.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, Weak},
};

use async_channel::bounded;
use peerless_core::{
    ids::SocketId,
    node::{self, Node, Start},
};
use peerless_udp::{Interfaces, Resolver};

mod clock;
mod driver;
mod handle;
mod socket;
mod stream;
mod watch;

use clock::{Clock, unix_now};
use driver::{Driver, Shared, State};
pub use handle::{Failed, Handle, OpenToError, Outcome};
use socket::Socket;
pub use stream::{Stream, StreamInfo};

/// How a node is run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses to bind UDP sockets to. Default: the wildcard addresses of both families with a port of the system's
    /// choice, which is what a node that only dials needs. `[::]` is passed over if it cannot be bound and an address
    /// before it could.
    pub listen: Vec<SocketAddr>,
    /// Size in bytes of the kernel's buffers of each socket, as far as the system allows. Default: 7 MiB.
    pub socket_buffer: usize,
    /// Where all of the node's randomness comes from. Default: `None`, the operating system's.
    pub seed: Option<[u8; 32]>,
    /// Whom to ask for the addresses of hosts, and for the TXT records that `/dnsaddr` addresses are published in. Default:
    /// empty, the name servers in `/etc/resolv.conf`, and the system itself for hosts that those do not know.
    pub name_servers: Vec<SocketAddr>,
    /// How many events may wait to be taken, and how many streams of remotes to be accepted. Default: 1024.
    pub queue: usize,
}

impl Default for Config {
    fn default() -> Self {
        let listen = vec![(Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv6Addr::UNSPECIFIED, 0).into()];
        Self { listen, socket_buffer: 7 << 20, seed: None, name_servers: Vec::new(), queue: 1024 }
    }
}

/// What the runtime holds and has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Streams that a program holds, or that wait to be accepted.
    pub streams: usize,
    /// Futures that wait for an outcome.
    pub waiting: usize,
    /// Events dropped so far because nobody took them in time.
    pub events_missed: u64,
    /// Streams reset so far because nobody accepted them in time.
    pub streams_refused: u64,
    /// Datagrams received so far.
    pub received: u64,
    /// Datagrams handed to the system so far.
    pub sent: u64,
    /// Datagrams that the system would not send: too large for the path, no route, no buffer, not permitted.
    pub send_dropped: u64,
}

/// Binds the sockets, makes the node, and runs it on async-std's executor.
///
/// # Errors
/// As [`build`].
pub fn spawn(node: node::Config, config: Config) -> io::Result<Handle> {
    let (handle, driver) = build_driver(node, config)?;
    run(driver.run());
    Ok(handle)
}

/// As [`spawn`], but the caller runs the driver, on whatever executor. It is done when the node is shut down; if it is
/// dropped before, everything that waits for the node ends with an error.
///
/// # Errors
/// A socket could not be bound, the system has no random numbers, or the node refused its configuration (kind
/// [`io::ErrorKind::InvalidInput`]).
pub fn build(node: node::Config, config: Config) -> io::Result<(Handle, impl Future<Output = ()> + Send)> {
    build_driver(node, config).map(|(handle, driver)| (handle, driver.run()))
}

fn build_driver(mut node: node::Config, config: Config) -> io::Result<(Handle, Driver)> {
    node.resolves_text = true;
    node.knows_routes = true;
    let clock = Clock::start();
    let now = clock.now();
    let mut seed = config.seed.unwrap_or_default();
    if config.seed.is_none() {
        getrandom::fill(&mut seed).map_err(io::Error::other)?;
    }
    let mut node = Node::new(node, Start { now, unix: unix_now(), seed })
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    // Before the sockets are asked for their addresses, so that no change is missed.
    let interfaces = Interfaces::watch();
    let bind = |id, address| Socket::bind(id, address, config.socket_buffer);
    let sockets = peerless_udp::bind_all(&config.listen, bind)?;
    for (index, socket) in sockets.iter().enumerate() {
        node.handle_socket(now, SocketId(index as u32), Some(socket.bound()));
    }
    let (events, on_event) = bounded(config.queue.max(1));
    let (incoming, on_stream) = bounded(config.queue.max(1));
    let (driver, streams, waiting, next_wait, stopping, stats) = Default::default();
    let state = State { node, driver, streams, waiting, next_wait, events, incoming, stopping, stats };
    let name_servers = config.name_servers;
    let shared = Arc::new_cyclic(|shared: &Weak<Shared>| {
        let shared = shared.clone();
        let resolver = Resolver::new(name_servers, move |query, answer| {
            // Nobody asks any more if the node is gone.
            if let Some(shared) = shared.upgrade() {
                shared.command(|state, now| state.answered(now, query, answer));
            }
        });
        let state = Mutex::new(state);
        Shared { state, clock, resolver, events: on_event, incoming: on_stream }
    });
    let driver = Driver::new(Arc::clone(&shared), sockets, interfaces)?;
    Ok((Handle::new(shared), driver))
}

fn run(driver: impl Future<Output = ()> + Send + 'static) {
    async_std::task::spawn(driver);
}

#[cfg(test)]
mod tests;
