//! The programs of a sample, running.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use peerless_benches::{
    process::{Process, Usage},
    programs::Programs,
};

pub(crate) const PEERLESS: &str = "peerless";
pub(crate) const RUST: &str = "rust-libp2p";
pub(crate) const GO: &str = "go-libp2p";
pub(crate) const QUINN: &str = "quinn";

const LOOPBACK: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
const START_TIME: Duration = Duration::from_secs(30);
const WORK_TIME: Duration = Duration::from_secs(600);

/// What all sections need.
pub(crate) struct Bench {
    pub(crate) programs: Programs,
    pub(crate) mib: u64,
    pub(crate) seconds: f64,
    pub(crate) noise: f64,
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

impl From<&str> for Skip {
    fn from(error: &str) -> Self {
        Self::Failed(error.into())
    }
}

/// What a piece of work cost.
pub(crate) struct Cost {
    /// By the clock.
    pub(crate) seconds: f64,
    /// Processor seconds of the programs that kept running, in the order in which they were given.
    pub(crate) running: Vec<f64>,
    /// Processor seconds of those that started and ended meanwhile.
    pub(crate) ended: f64,
}

/// A relay, and behind it those who serve.
pub(crate) struct Stage {
    pub(crate) relay: Process,
    pub(crate) serve: Process,
    /// One for each of those who serve.
    pub(crate) addresses: Vec<String>,
}

impl Bench {
    /// Does a piece of work, from whose samples nobody else may take too much of the machine.
    pub(crate) fn watch<T>(
        &self,
        running: &[&Process],
        work: impl FnOnce() -> Result<T, String>,
    ) -> Result<(T, Cost), Skip> {
        let cpu = || running.iter().map(|process| process.cpu_seconds()).collect::<Result<Vec<_>, _>>();
        let (before, usage, started) = (cpu()?, Usage::now()?, Instant::now());
        let result = work()?;
        let (seconds, usage_after, after) = (started.elapsed().as_secs_f64(), Usage::now()?, cpu()?);
        let running: Vec<f64> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
        let others = usage_after.others_since(&usage, running.iter().sum());
        if others > self.noise {
            return Err(Skip::Noise(others));
        }
        Ok((result, Cost { seconds, running, ended: usage_after.ours_since(&usage) }))
    }

    /// The relay of a contender.
    pub(crate) fn relay(&self, column: &str) -> Result<(Process, String), String> {
        let Programs { peerless, rust_peer, go_peer, .. } = &self.programs;
        let (program, flags): (&Path, &[&str]) = match column {
            PEERLESS => (peerless, &["--json", "--ephemeral", "relay", "--preset", "unlimited"]),
            RUST => (rust_peer, &["relay"]),
            GO => (go_peer.as_deref().ok_or("there is no Go")?, &["relay"]),
            other => return Err(format!("{other} is no relay")),
        };
        let relay = Process::start(column, Command::new(program).args(flags).args(["--listen", LOOPBACK]))?;
        let address = listening(&relay)?;
        Ok((relay, address))
    }

    /// A listener of a contender, without relays.
    pub(crate) fn listener(&self, column: &str) -> Result<(Process, String), String> {
        let Programs { peerless, rust_peer, go_peer, .. } = &self.programs;
        let (program, flags): (&Path, &[&str]) = match column {
            PEERLESS => (peerless, &["--json", "--ephemeral", "listen"]),
            RUST => (rust_peer, &["listen"]),
            GO => (go_peer.as_deref().ok_or("there is no Go")?, &["listen"]),
            _ => return self.quinn(&["listen", "127.0.0.1:0"]),
        };
        let process = Process::start(column, Command::new(program).args(flags).args(["--listen", LOOPBACK]))?;
        let address = listening(&process)?;
        Ok((process, address))
    }

    /// A program on quinn alone that listens.
    pub(crate) fn quinn(&self, args: &[&str]) -> Result<(Process, String), String> {
        let process = Process::start(QUINN, Command::new(&self.programs.quinn_peer).args(args))?;
        let address = listening(&process)?;
        Ok((process, address))
    }

