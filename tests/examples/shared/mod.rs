//! What the examples share, whatever drives their node: the command line, what they print, and what they do.
//!
//! ```text
//! NODE listen [--listen MULTIADDR]... [--relay MULTIADDR]...
//! NODE relay [--listen MULTIADDR]...
//! NODE ping MULTIADDR... [--count N]
//! NODE echo MULTIADDR... [--bytes N] [--streams N]
//! ```
//!
//! With `--idle SECONDS` a connection is lost when nothing has come for so long. They print one JSON object a line, as `peerless --json` does. The identity is a new one every time.

#![allow(dead_code, unreachable_pub, reason = "each example uses its part")]

pub mod aio;
pub mod app;

use std::{io::Write, net::SocketAddr, process::ExitCode, time::Duration};

use bytes::Bytes;
use multiaddr::Protocol;
use peerless_core::{
    Multiaddr, PeerId,
    identity::Identity,
    names::ProtocolName,
    node::{self, AppProtocol, Event},
    protocols::relay::{client, hop},
    rng::Rng,
    time::{Instant, UnixTime},
};
use peerless_proto::address::parse_multiaddr;
use serde_json::{Value, json};

/// The same bytes back, up to the end.
pub const ECHO: ProtocolName = ProtocolName::from_static("/echo/1.0.0");
/// Bytes read or written at once.
pub const CHUNK: usize = 64 << 10;

/// What to do.
#[derive(Clone, Debug)]
pub enum Job {
    /// Serve echo, ping and identify, reachable through relays too, until a signal comes.
    Listen { relays: Vec<Multiaddr> },
    /// The same, and relay circuits between others.
    Relay,
    /// Ping so many times.
    Ping { to: Vec<Multiaddr>, count: u64 },
    /// Send so many bytes on each of so many streams, and check that the same come back.
    Echo { to: Vec<Multiaddr>, bytes: u64, streams: u64 },
}

/// The command line.
#[derive(Clone, Debug)]
pub struct Options {
    pub job: Job,
    /// Addresses to bind to.
    pub listen: Vec<SocketAddr>,
    /// How long nothing may come before a connection is lost.
    pub idle: Option<Duration>,
    /// 32 bytes of the system's randomness.
    pub seed: [u8; 32],
}

impl Options {
    /// Reads the command line; a mistake ends the process.
    pub fn from_args() -> Self {
        parse(std::env::args().skip(1)).unwrap_or_else(|mistake| {
            eprintln!(
                "{mistake}; try: listen [--listen MA] [--relay MA] | ping MA... | echo MA... --bytes N"
            );
            std::process::exit(2)
        })
    }

    /// A node with a new identity that serves echo.
    pub fn node(&self) -> node::Config {
        let mut config = node::Config::new(Identity::generate(&mut Rng::new(self.seed).fork("identity")));
        config.accept_inbound = matches!(self.job, Job::Listen { .. } | Job::Relay);
        config.hop = matches!(self.job, Job::Relay).then(hop::Config::default);
        if let Some(idle) = self.idle {
            config.quic.idle_timeout = idle;
            config.quic.keep_alive = Some(idle / 2);
        }
        config.app_protocols = vec![AppProtocol { name: ECHO, inbound_per_peer: 1024 }];
        config
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let command = args.find(|arg| arg != "--json").ok_or("no command")?;
    let (mut to, mut listen, mut relays) = (Vec::new(), Vec::new(), Vec::new());
    let (mut count, mut bytes, mut streams, mut idle) = (5, 1 << 20, 1, None);
    let number = |text: String| text.parse::<u64>().map_err(|_| format!("{text} is not a number"));
    let address = |text: &str| parse_multiaddr(text).map_err(|error| format!("{text}: {error}"));
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--json" => {}
            "--listen" => listen.push(socket_address(&address(&value()?)?)?),
            "--relay" => relays.push(address(&value()?)?),
            "--count" => count = number(value()?)?,
            "--bytes" => bytes = number(value()?)?,
            "--streams" => streams = number(value()?)?,
            "--idle" => idle = Some(Duration::from_secs(number(value()?)?)),
            text => to.push(address(text)?),
        }
    }
    if listen.is_empty() {
        listen.push(([0, 0, 0, 0], 0).into());
    }
    let to = if to.is_empty() { Err("no address") } else { Ok(to) };
    let job = match command.as_str() {
        "listen" => Job::Listen { relays },
        "relay" => Job::Relay,
        "ping" => Job::Ping { to: to?, count },
        "echo" => Job::Echo { to: to?, bytes, streams },
        other => return Err(format!("{other} is no command")),
    };
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| error.to_string())?;
    Ok(Options { job, listen, idle, seed })
}

fn socket_address(address: &Multiaddr) -> Result<SocketAddr, String> {
    match address.iter().collect::<Vec<_>>()[..] {
        [Protocol::Ip4(ip), Protocol::Udp(port), Protocol::QuicV1] => Ok((ip, port).into()),
        [Protocol::Ip6(ip), Protocol::Udp(port), Protocol::QuicV1] => Ok((ip, port).into()),
        _ => Err(format!("{address} is not an address to listen at")),
    }
}

