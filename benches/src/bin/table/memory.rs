//! What peers that do nothing cost the relay in memory.

use std::{process::Command, thread, time::Duration};

use crate::{
    board::{Measure, Wanted, Wanted::Below},
    sections::Values,
    stage::{Bench, QUINN, Skip, wait_for},
};

/// How long what is going on is given to end before memory is looked at.
const SETTLE: Duration = Duration::from_millis(1500);
/// Most circuits: setting them up takes the ends long.
const MAX_CIRCUITS: usize = 2000;

pub(crate) fn measures(peers: usize) -> Vec<Measure> {
    let connection: &[Wanted] = &[Below(40.0)];
    let reservation: &[Wanted] = &[Below(41.0)];
    let rows = [
        ("connection", "idle connection", connection),
        ("reservation", "reservation, connection included", reservation),
        ("circuit", "idle circuit, on top", &[]),
    ];
    let row = |(key, label, wanted)| Measure {
        key: format!("{key}_{peers}"),
        label: format!("{peers} peers: RSS per {label}, KiB"),
        digits: 1,
        wanted,
    };
    rows.map(row).into()
}

pub(crate) fn sample(bench: &Bench, column: &str, peers: &[usize]) -> Result<Values, Skip> {
    let mut values = Vec::new();
    for peers in peers {
        values.extend(at(bench, column, *peers)?);
    }
    Ok(values)
}

fn at(bench: &Bench, column: &str, peers: usize) -> Result<Values, Skip> {
    let quinn = column == QUINN;
    let (relay, address) =
        if quinn { bench.quinn(&["hold", "127.0.0.1:0"])? } else { bench.relay(column)? };
    // What comes with the first few is not counted.
    let mut command = Command::new(&bench.programs.crowd);
    command.args(["gather", &address, "--peers", "8", "--pause", "0.1", "--connect-only"]);
    crate::stage::run_for("connected", &mut command)?;
    thread::sleep(SETTLE);
    let empty = relay.rss_bytes()?;
    let circuits = peers.min(MAX_CIRCUITS);
    let (count, some) = (peers.to_string(), circuits.to_string());
    let mut args = vec!["gather", &address, "--peers", &count, "--circuits", &some];
    args.extend(quinn.then_some("--connect-only"));
    let crowd = bench.crowd(&args)?;
    let look = |event: &str| {
        wait_for(&crowd, event)?;
        thread::sleep(SETTLE);
        relay.rss_bytes()
    };
    let per = |bytes: f64, count: usize| bytes / 1024.0 / count as f64;
    let connected = look("connected")?;
    let mut values = vec![(format!("connection_{peers}"), per(connected - empty, peers))];
    if !quinn {
        let reserved = look("reserved")?;
        values.push((format!("reservation_{peers}"), per(reserved - empty, peers)));
        let full = look("circuits")?;
        values.push((format!("circuit_{peers}"), per(full - reserved, circuits)));
    }
    crowd.join()?;
    Ok(values)
}