    /// Circuits to so many peers, of which each serves one; or as many connections forwarded to one peer.
    pub(crate) fn circuits(&self, column: &str, count: usize) -> Result<Stage, String> {
        let serve = |args: &[&str]| {
            let serve = self.crowd(&[&["serve"], args].concat())?;
            let serving = serve.wait_for("serving", START_TIME)?;
            let addresses = serving["addresses"].as_array().into_iter().flatten();
            let addresses = addresses.filter_map(|address| address.as_str().map(str::to_owned));
            Ok::<_, String>((serve, addresses.collect::<Vec<_>>()))
        };
        if column == QUINN {
            let (serve, direct) = serve(&[])?;
            let target = socket_address(direct.first().ok_or("nobody serves")?)?;
            let (relay, address) = self.quinn(&["forward", "127.0.0.1:0", &target])?;
            return Ok(Stage { relay, serve, addresses: vec![address; count] });
        }
        let (relay, address) = self.relay(column)?;
        let (serve, addresses) = serve(&["--peers", &count.to_string(), "--relay", &address])?;
        Ok(Stage { relay, serve, addresses })
    }

    /// Many peers of ours in a process.
    pub(crate) fn crowd(&self, args: &[&str]) -> Result<Process, String> {
        Process::start("crowd", Command::new(&self.programs.crowd).args(args))
    }

    /// A listener of rust-libp2p behind a relay, or behind the forwarder, and the address that leads there.
    pub(crate) fn rust_circuit(&self, column: &str) -> Result<(Process, Process, String), String> {
        if column == QUINN {
            let (listener, direct) = self.listener(RUST)?;
            let (relay, address) = self.quinn(&["forward", "127.0.0.1:0", &socket_address(&direct)?])?;
            return Ok((relay, listener, address));
        }
        let (relay, address) = self.relay(column)?;
        let mut command = Command::new(&self.programs.rust_peer);
        command.args(["listen", "--listen", LOOPBACK, "--relay", &address]);
        let listener = Process::start(RUST, &mut command)?;
        let direct = listening(&listener)?;
        let (_, peer) = direct.rsplit_once("/p2p/").ok_or("the address names no peer")?;
        listener.wait_for("reservation", START_TIME)?;
        Ok((relay, listener, format!("{address}/p2p-circuit/p2p/{peer}")))
    }

    /// An example of a driver that listens.
    pub(crate) fn example(&self, driver: &str) -> Result<(Process, String), String> {
        let mut command = Command::new(self.programs.examples.join(format!("{driver}_node")));
        let process = Process::start(driver, command.args(["listen", "--listen", LOOPBACK]))?;
        let address = listening(&process)?;
        Ok((process, address))
    }
}

/// Runs a program to its end; what it says in that event.
pub(crate) fn run_for(event: &str, command: &mut Command) -> Result<serde_json::Value, String> {
    let process = Process::start(event, command)?;
    let said = process.wait_for(event, WORK_TIME)?;
    process.join()?;
    if said["ok"].as_bool() == Some(false) {
        return Err(format!("{event}: unexpected {said}"));
    }
    Ok(said)
}

/// A number of an event.
pub(crate) fn number(said: &serde_json::Value, field: &str) -> Result<f64, String> {
    said[field].as_f64().ok_or_else(|| format!("no {field} in {said}"))
}

/// The numbers of an event.
pub(crate) fn numbers(said: &serde_json::Value, field: &str) -> Result<Vec<f64>, String> {
    let values = said[field].as_array().ok_or_else(|| format!("no {field} in {said}"))?;
    Ok(values.iter().filter_map(serde_json::Value::as_f64).collect())
}

pub(crate) fn wait_for(process: &Process, event: &str) -> Result<serde_json::Value, String> {
    process.wait_for(event, WORK_TIME)
}

fn listening(process: &Process) -> Result<String, String> {
    let event = process.wait_for("listening", START_TIME)?;
    event["address"].as_str().map(str::to_owned).ok_or_else(|| "an address that is none".into())
}

/// `IP:PORT` of `/ip4/IP/udp/PORT/…`.
pub(crate) fn socket_address(address: &str) -> Result<String, String> {
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
}
