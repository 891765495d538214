//! `peerless rendezvous`, and the same beside a relay.

use std::net::SocketAddr;

use peerless_core::protocols::rendezvous::server::{Config, Limits};

use crate::{
    Failure,
    cli::{Common, PointArgs, RendezvousArgs},
    report::Reporter,
    session::{Session, Setup},
};

/// Is a rendezvous point until a signal comes.
pub(crate) fn run(common: &Common, args: &RendezvousArgs, report: Reporter) -> Result<(), Failure> {
    let setup = Setup {
        listen: listen(&args.listen),
        announce: args.announce.clone(),
        rendezvous: Some(config(&args.point)?),
        store: args.store.clone(),
        metrics: args.metrics,
        ..Setup::default()
    };
    Session::open(common, setup, report)?.serve(|_, _| {})
}

/// Where whoever is to be found by others listens.
pub(crate) fn listen(wanted: &[SocketAddr]) -> Vec<SocketAddr> {
    if wanted.is_empty() {
        return vec![([0; 4], 4001).into(), ([0_u16; 8], 4001).into()];
    }
    wanted.to_vec()
}

/// What the flags say of the point.
pub(crate) fn config(args: &PointArgs) -> Result<Config, Failure> {
    let base = Config::default();
    let limits = Limits {
        max_registrations: args.max_registrations.unwrap_or(base.limits.max_registrations),
        max_per_peer: args.max_registrations_per_peer.unwrap_or(base.limits.max_per_peer),
        max_per_ip: args.max_registrations_per_ip.unwrap_or(base.limits.max_per_ip),
        max_per_namespace: args.max_registrations_per_namespace.unwrap_or(base.limits.max_per_namespace),
        min_ttl: args.min_ttl.unwrap_or(base.limits.min_ttl),
        max_ttl: args.max_ttl.unwrap_or(base.limits.max_ttl),
        max_record: args.max_record.map_or(base.limits.max_record, |max| max as usize),
        max_page: args.max_page.unwrap_or(base.limits.max_page),
        request_rate_per_peer: args.request_rate.unwrap_or(base.limits.request_rate_per_peer),
        request_rate_per_ip: args.request_rate_per_ip.unwrap_or(base.limits.request_rate_per_ip),
    };
    let default_ttl = args.default_ttl.unwrap_or(base.default_ttl.max(limits.min_ttl).min(limits.max_ttl));
    if limits.min_ttl > limits.max_ttl {
        return Err(Failure::Usage("--min-ttl must not be longer than --max-ttl".into()));
    }
    if !(limits.min_ttl..=limits.max_ttl).contains(&default_ttl) {
        return Err(Failure::Usage("--default-ttl must lie between --min-ttl and --max-ttl".into()));
    }
    Ok(Config { limits, default_ttl, accept_unsigned: !args.signed_only, ..base })
}
