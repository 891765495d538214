//! libp2p without the I/O: pure state machines that consume bytes, timers and commands and emit actions.
//!
//! A [`Node`](node::Node) owns all of them: QUIC with libp2p TLS, stream negotiation, ping, identify, circuit relay v2 as
//! relay, client and target, and the upgrade of circuits with TLS or Noise and yamux. It has no sockets, no clock, no
//! threads and no randomness of its own; whoever embeds it brings those. How to drive it stands in [`node`]; the runtimes
//! `peerless-mio` and `peerless-async-std` do.
//!
//! Two nodes in one process, their datagrams carried by hand, in a time that only this program knows:
//!
//! ```
//! use std::{net::SocketAddr, time::Duration};
//!
//! use peerless_core::{
//!     identity::Identity,
//!     ids::SocketId,
//!     node::{Bound, Config, Datagram, Event, Node, Start},
//!     rng::Rng,
//!     time::{Instant, UnixTime},
//! };
//!
//! const SOCKET: SocketId = SocketId(0);
//!
//! fn node(number: u8, address: SocketAddr) -> Node {
//!     let seed = [number; 32]; // from the operating system, but for tests
//!     let identity = Identity::generate(&mut Rng::new(seed).fork("identity"));
//!     let start = Start { now: Instant::ZERO, unix: UnixTime::from_secs(1_800_000_000), seed };
//!     let mut node = Node::new(Config::new(identity), start).expect("the configuration is the default one");
//!     node.handle_socket(Instant::ZERO, SOCKET, Some(Bound { local: address, reachable: vec![] }));
//!     node
//! }
//!
//! let addresses: [SocketAddr; 2] = ["192.0.2.1:4001".parse()?, "192.0.2.2:4001".parse()?];
//! let mut nodes = [node(1, addresses[0]), node(2, addresses[1])];
//! let mut now = Instant::ZERO;
//!
//! let target = nodes[1].local_peer();
//! nodes[0].dial(now, Some(target), &["/ip4/192.0.2.2/udp/4001/quic-v1".parse()?]);
//!
//! let mut buffer = Vec::new();
//! let connected = 'done: loop {
//!     for (from, to) in [(0, 1), (1, 0)] {
//!         while let Some(transmit) = nodes[from].poll_transmit(now, 1, &mut buffer) {
//!             let data = buffer[..transmit.size].into();
//!             let remote = addresses[from];
//!             let datagram = Datagram { socket: SOCKET, remote, local_ip: None, ecn: transmit.ecn, data };
//!             nodes[to].handle_datagram(now, datagram);
//!         }
//!     }
//!     while let Some(event) = nodes[0].poll_event() {
//!         if let Event::Dialed { peer, .. } = event {
//!             break 'done peer;
//!         }
//!     }
//!     now = now + Duration::from_millis(10);
//!     nodes.iter_mut().for_each(|node| node.handle_timeout(now));
//! };
//! assert_eq!(connected, target);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A protocol of your own is a [`Behaviour`](behaviour::Behaviour), or streams that the embedder pulls from and pushes to
//! ([`AppProtocol`](node::AppProtocol), [`Node::open`](node::Node::open), [`Node::read`](node::Node::read),
//! [`Node::write`](node::Node::write)).

pub mod behaviour;
mod codes;
pub mod counters;
pub mod errors;
pub mod identity;
pub mod ids;
pub mod info;
pub mod names;
pub mod network;
pub mod node;
pub mod protocols;
pub mod quic;
pub mod rate;
pub mod rng;
pub mod storage;
pub mod streams;
pub mod swarm;
pub mod time;
pub mod tls;
pub mod trace;
pub mod upgrade;

pub use libp2p_identity::{Keypair, PeerId, PublicKey};
pub use multiaddr::Multiaddr;

/// The README's code, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
