//! A source, a relay and a target in one process, without sockets and in virtual time: what the relay's own calls cost.

// A bench is what reads the clock.
#![allow(clippy::disallowed_methods)]

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use peerless_benches::summary::Summary;
use serde_json::{Map, Value, json};

mod forward;
mod network;
mod traffic;

use traffic::{Mode, Scene, Transfer};

#[derive(Parser)]
#[command(name = "relay_memory", about = "What a relay's own calls cost, in memory")]
struct Options {
    /// MiB to relay in each round
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..))]
    mib: u64,
    /// How often
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Round-trip time between neighbours, in microseconds of virtual time
    #[arg(long, default_value_t = 1000)]
    rtt: u64,
    /// These only (default: the two that relay)
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Mode::Spliced, Mode::Circuit])]
    mode: Vec<Mode>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    for mode in options.mode.iter().copied() {
        match measure(&options, mode) {
            Ok(rounds) => report(&options, mode, &rounds),
            Err(error) => {
                eprintln!("{}: {error}", name(mode));
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn measure(options: &Options, mode: Mode) -> Result<Vec<Transfer>, String> {
    let mut scene = Scene::new(mode, Duration::from_micros(options.rtt))?;
    (0..options.rounds).map(|_| scene.transfer(options.mib << 20)).collect()
}

fn name(mode: Mode) -> &'static str {
    match mode {
        Mode::Spliced => "spliced streams",
        Mode::Circuit => "circuit",
        Mode::Echo => "echo",
    }
}

/// A row of the table: what it is called, its name in JSON, its digits, and its value in one round.
type Row = (&'static str, &'static str, usize, fn(f64, &Transfer) -> f64);

const ROWS: [Row; 9] = [
    ("relay alone, MiB/s", "relay_mib_per_second", 1, |mib, t| mib / relay_seconds(t)),
    ("relay alone, CPU s/GiB", "relay_seconds_per_gib", 3, |mib, t| relay_seconds(t) * 1024.0 / mib),
    ("relay, ns per relayed datagram", "relay_ns_per_datagram", 0, |_, t| {
        relay_seconds(t) * 1e9 / t.cost.from_source as f64
    }),
    ("  of which in poll_transmit", "transmit_ns_per_datagram", 0, |_, t| {
        t.cost.transmitting.as_nanos() as f64 / t.cost.from_source as f64
    }),
    ("relay, allocations per relayed datagram", "allocations_per_datagram", 3, |_, t| {
        t.cost.allocations as f64 / t.cost.from_source as f64
    }),
    ("relay, bytes allocated per relayed datagram", "allocated_bytes_per_datagram", 0, |_, t| {
        t.cost.allocated_bytes as f64 / t.cost.from_source as f64
    }),
    ("datagrams per batch in", "datagrams_per_batch_in", 1, |_, t| {
        t.cost.from_source as f64 / t.cost.batches_in as f64
    }),
    ("datagrams sent per relayed datagram", "datagrams_sent_per_datagram", 3, |_, t| {
        t.cost.sent as f64 / t.cost.from_source as f64
    }),
    ("all three nodes, MiB/s", "all_mib_per_second", 1, |mib, t| mib / t.wall.as_secs_f64()),
];

fn relay_seconds(transfer: &Transfer) -> f64 {
    (transfer.cost.handling + transfer.cost.transmitting).as_secs_f64()
}

fn report(options: &Options, mode: Mode, rounds: &[Transfer]) {
    let (name, mib) = (name(mode), options.mib);
    let summaries = ROWS.map(|(.., value)| Summary::of(rounds.iter().map(|round| value(mib as f64, round))));
    if options.json {
        let values = ROWS.iter().zip(summaries).filter_map(|(row, s)| Some((row.1.to_owned(), s?.json())));
        let mut line = Map::from_iter(values);
        line.insert("event".into(), "measured".into());
        line.insert("mode".into(), name.into());
        line.insert("mib".into(), json!(mib));
        println!("{}", Value::from(line));
        return;
    }
    println!("{name}: {} rounds of {mib} MiB, {} us a round trip", rounds.len(), options.rtt);
    println!("  {:45} {:>10} {:>10} {:>10}", "", "median", "min", "max");
    for ((label, _, digits, _), summary) in ROWS.iter().zip(summaries) {
        if let Some(summary) = summary {
            println!("  {label:45} {summary:.digits$}");
        }
    }
}
