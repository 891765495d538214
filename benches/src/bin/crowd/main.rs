//! Many peers in one process, for `table`: the ends of circuits, and crowds at a relay. Prints NDJSON.

// A bench is what reads clocks.
#![allow(clippy::disallowed_methods)]

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand};
use peerless_benches::crowd::Crowd;
use peerless_core::{
    Multiaddr,
    ids::{ConnectionId, DialId, StreamId},
    names::ProtocolName,
    node::{AppStreamEvent, Event, Read},
    protocols::relay::client,
    time::Instant,
};
use serde_json::{Value, json};

mod gather;
mod measure;
mod serve;

/// Bytes without end, as soon as the stream is there.
const SOURCE: ProtocolName = ProtocolName::from_static("/bench/source/1.0.0");
/// The same bytes back.
const ECHO: ProtocolName = ProtocolName::from_static("/echo/1.0.0");
/// More than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

type Failure = Box<dyn std::error::Error>;

#[derive(Parser)]
#[command(name = "crowd", about = "Many peers in one process; the ends of what `table` measures")]
struct Options {
    #[command(subcommand)]
    job: Job,
}

#[derive(Subcommand)]
enum Job {
    /// Serve bytes and echo, directly or through a relay, until killed
    Serve {
        /// How many peers
        #[arg(long, default_value_t = 1)]
        peers: usize,
        /// Where each of them reserves
        #[arg(long)]
        relay: Option<Multiaddr>,
    },
    /// One peer per address reads what it is sent for some time
    Pull {
        addresses: Vec<Multiaddr>,
        /// How long before it is measured
        #[arg(long, default_value_t = 1.0)]
        warm_up: f64,
        /// How long it is measured
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
    },
    /// Round trips of a few bytes on one stream
    Echo {
        address: Multiaddr,
        #[arg(long, default_value_t = 2000)]
        count: usize,
    },
    /// Peers that are connected to the relay dial an address through it
    Open {
        address: Multiaddr,
        #[arg(long, default_value_t = 50)]
        count: usize,
        /// All at the same moment
        #[arg(long)]
        at_once: bool,
    },
    /// Peers connect and sit there; then each reserves; then each opens a circuit to the next one. After each of the
    /// three comes a pause, in which it can be seen what they cost
    Gather(Gather),
}

#[derive(Args)]
struct Gather {
    pub(crate) relay: Multiaddr,
    #[arg(long, default_value_t = 1000)]
    pub(crate) peers: usize,
    /// They only connect
    #[arg(long)]
    pub(crate) connect_only: bool,
    /// How many of them open a circuit (default: all)
    #[arg(long)]
    pub(crate) circuits: Option<usize>,
    /// How many are at it at the same time
    #[arg(long, default_value_t = 16)]
    pub(crate) at_once: usize,
    /// Seconds
    #[arg(long, default_value_t = 3.0)]
    pub(crate) pause: f64,
}

fn main() -> ExitCode {
    match run(Options::parse().job) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print(&json!({ "event": "error", "message": error.to_string() }));
            ExitCode::FAILURE
        }
    }
}

fn run(job: Job) -> Result<(), Failure> {
    let mut crowd = Crowd::new()?;
    match job {
        Job::Serve { peers, relay } => serve::run(&mut crowd, peers, relay),
        Job::Pull { addresses, warm_up, seconds } => {
            measure::pull(&mut crowd, &addresses, [warm_up, seconds].map(Duration::from_secs_f64))
        }
        Job::Echo { address, count } => measure::echo(&mut crowd, &address, count),
        Job::Open { address, count, at_once } => measure::open(&mut crowd, &address, count, at_once),
        Job::Gather(args) => gather::run(&mut crowd, &args),
    }
}

fn print(line: &Value) {
    println!("{line}");
}

