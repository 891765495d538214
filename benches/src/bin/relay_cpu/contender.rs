//! Who relays, between whom, and one transfer through each.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use peerless_benches::process::{Process, Usage};

use crate::build::Programs;

const LOOPBACK: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
const START_TIME: Duration = Duration::from_secs(20);
const TRANSFER_TIME: Duration = Duration::from_secs(600);
/// Before a sample is taken this part of it goes through, so that buffers and windows have grown.
const WARM_UP: u64 = 8;

/// A program between the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    Peerless,
    RustLibp2p,
    Quinn,
}

/// The programs between which bytes are relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ends {
    /// `perf`: bytes go one way.
    Peerless,
    /// `echo`: half of the bytes go there, and come back.
    RustLibp2p,
}

/// What one transfer cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) bytes: u64,
    /// User and system time of the relay's process.
    pub(crate) relay_cpu: f64,
    /// From the first byte to the end of the stream.
    pub(crate) seconds: f64,
    /// How much of a core everybody else used meanwhile.
    pub(crate) others: f64,
}

impl Sample {
    /// Processor seconds of the relay per GiB.
    pub(crate) fn cpu_per_gib(&self) -> f64 {
        self.relay_cpu * (1 << 30) as f64 / self.bytes as f64
    }

    pub(crate) fn mib_per_second(&self) -> f64 {
        self.bytes as f64 / (1 << 20) as f64 / self.seconds
    }
}

/// Why there is no sample.
pub(crate) enum Skip {
    /// Others used this much of a core.
    Noise(f64),
    Failed(String),
}

impl From<String> for Skip {
    fn from(error: String) -> Self {
        Self::Failed(error)
    }
}

/// The programs of a sample, running, and where to send to.
struct Stage {
    relay: Process,
    listener: Process,
    address: String,
}

impl Contender {
    /// In the order in which they take turns.
    pub(crate) const ALL: [Self; 3] = [Self::Peerless, Self::RustLibp2p, Self::Quinn];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Peerless => "peerless",
            Self::RustLibp2p => "rust-libp2p",
            Self::Quinn => "quinn",
        }
    }

    /// Sends `bytes` through a relay that was started for it.
    pub(crate) fn sample(
        self,
        programs: &Programs,
        ends: Ends,
        bytes: u64,
        noise: f64,
    ) -> Result<Sample, Skip> {
        let stage = match self {
            Self::Peerless => circuit(programs, ends, &programs.peerless, &["--ephemeral"])?,
            Self::RustLibp2p => circuit(programs, ends, &programs.rust_peer, &[])?,
            Self::Quinn => forwarded(programs, ends)?,
        };
        ends.transfer(programs, &stage.address, bytes.div_ceil(WARM_UP))?;
        let running = || Ok::<_, String>((stage.relay.cpu_seconds()?, stage.listener.cpu_seconds()?));
        let (usage, (relay, listener)) = (Usage::now()?, running()?);
        let seconds = ends.transfer(programs, &stage.address, bytes)?;
        let (usage_after, (relay_after, listener_after)) = (Usage::now()?, running()?);
        let relay_cpu = relay_after - relay;
        let others = usage_after.others_since(&usage, relay_cpu + listener_after - listener);
        if others > noise {
            return Err(Skip::Noise(others));
        }
        Ok(Sample { bytes, relay_cpu, seconds, others })
    }
}

/// A relay, and a listener with a reservation at it.
fn circuit(programs: &Programs, ends: Ends, relay: &Path, flags: &[&str]) -> Result<Stage, String> {
    let mut command = Command::new(relay);
    command.args(flags).args(["--json", "relay", "--listen", LOOPBACK]);
    command.args(["--circuit-bytes", "0", "--circuit-duration", "0"]);
    let relay = Process::start("relay", &mut command)?;
    let relay_address = listening(&relay)?;
    let mut command = ends.command(programs, "listen");
    let listener = Process::start("listen", command.args(["--listen", LOOPBACK, "--relay", &relay_address]))?;
    let listener_address = listening(&listener)?;
    let (_, peer) = listener_address.rsplit_once("/p2p/").ok_or("listen: its address names no peer")?;
    let address = format!("{relay_address}/p2p-circuit/p2p/{peer}");
    listener.wait_for("reservation", START_TIME)?;
    Ok(Stage { relay, listener, address })
}

/// A listener, and the quinn forwarder before it, which is the peer that the source sees.
fn forwarded(programs: &Programs, ends: Ends) -> Result<Stage, String> {
    let mut command = ends.command(programs, "listen");
    let listener = Process::start("listen", command.args(["--listen", LOOPBACK]))?;
    let target = socket_address(&listening(&listener)?)?;
    let mut command = Command::new(&programs.quinn_forwarder);
    let relay = Process::start("quinn-forwarder", command.args(["127.0.0.1:0", &target]))?;
    let address = listening(&relay)?;
    Ok(Stage { relay, listener, address })
}

impl Ends {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Peerless => Contender::Peerless.name(),
            Self::RustLibp2p => Contender::RustLibp2p.name(),
        }
    }

    fn command(self, programs: &Programs, subcommand: &str) -> Command {
        let (program, flags): (_, &[&str]) = match self {
            Self::Peerless => (&programs.peerless, &["--ephemeral"]),
            Self::RustLibp2p => (&programs.rust_peer, &[]),
        };
        let mut command = Command::new(program);
        command.args(flags).args(["--json", subcommand]);
        command
    }

    /// Returns how many seconds it took; between rust-libp2p's ends that is with the start and the dial.
    fn transfer(self, programs: &Programs, address: &str, bytes: u64) -> Result<f64, String> {
        let (subcommand, flag, given) = match self {
            Self::Peerless => ("perf", "--upload", bytes),
            Self::RustLibp2p => ("echo", "--bytes", bytes / 2),
        };
        let started = Instant::now();
        let mut command = self.command(programs, subcommand);
        let source = Process::start(subcommand, command.args([address, flag, &given.to_string()]))?;
        let done = source.wait_for(subcommand, TRANSFER_TIME)?;
        let took = started.elapsed().as_secs_f64();
        source.join()?;
        if done["bytes"].as_u64() != Some(given) || done["ok"].as_bool() == Some(false) {
            return Err(format!("{subcommand}: unexpected {done}"));
        }
        Ok(done["seconds"].as_f64().unwrap_or(took))
    }
}

fn listening(process: &Process) -> Result<String, String> {
    let event = process.wait_for("listening", START_TIME)?;
    event["address"].as_str().map(str::to_owned).ok_or_else(|| "an address that is none".into())
}

/// `IP:PORT` of `/ip4/IP/udp/PORT/…`.
fn socket_address(address: &str) -> Result<String, String> {
    let parts: Vec<_> = address.split('/').collect();
    match parts[..] {
        ["", "ip4", ip, "udp", port, ..] => Ok(format!("{ip}:{port}")),
        _ => Err(format!("{address} is no IPv4 address")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_address_is_in_the_multiaddr() {
        assert_eq!(socket_address("/ip4/127.0.0.1/udp/4001/quic-v1/p2p/x"), Ok("127.0.0.1:4001".into()));
        assert!(socket_address("/ip6/::1/udp/4001/quic-v1").is_err());
    }

    #[test]
    fn costs_are_per_gib() {
        let sample = Sample { bytes: 256 << 20, relay_cpu: 0.5, seconds: 2.0, others: 0.0 };
        assert_eq!((sample.cpu_per_gib(), sample.mib_per_second()), (2.0, 128.0));
    }
}
