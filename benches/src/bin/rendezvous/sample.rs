//! One life of a point: few registrations, then many, and what each costs.

use std::{
    fmt,
    ops::Range,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use peerless_benches::{
    process::{Process, Usage},
    programs::Given,
};
use peerless_core::Multiaddr;

use crate::{
    Failure, Options,
    load::{Load, Request},
};

const LOOPBACK: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
const START_TIME: Duration = Duration::from_secs(20);
/// All clients have one address; rust-libp2p's point counts neither requests nor addresses.
const UNLIMITED: [&str; 11] = [
    "--ephemeral",
    "--request-rate",
    "0",
    "--request-rate-per-ip",
    "0",
    "--max-registrations",
    "0",
    "--max-registrations-per-peer",
    "0",
    "--max-registrations-per-ip",
    "0",
];
/// What is measured, in the order of a [`Sample`].
pub(crate) const MEASURES: [&str; 9] = [
    "REGISTER, few: server CPU, us",
    "REGISTER, few: per second",
    "DISCOVER, few: server CPU, us",
    "DISCOVER, few: per second",
    "REGISTER, many: server CPU, us",
    "REGISTER, many: per second",
    "DISCOVER, many: server CPU, us",
    "DISCOVER, many: per second",
    "memory per registration, bytes",
];

/// The value of each measure.
#[derive(Clone, Debug)]
pub(crate) struct Sample(pub(crate) [f64; MEASURES.len()]);

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in MEASURES.iter().zip(self.0) {
            write!(f, "{name} {value:.0}; ")?;
        }
        Ok(())
    }
}

/// Why there is no sample.
pub(crate) enum Skip {
    /// Others used this much of a core.
    Noise(f64),
    Failed(Failure),
}

impl<E: Into<Failure>> From<E> for Skip {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// A program that is a point.
pub(crate) struct Contender {
    name: &'static str,
    program: PathBuf,
    flags: &'static [&'static str],
    /// Most registrations of a peer that can be renewed.
    most: usize,
}

impl Contender {
    /// Ours is the first.
    pub(crate) fn all(given: &Given) -> Result<[Self; 2], Failure> {
        Ok([
            Self { name: "peerless", program: given.peerless()?, flags: &UNLIMITED, most: usize::MAX },
            // Of 32 that a peer may have, it refuses to renew any.
            Self { name: "rust-libp2p", program: given.rust_peer()?, flags: &[], most: 31 },
        ])
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Whether each client may have so many registrations.
    pub(crate) fn allows(&self, each: usize) -> bool {
        each <= self.most
    }

    /// Measures one life of a point, and the memory of another one, which answers no questions meanwhile.
    pub(crate) fn sample(&self, options: &Options) -> Result<Sample, Skip> {
        let usage = Usage::now()?;
        let (point, mut load) = self.start(options)?;
        let (each, page) = (usize::from(options.each), usize::from(options.page));
        load.ask(registrations(load.len(), page, 0..1))?;
        let [a, b, c, d] = costs(&point, &mut load, options, 1)?;
        load.ask(registrations(load.len(), page, 1..each))?;
        let [e, f, g, h] = costs(&point, &mut load, options, each)?;
        // Once it has ended its time is among our own.
        drop((point, load));

        let (point, mut load) = self.start(options)?;
        load.ask(registrations(load.len(), page, 0..1))?;
        let before = point.rss_bytes()?;
        load.ask(registrations(load.len(), page, 1..each))?;
        let bytes = (point.rss_bytes()? - before) / (load.len() * (each - 1)) as f64;
        let others = Usage::now()?.others_since(&usage, point.cpu_seconds()?);
        if others > options.noise {
            return Err(Skip::Noise(others));
        }
        Ok(Sample([a, b, c, d, e, f, g, h, bytes]))
    }

    /// A point and its clients.
    fn start(&self, options: &Options) -> Result<(Process, Load), Failure> {
        let mut command = Command::new(&self.program);
        command.args(["--json", "rendezvous", "--listen", LOOPBACK]).args(self.flags);
        let point = Process::start(self.name, &mut command)?;
        let listening = point.wait_for("listening", START_TIME)?;
        let address: Multiaddr = listening["address"].as_str().unwrap_or_default().parse()?;
        Ok((point, Load::connect(&address, options.clients.into())?))
    }
}

/// These of each client's registrations, so many of which share a namespace as make a page.
fn registrations(clients: usize, page: usize, nths: Range<usize>) -> impl Iterator<Item = (usize, Request)> {
    let of_all = move |nth| (0..clients).map(move |client| (client, nth));
    nths.flat_map(of_all).map(move |(client, nth)| (client, Request::Register(namespace(client / page, nth))))
}

fn namespace(group: usize, nth: usize) -> String {
    format!("bench/{group}/{nth}")
}

/// CPU and rate of renewals, and of questions for a page, while every client has `each` registrations.
fn costs(point: &Process, load: &mut Load, options: &Options, each: usize) -> Result<[f64; 4], Failure> {
    let (clients, count, page) = (load.len(), options.requests as usize, usize::from(options.page));
    let groups = clients / page;
    // Neighbours in time are not neighbours in the tables.
    let spread = |n: usize| (n * 7919) % clients;
    let renewals = (0..count).map(|n| {
        let client = spread(n);
        (client, Request::Register(namespace(client / page, n * 613 % each)))
    });
    let questions = (0..count).map(|n| {
        let asked = namespace(n % groups, n / groups % each);
        (spread(n), Request::Discover(asked, page))
    });
    let [register, register_rate] = cost(point, count, || load.ask(renewals))?;
    let [discover, discover_rate] = cost(point, count, || load.ask(questions))?;
    Ok([register, register_rate, discover, discover_rate])
}

/// Processor time of the point per request in microseconds, and requests per second.
fn cost(
    point: &Process,
    count: usize,
    work: impl FnOnce() -> Result<(), Failure>,
) -> Result<[f64; 2], Failure> {
    let (cpu, start) = (point.cpu_seconds()?, Instant::now());
    work()?;
    let (cpu, seconds) = (point.cpu_seconds()? - cpu, start.elapsed().as_secs_f64());
    Ok([cpu * 1e6 / count as f64, count as f64 / seconds])
}
