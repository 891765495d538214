//! A node as the commands use it: set up from the flags, reporting what happens, closed in order.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use peerless_core::{
    Multiaddr,
    errors::{AttemptError, DialError},
    ids::{ConnectionId, StreamId},
    names::ProtocolName,
    node::{self, AppProtocol, AppStreamEvent, Event},
    protocols::{
        relay::{
            client::{AutoRelay, When},
            hop,
            limits::RelayLimits,
        },
        rendezvous,
    },
    swarm::SwarmConfig,
    time::Instant,
    upgrade::Security,
};
use peerless_mio::{Runtime, RuntimeConfig};

use crate::{
    Failure,
    announce::AnnounceArgs,
    cli::{Common, SecurityName, shape},
    identity,
    identity::Held,
    lines::Room,
    metrics,
    notice::Notice,
    report::{Line, Reporter},
    settings::Settings,
    signals::Caught,
    store::{Serving, Store},
    told::Teller,
};

/// How long reaching a peer may take, the relay and all handshakes included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How often peers are pinged if relays are to be found.
const PING_INTERVAL: Duration = Duration::from_secs(15);
/// How often it is looked whether there is room for lines again.
const ROOM_INTERVAL: Duration = Duration::from_millis(50);
/// How long a stream may stand still before it is given up.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// What the commands want of the node, each its own.
#[derive(Debug, Default)]
pub(crate) struct Setup {
    /// Where to listen; empty for a node that only dials.
    pub(crate) listen: Vec<SocketAddr>,
    /// What others are told of where we are.
    pub(crate) announce: AnnounceArgs,
    /// Be a relay.
    pub(crate) hop: Option<hop::Config>,
    /// Bytes that a peer may have under way to us on one stream; `None` is the core's default.
    pub(crate) window: Option<u32>,
    /// Be a rendezvous point.
    pub(crate) rendezvous: Option<rendezvous::server::Config>,
    /// Where to keep what the node stores; `None` is nowhere.
    pub(crate) store: Option<PathBuf>,
    /// Relays to find by itself.
    pub(crate) auto_relay: AutoRelay,
    /// Stream protocols, with the number of inbound streams that each peer may have open.
    pub(crate) protocols: Vec<(ProtocolName, usize)>,
    /// Where to serve metrics.
    pub(crate) metrics: Option<SocketAddr>,
}

/// A running node.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) runtime: Runtime,
    report: Reporter,
    teller: Teller,
    /// Goes after the runtime.
    store: Option<Serving>,
    /// Nobody else uses the key meanwhile.
    _held: Option<Held>,
    /// Answers as long as the session lasts.
    #[cfg(unix)]
    _control: Option<crate::status::Control>,
}

impl Session {
    /// Makes the node, and has SIGINT and SIGTERM shut it down.
    pub(crate) fn open(common: &Common, setup: Setup, report: Reporter) -> Result<Self, Failure> {
        // First, so that nothing is made or written if it is wrong.
        let settings = Settings::load(common.config.as_deref())?;
        let serves = !setup.listen.is_empty();
        let caught = Caught::start(serves).map_err(no_signals)?;
        // Who only dials tells nobody where it is.
        let announce =
            if serves { setup.announce.clone().or(settings.announced()) } else { AnnounceArgs::default() };
        announce.check()?;
        let swarm = swarm(settings, &setup)?;
        let (identity, held) = identity::hold(common)?;
        announce.check_peer(identity.peer())?;
        let store = setup.store.as_deref().map(Store::open).transpose()?;
        let mut config = node::Config::new(identity);
        config.accept_inbound = serves;
        config.no_announce = announce.no_announce.clone();
        config.swarm = swarm;
        if let Some(window) = setup.window {
            config.quic = config.quic.with_stream_window(window);
        }
        config.hop = setup.hop;
        config.rendezvous_server = setup.rendezvous;
        config.storage = store.is_some();
        if setup.auto_relay.when != When::Never {
            // Relays are compared by how long they take.
            config.ping.interval = Some(PING_INTERVAL);
        }
        config.relay_client.auto = setup.auto_relay;
        config.app_protocols = setup
            .protocols
            .into_iter()
            .map(|(name, inbound_per_peer)| AppProtocol { name, inbound_per_peer })
            .collect();
        if !common.security.is_empty() {
            config.upgrade.security = common.security.iter().map(|name| security(*name)).collect();
        }
        let runtime = RuntimeConfig {
            listen: setup.listen,
            seed: common.seed.map(identity::seed_bytes),
            ..RuntimeConfig::default()
        };
        let wanted_buffer = runtime.socket_buffer;
        let mut runtime = Runtime::new(config, runtime)?;
        let (node, now) = runtime.node_mut();
        announce.apply(node, now)?;
        if serves && node.addresses().advertised().is_empty() {
            report.line(&Line::NoAddress {});
        }
        watch_signals(caught, &runtime, report)?;
        if serves {
            mention_buffers(&runtime, wanted_buffer, report);
        }
        let store = store.map(|store| store.serve(runtime.handle(), report)).transpose()?;
        if let Some(address) = setup.metrics {
            let watch = store.as_ref().map(Serving::watch);
            let dropped = move || report.dropped();
            let address = metrics::serve(address, runtime.handle(), metrics::PATIENCE, watch, dropped)
                .map_err(|error| Failure::Failed(format!("cannot serve metrics at {address}: {error}")))?;
            report.line(&Line::Metrics { address: address.to_string() });
        }
        #[cfg(unix)]
        let control = common
            .control
            .as_deref()
            .map(|path| crate::status::Control::serve(path, runtime.handle()))
            .transpose()?;
        Ok(Self {
            runtime,
            report,
            teller: Teller::new(report),
            store,
            _held: held,
            #[cfg(unix)]
            _control: control,
        })
    }

