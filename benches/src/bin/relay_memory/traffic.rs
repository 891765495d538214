//! Who is connected to whom, and bytes from the source to the target.

use std::time::Duration;

use bytes::Bytes;
use clap::ValueEnum;
use peerless_core::{
    identity::Identity,
    ids::{ConnectionId, DialId, StreamId},
    names::ProtocolName,
    node::{AppProtocol, AppStreamEvent, Config, Event, Node, Read, Start, StreamError},
    protocols::relay::{client, limits::RelayLimits},
    rng::Rng,
    time::{Instant, UnixTime},
};

use crate::{
    forward::{FORWARD, Forward, SINK},
    network::{Cost, Network, RELAY, SOURCE, TARGET},
};

/// More virtual time than anything here takes.
const PATIENCE: Duration = Duration::from_secs(600);
const CHUNK: usize = 64 << 10;
static ZEROS: [u8; CHUNK] = [0; CHUNK];

/// How the relay comes to forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Two streams joined by a behaviour of the relay, and nothing on top of them.
    Spliced,
    /// A circuit: from end to end a connection with TLS and yamux.
    Circuit,
    /// No relay: what the source sends the node in the middle sends back.
    Echo,
}

/// One transfer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer {
    /// Of the relay alone.
    pub(crate) cost: Cost,
    /// Of all three nodes, in real time.
    pub(crate) wall: Duration,
}

/// A source that reaches a target through a relay.
pub(crate) struct Scene {
    network: Network,
    connection: ConnectionId,
    protocol: ProtocolName,
    mode: Mode,
}

impl Scene {
    /// Connects everybody.
    pub(crate) fn new(mode: Mode, round_trip: Duration) -> Result<Self, String> {
        let identities = [1, 2, 3].map(|n| Identity::generate(&mut Rng::new([n; 32])));
        let target_peer = identities[TARGET].peer();
        let [source, mut relay, target] = identities.map(Config::new);
        match mode {
            Mode::Spliced => relay.behaviours.push(Box::new(Forward::new(target_peer))),
            Mode::Circuit => relay.hop = Some(RelayLimits::unlimited().into()),
            Mode::Echo => {}
        }
        let source = node(source, SOURCE, &[(FORWARD, 0), (SINK, 0)])?;
        let echoes = [(SINK, 1)];
        let relay = node(relay, RELAY, if mode == Mode::Echo { &echoes } else { &[] })?;
        let target = node(target, TARGET, &[(SINK, 1)])?;
        let mut network = Network::new([source, relay, target], round_trip);
        let to_relay = network.address(RELAY);
        match mode {
            Mode::Spliced => {
                dial(&mut network, TARGET, &to_relay)?;
                let connection = dial(&mut network, SOURCE, &to_relay)?;
                Ok(Self { network, connection, protocol: FORWARD, mode })
            }
            Mode::Circuit => {
                reserve(&mut network, &to_relay)?;
                let circuit = format!("{to_relay}/p2p-circuit/p2p/{target_peer}");
                let circuit = circuit.parse().map_err(|error| format!("{circuit}: {error}"))?;
                let connection = dial(&mut network, SOURCE, &circuit)?;
                Ok(Self { network, connection, protocol: SINK, mode })
            }
            Mode::Echo => {
                let connection = dial(&mut network, SOURCE, &to_relay)?;
                Ok(Self { network, connection, protocol: SINK, mode })
            }
        }
    }

    /// Moves `bytes` from the source to the target.
    pub(crate) fn transfer(&mut self, bytes: u64) -> Result<Transfer, String> {
        let Self { network, connection, protocol, mode } = self;
        let stream = network
            .command(SOURCE, |node, now| node.open(now, *connection, protocol))
            .map_err(|error| error.to_string())?;
        let mut sender = Sender { stream, chunk: Bytes::new(), left: bytes, greeted: false };
        let mut receiver = Receiver { read: 0, held: Bytes::new() };
        let mut started = std::time::Instant::now();
        wait(network, |network, host, event| match event {
            Event::Stream { stream, event: AppStreamEvent::Reset(fault) } => {
                Err(format!("stream {stream} was lost: {fault}"))
            }
            Event::Stream { stream, event: AppStreamEvent::Readable } if host == SOURCE => {
                if stream != sender.stream {
                    return Ok(None);
                }
                if sender.is_greeted(network)? {
                    network.cost = Cost::default();
                    started = std::time::Instant::now();
                    sender.write(network)?;
                }
                Ok(sender.is_over(network)?.then_some(()))
            }
            Event::Stream { stream, event: AppStreamEvent::Writable } if host == SOURCE => {
                if stream == sender.stream && sender.greeted {
                    sender.write(network)?;
                }
                Ok(None)
            }
            Event::Stream { stream, event } if host == TARGET => {
                let finished = receiver.handle(network, stream, &event)?;
                Ok(finished.then_some(()))
            }
            Event::Stream { stream, event } if host == RELAY && *mode == Mode::Echo => {
                receiver.echo(network, stream, &event)?;
                Ok(None)
            }
            _ => Ok(None),
        })?;
        if receiver.read != bytes {
            return Err(format!("{} bytes of {bytes} arrived", receiver.read));
        }
        Ok(Transfer { cost: network.cost, wall: started.elapsed() })
    }
}

