//! A small rust-libp2p peer for the interop suite: QUIC below, circuits through relays, ping, identify, echo, perf
//! and rendezvous.

mod dial;
mod rendezvous;
mod report;

use std::{error::Error, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use futures::StreamExt;
use libp2p::{
    Multiaddr, StreamProtocol, Swarm, SwarmBuilder, identify,
    identity::Keypair,
    multiaddr::Protocol,
    noise, ping, relay, rendezvous as rdv,
    swarm::{self, NetworkBehaviour, SwarmEvent, behaviour::toggle::Toggle},
    tls, yamux,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::report::report;

const ECHO: StreamProtocol = StreamProtocol::new("/echo/1.0.0");
const PERF: StreamProtocol = StreamProtocol::new("/perf/1.0.0");
const PING_INTERVAL: Duration = Duration::from_millis(100);
const DIAL_TIMEOUT: Duration = Duration::from_secs(25);
/// What a relay takes at most: no limit is in the way of a measurement.
const MANY: usize = 1 << 20;

type Failure = Box<dyn Error + Send + Sync>;

#[derive(Parser)]
#[command(name = "rust-peer")]
struct Options {
    #[command(subcommand)]
    command: Command,
    /// NDJSON on standard output (the only form there is).
    #[arg(long, global = true)]
    json: bool,
    /// The one security offered over circuits; both when not given.
    #[arg(long, global = true)]
    security: Option<Security>,
    /// The key whose seed is this byte 32 times, the same in every run; a new one when not given.
    #[arg(long, global = true)]
    seed: Option<u8>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Security {
    Tls,
    Noise,
}

#[derive(Subcommand)]
enum Command {
    /// Run a circuit relay.
    Relay(Relay),
    /// Be reachable, directly and through relays.
    Listen(Listen),
    /// Ping a peer.
    Ping {
        target: Multiaddr,
        #[arg(short, default_value_t = 5)]
        count: u32,
    },
    /// Send bytes and want the same bytes back.
    Echo {
        target: Multiaddr,
        #[arg(long)]
        bytes: u64,
    },
    /// Print what a peer says of itself.
    Identify { target: Multiaddr },
    /// Run a rendezvous point.
    Rendezvous {
        #[arg(long)]
        listen: Vec<Multiaddr>,
    },
    /// Register at a rendezvous point.
    Register(rendezvous::Register),
    /// Print who is registered at a rendezvous point.
    Discover(rendezvous::Discover),
}

#[derive(Args)]
struct Relay {
    #[arg(long)]
    listen: Vec<Multiaddr>,
    /// Bytes a circuit may carry, 0 for no limit.
    #[arg(long, default_value_t = 0)]
    circuit_bytes: u64,
    /// Seconds a circuit may live, 0 for no limit.
    #[arg(long, default_value_t = 0)]
    circuit_duration: u32,
}

#[derive(Args)]
struct Listen {
    #[arg(long)]
    listen: Vec<Multiaddr>,
    #[arg(long)]
    relay: Vec<Multiaddr>,
}

#[derive(NetworkBehaviour)]
struct Peer {
    relay: Toggle<relay::Behaviour>,
    relay_client: relay::client::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    streams: libp2p_stream::Behaviour,
    point: Toggle<rdv::server::Behaviour>,
    rendezvous: rdv::client::Behaviour,
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report::error(failure.as_ref());
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<(), Failure> {
    let swarm = new_swarm(&options)?;
    let incoming = swarm.behaviour().streams.new_control().accept(ECHO)?;
    tokio::spawn(dial::serve_echo(incoming));
    let incoming = swarm.behaviour().streams.new_control().accept(PERF)?;
    tokio::spawn(dial::serve_perf(incoming));
    match options.command {
        Command::Relay(Relay { listen, .. }) => serve(swarm, listen, vec![]).await,
        Command::Listen(Listen { listen, relay }) => serve(swarm, listen, relay).await,
        Command::Ping { target, count } => dial::run(swarm, target, dial::Task::Ping { count }).await,
        Command::Echo { target, bytes } => dial::run(swarm, target, dial::Task::Echo { bytes }).await,
        Command::Identify { target } => dial::run(swarm, target, dial::Task::Identify).await,
        Command::Rendezvous { listen } => serve(swarm, listen, vec![]).await,
        Command::Register(options) => rendezvous::register(swarm, options).await,
        Command::Discover(options) => rendezvous::discover(swarm, options).await,
    }
}

fn new_swarm(options: &Options) -> Result<Swarm<Peer>, Failure> {
    let key = match options.seed {
        Some(byte) => Keypair::ed25519_from_bytes([byte; 32])?,
        None => Keypair::generate_ed25519(),
    };
    let builder = SwarmBuilder::with_existing_identity(key).with_tokio().with_quic();
    let behaviour = |key: &Keypair, client| peer(key, client, &options.command);
    let idle = |config: swarm::Config| config.with_idle_connection_timeout(Duration::from_secs(60));
    // Each arm has a builder type of its own.
    let swarm = match options.security {
        None => builder
            .with_relay_client((tls::Config::new, noise::Config::new), yamux::Config::default)?
            .with_behaviour(behaviour)?
            .with_swarm_config(idle)
            .build(),
        Some(Security::Tls) => builder
            .with_relay_client(tls::Config::new, yamux::Config::default)?
            .with_behaviour(behaviour)?
            .with_swarm_config(idle)
            .build(),
        Some(Security::Noise) => builder
            .with_relay_client(noise::Config::new, yamux::Config::default)?
            .with_behaviour(behaviour)?
            .with_swarm_config(idle)
            .build(),
    };
    Ok(swarm)
}

fn peer(key: &Keypair, relay_client: relay::client::Behaviour, command: &Command) -> Peer {
    let relay = match command {
        Command::Relay(limits) => {
            Some(relay::Behaviour::new(key.public().to_peer_id(), relay_config(limits)))
        }
        _ => None,
    };
    let ping = match command {
        Command::Ping { .. } => ping::Config::new().with_interval(PING_INTERVAL),
        _ => ping::Config::new(),
    };
    let identify = identify::Config::new("/interop/1.0.0".into(), key.public())
        .with_agent_version("interop-rust-peer".into());
    Peer {
        relay: relay.into(),
        relay_client,
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::new(ping),
        streams: libp2p_stream::Behaviour::new(),
        point: matches!(command, Command::Rendezvous { .. })
            .then(|| rdv::server::Behaviour::new(rdv::server::Config::default()))
            .into(),
        rendezvous: rdv::client::Behaviour::new(key.clone()),
    }
}

fn relay_config(limits: &Relay) -> relay::Config {
    let duration = if limits.circuit_duration == 0 { u32::MAX } else { limits.circuit_duration };
    relay::Config {
        max_circuit_bytes: limits.circuit_bytes,
        max_circuit_duration: Duration::from_secs(duration.into()),
        max_reservations: MANY,
        max_circuits: MANY,
        max_circuits_per_peer: MANY,
        reservation_rate_limiters: vec![],
        circuit_src_rate_limiters: vec![],
        ..Default::default()
    }
}

/// Listens, reserves at the relays one after the other, and serves until told to stop.
async fn serve(
    mut swarm: Swarm<Peer>,
    listen: Vec<Multiaddr>,
    relays: Vec<Multiaddr>,
) -> Result<(), Failure> {
    for address in listen {
        swarm.listen_on(address)?;
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut waiting = relays.into_iter().map(|relay| relay.with(Protocol::P2pCircuit));
    if let Some(first) = waiting.next() {
        swarm.listen_on(first)?;
    }
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            event = swarm.select_next_some() => {
                report(&swarm, &event);
                match event {
                    SwarmEvent::NewListenAddr { address, .. } if !report::is_relayed(&address) => {
                        // A relay names only external addresses in its reservations.
                        swarm.add_external_address(address);
                    }
                    SwarmEvent::NewListenAddr { .. } => {
                        if let Some(next) = waiting.next() {
                            swarm.listen_on(next)?;
                        }
                    }
                    SwarmEvent::ListenerClosed { reason: Err(error), .. } => return Err(error.into()),
                    _ => {}
                }
            }
        }
    }
}