    /// Runs until a signal comes and the node is shut down. `on_event` sees every event, after it was reported.
    pub(crate) fn serve(mut self, mut on_event: impl FnMut(&mut Runtime, &Event)) -> Result<(), Failure> {
        let Self { runtime, teller, store, .. } = &mut self;
        runtime.run(|runtime, event| {
            teller.tell(runtime.node(), runtime.now(), &event);
            ask_store(store.as_ref(), &event);
            on_event(runtime, &event);
        })?;
        Ok(())
    }

    /// The next event, already reported; `None` when `until` is there or a signal has come.
    pub(crate) fn next_event(&mut self, until: Instant) -> Result<Option<Event>, Failure> {
        while !self.runtime.is_stopping() {
            if let Some(event) = self.runtime.poll_event() {
                self.teller.tell(self.runtime.node(), self.runtime.now(), &event);
                ask_store(self.store.as_ref(), &event);
                return Ok(Some(event));
            }
            let left = until.saturating_duration_since(self.runtime.now());
            if left.is_zero() {
                break;
            }
            self.runtime.turn(Some(left))?;
        }
        Ok(None)
    }

    /// The first event in which `pick` finds what it looks for, already reported.
    pub(crate) fn wait_for<T>(
        &mut self,
        patience: Duration,
        pick: impl Fn(&Event) -> Option<T>,
    ) -> Result<T, Failure> {
        let until = self.runtime.now() + patience;
        while let Some(event) = self.next_event(until)? {
            if let Some(found) = pick(&event) {
                return Ok(found);
            }
        }
        self.give_up(&format!("no answer within {} s", patience.as_secs()))
    }

    /// Connects to whom the addresses lead: the first says who that must be.
    pub(crate) fn connect(&mut self, addresses: &[Multiaddr]) -> Result<ConnectionId, Failure> {
        let peer = addresses.iter().find_map(|address| shape(address)?.peer);
        let (node, now) = self.runtime.node_mut();
        let wanted = node.dial(now, peer, addresses);
        while let Some(event) = self.next_event(now + CONNECT_TIMEOUT)? {
            match event {
                Event::Dialed { dial, connection, .. } if dial == wanted => return Ok(connection),
                Event::DialFailed { dial, error, .. } if dial == wanted => return Err(explain(&error)),
                _ => {}
            }
        }
        let tried: Vec<_> = addresses.iter().map(Multiaddr::to_string).collect();
        let (tried, patience) = (tried.join(", "), CONNECT_TIMEOUT.as_secs());
        self.give_up(&format!("no connection to {tried} within {patience} s"))
    }

    /// Opens a stream of the command's own.
    pub(crate) fn open_stream(
        &mut self,
        connection: ConnectionId,
        protocol: &ProtocolName,
    ) -> Result<StreamId, Failure> {
        let (node, now) = self.runtime.node_mut();
        node.open(now, connection, protocol)
            .map_err(|error| Failure::Failed(format!("no {protocol} stream: {error}")))
    }

