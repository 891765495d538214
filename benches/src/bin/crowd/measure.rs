//! What ends see: throughput, round trips, and how long it takes to open circuits.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use peerless_benches::crowd::Crowd;
use peerless_core::{Multiaddr, ids::DialId, node::Event};
use serde_json::json;

use crate::{ECHO, Failure, PATIENCE, SOURCE, dial_all, drain, event, print, until};

/// Prints `started` when the time that counts begins, and `pulled` at its end.
pub(crate) fn pull(
    crowd: &mut Crowd,
    addresses: &[Multiaddr],
    [warm_up, duration]: [Duration; 2],
) -> Result<(), Failure> {
    let mut dials = Vec::new();
    for address in addresses {
        dials.push((crowd.add(&[SOURCE], 0)?, address.clone()));
    }
    // One after another: how many can be set up at the same time is measured elsewhere.
    let connections = dial_all(crowd, &dials, 1)?;
    let mut read = BTreeMap::new();
    for ((member, _), connection) in dials.iter().zip(connections) {
        let (node, now) = crowd.node(*member);
        read.insert((*member, node.open(now, connection, &SOURCE)?), 0);
    }
    let count = |crowd: &mut Crowd, member, stream, read: &mut BTreeMap<_, u64>| {
        if let Some(read) = read.get_mut(&(member, stream)) {
            *read += drain(crowd, member, stream)?;
        }
        Ok(())
    };
    let end = crowd.now() + warm_up;
    until(crowd, end, |crowd, member, stream| count(crowd, member, stream, &mut read))?;
    read.values_mut().for_each(|read| *read = 0);
    print(&json!({ "event": "started" }));
    let started = crowd.now();
    until(crowd, started + duration, |crowd, member, stream| count(crowd, member, stream, &mut read))?;
    let seconds = crowd.now().saturating_duration_since(started).as_secs_f64();
    let bytes: Vec<u64> = read.into_values().collect();
    print(&json!({ "event": "pulled", "bytes": bytes, "seconds": seconds }));
    Ok(())
}

/// What is sent there and back.
static MESSAGE: [u8; 64] = [7; 64];

/// Prints `echoed`, with the round trips in microseconds.
pub(crate) fn echo(crowd: &mut Crowd, address: &Multiaddr, count: usize) -> Result<(), Failure> {
    let member = crowd.add(&[ECHO], 0)?;
    let connection = dial_all(crowd, &[(member, address.clone())], 1)?[0];
    let (node, now) = crowd.node(member);
    let stream = node.open(now, connection, &ECHO)?;
    let mut micros = Vec::with_capacity(count);
    // The first ones warm up.
    for n in 0..count + count / 10 {
        let sent = crowd.now();
        let (node, now) = crowd.node(member);
        node.write(now, stream, &mut Bytes::from_static(&MESSAGE))?;
        let mut left = MESSAGE.len() as u64;
        while left > 0 {
            match crowd.next(sent + PATIENCE)? {
                Some((_, Event::Stream { .. })) => left -= drain(crowd, member, stream)?,
                Some(_) => {}
                None => return Err("no echo".into()),
            }
        }
        if n >= count / 10 {
            micros.push(crowd.now().saturating_duration_since(sent).as_secs_f64() * 1e6);
        }
    }
    micros.sort_by(f64::total_cmp);
    let [p50, p99] = [50, 99].map(|percent| micros[(micros.len() - 1) * percent / 100]);
    print(&json!({ "event": "echoed", "p50_us": p50, "p99_us": p99 }));
    Ok(())
}

/// Prints `opened`, with how long each dial took, in milliseconds.
pub(crate) fn open(
    crowd: &mut Crowd,
    address: &Multiaddr,
    count: usize,
    at_once: bool,
) -> Result<(), Failure> {
    let text = address.to_string();
    let (relay, _) = text.split_once("/p2p-circuit").ok_or("the address is no circuit's")?;
    let relay: Multiaddr = relay.parse()?;
    let mut to_relay = Vec::new();
    for _ in 0..count {
        to_relay.push((crowd.add(&[], 0)?, relay.clone()));
    }
    dial_all(crowd, &to_relay, 16)?;
    // Until identify has said all it has to say.
    let end = crowd.now() + Duration::from_millis(300);
    until(crowd, end, |_, _, _| Ok(()))?;
    let mut millis = Vec::new();
    let mut failed = 0;
    let members: Vec<usize> = to_relay.iter().map(|(member, _)| *member).collect();
    for members in members.chunks(if at_once { count } else { 1 }) {
        let started = crowd.now();
        let mut pending: Vec<(usize, DialId)> = Vec::new();
        for member in members {
            let (node, now) = crowd.node(*member);
            pending.push((*member, node.dial(now, None, std::slice::from_ref(address))));
        }
        while !pending.is_empty() {
            let (member, event) = event(crowd)?;
            let (dial, ok) = match event {
                Event::Dialed { dial, .. } => (dial, true),
                Event::DialFailed { dial, .. } => (dial, false),
                _ => continue,
            };
            if let Some(index) = pending.iter().position(|of| *of == (member, dial)) {
                pending.remove(index);
                failed += usize::from(!ok);
                millis.push(crowd.now().saturating_duration_since(started).as_secs_f64() * 1e3);
            }
        }
    }
    print(&json!({ "event": "opened", "millis": millis, "failed": failed }));
    Ok(())
}
