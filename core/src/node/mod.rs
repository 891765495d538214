//! The node: all machines behind one face, pumped to quiescence after every input.
//!
//! # Driving a node
//!
//! A runtime owns sockets, a clock, a timer and a resolver, and does this:
//!
//! 1. Make a [`Node`] and tell it its sockets with [`Node::handle_socket`].
//! 2. Feed inputs as they come: [`Node::handle_datagram`] (or a batch with [`Node::handle_datagrams`]), [`Node::handle_timeout`] when [`Node::deadline`] has come,
//!    [`Node::handle_resolved`], [`Node::handle_storage`], or a command such as [`Node::dial`] or [`Node::write`].
//! 3. After each input, or each batch of inputs, take the outputs until there are none: [`Node::poll_transmit`] (send
//!    them), [`Node::poll_event`] (act on them, which may be commands, so start again), then ask [`Node::deadline`] and
//!    wait for the next input until then.
//!
//! Inputs never fail and never panic, whatever the network sends: faults of remotes are events, drops are counters. A
//! spurious `handle_timeout` changes nothing. `now` must not run backwards; if it does, it is taken to stand still.

mod accepting;
mod announce;
mod apply;
mod autoconnect;
mod choosing;
mod circuits;
mod command;
mod config;
mod dialing;
mod duplicates;
mod ends;
mod event;
mod guard;
mod health;
mod inspect;
mod io_error;
mod leaving;
mod metrics;
mod peers;
mod pump;
mod refusing;
mod relayed;
mod settings;
mod sockets;
mod stats;
mod stopping;
mod storage;
mod streaming;
mod transport;
mod windows;

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use libp2p_identity::PeerId;

pub use self::{
    announce::{AnnounceError, announceable},
    command::StreamError,
    config::{AppProtocol, Config, ConfigError, Start},
    event::{AppStreamEvent, Event},
    inspect::{BlackHoles, PathInfo, StreamInfo, StreamState, Upgrades},
    leaving::SHUTDOWN,
    metrics::{Family, Label, MetricKind, Metrics, Sample, Value},
    relayed::CircuitUse,
    settings::SettingError,
    stats::Stats,
};
use self::{
    dialing::Dialing, duplicates::Duplicates, leaving::Life, metrics::Totals, pump::Work, storage::Storage,
    transport::Transport,
};
use crate::{
    behaviour::{Action, Behaviour, Context, ContextParts, Input, View},
    counters::Counters,
    identity::Identity,
    ids::{QueryId, SocketId},
    names::{Framing, ProtocolName, ProtocolSpec},
    protocols::{identify, ping, relay, rendezvous},
    quic::{self, Quic, TlsCrypto},
    rng::{HashKeys, Rng},
    streams::{Owner, Streams, splice::Splices, windows::Windows},
    swarm::{
        Swarm,
        addresses::Addresses,
        autoconnect::AutoConnect,
        health::Health,
        peerstore::{self, Archive, Peerstore},
        resources::ScopeLimit,
        select::Strategy,
        table::Connections,
    },
    time::{Deadline, Instant, UnixTime, WallClock},
    tls::{self, TlsIdentity},
    trace::{Line, Trace},
    upgrade::Credentials,
};
pub use crate::{
    quic::{Datagram, Ecn, PathStats, Transmit},
    streams::Read,
};

/// Where a socket is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The socket's local address.
    pub local: SocketAddr,
    /// If that is a wildcard: the addresses of the machine's interfaces. Else none, or, if the machine does not have the
    /// socket's address any more, those that it has: until it is back, nobody is told of that address.
    pub reachable: Vec<IpAddr>,
}