fn node(mut config: Config, host: usize, protocols: &[(ProtocolName, usize)]) -> Result<Node, String> {
    config.app_protocols = protocols
        .iter()
        .map(|(name, inbound_per_peer)| AppProtocol {
            name: name.clone(),
            inbound_per_peer: *inbound_per_peer,
        })
        .collect();
    let unix = UnixTime::from_secs(1_800_000_000);
    let start = Start { now: Instant::ZERO, unix, seed: [host as u8 + 10; 32] };
    Node::new(config, start).map_err(|error| error.to_string())
}

fn dial(
    network: &mut Network,
    host: usize,
    address: &peerless_core::Multiaddr,
) -> Result<ConnectionId, String> {
    let wanted: DialId =
        network.command(host, |node, now| node.dial(now, None, std::slice::from_ref(address)));
    wait(network, |_, at, event| match event {
        Event::Dialed { dial, connection, .. } if at == host && dial == wanted => Ok(Some(connection)),
        Event::DialFailed { dial, error, .. } if at == host && dial == wanted => Err(error.to_string()),
        _ => Ok(None),
    })
}

fn reserve(network: &mut Network, relay: &peerless_core::Multiaddr) -> Result<(), String> {
    let relay = relay.clone();
    network.command(TARGET, |node, now| node.reserve(now, relay)).map_err(|error| error.to_string())?;
    wait(network, |_, _, event| match event {
        Event::Reservation(client::Event::Reserved { .. }) => Ok(Some(())),
        Event::Reservation(client::Event::Failed { reason, .. }) => Err(reason.to_string()),
        _ => Ok(None),
    })
}

/// Lets time pass until `handle` makes something of an event.
fn wait<T>(
    network: &mut Network,
    mut handle: impl FnMut(&mut Network, usize, Event) -> Result<Option<T>, String>,
) -> Result<T, String> {
    let until = network.now() + PATIENCE;
    while network.now() < until {
        for host in [SOURCE, RELAY, TARGET] {
            while let Some(event) = network.poll_event(host) {
                if let Some(done) = handle(network, host, event)? {
                    return Ok(done);
                }
            }
        }
        network.step().ok_or("nothing will ever happen again")?;
    }
    Err(format!("not done after {} s", PATIENCE.as_secs()))
}

struct Sender {
    stream: StreamId,
    chunk: Bytes,
    left: u64,
    greeted: bool,
}

impl Sender {
    /// Reads the target's greeting: from then on the way is open.
    fn is_greeted(&mut self, network: &mut Network) -> Result<bool, String> {
        if self.greeted {
            return Ok(false);
        }
        let stream = self.stream;
        let read = network.command(SOURCE, |node, now| node.read(now, stream, 1));
        let greeted = matches!(read.map_err(|error| error.to_string())?, Read::Data(_));
        self.greeted = greeted;
        Ok(greeted)
    }

    /// Reads what is sent back; whether that was all.
    fn is_over(&mut self, network: &mut Network) -> Result<bool, String> {
        let stream = self.stream;
        network
            .command(SOURCE, |node, now| {
                loop {
                    match node.read(now, stream, CHUNK)? {
                        Read::Data(_) => {}
                        Read::Blocked => return Ok(false),
                        Read::Finished => return Ok(true),
                    }
                }
            })
            .map_err(|error: StreamError| error.to_string())
    }

    fn write(&mut self, network: &mut Network) -> Result<(), String> {
        let stream = self.stream;
        network
            .command(SOURCE, |node, now| {
                loop {
                    if self.chunk.is_empty() {
                        let next = self.left.min(CHUNK as u64);
                        if next == 0 {
                            return node.finish(now, stream);
                        }
                        self.left -= next;
                        self.chunk = Bytes::from_static(&ZEROS[..next as usize]);
                    }
                    if node.write(now, stream, &mut self.chunk)? == 0 {
                        return Ok(());
                    }
                }
            })
            .map_err(|error| error.to_string())
    }
}

struct Receiver {
    read: u64,
    /// Read and not yet sent back.
    held: Bytes,
}

impl Receiver {
    /// Returns whether that was all.
    fn handle(
        &mut self,
        network: &mut Network,
        stream: StreamId,
        event: &AppStreamEvent,
    ) -> Result<bool, String> {
        network
            .command(TARGET, |node, now| {
                if matches!(event, AppStreamEvent::Accepted { .. }) {
                    node.write(now, stream, &mut Bytes::from_static(b"!"))?;
                }
                loop {
                    match node.read(now, stream, CHUNK)? {
                        Read::Data(data) => self.read += data.len() as u64,
                        Read::Blocked => return Ok(false),
                        Read::Finished => {
                            node.finish(now, stream)?;
                            return Ok(true);
                        }
                    }
                }
            })
            .map_err(|error: StreamError| error.to_string())
    }

    /// Greets, and sends back what it reads.
    fn echo(
        &mut self,
        network: &mut Network,
        stream: StreamId,
        event: &AppStreamEvent,
    ) -> Result<(), String> {
        if matches!(event, AppStreamEvent::Accepted { .. }) {
            self.held = Bytes::from_static(b"!");
        }
        network
            .command(RELAY, |node, now| {
                loop {
                    if !self.held.is_empty() {
                        if node.write(now, stream, &mut self.held)? == 0 {
                            return Ok(());
                        }
                        continue;
                    }
                    match node.read(now, stream, CHUNK)? {
                        Read::Data(data) => {
                            self.read += data.len() as u64;
                            self.held = data;
                        }
                        Read::Blocked => return Ok(()),
                        Read::Finished => return node.finish(now, stream),
                    }
                }
            })
            .map_err(|error: StreamError| error.to_string())
    }
}
