//! The command line: flags, their values, and errors in one sentence.

mod values;

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum, error::ErrorKind};
use multiaddr::Protocol;
use peerless_core::{
    Multiaddr, PeerId,
    protocols::{
        relay::limits::Rate,
        rendezvous::{MAX_NAMESPACE, MAX_TTL},
    },
};
use peerless_proto::address;
use serde::Deserialize;

use self::values::{count, limit, record_size, streams, whole, window};
pub(crate) use self::values::{rate, size, time};
use crate::{announce::AnnounceArgs, settings::flag};

/// Peer-to-peer connectivity on libp2p's wire: relay, be reached through one, and try what works.
#[derive(Debug, Parser)]
#[command(name = "peerless", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What all commands take.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of all commands")]
pub(crate) struct Common {
    /// Print one JSON object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Directory of the key file; one process at a time may use it (default: the platform's data directory, but a new
    /// identity for ping, echo, perf, discover, and register without --keep)
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) identity: Option<PathBuf>,
    /// Use a new identity and store nothing
    #[arg(long, global = true, conflicts_with = "identity")]
    pub(crate) ephemeral: bool,
    /// Derive identity and randomness from a number: for tests only, everybody can know the key
    #[arg(long, global = true, value_name = "N", value_parser = whole, conflicts_with_all = ["identity", "ephemeral"])]
    pub(crate) seed: Option<u64>,
    /// Security offered over circuits (default: tls,noise)
    #[arg(long, global = true, value_name = "NAME", value_delimiter = ',')]
    pub(crate) security: Vec<SecurityName>,
    /// TOML file on connection management and a relay's limits; flags win over it
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[cfg(unix)]
    /// Local socket at which a running node answers `peerless status`
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) control: Option<PathBuf>,
    /// Log to stderr; twice for more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// A security protocol of circuits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SecurityName {
    Tls,
    Noise,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print our peer id, and where its key is
    Id,
    /// Relay circuits between other peers
    Relay(Box<RelayArgs>),
    /// Be a rendezvous point: take registrations, and tell who is registered
    Rendezvous(Box<RendezvousArgs>),
    /// Be found in a namespace of a rendezvous point
    Register(RegisterArgs),
    /// Ask a rendezvous point who is registered in a namespace
    Discover(DiscoverArgs),
    /// Be reachable, directly and through relays, and serve ping, identify, perf and echo
    Listen(ListenArgs),
    #[cfg(unix)]
    /// Print whom a running node is connected to; needs the --control PATH that it was given
    Status,
    /// Measure round-trip times
    Ping(PingArgs),
    /// Measure throughput
    Perf(PerfArgs),
    /// Send bytes and check that the same come back
    Echo(EchoArgs),
}

impl Command {
    /// Whether it serves others until a signal comes.
    pub(crate) fn serves(&self) -> bool {
        match self {
            Self::Relay(_) | Self::Rendezvous(_) | Self::Listen(_) => true,
            Self::Register(register) => register.keep,
            _ => false,
        }
    }