/// A libp2p node without I/O. See the [module documentation](self) for how to drive it.
pub struct Node {
    now: Instant,
    wall: WallClock,
    identity: Identity,
    accept_inbound: bool,
    behaviours: Vec<Slot>,
    /// Who answers which protocol, and how it is framed. Ordered, as is what we advertise.
    routes: BTreeMap<ProtocolName, Route>,
    protocols: Vec<ProtocolName>,
    connections: Connections,
    swarm: Swarm,
    addresses: Addresses,
    sockets: BTreeMap<SocketId, Bound>,
    streams: Streams,
    splices: Splices,
    /// If we are a relay.
    windows: Option<Windows>,
    transport: Transport,
    dialing: Dialing,
    resolves_text: bool,
    knows_routes: bool,
    storage: Storage,
    duplicates: Duplicates,
    auto_connect: AutoConnect,
    health: Health,
    strategy: Strategy,
    peerstore: Peerstore,
    archive: Option<Archive>,
    stream_config: crate::streams::Config,
    upgrade_config: crate::upgrade::Config,
    upgrade_rng: Rng,
    credentials: Arc<Credentials>,
    /// By which certificates are judged; follows `wall`.
    tls_clock: tls::WallClock,
    work: VecDeque<Work>,
    /// Work was left over by a turn that would not end.
    is_cut_off: bool,
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
    counters: Counters,
    totals: Totals,
    trace: Trace,
    next_token: u64,
    life: Life,
}

/// What the key of stateless resets is derived for: it outlives the process, as the node's own key does.
const RESET_KEY: &[u8] = b"peerless quic stateless reset";

/// A behaviour and what the node keeps for it.
struct Slot {
    behaviour: Box<dyn Behaviour>,
    rng: Rng,
    specs: Vec<ProtocolSpec>,
    /// Only what a built-in behaviour says becomes an event of its own; see [`Event::from_notice`].
    is_built_in: bool,
}

/// Who answers a protocol.
#[derive(Clone, Copy, Debug)]
struct Route {
    owner: Owner,
    framing: Framing,
    inbound_per_peer: usize,
}

impl Node {
    /// A node with no sockets yet.
    pub fn new(config: Config, start: Start) -> Result<Self, ConfigError> {
        config.validate()?;
        let rng = Rng::new(start.seed);
        let mut hash_rng = rng.fork("hash");
        let mut keys = || HashKeys::new(&mut hash_rng);
        let (splices, windows) = relayed(&config, start.now);
        let behaviours = slots(built_in(&config), config.behaviours, &rng);
        let routes = routes(&behaviours, &config.app_protocols)?;
        let protocols = answered(&routes);
        let tls_clock = tls::WallClock::new(start.unix);
        let keypair = config.identity.keypair().clone();
        let tls = TlsIdentity::new(&keypair, tls_clock.clone())
            .map_err(|error| ConfigError::Certificate(error.to_string()))?;
        let crypto = config.crypto.unwrap_or_else(|| Arc::new(TlsCrypto::from(tls.clone())));
        let quic_rng = rng.fork("quic");
        let reset_key =
            keypair.derive_secret(RESET_KEY).unwrap_or_else(|| quic_rng.fork("reset key").bytes());
        let mut quic = Quic::new(
            quic_config(config.quic, windows.is_some()),
            crypto,
            &quic_rng,
            reset_key,
            config.accept_inbound,
            start.now,
        );
        quic.limit_half_open(most_half_open(&config.swarm.limits.transient));
        let mut node = Self {
            now: start.now,
            wall: WallClock::new(start.unix, start.now),
            identity: config.identity,
            accept_inbound: config.accept_inbound,
            behaviours,
            routes,
            protocols,
            connections: Connections::new(keys()),
            dialing: Dialing::new(config.swarm.dial.clone(), rng.fork("dial")),
            resolves_text: config.resolves_text,
            knows_routes: config.knows_routes,
            duplicates: Duplicates::default(),
            health: Health::new(config.swarm.health),
            strategy: config.swarm.strategy,
            auto_connect: AutoConnect::new(config.swarm.auto_connect, rng.fork("auto-connect")),
            peerstore: Peerstore::new(config.swarm.peerstore),
            archive: None,
            swarm: Swarm::new(config.swarm),
            addresses: Addresses::withholding(config.no_announce),
            sockets: BTreeMap::new(),
            streams: Streams::new(keys(), config.streams.write_queue),
            splices,
            windows,
            transport: Transport::new(start.now, quic, keys),
            storage: Storage::new(config.storage),
            stream_config: config.streams,
            upgrade_config: config.upgrade,
            upgrade_rng: rng.fork("upgrade"),
            credentials: Arc::new(Credentials { keypair, tls }),
            tls_clock,
            work: VecDeque::new(),
            is_cut_off: false,
            actions: VecDeque::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
            totals: Totals::default(),
            trace: Trace::new(config.trace),
            next_token: 0,
            life: Life::Running,
        };
        node.open_archive();
        Ok(node)
    }

