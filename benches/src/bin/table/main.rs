//! The whole table of results in one run: our relay beside rust-libp2p's, go-libp2p's and a forwarder on quinn alone, our
//! direct connections beside quinn's, and the drivers beside each other. Each program is a process of its own, started anew
//! for every sample, and they take turns.

// A bench is what starts processes and waits for them.
#![allow(clippy::disallowed_methods)]

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use peerless_benches::programs::{Given, Programs};

mod board;
mod handshakes;
mod memory;
mod sections;
mod stage;

use board::Board;
use sections::Section;
use stage::{Bench, Skip};

/// How often a sample is taken anew if others used the machine meanwhile.
const TRIES: usize = 4;

#[derive(Parser)]
#[command(name = "table", about = "Everything measured beside others, in one run")]
struct Options {
    /// Samples of each contender
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// These sections only (default: all)
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Section>,
    /// MiB of each transfer of a given size
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u64).range(2..))]
    mib: u64,
    /// Seconds of each transfer of a given time
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// How many peers there are when memory is measured
    #[arg(long, value_delimiter = ',', default_values_t = [1000, 10_000])]
    peers: Vec<usize>,
    /// Most of a core that anybody else may use during a sample
    #[arg(long, default_value_t = 0.1)]
    noise: f64,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    given: Given,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("table: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let programs = Programs::get(&options.given)?;
    let bench = Bench { programs, mib: options.mib, seconds: options.seconds, noise: options.noise };
    let wanted = if options.only.is_empty() { Section::value_variants() } else { &options.only };
    for section in wanted {
        let mut board = Board::new(section.measures(&options.peers), section.columns(&bench));
        for round in 1..=section.rounds(options.rounds) {
            for column in section.columns(&bench) {
                for (key, value) in take(&bench, options, *section, column, round) {
                    board.add(&key, column, round, value, options.json);
                }
            }
        }
        if options.json {
            board.print_json();
        } else {
            println!("### {}\n", section.title());
            board.print_markdown();
        }
    }
    Ok(())
}

/// A sample that nobody disturbed, if there is one to be had. Who fails has none, and the others go on.
fn take(
    bench: &Bench,
    options: &Options,
    section: Section,
    column: &'static str,
    round: u64,
) -> Vec<(String, f64)> {
    for _ in 0..TRIES {
        match section.sample(bench, column, &options.peers) {
            Ok(values) => {
                eprintln!("{section:?} {round}: {column}: {}", board::line(&values));
                return values;
            }
            Err(Skip::Noise(others)) => {
                eprintln!("{column}: skipped a sample, others used {others:.2} of a core meanwhile");
            }
            Err(Skip::Failed(error)) => {
                eprintln!("{section:?} {round}: {column}: {error}");
                return Vec::new();
            }
        }
    }
    eprintln!("{column}: no sample in round {round}, the machine is never quiet");
    Vec::new()
}
