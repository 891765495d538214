//! The samples as they come, and in the end the table.

use peerless_benches::summary::Summary;
use serde_json::json;

use crate::{
    Options,
    contender::{Contender, Sample},
};

/// One sample of each contender, where there is one.
pub(crate) type Round = [Option<Sample>; Contender::ALL.len()];

/// What is compared: what it is called, its name in JSON, and its value.
type Measure = (&'static str, &'static str, fn(&Sample) -> f64);

const MEASURES: [Measure; 2] = [
    ("relay CPU, s/GiB", "relay_cpu_seconds_per_gib", Sample::cpu_per_gib),
    ("throughput, MiB/s", "mib_per_second", Sample::mib_per_second),
];

/// Prints a sample.
pub(crate) fn sample(options: &Options, contender: Contender, round: u64, sample: &Sample) {
    let (name, cpu, rate) = (contender.name(), sample.cpu_per_gib(), sample.mib_per_second());
    if options.json {
        let line = json!({
            "sample": name,
            "ends": options.ends.name(),
            "round": round,
            "bytes": sample.bytes,
            "relay_cpu_seconds_per_gib": cpu,
            "mib_per_second": rate,
            "others_cores": sample.others,
        });
        println!("{line}");
    } else {
        eprintln!("round {round}: {name:12} {cpu:7.2} s/GiB {rate:8.1} MiB/s");
    }
}

/// Prints the medians and the ratios. A ratio is that of the two samples of one round.
pub(crate) fn summary(options: &Options, rounds: &[Round]) {
    if !options.json {
        println!("{:32} {:>10} {:>10} {:>10} {:>4}", "", "median", "min", "max", "n");
    }
    for (label, key, value) in MEASURES {
        for (n, contender) in Contender::ALL.iter().enumerate() {
            let values = rounds.iter().filter_map(|round| round[n].as_ref().map(value));
            line(options, contender.name(), [label, key], Summary::of(values));
        }
        for (n, contender) in Contender::ALL.iter().enumerate().skip(1) {
            let ratios = rounds.iter().filter_map(|round| Some(value(&round[0]?) / value(&round[n]?)));
            line(options, &format!("peerless / {}", contender.name()), [label, key], Summary::of(ratios));
        }
    }
}

fn line(options: &Options, of: &str, [label, key]: [&str; 2], summary: Option<Summary>) {
    match summary {
        Some(summary) if options.json => {
            println!(
                "{}",
                json!({ "summary": of, "ends": options.ends.name(), "measure": key, "values": summary.json() })
            );
        }
        Some(summary) => {
            let unit = if of.contains('/') { "ratio" } else { label.rsplit(' ').next().unwrap_or_default() };
            println!("{of:24} {unit:7} {summary:.2} {:>4}", summary.count);
        }
        None => eprintln!("{of}: no samples"),
    }
}
