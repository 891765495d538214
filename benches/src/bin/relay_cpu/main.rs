//! What relaying costs on real sockets: our relay, rust-libp2p's, and a program with nothing on top of quinn, each as a
//! process of its own between the same two ends, in turns.

// A bench is what starts processes and waits for them.
#![allow(clippy::disallowed_methods)]

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;

mod build;
mod contender;
mod report;

use build::Programs;
use contender::{Contender, Ends, Sample, Skip};

/// How often a sample is taken anew if others used the machine meanwhile.
const TRIES: usize = 5;

#[derive(Parser)]
#[command(name = "relay_cpu", about = "What relaying costs, beside rust-libp2p and bare quinn")]
struct Options {
    /// MiB to relay in each sample
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..))]
    mib: u64,
    /// Samples of each contender
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Whose the two ends are
    #[arg(long, value_enum, default_value_t = Ends::Peerless)]
    ends: Ends,
    /// Most of a core that anybody else may use during a sample
    #[arg(long, default_value_t = 0.1)]
    noise: f64,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// The `peerless` program, if it is built already
    #[arg(long)]
    peerless: Option<PathBuf>,
    /// The rust-libp2p peer of the interop suite, if it is built already
    #[arg(long)]
    rust_peer: Option<PathBuf>,
    /// The quinn forwarder, if it is built already
    #[arg(long)]
    quinn_forwarder: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("relay_cpu: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let programs = Programs::get(options)?;
    let mut rounds = Vec::new();
    for round in 1..=options.rounds {
        let mut samples = [None; Contender::ALL.len()];
        for (contender, sample) in Contender::ALL.into_iter().zip(&mut samples) {
            *sample = take(contender, &programs, options, round)?;
        }
        rounds.push(samples);
    }
    report::summary(options, &rounds);
    Ok(())
}

/// A sample that nobody disturbed, if there is one to be had.
fn take(
    contender: Contender,
    programs: &Programs,
    options: &Options,
    round: u64,
) -> Result<Option<Sample>, String> {
    let name = contender.name();
    for _ in 0..TRIES {
        match contender.sample(programs, options.ends, options.mib << 20, options.noise) {
            Ok(sample) => {
                report::sample(options, contender, round, &sample);
                return Ok(Some(sample));
            }
            Err(Skip::Noise(others)) => {
                eprintln!("{name}: skipped a sample, others used {others:.2} of a core meanwhile");
            }
            Err(Skip::Failed(error)) => return Err(format!("{name}: {error}")),
        }
    }
    eprintln!("{name}: no sample in round {round}, the machine is never quiet");
    Ok(None)
}
