//! What is measured, and how.

use std::process::Command;

use clap::ValueEnum;

use crate::{
    board::{
        Measure,
        Wanted::{Above, AtLeast, AtMost, Below},
    },
    handshakes, memory,
    stage::{Bench, GO, PEERLESS, QUINN, RUST, Skip, number, numbers, run_for, socket_address, wait_for},
};

const GIB: f64 = (1 << 30) as f64;
const MIB: f64 = (1 << 20) as f64;
/// How many circuits there are at the same time.
const CIRCUITS: [usize; 3] = [1, 16, 128];
/// What the core without sockets is called among the drivers.
const IN_MEMORY: &str = "in memory";

/// Key and value.
pub(crate) type Values = Vec<(String, f64)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Section {
    /// Circuits between our ends
    Relay,
    /// One circuit between rust-libp2p's ends
    RustEnds,
    /// Round trips
    Latency,
    /// Opening circuits
    Open,
    /// Connecting, and staying connected
    Handshakes,
    /// What idle peers cost
    Memory,
    /// One stream of a direct connection
    Direct,
    /// The same work on every driver
    Drivers,
}

impl Section {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Relay => "Circuits between our ends",
            Self::RustEnds => "One circuit between rust-libp2p's ends",
            Self::Latency => "Round trips of 64 bytes",
            Self::Open => "Opening circuits",
            Self::Handshakes => "Connecting, and staying connected",
            Self::Memory => "Memory of idle peers",
            Self::Direct => "Direct connection, one stream",
            Self::Drivers => "Drivers: bytes sent there and back at once",
        }
    }

    /// Ours is the first.
    pub(crate) fn columns(self, bench: &Bench) -> Vec<&'static str> {
        let columns: &[_] = match self {
            Self::Relay | Self::Latency | Self::Handshakes | Self::Memory => &[PEERLESS, RUST, GO, QUINN],
            Self::RustEnds => &[PEERLESS, RUST, QUINN],
            Self::Open => &[PEERLESS, RUST, GO],
            Self::Direct => &[PEERLESS, QUINN],
            Self::Drivers => &["mio", "async_std", "smol", "tokio", "std", QUINN, IN_MEMORY],
        };
        let has_go = bench.programs.go_peer.is_some();
        columns.iter().copied().filter(|column| has_go || *column != GO).collect()
    }

    /// How often: what idle peers cost is the same each time, and takes long.
    pub(crate) fn rounds(self, wanted: u64) -> u64 {
        match self {
            Self::Memory => 1,
            Self::Open | Self::RustEnds | Self::Handshakes => wanted.min(3),
            _ => wanted,
        }
    }

    pub(crate) fn measures(self, peers: &[usize]) -> Vec<Measure> {
        let measure = |key: &str, label: &str, digits, wanted| Measure {
            key: key.into(),
            label: label.into(),
            digits,
            wanted,
        };
        match self {
            Self::Relay => CIRCUITS.into_iter().flat_map(of_circuits).collect(),
            Self::RustEnds => vec![
                measure("cpu", "relay CPU, s/GiB", 2, &[AtMost(0.5, RUST), AtMost(0.65, QUINN)]),
                measure("rate", "throughput, MiB/s", 0, &[AtLeast(1.8, RUST)]),
            ],
            Self::Latency => vec![
                measure("p50", "over a circuit, p50, us", 0, &[AtMost(0.75, RUST), AtMost(1.1, QUINN)]),
                measure("p99", "over a circuit, p99, us", 0, &[AtMost(0.75, RUST), AtMost(1.1, QUINN)]),
                measure("direct", "direct, p50, us", 0, &[AtMost(1.0, QUINN)]),
                measure("added", "added by the circuit, p50, us", 0, &[]),
            ],
            Self::Open => vec![
                measure("median", "one, dial to usable, ms", 2, &[AtMost(0.6, RUST)]),
                measure("rate", "one after another, circuits/s", 0, &[]),
                measure("slowest", "10 at once, the slowest, ms", 1, &[Below(20.0)]),
            ],
            Self::Handshakes => handshakes::measures(),
            Self::Memory => peers.iter().flat_map(|peers| memory::measures(*peers)).collect(),
            Self::Direct => vec![
                measure("upload", "up, MiB/s", 0, &[AtLeast(1.0, QUINN)]),
                measure("download", "down, MiB/s", 0, &[AtLeast(1.0, QUINN)]),
                measure("sender", "sender's CPU, s/GiB", 2, &[AtMost(0.9, QUINN)]),
                measure("receiver", "receiver's CPU, s/GiB", 2, &[AtMost(0.9, QUINN)]),
            ],
            Self::Drivers => vec![
                measure("rate", "MiB/s there and back", 0, &[AtLeast(1.0, QUINN)]),
                measure("server", "CPU of who echoes, s/GiB", 2, &[AtMost(0.9, QUINN)]),
                measure("client", "CPU of who compares, s/GiB", 2, &[]),
            ],
        }
    }

    pub(crate) fn sample(self, bench: &Bench, column: &str, peers: &[usize]) -> Result<Values, Skip> {
        match self {
            Self::Relay => relay(bench, column),
            Self::RustEnds => rust_ends(bench, column),
            Self::Latency => latency(bench, column),
            Self::Open => open(bench, column),
            Self::Handshakes => handshakes::sample(bench, column),
            Self::Memory => memory::sample(bench, column, peers),
            Self::Direct => direct(bench, column),
            Self::Drivers if column == IN_MEMORY => in_memory(bench),
            Self::Drivers => driver(bench, column),
        }
    }
}