    /// Whether it only asks something of others, for which one identity is as good as another.
    fn is_client(&self) -> bool {
        match self {
            Self::Ping(_) | Self::Perf(_) | Self::Echo(_) | Self::Discover(_) => true,
            Self::Register(register) => !register.keep,
            _ => false,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct RelayArgs {
    /// Address to listen at (default: /ip4/0.0.0.0/udp/4001/quic-v1 and /ip6/::/udp/4001/quic-v1)
    #[arg(long, value_name = "MULTIADDR", value_parser = listen_address)]
    pub(crate) listen: Vec<SocketAddr>,
    #[command(flatten)]
    pub(crate) announce: AnnounceArgs,
    /// How long a reservation holds; 0 for a year, as the wire wants an end
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "1h")]
    pub(crate) reservation_ttl: Duration,
    /// The limits to start from: for anybody, for a fleet of one's own, or none; the limits below change single ones
    #[arg(long, value_name = "NAME", default_value = "public")]
    pub(crate) preset: Preset,
    /// Most bytes that a peer may have under way to us on one stream, which is the most that a circuit carries in a round
    /// trip; circuits that are busy at once have less, over short paths what the buffers of the socket hold
    #[arg(long, value_name = "BYTES", value_parser = window, default_value = "8MiB")]
    pub(crate) window: u32,
    /// File to keep in where peers are, and with --rendezvous registrations (default: in memory, so that a restart forgets
    /// them)
    #[arg(long, value_name = "FILE")]
    pub(crate) store: Option<PathBuf>,
    /// Serve /metrics for Prometheus and /healthz over HTTP at this address, such as 127.0.0.1:9090
    #[arg(long, value_name = "ADDR", value_parser = metrics_address)]
    pub(crate) metrics: Option<SocketAddr>,
    // A heading holds for all that follows, so what has none stands above.
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    /// Be a rendezvous point too
    #[arg(long, help_heading = RENDEZVOUS)]
    pub(crate) rendezvous: bool,
    #[command(flatten)]
    pub(crate) point: PointArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RendezvousArgs {
    /// Address to listen at (default: /ip4/0.0.0.0/udp/4001/quic-v1 and /ip6/::/udp/4001/quic-v1)
    #[arg(long, value_name = "MULTIADDR", value_parser = listen_address)]
    pub(crate) listen: Vec<SocketAddr>,
    #[command(flatten)]
    pub(crate) announce: AnnounceArgs,
    /// File to keep registrations, and where peers are, in (default: in memory, so that a restart forgets them)
    #[arg(long, value_name = "FILE")]
    pub(crate) store: Option<PathBuf>,
    /// Serve /metrics for Prometheus and /healthz over HTTP at this address, such as 127.0.0.1:9090
    #[arg(long, value_name = "ADDR", value_parser = metrics_address)]
    pub(crate) metrics: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) point: PointArgs,
}

const RENDEZVOUS: &str = "Rendezvous; limits are 0 for none (in parentheses the defaults)";

/// What a rendezvous point keeps and allows.
#[derive(Clone, Debug, Default, PartialEq, Args)]
#[command(next_help_heading = RENDEZVOUS)]
pub(crate) struct PointArgs {
    /// Registrations at a time (100000)
    #[arg(long, value_name = "N", value_parser = limit)]
    pub(crate) max_registrations: Option<usize>,
    /// Registrations of one peer (1000)
    #[arg(long, value_name = "N", value_parser = limit)]
    pub(crate) max_registrations_per_peer: Option<usize>,
    /// Registrations from one IPv4 address or IPv6 /64 (10000)
    #[arg(long, value_name = "N", value_parser = limit)]
    pub(crate) max_registrations_per_ip: Option<usize>,
    /// Registrations in one namespace (50000)
    #[arg(long, value_name = "N", value_parser = limit)]
    pub(crate) max_registrations_per_namespace: Option<usize>,
    /// Shortest time that a peer may ask for (2h)
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) min_ttl: Option<Duration>,
    /// Longest time that a peer may ask for (72h)
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) max_ttl: Option<Duration>,
    /// What a peer gets that asks for no time (2h)
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) default_ttl: Option<Duration>,
    /// Longest peer record (8KiB)
    #[arg(long, value_name = "BYTES", value_parser = record_size)]
    pub(crate) max_record: Option<u64>,
    /// Registrations in one answer (1000)
    #[arg(long, value_name = "N", value_parser = limit)]
    pub(crate) max_page: Option<usize>,
    /// How often a peer may ask for anything: so many at once, and one more after each TIME (1000/100ms)
    #[arg(long, value_name = "N/TIME", value_parser = rate)]
    pub(crate) request_rate: Option<Rate>,
    /// The same for all peers from one IP address (10000/10ms)
    #[arg(long, value_name = "N/TIME", value_parser = rate)]
    pub(crate) request_rate_per_ip: Option<Rate>,
    /// Refuse the unsigned records of old clients
    #[arg(long)]
    pub(crate) signed_only: bool,
}

/// The limits to start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Preset {
    Public,
    Broad,
    Unlimited,
}

