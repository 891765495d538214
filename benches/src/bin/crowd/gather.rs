//! A crowd at a relay that does nothing.

use std::time::Duration;

use peerless_benches::crowd::Crowd;
use serde_json::json;

use crate::{Failure, Gather, dial_all, print, reserve_all, until};

/// Prints `connected` with the seconds that took, `reserved` and `circuits`, and pauses after each.
pub(crate) fn run(crowd: &mut Crowd, args: &Gather) -> Result<(), Failure> {
    let Gather { relay, at_once, .. } = args;
    let pause = Duration::from_secs_f64(args.pause);
    let mut members = Vec::new();
    for _ in 0..args.peers {
        members.push(crowd.add(&[], 1)?);
    }
    let dials: Vec<_> = members.iter().map(|member| (*member, relay.clone())).collect();
    let begun = crowd.now();
    dial_all(crowd, &dials, *at_once)?;
    let seconds = crowd.now().saturating_duration_since(begun).as_secs_f64();
    rest(crowd, &json!({ "event": "connected", "seconds": seconds }), pause)?;
    if args.connect_only {
        return Ok(());
    }
    let addresses = reserve_all(crowd, relay, &members, *at_once)?;
    rest(crowd, &json!({ "event": "reserved" }), pause)?;
    let neighbours = addresses.iter().cycle().skip(1).cloned();
    let dials = members.iter().copied().zip(neighbours).take(args.circuits.unwrap_or(usize::MAX));
    dial_all(crowd, &dials.collect::<Vec<_>>(), *at_once)?;
    rest(crowd, &json!({ "event": "circuits" }), pause)
}

/// Lets time pass, in which nothing is asked for, and nobody may be lost.
fn rest(crowd: &mut Crowd, event: &serde_json::Value, pause: Duration) -> Result<(), Failure> {
    print(event);
    let end = crowd.now() + pause;
    until(crowd, end, |_, _, _| Ok(()))
}