fn of_circuits(count: usize) -> Vec<Measure> {
    let circuits = if count == 1 { "1 circuit".to_owned() } else { format!("{count} circuits") };
    let measure = |what: &str, label: &str, digits, wanted| Measure {
        key: format!("{what}_{count}"),
        label: format!("{circuits}: {label}"),
        digits,
        wanted,
    };
    let (cpu, rate): (&[_], &[_]) = match count {
        1 => (&[AtMost(0.5, RUST), AtMost(0.65, QUINN)], &[AtLeast(1.8, RUST)]),
        _ => (&[AtMost(0.45, RUST)], &[AtLeast(1.8, RUST)]),
    };
    let mut measures = vec![
        measure("cpu", "relay CPU, s/GiB", 2, cpu),
        measure("rate", "throughput in all, MiB/s", 0, rate),
    ];
    if count > 1 {
        measures.push(measure("jain", "fairness (Jain)", 3, &[Above(0.95)]));
    }
    measures
}

fn relay(bench: &Bench, column: &str) -> Result<Values, Skip> {
    let mut values = Vec::new();
    for count in CIRCUITS {
        let stage = bench.circuits(column, count)?;
        let seconds = bench.seconds.to_string();
        let args: Vec<&str> = ["pull", "--seconds", &seconds]
            .into_iter()
            .chain(stage.addresses.iter().map(String::as_str))
            .collect();
        let work = || {
            let pull = bench.crowd(&args)?;
            wait_for(&pull, "started")?;
            let before = stage.relay.cpu_seconds()?;
            let pulled = wait_for(&pull, "pulled")?;
            let cpu = stage.relay.cpu_seconds()? - before;
            pull.join()?;
            Ok((cpu, pulled))
        };
        let ((cpu, pulled), _) = bench.watch(&[&stage.relay, &stage.serve], work)?;
        let bytes = numbers(&pulled, "bytes")?;
        let total: f64 = bytes.iter().sum();
        values.push((format!("cpu_{count}"), cpu * GIB / total));
        values.push((format!("rate_{count}"), total / MIB / number(&pulled, "seconds")?));
        if count > 1 {
            values.push((format!("jain_{count}"), jain(&bytes)));
        }
    }
    Ok(values)
}

/// Jain's index: 1 if all have the same, 1/n if one has all.
fn jain(shares: &[f64]) -> f64 {
    let (sum, squares) = shares.iter().fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
    sum * sum / (shares.len() as f64 * squares)
}

fn rust_ends(bench: &Bench, column: &str) -> Result<Values, Skip> {
    let (relay, listener, address) = bench.rust_circuit(column)?;
    // Half of it there, and the same back.
    let echo = |bytes: u64| {
        let mut command = Command::new(&bench.programs.rust_peer);
        run_for("echo", command.args(["echo", &address, "--bytes", &(bytes / 2).to_string()]))
    };
    let bytes = bench.mib << 20;
    echo(bytes / 8)?;
    let (_, cost) = bench.watch(&[&relay, &listener], || echo(bytes))?;
    let bytes = bytes as f64;
    Ok(vec![("cpu".into(), cost.running[0] * GIB / bytes), ("rate".into(), bytes / MIB / cost.seconds)])
}