/// Single limits, where they are not as in the preset.
#[derive(Clone, Debug, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Limits, 0 for none (in parentheses the public preset)")]
pub(crate) struct LimitArgs {
    /// Peers that may hold a reservation (128)
    #[arg(long, value_name = "N", value_parser = limit)]
    pub(crate) max_reservations: Option<usize>,
    /// Reservations from one IPv4 address or IPv6 /64 (8)
    #[arg(long, value_name = "N", value_parser = limit)]
    pub(crate) max_reservations_per_ip: Option<usize>,
    /// Reservations from one IPv6 /56 (8)
    #[arg(long, value_name = "N", value_parser = limit)]
    pub(crate) max_reservations_per_v6_56: Option<usize>,
    /// Reservations from one IPv6 /48 (32)
    #[arg(long, value_name = "N", value_parser = limit)]
    pub(crate) max_reservations_per_v6_48: Option<usize>,
    /// How often a peer may reserve: so many at once, and one more after each TIME (30/2m)
    #[arg(long, value_name = "N/TIME", value_parser = rate)]
    #[serde(deserialize_with = "flag::rate")]
    pub(crate) reservation_rate: Option<Rate>,
    /// The same for all peers from one IP address (60/1m)
    #[arg(long, value_name = "N/TIME", value_parser = rate)]
    #[serde(deserialize_with = "flag::rate")]
    pub(crate) reservation_rate_per_ip: Option<Rate>,
    /// Circuits at a time (1024)
    #[arg(long, value_name = "N", value_parser = limit)]
    pub(crate) max_circuits: Option<usize>,
    /// Circuits at a time from one peer, and to one peer (16)
    #[arg(long, value_name = "N", value_parser = limit)]
    pub(crate) max_circuits_per_peer: Option<usize>,
    /// Circuits at a time from one IP address (64)
    #[arg(long, value_name = "N", value_parser = limit)]
    pub(crate) max_circuits_per_ip: Option<usize>,
    /// How often a peer may ask for a circuit (30/2m)
    #[arg(long, value_name = "N/TIME", value_parser = rate)]
    #[serde(deserialize_with = "flag::rate")]
    pub(crate) circuit_rate: Option<Rate>,
    /// The same for all peers from one IP address (60/1m)
    #[arg(long, value_name = "N/TIME", value_parser = rate)]
    #[serde(deserialize_with = "flag::rate")]
    pub(crate) circuit_rate_per_ip: Option<Rate>,
    /// How long a circuit may last (2m)
    #[arg(long, value_name = "TIME", value_parser = time)]
    #[serde(deserialize_with = "flag::time")]
    pub(crate) circuit_duration: Option<Duration>,
    /// Bytes that a circuit may carry in each direction (128KiB)
    #[arg(long, value_name = "BYTES", value_parser = size)]
    #[serde(deserialize_with = "flag::size")]
    pub(crate) circuit_bytes: Option<u64>,
    /// Bytes per second that a circuit may carry in each direction (0)
    #[arg(long, value_name = "BYTES", value_parser = size)]
    #[serde(deserialize_with = "flag::size")]
    pub(crate) circuit_byte_rate: Option<u64>,
    /// How long a circuit may carry nothing (0)
    #[arg(long, value_name = "TIME", value_parser = time)]
    #[serde(deserialize_with = "flag::time")]
    pub(crate) circuit_idle: Option<Duration>,
    /// Bytes per second that all circuits together may carry (0)
    #[arg(long, value_name = "BYTES", value_parser = size)]
    #[serde(deserialize_with = "flag::size")]
    pub(crate) relay_byte_rate: Option<u64>,
}

