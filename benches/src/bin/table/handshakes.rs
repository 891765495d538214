//! What it costs to be connected to, and to stay so.

use std::{process::Command, thread, time::Duration};

use crate::{
    board::{
        Measure,
        Wanted::{self, AtMost},
    },
    sections::Values,
    stage::{Bench, QUINN, RUST, Skip, number, run_for, wait_for},
};

/// Peers, each with an identity of its own, so that no session is resumed.
const PEERS: u32 = 1000;
/// How many connect at the same time.
const AT_ONCE: &str = "8";
/// How long they sit there: two of our keep-alives, six of rust-libp2p's.
const IDLE: Duration = Duration::from_secs(30);
/// Before they count as idle.
const SETTLE: Duration = Duration::from_secs(2);

pub(crate) fn measures() -> Vec<Measure> {
    let handshake: &[Wanted] = &[AtMost(0.6, RUST)];
    let idle: &[Wanted] = &[AtMost(0.5, RUST)];
    let rows = [
        ("cpu", "the relay's CPU each, ms", 2, handshake),
        ("rate", "8 at a time, connections/s", 0, &[]),
        ("idle", "the relay's CPU for an idle one, us/s", 1, idle),
    ];
    rows.map(|(key, label, digits, wanted)| Measure { key: key.into(), label: label.into(), digits, wanted })
        .into()
}

pub(crate) fn sample(bench: &Bench, column: &str) -> Result<Values, Skip> {
    let quinn = column == QUINN;
    let (relay, address) =
        if quinn { bench.quinn(&["hold", "127.0.0.1:0"])? } else { bench.relay(column)? };
    // What comes with the first few is not counted.
    let mut few = Command::new(&bench.programs.crowd);
    few.args(["gather", &address, "--peers", "8", "--pause", "0.1", "--connect-only"]);
    run_for("connected", &mut few)?;
    let (peers, pause) = (PEERS.to_string(), (SETTLE + IDLE + SETTLE).as_secs().to_string());
    let args =
        ["gather", &address, "--peers", &peers, "--at-once", AT_ONCE, "--connect-only", "--pause", &pause];
    let work = || {
        let before = relay.cpu_seconds()?;
        let crowd = bench.crowd(&args)?;
        let seconds = number(&wait_for(&crowd, "connected")?, "seconds")?;
        let cpu = relay.cpu_seconds()? - before;
        thread::sleep(SETTLE);
        let before = relay.cpu_seconds()?;
        thread::sleep(IDLE);
        let idle = relay.cpu_seconds()? - before;
        crowd.join()?;
        Ok([cpu, seconds, idle])
    };
    let ([cpu, seconds, idle], _) = bench.watch(&[&relay], work)?;
    let peers = f64::from(PEERS);
    Ok(vec![
        ("cpu".into(), cpu / peers * 1e3),
        ("rate".into(), peers / seconds),
        ("idle".into(), idle / peers / IDLE.as_secs_f64() * 1e6),
    ])
}
