//! `peerless listen`.

use std::net::SocketAddr;

use peerless_core::protocols::relay::client::{AutoRelay, When};
use peerless_mio::Runtime;

use crate::{
    Failure,
    app::{App, ECHO, PERF, STREAMS_PER_PEER},
    cli::{Common, ListenArgs},
    report::Reporter,
    session::{Session, Setup},
};

/// Serves until a signal comes.
pub(crate) fn run(common: &Common, args: &ListenArgs, report: Reporter) -> Result<(), Failure> {
    let setup = Setup {
        listen: listen(&args.listen),
        announce: args.announce.clone(),
        store: args.store.clone(),
        metrics: args.metrics,
        auto_relay: AutoRelay {
            when: if args.auto_relay { When::Always } else { When::Never },
            bootstrap: args.bootstrap.clone(),
            ..AutoRelay::default()
        },
        protocols: vec![(PERF, STREAMS_PER_PEER), (ECHO, STREAMS_PER_PEER)],
        ..Setup::default()
    };
    let mut session = Session::open(common, setup, report)?;
    for relay in &args.relay {
        let (node, now) = session.runtime.node_mut();
        if let Err(error) = node.reserve(now, relay.clone()) {
            return session.close(Err(Failure::Failed(format!("no reservation at {relay}: {error}"))));
        }
    }
    let mut app = App::default();
    session.serve(|runtime: &mut Runtime, event| {
        let (node, now) = runtime.node_mut();
        app.handle(node, now, event);
    })
}

/// Where a peer listens that others learn the addresses of: any port will do.
pub(crate) fn listen(wanted: &[SocketAddr]) -> Vec<SocketAddr> {
    if wanted.is_empty() { vec![([0; 4], 0).into(), ([0_u16; 8], 0).into()] } else { wanted.to_vec() }
}
