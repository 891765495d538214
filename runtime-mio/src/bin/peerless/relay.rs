//! `peerless relay`.

use std::{net::SocketAddr, time::Duration};

use peerless_core::{event::CircuitLimit, protocols::relay::hop};

use crate::{
    Failure,
    cli::{Common, RelayArgs},
    report::Reporter,
    session::{Session, Setup},
};

/// What stands on the wire for a reservation without an end.
const A_YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Relays until a signal comes.
pub(crate) fn run(common: &Common, args: &RelayArgs, report: Reporter) -> Result<(), Failure> {
    let setup = Setup { listen: listen(args), hop: Some(config(args)), protocols: Vec::new() };
    Session::open(common, setup, report)?.serve(|_, _| {})
}

fn listen(args: &RelayArgs) -> Vec<SocketAddr> {
    if args.listen.is_empty() {
        return vec![([0; 4], 4001).into(), ([0_u16; 8], 4001).into()];
    }
    args.listen.clone()
}

fn config(args: &RelayArgs) -> hop::Config {
    hop::Config {
        max_reservations: args.max_reservations,
        max_circuits: args.max_circuits,
        max_circuits_per_peer: args.max_circuits_per_peer,
        reservation_ttl: if args.reservation_ttl.is_zero() { A_YEAR } else { args.reservation_ttl },
        limit: CircuitLimit { duration: Some(args.circuit_duration), data: Some(args.circuit_bytes) },
        ..hop::Config::default()
    }
}