/// Prints one line: the event's name, then its fields.
pub fn print(event: &str, fields: Value) {
    let mut out = std::io::stdout().lock();
    let fields = fields.to_string();
    // Nobody reads any more: that is no reason to stop.
    let _ = writeln!(out, r#"{{"event":"{event}",{}"#, &fields[1..]).and_then(|()| out.flush());
}

/// Prints what an event has to say, if it is one of those that are printed.
pub fn report(me: PeerId, event: &Event) {
    match event {
        Event::Listening { address } => {
            print("listening", json!({ "address": address.clone().with(Protocol::P2p(me)).to_string() }));
        }
        Event::Connected { peer, address, relay, .. } => {
            let (peer, address) = (peer.to_string(), address.to_string());
            print("connected", json!({ "peer": peer, "address": address, "relayed": relay.is_some() }));
        }
        Event::Disconnected { peer, reason, .. } => {
            print("disconnected", json!({ "peer": peer.to_string(), "reason": reason.to_string() }));
        }
        Event::Reservation(client::Event::Reserved { relay, expires, addresses, .. }) => {
            let addresses: Vec<_> = addresses.iter().map(Multiaddr::to_string).collect();
            let (relay, expires) = (relay.to_string(), expires.as_secs());
            print("reservation", json!({ "relay": relay, "expires": expires, "addresses": addresses }));
        }
        Event::Reservation(client::Event::Lost { relay, reason, .. }) => {
            print("reservation_lost", json!({ "relay": relay.to_string(), "reason": reason.to_string() }));
        }
        Event::Reservation(client::Event::Failed { address, reason, .. }) => {
            print("error", json!({ "message": format!("no reservation at {address}: {reason}") }));
        }
        Event::Hop(hop::Event::CircuitOpened { source, target }) => {
            print("circuit_opened", json!({ "source": source.to_string(), "target": target.to_string() }));
        }
        Event::Hop(hop::Event::CircuitClosed { source, target, bytes_in, bytes_out, end }) => {
            let (source, target, reason) = (source.to_string(), target.to_string(), end.to_string());
            let bytes = json!({ "source": source, "target": target, "bytes_in": bytes_in,
                "bytes_out": bytes_out, "reason": reason });
            print("circuit_closed", bytes);
        }
        Event::Ping(ping) => match &ping.result {
            Ok(rtt) => {
                let rtt = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
                print("ping", json!({ "peer": ping.peer.to_string(), "rtt_us": rtt }));
            }
            Err(error) => print("error", json!({ "message": error.to_string() })),
        },
        _ => {}
    }
}

/// The verdict on an echo.
pub fn report_echo(bytes: u64, ok: bool) {
    print("echo", json!({ "bytes": bytes, "ok": ok }));
}

/// What is still held at the end, by the node and by its runtime.
pub fn report_left(stats: &node::Stats, runtime: usize) {
    let node::Stats { connections, streams, splices, circuits, dials, timers, .. } = stats;
    let node = json!({ "connections": connections, "streams": streams, "splices": splices,
        "circuits": circuits, "dials": dials, "timers": timers, "runtime": runtime });
    print("left", node);
}

/// Prints an error, if that is the outcome, and turns it into an exit code.
pub fn finish(outcome: Result<(), String>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            print("error", json!({ "message": message }));
            ExitCode::FAILURE
        }
    }
}

/// Runs `stop` when SIGINT or SIGTERM comes, on a thread of its own.
pub fn on_signal(stop: impl FnMut() + Send + 'static) {
    ctrlc::set_handler(stop).expect("no other handler is set");
}

/// Endless bytes that tell where they are, the same for who sends and who compares.
#[derive(Clone, Debug)]
pub struct Pattern(Bytes);

/// A prime: no other period of anything here divides it.
const PERIOD: usize = 65_537;

impl Pattern {
    pub fn new() -> Self {
        let bytes: Vec<u8> = (0..2 * PERIOD).map(|n| (((n % PERIOD) * 197) >> 5) as u8).collect();
        Self(Bytes::from(bytes))
    }

    /// At most `max` bytes at `position`, no more than a chunk.
    pub fn at(&self, position: u64, max: u64) -> Bytes {
        let start = (position % PERIOD as u64) as usize;
        self.0.slice(start..start + max.min(PERIOD as u64) as usize)
    }
}

/// The clocks, which only drivers read.
#[derive(Clone, Copy, Debug)]
pub struct Clock(std::time::Instant);

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "a driver is where the clock is read")]
    pub fn start() -> Self {
        Self(std::time::Instant::now())
    }

    pub fn now(&self) -> Instant {
        Instant::ZERO + self.0.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "a driver is where the clock is read")]
    pub fn unix() -> UnixTime {
        let now = std::time::SystemTime::now();
        UnixTime::from_duration(now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default())
    }
}