impl LimitArgs {
    /// These, and the others' where these say nothing.
    pub(crate) fn or(self, others: Self) -> Self {
        Self {
            max_reservations: self.max_reservations.or(others.max_reservations),
            max_reservations_per_ip: self.max_reservations_per_ip.or(others.max_reservations_per_ip),
            max_reservations_per_v6_56: self.max_reservations_per_v6_56.or(others.max_reservations_per_v6_56),
            max_reservations_per_v6_48: self.max_reservations_per_v6_48.or(others.max_reservations_per_v6_48),
            reservation_rate: self.reservation_rate.or(others.reservation_rate),
            reservation_rate_per_ip: self.reservation_rate_per_ip.or(others.reservation_rate_per_ip),
            max_circuits: self.max_circuits.or(others.max_circuits),
            max_circuits_per_peer: self.max_circuits_per_peer.or(others.max_circuits_per_peer),
            max_circuits_per_ip: self.max_circuits_per_ip.or(others.max_circuits_per_ip),
            circuit_rate: self.circuit_rate.or(others.circuit_rate),
            circuit_rate_per_ip: self.circuit_rate_per_ip.or(others.circuit_rate_per_ip),
            circuit_duration: self.circuit_duration.or(others.circuit_duration),
            circuit_bytes: self.circuit_bytes.or(others.circuit_bytes),
            circuit_byte_rate: self.circuit_byte_rate.or(others.circuit_byte_rate),
            circuit_idle: self.circuit_idle.or(others.circuit_idle),
            relay_byte_rate: self.relay_byte_rate.or(others.relay_byte_rate),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ListenArgs {
    /// Address to listen at (default: any port, on all interfaces)
    #[arg(long, value_name = "MULTIADDR", value_parser = listen_address)]
    pub(crate) listen: Vec<SocketAddr>,
    #[command(flatten)]
    pub(crate) announce: AnnounceArgs,
    /// Relay to be reachable through, with its /p2p/PEER
    #[arg(long, value_name = "MULTIADDR", value_parser = relay_address)]
    pub(crate) relay: Vec<Multiaddr>,
    /// Serve /metrics for Prometheus and /healthz over HTTP at this address, such as 127.0.0.1:9090
    #[arg(long, value_name = "ADDR", value_parser = metrics_address)]
    pub(crate) metrics: Option<SocketAddr>,
    /// Find relays to be reachable through, and replace those that fail
    #[arg(long)]
    pub(crate) auto_relay: bool,
    /// Relay that --auto-relay may use, with its /p2p/PEER
    #[arg(long, value_name = "MULTIADDR", value_parser = relay_address, requires = "auto_relay")]
    pub(crate) bootstrap: Vec<Multiaddr>,
    /// File to keep in where peers are (default: in memory, so that a restart forgets them)
    #[arg(long, value_name = "FILE")]
    pub(crate) store: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RegisterArgs {
    /// The rendezvous point, with its /p2p/PEER
    #[arg(long, value_name = "MULTIADDR", value_parser = point_address)]
    pub(crate) point: Multiaddr,
    /// The namespace, of 1 to 255 bytes
    #[arg(long, value_name = "NAME", value_parser = namespace)]
    pub(crate) namespace: String,
    /// How long to be found; many points refuse less than 2h
    #[arg(long, value_name = "TIME", value_parser = lifetime, default_value = "2h")]
    pub(crate) ttl: Duration,
    /// Stay, renew the registration, serve ping, identify, perf and echo, and unregister at the end
    #[arg(long)]
    pub(crate) keep: bool,
    /// Address to listen at and to be found at (default: any port, on all interfaces)
    #[arg(long, value_name = "MULTIADDR", value_parser = listen_address)]
    pub(crate) listen: Vec<SocketAddr>,
    #[command(flatten)]
    pub(crate) announce: AnnounceArgs,
    /// Relay to be reachable and to be found through, with its /p2p/PEER
    #[arg(long, value_name = "MULTIADDR", value_parser = relay_address)]
    pub(crate) relay: Vec<Multiaddr>,
}

#[derive(Debug, Args)]
pub(crate) struct DiscoverArgs {
    /// The rendezvous point, with its /p2p/PEER
    #[arg(long, value_name = "MULTIADDR", value_parser = point_address)]
    pub(crate) point: Multiaddr,
    /// The namespace, of 1 to 255 bytes
    #[arg(long, value_name = "NAME", value_parser = namespace)]
    pub(crate) namespace: String,
    /// Most peers to find (default: all)
    #[arg(long, value_name = "N", value_parser = count)]
    pub(crate) limit: Option<u64>,
    /// Go on asking, and tell who comes and who goes
    #[arg(long, conflicts_with = "limit")]
    pub(crate) watch: bool,
    /// Time from one question of --watch to the next, at least 1s (default: 1m)
    #[arg(long, value_name = "TIME", value_parser = time, requires = "watch")]
    pub(crate) interval: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct PingArgs {
    /// Whom to ping: /ip4/…/udp/…/quic-v1/p2p/PEER, or /…/p2p/RELAY/p2p-circuit/p2p/PEER; of several addresses of one
    /// peer the first that leads there
    #[arg(value_name = "MULTIADDR", value_parser = remote_address, required = true)]
    pub(crate) addresses: Vec<Multiaddr>,
    /// How many times
    #[arg(short, long, value_name = "N", value_parser = count, default_value = "5")]
    pub(crate) count: u64,
    /// Time from one ping to the next
    #[arg(short, long, value_name = "TIME", value_parser = time, default_value = "1s")]
    pub(crate) interval: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct PerfArgs {
    /// Whom to measure with: /ip4/…/udp/…/quic-v1/p2p/PEER, or /…/p2p/RELAY/p2p-circuit/p2p/PEER
    #[arg(value_name = "MULTIADDR", value_parser = remote_address)]
    pub(crate) address: Multiaddr,
    /// Bytes to send (default: 10MiB, less if a relay allows less, or none if --download is given)
    #[arg(long, value_name = "BYTES", value_parser = size)]
    pub(crate) upload: Option<u64>,
    /// Bytes to receive (default: 10MiB, less if a relay allows less, or none if --upload is given)
    #[arg(long, value_name = "BYTES", value_parser = size)]
    pub(crate) download: Option<u64>,
    /// Streams that share the bytes
    #[arg(long, value_name = "N", value_parser = streams, default_value = "1")]
    pub(crate) streams: u64,
}

#[derive(Debug, Args)]
pub(crate) struct EchoArgs {
    /// Whom to send to: /ip4/…/udp/…/quic-v1/p2p/PEER, or /…/p2p/RELAY/p2p-circuit/p2p/PEER
    #[arg(value_name = "MULTIADDR", value_parser = remote_address)]
    pub(crate) address: Multiaddr,
    /// How many bytes to send (default: 1MiB, less if a relay allows less)
    #[arg(long, value_name = "BYTES", value_parser = size)]
    pub(crate) bytes: Option<u64>,
}

/// Why there is nothing to run.
#[derive(Debug)]
pub(crate) enum NoCommand {
    /// Help or the version was asked for.
    Show(clap::Error),
    /// A mistake, in one sentence.
    Wrong(String),
}

/// Reads the command line.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, NoCommand> {
    let parsed = Cli::try_parse_from(args).map(|mut cli| {
        let is_named = cli.common.identity.is_some() || cli.common.seed.is_some();
        cli.common.ephemeral |= cli.command.is_client() && !is_named;
        cli
    });
    parsed.map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => NoCommand::Show(error),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            NoCommand::Wrong(
                "name a command: id, relay, rendezvous, register, discover, listen, status, ping, perf or echo"
                    .into(),
            )
        }
        _ => NoCommand::Wrong(sentence(&error.render().to_string())),
    })
}

/// clap's words in one line: what is wrong, what would be right, and without the usage and the list of flags.
fn sentence(rendered: &str) -> String {
    let paragraphs = rendered.split("\n\n").map(|p| p.split_whitespace().collect::<Vec<_>>().join(" "));
    let told: Vec<_> = paragraphs
        .enumerate()
        .filter(|(n, text)| *n == 0 || text.starts_with("tip: a similar"))
        .map(|(_, text)| text.trim_start_matches("error: ").trim_start_matches("tip: ").to_owned())
        .collect();
    told.join("; ")
}

fn listen_address(text: &str) -> Result<SocketAddr, String> {
    const RIGHT: &str =
        "an address to listen at looks like /ip4/0.0.0.0/udp/4001/quic-v1 or /ip6/::/udp/4001/quic-v1";
    let address = address::parse_multiaddr(text).map_err(|error| format!("{error}: {RIGHT}"))?;
    match address::parse_quic_v1(&address) {
        Ok((socket, None)) => Ok(socket),
        _ => Err(RIGHT.into()),
    }
}

fn metrics_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "an address to serve metrics at looks like 127.0.0.1:9090 or [::1]:9090".into())
}