/// Dials from each of the given nodes, `at_once` at a time; the connections, in that order.
fn dial_all(
    crowd: &mut Crowd,
    dials: &[(usize, Multiaddr)],
    at_once: usize,
) -> Result<Vec<ConnectionId>, Failure> {
    let mut pending: BTreeMap<(usize, DialId), usize> = BTreeMap::new();
    let mut done = vec![None; dials.len()];
    let mut next = 0;
    loop {
        while next < dials.len() && pending.len() < at_once {
            let (member, address) = &dials[next];
            let (node, now) = crowd.node(*member);
            pending.insert((*member, node.dial(now, None, std::slice::from_ref(address))), next);
            next += 1;
        }
        if pending.is_empty() {
            return Ok(done.into_iter().flatten().collect());
        }
        match event(crowd)? {
            (member, Event::Dialed { dial, connection, .. }) => {
                if let Some(index) = pending.remove(&(member, dial)) {
                    done[index] = Some(connection);
                }
            }
            (member, Event::DialFailed { dial, error, .. }) if pending.contains_key(&(member, dial)) => {
                return Err(format!("dial of {}: {error}", dials[pending[&(member, dial)]].1).into());
            }
            _ => {}
        }
    }
}

/// Has each of the nodes reserve, `at_once` at a time; one circuit address of each.
fn reserve_all(
    crowd: &mut Crowd,
    relay: &Multiaddr,
    members: &[usize],
    at_once: usize,
) -> Result<Vec<Multiaddr>, Failure> {
    let mut addresses: BTreeMap<usize, Multiaddr> = BTreeMap::new();
    let mut next = 0;
    while addresses.len() < members.len() {
        while next < members.len() && next - addresses.len() < at_once {
            let (node, now) = crowd.node(members[next]);
            node.reserve(now, relay.clone())?;
            next += 1;
        }
        match event(crowd)? {
            (member, Event::Reservation(client::Event::Reserved { .. })) => {
                let (node, _) = crowd.node(member);
                let address = format!("{relay}/p2p-circuit/p2p/{}", node.local_peer());
                addresses.insert(member, address.parse()?);
            }
            (_, Event::Reservation(client::Event::Failed { reason, .. })) => {
                return Err(format!("no reservation: {reason}").into());
            }
            (_, Event::Reservation(client::Event::Lost { reason, .. })) => {
                return Err(format!("reservation lost: {reason}").into());
            }
            _ => {}
        }
    }
    Ok(addresses.into_values().collect())
}

/// The next event of anybody, which has to come.
fn event(crowd: &mut Crowd) -> Result<(usize, Event), Failure> {
    let until = crowd.now() + PATIENCE;
    crowd.next(until)?.ok_or_else(|| format!("nothing happened for {} s", PATIENCE.as_secs()).into())
}

/// Reads all there is; how much that was.
fn drain(crowd: &mut Crowd, member: usize, stream: StreamId) -> Result<u64, Failure> {
    let (node, now) = crowd.node(member);
    let mut read = 0;
    loop {
        match node.read(now, stream, 64 << 10)? {
            Read::Data(data) => read += data.len() as u64,
            Read::Blocked => return Ok(read),
            Read::Finished => return Err("the stream has ended".into()),
        }
    }
}

/// Lets time pass; what happens to streams goes to `on_stream`. The loss of a stream or a connection is an error.
fn until(
    crowd: &mut Crowd,
    end: Instant,
    mut on_stream: impl FnMut(&mut Crowd, usize, StreamId) -> Result<(), Failure>,
) -> Result<(), Failure> {
    while let Some((member, event)) = crowd.next(end)? {
        match event {
            Event::Stream { event: AppStreamEvent::Reset(fault), .. } => {
                return Err(format!("a stream was lost: {fault}").into());
            }
            Event::Disconnected { reason, .. } => {
                return Err(format!("a connection was lost: {reason}").into());
            }
            Event::Stream { stream, .. } => on_stream(crowd, member, stream)?,
            _ => {}
        }
    }
    Ok(())
}
