//! How often a node wakes up that has nothing to do, alone and with a thousand connections: a runtime that polls shows here.

// A bench is what reads the clock.
#![allow(clippy::disallowed_methods)]

use std::{
    process::{Command, ExitCode},
    thread,
    time::Duration,
};

use clap::{Parser, Subcommand, ValueEnum};
use peerless_benches::process::Process;
use peerless_core::{Multiaddr, identity::Identity, node, rng::Rng, swarm::SwarmConfig};
use serde_json::json;

mod crowd;

/// Connections of one process of the crowd; each takes a socket.
const CROWD: usize = 500;
const PATIENCE: Duration = Duration::from_secs(120);
/// For what follows a handshake: identify, acknowledgements, probes for the MTU.
const SETTLE: Duration = Duration::from_secs(15);
/// A node without keep-alives may wake up so often in a second, for whatever the system thinks of. A tick is more.
const MOST_WITHOUT_KEEP_ALIVE: f64 = 0.5;
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Parser)]
#[command(name = "idle_wakeups", about = "How often an idle node wakes up, and what that costs (Linux)")]
struct Options {
    /// Connections
    #[arg(long, default_value_t = 1000)]
    connections: usize,
    /// Seconds to watch
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Runtime {
    Mio,
    AsyncStd,
}

/// What the program starts itself as.
#[derive(Subcommand)]
enum Role {
    /// The node that is watched
    #[command(hide = true)]
    Node { runtime: Runtime, keep_alive: u64 },
    /// Nodes that are connected to it
    #[command(hide = true)]
    Crowd { to: Multiaddr, count: usize },
}

fn main() -> ExitCode {
    let options = Options::parse();
    let result = match &options.role {
        None => measure(&options),
        Some(Role::Node { runtime, keep_alive }) => run_node(*runtime, *keep_alive),
        Some(Role::Crowd { to, count }) => crowd::run(to, *count),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{}", json!({ "event": "error", "message": error }));
            ExitCode::FAILURE
        }
    }
}

/// A node that asks for signs of life so often, or never, and never gives a connection up.
fn config(seed: [u8; 32], keep_alive: u64) -> node::Config {
    let mut config = node::Config::new(Identity::generate(&mut Rng::new(seed)));
    config.swarm = SwarmConfig::unlimited();
    config.quic.idle_timeout = Duration::from_secs(24 * 3600);
    config.quic.keep_alive = (keep_alive > 0).then(|| Duration::from_secs(keep_alive));
    config
}

fn run_node(runtime: Runtime, keep_alive: u64) -> Result<(), String> {
    let (config, listen) = (config([1; 32], keep_alive), vec![([127, 0, 0, 1], 0).into()]);
    let listening = |node: &node::Node| {
        let address = node.addresses().advertised().remove(0);
        println!("{}", json!({ "event": "listening", "address": address.to_string() }));
    };
    match runtime {
        Runtime::Mio => {
            let config_of_runtime = peerless_mio::RuntimeConfig { listen, ..Default::default() };
            let mut runtime =
                peerless_mio::Runtime::new(config, config_of_runtime).map_err(|error| error.to_string())?;
            listening(runtime.node());
            runtime.run(|_, _| {}).map_err(|error| error.to_string())
        }
        Runtime::AsyncStd => async_std::task::block_on(async {
            let config_of_runtime = peerless_async_std::Config { listen, ..Default::default() };
            let handle =
                peerless_async_std::spawn(config, config_of_runtime).map_err(|error| error.to_string())?;
            handle.with(|node, _| listening(node));
            std::future::pending().await
        }),
    }
}

/// A node with so many connections that keeps them alive so often, and what it did in a second.
struct Row {
    runtime: Runtime,
    connections: usize,
    keep_alive: u64,
    wakeups: f64,
    cpu_ms: f64,
}

fn measure(options: &Options) -> Result<(), String> {
    if !options.json {
        println!("{} s each; a second of them has", options.seconds);
        println!(
            "{:10} {:>11} {:>11} {:>10} {:>8}",
            "runtime", "connections", "keep-alive", "wake-ups", "CPU ms"
        );
    }
    let mut polls = Vec::new();
    for runtime in [Runtime::Mio, Runtime::AsyncStd] {
        let full = options.connections;
        for (connections, keep_alive) in [(0, 0), (full, 0), (full, KEEP_ALIVE.as_secs())] {
            let row = watch(options, runtime, connections, keep_alive)?;
            report(options, &row);
            if keep_alive == 0 && row.wakeups > MOST_WITHOUT_KEEP_ALIVE {
                polls.push(format!("{runtime:?} with {connections} connections"));
            }
        }
    }
    if polls.is_empty() { Ok(()) } else { Err(format!("wakes up without need: {}", polls.join(", "))) }
}

fn watch(options: &Options, runtime: Runtime, connections: usize, keep_alive: u64) -> Result<Row, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let name = runtime.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
    let arguments = ["node", &name, &keep_alive.to_string()];
    let node = Process::start("node", Command::new(&own).args(arguments))?;
    let listening = node.wait_for("listening", PATIENCE)?;
    let address = listening["address"].as_str().ok_or("no address")?;
    let mut crowds = Vec::new();
    for first in (0..connections).step_by(CROWD) {
        let count = CROWD.min(connections - first).to_string();
        let crowd = Process::start("crowd", Command::new(&own).args(["crowd", address, &count]))?;
        crowd.wait_for("connected", PATIENCE)?;
        crowds.push(crowd);
    }
    thread::sleep(SETTLE);
    let before = (node.wakeups()?, node.cpu_seconds()?);
    thread::sleep(Duration::from_secs(options.seconds));
    let seconds = options.seconds as f64;
    let wakeups = (node.wakeups()? - before.0) as f64 / seconds;
    let cpu_ms = (node.cpu_seconds()? - before.1) * 1000.0 / seconds;
    Ok(Row { runtime, connections, keep_alive, wakeups, cpu_ms })
}

fn report(options: &Options, row: &Row) {
    let Row { runtime, connections, keep_alive, wakeups, cpu_ms } = row;
    let runtime = match runtime {
        Runtime::Mio => "mio",
        Runtime::AsyncStd => "async-std",
    };
    if options.json {
        let line = json!({ "runtime": runtime, "connections": connections, "keep_alive_seconds": keep_alive,
            "wakeups_per_second": wakeups, "cpu_ms_per_second": cpu_ms });
        return println!("{line}");
    }
    let often = if *keep_alive == 0 { "never".to_owned() } else { format!("{keep_alive} s") };
    println!("{runtime:10} {connections:>11} {often:>11} {wakeups:>10.2} {cpu_ms:>8.2}");
}
