//! Hosts: where nodes run.

use std::{
    collections::VecDeque,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use peerless_core::{
    Multiaddr, PeerId,
    identity::Identity,
    ids::SocketId,
    node::{AppStreamEvent, Config, Event, Node},
    protocols::relay::hop,
    swarm::SwarmConfig,
    time::{Deadline, Instant},
};

use crate::{app::App, link::Packet, world::World};

/// A host of a [`World`], by the order of its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub(crate) usize);

/// How a test changes a node's configuration. Kept, so that a restarted host gets the same.
pub(crate) type Configure = Box<dyn Fn(&mut Config)>;

/// A host: a name, addresses, and a node with its app, or a bare wire.
pub struct Host {
    pub(crate) name: String,
    pub(crate) identity: Identity,
    pub(crate) sockets: Vec<(SocketId, SocketAddr)>,
    /// Its node is told that the sockets are bound to the wildcard address.
    pub(crate) wildcard: bool,
    /// Whether it has a network.
    pub(crate) plugged: bool,
    pub(crate) configure: Vec<Configure>,
    pub(crate) starts: u32,
    pub(crate) node: Option<Node>,
    pub(crate) app: App,
    pub(crate) log: Vec<(Instant, Event)>,
    pub(crate) inbox: Option<VecDeque<Packet>>,
    pub(crate) timer: Option<Timer>,
}

/// The deadline of a node as it stands in the queue of the world.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timer {
    pub(crate) deadline: Deadline,
    pub(crate) key: (Instant, u64),
    /// Timeouts in a row after which the deadline had not moved forward.
    pub(crate) stuck: u32,
}

impl Host {
    /// Its name in transcripts.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The PeerId of its node.
    pub fn peer(&self) -> PeerId {
        self.identity.peer()
    }

    /// Who it is, for tests that sign what it says.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Its first address.
    pub fn socket_address(&self) -> SocketAddr {
        self.sockets[0].1
    }

    /// Its first address as a multiaddr with `/p2p`.
    pub fn address(&self) -> Multiaddr {
        let socket = self.socket_address();
        let family = if socket.is_ipv4() { "ip4" } else { "ip6" };
        format!("/{family}/{}/udp/{}/quic-v1/p2p/{}", socket.ip(), socket.port(), self.peer())
            .parse()
            .expect("a well-formed multiaddr")
    }

    /// What its node has told since the start, but for readable and writable streams.
    pub fn log(&self) -> &[(Instant, Event)] {
        &self.log
    }

    /// How often a node has been started on it.
    pub fn starts(&self) -> u32 {
        self.starts
    }

    /// Its servers and clients.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// The socket that datagrams to `to` arrive on.
    pub(crate) fn socket_at(&self, to: SocketAddr) -> Option<SocketId> {
        self.sockets.iter().find(|(_, local)| *local == to).map(|(id, _)| *id)
    }

    /// Hands all waiting events to the app and the log. Returns whether there were any.
    pub(crate) fn take_events(&mut self, now: Instant, may_reach: impl Fn(IpAddr, IpAddr) -> bool) -> bool {
        let Some(node) = &mut self.node else { return false };
        let mut any = false;
        while let Some(event) = node.poll_event() {
            any = true;
            assert!(!matches!(event, Event::TurnCutOff { .. }), "{}: {event}", self.name);
            if let Event::Route { query, remote } = event {
                let ways = self.sockets.iter().map(|(_, local)| local.ip());
                let source = ways.into_iter().find(|ip| may_reach(*ip, remote.ip()));
                node.handle_routed(now, query, source);
                continue;
            }
            self.app.handle_event(now, node, &event);
            let routine = matches!(
                event,
                Event::Stream { event: AppStreamEvent::Readable | AppStreamEvent::Writable, .. }
            );
            if !routine {
                self.log.push((now, event));
            }
        }
        any
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} ({})", self.name, self.socket_address(), self.peer())
    }
}

/// A host that is about to start; made by [`World::host`].
#[must_use]
pub struct HostBuilder<'w> {
    world: &'w mut World,
    name: String,
    ips: Vec<IpAddr>,
    port: u16,
    wildcard: bool,
    configure: Vec<Configure>,
}

impl<'w> HostBuilder<'w> {
    pub(crate) fn new(world: &'w mut World, name: String) -> Self {
        Self { world, name, ips: Vec::new(), port: 4001, wildcard: false, configure: Vec::new() }
    }

    /// Gives it this address, instead of one of the world's choice. May be called several times.
    pub fn ip(mut self, ip: impl Into<IpAddr>) -> Self {
        self.ips.push(ip.into());
        self
    }

    /// Binds this port instead of 4001.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Has its sockets bound to the wildcard address.
    pub fn wildcard(mut self) -> Self {
        self.wildcard = true;
        self
    }

    /// Makes it a relay with the default limits.
    pub fn relay(self) -> Self {
        self.relay_with(hop::Config::default())
    }

    /// Makes it a relay with limits of the test's choice, and room for as many connections as that takes.
    pub fn relay_with(self, hop: hop::Config) -> Self {
        self.configure(move |config| {
            config.swarm = SwarmConfig::for_relay(&hop.limits);
            config.hop = Some(hop.clone());
        })
    }

    /// Changes the node's configuration in any way.
    pub fn configure(mut self, change: impl Fn(&mut Config) + 'static) -> Self {
        self.configure.push(Box::new(change));
        self
    }

    /// Starts a node on it.
    pub fn start(self) -> HostId {
        let (world, host) = self.build();
        let id = world.add(host);
        world.boot(id);
        id
    }

    /// Starts no node: what arrives is kept for [`World::receive`], and [`World::send_from`] sends.
    pub fn bare(self) -> HostId {
        let (world, mut host) = self.build();
        host.inbox = Some(VecDeque::new());
        world.add(host)
    }

    fn build(mut self) -> (&'w mut World, Host) {
        if self.ips.is_empty() {
            self.ips.push(nth_ip(self.world.hosts().len()));
        }
        let identity = Identity::generate(&mut self.world.fork(&format!("identity {}", self.name)));
        let sockets = self.ips.iter().enumerate();
        let host = Host {
            identity,
            sockets: sockets.map(|(i, ip)| (SocketId(i as u32), SocketAddr::new(*ip, self.port))).collect(),
            wildcard: self.wildcard,
            plugged: true,
            name: self.name,
            configure: self.configure,
            starts: 0,
            node: None,
            app: App::default(),
            log: Vec::new(),
            inbox: None,
            timer: None,
        };
        (self.world, host)
    }
}

/// Globally routable, so that no rule about private addresses applies.
fn nth_ip(n: usize) -> IpAddr {
    let [_, high, middle, low] = (n as u32 + 1).to_be_bytes();
    Ipv4Addr::new(80, high, middle, low).into()
}