    /// Who this node is.
    pub fn local_peer(&self) -> PeerId {
        self.identity.peer()
    }

    /// A datagram has come.
    pub fn handle_datagram(&mut self, now: Instant, datagram: Datagram) {
        self.handle_datagrams(now, [datagram]);
    }

    /// Datagrams have come together, in this order. Much cheaper than one by one: what they lead to is done once.
    pub fn handle_datagrams(&mut self, now: Instant, datagrams: impl IntoIterator<Item = Datagram>) {
        self.advance(now);
        let mut count = 0;
        for datagram in datagrams {
            self.transport.quic.handle_datagram(self.now, datagram, &mut self.swarm);
            count += 1;
        }
        self.tell_turned_away();
        self.pump_after(count);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
        self.transport.quic.handle_timeout(self.now);
        for index in 0..self.behaviours.len() {
            if self.behaviours[index].behaviour.deadline().is_some_and(|d| d.is_due(self.now)) {
                self.work.push_back(Work::Input(index, Input::Timeout));
            }
        }
        self.expire_streams();
        self.expire_splices();
        self.expire_circuits();
        self.expire_dials();
        self.expire_duplicates();
        self.auto_connect();
        self.look_at_health();
        self.archive_peers();
        self.expire_leaving();
        self.pump();
    }

    /// The answer to [`Event::Resolve`].
    pub fn handle_resolved(&mut self, now: Instant, query: QueryId, found: Result<Vec<IpAddr>, String>) {
        self.advance(now);
        self.resolved(query, found);
        self.pump();
    }

    /// The answer to [`Event::ResolveText`]: the TXT records of the name, each as one text.
    pub fn handle_resolved_text(&mut self, now: Instant, query: QueryId, found: Result<Vec<String>, String>) {
        self.advance(now);
        self.resolved_text(query, found);
        self.pump();
    }

    /// The answer to [`Event::Route`]: the source address of datagrams that go there, if there is a way.
    pub fn handle_routed(&mut self, now: Instant, query: QueryId, source: Option<IpAddr>) {
        self.advance(now);
        self.routed(query, source);
        self.pump();
    }

    /// The wall clock says `unix`; needed only if it was set, or drifted from the monotonic clock.
    pub fn set_wall_clock(&mut self, now: Instant, unix: UnixTime) {
        self.advance(now);
        self.wall = WallClock::new(unix, self.now);
    }