    /// The next stream on which there is something to do. Fails when a stream or the connection is lost, and when
    /// nothing happens for too long.
    pub(crate) fn next_stream(&mut self, connection: ConnectionId) -> Result<StreamId, Failure> {
        let until = self.runtime.now() + STALL_TIMEOUT;
        while let Some(event) = self.next_event(until)? {
            match event {
                Event::Stream { event: AppStreamEvent::Reset(fault), .. } => {
                    return Err(Failure::Failed(format!("the stream was lost: {fault}")));
                }
                Event::Stream { stream, .. } => return Ok(stream),
                Event::Disconnected { connection: lost, reason, .. } if lost == connection => {
                    return Err(Failure::Failed(format!("the connection was lost: {reason}")));
                }
                _ => {}
            }
        }
        self.give_up(&format!("nothing moved for {} s", STALL_TIMEOUT.as_secs()))
    }

    /// Bytes that the relay lets through in each direction, if the connection runs through one that said so.
    pub(crate) fn circuit_limit(&self, connection: ConnectionId) -> Option<u64> {
        self.runtime.node().connections().get(connection)?.relayed.as_ref()?.limit.data
    }

    /// Waits until there is room for results, the node going on meanwhile, so that a slow reader slows the command down
    /// and nothing else. `on_event` sees what happens. Returns at once after a signal.
    pub(crate) fn wait_for_room(
        &mut self,
        mut on_event: impl FnMut(&Event) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        while !self.runtime.is_stopping() {
            match self.report.room() {
                Room::Yes => break,
                Room::Never => return Err(Failure::Failed("the output cannot be written".into())),
                Room::NotYet => {
                    let until = self.runtime.now() + ROOM_INTERVAL;
                    while let Some(event) = self.next_event(until)? {
                        on_event(&event)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Closes what is open and tells the peers. To be called whatever the outcome.
    pub(crate) fn close<T>(mut self, outcome: Result<T, Failure>) -> Result<T, Failure> {
        self.runtime.shutdown();
        self.serve(|_, _| {})?;
        outcome
    }

    /// The failure when [`next_event`](Self::next_event) gave none.
    fn give_up<T>(&self, timed_out: &str) -> Result<T, Failure> {
        let message = if self.runtime.is_stopping() { "interrupted" } else { timed_out };
        Err(Failure::Failed(message.into()))
    }
}

/// Has signals end the node, but for SIGHUP.
fn watch_signals(caught: Caught, runtime: &Runtime, report: Reporter) -> Result<(), Failure> {
    let handle = runtime.handle();
    let end = move || {
        report.interrupt();
        handle.shutdown();
    };
    let hang_up = move || report.notice(Notice::SignalIgnored { signal: "SIGHUP" });
    caught.watch(end, hang_up).map_err(no_signals)
}

fn no_signals(error: io::Error) -> Failure {
    Failure::Failed(format!("cannot wait for signals: {error}"))
}

/// Says what to do if the system gave the sockets less than they were to have.
fn mention_buffers(runtime: &Runtime, wanted: usize, report: Reporter) {
    let (receive, send) = runtime.socket_buffers();
    if receive < wanted || send < wanted {
        report.notice(Notice::BuffersCapped { receive, send, wanted });
    }
}

/// Passes a request on to the store.
fn ask_store(store: Option<&Serving>, event: &Event) {
    if let (Some(store), Event::Storage(request)) = (store, event) {
        store.ask(request.clone());
    }
}

/// Room for those whom the node serves, changed by what the file says.
fn swarm(settings: Settings, setup: &Setup) -> Result<SwarmConfig, Failure> {
    let mut swarm = match (&setup.hop, &setup.rendezvous) {
        (Some(hop), _) => SwarmConfig::for_relay(&hop.limits),
        // Whoever registers or asks does not stay long, but there are many of them.
        (None, Some(_)) => SwarmConfig::for_relay(&RelayLimits::broad()),
        (None, None) => SwarmConfig::default(),
    };
    settings.apply(&mut swarm)?;
    Ok(swarm)
}

fn security(name: SecurityName) -> Security {
    match name {
        SecurityName::Tls => Security::Tls,
        SecurityName::Noise => Security::Noise,
    }
}

fn explain(error: &DialError) -> Failure {
    let own = error.attempts.iter().any(|(_, attempt)| *attempt == AttemptError::Own);
    let hint = if own {
        "; if it is another process, give one of the two --ephemeral or an --identity of its own"
    } else {
        ""
    };
    Failure::Failed(format!("{error}{hint}"))
}
