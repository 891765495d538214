//! `peerless relay`.

use std::time::Duration;

use peerless_core::protocols::relay::{hop, limits::RelayLimits};

use crate::{
    Failure,
    cli::{Common, LimitArgs, PointArgs, Preset, RelayArgs},
    rendezvous,
    report::Reporter,
    session::{Session, Setup},
    settings::Settings,
};

/// What stands on the wire for a reservation without an end.
const A_YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Relays until a signal comes.
pub(crate) fn run(common: &Common, args: &RelayArgs, report: Reporter) -> Result<(), Failure> {
    if !args.rendezvous && args.point != PointArgs::default() {
        return Err(Failure::Usage("the limits of registrations need --rendezvous".into()));
    }
    let settings = Settings::load(common.config.as_deref())?;
    let setup = Setup {
        listen: rendezvous::listen(&args.listen),
        announce: args.announce.clone(),
        window: Some(args.window),
        hop: Some(config(args, settings.relay)),
        rendezvous: if args.rendezvous { Some(rendezvous::config(&args.point)?) } else { None },
        store: args.store.clone(),
        metrics: args.metrics,
        ..Setup::default()
    };
    Session::open(common, setup, report)?.serve(|_, _| {})
}

fn config(args: &RelayArgs, file: LimitArgs) -> hop::Config {
    let reservation_ttl = if args.reservation_ttl.is_zero() { A_YEAR } else { args.reservation_ttl };
    hop::Config { reservation_ttl, ..limits(args.preset, &args.limits.clone().or(file)).into() }
}

fn limits(preset: Preset, args: &LimitArgs) -> RelayLimits {
    let base = match preset {
        Preset::Public => RelayLimits::public(),
        Preset::Broad => RelayLimits::broad(),
        Preset::Unlimited => RelayLimits::unlimited(),
    };
    RelayLimits {
        max_reservations: args.max_reservations.unwrap_or(base.max_reservations),
        max_reservations_per_ip: args.max_reservations_per_ip.unwrap_or(base.max_reservations_per_ip),
        max_reservations_per_v6_56: args
            .max_reservations_per_v6_56
            .unwrap_or(base.max_reservations_per_v6_56),
        max_reservations_per_v6_48: args
            .max_reservations_per_v6_48
            .unwrap_or(base.max_reservations_per_v6_48),
        reservation_rate_per_peer: args.reservation_rate.unwrap_or(base.reservation_rate_per_peer),
        reservation_rate_per_ip: args.reservation_rate_per_ip.unwrap_or(base.reservation_rate_per_ip),
        max_circuits: args.max_circuits.unwrap_or(base.max_circuits),
        max_circuits_per_source: args.max_circuits_per_peer.unwrap_or(base.max_circuits_per_source),
        max_circuits_per_target: args.max_circuits_per_peer.unwrap_or(base.max_circuits_per_target),
        max_circuits_per_ip: args.max_circuits_per_ip.unwrap_or(base.max_circuits_per_ip),
        circuit_rate_per_peer: args.circuit_rate.unwrap_or(base.circuit_rate_per_peer),
        circuit_rate_per_ip: args.circuit_rate_per_ip.unwrap_or(base.circuit_rate_per_ip),
        circuit_duration: args.circuit_duration.unwrap_or(base.circuit_duration),
        circuit_bytes: args.circuit_bytes.unwrap_or(base.circuit_bytes),
        circuit_byte_rate: args.circuit_byte_rate.unwrap_or(base.circuit_byte_rate),
        circuit_idle: args.circuit_idle.unwrap_or(base.circuit_idle),
        relay_byte_rate: args.relay_byte_rate.unwrap_or(base.relay_byte_rate),
        ..base
    }
}