fn relay_address(text: &str) -> Result<Multiaddr, String> {
    const RIGHT: &str = "a relay's address looks like /ip4/192.0.2.1/udp/4001/quic-v1/p2p/PEER";
    let address = address::parse_multiaddr(text).map_err(|error| format!("{error}: {RIGHT}"))?;
    match shape(&address) {
        Some(Shape { relay: None, peer: Some(_) }) => Ok(address),
        _ => Err(RIGHT.into()),
    }
}

fn point_address(text: &str) -> Result<Multiaddr, String> {
    const RIGHT: &str = "a point's address looks like /ip4/192.0.2.1/udp/4001/quic-v1/p2p/PEER, or through a relay \
                         like /ip4/192.0.2.1/udp/4001/quic-v1/p2p/RELAY/p2p-circuit/p2p/PEER";
    let address = address::parse_multiaddr(text).map_err(|error| format!("{error}: {RIGHT}"))?;
    match shape(&address) {
        Some(Shape { peer: Some(_), .. }) => Ok(address),
        _ => Err(RIGHT.into()),
    }
}

fn namespace(text: &str) -> Result<String, String> {
    if (1..=MAX_NAMESPACE).contains(&text.len()) {
        return Ok(text.into());
    }
    Err(format!("a namespace has 1 to {MAX_NAMESPACE} bytes, not {}", text.len()))
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let ttl = time(text)?;
    if (Duration::from_secs(1)..=MAX_TTL).contains(&ttl) {
        return Ok(ttl);
    }
    Err("a registration lasts from 1s to 72h".into())
}