    /// The next datagrams to send, written to `buf`: up to `max_segments` of the same size to one destination.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        max_segments: usize,
        buf: &mut Vec<u8>,
    ) -> Option<Transmit> {
        self.advance(now);
        let transmit = self.transport.quic.poll_transmit(self.now, max_segments, buf);
        if transmit.is_none() && self.leave_if_said() {
            return self.transport.quic.poll_transmit(self.now, max_segments, buf);
        }
        transmit
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Node::handle_timeout`] wants to be called next, and why.
    pub fn deadline(&mut self) -> Option<Deadline> {
        let mut deadline = Deadline::earliest(self.transport.quic.deadline(), self.splices.deadline());
        for slot in &self.behaviours {
            deadline = Deadline::earliest(deadline, slot.behaviour.deadline());
        }
        let own = [
            (self.streams.next_late(), "stream timer"),
            (self.transport.circuits.next_timer(), "circuit timer"),
            (self.dialing.next_timer(), "dial timer"),
            (self.swarm.pruner.deadline(), "pruning"),
            (self.duplicates.next_timer(), "duplicate connection"),
        ];
        deadline = Deadline::earliest(deadline, self.auto_connect.deadline());
        deadline = Deadline::earliest(deadline, self.health.deadline());
        deadline = Deadline::earliest(deadline, self.next_step_of_leaving());
        let rest = self.is_cut_off.then(|| Deadline::new(self.now, "work left over"));
        deadline = Deadline::earliest(deadline, rest);
        let archive = self.archive.as_ref().and_then(|archive| archive.deadline(&self.peerstore));
        deadline = Deadline::earliest(deadline, archive);
        let own = own.into_iter().filter_map(|(at, why)| at.map(|at| Deadline::new(at, why))).min();
        Deadline::earliest(deadline, own)
    }

    /// Calls a behaviour with a context, as commands do. `None` if there is none of that type.
    pub fn with<B: Behaviour, R>(
        &mut self,
        now: Instant,
        command: impl FnOnce(&mut B, &mut Context<'_>) -> R,
    ) -> Option<R> {
        self.advance(now);
        let index = self.behaviours.iter().position(|s| (&*s.behaviour as &dyn std::any::Any).is::<B>())?;
        let result = self.call(index, |behaviour, cx| {
            let behaviour: &mut dyn std::any::Any = behaviour;
            behaviour.downcast_mut::<B>().map(|behaviour| command(behaviour, cx))
        });
        self.pump();
        result
    }

    /// A behaviour, to look at.
    pub fn behaviour<B: Behaviour>(&self) -> Option<&B> {
        self.behaviours.iter().find_map(|s| (&*s.behaviour as &dyn std::any::Any).downcast_ref::<B>())
    }

    /// Established connections.
    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    /// The machines of connection management.
    pub fn swarm(&self) -> &Swarm {
        &self.swarm
    }

    /// Our own addresses.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// What is known of other peers.
    pub fn peerstore(&self) -> &Peerstore {
        &self.peerstore
    }

    /// Every refusal, drop and limit so far. Those of the QUIC pipe are in [`Stats::quic`].
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The trace since the last call, if [`Config::trace`] is set.
    pub fn take_trace(&mut self) -> Vec<Line> {
        self.trace.take()
    }

    /// Runs one call into a behaviour and applies the actions it asks for, in order.
    fn call<R>(&mut self, index: usize, f: impl FnOnce(&mut dyn Behaviour, &mut Context<'_>) -> R) -> R {
        let slot = &mut self.behaviours[index];
        let view = View {
            identity: &self.identity,
            connections: &self.connections,
            addresses: &self.addresses,
            peerstore: &self.peerstore,
            protocols: &self.protocols,
            queues: &self.streams,
        };
        let mut cx = Context::from(ContextParts {
            now: self.now,
            unix: self.wall.at(self.now),
            rng: &mut slot.rng,
            counters: &mut self.counters,
            next_token: &mut self.next_token,
            actions: &mut self.actions,
            view,
        });
        let result = f(&mut *slot.behaviour, &mut cx);
        while let Some(action) = self.actions.pop_front() {
            self.apply(index, action);
        }
        result
    }

    fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
        self.transport.now = self.now;
        self.swarm.gate.expire(self.now);
        self.tls_clock.set(self.wall.at(self.now));
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("peer", &self.local_peer())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// Behaviours, each with random numbers of its own.
fn slots(built_in: Vec<Box<dyn Behaviour>>, embedded: Vec<Box<dyn Behaviour>>, rng: &Rng) -> Vec<Slot> {
    let slot = |is_built_in| {
        move |behaviour: Box<dyn Behaviour>| Slot {
            rng: rng.fork(behaviour.name()),
            specs: behaviour.protocols().to_vec(),
            behaviour,
            is_built_in,
        }
    };
    built_in.into_iter().map(slot(true)).chain(embedded.into_iter().map(slot(false))).collect()
}

/// The rate that circuits share, and the windows of a relay, which follow what they need.
fn relayed(config: &Config, now: Instant) -> (Splices, Option<Windows>) {
    let rate = config.hop.as_ref().map_or(0, |hop| hop.limits.relay_byte_rate);
    let is_relay = config.hop.is_some() && config.relay_roles.contains(relay::Roles::HOP);
    let (stream, connection) = (config.quic.stream_window, config.quic.connection_window);
    let windows = is_relay.then(|| Windows::new(config.streams.windows.clone(), stream, connection));
    (Splices::new(rate, now), windows)
}

fn quic_config(quic: quic::Config, is_relay: bool) -> quic::Config {
    let window = quic.connection_window;
    let connection_window = if is_relay { Windows::first(window) } else { window };
    quic::Config { connection_window, ..quic }
}

/// Retry, which comes at half of the half-open connections, must set in before the transient scope is full.
fn most_half_open(opening: &ScopeLimit) -> usize {
    opening.inbound_connections.min(opening.connections)
}

fn built_in(config: &Config) -> Vec<Box<dyn Behaviour>> {
    let mut relay_client = config.relay_client.clone();
    if !config.relay_roles.contains(relay::Roles::STOP) {
        relay_client.max_inbound_circuits = 0;
    }
    relay_client.dials &= config.relay_roles.contains(relay::Roles::CLIENT);
    let mut behaviours: Vec<Box<dyn Behaviour>> = vec![
        Box::new(ping::Ping::new(config.ping.clone())),
        Box::new(identify::Identify::new(config.identify.clone())),
        Box::new(relay::client::Client::new(relay_client)),
        Box::new(rendezvous::client::Client::new(config.rendezvous_client.clone())),
    ];
    if let Some(hop) = config.hop.as_ref().filter(|_| config.relay_roles.contains(relay::Roles::HOP)) {
        behaviours.push(Box::new(relay::hop::Hop::new(hop.clone())));
    }
    if let Some(server) = &config.rendezvous_server {
        behaviours.push(Box::new(rendezvous::server::Server::new(server.clone())));
    }
    behaviours
}

fn routes(slots: &[Slot], app: &[AppProtocol]) -> Result<BTreeMap<ProtocolName, Route>, ConfigError> {
    let mut routes = BTreeMap::new();
    let mut add = |name: &ProtocolName, route: Route| match routes.get(name) {
        Some(Route { inbound_per_peer: 1.., .. }) if route.inbound_per_peer > 0 => {
            Err(ConfigError::ProtocolTwice(name.clone()))
        }
        Some(Route { inbound_per_peer: 1.., .. }) => Ok(()),
        _ => {
            routes.insert(name.clone(), route);
            Ok(())
        }
    };
    for (index, slot) in slots.iter().enumerate() {
        let name = slot.behaviour.name();
        let is_taken = name == peerstore::TABLE;
        if is_taken || slots[..index].iter().any(|other| other.behaviour.name() == name) {
            return Err(ConfigError::NameTwice(name));
        }
        for ProtocolSpec { name, framing, inbound_per_peer } in &slot.specs {
            let owner = Owner::Behaviour(index);
            add(name, Route { owner, framing: *framing, inbound_per_peer: *inbound_per_peer })?;
        }
    }
    for AppProtocol { name, inbound_per_peer } in app {
        add(name, Route { owner: Owner::App, framing: Framing::Raw, inbound_per_peer: *inbound_per_peer })?;
    }
    Ok(routes)
}

/// The protocols that we answer.
fn answered(routes: &BTreeMap<ProtocolName, Route>) -> Vec<ProtocolName> {
    routes.iter().filter(|(_, route)| route.inbound_per_peer > 0).map(|(name, _)| name.clone()).collect()
}
