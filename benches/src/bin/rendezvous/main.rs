//! What a rendezvous point costs on real sockets: ours and rust-libp2p's, each as a process of its own with the same
//! clients, in turns.

// A bench is what starts processes and waits for them.
#![allow(clippy::disallowed_methods)]

use std::{error::Error, process::ExitCode};

use clap::{CommandFactory as _, Parser, error::ErrorKind};
use peerless_benches::{programs::Given, summary::Summary};
use serde_json::json;

mod load;
mod sample;

use sample::{Contender, MEASURES, Sample, Skip};

/// How often a sample is taken anew if others used the machine meanwhile.
const TRIES: usize = 5;

type Failure = Box<dyn Error>;

#[derive(Parser)]
#[command(name = "rendezvous", about = "What a rendezvous point costs, beside rust-libp2p's")]
struct Options {
    /// Clients, each with a connection
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(100..))]
    clients: u16,
    /// Registrations of each client when there are many; rust-libp2p's point allows 32, and is left out above
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(2..=1000))]
    each: u16,
    /// Registrations in a namespace, and in a page; not more than clients
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    page: u16,
    /// Requests of each kind that are measured
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..))]
    requests: u32,
    /// Samples of each contender
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
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
    let options = Options::parse();
    if options.page > options.clients {
        let what =
            "--page must not be above --clients: a page is one registration of each client in a namespace";
        Options::command().error(ErrorKind::ValueValidation, what).exit();
    }
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rendezvous: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let contenders = Contender::all(&options.given)?;
    let mut rounds = Vec::new();
    for round in 1..=options.rounds {
        let mut samples = Vec::new();
        for contender in &contenders {
            let is_able = contender.allows(options.each.into());
            let sample = if is_able { take(contender, options)? } else { None };
            if let Some(sample) = &sample {
                eprintln!("round {round}: {}: {sample}", contender.name());
            }
            samples.push(sample);
        }
        rounds.push(samples);
    }
    report(options, &contenders, &rounds);
    Ok(())
}

/// A sample that nobody disturbed, if there is one to be had.
fn take(contender: &Contender, options: &Options) -> Result<Option<Sample>, Failure> {
    for _ in 0..TRIES {
        match contender.sample(options) {
            Ok(sample) => return Ok(Some(sample)),
            Err(Skip::Noise(others)) => {
                eprintln!("{}: skipped a sample, others used {others:.2} of a core", contender.name());
            }
            Err(Skip::Failed(error)) => return Err(format!("{}: {error}", contender.name()).into()),
        }
    }
    eprintln!("{}: no sample, the machine is never quiet", contender.name());
    Ok(None)
}

/// A line for each contender and measure, and the ratios of ours and the other's in the same round.
fn report(options: &Options, contenders: &[Contender], rounds: &[Vec<Option<Sample>>]) {
    for (measure, name) in MEASURES.into_iter().enumerate() {
        for (index, contender) in contenders.iter().enumerate() {
            let samples = rounds.iter().filter_map(|round| round[index].as_ref());
            line(options, name, contender.name(), Summary::of(samples.map(|sample| sample.0[measure])));
        }
        let ratios = rounds.iter().filter_map(|round| match &round[..] {
            [Some(ours), Some(theirs)] => Some(ours.0[measure] / theirs.0[measure]),
            _ => None,
        });
        line(options, name, "ratio", Summary::of(ratios));
    }
}

fn line(options: &Options, measure: &str, who: &str, summary: Option<Summary>) {
    let Some(summary) = summary else { return };
    if options.json {
        println!("{}", json!({ "measure": measure, "who": who, "summary": summary.json() }));
    } else {
        println!("{measure:<40} {who:<12} {summary:.2}");
    }
}