fn latency(bench: &Bench, column: &str) -> Result<Values, Skip> {
    let crowd = |address: &str| {
        let mut command = Command::new(&bench.programs.crowd);
        run_for("echoed", command.args(["echo", address]))
    };
    let stage = bench.circuits(column, 1)?;
    let (circuit, _) = bench.watch(&[&stage.relay, &stage.serve], || crowd(&stage.addresses[0]))?;
    drop(stage);
    let (listener, address) = bench.listener(column)?;
    let (direct, _) = bench.watch(&[&listener], || {
        if column == QUINN {
            let mut command = Command::new(&bench.programs.quinn_peer);
            return run_for("echoed", command.args(["rtt", &socket_address(&address)?, "2000"]));
        }
        crowd(&address)
    })?;
    let [p50, p99, direct] =
        [number(&circuit, "p50_us")?, number(&circuit, "p99_us")?, number(&direct, "p50_us")?];
    let mut values = vec![("p50", p50), ("p99", p99), ("direct", direct)];
    if column != QUINN {
        // Its ends are other ones than those of the forwarder.
        values.push(("added", p50 - direct));
    }
    Ok(values.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

fn open(bench: &Bench, column: &str) -> Result<Values, Skip> {
    let stage = bench.circuits(column, 1)?;
    let open = |args: &[&str]| {
        let mut command = Command::new(&bench.programs.crowd);
        run_for("opened", command.args(["open", &stage.addresses[0]]).args(args))
    };
    let running = [&stage.relay, &stage.serve];
    let (opened, _) = bench.watch(&running, || open(&["--count", "50"]))?;
    let (at_once, _) = bench.watch(&running, || open(&["--count", "10", "--at-once"]))?;
    let mut millis = numbers(&opened, "millis")?;
    millis.sort_by(f64::total_cmp);
    let total: f64 = millis.iter().sum();
    let slowest = numbers(&at_once, "millis")?.into_iter().fold(0.0, f64::max);
    let failed = number(&at_once, "failed")? > 0.0;
    Ok(vec![
        ("median".into(), millis[millis.len() / 2]),
        ("rate".into(), millis.len() as f64 * 1e3 / total),
        ("slowest".into(), if failed { f64::INFINITY } else { slowest }),
    ])
}

fn direct(bench: &Bench, column: &str) -> Result<Values, Skip> {
    let (listener, address) = bench.listener(column)?;
    let socket = socket_address(&address)?;
    let transfer = |direction: &str, bytes: u64| {
        let bytes = bytes.to_string();
        if column == QUINN {
            let mut command = Command::new(&bench.programs.quinn_peer);
            return run_for(direction, command.args([direction, &socket, &bytes]));
        }
        let mut command = Command::new(&bench.programs.peerless);
        command.args(["--json", "--ephemeral", "perf", &address, &format!("--{direction}"), &bytes]);
        run_for("perf", &mut command)
    };
    let bytes = bench.mib << 20;
    transfer("upload", bytes / 8)?;
    let (up, up_cost) = bench.watch(&[&listener], || transfer("upload", bytes))?;
    let (down, _) = bench.watch(&[&listener], || transfer("download", bytes))?;
    let bytes = bytes as f64;
    Ok(vec![
        ("upload".into(), bytes / MIB / number(&up, "seconds")?),
        ("download".into(), bytes / MIB / number(&down, "seconds")?),
        ("sender".into(), up_cost.ended * GIB / bytes),
        ("receiver".into(), up_cost.running[0] * GIB / bytes),
    ])
}

fn driver(bench: &Bench, column: &str) -> Result<Values, Skip> {
    let (server, address) = if column == QUINN { bench.listener(QUINN)? } else { bench.example(column)? };
    let socket = socket_address(&address)?;
    let echo = |bytes: u64| {
        let bytes = bytes.to_string();
        let mut command = if column == QUINN {
            let mut command = Command::new(&bench.programs.quinn_peer);
            command.args(["echo", &socket, &bytes]);
            command
        } else {
            let mut command = Command::new(bench.programs.examples.join(format!("{column}_node")));
            command.args(["echo", &address, "--bytes", &bytes]);
            command
        };
        run_for("echo", &mut command)
    };
    let bytes = (bench.mib << 20) / 2;
    echo(bytes / 8)?;
    let (_, cost) = bench.watch(&[&server], || echo(bytes))?;
    let bytes = bytes as f64;
    Ok(vec![
        ("rate".into(), bytes / MIB / cost.seconds),
        ("server".into(), cost.running[0] * GIB / bytes),
        ("client".into(), cost.ended * GIB / bytes),
    ])
}

/// Both nodes in one thread, and no sockets: what is left of the above is the driver's and the kernel's.
fn in_memory(bench: &Bench) -> Result<Values, Skip> {
    let mib = bench.mib / 2;
    let work = || {
        let mut command = Command::new(&bench.programs.memory);
        let args = ["--json", "--mode", "echo", "--rounds", "1", "--mib", &mib.to_string()];
        run_for("measured", command.args(args))
    };
    let (measured, _) = bench.watch(&[], work)?;
    let value = |key: &str| number(&measured[key], "median");
    Ok(vec![
        ("rate".into(), value("all_mib_per_second")?),
        ("server".into(), value("relay_seconds_per_gib")?),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fairness_is_between_one_and_an_nth() {
        assert_eq!(jain(&[2.0, 2.0, 2.0]), 1.0);
        assert_eq!(jain(&[5.0, 0.0, 0.0, 0.0]), 0.25);
    }
}