fn remote_address(text: &str) -> Result<Multiaddr, String> {
    const RIGHT: &str = "a peer's address looks like /ip4/192.0.2.1/udp/4001/quic-v1/p2p/PEER, or, published in DNS, \
                         like /dnsaddr/example.org/p2p/PEER, or through a relay like \
                         /ip4/192.0.2.1/udp/4001/quic-v1/p2p/RELAY/p2p-circuit/p2p/PEER";
    let address = address::parse_multiaddr(text).map_err(|error| format!("{error}: {RIGHT}"))?;
    shape(&address).ok_or(RIGHT)?;
    Ok(address)
}

/// Whom an address leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Through whom.
    pub(crate) relay: Option<PeerId>,
    /// To whom, if it says.
    pub(crate) peer: Option<PeerId>,
}

/// Takes `/HOST/udp/PORT/quic-v1` and `/dnsaddr/NAME`, alone, with `/p2p/PEER` or with `/p2p/RELAY/p2p-circuit/p2p/PEER`.
pub(crate) fn shape(address: &Multiaddr) -> Option<Shape> {
    use Protocol::{Dns, Dns4, Dns6, Dnsaddr, Ip4, Ip6, P2p, P2pCircuit, QuicV1, Udp};
    let parts: Vec<_> = address.iter().collect();
    match parts[..] {
        [Dnsaddr(_)] => return Some(Shape { relay: None, peer: None }),
        [Dnsaddr(_), P2p(peer)] => return Some(Shape { relay: None, peer: Some(peer) }),
        [Dnsaddr(_), P2p(relay), P2pCircuit, P2p(peer)] => {
            return Some(Shape { relay: Some(relay), peer: Some(peer) });
        }
        _ => {}
    }
    let (Ip4(_) | Ip6(_) | Dns(_) | Dns4(_) | Dns6(_), Udp(_), QuicV1) =
        (parts.first()?, parts.get(1)?, parts.get(2)?)
    else {
        return None;
    };
    match parts.get(3..)? {
        [] => Some(Shape { relay: None, peer: None }),
        [P2p(peer)] => Some(Shape { relay: None, peer: Some(*peer) }),
        [P2p(relay), P2pCircuit, P2p(peer)] => Some(Shape { relay: Some(*relay), peer: Some(*peer) }),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
